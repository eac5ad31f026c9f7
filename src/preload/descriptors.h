/* SPDX-License-Identifier: MIT */
/*
 * descriptors.h - descriptors of ours in a process that is not: kept high up, where the program's
 * lowest free ones are not taken, and out of reach of its close, dup2, close_range and closefrom.
 */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <stdbool.h>

/* fd is ours, and moves up if its old number may be closed. Returns its number, or -errno; fd
 * itself is closed. In a signal handler, too. */
int descriptor_keep(int fd);
/* One more of a descriptor of the program's, with all that is the open file's. Or -errno. */
int descriptor_share(int fd);
/* Nobody has a lock on the file that would end with it. */
bool descriptor_may_close(int fd);
/* Close one that is ours; -1: none. */
void descriptor_drop(int fd);
/* It is not ours any more: somebody has closed it past the hooks, and its number may be another's.
 */
void descriptor_forget(int fd);
bool descriptor_is_ours(int fd);

#endif
