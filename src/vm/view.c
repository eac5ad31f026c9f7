/* SPDX-License-Identifier: MIT */
/*
 * view.c - views: making and ending them, and what is done to all views of an object at once. The
 * table of them by address is view_table.c.
 *
 * A view that is being unmapped is first taken from the table, so that no new fault finds it, and
 * marked dying; parked faults are resumed and end; when the last has gone it is unmapped, and only
 * then leaves the object's list: until the munmap a thread may still write through it. Views that
 * are to become others (reshape.c) go the same way, but those take their place in one step.
 */
#include "vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PROTECT_AGAIN_NS 1000000u

/* ---- All views of an object --------------------------------------------------------------- */

/* The part of [first, first+count) that the view shows. */
static bool clip(uint64_t low, uint64_t high, uint64_t *first, uint64_t *count)
{
	uint64_t end = *first + *count;
	uint64_t from = *first > low ? *first : low;
	uint64_t to = end < high ? end : high;

	if (from >= to)
		return false;
	*first = from;
	*count = to - from;
	return true;
}

static bool view_clip(const struct view *v, uint64_t *first, uint64_t *count)
{
	return clip(v->first, v->first + v->count, first, count);
}

/* Nobody writes through a page that is not there, so there is nothing to be held up for. */
int view_protect_pages(struct view *v, uint64_t first, uint64_t count)
{
	int error = mmu_protect(&v->mmu, view_address(v, first), count << PAGE_SHIFT);

	if (error != -ENOENT)
		return error;
	if (!atomic_exchange(&v->torn, true))
		flusher_kick_for_torn(v->object->space, v->mmu.address);
	return 0;
}

/* Whatever else is mapped there by now is not ours to drop. */
int view_zap_pages(struct view *v, uint64_t first, uint64_t count)
{
	int error = 0;

	if (!atomic_load(&v->torn))
		return mmu_zap(&v->mmu, view_address(v, first), count << PAGE_SHIFT);
	for (uint64_t page = first; page < first + count && error == 0; page++)
		if (mmu_protect(&v->mmu, view_address(v, page), MKW_PAGE_SIZE) == 0)
			error = mmu_zap(&v->mmu, view_address(v, page), MKW_PAGE_SIZE);
	return error;
}

static int view_protect(struct view *v, uint64_t first, uint64_t count)
{
	if (!view_is_notified(v) || !view_clip(v, &first, &count))
		return 0;
	return view_protect_pages(v, first, count);
}

int view_map_rw(struct view *v, uint64_t first, uint64_t count)
{
	if (!view_clip(v, &first, &count))
		return 0;
	/* That may drop what is there, and not all of it may be ours. */
	if (atomic_load(&v->torn))
		return mmu_let_rw(&v->mmu, view_address(v, first), count << PAGE_SHIFT);
	return mmu_map_rw(&v->mmu, view_address(v, first), count << PAGE_SHIFT);
}

int view_let_rw(struct view *v, uint64_t first, uint64_t count)
{
	if (!view_clip(v, &first, &count))
		return 0;
	return mmu_let_rw(&v->mmu, view_address(v, first), count << PAGE_SHIFT);
}

int views_protect(struct object *o, uint64_t first, uint64_t count)
{
	int result = 0;

	for (struct list *n = o->views.next; n != &o->views; n = n->next) {
		int error = view_protect(container_of(n, struct view, link), first, count);
		if (error != 0 && result == 0)
			result = error;
	}
	return result;
}

void views_zap(struct object *o, uint64_t first, uint64_t count)
{
	for (struct list *n = o->views.next; n != &o->views; n = n->next) {
		struct view *v = container_of(n, struct view, link);
		uint64_t from = first, pages = count;
		if (v->private == NULL && view_clip(v, &from, &pages))
			view_zap_pages(v, from, pages);
	}
}

