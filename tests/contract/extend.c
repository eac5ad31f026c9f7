/* SPDX-License-Identifier: MIT */
/*
 * extend.c - contract 5.4 and growth in place: making an object larger under its views.
 */
#include "harness/world.h"

#include <string.h>

/* An object that ends 100 bytes into page 1, under a view that reaches further. */
static void extend_open(struct world *w)
{
	world_make(w, PAGE + 100);
	script_put_pattern(w->store, 0, 2, 1);
	world_open(w, 6 * PAGE);
}

/* ---- 5.4: the page that straddles the old end --------------------------------------------------
 */

TEST_EACH_BACKEND(r5_4_tail_zero_dirty,
		  "5.4 what was written past the end reads as zero after growth; the rest stays")
{
	unsigned char model[3 * PAGE] = {0};
	struct world w;

	extend_open(&w);
	script_get(w.store, 0, model, PAGE + 100);
	put(w.view + PAGE + 99, 'i');
	put(w.view + PAGE + 100, 'o');
	put(w.view + 2 * PAGE - 1, 'o');
	model[PAGE + 99] = 'i';
	CHECK_EQ(mkw_truncate(w.handle, 3 * PAGE), 0);
	check_view(w.view, model, 3 * PAGE);
	/* It was dirty and still is. */
	CHECK_EQ(world_dirty_bytes(&w) >= PAGE, true);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 3 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_4_tail_zero_clean,
		  "5.4 the same of a page that was cleaned since: the cache still held it")
{
	unsigned char model[3 * PAGE] = {0};
	struct world w;

	extend_open(&w);
	script_get(w.store, 0, model, PAGE + 100);
	put(w.view + PAGE + 500, 'o');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(mkw_truncate(w.handle, 3 * PAGE), 0);
	check_view(w.view, model, 3 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 3 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_4_asked_again,
		  "5.4 the first store past the old end is asked for again, in every view")
{
	unsigned char *second;
	struct world w;

	extend_open(&w);
	second = world_map(&w, 1, 2, MKW_READ | MKW_WRITE);
	put(w.view + PAGE, 'x');
	put(second + 1, 'y');
	CHECK_EQ(mkw_truncate(w.handle, 3 * PAGE), 0);
	script_log_clear(w.store);
	put(second + 101, 'z');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 1);
	put(w.view + PAGE + 102, 'z');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "xy", 2);
	check_store(&w, PAGE + 101, "zz", 2);
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_4_protected_before_usable,
		  "5.4 the page is protected and zeroed before the new size can be used")
{
	unsigned char model[PAGE] = {0};
	struct api_call extend;
	struct access writer;
	struct world w;

	extend_open(&w);
	script_get(w.store, PAGE, model, 100);
	put(w.view + PAGE + 200, 'o');
	test_gate_arm(w.store, SCRIPT_TRUNCATE, SCRIPT_EXIT, SCRIPT_ANY);
	api_start(&extend, &w, api_truncate, 3 * PAGE, 0);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_TRUNCATE, SCRIPT_EXIT, 1));
	CHECK_EQ(mkw_size(w.handle), PAGE + 100);
	access_write(&writer, w.view + PAGE + 300, 'n');
	test_gate_release(w.store, SCRIPT_TRUNCATE, SCRIPT_EXIT);
	CHECK_EQ(api_join(&extend), 0);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(get(w.view + PAGE + 200), 0);
	/* That write came before the end moved, or after: it is there whole or not at all, and the
	 * store gets what the view shows. */
	model[300] = get(w.view + PAGE + 300);
	CHECK(model[300] == 0 || model[300] == 'n');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, model, PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_4_pwrite_extends,
		  "5.4 mkw_pwrite past the end: the gap, and the old tail, are zeros")
{
	unsigned char model[4 * PAGE] = {0};
	struct world w;

	extend_open(&w);
	script_get(w.store, 0, model, PAGE + 100);
	put(w.view + PAGE + 150, 'o');
	CHECK_EQ(mkw_pwrite(w.handle, "end", 3, 3 * PAGE + 10), 3);
	memcpy(model + 3 * PAGE + 10, "end", 3);
	CHECK_EQ(mkw_size(w.handle), 3 * PAGE + 13);
	check_view(w.view, model, 4 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_size_bytes(w.store), 3 * PAGE + 13);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_4_aligned_end, "5.4 an end between pages: nothing straddles, nothing is lost")
{
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 4 * PAGE);
	put(w.view + 2 * PAGE - 1, 'x');
	CHECK_EQ(mkw_truncate(w.handle, 4 * PAGE), 0);
	CHECK_EQ(get(w.view + 2 * PAGE - 1), 'x');
	CHECK_EQ(get(w.view + 2 * PAGE), 0);
	put(w.view + 2 * PAGE, 'y');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 2 * PAGE - 1, "xy", 2);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_4_extend_under_writers,
		  "5.4 I1 grown in small steps under a writer: nothing inside is lost")
{
	enum { STEPS = 60 };
	unsigned char model[2 * PAGE] = {0};
	struct world w;

	world_make(&w, 1);
	world_open(&w, 4 * PAGE);
	for (unsigned i = 0; i < STEPS; i++) {
		uint64_t size = 1 + i * 100;
		struct access writer;

		put(w.view + size - 1, (unsigned char)(i + 1));
		model[size - 1] = (unsigned char)(i + 1);
		access_write(&writer, w.view + size + 3, 'g'); /* past the end, may be zeroed */
		CHECK_EQ(mkw_truncate(w.handle, size + 100), 0);
		CHECK(access_join(&writer) == 0 ||
		      (writer.error == -ENXIO && (size + 3) / PAGE > (size - 1) / PAGE));
		put(w.view + size + 3, 0);
		if (i % 7 == 0)
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	}
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_view(w.view, model, STEPS * 100);
	check_store(&w, 0, model, STEPS * 100);
	world_end(&w);
}

