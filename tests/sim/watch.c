/* SPDX-License-Identifier: MIT */
/* watch.c - frames as they are written, and as they are read. See durable.h.
 *
 * What a server tells must be on its disk at that moment: a verdict with RECORDED, a session with
 * its connection's number before WELCOME. A client releases no call that it has a verdict for and
 * has not accepted. A client that was told a number which the store does not know any more gives
 * its session up. */
#include "durable.h"

#include <string.h>

/* ---- what servers write -------------------------------------------------------------------- */

static bool is_idempotent(const struct sml_incoming *in)
{
    return in->method[0] == 'i';
}

static void check_record(struct sim_world *world, const struct sim_session *info,
                         const struct sml_incoming *in, const struct sml_reply_frame *reply)
{
    const struct sim_store *store = info->server->store;
    const struct sim_cell *cell = sim_store_find_durable(store, SIM_TABLE_CALLS, in->row);
    struct sml_call_record record;

    if (!cell) {
        sim_fail(world, "the verdict of xid %llu of session %u is told before it is durable",
                 (unsigned long long)in->xid, info->serial);
        return;
    }
    SML_ASSERT(!sml_call_record_decode(semel_bytes(cell->data, cell->bytes), &record));
    if (record.state != SML_CALL_ENDED || record.xid != in->xid ||
        record.session != info->session->row || record.verdict.outcome != reply->verdict.outcome ||
        record.verdict.status != reply->verdict.status ||
        record.verdict.body.size != reply->body_bytes)
        sim_fail(world, "the verdict told of xid %llu of session %u is not the one in its record",
                 (unsigned long long)in->xid, info->serial);
}

static void check_reply(struct sim_world *world, const struct sim_session *info, uint64_t xid,
                        const struct sml_reply_frame *reply)
{
    const struct sml_incoming *in = sml_table_find(&info->session->callee.table, xid);

    if (!in) {
        sim_fail(world, "a verdict is told of xid %llu, which session %u does not know",
                 (unsigned long long)xid, info->serial);
    } else if (reply->flags & SML_REPLY_RECORDED) {
        check_record(world, info, in, reply);
    } else if (!is_idempotent(in) && reply->verdict.outcome != SEMEL_NOT_EXECUTED) {
        sim_fail(world, "the verdict of xid %llu of session %u is told and not recorded",
                 (unsigned long long)xid, info->serial);
    }
}

static void check_welcome(struct sim_world *world, const struct sim_session *info)
{
    const struct sml_session *session = info->session;
    const struct sim_store *store = info->server->store;
    const struct sim_cell *cell = sim_store_find_durable(store, SIM_TABLE_SESSIONS, session->row);
    struct sml_session_record record;

    if (cell && !sml_session_record_decode(semel_bytes(cell->data, cell->bytes), &record) &&
        record.conn_no >= session->conn_no &&
        memcmp(&record.id, &session->id, sizeof record.id) == 0)
        return;
    sim_fail(world, "session %u is welcomed before its connection's number is durable",
             info->serial);
}

/* ---- what clients write -------------------------------------------------------------------- */

static struct sml_table *unaccepted(struct sim_world *world, const struct sim_client *client)
{
    struct sml_table *table = &world->durable->clients[client->index].unaccepted;

    if (world->durable->clients[client->index].epoch != client->link.caller.epoch) {
        sml_table_fini(table);
        world->durable->clients[client->index].epoch = client->link.caller.epoch;
    }
    return table;
}

void sim_watch_begin(struct sim_world *world, const struct sim_client *client)
{
    const struct sim_outbox *outbox = client->outbox;
    struct sml_identity_record record;
    uint32_t i = client->index;

    sml_table_fini(&world->durable->clients[i].unaccepted);
    sml_table_fini(&world->durable->clients[i].sent);
    world->durable->clients[i].epoch = client->link.caller.epoch;
    world->durable->clients[i].evidence = world->durable->clients[i].generation = 0;
    world->durable->clients[i].session = 0;
    if (!outbox || !sim_outbox_identity(outbox, &record))
        return;
    world->durable->clients[i].evidence = record.identity.durable_hi;
    world->durable->clients[i].generation = record.identity.generation;
    memcpy(&world->durable->clients[i].session, record.identity.session.bytes, 8);
}

void sim_watch_answered(struct sim_world *world, struct sim_client *client,
                        const struct sml_call *call)
{
    if ((call->reply || call->reply_in_place) && call->xid &&
        !sml_table_insert(unaccepted(world, client), call->xid, client))
        SML_ASSERT(!"room in a table");
}

void sim_watch_accepted(struct sim_world *world, struct sim_client *client,
                        const struct sml_call *call)
{
    (void)sml_table_remove(unaccepted(world, client), call->xid);
}

static void check_ack(struct sim_world *world, struct sim_client *client,
                      const struct sml_ack_frame *ack)
{
    const struct sml_table *table = unaccepted(world, client);

    if (table->count == 0)
        return;
    for (uint32_t i = 0; i < ack->count; i++) {
        struct sml_ack_range range = sml_ack_range(ack, i);

        for (uint32_t k = 0; k < range.count; k++)
            if (sml_table_find(table, range.first + k))
                sim_fail(world, "client %u releases xid %llu before it has accepted its verdict",
                         client->index, (unsigned long long)(range.first + k));
    }
}

/* A call goes out once on a connection, except after a BUSY. */
static void check_again(struct sim_world *world, const struct sim_client *client,
                        const struct sim_conn *conn, uint64_t xid)
{
    struct sml_table *sent = &world->durable->clients[client->index].sent;

    if (world->durable->clients[client->index].conn != conn->number)
        sml_table_fini(sent);
    world->durable->clients[client->index].conn = conn->number;
    if (sml_table_find(sent, xid))
        sim_fail(world, "client %u sends xid %llu twice on one connection", client->index,
                 (unsigned long long)xid);
    else if (!sml_table_insert(sent, xid, sent))
        SML_ASSERT(!"room in a table");
}

