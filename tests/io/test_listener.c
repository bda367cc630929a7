/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "io/connect.h"
#include "io/listener.h"
#include "os/clock.h"
#include "os/thread.h"

static int accept_error;                             /* what accept4 says, once */
static void (*while_locking)(const char *lock_path); /* runs before the next flock */
static void (*while_probing)(void);                  /* runs before the next connect */

int __real_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags);
int __wrap_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags);

int __wrap_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags)
{
    if (accept_error != 0) {
        errno = accept_error;
        accept_error = 0;
        return -1;
    }
    return __real_accept4(fd, peer, size, flags);
}

int __real_connect(int fd, const struct sockaddr *where, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *where, socklen_t size);
int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);

int __wrap_connect(int fd, const struct sockaddr *where, socklen_t size)
{
    void (*run)(void) = while_probing;

    if (run) {
        while_probing = NULL;
        run();
    }
    return __real_connect(fd, where, size);
}

int __wrap_flock(int fd, int operation)
{
    void (*run)(const char *) = while_locking;

    if (run) {
        char name[32], path[200];
        ssize_t n;

        while_locking = NULL;
        (void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
        n = readlink(name, path, sizeof(path) - 1);
        assert_true(n > 0);
        path[n] = '\0';
        run(path);
    }
    return __real_flock(fd, operation);
}

static char directory[64];
static struct sml_address address; /* unix, in it; unused at the start of each test */

static struct sml_address address_of(const char *text)
{
    struct sml_address parsed;

    assert_int_equal(sml_address_parse(text, &parsed, NULL), SEMEL_OK);
    return parsed;
}

static void assert_refused(const struct sml_address *at, enum semel_status status, const char *what)
{
    struct sml_listener listener;
    struct sml_reason reason;
    char expected[SML_REASON_BYTES];
    int before = kit_descriptors();

    assert_int_equal(sml_listener_open(&listener, at, false, &reason), status);
    (void)snprintf(expected, sizeof(expected), "%s: %s", at->text, what);
    assert_string_equal(reason.text, expected);
    assert_int_equal(kit_descriptors(), before);
}

static bool reachable(const struct sml_address *at)
{
    struct sml_channel channel;

    if (sml_connect_now(at, sml_clock_now() + 20 * SML_SECOND, &channel, NULL) != SEMEL_OK)
        return false;
    sml_channel_close(&channel);
    return true;
}

static void live_server_is_respected(void **state)
{
    struct sml_listener listener;
    int before = kit_descriptors();

    (void)state;
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    assert_string_equal(listener.address.text, address.text);
    assert_true(fcntl(listener.fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(listener.fd_lock, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(listener.fd_spare, F_GETFD) & FD_CLOEXEC);
    assert_refused(&address, SEMEL_ADDRESS_IN_USE, "address in use");
    assert_true(reachable(&address));
    sml_listener_close(&listener);
    sml_listener_close(&listener);
    assert_int_equal(kit_descriptors(), before);
    assert_int_equal(kit_entries(directory), 0); /* neither socket nor lock file */
    assert_false(reachable(&address));
}

/* A socket as another program would make it. */
static int foreign_socket(int type, bool listening)
{
    struct sockaddr_un where = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    memcpy(where.sun_path, address.path, strlen(address.path));
    assert_int_equal(bind(fd, (struct sockaddr *)&where, sizeof(where)), 0);
    if (listening)
        assert_int_equal(listen(fd, 0), 0);
    return fd;
}

static void foreign_server_is_respected(void **state)
{
    int fd = foreign_socket(SOCK_STREAM, true), client;
    struct sockaddr_un where = { .sun_family = AF_UNIX };

    (void)state;
    assert_refused(&address, SEMEL_ADDRESS_IN_USE, "address in use");
    /* Also when its queue is full. */
    memcpy(where.sun_path, address.path, strlen(address.path));
    for (int i = 0; i < 2; i++) {
        client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(client, (struct sockaddr *)&where, sizeof(where));
    }
    assert_refused(&address, SEMEL_ADDRESS_IN_USE, "address in use");
    (void)close(fd);
    (void)unlink(address.path);
    fd = foreign_socket(SOCK_DGRAM, false);
    assert_refused(&address, SEMEL_ADDRESS_IN_USE, "address in use");
    (void)close(fd);
    (void)unlink(address.path);
    assert_int_equal(kit_entries(directory), 0);
}

static void dead_servers_file_is_replaced(void **state)
{
    struct sml_listener listener;

    (void)state;
    (void)close(foreign_socket(SOCK_STREAM, true));
    assert_int_equal(kit_entries(directory), 1);
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    assert_true(reachable(&address));
    /* A killed server: neither file is removed. */
    sml_listener_abandon(&listener);
    assert_int_equal(kit_entries(directory), 2);
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    assert_true(reachable(&address));
    sml_listener_close(&listener);
    assert_int_equal(kit_entries(directory), 0);
}

static void other_files_are_left_alone(void **state)
{
    struct sml_listener listener;
    struct sml_address nowhere, inside_file;
    char text[SML_REASON_BYTES];
    int fd = open(address.path, O_CREAT | O_WRONLY, 0600);

    (void)state;
    (void)close(fd);
    assert_refused(&address, SEMEL_BAD_ADDRESS, "exists and is not a socket");
    (void)snprintf(text, sizeof(text), "%s/below", address.text);
    inside_file = address_of(text);
    assert_refused(&inside_file, SEMEL_BAD_ADDRESS, "not a directory");
    (void)unlink(address.path);
    (void)snprintf(text, sizeof(text), "unix:%s/no/where", directory);
    nowhere = address_of(text);
    assert_refused(&nowhere, SEMEL_BAD_ADDRESS, "no such directory");

    /* Somebody else's file has taken the place of ours. */
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    (void)unlink(address.path);
    fd = foreign_socket(SOCK_STREAM, true);
    sml_listener_close(&listener);
    assert_int_equal(kit_entries(directory), 1);
    assert_true(reachable(&address));
    (void)close(fd);
    (void)unlink(address.path);
}

static struct sml_listener rival;
static enum semel_status rival_status;

static void rival_opens(void)
{
    rival_status = sml_listener_open(&rival, &address, false, NULL);
}

/* Between our probe of a dead server's file and its removal another server tries the same. */
static void rival_cannot_take_over_while_probing(void **state)
{
    struct sml_listener listener;

    (void)state;
    (void)close(foreign_socket(SOCK_STREAM, true));
    while_probing = rival_opens;
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    assert_null(while_probing);
    assert_int_equal(rival_status, SEMEL_ADDRESS_IN_USE);
    sml_listener_close(&listener);
    assert_int_equal(kit_entries(directory), 0);
}

static int rival_lock;

static void rival_replaces_lock(const char *path)
{
    (void)unlink(path);
    rival_lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(__real_flock(rival_lock, LOCK_EX | LOCK_NB), 0);
}

/* We opened the lock file of a server that is just leaving, and another one has come: the lock
 * that we then get is on a file that nobody looks at any more. */
static void stale_lock_file_is_noticed(void **state)
{
    struct sml_listener listener;

    (void)state;
    while_locking = rival_replaces_lock;
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_ADDRESS_IN_USE);
    assert_null(while_locking);
    (void)close(rival_lock);
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    sml_listener_close(&listener);
    assert_int_equal(kit_entries(directory), 0);
}

#define RIVALS 4
#define RACES 200

struct race {
    _Atomic int ready, winners, rounds_done;
    _Atomic bool lonely; /* somebody who had won could not be reached */
};

static void compete(void *arg)
{
    struct race *race = arg;
    struct sml_listener listener;

    for (int round = 0; round < RACES; round++) {
        enum semel_status status;

        atomic_fetch_add(&race->ready, 1);
        while (atomic_load(&race->ready) < (round + 1) * RIVALS)
            sml_thread_yield();
        status = sml_listener_open(&listener, &address, false, NULL);
        if (status == SEMEL_OK) {
            atomic_fetch_add(&race->winners, 1);
            if (!reachable(&address))
                atomic_store(&race->lonely, true);
        }
        atomic_fetch_add(&race->rounds_done, 1);
        while (atomic_load(&race->rounds_done) < (round + 1) * RIVALS)
            sml_thread_yield();
        /* Every second time as if killed, so that the next round finds a dead file. */
        if (status == SEMEL_OK && round % 2)
            sml_listener_close(&listener);
        else if (status == SEMEL_OK)
            sml_listener_abandon(&listener);
    }
}

static void one_of_several_servers_wins(void **state)
{
    struct race race = { 0, 0, 0, false };
    struct sml_thread threads[RIVALS];

    (void)state;
    for (int i = 0; i < RIVALS; i++)
        assert_int_equal(sml_thread_create(&threads[i], "rival", 0, compete, &race), SEMEL_OK);
    for (int i = 0; i < RIVALS; i++)
        sml_thread_join(&threads[i]);
    assert_false(atomic_load(&race.lonely));
    /* At most one per round. A rival may come while the last winner is only just leaving, so not
     * every round has one. */
    assert_true(atomic_load(&race.winners) <= RACES);
    assert_true(atomic_load(&race.winners) > 0);
    assert_int_equal(kit_entries(directory), 0);
}

static void tcp_port_is_chosen_and_told(void **state)
{
    static const char *const hosts[] = { "tcp:127.0.0.1:0", "tcp:[::1]:0", "tcp:localhost:0" };

    (void)state;
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        struct sml_address any = address_of(hosts[i]), again;
        struct sml_listener listener;
        struct sml_reason reason;
        enum semel_status status = sml_listener_open(&listener, &any, false, &reason);

        if (status == SEMEL_BAD_ADDRESS && strstr(any.text, "::1")) {
            print_message("no ::1 on this machine: %s\n", reason.text);
            continue;
        }
        assert_int_equal(status, SEMEL_OK);
        assert_true(listener.address.port != 0);
        again = address_of(listener.address.text);
        assert_int_equal(again.port, listener.address.port);
        assert_true(reachable(&again));
        assert_refused(&again, SEMEL_ADDRESS_IN_USE, "address in use");
        sml_listener_close(&listener);
    }
}

static void beyond_loopback_must_be_asked_for(void **state)
{
    static const char *const open_to_all[] = { "tcp:0.0.0.0:0", "tcp:[::]:0" };
    struct sml_address foreign = address_of("tcp:192.0.2.1:0"), fd = address_of("fd:3");
    struct sml_listener listener;
    struct sml_reason reason;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sml_address any = address_of(open_to_all[i]);

        assert_refused(&any, SEMEL_DENIED,
                       "beyond loopback nothing would be encrypted; allow it explicitly "
                       "(insecure)");
        if (sml_listener_open(&listener, &any, true, &reason) == SEMEL_OK)
            sml_listener_close(&listener);
        else
            print_message("%s\n", reason.text);
    }
    assert_int_equal(sml_listener_open(&listener, &foreign, true, &reason), SEMEL_BAD_ADDRESS);
    assert_non_null(strstr(reason.text, "not an address of this machine"));
    assert_refused(&fd, SEMEL_BAD_ADDRESS, "nothing can listen there");
}

