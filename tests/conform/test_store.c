/* SPDX-License-Identifier: MIT */
/* test_store.c - what every store does, whatever it is made of: each behaviour is a test per
 * kind. */
#include "io/kit.h"

#include "os/clock.h"
#include "store_words.h"

#define BIG_BYTES 16777216

/* --- a table as one text: "1=one 2=two", numbers left out where they are not to be known --- */

struct dump {
    char text[4096];
    size_t at;
    bool numbered;
    int left; /* records until the walk is ended */
};

static bool dump_record(uint64_t row, struct semel_bytes record, void *user)
{
    struct dump *dump = user;
    const char *space = dump->at > 0 ? " " : "";

    if (dump->numbered)
        dump->at += (size_t)snprintf(dump->text + dump->at, sizeof dump->text - dump->at,
                                     "%s%llu=%.*s", space, (unsigned long long)row,
                                     (int)record.size, (const char *)record.data);
    else
        dump->at += (size_t)snprintf(dump->text + dump->at, sizeof dump->text - dump->at, "%s%.*s",
                                     space, (int)record.size, (const char *)record.data);
    assert_true(dump->at < sizeof dump->text);
    return --dump->left != 0;
}

static void expect_table(struct ground *g, enum sml_store_table table, bool numbered,
                         const char *text)
{
    struct dump dump = { .numbered = numbered };

    assert_int_equal(g->store->ops->each(g->store, table, dump_record, &dump), SEMEL_OK);
    assert_string_equal(dump.text, text);
}

static void expect_sessions(struct ground *g, const char *text)
{
    expect_table(g, SML_TABLE_SESSIONS, false, text);
}

static void expect_calls(struct ground *g, const char *text)
{
    expect_table(g, SML_TABLE_CALLS, false, text);
}

/* --- records ----------------------------------------------------------------------------- */

static void records_come_back_in_order(void **state)
{
    static const enum sml_store_table tables[] = { SML_TABLE_SESSIONS, SML_TABLE_CALLS };
    struct ground g;

    open_ground(&g, state);
    for (int t = 0; t < 2; t++) {
        uint64_t rows[4];
        char expected[200];

        begin(&g);
        rows[0] = add_text(&g, tables[t], "one");
        rows[1] = add_text(&g, tables[t], "two");
        rows[2] = add_text(&g, tables[t], "three");
        commit(&g);
        begin(&g);
        set(&g, tables[t], rows[0], "ONE, and longer than it was");
        forget(&g, tables[t], rows[1]);
        rows[3] = add_text(&g, tables[t], "four");
        commit(&g);
        assert_true(rows[0] < rows[1] && rows[1] < rows[2] && rows[2] < rows[3]);
        (void)snprintf(
            expected, sizeof expected, "%llu=ONE, and longer than it was %llu=three %llu=four",
            (unsigned long long)rows[0], (unsigned long long)rows[2], (unsigned long long)rows[3]);
        expect_table(&g, tables[t], true, expected);
        ground_reopen(&g);
        expect_table(&g, tables[t], true, expected);
    }
    ground_remove(&g);
}

static void a_walk_ends_when_told(void **state)
{
    struct dump dump = { .left = 2 };
    struct ground g;

    open_ground(&g, state);
    expect_calls(&g, "");
    begin(&g);
    for (int i = 0; i < 5; i++)
        (void)add_text(&g, SML_TABLE_CALLS, "x");
    commit(&g);
    assert_int_equal(g.store->ops->each(g.store, SML_TABLE_CALLS, dump_record, &dump), SEMEL_OK);
    assert_string_equal(dump.text, "x x");
    expect_calls(&g, "x x x x x");
    expect_sessions(&g, "");
    ground_remove(&g);
}

