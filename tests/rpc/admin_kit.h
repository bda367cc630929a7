/* SPDX-License-Identifier: MIT */
/* admin_kit.h - asking a server about itself. Included once per test program, after
 * server_kit.h. */
#ifndef SML_TESTS_ADMIN_KIT_H
#define SML_TESTS_ADMIN_KIT_H

/* The answer's JSON as a string, to be freed. */
UNUSED static char *ask(struct semel_client *client, const char *method, const char *body)
{
    struct semel_call_options options = { .rerun_ok = true };
    struct semel_result result = expect(client, method, body, &options, SEMEL_VALUE, SEMEL_OK);
    char *text = calloc(1, result.body.size + 1);

    assert_non_null(text);
    memcpy(text, result.body.data, result.body.size);
    semel_result_clear(&result);
    return text;
}

/* A refusal: its code is the status. */
UNUSED static void ask_in_vain(struct semel_client *client, const char *method, const char *body,
                               enum semel_status status, const char *words)
{
    struct semel_result result = expect(client, method, body, NULL, SEMEL_FAILURE, SEMEL_FAILED);

    assert_int_equal(result.code, status);
    assert_non_null(strstr(result.text, words));
    semel_result_clear(&result);
}

UNUSED static void expect_words(const char *text, const char *words)
{
    if (strstr(text, words) == NULL)
        fail_msg("%s is not in %s", words, text);
}

UNUSED static void expect_no_words(const char *text, const char *words)
{
    if (strstr(text, words) != NULL)
        fail_msg("%s is in %s", words, text);
}

/* The first number behind `"key":`, beginning at the words `from` (NULL: anywhere). */
UNUSED static uint64_t number_of(const char *text, const char *from, const char *key)
{
    const char *at = from ? strstr(text, from) : text;
    char quoted[80];

    (void)snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = at ? strstr(at, quoted) : NULL;
    if (at == NULL)
        fail_msg("no %s behind %s in %s", key, from ? from : "the beginning", text);
    return strtoull(at + strlen(quoted), NULL, 10);
}

/* The string behind `"key":`, in the object that has the words `of`. */
UNUSED static void id_of(const char *calls, const char *of, char out[64])
{
    const char *at = strstr(calls, of), *id = calls, *next;

    assert_non_null(at);
    while ((next = strstr(id + 1, "{\"id\":\"")) != NULL && next < at)
        id = next;
    assert_int_equal(sscanf(id, "{\"id\":\"%63[^\"]", out), 1);
}

#endif
