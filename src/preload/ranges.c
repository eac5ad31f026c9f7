/* SPDX-License-Identifier: MIT */
/*
 * ranges.c - the list of mappings: an array, ascending, in memory of our own: a program may have an
 * allocator that maps files.
 *
 * Changed below maps_lock; looked at by anybody (ranges_writable): `turn` is odd while it is
 * changed, and who has looked meanwhile looks again. So an array that has become too small is never
 * unmapped; all of them together are no longer than the last.
 */
#include "ranges.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_BYTES 16384u

struct array {
	size_t capacity;
	_Atomic size_t count;
	struct map maps[];
};

static struct array *_Atomic array;
static _Atomic unsigned turn;
static _Atomic uintptr_t lowest = UINTPTR_MAX, highest; /* where there has ever been one */

static void change_begin(void)
{
	atomic_fetch_add(&turn, 1);
}

static void change_end(void)
{
	atomic_fetch_add(&turn, 1);
}

static size_t search(const struct array *a, uintptr_t address)
{
	size_t low = 0, high = a->count;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (a->maps[mid].end <= address)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- Changing ----------------------------------------------------------------------------- */

static struct array *array_new(size_t bytes, const struct array *old)
{
	struct array *a =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (a == MAP_FAILED)
		return NULL;
	a->capacity = (bytes - sizeof(*a)) / sizeof(a->maps[0]);
	if (old != NULL) {
		memcpy(a->maps, old->maps, old->count * sizeof(a->maps[0]));
		a->count = old->count;
	}
	return a;
}

bool ranges_promise(size_t more)
{
	struct array *a = array, *grown;
	size_t bytes = FIRST_BYTES, wanted = more + (a != NULL ? a->count : 0);

	if (a != NULL && wanted <= a->capacity)
		return true;
	while ((bytes - sizeof(*a)) / sizeof(a->maps[0]) < wanted)
		bytes *= 2;
	grown = array_new(bytes, a);
	if (grown == NULL)
		return false;
	array = grown;
	return true;
}

static void insert(struct array *a, size_t at, const struct map *map)
{
	memmove(&a->maps[at + 1], &a->maps[at], (a->count - at) * sizeof(*map));
	a->maps[at] = *map;
	a->count++;
}

/* The map that address lies in the middle of becomes two. */
static void split(struct array *a, uintptr_t address)
{
	size_t i = search(a, address);
	struct map rest;

	if (i == a->count || a->maps[i].start >= address)
		return;
	rest = a->maps[i];
	rest.offset += address - rest.start;
	rest.start = address;
	a->maps[i].end = address;
	insert(a, i + 1, &rest);
}

static void clear(struct array *a, uintptr_t start, uintptr_t end)
{
	size_t from, to;

	split(a, start);
	split(a, end);
	from = to = search(a, start);
	while (to < a->count && a->maps[to].start < end)
		to++;
	memmove(&a->maps[from], &a->maps[to], (a->count - to) * sizeof(a->maps[0]));
	a->count -= to - from;
}

void ranges_clear(uintptr_t start, uintptr_t end)
{
	struct array *a = array;

	if (a == NULL || a->count == 0 || start >= end)
		return;
	change_begin();
	clear(a, start, end);
	change_end();
}

void ranges_set(const struct map *map)
{
	struct array *a = array;

	change_begin();
	clear(a, map->start, map->end);
	insert(a, search(a, map->start), map);
	if (map->start < lowest)
		lowest = map->start;
	if (map->end > highest)
		highest = map->end;
	change_end();
}

static void each(uintptr_t start, uintptr_t end, void (*fn)(struct map *map, int value), int value)
{
	struct array *a = array;

	if (a == NULL || a->count == 0 || start >= end)
		return;
	change_begin();
	split(a, start);
	split(a, end);
	for (size_t i = search(a, start); i < a->count && a->maps[i].start < end; i++)
		fn(&a->maps[i], value);
	change_end();
}

static void set_protection(struct map *map, int protection)
{
	map->protection = protection;
}

void ranges_protect(uintptr_t start, uintptr_t end, int protection)
{
	each(start, end, set_protection, protection);
}

static void set_not_in_children(struct map *map, int not_in_children)
{
	map->not_in_children = not_in_children != 0;
}

void ranges_keep_from_children(uintptr_t start, uintptr_t end, bool keep)
{
	each(start, end, set_not_in_children, keep);
}

/* ---- Looking ------------------------------------------------------------------------------ */

bool ranges_next(uintptr_t address, uintptr_t end, struct map *map)
{
	const struct array *a = array;
	size_t i = a != NULL ? search(a, address) : 0;

	if (address >= end || a == NULL || i >= a->count || a->maps[i].start >= end)
		return false;
	*map = a->maps[i];
	if (map->start < address) {
		map->offset += address - map->start;
		map->start = address;
	}
	if (map->end > end)
		map->end = end;
	return true;
}

bool ranges_near(uintptr_t address)
{
	return address >= atomic_load(&lowest) && address < atomic_load(&highest);
}

/* One with all these bits of PROT_.... */
static bool look(const struct array *a, uintptr_t start, uintptr_t end, int bits)
{
	for (size_t i = search(a, start); i < a->count && a->maps[i].start < end; i++)
		if ((a->maps[i].protection & bits) == bits)
			return true;
	return false;
}

static bool find(uintptr_t start, uintptr_t end, int bits)
{
	if (start >= atomic_load_explicit(&highest, memory_order_relaxed) ||
	    end <= atomic_load_explicit(&lowest, memory_order_relaxed))
		return false;
	for (;;) {
		unsigned now = atomic_load(&turn);
		bool found = now % 2 == 0 && look(array, start, end, bits);

		atomic_thread_fence(memory_order_acquire);
		if (now % 2 == 0 && atomic_load(&turn) == now)
			return found;
		sched_yield();
	}
}

bool ranges_overlap(uintptr_t start, uintptr_t end)
{
	return find(start, end, 0);
}

bool ranges_writable(uintptr_t start, size_t length)
{
	return length > 0 &&
	       find(start, length < UINTPTR_MAX - start ? start + length : UINTPTR_MAX, PROT_WRITE);
}

unsigned ranges_turn(void)
{
	return atomic_load_explicit(&turn, memory_order_acquire);
}

void ranges_forget_all(void)
{
	if (array == NULL)
		return;
	change_begin();
	array->count = 0;
	change_end();
}