static void a_session_s_number_is_never_given_again(void **state)
{
    struct ground g;
    uint64_t first, second, third;

    open_ground(&g, state);
    begin(&g);
    first = add_text(&g, SML_TABLE_SESSIONS, "first");
    second = add_text(&g, SML_TABLE_SESSIONS, "second");
    commit(&g);
    begin(&g);
    forget(&g, SML_TABLE_SESSIONS, first);
    forget(&g, SML_TABLE_SESSIONS, second);
    commit(&g);
    ground_reopen(&g);
    begin(&g);
    third = add_text(&g, SML_TABLE_SESSIONS, "third");
    commit(&g);
    assert_true(third > second);
    ground_remove(&g);
}

static void forgetting_what_is_not_there_is_fine(void **state)
{
    struct ground g;

    open_ground(&g, state);
    begin(&g);
    forget(&g, SML_TABLE_SESSIONS, 17);
    forget(&g, SML_TABLE_CALLS, 17);
    assert_int_equal(g.store->ops->forget_key(g.store, hash_of(3)), SML_STORED);
    (void)add_text(&g, SML_TABLE_CALLS, "x");
    commit(&g);
    expect_calls(&g, "x");
    ground_remove(&g);
}

static void fill(uint8_t *bytes, size_t size, unsigned salt)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 131 + (i >> 12) * 17 + salt);
}

struct big {
    const uint8_t *wanted;
    size_t size;
    int seen;
};

static bool compare_big(uint64_t row, struct semel_bytes record, void *user)
{
    struct big *big = user;

    (void)row;
    assert_int_equal(record.size, big->size);
    if (record.size > 0)
        assert_memory_equal(record.data, big->wanted, big->size);
    big->seen++;
    return true;
}

static void expect_same(struct ground *g, enum sml_store_table table, const uint8_t *wanted,
                        size_t size)
{
    struct big big = { wanted, size, 0 };

    assert_int_equal(g->store->ops->each(g->store, table, compare_big, &big), SEMEL_OK);
    assert_int_equal(big.seen, 1);
}

static void big_records(void **state)
{
    uint8_t *bytes = malloc(BIG_BYTES);
    struct semel_bytes found;
    struct ground g;
    uint64_t row;

    assert_non_null(bytes);
    open_ground(&g, state);
    fill(bytes, BIG_BYTES, 1);
    begin(&g);
    row = add(&g, SML_TABLE_CALLS, semel_bytes(bytes, BIG_BYTES));
    assert_int_equal(g.store->ops->put_key(g.store, hash_of(1), 0, semel_bytes(bytes, BIG_BYTES)),
                     SML_STORED);
    (void)add(&g, SML_TABLE_SESSIONS, semel_bytes(bytes, 600000));
    commit(&g);
    ground_reopen(&g);
    expect_same(&g, SML_TABLE_CALLS, bytes, BIG_BYTES);
    expect_same(&g, SML_TABLE_UNFINISHED_KEYS, bytes, BIG_BYTES);
    expect_same(&g, SML_TABLE_SESSIONS, bytes, 600000);
    begin(&g);
    assert_int_equal(g.store->ops->find_key(g.store, hash_of(1), &found), SML_STORED);
    assert_int_equal(found.size, BIG_BYTES);
    assert_memory_equal(found.data, bytes, BIG_BYTES);
    set(&g, SML_TABLE_CALLS, row, "small again");
    put_key(&g, 1, 0, "so is the key");
    commit(&g);
    expect_calls(&g, "small again");
    expect_table(&g, SML_TABLE_UNFINISHED_KEYS, false, "so is the key");
    ground_remove(&g);
    free(bytes);
}

