/* SPDX-License-Identifier: MIT */
/* client_outbox.h - the client's side of an outbox: calls are written down before they are sent,
 * and their results before they are acknowledged.
 *
 * One thread of its own talks to the file, so that no sync holds up the connection. What it is to
 * write is gathered in a queue while the last commit is under way, and goes in one transaction:
 *   POST     a new call; then it is submitted, and whoever posted it returns
 *   RESULT   then the server is acknowledged, and the result may be handed out
 *   FORGET   an accepted result
 *   AGAIN    nothing is written: a call that ended without a word from the server is submitted anew
 * and the link's identity, without which it sends nothing.
 *
 * A posted call's state says who has it:
 *   POSTING -> SUBMITTED -> ENDED -> READY -> HANDED -> FORGETTING -> gone
 *                  ^   |                                  a queue has it in POSTING, ENDED, AGAIN
 *                  +- AGAIN                               and FORGETTING
 * PARKED is one that the next process will submit: the client has stopped, or cannot go on.
 *
 * Locks: the client's lock first, then the outbox's. The file is used without any. */
#ifndef SML_RPC_CLIENT_OUTBOX_H
#define SML_RPC_CLIENT_OUTBOX_H

#include <semel/outbox.h>

#include "rpc/client_internal.h"
#include "session/outbox.h"
#include "store/outbox.h"

#define SML_OUTBOX_BUCKETS 4096
#define SML_OUTBOX_RETRY 100000000 /* ns; after the file took nothing, or a call ended unheard */

enum sml_posted_state {
    SML_POSTED_POSTING,
    SML_POSTED_SUBMITTED,
    SML_POSTED_AGAIN,
    SML_POSTED_ENDED,
    SML_POSTED_READY,
    SML_POSTED_HANDED,
    SML_POSTED_FORGETTING,
    SML_POSTED_PARKED
};

struct sml_posted {
    struct sml_record record; /* first */
    struct sml_list all;      /* every one; the outbox's lock, as the rest below */
    struct sml_list link;     /* in the queue, or ready */
    struct sml_posted *next_of_name, *next_of_id; /* in their buckets */
    uint32_t refs; /* 1 is that of all; 1 each is of those that await it */
    enum sml_posted_state state;
    uint64_t id; /* in the file; 0: not there yet */
    uint64_t posted_ms;
    struct semel_bytes tag;
    bool under_way; /* POSTING or FORGETTING: until the file has taken it, or not: `status` */
    enum semel_status status;
    bool withdrawn; /* the client's lock */
    struct sml_verdict verdict;
    uint8_t *reply; /* what the verdict points into */
    uint64_t again_at;
    char bytes[]; /* method, content type, key, tag, body */
};

struct sml_client_outbox {
    struct semel_client *client;
    struct semel_outbox *file;
    struct sml_thread thread;
    bool running;
    struct sml_mutex lock;
    struct sml_cond changed; /* for the thread, and for whoever waits */
    /* lock */
    struct sml_list all, queue, ready;
    struct sml_posted *by_name[SML_OUTBOX_BUCKETS]; /* by method and key */
    struct sml_posted *by_id[SML_OUTBOX_BUCKETS];   /* those that are in the file */
    uint64_t outstanding, results;
    bool save_wanted, stop, broken;
    enum semel_status status; /* broken: why */
    uint64_t retry_at;
    struct {
        uint64_t base, since; /* ms: what it showed when the boot clock showed that */
    } clock;
    uint32_t waiting;                  /* threads */
    struct sml_link_identity identity; /* to be saved */
    /* The thread's. */
    bool complained;
    uint8_t *scratch;
    size_t scratch_bytes;
};

static inline struct sml_posted *sml_posted_of(struct sml_list *link)
{
    return SML_CONTAINER(link, struct sml_posted, link);
}

/* --- client_outbox_open.c ----------------------------------------------------------------- */

/* The outbox's clock: the date when it was opened, but never behind what the file knows, and then
 * the time that has passed, asleep or not. */
uint64_t sml_outbox_clock_ms(const struct sml_client_outbox *outbox);
/* By which a server's address is found again in another list. */
uint64_t sml_outbox_address_hash(const struct semel_client *client, uint32_t address);
/* With one reference; NULL: no memory. */
struct sml_posted *sml_posted_make(const struct sml_posted_record *record);
/* The machine is to take it as new. */
void sml_posted_renew(struct sml_posted *posted);
/* Make what its call's verdict points to its own. False: no memory. */
bool sml_posted_keep_verdict(struct sml_posted *posted);
/* Lock held, from here on. Among all, with its reference; and out of all again, without. */
void sml_outbox_enter(struct sml_client_outbox *outbox, struct sml_posted *posted);
void sml_outbox_leave(struct sml_client_outbox *outbox, struct sml_posted *posted);
/* The file has it, as posted->id. */
void sml_outbox_enter_id(struct sml_client_outbox *outbox, struct sml_posted *posted);
/* One reference less; the last frees it. */
void sml_posted_unref(struct sml_posted *posted);
/* The one with that method and key, or that id; NULL: none. */
struct sml_posted *sml_outbox_find(struct sml_client_outbox *outbox, const struct sml_call *call);
struct sml_posted *sml_outbox_find_id(const struct sml_client_outbox *outbox, uint64_t id);

/* --- client_outbox_run.c ------------------------------------------------------------------ */

/* The thread: `outbox` is a sml_client_outbox. */
void sml_outbox_main(void *outbox);

#endif
