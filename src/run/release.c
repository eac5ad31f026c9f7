/* SPDX-License-Identifier: MIT */
/*
 * release.c - give space of a file back that was reserved and is not written (release.h).
 *
 * Why no byte can be lost:
 *  - It happens under a write lease, which the kernel gives only while nobody else has the file
 *    open; a mapping counts. So nobody can write but who opens the file anew, and he waits until
 *    the lease is gone. Whether somebody waits is looked at before each hole; then we stop.
 *    He waits for lease-break-time (45 s): a process that is stopped for longer between that look
 *    and the next system call is the only gap that is left.
 *  - Only extents that FIEMAP calls UNWRITTEN are given back, and of these only what has no dirty
 *    page either. That is looked at first: a page that is clean has been written back, and its
 *    extent is UNWRITTEN no more (ext4 and xfs convert it before the page is clean), or was never
 *    written. Pages that are cached and clean are read besides: a hole in place of zeros changes
 *    nothing, even if the write-back of something else had failed.
 *  - Where that order is not sure, or the kernel cannot tell (cachestat, 6.5), all of the file is
 *    written back first. It is not done everywhere because it takes its time.
 *  - On tmpfs SEEK_HOLE says which pages were never written.
 * A folio of many pages is dirty as a whole: what a write(2) to a part of it has left unwritten
 * stays reserved. A store through a mapping makes the kernel write all of the folio anyway.
 */
#include "run/release.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_BYTES     4096u
#define FIEMAP_EXTENTS 64u
#define READ_BYTES     (16u * PAGE_BYTES)

typedef int range_fn(struct release *r, uint64_t start, uint64_t end);

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ---- Opening ------------------------------------------------------------------------------ */

static int file_open(const char *path, uint64_t dev, uint64_t ino)
{
	char self[64];
	struct stat st;
	int fd, place = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (place < 0)
		return -errno;
	if (fstat(place, &st) || !S_ISREG(st.st_mode) || st.st_dev != dev || st.st_ino != ino) {
		close(place);
		return -ENOENT;
	}
	snprintf(self, sizeof(self), "/proc/self/fd/%d", place);
	/* Not to wait for another's lease. */
	fd = open(self, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(place);
	return fd;
}

static int file_lease(int fd)
{
	/* The usual signal of a lease would end this process; nobody heeds this one. */
	if (fcntl(fd, F_SETSIG, SIGURG) || fcntl(fd, F_SETLEASE, F_WRLCK))
		return -errno;
	return 0;
}

/* Pages of the range that are dirty, or being written; -1: the kernel is too old to tell. */
static int64_t pages_dirty(int fd, uint64_t start, uint64_t end)
{
	struct filesystem_pages count;

	if (!filesystem_cachestat(fd, start, end, &count))
		return -1;
	return (int64_t)(count.dirty + count.writeback);
}

static bool dirty_is_sure(int fd, const struct statfs *fs)
{
	return (fs->f_type == EXT4_SUPER_MAGIC || fs->f_type == FILESYSTEM_XFS) &&
	       pages_dirty(fd, 0, PAGE_BYTES) >= 0;
}

static int release_prepare(struct release *r)
{
	struct statfs fs;
	struct stat st;
	int error;

	if (fstatfs(r->fd, &fs) || fstat(r->fd, &st))
		return -errno;
	r->modified = st.st_mtim;
	r->size = (uint64_t)st.st_size;
	r->holes = filesystem_holes(&fs);
	if (r->holes == HOLES_UNKNOWN)
		return -EOPNOTSUPP;
	error = file_lease(r->fd);
	if (error || r->holes == HOLES_BY_PAGE || dirty_is_sure(r->fd, &fs))
		return error;
	r->synced = true;
	return fdatasync(r->fd) ? -errno : 0;
}

int release_begin(struct release *r, const char *path, uint64_t dev, uint64_t ino)
{
	int error;

	memset(r, 0, sizeof(*r));
	r->fd = file_open(path, dev, ino);
	error = r->fd < 0 ? r->fd : release_prepare(r);
	r->counting = error != 0;
	return error;
}

void release_end(struct release *r)
{
	const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, r->modified};

	if (r->fd < 0)
		return;
	/* Of the bytes nothing has changed. */
	if (r->released_bytes)
		futimens(r->fd, times);
	/* Whoever waits goes on now, also if a child of this process has the descriptor still. */
	fcntl(r->fd, F_SETLEASE, F_UNLCK);
	close(r->fd);
}

/* ---- Holes -------------------------------------------------------------------------------- */

