/* SPDX-License-Identifier: MIT */
/* leftover.h - directories that killed processes have left, with the sockets they listened at. */
#ifndef SML_IO_LEFTOVER_H
#define SML_IO_LEFTOVER_H

#include <stdint.h>

/* Remove those of the user `uid` in `parent` whose name is `prefix` and 16 hexadecimal digits, with
 * the sockets in them: `sockets` are their names, ended by NULL, of which the first was opened as a
 * listener. What may be alive stays, and so does all that is not clear. Never blocks. */
void sml_leftover_sweep(const char *parent, const char *prefix, const char *const *sockets,
                        uint32_t uid);

#endif
