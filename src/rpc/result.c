/* SPDX-License-Identifier: MIT */
/* result.c - results and their words.
 *
 * A result owns one allocation ("storage") that holds body, detail, text, trace, method and peer,
 * in this order, so that the body is aligned; a reply that the machine collected from several
 * frames is moved in instead of copied. A result lent to a callback may own nothing. */
#include "rpc/result.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/text.h"

#define WORDS_BYTES 2048 /* longest text that the library makes itself */

struct sml_result_storage *sml_result_storage_new(size_t capacity)
{
    struct sml_result_storage *storage;

    if (capacity > SIZE_MAX - sizeof *storage)
        return NULL;
    storage = malloc(sizeof *storage + capacity);
    if (storage) {
        storage->moved = NULL;
        storage->capacity = capacity;
    }
    return storage;
}

static void storage_free(struct sml_result_storage *storage)
{
    if (storage)
        free(storage->moved);
    free(storage);
}

/* --- words ------------------------------------------------------------------------------ */

/* "call 17 of 'add' at unix:/run/x: " */
static void add_name(struct sml_text *text, uint64_t number, const char *method,
                     size_t method_bytes, const char *peer)
{
    sml_text_add(text, "call ");
    if (number) {
        sml_text_add_u64(text, number);
        sml_text_add(text, " ");
    }
    sml_text_add(text, "of '");
    sml_text_add_escaped(text, method, method_bytes);
    sml_text_add(text, "' at ");
    sml_text_add(text, peer);
    sml_text_add(text, ": ");
}

/* `words` from the server (escaped) or `why` from the link follow the status. */
static void add_reason(struct sml_text *text, enum semel_status status, struct semel_bytes words,
                       const char *why)
{
    const char *status_text = semel_status_text(status);
    bool repeats =
        words.size == strlen(status_text) && memcmp(words.data, status_text, words.size) == 0;

    sml_text_add(text, status_text);
    if (repeats)
        return;
    if (words.size > 0) {
        sml_text_add(text, ": ");
        sml_text_add_escaped(text, words.data, words.size);
    } else if (why && *why) {
        sml_text_add(text, " (");
        sml_text_add_escaped(text, why, strlen(why));
        sml_text_add(text, ")");
    }
}

/* --- building --------------------------------------------------------------------------- */

/* The strings and bytes of a result, before they have their place. */
struct parts {
    struct semel_bytes body, detail, text, trace, method, peer;
};

static size_t parts_bytes(const struct parts *p)
{
    return p->body.size + p->detail.size + p->text.size + p->trace.size + p->method.size +
           p->peer.size + 4; /* a NUL after each of the last four */
}

size_t sml_result_value_bytes(size_t body_bytes, size_t method_bytes, const char *peer)
{
    return body_bytes + method_bytes + strlen(peer) + 4;
}

static struct semel_bytes put_bytes(char **at, struct semel_bytes from)
{
    struct semel_bytes to = { *at, from.size };

    if (from.size == 0)
        return semel_bytes(NULL, 0);
    memcpy(*at, from.data, from.size);
    *at += from.size;
    return to;
}

/* NULL for an empty view without data. */
static const char *put_text(char **at, struct semel_bytes from)
{
    char *to = *at;

    if (!from.data)
        return NULL;
    memcpy(to, from.data, from.size);
    to[from.size] = '\0';
    *at += from.size + 1;
    return to;
}

static void put_parts(struct semel_result *out, const struct parts *p,
                      struct sml_result_storage *storage)
{
    char *at = storage->bytes;

    out->body = put_bytes(&at, p->body);
    out->detail = put_bytes(&at, p->detail);
    out->text = put_text(&at, p->text);
    out->trace = put_text(&at, p->trace);
    out->method = put_text(&at, p->method);
    out->peer = put_text(&at, p->peer);
    out->storage = storage;
}

/* `storage` if it is large enough for `bytes`, else a new one; NULL: no memory. */
static struct sml_result_storage *fit(struct sml_result_storage *storage, size_t bytes)
{
    if (storage && storage->capacity >= bytes)
        return storage;
    storage_free(storage);
    return sml_result_storage_new(bytes);
}

/* The words of everything but a value: the handler's own, or ours around what is known. */
static struct semel_bytes make_text(const struct sml_call *call, const char *peer, const char *why,
                                    char *buffer)
{
    const struct sml_verdict *v = &call->verdict;
    struct sml_text text;

    if (v->outcome == SEMEL_VALUE)
        return semel_bytes(NULL, 0);
    if (v->outcome == SEMEL_FAILURE)
        return semel_bytes(v->text.data ? v->text.data : "", v->text.size);
    sml_text_init(&text, buffer, WORDS_BYTES);
    add_name(&text, call->xid, call->method, call->method_bytes, peer);
    add_reason(&text, v->status, v->text, why);
    return semel_bytes(buffer, text.used);
}

static void no_memory(struct semel_result *out)
{
    if (out->outcome == SEMEL_VALUE || out->outcome == SEMEL_FAILURE) {
        out->outcome = SEMEL_UNKNOWN;
        out->status = SEMEL_NO_MEMORY;
        out->code = 0;
    }
}

