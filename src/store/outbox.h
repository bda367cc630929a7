/* SPDX-License-Identifier: MIT */
/* outbox.h - what a kind of outbox must be able to do: keep an identity, posted calls and their
 * results (session/outbox.h) as bytes. Passive; used by one thread at a time. Answers are those of
 * store.h. */
#ifndef SML_STORE_OUTBOX_H
#define SML_STORE_OUTBOX_H

#include <semel/outbox.h>

#include "store/store.h"

#define SML_OUTBOX_ABI 1

/* Called for each posted call, oldest first; `result.data` is NULL if there is none. False ends the
 * walk. The bytes are borrowed. */
typedef bool (*sml_posted_fn)(uint64_t id, struct semel_bytes call, struct semel_bytes result,
                              void *user);

struct sml_outbox_ops {
    void (*close)(struct semel_outbox *outbox);
    enum semel_status (*each)(struct semel_outbox *outbox, sml_posted_fn fn, void *user);
    /* Its bytes, at most `room`; *out_bytes 0: none was kept yet. */
    enum semel_status (*load_identity)(struct semel_outbox *outbox, uint8_t *out, size_t room,
                                       size_t *out_bytes);

    enum sml_stored (*begin)(struct semel_outbox *outbox);
    enum sml_stored (*add_call)(struct semel_outbox *outbox, struct semel_bytes call,
                                uint64_t *out_id);
    enum sml_stored (*put_result)(struct semel_outbox *outbox, uint64_t id,
                                  struct semel_bytes result);
    enum sml_stored (*forget)(struct semel_outbox *outbox, uint64_t id);
    enum sml_stored (*put_identity)(struct semel_outbox *outbox, struct semel_bytes identity);
    enum sml_stored (*commit)(struct semel_outbox *outbox);
    void (*rollback)(struct semel_outbox *outbox);
};

struct semel_outbox {
    const struct sml_outbox_ops *ops;
    uint32_t abi;             /* SML_OUTBOX_ABI */
    enum semel_status status; /* why the last operation failed */
    char text[512];
};

#endif
