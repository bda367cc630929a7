/* SPDX-License-Identifier: MIT */
/* stream.c - parts and credits.
 *
 * Invariants, until its call is over:
 *  - taken <= sent <= added, and `parts` holds the parts from `taken` on, in order;
 *  - `next` is the part number `sent`, or NULL if that was not added yet;
 *  - a part is sent only if the stream's charge up to its end is within the limit, which only
 *    rises but for a restart;
 *  - at the receiver charge <= limit and limit <= taken_charge + window. */
#include "session/stream.h"

#include <string.h>

#include "base/bug.h"
#include "base/check.h"

#define PART_CHARGE_MAX (SML_FRAGMENT_BYTES + SML_PART_CHARGE)

static struct sml_part *part_of(struct sml_list *node)
{
    return SML_CONTAINER(node, struct sml_part, node);
}

static uint64_t charge_of(size_t bytes)
{
    return bytes + SML_PART_CHARGE;
}

static struct sml_part *create(const struct sml_mem *mem, enum sml_part_kind kind, size_t size,
                               size_t own)
{
    struct sml_part *part = sml_alloc(mem, sizeof *part + own);

    SML_ASSERT(size <= SML_FRAGMENT_BYTES);
    if (part == NULL)
        return NULL;
    sml_list_init(&part->node);
    part->number = part->charge_end = 0;
    part->kind = kind;
    part->size = (uint32_t)size;
    atomic_init(&part->refs, 1);
    part->bytes = part->own;
    part->backing = NULL;
    return part;
}

struct sml_part *sml_part_create(const struct sml_mem *mem, enum sml_part_kind kind,
                                 struct semel_bytes bytes)
{
    return sml_part_create_headed(mem, kind, semel_bytes(NULL, 0), bytes);
}

struct sml_part *sml_part_create_headed(const struct sml_mem *mem, enum sml_part_kind kind,
                                        struct semel_bytes head, struct semel_bytes bytes)
{
    size_t size = head.size + bytes.size;
    struct sml_part *part = create(mem, kind, size, size);

    if (part && head.size > 0)
        memcpy(part->own, head.data, head.size);
    if (part && bytes.size > 0)
        memcpy(part->own + head.size, bytes.data, bytes.size);
    return part;
}

struct sml_part *sml_part_create_in(const struct sml_mem *mem, enum sml_part_kind kind,
                                    struct semel_bytes bytes, struct sml_backing *backing)
{
    struct sml_part *part = create(mem, kind, bytes.size, 0);

    if (part) {
        part->bytes = bytes.size > 0 ? bytes.data : part->own;
        part->backing = backing;
    }
    return part;
}

void sml_part_release(const struct sml_mem *mem, struct sml_part *part)
{
    if (part == NULL || atomic_fetch_sub_explicit(&part->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (part->backing)
        part->backing->release(part->backing);
    sml_release(mem, part);
}

void sml_stream_init(struct sml_stream *stream, bool sends, bool takes)
{
    memset(stream, 0, sizeof *stream);
    stream->sends = sends;
    stream->takes = takes;
    sml_list_init(&stream->out.parts);
    stream->out.open = true;
    stream->out.limit = SML_STREAM_CREDIT;
    sml_list_init(&stream->in.parts);
    stream->in.window = SML_STREAM_CREDIT;
    stream->in.limit = SML_STREAM_CREDIT;
    sml_list_init(&stream->send);
    sml_list_init(&stream->event);
}

static void free_parts(struct sml_list *parts, const struct sml_mem *mem)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(parts)) != NULL)
        sml_part_release(mem, part_of(node));
}

void sml_outflow_drop(struct sml_outflow *out, const struct sml_mem *mem)
{
    free_parts(&out->parts, mem);
    sml_part_release(mem, out->progress);
    out->next = out->progress = NULL;
    out->progress_due = false;
}

void sml_stream_clear(struct sml_stream *stream, const struct sml_mem *mem)
{
    SML_ASSERT(!sml_list_linked(&stream->send) && !sml_list_linked(&stream->event));
    sml_outflow_drop(&stream->out, mem);
    free_parts(&stream->in.parts, mem);
    sml_part_release(mem, stream->in.progress);
    stream->in.progress = NULL;
}

void sml_stream_widen(struct sml_stream *stream, uint64_t *windows)
{
    if (*windows + SML_STREAM_WINDOW > SML_STREAM_WINDOWS)
        return;
    stream->in.window = SML_STREAM_WINDOW;
    *windows += SML_STREAM_WINDOW;
}

void sml_stream_narrow(struct sml_stream *stream, uint64_t *windows)
{
    if (stream->in.window > SML_STREAM_CREDIT)
        *windows -= stream->in.window;
    stream->in.window = SML_STREAM_CREDIT;
}

/* --- sending ----------------------------------------------------------------------------- */

void sml_outflow_add(struct sml_outflow *out, struct sml_part *part)
{
    SML_ASSERT(!out->ended);
    part->number = out->added++;
    out->charge += charge_of(part->size);
    part->charge_end = out->charge;
    sml_list_push_back(&out->parts, &part->node);
    if (out->next == NULL)
        out->next = part;
}

