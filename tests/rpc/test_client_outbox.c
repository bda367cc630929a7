/* SPDX-License-Identifier: MIT */
/* What an application asks of an outbox, and what it is told. */
#include "server_kit.h"

#include "store_kit.h"

#include "outbox_kit.h"

#include <sys/wait.h>

static void test_post_and_accept(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct semel_posted posted;
    uint64_t id = desk_post(desk, "once", "a");

    (void)state;
    posted = desk_take(desk);
    assert_int_equal(posted.id, id);
    assert_string_equal(posted.key, "a");
    assert_string_equal(posted.result.method, "once");
    assert_int_equal(posted.result.outcome, SEMEL_VALUE);
    assert_memory_equal(posted.result.body.data, "a", 1);
    assert_memory_equal(posted.tag.data, "a", 1);
    desk_counts(desk, 0, 1);
    assert_int_equal(kit_box_rows(desk->box).results, 1);
    assert_int_equal(semel_client_accept(desk->client, id), SEMEL_OK);
    desk_counts(desk, 0, 0);
    assert_int_equal(kit_box_rows(desk->box).calls, 0);
    assert_int_equal(semel_client_accept(desk->client, id),
                     SEMEL_OK); /* it is not there any more */
    assert_int_equal(semel_client_accept(desk->client, 0), SEMEL_OK);
    semel_posted_clear(&posted);
    semel_posted_clear(&posted);
    semel_posted_clear(NULL);
    assert_true(kit_eventually(shop_at_rest, desk->shop, 60)); /* the server has forgotten it */
    assert_int_equal(atomic_load(&desk->runs), 1);
    desk_end(desk);
}

/* A result can be accepted before it was handed out, and is not handed out then. */
static void test_accept_early(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct semel_posted posted;
    uint64_t id = desk_post(desk, "gated", "a");

    (void)state;
    assert_int_equal(semel_client_accept(desk->client, id), SEMEL_INVALID); /* it has none yet */
    assert_int_equal(semel_client_next_result(desk->client, 0, &posted), SEMEL_DEADLINE);
    assert_int_equal(semel_client_next_result(desk->client, 20, &posted), SEMEL_DEADLINE);
    gate_open(&desk->gate, true);
    assert_true(kit_eventually(desk_has_result, desk, 60));
    assert_int_equal(semel_client_accept(desk->client, id), SEMEL_OK);
    assert_int_equal(semel_client_next_result(desk->client, 0, &posted), SEMEL_DEADLINE);
    desk_end(desk);
}

/* A method and key name one call of an outbox. */
static void test_names(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct semel_call_options options = { .key = "a" };
    uint64_t id = desk_post(desk, "gated", "a"), again = 0;

    (void)state;
    assert_int_equal(desk_post(desk, "gated", "a"), id);
    assert_int_equal(semel_client_post(desk->client, "gated", semel_bytes_text("other"), &options,
                                       semel_bytes_text(""), &again),
                     SEMEL_KEY_MISMATCH);
    options.content_type = "text/plain";
    assert_int_equal(semel_client_post(desk->client, "gated", semel_bytes_text("a"), &options,
                                       semel_bytes_text(""), &again),
                     SEMEL_KEY_MISMATCH);
    assert_int_equal(again, 0);
    assert_int_not_equal(desk_post(desk, "once", "a"), id); /* another method's key */
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    gate_open(&desk->gate, true);
    assert_true(kit_eventually(desk_has_result, desk, 60));
    assert_int_equal(desk_post(desk, "gated", "a"), id); /* its result waits */
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 2);
    /* Accepted, it is known to the server alone; which runs it no second time. */
    assert_int_not_equal(desk_post(desk, "gated", "a"), id);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 2);
    desk_end(desk);
}

static void test_drawn_keys(void **state)
{
    struct desk *desk = desk_go(NULL);
    char keys[2][33];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct semel_posted posted;

        assert_int_equal(semel_client_post(desk->client, "once", semel_bytes_text("same"), NULL,
                                           semel_bytes_text(""), NULL),
                         SEMEL_OK);
        posted = desk_take(desk);
        assert_int_equal(strlen(posted.key), 32);
        strcpy(keys[i], posted.key);
        assert_int_equal(posted.tag.size, 0);
        semel_posted_clear(&posted);
    }
    assert_string_not_equal(keys[0], keys[1]);
    assert_int_equal(atomic_load(&desk->runs), 2);
    desk_end(desk);
}

