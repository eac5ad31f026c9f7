/* SPDX-License-Identifier: MIT */
/*
 * sim_private.c - the simulated machine: private views, and the copy on write that it makes itself.
 *
 *   entry         a read      a write
 *   NONE, MARKER  reported    reported
 *   RO, a frame   goes on     reported; if let: the machine copies, and the access is tried again
 *   RO, a copy    goes on     reported
 *   RW, a copy    goes on     goes on
 *
 * As in Linux (wp_page_copy) a copy is made in steps, between which others run: the bytes are
 * taken; the entry is compared, its lock taken and the entry cleared; the caches are flushed and
 * the copy takes its place. Who reads meanwhile meets a cleared entry, or what it has cached. An
 * entry that is another than the one whose bytes were taken, or shows another frame, stays as it
 * is. Calls on an entry wait for its lock, unmapping for copies under way.
 */
#include "sim_machine.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t last_copy;

int sim_private_make(struct sim_view *v, bool private)
{
	if (private && v->copies == NULL) {
		v->copies = mmap(NULL, SIM_PAGES_MAX * MKW_PAGE_SIZE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (v->copies == MAP_FAILED) {
			v->copies = NULL;
			return -ENOMEM;
		}
	}
	memset(v->held, 0, sizeof(v->held));
	v->copiers = 0;
	return 0;
}

void sim_copiers_wait(const struct sim_view *v)
{
	while (v->at.private && v->copiers > 0)
		sim_host_wait("waits for a copy under way", &v->copiers);
}

void sim_entries_wait(const struct sim_view *v, size_t from, size_t count)
{
	while (v->at.private && memchr(&v->held[from], true, count) != NULL)
		sim_host_wait("waits for the lock of an entry", v->held);
}

void sim_lose(struct sim_view *v, uint64_t from, uint64_t to)
{
	sim_entries_wait(v, 0, v->pages);
	for (size_t i = 0; i < v->pages; i++) {
		if (!v->mapped[i] || v->copied[i] || sim_frame_of(v, i) - from >= to - from)
			continue;
		v->entries[i] = SIM_NONE;
		v->let[i] = false;
	}
}

static char *copy_of(const struct sim_view *v, size_t i)
{
	return v->copies + i * MKW_PAGE_SIZE;
}

static bool is_base(const struct sim_view *v, size_t i)
{
	return v->entries[i] == SIM_RO && !v->copied[i];
}

/* ---- What the machine does by itself ------------------------------------------------------ */

/* The entry is a frame that may be copied. */
static void copy_on_write(struct sim_view *v, size_t i)
{
	struct frames *f = v->at.frames;
	uint64_t frame = sim_frame_of(v, i);
	uint32_t born = f->born[frame];
	char bytes[MKW_PAGE_SIZE];

	v->copiers++;
	sim_host_point("takes the bytes of a frame to copy", sim_address_of(v, i));
	memcpy(bytes, f->bytes + frame * MKW_PAGE_SIZE, MKW_PAGE_SIZE);
	/* Of one that went the copier has the last reference. */
	if (f->exists[frame] && f->born[frame] == born)
		sim_host_taken(sim_address_of(v, i), bytes);
	sim_host_point("clears the entry to copy", sim_address_of(v, i));
	sim_entries_wait(v, i, 1);
	if (is_base(v, i) && v->let[i] && f->born[frame] == born) {
		v->held[i] = true;
		v->entries[i] = SIM_NONE;
		sim_host_point("flushes and installs the copy", sim_address_of(v, i));
		sim_flush(v, i, 1);
		memcpy(copy_of(v, i), bytes, MKW_PAGE_SIZE);
		v->copied[i] = true;
		v->copy[i] = ++last_copy;
		v->let[i] = false;
		v->entries[i] = SIM_RW;
		v->held[i] = false;
		sim_host_copied(sim_address_of(v, i), bytes, true);
		sim_host_wake(v->held, true);
	}
	v->copiers--;
	sim_host_wake(&v->copiers, true);
}

enum sim_entry sim_private_walk(struct sim_view *v, size_t i, enum mmu_access access, bool *again)
{
	*again = false;
	if (v->entries[i] <= SIM_MARKER)
		return SIM_NONE;
	if (access == MMU_READ || v->entries[i] == SIM_RW)
		return (enum sim_entry)v->entries[i];
	if (v->copied[i] || !v->let[i])
		return SIM_NONE;
	copy_on_write(v, i);
	*again = true;
	return SIM_NONE;
}

bool sim_toss(uintptr_t address)
{
	struct sim_view *v;
	bool copied;
	size_t i;

	sim_host_point("drops the page behind the library's back", address);
	v = sim_view_at(address);
	if (v == NULL || !v->at.private)
		return false;
	i = sim_index(v, address, MKW_PAGE_SIZE);
	sim_entries_wait(v, i, 1);
	copied = v->copied[i];
	v->entries[i] = SIM_NONE;
	v->copied[i] = v->let[i] = false;
	sim_flush(v, i, 1);
	return copied;
}

void sim_shake(const struct frames *f)
{
	sim_host_point("takes frames from private views", 0);
	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++) {
		struct sim_view *v = &sim_views[n];

		if (!v->used || !v->at.private || v->at.frames != f)
			continue;
		sim_entries_wait(v, 0, v->pages);
		for (size_t i = 0; i < v->pages; i++) {
			if (!is_base(v, i))
				continue;
			v->entries[i] = v->let[i] ? SIM_NONE : SIM_MARKER;
			v->let[i] = false;
			sim_flush(v, i, 1);
		}
	}
}

