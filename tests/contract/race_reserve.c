/* SPDX-License-Identifier: MIT */
/*
 * race_reserve.c - what a reservation shares its pages with: limits, the store's own extents, other
 * reservations, discarding (mkwrite.h, mkw_reserve).
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

TEST(reserve_beyond_limit,
     "contract 11: what is reserved beyond the dirty limit of a manual object "
     "is held all the same")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 2 * PAGE};
	struct world w;

	world_make_with(&w, 8 * PAGE, &options);
	world_open(&w, 8 * PAGE);
	script_set_capacity(w.store, 6);
	CHECK_EQ(mkw_reserve(w.view, 6 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 6);
	CHECK(world_stat(&w).dirty_peak_bytes <= 2 * PAGE);
	for (size_t page = 0; page < 6; page++) {
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		put(w.view + page * PAGE, 1);
	}
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(try_write(w.view + 6 * PAGE, 1, NULL), -ENOSPC);
	CHECK_EQ(mkw_unreserve(w.view, 6 * PAGE), 0);
	world_end(&w);
}

TEST(reserve_holds_what_was_asked, "pages that the store takes beside a reservation are not held")
{
	struct world w;

	world_make(&w, 8 * PAGE);
	world_open(&w, 8 * PAGE);
	for (size_t page = 0; page < 8; page++)
		get(w.view + page * PAGE);
	script_set_extent(w.store, 8);
	CHECK_EQ(mkw_reserve(w.view + 2 * PAGE, PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 8);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(w.store), 1);
	CHECK(script_page_reserved(w.store, 2));
	CHECK_EQ(mkw_unreserve(w.view + 2 * PAGE, PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

TEST(reserve_failed_keeps_older, "a reservation that fails leaves an older one in its range alone")
{
	struct world w;

	world_make(&w, 8 * PAGE);
	world_open(&w, 8 * PAGE);
	script_set_capacity(w.store, 4);
	CHECK_EQ(mkw_reserve(w.view + PAGE, 2 * PAGE), 0);
	CHECK_EQ(mkw_reserve(w.view, 8 * PAGE), -ENOSPC);
	CHECK_EQ(script_reserved(w.store), 2);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK(script_page_reserved(w.store, 1));
	CHECK(script_page_reserved(w.store, 2));
	CHECK_EQ(mkw_unreserve(w.view, 8 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

TEST(discard_keeps_held, "what mkw_reserve holds outlives mkw_discard of its pages")
{
	struct world w;

	world_make(&w, 8 * PAGE);
	world_open(&w, 8 * PAGE);
	CHECK_EQ(mkw_reserve(w.view, 2 * PAGE), 0);
	put(w.view + PAGE, 1);
	put(w.view + 2 * PAGE, 1);
	CHECK_EQ(script_reserved(w.store), 3);
	CHECK_EQ(mkw_discard(w.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(w.store), 2);
	CHECK_EQ(get(w.view + PAGE), 0);
	script_set_capacity(w.store, 2);
	put(w.view, 1);
	put(w.view + PAGE, 1);
	CHECK_EQ(try_write(w.view + 2 * PAGE, 1, NULL), -ENOSPC);
	CHECK_EQ(mkw_discard(w.handle, 0, 0), 0);
	CHECK_EQ(mkw_unreserve(w.view, 2 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}
