/* SPDX-License-Identifier: MIT */
/* Who may create, resume and take over a session. */
#include "disk.h"

static struct sml_host host;
static struct fixture dice; /* only its generator is used */

static struct sml_host_options options = {
    .limits = { .window = 8, .body_bytes = 1000, .session_bytes = 1000 },
    .sessions_max = 100,
    .idle = 10 * SML_SECOND,
    .handshake = SML_SECOND,
    .silence = SML_NEVER
};

static int set_up(void **state)
{
    struct sml_entropy entropy = { fixture_fill, &dice };

    (void)state;
    sml_host_init(&host, &sml_mem_libc, &entropy, &options);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sml_host_fini(&host);
    return 0;
}

static struct sml_hello hello_of(uint8_t id, uint8_t kind, uint64_t conn_no)
{
    struct sml_hello hello = {
        .version = 1, .kind = kind, .conn_no = conn_no, .next = 1, .window = 8, .body_bytes = 1000
    };

    memset(hello.session.bytes, id, 16);
    memset(hello.secret, id, 32);
    return hello;
}

static void greet(struct sml_peer *peer, const struct sml_hello *hello, uint32_t uid,
                  struct sml_peer **loser)
{
    struct sml_principal principal = { true, uid, uid };

    sml_peer_init(peer, &host, &principal, 0);
    sml_host_hello(&host, peer, hello, loser, 0);
}

static void expect_refused(const struct sml_hello *hello, uint32_t uid, enum sml_bye_code code)
{
    struct sml_peer peer, *loser = NULL;

    greet(&peer, hello, uid, &loser);
    assert_int_equal(peer.state, SML_PEER_CLOSING);
    assert_int_equal(peer.bye, code);
    assert_null(peer.session);
    assert_null(loser);
    sml_peer_fini(&peer);
}

static void only_who_made_it_may_resume_it(void **state)
{
    struct sml_hello create = hello_of(1, SML_CREATE, 1), resume = hello_of(1, SML_RESUME, 2);
    struct sml_hello unknown = hello_of(2, SML_RESUME, 1), forged;
    struct sml_peer first, *loser;

    (void)state;
    greet(&first, &create, 7, &loser);
    assert_int_equal(first.state, SML_PEER_UP);
    sml_host_detach(&host, &first, 0);
    forged = resume;
    forged.secret[31] ^= 1;
    expect_refused(&forged, 7, SML_BYE_DENIED);
    expect_refused(&resume, 8, SML_BYE_DENIED); /* another user with the secret */
    expect_refused(&unknown, 7, SML_BYE_SESSION_LOST);
    assert_int_equal(host.session_count, 1); /* RESUME never creates */
    greet(&first, &resume, 7, &loser);
    assert_int_equal(first.state, SML_PEER_UP);
    sml_host_detach(&host, &first, 0);
}

static void the_newest_connection_wins(void **state)
{
    struct sml_hello create = hello_of(1, SML_CREATE, 1), newer = hello_of(1, SML_RESUME, 5);
    struct sml_hello delayed = hello_of(1, SML_RESUME, 4), same = hello_of(1, SML_RESUME, 5);
    struct sml_peer first, second, *loser;

    (void)state;
    greet(&first, &create, 7, &loser);
    assert_null(loser);
    greet(&second, &newer, 7, &loser);
    assert_ptr_equal(loser, &first);
    assert_int_equal(first.state, SML_PEER_CLOSING);
    assert_int_equal(first.bye, SML_BYE_TAKEN_OVER);
    assert_null(first.session);
    expect_refused(&delayed, 7, SML_BYE_TAKEN_OVER); /* a delayed old HELLO steals nothing */
    expect_refused(&same, 7, SML_BYE_TAKEN_OVER);
    assert_int_equal(second.state, SML_PEER_UP);
    sml_host_detach(&host, &second, 0);
}

static void create_is_insert_if_absent(void **state)
{
    struct sml_hello create = hello_of(1, SML_CREATE, 1), again = hello_of(1, SML_CREATE, 2);
    struct sml_hello other = hello_of(1, SML_CREATE, 3);
    struct sml_peer first, second, *loser;

    (void)state;
    greet(&first, &create, 7, &loser); /* its WELCOME is lost */
    greet(&second, &again, 7, &loser);
    assert_ptr_equal(loser, &first);
    assert_int_equal(second.state, SML_PEER_UP);
    assert_int_equal(host.session_count, 1);
    other.secret[0] ^= 1;
    expect_refused(&other, 7, SML_BYE_DENIED);
    sml_host_detach(&host, &second, 0);
}