void views_present(struct object *o, uint64_t first, size_t count, bool *present)
{
	bool seen[REGION_PAGES];

	for (struct list *n = o->views.next; n != &o->views; n = n->next) {
		struct view *v = container_of(n, struct view, link);
		uint64_t from = first, pages = count;
		if (v->private != NULL || !view_clip(v, &from, &pages))
			continue;
		if (mmu_present(&v->mmu, view_address(v, from), pages << PAGE_SHIFT, seen) != 0)
			memset(seen, true, pages);
		for (uint64_t i = 0; i < pages; i++)
			present[from - first + i] |= seen[i];
	}
}

static bool slot_unarmed(const struct region *r, size_t slot)
{
	return (r->unarmed[slot / 64] >> (slot % 64) & 1) != 0;
}

int views_arm(struct region *r, size_t slot, size_t count)
{
	size_t from = slot, to = slot + count;
	bool needed = false;
	int error;

	for (size_t i = slot; i < slot + count && !needed; i++)
		needed = slot_unarmed(r, i);
	if (!needed)
		return 0;
	/* All of the stretch at once: one call now in place of one for each of its pages later. */
	while (from > 0 && slot_unarmed(r, from - 1) && r->pages[from - 1].state == PAGE_ABSENT)
		from--;
	while (to < REGION_PAGES && slot_unarmed(r, to) && r->pages[to].state == PAGE_ABSENT)
		to++;
	error = views_protect(r->object, r->first + from, to - from);
	if (error != 0)
		return error;
	for (size_t i = from; i < to; i++)
		r->unarmed[i / 64] &= ~(1ull << (i % 64));
	return 0;
}

/* ---- Mapping ------------------------------------------------------------------------------ */

/* Arm a new view where frames are. => views_lock held for writing, region->lock. */
static int view_arm_region(struct view *v, struct region *r, uint64_t first, uint64_t count)
{
	if (r->resident == 0 && r->locked == 0) {
		memset(r->unarmed, 0xff, sizeof(r->unarmed));
		return 0;
	}
	return view_is_notified(v) ? view_protect_pages(v, first, count) : 0;
}

/* Map what is there: cheaper in runs than by the kernel, page by page. => region->lock held. */
static int view_map_region(struct view *v, struct region *r, uint64_t first, uint64_t count)
{
	int error = 0;

	for (size_t i = first - r->first, end = i + count; i < end && error == 0;) {
		size_t from = i;
		while (i < end && r->pages[i].state != PAGE_ABSENT)
			i++;
		if (i > from)
			error = mmu_map_ro(&v->mmu, view_address(v, r->first + from),
					   (i - from) << PAGE_SHIFT);
		else
			i++;
	}
	return error;
}

/* Of the view's pages [first, first+count). */
static int view_each_region(struct view *v, uint64_t first, uint64_t count,
			    int (*fn)(struct view *, struct region *, uint64_t, uint64_t))
{
	struct region *r;
	uint64_t next = first;
	int error = 0;

	while (error == 0 && (r = region_next(v->object, next)) != NULL) {
		uint64_t from = r->first, pages = REGION_PAGES;
		bool inside = clip(first, first + count, &from, &pages);

		if (inside) {
			env_lock(&r->lock);
			error = fn(v, r, from, pages);
			env_unlock(&r->lock);
		}
		next = r->first + REGION_PAGES;
		region_put(r);
		if (!inside)
			break;
	}
	return error;
}

int view_arm(struct view *v, uint64_t first, uint64_t count)
{
	return view_each_region(v, first, count, view_arm_region);
}

void view_map_cached(struct view *v, uint64_t first, uint64_t count)
{
	view_each_region(v, first, count, view_map_region);
}

