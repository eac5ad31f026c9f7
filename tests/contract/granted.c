/* SPDX-License-Identifier: MIT */
/*
 * granted.c - contract 11, GRANTED: runs that grow with a stream and shrink with random access;
 * what is granted ahead is charged and reserved, bounded, leaves the store as it was, and is given
 * back.
 *
 * The object of a test is one hole unless a test puts bytes into it, so the store's reserved pages
 * are exactly those granted and not yet written back.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

/* The last call of page_mkwrite so far. */
static struct script_call last_grant(struct rig *rig)
{
	struct script_call call = {.count = 0};

	REQUIRE(script_log_of(rig->store, SCRIPT_MKWRITE, script_calls(rig->store, SCRIPT_MKWRITE),
			      &call));
	return call;
}

/* Write to pages first ... until the store has granted pages ahead of them. Returns how many were
 * written. */
static uint64_t stream_until_ahead(struct rig *rig, uint64_t first, uint64_t value)
{
	uint64_t count = 0;

	while (count < 64 || rig_dirty_pages(rig) == count) {
		REQUIRE(first + count < rig->pages);
		*rig_word(rig->view, first + count) = value;
		count++;
	}
	return count;
}

/* ---- The length of runs ------------------------------------------------------------------- */

TEST_EACH_BACKEND(stream_grows_runs,
		  "contract 11: a sequential stream of first writes is granted in "
		  "runs that grow")
{
	const uint64_t pages = 1024;
	uint64_t first_half;
	struct rig rig;

	rig_open(&rig, NULL, pages, MKW_RDWR);
	for (uint64_t page = 0; page < pages / 2; page++)
		*rig_word(rig.view, page) = page + 1;
	first_half = script_calls(rig.store, SCRIPT_MKWRITE);
	for (uint64_t page = pages / 2; page < pages; page++)
		*rig_word(rig.view, page) = page + 1;
	CHECK(first_half <= pages / 2 / 8);
	CHECK(script_calls(rig.store, SCRIPT_MKWRITE) - first_half <= first_half);
	CHECK(rig_longest_run(&rig, 1) >= 16);
	CHECK_EQ(rig_stat(&rig).notifications, script_calls(rig.store, SCRIPT_MKWRITE));
	CHECK_EQ(rig_dirty_pages(&rig), pages);
	CHECK_EQ(rig_stat(&rig).pages_granted, pages);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK_EQ(script_allocated(rig.store), pages);
	CHECK_EQ(rig_stat(&rig).pages_unwritten, 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(random_shrinks_runs, "contract 11: random first writes are granted page by page")
{
	const uint64_t pages = 8192, writes = 512, settled = 64;
	uint64_t before = 0;
	struct rig rig;

	rig_open(&rig, NULL, pages, MKW_RDWR);
	/* What a stream has earned does not last. */
	for (uint64_t page = 0; page < 512; page++)
		*rig_word(rig.view, page) = 1;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	script_log_clear(rig.store);
	for (uint64_t i = 1; i <= writes; i++) {
		if (i == settled + 1)
			before = rig_dirty_pages(&rig);
		*rig_word(rig.view, i * RIG_SCATTER % pages) = 1;
	}
	CHECK_EQ(rig_longest_run(&rig, settled + 1), 1);
	CHECK_EQ(rig_dirty_pages(&rig) - before, writes - settled);
	/* And while it lasted it was little. */
	CHECK(before <= settled + 512);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	rig_close(&rig);
}

TEST(advice_sets_runs, "contract 11: MKW_RANDOM gives single pages from the start, MKW_SEQUENTIAL "
		       "runs from the start")
{
	struct rig rig;

	rig_open(&rig, NULL, 2048, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 1024 * PAGE, MKW_RANDOM), 0);
	CHECK_EQ(mkw_advise(rig.view + 1024 * PAGE, 1024 * PAGE, MKW_SEQUENTIAL), 0);
	for (uint64_t page = 0; page < 64; page++)
		*rig_word(rig.view, page) = 1;
	CHECK_EQ(rig_longest_run(&rig, 1), 1);
	CHECK_EQ(rig_dirty_pages(&rig), 64);
	script_log_clear(rig.store);
	*rig_word(rig.view, 1024) = 1;
	CHECK(last_grant(&rig).count > 1);
	rig_close(&rig);
}

TEST(run_max_pages_kept, "store.h: no run is longer than run_max_pages")
{
	struct rig rig = {.pages = 512};
	struct script_call call;

	REQUIRE_EQ(mkw_space_create(NULL, &rig.space), 0);
	rig.store = script_create(rig.pages * PAGE);
	script_ops(rig.store)->run_max_pages = 4;
	REQUIRE_EQ(script_open(rig.store, rig.space, MKW_RDWR, &rig.handle), 0);
	rig.view = rig_map(rig.handle, rig.pages, 0);
	for (uint64_t page = 0; page < rig.pages; page++)
		*rig_word(rig.view, page) = 1;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	for (size_t i = 0; script_log(rig.store, i, &call); i++)
		if (call.op == SCRIPT_FAULT || call.op == SCRIPT_MKWRITE || call.op == SCRIPT_WRITE)
			CHECK(call.count <= 4);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* ---- Charged, bounded, given back --------------------------------------------------------- */

TEST_EACH_BACKEND(granted_is_charged,
		  "contract 11: granted pages are charged and reserved, at most "
		  "one grant ahead of the stream")
{
	struct rig rig;

	rig_open(&rig, NULL, 1024, MKW_RDWR);
	for (uint64_t written = 1; written <= 300; written++) {
		*rig_word(rig.view, written - 1) = 1;
		CHECK_EQ(rig_dirty_pages(&rig), script_reserved(rig.store));
		if (!CHECK(rig_dirty_pages(&rig) >= written) ||
		    !CHECK(rig_dirty_pages(&rig) - written < last_grant(&rig).count))
			break;
	}
	CHECK_EQ(rig_space_stat(&rig).dirty_bytes, rig_stat(&rig).dirty_bytes);
	CHECK_EQ(rig_stat(&rig).dirty_peak_bytes, rig_stat(&rig).dirty_bytes);
	rig_close(&rig);
}

TEST(two_streams_bounded, "contract 11: two streams at a time have one grant ahead each")
{
	const uint64_t second = 2048;
	uint64_t last[2] = {0, 0};
	struct rig rig;

	rig_open(&rig, NULL, 4096, MKW_RDWR);
	for (uint64_t written = 1; written <= 300; written++) {
		for (uint64_t i = 0; i < 2; i++) {
			uint64_t calls = script_calls(rig.store, SCRIPT_MKWRITE);

			*rig_word(rig.view, i * second + written - 1) = 1;
			if (script_calls(rig.store, SCRIPT_MKWRITE) != calls)
				last[i] = last_grant(&rig).count;
		}
		if (!CHECK(rig_dirty_pages(&rig) - 2 * written <= last[0] + last[1]))
			break;
	}
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(script_allocated(rig.store), 600);
	rig_close(&rig);
}

TEST_EACH_BACKEND(unwritten_given_back,
		  "contract 11: pages granted over holes and not written take "
		  "no storage; charge and reservation are given back")
{
	uint64_t written, granted;
	struct rig rig;

	rig_open(&rig, NULL, 2048, MKW_RDWR);
	script_set_holes(rig.store, true);
	written = stream_until_ahead(&rig, 0, 7);
	granted = rig_dirty_pages(&rig);
	CHECK(granted > written);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(rig_space_stat(&rig).dirty_bytes, 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(script_allocated(rig.store), written);
	CHECK_EQ(rig_stat(&rig).pages_written, written);
	CHECK_EQ(rig_stat(&rig).pages_unwritten, granted - written);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_WRITE, written), 0);
	rig_check_stored(&rig);
	/* What was given back has to be asked for again. */
	script_log_clear(rig.store);
	*rig_word(rig.view, written) = 7;
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_MKWRITE, written), 1);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, written), 7);
	CHECK_EQ(script_allocated(rig.store), written + 1);
	rig_close(&rig);
}

