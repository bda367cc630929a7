/* SPDX-License-Identifier: MIT */
/* fixture.h - a link and a host joined by byte buffers, driven by hand in virtual time. */
#ifndef TESTS_SESSION_FIXTURE_H
#define TESTS_SESSION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "session/host.h"
#include "session/link.h"

#ifndef PIPE_BYTES
#define PIPE_BYTES (4 * 1024 * 1024)
#endif
#define ROW(name, function) { name, function, NULL, NULL, NULL }

struct pipe {
    uint8_t *bytes;
    size_t size;
};

struct fixture {
    uint64_t now;
    uint64_t dice;
    struct sml_entropy entropy;
    struct sml_link_options link_options;
    struct sml_host_options host_options;
    struct sml_link link;
    struct sml_host host;
    struct sml_peer peer;
    bool connected; /* both ends hold the connection */
    bool refuse;    /* connecting fails */
    bool keep_back; /* what is to be saved is not saved yet */
    bool save_fails;
    struct sml_link_identity saved;
    uint32_t saves;
    struct sml_session *ended; /* the store has not forgotten it yet */
    struct pipe up, down;
    uint32_t connects;
};

/* A weak but repeatable generator (splitmix64, Steele et al. 2014). */
static inline void fixture_fill(void *user, void *out, size_t bytes)
{
    struct fixture *f = user;

    for (size_t i = 0; i < bytes; i++) {
        uint64_t z = (f->dice += UINT64_C(0x9e3779b97f4a7c15));

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        ((uint8_t *)out)[i] = (uint8_t)(z >> 40);
    }
}

static inline struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->now = SML_SECOND;
    f->entropy = (struct sml_entropy){ fixture_fill, f };
    f->link_options = (struct sml_link_options){ .cancel_grace = SML_SECOND,
                                                 .connect = 3 * SML_SECOND,
                                                 .handshake = 5 * SML_SECOND,
                                                 .heartbeat = 5 * SML_SECOND,
                                                 .backoff_min = 100 * SML_MS,
                                                 .backoff_max = 5 * SML_SECOND,
                                                 .give_up = 60 * SML_SECOND,
                                                 .reconnect = true,
                                                 .heartbeat_missed = 3,
                                                 .addresses = 1,
                                                 .window = 8,
                                                 .pending_max = 100,
                                                 .body_bytes = 1 << 20 };
    f->host_options = (struct sml_host_options){
        .limits = { .window = 8, .body_bytes = 1 << 20, .session_bytes = 2 << 20 },
        .sessions_max = 4,
        .idle = 300 * SML_SECOND,
        .handshake = 5 * SML_SECOND,
        .silence = 20 * SML_SECOND,
        .heartbeat_ms = 5000
    };
    f->up.bytes = malloc(PIPE_BYTES);
    f->down.bytes = malloc(PIPE_BYTES);
    return f;
}

static inline void fixture_start(struct fixture *f)
{
    sml_link_init(&f->link, &sml_mem_libc, &f->entropy, &f->link_options, f->now);
    sml_host_init(&f->host, &sml_mem_libc, &f->entropy, &f->host_options);
}

static inline void fixture_cut_host(struct fixture *f)
{
    sml_host_detach(&f->host, &f->peer, f->now);
    sml_peer_fini(&f->peer);
}

/* The connection breaks; both ends see it at once; bytes under way are lost. */
static inline void fixture_cut(struct fixture *f)
{
    if (!f->connected)
        return;
    f->connected = false;
    f->up.size = f->down.size = 0;
    sml_link_closed(&f->link, SEMEL_LINK_LOST, false, f->now);
    fixture_cut_host(f);
}

/* The host forgets a session; without a store at once. */
static inline void fixture_end(struct fixture *f, struct sml_session *session)
{
    sml_host_end(&f->host, session);
    if (sml_session_is_over(session)) {
        sml_session_free(&f->host, session);
        return;
    }
    assert_null(f->ended);
    f->ended = session;
}