/* From nothing over the bounds of a page and of what overflows it. */
static void records_of_every_size(void **state)
{
    static const size_t around[] = { 0, 50, 480, 1000, 2000, 4050, 8150, 65530 };
    uint8_t *bytes = malloc(70000);
    struct ground g;
    uint64_t row;

    assert_non_null(bytes);
    fill(bytes, 70000, 3);
    open_ground(&g, state);
    begin(&g);
    row = add(&g, SML_TABLE_CALLS, semel_bytes(bytes, 1));
    commit(&g);
    for (size_t i = 0; i < sizeof around / sizeof *around; i++)
        for (size_t size = around[i]; size < around[i] + 30; size += 3) {
            begin(&g);
            assert_int_equal(
                g.store->ops->put(g.store, SML_TABLE_CALLS, &row, semel_bytes(bytes, size)),
                SML_STORED);
            commit(&g);
            expect_same(&g, SML_TABLE_CALLS, bytes, size);
        }
    ground_remove(&g);
    free(bytes);
}

/* A call's record with a reply of no bytes: the record is not empty, its body is. */
static void empty_bodies(void **state)
{
    struct sml_call_record record = { .session = 1,
                                      .xid = 9,
                                      .state = SML_CALL_ENDED,
                                      .method = { "m", 1 },
                                      .verdict = { .outcome = SEMEL_VALUE } };
    uint8_t bytes[200];
    size_t size = sml_call_record_bytes(&record);
    struct ground g;

    assert_true(size <= sizeof bytes);
    sml_call_record_encode(&record, bytes);
    open_ground(&g, state);
    begin(&g);
    (void)add(&g, SML_TABLE_CALLS, semel_bytes(bytes, size));
    commit(&g);
    ground_reopen(&g);
    expect_same(&g, SML_TABLE_CALLS, bytes, size);
    assert_null(sml_call_record_decode(semel_bytes(bytes, size), &record));
    assert_int_equal(record.verdict.body.size, 0);
    ground_remove(&g);
}

/* --- keys -------------------------------------------------------------------------------- */

static void keys_are_put_found_and_forgotten(void **state)
{
    struct ground g;

    open_ground(&g, state);
    begin(&g);
    expect_key(&g, 1, NULL);
    put_key(&g, 1, 0, "begun");
    expect_key(&g, 1, "begun");
    put_key(&g, 2, 0, "another");
    put_key(&g, 1, 5, "ended");
    expect_key(&g, 1, "ended");
    expect_key(&g, 2, "another");
    expect_key(&g, 3, NULL);
    commit(&g);
    ground_reopen(&g);
    begin(&g);
    expect_key(&g, 1, "ended");
    assert_int_equal(g.store->ops->forget_key(g.store, hash_of(1)), SML_STORED);
    expect_key(&g, 1, NULL);
    expect_key(&g, 2, "another");
    commit(&g);
    ground_reopen(&g);
    begin(&g);
    expect_key(&g, 1, NULL);
    expect_key(&g, 2, "another");
    commit(&g);
    ground_remove(&g);
}

static void a_found_key_is_lent_until_the_next_operation(void **state)
{
    struct semel_bytes record;
    struct ground g;

    open_ground(&g, state);
    begin(&g);
    put_key(&g, 1, 5, "lent");
    commit(&g);
    begin(&g);
    assert_int_equal(g.store->ops->find_key(g.store, hash_of(1), &record), SML_STORED);
    assert_true(g.store->ops->clock_ms(g.store) > 0);
    assert_memory_equal(record.data, "lent", 4);
    put_key(&g, 1, 6, "changed while it was lent");
    expect_key(&g, 1, "changed while it was lent");
    assert_int_equal(g.store->ops->find_key(g.store, hash_of(1), &record), SML_STORED);
    assert_int_equal(g.store->ops->forget_key(g.store, hash_of(1)), SML_STORED);
    assert_int_equal(g.store->ops->find_key(g.store, hash_of(1), &record), SML_STORED);
    assert_null(record.data);
    put_key(&g, 1, 7, "kept");
    assert_int_equal(g.store->ops->find_key(g.store, hash_of(1), &record), SML_STORED);
    commit(&g);
    ground_remove(&g);
}

