/* SPDX-License-Identifier: MIT */
/*
 * writeback.c - contract 6.1 to 6.5, I3, I4, S2.5: what is written, when, in which order against
 * writers, and what becomes of errors.
 *
 * In every test the store itself looks whether bytes change while it writes them, and whether a
 * page comes to it that it had not granted (script_store.h, Violations); rig_close fails on either.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

static const struct mkw_space_options brisk = {
	.struct_size = sizeof(struct mkw_space_options),
	.writeback_interval_ms = 5,
};

/* Store value in pages first, first+step ... below end. */
static void write_pages(struct rig *rig, uint64_t first, uint64_t end, uint64_t step,
			uint64_t value)
{
	for (uint64_t page = first; page < end; page += step)
		*rig_word(rig->view, page) = value;
}

static void check_stored_words(struct rig *rig, uint64_t first, uint64_t end, uint64_t value)
{
	for (uint64_t page = first; page < end; page++)
		CHECK_EQ(rig_stored_word(rig, page), value);
}

/* ---- Protect, then write ------------------------------------------------------------------ */

TEST_EACH_BACKEND(protect_every_view, "6.1 I3 I4 a page is protected in every view before its "
				      "bytes are taken")
{
	unsigned rounds = test_rounds(10);
	struct rig_hammer hammers[3];
	unsigned char *same, *shifted;
	uint64_t before[3];
	struct rig_sync sync;
	struct rig rig;

	rig_open(&rig, NULL, 4, MKW_RDWR);
	same = rig_map(rig.handle, 4, 0);
	shifted = rig_map(rig.handle, 2, PAGE);
	rig_hammer_start(&hammers[0], rig_word(rig.view, 1));
	rig_hammer_start(&hammers[1], rig_word(same, 1) + 1);
	rig_hammer_start(&hammers[2], rig_word(shifted, 0) + 2);
	for (unsigned round = 0; round < rounds; round++) {
		for (int i = 0; i < 3; i++)
			rig_hammer_beat(&hammers[i]);
		test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1);
		rig_sync_start(&sync, rig.handle);
		REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
		for (int i = 0; i < 3; i++)
			CHECK_STUCK(&hammers[i].thread);
		for (int i = 0; i < 3; i++)
			before[i] = rig_word(rig.view, 1)[i];
		test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY);
		CHECK_EQ(rig_sync_join(&sync), 0);
		for (int i = 0; i < 3; i++) {
			uint64_t stored;

			script_get(rig.store, PAGE + sizeof(stored) * (size_t)i, &stored,
				   sizeof(stored));
			CHECK_EQ(stored, before[i]);
		}
	}
	for (int i = 0; i < 3; i++)
		rig_hammer_stop(&hammers[i]);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unmap(same, 4 * PAGE), 0);
	CHECK_EQ(mkw_unmap(shifted, 2 * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(write_waits_for_writeback,
		  "6.1 6.4 a write to a page under write-back waits until the end, others do not")
{
	struct rig_writer writer;
	struct rig_sync sync;
	struct mkw_range range;
	struct rig rig;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 64 * PAGE, MKW_RANDOM), 0);
	*rig_word(rig.view, 0) = 1;
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_EXIT, 0);
	rig_sync_start(&sync, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_EXIT, 1));
	rig_writer_start(&writer, rig_word(rig.view, 0), 2);
	CHECK_STUCK(&writer.thread);
	*rig_word(rig.view, 40) = 3;
	CHECK_EQ(*rig_word(rig.view, 50), 0);
	CHECK_EQ(*rig_word(rig.view, 0), 1);
	CHECK(!atomic_load(&writer.thread.ended));
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_EXIT);
	CHECK_EQ(rig_sync_join(&sync), 0);
	test_thread_join(&writer.thread);
	CHECK_EQ(rig_stored_word(&rig, 0), 1);
	CHECK_EQ(*rig_word(rig.view, 0), 2);
	REQUIRE_EQ(mkw_dirty_ranges(rig.handle, 0, PAGE, &range, 1), 1);
	CHECK_EQ(range.offset, 0);
	CHECK_EQ(range.error, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 0), 2);
	rig_check_stored(&rig);
	rig_close(&rig);
}

struct pwrite_call {
	struct mkw_handle *handle;
	uint64_t value, offset;
	ssize_t result;
	struct test_thread thread;
};

