/* SPDX-License-Identifier: MIT */
#include "rpc/server_kit.h"

#include "base/le.h"
#include "kit/memory_store.h"
#include "rpc/exchange_kit.h"

/* Memory for so many bytes and more is refused; 0: none is. */
static _Atomic(size_t) refuse_from;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

static bool is_refused(size_t bytes)
{
    size_t from = atomic_load(&refuse_from);

    return from > 0 && bytes >= from && bytes < from + 16384; /* blocks to read into are larger */
}

void *__wrap_malloc(size_t bytes)
{
    return is_refused(bytes) ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return is_refused(count * bytes) ? NULL : __real_calloc(count, bytes);
}

/* --- bodies --------------------------------------------------------------------------------- */

static size_t put_wait(uint8_t *at, const char *words, uint32_t need, uint32_t timeout_ms,
                       bool leave)
{
    struct semel_bytes ids[16];
    size_t count = kit_ids(words, ids), used = 16;

    memset(at, 0, used);
    sml_store32(at, timeout_ms);
    sml_store32(at + 4, need);
    at[8] = leave;
    sml_store32(at + 12, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        at[used++] = (uint8_t)ids[i].size;
        memcpy(at + used, ids[i].data, ids[i].size);
        used += ids[i].size;
    }
    return used;
}

/* A reply in words, "OK 1 -". */
static void read_reply(struct semel_bytes body, char *text, size_t room)
{
    const uint8_t *at = body.data;
    uint32_t count = sml_load32(at + 4);
    size_t used =
        (size_t)snprintf(text, room, "%s", semel_status_name((enum semel_status)sml_load32(at)));

    at += 8;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t size = sml_load32(at);

        at += 4;
        used +=
            (size_t)snprintf(text + used, room - used, " %.*s", size == UINT32_MAX ? 1 : (int)size,
                             size == UINT32_MAX ? "-" : (const char *)at);
        at += size == UINT32_MAX ? 0 : size;
    }
    assert_ptr_equal(at, (const uint8_t *)body.data + body.size);
}

static void expect_reply(const struct semel_result *result, const char *words)
{
    char text[256] = "";

    if (result->outcome == SEMEL_VALUE)
        read_reply(result->body, text, sizeof text);
    else
        (void)snprintf(text, sizeof text, "%s %d", semel_outcome_text(result->outcome),
                       result->code);
    assert_string_equal(text, words);
}

static void remote_wait(struct semel_client *client, const char *ids, uint32_t timeout_ms,
                        bool leave, const char *words)
{
    struct semel_result result = { 0 };
    uint8_t body[256];
    size_t size = put_wait(body, ids, 0, timeout_ms, leave);

    (void)semel_client_call(client, "semel.wait", semel_bytes(body, size), NULL, &result);
    expect_reply(&result, words);
    semel_result_clear(&result);
}

static void remote_start(struct semel_client *client, const char *ids, uint32_t timeout_ms,
                         struct seen *seen, struct semel_call **out_call)
{
    uint8_t body[256];
    size_t size = put_wait(body, ids, 0, timeout_ms, false);

    memset(seen, 0, sizeof *seen);
    assert_int_equal(semel_client_start(client, "semel.wait", semel_bytes(body, size), NULL, note,
                                        seen, out_call),
                     SEMEL_OK);
}

static void expect_seen(struct seen *seen, const char *words)
{
    wait_seen(seen);
    expect_reply(&seen->result, words);
    semel_result_clear(&seen->result);
}

static void remote_trigger(struct semel_client *client, const char *id, const char *data,
                           enum semel_outcome outcome)
{
    struct semel_result result = { 0 };
    char body[256];
    int size = snprintf(body, sizeof body, "%c%s%s", (char)strlen(id), id, data);

    (void)semel_client_call(client, "semel.trigger", semel_bytes(body, (size_t)size), NULL,
                            &result);
    assert_int_equal(result.outcome, outcome);
    semel_result_clear(&result);
}

/* --- a server with an exchange ---------------------------------------------------------------- */

static struct semel_exchange *exchange;

static struct rig *make(const struct semel_server_options *options)
{
    struct rig *rig = rig_make(options);

    exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    assert_int_equal(semel_server_export_exchange(rig->server, exchange), SEMEL_OK);
    return rig;
}

