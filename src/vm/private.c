/* SPDX-License-Identifier: MIT */
/*
 * private.c - private views: pages that a view has for itself (contract 2.6).
 *
 * A private view shows the object's pages until it writes to them; the machine then copies by
 * itself. What is decided here is which pages it may copy: a first write is reported, the copy is
 * charged as a resident page, and then let go (GRANTED). Each further write of a region that is
 * reported is let go with more of its neighbours, twice as many as the time before: what writes
 * here and there pays for a few pages too many, what writes all of it for a few faults. A stream is
 * copied ahead of instead, at half of the price that the machine's own copies have. Grants that
 * nobody used are found and taken back when the room is needed. No store is asked for any of this.
 *
 *   a fault   NONE, read       the object's page is mapped, a write to it will be reported
 *             NONE, write      charged, GRANTED, let go; of a stream: COPY
 *             GRANTED          the object's page had been dropped: filled, and let go again
 *             COPY             reclaim had looked which pages are copies: let go again
 *
 * States: page.c. Locks: all of a chunk is guarded by the lock of the object's region for the same
 * pages, as are these; so what a fault sees of both is of one moment.
 */
#include "vm.h"

#include <assert.h>
#include <errno.h>

/* Of the resident limit a grant takes at most this part, so that a few threads do not take all of
 * it for pages that they may never write. */
#define WINDOW_PART 64u

/* From this run on a stream is believed. */
#define STREAM_PAGES 16u

/* ---- Chunks ------------------------------------------------------------------------------- */

static size_t private_bytes(size_t regions)
{
	return sizeof(struct private) + regions * sizeof(struct private_chunk *);
}

struct private *private_new(uint64_t first, uint64_t count)
{
	uint64_t first_region = first >> REGION_SHIFT;
	size_t regions = (size_t)(((first + count - 1) >> REGION_SHIFT) - first_region + 1);
	struct private *p = env_alloc(private_bytes(regions));

	if (p == NULL)
		return NULL;
	p->refs = 1;
	p->first_region = first_region;
	p->regions = regions;
	return p;
}

static struct private_chunk **private_place(const struct view *v, const struct region *r)
{
	return &v->private->chunks[(r->first >> REGION_SHIFT) - v->private->first_region];
}

struct private_chunk *private_chunk(const struct view *v, const struct region *r)
{
	return *private_place(v, r);
}

/* => region->lock held. NULL: no memory. */
static struct private_chunk *private_chunk_make(const struct view *v, const struct region *r)
{
	struct private_chunk **place = private_place(v, r);

	if (*place != NULL)
		return *place;
	*place = slab_private(v->object->space);
	/* Not again later: it is looked at without the lock, too. */
	if (*place != NULL)
		(*place)->childs = v->child != NULL;
	return *place;
}

static enum private_state private_state(const struct view *v, const struct region *r, size_t slot)
{
	const struct private_chunk *c = private_chunk(v, r);

	return c == NULL ? PRIVATE_NONE : (enum private_state)c->pages[slot].state;
}

static bool private_is_busy(const struct view *v, const struct region *r, size_t slot)
{
	const struct private_chunk *c = private_chunk(v, r);

	return c != NULL && (c->pages[slot].flags & PRIVATE_BUSY) != 0;
}

bool private_shows_base(const struct view *v, const struct region *r, size_t slot)
{
	return v->private == NULL ||
	       (private_state(v, r, slot) <= PRIVATE_GRANTED && !private_is_busy(v, r, slot));
}

/* ---- Faults ------------------------------------------------------------------------------- */

static bool private_is_stream(const struct fault *f)
{
	return f->access == MMU_WRITE && f->want >= STREAM_PAGES;
}

/* How many pages from the fault's on can be let go with it. Only those that are as it is: to go
 * over what is mapped already costs more than another fault. => fault_lock held. */
static size_t private_extent(const struct fault *f, const struct private_chunk *c)
{
	const struct view *v = f->view;
	const struct region *r = f->region;
	uint64_t limit = f->object->space->account.resident_limit;
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	size_t max = f->want > c->window ? f->want : c->window;

	if (private_is_stream(f))
		max = f->want < FILL_PAGES_MAX ? f->want : FILL_PAGES_MAX;
	if (limit != 0 && max > limit / WINDOW_PART)
		max = limit / WINDOW_PART;
	while (n < max && slot + n < REGION_PAGES && f->page + n < v->first + v->count &&
	       r->pages[slot + n].state != PAGE_ABSENT &&
	       !object_in_range_op(f->object, f->page + n) &&
	       c->pages[slot + n].state == c->pages[slot].state && !private_is_busy(v, r, slot + n))
		n++;
	return n;
}

