/* SPDX-License-Identifier: MIT */
/* address.c - parsing goes over pieces of the caller's text and copies only what passed. The whole
 * address goes along, because an error names it. What the fields came to is written back as `text`,
 * so that one address has one spelling. */
#include "io/address.h"

#include <stdio.h>
#include <string.h>

/* A piece of the text being parsed. */
struct span {
    const char *at;
    size_t size;
};

/* The address being parsed, for the words of an error; cut where it would drown them. */
#define SHOWN_BYTES 200

static enum semel_status bad(struct sml_reason *reason, struct span whole, const char *what)
{
    int shown = whole.size > SHOWN_BYTES ? SHOWN_BYTES : (int)whole.size;

    return sml_reason_set(reason, SEMEL_BAD_ADDRESS, "%.*s%s: %s", shown, whole.at,
                          whole.size > SHOWN_BYTES ? "..." : "", what);
}

static struct span after(struct span s, size_t bytes)
{
    return (struct span){ s.at + bytes, s.size - bytes };
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Decimal, at most `max`, nothing but digits. */
static bool parse_number(struct span s, uint32_t max, uint32_t *out_number)
{
    uint64_t number = 0;

    if (s.size == 0 || s.size > 10)
        return false;
    for (size_t i = 0; i < s.size; i++) {
        if (!is_digit(s.at[i]))
            return false;
        number = number * 10 + (uint64_t)(s.at[i] - '0');
    }
    if (number > max)
        return false;
    *out_number = (uint32_t)number;
    return true;
}

static enum semel_status parse_unix(struct span whole, struct span rest, struct sml_address *out,
                                    struct sml_reason *reason)
{
    if (rest.size == 0)
        return bad(reason, whole, "missing path");
    if (rest.at[0] == '@')
        return bad(reason, whole, "abstract sockets are not supported");
    if (rest.size > SML_UNIX_PATH_BYTES)
        return bad(reason, whole, "path longer than 107 bytes");
    out->kind = SML_ADDRESS_UNIX;
    memcpy(out->path, rest.at, rest.size);
    (void)snprintf(out->text, sizeof(out->text), "unix:%s", out->path);
    return SEMEL_OK;
}

/* "HOST:PORT" or "[HOST]:PORT": cut into its two. */
static const char *split_host(struct span rest, struct span *out_host, struct span *out_port)
{
    const char *close, *colon;

    if (rest.size > 0 && rest.at[0] == '[') {
        close = memchr(rest.at, ']', rest.size);
        if (!close)
            return "missing ']'";
        *out_host = (struct span){ rest.at + 1, (size_t)(close - rest.at) - 1 };
        *out_port = after(rest, (size_t)(close - rest.at) + 1);
        if (!memchr(out_host->at, ':', out_host->size))
            return "brackets are for IPv6 addresses";
        if (out_port->size == 0)
            return "missing port";
        if (out_port->at[0] != ':')
            return "':' expected after ']'";
        *out_port = after(*out_port, 1);
        return NULL;
    }
    colon = memchr(rest.at, ':', rest.size);
    if (!colon)
        return rest.size == 0 ? "missing host" : "missing port";
    *out_host = (struct span){ rest.at, (size_t)(colon - rest.at) };
    *out_port = after(rest, (size_t)(colon - rest.at) + 1);
    if (memchr(out_port->at, ':', out_port->size))
        return "an IPv6 address needs brackets: tcp:[::1]:7000";
    return NULL;
}

static bool is_host(struct span host)
{
    for (size_t i = 0; i < host.size; i++) {
        char c = host.at[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c);

        if (!plain && (c == '\0' || !strchr("-._:%", c)))
            return false;
    }
    return true;
}

static enum semel_status parse_tcp(struct span whole, struct span rest, struct sml_address *out,
                                   struct sml_reason *reason)
{
    struct span host, port;
    const char *wrong = split_host(rest, &host, &port);
    uint32_t number;
    bool brackets;

    if (wrong)
        return bad(reason, whole, wrong);
    if (host.size == 0)
        return bad(reason, whole, "missing host");
    if (host.size > SML_HOST_BYTES)
        return bad(reason, whole, "host longer than 253 bytes");
    if (!is_host(host))
        return bad(reason, whole, "not a host");
    if (port.size == 0)
        return bad(reason, whole, "missing port");
    if (!parse_number(port, UINT16_MAX, &number))
        return bad(reason, whole, "port is not a number from 0 to 65535");
    out->kind = SML_ADDRESS_TCP;
    memcpy(out->host, host.at, host.size);
    out->port = (uint16_t)number;
    brackets = memchr(host.at, ':', host.size) != NULL;
    (void)snprintf(out->text, sizeof(out->text), brackets ? "tcp:[%s]:%u" : "tcp:%s:%u", out->host,
                   (unsigned)out->port);
    return SEMEL_OK;
}

static enum semel_status parse_fd(struct span whole, struct span rest, struct sml_address *out,
                                  struct sml_reason *reason)
{
    const char *slash = memchr(rest.at, '/', rest.size);
    struct span first = rest, second = rest;
    uint32_t fd_read, fd_write;

