/* SPDX-License-Identifier: MIT */
/* test_crash.c - power cuts, at every sync and at random writes, of a store that changes at random.
 *
 * Beside the store a model is changed in the same way. At each cut two states of the model are
 * known: what was committed, and what is being committed. The store that is found after the cut
 * must be one of the two, whole; and so it must be if the power fails again while it is recovered.
 * The seed of a run that fails is printed: test_crash SEED runs that one alone. */
#include "io/kit.h"

#include <fcntl.h>
#include <sqlite3.h>

#include <semel/sqlite.h>

#include "base/time.h"
#include "fault/crash_vfs.h"
#include "sqlite/sqlite_internal.h"

#define ROWS 14
#define KEYS 8
#define STEPS 24
#define SEEDS 8
#define CUTS_MAX 400

struct item {
    uint64_t row; /* rows only */
    uint32_t tag; /* 0: it is not there */
    uint32_t size;
};

struct state {
    struct item rows[2][ROWS];
    struct item keys[KEYS];
    uint64_t effects; /* sum of what handlers added */
};

struct cut {
    struct crash_capture *capture;
    struct state before, after;
    uint8_t page[SML_LOCKPAGE_BYTES];
    bool has_page;
};

static struct {
    char directory[64];
    char path[80], check[80];
    uint32_t seed, first_seed;
    struct semel_store *store;
    struct state done, doing; /* committed; being committed */
    struct cut cuts[CUTS_MAX];
    int cut_count;
    bool sync_off;
    /* What was found. */
    int checks, lost, found_before, found_after, found_again;
    char why[200];
} t;

