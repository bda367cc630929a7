/* SPDX-License-Identifier: MIT */
/* How a server ends: stop, drain, wait, destroy, in any order, and in a forked child. */
#include "server_kit.h"
#include "server_wire.h"

#include <sys/wait.h>

/* --- M10 --------------------------------------------------------------------------------- */

enum step { STOP, DRAIN, WAIT, STEPS };

static void take_step(struct semel_server *server, enum step step)
{
    if (step == STOP)
        semel_server_stop(server);
    else if (step == DRAIN)
        semel_server_drain(server, 1000);
    else
        (void)!semel_server_wait(server, 0, NULL);
}

/* All orders of three steps out of stop, drain and wait, at every stage of a server's life. */
static void test_any_order(void **state)
{
    (void)state;
    for (int order = 0; order < STEPS * STEPS * STEPS; order++) {
        for (int stage = 0; stage < 3; stage++) {
            struct rig *rig = rig_make(NULL);

            rig_export(rig, "echo", echo, NULL, NULL);
            if (stage > 0)
                assert_int_equal(semel_server_listen(rig->server, rig->place.address), SEMEL_OK);
            if (stage > 1)
                assert_int_equal(semel_server_start(rig->server), SEMEL_OK);
            take_step(rig->server, (enum step)(order % STEPS));
            take_step(rig->server, (enum step)(order / STEPS % STEPS));
            take_step(rig->server, (enum step)(order / STEPS / STEPS));
            rig_end(rig);
        }
    }
}

struct ender {
    struct semel_server *server;
    enum step step;
    atomic_int ran;
};

static void end_from_inside(struct semel_request *request, void *user)
{
    struct ender *ender = user;

    take_step(ender->server, ender->step);
    take_step(ender->server, ender->step);
    REQUIRE(semel_server_wait(ender->server, -1, NULL) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_server_run(ender->server) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_server_destroy(ender->server) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
    atomic_store(&ender->ran, 1);
}

static void test_from_handler(void **state)
{
    (void)state;
    for (int step = STOP; step <= DRAIN; step++) {
        struct rig *rig = rig_make(NULL);
        struct ender ender = { rig->server, (enum step)step, 0 };
        struct semel_call_options soon = { .deadline_ms = step == STOP ? 2000 : 60000 };
        struct semel_result result = { 0 };

        rig_export(rig, "end", end_from_inside, &ender, NULL);
        rig_go(rig);
        semel_client_call(rig->client, "end", semel_bytes(NULL, 0), &soon, &result);
        if (step == DRAIN)
            assert_int_equal(result.outcome, SEMEL_VALUE);
        semel_result_clear(&result);
        assert_int_equal(semel_server_wait(rig->server, 60000, NULL), SEMEL_OK);
        assert_int_equal(atomic_load(&ender.ran), 1);
        rig_end(rig);
    }
}

static void test_start_twice(void **state)
{
    struct rig *rig = rig_make(NULL);

    (void)state;
    assert_int_equal(semel_server_wait(rig->server, -1, NULL), SEMEL_STOPPED);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    assert_int_equal(semel_server_start(rig->server), SEMEL_ALREADY);
    assert_int_equal(semel_server_run(rig->server), SEMEL_ALREADY);
    expect_echo(rig->client, "still there");
    semel_server_stop(rig->server);
    assert_int_equal(semel_server_wait(rig->server, 60000, NULL), SEMEL_OK);
    assert_int_equal(semel_server_start(rig->server), SEMEL_STOPPED);
    assert_int_equal(semel_server_run(rig->server), SEMEL_STOPPED);
    assert_int_equal(semel_server_listen(rig->server, rig->place.address), SEMEL_STOPPED);
    assert_int_equal(access(rig->place.path, F_OK), -1);
    rig_end(rig);
}

static void *run(void *arg)
{
    REQUIRE(semel_server_run(arg) == SEMEL_OK);
    return NULL;
}

struct starter {
    struct semel_server *server;
    pthread_barrier_t *together;
    enum semel_status waited;
};

static void *start_or_wait(void *arg)
{
    struct starter *starter = arg;

    pthread_barrier_wait(starter->together);
    if (semel_server_start(starter->server) == SEMEL_ALREADY)
        starter->waited = semel_server_wait(starter->server, 0, NULL);
    return NULL;
}

/* Whoever hears that a server is started already can wait for it. */
static void test_wait_while_starting(void **state)
{
    pthread_barrier_t together;

    (void)state;
    pthread_barrier_init(&together, NULL, 2);
    for (int i = 0; i < 300; i++) {
        struct rig *rig = rig_make(NULL);
        struct starter two[2] = { { rig->server, &together, SEMEL_DEADLINE },
                                  { rig->server, &together, SEMEL_DEADLINE } };
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, start_or_wait, &two[0]), 0);
        start_or_wait(&two[1]);
        pthread_join(thread, NULL);
        assert_int_equal(two[0].waited, SEMEL_DEADLINE);
        assert_int_equal(two[1].waited, SEMEL_DEADLINE);
        rig_end(rig);
    }
    pthread_barrier_destroy(&together);
}

