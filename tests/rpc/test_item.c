/* SPDX-License-Identifier: MIT */
/* Items of any size, in parts and together again. */
#include "client_kit.h"

#include "rpc/item.h"

/* All parts of an item arrive at a reader's flow. */
static void arrive(struct sml_inflow *in, struct sml_list *parts)
{
    struct sml_part *part;

    while ((part = sml_part_pop(parts)) != NULL) {
        part->number = in->arrived++;
        sml_list_push_back(&in->parts, &part->node);
    }
}

static uint8_t *pattern(size_t size)
{
    uint8_t *bytes = malloc(size + 1);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 13 + i / 251);
    return bytes;
}

static void test_sizes(void **state)
{
    static const size_t sizes[] = { 0, 1, 65535, 65536, 65537, 131072, 131073, 1000000 };
    struct sml_item_reader reader;
    struct sml_stream stream;
    struct semel_bytes item;
    struct sml_blocks *blocks = sml_blocks_create(SML_FRAGMENT_BYTES, 2, 4);
    struct sml_list parts;

    (void)state;
    sml_stream_init(&stream, false, true);
    sml_item_reader_init(&reader, 1000004);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t head = 0; head <= 4; head += 4) {
            uint8_t *bytes = pattern(sizes[i]);

            assert_true(sml_item_cut(semel_bytes("head", head), semel_bytes(bytes, sizes[i]),
                                     blocks, &parts));
            arrive(&stream.in, &parts);
            assert_int_equal(sml_item_reader_next(&reader, &item), SEMEL_WOULD_BLOCK);
            assert_true(sml_item_reader_take(&reader, &stream.in));
            assert_int_equal(sml_item_reader_next(&reader, &item), SEMEL_OK);
            assert_int_equal(item.size, head + sizes[i]);
            assert_memory_equal(item.data, "head", head);
            assert_memory_equal((const uint8_t *)item.data + head, bytes, sizes[i]);
            free(bytes);
        }
    assert_false(sml_item_reader_take(&reader, &stream.in));
    sml_item_reader_clear(&reader);
    sml_stream_clear(&stream, &sml_mem_libc);
    sml_blocks_destroy(blocks);
}

/* Piece by piece, with nothing between two of them. */
static void test_pieces(void **state)
{
    uint8_t *bytes = pattern(300000);
    struct sml_item_reader reader;
    struct sml_stream stream;
    struct semel_bytes item;
    struct sml_list parts, one;

    (void)state;
    sml_stream_init(&stream, false, true);
    sml_item_reader_init(&reader, 300000);
    assert_true(sml_item_cut(semel_bytes(NULL, 0), semel_bytes(bytes, 300000), NULL, &parts));
    while (!sml_list_empty(&parts)) {
        bool last;

        sml_list_init(&one);
        sml_list_push_back(&one, &sml_part_pop(&parts)->node);
        last = sml_list_empty(&parts);
        arrive(&stream.in, &one);
        assert_true(sml_item_reader_take(&reader, &stream.in));
        assert_int_equal(sml_item_reader_next(&reader, &item), last ? SEMEL_OK : SEMEL_WOULD_BLOCK);
    }
    assert_int_equal(item.size, 300000);
    assert_memory_equal(item.data, bytes, 300000);
    free(bytes);
    sml_item_reader_clear(&reader);
    sml_stream_clear(&stream, &sml_mem_libc);
}

/* One byte too much: told once, and the next one comes whole. */
static void test_too_large(void **state)
{
    uint8_t *bytes = pattern(200001);
    struct sml_item_reader reader;
    struct sml_stream stream;
    struct semel_bytes item;
    struct sml_list parts;

    (void)state;
    sml_stream_init(&stream, false, true);
    sml_item_reader_init(&reader, 200000);
    for (size_t size = 200000; size <= 200001; size++) {
        assert_true(sml_item_cut(semel_bytes(NULL, 0), semel_bytes(bytes, size), NULL, &parts));
        arrive(&stream.in, &parts);
    }
    assert_true(sml_item_cut(semel_bytes(NULL, 0), semel_bytes("next", 4), NULL, &parts));
    arrive(&stream.in, &parts);
    assert_true(sml_item_reader_take(&reader, &stream.in));
    assert_int_equal(sml_item_reader_next(&reader, &item), SEMEL_OK);
    assert_int_equal(item.size, 200000);
    assert_int_equal(sml_item_reader_next(&reader, &item), SEMEL_TOO_LARGE);
    assert_int_equal(sml_item_reader_next(&reader, &item), SEMEL_OK);
    assert_int_equal(item.size, 4);
    sml_item_reader_clear(&reader);
    /* In one part. */
    sml_item_reader_init(&reader, 3);
    assert_true(sml_item_cut(semel_bytes(NULL, 0), semel_bytes("four", 4), NULL, &parts));
    arrive(&stream.in, &parts);
    assert_true(sml_item_reader_take(&reader, &stream.in));
    assert_int_equal(sml_item_reader_next(&reader, &item), SEMEL_TOO_LARGE);
    assert_int_equal(sml_item_reader_next(&reader, &item), SEMEL_WOULD_BLOCK);
    sml_item_reader_clear(&reader);
    sml_stream_clear(&stream, &sml_mem_libc);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("items of all sizes, with and without a head", test_sizes),
        TEST("piece by piece", test_pieces),
        TEST("an item that is too large is told once", test_too_large),
    };

    return cmocka_run_group_tests_name("rpc/item", tests, NULL, NULL);
}
