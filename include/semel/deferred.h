/* SPDX-License-Identifier: MIT */
/* deferred.h - a result that comes later, and what is to be done with it then.
 *
 * A deferred fires once, with a value or a failure. The result goes through its callbacks in the
 * order in which they were added: a pair's on_value for a value, its on_failure for a failure; each
 * may change the result, turn one into the other, or return another deferred, whose result is
 * waited for and takes the place. What is added to a fired deferred runs at once, unless callbacks
 * of it are running: then after those. A chain of any length needs a constant amount of stack; what
 * is nested, a gathered one in a gathered one or a lock's body in a body, needs some for each
 * level. A circle of chains is refused; one that leads through a gathered one or a body is not
 * seen: it waits for ever.
 *
 * A deferred belongs to a loop, and its callbacks run on the loop's thread: at once if it is fired
 * there, else posted. One without a loop (NULL) belongs to the thread that created it.
 *
 * References. Who is given a deferred owns one reference, and gives it back by semel_deferred_unref
 * or by moving it: to semel_deferred_chain, as a callback's return value, to semel_deferred_gather.
 * Whoever is going to fire one holds a reference; a deferred holds those that wait for it.
 * Callbacks keep nothing alive: a deferred that all let go before it fired drops them uncalled;
 * others that waited for it fail with DROPPED. A failure that is there when the last reference
 * goes, and that nobody consumed, is reported once through the loop's log hook; but for a CANCELLED
 * that was asked for.
 *
 * What a result's value is, only its users know; `drop` frees it when the result is replaced, or
 * let go, on the loop's thread. */
#ifndef SEMEL_DEFERRED_H
#define SEMEL_DEFERRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/loop.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_deferred; /* shared */

#define SEMEL_FIRED_TEXT_BYTES 120 /* a failure's words, its NUL included; longer ones are cut */

/* What a deferred has fired with. In a callback it is changed by semel_fired_set_*; reading its
 * fields is always fine. */
struct semel_fired {
    enum semel_status status;          /* OK: a value; else why there is none */
    int code;                          /* of a failure; the application's */
    void *value;                       /* of a value; may be NULL; rarely beside a failure */
    void (*drop)(void *value);         /* frees it; NULL: nothing to free */
    char text[SEMEL_FIRED_TEXT_BYTES]; /* of a failure; "" for a value */
};

/* The result becomes a value (moved in) or a failure (status not OK; text copied, NULL for the
 * status's own); the value that was there is dropped first, unless it is the same pointer.
 * semel_fired_take moves the value out: what stays is a value NULL. Thread: the callback's.
 * Since: 0.3 */
SEMEL_API void semel_fired_set_value(struct semel_fired *fired, void *value,
                                     void (*drop)(void *value));
SEMEL_API void semel_fired_set_failure(struct semel_fired *fired, enum semel_status status,
                                       int code, const char *text);
SEMEL_API void *semel_fired_take(struct semel_fired *fired);

/* A callback. What it leaves in `fired` goes to the next. Returns NULL, or a deferred (moved) whose
 * result takes the place of `fired`: the one it belongs to waits for it. */
typedef struct semel_deferred *(*semel_fired_fn)(struct semel_fired *fired, void *user);

/* The deferred is cancelled: stop what would fire it. Returns false: unless it has fired by now,
 * it fails with CANCELLED at once, and firing it later is ALREADY; true: it waits on, and will be
 * fired with what comes of it. Called at most once, on the deferred's thread. */
typedef bool (*semel_canceller_fn)(struct semel_deferred *deferred, void *user);

/* out: one reference, owned by caller. loop: lent until the last reference is gone; may be NULL.
 * canceller: may be NULL. Returns: OK; NO_MEMORY. Thread: any thread. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_create(struct semel_deferred **out,
                                                  struct semel_loop *loop,
                                                  semel_canceller_fn canceller, void *user)
    SEMEL_MUST_USE;

/* One that has fired already, with a value or a failure. value: moved on OK. Returns: OK;
 * NO_MEMORY; INVALID: a failure of OK. Thread: any thread. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_value(struct semel_deferred **out,
                                                 struct semel_loop *loop, void *value,
                                                 void (*drop)(void *value)) SEMEL_MUST_USE;
SEMEL_API enum semel_status semel_deferred_failure(struct semel_deferred **out,
                                                   struct semel_loop *loop,
                                                   enum semel_status status, int code,
                                                   const char *text) SEMEL_MUST_USE;

/* Thread: any thread. NULL is fine. Since: 0.3 */
SEMEL_API struct semel_deferred *semel_deferred_ref(struct semel_deferred *deferred);
SEMEL_API void semel_deferred_unref(struct semel_deferred *deferred);

