/* SPDX-License-Identifier: MIT */
/* gather.c - one deferred out of several.
 *
 * The record lies beside the outer deferred, and has a reference to it for as long as a member is
 * under way; a member is held by whoever will fire it, and by nobody here. So a member that all
 * others let go ends as DROPPED, and nothing waits for it in silence. All memory that results need
 * is there from the start: what comes later cannot fail.
 *
 * A value moves from its member into the results as long as they are open; then, and when the rest
 * does not count, it stays where it is. A failure is copied: its member has it still, and reports
 * it, unless failures are consumed. */
#include "async/deferred.h"
#include "base/check.h"
#include "base/text.h"

struct results {
    const struct sml_mem *mem;
    struct semel_gathered gathered;
    struct semel_fired list[];
};

struct member {
    struct sml_step step;
    struct gather *gather;
    struct semel_deferred *deferred; /* no reference; NULL: it has its result */
};

struct gather {
    struct semel_deferred *out;
    struct results *results; /* NULL: decided */
    enum semel_gather_mode mode;
    bool consume;
    bool adding; /* semel_deferred_gather is not done yet */
    size_t left; /* members without a result */
    size_t count;
    struct member members[];
};

static void drop_gathered(void *value)
{
    struct results *results = SML_CONTAINER(value, struct results, gathered);

    for (size_t i = 0; i < results->gathered.count; i++)
        semel_fired_clear(&results->list[i]);
    sml_release(results->mem, results);
}

static struct results *new_results(const struct sml_mem *mem, size_t count)
{
    const size_t room = count ? count : 1;
    struct results *results = sml_alloc(mem, sizeof *results + room * sizeof(struct semel_fired));

    if (!results)
        return NULL;
    results->mem = mem;
    results->gathered = (struct semel_gathered){ count, 0, results->list };
    for (size_t i = 0; i < room; i++)
        sml_fired_init(&results->list[i]);
    return results;
}

/* A value moves, also one beside a failure; of the failure itself there are two then. */
static void take(struct semel_fired *to, struct semel_fired *fired)
{
    if (fired->status == SEMEL_OK) {
        sml_fired_move(to, fired);
        return;
    }
    *to = *fired;
    fired->value = NULL;
    fired->drop = NULL;
}

/* --- deciding ----------------------------------------------------------------------------- */

/* The outer deferred has its result: the gathered ones beside the status of `fired`. Nothing is
 * moved into them from here on. Whoever has the outer deferred may have fired it: then they go. */
static void decide(struct gather *gather, struct semel_fired *fired)
{
    fired->value = &gather->results->gathered;
    fired->drop = drop_gathered;
    gather->results = NULL;
    (void)sml_deferred_fire_with(gather->out, fired);
}

static void decide_all(struct gather *gather)
{
    struct semel_fired fired;

    sml_fired_init(&fired);
    decide(gather, &fired);
}

/* With one result, the first of the list; those that were kept there go. */
static void decide_one(struct gather *gather, const struct member *member,
                       struct semel_fired *result)
{
    struct semel_gathered *gathered = &gather->results->gathered;

    for (size_t i = 0; i < gathered->count; i++)
        semel_fired_clear(&gathered->results[i]);
    take(&gathered->results[0], result);
    gathered->count = 1;
    gathered->index = (size_t)(member - gather->members);
    decide_all(gather);
}

static void decide_failed(struct gather *gather, struct semel_fired *first)
{
    struct results *results = gather->results;
    struct semel_fired fired;

    take(&fired, first);
    gather->results = NULL;
    (void)sml_deferred_fire_with(gather->out, &fired);
    drop_gathered(&results->gathered);
}

static void decide_all_failed(struct gather *gather)
{
    struct semel_fired fired;
    char words[SEMEL_FIRED_TEXT_BYTES];
    struct sml_text text;

    sml_text_init(&text, words, sizeof words);
    sml_text_add(&text, "all ");
    sml_text_add_u64(&text, gather->count);
    sml_text_add(&text, " failed");
    sml_fired_fail(&fired, SEMEL_FAILED, 0, words);
    decide(gather, &fired);
}

