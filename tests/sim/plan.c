/* SPDX-License-Identifier: MIT */
/* plan.c - what each call asks for: its bytes, its handler's behaviour, its deadline. See sim.h.
 *
 * A call's number, its nonce, travels as application data, in the method's name or in the content
 * type; its body and its reply follow from it. */
#include "durable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char behaviour_letters[] = "vfdhxn";
static const char kind_letters[] = "oirst";

const uint8_t *sim_bytes(const struct sim_world *world, uint32_t nonce, enum sim_what what,
                         size_t bytes)
{
    uint64_t mixed = sim_mix(world->seed ^ ((uint64_t)nonce << 8 | (uint64_t)what));

    if (what == SIM_TEXT || what == SIM_TRACE)
        return world->text + mixed % SIM_TEXT_POOL;
    if (bytes > 4096)
        return world->pool + SIM_POOL_HOT + mixed % SIM_BODY_MAX;
    return world->pool + mixed % SIM_POOL_HOT;
}

struct sim_failure_shape sim_failure_shape(const struct sim_world *world, uint32_t nonce)
{
    uint64_t mixed = sim_mix(world->seed + nonce * UINT64_C(77));
    bool rich = mixed % 16 == 0;
    struct sim_failure_shape shape = {
        .code = (int32_t)(mixed >> 32),
        .text = (uint32_t)((mixed >> 8) % (rich ? SEMEL_TEXT_BYTES + 1 : 40)),
        .detail = rich ? (uint32_t)((mixed >> 16) % (SEMEL_DETAIL_BYTES + 1)) : 0,
        .trace = rich ? (uint32_t)((mixed >> 24) % (SEMEL_TRACE_BYTES + 1)) : 0,
    };

    return shape;
}

static uint32_t draw_size(struct sim_world *world)
{
    struct sim_rng *rng = &world->load;

    if (sim_chance(rng, world->params.big_in))
        return (uint32_t)sim_below(rng, sim_chance(rng, 2) ? SIM_BODY_MAX + 1 : 70000);
    if (sim_chance(rng, 8))
        return (uint32_t)sim_below(rng, 4);
    return (uint32_t)sim_below(rng, 200);
}

static void plan_behaviour(struct sim_world *world, struct sim_row *row)
{
    struct sim_rng *rng = &world->load;

    row->behaviour = SIM_DO_REPLY;
    row->run = sim_on(world, SIM_SLOW_HANDLER) && sim_chance(rng, 4)
                   ? sim_below(rng, sim_chance(rng, 10) ? SML_SECOND : 5 * SML_MS)
                   : 0;
    if (sim_on(world, SIM_FAILING_HANDLER) && sim_chance(rng, 8))
        row->behaviour = SIM_DO_FAIL;
    else if (sim_on(world, SIM_DROPPED_REQUEST) && sim_chance(rng, 50))
        row->behaviour = SIM_DO_DROP;
    else if (sim_on(world, SIM_NO_METHOD) && sim_chance(rng, 50))
        row->behaviour = SIM_DO_NO_METHOD;
    else if (sim_on(world, SIM_HANGING_HANDLER) && sim_chance(rng, 100))
        row->behaviour = SIM_DO_HANG;
    else if (sim_on(world, SIM_DEAF_HANDLER) && sim_chance(rng, 200))
        row->behaviour = SIM_DO_DEAF;
    if (row->behaviour == SIM_DO_HANG || row->behaviour == SIM_DO_DEAF)
        row->run = sim_between(rng, 2, 40) * SML_SECOND;
    row->max_run = sim_on(world, SIM_MAX_RUN) && sim_chance(rng, 3)
                       ? sim_between(rng, 1, 5 * SML_SECOND)
                       : SML_NEVER;
    row->effect_late = row->run && sim_chance(rng, 2);
}

static void plan_deadline(struct sim_world *world, struct sim_row *row)
{
    struct sim_rng *rng = &world->load;

    row->deadline = world->params.no_deadlines ? SML_NEVER : world->now + world->params.deadline;
    if (sim_on(world, SIM_SHORT_DEADLINE) && sim_chance(rng, 12))
        row->deadline = world->now + sim_below(rng, 30 * SML_MS);
    if (sim_on(world, SIM_PAST_DEADLINE) && sim_chance(rng, 100))
        row->deadline = world->now - sim_below(rng, SML_SECOND);
}

