/* SPDX-License-Identifier: MIT */
/* memory_store.c - see memory_store.h.
 *
 * An image is everything that a store holds; its records are shared between images. A transaction
 * works on a copy of the committed image, a guard keeps a copy of that, and a commit makes the copy
 * the committed one. */
#include "kit/memory_store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/time.h"
#include "os/clock.h"

struct blob {
    unsigned refs;
    size_t size;
    uint8_t data[];
};

struct row {
    uint64_t no;
    struct blob *blob;
};

struct key {
    uint8_t hash[32];
    uint64_t kept_since;
    struct blob *blob;
};

struct image {
    struct row *rows[2]; /* sessions, calls; by number */
    size_t count[2];
    uint64_t last[2]; /* the highest number ever given */
    struct key *keys; /* in no order */
    size_t key_count;
    uint64_t generation, clock_ms;
    int64_t sum;
};

struct kit_disk {
    pthread_mutex_t lock; /* what other threads look at and set */
    struct image committed;
    uint8_t id[16];
    struct kit_fault fault;
    unsigned operations, commits;
    unsigned until_operation, until_commit; /* 0: it does not come */
    uint64_t advanced_ms;
    bool dead; /* the store that is open says UNKNOWN only */
    struct memory_store *open;
    bool marked;
    struct sml_mark mark;
};

struct memory_store {
    struct semel_store store; /* first */
    struct kit_disk *disk;
    struct image work, saved;
    bool in_transaction, guarded;
    uint64_t opened_at;
};

static void *must(void *memory)
{
    SML_ASSERT(memory);
    return memory;
}

/* --- images ------------------------------------------------------------------------------ */

static struct blob *blob_make(struct semel_bytes bytes)
{
    struct blob *blob = must(malloc(sizeof *blob + bytes.size));

    blob->refs = 1;
    blob->size = bytes.size;
    if (bytes.size > 0)
        memcpy(blob->data, bytes.data, bytes.size);
    return blob;
}

static void blob_unref(struct blob *blob)
{
    if (blob && --blob->refs == 0)
        free(blob);
}

static void image_copy(struct image *to, const struct image *from)
{
    *to = *from;
    for (int t = 0; t < 2; t++) {
        to->rows[t] = must(malloc((from->count[t] + 1) * sizeof *to->rows[t]));
        for (size_t i = 0; i < from->count[t]; i++) {
            to->rows[t][i] = from->rows[t][i];
            to->rows[t][i].blob->refs++;
        }
    }
    to->keys = must(malloc((from->key_count + 1) * sizeof *to->keys));
    for (size_t i = 0; i < from->key_count; i++) {
        to->keys[i] = from->keys[i];
        to->keys[i].blob->refs++;
    }
}

static void image_clear(struct image *image)
{
    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; i < image->count[t]; i++)
            blob_unref(image->rows[t][i].blob);
        free(image->rows[t]);
    }
    for (size_t i = 0; i < image->key_count; i++)
        blob_unref(image->keys[i].blob);
    free(image->keys);
    memset(image, 0, sizeof *image);
}

static size_t row_at(const struct image *image, int table, uint64_t no)
{
    size_t at = 0;

    while (at < image->count[table] && image->rows[table][at].no != no)
        at++;
    return at;
}

static size_t key_at(const struct image *image, const uint8_t hash[32])
{
    size_t at = 0;

    while (at < image->key_count && memcmp(image->keys[at].hash, hash, 32) != 0)
        at++;
    return at;
}

static void drop_key(struct image *image, size_t at)
{
    blob_unref(image->keys[at].blob);
    image->keys[at] = image->keys[--image->key_count];
}

/* --- trouble ----------------------------------------------------------------------------- */

static struct memory_store *of(struct semel_store *store)
{
    return (struct memory_store *)store;
}

static void drop(struct memory_store *m)
{
    if (m->in_transaction)
        image_clear(&m->work);
    if (m->guarded)
        image_clear(&m->saved);
    m->in_transaction = m->guarded = false;
}

static bool comes_now(unsigned *until, bool stays)
{
    if (*until == 0 || --*until > 0)
        return false;
    *until = stays;
    return true;
}

/* Does the operation, which is a commit, go wrong? Its answer, and the transaction is gone. */
static enum sml_stored stumble(struct memory_store *m, bool commit, bool *out_stored)
{
    struct kit_disk *disk = m->disk;
    enum sml_stored answer = SML_STORED;

