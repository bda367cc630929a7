/* SPDX-License-Identifier: MIT */
/* kit.h - what the figure programs share: options, a server in a process of its own, child
 * processes that follow commands, and what the kernel says about a process. */
#ifndef BENCH_KIT_H
#define BENCH_KIT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <semel/semel.h>

uint64_t kit_now_ns(void);
void kit_sleep_ns(uint64_t ns);
_Noreturn void kit_die(const char *what);
void kit_need(enum semel_status status, const char *what);

/* The value of "--name=VALUE" among the arguments, or `otherwise`. */
const char *kit_text(int argc, char **argv, const char *name, const char *otherwise);
double kit_number(int argc, char **argv, const char *name, double otherwise);

/* A child process and the descriptor over which both sides exchange 8-byte words. Children die
 * with their parent. */
struct kit_child {
    pid_t pid;
    int fd;
};
struct kit_child kit_fork(void (*body)(int fd, void *user), void *user);
void kit_send(int fd, uint64_t word);
uint64_t kit_receive(int fd); /* ends the process quietly when the other side is gone */
void kit_end(struct kit_child child);

/* A server in a child process, with the built-in methods
 *   echo           its body
 *   sleep          sleeps for the decimal number of microseconds in its body
 *   burn           spends that much CPU time
 *   hold           taken and never finished
 * at `address`. It answers any word with the bytes in use on its heap. */
struct kit_child kit_server(const char *address, const struct semel_server_options *options);
uint64_t kit_heap_bytes(void);

/* Writes an address that no other run uses, different for each number. */
const char *kit_address(char *out, size_t size, int number);

/* Make that directory, which must not be there; it is removed at exit with the files in it. */
void kit_directory(const char *path);

struct semel_client *kit_client(const char *address, const struct semel_client_options *options);

/* One call that must end as a value of `size` bytes equal to the body (echo), or any value. */
void kit_echo(struct semel_client *client, const void *body, size_t size);
void kit_value(struct semel_client *client, const char *method, const char *body,
               int64_t deadline_ms);

/* From /proc: resident bytes (exact), descriptors, threads. */
struct kit_usage {
    uint64_t rss;
    uint64_t heap; /* filled by whoever can ask the process */
    unsigned descriptors;
    unsigned threads;
};
struct kit_usage kit_usage(pid_t pid);

/* Latencies in nanoseconds, kept whole. */
struct kit_samples {
    uint64_t *ns;
    size_t count, room;
};
void kit_sample(struct kit_samples *samples, uint64_t ns);
uint64_t kit_percentile(struct kit_samples *samples, double percent);

#endif
