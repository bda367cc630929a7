/* SPDX-License-Identifier: MIT */
/* result.h - from what the machine knows of a finished call to what the application gets. */
#ifndef SML_RPC_RESULT_H
#define SML_RPC_RESULT_H

#include <semel/client.h>

#include "session/caller.h"

/* What a result's pointers point into: one allocation, beside a reply that was moved in. */
struct sml_result_storage {
    uint8_t *moved;  /* a reply collected by the machine, or NULL */
    size_t capacity; /* of bytes */
    char bytes[];
};

/* NULL: no memory. */
struct sml_result_storage *sml_result_storage_new(size_t capacity);

/* A result that owns everything it points to. `peer` names the server; `why` says what is wrong
 * with the link, for an end that no reply brought (may be NULL). `storage` is used if it is large
 * enough, else released; it may be NULL. call->reply moves in. Without memory for a value's body
 * the result is unknown with NO_MEMORY; without memory for words it has none. */
void sml_result_own(struct semel_result *out, struct sml_call *call, const char *peer,
                    const char *why, struct sml_result_storage *storage);

/* A value whose body, method and peer are borrowed from the call and from `peer`: for a callback.
 * Only for a reply in place. */
void sml_result_borrow(struct semel_result *out, const struct sml_call *call, const char *peer);

/* A call that was never taken: not executed, because of `status`. */
void sml_result_refuse(struct semel_result *out, enum semel_status status, const char *method,
                       const char *peer, const char *why);

/* The room that sml_result_own needs for a value with that many bytes of body. */
size_t sml_result_value_bytes(size_t body_bytes, size_t method_bytes, const char *peer);

#endif
