/* SPDX-License-Identifier: MIT */
/* All short sequences of operations on two deferreds beside a model, and long random ones on four.
 *
 * test_deferred_sequences [LENGTH]: sequences up to that length; default 6. */
#include "async/deferred_kit.h"

#include "async/deferred.h"
#include "async/deferred_model.h"
#include "base/test_random.h"

struct world;

struct step {
    struct world *world;
    int d, id;
    enum act act;
};

#define ITEMS_MAX 4096
#define STEPS_MAX 4096

struct real_item {
    struct world *world;
    int number;
};

struct world {
    struct hand hand;
    struct sml_executor_ops ops; /* the hand's, and reports go to the journal */
    const struct sml_executor_ops *hand_ops;
    int size, items, ids;
    struct semel_deferred *list[MODEL_MAX];
    bool user[MODEL_MAX];
    enum canceller cancellers[MODEL_MAX];
    struct step canceller_steps[MODEL_MAX];
    struct step steps[STEPS_MAX];
    struct real_item item_list[ITEMS_MAX];
    struct events events;
    struct model model;
};

/* --- the real ones ------------------------------------------------------------------------ */

static void dropped(void *value)
{
    struct real_item *item = value;

    events_add(&item->world->events, EVENT_DROP + item->number);
}

static void reported(struct sml_executor *executor, const struct semel_fired *fired)
{
    struct world *world = SML_CONTAINER(executor, struct world, hand.executor);

    events_add(&world->events, EVENT_REPORT + (int)fired->status);
}

static int real_fire(struct world *world, int d, int status)
{
    struct real_item *item;

    if (status)
        return (int)semel_deferred_fail(world->list[d], (enum semel_status)status, 0, NULL);
    assert_true(++world->items < ITEMS_MAX);
    item = &world->item_list[world->items];
    *item = (struct real_item){ world, world->items };
    return (int)semel_deferred_fire(world->list[d], item, dropped);
}

static struct semel_deferred *called(struct semel_fired *fired, void *user);

static int real_then(struct world *world, int d, enum act act)
{
    struct step *step;

    assert_true(++world->ids < STEPS_MAX);
    step = &world->steps[world->ids];
    *step = (struct step){ world, d, world->ids, act };
    return (int)semel_deferred_then(world->list[d], called, called, step);
}

static void real_unref(struct world *world, int d)
{
    world->user[d] = false;
    semel_deferred_unref(world->list[d]);
}

static struct semel_deferred *called(struct semel_fired *fired, void *user)
{
    const struct step *step = user;
    struct world *world = step->world;
    const int other = (step->d + 1) % world->size;
    const struct real_item *item = fired->value;

    events_add(&world->events, EVENT_CALL + step->id * 100 +
                                   (fired->status ? (int)fired->status
                                    : item        ? item->number
                                                  : 0));
    switch (step->act) {
    case ACT_FLIP:
        if (fired->status)
            semel_fired_set_value(fired, NULL, NULL);
        else
            semel_fired_set_failure(fired, SEMEL_LIMIT, 0, NULL);
        break;
    case ACT_ADD:
        if (world->user[step->d])
            assert_ok(real_then(world, step->d, ACT_NOTHING));
        break;
    case ACT_FIRE_OTHER:
        if (world->user[other])
            (void)real_fire(world, other, SEMEL_OK);
        break;
    case ACT_CANCEL_OTHER:
        if (world->user[other])
            semel_deferred_cancel(world->list[other]);
        break;
    case ACT_UNREF:
        if (world->user[step->d])
            real_unref(world, step->d);
        break;
    case ACT_PAUSE:
        if (world->user[step->d])
            assert_ok(semel_deferred_pause(world->list[step->d]));
        break;
    case ACT_RETURN_OTHER:
        return world->user[other] ? semel_deferred_ref(world->list[other]) : NULL;
    default:
        break;
    }
    return NULL;
}

static bool cancelling(struct semel_deferred *deferred, void *user)
{
    const struct step *step = user;
    struct world *world = step->world;

    assert_ptr_equal(deferred, world->list[step->d]);
    events_add(&world->events, EVENT_CANCELLER + step->d);
    if (world->cancellers[step->d] == CANCELLER_FIRES)
        assert_ok(real_fire(world, step->d, SEMEL_OK));
    return world->cancellers[step->d] == CANCELLER_LATER;
}

static void real_create(struct world *world, int d, enum canceller canceller)
{
    world->cancellers[d] = canceller;
    world->canceller_steps[d] = (struct step){ .world = world, .d = d };
    assert_ok(semel_deferred_create(&world->list[d], hand_loop(&world->hand),
                                    canceller ? cancelling : NULL, &world->canceller_steps[d]));
    world->user[d] = true;
}

