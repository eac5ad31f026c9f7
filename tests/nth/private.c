/* SPDX-License-Identifier: MIT */
/*
 * private.c - each call of the library to the system fails once while private views are read,
 * written, cut and dropped, and while what they were granted is taken back: an access works or is
 * refused, no copy is lost, and every page that was charged is given back.
 */
#include "nth/model.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

static int advise(struct model *m, enum mkw_advice advice)
{
	int error;

	IN_LIBRARY(error = mkw_advise(m->private, m->private_pages * PAGE, advice));
	return error;
}

static int advise_random(struct model *m)
{
	return advise(m, MKW_RANDOM);
}

static int advise_sequential(struct model *m)
{
	return advise(m, MKW_SEQUENTIAL);
}

static int advise_willneed(struct model *m)
{
	return advise(m, MKW_WILLNEED);
}

static int invalidate(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_invalidate(m->handle, 0, 0));
	return error;
}

/* Its copies go. */
static int drop(struct model *m, uint64_t first, uint64_t count)
{
	int error;

	IN_LIBRARY(error = mkw_advise(m->private + first * PAGE, count * PAGE, MKW_DONTNEED));
	if (!error)
		memset(m->own + first, 0, count);
	return error;
}

static int drop_some(struct model *m)
{
	return drop(m, 1, 3);
}

static int drop_all(struct model *m)
{
	return drop(m, 0, m->private_pages);
}

static uint64_t resident_pages(struct model *m)
{
	struct mkw_stat stat = {0};

	CHECK_EQ(mkw_object_stat(m->handle, &stat, sizeof(stat)), 0);
	return stat.resident_bytes / PAGE;
}

/* Without the object's pages at least each copy is charged. */
static int look_charged(struct model *m)
{
	int error = invalidate(m);
	uint64_t copies = 0;

	for (size_t page = 0; page < m->private_pages; page++)
		copies += m->own[page];
	if (!error)
		CHECK(resident_pages(m) >= copies);
	return error;
}

/* Nothing is charged any more: neither pages nor copies. What a fault that was reported late has
 * brought back goes with the next try. */
static int look_empty(struct model *m)
{
	int error = 0;

	for (unsigned i = 0; i < 1000 && !error && (i == 0 || resident_pages(m) > 0); i++) {
		sched_yield();
		error = drop_all(m);
		if (!error)
			error = invalidate(m);
	}
	if (!error)
		CHECK_EQ(resident_pages(m), 0);
	return error;
}

/* ---- Accesses ----------------------------------------------------------------------------- */

static int write_some(struct model *m)
{
	return model_write_private(m, 1, 5, 2, 'p');
}

static int write_all(struct model *m)
{
	return model_write_private(m, 0, m->private_pages, 1, 'q');
}

/* The object's pages beneath copies. */
static int write_beneath(struct model *m)
{
	return model_write(m, 1, 1, 's');
}

static void accesses(struct model *m)
{
	model_begin(m, 10);
	model_arm();
	STEP(m, model_map_private);
	STEP(m, advise_random);
	STEP(m, write_some);
	STEP(m, model_read);
	STEP(m, write_beneath);
	STEP(m, write_some);
	STEP(m, look_charged);
	STEP(m, model_read);
	STEP(m, drop_some);
	STEP(m, model_read);
	STEP(m, write_all);
	STEP(m, model_unmap_private);
	STEP(m, model_map_private);
	STEP(m, write_some);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private, "whatever call fails while a private view is read and written")
{
	model_loop(MODEL_MEM, "", accesses);
}

static void streams(struct model *m)
{
	model_begin(m, 64);
	REQUIRE_EQ(model_map_private(m), 0);
	model_arm();
	STEP(m, advise_sequential);
	STEP(m, write_all);
	STEP(m, model_read);
	STEP(m, drop_all);
	STEP(m, advise_willneed);
	STEP(m, write_all);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_streams,
		  "whatever call fails while private pages are copied ahead of a stream")
{
	model_loop(MODEL_MEM, "", streams);
}

static int write_across(struct model *m)
{
	return model_write_private(m, 505, 12, 2, 't');
}

