/* SPDX-License-Identifier: MIT */
/* bare.h - what exactly-once costs, measured against a library without it.
 *
 * With SML_BARE, which bench/run defines in a build of its own and nobody else does, a server keeps
 * no table of a session's calls and no reply that was sent, and a client acknowledges nothing. All
 * else is the same code. That library is good for one thing: calls that fit into a frame each, on a
 * connection that never breaks. In what is shipped SML_IS_BARE is 0, and the compiler leaves
 * nothing of it. */
#ifndef SML_BASE_BARE_H
#define SML_BASE_BARE_H

#ifdef SML_BARE
#define SML_IS_BARE 1
#else
#define SML_IS_BARE 0
#endif

#endif
