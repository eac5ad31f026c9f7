/* SPDX-License-Identifier: MIT */
/* ranges.h - the list of mappings, by address. => maps_begin, but for the last one. */
#ifndef RANGES_H
#define RANGES_H

#include "maps.h"

/* Make room for so many more. False: no memory; then the others must not be called. */
bool ranges_promise(size_t more);
/* [start, end) is the map's from here on, whatever was there. Takes up to two places. */
void ranges_set(const struct map *map);
/* Nothing is there any more. Takes up to one place. */
void ranges_clear(uintptr_t start, uintptr_t end);
void ranges_protect(uintptr_t start, uintptr_t end, int protection);
/* The first that ends after address, clipped to [address, end). False: there is none. */
bool ranges_next(uintptr_t address, uintptr_t end, struct map *map);
void ranges_forget_all(void);

/* Is some byte of [start, start+length) in a mapping that the program may write to? Anywhere, in a
 * signal handler, too: no maps_begin. */
bool ranges_writable(uintptr_t start, size_t length);

/* Changes when the list does. Anywhere. */
unsigned ranges_turn(void);

#endif
