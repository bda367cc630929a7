/* SPDX-License-Identifier: MIT */
/* runfile.c - PATH-semel, the page beside the database.
 *
 * It outlives the process, not the machine, and needs neither a system call nor a sync to be
 * written. It is the lock; it names the transactional handler that is running, so that one that
 * kills its server is found out; and it remembers which store this is and how far it had come, so
 * that a database that was exchanged for another, or for an older copy, is not taken for it. A
 * commit is counted here only when it is durable in the database, so the page is never ahead of it,
 * whatever dies when. */
#include <stdio.h>
#include <string.h>

#include "base/le.h"
#include "sqlite/sqlite_internal.h"

/* Offsets behind the lock's head. */
enum {
    AT_MAGIC = SML_LOCKPAGE_HEAD,
    AT_STORE = 16,
    AT_BOOT = 32,
    AT_GENERATION = 48,
    AT_COMMITS = 56,
    AT_MARKED = 64, /* 1: the mark behind is that of a handler that runs */
    AT_MARK_XID = 72,
    AT_MARK_SESSION = 80,
    AT_MARK_PRINT = 96,
    AT_MARK_SIZES = 112,
    AT_MARK_METHOD = 120,
    AT_MARK_KEY = 380
};

static const char magic[8] = { 'S', 'E', 'M', 'E', 'L', 'r', 'u', 'n' };

static bool is_ours(const uint8_t *page)
{
    return memcmp(page + AT_MAGIC, magic, sizeof magic) == 0;
}

/* A handler was running when the last process ended, and the machine has not been down since. */
static void read_mark(struct sml_sqlite *s)
{
    const uint8_t *page = s->lock.page;
    struct sml_mark *mark = &s->store.suspect;
    uint8_t boot[16], none[16] = { 0 };

    sml_boot_id(boot);
    if (!is_ours(page) || sml_load64(page + AT_MARKED) != 1 ||
        memcmp(boot, page + AT_BOOT, 16) != 0 || memcmp(boot, none, 16) == 0)
        return;
    s->store.has_suspect = true;
    mark->xid = sml_load64(page + AT_MARK_XID);
    memcpy(mark->session.bytes, page + AT_MARK_SESSION, 16);
    mark->fingerprint.a = sml_load64(page + AT_MARK_PRINT);
    mark->fingerprint.b = sml_load64(page + AT_MARK_PRINT + 8);
    mark->method_bytes = page[AT_MARK_SIZES];
    mark->key_bytes = page[AT_MARK_SIZES + 1];
    mark->crashes = page[AT_MARK_SIZES + 2];
    memcpy(mark->method, page + AT_MARK_METHOD, mark->method_bytes);
    memcpy(mark->key, page + AT_MARK_KEY, mark->key_bytes);
}

enum semel_status sml_runfile_open(struct sml_sqlite *s)
{
    char path[4096];
    struct sml_reason reason;
    uint32_t holder;
    enum semel_status status;

    if ((size_t)snprintf(path, sizeof path, "%s-semel", s->path) >= sizeof path) {
        snprintf(s->store.text, sizeof s->store.text, "the path of the store is too long");
        return s->store.status = SEMEL_INVALID;
    }
    status = sml_lockpage_open(&s->lock, path, &holder, &reason);
    if (status == SEMEL_OK) {
        read_mark(s);
        return SEMEL_OK;
    }
    snprintf(s->store.text, sizeof s->store.text, "%.500s", reason.text);
    if (status == SEMEL_ADDRESS_IN_USE) {
        snprintf(s->store.text, sizeof s->store.text,
                 "%.400s is in use by process %u; stop it first", s->path, (unsigned)holder);
        status = SEMEL_STORE_LOCKED;
    } else if (status == SEMEL_DENIED) {
        status = SEMEL_STORE_READ_ONLY;
    } else if (status != SEMEL_STORE_FULL && status != SEMEL_NO_MEMORY) {
        status = SEMEL_STORE_FAILED;
    }
    return s->store.status = status;
}

