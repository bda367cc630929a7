/* SPDX-License-Identifier: MIT */
/* suite.h - one suite for every loop that a Semel loop can live in. */
#ifndef TESTS_ADAPTERS_SUITE_H
#define TESTS_ADAPTERS_SUITE_H

#include <semel/loop.h>

/* A foreign loop. All of it is called on one thread, except where said. */
struct host_ops {
    void *(*make)(void);
    void (*free)(void *host); /* nothing is attached */
    /* Serve `loop` from now on; and no more. Legal in a callback. */
    void (*attach)(void *host, struct semel_loop *loop);
    void (*detach)(void *host);
    /* The loop that is attached was destroyed: what is left is only to be thrown away. */
    void (*forget)(void *host);
    void (*run)(void *host);  /* until quit is called */
    void (*quit)(void *host); /* in a callback */
    /* A timer of the host's own, called once. */
    void (*after)(void *host, unsigned ms, void (*fn)(void *user), void *user);
};

/* The suite as a program. */
int suite_main(const struct host_ops *ops);

#endif