static void accepted_clients_are_named(void **state)
{
    struct sml_listener listener;
    struct sml_channel client, server;
    char expected[SML_REASON_BYTES];

    (void)state;
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    assert_int_equal(sml_listener_accept(&listener, &server, NULL), SML_ACCEPT_NONE);
    assert_int_equal(sml_connect_now(&address, SML_NEVER, &client, NULL), SEMEL_OK);
    accept_error = ECONNABORTED; /* of an earlier client: the next is looked at */
    assert_int_equal(sml_listener_accept(&listener, &server, NULL), SML_ACCEPT_OK);
    (void)snprintf(expected, sizeof(expected), "%s pid %d", address.text, (int)getpid());
    assert_string_equal(server.peer, expected);
    assert_string_equal(client.peer, address.text);
    assert_int_equal(server.ids.uid, getuid());
    sml_channel_close(&client);
    sml_channel_close(&server);
    sml_listener_close(&listener);
}

/* Lower the limit so that no descriptor is left. */
static struct rlimit exhaust(void)
{
    struct rlimit before, now;
    int lowest = open("/dev/null", O_RDONLY);

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    now = before;
    now.rlim_cur = (rlim_t)lowest;
    (void)close(lowest);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    return before;
}

static bool waits_for_accept(const struct sml_listener *listener)
{
    struct pollfd watched = { listener->fd, POLLIN, 0 };

    return poll(&watched, 1, 0) == 1;
}

