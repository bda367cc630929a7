/* SPDX-License-Identifier: MIT */
/* link.c - attempts, backoff, heartbeats, giving up, ending. Frames are in link_wire.c.
 *
 * With calls outstanding only the session's own address is tried; with none, the addresses take
 * turns and whoever answers gets a new session. A failed round over the addresses is followed by a
 * delay drawn between backoff_min and a ceiling that grows by 2^(1/3) per round: MUSCLE3's curve,
 * jittered. The first attempt after a working connection is immediate. */
#include "session/link.h"

#include <string.h>

#include "base/bug.h"
#include "base/check.h"
#include "session/link_internal.h"

/* Numbers that are set aside for a connection of a session that is kept: another process goes on
 * behind them. A million processes a year, each with a million million calls, last eight years. */
#define NUMBERS_RESERVED (UINT64_C(1) << 40)

void sml_link_init(struct sml_link *link, const struct sml_mem *mem,
                   const struct sml_entropy *entropy, const struct sml_link_options *options,
                   uint64_t now)
{
    memset(link, 0, sizeof *link);
    SML_ASSERT(options->addresses > 0 && options->window > 0);
    link->options = *options;
    link->entropy = *entropy;
    link->state = SML_LINK_WAITING;
    link->why = SEMEL_CONNECT;
    link->next_attempt = link->down_since = now;
    sml_caller_init(&link->caller, mem, options->cancel_grace, options->pending_max,
                    options->body_bytes);
}

void sml_link_fini(struct sml_link *link)
{
    sml_release(link->caller.mem, link->list);
    link->list = NULL;
    sml_caller_fini(&link->caller);
}

void sml_link_note(struct sml_link *link, enum semel_status why, struct semel_bytes text)
{
    size_t bytes = text.size < SML_BYE_TEXT_BYTES ? text.size : SML_BYE_TEXT_BYTES;

    link->why = why;
    memcpy(link->why_text, text.data, bytes);
    link->why_text[bytes] = '\0';
}

enum semel_status sml_link_submit(struct sml_link *link, struct sml_call *call, uint64_t now)
{
    if (link->state == SML_LINK_STOPPED)
        return SEMEL_STOPPED;
    if (link->state == SML_LINK_FAILED)
        return link->why;
    /* Giving up waits from the time when there is something to give up. */
    if (link->state != SML_LINK_UP && sml_caller_idle(&link->caller))
        link->down_since = now;
    return sml_caller_submit(&link->caller, call, now);
}

struct sml_link_action sml_link_next_action(struct sml_link *link)
{
    struct sml_link_action action = { .kind = SML_LINK_NONE, .address = link->address };

    if (link->close_wanted) {
        link->close_wanted = false;
        action.kind = SML_LINK_CLOSE;
    } else if (link->connect_wanted) {
        link->connect_wanted = false;
        action.kind = SML_LINK_CONNECT;
    } else if (link->save_wanted) {
        link->save_wanted = false;
        action.kind = SML_LINK_SAVE;
    }
    return action;
}

/* --- the way down ----------------------------------------------------------------------- */

static bool has_calls(const struct sml_link *link)
{
    return !sml_caller_idle(&link->caller);
}

static bool connected(const struct sml_link *link)
{
    return link->state == SML_LINK_CONNECTING || link->state == SML_LINK_GREETING ||
           link->state == SML_LINK_UP;
}

void sml_link_hang_up(struct sml_link *link, enum sml_bye_code bye)
{
    if (!connected(link))
        return;
    link->close_wanted = !link->connect_wanted;
    link->connect_wanted = false;
    if (bye != 0 && link->state != SML_LINK_CONNECTING && !link->hello_pending) {
        link->bye_pending = true;
        link->bye = bye;
        if (bye == SML_BYE_END)
            sml_caller_keep_acks(&link->caller);
    }
}

/* Forget what belonged to one connection. */
static void clear_connection(struct sml_link *link)
{
    sml_caller_down(&link->caller);
    sml_release(link->caller.mem, link->list);
    link->list = NULL;
    link->list_count = link->list_sent = link->states_left = 0;
    link->hello_pending = link->ping_pending = link->pong_pending = false;
    link->welcomed = link->draining = false;
    link->save_wanted = link->unsaved = false;
}

