/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include "kit/memory_store.h"

static int realloc_fails_at; /* the n-th from now; 0: none */

void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

void *__wrap_realloc(void *old, size_t bytes)
{
    if (realloc_fails_at > 0 && --realloc_fails_at == 0)
        return NULL;
    return __real_realloc(old, bytes);
}

/* --- a store with something in it --------------------------------------------------------- */

struct fixture {
    struct kit_disk *disk;
    struct semel_store *store;
};

static void open_it(struct fixture *f)
{
    f->disk = kit_disk_make();
    f->store = kit_disk_open(f->disk);
    assert_non_null(f->store);
}

static void close_it(struct fixture *f)
{
    semel_store_close(f->store);
    kit_disk_free(f->disk);
}

static uint64_t put(struct fixture *f, enum sml_store_table table, const uint8_t *bytes,
                    size_t size)
{
    uint64_t row = 0;

    assert_int_equal(f->store->ops->begin(f->store), SML_STORED);
    assert_int_equal(f->store->ops->put(f->store, table, &row, semel_bytes(bytes, size)),
                     SML_STORED);
    assert_int_equal(f->store->ops->commit(f->store), SML_STORED);
    return row;
}

static const uint8_t *id_of(uint8_t n)
{
    static uint8_t id[16];

    memset(id, n, sizeof id);
    return id;
}

static uint64_t add_session(struct fixture *f, uint8_t n)
{
    struct sml_session_record record = { .principal = { n % 2, 1000u + n, 2000u + n },
                                         .conn_no = 10u + n,
                                         .base = 100u + n,
                                         .window = 16 };
    uint8_t bytes[300];

    memcpy(record.id.bytes, id_of(n), 16);
    sml_session_record_encode(&record, bytes);
    return put(f, SML_TABLE_SESSIONS, bytes, sml_session_record_bytes(&record));
}

static uint64_t add_call(struct fixture *f, uint64_t session, uint64_t xid,
                         enum sml_call_record_state state, const char *reply)
{
    struct sml_call_record record = { .session = session,
                                      .xid = xid,
                                      .state = state,
                                      .crashes = state == SML_CALL_AGAIN ? 2 : 0,
                                      .method = { "add", 3 } };
    uint8_t bytes[1000];

    if (state == SML_CALL_ENDED) {
        record.verdict =
            (struct sml_verdict){ .outcome = SEMEL_VALUE, .body = semel_bytes_text(reply) };
        if (xid % 2) {
            record.key = semel_bytes_text("the key");
            record.verdict = (struct sml_verdict){ .outcome = SEMEL_FAILURE,
                                                   .status = SEMEL_FAILED,
                                                   .code = -7,
                                                   .text = semel_bytes_text("it would not"),
                                                   .detail = semel_bytes_text("detail") };
        }
    }
    assert_true(sml_call_record_bytes(&record) <= sizeof bytes);
    sml_call_record_encode(&record, bytes);
    return put(f, SML_TABLE_CALLS, bytes, sml_call_record_bytes(&record));
}

/* Two sessions with calls, one without, and a call whose session is gone. */
static void fill(struct fixture *f)
{
    uint64_t a, b;

    open_it(f);
    a = add_session(f, 1);
    b = add_session(f, 2);
    (void)add_session(f, 3);
    (void)add_call(f, a, 101, SML_CALL_STARTED, NULL);
    (void)add_call(f, b, 102, SML_CALL_ENDED, "twelve bytes");
    (void)add_call(f, a, 104, SML_CALL_ENDED, "");
    (void)add_call(f, 77, 1, SML_CALL_ENDED, "left behind");
    (void)add_call(f, b, 103, SML_CALL_AGAIN, NULL);
    (void)add_call(f, a, 105, SML_CALL_ENDED, NULL);
}

/* --- looking ------------------------------------------------------------------------------ */

struct seen {
    int count, most;
    char text[2000];
};

static bool see_session(const struct semel_store_session *s, void *user)
{
    struct seen *seen = user;
    size_t at = strlen(seen->text);

    (void)snprintf(seen->text + at, sizeof seen->text - at,
                   "%d: %s %u/%u connections %llu released %llu, %llu calls, %llu started, %llu "
                   "ended, %llu crashed, %llu bytes\n",
                   s->id[0], s->has_ids ? "by" : "by nobody", s->uid, s->gid,
                   (unsigned long long)s->connections, (unsigned long long)s->released,
                   (unsigned long long)s->calls, (unsigned long long)s->started,
                   (unsigned long long)s->ended, (unsigned long long)s->crashed,
                   (unsigned long long)s->bytes);
    return ++seen->count != seen->most;
}