static void no_descriptors_turns_clients_away(void **state)
{
    struct sml_listener listener;
    struct sml_channel clients[3], server;
    struct sml_reason reason;
    struct rlimit before;
    char byte;

    (void)state;
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sml_connect_now(&address, SML_NEVER, &clients[i], NULL), SEMEL_OK);
    before = exhaust();
    for (int i = 0; i < 2; i++)
        assert_int_equal(sml_listener_accept(&listener, &server, &reason), SML_ACCEPT_TURNED_AWAY);
    assert_non_null(strstr(reason.text, address.text));
    assert_non_null(strstr(reason.text, "no descriptors left in this process"));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(sml_listener_accept(&listener, &server, &reason), SML_ACCEPT_OK);
    assert_false(waits_for_accept(&listener)); /* so nothing spins */
    assert_int_equal(sml_channel_read(&clients[0], &byte, 1).kind, SML_IO_ENDED);
    assert_int_equal(sml_channel_read(&clients[1], &byte, 1).kind, SML_IO_ENDED);
    assert_int_equal(sml_channel_read(&clients[2], &byte, 1).kind, SML_IO_AGAIN);
    for (int i = 0; i < 3; i++)
        sml_channel_close(&clients[i]);
    sml_channel_close(&server);
    sml_listener_close(&listener);
}

