/* SPDX-License-Identifier: MIT */
/* intake.c - reading into blocks. */
#include "rpc/intake.h"

#include <string.h>

#include "wire/frame.h"

/* With less room than that, reads are too short. */
#define ROOM_MIN 65536
/* So little is moved to the front of a block that nobody needs, where the cache knows it. */
#define MOVED_MAX 4096

bool sml_intake_open(struct sml_intake *intake, struct sml_blocks *blocks)
{
    intake->from = intake->end = 0;
    intake->block = sml_block_take(blocks);
    return intake->block != NULL;
}

void sml_intake_close(struct sml_intake *intake)
{
    if (intake->block) {
        sml_block_unref(intake->block->next);
        intake->block->next = NULL;
    }
    sml_block_unref(intake->block);
    intake->block = NULL;
    intake->from = intake->end = 0;
}

/* The bytes stand at the front of `to` from now on. */
static void move(struct sml_intake *intake, struct sml_block *to)
{
    size_t size = sml_intake_size(intake);

    if (size > 0)
        memmove(to->bytes, sml_intake_data(intake), size);
    intake->block = to;
    intake->from = 0;
    intake->end = size;
}

void sml_intake_settle(struct sml_intake *intake)
{
    struct sml_block *block = intake->block;
    bool roomy = SML_INTAKE_BYTES - intake->end >= ROOM_MIN &&
                 SML_INTAKE_BYTES - intake->from >= SML_FRAME_BYTES_MAX;

    if (sml_block_is_sole(block)) {
        sml_block_unref(block->next);
        block->next = NULL;
        if (intake->from > 0 && (!roomy || sml_intake_size(intake) <= MOVED_MAX))
            move(intake, block);
    } else if (!roomy) {
        move(intake, block->next);
        block->next = NULL;
        sml_block_unref(block);
    }
}
