/* SPDX-License-Identifier: MIT */
/*
 * fill.c - bringing absent pages in (contract 2.2, 2.3).
 *
 * The store fills a staging buffer, never a frame: a frame appears complete or not at all, so that
 * no view can show half of a page. While the store works the pages are ABSENT and locked. A read
 * maps them in the same call that makes the frames; a write leaves them unmapped, because it will
 * be notified and then mapped writable at once: one fault, no intermediate read-only entry (2.3).
 */
#include "vm.h"

#include <errno.h>
#include <string.h>

/* How many pages from the fault's on can be filled with it. => fault_lock held. */
static size_t fill_extent(const struct fault *f)
{
	const struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	uint64_t end = object_pages(f->object);
	size_t max = f->want < FILL_PAGES_MAX ? f->want : FILL_PAGES_MAX;

	while (n < max && slot + n < REGION_PAGES && f->page + n < end &&
	       r->pages[slot + n].state == PAGE_ABSENT &&
	       (r->pages[slot + n].flags & PAGE_LOCKED) == 0 &&
	       !object_in_range_op(f->object, f->page + n) &&
	       (f->view == NULL || (f->page + n < f->view->first + f->view->count &&
				    private_shows_base(f->view, r, slot + n))))
		n++;
	return n;
}

/* Ask the store; the answer is checked, and bytes past the end are zero whatever it did. */
static mkw_fault_t fill_ask(struct fault *f, struct mkw_run *run, char *buffer)
{
	struct object *o = f->object;
	const uint64_t first = run->first;
	const size_t count = run->count;
	mkw_fault_t code = op_fault(o, f, run, buffer);
	uint64_t start = first << PAGE_SHIFT, size = o->size_bytes, length;

	if ((code & ~MKW_FAULT_MAJOR & ~MKW_FAULT_LOCKED) != 0)
		return code;
	if (run->first != first || run->count == 0 || run->count > count) {
		mkw_set_error(-EIO, "the store changed the run it was to fill in a wrong way");
		return MKW_FAULT_SIGBUS;
	}
	length = (uint64_t)run->count << PAGE_SHIFT;
	if ((run->flags & MKW_RUN_HOLE) != 0)
		memset(buffer, 0, length);
	else if (start + length > size)
		memset(buffer + (size > start ? size - start : 0), 0,
		       length - (size > start ? size - start : 0));
	return code;
}

/* In the same call that makes the frames. In a private view that would make copies. */
static bool fill_maps(const struct fault *f)
{
	return f->access == MMU_READ && (f->kind == FAULT_EVENT || f->kind == FAULT_INLINE) &&
	       f->view->private == NULL;
}

/* Make the frames. => fault_lock held. Returns how many pages exist now. */
static size_t fill_install(struct fault *f, size_t count, const char *buffer, int *error)
{
	struct object *o = f->object;
	bool map = fill_maps(f);
	size_t slot = f->page & (REGION_PAGES - 1), done = 0;

	*error = views_arm(f->region, slot, count);
	if (*error != 0)
		return 0;
	if (map) {
		*error = mmu_fill(&f->view->mmu, view_address(f->view, f->page),
				  count << PAGE_SHIFT, buffer, &done);
		return done >> PAGE_SHIFT;
	}
	*error = frames_fill(o->frames, f->page << PAGE_SHIFT, count << PAGE_SHIFT, buffer);
	if (*error == 0)
		return count;
	/* None of it, then: half a run is no use to anybody. */
	frames_drop(o->frames, f->page << PAGE_SHIFT, count << PAGE_SHIFT);
	memset(f->region->unarmed, 0xff, sizeof(f->region->unarmed));
	return 0;
}

/* The pages' locks go, whatever came of them. */
static void fill_end(struct fault *f, size_t count, size_t done, bool hole)
{
	struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1);

	for (size_t i = 0; i < count; i++) {
		page_unlock(r, slot + i);
		if (i >= done)
			continue;
		page_change(r, slot + i, PAGE_FILL);
		if (hole)
			r->pages[slot + i].flags |= PAGE_HOLE;
	}
	waiters_wake(&r->waiters);
}

static enum step fill_settle(struct fault *f, size_t count, const struct mkw_run *run,
			     mkw_fault_t code, const char *buffer)
{
	struct object *o = f->object;
	size_t made = 0, done = 0;
	int error = 0;

	code &= ~MKW_FAULT_MAJOR;
	/* Counts and streams before the thread runs on and can ask for them. */
	if (code == 0 || code == MKW_FAULT_LOCKED) {
		made = run->count;
		COUNT(o, pages_filled, made);
		if (f->view != NULL && f->access == MMU_READ)
			stream_done(f->view, f->page, made, MMU_READ);
	}
	fault_lock(f);
	if (made > 0)
		done = fill_install(f, made, buffer, &error);
	fill_end(f, count, done, (run->flags & MKW_RUN_HOLE) != 0);
	fault_unlock(f);
	uncharge_resident(o, count - done);
	if (done < made)
		COUNT(o, pages_filled, done - made);
	if (done > 0) {
		f->tries = 0;
		f->served = done;
		return fill_maps(f) || f->kind == FAULT_FILL ? STEP_DONE : STEP_AGAIN;
	}
	if (error == -ENOENT) /* its page is no view's any more: somebody has unmapped it */
		return STEP_DROPPED;
	if (error != 0) {
		mkw_set_error(error, "no memory for a page: errno %d", -error);
		return error == -ENOMEM ? fault_answer(f, MKW_FAULT_OOM) : fault_refuse(f, error);
	}
	return fault_answer(f, code);
}

enum step fault_fill(struct fault *f)
{
	struct object *o = f->object;
	struct space *s = o->space;
	struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1);
	size_t want = fill_extent(f), count;
	struct vm_run vr; /* its region stays NULL: mkw_run_* know a fill by that */
	mkw_fault_t code;
	enum step step;
	char *buffer;

	count = charge_resident(o, want);
	if (count == 0) {
		fault_unlock(f);
		if (fault_may_not_wait_for_room(f))
			return fault_refuse(f, -EDEADLK);
		return charge_resident_park(f);
	}
	for (size_t i = 0; i < count; i++)
		page_lock(r, slot + i);
	r->referenced = true;
	fault_unlock(f);

	vr = (struct vm_run){
		.run = {.object = &o->public,
			.first = f->page,
			.count = count,
			.page = f->page,
			.flags = fault_is_notified(f) ? MKW_RUN_WRITE : 0},
	};
	buffer = slab_buffer(s);
	code = buffer == NULL ? MKW_FAULT_OOM : fill_ask(f, &vr.run, buffer);
	step = fill_settle(f, count, &vr.run, code, buffer);
	/* A parked fault is somebody else's by now, and its object may be gone. */
	if (buffer != NULL)
		slab_buffer_free(s, buffer);
	return step;
}
