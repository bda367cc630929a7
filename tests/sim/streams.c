/* SPDX-License-Identifier: MIT */
/* streams.c - calls whose parts flow: both ends of each stream, and what is read of it. See sim.h.
 *
 * A part says whose it is, which of its stream, and of which run of the handler; the rest of its
 * bytes follows from that. So whatever a reader has put together must be the beginning of what one
 * run said, or of what the caller said, without a gap, a repetition or a splice; and where the end
 * was told and the call has a value, it must be all of it. That no sender exceeds its credit is
 * seen to by the machines themselves, each by the other.
 *
 * A handler with streams answers when it has read and said everything. Some readers, at either end,
 * take their time; some do not read at all for long. */
#include "durable.h"

#include <string.h>

#define PART_HEAD 12
#define PATIENCE (100 * SML_SECOND) /* of a handler whose caller may be gone for ever */

/* ---- what is asked for --------------------------------------------------------------------- */

static uint8_t draw_count(struct sim_rng *rng, bool big)
{
    if (sim_chance(rng, 6))
        return 0;
    return (uint8_t)(1 + sim_below(rng, sim_chance(rng, 8) || big ? 40 : 5));
}

void sim_flow_plan(struct sim_world *world, struct sim_row *row)
{
    struct sim_rng *rng = &world->load;
    struct sim_flow_plan *plan = &row->flow;
    uint64_t ways;

    if (!sim_on(world, SIM_STREAMS) || !sim_chance(rng, 8))
        return;
    ways = 1 + sim_below(rng, 3);
    plan->sends = (ways & 1) != 0;
    plan->takes = (ways & 2) != 0;
    plan->big = sim_on(world, SIM_BIG_BODIES) && sim_chance(rng, 8);
    plan->up = plan->sends ? draw_count(rng, plan->big) : 0;
    plan->down = plan->takes ? draw_count(rng, plan->big) : 0;
    plan->progress = plan->takes && sim_chance(rng, 4);
    plan->slow_caller = sim_on(world, SIM_SLOW_READER) && plan->takes && sim_chance(rng, 3);
    plan->slow_handler = sim_on(world, SIM_SLOW_READER) && plan->sends && sim_chance(rng, 3);
}

/* Transactional handlers have no streams. Where everything must have a value nothing may depend on
 * parts that die with a server; nor where somebody else may ask for what a call did. */
void sim_flow_plan_durable(const struct sim_world *world, struct sim_row *row,
                           const struct sim_row *first)
{
    if (row->kind == SIM_TXN || row->durable.mixed)
        memset(&row->flow, 0, sizeof row->flow);
    else if (first != row)
        row->flow = first->flow;
    if (row->durable.keyed || world->options->mode == SIM_STEADY) {
        row->flow.sends = false;
        row->flow.up = 0;
    }
}

void sim_flow_count(struct sim_world *world, const struct sim_row *row)
{
    world->stats->faults[SIM_STREAMS] += row->flow.sends || row->flow.takes;
    world->stats->faults[SIM_SLOW_READER] += row->flow.slow_caller || row->flow.slow_handler;
}

/* ---- parts --------------------------------------------------------------------------------- */

static uint64_t mixed(const struct sim_world *world, uint32_t nonce, bool up, uint32_t number)
{
    return sim_mix(world->seed ^ sim_mix((uint64_t)nonce << 32 | number << 1 | up));
}

static size_t part_bytes(const struct sim_world *world, uint32_t nonce, bool up, uint32_t number)
{
    uint64_t drawn = mixed(world, nonce, up, number);

    if (!world->rows[nonce].flow.big)
        return PART_HEAD + drawn % 100;
    return drawn % 4 == 0 ? SML_FRAGMENT_BYTES : PART_HEAD + (drawn >> 8) % 30000;
}

static const uint8_t *part_rest(const struct sim_world *world, uint32_t nonce, bool up,
                                uint32_t number)
{
    return world->pool + mixed(world, nonce, up, number) % SIM_POOL_HOT;
}

static enum sml_part_kind part_kind(const struct sim_world *world, uint32_t nonce, bool up,
                                    uint32_t number)
{
    return mixed(world, nonce, up, number) >> 60 ? SML_PART_ITEM : SML_PART_PIECE;
}

