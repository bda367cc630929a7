/* SPDX-License-Identifier: MIT */
/* Senders that lie, die, or are none. */
#include <dirent.h>
#include <sys/resource.h>

#include "proc/router_internal.h"
#include "router_kit.h"
#include "wire/frame.h"

/* --- senders made of bytes ------------------------------------------------------------------- */

static int connect_to(const struct box *box)
{
    struct sockaddr_un where = { .sun_family = AF_UNIX };
    char ticket[SEMEL_TICKET_BYTES];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(semel_receiver_ticket(box->receiver, ticket, sizeof ticket), SEMEL_OK);
    snprintf(where.sun_path, sizeof where.sun_path, "%s", strstr(ticket, "unix:") + 5);
    assert_int_equal(connect(fd, (struct sockaddr *)&where, sizeof where), 0);
    return fd;
}

/* What was written before is read: it is in the socket. */
static void settle(struct desk *desk)
{
    for (int i = 0; i < 5; i++)
        assert_int_equal(semel_loop_dispatch(desk->loop), SEMEL_OK);
}

static void put(struct desk *desk, int fd, const uint8_t *bytes, size_t size)
{
    assert_int_equal(write(fd, bytes, size), size);
    settle(desk);
}

/* A HELLO of the session `number`; `outstanding`: its one call, or NULL. */
static void greet(struct desk *desk, int fd, enum sml_hello_kind kind, uint64_t conn_no,
                  uint8_t number, const struct sml_outstanding *outstanding)
{
    struct sml_hello hello = { .version = SML_VERSION,
                               .kind = kind,
                               .features = SML_FEATURE_PARTS,
                               .count = outstanding ? 1 : 0,
                               .conn_no = conn_no,
                               .next = outstanding ? outstanding->xid + 1 : 1,
                               .body_bytes = 1000,
                               .window = 8 };
    uint8_t bytes[2 * SML_FRAME_BYTES_MAX];
    size_t size;

    memset(hello.session.bytes, number, sizeof hello.session.bytes);
    memset(hello.secret, 9, sizeof hello.secret);
    size = sml_encode_hello(bytes, &hello);
    if (outstanding)
        size += sml_encode_outstanding(bytes + size, outstanding, 1);
    put(desk, fd, bytes, size);
}

static uint64_t connections_of(const struct desk *desk)
{
    struct semel_router_counters counters;

    semel_router_counters(desk->router, &counters);
    return counters.connections;
}

static bool two_are_there(void *user)
{
    return connections_of(user) == 2;
}

/* Another sender than the bad one. */
static void others_go_on(struct desk *desk, struct box *box)
{
    box->wanted = 100;
    assert_int_equal(pthread_create(&box->thread, NULL, send_in_thread, box), 0);
    assert_true(serve(desk, has_all, box, 30));
    pthread_join(box->thread, NULL);
    assert_false(box->wrong);
    semel_sender_destroy(box->sender);
}

/* --- bad senders ----------------------------------------------------------------------------- */

static bool is_refused(void *user)
{
    struct semel_router_counters counters;

    semel_router_counters(((struct desk *)user)->router, &counters);
    return counters.refused > 0;
}

