/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/le.h"
#include "os/lockpage.h"

/* What the wrapped calls answer instead of working: an errno, so many times. */
static struct refusal {
    int error, times;
} no_flock, no_fallocate, no_mmap;

static bool is_refused(struct refusal *refusal)
{
    if (refusal->times == 0)
        return false;
    refusal->times--;
    errno = refusal->error;
    return true;
}

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
int __real_posix_fallocate64(int fd, off_t offset, off_t bytes);
int __wrap_posix_fallocate64(int fd, off_t offset, off_t bytes);
void *__real_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);

/* The file of this name is removed before it is locked, once. */
static char removed_at_lock[100];

int __wrap_flock(int fd, int operation)
{
    if (removed_at_lock[0])
        (void)unlink(removed_at_lock);
    removed_at_lock[0] = '\0';
    return is_refused(&no_flock) ? -1 : __real_flock(fd, operation);
}

int __wrap_posix_fallocate64(int fd, off_t offset, off_t bytes)
{
    return is_refused(&no_fallocate) ? errno : __real_posix_fallocate64(fd, offset, bytes);
}

void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return is_refused(&no_mmap) ? MAP_FAILED
                                : __real_mmap64(at, bytes, protection, flags, fd, offset);
}

struct place {
    char directory[64], path[100];
};

static void place_make(struct place *place)
{
    kit_directory(place->directory, sizeof(place->directory));
    (void)snprintf(place->path, sizeof(place->path), "%s/page", place->directory);
}

static void place_remove(struct place *place)
{
    (void)unlink(place->path);
    assert_int_equal(rmdir(place->directory), 0);
}

static void open_page(struct sml_lockpage *lock, const char *path)
{
    struct sml_reason reason = { "" };
    uint32_t holder = 0;

    if (sml_lockpage_open(lock, path, &holder, &reason) != SEMEL_OK)
        fail_msg("%s", reason.text);
    assert_true(lock->fd >= 0);
    assert_non_null(lock->page);
}

/* It fails with this status and these words, and leaves nothing open. */
static void refuse(const char *path, enum semel_status status, const char *words)
{
    int before = kit_descriptors();
    struct sml_lockpage lock;
    struct sml_reason reason = { "" };
    uint32_t holder = 0;

    assert_int_equal(sml_lockpage_open(&lock, path, &holder, &reason), status);
    if (!strstr(reason.text, words) || !strstr(reason.text, path))
        fail_msg("%s", reason.text);
    assert_int_equal(lock.fd, -1);
    assert_null(lock.page);
    assert_int_equal(kit_descriptors(), before);
}

static void a_new_page_is_empty_and_an_old_one_is_not(void **state)
{
    struct place place;
    struct sml_lockpage lock;
    struct stat is;

    (void)state;
    place_make(&place);
    open_page(&lock, place.path);
    assert_int_equal(sml_load64(lock.page), getpid());
    for (int i = SML_LOCKPAGE_HEAD; i < SML_LOCKPAGE_BYTES; i++)
        assert_int_equal(lock.page[i], 0);
    assert_int_equal(fstat(lock.fd, &is), 0);
    assert_int_equal(is.st_size, SML_LOCKPAGE_BYTES);
    assert_int_equal(is.st_mode & 0777, 0600);
    assert_true(is.st_blocks * 512 >= SML_LOCKPAGE_BYTES);
    assert_true(fcntl(lock.fd, F_GETFD) & FD_CLOEXEC);
    memset(lock.page + SML_LOCKPAGE_HEAD, 'x', SML_LOCKPAGE_BYTES - SML_LOCKPAGE_HEAD);
    sml_lockpage_close(&lock);
    sml_lockpage_close(&lock);
    open_page(&lock, place.path);
    for (int i = SML_LOCKPAGE_HEAD; i < SML_LOCKPAGE_BYTES; i++)
        assert_int_equal(lock.page[i], 'x');
    sml_lockpage_close(&lock);
    place_remove(&place);
}

