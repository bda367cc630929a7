/* SPDX-License-Identifier: MIT */
/* exchange_kit.h - an exchange driven by hand, the walk over what must hold in it, and a model of
 * it that knows nothing but arrays and scans. */
#ifndef TESTS_ASYNC_EXCHANGE_KIT_H
#define TESTS_ASYNC_EXCHANGE_KIT_H

#include "async/exchange.h"

/* Abort on what must not be. */
void exchange_validate(const struct sml_exchange *exchange);

enum { MODEL_IDS = 3, MODEL_WAITS = 64, MODEL_EVENTS = 64 };

struct model_event {
    int number; /* of its trigger, from 1; its data */
    int expires;
    int held_at;
    bool fresh;
};

/* How a wait ended: per id the number of the event that was told, 0 for none. */
struct model_end {
    int wait; /* which, from 0 in the order of their starts */
    enum semel_status status;
    int told[MODEL_IDS];
};

struct model_wait {
    unsigned ids; /* a bit per id */
    int need;
    int deadline;
    enum semel_unmet unmet;
    bool holds;
    bool waiting;
    bool holding;
    struct model_event held[MODEL_IDS]; /* number 0: none */
};

struct model {
    enum semel_delivery delivery;
    int retention;
    int now;
    int numbers;
    bool closed;
    struct {
        struct model_event events[MODEL_EVENTS]; /* by number */
        int count;
    } ids[MODEL_IDS];
    struct model_wait waits[MODEL_WAITS];
    int wait_count;
    struct model_end ends[MODEL_WAITS]; /* in the order in which they ended */
    int end_count;
    int expired, overwritten;
};

void model_init(struct model *model, enum semel_delivery delivery, int retention);
/* False: closed. */
bool model_trigger(struct model *model, int id);
bool model_start(struct model *model, unsigned ids, int need, int timeout, enum semel_unmet unmet,
                 bool holds);
void model_cancel(struct model *model, int wait);
void model_accept(struct model *model, int wait);
void model_give_back(struct model *model, int wait);
void model_pass(struct model *model, int time);
void model_close(struct model *model);
/* Stored and held. */
int model_events(const struct model *model);

#endif