static void test_run(void **state)
{
    struct rig *rig = rig_make(NULL);
    pthread_t thread;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    assert_int_equal(semel_server_listen(rig->server, rig->place.address), SEMEL_OK);
    assert_int_equal(pthread_create(&thread, NULL, run, rig->server), 0);
    rig->client = rig_connect(rig, NULL);
    expect_echo(rig->client, "served");
    semel_server_stop(rig->server);
    pthread_join(thread, NULL);
    rig_end(rig);
}

/* Servers that come and go, and clients that come and go at one server, leave nothing behind. */
static void test_cycles(void **state)
{
    int servers = SLOW_BUILD ? 30 : 200, clients = SLOW_BUILD ? 300 : 10000;
    int fds, threads;
    struct rig *rig;

    (void)state;
    rig = rig_make(NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "first");
    rig_end(rig);
    fds = kit_count_fds();
    threads = kit_count_threads();
    for (int i = 0; i < servers; i++) {
        struct semel_server_options options = { .on_demand = i % 2 };

        rig = rig_make(&options);
        rig_export(rig, "echo", echo, NULL, NULL);
        rig_go(rig);
        if (i % 3)
            expect_echo(rig->client, "hello");
        rig_end(rig);
    }
    assert_true(kit_settled(fds, threads));
    rig = rig_make(NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "first");
    fds = kit_count_fds();
    threads = kit_count_threads();
    for (int i = 0; i < clients; i++) {
        struct semel_client *client = rig_connect(rig, NULL);

        expect_echo(client, "hello");
        assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    }
    assert_true(kit_settled(fds, threads));
    rig_end(rig);
}

/* --- M11 --------------------------------------------------------------------------------- */

static void never(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
    REQUIRE(!"this handler must not run");
}

static bool five_wait(void *arg)
{
    return rig_counters(arg).calls_waiting == 5;
}

/* Waiting calls end as not executed; the running handler is told; wait says what holds it up. */
static void test_queued_at_stop(void **state)
{
    struct semel_server_options options = { .workers = 1 };
    struct rig *rig = rig_make(&options);
    struct seen running, waiting[5];
    uint32_t left = 0;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_export(rig, "never", never, NULL, NULL);
    rig_go(rig);
    start_call(rig->client, "gated", "", NULL, &running, NULL);
    wait_inside(&gate, 1);
    for (int i = 0; i < 5; i++)
        start_call(rig->client, "never", "", NULL, &waiting[i], NULL);
    assert_true(kit_eventually(five_wait, rig, 60));
    semel_server_stop(rig->server);
    for (int i = 0; i < 5; i++) {
        wait_seen(&waiting[i]);
        assert_int_equal(waiting[i].outcome, SEMEL_NOT_EXECUTED);
        assert_int_equal(waiting[i].status, SEMEL_STOPPED);
        semel_result_clear(&waiting[i].result);
    }
    assert_int_equal(semel_server_wait(rig->server, 300, &left), SEMEL_DEADLINE);
    assert_int_equal(left, 1);
    gate_open(&gate, true);
    assert_int_equal(semel_server_wait(rig->server, 60000, NULL), SEMEL_OK);
    semel_client_stop(rig->client);
    wait_seen(&running);
    assert_int_equal(running.outcome, SEMEL_UNKNOWN);
    semel_result_clear(&running.result);
    rig_end(rig);
    gate_fini(&gate);
}

