/* SPDX-License-Identifier: MIT */
/* Calls from a server to its clients: cuts, ends of either side, and sides that break the rules. */
#include "reverse_kit.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "rpc/reverse_wire.h"
#include "rpc/server_internal.h"

/* --- cuts and ends --------------------------------------------------------------------------- */

static void test_cuts(void **state)
{
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    struct semel_client *client;
    struct kit_relay *relay;
    struct tally tally = { 0 };
    struct node node;
    struct hub hub;
    char body[3000];

    (void)state;
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 5;
    open_hub(&hub, NULL);
    relay = kit_relay_start(hub.place.path, 7, 3);
    client = join_hub(kit_relay_address(relay), &options, &node);
    memset(body, 'b', sizeof body);
    for (int i = 0; i < 5000; i++) {
        enum semel_status status;

        while (
            (status = semel_backchannel_start(hub.channel, "echo", semel_bytes(body, sizeof body),
                                              NULL, count_end, &tally, NULL)) == SEMEL_OVERLOADED)
            kit_sleep_ms(1);
        assert_int_equal(status, SEMEL_OK);
    }
    await_all(&tally, 5000);
    assert_int_equal(atomic_load(&tally.values), 5000);
    assert_true(kit_relay_cuts(relay) >= 3);
    close_client(client);
    kit_relay_stop(relay);
    close_hub(&hub);
}

/* A server is gone, with its calls; the client exports to the next one. */
static void test_server_restart(void **state)
{
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    struct semel_client *client;
    struct tally tally = { 0 };
    struct node node;
    struct hub hub;

    (void)state;
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 20;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, &options, &node);
    assert_int_equal(semel_backchannel_start(hub.channel, "hold", semel_bytes(NULL, 0), NULL,
                                             count_end, &tally, NULL),
                     SEMEL_OK);
    await(&node.begun);
    assert_int_equal(semel_server_destroy(hub.server), SEMEL_OK);
    assert_int_equal(atomic_load(&tally.unknown), 1); /* before it returned */
    assert_int_equal(semel_backchannel_call(hub.channel, "echo", semel_bytes(NULL, 0), NULL, NULL),
                     SEMEL_NOT_EXECUTED);
    await(&node.ended); /* it was asked to stop */
    start_hub(&hub, NULL);
    say_hello(client);
    expect(&hub, "echo", "again", 0, SEMEL_VALUE, SEMEL_OK);
    close_client(client);
    close_hub(&hub);
}

/* The client is destroyed with calls in every state. */
static void test_client_leaves(void **state)
{
    struct semel_client_options options = { .handlers = 1, .window_calls = 4 };
    struct semel_client *client;
    struct tally tally = { 0 };
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, &options, &node);
    for (int i = 0; i < 10; i++)
        assert_int_equal(semel_backchannel_start(hub.channel, "hold", semel_bytes(NULL, 0), NULL,
                                                 count_end, &tally, NULL),
                         SEMEL_OK);
    await(&node.begun);
    close_client(client);
    await_all(&tally, 10);
    assert_int_equal(atomic_load(&tally.not_executed), 6); /* never handed over */
    assert_int_equal(atomic_load(&tally.unknown), 4);
    assert_int_equal(atomic_load(&node.begun), 1);
    close_hub(&hub);
}

static void *finish_kept(void *arg)
{
    struct sched_param none = { 0 };
    struct node *node = arg;
    struct semel_request *request;

    pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    while ((request = atomic_load(&node->kept)) == NULL)
        kit_sleep_ms(1);
    while (!semel_request_cancelled(request))
        kit_sleep_ms(1);
    (void)semel_request_reply(request, NULL, 0);
    return NULL;
}

/* A request that a handler took is finished by another thread while the client is destroyed, which
 * waits for just that; and who waits is the first to run then. */
static void test_taken_at_the_end(void **state)
{
    struct semel_client *client;
    cpu_set_t before, one;
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    for (int i = 0; i < 20; i++) {
        struct tally tally = { 0 };
        pthread_t thread;

        client = join_hub(hub.address, NULL, &node);
        assert_int_equal(semel_backchannel_start(hub.channel, "keep", semel_bytes(NULL, 0), NULL,
                                                 count_end, &tally, NULL),
                         SEMEL_OK);
        assert_int_equal(pthread_create(&thread, NULL, finish_kept, &node), 0);
        while (atomic_load(&node.kept) == NULL)
            kit_sleep_ms(1);
        close_client(client);
        pthread_join(thread, NULL);
        await_all(&tally, 1);
    }
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    close_hub(&hub);
}

