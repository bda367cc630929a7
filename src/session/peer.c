/* SPDX-License-Identifier: MIT */
/* peer.c - the server's end of one connection: the greeting, the frames around the calls, its end.
 *
 * What a client may send: HELLO first; then the LIST frames it announced; then, once WELCOME was
 * written, calls. Anything else closes the connection with a BYE that says why; the session, if
 * there is one, stays. */
#include "session/peer.h"

#include <string.h>

#include "base/check.h"
#include "session/host.h"

void sml_peer_init(struct sml_peer *peer, const struct sml_host *host,
                   const struct sml_principal *principal, uint64_t now)
{
    memset(peer, 0, sizeof *peer);
    peer->mem = host->mem;
    peer->principal = *principal;
    peer->hello_deadline = sml_time_add(now, host->options.handshake);
    peer->last_heard = now;
    peer->silence_max = host->options.silence;
    peer->heartbeat_ms = host->options.heartbeat_ms;
    peer->idle_ms = (uint32_t)sml_time_min(host->options.idle / SML_MS, UINT32_MAX);
    peer->generation = host->options.durable ? host->options.store.generation : 0;
    memcpy(peer->server_id, host->server_id, sizeof peer->server_id);
}

static void free_lists(struct sml_peer *peer)
{
    sml_release(peer->mem, peer->list);
    sml_release(peer->mem, peer->states);
    peer->list = NULL;
    peer->states = NULL;
    peer->states_count = peer->states_sent = 0;
}

void sml_peer_fini(struct sml_peer *peer)
{
    SML_ASSERT(peer->session == NULL);
    free_lists(peer);
}

void sml_peer_close(struct sml_peer *peer, enum sml_bye_code code, const char *text)
{
    size_t bytes = strlen(text);

    if (peer->state == SML_PEER_CLOSING)
        return;
    if (bytes > SML_BYE_TEXT_BYTES)
        bytes = SML_BYE_TEXT_BYTES;
    peer->state = SML_PEER_CLOSING;
    peer->bye = code;
    peer->bye_pending = true;
    memcpy(peer->bye_text, text, bytes);
    peer->bye_text[bytes] = '\0';
    free_lists(peer);
}

void sml_peer_drain(struct sml_peer *peer, uint32_t grace_ms)
{
    peer->drain_pending = true;
    peer->drain_grace_ms = grace_ms;
}

/* --- the greeting ----------------------------------------------------------------------- */

static void close_for(struct sml_peer *peer, enum semel_status status, const char *why)
{
    enum sml_bye_code code = status == SEMEL_FALSE_RETRY ? SML_BYE_FALSE_RETRY
                             : status == SEMEL_NO_MEMORY ? SML_BYE_RETRY_LATER
                                                         : SML_BYE_PROTOCOL;

    sml_peer_close(peer, code, why);
}

/* The list is complete: line the session up with it. */
static void finish_list(struct sml_peer *peer)
{
    const char *why = NULL;
    enum semel_status status = sml_callee_resume(&peer->session->callee, peer->next, peer->list,
                                                 peer->list_count, peer->states, &why);

    sml_release(peer->mem, peer->list);
    peer->list = NULL;
    if (status != SEMEL_OK) {
        close_for(peer, status, why);
        return;
    }
    peer->states_count = peer->list_count;
    peer->welcome_pending = true;
    peer->state = SML_PEER_UP;
}

void sml_peer_begin_list(struct sml_peer *peer, const struct sml_hello *hello, uint64_t now)
{
    size_t count = hello->count;

    peer->last_heard = now;
    peer->state = SML_PEER_LISTING;
    peer->next = hello->next;
    peer->list_count = hello->count;
    peer->window = hello->window;
    if (count > 0) {
        peer->list = sml_alloc(peer->mem, count * sizeof *peer->list);
        peer->states = sml_alloc(peer->mem, count * sizeof *peer->states);
        if (peer->list == NULL || peer->states == NULL)
            sml_peer_close(peer, SML_BYE_RETRY_LATER, "no memory for the list of calls");
        return;
    }
    finish_list(peer);
}

