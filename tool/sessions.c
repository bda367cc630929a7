/* SPDX-License-Identifier: MIT */
/* sessions.c - semel sessions: what a store holds, for whoever operates its server.
 *
 * list, show and poisoned open the store read-only, beside a running server. forget and renew
 * change it, and need it for themselves; they look first, read-only too, so that a wrong name
 * makes no store and a wrong id changes nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "output.h"
#include "store.h"
#include "tool.h"

struct arguments {
    char path[STORE_PATH_BYTES];
    const char *verb, *id;
};

static const char doc[] =
    "Look at what a server keeps in its store: sessions, that is clients, and their calls that "
    "they have not accepted the verdict of yet. STORE is sqlite:PATH, or a path.\n\n"
    "list (default): all sessions. show ID: one, with its calls. poisoned: calls that were given "
    "up because the server died of them too often. forget ID: drop a session; its client is told. "
    "renew: declare that the store was restored from a copy; all sessions are dropped, and what "
    "their clients wait for is unknown."
    "\v"
    "Examples:\n"
    "  semel sessions sqlite:shop.db\n"
    "  semel sessions shop.db show 3f2a -o json\n"
    "  rm -f shop.db-wal shop.db-shm && cp backup.db shop.db && semel sessions shop.db renew\n\n"
    "An ID may be cut, as long as it fits only one session. list, show and poisoned work beside a "
    "running server; forget and renew do not. JSON is one object to a line. Exit codes: 0 done, "
    "1 there is no such session, 2 usage, 3 the store cannot be used.";

static const struct verb {
    const char *name;
    bool takes_id;
} verbs[] = {
    { "list", false },     { "show", true },   { "forget", true },
    { "poisoned", false }, { "renew", false },
};

static const struct argp_option options[] = {
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static void finish_arguments(struct arguments *a, struct argp_state *state)
{
    const struct verb *verb = NULL;

    if (state->arg_num == 0)
        argp_error(state, "a store is needed, such as sqlite:PATH");
    if (!a->verb)
        a->verb = "list";
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(verbs[i].name, a->verb) == 0)
            verb = &verbs[i];
    }
    if (!verb)
        argp_error(state, "'%s' is not list, show ID, forget ID, poisoned or renew", a->verb);
    if (verb->takes_id != (a->id != NULL))
        argp_error(state, verb->takes_id ? "%s needs the ID of a session" : "%s takes no ID",
                   a->verb);
    if (a->id && (strlen(a->id) > 32 || a->id[strspn(a->id, "0123456789abcdef")] || !*a->id))
        argp_error(state, "'%s' is not the ID of a session: up to 32 of 0 to 9 and a to f", a->id);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char why[400];

    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num > 2)
            argp_error(state, "too many arguments");
        if (state->arg_num == 0 && !store_path(arg, a->path, why, sizeof why))
            argp_error(state, "%s", why);
        if (state->arg_num > 0)
            *(state->arg_num == 1 ? &a->verb : &a->id) = arg;
        return 0;
    case ARGP_KEY_END:
        finish_arguments(a, state);
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* --- printing
 * ---------------------------------------------------------------------------------- */

static void print_text(const char *text)
{
    output_escaped(stdout, text, strlen(text));
}

static void session_json(struct jsonl *json, const struct semel_store_session *session)
{
    char id[STORE_ID_TEXT];

    store_id_text(session->id, id);
    jsonl_text(json, "session", id);
    if (session->has_ids) {
        jsonl_count(json, "uid", session->uid);
        jsonl_count(json, "gid", session->gid);
    }
    jsonl_count(json, "calls", session->calls);
    jsonl_count(json, "started", session->started);
    jsonl_count(json, "ended", session->ended);
    jsonl_count(json, "waiting", session->crashed);
    jsonl_count(json, "bytes", session->bytes);
    jsonl_count(json, "connections", session->connections);
    jsonl_count(json, "released", session->released);
}

static bool list_session(const struct semel_store_session *session, void *user)
{
    char id[STORE_ID_TEXT], uid[16] = "-";
    struct jsonl json;

    (void)user;
    if (output_json()) {
        jsonl_begin(&json, stdout);
        session_json(&json, session);
        jsonl_end(&json);
        return true;
    }
    store_id_text(session->id, id);
    if (session->has_ids)
        snprintf(uid, sizeof uid, "%u", session->uid);
    printf("%s %7s %6" PRIu64 " %7" PRIu64 " %6" PRIu64 " %7" PRIu64 " %10" PRIu64 " %11" PRIu64
           "\n",
           id, uid, session->calls, session->started, session->ended, session->crashed,
           session->bytes, session->connections);
    return true;
}