/* Charge those of the n pages that are not charged yet. Returns for how many of them there was
 * room; from the first on, without a gap. */
static size_t private_charge(struct fault *f, const struct private_chunk *c, size_t n)
{
	size_t slot = f->page & (REGION_PAGES - 1), fresh = 0, room, i;

	if (c->childs)
		return n;
	for (i = 0; i < n; i++)
		fresh += c->pages[slot + i].state == PRIVATE_NONE;
	room = f->room;
	if (fresh > room)
		room += charge_private(f->object, fresh - room);
	f->room = room > fresh ? room - fresh : 0;
	for (i = 0; i < n; i++) {
		if (c->pages[slot + i].state != PRIVATE_NONE)
			continue;
		if (room == 0)
			break;
		room--;
	}
	return i;
}

enum step private_no_room(struct fault *f)
{
	fault_unlock(f);
	if (fault_may_not_wait_for_room(f))
		return fault_refuse(f, -EDEADLK);
	return charge_resident_park(f);
}

/* There is no room for a copy, while the object's page is there. If that is all that can go, room
 * comes of it for nothing but to have it back: private_fill. => fault_lock held, dropped. */
static enum step private_no_copy(struct fault *f)
{
	f->lacked = true;
	fault_waiter(f)->grows = true;
	return private_no_room(f);
}

static enum step private_failed(struct fault *f, int error)
{
	mkw_set_error(error, "cannot let a private page be written: errno %d", -error);
	return error == -ENOMEM ? fault_answer(f, MKW_FAULT_OOM) : fault_refuse(f, error);
}

/* A stream of writes is copied ahead of: that saves the machine a fault for each page. Returns how
 * many pages are copies now; where something is mapped already it stops. */
static size_t private_copy_ahead(const struct fault *f, size_t n)
{
	size_t done = 0;
	void *bytes;

	if (!private_is_stream(f))
		return 0;
	bytes = frames_data(f->object->frames, f->page << PAGE_SHIFT, n << PAGE_SHIFT);
	if (bytes != NULL)
		mmu_copy(&f->view->mmu, view_address(f->view, f->page), n << PAGE_SHIFT, bytes,
			 &done);
	return done >> PAGE_SHIFT;
}

/* The object's page is resident. => fault_lock held, dropped. */
static enum step private_grant(struct fault *f)
{
	struct view *v = f->view;
	struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1), n;
	struct private_chunk *c = private_chunk_make(v, r);
	size_t copied;
	int error = 0;

	if (c == NULL) {
		fault_unlock(f);
		return private_failed(f, -ENOMEM);
	}
	n = private_charge(f, c, private_extent(f, c));
	if (n == 0)
		return private_no_copy(f);
	copied = private_copy_ahead(f, n);
	for (size_t i = 0; i < n; i++) {
		private_change(r, c, slot + i, i < copied ? PRIVATE_OWN : PRIVATE_GRANT);
		c->pages[slot + i].writer = f->tid;
	}
	if (f->access == MMU_WRITE)
		c->window = c->window == 0 ? 2 : c->window * 2;
	if (c->window > REGION_PAGES)
		c->window = REGION_PAGES;
	c->referenced = true;
	r->referenced = true;
	f->served = n;
	/* If it fails the pages stay GRANTED: some may have been copied by now. */
	if (copied < n)
		error = mmu_let_copy(&v->mmu, view_address(v, f->page + copied),
				     (n - copied) << PAGE_SHIFT);
	fault_unlock(f);
	if (error != 0)
		return private_failed(f, error);
	stream_done(v, f->page, n, f->access);
	return STEP_DONE;
}

/* A copy is gone without anybody having said so: the view shows the object's page, as it would if
 * the kernel alone had been asked. => fault_lock held, dropped. */
static enum step private_lost(struct fault *f, struct private_chunk *c)
{
	size_t charged = c->childs ? 0 : 1;

	private_change(f->region, c, f->page & (REGION_PAGES - 1), PRIVATE_DROP);
	fault_unlock(f);
	uncharge_resident(f->object, charged);
	space_log(f->object->space, MKW_LOG_WARNING,
		  "a private page at %p was dropped behind the library's back; use mkw_advise",
		  (void *)f->address);
	return STEP_AGAIN;
}

/* A write to a copy was reported, or the copy is not there any more. => fault_lock held, dropped.
 */
