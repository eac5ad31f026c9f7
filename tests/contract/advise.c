/* SPDX-License-Identifier: MIT */
/* advise.c - advice that moves pages: MKW_COLD, MKW_PAGEOUT, MKW_FREE, MKW_DONTNEED, MKW_WILLNEED.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

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
	CHECK(rig_stat(&rig).pages_evicted > 0);
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

/* As mlockall does for a program that must not wait for its own pages. */
static void lock_memory(void *address, size_t length)
{
	if (mlock2(address, length, MLOCK_ONFAULT) != 0)
		SKIP("mlock2: %s", strerror(errno));
}

TEST_EACH_BACKEND(locked_by_mlock,
		  "1.3 I3 a program that has locked its memory: pages are cleaned, "
		  "granted in runs, dropped, as ever")
{
	struct rig rig;
	uint64_t faults;

	rig_open(&rig, NULL, 512, MKW_RDWR);
	lock_memory(rig.view, 512 * PAGE);
	for (uint64_t round = 1; round < 4; round++) {
		faults = rig_stat(&rig).write_faults;
		for (uint64_t i = 0; i < 512; i++)
			*rig_word(rig.view, i) = i + round;
		CHECK(rig_stat(&rig).write_faults - faults < 256);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK_EQ(rig_stored_word(&rig, 511), 511 + round);
	}
	CHECK_EQ(mkw_advise(rig.view, 512 * PAGE, MKW_DONTNEED), 0);
	for (uint64_t i = 0; i < 512; i++)
		CHECK_EQ(*rig_word(rig.view, i), i + 3);
	rig_close(&rig);
}

/* ---- Private views ------------------------------------------------------------------------ */

static void private_open(struct rig *rig, unsigned char **view, uint64_t pages,
			 uint64_t resident_pages, unsigned flags)
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.resident_limit_bytes = resident_pages * PAGE,
		.swap_path = "/tmp",
	};
	void *address;

	rig_open(rig, &options, pages, MKW_RDWR);
	REQUIRE_EQ(mkw_map(rig->handle, pages * PAGE, MKW_WRITE,
			   MKW_PRIVATE | flags | test_map_flags(), 0, &address),
		   0);
	*view = address;
	CHECK_EQ(mkw_advise(address, pages * PAGE, MKW_RANDOM), 0);
}

static void private_close(struct rig *rig, unsigned char *view)
{
	CHECK_EQ(mkw_unmap(view, rig->pages * PAGE), 0);
	CHECK_EQ(rig_space_stat(rig).swapped_bytes, 0);
	CHECK_EQ(rig_space_stat(rig).private_bytes, 0);
	rig_close(rig);
}