static struct sml_part *make(struct sim_world *world, const struct sml_mem *mem, uint32_t nonce,
                             bool up, uint32_t run, uint32_t number)
{
    static uint8_t bytes[SML_FRAGMENT_BYTES];
    const uint32_t head[3] = { nonce, number, run };
    size_t size = part_bytes(world, nonce, up, number);

    memcpy(bytes, head, sizeof head);
    memcpy(bytes + PART_HEAD, part_rest(world, nonce, up, number), size - PART_HEAD);
    return sml_part_create(mem, part_kind(world, nonce, up, number), semel_bytes(bytes, size));
}

/* Is it the next one? *run is 0 until the first has said it. */
static void check(struct sim_world *world, const struct sml_part *part, uint32_t nonce, bool up,
                  uint32_t number, uint32_t *run)
{
    const char *reader = up ? "handler" : "caller";
    uint32_t head[3];

    SML_ASSERT(part->size >= PART_HEAD);
    memcpy(head, part->bytes, sizeof head);
    sim_note(world, (uint64_t)head[2] << 32 | head[1]);
    if (head[0] != nonce)
        sim_fail(world, "the %s of call %u got a part of call %u", reader, nonce, head[0]);
    else if (head[1] != number || part->number != number)
        sim_fail(world, "the %s of call %u got part %u as part %u", reader, nonce, head[1], number);
    else if (*run != 0 && *run != head[2])
        sim_fail(world, "SPLICED: the %s of call %u got part %u of run %u behind one of run %u",
                 reader, nonce, number, head[2], *run);
    else if (part->kind != part_kind(world, nonce, up, number) ||
             part->size != part_bytes(world, nonce, up, number) ||
             memcmp(part->bytes + PART_HEAD, part_rest(world, nonce, up, number),
                    part->size - PART_HEAD) != 0)
        sim_fail(world, "MISMATCH: part %u of call %u is not what was sent", number, nonce);
    *run = head[2];
}

/* How many parts a reader takes now. */
static uint32_t appetite(struct sim_world *world, bool slow, uint64_t read_at)
{
    if (!slow || world->phase != SIM_LOAD)
        return UINT32_MAX;
    return world->now < read_at ? 0 : 1 + (uint32_t)sim_below(&world->load, 4);
}

static uint64_t next_meal(struct sim_world *world)
{
    struct sim_rng *rng = &world->load;

    return world->now + 1 + sim_below(rng, sim_chance(rng, 20) ? 10 * SML_SECOND : 100 * SML_MS);
}

/* ---- the caller ---------------------------------------------------------------------------- */

static bool proves_nothing(const struct sim_world *world, const struct sim_slot *slot)
{
    const struct sim_row *row = &world->rows[slot->nonce];

    return row->dirty || world->clients[row->client].dirty;
}

static uint32_t contents_of(const struct sim_world *world, uint32_t nonce)
{
    return world->durable ? world->rows[nonce].durable.contents : nonce;
}

static void take_progress(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    struct sim_flow *flow = &slot->flow;
    struct sml_part *part = sml_inflow_take_progress(&flow->stream.in);
    uint32_t head[3];

    if (!part)
        return;
    if (part->size == sizeof head && !proves_nothing(world, slot)) {
        memcpy(head, part->bytes, sizeof head);
        if (head[0] != contents_of(world, slot->nonce) || (flow->run && flow->run != head[2]) ||
            head[1] < flow->progress)
            sim_fail(world, "call %u went back from %u to %u, or to another run", slot->nonce,
                     flow->progress, head[1]);
        flow->run = head[2];
        flow->progress = head[1];
    }
    sml_release(&client->arena.mem, part);
}

