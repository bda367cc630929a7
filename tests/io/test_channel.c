/* SPDX-License-Identifier: MIT */
/* What only some kinds of channels do; what all do is in tests/conform. */
#include "io/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "io/channel.h"
#include "io/pair.h"
#include "os/clock.h"

static int receive_error; /* what recv says */

ssize_t __real_recv(int fd, void *out, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *out, size_t size, int flags);

ssize_t __wrap_recv(int fd, void *out, size_t size, int flags)
{
    if (receive_error != 0) {
        errno = receive_error;
        return -1;
    }
    return __real_recv(fd, out, size, flags);
}

static void errors_have_status_and_words(void **state)
{
    static const struct {
        int error;
        enum semel_status status;
        const char *text;
    } cases[] = {
        { ECONNRESET, SEMEL_PEER_DIED, "connection reset by peer" },
        { EPIPE, SEMEL_PEER_DIED, "peer closed the connection" },
        { ETIMEDOUT, SEMEL_LINK_LOST, "timed out" },
        { EHOSTUNREACH, SEMEL_LINK_LOST, "no route to host" },
        { ENETDOWN, SEMEL_LINK_LOST, "network is down" },
        { ENOMEM, SEMEL_NO_MEMORY, "out of memory" },
        { EBADF, SEMEL_SYSTEM, "not an open descriptor" },
    };
    struct sml_channel a, b;
    struct sml_io ended = { 0, SML_IO_ENDED, 0 };
    char byte;

    (void)state;
    assert_int_equal(sml_channel_pair(&a, &b, NULL), SEMEL_OK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sml_io io;

        receive_error = cases[i].error;
        io = sml_channel_read(&a, &byte, 1);
        assert_int_equal(io.kind, SML_IO_BROKEN);
        assert_int_equal(sml_io_status(io), cases[i].status);
        assert_string_equal(sml_io_text(io), cases[i].text);
    }
    receive_error = 0;
    assert_int_equal(sml_io_status(ended), SEMEL_PEER_DIED);
    assert_string_equal(sml_io_text(ended), "end of file");
    sml_channel_close(&a);
    sml_channel_close(&b);
}

static void assert_unfit(int fd_read, int fd_write, const char *what)
{
    struct sml_channel channel;
    struct sml_reason reason;
    char expected[64];

    assert_int_equal(sml_channel_adopt(&channel, fd_read, fd_write, "fd:x", &reason),
                     SEMEL_BAD_ADDRESS);
    (void)snprintf(expected, sizeof(expected), "fd:x: %s", what);
    assert_string_equal(reason.text, expected);
    if (fd_read >= 0 && strcmp(what, "not an open descriptor") != 0) /* still the caller's */
        assert_true(fcntl(fd_read, F_GETFD) >= 0);
}

static void unfit_descriptors_are_refused(void **state)
{
    int pipe_fds[2], pair[2];
    int datagram = socket(AF_UNIX, SOCK_DGRAM, 0), lonely = socket(AF_INET, SOCK_STREAM, 0);
    int file = open("/proc/self/exe", O_RDONLY);

    (void)state;
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_unfit(-1, -1, "not an open descriptor");
    assert_unfit(999, 999, "not an open descriptor");
    assert_unfit(pair[0], 999, "not an open descriptor");
    assert_unfit(file, file, "neither a socket nor a pipe");
    assert_unfit(pipe_fds[0], pipe_fds[0], "not open for writing");
    assert_unfit(pipe_fds[1], pipe_fds[0], "not open for reading");
    assert_unfit(datagram, datagram, "not a stream socket");
    assert_unfit(lonely, lonely, "a socket that is not connected");
    assert_int_equal(listen(lonely, 1), 0);
    assert_unfit(lonely, lonely, "a listening socket, not a connected one");
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
    (void)close(pair[0]);
    (void)close(pair[1]);
    (void)close(datagram);
    (void)close(lonely);
    (void)close(file);
}