/* ---- Operations --------------------------------------------------------------------------- */

bool mmu_can_map_base(const struct mmu_view *view)
{
	(void)view;
	return true;
}

int mmu_copy(struct mmu_view *view, uintptr_t address, size_t length, const void *src, size_t *done)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length);

	sim_count_call(view);
	sim_wake_begin(view, address, length);
	for (*done = 0; *done < length; *done += MKW_PAGE_SIZE) {
		size_t i = first + *done / MKW_PAGE_SIZE;

		sim_host_point("makes a copy", address + *done);
		sim_entries_wait(v, i, 1);
		if (v->entries[i] > SIM_MARKER)
			break;
		memcpy(copy_of(v, i), (const char *)src + *done, MKW_PAGE_SIZE);
		v->copied[i] = true;
		v->copy[i] = ++last_copy;
		v->entries[i] = SIM_RW;
		sim_host_copied(address + *done, copy_of(v, i), false);
		sim_wake_threads(view, address + *done, MKW_PAGE_SIZE);
	}
	sim_wake_end(view, address, length);
	return *done == length ? 0 : -EEXIST;
}

/* Writes to what is mapped are not reported any more. */
static void unprotect(struct sim_view *v, size_t from, size_t count)
{
	sim_host_point("lifts the protection", sim_address_of(v, from));
	sim_entries_wait(v, from, count);
	for (size_t i = from; i < from + count; i++) {
		if (v->entries[i] == SIM_MARKER)
			v->entries[i] = SIM_NONE;
		else if (v->entries[i] == SIM_RO && v->copied[i])
			v->entries[i] = SIM_RW;
		else if (v->entries[i] == SIM_RO)
			v->let[i] = true;
	}
}

int mmu_let_copy(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_count_call(view);
	sim_wake_begin(view, address, length);
	unprotect(v, first, count);
	for (size_t i = first; i < first + count; i++) {
		sim_host_point("maps a frame to be copied", sim_address_of(v, i));
		sim_entries_wait(v, i, 1);
		if (v->entries[i] <= SIM_MARKER &&
		    sim_frame_exists(view->frames, sim_frame_of(v, i))) {
			v->entries[i] = SIM_RO;
			v->let[i] = true;
		}
		sim_wake_threads(view, sim_address_of(v, i), MKW_PAGE_SIZE);
	}
	sim_wake_end(view, address, length);
	return 0;
}

int mmu_let_write(struct mmu_view *view, uintptr_t address, size_t length, bool *there)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_count_call(view);
	sim_wake_begin(view, address, length);
	unprotect(v, first, count);
	sim_host_point("looks whether the copy is there", address);
	sim_entries_wait(v, first, 1);
	*there = v->entries[first] > SIM_MARKER;
	sim_wake_threads(view, address, length);
	sim_wake_end(view, address, length);
	return 0;
}

int mmu_copies(struct mmu_view *view, uintptr_t address, size_t length, bool *copied)
{
	const struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length);

	sim_host_point("looks what is copied", address);
	sim_entries_wait(v, first, length / MKW_PAGE_SIZE);
	for (size_t i = 0; i < length / MKW_PAGE_SIZE; i++) {
		if (v->entries[first + i] == SIM_RW || v->let[first + i])
			sim_host_fail("a page is looked at that is not protected");
		copied[i] = v->copied[first + i];
	}
	return 0;
}

/* ---- For checks --------------------------------------------------------------------------- */

struct sim_private sim_private_of(uintptr_t address)
{
	const struct sim_view *v = sim_view_at(address);
	struct sim_private p = {0};
	size_t i;

	if (v == NULL || !v->at.private)
		return p;
	i = (address - v->at.address) / MKW_PAGE_SIZE;
	p.entry = (enum sim_entry)v->entries[i];
	for (unsigned cpu = 0; cpu < SIM_CPUS; cpu++)
		if (v->cached[cpu][i] > p.entry)
			p.entry = (enum sim_entry)v->cached[cpu][i];
	p.let = v->let[i];
	p.copy = v->copied[i] ? copy_of(v, i) : NULL;
	return p;
}

uint64_t sim_serial_of(uintptr_t address)
{
	const struct sim_view *v = sim_view_at(address);

	return v != NULL && v->at.private ? v->serial[(address - v->at.address) / MKW_PAGE_SIZE]
					  : 0;
}
