/* SPDX-License-Identifier: MIT */
/* Deferreds among real threads: firing, cancelling and letting go from all sides, and blocking. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include <semel/deferred.h>

#include "rpc/loop_thread.h"

#define assert_ok(call) assert_int_equal((call), SEMEL_OK)

/* The memory that this thread asks for. */
static _Thread_local bool refuse_malloc;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    return refuse_malloc ? NULL : __real_malloc(bytes);
}

static atomic_int dropped;

static void count_drop(void *value)
{
    (void)value;
    atomic_fetch_add(&dropped, 1);
}

static struct semel_deferred *made(struct loop_thread *it)
{
    struct semel_deferred *deferred = NULL;

    assert_ok(semel_deferred_create(&deferred, it->loop, NULL, NULL));
    return deferred;
}

static void takes_the_result(void **state)
{
    struct loop_thread it;
    struct semel_fired fired;
    struct semel_deferred *deferred;
    int value = 7;

    (void)state;
    atomic_store(&dropped, 0);
    loop_thread_start(&it, NULL);
    deferred = made(&it);
    assert_ok(semel_deferred_fire(deferred, &value, count_drop));
    assert_ok(semel_deferred_wait(deferred, -1, &fired));
    assert_int_equal(fired.status, SEMEL_OK);
    assert_ptr_equal(fired.value, &value);
    semel_deferred_unref(deferred);
    assert_int_equal(atomic_load(&dropped), 0);
    semel_fired_clear(&fired);
    assert_int_equal(atomic_load(&dropped), 1);

    deferred = made(&it);
    assert_ok(semel_deferred_fail(deferred, SEMEL_LIMIT, 9, "enough"));
    assert_ok(semel_deferred_wait(deferred, 60000, &fired));
    assert_int_equal(fired.status, SEMEL_LIMIT);
    assert_int_equal(fired.code, 9);
    assert_string_equal(fired.text, "enough");
    semel_deferred_unref(deferred);
    loop_thread_end(&it);
}

static void not_in_time(void **state)
{
    struct loop_thread it;
    struct semel_fired fired = { .code = 1234 };
    struct semel_deferred *deferred;

    (void)state;
    loop_thread_start(&it, NULL);
    deferred = made(&it);
    for (int i = 0; i < 20; i++)
        assert_int_equal(semel_deferred_wait(deferred, i / 10, &fired), SEMEL_DEADLINE);
    assert_int_equal(fired.code, 1234);
    assert_ok(semel_deferred_fire(deferred, &it, NULL));
    assert_ok(semel_deferred_wait(deferred, INT64_MAX, &fired)); /* nobody else took it */
    assert_ptr_equal(fired.value, &it);
    semel_deferred_unref(deferred);
    loop_thread_end(&it);
}

struct refusal {
    struct semel_deferred *deferred;
    enum semel_status status;
};

static void wait_there(void *user)
{
    struct refusal *refusal = user;
    struct semel_fired fired;

    refusal->status = semel_deferred_wait(refusal->deferred, -1, &fired);
}

static void refused(void **state)
{
    struct loop_thread it, other;
    struct semel_fired fired;
    struct semel_deferred *alone;
    struct refusal refusal = { NULL, SEMEL_OK };

    (void)state;
    loop_thread_start(&it, NULL);
    loop_thread_start(&other, NULL);
    refusal.deferred = made(&it);
    loop_thread_on(&it, wait_there, &refusal);
    assert_int_equal(refusal.status, SEMEL_WOULD_DEADLOCK);
    refusal.status = SEMEL_OK;
    loop_thread_on(&other, wait_there, &refusal); /* it would stand still, too */
    assert_int_equal(refusal.status, SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_deferred_wait(NULL, 0, &fired), SEMEL_INVALID);
    assert_int_equal(semel_deferred_wait(refusal.deferred, 0, NULL), SEMEL_INVALID);
    assert_ok(semel_deferred_create(&alone, NULL, NULL, NULL));
    assert_int_equal(semel_deferred_wait(alone, 0, &fired), SEMEL_INVALID);
    semel_deferred_unref(alone);
    semel_deferred_unref(refusal.deferred);
    loop_thread_end(&other);
    loop_thread_end(&it);
}

