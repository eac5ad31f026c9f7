/* SPDX-License-Identifier: MIT */
/*
 * fault.c - contract 1.1 to 1.3 and 2.1 to 2.5: what a fault asks the store, in which order, and
 * what a page's state promises.
 */
#include "harness/world.h"

#include <stdlib.h>
#include <string.h>

/* ---- 1.1, 2.2: reading -------------------------------------------------------------------- */

TEST_EACH_BACKEND(r2_2_read_leaves_read_only,
		  "1.1 2.2 I1 a read maps read only: the first write after it is asked for")
{
	struct script_call call;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	CHECK_EQ(get(w.view + PAGE + 5), script_pattern(PAGE + 5, 1));
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	REQUIRE(script_log_of(w.store, SCRIPT_FAULT, 1, &call));
	CHECK_EQ(call.page, 1);
	CHECK_EQ(call.flags & MKW_RUN_WRITE, 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);

	put(w.view + PAGE + 5, 'x');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_2_one_fill_for_many_readers,
		  "1.2 2.2 a page is filled once, whoever waits for it, and appears complete")
{
	struct access readers[6];
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 3);
	world_open(&w, 2 * PAGE);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1);
	for (unsigned i = 0; i < 6; i++)
		access_read(&readers[i], w.view + PAGE + i * 700);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	for (unsigned i = 0; i < 6; i++)
		access_wait_blocked(&readers[i]);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	for (unsigned i = 0; i < 6; i++) {
		CHECK_EQ(access_join(&readers[i]), 0);
		CHECK_EQ(readers[i].value, script_pattern(PAGE + i * 700, 3));
	}
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 1), 1);
	world_end(&w);
}

/* A reader waits in one view while another view's fault fills the page. A third thread touches the
 * page in the first view as soon as it is there: the kernel maps it, with no event, before the
 * reader's own fault is looked at again. The reader must be let go all the same. */
