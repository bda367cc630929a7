/* SPDX-License-Identifier: MIT */
/* reverse_callee.c - see reverse_callee.h. */
#include "rpc/reverse_callee.h"

#include <string.h>

#include "base/check.h"

void sml_reverse_callee_init(struct sml_reverse_callee *callee, const struct sml_mem *mem,
                             const struct sml_reverse_terms *own, uint64_t bytes_max)
{
    memset(callee, 0, sizeof *callee);
    callee->mem = mem;
    callee->own = *own;
    callee->bytes_max = bytes_max;
    sml_table_init(&callee->table, mem, own->window);
    sml_list_init(&callee->arrived);
    sml_list_init(&callee->running);
    sml_list_init(&callee->answers);
}

static void free_answer(struct sml_reverse_callee *callee, struct sml_reverse_answer *answer)
{
    callee->bytes -= answer->size;
    sml_list_remove(&answer->link);
    sml_release(callee->mem, answer);
}

static struct sml_reverse_work *first(const struct sml_list *list)
{
    return sml_list_empty(list) ? NULL : SML_CONTAINER(list->next, struct sml_reverse_work, link);
}

void sml_reverse_callee_reset(struct sml_reverse_callee *callee, struct sml_list *out_arrived)
{
    struct sml_reverse_answer *answer;
    struct sml_reverse_work *work;

    while ((answer = sml_reverse_first_answer(callee)) != NULL)
        free_answer(callee, answer);
    while ((work = first(&callee->running)) != NULL) {
        work->state = SML_REVERSE_ORPHAN;
        sml_list_remove(&work->link);
    }
    for (struct sml_list *at = callee->arrived.next; at != &callee->arrived; at = at->next)
        callee->bytes -= SML_CONTAINER(at, struct sml_reverse_work, link)->bytes;
    sml_list_move_all(out_arrived, &callee->arrived);
    sml_table_fini(&callee->table);
    sml_table_init(&callee->table, callee->mem, callee->own.window);
    callee->agreed = false;
    callee->last = 0;
}

void sml_reverse_callee_fini(struct sml_reverse_callee *callee)
{
    SML_ASSERT(sml_list_empty(&callee->arrived) && sml_list_empty(&callee->answers));
    sml_table_fini(&callee->table);
}

/* --- messages ------------------------------------------------------------------------------- */

const char *sml_reverse_agree(struct sml_reverse_callee *callee,
                              const struct sml_reverse_message *message)
{
    if (callee->agreed)
        return "terms of reverse calls twice";
    callee->server = message->terms;
    callee->agreed = true;
    return NULL;
}

const char *sml_reverse_check(const struct sml_reverse_callee *callee,
                              const struct sml_reverse_message *message)
{
    if (!callee->agreed)
        return "reverse call before the terms";
    if (message->number <= callee->last)
        return "reverse call whose number does not rise";
    if (callee->table.count >= callee->own.window)
        return "more reverse calls than were granted";
    if (message->request.body.size > callee->own.body_bytes)
        return "reverse call with a body larger than it may be";
    return NULL;
}

bool sml_reverse_arrive(struct sml_reverse_callee *callee, struct sml_reverse_work *work,
                        const struct sml_reverse_message *message, uint64_t bytes)
{
    SML_ASSERT(sml_reverse_check(callee, message) == NULL);
    if (!sml_table_insert(&callee->table, message->number, work))
        return false;
    callee->last = work->number = message->number;
    work->bytes = bytes;
    work->state = SML_REVERSE_ARRIVED;
    callee->bytes += bytes;
    sml_list_init(&work->link);
    sml_list_push_back(&callee->arrived, &work->link);
    return true;
}

const char *sml_reverse_cancelled(const struct sml_reverse_callee *callee,
                                  const struct sml_reverse_message *message,
                                  struct sml_reverse_work **out_work)
{
    if (message->number > callee->last)
        return "cancellation of a reverse call that was never made";
    *out_work = sml_table_find(&callee->table, message->number);
    return NULL;
}

/* --- work ------------------------------------------------------------------------------------ */

void sml_reverse_begin(struct sml_reverse_callee *callee, struct sml_reverse_work *work)
{
    SML_ASSERT(work->state == SML_REVERSE_ARRIVED);
    work->state = SML_REVERSE_RUNNING;
    sml_list_remove(&work->link);
    sml_list_push_back(&callee->running, &work->link);
}

struct sml_reverse_answer *sml_reverse_answer_create(const struct sml_reverse_callee *callee,
                                                     uint64_t number,
                                                     const struct sml_verdict *verdict)
{
    size_t size = sml_reverse_reply_bytes(verdict);
    struct sml_reverse_answer *answer = sml_alloc(callee->mem, sizeof *answer + size);

    if (answer == NULL)
        return NULL;
    answer->size = size;
    sml_list_init(&answer->link);
    sml_reverse_encode_reply(number, verdict, answer->bytes);
    return answer;
}

void sml_reverse_answer(struct sml_reverse_callee *callee, struct sml_reverse_work *work,
                        struct sml_reverse_answer *answer)
{
    SML_ASSERT(work->state == SML_REVERSE_RUNNING || work->state == SML_REVERSE_ORPHAN);
    callee->bytes -= work->bytes;
    if (work->state == SML_REVERSE_ORPHAN) {
        sml_release(callee->mem, answer);
    } else {
        (void)sml_table_remove(&callee->table, work->number);
        sml_list_remove(&work->link);
        callee->bytes += answer->size;
        sml_list_push_back(&callee->answers, &answer->link);
    }
    work->state = SML_REVERSE_ANSWERED;
}

struct sml_reverse_answer *sml_reverse_first_answer(const struct sml_reverse_callee *callee)
{
    const struct sml_list *list = &callee->answers;

    return sml_list_empty(list) ? NULL : SML_CONTAINER(list->next, struct sml_reverse_answer, link);
}

void sml_reverse_answered(struct sml_reverse_callee *callee, struct sml_reverse_answer *answer)
{
    free_answer(callee, answer);
}
