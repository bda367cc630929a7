/* SPDX-License-Identifier: MIT */
/* procs.h - semel serve --procs: methods that run in worker processes.
 *
 * A worker is either this program once more, with the same arguments, or the program of --program,
 * which has to speak the protocol on descriptor 3, for instance by semel_worker_main. The server
 * that clients see runs nothing itself: it hands each call on, and its outcome back.
 *
 * What a command may see of its call (the key, the number, the caller's idempotency key) is that
 * of the call that the client made: it is handed on as the content type of the call to the worker,
 * and found again by call_origin. */
#ifndef TOOL_PROCS_H
#define TOOL_PROCS_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/semel.h>

struct service;

/* Of the call as the client made it. */
struct origin {
    struct semel_key key;
    uint64_t call;
    const char *idempotency_key; /* lent for the call; "" for none */
};
struct origin call_origin(const struct semel_request *request);

/* Is this process a worker? Then what the pool has added to its arguments is taken away. */
bool procs_take_argument(int *argc, char **argv);
bool procs_is_worker(void);
/* Be one. Returns an exit code. */
int procs_worker(struct service *service);

/* Keep a copy of the arguments, for workers, before they are parsed. False: no memory. */
bool procs_keep_arguments(struct service *service, int argc, char **argv);
void procs_free_arguments(struct service *service);
/* Start the workers. Returns an exit code; other than 0, why was said. */
int procs_start(struct service *service);
/* The server has stopped, and no call is open. */
void procs_stop(struct service *service);

/* A semel_handler_fn; user is a struct method. */
void procs_forward(struct semel_request *request, void *user);

#endif
