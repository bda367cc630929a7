/* SPDX-License-Identifier: MIT */
/* kit.h - what the tests of client and server share: places, counts, waiting, a cutting relay. */
#ifndef SML_TESTS_KIT_H
#define SML_TESTS_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sanitizers make everything slower: what takes microseconds does not. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SLOW_BUILD 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER 1
#endif
#endif
#ifndef THREAD_SANITIZER
#define THREAD_SANITIZER 0
#endif
#ifndef SLOW_BUILD
#define SLOW_BUILD 0
#endif

/* A fresh socket path in a fresh directory; removed by kit_place_remove. */
struct kit_place {
    char directory[64];
    char path[96];
    char address[104]; /* "unix:PATH" */
};

void kit_place_make(struct kit_place *place);
void kit_place_remove(struct kit_place *place);

/* Descriptors and threads of this process, now. */
int kit_count_fds(void);
int kit_count_threads(void);

/* Wait until `test(arg)` holds, at most `seconds` (a guard against hanging, not a measure). */
bool kit_eventually(bool (*test)(void *arg), void *arg, double seconds);
/* Until the counts are at most these. */
bool kit_settled(int fds, int threads);

uint64_t kit_now_ms(void);
void kit_sleep_ms(int ms);

/* A relay between a place of its own and a target, both unix sockets; it cuts all its connections
 * when told to, or by itself every `cut_ms` (0: never). */
struct kit_relay;

struct kit_relay *kit_relay_start(const char *target_path, unsigned cut_ms, unsigned seed);
const char *kit_relay_address(const struct kit_relay *relay);
void kit_relay_cut(struct kit_relay *relay);
unsigned kit_relay_cuts(const struct kit_relay *relay);
/* Accept and forward nothing any more, but keep connections open. */
void kit_relay_mute(struct kit_relay *relay, bool mute);
void kit_relay_stop(struct kit_relay *relay);

#endif
