/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semel/lock.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit/kit.h"

/* What is refused, as if the process had no more of these descriptors. */
static bool no_bells;

int __real_inotify_init1(int flags);
int __wrap_inotify_init1(int flags);

int __wrap_inotify_init1(int flags)
{
    if (!no_bells)
        return __real_inotify_init1(flags);
    errno = EMFILE;
    return -1;
}

/* Destroyed when the lock has been taken and nobody knows it yet. */
static struct semel_file_lock *to_destroy;

int __real_madvise(void *address, size_t bytes, int advice);
int __wrap_madvise(void *address, size_t bytes, int advice);

int __wrap_madvise(void *address, size_t bytes, int advice)
{
    struct semel_file_lock *lock = to_destroy;

    if (advice == MADV_DONTFORK) {
        to_destroy = NULL;
        semel_file_lock_destroy(lock);
    }
    return __real_madvise(address, bytes, advice);
}

/* Fired by another thread when its lock has been taken and its own result is not made yet. */
static struct semel_deferred *to_fire;
static enum semel_status fired_there;

void __real_sml_fired_init(struct semel_fired *fired);
void __wrap_sml_fired_init(struct semel_fired *fired);

static void *fire_it(void *deferred)
{
    fired_there = semel_deferred_fire(deferred, NULL, NULL);
    return NULL;
}

