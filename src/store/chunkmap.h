/* SPDX-License-Identifier: MIT */
/*
 * chunkmap.h - what a store knows of each page of a large and sparse object: a few bits a page, in
 * chunks of 512 pages that come into being when first needed.
 *
 * Looking up takes no lock and makes no system call. Chunks never move and live as long as the map,
 * so a pointer to one stays good. Memory comes straight from the kernel, never from malloc: the
 * map is used in the fault path. A terabyte that is not touched costs nothing.
 *
 * Locks: chunk->lock protects the chunk's bits; a leaf, held for no longer than it takes to look.
 * The map's own lock is for making chunks; a leaf too.
 */
#ifndef STORE_CHUNKMAP_H
#define STORE_CHUNKMAP_H

#include "store/lock.h"

#include <stdatomic.h>

#define CHUNK_PAGES   512u
#define CHUNK_BYTES   ((uint64_t)CHUNK_PAGES * MKW_PAGE_SIZE)
#define CHUNK_BITMAPS 4u

typedef uint64_t chunk_bits[CHUNK_PAGES / 64];

struct chunk {
	struct store_lock lock;
	uint64_t first; /* its first page */
	chunk_bits bits[CHUNK_BITMAPS];
	_Atomic(unsigned char *) data; /* the owner's */
	bool known;		       /* the owner's, under lock */
};

struct chunkmap {
	struct store_lock lock;
	_Atomic(void *) root;
	unsigned char *slab; /* what is left of it */
	size_t slab_left;
	struct chunkmap_region {
		struct chunkmap_region *next;
		size_t size;
	} * regions; /* all memory, to be given back */
};

/* 0 or -ENOMEM. */
int chunkmap_init(struct chunkmap *map);
void chunkmap_destroy(struct chunkmap *map);

/* The chunk of a page; find: NULL if there is none yet; get: NULL if there is no memory. */
struct chunk *chunkmap_find(struct chunkmap *map, uint64_t page);
struct chunk *chunkmap_get(struct chunkmap *map, uint64_t page);

/* The first existing chunk that ends behind page; NULL: none. */
struct chunk *chunkmap_next(struct chunkmap *map, uint64_t page);

/* ---- Bits: ranges are [from, end) of the pages of one chunk ------------------------------- */

bool bits_test(const chunk_bits bits, unsigned page);
void bits_set(chunk_bits bits, unsigned from, unsigned end);
void bits_clear(chunk_bits bits, unsigned from, unsigned end);
unsigned bits_count(const chunk_bits bits, unsigned from, unsigned end);
bool bits_any(const chunk_bits bits, unsigned from, unsigned end);
bool bits_all(const chunk_bits bits, unsigned from, unsigned end);

/* The first page at or behind from whose bit is value; end if there is none. */
unsigned bits_next(const chunk_bits bits, unsigned from, unsigned end, bool value);

#endif