static void *pwrite_run(void *arg)
{
	struct pwrite_call *call = arg;

	call->result = mkw_pwrite(call->handle, &call->value, sizeof(call->value), call->offset);
	return NULL;
}

TEST(pwrite_waits_for_writeback, "I4 mkw_pwrite to a page under write-back waits until the end")
{
	struct pwrite_call call = {.value = 2};
	struct rig_sync sync;
	struct rig rig;

	rig_open(&rig, NULL, 4, MKW_RDWR);
	call.handle = rig.handle;
	*rig_word(rig.view, 0) = 1;
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 0);
	rig_sync_start(&sync, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	test_thread_start(&call.thread, pwrite_run, &call);
	CHECK_STUCK(&call.thread);
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(rig_sync_join(&sync), 0);
	test_thread_join(&call.thread);
	CHECK_EQ(call.result, sizeof(call.value));
	CHECK_EQ(rig_stored_word(&rig, 0), 1);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 0), 2);
	rig_close(&rig);
}

TEST(sync_waits_for_locked_pages,
     "I2 6.1 pages that one sync has locked, to see whether they were written, are left alone by "
     "another, which waits for them")
{
	struct rig_sync one, other;
	struct rig rig;

	rig_open(&rig, NULL, 16, MKW_RDWR);
	script_put_pattern(rig.store, 0, 16, 1);
	/* The second write is granted a run, whose end the store is asked for. */
	*rig_word(rig.view, 0) = 1;
	*rig_word(rig.view, 1) = 1;
	CHECK(rig_dirty_pages(&rig) > 2);
	test_gate_arm(rig.store, SCRIPT_FAULT, SCRIPT_ENTRY, 2);
	rig_sync_start(&one, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	rig_sync_start(&other, rig.handle);
	CHECK_STUCK(&other.thread);
	CHECK_EQ(test_gate_arrived(rig.store, SCRIPT_FAULT, SCRIPT_ENTRY), 1);
	test_gate_release(rig.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	CHECK_EQ(rig_sync_join(&one), 0);
	CHECK_EQ(rig_sync_join(&other), 0);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_WRITE, 0), 1);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_WRITE, 1), 1);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_WRITE, 2), 0);
	rig_close(&rig);
}

TEST(notify_again_after_clean, "I1 S1.5 each page asks once more after each write-back")
{
	struct rig rig;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 64 * PAGE, MKW_RANDOM), 0);
	for (uint64_t round = 1; round <= 10; round++) {
		for (int i = 0; i < 1000; i++)
			*rig_word(rig.view, 40) += 1;
		CHECK_EQ(script_calls_on(rig.store, SCRIPT_MKWRITE, 40), round);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK_EQ(rig_stored_word(&rig, 40), 1000 * round);
	}
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_WRITE, 40), 10);
	rig_close(&rig);
}

/* ---- Integrity sync ----------------------------------------------------------------------- */

#define FEED_FIRST 1024u
#define FEED_MOST  200u

/* Dirties one page more in each call of writepages: a writer who is always ahead. */
struct feeder {
	struct rig *rig;
	uint64_t fed;
	bool end;
	struct test_event wanted, done;
	struct test_thread thread;
};

static void *feeder_run(void *arg)
{
	struct feeder *feeder = arg;

	for (unsigned i = 1;; i++) {
		test_event_wait_n(&feeder->wanted, i);
		if (feeder->end)
			return NULL;
		*rig_word(feeder->rig->view, FEED_FIRST + 2 * feeder->fed) = 1;
		feeder->fed++;
		test_event_set(&feeder->done);
	}
}

static void feed(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct feeder *feeder = arg;
	unsigned calls = test_event_count(&feeder->done);

	(void)object;
	(void)run;
	if (calls >= FEED_MOST)
		return;
	test_event_set(&feeder->wanted);
	test_event_wait_n(&feeder->done, calls + 1);
}

