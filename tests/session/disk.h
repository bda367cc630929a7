/* SPDX-License-Identifier: MIT */
/* disk.h - a store for the tests: encoded records of sessions and calls, which survive a host. */
#ifndef TESTS_SESSION_DISK_H
#define TESTS_SESSION_DISK_H

#include "fixture.h"

#define DISK_ROWS 32
#define DISK_RECORD_BYTES (256 * 1024)

struct disk_record {
    size_t size; /* 0: none */
    uint8_t bytes[DISK_RECORD_BYTES];
};

/* The record of row r is that at r - 1. */
struct disk {
    struct disk_record sessions[DISK_ROWS], calls[DISK_ROWS];
};

static inline uint64_t disk_row(const struct disk_record *records, uint64_t row)
{
    if (row != 0)
        return row;
    while (row < DISK_ROWS && records[row].size > 0)
        row++;
    assert_true(row < DISK_ROWS);
    return row + 1;
}

/* Always 0, the row of no record. */
static inline uint64_t disk_forget(struct disk_record *records, uint64_t row)
{
    if (row != 0)
        records[row - 1].size = 0;
    return 0;
}

static inline uint64_t disk_put_session(struct disk *disk, uint64_t row,
                                        const struct sml_session_record *record)
{
    struct disk_record *at;

    row = disk_row(disk->sessions, row);
    at = &disk->sessions[row - 1];
    at->size = sml_session_record_bytes(record);
    assert_true(at->size <= sizeof at->bytes);
    sml_session_record_encode(record, at->bytes);
    return row;
}

static inline uint64_t disk_put_call(struct disk *disk, uint64_t session,
                                     const struct sml_change *change)
{
    const struct sml_incoming *in = change->in;
    struct sml_call_record record = { .session = session,
                                      .xid = in->xid,
                                      .state = change->kind == SML_CHANGE_START ? SML_CALL_STARTED
                                               : change->kind == SML_CHANGE_END ? SML_CALL_ENDED
                                                                                : SML_CALL_AGAIN,
                                      .flags = in->flags,
                                      .crashes = in->crashes,
                                      .fingerprint = in->fingerprint,
                                      .origin = in->origin,
                                      .method = { in->method, in->method_bytes },
                                      .key = { in->key, in->key_bytes } };
    uint64_t row = disk_row(disk->calls, in->row);
    struct disk_record *at = &disk->calls[row - 1];

    if (record.state == SML_CALL_ENDED) {
        record.verdict = in->verdict;
        record.proven = in->proven;
    }
    at->size = sml_call_record_bytes(&record);
    assert_true(at->size <= sizeof at->bytes);
    sml_call_record_encode(&record, at->bytes);
    return row;
}

/* Store all that a session has to store. */
static inline void disk_store(struct disk *disk, struct sml_session *session)
{
    uint8_t room[8 * DISK_ROWS];
    struct sml_session_record record;
    struct sml_change changes[DISK_ROWS];
    enum sml_session_change change;
    uint64_t row = session->row;
    uint32_t count = 0;

    while (sml_callee_next_change(&session->callee, &changes[count]))
        assert_true(++count < DISK_ROWS);
    change = sml_session_pull(session, &record, room);
    if (change == SML_SESSION_PUT)
        row = disk_put_session(disk, row, &record);
    else if (change == SML_SESSION_DELETE)
        row = disk_forget(disk->sessions, row);
    for (uint32_t i = 0; i < count; i++) {
        bool forgets = changes[i].kind == SML_CHANGE_LEAVE || changes[i].kind == SML_CHANGE_FORGET;
        uint64_t at = forgets ? disk_forget(disk->calls, changes[i].in->row)
                              : disk_put_call(disk, row, &changes[i]);

        sml_callee_recorded(&session->callee, &changes[i], at, true);
    }
    sml_session_recorded(session, change, record.conn_no, row, true);
}

/* Whatever can happen without time passing, with a store that answers at once. */
static inline void disk_pump(struct disk *disk, struct fixture *f)
{
    struct sml_list *sessions = &f->host.sessions;

    for (int i = 0; i < 5; i++) {
        fixture_pump(f);
        for (struct sml_list *n = sessions->next; n != sessions; n = n->next)
            disk_store(disk, SML_CONTAINER(n, struct sml_session, all));
        if (f->ended)
            disk_store(disk, f->ended);
        if (f->ended && sml_session_is_over(f->ended)) {
            sml_session_free(&f->host, f->ended);
            f->ended = NULL;
        }
    }
    fixture_pump(f);
}

static inline uint32_t disk_count(const struct disk_record *records)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < DISK_ROWS; i++)
        count += records[i].size > 0;
    return count;
}

/* The sessions of an earlier host, and their calls. Those that had begun are held by the test. */
static inline void disk_restore(const struct disk *disk, struct sml_host *host, uint64_t now)
{
    struct sml_session *sessions[DISK_ROWS] = { NULL };
    const char *why = NULL;

    for (uint32_t i = 0; i < DISK_ROWS; i++) {
        const struct disk_record *at = &disk->sessions[i];
        struct sml_session_record record;

        if (at->size == 0)
            continue;
        assert_null(sml_session_record_decode(semel_bytes(at->bytes, at->size), &record));
        sessions[i] = sml_host_restore(host, i + 1, &record, now, &why);
        assert_non_null(sessions[i]);
    }
    for (uint32_t i = 0; i < DISK_ROWS; i++) {
        const struct disk_record *at = &disk->calls[i];
        struct sml_call_record record;

        if (at->size == 0)
            continue;
        assert_null(sml_call_record_decode(semel_bytes(at->bytes, at->size), &record));
        assert_non_null(
            sml_callee_restore_call(&sessions[record.session - 1]->callee, i + 1, &record, &why));
    }
}

#endif