/* Returns whether anything was taken. */
static bool read_parts(struct sim_world *world, struct sim_client *client, struct sim_slot *slot,
                       uint32_t most)
{
    struct sim_flow *flow = &slot->flow;
    struct sml_part *part;
    bool any = false;

    if (flow->stream.in.attempt != flow->attempt) {
        sim_mark(world, SIM_MARK_STREAM_AGAIN);
        flow->attempt = flow->stream.in.attempt;
        flow->got = flow->run = flow->progress = 0;
    }
    take_progress(world, client, slot);
    while (most-- > 0 && (part = sml_inflow_take(&flow->stream.in)) != NULL) {
        if (flow->got == 0)
            flow->losses = client->link.counters.lost;
        if (!proves_nothing(world, slot))
            check(world, part, contents_of(world, slot->nonce), false, flow->got, &flow->run);
        flow->got++;
        sml_release(&client->arena.mem, part);
        any = true;
    }
    return any;
}

static void caller_reads(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    const struct sim_row *row = &world->rows[slot->nonce];
    struct sim_flow *flow = &slot->flow;

    if (read_parts(world, client, slot, appetite(world, row->flow.slow_caller, flow->read_at)))
        sml_caller_took_parts(&client->link.caller, &slot->call);
    if (sml_list_empty(&flow->stream.in.parts))
        return;
    if (flow->read_at <= world->now) {
        flow->read_at = next_meal(world);
        flow->others = world->done;
    }
    sim_by(world, &flow->event, flow->read_at);
}

static void caller_sends(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    const struct sim_row *row = &world->rows[slot->nonce];
    struct sml_caller *caller = &client->link.caller;
    struct sim_flow *flow = &slot->flow;

    while (flow->sent < row->flow.up && sml_stream_has_room(&flow->stream)) {
        struct sml_part *part =
            make(world, &client->arena.mem, contents_of(world, slot->nonce), true, 1, flow->sent);

        if (!part) {
            sim_by(world, &flow->event, world->now + 10 * SML_MS);
            return;
        }
        flow->sent++;
        if (!sml_caller_send_part(caller, &slot->call, part))
            return;
        if (sim_chance(&world->load, 8)) { /* it has to think about the next */
            sim_by(world, &flow->event, world->now + sim_below(&world->load, 5 * SML_MS));
            return;
        }
    }
    if (flow->sent == row->flow.up && !flow->told_end) {
        sml_caller_end_parts(caller, &slot->call);
        flow->told_end = true;
    }
}

static void caller_step(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    if (slot->call.phase == SML_CALL_DONE)
        return;
    if (slot->flow.stream.sends)
        caller_sends(world, client, slot);
    if (slot->flow.stream.takes)
        caller_reads(world, client, slot);
}

static void caller_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_flow *flow = SML_CONTAINER(event, struct sim_flow, event);
    struct sim_slot *slot = SML_CONTAINER(flow, struct sim_slot, flow);
    struct sim_client *client = flow->client;

    if (flow->others != 0 && world->done > flow->others)
        sim_mark(world, SIM_MARK_OTHERS_WENT_ON);
    caller_step(world, client, slot);
    sim_client_pump(world, client);
}

void sim_flow_open(struct sim_world *world, struct sim_slot *slot)
{
    const struct sim_row *row = &world->rows[slot->nonce];

    if (!row->flow.sends && !row->flow.takes)
        return;
    memset(&slot->flow, 0, sizeof slot->flow);
    sim_event_init(&slot->flow.event, caller_fire);
    sml_stream_init(&slot->flow.stream, row->flow.sends, row->flow.takes);
    slot->call.stream = &slot->flow.stream;
}

void sim_flow_submitted(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    if (!slot->call.stream)
        return;
    slot->flow.client = client;
    if (world->rows[slot->nonce].flow.slow_caller)
        slot->flow.read_at = next_meal(world);
    if (slot->call.phase != SML_CALL_DONE)
        sim_by(world, &slot->flow.event, world->now);
}

void sim_flow_events(struct sim_world *world, struct sim_client *client)
{
    struct sml_call *call;

    while ((call = sml_caller_next_event(&client->link.caller)) != NULL)
        caller_step(world, client, SML_CONTAINER(call, struct sim_slot, call));
}

