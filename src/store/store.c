/* SPDX-License-Identifier: MIT */
/* store.c - looking at a store, whatever its kind. */
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void semel_store_close(struct semel_store *store)
{
    if (store)
        store->ops->close(store);
}

const char *semel_store_error(const struct semel_store *store)
{
    return store ? store->text : "no store";
}

void semel_store_info(const struct semel_store *store, struct semel_store_info *out_info)
{
    if (store == NULL || out_info == NULL)
        return;
    memcpy(out_info->id, store->id, sizeof out_info->id);
    out_info->generation = store->generation;
    out_info->clock_ms = store->ops->clock_ms(store);
}

static enum semel_status damaged(struct semel_store *store, const char *what, uint64_t row,
                                 const char *why)
{
    snprintf(store->text, sizeof store->text, "%.300s: %s %llu: %s", store->name, what,
             (unsigned long long)row, why);
    return store->status = SEMEL_STORE_CORRUPT;
}

static enum semel_status refused(struct semel_store *store, enum semel_status status,
                                 const char *why)
{
    snprintf(store->text, sizeof store->text, "%.300s: %s", store->name, why);
    return store->status = status;
}

static enum semel_status no_memory(struct semel_store *store)
{
    return refused(store, SEMEL_NO_MEMORY, semel_status_text(SEMEL_NO_MEMORY));
}

/* --- sessions ---------------------------------------------------------------------------- */

/* Sessions by the number of their record: a sorted array, since they come in that order. */
struct walk {
    struct semel_store *store;
    struct entry {
        uint64_t row;
        struct semel_store_session session;
    } * entries;
    size_t count, room;
    enum semel_status status;
    const uint8_t *wanted; /* a session's id; NULL: all */
    semel_store_call_fn call_fn;
    void *user;
};

static bool add_session(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct walk *walk = user;
    struct sml_session_record record;
    const char *why = sml_session_record_decode(bytes, &record);
    struct entry *entry;

    if (why) {
        walk->status = damaged(walk->store, "session record", row, why);
        return false;
    }
    if (walk->count == walk->room) {
        size_t room = walk->room ? walk->room * 2 : 64;
        struct entry *larger = realloc(walk->entries, room * sizeof *larger);

        if (larger == NULL) {
            walk->status = no_memory(walk->store);
            return false;
        }
        walk->entries = larger;
        walk->room = room;
    }
    entry = &walk->entries[walk->count++];
    memset(entry, 0, sizeof *entry);
    entry->row = row;
    memcpy(entry->session.id, record.id.bytes, sizeof entry->session.id);
    entry->session.has_ids = record.principal.known;
    entry->session.uid = record.principal.uid;
    entry->session.gid = record.principal.gid;
    entry->session.connections = record.conn_no;
    entry->session.released = record.base;
    return true;
}

static int by_row(const void *key, const void *entry)
{
    uint64_t wanted = *(const uint64_t *)key, row = ((const struct entry *)entry)->row;

    return wanted < row ? -1 : wanted > row;
}

static struct semel_store_session *find_session(const struct walk *walk, uint64_t row)
{
    struct entry *entry =
        walk->count ? bsearch(&row, walk->entries, walk->count, sizeof *entry, by_row) : NULL;

    return entry ? &entry->session : NULL;
}

static enum semel_status read_sessions(struct walk *walk)
{
    enum semel_status status =
        walk->store->ops->each(walk->store, SML_TABLE_SESSIONS, add_session, walk);

    return status == SEMEL_OK ? walk->status : status;
}

static bool count_call(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct walk *walk = user;
    struct sml_call_record record;
    const char *why = sml_call_record_decode(bytes, &record);
    struct semel_store_session *session;

    if (why) {
        walk->status = damaged(walk->store, "call record", row, why);
        return false;
    }
    session = find_session(walk, record.session);
    if (session == NULL)
        return true; /* left behind by a session that has ended */
    session->calls++;
    session->started += record.state == SML_CALL_STARTED;
    session->ended += record.state == SML_CALL_ENDED;
    session->crashed += record.state == SML_CALL_AGAIN;
    session->bytes += record.verdict.body.size;
    return true;
}

enum semel_status semel_store_each_session(struct semel_store *store, semel_store_session_fn fn,
                                           void *user)
{
    struct walk walk = { .store = store };
    enum semel_status status;

    if (store == NULL || fn == NULL)
        return SEMEL_INVALID;
    status = read_sessions(&walk);
    if (status == SEMEL_OK)
        status = store->ops->each(store, SML_TABLE_CALLS, count_call, &walk);
    if (status == SEMEL_OK)
        status = walk.status;
    for (size_t i = 0; status == SEMEL_OK && i < walk.count; i++)
        if (!fn(&walk.entries[i].session, user))
            break;
    free(walk.entries);
    return status;
}

/* --- calls ------------------------------------------------------------------------------- */

