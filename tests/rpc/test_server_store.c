/* SPDX-License-Identifier: MIT */
/* The life of a server with a database: what it may be made of, start and end in any order, and
 * forked children. */
#include "server_kit.h"
#include "server_wire.h"

#include "sqlite_kit.h"

#include "ledger_kit.h"

#include <sys/wait.h>

static void export_all(struct bank *bank, void *user)
{
    rig_export(bank->rig, "echo", echo, user, NULL);
    assert_int_equal(semel_server_export_transactional(bank->rig->server, "add", add, user, NULL),
                     SEMEL_OK);
}

static void use(struct bank *bank)
{
    struct semel_result result;

    expect_echo(bank->rig->client, "once");
    result = expect(bank->rig->client, "add", "1", NULL, SEMEL_VALUE, SEMEL_OK);
    semel_result_clear(&result);
}

/* --- what it is made of -------------------------------------------------------------------- */

static void refuse(struct bank *bank, struct semel_server_options options)
{
    struct semel_server *server = NULL;
    struct semel_store *store = bank_open_store(bank);

    options.store = store;
    assert_int_equal(semel_server_create(&server, &options), SEMEL_INVALID);
    assert_null(server);
    semel_store_close(store); /* it was not moved */
}

static void test_options(void **state)
{
    struct bank *bank = bank_make(NULL, NULL, schema, export_all, NULL);
    struct semel_server_options large = { .body_bytes = SEMEL_STORED_BODY_BYTES_MAX + 1 };
    struct semel_server_options negative = { .key_retention_ms = -1 };
    struct semel_sqlite_options look = { .read_only = true };
    struct semel_server_options plain = { 0 };

    (void)state;
    bank_close(bank);
    refuse(bank, large);
    refuse(bank, negative);
    bank->store_options = look;
    refuse(bank, plain);
    bank->store_options.read_only = false;
    bank->options.body_bytes = SEMEL_STORED_BODY_BYTES_MAX;
    bank_remake(bank);
    bank_go(bank);
    use(bank);
    bank_end(bank);
}

static void resolve_nothing(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
}

static enum semel_status try_export(struct bank *bank, struct semel_method_options options)
{
    return semel_server_export(bank->rig->server, "x", echo, NULL, &options);
}

static enum semel_status try_transactional(struct bank *bank, struct semel_method_options options)
{
    return semel_server_export_transactional(bank->rig->server, "y", add, NULL, &options);
}

static void test_exports(void **state)
{
    struct bank *bank = bank_make(NULL, NULL, schema, export_all, NULL);
    struct semel_method_options none = { 0 };
    struct semel_method_options transactional = { .kind = SEMEL_TRANSACTIONAL };
    struct semel_method_options idempotent = { .kind = SEMEL_IDEMPOTENT };
    struct semel_method_options again = { .on_crash = SEMEL_CRASH_RERUN };
    struct semel_method_options blind = { .on_crash = SEMEL_CRASH_RESOLVE };
    struct semel_method_options idle = { .resolve = resolve_nothing };
    struct semel_method_options both = { .kind = SEMEL_IDEMPOTENT, .on_crash = SEMEL_CRASH_RERUN };
    struct semel_method_options beyond = { .on_crash = (enum semel_on_crash)3 };
    struct semel_method_options gives = { .gives_items = true };
    struct rig *rig = rig_make(NULL);

    (void)state;
    assert_int_equal(try_export(bank, transactional), SEMEL_INVALID);
    assert_int_equal(try_export(bank, blind), SEMEL_INVALID);
    assert_int_equal(try_export(bank, idle), SEMEL_INVALID);
    assert_int_equal(try_export(bank, both), SEMEL_INVALID);
    assert_int_equal(try_export(bank, beyond), SEMEL_INVALID);
    assert_int_equal(try_transactional(bank, idempotent), SEMEL_INVALID);
    assert_int_equal(try_transactional(bank, again), SEMEL_INVALID);
    assert_int_equal(try_transactional(bank, gives), SEMEL_INVALID);
    assert_int_equal(semel_server_export_transactional(bank->rig->server, "y", NULL, NULL, NULL),
                     SEMEL_INVALID);
    assert_int_equal(
        semel_server_export_transactional(bank->rig->server, "semel.y", add, NULL, NULL),
        SEMEL_INVALID);
    assert_int_equal(semel_server_export_transactional(rig->server, "y", add, NULL, NULL),
                     SEMEL_INVALID); /* it has no store */
    assert_int_equal(try_export(bank, none), SEMEL_OK);
    assert_int_equal(try_export(bank, again), SEMEL_ALREADY);
    assert_int_equal(try_transactional(bank, transactional), SEMEL_OK);
    assert_int_equal(try_transactional(bank, none), SEMEL_ALREADY);
    rig_end(rig);
    bank_end(bank);
}