static int map_check(const struct mkw_handle *h, size_t length, unsigned protection, unsigned flags,
		     uint64_t offset)
{
	if (length == 0 || offset % MKW_PAGE_SIZE != 0)
		return mkw_set_error(-EINVAL, "offset must be a multiple of %u, length above 0",
				     MKW_PAGE_SIZE);
	if (protection != MKW_READ && (protection & ~(MKW_READ | MKW_WRITE)) != 0)
		return mkw_set_error(-EINVAL, "unknown protection bits");
	if (protection == 0 || (flags & ~(MKW_INLINE | MKW_PRIVATE | MKW_LOCKED)) != 0)
		return mkw_set_error(-EINVAL, "no protection, or unknown flags");
	if (length > (OBJECT_PAGES_MAX << PAGE_SHIFT) ||
	    offset > (OBJECT_PAGES_MAX << PAGE_SHIFT) - length)
		return mkw_set_error(-EINVAL, "the range ends past the largest object");
	if ((protection & MKW_WRITE) == 0 || (flags & MKW_PRIVATE) != 0)
		return 0;
	if ((h->flags & MKW_RDWR) == 0)
		return mkw_set_error(-EACCES,
				     "a writable view needs a handle opened with MKW_RDWR");
	if (!h->object->can_write)
		return mkw_set_error(-EINVAL, "the store has no writepages: it is read only");
	return 0;
}

struct view *view_new(struct object *o, struct mapping *mapping, uint64_t first, uint64_t count)
{
	struct view *v = calloc(1, sizeof(*v));

	if (v == NULL)
		return NULL;
	v->object = o;
	v->mapping = mapping;
	v->first = first;
	v->count = count;
	v->mmu = (struct mmu_view){
		.mmu = o->space->mmu,
		.length = count << PAGE_SHIFT,
		.frames = o->frames,
		.offset = first << PAGE_SHIFT,
		.pins = &o->pin_parts,
	};
	list_init(&v->link);
	list_init(&v->leaving);
	env_mutex_init(&v->stream_lock, RANK_LEAF);
	return v;
}

void view_set_private(struct view *v, struct private *private)
{
	v->private = private;
	v->mmu.private = private != NULL;
}

void view_set_protection(struct view *v, unsigned protection)
{
	v->protection = protection;
	v->mmu.readable = protection != 0;
	v->mmu.writable = (protection & MKW_WRITE) != 0;
}

void view_free(struct view *v)
{
	private_put(v);
	env_mutex_destroy(&v->stream_lock);
	free(v);
}

static struct view *view_of_map(const struct mkw_handle *h, size_t length, unsigned protection,
				unsigned flags, uint64_t offset)
{
	struct mapping *mapping = calloc(1, sizeof(*mapping));
	uint64_t first = offset >> PAGE_SHIFT, count = (length + MKW_PAGE_SIZE - 1) >> PAGE_SHIFT;
	struct view *v;

	if (mapping == NULL)
		return NULL;
	atomic_init(&mapping->pieces, 2); /* the view and the call that makes it */
	mapping->may_write = (h->flags & MKW_RDWR) != 0 && h->object->can_write;
	v = view_new(h->object, mapping, first, count);
	if (v != NULL && (flags & MKW_PRIVATE) != 0) {
		view_set_private(v, private_new(first, count));
		if (v->private == NULL) {
			view_free(v);
			v = NULL;
		}
	}
	if (v == NULL) {
		free(mapping);
		return NULL;
	}
	v->mmu.backend = (flags & MKW_INLINE) != 0 ? MMU_INLINE : MMU_UFFD;
	v->locked = (flags & MKW_LOCKED) != 0;
	view_set_protection(v, protection);
	return v;
}

void mapping_tell_writable(struct object *o, struct mapping *mapping)
{
	if (!atomic_exchange(&mapping->told, true))
		op_map(o, true);
}

int mapping_put(struct object *o, struct mapping *mapping)
{
	if (atomic_fetch_sub(&mapping->pieces, 1) > 1)
		return 0;
	/* Not before: should the store touch the view it is not left to wait for this thread. */
	if (mapping->told)
		op_map(o, false);
	free(mapping);
	return object_release(o, USER_VIEW);
}

struct view *view_copy(const struct view *v, struct mmu *mmu)
{
	struct view *copy = calloc(1, sizeof(*copy));

