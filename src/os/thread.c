/* SPDX-License-Identifier: MIT */
#include "os/thread.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

#include "base/check.h"
#include "os/error.h"

/* Affinity masks are asked for with room for this many cores at first; doubled up to the second. */
#define CORES_FIRST 1024
#define CORES_MAX (1 << 20)

static void *thread_main(void *user)
{
    struct sml_thread *thread = user;

    /* From inside: the creator's `thread->thread` may not be stored yet. */
    (void)pthread_setname_np(pthread_self(), thread->name);
    thread->run(thread->arg);
    return NULL;
}

/* All that may be blocked without hiding a fault. */
static void asynchronous_signals(sigset_t *out_set)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT };

    (void)sigfillset(out_set);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        (void)sigdelset(out_set, faults[i]);
}

static int create_masked(struct sml_thread *thread, const pthread_attr_t *attributes)
{
    sigset_t blocked, before;
    int error;

    /* The mask is inherited: blocked in the creator for the moment of creation, so that the new
     * thread never runs a single instruction without it. */
    asynchronous_signals(&blocked);
    (void)pthread_sigmask(SIG_BLOCK, &blocked, &before);
    error = pthread_create(&thread->thread, attributes, thread_main, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

enum semel_status sml_thread_create(struct sml_thread *thread, const char *name, size_t stack_bytes,
                                    void (*run)(void *arg), void *arg)
{
    pthread_attr_t attributes;
    size_t length = strnlen(name, sizeof(thread->name) - 1);
    int error;

    memcpy(thread->name, name, length);
    thread->name[length] = '\0';
    thread->run = run;
    thread->arg = arg;
    error = pthread_attr_init(&attributes);
    if (error != 0)
        return SEMEL_NO_MEMORY;
    if (stack_bytes > 0) {
        size_t least = (size_t)PTHREAD_STACK_MIN;

        error = pthread_attr_setstacksize(&attributes, stack_bytes < least ? least : stack_bytes);
        SML_ASSERT(error == 0);
    }
    error = create_masked(thread, &attributes);
    (void)pthread_attr_destroy(&attributes);
    if (error == EAGAIN)
        return SEMEL_LIMIT;
    return error == 0 ? SEMEL_OK : sml_error_status(error);
}

void sml_thread_join(struct sml_thread *thread)
{
    SML_ASSERT(pthread_join(thread->thread, NULL) == 0);
}

static _Thread_local unsigned loops_entered;

void sml_thread_enter_loop(void)
{
    loops_entered++;
}

void sml_thread_leave_loop(void)
{
    loops_entered--;
}

bool sml_thread_in_loop(void)
{
    return loops_entered > 0;
}

unsigned sml_thread_cores(void)
{
    for (size_t cores = CORES_FIRST; cores <= CORES_MAX; cores *= 2) {
        cpu_set_t *set = CPU_ALLOC(cores);
        size_t bytes = CPU_ALLOC_SIZE(cores);
        int count;

        if (!set)
            break;
        CPU_ZERO_S(bytes, set);
        count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : -errno;
        CPU_FREE(set);
        if (count > 0)
            return (unsigned)count;
        if (count != -EINVAL) /* EINVAL: the machine has more cores than the set has room for */
            break;
    }
    return 1;
}

void sml_thread_vanish(void)
{
    pthread_exit(NULL);
}
