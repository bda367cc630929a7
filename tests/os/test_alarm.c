/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <fcntl.h>
#include <poll.h>

#include "os/alarm.h"
#include "os/clock.h"

/* Whether it went off within `ms`. */
static bool goes_off(const struct sml_alarm *alarm, int ms)
{
    struct pollfd watched = { alarm->fd, POLLIN, 0 };

    return poll(&watched, 1, ms) == 1;
}

static void it_goes_off_once_and_not_before_its_time(void **state)
{
    struct sml_alarm alarm;
    uint64_t at;

    (void)state;
    assert_int_equal(sml_alarm_open(&alarm), SEMEL_OK);
    assert_true(fcntl(alarm.fd, F_GETFD) & FD_CLOEXEC);
    assert_false(goes_off(&alarm, 0));
    at = sml_clock_now() + 20 * SML_MS;
    sml_alarm_set(&alarm, at);
    assert_true(goes_off(&alarm, 60000));
    assert_true(sml_clock_now() >= at);
    sml_alarm_drain(&alarm);
    assert_int_equal(alarm.at, SML_NEVER);
    assert_false(goes_off(&alarm, 0));
    sml_alarm_drain(&alarm);  /* again: nothing is there */
    sml_alarm_set(&alarm, 1); /* a time long past */
    assert_true(goes_off(&alarm, 60000));
    sml_alarm_close(&alarm);
    sml_alarm_close(&alarm);
}

static void a_later_time_leaves_it_an_earlier_one_moves_it(void **state)
{
    struct sml_alarm alarm;
    uint64_t now = sml_clock_now();

    (void)state;
    assert_int_equal(sml_alarm_open(&alarm), SEMEL_OK);
    sml_alarm_set(&alarm, SML_NEVER);
    assert_int_equal(alarm.at, SML_NEVER);
    sml_alarm_set(&alarm, now + 3600 * SML_SECOND);
    sml_alarm_set(&alarm, now + 7200 * SML_SECOND);
    assert_int_equal(alarm.at, now + 3600 * SML_SECOND);
    assert_false(goes_off(&alarm, 0));
    sml_alarm_set(&alarm, now);
    assert_true(goes_off(&alarm, 60000));
    sml_alarm_close(&alarm);
}

static void moved_it_is_exact(void **state)
{
    struct sml_alarm alarm;
    uint64_t at;

    (void)state;
    assert_int_equal(sml_alarm_open(&alarm), SEMEL_OK);
    sml_alarm_move(&alarm, SML_NEVER);
    sml_alarm_move(&alarm, 1); /* a time long past */
    sml_alarm_move(&alarm, 1);
    assert_true(goes_off(&alarm, 60000));
    sml_alarm_move(&alarm, sml_clock_now() + 3600 * SML_SECOND); /* later: taken back */
    assert_false(goes_off(&alarm, 0));
    at = sml_clock_now() + 20 * SML_MS;
    sml_alarm_move(&alarm, at);
    assert_true(goes_off(&alarm, 60000));
    assert_true(sml_clock_now() >= at);
    sml_alarm_move(&alarm, SML_NEVER);
    assert_false(goes_off(&alarm, 0));
    sml_alarm_close(&alarm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_off_once_and_not_before_its_time),
        cmocka_unit_test(a_later_time_leaves_it_an_earlier_one_moves_it),
        cmocka_unit_test(moved_it_is_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
