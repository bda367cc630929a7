/* SPDX-License-Identifier: MIT */
/* A request as its handler sees it, and every way to finish one. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

#include <sys/wait.h>

/* --- M3, what a failure carries --------------------------------------------------------------- */

static void fail_fully(struct semel_request *request, void *user)
{
    (void)user;
    REQUIRE(semel_request_fail_with(request, -42, "the disk is full", semel_bytes("\0\1\2", 3),
                                    "at line 1\nat line 2") == SEMEL_OK);
}

static void fail_at_length(struct semel_request *request, void *user)
{
    static char text[3 * SEMEL_TRACE_BYTES];

    (void)user;
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa4", 2); /* two bytes each, so that a cut may fall inside one */
    REQUIRE(semel_request_fail_with(request, 1, "", semel_bytes(text, SEMEL_DETAIL_BYTES + 1),
                                    NULL) == SEMEL_TOO_LARGE);
    REQUIRE(semel_request_fail_with(request, 1, text + 1, semel_bytes(text, SEMEL_DETAIL_BYTES),
                                    text) == SEMEL_OK);
}

static void test_remote_error(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_result result;

    (void)state;
    rig_export(rig, "fail", fail_fully, NULL, NULL);
    rig_export(rig, "long", fail_at_length, NULL, NULL);
    rig_go(rig);
    result = expect(rig->client, "fail", "", NULL, SEMEL_FAILURE, SEMEL_FAILED);
    assert_int_equal(result.code, -42);
    assert_string_equal(result.text, "the disk is full");
    assert_int_equal(result.detail.size, 3);
    assert_memory_equal(result.detail.data, "\0\1\2", 3);
    assert_string_equal(result.trace, "at line 1\nat line 2");
    semel_result_clear(&result);
    result = expect(rig->client, "long", "", NULL, SEMEL_FAILURE, SEMEL_FAILED);
    assert_int_equal(result.detail.size, SEMEL_DETAIL_BYTES);
    assert_int_equal(strlen(result.text), SEMEL_TEXT_BYTES - 1);
    assert_int_equal(strlen(result.trace), SEMEL_TRACE_BYTES);
    semel_result_clear(&result);
    rig_end(rig);
}

/* --- looking ------------------------------------------------------------------------------- */

struct look {
    struct semel_key keys[2];
    int count;
};

static void look(struct semel_request *request, void *user)
{
    struct look *look = user;
    const struct semel_peer *peer = semel_request_peer(request);
    int64_t left = semel_request_remaining_ms(request);
    struct semel_key again = semel_request_key(request);

    look->keys[look->count % 2] = semel_request_key(request);
    look->count++;
    REQUIRE(memcmp(&again, &look->keys[(look->count - 1) % 2], sizeof again) == 0);
    REQUIRE(strcmp(semel_request_method(request), "look") == 0);
    REQUIRE(strcmp(semel_request_content_type(request), "text/plain") == 0);
    REQUIRE(semel_request_body(request).size == 4);
    REQUIRE(memcmp(semel_request_body(request).data, "body", 4) == 0);
    REQUIRE(semel_request_call(request) == (uint64_t)look->count);
    REQUIRE(peer->has_ids && peer->uid == getuid() && peer->gid == getgid());
    REQUIRE(strncmp(peer->address, "unix:", 5) == 0);
    REQUIRE(left > 0 && left <= 20000);
    REQUIRE(!semel_request_cancelled(request) && !semel_request_caller_left(request));
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
    REQUIRE(semel_request_body(request).size == 0 && semel_request_call(request) == 0);
    REQUIRE(strcmp(semel_request_peer(request)->address, "") == 0);
}

