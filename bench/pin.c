/* SPDX-License-Identifier: MIT */
/*
 * pin.c - pinning pages that are resident and unpinning them again, 64 pages a call.
 */
#include "library.h"

#define RUN 64

/* Every page written: dirty, and copied where the view is private. */
static int pinned_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct library *library;
	int rc = library_open(bench, measure, bench->size, 0, &library);

	if (rc)
		return rc;
	bench_write_pages(library->view, library->size / BENCH_PAGE, NULL);
	*state = library;
	return 0;
}

static int pinned_run(struct bench *bench, const struct bench_measure *measure, void *state,
		      struct bench_sample *sample)
{
	const struct library_case *how = measure->arg;
	unsigned access = how->write ? MKW_WRITE : MKW_READ;
	struct library *library = state;
	uint64_t start;
	int rc = library_count_begin(bench, library);

	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	for (size_t at = 0; !rc && at < library->size; at += RUN * BENCH_PAGE) {
		struct mkw_pin *pin;

		rc = mkw_pin((char *)library->view + at, RUN * BENCH_PAGE, access, &pin);
		if (!rc)
			rc = mkw_unpin(pin);
	}
	sample->elapsed_ns = bench_now_ns() - start;
	bench_unpin();
	if (rc)
		return library_say(bench, rc, "mkw_pin");
	sample->units = library->size / BENCH_PAGE;
	return library_count_end(bench, library, sample);
}

#define ROW(name_, text_, flags_, write_)                                       \
	{                                                                       \
		.name = (name_), .text = (text_), .unit = BENCH_NS_PER_PAGE,    \
		.arg = &(const struct library_case){.storage = LIBRARY_EMPTY,   \
						    .map_flags = (flags_),      \
						    .write = (write_)},         \
		.open = pinned_open, .run = pinned_run, .close = library_close, \
		.target = BENCH_FIGURE_AT_MOST, .limit = 1000                   \
	}

const struct bench_measure bench_pin_measures[] = {
	ROW("pin/read", "library: pin for reading and unpin, resident pages, 64 a call", 0, false),
	ROW("pin/write", "library: the same for writing, dirty pages", 0, true),
	ROW("pin/private", "library: the same of a private view's own pages", MKW_PRIVATE, true),
	{.name = NULL},
};
