/* SPDX-License-Identifier: MIT */
/*
 * punch.c - contract 5.2, 5.3 and mkw_discard: dropping pages from the middle of an object.
 */
#include "harness/world.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Pages with a pattern, in memory and in the model. */
static void punch_open(struct world *w, unsigned pages, unsigned char *model)
{
	world_make(w, pages * PAGE);
	script_put_pattern(w->store, 0, pages, 1);
	script_get(w->store, 0, model, pages * PAGE);
	world_open(w, pages * PAGE);
}

/* ---- 5.2 ---------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(r5_2_punch_pages,
		  "5.2 I5 punched pages read zero in every view; their neighbours stay")
{
	unsigned char model[6 * PAGE];
	unsigned char *second;
	struct script_call call;
	struct world w;

	punch_open(&w, 6, model);
	second = world_map(&w, 1, 4, MKW_READ | MKW_WRITE);
	get(w.view + 2 * PAGE);
	put(second + 2 * PAGE + 7, 'd');
	put(w.view + PAGE, 'k');
	model[PAGE] = 'k';
	CHECK_EQ(mkw_punch(w.handle, 2 * PAGE, 2 * PAGE), 0);
	memset(model + 2 * PAGE, 0, 2 * PAGE);
	CHECK_EQ(script_calls(w.store, SCRIPT_PUNCH), 1);
	REQUIRE(script_log_of(w.store, SCRIPT_PUNCH, 1, &call));
	CHECK_EQ(call.first, 2 * PAGE);
	CHECK_EQ(call.count, 2 * PAGE);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	check_view(w.view, model, 6 * PAGE);
	check_view(second, model + PAGE, 4 * PAGE);
	CHECK_EQ(mkw_size(w.handle), 6 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_WRITE, 3), 0);
	check_store(&w, 0, model, 6 * PAGE);
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r5_2_punch_bytes,
	"5.2 I1 a range that is not page aligned: zeros in memory, asked for like a write")
{
	unsigned char model[6 * PAGE];
	struct world w;

	punch_open(&w, 6, model);
	get(w.view);
	CHECK_EQ(mkw_punch(w.handle, 100, 3 * PAGE + 100), 0);
	memset(model + 100, 0, 3 * PAGE + 100);
	check_view(w.view, model, 6 * PAGE);
	CHECK_EQ(mkw_punch(w.handle, 5 * PAGE + 10, 20), 0);
	memset(model + 5 * PAGE + 10, 0, 20);
	check_view(w.view, model, 6 * PAGE);
	CHECK_EQ(script_calls(w.store, SCRIPT_PUNCH), 1);
	/* The store sees an ungranted page as a violation. */
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 6 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_2_punch_past_end, "5.2 a punch at or past the end changes no size")
{
	unsigned char model[2 * PAGE];
	struct world w;

	punch_open(&w, 2, model);
	CHECK_EQ(mkw_punch(w.handle, PAGE, 4 * PAGE), 0);
	memset(model + PAGE, 0, PAGE);
	CHECK_EQ(mkw_punch(w.handle, 8 * PAGE, PAGE), 0);
	CHECK_EQ(mkw_size(w.handle), 2 * PAGE);
	CHECK_EQ(script_size_bytes(w.store), 2 * PAGE);
	check_view(w.view, model, 2 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 2 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_2_without_punch_hole, "5.2 a store that cannot punch gets zeros written")
{
	unsigned char model[4 * PAGE];
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 4 * PAGE);
	script_ops(w.store)->punch_hole = NULL;
	world_open(&w, 4 * PAGE);
	put(w.view + 3 * PAGE, 'k');
	model[3 * PAGE] = 'k';
	CHECK_EQ(mkw_punch(w.handle, PAGE - 5, 2 * PAGE), 0);
	memset(model + PAGE - 5, 0, 2 * PAGE);
	check_view(w.view, model, 4 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_2_failure_keeps_dirty,
		  "5.2 11 a punch that the store refuses drops nothing dirty")
{
	unsigned char model[4 * PAGE];
	struct world w;

	punch_open(&w, 4, model);
	put(w.view + PAGE, 'd');
	put(w.view + 2 * PAGE, 'e');
	model[PAGE] = 'd';
	model[2 * PAGE] = 'e';
	script_fail(w.store, SCRIPT_PUNCH, 1, 1, -EIO);
	CHECK_EQ(mkw_punch(w.handle, PAGE, 2 * PAGE), -EIO);
	check_view(w.view, model, 4 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_2_asked_again,
		  "5.2 I1 a write after a punch is asked for again, in every view")
{
	unsigned char *second;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	second = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	for (unsigned round = 1; round <= 10; round++) {
		unsigned char *view = round % 2 ? w.view : second;
		unsigned char *other = round % 2 ? second : w.view;

		put(view + PAGE, (unsigned char)round);
		CHECK_EQ(get(other + PAGE), round);
		CHECK_EQ(script_page_reserved(w.store, 1), true);
		CHECK_EQ(mkw_punch(w.handle, PAGE, PAGE), 0);
		CHECK_EQ(script_reserved(w.store), 0);
		script_log_clear(w.store);
		if (round % 3 == 0)
			CHECK_EQ(get(other + PAGE), 0);
		put(other + PAGE + 1, 'x');
		CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 1);
		CHECK_EQ(get(view + PAGE), 0);
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		CHECK_EQ(mkw_punch(w.handle, PAGE, PAGE), 0);
	}
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_2_writable_when_punched,
		  "5.2 I1 a page that was writable when it was punched comes back write protected")
{
	unsigned char *second;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	second = world_map(&w, 0, 2, MKW_READ | MKW_WRITE);
	/* With a neighbour cached, so that what is known of both is not forgotten. */
	CHECK_EQ(get(second + PAGE), 0);
	put(w.view, 'a');
	CHECK_EQ(mkw_punch(w.handle, 0, PAGE), 0);
	script_log_clear(w.store);
	/* One view fills it; in the other the kernel maps it, as it finds the entry. */
	CHECK_EQ(get(second), 0);
	CHECK_EQ(get(w.view), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	put(w.view, 'b');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "b", 1);
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r5_2_accesses_wait,
	"5.2 a page of the range that is wanted while it is punched: waited for, then zeros")
{
	unsigned char model[6 * PAGE];
	struct access reader, writer;
	struct api_call punch;
	struct world w;

	punch_open(&w, 6, model);
	put(w.view + 3 * PAGE, 'x');
	test_gate_arm(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY, SCRIPT_ANY);
	api_start(&punch, &w, mkw_punch, PAGE, 3 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY, 1));
	access_read(&reader, w.view + PAGE);
	access_write(&writer, w.view + 2 * PAGE + 1, 'y');
	access_wait_blocked(&reader);
	access_wait_blocked(&writer);
	put(w.view, 'z');
	CHECK_EQ(get(w.view + 4 * PAGE), model[4 * PAGE]);
	CHECK_EQ(mkw_sync(w.handle, 0, PAGE), 0);
	test_gate_release(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&punch), 0);
	CHECK_EQ(access_join(&reader), 0);
	CHECK_EQ(reader.value, 0);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(get(w.view + 2 * PAGE), 0);
	CHECK_EQ(get(w.view + 2 * PAGE + 1), 'y');
	CHECK_EQ(get(w.view + 3 * PAGE), 0);
	world_end(&w);
}

