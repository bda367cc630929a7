/* SPDX-License-Identifier: MIT */
/* state.pml - all there is: the clients, the connections, the server's memory, the store, and what
 * is remembered only to ask whether all is well. */

#define NQ (S * K)
#define NZ (S * P)
/* A call q: its session, its number; the bit of its number in sets of them. */
#define S_OF(q) ((q) / K)
#define X_OF(q) ((q) % K + 1)
#define Q_OF(s, x) ((s) * K + (x) - 1)
#define BIT(x) (1 << ((x) - 1))
#ifdef TRACE
#define KIND(q) kinds[q]
#else
#define KIND(q) ((q) % K == 0 -> KIND1 : ((q) % K == 1 -> KIND2 : KIND3))
#endif
#define MAY_REPEAT(q) (KIND(q) == IDEM || KIND(q) == RERUN)

/* Verdicts. */
#define NONE 0
#define VALUE 1
#define NOTEX 2 /* not executed */
#define UNKNOWN 3

/* --- frames ----------------------------------------------------------------------------------- */

/* To the server. A frame is its type and one byte. */
#define CREATE 1 /* the connection's number */
#define RESUME 2 /* its number, and eight times the next call's, and whether a LIST follows */
#define LIST 3   /* the set of outstanding calls, and eight times that of begun replies */
#define CALL 4   /* its number; 8: it may have run in an earlier session */
#define ACK 5    /* a set */
#define CANCEL 6 /* a number */
#define END 7    /* BYE END */
/* To the client. */
#define WELCOME 11 /* durable_hi, 4: resumed, 8: LIST follows, and 16 times the server's id */
#define STATES 12  /* where each call of the LIST stands, to the base 5 */
#define REPLY 13   /* number, 4 times verdict, 16: recorded, 32: proven, 64: a part, 128: the run */
#define BUSY 14    /* a number */
#define BYE 15     /* why: */
#define LOST 1
#define OVERTAKEN 2
#define PROTOCOL 3
/* In STATES. */
#define AT_EXPECTED 0
#define AT_RUNNING 1
#define AT_DONE 2
#define AT_REFUSED 3
#define AT_IN_DOUBT 4
#define PLACE(q) ((q) % K == 0 -> 1 : ((q) % K == 1 -> 5 : 25))

/* --- clients (src/session/caller.c, link.c) --------------------------------------------------- */

#define C_NEW 0
#define C_SENT 1
#define C_BUSY 2
#define C_DONE 3

typedef Call {
    unsigned ph : 2;
    unsigned out : 2; /* the verdict that its application has */
    bit want;         /* it is to be cancelled */
    bit cancel;       /* by a CANCEL, which is to be written */
    bit again;        /* its CALL is to be written again */
    bit owed;         /* its ACK is to be written */
    bit open;         /* its number counts in the window */
    bit part;         /* of its reply, the first part is here */
    bit part_run;     /* ... of this run */
    bit part_stored;  /* ... and it is in the server's store */
    bit rerun;        /* it may have run in an earlier session */
    bit doubtful;     /* it may have run in an earlier server */
}

#define DOWN 0
#define GREETING 1
#define LISTING 2 /* WELCOME is here, the states are not */
#define UP 3
#define FAILED 4
#define OFF 5 /* not yet wanted */

typedef Link {
    unsigned st : 3;
    unsigned slot : 2;
    unsigned conn : 4; /* conn_no of the last HELLO */
    unsigned next : 3;
    unsigned dhi : 2; /* durable_hi, as far as known */
    unsigned list : 3;
    unsigned id : 2;  /* server_id */
    bit has;          /* has_session */
}

/* --- connections ------------------------------------------------------------------------------ */

/* The server's end. */
#define Z_NONE 0
#define Z_NEW 1      /* HELLO was not read */
#define Z_ATTACHED 2 /* a session's; of several only with a guard away */
#define Z_CLOSED 3   /* the client will learn of it */

typedef Conn {
    unsigned st : 2;
}

/* --- the server's memory (src/session/callee.c, host.c) --------------------------------------- */

/* Phases; receiving is one step, and READY is TAKEN. */
#define R_NONE 0
#define R_EXPECTED 1
#define R_TAKEN 2
#define R_STARTING 3
#define R_STARTED 4
#define R_UNSTARTING 5
#define R_RUNNING 6
#define R_STORING 7
#define R_DONE 8
#define R_REFUSED 9
#define R_DROPPED 10 /* released; its record is to be forgotten */

/* What of it is under way to the store. */
#define B_NONE 0
#define B_START 1
#define B_AGAIN 2
#define B_END 3
#define B_LEAVE 4
#define B_FORGET 5
#define B_TXN 6      /* decided, in the transaction that is open */
#define B_ANSWERED 7 /* a START: its key has a verdict */
#define B_HELDBACK 8 /* a START: its key's call has not ended */

