/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

static void libc(void **state)
{
    char *bytes = sml_alloc(&sml_mem_libc, 100);

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 1, 100);
    sml_release(&sml_mem_libc, bytes);
    sml_release(&sml_mem_libc, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "mem: malloc and free", libc, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