static enum step private_let_write(struct fault *f, struct private_chunk *c)
{
	struct view *v = f->view;
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	bool there = true;
	int error;

	while (slot + n < REGION_PAGES && f->page + n < v->first + v->count &&
	       c->pages[slot + n].state == PRIVATE_COPY &&
	       (c->pages[slot + n].flags & PRIVATE_BUSY) == 0)
		n++;
	c->referenced = true;
	f->served = n;
	if (f->kind == FAULT_FILL) {
		fault_unlock(f);
		return STEP_DONE;
	}
	for (size_t i = slot; i < slot + n; i++)
		c->pages[i].writer = f->tid;
	error = mmu_let_write(&v->mmu, view_address(v, f->page), n << PAGE_SHIFT, &there);
	if (error == 0 && !there)
		return private_lost(f, c);
	fault_unlock(f);
	return error == 0 ? STEP_DONE : private_failed(f, error);
}

/* The object's page is absent. If there was no room for the copy, that comes first: else the page
 * would take the only room there is, be evicted to make some, and so on for ever. => fault_lock
 * held, dropped. */
static enum step private_fill(struct fault *f)
{
	if (f->lacked && f->room == 0) {
		f->room = charge_private_of_pair(f->object);
		if (f->room == 0) {
			fault_waiter(f)->grows = fault_waiter(f)->pair = true;
			return private_no_room(f);
		}
	}
	return fault_fill(f);
}

/* ---- Pins --------------------------------------------------------------------------------- */

/* How many pages from the fault's on can be made copies with it. => fault_lock held. */
static size_t own_extent(const struct fault *f, const struct private_chunk *c)
{
	const struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	size_t max = f->want < FILL_PAGES_MAX ? f->want : FILL_PAGES_MAX;

	while (n < max && slot + n < REGION_PAGES && r->pages[slot + n].state != PAGE_ABSENT &&
	       !object_in_range_op(f->object, f->page + n) &&
	       c->pages[slot + n].state <= PRIVATE_GRANTED &&
	       !private_is_busy(f->view, r, slot + n))
		n++;
	return n;
}

/* Of n charged pages, make those copies that are none. Returns how many are copies now, from the
 * first on. Nobody maps anything meanwhile: to them it is one step. => fault_lock held. */
static size_t own_copy(const struct fault *f, size_t n, int *error)
{
	struct mmu_view *mmu = &f->view->mmu;
	uintptr_t address = view_address(f->view, f->page);
	bool copied[REGION_PAGES];
	size_t i = 0;

	*error = mmu_protect(mmu, address, n << PAGE_SHIFT);
	if (*error == 0)
		*error = mmu_copies(mmu, address, n << PAGE_SHIFT, copied);
	while (*error == 0 && i < n) {
		size_t from = i, done = 0;
		uintptr_t at = address + (from << PAGE_SHIFT);
		void *bytes;

		while (i < n && !copied[i])
			i++;
		if (i == from) {
			i++;
			continue;
		}
		bytes = frames_data(f->object->frames, (f->page + from) << PAGE_SHIFT,
				    (i - from) << PAGE_SHIFT);
		*error = bytes == NULL ? -ENOMEM : mmu_zap(mmu, at, (i - from) << PAGE_SHIFT);
		if (*error == 0)
			*error = mmu_copy(mmu, at, (i - from) << PAGE_SHIFT, bytes, &done);
		if (*error != 0)
			i = from + (done >> PAGE_SHIFT);
	}
	return i;
}

/* A pin wants copies. The object's page is resident. => fault_lock held, dropped. */
static enum step private_own(struct fault *f)
{
	struct view *v = f->view;
	struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1), n, done, back = 0;
	struct private_chunk *c = private_chunk_make(v, r);
	int error;

	if (c == NULL) {
		fault_unlock(f);
		return private_failed(f, -ENOMEM);
	}
	n = private_charge(f, c, own_extent(f, c));
	if (n == 0)
		return private_no_copy(f);
	done = own_copy(f, n, &error);
	for (size_t i = 0; i < n; i++) {
		if (i < done) {
			bool fresh = c->pages[slot + i].state == PRIVATE_NONE;

			private_change(r, c, slot + i, PRIVATE_OWN);
			if (fresh)
				c->pages[slot + i].writer = 0;
		} else {
			back += c->pages[slot + i].state == PRIVATE_NONE;
		}
	}
	r->referenced = true;
	fault_unlock(f);
	uncharge_resident(f->object, back);
	return done > 0 ? STEP_AGAIN : private_failed(f, error);
}

