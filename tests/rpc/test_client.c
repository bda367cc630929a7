/* SPDX-License-Identifier: MIT */
/* A client's life: creation, state, stopping and destruction in any order, fork, no leaks. */
#include "client_kit.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* --- options ---------------------------------------------------------------------------- */

static void expect_create(const char *address, struct semel_client_options options,
                          enum semel_status status)
{
    struct semel_client *client = (struct semel_client *)(uintptr_t)1;

    assert_int_equal(semel_client_create(&client, address, &options), status);
    assert_ptr_equal(client, (struct semel_client *)(uintptr_t)1);
}

static void test_options(void **state)
{
    struct semel_client_options o = SEMEL_CLIENT_OPTIONS_INIT;
    struct semel_client *client;
    struct kit_place place;

    (void)state;
    kit_place_make(&place);
    assert_int_equal(semel_client_create(NULL, place.address, NULL), SEMEL_INVALID);
    expect_create(NULL, o, SEMEL_INVALID);
    expect_create("", o, SEMEL_BAD_ADDRESS);
    expect_create("carrier-pigeon:home", o, SEMEL_BAD_ADDRESS);
    expect_create(place.address, (struct semel_client_options){ .deadline_ms = -1 }, SEMEL_INVALID);
    expect_create(place.address, (struct semel_client_options){ .connect_ms = -1 }, SEMEL_INVALID);
    expect_create(place.address, (struct semel_client_options){ .handshake_ms = INT64_MAX },
                  SEMEL_INVALID);
    expect_create(place.address,
                  (struct semel_client_options){ .window_calls = SEMEL_WINDOW_CALLS_MAX + 1 },
                  SEMEL_INVALID);
    expect_create(place.address,
                  (struct semel_client_options){ .body_bytes = SEMEL_BODY_BYTES_MAX + 1 },
                  SEMEL_INVALID);
    o = (struct semel_client_options){ .cancel_grace_ms = -1,
                                       .heartbeat_ms = -1,
                                       .give_up_ms = -1,
                                       .window_calls = SEMEL_WINDOW_CALLS_MAX,
                                       .body_bytes = SEMEL_BODY_BYTES_MAX };
    client = open_client(place.address, &o);
    close_client(client);
    assert_int_equal(semel_client_destroy(NULL), SEMEL_OK);
    semel_client_stop(NULL);
    kit_place_remove(&place);
}

/* --- state ------------------------------------------------------------------------------ */

struct history {
    atomic_int count;
    enum semel_client_state states[64];
};

static void record(struct semel_client *client, enum semel_client_state state,
                   enum semel_status status, const char *text, void *user)
{
    struct history *history = user;
    int at = atomic_load(&history->count);

    (void)client;
    (void)status;
    assert_non_null(text);
    if (at < 64) {
        history->states[at] = state;
        atomic_store(&history->count, at + 1);
    }
}

static bool three_states(void *arg)
{
    return atomic_load(&((struct history *)arg)->count) >= 3;
}

static void test_states(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct kit_relay *relay = kit_relay_start(kit_script_address(script) + 5, 0, 1);
    struct history history = { 0 };
    struct semel_client_options options = { .on_state = record, .state_user = &history };
    struct semel_client *client = open_client(kit_relay_address(relay), &options);

    (void)state;
    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    assert_int_equal(semel_client_state(client), SEMEL_CLIENT_CONNECTED);
    check_echo(client, "once");
    kit_relay_cut(relay);
    check_echo(client, "again");
    assert_true(kit_eventually(three_states, &history, 60));
    semel_client_stop(client);
    assert_int_equal(semel_client_state(client), SEMEL_CLIENT_STOPPED);
    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_STOPPED);
    close_client(client);
    assert_int_equal(history.count, 4);
    assert_int_equal(history.states[0], SEMEL_CLIENT_CONNECTED);
    assert_int_equal(history.states[1], SEMEL_CLIENT_RECONNECTING);
    assert_int_equal(history.states[2], SEMEL_CLIENT_CONNECTED);
    assert_int_equal(history.states[3], SEMEL_CLIENT_STOPPED);
    kit_relay_stop(relay);
    kit_script_stop(script);
}

/* --- stopping --------------------------------------------------------------------------- */

/* Takes calls and answers none. */
static void play_hang(struct kit_script *script, void *arg)
{
    struct sml_frame frame;

    while (!kit_script_stopping(script)) {
        if (!kit_script_meet(script))
            continue;
        while (kit_script_frame(script, &frame))
            if (frame.type == SML_CALL)
                atomic_fetch_add((atomic_int *)arg, 1);
    }
}

struct waiter {
    struct semel_client *client;
    pthread_t thread;
    struct semel_result result;
};

static void *wait_for_ever(void *arg)
{
    struct waiter *waiter = arg;

    semel_client_call(waiter->client, "hang", semel_bytes(NULL, 0), NULL, &waiter->result);
    return NULL;
}

