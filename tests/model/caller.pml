/* SPDX-License-Identifier: MIT */
/* caller.pml - src/session/caller.c, caller_wire.c, link.c, link_wire.c: a client. */

#define OUTSTANDING(q) (c[q].ph == C_SENT || c[q].ph == C_BUSY)
#define SLOT(s) ((s) * P + l[s].slot)
#define CONNECTED(s) (l[s].st >= GREETING && l[s].st <= UP)
#define ON(y) (CONNECTED((y) / P) && SLOT((y) / P) == (y))
/* Room for one more frame; what is written after the server has closed is lost. */
#define C_ROOM(s) (z[SLOT(s)].st == Z_CLOSED || len(up[SLOT(s)]) < N)

inline flush(ch)
{
    do
    :: len(ch) > 0 -> ch?_, _
    :: else -> break
    od;
    skip
}

inline c_write(s, type, byte_)
{
    if
    :: z[SLOT(s)].st != Z_CLOSED -> up[SLOT(s)]!type, byte_
    :: else
    fi
}

/* The effects of the call that the application made as q. */
#define EFFECTS(q) (IS_RESUBMIT -> g[0].effects + g[NQ - 1].effects : g[q].effects)

/* Its application gets a verdict, from the server or made here. */
inline deliver(q, verdict)
{
    c[q].ph = C_DONE;
    c[q].out = verdict;
    c[q].want = 0;
    c[q].cancel = 0;
    c[q].again = 0;
    c[q].part = 0;
    c[q].part_run = 0;
    c[q].part_stored = 0;
    c[q].rerun = 0;
    c[q].doubtful = 0;
    if
    :: verdict == NOTEX -> MUST(M_NOTEX, EFFECTS(q) == 0)
    :: else
    fi;
    EVENT(E_DONE, X_OF(q), verdict)
}

/* release_xid */
inline c_release(q)
{
    if
    :: l[S_OF(q)].st == UP || (G_LISTED_ACK && CONNECTED(S_OF(q))) ->
        c[q].owed = 1;
        if
        :: !G_ACK_COUNTED -> c[q].open = 0
        :: else
        fi
    :: else -> c[q].open = 0
    fi
}

/* end_unanswered: no verdict will come. */
inline c_end(q)
{
    if
    :: ((c[q].ph == C_BUSY && !(c[q].doubtful && G_DOUBTFUL)) || !G_BUSY_ONLY) && !c[q].rerun ->
        deliver(q, NOTEX)
    :: else -> deliver(q, UNKNOWN)
    fi;
    c_release(q)
}

/* The client lets its end of the connection go. What it wrote may still arrive. */
inline c_leave(s)
{
    flush(dn[SLOT(s)]);
    if
    :: z[SLOT(s)].st == Z_CLOSED -> z[SLOT(s)].st = Z_NONE
    :: else
    fi
}

inline c_reset(s)
{
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        if
        :: c[i].owed -> c[i].owed = 0; c[i].open = 0
        :: else
        fi;
        /* A server that comes back may have lost it, and make another. */
        if
        :: c[i].part && STORE && !c[i].part_stored && G_PARTS_DROPPED ->
            c[i].part = 0;
            c[i].part_run = 0
        :: else
        fi;
        c[i].again = 0;
        c[i].cancel = 0
    }
    l[s].list = 0
}

inline c_down(s)
{
    c_leave(s);
    c_reset(s);
    l[s].st = DOWN;
    l[s].slot = 0
}

/* sml_link_fail: every call ends. */
inline c_fail(s)
{
    if
    :: CONNECTED(s) -> c_leave(s)
    :: else
    fi;
    c_reset(s);
    l[s].st = FAILED;
    l[s].slot = 0;
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        if
        :: OUTSTANDING(i) -> c_end(i)
        :: c[i].ph == C_NEW -> deliver(i, NOTEX)
        :: else
        fi;
        c[i].open = 0
    };
    skip
}

/* What the step has led to. sml_link_session_lost: the next session is not part of this model,
 * except for the call that has a key, which is made again in session 1. */
