/* SPDX-License-Identifier: MIT */
/* Who reads: a lone caller for itself, else the I/O thread; whoever it is, nothing is lost. */
#include "client_kit.h"

#include <sys/socket.h>

struct caller {
    struct semel_client *client;
    pthread_t thread;
    unsigned number;
    bool good;
};

/* --- reader roles ----------------------------------------------------------------------- */

static void test_lone_and_crowded(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct seen seen = { 0 };

    (void)state;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 30; i++)
            check_echo(client, "alone");
        /* A started call among them: its callback does not run on a caller. */
        memset(&seen, 0, sizeof seen);
        assert_int_equal(semel_client_start(client, "echo", semel_bytes_text("started"), NULL, note,
                                            &seen, NULL),
                         SEMEL_OK);
        check_echo(client, "beside");
        wait_seen(&seen);
        assert_int_equal(seen.outcome, SEMEL_VALUE);
        assert_memory_equal(seen.taken.body.data, "started", 7);
        semel_result_clear(&seen.taken);
        if (round % 5 == 0)
            kit_sleep_ms(20); /* long enough for the I/O thread to watch again */
    }
    close_client(client);
    kit_script_stop(script);
}

#define CROWD 8
#define CROWD_CALLS 500

static void *crowd(void *arg)
{
    struct caller *caller = arg;
    char text[32];

    for (int i = 0; i < CROWD_CALLS; i++) {
        snprintf(text, sizeof text, "%u/%d", caller->number, i);
        check_echo(caller->client, text);
    }
    caller->good = true;
    return NULL;
}

static void count_value(struct semel_result *result, void *user)
{
    if (result->outcome == SEMEL_VALUE)
        atomic_fetch_add((atomic_int *)user, 1);
}

static bool crowd_counted(void *arg)
{
    return atomic_load((atomic_int *)arg) == CROWD_CALLS;
}

static void test_crowd(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct caller callers[CROWD];
    atomic_int values = 0;

    (void)state;
    for (unsigned i = 0; i < CROWD; i++) {
        callers[i] = (struct caller){ .client = client, .number = i };
        assert_int_equal(pthread_create(&callers[i].thread, NULL, crowd, &callers[i]), 0);
    }
    for (int i = 0; i < CROWD_CALLS; i++)
        assert_int_equal(semel_client_start(client, "echo", semel_bytes_text("x"), NULL,
                                            count_value, &values, NULL),
                         SEMEL_OK);
    for (unsigned i = 0; i < CROWD; i++)
        pthread_join(callers[i].thread, NULL);
    for (unsigned i = 0; i < CROWD; i++)
        assert_true(callers[i].good);
    assert_true(kit_eventually(crowd_counted, &values, 60));
    close_client(client);
    kit_script_stop(script);
}

/* --- bodies ----------------------------------------------------------------------------- */

#define LARGE 3000000

/* Answers every call with LARGE bytes in many frames, and counts the bytes it was sent. */
static void play_large(struct kit_script *script, void *arg)
{
    atomic_size_t *received = arg;
    static uint8_t body[LARGE], out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;
    size_t have = 0, whole = 0;
    uint64_t xid = 0;

    for (size_t i = 0; i < LARGE; i++)
        body[i] = (uint8_t)(i * 31 >> 3);
    if (!kit_script_meet(script))
        return;
    while (kit_script_frame(script, &frame)) {
        if (frame.type == SML_CALL) {
            xid = frame.xid;
            have = frame.u.call.fragment.size;
            whole = (size_t)frame.u.call.body_bytes;
        } else if (frame.type == SML_BODY && frame.xid == xid) {
            have += frame.u.body.fragment.size;
        } else {
            continue;
        }
        if (have < whole)
            continue;
        atomic_store(received, have);
        struct sml_reply_frame reply = {
            .verdict = { .outcome = SEMEL_VALUE, .body = { body, SML_FRAGMENT_BYTES } },
            .body_bytes = LARGE,
        };
        if (!kit_script_send(script, out, sml_encode_reply(out, xid, &reply)))
            return;
        for (size_t at = SML_FRAGMENT_BYTES; at < LARGE; at += SML_FRAGMENT_BYTES) {
            size_t bytes = LARGE - at < SML_FRAGMENT_BYTES ? LARGE - at : SML_FRAGMENT_BYTES;

            if (!kit_script_send(script, out,
                                 sml_encode_body(out, xid, at, semel_bytes(body + at, bytes))))
                return;
        }
    }
}

