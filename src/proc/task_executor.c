/* SPDX-License-Identifier: MIT */
/* task_executor.c - what tasks are submitted to, and its end.
 *
 * The loop watches one descriptor for all futures. In one turn each of those with news is served
 * some, in the order in which they had them; whoever has more goes to the end of the line, and the
 * loop does something else before the next turn. */
#include <stdlib.h>

#include "async/deferred.h"
#include "base/check.h"
#include "os/clock.h"
#include "os/thread.h"
#include "proc/task_internal.h"

#define TURN_ITEMS 256 /* told in one turn of the loop */
#define SHARE_ITEMS 32 /* of one future, before it is another's turn */

enum semel_status sml_executor_admit(const struct semel_executor *executor)
{
    if (!sml_origin_is_mine(&executor->origin))
        return SEMEL_FORKED;
    return sml_executor_is_here(executor->loop) ? SEMEL_OK : SEMEL_DENIED;
}

/* --- states ----------------------------------------------------------------------------------- */

static void enter(struct semel_executor *executor, enum semel_executor_state state)
{
    executor->state = state;
    if (executor->options.on_state == NULL)
        return;
    executor->telling++;
    executor->options.on_state(executor, state, executor->options.user);
    executor->telling--;
}

void sml_executor_settle(struct semel_executor *executor)
{
    if (executor->state == SEMEL_EXECUTOR_STOPPING && executor->tasks == 0)
        enter(executor, SEMEL_EXECUTOR_STOPPED);
}

void sml_executor_count_begun(struct semel_executor *executor)
{
    executor->waiting--;
}

void sml_executor_count_done(struct semel_executor *executor)
{
    executor->tasks--;
}

/* --- serving ---------------------------------------------------------------------------------- */

static struct semel_future *next_ready(struct semel_executor *executor)
{
    struct sml_list *node;

    sml_mutex_lock(&executor->lock);
    node = sml_list_pop_front(&executor->ready);
    sml_mutex_unlock(&executor->lock);
    return node ? SML_CONTAINER(node, struct semel_future, ready_link) : NULL;
}

/* One turn. True: it stopped before all was told. */
static bool serve(struct semel_executor *executor)
{
    unsigned left = TURN_ITEMS / SHARE_ITEMS;
    struct semel_future *future = NULL;

    while (left > 0 && (future = next_ready(executor)) != NULL) {
        left--;
        semel_future_ref(future);
        if (sml_future_serve(future, SHARE_ITEMS) && future->run)
            sml_future_stir(future);
        semel_future_unref(future);
    }
    return future != NULL;
}

static void serve_turn(struct semel_executor *executor)
{
    executor->telling++; /* it is not destroyed meanwhile */
    if (serve(executor))
        sml_wake_signal(&executor->wake);
    executor->telling--;
}

static void on_wake(struct semel_watch *watch, unsigned events, void *user)
{
    struct semel_executor *executor = user;

    (void)watch;
    (void)events;
    sml_wake_drain(&executor->wake);
    serve_turn(executor);
}

/* --- a backend's turn ------------------------------------------------------------------------- */

static void set_attended(struct semel_executor *executor, bool attended)
{
    sml_mutex_lock(&executor->lock);
    executor->attended = attended;
    sml_mutex_unlock(&executor->lock);
}

static void begin_turn(void *user)
{
    set_attended(user, true);
}

/* Whoever stirred before found the loop attended; whoever comes now wakes it. */
static void end_turn(void *user)
{
    set_attended(user, false);
    serve_turn(user);
}

/* --- submitting ------------------------------------------------------------------------------- */

static enum semel_status check(const struct semel_executor *executor,
                               const struct semel_task_options *options)
{
    enum semel_status status;

    if (executor == NULL || options->deadline_ms < 0 || options->deadline_ms > INT32_MAX)
        return SEMEL_INVALID;
    status = sml_executor_admit(executor);
    if (status != SEMEL_OK)
        return status;
    if (executor->state != SEMEL_EXECUTOR_RUNNING)
        return SEMEL_STOPPED;
    return executor->waiting >= executor->options.waiting_tasks ? SEMEL_OVERLOADED : SEMEL_OK;
}

