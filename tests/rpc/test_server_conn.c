/* SPDX-License-Identifier: MIT */
/* One connection: bad input, slow and silent clients, partial I/O, what it costs. */
#include "server_kit.h"
#include "server_wire.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "rpc/pen.h"

/* --- M7 ---------------------------------------------------------------------------------- */

static size_t with_length(uint8_t *out, uint32_t length, uint8_t type)
{
    memset(out, 0, SML_HEADER_BYTES);
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(length >> 8 * i);
    out[4] = type;
    out[8] = 1;
    return SML_HEADER_BYTES;
}

/* What is sent in place of a HELLO, or after it, and which BYE it gets. */
static size_t bad_greeting(int which, uint8_t *out, enum sml_bye_code *out_code)
{
    struct sml_hello hello = hello_of(9, 1);
    size_t size = sml_encode_hello(out, &hello);

    *out_code = SML_BYE_PROTOCOL;
    switch (which) {
    case 0: /* another protocol altogether */
        memcpy(out, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
        return 27;
    case 1: /* wrong magic */
        out[SML_HEADER_BYTES] ^= 0xff;
        return size;
    case 2: /* wrong version */
        hello.version = 77;
        *out_code = SML_BYE_VERSION;
        return sml_encode_hello(out, &hello);
    case 3: /* oversize, known from the first bytes */
        return with_length(out, UINT32_MAX, SML_HELLO);
    case 4: /* a call before the greeting */
        return sml_encode_plain(out, SML_PING, 1);
    case 5: /* contradiction: a new session with calls outstanding */
        hello.next = 7;
        return sml_encode_hello(out, &hello);
    case 6: /* a window of nothing */
        hello.window = 0;
        return sml_encode_hello(out, &hello);
    default:
        return 0;
    }
}

static size_t bad_frame(int which, uint8_t *out, enum sml_bye_code *out_code)
{
    struct sml_call_frame call = call_of("echo", "x");
    struct sml_hello hello = hello_of(9, 1);

    *out_code = SML_BYE_PROTOCOL;
    switch (which) {
    case 0: /* oversize */
        return with_length(out, SML_PAYLOAD_BYTES_MAX + 1, SML_CALL);
    case 1: /* unknown type */
        return with_length(out, 0, 99);
    case 2: /* reserved type */
        return with_length(out, 0, SML_PART);
    case 3: /* a number is skipped */
        return sml_encode_call(out, 2, &call);
    case 4: /* a body from nowhere */
        return sml_encode_body(out, 1, 0, semel_bytes_text("x"));
    case 5: /* a second HELLO */
        return sml_encode_hello(out, &hello);
    case 6: /* server's frames */
        return sml_encode_busy(out, 1, 1);
    case 7: /* a body beyond the limit */
        call.body_bytes = UINT64_C(1) << 40;
        return sml_encode_call(out, 1, &call);
    case 8: /* a zero where there is none */
        sml_encode_call(out, 1, &call);
        out[7] = 1;
        return SML_HEADER_BYTES + 100;
    case 9: /* a cancel for what was never called */
        return sml_encode_plain(out, SML_CANCEL, 5);
    case 10: /* the other direction, not agreed on */
        sml_encode_plain(out, SML_PING, 1);
        out[5] = SML_FLAG_REVERSE;
        return SML_HEADER_BYTES;
    default:
        return 0;
    }
}

static uint64_t cpu_ms(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static void test_bad_input(void **state)
{
    struct rig *rig = rig_make(NULL);
    uint8_t out[2 * SML_FRAME_BYTES_MAX];
    enum sml_bye_code code;
    uint64_t errors = 0;
    size_t size;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int which = 0; (size = bad_greeting(which, out, &code)) > 0; which++) {
        struct wire *wire = wire_open(rig);

        assert_true(wire_send(wire, out, size));
        wire_expect_bye(wire, code, NULL);
        wire_close(wire);
        expect_echo(rig->client, "others go on");
        errors++;
    }
    for (int which = 0; (size = bad_frame(which, out, &code)) > 0; which++) {
        struct wire *wire = wire_meet(rig, (uint8_t)(100 + which));

        assert_true(wire_send(wire, out, size));
        wire_expect_bye(wire, code, NULL);
        wire_close(wire);
        expect_echo(rig->client, "others go on");
        errors++;
    }
    assert_int_equal(rig_counters(rig).protocol_errors, errors);
    assert_true(log_count(rig, "closed: PROTOCOL") + log_count(rig, "closed: VERSION") >=
                (int)errors);
    assert_true(log_has(rig, " pid ")); /* the lines name the peer */
    rig_end(rig);
}

static bool none_open_but_one(void *arg)
{
    return rig_counters(arg).connections_open == 1;
}

/* A client that goes on sending after its BYE, and never closes, is cut; nothing spins. */
static void test_bad_input_goes_on(void **state)
{
    struct rig *rig = rig_make(NULL);
    static const uint8_t rubbish[4096];
    struct wire *wire;
    uint64_t before;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "first");
    wire = wire_meet(rig, 7);
    before = cpu_ms();
    while (wire_send(wire, rubbish, sizeof rubbish) && cpu_ms() - before < 20000)
        kit_sleep_ms(1);
    wire_close(wire);
    /* Inside a frame, then nothing. */
    wire = wire_meet(rig, 8);
    assert_true(wire_send(wire, "\x40\0\0\0\x04", 5));
    before = cpu_ms();
    kit_sleep_ms(300);
    assert_true(cpu_ms() - before < 200);
    wire_close(wire);
    assert_true(kit_eventually(none_open_but_one, rig, 60));
    assert_true(rig_counters(rig).connections_lost_mid_frame == 1);
    expect_echo(rig->client, "last");
    rig_end(rig);
}

