/* SPDX-License-Identifier: MIT */
/* test_failures.c - a server with a store, and a client of it, while the n-th allocation, call of
 * the system or of the disk fails: for each n, until nothing fails any more; on a new store, and on
 * one that an earlier server left when it died in the middle of a handler.
 *
 * What the calls did is counted: transactional ones in a table of the same database, the others in
 * memory. Of each call what it was told must agree with that: a value is one effect, not executed
 * is none, unknown is at most one. Then the server is started again, without failures: calls that
 * were under way get their verdicts, keys still answer, and nothing has leaked. */
#include "io/kit.h"

#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <semel/semel.h>
#include <semel/sqlite.h>

#include "fault/failing.h"
#include "fault/crash_vfs.h"
#include "kit/kit.h"

#define GUARD_MS 20000 /* against a hang, not a measure */

enum { PLAIN_ONCE, PLAIN_ADD, KEYED_ONCE, KEYED_ADD, DEADLY_ONCE, DEADLY_ADD, CALLS };

static const struct {
    const char *method, *key;
} calls[CALLS] = {
    { "once", "" },  { "add", "" },    { "once", "k1" },
    { "add", "k2" }, { "once", "k3" }, { "add", "" },
};

struct ended {
    bool started, submitted;
    atomic_bool seen;
    enum semel_outcome outcome;
    enum semel_status status;
};

static struct {
    struct kit_place place;
    char path[120];
    struct semel_server *server;
    struct semel_client *client;
    struct ended ended[CALLS];
    atomic_int *once; /* effects in memory, of all processes */
    pid_t me;
    char what[100];
    unsigned stride;
    int seen_outcomes[4];
} t;

/* --- handlers -------------------------------------------------------------------------------- */

/* The body is the number of the call, as one letter, which shows which it is. */
static int call_of(const struct semel_request *request)
{
    struct semel_bytes body = semel_request_body(request);

    return body.size == 1 ? *(const char *)body.data - 'a' : 0;
}

/* The earlier server dies of some. */
static void die_of(const struct semel_request *request)
{
    if (getpid() != t.me && call_of(request) >= DEADLY_ONCE)
        (void)kill(getpid(), SIGKILL);
}

static void once(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    atomic_fetch_add(&t.once[call_of(request)], 1);
    die_of(request);
    /* No memory for the reply: it is dropped, and the effect is there. */
    (void)!semel_request_reply(request, body.data, body.size);
}

static void add(struct semel_request *request, struct semel_store *store, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    char sql[60];

    (void)user;
    (void)snprintf(sql, sizeof sql, "INSERT INTO mine VALUES (%d)", call_of(request));
    if (sqlite3_exec(semel_sqlite_handle(store), sql, NULL, NULL, NULL) != SQLITE_OK)
        return;
    die_of(request);
    (void)!semel_request_reply(request, body.data, body.size);
}

static int take_number(void *user, int columns, char **values, char **names)
{
    (void)columns;
    (void)names;
    *(int *)user = values[0] ? atoi(values[0]) : 0;
    return 0;
}

