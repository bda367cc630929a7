/* SPDX-License-Identifier: MIT */
/* Every sequence of up to seven operations of a lock or a semaphore, and long random ones, beside a
 * model: who is called with what in which order, and how many permits are out and callers wait,
 * must be the same after each. */
#include "async/lock_kit.h"

#define ENTRIES_MAX 6000 /* of one sequence; random ones are longest */
#define TOLD_MAX 64      /* between two comparisons */
#define STEPS 7

enum kind {
    ACQUIRE, /* it keeps its permit; release gives back any */
    BRIEF,   /* its callback gives it back */
    NOW,     /* a body that is done, its result unwanted */
    NESTED,  /* a body that runs another such */
    LATER,   /* a body that goes on as a deferred, its result wanted */
};

enum op {
    OP_ACQUIRE,
    OP_BRIEF,
    OP_NOW,
    OP_NESTED,
    OP_LATER,
    OP_TRY,
    OP_RELEASE,
    OP_FIRE,
    OP_LET_GO,
    OP_CANCEL_OLDEST,
    OP_CANCEL_NEWEST,
    OPS
};

enum state { WAITS, GRANTED, RUNS, OVER };

struct world;

struct entry {
    struct world *world;
    enum kind kind;
    enum state state; /* the model's */
    struct semel_deferred *out, *inner;
};

/* Entry and what it was told: a status, or that its body began. */
struct event {
    int entry, what;
};

#define BEGAN (-1)

struct events {
    struct event at[TOLD_MAX];
    int count;
};

struct world {
    struct hand hand;
    struct semel_lock *lock;
    struct entry *entries;
    int count;
    struct events real, model;

    /* The model: numbers of entries, in order. */
    uint32_t permits, waiting_max, held;
    int *line, line_first, line_count; /* those cancelled are taken out */
    int granted[TOLD_MAX], granted_first, granted_count;
};

static void add_event(struct events *events, int entry, int what)
{
    assert_true(events->count < TOLD_MAX);
    events->at[events->count++] = (struct event){ entry, what };
}

/* --- what really happens --------------------------------------------------------------------- */

static int number_of(const struct entry *entry)
{
    return (int)(entry - entry->world->entries);
}

static struct semel_deferred *told(struct semel_fired *fired, void *user)
{
    struct entry *entry = user;

    add_event(&entry->world->real, number_of(entry), (int)fired->status);
    if (entry->kind == BRIEF && fired->status == SEMEL_OK)
        assert_int_equal(semel_lock_release(entry->world->lock), SEMEL_OK);
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

static struct entry *new_entry(struct world *world, enum kind kind)
{
    struct entry *entry = &world->entries[world->count++];

    assert_true(world->count <= ENTRIES_MAX);
    *entry = (struct entry){ world, kind, WAITS, NULL, NULL };
    return entry;
}

static struct semel_deferred *body(struct semel_fired *fired, void *user)
{
    struct entry *entry = user;
    struct world *world = entry->world;

    (void)fired;
    add_event(&world->real, number_of(entry), BEGAN);
    /* The model makes the entry of the nested one: it comes right behind. */
    if (entry->kind == NESTED &&
        semel_lock_run(world->lock, body, entry + 1, NULL) == SEMEL_OVERLOADED)
        add_event(&world->real, number_of(entry) + 1, SEMEL_OVERLOADED);
    return entry->kind == LATER ? semel_deferred_ref(entry->inner) : NULL;
}

static enum semel_status submit(struct entry *entry)
{
    struct world *world = entry->world;
    enum semel_status status;

