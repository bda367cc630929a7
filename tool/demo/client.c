/* SPDX-License-Identifier: MIT */
/* client.c - one client of the bank, a process of its own, with a few threads.
 *
 * Each thread makes one call after the other: three of four transfer an amount between two
 * accounts, the others give a notice. The ledger has a line before each call and one after it; a
 * call's id is in its body. Every second call has its id as its key, too. After the end of the
 * load each thread waits for the outcome of its last call. Clients with an outbox work in another
 * way: client_outbox.c. */
#include "client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "json.h"
#include "output.h"
#include "tool.h"

#define DEADLINE_MS 120000
#define BACKOFF_MIN_MS 5
#define BACKOFF_MAX_MS 100
#define REPORT_NS 200000000

/* --- calls ----------------------------------------------------------------------------------- */

struct ledger_call client_plan(struct chance *chance, uint64_t id)
{
    struct ledger_call call = { .id = id, .method = LEDGER_NOTIFY };

    if (chance_below(chance, 4) == 0)
        return call;
    call.method = LEDGER_TRANSFER;
    call.from = 1 + (unsigned)chance_below(chance, BANK_ACCOUNTS);
    call.to = 1 + (unsigned)chance_below(chance, BANK_ACCOUNTS - 1);
    call.to += call.to >= call.from;
    call.amount = 1 + (unsigned)chance_below(chance, BANK_AMOUNT_MAX);
    return call;
}

const char *client_method(const struct ledger_call *call)
{
    return call->method == LEDGER_TRANSFER ? "transfer" : "notify";
}

struct semel_bytes client_body(const struct ledger_call *call, char text[CLIENT_BODY])
{
    char id[LEDGER_ID];

    ledger_id_text(call->id, id);
    if (call->method == LEDGER_NOTIFY)
        snprintf(text, CLIENT_BODY, "%s\n", id);
    else
        snprintf(text, CLIENT_BODY, "{\"id\":\"%s\",\"from\":%u,\"to\":%u,\"amount\":%u}", id,
                 call->from, call->to, call->amount);
    return semel_bytes_text(text);
}

void client_replied(const struct client *client, uint64_t id, const struct semel_result *result)
{
    struct ledger_reply reply = { .id = id,
                                  .outcome = (enum ledger_outcome)result->outcome,
                                  .at = clock_now() };

    snprintf(reply.status, sizeof reply.status, "%s", semel_status_name(result->status));
    ledger_write_reply(client->ledger, &reply);
}

void client_seed(const struct client *client, unsigned thread, struct chance *chance)
{
    chance_seed(chance,
                client->seed + ((uint64_t)client->number << 32 | client->run << 8 | thread));
    chance_seed(chance, chance_next(chance));
}

/* --- a thread -------------------------------------------------------------------------------- */

struct thread {
    struct client *client;
    unsigned number;
    pthread_t thread;
};

static void *run_thread(void *user)
{
    struct thread *thread = user;
    struct client *client = thread->client;
    struct semel_call_options options = SEMEL_CALL_OPTIONS_INIT;
    char body[CLIENT_BODY], key[LEDGER_ID];
    struct semel_result result;
    struct chance chance;

    client_seed(client, thread->number, &chance);
    options.deadline_ms = DEADLINE_MS;
    for (unsigned number = 1; clock_now() < client->end; number++) {
        struct ledger_call call =
            client_plan(&chance, ledger_id(client->number, thread->number, number));

        options.key = demo_has_key(false, number) ? ledger_id_text(call.id, key) : NULL;
        call.at = clock_now();
        ledger_write_call(client->ledger, &call);
        semel_client_call(client->client, client_method(&call), client_body(&call, body), &options,
                          &result);
        client_replied(client, call.id, &result);
        semel_result_clear(&result);
    }
    return NULL;
}

/* --- the process ----------------------------------------------------------------------------- */

void client_write_counters(const struct client *client)
{
    struct semel_client_counters counters;
    char path[DEMO_PATH], fresh[DEMO_PATH + 8];
    struct jsonl json;
    FILE *file;

    snprintf(path, sizeof path, "%s/client-%u.%u.json", client->dir, client->number, client->run);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    semel_client_counters(client->client, &counters);
    file = fopen(fresh, "we");
    if (file) {
        jsonl_begin(&json, file);
        jsonl_count(&json, "replayed", counters.replies_replayed);
        jsonl_count(&json, "reattached", counters.calls_reattached);
        jsonl_count(&json, "resumed", counters.reconnects);
        jsonl_count(&json, "sessions_lost", counters.sessions_lost);
        jsonl_end(&json);
    }
    if (!file || fclose(file) != 0 || rename(fresh, path) != 0)
        output_error("%s: %s", path, strerror(errno));
}

/* Wait for the threads, and report now and then. */
static void watch_threads(const struct client *client, struct thread *threads)
{
    const struct timespec report = { 0, REPORT_NS };

    while (clock_now() < client->end) {
        nanosleep(&report, NULL);
        client_write_counters(client);
    }
    for (unsigned i = 0; i < DEMO_THREADS; i++)
        pthread_join(threads[i].thread, NULL);
    client_write_counters(client);
}

static bool run_plain(struct client *client, const struct semel_client_options *options)
{
    struct thread threads[DEMO_THREADS];
    enum semel_status status = semel_client_create(&client->client, client->address, options);

    if (status != SEMEL_OK) {
        output_error("%s: %s", client->address, semel_status_text(status));
        return false;
    }
    for (unsigned i = 0; i < DEMO_THREADS; i++) {
        threads[i] = (struct thread){ .client = client, .number = i + 1 };
        if (pthread_create(&threads[i].thread, NULL, run_thread, &threads[i]) != 0) {
            output_error("cannot start a thread");
            exit(TOOL_FAILURE);
        }
    }
    watch_threads(client, threads);
    return semel_client_destroy(client->client) == SEMEL_OK;
}

/* client NUMBER RUN plain|outbox ADDRESS DIRECTORY SEED END */
int demo_client(int argc, char **argv)
{
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    struct client client = { 0 };
    char path[DEMO_PATH];

    if (argc != 8)
        return TOOL_USAGE;
    client.number = (unsigned)strtoul(argv[1], NULL, 10);
    client.run = (unsigned)strtoul(argv[2], NULL, 10);
    client.outbox = strcmp(argv[3], "outbox") == 0;
    client.address = argv[4];
    client.dir = argv[5];
    client.seed = strtoull(argv[6], NULL, 10);
    client.end = strtoll(argv[7], NULL, 10);
    snprintf(path, sizeof path, "%s/client-%u.ledger", client.dir, client.number);
    client.ledger = ledger_open(path);
    if (client.ledger < 0) {
        output_error("%s: %s", path, strerror(errno));
        return TOOL_FAILURE;
    }
    options.log = output_log_errors;
    options.backoff_min_ms = BACKOFF_MIN_MS;
    options.backoff_max_ms = BACKOFF_MAX_MS;
    return (client.outbox ? client_run_outbox : run_plain)(&client, &options) ? TOOL_VALUE
                                                                              : TOOL_FAILURE;
}
