/* SPDX-License-Identifier: MIT */
/* client_outbox.c - a client that works through an outbox, and is killed again and again.
 *
 * Each call's key is its id. The posting threads write a line before they post; the main thread
 * takes results, writes the second line, and only then accepts. So whenever it is killed, its
 * ledger and its outbox say what is to be done: every id without a second line is posted once
 * more, which is the same call by its key, and a result that comes once more although its line is
 * there is just accepted. */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"
#include "clock.h"
#include "output.h"
#include "store.h"
#include "tool.h"

#define TAKE_MS 100
#define OUTSTANDING (2 * DEMO_POSTERS)

/* What the ledger says: every call, and whether it has its second line. */
struct past {
    struct known {
        struct ledger_call call;
        bool replied;
    } * known;
    size_t count, room;
    unsigned numbers[DEMO_POSTERS + 1]; /* the last of each thread */
};

struct posting {
    struct client *client;
    struct past past;
    sem_t room; /* how many more may be outstanding */
};

struct poster {
    struct posting *posting;
    unsigned thread;
};

/* --- the past -------------------------------------------------------------------------------- */

static struct known *find(const struct past *past, uint64_t id)
{
    for (size_t i = past->count; i-- > 0;) {
        if (past->known[i].call.id == id)
            return &past->known[i];
    }
    return NULL;
}

static bool past_line(const char *line, void *user)
{
    struct past *past = user;
    struct ledger_reply reply;
    struct ledger_call call;
    struct known *known;

    if (ledger_parse_reply(line, &reply)) {
        known = find(past, reply.id);
        if (known)
            known->replied = true;
        return known;
    }
    if (!ledger_parse_call(line, &call) || ledger_thread(call.id) > DEMO_POSTERS)
        return false;
    if (past->count == past->room) {
        past->room = past->room ? past->room * 2 : 1024;
        known = realloc(past->known, past->room * sizeof *known);
        if (!known)
            return false;
        past->known = known;
    }
    past->known[past->count++] = (struct known){ .call = call };
    if (ledger_number(call.id) > past->numbers[ledger_thread(call.id)])
        past->numbers[ledger_thread(call.id)] = ledger_number(call.id);
    return true;
}

static bool read_past(struct client *client, struct past *past)
{
    char path[DEMO_PATH];
    struct ledger_tail tail = { .path = path };

    snprintf(path, sizeof path, "%s/client-%u.ledger", client->dir, client->number);
    if (ledger_read(&tail, past_line, past))
        return true;
    output_error("%s: it cannot be read", path);
    return false;
}

/* --- posting --------------------------------------------------------------------------------- */

/* A process whose outbox does not take calls has nothing more to do. */
static void post(const struct client *client, const struct ledger_call *call)
{
    struct semel_call_options options = SEMEL_CALL_OPTIONS_INIT;
    char body[CLIENT_BODY], key[LEDGER_ID];
    enum semel_status status;

    options.key = ledger_id_text(call->id, key);
    status = semel_client_post(client->client, client_method(call), client_body(call, body),
                               &options, semel_bytes(NULL, 0), NULL);
    if (status != SEMEL_OK) {
        output_error("%s cannot be posted: %s", key, semel_status_text(status));
        exit(TOOL_FAILURE);
    }
}

static void *run_poster(void *user)
{
    struct poster *poster = user;
    struct posting *posting = poster->posting;
    const struct client *client = posting->client;
    unsigned number = posting->past.numbers[poster->thread];
    struct chance chance;

    client_seed(client, poster->thread, &chance);
    while (clock_now() < client->end) {
        struct ledger_call call;

        while (sem_wait(&posting->room) != 0)
            ;
        if (clock_now() >= client->end)
            break;
        call = client_plan(&chance, ledger_id(client->number, poster->thread, ++number));
        call.at = clock_now();
        ledger_write_call(client->ledger, &call);
        post(client, &call);
    }
    sem_post(&posting->room); /* for the next one that waits for it */
    return NULL;
}

