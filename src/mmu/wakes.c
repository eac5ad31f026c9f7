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
 *
 * A child that inherits views has refusals made by the process that serves them, and looks at that
 * process's wakes: each process has a table of its own, shared with its children, and children find
 * it in a place of their own, whose number is part of a report's time. In a child's table only who
 * owns it may be under way: another could be killed there, and would be for ever.
 */
#include "machine.h"

#include <errno.h>
#include <sys/mman.h>

#define PLACES	   16384u
#define TABLES	   64u
#define TIME_SHIFT 56 /* of a report's time: below it the time, above it the table */

/* TSan takes a lock of its own around an atomic access, and holds it while a program's atomic
 * access to a view waits for the very wake that is counted here. */
#define UNWATCHED __attribute__((no_sanitize("thread")))

struct wakes {
	_Atomic uint64_t clock;
	struct {
		_Atomic uint64_t ended; /* when the last wake did */
		_Atomic uint32_t under_way;
	} woken[PLACES];
};

static struct wakes *_Atomic tables[TABLES]; /* 0: this process's own */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

int wakes_create(void)
{
	int err = 0;

	machine_lock(&making);
	if (!tables[0]) {
		void *p = mmap(NULL, sizeof(struct wakes), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			err = -errno;
		else
			atomic_store(&tables[0], p);
	}
	machine_unlock(&making);
	return err;
}

struct wakes *wakes_get(unsigned table)
{
	return atomic_load(&tables[table]);
}

void wakes_abandon(void)
{
	for (unsigned i = 0; i < TABLES; i++)
		atomic_store(&tables[i], NULL);
	pthread_mutex_init(&making, NULL);
}

unsigned wakes_inherit(struct wakes *wakes)
{
	for (unsigned i = 1; i < TABLES; i++)
		if (!atomic_load(&tables[i])) {
			atomic_store(&tables[i], wakes);
			return i;
		}
	return 0;
}

void wakes_forget(unsigned table)
{
	atomic_store(&tables[table], NULL);
}

uint64_t wakes_time(unsigned table, uint64_t time)
{
	return (uint64_t)table << TIME_SHIFT | time;
}

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
	struct wakes *w = tables[0];

	if (view->backend == MMU_INLINE || view->mmu->wakes > 0)
		return; /* nobody waits there; or the table is another process's */
	for (size_t i = 0; i < places_in(length); i++)
		atomic_fetch_add(&w->woken[place_of(address + i * MKW_PAGE_SIZE)].under_way, 1);
}

UNWATCHED void wake_end(const struct mmu_view *view, uintptr_t address, size_t length)
{
	struct wakes *w = tables[view->mmu->wakes];
	uint64_t now;

	if (view->backend == MMU_INLINE || !w)
		return;
	now = atomic_fetch_add(&w->clock, 1) + 1;
	for (size_t i = 0; i < places_in(length); i++) {
		size_t place = place_of(address + i * MKW_PAGE_SIZE);
		uint64_t before = atomic_load(&w->woken[place].ended);

		while (before < now &&
		       !atomic_compare_exchange_weak(&w->woken[place].ended, &before, now))
			;
		if (view->mmu->wakes == 0)
			atomic_fetch_sub(&w->woken[place].under_way, 1);
	}
}

UNWATCHED uint64_t wake_clock(void)
{
	return atomic_load(&tables[0]->clock);
}

UNWATCHED bool mmu_woken_since(uintptr_t address, uint64_t time)
{
	bool plain = time == UINT64_MAX;
	const struct wakes *w = tables[plain ? 0 : time >> TIME_SHIFT];
	size_t place = place_of(address);

	if (!w)
		return false;
	if (!plain)
		time &= ((uint64_t)1 << TIME_SHIFT) - 1;
	return atomic_load(&w->woken[place].under_way) > 0 ||
	       atomic_load(&w->woken[place].ended) > time;
}
