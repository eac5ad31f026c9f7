/* SPDX-License-Identifier: MIT */
/*
 * snapshot_copy.c - the copy of one file.
 *
 * A chunk's bit is set once the chunk is in the copy; until then nobody who asks first writes to
 * it, and the file has it as it was at the instant. Holes, and pages of zeros, are holes in the
 * copy. A copy that fails lets all go on at once, and is removed.
 */
#include "snapshot_parts.h"

#include "run/futex.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define PAGE	   4096u
#define STEP_BYTES (128u << 10) /* whoever waits, waits for so much of others' at most */
#define NAMES_MAX  1000u
#define NAME_BYTES 512u

/* ---- Opening ------------------------------------------------------------------------------ */

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The file must be the one that is mapped: its name may be another's by now. */
static int source_open(struct copy *copy, const struct run_file *file)
{
	struct stat st;

	if (copy->path[0] == '\0')
		return -ENOENT;
	copy->source = open(copy->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (copy->source < 0 || fstat(copy->source, &st) != 0)
		return -errno;
	if (st.st_dev != file->dev || st.st_ino != file->ino || !S_ISREG(st.st_mode))
		return -ENOENT;
	return 0;
}

static int directory_open(struct copy *copy, const char *directory)
{
	char parent[sizeof(copy->path)];
	size_t length = (size_t)(name_of(copy->path) - copy->path);

	if (!directory) {
		memcpy(parent, copy->path, length);
		parent[length] = '\0';
		directory = length > 0 ? parent : ".";
	}
	copy->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return copy->directory < 0 ? -errno : 0;
}

static int target_open(struct copy *copy)
{
	int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;

	snprintf(copy->temporary, sizeof(copy->temporary), ".%.200s.snapshot-%d-%u",
		 name_of(copy->path), getpid(), copy->file);
	copy->target = openat(copy->directory, copy->temporary, flags, 0600);
	if (copy->target < 0)
		copy->temporary[0] = '\0';
	return copy->target < 0 ? -errno : 0;
}

struct copy *copy_open(struct copier *copier, uint16_t file)
{
	const struct run_file *f = &copier->control->files[file];
	struct copy *copy = calloc(1, sizeof(*copy));

	if (!copy)
		return NULL;
	copy->file = file;
	copy->source = copy->target = copy->directory = -1;
	snprintf(copy->path, sizeof(copy->path), "%.*s", (int)sizeof(f->path) - 1, f->path);
	copy->error = source_open(copy, f);
	if (!copy->error)
		copy->error = directory_open(copy, copier->plan->directory);
	if (!copy->error)
		copy->error = target_open(copy);
	if (!copy->error)
		copy->cloned = ioctl(copy->target, FICLONE, copy->source) == 0;
	return copy;
}

static void target_remove(struct copy *copy)
{
	if (copy->temporary[0] != '\0')
		unlinkat(copy->directory, copy->temporary, 0);
	copy->temporary[0] = '\0';
}

void copy_free(struct copy *copy)
{
	target_remove(copy);
	if (copy->source >= 0)
		close(copy->source);
	if (copy->target >= 0)
		close(copy->target);
	if (copy->directory >= 0)
		close(copy->directory);
	free(copy);
}

/* ---- At the instant ----------------------------------------------------------------------- */

void copy_start(struct copier *copier, struct copy *copy)
{
	struct stat st;

	(void)copier;
	if (copy->error)
		return;
	if (fstat(copy->source, &st) != 0) {
		copy->error = -errno;
		return;
	}
	copy->size = (uint64_t)st.st_size;
	if (copy->cloned)
		copy->cloned = ioctl(copy->target, FICLONE, copy->source) == 0;
	/* What an earlier clone has left must not show through. */
	if (!copy->cloned && ftruncate(copy->target, 0) != 0)
		copy->error = -errno;
	if (ftruncate(copy->target, (off_t)copy->size) != 0)
		copy->error = -errno;
}

void copy_watch(struct copier *copier, struct copy *copy, uint64_t first)
{
	struct run_snapshots *s = copier_area(copier);
	struct run_snapshot_file *f = &s->files[copy->file];
	uint64_t chunk = 1ull << s->chunk_shift;

	copy->chunks = (copy->size + chunk - 1) >> s->chunk_shift;
	f->size = copy->size;
	f->first_chunk = first;
	atomic_store(&f->copying, 1);
}

void copy_unwatch(struct copier *copier, struct copy *copy)
{
	struct run_snapshots *s = copier_area(copier);

	atomic_store(&s->files[copy->file].copying, 0);
	run_futex_ring(&s->served);
}

static bool copy_fail(struct copier *copier, struct copy *copy, int error)
{
	copy->error = error;
	copy_unwatch(copier, copy);
	return true;
}

/* ---- Bits --------------------------------------------------------------------------------- */

static uint64_t mask_of(uint64_t bit, uint64_t end, uint64_t *span)
{
	*span = 64 - bit % 64 < end - bit ? 64 - bit % 64 : end - bit;
	return (*span == 64 ? UINT64_MAX : (1ull << *span) - 1) << bit % 64;
}

/* Chunks [chunk, end) of the file are in the copy. */
static void chunks_mark(struct run_snapshots *s, const struct copy *copy, uint64_t chunk,
			uint64_t end)
{
	uint64_t first = s->files[copy->file].first_chunk;

	for (uint64_t bit = first + chunk, span; bit < first + end; bit += span) {
		uint64_t mask = mask_of(bit, first + end, &span);

		atomic_fetch_or_explicit(&s->copied[bit / 64], mask, memory_order_release);
	}
}

/* The first chunk from chunk on, before end, whose bit is as said; or end. */
static uint64_t chunk_find(struct run_snapshots *s, const struct copy *copy, uint64_t chunk,
			   uint64_t end, bool copied)
{
	uint64_t first = s->files[copy->file].first_chunk;

	for (uint64_t bit = first + chunk, span; bit < first + end; bit += span) {
		uint64_t mask = mask_of(bit, first + end, &span);
		uint64_t word = atomic_load(&s->copied[bit / 64]);

		word = (copied ? word : ~word) & mask;
		if (word)
			return bit - bit % 64 + (uint64_t)__builtin_ctzll(word) - first;
	}
	return end;
}

/* ---- Copying ------------------------------------------------------------------------------ */

static int target_write(struct copy *copy, const unsigned char *from, size_t length, off_t at)
{
	while (length > 0) {
		ssize_t done = pwrite(copy->target, from, length, at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		from += done;
		at += done;
		length -= (size_t)done;
	}
	return 0;
}

static bool page_is_zero(const unsigned char *page, size_t length)
{
	return page[0] == 0 && memcmp(page, page + 1, length - 1) == 0;
}

/* Of what was read, the pages that are not zeros. */
static int pages_write(struct copy *copy, const unsigned char *buffer, size_t length, off_t at)
{
	size_t begin = 0; /* of the pages to be written together */

	for (size_t i = 0; i < length; i += PAGE) {
		size_t page = length - i < PAGE ? length - i : PAGE;
		int error = 0;

		if (!page_is_zero(buffer + i, page))
			continue;
		if (i > begin)
			error = target_write(copy, buffer + begin, i - begin, at + (off_t)begin);
		if (error)
			return error;
		begin = i + page;
	}
	return begin < length
		       ? target_write(copy, buffer + begin, length - begin, at + (off_t)begin)
		       : 0;
}

static int bytes_copy(struct copier *copier, struct copy *copy, uint64_t offset, uint64_t end)
{
	while (offset < end) {
		size_t length = end - offset < COPY_BUFFER ? (size_t)(end - offset) : COPY_BUFFER;
		ssize_t got = pread(copy->source, copier->buffer, length, (off_t)offset);
		int error;

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) /* 0: cut short by a process that does not ask */
			return got < 0 ? -errno : -ESTALE;
		/* Whole pages, so that the next begins at one. */
		if ((size_t)got < length && got >= PAGE)
			got -= got % PAGE;
		error = pages_write(copy, copier->buffer, (size_t)got, (off_t)offset);
		if (error)
			return error;
		offset += (uint64_t)got;
	}
	return 0;
}

bool copy_range(struct copier *copier, struct copy *copy, uint64_t offset, uint64_t length,
		uint64_t limit)
{
	struct run_snapshots *s = copier_area(copier);
	uint64_t most = limit >> s->chunk_shift ? limit >> s->chunk_shift : 1;
	uint64_t chunk = offset >> s->chunk_shift, end;

	if (copy->error || copy->cloned || length == 0 || offset >= copy->size)
		return true;
	end = length > copy->size - offset ? copy->chunks
					   : ((offset + length - 1) >> s->chunk_shift) + 1;
	while ((chunk = chunk_find(s, copy, chunk, end, false)) < end) {
		uint64_t stop = chunk_find(s, copy, chunk, end, true), bytes;
		int error;

		if (most == 0)
			return false;
		if (stop - chunk > most)
			stop = chunk + most;
		bytes = stop << s->chunk_shift;
		error = bytes_copy(copier, copy, chunk << s->chunk_shift,
				   bytes < copy->size ? bytes : copy->size);
		if (error)
			return copy_fail(copier, copy, error);
		chunks_mark(s, copy, chunk, stop);
		most -= stop - chunk;
		chunk = stop;
	}
	return true;
}

/* Skip the hole at the cursor: what has not been written to by now was one at the instant. */
static void hole_skip(struct copier *copier, struct copy *copy)
{
	struct run_snapshots *s = copier_area(copier);
	off_t data = lseek(copy->source, (off_t)copy->cursor, SEEK_DATA), hole;
	uint64_t chunk = copy->cursor >> s->chunk_shift;

	copy->data_end = copy->size;
	if (data < 0 && errno != ENXIO)
		return;
	if (data < 0 || (uint64_t)data >= copy->size) {
		chunks_mark(s, copy, chunk, copy->chunks);
		copy->cursor = copy->size;
		return;
	}
	chunks_mark(s, copy, chunk, (uint64_t)data >> s->chunk_shift);
	copy->cursor = (uint64_t)data >> s->chunk_shift << s->chunk_shift;
	hole = lseek(copy->source, data, SEEK_HOLE);
	if (hole > data && (uint64_t)hole < copy->size)
		copy->data_end = (uint64_t)hole;
}

bool copy_step(struct copier *copier, struct copy *copy)
{
	uint64_t length = STEP_BYTES;

	if (copy->error || copy->cloned)
		return true;
	if (copy->cursor >= copy->data_end)
		hole_skip(copier, copy);
	if (copy->cursor >= copy->size)
		return true;
	if (length >> copier_area(copier)->chunk_shift == 0)
		length = 1ull << copier_area(copier)->chunk_shift;
	copy_range(copier, copy, copy->cursor, length, length);
	copy->cursor += length;
	return copy->error != 0;
}

/* ---- The end ------------------------------------------------------------------------------ */

static void name_make(char *name, size_t size, const struct copy *copy, const char *stamp,
		      unsigned number)
{
	snprintf(name, size, number ? "%s.snapshot-%s.%u" : "%s.snapshot-%s", name_of(copy->path),
		 stamp, number);
}

bool copy_name_is_free(const struct copy *copy, const char *stamp, unsigned number)
{
	char name[NAME_BYTES];

	name_make(name, sizeof(name), copy, stamp, number);
	return faccessat(copy->directory, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
}

/* The first name that is free: files of one name may go to one directory. */
static int target_name(struct copy *copy, const char *stamp, unsigned number)
{
	char name[NAME_BYTES];

	for (unsigned last = number + NAMES_MAX; number < last; number++) {
		name_make(name, sizeof(name), copy, stamp, number);
		if (renameat2(copy->directory, copy->temporary, copy->directory, name,
			      RENAME_NOREPLACE) == 0) {
			copy->temporary[0] = '\0';
			return 0;
		}
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

/* As readable as the file; the owner as far as we may. */
static void target_guard(struct copy *copy)
{
	struct stat st;

	if (fstat(copy->source, &st) != 0)
		return;
	if (fchown(copy->target, st.st_uid, st.st_gid) == 0 || geteuid() == st.st_uid)
		fchmod(copy->target, st.st_mode & 0777);
}

static int target_finish(struct copy *copy, const char *stamp, unsigned number)
{
	int error;

	target_guard(copy);
	if (fsync(copy->target) != 0)
		return -errno;
	error = target_name(copy, stamp, number);
	if (!error && fsync(copy->directory) != 0 && errno != EINVAL)
		error = -errno;
	return error;
}

void copy_finish(struct copy *copy, const char *stamp, unsigned number)
{
	if (!copy->error)
		copy->error = target_finish(copy, stamp, number);
	if (copy->error)
		target_remove(copy);
}
