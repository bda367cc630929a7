/* SPDX-License-Identifier: MIT */
/* server_log.c - the words of a server: lines for the log hook, texts for callers. */
#include "rpc/server_internal.h"

#include <stdio.h>
#include <string.h>

void sml_server_log(struct semel_server *server, enum semel_log_level level, const char *format,
                    ...)
{
    char line[2048];
    va_list args;

    if (server->options.log == NULL)
        return;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    server->options.log(level, line, server->options.log_user);
}

void sml_request_words(const struct semel_request *request, const char *why,
                       struct sml_words *out_words)
{
    struct sml_text text;

    sml_text_init(&text, out_words->text, sizeof out_words->text);
    sml_text_add(&text, "\"");
    sml_text_add_escaped(&text, request->in->method, request->in->method_bytes);
    sml_text_add(&text, "\", call ");
    sml_text_add_u64(&text, request->in->xid);
    sml_text_add(&text, " of ");
    sml_text_add(&text, request->info->peer.address);
    sml_text_add(&text, ": ");
    sml_text_add(&text, why);
}