void sml_result_own(struct semel_result *out, struct sml_call *call, const char *peer,
                    const char *why, struct sml_result_storage *storage)
{
    const struct sml_verdict *v = &call->verdict;
    bool move = v->outcome == SEMEL_VALUE && call->reply;
    char words[WORDS_BYTES];
    struct parts parts = {
        .body = v->outcome == SEMEL_VALUE && !move ? v->body : semel_bytes(NULL, 0),
        .detail = v->detail,
        .text = make_text(call, peer, why, words),
        .trace = v->trace.size > 0 ? v->trace : semel_bytes(NULL, 0),
        .method = { call->method, call->method_bytes },
        .peer = semel_bytes_text(peer),
    };

    memset(out, 0, sizeof *out);
    out->outcome = v->outcome;
    out->status = v->status;
    out->code = v->code;
    out->call = call->xid;
    storage = fit(storage, parts_bytes(&parts));
    if (!storage) {
        no_memory(out);
    } else {
        put_parts(out, &parts, storage);
        if (move) {
            out->body = v->body;
            storage->moved = call->reply;
            call->reply = NULL;
        }
    }
    free(call->reply);
    call->reply = NULL;
}

void sml_result_borrow(struct semel_result *out, const struct sml_call *call, const char *peer)
{
    SML_ASSERT(call->verdict.outcome == SEMEL_VALUE && call->reply == NULL);
    memset(out, 0, sizeof *out);
    out->outcome = SEMEL_VALUE;
    out->status = call->verdict.status;
    out->body = call->verdict.body;
    out->method = call->method;
    out->peer = peer;
    out->call = call->xid;
}

void sml_result_refuse(struct semel_result *out, enum semel_status status, const char *method,
                       const char *peer, const char *why)
{
    size_t method_bytes = method ? strlen(method) : 0;
    struct sml_call call = {
        .method = method ? method : "",
        .method_bytes = (uint8_t)(method_bytes > 255 ? 255 : method_bytes),
        .verdict = { .outcome = SEMEL_NOT_EXECUTED, .status = status },
    };

    sml_result_own(out, &call, peer, why, NULL);
}

/* --- public ----------------------------------------------------------------------------- */

void semel_result_clear(struct semel_result *result)
{
    if (!result)
        return;
    storage_free(result->storage);
    memset(result, 0, sizeof *result);
}

enum semel_status semel_result_take(struct semel_result *result, struct semel_result *out_result)
{
    struct sml_result_storage *storage;
    struct parts parts;

    if (!result || !out_result || result == out_result)
        return SEMEL_INVALID;
    if (result->storage) {
        *out_result = *result;
        memset(result, 0, sizeof *result);
        return SEMEL_OK;
    }
    parts = (struct parts){
        .body = result->body,
        .detail = result->detail,
        .text = semel_bytes_text(result->text),
        .trace = semel_bytes_text(result->trace),
        .method = semel_bytes_text(result->method),
        .peer = semel_bytes_text(result->peer),
    };
    storage = sml_result_storage_new(parts_bytes(&parts));
    if (!storage)
        return SEMEL_NO_MEMORY;
    *out_result = *result;
    put_parts(out_result, &parts, storage);
    memset(result, 0, sizeof *result);
    return SEMEL_OK;
}

/* What add_name would begin a text with, left out. */
static const char *without_name(const struct semel_result *result, const char *method,
                                const char *peer)
{
    char name[WORDS_BYTES];
    struct sml_text text;

    if (!result->text || result->outcome == SEMEL_FAILURE)
        return result->text;
    sml_text_init(&text, name, sizeof name);
    add_name(&text, result->call, method, strlen(method), peer);
    return strncmp(result->text, name, text.used) == 0 ? result->text + text.used : result->text;
}

size_t semel_result_message(const struct semel_result *result, char *out_text, size_t size)
{
    const char *method, *peer, *why;
    char words[2 * WORDS_BYTES];
    struct sml_text text;
    size_t bytes;

    if (!result)
        return 0;
    method = result->method ? result->method : "?";
    peer = result->peer ? result->peer : "?";
    why = without_name(result, method, peer);
    sml_text_init(&text, words, sizeof words);
    sml_text_add_escaped(&text, method, strlen(method));
    sml_text_add(&text, " at ");
    sml_text_add(&text, peer);
    if (result->call) {
        sml_text_add(&text, ", call ");
        sml_text_add_u64(&text, result->call);
    }
    sml_text_add(&text, ": ");
    sml_text_add(&text, semel_outcome_text(result->outcome));
    if (result->outcome != SEMEL_VALUE) {
        sml_text_add(&text, ": ");
        if (!why || !*why)
            sml_text_add(&text, semel_status_text(result->status));
        else if (result->outcome == SEMEL_FAILURE)
            sml_text_add_escaped(&text, why, strlen(why));
        else
            sml_text_add(&text, why); /* ours: escaped when it was made */
    }
    if (out_text && size > 0) {
        bytes = text.used < size - 1 ? text.used : size - 1;
        memcpy(out_text, words, bytes);
        out_text[bytes] = '\0';
    }
    return text.used;
}
