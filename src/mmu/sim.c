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
static uint64_t protections; /* changes of what mappings allow, each before and after */

void sim_reset(void)
{
	for (unsigned i = 0; i < SIM_VIEWS_MAX; i++)
		sim_views[i].used = false;
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
		n += sim_views[i].used;
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

/* Mapped or not. */
static struct sim_view *stretch_at(uintptr_t address)
{
	for (unsigned i = 0; i < SIM_VIEWS_MAX; i++)
		if (sim_views[i].used && address - sim_views[i].at.address < sim_views[i].at.length)
			return &sim_views[i];
	return NULL;
}

static size_t page_of(const struct sim_view *v, uintptr_t address)
{
	return (address - v->at.address) / MKW_PAGE_SIZE;
}

struct sim_view *sim_view_at(uintptr_t address)
{
	struct sim_view *v = stretch_at(address);

	return v != NULL && v->mapped[page_of(v, address)] ? v : NULL;
}

struct sim_view *sim_view_of(const struct mmu_view *view)
{
	struct sim_view *v = sim_view_at(view->address);

	if (v == NULL || v->at.mmu != view->mmu || v->at.frames != view->frames ||
	    v->frame[page_of(v, view->address)] != view->offset / MKW_PAGE_SIZE)
		sim_host_fail("an operation on a view that is not mapped");
	return v;
}

const struct frames *sim_frames_of(uintptr_t address)
{
	const struct sim_view *v = sim_view_at(address);

	return v != NULL ? v->at.frames : NULL;
}

uint64_t sim_page_of(uintptr_t address)
{
	const struct sim_view *v = sim_view_at(address);

	return v != NULL ? v->frame[page_of(v, address)] : 0;
}

/* The first index of an address range, checked. */
static size_t stretch_index(const struct sim_view *v, uintptr_t address, size_t length)
{
	uintptr_t offset = address - v->at.address;

	if (address % MKW_PAGE_SIZE != 0 || length % MKW_PAGE_SIZE != 0 || length == 0 ||
	    offset >= v->at.length || length > v->at.length - offset)
		sim_host_fail("an operation on a range that is not the view's");
	return offset / MKW_PAGE_SIZE;
}

size_t sim_index(const struct sim_view *v, uintptr_t address, size_t length)
{
	size_t first = stretch_index(v, address, length);

	for (size_t i = first; i < first + length / MKW_PAGE_SIZE; i++)
		if (!v->mapped[i])
			sim_host_fail("an operation on a page that is not mapped");
	return first;
}

uint64_t sim_protections(void)
{
	return protections;
}

void sim_flush(struct sim_view *v, size_t from, size_t count)
{
	for (unsigned cpu = 0; cpu < SIM_CPUS; cpu++)
		memset(&v->cached[cpu][from], SIM_NONE, count);
}

/* ---- Mapping ------------------------------------------------------------------------------ */

/* The lowest address that is free: what is mapped after an unmapping takes its place. */
static uintptr_t address_find(size_t length)
{
	uintptr_t address = BASE;

	for (unsigned i = 0; i < SIM_VIEWS_MAX; i++) {
		const struct mmu_view *at = &sim_views[i].at;

		if (!sim_views[i].used || at->address >= address + length ||
		    address >= at->address + at->length)
			continue;
		address = at->address + at->length + MKW_PAGE_SIZE;
		i = UINT32_MAX; /* from the first again */
	}
	return address;
}

static struct sim_view *stretch_make(uintptr_t address, size_t length)
{
	for (unsigned i = 0; i < SIM_VIEWS_MAX && length / MKW_PAGE_SIZE <= SIM_PAGES_MAX; i++) {
		struct sim_view *v = &sim_views[i];

		if (v->used)
			continue;
		v->used = true;
		v->pages = length / MKW_PAGE_SIZE;
		v->at = (struct mmu_view){.address = address, .length = length};
		memset(v->taken, false, sizeof(v->taken));
		memset(v->mapped, false, sizeof(v->mapped));
		return v;
	}
	return NULL;
}

static void stretch_end(struct sim_view *v)
{
	if (memchr(v->mapped, true, v->pages) == NULL && memchr(v->taken, true, v->pages) == NULL)
		v->used = false;
}

/* Behind a mapping there is room for one page, if for any. */
static struct sim_view *stretch_grow(uintptr_t address, size_t length)
{
	struct sim_view *v = address != 0 ? stretch_at(address - MKW_PAGE_SIZE) : NULL;

	for (uintptr_t at = address; at < address + length; at += MKW_PAGE_SIZE)
		if (stretch_at(at) != NULL)
			return NULL;
	if (v == NULL || v->at.address + v->at.length != address || length > MKW_PAGE_SIZE ||
	    v->pages + length / MKW_PAGE_SIZE > SIM_PAGES_MAX)
		return NULL;
	memset(&v->mapped[v->pages], false, length / MKW_PAGE_SIZE);
	v->at.length += length;
	v->pages += length / MKW_PAGE_SIZE;
	return v;
}

int mmu_place_take(uintptr_t *address, size_t length)
{
	struct sim_view *v;

	sim_host_point("takes a place", *address);
	if (*address != 0) {
		v = stretch_grow(*address, length);
		if (v == NULL)
			return -EEXIST;
	} else {
		*address = address_find(length);
		v = stretch_make(*address, length);
		if (v == NULL)
			return -ENOMEM;
	}
	memset(&v->taken[page_of(v, *address)], true, length / MKW_PAGE_SIZE);
	return 0;
}

void mmu_place_give(uintptr_t address, size_t length)
{
	struct sim_view *v = stretch_at(address);

	sim_host_point("gives a place back", address);
	if (v == NULL)
		sim_host_fail("a place is given back that was not taken");
	memset(&v->taken[stretch_index(v, address, length)], false, length / MKW_PAGE_SIZE);
	stretch_end(v);
}

/* The first mapping of a stretch says what it is. */
static int stretch_begin(struct sim_view *v, const struct mmu_view *view)
{
	if (v->at.mmu == NULL) {
		uintptr_t address = v->at.address;
		size_t length = v->at.length;

		if (sim_private_make(v, view->private) != 0)
			return -ENOMEM;
		v->at = *view;
		v->at.address = address;
		v->at.length = length;
	}
	if (v->at.mmu != view->mmu || v->at.frames != view->frames ||
	    v->at.private != view->private)
		sim_host_fail("a place gets two kinds of views");
	return 0;
}

static void pages_map(struct sim_view *v, size_t from, size_t count, uint64_t frame)
{
	last_serial++;
	for (size_t i = from; i < from + count; i++) {
		v->taken[i] = false;
		v->mapped[i] = true;
		v->allowed[i] = 0;
		v->frame[i] = (uint32_t)(frame + i - from);
		v->serial[i] = last_serial;
		v->entries[i] = SIM_NONE;
		v->copied[i] = v->let[i] = false;
	}
	sim_flush(v, from, count);
}

/* To a place that was taken, or over closed pages, which show something else from then on. */
static struct sim_view *place_of(uintptr_t address, size_t length)
{
	struct sim_view *v = stretch_at(address);
	size_t first;

	if (v == NULL)
		sim_host_fail("a view is mapped where there is no place for it");
	first = stretch_index(v, address, length);
	for (size_t i = first; i < first + length / MKW_PAGE_SIZE; i++)
		if (!v->taken[i] && (!v->mapped[i] || v->allowed[i] != 0))
			sim_host_fail("pages that are not closed are mapped over");
	return v;
}

int mmu_view_map(struct mmu_view *view)
{
	struct sim_view *v;

	sim_host_point("maps a view", view->address);
	sim_count_call(view);
	if (view->address != 0) {
		v = place_of(view->address, view->length);
	} else {
		view->address = address_find(view->length);
		v = stretch_make(view->address, view->length);
	}
	if (v == NULL)
		return -ENOMEM;
	if (stretch_begin(v, view) != 0) {
		stretch_end(v);
		return -ENOMEM;
	}
	pages_map(v, page_of(v, view->address), view->length / MKW_PAGE_SIZE,
		  view->offset / MKW_PAGE_SIZE);
	return 0;
}

/* What an entry lets through stays as it is: the mapping's protection comes before it. */
int mmu_view_protect(struct mmu_view *view, uintptr_t address, size_t length, bool readable,
		     bool writable)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_host_point("changes the protection of the view", address);
	sim_count_call(view);
	sim_copiers_wait(v);
	protections++;
	memset(&v->allowed[first], (readable ? MKW_READ : 0) | (writable ? MKW_WRITE : 0), count);
	sim_host_point("flushes the view", address);
	sim_flush(v, first, count);
	protections++;
	return 0;
}

