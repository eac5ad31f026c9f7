/* SPDX-License-Identifier: MIT */
/*
 * cuts.c - hooks of the calls that take blocks from a file, or give it some: ftruncate, truncate,
 * fallocate. What is cut off is not reserved any more, nor is what the program then allocates
 * itself ours to give back.
 *
 * No lock is held during the call, which may take long, be interrupted or cancelled. What another
 * thread's write has had reserved meanwhile is taken for the program's own as well.
 */
#include "next.h"

#include "maps.h"
#include "run/snapshot.h"
#include "snapshots.h"

#include <errno.h>

struct cut {
	struct run_control *control; /* NULL: it is nothing that concerns us */
	uint64_t dev, ino;
	uint64_t offset, length;
};

static void cut_note(const struct cut *cut)
{
	struct run_event event = {
		.kind = RUN_EVENT_PUNCHED,
		.file = RUN_FILE_NONE,
		.offset = cut->offset,
		.length = cut->length,
	};
	struct maps_change change;
	struct file *f;

	maps_begin(&change);
	f = file_find(cut->dev, cut->ino);
	if (f != NULL) {
		event.file = f->number;
		reserve_forget(&f->reserve, cut->offset, cut->length);
		run_post(cut->control, &event);
	}
	maps_end(&change);
}

/* The blocks of [offset, offset+length) are about to be somebody's else, or nobody's. */
static void cut_begin(struct cut *cut, const struct stat *st, uint64_t offset, uint64_t length)
{
	struct cut made = {preload_control, st->st_dev, st->st_ino, offset, length};
	uint16_t file;

	if (made.control == NULL)
		return;
	file = snapshots_file(st);
	if (file == RUN_FILE_NONE && !file_any())
		return;
	run_hold_begin(made.control);
	cut_note(&made);
	if (file != RUN_FILE_NONE)
		run_snapshot_before_write(made.control, file, offset, length);
	*cut = made;
}

/* Also of a thread that is cancelled in the call. Keeps errno. */
static void cut_end(struct cut *cut)
{
	if (cut->control == NULL)
		return;
	cut_note(cut);
	run_hold_end(cut->control);
}

#define CUT_OF_BLOCK(name) __attribute__((cleanup(cut_end))) struct cut name = {.control = NULL}

static bool look(int fd, struct stat *st)
{
	int saved = errno;
	bool there = (file_any() || snapshots_are_made()) && fstat(fd, st) == 0;

	errno = saved;
	return there;
}

/* Only what it loses; growing takes nothing. */
static void truncate_begin(struct cut *cut, const struct stat *st, off64_t size)
{
	if (preload_control != NULL && size >= 0 && size < st->st_size)
		cut_begin(cut, st, (uint64_t)size, UINT64_MAX - (uint64_t)size);
}

static int ftruncate_hooked(int fd, off64_t size)
{
	CUT_OF_BLOCK(cut);
	struct stat st;

	if (preload_control != NULL && look(fd, &st))
		truncate_begin(&cut, &st, size);
	return NEXT(ftruncate)(fd, size);
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
	CUT_OF_BLOCK(cut);
	struct stat st;
	int saved = errno;

	if (preload_control != NULL && (file_any() || snapshots_are_made()) && stat(path, &st) == 0)
		truncate_begin(&cut, &st, size);
	errno = saved;
	return NEXT(truncate)(path, size);
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

	if (preload_control != NULL && offset >= 0 && length > 0 && look(fd, &st))
		cut_begin(cut, &st, (uint64_t)offset, (uint64_t)length);
}

static int fallocate_hooked(int fd, int mode, off64_t offset, off64_t length)
{
	const int moving = FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE;
	CUT_OF_BLOCK(cut);

	allocate_begin(&cut, fd, offset,
		       (mode & moving) != 0 && offset >= 0 ? INT64_MAX - offset : length);
	return NEXT(fallocate)(fd, mode, offset, length);
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
	CUT_OF_BLOCK(cut);

	allocate_begin(&cut, fd, offset, length);
	return NEXT(posix_fallocate)(fd, offset, length);
}

HOOK int posix_fallocate(int fd, off_t offset, off_t length)
{
	return posix_fallocate_hooked(fd, offset, length);
}

HOOK int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
	return posix_fallocate_hooked(fd, offset, length);
}
