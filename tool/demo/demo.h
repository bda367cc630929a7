/* SPDX-License-Identifier: MIT */
/* demo.h - what the files of semel demo share.
 *
 * One process, without threads of its own, starts all others and watches them: demo.c has the
 * phases, place.c the directory, bank.c the database and what the server is told to do with it,
 * killer.c kills the server and looks at what was hit, clients.c runs and kills the clients, which
 * are client.c, evidence.c gathers what is known of each call, watch.c shows how it goes, process.c
 * starts and ends processes. judge.c asks the audit, a program of its own: audit.c. */
#ifndef DEMO_DEMO_H
#define DEMO_DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEMO_CLIENTS_MAX 64
#define DEMO_THREADS 4 /* in each client */
#define DEMO_POSTERS 8 /* in one with an outbox */
#define DEMO_PROXIES 3
#define DEMO_PATH 4096
#define DEMO_SOCKETS 80 /* with the names of sockets it must fit into an address */
#define DEMO_SERVER_OPTIONS 16

struct demo_options {
    int64_t run_ns, kill_every_ns, cut_every_ns; /* the latter two: 0 never */
    unsigned clients;
    uint64_t seed;
    bool seeded;
    const char *keep;                          /* NULL: a temporary directory */
    char *server_options[DEMO_SERVER_OPTIONS]; /* further ones, to break it */
    unsigned server_option_count;
};

struct demo {
    struct demo_options options;
    char program[DEMO_PATH];    /* of this very tool */
    char dir[DEMO_PATH];        /* the bank, the ledgers, everything that is kept */
    char sockets[DEMO_SOCKETS]; /* a short path: the same, if it is short */
    int64_t begin, end;         /* of the load; monotonic ns */
};

/* Wait so long, or until Ctrl-C or SIGTERM. False: it came, now or earlier. */
bool demo_pause(int64_t ns);
/* The signal that came; 0: none. */
int demo_signal(void);

/* Clients have numbers from 1. Does this one work through an outbox? The last one does, and every
 * fourth. */
bool demo_is_outbox(const struct demo *demo, unsigned client);
/* Does this call have a key, its id in words? All of an outbox do, of others every second. */
bool demo_has_key(bool outbox, unsigned number);

/* The hidden 'semel demo client ...': client.c. Returns the exit code. */
#define DEMO_CLIENT_ROLE "client"
int demo_client(int argc, char **argv);

/* --- place.c --------------------------------------------------------------------------------- */

/* A path in the directory; it is kept until the eighth call from now. */
const char *demo_path(const struct demo *demo, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Make the directory. Returns an exit code; other than 0: why was said. */
int place_open(struct demo *demo);

/* Programs of notify outlive a server that was killed: wait until there are none. */
void place_await_programs(const struct demo *demo);

/* Remove all but what is to be kept. True: the directory is still there. */
bool place_close(const struct demo *demo, bool keep);

/* --- bank.c ---------------------------------------------------------------------------------- */

#define BANK_ACCOUNTS 64
#define BANK_AMOUNT_MAX 200
#define BANK_STORE "sqlite:bank.db"

/* Was this tool built with what a bank needs? False: said not. */
bool bank_is_there(void);

/* Make the database, and the program of notify. False: said so. */
bool bank_create(const struct demo *demo);

/* The money in the bank; -1: it cannot be read now. */
int64_t bank_money(const struct demo *demo);

/* Call `fn` with the id of each transfer whose row is higher than *last, which is moved up. False:
 * it cannot be read now. */
bool bank_moves(const struct demo *demo, int64_t *last, void (*fn)(const char *id, void *user),
                void *user);

/* The arguments of 'semel serve', until a NULL. */
#define BANK_ARGUMENTS (32 + DEMO_SERVER_OPTIONS)
void bank_server(const struct demo *demo, const char *address, char *argv[BANK_ARGUMENTS]);

#endif
