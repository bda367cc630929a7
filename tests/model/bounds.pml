/* SPDX-License-Identifier: MIT */
/* bounds.pml - how much of the world is searched, and what may go wrong in it. README.md says which
 * bounds are searched. */

/* --- sizes: set by -D ------------------------------------------------------------------------- */

#ifdef TRACE
/* What a trace says of these is known only when it is read; trace.pml has the rest. */
#define K 3
#define P 3
#define N 12
#define W window
#define STORE store
#endif
#ifndef K
#define K 1 /* calls of a session, at most 3; call number x of session s is q = s * K + x - 1 */
#endif
#ifndef S
#define S 1 /* sessions, at most 2 */
#endif
#ifndef W
#define W K /* the window granted */
#endif
#ifndef P
#define P 2 /* connections of a session that may exist at once: the client's, and older ones */
#endif
#ifndef N
#define N 3 /* frames under way in one direction; a writer waits for room */
#endif
#ifndef STORE
#define STORE 1 /* 0: the server keeps everything in memory */
#endif

/* Kinds of handlers. RERUN is ONCE with on_crash RERUN. */
#define ONCE 0
#define TRANS 1
#define IDEM 2
#define RERUN 3
#ifndef KIND1
#define KIND1 ONCE
#endif
#ifndef KIND2
#define KIND2 KIND1
#endif
#ifndef KIND3
#define KIND3 KIND1
#endif

/* KEYED: all calls have one key. RESUBMIT: session 1 is that which the client makes when session 0
 * is lost, and its call is the same one, made again. PARTS: a reply comes in two parts. */
#ifdef KEYED
#define IS_KEYED 1
#else
#define IS_KEYED 0
#endif
#ifdef RESUBMIT
#define IS_RESUBMIT 1
#else
#define IS_RESUBMIT 0
#endif
#ifdef PARTS
#define IS_PARTS 1
#else
#define IS_PARTS 0
#endif

/* --- how often something may go wrong --------------------------------------------------------- */

/* These, and which guards stand (guards.pml), are said to the program that SPIN makes of the model,
 * so that it is built once for many searches: settings.h. */
#define BOUNDS(B)                                                                                  \
    B(CUTS, cuts)         /* a connection breaks, noticed by either end first */                   \
    B(CRASHES, crashes)   /* the server dies and starts again */                                   \
    B(STOPS, stops)       /* the server is stopped, and starts again */                            \
    B(NOTS, nots)         /* the store does not take a transaction */                              \
    B(UNKNOWNS, unknowns) /* it does not know whether it took one: the server restarts */          \
    B(BUSIES, busies)     /* the server has no room for a call */                                  \
    B(CANCELS, cancels)   /* a call is cancelled, or its deadline passes, at the client */         \
    B(GIVEUPS, giveups)   /* of these: the grace is over, too */                                   \
    B(EXPIRES, expires)   /* a deadline passes at the server */                                    \
    B(MAXRUNS, maxruns)   /* a handler runs longer than it may */                                  \
    B(IDLES, idles)       /* a session without a connection is forgotten */                        \
    B(LEAVES, leaves)     /* a client stops: BYE END */                                            \
    B(DROPS, drops)       /* a handler says nothing */                                             \
    B(REPEATS, repeats)   /* a client writes a CALL again that it need not: no client of ours */   \
    B(CLONES, clones)     /* a client forgets that it had a verdict, as one that was copied */

/* DEATHS_MAX: of the server in one transactional handler, then it is poisoned. */
hidden byte deaths_max;
/* With EFFECTS_ONLY, what a peer takes for a broken rule ends its connection, as in the product,
 * and not the search; and it is only looked at what happened in the end. */
hidden byte is_strict;
/* SHOW_END: a run that has come to its end is shown as if that were wrong. */
hidden byte show_end;
/* May the server die, or a handler not say what it did? */
hidden byte servers_die;