static void test_look(void **state)
{
    struct semel_call_options options = { .deadline_ms = 20000, .content_type = "text/plain" };
    struct rig *rig = rig_make(NULL);
    struct look seen = { .count = 0 };
    struct semel_result result;

    (void)state;
    rig_export(rig, "look", look, &seen, NULL);
    rig_go(rig);
    for (int i = 0; i < 2; i++) {
        result = expect(rig->client, "look", "body", &options, SEMEL_VALUE, SEMEL_OK);
        semel_result_clear(&result);
    }
    assert_memory_not_equal(&seen.keys[0], &seen.keys[1], sizeof seen.keys[0]);
    rig_end(rig);
}

/* --- handing on ---------------------------------------------------------------------------- */

static void hand_on_in_vain(struct semel_request *request, void *user)
{
    (void)user;
    REQUIRE(semel_request_not_executed(request, SEMEL_OK, NULL) == SEMEL_INVALID);
    REQUIRE(semel_request_not_executed(request, SEMEL_FAILED, NULL) == SEMEL_INVALID);
    REQUIRE(semel_request_not_executed(request, (enum semel_status)9999, NULL) == SEMEL_INVALID);
    REQUIRE(semel_request_not_executed(request, SEMEL_PEER_DIED, NULL) == SEMEL_INVALID);
    REQUIRE(semel_request_not_executed(request, SEMEL_PROTOCOL, NULL) == SEMEL_INVALID);
    REQUIRE(semel_request_not_executed(request, SEMEL_STOPPED, NULL) == SEMEL_INVALID);
    if (semel_request_body(request).size > 1) {
        REQUIRE(semel_request_not_executed(request, SEMEL_TOO_LARGE, NULL) == SEMEL_OK);
        return;
    }
    REQUIRE(semel_request_not_executed(request, SEMEL_NO_WORKERS, "all are gone") == SEMEL_OK);
    REQUIRE(semel_request_not_executed(request, SEMEL_NO_WORKERS, NULL) == SEMEL_ALREADY);
    REQUIRE(semel_request_not_executed(NULL, SEMEL_NO_WORKERS, NULL) == SEMEL_INVALID);
}

static void what_nobody_ran_is_not_executed(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_result result;

    (void)state;
    rig_export(rig, "on", hand_on_in_vain, NULL, NULL);
    rig_go(rig);
    result = expect(rig->client, "on", "x", NULL, SEMEL_NOT_EXECUTED, SEMEL_NO_WORKERS);
    assert_non_null(strstr(result.text, "all are gone"));
    semel_result_clear(&result);
    /* This server took it, whoever did not. */
    result = expect(rig->client, "on", "xx", NULL, SEMEL_NOT_EXECUTED, SEMEL_TOO_LARGE);
    assert_null(strstr(result.text, "the server takes"));
    semel_result_clear(&result);
    rig_end(rig);
}

/* --- keys ---------------------------------------------------------------------------------- */

static void show_key(struct semel_request *request, void *user)
{
    struct semel_key key = semel_request_key(request), none = { { 0 } };
    const char *name = semel_request_idempotency_key(request);
    char shown[sizeof key + 64];
    size_t bytes = sizeof key + strlen(name);

    (void)user;
    REQUIRE(bytes <= sizeof shown);
    memcpy(shown, &key, sizeof key);
    memcpy(shown + sizeof key, name, strlen(name));
    REQUIRE(semel_request_never_ran(request, "only where it is found out") == SEMEL_INVALID);
    REQUIRE(semel_request_reply(request, shown, bytes) == SEMEL_OK);
    REQUIRE(strcmp(semel_request_idempotency_key(request), "") == 0);
    key = semel_request_key(request);
    REQUIRE(memcmp(&key, &none, sizeof key) == 0);
    REQUIRE(semel_request_never_ran(request, NULL) == SEMEL_INVALID);
    REQUIRE(semel_request_never_ran(NULL, NULL) == SEMEL_INVALID);
}

/* Its key for downstream; the handler must have seen `name`. */
static struct semel_key ask_key(struct semel_client *client, const char *method, const char *name)
{
    struct semel_call_options options = { .key = name };
    struct semel_result result = expect(client, method, "", &options, SEMEL_VALUE, SEMEL_OK);
    struct semel_key key;