static const char *state_of(const struct semel_store_call *call)
{
    return call->ended ? "ended" : call->started ? "started" : "waiting";
}

static void call_json(struct jsonl *json, const struct semel_store_call *call)
{
    jsonl_count(json, "call", call->call);
    jsonl_text(json, "method", call->method);
    if (*call->key)
        jsonl_text(json, "key", call->key);
    jsonl_text(json, "state", state_of(call));
    jsonl_count(json, "crashes", call->crashes);
    if (!call->ended)
        return;
    jsonl_text(json, "outcome", semel_outcome_text(call->outcome));
    jsonl_text(json, "status", semel_status_name(call->status));
    if (call->outcome == SEMEL_VALUE)
        jsonl_bytes(json, "body", call->body.data, call->body.size);
    if (call->outcome == SEMEL_FAILURE)
        jsonl_number(json, "code", call->code);
    if (*call->text)
        jsonl_text(json, "text", call->text);
}

static void call_text(const struct semel_store_call *call)
{
    printf("%6" PRIu64 " %-7s ", call->call, state_of(call));
    print_text(call->method);
    if (*call->key) {
        fputs(", key ", stdout);
        print_text(call->key);
    }
    if (call->crashes)
        printf(", the server died of it %u time%s", call->crashes, call->crashes == 1 ? "" : "s");
    if (call->ended && call->outcome == SEMEL_VALUE)
        printf(": value of %zu bytes", call->body.size);
    else if (call->ended)
        printf(": %s: %s", semel_outcome_text(call->outcome), semel_status_text(call->status));
    if (call->ended && call->outcome == SEMEL_FAILURE)
        printf(", code %d", call->code);
    if (call->ended && *call->text && strcmp(call->text, semel_status_text(call->status)) != 0) {
        fputs(": ", stdout);
        print_text(call->text);
    }
    fputc('\n', stdout);
}

static bool show_call(const struct semel_store_call *call, void *user)
{
    if (output_json()) {
        jsonl_item(user);
        call_json(user, call);
        jsonl_item_end(user);
    } else {
        call_text(call);
    }
    return true;
}

static bool show_poisoned(const struct semel_store_call *call, void *user)
{
    char id[STORE_ID_TEXT];
    struct jsonl json;

    (void)user;
    if (!call->ended || call->status != SEMEL_POISONED)
        return true;
    store_id_text(call->session, id);
    if (output_json()) {
        jsonl_begin(&json, stdout);
        jsonl_text(&json, "session", id);
        call_json(&json, call);
        jsonl_end(&json);
    } else {
        printf("%s", id);
        call_text(call);
    }
    return true;
}

/* --- the sessions an id fits
 * --------------------------------------------------------------------- */

struct match {
    const char *id;
    size_t count;
    struct semel_store_session session; /* the first */
};

static bool match_session(const struct semel_store_session *session, void *user)
{
    struct match *match = user;
    char id[STORE_ID_TEXT];

    store_id_text(session->id, id);
    if (strncmp(id, match->id, strlen(match->id)) == 0 && match->count++ == 0)
        match->session = *session;
    return true;
}

/* Find the one session of this id. Returns an exit code. */
static int find(struct semel_store *store, const char *id, struct semel_store_session *out_session)
{
    struct match match = { .id = id };
    enum semel_status status = semel_store_each_session(store, match_session, &match);

    if (status != SEMEL_OK)
        return store_explain(status, semel_store_error(store));
    if (match.count == 0)
        output_error("there is no session %s", id);
    if (match.count > 1)
        output_error("%zu sessions begin with %s; write more of the ID", match.count, id);
    *out_session = match.session;
    return match.count == 1 ? TOOL_VALUE : match.count == 0 ? TOOL_FAILURE : TOOL_USAGE;
}

/* --- commands
 * -------------------------------------------------------------------------------------- */

static int list(struct semel_store *store)
{
    enum semel_status status;

    if (!output_json())
        printf("%-32s %7s %6s %7s %6s %7s %10s %11s\n", "SESSION", "UID", "CALLS", "STARTED",
               "ENDED", "WAITING", "BYTES", "CONNECTIONS");
    status = semel_store_each_session(store, list_session, NULL);
    return status == SEMEL_OK ? TOOL_VALUE : store_explain(status, semel_store_error(store));
}

