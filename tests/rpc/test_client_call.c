/* SPDX-License-Identifier: MIT */
/* Calls: each gets its own answer, once, in the way it asked for. */
#include "client_kit.h"

/* --- M1 --------------------------------------------------------------------------------- */

#define CALLERS 700

struct caller {
    struct semel_client *client;
    pthread_t thread;
    unsigned number;
    bool good;
};

static void *ask_own_question(void *arg)
{
    struct caller *caller = arg;
    struct semel_result result;
    char text[64];

    snprintf(text, sizeof text, "the question of caller %u", caller->number);
    caller->good = semel_client_call(caller->client, "echo", semel_bytes_text(text), NULL,
                                     &result) == SEMEL_VALUE &&
                   result.body.size == strlen(text) &&
                   memcmp(result.body.data, text, strlen(text)) == 0;
    semel_result_clear(&result);
    return NULL;
}

/* All 700 are under way at once, and their answers come in reverse order. */
static void test_interleaving(void **state)
{
    size_t hold = CALLERS;
    struct kit_script *script = kit_script_start(kit_play_echo, &hold);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct caller *callers = calloc(CALLERS, sizeof *callers);
    pthread_attr_t small;

    (void)state;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 * 1024);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){ .client = client, .number = i };
        assert_int_equal(pthread_create(&callers[i].thread, &small, ask_own_question, &callers[i]),
                         0);
    }
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(callers[i].thread, NULL);
    for (unsigned i = 0; i < CALLERS; i++)
        assert_true(callers[i].good);
    pthread_attr_destroy(&small);
    free(callers);
    close_client(client);
    kit_script_stop(script);
}

/* --- M12 -------------------------------------------------------------------------------- */

struct hanging {
    atomic_int calls, cancels;
    atomic_bool answer;
    uint64_t first;
};

/* Answers "echo"; hangs on "hang", and answers the first of these when it is far too late. */
static void play_hanging(struct kit_script *script, void *arg)
{
    struct hanging *hanging = arg;
    struct sml_frame frame;

    if (!kit_script_meet(script))
        return;
    while (kit_script_frame(script, &frame)) {
        if (frame.type == SML_CANCEL)
            atomic_fetch_add(&hanging->cancels, 1);
        if (frame.type != SML_CALL)
            continue;
        if (memcmp(frame.u.call.method.data, "hang", 4) == 0) {
            if (atomic_fetch_add(&hanging->calls, 1) == 0)
                hanging->first = frame.xid;
            continue;
        }
        if (atomic_exchange(&hanging->answer, false))
            (void)kit_script_reply(script, hanging->first, semel_bytes_text("too late"));
        (void)kit_script_reply(script, frame.xid, frame.u.call.fragment);
    }
}

