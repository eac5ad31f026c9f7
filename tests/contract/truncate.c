/* SPDX-License-Identifier: MIT */
/*
 * truncate.c - contract 5.1 and 5.5: making an object smaller, and where it ends.
 */
#include "harness/world.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- 5.1 ---------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(r5_1_drops_pages,
		  "5.1 pages beyond the new size are gone from every view, cached or dirty")
{
	unsigned char *second, value;
	struct world w;

	world_make(&w, 6 * PAGE);
	script_put_pattern(w.store, 0, 6, 1);
	world_open(&w, 6 * PAGE);
	second = world_map(&w, 1, 5, MKW_READ | MKW_WRITE);
	for (unsigned i = 0; i < 6; i++)
		get(w.view + i * PAGE);
	for (unsigned i = 2; i < 6; i++)
		put(second + (i - 1) * PAGE + 1, 'd');
	put(w.view + 1, 'k');
	CHECK_EQ(mkw_truncate(w.handle, 3 * PAGE), 0);
	CHECK_EQ(mkw_size(w.handle), 3 * PAGE);
	CHECK_EQ(script_size_bytes(w.store), 3 * PAGE);
	for (unsigned i = 3; i < 6; i++) {
		CHECK_EQ(try_read(w.view + i * PAGE, &value, NULL), -ENXIO);
		CHECK_EQ(try_write(w.view + i * PAGE, 'x', NULL), -ENXIO);
		CHECK_EQ(try_read(second + (i - 1) * PAGE, &value, NULL), -ENXIO);
		CHECK_EQ(try_write(second + (i - 1) * PAGE, 'x', NULL), -ENXIO);
	}
	CHECK_EQ(get(w.view + 1), 'k');
	CHECK_EQ(get(w.view + 2 * PAGE + 1), 'd');
	CHECK_EQ(world_dirty_bytes(&w), 2 * PAGE);
	CHECK_EQ(world_stat(&w).dirty_bytes, 2 * PAGE);
	CHECK_EQ(world_stat(&w).resident_bytes, 3 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned i = 3; i < 6; i++)
		CHECK_EQ(script_calls_on(w.store, SCRIPT_WRITE, i), 0);
	CHECK_EQ(mkw_unmap(second, 5 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_1_tail_is_zeroed,
		  "5.1 the rest of a page that is cut in two is zero, and stays so")
{
	unsigned char model[2 * PAGE] = {0};
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	script_get(w.store, 0, model, PAGE + 700);
	world_open(&w, 2 * PAGE);
	put(w.view + PAGE + 1, 'x');
	put(w.view + PAGE + 900, 'y');
	model[PAGE + 1] = 'x';
	CHECK_EQ(mkw_truncate(w.handle, PAGE + 700), 0);
	check_view(w.view, model, 2 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 2 * PAGE);
	CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE), 0);
	check_view(w.view, model, 2 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_1_clean_tail_is_zeroed,
		  "5.1 the same of a clean page, and of one that is not cached")
{
	unsigned char model[2 * PAGE] = {0};
	struct world w;

	for (unsigned cached = 0; cached < 2; cached++) {
		world_make(&w, 2 * PAGE);
		script_put_pattern(w.store, 0, 2, 1);
		memset(model, 0, sizeof(model));
		script_get(w.store, 0, model, PAGE + 1);
		world_open(&w, 2 * PAGE);
		if (cached)
			get(w.view + PAGE);
		CHECK_EQ(mkw_truncate(w.handle, PAGE + 1), 0);
		check_view(w.view, model, 2 * PAGE);
		CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE), 0);
		check_view(w.view, model, 2 * PAGE);
		world_end(&w);
	}
}

