/* SPDX-License-Identifier: MIT */
/*
 * callback.c - contract 3.1 to 3.3, 3.6, 4.1 to 4.4, 4.6 and 4.8: what page_mkwrite finds when it
 * is called, what it may do, and who cleans up when it fails.
 */
#include "harness/world.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- 3.1: on entry ------------------------------------------------------------------------ */

struct entry_seen {
	int lock_result, again_result;
	unsigned char bytes[PAGE];
	uint64_t size_bytes;
};

static void look_on_entry(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct entry_seen *seen = arg;

	seen->size_bytes = mkw_object_size(object);
	seen->lock_result = mkw_run_lock(run);
	memcpy(seen->bytes,
	       (const unsigned char *)mkw_run_data(run) + (run->page - run->first) * PAGE, PAGE);
	mkw_run_unlock(run);
	/* Unlocked means that it can be locked again. */
	seen->again_result = mkw_run_lock(run);
	mkw_run_unlock(run);
}

TEST_EACH_BACKEND(r3_1_unlocked_on_entry,
		  "3.1 page_mkwrite gets its pages unlocked, present and readable")
{
	struct entry_seen seen = {.lock_result = 1, .again_result = 1};
	unsigned char model[PAGE];
	struct world w;

	test_not_under_tsan();
	world_make(&w, 2 * PAGE + 100);
	script_put_pattern(w.store, 0, 3, 1);
	script_get(w.store, PAGE, model, PAGE);
	world_open(&w, 2 * PAGE);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, look_on_entry, &seen);
	put(w.view + PAGE + 50, 'x');
	CHECK_EQ(seen.lock_result, 0);
	CHECK_EQ(seen.again_result, 0);
	CHECK_EQ(seen.size_bytes, 2 * PAGE + 100);
	CHECK_MEM(seen.bytes, model, PAGE);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	world_end(&w);
}

TEST_EACH_BACKEND(r3_1_pages_not_held,
		  "3.1 while page_mkwrite sleeps its page can be cleaned, read, written by I/O")
{
	unsigned char byte = 0;
	struct access writer;
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	world_open(&w, 2 * PAGE);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&writer, w.view, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(mkw_pread(w.handle, &byte, 1, 7), 1);
	CHECK_EQ(byte, script_pattern(7, 1));
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&writer), 0);
	world_end(&w);
}

/* ---- 3.2: the run ------------------------------------------------------------------------- */

TEST_EACH_BACKEND(r3_2_run_grows,
		  "3.2 11 a run grows over cached clean pages: one notification for all")
{
	struct world w;

	world_make(&w, 16 * PAGE);
	script_put_pattern(w.store, 0, 16, 1);
	world_open(&w, 16 * PAGE);
	for (unsigned i = 0; i < 16; i++)
		get(w.view + i * PAGE);
	script_set_extent(w.store, 8);
	put(w.view + 10 * PAGE, 'a');
	for (unsigned i = 8; i < 16; i++)
		put(w.view + i * PAGE, (unsigned char)('a' + i));
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(world_stat(&w).pages_granted, 8);
	put(w.view + 7 * PAGE, 'z');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 2);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned i = 8; i < 16; i++)
		check_store(&w, i * PAGE, &(unsigned char){(unsigned char)('a' + i)}, 1);
	world_end(&w);
}

TEST_EACH_BACKEND(r3_2_run_grows_by_trylock_only,
		  "3.2 11 a run does not grow over absent, dirty or locked pages")
{
	struct script_call call;
	struct access reader;
	struct world w;

	world_make(&w, 8 * PAGE);
	script_put_pattern(w.store, 0, 8, 1);
	world_open(&w, 8 * PAGE);
	for (unsigned i = 1; i < 6; i++)
		get(w.view + i * PAGE);
	put(w.view + PAGE, 'd');
	/* Page 6 is being filled, that is locked, and stays so: waiting for it would be a hang. */
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 6);
	access_read(&reader, w.view + 6 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	script_log_clear(w.store);
	script_set_extent(w.store, 8);
	put(w.view + 3 * PAGE, 'x');
	put(w.view + 2 * PAGE, 'x');
	put(w.view + 5 * PAGE, 'x');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	REQUIRE(script_log_of(w.store, SCRIPT_MKWRITE, 1, &call));
	CHECK_EQ(call.page, 3);
	CHECK_EQ(world_dirty_bytes(&w), 5 * PAGE);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&reader), 0);
	put(w.view + 6 * PAGE, 'x');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 2);
	world_end(&w);
}

