/* SPDX-License-Identifier: MIT */
/*
 * ranges.c - the list of mappings: an array, ascending, in memory of our own: a program may have an
 * allocator that maps files.
 */
#include "ranges.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_CAPACITY 256u

static struct map *maps;
static size_t count, capacity;

static size_t search(uintptr_t address)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (maps[mid].end <= address)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
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
	if (capacity > 0)
		munmap(maps, capacity * sizeof(*maps));
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

void ranges_clear(uintptr_t start, uintptr_t end)
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

void ranges_set(const struct map *map)
{
	ranges_clear(map->start, map->end);
	insert(search(map->start), map);
}

void ranges_protect(uintptr_t start, uintptr_t end, int protection)
{
	if (count == 0)
		return;
	split(start);
	split(end);
	for (size_t i = search(start); i < count && maps[i].start < end; i++)
		maps[i].protection = protection;
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
