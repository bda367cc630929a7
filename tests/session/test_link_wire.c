/* SPDX-License-Identifier: MIT */
/* What a link makes of a server's frames: what is final, what is forgiven once. */
#include "disk.h"

static int set_up(void **state)
{
    struct fixture *f = fixture_new();

    fixture_start(f);
    fixture_pump(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

/* Bytes from the server, whatever the host thinks. */
static void say(struct fixture *f, const void *bytes, size_t size)
{
    memcpy(f->down.bytes, bytes, size);
    f->down.size = size;
    fixture_to_link(f);
    f->down.size = 0;
}

static void say_bye(struct fixture *f, enum sml_bye_code code)
{
    uint8_t bytes[SML_FRAME_BYTES_MAX];

    say(f, bytes, sml_encode_bye(bytes, code, semel_bytes_text("because")));
}

static void terminal_byes_end_everything(void **state)
{
    static const struct {
        enum sml_bye_code code;
        enum semel_status status;
    } rows[] = { { SML_BYE_TAKEN_OVER, SEMEL_TAKEN_OVER },
                 { SML_BYE_DENIED, SEMEL_DENIED },
                 { SML_BYE_VERSION, SEMEL_VERSION },
                 { SML_BYE_PROTOCOL, SEMEL_PROTOCOL },
                 { SML_BYE_FALSE_RETRY, SEMEL_FALSE_RETRY } };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fixture *f = fixture_new();
        struct sml_call *sent, *queued, late = { .method = "m", .method_bytes = 1 };

        f->link_options.window = 1;
        fixture_start(f);
        fixture_pump(f);
        sent = fixture_submit(f, "a");
        sent->flags = SML_CALL_RERUN_OK; /* nothing is resubmitted */
        queued = fixture_submit(f, "b");
        fixture_pump(f);
        say_bye(f, rows[i].code);
        assert_int_equal(f->link.state, SML_LINK_FAILED);
        fixture_expect(f, sent, SEMEL_UNKNOWN, rows[i].status, NULL);
        fixture_expect(f, queued, SEMEL_NOT_EXECUTED, rows[i].status, NULL);
        assert_int_equal(sml_link_submit(&f->link, &late, f->now), rows[i].status);
        assert_string_equal(f->link.why_text, "because");
        fixture_pass(f, 100 * SML_SECOND);
        assert_int_equal(f->connects, 1); /* no endless loop */
        fixture_free(f);
    }
}

static void retry_later_and_shutdown_are_waited_out(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "a");

    fixture_pump(f);
    say_bye(f, SML_BYE_SHUTDOWN);
    assert_int_equal(f->link.state, SML_LINK_WAITING);
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

/* Whatever a server says as soon as it has greeted, it is not called again in a tight loop. */
static void a_server_that_always_sends_away_is_not_called_in_a_loop(void **state)
{
    static const enum sml_bye_code codes[] = { SML_BYE_RETRY_LATER, SML_BYE_SHUTDOWN,
                                               SML_BYE_SILENT, SML_BYE_END, SML_BYE_SESSION_LOST };

    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct fixture *f = fixture_new();
        uint32_t byes = 0;

        fixture_start(f);
        fixture_pump(f);
        fixture_submit(f, "a");
        for (; f->connected && byes < 20; byes++) {
            sml_peer_close(&f->peer, codes[i], "not now");
            fixture_pump(f);
        }
        assert_in_range(byes, 1, codes[i] == SML_BYE_RETRY_LATER ? 1 : 2);
        assert_int_equal(f->link.state, SML_LINK_WAITING);
        assert_true(f->link.next_attempt >= f->now + f->link_options.backoff_min);
        fixture_free(f);
    }
}

static void a_server_that_forgets_each_session_is_not_called_in_a_loop(void **state)
{
    struct fixture *f = *state;
    uint32_t losses = 0;

    for (; f->connected && losses < 20; losses++) {
        struct sml_session *session;

        fixture_cut(f);
        session = SML_CONTAINER(f->host.sessions.next, struct sml_session, all);
        sml_host_end(&f->host, session);
        sml_session_free(&f->host, session);
        fixture_pump(f);
    }
    assert_in_range(losses, 1, 3);
    fixture_pass(f, SML_SECOND);
    assert_int_equal(f->link.state, SML_LINK_UP);
}