    pthread_mutex_lock(&disk->lock);
    disk->operations++;
    disk->commits += commit;
    if (comes_now(&disk->until_operation, disk->fault.stays) ||
        (commit && comes_now(&disk->until_commit, disk->fault.stays))) {
        answer = disk->fault.answer;
        m->store.status = disk->fault.status ? disk->fault.status : SEMEL_STORE_FAILED;
        snprintf(m->store.text, sizeof m->store.text, "memory: as the test wants: %s",
                 semel_status_text(m->store.status));
    }
    if (disk->dead) {
        answer = SML_STORE_UNKNOWN;
        m->store.status = SEMEL_STORE_FAILED;
        snprintf(m->store.text, sizeof m->store.text, "memory: the store is dead");
    }
    *out_stored = commit && answer == SML_STORE_UNKNOWN && disk->fault.stored && !disk->dead;
    disk->dead |= answer == SML_STORE_UNKNOWN;
    pthread_mutex_unlock(&disk->lock);
    return answer;
}

static enum sml_stored operation(struct memory_store *m)
{
    bool stored;
    enum sml_stored answer = stumble(m, false, &stored);

    if (answer != SML_STORED)
        drop(m);
    return answer;
}

/* --- operations -------------------------------------------------------------------------- */

static uint64_t clock_ms(const struct semel_store *store)
{
    const struct memory_store *m = (const struct memory_store *)store;
    uint64_t advanced;

    pthread_mutex_lock(&m->disk->lock);
    advanced = m->disk->advanced_ms;
    pthread_mutex_unlock(&m->disk->lock);
    return m->disk->committed.clock_ms + advanced + (sml_clock_now() - m->opened_at) / SML_MS;
}

static enum semel_status each(struct semel_store *store, enum sml_store_table table,
                              sml_record_fn fn, void *user)
{
    struct memory_store *m = of(store);
    const struct image *image = &m->disk->committed;
    bool goes_on = true;

    SML_ASSERT(!m->in_transaction);
    if (operation(m) != SML_STORED)
        return store->status;
    if (table == SML_TABLE_UNFINISHED_KEYS) {
        for (size_t i = 0; i < image->key_count && goes_on; i++)
            if (image->keys[i].kept_since == 0)
                goes_on =
                    fn(0, semel_bytes(image->keys[i].blob->data, image->keys[i].blob->size), user);
        return SEMEL_OK;
    }
    for (size_t i = 0; i < image->count[table] && goes_on; i++) {
        const struct row *row = &image->rows[table][i];

        goes_on = fn(row->no, semel_bytes(row->blob->data, row->blob->size), user);
    }
    return SEMEL_OK;
}

static enum sml_stored begin(struct semel_store *store)
{
    struct memory_store *m = of(store);
    enum sml_stored answer;

    SML_ASSERT(!m->in_transaction);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    image_copy(&m->work, &m->disk->committed);
    m->in_transaction = true;
    return SML_STORED;
}

static enum sml_stored put(struct semel_store *store, enum sml_store_table table, uint64_t *row,
                           struct semel_bytes record)
{
    struct memory_store *m = of(store);
    struct image *work = &m->work;
    enum sml_stored answer;
    size_t at;

    SML_ASSERT(m->in_transaction && table <= SML_TABLE_CALLS);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    if (*row == 0) {
        at = work->count[table]++;
        work->rows[table] = must(realloc(work->rows[table], (at + 2) * sizeof *work->rows[table]));
        *row = work->rows[table][at].no = ++work->last[table];
    } else {
        at = row_at(work, table, *row);
        SML_ASSERT(at < work->count[table]);
        blob_unref(work->rows[table][at].blob);
    }
    work->rows[table][at].blob = blob_make(record);
    return SML_STORED;
}

static enum sml_stored forget(struct semel_store *store, enum sml_store_table table, uint64_t row)
{
    struct memory_store *m = of(store);
    enum sml_stored answer;
    size_t at;

    SML_ASSERT(m->in_transaction && table <= SML_TABLE_CALLS);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    at = row_at(&m->work, table, row);
    if (at == m->work.count[table])
        return SML_STORED;
    blob_unref(m->work.rows[table][at].blob);
    m->work.count[table]--;
    memmove(&m->work.rows[table][at], &m->work.rows[table][at + 1],
            (m->work.count[table] - at) * sizeof m->work.rows[table][at]);
    return SML_STORED;
}

static enum sml_stored find_key(struct semel_store *store, const uint8_t hash[32],
                                struct semel_bytes *out_record)
{
    struct memory_store *m = of(store);
    enum sml_stored answer;
    size_t at;