/* The bodies may be of any size. */
static void test_large(void **state)
{
    struct desk *desk = desk_go(NULL);
    size_t size = 3 << 20;
    char *body = calloc(1, size);
    struct semel_posted posted;

    (void)state;
    assert_non_null(body);
    for (size_t i = 0; i < size; i += 1000)
        body[i] = (char)i;
    assert_int_equal(semel_client_post(desk->client, "once", semel_bytes(body, size), NULL,
                                       semel_bytes(body, size / 2), NULL),
                     SEMEL_OK);
    posted = desk_take(desk);
    assert_int_equal(posted.result.outcome, SEMEL_VALUE);
    assert_int_equal(posted.result.body.size, size);
    assert_memory_equal(posted.result.body.data, body, size);
    assert_int_equal(posted.tag.size, size / 2);
    assert_memory_equal(posted.tag.data, body, size / 2);
    semel_posted_clear(&posted);
    free(body);
    desk_end(desk);
}

static void test_refused(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct semel_client *plain = rig_connect(desk->shop->rig, NULL);
    struct semel_bytes none = semel_bytes_text(""), nowhere = { NULL, 1 };
    struct semel_call_options options = { .deadline_ms = 1 };
    struct semel_posted posted;
    uint64_t a, b;

    (void)state;
    assert_int_equal(semel_client_post(NULL, "once", none, NULL, none, NULL), SEMEL_INVALID);
    assert_int_equal(semel_client_post(plain, "once", none, NULL, none, NULL), SEMEL_INVALID);
    assert_int_equal(semel_client_next_result(plain, 0, &posted), SEMEL_INVALID);
    assert_int_equal(semel_client_accept(plain, 1), SEMEL_INVALID);
    semel_client_withdraw(plain, 1);
    semel_client_withdraw(NULL, 1);
    semel_client_withdraw(desk->client, 1);
    semel_client_posted(plain, &a, &b);
    assert_int_equal(a + b, 0);
    assert_int_equal(semel_client_post(desk->client, "once", none, &options, none, NULL),
                     SEMEL_INVALID);
    options = (struct semel_call_options){ .rerun_ok = true };
    assert_int_equal(semel_client_post(desk->client, "once", none, &options, none, NULL),
                     SEMEL_INVALID);
    options = (struct semel_call_options){ .refuse_when_full = true };
    assert_int_equal(semel_client_post(desk->client, "once", none, &options, none, NULL),
                     SEMEL_INVALID);
    assert_int_equal(semel_client_post(desk->client, "once", none, NULL, nowhere, NULL),
                     SEMEL_INVALID);
    assert_int_equal(semel_client_post(desk->client, "", none, NULL, none, NULL), SEMEL_INVALID);
    assert_int_equal(semel_client_next_result(desk->client, 0, NULL), SEMEL_INVALID);
    desk_counts(desk, 0, 0);
    assert_int_equal(kit_box_rows(desk->box).calls, 0);
    assert_int_equal(semel_client_destroy(plain), SEMEL_OK);
    desk_end(desk);
}

/* pending_calls bounds what has no result. */
static void test_full(void **state)
{
    struct semel_client_options options = { .pending_calls = 2 };
    struct desk *desk = desk_go(&options);

    (void)state;
    desk_post(desk, "gated", "a");
    desk_post(desk, "gated", "b");
    assert_int_equal(semel_client_post(desk->client, "gated", semel_bytes_text(""), NULL,
                                       semel_bytes_text(""), NULL),
                     SEMEL_OVERLOADED);
    assert_int_equal(kit_box_rows(desk->box).calls, 2);
    gate_open(&desk->gate, true);
    for (int i = 0; i < 2; i++) {
        struct semel_posted posted = desk_take(desk);

        semel_posted_clear(&posted);
    }
    desk_post(desk, "gated", "c"); /* results that were not accepted are not counted */
    desk_expect(desk, "c", SEMEL_VALUE, SEMEL_OK);
    desk_end(desk);
}

