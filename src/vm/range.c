/* SPDX-License-Identifier: MIT */
/*
 * range.c - changing what an object's pages are: truncate, punch, invalidate, discard (contract 5).
 *
 * Each is a range op: from its begin to its end faults in the range are parked and write-back
 * leaves it alone, so that no page comes back between the steps; that takes the place of the
 * kernel's invalidate_lock and holds no lock across the store. Notifications under way meanwhile
 * find their pages detached (page->ask is 0) and fault again (S4.2).
 *
 * The store is asked first and the pages are dropped after it agreed: when it fails nothing has
 * changed and nothing dirty is lost. Nobody can see the difference: the range is quiet.
 */
#include "vm.h"

#include <errno.h>
#include <string.h>

/* ---- Range ops ---------------------------------------------------------------------------- */

bool object_in_range_op(struct object *o, uint64_t page)
{
	bool found = false;

	if (atomic_load(&o->range_op_count) == 0)
		return false;
	env_lock(&o->lock);
	for (struct list *n = o->range_ops.next; n != &o->range_ops && !found; n = n->next) {
		struct range_op *op = container_of(n, struct range_op, link);
		found = page >= op->first && page <= op->last;
	}
	env_unlock(&o->lock);
	return found;
}

/* => object->lock held. */
static bool range_op_conflicts(struct object *o, const struct range_op *op)
{
	for (struct list *n = o->range_ops.next; n != &o->range_ops; n = n->next) {
		struct range_op *other = container_of(n, struct range_op, link);
		if (op->first <= other->last && other->first <= op->last)
			return true;
	}
	return false;
}

void range_op_begin(struct object *o, struct range_op *op, uint64_t first, uint64_t last)
{
	struct sleeper sleeper;

	op->first = first;
	op->last = last;
	sleeper_init(&sleeper);
	env_lock(&o->lock);
	while (range_op_conflicts(o, op)) {
		list_push_back(&o->waiters, &sleeper.waiter.link);
		env_unlock(&o->lock);
		sleeper_sleep(&sleeper);
		env_lock(&o->lock);
	}
	list_push_back(&o->range_ops, &op->link);
	atomic_fetch_add(&o->range_op_count, 1);
	env_unlock(&o->lock);
	sleeper_destroy(&sleeper);
	object_settle(o, first, last);
}

void range_op_end(struct object *o, struct range_op *op)
{
	env_lock(&o->lock);
	list_remove(&op->link);
	atomic_fetch_sub(&o->range_op_count, 1);
	waiters_wake(&o->waiters);
	env_unlock(&o->lock);
}

static bool region_is_busy(const struct region *r, uint64_t first, uint64_t last)
{
	for (size_t i = 0; i < REGION_PAGES; i++)
		if (r->first + i >= first && r->first + i <= last &&
		    (r->pages[i].state == PAGE_WRITEBACK || r->pages[i].copy != COPY_NONE ||
		     (r->pages[i].flags & PAGE_LOCKED) != 0))
			return true;
	return false;
}