/* The page is a copy: it and those behind it are counted. => fault_lock held, dropped. */
static enum step private_pin_copies(struct fault *f, struct private_chunk *c)
{
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	bool there = true;
	int error;

	while (n < f->want && slot + n < REGION_PAGES && c->pages[slot + n].state == PRIVATE_COPY &&
	       !private_is_busy(f->view, f->region, slot + n))
		n++;
	n = fault_pin(f, slot, n);
	if (n == 0)
		return fault_cannot_pin(f);
	c->referenced = true;
	f->served = n;
	error = mmu_let_write(&f->view->mmu, view_address(f->view, f->page), n << PAGE_SHIFT,
			      &there);
	if (error != 0 || !there)
		fault_pin_undo(f, n);
	if (error == 0 && !there)
		return private_lost(f, c);
	fault_unlock(f);
	return error == 0 ? STEP_DONE : private_failed(f, error);
}

/* ---- Looking ------------------------------------------------------------------------------ */

enum step private_look(struct fault *f)
{
	struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1);
	enum private_state state = private_state(f->view, r, slot);

	if (private_is_busy(f->view, r, slot)) {
		if (!fault_is_of_room_makers(f))
			return fault_park_region(f);
		fault_unlock(f);
		return fault_refuse(f, -EDEADLK);
	}
	fault_waiter(f)->grows = fault_waiter(f)->pair = false;
	if (state == PRIVATE_SWAPPED)
		return pager_in(f);
	if (state == PRIVATE_COPY && fault_is_pin(f))
		return private_pin_copies(f, private_chunk(f->view, r));
	if (state == PRIVATE_COPY)
		return private_let_write(f, private_chunk(f->view, r));
	if (r->pages[slot].state == PAGE_ABSENT)
		return (r->pages[slot].flags & PAGE_LOCKED) != 0 ? fault_park_region(f)
								 : private_fill(f);
	if (fault_is_pin(f))
		return private_own(f);
	if (f->kind == FAULT_FILL ||
	    (f->access == MMU_READ && state == PRIVATE_NONE && mmu_can_map_base(&f->view->mmu)))
		return fault_read(f);
	return private_grant(f);
}

/* ---- Giving up ---------------------------------------------------------------------------- */

/* What goes back when locks are gone: charged pages, and slots of the swap file. */
struct dropped {
	size_t uncharged, count;
	uint32_t slots[REGION_PAGES];
};

/* => region->lock held. */
static void chunk_drop(struct region *r, struct private_chunk *c, size_t from, size_t to,
		       struct dropped *dropped)
{
	uint32_t charged = c->charged;

	for (size_t i = from; i < to; i++) {
		if (c->pages[i].state == PRIVATE_SWAPPED)
			dropped->slots[dropped->count++] = c->pages[i].slot;
		if (c->pages[i].state != PRIVATE_NONE)
			private_change(r, c, i, PRIVATE_DROP);
	}
	if (!c->childs)
		dropped->uncharged += charged - c->charged;
}

/* => no lock held. */
static void dropped_give_back(struct object *o, struct dropped *dropped)
{
	uncharge_resident(o, dropped->uncharged);
	for (size_t i = 0, n; i < dropped->count; i += n) {
		for (n = 1;
		     i + n < dropped->count && dropped->slots[i + n] == dropped->slots[i] + n;)
			n++;
		pager_put(o->space, dropped->slots[i], n);
	}
	dropped->uncharged = dropped->count = 0;
}

/* => region->lock held. */
static bool chunk_is_busy(const struct private_chunk *c, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if ((c->pages[i].flags & PRIVATE_BUSY) != 0)
			return true;
	return false;
}

bool private_clip(const struct view *v, const struct region *r, uint64_t first, uint64_t count,
		  size_t *from, size_t *to)
{
	uint64_t end = first + count, view_end = v->first + v->count;

	first = first > v->first ? first : v->first;
	first = first > r->first ? first : r->first;
	end = end < view_end ? end : view_end;
	end = end < r->first + REGION_PAGES ? end : r->first + REGION_PAGES;
	if (first >= end)
		return false;
	*from = (size_t)(first - r->first);
	*to = (size_t)(end - r->first);
	return true;
}