static void contradictions_are_refused(void **state)
{
    struct sml_hello hello = hello_of(1, SML_CREATE, 0);

    (void)state;
    expect_refused(&hello, 7, SML_BYE_PROTOCOL);
    hello = hello_of(1, SML_CREATE, 1);
    hello.next = 2;
    expect_refused(&hello, 7, SML_BYE_PROTOCOL);
    hello = hello_of(1, SML_CREATE, 1);
    hello.window = 0;
    expect_refused(&hello, 7, SML_BYE_PROTOCOL);
    hello.window = SEMEL_WINDOW_CALLS_MAX + 1;
    expect_refused(&hello, 7, SML_BYE_PROTOCOL);
    hello = hello_of(1, SML_CREATE, 1);
    hello.count = 1;
    expect_refused(&hello, 7, SML_BYE_PROTOCOL);
    assert_int_equal(host.session_count, 0);
}

static void sessions_are_bounded_and_found_among_many(void **state)
{
    struct sml_peer peers[100], *loser;

    (void)state;
    for (int i = 0; i < 100; i++) {
        struct sml_hello hello = hello_of((uint8_t)i, SML_CREATE, 1);

        greet(&peers[i], &hello, 7, &loser);
        assert_int_equal(peers[i].state, SML_PEER_UP);
    }
    struct sml_hello one_more = hello_of(200, SML_CREATE, 1);
    expect_refused(&one_more, 7, SML_BYE_RETRY_LATER);
    for (int i = 0; i < 100; i++)
        sml_host_detach(&host, &peers[i], (uint64_t)i);
    for (int i = 99; i >= 0; i--) {
        struct sml_hello hello = hello_of((uint8_t)i, SML_RESUME, 2);

        greet(&peers[i], &hello, 7, &loser);
        assert_int_equal(peers[i].state, SML_PEER_UP);
    }
    host.draining = true;
    expect_refused(&one_more, 7, SML_BYE_RETRY_LATER);
    for (int i = 0; i < 100; i++)
        sml_host_detach(&host, &peers[i], 0);
    assert_int_equal(sml_host_timeout(&host), 10 * SML_SECOND);
}

/* A host that is full of sessions to which nobody comes back has room for new ones. */
static void the_longest_left_make_room(void **state)
{
    struct sml_hello one_more = hello_of(200, SML_CREATE, 1), again = hello_of(50, SML_CREATE, 2);
    struct sml_hello lost = hello_of(10, SML_RESUME, 2), bad = one_more, resume = one_more;
    struct sml_peer peers[100], *loser;
    struct sml_session *session;

    (void)state;
    bad.window = 0;
    resume.kind = SML_RESUME;
    assert_null(sml_host_surplus(&host, &one_more)); /* there is room */
    for (int i = 0; i < 100; i++) {
        struct sml_hello hello = hello_of((uint8_t)i, SML_CREATE, 1);

        greet(&peers[i], &hello, 7, &loser);
    }
    assert_null(sml_host_surplus(&host, &one_more)); /* all are connected */
    for (int i = 10; i < 100; i++)
        sml_host_detach(&host, &peers[i], (uint64_t)i);
    assert_null(sml_host_surplus(&host, &bad));
    assert_null(sml_host_surplus(&host, &resume));
    assert_null(sml_host_surplus(&host, &again)); /* it has one */
    session = sml_host_surplus(&host, &one_more);
    assert_int_equal(session->id.bytes[0], 10);
    assert_int_equal(host.counters.expired, 1);
    sml_host_end(&host, session);
    sml_session_free(&host, session);
    greet(&peers[10], &one_more, 7, &loser);
    assert_int_equal(peers[10].state, SML_PEER_UP);
    expect_refused(&lost, 7, SML_BYE_SESSION_LOST);
    sml_host_detach(&host, &peers[10], 100);
    session = sml_host_surplus(&host, &lost);
    assert_null(session);
    lost.kind = SML_CREATE;
    assert_int_equal(sml_host_surplus(&host, &lost)->id.bytes[0], 11);
    host.draining = true;
    assert_null(sml_host_surplus(&host, &lost));
    for (int i = 0; i < 10; i++)
        sml_host_detach(&host, &peers[i], 0);
}

