/* SPDX-License-Identifier: MIT */
/* Calls as deferreds of a loop. */
#include "client_kit.h"

#include <semel/deferred.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/loop_thread.h"

/* Memory that is refused: this thread's n-th allocation from now (0: none), and anybody's of many
 * bytes. */
#define MANY_BYTES 3000
static _Thread_local int refuse_at;
static atomic_bool refuse_many;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

static bool is_refused(size_t bytes)
{
    return (refuse_at > 0 && --refuse_at == 0) ||
           (bytes >= MANY_BYTES && atomic_load(&refuse_many));
}

void *__wrap_malloc(size_t bytes)
{
    return is_refused(bytes) ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return is_refused(count * bytes) ? NULL : __real_calloc(count, bytes);
}

/* "echo" gets its body, "many" many bytes, "no" a failure; "hang" gets a verdict only when it is
 * cancelled, and "mute" never. */
static void play(struct kit_script *script, void *arg)
{
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;

    (void)arg;
    if (!kit_script_meet(script))
        return;
    while (kit_script_frame(script, &frame)) {
        struct sml_reply_frame reply = { .verdict = { .outcome = SEMEL_NOT_EXECUTED,
                                                      .status = SEMEL_CANCELLED } };
        const struct semel_bytes method = frame.u.call.method;

        if (frame.type == SML_CANCEL) {
            (void)kit_script_send(script, out, sml_encode_reply(out, frame.xid, &reply));
        } else if (frame.type == SML_CALL && memcmp(method.data, "echo", 4) == 0) {
            (void)kit_script_reply(script, frame.xid, frame.u.call.fragment);
        } else if (frame.type == SML_CALL && memcmp(method.data, "many", 4) == 0) {
            static const char many[MANY_BYTES];

            (void)kit_script_reply(script, frame.xid, semel_bytes(many, sizeof many));
        } else if (frame.type == SML_CALL && memcmp(method.data, "no", 2) == 0) {
            reply.verdict = (struct sml_verdict){ .outcome = SEMEL_FAILURE,
                                                  .status = SEMEL_FAILED,
                                                  .code = 17 };
            (void)kit_script_send(script, out, sml_encode_reply(out, frame.xid, &reply));
        }
    }
}

struct world {
    struct kit_script *script;
    struct semel_client *client;
    struct loop_thread it;
};

static void open_world(struct world *world, kit_play how)
{
    const struct semel_client_options options = { .cancel_grace_ms = 20 };

    world->script = kit_script_start(how, NULL);
    world->client = open_client(kit_script_address(world->script), &options);
    loop_thread_start(&world->it, NULL);
}

static void close_world(struct world *world)
{
    close_client(world->client);
    loop_thread_end(&world->it);
    kit_script_stop(world->script);
}

static struct semel_deferred *ask(struct world *world, const char *method, int64_t deadline_ms)
{
    const struct semel_call_options options = { .deadline_ms = deadline_ms };
    struct semel_deferred *deferred = NULL;

    assert_int_equal(semel_client_defer(world->client, method, semel_bytes_text("hello"), &options,
                                        world->it.loop, &deferred),
                     SEMEL_OK);
    return deferred;
}

static struct semel_fired end_of(struct semel_deferred *deferred)
{
    struct semel_fired fired;

    assert_int_equal(semel_deferred_wait(deferred, 60000, &fired), SEMEL_OK);
    semel_deferred_unref(deferred);
    return fired;
}

static void outcomes(void **state)
{
    struct world world;
    struct semel_fired fired;

    (void)state;
    open_world(&world, play);
    fired = end_of(ask(&world, "echo", 60000));
    assert_int_equal(fired.status, SEMEL_OK);
    assert_ptr_equal(semel_fired_call(&fired), fired.value);
    assert_int_equal(semel_fired_call(&fired)->outcome, SEMEL_VALUE);
    assert_int_equal(semel_fired_call(&fired)->body.size, 5);
    assert_memory_equal(semel_fired_call(&fired)->body.data, "hello", 5);
    semel_fired_clear(&fired);
    assert_null(semel_fired_call(&fired));
    assert_null(semel_fired_call(NULL));

    fired = end_of(ask(&world, "no", 60000));
    assert_int_equal(fired.status, SEMEL_FAILED);
    assert_int_equal(fired.code, 17);
    assert_int_equal(semel_fired_call(&fired)->outcome, SEMEL_FAILURE);
    semel_fired_clear(&fired);

    fired = end_of(ask(&world, "mute", 20)); /* the verdict of its CANCEL comes in time */
    assert_int_not_equal(fired.status, SEMEL_OK);
    assert_int_equal(semel_fired_call(&fired)->outcome, SEMEL_NOT_EXECUTED);
    semel_fired_clear(&fired);

    fired = end_of(ask(&world, "echo", -1));
    assert_int_equal(fired.status, SEMEL_EXPIRED);
    assert_int_equal(semel_fired_call(&fired)->outcome, SEMEL_NOT_EXECUTED);
    assert_string_not_equal(fired.text, "");
    semel_fired_clear(&fired);
    close_world(&world);
}

