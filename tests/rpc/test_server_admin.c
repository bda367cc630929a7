/* SPDX-License-Identifier: MIT */
/* The reserved methods: who answers them and when, who may call them, and what cancelling does. */
#include "server_kit.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "admin_kit.h"

static const char *const reserved[] = { "semel.methods", "semel.describe", "semel.counters",
                                        "semel.calls", "semel.cancel" };

static void names_are_refused_at_export(void **state)
{
    struct rig *rig = rig_make(NULL);
    const char *const others[] = { "semel.", "semel.x", "semel.methods.more" };

    (void)state;
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        assert_int_equal(semel_server_export(rig->server, reserved[i], echo, NULL, NULL),
                         SEMEL_INVALID);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(semel_server_export(rig->server, others[i], echo, NULL, NULL),
                         SEMEL_INVALID);
    rig_export(rig, "semel", echo, NULL, NULL);
    rig_export(rig, "semelx.y", echo, NULL, NULL);
    rig_end(rig);
}

static void methods_and_what_they_are(void **state)
{
    struct semel_method_options options = {
        .kind = SEMEL_IDEMPOTENT,
        .limit = 3,
        .max_run_ms = 250,
        .gives_items = true,
        .describe = "Says \"it\" again.",
    };
    struct rig *rig = rig_make(NULL);
    char *text;

    (void)state;
    rig_export(rig, "echo", echo, NULL, &options);
    rig_export(rig, "plain", echo, NULL, NULL);
    rig_go(rig);
    text = ask(rig->client, "semel.methods", "");
    expect_words(text, "{\"name\":\"echo\",\"kind\":\"idempotent\",\"limit\":3,\"max_run_ms\":250,"
                       "\"takes_items\":false,\"gives_items\":true,\"reserved\":false,"
                       "\"describe\":\"Says \\u0022it\\u0022 again.\"}");
    expect_words(text, "{\"name\":\"plain\",\"kind\":\"once\",\"on_crash\":\"unknown\","
                       "\"takes_items\":false,\"gives_items\":false,\"reserved\":false}");
    expect_words(text, "\"left_off\":0");
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        expect_words(text, reserved[i]);
    free(text);
    text = ask(rig->client, "semel.describe", "plain");
    assert_string_equal(text, "{\"name\":\"plain\",\"kind\":\"once\",\"on_crash\":\"unknown\","
                              "\"takes_items\":false,\"gives_items\":false,"
                              "\"reserved\":false}");
    free(text);
    text = ask(rig->client, "semel.describe", "semel.reverse");
    expect_words(text, "\"takes_items\":true,\"gives_items\":true,\"reserved\":true");
    free(text);
    text = ask(rig->client, "semel.describe", "semel.cancel");
    expect_words(text, "\"reserved\":true,\"describe\":\"");
    free(text);
    ask_in_vain(rig->client, "semel.describe", "none", SEMEL_NO_METHOD, "no such method");
    ask_in_vain(rig->client, "semel.describe", "", SEMEL_NO_METHOD, "no such method");
    rig_end(rig);
}

static void a_description_is_copied_and_bounded(void **state)
{
    char *long_one = malloc(SEMEL_DESCRIBE_BYTES + 2);
    struct semel_method_options options = { .describe = long_one };
    struct rig *rig = rig_make(NULL);
    char *text;

    (void)state;
    assert_non_null(long_one);
    memset(long_one, 'd', SEMEL_DESCRIBE_BYTES + 1);
    long_one[SEMEL_DESCRIBE_BYTES + 1] = '\0';
    assert_int_equal(semel_server_export(rig->server, "echo", echo, NULL, &options), SEMEL_INVALID);
    long_one[SEMEL_DESCRIBE_BYTES] = '\0';
    rig_export(rig, "echo", echo, NULL, &options);
    free(long_one);
    rig_go(rig);
    text = ask(rig->client, "semel.describe", "echo");
    assert_true(strlen(text) > SEMEL_DESCRIBE_BYTES);
    expect_words(text, "ddd\"}");
    free(text);
    rig_end(rig);
}

