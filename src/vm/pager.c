/* SPDX-License-Identifier: MIT */
/*
 * pager.c - private copies on their way to the swap file and back (contract 2.8, S0.6, S3.4).
 *
 *   out   under views_lock, region->lock:  COPY pages become BUSY; slots are taken; protected
 *         no lock, a reference on the view: the bytes are written, from the view's own addresses
 *         under views_lock, region->lock:  zapped, SWAPPED; or COPY as before: nothing is lost
 *   in    under fault_lock:                charged; SWAPPED pages become BUSY
 *         no lock:                         read into a buffer
 *         under fault_lock:                mapped writable, COPY: the view alone owns them (I6)
 *
 * Between protection and zap no thread can write to the page, and readers see what is being
 * written; so what is in the slot is what the page had. Who faults at a BUSY page is parked at the
 * region. A page that is pinned, that a system call may be storing to past its protection, or whose
 * view is MKW_LOCKED stays.
 *
 * Only the reclaimer's thread swaps out. Should a page have been dropped behind the library's back
 * its write faults, at a BUSY page, for which that thread waits itself: that fault is refused, and
 * the write ends with EFAULT.
 */
#include "vm.h"

#include <errno.h>

/* What is near each other was perhaps written together: from here on a run that is read ahead does
 * not take more of the limit. */
#define AHEAD_PART 64u

void pager_put(struct space *s, uint32_t first, size_t count)
{
	if (swap_put(&s->swap, first, count))
		charge_wake(s);
}

/* ---- In ----------------------------------------------------------------------------------- */

/* How many pages from the fault's on can be read with it: in slots that follow each other. =>
 * fault_lock held. */
static size_t in_extent(const struct fault *f, const struct private_chunk *c)
{
	uint64_t limit = f->object->space->account.resident_limit;
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	size_t max = f->want < FILL_PAGES_MAX ? f->want : FILL_PAGES_MAX;

	if (limit != 0 && max > limit / AHEAD_PART)
		max = limit / AHEAD_PART;
	while (n < max && slot + n < REGION_PAGES &&
	       f->page + n < f->view->first + f->view->count &&
	       c->pages[slot + n].state == PRIVATE_SWAPPED &&
	       (c->pages[slot + n].flags & PRIVATE_BUSY) == 0 &&
	       c->pages[slot + n].slot == c->pages[slot].slot + n &&
	       !object_in_range_op(f->object, f->page + n))
		n++;
	return n;
}

/* Returns how many pages of the run are in the buffer now; 0: *error, and said. */
static size_t in_read(struct space *s, uint32_t first, size_t count, void *buffer, int *error)
{
	if (buffer == NULL) {
		*error = mkw_set_error(-ENOMEM, "no memory to read a page back into");
		return 0;
	}
	*error = swap_read(&s->swap, first, count, buffer);
	/* What was to be read ahead is not what was asked for. */
	if (*error != 0 && count > 1) {
		count = 1;
		*error = swap_read(&s->swap, first, count, buffer);
	}
	return *error == 0 ? count : 0;
}

/* Returns how many are the view's again. => fault_lock held. */
static size_t in_install(struct fault *f, struct private_chunk *c, size_t count, size_t read,
			 const void *buffer, int *error)
{
	struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1), done = 0;

	/* States and counts before the thread runs on and can ask for them. */
	for (size_t i = slot; i < slot + read; i++)
		private_change(r, c, i, PRIVATE_IN);
	COUNT(f->object, swap_ins, read);
	if (read > 0)
		*error = mmu_copy(&f->view->mmu, view_address(f->view, f->page), read << PAGE_SHIFT,
				  buffer, &done);
	done >>= PAGE_SHIFT;
	for (size_t i = slot; i < slot + count; i++) {
		private_unbusy(r, c, i);
		if (i < slot + done)
			c->pages[i].writer = f->tid;
		else if (i < slot + read)
			private_change(r, c, i, PRIVATE_OUT);
	}
	COUNT(f->object, swap_ins, done - read);
	c->referenced = true;
	waiters_wake(&r->waiters);
	return done;
}

enum step pager_in(struct fault *f)
{
	struct object *o = f->object;
	struct space *s = o->space;
	struct region *r = f->region;
	struct private_chunk *c = private_chunk(f->view, r);
	size_t slot = f->page & (REGION_PAGES - 1), count, read, done;
	uint32_t first = c->pages[slot].slot;
	void *buffer;
	int error;

