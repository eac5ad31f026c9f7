/* SPDX-License-Identifier: MIT */
/*
 * measures.c - the library's rows, in the loops that the kernel and the bare mechanism were
 * measured with, and their targets.
 */
#include "library.h"
#include "limit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Open for all rounds ------------------------------------------------------------------ */

static int object_sync(struct bench *bench, struct library *library)
{
	int rc = mkw_sync(library->handle, 0, 0);

	return rc ? library_say(bench, rc, "mkw_sync") : 0;
}

/* Every page written, and synced: what each run starts from, as with the kernel's. */
static int written_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct library *library;
	int rc = library_open(bench, measure, bench->size, 0, &library);

	if (rc)
		return rc;
	bench_write_pages(library->view, library->size / BENCH_PAGE, NULL);
	rc = object_sync(bench, library);
	if (rc)
		library_close(bench, library);
	*state = library;
	return rc;
}

/* ---- First writes ------------------------------------------------------------------------- */

static int first_writes(struct bench *bench, const struct bench_measure *measure, void *state,
			struct bench_sample *sample)
{
	const struct library_case *how = measure->arg;
	struct library *library = state;
	int rc = library_count_begin(bench, library);

	if (rc)
		return rc;
	bench_pin(bench->cpus[0]);
	bench_time_writes(library->view,
			  how->random ? bench->order_count : library->size / BENCH_PAGE,
			  how->random ? bench->order : NULL, sample);
	bench_unpin();
	rc = library_count_end(bench, library, sample);
	return rc ? rc : object_sync(bench, library);
}

static int two_writers(struct bench *bench, const struct bench_measure *measure, void *state,
		       struct bench_sample *sample)
{
	const struct library_case *how = measure->arg;
	struct library *library = state;
	int rc = library_count_begin(bench, library);

	if (rc)
		return rc;
	rc = bench_time_two(bench, library->view, library->size / BENCH_PAGE,
			    how->random ? bench->order : NULL, bench->order_count, sample);
	bench_unpin();
	if (!rc)
		rc = library_count_end(bench, library, sample);
	return rc ? rc : object_sync(bench, library);
}

/* All of a sync over a store that does nothing: protection, and every page's way through the
 * states of write-back. */
static int sync_written(struct bench *bench, const struct bench_measure *measure, void *state,
			struct bench_sample *sample)
{
	struct library *library = state;
	uint64_t start;
	int rc;

	(void)measure;
	bench_write_pages(library->view, library->size / BENCH_PAGE, NULL);
	rc = library_count_begin(bench, library);
	if (rc)
		return rc;
	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	rc = object_sync(bench, library);
	sample->elapsed_ns = bench_now_ns() - start;
	bench_unpin();
	sample->units = library->size / BENCH_PAGE;
	return rc ? rc : library_count_end(bench, library, sample);
}

/* ---- Reads -------------------------------------------------------------------------------- */

/* A new object over a file that the kernel has cached. Mapping it is part of the time. */
static int cold_read(struct bench *bench, const struct bench_measure *measure, void *state,
		     struct bench_sample *sample)
{
	struct library library;
	uint64_t start;
	int rc;

	(void)state;
	rc = library_start(bench, measure->arg, bench->size, 0, &library);
	if (rc)
		return rc;
	mkw_unmap(library.view, library.size);
	library.view = NULL;
	rc = library_count_begin(bench, &library);
	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	if (!rc) {
		rc = mkw_map(library.handle, library.size, MKW_READ, 0, 0, &library.view);
		if (rc)
			library_say(bench, rc, "mkw_map");
	}
	if (!rc)
		bench_time_reads(library.view, library.size / BENCH_PAGE, sample);
	sample->elapsed_ns = bench_now_ns() - start;
	bench_unpin();
	if (!rc)
		rc = library_count_end(bench, &library, sample);
	library_end(bench, &library);
	return rc;
}

