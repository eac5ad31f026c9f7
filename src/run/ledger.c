/* SPDX-License-Identifier: MIT */
/*
 * ledger.c - what was reserved ahead, and giving it back (ledger.h).
 *
 * In the ledger a file is a row of chunks, bitmaps of pages: a bit is set by RUN_EVENT_RESERVED and
 * cleared by RUN_EVENT_PUNCHED, which programs also cause when they preallocate on their own.
 *
 * Why no byte can be lost by giving back:
 *  - It happens under a write lease, which the kernel gives only while nobody else has the file
 *    open; a mapping counts. So nobody can write but who opens the file anew, and he waits until
 *    the lease is gone. Whether somebody waits is looked at before each hole; then we stop.
 *    He waits for lease-break-time (45 s): a supervisor that is stopped for longer between that
 *    look and the next system call is the only gap that is left.
 *  - Under the lease all is written back first, so what FIEMAP calls UNWRITTEN is nothing but
 *    zeros, on tmpfs what SEEK_HOLE calls a hole.
 * What may be lost is the program's own preallocation, where another process cut the file and
 * preallocated just there again, or the file was replaced by one with the same inode number: no
 * bytes, only the promise of space.
 */
#include "run/ledger.h"

#include "run/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES     4096u
#define CHUNK_PAGES    32768u
#define CHUNK_BYTES    ((uint64_t)CHUNK_PAGES * PAGE_BYTES)
#define WORD_PAGES     64u
#define FIEMAP_EXTENTS 256u

struct chunk {
	uint64_t number;
	uint64_t pages[CHUNK_PAGES / WORD_PAGES];
};

struct file {
	uint64_t dev, ino;
	char *path;
	struct chunk **chunks; /* by ascending numbers */
	size_t count, room;
};

struct ledger {
	struct file *files;
	size_t count, room;
};

/* ---- Ranges ------------------------------------------------------------------------------- */

static void pages_change(struct chunk *chunk, unsigned from, unsigned end, bool set)
{
	while (from < end) {
		unsigned bit = from % WORD_PAGES, count = WORD_PAGES - bit;

		if (count > end - from)
			count = end - from;
		uint64_t mask = (count == WORD_PAGES ? UINT64_MAX : (1ull << count) - 1) << bit;
		uint64_t *word = &chunk->pages[from / WORD_PAGES];

		*word = set ? *word | mask : *word & ~mask;
		from += count;
	}
}

/* The first page from `from` on whose bit is (not) set, or CHUNK_PAGES. */
static unsigned pages_next(const struct chunk *chunk, unsigned from, bool set)
{
	while (from < CHUNK_PAGES) {
		uint64_t word = chunk->pages[from / WORD_PAGES];

		word = (set ? word : ~word) & (UINT64_MAX << from % WORD_PAGES);
		if (word)
			return from / WORD_PAGES * WORD_PAGES + (unsigned)__builtin_ctzll(word);
		from = (from / WORD_PAGES + 1) * WORD_PAGES;
	}
	return CHUNK_PAGES;
}

/* Where the chunk is, or would be. */
static size_t chunk_place(const struct file *file, uint64_t number)
{
	size_t low = 0, high = file->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (file->chunks[middle]->number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool array_grow(void **array, size_t count, size_t *room, size_t member_bytes)
{
	size_t more = *room ? *room * 2 : 16;
	void *grown;

	if (count < *room)
		return true;
	grown = reallocarray(*array, more, member_bytes);
	if (!grown)
		return false;
	*array = grown;
	*room = more;
	return true;
}

static struct chunk *chunk_get(struct file *file, uint64_t number)
{
	size_t place = chunk_place(file, number);
	struct chunk *chunk;

	if (place < file->count && file->chunks[place]->number == number)
		return file->chunks[place];
	if (!array_grow((void **)&file->chunks, file->count, &file->room, sizeof(*file->chunks)))
		return NULL;
	chunk = calloc(1, sizeof(*chunk));
	if (!chunk)
		return NULL;
	chunk->number = number;
	memmove(file->chunks + place + 1, file->chunks + place,
		(file->count - place) * sizeof(*file->chunks));
	file->chunks[place] = chunk;
	file->count++;
	return chunk;
}

static int file_add(struct file *file, uint64_t first, uint64_t end)
{
	while (first < end) {
		struct chunk *chunk = chunk_get(file, first / CHUNK_PAGES);
		uint64_t next = (first / CHUNK_PAGES + 1) * CHUNK_PAGES;
		uint64_t stop = next < end ? next : end;

		if (!chunk)
			return -ENOMEM;
		pages_change(chunk, (unsigned)(first % CHUNK_PAGES),
			     (unsigned)(stop - next + CHUNK_PAGES), true);
		first = stop;
	}
	return 0;
}

static void file_take(struct file *file, uint64_t first, uint64_t end)
{
	for (size_t i = chunk_place(file, first / CHUNK_PAGES); i < file->count; i++) {
		uint64_t base = file->chunks[i]->number * CHUNK_PAGES;

		if (base >= end)
			return;
		pages_change(file->chunks[i], first > base ? (unsigned)(first - base) : 0,
			     end - base < CHUNK_PAGES ? (unsigned)(end - base) : CHUNK_PAGES,
			     false);
	}
}

static uint64_t file_bytes(const struct file *file)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < file->count; i++)
		for (size_t j = 0; j < CHUNK_PAGES / WORD_PAGES; j++)
			pages += (unsigned)__builtin_popcountll(file->chunks[i]->pages[j]);
	return pages * PAGE_BYTES;
}