static void play_mute(struct kit_script *script, void *arg)
{
    struct sml_frame frame;

    (void)arg;
    if (kit_script_meet(script))
        while (kit_script_frame(script, &frame))
            ;
}

static void unknown(void **state)
{
    struct world world;
    struct semel_fired fired;

    (void)state;
    open_world(&world, play_mute);
    assert_int_equal(semel_client_wait_connected(world.client, 60000, NULL, 0), SEMEL_OK);
    fired = end_of(ask(&world, "mute", 20));
    assert_int_equal(fired.status, SEMEL_DEADLINE);
    assert_int_equal(semel_fired_call(&fired)->outcome, SEMEL_UNKNOWN);
    semel_fired_clear(&fired);
    close_world(&world);
}

static void cancelled(void **state)
{
    struct world world;
    struct semel_deferred *deferred;
    struct semel_fired fired;

    (void)state;
    open_world(&world, play);
    for (int i = 0; i < 100; i++) { /* before it is sent, under way, and when it is over */
        deferred = ask(&world, i % 2 ? "hang" : "echo", 60000);
        if (i % 10 == 9)
            kit_sleep_ms(1);
        semel_deferred_cancel(deferred);
        fired = end_of(deferred);
        if (fired.status == SEMEL_OK) {
            assert_int_equal(i % 2, 0);
        } else {
            assert_int_equal(fired.status, SEMEL_CANCELLED);
            assert_int_equal(semel_fired_call(&fired)->outcome, SEMEL_NOT_EXECUTED);
        }
        semel_fired_clear(&fired);
    }
    close_world(&world);
}

/* The call's verdict comes through with the words of the timeout. */
static void set_timeout(void *user)
{
    assert_int_equal(semel_deferred_timeout(user, 10), SEMEL_OK);
}

static void timed_out(void **state)
{
    struct world world;
    struct semel_deferred *deferred;
    struct semel_fired fired;

    (void)state;
    open_world(&world, play);
    deferred = ask(&world, "hang", 60000);
    loop_thread_on(&world.it, set_timeout, deferred);
    fired = end_of(deferred);
    assert_int_equal(fired.status, SEMEL_DEADLINE);
    assert_int_equal(semel_fired_call(&fired)->outcome, SEMEL_NOT_EXECUTED);
    semel_fired_clear(&fired);
    close_world(&world);
}

struct group {
    struct world *world;
    struct semel_deferred *out;
};

static void gather(void *user)
{
    struct group *group = user;
    struct semel_deferred *members[4];

    members[0] = ask(group->world, "echo", 60000);
    members[1] = ask(group->world, "no", 60000);
    members[2] = ask(group->world, "echo", 60000);
    members[3] = ask(group->world, "echo", -1);
    assert_int_equal(semel_deferred_gather(&group->out, group->world->it.loop, members, 4,
                                           SEMEL_GATHER_ALL | SEMEL_GATHER_CONSUME),
                     SEMEL_OK);
}