TEST_EACH_BACKEND(unwritten_keeps_bytes, "contract 11: pages granted over stored bytes and not "
					 "written leave the bytes as they are")
{
	unsigned char expected[PAGE], stored[PAGE];
	uint64_t written;
	struct rig rig;

	rig_open(&rig, NULL, 1024, MKW_RDWR);
	script_put_pattern(rig.store, 0, 1024, 3);
	written = stream_until_ahead(&rig, 0, 7);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	for (uint64_t page = 0; page < 1024; page++) {
		for (size_t i = 0; i < PAGE; i++)
			expected[i] = script_pattern(page * PAGE + i, 3);
		if (page < written)
			memcpy(expected, &(uint64_t){7}, sizeof(uint64_t));
		script_get(rig.store, page * PAGE, stored, PAGE);
		if (!CHECK_MEM(stored, expected, PAGE))
			break;
	}
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(granted_then_written,
     "contract 11: a granted page that is written without another notification "
     "is stored")
{
	uint64_t written;
	struct rig rig;

	rig_open(&rig, NULL, 1024, MKW_RDWR);
	written = stream_until_ahead(&rig, 0, 7);
	script_log_clear(rig.store);
	*rig_word(rig.view, written) = 8;
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, written), 8);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_UNRESERVE, written), 0);
	rig_close(&rig);
}

