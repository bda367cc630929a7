/* SPDX-License-Identifier: MIT */
/* signals.h - SIGINT and SIGTERM, taken by a thread of their own. */
#ifndef TOOL_SIGNALS_H
#define TOOL_SIGNALS_H

#include <stdbool.h>

/* Block SIGINT and SIGTERM and ignore SIGPIPE. Before any thread is started, so that none of
 * them is interrupted. */
void signals_block(void);

/* `count` is 1 for the first signal, then 2 ... Thread: the signal thread. */
typedef void (*signals_fn)(int number, unsigned count, void *user);

/* Have `fn` called for each SIGINT and SIGTERM until the process ends; `user` must live as long.
 * False: no thread could be started (errno says why). Once per process. */
bool signals_watch(signals_fn fn, void *user);

/* A descriptor that becomes readable with each blocked signal, for a poll loop; -1 on failure. */
int signals_open(void);

#endif
