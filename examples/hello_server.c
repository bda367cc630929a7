/* SPDX-License-Identifier: MIT */
#include <semel/semel.h>
#include <stdio.h>

static void hello(struct semel_request *request, void *user)
{
    struct semel_bytes name = semel_request_body(request);
    int size = name.size < 40 ? (int)name.size : 40;
    char text[64];

    (void)user;
    size = snprintf(text, sizeof text, "hello, %.*s", size, (const char *)name.data);
    semel_request_reply(request, text, (size_t)size);
}

int main(void)
{
    struct semel_server *server;

    if (semel_server_create(&server, NULL) != SEMEL_OK ||
        semel_server_export(server, "hello", hello, NULL, NULL) != SEMEL_OK ||
        semel_server_listen(server, "unix:hello.sock") != SEMEL_OK)
        return 1;
    return semel_server_run(server) != SEMEL_OK;
}
