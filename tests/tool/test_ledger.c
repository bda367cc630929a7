/* SPDX-License-Identifier: MIT */
/* The demo's files of lines: what is written is read again, and nothing else is. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "demo/ledger.h"

struct read {
    char lines[8][LEDGER_LINE];
    int count, refuse; /* refuse: the line of this number, from 1 */
};

static char dir[] = "/tmp/semel-ledger-XXXXXX";
static char path[64];

static bool keep(const char *line, void *user)
{
    struct read *read = user;

    if (read->count + 1 == read->refuse)
        return false;
    snprintf(read->lines[read->count++], LEDGER_LINE, "%s", line);
    return true;
}

static int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/file", dir);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(dir);
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void append(const char *text)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void ids(void **state)
{
    static const char *const bad[] = { "",       "1",      "1.2",           "1.2.3.4",   "1.2.3 ",
                                       "01.2.3", "1.2.x",  "65536.1.1",     "1.65536.1", "-1.2.3",
                                       " 1.2.3", "1.2.+3", "1.2.4294967296" };
    uint64_t id = ledger_id(65535, 7, 4294967295u);
    char text[LEDGER_ID];

    (void)state;
    assert_string_equal(ledger_id_text(id, text), "65535.7.4294967295");
    assert_int_equal(ledger_client(id), 65535);
    assert_int_equal(ledger_thread(id), 7);
    assert_int_equal(ledger_number(id), 4294967295u);
    id = 0;
    assert_true(ledger_id_parse(text, &id));
    assert_true(id == ledger_id(65535, 7, 4294967295u));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(ledger_id_parse(bad[i], &id));
}

static void lines(void **state)
{
    const struct ledger_call call = { ledger_id(1, 2, 3), LEDGER_TRANSFER, 4, 5, 600, 7000000000 };
    const struct ledger_reply reply = { ledger_id(1, 2, 3), LEDGER_NOT_EXECUTED, "POISONED", 9 };
    const struct ledger_kill kill = { 12, 4, 8000000000 };
    struct ledger_call call_read;
    struct ledger_reply reply_read;
    struct ledger_kill kill_read;
    struct ledger_tail tail = { .path = path };
    struct read read = { .count = 0 };
    int fd = ledger_open(path);

    (void)state;
    assert_true(fd >= 0);
    ledger_write_call(fd, &call);
    ledger_write_reply(fd, &reply);
    ledger_write_kill(fd, &kill);
    close(fd);
    assert_true(ledger_read(&tail, keep, &read));
    assert_int_equal(read.count, 3);
    assert_string_equal(read.lines[0], "call 1.2.3 transfer 4 5 600 7000000000");
    assert_string_equal(read.lines[1], "reply 1.2.3 not-executed POISONED 9");
    assert_string_equal(read.lines[2], "kill 12 8000000000 4");
    assert_true(ledger_parse_call(read.lines[0], &call_read));
    assert_true(call_read.id == call.id && call_read.method == call.method && call_read.from == 4 &&
                call_read.to == 5 && call_read.amount == 600 && call_read.at == call.at);
    assert_true(ledger_parse_reply(read.lines[1], &reply_read));
    assert_true(reply_read.id == reply.id && reply_read.outcome == reply.outcome &&
                reply_read.at == 9);
    assert_string_equal(reply_read.status, "POISONED");
    assert_true(ledger_parse_kill(read.lines[2], &kill_read));
    assert_true(kill_read.number == 12 && kill_read.started == 4 && kill_read.at == kill.at);
}

