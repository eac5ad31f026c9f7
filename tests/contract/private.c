/* SPDX-License-Identifier: MIT */
/*
 * private.c - private views: contract 2.6, 5.1, 5.2, 5.3, I6; what counts against the resident
 * limit. Swap is in swap.c, pins in pins.c, fork in fork.c.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned char *private_map(struct world *w, uint64_t first, size_t pages)
{
	void *view;

	REQUIRE(mkw_map(w->handle, pages * PAGE, MKW_WRITE, MKW_PRIVATE | test_map_flags(),
			first * PAGE, &view) == 0);
	CHECK_EQ(mkw_advise(view, pages * PAGE, MKW_RANDOM), 0);
	return view;
}

static unsigned char *rig_private(struct rig *rig)
{
	void *view;

	REQUIRE(mkw_map(rig->handle, rig->pages * PAGE, MKW_WRITE, MKW_PRIVATE | test_map_flags(),
			0, &view) == 0);
	return view;
}

/* A world without a shared view: a pattern in the store, and a private view of it. */
static unsigned char *private_open(struct world *w, unsigned pages, unsigned char *model)
{
	world_make(w, pages * PAGE);
	script_put_pattern(w->store, 0, pages, 1);
	if (model != NULL)
		script_get(w->store, 0, model, pages * PAGE);
	world_open(w, 0);
	return private_map(w, 0, pages);
}