    assert_int_equal(result.body.size, sizeof key + strlen(name));
    memcpy(&key, result.body.data, sizeof key);
    assert_memory_equal((const char *)result.body.data + sizeof key, name, strlen(name));
    semel_result_clear(&result);
    return key;
}

static bool same(struct semel_key a, struct semel_key b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static void export_keys(struct shop *shop, void *user)
{
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };

    rig_export(shop->rig, "show", show_key, user, &harmless);
    rig_export(shop->rig, "other", show_key, user, &harmless);
}

/* A key names what its caller means, whichever session and server it comes to. */
static void test_keys(void **state)
{
    struct shop *shop = shop_make(NULL, export_keys, NULL);
    struct semel_client *second, *stranger = NULL;
    struct semel_key key;

    (void)state;
    shop_go(shop);
    second = shop_connect(shop);
    assert_int_equal(semel_server_listen(shop->rig->server, "tcp:127.0.0.1:0"), SEMEL_OK);
    assert_int_equal(semel_client_create(&stranger, semel_server_address(shop->rig->server), NULL),
                     SEMEL_OK);
    key = ask_key(shop->rig->client, "show", "k");
    assert_true(same(key, ask_key(shop->rig->client, "show", "k")));
    assert_true(same(key, ask_key(second, "show", "k")));
    assert_false(same(key, ask_key(second, "show", "kk")));
    assert_false(same(key, ask_key(second, "other", "k")));
    assert_false(same(key, ask_key(stranger, "show", "k")));
    assert_false(same(key, ask_key(second, "show", "")));
    assert_false(
        same(ask_key(second, "show", ""), ask_key(second, "show", ""))); /* each is its own */
    shop_shut(shop);
    shop_reopen(shop);
    assert_true(same(key, ask_key(second, "show", "k")));
    assert_int_equal(semel_client_destroy(stranger), SEMEL_OK);
    assert_int_equal(semel_client_destroy(second), SEMEL_OK);
    shop_end(shop);
}

static struct semel_key wire_key(struct wire *wire, uint64_t xid)
{
    struct sml_frame frame;
    struct semel_key key;

    wire_expect(wire, SML_REPLY, &frame);
    assert_int_equal(frame.xid, xid);
    assert_int_equal(frame.u.reply.verdict.body.size, sizeof key);
    memcpy(&key, frame.u.reply.verdict.body.data, sizeof key);
    return key;
}

/* Without a name, a call that is made again in another session has the key of the first. */
static void test_origin(void **state)
{
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };
    struct sml_call_frame again = call_of("show", "");
    struct rig *rig = rig_make(NULL);
    struct wire *first, *second;
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct semel_key key, other;

    (void)state;
    rig_export(rig, "show", show_key, NULL, &harmless);
    rig_serve(rig);
    first = wire_meet(rig, 1);
    second = wire_meet(rig, 2);
    wire_call(first, 1, "show", "");
    key = wire_key(first, 1);
    wire_call(second, 1, "show", "");
    other = wire_key(second, 1);
    assert_false(same(key, other));
    again.flags = SML_CALL_RERUN_OK | SML_CALL_ORIGIN;
    again.origin.session = hello_of(1, 1).session;
    again.origin.xid = 1;
    assert_true(wire_send(second, out, sml_encode_call(out, 2, &again)));
    assert_true(same(key, wire_key(second, 2)));
    again.origin.xid = 2;
    assert_true(wire_send(second, out, sml_encode_call(out, 3, &again)));
    other = wire_key(second, 3);
    assert_false(same(key, other));
    wire_close(first);
    wire_close(second);
    rig_end(rig);
}

/* --- refused before it runs ------------------------------------------------------------------ */

static void never(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
    REQUIRE(!"this handler must not run");
}

