/* SPDX-License-Identifier: MIT */
/* server_admin_counters.c - semel.counters: every figure that a server has of itself.
 *
 * Times are counted in buckets from the server's beginning. All of them are given, so that whoever
 * asks twice can tell the quantiles of what lies between. */
#include "rpc/server_admin.h"

#include <stdlib.h>
#include <string.h>

#include <semel/semel.h>

#include "rpc/json_text.h"
#include "rpc/server_internal.h"
#include "rpc/server_seam.h"

/* --- counters -------------------------------------------------------------------------------- */

/* clang-format off */
#define COUNTERS(X)                                                                            \
    X(connections_accepted) X(connections_open) X(connections_lost) X(handshakes_failed)       \
    X(connections_lost_mid_frame) X(sessions_created) X(sessions_resumed) X(sessions_open)     \
    X(sessions_expired) X(sessions_ended) X(calls_received) X(calls_started) X(calls_inline)   \
    X(calls_running) X(calls_waiting) X(values) X(failures) X(not_executed) X(unknown)         \
    X(calls_busy) X(calls_refused) X(calls_cancelled) X(calls_abandoned) X(duplicates)         \
    X(stale) X(reattached) X(replayed) X(false_retries) X(protocol_errors)                     \
    X(takeovers_by_watchdog) X(threads) X(commits) X(commits_failed) X(calls_recorded)         \
    X(transactions) X(transactions_undone) X(keys_replayed) X(keys_mismatched)                 \
    X(sessions_restored) X(calls_restored) X(calls_crashed) X(calls_poisoned)                  \
    X(bytes_received) X(bytes_sent) X(reads) X(writes)
/* clang-format on */

#define COUNT(name) +1
/* All of them are u64, and none was forgotten here. */
_Static_assert((0 COUNTERS(COUNT)) * sizeof(uint64_t) == sizeof(struct semel_server_counters),
               "a counter that nobody would see");

static void put_counters(struct semel_server *server, struct sml_json *json)
{
    struct semel_server_counters counters;

    semel_server_counters(server, &counters);
    sml_json_open(json, "counters", '{');
#define PUT(name) sml_json_u64(json, #name, counters.name);
    COUNTERS(PUT)
#undef PUT
    sml_json_close(json, '}');
}

#define SHOWN(number) SHOWN_(number)
#define SHOWN_(number) #number

static void put_server(struct semel_server *server, struct sml_json *json)
{
    bool stops = atomic_load(&server->stop_wanted);
    bool drains = atomic_load(&server->drain_until) != SML_NEVER;

    sml_json_open(json, "server", '{');
    sml_json_text(
        json, "version",
        SHOWN(SEMEL_VERSION_MAJOR) "." SHOWN(SEMEL_VERSION_MINOR) "." SHOWN(SEMEL_VERSION_PATCH));
    sml_json_u64(json, "pid", (uint64_t)server->origin.pid);
    sml_json_u64(json, "uid", server->admin.uid);
    sml_json_text(json, "state", stops ? "stopping" : drains ? "draining" : "serving");
    sml_json_u64(json, "uptime_ns", sml_clock_now() - server->admin.created);
    sml_json_u64(json, "workers", server->workers);
    sml_json_u64(json, "backlog", server->backlog);
    sml_json_bool(json, "store", server->options.store != NULL);
    sml_json_close(json, '}');
}

/* --- methods --------------------------------------------------------------------------------- */

static void put_latency(struct sml_json *json, const struct sml_tally_sum *sum)
{
    sml_json_u64(json, "values", sum->outcomes[SEMEL_VALUE]);
    sml_json_u64(json, "failures", sum->outcomes[SEMEL_FAILURE]);
    sml_json_u64(json, "not_executed", sum->outcomes[SEMEL_NOT_EXECUTED]);
    sml_json_u64(json, "unknown", sum->outcomes[SEMEL_UNKNOWN]);
    sml_json_u64(json, "p50_ns", sml_tally_sum_quantile(sum, 500));
    sml_json_u64(json, "p99_ns", sml_tally_sum_quantile(sum, 990));
    sml_json_open(json, "times", '[');
    for (uint32_t i = 0; i < SML_TALLY_BUCKETS; i++) {
        if (sum->buckets[i] == 0)
            continue;
        sml_json_open(json, NULL, '[');
        sml_json_u64(json, NULL, sml_tally_bound(i));
        sml_json_u64(json, NULL, sum->buckets[i]);
        sml_json_close(json, ']');
    }
    sml_json_close(json, ']');
}

struct method_now {
    uint32_t unfinished, waiting;
};

/* queue_lock held. */
static struct method_now look(const struct sml_method *method)
{
    struct method_now now = { method->unfinished, method->queued };

    for (const struct sml_list *node = method->parked.next; node != &method->parked;
         node = node->next)
        now.waiting++;
    return now;
}