static void on_list(struct sml_peer *peer, const struct sml_list_frame *list)
{
    if (!list->from_caller || list->count > peer->list_count - peer->list_have) {
        sml_peer_close(peer, SML_BYE_PROTOCOL, "LIST has entries that were not announced");
        return;
    }
    for (uint32_t i = 0; i < list->count; i++)
        peer->list[peer->list_have++] = sml_list_outstanding(list, i);
    if (peer->list_have == peer->list_count)
        finish_list(peer);
}

/* --- what comes in ---------------------------------------------------------------------- */

static bool greeted(const struct sml_peer *peer)
{
    return peer->state == SML_PEER_UP && !peer->welcome_pending &&
           peer->states_sent == peer->states_count;
}

static void on_call_frame(struct sml_peer *peer, const struct sml_frame *frame, uint64_t now)
{
    const char *why = NULL;
    enum semel_status status;

    if (!greeted(peer)) {
        sml_peer_close(peer, SML_BYE_PROTOCOL, "call frame before the greeting was complete");
        return;
    }
    status = sml_callee_frame(&peer->session->callee, frame, now, &why);
    if (status != SEMEL_OK)
        close_for(peer, status, why);
}

/* Returns true for the client's word that its session is over. */
static bool on_bye(struct sml_peer *peer, const struct sml_bye *bye)
{
    size_t bytes = bye->text.size < SML_BYE_TEXT_BYTES ? bye->text.size : SML_BYE_TEXT_BYTES;

    peer->state = SML_PEER_CLOSING;
    peer->bye_received = true;
    peer->bye = bye->code;
    memcpy(peer->bye_text, bye->text.data, bytes);
    peer->bye_text[bytes] = '\0';
    free_lists(peer);
    return bye->code == SML_BYE_END;
}

static enum sml_peer_event on_frame(struct sml_peer *peer, const struct sml_frame *frame,
                                    struct sml_hello *out_hello, uint64_t now)
{
    if (frame->reverse) {
        sml_peer_close(peer, SML_BYE_PROTOCOL, "reverse frame, which was not agreed on");
    } else if (peer->state == SML_PEER_NEW) {
        if (frame->type != SML_HELLO) {
            sml_peer_close(peer, SML_BYE_PROTOCOL, "first frame is not HELLO");
        } else if (frame->u.hello.version != SML_VERSION) {
            sml_peer_close(peer, SML_BYE_VERSION, "this server speaks version 1");
        } else {
            *out_hello = frame->u.hello;
            return SML_PEER_HELLO;
        }
    } else if (frame->type == SML_BYE) {
        return on_bye(peer, &frame->u.bye) ? SML_PEER_ENDED : SML_PEER_MORE;
    } else if (frame->type == SML_LIST && peer->state == SML_PEER_LISTING) {
        on_list(peer, &frame->u.list);
    } else if (peer->state != SML_PEER_UP) {
        sml_peer_close(peer, SML_BYE_PROTOCOL, "frame before the greeting was complete");
    } else if (frame->type == SML_PING) {
        peer->pong_pending = true;
        peer->pong_nonce = frame->xid;
    } else if (frame->type != SML_PONG) {
        on_call_frame(peer, frame, now);
    }
    return SML_PEER_MORE;
}

enum sml_peer_event sml_peer_input(struct sml_peer *peer, const uint8_t *data, size_t size,
                                   size_t *out_used, struct sml_hello *out_hello, uint64_t now)
{
    struct sml_frame frame;
    const char *why = NULL;
    size_t used = 0, bytes;

    peer->last_heard = now;
    while (peer->state != SML_PEER_CLOSING) {
        size_t max = peer->state == SML_PEER_NEW ? SML_HELLO_PAYLOAD_BYTES : SML_PAYLOAD_BYTES_MAX;
        enum sml_peer_event event;
        enum sml_decoded decoded =
            sml_frame_decode(data + used, size - used, max, &frame, &bytes, &why);

        if (decoded == SML_NEED_MORE) {
            *out_used = used;
            return SML_PEER_MORE;
        }
        if (decoded == SML_MALFORMED) {
            sml_peer_close(peer, SML_BYE_PROTOCOL, why);
            break;
        }
        used += bytes;
        event = on_frame(peer, &frame, out_hello, now);
        if (event != SML_PEER_MORE) {
            *out_used = used;
            return event;
        }
    }
    *out_used = size;
    return SML_PEER_MORE;
}