/* A drain runs what waits, answers it, and only then ends. */
static void test_queued_at_drain(void **state)
{
    struct semel_server_options options = { .workers = 1 };
    struct rig *rig = rig_make(&options);
    struct seen seen[6];
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_go(rig);
    for (int i = 0; i < 6; i++)
        start_call(rig->client, "gated", "", NULL, &seen[i], NULL);
    assert_true(kit_eventually(five_wait, rig, 60));
    semel_server_drain(rig->server, 60000);
    assert_int_equal(semel_server_wait(rig->server, 100, NULL), SEMEL_DEADLINE);
    gate_open(&gate, true);
    for (int i = 0; i < 6; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(semel_server_wait(rig->server, 60000, NULL), SEMEL_OK);
    rig_end(rig);
    gate_fini(&gate);
}

/* --- S13 --------------------------------------------------------------------------------- */

struct ear {
    atomic_int told;
};

static void hear(struct semel_request *request, void *user)
{
    REQUIRE(semel_request_cancelled(request));
    atomic_fetch_add(&((struct ear *)user)->told, 1);
}

static void listen_long(struct semel_request *request, void *user)
{
    struct ear *ear = user;

    semel_request_on_cancel(request, hear, ear);
    while (atomic_load(&ear->told) == 0)
        kit_sleep_ms(1);
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
}

static bool one_running(void *arg)
{
    return rig_counters(arg).calls_running == 1;
}

/* The drain's limit is kept, and the earlier of two counts; then the handlers are told. */
static void test_drain_limit(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct ear ear = { 0 };
    struct seen seen;
    uint64_t start;

    (void)state;
    rig_export(rig, "listen", listen_long, &ear, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    start_call(rig->client, "listen", "", NULL, &seen, NULL);
    assert_true(kit_eventually(one_running, rig, 60));
    start = kit_now_ms();
    semel_server_drain(rig->server, 300);
    semel_server_drain(rig->server, 60000);
    assert_int_equal(semel_server_wait(rig->server, 30000, NULL), SEMEL_OK);
    assert_true(kit_now_ms() - start >= 299);
    assert_int_equal(atomic_load(&ear.told), 1);
    semel_client_stop(rig->client);
    wait_seen(&seen);
    semel_result_clear(&seen.result);
    rig_end(rig);
}

static bool none_connected(void *arg)
{
    return rig_counters(arg).connections_open == 0;
}

/* A handler is told of the stop although its caller's connection is gone, and no other is there. */
static void test_stop_unconnected(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct ear ear = { 0 };
    struct wire *wire;

    (void)state;
    rig_export(rig, "listen", listen_long, &ear, NULL);
    rig_serve(rig);
    wire = wire_meet(rig, 1);
    wire_call(wire, 1, "listen", "");
    assert_true(kit_eventually(one_running, rig, 60));
    wire_close(wire);
    assert_true(kit_eventually(none_connected, rig, 60));
    assert_int_equal(atomic_load(&ear.told), 0);
    semel_server_stop(rig->server);
    assert_int_equal(semel_server_wait(rig->server, 30000, NULL), SEMEL_OK);
    assert_int_equal(atomic_load(&ear.told), 1);
    rig_end(rig);
}

static bool says_draining(void *arg)
{
    return log_has(arg, "draining, for at most");
}

/* While it drains, nobody new gets in, and nobody's new call runs. */
static void test_drain_refuses(void **state)
{
    struct semel_call_options soon = { .deadline_ms = 300 };
    struct rig *rig = rig_make(NULL);
    struct semel_client *late;
    struct semel_result result = { 0 };
    struct seen seen;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_export(rig, "never", never, NULL, NULL);
    rig_go(rig);
    start_call(rig->client, "gated", "", NULL, &seen, NULL);
    wait_inside(&gate, 1);
    semel_server_drain(rig->server, 60000);
    assert_true(kit_eventually(says_draining, rig, 60));
    late = rig_connect(rig, NULL);
    semel_client_call(late, "never", semel_bytes(NULL, 0), &soon, &result);
    assert_int_equal(result.outcome, SEMEL_NOT_EXECUTED);
    semel_result_clear(&result);
    semel_client_call(rig->client, "never", semel_bytes(NULL, 0), &soon, &result);
    assert_int_equal(result.outcome, SEMEL_NOT_EXECUTED);
    semel_result_clear(&result);
    gate_open(&gate, true);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    semel_result_clear(&seen.result);
    assert_int_equal(semel_server_wait(rig->server, 60000, NULL), SEMEL_OK);
    assert_int_equal(semel_client_destroy(late), SEMEL_OK);
    rig_end(rig);
    gate_fini(&gate);
}

/* --- destroy and taken requests ------------------------------------------------------------ */

struct keeper {
    struct semel_request *request;
    atomic_int kept;
};

static void keep(struct semel_request *request, void *user)
{
    struct keeper *keeper = user;

    semel_request_take(request);
    keeper->request = request;
    atomic_store(&keeper->kept, 1);
}

static bool is_kept(void *arg)
{
    return atomic_load(&((struct keeper *)arg)->kept) == 1;
}

static bool is_cancelled(void *arg)
{
    return semel_request_cancelled(((struct keeper *)arg)->request);
}

static void *finish_later(void *arg)
{
    struct keeper *keeper = arg;

    REQUIRE(kit_eventually(is_cancelled, keeper, 60));
    kit_sleep_ms(100);
    atomic_store(&keeper->kept, 2);
    REQUIRE(semel_request_reply(keeper->request, "", 0) == SEMEL_OK);
    return NULL;
}

static void test_destroy_waits(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct keeper keeper = { 0 };
    struct seen seen;
    pthread_t thread;

    (void)state;
    rig_export(rig, "keep", keep, &keeper, NULL);
    rig_go(rig);
    start_call(rig->client, "keep", "", NULL, &seen, NULL);
    assert_true(kit_eventually(is_kept, &keeper, 60));
    semel_server_stop(rig->server);
    assert_int_equal(semel_server_wait(rig->server, 60000, NULL), SEMEL_OK);
    assert_int_equal(pthread_create(&thread, NULL, finish_later, &keeper), 0);
    rig_end(rig);
    assert_int_equal(atomic_load(&keeper.kept), 2);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&seen.times), 1);
    semel_result_clear(&seen.result);
}

