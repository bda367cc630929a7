/* SPDX-License-Identifier: MIT */
/* primes.h - the work of tasks.c and window.c, on the worker's side. */
#ifndef EXAMPLES_PRIMES_H
#define EXAMPLES_PRIMES_H

#include <semel/semel.h>

/* For semel_worker_main: exports "primes", whose body is a number up to which primes are counted.
 * It reports each hundredth of the way ("0 .. 9999: 1229"), its progress is a percentage, and its
 * value the count. */
enum semel_status primes_export(struct semel_server *server, void *user);

#endif
