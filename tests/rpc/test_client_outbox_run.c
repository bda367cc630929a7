/* SPDX-License-Identifier: MIT */
/* What an outbox has in its file before what else happens; and a file that does not take it. */
#include "server_kit.h"

#include "store_kit.h"

#include "outbox_kit.h"

struct post {
    struct desk *desk;
    const char *key;
    pthread_t thread;
    atomic_int over;
    enum semel_status status;
};

static void *post_one(void *arg)
{
    struct post *post = arg;
    struct semel_call_options options = { .key = post->key };

    post->status = semel_client_post(post->desk->client, "once", semel_bytes_text(post->key),
                                     &options, semel_bytes_text(post->key), NULL);
    atomic_store(&post->over, 1);
    return NULL;
}

static void post_aside(struct post *post, struct desk *desk, const char *key)
{
    memset(post, 0, sizeof *post);
    post->desk = desk;
    post->key = key;
    REQUIRE(pthread_create(&post->thread, NULL, post_one, post) == 0);
}

static enum semel_status post_end(struct post *post)
{
    pthread_join(post->thread, NULL);
    return post->status;
}

static uint64_t sessions(struct desk *desk)
{
    return rig_counters(desk->shop->rig).sessions_created;
}

/* Once a call is through, the identity is written, and not before the next connection again. */
static void settle(struct desk *desk)
{
    desk_post(desk, "once", "before");
    desk_expect(desk, "before", SEMEL_VALUE, SEMEL_OK);
    atomic_store(&desk->runs, 0);
}

/* --- the order of things ------------------------------------------------------------------------
 * */

/* No word to the server before there is an identity to come back with. */
static void test_identity_first(void **state)
{
    struct desk *desk = desk_make(NULL);

    (void)state;
    rig_serve(desk->shop->rig);
    kit_box_allow(desk->box, 0);
    desk_open(desk);
    kit_box_wait_held(desk->box);
    kit_sleep_ms(50);
    assert_false(kit_box_rows(desk->box).identity);
    assert_int_equal(sessions(desk), 0);
    kit_box_allow(desk->box, -1);
    assert_int_equal(semel_client_wait_connected(desk->client, 60000, NULL, 0), SEMEL_OK);
    assert_true(kit_box_rows(desk->box).identity);
    assert_int_equal(sessions(desk), 1);
    desk_end(desk);
}

/* A call that is not in the file is not sent, and its poster waits. */
static void test_call_before_it_is_sent(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct post post;

    (void)state;
    settle(desk);
    kit_box_allow(desk->box, 0);
    post_aside(&post, desk, "a");
    kit_box_wait_held(desk->box);
    kit_sleep_ms(50);
    assert_int_equal(atomic_load(&post.over), 0);
    assert_int_equal(atomic_load(&desk->runs), 0);
    kit_box_allow(desk->box, -1);
    assert_int_equal(post_end(&post), SEMEL_OK);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    desk_end(desk);
}

/* A result that is not in the file is neither acknowledged nor handed out. */
static void test_result_before_it_is_acknowledged(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct semel_posted posted;

    (void)state;
    desk_post(desk, "gated", "a");
    wait_inside(&desk->gate, 1);
    kit_box_allow(desk->box, 0);
    gate_open(&desk->gate, true);
    kit_box_wait_held(desk->box);
    kit_sleep_ms(50);
    assert_int_equal(shop_rows(desk->shop).ended, 1);
    assert_int_equal(semel_client_next_result(desk->client, 0, &posted), SEMEL_DEADLINE);
    desk_counts(desk, 1, 0);
    kit_box_allow(desk->box, -1);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    assert_true(kit_eventually(shop_at_rest, desk->shop, 60));
    desk_end(desk);
}

/* What was posted during a commit goes in the next one, together. */
static void test_together(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct post posts[20];
    char keys[20][8];

    (void)state;
    settle(desk);
    kit_box_allow(desk->box, 0);
    for (int i = 0; i < 20; i++) {
        snprintf(keys[i], sizeof keys[i], "%d", i);
        post_aside(&posts[i], desk, keys[i]);
        if (i == 0)
            kit_box_wait_held(desk->box);
    }
    kit_sleep_ms(100);
    kit_box_allow(desk->box, 2);
    for (int i = 0; i < 20; i++)
        assert_int_equal(post_end(&posts[i]), SEMEL_OK);
    assert_int_equal(kit_box_rows(desk->box).calls, 20);
    kit_box_allow(desk->box, -1);
    desk_end(desk);
}

/* --- a file that takes nothing
 * -------------------------------------------------------------------- */

static void test_full_disk(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct semel_call_options options = { .key = "a" };
    uint64_t id = 0;

    (void)state;
    settle(desk);
    kit_box_fail(desk->box, 1, SML_NOT_STORED, SEMEL_STORE_FULL, false);
    assert_int_equal(semel_client_post(desk->client, "once", semel_bytes_text("a"), &options,
                                       semel_bytes_text("a"), &id),
                     SEMEL_STORE_FULL);
    assert_int_equal(id, 0);
    desk_counts(desk, 0, 0);
    kit_sleep_ms(150);
    assert_int_equal(atomic_load(&desk->runs), 0);
    desk_post(desk, "once", "a"); /* it was not posted, and can be */
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    desk_end(desk);
}

