/* SPDX-License-Identifier: MIT */
/* Parts and credits, one end at a time, and two ends joined by hand. */
#include "fixture.h"
#include "session/stream.h"

#define FULL_CHARGE (SML_FRAGMENT_BYTES + SML_PART_CHARGE)
#define REST (SML_STREAM_CREDIT - FULL_CHARGE - SML_PART_CHARGE) /* beside one of full size */

static const struct sml_mem *const mem = &sml_mem_libc;
static struct sml_stream near, far; /* near sends to far */
static uint8_t bytes[SML_FRAME_BYTES_MAX];
static uint8_t filler[SML_FRAGMENT_BYTES];
static const char *why;

static int set_up(void **state)
{
    (void)state;
    sml_stream_init(&near, true, false);
    sml_stream_init(&far, false, true);
    why = NULL;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sml_stream_clear(&near, mem);
    sml_stream_clear(&far, mem);
    return 0;
}

static struct sml_part *part_of(enum sml_part_kind kind, size_t size)
{
    struct sml_part *part = sml_part_create(mem, kind, semel_bytes(filler, size));

    assert_non_null(part);
    return part;
}

static void add(size_t size)
{
    sml_outflow_add(&near.out, part_of(SML_PART_ITEM, size));
}

static void set_progress(const char *text)
{
    struct sml_part *part = sml_part_create(mem, SML_PART_PROGRESS, semel_bytes_text(text));

    assert_non_null(part);
    sml_outflow_set_progress(&near.out, mem, part);
}

static struct sml_frame decoded(size_t size)
{
    struct sml_frame frame;
    size_t used;

    assert_int_equal(sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
                     SML_DECODED);
    assert_int_equal(used, size);
    assert_int_equal(frame.xid, 7);
    return frame;
}

/* The next frame that near sends; its xid is 0 if there is none. */
static struct sml_frame pull(void)
{
    size_t size = sml_stream_pull(&near, 7, true, NULL, bytes, sizeof bytes);
    struct sml_frame nothing = { .xid = 0 };

    return size > 0 ? decoded(size) : nothing;
}

static void expect_part(enum sml_part_kind kind, uint64_t number, size_t size)
{
    struct sml_frame frame = pull();

    assert_int_equal(frame.xid, 7);
    assert_int_equal(frame.type, SML_PART);
    assert_int_equal(frame.u.part.kind, kind);
    assert_int_equal(frame.u.part.number, number);
    assert_int_equal(frame.u.part.bytes.size, size);
}

static void expect_silence(void)
{
    assert_false(sml_outflow_is_ready(&near.out));
    assert_false(sml_stream_wants_write(&near, true));
    assert_int_equal(sml_stream_pull(&near, 7, true, NULL, bytes, sizeof bytes), 0);
}

static enum semel_status give(enum sml_part_kind kind, uint64_t number, size_t size)
{
    struct sml_part_frame frame = { number, kind, { filler, size } };

    return sml_inflow_part(&far.in, mem, &frame, NULL, &why);
}

static const char *credit(uint64_t next, uint64_t taken, uint64_t limit)
{
    struct sml_credit_frame frame = { next, taken, limit };

    return sml_outflow_credit(&near.out, mem, &frame);
}

static void take(uint32_t count)
{
    while (count-- > 0) {
        struct sml_part *part = sml_inflow_take(&far.in);

        assert_non_null(part);
        sml_release(mem, part);
    }
}

/* What far grants reaches near. */
static void pass_credit(void)
{
    struct sml_frame frame;

    assert_true(sml_stream_wants_write(&far, false));
    assert_int_equal(sml_stream_pull(&far, 7, false, NULL, bytes, SML_CREDIT_FRAME_BYTES - 1), 0);
    frame = decoded(sml_stream_pull(&far, 7, false, NULL, bytes, SML_CREDIT_FRAME_BYTES));
    assert_int_equal(frame.type, SML_CREDIT);
    assert_null(sml_outflow_credit(&near.out, mem, &frame.u.credit));
}

