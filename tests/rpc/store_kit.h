/* SPDX-License-Identifier: MIT */
/* store_kit.h - servers with a store in memory, which outlives them. Included once per test
 * program, after server_kit.h.
 *
 *   shop   a rig whose server has such a store. It can be shut, or lose its store as if it had
 *          died, and open again on what was committed. Its commits can be held up.
 *   rows   what is committed: how many records of which kind */
#ifndef SML_TESTS_STORE_KIT_H
#define SML_TESTS_STORE_KIT_H

#include "kit/memory_store.h"
#include "rpc/server_internal.h"

struct rows {
    int sessions, calls;       /* records */
    int started, ended, again; /* of the calls, by their state */
    int crashes;               /* of the calls */
};

struct shop {
    struct rig *rig;
    struct kit_disk *disk;
    struct semel_server_options options;
    void (*exports)(struct shop *shop, void *user); /* what each server exports */
    void *user;

    /* What the server is given instead of the store's own operations. */
    struct sml_store_ops ops;
    const struct sml_store_ops *under;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int allowed; /* commits that may pass; -1: all */
    bool held;   /* one waits */
    struct rows rows;
};

/* --- the store ----------------------------------------------------------------------------- */

UNUSED static bool count_session(uint64_t row, struct semel_bytes record, void *user)
{
    struct rows *rows = user;

    (void)row;
    (void)record;
    rows->sessions++;
    return true;
}

UNUSED static bool count_call(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct rows *rows = user;
    struct sml_call_record record;

    (void)row;
    rows->calls++;
    if (sml_call_record_decode(bytes, &record) != NULL)
        return true; /* damaged by the test */
    rows->started += record.state == SML_CALL_STARTED;
    rows->ended += record.state == SML_CALL_ENDED;
    rows->again += record.state == SML_CALL_AGAIN;
    rows->crashes += record.crashes;
    return true;
}

UNUSED static struct rows count_rows(struct semel_store *store, const struct sml_store_ops *ops)
{
    struct rows rows = { 0 };

    (void)ops->each(store, SML_TABLE_SESSIONS, count_session, &rows);
    (void)ops->each(store, SML_TABLE_CALLS, count_call, &rows);
    return rows;
}

UNUSED static enum sml_stored held_commit(struct semel_store *store)
{
    struct shop *shop = SML_CONTAINER(store->ops, struct shop, ops);
    enum sml_stored stored;

    pthread_mutex_lock(&shop->lock);
    shop->held = shop->allowed == 0;
    pthread_cond_broadcast(&shop->changed);
    while (shop->allowed == 0)
        pthread_cond_wait(&shop->changed, &shop->lock);
    shop->held = false;
    if (shop->allowed > 0)
        shop->allowed--;
    pthread_mutex_unlock(&shop->lock);
    stored = shop->under->commit(store);
    if (stored == SML_STORED) {
        struct rows rows = count_rows(store, shop->under);

        pthread_mutex_lock(&shop->lock);
        shop->rows = rows;
        pthread_cond_broadcast(&shop->changed);
        pthread_mutex_unlock(&shop->lock);
    }
    return stored;
}

/* So many more commits pass, and then none; -1: all. */
UNUSED static void shop_allow(struct shop *shop, int commits)
{
    pthread_mutex_lock(&shop->lock);
    shop->allowed = commits;
    pthread_cond_broadcast(&shop->changed);
    pthread_mutex_unlock(&shop->lock);
}

/* Until a commit is held up. */
UNUSED static void shop_wait_held(struct shop *shop)
{
    pthread_mutex_lock(&shop->lock);
    while (!shop->held)
        pthread_cond_wait(&shop->changed, &shop->lock);
    pthread_mutex_unlock(&shop->lock);
}

UNUSED static struct rows shop_rows(struct shop *shop)
{
    struct rows rows;

    pthread_mutex_lock(&shop->lock);
    rows = shop->rows;
    pthread_mutex_unlock(&shop->lock);
    return rows;
}

/* Nothing but sessions is left. */
UNUSED static bool shop_at_rest(void *arg)
{
    return shop_rows(arg).calls == 0;
}

/* The work of a transactional handler. */
UNUSED static void shop_add(struct semel_store *store, int64_t amount)
{
    const struct sml_store_ops *ops = store->ops;

    store->ops = SML_CONTAINER(ops, struct shop, ops)->under;
    kit_store_add(store, amount);
    store->ops = ops;
}

UNUSED static void shop_lose(struct semel_store *store)
{
    const struct sml_store_ops *ops = store->ops;

    store->ops = SML_CONTAINER(ops, struct shop, ops)->under;
    kit_store_lose(store);
    store->ops = ops;
}

UNUSED static struct semel_store *open_store(struct shop *shop)
{
    struct semel_store *store = kit_disk_open(shop->disk);

    assert_non_null(store);
    shop->under = store->ops;
    shop->ops = *store->ops;
    shop->ops.commit = held_commit;
    store->ops = &shop->ops;
    shop->rows = count_rows(store, shop->under);
    return store;
}