static void test_refused(void **state)
{
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };
    struct semel_call_options rerun = { .rerun_ok = true };
    struct rig *rig = rig_make(NULL);
    struct semel_result result;

    (void)state;
    rig_export(rig, "never", never, NULL, NULL);
    rig_export(rig, "echo", echo, NULL, &harmless);
    rig_go(rig);
    result = expect(rig->client, "none", "", NULL, SEMEL_NOT_EXECUTED, SEMEL_NO_METHOD);
    if (!strstr(result.text, "call 1 of 'none' at unix:"))
        fail_msg("%s", result.text);
    semel_result_clear(&result);
    result = expect(rig->client, "never", "", &rerun, SEMEL_NOT_EXECUTED, SEMEL_INVALID);
    assert_non_null(strstr(result.text, "call 2 of 'never' at unix:"));
    semel_result_clear(&result);
    result = expect(rig->client, "echo", "x", &rerun, SEMEL_VALUE, SEMEL_OK);
    semel_result_clear(&result);
    rig_end(rig);
}

/* --- taken, dropped, died --------------------------------------------------------------------- */

struct shelf {
    pthread_mutex_t lock;
    struct semel_request *requests[64];
    int count;
    bool finish_inside;
};

static void shelve(struct semel_request *request, void *user)
{
    struct shelf *shelf = user;

    semel_request_take(request);
    semel_request_take(request); /* once is enough, twice is harmless */
    if (shelf->finish_inside) {
        REQUIRE(semel_request_reply(NULL, "x", 1) == SEMEL_INVALID);
        REQUIRE(semel_request_reply(request, NULL, 5) == SEMEL_INVALID);
        REQUIRE(semel_request_fail_with(request, 1, "", semel_bytes(NULL, 5), NULL) ==
                SEMEL_INVALID);
        REQUIRE(semel_request_reply(request, "inside", 6) == SEMEL_OK);
        REQUIRE(semel_request_reply(request, "inside", 6) == SEMEL_ALREADY);
        return;
    }
    pthread_mutex_lock(&shelf->lock);
    shelf->requests[shelf->count++] = request;
    pthread_mutex_unlock(&shelf->lock);
}

static int shelved(struct shelf *shelf)
{
    int count;

    pthread_mutex_lock(&shelf->lock);
    count = shelf->count;
    pthread_mutex_unlock(&shelf->lock);
    return count;
}

struct full_shelf {
    struct shelf *shelf;
    int count;
};

static bool is_full(void *arg)
{
    struct full_shelf *full = arg;

    return shelved(full->shelf) >= full->count;
}

static void *finish_all(void *arg)
{
    struct shelf *shelf = arg;

    for (int i = 0; i < 40; i++) {
        struct semel_request *request = shelf->requests[i];

        if (i % 4 == 0)
            REQUIRE(semel_request_reply(request, "later", 5) == SEMEL_OK);
        else if (i % 4 == 1)
            REQUIRE(semel_request_fail(request, i, "no") == SEMEL_OK);
        else if (i % 4 == 2)
            semel_request_drop(request);
        else
            semel_request_died(request, "killed by signal 9");
    }
    return NULL;
}

/* 40 calls open at once on a server of one worker: a taken request does not hold the worker. */
static void test_taken(void **state)
{
    struct semel_server_options options = { .workers = 1 };
    struct rig *rig = rig_make(&options);
    struct shelf shelf = { .lock = PTHREAD_MUTEX_INITIALIZER };
    struct full_shelf full = { &shelf, 40 };
    static const enum semel_outcome outcomes[] = { SEMEL_VALUE, SEMEL_FAILURE, SEMEL_UNKNOWN,
                                                   SEMEL_UNKNOWN };
    static const enum semel_status statuses[] = { SEMEL_OK, SEMEL_FAILED, SEMEL_DROPPED,
                                                  SEMEL_HANDLER_DIED };
    struct seen seen[40];
    pthread_t thread;

    (void)state;
    rig_export(rig, "shelve", shelve, &shelf, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 40; i++)
        start_call(rig->client, "shelve", "", NULL, &seen[i], NULL);
    assert_true(kit_eventually(is_full, &full, 60));
    expect_echo(rig->client, "the worker is free");
    assert_int_equal(pthread_create(&thread, NULL, finish_all, &shelf), 0);
    pthread_join(thread, NULL);
    for (int i = 0; i < 40; i++) {
        /* One worker takes the calls in order, so request i is call i. */
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, outcomes[i % 4]);
        assert_int_equal(seen[i].status, statuses[i % 4]);
        if (i % 4 == 3)
            assert_non_null(strstr(seen[i].result.text, "killed by signal 9"));
        semel_result_clear(&seen[i].result);
    }
    shelf.finish_inside = true;
    for (int i = 0; i < 20; i++)
        expect_gone(rig->client, "shelve", SEMEL_VALUE, SEMEL_OK);
    rig_end(rig);
}