TEST_EACH_BACKEND(r3_2_run_grows_not_over_asked,
		  "3.2 11 a run does not grow over a page that is being asked for")
{
	struct access other;
	struct world w;

	world_make(&w, 8 * PAGE);
	script_put_pattern(w.store, 0, 8, 1);
	world_open(&w, 8 * PAGE);
	for (unsigned i = 0; i < 8; i++)
		get(w.view + i * PAGE);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 5);
	access_write(&other, w.view + 5 * PAGE, 'o');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	script_set_extent(w.store, 8);
	put(w.view + 3 * PAGE, 'x');
	CHECK_EQ(world_dirty_bytes(&w), 5 * PAGE);
	CHECK_EQ(world_stat(&w).pages_granted, 5);
	script_set_extent(w.store, 0);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&other), 0);
	CHECK_EQ(world_stat(&w).pages_granted, 6);
	world_end(&w);
}

static int cut_results[8];

static void cut_badly(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	uint64_t first = run->first, end = run->first + run->count, page = run->page;

	(void)arg;
	(void)object;
	cut_results[0] = mkw_run_cut(run, page, 0);
	cut_results[1] = mkw_run_cut(run, page + 1, 1);
	cut_results[2] = mkw_run_cut(run, first, (size_t)(end - first) + 1);
	cut_results[3] = mkw_run_cut(run, end, 1);
	cut_results[4] = mkw_run_cut(run, page, SIZE_MAX);
	cut_results[5] = mkw_run_cut(run, UINT64_MAX, 2);
	cut_results[6] = first > 0 ? mkw_run_cut(run, first - 1, 2) : -EINVAL;
	cut_results[7] = run->first == first && run->first + run->count == end && run->page == page;
}

TEST_EACH_BACKEND(r3_2_cut_checked,
		  "3.2 a cut that loses the page that faulted, or is none, is refused")
{
	struct world w;

	test_not_under_tsan();
	world_make(&w, 8 * PAGE);
	world_open(&w, 8 * PAGE);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, cut_badly, NULL);
	put(w.view + 3 * PAGE, 'x');
	for (unsigned i = 0; i < 7; i++)
		CHECK_EQ(cut_results[i], -EINVAL);
	CHECK(cut_results[7]);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, NULL, NULL);
	script_hook(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, cut_badly, NULL);
	memset(cut_results, 0, sizeof(cut_results));
	get(w.view + 6 * PAGE);
	for (unsigned i = 0; i < 7; i++)
		CHECK_EQ(cut_results[i], -EINVAL);
	CHECK(cut_results[7]);
	world_end(&w);
}

TEST_EACH_BACKEND(r3_2_cut_pages_are_free,
		  "3.2 a page cut from a run is asked for by others at once, and not unreserved")
{
	struct access writer;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	for (unsigned i = 0; i < 4; i++)
		get(w.view + i * PAGE);
	CHECK_EQ(mkw_advise(w.view, 4 * PAGE, MKW_SEQUENTIAL), 0);
	script_set_cut(w.store, SCRIPT_MKWRITE, 1);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 0);
	access_write(&writer, w.view, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 1));
	put(w.view + 2 * PAGE, 'y');
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(world_dirty_bytes(&w), 2 * PAGE);
	CHECK_EQ(script_calls(w.store, SCRIPT_UNRESERVE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r3_2_cut_pages_stay_clean,
		  "3.2 pages cut from a run are neither granted nor filled")
{
	struct world w;

	world_make(&w, 64 * PAGE);
	script_put_pattern(w.store, 0, 64, 1);
	world_open(&w, 64 * PAGE);
	CHECK_EQ(mkw_advise(w.view, 64 * PAGE, MKW_SEQUENTIAL), 0);
	script_set_cut(w.store, SCRIPT_MKWRITE, 1);
	script_set_cut(w.store, SCRIPT_FAULT, 2);
	for (unsigned i = 0; i < 64; i++) {
		CHECK_EQ(get(w.view + i * PAGE + 8), script_pattern(i * PAGE + 8, 1));
		put(w.view + i * PAGE, (unsigned char)i);
	}
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, i) > 0, true);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 64);
	CHECK_EQ(world_stat(&w).pages_granted, 64);
	CHECK_EQ(world_stat(&w).pages_filled, 64);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned i = 0; i < 64; i++)
		check_store(&w, i * PAGE, &(unsigned char){(unsigned char)i}, 1);
	world_end(&w);
}