static struct semel_future *new_future(struct semel_executor *executor,
                                       const struct semel_task_options *options)
{
    struct semel_future *future = calloc(1, sizeof *future);

    if (future == NULL)
        return NULL;
    future->executor = executor;
    future->refs = 1;
    future->stage = SML_TASK_AT_WAITING;
    future->told = SEMEL_FUTURE_WAITING;
    future->options = *options;
    future->options.content_type = NULL;
    sml_list_init(&future->link);
    sml_list_init(&future->waiters);
    sml_list_init(&future->ready_link);
    return future;
}

static enum semel_status start(struct semel_executor *executor, struct semel_future *future,
                               const char *method, struct semel_bytes body,
                               const struct semel_task_options *options)
{
    struct sml_run_spec spec = {
        .method = method,
        .body = body,
        .call = SEMEL_CALL_OPTIONS_INIT,
        .stir = sml_future_stir,
        .user = future,
    };

    spec.call.deadline_ms = options->deadline_ms ? options->deadline_ms : SEMEL_TASK_DEADLINE_MS;
    spec.call.rerun_ok = options->rerun_ok;
    spec.call.content_type = options->content_type;
    return executor->backend->ops->start(executor->backend, &spec, &future->run);
}

enum semel_status semel_executor_submit(struct semel_executor *executor, const char *method,
                                        struct semel_bytes body,
                                        const struct semel_task_options *options,
                                        struct semel_future **out_future)
{
    static const struct semel_task_options defaults = SEMEL_TASK_OPTIONS_INIT;
    struct semel_future *future;
    enum semel_status status;

    options = options ? options : &defaults;
    status = check(executor, options);
    if (status != SEMEL_OK)
        return status;
    future = new_future(executor, options);
    if (future == NULL)
        return SEMEL_NO_MEMORY;
    status = start(executor, future, method, body, options);
    if (status != SEMEL_OK) {
        semel_future_unref(future);
        return status;
    }
    executor->tasks++;
    executor->waiting++;
    sml_list_push_back(&executor->futures, &future->link);
    if (out_future)
        *out_future = semel_future_ref(future);
    return SEMEL_OK;
}

/* --- the end ---------------------------------------------------------------------------------- */

enum semel_executor_state semel_executor_state(const struct semel_executor *executor)
{
    return executor ? executor->state : SEMEL_EXECUTOR_STOPPED;
}

uint32_t semel_executor_tasks(const struct semel_executor *executor)
{
    return executor ? executor->tasks : 0;
}

struct semel_pool *semel_executor_pool(const struct semel_executor *executor)
{
    return executor ? executor->options.pool : NULL;
}

/* Those that can be, one by one: what is told of one may change which there are. */
static void cancel_all(struct semel_executor *executor)
{
    struct sml_list *node = executor->futures.next;

    while (node != &executor->futures) {
        struct semel_future *future = SML_CONTAINER(node, struct semel_future, link);

        node = semel_future_cancel(future) ? executor->futures.next : node->next;
    }
}

void semel_executor_stop(struct semel_executor *executor)
{
    if (executor == NULL || sml_executor_admit(executor) != SEMEL_OK ||
        executor->state != SEMEL_EXECUTOR_RUNNING)
        return;
    enter(executor, SEMEL_EXECUTOR_STOPPING);
    cancel_all(executor);
    sml_executor_settle(executor);
}

/* What is told in here is told as in a loop's callback: nothing in it may wait. */
static void serve_until(struct semel_executor *executor, uint64_t until)
{
    bool more = true;

    while (executor->tasks > 0 && more) {
        uint32_t seen = sml_news_seen(&executor->news);

        sml_thread_enter_loop();
        while (serve(executor))
            continue;
        sml_thread_leave_loop();
        if (executor->tasks > 0)
            more = until > 0 && sml_news_wait(&executor->news, seen, until);
    }
}