/* Everything near may send reaches far. Returns how many frames. */
static uint32_t pass_parts(void)
{
    struct sml_frame frame;
    uint32_t count = 0;

    while ((frame = pull()).xid != 0) {
        count++;
        if (sml_inflow_part(&far.in, mem, &frame.u.part, NULL, &why) != SEMEL_OK)
            fail_msg("%s", why);
    }
    return count;
}

static void cut(void)
{
    sml_stream_resume(&near);
    sml_stream_resume(&far);
}

static void parts_keep_their_order_and_kind(void **state)
{
    (void)state;
    expect_silence();
    sml_outflow_add(&near.out, part_of(SML_PART_PIECE, 3));
    sml_outflow_add(&near.out, part_of(SML_PART_ITEM, 2));
    add(0);
    expect_part(SML_PART_PIECE, 0, 3);
    expect_part(SML_PART_ITEM, 1, 2);
    expect_part(SML_PART_ITEM, 2, 0);
    expect_silence();
    assert_true(sml_outflow_is_drained(&near.out));
    sml_outflow_end(&near.out);
    assert_false(sml_outflow_is_drained(&near.out));
    expect_part(SML_PART_END, 3, 0);
    expect_silence();
    assert_true(sml_outflow_is_drained(&near.out));
}

static void nothing_is_cut_to_fit(void **state)
{
    (void)state;
    add(100);
    assert_int_equal(sml_stream_pull(&near, 7, true, NULL, bytes, SML_PART_OVERHEAD + 99), 0);
    assert_true(sml_outflow_is_ready(&near.out));
    assert_int_equal(sml_stream_pull(&near, 7, false, NULL, bytes, sizeof bytes), 0);
    assert_true(sml_stream_wants_write(&near, true));
    assert_false(sml_stream_wants_write(&near, false));
    assert_int_equal(sml_stream_pull(&near, 7, true, NULL, bytes, SML_PART_OVERHEAD + 100),
                     SML_PART_OVERHEAD + 100);
}

static void the_first_credit_bounds_what_is_sent(void **state)
{
    (void)state;
    add(SML_FRAGMENT_BYTES);
    add(REST);
    add(0);
    expect_part(SML_PART_ITEM, 0, SML_FRAGMENT_BYTES);
    expect_part(SML_PART_ITEM, 1, REST); /* to the byte */
    expect_silence();
    assert_false(sml_outflow_is_drained(&near.out));
    assert_null(credit(0, 0, SML_STREAM_CREDIT + SML_PART_CHARGE - 1));
    expect_silence();
    assert_null(credit(0, 0, SML_STREAM_CREDIT + SML_PART_CHARGE));
    assert_null(credit(0, 0, 1)); /* what was granted is granted */
    expect_part(SML_PART_ITEM, 2, 0);
    /* The end is free. */
    sml_outflow_end(&near.out);
    expect_part(SML_PART_END, 3, 0);
}

static void a_receiver_holds_its_sender_to_its_credit(void **state)
{
    (void)state;
    assert_int_equal(give(SML_PART_ITEM, 0, SML_FRAGMENT_BYTES), SEMEL_OK);
    assert_int_equal(give(SML_PART_ITEM, 1, REST + 1), SEMEL_PROTOCOL);
    assert_string_equal(why, "PART goes over its credit");
    assert_int_equal(give(SML_PART_ITEM, 1, REST), SEMEL_OK);
    assert_int_equal(give(SML_PART_ITEM, 2, 0), SEMEL_PROTOCOL);
    assert_int_equal(give(SML_PART_PROGRESS, 0, 9), SEMEL_OK);
    assert_int_equal(give(SML_PART_END, 2, 0), SEMEL_OK);
}

