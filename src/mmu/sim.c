/* SPDX-License-Identifier: MIT */
/*
 * sim.c - the simulated machine: mmu.h with page tables and translation caches as arrays.
 *
 * It is as unhelpful as the real one may be: each page of a call is a step of its own; between the
 * change of an entry and the flush of the caches others run; markers are lost in every drop; a
 * queued refusal reaches its thread at its next access, wherever that is.
 *
 *   entry    a read                        a write
 *   NONE     maps RW (RO: no PROT_WRITE)   maps RW          where the frame exists;
 *   MARKER   maps RO                       reported         where not: reported
 *   RO       goes on                       reported
 *   RW       goes on                       goes on
 *
 * Private views are different: sim_private.c.
 */
#include "sim_machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FRAMES_MAX 8
#define BASE	   ((uintptr_t)0x10000000)

struct sim_view sim_views[SIM_VIEWS_MAX];
static struct frames all_frames[FRAMES_MAX];
static uint64_t last_serial;

void sim_reset(void)
{
	for (unsigned i = 0; i < SIM_VIEWS_MAX; i++)
		sim_views[i].view = NULL;
	for (unsigned i = 0; i < FRAMES_MAX; i++)
		all_frames[i].used = false;
	last_serial = 0;
	sim_threads_reset();
	sim_swap_reset();
}

unsigned sim_live(void)
{
	unsigned n = sim_machines() + sim_swap_is_open();

	for (unsigned i = 0; i < SIM_VIEWS_MAX; i++)
		n += sim_views[i].view != NULL;
	for (unsigned i = 0; i < FRAMES_MAX; i++)
		n += all_frames[i].used;
	return n;
}

/* ---- Frames ------------------------------------------------------------------------------- */

