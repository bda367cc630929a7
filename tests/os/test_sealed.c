/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/sealed.h"

static void shared_and_sealed(void **state)
{
    const uint8_t *seen;
    void *data;
    int fd;

    (void)state;
    assert_int_equal(sml_sealed_create(100000, &fd, &data), SEMEL_OK);
    memset(data, 7, 100000);
    seen = sml_sealed_map(fd, 100000);
    assert_non_null(seen);
    assert_int_equal(seen[99999], 7);
    ((uint8_t *)data)[99999] = 8;
    assert_int_equal(seen[99999], 8);
    /* Nobody can cut it short, nor make it longer. */
    assert_int_equal(ftruncate(fd, 10), -1);
    assert_int_equal(ftruncate(fd, 200000), -1);
    assert_null(sml_sealed_map(fd, 99999));
    assert_null(sml_sealed_map(fd, 100001));
    sml_sealed_unmap(seen, 100000);
    sml_sealed_unmap(data, 100000);
    sml_sealed_close(fd);
}

/* What is not sealed could be cut short under its reader. */
static void unsealed_is_refused(void **state)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING), ends[2];

    (void)state;
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_null(sml_sealed_map(fd, 4096));
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_null(sml_sealed_map(fd, 4096));
    close(fd);
    assert_int_equal(pipe(ends), 0);
    assert_null(sml_sealed_map(ends[0], 4096));
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_and_sealed),
        cmocka_unit_test(unsealed_is_refused),
    };

    return cmocka_run_group_tests_name("os/sealed", tests, NULL, NULL);
}
