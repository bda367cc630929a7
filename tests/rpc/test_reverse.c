/* SPDX-License-Identifier: MIT */
/* Calls from a server to its clients, with real threads and sockets: how they go. */
#include "reverse_kit.h"

/* --- outcomes -------------------------------------------------------------------------------- */

static void test_outcomes(void **state)
{
    struct semel_call_options options = { .deadline_ms = 20000, .content_type = "text/x" };
    struct semel_client *client;
    struct semel_result result;
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, NULL, &node);
    assert_int_equal(
        semel_backchannel_call(hub.channel, "echo", semel_bytes_text("abc"), NULL, &result),
        SEMEL_VALUE);
    assert_int_equal(result.body.size, 3);
    assert_memory_equal(result.body.data, "abc", 3);
    assert_string_equal(result.method, "echo");
    assert_true(strncmp(result.peer, "unix:", 5) == 0);
    assert_true(result.call > 0);
    semel_result_clear(&result);
    assert_int_equal(
        semel_backchannel_call(hub.channel, "fail", semel_bytes(NULL, 0), NULL, &result),
        SEMEL_FAILURE);
    assert_int_equal(result.code, 7);
    assert_string_equal(result.text, "out of paper");
    assert_string_equal(result.trace, "trace");
    assert_int_equal(result.detail.size, 6);
    semel_result_clear(&result);
    if (semel_backchannel_call(hub.channel, "look", semel_bytes(NULL, 0), &options, &result) !=
        SEMEL_VALUE)
        fail_msg("%s", result.text);
    semel_result_clear(&result);
    expect(&hub, "drop", "", 0, SEMEL_UNKNOWN, SEMEL_DROPPED);
    expect(&hub, "nothing", "", 0, SEMEL_NOT_EXECUTED, SEMEL_NO_METHOD);
    expect(&hub, "echo", "", -1, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    assert_int_equal(semel_backchannel_call(hub.channel, "echo", semel_bytes(NULL, 0), NULL, NULL),
                     SEMEL_VALUE);
    close_client(client);
    expect(&hub, "echo", "", 1000, SEMEL_NOT_EXECUTED, SEMEL_SESSION_LOST);
    close_hub(&hub);
}