/* Ids are the clients' to choose; they must not be able to meet in one bucket. */
static void chosen_ids_do_not_meet_in_one_bucket(void **state)
{
    static const size_t places[] = { 0, 7, 8, 15 }; /* the byte in which they differ */

    (void)state;
    for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
        struct sml_entropy entropy = { fixture_fill, &dice };
        struct sml_peer peers[64], *loser;
        uint32_t longest = 0;

        sml_host_fini(&host);
        sml_host_init(&host, &sml_mem_libc, &entropy, &options);
        for (int i = 0; i < 64; i++) {
            struct sml_hello hello = hello_of(0, SML_CREATE, 1);

            hello.session.bytes[places[p]] = (uint8_t)(4 * i);
            greet(&peers[i], &hello, 7, &loser);
            assert_int_equal(peers[i].state, SML_PEER_UP);
        }
        for (uint32_t i = 0; i < host.bucket_count; i++) {
            uint32_t length = 0;

            for (struct sml_session *s = host.buckets[i]; s; s = s->next_in_bucket)
                length++;
            longest = length > longest ? length : longest;
        }
        assert_in_range(longest, 1, 16);
        for (int i = 0; i < 64; i++)
            sml_host_detach(&host, &peers[i], 0);
    }
}

/* --- with a store ------------------------------------------------------------------------ */

static struct disk disk;

/* A host with a store, or the next one with the same. */
static void open_durable(void)
{
    struct sml_entropy entropy = { fixture_fill, &dice };
    struct sml_host_options durable = options;

    durable.durable = true;
    durable.features = SML_FEATURE_KEYS;
    durable.store.generation = 3;
    memset(durable.store.id, 0x51, sizeof durable.store.id);
    sml_host_init(&host, &sml_mem_libc, &entropy, &durable);
}

static int set_up_durable(void **state)
{
    (void)state;
    memset(&disk, 0, sizeof disk);
    open_durable();
    return 0;
}

static void restart(uint64_t now)
{
    sml_host_fini(&host);
    open_durable();
    disk_restore(&disk, &host, now);
}

static struct sml_session *only_session(void)
{
    assert_int_equal(host.session_count, 1);
    return SML_CONTAINER(host.sessions.next, struct sml_session, all);
}

static void expect_held_back(struct sml_peer *peer)
{
    static uint8_t bytes[SML_FRAME_BYTES_MAX];

    assert_int_equal(peer->state, SML_PEER_UP);
    assert_false(sml_peer_wants_write(peer));
    assert_int_equal(sml_peer_pull(peer, bytes, sizeof bytes, 0), 0);
}

static struct sml_welcome expect_welcome(struct sml_peer *peer)
{
    static uint8_t bytes[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;
    const char *why;
    size_t size, used;

    assert_true(sml_peer_wants_write(peer));
    size = sml_peer_pull(peer, bytes, sizeof bytes, 0);
    assert_int_equal(sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
                     SML_DECODED);
    assert_int_equal(frame.type, SML_WELCOME);
    return frame.u.welcome;
}

static enum sml_session_change pull(struct sml_session *session, struct sml_session_record *record)
{
    static uint8_t room[8 * 8];

