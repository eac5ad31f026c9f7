/* SPDX-License-Identifier: MIT */
/*
 * view_table.c - the process's table of views by address, and calls on ranges of addresses.
 *
 * A fault finds a view here, and takes a reference. Whoever unmaps or changes views takes them from
 * the table first; until they are gone, or others are in their place, they are among those that
 * leave, and who finds nothing at an address waits for them.
 *
 * Locks: table_lock (rank VIEWS), for the table and those that leave.
 */
#include "vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

int view_enter(struct view *v)
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

bool view_leave(struct view *v)
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

void view_set_gone(struct view *v)
{
	env_write_lock(&table_lock);
	list_remove(&v->leaving);
	waiters_wake(&leaving_waiters);
	env_write_unlock(&table_lock);
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
	return v != NULL && view_leave(v) ? v : NULL;
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
