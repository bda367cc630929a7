/* SPDX-License-Identifier: MIT */
/* Any bytes into the frame decoder. The first byte chooses the payload limit; the rest is a stream.
 * Whatever decodes must lie within its bytes and encode to the same bytes again; what is refused
 * leaves the outputs alone.
 *
 * The tests replay the corpus. To search for more, from the root of the source tree:
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -std=gnu17 -Isrc -Iinclude -Itests/wire \
 *     tests/fuzz/fuzz_frame_decode.c tests/wire/frame_kit.c src/wire/?*.c src/base/?*.c -o fuzz
 *   ./fuzz -max_len=4096 tests/fuzz/corpus/frame_decode */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "frame_kit.h"
#include "fuzz.h"

static void must(int holds)
{
    if (!holds)
        abort();
}

/* Touch every byte of a view, for the sanitizer to judge. */
static unsigned touch(struct semel_bytes view)
{
    unsigned sum = 0;

    for (size_t i = 0; i < view.size; i++)
        sum += ((const uint8_t *)view.data)[i];
    return sum;
}

static unsigned touch_views(const struct sml_frame *frame)
{
    const struct sml_verdict *verdict = &frame->u.reply.verdict;

    switch (frame->type) {
    case SML_CALL:
        return touch(frame->u.call.method) + touch(frame->u.call.content_type) +
               touch(frame->u.call.key) + touch(frame->u.call.fragment);
    case SML_BODY:
        return touch(frame->u.body.fragment);
    case SML_REPLY:
        return touch(verdict->text) + touch(verdict->detail) + touch(verdict->trace) +
               touch(verdict->body);
    case SML_BYE:
        return touch(frame->u.bye.text);
    default:
        return 0;
    }
}

static volatile unsigned touched; /* what was read must not be optimised away */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t again[SML_FRAME_BYTES_MAX];
    static char shown[FRAME_TEXT_ROOM];
    size_t max_payload;

    if (size == 0)
        return 0;
    max_payload = data[0] & 1 ? SML_PAYLOAD_BYTES_MAX : SML_HELLO_PAYLOAD_BYTES;
    data++;
    size--;
    for (;;) {
        struct sml_frame frame;
        const char *why = NULL;
        size_t used = 0, encoded;
        const enum sml_decoded decoded =
            sml_frame_decode(data, size, max_payload, &frame, &used, &why);

        must((decoded == SML_DECODED) == (used > 0));
        must((decoded == SML_MALFORMED) == (why != NULL));
        if (decoded != SML_DECODED)
            return 0;
        must(used <= size);
        touched += touch_views(&frame);
        encoded = frame_encode_again(&frame, again);
        must(encoded == 0 || (encoded == used && memcmp(again, data, used) == 0));
        frame_describe(&frame, shown, sizeof shown);
        data += used;
        size -= used;
    }
}