static void regions(struct model *m)
{
	m->holes = true;
	m->quiet_pages = 500;
	model_begin(m, 520);
	model_arm();
	STEP(m, model_map_private);
	STEP(m, write_across);
	STEP(m, model_read);
	STEP(m, write_across);
	STEP(m, model_unmap_private);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_regions, "whatever call fails where a private view has two regions")
{
	model_loop(MODEL_MEM, "", regions);
}

/* ---- Sizes -------------------------------------------------------------------------------- */

static int cut(struct model *m)
{
	return model_truncate(m, 4 * PAGE + 100);
}

static int grow(struct model *m)
{
	return model_truncate(m, 8 * PAGE + 50);
}

static int punch(struct model *m)
{
	return model_punch(m, 0, 2 * PAGE);
}

static int write_first(struct model *m)
{
	return model_write_private(m, 0, 3, 1, 'u');
}

static void sizes(struct model *m)
{
	model_begin(m, 9);
	REQUIRE_EQ(model_map_private(m), 0);
	model_arm();
	STEP(m, write_all);
	STEP(m, cut);
	STEP(m, model_read);
	STEP(m, grow);
	STEP(m, model_read);
	STEP(m, write_first);
	STEP(m, punch);
	STEP(m, model_read);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(
	nth_private_sizes,
	"whatever call fails while an object with private views is cut, grown and punched")
{
	model_loop(MODEL_MEM, "", sizes);
	if (test_backend() == TEST_UFFD)
		model_loop(MODEL_TMPFS, "", sizes);
}

/* ---- Room --------------------------------------------------------------------------------- */

/* Every fourth page: the windows that are granted meanwhile hold three others each. */
static int write_thinly(struct model *m)
{
	return model_write_private(m, 0, m->private_pages, 4, 'v');
}

static int write_rest(struct model *m)
{
	return model_write_private(m, 2, m->private_pages - 2, 4, 'w');
}

/* Copies, and a few of the object's pages. */
static int limit(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_set_limits(m->handle, 36 * PAGE, 0));
	return error;
}

static void taken_back(struct model *m)
{
	model_begin(m, 48);
	REQUIRE_EQ(model_map_private(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	model_arm();
	STEP(m, write_thinly);
	STEP(m, limit);
	STEP(m, write_rest);
	STEP(m, look_charged);
	STEP(m, write_thinly);
	STEP(m, model_read);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_room,
		  "whatever call fails while what private views do not use is taken back")
{
	model_loop(MODEL_MEM, "", taken_back);
}

/* ---- Swap --------------------------------------------------------------------------------- */

static int page_out(struct model *m)
{
	return advise(m, MKW_PAGEOUT);
}

static int write_even(struct model *m)
{
	return model_write_private(m, 0, m->private_pages, 2, 'x');
}

static void paged_out(struct model *m)
{
	m->space_options.swap_path = "/tmp";
	model_begin(m, 12);
	REQUIRE_EQ(model_map_private(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	model_arm();
	STEP(m, write_even);
	STEP(m, page_out);
	STEP(m, model_read);
	STEP(m, page_out);
	STEP(m, write_all);
	STEP(m, page_out);
	STEP(m, drop_some);
	STEP(m, cut);
	STEP(m, model_read);
	STEP(m, page_out);
	STEP(m, model_unmap_private);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_swap,
		  "whatever call fails while pages in the swap file are read, cut and unmapped")
{
	model_loop(MODEL_MEM, "", paged_out);
}

/* With memory and swap file full nothing more can be written; what was can be read. */
static int write_too_many(struct model *m)
{
	int error = write_all(m);

	return error == -ENOSPC ? 0 : error ? error : mkw_set_error(-EIO, "all of it was written");
}

static void full(struct model *m)
{
	m->space_options.swap_path = "/tmp";
	m->space_options.swap_limit_bytes = 6 * PAGE;
	m->space_options.resident_limit_bytes = 8 * PAGE;
	model_begin(m, 24);
	REQUIRE_EQ(model_map_private(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	m->only_own = true;
	model_arm();
	STEP(m, write_too_many);
	STEP(m, model_read);
	STEP(m, drop_all);
	m->only_own = false;
	STEP(m, write_first);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_full, "whatever call fails where memory and swap file are full")
{
	model_loop(MODEL_MEM, "", full);
}