TEST_EACH_BACKEND(r2_2_parked_reader_let_go,
		  "2.2 a reader whose page was mapped by somebody else meanwhile is let go")
{
	struct access filler, reader;
	unsigned char *second, byte;
	struct world w;

	world_make(&w, PAGE);
	script_put_pattern(w.store, 0, 1, 1);
	world_open(&w, PAGE);
	second = world_map(&w, 0, 1, MKW_READ);
	for (unsigned round = 0; round < test_rounds(200); round++) {
		CHECK_EQ(mkw_invalidate(w.handle, 0, PAGE), 0);
		test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_EXIT, SCRIPT_ANY);
		access_read(&filler, second);
		REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 1));
		access_read(&reader, w.view + 7);
		access_wait_blocked(&reader);
		test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_EXIT);
		CHECK_EQ(mkw_pread(w.handle, &byte, 1, 9), 1);
		CHECK_EQ(get(w.view + 8), script_pattern(8, 1));
		CHECK_EQ(access_join(&filler), 0);
		CHECK_EQ(access_join(&reader), 0);
		CHECK_EQ(reader.value, script_pattern(7, 1));
	}
	CHECK_EQ(mkw_unmap(second, PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_2_cached_page_not_asked_again,
		  "2.2 a cached page serves every view, each read only")
{
	unsigned char *second;
	struct world w;

	world_make(&w, 8 * PAGE);
	script_put_pattern(w.store, 0, 8, 2);
	world_open(&w, 8 * PAGE);
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(get(w.view + i * PAGE), script_pattern(i * PAGE, 2));
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 8);
	second = world_map(&w, 2, 6, MKW_READ | MKW_WRITE);
	for (unsigned i = 2; i < 8; i++)
		CHECK_EQ(get(second + (i - 2) * PAGE + 9), script_pattern(i * PAGE + 9, 2));
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 8);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	put(second + 9, 'q');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 2), 1);
	CHECK_EQ(get(w.view + 2 * PAGE + 9), 'q');
	CHECK_EQ(mkw_unmap(second, 6 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r2_2_every_view_armed,
	"1.1 2.2 I1 a page filled for one view is protected in all others, older and newer")
{
	unsigned char *older, *newer;
	struct world w;

	world_make(&w, 8 * PAGE);
	script_put_pattern(w.store, 0, 8, 2);
	world_open(&w, 8 * PAGE);
	older = world_map(&w, 0, 8, MKW_READ | MKW_WRITE);
	CHECK_EQ(get(w.view + PAGE), script_pattern(PAGE, 2));
	newer = world_map(&w, 0, 8, MKW_READ | MKW_WRITE);
	CHECK_EQ(get(w.view + 2 * PAGE), script_pattern(2 * PAGE, 2));
	/* The kernel maps these two by itself, as it finds their entries. */
	CHECK_EQ(get(older + PAGE), script_pattern(PAGE, 2));
	CHECK_EQ(get(newer + 2 * PAGE), script_pattern(2 * PAGE, 2));
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 2);
	put(older + PAGE, 'a');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 1);
	put(newer + 2 * PAGE, 'b');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 2), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "a", 1);
	check_store(&w, 2 * PAGE, "b", 1);
	CHECK_EQ(mkw_unmap(older, 8 * PAGE), 0);
	CHECK_EQ(mkw_unmap(newer, 8 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_2_run_ends_at_a_filling,
		  "2.2 reading ahead ends at a page that somebody else is filling")
{
	struct access one, ahead;
	struct script_call call;
	unsigned char *second;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	second = world_map(&w, 0, 4, MKW_READ);
	CHECK_EQ(mkw_advise(second, 4 * PAGE, MKW_SEQUENTIAL), 0);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 2);
	access_read(&one, w.view + 2 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	access_read(&ahead, second);
	REQUIRE(script_wait_calls(w.store, SCRIPT_FAULT, 2));
	REQUIRE(script_log_of(w.store, SCRIPT_FAULT, 2, &call));
	CHECK_EQ(call.first, 0);
	CHECK_EQ(call.count, 2);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&ahead), 0);
	CHECK_EQ(access_join(&one), 0);
	CHECK_EQ(one.value, script_pattern(2 * PAGE, 1));
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r2_2_view_after_dirty,
	"1.1 2.2 I1 a view mapped while a page is cached, then cleaned, is write protected")
{
	unsigned char *second;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	put(w.view, 'a');
	second = world_map(&w, 0, 2, MKW_READ | MKW_WRITE);
	CHECK_EQ(get(second), 'a');
	put(second, 'b');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "b", 1);
	script_log_clear(w.store);
	put(second, 'c');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 0), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "c", 1);
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	world_end(&w);
}

/* ---- 2.1: permission ---------------------------------------------------------------------- */

TEST_EACH_BACKEND(r2_1_write_permission, "2.1 a write through a read-only view asks nobody")
{
	unsigned char *readonly, value;
	struct world w;
	siginfo_t info;

	plain_install();
	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	world_open(&w, 2 * PAGE);
	readonly = world_map(&w, 0, 2, MKW_READ);
	CHECK_EQ(plain_read(readonly + 3, &value, NULL), 0);
	CHECK_EQ(value, script_pattern(3, 1));
	CHECK_EQ(plain_write(readonly + 3, 'x', &info), SIGSEGV);
	CHECK(info.si_addr == readonly + 3);
	CHECK_EQ(plain_write(readonly + PAGE, 'x', &info), SIGSEGV);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	CHECK_EQ(mkw_unmap(readonly, 2 * PAGE), 0);
	world_end(&w);
}

/* ---- 2.3, 2.4: writing -------------------------------------------------------------------- */

