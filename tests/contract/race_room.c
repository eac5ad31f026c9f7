/* SPDX-License-Identifier: MIT */
/*
 * race_room.c - who waits for room under the dirty limit, and who would have to make it (S1.3,
 * contract 11).
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

/* ---- Room makers -------------------------------------------------------------------------- */

struct toucher {
	unsigned char *address;
	_Atomic bool done;
	int error;
};

static void touch_once(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct toucher *toucher = arg;

	(void)object;
	(void)run;
	if (toucher->done)
		return;
	toucher->error = try_write(toucher->address, 1, NULL);
	toucher->done = true;
}

TEST(flusher_waits_for_no_room,
     "S1.3 a store that writes to another object's view from within background write-back is "
     "refused there when only that write-back can make room")
{
	struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 2 * PAGE};
	struct toucher toucher = {0};
	struct rig rig, other;

	rig_open(&rig, &options, 4, MKW_RDWR);
	rig_add(&other, &rig, 4, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 4 * PAGE, MKW_RANDOM), 0);
	toucher.address = other.view;
	script_hook(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, touch_once, &toucher);
	for (uint64_t page = 0; page < 4; page++)
		*rig_word(rig.view, page) = page + 1;
	CHECK(toucher.done);
	CHECK_EQ(toucher.error, -EDEADLK);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_leave(&other);
	rig_close(&rig);
	CHECK(script_destroy(other.store));
}

/* ---- What may still bring room ------------------------------------------------------------ */

/* By one fault: an access could find its page cleaned before it is made. */
static int api_pwrite_byte(struct mkw_handle *handle, uint64_t offset, uint64_t unused)
{
	(void)unused;
	return (int)mkw_pwrite(handle, "x", 1, offset);
}

TEST(sync_may_bring_room,
     "contract 11: a writer at the limit of a manual object waits for a sync that runs, also "
     "between two of its writes")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 2 * PAGE};
	struct api_call sync, again;
	struct access more;
	struct world w;

	world_make_with(&w, 4 * PAGE, &options);
	world_open(&w, 4 * PAGE);
	put(w.view, 1);
	put(w.view + PAGE, 1);
	/* Both are dirty and ask again. */
	script_fail(w.store, SCRIPT_WRITE, 1, 1, -EIO);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), -EIO);
	script_fail_page(w.store, SCRIPT_WRITE, 1, -EIO);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 0);
	api_start(&again, &w, api_pwrite_byte, 0, 0);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	/* The sync has failed to write page 1, and waits for page 0. */
	script_log_clear(w.store);
	api_start(&sync, &w, mkw_sync, 0, 0);
	REQUIRE(script_wait_calls(w.store, SCRIPT_WRITE, 1));
	CHECK_STUCK(&sync.thread);
	access_write(&more, w.view + 2 * PAGE, 3);
	CHECK_STUCK(&more.thread);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&again), 1);
	CHECK_EQ(api_join(&sync), -EIO);
	CHECK_EQ(access_join(&more), 0);
	script_fail_page(w.store, SCRIPT_WRITE, 1, 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	world_end(&w);
}

TEST(own_limit_own_progress,
     "contract 11: a writer at its own object's limit is denied when that object cannot be "
     "written, whatever another one is about to free")
{
	struct rig manual, other;
	struct rig_sync sync;

	rig_open(&manual, NULL, 4, MKW_RDWR | MKW_MANUAL);
	rig_add(&other, &manual, 4, MKW_RDWR);
	CHECK_EQ(mkw_advise(manual.view, 4 * PAGE, MKW_RANDOM), 0);
	CHECK_EQ(mkw_set_limits(manual.handle, 0, 2 * PAGE), 0);
	*rig_word(manual.view, 0) = 1;
	*rig_word(manual.view, 1) = 1;
	*rig_word(other.view, 0) = 1;
	test_gate_arm(other.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	rig_sync_start(&sync, other.handle);
	REQUIRE(test_gate_wait_arrived(other.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	CHECK_EQ(try_write(manual.view + 2 * PAGE, 1, NULL), -ENOBUFS);
	test_gate_release(other.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(rig_sync_join(&sync), 0);
	rig_leave(&other);
	rig_close(&manual);
	CHECK(script_destroy(other.store));
}
