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