    return sml_session_pull(session, record, room);
}

static void a_welcome_waits_until_its_session_is_stored(void **state)
{
    struct sml_hello hello = hello_of(1, SML_CREATE, 4);
    struct sml_peer peer, *loser;
    struct sml_session_record record;
    struct sml_welcome welcome;
    uint8_t hash[32];

    (void)state;
    hello.features = SML_FEATURE_KEYS | 0x80;
    greet(&peer, &hello, 7, &loser);
    for (int i = 0; i < 3; i++) {
        expect_held_back(&peer);
        assert_true(sml_session_has_urgent_change(peer.session));
        assert_int_equal(pull(peer.session, &record), SML_SESSION_PUT);
        assert_false(sml_session_has_change(peer.session));
        assert_false(sml_session_has_urgent_change(peer.session));
        expect_held_back(&peer);
        if (i < 2) /* the store says no */
            sml_session_recorded(peer.session, SML_SESSION_PUT, record.conn_no, 0, false);
    }
    assert_memory_equal(record.id.bytes, hello.session.bytes, 16);
    sml_sha256(hello.secret, 32, hash);
    assert_memory_equal(record.secret_hash, hash, 32);
    assert_true(record.principal.known);
    assert_int_equal(record.principal.uid, 7);
    assert_int_equal(record.principal.gid, 7);
    assert_int_equal(record.conn_no, 4);
    assert_int_equal(record.base, 0);
    assert_int_equal(record.window, 8);
    assert_int_equal(record.straggler_count, 0);
    sml_session_recorded(peer.session, SML_SESSION_PUT, record.conn_no, 12, true);
    assert_int_equal(peer.session->row, 12);
    welcome = expect_welcome(&peer);
    assert_int_equal(welcome.features, SML_FEATURE_KEYS);
    assert_memory_equal(welcome.server_id, host.options.store.id, 16);
    assert_int_equal(welcome.generation, 3);
    assert_int_equal(welcome.durable_hi, 0);
    assert_false(sml_session_has_change(peer.session));
    assert_int_equal(pull(peer.session, &record), SML_SESSION_SAME);
    sml_session_recorded(peer.session, SML_SESSION_SAME, 0, 0, true); /* nothing to say */
    sml_host_detach(&host, &peer, 0);
}

/* Only what the newest connection's number is stored with lets it go on. */
static void the_store_may_be_slower_than_the_connections(void **state)
{
    struct sml_hello hellos[] = { hello_of(1, SML_CREATE, 1), hello_of(1, SML_CREATE, 2),
                                  hello_of(1, SML_CREATE, 3) };
    struct sml_peer first, second, third, *loser;
    struct sml_session *session;
    struct sml_session_record record;

    (void)state;
    greet(&first, &hellos[0], 7, &loser);
    session = only_session();
    assert_int_equal(pull(session, &record), SML_SESSION_PUT);
    greet(&second, &hellos[1], 7, &loser);
    assert_ptr_equal(loser, &first);
    assert_true(sml_peer_wants_write(&first)); /* its BYE is not held back */
    assert_false(sml_session_has_change(session));
    sml_session_recorded(session, SML_SESSION_PUT, record.conn_no, 1, true);
    expect_held_back(&second);
    assert_true(sml_session_has_urgent_change(session));
    assert_int_equal(pull(session, &record), SML_SESSION_PUT);
    assert_int_equal(record.conn_no, 2);
    sml_host_detach(&host, &second, 0); /* gone before the answer */
    sml_session_recorded(session, SML_SESSION_PUT, record.conn_no, 1, true);
    assert_false(sml_session_has_change(session));
    greet(&third, &hellos[2], 7, &loser);
    expect_held_back(&third);
    assert_int_equal(pull(session, &record), SML_SESSION_PUT);
    sml_session_recorded(session, SML_SESSION_PUT, record.conn_no, 1, true);
    assert_int_equal(record.conn_no, 3);
    expect_welcome(&third);
    sml_host_detach(&host, &third, 0);
}

static void a_host_without_a_store_stores_nothing(void **state)
{
    struct sml_hello hello = hello_of(1, SML_CREATE, 1);
    struct sml_peer peer, *loser;
    struct sml_session_record record;
    struct sml_welcome welcome;

    (void)state;
    hello.features = SML_FEATURE_KEYS;
    greet(&peer, &hello, 7, &loser);
    assert_false(sml_session_has_change(peer.session));
    assert_false(sml_session_has_urgent_change(peer.session));
    assert_int_equal(pull(peer.session, &record), SML_SESSION_SAME);
    welcome = expect_welcome(&peer);
    assert_int_equal(welcome.generation, 0);
    assert_int_equal(welcome.features, 0);
    assert_memory_equal(welcome.server_id, host.server_id, 16);
    sml_host_detach(&host, &peer, 0);
}

/* --- the end of a stored session --------------------------------------------------------- */

static void a_session_may_end_while_it_is_being_stored(void **state)
{
    static const bool committed[] = { true, false };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sml_hello hello = hello_of((uint8_t)i, SML_CREATE, 1);
        struct sml_peer peer, *loser;
        struct sml_session *session;
        struct sml_session_record record;

        greet(&peer, &hello, 7, &loser);
        session = peer.session;
        assert_false(sml_session_is_over(session));
        assert_int_equal(pull(session, &record), SML_SESSION_PUT);
        sml_host_end(&host, session);
        assert_null(peer.session);
        assert_false(sml_session_is_over(session));
        assert_false(sml_session_has_change(session));
        sml_session_recorded(session, SML_SESSION_PUT, 1, committed[i] ? 5 : 0, committed[i]);
        assert_int_equal(sml_session_is_over(session), !committed[i]);
        for (int tries = 0; committed[i] && tries < 3; tries++) {
            assert_true(sml_session_has_change(session));
            assert_false(sml_session_has_urgent_change(session)); /* nobody waits for it */
            assert_int_equal(pull(session, &record), SML_SESSION_DELETE);
            assert_false(sml_session_is_over(session));
            sml_session_recorded(session, SML_SESSION_DELETE, 0, 0, tries == 2);
        }
        assert_true(sml_session_is_over(session));
        sml_session_free(&host, session);
    }
    assert_int_equal(host.session_count, 0);
}

