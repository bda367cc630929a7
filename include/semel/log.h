/* SPDX-License-Identifier: MIT */
/* log.h - the library never prints; it tells a hook. */
#ifndef SEMEL_LOG_H
#define SEMEL_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

enum semel_log_level { SEMEL_LOG_ERROR, SEMEL_LOG_WARNING, SEMEL_LOG_INFO, SEMEL_LOG_DEBUG };

/* Called with one line of text without a newline, borrowed for the call. Control characters that
 * came from a peer are escaped. Thread: any of the library's or the caller's threads, never under
 * a lock of the library; it must not call a function that blocks. */
typedef void (*semel_log_fn)(enum semel_log_level level, const char *text, void *user);

#ifdef __cplusplus
}
#endif
#endif
