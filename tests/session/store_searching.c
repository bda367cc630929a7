/* SPDX-License-Identifier: MIT */
/* Every way that one or two calls can go, with a store, a client that keeps to the protocol, a
 * server that crashes, and a store that says no: all sequences of steps up to a length; and, to
 * greater lengths, one sequence for each state that they lead to. Of each state that is new it is
 * asked: does every call still come to its end, and is everything forgotten then? */
#include "store_suites.h"
#include "store_world.h"

/* --- states ------------------------------------------------------------------------------ */

/* All that tells two states apart, as bytes. */
struct digest {
    uint8_t bytes[1500];
    size_t size;
};

static void add(struct digest *digest, uint64_t value)
{
    assert_true(digest->size + 2 <= sizeof digest->bytes);
    digest->bytes[digest->size++] = (uint8_t)value;
    digest->bytes[digest->size++] = (uint8_t)(value >> 8);
}

static void add_flags(struct digest *digest, const bool *flags, uint32_t count)
{
    uint64_t bits = 0;

    for (uint32_t i = 0; i < count; i++)
        bits |= (uint64_t)flags[i] << i;
    add(digest, bits);
}

static void add_record(struct digest *digest, struct sml_incoming *in)
{
    const bool flags[] = {
        atomic_load(&in->cancelled),
        atomic_load(&in->gone),
        in->proven,
        in->answered,
        in->held,
        in->in_batch,
        in->unidentified,
        in->body_counted,
        in->body_kept,
        in->reply_begun,
        in->body != NULL,
        in->timer.in_heap,
        sml_list_linked(&in->link),
        sml_list_linked(&in->all),
        in->reply != NULL,
        sml_list_linked(&in->cancel_link),
    };

    add(digest, in->xid);
    add(digest, in->phase);
    add_flags(digest, flags, sizeof flags / sizeof *flags);
    add(digest, in->row);
    add(digest, in->crashes);
    add(digest, in->doomed);
    add(digest, in->reply_sent);
    add(digest, in->verdict.outcome);
    add(digest, in->verdict.status);
    add(digest, in->timer.in_heap && in->timer.key <= world.now);
    add(digest, in->deadline <= world.now);
}

static void add_links(struct digest *digest, const struct sml_list *head)
{
    add(digest, 0xfff0);
    for (struct sml_list *n = head->next; n != head; n = n->next)
        add_record(digest, SML_CONTAINER(n, struct sml_incoming, link));
}

static void add_alls(struct digest *digest, const struct sml_list *head)
{
    add(digest, 0xfff1);
    for (struct sml_list *n = head->next; n != head; n = n->next)
        add_record(digest, SML_CONTAINER(n, struct sml_incoming, all));
}

static void add_callee(struct digest *digest, const struct sml_callee *callee)
{
    add(digest, callee->hi);
    add(digest, callee->base);
    add(digest, callee->base_pending);
    add(digest, callee->durable_hi);
    add(digest, callee->restored);
    add(digest, callee->forgetting);
    add(digest, callee->held);
    add(digest, callee->bytes_in);
    add(digest, callee->bytes_kept);
    add(digest, callee->bytes_stored);
    add_alls(digest, &callee->all);
    add_alls(digest, &callee->dropped);
    add_links(digest, &callee->ready);
    add_links(digest, &callee->to_send);
    add_links(digest, &callee->busy);
    add_links(digest, &callee->to_record);
    add(digest, 0xfff2);
    for (struct sml_list *n = callee->cancels.next; n != &callee->cancels; n = n->next)
        add(digest, SML_CONTAINER(n, struct sml_incoming, cancel_link)->xid);
}

static void add_store(struct digest *digest)
{
    const struct sml_session_record session = world_read_session();

    add(digest, session.base);
    for (uint64_t xid = 1; xid <= CALLS; xid++)
        add(digest, world_is_straggler(&session, xid));
    for (int i = 0; i < CALLS; i++) {
        struct sml_call_record record;

        if (!world_read_call(i, &record))
            continue;
        add(digest, record.state);
        add(digest, record.crashes);
        add(digest, record.proven);
        add(digest, record.verdict.outcome);
        add(digest, record.verdict.status);
    }
    add(digest, world.key.state);
    add(digest, world.key.xid);
    add(digest, world.key.outcome);
    add(digest, world.under_way);
    for (uint32_t i = 0; i < world.change_count; i++) {
        add(digest, world.changes[i].kind);
        add_record(digest, world.changes[i].in);
    }
    add(digest, world.under_way ? world.session_change : 0);
    for (size_t i = 0; world.under_way && i < world.next_session_record.size; i++)
        add(digest, world.next_session_record.bytes[i]);
}

