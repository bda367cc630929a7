/* SPDX-License-Identifier: MIT */
/* ledger.h - the demo's files of lines, as they are written and read.
 *
 * Each line is written by a single write to a file that is opened to append, so lines of several
 * threads stay whole, and what was written stays written. TIME is the monotonic clock in
 * nanoseconds, the same for all processes of a run. ID is CLIENT.THREAD.NUMBER.
 *
 *   client-N.ledger   call ID METHOD FROM TO AMOUNT TIME   before the call is made
 *                     reply ID OUTCOME STATUS TIME         when its outcome is there
 *   notices           begin ID                             by the program of notify
 *                     end ID
 *   kills             kill NUMBER TIME STARTED             STARTED: calls of notify whose start was
 *                                                          in the store, and their end was not
 *
 * OUTCOME is value, failure, not-executed or unknown; of notify, FROM, TO and AMOUNT are 0. Used
 * by the audit too, so nothing of Semel is in here. */
#ifndef DEMO_LEDGER_H
#define DEMO_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LEDGER_LINE 256

/* Each account of the bank begins with so much. */
#define LEDGER_OPENING 1000

enum ledger_method { LEDGER_TRANSFER, LEDGER_NOTIFY };
enum ledger_outcome { LEDGER_VALUE, LEDGER_FAILURE, LEDGER_NOT_EXECUTED, LEDGER_UNKNOWN };

struct ledger_call {
    uint64_t id;
    enum ledger_method method;
    unsigned from, to, amount;
    int64_t at;
};

struct ledger_reply {
    uint64_t id;
    enum ledger_outcome outcome;
    char status[32];
    int64_t at;
};

struct ledger_kill {
    unsigned number, started;
    int64_t at;
};

/* --- ids ------------------------------------------------------------------------------------- */

#define LEDGER_ID 40 /* bytes of its text */

uint64_t ledger_id(unsigned client, unsigned thread, unsigned number);
unsigned ledger_client(uint64_t id);
unsigned ledger_thread(uint64_t id);
unsigned ledger_number(uint64_t id);
const char *ledger_id_text(uint64_t id, char text[LEDGER_ID]);
bool ledger_id_parse(const char *text, uint64_t *out_id);

/* --- lines ----------------------------------------------------------------------------------- */

/* The file, opened to append; -1: errno. What a process that was killed left of a line is cut off:
 * it stands for nothing. */
int ledger_open(const char *path);

/* Append a line. A process whose ledger cannot be written has nothing more to say: it aborts. */
void ledger_write_call(int fd, const struct ledger_call *call);
void ledger_write_reply(int fd, const struct ledger_reply *reply);
void ledger_write_kill(int fd, const struct ledger_kill *kill);

/* Read a line without its newline. False: it is another, or none. */
bool ledger_parse_call(const char *line, struct ledger_call *out);
bool ledger_parse_reply(const char *line, struct ledger_reply *out);
bool ledger_parse_kill(const char *line, struct ledger_kill *out);
/* *out_end: "end", not "begin". */
bool ledger_parse_notice(const char *line, uint64_t *out_id, bool *out_end);

/* --- reading --------------------------------------------------------------------------------- */

/* A file that others append to. Zero but for the path at first. */
struct ledger_tail {
    const char *path;
    off_t at; /* what is before it was read */
    uint64_t lines;
};

/* Call `fn` with each whole line that is new; false from it ends the walk, and the line stays new.
 * False: the file cannot be read (errno), or `fn` gave false (errno 0). One that does not exist
 * has no lines. */
typedef bool (*ledger_line_fn)(const char *line, void *user);
bool ledger_read(struct ledger_tail *tail, ledger_line_fn fn, void *user);

#endif