int mmu_view_open(struct mmu_view *view)
{
	return mmu_view_protect(view, view->address, view->length, view->readable, view->writable);
}

/* One page of a private view goes to its new place, its entry as it is but for its protection,
 * which Linux would lose. */
static void page_move(struct sim_view *from, size_t i, struct sim_view *to, size_t k)
{
	if (from->copied[i])
		memcpy(to->copies + k * MKW_PAGE_SIZE, from->copies + i * MKW_PAGE_SIZE,
		       MKW_PAGE_SIZE);
	to->copied[k] = from->copied[i];
	to->copy[k] = from->copy[i];
	to->entries[k] = from->entries[i] == SIM_RW ? SIM_RO : from->entries[i];
	to->serial[k] = from->serial[i];
	from->mapped[i] = from->copied[i] = from->let[i] = false;
	from->entries[i] = SIM_NONE;
}

int mmu_view_move(struct mmu_view *view, uintptr_t address, size_t length, uintptr_t to)
{
	struct sim_view *v = sim_view_of(view), *place = place_of(to, length);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_host_point("moves the view", address);
	sim_count_call(view);
	sim_copiers_wait(v);
	if (stretch_begin(place, view) != 0)
		return -ENOMEM;
	for (size_t i = first; i < first + count; i++)
		if (v->allowed[i] != 0)
			sim_host_fail("pages that are not closed are moved");
	pages_map(place, page_of(place, to), count, v->frame[first]);
	for (size_t i = 0; i < count; i++)
		page_move(v, first + i, place, page_of(place, to) + i);
	sim_flush(v, first, count);
	stretch_end(v);
	sim_host_point("has moved the view", to);
	mmu_wake(view, address, length);
	return 0;
}