/* A taken request counts against its method's limit until it is finished. */
static void test_taken_limit(void **state)
{
    struct semel_method_options limit = { .limit = 1 };
    struct rig *rig = rig_make(NULL);
    struct shelf shelf = { .lock = PTHREAD_MUTEX_INITIALIZER };
    struct full_shelf full = { &shelf, 1 };
    struct seen seen[3];

    (void)state;
    rig_export(rig, "shelve", shelve, &shelf, &limit);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 3; i++)
        start_call(rig->client, "shelve", "", NULL, &seen[i], NULL);
    for (int i = 0; i < 3; i++) {
        full.count = i + 1;
        assert_true(kit_eventually(is_full, &full, 60));
        expect_echo(rig->client, "neighbour");
        kit_sleep_ms(20);
        assert_int_equal(shelved(&shelf), i + 1);
        assert_int_equal(semel_request_reply(shelf.requests[i], "", 0), SEMEL_OK);
    }
    for (int i = 0; i < 3; i++) {
        wait_seen(&seen[i]);
        semel_result_clear(&seen[i].result);
    }
    rig_end(rig);
}

static void forget(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
}

static void test_dropped(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_result result;

    (void)state;
    rig_export(rig, "forget", forget, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 50; i++) {
        result = expect(rig->client, "forget", "", NULL, SEMEL_UNKNOWN, SEMEL_DROPPED);
        assert_non_null(strstr(result.text, " of 'forget' at unix:"));
        semel_result_clear(&result);
    }
    assert_true(log_has(rig, "its handler returned without finishing it"));
    assert_int_equal(rig_counters(rig).unknown, 50);
    rig_end(rig);
}

/* --- limits of the caller -------------------------------------------------------------------- */

static void answer_big(struct semel_request *request, void *user)
{
    static const char big[5000];

    (void)user;
    REQUIRE(semel_request_reply(request, big, sizeof big) == SEMEL_TOO_LARGE);
    REQUIRE(semel_request_reply(request, big, 1000) == SEMEL_OK);
}

static void test_callers_limit(void **state)
{
    struct semel_client_options small = { .body_bytes = 1000 };
    struct rig *rig = rig_make(NULL);
    struct semel_client *client;

    (void)state;
    rig_export(rig, "big", answer_big, NULL, NULL);
    rig_go(rig);
    client = rig_connect(rig, &small);
    expect_gone(client, "big", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    rig_end(rig);
}

/* --- cancellation ---------------------------------------------------------------------------- */

struct watch {
    atomic_int started, told, left, done;
    bool listen; /* by callback instead of looking */
};

static void told(struct semel_request *request, void *user)
{
    struct watch *watch = user;

    REQUIRE(semel_request_cancelled(request));
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_WOULD_DEADLOCK);
    atomic_fetch_add(&watch->told, 1);
}

static void watch_for(struct semel_request *request, void *user)
{
    struct watch *watch = user;

    if (watch->listen)
        semel_request_on_cancel(request, told, watch);
    atomic_fetch_add(&watch->started, 1);
    while (watch->listen ? atomic_load(&watch->told) == 0 : !semel_request_cancelled(request))
        kit_sleep_ms(1);
    if (!watch->listen) {
        semel_request_on_cancel(request, told, watch); /* at once: it is cancelled already */
        REQUIRE(atomic_load(&watch->told) == 1);
    }
    REQUIRE(semel_request_fail(request, 3, "cancelled in the middle") == SEMEL_OK);
    atomic_fetch_add(&watch->done, 1);
}

