/* SPDX-License-Identifier: MIT */
/* durable.h - one callee with a store that is played by hand, change by change; memory is counted,
 * and can run out. */
#ifndef TESTS_SESSION_DURABLE_H
#define TESTS_SESSION_DURABLE_H

#include "fixture.h"

#include "base/le.h"

#define WINDOW 4

struct durable {
    struct sml_callee callee;
    struct sml_mem mem;
    int64_t live;    /* allocations */
    int64_t fail_in; /* so many more succeed; negative: all do */
    uint64_t rows;   /* given */
    const char *why;
};

static inline void *durable_alloc(void *user, size_t bytes)
{
    struct durable *d = user;

    if (d->fail_in == 0)
        return NULL;
    d->fail_in -= d->fail_in > 0;
    d->live++;
    return malloc(bytes);
}

static inline void durable_release(void *user, void *pointer)
{
    struct durable *d = user;

    d->live -= pointer != NULL;
    free(pointer);
}

static inline void durable_init(struct durable *d)
{
    static const struct sml_callee_limits limits = { .window = WINDOW,
                                                     .body_bytes = 5000,
                                                     .session_bytes = 20000 };

    memset(d, 0, sizeof *d);
    d->mem = (struct sml_mem){ durable_alloc, durable_release, d };
    d->fail_in = -1;
    sml_callee_init(&d->callee, &d->mem, &limits);
    d->callee.durable = d->callee.keys = true;
}

/* --- frames ------------------------------------------------------------------------------ */

static inline struct sml_fingerprint durable_print(const char *body)
{
    return sml_fingerprint("m", 1, NULL, 0, body, strlen(body));
}

/* A call with a deadline at 1 s; `key` may be "". */
static inline enum semel_status durable_call(struct durable *d, uint64_t xid, const char *body,
                                             const char *key, uint8_t flags)
{
    struct sml_frame frame = { .type = SML_CALL, .xid = xid };

    frame.u.call = (struct sml_call_frame){ .fingerprint = durable_print(body),
                                            .body_bytes = strlen(body),
                                            .remaining_ms = 1000,
                                            .flags = flags,
                                            .method = { "m", 1 },
                                            .key = semel_bytes_text(key),
                                            .fragment = semel_bytes_text(body) };
    return sml_callee_frame(&d->callee, &frame, 0, &d->why);
}

static inline void durable_ack(struct durable *d, uint64_t xid)
{
    uint8_t bytes[64];
    struct sml_ack_range range = { xid, 1 };
    size_t size = sml_encode_ack(bytes, &range, 1), used;
    struct sml_frame frame;

    assert_int_equal(sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &d->why),
                     SML_DECODED);
    assert_int_equal(sml_callee_frame(&d->callee, &frame, 0, &d->why), SEMEL_OK);
}

static inline void durable_cancel(struct durable *d, uint64_t xid)
{
    struct sml_frame frame = { .type = SML_CANCEL, .xid = xid };

    assert_int_equal(sml_callee_frame(&d->callee, &frame, 0, &d->why), SEMEL_OK);
}

static inline void durable_silent(struct durable *d)
{
    uint8_t bytes[SML_FRAME_BYTES_MAX];

    assert_false(sml_callee_wants_write(&d->callee));
    assert_int_equal(sml_callee_pull(&d->callee, bytes, sizeof bytes, 0), 0);
}

/* The next frame out; its views are good until the next. */
static inline struct sml_frame durable_pull(struct durable *d)
{
    static uint8_t bytes[SML_FRAME_BYTES_MAX];
    size_t size = sml_callee_pull(&d->callee, bytes, sizeof bytes, 0), used = 0;
    struct sml_frame frame;

    assert_int_equal(sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &d->why),
                     SML_DECODED);
    assert_int_equal(used, size);
    return frame;
}

static inline void durable_replied(struct durable *d, uint64_t xid, enum semel_outcome outcome,
                                   enum semel_status status, uint8_t flags)
{
    struct sml_frame frame = durable_pull(d);

    assert_int_equal(frame.type, SML_REPLY);
    assert_int_equal(frame.xid, xid);
    assert_int_equal(frame.u.reply.verdict.outcome, outcome);
    assert_int_equal(frame.u.reply.verdict.status, status);
    assert_int_equal(frame.u.reply.flags, flags);
}

static inline struct sml_incoming *durable_record(struct durable *d, uint64_t xid)
{
    return sml_table_find(&d->callee.table, xid);
}

/* --- the shell --------------------------------------------------------------------------- */

static inline struct sml_incoming *durable_take(struct durable *d)
{
    struct sml_incoming *in = sml_callee_take(&d->callee);

    assert_non_null(in);
    return in;
}

