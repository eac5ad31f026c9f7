/* SPDX-License-Identifier: MIT */
/*
 * preload.h - what the files of the library that `mkwrite run` loads into a program share; nobody
 * else includes it.
 *
 * Everything here may be called from a hook, that is wherever the program calls libc. What says so
 * may also run in a signal handler.
 */
#ifndef PRELOAD_H
#define PRELOAD_H

#include "run/control.h"

#include <mkwrite/mkwrite.h>
#include <stdbool.h>
#include <stddef.h>

/* NULL: not under `mkwrite run`; hooks only pass on. Constant once the constructor has run. */
extern struct run_control *preload_control;

/* ---- Memory that system calls store to (let.c) -------------------------------------------- */

/* Is some byte of the range in a view that may be written? Cheap. In a signal handler, too. */
bool preload_covers(const void *address, size_t length);

struct preload_let {
	struct mkw_pin *pin;
};
/*
 * Before a system call stores to [address, address+length): its pages are granted, and stay so
 * until preload_let_end. Where the disk is full what the user chose happens here: the thread waits,
 * or the process ends. Returns how many bytes from address on may be stored to: length, or less (a
 * page at least) where a dirty limit allows no more at a time; 0: refused for good, and the call
 * will fail as it would without us. Keeps errno.
 */
size_t preload_let_begin(struct preload_let *let, void *address, size_t length);
void preload_let_end(struct preload_let *let);

/* From now on all views are granted whole, and the user is told why, once. In a signal handler,
 * too: then it is done by the next hook or fault. */
void preload_open_all(enum run_say why);
/* If that was asked for it is done when this returns. Where a hook may be called. */
void preload_open_now(void);

/* ---- System calls and signals -------------------------------------------------------------- */

/* When the library is loaded, after preload_control was set. 0 or -errno. (actions.c) */
int preload_signals_begin(void);
int preload_stacks_begin(void); /* (stacks.c) */
/* There is a view: from now on system calls that are not libc's are looked at. Cheap once it has
 * been done. (raw.c) */
void preload_raw_watch(void);

#endif