TEST(sync_ends_against_writers,
     "6.3 sync writes what was dirty at the call and ends, although each "
     "write dirties another page")
{
	struct feeder feeder = {.wanted = TEST_EVENT_INIT, .done = TEST_EVENT_INIT};
	struct rig rig;

	rig_open(&rig, NULL, 2048, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 2048 * PAGE, MKW_RANDOM), 0);
	feeder.rig = &rig;
	write_pages(&rig, 0, 64, 4, 1);
	test_thread_start(&feeder.thread, feeder_run, &feeder);
	script_hook(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, feed, &feeder);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	script_hook(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, NULL, NULL);
	/* 16 runs at the call. One in a call, and as many again by chance, is far from FEED_MOST.
	 */
	CHECK(feeder.fed >= 1);
	CHECK(feeder.fed <= 32);
	for (uint64_t page = 0; page < 64; page += 4) {
		CHECK_EQ(rig_stored_word(&rig, page), 1);
		CHECK_EQ(script_calls_on(rig.store, SCRIPT_WRITE, page), 1);
	}
	feeder.end = true;
	test_event_set(&feeder.wanted);
	test_thread_join(&feeder.thread);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

#define MODEL_PAGES 64u
#define MODEL_OWN   (MODEL_PAGES / 2)

/* Two of them write numbers, ascending, each into pages of its own, scattered. */
struct stamper {
	struct rig *rig;
	unsigned which;
	_Atomic uint64_t published; /* stored before this was set */
	_Atomic bool stop;
	struct test_thread thread;
};

static uint64_t stamper_page(const struct stamper *stamper, uint64_t number)
{
	return 2 * (number * 7 % MODEL_OWN) + stamper->which;
}

static void *stamper_run(void *arg)
{
	struct stamper *stamper = arg;

	for (uint64_t i = 1; !atomic_load(&stamper->stop); i++) {
		*rig_word(stamper->rig->view, stamper_page(stamper, i)) = i;
		atomic_store(&stamper->published, i);
	}
	return NULL;
}

/* All that was published at the time is in the store, or something newer. */
static bool stamper_check(struct stamper *stamper, uint64_t published)
{
	for (uint64_t i = published; i > 0 && i + MODEL_OWN > published; i--)
		if (!CHECK(rig_stored_word(stamper->rig, stamper_page(stamper, i)) >= i))
			return false;
	return true;
}

TEST_EACH_BACKEND(sync_misses_nothing, "6.2 6.3 all that was dirty at the call is stored when sync "
				       "returned 0, whoever writes meanwhile")
{
	unsigned rounds = test_rounds(60);
	struct stamper stampers[2];
	uint64_t published[2];
	bool good = true;
	struct rig rig;

	rig_open(&rig, NULL, MODEL_PAGES, MKW_RDWR);
	for (unsigned i = 0; i < 2; i++) {
		stampers[i] = (struct stamper){.rig = &rig, .which = i};
		test_thread_start(&stampers[i].thread, stamper_run, &stampers[i]);
	}
	for (unsigned round = 0; round < rounds && good; round++) {
		test_wait_until(atomic_load(&stampers[0].published) > round &&
				atomic_load(&stampers[1].published) > round);
		for (int i = 0; i < 2; i++)
			published[i] = atomic_load(&stampers[i].published);
		script_log_clear(rig.store);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		for (int i = 0; i < 2; i++)
			good = stamper_check(&stampers[i], published[i]) && good;
		/* Once for the tag, once if it was under way when sync came. */
		for (uint64_t page = 0; page < MODEL_PAGES; page++)
			good = CHECK(script_calls_on(rig.store, SCRIPT_WRITE, page) <= 2) && good;
	}
	for (int i = 0; i < 2; i++) {
		atomic_store(&stampers[i].stop, true);
		test_thread_join(&stampers[i].thread);
	}
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_unsynced(rig.store), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(sync_waits_for_writeback, "6.1 6.3 sync waits for write-back that another sync has begun")
{
	struct rig_sync first, second;
	struct rig rig;

	rig_open(&rig, NULL, 4, MKW_RDWR);
	*rig_word(rig.view, 0) = 1;
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 0);
	rig_sync_start(&first, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	rig_sync_start(&second, rig.handle);
	CHECK_STUCK(&second.thread);
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(rig_sync_join(&second), 0);
	CHECK_EQ(rig_stored_word(&rig, 0), 1);
	CHECK_EQ(script_unsynced(rig.store), 0);
	CHECK_EQ(rig_sync_join(&first), 0);
	rig_close(&rig);
}

TEST(sync_looks_again_after_writeback,
     "6.2 6.3 the write-back that sync waited for fails: sync does not say that all is well")
{
	struct rig_sync first, second;
	struct rig rig;

	rig_open(&rig, NULL, 4, MKW_RDWR);
	*rig_word(rig.view, 0) = 1;
	script_fail(rig.store, SCRIPT_WRITE, 1, SCRIPT_FOREVER, -EIO);
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 0);
	rig_sync_start(&first, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	rig_sync_start(&second, rig.handle);
	CHECK_STUCK(&second.thread);
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(rig_sync_join(&first), -EIO);
	CHECK_EQ(rig_sync_join(&second), -EIO);
	CHECK_EQ(rig_dirty_pages(&rig), 1);
	script_fail(rig.store, SCRIPT_WRITE, 1, 0, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 0), 1);
	rig_close(&rig);
}