/* ---- 3.3: failure ------------------------------------------------------------------------- */

TEST_EACH_BACKEND(r3_3_refused_page_stays,
		  "3.3 a refused write leaves its page cached, clean and readable")
{
	unsigned char model[2 * PAGE];
	uint64_t asked;
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	script_get(w.store, 0, model, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	get(w.view); /* page 0 is mapped, page 1 absent */
	/* Always: where it is not certain that its thread still waits, a refusal is asked for anew.
	 */
	script_fail_page(w.store, SCRIPT_MKWRITE, 0, -ENOSPC);
	script_fail_page(w.store, SCRIPT_MKWRITE, 1, -ENOSPC);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(try_write(w.view + 1, 'x', NULL), -ENOSPC);
		CHECK_EQ(try_write(w.view + PAGE + 1, 'x', NULL), -ENOSPC);
	}
	check_view(w.view, model, 2 * PAGE);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 0), 1);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 1), 1);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	CHECK_EQ(world_stat(&w).dirty_bytes, 0);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_WRITE), 0);
	asked = script_calls(w.store, SCRIPT_MKWRITE);
	CHECK(asked >= 6);
	script_fail_page(w.store, SCRIPT_MKWRITE, 0, 0);
	script_fail_page(w.store, SCRIPT_MKWRITE, 1, 0);
	put(w.view + 1, 'x');
	put(w.view + PAGE + 1, 'y');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), asked + 2);
	world_end(&w);
}

TEST_EACH_BACKEND(r3_3_refusal_disturbs_no_reader,
		  "3.3 a page refused for writing is read meanwhile, in every view")
{
	struct access writer, readers[2];
	unsigned char *second;
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	world_open(&w, 2 * PAGE);
	second = world_map(&w, 0, 2, MKW_READ | MKW_WRITE);
	script_fail(w.store, SCRIPT_MKWRITE, 1, SCRIPT_FOREVER, -ENOSPC);
	for (unsigned i = 0; i < test_rounds(100); i++) {
		access_write(&writer, w.view + 5, 'x');
		access_read(&readers[0], w.view + 6);
		access_read(&readers[1], second + 7);
		CHECK_EQ(access_join(&writer), -ENOSPC);
		CHECK_EQ(access_join(&readers[0]), 0);
		CHECK_EQ(access_join(&readers[1]), 0);
		CHECK_EQ(readers[0].value, script_pattern(6, 1));
		CHECK_EQ(readers[1].value, script_pattern(7, 1));
	}
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	world_end(&w);
}

/* ---- 3.6: past the end ---------------------------------------------------------------------- */

TEST_EACH_BACKEND(r3_6_past_the_end,
		  "3.6 a page cut off while it is asked for: refused as past the end")
{
	struct access writer;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	for (unsigned round = 0; round < 3; round++) {
		CHECK_EQ(mkw_truncate(w.handle, 4 * PAGE), 0);
		test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
		access_write(&writer, w.view + 3 * PAGE + 17, 'x');
		REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
		CHECK_EQ(mkw_truncate(w.handle, 3 * PAGE), 0);
		test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
		CHECK_EQ(access_join(&writer), -ENXIO);
		CHECK(writer.refusal.address == w.view + 3 * PAGE + 17);
		CHECK_EQ(script_reserved(w.store), 0);
	}
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 3);
	world_end(&w);
}

/* ---- 4.1: it may sleep ---------------------------------------------------------------------- */

TEST_EACH_BACKEND(r4_1_sleepers,
		  "4.1 more callbacks may sleep than there were handler threads; others go on")
{
	enum { SLEEPERS = 12 };
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct access sleepers[SLEEPERS];
	struct world w;

	options.workers = 2;
	world_make_with(&w, 32 * PAGE, &options);
	world_open(&w, 32 * PAGE);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	for (unsigned i = 0; i < SLEEPERS; i++)
		access_write(&sleepers[i], w.view + i * PAGE, (unsigned char)(i + 1));
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SLEEPERS));
	for (unsigned i = 0; i < 32; i++)
		CHECK_EQ(get(w.view + i * PAGE), 0);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	for (unsigned i = 0; i < SLEEPERS; i++)
		CHECK_EQ(access_join(&sleepers[i]), 0);
	for (unsigned i = 0; i < SLEEPERS; i++)
		CHECK_EQ(get(w.view + i * PAGE), i + 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), SLEEPERS);
	world_end(&w);
}

