/* SPDX-License-Identifier: MIT */
/*
 * kernel.c - what the kernel's own mmap costs: files on ext4 and xfs, laid down in small and in
 * large folios (ext4 walks a large folio at every notification, so it matters), and a memfd.
 *
 * A file's first write after fsync is the kernel's page_mkwrite. A memfd has none and is never
 * cleaned: its first write is that to a page in its cache but not mapped.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct kernel_case {
	bool memfd;
	enum bench_fs fs;
	size_t write_size; /* how the file was laid down */
	bool random;
	bool cold;     /* reads: the file is not cached */
	bool populate; /* reads: mapped in bulk, by MADV_POPULATE_READ */
};

struct kernel_file {
	const struct kernel_case *how;
	int fd;
	void *map;
	size_t size;
};

static void kernel_close(struct bench *bench, void *state)
{
	struct kernel_file *file = state;

	(void)bench;
	if (file->map)
		munmap(file->map, file->size);
	if (file->fd >= 0)
		close(file->fd);
	free(file);
}

static int file_make(struct bench *bench, const struct bench_measure *measure,
		     struct kernel_file *file)
{
	char name[64];
	int mount_fd, rc;

	if (file->how->memfd) {
		file->fd = memfd_create("mkwrite-bench", MFD_CLOEXEC);
		if (file->fd < 0 || ftruncate(file->fd, (off_t)file->size))
			return bench_say(bench, -errno, "memfd: %s", strerror(errno));
		return 0;
	}
	snprintf(name, sizeof(name), "%s", measure->name);
	*strchr(name, '/') = '-';
	rc = bench_file_create(bench, file->how->fs, name, file->size, file->how->write_size,
			       &file->fd);
	if (!rc && !bench_image_open(bench, file->how->fs, &mount_fd))
		unlinkat(mount_fd, name, 0);
	return rc;
}

/* Made, mapped, every page written and synced: the state that each run starts from. */
static int kernel_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct kernel_file *file = calloc(1, sizeof(*file));
	int rc;

	if (!file)
		return -ENOMEM;
	file->how = measure->arg;
	file->fd = -1;
	file->size = bench->size;
	rc = file_make(bench, measure, file);
	if (!rc) {
		file->map = mmap(NULL, file->size, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
		if (file->map == MAP_FAILED) {
			file->map = NULL;
			rc = bench_say(bench, -errno, "mmap: %s", strerror(errno));
		}
	}
	if (rc) {
		kernel_close(bench, file);
		return rc;
	}
	bench_write_pages(file->map, file->size / BENCH_PAGE, NULL);
	fsync(file->fd);
	*state = file;
	return 0;
}

static int kernel_write(struct bench *bench, const struct bench_measure *measure, void *state,
			struct bench_sample *sample)
{
	struct kernel_file *file = state;
	const struct kernel_case *how = measure->arg;

	if (how->memfd)
		madvise(file->map, file->size, MADV_DONTNEED);
	bench_pin(bench->cpus[0]);
	bench_time_writes(file->map, how->random ? bench->order_count : file->size / BENCH_PAGE,
			  how->random ? bench->order : NULL, sample);
	bench_unpin();
	if (fsync(file->fd))
		return bench_say(bench, -errno, "fsync: %s", strerror(errno));
	return 0;
}

/* A new mapping, touched in order; making it is part of the time. */
static int kernel_read(struct bench *bench, const struct bench_measure *measure, void *state,
		       struct bench_sample *sample)
{
	struct kernel_file *file = state;
	const struct kernel_case *how = measure->arg;
	uint64_t start;

	munmap(file->map, file->size);
	file->map = NULL;
	if (how->cold)
		posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	file->map = mmap(NULL, file->size, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
	if (file->map == MAP_FAILED) {
		file->map = NULL;
		return bench_say(bench, -errno, "mmap: %s", strerror(errno));
	}
	if (how->populate && madvise(file->map, file->size, MADV_POPULATE_READ))
		return bench_say(bench, -errno, "MADV_POPULATE_READ: %s", strerror(errno));
	bench_time_reads(file->map, file->size / BENCH_PAGE, sample);
	sample->elapsed_ns = bench_now_ns() - start;
	bench_unpin();
	return 0;
}

static int kernel_again(struct bench *bench, const struct bench_measure *measure, void *state,
			struct bench_sample *sample)
{
	struct kernel_file *file = state;

	(void)measure;
	bench_pin(bench->cpus[0]);
	bench_read_pages(file->map, file->size / BENCH_PAGE);
	bench_time_reads(file->map, file->size / BENCH_PAGE, sample);
	bench_unpin();
	return 0;
}

#define PREAD_PIECE ((size_t)MIB)

/* What any reader of a file that is cached pays at least: one copy, into memory that it must get
 * from the kernel first. */
static int kernel_pread(struct bench *bench, const struct bench_measure *measure, void *state,
			struct bench_sample *sample)
{
	struct kernel_file *file = state;
	uint64_t start, faults;
	char *fresh;
	int rc = 0;

