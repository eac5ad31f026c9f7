/* SPDX-License-Identifier: MIT */
/*
 * full.h - what becomes of a write that there is no space for: --on-full.
 */
#ifndef FULL_H
#define FULL_H

#include <signal.h>
#include <stdbool.h>

/*
 * The calling thread was refused with this negative errno (file_refused says where). mask: the
 * signal mask of the interrupted code, which holds while it waits; NULL: it is as it is. True: try
 * again. Does not return where the process is to end. In a signal handler, too.
 */
bool full_again(int error, const sigset_t *mask);
/* The thread's write was granted: if it was stopped it is no more. */
void full_over(void);
/* It leaves its wait by a jump, if it is in one. In a signal handler, too. */
void full_left(void);
/* In a child of fork: whoever was stopped is the parent's thread. */
void full_forked(void);

#endif