/* It was never stored, and need not be. */
static void a_session_may_end_before_it_is_stored(void **state)
{
    struct sml_hello hello = hello_of(1, SML_CREATE, 1);
    struct sml_peer peer, *loser;
    struct sml_session *session;

    (void)state;
    greet(&peer, &hello, 7, &loser);
    session = peer.session;
    sml_host_end(&host, session);
    assert_false(sml_session_has_urgent_change(session));
    assert_false(sml_session_has_change(session));
    assert_true(sml_session_is_over(session));
    sml_session_free(&host, session);
}

static void give_call(struct sml_session *session, uint64_t xid)
{
    struct sml_frame frame = { .type = SML_CALL, .xid = xid };
    const char *why = NULL;

    frame.u.call = (struct sml_call_frame){ .fingerprint = { xid, 1 },
                                            .remaining_ms = 1000000,
                                            .method = { "m", 1 } };
    assert_int_equal(sml_callee_frame(&session->callee, &frame, 0, &why), SEMEL_OK);
}

static struct sml_incoming *start(struct sml_session *session)
{
    struct sml_incoming *in = sml_callee_take(&session->callee);

    assert_true(sml_callee_start(&session->callee, in, 0));
    disk_store(&disk, session);
    assert_true(sml_callee_begin(&session->callee, in, 0, 0));
    return in;
}

static void finish(struct sml_session *session, struct sml_incoming *in)
{
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };

    sml_callee_finish(&session->callee, in, &verdict, NULL);
}

/* A session with a stored connection and call 1 at its end, 2 in its handler, and 3 waiting. */
static struct sml_session *session_at_work(struct sml_peer *peer, struct sml_incoming **running)
{
    struct sml_hello hello = hello_of(1, SML_CREATE, 4);
    struct sml_peer *loser;
    struct sml_session *session;

    greet(peer, &hello, 7, &loser);
    session = peer->session;
    disk_store(&disk, session);
    for (uint64_t xid = 1; xid <= 3; xid++)
        give_call(session, xid);
    finish(session, start(session));
    *running = start(session);
    return session;
}

/* It goes first, then what it leaves; nothing is freed before its handler has returned. */
static void an_ended_session_is_over_when_all_of_it_is_forgotten(void **state)
{
    struct sml_peer peer;
    struct sml_incoming *running;
    struct sml_session *session = session_at_work(&peer, &running);

    (void)state;
    assert_int_equal(disk_count(disk.calls), 2);
    sml_host_end(&host, session);
    assert_false(sml_session_is_over(session));
    disk_store(&disk, session);
    assert_int_equal(disk_count(disk.sessions), 0);
    assert_int_equal(disk_count(disk.calls), 1);
    assert_false(sml_session_has_change(session));
    assert_false(sml_session_is_over(session));
    finish(session, running);
    assert_false(sml_session_is_over(session));
    assert_true(sml_callee_has_change(&session->callee));
    disk_store(&disk, session);
    assert_int_equal(disk_count(disk.calls), 0);
    assert_true(sml_session_is_over(session));
    sml_session_free(&host, session);
}

