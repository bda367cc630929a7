/* SPDX-License-Identifier: MIT */
/* test_soak.c - connections that are shut down at random, one direction or both, at up to a tenth
 * of the reads and writes of either end: each call runs once, and its answer is whole.
 *
 * Linked with recv and send wrapped. Client and server are in this process, so both ends shut
 * their sockets down. It comes in bursts, as bad networks do. The seed is the first argument. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

#include <sys/socket.h>

/* --- sockets that are shut down ------------------------------------------------------------ */

#define BURST 64 /* reads and writes, of each four times as many */

static struct {
    atomic_bool on;
    atomic_uint turn, cuts[3]; /* SHUT_RD, SHUT_WR, SHUT_RDWR */
    uint64_t seed;
} shaky;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void shake(int fd)
{
    static const int hows[] = { SHUT_RD, SHUT_WR, SHUT_RDWR };
    unsigned turn, how;
    uint64_t dice;

    if (!atomic_load(&shaky.on))
        return;
    turn = atomic_fetch_add(&shaky.turn, 1);
    dice = mix(shaky.seed + turn * UINT64_C(0x9e3779b97f4a7c15));
    if (dice % (turn / BURST % 4 == 0 ? 10 : 60) != 0)
        return;
    how = (unsigned)(dice >> 32) % 3;
    if (shutdown(fd, hows[how]) == 0)
        atomic_fetch_add(&shaky.cuts[how], 1);
}

ssize_t __real_recv(int fd, void *out, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *out, size_t size, int flags);
ssize_t __real_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags);

ssize_t __wrap_recv(int fd, void *out, size_t size, int flags)
{
    shake(fd);
    return __real_recv(fd, out, size, flags);
}

ssize_t __wrap_send(int fd, const void *data, size_t size, int flags)
{
    shake(fd);
    return __real_send(fd, data, size, flags);
}

static void shake_begin(void)
{
    for (int i = 0; i < 3; i++)
        atomic_store(&shaky.cuts[i], 0);
    atomic_store(&shaky.turn, 0);
    atomic_store(&shaky.on, true);
}

static void shake_end(void)
{
    unsigned cuts[3];

    atomic_store(&shaky.on, false);
    for (int i = 0; i < 3; i++)
        cuts[i] = atomic_load(&shaky.cuts[i]);
    print_message("    %u reads and writes; shut down: %u to read, %u to write, %u both\n",
                  atomic_load(&shaky.turn), cuts[0], cuts[1], cuts[2]);
    assert_true(cuts[0] > 0 && cuts[1] > 0 && cuts[2] > 0);
}

/* --- messages that grow -------------------------------------------------------------------- */

#define MESSAGES 100 /* of each caller */
#define CALLERS_MAX 4

/* Message `number` of a caller, which nobody else sends, and the answer to it. */
static size_t fill(uint8_t *out, int caller, int number, size_t growth, bool answer)
{
    size_t size = (size_t)number * (size_t)number * growth + 8 + 100 * (size_t)answer;
    uint32_t head[2] = { (uint32_t)caller, (uint32_t)number };
    uint64_t seed = mix((uint64_t)caller << 32 | (uint64_t)number << 1 | answer);

    memcpy(out, head, sizeof head);
    for (size_t i = 8; i < size; i++)
        out[i] = (uint8_t)((seed >> (i % 8 * 8)) + i + (i >> 8));
    return size;
}

struct traffic {
    struct semel_client *client;
    size_t growth, most; /* bytes */
    atomic_int all, runs[CALLERS_MAX][MESSAGES + 1];
};

struct caller {
    struct traffic *traffic;
    int name;
    pthread_t thread;
};

static void answer(struct semel_request *request, void *user)
{
    struct traffic *traffic = user;
    struct semel_bytes body = semel_request_body(request);
    uint8_t *bytes = malloc(traffic->most);
    uint32_t head[2];

    REQUIRE(bytes && body.size >= sizeof head);
    memcpy(head, body.data, sizeof head);
    REQUIRE(head[0] < CALLERS_MAX && head[1] <= MESSAGES);
    REQUIRE(fill(bytes, (int)head[0], (int)head[1], traffic->growth, false) == body.size);
    REQUIRE(memcmp(bytes, body.data, body.size) == 0);
    atomic_fetch_add(&traffic->runs[head[0]][head[1]], 1);
    atomic_fetch_add(&traffic->all, 1);
    REQUIRE(semel_request_reply(request, bytes,
                                fill(bytes, (int)head[0], (int)head[1], traffic->growth, true)) ==
            SEMEL_OK);
    free(bytes);
}

