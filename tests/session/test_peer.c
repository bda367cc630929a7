/* SPDX-License-Identifier: MIT */
/* The server's end of a connection: the greeting's order, silence, closing with a reason. */
#include "fixture.h"

static struct sml_host host;
static struct fixture dice;
static struct sml_peer peer;
static uint8_t bytes[2 * SML_FRAME_BYTES_MAX];

static void open_host(bool durable)
{
    struct sml_entropy entropy = { fixture_fill, &dice };
    struct sml_principal nobody = { false, 0, 0 };
    struct sml_host_options options = {
        .limits = { .window = 8, .body_bytes = 1000, .session_bytes = 1000 },
        .sessions_max = 10,
        .idle = 10 * SML_SECOND,
        .handshake = SML_SECOND,
        .silence = 20 * SML_SECOND,
        .durable = durable,
        .store.generation = 1,
        .features = SML_FEATURE_KEYS
    };

    sml_host_init(&host, &sml_mem_libc, &entropy, &options);
    sml_peer_init(&peer, &host, &nobody, 0);
}

static int set_up(void **state)
{
    (void)state;
    open_host(false);
    return 0;
}

static int set_up_durable(void **state)
{
    (void)state;
    open_host(true);
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

/* --- while its WELCOME is held back ------------------------------------------------------ */

/* The session's record is stored. */
static void store_session(void)
{
    struct sml_session *session = peer.session;
    struct sml_session_record record;
    uint8_t room[8 * 8];
    enum sml_session_change change = sml_session_pull(session, &record, room);

    assert_int_equal(change, SML_SESSION_PUT);
    sml_session_recorded(session, change, record.conn_no, 1, true);
}

static enum sml_frame_type next_type(const uint8_t *out, size_t size, size_t *at)
{
    struct sml_frame frame;
    const char *why;
    size_t used;

    assert_int_equal(
        sml_frame_decode(out + *at, size - *at, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
        SML_DECODED);
    *at += used;
    return frame.type;
}

static void what_is_to_be_said_waits_behind_the_welcome(void **state)
{
    struct sml_hello hello = some_hello(0);
    static uint8_t out[2 * SML_FRAME_BYTES_MAX];
    size_t size, at = 0;

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    feed(sml_encode_plain(bytes, SML_PING, 5), 0);
    sml_peer_drain(&peer, 100);
    assert_int_equal(peer.state, SML_PEER_UP);
    assert_false(sml_peer_wants_write(&peer));
    assert_int_equal(sml_peer_pull(&peer, out, sizeof out, 0), 0);
    store_session();
    size = sml_peer_pull(&peer, out, sizeof out, 0);
    assert_int_equal(next_type(out, size, &at), SML_WELCOME);
    assert_int_equal(next_type(out, size, &at), SML_PONG);
    assert_int_equal(next_type(out, size, &at), SML_DRAIN);
    assert_int_equal(at, size);
}

static void no_call_comes_before_the_welcome_has_gone(void **state)
{
    struct sml_hello hello = some_hello(0);
    struct sml_call_frame call = { .method = { "m", 1 }, .remaining_ms = 10 };

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    feed(sml_encode_call(bytes, 1, &call), 0);
    expect_closed(SML_BYE_PROTOCOL, "call frame before the greeting was complete");
}

static void a_reason_to_close_is_not_held_back(void **state)
{
    struct sml_hello hello = some_hello(0);

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    assert_int_equal(sml_peer_timeout(&peer), SML_NEVER); /* it promised no heartbeat */
    sml_peer_close(&peer, SML_BYE_SHUTDOWN, "server is stopping");
    expect_closed(SML_BYE_SHUTDOWN, "server is stopping");
    store_session(); /* comes too late for it, and does no harm */
    assert_false(sml_peer_wants_write(&peer));
}

/* The states of the calls that HELLO listed are those of the time when the list was complete; what
 * happens until the WELCOME follows it. */
static void states_follow_the_welcome(void **state)
{
    struct sml_hello hello = some_hello(0);
    struct sml_outstanding one = { .xid = 1 };
    struct sml_principal nobody = { false, 0, 0 };
    static uint8_t out[2 * SML_FRAME_BYTES_MAX];
    size_t size, at = 0;

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    store_session();
    sml_host_detach(&host, &peer, 0);
    sml_peer_fini(&peer);
    sml_peer_init(&peer, &host, &nobody, 0);
    hello.kind = SML_RESUME;
    hello.conn_no = 2;
    hello.next = 2;
    hello.count = 1;
    size = sml_encode_hello(bytes, &hello);
    feed(size, 0);
    assert_int_equal(peer.state, SML_PEER_LISTING);
    store_session(); /* before the list is there */
    assert_false(sml_peer_wants_write(&peer));
    feed(sml_encode_outstanding(bytes, &one, 1), 0);
    assert_true(sml_peer_wants_write(&peer));
    size = sml_peer_pull(&peer, out, sizeof out, 0);
    assert_int_equal(next_type(out, size, &at), SML_WELCOME);
    assert_int_equal(next_type(out, size, &at), SML_LIST);
    assert_int_equal(at, size);
}

/* --- features ---------------------------------------------------------------------------- */

static void a_key_that_was_not_agreed_on_is_an_error(void **state)
{
    struct sml_hello hello = some_hello(0);
    struct sml_call_frame call = { .method = { "m", 1 }, .key = { "k", 1 }, .remaining_ms = 10 };
    static uint8_t out[SML_FRAME_BYTES_MAX];

    (void)state;
    feed(sml_encode_hello(bytes, &hello), 0);
    assert_true(sml_peer_pull(&peer, out, sizeof out, 0) > 0);
    feed(sml_encode_call(bytes, 1, &call), 0);
    expect_closed(SML_BYE_PROTOCOL, "CALL has a key, which was not agreed on");
    assert_int_equal(peer.session->callee.hi, 0);
}

static void a_key_that_was_agreed_on_is_taken(void **state)
{
    struct sml_hello hello = some_hello(0);
    struct sml_call_frame call = {
        .method = { "m", 1 }, .key = { "k", 1 }, .key_age_ms = 77, .remaining_ms = 10
    };
    static uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_incoming *in;

    (void)state;
    hello.features = SML_FEATURE_KEYS;
    feed(sml_encode_hello(bytes, &hello), 0);
    assert_true(sml_peer_pull(&peer, out, sizeof out, 0) > 0);
    feed(sml_encode_call(bytes, 1, &call), 0);
    assert_int_equal(peer.state, SML_PEER_UP);
    in = sml_callee_take(&peer.session->callee);
    assert_string_equal(in->key, "k");
    assert_int_equal(in->key_age_ms, 77);
    sml_callee_refuse(&peer.session->callee, in, 20);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }
#define DURABLE(name, function) { name, function, set_up_durable, tear_down, NULL }

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
        DURABLE("what is to be said waits behind the WELCOME",
                what_is_to_be_said_waits_behind_the_welcome),
        DURABLE("no call comes before the WELCOME has gone",
                no_call_comes_before_the_welcome_has_gone),
        DURABLE("a reason to close is not held back", a_reason_to_close_is_not_held_back),
        DURABLE("states follow the WELCOME", states_follow_the_welcome),
        FRESH("a key that was not agreed on", a_key_that_was_not_agreed_on_is_an_error),
        FRESH("a key that was agreed on", a_key_that_was_agreed_on_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
