/* SPDX-License-Identifier: MIT */
/*
 * chunkmap.c - a sparse map from page numbers to chunks (chunkmap.h).
 *
 * A radix tree of three levels of 14 bits: with the 9 bits within a chunk and the 12 within a page
 * it covers every file offset, 2^63. A node is 128 KiB of address space, of which the kernel
 * provides only the touched pages: one page of a lowest node serves 1 GiB of the object.
 *
 * States of a slot: NULL, then a node or chunk for ever. Slots are filled under map->lock and read
 * without.
 */
#include "store/chunkmap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define NODE_BITS  14u
#define NODE_SLOTS (1u << NODE_BITS)
#define LEVELS	   3u
#define SLAB_BYTES (128u * 1024)

static const struct mkw_lock_class chunk_class = {.name = "chunk", .rank = CHUNK_RANK};
static const struct mkw_lock_class map_class = {.name = "chunk map", .rank = CHUNKS_RANK};

typedef _Atomic(void *) slot;

/* The region's own header takes the first 64 bytes, and keeps what follows aligned. */
#define REGION_HEADER 64u

static void *region_alloc(struct chunkmap *map, size_t size)
{
	struct chunkmap_region *region = mmap(NULL, size + REGION_HEADER, PROT_READ | PROT_WRITE,
					      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (region == MAP_FAILED)
		return NULL;
	region->size = size + REGION_HEADER;
	region->next = map->regions;
	map->regions = region;
	return (unsigned char *)region + REGION_HEADER;
}

int chunkmap_init(struct chunkmap *map)
{
	memset(map, 0, sizeof(*map));
	store_lock_init(&map->lock, &map_class);
	void *root = region_alloc(map, NODE_SLOTS * sizeof(slot));

	if (!root) {
		store_lock_destroy(&map->lock);
		return -ENOMEM;
	}
	atomic_init(&map->root, root);
	return 0;
}

void chunkmap_destroy(struct chunkmap *map)
{
	for (struct chunk *c = chunkmap_next(map, 0); c;
	     c = chunkmap_next(map, c->first + CHUNK_PAGES))
		store_lock_destroy(&c->lock);
	store_lock_destroy(&map->lock);
	while (map->regions) {
		struct chunkmap_region *region = map->regions;

		map->regions = region->next;
		munmap(region, region->size);
	}
}

static slot *node_slot(void *node, uint64_t number, unsigned level)
{
	unsigned shift = NODE_BITS * (LEVELS - 1 - level);

	return (slot *)node + (number >> shift & (NODE_SLOTS - 1));
}

struct chunk *chunkmap_find(struct chunkmap *map, uint64_t page)
{
	void *node = atomic_load_explicit(&map->root, memory_order_acquire);

	for (unsigned level = 0; level < LEVELS && node; level++)
		node = atomic_load_explicit(node_slot(node, page / CHUNK_PAGES, level),
					    memory_order_acquire);
	return node;
}

/* => map->lock held */
static struct chunk *chunk_create(struct chunkmap *map, uint64_t first)
{
	size_t size = (sizeof(struct chunk) + 63) & ~(size_t)63;

	if (map->slab_left < size) {
		map->slab = region_alloc(map, SLAB_BYTES);
		map->slab_left = map->slab ? SLAB_BYTES : 0;
		if (!map->slab)
			return NULL;
	}
	struct chunk *chunk = (struct chunk *)(void *)map->slab;

	map->slab += size;
	map->slab_left -= size;
	store_lock_init(&chunk->lock, &chunk_class);
	chunk->first = first;
	return chunk;
}

struct chunk *chunkmap_get(struct chunkmap *map, uint64_t page)
{
	struct chunk *chunk = chunkmap_find(map, page);

	if (chunk)
		return chunk;
	store_lock(&map->lock);
	void *node = atomic_load_explicit(&map->root, memory_order_relaxed);

	for (unsigned level = 0; level < LEVELS && node; level++) {
		slot *at = node_slot(node, page / CHUNK_PAGES, level);

		node = atomic_load_explicit(at, memory_order_relaxed);
		if (node)
			continue;
		if (level == LEVELS - 1)
			node = chunk_create(map, page / CHUNK_PAGES * CHUNK_PAGES);
		else
			node = region_alloc(map, NODE_SLOTS * sizeof(slot));
		atomic_store_explicit(at, node, memory_order_release);
	}
	store_unlock(&map->lock);
	return node;
}

struct chunk *chunkmap_next(struct chunkmap *map, uint64_t page)
{
	uint64_t number = page / CHUNK_PAGES;

	while (!(number >> NODE_BITS * LEVELS)) {
		void *node = atomic_load_explicit(&map->root, memory_order_acquire);
		unsigned level = 0;

		for (; level < LEVELS && node; level++)
			node = atomic_load_explicit(node_slot(node, number, level),
						    memory_order_acquire);
		if (node)
			return node;
		/* Nothing below the slot that was empty: on to the slot behind it. */
		unsigned shift = NODE_BITS * (LEVELS - level);

		number = ((number >> shift) + 1) << shift;
	}
	return NULL;
}

/* ---- Bits --------------------------------------------------------------------------------- */

/* The part of [from, end) that lies in the word of from. */
static uint64_t word_mask(unsigned from, unsigned end)
{
	uint64_t mask = ~(uint64_t)0 << from % 64;

	if (end / 64 == from / 64)
		mask &= ~(~(uint64_t)0 << end % 64);
	return mask;
}

static unsigned word_next(unsigned from)
{
	return (from | 63) + 1;
}

bool bits_test(const chunk_bits bits, unsigned page)
{
	return bits[page / 64] >> page % 64 & 1;
}

void bits_set(chunk_bits bits, unsigned from, unsigned end)
{
	for (; from < end; from = word_next(from))
		bits[from / 64] |= word_mask(from, end);
}

void bits_clear(chunk_bits bits, unsigned from, unsigned end)
{
	for (; from < end; from = word_next(from))
		bits[from / 64] &= ~word_mask(from, end);
}

unsigned bits_count(const chunk_bits bits, unsigned from, unsigned end)
{
	unsigned count = 0;

	for (; from < end; from = word_next(from))
		count += (unsigned)__builtin_popcountll(bits[from / 64] & word_mask(from, end));
	return count;
}

bool bits_any(const chunk_bits bits, unsigned from, unsigned end)
{
	return bits_next(bits, from, end, true) < end;
}

bool bits_all(const chunk_bits bits, unsigned from, unsigned end)
{
	return bits_next(bits, from, end, false) >= end;
}

unsigned bits_next(const chunk_bits bits, unsigned from, unsigned end, bool value)
{
	for (; from < end; from = word_next(from)) {
		uint64_t word = (value ? bits[from / 64] : ~bits[from / 64]) & word_mask(from, end);

		if (word)
			return from / 64 * 64 + (unsigned)__builtin_ctzll(word);
	}
	return end;
}
