/* SPDX-License-Identifier: MIT */
/* server_guest.c - a handler that leads while it waits for items.
 *
 * Problem. The leader reads what a handler waits for in semel_request_next, and wakes it: two wakes
 * of a core for each read, which cost as much as the read. So the thread that waits leads itself
 * meanwhile, as a *guest*: it reads every connection, not just its own, and is back in its handler
 * when there is an item.
 *
 * A guest comes in when its handler has proven brisk: while that works, nobody reads. One that is
 * not, and works while the leader reads, gains nothing by it either. It asks; the leader steps down
 * at the end of its round, and tells it so by news of its stream.
 *
 * A guest stands inside a handler, which may hold locks of the application's: it runs no other
 * handler and no cancel callback. When there are such, and when its handler is not to wait again,
 * another thread leads; the next guest comes in only after a while. Between two waits it is a
 * leader inside its handler like one that runs a short call, so the watchdog deposes it if that
 * lasts.
 *
 * News of a stream are told by the leader alone. So a guest misses none in its sleep. */
#include "rpc/server_internal.h"

/* After one was in the way of short calls. */
#define PAUSE_NS 100000000

static void enter_handler(struct semel_server *server)
{
    sml_watchdog_attend(server);
    atomic_store_explicit(&server->inline_since, sml_clock_now(), memory_order_release);
}

/* queue_lock held. It asks no more. Does it lead? */
static bool answer_locked(struct semel_server *server, struct sml_guest *guest)
{
    if (server->guest == guest)
        server->guest = NULL;
    guest->worker->guest = server->leader == guest->worker;
    return guest->worker->guest;
}

/* queue_lock held: else it could be deposed, and lead nevertheless. */
static void leave_handler_locked(struct semel_server *server)
{
    atomic_store_explicit(&server->inline_since, 0, memory_order_relaxed);
    atomic_store_explicit(&server->inlining, false, memory_order_release);
}

/* queue_lock held. */
static void ask_locked(struct semel_server *server, struct sml_guest *guest)
{
    if (server->guest || server->leader == NULL || server->leader->guest ||
        sml_clock_now() < server->guests_from)
        return;
    server->guest = guest;
    sml_server_nudge_locked(server);
}

bool sml_guest_admit(struct semel_server *server)
{
    struct sml_guest *guest;

    sml_mutex_lock(&server->queue_lock);
    guest = server->guest;
    if (guest) {
        server->guest = NULL;
        server->leader = guest->worker;
        enter_handler(server);
        sml_news_tell(guest->news); /* it is there: it takes itself out under queue_lock */
    }
    sml_mutex_unlock(&server->queue_lock);
    return guest != NULL;
}

bool sml_guest_stays(struct semel_server *server)
{
    bool in_the_way;

    sml_mutex_lock(&server->queue_lock);
    in_the_way = server->telling || sml_server_may_inline_locked(server, server->running);
    if (in_the_way)
        server->guests_from = sml_clock_now() + PAUSE_NS;
    sml_mutex_unlock(&server->queue_lock);
    return !in_the_way;
}

void sml_guest_leave(struct sml_worker *worker)
{
    struct semel_server *server = worker->server;

    if (!worker->guest)
        return;
    sml_mutex_lock(&server->queue_lock);
    worker->guest = false;
    sml_mutex_unlock(&server->queue_lock);
    sml_server_resign(worker);
}

/* As the leader. */
static void lead(struct semel_server *server, struct sml_guest *guest)
{
    if (sml_server_lead_as_guest(server, guest))
        enter_handler(server);
    else
        sml_guest_leave(guest->worker);
}

bool sml_guest_wait(struct sml_guest *guest, bool brisk)
{
    struct semel_server *server = guest->worker->server;
    bool leads;

    if (!brisk) {
        sml_guest_leave(guest->worker);
        return sml_news_wait(guest->news, guest->seen, guest->until);
    }
    sml_mutex_lock(&server->queue_lock);
    leads = answer_locked(server, guest);
    if (leads)
        leave_handler_locked(server);
    else
        ask_locked(server, guest);
    sml_mutex_unlock(&server->queue_lock);
    if (leads) {
        lead(server, guest);
    } else {
        (void)sml_news_wait(guest->news, guest->seen, guest->until);
        sml_mutex_lock(&server->queue_lock);
        (void)answer_locked(server, guest);
        sml_mutex_unlock(&server->queue_lock);
    }
    return sml_guest_has_news(guest) || sml_clock_now() < guest->until;
}
