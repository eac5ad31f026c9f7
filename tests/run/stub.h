/* SPDX-License-Identifier: MIT */
/*
 * stub.h - in place of views: memory that is PROT_READ, and made writable as long as something lets
 * it in. The hooks of src/preload are linked with it into a library that stands before libc.
 */
#ifndef STUB_H
#define STUB_H

#include <stdbool.h>
#include <stddef.h>

#define STUB_PAGES  64
#define STUB_MARGIN 4

/* Begin: STUB_PAGES pages that are covered, between STUB_MARGIN pages of plain memory. The address
 * of the first one covered. */
char *stub_begin(void);
/* No page is let in any more, whoever wrote to it. */
void stub_arm(void);
/* As many pages are let in at once; 0: no limit. */
void stub_limit(size_t pages);
/* Nothing is covered: hooks pass on. */
void stub_blind(bool blind);
/* How often stores of the program itself were let in, what is let in now, how often all was. */
unsigned stub_faults(void);
unsigned stub_lets(void);
unsigned stub_lets_ever(void);
unsigned stub_opened(void);

#endif