static void adopted_descriptors_become_the_librarys(void **state)
{
    struct sml_channel channel;
    int pair[2], up[2], down[2];
    int before = kit_descriptors();

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(sml_channel_adopt(&channel, pair[0], pair[0], NULL, NULL), SEMEL_OK);
    assert_true(fcntl(pair[0], F_GETFD) & FD_CLOEXEC);
    assert_false(fcntl(pair[0], F_GETFL) & O_NONBLOCK); /* a socket's flag is not touched */
    assert_true(channel.ids.known);
    assert_memory_equal(channel.peer, "fd:", 3);
    sml_channel_close(&channel);
    (void)close(pair[1]);

    assert_int_equal(pipe(up), 0);
    assert_int_equal(pipe(down), 0);
    assert_int_equal(sml_channel_adopt(&channel, down[0], up[1], "fd:some", NULL), SEMEL_OK);
    assert_true(fcntl(down[0], F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(up[1], F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(down[0], F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(up[1], F_GETFL) & O_NONBLOCK);
    assert_string_equal(channel.peer, "fd:some");
    sml_channel_close(&channel);
    (void)close(up[0]);
    (void)close(down[1]);
    assert_int_equal(kit_descriptors(), before);
}

/* A socket that its owner made non-blocking still works, with a poll before the receive. */
static void non_blocking_socket_is_waited_for(void **state)
{
    struct sml_channel channel;
    int pair[2];
    char text[4];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(sml_channel_adopt(&channel, pair[0], pair[0], NULL, NULL), SEMEL_OK);
    assert_false(channel.may_block);
    assert_int_equal(sml_channel_read_wait(&channel, text, 4, SML_NEVER).kind, SML_IO_AGAIN);
    assert_int_equal(write(pair[1], "ab", 2), 2);
    assert_int_equal(sml_channel_read_wait(&channel, text, 4, SML_NEVER).bytes, 2);
    sml_channel_close(&channel);
    (void)close(pair[1]);
}

/* One direction a socket, the other a pipe. */
static void mixed_descriptors_work(void **state)
{
    struct sml_channel channel;
    int pair[2], up[2];
    char text[8];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(pipe(up), 0);
    assert_int_equal(sml_channel_adopt(&channel, pair[0], up[1], NULL, NULL), SEMEL_OK);
    assert_int_equal(sml_channel_write(&channel, "hello", 5).bytes, 5);
    assert_int_equal(read(up[0], text, sizeof(text)), 5);
    assert_int_equal(sml_channel_read(&channel, text, 1).kind, SML_IO_AGAIN);
    assert_int_equal(write(pair[1], "abc", 3), 3);
    assert_int_equal(sml_channel_read(&channel, text, sizeof(text)).bytes, 3);
    sml_channel_shutdown(&channel);
    assert_int_equal(sml_channel_read(&channel, text, 1).kind, SML_IO_ENDED);
    sml_channel_close(&channel);
    (void)close(pair[1]);
    (void)close(up[0]);
}

static bool sigpipe_pending(void)
{
    sigset_t pending;

    assert_int_equal(sigpending(&pending), 0);
    return sigismember(&pending, SIGPIPE) == 1;
}

/* The host may keep SIGPIPE blocked, and may have one waiting: both stay as they were. */
static void pipes_leave_sigpipe_alone(void **state)
{
    struct sml_channel channel;
    int up[2], down[2];
    sigset_t sigpipe, mask;
    struct sml_io io;

    (void)state;
    (void)sigemptyset(&sigpipe);
    (void)sigaddset(&sigpipe, SIGPIPE);
    assert_int_equal(pipe(up), 0);
    assert_int_equal(pipe(down), 0);
    assert_int_equal(sml_channel_adopt(&channel, down[0], up[1], NULL, NULL), SEMEL_OK);
    (void)close(up[0]);

    io = sml_channel_write(&channel, "x", 1); /* not blocked: would kill */
    assert_int_equal(sml_io_status(io), SEMEL_PEER_DIED);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    assert_int_equal(sigismember(&mask, SIGPIPE), 0);
    assert_false(sigpipe_pending());

    assert_int_equal(pthread_sigmask(SIG_BLOCK, &sigpipe, NULL), 0);
    assert_int_equal(sml_channel_write(&channel, "x", 1).kind, SML_IO_BROKEN);
    assert_false(sigpipe_pending());
    assert_int_equal(pthread_kill(pthread_self(), SIGPIPE), 0);
    assert_int_equal(sml_channel_write(&channel, "x", 1).kind, SML_IO_BROKEN);
    assert_true(sigpipe_pending());
    assert_int_equal(sigtimedwait(&sigpipe, NULL, &(struct timespec){ 0, 0 }), SIGPIPE);
    assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &sigpipe, NULL), 0);

    sml_channel_close(&channel);
    (void)close(down[1]);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);

    assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

static void tcp_is_tuned(void **state)
{
    struct sml_channel channel;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    sml_channel_of_socket(&channel, fd, "tcp:x", true);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), SML_TCP_USER_TIMEOUT_MS);
    assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), SML_TCP_KEEPALIVE_IDLE_S);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), SML_TCP_KEEPALIVE_INTERVAL_S);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), SML_TCP_KEEPALIVE_PROBES);
    assert_false(channel.ids.known);
    sml_channel_close(&channel);
}

static void no_descriptors_is_a_limit(void **state)
{
    struct rlimit limit, none;
    struct sml_channel channel;
    struct sml_reason reason;
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(sml_channel_adopt(&channel, fds[0], fds[1], NULL, &reason), SEMEL_LIMIT);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_non_null(strstr(reason.text, ": no descriptors left in this process"));
    (void)close(fds[0]);
    (void)close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "errors have status and words", errors_have_status_and_words, NULL, NULL, NULL },
        { "unfit descriptors are refused", unfit_descriptors_are_refused, NULL, NULL, NULL },
        { "adopted descriptors become the library's", adopted_descriptors_become_the_librarys, NULL,
          NULL, NULL },
        { "non-blocking socket is waited for", non_blocking_socket_is_waited_for, NULL, NULL,
          NULL },
        { "mixed descriptors work", mixed_descriptors_work, NULL, NULL, NULL },
        { "pipes leave SIGPIPE alone", pipes_leave_sigpipe_alone, NULL, NULL, NULL },
        { "tcp is tuned", tcp_is_tuned, NULL, NULL, NULL },
        { "no descriptors is a limit", no_descriptors_is_a_limit, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
