/* SPDX-License-Identifier: MIT */
/* Every sequence of up to seven operations of a queue, and long random ones, beside a model: which
 * taker has which item, in which order, and how many of either wait, must be the same after each.
 * No item is lost, and none is there twice. */
#include "async/lock_kit.h"

#define MANY_MAX 6000 /* items, and takers, of one sequence */
#define TOLD_MAX 64   /* between two comparisons */
#define STEPS 7

enum op {
    OP_PUT,
    OP_GET,
    OP_GET_AND_PUT, /* its callback puts its item back */
    OP_GET_TWICE,   /* its callback asks for one more */
    OP_CANCEL_OLDEST,
    OP_CANCEL_NEWEST,
    OP_DROP_OLDEST, /* what the taker has is dropped, or it is let go while it waits */
    OPS
};

enum kind { PLAIN, PUTS_BACK, ASKS_AGAIN };

struct world;

struct taker {
    struct world *world;
    enum kind kind;
    bool waits; /* the model's */
    struct semel_deferred *out;
};

/* A taker was told: an item's number, or a status below 0. Or an item was dropped: taker -1. */
struct event {
    int taker, what;
};

struct events {
    struct event at[TOLD_MAX];
    int count;
};

struct world {
    struct hand hand;
    struct semel_queue *queue;
    struct taker *takers;
    int taker_count, item_count;
    int *where; /* per item: so often it was dropped */
    struct events real, model;

    /* The model. */
    int items_max, takers_max;
    int *items, items_first, items_count, *line, line_first, line_count;
    int served[TOLD_MAX][2], served_first, served_count;
};

static struct world world;

static void add_event(struct events *events, int taker, int what)
{
    assert_true(events->count < TOLD_MAX);
    events->at[events->count++] = (struct event){ taker, what };
}

/* --- what really happens --------------------------------------------------------------------- */

static void drop(void *item)
{
    (*(int *)item)++;
}

static enum semel_status put_item(int number)
{
    return semel_queue_put(world.queue, &world.where[number], drop);
}

static struct semel_deferred *told(struct semel_fired *fired, void *user);

static struct taker *new_taker(enum kind kind)
{
    struct taker *taker = &world.takers[world.taker_count++];

    assert_true(world.taker_count <= MANY_MAX);
    *taker = (struct taker){ &world, kind, false, NULL };
    return taker;
}

static enum semel_status get_item(struct taker *taker)
{
    enum semel_status status = semel_queue_get(world.queue, &taker->out);

    if (status == SEMEL_OK)
        assert_int_equal(semel_deferred_then(taker->out, told, told, taker), SEMEL_OK);
    return status;
}

static struct semel_deferred *told(struct semel_fired *fired, void *user)
{
    struct taker *taker = user;
    int number = (int)(taker - world.takers);

    if (fired->status != SEMEL_OK) {
        add_event(&world.real, number, -(int)fired->status);
        semel_fired_set_value(fired, NULL, NULL);
        return NULL;
    }
    add_event(&world.real, number, (int)((int *)fired->value - world.where));
    if (taker->kind == PUTS_BACK) {
        enum semel_status status = put_item((int)((int *)fired->value - world.where));

        if (status == SEMEL_OK)
            (void)semel_fired_take(fired);
        else
            add_event(&world.real, number, -(int)status);
    } else if (taker->kind == ASKS_AGAIN) { /* the taker behind it was made for this */
        enum semel_status status = get_item(taker + 1);

        if (status != SEMEL_OK)
            add_event(&world.real, number + 1, -(int)status);
    }
    return NULL;
}

/* --- what should ----------------------------------------------------------------------------- */

static enum semel_status model_put(int item)
{
    if (world.line_count > 0) {
        int at = world.served_first + world.served_count++;

        world.served[at][0] = world.line[world.line_first++];
        world.served[at][1] = item;
        world.line_count--;
        world.takers[world.served[at][0]].waits = false;
        return SEMEL_OK;
    }
    if (world.items_count == world.items_max)
        return SEMEL_OVERLOADED;
    world.items[world.items_first + world.items_count++] = item;
    return SEMEL_OK;
}