/* => views_lock, region->lock held. False: somebody is at one of them, nothing was done. */
static bool view_drop(struct view *v, struct region *r, uint64_t first, uint64_t count,
		      bool pinned_too, struct dropped *dropped)
{
	struct private_chunk *c;
	size_t from, to;

	if (!private_clip(v, r, first, count, &from, &to))
		return true;
	c = private_chunk(v, r);
	if (c == NULL)
		return true;
	if (chunk_is_busy(c, from, to))
		return false;
	for (size_t i = from; i < to;) {
		size_t start = i;

		while (i < to && (pinned_too || c->pages[i].pins == 0))
			i++;
		if (i > start) {
			view_zap_pages(v, r->first + start, i - start);
			chunk_drop(r, c, start, i, dropped);
		} else {
			i++;
		}
	}
	return true;
}

/* Views in turn, until one had slots to give back or all had theirs. only: NULL is all private
 * views of the object, and what is pinned as well. False: somebody is at a page. => views_lock,
 * region->lock held. */
static bool region_drop_some(struct region *r, struct view *only, uint64_t first, uint64_t count,
			     struct dropped *dropped)
{
	struct object *o = r->object;
	bool done = true;

	for (struct list *n = o->views.next; n != &o->views && dropped->count == 0; n = n->next) {
		struct view *v = container_of(n, struct view, link);
		if (v->private != NULL && (only == NULL || v == only))
			done &= view_drop(v, r, first, count, only == NULL, dropped);
	}
	return done;
}

static void region_drop(struct region *r, struct view *only, uint64_t first, uint64_t count)
{
	struct object *o = r->object;
	struct dropped dropped = {.count = 0};
	struct sleeper sleeper;
	bool done, again = true;

	sleeper_init(&sleeper);
	while (again) {
		env_read_lock(&o->views_lock);
		env_lock(&r->lock);
		done = region_drop_some(r, only, first, count, &dropped);
		again = !done || dropped.count > 0;
		if (dropped.count == 0 && !done)
			list_push_back(&r->waiters, &sleeper.waiter.link);
		env_unlock(&r->lock);
		env_read_unlock(&o->views_lock);
		if (dropped.count == 0 && !done)
			sleeper_sleep(&sleeper);
		dropped_give_back(o, &dropped);
	}
	sleeper_destroy(&sleeper);
}

