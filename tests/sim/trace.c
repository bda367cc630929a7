/* SPDX-License-Identifier: MIT */
/* trace.c - what happens in one session, as lines that tests/model/replay.py reads. See sim.h.
 *
 * A seed with a trace is a small world: one client, one server, three calls, and nothing of the
 * menu that the model has not. It goes on until all is settled, or until something happens that the
 * model leaves out: a call number beyond the third, a body in parts, the end of the session. What
 * only the network or a clock can know (when an end learns that its connection is broken, when a
 * deadline passes) is left to the model. */
#include "durable.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALLS 3
#define CONNS 15
#define TEXT_BYTES 65536u
#define LINGER (400 * SML_MS) /* faults go on for so long after a call or a connection */

struct sim_trace {
    char *text, *pending; /* `pending`: what a transaction changes that is on its way */
    size_t used, pending_used;
    uint64_t pending_txn; /* 0: none is */
    uint64_t linger_until, next, conn_no, connects;
    uint32_t listed;
    uint32_t window;
    uint64_t xids[CALLS]; /* by nonce */
    char kinds[CALLS];    /* by xid; the methods' first letters */
    bool over, left;
    bool handler_ran; /* in the open transaction */
};

/* ---- lines --------------------------------------------------------------------------------- */

static void put(char *text, size_t *used, const char *format, va_list args)
{
    int bytes = vsnprintf(text + *used, TEXT_BYTES - *used, format, args);

    SML_ASSERT(bytes >= 0 && (size_t)bytes + 1 < TEXT_BYTES - *used);
    *used += (size_t)bytes;
    text[(*used)++] = '\n';
}

static void SML_PRINTF(2, 3) say(struct sim_world *world, const char *format, ...)
{
    struct sim_trace *trace = world->trace;
    va_list args;

    if (!trace || trace->over)
        return;
    va_start(args, format);
    put(trace->text, &trace->used, format, args);
    va_end(args);
}

static void SML_PRINTF(2, 3) say_later(struct sim_trace *trace, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put(trace->pending, &trace->pending_used, format, args);
    va_end(args);
}

/* The model does not go on from here. */
static void end(struct sim_world *world, const char *why)
{
    say(world, "# %s", why);
    world->trace->over = true;
}

static bool is_on(const struct sim_world *world)
{
    return world->trace && !world->trace->over;
}

/* Of numbers: "1,3", or "-". */
static const char *set_text(uint32_t bits, char out[2 * CALLS + 1])
{
    char *at = out;

    strcpy(out, "-");
    for (uint32_t i = 0; i < CALLS; i++)
        if (bits >> i & 1) {
            if (at != out)
                *at++ = ',';
            *at++ = (char)('1' + i);
            *at = '\0';
        }
    return out;
}

static uint32_t bit_of(struct sim_world *world, uint64_t xid)
{
    if (xid > CALLS)
        end(world, "more calls than the model has");
    return xid > CALLS ? 0 : 1u << (xid - 1);
}

static const char *verdict_text(enum semel_outcome outcome)
{
    static const char *const names[] = { [SEMEL_VALUE] = "value",
                                         [SEMEL_FAILURE] = "value",
                                         [SEMEL_NOT_EXECUTED] = "not-executed",
                                         [SEMEL_UNKNOWN] = "unknown" };

    return names[outcome];
}

/* ---- frames -------------------------------------------------------------------------------- */

static uint32_t ack_bits(struct sim_world *world, const struct sml_ack_frame *ack)
{
    uint32_t bits = 0;

    for (uint32_t i = 0; i < ack->count; i++) {
        struct sml_ack_range range = sml_ack_range(ack, i);

        for (uint32_t k = 0; k < range.count; k++)
            bits |= bit_of(world, range.first + k);
    }
    return bits;
}