static void *call_on(void *arg)
{
    struct caller *caller = arg;
    struct traffic *traffic = caller->traffic;
    uint8_t *bytes = malloc(traffic->most);

    REQUIRE(bytes);
    for (int number = 0; number <= MESSAGES; number++) {
        size_t size = fill(bytes, caller->name, number, traffic->growth, false);
        struct semel_result result;

        if (semel_client_call(traffic->client, "answer", semel_bytes(bytes, size), NULL, &result) !=
            SEMEL_VALUE) {
            fprintf(stderr, "message %d: %s\n", number, result.text);
            abort();
        }
        size = fill(bytes, caller->name, number, traffic->growth, true);
        REQUIRE(result.body.size == size && memcmp(result.body.data, bytes, size) == 0);
        semel_result_clear(&result);
    }
    free(bytes);
    return NULL;
}

static struct traffic *traffic_make(size_t growth)
{
    struct traffic *traffic = calloc(1, sizeof *traffic);

    assert_non_null(traffic);
    traffic->growth = growth;
    traffic->most = MESSAGES * MESSAGES * growth + 108;
    return traffic;
}

static void traffic_connect(struct traffic *traffic, const char *address)
{
    struct semel_client_options options = {
        .deadline_ms = 100000, .give_up_ms = 100000, .backoff_min_ms = 1, .backoff_max_ms = 10
    };

    assert_int_equal(semel_client_create(&traffic->client, address, &options), SEMEL_OK);
}

static void callers_start(struct traffic *traffic, struct caller *callers, int count)
{
    for (int i = 0; i < count; i++) {
        callers[i] = (struct caller){ .traffic = traffic, .name = i };
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_on, &callers[i]), 0);
    }
}

/* Each message was handled once, and nothing else was. */
static void callers_join(struct traffic *traffic, struct caller *callers, int count)
{
    struct semel_client_counters counters;

    for (int i = 0; i < count; i++)
        pthread_join(callers[i].thread, NULL);
    shake_end();
    semel_client_counters(traffic->client, &counters);
    assert_int_equal(counters.sessions_lost, 0);
    assert_int_equal(counters.protocol_errors, 0);
    assert_true(counters.reconnects > 0);
    for (int i = 0; i < CALLERS_MAX; i++)
        for (int number = 0; number <= MESSAGES; number++)
            if (atomic_load(&traffic->runs[i][number]) != (i < count))
                fail_msg("message %d of caller %d ran %d times", number, i,
                         atomic_load(&traffic->runs[i][number]));
}

static void traffic_end(struct traffic *traffic)
{
    assert_int_equal(semel_client_destroy(traffic->client), SEMEL_OK);
    free(traffic);
}

static void soak(const char *address, int count, size_t growth)
{
    struct traffic *traffic = traffic_make(growth);
    struct rig *rig = rig_make(NULL);
    struct caller callers[CALLERS_MAX];

    rig_export(rig, "answer", answer, traffic, NULL);
    rig_serve(rig);
    if (address) {
        assert_int_equal(semel_server_listen(rig->server, address), SEMEL_OK);
        address = semel_server_address(rig->server);
    }
    traffic_connect(traffic, address ? address : rig->place.address);
    shake_begin();
    callers_start(traffic, callers, count);
    callers_join(traffic, callers, count);
    traffic_end(traffic);
    rig_end(rig);
}

static void test_growing(void **state)
{
    (void)state;
    soak(NULL, 1, SLOW_BUILD ? 8 : 32);
    soak("tcp:127.0.0.1:0", 1, SLOW_BUILD ? 8 : 32);
}

