/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <sys/random.h>

#include "os/random.h"

static enum { KERNEL_FINE, KERNEL_SLOW, KERNEL_CLOSED } kernel;
static int turns;

ssize_t __real_getrandom(void *out, size_t bytes, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t bytes, unsigned flags);

ssize_t __wrap_getrandom(void *out, size_t bytes, unsigned flags)
{
    if (kernel == KERNEL_CLOSED) {
        errno = EPERM;
        return -1;
    }
    if (kernel == KERNEL_SLOW && turns++ % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return __real_getrandom(out, kernel == KERNEL_SLOW && bytes > 3 ? 3 : bytes, flags);
}

/* 64 zero bytes in a row do not happen by chance, nor do two equal fills. */
static void assert_random(struct sml_random *random)
{
    uint8_t a[67], b[67], zero[67];

    memset(a, 0, sizeof(a));
    memset(b, 0, sizeof(b));
    memset(zero, 0, sizeof(zero));
    sml_random_fill(random, a, 64);
    sml_random_fill(random, b, 64);
    assert_memory_equal(a + 64, zero, 3); /* no byte beyond */
    assert_memory_not_equal(a, b, 64);
    for (int i = 0; i + 16 <= 64; i += 16)
        assert_memory_not_equal(a + i, zero, 16);
}

static void every_byte_is_filled(void **state)
{
    struct sml_random random;
    struct sml_entropy entropy;
    uint8_t bytes[16] = { 0 }, zero[16] = { 0 };

    (void)state;
    for (kernel = KERNEL_FINE; kernel <= KERNEL_SLOW; kernel++) {
        assert_int_equal(sml_random_init(&random), SEMEL_OK);
        assert_random(&random);
    }
    kernel = KERNEL_FINE;
    entropy = sml_random_entropy(&random);
    entropy.fill(entropy.user, bytes, sizeof(bytes));
    assert_memory_not_equal(bytes, zero, sizeof(bytes));
    sml_random_fini(&random);
}

static void refusal_is_told_at_the_start_only(void **state)
{
    struct sml_random random;

    (void)state;
    kernel = KERNEL_CLOSED;
    assert_int_equal(sml_random_init(&random), SEMEL_SYSTEM);
    kernel = KERNEL_FINE;
    assert_int_equal(sml_random_init(&random), SEMEL_OK);
    kernel = KERNEL_CLOSED;
    assert_random(&random);
    kernel = KERNEL_FINE;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "every byte is filled", every_byte_is_filled, NULL, NULL, NULL },
        { "refusal is told at the start only", refusal_is_told_at_the_start_only, NULL, NULL,
          NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