/* Who may have made it before says for how long, and to the same store. */
static void check_key(struct sim_world *world, const struct sim_client *client,
                      const struct sml_call *call, const struct sml_call_frame *frame)
{
    uint32_t nonce = SML_CONTAINER(call, struct sim_slot, call)->nonce;
    struct sim_row *row = &world->rows[nonce];
    uint64_t age = (world->now - row->submitted) / SML_MS, home;

    memcpy(&home, client->link.server_id, sizeof home);
    home = sim_mix(home + client->link.generation);
    if (row->durable.home && row->durable.home != home)
        sim_fail(world, "client %u makes call %u again where its key cannot be known",
                 client->index, nonce);
    row->durable.home = home;
    if (call->rerun && frame->key_age_ms + 2 < age && !(client->outbox && client->outbox->stepped))
        sim_fail(world, "client %u says that the key of call %u is %llu ms old; it is %llu",
                 client->index, nonce, (unsigned long long)frame->key_age_ms,
                 (unsigned long long)age);
}

static void check_call(struct sim_world *world, const struct sim_client *client,
                       const struct sim_conn *conn, const struct sml_frame *frame)
{
    const struct sml_call *call = sml_table_find(&client->link.caller.by_xid, frame->xid);

    check_again(world, client, conn, frame->xid);
    if (call && call->key_bytes > 0)
        check_key(world, client, call, &frame->u.call);
}

/* ---- both ---------------------------------------------------------------------------------- */

static void look(struct sim_world *world, struct sim_pipe *pipe, const struct sml_frame *frame)
{
    struct sim_conn *conn = pipe->conn;
    struct sml_session *session = pipe->upward ? NULL : conn->peer.session;

    if (pipe->upward && frame->type == SML_ACK && conn->client)
        check_ack(world, conn->client, &frame->u.ack);
    if (pipe->upward && frame->type == SML_CALL && conn->client)
        check_call(world, conn->client, conn, frame);
    if (session && frame->type == SML_REPLY)
        check_reply(world, session->user, frame->xid, &frame->u.reply);
    if (session && frame->type == SML_WELCOME)
        check_welcome(world, session->user);
}

void sim_watch_written(struct sim_world *world, struct sim_pipe *pipe, const uint8_t *data,
                       size_t size)
{
    struct sml_frame frame;
    const char *why;
    size_t used;

    while (size > 0 && sml_frame_decode(data, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why) ==
                           SML_DECODED) {
        look(world, pipe, &frame);
        data += used;
        size -= used;
    }
}

/* ---- what clients read --------------------------------------------------------------------- */

static void note_welcome(struct sim_world *world, const struct sim_client *client,
                         const struct sml_welcome *welcome, bool same_session,
                         struct sim_watch *out)
{
    uint64_t *generation = &world->durable->clients[client->index].generation;
    uint64_t *evidence = &world->durable->clients[client->index].evidence;

    if (welcome->durable_hi < *evidence) {
        sim_mark(world, SIM_MARK_ROLLED_BACK);
        out->must_lose = true;
    }
    if (*generation && *generation != welcome->generation) {
        sim_mark(world, SIM_MARK_OTHER_GENERATION);
        out->must_lose |= same_session;
    }
    *generation = welcome->generation;
    if (welcome->durable_hi > *evidence)
        *evidence = welcome->durable_hi;
}

static void note_busy(struct sim_world *world, const struct sim_client *client, uint64_t xid)
{
    const struct sml_call *call = sml_table_find(&client->link.caller.by_xid, xid);

    (void)sml_table_remove(&world->durable->clients[client->index].sent, xid);
    if (call)
        world->rows[SML_CONTAINER(call, struct sim_slot, call)->nonce].durable.home = 0;
}

static void note_evidence(struct sim_world *world, const struct sim_client *client,
                          const struct sml_frame *frame, struct sim_watch *out)
{
    uint64_t *evidence = &world->durable->clients[client->index].evidence;
    uint64_t *known = &world->durable->clients[client->index].session, session;
    bool same;

    memcpy(&session, client->link.session.bytes, sizeof session);
    same = *known == session && client->link.has_session;
    if (!same)
        *evidence = 0;
    if (frame->type == SML_WELCOME)
        *known = session;
    if (frame->type == SML_REPLY && (frame->u.reply.flags & SML_REPLY_RECORDED) &&
        frame->xid > *evidence)
        *evidence = frame->xid;
    if (frame->type == SML_BUSY)
        note_busy(world, client, frame->xid);
    if (frame->type == SML_WELCOME)
        note_welcome(world, client, &frame->u.welcome, same, out);
}

void sim_watch_reading(struct sim_world *world, struct sim_client *client, const uint8_t *data,
                       size_t size, struct sim_watch *out)
{
    struct sml_frame frame;
    const char *why;
    size_t used;

    *out = (struct sim_watch){ .lost = client->link.counters.sessions_lost };
    while (size > 0 && sml_frame_decode(data, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why) ==
                           SML_DECODED) {
        note_evidence(world, client, &frame, out);
        data += used;
        size -= used;
    }
}

void sim_watch_read(struct sim_world *world, struct sim_client *client,
                    const struct sim_watch *watch)
{
    if (watch->must_lose && client->link.counters.sessions_lost == watch->lost)
        sim_fail(world, "client %u goes on with a session whose store was put back", client->index);
}