static void a_receiver_holds_its_sender_to_the_numbers(void **state)
{
    (void)state;
    assert_int_equal(give(SML_PART_ITEM, 1, 1), SEMEL_PROTOCOL);
    assert_string_equal(why, "PART is not the next one");
    assert_int_equal(give(SML_PART_ITEM, 0, 1), SEMEL_OK);
    assert_int_equal(give(SML_PART_ITEM, 0, 1), SEMEL_PROTOCOL);
    assert_int_equal(give(SML_PART_END, 0, 0), SEMEL_PROTOCOL);
    assert_int_equal(give(SML_PART_END, 2, 0), SEMEL_PROTOCOL);
    assert_false(sml_inflow_is_at_end(&far.in));
    assert_int_equal(give(SML_PART_END, 1, 0), SEMEL_OK);
    assert_false(sml_inflow_is_at_end(&far.in)); /* there is one to take */
    assert_int_equal(give(SML_PART_END, 1, 0), SEMEL_OK);
    assert_int_equal(give(SML_PART_ITEM, 1, 1), SEMEL_PROTOCOL);
    assert_string_equal(why, "PART after the end of its stream");
    take(1);
    assert_true(sml_inflow_is_at_end(&far.in));
    assert_null(sml_inflow_take(&far.in));
}

static void a_sender_holds_its_receiver_to_what_it_said(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        add(10);
    for (uint64_t i = 0; i < 3; i++)
        expect_part(SML_PART_ITEM, i, 10);
    assert_string_equal(credit(4, 0, 0), "CREDIT for parts that were not sent");
    assert_null(credit(3, 2, 0));
    assert_int_equal(near.out.taken, 2);
    assert_string_equal(credit(3, 1, 0), "CREDIT takes back what it said");
    assert_string_equal(credit(1, 1, 0), "CREDIT takes back what it said");
    assert_null(credit(3, 2, 0));
    /* A new connection may have less of them, and never more. */
    sml_stream_resume(&near);
    assert_string_equal(credit(4, 4, 0), "CREDIT for parts that were not sent");
    assert_string_equal(credit(1, 1, 0), "CREDIT takes back what it said");
    assert_int_equal(near.out.taken, 2);
    assert_null(credit(2, 2, 0));
    for (uint64_t i = 2; i < 4; i++)
        expect_part(SML_PART_ITEM, i, 10);
    expect_silence();
}

static void what_is_taken_is_kept_no_longer(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        add(100);
    assert_int_equal(near.out.charge, 3 * 164);
    assert_int_equal(pass_parts(), 3);
    take(2);
    far.in.credit_due = true;
    pass_credit();
    assert_int_equal(near.out.taken, 2);
    assert_int_equal(near.out.taken_charge, 2 * 164);
    assert_false(sml_list_empty(&near.out.parts));
    take(1);
    far.in.credit_due = true;
    pass_credit();
    assert_true(sml_list_empty(&near.out.parts));
}

static void credit_is_owed_at_half_a_narrow_window(void **state)
{
    const size_t half = SML_STREAM_CREDIT / 2;
    uint64_t windows = 0;

    (void)state;
    assert_false(sml_inflow_owes_credit(&far.in));
    sml_stream_widen(&far, &windows);
    assert_true(sml_inflow_owes_credit(&far.in)); /* what is there for the asking */
    pass_credit();
    assert_int_equal(near.out.limit, SML_STREAM_WINDOW);
    assert_false(sml_inflow_owes_credit(&far.in));
    for (int round = 1; round <= 3; round++) {
        for (size_t sent = 0; sent < half; sent += 1024) /* to the byte */
            add(1024 - SML_PART_CHARGE);
        pass_parts();
        take((uint32_t)(half / 1024) - 1);
        assert_false(sml_inflow_owes_credit(&far.in));
        take(1);
        assert_true(sml_inflow_owes_credit(&far.in));
        pass_credit();
        assert_int_equal(near.out.limit, SML_STREAM_WINDOW + (size_t)round * half);
        assert_int_equal(near.out.taken_charge, (size_t)round * half);
    }
}