static void gathered(void **state)
{
    static const enum semel_outcome expected[4] = { SEMEL_VALUE, SEMEL_FAILURE, SEMEL_VALUE,
                                                    SEMEL_NOT_EXECUTED };
    struct world world;
    struct group group = { &world, NULL };
    struct semel_fired fired;
    const struct semel_gathered *results;

    (void)state;
    open_world(&world, play);
    loop_thread_on(&world.it, gather, &group);
    fired = end_of(group.out);
    assert_int_equal(fired.status, SEMEL_OK);
    results = fired.value;
    assert_int_equal(results->count, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(semel_fired_call(&results->results[i])->outcome, expected[i]);
    semel_fired_clear(&fired);
    close_world(&world);
}

static void refused(void **state)
{
    struct world world;
    struct semel_deferred *untouched = NULL;

    (void)state;
    open_world(&world, play_mute);
    assert_int_equal(
        semel_client_defer(NULL, "x", semel_bytes(NULL, 0), NULL, world.it.loop, &untouched),
        SEMEL_INVALID);
    assert_int_equal(
        semel_client_defer(world.client, "x", semel_bytes(NULL, 0), NULL, NULL, &untouched),
        SEMEL_INVALID);
    assert_int_equal(
        semel_client_defer(world.client, "x", semel_bytes(NULL, 0), NULL, world.it.loop, NULL),
        SEMEL_INVALID);
    assert_int_equal(
        semel_client_defer(world.client, "", semel_bytes(NULL, 0), NULL, world.it.loop, &untouched),
        SEMEL_INVALID);
    assert_null(untouched);
    semel_client_stop(world.client);
    assert_int_equal(semel_client_defer(world.client, "x", semel_bytes(NULL, 0), NULL,
                                        world.it.loop, &untouched),
                     SEMEL_STOPPED);
    assert_null(untouched);
    close_world(&world);
}

/* Ended by its client, let go before: nothing is left, and nobody is disturbed. */
static void stopped(void **state)
{
    struct world world;
    struct semel_deferred *kept;
    struct semel_fired fired;

    (void)state;
    open_world(&world, play_mute);
    semel_deferred_unref(ask(&world, "mute", 60000));
    kept = ask(&world, "mute", 60000);
    close_client(world.client);
    fired = end_of(kept);
    assert_int_equal(fired.status, SEMEL_STOPPED);
    semel_fired_clear(&fired);
    loop_thread_end(&world.it);
    kit_script_stop(world.script);
}

/* What would block the loop is refused there, whatever else it would come to. */
static void block(void *user)
{
    struct world *world = user;
    struct semel_server *server;
    struct semel_result result;
    char text[64];

    assert_int_equal(semel_client_call(world->client, "echo", semel_bytes_text("x"), NULL, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_WOULD_DEADLOCK);
    semel_result_clear(&result);
    assert_int_equal(semel_client_wait_connected(world->client, 1000, text, sizeof text),
                     SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_server_create(&server, NULL), SEMEL_OK);
    assert_int_equal(semel_server_run(server), SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_server_start(server), SEMEL_OK);
    assert_int_equal(semel_server_wait(server, 1, NULL), SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_server_wait(server, 0, NULL), SEMEL_DEADLINE);
    assert_int_equal(semel_server_destroy(server), SEMEL_OK);
}

static void no_blocking_on_the_loop(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, play);
    loop_thread_on(&world.it, block, &world);
    close_world(&world);
}

static struct semel_deferred *ask_without(struct world *world, int n, bool *out_refused)
{
    struct semel_deferred *deferred = NULL;
    enum semel_status status;

    refuse_at = n;
    status = semel_client_defer(world->client, "echo", semel_bytes_text("hello"), NULL,
                                world->it.loop, &deferred);
    *out_refused = refuse_at == 0;
    refuse_at = 0;
    assert_true(status == SEMEL_OK || (*out_refused && status == SEMEL_NO_MEMORY));
    assert_int_equal(deferred != NULL, status == SEMEL_OK);
    return deferred;
}

/* Each allocation of a submission fails once: nothing was made, or it fires with the truth. */
static void no_memory(void **state)
{
    struct semel_deferred *deferred;
    struct semel_fired fired;
    struct world world;
    bool refused = true;
    int made_nothing = 0;

    (void)state;
    open_world(&world, play);
    assert_int_equal(semel_client_wait_connected(world.client, 60000, NULL, 0), SEMEL_OK);
    for (int n = 1; refused; n++) {
        deferred = ask_without(&world, n, &refused);
        made_nothing += deferred == NULL;
        if (deferred == NULL)
            continue;
        fired = end_of(deferred);
        assert_true(fired.status == SEMEL_OK || (refused && fired.status == SEMEL_NO_MEMORY));
        assert_int_equal(semel_fired_call(&fired)->outcome,
                         fired.status == SEMEL_OK ? SEMEL_VALUE : SEMEL_NOT_EXECUTED);
        semel_fired_clear(&fired);
    }
    assert_int_equal(made_nothing, 3); /* without the deferred, the result, the call */
    close_world(&world);
}

/* There is no memory for the reply: a failure, and the truth is that the call happened. */
static void no_memory_for_the_reply(void **state)
{
    struct semel_fired fired;
    struct world world;

    (void)state;
    open_world(&world, play);
    assert_int_equal(semel_client_wait_connected(world.client, 60000, NULL, 0), SEMEL_OK);
    atomic_store(&refuse_many, true);
    fired = end_of(ask(&world, "many", 60000));
    atomic_store(&refuse_many, false);
    assert_int_equal(fired.status, SEMEL_NO_MEMORY);
    assert_int_equal(semel_fired_call(&fired)->outcome, SEMEL_VALUE);
    assert_int_equal(semel_fired_call(&fired)->status, SEMEL_NO_MEMORY);
    semel_fired_clear(&fired);
    fired = end_of(ask(&world, "many", 60000));
    assert_int_equal(fired.status, SEMEL_OK);
    assert_int_equal(semel_fired_call(&fired)->body.size, MANY_BYTES);
    semel_fired_clear(&fired);
    close_world(&world);
}

static void in_a_forked_child(void **state)
{
    struct semel_deferred *deferred = NULL;
    struct world world;
    int status = -1;
    pid_t child;

    (void)state;
    open_world(&world, play);
    child = fork();
    if (child == 0)
        _exit(semel_client_defer(world.client, "echo", semel_bytes_text("hello"), NULL,
                                 world.it.loop, &deferred) == SEMEL_FORKED
                  ? 0
                  : 1);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("defer: outcomes", outcomes),
        TEST("defer: unknown", unknown),
        TEST("defer: cancelled", cancelled),
        TEST("defer: timed out", timed_out),
        TEST("defer: gathered", gathered),
        TEST("defer: refused", refused),
        TEST("defer: stopped", stopped),
        TEST("defer: no memory", no_memory),
        TEST("defer: no memory for the reply", no_memory_for_the_reply),
        TEST("defer: in a forked child", in_a_forked_child),
        TEST("defer: nothing blocks on the loop's thread", no_blocking_on_the_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
