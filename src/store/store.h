/* SPDX-License-Identifier: MIT */
/* store.h - what a kind of store must be able to do. Passive: no threads, no decisions.
 *
 * A store keeps three tables of records (session/record.h), as bytes: sessions and calls, found by
 * a number that the store gives, and keys, found by a hash. Changes are made in transactions. Used
 * by one thread at a time.
 *
 * Every answer is one of three. What is *not stored* will never be there: the transaction is gone,
 * and may be tried again. Of what is *unknown* nobody knows, and the store is of no more use: the
 * server must stop, and ask again when it has been restarted. */
#ifndef SML_STORE_STORE_H
#define SML_STORE_STORE_H

#include <stdatomic.h>

#include <semel/store.h>

#include "session/record.h"

#define SML_STORE_ABI 1 /* of the two structs below, across the libraries */

enum sml_stored { SML_STORED, SML_NOT_STORED, SML_STORE_UNKNOWN };

enum sml_store_table {
    SML_TABLE_SESSIONS,
    SML_TABLE_CALLS,
    SML_TABLE_UNFINISHED_KEYS /* only to be walked over: keys without a verdict */
};

/* The transactional handler that is running, should the process die of it. */
struct sml_mark {
    struct sml_session_id session;
    uint64_t xid;
    struct sml_fingerprint fingerprint;
    uint8_t crashes; /* counted before it ran */
    uint8_t method_bytes, key_bytes;
    char method[SEMEL_METHOD_BYTES + 1], key[SEMEL_KEY_BYTES + 1];
};

/* Called for each record, with its number; false ends the walk. The bytes are borrowed. */
typedef bool (*sml_record_fn)(uint64_t row, struct semel_bytes record, void *user);

struct sml_store_ops {
    void (*close)(struct semel_store *store);
    uint64_t (*clock_ms)(const struct semel_store *store);

    /* Outside of a transaction. OK, or why not. */
    enum semel_status (*each)(struct semel_store *store, enum sml_store_table table,
                              sml_record_fn fn, void *user);

    enum sml_stored (*begin)(struct semel_store *store);
    /* `*row` 0: a new record, whose number is set; else the record is replaced. */
    enum sml_stored (*put)(struct semel_store *store, enum sml_store_table table, uint64_t *row,
                           struct semel_bytes record);
    enum sml_stored (*forget)(struct semel_store *store, enum sml_store_table table, uint64_t row);
    /* The record of a key; its `data` is NULL if there is none. Borrowed until the next
     * operation. */
    enum sml_stored (*find_key)(struct semel_store *store, const uint8_t hash[32],
                                struct semel_bytes *out_record);
    /* `kept_since` is the store's clock when the verdict was made; 0: there is none yet. */
    enum sml_stored (*put_key)(struct semel_store *store, const uint8_t hash[32],
                               uint64_t kept_since, struct semel_bytes record);
    enum sml_stored (*forget_key)(struct semel_store *store, const uint8_t hash[32]);
    /* Forget keys kept since before `before`, at most `most` of them; sets how many. */
    enum sml_stored (*purge_keys)(struct semel_store *store, uint64_t before, uint32_t most,
                                  uint32_t *out_count);
    /* STORED: it will be there after a power cut. */
    enum sml_stored (*commit)(struct semel_store *store);
    void (*rollback)(struct semel_store *store);

    /* Around a transactional handler, inside a transaction. Until unguard it is interrupted at
     * `until` (monotonic ns) and when *cancelled is set (may be NULL). */
    enum sml_stored (*guard)(struct semel_store *store, uint64_t until,
                             const atomic_bool *cancelled);
    /* Its work is kept, or undone. NOT_STORED: the handler has lost the transaction. */
    enum sml_stored (*unguard)(struct semel_store *store, bool keep);

    /* Survives the death of this process, if not that of the machine; NULL: none runs. */
    void (*mark)(struct semel_store *store, const struct sml_mark *mark);

    /* A new generation, with no sessions; a transaction of its own. */
    enum sml_stored (*renew)(struct semel_store *store);

    /* There is nothing else to do now. */
    void (*tidy)(struct semel_store *store);
};

/* The beginning of every store; the rest is its own. */
struct semel_store {
    const struct sml_store_ops *ops;
    uint32_t abi; /* SML_STORE_ABI */
    bool read_only;
    uint8_t id[16];
    uint64_t generation;
    const char *name; /* of what it is kept in: texts begin with it */
    bool has_suspect; /* the process that had it before died while this ran: */
    struct sml_mark suspect;
    enum semel_status status; /* why the last operation failed */
    char text[512];           /* the same in words */
};

#endif
