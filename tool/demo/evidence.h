/* SPDX-License-Identifier: MIT */
/* evidence.h - what is known of the calls that are under way, from outside: the clients' ledgers,
 * the notices, the rows of the bank, and the records of the store (by semel/store.h). */
#ifndef DEMO_EVIDENCE_H
#define DEMO_EVIDENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "demo.h"
#include "ledger.h"

enum evidence_record { RECORD_NONE, RECORD_WAITING, RECORD_STARTED, RECORD_ENDED };

/* A call without an outcome so far. */
struct evidence_call {
    uint64_t id;
    int64_t called_at;
    bool outbox, keyed;
    bool row;                    /* in the bank */
    bool begun, ended;           /* its notice */
    bool left;                   /* an earlier kill found it begun and not ended */
    enum evidence_record record; /* by its key; of those without one it stays NONE */
};

/* A record of a call that was started and not ended, when the last kill was looked at. */
struct evidence_started {
    uint8_t session[16];
    uint64_t call;
};

struct evidence {
    const struct demo *demo;
    struct evidence_call *calls;
    size_t count, room;
    uint64_t called, replied; /* lines of the ledgers */
    int64_t replied_at;       /* the last of them */
    bool broken;              /* no memory, or a line that is none: said so */
    /* Of the store, as of the last look. */
    unsigned started, started_new; /* new: not found at the look before */
    struct evidence_started *was, *is;
    size_t was_count, is_count, was_room, is_room;
    /* Where reading goes on. */
    char paths[DEMO_CLIENTS_MAX][32];
    struct ledger_tail ledgers[DEMO_CLIENTS_MAX], notices;
    int64_t last_move;
};

void evidence_open(struct evidence *evidence, const struct demo *demo);
void evidence_close(struct evidence *evidence);

/* Read what is new of each kind. False: it cannot be read, which was said. The store and the bank
 * only where no server has them. */
bool evidence_ledgers(struct evidence *evidence);
bool evidence_notices(struct evidence *evidence);
bool evidence_bank(struct evidence *evidence);
bool evidence_store(struct evidence *evidence);

#endif
