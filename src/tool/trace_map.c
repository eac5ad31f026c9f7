/* SPDX-License-Identifier: MIT */
/*
 * trace_map.c - a hash table with open addressing, at most half full; and arrays that grow.
 */
#include "trace_map.h"

#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 64u /* a power of two */

static size_t hash(uint64_t a, uint64_t b)
{
	uint64_t h = (a ^ (b << 32 | b >> 32)) * 0x9e3779b97f4a7c15u;

	h = (h ^ (h >> 29) ^ b) * 0xbf58476d1ce4e5b9u;
	return (size_t)(h ^ (h >> 32));
}

static struct map_slot *slot_of(const struct map *map, uint64_t a, uint64_t b)
{
	size_t i = hash(a, b) & (map->capacity - 1);

	while (map->slots[i].used && (map->slots[i].a != a || map->slots[i].b != b))
		i = (i + 1) & (map->capacity - 1);
	return &map->slots[i];
}

static bool grow(struct map *map)
{
	struct map larger = {.capacity = map->capacity ? 2 * map->capacity : CAPACITY_MIN};

	larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
	if (!larger.slots)
		return false;
	larger.count = map->count;
	for (size_t i = 0; i < map->capacity; i++)
		if (map->slots[i].used)
			*slot_of(&larger, map->slots[i].a, map->slots[i].b) = map->slots[i];
	free(map->slots);
	*map = larger;
	return true;
}

uint32_t *map_at(struct map *map, uint64_t a, uint64_t b, uint32_t value)
{
	struct map_slot *slot;

	if (2 * (map->count + 1) > map->capacity && !grow(map))
		return NULL;
	slot = slot_of(map, a, b);
	if (!slot->used) {
		*slot = (struct map_slot){a, b, value, true};
		map->count++;
	}
	return &slot->value;
}

void map_clear(struct map *map)
{
	if (map->slots)
		memset(map->slots, 0, map->capacity * sizeof(*map->slots));
	map->count = 0;
}

void map_free(struct map *map)
{
	free(map->slots);
	*map = (struct map){0};
}

bool array_grow(void *array, size_t count, size_t *capacity, size_t entry_bytes)
{
	size_t larger = *capacity ? 2 * *capacity : 16;
	void *old, *new;

	if (count < *capacity)
		return true;
	memcpy(&old, array, sizeof(old));
	new = reallocarray(old, larger, entry_bytes);
	if (!new)
		return false;
	memcpy(array, &new, sizeof(new));
	*capacity = larger;
	return true;
}
