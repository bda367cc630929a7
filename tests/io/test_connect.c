/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "io/connect.h"
#include "io/listener.h"
#include "os/clock.h"

static int connect_error;      /* what connect says; 0: the real answer */
static bool bind_to_target;    /* so that the socket connects to itself */
static struct addrinfo *names; /* what every host name means */

int __real_connect(int fd, const struct sockaddr *where, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *where, socklen_t size);
int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out);

int __wrap_connect(int fd, const struct sockaddr *where, socklen_t size)
{
    if (connect_error != 0) {
        errno = connect_error;
        return -1;
    }
    if (bind_to_target)
        assert_int_equal(bind(fd, where, size), 0);
    return __real_connect(fd, where, size);
}

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out)
{
    if (names && !(hints->ai_flags & AI_NUMERICHOST)) {
        *out = names;
        names = NULL;
        return 0;
    }
    return __real_getaddrinfo(host, port, hints, out);
}

static char directory[64];

static struct sml_address address_of(const char *format, ...)
{
    struct sml_address address;
    char text[256];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    assert_int_equal(sml_address_parse(text, &address, NULL), SEMEL_OK);
    return address;
}

static uint64_t soon(void)
{
    return sml_clock_now() + 20 * SML_SECOND;
}

/* Connecting fails with `status` and the words "ADDRESS: what". */
static void assert_fails(const struct sml_address *address, enum semel_status status,
                         const char *what)
{
    struct sml_channel channel;
    struct sml_reason reason;
    char expected[SML_REASON_BYTES];
    int before = kit_descriptors();

    assert_int_equal(sml_connect_now(address, soon(), &channel, &reason), status);
    (void)snprintf(expected, sizeof(expected), "%s: %s", address->text, what);
    assert_string_equal(reason.text, expected);
    assert_int_equal(kit_descriptors(), before);
}

/* A TCP port of this machine at which nobody listens, nor will for a while. */
static struct sml_address dead_port(void)
{
    struct sml_address any = address_of("tcp:127.0.0.1:0");
    struct sml_listener listener;

    assert_int_equal(sml_listener_open(&listener, &any, false, NULL), SEMEL_OK);
    any = listener.address;
    sml_listener_close(&listener);
    return any;
}

static void errors_name_the_address(void **state)
{
    struct sml_address path = address_of("unix:%s/absent", directory), port = dead_port();
    struct sml_address zero = address_of("tcp:127.0.0.1:0");
    struct sml_address fd = address_of("fd:998");

    (void)state;
    assert_fails(&path, SEMEL_PEER_DIED, "no such socket");
    assert_fails(&port, SEMEL_PEER_DIED, "connection refused");
    assert_fails(&zero, SEMEL_CONNECT, "port 0 is only for listening");
    assert_fails(&fd, SEMEL_CONNECT, "not an open descriptor");
}

static void refusals_have_their_status(void **state)
{
    static const struct {
        int error;
        enum semel_status status;
        const char *what;
    } cases[] = {
        { ECONNREFUSED, SEMEL_PEER_DIED, "connection refused" },
        { EACCES, SEMEL_DENIED, "permission denied" },
        { ETIMEDOUT, SEMEL_LINK_LOST, "timed out" },
        { ENETUNREACH, SEMEL_LINK_LOST, "network unreachable" },
        { EHOSTUNREACH, SEMEL_LINK_LOST, "no route to host" },
        { EADDRNOTAVAIL, SEMEL_CONNECT, "not an address of this machine" },
        { ENOBUFS, SEMEL_CONNECT, "out of buffer space" },
    };
    struct sml_address path = address_of("unix:%s/x", directory);
    struct sml_address port = address_of("tcp:127.0.0.1:1");

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        connect_error = cases[i].error;
        assert_fails(&path, cases[i].status, cases[i].what);
        assert_fails(&port, cases[i].status, cases[i].what);
    }
    connect_error = EAGAIN;
    assert_fails(&path, SEMEL_CONNECT, "the server's queue of new connections is full");
    connect_error = 0;
}

static void no_descriptors(void **state)
{
    struct sml_address path = address_of("unix:%s/x", directory), port = dead_port();
    const struct sml_address *addresses[] = { &path, &port };
    struct rlimit limit, none;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    for (int i = 0; i < 2; i++) {
        struct sml_channel channel;
        struct sml_reason reason;
        enum semel_status status;

        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        status = sml_connect_now(addresses[i], soon(), &channel, &reason);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(status, SEMEL_CONNECT);
        assert_non_null(strstr(reason.text, addresses[i]->text));
        assert_non_null(strstr(reason.text, "no descriptors left in this process"));
    }
}

/* A listener whose queue is full: the system drops what comes, as a silent host would. The
 * descriptors in `fds` keep it so. */
static struct sml_address silent_port(int fds[4])
{
    struct sockaddr_in where = { .sin_family = AF_INET };
    socklen_t size = sizeof(where);

    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fds[0], (struct sockaddr *)&where, size), 0);
    assert_int_equal(listen(fds[0], 0), 0);
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&where, &size), 0);
    for (int i = 1; i < 4; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)__real_connect(fds[i], (struct sockaddr *)&where, size);
        (void)usleep(2000);
    }
    return address_of("tcp:127.0.0.1:%u", (unsigned)ntohs(where.sin_port));
}

static void close_all(const int fds[4])
{
    for (int i = 0; i < 4; i++)
        (void)close(fds[i]);
}

