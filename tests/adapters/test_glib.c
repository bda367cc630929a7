/* SPDX-License-Identifier: MIT */
/* The suite in a real GLib main loop. */
#include <semel/glib.h>

#include <stdlib.h>

#include <glib.h>

#include "adapters/suite.h"

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

struct host {
    GMainContext *context;
    GMainLoop *main;
    GSource *source;
};

static void *host_make(void)
{
    struct host *host = calloc(1, sizeof(*host));

    must(host);
    host->context = g_main_context_new();
    host->main = g_main_loop_new(host->context, FALSE);
    return host;
}

static void host_free(void *pointer)
{
    struct host *host = pointer;

    g_main_loop_unref(host->main);
    g_main_context_unref(host->context);
    free(host);
}

static void host_attach(void *pointer, struct semel_loop *loop)
{
    struct host *host = pointer;

    must(semel_glib_source_new(NULL) == NULL);
    host->source = semel_glib_source_new(loop);
    must(host->source && g_source_attach(host->source, host->context) > 0);
}

static void host_detach(void *pointer)
{
    struct host *host = pointer;

    g_source_destroy(host->source);
    g_source_unref(host->source);
    host->source = NULL;
}

static void host_run(void *pointer)
{
    g_main_loop_run(((struct host *)pointer)->main);
}

static void host_quit(void *pointer)
{
    g_main_loop_quit(((struct host *)pointer)->main);
}

struct timer {
    void (*fn)(void *user);
    void *user;
};

static gboolean timer_due(gpointer pointer)
{
    struct timer *timer = pointer;

    timer->fn(timer->user);
    return G_SOURCE_REMOVE;
}

static void host_after(void *pointer, unsigned ms, void (*fn)(void *user), void *user)
{
    struct host *host = pointer;
    struct timer *timer = calloc(1, sizeof(*timer));
    GSource *source = g_timeout_source_new(ms);

    must(timer);
    timer->fn = fn;
    timer->user = user;
    g_source_set_callback(source, timer_due, timer, free);
    must(g_source_attach(source, host->context) > 0);
    g_source_unref(source);
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
