/* SPDX-License-Identifier: MIT */
/* trace.pml - the model made to follow a trace (replay.py): a step that shows events is taken only
 * where they are the next ones of the trace, in any order among themselves; and a law that is
 * broken ends the way, and not the search. */
#define MUST(what, x)                                                                              \
    if                                                                                             \
    :: !(x) -> dead = 1                                                                            \
    :: else                                                                                        \
    fi
#define ALIVE (!dead && seen == 0)
#define EVENT(what, x, y)                                                                          \
    ev_a = x;                                                                                      \
    ev_b = y;                                                                                      \
    c_code { trace_step(&now.at, &now.seen, &now.dead, what, ev_a, ev_b); }
#define CAN_DIE 1
#define CALLS calls
#define BEGIN                                                                                      \
    c_code {                                                                                       \
        trace_load();                                                                              \
        now.calls = trace.calls;                                                                   \
        now.window = trace.window;                                                                 \
        now.store = trace.store;                                                                   \
        memcpy(now.kinds, trace.kinds, sizeof now.kinds);                                          \
    }

/* As often as the trace shows it, or as it says that it hides it. */
#define SET_LEFT                                                                                   \
    c_code {                                                                                       \
        now.left.cuts = trace_count(E_CUT_CLIENT) + trace_count(E_CUT_SERVER);                     \
        now.left.crashes = trace_count(E_CRASH);                                                   \
        now.left.stops = trace_count(E_STOP);                                                      \
        now.left.nots = trace_count(E_NOT_STORED);                                                 \
        now.left.unknowns = trace_count(E_UNKNOWN);                                                \
        now.left.busies = trace_count(E_FULL);                                                     \
        now.left.cancels = trace_count(E_WANT);                                                    \
        now.left.giveups = trace_count(E_GIVE_UP);                                                 \
        now.left.expires = trace_count(E_LATE);                                                    \
        now.left.maxruns = trace_count(E_OUTRUN);                                                  \
        now.left.idles = trace_count(E_IDLE);                                                      \
        now.left.leaves = trace_count(E_LEAVE);                                                    \
        now.left.drops = trace_count(E_FINISH);                                                    \
    }

c_decl {
\#include "trace.h"
};

byte calls, window, store;
byte kinds[3];
short at;  /* events that were matched */
byte seen; /* ... and which of those that follow, in this step */
byte dead;