    if (entry->kind == LATER)
        assert_int_equal(semel_deferred_create(&entry->inner, hand_loop(&world->hand), NULL, NULL),
                         SEMEL_OK);
    if (entry->kind == ACQUIRE || entry->kind == BRIEF)
        status = semel_lock_acquire(world->lock, &entry->out);
    else
        status =
            semel_lock_run(world->lock, body, entry, entry->kind == LATER ? &entry->out : NULL);
    if (entry->out)
        assert_int_equal(semel_deferred_then(entry->out, told, told, entry), SEMEL_OK);
    return status;
}

/* --- what should ----------------------------------------------------------------------------- */

static void model_begin(struct world *world, int number);

static void model_release(struct world *world)
{
    int next;

    if (world->line_count == 0) {
        world->held--;
        return;
    }
    next = world->line[world->line_first++];
    world->line_count--;
    world->entries[next].state = GRANTED;
    world->granted[world->granted_first + world->granted_count++] = next;
}

static void model_drain(struct world *world)
{
    while (world->granted_count > 0) {
        world->granted_count--;
        model_begin(world, world->granted[world->granted_first++]);
    }
    world->granted_first = 0;
}

static enum semel_status model_submit(struct world *world, int number)
{
    if (world->held < world->permits) {
        world->held++;
        if (world->granted_count > 0) {
            world->entries[number].state = GRANTED;
            world->granted[world->granted_first + world->granted_count++] = number;
        } else {
            model_begin(world, number);
        }
        return SEMEL_OK;
    }
    if ((uint32_t)world->line_count == world->waiting_max)
        return SEMEL_OVERLOADED;
    world->line[world->line_first + world->line_count++] = number;
    return SEMEL_OK;
}

static void model_begin(struct world *world, int number)
{
    struct entry *entry = &world->entries[number];
    bool has_body = entry->kind == NOW || entry->kind == NESTED || entry->kind == LATER;

    entry->state = entry->kind == LATER ? RUNS : OVER;
    add_event(&world->model, number, has_body ? BEGAN : SEMEL_OK);
    if (entry->kind == NESTED && model_submit(world, number + 1) == SEMEL_OVERLOADED)
        add_event(&world->model, number + 1, SEMEL_OVERLOADED);
    if (entry->kind != ACQUIRE && entry->kind != LATER)
        model_release(world);
}

static void model_end(struct world *world, int number, enum semel_status status)
{
    world->entries[number].state = OVER;
    model_release(world);
    add_event(&world->model, number, (int)status);
    model_drain(world);
}

static void model_cancel(struct world *world, int number)
{
    int at = world->line_first;

    if (world->entries[number].state == RUNS) {
        model_end(world, number, SEMEL_CANCELLED);
        return;
    }
    while (world->line[at] != number)
        at++;
    world->line_count--;
    for (; at < world->line_first + world->line_count; at++)
        world->line[at] = world->line[at + 1];
    world->entries[number].state = OVER;
    add_event(&world->model, number, SEMEL_CANCELLED);
}

/* --- beside each other ----------------------------------------------------------------------- */

static void compare(struct world *world)
{
    assert_int_equal(world->real.count, world->model.count);
    for (int i = 0; i < world->real.count; i++) {
        assert_int_equal(world->real.at[i].entry, world->model.at[i].entry);
        assert_int_equal(world->real.at[i].what, world->model.at[i].what);
    }
    world->real.count = world->model.count = 0;
    assert_int_equal(semel_lock_held(world->lock), world->held);
    assert_int_equal(semel_lock_waiting(world->lock), world->line_count);
    assert_true(world->held <= world->permits);
    assert_true(world->held == world->permits || world->line_count == 0);
    assert_int_equal(world->hand.unhandled, 0);
}

static bool is_live(const struct entry *entry)
{
    return entry->out && (entry->state == WAITS || entry->state == RUNS);
}

static bool is_running(const struct entry *entry)
{
    return entry->state == RUNS;
}

/* The which-th of those that are; -1 if there are not so many. `newest`: counted from the end. */
static int find(const struct world *world, bool (*is)(const struct entry *), int which, bool newest)
{
    for (int i = 0; i < world->count; i++) {
        int number = newest ? world->count - 1 - i : i;

        if (is(&world->entries[number]) && which-- == 0)
            return number;
    }
    return -1;
}

static void submit_both(struct world *world, enum kind kind)
{
    struct entry *entry = new_entry(world, kind);
    int number = number_of(entry);
    enum semel_status status;

    if (kind == NESTED)
        (void)new_entry(world, NOW);
    status = submit(entry);
    assert_int_equal(model_submit(world, number), status);
    if (status != SEMEL_OK) {
        entry->state = OVER;
        semel_deferred_unref(entry->inner);
        entry->inner = NULL;
    }
    model_drain(world);
}

static void cancel_both(struct world *world, int number)
{
    semel_deferred_cancel(world->entries[number].out);
    model_cancel(world, number);
}

static void end_both(struct world *world, int number, bool let_go)
{
    struct entry *entry = &world->entries[number];
    struct semel_deferred *inner = entry->inner;

    if (let_go) {
        entry->inner = NULL;
        semel_deferred_unref(inner);
    } else {
        assert_int_equal(semel_deferred_fire(inner, NULL, NULL), SEMEL_OK);
    }
    model_end(world, number, let_go ? SEMEL_DROPPED : SEMEL_OK);
}

static void release_both(struct world *world)
{
    assert_int_equal(semel_lock_release(world->lock), world->held ? SEMEL_OK : SEMEL_INVALID);
    if (world->held == 0)
        return;
    model_release(world);
    model_drain(world);
}

/* False: there is nothing that it could be done to. A release may be of a permit that a body has:
 * the lock cannot know, but it would end with one release too many; so that is left out. */
static bool apply(struct world *world, enum op op, int which)
{
    int number, running = 0;

    switch (op) {
    case OP_TRY:
        if (semel_lock_try(world->lock) == SEMEL_OK)
            world->held++;
        else
            assert_int_equal(world->held, world->permits);
        break;
    case OP_RELEASE:
        for (int i = 0; i < world->count; i++)
            running += world->entries[i].state == RUNS;
        if (world->held > 0 && world->held <= (uint32_t)running)
            return false;
        release_both(world);
        break;
    case OP_FIRE:
    case OP_LET_GO:
        number = find(world, is_running, which, op == OP_LET_GO);
        if (number < 0)
            return false;
        end_both(world, number, op == OP_LET_GO);
        break;
    case OP_CANCEL_OLDEST:
    case OP_CANCEL_NEWEST:
        number = find(world, is_live, which, op == OP_CANCEL_NEWEST);
        if (number < 0 || (op == OP_CANCEL_NEWEST && number == find(world, is_live, 0, false)))
            return false;
        cancel_both(world, number);
        break;
    default:
        submit_both(world, (enum kind)(op - OP_ACQUIRE));
    }
    compare(world);
    return true;
}

static void world_begin(struct world *world, uint32_t permits, uint32_t waiting_max)
{
    struct semel_lock_options options = { permits, waiting_max };

    hand_init(&world->hand);
    world->count = world->real.count = world->model.count = 0;
    world->permits = permits;
    world->waiting_max = waiting_max;
    world->held = 0;
    world->line_first = world->line_count = world->granted_first = world->granted_count = 0;
    assert_int_equal(semel_lock_create(&world->lock, hand_loop(&world->hand), &options), SEMEL_OK);
}

/* Those that wait are told in order; bodies that nobody asks about are reported; nothing is
 * left. */
static void world_end(struct world *world)
{
    size_t unwanted = 0;

    for (int i = 0; i < world->line_count; i++) {
        int number = world->line[world->line_first + i];

        if (world->entries[number].out)
            add_event(&world->model, number, SEMEL_STOPPED);
        else
            unwanted++;
    }
    semel_lock_destroy(world->lock);
    assert_int_equal(world->real.count, world->model.count);
    assert_memory_equal(world->real.at, world->model.at,
                        (size_t)world->real.count * sizeof(struct event));
    assert_int_equal(world->hand.unhandled, unwanted);
    world->hand.unhandled = 0;
    for (int i = 0; i < world->count; i++) {
        world->real.count = 0;
        semel_deferred_unref(world->entries[i].inner);
        semel_deferred_unref(world->entries[i].out);
    }
    hand_fini(&world->hand);
}

static void world_make(struct world *world)
{
    world->entries = calloc(ENTRIES_MAX, sizeof(struct entry));
    world->line = calloc(ENTRIES_MAX, sizeof(int));
    assert_true(world->entries && world->line);
}

static void world_free(struct world *world)
{
    free(world->entries);
    free(world->line);
}

static struct world world;

/* All sequences that begin with these; one that cannot go on is not looked at again. */
static uint64_t try_all(enum op *sequence, int length, uint32_t permits)
{
    uint64_t tried = 0;

    for (int op = 0; op < OPS; op++) {
        bool goes = true;

        sequence[length] = (enum op)op;
        world_begin(&world, permits, 2);
        for (int i = 0; i <= length && goes; i++)
            goes = apply(&world, sequence[i], 0);
        world_end(&world);
        if (goes)
            tried += 1 + (length + 1 < STEPS ? try_all(sequence, length + 1, permits) : 0);
    }
    return tried;
}

static void all_short_sequences(void **state)
{
    enum op sequence[STEPS];

    (void)state;
    world_make(&world);
    for (uint32_t permits = 1; permits <= 2; permits++) {
        uint64_t tried = try_all(sequence, 0, permits);

        print_message("%u permits: %llu sequences\n", permits, (unsigned long long)tried);
        assert_true(tried > 1000000);
    }
    world_free(&world);
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static void long_random_sequences(void **state)
{
    (void)state;
    world_make(&world);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t random = seed;

        world_begin(&world, 1 + next_random(&random) % 5, 1 + next_random(&random) % 12);
        for (int i = 0; i < 2500; i++)
            (void)apply(&world, (enum op)(next_random(&random) % OPS),
                        (int)(next_random(&random) % 4));
        world_end(&world);
    }
    world_free(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_short_sequences),
        cmocka_unit_test(long_random_sequences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
