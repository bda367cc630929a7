/* SPDX-License-Identifier: MIT */
/* semel.h - all of Semel's public interface. */
#ifndef SEMEL_SEMEL_H
#define SEMEL_SEMEL_H

#include <semel/backchannel.h>
#include <semel/bytes.h>
#include <semel/client.h>
#include <semel/deferred.h>
#include <semel/exchange.h>
#include <semel/limits.h>
#include <semel/lock.h>
#include <semel/log.h>
#include <semel/loop.h>
#include <semel/outbox.h>
#include <semel/peer.h>
#include <semel/pool.h>
#include <semel/queue.h>
#include <semel/request.h>
#include <semel/router.h>
#include <semel/server.h>
#include <semel/status.h>
#include <semel/store.h>
#include <semel/stream.h>
#include <semel/task.h>

#define SEMEL_VERSION_MAJOR 0
#define SEMEL_VERSION_MINOR 4
#define SEMEL_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library at run time, "0.4.0". Thread: any thread. Since: 0.1 */
SEMEL_API const char *semel_version(void);

#ifdef __cplusplus
}
#endif
#endif
