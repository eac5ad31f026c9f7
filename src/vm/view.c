/* SPDX-License-Identifier: MIT */
/*
 * view.c - views: the process's table of them by address, and what is done to all views of an
 * object at once.
 *
 * A view that is being unmapped is first taken from the table, so that no new fault finds it, and
 * marked dying; parked faults are resumed and end; when the last has gone it is unmapped, and only
 * then leaves the object's list: until the munmap a thread may still write through it.
 */
#include "vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct env_rwlock table_lock = {PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP,
				       RANK_VIEWS};
static struct view **table; /* ascending by address; table_lock */
static size_t table_count, table_capacity;
/* Views taken from it that are not unmapped yet, and who waits for that; table_lock for writing. */
static struct list leaving = {&leaving, &leaving},
		   leaving_waiters = {&leaving_waiters, &leaving_waiters};

/* ---- The table ---------------------------------------------------------------------------- */

/* => table_lock held. The first view that ends after address. */
static size_t table_search(uintptr_t address)
{
	size_t low = 0, high = table_count;

	while (low < high) {
		size_t mid = (low + high) / 2;
		if (table[mid]->mmu.address + table[mid]->mmu.length <= address)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct view *view_find(uintptr_t address)
{
	struct view *v = NULL;
	size_t i;

	env_read_lock(&table_lock);
	i = table_search(address);
	if (i < table_count && table[i]->mmu.address <= address) {
		v = table[i];
		atomic_fetch_add(&v->refs, 1);
	}
	env_read_unlock(&table_lock);
	return v;
}

static struct view *view_next(uintptr_t address)
{
	struct view *v = NULL;
	size_t i;

	env_read_lock(&table_lock);
	i = table_search(address);
	if (i < table_count) {
		v = table[i];
		atomic_fetch_add(&v->refs, 1);
	}
	env_read_unlock(&table_lock);
	return v;
}

bool view_try_get(struct view *v)
{
	unsigned refs = atomic_load(&v->refs);

	while ((refs & VIEW_DYING) == 0)
		if (atomic_compare_exchange_weak(&v->refs, &refs, refs + 1))
			return true;
	return false;
}

void view_put(struct view *v)
{
	struct object *o = v->object;
	unsigned refs = atomic_load(&v->refs);

	while ((refs & VIEW_DYING) == 0)
		if (atomic_compare_exchange_weak(&v->refs, &refs, refs - 1))
			return;
	/* The unmapper looks at refs below this lock, so v and o outlive it. */
	env_lock(&o->lock);
	atomic_fetch_sub(&v->refs, 1);
	waiters_wake(&o->waiters);
	env_unlock(&o->lock);
}

static int table_insert(struct view *v)
{
	size_t i;

	env_write_lock(&table_lock);
	if (table_count == table_capacity) {
		size_t capacity = table_capacity == 0 ? 16 : table_capacity * 2;
		struct view **grown = realloc(table, capacity * sizeof(struct view *));
		if (grown == NULL) {
			env_write_unlock(&table_lock);
			return -ENOMEM;
		}
		table = grown;
		table_capacity = capacity;
	}
	i = table_search(v->mmu.address);
	memmove(&table[i + 1], &table[i], (table_count - i) * sizeof(struct view *));
	table[i] = v;
	table_count++;
	env_write_unlock(&table_lock);
	return 0;
}

/* False: somebody else was first. */
static bool table_remove(struct view *v)
{
	bool found = false;

	env_write_lock(&table_lock);
	for (size_t i = 0; i < table_count && !found; i++) {
		if (table[i] != v)
			continue;
		memmove(&table[i], &table[i + 1], (table_count - i - 1) * sizeof(struct view *));
		table_count--;
		list_push_back(&leaving, &v->leaving);
		found = true;
	}
	if (table_count == 0) {
		free(table);
		table = NULL;
		table_capacity = 0;
	}
	env_write_unlock(&table_lock);
	return found;
}

/* Only inline faults ask: the kernel still raises SIGBUS for the address, and would have raised
 * SIGSEGV a moment later. */
bool view_await_gone(uintptr_t address)
{
	struct sleeper sleeper;
	bool found = false;

	sleeper_init(&sleeper);
	env_write_lock(&table_lock);
	for (struct list *n = leaving.next; n != &leaving && !found; n = n->next) {
		const struct view *v = container_of(n, struct view, leaving);
		found = address - v->mmu.address < v->mmu.length;
	}
	if (found)
		list_push_back(&leaving_waiters, &sleeper.waiter.link);
	env_write_unlock(&table_lock);
	if (found)
		sleeper_sleep(&sleeper);
	sleeper_destroy(&sleeper);
	return found;
}

static void view_set_gone(struct view *v)
{
	env_write_lock(&table_lock);
	list_remove(&v->leaving);
	waiters_wake(&leaving_waiters);
	env_write_unlock(&table_lock);
}

/* ---- All views of an object --------------------------------------------------------------- */

/* The part of [first, first+count) that the view shows. */
static bool view_clip(const struct view *v, uint64_t *first, uint64_t *count)
{
	uint64_t end = *first + *count, view_end = v->first + v->count;
	uint64_t from = *first > v->first ? *first : v->first;
	uint64_t to = end < view_end ? end : view_end;

	if (from >= to)
		return false;
	*first = from;
	*count = to - from;
	return true;
}

static int view_protect(struct view *v, uint64_t first, uint64_t count)
{
	if (!view_is_notified(v) || !view_clip(v, &first, &count))
		return 0;
	return mmu_protect(&v->mmu, view_address(v, first), count << PAGE_SHIFT);
}

int view_map_rw(struct view *v, uint64_t first, uint64_t count)
{
	if (!view_clip(v, &first, &count))
		return 0;
	return mmu_map_rw(&v->mmu, view_address(v, first), count << PAGE_SHIFT);
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
			mmu_zap(&v->mmu, view_address(v, from), pages << PAGE_SHIFT);
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
	return view_is_notified(v)
		       ? mmu_protect(&v->mmu, view_address(v, first), count << PAGE_SHIFT)
		       : 0;
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

static int view_each_region(struct view *v,
			    int (*fn)(struct view *, struct region *, uint64_t, uint64_t))
{
	struct region *r;
	uint64_t next = v->first;
	int error = 0;

	while (error == 0 && (r = region_next(v->object, next)) != NULL) {
		uint64_t first = r->first, count = REGION_PAGES;
		bool inside = view_clip(v, &first, &count);

		if (inside) {
			env_lock(&r->lock);
			error = fn(v, r, first, count);
			env_unlock(&r->lock);
		}
		next = r->first + REGION_PAGES;
		region_put(r);
		if (!inside)
			break;
	}
	return error;
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

static void view_free(struct view *v)
{
	private_put(v);
	env_mutex_destroy(&v->stream_lock);
	free(v);
}

static struct view *view_new(struct object *o, size_t length, unsigned protection, unsigned flags,
			     uint64_t offset)
{
	struct view *v = calloc(1, sizeof(*v));

	if (v == NULL)
		return NULL;
	v->object = o;
	v->first = offset >> PAGE_SHIFT;
	v->count = (length + MKW_PAGE_SIZE - 1) >> PAGE_SHIFT;
	v->protection = protection;
	v->locked = (flags & MKW_LOCKED) != 0;
	v->mmu = (struct mmu_view){
		.mmu = o->space->mmu,
		.backend = (flags & MKW_INLINE) != 0 ? MMU_INLINE : MMU_UFFD,
		.length = v->count << PAGE_SHIFT,
		.writable = (protection & MKW_WRITE) != 0,
		.private = (flags & MKW_PRIVATE) != 0,
		.frames = o->frames,
		.offset = offset,
	};
	list_init(&v->link);
	list_init(&v->leaving);
	env_mutex_init(&v->stream_lock, RANK_LEAF);
	if (v->mmu.private) {
		v->private = private_new(v->first, v->count);
		if (v->private == NULL) {
			view_free(v);
			return NULL;
		}
	}
	return v;
}
static void view_drain(struct view *v);

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
	error = view_each_region(v, view_arm_region);
	env_write_unlock(&o->views_lock);
	if (error == 0)
		error = table_insert(v);
	if (error == 0) {
		error = mmu_view_open(&v->mmu);
		if (error == 0) {
			/* If it cannot, the kernel maps page by page. */
			env_read_lock(&o->views_lock);
			view_each_region(v, view_map_region);
			env_read_unlock(&o->views_lock);
			return 0;
		}
		table_remove(v);
		atomic_fetch_or(&v->refs, VIEW_DYING);
		view_drain(v);
	}
	env_write_lock(&o->views_lock);
	mmu_view_unmap(&v->mmu);
	list_remove(&v->link);
	env_write_unlock(&o->views_lock);
	view_set_gone(v);
	return mkw_set_error(error, "cannot prepare the view: errno %d", -error);
}

/* MKW_LOCKED: what there is of the view is brought in, or it is not to be. */
static int view_lock_in(struct view *v)
{
	struct error_record failed = {0};
	int error = v->locked ? view_fill(v, v->first, v->count) : 0;

	if (error == 0)
		return 0;
	error_keep(&failed, error);
	if (table_remove(v))
		view_unmap(v);
	return error_say("the view cannot be locked in memory", &failed);
}

int mkw_map(struct mkw_handle *h, size_t length, unsigned protection, unsigned flags,
	    uint64_t offset, void **address)
{
	struct env_shield shield;
	struct object *o;
	struct view *v;
	void *mapped;
	int error;

	error_clear();
	if (h == NULL || address == NULL)
		return mkw_set_error(-EINVAL, "no handle or no place for the address");
	if ((protection & MKW_WRITE) != 0)
		protection |= MKW_READ;
	error = map_check(h, length, protection, flags, offset);
	if (error != 0)
		return error;
	o = h->object;
	env_shield(&shield);
	v = view_new(o, length, protection, flags, offset);
	error = v == NULL ? mkw_set_error(-ENOMEM, "no memory for a view") : view_add(v);
	if (error == 0) {
		atomic_fetch_add(&o->view_count, 1);
		if (view_is_notified(v))
			op_map(o, true);
		mapped = (void *)v->mmu.address;
		error = view_lock_in(v);
		if (error == 0)
			*address = mapped;
	} else if (v != NULL) {
		view_free(v);
	}
	env_unshield(&shield);
	return error;
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

static void view_drain(struct view *v)
{
	struct object *o = v->object;
	struct sleeper sleeper;

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

int view_unmap(struct view *v)
{
	struct object *o = v->object;

	atomic_fetch_or(&v->refs, VIEW_DYING);
	view_drain(v);
	env_write_lock(&o->views_lock);
	mmu_view_unmap(&v->mmu);
	list_remove(&v->link);
	env_write_unlock(&o->views_lock);
	view_set_gone(v);
	/* Not before: should the store touch the view it is not left to wait for this thread. */
	if (view_is_notified(v))
		op_map(o, false);
	view_free(v);
	return object_release(o, USER_VIEW);
}

/* => shielded: a signal handler that faults would need the table's lock. */
static int unmap_at(void *address, size_t length)
{
	struct view *v;
	bool mine;

	v = view_find((uintptr_t)address);
	if (v == NULL)
		return mkw_set_error(-EINVAL, "no view is mapped at %p", address);
	if (v->mmu.address != (uintptr_t)address || length > v->mmu.length ||
	    v->mmu.length - length >= MKW_PAGE_SIZE) {
		view_put(v);
		return mkw_set_error(-EINVAL, "a view is unmapped whole: %zu bytes at %p",
				     v->mmu.length, (void *)v->mmu.address);
	}
	if (op_running()) {
		view_put(v);
		return mkw_set_error(-EDEADLK, "mkw_unmap inside a store operation");
	}
	mine = table_remove(v);
	view_put(v);
	if (mine)
		view_unmap(v);
	return mine ? 0 : mkw_set_error(-EINVAL, "the view at %p is being unmapped", address);
}

int mkw_unmap(void *address, size_t length)
{
	struct env_shield shield;
	int error;

	error_clear();
	env_shield(&shield);
	error = unmap_at(address, length);
	env_unshield(&shield);
	return error;
}

/* A view of the space, taken from the table, or NULL: for mkw_space_destroy. */
struct view *view_steal(const struct space *s)
{
	struct view *v = NULL;

	env_read_lock(&table_lock);
	for (size_t i = 0; i < table_count && v == NULL; i++)
		if (table[i]->object->space == s)
			v = table[i];
	env_read_unlock(&table_lock);
	return v != NULL && table_remove(v) ? v : NULL;
}

/* ---- Calls on ranges of addresses --------------------------------------------------------- */

/* Run fn on the parts of views in [address, address+length). -ENOMEM: some of it is no view. */
int views_each(void *address, size_t length, int (*fn)(struct view *, uint64_t, uint64_t, void *),
	       void *arg)
{
	uintptr_t at = (uintptr_t)address, end;
	int result = 0;
	bool gap = false;

	if (at % MKW_PAGE_SIZE != 0 || length > UINTPTR_MAX - MKW_PAGE_SIZE - at)
		return mkw_set_error(-EINVAL, "address not page aligned, or the range overflows");
	end = at + ((length + MKW_PAGE_SIZE - 1) & ~(size_t)(MKW_PAGE_SIZE - 1));
	while (at < end && result == 0) {
		struct view *v = view_next(at);
		uintptr_t view_end;
		if (v == NULL || v->mmu.address >= end) {
			gap = true;
			if (v != NULL)
				view_put(v);
			break;
		}
		if (v->mmu.address > at) {
			gap = true;
			at = v->mmu.address;
		}
		view_end = v->mmu.address + v->mmu.length;
		if (view_end > end)
			view_end = end;
		result = fn(v, v->first + ((at - v->mmu.address) >> PAGE_SHIFT),
			    (view_end - at) >> PAGE_SHIFT, arg);
		view_put(v);
		at = view_end;
	}
	if (result == 0 && gap)
		return mkw_set_error(-ENOMEM, "part of the range is not mapped by a view");
	return result;
}