static void test_not_its_own(void **state)
{
    char ticket[SEMEL_TICKET_BYTES];
    struct semel_sender *thief;
    struct box box;
    struct desk desk;
    enum semel_status status;
    size_t secret;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    assert_int_equal(semel_receiver_ticket(box.receiver, ticket, sizeof ticket), SEMEL_OK);
    assert_int_equal(semel_receiver_ticket(box.receiver, ticket, 10), SEMEL_TOO_LARGE);
    secret = strlen("semel-pipe:0:");
    ticket[secret] = ticket[secret] == 'a' ? 'b' : 'a'; /* another secret */
    assert_int_equal(semel_sender_create(&thief, ticket), SEMEL_OK);
    assert_int_equal(semel_sender_start(thief), SEMEL_OK);
    assert_int_equal(post(thief, 3, 0, 64, -1), SEMEL_OK);
    assert_true(serve(&desk, is_refused, &desk, 30));
    while ((status = post(thief, 3, 1, 64, 100)) == SEMEL_OK)
        kit_sleep_ms(1);
    assert_int_equal(status, SEMEL_DENIED);
    assert_int_equal(box.got, 0);
    /* The owner is not disturbed. */
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    assert_int_equal(post(box.sender, 3, 0, 64, -1), SEMEL_OK);
    box.wanted = 1;
    assert_true(serve(&desk, has_all, &box, 30));
    semel_sender_destroy(thief);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* Bytes that are no protocol, lengths that lie, half a frame: others go on. */
static void test_garbage(void **state)
{
    struct box box;
    struct desk desk;
    int fd;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    for (int kind = 0; kind < 4; kind++) {
        uint8_t bytes[64];

        fd = connect_to(&box);
        memset(bytes, kind == 0 ? 0xff : 0, sizeof bytes);
        bytes[0] = 112;
        bytes[4] = 1; /* a HELLO's header, and no more, or nothing in it */
        if (kind < 3)
            (void)!write(fd, bytes, kind == 1 ? 20 : sizeof bytes);
        settle(&desk);
        if (kind != 2)
            close(fd);
    }
    others_go_on(&desk, &box);
    close_desk(&desk);
    close(fd);
}

/* After its last word comes more than a frame's bytes, in the same read. */
static void test_more_after_the_end(void **state)
{
    static uint8_t bytes[SML_ROUTER_READ_BYTES];
    int room = 2 * (int)sizeof bytes;
    struct box box;
    struct desk desk;
    ssize_t sent;
    int fd;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    fd = connect_to(&box);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    greet(&desk, fd, SML_CREATE, 1, 7, NULL);
    memset(bytes, 'A', sizeof bytes);
    (void)sml_encode_bye(bytes, SML_BYE_END, semel_bytes_text("the end"));
    sent = send(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    assert_true(sent > 2 * SML_FRAME_BYTES_MAX);
    settle(&desk);
    assert_int_equal(connections_of(&desk), 0);
    others_go_on(&desk, &box);
    close_desk(&desk);
    close(fd);
}

/* The call that opens the box's pipe. */
static void open_pipe(struct desk *desk, int fd, const struct box *box,
                      struct sml_outstanding *out_call)
{
    static uint8_t bytes[SML_FRAME_BYTES_MAX];
    uint64_t id = semel_receiver_id(box->receiver);
    uint8_t body[SML_PIPE_BODY_BYTES];
    struct sml_call_frame call = { .body_bytes = sizeof body,
                                   .remaining_ms = 100000,
                                   .flags = SML_CALL_SENDS,
                                   .method = semel_bytes_text(SML_PIPE_METHOD),
                                   .content_type = semel_bytes("", 0),
                                   .key = semel_bytes("", 0),
                                   .fragment = semel_bytes(body, sizeof body) };

    memcpy(body, &id, sizeof id);
    memcpy(body + sizeof id, box->receiver->secret, SML_PIPE_SECRET_BYTES);
    call.fingerprint =
        sml_fingerprint(SML_PIPE_METHOD, strlen(SML_PIPE_METHOD), "", 0, body, sizeof body);
    out_call->xid = 1;
    out_call->fingerprint = call.fingerprint;
    put(desk, fd, bytes, sml_encode_call(bytes, 1, &call));
}

/* Message `number` to the box. */
static void put_message(struct desk *desk, int fd, const struct box *box, uint32_t number)
{
    static uint8_t bytes[SML_FRAME_BYTES_MAX];
    uint8_t message[1 + HEAD_BYTES] = { SML_MESSAGE_PLAIN };
    struct sml_part_frame part = { .number = number,
                                   .kind = SML_PART_ITEM,
                                   .bytes = semel_bytes(message, sizeof message) };

    memcpy(message + 1, &box->number, 4);
    memcpy(message + 5, &number, 4);
    put(desk, fd, bytes, sml_encode_part(bytes, 1, &part));
}

static bool is_at_end(int fd)
{
    uint8_t bytes[256];
    ssize_t got;

    while ((got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        continue;
    return got == 0;
}

/* A session whose pipe is open goes over to a newer connection: the pipe goes with it, whether or
 * not the older one has closed; and it ends with the newer one. */
static void taken_over(bool closes)
{
    struct sml_outstanding call = { 0 };
    struct box box, other;
    struct desk desk;
    int older, newer;

    open_desk(&desk);
    open_box(&other, &desk, 1, NULL);
    open_box(&box, &desk, 3, NULL);
    older = connect_to(&box);
    greet(&desk, older, SML_CREATE, 1, 7, NULL);
    open_pipe(&desk, older, &box, &call);
    put_message(&desk, older, &box, 0);
    assert_int_equal(box.got, 1);
    newer = connect_to(&box);
    greet(&desk, newer, SML_RESUME, 2, 7, &call);
    if (!closes)
        assert_true(is_at_end(older));
    close(older);
    settle(&desk);
    assert_int_equal(connections_of(&desk), 1);
    put_message(&desk, newer, &box, 1);
    assert_int_equal(box.got, 2);
    assert_false(box.wrong);
    close(newer);
    settle(&desk);
    assert_int_equal(connections_of(&desk), 0);
    semel_sender_destroy(box.sender);
    others_go_on(&desk, &other);
    close_desk(&desk);
}

static void test_taken_over(void **state)
{
    (void)state;
    taken_over(true);
    taken_over(false);
}

/* --- as many connections as there may be ----------------------------------------------------- */

/* The last of them is served as the others are. */
static void test_last_connection(void **state)
{
    for (uint32_t many = 1; many <= 3; many++) {
        struct semel_router_options few = { .connections = many };
        struct box box;
        struct desk desk;
        int fds[3];

        (void)state;
        open_desk_with(&desk, few);
        open_box(&box, &desk, 3, NULL);
        for (uint32_t i = 0; i + 1 < many; i++) {
            fds[i] = connect_to(&box);
            greet(&desk, fds[i], SML_CREATE, 1, (uint8_t)(20 + i), NULL);
        }
        others_go_on(&desk, &box);
        close_desk(&desk);
        for (uint32_t i = 0; i + 1 < many; i++)
            close(fds[i]);
    }
}

#define CROWD 24

static bool all_have_all(void *user)
{
    struct box *boxes = user;
    bool all = true;

    for (uint32_t i = 0; i < CROWD; i++)
        all &= has_all(&boxes[i]);
    return all;
}

/* One more waits until one of them ends; one that has said nothing makes room at once. */
static void test_one_too_many(void **state)
{
    struct semel_router_options few = { .connections = 1 };
    struct box boxes[2];
    struct desk desk;
    int fd;

    (void)state;
    open_desk_with(&desk, few);
    for (uint32_t i = 0; i < 2; i++)
        open_box(&boxes[i], &desk, i, NULL);
    fd = connect_to(&boxes[0]);
    greet(&desk, fd, SML_CREATE, 1, 7, NULL);
    assert_int_equal(semel_sender_start(boxes[0].sender), SEMEL_OK);
    assert_int_equal(post(boxes[0].sender, 0, 0, 64, -1), SEMEL_OK);
    settle(&desk);
    assert_int_equal(boxes[0].got, 0);
    close(fd);
    boxes[0].wanted = 1;
    assert_true(serve(&desk, has_all, &boxes[0], 30));
    semel_sender_destroy(boxes[0].sender);
    while (connections_of(&desk) > 0)
        settle(&desk);
    fd = connect_to(&boxes[1]);
    settle(&desk);
    assert_int_equal(connections_of(&desk), 1);
    others_go_on(&desk, &boxes[1]);
    assert_true(is_at_end(fd));
    close(fd);
    close_desk(&desk);
}

/* More processes than may be connected, all at once: each waits for its turn, and has it. */
static void test_crowd(void **state)
{
    struct semel_router_options few = { .connections = 2 };
    struct box boxes[CROWD];
    pid_t pids[CROWD];
    struct desk desk;

    (void)state;
    open_desk_with(&desk, few);
    for (uint32_t i = 0; i < CROWD; i++)
        open_box(&boxes[i], &desk, i, NULL);
    for (uint32_t i = 0; i < CROWD; i++)
        pids[i] = spawn_sender("--send", &boxes[i], 50);
    for (uint32_t i = 0; i < CROWD; i++)
        boxes[i].wanted = 50;
    (void)serve(&desk, all_have_all, boxes, 30);
    for (uint32_t i = 0; i < CROWD; i++) {
        int code = exit_of(pids[i]);

        if (code != 0 || boxes[i].got != 50)
            fail_msg("sender %u: exit %d, %u messages", i, code, boxes[i].got);
        semel_sender_destroy(boxes[i].sender);
    }
    close_desk(&desk);
}

static void let_descriptors(rlim_t many)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = many;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* While nothing can be accepted the loop rests; it goes on by itself when it can. */
static void test_no_descriptors(void **state)
{
    struct rlimit before;
    bool rests = false;
    struct box box;
    struct desk desk;
    int served, waits;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    served = connect_to(&box);
    greet(&desk, served, SML_CREATE, 1, 7, NULL);
    waits = connect_to(&box);
    for (int i = 0; i < 1000 && !rests; i++) {
        let_descriptors(0);
        assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
        let_descriptors(before.rlim_cur);
        rests = semel_loop_timeout_ns(desk.loop) > 0;
    }
    assert_true(rests);
    while (connections_of(&desk) < 2)
        assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
    close(waits);
    while (connections_of(&desk) > 1)
        settle(&desk);
    /* By hand, too. */
    waits = connect_to(&box);
    let_descriptors(0);
    assert_int_equal(semel_router_route_until(desk.router, never, NULL, 10), SEMEL_DEADLINE);
    let_descriptors(before.rlim_cur);
    assert_int_equal(connections_of(&desk), 1);
    assert_int_equal(semel_router_route_until(desk.router, two_are_there, &desk, 30000), SEMEL_OK);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
    close(waits);
    close(served);
}

/* SIGKILL after a flush, and in the middle of all: what came whole is delivered, the rest of the
 * world goes on. */
static void test_death(void **state)
{
    struct box box, other;
    struct desk desk;
    pid_t pid;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 0, NULL);
    open_box(&other, &desk, 1, NULL);
    box.wanted = 500;
    pid = spawn_sender("--die", &box, 500);
    assert_true(serve(&desk, has_all, &box, 30));
    assert_int_equal(exit_of(pid), 128 + SIGKILL);
    assert_int_equal(box.skipped, 0);
    semel_sender_destroy(box.sender);
    for (int i = 0; i < 20; i++) {
        open_box(&box, &desk, 2, NULL);
        box.wanted = 10;
        pid = spawn_sender(i % 2 ? "--forever" : "--large", &box, 100000);
        assert_true(serve(&desk, has_all, &box, 60));
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(exit_of(pid), 128 + SIGKILL);
        for (int k = 0; k < 50; k++)
            assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
        assert_false(box.wrong);
        assert_int_equal(box.skipped, 0);
        assert_int_equal(semel_router_close_pipe(desk.router, box.receiver), SEMEL_OK);
        semel_sender_destroy(box.sender);
    }
    others_go_on(&desk, &other);
    close_desk(&desk);
}

/* Directories of routers in `parent`. */
static int routers_in(const char *parent)
{
    DIR *all = opendir(parent);
    struct dirent *entry;
    int count = 0;

    assert_non_null(all);
    while ((entry = readdir(all)) != NULL)
        count += strncmp(entry->d_name, "semel-router-", 13) == 0;
    closedir(all);
    return count;
}

/* A process with a router that is killed leaves a directory; the next router removes it, and no
 * living one's. */
static void test_left_directory(void **state)
{
    char parent[] = "/tmp/semel-routers-XXXXXX";
    struct semel_router_options options = { .directory = parent };
    struct desk desk, other;
    struct box box;
    pid_t pid;

    (void)state;
    assert_non_null(mkdtemp(parent));
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        open_desk_with(&desk, options);
        (void)kill(getpid(), SIGKILL);
    }
    assert_int_equal(exit_of(pid), 128 + SIGKILL);
    assert_int_equal(routers_in(parent), 1);
    open_desk_with(&desk, options);
    assert_int_equal(routers_in(parent), 1);
    open_desk_with(&other, options);
    assert_int_equal(routers_in(parent), 2);
    open_box(&box, &desk, 0, NULL);
    others_go_on(&desk, &box);
    close_desk(&other);
    close_desk(&desk);
    assert_int_equal(rmdir(parent), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("a sender of a pipe that is not its own", test_not_its_own),
        TEST("the directory of a killed router goes", test_left_directory),
        TEST("bytes that are no protocol", test_garbage),
        TEST("more bytes after the end", test_more_after_the_end),
        TEST("a session that is taken over", test_taken_over),
        TEST("the last connection there may be", test_last_connection),
        TEST("one connection too many", test_one_too_many),
        TEST("many more than there may be", test_crowd),
        TEST("nothing can be accepted", test_no_descriptors),
        TEST("senders die", test_death),
    };

    router_kit_sender(argc, argv);
    return cmocka_run_group_tests_name("proc/router_conn", tests, NULL, NULL);
}
