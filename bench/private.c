/* SPDX-License-Identifier: MIT */
/*
 * private.c - the first write to each page of a private view against the kernel's own copy on write
 * of a memfd. Each run begins with pages that are cached and not mapped, and no copy.
 */
#include "library.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void time_writes(struct bench *bench, void *map, bool random, struct bench_sample *sample)
{
	bench_pin(bench->cpus[0]);
	bench_time_writes(map, random ? bench->order_count : bench->size / BENCH_PAGE,
			  random ? bench->order : NULL, sample);
	bench_unpin();
}

/* ---- The kernel --------------------------------------------------------------------------- */

struct memfd {
	int fd;
	void *map; /* private */
	size_t size;
};

static void memfd_close(struct bench *bench, void *state)
{
	struct memfd *memfd = state;

	(void)bench;
	if (memfd->map != MAP_FAILED)
		munmap(memfd->map, memfd->size);
	if (memfd->fd >= 0)
		close(memfd->fd);
	free(memfd);
}

/* Every page of it is there. */
static int memfd_fill(int fd, size_t size)
{
	static const char page[BENCH_PAGE];

	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < size; at += BENCH_PAGE)
		if (pwrite(fd, page, BENCH_PAGE, (off_t)at) != (ssize_t)BENCH_PAGE)
			return -ENOMEM;
	return 0;
}

static int memfd_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct memfd *memfd = calloc(1, sizeof(*memfd));
	int rc;

	(void)measure;
	if (!memfd)
		return -ENOMEM;
	memfd->size = bench->size;
	memfd->map = MAP_FAILED;
	memfd->fd = memfd_create("mkwrite-bench", MFD_CLOEXEC);
	rc = memfd_fill(memfd->fd, memfd->size);
	if (!rc) {
		memfd->map = mmap(NULL, memfd->size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_NORESERVE, memfd->fd, 0);
		if (memfd->map == MAP_FAILED)
			rc = -errno;
	}
	if (rc) {
		memfd_close(bench, memfd);
		return bench_say(bench, rc, "memfd: %s", strerror(-rc));
	}
	*state = memfd;
	return 0;
}

static int memfd_write(struct bench *bench, const struct bench_measure *measure, void *state,
		       struct bench_sample *sample)
{
	const struct memfd *memfd = state;
	const struct library_case *how = measure->arg;

	if (madvise(memfd->map, memfd->size, MADV_DONTNEED))
		return bench_say(bench, -errno, "madvise: %s", strerror(errno));
	time_writes(bench, memfd->map, how->random, sample);
	return 0;
}

/* ---- The library -------------------------------------------------------------------------- */

static int view_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct library *library;
	int rc = library_open(bench, measure, bench->size, 0, &library);

	if (rc)
		return rc;
	rc = mkw_advise(library->view, library->size, MKW_WILLNEED);
	if (rc) {
		library_say(bench, rc, "mkw_advise");
		library_close(bench, library);
		return rc;
	}
	*state = library;
	return 0;
}

static int view_write(struct bench *bench, const struct bench_measure *measure, void *state,
		      struct bench_sample *sample)
{
	const struct library_case *how = measure->arg;
	struct library *library = state;
	int rc = mkw_advise(library->view, library->size, MKW_DONTNEED);

	if (!rc)
		rc = library_count_begin(bench, library);
	if (rc)
		return library_say(bench, rc, "mkw_advise");
	time_writes(bench, library->view, how->random, sample);
	return library_count_end(bench, library, sample);
}

/* ---- Rows --------------------------------------------------------------------------------- */

#define KERNEL(name_, text_, ...)                                                     \
	{                                                                             \
		.name = (name_), .text = (text_), .unit = BENCH_NS_PER_PAGE,          \
		.arg = &(const struct library_case){__VA_ARGS__}, .open = memfd_open, \
		.run = memfd_write, .close = memfd_close                              \
	}
#define LIBRARY(name_, text_, limit_, against_, flags_, ...)                             \
	{                                                                                \
		.name = (name_), .text = (text_), .unit = BENCH_NS_PER_PAGE,             \
		.arg = &(const struct library_case){.storage = LIBRARY_EMPTY,            \
						    .map_flags = MKW_PRIVATE | (flags_), \
						    __VA_ARGS__},                        \
		.open = view_open, .run = view_write, .close = library_close,            \
		.target = BENCH_RATIO_AT_MOST, .limit = (limit_), .against = (against_)  \
	}

const struct bench_measure bench_private_measures[] = {
	KERNEL("private/memfd-order", "kernel, memfd, MAP_PRIVATE: first write, in order",
	       .random = false),
	LIBRARY("private/uffd-order", "library, MKW_PRIVATE: the same", 1.0, "private/memfd-order",
		0, .random = false),
	LIBRARY("private/inline-order", "library, MKW_PRIVATE, MKW_INLINE: the same", 1.0,
		"private/memfd-order", MKW_INLINE, .random = false),
	KERNEL("private/memfd-random", "kernel, memfd, MAP_PRIVATE: first write, at random",
	       .random = true),
	LIBRARY("private/uffd-random", "library, MKW_PRIVATE: the same", 2.5,
		"private/memfd-random", 0, .random = true),
	LIBRARY("private/inline-random", "library, MKW_PRIVATE, MKW_INLINE: the same", 2.5,
		"private/memfd-random", MKW_INLINE, .random = true),
	{.name = NULL},
};