/* --- both --------------------------------------------------------------------------------- */

static void open_world(struct world *world, int size, const enum canceller *cancellers)
{
    hand_init(&world->hand);
    world->ops = *world->hand.executor.ops;
    world->ops.unhandled = reported;
    world->hand.executor.ops = &world->ops;
    world->size = size;
    world->items = world->ids = world->events.count = 0;
    for (int d = 0; d < size; d++)
        real_create(world, d, cancellers[d]);
    model_init(&world->model, size, cancellers);
}

/* Both wrote the same, and look the same. Which they did is thrown away. */
static bool agree(struct world *world)
{
    struct events *real = &world->events, *model = &world->model.events;

    if (real->count != model->count ||
        memcmp(real->list, model->list, (size_t)real->count * sizeof real->list[0]) != 0)
        return false;
    real->count = model->count = 0;
    if (world->items != world->model.items || world->ids != world->model.ids)
        return false;
    for (int d = 0; d < world->size; d++) {
        const struct model_deferred *it = &world->model.list[d];
        const struct semel_fired *fired;
        const struct real_item *item;

        if (world->user[d] != it->user)
            return false;
        fired = it->user ? semel_deferred_result(world->list[d]) : NULL;
        if (it->user && (fired != NULL) != model_shows_result(&world->model, d))
            return false;
        item = fired ? fired->value : NULL;
        if (fired && ((int)fired->status != it->status || (item ? item->number : 0) != it->value))
            return false;
    }
    return true;
}

static bool close_world(struct world *world)
{
    bool same;

    for (int d = 0; d < world->size; d++)
        if (world->user[d]) {
            real_unref(world, d);
            model_unref(&world->model, d);
        }
    same = agree(world) && world->hand.blocks == 0;
    for (int d = 0; d < world->size; d++)
        same = same && model_is_gone(&world->model, d);
    if (same)
        hand_fini(&world->hand);
    return same;
}

enum op {
    OP_FIRE,
    OP_FAIL,
    OP_CHAIN,
    OP_CANCEL,
    OP_PAUSE,
    OP_RESUME,
    OP_UNREF,
    OP_THEN /* and the act: OP_THEN + act */
};
#define OPS ((int)OP_THEN + (int)ACT_COUNT)

static bool chain_both(struct world *world, int d)
{
    const int other = (d + 1) % world->size;
    const int expected =
        world->user[other] ? model_chain(&world->model, d, other) : (int)SEMEL_INVALID;
    int status = SEMEL_INVALID;

    if (world->user[other]) {
        struct semel_deferred *target = semel_deferred_ref(world->list[other]);

        status = (int)semel_deferred_chain(world->list[d], target);
        if (status != SEMEL_OK)
            semel_deferred_unref(target);
    }
    return status == expected;
}

/* What the user has let go cannot be used: then nothing is done. */
static bool apply(struct world *world, int op, int d)
{
    struct model *model = &world->model;
    bool same = true;

    if (!world->user[d])
        return true;
    if (op == OP_FIRE || op == OP_FAIL) {
        const int status = op == OP_FAIL ? SEMEL_FAILED : SEMEL_OK;

        same = real_fire(world, d, status) == model_fire(model, d, status);
    } else if (op == OP_CHAIN) {
        same = chain_both(world, d);
    } else if (op == OP_CANCEL) {
        semel_deferred_cancel(world->list[d]);
        model_cancel(model, d);
    } else if (op == OP_PAUSE) {
        same = (int)semel_deferred_pause(world->list[d]) == model_pause(model, d);
    } else if (op == OP_RESUME) {
        same = (int)semel_deferred_resume(world->list[d]) == model_resume(model, d);
    } else if (op == OP_UNREF) {
        real_unref(world, d);
        model_unref(model, d);
    } else {
        const enum act act = (enum act)(op - OP_THEN);

        same = real_then(world, d, act) == model_then(model, d, act);
    }
    return same && agree(world);
}

/* --- all short ones ----------------------------------------------------------------------- */

struct letter {
    int op, d;
};

static struct world world;

