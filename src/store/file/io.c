/* SPDX-License-Identifier: MIT */
/*
 * io.c - the file's bytes: read into pages, written from pages, through the kernel's page cache or
 * past it. Never makes the file longer: its size is file_truncate's alone, and a file that somebody
 * else cut shorter is reported, not mended.
 *
 * With direct I/O whole pages go past the page cache. A last page that is not whole goes through
 * it; the kernel keeps the two coherent (a direct read writes the cache out first, a direct write
 * drops it).
 */
#include "store/file/file.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define IO_MAX_BYTES ((uint64_t)1 << 30) /* the kernel cuts a call at 2 GiB less a page */
#define IO_VECTORS   64

/* ---- Reading ------------------------------------------------------------------------------ */

/* Whole pages past the cache as far as that goes. *error 0: the file ended. => bytes read */
static uint64_t bytes_read(struct file *file, unsigned char *to, uint64_t length, uint64_t offset,
			   int *error)
{
	int fd = file->direct_fd >= 0 ? file->direct_fd : file->fd;
	uint64_t done = 0;

	*error = 0;
	while (done < length) {
		uint64_t want = length - done;

		if (fd == file->direct_fd) /* there is room: buffers are whole pages */
			want = (want + MKW_PAGE_SIZE - 1) & ~(uint64_t)(MKW_PAGE_SIZE - 1);
		ssize_t n = pread(fd, to + done, want < IO_MAX_BYTES ? want : IO_MAX_BYTES,
				  (off_t)(offset + done));

		if (n > 0)
			done += (uint64_t)n;
		if (n >= 0 && fd == file->direct_fd && n % MKW_PAGE_SIZE)
			fd = file->fd; /* not where direct I/O can go on: the end, most likely */
		else if (n == 0)
			break;
		else if (n < 0 && errno != EINTR) {
			*error = -errno;
			break;
		}
	}
	return done < length ? done : length;
}

static int read_failed(struct file *file, struct mkw_object *object, uint64_t offset, int error)
{
	struct stat st;

	if (error)
		return mkw_set_error(error, "%s: reading at %llu failed: %s", file->name,
				     (unsigned long long)offset, strerrordesc_np(-error));
	if (fstat(file->fd, &st))
		return mkw_set_error(-errno, "%s: cannot be examined", file->name);
	return mkw_set_error(-EIO, "%s: the file shrank under us: %llu bytes long, %llu expected",
			     file->name, (unsigned long long)st.st_size,
			     (unsigned long long)mkw_object_size(object));
}

static mkw_fault_t run_read(struct file *file, struct mkw_object *object, struct mkw_run *run,
			    unsigned char *buffer)
{
	uint64_t offset = run->first * MKW_PAGE_SIZE, size = mkw_object_size(object);
	uint64_t length = run->count * MKW_PAGE_SIZE, want = length;
	int error;

	/* Past the end by now: the library looks at the size again (contract 3.6). */
	if (run->page * MKW_PAGE_SIZE >= size)
		return mkw_fault_from_errno(-EFAULT);
	if (size - offset < want)
		want = size - offset;
	uint64_t got = bytes_read(file, buffer, want, offset, &error);

	if (got == want) {
		memset(buffer + want, 0, length - want);
	} else {
		/* The pages before the failure are good; a neighbour's bad block refuses nobody. */
		size_t whole = (size_t)(got / MKW_PAGE_SIZE);

		if (run->page >= run->first + whole)
			return mkw_fault_from_errno(read_failed(file, object, offset + got, error));
		mkw_run_cut(run, run->first, whole);
	}
	return MKW_FAULT_LOCKED | MKW_FAULT_MAJOR;
}

mkw_fault_t file_fault(void *store, struct mkw_object *object, struct mkw_run *run, void *buffer)
{
	struct file *file = store;
	uint64_t end = run->first + run->count;
	int error = 0;
	bool hole = !file->device && extents_hole(file, run->first, end);

	/* Contract 4.3: from here on calls may wait for the inode's lock. */
	if (!hole && mkw_fault_in_syscall_on(file->dev, file->ino))
		return mkw_fault_from_errno(
			mkw_set_error(-EDEADLK,
				      "%s: read through a view in a system call on the file "
				      "itself; use mkw_pread or mkw_pwrite",
				      file->name));
	if (!hole && !file->device) {
		error = extents_look(file, run->first, end);
		hole = !error && extents_hole(file, run->first, end);
	}
	if (error)
		return mkw_fault_from_errno(error);
	if (hole) {
		run->flags |= MKW_RUN_HOLE;
		return MKW_FAULT_LOCKED;
	}
	return run_read(file, object, run, buffer);
}

/* ---- Writing ------------------------------------------------------------------------------ */

static uint64_t run_offset(const struct mkw_wb_run *run)
{
	return run->first * MKW_PAGE_SIZE;
}

static uint64_t run_end(const struct mkw_wb_run *run)
{
	return run_offset(run) + run->length_bytes;
}

/* The bytes [from, to) of adjoining runs, as vectors. */
static int vectors_fill(struct iovec *vectors, const struct mkw_wb_run *runs, size_t count,
			uint64_t from, uint64_t to)
{
	uint64_t limit = to - from < IO_MAX_BYTES ? to : from + IO_MAX_BYTES;
	int used = 0;

	for (size_t i = 0; i < count && used < IO_VECTORS; i++) {
		uint64_t start = run_offset(&runs[i]), end = run_end(&runs[i]);

		if (end <= from || start >= limit)
			continue;
		uint64_t skip = start < from ? from - start : 0;

		if (end > limit)
			end = limit;
		/* pwritev does not write to it; struct iovec cannot say so. */
		vectors[used].iov_base = (void *)(uintptr_t)((const char *)runs[i].data + skip);
		vectors[used++].iov_len = end - start - skip;
	}
	return used;
}

