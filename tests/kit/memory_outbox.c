/* SPDX-License-Identifier: MIT */
/* memory_outbox.c - see memory_outbox.h. A transaction works on a copy of what is committed. */
#include "kit/memory_outbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct bytes {
    size_t size;
    uint8_t *data; /* NULL: none */
};

struct row {
    uint64_t id;
    struct bytes call, result;
};

struct image {
    struct row *rows; /* by number */
    int count;
    uint64_t last;
    struct bytes identity;
};

struct kit_box {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct image committed;
    bool open, dead;
    int allowed;
    bool held;
    unsigned failures;
    enum sml_stored answer;
    enum semel_status status;
    bool stored;
};

struct memory_outbox {
    struct semel_outbox outbox; /* first */
    struct kit_box *box;
    struct image work;
    bool in_transaction;
};

/* --- images ------------------------------------------------------------------------------ */

static void *must(void *memory)
{
    SML_ASSERT(memory);
    return memory;
}

static struct bytes bytes_copy(const void *data, size_t size)
{
    struct bytes bytes = { size, must(malloc(size + 1)) };

    if (size > 0)
        memcpy(bytes.data, data, size);
    return bytes;
}

static struct bytes bytes_again(struct bytes bytes)
{
    return bytes.data ? bytes_copy(bytes.data, bytes.size) : bytes;
}

static struct image image_copy(const struct image *from)
{
    struct image to = *from;

    to.rows = must(malloc(((size_t)from->count + 1) * sizeof *to.rows));
    for (int i = 0; i < from->count; i++)
        to.rows[i] = (struct row){ from->rows[i].id, bytes_again(from->rows[i].call),
                                   bytes_again(from->rows[i].result) };
    to.identity = bytes_again(from->identity);
    return to;
}

static void row_clear(struct row *row)
{
    free(row->call.data);
    free(row->result.data);
}

static void image_clear(struct image *image)
{
    for (int i = 0; i < image->count; i++)
        row_clear(&image->rows[i]);
    free(image->rows);
    free(image->identity.data);
    memset(image, 0, sizeof *image);
}

static struct row *find(struct image *image, uint64_t id)
{
    for (int i = 0; i < image->count; i++)
        if (image->rows[i].id == id)
            return &image->rows[i];
    return NULL;
}

/* --- the outbox -------------------------------------------------------------------------- */

static struct memory_outbox *of(struct semel_outbox *outbox)
{
    return (struct memory_outbox *)outbox;
}

static enum sml_stored alive(struct memory_outbox *m)
{
    enum sml_stored stored = SML_STORED;

    pthread_mutex_lock(&m->box->lock);
    if (m->box->dead) {
        m->outbox.status = SEMEL_STORE_FAILED;
        strcpy(m->outbox.text, "the process died");
        stored = SML_STORE_UNKNOWN;
    }
    pthread_mutex_unlock(&m->box->lock);
    return stored;
}

static void box_rollback(struct semel_outbox *outbox)
{
    if (of(outbox)->in_transaction)
        image_clear(&of(outbox)->work);
    of(outbox)->in_transaction = false;
}

static enum sml_stored box_begin(struct semel_outbox *outbox)
{
    struct memory_outbox *m = of(outbox);

    SML_ASSERT(!m->in_transaction);
    if (alive(m) != SML_STORED)
        return SML_STORE_UNKNOWN;
    pthread_mutex_lock(&m->box->lock);
    m->work = image_copy(&m->box->committed);
    pthread_mutex_unlock(&m->box->lock);
    m->in_transaction = true;
    return SML_STORED;
}

static enum sml_stored box_add_call(struct semel_outbox *outbox, struct semel_bytes call,
                                    uint64_t *out_id)
{
    struct image *work = &of(outbox)->work;

    SML_ASSERT(of(outbox)->in_transaction);
    work->rows = must(realloc(work->rows, ((size_t)work->count + 1) * sizeof *work->rows));
    work->rows[work->count++] =
        (struct row){ ++work->last, bytes_copy(call.data, call.size), { 0 } };
    *out_id = work->last;
    return alive(of(outbox));
}

static enum sml_stored box_put_result(struct semel_outbox *outbox, uint64_t id,
                                      struct semel_bytes result)
{
    struct row *row = find(&of(outbox)->work, id);

    SML_ASSERT(of(outbox)->in_transaction && row);
    free(row->result.data);
    row->result = bytes_copy(result.data, result.size);
    return alive(of(outbox));
}

static enum sml_stored box_forget(struct semel_outbox *outbox, uint64_t id)
{
    struct image *work = &of(outbox)->work;
    struct row *row = find(work, id);

    SML_ASSERT(of(outbox)->in_transaction && row);
    row_clear(row);
    memmove(row, row + 1, (size_t)(work->rows + work->count - row - 1) * sizeof *row);
    work->count--;
    return alive(of(outbox));
}

static enum sml_stored box_put_identity(struct semel_outbox *outbox, struct semel_bytes identity)
{
    struct image *work = &of(outbox)->work;

    SML_ASSERT(of(outbox)->in_transaction);
    free(work->identity.data);
    work->identity = bytes_copy(identity.data, identity.size);
    return alive(of(outbox));
}

/* What becomes of a commit; the box's lock held. */
static enum sml_stored next_answer(struct kit_box *box, bool *out_stored)
{
    if (box->dead) {
        *out_stored = false;
        return SML_STORE_UNKNOWN;
    }
    *out_stored = true;
    if (box->failures == 0)
        return SML_STORED;
    box->failures--;
    *out_stored = box->stored;
    return box->answer;
}