/* Zeros are written by a store without punch_hole, in several steps: a truncation between two of
 * them must not be undone by the next. */
TEST_EACH_BACKEND(r5_2_punch_never_grows,
		  "5.2 5.1 an object cut off while it is punched stays cut off")
{
	enum { PAGES = 96 };
	struct api_call punch;
	struct world w;

	world_make(&w, PAGES * PAGE);
	script_ops(w.store)->punch_hole = NULL;
	world_open(&w, 0);
	for (unsigned round = 0; round < test_rounds(100); round++) {
		script_log_clear(w.store);
		api_start(&punch, &w, mkw_punch, 10, PAGES * PAGE - 20);
		script_wait_calls(w.store, SCRIPT_MKWRITE, 1 + round % 5);
		CHECK_EQ(mkw_truncate(w.handle, PAGE), 0);
		api_join(&punch); /* all of it, or cut short */
		REQUIRE_EQ(mkw_size(w.handle), PAGE);
		CHECK_EQ(mkw_truncate(w.handle, PAGES * PAGE), 0);
	}
	world_end(&w);
}

TEST_EACH_BACKEND(r5_2_no_stale_page,
		  "5.2 a page that is being filled does not return after the punch")
{
	unsigned char model[4 * PAGE];
	struct api_call punch;
	struct access reader;
	struct world w;

	punch_open(&w, 4, model);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 2);
	access_read(&reader, w.view + 2 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 1));
	api_start(&punch, &w, mkw_punch, 2 * PAGE, PAGE);
	api_wait_blocked(&punch);
	CHECK_EQ(script_calls(w.store, SCRIPT_PUNCH), 0);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_EXIT);
	CHECK_EQ(api_join(&punch), 0);
	CHECK_EQ(access_join(&reader), 0);
	CHECK(reader.value == 0 || reader.value == model[2 * PAGE]);
	CHECK_EQ(get(w.view + 2 * PAGE), 0);
	CHECK_EQ(get(w.view + 2 * PAGE + 1), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_2_waits_for_writeback,
		  "5.2 a page under write-back is waited for before it is punched")
{
	unsigned char model[4 * PAGE], zero[PAGE] = {0};
	struct api_call punch, sync;
	struct world w;

	punch_open(&w, 4, model);
	put(w.view + 2 * PAGE, 'x');
	test_gate_arm(w.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	api_start(&sync, &w, mkw_sync, 0, 0);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	api_start(&punch, &w, mkw_punch, 2 * PAGE, PAGE);
	api_wait_blocked(&punch);
	CHECK_EQ(script_calls(w.store, SCRIPT_PUNCH), 0);
	test_gate_release(w.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&punch), 0);
	CHECK_EQ(api_join(&sync), 0);
	check_store(&w, 2 * PAGE, zero, PAGE);
	check_view(w.view + 2 * PAGE, zero, PAGE);
	world_end(&w);
}