/* --- fork ---------------------------------------------------------------------------------- */

static int child_checks(struct rig *rig)
{
    if (semel_server_listen(rig->server, "tcp:127.0.0.1:0") != SEMEL_FORKED)
        return 1;
    if (semel_server_start(rig->server) != SEMEL_FORKED)
        return 2;
    if (semel_server_export(rig->server, "x", echo, NULL, NULL) != SEMEL_FORKED)
        return 3;
    if (semel_server_wait(rig->server, 0, NULL) != SEMEL_FORKED)
        return 4;
    semel_server_stop(rig->server);
    semel_server_drain(rig->server, 0);
    if (semel_server_destroy(rig->server) != SEMEL_FORKED)
        return 5;
    return 0;
}

static void test_fork(void **state)
{
    struct rig *rig = rig_make(NULL);
    int status = -1;
    pid_t pid;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "before");
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child_checks(rig));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    expect_echo(rig->client, "the parent is untouched");
    assert_int_equal(access(rig->place.path, F_OK), 0);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("M10 stop: any order, twice, at every stage", test_any_order),
        TEST("M10 stop: from a handler, twice", test_from_handler),
        TEST("M10 stop: start is once", test_start_twice),
        TEST("M10 stop: wait while another thread starts", test_wait_while_starting),
        TEST("M10 stop: run returns", test_run),
        TEST("M10 stop: cycles leave no descriptor and no thread", test_cycles),
        TEST("M11 queued jobs at stop are not executed", test_queued_at_stop),
        TEST("M11 queued jobs at stop run when it drains", test_queued_at_drain),
        TEST("S13 close: the graceful limit is kept, then handlers are told", test_drain_limit),
        TEST("S13 close: handlers are told, also without a connection", test_stop_unconnected),
        TEST("S13 close: a draining server takes nothing new", test_drain_refuses),
        TEST("destroy waits for taken requests", test_destroy_waits),
        TEST("a forked child is refused, its parent goes on", test_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
