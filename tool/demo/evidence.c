/* SPDX-License-Identifier: MIT */
#include "evidence.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "store.h"
#include "tool.h"

void evidence_open(struct evidence *evidence, const struct demo *demo)
{
    memset(evidence, 0, sizeof *evidence);
    evidence->demo = demo;
    evidence->notices.path = "notices";
    for (unsigned i = 0; i < demo->options.clients; i++) {
        snprintf(evidence->paths[i], sizeof evidence->paths[i], "client-%u.ledger", i + 1);
        evidence->ledgers[i].path = evidence->paths[i];
    }
}

void evidence_close(struct evidence *evidence)
{
    free(evidence->calls);
    free(evidence->was);
    free(evidence->is);
}

static bool no_memory(struct evidence *evidence)
{
    if (!evidence->broken)
        output_error("out of memory");
    evidence->broken = true;
    return false;
}

/* --- calls ----------------------------------------------------------------------------------- */

static struct evidence_call *find(const struct evidence *evidence, uint64_t id)
{
    for (size_t i = 0; i < evidence->count; i++) {
        if (evidence->calls[i].id == id)
            return &evidence->calls[i];
    }
    return NULL;
}

static bool add(struct evidence *evidence, const struct ledger_call *call)
{
    bool outbox = demo_is_outbox(evidence->demo, ledger_client(call->id));

    if (evidence->count == evidence->room) {
        size_t room = evidence->room ? evidence->room * 2 : 256;
        struct evidence_call *larger = realloc(evidence->calls, room * sizeof *larger);

        if (!larger)
            return no_memory(evidence);
        evidence->calls = larger;
        evidence->room = room;
    }
    evidence->calls[evidence->count++] =
        (struct evidence_call){ .id = call->id,
                                .called_at = call->at,
                                .outbox = outbox,
                                .keyed = demo_has_key(outbox, ledger_number(call->id)) };
    evidence->called++;
    return true;
}

static bool ledger_line(const char *line, void *user)
{
    struct evidence *evidence = user;
    struct evidence_call *known;
    struct ledger_reply reply;
    struct ledger_call call;

    if (ledger_parse_call(line, &call))
        return add(evidence, &call);
    if (!ledger_parse_reply(line, &reply))
        return false;
    known = find(evidence, reply.id);
    if (known)
        *known = evidence->calls[--evidence->count];
    evidence->replied++;
    if (reply.at > evidence->replied_at)
        evidence->replied_at = reply.at;
    return true;
}

/* A file of lines in the demo's directory. */
static bool read_tail(struct evidence *evidence, struct ledger_tail *tail, ledger_line_fn fn)
{
    struct ledger_tail here = *tail;
    bool good;

    here.path = demo_path(evidence->demo, "%s", tail->path);
    good = ledger_read(&here, fn, evidence);
    if (!good && !evidence->broken)
        output_error("%s:%llu: %s", here.path, (unsigned long long)here.lines + 1,
                     errno ? strerror(errno) : "not a line of such a file");
    tail->at = here.at;
    tail->lines = here.lines;
    return good;
}

bool evidence_ledgers(struct evidence *evidence)
{
    for (unsigned i = 0; i < evidence->demo->options.clients; i++) {
        if (!read_tail(evidence, &evidence->ledgers[i], ledger_line))
            return false;
    }
    return true;
}

static bool notice_line(const char *line, void *user)
{
    struct evidence *evidence = user;
    struct evidence_call *call;
    uint64_t id;
    bool end;

    if (!ledger_parse_notice(line, &id, &end))
        return false;
    call = find(evidence, id);
    if (call)
        *(end ? &call->ended : &call->begun) = true;
    return true;
}

bool evidence_notices(struct evidence *evidence)
{
    return read_tail(evidence, &evidence->notices, notice_line);
}

static void move_row(const char *text, void *user)
{
    struct evidence_call *call = NULL;
    uint64_t id;

    if (text && ledger_id_parse(text, &id))
        call = find(user, id);
    if (call)
        call->row = true;
}

bool evidence_bank(struct evidence *evidence)
{
    if (bank_moves(evidence->demo, &evidence->last_move, move_row, evidence))
        return true;
    output_error("%s cannot be read", demo_path(evidence->demo, "bank.db"));
    return false;
}

/* --- the store ------------------------------------------------------------------------------- */

static bool was_started(const struct evidence *evidence, const struct semel_store_call *call)
{
    for (size_t i = 0; i < evidence->was_count; i++) {
        if (evidence->was[i].call == call->call &&
            memcmp(evidence->was[i].session, call->session, sizeof call->session) == 0)
            return true;
    }
    return false;
}

static bool add_started(struct evidence *evidence, const struct semel_store_call *call)
{
    struct evidence_started *started;

    if (evidence->is_count == evidence->is_room) {
        size_t room = evidence->is_room ? evidence->is_room * 2 : 64;
        struct evidence_started *larger = realloc(evidence->is, room * sizeof *larger);

        if (!larger)
            return no_memory(evidence);
        evidence->is = larger;
        evidence->is_room = room;
    }
    started = &evidence->is[evidence->is_count++];
    memcpy(started->session, call->session, sizeof started->session);
    started->call = call->call;
    evidence->started++;
    evidence->started_new += !was_started(evidence, call);
    return true;
}

static bool store_call(const struct semel_store_call *call, void *user)
{
    struct evidence *evidence = user;
    struct evidence_call *known = NULL;
    uint64_t id;

    if (call->started && !add_started(evidence, call))
        return false;
    if (*call->key && ledger_id_parse(call->key, &id))
        known = find(evidence, id);
    if (known)
        known->record = call->ended     ? RECORD_ENDED
                        : call->started ? RECORD_STARTED
                                        : RECORD_WAITING;
    return true;
}

/* What was started before this look was started before the last one: forget that one. */
static void turn_over(struct evidence *evidence)
{
    struct evidence_started *array = evidence->was;
    size_t room = evidence->was_room;

    evidence->was = evidence->is;
    evidence->was_count = evidence->is_count;
    evidence->was_room = evidence->is_room;
    evidence->is = array;
    evidence->is_room = room;
    evidence->is_count = 0;
    evidence->started = evidence->started_new = 0;
    for (size_t i = 0; i < evidence->count; i++)
        evidence->calls[i].record = RECORD_NONE;
}

bool evidence_store(struct evidence *evidence)
{
    static const struct semel_sqlite_options look = { .read_only = true };
    struct semel_store *store;
    enum semel_status status;

    turn_over(evidence);
    if (store_open(&store, demo_path(evidence->demo, "bank.db"), &look) != TOOL_VALUE)
        return false;
    status = semel_store_each_call(store, NULL, store_call, evidence);
    if (status != SEMEL_OK)
        store_explain(status, semel_store_error(store));
    semel_store_close(store);
    return status == SEMEL_OK && !evidence->broken;
}
