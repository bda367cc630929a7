/* SPDX-License-Identifier: MIT */
/* task_state.h - which words about a task may follow each other, and what each makes of it. Pure.
 *
 * S started, R returned, X raised, C cancelled, A abandoned (it was cancelled before it started).
 * From the first word to the last just these sequences are legal: SR SX CSR CSX SCR SCX CA. */
#ifndef SML_PROC_TASK_STATE_H
#define SML_PROC_TASK_STATE_H

#include <stdbool.h>

#include <semel/task.h>

enum sml_task_word {
    SML_TASK_STARTED,
    SML_TASK_RETURNED,
    SML_TASK_RAISED,
    SML_TASK_CANCELLED,
    SML_TASK_ABANDONED
};
#define SML_TASK_WORDS 5

/* All there is to know: CANCELLING is two, of one that has started and of one that has not. */
enum sml_task_stage {
    SML_TASK_AT_WAITING,
    SML_TASK_AT_EXECUTING,
    SML_TASK_AT_COMPLETED,
    SML_TASK_AT_FAILED,
    SML_TASK_AT_CANCELLING_WAITING,
    SML_TASK_AT_CANCELLING_EXECUTING,
    SML_TASK_AT_CANCELLED
};
#define SML_TASK_STAGES 7

/* False: the word is not legal now, and nothing was changed. */
bool sml_task_hear(enum sml_task_stage *stage, enum sml_task_word word);

/* What the application sees of it. */
enum semel_future_state sml_task_state(enum sml_task_stage stage);
bool sml_task_is_cancellable(enum semel_future_state state);
bool sml_task_is_done(enum semel_future_state state);
/* enum semel_future_change: what differs between the two. */
unsigned sml_task_changes(enum semel_future_state was, enum semel_future_state is);

#endif