TEST(sync_range, "6.5 sync of a range writes that range; length 0 goes to the end")
{
	struct rig rig;

	rig_open(&rig, NULL, 16, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 16 * PAGE, MKW_RANDOM), 0);
	write_pages(&rig, 0, 16, 1, 1);
	CHECK_EQ(mkw_sync(rig.handle, 4 * PAGE, 4 * PAGE), 0);
	check_stored_words(&rig, 0, 4, 0);
	check_stored_words(&rig, 4, 8, 1);
	check_stored_words(&rig, 8, 16, 0);
	/* A byte of a page is enough to want it. */
	CHECK_EQ(mkw_sync(rig.handle, 9 * PAGE + 100, 1), 0);
	check_stored_words(&rig, 8, 9, 0);
	check_stored_words(&rig, 9, 10, 1);
	CHECK_EQ(mkw_sync(rig.handle, 12 * PAGE, 0), 0);
	check_stored_words(&rig, 10, 12, 0);
	check_stored_words(&rig, 12, 16, 1);
	CHECK_EQ(script_unsynced(rig.store), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 4 + 1 + 2);
	rig_close(&rig);
}

TEST(tail_cut_to_size, "6.1 the last run ends at the object's size, and bytes past it stay out")
{
	unsigned char after[64], expected[64];
	uint64_t size_bytes = 2 * PAGE + 100;
	struct script_call call;
	struct rig rig = {.pages = 3};
	const struct mkw_space_options options = {RIG_QUIET};

	REQUIRE_EQ(mkw_space_create(&options, &rig.space), 0);
	rig.store = script_create(size_bytes);
	REQUIRE_EQ(script_open(rig.store, rig.space, MKW_RDWR, &rig.handle), 0);
	rig.view = rig_map(rig.handle, 3, 0);
	rig.view[size_bytes - 1] = 7;
	memset(rig.view + size_bytes, 0xee, 64);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	REQUIRE(script_log_of(rig.store, SCRIPT_WRITE, 1, &call));
	CHECK_EQ(call.first + call.count, 3);
	script_get(rig.store, size_bytes, after, sizeof(after));
	memset(expected, 0, sizeof(expected));
	CHECK_MEM(after, expected, sizeof(after));
	script_get(rig.store, size_bytes - 1, after, 1);
	CHECK_EQ(after[0], 7);
	rig_close(&rig);
}

