/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/agenda.h"
#include "base/test_random.h"

static bool is_in(const struct sml_agenda_node *node)
{
    return sml_list_linked(&node->link) || node->heap.in_heap;
}

static uint64_t smallest(const struct sml_agenda_node *nodes, size_t count)
{
    uint64_t min = UINT64_MAX;

    for (size_t i = 0; i < count; i++)
        if (is_in(&nodes[i]) && nodes[i].heap.key < min)
            min = nodes[i].heap.key;
    return min;
}

static void random_times(void **state)
{
    enum { N = 60 };
    struct sml_agenda_node nodes[N];
    struct sml_agenda agenda;
    uint64_t seed = 3;

    (void)state;
    sml_agenda_init(&agenda);
    assert_null(sml_agenda_min(&agenda));
    for (size_t i = 0; i < N; i++)
        sml_agenda_node_init(&nodes[i]);
    for (int step = 0; step < 20000; step++) {
        struct sml_agenda_node *node = &nodes[random_below(&seed, N)];
        bool was_in = is_in(node);

        sml_agenda_remove(&agenda, node);
        if (!was_in)
            sml_agenda_add(&agenda, node, (uint64_t)step / 4 + random_below(&seed, 100));
        assert_true(sml_agenda_min_key(&agenda) == smallest(nodes, N));
    }
}

static void rising_times(void **state)
{
    struct sml_agenda_node nodes[3];
    struct sml_agenda agenda;

    (void)state;
    sml_agenda_init(&agenda);
    for (size_t i = 0; i < 3; i++) {
        sml_agenda_node_init(&nodes[i]);
        sml_agenda_add(&agenda, &nodes[i], i < 2 ? 5 : 4);
    }
    assert_true(sml_list_linked(&nodes[1].link)); /* the same time rises */
    assert_true(nodes[2].heap.in_heap);
    assert_ptr_equal(sml_agenda_min(&agenda), &nodes[2]);
    sml_agenda_remove(&agenda, &nodes[2]);
    sml_agenda_remove(&agenda, &nodes[2]);
    assert_ptr_equal(sml_agenda_min(&agenda), &nodes[0]);
    assert_int_equal(nodes[2].heap.key, 4); /* it knows its time */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "agenda: the earliest of random times", random_times, NULL, NULL, NULL },
        { "agenda: rising times stand in a list", rising_times, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