struct goal {
    atomic_int *count;
    int least;
};

static bool reached(void *arg)
{
    const struct goal *goal = arg;

    return atomic_load(goal->count) >= goal->least;
}

static void wait_count(atomic_int *count, int least)
{
    struct goal goal = { count, least };

    assert_true(kit_eventually(reached, &goal, 60));
}

/* Blocked callers and callbacks; ended by stop, or by destroy alone. */
static void end_with_calls(bool stop_first, int callers, int started)
{
    atomic_int calls = 0;
    struct kit_script *script = kit_script_start(play_hang, &calls);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct waiter *waiters = calloc((size_t)callers + 1, sizeof *waiters);
    struct seen *seen = calloc((size_t)started + 1, sizeof *seen);
    struct semel_result result;

    for (int i = 0; i < callers; i++) {
        waiters[i].client = client;
        pthread_create(&waiters[i].thread, NULL, wait_for_ever, &waiters[i]);
    }
    for (int i = 0; i < started; i++)
        assert_int_equal(
            semel_client_start(client, "hang", semel_bytes(NULL, 0), NULL, note, &seen[i], NULL),
            SEMEL_OK);
    wait_count(&calls, callers + started);
    if (stop_first) {
        semel_client_stop(client);
        for (int i = 0; i < started; i++)
            assert_int_equal(seen[i].times, 1);
        semel_client_stop(client);
        assert_int_equal(semel_client_call(client, "late", semel_bytes(NULL, 0), NULL, &result),
                         SEMEL_NOT_EXECUTED);
        assert_int_equal(result.status, SEMEL_STOPPED);
        assert_non_null(strstr(result.text, "'late'"));
        semel_result_clear(&result);
        assert_int_equal(semel_client_start(client, "late", semel_bytes(NULL, 0), NULL, note,
                                            &seen[started], NULL),
                         SEMEL_STOPPED);
    }
    close_client(client);
    for (int i = 0; i < callers; i++) {
        pthread_join(waiters[i].thread, NULL);
        assert_int_equal(waiters[i].result.outcome, SEMEL_UNKNOWN);
        assert_int_equal(waiters[i].result.status, SEMEL_STOPPED);
        semel_result_clear(&waiters[i].result);
    }
    for (int i = 0; i < started; i++) {
        assert_int_equal(seen[i].times, 1);
        assert_int_equal(seen[i].outcome, SEMEL_UNKNOWN);
        semel_result_clear(&seen[i].taken);
    }
    assert_int_equal(seen[started].times, 0);
    free(waiters);
    free(seen);
    kit_script_stop(script);
}

static void test_stop(void **state)
{
    (void)state;
    for (int stop_first = 0; stop_first < 2; stop_first++) {
        end_with_calls(stop_first, 0, 0);
        end_with_calls(stop_first, 1, 0);
        end_with_calls(stop_first, 0, 1);
        end_with_calls(stop_first, 20, 20);
    }
}

struct stopper {
    struct semel_client *client;
    struct seen *others;
    enum semel_status destroyed;
    atomic_int times;
};

static void stop_in_callback(struct semel_result *result, void *user)
{
    struct stopper *stopper = user;

    (void)result;
    semel_client_stop(stopper->client);
    stopper->destroyed = semel_client_destroy(stopper->client);
    atomic_fetch_add(&stopper->times, 1);
}

static bool stopper_ran(void *arg)
{
    return atomic_load(&((struct stopper *)arg)->times) > 0;
}

static void test_stop_in_callback(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct stopper stopper = { .client = open_client(kit_script_address(script), NULL) };
    struct seen seen[10];

    (void)state;
    memset(seen, 0, sizeof seen);
    assert_int_equal(semel_client_start(stopper.client, "echo", semel_bytes(NULL, 0), NULL,
                                        stop_in_callback, &stopper, NULL),
                     SEMEL_OK);
    for (int i = 0; i < 10; i++)
        (void)!semel_client_start(stopper.client, "echo", semel_bytes(NULL, 0), NULL, note,
                                  &seen[i], NULL);
    assert_true(kit_eventually(stopper_ran, &stopper, 60));
    assert_int_equal(stopper.destroyed, SEMEL_WOULD_DEADLOCK);
    close_client(stopper.client);
    for (int i = 0; i < 10; i++) {
        assert_in_range(seen[i].times, 0, 1);
        semel_result_clear(&seen[i].taken);
    }
    kit_script_stop(script);
}