static void file_empty(struct file *file)
{
	for (size_t i = 0; i < file->count; i++)
		free(file->chunks[i]);
	free(file->chunks);
	file->chunks = NULL;
	file->count = file->room = 0;
}

/* ---- The ledger --------------------------------------------------------------------------- */

struct ledger *ledger_create(void)
{
	return calloc(1, sizeof(struct ledger));
}

void ledger_destroy(struct ledger *ledger)
{
	for (size_t i = 0; ledger && i < ledger->count; i++) {
		file_empty(&ledger->files[i]);
		free(ledger->files[i].path);
	}
	if (ledger)
		free(ledger->files);
	free(ledger);
}

static struct file *ledger_file(struct ledger *ledger, const struct run_file *named, bool add)
{
	char *path;

	for (size_t i = 0; i < ledger->count; i++)
		if (ledger->files[i].dev == named->dev && ledger->files[i].ino == named->ino)
			return &ledger->files[i];
	if (!add || !array_grow((void **)&ledger->files, ledger->count, &ledger->room,
				sizeof(*ledger->files)))
		return NULL;
	path = strndup(named->path, sizeof(named->path) - 1);
	if (!path)
		return NULL;
	ledger->files[ledger->count] =
		(struct file){.dev = named->dev, .ino = named->ino, .path = path};
	return &ledger->files[ledger->count++];
}

int ledger_event(struct ledger *ledger, const struct run_control *control,
		 const struct run_event *event)
{
	bool add = event->kind == RUN_EVENT_RESERVED;
	uint64_t end = event->length > UINT64_MAX - event->offset ? UINT64_MAX
								  : event->offset + event->length;
	struct file *file;

	if ((!add && event->kind != RUN_EVENT_PUNCHED) || !run_file_is_there(control, event->file))
		return 0;
	file = ledger_file(ledger, &control->files[event->file], add);
	if (!file)
		return add ? -ENOMEM : 0;
	/* Of pages that are ours in part none is. */
	if (add)
		return file_add(file, (event->offset + PAGE_BYTES - 1) / PAGE_BYTES,
				end / PAGE_BYTES);
	file_take(file, event->offset / PAGE_BYTES, end / PAGE_BYTES + (end % PAGE_BYTES ? 1 : 0));
	return 0;
}

/* ---- Giving back -------------------------------------------------------------------------- */

struct giver {
	int fd;
	enum filesystem_holes holes;
	struct ledger_file *report;
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + FIEMAP_EXTENTS * sizeof(struct fiemap_extent)];
	} extents;
};