/* What its sender may keep is little, what may wait at the reader's much. */
static void a_narrow_sender_is_told_in_time(void **state)
{
    uint64_t windows = 0;

    (void)state;
    sml_stream_widen(&far, &windows);
    pass_credit();
    for (int i = 0; i < 10000; i++) {
        if (!sml_stream_has_room(&near)) {
            pass_parts();
            take((uint32_t)(far.in.arrived - far.in.taken));
            pass_credit();
        }
        assert_true(sml_stream_has_room(&near));
        add((size_t)i * 37 % 3000);
    }
}

/* Items of many pieces, read as they come: a sender whose window is narrow is never taken for one
 * whose window is wide, and neither stands still. */
static void senders_are_told_apart(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        uint64_t windows = 0, credits = 0;

        tear_down(NULL);
        set_up(NULL);
        sml_stream_widen(&far, &windows);
        if (wide)
            sml_stream_widen(&near, &windows);
        for (int i = 0; i < 1000; i++) {
            while (sml_stream_has_room(&near)) {
                for (int pieces = i % 7; pieces > 0; pieces--)
                    sml_outflow_add(&near.out, part_of(SML_PART_PIECE, SML_FRAGMENT_BYTES));
                add((size_t)i * 37 % SML_FRAGMENT_BYTES);
            }
            pass_parts();
            take((uint32_t)(far.in.arrived - far.in.taken));
            if (sml_inflow_owes_credit(&far.in)) {
                pass_credit();
                credits++;
            }
            assert_true(wide || !far.in.wide);
            assert_true(sml_stream_has_room(&near) || near.out.next);
        }
        assert_int_equal(far.in.wide, wide != 0);
        assert_true(!wide || credits <= 2 + far.in.charge / (SML_STREAM_WINDOW / 4));
    }
}

/* Whatever sizes came before: whoever takes all that is there gets a part of any size. */
static void no_stream_stands_still(void **state)
{
    (void)state;
    for (size_t first = 0; first <= SML_FRAGMENT_BYTES; first += first < 65000 ? 641 : 1) {
        tear_down(NULL);
        set_up(NULL);
        add(first);
        add(SML_FRAGMENT_BYTES);
        add(SML_FRAGMENT_BYTES);
        pass_parts();
        while (far.in.arrived < 3) {
            take((uint32_t)(far.in.arrived - far.in.taken));
            pass_credit();
            assert_true(pass_parts() > 0);
        }
    }
}

static void nothing_is_granted_to_what_has_ended(void **state)
{
    (void)state;
    add(SML_FRAGMENT_BYTES);
    sml_outflow_end(&near.out);
    pass_parts();
    take(1);
    assert_false(sml_inflow_owes_credit(&far.in));
    sml_stream_resume(&far);
    assert_true(sml_inflow_owes_credit(&far.in)); /* but where it stands is said */
    (void)sml_inflow_encode_credit(&far.in, 7, bytes);
    assert_false(sml_inflow_owes_credit(&far.in));
}

static void after_a_reconnect_the_receiver_speaks_first(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        add(10);
    sml_outflow_end(&near.out);
    assert_int_equal(give(SML_PART_ITEM, 0, 10), SEMEL_OK);
    assert_int_equal(give(SML_PART_ITEM, 1, 10), SEMEL_OK);
    for (uint64_t i = 0; i < 5; i++)
        expect_part(SML_PART_ITEM, i, 10); /* of which three are lost */
    expect_part(SML_PART_END, 5, 0);
    take(1);
    cut();
    expect_silence();
    pass_credit();
    assert_int_equal(near.out.taken, 1);
    assert_int_equal(near.out.sent, 2);
    expect_part(SML_PART_ITEM, 2, 10);
    assert_int_equal(give(SML_PART_ITEM, 2, 10), SEMEL_OK);
    cut();
    expect_silence();
    pass_credit();
    assert_int_equal(pass_parts(), 3);
    take(4);
    assert_true(sml_inflow_is_at_end(&far.in));
    /* The end was lost, as far as near knows. */
    cut();
    pass_credit();
    expect_part(SML_PART_END, 5, 0);
    assert_int_equal(give(SML_PART_END, 5, 0), SEMEL_OK);
}

