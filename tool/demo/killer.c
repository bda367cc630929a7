/* SPDX-License-Identifier: MIT */
/* killer.c - kill the server at random moments, and see what the kill hit.
 *
 * The moment is drawn before it is known what runs then; it is put off only while the server does
 * not answer calls, for a second at most, and by a random time then. Then SIGKILL goes to the
 * server's process alone. What its death hit is read from outside before it is started again:
 *
 *   before the start   a call with a line in a ledger, and nothing else: no row, no notice, no
 *                      record
 *   before the commit  a notice that had begun and not ended; or a transfer in its transaction: the
 *                      next server says how many calls ran, which is one more than there are
 *                      records of calls that were started
 *   before the reply   a row or a record with a verdict, and 20 ms later the caller has no line for
 *                      it. Of an outbox only a record counts, whose reply was not acknowledged: the
 *                      client itself may have been killed
 *
 * A record that was started and not ended is one call whose outcome is unknown from then on. One
 * that the last look found already is not counted again: the server was killed before it had
 * written down so. */
#include "killer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "output.h"

#define STEP_NS 2000000
#define START_NS INT64_C(60000000000)
#define SERVE_NS INT64_C(1000000000) /* how long a kill waits for the server to answer something */
#define BUSY_NS 100000000            /* or for calls to be under way: an answer is no older */
#define LATER_NS 20000000            /* a kill that had to wait comes so much later, at most */
#define REPLY_NS 20000000
#define DRAIN_NS INT64_C(30000000000)

struct hit {
    bool before_start, before_commit, before_reply;
};

/* --- starting -------------------------------------------------------------------------------- */

static bool log_line(const char *line, void *user)
{
    struct killer *killer = user;
    const char *restored = strstr(line, ": restored ");

    if (restored)
        sscanf(restored, ": restored %*u sessions and %*u calls, of which %llu were running",
               &killer->running);
    if (strstr(line, ": listening at "))
        killer->listens = true;
    return true;
}

static bool server_start(struct killer *killer)
{
    const struct demo *demo = killer->demo;
    const char *log = demo_path(demo, "server.log");
    int64_t until = clock_now() + START_NS;
    char *argv[BANK_ARGUMENTS];

    bank_server(demo, killer->address, argv);
    killer->listens = false;
    killer->running = 0;
    killer->log.path = log;
    if (!process_start(&killer->server, demo->program, argv, demo->dir, log))
        return false;
    while (!killer->listens) {
        if (process_ended(&killer->server) || clock_now() > until) {
            output_error("the server does not start (%s); see %s",
                         killer->server.pid ? "it takes too long"
                                            : process_status_text(&killer->server),
                         log);
            return false;
        }
        if (!demo_pause(STEP_NS))
            return false;
        ledger_read(&killer->log, log_line, killer);
    }
    killer->up_at = clock_now();
    return true;
}

bool killer_open(struct killer *killer, const struct demo *demo, struct evidence *evidence)
{
    memset(killer, 0, sizeof *killer);
    killer->demo = demo;
    killer->evidence = evidence;
    snprintf(killer->address, sizeof killer->address, "unix:%s/server", demo->sockets);
    chance_seed(&killer->chance, demo->options.seed);
    killer->kills = ledger_open(demo_path(demo, "kills"));
    if (killer->kills < 0) {
        output_error("%s: %s", demo_path(demo, "kills"), strerror(errno));
        return false;
    }
    return server_start(killer);
}

/* --- looking --------------------------------------------------------------------------------- */

static void look_at_call(struct evidence_call *call, int64_t killed_at, struct hit *hit)
{
    bool known = call->row || call->begun || call->record != RECORD_NONE;

    if (call->called_at > killed_at)
        return;
    if (call->keyed && !known)
        hit->before_start = true;
    if ((call->row && !call->outbox) || call->record == RECORD_ENDED)
        hit->before_reply = true;
}

/* Notices that had begun and not ended, read as soon as the server is dead. */
static bool look_at_notices(struct evidence *evidence, struct hit *hit)
{
    if (!evidence_ledgers(evidence) || !evidence_notices(evidence))
        return false;
    for (size_t i = 0; i < evidence->count; i++) {
        struct evidence_call *call = &evidence->calls[i];

        if (call->begun && !call->ended && !call->left)
            call->left = hit->before_commit = true;
    }
    return true;
}

/* Everything that can be seen while there is no server. */
static bool look(struct killer *killer, int64_t killed_at, struct hit *hit)
{
    struct evidence *evidence = killer->evidence;

    if (!look_at_notices(evidence, hit))
        return false;
    demo_pause(killed_at + REPLY_NS - clock_now());
    if (!evidence_ledgers(evidence) || !evidence_bank(evidence) || !evidence_store(evidence))
        return false;
    for (size_t i = 0; i < evidence->count; i++)
        look_at_call(&evidence->calls[i], killed_at, hit);
    return true;
}

static void count(struct killer *killer, const struct hit *hit)
{
    struct killer_count *c = &killer->count;
    bool in_transaction = killer->running > killer->evidence->started;

    c->before_start += hit->before_start;
    c->before_commit += hit->before_commit || in_transaction;
    c->in_transaction += in_transaction;
    c->before_reply += hit->before_reply;
    c->busy += hit->before_commit || in_transaction || hit->before_reply ||
               killer->evidence->started_new > 0;
}

/* --- killing --------------------------------------------------------------------------------- */

static bool kill_and_look(struct killer *killer)
{
    struct evidence *evidence = killer->evidence;
    struct ledger_kill line = { .number = killer->count.kills + 1 };
    struct hit hit = { false, false, false };

    process_kill(&killer->server);
    line.at = clock_now();
    killer->count.kills++;
    if (!look(killer, line.at, &hit))
        return false;
    line.started = evidence->started_new;
    killer->count.started += line.started;
    ledger_write_kill(killer->kills, &line);
    if (!server_start(killer))
        return false;
    count(killer, &hit);
    return true;
}

/* Does it serve, and are calls under way? */
static bool serves(const struct killer *killer, int64_t now)
{
    int64_t replied_at = killer->evidence->replied_at;

    return (replied_at > killer->up_at && replied_at > now - BUSY_NS) ||
           now > killer->due + SERVE_NS;
}

bool killer_step(struct killer *killer)
{
    int64_t every = killer->demo->options.kill_every_ns, now = clock_now();

    if (process_ended(&killer->server)) {
        output_error("the server ended by itself (%s); see %s",
                     process_status_text(&killer->server), demo_path(killer->demo, "server.log"));
        return false;
    }
    if (every == 0)
        return true;
    if (killer->due == 0)
        killer->due = now + chance_interval(&killer->chance, every);
    if (now < killer->due)
        return true;
    if (!serves(killer, now)) {
        killer->late = true;
        return true;
    }
    if (killer->late) {
        killer->late = false;
        return demo_pause((int64_t)chance_below(&killer->chance, LATER_NS)) && killer_step(killer);
    }
    killer->due += chance_interval(&killer->chance, every);
    return kill_and_look(killer);
}

bool killer_close(struct killer *killer)
{
    bool good = true;

    if (killer->server.pid) {
        good = process_stop(&killer->server, DRAIN_NS);
        if (!good)
            output_error("the server did not end well (%s); see %s",
                         process_status_text(&killer->server),
                         demo_path(killer->demo, "server.log"));
    }
    if (killer->kills > 0)
        close(killer->kills);
    killer->kills = -1;
    return good;
}
