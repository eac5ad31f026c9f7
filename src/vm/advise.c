/* SPDX-License-Identifier: MIT */
/*
 * advise.c - calls on ranges of addresses: mkw_msync, mkw_advise, mkw_reserve, mkw_unreserve.
 */
#include "vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Sync --------------------------------------------------------------------------------- */

struct msync {
	struct error_record first; /* of a part; the others are synced all the same */
};

static int msync_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	struct msync *m = arg;
	uint64_t end = object_pages(v->object), last = first + count - 1;
	int error;

	if (v->private != NULL)
		return 0; /* nothing of it is the store's */
	/* Past the end there is no page, but what cut them off may not be durable. */
	if (first < end && last >= end)
		last = end - 1;
	error = writeback_sync(v->object, first, last);
	if (error != 0) { /* heard, though by no handle */
		env_lock(&v->object->lock);
		v->object->error_seen_seq = v->object->error_seq;
		env_unlock(&v->object->lock);
	}
	if (m->first.error == 0)
		error_keep(&m->first, error);
	return 0;
}

int mkw_msync(void *address, size_t length)
{
	struct env_shield shield;
	struct msync m = {0};
	int error;

	error_clear();
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	env_shield(&shield);
	error = views_each(address, length, msync_part, &m);
	env_unshield(&shield);
	return m.first.error != 0 ? error_say("part of the range", &m.first) : error;
}

/* ---- Advice ------------------------------------------------------------------------------- */

int view_fill(struct view *v, uint64_t first, uint64_t count)
{
	uint64_t end = object_pages(v->object);
	int error = 0;

	if (end > first + count)
		end = first + count;
	for (uint64_t page = first; page < end && error == 0;) {
		struct fault f;
		error = fault_call(&f, v->object, v, FAULT_FILL, page,
				   end - page < FILL_PAGES_MAX ? (size_t)(end - page)
							       : FILL_PAGES_MAX);
		page += f.served > 0 ? f.served : 1;
		fault_call_end(&f);
	}
	return error;
}

/* This view's translations go; clean pages keep their markers, dirty ones need none. => views_lock
 * held. */
static int dontneed_range(struct view *v, uint64_t first, uint64_t count)
{
	int error = v->mmu.writable ? view_protect_pages(v, first, count) : 0;

	if (error == 0)
		error = view_zap_pages(v, first, count);
	/* A racing reader may have lost a marker to the zap. */
	if (error == 0 && v->mmu.writable)
		error = view_protect_pages(v, first, count);
	return error;
}

/* What of [first, end) is not pinned. => views_lock, region->lock held. */
static int dontneed_unpinned(struct view *v, const struct region *r, uint64_t first, uint64_t end)
{
	int error = 0;

	for (uint64_t page = first; page < end && error == 0;) {
		uint64_t from = page;

		while (page < end && r->pages[page - r->first].pins == 0)
			page++;
		if (page > from)
			error = dontneed_range(v, from, page - from);
		else
			page++;
	}
	return error;
}

/* => views_lock held. Of all of it, whether there are pins is to be looked at. */
static int dontneed_regions(struct view *v, uint64_t first, uint64_t end)
{
	int error = 0;

	for (uint64_t page = first, next; page < end && error == 0; page = next) {
		struct region *r = region_next(v->object, page);

		next = r != NULL && r->first < end ? r->first : end;
		if (next > page) {
			error = dontneed_range(v, page, next - page);
		} else {
			next = r->first + REGION_PAGES < end ? r->first + REGION_PAGES : end;
			env_lock(&r->lock);
			error = dontneed_unpinned(v, r, page, next);
			env_unlock(&r->lock);
		}
		if (r != NULL)
			region_put(r);
	}
	return error;
}

static int advise_dontneed(struct view *v, uint64_t first, uint64_t count)
{
	struct object *o = v->object;
	int error;

	if (v->locked)
		return mkw_set_error(-EINVAL, "the view is MKW_LOCKED");
	if (v->private != NULL) {
		private_drop(v, first, count);
		return 0;
	}
	env_read_lock(&o->views_lock);
	error = atomic_load(&o->pin_parts) > 0 ? dontneed_regions(v, first, first + count)
					       : dontneed_range(v, first, count);
	env_read_unlock(&o->views_lock);
	return error == 0 ? 0 : mkw_set_error(error, "cannot drop the range: errno %d", -error);
}

