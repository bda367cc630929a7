/* SPDX-License-Identifier: MIT */
/* outbox_kit.h - clients with an outbox in memory, which outlives them. Included once per test
 * program, after store_kit.h.
 *
 *   desk   a shop, and such a client of it. The client can be closed, or die, and open again on
 * what
 *          was committed; so can the shop. */
#ifndef SML_TESTS_OUTBOX_KIT_H
#define SML_TESTS_OUTBOX_KIT_H

#include <semel/outbox.h>

#include "kit/memory_outbox.h"

struct desk {
    struct shop *shop;
    struct kit_box *box;
    struct semel_client *client;
    struct semel_client_options options;
    struct gate gate;
    atomic_int runs; /* of "once" and "gated" */
};

UNUSED static void run_once(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    atomic_fetch_add((atomic_int *)user, 1);
    REQUIRE(semel_request_reply(request, body.data, body.size) == SEMEL_OK);
}

UNUSED static void run_gated(struct semel_request *request, void *user)
{
    struct desk *desk = user;

    atomic_fetch_add(&desk->runs, 1);
    gated(request, &desk->gate);
}

UNUSED static void export_desk(struct shop *shop, void *user)
{
    struct desk *desk = user;

    rig_export(shop->rig, "once", run_once, &desk->runs, NULL);
    rig_export(shop->rig, "gated", run_gated, desk, NULL);
}

UNUSED static enum semel_status desk_try_open(struct desk *desk)
{
    struct semel_client_options options = desk->options;
    struct semel_outbox *outbox = kit_box_open(desk->box);
    enum semel_status status;

    assert_non_null(outbox);
    options.outbox = outbox;
    status = semel_client_create(&desk->client, desk->shop->rig->place.address, &options);
    if (status != SEMEL_OK)
        semel_outbox_close(outbox);
    return status;
}

UNUSED static void desk_open(struct desk *desk)
{
    assert_int_equal(desk_try_open(desk), SEMEL_OK);
}

UNUSED static void desk_close(struct desk *desk)
{
    assert_int_equal(semel_client_destroy(desk->client), SEMEL_OK);
    desk->client = NULL;
}

/* As a crash leaves it: nothing is written any more. */
UNUSED static void desk_die(struct desk *desk)
{
    kit_box_kill(desk->box);
    desk_close(desk);
}

/* The server exists, but does not serve yet; no client does. */
UNUSED static struct desk *desk_make(const struct semel_client_options *options)
{
    struct desk *desk = calloc(1, sizeof *desk);

    assert_non_null(desk);
    if (options)
        desk->options = *options;
    desk->options.backoff_min_ms = 5;
    desk->options.backoff_max_ms = 40;
    gate_init(&desk->gate);
    desk->box = kit_box_make();
    desk->shop = shop_make(NULL, export_desk, desk);
    return desk;
}

UNUSED static struct desk *desk_go(const struct semel_client_options *options)
{
    struct desk *desk = desk_make(options);

    rig_serve(desk->shop->rig);
    desk_open(desk);
    return desk;
}

UNUSED static void desk_end(struct desk *desk)
{
    gate_open(&desk->gate, true);
    kit_box_allow(desk->box, -1);
    desk_close(desk);
    shop_end(desk->shop);
    kit_box_free(desk->box);
    gate_fini(&desk->gate);
    free(desk);
}

/* A call with that key, its body and tag the key too; returns its id. */
UNUSED static uint64_t desk_post(struct desk *desk, const char *method, const char *key)
{
    struct semel_call_options options = { .key = key };
    uint64_t id = 0;

    assert_int_equal(semel_client_post(desk->client, method, semel_bytes_text(key), &options,
                                       semel_bytes_text(key), &id),
                     SEMEL_OK);
    assert_int_not_equal(id, 0);
    return id;
}

/* The next result, in good time; the caller's to clear. */
UNUSED static struct semel_posted desk_take(struct desk *desk)
{
    struct semel_posted posted;

    assert_int_equal(semel_client_next_result(desk->client, 60000, &posted), SEMEL_OK);
    return posted;
}

/* The next result is that of desk_post(key), and is accepted. */
UNUSED static void desk_expect(struct desk *desk, const char *key, enum semel_outcome outcome,
                               enum semel_status status)
{
    struct semel_posted posted = desk_take(desk);

    assert_string_equal(posted.key, key);
    if (posted.result.outcome != outcome || posted.result.status != status)
        fail_msg("%s: %s, %s: %s", key, semel_outcome_text(posted.result.outcome),
                 semel_status_name(posted.result.status),
                 posted.result.text ? posted.result.text : "");
    assert_int_equal(posted.tag.size, strlen(key));
    assert_memory_equal(posted.tag.data, key, strlen(key));
    if (outcome == SEMEL_VALUE) {
        assert_int_equal(posted.result.body.size, strlen(key));
        assert_memory_equal(posted.result.body.data, key, strlen(key));
    }
    assert_int_equal(semel_client_accept(desk->client, posted.id), SEMEL_OK);
    semel_posted_clear(&posted);
}

UNUSED static void desk_counts(struct desk *desk, uint64_t outstanding, uint64_t results)
{
    uint64_t have_outstanding, have_results;

    semel_client_posted(desk->client, &have_outstanding, &have_results);
    assert_int_equal(have_outstanding, outstanding);
    assert_int_equal(have_results, results);
}

UNUSED static bool desk_has_result(void *arg)
{
    uint64_t results;

    semel_client_posted(((struct desk *)arg)->client, NULL, &results);
    return results > 0;
}

#endif
