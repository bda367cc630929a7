/* SPDX-License-Identifier: MIT */
/* session.pml - clients, connections, a server and its store, with all that may go wrong between
 * them. See README.md. */
#include "bounds.pml"
#include "guards.pml"
#include "hooks.pml"
#include "state.pml"
#include "caller.pml"
#include "callee.pml"
#include "commit.pml"

/* --- one call: what its client, and the server's shell, do with it ---------------------------- */

#define MAY_RUN (!stopping && doing != BROKEN)

proctype OneCall(byte q)
{
end:
    do
    /* the client */
    :: d_step { ALIVE && c[q].again && MAY_WRITE_CALLS(S_OF(q)) -> c_write_again(q) }
    :: d_step { ALIVE && c[q].ph == C_BUSY && !c[q].want && MAY_WRITE_CALLS(S_OF(q)) &&
                (!IS_KEYED || key != K_STARTED || key_call == q) -> c_write_again(q) }
    :: d_step { ALIVE && c[q].cancel && l[S_OF(q)].st == UP && C_ROOM(S_OF(q)) ->
           c_write_cancel(q) }
    :: d_step { ALIVE && left.cancels > 0 && OUTSTANDING(q) && !c[q].want ->
           left.cancels = left.cancels - 1;
           c_want(q) }
    :: d_step { ALIVE && left.giveups > 0 && OUTSTANDING(q) && c[q].want ->
           left.giveups = left.giveups - 1;
           EVENT(E_GIVE_UP, X_OF(q), 0);
           c_end(q) }
    :: d_step { ALIVE && left.repeats > 0 && l[S_OF(q)].st == UP && C_ROOM(S_OF(q)) &&
                X_OF(q) < l[S_OF(q)].next && c[q].ph != C_BUSY ->
           left.repeats = left.repeats - 1;
           c_write(S_OF(q), CALL, X_OF(q)) }
    :: d_step { ALIVE && left.clones > 0 && l[S_OF(q)].st == DOWN && c[q].ph == C_DONE ->
           left.clones = left.clones - 1;
           c[q].ph = C_SENT;
           c[q].out = NONE;
           c[q].open = 1 }
    /* the server: what it says */
    :: d_step { ALIVE && r[q].send && m[S_OF(q)].ps == P_UP && S_ROOM(m[S_OF(q)].att - 1, 1) ->
           s_reply(q) }
    :: d_step { ALIVE && r[q].busy && m[S_OF(q)].ps == P_UP && S_ROOM(m[S_OF(q)].att - 1, 1) ->
           s_busy(q) }
    /* the server: what it does */
    :: d_step { ALIVE && left.busies > 0 && r[q].ph == R_TAKEN && !r[q].gone ->
           left.busies = left.busies - 1;
           r_refuse(q) }
    :: d_step { ALIVE && r[q].ph == R_TAKEN && MAY_RUN &&
                (!STORE || KIND(q) == IDEM || (!G_START_FIRST && KIND(q) != TRANS)) ->
           if
           :: !STORE -> g[q].started = 1
           :: else
           fi;
           r_begin(q) }
    :: d_step { ALIVE && r[q].ph == R_TAKEN && MAY_RUN && doing == IDLE && STORE &&
                (KIND(q) == ONCE || KIND(q) == RERUN) && G_START_FIRST ->
           r[q].ph = R_STARTING;
           r[q].todo = 1 }
    :: d_step { ALIVE && r[q].ph == R_STARTED && r[q].held && !stopping &&
                (!r[q].gone || !G_BEGIN_WANTED) ->
           r_begin(q) }
    :: d_step { ALIVE && r[q].ph == R_STARTED && r[q].held && r[q].gone && G_BEGIN_WANTED ->
           r_let_go(q) }
    :: d_step { ALIVE && r[q].ph == R_STARTED && r[q].held && stopping && !r[q].gone ->
           r[q].held = 0;
           if
           :: r[q].may_have -> skip
           :: !r[q].may_have && G_UNSTART -> r[q].ph = R_UNSTARTING; r[q].todo = 1
           :: else -> r[q].ph = R_TAKEN
           fi }
    :: d_step { ALIVE && !G_KEPT && r[q].ph == R_DONE && !r[q].held -> r_bury(q) }
    :: d_step { ALIVE && r[q].held && !r[q].runs && (r[q].ph == R_STORING || r[q].ph == R_DONE) ->
           r_let_go(q) }
    :: d_step { ALIVE && r[q].runs && !r[q].did && running != q + 1 -> x_effect(q, 1) }
    :: d_step { ALIVE && r[q].runs && r[q].did && running != q + 1 ->
           r_finish(q, VALUE) }
    :: d_step { ALIVE && left.drops > 0 && r[q].runs ->
           left.drops = left.drops - 1;
           if
           :: running == q + 1 -> x_undone(q)
           :: else -> g[q].started = 1; r_finish(q, UNKNOWN)
           fi }
    :: d_step { ALIVE && left.maxruns > 0 && r[q].ph == R_RUNNING && running != q + 1 &&
                !r[q].gone ->
           left.maxruns = left.maxruns - 1;
           g[q].started = 1;
           EVENT(E_OUTRUN, X_OF(q), 0);
           r_settle(q, UNKNOWN) }
    :: d_step { ALIVE && left.expires > 0 && IN_TABLE(q) &&
                (r[q].ph == R_TAKEN || r[q].ph == R_STARTING || r[q].ph == R_STARTED ||
                 r[q].ph == R_RUNNING) ->
           left.expires = left.expires - 1;
           EVENT(E_LATE, X_OF(q), 0);
           if
           :: r[q].ph == R_RUNNING -> r_cut(q)
           :: else -> r_end_unstarted(q)
           fi }
    /* the committer, inside a transaction */
    :: d_step { ALIVE && doing == TXN && running == 0 && r[q].ph == R_TAKEN && KIND(q) == TRANS &&
                !stopping -> x_begin(q) }
    :: d_step { ALIVE && running == q + 1 && !r[q].did -> r[q].did = 1 }
    :: d_step { ALIVE && running == q + 1 && r[q].did && (!r[q].cut || stopping) ->
           x_decide(q, VALUE) }
    :: d_step { ALIVE && running == q + 1 && r[q].did && r[q].cut -> x_undone(q) }
    :: d_step { ALIVE && running == q + 1 && r[q].cut && stopping -> x_give_back(q) }
    od
}