static void sessions_are_counted_with_their_calls(void **state)
{
    struct seen seen = { 0 };
    struct fixture f;

    (void)state;
    open_it(&f);
    assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 0);
    close_it(&f);
    fill(&f);
    assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_OK);
    assert_string_equal(
        seen.text,
        "1: by 1001/2001 connections 11 released 101, 3 calls, 1 started, 2 ended, 0 crashed, 0 "
        "bytes\n"
        "2: by nobody 0/0 connections 12 released 102, 2 calls, 0 started, 1 ended, 1 crashed, 12 "
        "bytes\n"
        "3: by 1003/2003 connections 13 released 103, 0 calls, 0 started, 0 ended, 0 crashed, 0 "
        "bytes\n");
    seen = (struct seen){ .most = 2 };
    assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 2);
    close_it(&f);
}

static bool see_call(const struct semel_store_call *c, void *user)
{
    struct seen *seen = user;
    size_t at = strlen(seen->text);

    (void)snprintf(seen->text + at, sizeof seen->text - at,
                   "%d/%llu %s \"%s\"%s%s crashes %u: %s %s %d \"%s\" \"%.*s\"\n", c->session[0],
                   (unsigned long long)c->call, c->method, c->key, c->started ? " started" : "",
                   c->ended ? " ended" : "", c->crashes, semel_outcome_text(c->outcome),
                   semel_status_name(c->status), c->code, c->text, (int)c->body.size,
                   c->body.size > 0 ? (const char *)c->body.data : "");
    return ++seen->count != seen->most;
}

static void calls_are_shown(void **state)
{
    static const char of_b[] = "2/102 add \"\" ended crashes 0: value OK 0 \"\" \"twelve bytes\"\n"
                               "2/103 add \"\" crashes 2: value OK 0 \"\" \"\"\n";
    struct seen seen = { 0 };
    struct fixture f;

    (void)state;
    fill(&f);
    assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_OK);
    assert_string_equal(
        seen.text,
        "1/101 add \"\" started crashes 0: value OK 0 \"\" \"\"\n"
        "2/102 add \"\" ended crashes 0: value OK 0 \"\" \"twelve bytes\"\n"
        "1/104 add \"\" ended crashes 0: value OK 0 \"\" \"\"\n"
        "2/103 add \"\" crashes 2: value OK 0 \"\" \"\"\n"
        "1/105 add \"the key\" ended crashes 0: failure FAILED -7 \"it would not\" \"\"\n");
    seen = (struct seen){ 0 };
    assert_int_equal(semel_store_each_call(f.store, id_of(2), see_call, &seen), SEMEL_OK);
    assert_string_equal(seen.text, of_b);
    seen = (struct seen){ .most = 1 };
    assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 1);
    seen = (struct seen){ 0 };
    assert_int_equal(semel_store_each_call(f.store, id_of(3), see_call, &seen), SEMEL_OK);
    assert_int_equal(semel_store_each_call(f.store, id_of(9), see_call, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 0);
    close_it(&f);
}

/* More than fit into the first room that is made for them. */
static void many_sessions_and_calls(void **state)
{
    struct seen seen = { 0 };
    struct fixture f;
    uint64_t first = 0;

    (void)state;
    open_it(&f);
    for (uint8_t i = 0; i < 200; i++) {
        uint64_t row = add_session(&f, i);

        first = first ? first : row;
        (void)add_call(&f, first, 1000u + i, SML_CALL_STARTED, NULL);
    }
    assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 200);
    assert_int_equal(semel_store_forget_session(f.store, id_of(0)), SEMEL_OK);
    seen = (struct seen){ 0 };
    assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 199);
    seen = (struct seen){ 0 };
    assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 0);
    close_it(&f);
}

/* --- damage ------------------------------------------------------------------------------- */

static void expect_error(const struct fixture *f, const char *words)
{
    const char *text = semel_store_error(f->store);

    if (strncmp(text, "memory: ", 8) != 0 || strstr(text, words) == NULL)
        fail_msg("%s", text);
}

