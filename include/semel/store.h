/* SPDX-License-Identifier: MIT */
/* store.h - where a server keeps what must outlive it: sessions, calls, idempotency keys.
 *
 * A store is opened by the library of its kind (sqlite.h), looked at with the functions here, and
 * moved into a server by semel_server_create. One process at a time may hold a store; others may
 * open it read-only, to look. */
#ifndef SEMEL_STORE_H
#define SEMEL_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/bytes.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_store; /* thread: owner thread */

/* Close a store that was not moved into a server; NULL is fine.
 * Thread: owner thread. Blocks: while the last pages are written. Since: 0.2 */
SEMEL_API void semel_store_close(struct semel_store *store);

/* What is known of a store. `id` is random, drawn when the store was made; clients know it as their
 * server's. `generation`, 1 at first, rises when an operator declares that the store was restored
 * from a copy. */
struct semel_store_info {
    uint8_t id[16];
    uint64_t generation;
    uint64_t clock_ms; /* for how long it has been open in all: keys age by this */
};
/* Thread: owner thread. Since: 0.2 */
SEMEL_API void semel_store_info(const struct semel_store *store, struct semel_store_info *out_info);

/* A session as the store has it. */
struct semel_store_session {
    uint8_t id[16];
    bool has_ids; /* uid and gid of who made it, by the kernel's word */
    unsigned uid, gid;
    uint64_t connections;           /* the number of the last one accepted */
    uint64_t released;              /* calls up to this number are released, with exceptions */
    uint64_t calls, started, ended; /* records of its calls; of these, begun, and with a verdict */
    uint64_t crashed; /* of these, that ran when the server died, and will run again */
    uint64_t bytes;   /* of stored replies */
};

/* A call as the store has it. All borrowed for the callback. */
struct semel_store_call {
    uint8_t session[16];
    uint64_t call; /* its number */
    const char *method;
    const char *key;  /* "" for none */
    bool started;     /* begun, no verdict yet */
    bool ended;       /* has the verdict that follows */
    unsigned crashes; /* how often the server died while it ran */
    enum semel_outcome outcome;
    enum semel_status status;
    int code;
    const char *text;
    struct semel_bytes body;
};

/* Called once for each; false ends the walk. */
typedef bool (*semel_store_session_fn)(const struct semel_store_session *session, void *user);
typedef bool (*semel_store_call_fn)(const struct semel_store_call *call, void *user);

/* Walk over the sessions, oldest first; over the calls of one session (16 bytes), or of all with
 * NULL, in the order of their records.
 * Returns: OK; STORE_CORRUPT (a record is damaged), NO_MEMORY, STORE_FAILED. Thread: owner thread.
 * Blocks: reads. Since: 0.2 */
SEMEL_API enum semel_status semel_store_each_session(struct semel_store *store,
                                                     semel_store_session_fn fn, void *user)
    SEMEL_MUST_USE;
SEMEL_API enum semel_status semel_store_each_call(struct semel_store *store, const uint8_t *session,
                                                  semel_store_call_fn fn, void *user)
    SEMEL_MUST_USE;

/* Forget a session (16 bytes) with all its calls: its client is told SESSION_LOST. Keys stay.
 * Returns: OK; INVALID (there is none); WOULD_DEADLOCK (inside a transactional handler);
 * STORE_READ_ONLY, STORE_FULL, STORE_FAILED (nothing changed).
 * Thread: owner thread. Blocks: until it is durable. Since: 0.2 */
SEMEL_API enum semel_status semel_store_forget_session(struct semel_store *store,
                                                       const uint8_t *session) SEMEL_MUST_USE;

/* Declare that the store was restored from a copy: its generation rises, its sessions are
 * forgotten, and what clients had outstanding is unknown to them. Keys stay.
 * Returns: as semel_store_forget_session. Thread: owner thread. Since: 0.2 */
SEMEL_API enum semel_status semel_store_renew(struct semel_store *store) SEMEL_MUST_USE;

/* Why the last operation on `store` failed, in words that name the file. Borrowed until the next.
 * Thread: owner thread. Since: 0.2 */
SEMEL_API const char *semel_store_error(const struct semel_store *store);

#ifdef __cplusplus
}
#endif
#endif