TEST_EACH_BACKEND(
	r5_1_to_nothing_and_back,
	"5.1 S2.6 truncated to nothing: no page, no reservation; grown: zeros, asked again")
{
	unsigned char zero[4 * PAGE] = {0};
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	for (unsigned i = 0; i < 4; i++)
		put(w.view + i * PAGE, 'x');
	CHECK_EQ(script_reserved(w.store), 4);
	CHECK_EQ(mkw_truncate(w.handle, 0), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(world_stat(&w).dirty_bytes, 0);
	CHECK_EQ(world_stat(&w).resident_bytes, 0);
	CHECK_EQ(try_write(w.view, 'x', NULL), -ENXIO);
	CHECK_EQ(mkw_truncate(w.handle, 4 * PAGE), 0);
	check_view(w.view, zero, 4 * PAGE);
	script_log_clear(w.store);
	put(w.view + PAGE, 'y');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 1);
	CHECK_EQ(script_reserved(w.store), 1);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_1_waits_for_writeback,
		  "5.1 a page under write-back is waited for before its storage goes")
{
	struct api_call sync, truncate;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	put(w.view + 3 * PAGE, 'x');
	test_gate_arm(w.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	api_start(&sync, &w, mkw_sync, 0, 0);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	api_start(&truncate, &w, api_truncate, PAGE, 0);
	api_wait_blocked(&truncate);
	CHECK_EQ(script_calls(w.store, SCRIPT_TRUNCATE), 0);
	test_gate_release(w.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&truncate), 0);
	CHECK_EQ(api_join(&sync), 0);
	CHECK_EQ(script_allocated(w.store), 0);
	world_end(&w);
}

/* The tail page is under write-back: its tail may only be zeroed afterwards. */
TEST_EACH_BACKEND(r5_1_waits_for_writeback_of_tail,
		  "5.1 I4 the page cut in two is waited for before it is zeroed")
{
	struct api_call sync, truncate;
	unsigned char model[PAGE] = {0};
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	put(w.view + PAGE, 'x');
	put(w.view + PAGE + 600, 'y');
	model[0] = 'x';
	test_gate_arm(w.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	api_start(&sync, &w, mkw_sync, 0, 0);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	api_start(&truncate, &w, api_truncate, PAGE + 500, 0);
	api_wait_blocked(&truncate);
	CHECK_EQ(script_calls(w.store, SCRIPT_TRUNCATE), 0);
	test_gate_release(w.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&truncate), 0);
	CHECK_EQ(api_join(&sync), 0);
	check_view(w.view + PAGE, model, PAGE);
	CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE), 0);
	check_view(w.view + PAGE, model, PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, model, PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_1_waits_for_fill,
		  "5.1 3.6 a page that is being filled does not return after truncation")
{
	struct api_call truncate;
	struct access reader;
	unsigned char value;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 3);
	access_read(&reader, w.view + 3 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_EXIT, 1));
	api_start(&truncate, &w, api_truncate, 2 * PAGE, 0);
	api_wait_blocked(&truncate);
	CHECK_EQ(script_calls(w.store, SCRIPT_TRUNCATE), 0);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_EXIT);
	CHECK_EQ(api_join(&truncate), 0);
	/* It may have got the byte before, or the refusal. */
	CHECK(access_join(&reader) == -ENXIO || reader.value == script_pattern(3 * PAGE, 1));
	CHECK_EQ(try_read(w.view + 3 * PAGE, &value, NULL), -ENXIO);
	CHECK_EQ(mkw_truncate(w.handle, 4 * PAGE), 0);
	CHECK_EQ(get(w.view + 3 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_1_failure_changes_nothing,
		  "5.1 a truncation that the store refuses loses nothing")
{
	unsigned char model[4 * PAGE];
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	for (unsigned i = 1; i < 4; i++) {
		put(w.view + i * PAGE + 2000, 'd');
		model[i * PAGE + 2000] = 'd';
	}
	script_fail(w.store, SCRIPT_TRUNCATE, 1, 1, -EIO);
	CHECK_EQ(mkw_truncate(w.handle, PAGE + 100), -EIO);
	CHECK_EQ(mkw_size(w.handle), 4 * PAGE);
	check_view(w.view, model, 4 * PAGE);
	CHECK_EQ(world_dirty_bytes(&w), 3 * PAGE);
	put(w.view + 3 * PAGE, 'e');
	model[3 * PAGE] = 'e';
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_1_accesses_wait,
		  "5.1 who touches the range while it is cut waits; others go on")
{
	struct access reader, writer;
	struct api_call truncate;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	put(w.view + 3 * PAGE, 'x');
	test_gate_arm(w.store, SCRIPT_TRUNCATE, SCRIPT_ENTRY, SCRIPT_ANY);
	api_start(&truncate, &w, api_truncate, 2 * PAGE, 0);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_TRUNCATE, SCRIPT_ENTRY, 1));
	access_read(&reader, w.view + 2 * PAGE);
	access_write(&writer, w.view + 2 * PAGE + 1, 'x');
	put(w.view, 'y');
	CHECK_EQ(get(w.view + PAGE), script_pattern(PAGE, 1));
	test_gate_release(w.store, SCRIPT_TRUNCATE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&truncate), 0);
	CHECK_EQ(access_join(&reader), -ENXIO);
	CHECK_EQ(access_join(&writer), -ENXIO);
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 3);
	world_end(&w);
}