TEST_EACH_BACKEND(r4_1_fault_sleeps, "4.1 a fill may sleep; other pages, and the API, go on")
{
	struct mkw_range range;
	struct access reader;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 2);
	access_read(&reader, w.view + 2 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 1));
	put(w.view, 'x');
	CHECK_EQ(mkw_sync(w.handle, 0, PAGE), 0);
	CHECK_EQ(mkw_dirty_ranges(w.handle, 0, 0, &range, 1), 0);
	CHECK_EQ(mkw_size(w.handle), 4 * PAGE);
	CHECK_EQ(world_stat(&w).pages_written, 1);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_EXIT);
	CHECK_EQ(access_join(&reader), 0);
	CHECK_EQ(reader.value, script_pattern(2 * PAGE, 1));
	world_end(&w);
}

/* ---- 4.2, 4.4: order ------------------------------------------------------------------------ */

/* A store's own journal: page_mkwrite opens a transaction before it locks its pages, truncate and
 * punch_hole open one too. It is one lock, taken by hooks around the script store's own work. */
static pthread_mutex_t journal = PTHREAD_MUTEX_INITIALIZER;

static void journal_open(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg, (void)object, (void)run;
	pthread_mutex_lock(&journal);
}

static void journal_close(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg, (void)object, (void)run;
	pthread_mutex_unlock(&journal);
}

static void journal_test(bool truncate)
{
	struct access writer;
	struct api_call range;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, journal_open, NULL);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, journal_close, NULL);
	script_hook(w.store, truncate ? SCRIPT_TRUNCATE : SCRIPT_PUNCH, SCRIPT_ENTRY, journal_open,
		    NULL);
	script_hook(w.store, truncate ? SCRIPT_TRUNCATE : SCRIPT_PUNCH, SCRIPT_EXIT, journal_close,
		    NULL);
	/* The writer stands inside its transaction, before the page lock ... */
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&writer, w.view + 3 * PAGE, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	api_start(&range, &w, truncate ? api_truncate : mkw_punch, 2 * PAGE, 2 * PAGE);
	/* ... when the other is called and wants one for the same pages. */
	REQUIRE(script_wait_calls(w.store, truncate ? SCRIPT_TRUNCATE : SCRIPT_PUNCH, 1));
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&range), 0);
	CHECK_EQ(access_join(&writer), truncate ? -ENXIO : 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r4_4_journal_and_truncate,
		  "4.2 4.4 a transaction before the page lock does not deadlock with truncate")
{
	journal_test(true);
}

TEST_EACH_BACKEND(r4_4_journal_and_punch,
		  "4.2 4.4 a transaction before the page lock does not deadlock with a punch")
{
	journal_test(false);
}

/* ---- 4.3, 4.6: I/O whose memory is a view -------------------------------------------------------
 */

