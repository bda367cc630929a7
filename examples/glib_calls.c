/* SPDX-License-Identifier: MIT */
/* glib_calls.c - calls in a GLib program: glib_calls ADDRESS METHOD BODY...
 *
 * All calls are made at once. A timeout of the program ticks meanwhile: nothing here waits for a
 * reply but the main loop, and that for everything. Try it beside 'semel serve unix:s':
 * glib_calls unix:s sleep 300ms 100ms */
#include <glib.h>
#include <semel/glib.h>
#include <semel/semel.h>
#include <stdio.h>
#include <stdlib.h>

#define TICK_MS 50

struct program {
    GMainLoop *main;
    struct semel_loop *loop; /* lives in the default context */
    struct semel_client *client;
    int calls, failures; /* outstanding; so far */
};

static void need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, semel_status_text(status));
    exit(1);
}

static gboolean tick(gpointer user)
{
    (void)user;
    printf("tick\n");
    (void)fflush(stdout);
    return G_SOURCE_CONTINUE;
}

static void call_ended(struct program *program)
{
    (void)fflush(stdout);
    if (--program->calls == 0)
        g_main_loop_quit(program->main);
}

static struct semel_deferred *on_reply(struct semel_fired *fired, void *user)
{
    const struct semel_bytes body = semel_fired_call(fired)->body;

    printf("reply: %.*s\n", (int)body.size, (const char *)body.data);
    call_ended(user);
    return NULL;
}

static struct semel_deferred *on_failure(struct semel_fired *fired, void *user)
{
    struct program *program = user;

    printf("failure: %s\n", fired->text);
    semel_fired_set_value(fired, NULL, NULL); /* it has been dealt with */
    program->failures++;
    call_ended(program);
    return NULL;
}

static void start_call(struct program *program, const char *method, const char *body)
{
    struct semel_deferred *call;

    need(semel_client_defer(program->client, method, semel_bytes_text(body), NULL, program->loop,
                            &call),
         method);
    need(semel_deferred_then(call, on_reply, on_failure, program), "then");
    semel_deferred_unref(call); /* it lives on until it has fired */
    program->calls++;
}

int main(int argc, char **argv)
{
    struct program program = { 0 };
    GSource *source;
    guint ticks;

    if (argc < 4) {
        (void)fprintf(stderr, "usage: glib_calls ADDRESS METHOD BODY...\n");
        return 2;
    }
    program.main = g_main_loop_new(NULL, FALSE);
    need(semel_loop_create(&program.loop, NULL), "loop");
    source = semel_glib_source_new(program.loop);
    if (!source)
        return 1;
    (void)g_source_attach(source, NULL);
    need(semel_client_create(&program.client, argv[1], NULL), argv[1]);
    ticks = g_timeout_add(TICK_MS, tick, NULL);
    for (int i = 3; i < argc; i++)
        start_call(&program, argv[2], argv[i]);
    g_main_loop_run(program.main);
    (void)g_source_remove(ticks);
    need(semel_client_destroy(program.client), "client");
    g_source_destroy(source);
    g_source_unref(source);
    need(semel_loop_destroy(program.loop), "destroy");
    g_main_loop_unref(program.main);
    return program.failures > 0;
}
