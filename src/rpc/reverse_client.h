/* SPDX-License-Identifier: MIT */
/* reverse_client.h - exported methods of a client, shared by reverse_client*.c.
 *
 * `lock` guards everything here; it is never held while the client's lock is taken, nor while a
 * handler or a callback runs. The stream is read and written by one thread at a time, whoever has
 * reason to: `driving`. */
#ifndef SML_RPC_REVERSE_CLIENT_H
#define SML_RPC_REVERSE_CLIENT_H

#include <semel/backchannel.h>
#include <semel/stream.h>

#include "os/mutex.h"
#include "os/process.h"
#include "os/thread.h"
#include "rpc/client_internal.h"
#include "rpc/request_internal.h"
#include "rpc/reverse_callee.h"

struct sml_export {
    struct sml_export *next;
    semel_handler_fn handler;
    void *user;
    uint32_t limit;   /* 0: none */
    uint32_t running; /* not finished */
    uint8_t name_bytes;
    char name[];
};

/* A call of the server, as its handler gets it: one allocation. */
struct sml_arrival {
    struct sml_reverse_work work; /* first */
    struct semel_request request;
    struct sml_incoming in;
    struct sml_peer_info info;
    struct sml_client_reverse *reverse;
    struct sml_export *method;        /* NULL: there is none */
    uint64_t epoch;                   /* the carrier it came by */
    uint64_t reply_bytes;             /* the largest reply to it */
    struct sml_reverse_answer *spare; /* an answer without words: there is always one */
    uint8_t bytes[];                  /* method, content type, body */
};

/* One of the threads that run handlers. */
struct sml_handler_thread {
    struct sml_thread thread;
    struct sml_client_reverse *reverse;
    uintptr_t id; /* 0: it has not begun */
    struct sml_list all;
};

struct sml_client_reverse {
    struct semel_client *client;
    struct sml_mutex lock;
    struct sml_cond changed; /* work, the end, no work, a cancel callback that has returned */
    struct sml_reverse_callee calls;
    struct sml_export *exports;
    struct semel_stream *carrier; /* NULL: none, or none yet */
    bool driving;                 /* somebody reads and writes it, ... */
    bool again;                   /* ... and is to look once more */
    bool refused;                 /* the server will not have it, or the client is at its end */
    bool quit;
    uint64_t reopen_at; /* without a carrier: not before */
    uint64_t backoff;
    uint64_t retry_at; /* there was no memory: it is looked at again then; SML_NEVER */
    struct sml_list threads;
    uint32_t thread_count, idle;
    uint32_t unfinished; /* requests in handlers, or taken */
    uint8_t id[16];      /* of the keys of its requests */
    uint64_t epoch;      /* of carriers */
};

/* reverse_client.c: what is there is read and sent, by this thread or by whoever is at it; and a
 * carrier is made if there is to be one. Lock not held. */
void sml_reverse_drive(struct sml_client_reverse *reverse);

/* reverse_handlers.c */
/* NULL: no memory. */
struct sml_arrival *sml_arrival_create(struct sml_client_reverse *reverse,
                                       const struct sml_reverse_request *request, uint64_t number,
                                       const char *peer);
void sml_arrival_free(struct sml_arrival *arrival);
/* The server asks for its end. Lock held, released while a callback runs. */
void sml_arrival_cancel(struct sml_arrival *arrival);
/* There is work: a thread looks. Lock held. The first one must be there: LIMIT, NO_MEMORY. */
enum semel_status sml_handlers_attend(struct sml_client_reverse *reverse);
/* All have ended, and no request is open. Lock not held. */
void sml_handlers_stop(struct sml_client_reverse *reverse);
bool sml_handlers_is_one(struct sml_client_reverse *reverse);

#endif
