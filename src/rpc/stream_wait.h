/* SPDX-License-Identifier: MIT */
/* stream_wait.h - a word to sleep on until there are news, and when a burst of parts is written. */
#ifndef SML_RPC_STREAM_WAIT_H
#define SML_RPC_STREAM_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/time.h"
#include "os/clock.h"
#include "os/futex.h"

/* A part that comes so soon after another was written is left to the thread that reads, which
 * writes many at once; from so many bytes, or parts, on it is not. */
#define SML_BURST_NS 50000
#define SML_BURST_BYTES 16384
#define SML_BURST_PARTS 256
/* After a read of at least SML_BURST_BYTES more is likely to come at once. So long its reader looks
 * before it sleeps: else the sender pays for a wake with each write. */
#define SML_LOOK_NS 10000

struct sml_news {
    _Atomic uint32_t word; /* changes with each news */
    _Atomic uint32_t sleepers;
};

static inline void sml_news_tell(struct sml_news *news)
{
    atomic_fetch_add(&news->word, 1);
    if (atomic_load(&news->sleepers) > 0)
        sml_futex_wake(&news->word, INT32_MAX);
}

/* Those who were told something under a lock, and are woken without it: they want it at once. */
struct sml_sleepers {
    uint32_t count;
    _Atomic uint32_t *words[8]; /* to the system a name: nothing need be there any more */
};

static inline void sml_news_tell_later(struct sml_news *news, struct sml_sleepers *sleepers)
{
    if (sleepers->count == sizeof sleepers->words / sizeof *sleepers->words) {
        sml_news_tell(news);
        return;
    }
    atomic_fetch_add(&news->word, 1);
    if (atomic_load(&news->sleepers) > 0)
        sleepers->words[sleepers->count++] = &news->word;
}

static inline void sml_sleepers_wake(struct sml_sleepers *sleepers)
{
    while (sleepers->count > 0)
        sml_futex_wake(sleepers->words[--sleepers->count], INT32_MAX);
}

/* Look at this first, then at what the news are about, then wait. */
static inline uint32_t sml_news_seen(struct sml_news *news)
{
    return atomic_load(&news->word);
}

/* False: nothing new until then. */
static inline bool sml_news_wait(struct sml_news *news, uint32_t seen, uint64_t until)
{
    enum sml_futex_result result = SML_FUTEX_WOKEN;

    atomic_fetch_add(&news->sleepers, 1);
    while (atomic_load(&news->word) == seen && result != SML_FUTEX_TIMED_OUT)
        result = sml_futex_wait(&news->word, seen, until);
    atomic_fetch_sub(&news->sleepers, 1);
    return atomic_load(&news->word) != seen;
}

/* The end of a wait of timeout_ms; 0: it does not wait. */
static inline uint64_t sml_stream_until(int64_t timeout_ms)
{
    if (timeout_ms == 0)
        return 0;
    if (timeout_ms < 0)
        return SML_NEVER;
    return sml_time_add(sml_clock_now(), sml_time_min((uint64_t)timeout_ms, UINT32_MAX) * SML_MS);
}

#endif
