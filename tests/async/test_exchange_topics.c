/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "async/exchange_internal.h"
#include "base/test_random.h"

static struct semel_bytes id_of(const uint32_t *number)
{
    return semel_bytes(number, sizeof *number);
}

static uint64_t hash_of(uint32_t number)
{
    uint64_t seed = number;

    return random_next(&seed);
}

/* Numbers come and go; whoever is in is found, whoever is not is not. */
static void in_and_out(void **state)
{
    enum { NUMBERS = 20000 };
    static struct sml_topic *in[NUMBERS];
    struct sml_topics topics;
    uint64_t seed = 7;

    (void)state;
    sml_topics_init(&topics, &sml_mem_libc);
    for (int wave = 0; wave < 4; wave++) {
        for (int step = 0; step < 3 * NUMBERS; step++) {
            uint32_t number = (uint32_t)random_below(&seed, NUMBERS);
            struct sml_topic *found = sml_topics_find(&topics, hash_of(number), id_of(&number));
            bool rises = wave % 2 == 0;

            assert_ptr_equal(found, in[number]);
            if (!found && rises) {
                in[number] = sml_topics_add(&topics, hash_of(number), id_of(&number));
                assert_non_null(in[number]);
            } else if (found && !rises) {
                sml_topics_trim(&topics, found);
                in[number] = NULL;
            }
        }
        {
            uint32_t old = topics.count - topics.young_count;

            assert_true(topics.young_count <= 1024);
            assert_true(old <= topics.buckets);
            assert_true(topics.buckets <= 512 || topics.buckets <= 2 * old + 2);
        }
    }
    for (uint32_t number = 0; number < NUMBERS; number++)
        if (in[number])
            sml_topics_trim(&topics, in[number]);
    assert_int_equal(topics.count, 0);
    assert_true(topics.buckets <= 512); /* the memory is back */
    sml_topics_fini(&topics);
}

static void one_bucket(void **state)
{
    enum { NUMBERS = 3000 };
    struct sml_topics topics;
    uint32_t number;

    (void)state;
    sml_topics_init(&topics, &sml_mem_libc);
    for (number = 0; number < NUMBERS; number++)
        assert_non_null(sml_topics_add(&topics, 42, id_of(&number))); /* the same hash */
    for (number = 0; number < NUMBERS; number++)
        assert_non_null(sml_topics_find(&topics, 42, id_of(&number)));
    assert_null(sml_topics_find(&topics, 42, id_of(&number)));
    for (number = 0; number < NUMBERS; number++)
        sml_topics_trim(&topics, sml_topics_find(&topics, 42, id_of(&number)));
    sml_topics_fini(&topics);
}

static void kept_while_used(void **state)
{
    struct sml_topics topics;
    struct sml_topic *topic;
    struct sml_list node;
    uint32_t number = 1;

    (void)state;
    sml_list_init(&node);
    sml_topics_init(&topics, &sml_mem_libc);
    topic = sml_topics_add(&topics, 1, id_of(&number));
    topic->held = 1;
    sml_topics_trim(&topics, topic);
    topic->held = 0;
    sml_list_push_back(&topic->line, &node);
    sml_topics_trim(&topics, topic);
    sml_list_remove(&node);
    sml_list_push_back(&topic->events, &node);
    sml_topics_trim(&topics, topic);
    assert_int_equal(topics.count, 1);
    sml_list_remove(&node);
    sml_topics_trim(&topics, topic);
    assert_int_equal(topics.count, 0);
    sml_topics_fini(&topics);
}

static int left; /* allocations that still pass */

static void *some_alloc(void *user, size_t bytes)
{
    (void)user;
    return left-- > 0 ? malloc(bytes) : NULL;
}

static void some_release(void *user, void *pointer)
{
    (void)user;
    free(pointer);
}

/* What a walk meets. */
static uint32_t count(const struct sml_topics *topics)
{
    const struct sml_topic *topic = NULL;
    uint32_t met = 0;

    while ((topic = sml_topics_next(topics, topic)) != NULL)
        met++;
    return met;
}

/* Of what a table allocates for itself the n-th fails, for every n: the topics are there. */
static void no_room_to_grow(void **state)
{
    enum { NUMBERS = 6000 };
    struct sml_mem mem = { some_alloc, some_release, NULL };

    (void)state;
    for (int passes = 0; passes < 40; passes++) {
        struct sml_topics topics;
        uint32_t number, added = 0;

        sml_topics_init(&topics, &mem);
        left = INT32_MAX;
        if (passes == 0) {
            left = 0;
            assert_null(sml_topics_add(&topics, 1, id_of(&added)));
            left = 1; /* the young ones' table, and no topic */
            assert_null(sml_topics_add(&topics, 1, id_of(&added)));
            left = INT32_MAX;
        }
        for (number = 0; number < NUMBERS; number++) {
            left = number >= 1024 ? 1 + (passes + (int)number) % 4 : INT32_MAX;
            assert_non_null(sml_topics_add(&topics, hash_of(number), id_of(&number)));
        }
        left = INT32_MAX;
        assert_int_equal(count(&topics), NUMBERS);
        for (number = 0; number < NUMBERS; number++)
            sml_topics_trim(&topics, sml_topics_find(&topics, hash_of(number), id_of(&number)));
        assert_int_equal(topics.count, 0);
        sml_topics_fini(&topics);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "topics: in and out, the table follows", in_and_out, NULL, NULL, NULL },
        { "topics: all in one bucket", one_bucket, NULL, NULL, NULL },
        { "topics: kept while anything needs it", kept_while_used, NULL, NULL, NULL },
        { "topics: no memory to grow", no_room_to_grow, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
