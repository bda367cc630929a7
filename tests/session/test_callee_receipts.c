/* SPDX-License-Identifier: MIT */
/* What becomes of a verdict, as whoever gave it is told. */
#include "fixture.h"

#include "session/callee_internal.h"

static struct sml_callee callee;
static struct sml_receipt receipt;
static struct sml_incoming *in;
static const struct sml_callee_limits limits = { .window = 4,
                                                 .body_bytes = 1000,
                                                 .session_bytes = 2000 };

/* One call runs, and somebody will ask what becomes of its verdict. */
static int set_up(void **state)
{
    struct sml_frame frame = { .type = SML_CALL, .xid = 1 };
    const char *why;

    (void)state;
    sml_callee_init(&callee, &sml_mem_libc, &limits);
    frame.u.call = (struct sml_call_frame){ .fingerprint = sml_fingerprint("m", 1, "", 0, "", 0),
                                            .remaining_ms = 1000,
                                            .method = { "m", 1 } };
    if (sml_callee_frame(&callee, &frame, 0, &why) != SEMEL_OK)
        return -1;
    in = sml_callee_take(&callee);
    return sml_callee_begin(&callee, in, 50 * SML_MS, 0) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    sml_callee_clear(&callee);
    assert_null(sml_callee_next_receipt(&callee));
    return 0;
}

static void finish(size_t bytes)
{
    uint8_t *reply = sml_callee_reply_alloc(&callee, bytes);
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE, .body = { reply, bytes } };

    memset(reply, 'r', bytes);
    sml_callee_ask_receipt(in, &receipt);
    sml_callee_finish(&callee, in, &verdict, reply);
}

static void send(size_t room)
{
    static uint8_t out[100000];

    (void)sml_callee_pull(&callee, out, room, 0);
}

static void give_ack(void)
{
    struct sml_ack_range range = { 1, 1 };
    struct sml_frame frame;
    uint8_t bytes[64];
    size_t size = sml_encode_ack(bytes, &range, 1), used;
    const char *why = NULL;

    assert_int_equal(sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
                     SML_DECODED);
    assert_int_equal(sml_callee_frame(&callee, &frame, 0, &why), SEMEL_OK);
}

static void resume(bool listed)
{
    struct sml_outstanding entry = { .xid = 1,
                                     .fingerprint = sml_fingerprint("m", 1, "", 0, "", 0) };
    struct sml_listed states[1];
    const char *why;

    sml_callee_down(&callee);
    assert_int_equal(
        sml_callee_resume(&callee, callee.hi + 1, &entry, listed ? 1 : 0, states, &why), SEMEL_OK);
}

static void expect(bool accepted)
{
    assert_ptr_equal(sml_callee_next_receipt(&callee), &receipt);
    assert_int_equal(receipt.accepted, accepted);
    assert_null(sml_callee_next_receipt(&callee));
}

static void acknowledged(void **state)
{
    (void)state;
    finish(10);
    send(100000);
    assert_null(sml_callee_next_receipt(&callee)); /* sent is not accepted */
    resume(true);
    resume(true);
    send(100000);
    assert_null(sml_callee_next_receipt(&callee));
    give_ack();
    expect(true);
}

static void left_out(void **state)
{
    (void)state;
    finish(10);
    send(100000);
    resume(false); /* its ACK was lost */
    expect(true);
}

static void given_up(void **state)
{
    (void)state;
    finish(900);
    send(200); /* only a part of it */
    give_ack();
    expect(false);
}

static void given_up_meanwhile(void **state)
{
    (void)state;
    finish(10);
    resume(false); /* nothing was sent */
    expect(false);
}

static void session_ends(void **state)
{
    (void)state;
    finish(10);
    send(100000);
    sml_callee_clear(&callee);
    expect(false);
}

static void discarded(void **state)
{
    (void)state;
    sml_callee_tick(&callee, 50 * SML_MS); /* it ran too long, and has a verdict */
    finish(10);
    expect(false);
    assert_int_equal(in->verdict.status, SEMEL_MAX_RUN);
}

static void finished_too_late(void **state)
{
    (void)state;
    give_ack(); /* given up while it ran */
    finish(10);
    expect(false);
}

static void in_a_store(void **state)
{
    (void)state;
    finish(10);
    sml_callee_forsake(&callee); /* the next server tells it */
    expect(true);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("receipt: acknowledged", acknowledged),
        FRESH("receipt: left out of a resume", left_out),
        FRESH("receipt: given up before all was sent", given_up),
        FRESH("receipt: given up while away", given_up_meanwhile),
        FRESH("receipt: the session ends", session_ends),
        FRESH("receipt: discarded", discarded),
        FRESH("receipt: finished too late", finished_too_late),
        FRESH("receipt: a store has it", in_a_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
