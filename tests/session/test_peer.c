/* SPDX-License-Identifier: MIT */
/* The server's end of a connection: the greeting's order, silence, closing with a reason. */
#include "fixture.h"

static struct sml_host host;
static struct fixture dice;
static struct sml_peer peer;
static uint8_t bytes[2 * SML_FRAME_BYTES_MAX];

static int set_up(void **state)
{
    struct sml_entropy entropy = { fixture_fill, &dice };
    struct sml_principal nobody = { false, 0, 0 };
    struct sml_host_options options = {
        .limits = { .window = 8, .body_bytes = 1000, .session_bytes = 1000 },
        .sessions_max = 10,
        .idle = 10 * SML_SECOND,
        .handshake = SML_SECOND,
        .silence = 20 * SML_SECOND
    };

    (void)state;
    sml_host_init(&host, &sml_mem_libc, &entropy, &options);
    sml_peer_init(&peer, &host, &nobody, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sml_host_detach(&host, &peer, 0);
    sml_peer_fini(&peer);
    sml_host_fini(&host);
    return 0;
}

static struct sml_hello some_hello(uint32_t heartbeat_ms)
{
    return (struct sml_hello){ .version = 1,
                               .kind = SML_CREATE,
                               .conn_no = 1,
                               .next = 1,
                               .window = 8,
                               .body_bytes = 1000,
                               .heartbeat_ms = heartbeat_ms };
}

static void feed(size_t size, uint64_t now)
{
    struct sml_peer *loser;
    struct sml_hello hello;
    size_t at = 0, used;

    while (at < size) {
        enum sml_peer_event event =
            sml_peer_input(&peer, bytes + at, size - at, &used, &hello, now);

        at += used;
        if (event == SML_PEER_HELLO)
            sml_host_hello(&host, &peer, &hello, &loser, now);
        else if (used == 0)
            break;
    }
}

static void expect_closed(enum sml_bye_code code, const char *text)
{
    static uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;
    const char *why;
    size_t used, size;

    assert_int_equal(peer.state, SML_PEER_CLOSING);
    assert_true(sml_peer_wants_write(&peer));
    size = sml_peer_pull(&peer, out, sizeof out, 0);
    assert_int_equal(sml_frame_decode(out, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
                     SML_DECODED);
    assert_int_equal(frame.type, SML_BYE);
    assert_int_equal(frame.u.bye.code, code);
    if (text)
        assert_memory_equal(frame.u.bye.text.data, text, strlen(text));
    assert_false(sml_peer_wants_write(&peer));
}

static void m7_a_stranger_is_told_why(void **state)
{
    (void)state;
    memcpy(bytes, "GET / HTTP/1.1\r\n", 16);
    feed(16, 0);
    expect_closed(SML_BYE_PROTOCOL, NULL);
}

static void m7_wrong_version(void **state)
{
    struct sml_hello hello = some_hello(0);

    (void)state;
    hello.version = 2;
    feed(sml_encode_hello(bytes, &hello), 0);
    expect_closed(SML_BYE_VERSION, "this server speaks version 1");
}

static void m7_calls_before_the_greeting_is_complete(void **state)
{
    struct sml_hello hello = some_hello(0);
    struct sml_call_frame call = { .method = { "m", 1 }, .remaining_ms = 10 };
    size_t size = sml_encode_hello(bytes, &hello);

    (void)state;
    size += sml_encode_call(bytes + size, 1, &call);
    feed(size, 0);
    expect_closed(SML_BYE_PROTOCOL, "call frame before the greeting was complete");
}

static void m7_a_second_hello(void **state)
{
    struct sml_hello hello = some_hello(0);
    static uint8_t out[SML_FRAME_BYTES_MAX];

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    assert_true(sml_peer_pull(&peer, out, sizeof out, 0) > 0);
    feed(sml_encode_hello(bytes, &hello), 0);
    expect_closed(SML_BYE_PROTOCOL, NULL);
}

static void s12_slow_hello(void **state)
{
    struct sml_hello hello = some_hello(0);
    size_t size = sml_encode_hello(bytes, &hello), used;

    (void)state;
    for (size_t i = 1; i < size; i++)
        assert_int_equal(sml_peer_input(&peer, bytes, i, &used, &hello, i), SML_PEER_MORE);
    assert_int_equal(sml_peer_timeout(&peer), SML_SECOND); /* trickling does not extend it */
    sml_peer_tick(&peer, SML_SECOND);
    expect_closed(SML_BYE_SILENT, "no complete greeting in time");
}

static void a_list_that_was_not_announced(void **state)
{
    struct sml_hello hello = some_hello(0);
    struct sml_outstanding two[2] = { { .xid = 1 }, { .xid = 2 } };
    struct sml_principal nobody = { false, 0, 0 };
    size_t size;

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    sml_host_detach(&host, &peer, 0);
    sml_peer_fini(&peer);
    sml_peer_init(&peer, &host, &nobody, 0);
    hello.kind = SML_RESUME;
    hello.conn_no = 2;
    hello.next = 9;
    hello.count = 1;
    size = sml_encode_hello(bytes, &hello);
    feed(size + sml_encode_outstanding(bytes + size, two, 2), 0);
    expect_closed(SML_BYE_PROTOCOL, "LIST has entries that were not announced");
}

static void silence_closes_unless_the_client_said_so(void **state)
{
    struct sml_hello hello = some_hello(10000);

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    assert_int_equal(sml_peer_timeout(&peer), 40 * SML_SECOND); /* four of its own heartbeats */
    feed(sml_encode_plain(bytes, SML_PONG, 1), SML_SECOND);
    assert_int_equal(sml_peer_timeout(&peer), 41 * SML_SECOND);
    sml_peer_tick(&peer, 41 * SML_SECOND);
    assert_int_equal(peer.state, SML_PEER_CLOSING);
    assert_int_equal(peer.bye, SML_BYE_SILENT);
}

/* A writer that let the lock go may find that the connection was lost meanwhile. */
static void a_peer_without_its_session_has_nothing_to_say(void **state)
{
    struct sml_hello hello = some_hello(0);
    static uint8_t out[SML_FRAME_BYTES_MAX];

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    assert_true(sml_peer_wants_write(&peer));
    sml_host_detach(&host, &peer, 0);
    assert_false(sml_peer_wants_write(&peer));
    assert_int_equal(sml_peer_pull(&peer, out, sizeof out, 0), 0);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("M7 bad input: a stranger is told why", m7_a_stranger_is_told_why),
        FRESH("M7 bad input: wrong version", m7_wrong_version),
        FRESH("M7 bad input: calls before the greeting", m7_calls_before_the_greeting_is_complete),
        FRESH("M7 bad input: a second HELLO", m7_a_second_hello),
        FRESH("S12 slow hello: trickling does not extend the handshake", s12_slow_hello),
        FRESH("a list that was not announced", a_list_that_was_not_announced),
        FRESH("a peer without its session", a_peer_without_its_session_has_nothing_to_say),
        FRESH("silence closes", silence_closes_unless_the_client_said_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
