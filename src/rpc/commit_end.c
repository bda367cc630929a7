/* SPDX-License-Identifier: MIT */
/* commit_end.c - the committer's end: what the store did not take, and who is told of that.
 *
 * Whoever waits for the server's end waits for what its handlers left to be stored, too; else he
 * could not be told that it was not. Requests that were taken may be finished even later: what they
 * leave is stored by sml_commit_stop. */
#include <inttypes.h>
#include <stdlib.h>

#include "rpc/server_internal.h"

/* --- what is lost ------------------------------------------------------------------------ */

/* Calls that will be unknown to the next server, since the store has them as begun. */
static uint32_t count_lost(const struct sml_session *session)
{
    const struct sml_list *all = &session->callee.to_record;
    uint32_t count = 0;

    for (const struct sml_list *node = all->next; node != all; node = node->next) {
        const struct sml_incoming *in = SML_CONTAINER(node, struct sml_incoming, link);

        count += in->row != 0 && (in->phase == SML_IN_STORING || in->phase == SML_IN_UNSTARTING);
    }
    return count;
}

void sml_commit_say_lost(struct sml_commit *commit)
{
    struct semel_server *server = commit->server;
    uint64_t count = 0;

    sml_mutex_lock(&server->host_lock);
    for (struct sml_list *node = server->served.next; node != &server->served; node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        sml_mutex_lock(served->lock);
        count += count_lost(served->session);
        sml_mutex_unlock(served->lock);
    }
    sml_mutex_unlock(&server->host_lock);
    if (count == 0 || count == commit->lost)
        return;
    commit->lost = count;
    atomic_store(&commit->status, commit->store->status);
    sml_server_log(server, SEMEL_LOG_ERROR,
                   "calls that will be unknown, since the store does not take their end: %" PRIu64
                   "; %s",
                   count, commit->store->text);
}

/* --- rest -------------------------------------------------------------------------------- */

void sml_commit_set_at_rest(struct sml_commit *commit, bool at_rest)
{
    struct semel_server *server = commit->server;

    sml_mutex_lock(&server->queue_lock);
    atomic_store(&commit->awaited, false);
    commit->at_rest = at_rest;
    sml_cond_broadcast(&server->changed);
    sml_mutex_unlock(&server->queue_lock);
}

bool sml_commit_at_rest_locked(struct sml_commit *commit)
{
    if (!sml_commit_is_durable(commit) || commit->at_rest)
        return true;
    atomic_store(&commit->awaited, true);
    sml_commit_wake(commit);
    return false;
}

/* --- what is left ------------------------------------------------------------------------ */

void sml_commit_abandon(struct sml_commit *commit)
{
    struct semel_server *server = commit->server;

    sml_commit_answer(commit, false);
    for (uint32_t i = 0; i < commit->limbo_count; i++) {
        struct sml_limbo *limbo = &commit->limbo[i];
        struct sml_change change = { SML_CHANGE_END, limbo->in };

        if (limbo->decided)
            sml_callee_recorded(&limbo->served->session->callee, &change, 0, false);
        else
            sml_callee_postpone_to_restart(&limbo->served->session->callee, limbo->in);
    }
    for (struct sml_list *node = server->served.next; node != &server->served; node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);
        struct sml_list *at = served->session->callee.to_record.next, *next;

        for (; at != &served->session->callee.to_record; at = next) {
            struct sml_incoming *in = SML_CONTAINER(at, struct sml_incoming, link);
            struct semel_request *request = in->user;

            next = at->next;
            if (in->phase != SML_IN_STARTING || !in->held)
                continue;
            sml_callee_postpone_to_restart(&served->session->callee, in);
            sml_info_unref(request->info);
            sml_request_close_stream(request);
            free(request);
        }
    }
}
