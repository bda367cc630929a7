/* SPDX-License-Identifier: MIT */
/* stream.h - parts that flow while a call is open, from the caller and to it. Pure; the same at
 * both ends.
 *
 * Parts are numbered from 0. The sender keeps each until the receiver has handed it on, so that a
 * call that a full server refused, or one that has to be made again, begins its stream again. After
 * a reconnect the sender is silent until the receiver's first CREDIT, which says what it waits for:
 * nothing is lost, nothing comes twice.
 *
 * Credits are absolute. A part is charged its bytes and SML_PART_CHARGE; the receiver says up to
 * which sum it may be sent, at first SML_STREAM_CREDIT without a word. So what waits for a slow
 * reader is bounded stream by stream, and takes no room from its neighbours.
 *
 * Progress stands outside: only the latest counts, it overtakes what waits for credit, and of
 * several that were set between two writes only the last is sent. */
#ifndef SML_SESSION_STREAM_H
#define SML_SESSION_STREAM_H

#include <stdatomic.h>

#include "base/list.h"
#include "base/mem.h"
#include "wire/frame.h"

/* Whoever sends empty parts is charged, too: about what they cost in memory. */
#define SML_PART_CHARGE 64
/* What both ends grant a stream without saying so: two fragments, almost. */
#define SML_STREAM_CREDIT UINT64_C(131072)
/* A few streams of a session may hold much, at each end and in each direction; many, little. */
#define SML_STREAM_WINDOW UINT64_C(1048576)
#define SML_STREAM_WINDOWS UINT64_C(67108864) /* of all those that may hold much */

/* A part of at least so many bytes is worth more than a copy. */
#define SML_VIEW_BYTES 16384
/* So many of them are pulled at most before they are written: no small call waits for more. */
#define SML_VIEWS 4

/* Memory that parts lie in, and that is another's: a buffer that was read into, or one to be
 * written from. Any thread, with or without the lock that guards the machine. */
struct sml_backing {
    bool (*hold)(struct sml_backing *backing); /* one more part is in it. False: it must not be */
    void (*release)(struct sml_backing *backing);
};

/* One part: a piece of at most SML_FRAGMENT_BYTES. Allocated through mem, mostly with its bytes. */
struct sml_part {
    struct sml_list node;
    uint64_t number;
    uint64_t charge_end; /* of its stream up to here */
    enum sml_part_kind kind;
    uint32_t size;
    _Atomic uint32_t refs;
    const uint8_t *bytes;
    struct sml_backing *backing; /* where `bytes` are; NULL: in `own` */
    uint8_t own[];
};

/* NULL: no memory. `bytes` are copied; before them, with a head, those of `head`. */
struct sml_part *sml_part_create(const struct sml_mem *mem, enum sml_part_kind kind,
                                 struct semel_bytes bytes);
struct sml_part *sml_part_create_headed(const struct sml_mem *mem, enum sml_part_kind kind,
                                        struct semel_bytes head, struct semel_bytes bytes);
/* The same, but `bytes` stay in `backing`, which was held for it. */
struct sml_part *sml_part_create_in(const struct sml_mem *mem, enum sml_part_kind kind,
                                    struct semel_bytes bytes, struct sml_backing *backing);
/* Of several who have the part the last one frees it. NULL is fine. */
void sml_part_release(const struct sml_mem *mem, struct sml_part *part);

/* What was pulled and not copied: these parts' bytes belong behind what stands before `after`, in
 * this order. Whoever writes releases the parts. */
struct sml_views {
    uint32_t count;
    struct {
        const uint8_t *after;
        struct sml_part *part;
    } list[SML_VIEWS];
};

static inline bool sml_views_full(const struct sml_views *views)
{
    return views && views->count == SML_VIEWS;
}

/* The sending half. */
struct sml_outflow {
    struct sml_list parts; /* not yet taken by the receiver */
    struct sml_part *next; /* the first of them that is to be sent; NULL: none */
    uint64_t added, sent, taken;
    uint64_t charge;       /* of all that were added */
    uint64_t taken_charge; /* of those that were taken */
    uint64_t limit;
    bool open;     /* the receiver has said what it waits for, on this connection */
    bool ended;    /* nothing is added any more */
    bool end_sent; /* on this connection */
    bool cut;      /* what was added is not all there was: the end is never told */
    bool progress_due;
    struct sml_part *progress; /* the latest; NULL: none */
};

/* The receiving half. */
struct sml_inflow {
    struct sml_list parts; /* arrived, not yet taken */
    uint64_t arrived, taken;
    uint64_t charge;           /* of all that arrived */
    uint64_t taken_charge;     /* of those that were taken */
    uint64_t told_charge;      /* of those that were said to be taken */
    uint64_t window;           /* what may wait here */
    uint64_t limit;            /* granted */
    bool begun;                /* something of this attempt has arrived */
    bool ended;                /* all parts have arrived */
    bool credit_due;           /* whatever was granted */
    bool inside;               /* of an item: the next part belongs to it */
    bool wide;                 /* its sender began an item with more untold than a narrow one may */
    uint32_t attempt;          /* rises when the stream begins again: what came before is void */
    struct sml_part *progress; /* the latest, not yet taken */
};

