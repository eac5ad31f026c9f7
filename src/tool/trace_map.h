/* SPDX-License-Identifier: MIT */
/*
 * trace_map.h - from pairs of numbers to numbers: a hash table that only grows.
 */
#ifndef TRACE_MAP_H
#define TRACE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot {
	uint64_t a, b;
	uint32_t value;
	bool used;
};

struct map { /* zeroes: empty */
	struct map_slot *slots;
	size_t count, capacity;
};

/* The value of (a, b), set to value if it is new. NULL: no memory. Good until the next call. */
uint32_t *map_at(struct map *map, uint64_t a, uint64_t b, uint32_t value);
void map_clear(struct map *map);
void map_free(struct map *map);

/* Room for one more in an array that grows by doubling. False: no memory. */
bool array_grow(void *array, size_t count, size_t *capacity, size_t entry_bytes);

#endif
