/* SPDX-License-Identifier: MIT */
/* pool_kit.h - what the tests of pools share: a test program that is its own worker, methods that
 * do good and bad things, and questions about processes. */
#ifndef SML_TESTS_POOL_KIT_H
#define SML_TESTS_POOL_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <semel/semel.h>

#include "kit/kit.h"

/* The methods of a worker:
 *   echo              its body
 *   pid               the worker's process id in decimal
 *   square            of the decimal number in its body
 *   nap               sleeps so many milliseconds, then replies the body; idempotent
 *   gate              stays until the gate is open (see below), then replies the body; idempotent
 *   exit              _exit with that code
 *   raise             that signal, to itself
 *   hang              never ends, takes no notice of being cancelled
 *   fork              leaves a child behind that holds the socket, replies its process id
 *   large             a reply of so many bytes; what cannot be sent is a failure 9
 *   leak              touches so many bytes and keeps them
 *   write             "garbage", "lie", "half", "flood": bytes on the connection that no worker
 *                     should write; after half of a frame it ends
 *   close             closes its connection, and goes on living
 *   fds               how many descriptors it has, and which
 *   signals           "blocked MASK ignored MASK", as /proc tells */
enum semel_status pool_kit_set_up(struct semel_server *server, void *user);

/* To be called first in main: the worker's exit code, or -1. */
int pool_kit_main(int argc, char **argv);

struct semel_pool *pool_kit_make(const struct semel_pool_options *options);
/* A call that must end as a value; up to `room` bytes of it, as text. */
void pool_kit_text(struct semel_pool *pool, const char *method, const char *body, char *out,
                   size_t room);
long pool_kit_number(struct semel_pool *pool, const char *method, const char *body);
enum semel_outcome pool_kit_call(struct semel_pool *pool, const char *method, const char *body,
                                 struct semel_result *out);

/* A call of `gate` with `directory` as its body runs until the gate is opened. */
struct pool_kit_gate {
    char directory[64];
};
void pool_kit_gate_make(struct pool_kit_gate *gate);
/* Wait until a handler is inside: it has begun, and was not only sent. */
void pool_kit_gate_await(struct pool_kit_gate *gate);
void pool_kit_gate_open(const struct pool_kit_gate *gate);
/* Nobody may be inside. */
void pool_kit_gate_remove(const struct pool_kit_gate *gate);

/* Children of this process, zombies included. */
int pool_kit_children(void);
/* Is there a process of that number that is not a zombie? */
bool pool_kit_lives(long pid);
/* Stop it (SIGSTOP), and wait until it does nothing any more. */
void pool_kit_halt(long pid);
bool pool_kit_all_ready(struct semel_pool *pool);
/* Wait until all workers are READY. */
void pool_kit_await_ready(struct semel_pool *pool);

/* Counts before a pool; check_clean fails when children, descriptors or threads are left. */
struct pool_kit_before {
    int fds, threads;
};
struct pool_kit_before pool_kit_before(void);
void pool_kit_check_clean(struct pool_kit_before before);

#endif