static void be_a_client(const char *address)
{
    struct semel_client *client;
    struct node node;

    client = join_hub(address, NULL, &node);
    (void)client;
    for (;;)
        pause();
}

static bool has_channel(void *arg)
{
    struct hub *hub = arg;
    bool has;

    pthread_mutex_lock(&hub->lock);
    has = hub->channel != NULL;
    pthread_mutex_unlock(&hub->lock);
    return has;
}

/* A client that dies says nothing; its calls end in time, and each as what is known of it. */
static void test_client_dies(void **state)
{
    struct semel_call_options call = { .deadline_ms = 600 };
    struct tally tally = { 0 };
    struct hub hub;
    char address[256];
    pid_t child;

    (void)state;
    memset(&hub, 0, sizeof hub);
    kit_place_make(&hub.place);
    snprintf(address, sizeof address, "unix:%s", hub.place.path);
    child = fork(); /* before there are threads */
    if (child == 0)
        be_a_client(address);
    pthread_mutex_init(&hub.lock, NULL);
    strcpy(hub.address, address);
    start_hub(&hub, NULL);
    assert_true(kit_eventually(has_channel, &hub, 60));
    expect(&hub, "echo", "alive", 0, SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(semel_backchannel_start(hub.channel, "hold", semel_bytes(NULL, 0), &call,
                                             count_end, &tally, NULL),
                     SEMEL_OK);
    kit_sleep_ms(50);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    await_all(&tally, 1);
    assert_int_equal(atomic_load(&tally.unknown), 1);
    close_hub(&hub);
}

/* A client with a backchannel that is idle does not hold up a drain; a call that runs does. */
static void test_drain(void **state)
{
    struct semel_client *client;
    struct tally tally = { 0 };
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, NULL, &node);
    assert_int_equal(semel_backchannel_start(hub.channel, "hold", semel_bytes(NULL, 0), NULL,
                                             count_end, &tally, NULL),
                     SEMEL_OK);
    await(&node.begun);
    semel_server_drain(hub.server, 60000);
    assert_int_equal(semel_server_wait(hub.server, 50, NULL), SEMEL_DEADLINE);
    atomic_store(&node.open, true);
    assert_int_equal(semel_server_wait(hub.server, 30000, NULL), SEMEL_OK);
    await_all(&tally, 1);
    assert_int_equal(atomic_load(&tally.values), 1);
    close_client(client);
    close_hub(&hub);
}

/* --- where one may call ---------------------------------------------------------------------- */

struct nested {
    struct hub *hub;
    atomic_int done;
    enum semel_status blocking, starting;
    struct tally tally;
};

static void call_inside(struct semel_result *result, void *user)
{
    struct nested *nested = user;
    struct semel_result inner;

    (void)result;
    assert_int_equal(
        semel_backchannel_call(nested->hub->channel, "echo", semel_bytes(NULL, 0), NULL, &inner),
        SEMEL_NOT_EXECUTED);
    nested->blocking = inner.status;
    semel_result_clear(&inner);
    nested->starting = semel_backchannel_start(nested->hub->channel, "echo", semel_bytes(NULL, 0),
                                               NULL, count_end, &nested->tally, NULL);
    atomic_store(&nested->done, 1);
}

/* A handler of the client calls the server, which calls another method of the client. */
static void on_nest(struct semel_request *request, void *user)
{
    struct semel_client *client = *(struct semel_client **)user;
    struct semel_result result;

    assert_int_equal(semel_client_destroy(client), SEMEL_WOULD_DEADLOCK);
    if (semel_client_call(client, "bounce", semel_request_body(request), NULL, &result) ==
        SEMEL_VALUE)
        (void)semel_request_reply(request, result.body.data, result.body.size);
    else
        (void)semel_request_fail(request, 1, result.text);
    semel_result_clear(&result);
}

static void test_nested(void **state)
{
    struct semel_client *client;
    struct nested nested = { .blocking = SEMEL_OK };
    struct node node;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, NULL, &node);
    assert_int_equal(semel_client_export(client, "nest", on_nest, &client, NULL), SEMEL_OK);
    expect(&hub, "nest", "deep", 0, SEMEL_VALUE, SEMEL_OK);
    nested.hub = &hub;
    assert_int_equal(semel_backchannel_start(hub.channel, "echo", semel_bytes(NULL, 0), NULL,
                                             call_inside, &nested, NULL),
                     SEMEL_OK);
    await(&nested.done);
    assert_int_equal(nested.blocking, SEMEL_WOULD_DEADLOCK);
    assert_int_equal(nested.starting, SEMEL_OK);
    await_all(&nested.tally, 1);
    close_client(client);
    close_hub(&hub);
}