TEST_EACH_BACKEND(r2_3_write_absent, "2.3 a write to an absent page: one fill, one notification")
{
	struct script_call fault, mkwrite;
	unsigned char model[PAGE];
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 2 * PAGE, model, PAGE);
	world_open(&w, 4 * PAGE);
	put(w.view + 2 * PAGE + 100, 'x');
	model[100] = 'x';
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	REQUIRE(script_log_of(w.store, SCRIPT_FAULT, 1, &fault));
	REQUIRE(script_log_of(w.store, SCRIPT_MKWRITE, 1, &mkwrite));
	CHECK_EQ(fault.page, 2);
	CHECK_EQ(mkwrite.page, 2);
	CHECK_EQ(fault.flags & MKW_RUN_WRITE, MKW_RUN_WRITE);
	CHECK_EQ(world_stat(&w).write_faults, 1);
	CHECK_EQ(world_stat(&w).read_faults, 0);
	CHECK_EQ(world_stat(&w).notifications, 1);
	CHECK_EQ(world_stat(&w).pages_granted, 1);
	check_view(w.view + 2 * PAGE, model, PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 2 * PAGE, model, PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_3_fill_before_asking,
		  "2.3 the page is filled, and readable, while it is asked for")
{
	struct access writer;
	unsigned char *second;
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	world_open(&w, 2 * PAGE);
	second = world_map(&w, 0, 2, MKW_READ);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&writer, w.view + 20, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	CHECK_EQ(get(w.view + 20), script_pattern(20, 1));
	CHECK_EQ(get(second + 20), script_pattern(20, 1));
	CHECK_EQ(world_dirty_bytes(&w), 0);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(get(second + 20), 'x');
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_4_write_read_only, "2.4 a write to a mapped page asks once and fills nothing")
{
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	for (unsigned i = 0; i < 4; i++)
		get(w.view + i * PAGE);
	script_log_clear(w.store);
	for (unsigned i = 0; i < 4; i++)
		put(w.view + i * PAGE + i, 'x');
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 0);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, i), 1);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r2_4_many_writers_one_page,
	"2.4 2.5 many threads write one clean page: all bytes land, the page is asked for")
{
	enum { WRITERS = 6 };
	struct access writers[WRITERS];
	unsigned char model[PAGE];
	struct world w;

	world_make(&w, PAGE);
	script_put_pattern(w.store, 0, 1, 1);
	script_get(w.store, 0, model, PAGE);
	world_open(&w, PAGE);
	get(w.view);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	for (unsigned i = 0; i < WRITERS; i++) {
		access_write(&writers[i], w.view + i * 600, (unsigned char)(i + 1));
		model[i * 600] = (unsigned char)(i + 1);
	}
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	for (unsigned i = 0; i < WRITERS; i++)
		access_wait_blocked(&writers[i]);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	for (unsigned i = 0; i < WRITERS; i++)
		CHECK_EQ(access_join(&writers[i]), 0);
	CHECK(script_calls(w.store, SCRIPT_MKWRITE) <= WRITERS);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, PAGE);
	world_end(&w);
}

/* ---- 2.5: wasted notifications -------------------------------------------------------------- */

TEST_EACH_BACKEND(r2_5_wasted_grant_is_given_back,
		  "2.5 a grant that came too late leaves no reservation")
{
	struct access writer;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	/* The store looks at nothing and grants a page that a truncation has taken away. */
	script_set_manner(w.store, SCRIPT_LEGACY);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&writer, w.view + 2 * PAGE, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE), 0);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&writer), -ENXIO);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	CHECK_EQ(world_stat(&w).dirty_bytes, 0);
	world_end(&w);
}

static void grow_run(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg, (void)object;
	mkw_run_grow(run, 0, 8);
}

/* The store grants a run of pages that were all dropped meanwhile; some are back already, read by
 * somebody who will never write them. */
TEST_EACH_BACKEND(r2_5_wasted_run_is_given_back,
		  "2.5 a wasted grant of a run is given back, of pages that came back too")
{
	struct access writer;
	struct world w;

	world_make(&w, 8 * PAGE);
	world_open(&w, 8 * PAGE);
	for (unsigned i = 0; i < 8; i++)
		get(w.view + i * PAGE);
	script_set_manner(w.store, SCRIPT_LEGACY);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, grow_run, NULL);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&writer, w.view + 3 * PAGE, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, NULL, NULL);
	CHECK_EQ(mkw_invalidate(w.handle, 0, 8 * PAGE), 0);
	for (unsigned i = 5; i < 8; i++)
		get(w.view + i * PAGE);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(script_page_reserved(w.store, i), i == 3);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

