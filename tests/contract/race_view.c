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

static int api_pread_page(struct mkw_handle *handle, uint64_t offset, uint64_t length)
{
	static char bytes[MKW_PAGE_SIZE];

	return (int)mkw_pread(handle, bytes, length, offset);
}

/* A reader waits for a page. It is brought in by somebody else, and before the reader's fault is
 * run again a third thread has the kernel map it: then there is nothing left to map, but somebody
 * to be woken. */
TEST(reader_woken_if_mapped_meanwhile,
     "2.1 a parked reader is woken although its page was mapped meanwhile, without a report")
{
	const struct mkw_space_options options = {RIG_QUIET, .workers = 2, .workers_max = 2};
	struct access waits, busy[2];
	struct api_call fill;
	struct world w;

	world_make_with(&w, 16 * PAGE, &options);
	script_put_pattern(w.store, 0, 16, 1);
	world_open(&w, 16 * PAGE);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 0);
	api_start(&fill, &w, api_pread_page, 0, PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 1));
	access_read(&waits, w.view);
	access_wait_blocked(&waits);
	test_wait_until(world_stat(&w).waits == 1);
	/* Every handler thread is busy from here on. */
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, SCRIPT_ANY);
	access_read(&busy[0], w.view + 8 * PAGE);
	access_read(&busy[1], w.view + 9 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 2));
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_EXIT);
	CHECK_EQ(api_join(&fill), (int)PAGE);
	CHECK_EQ(*(volatile unsigned char *)w.view, script_pattern(0, 1));
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&waits), 0);
	CHECK_EQ(access_join(&busy[0]), 0);
	CHECK_EQ(access_join(&busy[1]), 0);
	world_end(&w);
}
