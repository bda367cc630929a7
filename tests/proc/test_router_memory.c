/* SPDX-License-Identifier: MIT */
/* A router that has no memory for a message. */
#include "router_kit.h"

#include <stdatomic.h>

static atomic_bool scarce;

void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

/* Meanwhile nothing large is to be had. */
void *__wrap_realloc(void *old, size_t bytes)
{
    return atomic_load(&scarce) && bytes > 1000000 ? NULL : __real_realloc(old, bytes);
}

static void *send_all(void *arg)
{
    struct box *box = arg;

    assert_int_equal(post(box->sender, 3, 0, 64, -1), SEMEL_OK);
    assert_int_equal(post(box->sender, 3, 1, 5000000, -1), SEMEL_OK);
    assert_int_equal(post(box->sender, 3, 2, 64, -1), SEMEL_OK);
    return NULL;
}

/* It is lost, and counted; those that follow are not. */
static void test_no_memory(void **state)
{
    struct semel_pipe_options options = { .never_passed = true };
    pthread_t thread;
    struct box box;
    struct desk desk;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, &options);
    box.wanted = 2;
    atomic_store(&scarce, true);
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    assert_int_equal(pthread_create(&thread, NULL, send_all, &box), 0);
    assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 30000), SEMEL_OK);
    pthread_join(thread, NULL);
    atomic_store(&scarce, false);
    assert_false(box.wrong);
    assert_int_equal(box.skipped, 1);
    assert_int_equal(dropped_of(&desk), 1);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("no memory for a message", test_no_memory),
    };

    router_kit_sender(argc, argv);
    return cmocka_run_group_tests_name("proc/router_memory", tests, NULL, NULL);
}