/* ---- Errors ------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(sync_continues_past_errors,
		  "6.3 6.5 contract 11: sync goes on past errors, returns the first; failed pages "
		  "stay dirty, are listed with their error, and are retried")
{
	struct mkw_range ranges[4];
	struct rig rig;

	rig_open(&rig, NULL, 32, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 32 * PAGE, MKW_RANDOM), 0);
	write_pages(&rig, 0, 32, 8, 5);
	script_fail_page(rig.store, SCRIPT_WRITE, 8, -EIO);
	script_fail_page(rig.store, SCRIPT_WRITE, 16, -ENOSPC);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	CHECK(mkw_error_message()[0] != '\0');
	check_stored_words(&rig, 0, 1, 5);
	check_stored_words(&rig, 8, 9, 0);
	check_stored_words(&rig, 24, 25, 5);
	/* And what could be written is durable. */
	CHECK_EQ(script_unsynced(rig.store), 0);
	REQUIRE_EQ(mkw_dirty_ranges(rig.handle, 0, 0, ranges, 4), 2);
	CHECK_EQ(ranges[0].offset, 8 * PAGE);
	CHECK_EQ(ranges[0].length, PAGE);
	CHECK_EQ(ranges[0].error, -EIO);
	CHECK_EQ(ranges[1].offset, 16 * PAGE);
	CHECK_EQ(ranges[1].length, PAGE);
	CHECK_EQ(ranges[1].error, -ENOSPC);
	CHECK_EQ(rig_stat(&rig).write_errors, 2);

	script_fail_page(rig.store, SCRIPT_WRITE, 8, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -ENOSPC);
	check_stored_words(&rig, 8, 9, 5);
	CHECK_EQ(rig_dirty_pages(&rig), 1);

	script_fail_page(rig.store, SCRIPT_WRITE, 16, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(mkw_dirty_ranges(rig.handle, 0, 0, ranges, 4), 0);
	CHECK_EQ(script_unsynced(rig.store), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(sync_continues_far_away,
     "6.3 6.5 contract 11: sync goes on past an error in pages megabytes behind it, too")
{
	const uint64_t pages = 2048;
	struct rig rig;

	rig_open(&rig, NULL, pages, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, pages * PAGE, MKW_RANDOM), 0);
	write_pages(&rig, 0, pages, 700, 5);
	script_fail_page(rig.store, SCRIPT_WRITE, 0, -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	check_stored_words(&rig, 700, 701, 5);
	check_stored_words(&rig, 1400, 1401, 5);
	CHECK_EQ(rig_dirty_pages(&rig), 1);
	script_fail_page(rig.store, SCRIPT_WRITE, 0, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(dirty_ranges_listed,
     "contract 11: dirty ranges are listed ascending, whole, and counted beyond "
     "what was asked for")
{
	struct mkw_range ranges[2] = {{0}};
	struct rig rig;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 64 * PAGE, MKW_RANDOM), 0);
	CHECK_EQ(mkw_dirty_ranges(rig.handle, 0, 0, NULL, 0), 0);
	write_pages(&rig, 40, 41, 1, 1);
	write_pages(&rig, 8, 12, 1, 1);
	write_pages(&rig, 20, 21, 1, 1);
	CHECK_EQ(mkw_dirty_ranges(rig.handle, 0, 0, NULL, 0), 3);
	CHECK_EQ(mkw_dirty_ranges(rig.handle, 0, 0, ranges, 2), 3);
	CHECK_EQ(ranges[0].offset, 8 * PAGE);
	CHECK_EQ(ranges[0].length, 4 * PAGE);
	CHECK_EQ(ranges[1].offset, 20 * PAGE);
	CHECK_EQ(ranges[1].length, PAGE);
	/* Cut to the range that was asked for. */
	CHECK_EQ(mkw_dirty_ranges(rig.handle, 9 * PAGE, 2 * PAGE, ranges, 2), 1);
	CHECK_EQ(ranges[0].offset, 9 * PAGE);
	CHECK_EQ(ranges[0].length, 2 * PAGE);
	CHECK_EQ(mkw_dirty_ranges(rig.handle, 41 * PAGE, 0, ranges, 2), 0);
	rig_close(&rig);
}

TEST(fsync_error_is_not_forgotten, "6.5 contract 11: after fsync failed, sync does not answer 0 "
				   "before one succeeded")
{
	struct rig rig;

	rig_open(&rig, NULL, 4, MKW_RDWR);
	*rig_word(rig.view, 0) = 1;
	script_fail(rig.store, SCRIPT_FSYNC, 1, 2, -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_unsynced(rig.store), 0);
	CHECK_EQ(rig_stored_word(&rig, 0), 1);
	rig_close(&rig);
}

TEST(error_once_per_handle, "6.5 a write-back error reaches each handle once; a later handle only "
			    "if nobody has heard of it")
{
	struct mkw_handle *second, *late;
	struct rig rig;

	rig_open_shared(&rig, NULL, 4, MKW_RDWR);
	second = rig_reopen(&rig, MKW_RDWR);
	CHECK_EQ(mkw_sync(second, 0, 0), 0);
	*rig_word(rig.view, 0) = 1;
	script_fail(rig.store, SCRIPT_WRITE, 1, 1, -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	/* Heard by the first: a new one starts without it, the second has it still to hear. */
	late = rig_reopen(&rig, MKW_RDWR);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 0), 1);
	CHECK_EQ(mkw_sync(late, 0, 0), 0);
	CHECK_EQ(mkw_sync(second, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(second, 0, 0), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(mkw_close(late), 0);
	CHECK_EQ(mkw_close(second), 0);
	rig_close(&rig);
}

/* Have background write-back fail once and then succeed, with nobody told. */
static void fail_unheard(struct rig *rig)
{
	script_fail(rig->store, SCRIPT_WRITE, 1, 1, -EIO);
	*rig_word(rig->view, 0) = 1;
	test_wait_until(rig_space_stat(rig).write_errors == 1 &&
			rig_space_stat(rig).dirty_bytes == 0);
	CHECK_EQ(rig_stored_word(rig, 0), 1);
}

TEST(unheard_error_new_handle, "6.5 an error that nobody has heard reaches a handle opened later")
{
	struct mkw_handle *late;
	struct rig rig;

	rig_open_shared(&rig, &brisk, 4, MKW_RDWR);
	fail_unheard(&rig);
	late = rig_reopen(&rig, MKW_RDWR);
	CHECK_EQ(mkw_sync(late, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(late, 0, 0), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(mkw_close(late), 0);
	rig_close(&rig);
}

TEST(unheard_error_at_close,
     "6.5 contract 11: an error that nobody has heard is returned by the last "
     "close, and then no more")
{
	struct rig rig;

	rig_open(&rig, &brisk, 4, MKW_RDWR);
	fail_unheard(&rig);
	CHECK_EQ(mkw_unmap(rig.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_close(rig.handle), -EIO);
	rig.view = NULL;
	rig.handle = NULL;
	rig_close(&rig);
}

TEST(unheard_error_at_destroy, "6.5 contract 11: an error after the last close is returned by "
			       "destroy, which ends the space all the same")
{
	struct rig rig;

	rig_open(&rig, &brisk, 4, MKW_RDWR);
	CHECK_EQ(mkw_close(rig.handle), 0);
	rig.handle = NULL;
	fail_unheard(&rig);
	CHECK_EQ(mkw_space_destroy(rig.space, 0), -EIO);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 1);
	CHECK(script_destroy(rig.store));
}

TEST(write_fails_at_each_call, "6.3 6.5 fail the 1st, 2nd, 3rd ... write: whatever fails, a second "
			       "sync stores everything")
{
	const uint64_t pages = 48;
	bool failed = true;
	struct rig rig;

	rig_open(&rig, NULL, pages, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, pages * PAGE, MKW_RANDOM), 0);
	for (uint64_t nth = 1; failed && nth <= pages + 1; nth++) {
		uint64_t errors = rig_stat(&rig).write_errors;

		write_pages(&rig, 0, pages, 3, nth);
		script_fail(rig.store, SCRIPT_WRITE, nth, 1, -EIO);
		failed = mkw_sync(rig.handle, 0, 0) != 0;
		CHECK_EQ(rig_stat(&rig).write_errors > errors, failed);
		CHECK_EQ(rig_dirty_pages(&rig) > 0, failed);
		script_fail(rig.store, SCRIPT_WRITE, 1, 0, 0);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		rig_check_stored(&rig);
		CHECK_EQ(script_unsynced(rig.store), 0);
	}
	CHECK(!failed);
	rig_close(&rig);
}

/* ---- Not yet ------------------------------------------------------------------------------ */

TEST(not_yet_stays_dirty,
     "S2.5 a page the store cannot take yet stays dirty, is not an error, and is "
     "written when it can")
{
	struct mkw_handle *second;
	struct mkw_range range;
	struct rig rig;

	rig_open_shared(&rig, NULL, 32, MKW_RDWR);
	second = rig_reopen(&rig, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 32 * PAGE, MKW_RANDOM), 0);
	write_pages(&rig, 0, 32, 8, 5);
	script_fail_page(rig.store, SCRIPT_WRITE, 8, -EAGAIN);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EAGAIN);
	check_stored_words(&rig, 0, 1, 5);
	check_stored_words(&rig, 8, 9, 0);
	check_stored_words(&rig, 24, 25, 5);
	REQUIRE_EQ(mkw_dirty_ranges(rig.handle, 0, 0, &range, 1), 1);
	CHECK_EQ(range.offset, 8 * PAGE);
	CHECK_EQ(range.length, PAGE);
	CHECK_EQ(range.error, 0);
	CHECK_EQ(rig_stat(&rig).write_errors, 0);
	script_fail_page(rig.store, SCRIPT_WRITE, 8, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	check_stored_words(&rig, 8, 9, 5);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(mkw_sync(second, 0, 0), 0);
	CHECK_EQ(mkw_close(second), 0);
	rig_close(&rig);
}

TEST(not_yet_in_background,
     "S2.5 background write-back comes back to a page that the store could not "
     "take yet")
{
	struct rig rig;

	rig_open(&rig, &brisk, 4, MKW_RDWR);
	script_fail(rig.store, SCRIPT_WRITE, 1, 3, -EAGAIN);
	*rig_word(rig.view, 0) = 1;
	REQUIRE(script_wait_calls(rig.store, SCRIPT_WRITE, 4));
	test_wait_until(rig_dirty_pages(&rig) == 0);
	CHECK_EQ(rig_stored_word(&rig, 0), 1);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_close(&rig);
}

/* ---- Background and manual ---------------------------------------------------------------- */

TEST_EACH_BACKEND(background_writes, "6.1 dirty pages are written without being asked, and say why")
{
	struct script_call call;
	struct rig rig;

	rig_open(&rig, &brisk, 4, MKW_RDWR);
	*rig_word(rig.view, 2) = 9;
	test_wait_until(rig_dirty_pages(&rig) == 0);
	CHECK_EQ(rig_stored_word(&rig, 2), 9);
	REQUIRE(script_log_of(rig.store, SCRIPT_WRITE, 1, &call));
	CHECK_EQ(call.flags, MKW_WB_BACKGROUND);
	*rig_word(rig.view, 2) = 10;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 2), 10);
	rig_close(&rig);
}

TEST(sync_says_why, "contract 11: writepages of mkw_sync has reason SYNC")
{
	struct script_call call;
	struct rig rig;

	rig_open(&rig, NULL, 4, MKW_RDWR);
	*rig_word(rig.view, 2) = 9;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	REQUIRE(script_log_of(rig.store, SCRIPT_WRITE, 1, &call));
	CHECK_EQ(call.flags, MKW_WB_SYNC);
	rig_close(&rig);
}

TEST_EACH_BACKEND(manual_writes_nothing,
		  "contract 11: with MKW_MANUAL nothing is written before sync "
		  "or the last close")
{
	struct rig manual, other;

	rig_open(&manual, &brisk, 8, MKW_RDWR | MKW_MANUAL);
	rig_add(&other, &manual, 4, MKW_RDWR);
	write_pages(&manual, 0, 8, 1, 1);
	/* Background write-back has run this often, as the other object shows. */
	for (uint64_t i = 1; i <= 5; i++) {
		*rig_word(other.view, 0) = i;
		test_wait_until(rig_stored_word(&other, 0) == i);
		test_wait_until(rig_dirty_pages(&other) == 0);
	}
	CHECK_EQ(script_calls(manual.store, SCRIPT_WRITE), 0);
	CHECK_EQ(mkw_sync(manual.handle, 0, 0), 0);
	rig_check_stored(&manual);
	script_log_clear(manual.store);
	write_pages(&manual, 0, 8, 1, 2);
	*rig_word(other.view, 0) = 6;
	test_wait_until(rig_stored_word(&other, 0) == 6);
	CHECK_EQ(mkw_unmap(manual.view, 8 * PAGE), 0);
	manual.view = NULL;
	CHECK_EQ(script_calls(manual.store, SCRIPT_WRITE), 0);
	CHECK_EQ(mkw_close(manual.handle), 0);
	manual.handle = NULL;
	check_stored_words(&manual, 0, 8, 2);
	rig_leave(&other);
	rig_close(&manual);
	CHECK(script_destroy(other.store));
}

/* ---- Unmap, close, msync ------------------------------------------------------------------ */

TEST_EACH_BACKEND(unmap_keeps_dirty, "7.4 unmapping writes nothing and loses nothing")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	write_pages(&rig, 0, 8, 1, 3);
	CHECK_EQ(mkw_unmap(rig.view, 8 * PAGE), 0);
	CHECK_EQ(script_calls(rig.store, SCRIPT_WRITE), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 8);
	rig.view = rig_map(rig.handle, 8, 0);
	for (uint64_t page = 0; page < 8; page++)
		CHECK_EQ(*rig_word(rig.view, page), 3);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	/* Clean now: a new view may not write unnoticed. */
	script_log_clear(rig.store);
	*rig_word(rig.view, 0) = 4;
	CHECK(script_calls_on(rig.store, SCRIPT_MKWRITE, 0) >= 1);
	rig_close(&rig);
}

