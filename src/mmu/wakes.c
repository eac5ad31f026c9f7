/* SPDX-License-Identifier: MIT */
/*
 * wakes.c - when each page was last woken.
 *
 * A call that maps a page lets every thread go that waits at it, also one whose report has been
 * read and not been served yet. If that report is refused later, the signal would reach its thread
 * wherever it is by then. So each waking call leaves its time (a count) at its pages before it is
 * made; a report knows a time before it was read; and a thread that takes a queued refusal believes
 * it only if its page was not woken in between: then it cannot have gone on. A refusal that is not
 * believed costs the thread one more fault.
 *
 * Pages share places by hash: a wake of another page can make a refusal come one fault later, no
 * more.
 */
#include "machine.h"

#define PLACES 16384u

static _Atomic uint64_t clock_now;
static _Atomic uint64_t woken[PLACES];

static _Atomic uint64_t *place_of(uintptr_t address)
{
	return &woken[address / MKW_PAGE_SIZE % PLACES];
}

void wake_note(const struct mmu_view *view, uintptr_t address, size_t length)
{
	uint64_t now;

	if (view->backend == MMU_INLINE)
		return; /* nobody waits there */
	now = atomic_fetch_add(&clock_now, 1) + 1;
	for (uintptr_t at = address; at < address + length; at += MKW_PAGE_SIZE)
		atomic_store(place_of(at), now);
}

uint64_t wake_clock(void)
{
	return atomic_load(&clock_now);
}

bool mmu_woken_since(uintptr_t address, uint64_t time)
{
	return atomic_load(place_of(address)) > time;
}
