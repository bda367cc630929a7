/* SPDX-License-Identifier: MIT */
/* compiler.h - the only place that knows compilers. */
#ifndef SML_BASE_COMPILER_H
#define SML_BASE_COMPILER_H

#include <stddef.h>

#define SML_MUST_USE __attribute__((warn_unused_result))
#define SML_PRINTF(at, first) __attribute__((format(printf, at, first)))
#define SML_LIKELY(x) __builtin_expect(!!(x), 1)
#define SML_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* Memory that was given back may serve the next without the allocator; not where its use afterwards
 * is looked for. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SML_KEEPS_MEMORY 0
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SML_KEEPS_MEMORY 0
#endif
#ifndef SML_KEEPS_MEMORY
#define SML_KEEPS_MEMORY 1
#endif

#define SML_NORETURN __attribute__((noreturn))

/* For code that runs where a sanitizer's own state must not be touched. */
#if defined(__has_attribute) && __has_attribute(disable_sanitizer_instrumentation)
#define SML_UNINSTRUMENTED __attribute__((noinline, disable_sanitizer_instrumentation))
#else
#define SML_UNINSTRUMENTED __attribute__((noinline, no_sanitize_address, no_sanitize_thread))
#endif

/* The object that holds `member` at `pointer`. */
#define SML_CONTAINER(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#endif
