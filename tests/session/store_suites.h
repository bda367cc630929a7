/* SPDX-License-Identifier: MIT */
/* store_suites.h - the rest of test_callee_store, in files of its own. Each gives its failures. */
#ifndef TESTS_SESSION_STORE_SUITES_H
#define TESTS_SESSION_STORE_SUITES_H

int store_releasing(void);
int store_restoring(void);
int store_searching(void);

#endif