static inline struct sml_verdict durable_value(struct durable *d, const char *text,
                                               uint8_t **out_reply)
{
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };

    *out_reply = sml_callee_reply_alloc(&d->callee, strlen(text));
    memcpy(*out_reply, text, strlen(text));
    verdict.body = semel_bytes(*out_reply, strlen(text));
    return verdict;
}

static inline bool durable_finish(struct durable *d, struct sml_incoming *in, const char *text)
{
    uint8_t *reply;
    struct sml_verdict verdict = durable_value(d, text, &reply);

    return sml_callee_finish(&d->callee, in, &verdict, reply);
}

static inline void durable_decide(struct durable *d, struct sml_incoming *in, const char *text)
{
    uint8_t *reply;
    struct sml_verdict verdict = durable_value(d, text, &reply);

    sml_callee_decide(&d->callee, in, &verdict, reply);
}

/* --- the store --------------------------------------------------------------------------- */

static inline struct sml_change durable_change(struct durable *d, enum sml_change_kind kind,
                                               uint64_t xid)
{
    struct sml_change change = { .in = NULL };

    assert_true(sml_callee_has_change(&d->callee));
    assert_true(sml_callee_next_change(&d->callee, &change));
    assert_int_equal(change.kind, kind);
    assert_int_equal(change.in->xid, xid);
    return change;
}

static inline void durable_commit(struct durable *d, const struct sml_change *change)
{
    bool keeps = change->kind != SML_CHANGE_LEAVE && change->kind != SML_CHANGE_FORGET;
    uint64_t row = !keeps ? 0 : change->in->row ? change->in->row : ++d->rows;

    sml_callee_recorded(&d->callee, change, row, true);
}

static inline void durable_fail(struct durable *d, const struct sml_change *change)
{
    sml_callee_recorded(&d->callee, change, 0, false);
}

/* The next change is this one, and it is stored. */
static inline void durable_stored(struct durable *d, enum sml_change_kind kind, uint64_t xid)
{
    struct sml_change change = durable_change(d, kind, xid);

    durable_commit(d, &change);
}

/* The call that is ready is started, up to the time when its handler may begin. */
static inline struct sml_incoming *durable_started(struct durable *d)
{
    struct sml_incoming *in = durable_take(d);

    assert_true(sml_callee_start(&d->callee, in, 0));
    durable_stored(d, SML_CHANGE_START, in->xid);
    assert_int_equal(in->phase, SML_IN_STARTED);
    return in;
}

static inline struct sml_incoming *durable_running(struct durable *d)
{
    struct sml_incoming *in = durable_started(d);

    assert_true(sml_callee_begin(&d->callee, in, 0, 0));
    return in;
}

/* Call 1 is released, and gone from the table; `remains` says whether a change of that kind is to
 * be stored of it: then it is, and base rises with it. Until then its record holds no reply that
 * nobody will ask for. */
static inline void durable_forgotten(struct durable *d, bool remains, enum sml_change_kind kind)
{
    durable_silent(d);
    if (remains) {
        struct sml_change change = durable_change(d, kind, 1);

        assert_int_equal(change.in->reply == NULL, kind == SML_CHANGE_FORGET);
        assert_int_equal(change.in->verdict.text.size + change.in->verdict.body.size == 0,
                         kind == SML_CHANGE_FORGET);
        assert_true(sml_callee_base_rises(&d->callee));
        assert_int_equal(d->callee.base_pending, 1);
        durable_fail(d, &change);
        sml_callee_base_recorded(&d->callee, false);
        assert_false(sml_callee_base_rises(&d->callee));
        durable_stored(d, kind, 1);
        assert_true(sml_callee_base_rises(&d->callee));
        sml_callee_base_recorded(&d->callee, true);
        assert_int_equal(d->callee.base, 1);
    }
    assert_false(sml_callee_has_change(&d->callee));
    assert_false(sml_callee_base_rises(&d->callee));
    assert_true(sml_callee_empty(&d->callee));
    assert_int_equal(durable_call(d, 1, "a", "", 0), SEMEL_OK); /* stale */
    assert_null(sml_callee_take(&d->callee));
    durable_silent(d);
}

/* All that is left to store is stored. */
static inline void durable_settle(struct durable *d)
{
    struct sml_change change;

    while (sml_callee_next_change(&d->callee, &change))
        durable_commit(d, &change);
    sml_callee_base_recorded(&d->callee, true);
}

/* The session ends, and nothing is left. */
static inline void durable_fini(struct durable *d)
{
    sml_callee_clear(&d->callee);
    durable_settle(d);
    assert_int_equal(d->callee.held, 0);
    assert_int_equal(d->callee.bytes_in, 0);
    assert_int_equal(d->callee.bytes_kept, 0);
    assert_int_equal(d->callee.bytes_stored, 0);
    assert_int_equal(sml_callee_timeout(&d->callee), SML_NEVER);
    assert_int_equal(d->live, 0);
}

#endif