typedef Rec {
    unsigned ph : 4;
    unsigned batch : 4;
    unsigned ver : 2;
    bit gone;
    bit held;     /* by the shell */
    bit todo;     /* on to_record */
    bit row;
    bit doomed;
    bit cut;      /* cancelled, or its deadline is over */
    bit runs;     /* its handler is at work ... */
    bit did;      /* ... and had its effect */
    bit send;     /* on to_send */
    bit begun;    /* the first part was sent */
    bit busy;     /* on busy */
    bit answered; /* by its key */
    bit proven;
    bit value;    /* which run made the reply */
    bit may_have; /* `begun`: an earlier server may have run it */
    bit doubt;    /* `in_doubt`: the same, if its method keeps no records */
    bit waits;    /* cancel_waits */
}

#define P_LISTING 1
#define P_WAITING 2 /* WELCOME is due */
#define P_UP 3

typedef Session {
    bit known;         /* the host has it */
    unsigned att : 3;  /* 1 + the connection it is attached to */
    unsigned ps : 2;   /* how far that is */
    bit held;          /* welcome_held */
    bit resumed;
    unsigned conn : 4;
    unsigned conn_stored : 4;
    unsigned hi : 2;
    unsigned base : 2;
    unsigned pending : 2; /* base_pending */
    unsigned dhi : 2;
    bit restored;
    bit row;
    bit going;         /* it has ended, its record is to be deleted */
    unsigned next : 3; /* of this HELLO */
    unsigned count : 3;
    unsigned states : 7;
}

/* --- the committer (src/rpc/commit.c) --------------------------------------------------------- */

#define SAME 0
#define PUT 1
#define DELETE 2

typedef Part { /* the session's own record, as it is under way */
    unsigned change : 2;
    unsigned conn : 4;
    unsigned base : 2;
    unsigned stragglers : 3;
}

#define IDLE 0
#define CHANGES 1 /* a batch is under way */
#define TXN 2     /* and transactional handlers run in it */
#define BROKEN 3  /* the store is of no more use */
#define SECOND 4  /* only with TXN_ATOMIC away: the effects are stored, the verdicts are not */

/* How the server ends. */
#define DIES 1
#define DIES_SILENT 2 /* what was on its way from it is lost, too */
#define DIES_POWERLESS 3 /* ... and so is the page beside the store */

/* --- the store -------------------------------------------------------------------------------- */

/* 1 .. 3: ended, with that verdict. */
#define D_STARTED 4
#define D_AGAIN 5

typedef DiskCall {
    unsigned st : 3;
    unsigned deaths : 2;
}

typedef DiskSession {
    bit known;
    unsigned conn : 4;
    unsigned base : 2;
    unsigned stragglers : 3;
}

#define K_FREE 0
#define K_STARTED 4 /* else a verdict */

/* --- what is left that may go wrong ----------------------------------------------------------- */

typedef Left {
#ifdef TRACE
    byte cuts, crashes, stops, nots, unknowns, busies, cancels, giveups;
    byte expires, maxruns, idles, leaves, drops, repeats, clones;
#else
    unsigned cuts : 3;
    unsigned crashes : 2;
    unsigned stops : 2;
    unsigned nots : 2;
    unsigned unknowns : 2;
    unsigned busies : 2;
    unsigned cancels : 2;
    unsigned giveups : 2;
    unsigned expires : 2;
    unsigned maxruns : 2;
    unsigned idles : 2;
    unsigned leaves : 2;
    unsigned drops : 2;
    unsigned repeats : 2;
    unsigned clones : 2;
#endif
}

/* --- what is only remembered ------------------------------------------------------------------ */

typedef Ghost {
    unsigned effects : 2;
    bit started;  /* a start of it was once durable, or its outcome was made unknown while it ran */
    bit released; /* by its client, as far as the server was told */
    unsigned killed : 2; /* how often the server died in its transactional handler */
}

Call c[NQ];
Link l[S];
Conn z[NZ];
chan up[NZ] = [N] of { byte, byte };
chan dn[NZ] = [N] of { byte, byte };
Rec r[NQ];
Session m[S];
unsigned doing : 3 = IDLE;
Part part[S];
unsigned running : 3; /* 1 + the call whose transactional handler runs */
bit ran;      /* some call did, in this transaction */
bit stopping;
unsigned server_id : 2;
DiskCall d[NQ];
DiskSession ds[S];
unsigned key : 3;      /* the key's state in the store, ... */
unsigned key_call : 3; /* ... the call that used it, ... */
unsigned key_seen : 3; /* ... and what the open transaction sees of it */
Left left;
Ghost g[NQ];
byte welcomed[S]; /* the greatest conn_no that was ever welcomed */

#define ALL_EFFECTS                                                                                \
    (g[0].effects + (NQ > 1 -> g[NQ - 1].effects : 0) + (NQ > 2 -> g[1].effects : 0))

/* Not part of the state: of one step only. */
hidden byte i;
hidden byte j;
hidden byte n;
hidden byte t;
hidden byte a;
hidden byte b;
hidden byte v;
hidden byte w;
hidden byte keep;
hidden byte why;  /* the connection is closed with this BYE at the end of the step */
hidden byte fate; /* the session is lost, or all is over, at the end of the step: */
#define FATE_LOST 1
#define FATE_FAIL 2
hidden byte ev_a;
hidden byte ev_b;