TEST_EACH_BACKEND(r4_6_pwrite_from_own_view,
		  "4.6 S2.2 mkw_pwrite from a view of the object, of the very page too")
{
	unsigned char model[4 * PAGE];
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	/* Source and destination absent, one page. */
	CHECK_EQ(mkw_pwrite(w.handle, w.view + 100, 200, 1000), 200);
	memcpy(model + 1000, model + 100, 200);
	check_view(w.view, model, PAGE);
	/* Across pages, another page absent. */
	CHECK_EQ(mkw_pwrite(w.handle, w.view + PAGE + 10, PAGE, 2 * PAGE + 300), PAGE);
	memcpy(model + 2 * PAGE + 300, model + PAGE + 10, PAGE);
	check_view(w.view, model, 4 * PAGE);
	/* Onto itself. */
	CHECK_EQ(mkw_pwrite(w.handle, w.view, 4 * PAGE, 0), 4 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r4_6_pread_into_own_view,
		  "4.6 S2.2 mkw_pread into a view of the object, of the very page too")
{
	unsigned char model[4 * PAGE];
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	CHECK_EQ(mkw_pread(w.handle, w.view + 2000, 500, 300), 500);
	memcpy(model + 2000, model + 300, 500);
	check_view(w.view, model, PAGE);
	CHECK_EQ(mkw_pread(w.handle, w.view + 3 * PAGE - 50, 100, PAGE), 100);
	memcpy(model + 3 * PAGE - 50, model + PAGE, 100);
	check_view(w.view, model, 4 * PAGE);
	CHECK(script_calls(w.store, SCRIPT_MKWRITE) > 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r4_6_refused_buffer,
		  "4.6 a buffer that is refused: a short count or its errno, never a signal")
{
	unsigned char model[2 * PAGE];
	unsigned char *buffer;
	struct world w;
	ssize_t n;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 2 * PAGE);
	world_open(&w, 6 * PAGE);
	buffer = w.view + 4 * PAGE; /* past the end */
	CHECK(mkw_pwrite(w.handle, buffer, 10, 0) < 0);
	CHECK(mkw_pread(w.handle, buffer, 10, 0) < 0);
	n = mkw_pwrite(w.handle, buffer - 100, 200, 0);
	CHECK(n < 0 || n <= 100);
	n = n < 0 ? 0 : n;
	script_get(w.store, 4 * PAGE - 100, model, (size_t)n);
	check_view(w.view, model, 2 * PAGE);
	/* The destination is refused by the store. */
	script_fail_page(w.store, SCRIPT_MKWRITE, 1, -ENOSPC);
	CHECK(mkw_pread(w.handle, w.view + PAGE, 10, 0) < 0);
	check_view(w.view + PAGE, model + PAGE, PAGE);
	script_fail_page(w.store, SCRIPT_MKWRITE, 1, 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r4_6_pwrite_is_asked_for,
		  "4.3 4.6 I1 mkw_pwrite asks as a view does, and a refusal is its errno")
{
	unsigned char model[2 * PAGE];
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 2 * PAGE);
	world_open(&w, 4 * PAGE);
	script_fail_page(w.store, SCRIPT_MKWRITE, 1, -EDQUOT);
	CHECK_EQ(mkw_pwrite(w.handle, "abc", 3, PAGE), -EDQUOT);
	CHECK_EQ(mkw_pwrite(w.handle, "abcdef", 6, PAGE - 3), 3);
	memcpy(model + PAGE - 3, "abc", 3);
	check_view(w.view, model, 2 * PAGE);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 0), 1);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	put(w.view, 'v');
	model[0] = 'v';
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 2 * PAGE);
	script_fail_page(w.store, SCRIPT_MKWRITE, 1, 0);
	world_end(&w);
}

/* ---- 4.8: its own view ------------------------------------------------------------------------
 */

/* A store that touches a view of its own object. The library ends such an operation where it
 * stands, so this one keeps nothing that could be left behind. */
struct self_store {
	unsigned char *touch; /* NULL: behave */
	bool in_fault, write;
	_Atomic unsigned touched;
	unsigned char bytes[8 * MKW_PAGE_SIZE];
};

static void self_touch(struct self_store *s)
{
	unsigned char *address = s->touch;

	if (!address)
		return;
	if (s->write)
		*(volatile unsigned char *)address = 's';
	else
		(void)*(volatile unsigned char *)address;
	s->touched++;
}

static mkw_fault_t self_fault(void *store, struct mkw_object *object, struct mkw_run *run,
			      void *buffer)
{
	struct self_store *s = store;

	(void)object;
	if (s->in_fault)
		self_touch(s);
	memcpy(buffer, s->bytes + run->first * PAGE, run->count * PAGE);
	return MKW_FAULT_LOCKED;
}

static mkw_fault_t self_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	struct self_store *s = store;

	(void)object;
	if (!s->in_fault)
		self_touch(s);
	return mkw_fault_from_errno(mkw_run_lock(run));
}

static int self_writepages(void *store, struct mkw_object *object, struct mkw_writeback *wb)
{
	struct self_store *s = store;

	(void)object;
	for (size_t i = 0; i < wb->count; i++)
		memcpy(s->bytes + wb->runs[i].first * PAGE, wb->runs[i].data,
		       (size_t)wb->runs[i].length_bytes);
	return 0;
}

static const struct mkw_store_ops self_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "self",
	.fault = self_fault,
	.page_mkwrite = self_mkwrite,
	.writepages = self_writepages,
};

