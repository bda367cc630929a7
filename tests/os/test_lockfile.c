/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/time.h"
#include "os/clock.h"
#include "os/lockfile.h"

/* What the wrapped calls answer instead of working: an errno, so many times. */
static struct refusal {
    int error, times;
} no_mmap, no_madvise, no_inotify, no_watch;

static bool is_refused(struct refusal *refusal)
{
    if (refusal->times == 0)
        return false;
    refusal->times--;
    errno = refusal->error;
    return true;
}

void *__real_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __real_inotify_init1(int flags);
int __wrap_inotify_init1(int flags);
int __real_inotify_add_watch(int fd, const char *path, uint32_t mask);
int __wrap_inotify_add_watch(int fd, const char *path, uint32_t mask);

void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return is_refused(&no_mmap) ? MAP_FAILED
                                : __real_mmap64(at, bytes, protection, flags, fd, offset);
}

int __wrap_madvise(void *at, size_t bytes, int advice)
{
    return is_refused(&no_madvise) ? -1 : __real_madvise(at, bytes, advice);
}

int __wrap_inotify_init1(int flags)
{
    return is_refused(&no_inotify) ? -1 : __real_inotify_init1(flags);
}

int __wrap_inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    return is_refused(&no_watch) ? -1 : __real_inotify_add_watch(fd, path, mask);
}

struct place {
    char directory[64], path[100];
};

static void place_make(struct place *place)
{
    kit_directory(place->directory, sizeof(place->directory));
    (void)snprintf(place->path, sizeof(place->path), "%s/lock", place->directory);
    assert_int_equal(sml_lockfile_make(place->path), SEMEL_OK);
}

static void place_remove(struct place *place)
{
    assert_int_equal(unlink(place->path), 0);
    assert_int_equal(rmdir(place->directory), 0);
}

static void it_is_taken_once_and_let_go(void **state)
{
    struct place place;
    struct sml_lockfile first = { NULL }, second = { NULL };
    int before = kit_descriptors();

    (void)state;
    place_make(&place);
    assert_int_equal(sml_lockfile_holder(place.path), 0);
    assert_int_equal(sml_lockfile_take(&first, place.path), SEMEL_OK);
    assert_int_equal(sml_lockfile_holder(place.path), getpid());
    assert_int_equal(sml_lockfile_take(&second, place.path), SEMEL_OVERLOADED);
    assert_null(second.hold);
    /* Closing descriptors of the file, which would end a lock of the other kind, changes
     * nothing. */
    (void)close(open(place.path, O_RDWR));
    assert_int_equal(sml_lockfile_take(&second, place.path), SEMEL_OVERLOADED);
    sml_lockfile_release(&first);
    assert_null(first.hold);
    assert_int_equal(sml_lockfile_holder(place.path), 0);
    assert_int_equal(sml_lockfile_take(&second, place.path), SEMEL_OK);
    sml_lockfile_release(&second);
    assert_int_equal(kit_descriptors(), before);
    place_remove(&place);
}

/* Take the lock in a child that tells so, and then sleeps. `heir`: a child of its own, forked while
 * it holds the lock, sleeps as well; its number goes to *out_heir. */
static pid_t hold_in_child(const char *path, pid_t *out_heir)
{
    int pipe_of[2];
    pid_t child, heir = 0;

    assert_int_equal(pipe(pipe_of), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sml_lockfile lock = { NULL };

        if (sml_lockfile_take(&lock, path) != SEMEL_OK)
            _exit(1);
        heir = out_heir ? fork() : 0;
        if (out_heir && heir == 0)
            for (;;)
                (void)pause();
        if (write(pipe_of[1], &heir, sizeof heir) != sizeof heir)
            _exit(1);
        for (;;)
            (void)pause();
    }
    assert_int_equal(read(pipe_of[0], &heir, sizeof heir), sizeof heir);
    (void)close(pipe_of[0]);
    (void)close(pipe_of[1]);
    if (out_heir)
        *out_heir = heir;
    return child;
}

