/* SPDX-License-Identifier: MIT */
/* Completions: what the server said, to whoever waits, exactly once. */
#include "client_kit.h"

/* --- verdicts --------------------------------------------------------------------------- */

/* "fail", "text": what the server says reaches the caller. */
static void play_verdicts(struct kit_script *script, void *arg)
{
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;

    (void)arg;
    if (!kit_script_meet(script))
        return;
    while (kit_script_frame(script, &frame)) {
        struct sml_reply_frame reply = {
            .verdict = { .outcome = SEMEL_FAILURE,
                         .status = SEMEL_FAILED,
                         .code = -7,
                         .text = semel_bytes_text("it would not"),
                         .detail = semel_bytes("\0\1\2", 3),
                         .trace = semel_bytes_text("at line 3") },
        };
        if (frame.type != SML_CALL)
            continue;
        if (frame.u.call.method.size == 4 && memcmp(frame.u.call.method.data, "none", 4) == 0)
            reply.verdict = (struct sml_verdict){ .outcome = SEMEL_NOT_EXECUTED,
                                                  .status = SEMEL_NO_METHOD,
                                                  .text = semel_bytes_text("nobody\nhere") };
        if (!kit_script_send(script, out, sml_encode_reply(out, frame.xid, &reply)))
            return;
    }
}

static void check_failure(const struct semel_result *result, const char *address)
{
    assert_int_equal(result->outcome, SEMEL_FAILURE);
    assert_int_equal(result->status, SEMEL_FAILED);
    assert_int_equal(result->code, -7);
    assert_string_equal(result->text, "it would not");
    assert_int_equal(result->detail.size, 3);
    assert_memory_equal(result->detail.data, "\0\1\2", 3);
    assert_string_equal(result->trace, "at line 3");
    assert_string_equal(result->method, "fail");
    assert_string_equal(result->peer, address);
    assert_int_not_equal(result->call, 0);
}

static void test_verdicts(void **state)
{
    struct kit_script *script = kit_script_start(play_verdicts, NULL);
    const char *address = kit_script_address(script);
    struct semel_client *client = open_client(address, NULL);
    char message[512], expected[512];
    struct semel_result result;
    struct seen seen = { 0 };

    (void)state;
    assert_int_equal(semel_client_call(client, "fail", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_FAILURE);
    check_failure(&result, address);
    semel_result_message(&result, message, sizeof message);
    snprintf(expected, sizeof expected, "fail at %s, call 1: failure: it would not", address);
    assert_string_equal(message, expected);
    assert_int_equal(semel_result_message(&result, message, 9), strlen(expected));
    assert_string_equal(message, "fail at ");
    semel_result_clear(&result);
    semel_result_clear(&result);
    assert_int_equal(
        semel_client_start(client, "fail", semel_bytes(NULL, 0), NULL, note, &seen, NULL),
        SEMEL_OK);
    wait_seen(&seen);
    check_failure(&seen.taken, address);
    semel_result_clear(&seen.taken);
    assert_int_equal(semel_client_call(client, "none", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_NO_METHOD);
    snprintf(expected, sizeof expected, "call 3 of 'none' at %s: no such method: nobody\\x0ahere",
             address);
    assert_string_equal(result.text, expected);
    semel_result_message(&result, message, sizeof message);
    snprintf(expected, sizeof expected,
             "none at %s, call 3: not executed: no such method: nobody\\x0ahere", address);
    assert_string_equal(message, expected);
    semel_result_clear(&result);
    close_client(client);
    kit_script_stop(script);
}

/* --- exactly once ------------------------------------------------------------------------ */

#define CUT_CALLS 3000

struct ledger {
    struct semel_client *client;
    atomic_int done, wrong, left;
    atomic_uchar times[CUT_CALLS];
};

struct entry {
    struct ledger *ledger;
    int number;
};

static void book(struct semel_result *result, void *user)
{
    struct entry *entry = user;
    struct ledger *ledger = entry->ledger;

    if (result->outcome != SEMEL_VALUE || result->body.size != sizeof entry->number ||
        memcmp(result->body.data, &entry->number, sizeof entry->number) != 0)
        atomic_fetch_add(&ledger->wrong, 1);
    atomic_fetch_add(&ledger->times[entry->number], 1);
    atomic_fetch_add(&ledger->done, 1);
}

static bool all_booked(void *arg)
{
    return atomic_load(&((struct ledger *)arg)->done) == CUT_CALLS;
}

/* While the connection is cut again and again, each callback runs exactly once, and blocked
 * callers get their own answers. (The script answers a repeated call again: effects are the
 * server's part.) */
static void test_cuts(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct kit_relay *relay = kit_relay_start(kit_script_address(script) + 5, 20, 7);
    struct semel_client_options options = { .backoff_min_ms = 1, .backoff_max_ms = 5 };
    struct semel_client *client = open_client(kit_relay_address(relay), &options);
    struct ledger *ledger = calloc(1, sizeof *ledger);
    struct entry *entries = calloc(CUT_CALLS, sizeof *entries);

    (void)state;
    for (int i = 0; i < CUT_CALLS; i++) {
        entries[i] = (struct entry){ ledger, i };
        assert_int_equal(semel_client_start(client, "echo", semel_bytes(&i, sizeof i), NULL, book,
                                            &entries[i], NULL),
                         SEMEL_OK);
        if (i % 10 == 0)
            check_echo(client, "blocked");
        if (i % 100 == 0)
            kit_sleep_ms(5);
    }
    assert_true(kit_eventually(all_booked, ledger, 60));
    assert_int_equal(ledger->wrong, 0);
    for (int i = 0; i < CUT_CALLS; i++)
        assert_int_equal(ledger->times[i], 1);
    assert_true(kit_relay_cuts(relay) > 3);
    close_client(client);
    kit_relay_stop(relay);
    kit_script_stop(script);
    free(entries);
    free(ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("M3 remote error reaches the caller", test_verdicts),
        TEST("callbacks exactly once under cuts", test_cuts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