static void test_full_disk_for_a_result(void **state)
{
    struct desk *desk = desk_go(NULL);
    uint64_t id = desk_post(desk, "gated", "a");
    struct semel_posted posted;

    (void)state;
    wait_inside(&desk->gate, 1);
    kit_box_fail(desk->box, 2, SML_NOT_STORED, SEMEL_STORE_FULL, false);
    gate_open(&desk->gate, true);
    posted = desk_take(desk); /* it was tried again */
    assert_int_equal(posted.id, id);
    semel_posted_clear(&posted);
    kit_box_fail(desk->box, 1, SML_NOT_STORED, SEMEL_STORE_FULL, false);
    assert_int_equal(semel_client_accept(desk->client, id), SEMEL_STORE_FULL);
    desk_counts(desk, 0, 1);
    assert_int_equal(semel_client_accept(desk->client, id), SEMEL_OK);
    desk_counts(desk, 0, 0);
    desk_end(desk);
}

/* Was the call written? Only the next process knows; this one says so, and does nothing more. */
static void unknown_commit(bool stored)
{
    struct desk *desk = desk_go(NULL);
    struct semel_call_options options = { .key = "a" };
    struct semel_posted posted;

    settle(desk);
    kit_box_fail(desk->box, 1, SML_STORE_UNKNOWN, SEMEL_STORE_FAILED, stored);
    assert_int_equal(semel_client_post(desk->client, "once", semel_bytes_text("a"), &options,
                                       semel_bytes_text("a"), NULL),
                     SEMEL_STORE_FAILED);
    assert_int_equal(semel_client_next_result(desk->client, -1, &posted), SEMEL_STORE_FAILED);
    options.key = "b";
    assert_int_equal(semel_client_post(desk->client, "once", semel_bytes_text("b"), &options,
                                       semel_bytes_text("b"), NULL),
                     SEMEL_STORE_FAILED);
    kit_sleep_ms(50);
    assert_int_equal(atomic_load(&desk->runs), 0);
    desk_close(desk);
    desk_open(desk);
    desk_counts(desk, stored, 0);
    desk_post(desk, "once", "a");
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 1);
    desk_end(desk);
}

static void test_unknown_commit(void **state)
{
    (void)state;
    unknown_commit(false);
    unknown_commit(true);
}

/* A result in doubt is the server's still. */
static void test_unknown_commit_of_a_result(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct semel_posted posted;

    (void)state;
    desk_post(desk, "gated", "a");
    wait_inside(&desk->gate, 1);
    kit_box_fail(desk->box, 1, SML_STORE_UNKNOWN, SEMEL_STORE_FAILED, false);
    gate_open(&desk->gate, true);
    assert_int_equal(semel_client_next_result(desk->client, -1, &posted), SEMEL_STORE_FAILED);
    desk_close(desk);
    assert_int_equal(shop_rows(desk->shop).ended, 1);
    desk_open(desk);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 1);
    assert_true(kit_eventually(shop_at_rest, desk->shop, 60));
    desk_end(desk);
}

/* --- two at once ---------------------------------------------------------------------------- */

static void *accept_one(void *arg)
{
    struct post *post = arg;
    struct semel_posted posted = desk_take(post->desk);

    post->status = semel_client_accept(post->desk->client, posted.id);
    semel_posted_clear(&posted);
    return NULL;
}

/* A call whose result is just being accepted is over: whoever posts its name posts a call. */
static void test_post_during_accept(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct post accept = { .desk = desk }, post;

    (void)state;
    desk_post(desk, "once", "a");
    assert_true(kit_eventually(desk_has_result, desk, 60));
    kit_box_allow(desk->box, 0);
    REQUIRE(pthread_create(&accept.thread, NULL, accept_one, &accept) == 0);
    kit_box_wait_held(desk->box);
    post_aside(&post, desk, "a");
    kit_sleep_ms(50);
    assert_int_equal(atomic_load(&post.over), 0);
    kit_box_allow(desk->box, -1);
    assert_int_equal(post_end(&accept), SEMEL_OK);
    assert_int_equal(post_end(&post), SEMEL_OK);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 1); /* the server knows the key */
    desk_end(desk);
}

static void *close_desk(void *desk)
{
    desk_close(desk);
    return NULL;
}

/* Whoever waits for the file is told, when the client ends and the file takes nothing. */
static void test_closed_meanwhile(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct post first, second;
    enum semel_status status;
    pthread_t closer;

    (void)state;
    settle(desk);
    kit_box_allow(desk->box, 0);
    post_aside(&first, desk, "a");
    kit_box_wait_held(desk->box);
    post_aside(&second, desk, "b");
    kit_sleep_ms(20);
    REQUIRE(pthread_create(&closer, NULL, close_desk, desk) == 0);
    kit_sleep_ms(20);
    kit_box_fail(desk->box, 1, SML_NOT_STORED, SEMEL_STORE_FULL, false);
    kit_box_allow(desk->box, -1);
    assert_int_equal(post_end(&first), SEMEL_STORE_FULL);
    status = post_end(&second); /* OK: the client was in no hurry */
    assert_true(status == SEMEL_STOPPED || status == SEMEL_OK);
    pthread_join(closer, NULL);
    desk_open(desk);
    desk_end(desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("the identity comes first", test_identity_first),
        TEST("a call is written, then sent", test_call_before_it_is_sent),
        TEST("a result is written, then acknowledged", test_result_before_it_is_acknowledged),
        TEST("one commit for what came during another", test_together),
        TEST("a full disk, for a call", test_full_disk),
        TEST("a full disk, for a result", test_full_disk_for_a_result),
        TEST("a commit in doubt, of a call", test_unknown_commit),
        TEST("a commit in doubt, of a result", test_unknown_commit_of_a_result),
        TEST("posted while its namesake is accepted", test_post_during_accept),
        TEST("closed while others wait", test_closed_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
