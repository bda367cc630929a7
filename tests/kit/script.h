/* SPDX-License-Identifier: MIT */
/* script.h - a server at the level of frames, told by each test what to say: one thread, one
 * connection at a time. For what no honest server does, and for clients without a server. */
#ifndef SML_TESTS_SCRIPT_H
#define SML_TESTS_SCRIPT_H

#include "kit/kit.h"
#include "wire/frame.h"

struct kit_script;
typedef void (*kit_play)(struct kit_script *script, void *arg);

/* Listens at a place of its own and runs `play` in a thread. */
struct kit_script *kit_script_start(kit_play play, void *arg);
/* The same on descriptors, which become the script's; the first accept takes them. */
struct kit_script *kit_script_start_on(kit_play play, void *arg, int fd_read, int fd_write);
const char *kit_script_address(const struct kit_script *script);
/* Ends what blocks, waits for `play` to return. */
void kit_script_stop(struct kit_script *script);

/* For `play`. False: the connection, or the script, is over. */
bool kit_script_accept(struct kit_script *script);
bool kit_script_frame(struct kit_script *script, struct sml_frame *out); /* views until the next */
bool kit_script_send(struct kit_script *script, const void *bytes, size_t size);
void kit_script_hang_up(struct kit_script *script);
bool kit_script_stopping(const struct kit_script *script);

/* HELLO is read, WELCOME answered; listed calls are all EXPECTED, DONE ... as `state` says. */
bool kit_script_greet(struct kit_script *script, enum sml_call_state state);
/* Accept and greet. */
bool kit_script_meet(struct kit_script *script);
bool kit_script_reply(struct kit_script *script, uint64_t xid, struct semel_bytes body);
bool kit_script_bye(struct kit_script *script, enum sml_bye_code code, const char *text);

/* A whole server: every call is answered with its own body, bodies of one frame only. `hold` calls
 * are kept back and answered in reverse order. Ends with the script. */
void kit_play_echo(struct kit_script *script, void *hold);

#endif