int frames_create(struct frames **frames)
{
	for (unsigned i = 0; i < FRAMES_MAX; i++) {
		struct frames *f = &all_frames[i];

		if (f->used)
			continue;
		if (f->bytes == NULL) {
			f->bytes = mmap(NULL, SIM_PAGES_MAX * MKW_PAGE_SIZE, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			if (f->bytes == MAP_FAILED)
				return -ENOMEM;
		}
		memset(f->exists, 0, sizeof(f->exists));
		f->drop_from = f->drop_to = 0;
		f->top = 0;
		f->used = true;
		*frames = f;
		return 0;
	}
	return -ENOMEM;
}

void frames_destroy(struct frames *f)
{
	f->used = false;
}

static void frame_make(struct frames *f, uint64_t page, const void *src)
{
	if (page >= SIM_PAGES_MAX)
		sim_host_fail("a frame beyond what is simulated");
	if (f->exists[page])
		sim_host_fail("page %llu is filled although its frame exists",
			      (unsigned long long)page);
	if (src != NULL)
		memcpy(f->bytes + page * MKW_PAGE_SIZE, src, MKW_PAGE_SIZE);
	else
		memset(f->bytes + page * MKW_PAGE_SIZE, 0, MKW_PAGE_SIZE);
	f->exists[page] = true;
	f->born[page]++;
	if (page >= f->top)
		f->top = page + 1;
}

int frames_fill(struct frames *f, uint64_t offset, size_t length, const void *src)
{
	for (size_t at = 0; at < length; at += MKW_PAGE_SIZE) {
		sim_host_point("makes frame of page", (offset + at) / MKW_PAGE_SIZE);
		frame_make(f, (offset + at) / MKW_PAGE_SIZE,
			   src != NULL ? (const char *)src + at : NULL);
	}
	return 0;
}

void *frames_data(struct frames *f, uint64_t offset, size_t length)
{
	for (uint64_t page = offset / MKW_PAGE_SIZE; page * MKW_PAGE_SIZE < offset + length; page++)
		if (page >= SIM_PAGES_MAX || !f->exists[page])
			sim_host_fail("the library looks at page %llu, which has no frame",
				      (unsigned long long)page);
	return f->bytes + offset;
}

bool sim_frame_exists(const struct frames *f, uint64_t page)
{
	return page < SIM_PAGES_MAX && f->exists[page];
}

/* ---- Views -------------------------------------------------------------------------------- */

struct sim_view *sim_view_at(uintptr_t address)
{
	for (unsigned i = 0; i < SIM_VIEWS_MAX; i++)
		if (sim_views[i].view != NULL &&
		    address - sim_views[i].view->address < sim_views[i].view->length)
			return &sim_views[i];
	return NULL;
}

struct sim_view *sim_view_of(const struct mmu_view *view)
{
	struct sim_view *v = sim_view_at(view->address);

	if (v == NULL || v->view != view)
		sim_host_fail("an operation on a view that is not mapped");
	return v;
}

const struct frames *sim_frames_of(uintptr_t address)
{
	const struct sim_view *v = sim_view_at(address);

	return v != NULL ? v->view->frames : NULL;
}

/* The first index into entries of an address range, checked. */
size_t sim_index(const struct sim_view *v, uintptr_t address, size_t length)
{
	uintptr_t offset = address - v->view->address;

	if (address % MKW_PAGE_SIZE != 0 || length % MKW_PAGE_SIZE != 0 || length == 0 ||
	    offset >= v->view->length || length > v->view->length - offset)
		sim_host_fail("an operation on a range that is not the view's");
	return offset / MKW_PAGE_SIZE;
}

void sim_flush(struct sim_view *v, size_t from, size_t count)
{
	for (unsigned cpu = 0; cpu < SIM_CPUS; cpu++)
		memset(&v->cached[cpu][from], SIM_NONE, count);
}

/* The lowest address that is free: what is mapped after an unmapping takes its place. */
static uintptr_t address_find(size_t length)
{
	uintptr_t address = BASE;

	for (unsigned i = 0; i < SIM_VIEWS_MAX; i++) {
		if (sim_views[i].view == NULL || sim_views[i].view->address >= address + length ||
		    address >= sim_views[i].view->address + sim_views[i].view->length)
			continue;
		address = sim_views[i].view->address + sim_views[i].view->length + MKW_PAGE_SIZE;
		i = UINT32_MAX; /* from the first again */
	}
	return address;
}

int mmu_view_map(struct mmu_view *view)
{
	size_t pages = view->length / MKW_PAGE_SIZE;

	sim_host_point("maps a view", 0);
	for (unsigned i = 0; i < SIM_VIEWS_MAX && pages <= SIM_PAGES_MAX; i++) {
		struct sim_view *v = &sim_views[i];

		if (v->view != NULL)
			continue;
		view->address = address_find(view->length);
		if (sim_private_map(v, view->private) != 0)
			return -ENOMEM;
		v->open = false;
		v->pages = pages;
		memset(v->entries, SIM_NONE, pages);
		sim_flush(v, 0, pages);
		v->view = view;
		v->serial = ++last_serial;
		sim_count_call(view);
		return 0;
	}
	return -ENOMEM;
}

int mmu_view_open(struct mmu_view *view)
{
	sim_host_point("opens the view", view->address);
	sim_view_of(view)->open = true;
	return 0;
}

void mmu_view_unmap(struct mmu_view *view)
{
	struct sim_view *v = sim_view_of(view);

	sim_host_point("unmaps the view", view->address);
	while (view->private && v->copiers > 0)
		sim_host_wait("waits for a copy under way", &v->copiers);
	v->open = false; /* who faults from here on finds no mapping */
	memset(v->entries, SIM_NONE, v->pages);
	sim_host_point("flushes the view", view->address);
	sim_flush(v, 0, v->pages);
	v->view = NULL;
	mmu_wake(view, view->address, view->length);
}

/* ---- Operations on entries ---------------------------------------------------------------- */

int mmu_fill(struct mmu_view *view, uintptr_t address, size_t length, const void *src, size_t *done)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length);

	sim_count_call(view);
	sim_wake_begin(view, address, length);
	for (*done = 0; *done < length; *done += MKW_PAGE_SIZE) {
		size_t i = first + *done / MKW_PAGE_SIZE;

		sim_host_point("fills and maps read-only", address + *done);
		frame_make(view->frames, sim_frame_of(v, i), (const char *)src + *done);
		v->entries[i] = SIM_RO;
		sim_wake_threads(view, address + *done, MKW_PAGE_SIZE);
	}
	sim_wake_end(view, address, length);
	return 0;
}

int mmu_map_ro(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_count_call(view);
	sim_wake_begin(view, address, length);
	for (size_t i = first; i < first + count; i++) {
		sim_host_point("maps read-only", sim_address_of(v, i));
		sim_entries_wait(v, i, 1);
		if (v->entries[i] <= SIM_MARKER &&
		    sim_frame_exists(view->frames, sim_frame_of(v, i)))
			v->entries[i] = SIM_RO;
		sim_wake_threads(view, sim_address_of(v, i), MKW_PAGE_SIZE);
	}
	sim_wake_end(view, address, length);
	return 0;
}

