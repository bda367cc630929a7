/* SPDX-License-Identifier: MIT */
/* runfile.c - PATH-semel, the page beside the database.
 *
 * It outlives the process, not the machine, and needs neither a system call nor a sync to be
 * written. It is the lock; it names the transactional handler that is running, so that one that
 * kills its server is found out; and it remembers which store this is and how far it had come, so
 * that a database that was exchanged for another, or for an older copy, is not taken for it. A
 * commit is counted here only when it is durable in the database, so the page is never ahead of it,
 * whatever dies when. So it is with what a checkpoint has brought into the main file: written here
 * when it is synced there. */
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
    AT_MARK_KEY = 380,
    AT_IN_FILE = 640 /* of AT_COMMITS, what the main file has without its log */
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

#define PATH_BYTES 4096

static bool page_path(const struct sml_sqlite *s, char out[PATH_BYTES])
{
    return (size_t)snprintf(out, PATH_BYTES, "%s-semel", s->path) < PATH_BYTES;
}

enum semel_status sml_runfile_open(struct sml_sqlite *s)
{
    char path[PATH_BYTES];
    struct sml_reason reason;
    uint32_t holder;
    enum semel_status status;

    if (!page_path(s, path)) {
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
        char words[160];

        sml_lockpage_say_held(holder, "stop it first", words, sizeof words);
        snprintf(s->store.text, sizeof s->store.text, "%.300s: %s", s->path, words);
        status = SEMEL_STORE_LOCKED;
    } else if (status == SEMEL_DENIED) {
        status = SEMEL_STORE_READ_ONLY;
    } else if (status != SEMEL_STORE_FULL && status != SEMEL_NO_MEMORY) {
        status = SEMEL_STORE_FAILED;
    }
    return s->store.status = status;
}

void sml_runfile_close(struct sml_sqlite *s)
{
    char path[PATH_BYTES];

    if (s->lock.page && !is_ours(s->lock.page) && page_path(s, path))
        sml_lockpage_discard(&s->lock, path);
    sml_lockpage_close(&s->lock);
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

static enum semel_status does_not_fit(struct sml_sqlite *s, enum semel_status status,
                                      const char *what)
{
    snprintf(s->store.text, sizeof s->store.text, "%.300s is %s", s->path, what);
    return s->store.status = status;
}

/* The log leads to the state that was here, but the file is not the one to which it belongs. */
static bool is_mixed(const struct sml_sqlite *s)
{
    const struct sml_alone *alone = &s->alone;

    return alone->known && (memcmp(alone->id, s->store.id, 16) != 0 ||
                            alone->commits < sml_load64(s->lock.page + AT_IN_FILE));
}

static enum semel_status say_mixed(struct sml_sqlite *s)
{
    snprintf(s->store.text, sizeof s->store.text,
             "%.300s is an older copy of the store that was here (%llu transactions of at least "
             "%llu) with a later log; put the later file back, or remove the log and adopt this "
             "one",
             s->path, (unsigned long long)s->alone.commits,
             (unsigned long long)sml_load64(s->lock.page + AT_IN_FILE));
    return s->store.status = SEMEL_STORE_ROLLED_BACK;
}

enum semel_status sml_runfile_compare(struct sml_sqlite *s, bool *out_mixed)
{
    const uint8_t *page = s->lock.page;
    char words[160];

    *out_mixed = false;
    if (!is_ours(page))
        return SEMEL_OK;
    if (memcmp(page + AT_STORE, s->store.id, 16) != 0)
        return does_not_fit(s, SEMEL_STORE_REPLACED,
                            "not the store that was here; put that one back, or adopt this one");
    if (sml_load64(page + AT_GENERATION) > s->store.generation ||
        sml_load64(page + AT_COMMITS) > s->commits) {
        snprintf(words, sizeof words,
                 "an older copy of the store that was here (%llu transactions of %llu); "
                 "put the later one back, or adopt this one",
                 (unsigned long long)s->commits, (unsigned long long)sml_load64(page + AT_COMMITS));
        return does_not_fit(s, SEMEL_STORE_ROLLED_BACK, words);
    }
    *out_mixed = is_mixed(s);
    if (*out_mixed)
        return say_mixed(s);
    s->in_file = sml_load64(page + AT_IN_FILE);
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
    sml_store64(page + AT_IN_FILE, s->in_file);
    memcpy(page + AT_MAGIC, magic, sizeof magic);
}

void sml_runfile_count(struct sml_sqlite *s)
{
    sml_store64(s->lock.page + AT_COMMITS, s->commits);
}

void sml_runfile_reached(struct sml_sqlite *s, uint64_t commits)
{
    if (commits <= s->in_file)
        return;
    s->in_file = commits;
    sml_store64(s->lock.page + AT_IN_FILE, commits);
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