/* ---- 2.6 ---------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(r2_6_store_is_never_asked,
		  "2.6 a private write is the view's own: no question, nothing dirty, store and "
		  "other views unchanged")
{
	unsigned char model[8 * PAGE], *view, *other, *shared;
	struct world w;

	view = private_open(&w, 8, model);
	other = private_map(&w, 0, 8);
	shared = world_map(&w, 0, 8, MKW_READ);
	for (unsigned i = 0; i < 8; i += 2)
		put(view + i * PAGE + 9, 'p');
	check_view(other, model, 8 * PAGE);
	check_view(shared, model, 8 * PAGE);
	for (unsigned i = 0; i < 8; i += 2)
		model[i * PAGE + 9] = 'p';
	check_view(view, model, 8 * PAGE);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_WRITE), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	CHECK_EQ(mkw_msync(view, 8 * PAGE), 0);
	CHECK_EQ(mkw_unmap(view, 8 * PAGE), 0);
	CHECK_EQ(mkw_unmap(other, 8 * PAGE), 0);
	CHECK_EQ(mkw_unmap(shared, 8 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r2_6_two_mappings,
	"2.6, 2.9 a private view that the kernel keeps as two mappings since its parts were "
	"written apart: runs go over the border")
{
	unsigned char *view;
	struct world w;

	view = private_open(&w, 64, NULL);
	CHECK_EQ(mkw_advise(view, 64 * PAGE, MKW_WILLNEED), 0);
	CHECK_EQ(mkw_protect(view + 20 * PAGE, PAGE, MKW_READ), 0);
	put(view + 10 * PAGE, 'a');
	put(view + 40 * PAGE, 'b');
	CHECK_EQ(mkw_protect(view + 20 * PAGE, PAGE, MKW_WRITE), 0);
	for (unsigned i = 0; i < 64; i++)
		put(view + i * PAGE, 'p');
	/* Once more, when all of them are copies and are looked at. */
	CHECK_EQ(mkw_advise(view, 64 * PAGE, MKW_COLD), 0);
	for (unsigned i = 0; i < 64; i++)
		put(view + i * PAGE, 'q');
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(get(view + i * PAGE), 'q');
	CHECK_EQ(mkw_unmap(view, 64 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_6_write_to_absent,
		  "2.6 a write to a page that nobody has read: filled, copied")
{
	unsigned char model[4 * PAGE], *view;
	struct world w;

	view = private_open(&w, 4, model);
	put(view + 2 * PAGE + 5, 'x');
	model[2 * PAGE + 5] = 'x';
	check_view(view, model, 4 * PAGE);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_6_shared_writes_show, "2.6 until a page is copied the view shows the object's")
{
	unsigned char *view, *shared;
	struct world w;

	view = private_open(&w, 4, NULL);
	shared = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	get(view);
	put(shared, 's');
	CHECK_EQ(get(view), 's');
	put(view, 'p');
	put(shared, 't');
	CHECK_EQ(get(view), 'p');
	CHECK_EQ(get(shared), 't');
	put(shared + PAGE, 'u');
	CHECK_EQ(get(view + PAGE), 'u');
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	CHECK_EQ(mkw_unmap(shared, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r2_6_read_only_store,
	"2.6 a store without writepages and a read-only handle give writable private views")
{
	unsigned char *view;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_ops(w.store)->writepages = NULL;
	w.open_flags = 0;
	world_open(&w, 0);
	view = private_map(&w, 0, 4);
	put(view + PAGE, 'p');
	CHECK_EQ(get(view + PAGE), 'p');
	CHECK_EQ(mkw_reserve(view, PAGE), -EACCES);
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_6_past_end, "2.6 5.5 past the end a private write is refused as any other")
{
	struct mkw_refusal refusal;
	unsigned char *view;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 0);
	view = private_map(&w, 0, 4);
	CHECK_EQ(try_write(view + 2 * PAGE, 'x', &refusal), -ENXIO);
	CHECK(refusal.address == view + 2 * PAGE);
	CHECK_EQ(mkw_truncate(w.handle, 3 * PAGE), 0);
	put(view + 2 * PAGE, 'x');
	CHECK_EQ(get(view + 2 * PAGE), 'x');
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_6_fill_fails, "2.6 a private write whose page cannot be had: its reason, then "
				   "success")
{
	unsigned char *view;
	struct world w;

	view = private_open(&w, 2, NULL);
	script_fail(w.store, SCRIPT_FAULT, 1, 1, -EIO);
	CHECK_EQ(try_write(view, 'x', NULL), -EIO);
	put(view, 'y');
	CHECK_EQ(get(view), 'y');
	CHECK_EQ(mkw_unmap(view, 2 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(r2_6_frozen, "2.6 a frozen object's private views are written on")
{
	unsigned char *view;
	struct world w;

	view = private_open(&w, 2, NULL);
	CHECK_EQ(mkw_freeze(w.handle), 0);
	put(view, 'x');
	CHECK_EQ(get(view), 'x');
	CHECK_EQ(mkw_thaw(w.handle), 0);
	CHECK_EQ(mkw_unmap(view, 2 * PAGE), 0);
	world_end(&w);
}

/* ---- I6 ----------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(i6_written_in_place, "I6 S3.1 a page that the view owns is never copied again, "
				       "whatever becomes of the object's page")
{
	unsigned char *view;
	uint64_t faults;
	struct world w;

	view = private_open(&w, 2, NULL);
	put(view, 1);
	faults = world_stat(&w).write_faults;
	for (unsigned i = 0; i < 100; i++) {
		put(view, (unsigned char)i);
		CHECK_EQ(mkw_invalidate(w.handle, 0, 0), 0);
		CHECK_EQ(get(view), i);
	}
	CHECK_EQ(world_stat(&w).write_faults, faults);
	CHECK_EQ(mkw_unmap(view, 2 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	r2_6_plain_dontneed,
	"2.6 a copy dropped by a plain madvise: the object's page again, and no more charge")
{
	unsigned char model[PAGE], *view;
	struct world w;

	view = private_open(&w, 1, model);
	put(view, 'p');
	CHECK_EQ(world_stat(&w).resident_bytes, 2 * PAGE);
	CHECK_EQ(madvise(view, PAGE, MADV_DONTNEED), 0);
	check_view(view, model, PAGE);
	put(view, 'q');
	CHECK_EQ(get(view), 'q');
	CHECK_EQ(world_stat(&w).resident_bytes, 2 * PAGE);
	CHECK_EQ(mkw_unmap(view, PAGE), 0);
	world_end(&w);
}

/* ---- 5.1, 5.2, 5.3 ------------------------------------------------------------------------ */

TEST_EACH_BACKEND(r5_1_truncate_takes, "5.1 truncation takes private copies beyond the new size")
{
	unsigned char *view;
	struct world w;

	view = private_open(&w, 6, NULL);
	for (unsigned i = 0; i < 6; i++)
		put(view + i * PAGE, 'p');
	CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE + 100), 0);
	CHECK_EQ(try_read(view + 3 * PAGE, &(unsigned char){0}, NULL), -ENXIO);
	CHECK_EQ(mkw_truncate(w.handle, 6 * PAGE), 0);
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(get(view + i * PAGE), i < 3 ? 'p' : 0);
	CHECK_EQ(mkw_unmap(view, 6 * PAGE), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, 6 * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(r5_2_punch_leaves, "5.2 5.3 punch, discard and invalidate leave private copies")
{
	unsigned char *view;
	struct world w;

	view = private_open(&w, 6, NULL);
	for (unsigned i = 0; i < 3; i++)
		put(view + i * PAGE, 'p');
	CHECK_EQ(mkw_punch(w.handle, 0, 6 * PAGE), 0);
	CHECK_EQ(mkw_invalidate(w.handle, 0, 0), 0);
	CHECK_EQ(mkw_discard(w.handle, 0, 6 * PAGE), 0);
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(get(view + i * PAGE), i < 3 ? 'p' : 0);
	CHECK_EQ(mkw_unmap(view, 6 * PAGE), 0);
	world_end(&w);
}

/* ---- Accounts ----------------------------------------------------------------------------- */

TEST_EACH_BACKEND(copies_are_charged,
		  "2.6 a copy counts as a resident page, once, and is given back")
{
	unsigned char *view;
	struct world w;

	view = private_open(&w, 1, NULL);
	put(view, 'p');
	put(view + 9, 'p');
	CHECK_EQ(world_stat(&w).resident_bytes, 2 * PAGE);
	CHECK_EQ(mkw_advise(view, PAGE, MKW_DONTNEED), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, PAGE);
	put(view, 'q');
	CHECK_EQ(world_stat(&w).resident_bytes, 2 * PAGE);
	CHECK_EQ(mkw_unmap(view, PAGE), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(grants_are_taken_back,
		  "S3.2 room that was granted and not used is had back, and what was written stays")
{
	const struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 1024 * PAGE};
	unsigned char *view;
	struct rig rig;

	rig_open(&rig, &options, 2048, MKW_RDWR);
	view = rig_private(&rig);
	/* Every third page of a region, which is granted in windows. */
	for (uint64_t i = 0; i < 510; i += 3)
		*rig_word(view, i) = i + 1;
	/* Much is read meanwhile: all of the limit is needed. */
	for (uint64_t i = 0; i < 2048; i++)
		(void)*rig_word(rig.view, i);
	for (uint64_t i = 0; i < 510; i++)
		if (!CHECK_EQ(*rig_word(view, i), i % 3 == 0 ? i + 1 : *rig_word(rig.view, i)))
			break;
	CHECK(rig_space_stat(&rig).resident_peak_bytes <= 1024 * PAGE);
	CHECK_EQ(rig_space_stat(&rig).refusals, 0);
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(few_faults_for_many_pages,
		  "2.6 who writes all of a region pays for a few faults, not for one a page")
{
	unsigned char *view;
	struct rig rig;

	rig_open(&rig, NULL, 512, MKW_RDWR);
	view = rig_private(&rig);
	CHECK_EQ(mkw_advise(view, 512 * PAGE, MKW_RANDOM), 0);
	CHECK_EQ(mkw_advise(view, 512 * PAGE, MKW_WILLNEED), 0);
	for (uint64_t i = 0; i < 512; i++)
		*rig_word(view, i * RIG_SCATTER % 512) = i;
	CHECK(rig_stat(&rig).write_faults <= 128);
	for (uint64_t i = 0; i < 512; i++)
		if (!CHECK_EQ(*rig_word(view, i * RIG_SCATTER % 512), i))
			break;
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	rig_close(&rig);
}

/* ---- System calls ------------------------------------------------------------------------- */

TEST(syscalls, "2.6 2.10 system calls read and write private pages")
{
	unsigned char *view;
	struct world w;
	int pipe_fds[2];

	view = private_open(&w, 4, NULL);
	REQUIRE(pipe(pipe_fds) == 0);
	CHECK_EQ(write(pipe_fds[1], "hello", 5), 5);
	CHECK_EQ(read(pipe_fds[0], view + PAGE, 5), 5);
	CHECK_EQ(write(pipe_fds[1], view + PAGE, 5), 5);
	CHECK_EQ(read(pipe_fds[0], view + 3 * PAGE, 5), 5);
	CHECK(memcmp(view + 3 * PAGE, "hello", 5) == 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	world_end(&w);
}

/* ---- Under fire --------------------------------------------------------------------------- */

struct owner {
	unsigned char *view;
	uint64_t pages, rounds, seed;
	struct test_thread thread;
};

static void *owner_run(void *arg)
{
	struct owner *owner = arg;
	uint64_t last[64] = {0};

	for (uint64_t i = 1; i <= owner->rounds; i++) {
		uint64_t page = rig_random(&owner->seed) % owner->pages;

		if (last[page] != 0 && !CHECK_EQ(*rig_word(owner->view, page), last[page]))
			break;
		*rig_word(owner->view, page) = last[page] = i;
	}
	return NULL;
}

TEST_EACH_BACKEND(under_fire, "I6 2.6 private pages under eviction, sync, invalidation and shared "
			      "writes: each view keeps its own")
{
	const struct mkw_space_options options = {.struct_size = sizeof(options),
						  .resident_limit_bytes = 400 * PAGE};
	struct owner owners[3] = {{.seed = 1}, {.seed = 2}, {.seed = 3}};
	struct rig_hammer hammer;
	struct rig rig;

	rig_open(&rig, &options, 64, MKW_RDWR);
	rig_hammer_start(&hammer, rig_word(rig.view, 7));
	for (unsigned i = 0; i < 3; i++) {
		owners[i].view = rig_private(&rig);
		owners[i].pages = 64;
		owners[i].rounds = test_rounds(20000);
		test_thread_start(&owners[i].thread, owner_run, &owners[i]);
	}
	for (unsigned i = 0; i < test_rounds(200); i++) {
		int error = mkw_invalidate(rig.handle, 0, 0);
		CHECK(error == 0 || error == -EBUSY);
	}
	for (unsigned i = 0; i < 3; i++)
		test_thread_join(&owners[i].thread);
	rig_hammer_stop(&hammer);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(mkw_unmap(owners[i].view, 64 * PAGE), 0);
	CHECK(rig_space_stat(&rig).resident_peak_bytes <= 400 * PAGE);
	rig_close(&rig);
}

TEST_EACH_BACKEND(
	copies_refused,
	"2.6 contract 11: copies that fill the resident limit, and no swap: the next is told so")
{
	const struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 16 * PAGE};
	unsigned char *view;
	struct rig rig;
	int error = 0;
	unsigned page;

	rig_open(&rig, &options, 64, MKW_RDWR);
	view = rig_private(&rig);
	CHECK_EQ(mkw_advise(view, rig.pages * PAGE, MKW_RANDOM), 0);
	for (page = 0; page < 64 && error == 0; page++)
		error = try_write(view + page * PAGE, 1, NULL);
	CHECK_EQ(error, -ENOMEM);
	CHECK(page > 12);
	while (--page > 0)
		CHECK_EQ(get(view + (page - 1) * PAGE), 1);
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	rig_close(&rig);
}