/* What write-back fails with is told like any other write-back's (6.5). */
static int advise_reclaim(struct view *v, uint64_t first, uint64_t count, bool now)
{
	if (v->locked)
		return mkw_set_error(-EINVAL, "the view is MKW_LOCKED");
	if (v->private != NULL && now)
		pager_out(v, first, count);
	else if (v->private != NULL)
		private_cool(v, first, count);
	reclaim_range(v->object, first, first + count - 1, now);
	return 0;
}

/* At once: a page that is written again has nothing to lose by it. */
static int advise_free(struct view *v, uint64_t first, uint64_t count)
{
	if (v->private == NULL)
		return mkw_set_error(-EINVAL, "MKW_FREE is for private views");
	private_drop(v, first, count);
	return 0;
}

static int advise_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	const enum mkw_advice advice = *(enum mkw_advice *)arg;

	if (advice != MKW_NORMAL && advice != MKW_SEQUENTIAL && advice != MKW_RANDOM &&
	    object_check_cache(v->object) != 0)
		return -EINVAL;
	switch (advice) {
	case MKW_WILLNEED:
		return view_fill(v, first, count);
	case MKW_DONTNEED:
		return advise_dontneed(v, first, count);
	case MKW_FREE:
		return advise_free(v, first, count);
	case MKW_COLD:
	case MKW_PAGEOUT:
		return advise_reclaim(v, first, count, advice == MKW_PAGEOUT);
	default:
		if (stream_advise(v, first, first + count, advice) != 0)
			return mkw_set_error(-ENOMEM, "a view remembers advice for %u ranges",
					     ADVICE_RANGES);
		return 0;
	}
}

int mkw_advise(void *address, size_t length, enum mkw_advice advice)
{
	struct env_shield shield;
	int error;

	error_clear();
	if ((unsigned)advice > MKW_DOFORK)
		return mkw_set_error(-EINVAL, "unknown advice %d", (int)advice);
	if (advice == MKW_DONTFORK || advice == MKW_DOFORK)
		return reshape_fork(address, length, advice == MKW_DONTFORK);
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	env_shield(&shield);
	error = views_each(address, length, advise_part, &advice);
	env_unshield(&shield);
	return error;
}

/* ---- Reservation -------------------------------------------------------------------------- */

/* Pages that one mkw_reserve has come to hold, to let go if it fails: those that were held before
 * are an older call's. */
struct reserved {
	const struct object *object; /* the views may be others by then */
	uint64_t id;		     /* of it */
	uint64_t region;	     /* first page of the region */
	uint64_t held[REGION_PAGES / 64];
};

struct reserve {
	struct reserved *parts;
	size_t count, capacity;
};

/* Where the next pages from page on are noted; NULL: no memory. */
static struct reserved *reserve_note(struct reserve *reserve, const struct object *o, uint64_t page)
{
	const uint64_t region = page & ~(uint64_t)(REGION_PAGES - 1);
	struct reserved *part = reserve->count > 0 ? &reserve->parts[reserve->count - 1] : NULL;

	if (part != NULL && part->object == o && part->id == o->id && part->region == region)
		return part;
	if (reserve->count == reserve->capacity) {
		size_t capacity = reserve->capacity == 0 ? 8 : reserve->capacity * 2;
		part = realloc(reserve->parts, capacity * sizeof(*part));
		if (part == NULL)
			return NULL;
		reserve->parts = part;
		reserve->capacity = capacity;
	}
	part = &reserve->parts[reserve->count++];
	*part = (struct reserved){.object = o, .id = o->id, .region = region};
	return part;
}