/* --- the shop ------------------------------------------------------------------------------ */

/* The server exists and exports, but does not serve yet. */
UNUSED static struct shop *shop_make(const struct semel_server_options *options,
                                     void (*exports)(struct shop *shop, void *user), void *user)
{
    struct shop *shop = calloc(1, sizeof *shop);
    struct semel_server_options mine;

    assert_non_null(shop);
    if (options)
        shop->options = *options;
    shop->exports = exports;
    shop->user = user;
    shop->allowed = -1;
    pthread_mutex_init(&shop->lock, NULL);
    pthread_cond_init(&shop->changed, NULL);
    shop->disk = kit_disk_make();
    mine = shop->options;
    mine.store = open_store(shop);
    shop->rig = rig_make(&mine);
    exports(shop, user);
    return shop;
}

/* A client that comes back soon. */
UNUSED static struct semel_client *shop_connect(struct shop *shop)
{
    struct semel_client_options options = { .backoff_min_ms = 5,
                                            .backoff_max_ms = 40,
                                            .cancel_grace_ms = 60000 };
    struct semel_client *client = rig_connect(shop->rig, &options);

    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    return client;
}

UNUSED static void shop_go(struct shop *shop)
{
    rig_serve(shop->rig);
    shop->rig->client = shop_connect(shop);
}

UNUSED static bool has_quit(void *arg)
{
    struct semel_server *server = arg;
    bool quit;

    sml_mutex_lock(&server->queue_lock);
    quit = server->quit;
    sml_mutex_unlock(&server->queue_lock);
    return quit;
}

/* Until it serves no more, although its store is held up. */
UNUSED static void shop_stop(struct shop *shop)
{
    semel_server_stop(shop->rig->server);
    assert_true(kit_eventually(has_quit, shop->rig->server, 60));
}

/* As an operator does it. */
UNUSED static void shop_shut(struct shop *shop)
{
    assert_int_equal(semel_server_destroy(shop->rig->server), SEMEL_OK);
    shop->rig->server = NULL;
}

/* As a crash leaves it: nothing is stored any more, and so nothing is told of what was under way.
 * The handlers that run must be about to return. */
UNUSED static void shop_die(struct shop *shop)
{
    kit_disk_kill(shop->disk);
    shop_allow(shop, -1);
    shop_shut(shop);
}

/* The next server, which does not serve yet. */
UNUSED static void shop_remake(struct shop *shop)
{
    struct semel_server_options mine = shop->options;

    mine.log = keep_log;
    mine.log_user = shop->rig;
    mine.store = open_store(shop);
    assert_int_equal(semel_server_create(&shop->rig->server, &mine), SEMEL_OK);
    shop->exports(shop, shop->user);
}

UNUSED static void shop_reopen(struct shop *shop)
{
    shop_remake(shop);
    rig_serve(shop->rig);
}

UNUSED static void shop_end(struct shop *shop)
{
    shop_allow(shop, -1);
    rig_end(shop->rig);
    kit_disk_free(shop->disk);
    pthread_mutex_destroy(&shop->lock);
    pthread_cond_destroy(&shop->changed);
    free(shop);
}

/* Every operation from now on is answered like this. */
UNUSED static void refuse_all(struct shop *shop, enum semel_status status)
{
    struct kit_fault fault = {
        .at_operation = 1, .stays = true, .answer = SML_NOT_STORED, .status = status
    };

    kit_disk_fault(shop->disk, &fault);
}

UNUSED static void refuse_nothing(struct shop *shop)
{
    struct kit_fault none = { .at_operation = 0 };

    kit_disk_fault(shop->disk, &none);
}

/* --- handlers ------------------------------------------------------------------------------ */

/* Counts itself, and replies with its body. */
UNUSED static void counted(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    atomic_fetch_add((atomic_int *)user, 1);
    REQUIRE(semel_request_reply(request, body.data, body.size) == SEMEL_OK);
}

/* --- waiting ------------------------------------------------------------------------------- */

struct figure {
    struct rig *rig;
    size_t at; /* of which counter */
    uint64_t least;
};

UNUSED static bool figure_reached(void *arg)
{
    struct figure *figure = arg;
    struct semel_server_counters counters = rig_counters(figure->rig);
    uint64_t value;

    memcpy(&value, (char *)&counters + figure->at, sizeof value);
    return value >= figure->least;
}

/* Until a counter of the server is at least `least`. */
#define WAIT_COUNTER(rig_, counter, least_)                                                        \
    do {                                                                                           \
        struct figure figure_ = { rig_, offsetof(struct semel_server_counters, counter), least_ }; \
        assert_true(kit_eventually(figure_reached, &figure_, 60));                                 \
    } while (0)

UNUSED static bool is_one(void *arg)
{
    return atomic_load((atomic_int *)arg) == 1;
}

#endif