/* --- withdrawn ------------------------------------------------------------------------------ */

static void test_withdraw_unsent(void **state)
{
    struct desk *desk = desk_make(NULL);
    uint64_t id;

    (void)state;
    desk_open(desk);
    id = desk_post(desk, "once", "a");
    semel_client_withdraw(desk->client, id);
    desk_expect(desk, "a", SEMEL_NOT_EXECUTED, SEMEL_CANCELLED);
    rig_serve(desk->shop->rig);
    desk_post(desk, "once", "b");
    desk_expect(desk, "b", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 1);
    desk_end(desk);
}

static void test_withdraw_running(void **state)
{
    struct desk *desk = desk_go(NULL);
    uint64_t id = desk_post(desk, "gated", "a");
    struct semel_posted posted;

    (void)state;
    wait_inside(&desk->gate, 1);
    semel_client_withdraw(desk->client, id);
    semel_client_withdraw(desk->client, id);
    assert_int_equal(semel_client_next_result(desk->client, 20, &posted), SEMEL_DEADLINE);
    gate_open(&desk->gate, true); /* a handler that does not look is not disturbed */
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    semel_client_withdraw(desk->client, id);
    desk_end(desk);
}

/* --- ends ------------------------------------------------------------------------------------ */

static void test_without_store(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct rig *rig = rig_make(NULL);
    struct semel_client_options options = { 0 };
    struct kit_box *box = kit_box_make();
    struct semel_posted posted;
    struct semel_client *client;

    (void)state;
    rig_export(rig, "once", echo, NULL, NULL);
    rig_serve(rig);
    options.outbox = kit_box_open(box);
    client = rig_connect(rig, &options);
    assert_int_equal(
        semel_client_post(client, "once", semel_bytes_text(""), NULL, semel_bytes_text(""), NULL),
        SEMEL_OK);
    assert_int_equal(semel_client_next_result(client, 60000, &posted), SEMEL_OK);
    assert_int_equal(posted.result.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(posted.result.status, SEMEL_NO_KEYS);
    semel_posted_clear(&posted);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    kit_box_free(box);
    rig_end(rig);
    desk_end(desk);
}

static void *stop_soon(void *client)
{
    kit_sleep_ms(50);
    semel_client_stop(client);
    return NULL;
}

/* What has no result stays in the file. */
static void test_stopped(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct semel_posted posted;
    pthread_t thread;

    (void)state;
    desk_post(desk, "once", "a");
    assert_true(kit_eventually(desk_has_result, desk, 60));
    desk_post(desk, "gated", "b");
    wait_inside(&desk->gate, 1);
    pthread_create(&thread, NULL, stop_soon, desk->client);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(semel_client_next_result(desk->client, -1, &posted), SEMEL_STOPPED);
    pthread_join(thread, NULL);
    assert_int_equal(kit_box_rows(desk->box).calls, 1);
    assert_int_equal(kit_box_rows(desk->box).results, 0);
    desk_counts(desk, 1, 0);
    desk_end(desk);
}

/* --- threads ---------------------------------------------------------------------------------- */

struct notices {
    atomic_int results, deadlocks;
};

static void on_result(struct semel_client *client, void *user)
{
    struct notices *notices = user;
    struct semel_posted posted;

    if (semel_client_post(client, "once", semel_bytes_text(""), NULL, semel_bytes_text(""), NULL) ==
            SEMEL_WOULD_DEADLOCK &&
        semel_client_accept(client, 1) == SEMEL_WOULD_DEADLOCK &&
        semel_client_next_result(client, 1, &posted) == SEMEL_WOULD_DEADLOCK)
        atomic_fetch_add(&notices->deadlocks, 1);
    REQUIRE(semel_client_next_result(client, 0, &posted) == SEMEL_OK);
    semel_posted_clear(&posted);
    atomic_fetch_add(&notices->results, 1);
}

static bool is_two(void *arg)
{
    return atomic_load((atomic_int *)arg) == 2;
}

static void test_callback(void **state)
{
    struct notices notices = { 0 };
    struct semel_client_options options = { .on_result = on_result, .result_user = &notices };
    struct desk *desk = desk_go(&options);

    (void)state;
    desk_post(desk, "once", "a");
    desk_post(desk, "once", "b");
    assert_true(kit_eventually(is_two, &notices.results, 60));
    assert_int_equal(atomic_load(&notices.deadlocks), 2);
    desk_end(desk);
}

#define POSTERS 6
#define POSTS 60

struct poster {
    struct desk *desk;
    pthread_t thread;
    int number, taken;
};

static void *post_many(void *arg)
{
    struct poster *poster = arg;
    struct semel_client *client = poster->desk->client;

    for (int i = 0; i < POSTS; i++) {
        /* Half of the keys are two threads'. */
        struct semel_call_options options;
        struct semel_posted posted;
        char key[32];

        snprintf(key, sizeof key, "%d/%d", i % 2 ? poster->number : poster->number / 2, i);
        options = (struct semel_call_options){ .key = key };
        REQUIRE(semel_client_post(client, "once", semel_bytes_text(key), &options,
                                  semel_bytes_text(key), NULL) == SEMEL_OK);
        while (semel_client_next_result(client, 0, &posted) == SEMEL_OK) {
            REQUIRE(posted.result.outcome == SEMEL_VALUE);
            REQUIRE(strcmp(posted.key, (const char *)posted.result.body.data) == 0 ||
                    memcmp(posted.key, posted.result.body.data, posted.result.body.size) == 0);
            REQUIRE(semel_client_accept(client, posted.id) == SEMEL_OK);
            semel_posted_clear(&posted);
            poster->taken++;
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct poster posters[POSTERS];
    int taken = 0;

    (void)state;
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){ .desk = desk, .number = i };
        REQUIRE(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]) == 0);
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(posters[i].thread, NULL);
    for (;;) {
        struct semel_posted posted;
        uint64_t outstanding, results;

        semel_client_posted(desk->client, &outstanding, &results);
        if (outstanding + results == 0)
            break;
        posted = desk_take(desk);
        assert_int_equal(posted.result.outcome, SEMEL_VALUE);
        assert_int_equal(semel_client_accept(desk->client, posted.id), SEMEL_OK);
        semel_posted_clear(&posted);
        taken++;
    }
    for (int i = 0; i < POSTERS; i++)
        taken += posters[i].taken;
    /* A shared key is one run, however often its result was handed out. */
    assert_int_equal(atomic_load(&desk->runs), POSTERS * POSTS / 2 + POSTERS / 2 * POSTS / 2);
    assert_true(taken >= POSTERS * POSTS / 2 + POSTERS / 2 * POSTS / 2);
    assert_int_equal(kit_box_rows(desk->box).calls, 0);
    desk_end(desk);
}