/* A page that is all zeros in memory was written nevertheless if the store has something else. */
TEST_EACH_BACKEND(zeros_are_written,
		  "contract 11: zeros written over stored bytes through a granted "
		  "page are stored")
{
	const uint64_t pages = 512;
	struct rig rig;

	rig_open(&rig, NULL, pages, MKW_RDWR);
	script_set_holes(rig.store, true);
	/* Once over bytes that were there before, once over those that came from the view. */
	script_put_pattern(rig.store, 0, pages, 1);
	for (int round = 0; round < 2; round++) {
		for (uint64_t page = 0; page < pages; page++)
			memset(rig.view + page * PAGE, 0, PAGE);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		rig_check_stored(&rig);
		CHECK_EQ(rig_stored_word(&rig, 100), 0);
		for (uint64_t page = 0; page < pages; page++)
			*rig_word(rig.view, page) = page + 1;
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		rig_check_stored(&rig);
		CHECK_EQ(rig_stored_word(&rig, 100), 101);
	}
	rig_close(&rig);
}

TEST(zeros_after_hole,
     "contract 11: a page that began as a hole, was stored, and is zeroed again is "
     "stored as zeros")
{
	struct rig rig;

	rig_open(&rig, NULL, 256, MKW_RDWR);
	script_set_holes(rig.store, true);
	for (uint64_t value = 4; value-- > 0;) {
		for (uint64_t page = 0; page < 256; page++)
			*rig_word(rig.view, page) = value;
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		rig_check_stored(&rig);
		CHECK_EQ(rig_stored_word(&rig, 17), value);
	}
	/* The same without a sync between: dirty all the time, zero at the end. */
	*rig_word(rig.view, 17) = 5;
	CHECK_EQ(mkw_sync(rig.handle, 17 * PAGE, PAGE), 0);
	*rig_word(rig.view, 17) = 6;
	*rig_word(rig.view, 17) = 0;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 17), 0);
	rig_close(&rig);
}

TEST(extent_unwritten_given_back,
     "contract 11: the rest of an extent that the store itself grew the "
     "run to is given back too")
{
	uint64_t sum = 0;
	struct rig rig;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	script_set_holes(rig.store, true);
	CHECK_EQ(mkw_advise(rig.view, 64 * PAGE, MKW_RANDOM), 0);
	/* A run grows over cached pages only. */
	for (uint64_t page = 0; page < 64; page++)
		sum += *rig_word(rig.view, page);
	CHECK_EQ(sum, 0);
	script_set_extent(rig.store, 16);
	*rig_word(rig.view, 20) = 1;
	CHECK_EQ(rig_dirty_pages(&rig), 16);
	CHECK_EQ(script_reserved(rig.store), 16);
	CHECK(script_page_reserved(rig.store, 16) && script_page_reserved(rig.store, 31));
	*rig_word(rig.view, 31) = 2;
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(script_allocated(rig.store), 2);
	CHECK_EQ(rig_stored_word(&rig, 20), 1);
	CHECK_EQ(rig_stored_word(&rig, 31), 2);
	rig_close(&rig);
}

