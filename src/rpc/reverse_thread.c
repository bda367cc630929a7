/* SPDX-License-Identifier: MIT */
/* reverse_thread.c - the thread of a server's backchannels; it begins with the first of them.
 *
 * Its list holds references, save the timers: a channel whose last reference is being given back is
 * still found there, and passed over. */
#include <stdlib.h>

#include "rpc/reverse_server.h"

/* --- what it is given ------------------------------------------------------------------------ */

static void rouse_locked(struct sml_reverse *reverse)
{
    if (reverse->until == 0)
        return;
    reverse->until = 0;
    sml_cond_broadcast(&reverse->call);
}

void sml_reverse_tell(struct semel_backchannel *channel, struct sml_back_call *call)
{
    struct sml_reverse *reverse = channel->server->reverse;

    sml_mutex_lock(&reverse->lock);
    sml_list_push_back(&channel->ended, &call->ended_link);
    if (!sml_list_linked(&channel->work_link)) {
        semel_backchannel_ref(channel);
        sml_list_push_back(&reverse->work, &channel->work_link);
    }
    rouse_locked(reverse);
    sml_mutex_unlock(&reverse->lock);
}

void sml_reverse_finish(struct sml_carrier *carrier)
{
    struct sml_reverse *reverse = carrier->channel->server->reverse;

    sml_mutex_lock(&reverse->lock);
    sml_list_push_back(&reverse->over, &carrier->link);
    rouse_locked(reverse);
    sml_mutex_unlock(&reverse->lock);
}

/* One that is too early costs the thread a look; so it is only ever moved forward. */
void sml_reverse_arm(struct semel_backchannel *channel, uint64_t at)
{
    struct sml_reverse *reverse = channel->server->reverse;

    if (at >= channel->timer_at)
        return;
    channel->timer_at = at;
    sml_mutex_lock(&reverse->lock);
    sml_heap_remove(&reverse->timers, &channel->timer);
    sml_heap_insert(&reverse->timers, &channel->timer, at);
    if (at < reverse->until)
        rouse_locked(reverse);
    sml_mutex_unlock(&reverse->lock);
}

void sml_reverse_add(struct sml_reverse *reverse, struct semel_backchannel *channel)
{
    sml_mutex_lock(&reverse->lock);
    sml_list_push_back(&reverse->channels, &channel->all);
    sml_mutex_unlock(&reverse->lock);
}

void sml_reverse_remove(struct sml_reverse *reverse, struct semel_backchannel *channel)
{
    sml_mutex_lock(&reverse->lock);
    sml_list_remove(&channel->all);
    sml_heap_remove(&reverse->timers, &channel->timer);
    sml_mutex_unlock(&reverse->lock);
}

/* --- what it does ----------------------------------------------------------------------------- */

static void finish(struct sml_carrier *carrier)
{
    struct semel_request *request = carrier->request;
    enum semel_status status;

    sml_request_on_items(request, NULL, NULL);
    if (carrier->why == SEMEL_OK)
        status = semel_request_reply(request, NULL, 0);
    else
        status = semel_request_fail(request, (int)carrier->why, carrier->text);
    if (status != SEMEL_OK)
        semel_request_drop(request);
    semel_backchannel_unref(carrier->channel);
    free(carrier);
}

static void complete(struct sml_list *ended)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(ended)) != NULL) {
        struct sml_back_call *call = SML_CONTAINER(node, struct sml_back_call, ended_link);

        call->done(&call->result, call->user);
        semel_result_clear(&call->result);
        semel_backchannel_unref(call->channel);
        free(call);
    }
}

static void tick(struct semel_backchannel *channel)
{
    uint64_t now = sml_clock_now();
    bool much;

    sml_mutex_lock(channel->lock);
    channel->timer_at = SML_NEVER;
    if (channel->carrier && channel->carrier->starved)
        sml_carrier_look(channel->carrier, now);
    sml_reverse_tick(&channel->calls, now);
    much = sml_backchannel_settle(channel, now);
    if (channel->served)
        sml_served_write_parts(channel->served, much);
    else
        sml_mutex_unlock(channel->lock);
}

