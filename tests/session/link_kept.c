/* SPDX-License-Identifier: MIT */
/* Sessions that outlive a process: the client's, which has saved what it needs, and the server's,
 * which has a store. */
#include "link_kept.h"

#include "disk.h"

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

/* --- a session that is kept for the next process ----------------------------------------- */

#define RESERVED (UINT64_C(1) << 40)

static int set_up_kept(void **state)
{
    struct fixture *f = fixture_new();

    f->link_options.kept = true;
    f->host_options.features = SML_FEATURE_KEYS;
    fixture_start(f);
    *state = f;
    return 0;
}

static void hand_back_done(struct fixture *f)
{
    struct sml_call *call;

    while ((call = sml_caller_next_done(&f->link.caller)) != NULL) {
        free(call->reply);
        free(call);
    }
}

/* The process ends; the next goes on with what was saved. */
static void next_process(struct fixture *f)
{
    struct sml_link_identity saved = f->saved;

    sml_link_stop(&f->link, f->now);
    fixture_actions(f);
    hand_back_done(f);
    sml_link_fini(&f->link);
    sml_link_init(&f->link, &sml_mem_libc, &f->entropy, &f->link_options, f->now);
    sml_link_restore(&f->link, &saved);
}

static void expect_nothing_sent(struct fixture *f)
{
    static uint8_t bytes[SML_FRAME_BYTES_MAX];

    assert_false(sml_link_wants_write(&f->link, f->now));
    assert_int_equal(sml_link_pull(&f->link, bytes, sizeof bytes, f->now), 0);
}

/* A file that was put back from a copy is older than its session: that is given up, and the calls
 * are made again under their keys. Later in a process the same answer is final. */
static void a_session_older_than_itself_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct sml_link_identity old;
    struct sml_session_id session;
    struct sml_call *call;

    fixture_pump(f);
    old = f->saved;
    session = f->link.session;
    next_process(f);
    fixture_pass(f, SML_SECOND);
    assert_int_equal(f->link.state, SML_LINK_UP);
    f->saved = old;
    next_process(f);
    call = fixture_submit(f, "x");
    fixture_pass(f, SML_SECOND);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_memory_not_equal(&f->link.session, &session, sizeof session);
    assert_false(f->link.recalled);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "y");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "y");
}

static void it_is_saved_before_anything_is_sent(void **state)
{
    struct fixture *f = *state;
    struct sml_link_identity identity;
    struct sml_call *call;

    f->keep_back = true;
    call = fixture_submit(f, "x");
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_GREETING);
    assert_int_equal(f->saves, 1); /* it is asked for once */
    assert_int_equal(sml_link_next_action(&f->link).kind, SML_LINK_NONE);
    expect_nothing_sent(f);
    sml_link_identity(&f->link, &identity);
    assert_false(identity.has_session);
    assert_int_equal(identity.conn_no, 1);
    assert_int_equal(identity.next, 1 + RESERVED);
    assert_memory_equal(identity.session.bytes, f->link.session.bytes, 16);
    assert_memory_equal(identity.secret, f->link.secret, 32);
    sml_link_saved(&f->link);
    fixture_pump(f);
    /* Welcomed: it is saved with the server's name before the first call goes. */
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(f->saves, 2);
    expect_nothing_sent(f);
    sml_link_identity(&f->link, &identity);
    assert_true(identity.has_session);
    assert_memory_equal(identity.server_id, f->host.server_id, 16);
    assert_int_equal(identity.generation, 0);
    assert_int_equal(identity.conn_no, 1);
    assert_int_equal(fixture_callee(f)->hi, 0);
    sml_link_saved(&f->link);
    sml_link_saved(&f->link); /* again: harmless */
    fixture_pump(f);
    assert_int_equal(fixture_callee(f)->hi, 1);
    assert_int_equal(f->link.caller.next_limit, 1 + RESERVED);
    /* And again at each connection, with its number and those it may give. */
    fixture_cut(f);
    fixture_pump(f);
    assert_int_equal(f->saves, 3);
    sml_link_identity(&f->link, &identity);
    assert_int_equal(identity.conn_no, 2);
    assert_int_equal(identity.next, 2 + RESERVED);
    f->keep_back = false;
    sml_link_saved(&f->link);
    fixture_pump(f);
    assert_int_equal(f->saves, 4);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