    SML_ASSERT(m->in_transaction);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    at = key_at(&m->work, hash);
    *out_record = semel_bytes(NULL, 0);
    if (at < m->work.key_count)
        *out_record = semel_bytes(m->work.keys[at].blob->data, m->work.keys[at].blob->size);
    return SML_STORED;
}

static enum sml_stored put_key(struct semel_store *store, const uint8_t hash[32],
                               uint64_t kept_since, struct semel_bytes record)
{
    struct memory_store *m = of(store);
    struct image *work = &m->work;
    enum sml_stored answer;
    size_t at;

    SML_ASSERT(m->in_transaction);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    at = key_at(work, hash);
    if (at == work->key_count) {
        work->key_count++;
        work->keys = must(realloc(work->keys, (at + 2) * sizeof *work->keys));
        memcpy(work->keys[at].hash, hash, 32);
    } else {
        blob_unref(work->keys[at].blob);
    }
    work->keys[at].kept_since = kept_since;
    work->keys[at].blob = blob_make(record);
    return SML_STORED;
}

static enum sml_stored forget_key(struct semel_store *store, const uint8_t hash[32])
{
    struct memory_store *m = of(store);
    enum sml_stored answer;
    size_t at;

    SML_ASSERT(m->in_transaction);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    at = key_at(&m->work, hash);
    if (at < m->work.key_count)
        drop_key(&m->work, at);
    return SML_STORED;
}

static enum sml_stored purge_keys(struct semel_store *store, uint64_t before, uint32_t most,
                                  uint32_t *out_count)
{
    struct memory_store *m = of(store);
    enum sml_stored answer;

    SML_ASSERT(m->in_transaction);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    *out_count = 0;
    for (size_t i = 0; i < m->work.key_count && *out_count < most;) {
        uint64_t since = m->work.keys[i].kept_since;

        if (since == 0 || since >= before) {
            i++;
            continue;
        }
        drop_key(&m->work, i);
        ++*out_count;
    }
    return SML_STORED;
}

static void keep_work(struct memory_store *m)
{
    struct kit_disk *disk = m->disk;
    uint64_t now = clock_ms(&m->store);

    pthread_mutex_lock(&disk->lock);
    image_clear(&disk->committed);
    disk->committed = m->work;
    disk->committed.clock_ms = now;
    disk->advanced_ms = 0;
    m->opened_at = sml_clock_now();
    pthread_mutex_unlock(&disk->lock);
    m->in_transaction = false;
}

static enum sml_stored commit(struct semel_store *store)
{
    struct memory_store *m = of(store);
    struct timespec late;
    enum sml_stored answer;
    bool stored;

    SML_ASSERT(m->in_transaction && !m->guarded);
    pthread_mutex_lock(&m->disk->lock);
    late = (struct timespec){ m->disk->fault.late_ms / 1000,
                              (long)(m->disk->fault.late_ms % 1000) * 1000000 };
    pthread_mutex_unlock(&m->disk->lock);
    if (late.tv_sec > 0 || late.tv_nsec > 0)
        (void)nanosleep(&late, NULL);
    answer = stumble(m, true, &stored);
    if (answer == SML_STORED || stored)
        keep_work(m);
    else
        drop(m);
    return answer;
}

static void rollback(struct semel_store *store)
{
    drop(of(store));
}

static enum sml_stored guard(struct semel_store *store, uint64_t until,
                             const atomic_bool *cancelled)
{
    struct memory_store *m = of(store);
    enum sml_stored answer;

    (void)until; /* there is nothing to interrupt */
    (void)cancelled;
    SML_ASSERT(m->in_transaction && !m->guarded);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    image_copy(&m->saved, &m->work);
    m->guarded = true;
    return SML_STORED;
}

static enum sml_stored unguard(struct semel_store *store, bool keep)
{
    struct memory_store *m = of(store);
    enum sml_stored answer;

    if (!m->in_transaction) {
        store->status = SEMEL_ROLLED_BACK;
        snprintf(store->text, sizeof store->text, "memory: the handler ended its transaction");
        return SML_NOT_STORED;
    }
    SML_ASSERT(m->guarded);
    answer = operation(m);
    if (answer != SML_STORED)
        return answer;
    image_clear(keep ? &m->saved : &m->work);
    if (!keep)
        m->work = m->saved;
    m->guarded = false;
    return SML_STORED;
}

static void mark(struct semel_store *store, const struct sml_mark *mark)
{
    struct kit_disk *disk = of(store)->disk;

    pthread_mutex_lock(&disk->lock);
    if (!disk->dead) {
        disk->marked = mark != NULL;
        if (mark)
            disk->mark = *mark;
    }
    pthread_mutex_unlock(&disk->lock);
}