static int resident_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct library *library;
	int rc = library_open(bench, measure, bench->size, 0, &library);

	if (rc)
		return rc;
	bench_read_pages(library->view, library->size / BENCH_PAGE);
	*state = library;
	return 0;
}

/* A second view of the object, whose pages are all there. */
static int new_view(struct bench *bench, const struct bench_measure *measure, void *state,
		    struct bench_sample *sample)
{
	struct library *library = state;
	void *view = NULL;
	uint64_t start;
	int rc;

	(void)measure;
	rc = library_count_begin(bench, library);
	if (rc)
		return rc;
	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	rc = mkw_map(library->handle, library->size, MKW_READ | MKW_WRITE, 0, 0, &view);
	if (rc)
		library_say(bench, rc, "mkw_map");
	else
		bench_time_reads(view, library->size / BENCH_PAGE, sample);
	sample->elapsed_ns = bench_now_ns() - start;
	bench_unpin();
	if (!rc)
		rc = library_count_end(bench, library, sample);
	if (view)
		mkw_unmap(view, library->size);
	return rc;
}

static int read_again(struct bench *bench, const struct bench_measure *measure, void *state,
		      struct bench_sample *sample)
{
	struct library *library = state;
	int rc = library_count_begin(bench, library);

	(void)measure;
	if (rc)
		return rc;
	bench_pin(bench->cpus[0]);
	bench_read_pages(library->view, library->size / BENCH_PAGE);
	bench_time_reads(library->view, library->size / BENCH_PAGE, sample);
	bench_unpin();
	return library_count_end(bench, library, sample);
}

/* ---- Under a limit ------------------------------------------------------------------------ */

static int limited_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct library *library;
	struct bench_sample untimed = {0};
	size_t size = 4 * limit_bytes(bench);
	int rc = library_open(bench, measure, size, limit_bytes(bench), &library);

	if (rc)
		return rc;
	bench_pin(bench->cpus[0]);
	bench_time_mixed(library->view, size / BENCH_PAGE, size / BENCH_PAGE, 1, &untimed);
	bench_unpin();
	*state = library;
	return 0;
}

static int limited_run(struct bench *bench, const struct bench_measure *measure, void *state,
		       struct bench_sample *sample)
{
	struct library *library = state;
	int rc = library_count_begin(bench, library);

	(void)measure;
	if (rc)
		return rc;
	bench_pin(bench->cpus[0]);
	bench_time_mixed(library->view, library->size / BENCH_PAGE, limit_operations(bench),
			 bench->round + 1001, sample);
	bench_unpin();
	return library_count_end(bench, library, sample);
}

/* ---- Rows --------------------------------------------------------------------------------- */

#define HOW(storage_, ...) (&(const struct library_case){.storage = (storage_), __VA_ARGS__})

#define KERNEL_REWRITES "rewrite/ext4-* rewrite/xfs-* rewrite/memfd"

