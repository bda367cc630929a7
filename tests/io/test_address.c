/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include "io/address.h"

static const struct {
    const char *text, *canonical, *path, *host;
    unsigned port;
    int fd_read, fd_write;
    enum sml_address_kind kind;
} good[] = {
    { "unix:/run/x", "unix:/run/x", "/run/x", "", 0, -1, -1, SML_ADDRESS_UNIX },
    { "unix:x", "unix:x", "x", "", 0, -1, -1, SML_ADDRESS_UNIX },
    { "/run/x", "unix:/run/x", "/run/x", "", 0, -1, -1, SML_ADDRESS_UNIX },
    { "./x", "unix:./x", "./x", "", 0, -1, -1, SML_ADDRESS_UNIX },
    { "d/tcp:1", "unix:d/tcp:1", "d/tcp:1", "", 0, -1, -1, SML_ADDRESS_UNIX },
    { "tcp:host:7000", "tcp:host:7000", "", "host", 7000, -1, -1, SML_ADDRESS_TCP },
    { "tcp:127.0.0.1:0", "tcp:127.0.0.1:0", "", "127.0.0.1", 0, -1, -1, SML_ADDRESS_TCP },
    { "tcp:a-b.c_d:00080", "tcp:a-b.c_d:80", "", "a-b.c_d", 80, -1, -1, SML_ADDRESS_TCP },
    { "tcp:[::1]:65535", "tcp:[::1]:65535", "", "::1", 65535, -1, -1, SML_ADDRESS_TCP },
    { "tcp:[fe80::1%eth0]:1", "tcp:[fe80::1%eth0]:1", "", "fe80::1%eth0", 1, -1, -1,
      SML_ADDRESS_TCP },
    { "fd:5", "fd:5", "", "", 0, 5, 5, SML_ADDRESS_FD },
    { "fd:3/4", "fd:3/4", "", "", 0, 3, 4, SML_ADDRESS_FD },
    { "fd:7/7", "fd:7", "", "", 0, 7, 7, SML_ADDRESS_FD },
};

static void assert_good(const char *text, size_t i)
{
    struct sml_address address;
    struct sml_reason reason = { "" };

    assert_int_equal(sml_address_parse(text, &address, &reason), SEMEL_OK);
    assert_int_equal(address.kind, good[i].kind);
    assert_string_equal(address.text, good[i].canonical);
    assert_string_equal(address.path, good[i].path);
    assert_string_equal(address.host, good[i].host);
    assert_int_equal(address.port, good[i].port);
    assert_int_equal(address.fd_read, good[i].fd_read);
    assert_int_equal(address.fd_write, good[i].fd_write);
    assert_string_equal(reason.text, "");
}

static void good_addresses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_good(good[i].text, i);
        assert_good(good[i].canonical, i); /* canonical text means the same */
    }
}

static const char *const bad[][2] = {
    { "", "empty address" },
    { "x", "x: neither a scheme (unix:, tcp:, fd:) nor a path with a '/'" },
    { "unix:", "unix:: missing path" },
    { "unix:@x", "unix:@x: abstract sockets are not supported" },
    { "tcp:", "tcp:: missing host" },
    { "tcp:host", "tcp:host: missing port" },
    { "tcp:host:", "tcp:host:: missing port" },
    { "tcp::7000", "tcp::7000: missing host" },
    { "tcp:host:65536", "tcp:host:65536: port is not a number from 0 to 65535" },
    { "tcp:host:-1", "tcp:host:-1: port is not a number from 0 to 65535" },
    { "tcp:host:7x", "tcp:host:7x: port is not a number from 0 to 65535" },
    { "tcp:host:99999999999", "tcp:host:99999999999: port is not a number from 0 to 65535" },
    { "tcp:::1:7000", "tcp:::1:7000: an IPv6 address needs brackets: tcp:[::1]:7000" },
    { "tcp:[::1:7000", "tcp:[::1:7000: missing ']'" },
    { "tcp:[::1]", "tcp:[::1]: missing port" },
    { "tcp:[::1]7", "tcp:[::1]7: ':' expected after ']'" },
    { "tcp:[host]:7", "tcp:[host]:7: brackets are for IPv6 addresses" },
    { "tcp:a b:7", "tcp:a b:7: not a host" },
    { "fd:", "fd:: missing descriptor" },
    { "fd:x", "fd:x: fd:N or fd:READ/WRITE expected" },
    { "fd:3/", "fd:3/: fd:N or fd:READ/WRITE expected" },
    { "fd:3/4/5", "fd:3/4/5: fd:N or fd:READ/WRITE expected" },
    { "fd:-1", "fd:-1: fd:N or fd:READ/WRITE expected" },
    { "fd:2147483648", "fd:2147483648: fd:N or fd:READ/WRITE expected" },
    { "tls:host:7", "tls:host:7: not available in this build" },
    { "shm:/x", "shm:/x: not available in this build" },
    { "exec:/bin/x", "exec:/bin/x: not available in this build" },
    { "http://x", "http://x: unknown scheme; known are unix:, tcp:, fd:" },
    { "UNIX:/x", "UNIX:/x: unknown scheme; known are unix:, tcp:, fd:" },
    { "unix:/a,unix:/b", "unix:/a,unix:/b: one address expected, not several" },
    { "unix:/a\n", "control character in an address" },
    { "unix:/a\n,", "control character in an address" },
};