/* --- what goes out ---------------------------------------------------------------------- */

static size_t pull_welcome(struct sml_peer *peer, uint8_t *out)
{
    const struct sml_callee_limits *limits = &peer->session->callee.limits;
    struct sml_welcome welcome = {
        .version = SML_VERSION,
        .resumed = peer->resumed,
        .features = peer->features,
        .generation = peer->generation,
        .durable_hi = peer->session->callee.durable_hi,
        .body_bytes = limits->body_bytes,
        .session_bytes = limits->session_bytes,
        .window = peer->window < limits->window ? peer->window : limits->window,
        .count = peer->states_count,
        .idle_ms = peer->idle_ms,
        .heartbeat_ms = peer->heartbeat_ms,
    };

    memcpy(welcome.server_id, peer->server_id, sizeof welcome.server_id);
    peer->welcome_pending = false;
    return sml_encode_welcome(out, &welcome);
}

static size_t pull_greeting(struct sml_peer *peer, uint8_t *out, size_t room)
{
    size_t used = 0;

    if (peer->welcome_held)
        return 0;
    if (peer->welcome_pending)
        used += pull_welcome(peer, out);
    while (peer->states_sent < peer->states_count && room - used >= SML_FRAME_BYTES_MAX) {
        uint32_t count = peer->states_count - peer->states_sent;

        if (count > SML_LIST_ENTRIES_MAX)
            count = SML_LIST_ENTRIES_MAX;
        used += sml_encode_listed(out + used, peer->states + peer->states_sent, count);
        peer->states_sent += count;
    }
    if (peer->states && peer->states_sent == peer->states_count)
        free_lists(peer);
    return used;
}

size_t sml_peer_pull(struct sml_peer *peer, uint8_t *out, size_t room, uint64_t now)
{
    size_t used = 0;

    if (room < SML_FRAME_BYTES_MAX)
        return 0;
    if (peer->state == SML_PEER_CLOSING && peer->bye_pending) {
        peer->bye_pending = false;
        return sml_encode_bye(out, peer->bye, semel_bytes_text(peer->bye_text));
    }
    /* A writer that gave way for a moment may come back to a connection that lost its session. */
    if (peer->state != SML_PEER_UP || peer->session == NULL)
        return 0;
    if (!greeted(peer))
        used += pull_greeting(peer, out, room);
    if (!greeted(peer) || room - used < SML_FRAME_BYTES_MAX)
        return used;
    if (peer->pong_pending)
        used += sml_encode_plain(out + used, SML_PONG, peer->pong_nonce);
    if (peer->drain_pending)
        used += sml_encode_drain(out + used, peer->drain_grace_ms);
    peer->pong_pending = peer->drain_pending = false;
    return used + sml_callee_pull(&peer->session->callee, out + used, room - used, now);
}

bool sml_peer_wants_write(const struct sml_peer *peer)
{
    if (peer->state == SML_PEER_CLOSING)
        return peer->bye_pending;
    return peer->state == SML_PEER_UP && peer->session != NULL && !peer->welcome_held &&
           (!greeted(peer) || peer->pong_pending || peer->drain_pending ||
            sml_callee_wants_write(&peer->session->callee));
}

/* --- time ------------------------------------------------------------------------------- */

uint64_t sml_peer_timeout(const struct sml_peer *peer)
{
    switch (peer->state) {
    case SML_PEER_NEW:
    case SML_PEER_LISTING:
        return peer->hello_deadline;
    case SML_PEER_UP:
        return sml_time_add(peer->last_heard, peer->silence_max);
    default:
        return SML_NEVER;
    }
}

void sml_peer_tick(struct sml_peer *peer, uint64_t now)
{
    if (sml_peer_timeout(peer) > now)
        return;
    sml_peer_close(peer, SML_BYE_SILENT,
                   peer->state == SML_PEER_UP ? "nothing was heard for too long"
                                              : "no complete greeting in time");
}
