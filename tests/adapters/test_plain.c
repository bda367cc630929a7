/* SPDX-License-Identifier: MIT */
/* The suite in Semel's own loop: an outer loop that is run serves the one under test by its
 * descriptor, which is what the adapters do in the loops of others. */
#include <stdbool.h>
#include <stdlib.h>

#include <semel/loop.h>
#include <unistd.h>

#include "adapters/suite.h"

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

struct host {
    struct semel_loop *outer, *inner;
    struct semel_watch *watch;
    int copy;
};

static void *host_make(void)
{
    struct host *host = calloc(1, sizeof(*host));

    must(host && semel_loop_create(&host->outer, NULL) == SEMEL_OK);
    host->copy = -1;
    return host;
}

static void host_free(void *pointer)
{
    struct host *host = pointer;

    must(semel_loop_destroy(host->outer) == SEMEL_OK);
    free(host);
}

static void host_detach(void *pointer)
{
    struct host *host = pointer;

    if (host->watch)
        must(semel_watch_remove(host->watch) == SEMEL_OK);
    if (host->copy >= 0)
        (void)close(host->copy);
    host->watch = NULL;
    host->copy = -1;
}

static void serve(struct semel_watch *watch, unsigned events, void *pointer)
{
    struct host *host = pointer;
    enum semel_status s = semel_loop_dispatch(host->inner);

    (void)watch;
    (void)events;
    must(s == SEMEL_OK || s == SEMEL_STOPPED);
    if (s == SEMEL_STOPPED)
        host_detach(host);
}

static void host_attach(void *pointer, struct semel_loop *loop)
{
    struct host *host = pointer;

    host->inner = loop;
    host->copy = dup(semel_loop_fd(loop));
    must(semel_loop_watch(host->outer, host->copy, SEMEL_WATCH_READ, serve, host, &host->watch) ==
         SEMEL_OK);
}

static void host_run(void *pointer)
{
    must(semel_loop_run(((struct host *)pointer)->outer) == SEMEL_OK);
}

static void host_quit(void *pointer)
{
    semel_loop_stop(((struct host *)pointer)->outer);
}

static void host_after(void *pointer, unsigned ms, void (*fn)(void *user), void *user)
{
    must(semel_loop_timer(((struct host *)pointer)->outer, ms, fn, user, NULL) == SEMEL_OK);
}

int main(void)
{
    static const struct host_ops ops = {
        .make = host_make,
        .free = host_free,
        .attach = host_attach,
        .detach = host_detach,
        .forget = host_detach,
        .run = host_run,
        .quit = host_quit,
        .after = host_after,
    };

    return suite_main(&ops);
}
