/* SPDX-License-Identifier: MIT */
#include "os/random.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"

static bool kernel_fill(uint8_t *out, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = getrandom(out, bytes, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        out += n;
        bytes -= (size_t)n;
    }
    return true;
}

/* Blocks SHA-256(seed, number): as unpredictable as the seed, never the same block twice. */
static void derived_fill(struct sml_random *random, uint8_t *out, size_t bytes)
{
    uint8_t input[sizeof(random->seed) + sizeof(uint64_t)], block[32];

    memcpy(input, random->seed, sizeof(random->seed));
    while (bytes > 0) {
        uint64_t number = atomic_fetch_add_explicit(&random->counter, 1, memory_order_relaxed);
        size_t part = bytes < sizeof(block) ? bytes : sizeof(block);

        memcpy(input + sizeof(random->seed), &number, sizeof(number));
        sml_sha256(input, sizeof(input), block);
        memcpy(out, block, part);
        out += part;
        bytes -= part;
    }
    explicit_bzero(input, sizeof(input));
    explicit_bzero(block, sizeof(block));
}

enum semel_status sml_random_init(struct sml_random *random)
{
    atomic_init(&random->counter, 0);
    return kernel_fill(random->seed, sizeof(random->seed)) ? SEMEL_OK : SEMEL_SYSTEM;
}

void sml_random_fini(struct sml_random *random)
{
    explicit_bzero(random->seed, sizeof(random->seed));
}

void sml_random_fill(struct sml_random *random, void *out, size_t bytes)
{
    if (!kernel_fill(out, bytes))
        derived_fill(random, out, bytes);
}

static void entropy_fill(void *user, void *out, size_t bytes)
{
    sml_random_fill(user, out, bytes);
}

struct sml_entropy sml_random_entropy(struct sml_random *random)
{
    struct sml_entropy entropy = { entropy_fill, random };

    return entropy;
}