static int write_failed(struct file *file, uint64_t offset, int error)
{
	/* "Not yet" is an answer of the store; no file gives it. */
	if (error == -EAGAIN)
		error = -EIO;
	return mkw_set_error(error, "%s: writing at %llu failed: %s", file->name,
			     (unsigned long long)offset, strerrordesc_np(-error));
}

/* Write the bytes [from, to) of adjoining runs. A failure is that of the run where it happened; the
 * others go on. */
static void bytes_write(struct file *file, int fd, struct mkw_wb_run *runs, size_t count,
			uint64_t from, uint64_t to)
{
	struct iovec vectors[IO_VECTORS];

	while (from < to) {
		int used = vectors_fill(vectors, runs, count, from, to);
		ssize_t n = pwritev(fd, vectors, used, (off_t)from);

		if (n > 0) {
			from += (uint64_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		int error = write_failed(file, from, n < 0 ? -errno : -EIO);
		size_t i = 0;

		while (run_end(&runs[i]) <= from)
			i++;
		runs[i].result = error;
		from = run_end(&runs[i]);
	}
}

/* Adjoining runs, granted. */
static void runs_write(struct file *file, struct mkw_wb_run *runs, size_t count)
{
	uint64_t from = run_offset(&runs[0]), to = run_end(&runs[count - 1]), whole = from;

	if (file->direct_fd >= 0) {
		whole = to & ~(uint64_t)(MKW_PAGE_SIZE - 1);
		bytes_write(file, file->direct_fd, runs, count, from, whole);
	}
	/* Not behind a failure: the run would be taken for written up to there. */
	if (whole < to && !runs[count - 1].result)
		bytes_write(file, file->fd, runs, count, whole, to);
	for (size_t i = 0; i < count && !file->device; i++)
		if (!runs[i].result)
			extents_written(file, runs[i].first, runs[i].first + runs[i].count);
}

/* A run that could not be granted whole (written without a grant: MKW_DEFER): write the parts that
 * could. The run has failed, but what there is room for is not kept from being durable. */
static void run_write_parts(struct file *file, struct mkw_object *object, struct mkw_wb_run *run)
{
	uint64_t end = run->first + run->count;

	for (uint64_t page = run->first; page < end;) {
		int error;
		uint64_t stop = extents_grant(file, object, page, end, false, &error);
		struct mkw_wb_run part = {
			.first = page,
			.count = (size_t)(stop - page),
			.data = (const char *)run->data + (page - run->first) * MKW_PAGE_SIZE,
			.length_bytes = (stop - page) * MKW_PAGE_SIZE,
		};

		if (part.length_bytes > run_end(run) - run_offset(&part))
			part.length_bytes = run_end(run) - run_offset(&part);
		if (stop > page)
			runs_write(file, &part, 1);
		if (!run->result)
			run->result = part.result ? part.result : error;
		page = stop + (error != 0);
	}
	if (run->result == -EFAULT)
		run->result = -EAGAIN; /* truncated meanwhile: nobody need know */
}

/* May the run be written as it is? If not it has been dealt with. */
static bool run_prepare(struct file *file, struct mkw_object *object, struct mkw_wb_run *run,
			uint64_t size_bytes)
{
	int error = 0;

	if (file->device)
		return true;
	if (run_end(run) > size_bytes) {
		run->result = mkw_set_error(-EIO,
					    "%s: the file shrank under us: %llu bytes long, a page "
					    "at %llu cannot be written",
					    file->name, (unsigned long long)size_bytes,
					    (unsigned long long)run_offset(run));
		return false;
	}
	uint64_t end = run->first + run->count;

	if (extents_grant(file, object, run->first, end, false, &error) == end)
		return true;
	run_write_parts(file, object, run);
	return false;
}

int file_writepages(void *store, struct mkw_object *object, struct mkw_writeback *writeback)
{
	struct file *file = store;
	struct mkw_wb_run *runs = writeback->runs;
	struct stat st;

	if (fstat(file->fd, &st))
		return mkw_set_error(-errno, "%s: cannot be examined", file->name);
	for (size_t i = 0, next; i < writeback->count; i = next) {
		next = i + 1;
		if (!run_prepare(file, object, &runs[i], (uint64_t)st.st_size))
			continue;
		while (next < writeback->count && next - i < IO_VECTORS &&
		       run_offset(&runs[next]) == run_end(&runs[next - 1]) &&
		       run_prepare(file, object, &runs[next], (uint64_t)st.st_size))
			next++;
		runs_write(file, runs + i, next - i);
		/* The one that ended the row, if it was dealt with, is not to be done again. */
		next += next < writeback->count && runs[next].result != 0;
	}
	return 0;
}

int file_zero(struct file *file, uint64_t offset, uint64_t length)
{
	static const char zeros[64 * 1024];

	while (length) {
		ssize_t n = pwrite(file->fd, zeros, length < sizeof(zeros) ? length : sizeof(zeros),
				   (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return write_failed(file, offset, n < 0 ? -errno : -EIO);
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}
