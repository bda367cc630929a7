/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/heap.h"
#include "base/test_random.h"

/* Heap order and links, walked without recursion. Returns the number of nodes. */
static size_t heap_validate(const struct sml_heap *heap)
{
    const struct sml_heap_node *at = heap->root;
    size_t count = 0;

    if (!at)
        return 0;
    assert_null(at->prev);
    assert_null(at->next);
    for (;;) {
        count++;
        assert_true(at->in_heap);
        if (at->child) {
            assert_ptr_equal(at->child->prev, at);
            assert_true(at->child->key >= at->key);
            at = at->child;
            continue;
        }
        while (at && !at->next) { /* climb: to the first sibling, then to the parent */
            while (at->prev && at->prev->child != at)
                at = at->prev;
            at = at->prev;
        }
        if (!at)
            return count;
        assert_ptr_equal(at->next->prev, at);
        at = at->next;
    }
}

static void empty(void **state)
{
    struct sml_heap heap;
    struct sml_heap_node node;

    (void)state;
    sml_heap_init(&heap);
    sml_heap_node_init(&node);
    assert_null(sml_heap_min(&heap));
    assert_true(sml_heap_min_key(&heap) == UINT64_MAX);
    sml_heap_remove(&heap, &node); /* out: harmless */
    sml_heap_insert(&heap, &node, 7);
    assert_ptr_equal(sml_heap_min(&heap), &node);
    assert_true(sml_heap_min_key(&heap) == 7);
    sml_heap_remove(&heap, &node);
    sml_heap_remove(&heap, &node);
    assert_null(sml_heap_min(&heap));
    assert_false(node.in_heap);
}

/* Sorted, reversed, equal and scattered keys all come out in order. */
static void sorts(void **state)
{
    enum { N = 1000 };
    static struct sml_heap_node nodes[N];

    (void)state;
    for (int pattern = 0; pattern < 4; pattern++) {
        struct sml_heap heap;
        uint64_t seed = 1, last = 0;

        sml_heap_init(&heap);
        for (uint64_t i = 0; i < N; i++) {
            const uint64_t key = pattern == 0   ? i
                                 : pattern == 1 ? N - i
                                 : pattern == 2 ? 5
                                                : random_below(&seed, 500);
            sml_heap_node_init(&nodes[i]);
            sml_heap_insert(&heap, &nodes[i], key);
        }
        for (size_t left = N; left > 0; left--) {
            struct sml_heap_node *min = sml_heap_min(&heap);

            assert_int_equal(heap_validate(&heap), left);
            assert_true(min->key >= last);
            last = min->key;
            sml_heap_remove(&heap, min);
        }
        assert_null(sml_heap_min(&heap));
    }
}

static uint64_t smallest(const struct sml_heap_node *nodes, size_t count)
{
    uint64_t least = UINT64_MAX;

    for (size_t i = 0; i < count; i++)
        if (nodes[i].in_heap && nodes[i].key < least)
            least = nodes[i].key;
    return least;
}

/* Any node may leave at any time; the minimum always agrees with a plain search. */
static void removes_any(void **state)
{
    enum { N = 64, STEPS = 20000 };
    struct sml_heap_node nodes[N];
    struct sml_heap heap;
    uint64_t seed = 42;

    (void)state;
    sml_heap_init(&heap);
    for (size_t i = 0; i < N; i++)
        sml_heap_node_init(&nodes[i]);
    for (size_t step = 0; step < STEPS; step++) {
        struct sml_heap_node *node = &nodes[random_below(&seed, N)];

        if (node->in_heap)
            sml_heap_remove(&heap, node);
        else
            sml_heap_insert(&heap, node, random_below(&seed, 100));
        assert_true(sml_heap_min_key(&heap) == smallest(nodes, N));
        if (step % 16 == 0)
            heap_validate(&heap);
    }
}

/* A million siblings, then their removal: the stack must not grow with them. */
static void bounded_stack(void **state)
{
    enum { N = 1000000 };
    struct sml_heap_node *nodes = calloc(N, sizeof *nodes);
    struct sml_heap heap;
    uint64_t last = 0;

    (void)state;
    assert_non_null(nodes);
    sml_heap_init(&heap);
    for (uint64_t i = 0; i < N; i++)
        sml_heap_insert(&heap, &nodes[i], i);
    for (size_t i = 0; i < N; i++) {
        struct sml_heap_node *min = sml_heap_min(&heap);

        assert_true(min->key >= last);
        last = min->key;
        sml_heap_remove(&heap, min);
    }
    for (uint64_t i = 0; i < N; i++) /* the other extreme: one long chain */
        sml_heap_insert(&heap, &nodes[i], N - i);
    for (size_t i = 0; i < N; i++)
        sml_heap_remove(&heap, &nodes[i]);
    assert_null(sml_heap_min(&heap));
    free(nodes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "heap: empty, and one node", empty, NULL, NULL, NULL },
        { "heap: keys come out in order", sorts, NULL, NULL, NULL },
        { "heap: any node may leave", removes_any, NULL, NULL, NULL },
        { "heap: a million nodes on a bounded stack", bounded_stack, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