int mmu_map_rw(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	if (!view->writable || view->private)
		sim_host_fail("a page of a read-only or private view is mapped writable");
	sim_count_call(view);
	sim_wake_begin(view, address, length);
	for (size_t i = first; i < first + count; i++) {
		sim_host_point("maps writable", sim_address_of(v, i));
		if (!sim_frame_exists(view->frames, sim_frame_of(v, i)))
			sim_host_fail("page %llu is mapped writable and has no frame",
				      (unsigned long long)sim_frame_of(v, i));
		v->entries[i] = SIM_RW;
		sim_wake_threads(view, sim_address_of(v, i), MKW_PAGE_SIZE);
	}
	sim_wake_end(view, address, length);
	return 0;
}

int mmu_protect(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_count_call(view);
	sim_host_point("write-protects", address);
	sim_entries_wait(v, first, count);
	for (size_t i = first; i < first + count; i++) {
		if (v->entries[i] == SIM_NONE)
			v->entries[i] = SIM_MARKER;
		else if (v->entries[i] == SIM_RW)
			v->entries[i] = SIM_RO;
		v->let[i] = false;
	}
	sim_host_point("flushes", address);
	sim_flush(v, first, count);
	return 0;
}

int mmu_zap(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_count_call(view);
	sim_host_point("zaps", address);
	sim_entries_wait(v, first, count);
	for (size_t i = first; i < first + count; i++)
		v->entries[i] = v->entries[i] == SIM_NONE || v->entries[i] == SIM_RW || v->let[i]
					? SIM_NONE
					: SIM_MARKER;
	for (size_t i = first; i < first + count; i++)
		v->copied[i] = v->let[i] = false;
	sim_host_point("flushes", address);
	sim_flush(v, first, count);
	return 0;
}

int frames_drop(struct frames *f, uint64_t offset, uint64_t length)
{
	uint64_t from = offset / MKW_PAGE_SIZE, to = (offset + length) / MKW_PAGE_SIZE;

	sim_host_point("drops the frame of page", from);
	f->drop_from = from;
	f->drop_to = to;
	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++)
		if (sim_views[n].view != NULL && sim_views[n].view->frames == f)
			sim_lose(&sim_views[n], from, to);
	sim_host_point("flushes page", from);
	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++)
		for (size_t i = 0; sim_views[n].view != NULL && i < sim_views[n].pages; i++)
			if (sim_views[n].view->frames == f &&
			    sim_frame_of(&sim_views[n], i) - from < to - from)
				sim_flush(&sim_views[n], i, 1);
	for (uint64_t page = from; page < to && page < f->top; page++)
		f->exists[page] = false;
	f->drop_to = f->drop_from = 0;
	sim_host_wake(f, true);
	return 0;
}

int mmu_present(struct mmu_view *view, uintptr_t address, size_t length, bool *present)
{
	const struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length);

	sim_host_point("looks what is mapped", address);
	sim_entries_wait(v, first, length / MKW_PAGE_SIZE);
	for (size_t i = 0; i < length / MKW_PAGE_SIZE; i++)
		present[i] = v->entries[first + i] >= SIM_RO;
	return 0;
}

/* ---- For checks --------------------------------------------------------------------------- */

enum sim_entry sim_strongest(const struct frames *f, uint64_t page, bool caches)
{
	uint8_t strongest = SIM_NONE;

	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++) {
		const struct sim_view *v = &sim_views[n];
		size_t i;

		if (v->view == NULL || v->view->private || v->view->frames != f ||
		    page < sim_frame_of(v, 0) || page - sim_frame_of(v, 0) >= v->pages)
			continue;
		i = page - sim_frame_of(v, 0);
		if (v->entries[i] > strongest)
			strongest = v->entries[i];
		for (unsigned cpu = 0; caches && cpu < SIM_CPUS; cpu++)
			if (v->cached[cpu][i] > strongest)
				strongest = v->cached[cpu][i];
	}
	return strongest;
}

bool sim_unarmed(const struct frames *f, uint64_t page)
{
	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++) {
		const struct sim_view *v = &sim_views[n];

		if (v->view != NULL && v->open && v->view->writable && !v->view->private &&
		    v->view->frames == f && page - sim_frame_of(v, 0) < v->pages &&
		    v->entries[page - sim_frame_of(v, 0)] == SIM_NONE)
			return true;
	}
	return false;
}