static void put_method(struct semel_server *server, struct sml_json *json,
                       const struct sml_method *method, struct sml_tally_sum *total)
{
    struct sml_tally_sum sum = { { 0 }, 0, { 0 } };
    struct method_now now;

    for (uint32_t i = 0; i < method->tally_slots; i++) {
        const struct sml_tally *tally =
            atomic_load_explicit(&method->tallies[i], memory_order_acquire);

        if (tally)
            sml_tally_sum_add(&sum, tally);
    }
    sml_tally_sum_merge(total, &sum);
    sml_mutex_lock(&server->queue_lock);
    now = look(method);
    sml_mutex_unlock(&server->queue_lock);
    sml_json_open(json, NULL, '{');
    sml_json_text(json, "name", method->name);
    sml_json_u64(json, "running", now.unfinished);
    sml_json_u64(json, "waiting", now.waiting);
    put_latency(json, &sum);
    sml_json_close(json, '}');
}

/* The library's own methods are shown once somebody has called them. */
static bool is_unused(const struct sml_method *method)
{
    bool used = strncmp(method->name, "semel.", 6) != 0;

    for (uint32_t i = 0; i < method->tally_slots && !used; i++)
        used = atomic_load_explicit(&method->tallies[i], memory_order_relaxed) != NULL;
    return !used;
}

static void put_methods(struct semel_server *server, struct sml_json *json)
{
    const struct sml_method *methods[SML_METHODS_SHOWN];
    uint32_t count = sml_admin_methods(server, methods);
    uint32_t shown = count < SML_METHODS_SHOWN ? count : SML_METHODS_SHOWN;
    struct sml_tally_sum total = { { 0 }, 0, { 0 } };

    sml_json_open(json, "methods", '[');
    for (uint32_t i = 0; i < shown; i++)
        if (methods[i]->admin == SML_ADMIN_NOT && !methods[i]->standing && !is_unused(methods[i]))
            put_method(server, json, methods[i], &total);
    sml_json_close(json, ']');
    sml_json_u64(json, "methods_left_off", count - shown);
    sml_json_open(json, "all", '{');
    put_latency(json, &total);
    sml_json_close(json, '}');
}

/* --- workers --------------------------------------------------------------------------------- */

struct slot {
    uint32_t number;
    const char *state;
    const struct sml_method *method;
    uint64_t since;
};

static int by_number(const void *a, const void *b)
{
    const struct slot *left = a, *right = b;

    return (left->number > right->number) - (left->number < right->number);
}

/* The serving threads; at most `room`. */
static uint32_t look_at_workers(struct semel_server *server, struct slot *slots, uint32_t room)
{
    uint32_t count = 0;

    sml_mutex_lock(&server->queue_lock);
    for (struct sml_list *node = server->all_workers.next;
         node != &server->all_workers && count < room; node = node->next) {
        struct sml_worker *worker = SML_CONTAINER(node, struct sml_worker, all);
        struct slot *slot = &slots[count++];

        slot->number = worker->slot;
        slot->method = atomic_load_explicit(&worker->method, memory_order_relaxed);
        slot->since = atomic_load_explicit(&worker->since, memory_order_relaxed);
        slot->state = slot->method                          ? "running"
                      : server->leader == worker            ? "reading"
                      : sml_list_linked(&worker->idle_link) ? "idle"
                                                            : "between";
    }
    sml_mutex_unlock(&server->queue_lock);
    return count;
}

static void put_workers(struct semel_server *server, struct sml_json *json)
{
    uint32_t room = server->workers + 1, count = 0;
    struct slot *slots = calloc(room, sizeof *slots);
    uint64_t now;

    if (slots == NULL)
        json->status = SEMEL_NO_MEMORY;
    else
        count = look_at_workers(server, slots, room);
    if (count > 0)
        qsort(slots, count, sizeof *slots, by_number);
    now = sml_clock_now();
    sml_json_open(json, "workers", '[');
    for (uint32_t i = 0; i < count; i++) {
        sml_json_open(json, NULL, '{');
        sml_json_u64(json, "slot", slots[i].number);
        sml_json_text(json, "state", slots[i].state);
        if (slots[i].method) {
            sml_json_text(json, "method", slots[i].method->name);
            sml_json_u64(json, "for_ns", now > slots[i].since ? now - slots[i].since : 0);
        }
        sml_json_close(json, '}');
    }
    sml_json_close(json, ']');
    free(slots);
}

void sml_admin_counters(struct semel_server *server, struct sml_json *json)
{
    put_server(server, json);
    put_counters(server, json);
    put_methods(server, json);
    put_workers(server, json);
    if (server->admin.show)
        server->admin.show(json, server->admin.shown);
}

enum semel_status sml_server_show(struct semel_server *server,
                                  void (*show)(struct sml_json *json, void *user), void *user)
{
    enum semel_status status = sml_server_check_open(server);

    if (status != SEMEL_OK)
        return status;
    sml_mutex_lock(&server->queue_lock);
    if (server->state != SML_SERVER_NEW || server->admin.show) {
        status = SEMEL_ALREADY;
    } else {
        server->admin.show = show;
        server->admin.shown = user;
    }
    sml_mutex_unlock(&server->queue_lock);
    return status;
}
