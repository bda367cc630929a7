/* SPDX-License-Identifier: MIT */
/* link_kept.h - the rest of test_link, in a file of its own. Returns its failures. */
#ifndef TESTS_SESSION_LINK_KEPT_H
#define TESTS_SESSION_LINK_KEPT_H

int link_kept(void);

#endif