/* Both, as a call has them. */
struct sml_stream {
    struct sml_outflow out;
    struct sml_inflow in;
    bool sends, takes;     /* which of them there are */
    void *call;            /* whose they are, at this end */
    struct sml_list send;  /* something is to be written */
    struct sml_list event; /* something is new for the shell */
};

/* Its window is SML_STREAM_CREDIT. */
void sml_stream_init(struct sml_stream *stream, bool sends, bool takes);
/* Free all parts. The stream must be out of its lists. */
void sml_stream_clear(struct sml_stream *stream, const struct sml_mem *mem);

/* Of what a session's streams may hold (*windows, from 0) it has its share, and gives it back. */
void sml_stream_widen(struct sml_stream *stream, uint64_t *windows);
void sml_stream_narrow(struct sml_stream *stream, uint64_t *windows);

/* May the shell add a part? What it sends waits here, too, until the other end has taken it. */
static inline bool sml_stream_has_room(const struct sml_stream *stream)
{
    return stream->out.charge - stream->out.taken_charge < stream->in.window;
}

/* --- sending ----------------------------------------------------------------------------- */

/* The next part; moved in. */
void sml_outflow_add(struct sml_outflow *out, struct sml_part *part);
/* The latest progress; moved in, the one before is freed. */
void sml_outflow_set_progress(struct sml_outflow *out, const struct sml_mem *mem,
                              struct sml_part *progress);
/* No part follows. */
void sml_outflow_end(struct sml_outflow *out);

/* Everything was sent, the end included. */
static inline bool sml_outflow_is_drained(const struct sml_outflow *out)
{
    return out->next == NULL && !out->progress_due && (!out->ended || out->end_sent);
}

/* May a frame be sent now? */
bool sml_outflow_is_ready(const struct sml_outflow *out);
/* Encode one frame; 0: none may be sent, or there is no room. Of a large part its head alone, the
 * rest goes to `views` (NULL: it is copied as well). */
size_t sml_outflow_pull(struct sml_outflow *out, uint64_t xid, struct sml_views *views, uint8_t *at,
                        size_t room);

/* CREDIT. NULL; or what is wrong with it. */
const char *sml_outflow_credit(struct sml_outflow *out, const struct sml_mem *mem,
                               const struct sml_credit_frame *credit);

/* Nobody wants its parts any more. */
void sml_outflow_drop(struct sml_outflow *out, const struct sml_mem *mem);

/* The connection is gone. */
void sml_outflow_down(struct sml_outflow *out);
/* The stream begins again at its first part. False: some were taken and are gone. */
bool sml_outflow_restart(struct sml_outflow *out);
/* What was not sent will not be, and neither is the end; nothing is waited for. */
void sml_outflow_cut(struct sml_outflow *out, const struct sml_mem *mem);

/* --- receiving --------------------------------------------------------------------------- */

/* PART. What is large stays in `backing`, if that will have it (NULL: it is copied). Returns OK;
 * PROTOCOL with *out_why; NO_MEMORY. */
enum semel_status sml_inflow_part(struct sml_inflow *in, const struct sml_mem *mem,
                                  const struct sml_part_frame *frame, struct sml_backing *backing,
                                  const char **out_why);

/* The next part, moved out; NULL: none is here. */
struct sml_part *sml_inflow_take(struct sml_inflow *in);
/* The latest progress, moved out; NULL: nothing new. */
struct sml_part *sml_inflow_take_progress(struct sml_inflow *in);

static inline bool sml_inflow_is_at_end(const struct sml_inflow *in)
{
    return in->ended && in->taken == in->arrived;
}

/* Is a CREDIT worth a frame? Half of a narrow window was taken, or an eighth of a wide one if the
 * sender's is known to be one, half of this one may be granted, or the connection is new. What is
 * granted and not used holds a part of any size: no stream stands still whose parts are taken. */
bool sml_inflow_owes_credit(const struct sml_inflow *in);
size_t sml_inflow_encode_credit(struct sml_inflow *in, uint64_t xid, uint8_t *at);

/* The sender begins again: what has arrived is void. */
void sml_inflow_restart(struct sml_inflow *in, const struct sml_mem *mem);

/* --- both -------------------------------------------------------------------------------- */

/* A new connection, on which the other end goes on with what it knows. */
void sml_stream_resume(struct sml_stream *stream);

/* Would sml_stream_pull give anything? `parts` as there. */
bool sml_stream_wants_write(const struct sml_stream *stream, bool parts);
/* One frame: a CREDIT that is due, else a part. `parts` false: not now. */
size_t sml_stream_pull(struct sml_stream *stream, uint64_t xid, bool parts, struct sml_views *views,
                       uint8_t *at, size_t room);

#endif
