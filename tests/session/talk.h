/* SPDX-License-Identifier: MIT */
/* talk.h - a call with streams between a link and a host, part by part; with connections that are
 * cut after so many bytes, and memory that may fail. Wherever bytes are pulled, an end wants to
 * write exactly if it has something to write. */
#ifndef TESTS_SESSION_TALK_H
#define TESTS_SESSION_TALK_H

#define PIPE_BYTES (384 * 1024) /* of thousands of worlds */
#include "fixture.h"

#include "session/caller_internal.h"

#define FAR UINT64_MAX

/* One call: the caller sends `total` parts, the handler sends each back, and then has its verdict.
 * What is read at either end is looked at, part by part. */
struct talk {
    struct fixture *f;
    struct sml_call *call;
    struct sml_stream stream;
    struct sml_incoming *in; /* its handler runs */
    size_t size;             /* of each part */
    uint32_t total, sent, echoed, back;
    uint32_t attempt;
    bool ended, finished;
    bool caller_reads, handler_reads;
};

/* --- memory that may fail ---------------------------------------------------------------- */

static struct {
    uint64_t until_failure; /* 0: none */
    int64_t live;
    bool failed;
} memory;

static inline void *memory_alloc(void *user, size_t bytes)
{
    (void)user;
    if (memory.until_failure > 0 && --memory.until_failure == 0) {
        memory.failed = true;
        return NULL;
    }
    memory.live++;
    return malloc(bytes);
}

static inline void memory_release(void *user, void *pointer)
{
    (void)user;
    memory.live -= pointer != NULL;
    free(pointer);
}

static const struct sml_mem mem = { memory_alloc, memory_release, NULL };

/* --- the world --------------------------------------------------------------------------- */

static inline struct fixture *world_new(void)
{
    struct fixture *f = fixture_new();

    memset(&memory, 0, sizeof memory);
    f->host_options.features = SML_FEATURE_PARTS;
    sml_link_init(&f->link, &mem, &f->entropy, &f->link_options, f->now);
    sml_host_init(&f->host, &mem, &f->entropy, &f->host_options);
    return f;
}

static inline int set_up(void **state)
{
    *state = world_new();
    fixture_pump(*state);
    return 0;
}

static inline int tear_down(void **state)
{
    fixture_free(*state);
    assert_int_equal(memory.live, 0);
    return 0;
}

static inline size_t pull_up(struct fixture *f)
{
    bool wanted = sml_link_wants_write(&f->link, f->now);
    size_t bytes =
        sml_link_pull(&f->link, f->up.bytes + f->up.size, PIPE_BYTES - f->up.size, f->now);

    /* What it wanted to write may have come to its end meanwhile. */
    assert_true(wanted == (bytes > 0) || !sml_link_wants_write(&f->link, f->now));
    return bytes;
}

static inline size_t pull_down(struct fixture *f)
{
    bool wanted = sml_peer_wants_write(&f->peer);
    size_t bytes =
        sml_peer_pull(&f->peer, f->down.bytes + f->down.size, PIPE_BYTES - f->down.size, f->now);

    assert_int_equal(wanted, bytes > 0);
    return bytes;
}

/* Of `fresh` bytes at the pipe's end as many as are left before the cut. Returns whether all. */
static inline bool let_through(struct pipe *pipe, size_t fresh, uint64_t *left)
{
    bool all = fresh <= *left;

    if (!all)
        pipe->size -= fresh - (size_t)*left;
    *left = *left == FAR ? FAR : all ? *left - fresh : 0;
    return all;
}

/* A HELLO is given back before what follows it is read. */
static inline void give_host(struct fixture *f)
{
    size_t before;

    do {
        before = f->up.size;
        fixture_to_host(f);
    } while (f->up.size > 0 && f->up.size < before);
}

/* As fixture_pump, but that the connection is cut where no more bytes are left in a direction.
 * Returns whether it was. */
static inline bool pump(struct fixture *f, uint64_t *up_left, uint64_t *down_left)
{
    for (bool more = true; more;) {
        size_t up, down;
        bool whole;

        sml_link_tick(&f->link, f->now);
        fixture_actions(f);
        if (!f->connected)
            return false;
        up = pull_up(f);
        f->up.size += up;
        whole = let_through(&f->up, up, up_left);
        if (up > 0)
            give_host(f);
        fixture_actions(f);
        if (f->connected && whole) {
            down = pull_down(f);
            f->down.size += down;
            whole = let_through(&f->down, down, down_left);
            if (down > 0)
                fixture_to_link(f);
            fixture_actions(f);
            more = up + down > 0;
        }
        if (f->connected && !whole) {
            fixture_cut(f);
            fixture_actions(f);
            return true;
        }
        if (f->connected && f->peer.state == SML_PEER_CLOSING && !f->peer.bye_pending)
            fixture_cut(f);
    }
    return false;
}

static inline void pump_all(struct fixture *f)
{
    uint64_t up = FAR, down = FAR;

    (void)pump(f, &up, &down);
}

/* --- a call ------------------------------------------------------------------------------ */

static inline void talk_begin(struct talk *t, struct fixture *f, uint32_t total, size_t size,
                              bool sends, bool takes)
{
    memset(t, 0, sizeof *t);
    t->f = f;
    t->total = total;
    t->size = size;
    t->caller_reads = t->handler_reads = true;
    sml_stream_init(&t->stream, sends, takes);
    t->call = calloc(1, sizeof *t->call);
    t->call->method = "m";
    t->call->method_bytes = 1;
    t->call->body = "body";
    t->call->body_bytes = 4;
    t->call->deadline = f->now + 300 * SML_SECOND;
    t->call->stream = &t->stream;
    assert_int_equal(sml_link_submit(&f->link, t->call, f->now), SEMEL_OK);
}