static uint64_t digest_world(void)
{
    static struct digest digest;

    digest.size = 0;
    for (int i = 0; i < CALLS; i++) {
        const struct one_call *call = &world.calls[i];
        const bool flags[] = { call->sent, call->send, call->acked, call->cancelled, call->seen };

        add_flags(&digest, flags, sizeof flags / sizeof *flags);
        add(&digest, call->seen ? call->outcome : 0);
        add(&digest, call->effects);
        add(&digest, call->hand);
        if (call->hand != NOT_HELD)
            add_record(&digest, call->in);
    }
    add(&digest, world.up);
    add(&digest, world.late);
    add(&digest, world.stopping);
    add(&digest, world.crashes);
    add(&digest, world.durable_hi);
    add_callee(&digest, &world.session.callee);
    add_store(&digest);
    return sml_fingerprint(NULL, 0, NULL, 0, digest.bytes, digest.size).a;
}

/* --- searching --------------------------------------------------------------------------- */

struct search {
    struct sequence *found;
    size_t count, room;
    struct sml_table states;
};

static void found(struct search *search, const struct sequence *sequence)
{
    if (search->count == search->room) {
        search->room = search->room ? 2 * search->room : 1024;
        search->found = realloc(search->found, search->room * sizeof *search->found);
    }
    search->found[search->count++] = *sequence;
}

/* Go on from the sequences found so far, with `more` steps; `all` false: of those that lead to one
 * state only with the first. */
static void search_on(struct search *search, uint32_t more, bool all)
{
    uint32_t steps = search->found[0].count + more;

    for (size_t at = 0; at < search->count && search->found[at].count < steps; at++) {
        struct sequence sequence = search->found[at];
        bool may_be[ALL_STEPS * CALLS];

        world_replay(&sequence);
        for (uint8_t code = 0; code < ALL_STEPS * CALLS; code++)
            may_be[code] = world_may(code);
        sequence.count++;
        for (uint8_t code = 0; code < ALL_STEPS * CALLS; code++) {
            uint64_t state;

            if (!may_be[code])
                continue;
            sequence.steps[sequence.count - 1] = code;
            world_replay(&sequence);
            state = digest_world();
            if (!sml_table_find(&search->states, state)) {
                assert_true(sml_table_insert(&search->states, state, search));
                found(search, &sequence);
                world_settle();
            } else if (all) {
                found(search, &sequence);
            }
        }
    }
}

/* Returns how many sequences were gone on with. */
static size_t search_from(const struct sequence *first, uint32_t more, bool all)
{
    struct search search = { .found = NULL };

    assert_true(first->count + more <= STEPS);
    sml_table_init(&search.states, &sml_mem_libc, 1 << 24);
    found(&search, first);
    search_on(&search, more, all);
    world_free();
    sml_table_fini(&search.states);
    free(search.found);
    return search.count;
}

/* --- tests ------------------------------------------------------------------------------- */

static const enum kind one[] = { ONCE, AGAIN, KEYED, TRANS, BARE };
static const enum kind two[][2] = { { ONCE, TRANS }, { TRANS, ONCE }, { TRANS, TRANS },
                                    { BARE, ONCE },  { ONCE, AGAIN }, { KEYED, KEYED } };

static void every_sequence_of_one_call(void **state)
{
    const struct sequence none = { .count = 0 };

    (void)state;
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
        world_kinds[0] = one[i];
        world_kinds[1] = NO_CALL;
        assert_true(search_from(&none, 9, true) > 1000);
    }
}

/* The search ends by itself: these are all states there are. */
static void every_state_of_one_call(void **state)
{
    const struct sequence none = { .count = 0 };

    (void)state;
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
        size_t count;

        world_kinds[0] = one[i];
        world_kinds[1] = NO_CALL;
        count = search_from(&none, STEPS - 1, false);
        assert_int_equal(count, search_from(&none, STEPS, false));
        assert_true(count > 100);
    }
}

static void states_of_two_calls(void **state)
{
    const struct sequence none = { .count = 0 };

    (void)state;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
        memcpy(world_kinds, two[i], sizeof world_kinds);
        assert_true(search_from(&none, 11, false) > 1000);
    }
}

/* The second call is over and released, the first waits: from here on base overtakes it. */
static void states_of_a_call_that_was_overtaken(void **state)
{
    static const uint8_t way[] = {
        CALL * CALLS, CALL * CALLS + 1, TAKE * CALLS,      TAKE * CALLS,       GO * CALLS + 1,
        PULL * CALLS, COMMIT * CALLS,   BEGIN * CALLS + 1, FINISH * CALLS + 1, TX_OK * CALLS + 1,
        PULL * CALLS, COMMIT * CALLS,   READ * CALLS,      ACK * CALLS + 1,
    };

    (void)state;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
        struct sequence first = { .count = 0 };

        memcpy(world_kinds, two[i], sizeof world_kinds);
        for (size_t k = 0; k < sizeof way; k++) {
            world_replay(&first);
            if (world_may(way[k]))
                first.steps[first.count++] = way[k];
        }
        assert_true(search_from(&first, 14, false) > 1000);
    }
}

int store_searching(void)
{
    const struct CMUnitTest searching[] = {
        ROW("every sequence of one call", every_sequence_of_one_call),
        ROW("every state of one call", every_state_of_one_call),
        ROW("states of two calls", states_of_two_calls),
        ROW("states of a call that was overtaken", states_of_a_call_that_was_overtaken),
    };

    return cmocka_run_group_tests(searching, NULL, NULL);
}
