/* SPDX-License-Identifier: MIT */
/* callee.pml - src/session/host.c, peer.c, callee.c, callee_wire.c: a server's sessions, calls. */

#define IN_TABLE(q) (r[q].ph != R_NONE && r[q].ph != R_DROPPED && !r[q].gone)
#define ATTACHED_UP(s) (m[s].att != 0 && m[s].ps >= P_WAITING)
#define S_ROOM(y, k) (!ON(y) || len(dn[y]) + (k) <= N)
inline s_write(y, type, byte_)
{
    if
    :: ON(y) -> dn[y]!type, byte_
    :: else
    fi
}

/* --- records ---------------------------------------------------------------------------------- */

inline r_free(q)
{
    r[q].ph = R_NONE;
    r[q].batch = B_NONE;
    r[q].ver = NONE;
    r[q].gone = 0;
    r[q].held = 0;
    r[q].todo = 0;
    r[q].row = 0;
    r[q].doomed = 0;
    r[q].cut = 0;
    r[q].runs = 0;
    r[q].did = 0;
    r[q].send = 0;
    r[q].begun = 0;
    r[q].busy = 0;
    r[q].answered = 0;
    r[q].proven = 0;
    r[q].value = 0;
    r[q].may_have = 0;
    r[q].doubt = 0;
    r[q].waits = 0
}

/* sml_callee_bury */
inline r_bury(q)
{
    keep = (STORE && r[q].row);
    r_free(q);
    r[q].row = keep;
    r[q].ph = (keep -> R_DROPPED : R_NONE)
}

/* sml_callee_mark_cancelled; only transactional handlers listen. */
inline r_cut(q)
{
    r[q].cut = (KIND(q) == TRANS)
}

/* sml_callee_release. A call that waits in a queue is let go at once: nobody will begin it. */
inline r_release(q)
{
    g[q].released = 1;
    if
    :: r[q].ph == R_TAKEN && G_BEGIN_WANTED -> r_bury(q)
    :: r[q].ph != R_TAKEN && (!r[q].held || !G_BATCH_HOLDS) &&
            (r[q].batch == B_NONE || !G_BATCH_HOLDS) &&
            !(r[q].todo && r[q].ph == R_STORING && IS_KEYED && G_LEAVE_STORED) ->
        w = (G_BATCH_HOLDS -> B_NONE : r[q].batch);
        r_bury(q);
        r[q].batch = w
    :: else ->
        r[q].gone = 1;
        /* Who starts is waited for; and whoever comes with the key will ask for the verdict. */
        r[q].todo = (r[q].todo && (r[q].ph == R_STARTING || (r[q].ph == R_STORING && IS_KEYED)));
        r[q].send = 0;
        r[q].begun = 0;
        r[q].busy = 0;
        if
        :: r[q].held && !IS_KEYED -> r_cut(q)
        :: else
        fi
    fi
}

inline r_tell(q)
{
    r[q].ph = R_DONE;
    r[q].send = ATTACHED_UP(S_OF(q));
    r[q].begun = 0
}

/* sml_callee_settle */
inline r_settle(q, verdict)
{
    r[q].ver = (verdict == NOTEX && (r[q].may_have || r[q].doubt) -> UNKNOWN : verdict);
    r[q].proven = (r[q].proven && !r[q].may_have && !r[q].doubt);
    MUST(M_PROVEN, !r[q].proven || ALL_EFFECTS == 0);
    r[q].busy = 0;
    r[q].cut = 0;
    if
    :: STORE && r[q].row && (G_CANCEL_STORED || verdict != NOTEX) ->
        r[q].ph = R_STORING;
        r[q].todo = 1
    :: else -> r_tell(q)
    fi;
    if
    :: r[q].ph == R_STORING && !G_END_FIRST && !r[q].gone && ATTACHED_UP(S_OF(q)) -> r[q].send = 1
    :: else
    fi
}

/* sml_callee_let_go */
inline r_let_go(q)
{
    r[q].held = 0;
    if
    :: r[q].gone && r[q].batch == B_NONE && !r[q].todo -> r_bury(q)
    :: else
    fi
}

/* sml_callee_end_unstarted */
inline r_end_unstarted(q)
{
    if
    :: r[q].ph == R_STARTING && G_DOOMED -> r[q].doomed = 1
    :: else ->
        r[q].proven = (r[q].ph == R_STARTED && IS_KEYED);
        if
        :: r[q].ph == R_TAKEN -> r[q].held = 0
        :: else
        fi;
        r_settle(q, NOTEX)
    fi
}