static void end(struct rig *rig)
{
    rig_end(rig);
    assert_int_equal(kit_counters(exchange).held, 0);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

static bool nothing_held(void *arg)
{
    (void)arg;
    return kit_counters(exchange).held == 0;
}

static void until_nothing_held(void)
{
    assert_true(kit_eventually(nothing_held, NULL, 60));
}

static void both_ways(void **state)
{
    struct rig *rig = make(NULL);
    struct seen seen;

    (void)state;
    rig_go(rig);
    remote_trigger(rig->client, "a", "1", SEMEL_VALUE);
    kit_wait(exchange, "a", 0, "OK a=1");
    kit_trigger(exchange, "b", "2");
    remote_wait(rig->client, "b", 0, false, "OK 2");
    remote_start(rig->client, "c d c", 60000, &seen, NULL);
    kit_until_waiting(exchange, 1);
    remote_trigger(rig->client, "d", "3", SEMEL_VALUE);
    remote_trigger(rig->client, "c", "4", SEMEL_VALUE);
    expect_seen(&seen, "OK 4 3 4");
    remote_wait(rig->client, "", 0, false, "OK");
    until_nothing_held();
    assert_int_equal(kit_counters(exchange).events, 0);
    assert_int_equal(kit_counters(exchange).returned, 0);
    end(rig);
}

static void unmet(void **state)
{
    struct rig *rig = make(NULL);

    (void)state;
    rig_go(rig);
    kit_trigger(exchange, "a", "1");
    remote_wait(rig->client, "a b", 10, true, "DEADLINE 1 -");
    assert_int_equal(kit_counters(exchange).events, 1);
    remote_wait(rig->client, "a b", 10, false, "DEADLINE 1 -");
    until_nothing_held();
    assert_int_equal(kit_counters(exchange).events, 0);
    end(rig);
}

/* One worker is enough for any number of them. */
static void no_threads(void **state)
{
    enum { MANY = 300 };
    static struct seen seen[MANY];
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    char id[16], expected[16];
    struct rig *rig;
    int threads;

    (void)state;
    options.workers = 1;
    rig = make(&options);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "before");
    remote_wait(rig->client, "x", 1, false, "DEADLINE -"); /* the exchange's own thread is there */
    threads = kit_count_threads();
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(id, sizeof id, "%d", i);
        remote_start(rig->client, id, 60000, &seen[i], NULL);
    }
    kit_until_waiting(exchange, MANY);
    assert_int_equal(kit_count_threads(), threads);
    expect_echo(rig->client, "meanwhile");
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(id, sizeof id, "%d", i);
        kit_trigger(exchange, id, id);
    }
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(expected, sizeof expected, "OK %d", i);
        expect_seen(&seen[i], expected);
    }
    end(rig);
}

/* The connection is cut again and again; each event arrives, and once. */
static void cut_connections(void **state)
{
    enum { MANY = 400, AT_ONCE = 8 };
    struct rig *rig = make(NULL);
    struct kit_relay *relay;
    struct semel_client *client;
    struct seen seen[AT_ONCE];
    char id[16], expected[32];

    (void)state;
    rig_serve(rig);
    relay = kit_relay_start(rig->place.path, 5, 11);
    assert_int_equal(semel_client_create(&client, kit_relay_address(relay), NULL), SEMEL_OK);
    for (int round = 0; round < MANY / AT_ONCE; round++) {
        for (int i = 0; i < AT_ONCE; i++) {
            (void)snprintf(id, sizeof id, "%d", i);
            remote_start(client, id, 60000, &seen[i], NULL);
        }
        if (round % 2)
            kit_until_waiting(exchange, AT_ONCE);
        for (int i = 0; i < AT_ONCE; i++) {
            (void)snprintf(id, sizeof id, "%d", i);
            (void)snprintf(expected, sizeof expected, "%d", round * AT_ONCE + i);
            kit_trigger(exchange, id, expected);
        }
        for (int i = 0; i < AT_ONCE; i++) {
            (void)snprintf(expected, sizeof expected, "OK %d", round * AT_ONCE + i);
            expect_seen(&seen[i], expected);
        }
    }
    assert_true(kit_relay_cuts(relay) > 3);
    until_nothing_held();
    assert_int_equal(kit_counters(exchange).events, 0);
    assert_int_equal(kit_counters(exchange).returned, 0);
    assert_int_equal(kit_counters(exchange).overwritten, 0);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    kit_relay_stop(relay);
    end(rig);
}