static bool has_started(void *arg)
{
    return atomic_load(&((struct watch *)arg)->started) > 0;
}

static bool is_done(void *arg)
{
    return atomic_load(&((struct watch *)arg)->done) > 0;
}

static void test_cancel(void **state)
{
    (void)state;
    for (int listen = 0; listen < 2; listen++) {
        struct rig *rig = rig_make(NULL);
        struct watch watch = { .listen = listen };
        struct semel_call *call;
        struct seen seen;

        rig_export(rig, "watch", watch_for, &watch, NULL);
        rig_go(rig);
        start_call(rig->client, "watch", "", NULL, &seen, &call);
        assert_true(kit_eventually(has_started, &watch, 60));
        semel_call_cancel(call);
        wait_seen(&seen);
        assert_int_equal(seen.outcome, SEMEL_FAILURE); /* the handler's own word */
        assert_int_equal(atomic_load(&watch.told), 1);
        semel_result_clear(&seen.result);
        semel_call_unref(call);
        rig_end(rig);
    }
}

/* Told at once, while another thread is about to finish the request: that one waits for the
 * callback, and not for longer. */
struct overtaken {
    struct semel_request *request;
    atomic_int started, inside;
    pthread_t finisher;
};

static void *finish_meanwhile(void *arg)
{
    struct overtaken *overtaken = arg;

    while (atomic_load(&overtaken->inside) == 0)
        kit_sleep_ms(1);
    REQUIRE(semel_request_reply(overtaken->request, "x", 1) == SEMEL_OK);
    return NULL;
}

static void told_slowly(struct semel_request *request, void *user)
{
    struct overtaken *overtaken = user;

    (void)request;
    atomic_store(&overtaken->inside, 1);
    kit_sleep_ms(100); /* the finisher comes, and has to wait */
}

static void be_overtaken(struct semel_request *request, void *user)
{
    struct overtaken *overtaken = user;

    semel_request_take(request);
    overtaken->request = request;
    atomic_store(&overtaken->started, 1);
    while (!semel_request_cancelled(request))
        kit_sleep_ms(1);
    REQUIRE(pthread_create(&overtaken->finisher, NULL, finish_meanwhile, overtaken) == 0);
    semel_request_on_cancel(request, told_slowly, overtaken);
}

static bool was_overtaken(void *arg)
{
    return atomic_load(&((struct overtaken *)arg)->started) == 1;
}

static void test_finished_while_told_at_once(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct overtaken overtaken = { .request = NULL };
    struct semel_call *call;
    struct seen seen;

    (void)state;
    rig_export(rig, "overtaken", be_overtaken, &overtaken, NULL);
    rig_go(rig);
    start_call(rig->client, "overtaken", "", NULL, &seen, &call);
    assert_true(kit_eventually(was_overtaken, &overtaken, 60));
    semel_call_cancel(call);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    assert_int_equal(pthread_join(overtaken.finisher, NULL), 0);
    semel_result_clear(&seen.result);
    semel_call_unref(call);
    rig_end(rig);
}

/* The deadline passes, the grace passes, the caller is gone: the handler sees each. */
static void outstay(struct semel_request *request, void *user)
{
    struct watch *watch = user;

    atomic_fetch_add(&watch->started, 1);
    while (semel_request_remaining_ms(request) > 0)
        kit_sleep_ms(1);
    while (!semel_request_caller_left(request))
        kit_sleep_ms(1);
    REQUIRE(semel_request_cancelled(request));
    REQUIRE(semel_request_reply(request, "nobody hears this", 17) == SEMEL_OK);
    atomic_fetch_add(&watch->done, 1);
}