static inline void fixture_to_host(struct fixture *f)
{
    struct sml_peer *loser = NULL;
    struct sml_hello hello;
    size_t used = 0;
    enum sml_peer_event event =
        sml_peer_input(&f->peer, f->up.bytes, f->up.size, &used, &hello, f->now);

    memmove(f->up.bytes, f->up.bytes + used, f->up.size - used);
    f->up.size -= used;
    if (event == SML_PEER_HELLO)
        sml_host_hello(&f->host, &f->peer, &hello, &loser, f->now);
    if (event == SML_PEER_ENDED && f->peer.session)
        fixture_end(f, f->peer.session);
}

static inline void fixture_save(struct fixture *f)
{
    f->saves++;
    if (f->save_fails) {
        sml_link_save_failed(&f->link, "no space left", f->now);
    } else if (!f->keep_back) {
        sml_link_identity(&f->link, &f->saved);
        sml_link_saved(&f->link);
    }
}

static inline void fixture_actions(struct fixture *f)
{
    struct sml_principal nobody = { false, 0, 0 };
    struct sml_link_action action;

    while ((action = sml_link_next_action(&f->link)).kind != SML_LINK_NONE) {
        if (action.kind == SML_LINK_CLOSE && f->connected) {
            f->up.size +=
                sml_link_pull(&f->link, f->up.bytes + f->up.size, PIPE_BYTES - f->up.size, f->now);
            fixture_to_host(f);
            f->connected = false;
            f->up.size = f->down.size = 0;
            fixture_cut_host(f);
        } else if (action.kind == SML_LINK_CONNECT) {
            f->connects++;
            if (f->refuse) {
                sml_link_connect_failed(&f->link, SEMEL_PEER_DIED, "refused", f->now);
                continue;
            }
            sml_peer_init(&f->peer, &f->host, &nobody, f->now);
            f->connected = true;
            sml_link_connected(&f->link, f->now);
        } else if (action.kind == SML_LINK_SAVE) {
            fixture_save(f);
        }
    }
}

/* Replies that lie in the bytes just given must be copied before these change. */
static inline void fixture_keep_in_place(struct fixture *f)
{
    struct sml_list *head = &f->link.caller.done;

    for (struct sml_list *n = head->next; n != head; n = n->next) {
        struct sml_call *call = SML_CONTAINER(n, struct sml_call, link);
        struct sml_verdict *v = &call->verdict;

        if (!call->reply_in_place)
            continue;
        call->reply = malloc(v->text.size + v->body.size + 1);
        v->text.data = memcpy(call->reply, v->text.data, v->text.size);
        v->body.data = memcpy(call->reply + v->text.size, v->body.data, v->body.size);
        call->reply_in_place = false;
    }
}

static inline void fixture_to_link(struct fixture *f)
{
    size_t used = 0;

    sml_link_input(&f->link, f->down.bytes, f->down.size, &used, f->now);
    fixture_keep_in_place(f);
    memmove(f->down.bytes, f->down.bytes + used, f->down.size - used);
    f->down.size -= used;
}

static inline bool fixture_pull(struct fixture *f)
{
    size_t up, down;

    if (!f->connected)
        return false;
    up = sml_link_pull(&f->link, f->up.bytes + f->up.size, PIPE_BYTES - f->up.size, f->now);
    down = sml_peer_pull(&f->peer, f->down.bytes + f->down.size, PIPE_BYTES - f->down.size, f->now);
    f->up.size += up;
    f->down.size += down;
    return up + down > 0;
}

/* Let everything happen that can happen without time passing. A peer that closes is cut after its
 * last words arrived. */
static inline void fixture_pump(struct fixture *f)
{
    bool more = true;

    while (more) {
        sml_link_tick(&f->link, f->now);
        fixture_actions(f);
        more = fixture_pull(f) || (f->connected && f->up.size > 0);
        if (f->connected && f->up.size > 0)
            fixture_to_host(f);
        fixture_actions(f);
        if (f->connected && f->down.size > 0)
            fixture_to_link(f);
        fixture_actions(f);
        if (f->connected && f->peer.state == SML_PEER_CLOSING && !f->peer.bye_pending) {
            fixture_cut(f);
            more = true;
        }
        more = more || sml_link_timeout(&f->link) <= f->now;
    }
}

