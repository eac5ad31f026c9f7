/* SPDX-License-Identifier: MIT */
/*
 * reshape.c - views changed while they are in use: mkw_protect, mkw_unmap of parts, mkw_remap,
 * mkw_remap_pages (contract 2.9, 7.3, 7.4, 7.5, S0.3, S3.3).
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES 16u

/* A world of patterned pages, all of them cached and mapped, none of them dirty. */
static void world_clean(struct world *w, uint64_t pages)
{
	plain_install();
	world_make(w, pages * PAGE);
	script_put_pattern(w->store, 0, pages, 1);
	world_open(w, pages * PAGE);
	for (uint64_t page = 0; page < pages; page++)
		CHECK_EQ(get(w->view + page * PAGE), script_pattern(page * PAGE, 1));
}

static uint64_t questions(struct world *w)
{
	return script_calls(w->store, SCRIPT_MKWRITE);
}

static void check_segv(unsigned char *address)
{
	unsigned char value;

	CHECK_EQ(plain_write(address, 'x', NULL), SIGSEGV);
	CHECK_EQ(plain_read(address, &value, NULL), SIGSEGV);
}

/* ---- mkw_protect -------------------------------------------------------------------------- */

TEST_EACH_BACKEND(protect_asks_once,
		  "2.9 S3.3 a clean page made read-only and writable again is asked for at its next "
		  "write, once")
{
	struct world w;

	world_clean(&w, PAGES);
	for (unsigned round = 1; round <= 3; round++) {
		CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_READ), 0);
		CHECK_EQ(plain_write(w.view + 3 * PAGE, 'x', NULL), SIGSEGV);
		CHECK_EQ(get(w.view + 3 * PAGE), round == 1 ? script_pattern(3 * PAGE, 1) : 'a');
		CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_WRITE), 0);
		CHECK_EQ(questions(&w), round - 1);
		put(w.view + 3 * PAGE, 'a');
		put(w.view + 3 * PAGE + 1, 'b');
		CHECK_EQ(questions(&w), round);
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		check_store(&w, 3 * PAGE, "ab", 2);
	}
	world_end(&w);
}

TEST_EACH_BACKEND(protect_cleaned_while_read_only,
		  "2.9 a page that was dirty when it became read-only, and was cleaned since, is asked "
		  "for again")
{
	struct world w;

	world_clean(&w, PAGES);
	put(w.view + PAGE, 'a');
	CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_WRITE), 0);
	put(w.view + PAGE, 'b');
	CHECK_EQ(questions(&w), 2);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "b", 1);
	world_end(&w);
}

TEST_EACH_BACKEND(protect_dirty_stays,
		  "2.9 a dirty page made read-only and writable again is not asked for, and not lost")
{
	struct world w;

	world_clean(&w, PAGES);
	put(w.view + 5 * PAGE, 'a');
	CHECK_EQ(mkw_protect(w.view + 5 * PAGE, PAGE, MKW_READ), 0);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_EQ(plain_write(w.view + 5 * PAGE, 'x', NULL), SIGSEGV);
	CHECK_EQ(mkw_protect(w.view + 5 * PAGE, PAGE, MKW_WRITE), 0);
	put(w.view + 5 * PAGE + 1, 'b');
	CHECK_EQ(questions(&w), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 5 * PAGE, "ab", 2);
	world_end(&w);
}

TEST_EACH_BACKEND(protect_parts, "2.9 each page has the protection that it was given last")
{
	unsigned char value;
	struct world w;

	world_clean(&w, PAGES);
	CHECK_EQ(mkw_protect(w.view + 2 * PAGE, 8 * PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_protect(w.view + 4 * PAGE, 2 * PAGE, 0), 0);
	for (unsigned page = 0; page < PAGES; page++) {
		unsigned char *at = w.view + page * PAGE;
		bool none = page == 4 || page == 5, may_write = page < 2 || page >= 10;

		CHECK_EQ(plain_read(at, &value, NULL), none ? SIGSEGV : 0);
		CHECK_EQ(plain_write(at, (unsigned char)page, NULL), may_write ? 0 : SIGSEGV);
	}
	/* Over all of it, whatever it is cut into. */
	CHECK_EQ(mkw_msync(w.view, PAGES * PAGE), 0);
	CHECK_EQ(mkw_advise(w.view, PAGES * PAGE, MKW_DONTNEED), 0);
	CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_WRITE), 0);
	CHECK_EQ(questions(&w), 8);
	for (unsigned page = 0; page < PAGES; page++)
		put(w.view + page * PAGE, 'z');
	CHECK_EQ(questions(&w), 8 + PAGES);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned page = 0; page < PAGES; page++)
		check_store(&w, page * PAGE, "z", 1);
	world_end(&w);
}

