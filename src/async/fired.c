/* SPDX-License-Identifier: MIT */
/* fired.c - results: a value with its destructor, or a failure with its words. */
#include <semel/deferred.h>
#include <string.h>

#include "async/deferred.h"

void sml_fired_init(struct semel_fired *fired)
{
    fired->status = SEMEL_OK;
    fired->code = 0;
    fired->value = NULL;
    fired->drop = NULL;
    fired->text[0] = '\0';
}

void sml_fired_move(struct semel_fired *to, struct semel_fired *from)
{
    to->status = from->status;
    to->code = from->code;
    to->value = from->value;
    to->drop = from->drop;
    if (from->status == SEMEL_OK)
        to->text[0] = '\0';
    else
        memcpy(to->text, from->text, sizeof to->text);
    sml_fired_init(from);
}

/* Copied before anything is dropped: `text` may lie in what is. Not cut inside a character of
 * UTF-8, whose bytes after the first are 10xxxxxx. */
static void set_text(struct semel_fired *fired, const char *text)
{
    size_t bytes = strnlen(text, sizeof fired->text);

    if (bytes == sizeof fired->text) {
        bytes--;
        while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80)
            bytes--;
    }
    memmove(fired->text, text, bytes);
    fired->text[bytes] = '\0';
}

void sml_fired_fail(struct semel_fired *fired, enum semel_status status, int code, const char *text)
{
    set_text(fired, text ? text : semel_status_text(status));
    fired->status = status;
    fired->code = code;
    fired->value = NULL;
    fired->drop = NULL;
}

/* The result is the new one before the old value's destructor runs: that may look at it. */
void semel_fired_set_value(struct semel_fired *fired, void *value, void (*drop)(void *value))
{
    void *old = fired->value;
    void (*old_drop)(void *) = fired->drop;

    sml_fired_init(fired);
    fired->value = value;
    fired->drop = drop;
    if (old_drop && old != value)
        old_drop(old);
}

void semel_fired_set_failure(struct semel_fired *fired, enum semel_status status, int code,
                             const char *text)
{
    void *old = fired->value;
    void (*old_drop)(void *) = fired->drop;

    sml_fired_fail(fired, status == SEMEL_OK ? SEMEL_INVALID : status, code, text);
    if (old_drop)
        old_drop(old);
}

void *semel_fired_take(struct semel_fired *fired)
{
    void *value = fired->value;

    fired->value = NULL;
    fired->drop = NULL;
    return value;
}

void semel_fired_clear(struct semel_fired *fired)
{
    semel_fired_set_value(fired, NULL, NULL);
}