	if (copy == NULL)
		return NULL;
	copy->object = v->object;
	copy->first = v->first;
	copy->count = v->count;
	copy->protection = v->protection;
	memcpy(copy->advice, v->advice, sizeof(copy->advice));
	copy->advice_count = v->advice_count;
	copy->mmu = v->mmu;
	copy->mmu.mmu = mmu;
	if (v->child != NULL)
		copy->zapped = v->zapped;
	list_init(&copy->link);
	list_init(&copy->leaving);
	env_mutex_init(&copy->stream_lock, RANK_LEAF);
	if (v->private != NULL)
		copy->private = private_fork(v);
	if (v->private != NULL && copy->private == NULL) {
		view_free(copy);
		return NULL;
	}
	return copy;
}

/* ---- Unmapping ---------------------------------------------------------------------------- */

/* Parked faults of the view are in lists all over: have every one look again. */
static void view_flush_faults(struct view *v)
{
	struct object *o = v->object;
	struct space *s = o->space;
	struct region *r;
	uint64_t next = v->first;

	while ((r = region_next(o, next)) != NULL) {
		bool inside = r->first < v->first + v->count;
		next = r->first + REGION_PAGES;
		if (inside) {
			env_lock(&r->lock);
			waiters_wake(&r->waiters);
			env_unlock(&r->lock);
		}
		region_put(r);
		if (!inside)
			break;
	}
	object_wake(o);
	env_lock(&s->charge_lock);
	waiters_wake(&o->account.dirty_waiters);
	waiters_wake(&s->account.dirty_waiters);
	waiters_wake(&s->resident_waiters);
	waiters_wake(&s->memory_waiters);
	env_unlock(&s->charge_lock);
}

void view_drain(struct view *v)
{
	struct object *o = v->object;
	struct sleeper sleeper;

	atomic_fetch_or(&v->refs, VIEW_DYING);
	sleeper_init(&sleeper);
	view_flush_faults(v);
	for (;;) {
		env_lock(&o->lock);
		if (atomic_load(&v->refs) == VIEW_DYING) {
			env_unlock(&o->lock);
			break;
		}
		list_push_back(&o->waiters, &sleeper.waiter.link);
		env_unlock(&o->lock);
		sleeper_sleep(&sleeper);
	}
	sleeper_destroy(&sleeper);
}

/* In the object's list before it is armed, so that a page filled meanwhile arms it too; in the
 * table before a thread can fault in it. */
static int view_add(struct view *v)
{
	struct object *o = v->object;
	int error;

	error = mmu_view_map(&v->mmu);
	if (error != 0)
		return mkw_set_error(error, "cannot map the view: errno %d%s", -error,
				     error == -ENOTSUP ? " (see `mkwrite doctor`)" : "");
	env_write_lock(&o->views_lock);
	list_push_back(&o->views, &v->link);
	error = view_arm(v, v->first, v->count);
	env_write_unlock(&o->views_lock);
	if (error == 0)
		error = view_enter(v);
	if (error == 0) {
		error = mmu_view_open(&v->mmu);
		if (error == 0) {
			/* If it cannot, the kernel maps page by page. */
			env_read_lock(&o->views_lock);
			view_map_cached(v, v->first, v->count);
			env_read_unlock(&o->views_lock);
			return 0;
		}
		view_leave(v);
		view_drain(v);
	}
	env_write_lock(&o->views_lock);
	mmu_view_unmap(&v->mmu);
	list_remove(&v->link);
	env_write_unlock(&o->views_lock);
	view_set_gone(v);
	return mkw_set_error(error, "cannot prepare the view: errno %d", -error);
}

/* In the table before it is protected: a thread may be writing to it. */
static int adopt_add(struct view *v)
{
	struct object *o = v->object;
	int error = view_enter(v);

	if (error != 0)
		return error;
	env_write_lock(&o->views_lock);
	list_push_back(&o->views, &v->link);
	error = view_is_notified(v) ? mmu_view_adopt(&v->mmu) : 0;
	env_write_unlock(&o->views_lock);
	if (error == 0)
		return 0;
	view_leave(v);
	view_drain(v);
	env_write_lock(&o->views_lock);
	list_remove(&v->link);
	env_write_unlock(&o->views_lock);
	view_set_gone(v);
	return error;
}

