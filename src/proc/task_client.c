/* SPDX-License-Identifier: MIT */
/* task_client.c - tasks where a client leads to: each is a stream of it. */
#include <stdlib.h>

#include "base/list.h"
#include "proc/task_backend.h"

struct client_backend {
    struct sml_backend backend; /* first */
    struct semel_client *client;
};

struct client_run {
    struct sml_run run; /* first */
    struct semel_stream *stream;
    bool lost; /* an item was too large */
    void (*stir)(void *user);
    void *user;
};

static struct semel_stream *stream_of(const struct sml_run *run)
{
    return ((const struct client_run *)run)->stream;
}

static void on_ready(struct semel_stream *stream, void *user)
{
    struct client_run *it = user;

    (void)stream;
    it->stir(it->user);
}

static enum semel_status client_next(struct sml_run *run, struct semel_item *out_item)
{
    struct client_run *it = (struct client_run *)run;
    enum semel_status status;

    while ((status = semel_stream_next(it->stream, 0, out_item)) == SEMEL_TOO_LARGE)
        it->lost = true; /* the others come */
    return status == SEMEL_END && it->lost ? SEMEL_PARTS_LOST : status;
}

static void client_result(struct sml_run *run, struct semel_result *out_result)
{
    if (semel_stream_result(stream_of(run), 0, out_result) != SEMEL_OK)
        *out_result = (struct semel_result){ .outcome = SEMEL_UNKNOWN, .status = SEMEL_STOPPED };
}

static void client_cancel(struct sml_run *run)
{
    semel_stream_cancel(stream_of(run));
}

static enum semel_status client_kill(struct sml_run *run)
{
    (void)run;
    return SEMEL_DENIED;
}

static int client_pid(const struct sml_run *run)
{
    (void)run;
    return 0;
}

static enum semel_outcome client_close(struct sml_run *run)
{
    semel_stream_free(stream_of(run));
    free(run);
    return SEMEL_UNKNOWN;
}

static const struct sml_run_ops run_ops = {
    .next = client_next,
    .result = client_result,
    .cancel = client_cancel,
    .kill = client_kill,
    .pid = client_pid,
    .close = client_close,
};

static enum semel_status client_start(struct sml_backend *backend, const struct sml_run_spec *spec,
                                      struct sml_run **out_run)
{
    struct client_backend *it = (struct client_backend *)backend;
    struct client_run *run = calloc(1, sizeof *run);
    struct semel_stream_options options = { .takes = true, .on_ready = on_ready, .user = run };
    enum semel_status status;

    if (run == NULL)
        return SEMEL_NO_MEMORY;
    run->run.ops = &run_ops;
    run->stir = spec->stir;
    run->user = spec->user;
    status = semel_client_stream(it->client, spec->method, spec->body, &spec->call, &options,
                                 &run->stream);
    if (status != SEMEL_OK) {
        free(run);
        return status;
    }
    *out_run = &run->run;
    return SEMEL_OK;
}

static void client_backend_close(struct sml_backend *backend)
{
    free(backend);
}

static const struct sml_backend_ops backend_ops = {
    .start = client_start,
    .close = client_backend_close,
};

struct sml_backend *sml_client_backend(struct semel_client *client)
{
    struct client_backend *it = calloc(1, sizeof *it);

    if (it == NULL)
        return NULL;
    it->backend.ops = &backend_ops;
    it->client = client;
    return &it->backend;
}