static void a_credit_that_was_lost_is_said_again(void **state)
{
    uint64_t windows = 0;

    (void)state;
    sml_stream_widen(&far, &windows);
    (void)sml_inflow_encode_credit(&far.in, 7, bytes);
    assert_false(sml_inflow_owes_credit(&far.in));
    assert_int_equal(near.out.limit, SML_STREAM_CREDIT);
    cut();
    pass_credit();
    assert_int_equal(near.out.limit, SML_STREAM_WINDOW);
}

static void only_the_latest_progress_counts(void **state)
{
    struct sml_frame frame;
    struct sml_part *part;

    (void)state;
    add(SML_FRAGMENT_BYTES);
    add(SML_FRAGMENT_BYTES);
    expect_part(SML_PART_ITEM, 0, SML_FRAGMENT_BYTES);
    expect_silence();
    set_progress("10 %");
    set_progress("20 %");
    assert_false(sml_outflow_is_drained(&near.out));
    frame = pull(); /* past what waits for credit */
    assert_int_equal(frame.u.part.kind, SML_PART_PROGRESS);
    assert_memory_equal(frame.u.part.bytes.data, "20 %", 4);
    assert_int_equal(sml_inflow_part(&far.in, mem, &frame.u.part, NULL, &why), SEMEL_OK);
    expect_silence();
    set_progress("30 %");
    assert_int_equal(pass_parts(), 1);
    part = sml_inflow_take_progress(&far.in);
    assert_memory_equal(part->bytes, "30 %", 4);
    sml_release(mem, part);
    assert_null(sml_inflow_take_progress(&far.in));
    assert_int_equal(far.in.arrived, 0);
    /* After a reconnect it comes again. */
    cut();
    assert_null(credit(1, 0, 0));
    assert_int_equal(pull().u.part.kind, SML_PART_PROGRESS);
    expect_silence();
}

static void a_stream_begins_again_at_its_first_part(void **state)
{
    uint64_t windows = 0;

    (void)state;
    sml_stream_widen(&far, &windows);
    pass_credit();
    for (int i = 0; i < 4; i++)
        add(SML_FRAGMENT_BYTES);
    set_progress("half");
    sml_outflow_end(&near.out);
    assert_int_equal(pass_parts(), 6);
    take(2);
    sml_outflow_down(&near.out);
    assert_true(sml_outflow_restart(&near.out)); /* it has not heard of that */
    sml_inflow_restart(&far.in, mem);
    assert_int_equal(far.in.attempt, 1);
    assert_null(sml_inflow_take(&far.in));
    assert_null(sml_inflow_take_progress(&far.in));
    assert_false(far.in.ended);
    /* With the credit of a new stream, without being told. */
    assert_int_equal(pull().u.part.kind, SML_PART_PROGRESS);
    expect_part(SML_PART_ITEM, 0, SML_FRAGMENT_BYTES);
    expect_silence();
    assert_int_equal(give(SML_PART_ITEM, 0, SML_FRAGMENT_BYTES), SEMEL_OK);
    pass_credit();
    assert_int_equal(near.out.limit, SML_STREAM_WINDOW);
    assert_int_equal(pass_parts(), 4);
    take(4);
    assert_true(sml_inflow_is_at_end(&far.in));
}

static void a_stream_that_lost_its_beginning_does_not_begin_again(void **state)
{
    (void)state;
    add(1);
    add(1);
    pass_parts();
    assert_null(credit(1, 1, 0));
    assert_false(sml_outflow_restart(&near.out));
    assert_int_equal(near.out.sent, 2);
}

