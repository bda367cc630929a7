/* SPDX-License-Identifier: MIT */
/* host.c - the sessions of one server: created if absent, resumed only by who knows the secret,
 * taken over by the newest connection, ended by their client or by idleness. */
#include "session/host.h"

#include <string.h>

#include "base/bug.h"
#include "base/check.h"
#include "base/le.h"

/* A session that may not expire yet, because something runs in it, is looked at again later. */
#define EXPIRY_RETRY SML_SECOND
#define BUCKETS_MIN 64
/* A client is silent that says nothing for so many of the heartbeats it promised. */
#define SILENT_HEARTBEATS (SEMEL_HEARTBEAT_MISSED + 1)

void sml_host_init(struct sml_host *host, const struct sml_mem *mem,
                   const struct sml_entropy *entropy, const struct sml_host_options *options)
{
    memset(host, 0, sizeof *host);
    host->options = *options;
    host->mem = mem;
    entropy->fill(entropy->user, host->server_id, sizeof host->server_id);
    if (options->durable)
        memcpy(host->server_id, options->store.id, sizeof host->server_id);
    entropy->fill(entropy->user, host->salt, sizeof host->salt);
    sml_list_init(&host->sessions);
    sml_list_init(&host->left);
    sml_heap_init(&host->expiries);
}

void sml_host_fini(struct sml_host *host)
{
    while (!sml_list_empty(&host->sessions)) {
        struct sml_session *session = SML_CONTAINER(host->sessions.next, struct sml_session, all);

        sml_callee_forsake(&session->callee);
        session->row = 0;
        sml_host_end(host, session);
        sml_session_free(host, session);
    }
    sml_release(host->mem, host->buckets);
    host->buckets = NULL;
}

/* --- the registry ----------------------------------------------------------------------- */

/* Ids are random, but of the clients' choice: without the salt they could all meet in one bucket.
 * Multiply and shift: Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair
 * problem", 1997. */
static uint32_t bucket_of(const struct sml_host *host, const struct sml_session_id *id,
                          uint32_t bucket_count)
{
    uint64_t hash = (sml_load64(id->bytes) ^ host->salt[0]) * (host->salt[1] | 1);

    hash = ((hash ^ hash >> 32) + sml_load64(id->bytes + 8)) * (host->salt[2] | 1);
    return (uint32_t)(hash >> (64 - __builtin_ctz(bucket_count)));
}

static struct sml_session *find(const struct sml_host *host, const struct sml_session_id *id)
{
    struct sml_session *session;

    if (host->bucket_count == 0)
        return NULL;
    session = host->buckets[bucket_of(host, id, host->bucket_count)];
    while (session && memcmp(session->id.bytes, id->bytes, sizeof id->bytes) != 0)
        session = session->next_in_bucket;
    return session;
}

static bool grow_buckets(struct sml_host *host)
{
    uint32_t count = host->bucket_count ? host->bucket_count * 2 : BUCKETS_MIN;
    struct sml_session **buckets = sml_alloc(host->mem, count * sizeof *buckets);

    if (buckets == NULL)
        return host->bucket_count > 0; /* longer chains will do */
    memset(buckets, 0, count * sizeof *buckets);
    for (uint32_t i = 0; i < host->bucket_count; i++) {
        while (host->buckets[i]) {
            struct sml_session *session = host->buckets[i];
            uint32_t at = bucket_of(host, &session->id, count);

            host->buckets[i] = session->next_in_bucket;
            session->next_in_bucket = buckets[at];
            buckets[at] = session;
        }
    }
    sml_release(host->mem, host->buckets);
    host->buckets = buckets;
    host->bucket_count = count;
    return true;
}

/* Nobody is connected to it: its idle time begins. */
static void leave(struct sml_host *host, struct sml_session *session, uint64_t now)
{
    sml_heap_insert(&host->expiries, &session->expiry, sml_time_add(now, host->options.idle));
    sml_list_push_back(&host->left, &session->left);
}

static void not_left(struct sml_host *host, struct sml_session *session)
{
    sml_heap_remove(&host->expiries, &session->expiry);
    sml_list_remove(&session->left);
}

static void unlink_session(struct sml_host *host, struct sml_session *session)
{
    struct sml_session **at = &host->buckets[bucket_of(host, &session->id, host->bucket_count)];

    while (*at != session)
        at = &(*at)->next_in_bucket;
    *at = session->next_in_bucket;
    sml_list_remove(&session->all);
    not_left(host, session);
    host->session_count--;
}