static void test_caller_left(void **state)
{
    struct semel_client_options quick = { .cancel_grace_ms = 20 };
    struct semel_call_options soon = { .deadline_ms = 500 };
    struct rig *rig = rig_make(NULL);
    struct watch watch = { .listen = false };
    struct semel_client *client;
    struct semel_result result;
    struct seen last;

    (void)state;
    rig_export(rig, "outstay", outstay, &watch, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    client = rig_connect(rig, &quick);
    expect_echo(client, "connected");
    result = expect(client, "outstay", "", &soon, SEMEL_UNKNOWN, SEMEL_DEADLINE);
    semel_result_clear(&result);
    assert_true(kit_eventually(is_done, &watch, 60));
    expect_echo(client, "the session goes on");
    /* A client that leaves altogether. */
    atomic_store(&watch.done, 0);
    atomic_store(&watch.started, 0);
    start_call(client, "outstay", "", &soon, &last, NULL);
    assert_true(kit_eventually(has_started, &watch, 60));
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    wait_seen(&last);
    semel_result_clear(&last.result);
    assert_true(kit_eventually(is_done, &watch, 60));
    assert_int_equal(rig_counters(rig).calls_abandoned >= 1, 1);
    rig_end(rig);
}

/* Calls that expire while they wait never run. */
static void test_expired_waiting(void **state)
{
    struct semel_server_options options = { .workers = 1 };
    struct semel_call_options soon = { .deadline_ms = 50 };
    struct rig *rig = rig_make(&options);
    struct seen first, waiting[5];
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_export(rig, "never", never, NULL, NULL);
    rig_go(rig);
    start_call(rig->client, "gated", "", NULL, &first, NULL);
    wait_inside(&gate, 1);
    for (int i = 0; i < 5; i++)
        start_call(rig->client, "never", "", &soon, &waiting[i], NULL);
    for (int i = 0; i < 5; i++) {
        wait_seen(&waiting[i]);
        assert_int_equal(waiting[i].outcome, SEMEL_NOT_EXECUTED);
        /* By the server's clock, or by the CANCEL that the client sends at the same time. */
        assert_true(waiting[i].status == SEMEL_EXPIRED || waiting[i].status == SEMEL_CANCELLED);
        semel_result_clear(&waiting[i].result);
    }
    gate_open(&gate, true);
    wait_seen(&first);
    semel_result_clear(&first.result);
    rig_end(rig);
    gate_fini(&gate);
}

/* --- fork --------------------------------------------------------------------------------- */

/* What a child may do with its parent's request; the number of the first thing that is wrong. */
static int use_in_child(struct semel_request *request)
{
    if (semel_request_reply(request, "child", 5) != SEMEL_FORKED)
        return 1;
    if (semel_request_fail(request, 1, "child") != SEMEL_FORKED)
        return 2;
    if (semel_request_fail_with(request, 1, "child", semel_bytes("d", 1), "t") != SEMEL_FORKED)
        return 3;
    semel_request_on_cancel(request, told, NULL);
    semel_request_on_cancel(request, NULL, NULL);
    semel_request_drop(request);
    semel_request_died(request, "child");
    return 0;
}

static void end_quietly(void)
{
    _exit(0);
}

/* "use": the child uses the request and ends here; "return": it returns. */
static void fork_inside(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    bool returns = body.size == 6;
    int status = -1;
    pid_t pid;

    (void)user;
    if (body.size == 0) {
        REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
        return;
    }
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0 && !returns)
        _exit(use_in_child(request));
    if (pid == 0) {
        alarm(30);
        /* Only the end itself is looked at, not what a leak checker says of half a process. (The
         * thread checker has nothing to say, and cannot run a handler that late.) */
        if (!THREAD_SANITIZER)
            atexit(end_quietly);
        return;
    }
    REQUIRE(waitpid(pid, &status, 0) == pid);
    REQUIRE(semel_request_reply(request, &status, sizeof status) == SEMEL_OK);
}