void sim_row_plan(struct sim_world *world, uint32_t nonce)
{
    struct sim_row *row = &world->rows[nonce];
    struct sim_rng *rng = &world->load;

    row->submitted = world->now;
    row->cancelled_at = SML_NEVER;
    row->body_bytes = draw_size(world);
    if (row->body_bytes > world->params.host.limits.body_bytes)
        row->body_bytes = (uint32_t)world->params.host.limits.body_bytes;
    if (sim_on(world, SIM_TOO_LARGE) && sim_chance(rng, 500))
        row->body_bytes = (uint32_t)world->params.host.limits.body_bytes + 1;
    row->reply_bytes = draw_size(world);
    row->kind = sim_chance(rng, 4) ? SIM_IDEMPOTENT : SIM_ONCE;
    if (sim_on(world, SIM_RERUN_OK) && sim_chance(rng, row->kind == SIM_IDEMPOTENT ? 2 : 100))
        row->call_flags |= SML_CALL_RERUN_OK;
    if (sim_on(world, SIM_REFUSE_WHEN_FULL) && sim_chance(rng, 8))
        row->call_flags |= SML_CALL_REFUSE_WHEN_FULL;
    row->in_content_type = sim_chance(rng, 2);
    plan_behaviour(world, row);
    plan_deadline(world, row);
    sim_flow_plan(world, row);
}

void sim_row_count(struct sim_world *world, const struct sim_row *row)
{
    uint64_t *faults = world->stats->faults;

    faults[SIM_PAST_DEADLINE] += row->deadline <= row->submitted;
    faults[SIM_SHORT_DEADLINE] +=
        row->deadline > row->submitted && row->deadline <= row->submitted + 30 * SML_MS;
    faults[SIM_RERUN_OK] += (row->call_flags & SML_CALL_RERUN_OK) != 0;
    faults[SIM_REFUSE_WHEN_FULL] += (row->call_flags & SML_CALL_REFUSE_WHEN_FULL) != 0;
    faults[SIM_TOO_LARGE] += row->body_bytes > world->params.host.limits.body_bytes;
    faults[SIM_BIG_BODIES] +=
        row->body_bytes > SML_FRAGMENT_BYTES || row->reply_bytes > SML_FRAGMENT_BYTES;
    sim_flow_count(world, row);
    if (world->durable)
        sim_judge_count(world, row);
}

uint8_t sim_row_name(const struct sim_row *row, uint32_t nonce, char method[16], char type[12])
{
    static const char digits[] = "0123456789abcdef";
    char *out = method;

    *out++ = kind_letters[row->kind];
    *out++ = behaviour_letters[row->behaviour];
    *out = '\0';
    type[0] = '\0';
    if (row->in_content_type)
        out = type;
    for (int shift = 28; shift >= 0; shift -= 4)
        *out++ = digits[nonce >> shift & 15];
    *out = '\0';
    return row->in_content_type ? 2 : 10;
}

void sim_slot_fill(struct sim_world *world, struct sim_slot *slot, uint32_t nonce)
{
    const struct sim_row *row = &world->rows[nonce];
    struct sml_call *call = &slot->call;
    uint32_t contents = world->durable ? row->durable.contents : nonce;
    const void *body = sim_bytes(world, contents, SIM_BODY, row->body_bytes);

    slot->nonce = nonce;
    memset(call, 0, sizeof *call);
    call->method_bytes = sim_row_name(row, contents, slot->method, slot->content_type);
    call->content_type_bytes = row->in_content_type ? 8 : 0;
    if (world->params.exact) {
        slot->copy = malloc(row->body_bytes + !row->body_bytes);
        SML_ASSERT(slot->copy);
        body = memcpy(slot->copy, body, row->body_bytes);
    }
    call->method = slot->method;
    call->content_type = slot->content_type;
    call->body = body;
    call->body_bytes = row->body_bytes;
    call->deadline = row->deadline;
    call->flags = row->call_flags;
    sim_flow_open(world, slot);
    if (!world->durable || !row->durable.keyed)
        return;
    call->key = slot->key;
    call->key_bytes = (uint8_t)snprintf(slot->key, sizeof slot->key, "k%x", row->durable.unit);
}
