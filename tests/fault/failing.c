/* SPDX-License-Identifier: MIT */
#include "fault/failing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "fault/crash_vfs.h"
#include "kit/sqlite_memory.h"

static atomic_int chosen, left, blocks;
static _Atomic(const char *) failed;

static bool fails(enum failing_group group, const char *what)
{
    if (atomic_load(&chosen) != (int)group || atomic_load(&left) <= 0 ||
        atomic_fetch_sub(&left, 1) != 1)
        return false;
    atomic_store(&failed, what);
    return true;
}

static bool store_may_have_memory(void)
{
    return !fails(FAILING_STORE_MEMORY, "memory of the store");
}

static bool disk_may(enum crash_call call)
{
    return !fails(FAILING_DISK, crash_call_names[call]);
}

void failing_install(void)
{
    sqlite_memory_install();
    sqlite_memory_ask(store_may_have_memory);
    crash_install();
    crash_ask(disk_may);
}

void failing_at(enum failing_group group, unsigned n)
{
    atomic_store(&failed, NULL);
    atomic_store(&left, (int)n);
    atomic_store(&chosen, (int)group);
}

const char *failing_what(void)
{
    return atomic_load(&failed);
}

int failing_blocks(void)
{
    return atomic_load(&blocks) + sqlite_memory_blocks();
}

/* --- memory -------------------------------------------------------------------------------- */

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void __real_free(void *block);
void __wrap_free(void *block);

static void *counted(void *block)
{
    atomic_fetch_add(&blocks, block != NULL);
    return block;
}

void *__wrap_malloc(size_t bytes)
{
    return fails(FAILING_MEMORY, "malloc") ? NULL : counted(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails(FAILING_MEMORY, "calloc") ? NULL : counted(__real_calloc(count, bytes));
}

void *__wrap_realloc(void *old, size_t bytes)
{
    if (fails(FAILING_MEMORY, "realloc"))
        return NULL;
    return old ? __real_realloc(old, bytes) : counted(__real_malloc(bytes));
}

void __wrap_free(void *block)
{
    atomic_fetch_sub(&blocks, block != NULL);
    __real_free(block);
}

/* --- the system ------------------------------------------------------------------------------ */

static bool refuses(const char *what, int error)
{
    if (!fails(FAILING_SYSTEM, what))
        return false;
    errno = error;
    return true;
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
int __real_posix_fallocate64(int fd, off_t offset, off_t bytes);
int __wrap_posix_fallocate64(int fd, off_t offset, off_t bytes);
void *__real_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
ssize_t __real_getrandom(void *out, size_t bytes, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t bytes, unsigned flags);
int __real_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);
int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags);
int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __real_timerfd_create(int clock, int flags);
int __wrap_timerfd_create(int clock, int flags);
int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __real_bind(int fd, const struct sockaddr *address, socklen_t bytes);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t bytes);
int __real_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog);
int __real_accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags);
int __real_connect(int fd, const struct sockaddr *address, socklen_t bytes);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t bytes);

int __wrap_open64(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode = 0;

    va_start(arguments, flags);
    if (flags & O_CREAT)
        mode = va_arg(arguments, mode_t);
    va_end(arguments);
    return refuses("open", EMFILE) ? -1 : __real_open64(path, flags, mode);
}

int __wrap_flock(int fd, int operation)
{
    return refuses("flock", ENOLCK) ? -1 : __real_flock(fd, operation);
}

int __wrap_posix_fallocate64(int fd, off_t offset, off_t bytes)
{
    return refuses("posix_fallocate", ENOSPC) ? ENOSPC
                                              : __real_posix_fallocate64(fd, offset, bytes);
}

void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return refuses("mmap", ENOMEM) ? MAP_FAILED
                                   : __real_mmap64(at, bytes, protection, flags, fd, offset);
}

ssize_t __wrap_getrandom(void *out, size_t bytes, unsigned flags)
{
    return refuses("getrandom", ENOSYS) ? -1 : __real_getrandom(out, bytes, flags);
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg)
{
    return refuses("pthread_create", EAGAIN) ? EAGAIN
                                             : __real_pthread_create(out, attributes, run, arg);
}

int __wrap_epoll_create1(int flags)
{
    return refuses("epoll_create1", EMFILE) ? -1 : __real_epoll_create1(flags);
}

int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    /* Only adding needs memory. */
    return operation == EPOLL_CTL_ADD && refuses("epoll_ctl", ENOMEM)
               ? -1
               : __real_epoll_ctl(epoll, operation, fd, event);
}

int __wrap_eventfd(unsigned count, int flags)
{
    return refuses("eventfd", EMFILE) ? -1 : __real_eventfd(count, flags);
}

int __wrap_timerfd_create(int clock, int flags)
{
    return refuses("timerfd_create", EMFILE) ? -1 : __real_timerfd_create(clock, flags);
}

int __wrap_socket(int domain, int type, int protocol)
{
    return refuses("socket", EMFILE) ? -1 : __real_socket(domain, type, protocol);
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t bytes)
{
    return refuses("bind", ENOBUFS) ? -1 : __real_bind(fd, address, bytes);
}

int __wrap_listen(int fd, int backlog)
{
    return refuses("listen", ENOBUFS) ? -1 : __real_listen(fd, backlog);
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags)
{
    return refuses("accept4", EMFILE) ? -1 : __real_accept4(fd, address, bytes, flags);
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t bytes)
{
    return refuses("connect", EAGAIN) ? -1 : __real_connect(fd, address, bytes);
}
