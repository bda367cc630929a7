/* SPDX-License-Identifier: MIT */
/* thread.h - threads of the library.
 *
 * They run with every asynchronous signal blocked, so that the host's handlers run on the host's
 * own threads; faults (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT) stay as they
 * are. A handler that starts a child process from such a thread must give the child a mask of its
 * own. */
#ifndef SML_OS_THREAD_H
#define SML_OS_THREAD_H

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/status.h>

#include "base/compiler.h"

struct sml_thread { /* stays where it is until joined */
    pthread_t thread;
    char name[16];
    void (*run)(void *arg);
    void *arg;
};

/* Who is running; 0 is nobody. */
struct sml_thread_id {
    uintptr_t value;
};

/* Start a thread that runs run(arg). `name` is cut to 15 bytes. stack_bytes 0: the system's
 * default. Returns OK, LIMIT (no more threads) or NO_MEMORY; on failure nothing runs. */
enum semel_status sml_thread_create(struct sml_thread *thread, const char *name, size_t stack_bytes,
                                    void (*run)(void *arg), void *arg) SML_MUST_USE;

/* Wait for its end. Exactly once, not from itself. */
void sml_thread_join(struct sml_thread *thread);

static inline struct sml_thread_id sml_thread_self(void)
{
    struct sml_thread_id id = { (uintptr_t)pthread_self() };

    return id;
}

/* Let whoever can run on this core run first. */
static inline void sml_thread_yield(void)
{
    (void)sched_yield();
}

/* End the calling thread, which must be one of ours in a forked child: nothing else is left of them
 * there. */
SML_NORETURN void sml_thread_vanish(void);

/* The calling thread begins and ends to run callbacks of a loop, one inside the other or not. While
 * it does it must not block. */
void sml_thread_enter_loop(void);
void sml_thread_leave_loop(void);
bool sml_thread_in_loop(void);

/* Cores that this process may run on, at least 1. */
unsigned sml_thread_cores(void);

#endif
