/* SPDX-License-Identifier: MIT */
/* Broken, silent, lying and absent servers: every call ends, in the right way, with a reason. */
#include "client_kit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

static const struct semel_client_options once = { .give_up_ms = -1 };

/* --- M4 --------------------------------------------------------------------------------- */

struct three {
    atomic_int called;
    bool answer;
};

/* Takes three calls, answers them or not, and hangs up. */
static void play_three(struct kit_script *script, void *arg)
{
    struct three *three = arg;
    struct sml_frame frame;
    uint64_t xids[3];

    if (!kit_script_meet(script))
        return;
    while (atomic_load(&three->called) < 3) {
        if (!kit_script_frame(script, &frame))
            return;
        if (frame.type == SML_CALL)
            xids[atomic_fetch_add(&three->called, 1)] = frame.xid;
    }
    for (int i = 0; i < 3 && three->answer; i++)
        (void)kit_script_reply(script, xids[i], semel_bytes_text("in time"));
}

static void test_peer_death(void **state)
{
    struct three three = { .answer = false };
    struct kit_script *script = kit_script_start(play_three, &three);
    struct semel_client *client = open_client(kit_script_address(script), &once);
    struct semel_result result;
    struct seen seen[2] = { { 0 }, { 0 } };

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            semel_client_start(client, "x", semel_bytes(NULL, 0), NULL, note, &seen[i], NULL),
            SEMEL_OK);
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_UNKNOWN);
    assert_int_equal(result.status, SEMEL_PEER_DIED);
    assert_non_null(strstr(result.text, "'x'"));
    assert_non_null(strstr(result.text, kit_script_address(script)));
    assert_non_null(strstr(result.text, "peer died"));
    semel_result_clear(&result);
    for (int i = 0; i < 2; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_UNKNOWN);
        assert_int_equal(seen[i].status, SEMEL_PEER_DIED);
        semel_result_clear(&seen[i].taken);
    }
    /* And later calls. */
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_PEER_DIED);
    assert_non_null(strstr(result.text, kit_script_address(script)));
    semel_result_clear(&result);
    assert_int_equal(
        semel_client_start(client, "x", semel_bytes(NULL, 0), NULL, note, &seen[0], NULL),
        SEMEL_PEER_DIED);
    assert_int_equal(semel_client_state(client), SEMEL_CLIENT_FAILED);
    close_client(client);
    kit_script_stop(script);
}

/* --- M8 --------------------------------------------------------------------------------- */

/* Answers each call twice, and each time the one before once more. */
static void play_twice(struct kit_script *script, void *arg)
{
    struct sml_frame frame;

    (void)arg;
    if (!kit_script_meet(script))
        return;
    while (kit_script_frame(script, &frame)) {
        if (frame.type != SML_CALL)
            continue;
        (void)kit_script_reply(script, frame.xid, frame.u.call.fragment);
        (void)kit_script_reply(script, frame.xid, semel_bytes_text("again"));
        if (frame.xid > 1)
            (void)kit_script_reply(script, frame.xid - 1, semel_bytes_text("and again"));
    }
}

