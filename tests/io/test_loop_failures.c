/* SPDX-License-Identifier: MIT */
/* What a loop wants of memory and of the system fails, the n-th time, for each n until nothing
 * fails any more: outputs are untouched, nothing is left, and what there was goes on. */
#include "io/loop_kit.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static unsigned countdown; /* calls until one fails; 0: none does */
static bool failed;

static bool fails(int error)
{
    if (countdown == 0 || --countdown > 0)
        return false;
    failed = true;
    errno = error;
    return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags);
int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __real_timerfd_create(int clock, int flags);
int __wrap_timerfd_create(int clock, int flags);
int __real_epoll_ctl(int set, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int set, int operation, int fd, struct epoll_event *event);

void *__wrap_malloc(size_t size)
{
    return fails(ENOMEM) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails(ENOMEM) ? NULL : __real_calloc(count, size);
}

int __wrap_epoll_create1(int flags)
{
    return fails(EMFILE) ? -1 : __real_epoll_create1(flags);
}

int __wrap_eventfd(unsigned count, int flags)
{
    return fails(ENFILE) ? -1 : __real_eventfd(count, flags);
}

int __wrap_timerfd_create(int clock, int flags)
{
    return fails(EMFILE) ? -1 : __real_timerfd_create(clock, flags);
}

int __wrap_epoll_ctl(int set, int operation, int fd, struct epoll_event *event)
{
    /* The system does not refuse to take one out. */
    if (operation != EPOLL_CTL_DEL && fails(ENOSPC))
        return -1;
    return __real_epoll_ctl(set, operation, fd, event);
}

static void see(struct semel_watch *watch, unsigned events, void *calls)
{
    (void)watch;
    (void)events;
    ++*(int *)calls;
}

/* The n-th call fails; what failed is done again. */
struct attempt {
    struct semel_loop *loop;
    struct semel_timer *timer;
    struct semel_watch *watch;
    int ends[2];
    int fired, seen;
};

static void expect_refusal(enum semel_status s)
{
    assert_true(failed);
    assert_true(s == SEMEL_NO_MEMORY || s == SEMEL_LIMIT || s == SEMEL_SYSTEM);
}

static void make_all(struct attempt *a)
{
    enum semel_status s;

    while ((s = semel_loop_create(&a->loop, NULL)) != SEMEL_OK) {
        expect_refusal(s);
        assert_null(a->loop);
    }
    while ((s = semel_loop_timer(a->loop, 0, count, &a->fired, &a->timer)) != SEMEL_OK) {
        expect_refusal(s);
        assert_null(a->timer);
    }
    while ((s = semel_loop_watch(a->loop, a->ends[0], SEMEL_WATCH_READ, see, &a->seen,
                                 &a->watch)) != SEMEL_OK) {
        expect_refusal(s);
        assert_null(a->watch);
    }
}

static void change(struct attempt *a, unsigned events)
{
    enum semel_status s;

    while ((s = semel_watch_change(a->watch, events)) != SEMEL_OK)
        expect_refusal(s);
}

static void use_all(struct attempt *a)
{
    loop_until(a->loop, &a->fired, 1);
    change(a, SEMEL_WATCH_HANGUP);
    change(a, 0);
    change(a, SEMEL_WATCH_READ);
    assert_int_equal(write(a->ends[1], "x", 1), 1);
    ok(semel_loop_dispatch(a->loop));
    assert_int_equal(a->seen, 1);
}

static void each_failure_is_a_status_and_leaves_nothing(void **state)
{
    int before = kit_descriptors();
    unsigned n = 0;

    (void)state;
    do {
        struct attempt a = { .loop = NULL };

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a.ends), 0);
        failed = false;
        countdown = ++n;
        make_all(&a);
        use_all(&a);
        countdown = 0;
        ok(semel_loop_destroy(a.loop));
        (void)close(a.ends[0]);
        (void)close(a.ends[1]);
        assert_int_equal(kit_descriptors(), before);
    } while (failed);
    assert_true(n > 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_failure_is_a_status_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