static void expect_fork(struct rig *rig, const char *what)
{
    struct semel_result result = expect(rig->client, "fork", what, NULL, SEMEL_VALUE, SEMEL_OK);
    int status = -1;

    assert_int_equal(result.body.size, sizeof status);
    memcpy(&status, result.body.data, sizeof status);
    assert_int_equal(status, 0);
    semel_result_clear(&result);
}

/* On a worker first; then, once the method is known to be short, on the thread that reads. */
static void test_fork(void **state)
{
    struct rig *rig = rig_make(NULL);

    (void)state;
    rig_export(rig, "fork", fork_inside, NULL, NULL);
    rig_go(rig);
    for (int round = 0; round < 3; round++) {
        expect_fork(rig, "use");
        expect_fork(rig, "return");
        for (int i = 0; i < 200; i++)
            expect_gone(rig->client, "fork", SEMEL_VALUE, SEMEL_OK);
    }
    assert_int_equal(rig_counters(rig).connections_lost, 0);
    rig_end(rig);
}

/* --- S6 ---------------------------------------------------------------------------------- */

struct once {
    atomic_int runs;
    struct gate gate;
};

static void fail_once(struct semel_request *request, void *user)
{
    struct once *once = user;

    atomic_fetch_add(&once->runs, 1);
    gate_pass(&once->gate);
    REQUIRE(semel_request_fail(request, 5, "stored") == SEMEL_OK);
}

static bool was_cut(void *arg)
{
    return kit_relay_cuts(arg) > 0;
}

static bool call_finished(void *arg)
{
    return rig_counters(arg).failures == 1;
}

/* The connection is away while the handler fails; the failure is there when it is back. */
static void test_failure_stored(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct once once = { .runs = 0 };
    struct kit_relay *relay;
    struct semel_client *client;
    struct seen seen;

    (void)state;
    gate_init(&once.gate);
    rig_export(rig, "fail", fail_once, &once, NULL);
    rig_go(rig);
    relay = kit_relay_start(rig->place.path, 0, 1);
    assert_int_equal(semel_client_create(&client, kit_relay_address(relay), NULL), SEMEL_OK);
    start_call(client, "fail", "", NULL, &seen, NULL);
    wait_inside(&once.gate, 1);
    kit_relay_mute(relay, true);
    kit_relay_cut(relay);
    assert_true(kit_eventually(was_cut, relay, 60));
    gate_open(&once.gate, true);
    assert_true(kit_eventually(call_finished, rig, 60));
    kit_relay_mute(relay, false);
    kit_relay_cut(relay); /* in case the client waits for an answer to what was muted */
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_FAILURE);
    assert_int_equal(seen.result.code, 5);
    assert_string_equal(seen.result.text, "stored");
    assert_int_equal(atomic_load(&once.runs), 1);
    semel_result_clear(&seen.result);
    assert_true(rig_counters(rig).sessions_resumed >= 1);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    kit_relay_stop(relay);
    rig_end(rig);
    gate_fini(&once.gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("what nobody ran is not executed, in its handler's words",
             what_nobody_ran_is_not_executed),
        TEST("M3 remote error", test_remote_error),
        TEST("a handler sees what was called, by whom and with what", test_look),
        TEST("a key names a call wherever it comes to", test_keys),
        TEST("a call that is made again has its first key", test_origin),
        TEST("calls that may not run do not run, and are told why", test_refused),
        TEST("taken requests are finished from other threads", test_taken),
        TEST("a taken request counts against its method's limit", test_taken_limit),
        TEST("a dropped request is unknown", test_dropped),
        TEST("the caller's limit leaves a request open", test_callers_limit),
        TEST("a cancelled call is seen by its handler, once", test_cancel),
        TEST("who finishes a request waits for its callback, and no longer",
             test_finished_while_told_at_once),
        TEST("a handler sees that its caller has left", test_caller_left),
        TEST("calls that expire while they wait never run", test_expired_waiting),
        TEST("a forked child cannot use its parent's request, nor serve", test_fork),
        TEST("S6 handler failure is stored and replayed", test_failure_stored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