static void test_id_table(void **state)
{
    struct kit_script *script = kit_script_start(play_twice, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct semel_client_counters counters;

    (void)state;
    for (int i = 0; i < 100; i++)
        check_echo(client, i % 2 ? "one" : "two");
    semel_client_counters(client, &counters);
    assert_int_equal(counters.values, 100);
    assert_int_equal(counters.calls_completed, 100);
    assert_int_equal(counters.links_lost, 0);
    assert_in_range(counters.replies_unexpected, 100, 199);
    close_client(client);
    kit_script_stop(script);
}

/* A reply to a call that was never made is no repetition but nonsense: terminal. */
static void play_nonsense(struct kit_script *script, void *arg)
{
    struct sml_frame frame;

    (void)arg;
    if (!kit_script_meet(script))
        return;
    while (kit_script_frame(script, &frame)) {
        if (frame.type == SML_CALL)
            (void)kit_script_reply(script, frame.xid + 17, semel_bytes(NULL, 0));
    }
}

static void test_reply_to_nothing(void **state)
{
    struct kit_script *script = kit_script_start(play_nonsense, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct semel_result result;

    (void)state;
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_UNKNOWN);
    assert_int_equal(result.status, SEMEL_PROTOCOL);
    assert_non_null(strstr(result.text, "never made"));
    semel_result_clear(&result);
    assert_int_equal(semel_client_state(client), SEMEL_CLIENT_FAILED);
    close_client(client);
    kit_script_stop(script);
}

/* A send that fails (nobody is there to write to) releases what it took. */
static void test_failed_sends(void **state)
{
    struct three three = { .called = 3 }; /* it hangs up at once */
    struct kit_script *script = kit_script_start(play_three, &three);
    struct semel_client *client = open_client(kit_script_address(script), &once);
    char *large = calloc(1, 1 << 20);
    struct semel_result result;

    (void)state;
    for (int i = 0; i < 20; i++) {
        (void)semel_client_call(client, "x", semel_bytes(large, 1 << 20), NULL, &result);
        assert_int_not_equal(result.outcome, SEMEL_VALUE);
        semel_result_clear(&result);
    }
    free(large);
    close_client(client);
    kit_script_stop(script);
}

/* --- reconnecting ----------------------------------------------------------------------- */

/* A server that breaks off in the middle of a REPLY, then behaves. */
static void play_mid_frame(struct kit_script *script, void *arg)
{
    static const uint8_t half[] = { 40, 0, 0, 0, SML_REPLY, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2 };
    struct sml_frame frame;

    if (!kit_script_meet(script))
        return;
    while (kit_script_frame(script, &frame) && frame.type != SML_CALL)
        ;
    (void)kit_script_send(script, half, sizeof half);
    kit_play_echo(script, arg);
}

static void test_mid_frame(void **state)
{
    struct kit_script *script = kit_script_start(play_mid_frame, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct semel_client_counters counters;

    (void)state;
    check_echo(client, "despite the break");
    semel_client_counters(client, &counters);
    assert_int_equal(counters.links_lost, 1);
    assert_int_equal(counters.links_lost_mid_frame, 1);
    assert_int_equal(counters.reconnects, 1);
    assert_int_equal(counters.calls_resent, 1);
    close_client(client);
    kit_script_stop(script);
}

/* Heartbeats alone keep an idle connection. */
static void test_heartbeat(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct semel_client_options options = { .heartbeat_ms = 500 };
    struct semel_client *client = open_client(kit_script_address(script), &options);
    struct semel_client_counters counters;

    (void)state;
    check_echo(client, "before");
    kit_sleep_ms(3000);
    check_echo(client, "after");
    semel_client_counters(client, &counters);
    assert_int_equal(counters.links_lost, 0);
    assert_true(counters.reads >= 5); /* WELCOME, two replies, and PONGs */
    close_client(client);
    kit_script_stop(script);
}

/* --- absent and wrong servers ------------------------------------------------------------ */

static void play_count(struct kit_script *script, void *arg)
{
    while (!kit_script_stopping(script))
        if (kit_script_accept(script))
            atomic_fetch_add((atomic_int *)arg, 1);
}

static bool were_two(void *arg)
{
    return atomic_load((atomic_int *)arg) >= 2;
}

/* A server that accepts and closes: attempts become rarer, they do not spin, and go on. */
static void test_backoff(void **state)
{
    atomic_int attempts = 0;
    struct kit_script *script = kit_script_start(play_count, &attempts);
    struct semel_client_options options = { .backoff_min_ms = 10, .give_up_ms = 1000 };
    struct semel_client *client = open_client(kit_script_address(script), &options);
    struct semel_call_options patient = { .deadline_ms = 60000 };
    uint64_t before = kit_now_ms();
    struct semel_result result;

    (void)state;
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), &patient, &result),
                     SEMEL_NOT_EXECUTED);
    assert_true(kit_now_ms() - before >= 990);
    assert_int_equal(semel_status_category(result.status), SEMEL_CATEGORY_LINK);
    semel_result_clear(&result);
    /* With ceilings of 50, 63, 79, 100, 126, 158 ... ms and delays of at least 10 ms. */
    assert_in_range(atomic_load(&attempts), 0, 80);
    assert_true(kit_eventually(were_two, &attempts, 60)); /* giving calls up ends nothing */
    assert_int_not_equal(semel_client_state(client), SEMEL_CLIENT_FAILED);
    close_client(client);
    kit_script_stop(script);
}

