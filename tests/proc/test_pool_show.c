/* SPDX-License-Identifier: MIT */
/* A server tells of a pool's workers. */
#include "proc/pool_kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct site {
    struct semel_pool *pool;
    struct semel_server *server;
    struct semel_client *client;
};

static void open_site(struct site *site, bool shown)
{
    struct semel_pool_options options = { .workers = 2, .stop_grace_ms = -1 };
    char address[32];
    int fd;

    site->pool = pool_kit_make(&options);
    pool_kit_await_ready(site->pool);
    assert_int_equal(semel_server_create(&site->server, NULL), SEMEL_OK);
    if (shown)
        assert_int_equal(semel_pool_show(site->pool, site->server), SEMEL_OK);
    assert_int_equal(semel_server_pair(site->server, &fd), SEMEL_OK);
    assert_int_equal(semel_server_start(site->server), SEMEL_OK);
    (void)snprintf(address, sizeof address, "fd:%d", fd);
    assert_int_equal(semel_client_create(&site->client, address, NULL), SEMEL_OK);
}

static void close_site(struct site *site)
{
    assert_int_equal(semel_client_destroy(site->client), SEMEL_OK);
    assert_int_equal(semel_server_destroy(site->server), SEMEL_OK);
    assert_int_equal(semel_pool_destroy(site->pool), SEMEL_OK);
}

/* What the server says of processes, to be freed; "" for nothing. */
static char *told(const struct site *site)
{
    struct semel_result result;
    char *text, *at;

    assert_int_equal(
        semel_client_call(site->client, "semel.counters", semel_bytes(NULL, 0), NULL, &result),
        SEMEL_VALUE);
    text = calloc(1, result.body.size + 1);
    assert_non_null(text);
    memcpy(text, result.body.data, result.body.size);
    semel_result_clear(&result);
    at = strstr(text, ",\"processes\":");
    memmove(text, at ? at : "", strlen(at ? at : "") + 1);
    return text;
}

static void expect_told(const struct site *site, const char *words)
{
    char *text = told(site);

    if (!strstr(text, words))
        fail_msg("%s is not in %s", words, text);
    free(text);
}

static long pid_of(const struct site *site, uint32_t place)
{
    struct semel_worker_info infos[8];
    size_t count = semel_pool_list(site->pool, infos, 8);

    for (size_t i = 0; i < count && i < 8; i++)
        if (infos[i].place == place && infos[i].state == SEMEL_WORKER_READY)
            return infos[i].pid;
    return 0;
}

static void test_idle(void **state)
{
    struct site site;
    char words[200];

    (void)state;
    open_site(&site, true);
    for (uint32_t place = 0; place < 2; place++) {
        (void)snprintf(words, sizeof words,
                       "{\"place\":%u,\"state\":\"ready\",\"pid\":%ld,\"running\":0,"
                       "\"abandoned\":0,\"calls\":0,\"age_ms\":",
                       (unsigned)place, pid_of(&site, place));
        expect_told(&site, words);
    }
    expect_told(&site, "\"restarts\":0}");
    close_site(&site);
}

static void ignore(struct semel_result *result, void *user)
{
    (void)result;
    (void)user;
}

static void test_running(void **state)
{
    struct site site;

    (void)state;
    open_site(&site, true);
    assert_int_equal(
        semel_pool_start(site.pool, "hang", semel_bytes(NULL, 0), NULL, ignore, NULL, NULL),
        SEMEL_OK);
    expect_told(&site, "\"running\":1");
    expect_told(&site, "\"running\":0");
    close_site(&site);
}

static void test_died(void **state)
{
    struct semel_result result;
    char words[100];
    struct site site;
    long pid;

    (void)state;
    open_site(&site, true);
    pid = pid_of(&site, 0);
    assert_int_equal(pool_kit_call(site.pool, "exit", "3", &result), SEMEL_UNKNOWN);
    semel_result_clear(&result);
    pool_kit_await_ready(site.pool);
    (void)snprintf(words, sizeof words,
                   "\"restarts\":1,\"last_pid\":%ld,\"last_exit\":\"exited with code 3\"}", pid);
    expect_told(&site, words);
    close_site(&site);
}

static void test_shown_once(void **state)
{
    struct site site;
    struct semel_server *server;
    char *text;

    (void)state;
    open_site(&site, false);
    text = told(&site);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(semel_pool_show(site.pool, site.server), SEMEL_ALREADY); /* has started */
    assert_int_equal(semel_server_create(&server, NULL), SEMEL_OK);
    assert_int_equal(semel_pool_show(NULL, server), SEMEL_INVALID);
    assert_int_equal(semel_pool_show(site.pool, NULL), SEMEL_INVALID);
    assert_int_equal(semel_pool_show(site.pool, server), SEMEL_OK);
    assert_int_equal(semel_pool_show(site.pool, server), SEMEL_ALREADY);
    assert_int_equal(semel_server_destroy(server), SEMEL_OK);
    close_site(&site);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_idle, NULL),
        cmocka_unit_test_prestate(test_running, NULL),
        cmocka_unit_test_prestate(test_died, NULL),
        cmocka_unit_test_prestate(test_shown_once, NULL),
    };
    int code = pool_kit_main(argc, argv);

    if (code >= 0)
        return code;
    return cmocka_run_group_tests_name("pool_show", tests, NULL, NULL);
}