static enum sml_stored renew(struct semel_store *store)
{
    struct memory_store *m = of(store);
    enum sml_stored answer = begin(store);

    if (answer != SML_STORED)
        return answer;
    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; i < m->work.count[t]; i++)
            blob_unref(m->work.rows[t][i].blob);
        m->work.count[t] = 0;
    }
    m->work.generation++;
    answer = commit(store);
    if (answer == SML_STORED)
        store->generation++;
    return answer;
}

static void tidy(struct semel_store *store)
{
    (void)store;
}

static void close_store(struct semel_store *store)
{
    struct memory_store *m = of(store);

    drop(m);
    pthread_mutex_lock(&m->disk->lock);
    m->disk->open = NULL;
    pthread_mutex_unlock(&m->disk->lock);
    free(m);
}

static const struct sml_store_ops memory_ops = {
    .close = close_store,
    .clock_ms = clock_ms,
    .each = each,
    .begin = begin,
    .put = put,
    .forget = forget,
    .find_key = find_key,
    .put_key = put_key,
    .forget_key = forget_key,
    .purge_keys = purge_keys,
    .commit = commit,
    .rollback = rollback,
    .guard = guard,
    .unguard = unguard,
    .mark = mark,
    .renew = renew,
    .tidy = tidy,
};

/* --- disks ------------------------------------------------------------------------------- */

struct kit_disk *kit_disk_make(void)
{
    static unsigned made;
    struct kit_disk *disk = must(calloc(1, sizeof *disk));
    unsigned number = __atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);

    pthread_mutex_init(&disk->lock, NULL);
    memcpy(disk->id, "memory", 6);
    memcpy(disk->id + 8, &number, sizeof number);
    disk->committed.generation = disk->committed.clock_ms = 1;
    return disk;
}

void kit_disk_free(struct kit_disk *disk)
{
    if (disk == NULL)
        return;
    SML_ASSERT(disk->open == NULL);
    image_clear(&disk->committed);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}

struct semel_store *kit_disk_open(struct kit_disk *disk)
{
    struct memory_store *m;

    if (disk->open)
        return NULL;
    m = must(calloc(1, sizeof *m));
    m->disk = disk;
    m->opened_at = sml_clock_now();
    m->store.ops = &memory_ops;
    m->store.abi = SML_STORE_ABI;
    m->store.name = "memory";
    memcpy(m->store.id, disk->id, 16);
    m->store.generation = disk->committed.generation;
    m->store.has_suspect = disk->marked;
    m->store.suspect = disk->mark;
    disk->open = m;
    disk->dead = false;
    disk->advanced_ms = 0;
    return &m->store;
}

void kit_disk_kill(struct kit_disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->dead = true;
    pthread_mutex_unlock(&disk->lock);
}

void kit_disk_cut_power(struct kit_disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->dead = true;
    disk->marked = false;
    pthread_mutex_unlock(&disk->lock);
}

void kit_disk_fault(struct kit_disk *disk, const struct kit_fault *fault)
{
    pthread_mutex_lock(&disk->lock);
    disk->fault = *fault;
    disk->until_operation = fault->at_operation;
    disk->until_commit = fault->at_commit;
    pthread_mutex_unlock(&disk->lock);
}

void kit_disk_advance(struct kit_disk *disk, uint64_t ms)
{
    pthread_mutex_lock(&disk->lock);
    disk->advanced_ms += ms;
    pthread_mutex_unlock(&disk->lock);
}

unsigned kit_disk_operations(struct kit_disk *disk)
{
    unsigned count;

    pthread_mutex_lock(&disk->lock);
    count = disk->operations;
    pthread_mutex_unlock(&disk->lock);
    return count;
}

unsigned kit_disk_commits(struct kit_disk *disk)
{
    unsigned count;

    pthread_mutex_lock(&disk->lock);
    count = disk->commits;
    pthread_mutex_unlock(&disk->lock);
    return count;
}

void kit_store_add(struct semel_store *store, int64_t amount)
{
    SML_ASSERT(store->ops == &memory_ops);
    if (of(store)->in_transaction)
        of(store)->work.sum += amount;
}

int64_t kit_disk_sum(struct kit_disk *disk)
{
    int64_t sum;

    pthread_mutex_lock(&disk->lock);
    sum = disk->committed.sum;
    pthread_mutex_unlock(&disk->lock);
    return sum;
}

void kit_store_lose(struct semel_store *store)
{
    SML_ASSERT(store->ops == &memory_ops);
    drop(of(store));
}