TEST_EACH_BACKEND(willneed_swapped,
		  "2.8 MKW_WILLNEED brings back what is swapped out, and the rest in")
{
	unsigned char *view;
	uint64_t faults;
	struct rig rig;

	private_open(&rig, &view, 64, 0, 0);
	for (uint64_t i = 0; i < 64; i += 3)
		*rig_word(view, i) = i + 1;
	CHECK_EQ(mkw_advise(view, 64 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 0);
	CHECK_EQ(rig_stat(&rig).swapped_bytes, 22 * PAGE);
	CHECK_EQ(mkw_advise(view, 64 * PAGE, MKW_WILLNEED), 0);
	CHECK_EQ(rig_stat(&rig).swapped_bytes, 0);
	faults = rig_stat(&rig).read_faults + rig_stat(&rig).write_faults;
	for (uint64_t i = 0; i < 64; i += 3)
		CHECK_EQ((*rig_word(view, i))++, i + 1);
	CHECK_EQ(rig_stat(&rig).read_faults + rig_stat(&rig).write_faults, faults);
	CHECK_EQ(rig_stat(&rig).fills, script_calls(rig.store, SCRIPT_FAULT));
	private_close(&rig, view);
}

TEST_EACH_BACKEND(cold_private, "2.8 cold copies are swapped out first, wherever they are")
{
	unsigned char *view;
	struct rig rig;

	private_open(&rig, &view, 4 * 512, 0, 0);
	for (uint64_t i = 0; i < 100; i++)
		*rig_word(view, i) = *rig_word(view, 512 + i) = *rig_word(view, 1024 + i) = i + 1;
	CHECK_EQ(mkw_invalidate(rig.handle, 0, 0), 0);
	CHECK_EQ(mkw_set_limits(rig.handle, 320 * PAGE, 0), 0);
	CHECK_EQ(mkw_advise(view + 512 * PAGE, 512 * PAGE, MKW_COLD), 0);
	for (uint64_t i = 0; rig_stat(&rig).swap_outs == 0; i++)
		*rig_word(view, 1536 + i) = i;
	for (uint64_t i = 0; i < 100; i++)
		CHECK_EQ(*rig_word(view, i) + *rig_word(view, 1024 + i), 2 * (i + 1));
	CHECK_EQ(rig_stat(&rig).swap_ins, 0);
	for (uint64_t i = 0; i < 100; i++)
		CHECK_EQ(*rig_word(view, 512 + i), i + 1);
	CHECK(rig_stat(&rig).swap_ins > 0);
	private_close(&rig, view);
}

/* ---- MKW_LOCKED --------------------------------------------------------------------------- */

TEST_EACH_BACKEND(locked_shared, "a locked view is filled when it is mapped, and stays")
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.resident_limit_bytes = 64 * PAGE,
	};
	struct rig rig;
	uint64_t filled;
	void *view;

	rig_open(&rig, &options, 512, MKW_RDWR);
	REQUIRE_EQ(mkw_map(rig.handle, 32 * PAGE, MKW_READ, MKW_LOCKED | test_map_flags(), 8 * PAGE,
			   &view),
		   0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 32 * PAGE);
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t i = 64; i < 512; i++)
			(void)*rig_word(rig.view, i);
	CHECK_EQ(mkw_advise(rig.view, 512 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 32 * PAGE);
	filled = rig_stat(&rig).pages_filled;
	for (uint64_t i = 0; i < 32; i++)
		CHECK_EQ(*rig_word(view, i), 0);
	CHECK_EQ(rig_stat(&rig).pages_filled, filled);
	CHECK_EQ(mkw_advise(view, PAGE, MKW_DONTNEED), -EINVAL);
	CHECK_EQ(mkw_advise(view, PAGE, MKW_COLD), -EINVAL);
	CHECK_EQ(mkw_advise(view, PAGE, MKW_PAGEOUT), -EINVAL);
	CHECK_EQ(mkw_unmap(view, 32 * PAGE), 0);
	CHECK_EQ(mkw_advise(rig.view, 512 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(locked_grows, "what a locked view comes to show is filled, too")
{
	struct rig rig;
	uint64_t filled;
	void *view;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	REQUIRE_EQ(mkw_map(rig.handle, 8 * PAGE, MKW_READ, MKW_LOCKED | test_map_flags(), 0, &view),
		   0);
	CHECK_EQ(mkw_remap(view, 8 * PAGE, 16 * PAGE, MKW_MAYMOVE, &view), 0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 16 * PAGE);
	CHECK_EQ(mkw_remap_pages(view, 4 * PAGE, 32 * PAGE), 0);
	filled = rig_stat(&rig).pages_filled;
	CHECK_EQ(filled, 20);
	for (uint64_t i = 0; i < 16; i++)
		CHECK_EQ(*rig_word(view, i), 0);
	CHECK_EQ(rig_stat(&rig).pages_filled, filled);
	CHECK_EQ(mkw_unmap(view, 16 * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(locked_too_much,
		  "S4.7 a locked view for which there is no room: ENOMEM, and no view")
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.resident_limit_bytes = 16 * PAGE,
	};
	struct rig rig;
	void *view = NULL;

	rig_open(&rig, &options, 32, MKW_RDWR);
	CHECK_EQ(mkw_map(rig.handle, 32 * PAGE, MKW_READ, MKW_LOCKED | test_map_flags(), 0, &view),
		 -ENOMEM);
	CHECK(strstr(mkw_error_message(), "locked") != NULL);
	CHECK(view == NULL);
	for (uint64_t i = 0; i < 32; i++)
		*rig_word(rig.view, i) = i;
	CHECK_EQ(mkw_advise(rig.view, 32 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 0);
	script_fail_page(rig.store, SCRIPT_FAULT, 0, -EIO);
	CHECK_EQ(mkw_map(rig.handle, 8 * PAGE, MKW_READ, MKW_LOCKED | test_map_flags(), 0, &view),
		 -EIO);
	script_fail_page(rig.store, SCRIPT_FAULT, 0, 0);
	CHECK_EQ(mkw_map(rig.handle, 8 * PAGE, MKW_READ, MKW_LOCKED | test_map_flags(), 0, &view),
		 0);
	CHECK_EQ(mkw_unmap(view, 8 * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(locked_private,
		  "2.8 a locked private view's pages stay, the object's and its own")
{
	unsigned char *view;
	uint64_t faults;
	void *locked;
	struct rig rig;

	private_open(&rig, &view, 256, 64, 0);
	REQUIRE_EQ(mkw_map(rig.handle, 16 * PAGE, MKW_WRITE,
			   MKW_PRIVATE | MKW_LOCKED | test_map_flags(), 0, &locked),
		   0);
	for (uint64_t i = 0; i < 16; i += 2)
		*rig_word(locked, i) = i + 1;
	for (uint64_t i = 0; i < 256; i++)
		*rig_word(view, i) = i + 100;
	faults = rig_stat(&rig).swap_ins + rig_stat(&rig).pages_filled;
	for (uint64_t i = 0; i < 16; i++)
		CHECK_EQ(*rig_word(locked, i), i % 2 == 0 ? i + 1 : 0);
	CHECK_EQ(rig_stat(&rig).swap_ins + rig_stat(&rig).pages_filled, faults);
	for (uint64_t i = 0; i < 256; i++)
		CHECK_EQ(*rig_word(view, i), i + 100);
	CHECK(rig_space_stat(&rig).resident_peak_bytes <= 64 * PAGE);
	CHECK_EQ(mkw_unmap(locked, 16 * PAGE), 0);
	private_close(&rig, view);
}

TEST_EACH_BACKEND(private_locked_by_mlock,
		  "5.1 MKW_FREE, truncation and swap take private copies from a "
		  "program that has locked its memory, too")
{
	unsigned char *view;
	struct rig rig;

	private_open(&rig, &view, 16, 64, 0);
	lock_memory(view, 16 * PAGE);
	for (uint64_t i = 0; i < 16; i++)
		*rig_word(view, i) = 77;
	CHECK_EQ(mkw_advise(view, 4 * PAGE, MKW_FREE), 0);
	CHECK(*rig_word(view, 3) != 77);
	CHECK_EQ(mkw_advise(view + 4 * PAGE, 4 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_space_stat(&rig).swapped_bytes, 4 * PAGE);
	CHECK_EQ(*rig_word(view, 4), 77);
	CHECK_EQ(mkw_truncate(rig.handle, 8 * PAGE), 0);
	CHECK_EQ(mkw_truncate(rig.handle, 16 * PAGE), 0);
	CHECK_EQ(*rig_word(view, 7), 77);
	CHECK_EQ(*rig_word(view, 9), 0);
	CHECK_EQ(mkw_unmap(view, 16 * PAGE), 0);
	rig_close(&rig);
}
