/* SPDX-License-Identifier: MIT */
/*
 * race_view.c - interleavings of faults with each other and with unmapping.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

TEST_EACH_BACKEND(
	run_ends_with_the_view,
	"2.1 a write at the end of a short view is served, however long its run and however "
	"many pages behind the view are granted")
{
	unsigned char *edge;
	struct world w;

	world_make(&w, 64 * PAGE);
	world_open(&w, 64 * PAGE);
	edge = world_map(&w, 0, 8, MKW_READ | MKW_WRITE);
	REQUIRE_EQ(mkw_advise(edge, 8 * PAGE, MKW_SEQUENTIAL), 0);
	for (size_t page = 0; page < 32; page++)
		put(w.view + page * PAGE, 1);
	put(edge + 7 * PAGE, 2);
	CHECK_EQ(get(w.view + 7 * PAGE), 2);
	CHECK_EQ(mkw_unmap(edge, 8 * PAGE), 0);
	world_end(&w);
}