void sml_outflow_set_progress(struct sml_outflow *out, const struct sml_mem *mem,
                              struct sml_part *progress)
{
    sml_part_release(mem, out->progress);
    out->progress = progress;
    out->progress_due = true;
}

void sml_outflow_end(struct sml_outflow *out)
{
    out->ended = true;
}

static bool next_may_go(const struct sml_outflow *out)
{
    if (out->next == NULL)
        return out->ended && !out->end_sent;
    return out->next->charge_end <= out->limit || SML_BUG(CREDIT_IGNORED);
}

bool sml_outflow_is_ready(const struct sml_outflow *out)
{
    return out->open && (out->progress_due || next_may_go(out));
}

/* `next` moves on. */
static void step(struct sml_outflow *out)
{
    struct sml_list *following = out->next->node.next;

    out->sent++;
    out->next = following == &out->parts ? NULL : part_of(following);
}

/* Its bytes are left where they are, for whoever writes. */
static size_t view(struct sml_views *views, uint64_t xid, struct sml_part *part,
                   const struct sml_part_frame *frame, uint8_t *at)
{
    size_t head = sml_encode_part_head(at, xid, frame);

    atomic_fetch_add_explicit(&part->refs, 1, memory_order_relaxed);
    views->list[views->count].after = at + head;
    views->list[views->count].part = part;
    views->count++;
    return head;
}

size_t sml_outflow_pull(struct sml_outflow *out, uint64_t xid, struct sml_views *views, uint8_t *at,
                        size_t room)
{
    struct sml_part_frame frame = { .number = out->added, .kind = SML_PART_END };
    struct sml_part *part = out->progress_due ? out->progress : out->next;
    bool viewed = views && part && part->size >= SML_VIEW_BYTES;

    if (!sml_outflow_is_ready(out) || (viewed && views->count == SML_VIEWS))
        return 0;
    if (part)
        frame = (struct sml_part_frame){ .number = part->number,
                                         .kind = part->kind,
                                         .bytes = { part->bytes, part->size } };
    if (room < SML_PART_OVERHEAD + (viewed ? 0 : frame.bytes.size))
        return 0;
    if (out->progress_due)
        out->progress_due = false;
    else if (part)
        step(out);
    else
        out->end_sent = true;
    return viewed ? view(views, xid, part, &frame, at) : sml_encode_part(at, xid, &frame);
}

/* Parts before number `taken` are kept no longer. */
static void forget(struct sml_outflow *out, const struct sml_mem *mem, uint64_t taken)
{
    while (out->taken < taken) {
        struct sml_part *part = part_of(sml_list_pop_front(&out->parts));

        out->taken++;
        out->taken_charge = part->charge_end;
        sml_part_release(mem, part);
    }
}

/* `next` is the part number `number`, not before `taken`. */
static void wind_to(struct sml_outflow *out, uint64_t number)
{
    struct sml_list *node = out->parts.next;

    while (node != &out->parts && part_of(node)->number < number)
        node = node->next;
    out->next = node == &out->parts ? NULL : part_of(node);
    out->sent = number;
    out->end_sent = out->cut;
}

const char *sml_outflow_credit(struct sml_outflow *out, const struct sml_mem *mem,
                               const struct sml_credit_frame *credit)
{
    if (credit->next > out->sent)
        return "CREDIT for parts that were not sent";
    if (credit->next < out->taken || credit->taken < out->taken)
        return "CREDIT takes back what it said";
    forget(out, mem, credit->taken);
    if (!out->open) {
        wind_to(out, SML_BUG(PARTS_SKIPPED) ? out->sent : credit->next);
        out->progress_due = out->progress != NULL;
    }
    out->open = true;
    if (credit->limit > out->limit)
        out->limit = credit->limit;
    return NULL;
}

void sml_outflow_down(struct sml_outflow *out)
{
    out->open = false;
}

bool sml_outflow_restart(struct sml_outflow *out)
{
    if (out->taken > 0 && !SML_BUG(ATTEMPTS_SPLICED))
        return false;
    wind_to(out, out->taken);
    out->open = true;
    out->limit = SML_STREAM_CREDIT;
    out->progress_due = out->progress != NULL;
    return true;
}

void sml_outflow_cut(struct sml_outflow *out, const struct sml_mem *mem)
{
    while (out->next) {
        struct sml_part *part = out->next;

        out->next = NULL;
        if (part->node.next != &out->parts)
            out->next = part_of(part->node.next);
        sml_list_remove(&part->node);
        sml_part_release(mem, part);
    }
    sml_part_release(mem, out->progress);
    out->progress = NULL;
    out->progress_due = false;
    out->added = out->sent;
    out->charge =
        sml_list_empty(&out->parts) ? out->taken_charge : part_of(out->parts.prev)->charge_end;
    out->open = out->ended = out->end_sent = out->cut = true;
}

/* --- receiving --------------------------------------------------------------------------- */