static inline void fixture_pass(struct fixture *f, uint64_t span)
{
    f->now += span;
    for (struct sml_list *n = f->host.sessions.next; n != &f->host.sessions; n = n->next)
        sml_callee_tick(&SML_CONTAINER(n, struct sml_session, all)->callee, f->now);
    fixture_pump(f);
}

static inline struct sml_callee *fixture_callee(struct fixture *f)
{
    if (f->connected && f->peer.session)
        return &f->peer.session->callee;
    assert_false(sml_list_empty(&f->host.sessions));
    return &SML_CONTAINER(f->host.sessions.next, struct sml_session, all)->callee;
}

static inline struct sml_call *fixture_submit(struct fixture *f, const char *body)
{
    struct sml_call *call = calloc(1, sizeof *call);

    call->method = "m";
    call->method_bytes = 1;
    call->body = body;
    call->body_bytes = strlen(body);
    call->deadline = f->now + 30 * SML_SECOND;
    assert_int_equal(sml_link_submit(&f->link, call, f->now), SEMEL_OK);
    return call;
}

/* The handler of the next call begins; NULL if none is ready. */
static inline struct sml_incoming *fixture_begin(struct fixture *f)
{
    struct sml_callee *callee = fixture_callee(f);
    struct sml_incoming *in = sml_callee_take(callee);

    return in && sml_callee_begin(callee, in, 0, f->now) ? in : NULL;
}

static inline void fixture_finish(struct fixture *f, struct sml_incoming *in,
                                  enum semel_outcome outcome, const char *text)
{
    struct sml_callee *callee = fixture_callee(f);
    size_t bytes = strlen(text);
    uint8_t *reply = sml_callee_reply_alloc(callee, bytes);
    struct sml_verdict verdict = { .outcome = outcome,
                                   .status = outcome == SEMEL_VALUE ? SEMEL_OK : SEMEL_FAILED,
                                   .code = outcome == SEMEL_VALUE ? 0 : 7 };

    memcpy(reply, text, bytes);
    if (outcome == SEMEL_VALUE)
        verdict.body = semel_bytes(reply, bytes);
    else
        verdict.text = semel_bytes(reply, bytes);
    sml_callee_finish(callee, in, &verdict, reply);
}

/* `call` must be the next that is done; checks and frees it. `text` NULL: do not look. */
static inline void fixture_expect(struct fixture *f, struct sml_call *call,
                                  enum semel_outcome outcome, enum semel_status status,
                                  const char *text)
{
    struct sml_call *done = sml_caller_next_done(&f->link.caller);

    assert_ptr_equal(done, call);
    assert_int_equal(done->verdict.outcome, outcome);
    assert_int_equal(done->verdict.status, status);
    if (text) {
        struct semel_bytes bytes = outcome == SEMEL_VALUE ? done->verdict.body : done->verdict.text;

        assert_int_equal(bytes.size, strlen(text));
        assert_memory_equal(bytes.data, text, bytes.size);
    }
    sml_caller_accept(&f->link.caller, done, f->now);
    free(done->reply);
    free(done);
}

static inline void fixture_free(struct fixture *f)
{
    struct sml_list *sessions = &f->host.sessions;
    struct sml_call *call;

    /* A test that failed in the middle of a handler: let its message stand. */
    for (struct sml_list *n = sessions->next; n && n != sessions; n = n->next)
        if (SML_CONTAINER(n, struct sml_session, all)->callee.held > 0)
            return;
    sml_link_stop(&f->link, f->now);
    fixture_actions(f);
    while ((call = sml_caller_next_done(&f->link.caller)) != NULL) {
        free(call->reply);
        free(call);
    }
    sml_link_fini(&f->link);
    if (f->ended) {
        sml_callee_forsake(&f->ended->callee);
        f->ended->row = 0;
        sml_session_free(&f->host, f->ended);
    }
    sml_host_fini(&f->host);
    free(f->up.bytes);
    free(f->down.bytes);
    free(f);
}

#endif
