/* SPDX-License-Identifier: MIT */
/* store_world.h - one or two calls, their client, shell, handlers and store, moved by single steps.
 * After each it is asked of what is in the store alone: would a crash now be survived? */
#ifndef TESTS_SESSION_STORE_WORLD_H
#define TESTS_SESSION_STORE_WORLD_H

#include "fixture.h"

#define CALLS 2
#define STEPS 30 /* of a sequence, at most */
#define RECORD_BYTES 256
#define POINTERS 64

/* What kind of handler a call is for. */
enum kind {
    NO_CALL,
    ONCE,  /* its start is stored; if the server died in it, its end is unknown */
    AGAIN, /* its start is stored; if the server died in it, it had no effect, and runs again */
    KEYED, /* as ONCE, and all calls that are KEYED have one key */
    TRANS, /* its effect and its verdict are stored together */
    BARE   /* nothing is stored: running it again does no harm */
};

enum step {
    CALL,      /* the client sends it, for the first time or again */
    ACK,       /* the client releases it, whether it knows its verdict or not */
    CANCEL,    /* the client does not want it any more */
    GO,        /* the shell has its start stored, or begins it where none is needed */
    BEGIN,     /* the shell begins what was started */
    FINISH,    /* its handler is at its end */
    TX_OK,     /* its transaction is committed, ... */
    TX_GONE,   /* ... or is gone, perhaps before it has a verdict */
    PUT_OFF,   /* the server stops: the shell leaves it to the next one */
    OF_A_CALL, /* those above are made of one call each */
    TAKE = OF_A_CALL,
    PULL,      /* the store takes the changes that there are */
    COMMIT,    /* they are stored, ... */
    FAIL,      /* ... or are not */
    READ,      /* the client reads what there is to read */
    RECONNECT, /* the client resumes */
    LATE,      /* the deadlines of all calls pass */
    CRASH,     /* the server dies, or ends, and another one begins from the store */
    ALL_STEPS
};

/* What the shell does with a call. */
enum hand { NOT_HELD, HELD, WAITS, RUNS, IN_TX };

struct one_call {
    enum kind kind;
    /* the client's */
    bool sent, send, acked, cancelled, seen, doubtful;
    enum semel_outcome outcome; /* seen */
    /* the shell's */
    enum hand hand;
    struct sml_incoming *in;
    /* the world's */
    uint8_t effects;
};

struct stored {
    size_t size; /* 0: none */
    uint8_t bytes[RECORD_BYTES];
};

struct world {
    struct one_call calls[CALLS];
    bool up, late, stopping;
    uint8_t crashes;
    uint64_t now;
    uint64_t durable_hi; /* what the client was told */
    struct sml_session session;
    /* the store's; the record of a call has the call's number */
    struct stored session_record, records[CALLS];
    struct {
        enum { KEY_FREE, KEY_STARTED, KEY_ENDED } state;
        uint64_t xid;
        enum semel_outcome outcome;
    } key;
    bool under_way;
    struct sml_change changes[2 * CALLS];
    uint32_t change_count;
    enum sml_session_change session_change;
    struct stored next_session_record;
    /* memory, all of which a crash gives back */
    void *pointers[POINTERS];
    uint32_t live;
};

/* Each step is its number, times CALLS, and that of its call, from 0. */
struct sequence {
    uint8_t steps[STEPS];
    uint32_t count;
};

extern struct world world;
extern enum kind world_kinds[CALLS];

/* The world after these steps, which must be possible. Fails the test, with the steps, when
 * something is wrong. */
void world_replay(const struct sequence *sequence);
bool world_may(uint8_t code);

/* From here on all goes well. Every call that its client still waits for comes to its end; then
 * all are released, and nothing is left in the store, or anywhere. */
void world_settle(void);

bool world_read_call(int call, struct sml_call_record *out);
struct sml_session_record world_read_session(void);
bool world_is_straggler(const struct sml_session_record *record, uint64_t xid);

/* A server that is gone takes its memory along. */
void world_free(void);

#endif