/* Calls that are not done keep it; their replies do not. */
static void what_is_under_way_makes_no_room(void **state)
{
    struct sml_hello one_more = hello_of(200, SML_CREATE, 1);
    struct sml_peer peer;
    struct sml_incoming *running, *last;
    struct sml_session *session;

    (void)state;
    host.options.sessions_max = 1;
    session = session_at_work(&peer, &running);
    sml_host_detach(&host, &peer, 0);
    assert_null(sml_host_surplus(&host, &one_more));
    finish(session, running);
    assert_null(sml_host_surplus(&host, &one_more)); /* one is ready */
    last = start(session);
    finish(session, last);
    assert_null(sml_host_surplus(&host, &one_more)); /* their verdicts are not stored */
    disk_store(&disk, session);
    assert_ptr_equal(sml_host_surplus(&host, &one_more), session);
}

static void what_is_forgotten_is_stored_with_the_session(void **state)
{
    struct sml_peer peer;
    struct sml_incoming *running;
    struct sml_session *session = session_at_work(&peer, &running);
    struct sml_session_record record;
    uint8_t bytes[64];
    struct sml_ack_range range = { 4, 1 };
    size_t size = sml_encode_ack(bytes, &range, 1), used;
    struct sml_frame frame;
    struct sml_change change;
    struct sml_incoming *taken = sml_callee_take(&session->callee);
    const char *why;

    (void)state;
    assert_int_equal(taken->xid, 3);
    give_call(session, 4);
    give_call(session, 5);
    finish(session, start(session));
    disk_store(&disk, session);
    sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why);
    assert_int_equal(sml_callee_frame(&session->callee, &frame, 0, &why), SEMEL_OK);
    assert_false(sml_session_has_change(session)); /* not before the changes are pulled */
    assert_true(sml_callee_next_change(&session->callee, &change));
    assert_int_equal(change.kind, SML_CHANGE_FORGET);
    assert_true(sml_session_has_change(session));
    assert_false(sml_session_has_urgent_change(session));
    assert_int_equal(pull(session, &record), SML_SESSION_PUT);
    assert_int_equal(record.base, 4);
    assert_int_equal(record.straggler_count, 1); /* 1 and 2 have records, 5 lies above */
    assert_int_equal(sml_record_straggler(&record, 0), 3);
    assert_int_equal(record.conn_no, 4);
    sml_callee_recorded(&session->callee, &change, 0, true);
    sml_session_recorded(session, SML_SESSION_PUT, 4, 1, true);
    assert_int_equal(session->callee.base, 4);
    assert_false(sml_session_has_change(session));
    sml_callee_refuse(&session->callee, taken, 20);
    finish(session, running);
    sml_host_detach(&host, &peer, 0);
}

/* --- sessions that outlive their host ---------------------------------------------------- */

static void a_restored_session_is_resumed_by_who_made_it(void **state)
{
    struct sml_hello resume = hello_of(1, SML_RESUME, 5), forged, old = hello_of(1, SML_RESUME, 4);
    struct sml_peer peer, *loser;
    struct sml_incoming *running;
    struct sml_session *session = session_at_work(&peer, &running);
    struct sml_welcome welcome;

    (void)state;
    finish(session, running);
    disk_store(&disk, session);
    sml_host_detach(&host, &peer, 0);
    restart(0);
    session = only_session();
    assert_int_equal(session->callee.hi, 2);
    assert_int_equal(session->callee.limits.window, 8);
    assert_false(sml_session_has_change(session));
    forged = resume;
    forged.secret[31] ^= 1;
    expect_refused(&forged, 7, SML_BYE_DENIED);
    expect_refused(&resume, 8, SML_BYE_DENIED);
    expect_refused(&old, 7, SML_BYE_TAKEN_OVER); /* refused by the host before, too */
    resume.next = 4;
    greet(&peer, &resume, 7, &loser);
    expect_held_back(&peer);
    disk_store(&disk, session);
    welcome = expect_welcome(&peer);
    assert_true(welcome.resumed);
    assert_memory_equal(welcome.server_id, host.options.store.id, 16);
    assert_int_equal(welcome.durable_hi, 2);
    assert_int_equal(session->callee.table.count, 0); /* nothing was listed */
    sml_host_detach(&host, &peer, 0);
    restart(0);
    expect_refused(&resume, 7, SML_BYE_TAKEN_OVER);
}