struct spinning {
	struct test_thread thread;
	const unsigned char *view;
	atomic_bool *stop;
};

static void *spin_main(void *arg)
{
	struct spinning *s = arg;

	while (!atomic_load(s->stop))
		for (unsigned i = 0; i < 8; i++)
			(void)*(const volatile unsigned char *)(s->view + i * PAGE);
	return NULL;
}

/* A marker that a punch loses under readers is a later write that nobody asks for. */
TEST_EACH_BACKEND(r5_2_markers_under_readers,
		  "5.2 I1 every write after a punch is asked for, with readers at the pages")
{
	struct spinning spinning[2];
	atomic_bool stop = false;
	unsigned char *second;
	struct world w;

	test_not_under_tsan();
	world_make(&w, 8 * PAGE);
	world_open(&w, 8 * PAGE);
	second = world_map(&w, 0, 8, MKW_READ | MKW_WRITE);
	for (unsigned i = 0; i < 2; i++) {
		spinning[i].view = i ? second : w.view;
		spinning[i].stop = &stop;
		test_thread_start(&spinning[i].thread, spin_main, &spinning[i]);
	}
	for (unsigned round = 0; round < test_rounds(400); round++) {
		unsigned page = round % 8;
		unsigned char *view = round % 3 ? w.view : second;

		CHECK_EQ(mkw_punch(w.handle, page * PAGE, PAGE), 0);
		script_log_clear(w.store);
		put(view + page * PAGE, (unsigned char)(round | 1));
		CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, page), 1);
		CHECK_EQ(get(w.view + page * PAGE), (round | 1) % 256);
		CHECK_EQ(get(second + page * PAGE), (round | 1) % 256);
		if (round % 2)
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++)
		test_thread_join(&spinning[i].thread);
	CHECK_EQ(mkw_unmap(second, 8 * PAGE), 0);
	world_end(&w);
}

