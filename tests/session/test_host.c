/* SPDX-License-Identifier: MIT */
/* Who may create, resume and take over a session. */
#include "fixture.h"

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

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("only who made it may resume it", only_who_made_it_may_resume_it),
        FRESH("the newest connection wins", the_newest_connection_wins),
        FRESH("create is insert-if-absent", create_is_insert_if_absent),
        FRESH("contradictions are refused", contradictions_are_refused),
        FRESH("sessions are bounded", sessions_are_bounded_and_found_among_many),
        FRESH("chosen ids do not meet in one bucket", chosen_ids_do_not_meet_in_one_bucket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