inline c_meet_fate(s)
{
    if
    :: fate == FATE_LOST && IS_RESUBMIT && s == 0 && c[0].ph != C_DONE && !c[0].want ->
        c_leave(s);
        c_reset(s);
        l[s].st = FAILED;
        l[s].slot = 0;
        l[S - 1].st = DOWN;
        c[NQ - 1].rerun = (c[0].ph == C_SENT || c[0].doubtful);
        c[0].doubtful = 0;
        c[0].ph = C_DONE;
        c[0].part = 0;
        c[0].open = 0;
        fate = 0
    :: fate == FATE_LOST && IS_RESUBMIT && s == 0 && !(c[0].ph != C_DONE && !c[0].want) ->
        c[NQ - 1].ph = C_DONE
    :: fate == FATE_LOST && !G_LOST_UNKNOWN ->
        for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
            if
            :: c[i].ph == C_SENT -> c[i].ph = C_BUSY
            :: else
            fi
        }
    :: else
    fi;
    if
    :: fate -> c_fail(s)
    :: else
    fi
}

inline c_up(s)
{
    EVENT(E_UP, 0, 0);
    l[s].has = 1;
    l[s].list = 0;
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        if
        :: OUTSTANDING(i) && c[i].want && G_CANCEL_AGAIN -> c[i].cancel = 1
        :: else
        fi
    };
    skip
}

/* sml_caller_state, of each call in the list. */
inline c_states(s)
{
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        v = (a / PLACE(i)) % 5;
        if
        :: !(l[s].list & BIT(X_OF(i))) || !OUTSTANDING(i) -> skip
        :: else ->
            if
            :: c[i].part && v != AT_DONE && G_PARTS_SEEN ->
                CARE(M_ROLLED_BACK, 0);
                fate = FATE_LOST
            :: else
            fi;
            if
            :: c[i].ph == C_BUSY && v != AT_REFUSED -> c[i].ph = C_SENT
            :: else
            fi;
            /* Its CALL tells the method, without which a server cannot say that it did not run. */
            if
            :: v == AT_IN_DOUBT ->
                c[i].doubtful = 1;
                c[i].again = (!c[i].want || G_SENT_IN_DOUBT)
            :: else
            fi;
            if
            :: c[i].want -> skip
            :: !c[i].want && v == AT_EXPECTED && G_EXPECTED_AGAIN -> c[i].again = 1
            :: !c[i].want && v == AT_REFUSED -> c[i].ph = C_BUSY
            :: else
            fi
        fi
    };
    skip
}

inline c_welcome(s)
{
    if
    :: l[s].has && (a >> 4) != l[s].id && !STORE && G_SERVER_ID ->
        c_write(s, END, 0);
        fate = FATE_LOST /* another server's memory */
    :: l[s].has && !((a >> 4) != l[s].id && !STORE && G_SERVER_ID) && (a & 3) < l[s].dhi &&
            G_DURABLE_HI ->
        CARE(M_ROLLED_BACK, 0);
        c_write(s, END, 0);
        fate = FATE_LOST
    :: else ->
        MUST(M_RULES, ((a >> 2) & 1) == l[s].has && ((a >> 3) & 1) == (l[s].list != 0));
        l[s].dhi = a & 3;
        l[s].id = a >> 4;
        if
        :: l[s].list == 0 -> l[s].st = UP
        :: else -> l[s].st = LISTING
        fi
    fi
}

/* A verdict is here, of the call n. */
inline c_complete()
{
    if
    :: v == VALUE -> MUST(M_VALUE, (IS_KEYED -> ALL_EFFECTS > 0 : g[n].effects > 0))
    :: v == UNKNOWN ->
        MUST(M_STOPPED, servers_die || !STORE);
        MUST(M_UNKNOWN, (IS_KEYED -> (g[0].started || g[NQ - 1].started || g[NQ / 2].started)
                                  : g[n].started) || KIND(n) == IDEM)
    :: else
    fi;
    /* set_verdict */
    if
    :: v == NOTEX && c[n].rerun && !(a & 32) && G_PROVEN_ONLY -> v = UNKNOWN
    :: else
    fi;
    deliver(n, v);
    c_release(n)
}

inline c_reply(s)
{
    n = Q_OF(s, a & 3);
    v = (a >> 2) & 3;
    if
    :: (a & 16) && (a & 3) > l[s].dhi -> l[s].dhi = a & 3
    :: else
    fi;
    if
    :: !OUTSTANDING(n) ->
        MUST(M_UNCHANGED, c[n].out == NONE || c[n].out == UNKNOWN || c[n].out == v)
    :: OUTSTANDING(n) && (a & 64) && !c[n].part ->
        c[n].part = 1;
        c[n].part_run = a >> 7;
        c[n].part_stored = (a >> 4) & 1;
        c[n].again = 0
    :: OUTSTANDING(n) && !((a & 64) && !c[n].part) ->
        if
        :: c[n].part -> MUST(M_ONE_RUN, c[n].part_run == (a >> 7))
        :: else
        fi;
        c_complete()
    fi
}

