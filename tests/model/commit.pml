/* SPDX-License-Identifier: MIT */
/* commit.pml - src/rpc/commit.c, commit_txn.c, restore.c over src/session/callee_store.c: what is
 * stored, in which transaction, what is told of it, and what a server finds that starts again. */

#define CHANGED(q) (r[q].todo || (r[q].ph == R_DROPPED && r[q].batch == B_NONE))
#define SESSION_CHANGED(s) (m[s].going || (m[s].known && m[s].conn != m[s].conn_stored))

/* Is this call to be stored with base, though it has no record? (sml_callee_stragglers) */
#define COMES_WITH_BASE(q)                                                                         \
    (r[q].batch != B_NONE && !(IS_KEYED && G_STRAGGLER_KEYED && r[q].batch == B_START))

/* sml_commit_collect: from now on it is under way. */
inline k_pull(s)
{
    v = 0; /* records are forgotten */
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        if
        :: r[i].todo && r[i].ph == R_STARTING -> r[i].batch = B_START
        :: r[i].todo && r[i].ph == R_UNSTARTING -> r[i].batch = B_AGAIN
        :: r[i].todo && r[i].ph == R_STORING && !r[i].gone -> r[i].batch = B_END
        :: r[i].todo && r[i].ph == R_STORING && r[i].gone -> r[i].batch = B_LEAVE
        :: r[i].ph == R_DROPPED && r[i].batch == B_NONE -> r[i].batch = B_FORGET
        :: else
        fi;
        r[i].todo = 0;
        if
        :: r[i].batch == B_LEAVE || r[i].batch == B_FORGET ->
            v = 1;
            m[s].pending = (X_OF(i) > m[s].pending && G_BASE_RISES -> X_OF(i) : m[s].pending)
        :: else
        fi
    }
    part[s].change = SAME;
    if
    :: m[s].going && G_DELETE_FIRST -> part[s].change = DELETE
    :: m[s].known && (m[s].conn != m[s].conn_stored || (v && G_BASE_ATOMIC)) ->
        part[s].change = PUT;
        part[s].conn = m[s].conn;
        part[s].base = m[s].pending;
        for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
            if
            :: IN_TABLE(i) && X_OF(i) <= m[s].pending && !r[i].row && !COMES_WITH_BASE(i) &&
                    G_STRAGGLERS ->
                part[s].stragglers = part[s].stragglers | BIT(X_OF(i))
            :: else
            fi
        }
    :: else
    fi
}

/* What is not known is not said. */
#define K_EVENT(said, what, x, y)                                                                 \
    if                                                                                             \
    :: said -> EVENT(what, x, y)                                                                   \
    :: else                                                                                        \
    fi

/* --- writing ---------------------------------------------------------------------------------- */

/* What the open transaction does to the key of q. */
inline k_key_start(q)
{
    key_seen = K_STARTED;
    key_call = q
}

inline k_key_end(q)
{
    if
    :: !IS_KEYED || r[q].answered -> skip
    :: IS_KEYED && !r[q].answered && r[q].ver == NOTEX && G_KEY_FREED ->
        /* It may be another call's by now. */
        if
        :: (key_seen == K_STARTED && key_call == q) || !G_KEY_OWN -> key_seen = K_FREE; key_call = 0
        :: else
        fi
    :: IS_KEYED && !r[q].answered && !(r[q].ver == NOTEX && G_KEY_FREED) ->
        key_seen = r[q].ver;
        key_call = 0
    :: else
    fi
}

inline k_ended(q)
{
    MUST(M_UNCHANGED, d[q].st == NONE || d[q].st >= D_STARTED || d[q].st == r[q].ver);
    d[q].st = r[q].ver
}

