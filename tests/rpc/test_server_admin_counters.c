/* SPDX-License-Identifier: MIT */
/* semel.counters tells what semel_server_counters does, times of methods, and what workers do. */
#include "server_kit.h"

#include "admin_kit.h"

static void say_no(struct semel_request *request, void *user)
{
    (void)user;
    REQUIRE(semel_request_fail(request, 1, "no") == SEMEL_OK);
}

static void forget(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
}

static void slow(struct semel_request *request, void *user)
{
    (void)user;
    kit_sleep_ms(20);
    REQUIRE(semel_request_reply(request, NULL, 0) == SEMEL_OK);
}

static _Atomic(struct semel_request *) taken;

static void take(struct semel_request *request, void *user)
{
    (void)user;
    semel_request_take(request);
    atomic_store(&taken, request);
}

/* A reply may be with its caller before its handler has returned. */
static char *ask_when_all_returned(struct rig *rig, uint64_t calls)
{
    for (;;) {
        char *text = ask(rig->client, "semel.counters", "");
        const char *all = strstr(text, "\"all\":{");

        if (number_of(all, NULL, "values") + number_of(all, NULL, "failures") +
                number_of(all, NULL, "unknown") >=
            calls)
            return text;
        free(text);
        kit_sleep_ms(1);
    }
}

static void counts_by_method(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct seen seen;
    char *text;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_export(rig, "fail", say_no, NULL, NULL);
    rig_export(rig, "forget", forget, NULL, NULL);
    rig_export(rig, "slow", slow, NULL, NULL);
    rig_export(rig, "take", take, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 100; i++)
        expect_echo(rig->client, "x");
    expect_gone(rig->client, "fail", SEMEL_FAILURE, SEMEL_FAILED);
    expect_gone(rig->client, "forget", SEMEL_UNKNOWN, SEMEL_DROPPED);
    expect_gone(rig->client, "slow", SEMEL_VALUE, SEMEL_OK);
    start_call(rig->client, "take", "", NULL, &seen, NULL);
    while (atomic_load(&taken) == NULL)
        kit_sleep_ms(1);
    text = ask_when_all_returned(rig, 103);
    assert_int_equal(number_of(text, "{\"name\":\"take\"", "running"), 1);
    free(text);
    assert_int_equal(semel_request_reply(atomic_load(&taken), "x", 1), SEMEL_OK);
    wait_seen(&seen);
    semel_result_clear(&seen.result);
    text = ask_when_all_returned(rig, 104);
    assert_int_equal(number_of(text, "{\"name\":\"echo\"", "values"), 100);
    assert_int_equal(number_of(text, "{\"name\":\"fail\"", "failures"), 1);
    assert_int_equal(number_of(text, "{\"name\":\"forget\"", "unknown"), 1);
    assert_int_equal(number_of(text, "{\"name\":\"take\"", "values"), 1);
    assert_int_equal(number_of(text, "{\"name\":\"take\"", "running"), 0);
    assert_true(number_of(text, "{\"name\":\"slow\"", "p50_ns") >= 20000000);
    assert_true(number_of(text, "{\"name\":\"echo\"", "p50_ns") > 0);
    assert_true(number_of(text, "{\"name\":\"echo\"", "p99_ns") >=
                number_of(text, "{\"name\":\"echo\"", "p50_ns"));
    assert_int_equal(number_of(text, "\"all\":{", "values"), 102);
    assert_int_equal(number_of(text, NULL, "methods_left_off"), 0);
    free(text);
    rig_end(rig);
}

static void workers_and_what_they_do(void **state)
{
    struct semel_server_options options = { .workers = 2 };
    struct rig *rig = rig_make(&options);
    struct seen seen[3];
    struct gate gate;
    char *text;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_go(rig);
    text = ask(rig->client, "semel.counters", "");
    expect_words(text, "\"state\":\"reading\"");
    expect_no_words(text, "\"state\":\"running\"");
    free(text);
    for (int i = 0; i < 3; i++)
        start_call(rig->client, "gated", "", NULL, &seen[i], NULL);
    wait_inside(&gate, 2);
    while (rig_counters(rig).calls_waiting < 1)
        kit_sleep_ms(1);
    text = ask(rig->client, "semel.counters", "");
    expect_words(text, "\"state\":\"running\",\"method\":\"gated\",\"for_ns\":");
    assert_int_equal(number_of(text, "{\"name\":\"gated\"", "running"), 2);
    assert_int_equal(number_of(text, "{\"name\":\"gated\"", "waiting"), 1);
    free(text);
    gate_open(&gate, true);
    for (int i = 0; i < 3; i++) {
        wait_seen(&seen[i]);
        semel_result_clear(&seen[i].result);
    }
    rig_end(rig);
    gate_fini(&gate);
}