	(void)measure;
	fresh = mmap(NULL, file->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fresh == MAP_FAILED)
		return bench_say(bench, -errno, "mmap: %s", strerror(errno));
	bench_pin(bench->cpus[0]);
	faults = bench_kernel_faults();
	start = bench_now_ns();
	for (size_t done = 0; done < file->size && !rc; done += PREAD_PIECE) {
		if (pread(file->fd, fresh + done, PREAD_PIECE, (off_t)done) != PREAD_PIECE)
			rc = bench_say(bench, -EIO, "pread: %s", strerror(errno));
	}
	sample->elapsed_ns = bench_now_ns() - start;
	sample->counts.kernel_faults = bench_kernel_faults() - faults;
	sample->units = file->size / BENCH_PAGE;
	bench_unpin();
	munmap(fresh, file->size);
	return rc;
}

#define SMALL BENCH_PAGE
#define LARGE ((size_t)MIB)

#define FILE_CASE(fs_, size_, ...) \
	(&(const struct kernel_case){.fs = (fs_), .write_size = (size_), __VA_ARGS__})
#define MEMFD_CASE(...) (&(const struct kernel_case){.memfd = true, __VA_ARGS__})

#define ROW(name_, text_, run_, arg_)                                                       \
	{                                                                                   \
		.name = (name_), .text = (text_), .unit = BENCH_NS_PER_PAGE, .arg = (arg_), \
		.open = kernel_open, .run = (run_), .close = kernel_close                   \
	}

const struct bench_measure bench_kernel_measures[] = {
	ROW("rewrite/ext4-small", "kernel, ext4 in small folios: first write after fsync, in order",
	    kernel_write, FILE_CASE(BENCH_EXT4, SMALL)),
	ROW("rewrite/ext4-large", "kernel, ext4 in large folios: the same", kernel_write,
	    FILE_CASE(BENCH_EXT4, LARGE)),
	ROW("rewrite/xfs-small", "kernel, xfs in small folios: the same", kernel_write,
	    FILE_CASE(BENCH_XFS, SMALL)),
	ROW("rewrite/xfs-large", "kernel, xfs in large folios: the same", kernel_write,
	    FILE_CASE(BENCH_XFS, LARGE)),
	ROW("rewrite/memfd", "kernel, memfd: first write to cached pages, in order", kernel_write,
	    MEMFD_CASE()),
	ROW("random/ext4-small", "kernel, ext4 in small folios: first write after fsync, at random",
	    kernel_write, FILE_CASE(BENCH_EXT4, SMALL, .random = true)),
	ROW("random/ext4-large", "kernel, ext4 in large folios: the same", kernel_write,
	    FILE_CASE(BENCH_EXT4, LARGE, .random = true)),
	ROW("random/xfs-small", "kernel, xfs in small folios: the same", kernel_write,
	    FILE_CASE(BENCH_XFS, SMALL, .random = true)),
	ROW("random/xfs-large", "kernel, xfs in large folios: the same", kernel_write,
	    FILE_CASE(BENCH_XFS, LARGE, .random = true)),
	ROW("random/memfd", "kernel, memfd: first write to cached pages, at random", kernel_write,
	    MEMFD_CASE(.random = true)),
	ROW("read/pread", "pread of a cached ext4 file into fresh memory, 1 MiB a call",
	    kernel_pread, FILE_CASE(BENCH_EXT4, LARGE)),
	ROW("read/ext4-cold", "kernel, ext4: mmap and read in order, nothing cached", kernel_read,
	    FILE_CASE(BENCH_EXT4, LARGE, .cold = true)),
	ROW("read/xfs-cold", "kernel, xfs: the same", kernel_read,
	    FILE_CASE(BENCH_XFS, LARGE, .cold = true)),
	ROW("read/ext4-warm", "kernel, ext4: mmap and read in order, cached", kernel_read,
	    FILE_CASE(BENCH_EXT4, LARGE)),
	ROW("read/xfs-warm", "kernel, xfs: the same", kernel_read, FILE_CASE(BENCH_XFS, LARGE)),
	ROW("touch/memfd-around", "kernel, memfd: new mapping, read in order, by fault-around",
	    kernel_read, MEMFD_CASE()),
	ROW("touch/memfd-populate", "kernel, memfd: the same, by MADV_POPULATE_READ", kernel_read,
	    MEMFD_CASE(.populate = true)),
	ROW("again/memfd", "kernel, memfd: reading again what is mapped", kernel_again,
	    MEMFD_CASE()),
	{.name = NULL},
};
