/* SPDX-License-Identifier: MIT */
/*
 * view.c - views: the process's table of them by address, and what is done to all views of an
 * object at once.
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

static struct env_rwlock table_lock = {PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP,
				       RANK_VIEWS};
static struct view **table; /* ascending by address; table_lock */
static size_t table_count, table_capacity;
static _Atomic bool table_any; /* there are some, also on their way in or out */
static size_t table_promised;  /* places for views that are to come back, whatever happens */
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

bool views_any(void)
{
	return atomic_load_explicit(&table_any, memory_order_relaxed);
}

bool views_overlap(uintptr_t address, size_t length)
{
	bool found;
	size_t i;

	env_read_lock(&table_lock);
	i = table_search(address);
	found = i < table_count && table[i]->mmu.address - address < length;
	found |= i < table_count && table[i]->mmu.address <= address;
	env_read_unlock(&table_lock);
	return found;
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

/* => table_lock held for writing. Room for so many views beyond those that have been promised
 * theirs. */
static int table_promise(size_t places)
{
	size_t needed = table_count + table_promised + places, capacity = table_capacity;
	struct view **grown;

	if (needed > capacity) {
		for (capacity = capacity == 0 ? 16 : capacity; capacity < needed;)
			capacity *= 2;
		grown = realloc(table, capacity * sizeof(struct view *));
		if (grown == NULL)
			return -ENOMEM;
		table = grown;
		table_capacity = capacity;
	}
	table_promised += places;
	if (table_promised > 0)
		atomic_store(&table_any, true);
	return 0;
}

/* => table_lock held for writing; there is room. */
static void table_put(struct view *v)
{
	size_t i = table_search(v->mmu.address);

	memmove(&table[i + 1], &table[i], (table_count - i) * sizeof(struct view *));
	table[i] = v;
	table_count++;
}

/* => table_lock held for writing. */
static void table_take(size_t i)
{
	list_push_back(&leaving, &table[i]->leaving);
	memmove(&table[i], &table[i + 1], (table_count - i - 1) * sizeof(struct view *));
	table_count--;
}

/* => table_lock held for writing. */
static void table_trim(void)
{
	if (table_count + table_promised > 0)
		return;
	atomic_store(&table_any, false);
	free(table);
	table = NULL;
	table_capacity = 0;
}

static int table_insert(struct view *v)
{
	int error;

	env_write_lock(&table_lock);
	error = table_promise(1);
	if (error == 0) {
		table_promised--;
		table_put(v);
	}
	env_write_unlock(&table_lock);
	return error;
}

/* False: somebody else was first. */
static bool table_remove(struct view *v)
{
	size_t i;
	bool found;

	env_write_lock(&table_lock);
	i = table_search(v->mmu.address);
	found = i < table_count && table[i] == v;
	if (found)
		table_take(i);
	table_trim();
	env_write_unlock(&table_lock);
	return found;
}

/* => table_lock held. */
static bool is_leaving(uintptr_t start, uintptr_t end)
{
	for (struct list *n = leaving.next; n != &leaving; n = n->next) {
		const struct view *v = container_of(n, struct view, leaving);
		if (v->mmu.address < end && start < v->mmu.address + v->mmu.length)
			return true;
	}
	return false;
}

/* => table_lock held for writing; dropped and taken again until nobody else is at the range. */
static void await_others(uintptr_t start, uintptr_t end)
{
	struct sleeper sleeper;

	sleeper_init(&sleeper);
	while (is_leaving(start, end)) {
		list_push_back(&leaving_waiters, &sleeper.waiter.link);
		env_write_unlock(&table_lock);
		sleeper_sleep(&sleeper);
		env_write_lock(&table_lock);
	}
	sleeper_destroy(&sleeper);
}

int views_claim(struct claim *c, bool (*joins)(const struct view *, const struct view *, void *),
		void *arg)
{
	struct view **tail = &c->views;
	size_t from, to, taken, more;
	int error;

	c->views = NULL;
	env_write_lock(&table_lock);
	await_others(c->start, c->end);
	from = to = table_search(c->start);
	while (to < table_count && table[to]->mmu.address < c->end)
		to++;
	if (from < to && from > 0 && joins(table[from - 1], table[from], arg))
		from--;
	if (from < to && to < table_count && joins(table[to - 1], table[to], arg))
		to++;
	taken = to - from;
	/* The first and the last may leave a piece besides. What goes whole needs no memory. */
	more = c->elsewhere > 0 ? taken + c->elsewhere : 0;
	if (taken > 0 && table[from]->mmu.address < c->start)
		more++;
	if (taken > 0 && table[to - 1]->mmu.address + table[to - 1]->mmu.length > c->end)
		more++;
	error = table_promise(more);
	for (size_t left = error == 0 ? taken : 0; left > 0; left--) {
		*tail = table[from];
		atomic_store(&table[from]->claimed, true);
		tail = &table[from]->next;
		table_take(from);
		table_promised++;
	}
	*tail = NULL;
	c->places = error == 0 ? taken + more : 0;
	env_write_unlock(&table_lock);
	return error;
}

void views_settle(struct claim *c, struct view *made)
{
	env_write_lock(&table_lock);
	table_promised -= c->places;
	for (struct view *v = c->views; v != NULL; v = v->next)
		list_remove(&v->leaving);
	/* A fault that was reported meanwhile has found no view. */
	for (struct view *v = made; v != NULL; v = v->next) {
		atomic_store(&v->claimed, false);
		table_put(v);
		mmu_wake(&v->mmu, v->mmu.address, v->mmu.length);
	}
	table_trim();
	waiters_wake(&leaving_waiters);
	env_write_unlock(&table_lock);
}

/* True: there was a view that left, or was reshaped, and it is over now; or had ended before this
 * looked, and one is at start. */
static bool views_await(uintptr_t start, uintptr_t end)
{
	size_t i;
	bool found;

	env_write_lock(&table_lock);
	i = table_search(start);
	found = is_leaving(start, end) || (i < table_count && table[i]->mmu.address <= start);
	await_others(start, end);
	env_write_unlock(&table_lock);
	return found;
}

/* For an access, the kernel still raises SIGBUS for the address, and would have raised SIGSEGV a
 * moment later; or it did raise SIGSEGV, while what is there is being changed. */
bool view_await_gone(uintptr_t address)
{
	return views_await(address, address + 1);
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
		error = table_insert(v);
	if (error == 0) {
		error = mmu_view_open(&v->mmu);
		if (error == 0) {
			/* If it cannot, the kernel maps page by page. */
			env_read_lock(&o->views_lock);
			view_map_cached(v, v->first, v->count);
			env_read_unlock(&o->views_lock);
			return 0;
		}
		table_remove(v);
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
	int error = table_insert(v);

	if (error != 0)
		return error;
	env_write_lock(&o->views_lock);
	list_push_back(&o->views, &v->link);
	error = view_is_notified(v) ? mmu_view_adopt(&v->mmu) : 0;
	env_write_unlock(&o->views_lock);
	if (error == 0)
		return 0;
	table_remove(v);
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

void views_abandon(void)
{
	static const struct env_rwlock fresh = {PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP,
						RANK_VIEWS};

	size_t kept = 0;

	table_lock = fresh;
	for (size_t i = 0; i < table_count; i++)
		if (table[i]->mmu.backend == MMU_MPROTECT)
			table[kept++] = table[i];
	table_count = kept;
	table_promised = 0;
	table_trim();
	list_init(&leaving);
	list_init(&leaving_waiters);
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

/* The first view in [at, end), referenced. One that is about to take the place of another is waited
 * for. */
static struct view *view_settled(uintptr_t at, uintptr_t end)
{
	struct view *v;

	while ((v = view_next(at)) == NULL || v->mmu.address > at) {
		uintptr_t gap_end = v != NULL && v->mmu.address < end ? v->mmu.address : end;
		bool found = views_await(at, gap_end);

		if (found && v != NULL)
			view_put(v);
		if (!found)
			break;
	}
	if (v != NULL && v->mmu.address >= end) {
		view_put(v);
		v = NULL;
	}
	return v;
}

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
		struct view *v = view_settled(at, end);
		uintptr_t view_end;
		if (v == NULL) {
			gap = true;
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
		if (result == VIEW_GONE) /* look what has taken its place */
			result = 0;
		else
			at = view_end;
	}
	if (result == 0 && gap && process_check_address(at) != 0)
		return -ECHILD;
	if (result == 0 && gap)
		return mkw_set_error(-ENOMEM, "part of the range is not mapped by a view");
	return result;
}