/* ---- 5.3 ---------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(r5_3_asks_the_store,
		  "5.3 after invalidation the next access of any view asks the store")
{
	unsigned char model[4 * PAGE];
	unsigned char *second;
	struct world w;

	punch_open(&w, 4, model);
	second = world_map(&w, 0, 4, MKW_READ);
	for (unsigned i = 0; i < 4; i++)
		get(second + i * PAGE);
	get(w.view + PAGE);
	script_put_pattern(w.store, 1, 2, 9);
	CHECK_EQ(get(w.view + PAGE), model[PAGE]);
	CHECK_EQ(mkw_invalidate(w.handle, PAGE, 2 * PAGE), 0);
	for (unsigned i = 1; i < 3; i++) {
		CHECK_EQ(get(w.view + i * PAGE + 3), script_pattern(i * PAGE + 3, 9));
		CHECK_EQ(get(second + i * PAGE + 4), script_pattern(i * PAGE + 4, 9));
		CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, i), 2);
	}
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 0), 1);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 3), 1);
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r5_3_dirty_is_written,
	"5.3 a dirty page is written before it is dropped; then writes are asked for again")
{
	unsigned char model[4 * PAGE];
	struct world w;

	punch_open(&w, 4, model);
	put(w.view + PAGE + 1, 'd');
	model[PAGE + 1] = 'd';
	CHECK_EQ(mkw_invalidate(w.handle, 0, 4 * PAGE), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, 0);
	check_store(&w, 0, model, 4 * PAGE);
	script_log_clear(w.store);
	put(w.view + PAGE + 2, 'e');
	model[PAGE + 2] = 'e';
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 1), 1);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 1);
	check_view(w.view, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_3_dirtied_again,
		  "5.3 a page dirtied again between its writing and its dropping stays: EBUSY")
{
	struct api_call invalidate;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	put(w.view, 'a');
	test_gate_arm(w.store, SCRIPT_FSYNC, SCRIPT_EXIT, SCRIPT_ANY);
	api_start(&invalidate, &w, mkw_invalidate, 0, 2 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FSYNC, SCRIPT_EXIT, 1));
	put(w.view, 'b');
	test_gate_release(w.store, SCRIPT_FSYNC, SCRIPT_EXIT);
	CHECK_EQ(api_join(&invalidate), -EBUSY);
	CHECK_EQ(get(w.view), 'b');
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_EQ(mkw_invalidate(w.handle, 0, 2 * PAGE), 0);
	CHECK_EQ(get(w.view), 'b');
	check_store(&w, 0, "b", 1);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_3_failure_keeps_dirty, "5.3 11 what cannot be written is not dropped")
{
	unsigned char model[4 * PAGE];
	struct world w;

	punch_open(&w, 4, model);
	put(w.view + PAGE, 'd');
	model[PAGE] = 'd';
	script_fail_page(w.store, SCRIPT_WRITE, 1, -EIO);
	CHECK_EQ(mkw_invalidate(w.handle, 0, 4 * PAGE), -EIO);
	check_view(w.view, model, 4 * PAGE);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	script_fail_page(w.store, SCRIPT_WRITE, 1, 0);
	mkw_sync(w.handle, 0, 0); /* may still report that error: once */
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_3_granted_gives_back,
		  "5.3 11 a page granted and never written gives its reservation back")
{
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	for (unsigned i = 0; i < 4; i++)
		get(w.view + i * PAGE);
	script_set_extent(w.store, 4);
	put(w.view, 'x');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(mkw_invalidate(w.handle, 0, 4 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(world_stat(&w).dirty_bytes, 0);
	check_store(&w, 0, "x", 1);
	world_end(&w);
}

/* ---- mkw_discard --------------------------------------------------------------------------- */

TEST_EACH_BACKEND(discard_drops, "5.1 I5 discarded pages are not written; the store's bytes return")
{
	unsigned char model[4 * PAGE];
	struct world w;

	punch_open(&w, 4, model);
	put(w.view + PAGE, 'd');
	put(w.view + 3 * PAGE, 'k');
	model[3 * PAGE] = 'k';
	CHECK_EQ(mkw_discard(w.handle, 0, 2 * PAGE), 0);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	check_view(w.view, model, 4 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_WRITE, 1), 0);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(discard_gives_back,
		  "2.5 S2.6 discarded pages give their reservations back, and are asked for again")
{
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	put(w.view, 'a');
	put(w.view + PAGE, 'b');
	CHECK_EQ(script_reserved(w.store), 2);
	CHECK_EQ(mkw_discard(w.handle, 0, 4 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(world_stat(&w).dirty_bytes, 0);
	CHECK_EQ(get(w.view), 0);
	script_log_clear(w.store);
	put(w.view, 'c');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "c", 1);
	world_end(&w);
}