inline c_read(s)
{
    dn[SLOT(s)]?t, a;
    fate = 0;
    if
    :: t == WELCOME -> c_welcome(s)
    :: t == STATES -> c_states(s); l[s].st = (fate -> LISTING : UP)
    :: t == REPLY -> c_reply(s)
    :: t == BUSY ->
        n = Q_OF(s, a);
        if
        :: OUTSTANDING(n) && !c[n].want -> c[n].ph = C_BUSY
        :: else
        fi;
        EVENT(E_READ_BUSY, a, 0)
    :: t == BYE && a == LOST -> fate = FATE_LOST
    :: t == BYE && a != LOST ->
        CARE(M_RULES, a == PROTOCOL); /* nobody else has this client's secret */
        fate = FATE_FAIL
    fi;
    if
    :: (t == WELCOME || t == STATES) && l[s].st == UP -> c_up(s)
    :: else
    fi
}

/* sml_link_connected, and the HELLO. The lowest end that is free. */
#define FREE_END(s)                                                                                \
    (z[(s) * P].st == Z_NONE || z[(s) * P + 1].st == Z_NONE || z[(s) * P + P - 1].st == Z_NONE)

inline c_connect(s)
{
    i = 0;
    do
    :: z[s * P + i].st != Z_NONE -> i++
    :: else -> break
    od;
    l[s].slot = i;
    z[s * P + i].st = Z_NEW;
    l[s].conn = l[s].conn + 1;
    l[s].st = GREETING;
    a = 0;
    b = 0;
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        if
        :: OUTSTANDING(i) -> a = a | BIT(X_OF(i)); b = b | (c[i].part << (i % K))
        :: else
        fi
    }
    l[s].list = a;
    if
    :: l[s].has -> t = RESUME
    :: else -> t = CREATE
    fi;
    up[SLOT(s)]!t, l[s].conn | ((l[s].next - 1) << 4) | (a != 0 -> 128 : 0);
    EVENT(E_HELLO, l[s].conn, l[s].next | (a << 4));
    if
    :: a != 0 -> up[SLOT(s)]!LIST, a | (b << 3)
    :: else
    fi
}

#define OWES(s) (c[Q_OF(s, 1)].owed || c[Q_OF(s, K)].owed || (K > 2 && c[Q_OF(s, 1) + K / 2].owed))
#define OPEN(s)                                                                                    \
    (c[Q_OF(s, 1)].open + (K > 1 -> c[Q_OF(s, K)].open : 0) +                                      \
     (K > 2 -> c[Q_OF(s, 1) + K / 2].open : 0))
#define MAY_WRITE_CALLS(s) (l[s].st == UP && C_ROOM(s) && (!OWES(s) || !G_ACK_FIRST))

inline c_write_acks(s)
{
    a = 0;
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        if
        :: c[i].owed -> a = a | BIT(X_OF(i)); c[i].owed = 0; c[i].open = 0
        :: else
        fi
    }
    c_write(s, ACK, a);
    EVENT(E_ACK, a, 0)
}

inline c_write_new(s)
{
    n = Q_OF(s, l[s].next);
    c[n].ph = C_SENT;
    c[n].open = 1;
    l[s].next = l[s].next + 1;
    c_write(s, CALL, X_OF(n) | (c[n].rerun << 3));
    EVENT(E_CALL, X_OF(n), 0)
}

inline c_write_again(q)
{
    c[q].ph = C_SENT;
    c[q].again = 0;
    c_write(S_OF(q), CALL, X_OF(q) | (c[q].rerun << 3));
    EVENT(E_CALL, X_OF(q), 0)
}

inline c_want(q)
{
    EVENT(E_WANT, X_OF(q), 0);
    c[q].want = 1;
    c[q].again = (c[q].again && c[q].doubtful && G_SENT_IN_DOUBT);
    if
    :: l[S_OF(q)].st == UP -> c[q].cancel = 1
    :: else
    fi
}

inline c_write_cancel(q)
{
    c[q].cancel = 0;
    c_write(S_OF(q), CANCEL, X_OF(q));
    EVENT(E_CANCEL, X_OF(q), 0)
}

inline c_stop(s)
{
    EVENT(E_LEAVE, 0, 0);
    if
    :: CONNECTED(s) -> c_write(s, END, 0); EVENT(E_END, 0, 0)
    :: else
    fi;
    fate = FATE_FAIL
}
