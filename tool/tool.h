/* SPDX-License-Identifier: MIT */
/* tool.h - what the commands share: their entry points and the exit codes.
 *
 * The tool uses Semel's public interface, libc and POSIX; for stores also SQLite and
 * Jansson, for looking at servers Jansson, and ncurses for semel top. */
#ifndef TOOL_TOOL_H
#define TOOL_TOOL_H

#include <semel/semel.h>

/* The exit codes. 3, 4 and 6 to 10 are promises that nothing happened. 130 and 143 (Ctrl-C,
 * SIGTERM) are used only while no call is outstanding. */
enum tool_exit {
    TOOL_VALUE = 0,
    TOOL_FAILURE = 1,
    TOOL_USAGE = 2,
    TOOL_CONNECT = 3,
    TOOL_NOT_EXECUTED = 4,
    TOOL_UNKNOWN = 5,
    TOOL_OVERLOADED = 6,
    TOOL_DENIED = 7,
    TOOL_NO_METHOD = 8,
    TOOL_CANCELLED = 9,
    TOOL_PROTOCOL = 10
};

/* The exit code for a call's outcome. */
int tool_exit_of_result(enum semel_outcome outcome, enum semel_status status);

#define CONNECT_TIMEOUT_MS 3000 /* unless said */

/* Make a client and wait for its connection, as semel_client_wait_connected. Unless `patient`, an
 * only server that is clearly not there (no such socket, refused) is not waited for. `options` has
 * a log hook. Once per process. Returns: not OK: `text` may say more; *out_client is still to be
 * destroyed, unless it is NULL. */
enum semel_status tool_connect(struct semel_client **out_client, const char *address,
                               const struct semel_client_options *options, int64_t wait_ms,
                               bool patient, char *text, size_t size);

/* Say that because of this nothing was sent. Returns the exit code. */
int tool_not_sent(const char *address, enum semel_status status, const char *text);

/* The exit code when no call was made, for instance because no connection could be had. */
int tool_exit_of_status(enum semel_status status);

/* The commands. argv[0] is "semel COMMAND". Each returns the exit code. */
int tool_serve(int argc, char **argv);
int tool_call(int argc, char **argv);
int tool_trigger(int argc, char **argv);
int tool_wait(int argc, char **argv);
int tool_lock(int argc, char **argv);
int tool_bench(int argc, char **argv);
int tool_proxy(int argc, char **argv);
int tool_sessions(int argc, char **argv);
int tool_list(int argc, char **argv);
int tool_describe(int argc, char **argv);
int tool_ps(int argc, char **argv);
int tool_cancel(int argc, char **argv);
int tool_top(int argc, char **argv);
int tool_demo(int argc, char **argv);

#endif
