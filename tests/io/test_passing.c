/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/passing.h"

struct way {
    char directory[64], path[72];
    int listener, from, to;
};

static void open_way(struct way *way)
{
    kit_directory(way->directory, sizeof way->directory);
    (void)snprintf(way->path, sizeof way->path, "%s/s", way->directory);
    assert_int_equal(sml_passing_listen(way->path, &way->listener), SEMEL_OK);
    assert_int_equal(sml_passing_accept(way->listener), -1); /* nobody waits */
    assert_int_equal(sml_passing_connect(way->path, &way->from), SEMEL_OK);
    way->to = sml_passing_accept(way->listener);
    assert_true(way->to >= 0);
}

static void close_way(struct way *way)
{
    sml_passing_close(way->to);
    sml_passing_close(way->listener);
    unlink(way->path);
    assert_int_equal(rmdir(way->directory), 0);
}

static void descriptors_arrive(void **state)
{
    int before = kit_descriptors(), ends[2], got;
    struct way way;
    char words[8], byte;
    bool ended;

    (void)state;
    open_way(&way);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_false(sml_passing_receive(way.to, words, 8, &got, &ended));
    assert_false(ended);
    assert_int_equal(sml_passing_send(way.from, "12345678", 8, ends[0]), SEMEL_OK);
    assert_true(sml_passing_receive(way.to, words, 8, &got, &ended));
    assert_memory_equal(words, "12345678", 8);
    assert_int_equal(fcntl(got, F_GETFD), FD_CLOEXEC);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(read(got, &byte, 1), 1);
    close(got);
    /* Packets that are none of ours are skipped, and what came with them is closed. */
    assert_int_equal(send(way.from, "12345678", 8, 0), 8);
    assert_int_equal(sml_passing_send(way.from, "1234", 4, ends[0]), SEMEL_OK);
    assert_int_equal(sml_passing_send(way.from, "123456789", 9, ends[0]), SEMEL_OK);
    assert_int_equal(sml_passing_send(way.from, "abcdefgh", 8, ends[0]), SEMEL_OK);
    assert_true(sml_passing_receive(way.to, words, 8, &got, &ended));
    assert_memory_equal(words, "abcdefgh", 8);
    close(got);
    sml_passing_close(way.from);
    assert_false(sml_passing_receive(way.to, words, 8, &got, &ended));
    assert_true(ended);
    close(ends[0]);
    close(ends[1]);
    close_way(&way);
    assert_int_equal(kit_descriptors(), before);
}

static void bounds_and_ends(void **state)
{
    enum semel_status status = SEMEL_OK;
    struct way way;
    char path[200];
    int fd;

    (void)state;
    memset(path, 'x', sizeof path);
    path[199] = '\0';
    assert_int_equal(sml_passing_listen(path, &fd), SEMEL_BAD_ADDRESS);
    assert_int_equal(sml_passing_connect(path, &fd), SEMEL_BAD_ADDRESS);
    open_way(&way);
    (void)snprintf(path, sizeof path, "%s/not-there", way.directory);
    assert_int_equal(sml_passing_connect(path, &fd), SEMEL_PEER_DIED);
    for (int i = 0; i < 100000 && status == SEMEL_OK; i++)
        status = sml_passing_send(way.from, "12345678", 8, way.listener);
    assert_int_equal(status, SEMEL_WOULD_BLOCK); /* nobody reads */
    sml_passing_close(way.to);
    assert_int_equal(sml_passing_send(way.from, "12345678", 8, way.listener), SEMEL_PEER_DIED);
    way.to = way.from;
    close_way(&way);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_arrive),
        cmocka_unit_test(bounds_and_ends),
    };

    return cmocka_run_group_tests_name("io/passing", tests, NULL, NULL);
}