void object_settle(struct object *o, uint64_t first, uint64_t last)
{
	struct sleeper sleeper;
	struct region *r;
	uint64_t next = first;

	sleeper_init(&sleeper);
	while (next <= last && (r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		env_lock(&r->lock);
		while (region_is_busy(r, first, last)) {
			list_push_back(&r->waiters, &sleeper.waiter.link);
			env_unlock(&r->lock);
			sleeper_sleep(&sleeper);
			env_lock(&r->lock);
		}
		env_unlock(&r->lock);
		region_put(r);
	}
	sleeper_destroy(&sleeper);
}

/* ---- Detaching ---------------------------------------------------------------------------- */

/* => region->lock held. Detach [from, to); frames go in one call. */
static void region_detach(struct region *r, size_t from, size_t to, bool charged_too,
			  size_t *detached, size_t *uncharged, size_t *kept)
{
	for (size_t i = from; i < to; i++) {
		struct page *p = &r->pages[i];
		if ((page_is_charged(p) || p->pins > 0) && !charged_too) {
			++*kept;
			continue;
		}
		*uncharged += page_is_charged(p);
		*detached += p->state != PAGE_ABSENT;
		page_change(r, i, PAGE_DETACH);
		r->unarmed[i / 64] |= 1ull << (i % 64);
	}
}

/* Frames of what is detached. With nothing kept: all in one call. */
static void region_drop_frames(struct region *r, size_t from, size_t to)
{
	struct frames *frames = r->object->frames;

	if (frames == NULL)
		return;
	for (size_t i = from; i < to;) {
		size_t start = i;
		while (i < to && r->pages[i].state == PAGE_ABSENT)
			i++;
		if (i > start)
			frames_drop(frames, (r->first + start) << PAGE_SHIFT,
				    (uint64_t)(i - start) << PAGE_SHIFT);
		else
			i++;
	}
}

size_t object_detach(struct object *o, uint64_t first, uint64_t last, bool charged_too)
{
	struct region *r;
	uint64_t next = first;
	size_t kept = 0;

	while (next <= last && (r = region_next(o, next)) != NULL) {
		size_t detached = 0, uncharged = 0, from, to;
		next = r->first + REGION_PAGES;
		if (r->first > last) {
			region_put(r);
			break;
		}
		from = first > r->first ? (size_t)(first - r->first) : 0;
		to = last - r->first < REGION_PAGES ? (size_t)(last - r->first) + 1 : REGION_PAGES;
		env_read_lock(&o->views_lock);
		env_lock(&r->lock);
		region_detach(r, from, to, charged_too, &detached, &uncharged, &kept);
		region_drop_frames(r, from, to);
		waiters_wake(&r->waiters);
		env_unlock(&r->lock);
		env_read_unlock(&o->views_lock);
		uncharge_dirty(o, uncharged);
		if (!o->in_place) /* nor were they charged */
			uncharge_resident(o, detached);
		region_put(r);
	}
	return kept;
}

/* ---- Truncate ----------------------------------------------------------------------------- */

/* Zero a resident page from offset on, with no view able to write it meanwhile (5.1, 5.4): the
 * first write past the old end will be notified again. */
static int tail_zero(struct object *o, uint64_t size_bytes)
{
	size_t in_page = size_bytes & (MKW_PAGE_SIZE - 1);
	uint64_t page = size_bytes >> PAGE_SHIFT;
	struct region *r;
	struct page *p;
	int error = 0;

	if (in_page == 0)
		return 0;
	r = region_get(o, page);
	if (r == NULL)
		return mkw_set_error(-ENOMEM, "no memory for page states");
	p = &r->pages[page & (REGION_PAGES - 1)];
	env_read_lock(&o->views_lock);
	env_lock(&r->lock);
	if (p->state != PAGE_ABSENT) {
		char *bytes = frames_data(o->frames, page << PAGE_SHIFT, MKW_PAGE_SIZE);
		error = bytes == NULL ? -ENOMEM : views_protect(o, page, 1);
		if (error == 0) {
			memset(bytes + in_page, 0, MKW_PAGE_SIZE - in_page);
			if (page_is_charged(p))
				p->flags |= PAGE_ASK_AGAIN;
			/* A question about the old size is no answer for the new one. */
			if (p->ask != 0) {
				p->ask = 0;
				r->asked--;
				waiters_wake(&r->waiters);
			}
		}
	}
	env_unlock(&r->lock);
	env_read_unlock(&o->views_lock);
	region_put(r);
	return error == 0 ? 0 : mkw_set_error(error, "cannot zero the last page");
}

static int check_not_frozen(struct object *o)
{
	if (atomic_load(&o->frozen) != 0)
		return mkw_set_error(-EBUSY, "the object is frozen");
	return 0;
}

/* Begin a change of size, from the page on that has its end. An error, or 1: it was not begun. A
 * freeze that comes later waits for its end (4.5). */
static int resize_begin(struct object *o, struct range_op *op, uint64_t from_bytes,
			uint64_t old_bytes)
{
	int error;

	range_op_begin(o, op, from_bytes >> PAGE_SHIFT, OBJECT_PAGES_MAX - 1);
	error = check_not_frozen(o) != 0;
	if (error == 0 && o->size_bytes != old_bytes)
		error = -EAGAIN; /* somebody else changed it before we began */
	if (error != 0)
		range_op_end(o, op);
	return error;
}

/* The size has changed. => a range op over what that is about. */
static uint64_t resize_number(struct object *o, uint64_t from_bytes)
{
	atomic_store(&o->grown_from, from_bytes >> PAGE_SHIFT);
	return atomic_fetch_add(&o->growth, 1) + 1;
}

/* unused_growth: only if that is the number still; NULL: in any case. */
static int shrink(struct object *o, uint64_t size_bytes, uint64_t old_bytes,
		  const uint64_t *unused_growth)
{
	struct range_op op;
	int error = resize_begin(o, &op, size_bytes, old_bytes);

	if (error != 0)
		return error;
	if (unused_growth != NULL && atomic_load(&o->growth) != *unused_growth) {
		range_op_end(o, &op);
		return 0;
	}
	error = op_truncate(o, size_bytes);
	if (error == 0) {
		/* Not before: a sync that runs meanwhile has to wait for pages that stay, should
		 * the store fail. */
		o->size_bytes = size_bytes;
		resize_number(o, size_bytes);
		object_detach(o, (size_bytes + MKW_PAGE_SIZE - 1) >> PAGE_SHIFT,
			      OBJECT_PAGES_MAX - 1, true);
		/* With the frames gone, nothing is there that could be copied anew (5.1). */
		private_truncate(o, (size_bytes + MKW_PAGE_SIZE - 1) >> PAGE_SHIFT);
		/* If it fails: what is past the end reaches neither store nor reader, and growing
		 * zeroes it again. */
		tail_zero(o, size_bytes);
	}
	range_op_end(o, &op);
	return error;
}

void object_shrink_unused(struct object *o, uint64_t size_bytes, uint64_t grown_bytes,
			  uint64_t growth)
{
	shrink(o, size_bytes, grown_bytes, &growth);
}

static int extend(struct object *o, uint64_t size_bytes, uint64_t old_bytes, uint64_t *growth)
{
	struct range_op op;
	int error = resize_begin(o, &op, old_bytes, old_bytes);

	if (error != 0)
		return error;
	error = tail_zero(o, old_bytes);
	if (error == 0)
		error = op_truncate(o, size_bytes);
	if (error == 0) {
		uint64_t number = resize_number(o, old_bytes);

		if (growth != NULL)
			*growth = number;
		o->size_bytes = size_bytes;
	}
	range_op_end(o, &op);
	return error;
}

int object_resize(struct object *o, uint64_t size_bytes, uint64_t old_bytes, uint64_t *growth)
{
	if (o->in_place)
		return object_check_cache(o);
	if ((o->ops->flags & MKW_STORE_FIXED_SIZE) != 0)
		return mkw_set_error(-EINVAL, "the size of this store is fixed");
	if (size_bytes > OBJECT_PAGES_MAX << PAGE_SHIFT)
		return mkw_set_error(-EFBIG, "an object has at most %llu bytes",
				     (unsigned long long)OBJECT_PAGES_MAX << PAGE_SHIFT);
	if (size_bytes < old_bytes)
		return shrink(o, size_bytes, old_bytes, NULL);
	return extend(o, size_bytes, old_bytes, growth);
}

int handle_check_write(const struct mkw_handle *h)
{
	if (h == NULL)
		return mkw_set_error(-EINVAL, "no handle");
	if ((h->flags & MKW_RDWR) == 0)
		return mkw_set_error(-EBADF, "the handle was not opened with MKW_RDWR");
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	return process_check(h->object->space);
}

int mkw_truncate(struct mkw_handle *h, uint64_t size_bytes)
{
	struct env_shield shield;
	int error;

	error_clear();
	error = handle_check_write(h);
	if (error != 0)
		return error;
	env_shield(&shield);
	do
		error = object_resize(h->object, size_bytes, h->object->size_bytes, NULL);
	while (error == -EAGAIN && error_last() == 0);
	env_unshield(&shield);
	return error > 0 ? -EBUSY : error;
}

/* ---- Ranges ------------------------------------------------------------------------------- */

/* Check and clip to the object's size; *length 0: to the end. 1: nothing left of it. */
static int range_check(const struct object *o, uint64_t offset, uint64_t *length, bool zero_is_all)
{
	uint64_t size = o->size_bytes;

	if (*length > UINT64_MAX - offset)
		return mkw_set_error(-EINVAL, "the range overflows");
	if (*length == 0 && zero_is_all)
		*length = UINT64_MAX - offset;
	if (offset >= size || *length == 0)
		return 1;
	if (*length > size - offset)
		*length = size - offset;
	return 0;
}

int object_range(const struct object *o, uint64_t offset, uint64_t length, uint64_t *first,
		 uint64_t *last)
{
	int clip = range_check(o, offset, &length, true);

	if (clip != 0)
		return clip;
	*first = offset >> PAGE_SHIFT;
	*last = (offset + length - 1) >> PAGE_SHIFT;
	return 0;
}

/* The whole pages from page first on, up to end_bytes: ask the store, then drop them. The last page
 * of the object goes whole, should end_bytes reach the end as it is now: nobody grows it meanwhile.
 * *end: the page after those. */
static int punch_pages(struct object *o, uint64_t first, uint64_t end_bytes, uint64_t *end)
{
	struct range_op op;
	int error;

	range_op_begin(o, &op, first, (end_bytes - 1) >> PAGE_SHIFT);
	error = check_not_frozen(o);
	*end = end_bytes >= o->size_bytes ? object_pages(o) : end_bytes >> PAGE_SHIFT;
	if (error == 0 && *end > first) {
		error = op_punch_hole(o, first << PAGE_SHIFT, (*end - first) << PAGE_SHIFT);
		if (error == 0)
			object_detach(o, first, *end - 1, true);
	}
	range_op_end(o, &op);
	return error;
}

/* Up to the end of the object, where that is now: it may be cut off meanwhile, and is not grown. */
static int zero_bytes(struct object *o, uint64_t offset, uint64_t length)
{
	static const char zeros[16 * MKW_PAGE_SIZE];

	while (length > 0) {
		size_t n = length < sizeof(zeros) ? (size_t)length : sizeof(zeros);
		ssize_t done = io_overwrite(o, zeros, n, offset);
		if (done < 0)
			return done == -ENXIO ? 0 : (int)done;
		offset += (uint64_t)done;
		length -= (uint64_t)done;
	}
	return 0;
}

int mkw_punch(struct mkw_handle *h, uint64_t offset, uint64_t length)
{
	struct env_shield shield;
	uint64_t first, end, end_bytes;
	struct object *o;
	int error;

	error_clear();
	error = handle_check_write(h);
	if (error != 0)
		return error;
	o = h->object;
	error = object_check_cache(o);
	if (error == 0)
		error = check_not_frozen(o);
	if (error == 0 && !o->can_write)
		error = mkw_set_error(-EINVAL, "the store has no writepages: it is read only");
	if (error == 0)
		error = range_check(o, offset, &length, false);
	if (error != 0)
		return error > 0 ? 0 : error;
	first = (offset + MKW_PAGE_SIZE - 1) >> PAGE_SHIFT;
	end_bytes = offset + length;
	if (first << PAGE_SHIFT >= end_bytes || o->ops->punch_hole == NULL)
		return zero_bytes(o, offset, length);
	error = zero_bytes(o, offset, (first << PAGE_SHIFT) - offset);
	if (error != 0)
		return error;
	env_shield(&shield);
	error = punch_pages(o, first, end_bytes, &end);
	env_unshield(&shield);
	end = end > first ? end : first;
	if (error == 0 && end << PAGE_SHIFT < end_bytes)
		error = zero_bytes(o, end << PAGE_SHIFT, end_bytes - (end << PAGE_SHIFT));
	return error;
}

int mkw_invalidate(struct mkw_handle *h, uint64_t offset, uint64_t length)
{
	struct env_shield shield;
	uint64_t first, last;
	struct range_op op;
	size_t kept;
	int error;

	error_clear();
	if (h == NULL || op_running())
		return mkw_set_error(-EINVAL, "no handle, or inside a store operation");
	if (process_check(h->object->space) != 0)
		return -ECHILD;
	error = object_check_cache(h->object);
	if (error == 0)
		error = object_range(h->object, offset, length, &first, &last);
	if (error != 0)
		return error > 0 ? 0 : error;
	env_shield(&shield);
	error = writeback_sync(h->object, first, last);
	if (error != 0)
		handle_take_error(h, NULL);
	if (error == 0) {
		range_op_begin(h->object, &op, first, last);
		kept = object_detach(h->object, first, last, false);
		range_op_end(h->object, &op);
		if (kept > 0)
			error = mkw_set_error(
				-EBUSY, "%zu pages are pinned, or were dirtied again meanwhile",
				kept);
	}
	env_unshield(&shield);
	return error;
}

/* The range is quiet. Pages that mkw_reserve holds keep their reservation; it is decided, and their
 * pages go, under their locks: mkw_unreserve waits for these. */
static void discard_region(struct region *r, size_t from, size_t to)
{
	struct object *o = r->object;
	bool locked[REGION_PAGES] = {false}, held[REGION_PAGES] = {false};

	env_lock(&r->lock);
	for (size_t i = from; i < to; i++) {
		held[i] = (r->pages[i].flags & PAGE_HELD) != 0;
		locked[i] = page_is_charged(&r->pages[i]) && (r->pages[i].flags & PAGE_LOCKED) == 0;
		if (locked[i])
			page_lock(r, i);
	}
	env_unlock(&r->lock);
	for (size_t i = from, n; i<to; i += n> 0 ? n : 1) {
		for (n = 0; i + n < to && locked[i + n] && !held[i + n]; n++)
			;
		op_unreserve(o, r->first + i, n);
	}
	object_detach(o, r->first + from, r->first + to - 1, true);
	env_lock(&r->lock);
	for (size_t i = from; i < to; i++)
		if (locked[i])
			page_unlock(r, i);
	waiters_wake(&r->waiters);
	env_unlock(&r->lock);
}

/* => a range op keeps others from pinning. */
static bool range_is_pinned(struct object *o, uint64_t first, uint64_t last)
{
	struct region *r;
	uint64_t next = first;
	bool pinned = false;

	while (!pinned && next <= last && (r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		env_lock(&r->lock);
		for (size_t i = 0; i < REGION_PAGES && !pinned; i++)
			pinned = r->pages[i].pins > 0 && r->first + i >= first &&
				 r->first + i <= last;
		env_unlock(&r->lock);
		region_put(r);
	}
	return pinned;
}

static void discard_pages(struct object *o, uint64_t first, uint64_t last)
{
	struct region *r;

	for (uint64_t next = first; next <= last && (r = region_next(o, next)) != NULL;) {
		next = r->first + REGION_PAGES;
		if (r->first <= last)
			discard_region(r, first > r->first ? (size_t)(first - r->first) : 0,
				       last - r->first < REGION_PAGES
					       ? (size_t)(last - r->first) + 1
					       : REGION_PAGES);
		region_put(r);
	}
}

int mkw_discard(struct mkw_handle *h, uint64_t offset, uint64_t length)
{
	struct env_shield shield;
	uint64_t first, last;
	struct range_op op;
	int error;

	error_clear();
	error = handle_check_write(h);
	if (error == 0)
		error = object_check_cache(h->object);
	if (error == 0)
		error = object_range(h->object, offset, length, &first, &last);
	if (error != 0)
		return error > 0 ? 0 : error;
	env_shield(&shield);
	range_op_begin(h->object, &op, first, last);
	if (range_is_pinned(h->object, first, last))
		error = mkw_set_error(-EBUSY, "a page of the range is pinned");
	else
		discard_pages(h->object, first, last);
	range_op_end(h->object, &op);
	env_unshield(&shield);
	return error;
}
