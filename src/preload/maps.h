/* SPDX-License-Identifier: MIT */
/*
 * maps.h - the program's shared mappings of files, as its calls have made them; each is a view.
 */
#ifndef MAPS_H
#define MAPS_H

#include "files.h"

#include <signal.h>

/* A stretch of one mapping with one protection. */
struct map {
	uintptr_t start, end;
	struct file *file;
	uint64_t offset; /* of start in the file */
	int protection;	 /* PROT_..., what the program has asked for */
};

/* ---- Changing ----------------------------------------------------------------------------- */

/*
 * Between them the mappings and the list of files are the calling thread's alone; no signal
 * handler of the program runs in it. An access that fails meanwhile in another thread, at an
 * address that is no view, is tried again. Nests.
 */
struct maps_change {
	sigset_t mask;
	int error; /* errno before */
};
void maps_begin(struct maps_change *change);
void maps_end(struct maps_change *change);

/* mkw_fault_hooks.unknown */
bool maps_unknown(const void *address, bool write);

/* Around a fork: none is under way in the child. */
void maps_fork_begin(void);
void maps_fork_end(bool child);

/* ---- => maps_begin. ----------------------------------------------------------------------- */

/* Those that overlap [start, end), ascending, for fn; it may not change them. */
void maps_each(uintptr_t start, uintptr_t end, void (*fn)(struct map *map, void *arg), void *arg);
/* Everything is the kernel's alone again, as the program has asked for it. */
void maps_abandon(void);
/* preload_open_all has been called: views are let go, or will be. */
bool maps_are_open(void);
/* All views are let go now, if preload_open_all has been called. */
void maps_open_pending(void);

#endif