static void what_has_not_begun_has_one_attempt(void **state)
{
    (void)state;
    sml_inflow_restart(&far.in, mem);
    assert_int_equal(far.in.attempt, 0);
    assert_int_equal(give(SML_PART_END, 0, 0), SEMEL_OK);
    sml_inflow_restart(&far.in, mem);
    assert_int_equal(far.in.attempt, 1);
    assert_false(far.in.ended);
    assert_int_equal(give(SML_PART_PROGRESS, 0, 1), SEMEL_OK);
    sml_inflow_restart(&far.in, mem);
    assert_int_equal(far.in.attempt, 2);
    assert_null(far.in.progress);
    /* Also if that was read at once: the next may be further back. */
    assert_int_equal(give(SML_PART_PROGRESS, 0, 1), SEMEL_OK);
    sml_release(mem, sml_inflow_take_progress(&far.in));
    sml_inflow_restart(&far.in, mem);
    assert_int_equal(far.in.attempt, 3);
    sml_inflow_restart(&far.in, mem);
    assert_int_equal(far.in.attempt, 3);
}

static void a_stream_that_is_cut_has_no_end(void **state)
{
    (void)state;
    add(SML_FRAGMENT_BYTES);
    add(SML_FRAGMENT_BYTES);
    add(5);
    expect_part(SML_PART_ITEM, 0, SML_FRAGMENT_BYTES);
    set_progress("half");
    sml_outflow_end(&near.out);
    sml_outflow_cut(&near.out, mem);
    assert_true(sml_outflow_is_drained(&near.out));
    assert_int_equal(near.out.added, 1);
    assert_int_equal(near.out.charge, FULL_CHARGE);
    expect_silence();
    /* Whatever the next connections ask for. */
    sml_stream_resume(&near);
    sml_outflow_cut(&near.out, mem);
    expect_silence();
    sml_stream_resume(&near);
    assert_null(credit(0, 0, 0));
    expect_part(SML_PART_ITEM, 0, SML_FRAGMENT_BYTES);
    expect_silence();
    assert_null(credit(1, 1, 0));
    sml_outflow_cut(&near.out, mem);
    assert_int_equal(near.out.charge, FULL_CHARGE);
    expect_silence();
}

static void a_few_may_hold_much(void **state)
{
    static struct sml_stream many[65];
    uint64_t windows = 0;

    (void)state;
    for (size_t i = 0; i < 65; i++) {
        sml_stream_init(&many[i], true, true);
        sml_stream_widen(&many[i], &windows);
    }
    assert_int_equal(windows, SML_STREAM_WINDOWS);
    assert_int_equal(many[63].in.window, SML_STREAM_WINDOW);
    assert_int_equal(many[64].in.window, SML_STREAM_CREDIT);
    sml_stream_narrow(&many[64], &windows);
    assert_int_equal(windows, SML_STREAM_WINDOWS);
    sml_stream_narrow(&many[0], &windows);
    sml_stream_narrow(&many[0], &windows); /* once */
    assert_int_equal(windows, SML_STREAM_WINDOWS - SML_STREAM_WINDOW);
    sml_stream_widen(&many[64], &windows);
    assert_int_equal(many[64].in.window, SML_STREAM_WINDOW);
}

static void there_is_room_for_less_than_a_window(void **state)
{
    (void)state;
    add(SML_FRAGMENT_BYTES);
    add(REST - 1);
    assert_true(sml_stream_has_room(&near));
    add(0);
    assert_false(sml_stream_has_room(&near));
    pass_parts();
    assert_false(sml_stream_has_room(&near)); /* until they are taken */
    take(1);
    pass_credit();
    assert_true(sml_stream_has_room(&near));
}

static void *no_memory(void *user, size_t size)
{
    (void)user;
    (void)size;
    return NULL;
}