static bool one_started(void *arg)
{
    return rig_counters(arg).calls_started == 1;
}

/* The same number with other contents is surfaced, never run. */
static void test_false_retry(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct wire *wire;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    wire = wire_meet(rig, 1);
    wire_call(wire, 1, "echo", "one");
    wire_expect_reply(wire, 1, SEMEL_VALUE, "one");
    wire_call(wire, 1, "echo", "one");
    wire_expect_reply(wire, 1, SEMEL_VALUE, "one");
    wire_call(wire, 1, "echo", "two");
    wire_expect_bye(wire, SML_BYE_FALSE_RETRY, NULL);
    wire_close(wire);
    assert_true(kit_eventually(one_started, rig, 60));
    assert_int_equal(rig_counters(rig).false_retries, 1);
    rig_end(rig);
}

/* Byte by byte in, and each way of cutting at the server's end. */
static void test_partial(void **state)
{
    struct rig *rig = rig_make(NULL);
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_hello hello = hello_of(3, 1);
    struct sml_call_frame call = call_of("echo", "slowly");
    struct sml_frame frame;
    struct wire *wire;
    size_t size;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    wire = wire_open(rig);
    size = sml_encode_hello(out, &hello);
    for (size_t i = 0; i < size; i++)
        assert_true(wire_send(wire, out + i, 1));
    wire_expect(wire, SML_WELCOME, &frame);
    size = sml_encode_call(out, 1, &call);
    for (size_t i = 0; i < size; i++)
        assert_true(wire_send(wire, out + i, 1));
    wire_expect_reply(wire, 1, SEMEL_VALUE, "slowly");
    wire_close(wire);
    rig_end(rig);
}

/* --- S12 ------------------------------------------------------------------------------------- */

static void test_slow_hello(void **state)
{
    struct semel_server_options options = { .handshake_ms = 1000 };
    struct rig *rig = rig_make(&options);
    struct wire *slow[40];

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 40; i++) {
        slow[i] = wire_open(rig);
        if (i % 2)
            assert_true(wire_send(slow[i], "\x70\0\0", 3)); /* part of a header */
    }
    for (int i = 0; i < 50; i++)
        expect_echo(rig->client, "nobody waits for them");
    for (int i = 0; i < 40; i++) {
        wire_expect_bye(slow[i], SML_BYE_SILENT, NULL);
        wire_close(slow[i]);
    }
    assert_int_equal(rig_counters(rig).handshakes_failed, 40);
    expect_echo(rig->client, "still there");
    rig_end(rig);
}