static void object_drop_private(struct object *o, struct view *only, uint64_t first, uint64_t count)
{
	struct region *r;
	uint64_t next = first;

	while (next - first < count && (r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		region_drop(r, only, first, count);
		region_put(r);
		if (next <= first)
			break;
	}
}

void private_drop(struct view *v, uint64_t first, uint64_t count)
{
	object_drop_private(v->object, v, first, count);
}

void private_truncate(struct object *o, uint64_t first)
{
	atomic_fetch_add(&o->cuts, 1);
	object_drop_private(o, NULL, first, OBJECT_PAGES_MAX - first);
	children_cut(o, first);
}

void private_forget(struct view *v, uint64_t first, uint64_t count)
{
	struct region *r;
	uint64_t next = first, end = first + count;

	if (v->private == NULL)
		return;
	while (next < end && (r = region_next(v->object, next)) != NULL) {
		struct dropped dropped = {.count = 0};
		size_t from, to;

		next = r->first + REGION_PAGES;
		env_lock(&r->lock);
		if (private_clip(v, r, first, count, &from, &to) && private_chunk(v, r) != NULL)
			chunk_drop(r, private_chunk(v, r), from, to, &dropped);
		env_unlock(&r->lock);
		dropped_give_back(v->object, &dropped);
		region_put(r);
	}
}

void private_unref(struct space *s, struct private *p)
{
	if (atomic_fetch_sub(&p->refs, 1) > 1)
		return;
	for (size_t i = 0; i < p->regions; i++)
		if (p->chunks[i] != NULL)
			slab_private_free(s, p->chunks[i]);
	env_free(p, private_bytes(p->regions));
}

void private_put(struct view *v)
{
	struct private *p = v->private;

	if (p == NULL)
		return;
	private_unref(v->object->space, p);
}

/* ---- Children ----------------------------------------------------------------------------- */

/* => region->lock held. */
static int region_fork(const struct view *v, const struct private_chunk *from,
		       struct private_chunk *to, struct region *r)
{
	struct swap *swap = &v->object->space->swap;
	size_t slot, end;

	if (!private_clip(v, r, v->first, v->count, &slot, &end))
		return 0;
	for (; slot < end; slot++) {
		int error = 0;

		if (from->pages[slot].state == PRIVATE_SWAPPED)
			error = swap_get(swap, from->pages[slot].slot);
		if (error != 0)
			return error;
		private_inherit(r, from, to, slot);
	}
	return 0;
}

/*
 * The kernel has both copy what either writes to; which pages are whose own is the same for both
 * at first. One that is being swapped out is in the child as it was; one that is being read back
 * is not there yet, and the child reads it for itself.
 */
struct private *private_fork(const struct view *v)
{
	struct view copy = {.object = v->object, .first = v->first, .count = v->count};
	uint64_t next = v->first, end = v->first + v->count;
	struct region *r;
	int error = 0;

	copy.private = private_new(v->first, v->count);
	if (copy.private == NULL)
		return NULL;
	while (error == 0 && next < end && (r = region_next(v->object, next)) != NULL) {
		const struct private_chunk *from;
		struct private_chunk *to;

		next = r->first + REGION_PAGES;
		env_lock(&r->lock);
		from = r->first < end ? private_chunk(v, r) : NULL;
		if (from != NULL) {
			to = private_chunk_make(&copy, r);
			error = to == NULL ? -ENOMEM : 0;
			if (to != NULL) {
				to->childs = true;
				error = region_fork(v, from, to, r);
			}
		}
		env_unlock(&r->lock);
		region_put(r);
	}
	if (error == 0)
		return copy.private;
	private_forget(&copy, v->first, v->count);
	private_put(&copy);
	return NULL;
}

/* ---- Taking back -------------------------------------------------------------------------- */

size_t private_unpinned(const struct private_chunk *c, size_t from, size_t to)
{
	while (from < to && (c->pinned == 0 || c->pages[from].pins == 0))
		from++;
	return from;
}

/* Of slots [from, to), none of which is pinned. */
static void chunk_take_back(struct view *v, struct region *r, struct private_chunk *c, size_t from,
			    size_t to)
{
	uintptr_t address;
	bool copied[REGION_PAGES];

	while (from < to && c->pages[from].state != PRIVATE_GRANTED)
		from++;
	while (to > from && c->pages[to - 1].state != PRIVATE_GRANTED)
		to--;
	if (from == to)
		return;
	address = view_address(v, r->first + from);
	/* First protect, then look: a write that comes later is reported. */
	if (mmu_protect(&v->mmu, address, (to - from) << PAGE_SHIFT) != 0 ||
	    mmu_copies(&v->mmu, address, (to - from) << PAGE_SHIFT, copied) != 0)
		return;
	for (size_t i = from; i < to; i++)
		if (c->pages[i].state == PRIVATE_GRANTED)
			private_change(r, c, i, copied[i - from] ? PRIVATE_OWN : PRIVATE_UNUSED);
	c->window = 0;
}

size_t private_take_back(struct view *v, struct region *r)
{
	struct private_chunk *c = private_chunk(v, r);
	uint32_t charged;
	size_t from, to;

	/* A child's count for nothing. */
	if (c == NULL || c->childs || c->charged == 0 ||
	    !private_clip(v, r, r->first, REGION_PAGES, &from, &to))
		return 0;
	charged = c->charged;
	/* Pinned pages are written to without a report: they are not protected. */
	while (from < to) {
		size_t end = private_unpinned(c, from, to);

		chunk_take_back(v, r, c, from, end);
		from = end + 1;
	}
	return charged - c->charged;
}

/* Pinned pages are left out. */
static void chunk_protect(struct view *v, const struct region *r, const struct private_chunk *c,
			  size_t from, size_t to)
{
	while (from < to) {
		size_t end = private_unpinned(c, from, to);

		if (end > from)
			mmu_protect(&v->mmu, view_address(v, r->first + from),
				    (end - from) << PAGE_SHIFT);
		from = end + 1;
	}
}

void private_cool(struct view *v, uint64_t first, uint64_t count)
{
	struct region *r;
	uint64_t next = first;

	while (next < first + count && (r = region_next(v->object, next)) != NULL) {
		struct private_chunk *c;
		size_t from, to, freed = 0;

		next = r->first + REGION_PAGES;
		env_read_lock(&v->object->views_lock);
		env_lock(&r->lock);
		c = private_clip(v, r, first, count, &from, &to) ? private_chunk(v, r) : NULL;
		if (c != NULL && c->charged > 0) {
			freed = private_take_back(v, r);
			c->referenced = false;
			c->hand = (uint16_t)from;
			/* Who goes on writing is seen to. */
			chunk_protect(v, r, c, from, to);
		}
		env_unlock(&r->lock);
		env_read_unlock(&v->object->views_lock);
		uncharge_resident(v->object, freed);
		region_put(r);
	}
}
