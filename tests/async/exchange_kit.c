/* SPDX-License-Identifier: MIT */
#include "async/exchange_kit.h"

#include <string.h>

#include "async/exchange_internal.h"
#include "base/check.h"
#include "base/time.h"

/* --- the walk
 * ---------------------------------------------------------------------------------- */

struct walk {
    const struct sml_exchange *exchange;
    uint32_t topics;
    uint64_t events, bytes, held, mentions;
};

static void walk_events(struct walk *walk, const struct sml_topic *topic)
{
    const struct sml_list *node, *head = &topic->events;
    uint64_t last = 0;

    for (node = head->next; node != head; node = node->next) {
        const struct sml_event *event = SML_CONTAINER(node, struct sml_event, link);

        SML_ASSERT(event->topic == topic);
        SML_ASSERT(event->number > last);
        SML_ASSERT(!event->fresh || node->next == head);
        SML_ASSERT(sml_list_linked(&event->age.link) || event->age.heap.in_heap);
        SML_ASSERT(atomic_load(&event->refs) >= 1);
        last = event->number;
        walk->events++;
        walk->bytes += event->data.size;
    }
}

static void walk_line(struct walk *walk, const struct sml_topic *topic)
{
    const struct sml_list *node, *head = &topic->line;

    for (node = head->next; node != head; node = node->next) {
        const struct sml_mention *mention = SML_CONTAINER(node, struct sml_mention, link);

        SML_ASSERT(mention->topic == topic && mention->event == NULL);
        SML_ASSERT(mention->wait->state == SML_EVENT_WAIT_WAITING);
        walk->mentions++;
    }
}

static void walk_topics(struct walk *walk)
{
    const struct sml_topics *topics = &walk->exchange->topics;
    const struct sml_topic *topic = NULL;

    while ((topic = sml_topics_next(topics, topic)) != NULL) {
        struct semel_bytes id = semel_bytes(topic->id, topic->id_bytes);

        SML_ASSERT(sml_topics_find(topics, topic->hash, id) == topic);
        SML_ASSERT(sml_topic_has_event(topic) || !sml_list_empty(&topic->line) || topic->held);
        walk->topics++;
        walk->held += topic->held;
        walk_events(walk, topic);
        walk_line(walk, topic);
    }
}

static void check_wait(const struct sml_event_wait *wait)
{
    uint32_t present = 0;

    for (uint32_t i = 0; i < wait->distinct; i++)
        present += sml_topic_has_event(wait->mentions[i].topic);
    SML_ASSERT(wait->state == SML_EVENT_WAIT_WAITING);
    SML_ASSERT(present == wait->present && present < wait->need);
}

void exchange_validate(const struct sml_exchange *exchange)
{
    const struct semel_exchange_counters *counters = &exchange->counters;
    struct walk walk = { .exchange = exchange };
    const struct sml_list *node;
    uint64_t waits = 0;

    walk_topics(&walk);
    for (node = exchange->waiting.next; node != &exchange->waiting; node = node->next, waits++)
        check_wait(SML_CONTAINER(node, struct sml_event_wait, link));
    SML_ASSERT(walk.topics == exchange->topics.count);
    SML_ASSERT(walk.held == counters->held);
    SML_ASSERT(walk.events + walk.held == counters->events);
    SML_ASSERT(walk.bytes <= counters->bytes);
    SML_ASSERT(walk.mentions == exchange->wait_ids);
    SML_ASSERT(waits == counters->waits);
    SML_ASSERT(!exchange->closed || walk.events + waits == 0);
}

/* --- the model
 * --------------------------------------------------------------------------------- */

void model_init(struct model *model, enum semel_delivery delivery, int retention)
{
    memset(model, 0, sizeof *model);
    model->delivery = delivery;
    model->retention = retention;
}

static struct model_event pop(struct model *model, int id, int at)
{
    struct model_event event = model->ids[id].events[at];

    model->ids[id].count--;
    for (int i = at; i < model->ids[id].count; i++)
        model->ids[id].events[i] = model->ids[id].events[i + 1];
    return event;
}

static void push(struct model *model, int id, struct model_event event)
{
    int at = model->ids[id].count++;

    for (; at > 0 && model->ids[id].events[at - 1].number > event.number; at--)
        model->ids[id].events[at] = model->ids[id].events[at - 1];
    model->ids[id].events[at] = event;
}

static int present(const struct model *model, const struct model_wait *wait)
{
    int count = 0;

    for (int id = 0; id < MODEL_IDS; id++)
        count += (wait->ids >> id & 1) && model->ids[id].count > 0;
    return count;
}

