/* SPDX-License-Identifier: MIT */
/*
 * private.c - each call of the library to the system fails once while private views are read,
 * written, cut and dropped, and while what they were granted is taken back: an access works or is
 * refused, no copy is lost, and every page that was charged is given back.
 */
#include "nth/model.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int advise(struct model *m, enum mkw_advice advice)
{
	int error;

	IN_LIBRARY(error = mkw_advise(m->private, m->private_pages * PAGE, advice));
	return error;
}

static int advise_random(struct model *m)
{
	return advise(m, MKW_RANDOM);
}

static int advise_sequential(struct model *m)
{
	return advise(m, MKW_SEQUENTIAL);
}

static int advise_willneed(struct model *m)
{
	return advise(m, MKW_WILLNEED);
}

static int page_out(struct model *m)
{
	return advise(m, MKW_PAGEOUT);
}

static int invalidate(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_invalidate(m->handle, 0, 0));
	return error;
}

/* Its copies go. */
static int drop(struct model *m, uint64_t first, uint64_t count)
{
	int error;

	IN_LIBRARY(error = mkw_advise(m->private + first * PAGE, count * PAGE, MKW_DONTNEED));
	if (!error)
		memset(m->own + first, 0, count);
	return error;
}

static int drop_some(struct model *m)
{
	return drop(m, 1, 3);
}

static int drop_all(struct model *m)
{
	return drop(m, 0, m->private_pages);
}

static uint64_t resident_pages(struct model *m)
{
	struct mkw_stat stat = {0};

	CHECK_EQ(mkw_object_stat(m->handle, &stat, sizeof(stat)), 0);
	return stat.resident_bytes / PAGE;
}

/* Without the object's pages at least each copy is charged, or in the swap file. */
static int look_charged(struct model *m)
{
	int error = invalidate(m);
	struct mkw_stat stat = {0};
	uint64_t copies = 0;

	for (size_t page = 0; page < m->private_pages; page++)
		copies += m->own[page];
	if (!error) {
		CHECK_EQ(mkw_object_stat(m->handle, &stat, sizeof(stat)), 0);
		CHECK((stat.private_bytes + stat.swapped_bytes) / PAGE >= copies);
	}
	return error;
}

/* Nothing is charged any more: neither pages nor copies. What a fault that was reported late has
 * brought back goes with the next try. */
static int look_empty(struct model *m)
{
	int error = 0;

	for (unsigned i = 0; i < 1000 && !error && (i == 0 || resident_pages(m) > 0); i++) {
		sched_yield();
		error = drop_all(m);
		if (!error)
			error = invalidate(m);
	}
	if (!error)
		CHECK_EQ(resident_pages(m), 0);
	return error;
}

/* ---- Accesses ----------------------------------------------------------------------------- */

static int write_some(struct model *m)
{
	return model_write_private(m, 1, 5, 2, 'p');
}

static int write_all(struct model *m)
{
	return model_write_private(m, 0, m->private_pages, 1, 'q');
}

/* The object's pages beneath copies. */
static int write_beneath(struct model *m)
{
	return model_write(m, 1, 1, 's');
}

static void accesses(struct model *m)
{
	model_begin(m, 10);
	model_arm();
	STEP(m, model_map_private);
	STEP(m, advise_random);
	STEP(m, write_some);
	STEP(m, model_read);
	STEP(m, write_beneath);
	STEP(m, write_some);
	STEP(m, look_charged);
	STEP(m, model_read);
	STEP(m, drop_some);
	STEP(m, model_read);
	STEP(m, write_all);
	STEP(m, model_unmap_private);
	STEP(m, model_map_private);
	STEP(m, write_some);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private, "whatever call fails while a private view is read and written")
{
	model_loop(MODEL_MEM, "", accesses);
}

static void streams(struct model *m)
{
	model_begin(m, 64);
	REQUIRE_EQ(model_map_private(m), 0);
	model_arm();
	STEP(m, advise_sequential);
	STEP(m, write_all);
	STEP(m, model_read);
	STEP(m, drop_all);
	STEP(m, advise_willneed);
	STEP(m, write_all);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_streams,
		  "whatever call fails while private pages are copied ahead of a stream")
{
	model_loop(MODEL_MEM, "", streams);
}

