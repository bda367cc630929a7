/* SPDX-License-Identifier: MIT */
/* call_stream.c - a call's streams at a command line: items to standard output, standard input to
 * the method, progress to the terminal.
 *
 * The thread that made the call reads its items; one more sends. That one waits for standard input
 * and for a bell together, since a call may be over long before its input is. Nothing is kept but a
 * line: who reads slowly holds up the method, and a method that reads slowly holds up the input. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "call.h"
#include "cutter.h"
#include "json.h"
#include "output.h"
#include "progress.h"

#define READ_BYTES 65536

/* --- sending ------------------------------------------------------------------------------ */

struct sender {
    struct semel_stream *stream;
    struct call_streams *streams;
    int bell; /* the call is over */
    pthread_t thread;
};

static bool send_item(const char *item, size_t size, void *user)
{
    struct sender *sender = user;
    enum semel_status status = semel_stream_send(sender->stream, semel_bytes(item, size), -1);

    if (status == SEMEL_OK)
        return true;
    sender->streams->unread = true;
    if (status != SEMEL_END) { /* else the call's own outcome says why */
        sender->streams->given_up = true;
        output_error("cannot send an item: %s", semel_status_text(status));
        semel_stream_cancel(sender->stream);
    }
    return false;
}

/* Standard input has something, or its end. False: the call is over. */
static bool input_waits(const struct sender *sender)
{
    struct pollfd polled[2] = { { STDIN_FILENO, POLLIN, 0 }, { sender->bell, POLLIN, 0 } };

    while (poll(polled, 2, -1) < 0 && errno == EINTR)
        continue;
    return polled[1].revents == 0;
}

static void explain_cut(struct sender *sender, enum cut cut)
{
    if (cut == CUT_OK || cut == CUT_STOPPED)
        return;
    sender->streams->unread = sender->streams->given_up = true;
    if (cut == CUT_TOO_LONG)
        output_error("a line of standard input is longer than the body limit; see --chunk");
    else
        output_error("no memory for a line of standard input");
    semel_stream_cancel(sender->stream);
}

static void *send_input(void *user)
{
    struct sender *sender = user;
    const struct call_arguments *a = sender->streams->arguments;
    struct cutter cutter = { .chunk = (size_t)a->chunk,
                             .line_max =
                                 (size_t)(a->body_limit ? a->body_limit : SEMEL_BODY_BYTES) };
    char *buffer = malloc(READ_BYTES);
    enum cut cut = buffer ? CUT_OK : CUT_NO_MEMORY;
    ssize_t got = 1;

    while (cut == CUT_OK && got > 0 && input_waits(sender)) {
        got = read(STDIN_FILENO, buffer, READ_BYTES);
        if (got > 0)
            cut = cutter_feed(&cutter, buffer, (size_t)got, send_item, sender);
        else if (got < 0 && (errno == EINTR || errno == EAGAIN))
            got = 1;
    }
    if (got < 0) {
        output_error("cannot read standard input: %s", strerror(errno));
        sender->streams->unread = sender->streams->given_up = true;
        semel_stream_cancel(sender->stream);
    } else if (got == 0 && cut == CUT_OK) {
        cut = cutter_end(&cutter, send_item, sender);
        if (cut == CUT_OK)
            (void)semel_stream_end(sender->stream);
    }
    explain_cut(sender, cut);
    cutter_clear(&cutter);
    free(buffer);
    return NULL;
}

static bool sender_start(struct sender *sender)
{
    int error;

    sender->bell = eventfd(0, EFD_CLOEXEC);
    if (sender->bell < 0)
        return false;
    error = pthread_create(&sender->thread, NULL, send_input, sender);
    if (error == 0)
        return true;
    close(sender->bell);
    errno = error;
    return false;
}

static void sender_stop(struct sender *sender)
{
    eventfd_write(sender->bell, 1);
    pthread_join(sender->thread, NULL);
    close(sender->bell);
}

/* --- reading ------------------------------------------------------------------------------ */

static void print_item(const struct call_arguments *a, struct semel_bytes item)
{
    struct jsonl json;

    if (output_json()) {
        jsonl_begin(&json, stdout);
        jsonl_bytes(&json, "item", item.data, item.size);
        jsonl_end(&json);
        return;
    }
    if (item.size > 0)
        fwrite(item.data, 1, item.size, stdout);
    if (!a->raw)
        putchar('\n');
}

static void print_restart(void)
{
    struct jsonl json;

    if (output_json()) {
        jsonl_begin(&json, stdout);
        jsonl_text(&json, "restarted", "the items before this are void");
        jsonl_end(&json);
    }
    output_error("the method was begun again: what was printed until here is void");
}

/* Whatever was printed is on its way. Nobody wants it: the call is cancelled. */
static void flush_items(struct semel_stream *stream, struct call_streams *streams)
{
    if (streams->unwritten || (fflush(stdout) == 0 && !ferror(stdout)))
        return;
    streams->unwritten = true;
    if (errno == EPIPE)
        output_detail("nobody reads standard output any more: cancelling");
    else
        output_error("cannot write to standard output: %s; cancelling", strerror(errno));
    semel_stream_cancel(stream);
}

static void take(struct semel_stream *stream, struct call_streams *streams,
                 const struct semel_item *item, bool same_terminal)
{
    if (item->kind == SEMEL_ITEM_PROGRESS) {
        if (streams->arguments->progress)
            progress_show(item->bytes.data, item->bytes.size);
        return;
    }
    if (streams->unwritten)
        return;
    if (same_terminal)
        progress_hide();
    if (item->kind == SEMEL_ITEM_RESTARTED)
        print_restart();
    else
        print_item(streams->arguments, item->bytes);
    if (ferror(stdout))
        flush_items(stream, streams);
    if (same_terminal && !streams->unwritten) {
        flush_items(stream, streams);
        progress_again();
    }
}

static void read_items(struct semel_stream *stream, struct call_streams *streams)
{
    bool same_terminal = output_live() && isatty(STDOUT_FILENO) == 1;
    struct semel_item item;
    enum semel_status status;

    for (;;) {
        status = semel_stream_next(stream, 0, &item);
        if (status == SEMEL_WOULD_BLOCK) {
            flush_items(stream, streams);
            status = semel_stream_next(stream, -1, &item);
        }
        if (status != SEMEL_OK)
            break;
        take(stream, streams, &item, same_terminal);
    }
    flush_items(stream, streams);
    progress_hide();
    streams->incomplete = status != SEMEL_END;
    if (status == SEMEL_NO_MEMORY)
        output_error("no memory for an item; cancelling");
    if (status == SEMEL_TOO_LARGE)
        output_error("an item is larger than the body limit; cancelling");
    if (status != SEMEL_END && status != SEMEL_PARTS_LOST)
        semel_stream_cancel(stream);
}

void call_streams_run(struct semel_stream *stream, struct semel_result *out_result, void *user)
{
    struct call_streams *streams = user;
    const struct call_arguments *a = streams->arguments;
    struct sender sender = { .stream = stream, .streams = streams };
    bool sends = a->send && sender_start(&sender);

    if (a->send && !sends) {
        output_error("cannot send standard input: %s", strerror(errno));
        streams->unread = streams->given_up = true;
        semel_stream_cancel(stream);
    }
    if (a->stream)
        read_items(stream, streams);
    if (semel_stream_result(stream, -1, out_result) != SEMEL_OK)
        *out_result = (struct semel_result){ .outcome = SEMEL_UNKNOWN };
    if (sends)
        sender_stop(&sender);
}
