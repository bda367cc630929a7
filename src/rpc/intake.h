/* SPDX-License-Identifier: MIT */
/* intake.h - what was read from a connection and is not yet done with.
 *
 * Bytes are read into a block, and frames are taken out of it in place. Large parts stay where they
 * are (block.h); behind them reading goes on in the same block, and then in another, to which what
 * ends inside a frame is moved. A block whose parts have all been read is begun anew, while it is
 * still in the processor's cache. A part is left in a block only once the block after it is there:
 * so reading never waits for whoever reads slowly, nor for memory. */
#ifndef SML_RPC_INTAKE_H
#define SML_RPC_INTAKE_H

#include "rpc/block.h"

#define SML_INTAKE_BYTES 524288 /* of a block */

struct sml_intake {
    struct sml_block *block; /* NULL: none */
    size_t from, end;        /* the bytes that were read and not taken */
};

/* False: no block is to be had. */
bool sml_intake_open(struct sml_intake *intake, struct sml_blocks *blocks);
void sml_intake_close(struct sml_intake *intake);

static inline uint8_t *sml_intake_data(const struct sml_intake *intake)
{
    return intake->block->bytes + intake->from;
}

static inline size_t sml_intake_size(const struct sml_intake *intake)
{
    return intake->end - intake->from;
}

/* Where to read, and at most how much. */
static inline uint8_t *sml_intake_room(const struct sml_intake *intake, size_t *out_room)
{
    *out_room = SML_INTAKE_BYTES - intake->end;
    return intake->block->bytes + intake->end;
}

/* Make room for a frame of any size, and enough for a read. What was taken and not left in the
 * block is gone; bytes move. */
void sml_intake_settle(struct sml_intake *intake);

#endif