static void end(struct model *model, struct model_wait *wait, enum semel_status status, int most,
                bool take, int now)
{
    struct model_end *ended = &model->ends[model->end_count++];

    memset(ended, 0, sizeof *ended);
    ended->wait = (int)(wait - model->waits);
    ended->status = status;
    wait->waiting = false;
    for (int id = 0; id < MODEL_IDS && most > 0; id++) {
        if (!(wait->ids >> id & 1) || model->ids[id].count == 0)
            continue;
        most--;
        ended->told[id] = model->ids[id].events[0].number;
        if (!take)
            continue;
        wait->held[id] = pop(model, id, 0);
        wait->held[id].held_at = now;
        wait->holding |= wait->holds;
        if (!wait->holds)
            wait->held[id].number = 0;
    }
}

static void meet(struct model *model, struct model_wait *wait)
{
    bool take = model->delivery == SEMEL_EVENTS_TAKE;

    end(model, wait, SEMEL_OK, take ? wait->need : MODEL_IDS, take, model->now);
}

/* Whoever is met now, the first in line first. */
static void serve(struct model *model)
{
    for (int i = 0; i < model->wait_count; i++)
        if (model->waits[i].waiting && present(model, &model->waits[i]) >= model->waits[i].need)
            meet(model, &model->waits[i]);
}

static void give_up(struct model *model, struct model_wait *wait, int now)
{
    end(model, wait, SEMEL_DEADLINE, MODEL_IDS,
        model->delivery == SEMEL_EVENTS_TAKE && wait->unmet == SEMEL_UNMET_TAKE, now);
}

/* What falls due at `time`: events first, then the waits in the order of their deadlines, which is
 * the order of their starts if they are the same. */
static void expire(struct model *model, int time)
{
    for (int id = 0; id < MODEL_IDS; id++)
        for (int i = model->ids[id].count - 1; i >= 0; i--)
            if (model->ids[id].events[i].expires == time) {
                (void)pop(model, id, i);
                model->expired++;
            }
    for (int i = 0; i < model->wait_count; i++)
        if (model->waits[i].waiting && model->waits[i].deadline == time)
            give_up(model, &model->waits[i], time);
}

void model_pass(struct model *model, int time)
{
    for (; time > 0; time--)
        expire(model, ++model->now);
}

bool model_trigger(struct model *model, int id)
{
    struct model_event event = { model->numbers + 1, model->now + model->retention, 0, true };
    int count = model->ids[id].count;

    if (model->closed)
        return false;
    model->numbers++;
    if (count > 0 && model->ids[id].events[count - 1].fresh) {
        (void)pop(model, id, count - 1);
        model->overwritten++;
    }
    push(model, id, event);
    serve(model);
    return true;
}

bool model_start(struct model *model, unsigned ids, int need, int timeout, enum semel_unmet unmet,
                 bool holds)
{
    struct model_wait wait = { .ids = ids,
                               .need = need > 0 ? need : __builtin_popcount(ids),
                               .deadline = model->now + timeout,
                               .unmet = unmet,
                               .holds = holds,
                               .waiting = true };
    struct model_wait *started = &model->waits[model->wait_count];

    if (model->closed)
        return false;
    *started = wait;
    model->wait_count++;
    serve(model);
    if (started->waiting && timeout == 0)
        give_up(model, started, model->now);
    return true;
}

void model_cancel(struct model *model, int wait)
{
    if (model->waits[wait].waiting)
        end(model, &model->waits[wait], SEMEL_CANCELLED, 0, false, model->now);
}

void model_accept(struct model *model, int wait)
{
    for (int id = 0; id < MODEL_IDS; id++)
        model->waits[wait].held[id].number = 0;
    model->waits[wait].holding = false;
}

void model_give_back(struct model *model, int wait)
{
    for (int id = 0; id < MODEL_IDS; id++) {
        struct model_event event = model->waits[wait].held[id];

        model->waits[wait].held[id].number = 0;
        if (event.number == 0 || model->closed)
            continue;
        event.fresh = false;
        event.expires += model->now - event.held_at;
        push(model, id, event);
        serve(model);
    }
    model->waits[wait].holding = false;
}

void model_close(struct model *model)
{
    if (model->closed)
        return;
    model->closed = true;
    for (int i = 0; i < model->wait_count; i++)
        if (model->waits[i].waiting)
            end(model, &model->waits[i], SEMEL_STOPPED, 0, false, model->now);
    for (int id = 0; id < MODEL_IDS; id++)
        model->ids[id].count = 0;
}

int model_events(const struct model *model)
{
    int count = 0;

    for (int id = 0; id < MODEL_IDS; id++)
        count += model->ids[id].count;
    for (int i = 0; i < model->wait_count; i++)
        for (int id = 0; id < MODEL_IDS; id++)
            count += model->waits[i].held[id].number > 0;
    return count;
}