/* --- one connection --------------------------------------------------------------------------- */

/* A session that ended and another one with its id would be two; here there is room for one. */
#define IS_NONE(q) (r[q].ph == R_NONE)
#define MAY_MAKE(s)                                                                                \
    (m[s].known || (!m[s].going && part[s].change == SAME && IS_NONE(Q_OF(s, 1)) &&                \
                    IS_NONE(Q_OF(s, K)) && IS_NONE(Q_OF(s, 1) + K / 2)))

proctype OneConn(byte y)
{
end:
    do
    :: d_step { ALIVE && len(up[y]) > 0 && (z[y].st == Z_ATTACHED ||
                (z[y].st == Z_NEW && (MAY_MAKE(y / P) || (!up[y]?[CREATE, _] && G_RESUME_ONLY)))) ->
           up[y]?t, a;
           s_take(y / P, y) }
    :: d_step { ALIVE && m[y / P].att == y + 1 && m[y / P].ps == P_WAITING && !m[y / P].held &&
                S_ROOM(y, 2) -> s_welcome(y / P, y) }
    /* the server learns that it is gone */
    :: d_step { ALIVE && !ON(y) && z[y].st != Z_NONE -> s_close(y); EVENT(E_LOST, 0, 0) }
    :: d_step { ALIVE && left.cuts > 0 && ON(y) && z[y].st != Z_CLOSED ->
           left.cuts = left.cuts - 1;
           s_close(y);
           EVENT(E_CUT_SERVER, 0, 0) }
    /* the client learns of it */
    :: d_step { ALIVE && ON(y) && z[y].st == Z_CLOSED && len(dn[y]) == 0 ->
           c_down(y / P);
           EVENT(E_EOF, 0, 0) }
    :: d_step { ALIVE && left.cuts > 0 && ON(y) && (z[y].st != Z_CLOSED || len(dn[y]) > 0) ->
           left.cuts = left.cuts - 1;
           c_down(y / P);
           EVENT(E_CUT_CLIENT, 0, 0) }
    od
}

/* --- one session ------------------------------------------------------------------------------ */

/* may_expire; a call that was released and still runs is not looked at. A CREATE that is older than
 * the session's idle time is taken for lost. */
#define RUNS(q)                                                                                    \
    (r[q].held || r[q].batch != B_NONE || r[q].ph == R_STORING || r[q].ph == R_DROPPED)
#define OLD_CREATE(s)                                                                              \
    (up[(s) * P]?[CREATE, _] || up[(s) * P + 1]?[CREATE, _] || up[(s) * P + P - 1]?[CREATE, _])