/* A value that comes without the end of its stream needs a cause. */
static bool may_lack_its_end(const struct sim_world *world, const struct sim_row *row)
{
    if (row->cancelled_at != SML_NEVER || world->now >= row->deadline)
        return true;
    if (!world->durable)
        return false;
    if (row->durable.keyed || row->durable.withdrawn)
        return true;
    for (uint32_t i = 0; i < world->params.servers; i++)
        if (world->servers[i].died_at != SML_NEVER && world->servers[i].died_at >= row->submitted)
            return true;
    return false;
}

void sim_flow_done(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    const struct sim_row *row = &world->rows[slot->nonce];
    struct sim_flow *flow = &slot->flow;

    if (!slot->call.stream)
        return;
    (void)read_parts(world, client, slot, UINT32_MAX);
    if (slot->call.verdict.outcome == SEMEL_VALUE && row->flow.takes &&
        !proves_nothing(world, slot)) {
        uint32_t all = world->rows[contents_of(world, slot->nonce)].flow.down;

        if (flow->stream.in.ended && flow->got != all)
            sim_fail(world, "LOST: call %u has a value, and %u of %u parts", slot->nonce, flow->got,
                     all);
        if (!flow->stream.in.ended && !may_lack_its_end(world, row))
            sim_fail(world, "call %u has a value, and no end of its stream, without a cause",
                     slot->nonce);
        sim_mark(world, flow->stream.in.ended ? SIM_MARK_STREAM_WHOLE : SIM_MARK_STREAM_CUT);
        if (flow->got > 0 && client->link.counters.lost != flow->losses)
            sim_mark(world, SIM_MARK_STREAM_RESUMED);
    }
    sim_flow_close(world, slot);
    sml_stream_clear(&flow->stream, &client->arena.mem);
    slot->call.stream = NULL;
}

void sim_flow_close(struct sim_world *world, struct sim_slot *slot)
{
    if (slot->call.stream)
        sim_off(world, &slot->flow.event);
}

/* ---- the handler --------------------------------------------------------------------------- */

static const struct sim_flow_plan *plan_of(const struct sim_world *world, const struct sim_job *job)
{
    return &world->rows[job->nonce].flow;
}

static bool has_read_all(const struct sim_job *job)
{
    return !job->in->stream->takes || sml_inflow_is_at_end(&job->in->stream->in);
}

bool sim_flow_is_complete(const struct sim_world *world, const struct sim_job *job)
{
    return !job->flow.active || (has_read_all(job) && job->flow.sent >= plan_of(world, job)->down);
}

static void handler_reads(struct sim_world *world, struct sim_job *job)
{
    struct sml_callee *callee = &job->session->session->callee;
    struct sml_inflow *in = &job->in->stream->in;
    struct sim_job_flow *flow = &job->flow;
    uint32_t most = appetite(world, plan_of(world, job)->slow_handler, flow->read_at);
    struct sml_part *part;
    bool any = false;

    while (most-- > 0 && (part = sml_inflow_take(in)) != NULL) {
        uint32_t run = 0;

        if (!world->rows[job->nonce].dirty)
            check(world, part, job->nonce, true, flow->got, &run);
        flow->got++;
        sml_release(callee->mem, part);
        any = true;
    }
    if (any)
        sml_callee_took_parts(callee, job->in);
    if (sml_inflow_is_at_end(in) && flow->got != plan_of(world, job)->up &&
        !world->rows[job->nonce].dirty)
        sim_fail(world, "LOST: the handler of call %u was told the end after %u of %u parts",
                 job->nonce, flow->got, plan_of(world, job)->up);
    if (sml_list_empty(&in->parts))
        return;
    if (flow->read_at <= world->now)
        flow->read_at = next_meal(world);
    sim_by(world, &flow->event, flow->read_at);
}

static void say_progress(struct sim_world *world, struct sim_job *job)
{
    const uint32_t head[3] = { job->nonce, job->flow.sent, job->flow.run };
    struct sml_callee *callee = &job->session->session->callee;
    struct sml_part *part =
        sml_part_create(callee->mem, SML_PART_PROGRESS, semel_bytes(head, sizeof head));

    if (part && plan_of(world, job)->progress)
        (void)sml_callee_send_part(callee, job->in, part);
    else
        sml_release(callee->mem, part);
}