/* A cached run is asked for; a writer of its first page stands in page_mkwrite. */
static void ask_for_run(struct world *w, struct access *writer)
{
	world_make(w, 4 * PAGE);
	world_open(w, 4 * PAGE);
	for (unsigned i = 0; i < 4; i++)
		get(w->view + i * PAGE);
	CHECK_EQ(mkw_advise(w->view, 4 * PAGE, MKW_SEQUENTIAL), 0);
	/* The library locks the run, and sees what it gets of it. */
	script_set_manner(w->store, SCRIPT_LEGACY);
	test_gate_arm(w->store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(writer, w->view, 'x');
	REQUIRE(test_gate_wait_arrived(w->store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
}

TEST_EACH_BACKEND(r2_5_untaken_run_is_given_back,
		  "2.5 pages of a run that were granted and could not be locked are given back")
{
	struct api_call punch;
	struct access writer;
	struct world w;

	ask_for_run(&w, &writer);
	/* Page 1 is being punched, and what was reserved of it is given back already. */
	test_gate_arm(w.store, SCRIPT_PUNCH, SCRIPT_EXIT, SCRIPT_ANY);
	test_gate_arm(w.store, SCRIPT_UNRESERVE, SCRIPT_EXIT, SCRIPT_ANY);
	api_start(&punch, &w, mkw_punch, PAGE, PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_PUNCH, SCRIPT_EXIT, 1));
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_UNRESERVE, SCRIPT_EXIT, 1));
	test_gate_release(w.store, SCRIPT_PUNCH, SCRIPT_EXIT);
	test_gate_release(w.store, SCRIPT_UNRESERVE, SCRIPT_EXIT);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(api_join(&punch), 0);
	CHECK_EQ(script_reserved(w.store), 1);
	CHECK(script_page_reserved(w.store, 0));
	world_end(&w);
}

TEST_EACH_BACKEND(
	r2_5_lost_page_that_is_filled,
	"2.5 a page that was granted, dropped, and is just being read again is given back")
{
	struct access writer, reader;
	unsigned char *second;
	struct world w;

	ask_for_run(&w, &writer);
	CHECK_EQ(mkw_invalidate(w.handle, PAGE, PAGE), 0);
	second = world_map(&w, 0, 4, MKW_READ);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1);
	access_read(&reader, second + PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	test_wait_until(world_dirty_bytes(&w) > 0);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&reader), 0);
	CHECK_EQ(access_join(&writer), 0);
	/* Its writer may be let go before that. */
	test_wait_until(!script_page_reserved(w.store, 1));
	CHECK(script_page_reserved(w.store, 0));
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_5_two_aliases,
		  "2.5 two views ask for one page at a time: one reservation, no loss")
{
	struct access first, other;
	unsigned char *second;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	second = world_map(&w, 1, 1, MKW_READ | MKW_WRITE);
	get(w.view + PAGE);
	get(second);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, SCRIPT_ANY);
	access_write(&first, w.view + PAGE, 'a');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 1));
	access_write(&other, second + 1, 'b');
	access_wait_blocked(&other);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT);
	CHECK_EQ(access_join(&first), 0);
	CHECK_EQ(access_join(&other), 0);
	CHECK_EQ(script_reserved(w.store), 1);
	CHECK_EQ(world_stat(&w).dirty_bytes, PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	check_store(&w, PAGE, "ab", 2);
	CHECK_EQ(mkw_unmap(second, PAGE), 0);
	world_end(&w);
}

/* ---- 1.3: invariants ------------------------------------------------------------------------ */