/* Opened for writing, if it still is the same file. A negative errno if not. */
static int file_open(const struct file *file)
{
	char self[64];
	struct stat st;
	int fd, place = open(file->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (place < 0)
		return -errno;
	if (fstat(place, &st) || !S_ISREG(st.st_mode) || st.st_dev != file->dev ||
	    st.st_ino != file->ino) {
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

/* Nobody else has the file open, or will before this descriptor is closed. 0 or -errno. */
static int file_lease(struct giver *g)
{
	struct statfs fs;

	if (fstatfs(g->fd, &fs))
		return -errno;
	g->holes = filesystem_holes(&fs);
	if (g->holes == HOLES_UNKNOWN)
		return -EOPNOTSUPP;
	/* The usual signal of a lease would end this process; nobody heeds this one. */
	if (fcntl(g->fd, F_SETSIG, SIGURG) || fcntl(g->fd, F_SETLEASE, F_WRLCK))
		return -errno;
	return 0;
}

static int range_punch(struct giver *g, uint64_t start, uint64_t end)
{
	int result;

	if (fcntl(g->fd, F_GETLEASE) != F_WRLCK)
		return -EAGAIN;
	do
		result = fallocate(g->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
				   (off_t)(end - start));
	while (result && errno == EINTR);
	if (result)
		return -errno;
	g->report->returned_bytes += end - start;
	return 0;
}

static int range_punch_extents(struct giver *g, uint64_t start, uint64_t end)
{
	struct fiemap *map = &g->extents.map;
	int error = 0;

	while (start < end && !error) {
		uint64_t before = start;

		memset(map, 0, sizeof(*map));
		map->fm_start = start;
		map->fm_length = end - start;
		map->fm_flags = FIEMAP_FLAG_SYNC;
		map->fm_extent_count = FIEMAP_EXTENTS;
		if (ioctl(g->fd, FS_IOC_FIEMAP, map))
			return -errno;
		for (uint32_t i = 0; i < map->fm_mapped_extents && start < end && !error; i++) {
			const struct fiemap_extent *e = &map->fm_extents[i];
			uint64_t from = e->fe_logical > start ? e->fe_logical : start;
			uint64_t stop = e->fe_logical + e->fe_length;

			if (stop > end)
				stop = end;
			if (stop > from && e->fe_flags & FIEMAP_EXTENT_UNWRITTEN)
				error = range_punch(g, from, stop);
			if (stop > start)
				start = stop;
		}
		if (map->fm_mapped_extents < FIEMAP_EXTENTS || start == before)
			return error;
	}
	return error;
}

/* Pages of tmpfs that were never written are holes to SEEK_HOLE, with memory or without. */
static int range_punch_pages(struct giver *g, uint64_t start, uint64_t end)
{
	int error = 0;

	while (start < end && !error) {
		off_t hole = lseek(g->fd, (off_t)start, SEEK_HOLE);
		off_t data;

		if (hole < 0)
			return errno == ENXIO ? 0 : -errno; /* the file is shorter now */
		if ((uint64_t)hole >= end)
			return 0;
		data = lseek(g->fd, hole, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return -errno;
		start = data < 0 || (uint64_t)data > end ? end : (uint64_t)data;
		if (start > (uint64_t)hole)
			error = range_punch(g, (uint64_t)hole, start);
	}
	return error;
}

static int file_punch(struct giver *g, const struct file *file)
{
	int error = 0;

	for (size_t i = 0; i < file->count && !error; i++) {
		const struct chunk *chunk = file->chunks[i];
		uint64_t base = chunk->number * CHUNK_BYTES;

		for (unsigned from = pages_next(chunk, 0, true), end; from < CHUNK_PAGES && !error;
		     from = pages_next(chunk, end, true)) {
			end = pages_next(chunk, from, false);
			error = (g->holes == HOLES_BY_EXTENT
					 ? range_punch_extents
					 : range_punch_pages)(g, base + (uint64_t)from * PAGE_BYTES,
							      base + (uint64_t)end * PAGE_BYTES);
		}
	}
	return error;
}

/* => g->fd open */
static int file_give_back(struct giver *g, const struct file *file)
{
	struct stat before;
	int error = file_lease(g);

	if (error)
		return error;
	if (fdatasync(g->fd) || fstat(g->fd, &before))
		return -errno;
	error = file_punch(g, file);
	if (g->report->returned_bytes) {
		const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, before.st_mtim};

		futimens(g->fd, times);
	}
	return error;
}

void ledger_give_back(struct ledger *ledger, void (*report)(void *arg, const struct ledger_file *),
		      void *arg)
{
	struct giver giver;

	for (size_t i = 0; i < ledger->count; i++) {
		struct file *file = &ledger->files[i];
		struct ledger_file result = {.path = file->path,
					     .dev = file->dev,
					     .ino = file->ino,
					     .reserved_bytes = file_bytes(file)};

		if (!result.reserved_bytes)
			continue;
		giver.report = &result;
		giver.fd = file_open(file);
		result.error = giver.fd < 0 ? giver.fd : file_give_back(&giver, file);
		if (giver.fd >= 0) {
			/* Whoever waits goes on now, also if a child of this process has the
			 * descriptor still. */
			fcntl(giver.fd, F_SETLEASE, F_UNLCK);
			close(giver.fd);
		}
		if (result.error && result.error != -ENOENT)
			result.left_bytes = result.reserved_bytes - result.returned_bytes;
		report(arg, &result);
		if (result.error != -EAGAIN)
			file_empty(file);
	}
}