static void without_memory_nothing_has_arrived(void **state)
{
    const struct sml_mem none = { no_memory, mem->release, NULL };
    struct sml_part_frame item = { 0, SML_PART_ITEM, { filler, 9 } };
    struct sml_part_frame progress = { 0, SML_PART_PROGRESS, { filler, 9 } };

    (void)state;
    assert_null(sml_part_create(&none, SML_PART_ITEM, semel_bytes(filler, 9)));
    assert_int_equal(give(SML_PART_PROGRESS, 0, 4), SEMEL_OK);
    assert_int_equal(sml_inflow_part(&far.in, &none, &item, NULL, &why), SEMEL_NO_MEMORY);
    assert_int_equal(sml_inflow_part(&far.in, &none, &progress, NULL, &why), SEMEL_NO_MEMORY);
    assert_int_equal(far.in.arrived, 0);
    assert_int_equal(far.in.charge, 0);
    assert_int_equal(far.in.progress->size, 4);
    assert_int_equal(sml_inflow_part(&far.in, mem, &item, NULL, &why), SEMEL_OK);
}

/* Both directions at once: what is owed goes before what is to be sent. */
static void credit_goes_before_parts(void **state)
{
    struct sml_stream both;

    (void)state;
    sml_stream_init(&both, true, true);
    sml_outflow_add(&both.out, part_of(SML_PART_ITEM, 1));
    sml_stream_resume(&both);
    assert_true(sml_stream_wants_write(&both, false));
    assert_int_equal(decoded(sml_stream_pull(&both, 7, true, NULL, bytes, sizeof bytes)).type,
                     SML_CREDIT);
    assert_false(sml_stream_wants_write(&both, true)); /* silent until it is asked */
    both.out.open = true;
    assert_int_equal(decoded(sml_stream_pull(&both, 7, true, NULL, bytes, sizeof bytes)).type,
                     SML_PART);
    assert_false(sml_stream_wants_write(&both, true));
    sml_stream_clear(&both, mem);
    /* A stream that only sends owes nothing, whatever comes. */
    sml_stream_resume(&near);
    assert_false(near.in.credit_due);
}

/* --- large parts ------------------------------------------------------------------------- */

static int holds, held;
static bool has_room;

static bool hold(struct sml_backing *backing)
{
    (void)backing;
    holds += has_room;
    held += has_room;
    return has_room;
}

static void let_go(struct sml_backing *backing)
{
    (void)backing;
    held--;
}

/* A large part is pulled without its bytes, which stay its own until they are written. */
static void large_parts_are_pulled_without_their_bytes(void **state)
{
    struct sml_views views = { 0 };
    uint8_t *at = bytes;

    (void)state;
    near.out.limit = UINT64_MAX;
    add(SML_VIEW_BYTES - 1);
    for (int i = 0; i <= SML_VIEWS; i++)
        add(SML_VIEW_BYTES);
    at += sml_stream_pull(&near, 7, true, &views, at, SML_FRAME_BYTES_MAX);
    assert_int_equal(at - bytes, SML_PART_OVERHEAD + SML_VIEW_BYTES - 1);
    assert_int_equal(views.count, 0);
    for (uint32_t i = 0; i < SML_VIEWS; i++) {
        assert_false(sml_views_full(&views));
        assert_int_equal(sml_stream_pull(&near, 7, true, &views, at, SML_PART_OVERHEAD),
                         SML_PART_OVERHEAD);
        at += SML_PART_OVERHEAD;
        assert_int_equal(views.count, i + 1);
        assert_ptr_equal(views.list[i].after, at);
        assert_int_equal(views.list[i].part->number, i + 1);
    }
    assert_true(sml_views_full(&views));
    assert_int_equal(sml_stream_pull(&near, 7, true, &views, at, SML_FRAME_BYTES_MAX), 0);
    assert_null(sml_outflow_credit(&near.out, mem,
                                   &(struct sml_credit_frame){ SML_VIEWS + 1, SML_VIEWS + 1, 0 }));
    for (uint32_t i = 0; i < SML_VIEWS; i++) { /* taken, and still to be written */
        assert_memory_equal(views.list[i].part->bytes, filler, SML_VIEW_BYTES);
        sml_part_release(mem, views.list[i].part);
    }
    expect_part(SML_PART_ITEM, SML_VIEWS + 1, SML_VIEW_BYTES); /* whole, without views */
}