static void a_session_that_is_not_kept_is_not_saved(void **state)
{
    struct fixture *f = fixture_new();

    (void)state;
    fixture_start(f);
    fixture_pump(f);
    fixture_pass(f, SML_SECOND);
    fixture_cut(f);
    fixture_pump(f);
    assert_int_equal(f->connects, 2);
    assert_int_equal(f->saves, 0);
    sml_link_save_failed(&f->link, "what?", f->now); /* nobody asked */
    assert_int_equal(f->link.state, SML_LINK_UP);
    fixture_free(f);
}

static void what_cannot_be_saved_is_tried_again_later(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");

    f->save_fails = true;
    for (uint32_t i = 1; i <= 5; i++) {
        fixture_pump(f);
        assert_int_equal(f->saves, i);
        assert_int_equal(f->link.state, SML_LINK_WAITING);
        assert_int_equal(f->link.why, SEMEL_STORE_FAILED);
        assert_string_equal(f->link.why_text, "no space left");
        assert_int_equal(f->host.session_count, 0); /* not even a HELLO was sent */
        assert_false(f->connected);
        assert_true(f->link.next_attempt >= f->now + f->link_options.backoff_min);
        f->now = f->link.next_attempt;
    }
    f->save_fails = false;
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(f->saved.conn_no, 6);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

/* The session is there, but nothing is called in it before its name is safe. */
static void a_welcome_that_cannot_be_saved_is_asked_for_again(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");

    f->keep_back = true;
    fixture_pump(f);
    sml_link_saved(&f->link);
    f->save_fails = true;
    fixture_pump(f);
    assert_int_equal(f->saves, 2);
    assert_int_equal(f->link.state, SML_LINK_WAITING);
    assert_int_equal(f->host.session_count, 1);
    assert_int_equal(fixture_callee(f)->hi, 0);
    sml_link_saved(&f->link); /* too late for that connection */
    f->save_fails = f->keep_back = false;
    fixture_pass(f, SML_SECOND);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(f->host.session_count, 1);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

/* The connection is gone by then, and another one will ask for it again. */
static void it_may_be_saved_too_late(void **state)
{
    struct fixture *f = *state;
    uint64_t limit;

    sml_link_tick(&f->link, f->now);
    assert_int_equal(sml_link_next_action(&f->link).kind, SML_LINK_CONNECT);
    sml_link_connected(&f->link, f->now);
    sml_link_closed(&f->link, SEMEL_LINK_LOST, false, f->now);
    assert_int_equal(sml_link_next_action(&f->link).kind, SML_LINK_NONE); /* not even asked */
    limit = f->link.caller.next_limit;
    sml_link_saved(&f->link);
    assert_int_equal(f->link.caller.next_limit, limit);
    sml_link_save_failed(&f->link, "no space left", f->now);
    assert_int_equal(f->link.why, SEMEL_LINK_LOST);
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(f->saved.conn_no, 2);
}

static void the_next_process_goes_on_behind_all_that_was_given(void **state)
{
    struct fixture *f = *state;
    struct sml_session_id session;
    struct sml_call *call;
    struct sml_incoming *in;

    fixture_pump(f);
    session = f->link.session;
    for (int i = 0; i < 3; i++)
        fixture_submit(f, "x");
    fixture_pump(f);
    in = fixture_begin(f);
    assert_int_equal(fixture_callee(f)->hi, 3);
    assert_int_equal(f->saved.next, 1 + RESERVED);
    for (uint64_t process = 1; process <= 3; process++) {
        next_process(f);
        call = fixture_submit(f, "y");
        fixture_pump(f);
        assert_int_equal(f->link.state, SML_LINK_UP);
        assert_memory_equal(f->link.session.bytes, session.bytes, 16);
        assert_int_equal(f->host.session_count, 1);
        assert_int_equal(f->host.counters.resumed, process);
        assert_int_equal(f->saved.conn_no, 1 + process);
        assert_int_equal(call->xid, 1 + process * RESERVED);
        assert_int_equal(fixture_callee(f)->hi, call->xid);
        assert_int_equal(f->saved.next, 1 + (process + 1) * RESERVED);
        /* What was before is released. */
        assert_int_equal(fixture_callee(f)->table.count, 1);
        assert_true(atomic_load(&in->gone));
    }
    fixture_finish(f, in, SEMEL_VALUE, "nobody waits");
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

/* Its HELLO may have arrived, its WELCOME was not read, or not saved. */
static void the_next_process_may_have_to_create_it(void **state)
{
    for (int arrived = 0; arrived < 2; arrived++) {
        struct fixture *f;
        void *opened;
        struct sml_session_id session;
        struct sml_call *call;

        set_up_kept(&opened);
        f = opened;
        f->keep_back = true;
        fixture_pump(f);
        sml_link_identity(&f->link, &f->saved);
        session = f->link.session;
        if (arrived) {
            sml_link_saved(&f->link);
            fixture_pump(f);
            assert_int_equal(f->host.session_count, 1);
        }
        fixture_cut(f);
        f->keep_back = false;
        next_process(f);
        call = fixture_submit(f, "y");
        fixture_pump(f);
        assert_int_equal(f->link.state, SML_LINK_UP);
        assert_memory_equal(f->link.session.bytes, session.bytes, 16);
        assert_int_equal(f->host.session_count, 1);
        assert_int_equal(f->host.counters.resumed, 0);
        assert_int_equal(f->link.conn_no, 2);
        assert_int_equal(call->xid, 1);
        fixture_free(f);
    }
    (void)state;
}

static void numbers_that_are_used_up_begin_a_new_session(void **state)
{
    struct fixture *f = *state;
    struct sml_session_id session;
    struct sml_call *call;

    fixture_pump(f);
    session = f->link.session;
    fixture_submit(f, "x");
    fixture_pump(f);
    f->saved.next = SML_XID_MAX - RESERVED;
    next_process(f);
    fixture_pump(f);
    assert_memory_equal(f->link.session.bytes, session.bytes, 16); /* the last that can */
    assert_int_equal(f->link.caller.next, SML_XID_MAX - RESERVED);
    fixture_submit(f, "x");
    fixture_pump(f);
    assert_true(f->saved.next > SML_XID_MAX - RESERVED);
    next_process(f);
    call = fixture_submit(f, "y");
    call->key = "key";
    call->key_bytes = 3;
    call->rerun = true;
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_memory_not_equal(f->link.session.bytes, session.bytes, 16);
    assert_int_equal(call->xid, 1);
    assert_int_equal(f->saved.conn_no, 1);
    assert_int_equal(f->saved.next, 1 + RESERVED);
    /* It is the same server all the same: keys are known there. */
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

static void no_number_beyond_those_reserved_is_given(void **state)
{
    struct fixture *f = *state;
    struct sml_call *last, *beyond;

    fixture_pump(f);
    f->link.caller.next = f->link.caller.next_limit - 1;
    fixture_callee(f)->hi = f->link.caller.next - 1;
    last = fixture_submit(f, "x");
    beyond = fixture_submit(f, "y");
    fixture_pump(f);
    assert_int_equal(last->xid, RESERVED);
    assert_int_equal(beyond->xid, 0);
    fixture_cut(f); /* the next connection sets more aside */
    fixture_pump(f);
    assert_int_equal(beyond->xid, RESERVED + 1);
    assert_int_equal(f->link.caller.next_limit, 2 * RESERVED + 1);
}

static void keys_of_an_earlier_process_need_their_server(void **state)
{
    for (int other = 0; other < 2; other++) {
        struct fixture *f;
        void *opened;
        struct sml_call *again, *fresh, *harmless;
        struct sml_session *session;

        set_up_kept(&opened);
        f = opened;
        fixture_pump(f);
        fixture_cut(f);
        session = SML_CONTAINER(f->host.sessions.next, struct sml_session, all);
        fixture_end(f, session);
        f->host.server_id[0] ^= (uint8_t)other;
        next_process(f);
        again = fixture_submit(f, "a");
        fresh = fixture_submit(f, "f");
        harmless = fixture_submit(f, "h");
        harmless->rerun = true;
        harmless->flags = SML_CALL_RERUN_OK; /* it needs no key */
        again->key = fresh->key = "key";
        again->key_bytes = fresh->key_bytes = 3;
        again->rerun = true;
        fixture_pump(f);
        assert_int_equal(f->link.state, SML_LINK_UP);
        assert_int_equal(f->link.counters.sessions_lost, 1);
        assert_int_equal(fixture_callee(f)->hi, other ? 2 : 3);
        if (other)
            fixture_expect(f, again, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
        fixture_free(f);
    }
    (void)state;
}

/* The store that keys were last used at is remembered, although the session is another by now. */
static void the_store_of_the_keys_outlives_their_session(void **state)
{
    for (int other = 0; other < 2; other++) {
        struct fixture *f;
        void *opened;
        struct sml_call *again, *late;

        set_up_kept(&opened);
        f = opened;
        fixture_pump(f);
        f->saved.has_session = false; /* the process ended between two servers */
        memset(f->saved.server_id, 0, sizeof f->saved.server_id);
        f->saved.session.bytes[0] ^= 1;
        f->saved.store_id[0] ^= (uint8_t)other;
        fixture_cut(f);
        next_process(f);
        again = fixture_submit(f, "a");
        again->key = "key";
        again->key_bytes = 3;
        again->rerun = true;
        fixture_pump(f);
        assert_int_equal(f->link.state, SML_LINK_UP);
        if (other)
            fixture_expect(f, again, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
        else
            assert_int_equal(fixture_callee(f)->hi, 1);
        late = calloc(1, sizeof *late); /* it had to wait outside meanwhile */
        *late = (struct sml_call){ .method = "m",
                                   .method_bytes = 1,
                                   .key = "late",
                                   .key_bytes = 4,
                                   .deadline = SML_NEVER,
                                   .rerun = true };
        assert_int_equal(sml_link_submit(&f->link, late, f->now), SEMEL_OK);
        fixture_pump(f);
        if (other)
            fixture_expect(f, late, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
        else
            assert_int_equal(fixture_callee(f)->hi, 2);
        fixture_free(f);
    }
    (void)state;
}

static uint32_t next_address(struct fixture *f)
{
    struct sml_link_action action;

    f->now = f->link.next_attempt;
    sml_link_tick(&f->link, f->now);
    action = sml_link_next_action(&f->link);
    assert_int_equal(action.kind, SML_LINK_CONNECT);
    sml_link_connect_failed(&f->link, SEMEL_CONNECT, "no", f->now);
    return action.address;
}

/* A call that only the last store knows waits for that one, however long other servers are there.
 * */
static void keys_wait_for_the_address_of_their_store(void **state)
{
    struct fixture *f = *state;
    struct sml_link_identity saved;
    struct sml_call *again;

    fixture_pump(f);
    saved = f->saved;
    saved.address = 1;
    f->link_options.addresses = 3;
    next_process(f);
    sml_link_fini(&f->link);
    sml_link_init(&f->link, &sml_mem_libc, &f->entropy, &f->link_options, f->now);
    sml_link_restore(&f->link, &saved);
    assert_int_equal(next_address(f), 1);
    assert_int_equal(next_address(f), 2); /* nothing waits: any server will do */
    again = fixture_submit(f, "a");
    again->key = "key";
    again->key_bytes = 3;
    again->rerun = true;
    next_address(f); /* planned before */
    for (int i = 0; i < 4; i++)
        assert_int_equal(next_address(f), 1);
    f->link.keyed_outside = 1;
    again->flags = SML_CALL_RERUN_OK;
    for (int i = 0; i < 4; i++)
        assert_int_equal(next_address(f), 1);
    f->link.keyed_outside = 0;
    assert_int_equal(next_address(f), 1);
    assert_int_equal(next_address(f), 2);
    f->link_options.addresses = 1;
    sml_link_stop(&f->link, f->now);
    hand_back_done(f);
}

static void a_kept_session_with_calls_is_not_ended_by_a_stop(void **state)
{
    /* No call; one under way; one that waits; one whose connection is gone; and one under way in a
     * session that is not kept. */
    for (int i = 0; i < 5; i++) {
        struct fixture *f;
        void *opened;

        set_up_kept(&opened);
        f = opened;
        f->link_options.kept = i < 4;
        sml_link_fini(&f->link);
        sml_link_init(&f->link, &sml_mem_libc, &f->entropy, &f->link_options, f->now);
        fixture_pump(f);
        if (i > 0)
            fixture_submit(f, "x");
        if (i != 2)
            fixture_pump(f);
        if (i == 3)
            fixture_cut(f);
        sml_link_stop(&f->link, f->now);
        fixture_actions(f);
        assert_false(f->connected);
        assert_int_equal(f->host.session_count, i > 0 && i < 4);
        assert_int_equal(f->host.counters.ended, i == 0 || i == 4);
        hand_back_done(f);
        fixture_free(f);
    }
    (void)state;
}

/* --- a server that comes back ------------------------------------------------------------ */

static struct disk disk;

static int set_up_durable(void **state)
{
    struct fixture *f = fixture_new();

    memset(&disk, 0, sizeof disk);
    f->host_options.durable = true;
    f->host_options.store.generation = 1;
    fixture_start(f);
    disk_pump(&disk, f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    *state = f;
    return 0;
}

/* The next call is started, up to its handler. */
static struct sml_incoming *begin_stored(struct fixture *f)
{
    struct sml_callee *callee = fixture_callee(f);
    struct sml_incoming *in = sml_callee_take(callee);

    assert_true(sml_callee_start(callee, in, f->now));
    disk_pump(&disk, f);
    assert_true(sml_callee_begin(callee, in, 0, f->now));
    return in;
}

/* Whatever the host does from here on is not stored; then another one begins. */
static void restart_host(struct fixture *f, struct sml_incoming *running)
{
    fixture_cut(f);
    if (running)
        fixture_finish(f, running, SEMEL_VALUE, "not stored");
    sml_host_fini(&f->host);
    sml_host_init(&f->host, &sml_mem_libc, &f->entropy, &f->host_options);
    disk_restore(&disk, &f->host, f->now);
}

static void a_restart_is_no_more_than_a_lost_connection(void **state)
{
    struct fixture *f = *state;
    struct sml_call *done = fixture_submit(f, "a"), *begun = fixture_submit(f, "b");
    struct sml_call *waiting = fixture_submit(f, "c"), *queued;
    struct sml_incoming *in;
    struct sml_verdict died = { .outcome = SEMEL_UNKNOWN, .status = SEMEL_SERVER_DIED };

    disk_pump(&disk, f);
    in = begin_stored(f);
    fixture_finish(f, in, SEMEL_VALUE, "stored");
    in = begin_stored(f);
    fixture_expect(f, done, SEMEL_VALUE, SEMEL_OK, "stored");
    restart_host(f, in);
    queued = fixture_submit(f, "d");
    in = sml_table_find(&fixture_callee(f)->table, 2);
    assert_int_equal(in->phase, SML_IN_RUNNING);
    sml_callee_finish(fixture_callee(f), in, &died, NULL);
    disk_pump(&disk, f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(f->link.counters.sessions_lost, 0);
    fixture_expect(f, begun, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, NULL);
    fixture_finish(f, begin_stored(f), SEMEL_VALUE, "rc");
    disk_pump(&disk, f);
    fixture_expect(f, waiting, SEMEL_VALUE, SEMEL_OK, "rc");
    fixture_finish(f, begin_stored(f), SEMEL_VALUE, "rd");
    disk_pump(&disk, f);
    fixture_expect(f, queued, SEMEL_VALUE, SEMEL_OK, "rd");
    fixture_pass(f, 25 * SML_MS);
    disk_pump(&disk, f);
    assert_int_equal(disk_count(disk.calls), 0);
    assert_int_equal(fixture_callee(f)->base, 4);
}

static void a_reply_lost_with_the_server_is_there_again(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "a");

    disk_pump(&disk, f);
    fixture_finish(f, begin_stored(f), SEMEL_VALUE, "stored");
    disk_store(&disk, f->peer.session); /* and nothing is written any more */
    for (int i = 0; i < 3; i++) {
        restart_host(f, NULL);
        assert_int_equal(fixture_callee(f)->table.count, 1);
    }
    disk_pump(&disk, f);
    assert_null(fixture_begin(f));
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "stored");
    assert_int_equal(f->link.caller.counters.replayed, 1);
}

/* The beginning of a reply is here when the server dies. What it has stored goes on; what it has
 * not begins anew, and may be another one. */
static void a_reply_may_be_cut_by_a_restart(void **state)
{
    static char first[200001], second[150001];

    (void)state;
    memset(first, '1', sizeof first - 1);
    memset(second, '2', sizeof second - 1);
    for (int stored = 0; stored < 2; stored++) {
        struct fixture *f;
        void *opened;
        struct sml_call *call;

        set_up_durable(&opened);
        f = opened;
        call = fixture_submit(f, "a");
        disk_pump(&disk, f);
        fixture_finish(f, stored ? begin_stored(f) : fixture_begin(f), SEMEL_VALUE, first);
        if (stored)
            disk_store(&disk, f->peer.session);
        f->down.size = sml_peer_pull(&f->peer, f->down.bytes, 2 * SML_FRAME_BYTES_MAX, f->now);
        fixture_to_link(f);
        assert_true(call->reply_held > 0);
        restart_host(f, NULL);
        disk_pump(&disk, f);
        assert_int_equal(f->link.state, SML_LINK_UP);
        if (!stored) {
            fixture_finish(f, fixture_begin(f), SEMEL_VALUE, second);
            disk_pump(&disk, f);
        }
        fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, stored ? first : second);
        assert_int_equal(f->link.counters.protocol_errors, 0);
        fixture_free(f);
    }
}

#define KEPT(name, function)                                                                       \
    {                                                                                              \
        name, function, set_up_kept, tear_down, NULL                                               \
    }
#define DURABLE(name, function)                                                                    \
    {                                                                                              \
        name, function, set_up_durable, tear_down, NULL                                            \
    }

int link_kept(void)
{
    const struct CMUnitTest kept[] = {
        KEPT("a session older than itself is given up", a_session_older_than_itself_is_given_up),
        KEPT("it is saved before anything is sent", it_is_saved_before_anything_is_sent),
        ROW("a session that is not kept is not saved", a_session_that_is_not_kept_is_not_saved),
        KEPT("what cannot be saved is tried again later",
             what_cannot_be_saved_is_tried_again_later),
        KEPT("a WELCOME that cannot be saved is asked for again",
             a_welcome_that_cannot_be_saved_is_asked_for_again),
        KEPT("it may be saved too late", it_may_be_saved_too_late),
        KEPT("the next process goes on behind all that was given",
             the_next_process_goes_on_behind_all_that_was_given),
        ROW("the next process may have to create it", the_next_process_may_have_to_create_it),
        KEPT("numbers that are used up begin a new session",
             numbers_that_are_used_up_begin_a_new_session),
        KEPT("no number beyond those reserved is given", no_number_beyond_those_reserved_is_given),
        ROW("keys of an earlier process need their server",
            keys_of_an_earlier_process_need_their_server),
        ROW("the store of the keys outlives their session",
            the_store_of_the_keys_outlives_their_session),
        KEPT("keys wait for the address of their store", keys_wait_for_the_address_of_their_store),
        ROW("a kept session with calls is not ended by a stop",
            a_kept_session_with_calls_is_not_ended_by_a_stop),
        DURABLE("a restart is no more than a lost connection",
                a_restart_is_no_more_than_a_lost_connection),
        DURABLE("a reply lost with the server is there again",
                a_reply_lost_with_the_server_is_there_again),
        ROW("a reply may be cut by a restart", a_reply_may_be_cut_by_a_restart),
    };

    return cmocka_run_group_tests(kept, NULL, NULL);
}