/* A reference, unless the last one is gone. */
static bool may_ref(struct semel_backchannel *channel)
{
    uint32_t refs = atomic_load(&channel->refs);

    while (refs > 0)
        if (atomic_compare_exchange_weak(&channel->refs, &refs, refs + 1))
            return true;
    return false;
}

/* One thing that is to be done, without the lock. False: there is none. */
static bool work_once(struct sml_reverse *reverse)
{
    struct semel_backchannel *channel;
    struct sml_list ended, *node;

    if ((node = sml_list_pop_front(&reverse->over)) != NULL) {
        sml_mutex_unlock(&reverse->lock);
        finish(SML_CONTAINER(node, struct sml_carrier, link));
    } else if ((node = sml_list_pop_front(&reverse->work)) != NULL) {
        channel = SML_CONTAINER(node, struct semel_backchannel, work_link);
        sml_list_init(&ended);
        sml_list_move_all(&ended, &channel->ended);
        sml_mutex_unlock(&reverse->lock);
        complete(&ended);
        semel_backchannel_unref(channel);
    } else if (sml_heap_min_key(&reverse->timers) <= sml_clock_now()) {
        channel = SML_CONTAINER(sml_heap_min(&reverse->timers), struct semel_backchannel, timer);
        sml_heap_remove(&reverse->timers, &channel->timer);
        if (!may_ref(channel))
            return true;
        sml_mutex_unlock(&reverse->lock);
        tick(channel);
        semel_backchannel_unref(channel);
    } else {
        return false;
    }
    sml_mutex_lock(&reverse->lock);
    return true;
}

static void serve(void *arg)
{
    struct sml_reverse *reverse = arg;

    atomic_store(&reverse->thread_id, sml_thread_self().value);
    sml_mutex_lock(&reverse->lock);
    for (;;) {
        if (work_once(reverse))
            continue;
        if (reverse->stop)
            break;
        reverse->until = sml_heap_min_key(&reverse->timers);
        (void)sml_cond_wait_until(&reverse->call, &reverse->lock, reverse->until);
        reverse->until = 0;
    }
    sml_mutex_unlock(&reverse->lock);
}

/* --- life ------------------------------------------------------------------------------------ */

enum semel_status sml_reverse_attend(struct sml_reverse *reverse)
{
    enum semel_status status = SEMEL_OK;

    sml_mutex_lock(&reverse->lock);
    if (!reverse->exists)
        status = sml_thread_create(&reverse->thread, "semel-reverse", 0, serve, reverse);
    reverse->exists |= status == SEMEL_OK;
    sml_mutex_unlock(&reverse->lock);
    return status;
}

void sml_reverse_stop(struct semel_server *server)
{
    struct sml_reverse *reverse = server->reverse;
    bool exists;

    if (reverse == NULL)
        return;
    sml_mutex_lock(&reverse->lock);
    reverse->stop = true;
    exists = reverse->exists;
    reverse->exists = false;
    rouse_locked(reverse);
    sml_mutex_unlock(&reverse->lock);
    if (exists)
        sml_thread_join(&reverse->thread);
}

void sml_reverse_forsake(struct semel_server *server)
{
    struct sml_reverse *reverse = server->reverse;
    struct sml_list *node;

    if (reverse == NULL)
        return;
    while ((node = sml_list_pop_front(&reverse->channels)) != NULL)
        atomic_store(&SML_CONTAINER(node, struct semel_backchannel, all)->gone, true);
    server->reverse = NULL;
    if (sml_origin_is_mine(&server->origin)) {
        sml_cond_fini(&reverse->call);
        sml_mutex_fini(&reverse->lock);
    }
    free(reverse);
}