/* ---- Ways in which a grant ends ----------------------------------------------------------- */

TEST(dropped_grants_given_back, "contract 11: truncation, punching and discarding give charge and "
				"reservation back")
{
	struct rig rig;

	rig_open(&rig, NULL, 1024, MKW_RDWR);
	script_set_holes(rig.store, true);
	stream_until_ahead(&rig, 0, 7);
	CHECK_EQ(mkw_punch(rig.handle, 0, 1024 * PAGE), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(script_reserved(rig.store), 0);

	stream_until_ahead(&rig, 0, 7);
	CHECK_EQ(mkw_discard(rig.handle, 0, 1024 * PAGE), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(script_calls(rig.store, SCRIPT_WRITE), 0);
	CHECK_EQ(*rig_word(rig.view, 0), 0);

	stream_until_ahead(&rig, 0, 7);
	CHECK_EQ(mkw_truncate(rig.handle, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(mkw_truncate(rig.handle, 1024 * PAGE), 0);

	stream_until_ahead(&rig, 0, 7);
	CHECK_EQ(mkw_invalidate(rig.handle, 0, 1024 * PAGE), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(rig_stored_word(&rig, 0), 7);
	CHECK_EQ(*rig_word(rig.view, 0), 7);
	/* And close: rig_close looks for what is left. */
	stream_until_ahead(&rig, 512, 7);
	rig_close(&rig);
}

TEST(unreserve_against_new_grant,
     "contract 11, 2.5: a page written while its unused grant is being "
     "given back keeps the new grant")
{
	struct rig_writer writer;
	struct script_call call;
	struct rig_sync sync;
	struct rig rig;

	rig_open(&rig, NULL, 2048, MKW_RDWR);
	script_set_holes(rig.store, true);
	stream_until_ahead(&rig, 0, 7);
	test_gate_arm(rig.store, SCRIPT_UNRESERVE, SCRIPT_ENTRY, SCRIPT_ANY);
	rig_sync_start(&sync, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_UNRESERVE, SCRIPT_ENTRY, 1));
	REQUIRE(script_log_of(rig.store, SCRIPT_UNRESERVE, 1, &call));
	rig_writer_start(&writer, rig_word(rig.view, call.first), 9);
	/* It asks the store again, or waits until that is possible: both are right. */
	test_wait_until(atomic_load(&writer.thread.ended) || rig_space_stat(&rig).write_faults > 0);
	for (int i = 0; i < 1000; i++)
		test_yield();
	test_gate_release(rig.store, SCRIPT_UNRESERVE, SCRIPT_ENTRY);
	CHECK_EQ(rig_sync_join(&sync), 0);
	test_thread_join(&writer.thread);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, call.first), 9);
	CHECK_EQ(script_reserved(rig.store), 0);
	rig_close(&rig);
}

/* ---- Against write-back ------------------------------------------------------------------- */

#define RACE_PAGES 512u

struct streamer {
	struct rig *rig;
	unsigned passes;
	struct test_thread thread;
};

/* Over all pages again and again, so that much of what is granted is not yet written when a sync
 * comes. */
static void *streamer_run(void *arg)
{
	struct streamer *streamer = arg;

	for (uint64_t pass = 1; pass <= streamer->passes; pass++)
		for (uint64_t page = 0; page < RACE_PAGES; page++)
			*rig_word(streamer->rig->view, page) = pass << 32 | page;
	return NULL;
}

TEST_EACH_BACKEND(stream_against_sync,
		  "contract 11, I3: write-back protects a granted page first and "
		  "then decides whether it was written")
{
	struct streamer streamer = {.passes = test_rounds(40)};
	struct rig rig;

	rig_open(&rig, NULL, RACE_PAGES, MKW_RDWR);
	script_set_holes(rig.store, true);
	streamer.rig = &rig;
	test_thread_start(&streamer.thread, streamer_run, &streamer);
	while (!atomic_load(&streamer.thread.ended))
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	test_thread_join(&streamer.thread);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	for (uint64_t page = 0; page < RACE_PAGES; page++)
		CHECK_EQ(rig_stored_word(&rig, page), (uint64_t)streamer.passes << 32 | page);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	rig_close(&rig);
}
