/* SPDX-License-Identifier: MIT */
#include "kinds.h"

#include "io/kit.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "io/connect.h"
#include "io/listener.h"
#include "io/pair.h"
#include "os/clock.h"

static void allocate(struct ends *out)
{
    struct sml_channel *both = calloc(2, sizeof(*both));

    assert_non_null(both);
    out->a = &both[0];
    out->b = &both[1];
    out->storage = both;
}

static bool open_pair(struct ends *out)
{
    allocate(out);
    assert_int_equal(sml_channel_pair(out->a, out->b, NULL), SEMEL_OK);
    return true;
}

static bool open_listening(const char *text, struct ends *out)
{
    struct sml_address address;
    struct sml_listener listener;
    struct sml_reason reason;

    assert_int_equal(sml_address_parse(text, &address, NULL), SEMEL_OK);
    if (sml_listener_open(&listener, &address, false, &reason) != SEMEL_OK) {
        print_message("left out: %s\n", reason.text);
        return false;
    }
    allocate(out);
    assert_int_equal(sml_connect_now(&listener.address, SML_NEVER, out->a, NULL), SEMEL_OK);
    while (sml_listener_accept(&listener, out->b, NULL) != SML_ACCEPT_OK)
        (void)usleep(100);
    sml_listener_close(&listener);
    return true;
}

static bool open_unix(struct ends *out)
{
    char directory[64], text[100];
    bool opened;

    kit_directory(directory, sizeof(directory));
    (void)snprintf(text, sizeof(text), "unix:%s/s", directory);
    opened = open_listening(text, out);
    (void)rmdir(directory);
    assert_true(opened);
    return true;
}

static bool open_tcp4(struct ends *out)
{
    assert_true(open_listening("tcp:127.0.0.1:0", out));
    return true;
}

static bool open_tcp6(struct ends *out)
{
    return open_listening("tcp:[::1]:0", out);
}

static void adopt(struct sml_channel *channel, int fd_read, int fd_write)
{
    struct sml_address address;
    char text[32];

    (void)snprintf(text, sizeof(text), "fd:%d/%d", fd_read, fd_write);
    assert_int_equal(sml_address_parse(text, &address, NULL), SEMEL_OK);
    assert_int_equal(sml_connect_now(&address, SML_NEVER, channel, NULL), SEMEL_OK);
}

static bool open_fd_pipes(struct ends *out)
{
    int up[2], down[2];

    allocate(out);
    assert_int_equal(pipe(up), 0);
    assert_int_equal(pipe(down), 0);
    adopt(out->a, down[0], up[1]);
    adopt(out->b, up[0], down[1]);
    return true;
}

static bool open_fd_socket(struct ends *out)
{
    int fds[2];

    allocate(out);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    adopt(out->a, fds[0], fds[0]);
    adopt(out->b, fds[1], fds[1]);
    return true;
}

const struct kind kinds[] = {
    { "pair", open_pair, true, true, "pair" },
    { "unix", open_unix, true, true, "unix:/" },
    { "tcp4", open_tcp4, true, false, "tcp:127.0.0.1:" },
    { "tcp6", open_tcp6, true, false, "tcp:[::1]:" },
    { "fd of pipes", open_fd_pipes, false, false, "fd:" },
    { "fd of a socket", open_fd_socket, true, true, "fd:" },
    { "memory", memory_open, false, false, "memory" },
};
const int kinds_count = (int)(sizeof(kinds) / sizeof(kinds[0]));

void ends_close(struct ends *ends)
{
    sml_channel_close(ends->a);
    sml_channel_close(ends->b);
    free(ends->storage);
}
