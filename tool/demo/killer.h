/* SPDX-License-Identifier: MIT */
/* killer.h - the server of the demo, killed again and again. */
#ifndef DEMO_KILLER_H
#define DEMO_KILLER_H

#include "chance.h"
#include "demo.h"
#include "evidence.h"
#include "process.h"

/* What the kills hit. */
struct killer_count {
    unsigned kills;
    unsigned busy;          /* hit calls under way in the server */
    unsigned before_start;  /* a call that was sent, of which the server had written down nothing */
    unsigned before_commit; /* one that had begun, and had no verdict */
    unsigned in_transaction; /* of these, a transfer */
    unsigned before_reply;   /* one that had its verdict, and its caller had not */
    unsigned started;        /* calls of notify that were started and not ended, in all kills */
};

struct killer {
    const struct demo *demo;
    struct evidence *evidence;
    struct process server;
    struct ledger_tail log;
    char address[DEMO_SOCKETS + 20];
    int kills; /* the file */
    struct chance chance;
    int64_t due;   /* of the next kill */
    bool late;     /* it is due, but the server has not answered anything yet */
    int64_t up_at; /* the server listens since then */
    bool listens;
    unsigned long long running; /* calls that ran when the last one died, by the word of this one */
    struct killer_count count;
};

/* Start the server, and wait until it listens. False: said why not, or a signal came. */
bool killer_open(struct killer *killer, const struct demo *demo, struct evidence *evidence);

/* Kill the server if it is time to, look at what was hit, and start it again. */
bool killer_step(struct killer *killer);

/* Let the server end what it has. False: it did not end well, which was said. */
bool killer_close(struct killer *killer);

#endif
