/* SPDX-License-Identifier: MIT */
/* link_wire.c - the client's handshake and the frames around the calls.
 *
 * What a server may send: before WELCOME, WELCOME or BYE; until the listed states are complete,
 * LIST or BYE; then everything but what only clients send. Anything else is a protocol error and
 * final. Undecodable bytes are forgiven once, until a reply is accepted again: a damaged stream is
 * not a broken peer. */
#include <string.h>

#include "base/bug.h"
#include "base/check.h"
#include "session/link_internal.h"

/* Before WELCOME nothing longer than a BYE with its text is taken. */
#define GREETING_PAYLOAD_BYTES SML_BYE_PAYLOAD_BYTES_MAX

/* --- what goes out ---------------------------------------------------------------------- */

static size_t pull_hello(struct sml_link *link, uint8_t *out)
{
    struct sml_hello hello = {
        .version = SML_VERSION,
        .kind = link->has_session ? SML_RESUME : SML_CREATE,
        .features = SML_FEATURE_KEYS | SML_FEATURE_PARTS,
        .count = link->list_count,
        .session = link->session,
        .conn_no = link->conn_no,
        .next = link->caller.next,
        .body_bytes = link->options.body_bytes,
        .window = link->options.window,
    };
    uint64_t heartbeat = link->options.heartbeat;

    if (heartbeat != SML_NEVER)
        hello.heartbeat_ms = (uint32_t)sml_time_min(heartbeat / SML_MS, UINT32_MAX);
    memcpy(hello.secret, link->secret, sizeof hello.secret);
    memcpy(hello.server_id, link->server_id, sizeof hello.server_id);
    link->hello_pending = false;
    return sml_encode_hello(out, &hello);
}

static size_t pull_greeting(struct sml_link *link, uint8_t *out, size_t room)
{
    size_t used = 0;

    if (link->hello_pending)
        used += pull_hello(link, out);
    while (link->list_sent < link->list_count && room - used >= SML_FRAME_BYTES_MAX) {
        uint32_t count = link->list_count - link->list_sent;

        if (count > SML_LIST_ENTRIES_MAX)
            count = SML_LIST_ENTRIES_MAX;
        used += sml_encode_outstanding(out + used, link->list + link->list_sent, count);
        link->list_sent += count;
    }
    return used;
}

size_t sml_link_pull(struct sml_link *link, uint8_t *out, size_t room, uint64_t now)
{
    size_t used = 0;

    if (room < SML_FRAME_BYTES_MAX)
        return 0;
    if (link->bye_pending) {
        used = sml_caller_pull_last_acks(&link->caller, out, room);
        if (room - used < SML_FRAME_BYTES_MAX)
            return used;
        link->bye_pending = false;
        return used + sml_encode_bye(out + used, link->bye, semel_bytes_text(link->why_text));
    }
    if (link->unsaved && !SML_BUG(UNSAVED_SENT))
        return 0;
    if (link->state == SML_LINK_GREETING) {
        used = pull_greeting(link, out, room);
    } else if (link->state == SML_LINK_UP) {
        if (link->pong_pending)
            used += sml_encode_plain(out + used, SML_PONG, link->pong_nonce);
        if (link->ping_pending)
            used += sml_encode_plain(out + used, SML_PING, link->last_ping);
        link->pong_pending = link->ping_pending = false;
        used += sml_caller_pull(&link->caller, out + used, room - used, !link->draining, now);
    }
    if (used > 0)
        link->last_sent = now;
    return used;
}

bool sml_link_wants_write(const struct sml_link *link, uint64_t now)
{
    if (link->bye_pending)
        return true;
    if (link->unsaved && !SML_BUG(UNSAVED_SENT))
        return false;
    if (link->state == SML_LINK_GREETING)
        return link->hello_pending || link->list_sent < link->list_count;
    return link->state == SML_LINK_UP &&
           (link->pong_pending || link->ping_pending ||
            sml_caller_wants_write(&link->caller, !link->draining, now));
}

/* --- what comes in ---------------------------------------------------------------------- */

static void protocol_error(struct sml_link *link, const char *why)
{
    link->counters.protocol_errors++;
    sml_link_note(link, SEMEL_PROTOCOL, semel_bytes_text(why));
    sml_link_hang_up(link, SML_BYE_PROTOCOL);
    sml_link_fail(link);
}

