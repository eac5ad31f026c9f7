/* SPDX-License-Identifier: MIT */
/*
 * ranges.c - the list of mappings: an array, ascending, in memory of our own: a program may have an
 * allocator that maps files.
 *
 * It is changed by one thread at a time (maps_begin), and looked at without a lock by
 * ranges_writable: `turn` is odd while it changes. An array that has become too small stays mapped
 * for such readers.
 */
#include "ranges.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_CAPACITY 256u

static struct map *_Atomic maps;
static _Atomic size_t count; /* read before maps: then all of them are there */
static size_t capacity;
static _Atomic unsigned turn;

static void change_begin(void)
{
	atomic_fetch_add(&turn, 1);
	atomic_thread_fence(memory_order_seq_cst);
}

static void change_end(void)
{
	atomic_fetch_add(&turn, 1);
}

/* The first of n that ends after address. */
static size_t search_in(const struct map *in, size_t n, uintptr_t address)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (in[mid].end <= address)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static size_t search(uintptr_t address)
{
	return search_in(maps, count, address);
}

unsigned ranges_turn(void)
{
	return atomic_load_explicit(&turn, memory_order_acquire);
}

bool ranges_writable(uintptr_t start, size_t length)
{
	const struct map *in;
	unsigned before;
	bool found;
	size_t n;

	do {
		before = atomic_load_explicit(&turn, memory_order_acquire);
		n = atomic_load_explicit(&count, memory_order_acquire);
		if (n == 0 && before % 2 == 0)
			return false;
		in = atomic_load_explicit(&maps, memory_order_relaxed);
		found = false;
		for (size_t i = search_in(in, n, start); i < n && !found; i++) {
			if (in[i].start > start && in[i].start - start >= length)
				break;
			found = (in[i].protection & PROT_WRITE) != 0;
		}
		atomic_thread_fence(memory_order_acquire);
	} while (before % 2 || atomic_load_explicit(&turn, memory_order_relaxed) != before);
	return found;
}

bool ranges_promise(size_t more)
{
	size_t wanted = capacity == 0 ? FIRST_CAPACITY : capacity;
	struct map *grown;

	while (wanted < count + more)
		wanted *= 2;
	if (wanted == capacity)
		return true;
	grown = mmap(NULL, wanted * sizeof(*maps), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (grown == MAP_FAILED)
		return false;
	if (count > 0)
		memcpy(grown, maps, count * sizeof(*maps));
	maps = grown;
	capacity = wanted;
	return true;
}

static void insert(size_t at, const struct map *map)
{
	memmove(&maps[at + 1], &maps[at], (count - at) * sizeof(*maps));
	maps[at] = *map;
	count++;
}

/* The map that address lies in the middle of becomes two. */
static void split(uintptr_t address)
{
	size_t i = search(address);
	struct map rest;

	if (i == count || maps[i].start >= address)
		return;
	rest = maps[i];
	rest.offset += address - rest.start;
	rest.start = address;
	maps[i].end = address;
	insert(i + 1, &rest);
}

static void clear(uintptr_t start, uintptr_t end)
{
	size_t from, to;

	if (count == 0 || start >= end)
		return;
	split(start);
	split(end);
	from = to = search(start);
	while (to < count && maps[to].start < end)
		to++;
	memmove(&maps[from], &maps[to], (count - to) * sizeof(*maps));
	count -= to - from;
}

void ranges_clear(uintptr_t start, uintptr_t end)
{
	change_begin();
	clear(start, end);
	change_end();
}

void ranges_set(const struct map *map)
{
	change_begin();
	clear(map->start, map->end);
	insert(search(map->start), map);
	change_end();
}

void ranges_protect(uintptr_t start, uintptr_t end, int protection)
{
	if (count == 0)
		return;
	change_begin();
	split(start);
	split(end);
	for (size_t i = search(start); i < count && maps[i].start < end; i++)
		maps[i].protection = protection;
	change_end();
}

bool ranges_next(uintptr_t address, uintptr_t end, struct map *map)
{
	size_t i = count > 0 ? search(address) : 0;

	if (i >= count || address >= end || maps[i].start >= end)
		return false;
	*map = maps[i];
	if (map->start < address) {
		map->offset += address - map->start;
		map->start = address;
	}
	if (map->end > end)
		map->end = end;
	return true;
}

void ranges_forget_all(void)
{
	count = 0;
}
