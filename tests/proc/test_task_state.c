/* SPDX-License-Identifier: MIT */
/* All sequences of words up to a length, and what each makes of a task. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "proc/task_state.h"

#define LENGTH 6

static const char letters[SML_TASK_WORDS + 1] = "SRXCA";
static const char *const legal[] = { "SR", "SX", "CSR", "CSX", "SCR", "SCX", "CA" };
#define LEGAL (sizeof legal / sizeof legal[0])

/* Is it the beginning of a legal one, or all of it? */
static bool begins(const char *said, bool whole)
{
    for (size_t i = 0; i < LEGAL; i++)
        if (strncmp(legal[i], said, strlen(said)) == 0 &&
            (!whole || strlen(legal[i]) == strlen(said)))
            return true;
    return false;
}

static enum semel_future_state expected(const char *said)
{
    bool cancelled = strchr(said, 'C') != NULL;

    if (begins(said, true))
        return cancelled                   ? SEMEL_FUTURE_CANCELLED
               : strchr(said, 'R') != NULL ? SEMEL_FUTURE_COMPLETED
                                           : SEMEL_FUTURE_FAILED;
    if (cancelled)
        return SEMEL_FUTURE_CANCELLING;
    return strchr(said, 'S') ? SEMEL_FUTURE_EXECUTING : SEMEL_FUTURE_WAITING;
}

struct census {
    unsigned sequences, refused, complete;
};

/* `said` are the words that were taken so far. */
static void explore(char *said, enum sml_task_stage stage, unsigned left, struct census *census)
{
    size_t length = strlen(said);

    assert_int_equal(sml_task_state(stage), expected(said));
    for (unsigned word = 0; word < SML_TASK_WORDS && left > 0; word++) {
        enum sml_task_stage after = stage;
        bool taken = sml_task_hear(&after, (enum sml_task_word)word);

        census->sequences++;
        said[length] = letters[word];
        said[length + 1] = '\0';
        assert_int_equal(taken, begins(said, false));
        census->complete += taken && begins(said, true);
        if (!taken) {
            /* It changed nothing: whatever follows is as if it had not been said. */
            assert_int_equal(after, stage);
            census->refused++;
            said[length] = '\0';
        }
        explore(said, after, left - 1, census);
        said[length] = '\0';
    }
}

static void test_sequences(void **state)
{
    struct census census = { 0, 0, 0 };
    char said[LENGTH + 1] = "";
    unsigned all = 0;

    (void)state;
    explore(said, SML_TASK_AT_WAITING, LENGTH, &census);
    for (unsigned i = 1, n = SML_TASK_WORDS; i <= LENGTH; i++, n *= SML_TASK_WORDS)
        all += n;
    assert_int_equal(census.sequences, all);
    assert_true(census.refused > 0 && census.complete > 0);
}

/* The same without refused words: exactly the seven come to an end. */
static void test_complete(void **state)
{
    unsigned complete = 0, total = 1;

    (void)state;
    for (unsigned length = 1; length <= LENGTH; length++) {
        total *= SML_TASK_WORDS;
        for (unsigned number = 0; number < total; number++) {
            enum sml_task_stage stage = SML_TASK_AT_WAITING;
            char said[LENGTH + 1] = "";
            unsigned rest = number, i;

            for (i = 0; i < length; i++, rest /= SML_TASK_WORDS) {
                said[i] = letters[rest % SML_TASK_WORDS];
                if (!sml_task_hear(&stage, (enum sml_task_word)(rest % SML_TASK_WORDS)))
                    break;
            }
            if (i < length)
                continue;
            assert_true(begins(said, false));
            if (sml_task_is_done(sml_task_state(stage))) {
                assert_true(begins(said, true));
                complete++;
            }
        }
    }
    assert_int_equal(complete, LEGAL);
}

static void test_out_of_range(void **state)
{
    enum sml_task_stage stage = SML_TASK_AT_WAITING;

    (void)state;
    assert_false(sml_task_hear(&stage, (enum sml_task_word)SML_TASK_WORDS));
    assert_int_equal(stage, SML_TASK_AT_WAITING);
    stage = (enum sml_task_stage)SML_TASK_STAGES;
    assert_false(sml_task_hear(&stage, SML_TASK_STARTED));
}

/* A state and what it means agree, and a change tells what differs, no more. */
static void test_changes(void **state)
{
    (void)state;
    for (unsigned a = 0; a <= SEMEL_FUTURE_CANCELLED; a++) {
        enum semel_future_state was = (enum semel_future_state)a;

        assert_false(sml_task_is_cancellable(was) && sml_task_is_done(was));
        assert_int_equal(sml_task_changes(was, was), 0);
        for (unsigned b = 0; b <= SEMEL_FUTURE_CANCELLED; b++) {
            enum semel_future_state is = (enum semel_future_state)b;
            unsigned changes = sml_task_changes(was, is);

            assert_int_equal((changes & SEMEL_CHANGED_STATE) != 0, was != is);
            assert_int_equal((changes & SEMEL_CHANGED_CANCELLABLE) != 0,
                             sml_task_is_cancellable(was) != sml_task_is_cancellable(is));
            assert_int_equal((changes & SEMEL_CHANGED_DONE) != 0,
                             sml_task_is_done(was) != sml_task_is_done(is));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "R10 future legality: all sequences up to six words", test_sequences, NULL, NULL, NULL },
        { "R10 future legality: just seven come to an end", test_complete, NULL, NULL, NULL },
        { "R10 future legality: what is no word", test_out_of_range, NULL, NULL, NULL },
        { "R11 notifications: what a change tells", test_changes, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests_name("task_state", tests, NULL, NULL);
}