/* Its WELCOME was lost with the host; the client does not know that it has a session. */
static void a_restored_session_is_found_by_a_second_create(void **state)
{
    struct sml_hello hello = hello_of(1, SML_CREATE, 1);
    struct sml_peer peer, *loser;

    (void)state;
    greet(&peer, &hello, 7, &loser);
    disk_store(&disk, peer.session);
    sml_host_detach(&host, &peer, 0);
    restart(0);
    hello.conn_no = 2;
    greet(&peer, &hello, 7, &loser);
    assert_int_equal(host.session_count, 1);
    disk_store(&disk, peer.session);
    assert_false(expect_welcome(&peer).resumed);
    sml_host_detach(&host, &peer, 0);
}

static void a_restored_session_has_its_whole_idle_time(void **state)
{
    struct sml_peer peer;
    struct sml_incoming *running;
    struct sml_session *session = session_at_work(&peer, &running);

    (void)state;
    finish(session, running);
    disk_store(&disk, session);
    sml_host_detach(&host, &peer, 0);
    restart(1000 * SML_SECOND);
    session = only_session();
    assert_int_equal(sml_host_timeout(&host), 1010 * SML_SECOND);
    assert_null(sml_host_next_expired(&host, 1010 * SML_SECOND - 1));
    assert_ptr_equal(sml_host_next_expired(&host, 1010 * SML_SECOND), session);
    sml_host_end(&host, session);
    assert_false(sml_session_is_over(session));
    disk_store(&disk, session);
    assert_true(sml_session_is_over(session));
    sml_session_free(&host, session);
    assert_int_equal(disk_count(disk.sessions) + disk_count(disk.calls), 0);
}

static void a_restored_session_in_which_something_runs_does_not_expire(void **state)
{
    struct sml_peer peer;
    struct sml_incoming *running;
    struct sml_session *session = session_at_work(&peer, &running);

    (void)state;
    finish(session, running); /* this is not stored any more */
    sml_host_detach(&host, &peer, 0);
    restart(0);
    session = only_session();
    running = sml_table_find(&session->callee.table, 2);
    assert_int_equal(running->phase, SML_IN_RUNNING);
    assert_null(sml_host_next_expired(&host, 10 * SML_SECOND));
    finish(session, running);
    assert_null(sml_host_next_expired(&host, 20 * SML_SECOND)); /* nor while it is stored */
    disk_store(&disk, session);
    assert_ptr_equal(sml_host_next_expired(&host, 30 * SML_SECOND), session);
}

static void release_call(struct sml_session *session, uint64_t xid)
{
    uint8_t bytes[64];
    struct sml_ack_range range = { xid, 1 };
    size_t size = sml_encode_ack(bytes, &range, 1), used;
    struct sml_frame frame;
    const char *why;

    sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why);
    assert_int_equal(sml_callee_frame(&session->callee, &frame, 0, &why), SEMEL_OK);
}

/* Its client is gone, and with it the replies for which a call that has started makes no room. */
static void what_waits_for_a_client_that_is_gone_does_not_keep_its_session(void **state)
{
    struct sml_peer peer;
    struct sml_incoming *running, *started;
    struct sml_session *session = session_at_work(&peer, &running);
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    uint8_t *reply;

    (void)state;
    started = sml_callee_take(&session->callee);
    assert_true(sml_callee_start(&session->callee, started, 0));
    disk_store(&disk, session);
    assert_int_equal(started->phase, SML_IN_STARTED);
    release_call(session, 1);
    reply = sml_callee_reply_alloc(&session->callee, 1001);
    memset(reply, 'r', 1001);
    verdict.body = semel_bytes(reply, 1001);
    sml_callee_finish(&session->callee, running, &verdict, reply);
    disk_store(&disk, session);
    assert_true(sml_callee_is_stalled(&session->callee));
    sml_host_detach(&host, &peer, 0);
    assert_ptr_equal(sml_host_next_expired(&host, 10 * SML_SECOND), session);
    release_call(session, 2); /* with room for it, it is waited for */
    assert_null(sml_host_next_expired(&host, 10 * SML_SECOND));
    assert_true(sml_callee_begin(&session->callee, started, 0, 0));
    finish(session, started);
    disk_store(&disk, session);
}

