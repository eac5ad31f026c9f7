/* SPDX-License-Identifier: MIT */
/*
 * reshape.c - views changed while they are in use: mkw_protect, mkw_unmap of parts, mkw_remap,
 * mkw_remap_pages (contract 2.9, 7.3, 7.4, 7.5, S0.3, S3.3).
 */
#include "harness/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 16u

/* A world of patterned pages, all of them cached and mapped, none of them dirty. */
static void world_clean(struct world *w, uint64_t pages)
{
	static bool installed;

	if (!installed)
		plain_install();
	installed = true;
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

/* Nothing is there. A sanitizer may have taken the place for memory of its own. */
static void check_segv(unsigned char *address)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	unsigned char value;

	CHECK_EQ(plain_write(address, 'x', NULL), SIGSEGV);
	CHECK_EQ(plain_read(address, &value, NULL), SIGSEGV);
#else
	(void)address;
#endif
}

/* ---- mkw_protect -------------------------------------------------------------------------- */

TEST_EACH_BACKEND(
	protect_asks_once,
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

TEST_EACH_BACKEND(
	protect_cleaned_while_read_only,
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

TEST_EACH_BACKEND(
	protect_dirty_stays,
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
		  "2.9 a view of a read-only handle does not become writable")
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
}

TEST_EACH_BACKEND(protect_reader_writes,
		  "2.9 a view mapped for reading becomes writable: its first write is asked for")
{
	unsigned char *reader;
	struct world w;

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

TEST_EACH_BACKEND(unmap_middle,
		  "7.4 the middle of a view is unmapped: what was written there stays "
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

/* ---- mkw_remap ---------------------------------------------------------------------------- */

/* Page 1 dirty, page 2 clean and mapped: what was moved is asked for by its own state, at the new
 * place. */
static void check_moved(struct world *w, unsigned char *old, unsigned char *view)
{
	uint64_t asked = questions(w);

	if (view != old)
		check_segv(old);
	CHECK_EQ(get(view + PAGE), 'd');
	CHECK_EQ(get(view + 2 * PAGE), script_pattern(2 * PAGE, 1));
	CHECK_EQ(questions(w), asked);
	put(view + PAGE + 1, 'e');
	CHECK_EQ(questions(w), asked);
	put(view + 2 * PAGE, 'f');
	CHECK_EQ(questions(w), asked + 1);
	put(view + 2 * PAGE + 1, 'g');
	CHECK_EQ(questions(w), asked + 1);
	CHECK_EQ(mkw_sync(w->handle, 0, 0), 0);
	check_store(w, PAGE, "de", 2);
	check_store(w, 2 * PAGE, "fg", 2);
}

/* A page right behind the view that is the program's own. */
static void *wall_behind(const unsigned char *end)
{
	void *wall = mmap((void *)end, PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	CHECK(wall == MAP_FAILED || wall == (void *)end);
	return wall;
}

TEST_EACH_BACKEND(remap_moves,
		  "7.5 a view that moves keeps the states of its pages: the next write "
		  "to a clean page is asked for, to a dirty one it is not")
{
	unsigned char *old;
	void *moved, *wall;
	struct world w;

	world_clean(&w, PAGES);
	CHECK_EQ(mkw_unmap(w.view + 8 * PAGE, 8 * PAGE), 0);
	wall = wall_behind(w.view + 8 * PAGE);
	old = w.view;
	put(old + PAGE, 'd');
	CHECK_EQ(mkw_remap(old, 8 * PAGE, PAGES * PAGE, 0, &moved), -ENOMEM);
	CHECK_EQ(get(old + PAGE), 'd');
	REQUIRE_EQ(mkw_remap(old, 8 * PAGE, PAGES * PAGE, MKW_MAYMOVE, &moved), 0);
	CHECK(moved != old);
	w.view = moved;
	check_moved(&w, old, w.view);
	CHECK_EQ(get(w.view + 15 * PAGE), script_pattern(15 * PAGE, 1));
	put(w.view + 15 * PAGE, 'h');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 15 * PAGE, "h", 1);
	if (wall != MAP_FAILED)
		munmap(wall, PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(remap_absent_pages,
		  "7.5 2.2 the next write at the new place to a page that another "
		  "view has brought in since is asked for")
{
	unsigned char *other;
	void *moved, *wall;
	struct world w;

	world_make(&w, PAGES * PAGE);
	script_put_pattern(w.store, 0, PAGES, 1);
	world_open(&w, PAGES * PAGE);
	other = world_map(&w, 0, PAGES, MKW_READ);
	CHECK_EQ(get(w.view), script_pattern(0, 1));
	CHECK_EQ(mkw_unmap(w.view + 8 * PAGE, 8 * PAGE), 0);
	wall = wall_behind(w.view + 8 * PAGE);
	REQUIRE_EQ(mkw_remap(w.view, 8 * PAGE, PAGES * PAGE, MKW_MAYMOVE, &moved), 0);
	w.view = moved;
	for (unsigned page = 1; page < PAGES; page++) {
		CHECK_EQ(get(other + page * PAGE), script_pattern(page * PAGE, 1));
		put(w.view + page * PAGE, 'a');
		CHECK_EQ(questions(&w), page);
	}
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned page = 1; page < PAGES; page++)
		check_store(&w, page * PAGE, "a", 1);
	if (wall != MAP_FAILED)
		munmap(wall, PAGE);
	CHECK_EQ(mkw_unmap(other, PAGES * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(remap_grows_in_place,
		  "7.5 a view grows by further pages of the object, where it is, and shrinks")
{
	void *grown = NULL;
	struct world w;

	world_clean(&w, PAGES);
	CHECK_EQ(mkw_remap(w.view, PAGES * PAGE, 4 * PAGE, 0, &grown), 0);
	CHECK(grown == w.view);
	check_segv(w.view + 4 * PAGE);
	put(w.view + PAGE, 'd');
	REQUIRE_EQ(mkw_remap(w.view, 4 * PAGE, PAGES * PAGE, 0, &grown), 0);
	CHECK(grown == w.view);
	check_moved(&w, w.view, w.view);
	CHECK_EQ(get(w.view + 9 * PAGE), script_pattern(9 * PAGE, 1));
	put(w.view + 9 * PAGE, 'i');
	CHECK_EQ(mkw_remap(w.view, PAGES * PAGE, PAGES * PAGE, 0, &grown), 0);
	CHECK(grown == w.view);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 9 * PAGE, "i", 1);
	CHECK_EQ(mkw_unmap(w.view, PAGES * PAGE), 0);
	w.view = NULL;
	world_end(&w);
}

TEST_EACH_BACKEND(remap_pieces, "7.5 a range of several protections moves as it is")
{
	void *moved, *wall;
	struct world w;

	world_clean(&w, PAGES);
	CHECK_EQ(mkw_unmap(w.view + 8 * PAGE, 8 * PAGE), 0);
	wall = wall_behind(w.view + 8 * PAGE);
	CHECK_EQ(mkw_protect(w.view + 3 * PAGE, PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_protect(w.view + 5 * PAGE, PAGE, 0), 0);
	put(w.view + PAGE, 'd');
	REQUIRE_EQ(mkw_remap(w.view, 8 * PAGE, 10 * PAGE, MKW_MAYMOVE, &moved), 0);
	check_moved(&w, w.view, moved);
	w.view = moved;
	CHECK_EQ(get(w.view + 3 * PAGE), script_pattern(3 * PAGE, 1));
	CHECK_EQ(plain_write(w.view + 3 * PAGE, 'x', NULL), SIGSEGV);
	check_segv(w.view + 5 * PAGE);
	put(w.view + 9 * PAGE, 'i');
	CHECK_EQ(mkw_unmap(w.view, 10 * PAGE), 0);
	w.view = NULL;
	if (wall != MAP_FAILED)
		munmap(wall, PAGE);
	world_end(&w);
}

/* A view that moves to and fro. */
struct mover {
	struct test_thread thread;
	struct world *w;
	_Atomic(unsigned char *) view;
	_Atomic bool stop;
	uint64_t moves;
};

static void *syncs_main(void *arg)
{
	struct mover *m = arg;

	while (!atomic_load(&m->stop))
		CHECK_EQ(mkw_sync(m->w->handle, 0, 0), 0);
	return NULL;
}

TEST_EACH_BACKEND(
	remap_under_writeback,
	"7.5 moved while write-back goes on all the time: what is written at the new place "
	"reaches the store")
{
	uint64_t state = 7;
	unsigned char model[8] = {0};
	struct mover m = {.stop = false};
	struct world w;

	world_clean(&w, PAGES);
	m.w = &w;
	CHECK_EQ(mkw_unmap(w.view + 8 * PAGE, 8 * PAGE), 0);
	test_thread_start(&m.thread, syncs_main, &m);
	for (unsigned round = 1; round <= test_rounds(100); round++) {
		uint64_t page = rig_random(&state) % 8;
		void *wall = wall_behind(w.view + 8 * PAGE), *moved;

		model[page] = (unsigned char)round;
		put(w.view + page * PAGE, model[page]);
		REQUIRE_EQ(mkw_remap(w.view, 8 * PAGE, 9 * PAGE, MKW_MAYMOVE, &moved), 0);
		if (wall != MAP_FAILED)
			munmap(wall, PAGE);
		w.view = moved;
		page = rig_random(&state) % 8;
		model[page] = (unsigned char)(round + 1);
		put(w.view + page * PAGE, model[page]);
		REQUIRE_EQ(mkw_remap(w.view, 9 * PAGE, 8 * PAGE, 0, &moved), 0);
	}
	atomic_store(&m.stop, true);
	test_thread_join(&m.thread);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	for (unsigned page = 0; page < 8; page++)
		if (model[page] != 0)
			check_store(&w, page * PAGE, &model[page], 1);
	CHECK_EQ(mkw_unmap(w.view, 8 * PAGE), 0);
	w.view = NULL;
	world_end(&w);
}

/* ---- mkw_remap_pages ---------------------------------------------------------------------- */

TEST_EACH_BACKEND(
	nonlinear_reverse,
	"7.3 a thousand pages in reverse order: each fault finds its page, what is dirty is "
	"counted once and written where it belongs, truncation finds them all")
{
	enum { COUNT = 1000 };
	unsigned char value;
	struct world w;

	world_clean(&w, COUNT);
	for (unsigned page = 0; page < COUNT; page += 3)
		put(w.view + page * PAGE, 'b');
	for (unsigned page = 0; page < COUNT; page++)
		REQUIRE_EQ(mkw_remap_pages(w.view + page * PAGE, PAGE, (COUNT - 1 - page) * PAGE),
			   0);
	script_log_clear(w.store);
	for (unsigned page = 0; page < COUNT; page++) {
		unsigned shown = COUNT - 1 - page;

		CHECK_EQ(get(w.view + page * PAGE),
			 shown % 3 == 0 ? 'b' : script_pattern(shown * PAGE, 1));
		put(w.view + page * PAGE + 1, (unsigned char)(shown % 251));
	}
	CHECK_EQ(questions(&w), COUNT - (COUNT + 2) / 3);
	CHECK_EQ(world_dirty_bytes(&w), COUNT * PAGE);
	CHECK_EQ(mkw_msync(w.view, COUNT * PAGE), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	for (unsigned page = 0; page < COUNT; page++)
		check_store(&w, page * PAGE + 1, &(unsigned char){(unsigned char)(page % 251)}, 1);
	/* Clean in every piece: one question for each. */
	script_log_clear(w.store);
	for (unsigned page = 0; page < COUNT; page += 10)
		put(w.view + page * PAGE, 'c');
	CHECK_EQ(questions(&w), COUNT / 10);
	CHECK_EQ(mkw_truncate(w.handle, COUNT / 2 * PAGE), 0);
	for (unsigned page = 0; page < COUNT; page++)
		CHECK_EQ(try_read(w.view + page * PAGE, &value, NULL),
			 page < COUNT / 2 ? -ENXIO : 0);
	CHECK_EQ(mkw_protect(w.view, COUNT * PAGE, MKW_READ), 0);
	CHECK_EQ(plain_write(w.view + 900 * PAGE, 'x', NULL), SIGSEGV);
	CHECK_EQ(mkw_protect(w.view, COUNT * PAGE, MKW_WRITE), 0);
	CHECK_EQ(mkw_unmap(w.view, COUNT * PAGE), 0);
	CHECK_EQ(mkw_unmap(w.view, COUNT * PAGE), -EINVAL);
	w.view = NULL;
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(nonlinear_twice, "7.3 one page shown at several addresses is one page: asked for "
				   "once, and protected everywhere when it is cleaned")
{
	struct world w;

	world_clean(&w, PAGES);
	for (unsigned page = 0; page < PAGES; page++)
		REQUIRE_EQ(mkw_remap_pages(w.view + page * PAGE, PAGE, 3 * PAGE), 0);
	for (unsigned page = 0; page < PAGES; page++)
		put(w.view + page * PAGE + page, 'm');
	CHECK_EQ(questions(&w), 1);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 3 * PAGE, "mmmmmmmmmmmmmmmm", PAGES);
	for (unsigned page = 0; page < PAGES; page++) {
		put(w.view + page * PAGE + page, 'n');
		CHECK_EQ(questions(&w), page + 2);
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	}
	check_store(&w, 3 * PAGE, "nnnnnnnnnnnnnnnn", PAGES);
	/* In order again: one view, as before. */
	CHECK_EQ(mkw_remap_pages(w.view, PAGES * PAGE, 0), 0);
	CHECK_EQ(get(w.view + 4 * PAGE), script_pattern(4 * PAGE, 1));
	CHECK_EQ(get(w.view + 3 * PAGE + 15), 'n');
	world_end(&w);
}

TEST_EACH_BACKEND(nonlinear_absent,
		  "7.3 2.2 a page that was absent when it came to its place, and was "
		  "brought in by another view since, is asked for")
{
	unsigned char *other;
	struct world w;

	world_make(&w, PAGES * PAGE);
	script_put_pattern(w.store, 0, PAGES, 1);
	world_open(&w, PAGES * PAGE);
	other = world_map(&w, 0, PAGES, MKW_READ);
	CHECK_EQ(get(w.view), script_pattern(0, 1));
	for (unsigned page = 1; page < PAGES; page++)
		REQUIRE_EQ(mkw_remap_pages(w.view + page * PAGE, PAGE, (PAGES - page) * PAGE), 0);
	for (unsigned page = 1; page < PAGES; page++) {
		unsigned shown = PAGES - page;

		CHECK_EQ(get(other + shown * PAGE), script_pattern(shown * PAGE, 1));
		put(w.view + page * PAGE, 'a');
		CHECK_EQ(questions(&w), page);
	}
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned page = 1; page < PAGES; page++)
		check_store(&w, page * PAGE, "a", 1);
	CHECK_EQ(mkw_unmap(other, PAGES * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(nonlinear_two_objects, "7.3 pages of a private view, or of two objects, are not "
					 "put in another order")
{
	struct mkw_handle *handle;
	void *address;
	struct world w;

	world_clean(&w, PAGES);
	REQUIRE_EQ(
		mkw_map(w.handle, 4 * PAGE, MKW_WRITE, test_map_flags() | MKW_PRIVATE, 0, &address),
		0);
	CHECK_EQ(mkw_remap_pages(address, PAGE, PAGE), -EINVAL);
	CHECK_EQ(get(address), script_pattern(0, 1));
	CHECK_EQ(mkw_unmap(address, 4 * PAGE), 0);
	REQUIRE_EQ(mkw_open(w.space, "mem:64K", MKW_RDWR, &handle), 0);
	CHECK_EQ(mkw_close(handle), 0);
	world_end(&w);
}

/* ---- Against what is under way ------------------------------------------------------------ */

struct reshape_call {
	struct test_thread thread;
	unsigned char *address;
	int kind, result;
	void *moved;
};

static void *reshape_main(void *arg)
{
	struct reshape_call *c = arg;

	if (c->kind == 0)
		c->result = mkw_protect(c->address, 4 * PAGE, MKW_READ);
	else if (c->kind == 1)
		c->result = mkw_remap(c->address, 8 * PAGE, 64 * PAGE, MKW_MAYMOVE, &c->moved);
	else if (c->kind == 2)
		c->result = mkw_remap_pages(c->address, PAGE, 5 * PAGE);
	else
		c->result = mkw_unmap(c->address + 4 * PAGE, PAGE);
	return NULL;
}

/* While the store is asked for page 0 the view is changed; in the end there is one answer, and the
 * writer has met what came of its address. */
static void check_changed_while_asked(enum script_point point, int kind)
{
	struct reshape_call call = {.kind = kind};
	struct access writer;
	unsigned char value;
	struct world w;
	void *wall;

	world_clean(&w, PAGES);
	CHECK_EQ(mkw_unmap(w.view + 8 * PAGE, 8 * PAGE), 0);
	wall = wall_behind(w.view + 8 * PAGE);
	call.address = w.view;
	test_gate_arm(w.store, SCRIPT_MKWRITE, point, 0);
	if (kind == 0 || kind == 1) /* it will be forbidden, or gone: to be kept apart */
		access_write(&writer, world_map(&w, 0, 1, MKW_WRITE), 'w');
	else
		access_write(&writer, w.view, 'w');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, point, 1));
	test_thread_start(&call.thread, reshape_main, &call);
	CHECK(kind < 2 || rig_check_stuck(&call.thread, __FILE__, __LINE__));
	test_gate_release(w.store, SCRIPT_MKWRITE, point);
	CHECK_EQ(access_join(&writer), 0);
	test_thread_join(&call.thread);
	CHECK_EQ(call.result, 0);
	if (kind == 0) {
		CHECK_EQ(plain_write(w.view, 'x', NULL), SIGSEGV);
		CHECK_EQ(mkw_protect(w.view, 4 * PAGE, MKW_WRITE), 0);
	} else if (kind == 1) {
		check_segv(w.view);
		CHECK_EQ(mkw_unmap(call.moved, 64 * PAGE), 0);
		w.view = world_map(&w, 0, 8, MKW_WRITE);
	} else if (kind == 2) {
		CHECK_EQ(plain_read(w.view, &value, NULL), 0);
		CHECK(value == 'w' || value == script_pattern(5 * PAGE, 1));
		CHECK_EQ(mkw_remap_pages(w.view, PAGE, 0), 0);
	} else {
		check_segv(w.view + 4 * PAGE);
	}
	if (kind < 2)
		CHECK_EQ(mkw_unmap(writer.address, PAGE), 0);
	put(w.view + 1, 'v');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(mkw_unmap(w.view, 8 * PAGE), 0);
	w.view = NULL;
	if (wall != MAP_FAILED)
		munmap(wall, PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(s0_3_changed_at_entry, "S0.3 a view is made read-only, moved, shows other pages, "
					 "is cut, while the store is asked")
{
	for (int kind = 0; kind < 4; kind++)
		check_changed_while_asked(SCRIPT_ENTRY, kind);
}

/* A thread that waits for an access in a view, to be let go into what has become of it. */
struct waiting {
	struct test_thread thread;
	unsigned char *address;
	int signo;
};

static void *waiting_main(void *arg)
{
	struct waiting *w = arg;

	w->signo = plain_write(w->address, 'w', NULL);
	return NULL;
}

TEST_EACH_BACKEND(
	s0_3_forbidden_while_parked,
	"S0.3 2.9 a writer is parked while another one's question is under way; its view is "
	"made read-only: it gets its SIGSEGV, and nothing is asked for it")
{
	struct waiting waiting;
	struct access asking;
	unsigned char *other;
	struct world w;

	world_clean(&w, PAGES);
	other = world_map(&w, 0, 1, MKW_WRITE);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 0);
	access_write(&asking, other, 'a');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	waiting.address = w.view + 1;
	test_thread_start(&waiting.thread, waiting_main, &waiting);
	test_wait_until(world_stat(&w).waits == 1);
	CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_READ), 0);
	test_thread_join(&waiting.thread);
	CHECK_EQ(waiting.signo, SIGSEGV);
	CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_WRITE), 0);
	test_thread_start(&waiting.thread, waiting_main, &waiting);
	test_wait_until(world_stat(&w).waits >= 2);
	CHECK_EQ(mkw_unmap(w.view, PAGE), 0);
	test_thread_join(&waiting.thread);
	CHECK_EQ(waiting.signo, SIGSEGV);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&asking), 0);
	CHECK_EQ(questions(&w), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, &(unsigned char[2]){'a', script_pattern(1, 1)}, 2);
	CHECK_EQ(mkw_unmap(other, PAGE), 0);
	CHECK_EQ(mkw_unmap(w.view, PAGES * PAGE), 0);
	w.view = NULL;
	world_end(&w);
}

static void *willneed_main(void *arg)
{
	struct reshape_call *c = arg;

	c->result = mkw_advise(c->address, PAGES * PAGE, MKW_WILLNEED);
	return NULL;
}

static void *msync_main(void *arg)
{
	struct reshape_call *c = arg;

	c->result = mkw_msync(c->address, PAGES * PAGE);
	return NULL;
}

TEST_EACH_BACKEND(
	calls_meet_a_change,
	"S0.3 calls that are at a view when it is split, and calls that come while it is, go "
	"on with its pieces")
{
	struct reshape_call willneed = {0}, protect = {.kind = 0}, msync = {0};
	struct world w;

	world_make(&w, PAGES * PAGE);
	script_put_pattern(w.store, 0, PAGES, 1);
	world_open(&w, PAGES * PAGE);
	put(w.view + 15 * PAGE, 'z');
	script_set_cut(w.store, SCRIPT_FAULT, 1);
	willneed.address = protect.address = msync.address = w.view;
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 5);
	test_thread_start(&willneed.thread, willneed_main, &willneed);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	test_thread_start(&protect.thread, reshape_main, &protect);
	CHECK_STUCK(&protect.thread);
	test_thread_start(&msync.thread, msync_main, &msync);
	CHECK_STUCK(&msync.thread);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	test_thread_join(&willneed.thread);
	test_thread_join(&protect.thread);
	test_thread_join(&msync.thread);
	CHECK_EQ(willneed.result, 0);
	CHECK_EQ(protect.result, 0);
	CHECK_EQ(msync.result, 0);
	check_store(&w, 15 * PAGE, "z", 1);
	CHECK_EQ(world_stat(&w).resident_bytes, PAGES * PAGE);
	world_end(&w);
}

/* ---- Private views ------------------------------------------------------------------------ */

static unsigned char *private_map(struct world *w, size_t pages)
{
	void *view;

	REQUIRE_EQ(mkw_map(w->handle, pages * PAGE, MKW_WRITE, MKW_PRIVATE | test_map_flags(), 0,
			   &view),
		   0);
	CHECK_EQ(mkw_advise(view, pages * PAGE, MKW_RANDOM), 0);
	return view;
}

TEST_EACH_BACKEND(private_protect, "S3.3 I6 a copy stays the view's across read-only and writable, "
				   "and no protection makes or drops one")
{
	unsigned char *view;
	uint64_t resident;
	struct world w;

	world_clean(&w, PAGES);
	view = private_map(&w, PAGES);
	put(view + 2 * PAGE, 'p');
	resident = world_stat(&w).resident_bytes;
	CHECK_EQ(mkw_protect(view + PAGE, 4 * PAGE, MKW_READ), 0);
	CHECK_EQ(plain_write(view + 2 * PAGE, 'x', NULL), SIGSEGV);
	CHECK_EQ(plain_write(view + 3 * PAGE, 'x', NULL), SIGSEGV);
	CHECK_EQ(get(view + 2 * PAGE), 'p');
	CHECK_EQ(mkw_protect(view, PAGES * PAGE, 0), 0);
	check_segv(view + 2 * PAGE);
	CHECK_EQ(mkw_protect(view, PAGES * PAGE, MKW_WRITE), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, resident);
	CHECK_EQ(get(view + 2 * PAGE), 'p');
	CHECK_EQ(get(view + 3 * PAGE), script_pattern(3 * PAGE, 1));
	put(view + 2 * PAGE + 1, 'q');
	put(view + 3 * PAGE, 'r');
	CHECK_EQ(get(view + 2 * PAGE), 'p');
	CHECK_EQ(get(w.view + 2 * PAGE), script_pattern(2 * PAGE, 1));
	CHECK_EQ(get(w.view + 3 * PAGE), script_pattern(3 * PAGE, 1));
	CHECK_EQ(questions(&w), 0);
	CHECK_EQ(mkw_unmap(view, PAGES * PAGE), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, PAGES * PAGE);
	world_end(&w);
}

/* The frame, as far as the process may know it, and whose it is. */
static uint64_t frame_of(const void *address)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	REQUIRE(fd >= 0);
	REQUIRE_EQ(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)address / PAGE * 8)), 8);
	close(fd);
	return entry & (((UINT64_C(1) << 55) - 1) | UINT64_C(5) << 61);
}

