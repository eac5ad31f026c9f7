/* SPDX-License-Identifier: MIT */
/*
 * race_writeback.c - interleavings of write-back with itself (contract 6).
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

/* One sync stands before its first page when a second one is asked for the other page. */
static void two_syncs(struct world *w, struct api_call *whole, struct api_call *tail, int error)
{
	world_make(w, 1024 * PAGE);
	world_open(w, 1024 * PAGE);
	put(w->view, 1);
	put(w->view + 512 * PAGE, 2);
	test_gate_arm(w->store, SCRIPT_WRITE, SCRIPT_ENTRY, 0);
	api_start(whole, w, mkw_sync, 0, 0);
	REQUIRE(test_gate_wait_arrived(w->store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	script_fail_page(w->store, SCRIPT_WRITE, 512, error);
	if (error == 0)
		test_gate_arm(w->store, SCRIPT_WRITE, SCRIPT_EXIT, 512);
	api_start(tail, w, mkw_sync, 512 * PAGE, PAGE);
}

TEST(sync_waits_for_anothers_write,
     "6.1 6.3 a sync waits for a page of its set that another sync began to write after it was "
     "tagged")
{
	struct api_call whole, tail;
	struct world w;

	two_syncs(&w, &whole, &tail, 0);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_WRITE, SCRIPT_EXIT, 1));
	test_gate_release(w.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_STUCK(&whole.thread);
	CHECK_EQ(script_calls(w.store, SCRIPT_FSYNC), 0);
	test_gate_release(w.store, SCRIPT_WRITE, SCRIPT_EXIT);
	CHECK_EQ(api_join(&tail), 0);
	CHECK_EQ(api_join(&whole), 0);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_WRITE, 512), 1);
	world_end(&w);
}

TEST(sync_tells_anothers_not_yet,
     "6.3 11 a sync does not answer 0 when another sync was told \"not yet\" of a page of its set")
{
	struct api_call whole, tail;
	struct world w;

	two_syncs(&w, &whole, &tail, -EAGAIN);
	CHECK_EQ(api_join(&tail), -EAGAIN);
	test_gate_release(w.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&whole), -EAGAIN);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	script_fail_page(w.store, SCRIPT_WRITE, 512, 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	world_end(&w);
}

TEST(close_syncs_what_a_part_left,
     "11 a sync of one page does not make the others durable: the last close does")
{
	struct mkw_handle *handle;
	struct world w;

	world_make(&w, 1024 * PAGE);
	w.open_flags = MKW_RDWR;
	world_open(&w, 0);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, 0), 1);
	CHECK_EQ(mkw_pwrite(w.handle, "y", 1, 512 * PAGE), 1);
	/* The first sync fails after both pages were written, the second is about one of them. */
	script_fail(w.store, SCRIPT_FSYNC, 1, 1, -EIO);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(w.handle, 0, PAGE), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_FSYNC), 2);
	handle = w.handle;
	w.handle = NULL;
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_FSYNC), 3);
	CHECK_EQ(script_unsynced(w.store), 0);
	world_end(&w);
}
