/* SPDX-License-Identifier: MIT */
/* task_backend.h - where an executor's tasks run: one interface, two implementations (a client; a
 * pool's workers).
 *
 * All functions are for the executor's thread, and none blocks; `close` waits for a stir that is
 * under way, at most. A run `stirs` on any thread,
 * under no lock, when there may be something new for `next`; it need not stir again before `next`
 * has said WOULD_BLOCK. */
#ifndef SML_PROC_TASK_BACKEND_H
#define SML_PROC_TASK_BACKEND_H

#include <semel/loop.h>
#include <semel/pool.h>
#include <semel/stream.h>

struct sml_backend;
struct sml_run;

/* What is to be run. Borrowed for `start`. */
struct sml_run_spec {
    const char *method;
    struct semel_bytes body;
    struct semel_call_options call;
    void (*stir)(void *user);
    void *user;
};

struct sml_run_ops {
    /* OK: out_item, borrowed until the next call; WOULD_BLOCK; NO_MEMORY: try again; END: it is
     * over, and all items were handed out; PARTS_LOST: the same, but some are missing, or were too
     * large. */
    enum semel_status (*next)(struct sml_run *run, struct semel_item *out_item);
    /* After END or PARTS_LOST, once: moved out. */
    void (*result)(struct sml_run *run, struct semel_result *out_result);
    /* Ask it to stop. The end still comes. */
    void (*cancel)(struct sml_run *run);
    /* As semel_future_kill. */
    enum semel_status (*kill)(struct sml_run *run);
    int (*pid)(const struct sml_run *run);
    /* Let it go, whether it is over or not. It does not stir any more when this has returned. What
     * is certain of one that was not over: NOT_EXECUTED, or UNKNOWN. */
    enum semel_outcome (*close)(struct sml_run *run);
};

/* One task, where it runs. The first member of what an implementation has. */
struct sml_run {
    const struct sml_run_ops *ops;
};

struct sml_backend_ops {
    /* OK, or why there is no run. It may stir before this has returned. */
    enum semel_status (*start)(struct sml_backend *backend, const struct sml_run_spec *spec,
                               struct sml_run **out_run);
    /* No run is left. Closes what it created, and nothing else. */
    void (*close)(struct sml_backend *backend);
};

struct sml_backend {
    const struct sml_backend_ops *ops;
};

/* What a backend may do on the executor's loop by itself: between `begin` and `end` whoever stirs
 * does not wake the loop, for `end` serves all of them. Runs may be closed in there. */
struct sml_turn {
    struct semel_loop *loop;
    void (*begin)(void *user);
    void (*end)(void *user);
    void *user;
};

/* NULL: no memory. */
struct sml_backend *sml_client_backend(struct semel_client *client);
/* `owned`: it is destroyed with the backend; moved on success. `turn` is copied. */
struct sml_backend *sml_pool_backend(struct semel_pool *pool, bool owned,
                                     const struct sml_turn *turn);

#endif