static uint32_t list_bits(struct sim_world *world, const struct sml_list_frame *list)
{
    uint32_t bits = 0;

    for (uint32_t i = 0; i < list->count; i++)
        bits |= bit_of(world, sml_list_outstanding(list, i).xid);
    return bits;
}

static void say_hello(struct sim_world *world, uint32_t listed)
{
    struct sim_trace *trace = world->trace;
    char set[2 * CALLS + 1];

    if (trace->conn_no > CONNS)
        end(world, "more connections than the model has");
    say(world, "hello %u next %u list %s", (unsigned)trace->conn_no, (unsigned)trace->next,
        set_text(listed, set));
}

static void call_written(struct sim_world *world, uint64_t xid, const struct sml_call_frame *call)
{
    struct sim_trace *trace = world->trace;

    if (bit_of(world, xid) == 0)
        return;
    if (call->fragment.size != call->body_bytes)
        end(world, "a body in parts");
    say(world, "call %u", (unsigned)xid);
    trace->kinds[xid - 1] = *(const char *)call->method.data;
    trace->linger_until = world->now + LINGER;
}

static void client_wrote(struct sim_world *world, const struct sml_frame *frame)
{
    struct sim_trace *trace = world->trace;
    char set[2 * CALLS + 1];

    switch (frame->type) {
    case SML_HELLO:
        if (frame->u.hello.conn_no <= trace->conn_no)
            end(world, "another session");
        trace->conn_no = frame->u.hello.conn_no;
        trace->next = frame->u.hello.next;
        trace->listed = frame->u.hello.count;
        if (trace->listed == 0)
            say_hello(world, 0);
        break;
    case SML_LIST:
        say_hello(world, list_bits(world, &frame->u.list));
        break;
    case SML_CALL:
        call_written(world, frame->xid, &frame->u.call);
        break;
    case SML_ACK:
        say(world, "ack %s", set_text(ack_bits(world, &frame->u.ack), set));
        break;
    case SML_CANCEL:
        say(world, "cancel %u", (unsigned)frame->xid);
        break;
    case SML_BYE:
        if (frame->u.bye.code == SML_BYE_END)
            end(world, "the client ends its session");
        break;
    default:
        break;
    }
}

static void server_wrote(struct sim_world *world, const struct sim_conn *conn,
                         const struct sml_frame *frame)
{
    switch (frame->type) {
    case SML_WELCOME:
        world->trace->window = frame->u.welcome.window;
        say(world, "welcome %u", (unsigned)conn->peer.session->conn_no);
        break;
    case SML_REPLY:
        if (frame->u.reply.verdict.body.size != frame->u.reply.body_bytes)
            end(world, "a reply in parts");
        say(world, "reply %u %s", (unsigned)frame->xid,
            verdict_text(frame->u.reply.verdict.outcome));
        break;
    case SML_BUSY:
        say(world, "busy %u", (unsigned)frame->xid);
        break;
    case SML_BYE:
        if (frame->u.bye.code == SML_BYE_TAKEN_OVER)
            say(world, "bye overtaken");
        else if (frame->u.bye.code == SML_BYE_PROTOCOL)
            say(world, "bye protocol");
        else if (frame->u.bye.code == SML_BYE_SESSION_LOST)
            end(world, "the session is lost");
        break;
    default:
        break;
    }
}

static void server_read(struct sim_world *world, const struct sml_frame *frame)
{
    char set[2 * CALLS + 1];

    if (frame->type == SML_LIST)
        say(world, "got-list %s", set_text(list_bits(world, &frame->u.list), set));
    else if (frame->type == SML_CALL)
        say(world, "got-call %u", (unsigned)frame->xid);
    else if (frame->type == SML_ACK)
        say(world, "got-ack %s", set_text(ack_bits(world, &frame->u.ack), set));
    else if (frame->type == SML_CANCEL)
        say(world, "got-cancel %u", (unsigned)frame->xid);
}

