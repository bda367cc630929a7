/* SPDX-License-Identifier: MIT */
/* server_seam.h - what the layer above asks of a server beyond its public interface. */
#ifndef SML_RPC_SERVER_SEAM_H
#define SML_RPC_SERVER_SEAM_H

#include <semel/server.h>

/* As semel_server_export, for a name that begins with "semel.". */
enum semel_status sml_server_export_reserved(struct semel_server *server, const char *name,
                                             semel_handler_fn handler, void *user);

struct sml_json;

/* What semel.counters has besides: `show` adds members to the answer, on a thread of the server's,
 * until that is destroyed. Before the start. OK; ALREADY: something is shown, or the server was
 * started; STOPPED, FORKED. */
enum semel_status sml_server_show(struct semel_server *server,
                                  void (*show)(struct sml_json *json, void *user), void *user);

#endif