/* `all`: it does not wait for room. */
static void handler_sends(struct sim_world *world, struct sim_job *job, bool all)
{
    struct sml_callee *callee = &job->session->session->callee;
    struct sim_job_flow *flow = &job->flow;

    while (flow->sent < plan_of(world, job)->down &&
           (all || sml_stream_has_room(job->in->stream))) {
        struct sml_part *part = make(world, callee->mem, job->nonce, false, flow->run, flow->sent);

        if (!part) {
            sim_by(world, &flow->event, world->now + 10 * SML_MS);
            return;
        }
        flow->sent++;
        if (!sml_callee_send_part(callee, job->in, part)) {
            flow->sent = UINT32_MAX; /* nobody wants them any more */
            return;
        }
        say_progress(world, job);
        if (!all && sim_chance(&world->load, 8)) {
            sim_by(world, &flow->event, world->now + sim_below(&world->load, 5 * SML_MS));
            return;
        }
    }
}

static void finish_soon(struct sim_world *world, struct sim_job *job, uint64_t within)
{
    job->flow.done = true;
    sim_off(world, &job->flow.event);
    sim_at(world, &job->finish, world->now + within);
}

static bool is_patient(const struct sim_world *world)
{
    return world->options->mode == SIM_CALM || world->options->mode == SIM_STEADY;
}

void sim_flow_job(struct sim_world *world, struct sim_job *job)
{
    struct sim_job_flow *flow = &job->flow;
    uint32_t moved = flow->sent + flow->got;

    if (!job->running || !flow->active || flow->done)
        return;
    if (job->in->stream->takes)
        handler_reads(world, job);
    if (job->in->stream->sends)
        handler_sends(world, job, false);
    sim_server_mark(job->session->server, job->session);
    if (world->rows[job->nonce].behaviour != SIM_DO_REPLY)
        return; /* it ends when it likes */
    if (sim_flow_is_complete(world, job)) {
        finish_soon(world, job, world->rows[job->nonce].run);
        return;
    }
    if (moved != flow->sent + flow->got)
        flow->moved_at = world->now;
    if (is_patient(world))
        return;
    if (world->now >= flow->moved_at + PATIENCE)
        finish_soon(world, job, 0);
    else
        sim_by(world, &flow->event, flow->moved_at + PATIENCE);
}

static void handler_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_job *job = SML_CONTAINER(event, struct sim_job, flow.event);
    struct sim_server *server = job->session->server;

    sim_flow_job(world, job);
    sim_server_pump(world, server);
}

void sim_flow_init(struct sim_job *job)
{
    memset(&job->flow, 0, sizeof job->flow);
    sim_event_init(&job->flow.event, handler_fire);
}

/* Its handler has begun. Returns whether it ends by its streams. */
bool sim_flow_begin(struct sim_world *world, struct sim_job *job)
{
    struct sml_stream *stream = job->in->stream;
    const struct sim_flow_plan *plan = plan_of(world, job);

    if (!job->known || !stream || world->rows[job->nonce].dirty)
        return false;
    if (stream->takes != plan->sends || stream->sends != plan->takes) {
        sim_fail(world, "call %u arrives with other streams than it had", job->nonce);
        return false;
    }
    job->flow.active = true;
    job->flow.run = ++world->flow_runs;
    job->flow.moved_at = world->now;
    if (plan->slow_handler)
        job->flow.read_at = next_meal(world);
    sim_flow_job(world, job);
    return world->rows[job->nonce].behaviour == SIM_DO_REPLY;
}

/* It is told to stop: what it has to say it says at once; it waits for nothing more. */
void sim_flow_cancelled(struct sim_world *world, struct sim_job *job)
{
    if (!job->flow.active || job->flow.done || world->rows[job->nonce].behaviour != SIM_DO_REPLY)
        return;
    if (job->in->stream->sends && has_read_all(job))
        handler_sends(world, job, true);
    finish_soon(world, job, sim_below(&world->load, 50 * SML_MS));
}

void sim_flows_pump(struct sim_world *world, struct sim_session *info)
{
    struct sml_incoming *in;

    while ((in = sml_callee_next_event(&info->session->callee)) != NULL)
        sim_flow_job(world, in->user);
}
