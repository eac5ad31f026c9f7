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
	bool not_in_children;
};

/* ---- Changing ----------------------------------------------------------------------------- */

/*
 * Between them the mappings and the list of files are the calling thread's alone; no signal
 * handler of the program runs in it, and it is not cancelled. An access that fails meanwhile in
 * another thread, at an address that is no view, is tried again. Nests.
 */
struct maps_change {
	sigset_t mask;
	int cancel;
	int error; /* errno before */
};
void maps_begin(struct maps_change *change);
void maps_end(struct maps_change *change);
/* What the call came to, in place of the errno before; 0: that. */
void maps_end_with(struct maps_change *change, int error);

/* If some thread is between them: wait for it. */
bool maps_settle(void);
/* mkw_fault_hooks.unknown */
bool maps_unknown(const void *address, bool write);

/* Around a fork: none is under way in the child. No handler of the program runs meanwhile. */
void maps_fork_begin(void);
void maps_fork_end(bool child);

/* ---- => maps_begin. ----------------------------------------------------------------------- */

/* Those that overlap [start, end), ascending, for fn; it may not change them. */
void maps_each(uintptr_t start, uintptr_t end, void (*fn)(struct map *map, void *arg), void *arg);
/* Those in the range become views; which cannot, or are not mapped any more, are forgotten. */
void maps_adopt(uintptr_t start, uintptr_t end);
/* They are views no more; the list stays. */
void maps_disown(uintptr_t start, uintptr_t end);
/* The kernel gives a mapping what the program has asked for, less these bits. */
void maps_set_protection(const struct map *map, int without);
/* What a view of this protection allows: MKW_READ, MKW_WRITE. */
unsigned maps_allowed(int protection);
/* A view was made writable anew; perhaps all are let go. */
void maps_follow_open(struct map *map);
/* In a child of fork: what it has not inherited (MADV_DONTFORK) is forgotten. */
void maps_leave_out(void);
/* Everything is the kernel's alone again, as the program has asked for it. */
void maps_abandon(void);
/* preload_open_all has been called: views are let go, or will be. */
bool maps_are_open(void);
/* All views are let go now, if preload_open_all has been called. */
void maps_open_pending(void);

/* ---- Anywhere ----------------------------------------------------------------------------- */

static inline uintptr_t maps_page_up(uintptr_t n)
{
	return (n + MKW_PAGE_SIZE - 1) & ~(uintptr_t)(MKW_PAGE_SIZE - 1);
}

#endif