/* A result while nothing is decided. */
static void count_in(struct gather *gather, const struct member *member, struct semel_fired *result)
{
    const bool is_value = result->status == SEMEL_OK;

    if (gather->mode == SEMEL_GATHER_ANY_RESULT ||
        (gather->mode == SEMEL_GATHER_FIRST && is_value)) {
        decide_one(gather, member, result);
    } else if (gather->mode == SEMEL_GATHER_VALUES && !is_value) {
        decide_failed(gather, result);
    } else {
        take(&gather->results->list[member - gather->members], result);
        if (gather->left > 0)
            return;
        if (gather->mode == SEMEL_GATHER_FIRST)
            decide_all_failed(gather);
        else
            decide_all(gather);
    }
}

/* --- members ------------------------------------------------------------------------------ */

static void cancel_members(struct gather *gather)
{
    for (size_t i = 0; i < gather->count; i++)
        if (gather->members[i].deferred)
            (void)sml_deferred_cancel_here(gather->members[i].deferred);
}

/* Also called for a member that was let go by all. */
static struct semel_deferred *has_result(struct semel_fired *fired, void *user)
{
    struct member *member = user;
    struct gather *gather = member->gather;
    struct semel_deferred *out = gather->out;
    const bool last = --gather->left == 0;

    member->deferred = NULL;
    sml_deferred_hold(out);
    if (gather->results) {
        count_in(gather, member, fired);
        if (!gather->results && gather->mode == SEMEL_GATHER_FIRST)
            cancel_members(gather);
    }
    if (gather->consume && fired->status != SEMEL_OK)
        semel_fired_set_value(fired, NULL, NULL);
    if (last && !gather->adding)
        semel_deferred_unref(out);
    sml_deferred_release(out);
    return NULL;
}

/* Cancelled: it fires with what becomes of the members. */
static bool cancelled(struct semel_deferred *out, void *user)
{
    struct gather *gather = sml_deferred_extra(out);

    (void)user;
    cancel_members(gather);
    return true;
}

static struct gather *new_gather(struct sml_executor *executor, size_t count, unsigned mode)
{
    struct semel_deferred *out = sml_deferred_new(
        executor, cancelled, NULL, sizeof(struct gather) + count * sizeof(struct member));
    struct gather *gather;

    if (!out)
        return NULL;
    gather = sml_deferred_extra(out);
    *gather = (struct gather){
        .out = out,
        .results = new_results(executor->mem, count),
        .mode = (enum semel_gather_mode)(mode & ~(unsigned)SEMEL_GATHER_CONSUME),
        .consume = (mode & SEMEL_GATHER_CONSUME) != 0,
        .adding = true,
        .left = count,
        .count = count,
    };
    if (!gather->results) {
        semel_deferred_unref(out);
        return NULL;
    }
    return gather;
}

/* `out` has one reference, the caller's; and one for the members if some have no result yet. */
static void add_members(struct gather *gather, struct semel_deferred *const *members)
{
    for (size_t i = 0; i < gather->count; i++)
        gather->members[i] = (struct member){ .gather = gather, .deferred = members[i] };
    for (size_t i = 0; i < gather->count; i++) {
        struct member *member = &gather->members[i];

        sml_deferred_guard(members[i], &member->step, has_result, member);
        semel_deferred_unref(members[i]);
    }
    gather->adding = false;
    if (gather->left > 0)
        (void)sml_deferred_ref(gather->out);
    else if (gather->count == 0)
        decide_all(gather);
}

static bool is_valid(const struct sml_executor *executor, struct semel_deferred *const *members,
                     size_t count, unsigned mode)
{
    const unsigned which = mode & ~(unsigned)SEMEL_GATHER_CONSUME;

    if (which > SEMEL_GATHER_ANY_RESULT || count > SEMEL_GATHER_MEMBERS_MAX)
        return false;
    if (count == 0)
        return which == SEMEL_GATHER_ALL || which == SEMEL_GATHER_VALUES;
    if (!members)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!members[i] || members[i]->executor != executor)
            return false;
    return true;
}

enum semel_status semel_deferred_gather(struct semel_deferred **out, struct semel_loop *loop,
                                        struct semel_deferred *const *members, size_t count,
                                        unsigned mode)
{
    struct sml_executor *executor = sml_executor_of(loop);
    struct gather *gather;

    if (!out || !is_valid(executor, members, count, mode))
        return SEMEL_INVALID;
    if (!sml_executor_is_here(executor))
        return SEMEL_DENIED;
    gather = new_gather(executor, count, mode);
    if (!gather)
        return SEMEL_NO_MEMORY;
    add_members(gather, members);
    *out = gather->out;
    return SEMEL_OK;
}