static int reserve_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	struct reserve *reserve = arg;
	uint64_t end = first + count;
	int error = 0;

	if (object_check_cache(v->object) != 0)
		return -EINVAL;
	if (!view_is_notified(v))
		return mkw_set_error(-EACCES, "the view is not writable, or private");
	for (uint64_t page = first; page < end && error == 0;) {
		struct reserved *part = reserve_note(reserve, v->object, page);
		struct fault f;
		if (part == NULL)
			return mkw_set_error(-ENOMEM, "no memory to note a reservation");
		f.held = part->held;
		error = fault_call(&f, v->object, v, FAULT_RESERVE, page,
				   end - page < REGION_PAGES ? (size_t)(end - page) : REGION_PAGES);
		page += f.served > 0 ? f.served : 1;
		fault_call_end(&f);
	}
	return error;
}

/* Give a region's held reservations back; those of granted pages go with their grants. */
static void unreserve_region(struct region *r, size_t from, size_t to)
{
	struct sleeper sleeper;

	sleeper_init(&sleeper);
	env_lock(&r->lock);
	for (size_t i = from; i < to; i++) {
		struct page *p = &r->pages[i];

		/* Whoever has the page decides by PAGE_HELD what becomes of its reservation. */
		while ((p->flags & PAGE_HELD) != 0 &&
		       ((p->flags & PAGE_LOCKED) != 0 || p->ask != 0)) {
			list_push_back(&r->waiters, &sleeper.waiter.link);
			env_unlock(&r->lock);
			sleeper_sleep(&sleeper);
			env_lock(&r->lock);
		}
		if ((p->flags & PAGE_HELD) == 0)
			continue;
		p->flags &= (uint8_t)~PAGE_HELD;
		r->held--;
		if (page_is_charged(p))
			continue;
		page_lock(r, i);
		env_unlock(&r->lock);
		op_unreserve(r->object, r->first + i, 1);
		env_lock(&r->lock);
		page_unlock(r, i);
		waiters_wake(&r->waiters);
	}
	env_unlock(&r->lock);
	sleeper_destroy(&sleeper);
}

static void unreserve_pages(struct object *o, uint64_t first, uint64_t end)
{
	struct region *r;
	uint64_t next = first;

	while (next < end && (r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		if (r->first < end)
			unreserve_region(r, first > r->first ? (size_t)(first - r->first) : 0,
					 end - r->first < REGION_PAGES ? (size_t)(end - r->first)
								       : REGION_PAGES);
		region_put(r);
	}
}

static int unreserve_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	(void)arg;
	unreserve_pages(v->object, first, first + count);
	writeback_ungrant(v->object, first, first + count - 1);
	return 0;
}

/* The call failed: what it has come to hold of this view's object is let go, and not twice. */
static int reserve_undo_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	struct reserve *reserve = arg;

	(void)first;
	(void)count;
	for (size_t i = 0; i < reserve->count; i++) {
		struct reserved *part = &reserve->parts[i];
		if (part->object != v->object || part->id != v->object->id)
			continue;
		for (size_t slot = 0; slot < REGION_PAGES;) {
			size_t n = 0;
			while (slot + n < REGION_PAGES &&
			       (part->held[(slot + n) / 64] >> ((slot + n) % 64) & 1) != 0)
				n++;
			if (n > 0)
				unreserve_part(v, part->region + slot, n, NULL);
			slot += n > 0 ? n : 1;
		}
		part->object = NULL;
	}
	return 0;
}

int mkw_reserve(void *address, size_t length)
{
	struct env_shield shield;
	struct reserve reserve = {.count = 0};
	int error;

	error_clear();
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	env_shield(&shield);
	error = views_each(address, length, reserve_part, &reserve);
	if (error != 0 && reserve.count > 0) {
		char sentence[256];
		snprintf(sentence, sizeof(sentence), "%s", error_sentence());
		views_each(address, length, reserve_undo_part, &reserve);
		mkw_set_error(error, "%s", sentence);
	}
	free(reserve.parts);
	env_unshield(&shield);
	return error;
}

int mkw_unreserve(void *address, size_t length)
{
	struct env_shield shield;
	int error;

	error_clear();
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	env_shield(&shield);
	error = views_each(address, length, unreserve_part, NULL);
	env_unshield(&shield);
	return error;
}