/* Fire it. value: moved on OK. Returns: OK (also once after it was cancelled without a canceller:
 * the result is dropped); ALREADY: it had fired, nothing was done; INVALID: a failure of OK, or it
 * waits for another deferred. Thread: any thread; without a loop the owner's. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_fire(struct semel_deferred *deferred, void *value,
                                                void (*drop)(void *value)) SEMEL_MUST_USE;
SEMEL_API enum semel_status semel_deferred_fail(struct semel_deferred *deferred,
                                                enum semel_status status, int code,
                                                const char *text) SEMEL_MUST_USE;

/* Add a pair; either may be NULL: then what it would have been called with passes by. Returns: OK;
 * NO_MEMORY, LIMIT; DENIED: the wrong thread. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_then(struct semel_deferred *deferred,
                                                semel_fired_fn on_value, semel_fired_fn on_failure,
                                                void *user) SEMEL_MUST_USE;

/* When `deferred` gets here, its result moves to `target`, which must not have fired; a value NULL
 * stays. Cancelling `target` cancels `deferred`. target: moved on OK. Returns: as then; INVALID:
 * target has fired, waits, or is the same one. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_chain(struct semel_deferred *deferred,
                                                 struct semel_deferred *target) SEMEL_MUST_USE;

/* Hold its callbacks back until as many resumes as pauses. Returns: OK; INVALID: resumed too often;
 * DENIED. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_pause(struct semel_deferred *deferred) SEMEL_MUST_USE;
SEMEL_API enum semel_status semel_deferred_resume(struct semel_deferred *deferred) SEMEL_MUST_USE;

/* If it has not fired, ask its canceller; if it waits for another one, cancel that; else nothing.
 * Thread: any thread; without a loop the owner's. Since: 0.3 */
SEMEL_API void semel_deferred_cancel(struct semel_deferred *deferred);

/* Cancel it unless its result gets here within timeout_ms (0 .. 2^31-1), that is through the
 * callbacks added before; for those added later it is then DEADLINE where this cancellation made
 * it CANCELLED. Returns: OK; INVALID: the range, or no loop; NO_MEMORY, LIMIT; DENIED.
 * Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_timeout(struct semel_deferred *deferred,
                                                   int64_t timeout_ms) SEMEL_MUST_USE;

/* What it has now: NULL before it fired, and while callbacks run, are paused or waited for.
 * Borrowed until the next call with this deferred. Thread: loop thread. Since: 0.3 */
SEMEL_API const struct semel_fired *semel_deferred_result(const struct semel_deferred *deferred);

/* Block until it has a result (then *out is that result, owned by caller: semel_fired_clear; the
 * deferred has a value NULL) or timeout_ms (negative: for ever) have passed. Returns: OK: look at
 * out->status; DEADLINE: not in time, nothing was done; WOULD_DEADLOCK: on the loop's own thread,
 * or in a callback of any; INVALID: it has no loop; NO_MEMORY; FORKED. Thread: any thread but the
 * loop's. Blocks: yes. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_wait(struct semel_deferred *deferred, int64_t timeout_ms,
                                                struct semel_fired *out) SEMEL_MUST_USE;
SEMEL_API void semel_fired_clear(struct semel_fired *fired);

/* When a deferred made of several fires. */
enum semel_gather_mode {
    SEMEL_GATHER_ALL,       /* when all have, with all results */
    SEMEL_GATHER_VALUES,    /* as ALL; but with the first failure as soon as there is one */
    SEMEL_GATHER_FIRST,     /* with the first value, then the rest is cancelled; a failure only if
                               all fail: FAILED, and its value is all the results */
    SEMEL_GATHER_ANY_RESULT /* with the first result, be it a failure; the rest goes on */
};

#define SEMEL_GATHER_CONSUME 0x10 /* or-ed to a mode: failures of the members count as handled */
#define SEMEL_GATHER_MEMBERS_MAX 1048576

/* The value of a gathered deferred. */
struct semel_gathered {
    size_t count;                /* results: all of them, or 1 with FIRST and ANY_RESULT */
    size_t index;                /* which member, with FIRST and ANY_RESULT */
    struct semel_fired *results; /* in the members' order */
};

/* One deferred out of `count`, which may be 0: then ALL and VALUES fire at once with none, FIRST
 * and ANY_RESULT are INVALID. Its value is a struct semel_gathered, freed with it. Values move
 * there; failures are copied, and are the members' still, unless they are consumed.
 * Cancelling it cancels all members, also those behind one that declines, and it fires with what
 * becomes of them. members: borrowed, each of them moved on OK. Returns: OK; INVALID: a number, a
 * mode, a member of another loop; NO_MEMORY; DENIED. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_deferred_gather(struct semel_deferred **out,
                                                  struct semel_loop *loop,
                                                  struct semel_deferred *const *members,
                                                  size_t count, unsigned mode) SEMEL_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