static bool is_large(struct semel_bytes body)
{
    const uint8_t *bytes = body.data;

    if (body.size != LARGE)
        return false;
    for (size_t i = 0; i < LARGE; i++)
        if (bytes[i] != (uint8_t)(i * 31 >> 3))
            return false;
    return true;
}

static void test_large_bodies(void **state)
{
    atomic_size_t received = 0;
    struct kit_script *script = kit_script_start(play_large, &received);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    char *request = calloc(1, 2 * LARGE);
    struct semel_call_options lent = { .lent = true };
    struct semel_result result;
    struct seen seen = { 0 };

    (void)state;
    assert_int_equal(
        semel_client_call(client, "big", semel_bytes(request, 2 * LARGE), NULL, &result),
        SEMEL_VALUE);
    assert_int_equal(received, 2 * LARGE);
    assert_true(is_large(result.body));
    semel_result_clear(&result);
    assert_int_equal(semel_client_call(client, "big", semel_bytes(request, 1), NULL, NULL),
                     SEMEL_VALUE);
    assert_int_equal(
        semel_client_start(client, "big", semel_bytes(request, LARGE), &lent, note, &seen, NULL),
        SEMEL_OK);
    wait_seen(&seen);
    assert_true(is_large(seen.taken.body));
    semel_result_clear(&seen.taken);
    free(request);
    close_client(client);
    kit_script_stop(script);
}

/* --- M5 --------------------------------------------------------------------------------- */

static const struct semel_client_options once = { .give_up_ms = -1 };

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

static void *one_call(void *arg)
{
    struct semel_result result;

    bool good = semel_client_call(arg, "x", semel_bytes(NULL, 0), NULL, &result) == SEMEL_VALUE &&
                result.body.size == 7;

    semel_result_clear(&result);
    return good ? arg : NULL;
}

static void test_data_and_hang_up(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct three three = { .answer = true };
        struct kit_script *script = kit_script_start(play_three, &three);
        struct semel_client *client = open_client(kit_script_address(script), &once);
        struct seen seen = { 0 };
        pthread_t thread;
        void *good;

        pthread_create(&thread, NULL, one_call, client);
        assert_int_equal(
            semel_client_start(client, "x", semel_bytes(NULL, 0), NULL, note, &seen, NULL),
            SEMEL_OK);
        assert_ptr_equal(one_call(client), client);
        pthread_join(thread, &good);
        assert_ptr_equal(good, client);
        wait_seen(&seen);
        assert_int_equal(seen.outcome, SEMEL_VALUE);
        semel_result_clear(&seen.taken);
        close_client(client);
        kit_script_stop(script);
    }
}

struct busy {
    atomic_int inside;
    atomic_bool leave;
};

/* A callback that keeps the I/O thread from reading. */
static void hold_up(struct semel_result *result, void *user)
{
    struct busy *busy = user;

    (void)result;
    atomic_store(&busy->inside, 1);
    while (!atomic_load(&busy->leave))
        kit_sleep_ms(1);
}

static bool is_inside(void *arg)
{
    return atomic_load(&((struct busy *)arg)->inside);
}

struct parting {
    atomic_bool answer, gone;
};

/* Answers the first call at once, the second when told to, and is gone. */
static void play_parting(struct kit_script *script, void *arg)
{
    struct parting *parting = arg;
    struct sml_frame frame;
    uint64_t xids[2];
    int calls = 0;

    if (!kit_script_meet(script))
        return;
    while (calls < 2 && kit_script_frame(script, &frame)) {
        if (frame.type != SML_CALL)
            continue;
        xids[calls] = frame.xid;
        if (calls++ == 0)
            (void)kit_script_reply(script, frame.xid, semel_bytes(NULL, 0));
    }
    while (!atomic_load(&parting->answer))
        kit_sleep_ms(1);
    if (calls == 2)
        (void)kit_script_reply(script, xids[1], semel_bytes_text("in time"));
    kit_script_hang_up(script);
    atomic_store(&parting->gone, true);
}

