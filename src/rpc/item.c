/* SPDX-License-Identifier: MIT */
/* item.c - items in parts. */
#include "rpc/item.h"

#include <stdlib.h>
#include <string.h>

void sml_item_reader_init(struct sml_item_reader *reader, uint64_t max)
{
    memset(reader, 0, sizeof *reader);
    reader->max = max;
    sml_list_init(&reader->parts);
}

void sml_parts_free(struct sml_list *parts)
{
    struct sml_part *part;

    while ((part = sml_part_pop(parts)) != NULL)
        sml_part_release(&sml_mem_libc, part);
}

void sml_item_reader_clear(struct sml_item_reader *reader)
{
    sml_parts_free(&reader->parts);
    sml_part_release(&sml_mem_libc, reader->held);
    free(reader->whole);
    sml_item_reader_init(reader, reader->max);
}

bool sml_item_reader_take(struct sml_item_reader *reader, struct sml_inflow *in)
{
    struct sml_part *part;
    bool any = false;

    while ((part = sml_inflow_take(in)) != NULL) {
        sml_list_push_back(&reader->parts, &part->node);
        any = true;
    }
    return any;
}

static bool append(struct sml_item_reader *reader, const struct sml_part *part)
{
    size_t need = reader->size + part->size;

    reader->too_much |= need > reader->max;
    if (reader->too_much)
        return true;
    if (need > reader->room) {
        size_t room = need > 2 * reader->room ? need : 2 * reader->room;
        uint8_t *whole = realloc(reader->whole, room);

        if (whole == NULL)
            return false;
        reader->whole = whole;
        reader->room = room;
    }
    memcpy(reader->whole + reader->size, part->bytes, part->size);
    reader->size = need;
    return true;
}

enum semel_status sml_item_reader_next(struct sml_item_reader *reader, struct semel_bytes *out)
{
    struct sml_part *part;

    sml_part_release(&sml_mem_libc, reader->held);
    reader->held = NULL;
    if (!reader->open)
        reader->size = 0;
    while ((part = sml_part_pop(&reader->parts)) != NULL) {
        bool last = part->kind == SML_PART_ITEM;

        if (last && !reader->open && part->size <= reader->max) {
            reader->held = part;
            *out = semel_bytes(part->bytes, part->size);
            return SEMEL_OK;
        }
        if (!append(reader, part)) {
            sml_list_push_front(&reader->parts, &part->node);
            return SEMEL_NO_MEMORY;
        }
        reader->open = !last;
        sml_part_release(&sml_mem_libc, part);
        if (last && reader->too_much) {
            reader->too_much = false;
            return SEMEL_TOO_LARGE;
        }
        if (last) {
            *out = semel_bytes(reader->whole, reader->size);
            return SEMEL_OK;
        }
    }
    return SEMEL_WOULD_BLOCK;
}

void sml_item_reader_skip(struct sml_item_reader *reader)
{
    reader->too_much = true;
}

static struct sml_part *copy(struct sml_blocks *blocks, enum sml_part_kind kind,
                             struct semel_bytes head, struct semel_bytes bytes)
{
    struct sml_block *block = NULL;
    struct sml_part *part;

    if (blocks && bytes.size >= SML_VIEW_BYTES)
        block = sml_block_take(blocks);
    if (block == NULL)
        return sml_part_create_headed(&sml_mem_libc, kind, head, bytes);
    if (head.size > 0)
        memcpy(block->bytes, head.data, head.size);
    memcpy(block->bytes + head.size, bytes.data, bytes.size);
    part = sml_part_create_in(&sml_mem_libc, kind,
                              semel_bytes(block->bytes, head.size + bytes.size), &block->backing);
    if (part == NULL)
        sml_block_unref(block);
    return part;
}

bool sml_item_cut(struct semel_bytes head, struct semel_bytes item, struct sml_blocks *blocks,
                  struct sml_list *out)
{
    const uint8_t *at = item.data;
    size_t left = item.size;

    sml_list_init(out);
    do {
        size_t room = SML_FRAGMENT_BYTES - head.size;
        size_t bytes = left < room ? left : room;
        enum sml_part_kind kind = bytes < left ? SML_PART_PIECE : SML_PART_ITEM;
        struct sml_part *part = copy(blocks, kind, head, semel_bytes(at, bytes));

        if (part == NULL) {
            sml_parts_free(out);
            return false;
        }
        sml_list_push_back(out, &part->node);
        if (bytes > 0)
            at += bytes;
        left -= bytes;
        head.size = 0;
    } while (left > 0);
    return true;
}