void sim_trace_written(struct sim_world *world, const struct sim_pipe *pipe, const uint8_t *data,
                       size_t size)
{
    struct sml_frame frame;
    const char *why;
    size_t used;

    while (is_on(world) && size > 0 &&
           sml_frame_decode(data, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why) ==
               SML_DECODED) {
        if (pipe->upward)
            client_wrote(world, &frame);
        else
            server_wrote(world, pipe->conn, &frame);
        data += used;
        size -= used;
    }
}

void sim_trace_read(struct sim_world *world, const uint8_t *data, size_t size)
{
    struct sml_frame frame;
    const char *why;
    size_t used;

    while (is_on(world) && size > 0 &&
           sml_frame_decode(data, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why) ==
               SML_DECODED) {
        server_read(world, &frame);
        data += used;
        size -= used;
    }
}

void sim_trace_hello(struct sim_world *world, const struct sml_hello *hello)
{
    say(world, "got-hello %u", (unsigned)hello->conn_no);
}

/* ---- clients ------------------------------------------------------------------------------- */

void sim_trace_client(struct sim_world *world, struct sim_client *client)
{
    if (!is_on(world) || world->trace->connects == client->link.counters.connects)
        return;
    world->trace->connects = client->link.counters.connects;
    say(world, "up");
    world->trace->linger_until = world->now + LINGER;
    if (world->phase == SIM_LOAD)
        sim_faults_on_submit(world, client);
}

void sim_trace_done(struct sim_world *world, const struct sml_call *call)
{
    if (call->xid != 0)
        say(world, "done %u %s", (unsigned)call->xid, verdict_text(call->verdict.outcome));
}

/* ---- handlers ------------------------------------------------------------------------------ */

void sim_trace_call(struct sim_world *world, const struct sim_job *job, const char *what)
{
    if (!is_on(world))
        return;
    if (job->nonce < CALLS)
        world->trace->xids[job->nonce] = job->in->xid;
    world->trace->handler_ran |= job->kind == SIM_TXN;
    say(world, "%s %u", what, (unsigned)job->in->xid);
}

void sim_trace_finish(struct sim_world *world, const struct sim_job *job,
                      enum semel_outcome outcome)
{
    say(world, "finish %u %s", (unsigned)job->in->xid, verdict_text(outcome));
}

/* ---- stores -------------------------------------------------------------------------------- */

static struct semel_bytes bytes_of(const struct sim_cell *cell)
{
    return semel_bytes(cell->data, cell->bytes);
}

static void session_changed(struct sim_world *world, const struct sim_cell *cell)
{
    struct sml_session_record record;
    char set[2 * CALLS + 1];
    uint32_t open = 0;

    if (!cell) {
        say_later(world->trace, "delete");
        return;
    }
    SML_ASSERT(!sml_session_record_decode(bytes_of(cell), &record));
    for (uint32_t i = 0; i < record.straggler_count; i++)
        open |= bit_of(world, sml_record_straggler(&record, i));
    say_later(world->trace, "put %u base %u open %s", (unsigned)record.conn_no,
              (unsigned)record.base, set_text(open, set));
}

static void call_changed(struct sim_world *world, const struct sim_cell *old,
                         const struct sim_cell *cell)
{
    struct sml_call_record record;
    unsigned xid;

    SML_ASSERT(!sml_call_record_decode(bytes_of(cell ? cell : old), &record));
    xid = (unsigned)record.xid;
    if (!cell)
        say_later(world->trace, "forget %u", xid);
    else if (record.state == SML_CALL_STARTED)
        say_later(world->trace, "start %u", xid);
    else if (record.state == SML_CALL_AGAIN)
        say_later(world->trace, "again %u", xid);
    else
        say_later(world->trace, "ended %u %s", xid, verdict_text(record.verdict.outcome));
}

/* What change `i` of the log has put there: the number of a record that is forgotten may be given
 * to another one in the same transaction. */