/* The delay before the attempt that follows `round` failed rounds (from 1). */
static uint64_t backoff(struct sml_link *link, uint32_t round)
{
    /* 2^(0/3), 2^(1/3), 2^(2/3) in 1/1024ths. */
    static const uint64_t third[] = { 1024, 1290, 1625 };
    uint64_t low = link->options.backoff_min, high = link->options.backoff_max;
    uint32_t doublings = (round - 1) / 3;
    uint64_t ceiling = doublings > 20 ? high : low * 5 * third[(round - 1) % 3] / 1024;
    uint64_t dice;

    ceiling = doublings > 20 ? high : sml_time_min(ceiling << doublings, high);
    if (ceiling <= low)
        return ceiling;
    link->entropy.fill(link->entropy.user, &dice, sizeof dice);
    return low + dice % (ceiling - low + 1);
}

static void plan_attempt(struct sml_link *link, bool fault, uint64_t now)
{
    bool bound =
        sml_caller_outstanding(&link->caller) > 0 ||
        (link->has_store && (link->keyed_outside > 0 || sml_caller_needs_store(&link->caller)));
    uint32_t choices = bound ? 1 : link->options.addresses;

    if (fault)
        link->attempts++;
    if (bound)
        link->address = link->session_address;
    else if (fault)
        link->address = (link->address + 1) % link->options.addresses;
    link->next_attempt = now;
    /* One immediate attempt at each choice, then delays between rounds. */
    if (link->attempts > 0 && link->attempts % choices == 0)
        link->next_attempt = sml_time_add(now, backoff(link, link->attempts / choices));
}

void sml_link_retry(struct sml_link *link, bool fault, uint64_t now)
{
    if (link->state == SML_LINK_UP)
        link->down_since = now;
    if (!fault)
        link->attempts = 0;
    clear_connection(link);
    if (!link->options.reconnect) {
        sml_link_fail(link);
        return;
    }
    link->state = SML_LINK_WAITING;
    plan_attempt(link, fault, now);
}

void sml_link_fail(struct sml_link *link)
{
    clear_connection(link);
    link->state = SML_LINK_FAILED;
    link->has_session = false;
    sml_caller_end_session(&link->caller, link->why, false, false, SML_NEVER);
}

void sml_link_session_lost(struct sml_link *link, uint64_t now)
{
    bool answered = link->has_session && link->state == SML_LINK_GREETING;
    uint32_t attempts = link->attempts;

    link->counters.sessions_lost++;
    if (answered) {
        /* The next session at once, but what failed before is not forgotten: nothing spins
         * against a server that loses each session it has just made. */
        sml_link_retry(link, false, now);
        link->attempts = attempts;
    } else {
        sml_link_lost(link, now);
    }
    if (link->state == SML_LINK_FAILED)
        return;
    link->has_session = link->created = link->recalled = false;
    sml_caller_end_session(&link->caller, SEMEL_SESSION_LOST, true, true, now);
}

static bool is_drained(const struct sml_link *link)
{
    return link->state == SML_LINK_UP && link->draining &&
           sml_caller_outstanding(&link->caller) == 0 && !sml_list_empty(&link->caller.queued);
}

void sml_link_leave_if_drained(struct sml_link *link, uint64_t now)
{
    if (!is_drained(link))
        return;
    sml_link_note(link, SEMEL_DRAINING, semel_bytes_text("server is draining"));
    sml_link_hang_up(link, SML_BYE_END);
    link->has_session = link->created = false;
    sml_caller_end_session(&link->caller, SEMEL_DRAINING, false, true, now);
    sml_link_retry(link, true, now);
}

void sml_link_stop(struct sml_link *link, uint64_t now)
{
    if (link->state == SML_LINK_STOPPED)
        return;
    sml_link_note(link, SEMEL_STOPPED, semel_bytes_text("the client was stopped"));
    /* A session that is kept waits for the next process, if there is anything to wait for. */
    link->ended = link->state == SML_LINK_UP && !(link->options.kept && has_calls(link));
    sml_link_hang_up(link, link->options.kept && has_calls(link) ? 0 : SML_BYE_END);
    clear_connection(link);
    link->state = SML_LINK_STOPPED;
    link->has_session = false;
    sml_caller_end_session(&link->caller, SEMEL_STOPPED, false, false, now);
}

/* --- what the shell reports ------------------------------------------------------------- */

/* New ids for a session that no server knows. */
static void draw_session(struct sml_link *link)
{
    link->entropy.fill(link->entropy.user, link->session.bytes, sizeof link->session.bytes);
    link->entropy.fill(link->entropy.user, link->secret, sizeof link->secret);
    memset(link->server_id, 0, sizeof link->server_id);
    link->generation = 0;
    link->session_address = link->address;
    link->conn_no = 0;
    link->has_session = link->created = false;
    sml_caller_begin_session(&link->caller);
    link->caller.session = link->session;
}

/* --- identity --------------------------------------------------------------------------- */

