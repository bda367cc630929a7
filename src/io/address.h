/* SPDX-License-Identifier: MIT */
/* address.h - where a server is: text to fields and back.
 *
 *   unix:/path          also any text with a '/' and no scheme
 *   tcp:host:port       tcp:[::1]:7000; port 0 only to listen
 *   fd:N, fd:R/W        descriptors that are connected already
 *
 * A comma separates alternatives. */
#ifndef SML_IO_ADDRESS_H
#define SML_IO_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/limits.h>
#include <semel/status.h>

#include "base/compiler.h"
#include "os/error.h"

#define SML_UNIX_PATH_BYTES 107 /* sun_path without its final NUL */
#define SML_HOST_BYTES 253      /* the longest name of a host */

enum sml_address_kind { SML_ADDRESS_UNIX, SML_ADDRESS_TCP, SML_ADDRESS_FD };

struct sml_address {
    enum sml_address_kind kind;
    char text[SEMEL_ADDRESS_BYTES + 1]; /* canonical: parses to the same address */
    char path[SML_UNIX_PATH_BYTES + 1]; /* unix */
    char host[SML_HOST_BYTES + 1];      /* tcp, without brackets */
    uint16_t port;                      /* tcp */
    int fd_read, fd_write;              /* fd; may be equal */
};

struct sml_addresses { /* about 14 KiB: rather on the heap */
    uint32_t count;
    struct sml_address list[SEMEL_ADDRESSES_MAX];
};

/* One address; a comma is an error. Returns OK; BAD_ADDRESS with the text "ADDRESS: what is wrong"
 * in out_reason (may be NULL), *out_address untouched. Opens and resolves nothing. */
enum semel_status sml_address_parse(const char *text, struct sml_address *out_address,
                                    struct sml_reason *out_reason) SML_MUST_USE;

/* One or several, at most SEMEL_ADDRESSES_MAX. An fd: address must be the only one: it cannot be
 * connected to again. Returns as sml_address_parse; on failure *out_addresses is undefined. */
enum semel_status sml_addresses_parse(const char *text, struct sml_addresses *out_addresses,
                                      struct sml_reason *out_reason) SML_MUST_USE;

#endif