static int poisoned(struct semel_store *store)
{
    enum semel_status status = semel_store_each_call(store, NULL, show_poisoned, NULL);

    return status == SEMEL_OK ? TOOL_VALUE : store_explain(status, semel_store_error(store));
}

static int show(struct semel_store *store, const char *id)
{
    struct semel_store_session session;
    enum semel_status status;
    char text[STORE_ID_TEXT];
    struct jsonl json;
    int code = find(store, id, &session);

    if (code != TOOL_VALUE)
        return code;
    if (output_json()) {
        jsonl_begin(&json, stdout);
        session_json(&json, &session);
        jsonl_array(&json, "open");
    } else {
        store_id_text(session.id, text);
        printf("session %s", text);
        if (session.has_ids)
            printf(", of uid %u, gid %u", session.uid, session.gid);
        printf(", connection %" PRIu64 "\ncalls released up to %" PRIu64 ", %" PRIu64 " open:\n",
               session.connections, session.released, session.calls);
    }
    status = semel_store_each_call(store, session.id, show_call, &json);
    if (output_json()) {
        jsonl_array_end(&json);
        jsonl_end(&json);
    }
    return status == SEMEL_OK ? TOOL_VALUE : store_explain(status, semel_store_error(store));
}

static int forget(const struct arguments *a, const struct semel_store_session *session)
{
    struct semel_store *store;
    enum semel_status status;
    char id[STORE_ID_TEXT];
    int code = store_open(&store, a->path, NULL);
    struct jsonl json;

    if (code != TOOL_VALUE)
        return code;
    store_id_text(session->id, id);
    status = semel_store_forget_session(store, session->id);
    if (status == SEMEL_INVALID) { /* a server was quicker: its client has ended it */
        output_error("there is no session %s any more", id);
        code = TOOL_FAILURE;
    } else if (status != SEMEL_OK) {
        code = store_explain(status, semel_store_error(store));
    } else if (output_json()) {
        jsonl_begin(&json, stdout);
        jsonl_text(&json, "forgotten", id);
        jsonl_end(&json);
    } else {
        output_note("forgot session %s and its %" PRIu64 " call%s", id, session->calls,
                    session->calls == 1 ? "" : "s");
    }
    semel_store_close(store);
    return code;
}

static int renew(const struct arguments *a, const struct semel_store_info *before)
{
    struct semel_sqlite_options adopt = { .adopt = true };
    enum semel_status status = SEMEL_OK;
    struct semel_store_info info;
    struct semel_store *store;
    int code = store_open(&store, a->path, &adopt);
    struct jsonl json;

    if (code != TOOL_VALUE)
        return code;
    /* Where the store did not fit what is remembered of it, adopting was renewing. */
    semel_store_info(store, &info);
    if (info.generation == before->generation)
        status = semel_store_renew(store);
    semel_store_info(store, &info);
    if (status != SEMEL_OK) {
        code = store_explain(status, semel_store_error(store));
    } else if (output_json()) {
        jsonl_begin(&json, stdout);
        jsonl_count(&json, "generation", info.generation);
        jsonl_end(&json);
    } else {
        output_note("all sessions are forgotten; this is generation %" PRIu64, info.generation);
    }
    semel_store_close(store);
    return code;
}

int tool_sessions(int argc, char **argv)
{
    static const struct argp argp = {
        options, parse, "STORE [list]\nSTORE show ID\nSTORE forget ID\nSTORE poisoned\nSTORE renew",
        doc,     NULL,  NULL,
        NULL
    };
    static struct arguments a;
    struct semel_sqlite_options look = { .read_only = true };
    struct semel_store_session session;
    struct semel_store_info info;
    struct semel_store *store;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    code = store_open(&store, a.path, &look);
    if (code != TOOL_VALUE)
        return code;
    semel_store_info(store, &info);
    if (strcmp(a.verb, "list") == 0)
        code = list(store);
    else if (strcmp(a.verb, "poisoned") == 0)
        code = poisoned(store);
    else if (strcmp(a.verb, "show") == 0)
        code = show(store, a.id);
    else if (strcmp(a.verb, "forget") == 0)
        code = find(store, a.id, &session);
    semel_store_close(store);
    if (code == TOOL_VALUE && strcmp(a.verb, "forget") == 0)
        code = forget(&a, &session);
    if (code == TOOL_VALUE && strcmp(a.verb, "renew") == 0)
        code = renew(&a, &info);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        output_error("standard output cannot be written");
        return TOOL_FAILURE;
    }
    return code;
}