TEST_EACH_BACKEND(protect_read_only_handle,
		  "2.9 a view of a read-only handle does not become writable, one mapped for reading "
		  "with another handle does")
{
	unsigned char *reader;
	struct world w;

	world_make(&w, PAGES * PAGE);
	w.open_flags = MKW_RDONLY;
	world_open(&w, 0);
	reader = world_map(&w, 0, PAGES, MKW_READ);
	CHECK_EQ(mkw_protect(reader, PAGES * PAGE, MKW_WRITE), -EACCES);
	CHECK(mkw_error_message()[0] != '\0');
	CHECK_EQ(mkw_protect(reader, PAGES * PAGE, 0), 0);
	CHECK_EQ(mkw_protect(reader, PAGES * PAGE, MKW_READ), 0);
	CHECK_EQ(get(reader), 0);
	CHECK_EQ(mkw_unmap(reader, PAGES * PAGE), 0);
	world_end(&w);

	world_clean(&w, PAGES);
	reader = world_map(&w, 0, PAGES, MKW_READ);
	CHECK_EQ(get(reader), script_pattern(0, 1));
	CHECK_EQ(mkw_protect(reader, PAGES * PAGE, MKW_WRITE), 0);
	CHECK_EQ(questions(&w), 0);
	put(reader, 'r');
	CHECK_EQ(questions(&w), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "r", 1);
	CHECK_EQ(mkw_unmap(reader, PAGES * PAGE), 0);
	world_end(&w);
}

/* ---- mkw_unmap of parts ------------------------------------------------------------------- */

TEST_EACH_BACKEND(unmap_middle, "7.4 the middle of a view is unmapped: what was written there stays "
				"dirty, the rest goes on")
{
	unsigned char *again;
	struct world w;

	world_clean(&w, PAGES);
	for (unsigned page = 0; page < PAGES; page++)
		put(w.view + page * PAGE, (unsigned char)(page + 1));
	CHECK_EQ(mkw_unmap(w.view + 4 * PAGE, 4 * PAGE), 0);
	CHECK_EQ(world_dirty_bytes(&w), PAGES * PAGE);
	check_segv(w.view + 4 * PAGE);
	check_segv(w.view + 7 * PAGE);
	CHECK_EQ(get(w.view + 3 * PAGE), 4);
	CHECK_EQ(get(w.view + 8 * PAGE), 9);
	CHECK_EQ(mkw_msync(w.view, PAGES * PAGE), -ENOMEM);
	CHECK_EQ(world_dirty_bytes(&w), 4 * PAGE);
	put(w.view + 3 * PAGE, 40);
	put(w.view + 8 * PAGE, 90);
	CHECK_EQ(questions(&w), PAGES + 2);
	again = world_map(&w, 4, 4, MKW_READ);
	CHECK_EQ(get(again), 5);
	CHECK_EQ(mkw_unmap(again, 4 * PAGE), 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned page = 0; page < PAGES; page++)
		check_store(&w, page * PAGE,
			    &(unsigned char){(unsigned char)(page == 3	 ? 40
							     : page == 8 ? 90
									 : page + 1)},
			    1);
	/* The pieces, and the gap between them. */
	CHECK_EQ(mkw_unmap(w.view, PAGES * PAGE), 0);
	check_segv(w.view);
	check_segv(w.view + 15 * PAGE);
	CHECK_EQ(mkw_unmap(w.view, PAGES * PAGE), -EINVAL);
	w.view = NULL;
	world_end(&w);
}

TEST_EACH_BACKEND(unmap_last_piece, "7.4 an object without handles lives as long as a piece of its "
				    "view does, and is written at its end")
{
	struct world w;

	world_clean(&w, PAGES);
	CHECK_EQ(mkw_close(w.handle), 0);
	w.handle = NULL;
	put(w.view, 'a');
	put(w.view + 15 * PAGE, 'b');
	CHECK_EQ(mkw_unmap(w.view, PAGE), 0);
	CHECK_EQ(mkw_unmap(w.view + 2 * PAGE, PAGE), 0);
	CHECK_EQ(mkw_unmap(w.view + 3 * PAGE, 13 * PAGE), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_RELEASE), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_UNMAP), 0);
	put(w.view + PAGE, 'c');
	CHECK_EQ(mkw_unmap(w.view + PAGE, PAGE), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_UNMAP), 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_MAP), 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_RELEASE), 1);
	check_store(&w, 0, "a", 1);
	check_store(&w, PAGE, "c", 1);
	check_store(&w, 15 * PAGE, "b", 1);
	w.view = NULL;
	world_end(&w);
}