static int count_effects(int call)
{
    char sql[80];
    int count = 0;
    sqlite3 *db;

    if (strcmp(calls[call].method, "once") == 0)
        return atomic_load(&t.once[call]);
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM mine WHERE x = %d", call);
    assert_int_equal(sqlite3_open(t.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, take_number, &count, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return count;
}

/* --- servers and clients ---------------------------------------------------------------------- */

/* Whatever cannot be had, nothing of it stays. */
static bool start_server(bool must)
{
    struct semel_server_options options = { .workers = 2 };
    char text[600] = "";
    enum semel_status status = semel_sqlite_open(&options.store, t.path, NULL, text, sizeof text);

    t.server = NULL;
    if (status != SEMEL_OK) {
        if (must || text[0] == '\0')
            fail_msg("%s: opening: %s: %s", t.what, semel_status_name(status), text);
        return false;
    }
    status = semel_server_create(&t.server, &options);
    if (status != SEMEL_OK)
        semel_store_close(options.store);
    if (status == SEMEL_OK)
        status = semel_server_export(t.server, "once", once, NULL, NULL);
    if (status == SEMEL_OK)
        status = semel_server_export_transactional(t.server, "add", add, NULL, NULL);
    if (status == SEMEL_OK)
        status = semel_server_listen(t.server, t.place.address);
    if (status == SEMEL_OK)
        status = semel_server_start(t.server);
    if (status == SEMEL_OK)
        return true;
    if (must)
        fail_msg("%s: starting: %s", t.what, semel_status_name(status));
    (void)semel_server_destroy(t.server);
    t.server = NULL;
    return false;
}

static void make_client(void)
{
    struct semel_client_options options = {
        .backoff_min_ms = 1, .backoff_max_ms = 20, .deadline_ms = GUARD_MS, .give_up_ms = GUARD_MS
    };

    t.client = NULL;
    if (semel_client_create(&t.client, t.place.address, &options) != SEMEL_OK)
        t.client = NULL;
}

static void note(struct semel_result *result, void *user)
{
    struct ended *ended = user;

    ended->outcome = result->outcome;
    ended->status = result->status;
    atomic_store(&ended->seen, true);
}

static void start_call(int i)
{
    struct semel_call_options options = { .key = calls[i].key };
    char body = (char)('a' + i);

    t.ended[i].started = true;
    t.ended[i].submitted = semel_client_start(t.client, calls[i].method, semel_bytes(&body, 1),
                                              &options, note, &t.ended[i], NULL) == SEMEL_OK;
}

/* Those that are not started yet. */
static void start_calls(void)
{
    for (int i = 0; i < CALLS; i++)
        if (!t.ended[i].started)
            start_call(i);
}
static bool all_ended(void)
{
    for (int i = 0; i < CALLS; i++)
        if (t.ended[i].submitted && !atomic_load(&t.ended[i].seen))
            return false;
    return true;
}

/* Until the calls have ended, or the server has stopped because of its store. */
static void wait_for_calls(bool must)
{
    uint64_t end = kit_now_ms() + GUARD_MS;

    while (!all_ended()) {
        if (semel_server_wait(t.server, 0, NULL) != SEMEL_DEADLINE && !must)
            return;
        if (kit_now_ms() > end)
            fail_msg("%s: calls do not end", t.what);
        (void)usleep(100);
    }
}

/* --- the truth
 * ---------------------------------------------------------------------------------- */

static void expect_truth(void)
{
    for (int i = 0; i < CALLS; i++) {
        const struct ended *ended = &t.ended[i];
        int effects = count_effects(i);
        bool good = effects == 0;

        if (ended->submitted) {
            t.seen_outcomes[ended->outcome]++;
            good = ended->outcome == SEMEL_VALUE     ? effects == 1
                   : ended->outcome == SEMEL_UNKNOWN ? effects <= 1
                                                     : effects == 0;
        }
        if (!good)
            fail_msg("%s: call %d: %s (%s), %d effects", t.what, i,
                     ended->submitted ? semel_outcome_text(ended->outcome) : "not submitted",
                     semel_status_name(ended->status), effects);
    }
}

/* The keyed calls once more: each key has its one effect, or none that anybody can know of. */
static void expect_keys_to_answer(void)
{
    for (int i = KEYED_ONCE; i <= DEADLY_ONCE; i++) {
        struct semel_call_options options = { .key = calls[i].key };
        struct semel_result result;
        char body = (char)('a' + i);
        int effects;
        bool good;

        (void)semel_client_call(t.client, calls[i].method, semel_bytes(&body, 1), &options,
                                &result);
        effects = count_effects(i);
        good = result.outcome == SEMEL_VALUE ? effects == 1
               : result.outcome == SEMEL_UNKNOWN
                   ? effects <= 1 && t.ended[i].submitted && t.ended[i].outcome == SEMEL_UNKNOWN
                   : false;
        if (!good)
            fail_msg("%s: key %s again: %s (%s: %s), %d effects, before: %s", t.what, calls[i].key,
                     semel_outcome_text(result.outcome), semel_status_name(result.status),
                     result.text ? result.text : "", effects,
                     t.ended[i].submitted ? semel_outcome_text(t.ended[i].outcome)
                                          : "not submitted");
        semel_result_clear(&result);
    }
}

/* --- a run
 * ---------------------------------------------------------------------------------------- */

static void remove_files(void)
{
    static const char *const ends[] = { "", "-wal", "-shm", "-journal", "-semel" };
    char name[140];

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        (void)snprintf(name, sizeof name, "%s%s", t.path, ends[i]);
        (void)unlink(name);
    }
}

static void make_table(void)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(t.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE mine (x)", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* A server that answers some calls and dies of one. Its client stays. */
static void leave_a_past(int deadly)
{
    int status, ready[2];
    char byte = 0;
    pid_t child;

    assert_int_equal(pipe(ready), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)start_server(true);
        (void)!write(ready[1], &byte, 1);
        (void)semel_server_wait(t.server, GUARD_MS, NULL);
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    (void)close(ready[1]);
    make_client();
    assert_non_null(t.client);
    start_call(PLAIN_ONCE);
    start_call(PLAIN_ADD);
    start_call(deadly);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void run_with_failures(enum failing_group group, unsigned n)
{
    failing_at(group, n);
    if (start_server(false)) {
        if (t.client == NULL)
            make_client();
        if (t.client) {
            start_calls();
            wait_for_calls(false);
        }
        semel_server_stop(t.server);
        assert_int_equal(semel_server_destroy(t.server), SEMEL_OK);
    }
    (void)snprintf(t.what, sizeof t.what, "%s, the %u. of its group",
                   failing_what() ? failing_what() : "nothing", n);
    failing_at(FAILING_NOTHING, 0);
}

static void run_again_without(void)
{
    struct semel_client_counters counters;

    (void)start_server(true);
    if (t.client == NULL)
        make_client();
    assert_non_null(t.client);
    wait_for_calls(true);
    expect_truth();
    expect_keys_to_answer();
    semel_client_counters(t.client, &counters);
    if (counters.protocol_errors > 0 || counters.sessions_lost > 0)
        fail_msg("%s: %llu sessions lost, %llu protocol errors", t.what,
                 (unsigned long long)counters.sessions_lost,
                 (unsigned long long)counters.protocol_errors);
    assert_int_equal(semel_client_destroy(t.client), SEMEL_OK);
    semel_server_stop(t.server);
    assert_int_equal(semel_server_destroy(t.server), SEMEL_OK);
}

/* Returns whether the failure came. */
static bool run(enum failing_group group, unsigned n, bool past)
{
    int fds = kit_count_fds(), threads = kit_count_threads(), blocks = failing_blocks();
    bool failed;

    memset(t.ended, 0, sizeof t.ended);
    for (int i = 0; i < CALLS; i++)
        atomic_store(&t.once[i], 0);
    t.client = NULL;
    (void)snprintf(t.what, sizeof t.what, "the %u. of group %d", n, (int)group);
    make_table();
    if (past)
        leave_a_past(n % 2 ? DEADLY_ONCE : DEADLY_ADD);
    run_with_failures(group, n);
    failed = strncmp(t.what, "nothing", 7) != 0;
    run_again_without();
    remove_files();
    crash_reset();
    if (!kit_settled(fds, threads) || failing_blocks() != blocks)
        fail_msg("%s: %d descriptors of %d, %d threads of %d, %d blocks of %d", t.what,
                 kit_count_fds(), fds, kit_count_threads(), threads, failing_blocks(), blocks);
    return failed;
}

/* Every one at first, then one of `stride`. */
static void fail_each(enum failing_group group, unsigned stride, bool past)
{
    unsigned n = 1, runs = 0;

    memset(t.seen_outcomes, 0, sizeof t.seen_outcomes);
    (void)run(FAILING_NOTHING, 0, past); /* whatever is made once is made now */
    if (t.stride)
        stride = t.stride;
    while (run(group, n, past)) {
        runs++;
        n += n < 20 ? 1 : stride;
    }
    print_message("%u runs, up to the %u.: %d values, %d not executed, %d unknown\n", runs, n,
                  t.seen_outcomes[SEMEL_VALUE], t.seen_outcomes[SEMEL_NOT_EXECUTED],
                  t.seen_outcomes[SEMEL_UNKNOWN]);
    assert_true(runs > 20);
    assert_true(t.seen_outcomes[SEMEL_VALUE] > 0);
}

static void memory_that_cannot_be_had(void **state)
{
    (void)state;
    fail_each(FAILING_MEMORY, 1, false);
    fail_each(FAILING_MEMORY, 1, true);
}

static void memory_that_the_store_cannot_have(void **state)
{
    (void)state;
    fail_each(FAILING_STORE_MEMORY, 11, false);
    fail_each(FAILING_STORE_MEMORY, 11, true);
}

static void calls_that_the_system_refuses(void **state)
{
    (void)state;
    fail_each(FAILING_SYSTEM, 1, false);
    fail_each(FAILING_SYSTEM, 1, true);
}

static void calls_that_the_disk_refuses(void **state)
{
    (void)state;
    fail_each(FAILING_DISK, 1, false);
    fail_each(FAILING_DISK, 1, true);
}

static int make_place(void **state)
{
    (void)state;
    kit_place_make(&t.place);
    (void)snprintf(t.path, sizeof t.path, "%s/db", t.place.directory);
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    remove_files();
    kit_place_remove(&t.place);
    return 0;
}

#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, make_place, remove_place, NULL                                             \
    }

static void *do_nothing(void *nothing)
{
    return nothing;
}

/* A sanitizer has a thread of its own from the first one that is made. */
static void make_first_thread(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, do_nothing, NULL) == 0)
        (void)pthread_join(thread, NULL);
}

/* With a number as argument, one of so many is tried: 1 is all of them. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("memory that cannot be had", memory_that_cannot_be_had),
        TEST("memory that the store cannot have", memory_that_the_store_cannot_have),
        TEST("calls that the system refuses", calls_that_the_system_refuses),
        TEST("calls that the disk refuses", calls_that_the_disk_refuses),
    };

    t.me = getpid();
    t.once = mmap(NULL, CALLS * sizeof *t.once, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                  -1, 0);
    t.stride = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    failing_install();
    make_first_thread();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