static uint32_t purge(struct ground *g, uint64_t before, uint32_t most)
{
    uint32_t count = 77;

    assert_int_equal(g->store->ops->purge_keys(g->store, before, most, &count), SML_STORED);
    return count;
}

static void old_keys_are_purged_unfinished_ones_never(void **state)
{
    struct ground g;

    open_ground(&g, state);
    begin(&g);
    for (uint8_t i = 1; i <= 9; i++)
        put_key(&g, i, (uint64_t)i * 100, "old");
    put_key(&g, 20, 0, "unfinished");
    assert_int_equal(purge(&g, 100, 5), 0);
    assert_int_equal(purge(&g, 301, 5), 3);
    expect_key(&g, 3, NULL);
    expect_key(&g, 4, "old");
    commit(&g);
    begin(&g);
    assert_int_equal(purge(&g, UINT64_C(1) << 62, 4), 4);
    assert_int_equal(purge(&g, UINT64_C(1) << 62, 4), 2);
    assert_int_equal(purge(&g, UINT64_C(1) << 62, 4), 0);
    expect_key(&g, 9, NULL);
    expect_key(&g, 20, "unfinished");
    commit(&g);
    ground_remove(&g);
}

static void only_unfinished_keys_are_walked_over(void **state)
{
    struct dump dump = { .left = 0 };
    struct ground g;

    open_ground(&g, state);
    expect_table(&g, SML_TABLE_UNFINISHED_KEYS, false, "");
    begin(&g);
    put_key(&g, 1, 0, "begun");
    put_key(&g, 2, 5, "ended");
    put_key(&g, 3, 0, "begun");
    commit(&g);
    begin(&g);
    put_key(&g, 3, 9, "ended");
    put_key(&g, 4, 0, "begun");
    commit(&g);
    ground_reopen(&g);
    assert_int_equal(g.store->ops->each(g.store, SML_TABLE_UNFINISHED_KEYS, dump_record, &dump),
                     SEMEL_OK);
    assert_string_equal(dump.text, "begun begun");
    ground_remove(&g);
}

/* --- transactions ------------------------------------------------------------------------ */

static void what_is_rolled_back_leaves_nothing(void **state)
{
    struct ground g;
    uint64_t row;

    open_ground(&g, state);
    begin(&g);
    row = add_text(&g, SML_TABLE_CALLS, "kept");
    put_key(&g, 1, 0, "kept");
    commit(&g);
    begin(&g);
    set(&g, SML_TABLE_CALLS, row, "changed");
    (void)add_text(&g, SML_TABLE_CALLS, "more");
    (void)add_text(&g, SML_TABLE_SESSIONS, "more");
    put_key(&g, 1, 5, "changed");
    put_key(&g, 2, 0, "more");
    g.store->ops->rollback(g.store);
    g.store->ops->rollback(g.store); /* there is none: nothing happens */
    expect_calls(&g, "kept");
    expect_sessions(&g, "");
    expect_table(&g, SML_TABLE_UNFINISHED_KEYS, false, "kept");
    begin(&g);
    forget(&g, SML_TABLE_CALLS, row);
    assert_int_equal(g.store->ops->forget_key(g.store, hash_of(1)), SML_STORED);
    g.store->ops->rollback(g.store);
    begin(&g);
    expect_key(&g, 1, "kept");
    expect_key(&g, 2, NULL);
    commit(&g);
    expect_calls(&g, "kept");
    ground_remove(&g);
}

static void what_is_not_committed_ends_with_the_store(void **state)
{
    struct ground g;

    open_ground(&g, state);
    begin(&g);
    (void)add_text(&g, SML_TABLE_CALLS, "kept");
    commit(&g);
    begin(&g);
    (void)add_text(&g, SML_TABLE_CALLS, "lost");
    put_key(&g, 1, 0, "lost");
    ground_reopen(&g);
    expect_calls(&g, "kept");
    expect_table(&g, SML_TABLE_UNFINISHED_KEYS, false, "");
    ground_remove(&g);
}

