/* SPDX-License-Identifier: MIT */
/* audit.c - semel-audit DIRECTORY: did every call of a run of the demo happen exactly once?
 *
 * It shares nothing with what it judges but the form of the files (ledger.h): it uses SQLite and
 * libc, and nothing of Semel. It reads what the clients wrote down before and after each call, what
 * their calls left behind (rows in the bank, lines of notices), and when the server was killed.
 *
 *   lost         a call without an outcome; a value that left nothing behind
 *   doubled      what is there of one call beyond the first; two outcomes that differ
 *   mismatched   a row that is not what was asked for; traces of a call that failed or was not
 *                executed, or that nobody made; balances that the rows do not explain
 *   unknown      transfers whose outcome is unknown: there must be none
 *   unexplained  calls of notify whose outcome is unknown, although the server was not killed
 *                between their call and their reply; and if there are more or fewer of them than
 *                the server was killed in, the difference
 *
 * Ends with 0 when all of these are 0, 1 when not, 2 when it cannot judge. */
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

#include "ledger.h"

#define PROBLEMS_SHOWN 8 /* of each kind */

/* All that is known of one call. */
struct call {
    uint64_t id;
    struct ledger_call made;
    struct ledger_reply reply;
    unsigned calls, replies, rows, begins, ends;
    bool differs; /* two replies, not the same */
    bool wrong;   /* a row that is not what was asked for */
};

/* A trace of a call, in the order they were read; sorted, they become calls. */
struct trace {
    uint64_t id;
    uint64_t order;
    enum { MADE, REPLY, ROW, BEGIN, END } kind;
    union {
        struct ledger_call made; /* MADE; ROW: what it says */
        struct ledger_reply reply;
    };
};

struct audit {
    const char *directory;
    struct trace *traces;
    size_t count, room;
    struct ledger_kill *kills;
    size_t kill_count, kill_room;
    uint64_t started; /* sum over the kills */
    struct account {
        int64_t id, balance, moved;
    } * accounts;
    size_t account_count;
    uint64_t calls, outcomes[4];
    uint64_t lost, doubled, mismatched, unknown, notify_unknown, unexplained;
    unsigned hidden; /* problems that were not shown */
};