static uint32_t random_of(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static uint32_t upto(uint32_t most)
{
    return random_of(&t.seed) % most;
}

/* --- contents ------------------------------------------------------------------------------ */

static uint8_t *make_bytes(const struct item *item)
{
    uint8_t *bytes = malloc(item->size);

    assert_non_null(bytes);
    for (uint32_t i = 0; i < item->size; i++)
        bytes[i] = (uint8_t)(item->tag * 31 + i * 7 + (i >> 8));
    memcpy(bytes, &item->tag, 4);
    memcpy(bytes + 4, &item->size, 4);
    return bytes;
}

static bool is_item(const struct item *item, struct semel_bytes record)
{
    uint8_t *bytes;
    bool same;

    if (item->tag == 0 || record.size != item->size)
        return false;
    bytes = make_bytes(item);
    same = memcmp(bytes, record.data, record.size) == 0;
    free(bytes);
    return same;
}

static uint32_t new_size(void)
{
    switch (upto(12)) {
    case 0:
        return 8 + upto(60000);
    case 1:
    case 2:
        return 8 + upto(5000);
    default:
        return 8 + upto(200);
    }
}

/* --- changes ------------------------------------------------------------------------------- */

static void hash_of(int key, uint8_t out[32])
{
    memset(out, 0, 32);
    out[0] = (uint8_t)(key + 1);
}

static enum sml_stored change_row(void)
{
    struct semel_store *store = t.store;
    int table = (int)upto(2);
    struct item *item = &t.doing.rows[table][upto(ROWS)];
    enum sml_store_table which = table ? SML_TABLE_CALLS : SML_TABLE_SESSIONS;
    enum sml_stored stored;
    uint64_t row = item->tag ? item->row : 0;
    uint8_t *bytes;

    if (item->tag && upto(3) == 0) {
        item->tag = 0;
        return store->ops->forget(store, which, row);
    }
    item->tag = 1 + random_of(&t.seed);
    item->size = new_size();
    bytes = make_bytes(item);
    stored = store->ops->put(store, which, &row, semel_bytes(bytes, item->size));
    free(bytes);
    item->row = row;
    return stored;
}

static enum sml_stored change_key(void)
{
    struct semel_store *store = t.store;
    int key = (int)upto(KEYS);
    struct item *item = &t.doing.keys[key];
    enum sml_stored stored;
    uint8_t hash[32], *bytes;

    hash_of(key, hash);
    if (upto(4) == 0) {
        item->tag = 0;
        return store->ops->forget_key(store, hash);
    }
    item->tag = 1 + random_of(&t.seed);
    item->size = new_size();
    bytes = make_bytes(item);
    stored = store->ops->put_key(store, hash, upto(2) ? 1 + upto(1000) : 0,
                                 semel_bytes(bytes, item->size));
    free(bytes);
    return stored;
}

static enum sml_stored run_handler(void)
{
    struct semel_store *store = t.store;
    enum sml_stored stored = store->ops->guard(store, SML_NEVER, NULL);
    uint32_t amount = 1 + upto(100);
    bool keep = upto(3) > 0;
    char sql[120];

    if (stored != SML_STORED)
        return stored;
    (void)snprintf(sql, sizeof sql,
                   "CREATE TABLE IF NOT EXISTS mine (amount INTEGER);"
                   "INSERT INTO mine VALUES (%u)",
                   amount);
    (void)sqlite3_exec(semel_sqlite_handle(store), sql, NULL, NULL, NULL);
    if (keep)
        t.doing.effects += amount;
    return store->ops->unguard(store, keep);
}

static void must(enum sml_stored stored)
{
    if (stored != SML_STORED)
        fail_msg("seed %u: %s", t.first_seed, semel_store_error(t.store));
}

static void open_main(void)
{
    char text[600];

    t.store = NULL;
    if (semel_sqlite_open(&t.store, t.path, NULL, text, sizeof text) != SEMEL_OK)
        fail_msg("seed %u: %s", t.first_seed, text);
    sml_sqlite_of(t.store)->checkpoint = 25;
    if (t.sync_off) {
        sml_sqlite_of(t.store)->ours = true;
        assert_int_equal(
            sqlite3_exec(semel_sqlite_handle(t.store), "PRAGMA synchronous=OFF", NULL, NULL, NULL),
            SQLITE_OK);
        sml_sqlite_of(t.store)->ours = false;
    }
}

static void one_transaction(void)
{
    const struct sml_store_ops *ops = t.store->ops;

    must(ops->begin(t.store));
    t.doing = t.done;
    for (uint32_t i = upto(7); i > 0; i--)
        must(upto(4) == 0 ? run_handler() : upto(3) ? change_row() : change_key());
    if (upto(6) == 0) {
        ops->rollback(t.store);
        t.doing = t.done;
        return;
    }
    must(ops->commit(t.store));
    t.done = t.doing;
}

/* --- what is found after a cut ---------------------------------------------------------------- */

struct walk {
    const struct state *state;
    int table, found;
};

static bool match_row(uint64_t row, struct semel_bytes record, void *user)
{
    struct walk *walk = user;

    for (int i = 0; i < ROWS; i++) {
        const struct item *item = &walk->state->rows[walk->table][i];

        if (item->tag && item->row == row && is_item(item, record)) {
            walk->found++;
            return true;
        }
    }
    walk->found = -1;
    return false;
}

static bool same_rows(struct semel_store *store, const struct state *state)
{
    for (int table = 0; table < 2; table++) {
        struct walk walk = { state, table, 0 };
        int expected = 0;

        for (int i = 0; i < ROWS; i++)
            expected += state->rows[table][i].tag != 0;
        if (store->ops->each(store, table ? SML_TABLE_CALLS : SML_TABLE_SESSIONS, match_row,
                             &walk) != SEMEL_OK ||
            walk.found != expected)
            return false;
    }
    return true;
}

static bool same_keys(struct semel_store *store, const struct state *state)
{
    bool same = store->ops->begin(store) == SML_STORED;

    for (int i = 0; i < KEYS && same; i++) {
        struct semel_bytes record;
        uint8_t hash[32];

        hash_of(i, hash);
        same = store->ops->find_key(store, hash, &record) == SML_STORED &&
               (state->keys[i].tag ? record.data && is_item(&state->keys[i], record)
                                   : record.data == NULL);
    }
    store->ops->rollback(store);
    return same;
}

static int take_number(void *user, int columns, char **values, char **names)
{
    (void)columns;
    (void)names;
    *(uint64_t *)user = values[0] ? strtoull(values[0], NULL, 10) : 0;
    return 0;
}

static bool is_state(struct semel_store *store, const struct state *state)
{
    uint64_t effects = 0;

    (void)sqlite3_exec(semel_sqlite_handle(store), "SELECT sum(amount) FROM mine", take_number,
                       &effects, NULL);
    return effects == state->effects && same_rows(store, state) && same_keys(store, state);
}

static void read_page(struct cut *cut, const char *path)
{
    char name[100];
    int fd;

    (void)snprintf(name, sizeof name, "%s-semel", path);
    fd = open(name, O_RDONLY);
    cut->has_page = fd >= 0 && read(fd, cut->page, sizeof cut->page) == sizeof cut->page;
    if (fd >= 0)
        (void)close(fd);
}

static void write_page(const struct cut *cut)
{
    char name[100];
    int fd;

    (void)snprintf(name, sizeof name, "%s-semel", t.check);
    (void)unlink(name);
    if (!cut->has_page || upto(4) == 0)
        return; /* nor need the page be there */
    fd = open(name, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, cut->page, sizeof cut->page), sizeof cut->page);
    (void)close(fd);
}