static void do_two_and_a_half(struct semel_store *store)
{
    uint64_t row;

    for (int i = 0; i < 3; i++) {
        row = 0;
        if (store->ops->begin(store) != SML_STORED ||
            store->ops->put(store, SML_TABLE_CALLS, &row, semel_bytes(&"abc"[i], 1)) !=
                SML_STORED ||
            (i < 2 && store->ops->commit(store) != SML_STORED))
            _exit(1);
    }
}

static void or_with_its_process(void **state)
{
    struct ground g;

    open_ground(&g, state);
    ground_close(&g);
    g.kind->die(&g, do_two_and_a_half);
    ground_reopen(&g);
    expect_calls(&g, "a b");
    assert_false(g.store->has_suspect);
    ground_remove(&g);
}

static void an_empty_transaction_is_fine(void **state)
{
    struct ground g;

    open_ground(&g, state);
    for (int i = 0; i < 3; i++) {
        begin(&g);
        commit(&g);
    }
    begin(&g);
    g.store->ops->rollback(g.store);
    g.store->ops->tidy(g.store);
    expect_calls(&g, "");
    ground_remove(&g);
}

static void the_identity_stays(void **state)
{
    struct semel_store_info first, later;
    struct ground g, other;

    open_ground(&g, state);
    open_ground(&other, state);
    semel_store_info(g.store, &first);
    assert_int_equal(first.generation, 1);
    assert_true(first.clock_ms > 0);
    semel_store_info(other.store, &later);
    assert_memory_not_equal(first.id, later.id, 16);
    ground_reopen(&g);
    semel_store_info(g.store, &later);
    assert_memory_equal(first.id, later.id, 16);
    assert_int_equal(later.generation, 1);
    assert_false(g.store->read_only);
    assert_int_equal(g.store->abi, SML_STORE_ABI);
    ground_remove(&g);
    ground_remove(&other);
}

/* --- handlers ---------------------------------------------------------------------------- */

static void guard(struct ground *g)
{
    assert_int_equal(g->store->ops->guard(g->store, SML_NEVER, NULL), SML_STORED);
}

static void unguard(struct ground *g, bool keep)
{
    assert_int_equal(g->store->ops->unguard(g->store, keep), SML_STORED);
}

static void a_handler_s_work_is_kept_or_undone(void **state)
{
    struct ground g;

    open_ground(&g, state);
    begin(&g);
    (void)add_text(&g, SML_TABLE_CALLS, "before");
    for (int i = 0; i < 5; i++) {
        guard(&g);
        g.kind->work(g.store, 1 << i);
        unguard(&g, i % 2 == 0);
        (void)add_text(&g, SML_TABLE_CALLS, i % 2 == 0 ? "kept" : "undone");
    }
    assert_int_equal(g.kind->sum(&g), 0); /* not yet */
    commit(&g);
    assert_int_equal(g.kind->sum(&g), 1 + 4 + 16);
    expect_calls(&g, "before kept undone kept undone kept");
    begin(&g);
    guard(&g);
    g.kind->work(g.store, 100);
    unguard(&g, true);
    g.store->ops->rollback(g.store);
    ground_reopen(&g);
    assert_int_equal(g.kind->sum(&g), 1 + 4 + 16);
    ground_remove(&g);
}

static void a_rollback_may_come_inside_a_guard(void **state)
{
    struct ground g;

    open_ground(&g, state);
    begin(&g);
    guard(&g);
    g.kind->work(g.store, 1);
    g.store->ops->rollback(g.store);
    begin(&g);
    guard(&g);
    g.kind->work(g.store, 2);
    unguard(&g, true);
    commit(&g);
    assert_int_equal(g.kind->sum(&g), 2);
    begin(&g);
    guard(&g);
    ground_reopen(&g);
    assert_int_equal(g.kind->sum(&g), 2);
    ground_remove(&g);
}