TEST_EACH_BACKEND(close_writes, "6.5 the last close writes what is dirty and releases the store")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	write_pages(&rig, 0, 8, 1, 3);
	rig_leave(&rig);
	check_stored_words(&rig, 0, 8, 3);
	CHECK_EQ(script_unsynced(rig.store), 0);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 1);
	rig_close(&rig);
}

TEST(close_fails_keeps,
     "contract 11: pages that the last close cannot write stay with the space, are "
     "retried, and are lost by nobody")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	write_pages(&rig, 0, 8, 1, 3);
	script_fail(rig.store, SCRIPT_WRITE, 1, SCRIPT_FOREVER, -EIO);
	CHECK_EQ(mkw_unmap(rig.view, 8 * PAGE), 0);
	CHECK_EQ(mkw_close(rig.handle), -EIO);
	rig.view = NULL;
	rig.handle = NULL;
	CHECK_EQ(rig_space_stat(&rig).dirty_bytes, 8 * PAGE);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 0);
	CHECK_EQ(mkw_space_destroy(rig.space, 0), -EBUSY);
	CHECK_EQ(rig_space_stat(&rig).dirty_bytes, 8 * PAGE);
	script_fail(rig.store, SCRIPT_WRITE, 1, 0, 0);
	REQUIRE_EQ(mkw_space_destroy(rig.space, 0), 0);
	check_stored_words(&rig, 0, 8, 3);
	CHECK(script_destroy(rig.store));
}