/* The changes, in the store; whether that is known. */
inline k_apply(said)
{
    for (i : 0 .. S - 1) {
        if
        :: part[i].change == PUT ->
            ds[i].known = 1;
            ds[i].conn = part[i].conn;
            ds[i].base = part[i].base;
            ds[i].stragglers = part[i].stragglers;
            K_EVENT(said, E_PUT, ds[i].conn, ds[i].base | (ds[i].stragglers << 4))
        :: part[i].change == DELETE ->
            ds[i].known = 0;
            ds[i].conn = 0;
            ds[i].base = 0;
            ds[i].stragglers = 0;
            K_EVENT(said, E_DELETE, 0, 0)
        :: else
        fi
    }
    for (i : 0 .. NQ - 1) {
        if
        :: r[i].batch == B_START ->
            if
            :: !IS_KEYED || !G_KEY_ASKED || key_seen == K_FREE ||
                    (key_seen == K_STARTED && ((key_call == i && G_KEY_SAME) || !G_KEY_STARTED)) ->
                d[i].st = D_STARTED;
                g[i].started = 1;
                K_EVENT(said, E_START, X_OF(i), 0);
                if
                :: IS_KEYED -> k_key_start(i)
                :: else
                fi
            :: else ->
                r[i].batch = (key_seen == K_STARTED -> B_HELDBACK : B_ANSWERED);
                r[i].ver = (key_seen == K_STARTED -> NONE : key_seen);
                MUST(M_KEY, r[i].ver != NOTEX)
            fi
        :: r[i].batch == B_AGAIN ->
            d[i].st = D_AGAIN;
            K_EVENT(said, E_AGAIN, X_OF(i), 0)
        :: r[i].batch == B_END ->
            k_key_end(i);
            k_ended(i);
            K_EVENT(said, E_ENDED, X_OF(i), r[i].ver)
        :: r[i].batch == B_LEAVE ->
            k_key_end(i);
            d[i].st = NONE;
            d[i].deaths = 0;
            K_EVENT(said, E_FORGET, X_OF(i), 0)
        :: r[i].batch == B_FORGET ->
            K_EVENT(said, E_FORGET, X_OF(i), 0);
            MUST(M_FORGOTTEN, g[i].released || !m[S_OF(i)].known);
            d[i].st = NONE;
            d[i].deaths = 0;
            if
            :: IS_KEYED && key_seen == K_STARTED && key_call == i && G_KEY_FORGOTTEN ->
                key_seen = K_FREE;
                key_call = 0
            :: else
            fi
        :: r[i].batch == B_TXN ->
            if
            :: r[i].did && !r[i].answered && doing != SECOND -> x_effect(i, said)
            :: else
            fi;
            if
            :: G_TXN_ATOMIC || doing == SECOND ->
                k_ended(i);
                K_EVENT(said, E_ENDED, X_OF(i), r[i].ver)
            :: else
            fi
        :: else
        fi
    }
    key = key_seen;
    k_check()
}

/* Would a crash now be survived? */
inline k_check()
{
    for (i : 0 .. NQ - 1) {
        v = (X_OF(i) > ds[S_OF(i)].base || (ds[S_OF(i)].stragglers & BIT(X_OF(i))));
        if
        :: ds[S_OF(i)].known && d[i].st == NONE && l[S_OF(i)].st != FAILED ->
            /* What had its effect, and what was released, would not be run again. */
            CARE(M_CRASH_DONE, !v || MAY_REPEAT(i) || g[i].effects == 0 || doing == SECOND);
            /* What its client waits for is expected. */
            CARE(M_CRASH_OPEN, v || !OUTSTANDING(i) || g[i].released || !m[S_OF(i)].known)
        :: else
        fi
    };
    skip
}

/* --- telling ---------------------------------------------------------------------------------- */

inline k_started(q)
{
    r[q].ph = R_STARTED;
    r[q].row = 1;
    if
    :: r[q].doomed && !r[q].gone -> r[q].doomed = 0; r_end_unstarted(q)
    :: else -> r[q].doomed = 0
    fi
}

/* sml_callee_answer */
inline k_answered(q)
{
    r[q].answered = 1;
    r[q].doomed = 0;
    r[q].held = 0;
    if
    :: r[q].gone -> r_bury(q)
    :: else -> r[q].ph = R_STORING; r[q].todo = 1
    fi
}

/* sml_callee_postpone */
inline k_held_back(q)
{
    r[q].held = 0;
    if
    :: r[q].gone -> r_bury(q)
    :: !r[q].gone && r[q].doomed -> r[q].doomed = 0; r_settle(q, NOTEX)
    :: else -> r_refuse(q)
    fi
}

/* ended() */
inline k_told(q)
{
    if
    :: r[q].gone && !r[q].held -> r_bury(q)
    :: !r[q].gone -> r_tell(q)
    :: else
    fi
}

inline k_told_session(s)
{
    if
    :: part[s].change == PUT ->
        m[s].base = part[s].base;
        m[s].dhi = (m[s].base > m[s].dhi -> m[s].base : m[s].dhi);
        m[s].row = 1;
        if
        :: m[s].known -> m[s].conn_stored = part[s].conn
        :: else -> m[s].going = 1
        fi;
        if
        :: m[s].att != 0 && (m[s].conn == part[s].conn || !G_HELD_NEWEST) -> m[s].held = 0
        :: else
        fi
    :: part[s].change == DELETE -> m[s].row = 0; m[s].going = 0
    :: else
    fi
}

