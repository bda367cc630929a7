/* SPDX-License-Identifier: MIT */
#include "os/alarm.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/check.h"
#include "os/clock.h"
#include "os/error.h"

enum semel_status sml_alarm_open(struct sml_alarm *alarm)
{
    alarm->at = SML_NEVER;
    alarm->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return alarm->fd >= 0 ? SEMEL_OK : sml_error_status(errno);
}

void sml_alarm_close(struct sml_alarm *alarm)
{
    if (alarm->fd >= 0)
        (void)close(alarm->fd);
    alarm->fd = -1;
}

void sml_alarm_set(struct sml_alarm *alarm, uint64_t deadline_ns)
{
    struct itimerspec when = { .it_interval = { 0, 0 } };

    if (deadline_ns >= alarm->at)
        return;
    alarm->at = deadline_ns;
    when.it_value = sml_clock_timespec(deadline_ns);
    SML_ASSERT(timerfd_settime(alarm->fd, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

void sml_alarm_move(struct sml_alarm *alarm, uint64_t deadline_ns)
{
    struct itimerspec when = { .it_interval = { 0, 0 } };

    if (deadline_ns == alarm->at)
        return;
    alarm->at = deadline_ns;
    if (deadline_ns != SML_NEVER) /* else zero: none */
        when.it_value = sml_clock_timespec(deadline_ns);
    SML_ASSERT(timerfd_settime(alarm->fd, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

void sml_alarm_drain(struct sml_alarm *alarm)
{
    uint64_t times;

    if (read(alarm->fd, &times, sizeof times) == (ssize_t)sizeof times)
        alarm->at = SML_NEVER;
}