void sml_link_must_save(struct sml_link *link)
{
    link->save_wanted = link->unsaved = link->options.kept;
}

void sml_link_identity(const struct sml_link *link, struct sml_link_identity *out)
{
    *out = (struct sml_link_identity){
        .session = link->session,
        .has_session = link->has_session || link->welcomed,
        .address = link->session_address,
        .generation = link->generation,
        .has_store = link->has_store,
        .store_generation = link->store_generation,
        .durable_hi = link->caller.durable_hi,
        .conn_no = link->conn_no,
        .next = link->caller.next + (SML_BUG(NUMBERS_NOT_RESERVED) ? 0 : NUMBERS_RESERVED)
    };
    memcpy(out->secret, link->secret, sizeof out->secret);
    memcpy(out->server_id, link->server_id, sizeof out->server_id);
    memcpy(out->store_id, link->store_id, sizeof out->store_id);
    if (!link->ended)
        return;
    memset(out->session.bytes, 0, sizeof out->session.bytes);
    memset(out->secret, 0, sizeof out->secret);
    out->has_session = false;
}

void sml_link_restore(struct sml_link *link, const struct sml_link_identity *identity)
{
    static const uint8_t none[16];

    SML_ASSERT(link->state == SML_LINK_WAITING && !link->created);
    link->has_store = identity->has_store;
    memcpy(link->store_id, identity->store_id, sizeof link->store_id);
    link->store_generation = identity->store_generation;
    if (identity->next > SML_XID_MAX - NUMBERS_RESERVED ||
        memcmp(identity->session.bytes, none, sizeof none) == 0)
        return; /* its numbers are used up, or it was ended: a new session */
    link->session = link->caller.session = identity->session;
    memcpy(link->secret, identity->secret, sizeof link->secret);
    memcpy(link->server_id, identity->server_id, sizeof link->server_id);
    link->generation = identity->generation;
    link->conn_no = identity->conn_no;
    link->address = link->session_address = identity->address % link->options.addresses;
    link->created = link->recalled = true;
    link->has_session = identity->has_session;
    link->caller.durable_hi = identity->durable_hi;
    if (identity->has_session)
        link->caller.next = identity->next;
}

void sml_link_saved(struct sml_link *link)
{
    if (!link->unsaved)
        return;
    link->unsaved = false;
    link->caller.next_limit = link->caller.next + NUMBERS_RESERVED;
}

void sml_link_save_failed(struct sml_link *link, const char *text, uint64_t now)
{
    if (!link->unsaved)
        return;
    sml_link_note(link, SEMEL_STORE_FAILED, semel_bytes_text(text));
    sml_link_hang_up(link, 0);
    sml_link_retry(link, true, now);
}

static bool snapshot_outstanding(struct sml_link *link)
{
    uint32_t count = sml_caller_outstanding(&link->caller);

    link->list_count = link->list_sent = 0;
    if (count == 0) {
        link->caller.listed = true;
        return true;
    }
    link->list = sml_alloc(link->caller.mem, count * sizeof *link->list);
    if (link->list == NULL)
        return false;
    sml_caller_list(&link->caller, link->list);
    link->list_count = count;
    return true;
}

void sml_link_connected(struct sml_link *link, uint64_t now)
{
    bool known = link->has_session || link->created;

    if (link->state != SML_LINK_CONNECTING) {
        link->close_wanted = true;
        return;
    }
    if (!known || link->session_address != link->address)
        draw_session(link);
    link->created = true;
    link->conn_no++;
    link->bye_pending = false;
    sml_caller_drop_last_acks(&link->caller);
    if (!snapshot_outstanding(link)) {
        sml_link_note(link, SEMEL_NO_MEMORY, semel_bytes_text("no memory to resume the session"));
        sml_link_hang_up(link, 0);
        sml_link_retry(link, true, now);
        return;
    }
    link->hello_pending = true;
    sml_link_must_save(link);
    link->state = SML_LINK_GREETING;
    link->last_heard = link->last_sent = link->last_ping = now;
    link->step_deadline = sml_time_add(now, link->options.handshake);
}

void sml_link_connect_failed(struct sml_link *link, enum semel_status why, const char *text,
                             uint64_t now)
{
    if (link->state != SML_LINK_CONNECTING)
        return;
    sml_link_note(link, why, semel_bytes_text(text));
    sml_link_retry(link, true, now);
}

/* Did the connection do any good? One that did not counts towards the backoff, so that nothing
 * spins against a server that closes what it has just greeted. */
static bool was_useful(const struct sml_link *link, uint64_t now)
{
    return link->state == SML_LINK_UP &&
           (link->caller.accepted_reply || now - link->up_since >= link->options.backoff_min / 10);
}

