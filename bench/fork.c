/* SPDX-License-Identifier: MIT */
/*
 * fork.c - what fork costs a process with much mapped, per page of it: from the call until the
 * parent goes on. The child ends at once. Shared pages need not be copied by the kernel for plain
 * mappings; for the library's the markers go along, and the child is served by its parent. All rows
 * are mapped at a time: but for the one that is measured they are left out of the child.
 */
#include "library.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define OBJECTS 4 /* times the usual size: 1 GiB */

static int time_fork(struct bench *bench, size_t size, struct bench_sample *sample)
{
	uint64_t start;
	pid_t child;
	int status;

	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	child = fork();
	if (child == 0)
		_exit(0);
	sample->elapsed_ns = bench_now_ns() - start;
	bench_unpin();
	sample->units = size / BENCH_PAGE;
	if (child < 0)
		return bench_say(bench, -errno, "fork: %s", strerror(errno));
	if (waitpid(child, &status, 0) != child || status != 0)
		return bench_say(bench, -EIO, "the child ended with status %#x", status);
	return 0;
}

/* ---- The kernel --------------------------------------------------------------------------- */

struct mapping {
	void *map;
	size_t size;
};

static void mapping_close(struct bench *bench, void *state)
{
	struct mapping *mapping = state;

	(void)bench;
	if (mapping->map != MAP_FAILED)
		munmap(mapping->map, mapping->size);
	free(mapping);
}

/* The frames are the mapping's alone once it is written; a private one has copies of them. */
static int mapping_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	const struct library_case *how = measure->arg;
	int flags = (how->map_flags & MKW_PRIVATE ? MAP_PRIVATE : MAP_SHARED) | MAP_NORESERVE;
	struct mapping *mapping = malloc(sizeof(*mapping));
	int fd, err = 0;

	if (!mapping)
		return -ENOMEM;
	mapping->size = OBJECTS * bench->size;
	mapping->map = MAP_FAILED;
	fd = memfd_create("mkwrite-bench", MFD_CLOEXEC);
	if (fd >= 0 && !ftruncate(fd, (off_t)mapping->size))
		mapping->map = mmap(NULL, mapping->size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (mapping->map == MAP_FAILED)
		err = errno;
	if (fd >= 0)
		close(fd);
	if (err) {
		mapping_close(bench, mapping);
		return bench_say(bench, -err, "memfd: %s", strerror(err));
	}
	bench_write_pages(mapping->map, mapping->size / BENCH_PAGE, NULL);
	madvise(mapping->map, mapping->size, MADV_DONTFORK);
	*state = mapping;
	return 0;
}

static int mapping_fork(struct bench *bench, const struct bench_measure *measure, void *state,
			struct bench_sample *sample)
{
	const struct mapping *mapping = state;
	int rc;

	(void)measure;
	madvise(mapping->map, mapping->size, MADV_DOFORK);
	rc = time_fork(bench, mapping->size, sample);
	madvise(mapping->map, mapping->size, MADV_DONTFORK);
	return rc;
}

/* ---- The library -------------------------------------------------------------------------- */

static int view_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct library *library;
	int rc = library_open(bench, measure, OBJECTS * bench->size, 0, &library);

	if (rc)
		return rc;
	bench_write_pages(library->view, library->size / BENCH_PAGE, NULL);
	mkw_advise(library->view, library->size, MKW_DONTFORK);
	*state = library;
	return 0;
}

static int view_fork(struct bench *bench, const struct bench_measure *measure, void *state,
		     struct bench_sample *sample)
{
	struct library *library = state;
	int rc = mkw_advise(library->view, library->size, MKW_DOFORK);

	(void)measure;
	if (rc)
		return library_say(bench, rc, "mkw_advise");
	rc = library_count_begin(bench, library);
	if (!rc)
		rc = time_fork(bench, library->size, sample);
	mkw_advise(library->view, library->size, MKW_DONTFORK);
	return rc ? rc : library_count_end(bench, library, sample);
}

/* ---- Rows --------------------------------------------------------------------------------- */

#define HOW(flags_) (&(const struct library_case){.storage = LIBRARY_EMPTY, .map_flags = (flags_)})
#define KERNEL(name_, text_, flags_)                                                             \
	{                                                                                        \
		.name = (name_), .text = (text_), .unit = BENCH_NS_PER_PAGE, .arg = HOW(flags_), \
		.open = mapping_open, .run = mapping_fork, .close = mapping_close                \
	}
#define LIBRARY(name_, text_, flags_)                                                            \
	{                                                                                        \
		.name = (name_), .text = (text_), .unit = BENCH_NS_PER_PAGE, .arg = HOW(flags_), \
		.open = view_open, .run = view_fork, .close = library_close                      \
	}

const struct bench_measure bench_fork_measures[] = {
	KERNEL("fork/memfd-private",
	       "kernel: fork with 1 GiB of a memfd mapped private, all copied", MKW_PRIVATE),
	LIBRARY("fork/view-private", "library: fork with 1 GiB of private pages", MKW_PRIVATE),
	KERNEL("fork/memfd-shared", "kernel: fork with 1 GiB of a memfd mapped shared", 0),
	LIBRARY("fork/view-shared", "library: fork with 1 GiB of dirty shared pages", 0),
	{.name = NULL},
};