static bool is_usable(struct semel_store *store)
{
    uint64_t row = 0;

    return store->ops->begin(store) == SML_STORED &&
           store->ops->put(store, SML_TABLE_CALLS, &row, semel_bytes("usable", 6)) == SML_STORED &&
           store->ops->forget(store, SML_TABLE_CALLS, row) == SML_STORED &&
           store->ops->commit(store) == SML_STORED;
}

/* Captures while a store is recovered. */
struct again {
    struct cut cuts[3];
    int count;
};

static void capture_again(bool is_sync, void *user)
{
    struct again *again = user;

    if (again->count == 3 || (!is_sync && upto(3) > 0))
        return;
    read_page(&again->cuts[again->count], t.check);
    again->cuts[again->count++].capture = crash_capture();
}

/* Open what is under t.check. Is it one of these states? `out_found` receives which. */
static bool find_state(const struct state *before, const struct state *after, struct again *again,
                       const struct state **out_found)
{
    struct semel_store *store = NULL;
    bool good;

    *out_found = NULL;
    if (again)
        crash_watch(capture_again, again);
    if (semel_sqlite_open(&store, t.check, NULL, t.why, sizeof t.why) != SEMEL_OK) {
        crash_watch(NULL, NULL);
        return false;
    }
    if (is_state(store, before))
        *out_found = before;
    else if (is_state(store, after))
        *out_found = after;
    (void)snprintf(t.why, sizeof t.why, "neither what was committed nor what was about to be");
    good = *out_found != NULL && is_usable(store);
    semel_store_close(store);
    crash_watch(NULL, NULL);
    return good;
}

/* Once more, with a cut in the recovery. */
static bool survives_another_cut(struct again *again, const struct state *found)
{
    bool good = found != NULL;

    for (int i = 0; i < again->count; i++) {
        enum crash_keep keep = (enum crash_keep)upto(CRASH_KEEPS);
        const struct state *which;

        if (good) {
            crash_restore(again->cuts[i].capture, t.check, t.check, keep, &t.seed);
            write_page(&again->cuts[i]);
            good = find_state(found, found, NULL, &which);
            t.found_again++;
        }
        crash_capture_free(again->cuts[i].capture);
    }
    return good;
}

static bool check_cut(const struct cut *cut, enum crash_keep keep)
{
    struct again again = { .count = 0 };
    const struct state *found;
    bool good;

    crash_restore(cut->capture, t.path, t.check, keep, &t.seed);
    write_page(cut);
    t.checks++;
    good = find_state(&cut->before, &cut->after, upto(4) == 0 ? &again : NULL, &found);
    t.found_before += found == &cut->before;
    t.found_after += found == &cut->after;
    return survives_another_cut(&again, good ? found : NULL) && good;
}

static void check_cuts(void)
{
    crash_watch(NULL, NULL);
    for (int i = 0; i < t.cut_count; i++) {
        for (int keep = 0; keep < CRASH_KEEPS; keep++) {
            bool honest = !t.sync_off;

            if (check_cut(&t.cuts[i], (enum crash_keep)keep))
                continue;
            t.lost++;
            if (honest)
                return;
        }
        crash_capture_free(t.cuts[i].capture);
    }
    t.cut_count = 0;
}