/* A large part stays where it arrived, if it may; a small one never does. */
static void large_parts_stay_where_they_arrive(void **state)
{
    struct sml_backing backing = { hold, let_go };
    const struct {
        size_t size;
        bool room, stays;
    } cases[] = { { SML_VIEW_BYTES - 1, true, false },
                  { SML_VIEW_BYTES, true, true },
                  { SML_VIEW_BYTES, false, false } };

    (void)state;
    holds = held = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sml_part_frame frame = { i, SML_PART_ITEM, { filler, cases[i].size } };
        struct sml_part *part;

        has_room = cases[i].room;
        far.in.limit = UINT64_MAX;
        assert_int_equal(sml_inflow_part(&far.in, mem, &frame, &backing, &why), SEMEL_OK);
        part = sml_inflow_take(&far.in);
        assert_int_equal(part->bytes == filler, cases[i].stays);
        assert_int_equal(held, cases[i].stays);
        assert_memory_equal(part->bytes, filler, cases[i].size);
        sml_part_release(mem, part);
        assert_int_equal(held, 0);
    }
    assert_int_equal(holds, 1);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("parts keep their order and kind", parts_keep_their_order_and_kind),
        FRESH("a part is never cut to fit", nothing_is_cut_to_fit),
        FRESH("the first credit bounds what is sent", the_first_credit_bounds_what_is_sent),
        FRESH("a sender over its credit", a_receiver_holds_its_sender_to_its_credit),
        FRESH("a sender that skips or repeats", a_receiver_holds_its_sender_to_the_numbers),
        FRESH("a receiver that contradicts itself", a_sender_holds_its_receiver_to_what_it_said),
        FRESH("what is taken is kept no longer", what_is_taken_is_kept_no_longer),
        FRESH("credit is owed at half a narrow window", credit_is_owed_at_half_a_narrow_window),
        FRESH("a narrow sender is told in time", a_narrow_sender_is_told_in_time),
        FRESH("senders are told apart", senders_are_told_apart),
        FRESH("no stream stands still whose parts are taken", no_stream_stands_still),
        FRESH("nothing is granted to what has ended", nothing_is_granted_to_what_has_ended),
        FRESH("after a reconnect the receiver speaks first",
              after_a_reconnect_the_receiver_speaks_first),
        FRESH("a credit that was lost is said again", a_credit_that_was_lost_is_said_again),
        FRESH("only the latest progress counts", only_the_latest_progress_counts),
        FRESH("a stream begins again at its first part", a_stream_begins_again_at_its_first_part),
        FRESH("a stream that lost its beginning does not begin again",
              a_stream_that_lost_its_beginning_does_not_begin_again),
        FRESH("what has not begun has one attempt", what_has_not_begun_has_one_attempt),
        FRESH("a stream that is cut has no end", a_stream_that_is_cut_has_no_end),
        FRESH("a few streams may hold much", a_few_may_hold_much),
        FRESH("there is room for less than a window", there_is_room_for_less_than_a_window),
        FRESH("without memory nothing has arrived", without_memory_nothing_has_arrived),
        FRESH("credit goes before parts", credit_goes_before_parts),
        FRESH("large parts are pulled without their bytes",
              large_parts_are_pulled_without_their_bytes),
        FRESH("large parts stay where they arrive", large_parts_stay_where_they_arrive),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
