/* SPDX-License-Identifier: MIT */
#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "output.h"
#include "tool.h"

static const char kind[] = "sqlite:";

bool store_path(const char *name, char path[STORE_PATH_BYTES], char *why, size_t why_size)
{
    const char *given = strncmp(name, kind, sizeof kind - 1) == 0 ? name + sizeof kind - 1 : name;
    const char *slash = strrchr(given, '/'), *base = slash ? slash + 1 : given;
    char *folder, *real;
    struct stat status;
    int length;

    if (given == name && strchr(name, ':') && !strchr(name, '/')) {
        snprintf(why, why_size, "'%.200s' is no store; write sqlite:PATH", name);
        return false;
    }
    if (*base == '\0' || strcmp(given, ":memory:") == 0) {
        snprintf(why, why_size, "'%.200s' names no file; write sqlite:PATH", name);
        return false;
    }
    real = realpath(given, NULL);
    if (real) {
        length = snprintf(path, STORE_PATH_BYTES, "%s", real);
        free(real);
    } else if (errno == ENOENT && lstat(given, &status) != 0) {
        folder = slash ? strndup(given, (size_t)(slash - given) + 1) : strdup(".");
        real = folder ? realpath(folder, NULL) : NULL;
        if (!real)
            snprintf(why, why_size, "%.200s: %s", folder ? folder : name, strerror(errno));
        free(folder);
        if (!real)
            return false;
        length =
            snprintf(path, STORE_PATH_BYTES, "%s/%s", strcmp(real, "/") == 0 ? "" : real, base);
        free(real);
    } else {
        snprintf(why, why_size, "%.200s: %s", given, strerror(errno ? errno : ENOENT));
        return false;
    }
    if (length >= STORE_PATH_BYTES)
        snprintf(why, why_size, "the path of the store is too long");
    return length < STORE_PATH_BYTES;
}

bool store_status(enum semel_status status)
{
    return status >= SEMEL_STORE_FAILED && status <= SEMEL_STORE_ROLLED_BACK;
}

static const char *advice(enum semel_status status)
{
    switch (status) {
    case SEMEL_STORE_FULL:
        return "make room on its disk, and start again; nothing is lost";
    case SEMEL_STORE_READ_ONLY:
        return "it must be possible to write the file, its folder and what lies beside it";
    case SEMEL_STORE_CORRUPT:
        return "put a copy of it back, and declare that: 'semel sessions STORE renew'";
    case SEMEL_STORE_NEWER:
        return "use the version of semel that made it, or a later one";
    case SEMEL_STORE_REPLACED:
    case SEMEL_STORE_ROLLED_BACK:
        return "to take it as it is: 'semel serve --adopt', or 'semel sessions STORE renew'; what "
               "its clients wait for is unknown then";
    default:
        return NULL;
    }
}

static int explain(enum semel_status status, const char *text, const char *what_to_do)
{
    output_error("%s: %s", semel_status_text(status), text && *text ? text : "no more is known");
    if (what_to_do)
        output_note("%s", what_to_do);
    return status == SEMEL_INVALID ? TOOL_USAGE : TOOL_CONNECT;
}

int store_explain(enum semel_status status, const char *text)
{
    return explain(status, text, advice(status));
}

int outbox_explain(enum semel_status status, const char *text)
{
    if (status == SEMEL_STORE_CORRUPT)
        return explain(status, text,
                       "put a copy of it back; calls that it holds are made again under their "
                       "keys, and still run once");
    return explain(status, text, advice(status));
}

void store_id_text(const uint8_t id[16], char text[STORE_ID_TEXT])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < 16; i++) {
        text[2 * i] = digits[id[i] >> 4];
        text[2 * i + 1] = digits[id[i] & 15];
    }
    text[32] = '\0';
}