static int write_across(struct model *m)
{
	return model_write_private(m, 505, 12, 2, 't');
}

static void regions(struct model *m)
{
	m->holes = true;
	m->quiet_pages = 500;
	model_begin(m, 520);
	model_arm();
	STEP(m, model_map_private);
	STEP(m, write_across);
	STEP(m, model_read);
	STEP(m, write_across);
	STEP(m, model_unmap_private);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_regions, "whatever call fails where a private view has two regions")
{
	model_loop(MODEL_MEM, "", regions);
}

/* ---- Sizes -------------------------------------------------------------------------------- */

static int cut(struct model *m)
{
	return model_truncate(m, 4 * PAGE + 100);
}

static int grow(struct model *m)
{
	return model_truncate(m, 8 * PAGE + 50);
}

static int punch(struct model *m)
{
	return model_punch(m, 0, 2 * PAGE);
}

static int write_first(struct model *m)
{
	return model_write_private(m, 0, 3, 1, 'u');
}

static void sizes(struct model *m)
{
	model_begin(m, 9);
	REQUIRE_EQ(model_map_private(m), 0);
	model_arm();
	STEP(m, write_all);
	STEP(m, cut);
	STEP(m, model_read);
	STEP(m, grow);
	STEP(m, model_read);
	STEP(m, write_first);
	STEP(m, punch);
	STEP(m, model_read);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(
	nth_private_sizes,
	"whatever call fails while an object with private views is cut, grown and punched")
{
	model_loop(MODEL_MEM, "", sizes);
	if (test_backend() == TEST_UFFD)
		model_loop(MODEL_TMPFS, "", sizes);
}

/* ---- Room --------------------------------------------------------------------------------- */

/* Every fourth page: the windows that are granted meanwhile hold three others each. */
static int write_thinly(struct model *m)
{
	return model_write_private(m, 0, m->private_pages, 4, 'v');
}

static int write_rest(struct model *m)
{
	return model_write_private(m, 2, m->private_pages - 2, 4, 'w');
}

/* Copies, and a few of the object's pages. */
static int limit(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_set_limits(m->handle, 20 * PAGE, 0));
	return error;
}

static void taken_back(struct model *m)
{
	model_begin(m, 24);
	REQUIRE_EQ(model_map_private(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	model_arm();
	STEP(m, write_thinly);
	STEP(m, limit);
	STEP(m, write_rest);
	STEP(m, look_charged);
	STEP(m, write_thinly);
	STEP(m, model_read);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_room,
		  "whatever call fails while what private views do not use is taken back")
{
	model_loop(MODEL_MEM, "", taken_back);
}

/* ---- Shapes ------------------------------------------------------------------------------- */

static int protect_part(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_protect(m->private + 2 * PAGE, 3 * PAGE, MKW_READ));
	return error;
}

static int protect_back(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_protect(m->private, m->private_pages * PAGE, MKW_WRITE));
	return error;
}

/* Not in place. */
static int move(struct model *m)
{
	size_t length = m->private_pages * PAGE;
	void *wall, *moved = m->private;
	int error;

	wall = mmap(m->private + length, PAGE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	IN_LIBRARY(error = mkw_remap(m->private, length, length + PAGE, MKW_MAYMOVE, &moved));
	if (wall != MAP_FAILED)
		munmap(wall, PAGE);
	m->private = moved;
	m->private_pages += error == 0;
	return error;
}

static int unmap_tail(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_unmap(m->private + (m->private_pages - 3) * PAGE, 3 * PAGE));
	if (!error)
		m->private_pages -= 3;
	for (size_t page = m->private_pages; !error && page < MODEL_PAGES; page++)
		m->own[page] = false;
	return error;
}

