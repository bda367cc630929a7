/* SPDX-License-Identifier: MIT */
/* hooks.pml - what is asked of each step, and what is shown of it. */

/* --- what must hold --------------------------------------------------------------------------- */

#define M_ONE_EFFECT 1   /* a call, or a key, has at most one effect */
#define M_VALUE 2        /* who is told a value, its call had its effect */
#define M_NOTEX 3        /* what was not executed, it is said, has no effect, before and after */
#define M_UNKNOWN 4      /* a server says unknown only of what had begun */
#define M_STOPPED 5      /* a server that was stopped leaves nothing unknown */
#define M_RELEASED 6     /* what was released never begins */
#define M_DURABLE 7      /* a verdict leaves only when it is stored */
#define M_UNCHANGED 8    /* a verdict never changes */
#define M_ONE_RUN 9      /* the parts of a reply are of one run */
#define M_ATOMIC 10      /* a transactional effect is there when its verdict is, and only then */
#define M_FORGOTTEN 11   /* only what was released is forgotten */
#define M_CRASH_DONE 12  /* after a crash now, what had its effect would not be run again */
#define M_CRASH_OPEN 13  /* after a crash now, what its client waits for would be known */
#define M_WELCOME 14     /* WELCOME leaves only when its conn_no is stored */
#define M_CURRENT 15     /* only the frames of the newest connection act */
#define M_NEWEST 16      /* a connection that was overtaken never wins */
#define M_ROLLED_BACK 17 /* nobody takes a store that is whole for one that was rolled back */
#define M_RULES 18       /* nobody who keeps to the rules is told that he broke them */
#define M_PROVEN 19      /* proven: no call with this key had an effect */
#define M_KEY 20         /* not executed frees its key */
#define M_DEADLY 21      /* what killed its server too often is not run again */
#define M_ANSWERED 22    /* when nothing more happens, every call has its verdict */
#define M_CLEAN 23       /* when nothing more happens, everything is forgotten */
#define M_NEVER 24       /* nothing comes to an end (SHOW_END) */

#ifndef TRACE
#define CAN_DIE                                                                                    \
    now.left.crashes + now.left.unknowns + now.left.maxruns + now.left.drops > 0
#define MUST(what, x)                                                                              \
    if                                                                                             \
    :: !(x) -> printf("! %d\n", what); assert(false)                                               \
    :: else                                                                                        \
    fi
#define ALIVE (true)
#define BEGIN skip
#define CALLS K
#define SET_BOUND(name, field) now.left.field = setting(#name, 0);
#define SET_LEFT c_code { BOUNDS(SET_BOUND) }
#define EVENT(what, x, y) printf("= %d %d %d\n", what, x, y)
#else
#include "trace.pml"
#endif

/* Not with EFFECTS_ONLY. */
#define CARE(what, x) MUST(what, (x) || !is_strict)

c_decl {
\#include "settings.h"
};
#define SET_GUARD(name) G_##name = !setting("NO_GUARD_" #name, 0);
#define SET_REST                                                                                   \
    c_code {                                                                                       \
        GUARDS(SET_GUARD)                                                                          \
        deaths_max = setting("DEATHS_MAX", 3);                                                     \
        is_strict = !setting("EFFECTS_ONLY", 0);                                                   \
        show_end = setting("SHOW_END", 0);                                                         \
        servers_die = CAN_DIE;                                                                     \
    }

/* --- events ----------------------------------------------------------------------------------- */

#define E_HELLO 1
#define E_CALL 2
#define E_ACK 3
#define E_CANCEL 4
#define E_END 5
#define E_GOT_HELLO 6
#define E_GOT_LIST 7
#define E_GOT_CALL 8
#define E_GOT_ACK 9
#define E_GOT_CANCEL 10
#define E_GOT_END 11
#define E_WELCOME 12
#define E_REPLY 13
#define E_BUSY 14
#define E_BYE 15
#define E_UP 16
#define E_READ_BUSY 17
#define E_DONE 18
#define E_WANT 19
#define E_GIVE_UP 20
#define E_FULL 21
#define E_LATE 22
#define E_OUTRUN 23
#define E_RUN 24
#define E_EFFECT 25
#define E_FINISH 26
#define E_PUT 27
#define E_DELETE 28
#define E_START 29
#define E_AGAIN 30
#define E_ENDED 31
#define E_FORGET 32
#define E_STORED 33
#define E_NOT_STORED 34
#define E_UNKNOWN 35
#define E_CUT_CLIENT 36
#define E_CUT_SERVER 37
#define E_EOF 38
#define E_LOST 39
#define E_CRASH 40
#define E_RESTORE 41
#define E_STOP 42
#define E_IDLE 43
#define E_QUIET 44
#define E_LEAVE 45