	count = in_extent(f, c);
	if (!c->childs)
		count = charge_resident(o, count);
	if (count == 0)
		return private_no_room(f);
	for (size_t i = slot; i < slot + count; i++)
		private_busy(r, c, i);
	fault_unlock(f);

	atomic_fetch_add(&s->swapping_in, 1);
	buffer = slab_buffer(s);
	read = in_read(s, first, count, buffer, &error);
	fault_lock(f);
	done = in_install(f, c, count, read, buffer, &error);
	fault_unlock(f);
	if (buffer != NULL)
		slab_buffer_free(s, buffer);
	if (!c->childs)
		uncharge_resident(o, count - done);
	pager_put(s, first, done);
	atomic_fetch_sub(&s->swapping_in, 1);
	if (done > 0) {
		f->served = done;
		stream_done(f->view, f->page, done, f->access);
		return fault_is_pin(f) ? STEP_AGAIN : STEP_DONE; /* it is to be counted yet */
	}
	if (read > 0)
		mkw_set_error(error, "cannot map a page of the swap file: errno %d", -error);
	return error == -ENOMEM ? fault_answer(f, MKW_FAULT_OOM) : fault_refuse(f, error);
}

/* ---- Out ---------------------------------------------------------------------------------- */

struct out {
	struct pager_result *result;
	struct view *view; /* referenced */
	struct region *region;
	struct private_chunk *chunk;
	size_t from, to;    /* slots of the region that are the view's */
	size_t slot, count; /* the run that is BUSY */
	uint32_t first;	    /* of the slots of the swap file for it */
	size_t slots;	    /* so many: all, or the spare one for its first page */
	bool spare, protected, failed;
	bool missing; /* a page of it was not there any more */
};

static bool out_can_go(const struct out *out, size_t slot)
{
	const struct private_page *p = &out->chunk->pages[slot];

	return p->state == PRIVATE_COPY && (p->flags & PRIVATE_BUSY) == 0 && p->pins == 0 &&
	       !object_in_range_op(out->region->object, out->region->first + slot);
}

/* The next run from the hand on, before end. False: there is none. */
static bool out_find(struct out *out, size_t from, size_t end, size_t want)
{
	out->slot = from;
	while (out->slot < end && !out_can_go(out, out->slot))
		out->slot++;
	out->count = 0;
	while (out->count < want && out->slot + out->count < end &&
	       out_can_go(out, out->slot + out->count))
		out->count++;
	return out->count > 0;
}

static void out_failed(struct out *out, int error)
{
	out->failed = true;
	if (out->result->failed.error == 0)
		error_keep(&out->result->failed, error);
}

/* There is no room in the swap file for a page: but for who needs it most there is one slot. */
static bool out_take_spare(struct out *out)
{
	out->spare = out->result->urgent &&
		     swap_take_spare(&out->view->object->space->swap, &out->first);
	out->slots = out->spare ? 1 : 0;
	out->result->spared |= out->spare;
	return out->spare;
}

static bool out_take(struct out *out)
{
	int error;

	out->spare = false;
	out->slots = swap_take(&out->view->object->space->swap, out->count, &out->first, &error);
	if (out->slots == 0)
		out_failed(out, error);
	return out->slots > 0 || (error == -ENOSPC && out_take_spare(out));
}

/* Slots of the run from the nth on are not needed. => no lock held. */
static void out_give_back(struct out *out, size_t nth)
{
	struct space *s = out->view->object->space;

	if (out->spare && nth == 0)
		pager_put(s, out->first, 1);
	else if (!out->spare)
		swap_cancel(&s->swap, out->first + (uint32_t)nth, out->slots - nth);
}

/* Choose a run, make it BUSY, and protect it. False: there is none, or no room for it. =>
 * views_lock, region->lock held. */
static bool out_begin(struct out *out, size_t want)
{
	struct private_chunk *c = out->chunk;
	struct view *v = out->view;
	size_t hand = c->hand < out->from || c->hand >= out->to ? out->from : c->hand;
	int error;

	want = want < FILL_PAGES_MAX ? want : FILL_PAGES_MAX;
	if (!out_find(out, hand, out->to, want) && !out_find(out, out->from, hand, want))
		return false;
	if (!out_take(out))
		return false;
	out->count = out->slots;
	c->hand = (uint16_t)(out->slot + out->count);
	for (size_t i = out->slot; i < out->slot + out->count; i++)
		private_busy(out->region, c, i);
	error = mmu_protect(&v->mmu, view_address(v, out->region->first + out->slot),
			    out->count << PAGE_SHIFT);
	out->protected = error == 0;
	if (error != 0)
		out_failed(out,
			   mkw_set_error(error, "cannot protect a private page: errno %d", -error));
	return true;
}

