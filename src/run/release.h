/* SPDX-License-Identifier: MIT */
/*
 * release.h - give space of a file back that was reserved and is not written, while nobody else has
 * the file open (release.c says why nothing can be lost).
 */
#ifndef RELEASE_H
#define RELEASE_H

#include "run/filesystem.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct release {
	int fd;
	enum filesystem_holes holes;
	bool counting; /* only look how much there is */
	bool synced;   /* all is written back, so UNWRITTEN is to be believed */
	struct timespec modified;
	uint64_t size;
	uint64_t released_bytes, left_bytes;
};

/*
 * Open the file, if that name still means that file, and see that nobody else has it open, nor will
 * before release_end. 0; or -errno (ledger.h): then release_range only counts what there would be,
 * and release_end is to be called as well.
 */
int release_begin(struct release *r, const char *path, uint64_t dev, uint64_t ino);
/* Give back what of this range is allocated and not written. 0 or -errno: -EAGAIN somebody is
 * waiting for the file. */
int release_range(struct release *r, uint64_t start, uint64_t end);
void release_end(struct release *r);

#endif
