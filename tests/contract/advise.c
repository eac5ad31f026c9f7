/* SPDX-License-Identifier: MIT */
/* advise.c - advice that moves pages: MKW_COLD, MKW_PAGEOUT, MKW_FREE, MKW_DONTNEED, MKW_WILLNEED.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

/* ---- Shared views ------------------------------------------------------------------------- */

TEST_EACH_BACKEND(pageout_shared,
		  "5.3 MKW_PAGEOUT writes what is dirty, drops it, and loses nothing")
{
	struct rig rig;

	rig_open(&rig, NULL, 600, MKW_RDWR);
	for (uint64_t i = 0; i < 600; i++)
		*rig_word(rig.view, i) = i + 1;
	CHECK_EQ(mkw_advise(rig.view + 3 * PAGE, 590 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 10 * PAGE);
	CHECK_EQ(rig_stored_word(&rig, 3), 4);
	CHECK_EQ(rig_stored_word(&rig, 592), 593);
	CHECK_EQ(rig_stored_word(&rig, 593), 0);
	for (uint64_t i = 0; i < 600; i++)
		CHECK_EQ(*rig_word(rig.view, i), i + 1);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pageout_manual, "6.3 MKW_PAGEOUT leaves what only mkw_sync may write")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR | MKW_MANUAL);
	CHECK_EQ(mkw_advise(rig.view, 8 * PAGE, MKW_RANDOM), 0);
	CHECK_EQ(*rig_word(rig.view, 1), 0);
	*rig_word(rig.view, 2) = 2;
	CHECK_EQ(mkw_advise(rig.view, 8 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, PAGE);
	CHECK_EQ(rig_stored_word(&rig, 2), 0);
	CHECK_EQ(*rig_word(rig.view, 2), 2);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pageout_refused,
		  "6.1 what cannot be written stays, dirty, and the next sync tells")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 8 * PAGE, MKW_RANDOM), 0);
	*rig_word(rig.view, 2) = 2;
	script_fail(rig.store, SCRIPT_WRITE, 1, 1, -EIO);
	CHECK_EQ(mkw_advise(rig.view, 8 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 1);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 2), 2);
	rig_close(&rig);
}

TEST_EACH_BACKEND(cold_goes_first, "what is cold goes before what was read earlier")
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.resident_limit_bytes = 512 * PAGE,
	};
	struct rig rig;
	uint64_t filled;

	rig_open(&rig, &options, 4 * 512, MKW_RDWR);
	for (uint64_t i = 0; i < 200; i++) {
		CHECK_EQ(*rig_word(rig.view, i), 0);
		CHECK_EQ(*rig_word(rig.view, 512 + i), 0);
	}
	CHECK_EQ(mkw_advise(rig.view + 512 * PAGE, 512 * PAGE, MKW_COLD), 0);
	for (uint64_t i = 0; i < 200; i++)
		CHECK_EQ(*rig_word(rig.view, 1024 + i), 0);
	filled = rig_stat(&rig).pages_filled;
	for (uint64_t i = 0; i < 200; i++)
		CHECK_EQ(*rig_word(rig.view, i), 0);
	CHECK_EQ(rig_stat(&rig).pages_filled, filled);
	CHECK(rig_stat(&rig).pages_evicted >= 200);
	rig_close(&rig);
}

TEST_EACH_BACKEND(free_shared, "MKW_FREE has nothing to drop in a shared view")
{
	struct rig rig;

	rig_open(&rig, NULL, 4, MKW_RDWR);
	*rig_word(rig.view, 1) = 1;
	CHECK_EQ(mkw_advise(rig.view, 4 * PAGE, MKW_FREE), -EINVAL);
	CHECK_EQ(*rig_word(rig.view, 1), 1);
	rig_close(&rig);
}