/* ---- Under fire --------------------------------------------------------------------------- */

enum { FIRE_PAGES = 16, FIRE_THREADS = 3 };

struct firing {
	struct test_thread thread;
	unsigned char *view;
	unsigned index;
	atomic_bool *stop;
	unsigned wrong, stray;
	unsigned long refused;
};

/* A refusal must be of this very access, for the end of the object, and of a page that can be cut
 * off: the first ones never are. */
static void fire_refused(struct firing *f, const unsigned char *byte, unsigned page, int error,
			 const struct mkw_refusal *refusal)
{
	f->refused++;
	f->stray += refusal->address != byte;
	if (error == -ENXIO && page >= 4)
		return;
	f->wrong++;
	test_note("page %u, %p: refused at %p, %s", page, (const void *)byte, refusal->address,
		  refusal->message);
}

static void *fire_main(void *arg)
{
	struct firing *f = arg;
	unsigned seed = f->index + 1;

	while (!atomic_load(f->stop)) {
		unsigned page = (unsigned)rand_r(&seed) % FIRE_PAGES;
		unsigned char *byte = f->view + page * PAGE + f->index;
		struct mkw_refusal refusal;
		unsigned char value = 0;
		int error;

		if (rand_r(&seed) % 2)
			error = try_write(byte, (unsigned char)(page + 1), &refusal);
		else
			error = try_read(byte, &value, &refusal);
		if (error != 0)
			fire_refused(f, byte, page, error, &refusal);
		else if (value != 0 && value != page + 1)
			f->wrong++;
	}
	return NULL;
}

TEST_EACH_BACKEND(r5_1_under_fire,
		  "5.1 S4.3 truncated and grown under writers: past the end or right, nothing else")
{
	struct firing firing[FIRE_THREADS];
	atomic_bool stop = false;
	unsigned seed = 5;
	struct world w;

	world_make(&w, FIRE_PAGES * PAGE);
	world_open(&w, FIRE_PAGES * PAGE);
	for (unsigned i = 0; i < FIRE_THREADS; i++) {
		firing[i] = (struct firing){.view = w.view, .index = i, .stop = &stop};
		test_thread_start(&firing[i].thread, fire_main, &firing[i]);
	}
	for (unsigned round = 0; round < test_rounds(300); round++) {
		unsigned size = 4 * (unsigned)PAGE +
				(unsigned)rand_r(&seed) % (unsigned)((FIRE_PAGES - 4) * PAGE);

		CHECK_EQ(mkw_truncate(w.handle, size), 0);
		if (round % 8 == 0)
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		CHECK_EQ(mkw_truncate(w.handle, FIRE_PAGES * PAGE), 0);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < FIRE_THREADS; i++) {
		test_thread_join(&firing[i].thread);
		CHECK_EQ(firing[i].wrong, 0);
		CHECK_EQ(firing[i].stray, 0);
		test_note("thread %u: %lu refused", i, firing[i].refused);
	}
	world_settle(&w);
	CHECK_EQ(mkw_truncate(w.handle, 0), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, 0);
	world_end(&w);
}

