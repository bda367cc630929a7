/* SPDX-License-Identifier: MIT */
/* reverse_callee.h - the client's end of calls from its server: what arrived, what runs, and the
 * replies that wait to be sent. Pure.
 *
 * A call that arrived waits for a handler, runs, and is answered, once. When the call that carries
 * them has ended, those that run are on their own: their replies go nowhere. */
#ifndef SML_RPC_REVERSE_CALLEE_H
#define SML_RPC_REVERSE_CALLEE_H

#include "base/list.h"
#include "base/mem.h"
#include "base/table.h"
#include "rpc/reverse_wire.h"

enum sml_reverse_work_state {
    SML_REVERSE_ARRIVED,
    SML_REVERSE_RUNNING,
    SML_REVERSE_ORPHAN, /* runs, and nobody asks for its reply any more */
    SML_REVERSE_ANSWERED
};

/* A call at the client; the shell's memory. */
struct sml_reverse_work {
    uint64_t number;
    uint64_t bytes; /* held for it */
    enum sml_reverse_work_state state;
    struct sml_list link; /* arrived, or running */
};

/* A reply that waits; its bytes follow. */
struct sml_reverse_answer {
    struct sml_list link;
    size_t size;
    uint8_t bytes[];
};

struct sml_reverse_callee {
    const struct sml_mem *mem;
    struct sml_reverse_terms own;    /* what this end takes */
    struct sml_reverse_terms server; /* the largest reply it takes; once they are `agreed` */
    bool agreed;
    uint64_t bytes_max; /* from here on nothing more is read */
    uint64_t bytes;     /* of calls and of replies */
    uint64_t last;      /* number seen */
    struct sml_table table;
    struct sml_list arrived, running, answers;
};

void sml_reverse_callee_init(struct sml_reverse_callee *callee, const struct sml_mem *mem,
                             const struct sml_reverse_terms *own, uint64_t bytes_max);
/* The carrying call is over: what arrived moves to `out_arrived`, what runs is on its own. */
void sml_reverse_callee_reset(struct sml_reverse_callee *callee, struct sml_list *out_arrived);
void sml_reverse_callee_fini(struct sml_reverse_callee *callee);

/* So much is held that nothing more should be read. */
static inline bool sml_reverse_is_full(const struct sml_reverse_callee *callee)
{
    return callee->bytes >= callee->bytes_max;
}

/* TERMS. NULL; or what is wrong. */
const char *sml_reverse_agree(struct sml_reverse_callee *callee,
                              const struct sml_reverse_message *message);
/* REQUEST, before the shell makes anything of it. NULL; or what is wrong. */
const char *sml_reverse_check(const struct sml_reverse_callee *callee,
                              const struct sml_reverse_message *message);
/* And what it made of it. False: no memory, and it was not taken. */
bool sml_reverse_arrive(struct sml_reverse_callee *callee, struct sml_reverse_work *work,
                        const struct sml_reverse_message *message, uint64_t bytes) SML_MUST_USE;
/* CANCEL. NULL; or what is wrong. *out_work: the call that is meant; NULL: it was answered. */
const char *sml_reverse_cancelled(const struct sml_reverse_callee *callee,
                                  const struct sml_reverse_message *message,
                                  struct sml_reverse_work **out_work);

/* A call that arrived is to run, or to be answered without. */
void sml_reverse_begin(struct sml_reverse_callee *callee, struct sml_reverse_work *work);

/* The reply; NULL: no memory. */
struct sml_reverse_answer *sml_reverse_answer_create(const struct sml_reverse_callee *callee,
                                                     uint64_t number,
                                                     const struct sml_verdict *verdict);
/* The call that runs has it; moved in. An orphan's is freed. The work is the shell's. */
void sml_reverse_answer(struct sml_reverse_callee *callee, struct sml_reverse_work *work,
                        struct sml_reverse_answer *answer);

/* The reply to send next, still inside; NULL. */
struct sml_reverse_answer *sml_reverse_first_answer(const struct sml_reverse_callee *callee);
/* It was sent. */
void sml_reverse_answered(struct sml_reverse_callee *callee, struct sml_reverse_answer *answer);

#endif