static void copy_text(char *out, size_t room, struct semel_bytes text)
{
    size_t bytes = text.size < room - 1 ? text.size : room - 1;

    if (bytes > 0)
        memcpy(out, text.data, bytes);
    out[bytes] = '\0';
}

static bool show_call(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct walk *walk = user;
    struct sml_call_record record;
    const char *why = sml_call_record_decode(bytes, &record);
    char method[SEMEL_METHOD_BYTES + 1], key[SEMEL_KEY_BYTES + 1], text[SEMEL_TEXT_BYTES + 1];
    const struct semel_store_session *session;
    struct semel_store_call call;

    if (why) {
        walk->status = damaged(walk->store, "call record", row, why);
        return false;
    }
    session = find_session(walk, record.session);
    if (session == NULL || (walk->wanted && memcmp(walk->wanted, session->id, 16) != 0))
        return true;
    copy_text(method, sizeof method, record.method);
    copy_text(key, sizeof key, record.key);
    copy_text(text, sizeof text, record.verdict.text);
    call = (struct semel_store_call){ .call = record.xid,
                                      .method = method,
                                      .key = key,
                                      .started = record.state == SML_CALL_STARTED,
                                      .ended = record.state == SML_CALL_ENDED,
                                      .crashes = record.crashes,
                                      .outcome = record.verdict.outcome,
                                      .status = record.verdict.status,
                                      .code = record.verdict.code,
                                      .text = text,
                                      .body = record.verdict.body };
    memcpy(call.session, session->id, sizeof call.session);
    return walk->call_fn(&call, walk->user);
}

enum semel_status semel_store_each_call(struct semel_store *store, const uint8_t *session,
                                        semel_store_call_fn fn, void *user)
{
    struct walk walk = { .store = store, .wanted = session, .call_fn = fn, .user = user };
    enum semel_status status;

    if (store == NULL || fn == NULL)
        return SEMEL_INVALID;
    status = read_sessions(&walk);
    if (status == SEMEL_OK)
        status = store->ops->each(store, SML_TABLE_CALLS, show_call, &walk);
    free(walk.entries);
    return status == SEMEL_OK ? walk.status : status;
}

/* --- changing ---------------------------------------------------------------------------- */

struct rows {
    const uint8_t *id;
    uint64_t session; /* 0: not found */
    uint64_t *calls;
    size_t count, room;
    bool no_memory;
};

static bool match_session(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct rows *rows = user;
    struct sml_session_record record;

    if (sml_session_record_decode(bytes, &record) != NULL || memcmp(record.id.bytes, rows->id, 16))
        return true;
    rows->session = row;
    return false;
}

static bool match_call(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct rows *rows = user;
    struct sml_call_record record;

    if (sml_call_record_decode(bytes, &record) != NULL || record.session != rows->session)
        return true;
    if (rows->count == rows->room) {
        size_t room = rows->room ? rows->room * 2 : 64;
        uint64_t *larger = realloc(rows->calls, room * sizeof *larger);

        if (larger == NULL) {
            rows->no_memory = true;
            return false;
        }
        rows->calls = larger;
        rows->room = room;
    }
    rows->calls[rows->count++] = row;
    return true;
}

static enum semel_status forget_rows(struct semel_store *store, const struct rows *rows)
{
    const struct sml_store_ops *ops = store->ops;
    enum sml_stored stored = ops->begin(store);

    if (stored == SML_STORED)
        stored = ops->forget(store, SML_TABLE_SESSIONS, rows->session);
    for (size_t i = 0; stored == SML_STORED && i < rows->count; i++)
        stored = ops->forget(store, SML_TABLE_CALLS, rows->calls[i]);
    if (stored == SML_STORED)
        stored = ops->commit(store);
    return stored == SML_STORED ? SEMEL_OK : store->status;
}

static enum semel_status only_to_look(struct semel_store *store)
{
    return refused(store, SEMEL_STORE_READ_ONLY, "it was opened only to look");
}

enum semel_status semel_store_forget_session(struct semel_store *store, const uint8_t *session)
{
    struct rows rows = { .id = session };
    enum semel_status status;

    if (store == NULL || session == NULL)
        return SEMEL_INVALID;
    if (store->read_only)
        return only_to_look(store);
    status = store->ops->each(store, SML_TABLE_SESSIONS, match_session, &rows);
    if (status == SEMEL_OK && rows.session == 0)
        status = refused(store, SEMEL_INVALID, "there is no such session");
    if (status == SEMEL_OK)
        status = store->ops->each(store, SML_TABLE_CALLS, match_call, &rows);
    if (status == SEMEL_OK && rows.no_memory)
        status = no_memory(store);
    if (status == SEMEL_OK)
        status = forget_rows(store, &rows);
    free(rows.calls);
    return status;
}

enum semel_status semel_store_renew(struct semel_store *store)
{
    if (store == NULL)
        return SEMEL_INVALID;
    if (store->read_only)
        return only_to_look(store);
    return store->ops->renew(store) == SML_STORED ? SEMEL_OK : store->status;
}
