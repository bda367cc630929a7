/* SPDX-License-Identifier: MIT */
#include "kit/script.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define IN_BYTES (4 * SML_FRAME_BYTES_MAX)
#define HOLD_MAX 1024

struct kit_script {
    struct kit_place place;
    kit_play play;
    void *arg;
    int listener;  /* -1: there were descriptors */
    int given[2];  /* of these, until accepted; -1 */
    atomic_int fd; /* to read from */
    int fd_write;
    atomic_bool stop;
    pthread_t thread;
    uint8_t in[IN_BYTES], out[SML_FRAME_BYTES_MAX];
    size_t at, have;
    uint8_t server_id[16];
};

static void fail(const char *what)
{
    perror(what);
    abort();
}

static void *run(void *arg)
{
    struct kit_script *script = arg;

    script->play(script, script->arg);
    kit_script_hang_up(script);
    return NULL;
}

static struct kit_script *make(kit_play play, void *arg)
{
    struct kit_script *script = calloc(1, sizeof *script);

    if (!script)
        fail("calloc");
    kit_place_make(&script->place);
    script->play = play;
    script->arg = arg;
    script->fd = script->listener = script->given[0] = script->given[1] = -1;
    memcpy(script->server_id, script->place.directory + 12, 6);
    return script;
}

struct kit_script *kit_script_start_on(kit_play play, void *arg, int fd_read, int fd_write)
{
    struct kit_script *script = make(play, arg);

    script->given[0] = fd_read;
    script->given[1] = fd_write;
    if (pthread_create(&script->thread, NULL, run, script) != 0)
        fail("pthread_create");
    return script;
}

struct kit_script *kit_script_start(kit_play play, void *arg)
{
    struct kit_script *script = make(play, arg);
    struct sockaddr_un name = { .sun_family = AF_UNIX };

    snprintf(name.sun_path, sizeof name.sun_path, "%s", script->place.path);
    script->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (script->listener < 0 ||
        bind(script->listener, (struct sockaddr *)&name, sizeof name) != 0 ||
        listen(script->listener, 64) != 0)
        fail("script");
    if (pthread_create(&script->thread, NULL, run, script) != 0)
        fail("pthread_create");
    return script;
}

const char *kit_script_address(const struct kit_script *script)
{
    return script->place.address;
}

void kit_script_stop(struct kit_script *script)
{
    int fd;

    atomic_store(&script->stop, true);
    shutdown(script->listener, SHUT_RDWR);
    fd = atomic_load(&script->fd);
    if (fd >= 0)
        shutdown(fd, SHUT_RDWR);
    pthread_join(script->thread, NULL);
    if (script->listener >= 0)
        close(script->listener);
    kit_place_remove(&script->place);
    free(script);
}

bool kit_script_stopping(const struct kit_script *script)
{
    return atomic_load(&script->stop);
}