/* What it says of itself in its greeting. */
static void test_welcome(void **state)
{
    struct bank *bank = bank_make(NULL, NULL, schema, export_all, NULL);
    uint8_t first[16];

    (void)state;
    bank_go(bank);
    for (uint8_t name = 1; name <= 2; name++) {
        struct sml_hello hello = hello_of(name, 1);
        struct wire *wire = wire_open(bank->rig);
        struct sml_frame frame;

        hello.features = ~0u;
        wire_hello(wire, &hello);
        wire_expect(wire, SML_WELCOME, &frame);
        assert_int_equal(frame.u.welcome.features, SML_FEATURE_KEYS | SML_FEATURE_PARTS);
        assert_int_equal(frame.u.welcome.generation, 1);
        assert_int_equal(frame.u.welcome.idle_ms, SEMEL_DURABLE_SESSION_MS);
        if (name == 1)
            memcpy(first, frame.u.welcome.server_id, sizeof first);
        else
            assert_memory_equal(frame.u.welcome.server_id, first, sizeof first);
        wire_close(wire);
        bank_close(bank);
        bank_reopen(bank); /* it is the same after that */
    }
    bank_end(bank);
}

/* --- start and end ------------------------------------------------------------------------- */

/* Stop, drain and wait in any order, at every stage of its life; and served again. */
static void test_any_order(void **state)
{
    struct bank *bank = bank_make(NULL, NULL, schema, export_all, NULL);

    (void)state;
    bank_close(bank);
    for (int order = 0; order < 27; order++) {
        for (int stage = 0; stage < 3; stage++) {
            struct semel_server *server;

            bank_remake(bank);
            server = bank->rig->server;
            if (stage > 0)
                assert_int_equal(semel_server_listen(server, bank->rig->place.address), SEMEL_OK);
            if (stage > 1)
                assert_int_equal(semel_server_start(server), SEMEL_OK);
            for (int steps = order, i = 0; i < 3; steps /= 3, i++) {
                if (steps % 3 == 0)
                    semel_server_stop(server);
                else if (steps % 3 == 1)
                    semel_server_drain(server, 1000);
                else
                    (void)semel_server_wait(server, 0, NULL);
            }
            bank_close(bank);
        }
    }
    bank_remake(bank);
    bank_go(bank);
    use(bank);
    bank_end(bank);
}

/* A client of its own for each server. */
static void serve_once(struct bank *bank)
{
    bank_go(bank);
    use(bank);
    assert_int_equal(semel_client_destroy(bank->rig->client), SEMEL_OK);
    bank->rig->client = NULL;
}

static void test_cycles(void **state)
{
    int cycles = SLOW_BUILD ? 30 : 200, served = 1, fds, threads;
    struct bank *bank = bank_make(NULL, NULL, schema, export_all, NULL);

    (void)state;
    serve_once(bank);
    bank_close(bank);
    fds = kit_count_fds();
    threads = kit_count_threads();
    for (int i = 0; i < cycles; i++) {
        bank_remake(bank);
        if (i % 3 == 1)
            rig_serve(bank->rig);
        if (i % 3 == 2)
            serve_once(bank);
        served += i % 3 == 2;
        bank_close(bank);
    }
    assert_true(kit_settled(fds, threads));
    assert_int_equal(ask(bank, "SELECT count(*) FROM ledger"), served);
    bank_end(bank);
}

/* --- fork ---------------------------------------------------------------------------------- */

static int use_in_child(struct bank *bank)
{
    struct semel_server *server = bank->rig->server;
    struct semel_server_counters counters;

    if (semel_server_export_transactional(server, "z", add, NULL, NULL) != SEMEL_FORKED)
        return 1;
    if (semel_server_export(server, "z", echo, NULL, NULL) != SEMEL_FORKED)
        return 2;
    if (semel_server_start(server) != SEMEL_FORKED || semel_server_run(server) != SEMEL_FORKED)
        return 3;
    if (semel_server_wait(server, 0, NULL) != SEMEL_FORKED)
        return 4;
    semel_server_stop(server);
    semel_server_drain(server, 0);
    semel_server_counters(server, &counters);
    if (counters.commits != 0)
        return 5;
    return semel_server_destroy(server) == SEMEL_FORKED ? 0 : 6;
}

/* A child can do nothing to its parent's server, nor to its store, however it ends. */
static void test_fork(void **state)
{
    struct bank *bank = bank_make(NULL, NULL, schema, export_all, NULL);

    (void)state;
    bank_go(bank);
    use(bank);
    for (int i = 0; i < 4; i++) {
        struct semel_store *store = NULL;
        int status = -1;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
            _exit(i % 2 ? use_in_child(bank) : 0);
        use(bank);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        use(bank);
        /* The lock is the parent's still. */
        assert_int_equal(semel_sqlite_open(&store, bank->path, NULL, NULL, 0), SEMEL_STORE_LOCKED);
    }
    assert_int_equal(rig_counters(bank->rig).connections_lost, 0);
    assert_int_equal(ask(bank, "SELECT count(*) FROM ledger"), 9);
    bank_close(bank);
    bank_reopen(bank);
    use(bank);
    bank_end(bank);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("options that no server with a store can have", test_options),
        TEST("methods that a server with a store may export", test_exports),
        TEST("a server is known by its store", test_welcome),
        TEST("stop, drain and wait in any order, with a store", test_any_order),
        TEST("cycles with a store leave no descriptor and no thread", test_cycles),
        TEST("a forked child cannot touch its parent's store", test_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