/* A session with that id, known to the host. */
static struct sml_session *enter(struct sml_host *host, const struct sml_session_id *id,
                                 uint32_t window)
{
    struct sml_callee_limits limits = host->options.limits;
    struct sml_session *session;
    uint32_t at;

    if (host->session_count >= host->bucket_count && !grow_buckets(host))
        return NULL;
    session = sml_alloc(host->mem, sizeof *session);
    if (session == NULL)
        return NULL;
    memset(session, 0, sizeof *session);
    session->id = *id;
    limits.window = window;
    sml_callee_init(&session->callee, host->mem, &limits);
    session->callee.dedup_off = host->options.dedup_off;
    session->callee.durable = host->options.durable;
    session->callee.methods = host->options.methods;
    sml_list_init(&session->all);
    sml_list_init(&session->left);
    sml_heap_node_init(&session->expiry);
    at = bucket_of(host, &session->id, host->bucket_count);
    session->next_in_bucket = host->buckets[at];
    host->buckets[at] = session;
    sml_list_push_back(&host->sessions, &session->all);
    host->session_count++;
    return session;
}

static struct sml_session *create(struct sml_host *host, const struct sml_peer *peer,
                                  const struct sml_hello *hello)
{
    uint32_t granted = host->options.limits.window;
    struct sml_session *session =
        enter(host, &hello->session, hello->window < granted ? hello->window : granted);

    if (session == NULL)
        return NULL;
    sml_sha256(hello->secret, sizeof hello->secret, session->secret_hash);
    session->principal = peer->principal;
    host->counters.created++;
    return session;
}

void sml_host_end(struct sml_host *host, struct sml_session *session)
{
    unlink_session(host, session);
    if (session->peer)
        session->peer->session = NULL;
    session->peer = NULL;
    session->ended = true;
    sml_callee_clear(&session->callee);
    host->counters.ended++;
}

bool sml_session_is_over(const struct sml_session *session)
{
    return session->ended && !session->in_batch && session->row == 0 && session->callee.held == 0 &&
           !sml_callee_has_change(&session->callee);
}

void sml_session_free(struct sml_host *host, struct sml_session *session)
{
    SML_ASSERT(sml_session_is_over(session));
    sml_release(host->mem, session);
}

/* --- HELLO ------------------------------------------------------------------------------ */

static bool same_principal(const struct sml_principal *a, const struct sml_principal *b)
{
    return a->known == b->known && (!a->known || (a->uid == b->uid && a->gid == b->gid));
}

static bool knows_secret(const struct sml_session *session, const struct sml_peer *peer,
                         const struct sml_hello *hello)
{
    uint8_t hash[32];

    sml_sha256(hello->secret, sizeof hello->secret, hash);
    return sml_equal_constant_time(hash, session->secret_hash, sizeof hash) &&
           same_principal(&session->principal, &peer->principal);
}

static bool contradicts_itself(const struct sml_hello *hello)
{
    bool fresh = hello->next == 1 && hello->count == 0;

    return hello->window == 0 || hello->window > SEMEL_WINDOW_CALLS_MAX || hello->conn_no == 0 ||
           hello->count > hello->window || (hello->kind == SML_CREATE && !fresh);
}

static bool is_full(const struct sml_host *host)
{
    return host->session_count >= host->options.sessions_max;
}

/* The session a HELLO may have, or NULL with the peer turned away. */
static struct sml_session *admit(struct sml_host *host, struct sml_peer *peer,
                                 const struct sml_hello *hello)
{
    struct sml_session *session = find(host, &hello->session);

    if (contradicts_itself(hello)) {
        host->counters.protocol_errors++;
        sml_peer_close(peer, SML_BYE_PROTOCOL, "HELLO contradicts itself");
    } else if (session == NULL && hello->kind == SML_RESUME && !SML_BUG(RESUME_CREATES)) {
        sml_peer_close(peer, SML_BYE_SESSION_LOST, "no such session at this server");
    } else if (session && !knows_secret(session, peer, hello)) {
        sml_peer_close(peer, SML_BYE_DENIED, "the session belongs to somebody else");
    } else if (session && hello->conn_no <= session->conn_no && !SML_BUG(CONN_NO_NOT_COMPARED)) {
        sml_peer_close(peer, SML_BYE_TAKEN_OVER, "a newer connection holds the session");
    } else if (session && hello->count > session->callee.limits.window) {
        host->counters.protocol_errors++;
        sml_peer_close(peer, SML_BYE_PROTOCOL, "HELLO lists more calls than the window");
    } else if (session == NULL && host->draining) {
        sml_peer_close(peer, SML_BYE_RETRY_LATER, "server is draining");
    } else if (session == NULL && is_full(host)) {
        sml_peer_close(peer, SML_BYE_RETRY_LATER, "too many sessions");
    } else if (session == NULL && (session = create(host, peer, hello)) == NULL) {
        sml_peer_close(peer, SML_BYE_RETRY_LATER, "out of memory");
    } else {
        return session;
    }
    return NULL;
}