static void the_server_itself(void **state)
{
    struct semel_server_options options = { .workers = 3, .backlog = 77 };
    struct rig *rig = rig_make(&options);
    struct semel_server_counters c;
    char *text;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "x");
    text = ask_when_all_returned(rig, 1);
    c = rig_counters(rig);
    assert_int_equal(number_of(text, NULL, "pid"), getpid());
    assert_int_equal(number_of(text, NULL, "uid"), geteuid());
    assert_int_equal(number_of(text, "\"server\"", "workers"), 3);
    assert_int_equal(number_of(text, NULL, "backlog"), 77);
    expect_words(text, "\"version\":\"");
    expect_words(text, "\"state\":\"serving\"");
    expect_words(text, "\"store\":false");
    assert_int_equal(number_of(text, NULL, "connections_accepted"), c.connections_accepted);
    assert_int_equal(number_of(text, NULL, "sessions_created"), c.sessions_created);
    assert_int_equal(number_of(text, NULL, "calls_started"), c.calls_started);
    assert_int_equal(number_of(text, NULL, "threads"), c.threads);
    free(text);
    rig_end(rig);
}

/* Reserved calls are answered for people; they are not what the server does for a living. */
static void they_do_not_count_themselves(void **state)
{
    struct rig *rig = rig_make(NULL);
    char *text;

    (void)state;
    rig_go(rig);
    for (int i = 0; i < 5; i++)
        free(ask(rig->client, "semel.counters", ""));
    text = ask(rig->client, "semel.counters", "");
    assert_int_equal(number_of(text, NULL, "calls_started"), 0);
    assert_int_equal(number_of(text, NULL, "calls_running"), 0);
    assert_int_equal(number_of(text, "\"all\":{", "values"), 0);
    expect_words(text, "\"methods\":[]");
    free(text);
    rig_end(rig);
}

/* Nor is the call that carries the server's calls: it lasts as long as the client is there. */
static void carriers_are_not_counted(void **state)
{
    struct semel_server_options options = { .workers = 1 }; /* one call after the other */
    struct rig *rig = rig_make(&options);
    char *text;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_gone(rig->client, "semel.reverse", SEMEL_FAILURE, SEMEL_FAILED);
    expect_echo(rig->client, "x");
    text = ask_when_all_returned(rig, 1);
    expect_no_words(text, "semel.reverse");
    assert_int_equal(number_of(text, "{\"name\":\"echo\"", "values"), 1);
    assert_int_equal(number_of(text, "\"all\":{", "values"), 1);
    assert_int_equal(number_of(text, "\"all\":{", "failures"), 0);
    free(text);
    rig_end(rig);
}

static void reply_long(struct semel_request *request, void *user)
{
    char body[201] = "";

    (void)user;
    REQUIRE(semel_request_reply(request, body, sizeof body) == SEMEL_TOO_LARGE);
    REQUIRE(semel_request_reply(request, body, 200) == SEMEL_OK);
}

/* The server's body limit is for what applications send; the caller's own holds for them, too. */
static void too_large(void **state)
{
    struct semel_server_options options = { .body_bytes = 200 };
    struct semel_client_options small = { .body_bytes = 200 };
    struct rig *rig = rig_make(&options);
    struct semel_client *client;
    struct semel_result result;
    char *text;

    (void)state;
    rig_export(rig, "long", reply_long, NULL, NULL);
    rig_go(rig);
    client = rig_connect(rig, &small);
    for (int i = 0; i < 2; i++) {
        text = ask(rig->client, i ? "semel.counters" : "semel.methods", "");
        assert_true(strlen(text) > 200);
        free(text);
    }
    ask_in_vain(client, "semel.counters", "", SEMEL_TOO_LARGE, "too large");
    free(ask(client, "semel.calls", ""));
    result = expect(client, "long", "", NULL, SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(result.body.size, 200);
    semel_result_clear(&result);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("calls are counted and timed by method", counts_by_method),
        TEST("workers say what they do", workers_and_what_they_do),
        TEST("the server says what it is, and all of its counters", the_server_itself),
        TEST("reserved calls do not count themselves", they_do_not_count_themselves),
        TEST("nor are carriers of the server's calls counted", carriers_are_not_counted),
        TEST("an answer keeps to the body limit", too_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