inline k_clear_parts()
{
    for (i : 0 .. S - 1) {
        part[i].change = SAME;
        part[i].conn = 0;
        part[i].base = 0;
        part[i].stragglers = 0
    };
    skip
}

/* The transaction is durable. */
inline k_tell()
{
    for (j : 0 .. NQ - 1) {
        w = r[j].batch;
        r[j].batch = B_NONE;
        if
        :: w != B_NONE && w < B_ANSWERED && X_OF(j) > m[S_OF(j)].dhi -> m[S_OF(j)].dhi = X_OF(j)
        :: else
        fi;
        if
        :: r[j].ph == R_NONE -> skip
        :: w == B_START -> k_started(j)
        :: w == B_ANSWERED -> k_answered(j)
        :: w == B_HELDBACK -> k_held_back(j)
        :: w == B_AGAIN ->
            if
            :: r[j].gone -> r_bury(j)
            :: else
            fi
        :: w == B_END || w == B_TXN -> r[j].row = 1; k_told(j)
        :: w == B_LEAVE -> r[j].row = 0; k_told(j)
        :: w == B_FORGET -> r_free(j)
        :: else
        fi
    }
    for (j : 0 .. S - 1) {
        k_told_session(j)
    }
    k_clear_parts();
    doing = IDLE;
    ran = 0;
    EVENT(E_STORED, 0, 0)
}

/* It is not, and never will be. What is STORING by a transactional handler runs again, unless it is
 * the one call of a transaction that is lost every time (convict()). */
inline k_lose(convicts)
{
    for (j : 0 .. NQ - 1) {
        w = r[j].batch;
        r[j].batch = B_NONE;
        if
        :: w == B_TXN || (doing == TXN && r[j].ph == R_RUNNING && KIND(j) == TRANS) ->
            b = r[j].answered;
            r[j].ver = NONE;
            r[j].runs = 0;
            r[j].cut = 0;
            r[j].did = 0;
            r[j].answered = 0;
            r[j].proven = 0;
            r[j].held = 1;
            r[j].ph = R_TAKEN;
            if
            :: r[j].gone && G_BEGIN_WANTED -> r_bury(j)
            :: !(r[j].gone && G_BEGIN_WANTED) && convicts ->
                r[j].proven = (IS_KEYED && !(b && G_PROVEN_UNDONE));
                r[j].held = 0;
                r_settle(j, NOTEX)
            :: else
            fi
        :: w == B_ANSWERED || w == B_HELDBACK -> r[j].ver = NONE; r[j].todo = 1
        :: r[j].ph != R_NONE && (w == B_START || w == B_AGAIN || w == B_END || w == B_LEAVE) ->
            r[j].todo = 1
        :: else
        fi
    }
    for (j : 0 .. S - 1) {
        m[j].pending = m[j].base
    }
    k_clear_parts();
    key_seen = key;
    running = 0;
    ran = 0;
    doing = IDLE;
    EVENT(E_NOT_STORED, 0, 0)
}

/* --- transactional handlers ------------------------------------------------------------------- */

inline x_decide(q, verdict)
{
    EVENT(E_FINISH, X_OF(q), verdict);
    r[q].ver = verdict;
    r[q].ph = R_STORING;
    r[q].batch = B_TXN;
    r[q].held = 0;
    r[q].runs = 0;
    r[q].cut = 0;
    running = 0;
    k_key_end(q)
}

inline x_begin(q)
{
    MUST(M_DEADLY, g[q].killed < deaths_max);
    r_begin(q);
    ran = 1;
    running = q + 1;
    if
    :: IS_KEYED && G_KEY_ASKED && key_seen != K_FREE ->
        MUST(M_KEY, key_seen != NOTEX);
        r[q].answered = 1;
        x_decide(q, key_seen)
    :: else
    fi
}

/* The server stops, and it was interrupted: the next one begins it again. */
inline x_give_back(q)
{
    running = 0;
    r[q].ph = R_TAKEN;
    r[q].runs = 0;
    r[q].did = 0;
    r[q].cut = 0;
    if
    :: r[q].gone -> r_bury(q)
    :: else
    fi
}

/* It is cancelled, too late, or its handler said nothing: what it did is undone. */
inline x_undone(q)
{
    running = 0;
    r[q].proven = IS_KEYED;
    if
    :: !G_UNDO -> x_effect(q, 1)
    :: else
    fi;
    r_finish(q, NOTEX)
}