static bool is_gone(void *arg)
{
    return atomic_load(&((struct parting *)arg)->gone);
}

/* The reply is in the buffer, the peer is gone, and the client notices that by a write. */
static void write_fails_first(int there[2], int back[2])
{
    struct parting parting = { false, false };
    struct busy busy = { 0 };
    struct seen second = { 0 }, third = { 0 };
    struct kit_script *script;
    struct semel_client *client;
    char address[64];

    script = kit_script_start_on(play_parting, &parting, there[0], back[1]);
    snprintf(address, sizeof address, "fd:%d/%d", back[0], there[1]);
    client = open_client(address, NULL);
    assert_int_equal(
        semel_client_start(client, "x", semel_bytes(NULL, 0), NULL, hold_up, &busy, NULL),
        SEMEL_OK);
    assert_true(kit_eventually(is_inside, &busy, 60));
    assert_int_equal(
        semel_client_start(client, "x", semel_bytes(NULL, 0), NULL, note, &second, NULL), SEMEL_OK);
    atomic_store(&parting.answer, true);
    assert_true(kit_eventually(is_gone, &parting, 60));
    assert_int_equal(
        semel_client_start(client, "x", semel_bytes(NULL, 0), NULL, note, &third, NULL), SEMEL_OK);
    atomic_store(&busy.leave, true);
    wait_seen(&second);
    assert_int_equal(second.outcome, SEMEL_VALUE);
    wait_seen(&third);
    assert_int_equal(third.status, SEMEL_PEER_DIED);
    semel_result_clear(&second.taken);
    semel_result_clear(&third.taken);
    close_client(client);
    kit_script_stop(script);
}

static void test_write_fails_first(void **state)
{
    int there[2], back[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, there), 0);
    back[0] = there[1];
    back[1] = there[0];
    write_fails_first(there, back);
    assert_int_equal(pipe(there), 0);
    assert_int_equal(pipe(back), 0);
    write_fails_first(there, back);
}

/* --- a caller that reads for itself ------------------------------------------------------ */

/* Nothing is heard: heartbeats notice, although a caller is reading for itself. */
static void test_silence(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct kit_relay *relay = kit_relay_start(kit_script_address(script) + 5, 0, 1);
    struct semel_client_options options = { .heartbeat_ms = 500, .give_up_ms = -1 };
    struct semel_client *client = open_client(kit_relay_address(relay), &options);
    struct semel_result result;

    (void)state;
    for (int i = 0; i < 30; i++)
        check_echo(client, "alone");
    kit_relay_mute(relay, true);
    assert_int_equal(semel_client_call(client, "echo", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_UNKNOWN);
    assert_int_equal(result.status, SEMEL_LINK_LOST);
    semel_result_clear(&result);
    close_client(client);
    kit_relay_stop(relay);
    kit_script_stop(script);
}

struct waiter {
    struct semel_client *client;
    pthread_t thread;
    struct semel_result result;
};

static void *wait_for_ever(void *arg)
{
    struct waiter *waiter = arg;

    semel_client_call(waiter->client, "hang", semel_bytes(NULL, 0), NULL, &waiter->result);
    return NULL;
}

static bool last_started(void *arg)
{
    struct semel_client_counters counters;

    semel_client_counters(arg, &counters);
    return counters.calls_started == 31;
}

/* A lone caller that reads for itself (after a streak) is woken too. */
static void test_stop_lone_reader(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        struct kit_script *script = kit_script_start(kit_play_echo, NULL);
        struct kit_relay *relay = kit_relay_start(kit_script_address(script) + 5, 0, 1);
        struct waiter waiter = { .client = open_client(kit_relay_address(relay), NULL) };

        for (int i = 0; i < 30; i++)
            check_echo(waiter.client, "streak");
        kit_relay_mute(relay, true);
        pthread_create(&waiter.thread, NULL, wait_for_ever, &waiter);
        assert_true(kit_eventually(last_started, waiter.client, 60));
        kit_sleep_ms(10 * round);
        close_client(waiter.client);
        pthread_join(waiter.thread, NULL);
        assert_int_equal(waiter.result.status, SEMEL_STOPPED);
        semel_result_clear(&waiter.result);
        kit_relay_stop(relay);
        kit_script_stop(script);
    }
}