/* --- a run ----------------------------------------------------------------------------------- */

static void cut_here(bool is_sync, void *user)
{
    struct cut *cut = &t.cuts[t.cut_count];

    (void)user;
    if (t.cut_count == CUTS_MAX || (!is_sync && upto(7) > 0))
        return;
    t.cut_count++;
    cut->capture = crash_capture();
    cut->before = t.done;
    cut->after = t.doing;
    read_page(cut, t.path);
}

static void remove_files(void)
{
    static const char *const ends[] = { "", "-wal", "-shm", "-journal", "-semel" };
    char name[120];

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        (void)snprintf(name, sizeof name, "%s%s", t.path, ends[i]);
        (void)unlink(name);
        (void)snprintf(name, sizeof name, "%s%s", t.check, ends[i]);
        (void)unlink(name);
    }
}

static void step(void)
{
    crash_watch(cut_here, NULL);
    switch (upto(10)) {
    case 0:
        t.store->ops->tidy(t.store);
        break;
    case 1:
        semel_store_close(t.store);
        open_main();
        break;
    default:
        one_transaction();
    }
    check_cuts();
}

/* Stops at the first loss, unless losses are what is wanted. */
static void run_seed(uint32_t seed, bool drop_syncs, bool sync_off)
{
    memset(&t.done, 0, sizeof t.done);
    memset(&t.doing, 0, sizeof t.doing);
    t.seed = t.first_seed = seed;
    t.sync_off = sync_off || drop_syncs;
    crash_reset();
    crash_drop_syncs(drop_syncs);
    crash_watch(cut_here, NULL);
    t.sync_off = sync_off;
    open_main();
    t.sync_off = sync_off || drop_syncs;
    check_cuts();
    for (int i = 0; i < STEPS && (t.lost == 0 || t.sync_off); i++)
        step();
    semel_store_close(t.store);
    crash_reset();
    for (int i = 0; i < t.cut_count; i++)
        crash_capture_free(t.cuts[i].capture);
    t.cut_count = 0;
    remove_files();
}

static int make_place(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0);
    kit_directory(t.directory, sizeof t.directory);
    (void)snprintf(t.path, sizeof t.path, "%s/db", t.directory);
    (void)snprintf(t.check, sizeof t.check, "%s/found", t.directory);
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    remove_files();
    return rmdir(t.directory);
}

static uint32_t only_seed;

static void what_is_committed_survives_power_cuts(void **state)
{
    uint32_t first = only_seed ? only_seed : 1, last = only_seed ? only_seed : SEEDS;

    (void)state;
    for (uint32_t seed = first; seed <= last; seed++) {
        run_seed(seed, false, false);
        if (t.lost > 0)
            fail_msg("seed %u: %s", seed, t.why);
    }
    print_message("%d cuts, %d found before, %d after, %d cut again\n", t.checks, t.found_before,
                  t.found_after, t.found_again);
    if (only_seed)
        return;
    /* Else it would prove nothing. */
    assert_true(t.checks > 1000 && t.found_before > 100 && t.found_after > 100);
    assert_true(t.found_again > 50);
}

static void without_syncs_losses_are_found(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 2; seed++)
        run_seed(seed, true, false);
    print_message("%d cuts, %d losses\n", t.checks, t.lost);
    assert_true(t.lost > 20);
}

static void with_synchronous_off_losses_are_found(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 2; seed++)
        run_seed(seed, false, true);
    print_message("%d cuts, %d losses\n", t.checks, t.lost);
    assert_true(t.lost > 20);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        { "what is committed survives power cuts", what_is_committed_survives_power_cuts,
          make_place, remove_place, NULL },
        { "without syncs losses are found", without_syncs_losses_are_found, make_place,
          remove_place, NULL },
        { "with synchronous off losses are found", with_synchronous_off_losses_are_found,
          make_place, remove_place, NULL },
    };

    only_seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    crash_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
