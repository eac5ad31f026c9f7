/* SPDX-License-Identifier: MIT */
/*
 * race_range.c - interleavings of truncate, punch and freeze with reads and writes (contract 5).
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

/* mkw_pread and mkw_pwrite, as api_call has them: the answer is the count. */
static unsigned char bytes[16 * MKW_PAGE_SIZE];

static int api_pread(struct mkw_handle *handle, uint64_t offset, uint64_t length)
{
	return (int)mkw_pread(handle, bytes, length, offset);
}

static int api_pwrite(struct mkw_handle *handle, uint64_t offset, uint64_t length)
{
	return (int)mkw_pwrite(handle, bytes, length, offset);
}

/* The call begins on a page before a range that is being punched and ends within it. */
static void across_punch(api_fn fn)
{
	struct api_call punch, call;
	unsigned char after = 1;
	struct world w;

	world_make(&w, 16 * PAGE);
	script_put_pattern(w.store, 0, 16, 1);
	world_open(&w, 16 * PAGE);
	for (size_t page = 0; page < 16; page++)
		put(w.view + page * PAGE, 7);
	test_gate_arm(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY, SCRIPT_ANY);
	api_start(&punch, &w, mkw_punch, 8 * PAGE, 8 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY, 1));
	api_start(&call, &w, fn, 4 * PAGE, 8 * PAGE);
	CHECK_STUCK(&call.thread);
	test_gate_release(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&punch), 0);
	CHECK_EQ(api_join(&call), 8 * PAGE);
	CHECK_EQ(try_read(w.view + 15 * PAGE, &after, NULL), 0);
	CHECK_EQ(after, 0);
	world_end(&w);
}

TEST(pread_across_punch, "5.2 mkw_pread from before a range that is being punched waits for it")
{
	across_punch(api_pread);
}

TEST(pwrite_across_punch, "5.2 mkw_pwrite from before a range that is being punched waits for it")
{
	across_punch(api_pwrite);
}