__attribute__((format(printf, 1, 2), noreturn)) static void give_up(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("semel-audit: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static void *grown(void *array, size_t *room, size_t size)
{
    *room = *room ? *room * 2 : 1024;
    array = realloc(array, *room * size);
    if (!array)
        give_up("out of memory");
    return array;
}

__attribute__((format(printf, 3, 4))) static void problem(struct audit *audit, uint64_t *kind,
                                                          const char *format, ...)
{
    va_list args;

    *kind += 1;
    if (*kind > PROBLEMS_SHOWN) {
        audit->hidden++;
        return;
    }
    va_start(args, format);
    fputs("semel-audit: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* --- reading --------------------------------------------------------------------------------- */

static struct trace *trace_add(struct audit *audit, uint64_t id)
{
    struct trace *trace;

    if (audit->count == audit->room)
        audit->traces = grown(audit->traces, &audit->room, sizeof *audit->traces);
    trace = &audit->traces[audit->count];
    memset(trace, 0, sizeof *trace);
    trace->id = id;
    trace->order = audit->count++;
    return trace;
}

static bool read_ledger(const char *line, void *user)
{
    struct ledger_call made;
    struct ledger_reply reply;
    struct trace *trace;

    if (ledger_parse_call(line, &made)) {
        trace = trace_add(user, made.id);
        trace->kind = MADE;
        trace->made = made;
        return true;
    }
    if (!ledger_parse_reply(line, &reply))
        return false;
    trace = trace_add(user, reply.id);
    trace->kind = REPLY;
    trace->reply = reply;
    return true;
}

static bool read_notice(const char *line, void *user)
{
    uint64_t id;
    bool end;

    if (!ledger_parse_notice(line, &id, &end))
        return false;
    trace_add(user, id)->kind = end ? END : BEGIN;
    return true;
}

static bool read_kill(const char *line, void *user)
{
    struct audit *audit = user;
    struct ledger_kill kill;

    if (!ledger_parse_kill(line, &kill))
        return false;
    if (audit->kill_count == audit->kill_room)
        audit->kills = grown(audit->kills, &audit->kill_room, sizeof *audit->kills);
    audit->kills[audit->kill_count++] = kill;
    audit->started += kill.started;
    return true;
}

/* All lines of a file, each of which must be one. */
static void read_file(struct audit *audit, const char *path, ledger_line_fn fn)
{
    struct ledger_tail tail = { .path = path };
    FILE *file = fopen(path, "r");

    if (!file)
        give_up("%s: %s", path, strerror(errno));
    if (!ledger_read(&tail, fn, audit))
        give_up("%s:%" PRIu64 ": %s", path, tail.lines + 1,
                errno ? strerror(errno) : "this is no line of such a file");
    if (fseeko(file, 0, SEEK_END) != 0 || ftello(file) != tail.at)
        give_up("%s:%" PRIu64 ": the last line is not whole", path, tail.lines + 1);
    fclose(file);
}

static void read_files(struct audit *audit)
{
    char path[4096];
    glob_t found;

    snprintf(path, sizeof path, "%s/client-*.ledger", audit->directory);
    if (glob(path, 0, NULL, &found) != 0)
        give_up("there is no %s", path);
    for (size_t i = 0; i < found.gl_pathc; i++)
        read_file(audit, found.gl_pathv[i], read_ledger);
    globfree(&found);
    snprintf(path, sizeof path, "%s/notices", audit->directory);
    read_file(audit, path, read_notice);
    snprintf(path, sizeof path, "%s/kills", audit->directory);
    read_file(audit, path, read_kill);
}

/* --- the bank -------------------------------------------------------------------------------- */

static struct account *account_find(struct audit *audit, int64_t id)
{
    for (size_t i = 0; i < audit->account_count; i++) {
        if (audit->accounts[i].id == id)
            return &audit->accounts[i];
    }
    return NULL;
}

static void read_account(struct audit *audit, sqlite3_stmt *row)
{
    size_t room = audit->account_count;
    struct account *larger = realloc(audit->accounts, (room + 1) * sizeof *larger);

    if (!larger)
        give_up("out of memory");
    audit->accounts = larger;
    larger[audit->account_count++] = (struct account){ .id = sqlite3_column_int64(row, 0),
                                                       .balance = sqlite3_column_int64(row, 1) };
}

static void read_move(struct audit *audit, sqlite3_stmt *row)
{
    const char *text = (const char *)sqlite3_column_text(row, 0);
    int64_t from = sqlite3_column_int64(row, 1), to = sqlite3_column_int64(row, 2);
    int64_t amount = sqlite3_column_int64(row, 3);
    struct account *debit = account_find(audit, from), *credit = account_find(audit, to);
    struct trace *trace;
    uint64_t id;

    if (debit)
        debit->moved -= amount;
    if (credit)
        credit->moved += amount;
    if (!text || !ledger_id_parse(text, &id)) {
        problem(audit, &audit->mismatched, "a row of the id '%s', which nobody could ask for",
                text ? text : "NULL");
        return;
    }
    trace = trace_add(audit, id);
    trace->kind = ROW;
    trace->made = (struct ledger_call){ .from = (unsigned)from,
                                        .to = (unsigned)to,
                                        .amount = (unsigned)amount };
}

static void query(struct audit *audit, sqlite3 *bank, const char *text,
                  void (*fn)(struct audit *audit, sqlite3_stmt *row))
{
    sqlite3_stmt *statement;
    int code = sqlite3_prepare_v2(bank, text, -1, &statement, NULL);

    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        fn(audit, statement);
        code = SQLITE_OK;
    }
    if (code != SQLITE_DONE)
        give_up("%s/bank.db: %s", audit->directory, sqlite3_errmsg(bank));
    sqlite3_finalize(statement);
}

static void read_bank(struct audit *audit)
{
    char path[4096];
    sqlite3 *bank;

    snprintf(path, sizeof path, "%s/bank.db", audit->directory);
    if (sqlite3_open_v2(path, &bank, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
        give_up("%s: %s", path, sqlite3_errmsg(bank));
    query(audit, bank, "SELECT id, balance FROM accounts", read_account);
    query(audit, bank, "SELECT id, debit, credit, amount FROM moves", read_move);
    sqlite3_close(bank);
    if (audit->account_count == 0)
        give_up("%s: it has no accounts", path);
}

static void judge_accounts(struct audit *audit)
{
    int64_t sum = 0, wanted = (int64_t)audit->account_count * LEDGER_OPENING;

    for (size_t i = 0; i < audit->account_count; i++) {
        const struct account *a = &audit->accounts[i];

        sum += a->balance;
        if (a->balance != LEDGER_OPENING + a->moved)
            problem(audit, &audit->mismatched,
                    "account %" PRId64 " has %" PRId64 "; the moves make it %" PRId64, a->id,
                    a->balance, LEDGER_OPENING + a->moved);
        if (a->balance < 0)
            problem(audit, &audit->mismatched, "account %" PRId64 " has %" PRId64, a->id,
                    a->balance);
    }
    if (sum != wanted)
        problem(audit, &audit->mismatched,
                "there is %" PRId64 " in the bank; %" PRId64 " was put in", sum, wanted);
}

/* --- calls ----------------------------------------------------------------------------------- */

static int by_id(const void *left, const void *right)
{
    const struct trace *a = left, *b = right;

    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    if (a->kind != b->kind)
        return (int)a->kind - (int)b->kind;
    return a->order < b->order ? -1 : a->order > b->order;
}

/* The next trace of a call: MADE come first. */
static void call_add(struct call *call, const struct trace *trace)
{
    const struct ledger_call *asked = &call->made, *row = &trace->made;

    switch (trace->kind) {
    case MADE:
        if (call->calls++ == 0)
            call->made = trace->made;
        break;
    case REPLY:
        if (call->replies++ == 0)
            call->reply = trace->reply;
        else if (call->reply.outcome != trace->reply.outcome ||
                 strcmp(call->reply.status, trace->reply.status) != 0)
            call->differs = true;
        break;
    case ROW:
        call->rows++;
        if (row->from != asked->from || row->to != asked->to || row->amount != asked->amount)
            call->wrong = true;
        break;
    case BEGIN:
        call->begins++;
        break;
    case END:
        call->ends++;
        break;
    }
}

static void judge_doubled(struct audit *audit, const struct call *call, const char *id)
{
    for (unsigned i = 1; i < call->rows; i++)
        problem(audit, &audit->doubled, "%s: transferred again", id);
    for (unsigned i = 1; i < call->begins; i++)
        problem(audit, &audit->doubled, "%s: its notice began again", id);
    for (unsigned i = 1; i < call->ends; i++)
        problem(audit, &audit->doubled, "%s: its notice ended again", id);
    if (call->differs)
        problem(audit, &audit->doubled, "%s: it has two outcomes", id);
}

/* What must be there of a call that ended so, and what must not. */
static void judge_traces(struct audit *audit, const struct call *call, const char *id)
{
    bool transfer = call->made.method == LEDGER_TRANSFER;
    unsigned traces = transfer ? call->rows : call->begins + call->ends;
    unsigned foreign = transfer ? call->begins + call->ends : call->rows;

    if (foreign > 0)
        problem(audit, &audit->mismatched, "%s: a trace of the other method", id);
    if (call->wrong && transfer)
        problem(audit, &audit->mismatched, "%s: another transfer than was asked for", id);
    if (call->replies == 0) {
        problem(audit, &audit->lost, "%s: it has no outcome", id);
        return;
    }
    switch (call->reply.outcome) {
    case LEDGER_VALUE:
        if (transfer ? call->rows == 0 : call->begins == 0 || call->ends == 0)
            problem(audit, &audit->lost, "%s: answered, but %s", id,
                    transfer ? "never transferred" : "its notice never ended");
        break;
    case LEDGER_FAILURE:
    case LEDGER_NOT_EXECUTED:
        if (traces > 0)
            problem(audit, &audit->mismatched, "%s: it happened, but its caller was told %s", id,
                    call->reply.outcome == LEDGER_FAILURE ? "that it failed"
                                                          : "that it was not executed");
        break;
    case LEDGER_UNKNOWN:
        break;
    }
}

static bool was_killed_between(const struct audit *audit, int64_t from, int64_t to)
{
    for (size_t i = 0; i < audit->kill_count; i++) {
        if (audit->kills[i].at > from && audit->kills[i].at < to)
            return true;
    }
    return false;
}

static void judge_unknown(struct audit *audit, const struct call *call, const char *id)
{
    if (call->replies == 0 || call->reply.outcome != LEDGER_UNKNOWN)
        return;
    if (call->made.method == LEDGER_TRANSFER) {
        problem(audit, &audit->unknown, "%s: unknown (%s), of a transfer", id, call->reply.status);
        return;
    }
    audit->notify_unknown++;
    if (!was_killed_between(audit, call->made.at, call->reply.at))
        problem(audit, &audit->unexplained, "%s: unknown (%s), and the server was not killed", id,
                call->reply.status);
}

static void judge(struct audit *audit, const struct call *call)
{
    char id[LEDGER_ID];

    ledger_id_text(call->id, id);
    judge_doubled(audit, call, id);
    if (call->calls == 0) {
        problem(audit, &audit->mismatched, "%s: nobody made this call", id);
        return;
    }
    audit->calls++;
    if (call->calls > 1)
        problem(audit, &audit->mismatched, "%s: made twice", id);
    if (call->replies > 0)
        audit->outcomes[call->reply.outcome]++;
    judge_traces(audit, call, id);
    judge_unknown(audit, call, id);
}

static void judge_all(struct audit *audit)
{
    struct call call;

    qsort(audit->traces, audit->count, sizeof *audit->traces, by_id);
    for (size_t i = 0; i < audit->count;) {
        memset(&call, 0, sizeof call);
        call.id = audit->traces[i].id;
        for (; i < audit->count && audit->traces[i].id == call.id; i++)
            call_add(&call, &audit->traces[i]);
        judge(audit, &call);
    }
    if (audit->notify_unknown != audit->started) {
        uint64_t more = audit->notify_unknown > audit->started
                            ? audit->notify_unknown - audit->started
                            : audit->started - audit->notify_unknown;

        problem(audit, &audit->unexplained,
                "%" PRIu64 " calls of notify are unknown; kills hit %" PRIu64 " that were started",
                audit->notify_unknown, audit->started);
        audit->unexplained += more - 1;
    }
}

/* --- the verdict ----------------------------------------------------------------------------- */

static int verdict(const struct audit *audit)
{
    bool clean = !audit->lost && !audit->doubled && !audit->mismatched && !audit->unknown &&
                 !audit->unexplained;
    const struct {
        const char *name;
        uint64_t value;
    } lines[] = {
        { "calls", audit->calls },
        { "values", audit->outcomes[LEDGER_VALUE] },
        { "failures", audit->outcomes[LEDGER_FAILURE] },
        { "not-executed", audit->outcomes[LEDGER_NOT_EXECUTED] },
        { "lost", audit->lost },
        { "doubled", audit->doubled },
        { "mismatched", audit->mismatched },
        { "unknown", audit->unknown },
        { "notify-unknown", audit->notify_unknown },
        { "unexplained", audit->unexplained },
    };

    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        printf("%-15s %" PRIu64 "\n", lines[i].name, lines[i].value);
    if (audit->hidden > 0)
        fprintf(stderr, "semel-audit: and %u more\n", audit->hidden);
    puts(clean ? "clean" : "NOT CLEAN");
    return clean ? 0 : 1;
}

int main(int argc, char **argv)
{
    static struct audit audit;
    int code;

    if (argc != 2)
        give_up("usage: semel-audit DIRECTORY, that of a run of 'semel demo --keep DIRECTORY'");
    audit.directory = argv[1];
    read_files(&audit);
    read_bank(&audit);
    judge_all(&audit);
    judge_accounts(&audit);
    code = verdict(&audit);
    free(audit.traces);
    free(audit.kills);
    free(audit.accounts);
    if (fflush(stdout) != 0)
        give_up("standard output cannot be written");
    return code;
}