static void attach(struct sml_host *host, struct sml_peer *peer, struct sml_session *session,
                   const struct sml_hello *hello, struct sml_peer **out_loser)
{
    uint64_t promised = SILENT_HEARTBEATS * SML_MS * hello->heartbeat_ms;

    if (session->peer && !SML_BUG(OLD_BYTES)) {
        *out_loser = session->peer;
        session->peer->session = NULL;
        sml_peer_close(session->peer, SML_BYE_TAKEN_OVER, "a newer connection holds the session");
    }
    sml_callee_down(&session->callee);
    session->peer = peer;
    session->conn_no = hello->conn_no;
    session->callee.reply_body_bytes = hello->body_bytes;
    peer->features = hello->features & host->options.features;
    peer->welcome_held = host->options.durable && !SML_BUG(WELCOME_EARLY);
    session->callee.keys = (peer->features & SML_FEATURE_KEYS) != 0;
    session->callee.streams_granted = (peer->features & SML_FEATURE_PARTS) != 0;
    not_left(host, session);
    peer->session = session;
    peer->resumed = hello->kind == SML_RESUME;
    if (peer->resumed)
        host->counters.resumed++;
    /* A client that says it pings more rarely than this server expects is given its own time. */
    if (hello->heartbeat_ms == 0)
        peer->silence_max = SML_NEVER;
    else if (peer->silence_max < promised)
        peer->silence_max = promised;
}

void sml_host_hello(struct sml_host *host, struct sml_peer *peer, const struct sml_hello *hello,
                    struct sml_peer **out_loser, uint64_t now)
{
    struct sml_session *session;

    *out_loser = NULL;
    SML_ASSERT(peer->state == SML_PEER_NEW);
    session = admit(host, peer, hello);
    if (session == NULL)
        return;
    attach(host, peer, session, hello, out_loser);
    sml_peer_begin_list(peer, hello, now);
}

void sml_host_detach(struct sml_host *host, struct sml_peer *peer, uint64_t now)
{
    struct sml_session *session = peer->session;

    peer->session = NULL;
    if (session == NULL)
        return;
    SML_ASSERT(session->peer == peer);
    session->peer = NULL;
    sml_callee_down(&session->callee);
    leave(host, session, now);
}

/* --- expiry ----------------------------------------------------------------------------- */

static bool may_expire(const struct sml_session *session)
{
    const struct sml_callee *callee = &session->callee;
    const struct sml_list *all = &callee->all;
    /* What waits until its client fetches stored replies does not wait for ever. */
    bool stalled = sml_callee_is_stalled(callee);

    for (const struct sml_list *node = all->next; node != all; node = node->next) {
        enum sml_incoming_phase phase = SML_CONTAINER(node, struct sml_incoming, all)->phase;

        if (phase == SML_IN_STARTING || (phase == SML_IN_RUNNING && !SML_BUG(EXPIRES_RUNNING)) ||
            phase == SML_IN_STORING)
            return false;
        if ((phase == SML_IN_READY || phase == SML_IN_TAKEN || phase == SML_IN_STARTED) && !stalled)
            return false;
    }
    return true;
}

struct sml_session *sml_host_next_expired(struct sml_host *host, uint64_t now)
{
    struct sml_heap_node *node;

    while ((node = sml_heap_min(&host->expiries)) != NULL && node->key <= now) {
        struct sml_session *session = SML_CONTAINER(node, struct sml_session, expiry);

        if (may_expire(session)) {
            host->counters.expired++;
            return session;
        }
        sml_heap_remove(&host->expiries, node);
        sml_heap_insert(&host->expiries, node, sml_time_add(now, EXPIRY_RETRY));
    }
    return NULL;
}