void __wrap_sml_fired_init(struct semel_fired *fired)
{
    struct semel_deferred *deferred = to_fire;
    pthread_t thread;

    __real_sml_fired_init(fired);
    if (deferred == NULL)
        return;
    to_fire = NULL;
    assert_int_equal(pthread_create(&thread, NULL, fire_it, deferred), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

struct fixture {
    struct kit_place place;
    struct semel_file_lock *mine, *other;
    struct semel_loop *loop;
};

static int begin(void **state)
{
    struct fixture *at = calloc(1, sizeof *at);

    kit_place_make(&at->place);
    assert_int_equal(semel_file_lock_create(&at->mine, at->place.path), SEMEL_OK);
    assert_int_equal(semel_file_lock_create(&at->other, at->place.path), SEMEL_OK);
    assert_int_equal(semel_loop_create(&at->loop, NULL), SEMEL_OK);
    no_bells = false;
    *state = at;
    return 0;
}

static int end(void **state)
{
    struct fixture *at = *state;

    semel_file_lock_destroy(at->mine);
    semel_file_lock_destroy(at->other);
    assert_int_equal(semel_loop_destroy(at->loop), SEMEL_OK);
    assert_int_equal(unlink(at->place.path), 0);
    kit_place_remove(&at->place);
    free(at);
    return 0;
}

/* --- blocking -------------------------------------------------------------------------------- */

static void held_by_one(void **state)
{
    struct fixture *at = *state;

    assert_int_equal(semel_file_lock_holder(at->mine), 0);
    assert_int_equal(semel_file_lock_take(at->mine, 0), SEMEL_OK);
    assert_int_equal(semel_file_lock_holder(at->other), getpid());
    assert_int_equal(semel_file_lock_take(at->mine, 0), SEMEL_ALREADY);
    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OVERLOADED);
    assert_int_equal(semel_file_lock_release(at->mine), SEMEL_OK);
    assert_int_equal(semel_file_lock_take(at->other, -1), SEMEL_OK);
    semel_file_lock_destroy(at->other);
    at->other = NULL;
    assert_int_equal(semel_file_lock_take(at->mine, INT64_MAX), SEMEL_OK);
}

static void not_the_owner(void **state)
{
    struct fixture *at = *state;

    assert_int_equal(semel_file_lock_release(at->mine), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    assert_int_equal(semel_file_lock_release(at->mine), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_holder(at->mine), getpid());
    assert_int_equal(semel_file_lock_take(at->mine, 0), SEMEL_OVERLOADED);
}

static void waiting_has_a_limit(void **state)
{
    struct fixture *at = *state;

    for (int bells = 0; bells < 2; bells++) {
        uint64_t before = kit_now_ms();

        no_bells = bells == 0;
        assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
        assert_int_equal(semel_file_lock_take(at->mine, 20), SEMEL_DEADLINE);
        assert_true(kit_now_ms() - before >= 19);
        assert_int_equal(semel_file_lock_release(at->other), SEMEL_OK);
    }
}

/* is_waiting looks by taking it, and is then in the way for a moment. */
static void *take_for_ever(void *lock)
{
    enum semel_status status;

    do
        status = semel_file_lock_take(lock, -1);
    while (status == SEMEL_ALREADY);
    return (void *)(intptr_t)status;
}

static bool is_waiting(void *lock)
{
    return semel_file_lock_take(lock, 0) == SEMEL_ALREADY;
}

/* A thread that waits in `mine` while `other` holds the lock. */
static pthread_t start_waiting(struct fixture *at)
{
    pthread_t thread;

    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    assert_int_equal(pthread_create(&thread, NULL, take_for_ever, at->mine), 0);
    assert_true(kit_eventually(is_waiting, at->mine, 60));
    return thread;
}

static enum semel_status join(pthread_t thread)
{
    void *status;

    assert_int_equal(pthread_join(thread, &status), 0);
    return (enum semel_status)(intptr_t)status;
}

static void a_thread_waits(void **state)
{
    struct fixture *at = *state;

    for (int bells = 0; bells < 2; bells++) {
        pthread_t thread;

        no_bells = bells == 0;
        thread = start_waiting(at);
        assert_int_equal(semel_file_lock_release(at->mine), SEMEL_INVALID);
        assert_int_equal(semel_file_lock_release(at->other), SEMEL_OK);
        assert_int_equal(join(thread), SEMEL_OK);
        assert_int_equal(semel_file_lock_release(at->mine), SEMEL_OK);
    }
}

static void destroyed_while_a_thread_waits(void **state)
{
    struct fixture *at = *state;
    pthread_t thread = start_waiting(at);

    semel_file_lock_destroy(at->mine);
    at->mine = NULL;
    assert_int_equal(join(thread), SEMEL_STOPPED);
    assert_int_equal(semel_file_lock_release(at->other), SEMEL_OK);
    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
}

/* --- deferred -------------------------------------------------------------------------------- */

static struct semel_deferred *on_end(struct semel_fired *fired, void *user)
{
    *(int *)user = (int)fired->status;
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

static struct semel_deferred *defer(struct fixture *at, int64_t timeout_ms, int *status)
{
    struct semel_deferred *deferred = NULL;

    *status = -1;
    assert_int_equal(semel_file_lock_defer(at->mine, at->loop, timeout_ms, &deferred), SEMEL_OK);
    assert_int_equal(semel_deferred_then(deferred, on_end, on_end, status), SEMEL_OK);
    return deferred;
}

/* Until the deferred has ended. */
static void serve(struct fixture *at, const int *status)
{
    while (*status < 0) {
        assert_int_equal(semel_loop_dispatch(at->loop), SEMEL_OK);
        kit_sleep_ms(1);
    }
}

static void a_deferred_waits(void **state)
{
    struct fixture *at = *state;
    struct semel_deferred *deferred, *second = NULL;
    int status;

    for (int bells = 0; bells < 2; bells++) {
        no_bells = bells == 0;
        deferred = defer(at, 0, &status);
        assert_int_equal(status, SEMEL_OK);
        semel_deferred_unref(deferred);
        assert_int_equal(semel_file_lock_release(at->mine), SEMEL_OK);
        assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
        assert_int_equal(semel_file_lock_defer(at->mine, at->loop, 0, &second), SEMEL_OVERLOADED);
        deferred = defer(at, -1, &status);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(semel_loop_dispatch(at->loop), SEMEL_OK);
            kit_sleep_ms(1);
        }
        assert_int_equal(status, -1);
        assert_int_equal(semel_file_lock_release(at->other), SEMEL_OK);
        serve(at, &status);
        assert_int_equal(status, SEMEL_OK);
        assert_int_equal(semel_file_lock_release(at->mine), SEMEL_OK);
        semel_deferred_unref(deferred);
    }
    assert_null(second);
}

static void one_wait_at_a_time(void **state)
{
    struct fixture *at = *state;
    struct semel_deferred *deferred, *second = NULL;
    int status;

    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    deferred = defer(at, -1, &status);
    assert_int_equal(semel_file_lock_defer(at->mine, at->loop, -1, &second), SEMEL_ALREADY);
    assert_int_equal(semel_file_lock_take(at->mine, 10), SEMEL_ALREADY);
    assert_null(second);
    assert_int_equal(semel_loop_destroy(at->loop), SEMEL_ALREADY); /* its deferred is alive */
    semel_deferred_cancel(deferred);
    assert_int_equal(status, SEMEL_CANCELLED);
    semel_deferred_unref(deferred);
}

static void a_deferred_has_a_limit(void **state)
{
    struct fixture *at = *state;
    uint64_t before = kit_now_ms();
    int status;

    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    semel_deferred_unref(defer(at, 20, &status)); /* the wait keeps it */
    serve(at, &status);
    assert_int_equal(status, SEMEL_DEADLINE);
    assert_true(kit_now_ms() - before >= 19);
    assert_int_equal(semel_file_lock_release(at->other), SEMEL_OK);
    assert_int_equal(semel_loop_dispatch(at->loop), SEMEL_OK);
    assert_int_equal(semel_file_lock_holder(at->mine), 0);
}

static void *release_soon(void *user)
{
    struct fixture *at = user;

    kit_sleep_ms(1);
    assert_int_equal(semel_file_lock_release(at->other), SEMEL_OK);
    return NULL;
}

/* The lock becomes free about when the wait is cancelled: who fired OK has it, who did not does
 * not, and it is never lost. */
static void cancelling_never_leaks(void **state)
{
    struct fixture *at = *state;
    int ended[2] = { 0, 0 };

    for (int turn = 0; turn < 200; turn++) {
        struct semel_deferred *deferred;
        pthread_t thread;
        int status;

        assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
        deferred = defer(at, -1, &status);
        assert_int_equal(pthread_create(&thread, NULL, release_soon, at), 0);
        for (int i = 0; i < turn % 8; i++) {
            assert_int_equal(semel_loop_dispatch(at->loop), SEMEL_OK);
            (void)usleep(300);
        }
        semel_deferred_cancel(deferred);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_true(status == SEMEL_OK || status == SEMEL_CANCELLED);
        assert_int_equal(semel_file_lock_release(at->mine),
                         status == SEMEL_OK ? SEMEL_OK : SEMEL_INVALID);
        assert_int_equal(semel_file_lock_holder(at->mine), 0);
        ended[status == SEMEL_OK]++;
        semel_deferred_unref(deferred);
    }
    assert_true(ended[0] > 0 && ended[1] > 0);
}

/* Somebody fires the lock's own deferred: then nobody knows that it is held, so it is not. */
static void fired_by_others(void **state)
{
    struct fixture *at = *state;
    struct semel_deferred *deferred;
    int status;

    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    deferred = defer(at, -1, &status);
    assert_int_equal(semel_deferred_fire(deferred, NULL, NULL), SEMEL_OK);
    assert_int_equal(semel_file_lock_release(at->other), SEMEL_OK);
    while (semel_file_lock_take(at->mine, 0) == SEMEL_ALREADY) {
        assert_int_equal(semel_loop_dispatch(at->loop), SEMEL_OK);
        kit_sleep_ms(1);
    }
    assert_int_equal(semel_file_lock_release(at->mine), SEMEL_OK);
    semel_deferred_unref(deferred);
    /* Destroyed then, its wait ends all the same. */
    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    deferred = defer(at, -1, &status);
    assert_int_equal(semel_deferred_fire(deferred, NULL, NULL), SEMEL_OK);
    semel_deferred_unref(deferred);
    semel_file_lock_destroy(at->mine);
    at->mine = NULL;
    while (semel_loop_destroy(at->loop) == SEMEL_ALREADY) {
        assert_int_equal(semel_loop_dispatch(at->loop), SEMEL_OK);
        kit_sleep_ms(1);
    }
    at->loop = NULL;
}

/* The same while the wait itself is about to fire: one of them does. The lock is held if it was the
 * wait, and else free for the next one. */
static void fired_by_others_meanwhile(void **state)
{
    struct fixture *at = *state;
    struct semel_deferred *deferred;
    int status;

    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    deferred = defer(at, -1, &status);
    fired_there = SEMEL_OK;
    to_fire = deferred;
    assert_int_equal(semel_file_lock_release(at->other), SEMEL_OK);
    serve(at, &status);
    assert_null(to_fire);
    assert_int_equal(status, SEMEL_OK);
    assert_int_equal(semel_file_lock_release(at->mine),
                     fired_there == SEMEL_OK ? SEMEL_INVALID : SEMEL_OK);
    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    semel_deferred_unref(deferred);
}

static void *destroy_lock(void *lock)
{
    semel_file_lock_destroy(lock);
    return NULL;
}

static void destroyed_while_a_deferred_waits(void **state)
{
    struct fixture *at = *state;
    struct semel_deferred *deferred;
    pthread_t thread;
    int status;

    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
        deferred = defer(at, -1, &status);
        if (elsewhere) {
            assert_int_equal(pthread_create(&thread, NULL, destroy_lock, at->mine), 0);
            assert_int_equal(pthread_join(thread, NULL), 0);
            serve(at, &status);
        } else {
            semel_file_lock_destroy(at->mine);
        }
        assert_int_equal(status, SEMEL_STOPPED);
        semel_deferred_unref(deferred);
        assert_int_equal(semel_file_lock_create(&at->mine, at->place.path), SEMEL_OK);
    }
}

static void block_in_a_callback(void *user)
{
    struct fixture *at = user;

    assert_int_equal(semel_file_lock_take(at->mine, -1), SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_file_lock_take(at->mine, 1), SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_file_lock_take(at->mine, 0), SEMEL_OK);
}

static void no_blocking_on_a_loop(void **state)
{
    struct fixture *at = *state;
    struct semel_task task = SEMEL_TASK_INIT(block_in_a_callback, at);

    assert_int_equal(semel_loop_post(at->loop, &task), SEMEL_OK);
    assert_int_equal(semel_loop_dispatch(at->loop), SEMEL_OK);
    assert_int_equal(semel_file_lock_release(at->mine), SEMEL_OK);
}

/* --- several processes ----------------------------------------------------------------------- */

#define RACERS 4
#define DEATHS 8

static void end_child(pid_t child, int signal)
{
    int status;

    if (signal)
        assert_int_equal(kill(child, signal), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(signal ? WIFSIGNALED(status) : status == 0);
}

/* A child that takes the lock, counts itself, and sleeps until it is killed. */
static pid_t owner(const char *path, _Atomic int *owners)
{
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        struct semel_file_lock *lock = NULL;

        if (semel_file_lock_create(&lock, path) != SEMEL_OK ||
            semel_file_lock_take(lock, -1) != SEMEL_OK)
            _exit(1);
        (void)atomic_fetch_add(owners, 1);
        for (;;)
            (void)pause();
    }
    return child;
}

struct count {
    _Atomic int *owners;
    int wanted;
};

static bool has_count(void *user)
{
    struct count *count = user;

    return *count->owners >= count->wanted;
}

/* Owners are killed, one after another; each time just one of those that wait has the lock. */
static void dead_owners_are_followed_by_one(void **state)
{
    struct fixture *at = *state;
    _Atomic int *owners =
        mmap(NULL, sizeof *owners, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t racers[RACERS];

    assert_true((void *)owners != MAP_FAILED);
    for (int i = 0; i < RACERS; i++)
        racers[i] = owner(at->place.path, owners);
    for (int death = 0; death < DEATHS; death++) {
        struct count count = { owners, death + 1 };
        int64_t holder;
        int which = 0;

        assert_true(kit_eventually(has_count, &count, 60));
        holder = semel_file_lock_holder(at->mine);
        while (which < RACERS && racers[which] != holder)
            which++;
        assert_true(which < RACERS);
        kit_sleep_ms(5); /* for a second one, if there were any */
        assert_int_equal(*owners, death + 1);
        assert_int_equal(semel_file_lock_take(at->mine, 0), SEMEL_OVERLOADED);
        end_child(racers[which], SIGKILL);
        racers[which] = owner(at->place.path, owners);
    }
    for (int i = 0; i < RACERS; i++)
        end_child(racers[i], SIGKILL);
    assert_int_equal(semel_file_lock_take(at->mine, 0), SEMEL_OK);
    (void)munmap((void *)owners, sizeof *owners);
}

/* By another thread, in the middle of a try that succeeds: nobody holds a lock that is gone. */
static void destroyed_while_it_is_taken(void **state)
{
    struct fixture *at = *state;
    struct semel_deferred *none = NULL;

    to_destroy = at->mine;
    at->mine = NULL;
    assert_int_equal(semel_file_lock_defer(to_destroy, at->loop, 0, &none), SEMEL_STOPPED);
    assert_null(none);
    assert_int_equal(semel_file_lock_create(&at->mine, at->place.path), SEMEL_OK);
    to_destroy = at->mine;
    at->mine = NULL;
    assert_int_equal(semel_file_lock_take(to_destroy, 0), SEMEL_STOPPED);
    assert_int_equal(semel_file_lock_take(at->other, 0), SEMEL_OK);
}

static void a_forked_child_holds_nothing(void **state)
{
    struct fixture *at = *state;
    struct semel_deferred *none = NULL;
    pid_t child;

    assert_int_equal(semel_file_lock_take(at->mine, 0), SEMEL_OK);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool fine = semel_file_lock_release(at->mine) == SEMEL_FORKED &&
                    semel_file_lock_take(at->mine, 0) == SEMEL_FORKED &&
                    semel_file_lock_take(at->mine, -1) == SEMEL_FORKED &&
                    semel_file_lock_defer(at->mine, at->loop, 0, &none) == SEMEL_FORKED &&
                    semel_file_lock_holder(at->mine) == getppid();

        semel_file_lock_destroy(at->mine);
        _exit(fine ? 0 : 1);
    }
    end_child(child, 0);
    assert_int_equal(semel_file_lock_holder(at->other), getpid());
    assert_int_equal(semel_file_lock_release(at->mine), SEMEL_OK);
}

static void what_is_wrong_is_refused(void **state)
{
    struct fixture *at = *state;
    struct semel_file_lock *none = NULL;
    struct semel_deferred *deferred = NULL;

    assert_int_equal(semel_file_lock_create(NULL, at->place.path), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_create(&none, NULL), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_create(&none, ""), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_create(&none, "/nowhere/at/all"), SEMEL_SYSTEM);
    assert_int_equal(semel_file_lock_create(&none, "/dev/null"), SEMEL_INVALID);
    assert_null(none);
    assert_int_equal(semel_file_lock_take(NULL, 0), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_release(NULL), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_holder(NULL), -1);
    assert_int_equal(semel_file_lock_defer(NULL, at->loop, 0, &deferred), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_defer(at->mine, NULL, 0, &deferred), SEMEL_INVALID);
    assert_int_equal(semel_file_lock_defer(at->mine, at->loop, 0, NULL), SEMEL_INVALID);
    assert_null(deferred);
    semel_file_lock_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "held by one at a time", held_by_one, begin, end, NULL },
        { "D16 letting go of what one does not hold is an error", not_the_owner, begin, end, NULL },
        { "D16 waiting has a limit", waiting_has_a_limit, begin, end, NULL },
        { "a thread waits", a_thread_waits, begin, end, NULL },
        { "destroyed while a thread waits", destroyed_while_a_thread_waits, begin, end, NULL },
        { "a deferred waits", a_deferred_waits, begin, end, NULL },
        { "D16 one wait at a time", one_wait_at_a_time, begin, end, NULL },
        { "D16 a deferred has a limit", a_deferred_has_a_limit, begin, end, NULL },
        { "D16 cancelling never leaks the lock", cancelling_never_leaks, begin, end, NULL },
        { "a deferred that others fired", fired_by_others, begin, end, NULL },
        { "a deferred that others fire while it has the lock", fired_by_others_meanwhile, begin,
          end, NULL },
        { "destroyed while a deferred waits", destroyed_while_a_deferred_waits, begin, end, NULL },
        { "no blocking on a loop's thread", no_blocking_on_a_loop, begin, end, NULL },
        { "D16 a dead owner is followed by just one of those that wait",
          dead_owners_are_followed_by_one, begin, end, NULL },
        { "D16 destroyed while it is taken", destroyed_while_it_is_taken, begin, end, NULL },
        { "a forked child holds nothing", a_forked_child_holds_nothing, begin, end, NULL },
        { "what is wrong is refused", what_is_wrong_is_refused, begin, end, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