static void test_addresses(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct kit_place absent, absent_too;
    struct semel_client_options quick = { .backoff_min_ms = 5, .backoff_max_ms = 10 };
    struct semel_client *client;
    char addresses[400], text[600];

    (void)state;
    kit_place_make(&absent);
    kit_place_make(&absent_too);
    snprintf(addresses, sizeof addresses, "%s,%s", absent.address, kit_script_address(script));
    client = open_client(addresses, NULL);
    check_echo(client, "at the second");
    assert_int_equal(semel_client_wait_connected(client, 1000, text, sizeof text), SEMEL_OK);
    assert_non_null(strstr(text, kit_script_address(script)));
    close_client(client);
    /* Nobody anywhere: the reason names an address that was tried. */
    snprintf(addresses, sizeof addresses, "%s,%s", absent.address, absent_too.address);
    client = open_client(addresses, &quick);
    assert_int_equal(semel_client_wait_connected(client, 2000, text, sizeof text), SEMEL_PEER_DIED);
    assert_true(strstr(text, absent.address) || strstr(text, absent_too.address));
    close_client(client);
    kit_place_remove(&absent);
    kit_place_remove(&absent_too);
    kit_script_stop(script);
}

static void test_unreachable(void **state)
{
    struct kit_place place;
    struct semel_client *client;
    struct semel_call_options soon = { .deadline_ms = 1000 };
    struct semel_result result;

    (void)state;
    kit_place_make(&place);
    client = open_client(place.address, NULL);
    assert_int_equal(semel_client_call(client, "far", semel_bytes(NULL, 0), &soon, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_EXPIRED);
    assert_non_null(strstr(result.text, "'far'"));
    assert_non_null(strstr(result.text, place.address));
    assert_non_null(strstr(result.text, "no such socket"));
    semel_result_clear(&result);
    assert_int_equal(semel_client_state(client), SEMEL_CLIENT_CONNECTING);
    close_client(client);
    kit_place_remove(&place);
}

static void test_unknown_host(void **state)
{
    struct semel_client *client = open_client("tcp:no-such-host.invalid:7000", &once);
    struct semel_result result;

    (void)state;
    assert_int_equal(semel_client_call(client, "far", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_non_null(strstr(result.text, "no-such-host.invalid"));
    semel_result_clear(&result);
    close_client(client);
}

static void play_silent(struct kit_script *script, void *arg)
{
    struct sml_frame frame;

    (void)arg;
    while (!kit_script_stopping(script))
        if (kit_script_accept(script))
            while (kit_script_frame(script, &frame))
                ;
}

static void test_silent_server(void **state)
{
    struct kit_script *script = kit_script_start(play_silent, NULL);
    struct semel_client_options options = { .handshake_ms = 50, .give_up_ms = -1 };
    struct semel_client *client = open_client(kit_script_address(script), &options);
    struct semel_result result;
    char text[600];

    (void)state;
    /* The server did not answer HELLO: the call was never sent. */
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_LINK_LOST);
    assert_non_null(strstr(result.text, "greeting"));
    semel_result_clear(&result);
    assert_int_equal(semel_client_wait_connected(client, 1000, text, sizeof text), SEMEL_LINK_LOST);
    assert_non_null(strstr(text, kit_script_address(script)));
    close_client(client);
    kit_script_stop(script);
}

static void play_garbage(struct kit_script *script, void *arg)
{
    static const char page[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    struct sml_frame frame;

    while (!kit_script_stopping(script)) {
        if (!kit_script_accept(script))
            continue;
        atomic_fetch_add((atomic_int *)arg, 1);
        (void)kit_script_send(script, page, sizeof page - 1);
        while (kit_script_frame(script, &frame))
            ;
    }
}

static void test_garbage(void **state)
{
    atomic_int connections = 0;
    struct kit_script *script = kit_script_start(play_garbage, &connections);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct semel_client_counters counters;
    struct semel_result result;

    (void)state;
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_PROTOCOL);
    assert_non_null(strstr(result.text, kit_script_address(script)));
    semel_result_clear(&result);
    assert_int_equal(semel_client_state(client), SEMEL_CLIENT_FAILED);
    /* One reconnect is allowed, not a loop. */
    assert_int_equal(connections, 2);
    semel_client_counters(client, &counters);
    assert_int_equal(counters.protocol_errors, 2);
    close_client(client);
    kit_script_stop(script);
}

static void play_deny(struct kit_script *script, void *arg)
{
    struct sml_frame frame;

    while (!kit_script_stopping(script)) {
        if (!kit_script_accept(script))
            continue;
        atomic_fetch_add((atomic_int *)arg, 1);
        if (kit_script_frame(script, &frame))
            (void)kit_script_bye(script, SML_BYE_DENIED, "not\x1b[2J you");
    }
}

static void remember(struct semel_client *client, enum semel_client_state state,
                     enum semel_status status, const char *text, void *user)
{
    char *line = user;

    (void)client;
    if (state == SEMEL_CLIENT_FAILED)
        snprintf(line, 600, "%s %s", semel_status_name(status), text);
}

static void log_line(enum semel_log_level level, const char *text, void *user)
{
    if (level == SEMEL_LOG_ERROR)
        snprintf(user, 600, "%s", text);
}

static void test_denied(void **state)
{
    atomic_int connections = 0;
    struct kit_script *script = kit_script_start(play_deny, &connections);
    char told[600] = "", logged[600] = "", expected[600];
    struct semel_client_options options = {
        .on_state = remember, .state_user = told, .log = log_line, .log_user = logged
    };
    struct semel_client *client = open_client(kit_script_address(script), &options);
    struct semel_result result;

    (void)state;
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_DENIED);
    semel_result_clear(&result);
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_DENIED);
    assert_non_null(strstr(result.text, "not\\x1b[2J you"));
    semel_result_clear(&result);
    close_client(client);
    assert_int_equal(connections, 1);
    snprintf(expected, sizeof expected, "DENIED %s: not\\x1b[2J you", kit_script_address(script));
    assert_string_equal(told, expected);
    snprintf(expected, sizeof expected, "connection failed for good: %s: not\\x1b[2J you",
             kit_script_address(script));
    assert_string_equal(logged, expected);
    kit_script_stop(script);
}