/* Has its client nothing to come back for but what is done? */
static bool is_surplus(const struct sml_session *session)
{
    const struct sml_list *all = &session->callee.all;

    for (const struct sml_list *node = all->next; node != all; node = node->next)
        if (SML_CONTAINER(node, struct sml_incoming, all)->phase != SML_IN_DONE)
            return false;
    return true;
}

struct sml_session *sml_host_surplus(struct sml_host *host, const struct sml_hello *hello)
{
    if (!is_full(host) || host->draining || hello->kind != SML_CREATE ||
        contradicts_itself(hello) || find(host, &hello->session))
        return NULL;
    for (int looks = 0; looks < SML_SURPLUS_LOOKS && !sml_list_empty(&host->left); looks++) {
        struct sml_list *node = sml_list_pop_front(&host->left);
        struct sml_session *session = SML_CONTAINER(node, struct sml_session, left);

        sml_list_push_back(&host->left, node);
        if (is_surplus(session)) {
            host->counters.expired++;
            return session;
        }
    }
    return NULL;
}

uint64_t sml_host_timeout(const struct sml_host *host)
{
    return sml_heap_min_key(&host->expiries);
}

/* --- the store -------------------------------------------------------------------------- */

static enum sml_session_change due_change(const struct sml_session *session)
{
    if (!session->callee.durable)
        return SML_SESSION_SAME;
    if (session->ended)
        return session->row && !SML_BUG(DELETE_FORGOTTEN) ? SML_SESSION_DELETE : SML_SESSION_SAME;
    if (session->conn_no != session->conn_no_stored || sml_callee_base_rises(&session->callee))
        return SML_SESSION_PUT;
    return SML_SESSION_SAME;
}

bool sml_session_has_change(const struct sml_session *session)
{
    return !session->in_batch && due_change(session) != SML_SESSION_SAME;
}

bool sml_session_has_urgent_change(const struct sml_session *session)
{
    return session->callee.durable && !session->in_batch && !session->ended &&
           session->conn_no != session->conn_no_stored;
}

enum sml_session_change sml_session_pull(struct sml_session *session,
                                         struct sml_session_record *out_record, uint8_t *room)
{
    const struct sml_callee *callee = &session->callee;
    enum sml_session_change change = due_change(session);
    uint32_t window = callee->limits.window;

    SML_ASSERT(!session->in_batch);
    session->in_batch = change != SML_SESSION_SAME;
    if (change != SML_SESSION_PUT)
        return change;
    *out_record =
        (struct sml_session_record){ .id = session->id,
                                     .principal = session->principal,
                                     .conn_no = session->conn_no,
                                     .base = SML_BUG(BASE_IN_MEMORY) ? 0 : callee->base_pending,
                                     .window = window,
                                     .stragglers = room };
    memcpy(out_record->secret_hash, session->secret_hash, sizeof out_record->secret_hash);
    out_record->straggler_count = sml_callee_stragglers(callee, room, window);
    SML_ASSERT(out_record->straggler_count <= window);
    return change;
}

void sml_session_recorded(struct sml_session *session, enum sml_session_change change,
                          uint64_t conn_no, uint64_t row, bool committed)
{
    if (change == SML_SESSION_SAME)
        return;
    SML_ASSERT(session->in_batch);
    session->in_batch = false;
    if (change == SML_SESSION_PUT)
        sml_callee_base_recorded(&session->callee, committed);
    if (!committed)
        return;
    session->row = row;
    if (change == SML_SESSION_DELETE)
        return;
    session->conn_no_stored = conn_no;
    if (session->peer && conn_no == session->conn_no)
        session->peer->welcome_held = false;
}

struct sml_session *sml_host_restore(struct sml_host *host, uint64_t row,
                                     const struct sml_session_record *record, uint64_t now,
                                     const char **out_why)
{
    struct sml_session *session = find(host, &record->id);

    *out_why = session ? "two records of one session" : NULL;
    session = session ? NULL : enter(host, &record->id, record->window);
    if (session == NULL)
        return NULL;
    memcpy(session->secret_hash, record->secret_hash, sizeof session->secret_hash);
    session->principal = record->principal;
    session->conn_no = session->conn_no_stored = SML_BUG(CONN_NO_NOT_STORED) ? 0 : record->conn_no;
    session->row = row;
    if (!sml_callee_restore(&session->callee, record)) {
        unlink_session(host, session);
        sml_callee_forsake(&session->callee);
        sml_release(host->mem, session);
        return NULL;
    }
    leave(host, session, now);
    return session;
}