static void bad_addresses_say_why(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sml_address address = { .port = 4711 };
        struct sml_reason reason;

        assert_int_equal(sml_address_parse(bad[i][0], &address, &reason), SEMEL_BAD_ADDRESS);
        assert_string_equal(reason.text, bad[i][1]);
        assert_int_equal(address.port, 4711); /* untouched */
        assert_int_equal(sml_address_parse(bad[i][0], &address, NULL), SEMEL_BAD_ADDRESS);
    }
}

static void assert_length(const char *head, size_t path_bytes, const char *tail, const char *why)
{
    char text[2048];
    struct sml_address address;
    struct sml_reason reason;
    size_t used = (size_t)snprintf(text, sizeof(text), "%s", head);

    memset(text + used, 'p', path_bytes);
    (void)snprintf(text + used + path_bytes, sizeof(text) - used - path_bytes, "%s", tail);
    if (!why) {
        assert_int_equal(sml_address_parse(text, &address, &reason), SEMEL_OK);
        assert_string_equal(address.text, text);
        return;
    }
    assert_int_equal(sml_address_parse(text, &address, &reason), SEMEL_BAD_ADDRESS);
    assert_non_null(strstr(reason.text, why));
}

static void lengths_are_bounded(void **state)
{
    (void)state;
    assert_length("unix:", 107, "", NULL);
    assert_length("unix:", 108, "", ": path longer than 107 bytes");
    assert_length("unix:", 1000, "", "...: address longer than 512 bytes");
    assert_length("tcp:", 253, ":65535", NULL);
    assert_length("tcp:", 254, ":65535", ": host longer than 253 bytes");
}

static enum semel_status parse_list(const char *text, struct sml_addresses *out,
                                    struct sml_reason *reason)
{
    memset(out, 0, sizeof(*out));
    reason->text[0] = '\0';
    return sml_addresses_parse(text, out, reason);
}

static void alternatives_keep_their_order(void **state)
{
    struct sml_addresses *all = malloc(sizeof(*all));
    struct sml_reason reason;
    char many[16 * 17 + 1] = "";

    (void)state;
    assert_non_null(all);
    assert_int_equal(parse_list("tcp:a:1,/b,unix:c", all, &reason), SEMEL_OK);
    assert_int_equal(all->count, 3);
    assert_string_equal(all->list[0].text, "tcp:a:1");
    assert_string_equal(all->list[1].text, "unix:/b");
    assert_string_equal(all->list[2].text, "unix:c");
    assert_int_equal(parse_list("fd:3", all, &reason), SEMEL_OK);
    assert_int_equal(all->count, 1);

    assert_int_equal(parse_list("unix:a,,unix:b", all, &reason), SEMEL_BAD_ADDRESS);
    assert_string_equal(reason.text, "empty address");
    assert_int_equal(parse_list("unix:a,", all, &reason), SEMEL_BAD_ADDRESS);
    assert_int_equal(parse_list("unix:a,tcp:b", all, &reason), SEMEL_BAD_ADDRESS);
    assert_string_equal(reason.text, "tcp:b: missing port");
    assert_int_equal(parse_list("fd:3,unix:a", all, &reason), SEMEL_BAD_ADDRESS);
    assert_string_equal(reason.text, "fd:3: descriptors cannot be one of several addresses");
    assert_int_equal(parse_list("unix:a,fd:3", all, &reason), SEMEL_BAD_ADDRESS);

    for (int i = 0; i < SEMEL_ADDRESSES_MAX; i++)
        strcat(many, i ? ",/x" : "/x");
    assert_int_equal(parse_list(many, all, &reason), SEMEL_OK);
    assert_int_equal(all->count, SEMEL_ADDRESSES_MAX);
    strcat(many, ",/x");
    assert_int_equal(parse_list(many, all, &reason), SEMEL_BAD_ADDRESS);
    assert_string_equal(reason.text, "more than 16 addresses");
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "good addresses", good_addresses, NULL, NULL, NULL },
        { "bad addresses say why", bad_addresses_say_why, NULL, NULL, NULL },
        { "lengths are bounded", lengths_are_bounded, NULL, NULL, NULL },
        { "alternatives keep their order", alternatives_keep_their_order, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
