/* SPDX-License-Identifier: MIT */
/*
 * view.h - what the hooks of src/preload are tried on: memory whose pages may not be written unless
 * they are let in. Either it stands for a view (view_stub.c, linked with the hooks into a library
 * that is before libc), or it is one, of a file (view_real.c, for programs under `mkwrite run`).
 */
#ifndef VIEW_H
#define VIEW_H

#include <stdbool.h>
#include <stddef.h>

#define VIEW_PAGES  64
#define VIEW_MARGIN 4

/* Begin: VIEW_PAGES pages that are covered, between VIEW_MARGIN pages of plain memory. The address
 * of the first one covered. */
char *view_begin(void);
/* No page is let in any more, whoever wrote to it. */
void view_arm(void);
/* Is it a real one? Then there are no limits, and nothing of what follows is counted. */
bool view_is_real(void);
/* Its file. */
int view_file(void);
/* As many pages are let in at once; 0: no limit. */
void view_limit(size_t pages);
/* Nothing is covered: hooks pass on. */
void view_blind(bool blind);
/* How often stores of the program itself were let in, what is let in now, how often all was. */
unsigned view_faults(void);
unsigned view_lets(void);
unsigned view_lets_ever(void);
unsigned view_opened(void);

#endif
