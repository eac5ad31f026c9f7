/* SPDX-License-Identifier: MIT */
/*
 * wakes.c - when each page was last woken.
 *
 * A call that maps a page lets every thread go that waits at it, also one whose report has been
 * read and not been served yet. If that report is refused later, the signal would reach its thread
 * wherever it is by then. So a waking call is known at its pages while it lasts, and leaves its
 * time (a count) there at its end; a report knows a time before it was read; and a thread that
 * takes a queued refusal believes it only if no wake of its page is under way or has ended since:
 * then it cannot have gone on. A refusal that is not believed costs the thread one more fault.
 *
 * Pages share places by hash: a wake of another page can make a refusal come one fault later, no
 * more.
 */
#include "machine.h"

#define PLACES 16384u

/* TSan takes a lock of its own around an atomic access, and holds it while a program's atomic
 * access to a view waits for the very wake that is counted here. */
#define UNWATCHED __attribute__((no_sanitize("thread")))

static _Atomic uint64_t clock_now;
static struct {
	_Atomic uint64_t ended; /* when the last wake did */
	_Atomic uint32_t under_way;
} woken[PLACES];

UNWATCHED static size_t place_of(uintptr_t address)
{
	return address / MKW_PAGE_SIZE % PLACES;
}

/* How many places the pages of a stretch have. */
UNWATCHED static size_t places_in(size_t length)
{
	return length / MKW_PAGE_SIZE < PLACES ? length / MKW_PAGE_SIZE : PLACES;
}

UNWATCHED void wake_begin(const struct mmu_view *view, uintptr_t address, size_t length)
{
	if (view->backend == MMU_INLINE)
		return; /* nobody waits there */
	for (size_t i = 0; i < places_in(length); i++)
		atomic_fetch_add(&woken[place_of(address + i * MKW_PAGE_SIZE)].under_way, 1);
}

UNWATCHED void wake_end(const struct mmu_view *view, uintptr_t address, size_t length)
{
	uint64_t now;

	if (view->backend == MMU_INLINE)
		return;
	now = atomic_fetch_add(&clock_now, 1) + 1;
	for (size_t i = 0; i < places_in(length); i++) {
		size_t place = place_of(address + i * MKW_PAGE_SIZE);
		uint64_t before = atomic_load(&woken[place].ended);

		while (before < now &&
		       !atomic_compare_exchange_weak(&woken[place].ended, &before, now))
			;
		atomic_fetch_sub(&woken[place].under_way, 1);
	}
}

UNWATCHED uint64_t wake_clock(void)
{
	return atomic_load(&clock_now);
}

UNWATCHED bool mmu_woken_since(uintptr_t address, uint64_t time)
{
	size_t place = place_of(address);

	return atomic_load(&woken[place].under_way) > 0 || atomic_load(&woken[place].ended) > time;
}