/* Even the spare descriptor is gone: the caller is told to look away for a while; later it is
 * all right again. */
static void nothing_left_asks_for_a_pause(void **state)
{
    struct sml_listener listener;
    struct sml_channel client, server;
    struct rlimit before;

    (void)state;
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    assert_int_equal(sml_connect_now(&address, SML_NEVER, &client, NULL), SEMEL_OK);
    (void)close(listener.fd_spare);
    listener.fd_spare = -1;
    assert_true(open("/dev/null", O_RDONLY) >= 0); /* its number is taken: leaked on purpose */
    before = exhaust();
    assert_int_equal(sml_listener_accept(&listener, &server, NULL), SML_ACCEPT_PAUSE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    accept_error = EMFILE;
    assert_int_equal(sml_listener_accept(&listener, &server, NULL), SML_ACCEPT_PAUSE);
    assert_true(listener.fd_spare >= 0);
    accept_error = ENOMEM;
    assert_int_equal(sml_listener_accept(&listener, &server, NULL), SML_ACCEPT_PAUSE);
    assert_int_equal(sml_listener_accept(&listener, &server, NULL), SML_ACCEPT_OK);
    sml_channel_close(&client);
    sml_channel_close(&server);
    sml_listener_close(&listener);
}

static void forked_child_leaves_the_parents_listener(void **state)
{
    struct sml_listener listener;
    pid_t child;
    int status;

    (void)state;
    assert_int_equal(sml_listener_open(&listener, &address, false, NULL), SEMEL_OK);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sml_listener_abandon(&listener);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(reachable(&address));
    assert_refused(&address, SEMEL_ADDRESS_IN_USE, "address in use");
    sml_listener_close(&listener);
}

static int set_up(void **state)
{
    char text[100];

    (void)state;
    kit_directory(directory, sizeof(directory));
    (void)snprintf(text, sizeof(text), "unix:%s/s", directory);
    address = address_of(text);
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
        { "live server is respected", live_server_is_respected, NULL, NULL, NULL },
        { "foreign server is respected", foreign_server_is_respected, NULL, NULL, NULL },
        { "dead server's file is replaced", dead_servers_file_is_replaced, NULL, NULL, NULL },
        { "other files are left alone", other_files_are_left_alone, NULL, NULL, NULL },
        { "rival cannot take over while probing", rival_cannot_take_over_while_probing, NULL, NULL,
          NULL },
        { "stale lock file is noticed", stale_lock_file_is_noticed, NULL, NULL, NULL },
        { "one of several servers wins", one_of_several_servers_wins, NULL, NULL, NULL },
        { "tcp port is chosen and told", tcp_port_is_chosen_and_told, NULL, NULL, NULL },
        { "beyond loopback must be asked for", beyond_loopback_must_be_asked_for, NULL, NULL,
          NULL },
        { "accepted clients are named", accepted_clients_are_named, NULL, NULL, NULL },
        { "no descriptors turns clients away", no_descriptors_turns_clients_away, NULL, NULL,
          NULL },
        { "nothing left asks for a pause", nothing_left_asks_for_a_pause, NULL, NULL, NULL },
        { "forked child leaves the parent's listener", forked_child_leaves_the_parents_listener,
          NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