static void test_deadline(void **state)
{
    struct hanging hanging = { 0 };
    struct kit_script *script = kit_script_start(play_hanging, &hanging);
    struct semel_client_options options = { .cancel_grace_ms = 50 };
    struct semel_client *client = open_client(kit_script_address(script), &options);
    struct semel_call_options soon = { .deadline_ms = 300 }, passed = { .deadline_ms = -1 };
    struct semel_client_counters counters;
    struct semel_result result;
    char expected[256];
    uint64_t before;

    (void)state;
    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    before = kit_now_ms();
    assert_int_equal(semel_client_call(client, "hang", semel_bytes(NULL, 0), &soon, &result),
                     SEMEL_UNKNOWN);
    assert_true(kit_now_ms() - before >= 349);
    assert_int_equal(result.status, SEMEL_DEADLINE);
    snprintf(expected, sizeof expected, "call 1 of 'hang' at %s: deadline passed without a verdict",
             kit_script_address(script));
    assert_string_equal(result.text, expected);
    semel_result_clear(&result);
    /* The callee was told; its late reply is dropped and counted, and nothing is disturbed. */
    atomic_store(&hanging.answer, true);
    check_echo(client, "next");
    assert_int_equal(hanging.cancels, 1);
    check_echo(client, "and next");
    semel_client_counters(client, &counters);
    assert_int_equal(counters.replies_unexpected, 1);
    assert_int_equal(counters.unknown, 1);
    assert_int_equal(counters.values, 2);
    assert_int_equal(semel_client_call(client, "echo", semel_bytes(NULL, 0), &passed, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_EXPIRED);
    semel_result_clear(&result);
    close_client(client);
    kit_script_stop(script);
}

static bool all_called(void *arg)
{
    return atomic_load(&((struct hanging *)arg)->calls) == 1024;
}

static void count_unknown(struct semel_result *result, void *user)
{
    if (result->outcome == SEMEL_UNKNOWN && result->status == SEMEL_DEADLINE)
        atomic_fetch_add((atomic_int *)user, 1);
}

static bool all_given_up(void *arg)
{
    return atomic_load((atomic_int *)arg) == 1024;
}

/* A window full of calls that hang, abandoned at their deadline: the next calls go through. */
static void test_abandoned(void **state)
{
    struct hanging hanging = { 0 };
    struct kit_script *script = kit_script_start(play_hanging, &hanging);
    struct semel_client_options options = { .cancel_grace_ms = -1 };
    struct semel_client *client = open_client(kit_script_address(script), &options);
    struct semel_call_options soon = { .deadline_ms = 2000 };
    atomic_int unknown = 0;

    (void)state;
    for (int i = 0; i < 1024; i++)
        assert_int_equal(semel_client_start(client, "hang", semel_bytes_text("x"), &soon,
                                            count_unknown, &unknown, NULL),
                         SEMEL_OK);
    assert_true(kit_eventually(all_called, &hanging, 60));
    assert_true(kit_eventually(all_given_up, &unknown, 60));
    for (int i = 0; i < 100; i++)
        check_echo(client, "next");
    close_client(client);
    kit_script_stop(script);
}

/* --- cancelling ------------------------------------------------------------------------- */

/* A CANCEL is answered with a verdict. */
static void play_cancelled(struct kit_script *script, void *arg)
{
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;

    if (!kit_script_meet(script))
        return;
    while (kit_script_frame(script, &frame)) {
        struct sml_reply_frame reply = { .verdict = { .outcome = SEMEL_NOT_EXECUTED,
                                                      .status = SEMEL_CANCELLED } };

        if (frame.type == SML_CALL)
            atomic_store((atomic_bool *)arg, true);
        if (frame.type == SML_CANCEL)
            (void)kit_script_send(script, out, sml_encode_reply(out, frame.xid, &reply));
    }
}

static bool is_set(void *arg)
{
    return atomic_load((atomic_bool *)arg);
}

static void test_cancel(void **state)
{
    atomic_bool called = false;
    struct kit_script *script = kit_script_start(play_cancelled, &called);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct semel_call *call = NULL;
    struct seen seen = { 0 };

    (void)state;
    assert_int_equal(
        semel_client_start(client, "any", semel_bytes(NULL, 0), NULL, note, &seen, &call),
        SEMEL_OK);
    assert_true(kit_eventually(is_set, &called, 60));
    semel_call_cancel(call);
    semel_call_cancel(call);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(seen.status, SEMEL_CANCELLED);
    semel_result_clear(&seen.taken);
    semel_call_cancel(call); /* does nothing */
    close_client(client);
    semel_call_cancel(call); /* nor after the client's end */
    semel_call_unref(call);
    semel_call_unref(NULL);
    kit_script_stop(script);
}

static void test_cancel_queued(void **state)
{
    struct kit_place place;
    struct semel_client *client;
    struct semel_call *call = NULL;
    struct seen seen = { 0 };

    (void)state;
    kit_place_make(&place);
    client = open_client(place.address, NULL);
    assert_int_equal(
        semel_client_start(client, "any", semel_bytes(NULL, 0), NULL, note, &seen, &call),
        SEMEL_OK);
    semel_call_cancel(call);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(seen.status, SEMEL_CANCELLED);
    assert_int_equal(seen.taken.call, 0);
    semel_result_clear(&seen.taken);
    semel_call_unref(call);
    close_client(client);
    kit_place_remove(&place);
}

/* The handle, and how often a callback ran without it. Plain: the library orders the accesses. */
struct handle {
    struct semel_call *call;
    int missing;
    atomic_int ran;
};

static void look_for_handle(struct semel_result *result, void *user)
{
    struct handle *handle = user;

    (void)result;
    handle->missing += handle->call == NULL;
    atomic_fetch_add(&handle->ran, 1);
}

static bool handle_ran(void *arg)
{
    return atomic_load(&((struct handle *)arg)->ran) > 0;
}

/* *out_call is set before the callback can run, also of a call that is over at once. */
static void test_handle_first(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct semel_call_options passed = { .deadline_ms = -1 };

    (void)state;
    for (int i = 0; i < 2000; i++) {
        struct handle handle = { .call = NULL };

        assert_int_equal(semel_client_start(client, "echo", semel_bytes(NULL, 0),
                                            i % 2 ? &passed : NULL, look_for_handle, &handle,
                                            &handle.call),
                         SEMEL_OK);
        if (!atomic_load(&handle.ran))
            assert_true(kit_eventually(handle_ran, &handle, 60));
        assert_int_equal(handle.missing, 0);
        semel_call_unref(handle.call);
    }
    close_client(client);
    kit_script_stop(script);
}

/* --- callbacks -------------------------------------------------------------------------- */

struct inner {
    struct semel_client *client;
    struct seen second;
    struct semel_result refused;
    enum semel_status waited, destroyed;
    atomic_int done;
};

static void from_callback(struct semel_result *result, void *user)
{
    struct inner *inner = user;

    assert_int_equal(result->outcome, SEMEL_VALUE);
    semel_client_call(inner->client, "echo", semel_bytes(NULL, 0), NULL, &inner->refused);
    inner->waited = semel_client_wait_connected(inner->client, 1, NULL, 0);
    inner->destroyed = semel_client_destroy(inner->client);
    assert_int_equal(semel_client_start(inner->client, "echo", semel_bytes_text("second"), NULL,
                                        note, &inner->second, NULL),
                     SEMEL_OK);
    atomic_store(&inner->done, 1);
}

static void test_in_callback(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct inner inner = { .client = client };

    (void)state;
    assert_int_equal(semel_client_start(client, "echo", semel_bytes_text("first"), NULL,
                                        from_callback, &inner, NULL),
                     SEMEL_OK);
    wait_seen(&inner.second);
    assert_int_equal(inner.second.outcome, SEMEL_VALUE);
    assert_memory_equal(inner.second.taken.body.data, "second", 6);
    assert_int_equal(inner.refused.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(inner.refused.status, SEMEL_WOULD_DEADLOCK);
    assert_non_null(strstr(inner.refused.text, "echo"));
    assert_int_equal(inner.waited, SEMEL_WOULD_DEADLOCK);
    assert_int_equal(inner.destroyed, SEMEL_WOULD_DEADLOCK);
    semel_result_clear(&inner.second.taken);
    semel_result_clear(&inner.refused);
    close_client(client);
    kit_script_stop(script);
}

/* --- misuse and limits ------------------------------------------------------------------ */

static void expect_refusal(struct semel_client *client, const char *method, struct semel_bytes body,
                           const struct semel_call_options *options, enum semel_status status)
{
    struct seen seen = { 0 };
    struct semel_result result;

    assert_int_equal(semel_client_call(client, method, body, options, &result), SEMEL_NOT_EXECUTED);
    assert_int_equal(result.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, status);
    assert_non_null(result.text);
    semel_result_clear(&result);
    assert_int_equal(semel_client_start(client, method, body, options, note, &seen, NULL), status);
    kit_sleep_ms(2);
    assert_int_equal(seen.times, 0);
}

static void test_invalid(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct semel_call_options far = { .deadline_ms = INT64_C(1) << 31 };
    struct semel_call_options typed = { .content_type = NULL };
    struct semel_bytes empty = { NULL, 0 };
    char longest[SEMEL_METHOD_BYTES + 2];

    (void)state;
    memset(longest, 'm', sizeof longest);
    longest[SEMEL_METHOD_BYTES + 1] = '\0';
    typed.content_type = longest;
    expect_refusal(client, "", empty, NULL, SEMEL_INVALID);
    expect_refusal(client, NULL, empty, NULL, SEMEL_INVALID);
    expect_refusal(client, longest, empty, NULL, SEMEL_INVALID);
    expect_refusal(client, "echo", semel_bytes(NULL, 1), NULL, SEMEL_INVALID);
    expect_refusal(client, "echo", empty, &far, SEMEL_INVALID);
    expect_refusal(client, "echo", empty, &typed, SEMEL_INVALID);
    expect_refusal(NULL, "echo", empty, NULL, SEMEL_INVALID);
    assert_int_equal(semel_client_start(client, "echo", empty, NULL, NULL, NULL, NULL),
                     SEMEL_INVALID);
    longest[SEMEL_METHOD_BYTES] = '\0';
    assert_int_equal(semel_client_call(client, longest, empty, NULL, NULL), SEMEL_VALUE);
    close_client(client);
    kit_script_stop(script);
}

/* Keys are names: as long as they may be, and without control characters. */
static void test_invalid_keys(void **state)
{
    char key[SEMEL_KEY_BYTES + 2];
    struct semel_call_options options = { .key = key };
    struct semel_client *client = open_client("unix:/tmp/semel-test-nobody/is-here", NULL);
    struct semel_bytes empty = semel_bytes(NULL, 0);
    struct seen seen = { .times = 0 };

    (void)state;
    memset(key, 'k', sizeof key);
    key[SEMEL_KEY_BYTES + 1] = '\0';
    expect_refusal(client, "echo", empty, &options, SEMEL_INVALID);
    key[SEMEL_KEY_BYTES] = '\0';
    key[7] = '\n';
    expect_refusal(client, "echo", empty, &options, SEMEL_INVALID);
    key[7] = '\x7f';
    expect_refusal(client, "echo", empty, &options, SEMEL_INVALID);
    key[7] = '\xe4';
    assert_int_equal(semel_client_start(client, "echo", empty, &options, note, &seen, NULL),
                     SEMEL_OK);
    close_client(client);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_NOT_EXECUTED);
    semel_result_clear(&seen.taken);
}

static void test_too_large_for_server(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    char *body = calloc(1, SEMEL_BODY_BYTES + 1);
    struct semel_result result;
    struct seen seen = { 0 };

    (void)state;
    assert_int_equal(
        semel_client_call(client, "echo", semel_bytes(body, SEMEL_BODY_BYTES + 1), NULL, &result),
        SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_TOO_LARGE);
    assert_non_null(strstr(result.text, "too large (the server takes at most "));
    semel_result_clear(&result);
    assert_int_equal(semel_client_start(client, "echo", semel_bytes(body, SEMEL_BODY_BYTES + 1),
                                        NULL, note, &seen, NULL),
                     SEMEL_OK);
    wait_seen(&seen);
    assert_int_equal(seen.status, SEMEL_TOO_LARGE);
    semel_result_clear(&seen.taken);
    check_echo(client, "small");
    free(body);
    close_client(client);
    kit_script_stop(script);
}

static void count_any(struct semel_result *result, void *user)
{
    (void)result;
    atomic_fetch_add((atomic_int *)user, 1);
}

static void test_overloaded(void **state)
{
    struct kit_place place;
    struct semel_client_options options = { .pending_calls = 3 };
    struct semel_client *client;
    struct semel_result result;
    atomic_int completed = 0;

    (void)state;
    kit_place_make(&place);
    client = open_client(place.address, &options);
    for (int i = 0; i < 3; i++)
        assert_int_equal(semel_client_start(client, "x", semel_bytes(NULL, 0), NULL, count_any,
                                            &completed, NULL),
                         SEMEL_OK);
    assert_int_equal(
        semel_client_start(client, "x", semel_bytes(NULL, 0), NULL, count_any, &completed, NULL),
        SEMEL_OVERLOADED);
    assert_int_equal(semel_client_call(client, "x", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_OVERLOADED);
    semel_result_clear(&result);
    close_client(client);
    assert_int_equal(completed, 3);
    kit_place_remove(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("M1 interleaving", test_interleaving),
        TEST("M12 per-call deadline", test_deadline),
        TEST("M12 per-call deadline: a window of abandoned calls", test_abandoned),
        TEST("cancel: the server's verdict", test_cancel),
        TEST("cancel before it was sent", test_cancel_queued),
        TEST("a handle is there before its callback", test_handle_first),
        TEST("a blocking call in a callback is refused", test_in_callback),
        TEST("invalid arguments", test_invalid),
        TEST("invalid keys", test_invalid_keys),
        TEST("a body larger than the server takes", test_too_large_for_server),
        TEST("pending calls are bounded", test_overloaded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
