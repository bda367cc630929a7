/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/list.h"

struct item {
    int number;
    struct sml_list link;
};

static int pop_number(struct sml_list *head)
{
    struct sml_list *node = sml_list_pop_front(head);

    return node ? SML_CONTAINER(node, struct item, link)->number : -1;
}

static void order(void **state)
{
    struct item items[4] = { { .number = 0 }, { .number = 1 }, { .number = 2 }, { .number = 3 } };
    struct sml_list head;

    (void)state;
    sml_list_init(&head);
    assert_true(sml_list_empty(&head));
    assert_int_equal(pop_number(&head), -1);
    for (int i = 0; i < 4; i++)
        sml_list_init(&items[i].link);
    sml_list_push_back(&head, &items[1].link);
    sml_list_push_back(&head, &items[3].link);
    sml_list_push_front(&head, &items[0].link);
    sml_list_insert_before(&items[3].link, &items[2].link);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pop_number(&head), i);
    assert_true(sml_list_empty(&head));
}

static void out_is_harmless(void **state)
{
    struct item item = { .number = 5 };
    struct sml_list head;

    (void)state;
    sml_list_init(&head);
    sml_list_init(&item.link);
    assert_false(sml_list_linked(&item.link));
    sml_list_remove(&item.link);
    sml_list_push_back(&head, &item.link);
    assert_true(sml_list_linked(&item.link));
    sml_list_remove(&item.link);
    sml_list_remove(&item.link);
    assert_true(sml_list_empty(&head));
    assert_false(sml_list_linked(&item.link));
}

static void move_all(void **state)
{
    struct item items[4] = { { .number = 0 }, { .number = 1 }, { .number = 2 }, { .number = 3 } };
    struct sml_list to, from;

    (void)state;
    sml_list_init(&to);
    sml_list_init(&from);
    sml_list_move_all(&to, &from);
    assert_true(sml_list_empty(&to));
    for (int i = 0; i < 4; i++)
        sml_list_push_back(i < 2 ? &to : &from, &items[i].link);
    sml_list_move_all(&to, &from);
    assert_true(sml_list_empty(&from));
    for (int i = 0; i < 4; i++)
        assert_int_equal(pop_number(&to), i);
    assert_true(sml_list_empty(&to));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "list: order", order, NULL, NULL, NULL },
        { "list: removing what is out is harmless", out_is_harmless, NULL, NULL, NULL },
        { "list: move all", move_all, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
