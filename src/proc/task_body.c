/* SPDX-License-Identifier: MIT */
/* task_body.c - on the worker's side: a body that reports hears of its cancellation by that. */
#include <semel/task.h>

enum semel_status semel_task_export(struct semel_server *server, const char *method,
                                    semel_handler_fn body, void *user,
                                    const struct semel_method_options *options)
{
    struct semel_method_options copy = SEMEL_METHOD_OPTIONS_INIT;

    if (options)
        copy = *options;
    copy.tells_start = true;
    copy.gives_items = true;
    return semel_server_export(server, method, body, user, &copy);
}

/* Whoever takes nothing of it has the same result. */
static enum semel_status of(enum semel_status status)
{
    return status == SEMEL_NO_STREAM ? SEMEL_OK : status;
}

enum semel_status semel_task_report(struct semel_request *request, struct semel_bytes item)
{
    if (request == NULL)
        return SEMEL_INVALID;
    if (semel_request_cancelled(request))
        return SEMEL_CANCELLED;
    return of(semel_request_send(request, item, -1));
}

enum semel_status semel_task_progress(struct semel_request *request, struct semel_bytes progress)
{
    if (request == NULL || progress.size == 0)
        return SEMEL_INVALID;
    if (semel_request_cancelled(request))
        return SEMEL_CANCELLED;
    return of(semel_request_progress(request, progress));
}
