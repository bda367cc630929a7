/* SPDX-License-Identifier: MIT */
#include "proc/task_state.h"

#define NO (-1)

/* clang-format off */
static const signed char next[SML_TASK_STAGES][SML_TASK_WORDS] = {
    /*                             S                                R  X  C  A */
    [SML_TASK_AT_WAITING] =
        { SML_TASK_AT_EXECUTING,            NO, NO, SML_TASK_AT_CANCELLING_WAITING, NO },
    [SML_TASK_AT_EXECUTING] =
        { NO, SML_TASK_AT_COMPLETED, SML_TASK_AT_FAILED, SML_TASK_AT_CANCELLING_EXECUTING, NO },
    [SML_TASK_AT_CANCELLING_WAITING] =
        { SML_TASK_AT_CANCELLING_EXECUTING, NO, NO, NO, SML_TASK_AT_CANCELLED },
    [SML_TASK_AT_CANCELLING_EXECUTING] =
        { NO, SML_TASK_AT_CANCELLED, SML_TASK_AT_CANCELLED, NO, NO },
    [SML_TASK_AT_COMPLETED] = { NO, NO, NO, NO, NO },
    [SML_TASK_AT_FAILED] = { NO, NO, NO, NO, NO },
    [SML_TASK_AT_CANCELLED] = { NO, NO, NO, NO, NO },
};
/* clang-format on */

bool sml_task_hear(enum sml_task_stage *stage, enum sml_task_word word)
{
    signed char to;

    if ((unsigned)*stage >= SML_TASK_STAGES || (unsigned)word >= SML_TASK_WORDS)
        return false;
    to = next[*stage][word];
    if (to == NO)
        return false;
    *stage = (enum sml_task_stage)to;
    return true;
}

enum semel_future_state sml_task_state(enum sml_task_stage stage)
{
    static const enum semel_future_state seen[SML_TASK_STAGES] = {
        [SML_TASK_AT_WAITING] = SEMEL_FUTURE_WAITING,
        [SML_TASK_AT_EXECUTING] = SEMEL_FUTURE_EXECUTING,
        [SML_TASK_AT_COMPLETED] = SEMEL_FUTURE_COMPLETED,
        [SML_TASK_AT_FAILED] = SEMEL_FUTURE_FAILED,
        [SML_TASK_AT_CANCELLING_WAITING] = SEMEL_FUTURE_CANCELLING,
        [SML_TASK_AT_CANCELLING_EXECUTING] = SEMEL_FUTURE_CANCELLING,
        [SML_TASK_AT_CANCELLED] = SEMEL_FUTURE_CANCELLED,
    };

    return seen[stage];
}

bool sml_task_is_cancellable(enum semel_future_state state)
{
    return state == SEMEL_FUTURE_WAITING || state == SEMEL_FUTURE_EXECUTING;
}

bool sml_task_is_done(enum semel_future_state state)
{
    return state == SEMEL_FUTURE_COMPLETED || state == SEMEL_FUTURE_FAILED ||
           state == SEMEL_FUTURE_CANCELLED;
}

unsigned sml_task_changes(enum semel_future_state was, enum semel_future_state is)
{
    unsigned changes = 0;

    if (was != is)
        changes |= SEMEL_CHANGED_STATE;
    if (sml_task_is_cancellable(was) != sml_task_is_cancellable(is))
        changes |= SEMEL_CHANGED_CANCELLABLE;
    if (sml_task_is_done(was) != sml_task_is_done(is))
        changes |= SEMEL_CHANGED_DONE;
    return changes;
}
