/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "tool.h"

struct command {
    const char *name;
    char *full_name; /* argv[0] of the command, for messages */
    int (*run)(int argc, char **argv);
    const char *summary;
};

static char serve_name[] = "semel serve", call_name[] = "semel call",
            trigger_name[] = "semel trigger", wait_name[] = "semel wait",
            lock_name[] = "semel lock", bench_name[] = "semel bench", proxy_name[] = "semel proxy",
            list_name[] = "semel list", describe_name[] = "semel describe", ps_name[] = "semel ps",
            cancel_name[] = "semel cancel", top_name[] = "semel top",
            sessions_name[] = "semel sessions", demo_name[] = "semel demo";

static const struct command commands[] = {
    { "serve", serve_name, tool_serve,
      "answer calls with built-in methods, shell commands or SQL" },
    { "call", call_name, tool_call, "call a method and print its reply" },
    { "list", list_name, tool_list, "list the methods of a server" },
    { "describe", describe_name, tool_describe, "describe a method of a server" },
    { "ps", ps_name, tool_ps, "show the calls that run or wait at a server" },
    { "cancel", cancel_name, tool_cancel, "cancel a call at its server" },
    { "top", top_name, tool_top, "watch what a server does" },
    { "trigger", trigger_name, tool_trigger, "trigger an event in a server's exchange" },
    { "wait", wait_name, tool_wait, "wait for events in a server's exchange" },
    { "lock", lock_name, tool_lock, "run a command while a server's lock is held" },
    { "bench", bench_name, tool_bench, "measure calls on one client" },
    { "proxy", proxy_name, tool_proxy, "relay connections and cut them, again and again" },
    { "sessions", sessions_name, tool_sessions, "look at what a server keeps in its store" },
    { "demo", demo_name, tool_demo, "a bank whose server is killed, and an audit of it" },
};

#define COMMANDS (sizeof commands / sizeof commands[0])

static void usage(FILE *file)
{
    fputs("Usage: semel COMMAND [OPTION...]\n"
          "Call functions in other processes and machines: each call once, also over\n"
          "connections that break.\n\nCommands:\n",
          file);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(file, "  %-8s %s\n", commands[i].name, commands[i].summary);
    fputs("\n  semel COMMAND --help   all about one command, with examples\n"
          "  semel --version        the version\n\n"
          "Addresses: unix:/path, tcp:HOST:PORT, fd:N; several separated by commas.\n"
          "Durations carry a unit: 250us 20ms 10s 5m 1h.\n\n"
          "Exit codes: 0 value, 1 failure, 2 usage, 3 cannot connect or use the store,\n"
          "4 not executed, 5 outcome unknown, 6 overloaded, 7 not permitted, 8 no such\n"
          "method, 9 cancelled, 10 protocol error; 3, 4 and 6 to 10 promise that nothing\n"
          "happened.\n",
          file);
}

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int command_run(const struct command *command, int argc, char **argv)
{
    argp_err_exit_status = TOOL_USAGE;
    argv[0] = command->full_name;
    output_init(command->full_name);
    return command->run(argc, argv);
}

static int help(const char *name)
{
    static char option[] = "--help";
    char *argv[] = { NULL, option, NULL };
    const struct command *command = command_find(name);

    if (command)
        return command_run(command, 2, argv);
    fprintf(stderr, "semel: there is no command '%.40s'; 'semel --help' lists them\n", name);
    return TOOL_USAGE;
}

/* Where a standard descriptor is closed, the next one that is opened would be taken for it: a
 * socket would be read as input. What is put there fails in use, as a closed one does. */
static void occupy_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv)
{
    const struct command *command;

    occupy_standard_descriptors();

    if (argc < 2) {
        usage(stderr);
        return TOOL_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("semel %s\n", semel_version());
        return TOOL_VALUE;
    }
    if (strcmp(argv[1], "help") == 0 && argc > 2)
        return help(argv[2]);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "-?") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return TOOL_VALUE;
    }
    command = command_find(argv[1]);
    if (!command) {
        fprintf(stderr, "semel: there is no command '%.40s'; 'semel --help' lists them\n", argv[1]);
        return TOOL_USAGE;
    }
    return command_run(command, argc - 1, argv + 1);
}
