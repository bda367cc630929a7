/* SPDX-License-Identifier: MIT */
/* item.h - items of any size, and the parts that carry them; at both ends. */
#ifndef SML_RPC_ITEM_H
#define SML_RPC_ITEM_H

#include <stdbool.h>

#include "rpc/block.h"
#include "session/stream.h"

#define SML_PART_BLOCKS_KEPT 16 /* for the next parts */

/* The reading end. Parts are taken out of the machine by the batch, so that a reader visits its
 * lock once for many; they are put together here, without it. */
struct sml_item_reader {
    struct sml_list parts; /* taken, not yet looked at */
    struct sml_part *held; /* backs the last item, if it came in one part */
    uint8_t *whole;        /* backs it else, or has what came of the next */
    size_t size, room;
    uint64_t max;  /* of an item's bytes */
    bool open;     /* `whole` has the beginning of an item */
    bool too_much; /* the item that is open is larger: the rest of it is thrown away */
};

void sml_item_reader_init(struct sml_item_reader *reader, uint64_t max);
/* What was read is void, and so are its bytes. */
void sml_item_reader_clear(struct sml_item_reader *reader);

/* All that has arrived; under the machine's lock. Returns whether there was any. */
bool sml_item_reader_take(struct sml_item_reader *reader, struct sml_inflow *in);

/* The next whole item, valid until the next call. Returns OK; WOULD_BLOCK: it is not all here;
 * TOO_LARGE: it was larger than it may be, and is gone; NO_MEMORY: nothing is lost. */
enum semel_status sml_item_reader_next(struct sml_item_reader *reader, struct semel_bytes *out);
/* Instead of trying again after NO_MEMORY: the next item is thrown away, as one too large is. */
void sml_item_reader_skip(struct sml_item_reader *reader);

/* Copy an item, `head` (at most SML_ITEM_HEAD bytes) and `item` behind it, into parts, to be added
 * to a stream in this order: on `out`, a list head. Large ones lie in `blocks`, of
 * SML_FRAGMENT_BYTES (NULL: in memory of their own). False: no memory, and no parts. */
#define SML_ITEM_HEAD 32
bool sml_item_cut(struct semel_bytes head, struct semel_bytes item, struct sml_blocks *blocks,
                  struct sml_list *out);
void sml_parts_free(struct sml_list *parts);

static inline struct sml_part *sml_part_pop(struct sml_list *parts)
{
    struct sml_list *node = sml_list_pop_front(parts);

    return node ? SML_CONTAINER(node, struct sml_part, node) : NULL;
}

#endif