bool kit_script_accept(struct kit_script *script)
{
    int fd;

    kit_script_hang_up(script);
    script->at = script->have = 0;
    fd = script->given[0];
    script->fd_write = script->given[1];
    script->given[0] = -1;
    if (fd < 0)
        script->fd_write = fd = accept4(script->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return false;
    atomic_store(&script->fd, fd);
    return !kit_script_stopping(script);
}

void kit_script_hang_up(struct kit_script *script)
{
    int fd = atomic_exchange(&script->fd, -1);

    if (fd >= 0)
        close(fd);
    if (fd >= 0 && script->fd_write != fd)
        close(script->fd_write);
}

bool kit_script_frame(struct kit_script *script, struct sml_frame *out)
{
    const char *why;
    size_t used;
    ssize_t got;

    for (;;) {
        enum sml_decoded decoded =
            sml_frame_decode(script->in + script->at, script->have - script->at,
                             SML_PAYLOAD_BYTES_MAX, out, &used, &why);

        if (decoded == SML_MALFORMED)
            fail(why);
        if (decoded == SML_DECODED) {
            script->at += used;
            return true;
        }
        memmove(script->in, script->in + script->at, script->have - script->at);
        script->have -= script->at;
        script->at = 0;
        got = read(atomic_load(&script->fd), script->in + script->have, IN_BYTES - script->have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        script->have += (size_t)got;
    }
}

bool kit_script_send(struct kit_script *script, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    ssize_t sent;

    while (size > 0) {
        sent = send(script->fd_write, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == ENOTSOCK)
            sent = write(script->fd_write, at, size);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool answer_list(struct kit_script *script, uint32_t count, enum sml_call_state state)
{
    static __thread struct sml_listed listed[SML_LIST_ENTRIES_MAX];
    struct sml_frame frame;

    while (count > 0) {
        if (!kit_script_frame(script, &frame) || frame.type != SML_LIST)
            return false;
        for (uint32_t i = 0; i < frame.u.list.count; i++)
            listed[i] = (struct sml_listed){ .xid = sml_list_outstanding(&frame.u.list, i).xid,
                                             .state = state };
        if (!kit_script_send(script, script->out,
                             sml_encode_listed(script->out, listed, frame.u.list.count)))
            return false;
        count -= frame.u.list.count;
    }
    return true;
}

bool kit_script_greet(struct kit_script *script, enum sml_call_state state)
{
    struct sml_welcome welcome = { .version = SML_VERSION };
    struct sml_frame frame;

    if (!kit_script_frame(script, &frame) || frame.type != SML_HELLO)
        return false;
    welcome.resumed = frame.u.hello.kind == SML_RESUME;
    welcome.count = frame.u.hello.count;
    welcome.window = frame.u.hello.window;
    welcome.body_bytes = SEMEL_BODY_BYTES;
    welcome.session_bytes = SEMEL_SESSION_BYTES;
    welcome.idle_ms = SEMEL_IDLE_SESSION_MS;
    welcome.heartbeat_ms = frame.u.hello.heartbeat_ms;
    memcpy(welcome.server_id, script->server_id, sizeof welcome.server_id);
    return kit_script_send(script, script->out, sml_encode_welcome(script->out, &welcome)) &&
           answer_list(script, welcome.count, state);
}

bool kit_script_meet(struct kit_script *script)
{
    return kit_script_accept(script) && kit_script_greet(script, SML_STATE_EXPECTED);
}

bool kit_script_reply(struct kit_script *script, uint64_t xid, struct semel_bytes body)
{
    struct sml_reply_frame reply = {
        .verdict = { .outcome = SEMEL_VALUE, .status = SEMEL_OK, .body = body },
        .body_bytes = body.size,
    };

    return kit_script_send(script, script->out, sml_encode_reply(script->out, xid, &reply));
}

bool kit_script_bye(struct kit_script *script, enum sml_bye_code code, const char *text)
{
    return kit_script_send(script, script->out,
                           sml_encode_bye(script->out, code, semel_bytes_text(text)));
}

/* --- echo ------------------------------------------------------------------------------- */

struct held {
    uint64_t xid;
    size_t size;
    uint8_t *bytes;
};

static void answer_held(struct kit_script *script, struct held *held, size_t *count)
{
    while (*count > 0) {
        struct held *last = &held[--*count];

        (void)kit_script_reply(script, last->xid, semel_bytes(last->bytes, last->size));
        free(last->bytes);
    }
}

static void echo(struct kit_script *script, size_t hold)
{
    struct held held[HOLD_MAX];
    struct sml_frame frame;
    size_t count = 0;

    while (kit_script_frame(script, &frame)) {
        if (frame.type == SML_PING)
            (void)kit_script_send(script, script->out,
                                  sml_encode_plain(script->out, SML_PONG, frame.xid));
        if (frame.type != SML_CALL)
            continue;
        if (hold == 0) {
            (void)kit_script_reply(script, frame.xid, frame.u.call.fragment);
            continue;
        }
        held[count].xid = frame.xid;
        held[count].size = frame.u.call.fragment.size;
        held[count].bytes = malloc(held[count].size + 1);
        memcpy(held[count].bytes, frame.u.call.fragment.data, held[count].size);
        if (++count == hold || count == HOLD_MAX) {
            answer_held(script, held, &count);
            hold = 0; /* from now on at once */
        }
    }
    while (count > 0)
        free(held[--count].bytes);
}

void kit_play_echo(struct kit_script *script, void *hold)
{
    size_t first = hold ? *(const size_t *)hold : 0;

    while (!kit_script_stopping(script)) {
        if (!kit_script_meet(script))
            continue;
        echo(script, first);
        first = 0;
    }
}
