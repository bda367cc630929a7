/* SPDX-License-Identifier: MIT */
/* client_defer.c - a call as a deferred.
 *
 * The record lies beside the deferred, and has a reference to it until the call is complete. The
 * completion comes on a thread of the client; it moves the result out and posts the rest: firing,
 * and giving back the call's handle, which the canceller uses, happen on the loop's thread only. */
#include <semel/client.h>
#include <stdlib.h>
#include <string.h>

#include "async/deferred.h"
#include "base/executor.h"
#include "io/loop_internal.h"

struct deferred_call {
    struct semel_deferred *deferred;
    struct semel_call *call;
    struct semel_result *result; /* there from the start: completing cannot fail */
    struct semel_task task;
};

static void drop_result(void *value)
{
    semel_result_clear(value);
    free(value);
}

const struct semel_result *semel_fired_call(const struct semel_fired *fired)
{
    return fired && fired->drop == drop_result ? fired->value : NULL;
}

/* On the loop's thread. A reply that there was no memory for is a failure here; that the call
 * happened, its result still says. */
static void fire(void *user)
{
    struct deferred_call *record = user;
    struct semel_deferred *deferred = record->deferred;
    struct semel_result *result = record->result;
    struct semel_fired fired;

    sml_fired_init(&fired);
    if (result->status != SEMEL_OK)
        sml_fired_fail(&fired, result->status, result->code, result->text);
    fired.value = result;
    fired.drop = drop_result;
    semel_call_unref(record->call);
    (void)sml_deferred_fire_with(deferred, &fired);
    semel_deferred_unref(deferred);
}

static void completed(struct semel_result *result, void *user)
{
    struct deferred_call *record = user;
    struct sml_executor *executor = sml_deferred_executor(record->deferred);

    if (semel_result_take(result, record->result) != SEMEL_OK)
        *record->result = (struct semel_result){
            .outcome = result->outcome,
            .status = SEMEL_NO_MEMORY,
            .call = result->call,
        };
    executor->ops->post(executor, &record->task);
}

static bool cancel(struct semel_deferred *deferred, void *user)
{
    struct deferred_call *record = sml_deferred_extra(deferred);

    (void)user;
    semel_call_cancel(record->call);
    return true; /* the verdict will come, and is the truth */
}

static struct deferred_call *new_record(struct semel_loop *loop)
{
    struct semel_deferred *deferred =
        sml_deferred_new(sml_executor_of(loop), cancel, NULL, sizeof(struct deferred_call));
    struct deferred_call *record;

    if (!deferred)
        return NULL;
    record = sml_deferred_extra(deferred);
    memset(record, 0, sizeof *record);
    record->deferred = deferred;
    record->task = (struct semel_task)SEMEL_TASK_INIT(fire, record);
    record->result = calloc(1, sizeof *record->result);
    if (record->result)
        return record;
    semel_deferred_unref(deferred);
    return NULL;
}

enum semel_status semel_client_defer(struct semel_client *client, const char *method,
                                     struct semel_bytes body,
                                     const struct semel_call_options *options,
                                     struct semel_loop *loop, struct semel_deferred **out)
{
    struct deferred_call *record;
    struct semel_deferred *deferred;
    enum semel_status status;

    if (!client || !loop || !out)
        return SEMEL_INVALID;
    if (sml_loop_admit(loop) == SEMEL_FORKED)
        return SEMEL_FORKED; /* before there is a deferred that nobody here could free */
    record = new_record(loop);
    if (!record)
        return SEMEL_NO_MEMORY;
    deferred = semel_deferred_ref(record->deferred);
    status = semel_client_start(client, method, body, options, completed, record, &record->call);
    if (status != SEMEL_OK) {
        free(record->result);
        semel_deferred_unref(deferred);
        semel_deferred_unref(deferred);
        return status;
    }
    *out = deferred;
    return SEMEL_OK;
}
