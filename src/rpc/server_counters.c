/* SPDX-License-Identifier: MIT */
/* server_counters.c - a snapshot of what a server has done. Each figure is true of some moment
 * during the call; they are not all of the same one. */
#include "rpc/server_internal.h"

#include <string.h>

static void add_callee(struct semel_server_counters *out, const struct sml_callee_counters *from)
{
    out->values += from->values;
    out->failures += from->failures;
    out->not_executed += from->not_executed;
    out->unknown += from->unknown;
    out->calls_cancelled += from->cancelled;
    out->calls_abandoned += from->abandoned;
    out->calls_busy += from->busy;
    out->calls_refused += from->overloaded;
    out->duplicates += from->duplicates;
    out->stale += from->stale;
    out->reattached += from->reattached;
    out->replayed += from->replayed;
    out->false_retries += from->false_retries;
}

static void add_sessions(struct semel_server *server, struct semel_server_counters *out)
{
    const struct sml_host_counters *host = &server->host.counters;

    sml_mutex_lock(&server->host_lock);
    out->sessions_created = host->created;
    out->sessions_resumed = host->resumed;
    out->sessions_open = server->host.session_count;
    out->sessions_expired = host->expired;
    out->sessions_ended = host->ended - host->expired;
    add_callee(out, &server->past);
    for (struct sml_list *node = server->served.next; node != &server->served; node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        sml_mutex_lock(served->lock);
        add_callee(out, &served->session->callee.counters);
        sml_mutex_unlock(served->lock);
    }
    sml_mutex_unlock(&server->host_lock);
}

static void add_queue(struct semel_server *server, struct semel_server_counters *out)
{
    sml_mutex_lock(&server->queue_lock);
    out->calls_started = server->calls_started;
    out->calls_inline = server->calls_inline;
    out->calls_running = server->running;
    out->calls_waiting = (uint64_t)server->queued + server->parked + server->stalled +
                         server->unstarted_count + server->txn_count;
    out->calls_busy += server->calls_busy;
    out->calls_refused += server->calls_refused;
    out->takeovers_by_watchdog = server->takeovers;
    out->threads = server->threads + (server->watched && !server->quit) + server->admin.serving;
    sml_mutex_unlock(&server->queue_lock);
}

static uint64_t shown(const _Atomic uint64_t *total)
{
    return atomic_load_explicit(total, memory_order_relaxed);
}

static void add_store(const struct semel_server *server, struct semel_server_counters *out)
{
    const struct sml_commit *commit = &server->commit;

    out->commits = shown(&commit->totals.commits);
    out->commits_failed = shown(&commit->totals.failed);
    out->calls_recorded = shown(&commit->totals.recorded);
    out->transactions = shown(&commit->totals.transactions);
    out->transactions_undone = shown(&commit->totals.undone);
    out->keys_replayed = shown(&commit->totals.replayed);
    out->keys_mismatched = shown(&commit->totals.mismatched);
    out->sessions_restored = shown(&commit->totals.sessions);
    out->calls_restored = shown(&commit->totals.calls);
    out->calls_crashed = shown(&commit->totals.crashed);
    out->calls_poisoned = shown(&commit->totals.poisoned);
}

void semel_server_counters(const struct semel_server *const_server,
                           struct semel_server_counters *out_counters)
{
    struct semel_server *server = (struct semel_server *)const_server; /* for its locks */
    const struct sml_server_totals *totals;

    if (out_counters == NULL)
        return;
    memset(out_counters, 0, sizeof *out_counters);
    if (server == NULL || !sml_origin_is_mine(&server->origin))
        return;
    totals = &server->totals;
    add_store(server, out_counters);
    add_sessions(server, out_counters);
    add_queue(server, out_counters);
    out_counters->connections_accepted = shown(&totals->accepted);
    out_counters->connections_open = shown(&totals->open);
    out_counters->connections_lost = shown(&totals->lost);
    out_counters->connections_lost_mid_frame = shown(&totals->lost_mid_frame);
    out_counters->handshakes_failed = shown(&totals->handshakes_failed);
    out_counters->protocol_errors = shown(&totals->protocol_errors);
    out_counters->calls_received = shown(&totals->calls);
    out_counters->reads = shown(&totals->reads);
    out_counters->bytes_received = shown(&totals->bytes_in);
    out_counters->writes = shown(&totals->writes);
    out_counters->bytes_sent = shown(&totals->bytes_out);
}