/* Its deadline holds, although it sits in the socket. */
static void test_lone_deadline(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct kit_relay *relay = kit_relay_start(kit_script_address(script) + 5, 0, 1);
    struct semel_client_options options = { .cancel_grace_ms = 20 };
    struct semel_client *client = open_client(kit_relay_address(relay), &options);
    struct semel_call_options soon = { .deadline_ms = 300 };
    uint64_t before;

    (void)state;
    for (int round = 0; round < 5; round++) {
        struct semel_result result;

        for (int i = 0; i < 30; i++)
            check_echo(client, "streak");
        kit_relay_mute(relay, true);
        before = kit_now_ms();
        assert_int_equal(semel_client_call(client, "echo", semel_bytes(NULL, 0), &soon, &result),
                         SEMEL_UNKNOWN);
        assert_int_equal(result.status, SEMEL_DEADLINE);
        assert_true(kit_now_ms() - before >= 319);
        semel_result_clear(&result);
        kit_relay_mute(relay, false);
    }
    close_client(client);
    kit_relay_stop(relay);
    kit_script_stop(script);
}

static bool reconnected(void *arg)
{
    struct semel_client_counters counters;

    semel_client_counters(arg, &counters);
    return counters.reconnects == 1;
}

/* After a streak nobody may be watching: an idle client still notices that the link broke. */
static void test_idle_after_streak(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct kit_relay *relay = kit_relay_start(kit_script_address(script) + 5, 0, 1);
    struct semel_client_options options = { .heartbeat_ms = -1 };
    struct semel_client *client = open_client(kit_relay_address(relay), &options);

    (void)state;
    for (int i = 0; i < 30; i++)
        check_echo(client, "streak");
    kit_relay_cut(relay);
    assert_true(kit_eventually(reconnected, client, 60));
    close_client(client);
    kit_relay_stop(relay);
    kit_script_stop(script);
}

/* Greets, then reads no more. */
static void play_deaf(struct kit_script *script, void *arg)
{
    (void)arg;
    if (kit_script_meet(script))
        while (!kit_script_stopping(script))
            kit_sleep_ms(1);
}

static void *shout(void *arg)
{
    struct semel_call_options soon = { .deadline_ms = 100 };
    char *body = calloc(1, 1 << 20);
    struct semel_result result;
    bool good;

    /* Unknown if its first frame left, else not executed. */
    semel_client_call(arg, "x", semel_bytes(body, 1 << 20), &soon, &result);
    good = result.status == SEMEL_DEADLINE || result.status == SEMEL_EXPIRED;
    semel_result_clear(&result);
    free(body);
    return good ? arg : NULL;
}

/* A send never blocks: with a full socket a caller's deadline holds. */
static void test_full_socket(void **state)
{
    struct kit_script *script = kit_script_start(play_deaf, NULL);
    struct semel_client_options options = { .cancel_grace_ms = 20 };
    struct semel_client *client = open_client(kit_script_address(script), &options);
    pthread_t threads[4];
    void *good;

    (void)state;
    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, shout, client);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &good);
        assert_ptr_equal(good, client);
    }
    close_client(client);
    kit_script_stop(script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("lone callers, then company", test_lone_and_crowded),
        TEST("blocking and started calls together", test_crowd),
        TEST("bodies of many frames", test_large_bodies),
        TEST("M5 data and hang-up", test_data_and_hang_up),
        TEST("M5 data and hang-up: a write fails first", test_write_fails_first),
        TEST("silence is noticed", test_silence),
        TEST("M12 per-call deadline: a caller that reads for itself", test_lone_deadline),
        TEST("an idle client notices a broken link", test_idle_after_streak),
        TEST("M12 per-call deadline: a full socket", test_full_socket),
        TEST("M10 stop: a caller that reads for itself", test_stop_lone_reader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