static const struct sim_cell *new_of(const struct sim_store *store, uint32_t i)
{
    const struct sim_undo *undo = &store->log[i];

    for (uint32_t k = i + 1; k < store->log_count; k++)
        if (store->log[k].table == undo->table && store->log[k].key == undo->key)
            return store->log[k].old;
    return sim_store_find(store, undo->table, undo->key);
}

void sim_trace_write(struct sim_world *world, const struct sim_store *store)
{
    struct sim_trace *trace = world->trace;
    enum sim_purpose purpose = world->durable->commits[0]->purpose;

    if (!is_on(world))
        return;
    trace->pending_used = 0;
    trace->pending_txn = 0;
    if (purpose != SIM_FOR_CHANGES && purpose != SIM_FOR_CALLS)
        return;
    trace->pending_txn = store->txn;
    for (uint32_t i = store->written; i < store->log_count; i++) {
        const struct sim_undo *undo = &store->log[i];
        const struct sim_cell *cell = new_of(store, i);

        if (undo->table == SIM_TABLE_SESSIONS)
            session_changed(world, cell);
        else if (undo->table == SIM_TABLE_CALLS)
            call_changed(world, undo->old, cell);
        else if (undo->table == SIM_TABLE_EFFECTS && cell && undo->key < CALLS)
            say_later(trace, "effect %u", (unsigned)trace->xids[undo->key]);
    }
}

static void say_stored(struct sim_world *world)
{
    struct sim_trace *trace = world->trace;

    if (trace->pending_used > 0)
        say(world, "%.*s", (int)trace->pending_used - 1, trace->pending);
    say(world, "stored");
}

static void forget_pending(struct sim_trace *trace)
{
    trace->pending_used = 0;
    trace->pending_txn = 0;
    trace->handler_ran = false;
}

/* A transaction that was begun for calls which are no more shows nothing. */
void sim_trace_concluded(struct sim_world *world, enum sml_stored stored)
{
    struct sim_trace *trace = world->trace;
    bool empty;

    if (!is_on(world))
        return;
    empty = trace->pending_used == 0 && !trace->handler_ran &&
            world->durable->commits[0]->part_count == 0;
    if (stored == SML_STORED && !empty)
        say_stored(world);
    else if (stored != SML_STORED && !(empty && stored == SML_NOT_STORED))
        say(world, stored == SML_NOT_STORED ? "not-stored" : "unknown");
    forget_pending(trace);
}

/* ---- servers ------------------------------------------------------------------------------- */

void sim_trace_stop(struct sim_world *world, const struct sim_server *server)
{
    if (!server->commit->broken)
        say(world, "stop");
}

void sim_trace_left(struct sim_world *world)
{
    if (world->trace)
        world->trace->left = true;
}

/* Its store is as the next one will find it. */
void sim_trace_died(struct sim_world *world, const struct sim_server *server)
{
    struct sim_trace *trace = world->trace;
    const struct sim_store *store = server->store;

    if (!is_on(world))
        return;
    if (trace->pending_txn != 0 && (store->synced >= trace->pending_txn ||
                                    (store->unsynced && store->txn == trace->pending_txn)))
        say_stored(world); /* and nobody was told */
    if (!trace->left && !server->commit->broken)
        say(world, "crash");
    say(world, "restore");
    trace->left = false;
    forget_pending(trace);
}

/* ---- the world ----------------------------------------------------------------------------- */

bool sim_trace_lingers(const struct sim_world *world)
{
    return is_on(world) && world->now < world->trace->linger_until;
}

static const char *kind_text(char letter)
{
    switch (letter) {
    case 'i':
        return "idempotent";
    case 'r':
        return "rerun";
    case 't':
        return "transactional";
    default:
        return "once";
    }
}