static void test_refused(void **state)
{
    struct semel_call_options keyed = { .key = "k" }, rerun = { .rerun_ok = true };
    struct semel_call_options lent = { .lent = true };
    struct semel_method_options unused[] = {
        { .max_run_ms = 1 },       { .on_crash = SEMEL_CRASH_RERUN }, { .resolve = on_echo },
        { .resolve_user = &lent }, { .takes_items = true },           { .tells_start = true },
        { .forcible = true },      { .gives_items = true },           { .describe = "echoes" },
    };
    struct semel_client *client;
    struct seen seen = { 0 };
    struct node node;
    struct hub hub;
    char name[300];

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, NULL, &node);
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(semel_client_export(client, "echo", on_echo, NULL, NULL), SEMEL_ALREADY);
    assert_int_equal(semel_client_export(client, "semel.x", on_echo, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_client_export(client, name, on_echo, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_client_export(client, "", on_echo, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_client_export(client, NULL, on_echo, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_client_export(client, "x", NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_client_export(NULL, "x", on_echo, NULL, NULL), SEMEL_INVALID);
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++)
        assert_int_equal(semel_client_export(client, "x", on_echo, NULL, &unused[i]),
                         SEMEL_INVALID);
    for (int i = 0; i < 3; i++) {
        const struct semel_call_options *o = i == 0 ? &keyed : i == 1 ? &rerun : &lent;

        assert_int_equal(semel_backchannel_start(hub.channel, "echo", semel_bytes(NULL, 0), o, note,
                                                 &seen, NULL),
                         SEMEL_INVALID);
    }
    assert_int_equal(
        semel_backchannel_start(hub.channel, name, semel_bytes(NULL, 0), NULL, note, &seen, NULL),
        SEMEL_INVALID);
    assert_int_equal(
        semel_backchannel_start(hub.channel, "echo", semel_bytes(NULL, 0), NULL, NULL, NULL, NULL),
        SEMEL_INVALID);
    assert_int_equal(semel_backchannel_call(NULL, "echo", semel_bytes(NULL, 0), NULL, NULL),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(atomic_load(&seen.times), 0);
    semel_client_stop(client);
    assert_int_equal(semel_client_export(client, "late", on_echo, NULL, NULL), SEMEL_STOPPED);
    close_client(client);
    close_hub(&hub);
}

/* A client that exports late is waited for; one that never does is not for ever. */
static void test_waited_for(void **state)
{
    struct semel_client *client;
    struct seen seen = { 0 };
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = open_client(hub.address, NULL);
    say_hello(client);
    expect(&hub, "echo", "", 50, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    assert_int_equal(semel_backchannel_start(hub.channel, "echo", semel_bytes_text("late"), NULL,
                                             note, &seen, NULL),
                     SEMEL_OK);
    kit_sleep_ms(20);
    assert_int_equal(atomic_load(&seen.times), 0);
    assert_int_equal(semel_client_export(client, "echo", on_echo, NULL, NULL), SEMEL_OK);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    semel_result_clear(&seen.taken);
    close_client(client);
    close_hub(&hub);
}

/* --- many, large, both ways ------------------------------------------------------------------ */

static void *call_echo(void *arg)
{
    for (int i = 0; i < 200; i++)
        check_echo(arg, "to the server");
    return NULL;
}

static void *call_bounce(void *arg)
{
    struct semel_result result;

    for (int i = 0; i < 200; i++) {
        if (semel_client_call(arg, "bounce", semel_bytes_text("there and back"), NULL, &result) !=
            SEMEL_VALUE)
            fail_msg("%s", result.text);
        assert_int_equal(result.body.size, 14);
        semel_result_clear(&result);
    }
    return NULL;
}

static void *call_back(void *arg)
{
    for (int i = 0; i < 200; i++)
        expect(arg, "echo", "to the client", 0, SEMEL_VALUE, SEMEL_OK);
    return NULL;
}

static void test_both_ways(void **state)
{
    struct semel_server_options options = { .workers = 8 };
    struct semel_client *client;
    pthread_t threads[9];
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, &options);
    client = join_hub(hub.address, NULL, &node);
    for (int i = 0; i < 9; i++)
        assert_int_equal(pthread_create(&threads[i], NULL,
                                        i < 3   ? call_echo
                                        : i < 6 ? call_bounce
                                                : call_back,
                                        i < 6 ? (void *)client : (void *)&hub),
                         0);
    for (int i = 0; i < 9; i++)
        pthread_join(threads[i], NULL);
    close_client(client);
    close_hub(&hub);
}

static void test_a_thousand(void **state)
{
    struct semel_client_options options = { .handlers = 4 };
    struct semel_client *client;
    struct tally tally = { 0 };
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, &options, &node);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(semel_backchannel_start(hub.channel, i % 10 ? "echo" : "hold",
                                                 semel_bytes(&i, sizeof i), NULL, count_end, &tally,
                                                 NULL),
                         SEMEL_OK);
    atomic_store(&node.open, true);
    await_all(&tally, 1000);
    assert_int_equal(atomic_load(&tally.values), 1000);
    assert_int_equal(atomic_load(&node.begun), 100);
    close_client(client);
    close_hub(&hub);
}

static void test_large(void **state)
{
    static const size_t sizes[] = { 0, 1, 65519, 65520, 65536, 300000, 16777216 };
    struct semel_client *client;
    struct semel_result result;
    struct node node;
    struct hub hub;
    uint8_t *body = calloc(1, 16777217);

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, NULL, &node);
    for (size_t i = 0; i < 16777216; i++)
        body[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (semel_backchannel_call(hub.channel, "echo", semel_bytes(body, sizes[i]), NULL,
                                   &result) != SEMEL_VALUE)
            fail_msg("%s", result.text);
        assert_int_equal(result.body.size, sizes[i]);
        if (sizes[i] > 0)
            assert_memory_equal(result.body.data, body, sizes[i]);
        semel_result_clear(&result);
    }
    assert_int_equal(
        semel_backchannel_call(hub.channel, "echo", semel_bytes(body, 16777217), NULL, &result),
        SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_TOO_LARGE);
    semel_result_clear(&result);
    free(body);
    close_client(client);
    close_hub(&hub);
}

/* --- limits ---------------------------------------------------------------------------------- */

static void on_too_large(struct semel_request *request, void *user)
{
    static const char body[2000];

    (void)user;
    assert_int_equal(semel_request_reply(request, body, sizeof body), SEMEL_TOO_LARGE);
    assert_int_equal(semel_request_reply(request, body, 1000), SEMEL_OK);
}

static void test_limits(void **state)
{
    struct semel_server_options server = { .body_bytes = 1000, .window_calls = 8 };
    struct semel_client_options options = { .body_bytes = 500, .window_calls = 4, .handlers = 1 };
    struct semel_client *client;
    struct tally tally = { 0 };
    struct node node;
    struct hub hub;
    char body[501];

    (void)state;
    open_hub(&hub, &server);
    client = join_hub(hub.address, &options, &node);
    assert_int_equal(semel_client_export(client, "large", on_too_large, NULL, NULL), SEMEL_OK);
    memset(body, 'x', sizeof body);
    expect(&hub, "large", "", 0, SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(
        semel_backchannel_call(hub.channel, "echo", semel_bytes(body, 501), NULL, NULL),
        SEMEL_NOT_EXECUTED);
    assert_int_equal(
        semel_backchannel_call(hub.channel, "echo", semel_bytes(body, 500), NULL, NULL),
        SEMEL_VALUE);
    /* Four at the client, one of them runs; four wait here. */
    for (int i = 0; i < 8; i++)
        assert_int_equal(semel_backchannel_start(hub.channel, "hold", semel_bytes(NULL, 0), NULL,
                                                 count_end, &tally, NULL),
                         SEMEL_OK);
    assert_int_equal(semel_backchannel_start(hub.channel, "hold", semel_bytes(NULL, 0), NULL,
                                             count_end, &tally, NULL),
                     SEMEL_OVERLOADED);
    await(&node.begun);
    kit_sleep_ms(20);
    assert_int_equal(atomic_load(&node.begun), 1);
    atomic_store(&node.open, true);
    await_all(&tally, 8);
    assert_int_equal(atomic_load(&tally.values), 8);
    close_client(client);
    close_hub(&hub);
}

/* A method's own limit, with threads to spare. */
static void test_method_limit(void **state)
{
    struct semel_client_options options = { .handlers = 4 };
    struct semel_client *client;
    struct tally tally = { 0 };
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, &options, &node);
    for (int i = 0; i < 3; i++)
        assert_int_equal(semel_backchannel_start(hub.channel, "one", semel_bytes(NULL, 0), NULL,
                                                 count_end, &tally, NULL),
                         SEMEL_OK);
    await(&node.begun);
    expect(&hub, "echo", "passes", 0, SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&node.begun), 1);
    atomic_store(&node.open, true);
    await_all(&tally, 3);
    assert_int_equal(atomic_load(&tally.values), 3);
    close_client(client);
    close_hub(&hub);
}

/* Waits until as many others run as it was told. */
static void on_meet(struct semel_request *request, void *user)
{
    atomic_int *here = user;
    uint64_t end = kit_now_ms() + 20000;

    atomic_fetch_add(here, 1);
    while (atomic_load(here) < 4 && kit_now_ms() < end)
        kit_sleep_ms(1);
    if (atomic_load(here) < 4)
        (void)semel_request_fail(request, 1, "alone");
    else
        (void)semel_request_reply(request, NULL, 0);
}

/* Calls that arrive together run together, though one thread was idle and is enough for one. */
static void test_together(void **state)
{
    struct semel_client_options options = { .handlers = 4 };
    struct semel_call_options call = { .deadline_ms = 60000 };
    struct semel_client *client;
    struct tally tally = { 0 };
    atomic_int here = 0;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = open_client(hub.address, &options);
    say_hello(client);
    for (int i = 0; i < 4; i++)
        assert_int_equal(semel_backchannel_start(hub.channel, "meet", semel_bytes(NULL, 0), &call,
                                                 count_end, &tally, NULL),
                         SEMEL_OK);
    assert_int_equal(semel_client_export(client, "meet", on_meet, &here, NULL), SEMEL_OK);
    await_all(&tally, 4);
    assert_int_equal(atomic_load(&tally.values), 4);
    close_client(client);
    close_hub(&hub);
}

/* --- time and cancelling --------------------------------------------------------------------- */

static void test_deadline(void **state)
{
    struct semel_client *client;
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, NULL, &node);
    /* The handler is told, and has its say. */
    expect(&hub, "hold", "", 30, SEMEL_FAILURE, SEMEL_FAILED);
    assert_int_equal(atomic_load(&node.cancelled), 1);
    assert_int_equal(atomic_load(&node.callbacks), 1);
    /* One that says nothing is given up after the grace, and a late answer is none. */
    expect(&hub, "keep", "", 30, SEMEL_UNKNOWN, SEMEL_DEADLINE);
    assert_true(semel_request_cancelled(atomic_load(&node.kept)));
    assert_int_equal(semel_request_remaining_ms(atomic_load(&node.kept)), 0);
    assert_int_equal(semel_request_reply(atomic_load(&node.kept), "late", 4), SEMEL_OK);
    expect(&hub, "echo", "goes on", 0, SEMEL_VALUE, SEMEL_OK);
    close_client(client);
    close_hub(&hub);
}

