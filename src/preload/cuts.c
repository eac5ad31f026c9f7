/* SPDX-License-Identifier: MIT */
/*
 * cuts.c - hooks of the calls that take blocks from a file, or give it some: ftruncate, truncate,
 * fallocate. What is cut off is not reserved any more, nor is what the program then allocates
 * itself ours to give back.
 */
#include "next.h"

#include "maps.h"
#include "run/snapshot.h"
#include "snapshots.h"

#include <errno.h>

struct cut {
	struct maps_change change;
	bool begun;
};

static void cut_file(struct cut *cut, struct file *f, uint64_t offset, uint64_t length)
{
	const struct run_event event = {
		.kind = RUN_EVENT_PUNCHED,
		.file = f->number,
		.offset = offset,
		.length = length,
	};

	(void)cut;
	reserve_forget(&f->reserve, offset, length);
	run_post(preload_control, &event);
}

/* The blocks of [offset, offset+length) are about to be somebody's else, or nobody's. */
static void cut_begin(struct cut *cut, const struct stat *st, uint64_t offset, uint64_t length)
{
	uint16_t number;
	struct file *f;

	cut->begun = preload_control != NULL;
	if (!cut->begun)
		return;
	number = snapshots_file(st);
	maps_begin(&cut->change);
	if (number != RUN_FILE_NONE)
		run_snapshot_before_write(preload_control, number, offset, length);
	f = file_find(st->st_dev, st->st_ino);
	if (f != NULL)
		cut_file(cut, f, offset, length);
}

/* What the call came to is in errno. */
static void cut_end(struct cut *cut)
{
	if (!cut->begun)
		return;
	cut->change.error = errno;
	maps_end(&cut->change);
}

/* Only what it loses; growing takes nothing. */
static void truncate_begin(struct cut *cut, const struct stat *st, off64_t size)
{
	cut->begun = false;
	if (preload_control != NULL && size >= 0 && size < st->st_size)
		cut_begin(cut, st, (uint64_t)size, UINT64_MAX - (uint64_t)size);
}

static int ftruncate_hooked(int fd, off64_t size)
{
	struct cut cut = {.begun = false};
	struct stat st;
	int result;

	if (preload_control != NULL && fstat(fd, &st) == 0)
		truncate_begin(&cut, &st, size);
	result = NEXT(ftruncate)(fd, size);
	cut_end(&cut);
	return result;
}

HOOK int ftruncate(int fd, off_t size)
{
	return ftruncate_hooked(fd, size);
}

HOOK int ftruncate64(int fd, off64_t size)
{
	return ftruncate_hooked(fd, size);
}

static int truncate_hooked(const char *path, off64_t size)
{
	struct cut cut = {.begun = false};
	struct stat st;
	int result;

	if (preload_control != NULL && stat(path, &st) == 0)
		truncate_begin(&cut, &st, size);
	result = NEXT(truncate)(path, size);
	cut_end(&cut);
	return result;
}

HOOK int truncate(const char *path, off_t size)
{
	return truncate_hooked(path, size);
}

HOOK int truncate64(const char *path, off64_t size)
{
	return truncate_hooked(path, size);
}

static void allocate_begin(struct cut *cut, int fd, off64_t offset, off64_t length)
{
	struct stat st;

	cut->begun = false;
	if (preload_control != NULL && offset >= 0 && length > 0 && fstat(fd, &st) == 0)
		cut_begin(cut, &st, (uint64_t)offset, (uint64_t)length);
}

static int fallocate_hooked(int fd, int mode, off64_t offset, off64_t length)
{
	const int moving = FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE;
	struct cut cut;
	int result;

	allocate_begin(&cut, fd, offset,
		       (mode & moving) != 0 && offset >= 0 ? INT64_MAX - offset : length);
	result = NEXT(fallocate)(fd, mode, offset, length);
	cut_end(&cut);
	return result;
}

HOOK int fallocate(int fd, int mode, off_t offset, off_t length)
{
	return fallocate_hooked(fd, mode, offset, length);
}

HOOK int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
	return fallocate_hooked(fd, mode, offset, length);
}

static int posix_fallocate_hooked(int fd, off64_t offset, off64_t length)
{
	int saved = errno, error;
	struct cut cut;

	allocate_begin(&cut, fd, offset, length);
	error = NEXT(posix_fallocate)(fd, offset, length);
	errno = saved;
	cut_end(&cut);
	return error;
}

HOOK int posix_fallocate(int fd, off_t offset, off_t length)
{
	return posix_fallocate_hooked(fd, offset, length);
}

HOOK int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
	return posix_fallocate_hooked(fd, offset, length);
}