static enum sml_stored box_commit(struct semel_outbox *outbox)
{
    struct memory_outbox *m = of(outbox);
    struct kit_box *box = m->box;
    enum sml_stored answer;
    bool stored;

    SML_ASSERT(m->in_transaction);
    pthread_mutex_lock(&box->lock);
    box->held = box->allowed == 0;
    pthread_cond_broadcast(&box->changed);
    while (box->allowed == 0)
        pthread_cond_wait(&box->changed, &box->lock);
    box->held = false;
    if (box->allowed > 0)
        box->allowed--;
    answer = next_answer(box, &stored);
    if (answer != SML_STORED) {
        outbox->status = box->dead ? SEMEL_STORE_FAILED : box->status;
        strcpy(outbox->text, "the commit failed");
    }
    if (stored) {
        image_clear(&box->committed);
        box->committed = m->work;
    } else {
        image_clear(&m->work);
    }
    m->in_transaction = false;
    pthread_mutex_unlock(&box->lock);
    return answer;
}

static enum semel_status box_each(struct semel_outbox *outbox, sml_posted_fn fn, void *user)
{
    struct image *image = &of(outbox)->box->committed;

    for (int i = 0; i < image->count; i++) {
        struct row *row = &image->rows[i];

        if (!fn(row->id, semel_bytes(row->call.data, row->call.size),
                semel_bytes(row->result.data, row->result.size), user))
            break;
    }
    return SEMEL_OK;
}

static enum semel_status box_load_identity(struct semel_outbox *outbox, uint8_t *out, size_t room,
                                           size_t *out_bytes)
{
    struct bytes *identity = &of(outbox)->box->committed.identity;

    *out_bytes = identity->size;
    SML_ASSERT(identity->size <= room);
    if (identity->size > 0)
        memcpy(out, identity->data, identity->size);
    return SEMEL_OK;
}

static void box_close(struct semel_outbox *outbox)
{
    struct memory_outbox *m = of(outbox);

    box_rollback(outbox);
    pthread_mutex_lock(&m->box->lock);
    m->box->open = m->box->dead = false;
    pthread_mutex_unlock(&m->box->lock);
    free(m);
}

static const struct sml_outbox_ops box_ops = { .close = box_close,
                                               .each = box_each,
                                               .load_identity = box_load_identity,
                                               .begin = box_begin,
                                               .add_call = box_add_call,
                                               .put_result = box_put_result,
                                               .forget = box_forget,
                                               .put_identity = box_put_identity,
                                               .commit = box_commit,
                                               .rollback = box_rollback };

/* --- the box ----------------------------------------------------------------------------- */

struct kit_box *kit_box_make(void)
{
    struct kit_box *box = must(calloc(1, sizeof *box));

    pthread_mutex_init(&box->lock, NULL);
    pthread_cond_init(&box->changed, NULL);
    box->allowed = -1;
    return box;
}

void kit_box_free(struct kit_box *box)
{
    SML_ASSERT(!box->open);
    image_clear(&box->committed);
    pthread_cond_destroy(&box->changed);
    pthread_mutex_destroy(&box->lock);
    free(box);
}

struct semel_outbox *kit_box_open(struct kit_box *box)
{
    struct memory_outbox *m;

    if (box->open)
        return NULL;
    m = must(calloc(1, sizeof *m));
    m->outbox.ops = &box_ops;
    m->outbox.abi = SML_OUTBOX_ABI;
    m->box = box;
    box->open = true;
    return &m->outbox;
}

void kit_box_kill(struct kit_box *box)
{
    pthread_mutex_lock(&box->lock);
    box->dead = true;
    box->allowed = -1;
    pthread_cond_broadcast(&box->changed);
    pthread_mutex_unlock(&box->lock);
}

void kit_box_fail(struct kit_box *box, unsigned count, enum sml_stored answer,
                  enum semel_status status, bool stored)
{
    pthread_mutex_lock(&box->lock);
    box->failures = count;
    box->answer = answer;
    box->status = status;
    box->stored = stored;
    pthread_mutex_unlock(&box->lock);
}

void kit_box_allow(struct kit_box *box, int commits)
{
    pthread_mutex_lock(&box->lock);
    box->allowed = commits;
    pthread_cond_broadcast(&box->changed);
    pthread_mutex_unlock(&box->lock);
}

void kit_box_wait_held(struct kit_box *box)
{
    pthread_mutex_lock(&box->lock);
    while (!box->held)
        pthread_cond_wait(&box->changed, &box->lock);
    pthread_mutex_unlock(&box->lock);
}

struct kit_box_rows kit_box_rows(struct kit_box *box)
{
    struct kit_box_rows rows = { 0 };

    pthread_mutex_lock(&box->lock);
    rows.calls = box->committed.count;
    for (int i = 0; i < box->committed.count; i++)
        rows.results += box->committed.rows[i].result.data != NULL;
    rows.identity = box->committed.identity.size > 0;
    pthread_mutex_unlock(&box->lock);
    return rows;
}

uint8_t *kit_box_call(struct kit_box *box, int which)
{
    return which < box->committed.count ? box->committed.rows[which].call.data : NULL;
}

uint8_t *kit_box_identity(struct kit_box *box)
{
    return box->committed.identity.data;
}