/* sml_callee_finish: the handler has returned. */
inline r_finish(q, verdict)
{
    EVENT(E_FINISH, X_OF(q), verdict);
    r[q].runs = 0;
    r[q].did = 0;
    if
    :: r[q].gone && r[q].ph == R_RUNNING && IS_KEYED && r[q].row && G_KEEP_KEYED ->
        r[q].held = 0;
        r_settle(q, verdict)
    :: !r[q].gone && (r[q].ph == R_RUNNING || (!G_FIRST_VERDICT && r[q].ph == R_DONE)) ->
        r[q].held = 0;
        r_settle(q, verdict)
    :: else -> r_let_go(q)
    fi
}

/* --- connections ------------------------------------------------------------------------------ */

/* sml_callee_down */
inline s_down(s)
{
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        r[i].send = 0;
        r[i].begun = 0;
        r[i].busy = 0
    }
    m[s].ps = 0;
    m[s].held = 0;
    m[s].resumed = 0;
    m[s].next = 0;
    m[s].count = 0;
    m[s].states = 0
}

/* The server's end of a connection is no more. */
inline s_close(y)
{
    flush(up[y]);
    if
    :: z[y].st == Z_ATTACHED && m[(y) / P].att == (y) + 1 -> m[(y) / P].att = 0; s_down((y) / P)
    :: else
    fi;
    if
    :: ON(y) -> z[y].st = Z_CLOSED
    :: else -> z[y].st = Z_NONE
    fi
}

inline s_bye(y, why)
{
    EVENT(E_BYE, why, 0);
    if
    :: S_ROOM(y, 1) -> s_write(y, BYE, why)
    :: else
    fi;
    s_close(y)
}

/* Once the frame is worked through. */
inline s_protocol()
{
    why = PROTOCOL
}

/* sml_host_end; for one that the store knows, its record is to be deleted. */
inline s_end(s)
{
    for (j : Q_OF(s, 1) .. Q_OF(s, K)) {
        v = g[j].released;
        if
        :: IN_TABLE(j) -> r_release(j)
        :: else
        fi;
        g[j].released = v
    }
    if
    :: m[s].att != 0 -> w = m[s].att - 1; s_close(w)
    :: else
    fi;
    m[s].known = 0;
    m[s].going = m[s].row;
    m[s].conn = 0;
    m[s].conn_stored = 0;
    m[s].restored = 0
}

/* --- HELLO (sml_host_hello, sml_callee_resume) ------------------------------------------------ */

#define KNOWN_TO(s) (m[s].restored && G_KNOWN_TO -> m[s].base : m[s].hi)

/* Where a listed call stands. */
#define STANDS(q)                                                                                  \
    (r[q].ph == R_EXPECTED || (!G_STANDS && r[q].ph != R_DONE && r[q].ph != R_REFUSED)             \
         -> ((r[q].may_have && G_BEGUN_SAID) || r[q].doubt -> AT_IN_DOUBT : AT_EXPECTED)           \
         : (r[q].ph == R_DONE -> AT_DONE : (r[q].ph == R_REFUSED -> AT_REFUSED : AT_RUNNING)))

/* The list a, with the begun replies b, is complete. */
inline s_resume(s)
{
    if
    :: a != 0 -> EVENT(E_GOT_LIST, a, 0)
    :: else
    fi;
    v = 0; /* broken rules */
    if
    :: m[s].next <= m[s].hi && G_NEXT_HI -> v = 1
    :: else
    fi;
    for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
        if
        :: (a & BIT(X_OF(i))) && !IN_TABLE(i) && X_OF(i) <= KNOWN_TO(s) && G_LISTED_RELEASED ->
            v = 1
        :: (b & BIT(X_OF(i))) && !(IN_TABLE(i) && r[i].ph == R_DONE) && !m[s].restored -> v = 1
        :: else
        fi
    }
    if
    :: v -> s_protocol()
    :: else ->
        m[s].hi = (G_HI_NEXT || m[s].hi > m[s].next - 1 -> m[s].next - 1 : m[s].hi);
        m[s].states = 0;
        for (j : Q_OF(s, 1) .. Q_OF(s, K)) {
            r[j].send = 0;
            r[j].begun = 0;
            r[j].busy = 0;
            if
            :: (a & BIT(X_OF(j))) ->
                if
                :: !IN_TABLE(j) ->
                    r_free(j);
                    r[j].ph = R_EXPECTED;
                    r[j].doubt = (m[s].restored && G_IN_DOUBT)
                :: else
                fi;
                m[s].states = m[s].states + STANDS(j) * PLACE(j);
                r[j].send = (r[j].ph == R_DONE && G_RESEND_DONE);
                r[j].begun = ((b & BIT(X_OF(j))) && r[j].ph == R_DONE)
            :: !(a & BIT(X_OF(j))) && IN_TABLE(j) && G_UNLISTED -> r_release(j)
            :: else
            fi
        }
        m[s].restored = 0;
        m[s].next = 0;
        m[s].count = a;
        m[s].ps = P_WAITING
    fi
}

