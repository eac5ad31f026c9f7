/* SPDX-License-Identifier: MIT */
/*
 * extent.c - which pages of the file have blocks, and the reservation of those that have none.
 *
 * States of a page, as bits of its chunk
 *   (none)                     a hole: reads as zeros, a write must reserve
 *   ALLOC                      blocks that were there before, never written
 *   ALLOC PROMISED             blocks this store reserved, no grant on them
 *   ALLOC PROMISED GRANTED     the same, and a write may come: nobody gives them back
 *   DATA ALLOC                 written
 *   DATA                       written in part: blocks are missing somewhere in the page
 * Transitions
 *   chunk_look      (none) -> what the file system says, once per chunk
 *   extent_reserve  (none) -> ALLOC PROMISED for the extent around; DATA -> DATA ALLOC
 *   pages_grant     ALLOC PROMISED -> + GRANTED
 *   extents_written any -> DATA ALLOC
 *   extents_unreserve  - GRANTED; an extent with none and no DATA: ALLOC PROMISED -> (none)
 *   extents_forget  any -> (none)
 *
 * All that takes ALLOC away happens under alloc_lock, the bits before the blocks; all that needs
 * blocks and finds no ALLOC goes through alloc_lock. So nothing is written to blocks that are
 * being given back.
 *
 * Where the file system cannot reserve, ALLOC PROMISED is a promise in numbers: promised_pages,
 * held against what statvfs says is free.
 */
#include "store/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { DATA, ALLOC, PROMISED, GRANTED };

#define FIEMAP_EXTENTS 32u

static unsigned in_chunk(uint64_t page)
{
	return (unsigned)(page % CHUNK_PAGES);
}

/* Where the part of [page, end) that lies in page's chunk ends. */
static uint64_t chunk_end(uint64_t page, uint64_t end)
{
	uint64_t limit = (page / CHUNK_PAGES + 1) * CHUNK_PAGES;

	return end < limit ? end : limit;
}

void extents_wake(struct file *file, struct mkw_object *object)
{
	if (object && atomic_exchange(&file->refused, false))
		mkw_object_wake(object);
}

int64_t extents_used_bytes(struct file *file)
{
	struct stat st;

	if (fstat(file->fd, &st))
		return mkw_set_error(-errno, "%s: cannot be examined", file->name);
	return (int64_t)st.st_blocks * 512 +
	       (int64_t)(atomic_load(&file->promised_pages) * MKW_PAGE_SIZE);
}

/* ---- Looking up --------------------------------------------------------------------------- */

/* What a lookup has found, of one chunk; bytes are relative to its beginning. */
struct look {
	chunk_bits data, alloc;
	uint64_t run_start, run_end; /* adjoining extents, as far as they have come */
	uint64_t size;		     /* of the file within the chunk */
};