static void a_lost_transaction_is_not_stored(void **state)
{
    struct ground g;

    open_ground(&g, state);
    for (int i = 0; i < 2; i++) {
        begin(&g);
        (void)add_text(&g, SML_TABLE_CALLS, "before");
        guard(&g);
        g.kind->work(g.store, 1);
        g.kind->lose(g.store);
        assert_int_equal(g.store->ops->unguard(g.store, i == 0), SML_NOT_STORED);
        assert_int_equal(g.store->status, SEMEL_ROLLED_BACK);
        assert_non_null(strstr(semel_store_error(g.store), "transaction"));
    }
    expect_calls(&g, "");
    begin(&g);
    (void)add_text(&g, SML_TABLE_CALLS, "after");
    guard(&g);
    g.kind->work(g.store, 4);
    unguard(&g, true);
    commit(&g);
    expect_calls(&g, "after");
    assert_int_equal(g.kind->sum(&g), 4);
    ground_remove(&g);
}

static void die_in_a_handler(struct semel_store *store)
{
    struct sml_mark mark = { .session = { { 1, 2, 3 } },
                             .xid = 77,
                             .fingerprint = { 5, 6 },
                             .method_bytes = 3,
                             .key_bytes = 2,
                             .crashes = 2,
                             .method = "add",
                             .key = "k1" };

    store->ops->mark(store, &mark);
}

static void die_after_a_handler(struct semel_store *store)
{
    die_in_a_handler(store);
    store->ops->mark(store, NULL);
}

static void a_handler_that_dies_is_remembered(void **state)
{
    struct ground g;

    open_ground(&g, state);
    ground_close(&g);
    g.kind->die(&g, die_in_a_handler);
    ground_reopen(&g);
    assert_true(g.store->has_suspect);
    assert_int_equal(g.store->suspect.xid, 77);
    assert_int_equal(g.store->suspect.session.bytes[2], 3);
    assert_true(g.store->suspect.fingerprint.a == 5 && g.store->suspect.fingerprint.b == 6);
    assert_int_equal(g.store->suspect.method_bytes, 3);
    assert_string_equal(g.store->suspect.method, "add");
    assert_string_equal(g.store->suspect.key, "k1");
    assert_int_equal(g.store->suspect.crashes, 2);
    /* It stays until it is said that it was counted. */
    ground_reopen(&g);
    assert_true(g.store->has_suspect);
    g.store->ops->mark(g.store, NULL);
    ground_reopen(&g);
    assert_false(g.store->has_suspect);
    ground_close(&g);
    g.kind->die(&g, die_after_a_handler);
    ground_reopen(&g);
    assert_false(g.store->has_suspect);
    ground_remove(&g);
}

/* --- generations and time ---------------------------------------------------------------- */

static void a_new_generation_has_keys_and_no_sessions(void **state)
{
    struct ground g;
    uint64_t before = 1;

    open_ground(&g, state);
    begin(&g);
    (void)add_text(&g, SML_TABLE_SESSIONS, "session");
    (void)add_text(&g, SML_TABLE_CALLS, "call");
    put_key(&g, 1, 5, "ended");
    put_key(&g, 2, 0, "begun");
    guard(&g);
    g.kind->work(g.store, 3);
    unguard(&g, true);
    commit(&g);
    for (unsigned i = 2; i <= 3; i++) {
        assert_int_equal(semel_store_renew(g.store), SEMEL_OK);
        assert_true(g.store->generation > before);
        before = g.store->generation;
        if (i == 3)
            ground_reopen(&g);
        assert_int_equal(g.store->generation, before);
        expect_sessions(&g, "");
        expect_calls(&g, "");
        expect_table(&g, SML_TABLE_UNFINISHED_KEYS, false, "begun");
        begin(&g);
        expect_key(&g, 1, "ended");
        commit(&g);
        assert_int_equal(g.kind->sum(&g), 3);
    }
    ground_remove(&g);
}