static void forked(void **state)
{
    struct loop_thread it;
    struct semel_deferred *deferred;
    struct semel_fired fired;
    int status = -1;
    pid_t child;

    (void)state;
    loop_thread_start(&it, NULL);
    deferred = made(&it);
    child = fork();
    if (child == 0)
        _exit(semel_deferred_wait(deferred, -1, &fired) == SEMEL_FORKED ? 0 : 1);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    semel_deferred_unref(deferred);
    loop_thread_end(&it);
}

static struct semel_deferred *note_call(struct semel_fired *fired, void *user)
{
    ++*(int *)user;
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

static bool is_readable(struct semel_loop *loop, int timeout_ms)
{
    struct pollfd watched = { semel_loop_fd(loop), POLLIN, 0 };

    return poll(&watched, 1, timeout_ms) == 1;
}

/* What a forked child does with a deferred calls nobody there. */
static void use_in_a_child(struct semel_deferred *deferred, const int *calls)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        bool fine = semel_deferred_timeout(deferred, 1) == SEMEL_DENIED;

        semel_deferred_cancel(deferred);
        fine &= semel_deferred_fire(deferred, NULL, NULL) == SEMEL_OK;
        semel_deferred_unref(deferred);
        _exit(fine && *calls == 0 ? 0 : 1);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* The parent's timer stands: the descriptor by which the loop tells of it is the child's, too. */
static void a_child_leaves_the_timers(void **state)
{
    struct semel_deferred *deferred = NULL;
    struct semel_loop *loop;
    int calls = 0;

    (void)state;
    assert_ok(semel_loop_create(&loop, NULL));
    assert_ok(semel_deferred_create(&deferred, loop, NULL, NULL));
    assert_ok(semel_deferred_timeout(deferred, 50));
    assert_ok(semel_deferred_then(deferred, note_call, note_call, &calls));
    use_in_a_child(deferred, &calls);
    assert_true(is_readable(loop, 60000));
    while (calls == 0)
        assert_ok(semel_loop_dispatch(loop));
    semel_deferred_unref(deferred);
    assert_ok(semel_loop_destroy(loop));
}

static void *visit(void *loop)
{
    return semel_loop_dispatch(loop) == SEMEL_OK ? loop : NULL;
}

/* The same where the loop is another thread's: nothing is posted to the parent's. */
static void a_child_posts_nothing(void **state)
{
    struct semel_deferred *deferred = NULL;
    struct semel_loop *loop;
    pthread_t visitor;
    void *visited;
    int calls = 0;

    (void)state;
    assert_ok(semel_loop_create(&loop, NULL));
    assert_ok(semel_deferred_create(&deferred, loop, NULL, NULL));
    assert_ok(semel_deferred_then(deferred, note_call, note_call, &calls));
    assert_int_equal(pthread_create(&visitor, NULL, visit, loop), 0);
    assert_int_equal(pthread_join(visitor, &visited), 0);
    assert_ptr_equal(visited, loop);
    use_in_a_child(deferred, &calls);
    assert_false(is_readable(loop, 0));
    assert_ok(semel_loop_dispatch(loop)); /* it is this thread's now */
    semel_deferred_unref(deferred);
    assert_int_equal(calls, 0);
    assert_ok(semel_loop_destroy(loop));
}

static void no_memory(void **state)
{
    struct semel_fired fired = { .code = 99 };
    struct semel_deferred *deferred;
    struct loop_thread it;
    int value = 7;

    (void)state;
    loop_thread_start(&it, NULL);
    deferred = made(&it);
    assert_ok(semel_deferred_fire(deferred, &value, NULL));
    refuse_malloc = true;
    assert_int_equal(semel_deferred_wait(deferred, -1, &fired), SEMEL_NO_MEMORY);
    refuse_malloc = false;
    assert_int_equal(fired.code, 99); /* untouched */
    assert_ok(semel_deferred_wait(deferred, -1, &fired));
    assert_ptr_equal(fired.value, &value);
    semel_deferred_unref(deferred);
    loop_thread_end(&it);
}

/* --- all at once -------------------------------------------------------------------------- */

enum { THREADS = 3, ROUNDS = 2000 };

struct round {
    struct semel_deferred *deferred;
    atomic_int fired;  /* how many a fire succeeded for */
    atomic_int called; /* callbacks */
};

struct storm {
    struct loop_thread it;
    struct round rounds[ROUNDS];
    pthread_barrier_t barrier;
    atomic_int taken; /* values that came out of waits */
};

static struct semel_deferred *count_call(struct semel_fired *fired, void *user)
{
    (void)fired;
    atomic_fetch_add(&((struct round *)user)->called, 1);
    return NULL;
}

static void begin_rounds(void *user)
{
    struct storm *storm = user;

    for (int i = 0; i < ROUNDS; i++) {
        struct round *round = &storm->rounds[i];

        assert_ok(semel_deferred_create(&round->deferred, storm->it.loop, NULL, NULL));
        assert_ok(semel_deferred_then(round->deferred, count_call, count_call, round));
        for (int ref = 1; ref < THREADS; ref++)
            (void)semel_deferred_ref(round->deferred);
    }
}

struct worker {
    struct storm *storm;
    int number;
    pthread_t thread;
};

/* Each fires, cancels or waits in turn, all at the same deferred, and lets go of it. */
static void *work(void *user)
{
    struct worker *worker = user;
    struct storm *storm = worker->storm;

    for (int i = 0; i < ROUNDS; i++) {
        struct round *round = &storm->rounds[i];
        struct semel_fired fired;

        if (i % 64 == 0)
            (void)pthread_barrier_wait(&storm->barrier);
        switch ((i + worker->number) % 4) {
        case 0:
            semel_deferred_cancel(round->deferred);
            break;
        case 1:
            if (semel_deferred_wait(round->deferred, i % 3, &fired) == SEMEL_OK) {
                atomic_fetch_add(&storm->taken, fired.value != NULL);
                semel_fired_clear(&fired);
            }
            break;
        default:
            if (semel_deferred_fire(round->deferred, round, count_drop) == SEMEL_OK)
                atomic_fetch_add(&round->fired, 1);
        }
        semel_deferred_unref(round->deferred);
    }
    return NULL;
}

static void from_all_sides(void **state)
{
    static struct storm storm;
    struct worker workers[THREADS];
    int fired = 0;

    (void)state;
    atomic_store(&dropped, 0);
    loop_thread_start(&storm.it, NULL);
    assert_int_equal(pthread_barrier_init(&storm.barrier, NULL, THREADS), 0);
    loop_thread_on(&storm.it, begin_rounds, &storm);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ &storm, i, 0 };
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
    loop_thread_end(&storm.it); /* proves that all are gone */
    for (int i = 0; i < ROUNDS; i++) {
        const int times = atomic_load(&storm.rounds[i].fired);

        assert_true(times == 1 || times == 2); /* two: one of them was swallowed */
        assert_int_equal(atomic_load(&storm.rounds[i].called), 1);
        fired += times;
    }
    assert_int_equal(atomic_load(&dropped), fired); /* each value once, wherever it ended */
    assert_int_equal(pthread_barrier_destroy(&storm.barrier), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "wait: takes the result", takes_the_result, NULL, NULL, NULL },
        { "wait: not in time", not_in_time, NULL, NULL, NULL },
        { "wait: refused where it would stand still", refused, NULL, NULL, NULL },
        { "wait: in a forked child", forked, NULL, NULL, NULL },
        { "deferred: a forked child leaves the timers", a_child_leaves_the_timers, NULL, NULL,
          NULL },
        { "deferred: a forked child posts nothing", a_child_posts_nothing, NULL, NULL, NULL },
        { "wait: no memory", no_memory, NULL, NULL, NULL },
        { "deferred: fired, cancelled, waited for and let go from all sides", from_all_sides, NULL,
          NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