static void undecodable(struct sml_link *link, const char *why, uint64_t now)
{
    link->strikes++;
    if (link->strikes > 1) {
        protocol_error(link, why);
        return;
    }
    link->counters.protocol_errors++;
    link->counters.lost++;
    sml_link_note(link, SEMEL_PROTOCOL, semel_bytes_text(why));
    sml_link_hang_up(link, SML_BYE_PROTOCOL);
    sml_link_retry(link, false, now);
}

static void go_up(struct sml_link *link, uint64_t now)
{
    link->counters.connects++;
    link->counters.reconnects += link->has_session;
    link->state = SML_LINK_UP;
    link->has_session = true;
    link->up_since = now;
    link->down_since = SML_NEVER;
    sml_release(link->caller.mem, link->list);
    link->list = NULL;
    sml_caller_up(&link->caller);
}

static const char *welcome_fault(const struct sml_link *link, const struct sml_welcome *welcome)
{
    if (welcome->version != SML_VERSION)
        return "WELCOME speaks another version";
    if (welcome->window == 0 || welcome->window > link->options.window)
        return "WELCOME grants a window that was not asked for";
    if (welcome->body_bytes > welcome->session_bytes)
        return "WELCOME's limits contradict each other";
    if (welcome->resumed != link->has_session)
        return "WELCOME answers another HELLO";
    if (welcome->count != link->list_count)
        return "WELCOME answers another number of calls";
    return NULL;
}

/* Is this not the memory that the session was made in? What it lacks was not refused, but lost. */
static const char *other_store(const struct sml_link *link, const struct sml_welcome *welcome)
{
    if (memcmp(link->server_id, welcome->server_id, sizeof link->server_id) != 0)
        return "another server answers at the session's address";
    if (link->generation != welcome->generation && !SML_BUG(GENERATION_UNCHECKED))
        return "the server's store was replaced by an earlier one";
    if (link->caller.durable_hi > welcome->durable_hi && !SML_BUG(ROLLBACK_UNCHECKED))
        return "the server's store was rolled back";
    return NULL;
}

/* Whoever submits a keyed call again must find the keys that were known before. */
static void keep_store(struct sml_link *link, const struct sml_welcome *welcome)
{
    bool other =
        (link->store_generation != welcome->generation && !SML_BUG(GENERATION_UNCHECKED)) ||
        memcmp(link->store_id, welcome->server_id, 16) != 0;

    if (link->has_store && other && !SML_BUG(KEYED_ELSEWHERE))
        sml_caller_fail_keyed(&link->caller);
    link->has_store = true;
    link->generation = link->store_generation = welcome->generation;
    memcpy(link->server_id, welcome->server_id, sizeof link->server_id);
    memcpy(link->store_id, welcome->server_id, sizeof link->store_id);
}

/* The session is not what it was, and neither are the keys. */
static void store_lost(struct sml_link *link, const char *why, uint64_t now)
{
    sml_link_note(link, SEMEL_SESSION_LOST, semel_bytes_text(why));
    sml_link_hang_up(link, SML_BYE_END);
    sml_link_session_lost(link, now);
    sml_caller_fail_keyed(&link->caller);
}

static void on_welcome(struct sml_link *link, const struct sml_welcome *welcome, uint64_t now)
{
    const char *fault = welcome_fault(link, welcome);

    if (fault) {
        protocol_error(link, fault);
        return;
    }
    fault = link->has_session ? other_store(link, welcome) : NULL;
    if (fault) {
        store_lost(link, fault, now);
        return;
    }
    if (sml_caller_grant(&link->caller, welcome) != SEMEL_OK) {
        sml_link_note(link, SEMEL_NO_MEMORY, semel_bytes_text("no memory for the window"));
        sml_link_hang_up(link, 0);
        sml_link_retry(link, true, now);
        return;
    }
    keep_store(link, welcome);
    link->welcomed = true;
    link->recalled = false;
    sml_link_must_save(link);
    link->states_left = welcome->count;
    if (link->states_left == 0)
        go_up(link, now);
}

static void on_states(struct sml_link *link, const struct sml_list_frame *list, uint64_t now)
{
    const char *why = NULL;
    enum semel_status status;

    if (list->from_caller || list->count > link->states_left) {
        protocol_error(link, "LIST has entries that were not announced");
        return;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        struct sml_listed listed = sml_list_listed(list, i);

        if (listed.xid != link->list[link->list_count - link->states_left].xid) {
            protocol_error(link, "LIST answers another call");
            return;
        }
        status = sml_caller_state(&link->caller, &listed, now, &why);
        if (status == SEMEL_SESSION_LOST)
            store_lost(link, "the server's store was rolled back", now);
        else if (status != SEMEL_OK)
            protocol_error(link, why);
        if (status != SEMEL_OK)
            return;
        link->states_left--;
    }
    if (link->states_left == 0)
        go_up(link, now);
}