static void sleep_ms(int ms)
{
    (void)usleep((useconds_t)ms * 1000);
}

static void the_clock_rises_while_it_is_open(void **state)
{
    uint64_t first, second, third;
    struct ground g;

    open_ground(&g, state);
    first = g.store->ops->clock_ms(g.store);
    sleep_ms(30);
    second = g.store->ops->clock_ms(g.store);
    assert_true(second >= first + 30);
    begin(&g);
    commit(&g);
    second = g.store->ops->clock_ms(g.store);
    ground_close(&g);
    sleep_ms(400);
    ground_reopen(&g);
    third = g.store->ops->clock_ms(g.store);
    /* Never back, and not by as much as it was closed. */
    assert_true(third + 30 >= second);
    assert_true(third < second + 350);
    begin(&g);
    put_key(&g, 1, third, "old");
    commit(&g);
    second = g.store->ops->clock_ms(g.store);
    ground_reopen(&g);
    assert_true(g.store->ops->clock_ms(g.store) >= third);
    ground_remove(&g);
}

static const struct {
    const char *name;
    CMUnitTestFunction run;
} behaviours[] = {
    { "records come back in order", records_come_back_in_order },
    { "a walk ends when told", a_walk_ends_when_told },
    { "a session's number is never given again", a_session_s_number_is_never_given_again },
    { "forgetting what is not there is fine", forgetting_what_is_not_there_is_fine },
    { "big records", big_records },
    { "records of every size", records_of_every_size },
    { "empty bodies", empty_bodies },
    { "keys are put, found and forgotten", keys_are_put_found_and_forgotten },
    { "a found key is lent until the next operation",
      a_found_key_is_lent_until_the_next_operation },
    { "old keys are purged, unfinished ones never", old_keys_are_purged_unfinished_ones_never },
    { "only unfinished keys are walked over", only_unfinished_keys_are_walked_over },
    { "what is rolled back leaves nothing", what_is_rolled_back_leaves_nothing },
    { "what is not committed ends with the store", what_is_not_committed_ends_with_the_store },
    { "what is not committed ends with its process", or_with_its_process },
    { "an empty transaction is fine", an_empty_transaction_is_fine },
    { "the identity stays", the_identity_stays },
    { "a handler's work is kept or undone", a_handler_s_work_is_kept_or_undone },
    { "a rollback may come inside a guard", a_rollback_may_come_inside_a_guard },
    { "a lost transaction is not stored", a_lost_transaction_is_not_stored },
    { "a handler that dies is remembered", a_handler_that_dies_is_remembered },
    { "a new generation has keys and no sessions", a_new_generation_has_keys_and_no_sessions },
    { "the clock rises while it is open", the_clock_rises_while_it_is_open },
    { "any order of changes", any_order_of_changes },
};
#define BEHAVIOURS (sizeof behaviours / sizeof *behaviours)

int main(void)
{
    size_t count = BEHAVIOURS * (size_t)store_kinds_count;
    struct CMUnitTest *tests = calloc(count, sizeof *tests);
    char(*names)[100] = calloc(count, sizeof *names);
    int failed;

    if (!tests || !names)
        return 1;
    for (size_t i = 0; i < count; i++) {
        const struct store_kind *kind = &store_kinds[i / BEHAVIOURS];

        (void)snprintf(names[i], sizeof names[i], "%s: %s", behaviours[i % BEHAVIOURS].name,
                       kind->name);
        tests[i].name = names[i];
        tests[i].test_func = behaviours[i % BEHAVIOURS].run;
        tests[i].initial_state = (void *)(uintptr_t)kind;
    }
    failed = _cmocka_run_group_tests("stores", tests, count, NULL, NULL);
    free(tests);
    free(names);
    return failed;
}
