/* SPDX-License-Identifier: MIT */
/* server_admin.h - the methods that every server has of itself: what is exported, counted, running;
 * and cancelling. Shared by server*.c and request.c only.
 *
 * Problem. They are asked when a server is in trouble: when all workers are busy, the backlog is
 * full, a handler hangs. So they wait in no queue of the others and hold no worker slot. Nor may
 * the leader answer them: to add up the counters of 100,000 sessions takes longer than reading may
 * stand still. A thread of their own does, made when the first of them comes.
 *
 * What they show is counted where it happens, by whoever makes it happen: a call costs two
 * additions to memory that no other thread writes (tally.h). */
#ifndef SML_RPC_SERVER_ADMIN_H
#define SML_RPC_SERVER_ADMIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "os/thread.h"

#define SML_ASKED_MAX 256 /* reserved calls that may wait; more are told to come again */
/* In one answer: of each state, and methods. */
#define SML_CALLS_SHOWN 500
#define SML_METHODS_SHOWN 1000

struct semel_request;
struct semel_server;
struct sml_json;
struct sml_method;

enum sml_admin {
    SML_ADMIN_NOT,     /* an application's method, or another reserved one: for the workers */
    SML_ADMIN_LOOKS,   /* for whom the option `inspection` says */
    SML_ADMIN_CONTROLS /* for the server's own user id */
};

struct sml_admin_desk {
    uint32_t uid; /* the server's own */
    uint64_t created;
    void (*show)(struct sml_json *json, void *user); /* constant from the start; NULL: nothing */
    void *shown;
    bool rouse; /* leader's: somebody was asked and the thread was not told */
    /* queue_lock */
    struct sml_list asked;
    uint32_t count;
    bool serving; /* the thread runs, or is about to */
    struct sml_thread thread;
};

/* While the server is made. OK; NO_MEMORY. */
enum semel_status sml_admin_init(struct semel_server *server);
/* The server has quit: the thread, if there was one, has left. */
void sml_admin_fini(struct semel_server *server);

/* Leader, stripe held. May this peer call this method? */
bool sml_admin_permits(const struct semel_request *request);
/* The largest reply of the server. Its own limit is for what applications send: to look inside must
 * not fail for its sake. */
uint64_t sml_request_reply_max(const struct semel_request *request);
/* It waits for the thread. */
void sml_admin_ask(struct semel_request *request);
/* Leader, without locks: wake the thread, if anybody was asked. */
void sml_admin_rouse(struct semel_server *server);

/* Who counts: each serving thread by its slot, the committer, and whoever finishes a call that was
 * taken from its handler, under queue_lock. */
uint32_t sml_tally_slots(const struct semel_server *server);
uint32_t sml_slot_of_committer(const struct semel_server *server);
uint32_t sml_slot_of_taken(const struct semel_server *server);
/* A serving thread's; queue_lock held. */
uint32_t sml_slot_take_locked(struct semel_server *server);
void sml_slot_give_back_locked(struct semel_server *server, uint32_t slot);
/* The first call of a method that this slot counts: its memory, if there is any to be had. */
struct sml_tally *sml_method_tally_create(struct sml_method *method, uint32_t slot);
void sml_method_free(struct sml_method *method);

/* Every method, in no order; at most SML_METHODS_SHOWN of them are given. Returns how many there
 * are. */
uint32_t sml_admin_methods(struct semel_server *server,
                           const struct sml_method *methods[SML_METHODS_SHOWN]);

/* The answers. server_admin_counters.c: semel.counters */
void sml_admin_counters(struct semel_server *server, struct sml_json *json);
/* server_admin_calls.c: semel.calls */
enum semel_status sml_admin_calls(struct semel_server *server, struct sml_json *json);

#endif