/* A page has its blocks only if all of it that lies before the end of the file has. */
static void look_flush(struct look *look)
{
	uint64_t from = (look->run_start + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE;
	uint64_t end = look->run_end >= look->size ? CHUNK_PAGES : look->run_end / MKW_PAGE_SIZE;
	uint64_t pages = (look->size + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE;

	if (end > pages)
		end = pages;
	if (from < end)
		bits_set(look->alloc, (unsigned)from, (unsigned)end);
}

static void look_extent(struct look *look, uint64_t start, uint64_t end)
{
	if (start > look->run_end) {
		look_flush(look);
		look->run_start = start;
	}
	if (end > look->run_end)
		look->run_end = end;
}

union fiemap_room {
	struct fiemap map;
	char room[sizeof(struct fiemap) + FIEMAP_EXTENTS * sizeof(struct fiemap_extent)];
};

/* The extents of [start, end), as many as there is room for. False: this file system has none. */
static bool fiemap_read(struct file *file, uint64_t start, uint64_t end, union fiemap_room *u)
{
	memset(&u->map, 0, sizeof(u->map));
	u->map.fm_start = start;
	u->map.fm_length = end - start;
	u->map.fm_extent_count = FIEMAP_EXTENTS;
	return !ioctl(file->fd, FS_IOC_FIEMAP, &u->map);
}

/* Blocks that are there but not written are known to FIEMAP only: they cost nothing to write, and
 * they are not ours to give back. False: this file system does not have it. */
static bool look_fiemap(struct file *file, uint64_t base, struct look *look)
{
	union fiemap_room u;
	uint64_t position = base, end = base + look->size;
	bool last = false;

	look->run_start = look->run_end = 0;
	while (position < end && !last) {
		if (!fiemap_read(file, position, end, &u))
			return false;
		last = u.map.fm_mapped_extents < FIEMAP_EXTENTS;
		for (uint32_t i = 0; i < u.map.fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &u.map.fm_extents[i];
			uint64_t start = e->fe_logical > base ? e->fe_logical - base : 0;
			uint64_t stop = e->fe_logical + e->fe_length - base;

			look_extent(look, start, stop < CHUNK_BYTES ? stop : CHUNK_BYTES);
			last |= (e->fe_flags & FIEMAP_EXTENT_LAST) != 0;
			if (base + stop <= position)
				return false; /* no progress: nonsense */
			position = base + stop;
		}
	}
	look_flush(look);
	return true;
}

/* 0, or a negative errno: the file system cannot tell holes. */
static int look_data(struct file *file, uint64_t base, struct look *look)
{
	uint64_t position = base, end = base + look->size;

	while (position < end) {
		off_t data = lseek(file->fd, (off_t)position, SEEK_DATA);

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		if ((uint64_t)data >= end)
			return 0;
		off_t hole = lseek(file->fd, data, SEEK_HOLE);

		if (hole < 0 || hole <= data)
			return hole < 0 ? -errno : -EIO;
		uint64_t from = (uint64_t)data - base, to = (uint64_t)hole - base;

		if (to > look->size)
			to = look->size;
		bits_set(look->data, (unsigned)(from / MKW_PAGE_SIZE),
			 (unsigned)((to + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE));
		look_extent(look, from, to);
		position = base + to;
	}
	return 0;
}

/* => alloc_lock held */
static int chunk_look(struct file *file, struct chunk *chunk)
{
	struct look look = {0};
	struct stat st;
	uint64_t base = chunk->first * MKW_PAGE_SIZE;

	if (fstat(file->fd, &st))
		return mkw_set_error(-errno, "%s: cannot be examined", file->name);
	if ((uint64_t)st.st_size > base)
		look.size = (uint64_t)st.st_size - base;
	if (look.size > CHUNK_BYTES)
		look.size = CHUNK_BYTES;
	unsigned pages = (unsigned)((look.size + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE);

	if (look_data(file, base, &look))
		/* Not to be known: everything may be data, and every first write reserves. */
		bits_set(look.data, 0, pages);
	else
		look_flush(&look);
	if (!bits_all(look.alloc, 0, pages))
		look_fiemap(file, base, &look);
	store_lock(&chunk->lock);
	for (size_t i = 0; i < sizeof(chunk_bits) / sizeof(uint64_t); i++) {
		chunk->bits[DATA][i] |= look.data[i];
		chunk->bits[ALLOC][i] |= look.alloc[i];
	}
	chunk->known = true;
	store_unlock(&chunk->lock);
	return 0;
}

static bool chunk_known(struct chunk *chunk)
{
	store_lock(&chunk->lock);
	bool known = chunk->known;

	store_unlock(&chunk->lock);
	return known;
}

int extents_look(struct file *file, uint64_t first, uint64_t end)
{
	int error = 0;

	for (uint64_t page = first; page < end && !error; page = chunk_end(page, end)) {
		struct chunk *chunk = chunkmap_get(&file->chunks, page);

		if (!chunk)
			return mkw_set_error(-ENOMEM, "file: no memory for the map of blocks");
		if (chunk_known(chunk))
			continue;
		store_lock(&file->alloc_lock);
		if (!chunk_known(chunk))
			error = chunk_look(file, chunk);
		store_unlock(&file->alloc_lock);
	}
	return error;
}

bool extents_hole(struct file *file, uint64_t first, uint64_t end)
{
	bool hole = true;

	for (uint64_t page = first; page < end && hole; page = chunk_end(page, end)) {
		struct chunk *chunk = chunkmap_find(&file->chunks, page);

		if (!chunk)
			return false;
		unsigned from = in_chunk(page);

		store_lock(&chunk->lock);
		hole = chunk->known && !bits_any(chunk->bits[DATA], from,
						 from + (unsigned)(chunk_end(page, end) - page));
		store_unlock(&chunk->lock);
	}
	return hole;
}

/* ---- Giving back -------------------------------------------------------------------------- */

static void range_punch(struct file *file, uint64_t start, uint64_t end)
{
	int result;

	do
		result = fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)start, (off_t)(end - start));
	while (result && errno == EINTR);
}

/* For file systems without FIEMAP: all of the range if nothing in it looks like data. */
static void range_punch_holes(struct file *file, uint64_t start, uint64_t end)
{
	off_t data = lseek(file->fd, (off_t)start, SEEK_DATA);

	if (data < 0 ? errno == ENXIO : (uint64_t)data >= end)
		range_punch(file, start, end);
}

/*
 * Give blocks back that this store reserved and never wrote: those that nobody else has written
 * either. He would not have respected the lease, but his bytes are not ours to destroy. SEEK_DATA
 * would not do: it takes a page that was only read, and is cached, for data.
 */
static void blocks_punch(struct file *file, uint64_t first, uint64_t end)
{
	union fiemap_room u;
	uint64_t position = first * MKW_PAGE_SIZE, stop = end * MKW_PAGE_SIZE;

	/* What he wrote shows only when it has arrived. */
	if (sync_file_range(file->fd, (off_t)position, (off_t)(stop - position),
			    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER)) {
		/* The kernel tells a failed write once to each descriptor, whoever asks. */
		atomic_store(&file->write_error, -errno);
		return;
	}
	while (position < stop) {
		if (!fiemap_read(file, position, stop, &u)) {
			range_punch_holes(file, position, stop);
			return;
		}
		if (!u.map.fm_mapped_extents)
			return;
		for (uint32_t i = 0; i < u.map.fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &u.map.fm_extents[i];
			uint64_t from = e->fe_logical > position ? e->fe_logical : position;
			uint64_t to = e->fe_logical + e->fe_length;

			if (to > stop)
				to = stop;
			if (to <= from)
				return;
			if (e->fe_flags & FIEMAP_EXTENT_UNWRITTEN)
				range_punch(file, from, to);
			position = to;
		}
	}
}

/* Punch the pages of a chunk whose bit in which is set, within [from, end). => alloc_lock held */
static void blocks_punch_bits(struct file *file, uint64_t first, const chunk_bits which,
			      unsigned from, unsigned end)
{
	for (;;) {
		from = bits_next(which, from, end, true);
		if (from >= end)
			return;
		unsigned to = bits_next(which, from, end, false);

		blocks_punch(file, first + from, first + to);
		from = to;
	}
}

/* Take the promises in [from, end) that no grant holds back out of the chunk; they are in taken
 * afterwards. => alloc_lock held */
static unsigned promises_take(struct chunk *chunk, unsigned from, unsigned end, chunk_bits taken)
{
	unsigned count = 0;

	store_lock(&chunk->lock);
	for (unsigned at = bits_next(chunk->bits[PROMISED], from, end, true); at < end;
	     at = bits_next(chunk->bits[PROMISED], at + 1, end, true)) {
		if (bits_test(chunk->bits[GRANTED], at))
			continue;
		bits_set(taken, at, at + 1);
		bits_clear(chunk->bits[PROMISED], at, at + 1);
		bits_clear(chunk->bits[ALLOC], at, at + 1);
		count++;
	}
	store_unlock(&chunk->lock);
	return count;
}

/* Nothing of the extent is in use, nor has been. => chunk->lock held */
static bool extent_idle(const struct chunk *chunk, unsigned from, unsigned end)
{
	return !bits_any(chunk->bits[GRANTED], from, end) &&
	       !bits_any(chunk->bits[DATA], from, end);
}

static void extent_unreserve(struct file *file, struct mkw_object *object, struct chunk *chunk,
			     unsigned from, unsigned end)
{
	chunk_bits taken = {0};

	store_lock(&file->alloc_lock);
	bool counted = atomic_load(&file->cannot_reserve);

	store_lock(&chunk->lock);
	bool idle = counted || extent_idle(chunk, from, end);

	store_unlock(&chunk->lock);
	unsigned count = idle ? promises_take(chunk, from, end, taken) : 0;

	if (counted)
		atomic_fetch_sub(&file->promised_pages, count);
	else if (count)
		blocks_punch_bits(file, chunk->first, taken, from, end);
	store_unlock(&file->alloc_lock);
	if (count)
		extents_wake(file, object);
}

void extents_unreserve(struct file *file, struct mkw_object *object, uint64_t first, uint64_t end)
{
	unsigned extent = file->extent_pages;

	for (uint64_t page = first, next; page < end; page = next) {
		struct chunk *chunk = chunkmap_find(&file->chunks, page);
		uint64_t start = page / extent * extent;

		next = start + extent < end ? start + extent : end;
		if (!chunk)
			continue;
		unsigned from = in_chunk(page), at = in_chunk(start);

		store_lock(&chunk->lock);
		bool mine = bits_any(chunk->bits[PROMISED], from, from + (unsigned)(next - page));

		bits_clear(chunk->bits[GRANTED], from, from + (unsigned)(next - page));
		bool idle =
			atomic_load(&file->cannot_reserve) || extent_idle(chunk, at, at + extent);

		store_unlock(&chunk->lock);
		if (mine && idle)
			extent_unreserve(file, object, chunk, at, at + extent);
	}
}

void extents_give_back(struct file *file)
{
	store_lock(&file->alloc_lock);
	for (struct chunk *chunk = chunkmap_next(&file->chunks, 0);
	     chunk && !atomic_load(&file->cannot_reserve);
	     chunk = chunkmap_next(&file->chunks, chunk->first + CHUNK_PAGES))
		blocks_punch_bits(file, chunk->first, chunk->bits[PROMISED], 0, CHUNK_PAGES);
	store_unlock(&file->alloc_lock);
}

void extents_forget(struct file *file, struct mkw_object *object, uint64_t first, uint64_t end)
{
	uint64_t promised = 0;

	for (struct chunk *chunk = chunkmap_next(&file->chunks, first); chunk && chunk->first < end;
	     chunk = chunkmap_next(&file->chunks, chunk->first + CHUNK_PAGES)) {
		uint64_t start = chunk->first > first ? chunk->first : first;
		unsigned from = in_chunk(start),
			 to = from + (unsigned)(chunk_end(start, end) - start);

		store_lock(&chunk->lock);
		promised += bits_count(chunk->bits[PROMISED], from, to);
		for (unsigned i = 0; i < CHUNK_BITMAPS; i++)
			bits_clear(chunk->bits[i], from, to);
		store_unlock(&chunk->lock);
	}
	if (atomic_load(&file->cannot_reserve))
		atomic_fetch_sub(&file->promised_pages, promised);
	extents_wake(file, object);
}

void extents_doubt(struct file *file, uint64_t page)
{
	struct chunk *chunk = chunkmap_find(&file->chunks, page);

	if (!chunk)
		return;
	store_lock(&chunk->lock);
	/* A whole page was counted; counting it again would not be undone. */
	if (!atomic_load(&file->cannot_reserve) ||
	    !bits_test(chunk->bits[PROMISED], in_chunk(page)))
		bits_clear(chunk->bits[ALLOC], in_chunk(page), in_chunk(page) + 1);
	store_unlock(&chunk->lock);
}

/* ---- Reserving ---------------------------------------------------------------------------- */

/* A part of one chunk that is to be reserved, around one page. */
struct want {
	struct file *file;
	struct chunk *chunk;
	chunk_bits alloc,
		data; /* as they are: alloc_lock keeps holes from becoming anything else */
	unsigned page, from, end;
};

static int space_refused(const struct want *want, int error)
{
	struct statvfs fs;
	struct file *file = want->file;
	unsigned long long free_bytes = 0;

	if (!fstatvfs(file->fd, &fs))
		free_bytes = (unsigned long long)fs.f_bavail * fs.f_frsize;
	return mkw_set_error(error, "%s: no space for %u bytes at %llu: %s (%llu bytes are free)%s",
			     file->name, MKW_PAGE_SIZE,
			     (unsigned long long)(want->chunk->first + want->page) * MKW_PAGE_SIZE,
			     error == -EDQUOT ? "the user's disk quota is used up"
					      : "the file system is full",
			     free_bytes,
			     atomic_load(&file->cannot_reserve)
				     ? "; it cannot reserve, so its free blocks are counted"
				     : "");
}

static int quota_refused(const struct want *want, int64_t used)
{
	return mkw_set_error(-ENOSPC,
			     "%s: no space for %u bytes at %llu: %lld of quota=%llu are "
			     "used",
			     want->file->name, MKW_PAGE_SIZE,
			     (unsigned long long)(want->chunk->first + want->page) * MKW_PAGE_SIZE,
			     (long long)used,
			     (unsigned long long)atomic_load(&want->file->quota_bytes));
}

/* Is there room for count further pages under the quota? */
static int quota_check(const struct want *want, unsigned count)
{
	uint64_t quota = atomic_load(&want->file->quota_bytes);

	if (quota == UINT64_MAX)
		return 0;
	int64_t used = extents_used_bytes(want->file);

	if (used < 0)
		return (int)used;
	if ((uint64_t)used + (uint64_t)count * MKW_PAGE_SIZE > quota)
		return quota_refused(want, used);
	return 0;
}

/* Without fallocate: what is free, less what is promised already. */
static int space_count(const struct want *want)
{
	struct statvfs fs;
	struct file *file = want->file;

	if (fstatvfs(file->fd, &fs))
		return mkw_set_error(-errno, "%s: free space cannot be read", file->name);
	uint64_t needed = (atomic_load(&file->promised_pages) + 1) * MKW_PAGE_SIZE;

	if ((uint64_t)fs.f_bavail * fs.f_frsize < needed)
		return space_refused(want, -ENOSPC);
	atomic_fetch_add(&file->promised_pages, 1);
	return 0;
}

/* => alloc_lock held. Blocks that were reserved in part before it failed are given back. */
static int blocks_reserve(const struct want *want)
{
	struct file *file = want->file;
	uint64_t first = want->chunk->first;
	unsigned pages = want->end - want->from;
	chunk_bits holes;
	int result;

	for (size_t i = 0; i < sizeof(holes) / sizeof(*holes); i++)
		holes[i] = ~(want->alloc[i] | want->data[i]);
	int error = quota_check(want, pages - bits_count(want->alloc, want->from, want->end));

	if (error)
		return error;
	do
		result = fallocate(file->fd, FALLOC_FL_KEEP_SIZE,
				   (off_t)((first + want->from) * MKW_PAGE_SIZE),
				   (off_t)pages * MKW_PAGE_SIZE);
	while (result && errno == EINTR);
	if (result)
		error = -errno;
	else
		error = quota_check(want, 0); /* the file system's own blocks came on top */
	if (error == -EOPNOTSUPP || error == -ENOSYS)
		return -EOPNOTSUPP;
	if (!error)
		return 0;
	blocks_punch_bits(file, first, holes, want->from, want->end);
	if (result && (error == -ENOSPC || error == -EDQUOT))
		return space_refused(want, error);
	if (result)
		return mkw_set_error(error, "%s: reserving %u bytes at %llu failed", file->name,
				     pages * MKW_PAGE_SIZE,
				     (unsigned long long)(first + want->from) * MKW_PAGE_SIZE);
	return error;
}

/* => alloc_lock held */
static void want_mark(const struct want *want)
{
	struct chunk *chunk = want->chunk;

	store_lock(&chunk->lock);
	for (unsigned at = want->from; at < want->end; at++) {
		if (bits_test(chunk->bits[ALLOC], at))
			continue;
		bits_set(chunk->bits[ALLOC], at, at + 1);
		/* Blocks that hold bytes are nothing to be given back, but what was counted is. */
		if (!bits_test(chunk->bits[DATA], at) || atomic_load(&want->file->cannot_reserve))
			bits_set(chunk->bits[PROMISED], at, at + 1);
	}
	if (bits_test(chunk->bits[PROMISED], want->page))
		bits_set(chunk->bits[GRANTED], want->page, want->page + 1);
	store_unlock(&chunk->lock);
}

/* Leave out what has blocks at both ends. */
static void want_trim(struct want *want)
{
	while (want->from < want->page && bits_test(want->alloc, want->from))
		want->from++;
	while (want->end > want->page + 1 && bits_test(want->alloc, want->end - 1))
		want->end--;
}

static int want_reserve_counted(struct want *want)
{
	want->from = want->page;
	want->end = want->page + 1;
	int error = quota_check(want, 1);

	return error ? error : space_count(want);
}

/*
 * Reserve the extent around the page; if there is no space for it the run that was asked for, and
 * at last the page alone. => alloc_lock held
 */
static int want_reserve(struct want *want, unsigned run_end)
{
	unsigned from = want->from, end = want->end;
	int error = -EOPNOTSUPP;

	for (unsigned attempt = 0; attempt < 3 && !atomic_load(&want->file->cannot_reserve);
	     attempt++) {
		want->from = attempt == 0 ? from : want->page;
		want->end = attempt == 0 ? end : attempt == 1 ? run_end : want->page + 1;
		want_trim(want);
		error = blocks_reserve(want);
		if (error == -EOPNOTSUPP)
			atomic_store(&want->file->cannot_reserve, true);
		else if (error != -ENOSPC && error != -EDQUOT)
			break;
	}
	if (atomic_load(&want->file->cannot_reserve))
		error = want_reserve_counted(want);
	return error;
}

static int extent_reserve(struct file *file, struct mkw_object *object, uint64_t page,
			  uint64_t run_end)
{
	struct chunk *chunk = chunkmap_get(&file->chunks, page);
	uint64_t size_pages = (mkw_object_size(object) + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE;
	uint64_t start = page / file->extent_pages * file->extent_pages;
	uint64_t end =
		start + file->extent_pages < size_pages ? start + file->extent_pages : size_pages;
	int error = 0;

	if (!chunk)
		return mkw_set_error(-ENOMEM, "file: no memory for the map of blocks");
	/* Truncated meanwhile: the library looks at the size again (contract 3.6). */
	if (page >= size_pages)
		return -EFAULT;
	struct want want = {.file = file,
			    .chunk = chunk,
			    .page = in_chunk(page),
			    .from = in_chunk(start),
			    .end = in_chunk(start) + (unsigned)(end - start)};

	if (run_end > end)
		run_end = end;
	store_lock(&file->alloc_lock);
	if (!chunk_known(chunk))
		error = chunk_look(file, chunk);
	store_lock(&chunk->lock);
	memcpy(want.alloc, chunk->bits[ALLOC], sizeof(want.alloc));
	memcpy(want.data, chunk->bits[DATA], sizeof(want.data));
	store_unlock(&chunk->lock);
	if (!error && !bits_test(want.alloc, want.page)) {
		error = want_reserve(&want, in_chunk(page) + (unsigned)(run_end - page));
		if (!error)
			want_mark(&want);
	}
	store_unlock(&file->alloc_lock);
	return error;
}

/* Grant what has blocks. => the first page of one chunk that has none */
static unsigned pages_grant(struct chunk *chunk, unsigned from, unsigned end)
{
	store_lock(&chunk->lock);
	unsigned stop = bits_next(chunk->bits[ALLOC], from, end, false);

	for (unsigned at = bits_next(chunk->bits[PROMISED], from, stop, true); at < stop;
	     at = bits_next(chunk->bits[PROMISED], at + 1, stop, true))
		bits_set(chunk->bits[GRANTED], at, at + 1);
	store_unlock(&chunk->lock);
	return stop;
}

uint64_t extents_grant(struct file *file, struct mkw_object *object, uint64_t page, uint64_t end,
		       bool in_fault, int *error)
{
	*error = 0;
	while (page < end) {
		struct chunk *chunk = chunkmap_find(&file->chunks, page);
		uint64_t stop = chunk_end(page, end);

		if (chunk)
			page = chunk->first + pages_grant(chunk, in_chunk(page),
							  in_chunk(page) + (unsigned)(stop - page));
		if (page == stop && chunk)
			continue;
		if (in_fault && mkw_fault_in_syscall_on(file->dev, file->ino)) {
			*error = mkw_set_error(-EDEADLK,
					       "%s: written through a view in a system "
					       "call on the file itself; use mkw_pwrite",
					       file->name);
			return page;
		}
		in_fault = false;
		*error = extent_reserve(file, object, page, end);
		if (*error == -ENOSPC || *error == -EDQUOT) {
			/* The flag first, then the last look: space given back in between is not
			 * missed (extents_wake). */
			if (!atomic_exchange(&file->refused, true))
				*error = extent_reserve(file, object, page, end);
		}
		if (*error)
			return page;
	}
	return page;
}

void extents_written(struct file *file, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page = chunk_end(page, end)) {
		struct chunk *chunk = chunkmap_find(&file->chunks, page);
		unsigned from = in_chunk(page), to = from + (unsigned)(chunk_end(page, end) - page);

		if (!chunk)
			continue;
		store_lock(&chunk->lock);
		unsigned promised = bits_count(chunk->bits[PROMISED], from, to);

		bits_set(chunk->bits[DATA], from, to);
		bits_set(chunk->bits[ALLOC], from, to);
		bits_clear(chunk->bits[PROMISED], from, to);
		bits_clear(chunk->bits[GRANTED], from, to);
		store_unlock(&chunk->lock);
		if (atomic_load(&file->cannot_reserve))
			atomic_fetch_sub(&file->promised_pages, promised);
	}
}