static void write_file(const struct sim_world *world)
{
    static const char hidden[] = "hides cut-client 20\nhides cut-server 20\nhides eof\nhides lost\n"
                                 "hides want 3\nhides give-up 3\nhides late 3\nhides outrun 3\n"
                                 "hides full 250\nhides read-busy\n";
    const struct sim_trace *trace = world->trace;
    char path[1024];
    FILE *file;

    snprintf(path, sizeof path, "%s/%llu.trace", world->options->trace,
             (unsigned long long)world->seed);
    file = fopen(path, "w");
    SML_ASSERT(file);
    fputs("calls", file);
    for (uint32_t i = 0; i < CALLS && (i == 0 || trace->kinds[i]); i++)
        fprintf(file, " %s", kind_text(trace->kinds[i]));
    fprintf(file, "\nwindow %u\n%s%s",
            trace->window < CALLS ? trace->window + !trace->window : CALLS,
            world->durable ? "" : "memory\n", hidden);
    fwrite(trace->text, 1, trace->used, file);
    fclose(file);
}

uint64_t sim_trace_menu(const struct sim_world *world, uint64_t menu)
{
    static const uint8_t not_modelled[] = {
        SIM_SLOW_LINK,        SIM_DUPLICATE,      SIM_OUTAGE,          SIM_SERVER_MEMORY,
        SIM_CLIENT_MEMORY,    SIM_CLIENT_STOP,    SIM_CLIENT_CRASH,    SIM_FAILING_HANDLER,
        SIM_NO_METHOD,        SIM_RERUN_OK,       SIM_TOO_LARGE,       SIM_LATE_ACCEPT,
        SIM_REFUSE_WHEN_FULL, SIM_BIG_BODIES,     SIM_OLD_COPY,        SIM_RENEWED_COPY,
        SIM_CLOCK_STEP,       SIM_SAVE_FAILS,     SIM_CRASH_RESOLVE,   SIM_KEYS,
        SIM_SAME_KEY,         SIM_OTHER_CONTENTS, SIM_SHORT_RETENTION, SIM_OUTBOX,
        SIM_SLOW_SAVE,        SIM_SMALL_BATCHES,  SIM_STREAMS,         SIM_SLOW_READER,
    };

    if (!world->options->trace)
        return menu;
    for (size_t i = 0; i < sizeof not_modelled; i++)
        menu &= ~SIM_BIT(not_modelled[i]);
    if (!sim_has_stores(world->options)) /* whose servers lose their sessions with themselves */
        menu &= ~(SIM_BIT(SIM_RESTART) | SIM_BIT(SIM_SHUTDOWN));
    return menu;
}

void sim_trace_begin(struct sim_world *world)
{
    struct sim_params *params = &world->params;
    struct sim_rng *rng = &world->load;

    if (!world->options->trace)
        return;
    SML_ASSERT(world->calls <= CALLS);
    world->trace = calloc(1, sizeof *world->trace);
    SML_ASSERT(world->trace);
    world->trace->text = malloc(TEXT_BYTES);
    world->trace->pending = malloc(TEXT_BYTES);
    SML_ASSERT(world->trace->text && world->trace->pending);
    params->clients = params->servers = params->addresses = 1;
    params->target = CALLS;
    params->batch = 1 + (uint32_t)sim_below(rng, 2);
    params->gap = sim_between(rng, 1, 50) * SML_MS;
    params->calls_per_fault = 1;
    params->pipe_bytes = 256u << 10;
    params->link.addresses = 1;
    params->link.window = (uint32_t)sim_between(rng, 1, CALLS);
    params->host.limits.session_bytes = 200 * params->host.limits.body_bytes;
}

/* All is settled: every call has its verdict, and all is forgotten. */
void sim_trace_quiet(struct sim_world *world)
{
    if (is_on(world) && world->clients[0].alive && world->clients[0].link.state == SML_LINK_UP &&
        world->trace->kinds[0])
        say(world, "quiet");
    if (world->trace)
        world->trace->over = true;
}

void sim_trace_end(struct sim_world *world)
{
    if (!world->trace)
        return;
    write_file(world);
    free(world->trace->text);
    free(world->trace->pending);
    free(world->trace);
    world->trace = NULL;
}