static void silent_server_times_out(void **state)
{
    int fds[4];
    struct sml_address address = silent_port(fds);
    struct sml_connect connect;
    uint64_t now = sml_clock_now(), deadline = now + 3600 * SML_SECOND;

    (void)state;
    assert_int_equal(sml_connect_start(&connect, &address, deadline), SML_CONNECT_PENDING);
    assert_true(sml_connect_fd(&connect) >= 0);
    assert_true(sml_connect_timeout(&connect) == deadline);
    assert_int_equal(sml_connect_step(&connect, now), SML_CONNECT_PENDING);
    assert_int_equal(sml_connect_step(&connect, deadline), SML_CONNECT_FAILED);
    assert_int_equal(connect.status, SEMEL_LINK_LOST);
    assert_non_null(strstr(connect.reason.text, address.text));
    assert_non_null(strstr(connect.reason.text, "timed out"));
    assert_int_equal(sml_connect_step(&connect, deadline), SML_CONNECT_FAILED);
    sml_connect_close(&connect);
    sml_connect_close(&connect);
    /* Given up in the middle. */
    assert_int_equal(sml_connect_start(&connect, &address, deadline), SML_CONNECT_PENDING);
    sml_connect_close(&connect);
    close_all(fds);
}

/* The list that a name service would give for a host with these addresses. */
static struct addrinfo *hosts(const struct sml_address *const list[], int count)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                              .ai_socktype = SOCK_STREAM };
    struct addrinfo *first = NULL, **end = &first;

    for (int i = 0; i < count; i++) {
        char port[8];

        (void)snprintf(port, sizeof(port), "%u", (unsigned)list[i]->port);
        assert_int_equal(__real_getaddrinfo(list[i]->host, port, &hints, end), 0);
        end = &(*end)->ai_next;
    }
    return first;
}

static void next_address_of_a_name_is_tried(void **state)
{
    struct sml_address any = address_of("tcp:127.0.0.1:0"), dead = dead_port();
    struct sml_address name = address_of("tcp:some.host:7");
    struct sml_listener listener;
    const struct sml_address *both[] = { &dead, &listener.address };
    const struct sml_address *none[] = { &dead, &dead };
    struct sml_channel channel;

    (void)state;
    assert_int_equal(sml_listener_open(&listener, &any, false, NULL), SEMEL_OK);
    names = hosts(both, 2);
    assert_int_equal(sml_connect_now(&name, soon(), &channel, NULL), SEMEL_OK);
    assert_string_equal(channel.peer, "tcp:some.host:7");
    sml_channel_close(&channel);
    names = hosts(none, 2);
    assert_fails(&name, SEMEL_PEER_DIED, "connection refused");
    sml_listener_close(&listener);
}

/* Silent ones get an equal share of the time and no more. */
static void silent_address_leaves_time_for_the_next(void **state)
{
    int fds[4];
    struct sml_address silent = silent_port(fds), any = address_of("tcp:127.0.0.1:0");
    struct sml_address name = address_of("tcp:some.host:7");
    struct sml_listener listener;
    const struct sml_address *three[] = { &silent, &silent, &listener.address };
    struct sml_connect connect;
    struct sml_channel channel;
    uint64_t now = sml_clock_now(), deadline = now + 3000 * SML_SECOND, first;
    enum sml_connect_state step;

    (void)state;
    assert_int_equal(sml_listener_open(&listener, &any, false, NULL), SEMEL_OK);
    names = hosts(three, 3);
    assert_int_equal(sml_connect_start(&connect, &name, deadline), SML_CONNECT_PENDING);
    first = sml_connect_timeout(&connect);
    assert_true(first >= now + 1000 * SML_SECOND && first < now + 1100 * SML_SECOND);
    assert_int_equal(sml_connect_step(&connect, first), SML_CONNECT_PENDING);
    assert_true(sml_connect_timeout(&connect) == first + (deadline - first) / 2);
    first = sml_connect_timeout(&connect);
    do
        step = sml_connect_step(&connect, first);
    while (step == SML_CONNECT_PENDING);
    assert_int_equal(step, SML_CONNECT_DONE);
    sml_connect_take(&connect, &channel);
    sml_connect_close(&connect);
    assert_true(sml_channel_is_open(&channel));
    sml_channel_close(&channel);
    sml_listener_close(&listener);
    close_all(fds);
}

/* TCP connects a socket to itself if it happens to own the port it knocks at. */
static void own_port_is_not_a_server(void **state)
{
    struct sml_address dead = dead_port();

    (void)state;
    bind_to_target = true;
    assert_fails(&dead, SEMEL_PEER_DIED, "connection refused");
    bind_to_target = false;
}

static int set_up(void **state)
{
    (void)state;
    kit_directory(directory, sizeof(directory));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "S11 errors name the address", errors_name_the_address, NULL, NULL, NULL },
        { "refusals have their status", refusals_have_their_status, NULL, NULL, NULL },
        { "no descriptors", no_descriptors, NULL, NULL, NULL },
        { "silent server times out", silent_server_times_out, NULL, NULL, NULL },
        { "next address of a name is tried", next_address_of_a_name_is_tried, NULL, NULL, NULL },
        { "S11 silent address leaves time for the next", silent_address_leaves_time_for_the_next,
          NULL, NULL, NULL },
        { "own port is not a server", own_port_is_not_a_server, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