static void a_damaged_record_is_named(void **state)
{
    struct seen seen = { 0 };
    struct fixture f;
    uint64_t row;

    (void)state;
    fill(&f);
    row = put(&f, SML_TABLE_CALLS, (const uint8_t *)"rubbish, and enough of it", 25);
    assert_int_equal(row, 7);
    assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_STORE_CORRUPT);
    assert_int_equal(seen.count, 0);
    expect_error(&f, "call record 7: ");
    assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_STORE_CORRUPT);
    expect_error(&f, "call record 7: ");
    (void)put(&f, SML_TABLE_SESSIONS, (const uint8_t *)"", 0);
    assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_STORE_CORRUPT);
    expect_error(&f, "session record 4: ");
    assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_STORE_CORRUPT);
    expect_error(&f, "session record 4: ");
    /* What is whole can still be forgotten. */
    assert_int_equal(semel_store_forget_session(f.store, id_of(1)), SEMEL_OK);
    close_it(&f);
}

static void a_store_that_fails_says_so(void **state)
{
    struct kit_fault fault = { .at_operation = 1, .answer = SML_NOT_STORED };
    struct seen seen = { 0 };
    struct fixture f;

    (void)state;
    fill(&f);
    for (unsigned at = 1; at <= 2; at++) {
        fault.at_operation = at;
        kit_disk_fault(f.disk, &fault);
        assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_STORE_FAILED);
        expect_error(&f, "as the test wants");
        kit_disk_fault(f.disk, &fault);
        assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_STORE_FAILED);
    }
    assert_int_equal(seen.count, 0);
    close_it(&f);
}

static void no_memory_is_said(void **state)
{
    struct seen seen = { 0 };
    struct fixture f;

    (void)state;
    fill(&f);
    realloc_fails_at = 1;
    assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_NO_MEMORY);
    expect_error(&f, "out of memory");
    realloc_fails_at = 1;
    assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_NO_MEMORY);
    realloc_fails_at = 1;
    assert_int_equal(semel_store_forget_session(f.store, id_of(1)), SEMEL_NO_MEMORY);
    expect_error(&f, "out of memory");
    assert_int_equal(seen.count, 0);
    assert_int_equal(semel_store_each_session(f.store, see_session, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 3);
    close_it(&f);
}

/* --- changing ----------------------------------------------------------------------------- */

static void a_session_is_forgotten_with_its_calls_only(void **state)
{
    const uint8_t hash[32] = { 1 };
    struct seen seen = { 0 };
    struct semel_bytes key;
    struct fixture f;

    (void)state;
    fill(&f);
    assert_int_equal(f.store->ops->begin(f.store), SML_STORED);
    assert_int_equal(f.store->ops->put_key(f.store, hash, 0, semel_bytes("k", 1)), SML_STORED);
    assert_int_equal(f.store->ops->commit(f.store), SML_STORED);
    assert_int_equal(semel_store_forget_session(f.store, id_of(1)), SEMEL_OK);
    assert_int_equal(semel_store_each_call(f.store, NULL, see_call, &seen), SEMEL_OK);
    assert_int_equal(seen.count, 2);
    assert_null(strstr(seen.text, "1/10"));
    assert_int_equal(semel_store_forget_session(f.store, id_of(1)), SEMEL_INVALID);
    expect_error(&f, "no such session");
    assert_int_equal(semel_store_forget_session(f.store, id_of(3)), SEMEL_OK);
    assert_int_equal(f.store->ops->begin(f.store), SML_STORED);
    assert_int_equal(f.store->ops->find_key(f.store, hash, &key), SML_STORED);
    assert_non_null(key.data);
    f.store->ops->rollback(f.store);
    close_it(&f);
}

static void count_both(struct fixture *f, int *out_sessions, int *out_calls)
{
    struct seen seen = { 0 };

    assert_int_equal(semel_store_each_session(f->store, see_session, &seen), SEMEL_OK);
    *out_sessions = seen.count;
    seen = (struct seen){ 0 };
    assert_int_equal(semel_store_each_call(f->store, NULL, see_call, &seen), SEMEL_OK);
    *out_calls = seen.count;
}