/* --- descriptors ------------------------------------------------------------------------ */

static void test_descriptors(void **state)
{
    struct semel_client *client = NULL;
    struct semel_result result;
    char address[64];
    int pair[2];

    (void)state;
    assert_int_equal(semel_client_create(&client, "fd:987", NULL), SEMEL_BAD_ADDRESS);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    snprintf(address, sizeof address, "fd:%d", pair[0]);
    client = open_client(address, NULL);
    close(pair[1]);
    /* There is nothing to reconnect to. */
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_PEER_DIED);
    assert_non_null(strstr(result.text, address));
    semel_result_clear(&result);
    assert_int_equal(semel_client_state(client), SEMEL_CLIENT_FAILED);
    close_client(client);
    assert_int_equal(fcntl(pair[0], F_GETFD), -1); /* it was ours */
}

static void reply_same(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    assert_int_equal(semel_request_reply(request, body.data, body.size), SEMEL_OK);
}

static struct semel_server *open_server(const char *address)
{
    struct semel_server *server = NULL;

    assert_int_equal(semel_server_create(&server, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(server, "echo", reply_same, NULL, NULL), SEMEL_OK);
    assert_int_equal(semel_server_listen(server, address), SEMEL_OK);
    assert_int_equal(semel_server_start(server), SEMEL_OK);
    return server;
}

/* Two descriptors, neither of them a socket, and bodies that fill them. */
static void test_pipes(void **state)
{
    size_t bytes = 8 << 20;
    char *body = malloc(bytes), address[64];
    struct semel_server *server;
    struct semel_client *client;
    struct semel_result result;
    int there[2], back[2];

    (void)state;
    memset(body, 'b', bytes);
    assert_int_equal(pipe(there), 0);
    assert_int_equal(pipe(back), 0);
    snprintf(address, sizeof address, "fd:%d/%d", there[0], back[1]);
    server = open_server(address);
    snprintf(address, sizeof address, "fd:%d/%d", back[0], there[1]);
    client = open_client(address, NULL);
    for (int i = 0; i < 30; i++)
        check_echo(client, "through pipes");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(semel_client_call(client, "echo", semel_bytes(body, bytes), NULL, &result),
                         SEMEL_VALUE);
        assert_int_equal(result.body.size, bytes);
        assert_memory_equal(result.body.data, body, bytes);
        semel_result_clear(&result);
    }
    close_client(client);
    assert_int_equal(semel_server_destroy(server), SEMEL_OK);
    free(body);
}

/* Greets, and is gone. */
static void play_greet_only(struct kit_script *script, void *arg)
{
    (void)kit_script_meet(script);
    kit_script_hang_up(script);
    atomic_store((atomic_bool *)arg, true);
}

static bool is_true(void *arg)
{
    return atomic_load((atomic_bool *)arg);
}

/* Nobody reads a pipe any more, while somebody else still holds the other one open: a write is all
 * that tells. The call ends by it, not by its deadline. */
static void test_pipe_breaks(void **state)
{
    atomic_bool gone = false;
    struct kit_script *script;
    struct semel_client *client;
    struct semel_result result;
    char address[64];
    int there[2], back[2], keep;

    (void)state;
    assert_int_equal(pipe(there), 0);
    assert_int_equal(pipe(back), 0);
    keep = dup(back[1]);
    assert_true(keep >= 0);
    script = kit_script_start_on(play_greet_only, &gone, there[0], back[1]);
    snprintf(address, sizeof address, "fd:%d/%d", back[0], there[1]);
    client = open_client(address, NULL);
    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    assert_true(kit_eventually(is_true, &gone, 60));
    semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result);
    assert_int_equal(result.status, SEMEL_PEER_DIED);
    semel_result_clear(&result);
    assert_int_equal(semel_client_state(client), SEMEL_CLIENT_FAILED);
    close_client(client);
    close(keep);
    kit_script_stop(script);
}