static void test_forked(void **state)
{
    struct semel_client *client;
    struct node node;
    struct hub hub;
    int status;
    pid_t child;

    (void)state;
    open_hub(&hub, NULL);
    client = join_hub(hub.address, NULL, &node);
    child = fork();
    if (child == 0) {
        struct semel_result result;
        bool good = semel_client_export(client, "x", on_echo, NULL, NULL) == SEMEL_FORKED;

        good &= semel_backchannel_call(hub.channel, "echo", semel_bytes(NULL, 0), NULL, &result) ==
                    SEMEL_NOT_EXECUTED &&
                result.status == SEMEL_FORKED;
        good &= semel_backchannel_start(hub.channel, "echo", semel_bytes(NULL, 0), NULL, count_end,
                                        NULL, NULL) == SEMEL_FORKED;
        semel_backchannel_cancel(hub.channel, 1);
        _exit(good ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect(&hub, "echo", "still", 0, SEMEL_VALUE, SEMEL_OK);
    close_client(client);
    close_hub(&hub);
}

/* --- ends that break the rules --------------------------------------------------------------- */

static void make_terms(uint8_t *terms)
{
    struct sml_reverse_terms all = { 10, 1000 };

    sml_reverse_encode_terms(&all, terms);
}

/* A client that makes the carrying call itself. */
static struct semel_stream *carry(struct semel_client *client, const uint8_t *terms, size_t size)
{
    struct semel_stream_options options = { .sends = true, .takes = true };
    struct semel_stream *stream = NULL;

    assert_int_equal(semel_client_stream(client, SML_REVERSE_METHOD, semel_bytes(terms, size), NULL,
                                         &options, &stream),
                     SEMEL_OK);
    return stream;
}

static void expect_failure(struct semel_stream *stream, enum semel_status code)
{
    struct semel_result result;

    assert_int_equal(semel_stream_result(stream, 30000, &result), SEMEL_OK);
    assert_int_equal(result.outcome, SEMEL_FAILURE);
    assert_int_equal(result.code, code);
    semel_result_clear(&result);
    semel_stream_free(stream);
}

static void test_bad_client(void **state)
{
    uint8_t terms[SML_REVERSE_TERMS_BYTES], reply[64] = { SML_REVERSE_REPLY };
    struct semel_client *client;
    struct semel_stream *stream, *second;
    struct tally tally = { 0 };
    struct semel_item item;
    struct hub hub;

    (void)state;
    open_hub(&hub, NULL);
    client = open_client(hub.address, NULL);
    say_hello(client);
    make_terms(terms);
    expect_failure(carry(client, terms, sizeof terms - 1), SEMEL_PROTOCOL);
    terms[1] = 9;
    expect_failure(carry(client, terms, sizeof terms), SEMEL_PROTOCOL);
    make_terms(terms);
    stream = carry(client, terms, sizeof terms);
    assert_int_equal(semel_stream_next(stream, 30000, &item), SEMEL_OK); /* the server's terms */
    assert_int_equal(item.bytes.size, SML_REVERSE_TERMS_BYTES);
    second = carry(client, terms, sizeof terms);
    expect_failure(second, SEMEL_ALREADY);
    assert_int_equal(semel_backchannel_start(hub.channel, "echo", semel_bytes(NULL, 0), NULL,
                                             count_end, &tally, NULL),
                     SEMEL_OK);
    assert_int_equal(semel_stream_next(stream, 30000, &item), SEMEL_OK); /* the request */
    reply[8] = 77;
    assert_int_equal(semel_stream_send(stream, semel_bytes(reply, 24), -1), SEMEL_OK);
    expect_failure(stream, SEMEL_PROTOCOL);
    await_all(&tally, 1);
    assert_int_equal(atomic_load(&tally.unknown), 1);
    /* It may try again, and end its stream. */
    stream = carry(client, terms, sizeof terms);
    assert_int_equal(semel_stream_end(stream), SEMEL_OK);
    while (semel_stream_next(stream, 30000, &item) == SEMEL_OK)
        continue;
    semel_stream_free(stream);
    close_client(client);
    close_hub(&hub);
}

/* A server that plays semel.reverse by rules of its own. */
struct liar {
    const uint8_t *item;
    size_t size;
    atomic_int carriers, ended;
};

static void on_lie(struct semel_request *request, void *user)
{
    struct liar *liar = user;
    struct semel_bytes item;
    enum semel_status status;

    atomic_fetch_add(&liar->carriers, 1);
    assert_int_equal(semel_request_send(request, semel_bytes(liar->item, liar->size), -1),
                     SEMEL_OK);
    while ((status = semel_request_next(request, -1, &item)) == SEMEL_OK)
        continue;
    (void)semel_request_fail(request, (int)status, "over");
    atomic_fetch_add(&liar->ended, 1);
}

static void test_bad_server(void **state)
{
    static const uint8_t items[][24] = {
        { 0 },                                         /* nothing known */
        { SML_REVERSE_REPLY, 0, 0, 0, 0, 0, 0, 0, 1 }, /* not for this end */
        { SML_REVERSE_REQUEST, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'm' }, /* no terms */
        { SML_REVERSE_CANCEL, 0, 0, 0, 0, 0, 0, 0, 1 },
        { SML_REVERSE_TERMS, SML_REVERSE_VERSION }, /* too long */
    };
    static const size_t sizes[] = { 24, 24, 17, 16, 24 };

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct liar liar = { .item = items[i], .size = sizes[i] };
        struct semel_server *server;
        struct semel_client *client;
        struct kit_place place;

        kit_place_make(&place);
        assert_int_equal(semel_server_create(&server, NULL), SEMEL_OK);
        assert_int_equal(sml_server_export_standing(server, SML_REVERSE_METHOD, on_lie, &liar),
                         SEMEL_OK);
        assert_int_equal(semel_server_listen(server, place.address), SEMEL_OK);
        assert_int_equal(semel_server_start(server), SEMEL_OK);
        client = open_client(place.address, NULL);
        assert_int_equal(semel_client_export(client, "echo", on_echo, NULL, NULL), SEMEL_OK);
        await(&liar.ended);
        kit_sleep_ms(200);
        assert_int_equal(atomic_load(&liar.carriers), 1); /* it is left in peace */
        close_client(client);
        assert_int_equal(semel_server_destroy(server), SEMEL_OK);
        kit_place_remove(&place);
    }
}

/* Ends the carrier at once, without a word. */
static void on_shrug(struct semel_request *request, void *user)
{
    atomic_fetch_add((atomic_int *)user, 1);
    (void)semel_request_fail(request, SEMEL_OVERLOADED, "not now");
}

static bool came_again(void *arg)
{
    return atomic_load((atomic_int *)arg) >= 4;
}

/* A carrier that ends is made again, after pauses, although nothing else happens. */
static void test_comes_again(void **state)
{
    struct semel_server *server;
    struct semel_client *client;
    struct kit_place place;
    atomic_int times = 0;
    uint64_t begin;

    (void)state;
    kit_place_make(&place);
    assert_int_equal(semel_server_create(&server, NULL), SEMEL_OK);
    assert_int_equal(sml_server_export_standing(server, SML_REVERSE_METHOD, on_shrug, &times),
                     SEMEL_OK);
    assert_int_equal(semel_server_listen(server, place.address), SEMEL_OK);
    assert_int_equal(semel_server_start(server), SEMEL_OK);
    client = open_client(place.address, NULL);
    begin = kit_now_ms();
    assert_int_equal(semel_client_export(client, "echo", on_echo, NULL, NULL), SEMEL_OK);
    assert_true(kit_eventually(came_again, &times, 60));
    assert_true(kit_now_ms() - begin >= 100 + 200 + 400);
    close_client(client);
    assert_int_equal(semel_server_destroy(server), SEMEL_OK);
    kit_place_remove(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("cuts lose and repeat nothing", test_cuts),
        TEST("a server that comes back", test_server_restart),
        TEST("a client that leaves", test_client_leaves),
        TEST("a request taken, at the end", test_taken_at_the_end),
        TEST("a client that dies", test_client_dies),
        TEST("a drain", test_drain),
        TEST("where one may call", test_nested),
        TEST("in a child process", test_forked),
        TEST("a client that breaks the rules", test_bad_client),
        TEST("a server that breaks the rules", test_bad_server),
        TEST("a carrier that ends is made again", test_comes_again),
    };

    return cmocka_run_group_tests_name("rpc/reverse_ends", tests, NULL, NULL);
}
