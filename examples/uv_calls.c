/* SPDX-License-Identifier: MIT */
/* uv_calls.c - calls in a libuv program: uv_calls ADDRESS METHOD BODY...
 *
 * All calls are made at once. A timer of the program ticks meanwhile: nothing here waits for a
 * reply but uv_run, and that for everything. Try it beside 'semel serve unix:s':
 * uv_calls unix:s sleep 300ms 100ms */
#include <semel/semel.h>
#include <semel/uv.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define TICK_MS 50

struct program {
    uv_loop_t *uv;
    uv_timer_t ticks;
    struct semel_loop *loop; /* lives in `uv` */
    struct semel_uv *attached;
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

static void tick(uv_timer_t *timer)
{
    (void)timer;
    printf("tick\n");
    (void)fflush(stdout);
}

/* When the last call has ended nothing keeps uv_run any more. */
static void call_ended(struct program *program)
{
    (void)fflush(stdout);
    if (--program->calls > 0)
        return;
    semel_uv_detach(program->attached);
    uv_close((uv_handle_t *)&program->ticks, NULL);
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

    if (argc < 4) {
        (void)fprintf(stderr, "usage: uv_calls ADDRESS METHOD BODY...\n");
        return 2;
    }
    program.uv = uv_default_loop();
    need(semel_loop_create(&program.loop, NULL), "loop");
    need(semel_uv_attach(&program.attached, program.uv, program.loop), "attach");
    need(semel_client_create(&program.client, argv[1], NULL), argv[1]);
    (void)uv_timer_init(program.uv, &program.ticks);
    (void)uv_timer_start(&program.ticks, tick, TICK_MS, TICK_MS);
    for (int i = 3; i < argc; i++)
        start_call(&program, argv[2], argv[i]);
    (void)uv_run(program.uv, UV_RUN_DEFAULT);
    need(semel_client_destroy(program.client), "client");
    need(semel_loop_destroy(program.loop), "destroy");
    (void)uv_loop_close(program.uv);
    return program.failures > 0;
}