TEST_EACH_BACKEND(s3_3_pinned,
		  "S3.3 I6 a pinned private page made read-only, writable and moved keeps "
		  "its frame when it is written")
{
	unsigned char *view;
	struct mkw_pin *pin;
	uint64_t frame;
	void *moved;
	struct world w;

	world_clean(&w, PAGES);
	view = private_map(&w, PAGES);
	put(view + 2 * PAGE, 'p');
	REQUIRE_EQ(mkw_pin(view + 2 * PAGE, PAGE, MKW_WRITE, &pin), 0);
	frame = frame_of(view + 2 * PAGE);
	CHECK_EQ(mkw_protect(view, PAGES * PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_protect(view + PAGE, 3 * PAGE, MKW_WRITE), 0);
	put(view + 2 * PAGE, 'q');
	CHECK_EQ(frame_of(view + 2 * PAGE), frame);
	REQUIRE_EQ(mkw_remap(view + PAGE, 3 * PAGE, 4 * PAGE, MKW_MAYMOVE, &moved), 0);
	CHECK_EQ(get((unsigned char *)moved + PAGE), 'q');
	put((unsigned char *)moved + PAGE, 'r');
	CHECK_EQ(frame_of((unsigned char *)moved + PAGE), frame);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_unmap(moved, 4 * PAGE), 0);
	CHECK_EQ(mkw_unmap(view, PAGES * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(private_parts,
		  "7.4 5.1 pieces of a private view: copies go with the part that is "
		  "unmapped, and with truncation")
{
	unsigned char *view, value;
	struct world w;

	world_clean(&w, PAGES);
	view = private_map(&w, PAGES);
	for (unsigned page = 0; page < PAGES; page++)
		put(view + page * PAGE, (unsigned char)(100 + page));
	CHECK_EQ(world_stat(&w).resident_bytes, 2 * PAGES * PAGE);
	CHECK_EQ(mkw_unmap(view + 4 * PAGE, 4 * PAGE), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, (2 * PAGES - 4) * PAGE);
	check_segv(view + 4 * PAGE);
	CHECK_EQ(get(view + 3 * PAGE), 103);
	CHECK_EQ(get(view + 8 * PAGE), 108);
	CHECK_EQ(mkw_truncate(w.handle, 10 * PAGE), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, (10 + 6) * PAGE);
	CHECK_EQ(try_read(view + 10 * PAGE, &value, NULL), -ENXIO);
	CHECK_EQ(get(view + 9 * PAGE), 109);
	CHECK_EQ(mkw_unmap(view, PAGES * PAGE), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, 10 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(private_moves, "7.5 2.6 a private view moves with its copies; a page that is not "
				 "one is still the object's, and its first write still counted")
{
	unsigned char *old, *view;
	void *moved = NULL, *wall;
	uint64_t resident;
	struct world w;

	world_clean(&w, PAGES);
	old = private_map(&w, 8);
	wall = wall_behind(old + 8 * PAGE);
	put(old + PAGE, 'p');
	put(old + 5 * PAGE, 'q');
	CHECK_EQ(get(old + 3 * PAGE), script_pattern(3 * PAGE, 1));
	CHECK_EQ(get(old + 7 * PAGE), script_pattern(7 * PAGE, 1));
	resident = world_stat(&w).resident_bytes;
	REQUIRE_EQ(mkw_remap(old, 8 * PAGE, PAGES * PAGE, MKW_MAYMOVE, &moved), 0);
	view = moved;
	CHECK(view != old);
	CHECK_EQ(world_stat(&w).resident_bytes, resident);
	put(view + 7 * PAGE, 'u');
	/* Where a page that is shown cannot be protected it was charged when it was read. */
	CHECK(test_backend() == TEST_UFFD_OLD || world_stat(&w).resident_bytes > resident);
	check_segv(old + PAGE);
	CHECK_EQ(get(view + PAGE), 'p');
	CHECK_EQ(get(view + 5 * PAGE), 'q');
	CHECK_EQ(get(view + 3 * PAGE), script_pattern(3 * PAGE, 1));
	CHECK_EQ(get(view + 12 * PAGE), script_pattern(12 * PAGE, 1));
	resident = world_stat(&w).resident_bytes;
	put(view + PAGE + 1, 'r');
	CHECK_EQ(world_stat(&w).resident_bytes, resident);
	put(view + 3 * PAGE, 's');
	put(view + 12 * PAGE, 't');
	CHECK(world_stat(&w).resident_bytes >= (PAGES + 4) * PAGE);
	/* The object's page may go and come again; copies stay. */
	CHECK_EQ(mkw_invalidate(w.handle, 0, PAGES * PAGE), 0);
	CHECK_EQ(get(view + PAGE), 'p');
	CHECK_EQ(get(view + PAGE + 1), 'r');
	CHECK_EQ(get(view + 3 * PAGE), 's');
	CHECK_EQ(get(view + 12 * PAGE), 't');
	CHECK_EQ(get(view + 4 * PAGE), script_pattern(4 * PAGE, 1));
	CHECK_EQ(get(w.view + 3 * PAGE), script_pattern(3 * PAGE, 1));
	CHECK_EQ(questions(&w), 0);
	CHECK_EQ(mkw_unmap(view, PAGES * PAGE), 0);
	CHECK(world_stat(&w).resident_bytes <= PAGES * PAGE);
	if (wall != MAP_FAILED)
		munmap(wall, PAGE);
	world_end(&w);
}

/* ---- Many at once ------------------------------------------------------------------------- */

#define FIRE_THREADS 3u
#define FIRE_PAGES   64u

/* Counts up a word of each of its own pages of a view that is cut and mended all the time. */
struct fire {
	struct test_thread thread;
	unsigned char *view;
	unsigned index;
	_Atomic bool stop;
	uint64_t counts[FIRE_PAGES];
};

static void *fire_main(void *arg)
{
	struct fire *f = arg;
	uint64_t state = f->index + 1;

	while (!atomic_load(&f->stop)) {
		uint64_t page = rig_random(&state) % FIRE_PAGES;

		atomic_fetch_add(rig_word(f->view, page) + f->index, 1);
		f->counts[page]++;
	}
	return NULL;
}

TEST_EACH_BACKEND(split_under_fire,
		  "7.3 2.9 threads write all pages while the view is split, mended, shows the same "
		  "pages anew, and write-back runs: no write is lost")
{
	struct fire fires[FIRE_THREADS] = {0};
	uint64_t state = 11;
	struct rig rig;

	test_not_under_tsan(); /* to it a mapping that is replaced is memory that is written */
	rig_open(&rig, NULL, FIRE_PAGES, MKW_RDWR);
	for (unsigned i = 0; i < FIRE_THREADS; i++) {
		fires[i].view = rig.view;
		fires[i].index = i;
		test_thread_start(&fires[i].thread, fire_main, &fires[i]);
	}
	for (unsigned round = 0; round < test_rounds(150); round++) {
		uint64_t first = rig_random(&state) % FIRE_PAGES;
		uint64_t count = 1 + rig_random(&state) % (FIRE_PAGES - first);
		unsigned char *at = rig.view + first * PAGE;

		switch (rig_random(&state) % 4) {
		case 0:
			CHECK_EQ(mkw_remap_pages(at, count * PAGE, first * PAGE), 0);
			break;
		case 1:
			CHECK_EQ(mkw_protect(at, count * PAGE, MKW_WRITE), 0);
			break;
		case 2:
			CHECK_EQ(mkw_msync(at, count * PAGE), 0);
			break;
		default:
			CHECK_EQ(mkw_reserve(at, count * PAGE), 0);
			CHECK_EQ(mkw_unreserve(at, count * PAGE), 0);
		}
	}
	for (unsigned i = 0; i < FIRE_THREADS; i++) {
		atomic_store(&fires[i].stop, true);
		test_thread_join(&fires[i].thread);
	}
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(mkw_invalidate(rig.handle, 0, 0), 0);
	for (unsigned page = 0; page < FIRE_PAGES; page++)
		for (unsigned i = 0; i < FIRE_THREADS; i++)
			CHECK_EQ(rig_word(rig.view, page)[i], fires[i].counts[page]);
	rig_close(&rig);
}

/* Half of a view is for one thread's calls, the other half for the writers. */
TEST_EACH_BACKEND(split_beside_fire, "2.9 7.4 threads write half of a view while the other half is "
				     "protected, cut off and grown again")
{
	struct fire fires[FIRE_THREADS] = {0};
	const size_t half = FIRE_PAGES * PAGE;
	struct rig rig;

	rig_open(&rig, NULL, 2 * FIRE_PAGES, MKW_RDWR);
	for (unsigned i = 0; i < FIRE_THREADS; i++) {
		fires[i].view = rig.view;
		fires[i].index = i;
		test_thread_start(&fires[i].thread, fire_main, &fires[i]);
	}
	for (unsigned round = 0; round < test_rounds(100); round++) {
		void *same = NULL;
		int error;

		CHECK_EQ(mkw_protect(rig.view + half, half, round % 2 != 0 ? MKW_READ : 0), 0);
		CHECK_EQ(mkw_protect(rig.view + half + PAGE, PAGE, MKW_WRITE), 0);
		*rig_word(rig.view, FIRE_PAGES + 1) = round;
		CHECK_EQ(mkw_msync(rig.view, 2 * half), 0);
		CHECK_EQ(mkw_unmap(rig.view + half, half), 0);
		error = mkw_remap(rig.view, half, 2 * half, 0, &same);
		if (error == -ENOMEM)
			break; /* somebody else in the process has mapped there meanwhile */
		REQUIRE_EQ(error, 0);
		CHECK_EQ(*rig_word(rig.view, FIRE_PAGES + 1), round);
	}
	for (unsigned i = 0; i < FIRE_THREADS; i++) {
		atomic_store(&fires[i].stop, true);
		test_thread_join(&fires[i].thread);
	}
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(mkw_invalidate(rig.handle, 0, 0), 0);
	for (unsigned page = 0; page < FIRE_PAGES; page++)
		for (unsigned i = 0; i < FIRE_THREADS; i++)
			CHECK_EQ(rig_word(rig.view, page)[i], fires[i].counts[page]);
	rig_close(&rig);
}

/* ---- When there are too many mappings ----------------------------------------------------- */

TEST_EACH_BACKEND(
	no_more_mappings,
	"mkwrite.h: at the kernel's bound of mappings every change that needs one more fails "
	"with ENOMEM, and everything is as it was")
{
	const size_t length = (size_t)256 << 20;
	unsigned char *filler;
	struct world w;
	void *moved;

#ifdef __SANITIZE_ADDRESS__
	SKIP("ASan needs mappings of its own");
#endif
	world_clean(&w, PAGES);
	put(w.view + PAGE, 'd');
	/* So that a part goes well before the next one fails. */
	CHECK_EQ(mkw_remap_pages(w.view, PAGE, 9 * PAGE), 0);
	filler = mmap(NULL, 4 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		      0);
	REQUIRE(filler != MAP_FAILED);
	for (size_t at = 0; at < 4 * length; at += 2 * PAGE)
		if (mprotect(filler + at, PAGE, PROT_READ) != 0)
			break;
	while (mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1,
		    0) != MAP_FAILED)
		;
	CHECK_EQ(mkw_protect(w.view + 3 * PAGE, PAGE, MKW_READ), -ENOMEM);
	CHECK_EQ(mkw_protect(w.view, 4 * PAGE, MKW_READ), -ENOMEM);
	CHECK_EQ(mkw_unmap(w.view, 4 * PAGE), -ENOMEM);
	CHECK_EQ(mkw_unmap(w.view + 3 * PAGE, PAGE), -ENOMEM);
	CHECK_EQ(mkw_remap_pages(w.view + 3 * PAGE, PAGE, 0), -ENOMEM);
	CHECK_EQ(mkw_remap(w.view, PAGES * PAGE, 2 * PAGES * PAGE, MKW_MAYMOVE, &moved), -ENOMEM);
	for (unsigned page = 0; page < PAGES; page++)
		put(w.view + page * PAGE + 1, 'n');
	CHECK_EQ(questions(&w), PAGES - 1);
	CHECK_EQ(get(w.view + 9 * PAGE + 1), 'n');
	munmap(filler, 4 * length);
	CHECK_EQ(mkw_protect(w.view + 3 * PAGE, PAGE, MKW_READ), 0);
	CHECK_EQ(plain_write(w.view + 3 * PAGE, 'x', NULL), SIGSEGV);
	CHECK_EQ(mkw_protect(w.view + 3 * PAGE, PAGE, MKW_WRITE), 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "dn", 2);
	world_end(&w);
}

/* ---- Reservations ------------------------------------------------------------------------- */

TEST_EACH_BACKEND(reserve_is_split, "2.6 what one mkw_reserve holds is given back over the pieces "
				    "that the view has become")
{
	struct world w;

	world_make(&w, PAGES * PAGE);
	world_open(&w, PAGES * PAGE);
	CHECK_EQ(mkw_reserve(w.view, PAGES * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), PAGES);
	CHECK_EQ(mkw_protect(w.view + 4 * PAGE, 4 * PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_reserve(w.view, PAGES * PAGE), -EACCES);
	CHECK_EQ(mkw_unreserve(w.view, PAGES * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

/* ---- Mistakes ----------------------------------------------------------------------------- */

static _Atomic unsigned warned;

static void count_warnings(void *arg, enum mkw_log_level level, const char *message)
{
	(void)arg;
	CHECK(message[0] != '\0');
	if (level == MKW_LOG_WARNING)
		atomic_fetch_add(&warned, 1);
}

static void world_watched(struct world *w, uint64_t pages)
{
	const struct mkw_space_options options = {RIG_QUIET, .log = count_warnings};

	plain_install();
	world_make_with(w, pages * PAGE, &options);
	script_put_pattern(w->store, 0, pages, 1);
	world_open(w, pages * PAGE);
	for (uint64_t page = 0; page < pages; page++)
		CHECK_EQ(get(w->view + page * PAGE), script_pattern(page * PAGE, 1));
}

TEST_EACH_BACKEND(plain_munmap,
		  "7.4 a part unmapped by a plain munmap, and mapped over: what was "
		  "written is not lost, the library says so and leaves the new mapping "
		  "alone")
{
	unsigned char *other;
	struct world w;

	world_watched(&w, PAGES);
	for (unsigned page = 0; page < PAGES; page++)
		put(w.view + page * PAGE, (unsigned char)(page + 1));
	CHECK_EQ(munmap(w.view + 4 * PAGE, 4 * PAGE), 0);
	other = mmap(w.view + 5 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	REQUIRE(other == w.view + 5 * PAGE);
	memset(other, 'o', 2 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	for (unsigned page = 0; page < PAGES; page++)
		check_store(&w, page * PAGE, &(unsigned char){(unsigned char)(page + 1)}, 1);
	test_wait_until(atomic_load(&warned) == 1);
	/* The rest goes on: asked for once when clean, dropped and filled again. */
	script_log_clear(w.store);
	put(w.view + 3 * PAGE, 'x');
	put(w.view + 8 * PAGE, 'y');
	CHECK_EQ(questions(&w), 2);
	CHECK_EQ(mkw_advise(w.view, PAGES * PAGE, MKW_DONTNEED), 0);
	CHECK_EQ(mkw_invalidate(w.handle, 0, PAGES * PAGE), 0);
	CHECK_EQ(get(w.view + 3 * PAGE), 'x');
	CHECK_EQ(get(w.view + 9 * PAGE), 10);
	CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_READ), 0);
	CHECK_EQ(plain_write(w.view + 3 * PAGE, 'x', NULL), SIGSEGV);
	for (unsigned i = 0; i < 2 * PAGE; i++)
		other[i]++;
	CHECK_EQ(mkw_unmap(w.view, PAGES * PAGE), 0);
	for (unsigned i = 0; i < 2 * PAGE; i++)
		REQUIRE_EQ(other[i], 'o' + 1);
	CHECK_EQ(munmap(other, 2 * PAGE), 0);
	CHECK_EQ(atomic_load(&warned), 1);
	w.view = NULL;
	world_end(&w);
}

TEST_EACH_BACKEND(plain_munmap_all, "7.4 a view unmapped by a plain munmap: nothing is lost, and "
				    "mkw_unmap ends it")
{
	struct world w;

	world_watched(&w, PAGES);
	put(w.view + 4 * PAGE, 'x');
	CHECK_EQ(munmap(w.view, PAGES * PAGE), 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 4 * PAGE, "x", 1);
	test_wait_until(atomic_load(&warned) == 1);
	CHECK_EQ(mkw_protect(w.view, PAGES * PAGE, MKW_READ), 0);
	check_segv(w.view);
	CHECK_EQ(mkw_unmap(w.view, 8 * PAGE), 0);
	CHECK_EQ(mkw_unmap(w.view, PAGES * PAGE), 0);
	w.view = NULL;
	world_end(&w);
}

TEST_EACH_BACKEND(plain_munmap_unnoticed, "7.4 a hole that nobody has noticed yet: protection and "
					  "unmapping of what is around it")
{
	struct world w;

	world_watched(&w, PAGES);
	CHECK_EQ(munmap(w.view + 4 * PAGE, PAGE), 0);
	CHECK_EQ(mkw_protect(w.view + 2 * PAGE, 8 * PAGE, MKW_READ), 0);
	CHECK_EQ(plain_write(w.view + 5 * PAGE, 'x', NULL), SIGSEGV);
	CHECK_EQ(mkw_remap_pages(w.view + 2 * PAGE, PAGE, 0), -EFAULT);
	put(w.view + PAGE, 'a');
	CHECK_EQ(mkw_protect(w.view + 2 * PAGE, 8 * PAGE, MKW_WRITE), 0);
	put(w.view + 5 * PAGE, 'b');
	CHECK_EQ(questions(&w), 2);
	CHECK_EQ(mkw_unmap(w.view + 3 * PAGE, 4 * PAGE), 0);
	put(w.view + 7 * PAGE, 'c');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 5 * PAGE, "b", 1);
	world_end(&w);
}

TEST_EACH_BACKEND(plain_mremap, "7.5 a view moved by a plain mremap: write-back goes on, and the "
				"library says so")
{
	unsigned char *moved;
	struct world w;

	world_watched(&w, PAGES);
	put(w.view + 4 * PAGE, 'x');
	moved = mremap(w.view, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE);
	REQUIRE(moved != MAP_FAILED);
	if (moved == w.view) {
		CHECK_EQ(munmap(moved + PAGES * PAGE, PAGES * PAGE), 0);
		world_end(&w);
		return;
	}
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 4 * PAGE, "x", 1);
	test_wait_until(atomic_load(&warned) == 1);
	CHECK_EQ(munmap(moved, 2 * PAGES * PAGE), 0);
	CHECK_EQ(mkw_unmap(w.view, PAGES * PAGE), 0);
	w.view = NULL;
	world_end(&w);
}

TEST_EACH_BACKEND(plain_mprotect,
		  "2.9 a plain mprotect to read-only and back does not make a write "
		  "unnoticed; the access that it forbids is a SIGSEGV")
{
	struct world w;

	world_clean(&w, PAGES);
	put(w.view + PAGE, 'a');
	for (unsigned round = 0; round < 2; round++) {
		CHECK_EQ(mprotect(w.view, PAGES * PAGE, round == 0 ? PROT_READ : PROT_NONE), 0);
		CHECK_EQ(plain_write(w.view + 2 * PAGE, 'x', NULL), SIGSEGV);
		CHECK_EQ(plain_write(w.view + 2 * PAGE, 'x', NULL), SIGSEGV);
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		CHECK_EQ(mprotect(w.view, PAGES * PAGE, PROT_READ | PROT_WRITE), 0);
		put(w.view + PAGE, 'b');
		put(w.view + 2 * PAGE, 'c');
		CHECK_EQ(questions(&w), 1 + 2 * (round + 1));
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		check_store(&w, PAGE, "b", 1);
		check_store(&w, 2 * PAGE, "c", 1);
	}
	world_end(&w);
}

TEST_EACH_BACKEND(plain_dontneed,
		  "2.5 a plain madvise(DONTNEED) on a view: what was dirty stays, and "
		  "once it is clean the next write is asked for")
{
	struct world w;

	world_clean(&w, PAGES);
	put(w.view + PAGE, 'a');
	CHECK_EQ(madvise(w.view, PAGES * PAGE, MADV_DONTNEED), 0);
	CHECK_EQ(get(w.view + PAGE), 'a');
	CHECK_EQ(madvise(w.view, PAGES * PAGE, MADV_DONTNEED), 0);
	put(w.view + PAGE, 'b'); /* silent, or a report: charged it is */
	CHECK_EQ(questions(&w), 1);
	put(w.view + 2 * PAGE, 'c');
	CHECK_EQ(questions(&w), 2);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "b", 1);
	check_store(&w, 2 * PAGE, "c", 1);
	CHECK_EQ(madvise(w.view, PAGES * PAGE, MADV_DONTNEED), 0);
	put(w.view + PAGE, 'd');
	CHECK_EQ(questions(&w), 3);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "d", 1);
	world_end(&w);
}

/* ---- Children of fork --------------------------------------------------------------------- */

/* Exit status 0, or the line of what failed, modulo 256. */
static void check_child(pid_t pid)
{
	int status = 0;

	REQUIRE(pid > 0);
	while (waitpid(pid, &status, 0) < 0)
		REQUIRE_EQ(errno, EINTR);
	CHECK_EQ(status, 0);
}

#define IN_CHILD(expr)                             \
	do {                                       \
		if (!(expr))                       \
			_exit(__LINE__ % 255 + 1); \
	} while (0)

TEST(fork_of_pieces, "7.1 7.3 a child inherits pieces as they are, and cannot change them")
{
	struct mkw_backend_info info;
	unsigned char value = 0;
	struct world w;
	void *moved;
	pid_t pid;

	test_not_under_tsan();
	REQUIRE(mkw_backends(&info, 1) >= 1);
	if (!info.usable || strstr(info.reason, "inherit no views"))
		SKIP("%s", info.reason);
	world_clean(&w, PAGES);
	CHECK_EQ(mkw_protect(w.view + 2 * PAGE, 2 * PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_remap_pages(w.view + 8 * PAGE, PAGE, 3 * PAGE), 0);
	CHECK_EQ(mkw_unmap(w.view + 12 * PAGE, PAGE), 0);
	pid = fork();
	if (pid == 0) {
		IN_CHILD(plain_write(w.view, 'k', NULL) == 0);
		IN_CHILD(plain_write(w.view + 2 * PAGE, 'k', NULL) == SIGSEGV);
		IN_CHILD(plain_write(w.view + 8 * PAGE, 'l', NULL) == 0);
		IN_CHILD(plain_read(w.view + 3 * PAGE, &value, NULL) == 0 && value == 'l');
		IN_CHILD(plain_read(w.view + 12 * PAGE, &value, NULL) == SIGSEGV);
		IN_CHILD(mkw_protect(w.view, PAGE, MKW_READ) == -ECHILD);
		IN_CHILD(mkw_remap(w.view, PAGE, 2 * PAGE, MKW_MAYMOVE, &moved) == -ECHILD);
		IN_CHILD(mkw_remap_pages(w.view, PAGE, 0) == -ECHILD);
		_exit(0);
	}
	check_child(pid);
	CHECK_EQ(get(w.view), 'k');
	CHECK_EQ(get(w.view + 8 * PAGE), 'l');
	CHECK_EQ(questions(&w), 2);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "k", 1);
	check_store(&w, 3 * PAGE, "l", 1);
	world_end(&w);
}

struct changer {
	struct test_thread thread;
	unsigned char *view;
	_Atomic bool stop;
};

static void *changer_main(void *arg)
{
	struct changer *c = arg;
	uint64_t state = 5;

	while (!atomic_load(&c->stop)) {
		uint64_t first = rig_random(&state) % FIRE_PAGES;
		uint64_t count = 1 + rig_random(&state) % (FIRE_PAGES - first);

		if (rig_random(&state) % 2 == 0)
			CHECK_EQ(
				mkw_remap_pages(c->view + first * PAGE, count * PAGE, first * PAGE),
				0);
		else
			CHECK_EQ(mkw_protect(c->view + first * PAGE, count * PAGE, MKW_WRITE), 0);
	}
	return NULL;
}

TEST(fork_while_changed,
     "7.1 7.3 forks while a view is changed and written: each child has all of it, "
     "and no addition is lost")
{
	struct changer changer = {.stop = false};
	struct fire fire = {.index = 0};
	struct mkw_backend_info info;
	unsigned rounds = test_rounds(30);
	struct rig rig;

	test_not_under_tsan();
	REQUIRE(mkw_backends(&info, 1) >= 1);
	if (!info.usable || strstr(info.reason, "inherit no views"))
		SKIP("%s", info.reason);
	rig_open(&rig, NULL, FIRE_PAGES, MKW_RDWR);
	changer.view = fire.view = rig.view;
	test_thread_start(&changer.thread, changer_main, &changer);
	test_thread_start(&fire.thread, fire_main, &fire);
	for (unsigned round = 0; round < rounds; round++) {
		pid_t pid = fork();

		if (pid == 0) {
			for (unsigned page = 0; page < FIRE_PAGES; page++)
				atomic_fetch_add(rig_word(rig.view, page) + 1, 1);
			_exit(0);
		}
		check_child(pid);
	}
	atomic_store(&changer.stop, true);
	atomic_store(&fire.stop, true);
	test_thread_join(&changer.thread);
	test_thread_join(&fire.thread);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(mkw_invalidate(rig.handle, 0, 0), 0);
	for (unsigned page = 0; page < FIRE_PAGES; page++) {
		CHECK_EQ(rig_word(rig.view, page)[0], fire.counts[page]);
		CHECK_EQ(rig_word(rig.view, page)[1], rounds);
	}
	rig_close(&rig);
}