TEST(msync_range, "6.5 msync writes the range given, and no more")
{
	struct rig rig;

	rig_open(&rig, NULL, 16, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 16 * PAGE, MKW_RANDOM), 0);
	write_pages(&rig, 0, 16, 1, 1);
	CHECK_EQ(mkw_msync(rig.view + 5 * PAGE, 2 * PAGE), 0);
	check_stored_words(&rig, 0, 5, 0);
	check_stored_words(&rig, 5, 7, 1);
	check_stored_words(&rig, 7, 16, 0);
	CHECK_EQ(mkw_msync(rig.view + 1, PAGE), -EINVAL);
	CHECK_EQ(mkw_msync(rig.view, 16 * PAGE), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(msync_over_holes,
     "6.5 msync over two views and what lies between: ENOMEM at the end, the mapped "
     "parts synced all the same; an I/O error wins")
{
	unsigned char *low, *high;
	struct rig a, b;

	rig_open(&a, NULL, 4, MKW_RDWR);
	rig_add(&b, &a, 4, MKW_RDWR);
	low = a.view < b.view ? a.view : b.view;
	high = a.view < b.view ? b.view : a.view;
	write_pages(&a, 0, 4, 1, 1);
	write_pages(&b, 0, 4, 1, 1);
	/* One page beyond the last view there is: no view, so a hole for certain. */
	CHECK_EQ(mkw_msync(low, (size_t)(high - low) + 5 * PAGE), -ENOMEM);
	check_stored_words(&a, 0, 4, 1);
	check_stored_words(&b, 0, 4, 1);
	CHECK_EQ(mkw_msync(low, 4 * PAGE), 0);
	CHECK_EQ(mkw_msync(high + 4 * PAGE, PAGE), -ENOMEM);

	write_pages(&b, 0, 4, 1, 2);
	script_fail(b.store, SCRIPT_WRITE, 1, 1, -EIO);
	CHECK_EQ(mkw_msync(low, (size_t)(high - low) + 5 * PAGE), -EIO);
	CHECK_EQ(mkw_msync(b.view, 4 * PAGE), 0);
	check_stored_words(&b, 0, 4, 2);
	rig_leave(&b);
	rig_close(&a);
	CHECK(script_destroy(b.store));
}

TEST(write_in_batches, "6.1 neighbouring dirty pages are written as runs, not one by one")
{
	struct rig rig;

	rig_open(&rig, NULL, 256, MKW_RDWR);
	write_pages(&rig, 0, 256, 1, 1);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stat(&rig).pages_written, 256);
	CHECK(rig_stat(&rig).writes <= 16);
	for (uint64_t page = 0; page < 256; page++)
		CHECK_EQ(script_calls_on(rig.store, SCRIPT_WRITE, page), 1);
	rig_check_stored(&rig);
	rig_close(&rig);
}