void sml_link_lost(struct sml_link *link, uint64_t now)
{
    bool useless = !was_useful(link, now);

    /* The first loss is answered at once whatever the connection was good for. */
    sml_link_retry(link, useless && link->attempts > 0, now);
    if (useless && link->attempts == 0)
        link->attempts = 1;
}

void sml_link_closed(struct sml_link *link, enum semel_status why, bool mid_frame, uint64_t now)
{
    const char *text =
        why == SEMEL_PEER_DIED ? "the server closed the connection" : "the connection broke";

    if (link->state != SML_LINK_GREETING && link->state != SML_LINK_UP)
        return;
    link->counters.lost++;
    link->counters.lost_mid_frame += mid_frame;
    sml_link_note(link, why, semel_bytes_text(text));
    sml_link_lost(link, now);
}

/* --- time ------------------------------------------------------------------------------- */

/* When nothing heard so far means that the link is lost. */
static uint64_t silence_end(const struct sml_link *link)
{
    uint64_t span = link->options.heartbeat;

    if (span == SML_NEVER)
        return SML_NEVER;
    return sml_time_add(link->last_heard, span * (link->options.heartbeat_missed + 1));
}

/* A PING when nothing was heard, or nothing was said, for a heartbeat. */
static uint64_t ping_due(const struct sml_link *link)
{
    uint64_t quiet = sml_time_min(link->last_heard, link->last_sent);
    uint64_t base = quiet > link->last_ping ? quiet : link->last_ping;

    return sml_time_add(base, link->options.heartbeat);
}

static void time_out(struct sml_link *link, const char *text, bool fault, uint64_t now)
{
    if (link->state == SML_LINK_UP || link->state == SML_LINK_GREETING)
        link->counters.lost++;
    sml_link_note(link, SEMEL_LINK_LOST, semel_bytes_text(text));
    sml_link_hang_up(link, link->state == SML_LINK_UP ? SML_BYE_SILENT : 0);
    sml_link_retry(link, fault, now);
}

static void give_up(struct sml_link *link, uint64_t now)
{
    sml_link_hang_up(link, 0);
    sml_link_retry(link, false, now);
    if (link->state == SML_LINK_FAILED)
        return;
    sml_caller_end_session(&link->caller, link->why, false, false, now);
    link->has_session = link->created = false;
    link->down_since = now;
    link->next_attempt = sml_time_add(now, link->options.backoff_min);
}

void sml_link_tick(struct sml_link *link, uint64_t now)
{
    sml_caller_tick(&link->caller, now);
    switch (link->state) {
    case SML_LINK_UP:
        sml_link_leave_if_drained(link, now);
        if (link->state != SML_LINK_UP)
            break;
        if (silence_end(link) <= now) {
            time_out(link, "nothing was heard from the server for too long", false, now);
        } else if (ping_due(link) <= now) {
            link->ping_pending = true;
            link->last_ping = now;
        }
        break;
    case SML_LINK_CONNECTING:
        if (link->step_deadline <= now)
            time_out(link, "connecting took too long", true, now);
        break;
    case SML_LINK_GREETING:
        if (link->step_deadline <= now)
            time_out(link, "the server did not answer the greeting", true, now);
        break;
    default:
        break;
    }
    if (link->state == SML_LINK_FAILED || link->state == SML_LINK_STOPPED)
        return;
    if (link->state != SML_LINK_UP && has_calls(link) &&
        sml_time_add(link->down_since, link->options.give_up) <= now)
        give_up(link, now);
    if (link->state == SML_LINK_WAITING && link->next_attempt <= now && !link->close_wanted) {
        link->state = SML_LINK_CONNECTING;
        link->connect_wanted = true;
        link->step_deadline = sml_time_add(now, link->options.connect);
    }
}

uint64_t sml_link_timeout(const struct sml_link *link)
{
    uint64_t due = sml_caller_timeout(&link->caller);

    switch (link->state) {
    case SML_LINK_UP:
        if (is_drained(link))
            return 0; /* a tick leaves */
        due = sml_time_min(due, sml_time_min(silence_end(link), ping_due(link)));
        break;
    case SML_LINK_CONNECTING:
    case SML_LINK_GREETING:
        due = sml_time_min(due, link->step_deadline);
        break;
    case SML_LINK_WAITING:
        due = sml_time_min(due, link->next_attempt);
        break;
    default:
        return due;
    }
    if (link->state != SML_LINK_UP && has_calls(link))
        due = sml_time_min(due, sml_time_add(link->down_since, link->options.give_up));
    return due;
}