static void model_tell(int taker, int item);

static enum semel_status model_get(int taker)
{
    if (world.items_count > 0) {
        world.items_count--;
        model_tell(taker, world.items[world.items_first++]);
        return SEMEL_OK;
    }
    if (world.line_count == world.takers_max)
        return SEMEL_OVERLOADED;
    world.line[world.line_first + world.line_count++] = taker;
    world.takers[taker].waits = true;
    return SEMEL_OK;
}

static void model_tell(int taker, int item)
{
    enum semel_status status = SEMEL_OK;

    add_event(&world.model, taker, item);
    if (world.takers[taker].kind == PUTS_BACK)
        status = model_put(item);
    else if (world.takers[taker].kind == ASKS_AGAIN)
        status = model_get(taker + 1);
    if (status != SEMEL_OK)
        add_event(&world.model, world.takers[taker].kind == PUTS_BACK ? taker : taker + 1,
                  -(int)status);
}

static void model_drain(void)
{
    while (world.served_count > 0) {
        int *next = world.served[world.served_first++];

        world.served_count--;
        model_tell(next[0], next[1]);
    }
    world.served_first = 0;
}

static void model_cancel(int taker)
{
    int at = world.line_first;

    while (world.line[at] != taker)
        at++;
    world.line_count--;
    for (; at < world.line_first + world.line_count; at++)
        world.line[at] = world.line[at + 1];
    world.takers[taker].waits = false;
    add_event(&world.model, taker, -(int)SEMEL_CANCELLED);
}

/* --- beside each other ----------------------------------------------------------------------- */

static void compare(void)
{
    assert_int_equal(world.real.count, world.model.count);
    for (int i = 0; i < world.real.count; i++) {
        assert_int_equal(world.real.at[i].taker, world.model.at[i].taker);
        assert_int_equal(world.real.at[i].what, world.model.at[i].what);
    }
    world.real.count = world.model.count = 0;
    assert_int_equal(semel_queue_items(world.queue), world.items_count);
    assert_int_equal(semel_queue_takers(world.queue), world.line_count);
    assert_true(world.items_count == 0 || world.line_count == 0);
}

static int find_waiting(int which, bool newest)
{
    for (int i = 0; i < world.taker_count; i++) {
        int number = newest ? world.taker_count - 1 - i : i;

        if (world.takers[number].waits && world.takers[number].out && which-- == 0)
            return number;
    }
    return -1;
}

static bool cancel_both(int which, bool newest)
{
    int number = find_waiting(which, newest);

    if (number < 0 || (newest && number == find_waiting(0, false)))
        return false;
    semel_deferred_cancel(world.takers[number].out);
    model_cancel(number);
    return true;
}

static void get_both(enum kind kind)
{
    struct taker *taker = new_taker(kind);
    enum semel_status status;

    if (kind == ASKS_AGAIN)
        (void)new_taker(PLAIN);
    status = get_item(taker);
    assert_int_equal(model_get((int)(taker - world.takers)), status);
    model_drain();
}

static bool let_go_both(int which)
{
    for (int i = 0; i < world.taker_count; i++) {
        struct taker *taker = &world.takers[i];

        if (taker->out && which-- == 0) {
            semel_deferred_unref(taker->out);
            taker->out = NULL;
            return true;
        }
    }
    return false;
}