inline s_attach(s, y)
{
    if
    :: m[s].att != 0 && G_CURRENT -> w = m[s].att - 1; s_bye(w, OVERTAKEN)
    :: else
    fi;
    s_down(s);
    CARE(M_NEWEST, (a & 15) > welcomed[s]);
    m[s].att = y + 1;
    m[s].conn = a & 15;
    m[s].held = (STORE && G_HELD_WELCOME);
    m[s].resumed = (t == RESUME);
    m[s].next = ((a >> 4) & 3) + 1;
    z[y].st = Z_ATTACHED;
    EVENT(E_GOT_HELLO, a & 15, 0);
    if
    :: a & 128 -> m[s].ps = P_LISTING; t = NONE
    :: else -> a = 0; b = 0
    fi
}

inline s_hello(s, y)
{
    if
    :: t != CREATE && t != RESUME -> s_protocol()
    :: !m[s].known && t == RESUME && G_RESUME_ONLY -> why = LOST
    :: m[s].known && (a & 15) <= m[s].conn && G_CONN_NO -> why = OVERTAKEN
    :: else ->
        if
        :: !m[s].known ->
            m[s].known = 1;
            m[s].hi = 0;
            m[s].base = 0;
            m[s].pending = 0;
            m[s].dhi = 0;
            m[s].restored = 0;
            m[s].conn = 0;
            m[s].conn_stored = 0;
            welcomed[s] = 0
        :: else
        fi;
        s_attach(s, y)
    fi
}

/* --- frames of calls (sml_callee_frame) ------------------------------------------------------- */

inline r_receive(q)
{
    v = (r[q].row && G_ROW_KEPT);
    w = r[q].may_have;
    b = (r[q].doubt && (KIND(q) == IDEM || !G_KEEPS_RECORDS) && G_IN_DOUBT_KEPT);
    keep = r[q].waits;
    r_free(q);
    r[q].row = v;
    r[q].may_have = w;
    r[q].doubt = b;
    r[q].ph = R_TAKEN;
    if
    :: keep -> r_settle(q, NOTEX)
    :: else -> r[q].held = 1
    fi
}

inline s_call(s)
{
    n = Q_OF(s, a & 7);
    EVENT(E_GOT_CALL, X_OF(n), 0);
    if
    :: (a & 7) == m[s].hi + 1 ->
        v = 0;
        for (i : Q_OF(s, 1) .. Q_OF(s, K)) {
            v = v + IN_TABLE(i)
        }
        if
        :: v >= W -> s_protocol()
        :: else -> m[s].hi = a & 7; r_receive(n)
        fi
    :: (a & 7) > m[s].hi + 1 -> s_protocol()
    :: (a & 7) <= m[s].hi ->
        if
        :: !IN_TABLE(n) && !G_DEDUP && r[n].ph == R_NONE -> r_receive(n)
        :: IN_TABLE(n) && (r[n].ph == R_EXPECTED || r[n].ph == R_REFUSED) -> r_receive(n)
        :: IN_TABLE(n) && !G_ATTACH && r[n].ph == R_DONE -> r_receive(n)
        :: IN_TABLE(n) && G_ATTACH && r[n].ph == R_DONE && !r[n].send ->
            r[n].send = 1;
            r[n].begun = 0
        :: else
        fi
    fi
}

inline s_ack(s)
{
    EVENT(E_GOT_ACK, a, 0);
    if
    :: a >= BIT(m[s].hi + 1) -> s_protocol()
    :: else ->
        for (j : Q_OF(s, 1) .. Q_OF(s, K)) {
            if
            :: (a & BIT(X_OF(j))) && IN_TABLE(j) -> r_release(j)
            :: else
            fi
        }
    fi
}

inline s_cancel(s)
{
    n = Q_OF(s, a);
    EVENT(E_GOT_CANCEL, a, 0);
    if
    :: a > m[s].hi -> s_protocol()
    :: a <= m[s].hi && IN_TABLE(n) && r[n].ph == R_RUNNING -> r_cut(n)
    :: a <= m[s].hi && IN_TABLE(n) && r[n].ph == R_EXPECTED && r[n].doubt && G_CANCEL_WAITS ->
        r[n].waits = 1
    :: a <= m[s].hi && IN_TABLE(n) && r[n].ph < R_RUNNING && r[n].ph != R_UNSTARTING &&
            !(r[n].ph == R_EXPECTED && r[n].doubt && G_CANCEL_WAITS) ->
        r_end_unstarted(n)
    :: a <= m[s].hi && IN_TABLE(n) && r[n].ph == R_REFUSED -> r_end_unstarted(n)
    :: else
    fi
}