static void test_growing_together(void **state)
{
    (void)state;
    soak(NULL, CALLERS_MAX, SLOW_BUILD ? 2 : 8);
    soak("tcp:127.0.0.1:0", CALLERS_MAX, SLOW_BUILD ? 2 : 8);
}

/* --- servers that come and go -------------------------------------------------------------- */

static void export_answer(struct shop *shop, void *user)
{
    rig_export(shop->rig, "answer", answer, user, NULL);
}

#define RESTARTS 6

/* Servers with one store follow each other while the connections are bad. */
static void test_restarts(void **state)
{
    struct traffic *traffic = traffic_make(SLOW_BUILD ? 1 : 4);
    struct shop *shop = shop_make(NULL, export_answer, traffic);
    struct caller callers[CALLERS_MAX];

    (void)state;
    rig_serve(shop->rig);
    traffic_connect(traffic, shop->rig->place.address);
    shake_begin();
    callers_start(traffic, callers, CALLERS_MAX);
    for (int i = 1; i <= RESTARTS; i++) {
        while (atomic_load(&traffic->all) < i * CALLERS_MAX * MESSAGES / (RESTARTS + 1))
            kit_sleep_ms(1);
        shop_shut(shop);
        shop_reopen(shop);
        assert_int_equal(rig_counters(shop->rig).sessions_restored, 1);
    }
    callers_join(traffic, callers, CALLERS_MAX);
    assert_true(kit_eventually(shop_at_rest, shop, 60)); /* while there is somebody to accept */
    traffic_end(traffic);
    shop_end(shop);
}

/* Says something else each time it runs. */
static void say_run(struct semel_request *request, void *user)
{
    char text[32];
    int bytes = snprintf(text, sizeof text, "run %d", atomic_fetch_add((atomic_int *)user, 1) + 1);

    REQUIRE(semel_request_reply(request, text, (size_t)bytes) == SEMEL_OK);
}

static void export_run(struct shop *shop, void *user)
{
    rig_export(shop->rig, "run", say_run, user, NULL);
}

/* Back to the session, in which call 1 is outstanding. */
static struct wire *come_back(struct rig *rig, uint64_t conn_no)
{
    struct sml_call_frame call = call_of("run", "");
    struct sml_outstanding entry = { .xid = 1, .fingerprint = call.fingerprint };
    struct sml_hello hello = hello_of(1, conn_no);
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct wire *wire = wire_open(rig);
    struct sml_frame frame;

    hello.kind = SML_RESUME;
    hello.count = 1;
    hello.next = 2;
    wire_hello(wire, &hello);
    assert_true(wire_send(wire, out, sml_encode_outstanding(out, &entry, 1)));
    wire_expect(wire, SML_WELCOME, &frame);
    wire_expect(wire, SML_LIST, &frame);
    assert_int_equal(sml_list_listed(&frame.u.list, 0).state, SML_STATE_DONE);
    return wire;
}

/* The reply of a server that is gone, as often as it is asked for. */
static void test_asked_again(void **state)
{
    atomic_int runs = 0;
    struct shop *shop = shop_make(NULL, export_run, &runs);
    struct wire *wire;

    (void)state;
    rig_serve(shop->rig);
    wire = wire_meet(shop->rig, 1);
    wire_call(wire, 1, "run", "");
    wire_expect_reply(wire, 1, SEMEL_VALUE, "run 1");
    for (uint64_t i = 2; i <= 7; i++) {
        wire_close(wire);
        if (i % 3 == 2)
            shop_die(shop);
        else if (i % 3 == 0)
            shop_shut(shop);
        if (i % 3 != 1)
            shop_reopen(shop);
        wire = come_back(shop->rig, i);
        wire_expect_reply(wire, 1, SEMEL_VALUE, "run 1");
    }
    wire_ack(wire, 1, 1);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    assert_int_equal(atomic_load(&runs), 1);
    wire_close(wire);
    shop_end(shop);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("S15 fault soak: growing messages both ways", test_growing),
        TEST("S15 fault soak: growing messages of several callers", test_growing_together),
        TEST("S2 once: bad connections, and servers that follow each other", test_restarts),
        TEST("S3 re-request: the same bytes from the next server", test_asked_again),
    };

    shaky.seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