static void disagree(const struct letter *word, int length, const enum canceller *cancellers)
{
    char text[512];
    size_t used = 0;

    for (int i = 0; i < length; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%d:%d ", word[i].op, word[i].d);
    fail_msg("the model disagrees after %s(op:deferred), cancellers %d %d", text,
             (int)cancellers[0], (int)cancellers[1]);
}

static void try_word(const struct letter *word, int length, const enum canceller *cancellers)
{
    bool same = true;

    open_world(&world, 2, cancellers);
    for (int i = 0; i < length && same; i++)
        same = apply(&world, word[i].op, word[i].d);
    if (!same || !close_world(&world))
        disagree(word, length, cancellers);
}

/* All words of `length` letters; shorter ones are their beginnings, and are compared on the way. */
static size_t try_all(const struct letter *letters, int count, int length,
                      const enum canceller *cancellers)
{
    struct letter word[8];
    int at[8] = { 0 };
    size_t words = 0;

    for (;;) {
        int i = length - 1;

        for (int k = 0; k < length; k++)
            word[k] = letters[at[k]];
        try_word(word, length, cancellers);
        words++;
        while (i >= 0 && ++at[i] == count)
            at[i--] = 0;
        if (i < 0)
            return words;
    }
}

static int length_max = 6;

/* Everything that can be done to either: a step less, and two less with all pairs of cancellers. */
static void all_letters(void **state)
{
    struct letter letters[2 * OPS];

    (void)state;
    for (int i = 0; i < 2 * OPS; i++)
        letters[i] = (struct letter){ i % OPS, i / OPS };
    for (int first = 0; first < CANCELLERS; first++)
        for (int second = 0; second < CANCELLERS; second++) {
            const enum canceller cancellers[2] = { (enum canceller)first, (enum canceller)second };
            const bool longer = first == CANCELLER_NONE && second == CANCELLER_LATER;

            (void)try_all(letters, 2 * OPS, length_max - (longer ? 1 : 2), cancellers);
        }
}

/* What decides who waits for whom, and who is alive: each with either deferred. */
static void chosen_letters(void **state)
{
    static const int ops[] = { OP_FIRE,          OP_FAIL,   OP_CHAIN, OP_CANCEL,
                               OP_PAUSE,         OP_RESUME, OP_UNREF, OP_THEN + ACT_RETURN_OTHER,
                               OP_THEN + ACT_ADD };
    static const enum canceller cancellers[2] = { CANCELLER_NONE, CANCELLER_IDLE };
    enum { COUNT = sizeof ops / sizeof ops[0] };
    struct letter letters[2 * COUNT];

    (void)state;
    for (int i = 0; i < 2 * COUNT; i++)
        letters[i] = (struct letter){ ops[i % COUNT], i / COUNT };
    (void)try_all(letters, 2 * COUNT, length_max, cancellers);
}

static void one_deferred(void **state)
{
    static const struct letter letters[] = {
        { OP_FIRE, 0 },
        { OP_FAIL, 0 },
        { OP_CANCEL, 0 },
        { OP_PAUSE, 0 },
        { OP_RESUME, 0 },
        { OP_UNREF, 0 },
        { OP_THEN + ACT_ADD, 0 },
        { OP_THEN + ACT_FLIP, 0 },
        { OP_THEN + ACT_UNREF, 0 },
        { OP_THEN + ACT_PAUSE, 0 },
    };
    const int count = (int)(sizeof letters / sizeof letters[0]);

    (void)state;
    for (int kind = 0; kind < CANCELLERS; kind++) {
        const enum canceller cancellers[2] = { (enum canceller)kind, CANCELLER_NONE };

        (void)try_all(letters, count, length_max, cancellers);
    }
}

/* --- long ones ---------------------------------------------------------------------------- */

/* What the user has let go is made anew, if it is gone. */
static void renew(uint64_t *seed)
{
    for (int d = 0; d < world.size; d++)
        if (!world.user[d] && model_is_gone(&world.model, d)) {
            const enum canceller canceller = (enum canceller)random_below(seed, CANCELLERS);

            real_create(&world, d, canceller);
            model_create(&world.model, d, canceller);
        }
}

static void long_ones(void **state)
{
    enum { RUNS = 2000, LENGTH = 300 };
    static const enum canceller none[MODEL_MAX] = { CANCELLER_NONE };

    (void)state;
    for (uint64_t run = 1; run <= RUNS; run++) {
        uint64_t seed = run;

        open_world(&world, MODEL_MAX, none);
        for (int i = 0; i < LENGTH; i++) {
            renew(&seed);
            if (!apply(&world, (int)random_below(&seed, OPS), (int)random_below(&seed, MODEL_MAX)))
                fail_msg("the model disagrees in run %d, step %d", (int)run, i);
        }
        if (!close_world(&world))
            fail_msg("the model disagrees at the end of run %d", (int)run);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        { "sequences: one deferred", one_deferred, NULL, NULL, NULL },
        { "sequences: two deferreds, chosen operations", chosen_letters, NULL, NULL, NULL },
        { "sequences: two deferreds, all operations", all_letters, NULL, NULL, NULL },
        { "sequences: long ones", long_ones, NULL, NULL, NULL },
    };

    if (argc > 1)
        length_max = atoi(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