static void on_bye(struct sml_link *link, const struct sml_bye *bye, uint64_t now)
{
    enum semel_status status = sml_bye_status(bye->code);
    bool greeting = link->state == SML_LINK_GREETING;

    link->counters.lost++;
    sml_link_note(link, status, bye->text);
    sml_link_hang_up(link, 0);
    switch (bye->code) {
    case SML_BYE_SESSION_LOST:
        sml_link_session_lost(link, now);
        break;
    case SML_BYE_TAKEN_OVER:
        /* What this process knows of the session is older than the session: the file was put back
         * from a copy. Its numbers are used up; its keys are not. */
        if (link->recalled)
            sml_link_session_lost(link, now);
        else
            sml_link_fail(link);
        break;
    case SML_BYE_DENIED:
    case SML_BYE_VERSION:
    case SML_BYE_PROTOCOL:
    case SML_BYE_FALSE_RETRY:
        link->counters.protocol_errors += status == SEMEL_PROTOCOL;
        sml_link_fail(link);
        break;
    case SML_BYE_RETRY_LATER:
        sml_link_retry(link, true, now);
        break;
    default:
        if (greeting)
            sml_link_retry(link, true, now);
        else
            sml_link_lost(link, now);
        break;
    }
}

static void on_call_frame(struct sml_link *link, const struct sml_frame *frame, uint64_t now)
{
    const char *why = NULL;

    if (sml_caller_frame(&link->caller, frame, now, &why) != SEMEL_OK)
        protocol_error(link, why);
    if (link->caller.accepted_reply) {
        link->strikes = 0;
        link->attempts = 0;
    }
}

static void on_frame_up(struct sml_link *link, const struct sml_frame *frame, uint64_t now)
{
    switch (frame->type) {
    case SML_REPLY:
    case SML_BODY:
    case SML_BUSY:
    case SML_PART:
    case SML_CREDIT:
        on_call_frame(link, frame, now);
        break;
    case SML_PING:
        link->pong_pending = true;
        link->pong_nonce = frame->xid;
        break;
    case SML_PONG:
        break;
    case SML_DRAIN:
        link->draining = true;
        break;
    case SML_BYE:
        on_bye(link, &frame->u.bye, now);
        break;
    default:
        protocol_error(link, "frame that no server sends");
        break;
    }
}

static void on_frame_greeting(struct sml_link *link, const struct sml_frame *frame, uint64_t now)
{
    if (frame->type == SML_BYE)
        on_bye(link, &frame->u.bye, now);
    else if (frame->type == SML_WELCOME && !link->welcomed)
        on_welcome(link, &frame->u.welcome, now);
    else if (frame->type == SML_LIST && link->welcomed)
        on_states(link, &frame->u.list, now);
    else
        protocol_error(link, "frame before the greeting was complete");
}

static void on_frame(struct sml_link *link, const struct sml_frame *frame, uint64_t now)
{
    if (frame->reverse)
        protocol_error(link, "call from the server, which was not agreed on");
    else if (link->state == SML_LINK_UP)
        on_frame_up(link, frame, now);
    else
        on_frame_greeting(link, frame, now);
}

void sml_link_input(struct sml_link *link, const uint8_t *data, size_t size, size_t *out_used,
                    uint64_t now)
{
    struct sml_frame frame;
    const char *why = NULL;
    size_t used = 0, bytes;

    link->last_heard = now;
    while (link->state == SML_LINK_UP || link->state == SML_LINK_GREETING) {
        bool greeted = link->state == SML_LINK_UP || link->welcomed;
        enum sml_decoded decoded = sml_frame_decode(
            data + used, size - used, greeted ? SML_PAYLOAD_BYTES_MAX : GREETING_PAYLOAD_BYTES,
            &frame, &bytes, &why);

        if (decoded == SML_NEED_MORE) {
            *out_used = used;
            sml_link_leave_if_drained(link, now);
            return;
        }
        if (decoded == SML_MALFORMED) {
            undecodable(link, why, now);
            break;
        }
        used += bytes;
        on_frame(link, &frame, now);
    }
    *out_used = size;
}