static void lines_that_are_none(void **state)
{
    struct ledger_reply reply;
    struct ledger_call call;
    struct ledger_kill kill;
    uint64_t id;
    bool end;

    (void)state;
    assert_false(ledger_parse_call("call 1.2.3 transfer 4 5 600", &call));
    assert_false(ledger_parse_call("call 1.2.3 transfer 4 5 600 7 8", &call));
    assert_false(ledger_parse_call("call 1.2.3 refund 4 5 600 7", &call));
    assert_false(ledger_parse_call("call 1.2 transfer 4 5 600 7", &call));
    assert_false(ledger_parse_call("reply 1.2.3 value OK 7", &call));
    assert_false(ledger_parse_reply("reply 1.2.3 value OK", &reply));
    assert_false(ledger_parse_reply("reply 1.2.3 maybe OK 7", &reply));
    assert_false(ledger_parse_reply("reply 1.2.3 value OK 7.5", &reply));
    assert_false(ledger_parse_kill("kill 1 2", &kill));
    assert_false(ledger_parse_kill("kill 1 2 3 4", &kill));
    assert_false(ledger_parse_notice("begin", &id, &end));
    assert_false(ledger_parse_notice("begin 1.2.3 ", &id, &end));
    assert_false(ledger_parse_notice("1.2.3", &id, &end));
    assert_true(ledger_parse_notice("begin 1.2.3", &id, &end));
    assert_false(end);
    assert_true(ledger_parse_notice("end 1.2.3", &id, &end));
    assert_true(end);
}

static void reading_goes_on(void **state)
{
    struct ledger_tail tail = { .path = path };
    struct read read = { .count = 0 };

    (void)state;
    assert_true(ledger_read(&tail, keep, &read)); /* it is not there yet */
    append("one\ntwo\nthr");
    assert_true(ledger_read(&tail, keep, &read));
    assert_int_equal(read.count, 2);
    append("ee\n");
    read.refuse = 4;
    append("four\nfive\n");
    assert_false(ledger_read(&tail, keep, &read));
    assert_int_equal(errno, 0);
    assert_int_equal(read.count, 3);
    assert_string_equal(read.lines[2], "three");
    assert_int_equal(tail.lines, 3);
    read.refuse = 0;
    assert_true(ledger_read(&tail, keep, &read));
    assert_int_equal(read.count, 5);
    assert_string_equal(read.lines[3], "four");
}

/* More than is read at once. */
static void reading_much(void **state)
{
    struct ledger_tail tail = { .path = path };
    struct read read = { .count = 0 };
    char line[LEDGER_LINE];

    (void)state;
    memset(line, 'x', sizeof line);
    line[sizeof line - 2] = '\n';
    line[sizeof line - 1] = '\0';
    for (int i = 0; i < 300; i++)
        append(line);
    append("last\n");
    for (int i = 0; i < 301; i++) {
        read.count = 0;
        read.refuse = 2;
        assert_true(ledger_read(&tail, keep, &read) == (i == 300));
        assert_int_equal(read.count, 1);
    }
    assert_string_equal(read.lines[0], "last");
}

static void half_a_line_is_cut_off(void **state)
{
    struct ledger_tail tail = { .path = path };
    struct read read = { .count = 0 };
    int fd;

    (void)state;
    append("one\ntwo\nthr");
    fd = ledger_open(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "four\n", 5), 5);
    close(fd);
    assert_true(ledger_read(&tail, keep, &read));
    assert_int_equal(read.count, 3);
    assert_string_equal(read.lines[1], "two");
    assert_string_equal(read.lines[2], "four");
}

static void nothing_but_half_a_line(void **state)
{
    int fd;

    (void)state;
    append("one");
    fd = ledger_open(path);
    assert_true(fd >= 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), 0);
    close(fd);
}

static void a_path_that_is_none(void **state)
{
    struct ledger_tail tail = { .path = dir };
    struct read read = { .count = 0 };

    (void)state;
    assert_int_equal(ledger_open("/nowhere/at/all"), -1);
    assert_false(ledger_read(&tail, keep, &read)); /* a directory */
    assert_int_equal(errno, EISDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),
        cmocka_unit_test_teardown(lines, remove_file),
        cmocka_unit_test(lines_that_are_none),
        cmocka_unit_test_teardown(reading_goes_on, remove_file),
        cmocka_unit_test_teardown(reading_much, remove_file),
        cmocka_unit_test_teardown(half_a_line_is_cut_off, remove_file),
        cmocka_unit_test_teardown(nothing_but_half_a_line, remove_file),
        cmocka_unit_test(a_path_that_is_none),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