    if (rest.size == 0)
        return bad(reason, whole, "missing descriptor");
    if (slash) {
        first.size = (size_t)(slash - rest.at);
        second = after(rest, first.size + 1);
    }
    if (!parse_number(first, INT32_MAX, &fd_read) || !parse_number(second, INT32_MAX, &fd_write))
        return bad(reason, whole, "fd:N or fd:READ/WRITE expected");
    out->kind = SML_ADDRESS_FD;
    out->fd_read = (int)fd_read;
    out->fd_write = (int)fd_write;
    if (fd_read == fd_write)
        (void)snprintf(out->text, sizeof(out->text), "fd:%d", out->fd_read);
    else
        (void)snprintf(out->text, sizeof(out->text), "fd:%d/%d", out->fd_read, out->fd_write);
    return SEMEL_OK;
}

/* The bytes before the first ':' if that is a scheme: letters, digits, '+', '.', '-'. */
static bool find_scheme(struct span whole, struct span *out_scheme)
{
    const char *colon = memchr(whole.at, ':', whole.size);

    if (!colon || colon == whole.at)
        return false;
    *out_scheme = (struct span){ whole.at, (size_t)(colon - whole.at) };
    return memchr(whole.at, '/', out_scheme->size) == NULL;
}

static bool scheme_is(struct span scheme, const char *name)
{
    return scheme.size == strlen(name) && memcmp(scheme.at, name, scheme.size) == 0;
}

static enum semel_status parse_scheme(struct span whole, struct span scheme,
                                      struct sml_address *out, struct sml_reason *reason)
{
    static const char *const absent[] = { "tls", "shm", "exec" };
    struct span rest = after(whole, scheme.size + 1);

    if (scheme_is(scheme, "unix"))
        return parse_unix(whole, rest, out, reason);
    if (scheme_is(scheme, "tcp"))
        return parse_tcp(whole, rest, out, reason);
    if (scheme_is(scheme, "fd"))
        return parse_fd(whole, rest, out, reason);
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        if (scheme_is(scheme, absent[i]))
            return bad(reason, whole, "not available in this build");
    }
    return bad(reason, whole, "unknown scheme; known are unix:, tcp:, fd:");
}

/* Addresses are shown in logs and on terminals. */
static bool has_control(struct span whole)
{
    for (size_t i = 0; i < whole.size; i++) {
        unsigned char c = (unsigned char)whole.at[i];

        if (c < 0x20 || c == 0x7f)
            return true;
    }
    return false;
}

static enum semel_status parse_span(struct span whole, struct sml_address *out_address,
                                    struct sml_reason *reason)
{
    struct sml_address address;
    struct span scheme;
    enum semel_status status;

    memset(&address, 0, sizeof(address));
    address.fd_read = address.fd_write = -1;
    if (whole.size == 0)
        return sml_reason_set(reason, SEMEL_BAD_ADDRESS, "empty address");
    if (has_control(whole))
        return sml_reason_set(reason, SEMEL_BAD_ADDRESS, "control character in an address");
    if (whole.size > SEMEL_ADDRESS_BYTES)
        return bad(reason, whole, "address longer than 512 bytes");
    if (find_scheme(whole, &scheme))
        status = parse_scheme(whole, scheme, &address, reason);
    else if (memchr(whole.at, '/', whole.size))
        status = parse_unix(whole, whole, &address, reason);
    else
        status = bad(reason, whole, "neither a scheme (unix:, tcp:, fd:) nor a path with a '/'");
    if (status == SEMEL_OK)
        *out_address = address;
    return status;
}

enum semel_status sml_address_parse(const char *text, struct sml_address *out_address,
                                    struct sml_reason *out_reason)
{
    struct span whole = { text, strlen(text) };

    if (!has_control(whole) && strchr(text, ','))
        return bad(out_reason, whole, "one address expected, not several");
    return parse_span(whole, out_address, out_reason);
}

enum semel_status sml_addresses_parse(const char *text, struct sml_addresses *out_addresses,
                                      struct sml_reason *out_reason)
{
    struct sml_addresses *all = out_addresses;

    all->count = 0;
    for (const char *at = text;; at++) {
        struct span one = { at, strcspn(at, ",") };
        enum semel_status status;
        bool alone;

        if (all->count == SEMEL_ADDRESSES_MAX)
            return sml_reason_set(out_reason, SEMEL_BAD_ADDRESS, "more than %d addresses",
                                  SEMEL_ADDRESSES_MAX);
        status = parse_span(one, &all->list[all->count], out_reason);
        if (status != SEMEL_OK)
            return status;
        all->count++;
        alone = all->count == 1 && one.at[one.size] == '\0';
        if (all->list[all->count - 1].kind == SML_ADDRESS_FD && !alone)
            return bad(out_reason, one, "descriptors cannot be one of several addresses");
        at += one.size;
        if (*at == '\0')
            return SEMEL_OK;
    }
}