enum semel_status semel_executor_shutdown(struct semel_executor *executor, int64_t timeout_ms,
                                          uint32_t *out_running)
{
    enum semel_status status = executor ? sml_executor_admit(executor) : SEMEL_INVALID;

    if (status != SEMEL_OK)
        return status;
    if (executor->telling > 0 || sml_thread_in_loop()) {
        if (timeout_ms == 0)
            semel_executor_stop(executor);
        return SEMEL_WOULD_DEADLOCK;
    }
    semel_executor_stop(executor);
    serve_until(executor, sml_stream_until(timeout_ms));
    if (out_running)
        *out_running = executor->tasks;
    return executor->state == SEMEL_EXECUTOR_STOPPED ? SEMEL_OK : SEMEL_DEADLINE;
}

static void release(struct semel_executor *executor)
{
    if (executor->watch)
        (void)semel_watch_remove(executor->watch);
    sml_wake_close(&executor->wake);
    sml_mutex_fini(&executor->lock);
    if (executor->backend)
        executor->backend->ops->close(executor->backend);
    sml_origin_fini(&executor->origin);
    sml_executor_leave(executor->loop);
    free(executor);
}

enum semel_status semel_executor_destroy(struct semel_executor *executor)
{
    enum semel_status status = executor ? sml_executor_admit(executor) : SEMEL_OK;

    if (executor == NULL || status != SEMEL_OK)
        return status;
    if (executor->telling > 0 || sml_thread_in_loop())
        return SEMEL_WOULD_DEADLOCK;
    semel_executor_stop(executor);
    while (!sml_list_empty(&executor->futures))
        sml_future_give_up(SML_CONTAINER(executor->futures.next, struct semel_future, link));
    SML_ASSERT(executor->state == SEMEL_EXECUTOR_STOPPED);
    release(executor);
    return SEMEL_OK;
}

/* --- creating --------------------------------------------------------------------------------- */

static enum semel_status open_backend(struct semel_executor *executor, struct semel_loop *loop)
{
    const struct sml_turn turn = { loop, begin_turn, end_turn, executor };
    struct semel_executor_options *options = &executor->options;
    bool owned = options->pool == NULL && options->client == NULL;

    if (owned) {
        enum semel_status status = semel_pool_create(&options->pool, options->own_pool);

        if (status != SEMEL_OK)
            return status;
    }
    if (options->client)
        executor->backend = sml_client_backend(options->client);
    else
        executor->backend = sml_pool_backend(options->pool, owned, &turn);
    options->own_pool = NULL; /* it was borrowed */
    if (executor->backend == NULL && owned)
        (void)semel_pool_destroy(options->pool);
    return executor->backend ? SEMEL_OK : SEMEL_NO_MEMORY;
}

static enum semel_status open(struct semel_executor *executor, struct semel_loop *loop)
{
    enum semel_status status = sml_wake_open(&executor->wake);

    if (status == SEMEL_OK)
        status = open_backend(executor, loop);
    if (status != SEMEL_OK)
        return status;
    return semel_loop_watch(loop, executor->wake.fd, SEMEL_WATCH_READ, on_wake, executor,
                            &executor->watch);
}

enum semel_status semel_executor_create(struct semel_executor **out, struct semel_loop *loop,
                                        const struct semel_executor_options *options)
{
    static const struct semel_executor_options defaults = SEMEL_EXECUTOR_OPTIONS_INIT;
    struct semel_executor *executor;
    enum semel_status status;

    options = options ? options : &defaults;
    if (out == NULL || loop == NULL || (options->pool && options->client) ||
        (options->own_pool && (options->pool || options->client)))
        return SEMEL_INVALID;
    if (!sml_executor_is_here(sml_executor_of(loop)))
        return SEMEL_DENIED;
    executor = calloc(1, sizeof *executor);
    if (executor == NULL)
        return SEMEL_NO_MEMORY;
    executor->loop = sml_executor_of(loop);
    sml_executor_enter(executor->loop);
    sml_origin_init(&executor->origin);
    executor->options = *options;
    if (executor->options.waiting_tasks == 0)
        executor->options.waiting_tasks = SEMEL_WAITING_TASKS;
    executor->wake.fd = -1;
    sml_mutex_init(&executor->lock);
    sml_list_init(&executor->futures);
    sml_list_init(&executor->ready);
    status = open(executor, loop);
    if (status != SEMEL_OK) {
        release(executor);
        return status;
    }
    *out = executor;
    return SEMEL_OK;
}
