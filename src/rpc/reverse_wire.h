/* SPDX-License-Identifier: MIT */
/* reverse_wire.h - the messages of calls from a server to a client: items of the two streams of a
 * call of "semel.reverse". Pure; the layout is in docs/PROTOCOL.md.
 *
 * The client makes that call, with its terms as the body; the server's first item are its own.
 * Then requests and cancellations go one way, replies the other. */
#ifndef SML_RPC_REVERSE_WIRE_H
#define SML_RPC_REVERSE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/limits.h>

#include "wire/frame.h"

#define SML_REVERSE_METHOD "semel.reverse"
#define SML_REVERSE_VERSION 1

#define SML_REVERSE_TERMS_BYTES 16
#define SML_REVERSE_HEAD_BYTES 16  /* of a request, and all of a cancellation */
#define SML_REVERSE_REPLY_BYTES 24 /* of a reply, before its words */
#define SML_REVERSE_REQUEST_ROOM                                                                   \
    (SML_REVERSE_HEAD_BYTES + SEMEL_METHOD_BYTES + SEMEL_CONTENT_TYPE_BYTES)
#define SML_REVERSE_REPLY_ROOM                                                                     \
    (SML_REVERSE_REPLY_BYTES + SEMEL_TEXT_BYTES + SEMEL_DETAIL_BYTES + SEMEL_TRACE_BYTES)

/* What an end is ready to take. */
struct sml_reverse_terms {
    uint32_t window;     /* the client's: calls under way at it, 1 .. SEMEL_WINDOW_CALLS_MAX; the
                            server's: calls it will have under way at most */
    uint64_t body_bytes; /* the largest body, at most SEMEL_BODY_BYTES_MAX */
};

enum sml_reverse_kind {
    SML_REVERSE_TERMS = 1,
    SML_REVERSE_REQUEST,
    SML_REVERSE_CANCEL,
    SML_REVERSE_REPLY
};

struct sml_reverse_request {
    uint32_t remaining_ms;
    struct semel_bytes method, content_type, body;
};

struct sml_reverse_message {
    enum sml_reverse_kind kind;
    uint64_t number; /* of the call: from 1, rising from request to request */
    struct sml_reverse_terms terms;
    struct sml_reverse_request request;
    struct sml_verdict verdict;
};

/* The body of the carrying call, and the server's first item. */
void sml_reverse_encode_terms(const struct sml_reverse_terms *terms,
                              uint8_t out[SML_REVERSE_TERMS_BYTES]);
/* NULL; or what is wrong with it. */
const char *sml_reverse_decode_terms(struct semel_bytes bytes, struct sml_reverse_terms *out);

/* Can it be encoded: is a name there, and are both as names are everywhere? */
bool sml_reverse_is_request(const struct sml_reverse_request *request);
/* A request of this size, body included; written in two steps, since its number and the time that
 * remains are known only when it is sent. */
static inline size_t sml_reverse_request_bytes(const struct sml_reverse_request *request)
{
    return SML_REVERSE_HEAD_BYTES + request->method.size + request->content_type.size +
           request->body.size;
}
void sml_reverse_encode_request(const struct sml_reverse_request *request, uint8_t *out);
void sml_reverse_stamp_request(uint8_t *head, uint64_t number, uint32_t remaining_ms);

void sml_reverse_encode_cancel(uint64_t number, uint8_t out[SML_REVERSE_HEAD_BYTES]);

static inline size_t sml_reverse_reply_bytes(const struct sml_verdict *verdict)
{
    return SML_REVERSE_REPLY_BYTES + sml_verdict_bytes(verdict);
}
void sml_reverse_encode_reply(uint64_t number, const struct sml_verdict *verdict, uint8_t *out);

/* An item of the server's stream (`to_client`), or of the client's. Views point into it. NULL; or
 * what is wrong with it. */
const char *sml_reverse_decode(struct semel_bytes item, bool to_client,
                               struct sml_reverse_message *out);

#endif