static int hole_punch(struct release *r, uint64_t start, uint64_t end)
{
	int result;

	if (r->counting) {
		r->left_bytes += end - start;
		return 0;
	}
	if (fcntl(r->fd, F_GETLEASE) != F_WRLCK)
		return -EAGAIN;
	do
		result = fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
				   (off_t)(end - start));
	while (result && errno == EINTR);
	if (result)
		return -errno;
	r->released_bytes += end - start;
	return 0;
}

static bool is_zero(const char *bytes, size_t length)
{
	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* What can be read as zeros. */
static int zeros_punch(struct release *r, uint64_t start, uint64_t end)
{
	static char bytes[READ_BYTES];
	uint64_t at = start, limit = least(end, r->size);
	int error = 0;

	while (at < limit && !error) {
		uint64_t wanted = least(limit - at, READ_BYTES), stop = at + wanted;
		ssize_t got = pread(r->fd, bytes, wanted, (off_t)at);

		if (got < 0 || (uint64_t)got != wanted)
			return got < 0 ? -errno : -EIO;
		for (uint64_t base = at; at < stop && !error; at += PAGE_BYTES) {
			if (is_zero(bytes + (at - base), least(stop - at, PAGE_BYTES)))
				continue;
			if (at > start)
				error = hole_punch(r, start, at);
			start = at + PAGE_BYTES;
		}
	}
	return error || start >= end ? error : hole_punch(r, start, end);
}

static int unwritten_each(struct release *r, uint64_t start, uint64_t end, range_fn *fn)
{
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + FIEMAP_EXTENTS * sizeof(struct fiemap_extent)];
	} u;
	int error = 0;

	while (start < end && !error) {
		uint64_t before = start;

		memset(&u.map, 0, sizeof(u.map));
		u.map.fm_start = start;
		u.map.fm_length = end - start;
		u.map.fm_flags = r->synced ? FIEMAP_FLAG_SYNC : 0;
		u.map.fm_extent_count = FIEMAP_EXTENTS;
		if (ioctl(r->fd, FS_IOC_FIEMAP, &u.map))
			return -errno;
		for (uint32_t i = 0; i < u.map.fm_mapped_extents && start < end && !error; i++) {
			const struct fiemap_extent *e = &u.map.fm_extents[i];
			uint64_t from = e->fe_logical > start ? e->fe_logical : start;
			uint64_t stop = least(e->fe_logical + e->fe_length, end);

			if (stop > from && e->fe_flags & FIEMAP_EXTENT_UNWRITTEN)
				error = fn(r, from, stop);
			if (stop > start)
				start = stop;
		}
		if (u.map.fm_mapped_extents < FIEMAP_EXTENTS || start == before)
			break;
	}
	return error;
}

/* A range that is cached: what of it is clean. */
static int clean_release(struct release *r, uint64_t start, uint64_t end)
{
	int error = 0;

	for (uint64_t at = start, step = end - start; at < end && !error;) {
		uint64_t stop = step < end - at ? at + step : end;
		uint64_t pages = (stop - at + PAGE_BYTES - 1) / PAGE_BYTES;
		int64_t dirty = pages_dirty(r->fd, at, stop);

		if (dirty < 0)
			return -errno;
		if (dirty > 0 && (uint64_t)dirty < pages) {
			step = (pages + 1) / 2 * PAGE_BYTES;
			continue;
		}
		if (!dirty)
			error = unwritten_each(r, at, stop, zeros_punch);
		at = stop;
		step *= 2;
	}
	return error;
}

static int uncached_release(struct release *r, uint64_t start, uint64_t end)
{
	return r->holes == HOLES_BY_EXTENT ? unwritten_each(r, start, end, hole_punch)
					   : hole_punch(r, start, end);
}

static int cached_release(struct release *r, uint64_t start, uint64_t end)
{
	return r->holes == HOLES_BY_EXTENT && !r->counting ? clean_release(r, start, end) : 0;
}

/* To SEEK_HOLE what is cached is data, and holes are what is unwritten or not there at all. */
int release_range(struct release *r, uint64_t start, uint64_t end)
{
	int error = 0;

	if (r->fd < 0 || r->holes == HOLES_UNKNOWN)
		return 0;
	if (r->synced && !r->counting)
		return unwritten_each(r, start, end, hole_punch);
	while (start < end && !error) {
		off_t hole = lseek(r->fd, (off_t)start, SEEK_HOLE), data;

		if (hole < 0)
			return errno == ENXIO ? 0 : -errno; /* the file is shorter now */
		if ((uint64_t)hole > start)
			error = cached_release(r, start, least((uint64_t)hole, end));
		if (error || (uint64_t)hole >= end)
			return error;
		data = lseek(r->fd, hole, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return -errno;
		start = data < 0 ? end : least((uint64_t)data, end);
		if (start > (uint64_t)hole)
			error = uncached_release(r, (uint64_t)hole, start);
	}
	return error;
}