const struct bench_measure bench_library_measures[] = {
	{.name = "rewrite/uffd-file",
	 .text = "library, file: on ext4: first write after sync, in order",
	 .arg = HOW(LIBRARY_FILE),
	 .open = written_open,
	 .run = first_writes,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 0.6,
	 .against = KERNEL_REWRITES},
	{.name = "rewrite/uffd-mem",
	 .text = "library, mem: the same",
	 .arg = HOW(LIBRARY_MEM),
	 .open = written_open,
	 .run = first_writes,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 0.6,
	 .against = KERNEL_REWRITES},
	{.name = "rewrite/inline-file",
	 .text = "library, file: on ext4, MKW_INLINE: the same",
	 .arg = HOW(LIBRARY_FILE, .map_flags = MKW_INLINE),
	 .open = written_open,
	 .run = first_writes,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 0.5,
	 .against = KERNEL_REWRITES},
	{.name = "rewrite/inline-mem",
	 .text = "library, mem:, MKW_INLINE: the same",
	 .arg = HOW(LIBRARY_MEM, .map_flags = MKW_INLINE),
	 .open = written_open,
	 .run = first_writes,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 0.5,
	 .against = KERNEL_REWRITES},
	{.name = "random/uffd-file",
	 .text = "library, file: on ext4: first write after sync, at random",
	 .arg = HOW(LIBRARY_FILE, .random = true),
	 .open = written_open,
	 .run = first_writes,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 1.2,
	 .against = "random/bare-*"},
	{.name = "random/uffd-mem",
	 .text = "library, mem: the same",
	 .arg = HOW(LIBRARY_MEM, .random = true),
	 .open = written_open,
	 .run = first_writes,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 1.2,
	 .against = "random/bare-*"},
	{.name = "random/inline-mem",
	 .text = "library, mem:, MKW_INLINE: the same",
	 .arg = HOW(LIBRARY_MEM, .map_flags = MKW_INLINE, .random = true),
	 .open = written_open,
	 .run = first_writes,
	 .close = library_close},
	{.name = "reprotect/sync",
	 .text = "library: all of mkw_sync over a store that does nothing",
	 .arg = HOW(LIBRARY_EMPTY),
	 .open = written_open,
	 .run = sync_written,
	 .close = library_close},
	{.name = "read/uffd-file",
	 .text = "library, file: on ext4: map and read in order, cached by the kernel only",
	 .arg = HOW(LIBRARY_FILE),
	 .run = cold_read,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 2.0,
	 .against = "read/pread"},
	{.name = "touch/uffd",
	 .text = "library: map a second view of resident pages and read it in order",
	 .arg = HOW(LIBRARY_MEM),
	 .open = resident_open,
	 .run = new_view,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 1.3,
	 .against = "touch/memfd-*"},
	{.name = "again/uffd",
	 .text = "library: reading again what is mapped",
	 .arg = HOW(LIBRARY_MEM),
	 .open = resident_open,
	 .run = read_again,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 1.1,
	 .against = "again/memfd",
	 .event_free = true},
	{.name = "limit/uffd-file",
	 .text = "library, file: on ext4, resident limit: the same",
	 .unit = BENCH_OPS_PER_SECOND,
	 .arg = HOW(LIBRARY_FILE),
	 .open = limited_open,
	 .run = limited_run,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_LEAST,
	 .limit = 0.5,
	 .against = "limit/kernel-*"},
	{.name = "limit/uffd-file-direct",
	 .text = "library: the same, past the kernel's cache of the file",
	 .unit = BENCH_OPS_PER_SECOND,
	 .arg = HOW(LIBRARY_FILE, .direct = true),
	 .open = limited_open,
	 .run = limited_run,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_LEAST,
	 .limit = 0.5,
	 .against = "limit/kernel-*"},
	{.name = "limit/uffd-mem",
	 .text = "library, mem:, resident limit: the same",
	 .unit = BENCH_OPS_PER_SECOND,
	 .arg = HOW(LIBRARY_MEM),
	 .open = limited_open,
	 .run = limited_run,
	 .close = library_close,
	 .target = BENCH_FIGURE_AT_LEAST,
	 .limit = 50000},
	{.name = "threads/uffd-random",
	 .text = "library, mem:, two writers, first write after sync, at random",
	 .unit = BENCH_OPS_PER_SECOND,
	 .arg = HOW(LIBRARY_MEM, .random = true),
	 .open = written_open,
	 .run = two_writers,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_LEAST,
	 .limit = 0.9,
	 .against = "threads/bare-random-*"},
	{.name = "threads/uffd-order",
	 .text = "library: the same, each in order",
	 .unit = BENCH_OPS_PER_SECOND,
	 .arg = HOW(LIBRARY_MEM),
	 .open = written_open,
	 .run = two_writers,
	 .close = library_close,
	 .target = BENCH_RATIO_AT_LEAST,
	 .limit = 0.9,
	 .against = "threads/bare-order-*"},
	{.name = NULL},
};