/* --- the server ends and begins --------------------------------------------------------------- */

inline w_forget_memory(how)
{
    for (j : 0 .. NZ - 1) {
        if
        :: z[j].st == Z_ATTACHED ->
            s_close(j);
            if
            :: how >= DIES_SILENT -> flush(dn[j])
            :: else
            fi
        :: else
        fi
    }
    for (j : 0 .. NQ - 1) {
        if
        :: running == j + 1 && g[j].killed < 3 && how != DIES_POWERLESS ->
            g[j].killed = g[j].killed + 1
        :: else
        fi;
        /* The page beside the store names the transactional call that ran. */
        if
        :: STORE && running == j + 1 && r[j].ph == R_RUNNING && how != DIES_POWERLESS &&
                G_SUSPECT && (d[j].st == NONE || d[j].st == D_AGAIN) && ds[S_OF(j)].known ->
            d[j].deaths = d[j].deaths + 1;
            d[j].st = (d[j].deaths >= deaths_max -> NOTEX : D_AGAIN)
        :: else
        fi;
        r_free(j)
    }
    for (j : 0 .. S - 1) {
        m[j].known = 0;
        m[j].conn = 0;
        m[j].conn_stored = 0;
        m[j].hi = 0;
        m[j].base = 0;
        m[j].pending = 0;
        m[j].dhi = 0;
        m[j].restored = 0;
        m[j].row = 0;
        m[j].going = 0
    }
    k_clear_parts();
    doing = IDLE;
    running = 0;
    ran = 0;
    stopping = 0;
    key_seen = key;
    server_id = server_id + 1
}

inline w_restore_call(q)
{
    if
    :: d[q].st == D_STARTED && (KIND(q) == RERUN || !G_ONCE_UNKNOWN) ->
        r[q].ph = R_EXPECTED;
        r[q].may_have = (KIND(q) == RERUN && G_BEGUN)
    :: d[q].st == D_STARTED && !(KIND(q) == RERUN || !G_ONCE_UNKNOWN) ->
        r[q].ver = UNKNOWN;
        r[q].ph = R_STORING;
        r[q].todo = 1
    :: d[q].st == D_AGAIN -> r[q].ph = R_EXPECTED
    :: else -> r[q].ver = d[q].st; r[q].ph = R_DONE
    fi;
    r[q].row = 1;
    m[S_OF(q)].hi = (X_OF(q) > m[S_OF(q)].hi -> X_OF(q) : m[S_OF(q)].hi);
    m[S_OF(q)].dhi = (G_DHI_RESTORED -> m[S_OF(q)].hi : 0)
}

inline w_restore()
{
    for (j : 0 .. S - 1) {
        if
        :: ds[j].known ->
            m[j].known = 1;
            m[j].row = 1;
            m[j].restored = 1;
            m[j].conn = (G_CONN_STORED -> ds[j].conn : 0);
            m[j].conn_stored = m[j].conn;
            m[j].base = ds[j].base;
            m[j].pending = ds[j].base;
            m[j].hi = ds[j].base;
            m[j].dhi = (G_DHI_RESTORED -> ds[j].base : 0)
        :: else
        fi
    }
    for (j : 0 .. NQ - 1) {
        if
        :: !ds[S_OF(j)].known -> d[j].st = NONE; d[j].deaths = 0
        :: ds[S_OF(j)].known && d[j].st != NONE -> w_restore_call(j)
        :: ds[S_OF(j)].known && d[j].st == NONE && (ds[S_OF(j)].stragglers & BIT(X_OF(j))) ->
            r[j].ph = R_EXPECTED;
            r[j].doubt = G_IN_DOUBT_OPEN
        :: else
        fi;
        /* T: the effect is committed if and only if the verdict is, until it is released. */
        MUST(M_ATOMIC, KIND(j) != TRANS || !STORE || g[j].released || !ds[S_OF(j)].known ||
             IS_KEYED || (g[j].effects == 1) == (d[j].st == VALUE))
    }
    /* A key whose call is gone. */
    if
    :: IS_KEYED && key == K_STARTED && !IN_TABLE(key_call) && G_KEY_GONE ->
        key = (KIND(key_call) == RERUN -> K_FREE : UNKNOWN);
        key_call = 0
    :: else
    fi;
    key_seen = key
}

inline w_restart(how)
{
    if
    :: how -> EVENT(E_CRASH, 0, 0)
    :: else
    fi;
    w_forget_memory(how);
    w_restore();
    EVENT(E_RESTORE, 0, 0)
}