/* A callback that a stop runs may not destroy either. */
static void test_destroy_in_stop(void **state)
{
    atomic_int calls = 0;
    struct kit_script *script = kit_script_start(play_hang, &calls);
    struct stopper stopper = { .client = open_client(kit_script_address(script), NULL) };

    (void)state;
    assert_int_equal(semel_client_start(stopper.client, "hang", semel_bytes(NULL, 0), NULL,
                                        stop_in_callback, &stopper, NULL),
                     SEMEL_OK);
    wait_count(&calls, 1);
    semel_client_stop(stopper.client);
    assert_int_equal(stopper.times, 1);
    assert_int_equal(stopper.destroyed, SEMEL_WOULD_DEADLOCK);
    close_client(stopper.client);
    kit_script_stop(script);
}

/* --- fork ------------------------------------------------------------------------------- */

/* What a child sees; the number of the first thing that is wrong, or 0. */
static int in_child(struct semel_client *client)
{
    struct semel_client_counters counters;
    struct semel_result result;

    if (semel_client_call(client, "echo", semel_bytes(NULL, 0), NULL, &result) !=
            SEMEL_NOT_EXECUTED ||
        result.status != SEMEL_FORKED)
        return 1;
    semel_result_clear(&result);
    if (semel_client_start(client, "echo", semel_bytes(NULL, 0), NULL, note, NULL, NULL) !=
        SEMEL_FORKED)
        return 2;
    if (semel_client_wait_connected(client, 1, NULL, 0) != SEMEL_FORKED)
        return 3;
    semel_client_stop(client);
    semel_client_counters(client, &counters);
    if (semel_client_destroy(client) != SEMEL_FORKED)
        return 4;
    return 0;
}

static void test_fork(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct semel_client *client = open_client(kit_script_address(script), NULL);
    struct seen seen = { 0 };
    int status;
    pid_t pid;

    (void)state;
    for (int round = 0; round < 5; round++) {
        check_echo(client, "before");
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            _exit(in_child(client));
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        check_echo(client, "after");
        memset(&seen, 0, sizeof seen);
        assert_int_equal(
            semel_client_start(client, "echo", semel_bytes(NULL, 0), NULL, note, &seen, NULL),
            SEMEL_OK);
        wait_seen(&seen);
        assert_int_equal(seen.outcome, SEMEL_VALUE);
        semel_result_clear(&seen.taken);
    }
    close_client(client);
    kit_script_stop(script);
}

#define STACK_BYTES (256 * 1024)

/* A caller is blocked at the fork. Its record lies on its stack, which the child may not touch. */
static void test_fork_blocked(void **state)
{
    atomic_int calls = 0;
    struct kit_script *script = kit_script_start(play_hang, &calls);
    struct waiter waiter = { .client = open_client(kit_script_address(script), NULL) };
    void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pthread_attr_t attr;
    int status = -1;
    pid_t pid;

    (void)state;
    assert_ptr_not_equal(stack, MAP_FAILED);
    pthread_attr_init(&attr);
    assert_int_equal(pthread_attr_setstack(&attr, stack, STACK_BYTES), 0);
    assert_int_equal(pthread_create(&waiter.thread, &attr, wait_for_ever, &waiter), 0);
    wait_count(&calls, 1);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (mprotect(stack, STACK_BYTES, PROT_NONE) != 0)
            _exit(1);
        _exit(semel_client_destroy(waiter.client) == SEMEL_FORKED ? 0 : 2);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    assert_int_equal(status, 0);
    close_client(waiter.client);
    pthread_join(waiter.thread, NULL);
    assert_int_equal(waiter.result.status, SEMEL_STOPPED);
    semel_result_clear(&waiter.result);
    pthread_attr_destroy(&attr);
    munmap(stack, STACK_BYTES);
    kit_script_stop(script);
}

/* --- leaks ------------------------------------------------------------------------------ */

#define CYCLES 10000

static void test_cycles(void **state)
{
    struct kit_script *script = kit_script_start(kit_play_echo, NULL);
    struct kit_place nobody;
    int fds, threads;

    (void)state;
    kit_place_make(&nobody);
    close_client(open_client(kit_script_address(script), NULL));
    assert_true(kit_settled(kit_count_fds(), kit_count_threads()));
    kit_sleep_ms(20);
    fds = kit_count_fds();
    threads = kit_count_threads();
    for (int i = 0; i < CYCLES; i++) {
        struct semel_client *client =
            open_client(i % 10 == 9 ? nobody.address : kit_script_address(script), NULL);

        if (i % 10 < 8)
            check_echo(client, "cycle");
        close_client(client);
    }
    assert_true(kit_settled(fds, threads));
    kit_place_remove(&nobody);
    kit_script_stop(script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("options", test_options),
        TEST("states are seen and told", test_states),
        TEST("M10 stop: with calls under way, in any order", test_stop),
        TEST("M10 stop: from a callback", test_stop_in_callback),
        TEST("M10 stop: destroy in a callback of stop", test_destroy_in_stop),
        TEST("fork", test_fork),
        TEST("fork while a caller is blocked", test_fork_blocked),
        TEST("M10 stop: cycles leak nothing", test_cycles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