/* The frame t, a has come over connection y. */
inline s_take(s, y)
{
    why = 0;
    n = z[y].st;
    MUST(M_CURRENT, n == Z_NEW || m[s].att == y + 1);
    if
    :: n == Z_NEW -> s_hello(s, y)
    :: n != Z_NEW && t == LIST && m[s].ps == P_LISTING -> b = a >> 3; a = a & 7
    :: n != Z_NEW && t == END -> EVENT(E_GOT_END, 0, 0); s_end(s)
    :: n != Z_NEW && t >= CALL && t <= CANCEL && m[s].ps == P_UP ->
        if
        :: t == CALL -> s_call(s)
        :: t == ACK -> s_ack(s)
        :: t == CANCEL -> s_cancel(s)
        fi
    :: else -> s_protocol()
    fi;
    /* A list is complete, if it is an empty one. */
    if
    :: !why && (t == LIST || t == CREATE || t == RESUME) -> s_resume(s)
    :: else
    fi;
    if
    :: why -> CARE(M_RULES, why != PROTOCOL); s_bye(y, why)
    :: else
    fi
}

/* --- what goes out ---------------------------------------------------------------------------- */

inline s_welcome(s, y)
{
    welcomed[s] = m[s].conn;
    MUST(M_WELCOME, !STORE || (ds[s].known && ds[s].conn >= m[s].conn));
    s_write(y, WELCOME, m[s].dhi | (m[s].resumed << 2) | (m[s].count != 0 -> 8 : 0) |
                            (server_id << 4));
    EVENT(E_WELCOME, m[s].conn, 0);
    if
    :: m[s].count != 0 -> s_write(y, STATES, m[s].states)
    :: else
    fi;
    m[s].ps = P_UP;
    m[s].resumed = 0;
    m[s].count = 0;
    m[s].states = 0
}

/* A reply, or a part of it, leaves. */
inline s_reply(q)
{
    if
    :: r[q].row -> MUST(M_DURABLE, d[q].st == r[q].ver)
    :: else ->
        MUST(M_DURABLE, !STORE || r[q].ver == NOTEX || MAY_REPEAT(q) || d[q].st == r[q].ver)
    fi;
    b = (IS_PARTS && r[q].ver == VALUE && !r[q].begun);
    s_write(m[S_OF(q)].att - 1, REPLY,
            X_OF(q) | (r[q].ver << 2) | (r[q].row << 4) | (r[q].proven << 5) | (b << 6) |
                (r[q].value << 7));
    EVENT(E_REPLY, X_OF(q), r[q].ver);
    r[q].begun = b;
    r[q].send = b
}

inline s_busy(q)
{
    s_write(m[S_OF(q)].att - 1, BUSY, X_OF(q));
    EVENT(E_BUSY, X_OF(q), 0);
    r[q].busy = 0
}

/* --- the shell -------------------------------------------------------------------------------- */

/* sml_callee_refuse, after TAKEN */
inline r_refuse(q)
{
    r[q].ph = R_REFUSED;
    r[q].held = 0;
    r[q].busy = ATTACHED_UP(S_OF(q));
    EVENT(E_FULL, X_OF(q), 0)
}

/* The handler begins. */
inline r_begin(q)
{
    MUST(M_RELEASED, !g[q].released);
    r[q].ph = R_RUNNING;
    r[q].runs = 1;
    r[q].did = 0;
    r[q].cut = 0;
    EVENT(E_RUN, X_OF(q), 0)
}

/* Its effect, which cannot be taken back. */
inline x_effect(q, said)
{
    r[q].did = 1;
    r[q].value = (IS_PARTS && (g[q].effects & 1));
    MUST(M_ONE_EFFECT, MAY_REPEAT(q) || g[q].effects == 0);
    MUST(M_NOTEX, c[(IS_RESUBMIT -> NQ - 1 : q)].out != NOTEX);
    MUST(M_ONE_EFFECT, !IS_KEYED || MAY_REPEAT(q) || ALL_EFFECTS == 0);
    if
    :: g[q].effects < 3 -> g[q].effects = g[q].effects + 1
    :: else
    fi;
    if
    :: said -> EVENT(E_EFFECT, X_OF(q), 0)
    :: else
    fi
}
