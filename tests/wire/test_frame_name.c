/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "wire/frame.h"

static void frames(void **state)
{
    (void)state;
    assert_string_equal(sml_frame_name(SML_HELLO), "HELLO");
    assert_string_equal(sml_frame_name(SML_LIST), "LIST");
    assert_string_equal(sml_frame_name(SML_WELCOME), "WELCOME");
    assert_string_equal(sml_frame_name(SML_CALL), "CALL");
    assert_string_equal(sml_frame_name(SML_BODY), "BODY");
    assert_string_equal(sml_frame_name(SML_REPLY), "REPLY");
    assert_string_equal(sml_frame_name(SML_PART), "PART");
    assert_string_equal(sml_frame_name(SML_ACK), "ACK");
    assert_string_equal(sml_frame_name(SML_CREDIT), "CREDIT");
    assert_string_equal(sml_frame_name(SML_CANCEL), "CANCEL");
    assert_string_equal(sml_frame_name(SML_BUSY), "BUSY");
    assert_string_equal(sml_frame_name(SML_PING), "PING");
    assert_string_equal(sml_frame_name(SML_PONG), "PONG");
    assert_string_equal(sml_frame_name(SML_DRAIN), "DRAIN");
    assert_string_equal(sml_frame_name(SML_BYE), "BYE");
    assert_string_equal(sml_frame_name((enum sml_frame_type)0), "?");
    assert_string_equal(sml_frame_name((enum sml_frame_type)16), "?");
}

static void byes(void **state)
{
    static const struct {
        enum sml_bye_code code;
        const char *name;
        enum semel_status status;
    } rows[] = {
        { SML_BYE_END, "END", SEMEL_STOPPED },
        { SML_BYE_SESSION_LOST, "SESSION_LOST", SEMEL_SESSION_LOST },
        { SML_BYE_TAKEN_OVER, "TAKEN_OVER", SEMEL_TAKEN_OVER },
        { SML_BYE_DENIED, "DENIED", SEMEL_DENIED },
        { SML_BYE_VERSION, "VERSION", SEMEL_VERSION },
        { SML_BYE_PROTOCOL, "PROTOCOL", SEMEL_PROTOCOL },
        { SML_BYE_FALSE_RETRY, "FALSE_RETRY", SEMEL_FALSE_RETRY },
        { SML_BYE_RETRY_LATER, "RETRY_LATER", SEMEL_OVERLOADED },
        { SML_BYE_SHUTDOWN, "SHUTDOWN", SEMEL_DRAINING },
        { SML_BYE_SILENT, "SILENT", SEMEL_LINK_LOST },
        { (enum sml_bye_code)0, "?", SEMEL_PROTOCOL },
        { (enum sml_bye_code)11, "?", SEMEL_PROTOCOL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_string_equal(sml_bye_name(rows[i].code), rows[i].name);
        assert_int_equal(sml_bye_status(rows[i].code), rows[i].status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "names: frames", frames, NULL, NULL, NULL },
        { "names: reasons of a BYE", byes, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