static void end(pid_t child)
{
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void it_ends_with_its_process(void **state)
{
    struct place place;
    struct sml_lockfile lock = { NULL };
    pid_t heir, child;

    (void)state;
    place_make(&place);
    child = hold_in_child(place.path, &heir);
    assert_int_equal(sml_lockfile_take(&lock, place.path), SEMEL_OVERLOADED);
    assert_int_equal(sml_lockfile_holder(place.path), child);
    end(child);
    /* Its own child lives on, and holds nothing. */
    assert_int_equal(kill(heir, 0), 0);
    assert_int_equal(sml_lockfile_holder(place.path), 0);
    assert_int_equal(sml_lockfile_take(&lock, place.path), SEMEL_OK);
    assert_int_equal(kill(heir, SIGKILL), 0);
    sml_lockfile_release(&lock);
    place_remove(&place);
}

/* --- many processes -------------------------------------------------------------------------- */

#define RACERS 6
#define TURNS 100
#define DEATHS 12

/* What the racers share: who is inside, and how often. */
struct arena {
    _Atomic int32_t inside, reclaimed;
    _Atomic uint32_t overlaps;
    uint32_t plain; /* guarded by the lock alone */
    _Atomic bool go;
};

static struct arena *arena_make(void)
{
    struct arena *arena =
        mmap(NULL, sizeof *arena, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(arena != MAP_FAILED);
    return arena;
}

static void take_waiting(struct sml_lockfile *lock, const char *path)
{
    int fd = sml_lockfile_watch(path);
    uint64_t pause = SML_MS / 4;

    while (sml_lockfile_take(lock, path) != SEMEL_OK) {
        if (sml_lockfile_watch_wait(fd, pause))
            pause = SML_MS / 4;
        else
            pause = sml_time_min(2 * pause, 20 * SML_MS);
    }
    sml_lockfile_watch_close(fd);
}

static void one_turn(struct arena *arena, const char *path)
{
    struct sml_lockfile lock = { NULL };
    uint32_t seen;

    take_waiting(&lock, path);
    if (atomic_fetch_add(&arena->inside, 1) != 0)
        (void)atomic_fetch_add(&arena->overlaps, 1);
    seen = arena->plain;
    (void)sched_yield();
    arena->plain = seen + 1;
    (void)atomic_fetch_sub(&arena->inside, 1);
    sml_lockfile_release(&lock);
}

static void racing_processes_exclude_each_other(void **state)
{
    struct place place;
    struct arena *arena = arena_make();
    pid_t racers[RACERS];

    (void)state;
    place_make(&place);
    for (int i = 0; i < RACERS; i++) {
        racers[i] = fork();
        assert_true(racers[i] >= 0);
        if (racers[i] == 0) {
            for (int turn = 0; turn < TURNS; turn++)
                one_turn(arena, place.path);
            _exit(0);
        }
    }
    for (int i = 0; i < RACERS; i++) {
        int status;

        assert_int_equal(waitpid(racers[i], &status, 0), racers[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(arena->overlaps, 0);
    assert_int_equal(arena->plain, RACERS * TURNS);
    (void)munmap(arena, sizeof *arena);
    place_remove(&place);
}

/* A racer that tries without pause until somebody has the lock, and for some time more. */
static void reclaim(struct arena *arena, const char *path)
{
    struct sml_lockfile lock = { NULL };

    while (!arena->go)
        (void)sched_yield();
    for (int more = 100; more > 0; more -= arena->reclaimed != 0) {
        if (sml_lockfile_take(&lock, path) == SEMEL_OK) {
            (void)atomic_fetch_add(&arena->reclaimed, 1);
            for (;;)
                (void)pause();
        }
    }
    _exit(0);
}

static void after_a_death_one_has_it(void **state)
{
    struct place place;
    struct arena *arena = arena_make();

    (void)state;
    place_make(&place);
    for (int death = 0; death < DEATHS; death++) {
        pid_t owner = hold_in_child(place.path, NULL), racers[RACERS], winner = 0;

        arena->reclaimed = 0;
        arena->go = false;
        for (int i = 0; i < RACERS; i++) {
            racers[i] = fork();
            assert_true(racers[i] >= 0);
            if (racers[i] == 0)
                reclaim(arena, place.path);
        }
        arena->go = true;
        end(owner);
        for (int i = 0; i < RACERS - 1; i++) { /* all but one give up */
            pid_t gone = waitpid(-1, NULL, 0);

            for (int j = 0; j < RACERS; j++)
                racers[j] = racers[j] == gone ? 0 : racers[j];
        }
        for (int i = 0; i < RACERS; i++)
            winner += racers[i];
        assert_int_equal(arena->reclaimed, 1);
        assert_int_equal(sml_lockfile_holder(place.path), winner);
        end(winner);
    }
    (void)munmap(arena, sizeof *arena);
    place_remove(&place);
}

/* --- waking ---------------------------------------------------------------------------------- */

static bool rings(int fd, int timeout_ms)
{
    struct pollfd set = { .fd = fd, .events = POLLIN };

    return poll(&set, 1, timeout_ms) == 1;
}

static void whoever_waits_is_told(void **state)
{
    struct place place;
    struct sml_lockfile lock = { NULL }, other = { NULL };
    pid_t child;
    int fd;

    (void)state;
    place_make(&place);
    fd = sml_lockfile_watch(place.path);
    assert_true(fd >= 0);
    assert_int_equal(sml_lockfile_take(&lock, place.path), SEMEL_OK);
    assert_false(rings(fd, 0));
    /* Those that find it held ring nobody. */
    assert_int_equal(sml_lockfile_take(&other, place.path), SEMEL_OVERLOADED);
    assert_int_equal(sml_lockfile_holder(place.path), getpid());
    assert_false(rings(fd, 0));
    sml_lockfile_release(&lock);
    assert_true(rings(fd, 10000));
    sml_lockfile_watch_drain(fd);
    assert_false(rings(fd, 0));
    child = hold_in_child(place.path, NULL);
    assert_false(rings(fd, 0));
    end(child);
    assert_true(rings(fd, 10000));
    sml_lockfile_watch_close(fd);
    place_remove(&place);
}

static void waiting_has_a_limit_and_needs_no_bell(void **state)
{
    struct place place;
    uint64_t before = sml_clock_now();

    (void)state;
    place_make(&place);
    no_inotify = (struct refusal){ EMFILE, 1 };
    assert_int_equal(sml_lockfile_watch(place.path), -1);
    no_watch = (struct refusal){ ENOSPC, 1 };
    assert_int_equal(sml_lockfile_watch(place.path), -1);
    assert_int_equal(no_inotify.times + no_watch.times, 0);
    assert_false(sml_lockfile_watch_wait(-1, 3 * SML_MS));
    assert_true(sml_clock_now() - before >= 3 * SML_MS);
    sml_lockfile_watch_close(-1);
    place_remove(&place);
}

/* --- trouble --------------------------------------------------------------------------------- */

static void a_file_put_in_its_place_is_the_lock(void **state)
{
    struct place place;
    struct sml_lockfile old = { NULL }, new = { NULL };
    char aside[140];

    (void)state;
    place_make(&place);
    assert_int_equal(sml_lockfile_take(&old, place.path), SEMEL_OK);
    (void)snprintf(aside, sizeof(aside), "%s-aside", place.path);
    assert_int_equal(rename(place.path, aside), 0);
    assert_int_equal(sml_lockfile_holder(place.path), -1);
    assert_int_equal(sml_lockfile_holder(aside), getpid());
    assert_int_equal(sml_lockfile_take(&new, place.path), SEMEL_OK);
    sml_lockfile_release(&new);
    sml_lockfile_release(&old);
    assert_int_equal(unlink(aside), 0);
    place_remove(&place);
}

static void what_the_system_refuses_is_said(void **state)
{
    struct place place;
    struct sml_lockfile lock = { NULL };
    char deeper[140], link[140];
    int before;

    (void)state;
    place_make(&place);
    before = kit_descriptors();
    no_mmap = (struct refusal){ ENOMEM, 1 };
    assert_int_equal(sml_lockfile_take(&lock, place.path), SEMEL_NO_MEMORY);
    no_madvise = (struct refusal){ EINVAL, 1 };
    assert_int_equal(sml_lockfile_take(&lock, place.path), SEMEL_SYSTEM);
    assert_null(lock.hold);
    (void)snprintf(deeper, sizeof(deeper), "%s/none/lock", place.directory);
    assert_int_equal(sml_lockfile_make(deeper), SEMEL_SYSTEM);
    assert_int_equal(sml_lockfile_take(&lock, deeper), SEMEL_SYSTEM);
    assert_int_equal(sml_lockfile_holder(deeper), -1);
    assert_int_equal(sml_lockfile_watch(deeper), -1);
    assert_int_equal(sml_lockfile_take(&lock, place.directory), SEMEL_SYSTEM); /* EISDIR */
    (void)snprintf(link, sizeof(link), "%s-link", place.path);
    assert_int_equal(symlink(place.path, link), 0);
    assert_int_equal(sml_lockfile_take(&lock, link), SEMEL_SYSTEM);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(mkfifo(link, 0600), 0);
    assert_int_equal(sml_lockfile_make(link), SEMEL_INVALID);
    assert_int_equal(sml_lockfile_take(&lock, link), SEMEL_INVALID);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(kit_descriptors(), before);
    assert_int_equal(sml_lockfile_take(&lock, place.path), SEMEL_OK);
    sml_lockfile_release(&lock);
    place_remove(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_taken_once_and_let_go),
        { "D16 it ends with its process, also if a child of that lives on",
          it_ends_with_its_process, NULL, NULL, NULL },
        cmocka_unit_test(racing_processes_exclude_each_other),
        { "D16 after the owner's death just one of those that race for it has it",
          after_a_death_one_has_it, NULL, NULL, NULL },
        cmocka_unit_test(whoever_waits_is_told),
        cmocka_unit_test(waiting_has_a_limit_and_needs_no_bell),
        cmocka_unit_test(a_file_put_in_its_place_is_the_lock),
        cmocka_unit_test(what_the_system_refuses_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