/* A child that holds the page, has written into it, and waits to be killed. */
static pid_t hold_in_child(const char *path)
{
    int pipe_of[2];
    char byte;
    pid_t child;

    assert_int_equal(pipe(pipe_of), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sml_lockpage lock;
        uint32_t holder;

        if (sml_lockpage_open(&lock, path, &holder, NULL) != SEMEL_OK)
            _exit(1);
        memcpy(lock.page + 100, "written by a child", 18);
        if (write(pipe_of[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    assert_int_equal(read(pipe_of[0], &byte, 1), 1);
    (void)close(pipe_of[0]);
    (void)close(pipe_of[1]);
    return child;
}

static void another_process_is_named(void **state)
{
    struct place place;
    struct sml_lockpage lock;
    struct sml_reason reason = { "" };
    uint32_t holder = 0;
    int status;
    pid_t child;

    (void)state;
    place_make(&place);
    child = hold_in_child(place.path);
    assert_int_equal(sml_lockpage_open(&lock, place.path, &holder, &reason), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(holder, child);
    assert_non_null(strstr(reason.text, place.path));
    assert_int_equal(lock.fd, -1);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    /* The lock died with it; what it wrote did not. */
    open_page(&lock, place.path);
    assert_memory_equal(lock.page + 100, "written by a child", 18);
    assert_int_equal(sml_load64(lock.page), getpid());
    sml_lockpage_close(&lock);
    place_remove(&place);
}

static void so_is_this_one(void **state)
{
    struct place place;
    struct sml_lockpage first, second;
    uint32_t holder = 0;

    (void)state;
    place_make(&place);
    open_page(&first, place.path);
    assert_int_equal(sml_lockpage_open(&second, place.path, &holder, NULL), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(holder, getpid());
    sml_lockpage_close(&first);
    open_page(&second, place.path);
    sml_lockpage_close(&second);
    place_remove(&place);
}

/* What this opening has made, it can remove; and what was there stays. */
static void a_page_for_nothing_is_removed(void **state)
{
    struct place place;
    struct sml_lockpage lock;

    (void)state;
    place_make(&place);
    open_page(&lock, place.path);
    assert_true(lock.made);
    sml_lockpage_discard(&lock, place.path);
    assert_int_equal(access(place.path, F_OK), -1);
    open_page(&lock, place.path);
    sml_lockpage_close(&lock);
    open_page(&lock, place.path);
    assert_false(lock.made);
    sml_lockpage_discard(&lock, place.path);
    assert_int_equal(access(place.path, F_OK), 0);
    assert_int_equal(unlink(place.path), 0);
    no_fallocate = (struct refusal){ ENOSPC, 1 };
    refuse(place.path, SEMEL_STORE_FULL, "no space");
    assert_int_equal(access(place.path, F_OK), -1);
    place_remove(&place);
}

/* Its maker removes it after somebody else has opened it. */
static void a_page_that_is_removed_is_nobody_s_lock(void **state)
{
    struct place place;
    struct sml_lockpage lock;
    struct stat is, there;

    (void)state;
    place_make(&place);
    (void)snprintf(removed_at_lock, sizeof removed_at_lock, "%s", place.path);
    open_page(&lock, place.path);
    assert_string_equal(removed_at_lock, "");
    assert_int_equal(fstat(lock.fd, &is), 0);
    assert_int_equal(stat(place.path, &there), 0);
    assert_int_equal(is.st_ino, there.st_ino);
    sml_lockpage_close(&lock);
    place_remove(&place);
}

static void a_holder_is_said_in_words(void **state)
{
    char words[200];
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0)
        _exit(0);
    assert_int_equal(waitpid(child, &status, 0), child);
    sml_lockpage_say_held((uint32_t)getpid(), "stop it", words, sizeof words);
    assert_non_null(strstr(words, "in use by process"));
    assert_non_null(strstr(words, "; stop it"));
    sml_lockpage_say_held(0, "stop it", words, sizeof words);
    assert_string_equal(words, "in use by process 0; stop it");
    sml_lockpage_say_held((uint32_t)child, "stop it", words, sizeof words);
    assert_non_null(strstr(words, "is dead, but a process that it forked still has it"));
}

/* A holder that has not yet said who it is. */
static void an_unknown_holder_is_nobody(void **state)
{
    struct place place;
    struct sml_lockpage lock;
    uint32_t holder = 77;
    int fd;

    (void)state;
    place_make(&place);
    fd = open(place.path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(sml_lockpage_open(&lock, place.path, &holder, NULL), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(holder, 0);
    (void)close(fd);
    place_remove(&place);
}

static void what_cannot_be_opened_is_said(void **state)
{
    struct place place;
    char deeper[140], link[120];

    (void)state;
    place_make(&place);
    (void)snprintf(deeper, sizeof(deeper), "%s/none/page", place.directory);
    refuse(deeper, SEMEL_SYSTEM, "no such file");
    refuse(place.directory, SEMEL_SYSTEM, "directory");
    (void)snprintf(link, sizeof(link), "%s/link", place.directory);
    assert_int_equal(symlink(place.path, link), 0);
    refuse(link, SEMEL_SYSTEM, "symbolic links");
    (void)unlink(link);
    place_remove(&place);
}

/* As somebody who may not write there. */
static void no_permission_is_said(void **state)
{
    struct place place;
    uid_t me = geteuid();

    (void)state;
    place_make(&place);
    assert_int_equal(chmod(place.directory, 0555), 0);
    if (me == 0)
        assert_int_equal(seteuid(65534), 0);
    refuse(place.path, SEMEL_DENIED, "permission denied");
    if (me == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(place.directory, 0755), 0);
    place_remove(&place);
}

static void what_the_system_refuses_is_said(void **state)
{
    struct place place;
    struct sml_lockpage lock;

    (void)state;
    place_make(&place);
    no_flock = (struct refusal){ ENOLCK, 1 };
    refuse(place.path, SEMEL_SYSTEM, "locks");
    no_fallocate = (struct refusal){ ENOSPC, 1 };
    refuse(place.path, SEMEL_STORE_FULL, "no space");
    no_fallocate = (struct refusal){ EDQUOT, 1 };
    refuse(place.path, SEMEL_STORE_FULL, "quota");
    no_fallocate = (struct refusal){ EIO, 1 };
    refuse(place.path, SEMEL_SYSTEM, "error");
    no_mmap = (struct refusal){ ENOMEM, 1 };
    refuse(place.path, SEMEL_NO_MEMORY, "out of memory");
    no_flock = (struct refusal){ EINTR, 3 };
    open_page(&lock, place.path);
    assert_int_equal(no_flock.times, 0);
    sml_lockpage_close(&lock);
    place_remove(&place);
}

static void the_machine_has_one_boot(void **state)
{
    uint8_t first[16], second[16], none[16] = { 0 };
    char text[64] = "", mine[40];
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    size_t at = 0;

    (void)state;
    sml_boot_id(first);
    sml_boot_id(second);
    assert_memory_equal(first, second, 16);
    if (file == NULL) {
        assert_memory_equal(first, none, 16);
        return;
    }
    assert_non_null(fgets(text, sizeof(text), file));
    (void)fclose(file);
    assert_memory_not_equal(first, none, 16);
    for (const char *from = text; *from; from++)
        if (*from != '-' && *from != '\n')
            text[at++] = *from;
    text[at] = '\0';
    for (int i = 0; i < 16; i++)
        (void)snprintf(mine + 2 * i, 3, "%02x", first[i]);
    assert_string_equal(mine, text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "a new page is empty and an old one is not", a_new_page_is_empty_and_an_old_one_is_not,
          NULL, NULL, NULL },
        { "another process that holds it is named, and its end frees it", another_process_is_named,
          NULL, NULL, NULL },
        { "a second open in this process is refused", so_is_this_one, NULL, NULL, NULL },
        { "a page for nothing is removed", a_page_for_nothing_is_removed, NULL, NULL, NULL },
        { "a page that is removed is nobody's lock", a_page_that_is_removed_is_nobody_s_lock, NULL,
          NULL, NULL },
        { "a holder is said in words", a_holder_is_said_in_words, NULL, NULL, NULL },
        { "a holder that has not said its name is nobody", an_unknown_holder_is_nobody, NULL, NULL,
          NULL },
        { "what cannot be opened is said", what_cannot_be_opened_is_said, NULL, NULL, NULL },
        { "no permission is said", no_permission_is_said, NULL, NULL, NULL },
        { "what the system refuses is said", what_the_system_refuses_is_said, NULL, NULL, NULL },
        { "the machine has one boot id", the_machine_has_one_boot, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
