/* SPDX-License-Identifier: MIT */
/* A server with a database is killed again and again under load; afterwards it is counted what its
 * handlers did, and what their callers were told. */
#include "server_kit.h"

#include "sqlite_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static const char *server_program;
static unsigned first_seed;

/* --- the server in a process of its own ---------------------------------------------------- */

struct host {
    struct kit_place place;
    char path[128]; /* of the database */
    pid_t pid;      /* 0: it does not run */
    int in, out;    /* its input, which it lives by, and its output */
    bool ready;     /* it has said so */
};

/* Started, but perhaps not serving yet. */
static void host_start(struct host *host)
{
    posix_spawn_file_actions_t actions;
    char *argv[] = { (char *)(uintptr_t)server_program, host->place.directory, NULL };
    int in[2], out[2];

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    assert_int_equal(posix_spawn(&host->pid, server_program, &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    host->in = in[1];
    host->out = out[0];
    host->ready = false;
}

/* Until it serves. False: it has ended before. */
static bool host_ready(struct host *host)
{
    char text[8];
    ssize_t bytes;

    if (host->ready)
        return true;
    do
        bytes = read(host->out, text, sizeof text);
    while (bytes < 0 && errno == EINTR);
    return host->ready = bytes > 0;
}

static int host_wait(struct host *host)
{
    int status = 0;

    while (waitpid(host->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    close(host->in);
    close(host->out);
    host->pid = 0;
    return status;
}

static void host_kill(struct host *host)
{
    int status;

    assert_int_equal(kill(host->pid, SIGKILL), 0);
    status = host_wait(host);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("the server ended by itself, with %x", (unsigned)status);
}

/* As an operator stops it. */
static void host_stop(struct host *host)
{
    int in = host->in, status;

    host->in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(in);
    status = host_wait(host);
    if (status != 0)
        fail_msg("the server ended with %x", (unsigned)status);
}

static struct host *host_make(void)
{
    struct host *host = calloc(1, sizeof *host);

    assert_non_null(host);
    kit_place_make(&host->place);
    snprintf(host->path, sizeof host->path, "%s/db", host->place.directory);
    run_on_file(host->path, "CREATE TABLE ledger (entry INTEGER PRIMARY KEY, number TEXT)");
    host_start(host);
    assert_true(host_ready(host));
    return host;
}

static void host_end(struct host *host)
{
    static const char *const files[] = { "once",    "idempotent", "rerun",
                                         "resolve", "fall",       "add-fall" };

    if (host->pid)
        host_stop(host);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char name[128];

        snprintf(name, sizeof name, "%s/%s", host->place.directory, files[i]);
        (void)unlink(name);
    }
    remove_database(host->path);
    kit_place_remove(&host->place);
    free(host);
}

static struct semel_client *host_client(const struct host *host)
{
    struct semel_client_options options = {
        .deadline_ms = 120000, .backoff_min_ms = 2, .backoff_max_ms = 20, .give_up_ms = 120000
    };
    struct semel_client *client = NULL;

    assert_int_equal(semel_client_create(&client, host->place.address, &options), SEMEL_OK);
    return client;
}

/* --- the load ------------------------------------------------------------------------------ */

#define CALLERS 6
#define CALLS_MAX 200000 /* of one caller */
#define KILLS (SLOW_BUILD ? 5 : 14)

/* Calls with bodies "NAME-NUMBER", one after the other, until it is over. */
struct caller {
    struct semel_client *client;
    const char *method;
    int name;
    bool keyed;
    atomic_bool *over;
    atomic_int *values;
    pthread_t thread;
    int calls;
    uint8_t *outcomes, *statuses;
};

static void *call_on(void *arg)
{
    struct caller *caller = arg;

    while (!atomic_load(caller->over) && caller->calls < CALLS_MAX) {
        struct semel_call_options options = { 0 };
        struct semel_result result;
        char body[32];

        snprintf(body, sizeof body, "%d-%d", caller->name, caller->calls);
        if (caller->keyed)
            options.key = body;
        (void)semel_client_call(caller->client, caller->method, semel_bytes_text(body), &options,
                                &result);
        caller->outcomes[caller->calls] = (uint8_t)result.outcome;
        caller->statuses[caller->calls++] = (uint8_t)result.status;
        if (result.outcome == SEMEL_VALUE) {
            REQUIRE(result.body.size == strlen(body) &&
                    memcmp(result.body.data, body, result.body.size) == 0);
            atomic_fetch_add(caller->values, 1);
        }
        semel_result_clear(&result);
    }
    return NULL;
}

struct siege {
    struct host *host;
    struct semel_client *clients[2];
    struct caller callers[CALLERS];
    atomic_bool over;
    atomic_int values; /* of all callers */
};

/* All callers call `method`: half of them with keys, or, where `shared`, all of them, two with the
 * same ones, in different sessions. */
static void siege_begin(struct siege *siege, const char *method, bool keyed, bool shared)
{
    memset(siege, 0, sizeof *siege);
    siege->host = host_make();
    for (int i = 0; i < 2; i++)
        siege->clients[i] = host_client(siege->host);
    for (int i = 0; i < CALLERS; i++) {
        struct caller *caller = &siege->callers[i];

        *caller = (struct caller){ .client = siege->clients[i % 2],
                                   .method = method,
                                   .name = shared ? i % (CALLERS / 2) : i,
                                   .keyed = shared || (keyed && i < CALLERS / 2),
                                   .over = &siege->over,
                                   .values = &siege->values,
                                   .outcomes = calloc(CALLS_MAX, 1),
                                   .statuses = calloc(CALLS_MAX, 1) };
        assert_non_null(caller->outcomes);
        assert_non_null(caller->statuses);
        assert_int_equal(pthread_create(&caller->thread, NULL, call_on, caller), 0);
    }
}

/* At random times: while it serves, while it begins, while it reads what the last one left. */
static void siege_kill(struct siege *siege, unsigned seed)
{
    srandom(seed);
    for (int i = 0; i < KILLS; i++) {
        bool serves = random() % 4 != 0;
        struct timespec t = { 0, random() % (serves ? 60000000 : 12000000) };

        if (serves)
            assert_true(host_ready(siege->host));
        nanosleep(&t, NULL);
        host_kill(siege->host);
        host_start(siege->host);
    }
    assert_true(host_ready(siege->host));
}

static int siege_count(const struct siege *siege, enum semel_outcome outcome)
{
    int count = 0;

    for (int i = 0; i < CALLERS; i++)
        for (int k = 0; k < siege->callers[i].calls; k++)
            count += siege->callers[i].outcomes[k] == outcome;
    return count;
}

/* Who comes with a key again is told what was told first. */
static void ask_again(struct siege *siege)
{
    for (int i = 0; i < CALLERS; i++) {
        struct caller *caller = &siege->callers[i];

        for (int k = 0; caller->keyed && k < caller->calls && k < 40; k++) {
            char body[32];
            struct semel_call_options options = { .key = body };

            if (caller->outcomes[k] == SEMEL_NOT_EXECUTED)
                continue; /* the key is free */
            snprintf(body, sizeof body, "%d-%d", caller->name, k);
            assert_int_equal(semel_client_call(siege->clients[(i + 1) % 2], caller->method,
                                               semel_bytes_text(body), &options, NULL),
                             caller->outcomes[k]);
        }
    }
}

static bool has_values(void *arg)
{
    return atomic_load((atomic_int *)arg) > 0;
}

/* The callers finish by themselves; between two kills a slow server may have served none of them.
 * Then the store has nothing left of them. */
static void siege_lift(struct siege *siege)
{
    int calls = 0;

    kit_sleep_ms(20);
    assert_true(kit_eventually(has_values, &siege->values, 60));
    atomic_store(&siege->over, true);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(siege->callers[i].thread, NULL);
        calls += siege->callers[i].calls;
    }
    ask_again(siege);
    for (int i = 0; i < 2; i++) {
        struct semel_client_counters counters;

        semel_client_counters(siege->clients[i], &counters);
        assert_int_equal(counters.sessions_lost, 0);
        assert_int_equal(semel_client_destroy(siege->clients[i]), SEMEL_OK);
    }
    host_stop(siege->host);
    assert_int_equal(ask_file(siege->host->path, "SELECT count(*) FROM semel_call"), 0);
    assert_int_equal(ask_file(siege->host->path, "SELECT count(*) FROM semel_session"), 0);
    assert_int_equal(
        ask_file(siege->host->path, "SELECT count(*) FROM semel_key WHERE kept_since IS NULL"), 0);
    assert_int_equal(siege_count(siege, SEMEL_VALUE), atomic_load(&siege->values));
    assert_int_equal(siege_count(siege, SEMEL_FAILURE), 0);
    print_message("    %d calls, %d unknown, %d not executed\n", calls,
                  siege_count(siege, SEMEL_UNKNOWN), siege_count(siege, SEMEL_NOT_EXECUTED));
}

static void siege_end(struct siege *siege)
{
    for (int i = 0; i < CALLERS; i++) {
        free(siege->callers[i].outcomes);
        free(siege->callers[i].statuses);
    }
    host_end(siege->host);
}

/* --- what the handlers left ---------------------------------------------------------------- */

struct traces {
    uint8_t *counts[CALLERS]; /* effects of each call */
    char (*keys[CALLERS])[33];
    int calls;
    bool keys_differ;
};

static void traces_free(struct traces *traces)
{
    for (int i = 0; i < CALLERS; i++) {
        free(traces->counts[i]);
        free(traces->keys[i]);
    }
}

static void traces_make(struct traces *traces, const struct siege *siege)
{
    size_t calls = 1;

    memset(traces, 0, sizeof *traces);
    for (int i = 0; i < CALLERS; i++)
        if (calls <= (size_t)siege->callers[i].calls)
            calls = (size_t)siege->callers[i].calls + 1;
    traces->calls = (int)calls;
    for (int i = 0; i < CALLERS; i++) {
        traces->counts[i] = calloc(calls, 1);
        traces->keys[i] = calloc(calls, sizeof *traces->keys[i]);
        assert_non_null(traces->counts[i]);
        assert_non_null(traces->keys[i]);
    }
}

static void add_trace(struct traces *traces, int name, int call, const char *key)
{
    char *known;

    assert_true(name >= 0 && name < CALLERS && call >= 0 && call < traces->calls);
    traces->counts[name][call]++;
    known = traces->keys[name][call];
    traces->keys_differ |= known[0] && strcmp(known, key) != 0;
    snprintf(known, 33, "%s", key);
}

/* The lines "NAME-NUMBER KEY" of a file. */
static void traces_read(struct traces *traces, const struct siege *siege, const char *file)
{
    char path[192], line[128];
    FILE *lines;

    traces_make(traces, siege);
    snprintf(path, sizeof path, "%s/%s", siege->host->place.directory, file);
    lines = fopen(path, "r");
    assert_non_null(lines);
    while (fgets(line, sizeof line, lines)) {
        int name = -1, call = -1;
        char key[33] = "";

        assert_int_equal(sscanf(line, "%d-%d %32s", &name, &call, key), 3);
        add_trace(traces, name, call, key);
    }
    fclose(lines);
}

/* The same of the ledger. */
static void traces_ask(struct traces *traces, const struct siege *siege)
{
    sqlite3_stmt *statement = NULL;
    sqlite3 *db = NULL;

    traces_make(traces, siege);
    assert_int_equal(sqlite3_open_v2(siege->host->path, &db, SQLITE_OPEN_READONLY, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT number FROM ledger", -1, &statement, NULL),
                     SQLITE_OK);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        int name = -1, call = -1;

        assert_int_equal(
            sscanf((const char *)sqlite3_column_text(statement, 0), "%d-%d", &name, &call), 2);
        add_trace(traces, name, call, "");
    }
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* May a call with this outcome have had so many effects? */
typedef bool (*allowed_fn)(enum semel_outcome outcome, enum semel_status status, int effects);

static void audit(const struct siege *siege, const struct traces *traces, allowed_fn allowed)
{
    for (int i = 0; i < CALLERS; i++)
        for (int k = 0; k < siege->callers[i].calls; k++) {
            enum semel_outcome outcome = siege->callers[i].outcomes[k];
            enum semel_status status = siege->callers[i].statuses[k];

            int effects = traces->counts[siege->callers[i].name][k];

            if (!allowed(outcome, status, effects))
                fail_msg("call %d of caller %d: %s, %s, with %d effects", k, i,
                         semel_outcome_text(outcome), semel_status_name(status), effects);
        }
}

/* --- the kinds ----------------------------------------------------------------------------- */

/* At most once; the unknown ones are those that ran when a server died. */
static bool once_allows(enum semel_outcome outcome, enum semel_status status, int effects)
{
    if (outcome == SEMEL_VALUE)
        return effects == 1;
    return outcome == SEMEL_UNKNOWN && status == SEMEL_SERVER_DIED && effects <= 1;
}

/* Never unknown. A call may be killed with its server thrice by chance: then it has no effect. */
static bool transactional_allows(enum semel_outcome outcome, enum semel_status status, int effects)
{
    if (outcome == SEMEL_VALUE)
        return effects == 1;
    return outcome == SEMEL_NOT_EXECUTED && status == SEMEL_POISONED && effects == 0;
}

static bool again_allows(enum semel_outcome outcome, enum semel_status status, int effects)
{
    (void)status;
    return outcome == SEMEL_VALUE && effects >= 1;
}

/* What was found is a value, the rest never ran. */
static bool resolve_allows(enum semel_outcome outcome, enum semel_status status, int effects)
{
    if (outcome == SEMEL_VALUE)
        return effects == 1;
    return outcome == SEMEL_NOT_EXECUTED && status == SEMEL_SERVER_DIED && effects == 0;
}

/* Calls with the same key were told the same. */
static void check_pairs(const struct siege *siege)
{
    for (int i = 0; i < CALLERS / 2; i++) {
        const struct caller *a = &siege->callers[i], *b = &siege->callers[i + CALLERS / 2];

        for (int k = 0; k < a->calls && k < b->calls; k++)
            if (a->outcomes[k] != b->outcomes[k])
                fail_msg("%d-%d: %s, and %s", i, k,
                         semel_outcome_text((enum semel_outcome)a->outcomes[k]),
                         semel_outcome_text((enum semel_outcome)b->outcomes[k]));
    }
}

static void besiege(const char *method, allowed_fn allowed, bool shared, unsigned seed)
{
    struct siege siege;
    struct traces traces;

    siege_begin(&siege, method, strcmp(method, "idempotent") != 0, shared);
    siege_kill(&siege, first_seed + seed);
    siege_lift(&siege);
    if (strcmp(method, "add") == 0)
        traces_ask(&traces, &siege);
    else
        traces_read(&traces, &siege, method);
    audit(&siege, &traces, allowed);
    assert_false(traces.keys_differ);
    if (shared)
        check_pairs(&siege);
    traces_free(&traces);
    siege_end(&siege);
}

static void test_once(void **state)
{
    (void)state;
    besiege("once", once_allows, false, 1);
}

static void test_transactional(void **state)
{
    (void)state;
    besiege("add", transactional_allows, false, 2);
}

static void test_idempotent(void **state)
{
    (void)state;
    besiege("idempotent", again_allows, false, 3);
}

static void test_rerun(void **state)
{
    (void)state;
    besiege("rerun", again_allows, false, 4);
}

static void test_resolve(void **state)
{
    (void)state;
    besiege("resolve", resolve_allows, false, 5);
}

static void test_same_keys(void **state)
{
    (void)state;
    besiege("once", once_allows, true, 6);
    besiege("add", transactional_allows, true, 7);
}

/* --- handlers that take their server with them --------------------------------------------- */

/* What the server's deaths are waited for, and answered with a new one. */
static void expect_deaths(struct host *host, int deaths)
{
    for (int i = 0; i < deaths; i++) {
        int status = host_wait(host);

        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        host_start(host);
        (void)host_ready(host);
    }
}

static int count_lines(const struct host *host, const char *file)
{
    char name[192];
    FILE *lines;
    int count = 0, c;

    snprintf(name, sizeof name, "%s/%s", host->place.directory, file);
    lines = fopen(name, "r");
    if (lines == NULL)
        return 0;
    while ((c = fgetc(lines)) != EOF)
        count += c == '\n';
    fclose(lines);
    return count;
}

static void test_falls(void **state)
{
    struct host *host = host_make();
    struct semel_client *client = host_client(host);
    struct seen seen, neighbours[5];
    struct semel_result result;

    (void)state;
    start_call(client, "fall", "x", NULL, &seen, NULL);
    expect_deaths(host, 1);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_UNKNOWN);
    assert_int_equal(seen.status, SEMEL_SERVER_DIED);
    semel_result_clear(&seen.result);
    assert_int_equal(count_lines(host, "fall"), 1);
    for (int i = 0; i < 5; i++)
        start_call(client, "add", "n", NULL, &neighbours[i], NULL);
    start_call(client, "add-fall", "x", NULL, &seen, NULL);
    expect_deaths(host, SEMEL_CRASHES_MAX);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(seen.status, SEMEL_POISONED);
    semel_result_clear(&seen.result);
    assert_int_equal(count_lines(host, "add-fall"), SEMEL_CRASHES_MAX);
    for (int i = 0; i < 5; i++) {
        wait_seen(&neighbours[i]);
        assert_int_equal(neighbours[i].outcome, SEMEL_VALUE);
        semel_result_clear(&neighbours[i].result);
    }
    assert_int_equal(ask_file(host->path, "SELECT count(*) FROM ledger"), 5);
    result = expect(client, "once", "still there", NULL, SEMEL_VALUE, SEMEL_OK);
    semel_result_clear(&result);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    host_end(host);
}

/* A second server of the same store is refused, and the first one does not notice. */
static void test_locked(void **state)
{
    struct host *host = host_make();
    struct semel_client *client = host_client(host);
    struct semel_store *store = NULL;
    enum semel_status status;
    char text[256];

    (void)state;
    assert_int_equal(semel_sqlite_open(&store, host->path, NULL, text, sizeof text),
                     SEMEL_STORE_LOCKED);
    assert_non_null(strstr(text, "in use by process"));
    expect_gone(client, "add", SEMEL_VALUE, SEMEL_OK);
    host_kill(host);
    while ((status = semel_sqlite_open(&store, host->path, NULL, text, sizeof text)) ==
           SEMEL_STORE_LOCKED)
        kit_sleep_ms(1); /* until the kernel has cleaned up */
    assert_int_equal(status, SEMEL_OK);
    semel_store_close(store);
    host_start(host);
    expect_gone(client, "add", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    host_end(host);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("killed servers: ONCE is at most once, and unknown only where it ran", test_once),
        TEST("killed servers: TRANSACTIONAL is exactly once, never unknown", test_transactional),
        TEST("killed servers: IDEMPOTENT is done", test_idempotent),
        TEST("killed servers: what runs again has its first key", test_rerun),
        TEST("killed servers: what is found out is true", test_resolve),
        TEST("killed servers: callers with the same keys are told the same", test_same_keys),
        TEST("handlers that kill their server", test_falls),
        TEST("a killed server leaves its lock", test_locked),
    };

    if (argc < 2)
        return 1;
    server_program = argv[1];
    first_seed = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