int view_adopt(const struct mkw_handle *h, uintptr_t address, size_t length, unsigned protection,
	       uint64_t offset)
{
	struct object *o = h->object;
	struct view *v = view_of_map(h, length, protection, 0, offset);
	struct mapping *mapping;
	int error;

	if (v == NULL)
		return mkw_set_error(-ENOMEM, "no memory for a view");
	mapping = v->mapping;
	v->mmu.backend = MMU_MPROTECT;
	v->mmu.address = address;
	error = adopt_add(v);
	if (error == 0) {
		atomic_fetch_add(&o->view_count, 1);
		if ((protection & MKW_WRITE) != 0)
			mapping_tell_writable(o, mapping);
		mapping_put(o, mapping);
		return 0;
	}
	view_free(v);
	free(mapping);
	return mkw_set_error(error, "cannot watch the mapping at %p: errno %d", (void *)address,
			     -error);
}

static int lock_in_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	(void)arg;
	return view_fill(v, first, count);
}

/* MKW_LOCKED: what there is of the view is brought in, or it is not to be. */
static int view_lock_in(void *address, size_t length)
{
	struct error_record failed = {0};
	int error = views_each(address, length, lock_in_part, NULL);

	if (error == 0)
		return 0;
	error_keep(&failed, error);
	mkw_unmap(address, length);
	return error_say("the view cannot be locked in memory", &failed);
}

int mkw_map(struct mkw_handle *h, size_t length, unsigned protection, unsigned flags,
	    uint64_t offset, void **address)
{
	struct env_shield shield;
	struct mapping *mapping;
	struct object *o;
	struct view *v;
	void *mapped;
	int error;

	error_clear();
	if (h == NULL || address == NULL)
		return mkw_set_error(-EINVAL, "no handle or no place for the address");
	if (process_check(h->object->space) != 0)
		return -ECHILD;
	if ((protection & MKW_WRITE) != 0)
		protection |= MKW_READ;
	error = map_check(h, length, protection, flags, offset);
	if (error == 0)
		error = object_check_cache(h->object);
	if (error != 0)
		return error;
	o = h->object;
	env_shield(&shield);
	v = view_of_map(h, length, protection, flags, offset);
	mapping = v != NULL ? v->mapping : NULL;
	error = v == NULL ? mkw_set_error(-ENOMEM, "no memory for a view") : view_add(v);
	if (error == 0) {
		atomic_fetch_add(&o->view_count, 1);
		mapped = (void *)v->mmu.address;
		if ((protection & MKW_WRITE) != 0 && (flags & MKW_PRIVATE) == 0)
			mapping_tell_writable(o, mapping);
		mapping_put(o, mapping);
		if ((flags & MKW_LOCKED) != 0)
			error = view_lock_in(mapped, length);
		if (error == 0)
			*address = mapped;
	} else if (v != NULL) {
		private_forget(v, v->first, v->count);
		view_free(v);
		free(mapping);
	}
	env_unshield(&shield);
	return error;
}

/* ---- Unmapping ---------------------------------------------------------------------------- */

int view_unmap(struct view *v)
{
	struct object *o = v->object;
	struct mapping *mapping = v->mapping;

	view_drain(v);
	env_write_lock(&o->views_lock);
	mmu_view_unmap(&v->mmu);
	list_remove(&v->link);
	env_write_unlock(&o->views_lock);
	view_set_gone(v);
	private_forget(v, v->first, v->count);
	view_free(v);
	return mapping_put(o, mapping);
}

void view_retire(struct view *v)
{
	struct object *o = v->object;
	uint64_t first = v->first, count = v->count;

	view_drain(v);
	env_write_lock(&o->views_lock);
	/* The child may live: what it wrote is charged, what it writes from here on is refused. */
	while (view_protect(v, first, count) == -ENOMEM)
		env_nap(PROTECT_AGAIN_NS);
	list_remove(&v->link);
	env_write_unlock(&o->views_lock);
	if (view_is_notified(v))
		op_map(o, false);
	private_forget(v, first, count);
	view_free(v);
	object_release(o, USER_VIEW);
}
