/* SPDX-License-Identifier: MIT */
/* The vectors of docs/PROTOCOL.md: each frame decodes to its fields and encodes to its bytes, each
 * malformed one is refused for its reason, each fingerprint is what it is said to be; and the page
 * shows exactly these. Arguments: vectors.txt and PROTOCOL.md. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "frame_kit.h"

static const char *vectors_path, *protocol_path;

/* One block of the file: "kind: title", then lines; those of "hex: " are bytes. */
struct vector {
    char kind[32], title[128];
    char fields[4096];
    uint8_t bytes[1024];
    size_t size;
};

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text;
    long size;

    if (!file)
        fail_msg("cannot open %s", path);
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    text[size] = '\0';
    fclose(file);
    return text;
}

static void add_hex(struct vector *v, const char *p, const char *end)
{
    unsigned byte;

    for (; p < end; p += 2) {
        while (p < end && *p == ' ')
            p++;
        assert_true(p + 1 < end && v->size < sizeof v->bytes);
        assert_int_equal(sscanf(p, "%2x", &byte), 1);
        v->bytes[v->size++] = (uint8_t)byte;
    }
}

/* The block at *at; false at the end of the text. */
static bool next_vector(const char **at, struct vector *v)
{
    memset(v, 0, sizeof *v);
    if (sscanf(*at, "%31[a-z]: %127[^\n]", v->kind, v->title) != 2)
        return false;
    for (const char *line = strchr(*at, '\n') + 1;;) {
        const char *end = strchr(line, '\n');

        if (*line == '\0' || end == line) {
            *at = *line ? line + 1 : line;
            return true;
        }
        assert_non_null(end);
        if (strncmp(line, "hex: ", 5) == 0)
            add_hex(v, line + 5, end);
        else
            strncat(v->fields, line, (size_t)(end + 1 - line));
        line = end + 1;
    }
}

static void check_frame(const struct vector *v)
{
    static char shown[FRAME_TEXT_ROOM];
    static uint8_t again[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;
    const char *why = "";
    size_t used = 0, size;

    if (sml_frame_decode(v->bytes, v->size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why) !=
        SML_DECODED)
        fail_msg("%s: %s", v->title, why);
    assert_int_equal(used, v->size);
    frame_describe(&frame, shown, sizeof shown);
    assert_string_equal(shown, v->fields);
    size = frame_encode_again(&frame, again);
    if (size == 0) /* another version's */
        return;
    assert_int_equal(size, v->size);
    assert_memory_equal(again, v->bytes, size);
}

static void check_malformed(const struct vector *v)
{
    struct sml_frame frame;
    const char *why = "";
    size_t used = 0;

    assert_int_equal(
        sml_frame_decode(v->bytes, v->size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
        SML_MALFORMED);
    assert_string_equal(why, v->title);
}

/* The quoted value of `name`; its length in *out_size. */
static const char *quoted(const struct vector *v, const char *name, size_t *out_size)
{
    const char *at = strstr(v->fields, name), *from;

    assert_non_null(at);
    from = strchr(at, '"') + 1;
    *out_size = (size_t)(strchr(from, '"') - from);
    return from;
}

static void check_fingerprint(const struct vector *v)
{
    static uint8_t counted[100000];
    size_t method_size, type_size, body_size = 0;
    const char *method = quoted(v, "method = ", &method_size);
    const char *type = quoted(v, "content_type = ", &type_size);
    const char *body_line = strstr(v->fields, "body = ");
    const void *body = counted;
    struct sml_fingerprint print;
    char shown[64];

    for (size_t i = 0; i < sizeof counted; i++)
        counted[i] = (uint8_t)(i % 251);
    assert_non_null(body_line);
    if (body_line[7] == '"')
        body = quoted(v, "body = ", &body_size);
    else
        assert_int_equal(sscanf(body_line, "body = %zu bytes", &body_size), 1);
    assert_true(body_size <= sizeof counted);
    print = sml_fingerprint(method, method_size, type, type_size, body, body_size);
    snprintf(shown, sizeof shown, "\na = %016llx\nb = %016llx\n", (unsigned long long)print.a,
             (unsigned long long)print.b);
    if (!strstr(v->fields, shown))
        fail_msg("%s:%s", v->title, shown);
}

static void vectors(void **state)
{
    char *text = read_file(vectors_path);
    const char *at = text;
    struct vector v;
    unsigned frames = 0, malformed = 0, fingerprints = 0;

    (void)state;
    while (next_vector(&at, &v)) {
        if (strcmp(v.kind, "frame") == 0 && ++frames)
            check_frame(&v);
        else if (strcmp(v.kind, "malformed") == 0 && ++malformed)
            check_malformed(&v);
        else if (strcmp(v.kind, "fingerprint") == 0 && ++fingerprints)
            check_fingerprint(&v);
        else
            fail_msg("a vector of kind %s", v.kind);
    }
    assert_int_equal(*at, '\0'); /* all of it was read */
    assert_true(frames >= 13 && malformed > 0 && fingerprints > 0);
    free(text);
}

static void page(void **state)
{
    char *text = read_file(vectors_path), *protocol = read_file(protocol_path);
    const char *shown = strstr(protocol, text);

    (void)state;
    if (!shown)
        fail_msg("%s does not show %s as it is", protocol_path, vectors_path);
    free(text);
    free(protocol);
}

/* A row of one of the page's tables: "| number | name |". */
static void assert_row(const char *protocol, unsigned number, const char *name)
{
    char row[64];

    snprintf(row, sizeof row, "\n| %u | %s |", number, name);
    if (!strstr(protocol, row))
        fail_msg("%s has no row%s", protocol_path, row);
}

static void numbers(void **state)
{
    char *protocol = read_file(protocol_path);

    (void)state;
    for (unsigned type = SML_HELLO; type <= SML_BYE; type++)
        assert_row(protocol, type, sml_frame_name((enum sml_frame_type)type));
    for (unsigned code = SML_BYE_END; code <= SML_BYE_SILENT; code++)
        assert_row(protocol, code, sml_bye_name((enum sml_bye_code)code));
#define STATUS_ROW(name, number, text, category) assert_row(protocol, number, #name);
    SEMEL_STATUS_TABLE(STATUS_ROW)
#undef STATUS_ROW
    free(protocol);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        { "M14 byte order fixed: the protocol's vectors", vectors, NULL, NULL, NULL },
        { "vectors: the page shows them as they are", page, NULL, NULL, NULL },
        { "protocol: the page's numbers are the code's", numbers, NULL, NULL, NULL },
    };

    if (argc != 3)
        return 2;
    vectors_path = argv[1];
    protocol_path = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