/* The page at which writing ended was dropped behind the library's back: the view shows the
 * object's page, as it would if the kernel alone had been asked. => views_lock, region->lock held;
 * the run is BUSY. */
static bool out_lose(struct out *out, size_t nth)
{
	struct view *v = out->view;
	bool copied;

	if (!out->missing ||
	    mmu_copies(&v->mmu, view_address(v, out->region->first + out->slot + nth),
		       MKW_PAGE_SIZE, &copied) != 0 ||
	    copied)
		return false;
	private_change(out->region, out->chunk, out->slot + nth, PRIVATE_DROP);
	return true;
}

/* => views_lock, region->lock held. Of the run, written pages are in the swap file. Returns how
 * many of them are SWAPPED now. */
static size_t out_end(struct out *out, size_t written)
{
	struct view *v = out->view;
	struct region *r = out->region;

	if (written > 0 &&
	    mmu_zap(&v->mmu, view_address(v, r->first + out->slot), written << PAGE_SHIFT) != 0)
		written = 0;
	for (size_t i = 0; i < out->count; i++) {
		private_unbusy(r, out->chunk, out->slot + i);
		if (i < written) {
			private_change(r, out->chunk, out->slot + i, PRIVATE_OUT);
			out->chunk->pages[out->slot + i].slot = out->first + (uint32_t)i;
		}
	}
	waiters_wake(&r->waiters);
	return written;
}

/* Write the run, as far as no system call may be storing to it past its protection. Returns how
 * many pages were. => no lock held. */
static size_t out_write(struct out *out)
{
	uintptr_t address = view_address(out->view, out->region->first + out->slot);
	struct swap *swap = &out->view->object->space->swap;
	const void *bytes = (const void *)address;
	size_t quiet, written;
	int error;

	quiet = calls_quiet(address, &out->chunk->pages[out->slot], out->count);
	out->result->busy |= quiet < out->count;
	if (quiet == 0)
		return 0;
	written = swap_write(swap, out->first, quiet, bytes, &error);
	if (error == -ENOSPC && written == 0 && !out->spare) {
		out_failed(out, error);
		out_give_back(out, 0);
		if (out_take_spare(out))
			written = swap_write(swap, out->first, 1, bytes, &error);
	}
	out->missing = error == -EFAULT;
	if (error != 0 && !out->missing)
		out_failed(out, error);
	return written;
}

/* One run of at most want pages. False: there is none that can go. */
static bool out_run(struct out *out, size_t want, size_t *gone)
{
	struct object *o = out->view->object;
	size_t written;
	bool begun, lost;

	env_read_lock(&o->views_lock);
	env_lock(&out->region->lock);
	begun = out_begin(out, want);
	env_unlock(&out->region->lock);
	env_read_unlock(&o->views_lock);
	if (!begun)
		return false;
	out->missing = false;
	written = out->protected ? out_write(out) : 0;
	env_read_lock(&o->views_lock);
	env_lock(&out->region->lock);
	lost = out_lose(out, written);
	written = out_end(out, written);
	env_unlock(&out->region->lock);
	env_read_unlock(&o->views_lock);
	out_give_back(out, written);
	COUNT(o, swap_outs, written);
	uncharge_resident(o, written + lost);
	*gone += written + lost;
	return true;
}

/* Were its pages written to since reclaim last came by? Whoever does from now on is seen to. */
static bool out_sample(struct out *out)
{
	struct object *o = out->view->object;
	bool referenced;

	env_read_lock(&o->views_lock);
	env_lock(&out->region->lock);
	referenced = out->chunk->referenced;
	out->chunk->referenced = false;
	for (size_t from = out->from, to; referenced && from < out->to; from = to + 1) {
		to = private_unpinned(out->chunk, from, out->to);
		if (to > from)
			mmu_protect(&out->view->mmu,
				    view_address(out->view, out->region->first + from),
				    (to - from) << PAGE_SHIFT);
	}
	env_unlock(&out->region->lock);
	env_read_unlock(&o->views_lock);
	return referenced;
}

