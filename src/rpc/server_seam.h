/* SPDX-License-Identifier: MIT */
/* server_seam.h - what the layer above asks of a server beyond its public interface. */
#ifndef SML_RPC_SERVER_SEAM_H
#define SML_RPC_SERVER_SEAM_H

#include <semel/server.h>

/* As semel_server_export, for a name that begins with "semel.". */
enum semel_status sml_server_export_reserved(struct semel_server *server, const char *name,
                                             semel_handler_fn handler, void *user);

#endif
