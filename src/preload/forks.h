/* SPDX-License-Identifier: MIT */
/* forks.h - fork: who has to hold still for it. */
#ifndef FORKS_H
#define FORKS_H

#include <signal.h>
#include <stdbool.h>

/* 0 or -errno. After the library's own space was made: then ours comes first. */
int forks_begin(void);

/* Parts of it: before, and after it in the parent and in the child. */
void let_fork_begin(void);
void let_fork_end(bool child);

/* Around calls into the library during which no other thread may fork, and no handler runs. */
void let_enter(sigset_t *mask);
void let_leave(const sigset_t *mask);

#endif
