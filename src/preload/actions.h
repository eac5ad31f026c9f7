/* SPDX-License-Identifier: MIT */
/*
 * actions.h - signals whose handlers and masks are ours in part (actions.c).
 */
#ifndef ACTIONS_H
#define ACTIONS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/* The mask that a function is to be given for the program's: signals that we live by are not
 * blocked. NULL for NULL. */
const sigset_t *actions_mask(const sigset_t *set, sigset_t *real);

/* What the calling thread believes to have blocked; a new one inherits that of its maker. */
unsigned actions_shadow(void);
void actions_inherit(unsigned shadow);

/* sigprocmask with sets of so many bytes, as the kernel has them. */
int actions_sigprocmask(int how, const void *set, void *old, size_t bytes);

/* The program's handler of SIGSYS, for one that is not ours. */
void actions_pass_on(int sig, siginfo_t *info, void *context);
/* Ours is to be installed: note the program's. False: it could not be. */
bool actions_take_sigsys(void (*handler)(int, siginfo_t *, void *));

/* Put the program's back. */
void actions_give_sigsys(void);

#endif
