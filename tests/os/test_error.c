/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>

#include "os/error.h"

static void lost_links_and_dead_peers_are_apart(void **state)
{
    static const int dead[] = { ECONNRESET, ECONNREFUSED, EPIPE, ENOTCONN, ECONNABORTED };
    static const int lost[] = { ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENETDOWN, EHOSTDOWN };

    (void)state;
    for (size_t i = 0; i < sizeof(dead) / sizeof(dead[0]); i++)
        assert_int_equal(sml_error_status(dead[i]), SEMEL_PEER_DIED);
    for (size_t i = 0; i < sizeof(lost) / sizeof(lost[0]); i++)
        assert_int_equal(sml_error_status(lost[i]), SEMEL_LINK_LOST);
}

static void others_have_their_status(void **state)
{
    (void)state;
    assert_int_equal(sml_error_status(0), SEMEL_OK);
    assert_int_equal(sml_error_status(EACCES), SEMEL_DENIED);
    assert_int_equal(sml_error_status(EMFILE), SEMEL_LIMIT);
    assert_int_equal(sml_error_status(ENOMEM), SEMEL_NO_MEMORY);
    assert_int_equal(sml_error_status(EADDRINUSE), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(sml_error_status(EDOM), SEMEL_SYSTEM);
}

static void words_are_never_missing(void **state)
{
    (void)state;
    assert_string_equal(sml_error_text(ECONNREFUSED), "connection refused");
    assert_string_equal(sml_error_text(EDOM), "Numerical argument out of domain");
    assert_string_equal(sml_error_text(99999), "unknown error");
    assert_string_equal(sml_error_text(-1), "unknown error");
}

static void reasons_are_cut_to_fit(void **state)
{
    struct sml_reason reason;
    char longer[2 * SML_REASON_BYTES];

    (void)state;
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(sml_reason_set(&reason, SEMEL_SYSTEM, "%s", longer), SEMEL_SYSTEM);
    assert_int_equal(strlen(reason.text), SML_REASON_BYTES - 1);
    assert_int_equal(sml_reason_set(NULL, SEMEL_LIMIT, "%s", longer), SEMEL_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "lost links and dead peers are apart", lost_links_and_dead_peers_are_apart, NULL, NULL,
          NULL },
        { "others have their status", others_have_their_status, NULL, NULL, NULL },
        { "words are never missing", words_are_never_missing, NULL, NULL, NULL },
        { "reasons are cut to fit", reasons_are_cut_to_fit, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