#define MAY_EXPIRE(s)                                                                              \
    (m[s].known && m[s].att == 0 && !RUNS(Q_OF(s, 1)) && !RUNS(Q_OF(s, K)) &&                      \
     !RUNS(Q_OF(s, 1) + K / 2) && part[s].change == SAME && !(OLD_CREATE(s) && G_CREATE_AGE))

proctype OneSession(byte s)
{
end:
    do
    :: d_step { ALIVE && l[s].st == DOWN && FREE_END(s) -> c_connect(s) }
    :: d_step { ALIVE && CONNECTED(s) && len(dn[SLOT(s)]) > 0 ->
           c_read(s);
           c_meet_fate(s) }
    :: d_step { ALIVE && l[s].st == UP && OWES(s) && C_ROOM(s) -> c_write_acks(s) }
    :: d_step { ALIVE && MAY_WRITE_CALLS(s) && l[s].next <= CALLS && OPEN(s) < W &&
                c[Q_OF(s, l[s].next)].ph == C_NEW -> c_write_new(s) }
    :: d_step { ALIVE && left.idles > 0 && MAY_EXPIRE(s) ->
           left.idles = left.idles - 1;
           EVENT(E_IDLE, 0, 0);
           s_end(s) }
    :: d_step { ALIVE && left.leaves > 0 && l[s].st <= UP && (!CONNECTED(s) || C_ROOM(s)) ->
           left.leaves = left.leaves - 1;
           c_stop(s);
           c_fail(s) }
    od
}

/* --- the committer, and the server's life ----------------------------------------------------- */

#define ANY_UNREAD                                                                                 \
    (len(dn[0]) > 0 || len(dn[1]) > 0 || len(dn[NZ - 1]) > 0 || len(dn[NZ / 2]) > 0)
/* Of up to four calls. */
#define ANY(what) (what(0) || what(NQ - 1) || what(NQ / 2) || what((NQ - 1) / 2))
#define ANY_CHANGE (ANY(CHANGED) || SESSION_CHANGED(0) || SESSION_CHANGED(S - 1))
#define WAITS_FOR_TXN(q) (KIND(q) == TRANS && r[q].ph == R_TAKEN)
#define RUNS_NOW(q) (r[q].runs || (r[q].ph == R_STARTED && r[q].held) || r[q].ph == R_STARTING)
#define ANY_RUNNING ANY(RUNS_NOW)
#define ANY_TXN (!stopping && ANY(WAITS_FOR_TXN))
#define IN_TXN(q) (r[q].batch == B_TXN || running == (q) + 1)
#define ONE_IN_TXN                                                                                 \
    (IN_TXN(0) + (NQ > 1 -> IN_TXN(NQ - 1) : 0) + (NQ > 2 -> IN_TXN(1) : 0) +                      \
         (NQ > 3 -> IN_TXN(2) : 0) ==                                                              \
     1)

inline pull_all()
{
    k_pull(0);
    if
    :: S > 1 -> k_pull(S - 1)
    :: else
    fi
}

/* How a transaction ends. */
#define STORED 1
#define REFUSED 2
#define CONVICTED 3 /* refused, and its one call will not be tried again */
#define LIMBO 4     /* unknown: it was stored, ... */
#define LIMBO_NOT 5 /* ... or it was not */

#define UNDER_WAY (doing == CHANGES || doing == TXN)
#define MAY_BE_STORED                                                                              \
    (doing == CHANGES || doing == SECOND || (doing == TXN && running == 0 && (ran || !ANY_TXN)))
#define MAY_BE_REFUSED (UNDER_WAY && left.nots > 0)
#define MAY_BE_UNKNOWN (UNDER_WAY && left.unknowns > 0 && running == 0)
/* The store is of no more use, or the server was stopped and has nothing left to do. */
#define HAS_ENDED                                                                                  \
    (doing == BROKEN || (stopping && doing == IDLE && !ANY_CHANGE && !ANY_RUNNING))

inline end_transaction(how)
{
    if
    :: how >= LIMBO -> EVENT(E_UNKNOWN, 0, 0)
    :: else
    fi;
    if
    :: how == STORED || how == LIMBO -> k_apply(how == STORED)
    :: else -> key_seen = key; running = 0
    fi;
    if
    :: how == STORED && !G_TXN_ATOMIC && doing == TXN -> doing = SECOND
    :: (how == STORED && !(!G_TXN_ATOMIC && doing == TXN)) || (how == REFUSED && !G_COMMITTED) ||
            (how == LIMBO_NOT && !G_UNKNOWN_IS) ->
        k_tell()
    :: (how == LIMBO && G_UNKNOWN_NOT) || (how == LIMBO_NOT && G_UNKNOWN_IS) -> doing = BROKEN
    :: else -> k_lose(how == CONVICTED)
    fi;
    how = 0
}

