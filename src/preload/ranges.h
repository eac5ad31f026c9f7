/* SPDX-License-Identifier: MIT */
/* ranges.h - the list of mappings, by address. => maps_begin, where nothing else is said. */
#ifndef RANGES_H
#define RANGES_H

#include "maps.h"

/* Make room for so many more. False: no memory; then the others must not be called. */
bool ranges_promise(size_t more);
/* [start, end) is the map's from here on, whatever was there. Takes up to two places. */
void ranges_set(const struct map *map);
/* Nothing is there any more. Takes up to one place. */
void ranges_clear(uintptr_t start, uintptr_t end);
/* Each takes up to two. */
void ranges_protect(uintptr_t start, uintptr_t end, int protection);
void ranges_keep_from_children(uintptr_t start, uintptr_t end, bool keep);
/* The first that ends after address, clipped to [address, end). False: there is none. */
bool ranges_next(uintptr_t address, uintptr_t end, struct map *map);
void ranges_forget_all(void);

/* Is some of it in a mapping; in one that may be written? Anywhere, and in a signal handler; no
 * system call. */
bool ranges_overlap(uintptr_t start, uintptr_t end);
bool ranges_writable(uintptr_t start, size_t length);
/* Changes when the list does. */
unsigned ranges_turn(void);
/* May there ever have been a mapping at the address? The same. */
bool ranges_near(uintptr_t address);

#endif