/* The reply never gets through, and the session expires: the event is there again, at the head. */
static void session_expires(void **state)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct kit_relay *relay;
    struct semel_client *client;
    struct seen seen;
    struct rig *rig;

    (void)state;
    options.idle_session_ms = 50;
    rig = make(&options);
    rig_serve(rig);
    relay = kit_relay_start(rig->place.path, 0, 1);
    assert_int_equal(semel_client_create(&client, kit_relay_address(relay), NULL), SEMEL_OK);
    remote_start(client, "a", 60000, &seen, NULL);
    kit_until_waiting(exchange, 1);
    kit_relay_mute(relay, true);
    kit_trigger(exchange, "a", "1");
    assert_int_equal(kit_counters(exchange).held, 1);
    kit_trigger(exchange, "a", "2");
    kit_relay_stop(relay); /* and it does not come back */
    until_nothing_held();
    assert_int_equal(kit_counters(exchange).returned, 1);
    kit_wait(exchange, "a", 0, "OK a=1");
    kit_wait(exchange, "a", 0, "OK a=2");
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    semel_result_clear(&seen.result);
    end(rig);
}

/* The server is gone, and its sessions with it: nobody will tell the reply any more. */
static void server_ends(void **state)
{
    struct rig *rig = make(NULL);
    struct kit_relay *relay;
    struct semel_client *client;
    struct seen seen;

    (void)state;
    rig_go(rig);
    relay = kit_relay_start(rig->place.path, 0, 1);
    assert_int_equal(semel_client_create(&client, kit_relay_address(relay), NULL), SEMEL_OK);
    remote_start(client, "a", 60000, &seen, NULL);
    kit_until_waiting(exchange, 1);
    kit_relay_mute(relay, true);
    kit_trigger(exchange, "a", "1");
    assert_int_equal(kit_counters(exchange).held, 1);
    rig_end(rig);
    assert_int_equal(kit_counters(exchange).returned, 1);
    kit_wait(exchange, "a", 0, "OK a=1");
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
    kit_relay_stop(relay);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    semel_result_clear(&seen.result);
}

/* What comes back goes to whoever waits for it, without another trigger. */
static void return_meets(void **state)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct kit_relay *relay;
    struct semel_client *client;
    struct seen lost, next;
    struct rig *rig;

    (void)state;
    options.idle_session_ms = 50;
    rig = make(&options);
    rig_go(rig);
    relay = kit_relay_start(rig->place.path, 0, 1);
    assert_int_equal(semel_client_create(&client, kit_relay_address(relay), NULL), SEMEL_OK);
    remote_start(client, "a", 60000, &lost, NULL);
    kit_until_waiting(exchange, 1);
    kit_relay_mute(relay, true);
    kit_trigger(exchange, "a", "1");
    remote_start(rig->client, "a", 60000, &next, NULL);
    kit_until_waiting(exchange, 1);
    kit_relay_stop(relay);
    expect_seen(&next, "OK 1");
    until_nothing_held();
    assert_int_equal(kit_counters(exchange).returned, 1);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    semel_result_clear(&lost.result);
    end(rig);
}

/* A client that has its event may go at once. */
static void accepted_by_leaving(void **state)
{
    struct rig *rig = make(NULL);

    (void)state;
    rig_serve(rig);
    for (int i = 0; i < 30; i++) {
        struct semel_client *client = rig_connect(rig, NULL);

        kit_trigger(exchange, "a", "1");
        remote_wait(client, "a", 60000, false, "OK 1");
        assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    }
    until_nothing_held();
    assert_int_equal(kit_counters(exchange).returned, 0);
    assert_int_equal(kit_counters(exchange).events, 0);
    end(rig);
}

