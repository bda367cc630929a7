/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "json.h"
#include "output.h"

#define NUMBER_BYTES 64 /* longer texts are words */
#define BAR_COLUMNS 30
#define LINE_BYTES 1024

static struct {
    char text[LINE_BYTES];
    size_t size;
    bool any;
} shown;

/* A number, and nothing but white space behind it up to `after`. */
static bool number(const char *text, char **out_end, double *out_value)
{
    *out_value = strtod(text, out_end);
    if (*out_end == text || !isfinite(*out_value))
        return false;
    *out_end += strspn(*out_end, " \t\r\n");
    return true;
}

bool progress_parse(const char *text, size_t size, double *out_done)
{
    char copy[NUMBER_BYTES + 1], *end;
    double value, whole = 1;

    if (size == 0 || size > NUMBER_BYTES || memchr(text, '\0', size))
        return false;
    memcpy(copy, text, size);
    copy[size] = '\0';
    if (!number(copy, &end, &value))
        return false;
    if (*end == '%') {
        whole = 100;
        end += 1 + strspn(end + 1, " \t\r\n");
    } else if (*end == '/' && !number(end + 1, &end, &whole)) {
        return false;
    }
    if (*end != '\0' || value < 0 || whole <= 0 || value > whole)
        return false;
    *out_done = value / whole;
    return true;
}

/* Printable text, at most `columns` wide if no character is wider than one. */
static size_t add_text(char *line, size_t room, const char *text, size_t size, unsigned columns)
{
    size_t at = 0;

    for (size_t i = 0; i < size && columns > 0; columns--) {
        size_t length = utf8_length((const unsigned char *)text + i, size - i);
        bool control =
            length == 0 || (length == 1 && ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)) ||
            (length == 2 && (unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0);

        if (at + (control ? 1 : length) >= room)
            break;
        if (control)
            line[at++] = '?';
        else
            memcpy(line + at, text + i, length);
        at += control ? 0 : length;
        i += length ? length : 1;
    }
    line[at] = '\0';
    return at;
}

void progress_draw(const char *text, size_t size, unsigned columns, char *line, size_t line_size)
{
    char bar[BAR_COLUMNS + 1];
    size_t at = 0, filled;
    double done;

    *line = '\0';
    if (progress_parse(text, size, &done) && columns > BAR_COLUMNS + 10) {
        filled = (size_t)(done * BAR_COLUMNS);
        memset(bar, ' ', BAR_COLUMNS);
        memset(bar, '#', filled);
        bar[BAR_COLUMNS] = '\0';
        at = (size_t)snprintf(line, line_size, "[%s] %3.0f %%", bar, floor(done * 100));
        if (memchr(text, '%', size))
            return; /* that is what it says */
        at += (size_t)snprintf(line + at, line_size - at, " ");
        columns -= (unsigned)at;
    }
    if (at < line_size)
        add_text(line + at, line_size - at, text, size, columns);
}

void progress_again(void)
{
    struct winsize window = { 0 };
    unsigned columns = 80;
    char line[LINE_BYTES];

    if (!shown.any || !output_live())
        return;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1)
        columns = window.ws_col;
    progress_draw(shown.text, shown.size, columns - 1, line, sizeof line);
    output_progress("%s", line);
}

void progress_hide(void)
{
    if (shown.any)
        output_progress(NULL);
}

void progress_show(const void *bytes, size_t size)
{
    const char *text = bytes;

    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
        size--;
    if (size > sizeof shown.text)
        size = sizeof shown.text;
    if (shown.any && size == shown.size && memcmp(shown.text, text, size) == 0)
        return;
    if (size > 0)
        memcpy(shown.text, text, size);
    shown.size = size;
    shown.any = true;
    if (output_live())
        progress_again();
    else
        output_note("progress: %.*s", (int)size, shown.text);
}