/* All workers taken, the backlog full. */
static void nothing_holds_them_up(void **state)
{
    struct semel_server_options options = { .workers = 1, .backlog = 1 };
    struct rig *rig = rig_make(&options);
    struct semel_client *other;
    struct seen first, second;
    struct gate gate;
    char *text;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_go(rig);
    start_call(rig->client, "gated", "1", NULL, &first, NULL);
    wait_inside(&gate, 1);
    start_call(rig->client, "gated", "2", NULL, &second, NULL);
    while (rig_counters(rig).calls_waiting < 1)
        kit_sleep_ms(1);
    other = rig_connect(rig, NULL);
    for (int i = 0; i < 3; i++) {
        text = ask(i > 0 ? other : rig->client, "semel.counters", "");
        assert_int_equal(number_of(text, NULL, "calls_running"), 1);
        assert_int_equal(number_of(text, NULL, "calls_waiting"), 1);
        free(text);
    }
    assert_int_equal(gate_inside(&gate), 1);
    gate_open(&gate, true);
    wait_seen(&first);
    wait_seen(&second);
    semel_result_clear(&first.result);
    semel_result_clear(&second.result);
    assert_int_equal(semel_client_destroy(other), SEMEL_OK);
    rig_end(rig);
    gate_fini(&gate);
}

static void switched_off(void **state)
{
    struct semel_server_options options = { .inspection = SEMEL_INSPECT_NONE };
    struct semel_server_options bad = { .inspection = (enum semel_inspection)3 };
    struct rig *rig = rig_make(&options);
    struct semel_server *server = NULL;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        expect_gone(rig->client, reserved[i], SEMEL_NOT_EXECUTED, SEMEL_NO_METHOD);
    assert_int_equal(semel_server_export(rig->server, "semel.calls", echo, NULL, NULL),
                     SEMEL_INVALID);
    expect_echo(rig->client, "x");
    rig_end(rig);
    assert_int_equal(semel_server_create(&server, &bad), SEMEL_INVALID);
}

/* --- who may --------------------------------------------------------------------------------- */

/* In a child with another user id: what becomes of two calls. Its exit status has them. */
static int as_another_user(const char *address)
{
    struct semel_client *client = NULL;
    enum semel_status looks, cancels;

    if (setgid(65534) != 0 || setuid(65534) != 0 ||
        semel_client_create(&client, address, NULL) != SEMEL_OK)
        return 100;
    for (int i = 0; i < 2; i++) {
        struct semel_result result = { 0 };

        (void)semel_client_call(client, i == 0 ? "semel.calls" : "semel.cancel",
                                semel_bytes_text("0000.1"), NULL, &result);
        if (i == 0)
            looks = result.status;
        else if (result.outcome != SEMEL_NOT_EXECUTED)
            return 101;
        else
            cancels = result.status;
        semel_result_clear(&result);
    }
    return (looks == SEMEL_OK       ? 1
            : looks == SEMEL_DENIED ? 2
                                    : 4) +
           (cancels == SEMEL_DENIED ? 8 : 16);
}

/* The child begins before there are threads, and before the server knows who it is. */
static void check_another_user(enum semel_inspection inspection, int looks)
{
    struct semel_server_options options = { .inspection = inspection };
    struct rig *rig;
    char address[200];
    int ready[2], status;
    pid_t child;

    assert_int_equal(pipe(ready), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        ssize_t got = read(ready[0], address, sizeof address);

        _exit(got > 0 ? as_another_user(address) : 102);
    }
    rig = rig_make(&options);
    rig_go(rig);
    assert_int_equal(chmod(rig->place.directory, 0755), 0);
    assert_int_equal(chmod(rig->place.path, 0777), 0);
    (void)snprintf(address, sizeof address, "%s", rig->place.address);
    assert_int_equal(write(ready[1], address, sizeof address), sizeof address);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, (looks + 8) << 8);
    /* Its own user may. */
    ask_in_vain(rig->client, "semel.cancel", "0000.1", SEMEL_INVALID, "no such call");
    free(ask(rig->client, "semel.calls", ""));
    close(ready[0]);
    close(ready[1]);
    rig_end(rig);
}