void mmu_view_cut(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_view_of(view);
	size_t first = sim_index(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_host_point("unmaps pages", address);
	sim_copiers_wait(v);
	/* Who faults from here on finds no mapping. */
	memset(&v->allowed[first], 0, count);
	memset(&v->entries[first], SIM_NONE, count);
	sim_host_point("flushes the pages", address);
	sim_flush(v, first, count);
	memset(&v->mapped[first], false, count);
	stretch_end(v);
	mmu_wake(view, address, length);
}

void mmu_view_unmap(struct mmu_view *view)
{
	mmu_view_cut(view, view->address, view->length);
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

int mmu_let_rw(struct mmu_view *view, uintptr_t address, size_t length)
{
	return mmu_map_rw(view, address, length);
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
		if (sim_views[n].used && sim_views[n].at.frames == f)
			sim_lose(&sim_views[n], from, to);
	sim_host_point("flushes page", from);
	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++)
		for (size_t i = 0; sim_views[n].used && i < sim_views[n].pages; i++)
			if (sim_views[n].at.frames == f && sim_views[n].mapped[i] &&
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

/* What the view shows of the page, from index i on; false: nothing more. */
static bool find_frame(const struct sim_view *v, const struct frames *f, uint64_t page, size_t *i)
{
	if (!v->used || v->at.private || v->at.frames != f)
		return false;
	while (*i < v->pages && (!v->mapped[*i] || v->frame[*i] != page))
		++*i;
	return *i < v->pages;
}

enum sim_entry sim_strongest(const struct frames *f, uint64_t page, bool caches)
{
	uint8_t strongest = SIM_NONE;

	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++) {
		const struct sim_view *v = &sim_views[n];

		for (size_t i = 0; find_frame(v, f, page, &i); i++) {
			uint8_t entry = v->entries[i];

			if (entry == SIM_RW && (v->allowed[i] & MKW_WRITE) == 0)
				entry = SIM_RO;
			if (entry > strongest)
				strongest = entry;
			for (unsigned cpu = 0; caches && cpu < SIM_CPUS; cpu++)
				if (v->cached[cpu][i] > strongest)
					strongest = v->cached[cpu][i];
		}
	}
	return strongest;
}

bool sim_unarmed(const struct frames *f, uint64_t page)
{
	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++) {
		const struct sim_view *v = &sim_views[n];

		for (size_t i = 0; find_frame(v, f, page, &i); i++)
			if ((v->allowed[i] & MKW_WRITE) != 0 && v->entries[i] == SIM_NONE)
				return true;
	}
	return false;
}
