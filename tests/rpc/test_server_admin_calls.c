/* SPDX-License-Identifier: MIT */
/* What semel.calls shows of calls that run and wait. */
#include "server_kit.h"

#include "admin_kit.h"

static void running_before_waiting_and_older_first(void **state)
{
    struct semel_server_options options = { .workers = 2 };
    struct rig *rig = rig_make(&options);
    struct semel_client *other;
    struct seen seen[5];
    struct gate gate;
    char *text;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "m", gated, &gate, NULL);
    rig_go(rig);
    other = rig_connect(rig, NULL);
    for (int i = 0; i < 5; i++) {
        start_call(i % 2 ? other : rig->client, "m", "", NULL, &seen[i], NULL);
        if (i < 2)
            wait_inside(&gate, i + 1);
        while (rig_counters(rig).calls_received < (uint64_t)i + 1)
            kit_sleep_ms(1);
    }
    text = ask(rig->client, "semel.calls", "");
    for (char *at = text, *next; (next = strstr(at + 1, "\"age_ns\":")) != NULL; at = next)
        if (at != text && strstr(next, "waiting\"") != NULL && strstr(at, "running\"") == NULL)
            assert_true(number_of(at, NULL, "age_ns") >= number_of(next, NULL, "age_ns"));
    assert_true(strstr(text, "\"waiting\"") > strstr(text, "\"running\""));
    expect_words(text, "\"cancelled\":false,\"keyed\":false,\"peer\":\"unix:");
    assert_int_equal(number_of(text, NULL, "uid"), getuid());
    assert_true(number_of(text, NULL, "remaining_ms") > 1000);
    assert_int_equal(number_of(text, NULL, "running_left_off"), 0);
    free(text);
    gate_open(&gate, true);
    for (int i = 0; i < 5; i++) {
        wait_seen(&seen[i]);
        semel_result_clear(&seen[i].result);
    }
    text = ask(rig->client, "semel.calls", "");
    assert_string_equal(text, "{\"calls\":[],\"running_left_off\":0,\"waiting_left_off\":0}");
    free(text);
    assert_int_equal(semel_client_destroy(other), SEMEL_OK);
    rig_end(rig);
    gate_fini(&gate);
}

/* It has its verdict, and its handler goes on. */
static void overdue(void **state)
{
    struct semel_method_options options = { .max_run_ms = 1 };
    struct rig *rig = rig_make(NULL);
    struct gate gate;
    char *text;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "m", gated, &gate, &options);
    rig_go(rig);
    {
        struct seen seen;

        start_call(rig->client, "m", "", NULL, &seen, NULL);
        wait_inside(&gate, 1);
        text = ask(rig->client, "semel.calls", "");
        /* Until the client has accepted what it was told, the call is there. */
        if (strstr(text, "\"method\":\"m\""))
            assert_true(strstr(text, "\"running\"") || strstr(text, "\"overdue\""));
        free(text);
        wait_seen(&seen);
        assert_int_equal(seen.status, SEMEL_MAX_RUN);
        semel_result_clear(&seen.result);
    }
    gate_open(&gate, true);
    rig_end(rig);
    gate_fini(&gate);
}

/* A taken request holds no worker, and its call runs. */
static _Atomic(struct semel_request *) taken;

static void take(struct semel_request *request, void *user)
{
    (void)user;
    semel_request_take(request);
    atomic_store(&taken, request);
}

static void taken_calls_run(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct seen seen;
    char *text;

    (void)state;
    rig_export(rig, "take", take, NULL, NULL);
    rig_go(rig);
    start_call(rig->client, "take", "", NULL, &seen, NULL);
    while (atomic_load(&taken) == NULL)
        kit_sleep_ms(1);
    text = ask(rig->client, "semel.calls", "");
    expect_words(text, "\"method\":\"take\",\"state\":\"running\"");
    free(text);
    assert_int_equal(semel_request_reply(atomic_load(&taken), "x", 1), SEMEL_OK);
    wait_seen(&seen);
    semel_result_clear(&seen.result);
    rig_end(rig);
}

/* More than one answer shows: they are counted. */
static void many(void **state)
{
    struct semel_server_options options = { .workers = 1 };
    static struct seen seen[640];
    struct rig *rig = rig_make(&options);
    struct gate gate;
    char *text;
    int shown = 0;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "m", gated, &gate, NULL);
    rig_go(rig);
    for (int i = 0; i < 640; i++)
        start_call(rig->client, "m", "", NULL, &seen[i], NULL);
    wait_inside(&gate, 1);
    while (rig_counters(rig).calls_waiting < 639)
        kit_sleep_ms(1);
    text = ask(rig->client, "semel.calls", "");
    for (char *at = text; (at = strstr(at + 1, "\"id\":")) != NULL;)
        shown++;
    assert_int_equal(shown, 501);
    assert_int_equal(number_of(text, NULL, "waiting_left_off"), 139);
    free(text);
    gate_open(&gate, true);
    for (int i = 0; i < 640; i++) {
        wait_seen(&seen[i]);
        semel_result_clear(&seen[i].result);
    }
    rig_end(rig);
    gate_fini(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("running calls come before waiting ones, older ones first",
             running_before_waiting_and_older_first),
        TEST("a call that outstays its max_run is shown as long as it is known", overdue),
        TEST("a call whose request was taken runs", taken_calls_run),
        TEST("calls that are not shown are counted", many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
