/* SPDX-License-Identifier: MIT */
/* shell_stream.c - a command's streams.
 *
 * Items go out on the handler's thread, which waits for a slow reader, and with it the command's
 * pipe: so nothing is kept here but a line. Items come in on a thread of their own, the feeder,
 * since one can be waited for in the library only, and room in the command's input in the system
 * only. The feeder looks every LOOK_MS whether the command has ended; nothing but its own end waits
 * for that. */
#include "shell_stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <semel/limits.h>

#define LOOK_MS 50

void shell_stream_init(struct shell_stream *stream, struct semel_request *request, size_t chunk,
                       size_t line_max)
{
    memset(stream, 0, sizeof *stream);
    stream->request = request;
    stream->takes = semel_request_takes(request);
    stream->newlines = chunk == 0;
    stream->output = (struct cutter){ .chunk = chunk, .line_max = line_max };
    stream->progress = (struct cutter){ .line_max = SEMEL_PROGRESS_BYTES };
    stream->input = stream->bell = -1;
    atomic_init(&stream->stop, false);
}

/* --- to the command ------------------------------------------------------------------------ */

/* False: it does not want the rest, or has ended. */
static bool write_all(struct shell_stream *stream, const char *data, size_t size)
{
    while (size > 0) {
        struct pollfd polled[2] = { { stream->input, POLLOUT, 0 }, { stream->bell, POLLIN, 0 } };
        ssize_t wrote = write(stream->input, data, size);

        if (wrote < 0 && errno != EINTR && errno != EAGAIN)
            return false;
        if (wrote >= 0) {
            data += wrote;
            size -= (size_t)wrote;
            continue;
        }
        poll(polled, 2, -1);
        if (polled[1].revents)
            return false;
    }
    return true;
}

static void *feed(void *user)
{
    struct shell_stream *stream = user;
    struct semel_bytes item = semel_request_body(stream->request);
    bool wanted = write_all(stream, item.data, item.size);
    enum semel_status status = SEMEL_OK;

    while (wanted && !atomic_load(&stream->stop)) {
        status = semel_request_next(stream->request, LOOK_MS, &item);
        if (status == SEMEL_WOULD_BLOCK)
            continue;
        if (status == SEMEL_TOO_LARGE)
            stream->unfed = "an item of the caller is larger than the body limit";
        if (status != SEMEL_OK)
            break;
        wanted = write_all(stream, item.data, item.size) &&
                 (!stream->newlines || write_all(stream, "\n", 1));
    }
    close(stream->input);
    return NULL;
}

bool shell_stream_feed(struct shell_stream *stream, int input)
{
    int error;

    stream->bell = eventfd(0, EFD_CLOEXEC);
    if (stream->bell < 0)
        return false;
    stream->input = input;
    error = pthread_create(&stream->feeder, NULL, feed, stream);
    stream->feeding = error == 0;
    errno = error;
    return stream->feeding;
}

/* --- from it ------------------------------------------------------------------------------- */

static bool send_item(const char *item, size_t size, void *user)
{
    struct shell_stream *stream = user;
    enum semel_status status = semel_request_send(stream->request, semel_bytes(item, size), -1);

    if (status == SEMEL_OK)
        return true;
    stream->silent = true;
    if (status != SEMEL_CANCELLED)
        stream->lost = semel_status_text(status);
    return false;
}

static bool send_progress(const char *line, size_t size, void *user)
{
    struct shell_stream *stream = user;

    if (stream->takes)
        (void)semel_request_progress(stream->request, semel_bytes(line, size));
    return true;
}

static void notice(struct shell_stream *stream, enum cut cut)
{
    if (cut == CUT_OK || cut == CUT_STOPPED)
        return;
    stream->silent = true;
    stream->lost = cut == CUT_TOO_LONG ? "a line is longer than the body limit" : "out of memory";
}

void shell_stream_output(struct shell_stream *stream, const char *data, size_t size)
{
    if (!stream->silent)
        notice(stream, cutter_feed(&stream->output, data, size, send_item, stream));
}

void shell_stream_progress(struct shell_stream *stream, const char *data, size_t size)
{
    /* Words that are too long for a progress are none. */
    if (cutter_feed(&stream->progress, data, size, send_progress, stream) != CUT_OK)
        cutter_clear(&stream->progress);
}

void shell_stream_end(struct shell_stream *stream)
{
    if (!stream->silent)
        notice(stream, cutter_end(&stream->output, send_item, stream));
    (void)cutter_end(&stream->progress, send_progress, stream);
    if (stream->feeding) {
        atomic_store(&stream->stop, true);
        eventfd_write(stream->bell, 1);
        pthread_join(stream->feeder, NULL);
        if (stream->unfed && !stream->lost)
            stream->lost = stream->unfed;
    }
    if (stream->bell >= 0)
        close(stream->bell);
    cutter_clear(&stream->output);
    cutter_clear(&stream->progress);
}