static void test_silent(void **state)
{
    struct semel_server_options options = { .heartbeat_ms = 50 };
    struct rig *rig = rig_make(&options);
    struct sml_hello hello = hello_of(1, 1);
    struct wire *wire;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    hello.heartbeat_ms = 50;
    wire = wire_open(rig);
    wire_hello(wire, &hello);
    wire_expect_bye(wire, SML_BYE_SILENT, NULL);
    wire_close(wire);
    assert_true(log_has(rig, "nothing was heard for too long"));
    rig_end(rig);
}

/* --- idle and unread -------------------------------------------------------------------------- */

static size_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0, resident = 0;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &pages, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Both ends are in this process: what is measured is an upper bound of the server's share. */
static void test_idle_memory(void **state)
{
    struct rig *rig;
    int fds[400];
    size_t before;

    (void)state;
    if (SLOW_BUILD)
        skip();
    rig = rig_make(NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "warm");
    before = resident_bytes();
    for (int i = 0; i < 400; i++) {
        struct sml_hello hello = hello_of((uint8_t)i, 1);
        struct sml_call_frame call = call_of("echo", "one call");
        uint8_t out[1024];
        size_t size;

        hello.session.bytes[1] = (uint8_t)(i >> 8);
        assert_int_equal(semel_server_pair(rig->server, &fds[i]), SEMEL_OK);
        size = sml_encode_hello(out, &hello);
        assert_int_equal(write(fds[i], out, size), size);
        assert_int_equal(read(fds[i], out, sizeof out) > 0, 1);
        size = sml_encode_call(out, 1, &call);
        assert_int_equal(write(fds[i], out, size), size);
        assert_int_equal(read(fds[i], out, sizeof out) > 0, 1);
    }
    assert_true((resident_bytes() - before) / 400 <= 16384);
    for (int i = 0; i < 400; i++)
        close(fds[i]);
    rig_end(rig);
}