/* --- the last word ----------------------------------------------------------------------- */

struct last_word {
    atomic_bool greeted, stopping, heard, over;
};

/* Greets, reads nothing until the client stops, then everything. */
static void play_hard_of_hearing(struct kit_script *script, void *arg)
{
    struct last_word *word = arg;
    struct sml_frame frame;

    if (kit_script_meet(script)) {
        atomic_store(&word->greeted, true);
        while (!atomic_load(&word->stopping))
            kit_sleep_ms(1);
        kit_sleep_ms(1);
        while (kit_script_frame(script, &frame))
            if (frame.type == SML_BYE && frame.u.bye.code == SML_BYE_END)
                atomic_store(&word->heard, true);
    }
    atomic_store(&word->over, true);
}

static bool word_is_over(void *arg)
{
    return atomic_load(&((struct last_word *)arg)->over);
}

static void now_stopping(struct semel_result *result, void *user)
{
    assert_int_equal(result->status, SEMEL_STOPPED);
    atomic_store(&((struct last_word *)user)->stopping, true);
}

/* The socket is full when the client stops; the server reads on: it is told. */
static bool stop_with_full_socket(struct semel_bytes body)
{
    struct last_word word = { .greeted = false };
    struct kit_script *script = kit_script_start(play_hard_of_hearing, &word);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct semel_client_counters counters;
    uint64_t sent;

    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    assert_true(kit_eventually(is_true, &word.greeted, 60));
    assert_int_equal(semel_client_start(client, "x", body, NULL, now_stopping, &word, NULL),
                     SEMEL_OK);
    counters.bytes_sent = 0;
    do {
        sent = counters.bytes_sent;
        kit_sleep_ms(2);
        semel_client_counters(client, &counters);
    } while (counters.bytes_sent == 0 || counters.bytes_sent != sent);
    close_client(client);
    assert_true(kit_eventually(word_is_over, &word, 60));
    kit_script_stop(script);
    return atomic_load(&word.heard);
}

/* It is an effort of some milliseconds, which a busy machine may need for itself. */
static void test_last_word(void **state)
{
    size_t bytes = 4 << 20;
    char *body = calloc(1, bytes);
    int tries = 0;

    (void)state;
    while (!stop_with_full_socket(semel_bytes(body, bytes)))
        assert_true(++tries < 100);
    free(body);
}

/* A name is looked up without holding anybody up. */
static void test_name(void **state)
{
    struct semel_server *server = open_server("tcp:127.0.0.1:0");
    struct semel_client *client;
    char address[64];

    (void)state;
    snprintf(address, sizeof address, "tcp:localhost:%s",
             strrchr(semel_server_address(server), ':') + 1);
    client = open_client(address, NULL);
    for (int i = 0; i < 30; i++)
        check_echo(client, "by name");
    close_client(client);
    /* Gone before the look-up is. */
    close_client(open_client("tcp:no-such-host.invalid:7000", NULL));
    assert_int_equal(semel_server_destroy(server), SEMEL_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("M4 peer death", test_peer_death),
        TEST("M8 id table", test_id_table),
        TEST("M8 id table: a reply to a call never made", test_reply_to_nothing),
        TEST("M8 id table: failed sends", test_failed_sends),
        TEST("a server that breaks off inside a frame", test_mid_frame),
        TEST("heartbeats keep an idle connection", test_heartbeat),
        TEST("S10 backoff", test_backoff),
        TEST("S11 multi-address", test_addresses),
        TEST("unreachable server", test_unreachable),
        TEST("unknown host", test_unknown_host),
        TEST("silent server", test_silent_server),
        TEST("a server that speaks something else", test_garbage),
        TEST("a server that says no", test_denied),
        TEST("fd: one connection only", test_descriptors),
        TEST("fd: two pipes", test_pipes),
        TEST("fd: a pipe that breaks ends its calls", test_pipe_breaks),
        TEST("M10 stop: the server is told, although the socket was full", test_last_word),
        TEST("tcp: a name", test_name),
    };

    /* The library must not need it, and must not set it. */
    signal(SIGPIPE, SIG_DFL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