static void other_users_do_not_cancel(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    check_another_user(SEMEL_INSPECT_ALL, 1);
}

static void other_users_do_not_look_if_so_said(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    check_another_user(SEMEL_INSPECT_OWN, 2);
}

/* Nobody knows who is at the other end of TCP. */
static void strangers_do_not_cancel(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_client *stranger = NULL;
    struct semel_result result;

    (void)state;
    rig_go(rig);
    assert_int_equal(semel_server_listen(rig->server, "tcp:127.0.0.1:0"), SEMEL_OK);
    assert_int_equal(semel_client_create(&stranger, semel_server_address(rig->server), NULL),
                     SEMEL_OK);
    free(ask(stranger, "semel.counters", ""));
    result = expect(stranger, "semel.cancel", "0000.1", NULL, SEMEL_NOT_EXECUTED, SEMEL_DENIED);
    expect_words(result.text, "for the user whose server this is");
    semel_result_clear(&result);
    assert_int_equal(semel_client_destroy(stranger), SEMEL_OK);
    rig_end(rig);
}

/* --- cancelling ------------------------------------------------------------------------------ */

static void go_in(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->inside++;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

/* Ends as the gate says, or when it is asked to stop. */
static void patient(struct semel_request *request, void *user)
{
    struct gate *gate = user;

    go_in(gate);
    while (!semel_request_cancelled(request) && !gate_is_open(gate))
        kit_sleep_ms(1);
    REQUIRE(semel_request_fail(request, semel_request_cancelled(request) ? 7 : 8, "over") ==
            SEMEL_OK);
}

static void on_cancel_told(struct semel_request *request, void *user)
{
    (void)request;
    atomic_fetch_add((atomic_int *)user, 1);
}

static atomic_int told;

/* The callback is called after the request says that it is cancelled, and never after its end. */
static void told_patient(struct semel_request *request, void *user)
{
    semel_request_on_cancel(request, on_cancel_told, &told);
    go_in(user);
    while (atomic_load(&told) == 0)
        kit_sleep_ms(1);
    REQUIRE(semel_request_cancelled(request));
    REQUIRE(semel_request_fail(request, 7, "over") == SEMEL_OK);
}

static void a_running_call_is_asked_to_stop(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct seen seen;
    struct gate gate;
    char *text, id[64];

    (void)state;
    gate_init(&gate);
    rig_export(rig, "told", told_patient, &gate, NULL);
    rig_go(rig);
    start_call(rig->client, "told", "", NULL, &seen, NULL);
    wait_inside(&gate, 1);
    text = ask(rig->client, "semel.calls", "");
    id_of(text, "\"told\"", id);
    free(text);
    text = ask(rig->client, "semel.cancel", id);
    expect_words(text, "\"became\":\"asked to stop\"}");
    free(text);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_FAILURE);
    assert_int_equal(seen.result.code, 7);
    assert_int_equal(atomic_load(&told), 1);
    semel_result_clear(&seen.result);
    rig_end(rig);
    gate_fini(&gate);
}