static void m7_garbage_is_forgiven_once(void **state)
{
    struct fixture *f = *state;

    say(f, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    assert_int_equal(f->link.state, SML_LINK_WAITING);
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    say(f, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    assert_int_equal(f->link.state, SML_LINK_FAILED);
    assert_int_equal(f->link.why, SEMEL_PROTOCOL);
}

static void m7_an_accepted_reply_makes_good(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 4; i++) {
        struct sml_call *call;

        say(f, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        fixture_pass(f, SML_SECOND);
        call = fixture_submit(f, "a");
        fixture_pump(f);
        fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
        fixture_pump(f);
        fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
    }
    assert_int_equal(f->link.state, SML_LINK_UP);
}

static void m7_frames_in_the_wrong_state_are_final(void **state)
{
    uint8_t bytes[SML_FRAME_BYTES_MAX];
    struct sml_welcome welcome = { .version = 1, .window = 1, .body_bytes = 1, .session_bytes = 1 };
    struct sml_call_frame call = { .method = { "m", 1 } };

    (void)state;
    for (int i = 0; i < 5; i++) {
        struct fixture *f = fixture_new();
        struct sml_reply_frame reply = { .verdict = { .outcome = SEMEL_VALUE } };

        fixture_start(f);
        fixture_pump(f);
        if (i == 0)
            say(f, bytes, sml_encode_welcome(bytes, &welcome));
        else if (i == 1)
            say(f, bytes, sml_encode_call(bytes, 1, &call));
        else if (i == 2)
            say(f, bytes, sml_encode_reply(bytes, 77, &reply)); /* never made */
        else if (i == 3)
            say(f, bytes, sml_encode_busy(bytes, 1, 20));
        else
            say(f, bytes, sml_encode_body(bytes, 5, 0, semel_bytes_text("x")));
        assert_int_equal(f->link.state, SML_LINK_FAILED);
        assert_int_equal(f->link.counters.protocol_errors, 1);
        /* The server is told why before the connection closes. */
        assert_true(sml_link_wants_write(&f->link, f->now));
        fixture_free(f);
    }
}

static void m8_late_replies_are_ignored_and_counted(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "a");
    uint8_t bytes[SML_FRAME_BYTES_MAX];
    struct sml_reply_frame reply = { .verdict = { .outcome = SEMEL_VALUE } };
    size_t size = sml_encode_reply(bytes, 1, &reply);

    fixture_pump(f);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    say(f, bytes, size);
    say(f, bytes, size);
    assert_int_equal(f->link.caller.counters.unexpected, 2);
    assert_int_equal(f->link.state, SML_LINK_UP);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
    assert_null(sml_caller_next_done(&f->link.caller));
}

static void draining_holds_new_calls_back(void **state)
{
    struct fixture *f = *state;
    struct sml_call *running = fixture_submit(f, "a"), *held;
    struct sml_incoming *in;

    fixture_pump(f);
    in = fixture_begin(f);
    f->host.draining = true;
    sml_peer_drain(&f->peer, 1000);
    fixture_pump(f);
    held = fixture_submit(f, "b");
    fixture_pump(f);
    assert_null(fixture_begin(f));
    fixture_finish(f, in, SEMEL_VALUE, "ra");
    fixture_pump(f);
    fixture_expect(f, running, SEMEL_VALUE, SEMEL_OK, "ra");
    /* Nothing is left there: the link ends its session and looks for another server. */
    fixture_pass(f, 25 * SML_MS);
    assert_int_equal(f->host.session_count, 0);
    f->host.draining = false;
    fixture_pass(f, SML_SECOND);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "rb");
    fixture_pump(f);
    fixture_expect(f, held, SEMEL_VALUE, SEMEL_OK, "rb");
}