static void cancelled(void **state)
{
    struct rig *rig = make(NULL);
    struct semel_call_options late = { .deadline_ms = 30 };
    struct semel_result result = { 0 };
    struct semel_call *call;
    struct seen seen;
    uint8_t body[64];
    size_t size;

    (void)state;
    rig_go(rig);
    remote_start(rig->client, "a b", 60000, &seen, &call);
    kit_until_waiting(exchange, 1);
    kit_trigger(exchange, "a", "1");
    semel_call_cancel(call);
    expect_seen(&seen, "failure 46"); /* CANCELLED */
    semel_call_unref(call);
    assert_int_equal(kit_counters(exchange).waits, 0);
    assert_int_equal(kit_counters(exchange).cancelled, 1);
    kit_wait(exchange, "a", 0, "OK a=1"); /* left */

    size = put_wait(body, "a b", 0, 60000, false); /* the call's own deadline */
    (void)semel_client_call(rig->client, "semel.wait", semel_bytes(body, size), &late, &result);
    semel_result_clear(&result);
    kit_until_waiting(exchange, 0);
    end(rig);
}

static void server_stops(void **state)
{
    struct rig *rig = make(NULL);
    struct seen seen[20];

    (void)state;
    rig_go(rig);
    for (int i = 0; i < 20; i++)
        remote_start(rig->client, "a", 60000, &seen[i], NULL);
    kit_until_waiting(exchange, 20);
    semel_server_stop(rig->server);
    kit_until_waiting(exchange, 0);
    end(rig);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(atomic_load(&seen[i].times), 1);
        semel_result_clear(&seen[i].result);
    }
}

static void exchange_closes(void **state)
{
    struct rig *rig = make(NULL);
    struct seen seen;

    (void)state;
    rig_go(rig);
    remote_start(rig->client, "a", 60000, &seen, NULL);
    kit_until_waiting(exchange, 1);
    semel_exchange_close(exchange);
    expect_seen(&seen, "failure 4"); /* STOPPED */
    remote_wait(rig->client, "a", 0, false, "failure 4");
    remote_trigger(rig->client, "a", "1", SEMEL_FAILURE);
    end(rig);
}

static void bad_bodies(void **state)
{
    struct rig *rig = make(NULL);
    struct semel_result result;
    uint8_t body[300];
    size_t size = put_wait(body, "abc de", 0, 10, false);

    (void)state;
    rig_go(rig);
    for (size_t cut = 0; cut <= size + 1; cut++) {
        if (cut == size)
            continue;
        memset(&result, 0, sizeof result);
        (void)semel_client_call(rig->client, "semel.wait", semel_bytes(body, cut), NULL, &result);
        expect_reply(&result, "failure 1"); /* INVALID */
        semel_result_clear(&result);
    }
    for (size_t at = 3; at < 16;
         at++) { /* a timeout of a day, needs, flags, counts, all too much */
        uint8_t kept = body[at];

        if (at == 3 || at >= 7) {
            body[at] = 5;
            memset(&result, 0, sizeof result);
            (void)semel_client_call(rig->client, "semel.wait", semel_bytes(body, size), NULL,
                                    &result);
            expect_reply(&result, "failure 1");
            semel_result_clear(&result);
        }
        body[at] = kept;
    }
    remote_trigger(rig->client, "", "data", SEMEL_FAILURE);
    memset(&result, 0, sizeof result);
    (void)semel_client_call(rig->client, "semel.trigger",
                            semel_bytes("\x05"
                                        "abcd",
                                        5),
                            NULL, &result);
    expect_reply(&result, "failure 1");
    semel_result_clear(&result);
    assert_int_equal(kit_counters(exchange).triggered + kit_counters(exchange).met, 0);
    end(rig);
}

static void too_large(void **state)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    static char data[2000];
    struct rig *rig;

    (void)state;
    options.body_bytes = 1000;
    rig = make(&options);
    rig_go(rig);
    memset(data, 'x', sizeof data - 1);
    kit_trigger(exchange, "a", data);
    remote_wait(rig->client, "a", 0, false, "failure 42"); /* TOO_LARGE */
    assert_int_equal(kit_counters(exchange).events, 1);    /* it went back */
    assert_int_equal(kit_counters(exchange).held, 0);
    end(rig);
}

/* What a wait, or its reply, has no memory for is left or goes back, and the caller is told. */
static void no_memory(void **state)
{
    static char data[200000]; /* of a size that nothing else has */
    struct rig *rig = make(NULL);

    (void)state;
    rig_go(rig);
    remote_trigger(rig->client, "b", "0", SEMEL_VALUE);
    memset(data, 'x', sizeof data - 1);
    kit_trigger(exchange, "a", data);
    atomic_store(&refuse_from, sizeof data);
    remote_wait(rig->client, "a", 0, false, "failure 10"); /* NO_MEMORY */
    assert_int_equal(kit_counters(exchange).returned, 1);
    remote_trigger(rig->client, "b", "1", SEMEL_VALUE);
    atomic_store(&refuse_from, 0);
    assert_int_equal(kit_counters(exchange).held, 0);
    kit_wait(exchange, "b", 0, "OK b=1");
    assert_int_equal(kit_counters(exchange).events, 1);
    end(rig);
}