/* A client that does not read stops nobody, and gets everything when it reads. */
static void test_slow_reader(void **state)
{
    struct rig *rig = rig_make(NULL);
    char body[30001];
    struct wire *wire;
    size_t bytes = 0;

    (void)state;
    memset(body, 'r', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    wire = wire_meet(rig, 1);
    for (uint64_t xid = 1; xid <= 16; xid++)
        wire_call(wire, xid, "echo", body);
    for (int i = 0; i < 50; i++)
        expect_echo(rig->client, "nobody waits for it");
    while (bytes < 16 * (sizeof body - 1)) {
        struct sml_frame frame;

        assert_true(wire_frame(wire, &frame));
        assert_true(frame.type == SML_REPLY || frame.type == SML_BODY);
        bytes +=
            frame.type == SML_REPLY ? frame.u.reply.verdict.body.size : frame.u.body.fragment.size;
    }
    wire_close(wire);
    rig_end(rig);
}

/* --- ends that need the server's help --------------------------------------------------------- */

static void answer_big(struct semel_request *request, void *user)
{
    static const char big[1 << 20];

    (void)user;
    REQUIRE(semel_request_reply(request, big, sizeof big) == SEMEL_OK);
}

static bool none_open(void *arg)
{
    return rig_counters(arg).connections_open == 0;
}

/* Until the server's bytes find no room any more. */
static void wait_full(struct rig *rig)
{
    uint64_t sent, now = 0;

    do {
        sent = now;
        kit_sleep_ms(5);
        now = rig_counters(rig).bytes_sent;
    } while (now < 4096 || now != sent);
}

/* A full pipe whose reader goes away, while the other one stays open: epoll says ERROR only. */
static void test_pipe_abandoned(void **state)
{
    struct semel_server_options options = { .heartbeat_ms = -1 };
    struct rig *rig = rig_make(&options);
    struct sml_hello hello = hello_of(1, 1);
    struct sml_call_frame call = call_of("big", "");
    uint8_t out[SML_FRAME_BYTES_MAX];
    int there[2], back[2];
    char address[64];
    size_t size;

    (void)state;
    rig_export(rig, "big", answer_big, NULL, NULL);
    rig_serve(rig);
    assert_int_equal(pipe2(there, O_CLOEXEC), 0);
    assert_int_equal(pipe2(back, O_CLOEXEC), 0);
    snprintf(address, sizeof address, "fd:%d/%d", there[0], back[1]);
    assert_int_equal(semel_server_listen(rig->server, address), SEMEL_OK);
    size = sml_encode_hello(out, &hello);
    assert_int_equal(write(there[1], out, size), size);
    assert_true(read(back[0], out, sizeof out) > 0); /* WELCOME */
    size = sml_encode_call(out, 1, &call);
    assert_int_equal(write(there[1], out, size), size);
    wait_full(rig);
    assert_int_equal(rig_counters(rig).connections_open, 1);
    close(back[0]);
    assert_true(kit_eventually(none_open, rig, 30));
    close(there[1]);
    rig_end(rig);
}

/* BYE is due: it cannot be written, as nobody reads; or it is written, and nobody closes. The time
 * for that is bounded. */
static void test_bye_unread(void **state)
{
    struct semel_server_options options = { .heartbeat_ms = -1 };
    struct rig *rig = rig_make(&options);

    (void)state;
    rig_export(rig, "big", answer_big, NULL, NULL);
    rig_serve(rig);
    for (uint8_t full = 0; full < 2; full++) {
        struct wire *wire = wire_meet(rig, 1 + full);

        if (full) {
            wire_call(wire, 1, "big", "");
            wait_full(rig);
        }
        assert_true(wire_send(wire, "this is no frame at all ............", 36));
        assert_true(kit_eventually(none_open, rig, 30));
        wire_close(wire);
    }
    assert_int_equal(rig_counters(rig).protocol_errors, 2);
    rig_end(rig);
}

/* --- no memory -------------------------------------------------------------------------------- */

static atomic_bool no_buffers;
static atomic_int refused;

/* The linker puts this in malloc's place. */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
    if (size == SML_PEN_BUFFER_BYTES && atomic_load(&no_buffers)) {
        atomic_fetch_add(&refused, 1);
        return NULL;
    }
    return __real_malloc(size);
}

static bool was_refused(void *arg)
{
    return atomic_load(&refused) > *(int *)arg;
}

/* No buffer to write from: asked for again now and then, not all the time, until there is one. */
static void test_no_buffer(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct sml_hello hello = hello_of(1, 1);
    struct sml_frame frame;
    struct wire *wire;
    int before, some = 3;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_serve(rig);
    atomic_store(&no_buffers, true);
    wire = wire_open(rig);
    wire_hello(wire, &hello);
    assert_true(kit_eventually(was_refused, &some, 60));
    before = atomic_load(&refused);
    kit_sleep_ms(200);
    assert_in_range(atomic_load(&refused) - before, 1, 1000);
    assert_int_equal(rig_counters(rig).bytes_sent, 0);
    atomic_store(&no_buffers, false);
    wire_expect(wire, SML_WELCOME, &frame);
    wire_call(wire, 1, "echo", "at last");
    wire_expect_reply(wire, 1, SEMEL_VALUE, "at last");
    wire_close(wire);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("M7 bad input closes that connection, with a reason", test_bad_input),
        TEST("M7 bad input that goes on is cut, nothing spins", test_bad_input_goes_on),
        TEST("M7 bad input: a false retry is surfaced", test_false_retry),
        TEST("M6 partial I/O: a client that sends byte by byte", test_partial),
        TEST("S12 slow hello stalls nobody", test_slow_hello),
        TEST("a silent client is cut", test_silent),
        TEST("idle connections are small", test_idle_memory),
        TEST("a client that does not read stops nobody", test_slow_reader),
        TEST("a full pipe that nobody reads any more is closed", test_pipe_abandoned),
        TEST("a BYE that nobody reads is waited for in bounds", test_bye_unread),
        TEST("no memory to write from: no spin, and it goes on", test_no_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