static void an_idle_link_leaves_a_draining_server_when_it_has_a_call(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call;

    f->host.draining = true;
    sml_peer_drain(&f->peer, 1000);
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_true(sml_link_timeout(&f->link) > f->now);
    call = fixture_submit(f, "a");
    assert_true(sml_link_timeout(&f->link) <= f->now); /* not at the next heartbeat */
    fixture_pump(f);
    assert_int_equal(f->host.session_count, 0);
    f->host.draining = false;
    fixture_pass(f, SML_SECOND);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

/* --- the server's store ------------------------------------------------------------------ */

static struct disk disk;

static int set_up_durable(void **state)
{
    struct fixture *f = fixture_new();

    memset(&disk, 0, sizeof disk);
    f->link_options.window = 3;
    f->host_options.features = SML_FEATURE_KEYS;
    f->host_options.durable = true;
    f->host_options.store.generation = 3;
    memset(f->host_options.store.id, 0x51, 16);
    fixture_start(f);
    disk_pump(&disk, f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    *state = f;
    return 0;
}

static struct sml_session *only_session(struct fixture *f)
{
    return SML_CONTAINER(f->host.sessions.next, struct sml_session, all);
}

/* Four calls: `sent` before what follows, and `kept` with a key; `again` with one, too, and
 * willing to run twice in any case; and `queued` with a key, for which there is no window. */
static struct {
    struct sml_call *sent, *kept, *again, *queued;
} calls;

static void submit_four(struct fixture *f)
{
    calls.sent = fixture_submit(f, "s");
    calls.kept = fixture_submit(f, "k");
    calls.again = fixture_submit(f, "a");
    calls.queued = fixture_submit(f, "q");
    calls.kept->key = calls.again->key = calls.queued->key = "key";
    calls.kept->key_bytes = calls.again->key_bytes = calls.queued->key_bytes = 3;
    calls.again->flags = SML_CALL_RERUN_OK;
    disk_pump(&disk, f);
    assert_int_equal(fixture_callee(f)->hi, 3);
}

/* `with` makes `kept` run again; else it has ended, since its key is not known there. */
static void expect_the_next_session(struct fixture *f, bool with)
{
    struct sml_callee *callee = fixture_callee(f);

    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(f->link.counters.sessions_lost, 1);
    assert_int_equal(callee->hi, with ? 3 : 2);
    fixture_expect(f, calls.sent, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
    if (!with)
        fixture_expect(f, calls.kept, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
    for (int i = with ? 0 : 1; i < 3; i++) {
        struct sml_call *const in_turn[] = { calls.kept, calls.again, calls.queued };
        struct sml_incoming *in = fixture_begin(f);

        assert_int_equal(in->key_age_ms > 0, i < 2);
        fixture_finish(f, in, SEMEL_VALUE, "r");
        disk_pump(&disk, f);
        fixture_expect(f, in_turn[i], SEMEL_VALUE, SEMEL_OK, "r");
    }
}

static void forget_session(struct fixture *f)
{
    fixture_cut(f);
    fixture_end(f, only_session(f));
}

static void a_key_is_used_again_where_it_is_known(void **state)
{
    struct fixture *f = *state;

    submit_four(f);
    forget_session(f);
    disk_pump(&disk, f);
    expect_the_next_session(f, true);
}

static void nor_where_another_server_answers(void **state)
{
    struct fixture *f = *state;

    submit_four(f);
    forget_session(f);
    f->host.server_id[3] ^= 1;
    disk_pump(&disk, f);
    expect_the_next_session(f, false);
}

static void nor_where_the_store_is_of_another_generation(void **state)
{
    struct fixture *f = *state;

    submit_four(f);
    forget_session(f);
    f->host.options.store.generation++;
    disk_pump(&disk, f);
    expect_the_next_session(f, false);
}

/* The session is there, but it is not the memory in which it was made. */
static void a_session_in_another_store_is_lost(void **state)
{
    static const char *const texts[] = { "another server answers at the session's address",
                                         "the server's store was replaced by an earlier one",
                                         "the server's store was rolled back" };

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct fixture *f;
        void *opened;

        set_up_durable(&opened);
        f = opened;
        submit_four(f);
        fixture_cut(f);
        if (i == 0)
            f->host.server_id[15] ^= 1;
        else if (i == 1)
            f->host.options.store.generation--;
        else
            f->link.caller.durable_hi = 1; /* a reply said so */
        disk_pump(&disk, f);
        assert_string_equal(f->link.why_text, texts[i]);
        assert_int_equal(f->host.counters.ended, 1); /* nobody comes back to it */
        expect_the_next_session(f, false);
        fixture_free(f);
    }
}

/* Its number does not show it, but a reply has begun that the server knows nothing of. */
static void a_session_that_forgot_a_stored_reply_is_lost(void **state)
{
    struct fixture *f = *state;
    struct sml_reply_frame reply = { .flags = SML_REPLY_RECORDED,
                                     .verdict = { .outcome = SEMEL_VALUE, .body = { "r", 1 } },
                                     .body_bytes = 2 };
    uint8_t bytes[SML_FRAME_BYTES_MAX];

    submit_four(f);
    say(f, bytes, sml_encode_reply(bytes, 1, &reply));
    fixture_cut(f);
    f->link.caller.durable_hi = 0;
    only_session(f)->callee.restored = true;
    disk_pump(&disk, f);
    assert_string_equal(f->link.why_text, "the server's store was rolled back");
    assert_int_equal(f->host.counters.ended, 1);
    expect_the_next_session(f, false);
}

static void a_store_that_goes_on_is_the_same(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call;

    assert_int_equal(f->link.generation, 3);
    for (uint64_t i = 1; i <= 3; i++) {
        call = fixture_submit(f, "x");
        disk_pump(&disk, f);
        struct sml_callee *callee = fixture_callee(f);
        struct sml_incoming *in = sml_callee_take(callee);
        assert_true(sml_callee_start(callee, in, f->now));
        disk_pump(&disk, f);
        assert_true(sml_callee_begin(callee, in, 0, f->now));
        if (i == 2) { /* what is covered meanwhile is in the next WELCOME */
            fixture_cut(f);
            disk_pump(&disk, f);
            assert_int_equal(f->link.caller.durable_hi, 2);
        }
        fixture_finish(f, in, SEMEL_VALUE, "r");
        disk_pump(&disk, f);
        assert_int_equal(f->link.caller.durable_hi, i);
        fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
        fixture_pass(f, 25 * SML_MS);
        fixture_cut(f);
        disk_pump(&disk, f);
        assert_int_equal(f->link.state, SML_LINK_UP);
    }
    assert_int_equal(f->link.counters.sessions_lost, 0);
    assert_int_equal(disk_count(disk.calls), 0);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }
#define DURABLE(name, function) { name, function, set_up_durable, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW("terminal BYEs end everything", terminal_byes_end_everything),
        FRESH("RETRY_LATER and SHUTDOWN are waited out", retry_later_and_shutdown_are_waited_out),
        ROW("a server that always sends away is not called in a loop",
            a_server_that_always_sends_away_is_not_called_in_a_loop),
        FRESH("a server that forgets each session is not called in a loop",
              a_server_that_forgets_each_session_is_not_called_in_a_loop),
        FRESH("M7 bad input: garbage is forgiven once", m7_garbage_is_forgiven_once),
        FRESH("M7 bad input: an accepted reply makes good", m7_an_accepted_reply_makes_good),
        ROW("M7 bad input: frames in the wrong state are final",
            m7_frames_in_the_wrong_state_are_final),
        FRESH("M8 id table: late and repeated replies are ignored and counted",
              m8_late_replies_are_ignored_and_counted),
        FRESH("draining holds new calls back", draining_holds_new_calls_back),
        FRESH("an idle link leaves a draining server when it has a call",
              an_idle_link_leaves_a_draining_server_when_it_has_a_call),
        DURABLE("a key is used again where it is known", a_key_is_used_again_where_it_is_known),
        DURABLE("a key is not used again where another server answers",
                nor_where_another_server_answers),
        DURABLE("a key is not used again in another generation of the store",
                nor_where_the_store_is_of_another_generation),
        ROW("a session in another store is lost", a_session_in_another_store_is_lost),
        DURABLE("a session that forgot a stored reply is lost",
                a_session_that_forgot_a_stored_reply_is_lost),
        DURABLE("a store that goes on is the same", a_store_that_goes_on_is_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