static void reshaped(struct model *m)
{
	m->space_options.swap_path = "/tmp";
	model_begin(m, 12);
	REQUIRE_EQ(model_map_private(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	REQUIRE_EQ(write_all(m), 0);
	REQUIRE_EQ(drop_some(m), 0);
	REQUIRE_EQ(page_out(m), 0);
	REQUIRE_EQ(write_some(m), 0);
	model_arm();
	STEP(m, protect_part);
	STEP(m, model_read);
	STEP(m, protect_back);
	STEP(m, write_some);
	STEP(m, move);
	STEP(m, write_some);
	STEP(m, model_read);
	STEP(m, unmap_tail);
	STEP(m, look_charged);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_shapes,
		  "7.4 7.5 whatever call fails while a private view is protected, moved and cut")
{
	model_loop(MODEL_MEM, "", reshaped);
}

/* ---- Children ----------------------------------------------------------------------------- */

static bool child_differs;

static void look_in_child(void *model)
{
	struct model *m = model;

	for (uint64_t page = 0; page < m->private_pages; page++)
		child_differs |=
			memcmp(m->private + page * PAGE,
			       (m->own[page] ? m->own_bytes : m->bytes) + page * PAGE, PAGE) != 0;
	for (uint64_t page = 0; page < m->private_pages; page += 2)
		m->private[page * PAGE + 9] = 'F';
	for (uint64_t page = 0; page < m->private_pages; page += 2)
		child_differs |= m->private[page * PAGE + 9] != 'F';
}

/* A child has the view as it is, or none; nothing that it writes is the parent's. */
static int fork_child(struct model *m)
{
	int status = 0;
	pid_t pid;

	IN_LIBRARY(pid = fork());
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		int error;

		signal(SIGSEGV, SIG_DFL);
		error = mkw_guard(look_in_child, m, NULL);
		_exit(child_differs ? 1 : error ? 3 : 0);
	}
	while (waitpid(pid, &status, 0) < 0)
		CHECK_EQ(errno, EINTR);
	if (!CHECK((WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3)) ||
		   (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV))) {
		test_note("the child's status is %#x", status);
		nth_tell();
	}
	return 0;
}

static void forks(struct model *m)
{
	m->space_options.swap_path = "/tmp";
	model_begin(m, 6);
	REQUIRE_EQ(model_map_private(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	REQUIRE_EQ(write_some(m), 0);
	REQUIRE_EQ(page_out(m), 0);
	REQUIRE_EQ(write_first(m), 0);
	model_arm();
	STEP(m, fork_child);
	STEP(m, model_read);
	STEP(m, write_all);
	STEP(m, fork_child);
	STEP(m, look_charged);
	model_end(m);
}

TEST(nth_private_fork, "7.1 whatever call fails, a child has a private view as it was, or none")
{
	model_loop(MODEL_MEM, "", forks);
}

/* ---- Swap --------------------------------------------------------------------------------- */

static int write_even(struct model *m)
{
	return model_write_private(m, 0, m->private_pages, 2, 'x');
}

static void paged_out(struct model *m)
{
	m->space_options.swap_path = "/tmp";
	model_begin(m, 12);
	REQUIRE_EQ(model_map_private(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	model_arm();
	STEP(m, write_even);
	STEP(m, page_out);
	STEP(m, model_read);
	STEP(m, page_out);
	STEP(m, write_all);
	STEP(m, page_out);
	STEP(m, drop_some);
	STEP(m, cut);
	STEP(m, model_read);
	STEP(m, page_out);
	STEP(m, model_unmap_private);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_swap,
		  "whatever call fails while pages in the swap file are read, cut and unmapped")
{
	model_loop(MODEL_MEM, "", paged_out);
}

/* With memory and swap file full nothing more can be written; what was can be read. */
static int write_too_many(struct model *m)
{
	int error = write_all(m);

	return error == -ENOSPC ? 0 : error ? error : mkw_set_error(-EIO, "all of it was written");
}

static void full(struct model *m)
{
	m->space_options.swap_path = "/tmp";
	m->space_options.swap_limit_bytes = 3 * PAGE;
	m->space_options.resident_limit_bytes = 5 * PAGE;
	model_begin(m, 12);
	REQUIRE_EQ(model_map_private(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	m->only_own = true;
	model_arm();
	STEP(m, write_too_many);
	STEP(m, model_read);
	STEP(m, drop_all);
	m->only_own = false;
	STEP(m, write_first);
	STEP(m, look_empty);
	model_end(m);
}

TEST_EACH_BACKEND(nth_private_full, "whatever call fails where memory and swap file are full")
{
	model_loop(MODEL_MEM, "", full);
}
