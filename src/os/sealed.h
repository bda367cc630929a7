/* SPDX-License-Identifier: MIT */
/* sealed.h - memory that two processes share, sealed in its size: neither can cut it short under
 * the other. */
#ifndef SML_OS_SEALED_H
#define SML_OS_SEALED_H

#include <stddef.h>

#include <semel/status.h>

/* `size` bytes (not 0), zeroed, to be written here and read where the descriptor is handed to.
 * Returns OK; LIMIT, NO_MEMORY, SYSTEM. */
enum semel_status sml_sealed_create(size_t size, int *out_fd, void **out_data);

/* What another process made: `size` bytes to be read; NULL unless it is sealed and has so many. The
 * descriptor is not needed any more. */
const void *sml_sealed_map(int fd, size_t size);

/* Either's end of it. */
void sml_sealed_unmap(const void *data, size_t size);
void sml_sealed_close(int fd);

#endif