/* Whichever operation fails, nothing is changed until all of them succeed. */
static void forgetting_is_all_or_nothing(void **state)
{
    enum semel_status status = SEMEL_STORE_FULL;
    int sessions, calls;
    struct fixture f;

    (void)state;
    fill(&f);
    for (unsigned at = 1; status != SEMEL_OK; at++) {
        struct kit_fault fault = { .at_operation = at,
                                   .answer = SML_NOT_STORED,
                                   .status = SEMEL_STORE_FULL };

        kit_disk_fault(f.disk, &fault);
        status = semel_store_forget_session(f.store, id_of(1));
        kit_disk_fault(f.disk, &(struct kit_fault){ .at_operation = 0 });
        count_both(&f, &sessions, &calls);
        assert_int_equal(sessions, status == SEMEL_OK ? 2 : 3);
        assert_int_equal(calls, status == SEMEL_OK ? 2 : 5);
        if (status != SEMEL_OK) {
            assert_int_equal(status, SEMEL_STORE_FULL);
            expect_error(&f, "no space");
        }
        assert_true(at < 20);
    }
    close_it(&f);
}

static void so_is_a_new_generation(void **state)
{
    struct kit_fault fault = { .at_commit = 1, .answer = SML_NOT_STORED };
    struct semel_store_info info;
    int sessions, calls;
    struct fixture f;

    (void)state;
    fill(&f);
    kit_disk_fault(f.disk, &fault);
    assert_int_equal(semel_store_renew(f.store), SEMEL_STORE_FAILED);
    expect_error(&f, "as the test wants");
    count_both(&f, &sessions, &calls);
    assert_true(sessions == 3 && calls == 5);
    assert_int_equal(semel_store_renew(f.store), SEMEL_OK);
    count_both(&f, &sessions, &calls);
    assert_true(sessions == 0 && calls == 0);
    semel_store_info(f.store, &info);
    assert_int_equal(info.generation, 2);
    assert_memory_equal(info.id, f.store->id, 16);
    assert_true(info.clock_ms >= 1);
    close_it(&f);
}

static void a_store_that_is_looked_at_is_not_changed(void **state)
{
    int sessions, calls;
    struct fixture f;

    (void)state;
    fill(&f);
    f.store->read_only = true;
    assert_int_equal(semel_store_forget_session(f.store, id_of(1)), SEMEL_STORE_READ_ONLY);
    expect_error(&f, "only to look");
    assert_int_equal(semel_store_renew(f.store), SEMEL_STORE_READ_ONLY);
    count_both(&f, &sessions, &calls);
    assert_true(sessions == 3 && calls == 5);
    close_it(&f);
}

static void nothing_is_invalid(void **state)
{
    struct semel_store_info info;
    struct fixture f;

    (void)state;
    semel_store_close(NULL);
    memset(&info, 7, sizeof info);
    semel_store_info(NULL, &info);
    assert_int_equal(info.id[0], 7);
    assert_string_equal(semel_store_error(NULL), "no store");
    assert_int_equal(semel_store_each_session(NULL, see_session, NULL), SEMEL_INVALID);
    assert_int_equal(semel_store_each_call(NULL, NULL, see_call, NULL), SEMEL_INVALID);
    assert_int_equal(semel_store_forget_session(NULL, id_of(1)), SEMEL_INVALID);
    assert_int_equal(semel_store_renew(NULL), SEMEL_INVALID);
    open_it(&f);
    semel_store_info(f.store, NULL);
    assert_int_equal(semel_store_each_session(f.store, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_store_each_call(f.store, NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_store_forget_session(f.store, NULL), SEMEL_INVALID);
    assert_string_equal(semel_store_error(f.store), "");
    close_it(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "sessions are counted with their calls", sessions_are_counted_with_their_calls, NULL,
          NULL, NULL },
        { "calls are shown, of one session or of all", calls_are_shown, NULL, NULL, NULL },
        { "many sessions and calls", many_sessions_and_calls, NULL, NULL, NULL },
        { "a damaged record is named", a_damaged_record_is_named, NULL, NULL, NULL },
        { "a store that fails says so", a_store_that_fails_says_so, NULL, NULL, NULL },
        { "no memory is said", no_memory_is_said, NULL, NULL, NULL },
        { "a session is forgotten with its calls only", a_session_is_forgotten_with_its_calls_only,
          NULL, NULL, NULL },
        { "forgetting is all or nothing", forgetting_is_all_or_nothing, NULL, NULL, NULL },
        { "so is a new generation", so_is_a_new_generation, NULL, NULL, NULL },
        { "a store that is looked at is not changed", a_store_that_is_looked_at_is_not_changed,
          NULL, NULL, NULL },
        { "nothing is invalid", nothing_is_invalid, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