static void two_records_of_one_session_are_refused(void **state)
{
    struct sml_session_record record = { .id = { { 9 } }, .window = 8 };
    const char *why = NULL;

    (void)state;
    assert_non_null(sml_host_restore(&host, 1, &record, 0, &why));
    assert_null(why);
    assert_null(sml_host_restore(&host, 2, &record, 0, &why));
    assert_string_equal(why, "two records of one session");
    assert_int_equal(only_session()->row, 1);
}

static int64_t live, fail_in;

static void *scarce_alloc(void *user, size_t bytes)
{
    (void)user;
    if (fail_in == 0)
        return NULL;
    fail_in -= fail_in > 0;
    live++;
    return malloc(bytes);
}

static void scarce_release(void *user, void *pointer)
{
    (void)user;
    live -= pointer != NULL;
    free(pointer);
}

static void a_session_without_memory_is_not_there(void **state)
{
    static const struct sml_mem scarce = { scarce_alloc, scarce_release, NULL };
    uint8_t stragglers[16] = { [0] = 1, [8] = 2 };
    struct sml_session_record record = {
        .id = { { 9 } }, .window = 8, .base = 2, .straggler_count = 2, .stragglers = stragglers
    };
    struct sml_hello hello = hello_of(0, SML_RESUME, 1);
    struct sml_session *session = NULL;
    const char *why;

    (void)state;
    memcpy(hello.session.bytes, record.id.bytes, 16);
    host.mem = &scarce;
    for (int64_t n = 0; session == NULL; n++) {
        uint32_t buckets = host.bucket_count;

        assert_in_range(n, 0, 10);
        why = "untouched";
        fail_in = n;
        session = sml_host_restore(&host, 1, &record, 0, &why);
        fail_in = -1;
        assert_null(why);
        if (session)
            break;
        assert_int_equal(live, host.bucket_count > 0);
        assert_true(host.bucket_count >= buckets);
        assert_int_equal(host.session_count, 0);
        assert_int_equal(sml_host_timeout(&host), SML_NEVER);
        expect_refused(&hello, 7, SML_BYE_SESSION_LOST);
    }
    assert_int_equal(session->callee.table.count, 2);
    sml_host_fini(&host);
    assert_int_equal(live, 0);
    open_durable();
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }
#define DURABLE(name, function) { name, function, set_up_durable, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("only who made it may resume it", only_who_made_it_may_resume_it),
        FRESH("the newest connection wins", the_newest_connection_wins),
        FRESH("create is insert-if-absent", create_is_insert_if_absent),
        FRESH("contradictions are refused", contradictions_are_refused),
        FRESH("sessions are bounded", sessions_are_bounded_and_found_among_many),
        FRESH("those that were left the longest make room", the_longest_left_make_room),
        DURABLE("what is under way makes no room", what_is_under_way_makes_no_room),
        FRESH("chosen ids do not meet in one bucket", chosen_ids_do_not_meet_in_one_bucket),
        DURABLE("a WELCOME waits until its session is stored",
                a_welcome_waits_until_its_session_is_stored),
        DURABLE("the store may be slower than the connections",
                the_store_may_be_slower_than_the_connections),
        FRESH("a host without a store stores nothing", a_host_without_a_store_stores_nothing),
        DURABLE("a session may end while it is being stored",
                a_session_may_end_while_it_is_being_stored),
        DURABLE("a session may end before it is stored", a_session_may_end_before_it_is_stored),
        DURABLE("an ended session is over when all of it is forgotten",
                an_ended_session_is_over_when_all_of_it_is_forgotten),
        DURABLE("what is forgotten is stored with the session",
                what_is_forgotten_is_stored_with_the_session),
        DURABLE("a restored session is resumed by who made it",
                a_restored_session_is_resumed_by_who_made_it),
        DURABLE("a restored session is found by a second CREATE",
                a_restored_session_is_found_by_a_second_create),
        DURABLE("a restored session has its whole idle time",
                a_restored_session_has_its_whole_idle_time),
        DURABLE("a restored session in which something runs does not expire",
                a_restored_session_in_which_something_runs_does_not_expire),
        DURABLE("what waits for a client that is gone does not keep its session",
                what_waits_for_a_client_that_is_gone_does_not_keep_its_session),
        DURABLE("two records of one session", two_records_of_one_session_are_refused),
        DURABLE("a session without memory is not there", a_session_without_memory_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
