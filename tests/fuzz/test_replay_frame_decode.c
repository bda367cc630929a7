/* SPDX-License-Identifier: MIT */
/* Replay a fuzz target over its corpus: every file named as an argument, and every beginning of
 * each. A block of the exact size each time, so that the address sanitizer sees its ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

static void run(const uint8_t *data, size_t size)
{
    uint8_t *block = malloc(size ? size : 1);

    if (!block)
        abort();
    memcpy(block, data, size);
    LLVMFuzzerTestOneInput(block, size);
    free(block);
}

int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];

    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE...\n", argv[0]);
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t size;

        if (!file) {
            perror(argv[i]);
            return 1;
        }
        size = fread(data, 1, sizeof data, file);
        fclose(file);
        for (size_t part = 0; part <= size; part++)
            run(data, part);
    }
    return 0;
}
