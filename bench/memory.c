/* SPDX-License-Identifier: MIT */
/*
 * memory.c - what a large and sparse object costs in time and memory, and what bookkeeping costs.
 *
 * Memory is this process's, by /proc/self/status, from before the space was made until all pages
 * are dirty: RssAnon is what the library has allocated for itself (its heap, its slabs, the
 * stacks of its threads), VmPTE the page tables of views and alias; the object's own pages are what
 * the space says is resident. The benchmark allocates nothing in between.
 */
#include "library.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CLUSTER_BYTES (2 * MIB)

struct memory_case {
	struct library_case how;
	uint64_t size_bytes; /* 0: what is touched */
	enum { TOUCH_TIME, TOUCH_MEMORY, BOOKKEEPING, BOOKKEEPING_TABLES } figure;
};

struct memory {
	uint64_t anonymous, tables, resident; /* bytes */
};

static uint64_t status_field(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

static int memory_read(struct bench *bench, struct memory *memory)
{
	static char text[8192];
	FILE *file = fopen("/proc/self/status", "re");
	size_t length;

	if (!file)
		return bench_say(bench, -errno, "/proc/self/status: %s", strerror(errno));
	length = fread(text, 1, sizeof(text) - 1, file);
	text[length] = '\0';
	fclose(file);
	memory->anonymous = status_field(text, "\nRssAnon:");
	memory->tables = status_field(text, "\nVmPTE:");
	return 0;
}

static int resident_read(struct bench *bench, struct library *library, struct memory *memory)
{
	struct mkw_stat stat;
	int rc = mkw_space_stat(library->space, &stat, sizeof(stat));

	if (rc)
		return library_say(bench, rc, "mkw_space_stat");
	memory->resident = stat.resident_bytes;
	return memory->resident ? 0 : bench_say(bench, -EPROTO, "nothing is resident");
}

static uint64_t touched_bytes(const struct bench *bench)
{
	return 4 * (uint64_t)bench->size;
}

/* One byte a page in clusters spread evenly over the object, in an order that is none; the same
 * for every size. */
static void clusters_time(struct library *library, size_t clusters, struct bench_sample *sample)
{
	size_t stride = library->size / clusters;

	for (size_t i = 0; i < clusters; i++) {
		size_t cluster = (i * 181 + 7) % clusters; /* odd: all of a power of 2 */

		bench_time_writes((char *)library->view + cluster * stride,
				  CLUSTER_BYTES / BENCH_PAGE, NULL, sample);
	}
}

static double figure_of(const struct memory_case *what, const struct memory *before,
			const struct memory *after)
{
	/* May shrink a little where the C library gives something back. */
	double anonymous = (double)after->anonymous - (double)before->anonymous;
	double tables = (double)after->tables - (double)before->tables;
	double resident = (double)after->resident;

	switch (what->figure) {
	case TOUCH_MEMORY:
		return (anonymous + tables + resident) / (double)MIB;
	case BOOKKEEPING:
		return 100 * anonymous / resident;
	case BOOKKEEPING_TABLES:
		return 100 * tables / resident;
	default:
		return 0;
	}
}

static int touch_run(struct bench *bench, const struct bench_measure *measure, void *state,
		     struct bench_sample *sample)
{
	const struct memory_case *what = measure->arg;
	uint64_t touched = touched_bytes(bench);
	size_t size = (size_t)(what->size_bytes ? what->size_bytes : touched);
	struct memory before, after;
	struct library library;
	int rc;

	(void)state;
	rc = memory_read(bench, &before);
	if (!rc)
		rc = library_start(bench, &what->how, size, 0, &library);
	if (rc)
		return rc;
	rc = library_count_begin(bench, &library);
	bench_pin(bench->cpus[0]);
	if (!rc)
		clusters_time(&library, (size_t)(touched / CLUSTER_BYTES), sample);
	bench_unpin();
	if (!rc)
		rc = library_count_end(bench, &library, sample);
	if (!rc)
		rc = memory_read(bench, &after);
	if (!rc)
		rc = resident_read(bench, &library, &after);
	library_end(bench, &library);
	if (!rc)
		sample->value = figure_of(what, &before, &after);
	return rc;
}

#define TERABYTE ((uint64_t)1 << 40)
#define HOW(size_, figure_)           \
	(&(const struct memory_case){ \
		.how = {.storage = LIBRARY_EMPTY}, .size_bytes = (size_), .figure = (figure_)})

const struct bench_measure bench_memory_measures[] = {
	{.name = "sparse/dense-time",
	 .text = "library: 1 GiB of a 1 GiB object dirtied in clusters of 2 MiB",
	 .arg = HOW(0, TOUCH_TIME),
	 .run = touch_run},
	{.name = "sparse/1T-time",
	 .text = "library: 1 GiB of a 1 TiB object, the same",
	 .arg = HOW(TERABYTE, TOUCH_TIME),
	 .run = touch_run,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 1.1,
	 .against = "sparse/dense-time"},
	{.name = "sparse/dense-memory",
	 .text = "of the 1 GiB object: its pages, page tables and the library's own memory",
	 .unit = BENCH_MIB,
	 .arg = HOW(0, TOUCH_MEMORY),
	 .run = touch_run},
	{.name = "sparse/1T-memory",
	 .text = "of the 1 TiB object, the same",
	 .unit = BENCH_MIB,
	 .arg = HOW(TERABYTE, TOUCH_MEMORY),
	 .run = touch_run,
	 .target = BENCH_RATIO_AT_MOST,
	 .limit = 1.1,
	 .against = "sparse/dense-memory"},
	{.name = "bookkeeping/library",
	 .text = "the library's own memory (growth of RssAnon), of 1 GiB resident and dirty",
	 .unit = BENCH_PERCENT,
	 .arg = HOW(0, BOOKKEEPING),
	 .run = touch_run,
	 .target = BENCH_FIGURE_AT_MOST,
	 .limit = 1.0},
	{.name = "bookkeeping/tables",
	 .text = "the kernel's page tables for it (growth of VmPTE): view and alias",
	 .unit = BENCH_PERCENT,
	 .arg = HOW(0, BOOKKEEPING_TABLES),
	 .run = touch_run},
	{.name = NULL},
};