static void a_waiting_call_is_not_executed(void **state)
{
    struct semel_server_options options = { .workers = 1 };
    struct rig *rig = rig_make(&options);
    struct seen first, second;
    struct gate gate;
    char *text, id[64];

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_export(rig, "never", gated, &gate, NULL);
    rig_go(rig);
    start_call(rig->client, "gated", "", NULL, &first, NULL);
    wait_inside(&gate, 1);
    start_call(rig->client, "never", "", NULL, &second, NULL);
    while (rig_counters(rig).calls_waiting < 1)
        kit_sleep_ms(1);
    text = ask(rig->client, "semel.calls", "");
    id_of(text, "\"never\"", id);
    free(text);
    (void)strcat(id, " force");
    text = ask(rig->client, "semel.cancel", id);
    expect_words(text, "\"became\":\"not executed\",\"forced\":true}");
    free(text);
    wait_seen(&second);
    assert_int_equal(second.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(second.status, SEMEL_CANCELLED);
    semel_result_clear(&second.result);
    gate_open(&gate, true);
    wait_seen(&first);
    assert_int_equal(first.outcome, SEMEL_VALUE);
    assert_int_equal(gate.passed, 1);
    semel_result_clear(&first.result);
    rig_end(rig);
    gate_fini(&gate);
}

static void a_handler_in_this_process_is_not_forced(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct seen seen;
    struct gate gate;
    char *text, id[80];

    (void)state;
    gate_init(&gate);
    rig_export(rig, "patient", patient, &gate, NULL);
    rig_go(rig);
    start_call(rig->client, "patient", "", NULL, &seen, NULL);
    wait_inside(&gate, 1);
    text = ask(rig->client, "semel.calls", "");
    id_of(text, "\"patient\"", id);
    free(text);
    (void)strcat(id, " force");
    text = ask(rig->client, "semel.cancel", id);
    expect_words(text, "\"became\":\"asked to stop\",\"forced\":false,\"why\":\"its handler runs "
                       "inside the server's process\"}");
    free(text);
    wait_seen(&seen);
    assert_int_equal(seen.result.code, 7);
    semel_result_clear(&seen.result);
    rig_end(rig);
    gate_fini(&gate);
}

static void what_cannot_be_cancelled(void **state)
{
    struct rig *rig = rig_make(NULL);
    const char *const malformed[] = {
        "",       "x",        "12345678",    "123.1",   "12345678.",
        "ABCD.1", "1234.1 x", "1234.1 kill", "1234.-1", "1234.1 force "
    };

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        ask_in_vain(rig->client, "semel.cancel", malformed[i], SEMEL_INVALID, "SESSION.CALL");
    ask_in_vain(rig->client, "semel.cancel", "00000000000000000000000000000000.1", SEMEL_INVALID,
                "no such call");
    ask_in_vain(rig->client, "semel.cancel", "000000000000000000000000000000000.1", SEMEL_INVALID,
                "SESSION.CALL");
    rig_end(rig);
}

/* --- the end --------------------------------------------------------------------------------- */

/* Reserved calls under way do not keep a server from ending, nor do they outlive it. */
static void they_end_with_the_server(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct rig *rig = rig_make(NULL);
        struct seen seen[16];

        rig_go(rig);
        for (size_t i = 0; i < 16; i++)
            start_call(rig->client, i % 2 ? "semel.counters" : "semel.calls", "", NULL, &seen[i],
                       NULL);
        if (round % 2)
            kit_sleep_ms(1);
        semel_server_stop(rig->server);
        assert_int_equal(semel_server_wait(rig->server, 60000, NULL), SEMEL_OK);
        semel_client_stop(rig->client);
        for (size_t i = 0; i < 16; i++) {
            wait_seen(&seen[i]);
            semel_result_clear(&seen[i].result);
        }
        rig_end(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("reserved names are refused at export", names_are_refused_at_export),
        TEST("methods are listed and described", methods_and_what_they_are),
        TEST("a description is copied, and has a bound", a_description_is_copied_and_bounded),
        TEST("reserved methods are answered when all workers are busy", nothing_holds_them_up),
        TEST("reserved methods can be switched off", switched_off),
        TEST("another user may look, and not cancel", other_users_do_not_cancel),
        TEST("another user may not look if the server says so", other_users_do_not_look_if_so_said),
        TEST("a stranger over TCP may not cancel", strangers_do_not_cancel),
        TEST("a running call that is cancelled at the server is asked to stop",
             a_running_call_is_asked_to_stop),
        TEST("a waiting call that is cancelled at the server is not executed",
             a_waiting_call_is_not_executed),
        TEST("a handler in the server's process cannot be forced to stop",
             a_handler_in_this_process_is_not_forced),
        TEST("what is no call is not cancelled", what_cannot_be_cancelled),
        TEST("reserved calls end with their server", they_end_with_the_server),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