static bool apply(enum op op, int which)
{
    enum semel_status status;

    switch (op) {
    case OP_PUT:
        assert_true(world.item_count < MANY_MAX);
        status = put_item(world.item_count);
        assert_int_equal(model_put(world.item_count), status);
        if (status == SEMEL_OK)
            world.item_count++;
        model_drain();
        break;
    case OP_CANCEL_OLDEST:
    case OP_CANCEL_NEWEST:
        if (!cancel_both(which, op == OP_CANCEL_NEWEST))
            return false;
        break;
    case OP_DROP_OLDEST:
        if (!let_go_both(which))
            return false;
        break;
    default:
        get_both((enum kind)(op - OP_GET));
    }
    compare();
    return true;
}

static void world_begin(int items_max, int takers_max)
{
    struct semel_queue_options options = { items_max, takers_max };

    hand_init(&world.hand);
    memset(world.where, 0, (size_t)world.item_count * sizeof(int));
    world.taker_count = world.item_count = world.real.count = world.model.count = 0;
    world.items_max = items_max;
    world.takers_max = takers_max;
    world.items_first = world.items_count = world.line_first = world.line_count = 0;
    world.served_first = world.served_count = 0;
    assert_int_equal(semel_queue_create(&world.queue, hand_loop(&world.hand), &options), SEMEL_OK);
}

/* Those that wait are told in order. Then each item that was ever in has been dropped once. */
static void world_end(void)
{
    for (int i = 0; i < world.line_count; i++)
        add_event(&world.model, world.line[world.line_first + i], -(int)SEMEL_STOPPED);
    semel_queue_destroy(world.queue);
    assert_int_equal(world.real.count, world.model.count);
    assert_memory_equal(world.real.at, world.model.at,
                        (size_t)world.real.count * sizeof(struct event));
    for (int i = 0; i < world.taker_count; i++)
        semel_deferred_unref(world.takers[i].out);
    for (int i = 0; i < world.item_count; i++)
        assert_int_equal(world.where[i], 1);
    hand_fini(&world.hand);
}

static int make(void **state)
{
    (void)state;
    world.takers = calloc(MANY_MAX, sizeof(struct taker));
    world.where = calloc(MANY_MAX + 1, sizeof(int));
    world.items = calloc(4 * MANY_MAX, sizeof(int));
    world.line = calloc(MANY_MAX, sizeof(int));
    return world.takers && world.where && world.items && world.line ? 0 : -1;
}

static int unmake(void **state)
{
    (void)state;
    free(world.takers);
    free(world.where);
    free(world.items);
    free(world.line);
    return 0;
}

static uint64_t try_all(enum op *sequence, int length, int items_max, int takers_max)
{
    uint64_t tried = 0;

    for (int op = 0; op < OPS; op++) {
        bool goes = true;

        sequence[length] = (enum op)op;
        world_begin(items_max, takers_max);
        for (int i = 0; i <= length && goes; i++)
            goes = apply(sequence[i], 0);
        world_end();
        if (goes)
            tried +=
                1 + (length + 1 < STEPS ? try_all(sequence, length + 1, items_max, takers_max) : 0);
    }
    return tried;
}

static void all_short_sequences(void **state)
{
    static const int bounds[][2] = { { 3, 3 }, { 1, 2 }, { 0, 3 }, { 2, 0 } };
    enum op sequence[STEPS];

    (void)state;
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        uint64_t tried = try_all(sequence, 0, bounds[i][0], bounds[i][1]);

        print_message("%d items, %d takers: %llu sequences\n", bounds[i][0], bounds[i][1],
                      (unsigned long long)tried);
        assert_true(tried > 30000);
    }
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static void long_random_sequences(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t random = seed;

        world_begin((int)(next_random(&random) % 10), (int)(next_random(&random) % 10));
        for (int i = 0; i < 2500; i++) {
            enum op op = (enum op)(next_random(&random) % (OPS + 2)); /* puts are rarer else */

            (void)apply(op < OPS ? op : OP_PUT, (int)(next_random(&random) % 4));
        }
        world_end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_short_sequences),
        cmocka_unit_test(long_random_sequences),
    };

    return cmocka_run_group_tests(tests, make, unmake);
}
