/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/directory.h"

static void one_of_ones_own(void **state)
{
    char own[64], path[72], file[80];
    struct stat what;
    int fd;

    (void)state;
    kit_directory(own, sizeof own);
    (void)snprintf(path, sizeof path, "%s/d", own);
    (void)snprintf(file, sizeof file, "%s/file", path);
    assert_true(sml_directory_make(path));
    assert_int_equal(stat(path, &what), 0);
    assert_int_equal(what.st_mode & 0777, 0700);
    assert_false(sml_directory_make(path)); /* it is there */
    fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    sml_directory_remove(path); /* it is not empty */
    assert_int_equal(stat(path, &what), 0);
    assert_int_equal(unlink(file), 0);
    sml_directory_remove(path);
    assert_int_equal(stat(path, &what), -1);
    assert_int_equal(rmdir(own), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_ones_own),
    };

    return cmocka_run_group_tests_name("os/directory", tests, NULL, NULL);
}
