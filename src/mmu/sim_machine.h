/* SPDX-License-Identifier: MIT */
/*
 * sim_machine.h - what the simulated machine consists of, shared by the files of sim.h: sim.c
 * (frames, views and their entries), sim_private.c (private views), sim_swap.c, sim_threads.c
 * (handler threads, reports, wakes), sim_access.c (what a thread of the program does).
 *
 * A cached translation is used without a look at the entry, and by whoever cached it only.
 */
#ifndef SIM_MACHINE_H
#define SIM_MACHINE_H

#include "sim.h"

#define SIM_PAGES_MAX 1024u /* of frames, and of a view */
#define SIM_VIEWS_MAX 16

struct frames {
	bool used;
	char *bytes; /* kept from run to run */
	bool exists[SIM_PAGES_MAX];
	uint32_t born[SIM_PAGES_MAX]; /* how often it came into being: one frame is not another */
	uint64_t top;
	uint64_t drop_from, drop_to; /* pages that are being dropped: who faults there waits */
};

/* A stretch of addresses that was mapped, or taken as a place, at once. What has become of it since
 * is known page by page: the library may look at it through other, smaller views. */
struct sim_view {
	bool used;
	struct mmu_view at;	   /* as it was mapped */
	bool taken[SIM_PAGES_MAX]; /* a place where nothing is mapped yet */
	bool mapped[SIM_PAGES_MAX];
	uint8_t allowed[SIM_PAGES_MAX]; /* MKW_READ, MKW_WRITE */
	uint32_t frame[SIM_PAGES_MAX];	/* the page of the frames that it shows */
	uint64_t serial[SIM_PAGES_MAX]; /* of its mapping: differs from that of every other */
	uint8_t entries[SIM_PAGES_MAX];
	uint8_t cached[SIM_CPUS][SIM_PAGES_MAX]; /* SIM_NONE, SIM_RO, SIM_RW */
	size_t pages;
	/* Private views: */
	char *copies; /* kept from run to run */
	bool copied[SIM_PAGES_MAX];
	uint64_t copy[SIM_PAGES_MAX];	     /* its number: differs from that of every other */
	bool let[SIM_PAGES_MAX];	     /* the machine copies on the first write */
	bool held[SIM_PAGES_MAX];	     /* the entry's lock: a copy is being put there */
	uint32_t cached_copy[SIM_PAGES_MAX]; /* bit of each thread: what it cached is the copy */
	unsigned copiers;		     /* threads amid a copy: the mapping stays */
};

extern struct sim_view sim_views[SIM_VIEWS_MAX];

/* ---- sim.c -------------------------------------------------------------------------------- */

struct sim_view *sim_view_at(uintptr_t address);
struct sim_view *sim_view_of(const struct mmu_view *view);
/* The first index into entries of an address range, checked. */
size_t sim_index(const struct sim_view *v, uintptr_t address, size_t length);
void sim_flush(struct sim_view *v, size_t from, size_t count);
/* How often what mappings allow has begun to change, or has changed. */
uint64_t sim_protections(void);
void sim_count_call(struct mmu_view *view);
/* Which page of the frames a page of a view shows. */
static inline uint64_t sim_frame_of(const struct sim_view *v, size_t i)
{
	return v->frame[i];
}
static inline uintptr_t sim_address_of(const struct sim_view *v, size_t i)
{
	return v->at.address + i * MKW_PAGE_SIZE;
}

/* ---- sim_private.c ------------------------------------------------------------------------ */

int sim_private_make(struct sim_view *v, bool private);
/* Until no copy is under way in the mapping. No point after that. */
void sim_copiers_wait(const struct sim_view *v);
/* Until no entry of the range is locked. No point after that. */
void sim_entries_wait(const struct sim_view *v, size_t from, size_t count);
/* The view's entries that show pages [from, to) of the frames go. */
void sim_lose(struct sim_view *v, uint64_t from, uint64_t to);
/* What the entry lets an access do; SIM_NONE: a report. *again: the machine has copied, or has
 * begun and found the entry changed. */
enum sim_entry sim_private_walk(struct sim_view *v, size_t i, enum mmu_access access, bool *again);

/* ---- sim_swap.c --------------------------------------------------------------------------- */

void sim_swap_reset(void);
bool sim_swap_is_open(void);

/* ---- sim_threads.c ------------------------------------------------------------------------ */

void sim_threads_reset(void);
unsigned sim_machines(void);
void sim_wake_begin(const struct mmu_view *view, uintptr_t address, size_t length);
void sim_wake_end(const struct mmu_view *view, uintptr_t address, size_t length);
void sim_wake_threads(const struct mmu_view *view, uintptr_t address, size_t length);
/* Report an access of the running thread and wait until it may be tried again. */
int sim_report(const struct mmu_view *view, uintptr_t address, enum mmu_access access,
	       struct mkw_refusal *refusal);
/* Signals that were queued to the running thread arrive. An errno: it was refused, at this access.
 */
int sim_take_signals(uintptr_t address, struct mkw_refusal *refusal);
/* Is it only a window of a change that forbids the access? */
bool sim_allowed(uintptr_t address, enum mmu_access access);
/* The running thread begins an access. */
void sim_reports_reset(void);

#endif