enum semel_status sml_runfile_expect_none(struct sml_sqlite *s)
{
    if (!is_ours(s->lock.page))
        return SEMEL_OK;
    snprintf(s->store.text, sizeof s->store.text,
             "%.300s: the store that was here is gone; put it back, or adopt an empty one",
             s->path);
    return s->store.status = SEMEL_STORE_REPLACED;
}

enum semel_status sml_runfile_compare(struct sml_sqlite *s)
{
    const uint8_t *page = s->lock.page;

    if (!is_ours(page))
        return SEMEL_OK;
    if (memcmp(page + AT_STORE, s->store.id, 16) != 0) {
        snprintf(s->store.text, sizeof s->store.text,
                 "%.300s is not the store that was here; put that one back, or adopt this one",
                 s->path);
        return s->store.status = SEMEL_STORE_REPLACED;
    }
    if (sml_load64(page + AT_GENERATION) > s->store.generation ||
        sml_load64(page + AT_COMMITS) > s->commits) {
        snprintf(s->store.text, sizeof s->store.text,
                 "%.300s is an older copy of the store that was here (%llu transactions of %llu); "
                 "put the later one back, or adopt this one",
                 s->path, (unsigned long long)s->commits,
                 (unsigned long long)sml_load64(page + AT_COMMITS));
        return s->store.status = SEMEL_STORE_ROLLED_BACK;
    }
    return SEMEL_OK;
}

uint64_t sml_runfile_generation(const struct sml_sqlite *s)
{
    const uint8_t *page = s->lock.page;

    return is_ours(page) && memcmp(page + AT_STORE, s->store.id, 16) == 0
               ? sml_load64(page + AT_GENERATION)
               : 0;
}

void sml_runfile_adopt(struct sml_sqlite *s)
{
    uint8_t *page = s->lock.page;

    /* Whoever only looks, or fails to start, leaves the mark to the server that counts it. */
    if (!s->store.has_suspect)
        sml_store64(page + AT_MARKED, 0);
    sml_boot_id(page + AT_BOOT);
    memcpy(page + AT_STORE, s->store.id, 16);
    sml_store64(page + AT_GENERATION, s->store.generation);
    sml_store64(page + AT_COMMITS, s->commits);
    memcpy(page + AT_MAGIC, magic, sizeof magic);
}

void sml_runfile_count(struct sml_sqlite *s)
{
    sml_store64(s->lock.page + AT_COMMITS, s->commits);
}

void sml_runfile_mark(struct semel_store *store, const struct sml_mark *mark)
{
    uint8_t *page = sml_sqlite_of(store)->lock.page;

    /* Nothing else reads the page while this process lives: plain stores in program order are
     * enough, as long as the compiler keeps them. */
    atomic_signal_fence(memory_order_seq_cst);
    if (mark == NULL) {
        sml_store64(page + AT_MARKED, 0);
        atomic_signal_fence(memory_order_seq_cst);
        return;
    }
    sml_store64(page + AT_MARK_XID, mark->xid);
    memcpy(page + AT_MARK_SESSION, mark->session.bytes, 16);
    sml_store64(page + AT_MARK_PRINT, mark->fingerprint.a);
    sml_store64(page + AT_MARK_PRINT + 8, mark->fingerprint.b);
    page[AT_MARK_SIZES] = mark->method_bytes;
    page[AT_MARK_SIZES + 1] = mark->key_bytes;
    page[AT_MARK_SIZES + 2] = mark->crashes;
    memcpy(page + AT_MARK_METHOD, mark->method, mark->method_bytes);
    memcpy(page + AT_MARK_KEY, mark->key, mark->key_bytes);
    atomic_signal_fence(memory_order_seq_cst);
    sml_store64(page + AT_MARKED, 1);
    atomic_signal_fence(memory_order_seq_cst);
}