static void test_cancel(void **state)
{
    struct semel_client_options options = { .handlers = 1 };
    struct seen running = { 0 }, waiting = { 0 };
    struct semel_client *client;
    uint64_t first = 0, second = 0;
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, &options, &node);
    assert_int_equal(semel_backchannel_start(hub.channel, "hold", semel_bytes(NULL, 0), NULL, note,
                                             &running, &first),
                     SEMEL_OK);
    assert_int_equal(semel_backchannel_start(hub.channel, "hold", semel_bytes(NULL, 0), NULL, note,
                                             &waiting, &second),
                     SEMEL_OK);
    assert_true(second > first && first > 0);
    await(&node.begun);
    semel_backchannel_cancel(hub.channel, second); /* it waits for the thread */
    semel_backchannel_cancel(hub.channel, second);
    semel_backchannel_cancel(hub.channel, first);
    semel_backchannel_cancel(hub.channel, 12345);
    semel_backchannel_cancel(NULL, first);
    wait_seen(&running);
    wait_seen(&waiting);
    assert_int_equal(running.outcome, SEMEL_FAILURE);
    assert_int_equal(waiting.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(waiting.status, SEMEL_CANCELLED);
    assert_int_equal(atomic_load(&node.begun), 1);
    semel_result_clear(&running.taken);
    semel_result_clear(&waiting.taken);
    close_client(client);
    close_hub(&hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("how calls end", test_outcomes),
        TEST("what is refused", test_refused),
        TEST("who comes late is waited for", test_waited_for),
        TEST("both ways at once, and into each other", test_both_ways),
        TEST("a thousand in flight", test_a_thousand),
        TEST("large bodies", test_large),
        TEST("limits of both ends", test_limits),
        TEST("a method's own limit", test_method_limit),
        TEST("calls that come together", test_together),
        TEST("deadlines", test_deadline),
        TEST("cancelling", test_cancel),
    };

    return cmocka_run_group_tests_name("rpc/reverse", tests, NULL, NULL);
}
