/* SPDX-License-Identifier: MIT */
/* let.h - memory that system calls store to: what the handler of faults has to do with it. */
#ifndef LET_H
#define LET_H

#include <ucontext.h>

/* In a signal handler, with no lock held: the write at address is refused. Does not return if it is
 * one that a hook makes to learn that. */
void let_give_up(const void *address, const ucontext_t *context);

#endif