/* Part `number` of a stream; NULL: no memory. */
static inline struct sml_part *make_part(const struct talk *t, uint32_t number)
{
    static uint8_t bytes[SML_FRAGMENT_BYTES];

    memset(bytes, (int)(number * 7 + 1), t->size);
    return sml_part_create(&mem, number % 3 == 0 ? SML_PART_PIECE : SML_PART_ITEM,
                           semel_bytes(bytes, t->size));
}

static inline void check_part(const struct talk *t, const struct sml_part *part, uint32_t number)
{
    assert_int_equal(part->number, number);
    assert_int_equal(part->size, t->size);
    assert_int_equal(part->kind, number % 3 == 0 ? SML_PART_PIECE : SML_PART_ITEM);
    assert_int_equal(part->bytes[0], (uint8_t)(number * 7 + 1));
    assert_int_equal(part->bytes[t->size - 1], (uint8_t)(number * 7 + 1));
}

static inline void caller_step(struct talk *t)
{
    struct sml_caller *caller = &t->f->link.caller;
    struct sml_part *part;

    if (t->call->phase == SML_CALL_DONE)
        return;
    while (t->stream.sends && t->sent < t->total && sml_stream_has_room(&t->stream) &&
           (part = make_part(t, t->sent)) != NULL) {
        assert_true(sml_caller_send_part(caller, t->call, part));
        t->sent++;
    }
    if (t->stream.sends && t->sent == t->total && !t->ended) {
        sml_caller_end_parts(caller, t->call);
        t->ended = true;
    }
}

/* Also of a call that is done: what has arrived can still be taken. */
static inline void caller_take(struct talk *t)
{
    struct sml_part *part;
    bool any = false;

    if (t->stream.in.attempt != t->attempt) {
        t->attempt = t->stream.in.attempt;
        t->back = 0;
    }
    while (t->caller_reads && (part = sml_inflow_take(&t->stream.in)) != NULL) {
        check_part(t, part, t->back++);
        sml_release(&mem, part);
        any = true;
    }
    if (any && t->call->phase != SML_CALL_DONE)
        sml_caller_took_parts(&t->f->link.caller, t->call);
}

/* The handler of a call that only takes parts makes them itself. */
static inline bool next_to_echo(struct talk *t, bool *out_took)
{
    struct sml_part *part;

    if (!t->stream.sends)
        return t->echoed < t->total;
    part = t->handler_reads ? sml_inflow_take(&t->in->stream->in) : NULL;
    if (part == NULL)
        return false;
    check_part(t, part, t->echoed);
    sml_release(&mem, part);
    *out_took = true;
    return true;
}

static inline void finish(struct talk *t)
{
    struct sml_callee *callee = fixture_callee(t->f);
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };

    assert_true(sml_callee_finish(callee, t->in, &verdict, NULL));
    t->in = NULL;
    t->finished = true;
}

static inline void handler_step(struct talk *t)
{
    struct sml_callee *callee = fixture_callee(t->f);
    bool took = false;

    if (t->in == NULL && !t->finished)
        t->in = fixture_begin(t->f);
    if (t->in == NULL)
        return;
    while ((!t->stream.takes || sml_stream_has_room(t->in->stream)) && next_to_echo(t, &took)) {
        struct sml_part *part = NULL;

        while (t->stream.takes && part == NULL)
            part = make_part(t, t->echoed);
        t->echoed++;
        if (part)
            assert_true(sml_callee_send_part(callee, t->in, part));
    }
    if (took)
        sml_callee_took_parts(callee, t->in);
    if (t->stream.sends ? sml_inflow_is_at_end(&t->in->stream->in) : t->echoed == t->total)
        finish(t);
}

/* Whatever can happen at both ends; `cuts` of them, each after so many bytes. */
static inline void talk_run(struct talk *t, uint64_t up_bytes, uint64_t down_bytes, uint32_t cuts)
{
    struct fixture *f = t->f;
    uint64_t up = up_bytes, down = down_bytes;

    for (int i = 0; i < 10000 && sml_list_empty(&f->link.caller.done); i++) {
        caller_step(t);
        caller_take(t);
        if (!sml_list_empty(&f->host.sessions))
            handler_step(t);
        if (pump(f, &up, &down)) {
            up = --cuts > 0 ? up_bytes : FAR;
            down = cuts > 0 ? down_bytes : FAR;
        }
        f->now += SML_MS;
        if (f->link.state != SML_LINK_UP)
            f->now += SML_SECOND;
    }
}

/* Everything arrived, once and in order. */
static inline void talk_expect_whole(struct talk *t)
{
    caller_take(t);
    assert_int_equal(t->back, t->stream.takes ? t->total : 0);
    assert_int_equal(t->echoed, t->total);
    assert_true(!t->stream.takes || sml_inflow_is_at_end(&t->stream.in));
    assert_int_equal(t->f->link.caller.windows, 0);
}

static inline void talk_end(struct talk *t, enum semel_outcome outcome, enum semel_status status)
{
    fixture_expect(t->f, t->call, outcome, status, NULL);
    sml_stream_clear(&t->stream, &mem);
}

#endif