/* ---- Growth in place ---------------------------------------------------------------------------
 */

TEST_EACH_BACKEND(growth_in_place,
		  "5.5 a view larger than its object: refused until it grows, then served")
{
	unsigned char value;
	struct world w;

	extend_open(&w);
	for (unsigned i = 2; i < 6; i++) {
		CHECK_EQ(try_read(w.view + i * PAGE, &value, NULL), -ENXIO);
		CHECK_EQ(try_write(w.view + i * PAGE, 'x', NULL), -ENXIO);
	}
	CHECK_EQ(mkw_truncate(w.handle, 4 * PAGE), 0);
	for (unsigned i = 2; i < 4; i++) {
		CHECK_EQ(get(w.view + i * PAGE + 1), 0);
		put(w.view + i * PAGE, 'x');
		CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, i), 1);
	}
	CHECK_EQ(try_read(w.view + 4 * PAGE, &value, NULL), -ENXIO);
	CHECK_EQ(mkw_pwrite(w.handle, "y", 1, 5 * PAGE), 1);
	CHECK_EQ(get(w.view + 5 * PAGE), 'y');
	CHECK_EQ(get(w.view + 4 * PAGE), 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 2 * PAGE, "x", 1);
	check_store(&w, 5 * PAGE, "y", 1);
	world_end(&w);
}

TEST_EACH_BACKEND(growth_and_shrinking,
		  "5.1 5.5 an object that breathes: old bytes never come back")
{
	unsigned char model[6 * PAGE] = {0};
	struct world w;

	extend_open(&w);
	script_get(w.store, 0, model, PAGE + 100);
	for (unsigned round = 0; round < 20; round++) {
		CHECK_EQ(mkw_truncate(w.handle, 6 * PAGE), 0);
		check_view(w.view, model, 6 * PAGE);
		for (unsigned i = 1; i < 6; i++)
			put(w.view + i * PAGE + round, (unsigned char)(i + round));
		if (round % 2)
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		CHECK_EQ(mkw_truncate(w.handle, PAGE), 0);
		memset(model + PAGE, 0, 5 * PAGE);
		CHECK_EQ(script_reserved(w.store), 0);
	}
	world_end(&w);
}

TEST(extend_refused, "5.4 what cannot grow: read only, of fixed size, beyond what the store takes")
{
	struct mkw_handle *readonly;
	unsigned char value;
	struct world w;

	extend_open(&w);
	script_fail(w.store, SCRIPT_TRUNCATE, 1, 1, -ENOSPC);
	CHECK_EQ(mkw_truncate(w.handle, 6 * PAGE), -ENOSPC);
	CHECK_EQ(mkw_size(w.handle), PAGE + 100);
	CHECK_EQ(try_read(w.view + 2 * PAGE, &value, NULL), -ENXIO);
	script_fail(w.store, SCRIPT_TRUNCATE, 1, 1, -ENOSPC);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, 6 * PAGE), -ENOSPC);
	CHECK_EQ(mkw_size(w.handle), PAGE + 100);
	CHECK_EQ(mkw_truncate(w.handle, (SCRIPT_MAX_PAGES + 1) * PAGE), -EFBIG);
	CHECK_EQ(mkw_size(w.handle), PAGE + 100);
	put(w.view + PAGE + 99, 'x');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	world_end(&w);

	world_make(&w, PAGE);
	script_ops(w.store)->flags = MKW_STORE_FIXED_SIZE;
	world_open(&w, PAGE);
	CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE), -EINVAL);
	CHECK_EQ(mkw_truncate(w.handle, 0), -EINVAL);
	CHECK_EQ(mkw_size(w.handle), PAGE);
	CHECK_EQ(script_calls(w.store, SCRIPT_TRUNCATE), 0);
	world_end(&w);

	world_make(&w, PAGE);
	REQUIRE_EQ(script_open(w.store, w.space, MKW_RDONLY, &readonly), 0);
	CHECK_EQ(mkw_truncate(readonly, 2 * PAGE), -EBADF);
	CHECK_EQ(mkw_pwrite(readonly, "x", 1, 0), -EBADF);
	CHECK_EQ(mkw_punch(readonly, 0, PAGE), -EBADF);
	CHECK_EQ(script_calls(w.store, SCRIPT_TRUNCATE), 0);
	CHECK_EQ(mkw_close(readonly), 0);
	world_end(&w);
}
