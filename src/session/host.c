/* SPDX-License-Identifier: MIT */
/* host.c - the sessions of one server: created if absent, resumed only by who knows the secret,
 * taken over by the newest connection, ended by their client or by idleness. */
#include "session/host.h"

#include <string.h>

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
    entropy->fill(entropy->user, host->salt, sizeof host->salt);
    sml_list_init(&host->sessions);
    sml_heap_init(&host->expiries);
}

void sml_host_fini(struct sml_host *host)
{
    while (!sml_list_empty(&host->sessions)) {
        struct sml_session *session = SML_CONTAINER(host->sessions.next, struct sml_session, all);

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

static void unlink_session(struct sml_host *host, struct sml_session *session)
{
    struct sml_session **at = &host->buckets[bucket_of(host, &session->id, host->bucket_count)];

    while (*at != session)
        at = &(*at)->next_in_bucket;
    *at = session->next_in_bucket;
    sml_list_remove(&session->all);
    sml_heap_remove(&host->expiries, &session->expiry);
    host->session_count--;
}

static struct sml_session *create(struct sml_host *host, const struct sml_peer *peer,
                                  const struct sml_hello *hello)
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
    session->id = hello->session;
    sml_sha256(hello->secret, sizeof hello->secret, session->secret_hash);
    session->principal = peer->principal;
    if (hello->window < limits.window)
        limits.window = hello->window;
    sml_callee_init(&session->callee, host->mem, &limits);
    session->callee.dedup_off = host->options.dedup_off;
    sml_list_init(&session->all);
    sml_heap_node_init(&session->expiry);
    at = bucket_of(host, &session->id, host->bucket_count);
    session->next_in_bucket = host->buckets[at];
    host->buckets[at] = session;
    sml_list_push_back(&host->sessions, &session->all);
    host->session_count++;
    host->counters.created++;
    return session;
}

void sml_host_end(struct sml_host *host, struct sml_session *session)
{
    unlink_session(host, session);
    if (session->peer)
        session->peer->session = NULL;
    session->peer = NULL;
    sml_callee_clear(&session->callee);
    host->counters.ended++;
}

void sml_session_free(struct sml_host *host, struct sml_session *session)
{
    SML_ASSERT(session->callee.held == 0);
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

/* The session a HELLO may have, or NULL with the peer turned away. */
static struct sml_session *admit(struct sml_host *host, struct sml_peer *peer,
                                 const struct sml_hello *hello)
{
    struct sml_session *session = find(host, &hello->session);
    bool fresh = hello->next == 1 && hello->count == 0;

    if (hello->window == 0 || hello->window > SEMEL_WINDOW_CALLS_MAX || hello->conn_no == 0 ||
        hello->count > hello->window || (hello->kind == SML_CREATE && !fresh)) {
        host->counters.protocol_errors++;
        sml_peer_close(peer, SML_BYE_PROTOCOL, "HELLO contradicts itself");
    } else if (session == NULL && hello->kind == SML_RESUME) {
        sml_peer_close(peer, SML_BYE_SESSION_LOST, "no such session at this server");
    } else if (session && !knows_secret(session, peer, hello)) {
        sml_peer_close(peer, SML_BYE_DENIED, "the session belongs to somebody else");
    } else if (session && hello->conn_no <= session->conn_no) {
        sml_peer_close(peer, SML_BYE_TAKEN_OVER, "a newer connection holds the session");
    } else if (session && hello->count > session->callee.limits.window) {
        host->counters.protocol_errors++;
        sml_peer_close(peer, SML_BYE_PROTOCOL, "HELLO lists more calls than the window");
    } else if (session == NULL && host->draining) {
        sml_peer_close(peer, SML_BYE_RETRY_LATER, "server is draining");
    } else if (session == NULL && host->session_count >= host->options.sessions_max) {
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

    if (session->peer) {
        *out_loser = session->peer;
        session->peer->session = NULL;
        sml_peer_close(session->peer, SML_BYE_TAKEN_OVER, "a newer connection holds the session");
    }
    sml_callee_down(&session->callee);
    session->peer = peer;
    session->conn_no = hello->conn_no;
    session->callee.reply_body_bytes = hello->body_bytes;
    sml_heap_remove(&host->expiries, &session->expiry);
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
    sml_heap_insert(&host->expiries, &session->expiry, sml_time_add(now, host->options.idle));
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

        if (phase == SML_IN_RUNNING)
            return false;
        if ((phase == SML_IN_READY || phase == SML_IN_TAKEN) && !stalled)
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

uint64_t sml_host_timeout(const struct sml_host *host)
{
    return sml_heap_min_key(&host->expiries);
}