proctype Server()
{
    byte how;

end:
    do
    :: atomic { ALIVE && STORE && doing == IDLE && (ANY_CHANGE || ANY_TXN) ->
           if
           :: ANY_CHANGE -> how = CHANGES
           :: ANY_TXN -> how = TXN
           fi;
           d_step { pull_all(); doing = how; how = 0 } }
    :: atomic { ALIVE && (MAY_BE_STORED || MAY_BE_REFUSED || MAY_BE_UNKNOWN) ->
           if
           :: MAY_BE_STORED -> how = STORED
           :: MAY_BE_REFUSED -> left.nots = left.nots - 1; how = REFUSED
           :: MAY_BE_REFUSED && doing == TXN && ONE_IN_TXN ->
               left.nots = left.nots - 1;
               how = CONVICTED
           :: MAY_BE_UNKNOWN -> left.unknowns = left.unknowns - 1; how = LIMBO
           :: MAY_BE_UNKNOWN -> left.unknowns = left.unknowns - 1; how = LIMBO_NOT
           fi;
           d_step { end_transaction(how) } }
    :: d_step { ALIVE && left.stops > 0 ->
           left.stops = left.stops - 1;
           stopping = 1;
           EVENT(E_STOP, 0, 0);
           for (i : 0 .. NQ - 1) {
               if
               :: r[i].ph == R_RUNNING -> r_cut(i)
               :: else
               fi
           };
           skip }
    :: atomic { ALIVE && (HAS_ENDED || left.crashes > 0) ->
           if
           :: HAS_ENDED -> skip
           :: left.crashes > 0 -> left.crashes = left.crashes - 1; how = DIES
           :: left.crashes > 0 && ANY_UNREAD ->
               left.crashes = left.crashes - 1;
               how = DIES_SILENT
           :: left.crashes > 0 && running > 0 ->
               left.crashes = left.crashes - 1;
               how = DIES_POWERLESS
           fi;
           d_step { w_restart(how); how = 0 } }
    od
}

/* --- all is well that ends well --------------------------------------------------------------- */

#define IS_OVER(q) (c[q].ph == C_DONE && r[q].ph == R_NONE && d[q].st == NONE)
#define IS_QUIET(s)                                                                                \
    (l[s].st == FAILED || l[s].st == OFF || (l[s].st == UP && m[s].ps == P_UP))

/* Nothing more can happen: then every call has its verdict, and everything is forgotten. In a trace
 * more may go wrong than is shown: there it is the trace that says when. */
#ifdef TRACE
#define AT_THE_END ALIVE
#else
#define AT_THE_END timeout
#endif

proctype Quiet()
{
end:
    AT_THE_END ->
    d_step {
        for (i : 0 .. NQ - 1) {
            MUST(M_ANSWERED, l[S_OF(i)].st == OFF || X_OF(i) > CALLS ||
                                 (c[i].ph == C_DONE && (c[i].out != NONE || IS_RESUBMIT)));
            if
            :: l[S_OF(i)].st == UP -> MUST(M_CLEAN, r[i].ph == R_NONE && d[i].st == NONE)
            :: else -> MUST(M_CLEAN, !r[i].held && !r[i].todo && r[i].ph != R_DROPPED)
            fi
        }
        for (i : 0 .. S - 1) {
            MUST(M_ANSWERED, IS_QUIET(i))
        }
        MUST(M_CLEAN, doing == IDLE && key != K_STARTED);
        EVENT(E_QUIET, 0, 0);
        MUST(M_NEVER, !show_end)
    }
}

#ifdef TRACE
proctype Watch()
{
end:
    c_expr { TRACE_WATCH }
}
#endif

init
{
    byte k;

    d_step {
        BEGIN;
        SET_LEFT;
        SET_REST;
        for (i : 0 .. NQ - 1) {
            c[i].ph = (X_OF(i) > CALLS -> C_DONE : C_NEW)
        }
        for (i : 0 .. S - 1) {
            l[i].next = 1
        }
        if
        :: IS_RESUBMIT -> l[S - 1].st = OFF
        :: else
        fi
    }
    atomic {
        for (k : 0 .. NQ - 1) {
            run OneCall(k)
        }
        for (k : 0 .. NZ - 1) {
            run OneConn(k)
        }
        for (k : 0 .. S - 1) {
            run OneSession(k)
        }
        run Server();
#ifdef TRACE
        run Watch();
#endif
        run Quiet();
        k = 0
    }
}