static void test_forked(void **state)
{
    struct desk *desk = desk_go(NULL);
    int status;
    pid_t child;

    (void)state;
    desk_post(desk, "once", "a");
    child = fork();
    if (child == 0) {
        struct semel_posted posted;
        uint64_t results = 1;

        if (semel_client_post(desk->client, "once", semel_bytes_text(""), NULL,
                              semel_bytes_text(""), NULL) != SEMEL_FORKED ||
            semel_client_accept(desk->client, 1) != SEMEL_FORKED ||
            semel_client_next_result(desk->client, -1, &posted) != SEMEL_FORKED)
            _exit(1);
        semel_client_posted(desk->client, NULL, &results);
        semel_client_withdraw(desk->client, 1);
        _exit(results == 0 && semel_client_destroy(desk->client) == SEMEL_FORKED ? 0 : 2);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    desk_end(desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("post and accept", test_post_and_accept),
        TEST("accepted before it is handed out", test_accept_early),
        TEST("a method and key name one call", test_names),
        TEST("drawn keys", test_drawn_keys),
        TEST("large bodies and tags", test_large),
        TEST("refused arguments", test_refused),
        TEST("a full outbox", test_full),
        TEST("withdrawn before it was sent", test_withdraw_unsent),
        TEST("withdrawn while it runs", test_withdraw_running),
        TEST("a server without a store", test_without_store),
        TEST("stopped", test_stopped),
        TEST("the callback", test_callback),
        TEST("many threads", test_threads),
        TEST("a fork", test_forked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
