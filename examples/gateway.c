/* SPDX-License-Identifier: MIT */
/* gateway.c - a gateway that calls its nodes back: gateway [NODES]
 *
 * The nodes connect to the gateway, so they may be anywhere that it can be reached from; it calls
 * them over the connections that they made. Each node is a process with one method, "measure". It
 * joins, and the gateway keeps its backchannel. Then the gateway asks all of them at once and
 * prints what they say, and what became of the call to the one that does not answer. */
#include <semaphore.h>
#include <semel/semel.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { NODES_MAX = 64, DEADLINE_MS = 1000 };

static void need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, semel_status_text(status));
    exit(1);
}

/* --- a node ------------------------------------------------------------------------------ */

static void measure(struct semel_request *request, void *user)
{
    const int *number = user;
    char text[32];

    if (*number == 0) { /* this one has lost its sensor, and waits for it */
        while (!semel_request_cancelled(request))
            usleep(1000);
        (void)semel_request_fail(request, 1, "no sensor");
        return;
    }
    snprintf(text, sizeof text, "%d degrees", 20 + *number);
    (void)semel_request_reply(request, text, strlen(text));
}

static int node(const char *address, int number)
{
    struct semel_client *client;
    struct semel_result result;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    need(semel_client_create(&client, address, NULL), "client");
    need(semel_client_export(client, "measure", measure, &number, NULL), "export");
    if (semel_client_call(client, "join", semel_bytes(&number, sizeof number), NULL, &result) !=
        SEMEL_VALUE) {
        (void)fprintf(stderr, "join: %s\n", result.text);
        return 1;
    }
    semel_result_clear(&result);
    for (;;)
        pause();
}

/* --- the gateway ------------------------------------------------------------------------- */

static struct semel_backchannel *nodes[NODES_MAX];
static sem_t joined, measured; /* posted once for each node */

static void join(struct semel_request *request, void *user)
{
    struct semel_backchannel *channel;
    int number;

    (void)user;
    memcpy(&number, semel_request_body(request).data, sizeof number);
    if (semel_request_backchannel(request, &channel) != SEMEL_OK) {
        (void)semel_request_fail(request, 1, "no way back");
        return;
    }
    nodes[number] = channel;
    (void)semel_request_reply(request, NULL, 0);
    sem_post(&joined);
}

/* The gateway's calls end in any order, on a thread of the server. */
static void on_measured(struct semel_result *result, void *user)
{
    char *line = user;

    if (result->outcome == SEMEL_VALUE)
        snprintf(line, 100, "%.*s", (int)result->body.size, (const char *)result->body.data);
    else
        snprintf(line, 100, "%s: %s", semel_outcome_text(result->outcome), result->text);
    sem_post(&measured);
}

static void await(sem_t *semaphore, int count)
{
    while (count > 0)
        count -= sem_wait(semaphore) == 0;
}

static void ask_all(int count)
{
    struct semel_call_options options = { .deadline_ms = DEADLINE_MS };
    static char lines[NODES_MAX][100];

    for (int i = 0; i < count; i++)
        need(semel_backchannel_start(nodes[i], "measure", semel_bytes(NULL, 0), &options,
                                     on_measured, lines[i], NULL),
             "measure");
    await(&measured, count);
    for (int i = 0; i < count; i++)
        printf("node %d: %s\n", i, lines[i]);
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 3;
    struct semel_server *server;
    char address[64];

    if (count < 1 || count > NODES_MAX)
        return 2;
    snprintf(address, sizeof address, "unix:/tmp/semel-gateway-%d", (int)getpid());
    for (int i = 0; i < count; i++)
        if (fork() == 0)
            return node(address, i);
    sem_init(&joined, 0, 0);
    sem_init(&measured, 0, 0);
    need(semel_server_create(&server, NULL), "server");
    need(semel_server_export(server, "join", join, NULL, NULL), "join");
    need(semel_server_listen(server, address), "listen");
    need(semel_server_start(server), "start");
    await(&joined, count);
    ask_all(count);
    for (int i = 0; i < count; i++)
        semel_backchannel_unref(nodes[i]);
    need(semel_server_destroy(server), "destroy");
    return 0; /* and the nodes go with it */
}
