/* SPDX-License-Identifier: MIT */
#include <semel/semel.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    struct semel_client *client;
    struct semel_result result;
    enum semel_outcome outcome;
    char why[300];

    if (semel_client_create(&client, "unix:hello.sock", NULL) != SEMEL_OK)
        return 1;
    outcome = semel_client_call(client, "hello", semel_bytes_text(argc > 1 ? argv[1] : "world"),
                                NULL, &result);
    semel_result_message(&result, why, sizeof why);
    if (outcome == SEMEL_VALUE)
        printf("%.*s\n", (int)result.body.size, (const char *)result.body.data);
    else
        fprintf(stderr, "%s\n", why);
    semel_result_clear(&result);
    semel_client_destroy(client);
    return outcome != SEMEL_VALUE;
}
