/* SPDX-License-Identifier: MIT */
/* bug.h - faults that are seeded on purpose.
 *
 * A simulator is worth what it finds. Each name below stands in one line of wire or session, which
 * then breaks one rule of the protocol; tests/sim builds these folders once more with SML_BUGS,
 * sets one bug at a time, and fails if it is not found. In what is shipped SML_BUG is 0, and the
 * compiler leaves nothing of it. */
#ifndef SML_BASE_BUG_H
#define SML_BASE_BUG_H

#ifdef SML_BUGS

#define SML_BUGS_OF_CALLEES(X)                                                                     \
    X(STALE_RUNS, "a call that was released is new when it comes again")                           \
    X(EVICTS_REPLY, "the oldest reply makes room, accepted or not")                                \
    X(NO_MEMORY_RUNS, "a call that there is no memory to remember runs all the same")              \
    X(CANCELLED_RUNS, "a call runs after it was told that it does not")                            \
    X(EXPIRED_RUNS, "a call begins after its deadline")                                            \
    X(LISTED_RELEASED, "a resume releases what is listed and waits")                               \
    X(EXPECTED_UNKNOWN, "after a restart, what was never stored counts as released")               \
    X(PLACEHOLDER_CHECKED, "a straggler is refused for the fingerprint that it has not")           \
    X(HI_NOT_RAISED, "a resume leaves the greatest number as it was")

#define SML_BUGS_OF_STORES(X)                                                                      \
    X(REPLY_BEFORE_COMMIT, "a verdict is told while it is being stored")                           \
    X(FAILURE_UNSTORED, "failures are told and not stored")                                        \
    X(LOST_TXN_TOLD, "the verdict of a transaction that was lost is told")                         \
    X(BASE_NOT_RAISED, "a record is forgotten, and base stays")                                    \
    X(BASE_IN_MEMORY, "base rises in memory only")                                                 \
    X(STRAGGLERS_DROPPED, "open calls below base are not stored with it")                          \
    X(KEYED_START_COMES, "a start that its key may stop counts as stored with base")               \
    X(DURABLE_HI_LOST, "what the store covers is forgotten in a restart")                          \
    X(AGAIN_AS_STARTED, "a call that had no effect is restored as running")                        \
    X(ROW_LOST, "a call that comes again has a second record")                                     \
    X(BEGUN_LOST, "a call that may have run ends as not executed")                                 \
    X(DOUBT_LOST, "a call without a record, of a method that keeps none, counts as not begun")     \
    X(PUT_BACK_UNSTORED, "a start that was put back stays in the store")                           \
    X(POISON_COUNT_LOST, "nobody counts how often a call killed its server")                       \
    X(ANSWERED_OVERWRITES, "a call that its key answered takes the key over")                      \
    X(KEY_FREED_ON_FAILURE, "a failure frees the key")                                             \
    X(PROVEN_UNSEEN, "nobody looked for the key, and all is proven")                               \
    X(KEYED_DISCARDED, "what a released call with a key did is discarded")                         \
    X(KEYED_CANCELLED, "releasing a call with a key stops its handler")

#define SML_BUGS_OF_HOSTS(X)                                                                       \
    X(RESUME_CREATES, "a session that is not there is made by resuming it")                        \
    X(CONN_NO_NOT_COMPARED, "a delayed HELLO takes the session back")                              \
    X(CONN_NO_NOT_STORED, "a delayed HELLO takes the session back after a restart")                \
    X(WELCOME_EARLY, "a session is welcomed before it is stored")                                  \
    X(OLD_BYTES, "an old connection is still listened to after a takeover")                        \
    X(EXPIRES_RUNNING, "a session expires while something runs in it")                             \
    X(DELETE_FORGOTTEN, "the record of a session that has ended stays")

#define SML_BUGS_OF_CALLERS(X)                                                                     \
    X(XID_REUSED, "the number of a call without a verdict is given again")                         \
    X(ACK_EARLY, "a verdict is released before the application has it")                            \
    X(NOT_EXECUTED_UNPROVEN, "no answer means that it did not happen")                             \
    X(BUSY_PROVES, "a BUSY after a restart means that it did not happen")                          \
    X(RERUN_PROVES, "what another session said of a call proves it all")                           \
    X(FINGERPRINT_DEADLINE, "the deadline is part of the fingerprint")                             \
    X(KEYED_ABANDONED, "a call with a key ends with its session")                                  \
    X(ORIGIN_LOST, "a call made again has another origin")                                         \
    X(KEY_AGE_LOST, "a key that was used before counts as new")                                    \
    X(CANCEL_LOST, "a cancellation is forgotten in a resume")                                      \
    X(RESENDS_ON_TIMER, "a call is sent again on a connection that lives")                         \
    X(PARTIAL_REPLY_KEPT, "half of a reply that was not stored is kept through a restart")

#define SML_BUGS_OF_LINKS(X)                                                                       \
    X(GENERATION_UNCHECKED, "another generation of the store is none of its business")             \
    X(ROLLBACK_UNCHECKED, "a store that knows less than before is none of its business")           \
    X(KEYED_ELSEWHERE, "calls with keys are made again wherever they are taken")                   \
    X(UNSAVED_SENT, "a connection's number is used before it is saved")                            \
    X(NUMBERS_NOT_RESERVED, "the next process gives numbers that were given")

#define SML_BUGS_OF_STREAMS(X)                                                                     \
    X(CREDIT_IGNORED, "parts are sent beyond their credit")                                        \
    X(PARTS_SKIPPED, "what a lost connection carried is not sent again")                           \
    X(ATTEMPTS_SPLICED, "a stream that begins again goes on where the last one broke")             \
    X(REPLY_OVERTAKES, "a reply is told before the parts that come before it")

#define SML_BUGS_OF_WIRE(X)                                                                        \
    X(RECORDED_LOST, "REPLY does not say what is stored")                                          \
    X(KEY_CUT, "the last byte of a key is lost")                                                   \
    X(ACK_ONE_MORE, "an ACK releases one call more")

#define SML_BUG_TABLE(X)                                                                           \
    SML_BUGS_OF_CALLEES(X)                                                                         \
    SML_BUGS_OF_STORES(X)                                                                          \
    SML_BUGS_OF_HOSTS(X)                                                                           \
    SML_BUGS_OF_CALLERS(X)                                                                         \
    SML_BUGS_OF_LINKS(X)                                                                           \
    SML_BUGS_OF_STREAMS(X)                                                                         \
    SML_BUGS_OF_WIRE(X)

enum sml_bug {
    SML_BUG_NONE,
#define SML_BUG_ENUM(name, text) SML_BUG_##name,
    SML_BUG_TABLE(SML_BUG_ENUM)
#undef SML_BUG_ENUM
        SML_BUG_COUNT
};

extern enum sml_bug sml_bug; /* the one that is there */

#define SML_BUG(name) (sml_bug == SML_BUG_##name)
#else
#define SML_BUG(name) 0
#endif

#endif