/* What the view has in slots [from, to) of the region. */
static size_t out_view(struct view *v, struct region *r, size_t from, size_t to, size_t want,
		       bool hard, struct pager_result *result)
{
	struct out out = {.result = result, .view = v, .region = r, .from = from, .to = to};
	size_t gone = 0, looked = 0;

	env_lock(&r->lock);
	out.chunk = private_chunk(v, r);
	env_unlock(&r->lock);
	if (out.chunk == NULL || (!hard && out_sample(&out)))
		return 0;
	/* What stays all the same must not be looked at for ever. */
	while (gone < want && looked < to - from && !out.failed &&
	       out_run(&out, want - gone, &gone))
		looked += out.count;
	return gone;
}

/* ---- For reclaim -------------------------------------------------------------------------- */

#define VIEWS_AT_A_TIME 16

/* Reference those private views of the region that may have something to swap out. One that is
 * being unmapped gives all of it back soon. => no lock held. */
static size_t views_collect(struct region *r, struct view **views)
{
	struct object *o = r->object;
	size_t n = 0, from, to;

	env_read_lock(&o->views_lock);
	env_lock(&r->lock);
	for (struct list *l = o->views.next; l != &o->views && n < VIEWS_AT_A_TIME; l = l->next) {
		struct view *v = container_of(l, struct view, link);

		if (v->private != NULL && !v->locked && v->child == NULL &&
		    private_clip(v, r, r->first, REGION_PAGES, &from, &to) &&
		    private_chunk(v, r) != NULL && private_chunk(v, r)->charged > 0 &&
		    view_try_get(v))
			views[n++] = v;
	}
	env_unlock(&r->lock);
	env_read_unlock(&o->views_lock);
	return n;
}

size_t pager_out_region(struct region *r, size_t want, bool hard, struct pager_result *result)
{
	struct view *views[VIEWS_AT_A_TIME];
	size_t count, from, to, gone = 0;

	if (r->object->space->swap.file == NULL)
		return 0;
	count = views_collect(r, views);
	for (size_t i = 0; i < count; i++) {
		if (gone < want && private_clip(views[i], r, r->first, REGION_PAGES, &from, &to))
			gone += out_view(views[i], r, from, to, want - gone, hard, result);
		view_put(views[i]);
	}
	return gone;
}

/* ---- On request --------------------------------------------------------------------------- */

struct pager_request {
	struct sleeper sleeper; /* its waiter is in space->pager_requests */
	struct view *view;
	uint64_t first, count;
};

void pager_out(struct view *v, uint64_t first, uint64_t count)
{
	struct space *s = v->object->space;
	struct pager_request request = {.view = v, .first = first, .count = count};

	if (s->swap.file == NULL)
		return;
	sleeper_init(&request.sleeper);
	env_lock(&s->charge_lock);
	list_push_back(&s->pager_requests, &request.sleeper.waiter.link);
	env_unlock(&s->charge_lock);
	reclaimer_kick(s);
	sleeper_sleep(&request.sleeper);
	sleeper_destroy(&request.sleeper);
}

static void request_serve(struct pager_request *request, struct pager_result *result)
{
	struct view *v = request->view;
	struct region *r;
	uint64_t next = request->first, end = request->first + request->count;

	while (next < end && (r = region_next(v->object, next)) != NULL) {
		size_t from, to, freed;

		next = r->first + REGION_PAGES;
		if (private_clip(v, r, request->first, request->count, &from, &to)) {
			env_read_lock(&v->object->views_lock);
			env_lock(&r->lock);
			freed = private_take_back(v, r);
			env_unlock(&r->lock);
			env_read_unlock(&v->object->views_lock);
			uncharge_resident(v->object, freed);
			out_view(v, r, from, to, to - from, true, result);
		}
		region_put(r);
	}
}

void pager_serve(struct space *s, struct pager_result *result)
{
	for (;;) {
		struct pager_request *request;
		struct list *node;

		env_lock(&s->charge_lock);
		node = list_pop(&s->pager_requests);
		env_unlock(&s->charge_lock);
		if (node == NULL)
			return;
		request = container_of(node, struct pager_request, sleeper.waiter.link);
		request_serve(request, result);
		env_lock(&s->charge_lock);
		request->sleeper.waiter.wake(&request->sleeper.waiter);
		env_unlock(&s->charge_lock);
	}
}