static const char *fault_of(const struct sml_inflow *in, const struct sml_part_frame *frame)
{
    if (frame->kind == SML_PART_PROGRESS)
        return NULL;
    if (frame->number != in->arrived)
        return "PART is not the next one";
    if (frame->kind == SML_PART_END)
        return NULL;
    if (in->ended)
        return "PART after the end of its stream";
    if (charge_of(frame->bytes.size) > in->limit - in->charge)
        return "PART goes over its credit";
    return NULL;
}

static struct sml_part *keep(const struct sml_mem *mem, const struct sml_part_frame *frame,
                             struct sml_backing *backing)
{
    struct sml_part *part;

    if (backing == NULL || frame->bytes.size < SML_VIEW_BYTES || !backing->hold(backing))
        return sml_part_create(mem, frame->kind, frame->bytes);
    part = sml_part_create_in(mem, frame->kind, frame->bytes, backing);
    if (part == NULL)
        backing->release(backing);
    return part;
}

enum semel_status sml_inflow_part(struct sml_inflow *in, const struct sml_mem *mem,
                                  const struct sml_part_frame *frame, struct sml_backing *backing,
                                  const char **out_why)
{
    const char *fault = fault_of(in, frame);
    struct sml_part *part;

    if (fault) {
        *out_why = fault;
        return SEMEL_PROTOCOL;
    }
    if (frame->kind == SML_PART_END) {
        in->begun = in->ended = true;
        return SEMEL_OK;
    }
    part = keep(mem, frame, backing);
    if (part == NULL)
        return SEMEL_NO_MEMORY;
    in->begun = true;
    if (frame->kind == SML_PART_PROGRESS) {
        sml_part_release(mem, in->progress);
        in->progress = part;
        return SEMEL_OK;
    }
    in->wide |= !in->inside && in->charge - in->told_charge >= SML_STREAM_CREDIT;
    in->inside = frame->kind == SML_PART_PIECE;
    in->charge += charge_of(part->size);
    part->number = in->arrived++;
    part->charge_end = in->charge;
    sml_list_push_back(&in->parts, &part->node);
    return SEMEL_OK;
}

struct sml_part *sml_inflow_take(struct sml_inflow *in)
{
    struct sml_list *node = sml_list_pop_front(&in->parts);

    if (node == NULL)
        return NULL;
    in->taken++;
    in->taken_charge = part_of(node)->charge_end;
    return part_of(node);
}

struct sml_part *sml_inflow_take_progress(struct sml_inflow *in)
{
    struct sml_part *progress = in->progress;

    in->progress = NULL;
    return progress;
}

bool sml_inflow_owes_credit(const struct sml_inflow *in)
{
    uint64_t granted = in->limit - in->taken_charge;
    uint64_t untold = in->taken_charge - in->told_charge;

    if (in->credit_due || in->ended)
        return in->credit_due;
    /* Its sender may be stuck before a part of full size, with what is granted; or with what it
     * keeps, if its window is a narrow one. */
    return granted <= in->window / 2 || granted < PART_CHARGE_MAX ||
           untold >= (in->wide ? SML_STREAM_CREDIT : SML_STREAM_CREDIT / 2);
}

size_t sml_inflow_encode_credit(struct sml_inflow *in, uint64_t xid, uint8_t *at)
{
    struct sml_credit_frame frame = { .next = in->arrived, .taken = in->taken };

    in->credit_due = false;
    in->told_charge = in->taken_charge;
    if (in->taken_charge + in->window > in->limit)
        in->limit = in->taken_charge + in->window;
    frame.limit = in->limit;
    return sml_encode_credit(at, xid, &frame);
}

void sml_inflow_restart(struct sml_inflow *in, const struct sml_mem *mem)
{
    if (!in->begun || SML_BUG(ATTEMPTS_SPLICED)) {
        in->limit = SML_STREAM_CREDIT;
        return;
    }
    free_parts(&in->parts, mem);
    sml_part_release(mem, in->progress);
    *in = (struct sml_inflow){ .window = in->window,
                               .limit = SML_STREAM_CREDIT,
                               .attempt = in->attempt + 1 };
    sml_list_init(&in->parts);
}

/* --- both -------------------------------------------------------------------------------- */

void sml_stream_resume(struct sml_stream *stream)
{
    sml_outflow_down(&stream->out);
    stream->in.credit_due = stream->takes;
}

bool sml_stream_wants_write(const struct sml_stream *stream, bool parts)
{
    return (stream->takes && sml_inflow_owes_credit(&stream->in)) ||
           (stream->sends && parts && sml_outflow_is_ready(&stream->out));
}

size_t sml_stream_pull(struct sml_stream *stream, uint64_t xid, bool parts, struct sml_views *views,
                       uint8_t *at, size_t room)
{
    if (stream->takes && sml_inflow_owes_credit(&stream->in))
        return room < SML_CREDIT_FRAME_BYTES ? 0 : sml_inflow_encode_credit(&stream->in, xid, at);
    return stream->sends && parts ? sml_outflow_pull(&stream->out, xid, views, at, room) : 0;
}
