/* SPDX-License-Identifier: MIT */
/* The suite in a real libuv loop. */
#include <semel/uv.h>

#include <stdlib.h>

#include <uv.h>

#include "adapters/suite.h"

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

struct host {
    uv_loop_t uv;
    struct semel_uv *attached;
};

static void *host_make(void)
{
    struct host *host = calloc(1, sizeof(*host));

    must(host && uv_loop_init(&host->uv) == 0);
    return host;
}

static void host_free(void *pointer)
{
    struct host *host = pointer;

    must(uv_run(&host->uv, UV_RUN_DEFAULT) == 0); /* handles that are being closed */
    must(uv_loop_close(&host->uv) == 0);
    free(host);
}

static void host_attach(void *pointer, struct semel_loop *loop)
{
    struct host *host = pointer;

    must(semel_uv_attach(NULL, &host->uv, loop) == SEMEL_INVALID);
    must(semel_uv_attach(&host->attached, NULL, loop) == SEMEL_INVALID);
    must(semel_uv_attach(&host->attached, &host->uv, NULL) == SEMEL_INVALID);
    must(semel_uv_attach(&host->attached, &host->uv, loop) == SEMEL_OK);
    must(semel_uv_handle(NULL) == NULL);
    must(uv_has_ref((uv_handle_t *)semel_uv_handle(host->attached)));
}

static void host_detach(void *pointer)
{
    struct host *host = pointer;

    semel_uv_detach(host->attached);
    host->attached = NULL;
    semel_uv_detach(NULL);
}

static void host_run(void *pointer)
{
    struct host *host = pointer;

    (void)uv_run(&host->uv, UV_RUN_DEFAULT);
}

static void host_quit(void *pointer)
{
    uv_stop(&((struct host *)pointer)->uv);
}

struct timer {
    uv_timer_t timer;
    void (*fn)(void *user);
    void *user;
};

static void free_timer(uv_handle_t *handle)
{
    free(handle->data);
}

static void timer_due(uv_timer_t *handle)
{
    struct timer *timer = handle->data;

    uv_close((uv_handle_t *)handle, free_timer);
    timer->fn(timer->user);
}

static void host_after(void *pointer, unsigned ms, void (*fn)(void *user), void *user)
{
    struct host *host = pointer;
    struct timer *timer = calloc(1, sizeof(*timer));

    must(timer && uv_timer_init(&host->uv, &timer->timer) == 0);
    timer->timer.data = timer;
    timer->fn = fn;
    timer->user = user;
    uv_update_time(&host->uv);
    must(uv_timer_start(&timer->timer, timer_due, ms, 0) == 0);
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
