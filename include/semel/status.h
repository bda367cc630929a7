/* SPDX-License-Identifier: MIT */
/* status.h - why a call or a function ended as it did.
 *
 * A status says *why*; the outcome beside it (enum semel_outcome) says whether the call
 * happened. Retries, exit codes and bindings are driven by the outcome. */
#ifndef SEMEL_STATUS_H
#define SEMEL_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SEMEL_API __attribute__((visibility("default")))
#define SEMEL_MUST_USE __attribute__((warn_unused_result))
#else
#define SEMEL_API
#define SEMEL_MUST_USE
#endif

/* The one table: name, text, category. Categories: OK; USAGE, the program's own mistake;
 * LOCAL, this machine's resources; LINK, the connection or the peer at its other end;
 * PROTOCOL, the two ends do not understand each other; CALL, the fate of one call. */
#define SEMEL_STATUS_TABLE(X)                                                                      \
    X(OK, 0, "ok", OK)                                                                             \
    X(INVALID, 1, "invalid argument", USAGE)                                                       \
    X(WOULD_DEADLOCK, 2, "would wait for its own thread", USAGE)                                   \
    X(ALREADY, 3, "already done", USAGE)                                                           \
    X(STOPPED, 4, "stopped", USAGE)                                                                \
    X(FORKED, 5, "handle belongs to the parent process", USAGE)                                    \
    X(BAD_ADDRESS, 6, "bad address", USAGE)                                                        \
    X(WOULD_BLOCK, 7, "nothing yet", USAGE)                                                        \
    X(NO_MEMORY, 10, "out of memory", LOCAL)                                                       \
    X(SYSTEM, 11, "operating system error", LOCAL)                                                 \
    X(ADDRESS_IN_USE, 12, "address in use", LOCAL)                                                 \
    X(LIMIT, 13, "a limit of this process is reached", LOCAL)                                      \
    X(NO_WORKERS, 14, "no worker process is left", LOCAL)                                          \
    X(CONNECT, 20, "cannot connect", LINK)                                                         \
    X(LINK_LOST, 21, "link lost", LINK)                                                            \
    X(PEER_DIED, 22, "peer died", LINK)                                                            \
    X(SESSION_LOST, 23, "session lost", LINK)                                                      \
    X(TAKEN_OVER, 24, "session taken over by a newer connection", LINK)                            \
    X(DENIED, 25, "not permitted", LINK)                                                           \
    X(DRAINING, 26, "server is draining", LINK)                                                    \
    X(PROTOCOL, 30, "protocol error", PROTOCOL)                                                    \
    X(VERSION, 31, "protocol version not supported", PROTOCOL)                                     \
    X(FALSE_RETRY, 32, "same call number, other contents", PROTOCOL)                               \
    X(FAILED, 40, "the handler reported failure", CALL)                                            \
    X(NO_METHOD, 41, "no such method", CALL)                                                       \
    X(TOO_LARGE, 42, "too large", CALL)                                                            \
    X(OVERLOADED, 43, "overloaded", CALL)                                                          \
    X(EXPIRED, 44, "deadline passed before it started", CALL)                                      \
    X(DEADLINE, 45, "deadline passed without a verdict", CALL)                                     \
    X(CANCELLED, 46, "cancelled", CALL)                                                            \
    X(DROPPED, 47, "the handler dropped the request", CALL)                                        \
    X(MAX_RUN, 48, "the handler ran longer than it may", CALL)                                     \
    X(HANDLER_DIED, 49, "what ran the handler died", CALL)                                         \
    X(ROLLED_BACK, 50, "its transaction was rolled back", CALL)                                    \
    X(POISONED, 51, "it crashed the server too often", CALL)                                       \
    X(KEY_MISMATCH, 52, "same key, other contents", CALL)                                          \
    X(KEY_EXPIRED, 53, "key older than keys are kept", CALL)                                       \
    X(NO_KEYS, 54, "the server keeps no keys", CALL)                                               \
    X(SERVER_DIED, 55, "the server died while it ran", CALL)                                       \
    X(END, 56, "end of the stream", CALL)                                                          \
    X(PARTS_LOST, 57, "parts of its stream are lost", CALL)                                        \
    X(NO_STREAM, 58, "no such stream at this method or server", CALL)                              \
    X(STORE_FAILED, 60, "the store failed", LOCAL)                                                 \
    X(STORE_LOCKED, 61, "the store is in use", LOCAL)                                              \
    X(STORE_FULL, 62, "no space left for the store", LOCAL)                                        \
    X(STORE_READ_ONLY, 63, "the store cannot be written", LOCAL)                                   \
    X(STORE_CORRUPT, 64, "the store is damaged", LOCAL)                                            \
    X(STORE_NEWER, 65, "the store is of a newer version", LOCAL)                                   \
    X(STORE_REPLACED, 66, "not the store that was here", LOCAL)                                    \
    X(STORE_ROLLED_BACK, 67, "the store was rolled back", LOCAL)

enum semel_status {
#define SEMEL_STATUS_ENUM(name, number, text, category) SEMEL_##name = number,
    SEMEL_STATUS_TABLE(SEMEL_STATUS_ENUM)
#undef SEMEL_STATUS_ENUM
};

enum semel_category {
    SEMEL_CATEGORY_OK,
    SEMEL_CATEGORY_USAGE,
    SEMEL_CATEGORY_LOCAL,
    SEMEL_CATEGORY_LINK,
    SEMEL_CATEGORY_PROTOCOL,
    SEMEL_CATEGORY_CALL
};

/* Did it happen?
 * VALUE         the handler's reply, byte for byte the same however often it is fetched
 * FAILURE       the handler ran and said no; stored and replayed like a value
 * NOT_EXECUTED  proven: no effect, now and for ever
 * UNKNOWN       it may have run, and may still */
enum semel_outcome { SEMEL_VALUE, SEMEL_FAILURE, SEMEL_NOT_EXECUTED, SEMEL_UNKNOWN };

/* The name of a status ("LINK_LOST"), its text ("link lost"), its category; an outcome's text
 * ("not executed"). Values outside the tables give "?" and SEMEL_CATEGORY_USAGE.
 * Returns: a static string, never NULL. Thread: any thread, signal-safe. Blocks: no.
 * Since: 0.1 */
SEMEL_API const char *semel_status_name(enum semel_status status);
SEMEL_API const char *semel_status_text(enum semel_status status);
SEMEL_API enum semel_category semel_status_category(enum semel_status status);
SEMEL_API const char *semel_outcome_text(enum semel_outcome outcome);

#ifdef __cplusplus
}
#endif
#endif