TEST_EACH_BACKEND(i2_sync_against_locked_page,
		  "I2 S4.4 a page cannot be cleaned between its notification and its being dirty")
{
	struct api_call syncing;
	struct access writer;
	unsigned char *second;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	second = world_map(&w, 0, 2, MKW_READ | MKW_WRITE);
	for (unsigned round = 1; round <= 20; round++) {
		get(second);
		test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, SCRIPT_ANY);
		access_write(&writer, w.view, (unsigned char)round);
		REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 1));
		api_start(&syncing, &w, mkw_sync, 0, 0);
		test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT);
		CHECK_EQ(access_join(&writer), 0);
		CHECK_EQ(api_join(&syncing), 0);
		/* Either that sync took the page or it is dirty now. */
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		check_store(&w, 0, &(unsigned char){(unsigned char)round}, 1);
		CHECK_EQ(world_dirty_bytes(&w), 0);
	}
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(i3_all_aliases_protected,
		  "I3 I4 no view can write a page under write-back; readers run on")
{
	struct access writers[2];
	struct api_call syncing;
	unsigned char *second, *third;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	second = world_map(&w, 2, 2, MKW_READ | MKW_WRITE);
	third = world_map(&w, 0, 4, MKW_READ);
	put(w.view + 2 * PAGE, 'a');
	put(second, 'b');
	CHECK_EQ(get(third + 2 * PAGE), 'b');
	test_gate_arm(w.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	api_start(&syncing, &w, mkw_sync, 0, 0);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	access_write(&writers[0], w.view + 2 * PAGE, 'c');
	access_write(&writers[1], second + 1, 'd');
	access_wait_blocked(&writers[0]);
	access_wait_blocked(&writers[1]);
	CHECK_EQ(get(w.view + 2 * PAGE), 'b');
	CHECK_EQ(get(second), 'b');
	CHECK_EQ(get(third + 2 * PAGE), 'b');
	test_gate_release(w.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&syncing), 0);
	CHECK_EQ(access_join(&writers[0]), 0);
	CHECK_EQ(access_join(&writers[1]), 0);
	check_store(&w, 2 * PAGE, "b", 2);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 2 * PAGE, "cd", 2);
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	CHECK_EQ(mkw_unmap(third, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(i5_detached_page_unmapped, "I5 a page that was dropped is in no view any more")
{
	unsigned char zero[PAGE] = {0};
	unsigned char *second;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	second = world_map(&w, 1, 3, MKW_READ | MKW_WRITE);
	get(w.view + PAGE);
	get(second);
	put(second + PAGE, 'x');
	get(w.view + 2 * PAGE);
	CHECK_EQ(mkw_punch(w.handle, PAGE, 2 * PAGE), 0);
	check_view(w.view + PAGE, zero, PAGE);
	check_view(w.view + 2 * PAGE, zero, PAGE);
	check_view(second, zero, PAGE);
	check_view(second + PAGE, zero, PAGE);
	CHECK_EQ(get(w.view), script_pattern(0, 1));
	CHECK_EQ(get(w.view + 3 * PAGE), script_pattern(3 * PAGE, 1));
	CHECK_EQ(mkw_unmap(second, 3 * PAGE), 0);
	world_end(&w);
}

/* ---- All of it at once, against a model -------------------------------------------------------
 */

enum { MODEL_PAGES = 48, MODEL_THREADS = 4, MODEL_SLOTS = 16 };

/* Thread t owns the bytes at t, t + MODEL_THREADS, ... of the first MODEL_SLOTS * MODEL_THREADS of
 * each page, so that all threads meet in all pages and each knows what it must find. */
struct model_writer {
	struct test_thread thread;
	unsigned char *view;
	unsigned index, rounds, first;
	unsigned char bytes[MODEL_PAGES][MODEL_SLOTS];
	unsigned wrong;
};

static void *model_main(void *arg)
{
	struct model_writer *m = arg;
	unsigned seed = m->index * 7919 + 1;

	for (unsigned round = 0; round < m->rounds; round++) {
		unsigned page = m->first + (unsigned)rand_r(&seed) % (MODEL_PAGES - m->first);
		unsigned slot = (unsigned)rand_r(&seed) % MODEL_SLOTS;
		unsigned char *byte =
			m->view + (page - m->first) * PAGE + slot * MODEL_THREADS + m->index;

		if (__atomic_load_n(byte, __ATOMIC_RELAXED) != m->bytes[page][slot])
			m->wrong++;
		if (rand_r(&seed) % 2 == 0)
			continue;
		m->bytes[page][slot] = (unsigned char)rand_r(&seed);
		__atomic_store_n(byte, m->bytes[page][slot], __ATOMIC_RELAXED);
	}
	return NULL;
}

static void model_compare(struct world *w, struct model_writer *writers)
{
	unsigned char model[PAGE];

	for (unsigned page = 0; page < MODEL_PAGES; page++) {
		memset(model, 0, PAGE);
		for (unsigned t = 0; t < MODEL_THREADS; t++)
			for (unsigned slot = 0; slot < MODEL_SLOTS; slot++)
				model[slot * MODEL_THREADS + t] = writers[t].bytes[page][slot];
		check_view(w->view + page * PAGE, model, PAGE);
		check_store(w, page * PAGE, model, PAGE);
	}
}

static bool model_running(struct model_writer *writers)
{
	bool running = false;

	for (unsigned t = 0; t < MODEL_THREADS; t++)
		running = running || !writers[t].thread.ended;
	return running;
}

/* Threads write through three views while the main thread cleans and drops pages. */
static void model_test(int (*disturb)(struct world *w, unsigned round))
{
	static struct model_writer writers[MODEL_THREADS];
	unsigned char *second;
	struct world w;
	unsigned round = 0;

	world_make(&w, MODEL_PAGES * PAGE);
	world_open(&w, MODEL_PAGES * PAGE);
	second = world_map(&w, 8, MODEL_PAGES - 8, MKW_READ | MKW_WRITE);
	for (unsigned t = 0; t < MODEL_THREADS; t++) {
		writers[t].index = t;
		writers[t].rounds = test_rounds(3000);
		writers[t].first = t % 2 == 0 ? 0 : 8;
		writers[t].view = t % 2 == 0 ? w.view : second;
		test_thread_start(&writers[t].thread, model_main, &writers[t]);
	}
	while (model_running(writers)) {
		int error = disturb(&w, round++);

		CHECK(error == 0 || error == -EBUSY);
	}
	for (unsigned t = 0; t < MODEL_THREADS; t++) {
		test_thread_join(&writers[t].thread);
		CHECK_EQ(writers[t].wrong, 0);
	}
	world_settle(&w);
	model_compare(&w, writers);
	CHECK_EQ(mkw_unmap(second, (MODEL_PAGES - 8) * PAGE), 0);
	world_end(&w);
}

static int disturb_sync(struct world *w, unsigned round)
{
	(void)round;
	return mkw_sync(w->handle, 0, 0);
}

static int disturb_sync_part(struct world *w, unsigned round)
{
	return mkw_sync(w->handle, round * 5 % MODEL_PAGES * PAGE, 7 * PAGE);
}

static int disturb_invalidate(struct world *w, unsigned round)
{
	return mkw_invalidate(w->handle, round * 5 % MODEL_PAGES * PAGE, 3 * PAGE);
}

TEST_EACH_BACKEND(i1_model_under_sync,
		  "I1 I2 I3 no byte is lost while pages are cleaned under writers")
{
	model_test(disturb_sync);
}

TEST_EACH_BACKEND(i1_model_under_partial_sync, "I1 I2 I3 the same, cleaned in parts")
{
	model_test(disturb_sync_part);
}

TEST_EACH_BACKEND(i5_model_under_invalidate,
		  "I5 5.3 no byte is lost while pages are dropped under writers")
{
	model_test(disturb_invalidate);
}

static int disturb_views(struct world *w, unsigned round)
{
	unsigned first = round * 3 % (MODEL_PAGES - 4);
	unsigned char *view = world_map(w, first, 4, MKW_READ | MKW_WRITE);

	/* Bytes that no thread owns, of a page that they fight for. */
	put(view + PAGE - 1, 1);
	put(view + PAGE - 1, 0);
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	return round % 4 == 0 ? mkw_sync(w->handle, 0, 0) : 0;
}

TEST_EACH_BACKEND(i1_model_under_views, "I1 I3 no byte is lost while views come and go")
{
	model_test(disturb_views);
}
