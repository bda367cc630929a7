/* SPDX-License-Identifier: MIT */
/* semel_uv.c - watch the Semel loop's descriptor by a libuv handle.
 *
 * The handle watches a copy of the descriptor: libuv forbids to close what it watches, and a
 * callback may destroy the Semel loop. libuv gives a handle's memory back in a turn of its own, so
 * that detaching in a callback is no different from detaching elsewhere. */
#include <semel/uv.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <uv.h>

struct semel_uv {
    uv_poll_t poll; /* poll.data: this */
    struct semel_loop *loop;
    int fd;
};

static void serve(uv_poll_t *poll, int status, int events)
{
    struct semel_uv *attached = poll->data;
    enum semel_status s;

    (void)events;
    s = status < 0 ? SEMEL_SYSTEM : semel_loop_dispatch(attached->loop);
    /* ALREADY: another thread is inside, against the rules. Everything else is the end. */
    if (s != SEMEL_OK && s != SEMEL_ALREADY && !uv_is_closing((uv_handle_t *)poll))
        (void)uv_poll_stop(poll);
}

static void closed(uv_handle_t *handle)
{
    struct semel_uv *attached = handle->data;

    (void)close(attached->fd);
    free(attached);
}

static enum semel_status status_of(int error)
{
    switch (error) {
    case UV_EMFILE:
    case UV_ENFILE:
        return SEMEL_LIMIT;
    case UV_ENOMEM:
        return SEMEL_NO_MEMORY;
    default:
        return SEMEL_SYSTEM;
    }
}

enum semel_status semel_uv_attach(struct semel_uv **out, struct uv_loop_s *uv,
                                  struct semel_loop *loop)
{
    struct semel_uv *attached;
    int error;

    if (!out || !uv || !loop)
        return SEMEL_INVALID;
    attached = malloc(sizeof(*attached));
    if (!attached)
        return SEMEL_NO_MEMORY;
    attached->loop = loop;
    attached->fd = fcntl(semel_loop_fd(loop), F_DUPFD_CLOEXEC, 0);
    error = attached->fd < 0 ? uv_translate_sys_error(errno)
                             : uv_poll_init(uv, &attached->poll, attached->fd);
    if (error) { /* no handle was made */
        if (attached->fd >= 0)
            (void)close(attached->fd);
        free(attached);
        return status_of(error);
    }
    attached->poll.data = attached;
    error = uv_poll_start(&attached->poll, UV_READABLE, serve);
    if (error) {
        uv_close((uv_handle_t *)&attached->poll, closed);
        return status_of(error);
    }
    *out = attached;
    return SEMEL_OK;
}

void semel_uv_detach(struct semel_uv *attached)
{
    if (attached)
        uv_close((uv_handle_t *)&attached->poll, closed);
}

struct uv_poll_s *semel_uv_handle(struct semel_uv *attached)
{
    return attached ? &attached->poll : NULL;
}