/* ---- 5.5: where the end is ------------------------------------------------------------------ */

static void check_outside(struct world *w, unsigned char *address)
{
	struct mkw_refusal refusal;
	unsigned char value;
	siginfo_t info;

	CHECK_EQ(try_write(address, 'x', &refusal), -ENXIO);
	CHECK(refusal.address == address);
	CHECK_EQ(refusal.offset / PAGE, (uint64_t)(address - w->view) / PAGE);
	CHECK_EQ(try_read(address, &value, &refusal), -ENXIO);
	CHECK(refusal.address == address);
	CHECK_EQ(plain_write(address, 'x', &info), SIGBUS);
	CHECK_EQ(info.si_code, BUS_ADRERR);
	CHECK(info.si_addr == address);
	CHECK_EQ(plain_read(address, &value, &info), SIGBUS);
	CHECK_EQ(info.si_code, BUS_ADRERR);
	CHECK(info.si_addr == address);
}

TEST_EACH_BACKEND(r5_5_page_at_size_is_outside,
		  "5.5 a page that starts exactly at the size is outside")
{
	unsigned char byte;
	struct world w;

	plain_install();
	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	put(w.view + 2 * PAGE - 1, 'l');
	check_outside(&w, w.view + 2 * PAGE);
	check_outside(&w, w.view + 2 * PAGE + 5);
	check_outside(&w, w.view + 4 * PAGE - 1);
	CHECK_EQ(mkw_pread(w.handle, &byte, 1, 2 * PAGE), 0);
	CHECK_EQ(mkw_pread(w.handle, &byte, 1, 2 * PAGE - 1), 1);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 2), 0);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 2), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_5_last_page_is_inside, "5.5 the last, partial page is inside, all of it")
{
	unsigned char model[2 * PAGE] = {0};
	unsigned char buffer[64];
	struct world w;

	plain_install();
	world_make(&w, PAGE + 1);
	script_put_pattern(w.store, 0, 2, 1);
	script_get(w.store, 0, model, 2 * PAGE);
	world_open(&w, 3 * PAGE);
	CHECK_EQ(get(w.view + PAGE), script_pattern(PAGE, 1));
	CHECK_EQ(get(w.view + PAGE + 1), 0);
	put(w.view + PAGE, 'e');
	put(w.view + 2 * PAGE - 1, 'g');
	model[PAGE] = 'e';
	CHECK_EQ(get(w.view + 2 * PAGE - 1), 'g');
	check_outside(&w, w.view + 2 * PAGE);
	CHECK_EQ(mkw_pread(w.handle, buffer, sizeof(buffer), PAGE), 1);
	/* What lies behind the end does not reach the store. */
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 2 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_5_empty_object, "5.5 an object of size 0 has no inside")
{
	unsigned char byte;
	struct world w;

	plain_install();
	world_make(&w, 0);
	world_open(&w, PAGE);
	check_outside(&w, w.view);
	CHECK_EQ(mkw_pread(w.handle, &byte, 1, 0), 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_5_runs_end_at_size,
		  "5.5 runs of reading ahead and writing around end with the object")
{
	struct world w;

	/* The store counts a fill past the end, or a wrong length, as a violation. */
	world_make(&w, 37 * PAGE + 11);
	script_put_pattern(w.store, 0, 38, 1);
	world_open(&w, 64 * PAGE);
	CHECK_EQ(mkw_advise(w.view, 64 * PAGE, MKW_SEQUENTIAL), 0);
	for (unsigned i = 0; i < 37; i++) {
		CHECK_EQ(get(w.view + i * PAGE + 3), script_pattern(i * PAGE + 3, 1));
		put(w.view + i * PAGE, (unsigned char)i);
	}
	put(w.view + 37 * PAGE, 'l');
	CHECK_EQ(try_write(w.view + 38 * PAGE, 'x', NULL), -ENXIO);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 38), 0);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 38), 0);
	check_store(&w, 37 * PAGE, "l", 1);
	world_end(&w);
}
