/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <netinet/in.h>

#include "io/resolve.h"

static int name_service; /* what names get; 0: the real answer */
static int lookups;      /* that may have blocked */

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out);

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out)
{
    if (!(hints->ai_flags & AI_NUMERICHOST)) {
        lookups++;
        if (name_service != 0) {
            errno = ENETDOWN;
            return name_service;
        }
    }
    return __real_getaddrinfo(host, port, hints, out);
}

static struct sml_address address_of(const char *text)
{
    struct sml_address address;

    assert_int_equal(sml_address_parse(text, &address, NULL), SEMEL_OK);
    return address;
}

static void numbers_need_no_name_service(void **state)
{
    static const struct {
        const char *text;
        bool loopback;
    } cases[] = {
        { "tcp:127.0.0.1:7000", true },       { "tcp:127.9.8.7:7000", true },
        { "tcp:128.0.0.1:7000", false },      { "tcp:0.0.0.0:7000", false },
        { "tcp:[::1]:7000", true },           { "tcp:[::]:7000", false },
        { "tcp:[::ffff:127.0.0.1]:7", true }, { "tcp:[::ffff:10.0.0.1]:7", false },
        { "tcp:[2001:db8::1]:7000", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sml_address address = address_of(cases[i].text);
        struct addrinfo *found;
        char text[100], host[100];
        uint16_t port;

        assert_int_equal(sml_resolve(&address, &found, NULL), SEMEL_OK);
        assert_int_equal(sml_sockaddr_is_loopback(found->ai_addr), cases[i].loopback);
        sml_sockaddr_address(found->ai_addr, found->ai_addrlen, text, sizeof(text));
        assert_string_equal(text, cases[i].text);
        sml_sockaddr_text(found->ai_addr, found->ai_addrlen, host, sizeof(host), &port);
        assert_string_equal(host, address.host);
        assert_int_equal(port, address.port);
        freeaddrinfo(found);
    }
    assert_int_equal(lookups, 0);
}

static void name_service_errors(void **state)
{
    static const struct {
        int error;
        enum semel_status status;
        const char *text;
    } cases[] = {
        { EAI_NONAME, SEMEL_BAD_ADDRESS, "tcp:some.host:7: no such host" },
        { EAI_AGAIN, SEMEL_LINK_LOST, "tcp:some.host:7: the name service does not answer" },
        { EAI_FAIL, SEMEL_BAD_ADDRESS, "tcp:some.host:7: no such host" },
        { EAI_SYSTEM, SEMEL_LINK_LOST, "tcp:some.host:7: network is down" },
    };
    struct sml_address address = address_of("tcp:some.host:7");

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sml_reason reason;
        struct addrinfo *found;

        name_service = cases[i].error;
        assert_int_equal(sml_resolve(&address, &found, &reason), cases[i].status);
        assert_string_equal(reason.text, cases[i].text);
    }
    name_service = 0;
}

static void unknown_families_have_text(void **state)
{
    struct sockaddr unknown = { .sa_family = AF_UNSPEC };
    char text[32];

    (void)state;
    assert_false(sml_sockaddr_is_loopback(&unknown));
    sml_sockaddr_address(&unknown, sizeof(unknown), text, sizeof(text));
    assert_string_equal(text, "tcp:?:0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "numbers need no name service", numbers_need_no_name_service, NULL, NULL, NULL },
        { "name service errors", name_service_errors, NULL, NULL, NULL },
        { "unknown families have text", unknown_families_have_text, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