/* A client that stops in the middle of everything either has an event, or it goes back. */
static void stopped_meanwhile(void **state)
{
    enum { ROUNDS = 200, IDS = 4 };
    static const char *const ids[IDS] = { "a", "b", "c", "d" };
    struct rig *rig = make(NULL);

    (void)state;
    rig_serve(rig);
    for (int round = 0; round < ROUNDS; round++) {
        struct semel_client *client = rig_connect(rig, NULL);
        struct seen seen[IDS];

        for (int i = 0; i < IDS; i++)
            remote_start(client, ids[i], 60000, &seen[i], NULL);
        if (round % 2)
            kit_until_waiting(exchange, IDS);
        for (int i = 0; i < IDS; i++)
            kit_trigger(exchange, ids[i], ids[i]);
        for (volatile int spin = 0; spin < round * 500; spin++)
            ;
        semel_client_stop(client);
        assert_int_equal(semel_client_destroy(client), SEMEL_OK);
        until_nothing_held();
        kit_until_waiting(exchange, 0);
        for (int i = 0; i < IDS; i++) {
            const bool has_it = seen[i].outcome == SEMEL_VALUE;
            char words[32];

            assert_int_equal(atomic_load(&seen[i].times), 1);
            semel_result_clear(&seen[i].result);
            (void)snprintf(words, sizeof words, "%s %s=%s", has_it ? "DEADLINE" : "OK", ids[i],
                           has_it ? "-" : ids[i]);
            kit_wait(exchange, ids[i], 0, words);
        }
    }
    end(rig);
}

static void with_a_store(void **state)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct kit_disk *disk = kit_disk_make();
    struct seen seen;
    struct rig *rig;

    (void)state;
    options.store = kit_disk_open(disk);
    rig = make(&options);
    rig_go(rig);
    remote_trigger(rig->client, "a", "1", SEMEL_VALUE);
    remote_wait(rig->client, "a", 0, false, "OK 1");
    until_nothing_held();
    remote_start(rig->client, "b", 60000, &seen, NULL);
    kit_until_waiting(exchange, 1);
    kit_trigger(exchange, "b", "2");
    expect_seen(&seen, "OK 2");
    end(rig);
    kit_disk_free(disk);
}

static void exported(void **state)
{
    struct rig *rig = rig_make(NULL);

    (void)state;
    exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    assert_int_equal(semel_server_export_exchange(rig->server, NULL), SEMEL_INVALID);
    assert_int_equal(semel_server_export_exchange(NULL, exchange), SEMEL_INVALID);
    assert_int_equal(semel_server_export_exchange(rig->server, exchange), SEMEL_OK);
    assert_int_equal(semel_server_export_exchange(rig->server, exchange), SEMEL_ALREADY);
    assert_int_equal(semel_server_export(rig->server, "semel.other", echo, NULL, NULL),
                     SEMEL_INVALID);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("exchange: remote triggers and waits", both_ways),
        TEST("E7 timeout partial: remote", unmet),
        TEST("exchange: a remote wait holds no thread", no_threads),
        TEST("exchange: delivered once over cut connections", cut_connections),
        TEST("exchange: back at the head when the session expires", session_expires),
        TEST("exchange: back when the server ends", server_ends),
        TEST("exchange: what comes back meets who waits, remotely", return_meets),
        TEST("exchange: accepted, although the client leaves", accepted_by_leaving),
        TEST("E14 cancel: a remote wait", cancelled),
        TEST("E14 close: the server stops", server_stops),
        TEST("E14 close: the exchange closes under remote waits", exchange_closes),
        TEST("exchange: bad bodies", bad_bodies),
        TEST("exchange: a reply too large goes back", too_large),
        TEST("exchange: no memory for a wait or its reply", no_memory),
        TEST("exchange: a client that stops has an event or leaves it", stopped_meanwhile),
        TEST("exchange: a server with a store", with_a_store),
        TEST("exchange: exported once", exported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
