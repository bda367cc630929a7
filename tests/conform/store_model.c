/* SPDX-License-Identifier: MIT */
/* store_model.c - changes in any order, compared with a model. */
#include "store_words.h"

static uint32_t random_of(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Rows and keys, by small numbers; empty text: not there. */
struct model {
    struct {
        uint64_t row;
        char text[40];
    } rows[2][12];
    char keys[10][40];
    uint64_t since[10];
};

static void change_row(struct ground *g, struct model *m, uint32_t *seed)
{
    uint32_t t = random_of(seed) % 2, i = random_of(seed) % 12;
    enum sml_store_table table = t ? SML_TABLE_CALLS : SML_TABLE_SESSIONS;

    if (m->rows[t][i].text[0] && random_of(seed) % 3 == 0) {
        forget(g, table, m->rows[t][i].row);
        m->rows[t][i].text[0] = '\0';
        m->rows[t][i].row = 0; /* a call's number may be given again */
        return;
    }
    (void)snprintf(m->rows[t][i].text, sizeof m->rows[t][i].text, "r%u.%u", i,
                   random_of(seed) % 1000);
    if (m->rows[t][i].row == 0 || random_of(seed) % 2 == 0) {
        if (m->rows[t][i].row != 0)
            forget(g, table, m->rows[t][i].row);
        m->rows[t][i].row = add_text(g, table, m->rows[t][i].text);
    } else {
        forget(g, table, m->rows[t][i].row);
        m->rows[t][i].row = add_text(g, table, "to be replaced");
        set(g, table, m->rows[t][i].row, m->rows[t][i].text);
    }
}

static void change_key(struct ground *g, struct model *m, uint32_t *seed)
{
    uint32_t i = random_of(seed) % 10;

    if (random_of(seed) % 4 == 0) {
        assert_int_equal(g->store->ops->forget_key(g->store, hash_of((uint8_t)i)), SML_STORED);
        m->keys[i][0] = '\0';
        return;
    }
    m->since[i] = random_of(seed) % 3;
    (void)snprintf(m->keys[i], sizeof m->keys[i], "k%u.%u", i, random_of(seed) % 1000);
    put_key(g, (uint8_t)i, m->since[i], m->keys[i]);
}

struct search {
    struct model *model;
    int table, found;
    uint64_t last;
};

static bool is_in_model(uint64_t row, struct semel_bytes record, void *user)
{
    struct search *search = user;

    assert_true(row > search->last);
    search->last = row;
    for (int i = 0; i < 12; i++) {
        const char *text = search->model->rows[search->table][i].text;

        if (search->model->rows[search->table][i].row != row || text[0] == '\0')
            continue;
        assert_int_equal(record.size, strlen(text));
        assert_memory_equal(record.data, text, record.size);
        search->found++;
    }
    return true;
}

static void compare_with_model(struct ground *g, struct model *m)
{
    for (int t = 0; t < 2; t++) {
        struct search search = { m, t, 0, 0 };
        int expected = 0;

        for (int i = 0; i < 12; i++)
            expected += m->rows[t][i].text[0] != '\0';
        assert_int_equal(g->store->ops->each(g->store, t ? SML_TABLE_CALLS : SML_TABLE_SESSIONS,
                                             is_in_model, &search),
                         SEMEL_OK);
        assert_int_equal(search.found, expected);
    }
    begin(g);
    for (uint8_t i = 0; i < 10; i++)
        expect_key(g, i, m->keys[i][0] ? m->keys[i] : NULL);
    g->store->ops->rollback(g->store);
}

void any_order_of_changes(void **state)
{
    struct model now, saved;
    struct ground g;

    for (uint32_t first = 1; first <= 4; first++) {
        uint32_t seed = first;

        print_message("seed %u\n", first);
        open_ground(&g, state);
        memset(&now, 0, sizeof now);
        for (int round = 0; round < 60; round++) {
            saved = now;
            begin(&g);
            for (uint32_t i = random_of(&seed) % 8; i > 0; i--) {
                if (random_of(&seed) % 2)
                    change_row(&g, &now, &seed);
                else
                    change_key(&g, &now, &seed);
            }
            if (random_of(&seed) % 4 == 0) {
                g.store->ops->rollback(g.store);
                now = saved;
            } else {
                commit(&g);
            }
            if (random_of(&seed) % 8 == 0)
                ground_reopen(&g);
            compare_with_model(&g, &now);
        }
        ground_remove(&g);
    }
}