static void self_test(bool in_fault, bool write)
{
	struct self_store *s = calloc(1, sizeof(*s));
	struct mkw_handle *handle;
	struct mkw_refusal refusal;
	struct mkw_space *space;
	unsigned char *view;
	void *address;

	test_not_under_tsan();
	REQUIRE(s);
	REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
	REQUIRE_EQ(mkw_create(space, &self_ops, s, sizeof(s->bytes), MKW_RDWR, &handle), 0);
	REQUIRE_EQ(mkw_map(handle, sizeof(s->bytes), MKW_READ | MKW_WRITE, test_map_flags(), 0,
			   &address),
		   0);
	view = address;
	CHECK_EQ(mkw_advise(view, sizeof(s->bytes), MKW_RANDOM), 0);
	s->in_fault = in_fault;
	s->write = write;
	s->touch = view + 5 * PAGE; /* another page, absent */
	for (unsigned i = 0; i < 8; i++) {
		/* More often than there are handler threads: none may be lost by it. */
		CHECK_EQ(try_write(view + 2 * PAGE, 'x', &refusal), -EDEADLK);
		CHECK(refusal.message[0]);
	}
	CHECK_EQ(s->touched, 0);
	s->touch = NULL;
	put(view + 2 * PAGE, 'x');
	put(view + 5 * PAGE, 'y');
	CHECK_EQ(mkw_sync(handle, 0, 0), 0);
	CHECK_EQ(s->bytes[2 * PAGE], 'x');
	CHECK_EQ(s->bytes[5 * PAGE], 'y');
	CHECK_EQ(mkw_unmap(view, sizeof(s->bytes)), 0);
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	free(s);
}

TEST_EACH_BACKEND(r4_8_mkwrite_reads_own_view,
		  "4.8 page_mkwrite reads a view of its object: EDEADLK, no hang")
{
	self_test(false, false);
}

TEST_EACH_BACKEND(r4_8_mkwrite_writes_own_view,
		  "4.8 page_mkwrite writes a view of its object: EDEADLK, no hang")
{
	self_test(false, true);
}

TEST_EACH_BACKEND(r4_8_fault_reads_own_view,
		  "4.8 fault reads a view of its object: EDEADLK, no hang")
{
	self_test(true, false);
}

TEST_EACH_BACKEND(r4_8_fault_writes_own_view,
		  "4.8 fault writes a view of its object: EDEADLK, no hang")
{
	self_test(true, true);
}

/* Threads that fault and call by turns, at the same few pages: whoever looks at one's fault late
 * may find it inside an operation by then. None of them has touched a view in one. */
struct turning {
	struct test_thread thread;
	struct world *w;
	unsigned index, refused, failed;
};

static void *turning_main(void *arg)
{
	struct turning *t = arg;
	unsigned seed = t->index + 1;
	struct mkw_refusal refusal;
	unsigned char byte;

	for (unsigned round = 0; round < test_rounds(2000); round++) {
		unsigned page = (unsigned)rand_r(&seed) % 4;
		unsigned char *at = t->w->view + page * PAGE + t->index;

		if (try_write(at, (unsigned char)round, &refusal) != 0 ||
		    try_read(at + 8, &byte, &refusal) != 0) {
			test_note("%p refused at %p: %s", (void *)at, refusal.address,
				  refusal.message);
			t->refused++;
		}
		if (mkw_punch(t->w->handle, page * PAGE, PAGE) != 0 ||
		    mkw_pread(t->w->handle, &byte, 1, page * PAGE) != 1) {
			test_note("punch or pread of page %u: %s", page, mkw_error_message());
			t->failed++;
		}
	}
	return NULL;
}

TEST_EACH_BACKEND(r4_8_no_false_alarm,
		  "4.8 S0.1 a fault that is looked at late is not taken for one of an operation")
{
	enum { THREADS = 4 };
	struct turning turning[THREADS];
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	for (unsigned i = 0; i < THREADS; i++) {
		turning[i] = (struct turning){.w = &w, .index = i};
		test_thread_start(&turning[i].thread, turning_main, &turning[i]);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		test_thread_join(&turning[i].thread);
		CHECK_EQ(turning[i].refused, 0);
		CHECK_EQ(turning[i].failed, 0);
	}
	CHECK_EQ(world_stat(&w).refusals, 0);
	world_end(&w);
}
