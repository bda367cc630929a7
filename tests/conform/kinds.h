/* SPDX-License-Identifier: MIT */
/* kinds.h - every way to make two connected channels. */
#ifndef TESTS_CONFORM_KINDS_H
#define TESTS_CONFORM_KINDS_H

#include "io/channel.h"

struct ends { /* what a kind made; both open or neither */
    struct sml_channel *a, *b;
    void *storage; /* released by ends_close */
};

struct kind {
    const char *name;
    /* False with a reason printed: not to be had on this machine. */
    bool (*open)(struct ends *out_ends);
    bool is_socket;   /* one system call per operation */
    bool has_ids;     /* the peer is known by the kernel's word */
    const char *peer; /* how the text of a peer begins */
};

extern const struct kind kinds[];
extern const int kinds_count;

void ends_close(struct ends *ends);

/* memory.c: no system call moves its bytes. */
bool memory_open(struct ends *out_ends);

#endif