/* --- results --------------------------------------------------------------------------------- */

/* Was its second line written by an earlier process? */
static bool is_replied(const struct past *past, uint64_t id)
{
    const struct known *known = NULL;

    if (ledger_thread(id) <= DEMO_POSTERS && ledger_number(id) <= past->numbers[ledger_thread(id)])
        known = find(past, id);
    return known && known->replied;
}

static void take(struct posting *posting, const struct semel_posted *posted)
{
    const struct client *client = posting->client;
    uint64_t id;

    if (!ledger_id_parse(posted->key, &id)) {
        output_error("a result of '%s', which was never posted", posted->key);
        exit(TOOL_FAILURE);
    }
    if (!is_replied(&posting->past, id))
        client_replied(client, id, &posted->result);
    if (semel_client_accept(client->client, posted->id) != SEMEL_OK) {
        output_error("the result of %s cannot be accepted", posted->key);
        exit(TOOL_FAILURE);
    }
}

/* Take results until the load is over and none is left. */
static bool take_all(struct posting *posting)
{
    const struct client *client = posting->client;
    uint64_t outstanding = 1, results = 1;
    struct semel_posted posted;
    enum semel_status status;
    int64_t report_at = 0;

    while (outstanding > 0 || results > 0 || clock_now() < client->end) {
        status = semel_client_next_result(client->client, TAKE_MS, &posted);
        if (status == SEMEL_OK) {
            take(posting, &posted);
            semel_posted_clear(&posted);
            sem_post(&posting->room);
        } else if (status != SEMEL_DEADLINE) {
            output_error("no more results: %s", semel_status_text(status));
            return false;
        }
        if (clock_now() >= report_at) {
            client_write_counters(client);
            report_at = clock_now() + TAKE_MS * 1000000;
        }
        semel_client_posted(client->client, &outstanding, &results);
    }
    return true;
}

/* --- the process ----------------------------------------------------------------------------- */

static bool open_client(struct client *client, const struct semel_client_options *plain)
{
    struct semel_client_options options = *plain;
    char path[DEMO_PATH];
    enum semel_status status;

    snprintf(path, sizeof path, "%s/client-%u.outbox", client->dir, client->number);
    if (outbox_open(&options.outbox, path) != TOOL_VALUE)
        return false;
    status = semel_client_create(&client->client, client->address, &options);
    if (status != SEMEL_OK) {
        semel_outbox_close(options.outbox);
        output_error("%s, %s: %s", client->address, path, semel_status_text(status));
    }
    return status == SEMEL_OK;
}

/* Post again what has no second line. */
static void post_again(struct posting *posting)
{
    unsigned room = OUTSTANDING;

    for (size_t i = 0; i < posting->past.count; i++) {
        if (posting->past.known[i].replied)
            continue;
        post(posting->client, &posting->past.known[i].call);
        room -= room > 0;
    }
    sem_init(&posting->room, 0, room);
}

bool client_run_outbox(struct client *client, const struct semel_client_options *options)
{
    static struct posting posting;
    static struct poster posters[DEMO_POSTERS];
    pthread_t threads[DEMO_POSTERS];
    bool good;

    posting.client = client;
    if (!read_past(client, &posting.past) || !open_client(client, options))
        return false;
    post_again(&posting);
    for (unsigned i = 0; i < DEMO_POSTERS; i++) {
        posters[i] = (struct poster){ .posting = &posting, .thread = i + 1 };
        if (pthread_create(&threads[i], NULL, run_poster, &posters[i]) != 0) {
            output_error("cannot start a thread");
            exit(TOOL_FAILURE);
        }
    }
    good = take_all(&posting);
    sem_post(&posting.room);
    for (unsigned i = 0; i < DEMO_POSTERS && good; i++)
        pthread_join(threads[i], NULL);
    /* A thread may have posted after the last look. */
    good = good && take_all(&posting);
    client_write_counters(client);
    free(posting.past.known);
    return semel_client_destroy(client->client) == SEMEL_OK && good;
}
