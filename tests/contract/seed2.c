/* SPDX-License-Identifier: MIT */
/*
 * seed2.c - contract S2.2 (no lock is held while memory of the caller is touched), S2.3, S2.5,
 * S2.6, and the balance of reservations.
 */
#include "harness/rig.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- S2.2 --------------------------------------------------------------------------------- */

struct moving {
	struct test_thread thread;
	struct mkw_handle *handle;
	void *buffer;
	bool out; /* mkw_pwrite */
	ssize_t result;
};

static void *moving_main(void *arg)
{
	struct moving *m = arg;

	m->result = m->out ? mkw_pwrite(m->handle, m->buffer, PAGE, 0)
			   : mkw_pread(m->handle, m->buffer, PAGE, 0);
	return NULL;
}

/* The buffer's page waits for its store; whoever wants the page of the object gets it. */
static void buffer_waits_test(bool out)
{
	struct script_store *store = script_create(2 * PAGE);
	enum script_op op = out ? SCRIPT_FAULT : SCRIPT_MKWRITE;
	struct moving moving = {.out = out};
	struct mkw_handle *handle;
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	world_open(&w, 2 * PAGE);
	script_put_pattern(store, 0, 2, 4);
	REQUIRE_EQ(script_open(store, w.space, MKW_RDWR, &handle), 0);
	REQUIRE_EQ(mkw_map(handle, 2 * PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0,
			   &moving.buffer),
		   0);
	test_gate_arm(store, op, SCRIPT_ENTRY, SCRIPT_ANY);
	moving.handle = w.handle;
	test_thread_start(&moving.thread, moving_main, &moving);
	REQUIRE(test_gate_wait_arrived(store, op, SCRIPT_ENTRY, 1));
	CHECK_EQ(get(w.view + PAGE - 1), script_pattern(PAGE - 1, 1));
	put(w.view + PAGE - 1, 'x');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(mkw_invalidate(w.handle, 0, PAGE), 0);
	test_gate_release(store, op, SCRIPT_ENTRY);
	test_thread_join(&moving.thread);
	CHECK_EQ(moving.result, PAGE);
	if (out)
		CHECK_EQ(get(w.view + 5), script_pattern(5, 4));
	else
		CHECK_EQ(get((unsigned char *)moving.buffer + 5), script_pattern(5, 1));
	CHECK_EQ(mkw_unmap(moving.buffer, 2 * PAGE), 0);
	CHECK_EQ(mkw_close(handle), 0);
	world_end(&w);
	CHECK(script_destroy(store));
}

TEST_EACH_BACKEND(s2_2_pwrite_holds_nothing,
		  "S2.2 4.6 mkw_pwrite holds no page while its buffer faults")
{
	buffer_waits_test(true);
}

TEST_EACH_BACKEND(s2_2_pread_holds_nothing,
		  "S2.2 4.6 mkw_pread holds no page while its buffer faults")
{
	buffer_waits_test(false);
}

/* Two that write each into the object whose view the other reads from: with a lock held over the
 * buffer, in the end both wait for each other. */
TEST_EACH_BACKEND(s2_2_crosswise,
		  "S2.2 4.6 two objects written crosswise from each other's views: no deadlock")
{
	struct script_store *store = script_create(PAGE);
	struct moving moving[2];
	struct mkw_handle *handle;
	void *address;
	struct world w;

	world_make(&w, PAGE);
	world_open(&w, PAGE);
	REQUIRE_EQ(script_open(store, w.space, MKW_RDWR, &handle), 0);
	REQUIRE_EQ(mkw_map(handle, PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0, &address), 0);
	for (unsigned round = 0; round < test_rounds(200); round++) {
		moving[0] = (struct moving){.handle = w.handle, .buffer = address, .out = true};
		moving[1] = (struct moving){.handle = handle, .buffer = w.view, .out = true};
		for (unsigned i = 0; i < 2; i++)
			test_thread_start(&moving[i].thread, moving_main, &moving[i]);
		for (unsigned i = 0; i < 2; i++) {
			test_thread_join(&moving[i].thread);
			CHECK_EQ(moving[i].result, PAGE);
		}
		CHECK_EQ(mkw_invalidate(w.handle, 0, PAGE), 0);
		CHECK_EQ(mkw_invalidate(handle, 0, PAGE), 0);
	}
	CHECK_EQ(mkw_unmap(address, PAGE), 0);
	CHECK_EQ(mkw_close(handle), 0);
	world_end(&w);
	CHECK(script_destroy(store));
}

/* ---- S2.3 --------------------------------------------------------------------------------- */

struct needy {
	struct rig *other;
	bool read;
};

/* In page_mkwrite of one object memory is needed that only its own dirty pages can give. */
static void need_memory(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct needy *needy = arg;

	(void)object;
	if (run->page != 15 || needy->read)
		return;
	needy->read = true;
	for (uint64_t i = 0; i < 8; i++)
		CHECK_EQ(atomic_load(rig_word(needy->other->view, i)), 0);
}

TEST_EACH_BACKEND(s2_3_reclaim_inside_a_callback,
		  "S2.3 11 reclaim for a callback cleans other pages of its object, and says why")
{
	const struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 16 * PAGE};
	struct script_call call;
	struct rig rig, other;
	struct needy needy = {.other = &other};

	test_not_under_tsan();
	rig_open(&rig, &options, 16, MKW_RDWR);
	rig_add(&other, &rig, 8, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 16 * PAGE, MKW_RANDOM), 0);
	CHECK_EQ(mkw_advise(other.view, 8 * PAGE, MKW_RANDOM), 0);
	script_hook(rig.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, need_memory, &needy);
	for (uint64_t i = 0; i < 16; i++)
		*rig_word(rig.view, i) = i + 1;
	CHECK(needy.read);
	REQUIRE(script_log_of(rig.store, SCRIPT_WRITE, 1, &call));
	CHECK_EQ(call.flags, MKW_WB_RECLAIM);
	/* The page that was asked for was neither written nor dropped meanwhile. */
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_FAULT, 15), 1);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_MKWRITE, 15), 1);
	rig_leave(&other);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	for (uint64_t i = 0; i < 16; i++)
		CHECK_EQ(rig_stored_word(&rig, i), i + 1);
	rig_close(&rig);
	CHECK(script_destroy(other.store));
}

/* ---- S2.5 --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(s2_5_not_yet,
		  "S2.5 a page that cannot be written yet stays dirty, is not lost, is no error")
{
	unsigned char model[4 * PAGE] = {0};
	struct mkw_range range;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	for (unsigned i = 0; i < 4; i += 2) {
		put(w.view + i * PAGE + 5, (unsigned char)('a' + i));
		model[i * PAGE + 5] = (unsigned char)('a' + i);
	}
	script_fail_page(w.store, SCRIPT_WRITE, 2, -EAGAIN);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(mkw_sync(w.handle, 0, 0), -EAGAIN);
		REQUIRE_EQ(mkw_dirty_ranges(w.handle, 0, 0, &range, 1), 1);
		CHECK_EQ(range.offset, 2 * PAGE);
		CHECK_EQ(range.length, PAGE);
		CHECK_EQ(range.error, 0);
		check_view(w.view, model, 4 * PAGE);
	}
	check_store(&w, 0, model, PAGE);
	CHECK_EQ(world_stat(&w).write_errors, 0);
	CHECK_EQ(script_reserved(w.store), 1);
	put(w.view + 2 * PAGE + 6, 'z');
	model[2 * PAGE + 6] = 'z';
	/* Its blocks are there now. */
	script_fail_page(w.store, SCRIPT_WRITE, 2, 0);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	CHECK_EQ(script_unsynced(w.store), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s2_5_not_yet_is_nobodys_error,
		  "S2.5 'not yet' is reported to no other handle, nor at close")
{
	struct mkw_handle *handle;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	put(w.view, 'x');
	script_fail(w.store, SCRIPT_WRITE, 1, 1, -EAGAIN);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), -EAGAIN);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	handle = w.handle;
	w.handle = NULL;
	CHECK_EQ(mkw_close(handle), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(
	s2_5_background_not_yet,
	"S2.5 background write-back keeps a page that is not yet to be written, and comes again")
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct world w;

	options.writeback_interval_ms = 1;
	world_make_with(&w, 2 * PAGE, &options);
	w.open_flags = MKW_RDWR;
	world_open(&w, 2 * PAGE);
	script_fail_page(w.store, SCRIPT_WRITE, 1, -EAGAIN);
	put(w.view + PAGE, 'x');
	REQUIRE(script_wait_calls(w.store, SCRIPT_WRITE, 3));
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_EQ(get(w.view + PAGE), 'x');
	script_fail_page(w.store, SCRIPT_WRITE, 1, 0);
	test_wait_until(world_dirty_bytes(&w) == 0);
	check_store(&w, PAGE, "x", 1);
	world_end(&w);
}

/* ---- S2.6 --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(s2_6_allocation_follows_offset,
		  "S2.6 written in random order, allocated in the order of offsets")
{
	enum { PAGES = 64 };
	unsigned char model[PAGES * PAGE] = {0};
	struct script_call call;
	uint64_t next = 0;
	struct world w;

	world_make(&w, PAGES * PAGE);
	world_open(&w, PAGES * PAGE);
	for (unsigned i = 0; i < PAGES; i++) {
		unsigned page = (i * 37 + 11) % PAGES;

		if (page % 5 == 0)
			continue;
		put(w.view + page * PAGE, (unsigned char)(page + 1));
		model[page * PAGE] = (unsigned char)(page + 1);
	}
	CHECK_EQ(script_allocated(w.store), 0);
	CHECK_EQ(script_reserved(w.store), world_dirty_bytes(&w) / PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (size_t i = 1; script_log_of(w.store, SCRIPT_WRITE, i, &call); i++) {
		CHECK(call.first >= next);
		next = call.first + call.count;
	}
	CHECK_EQ(script_reserved(w.store), 0);
	check_store(&w, 0, model, PAGES * PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(s2_6_balance,
		  "S2.6 2.5 whatever becomes of granted pages, reservations return to zero")
{
	enum { PAGES = 32 };
	struct world w;

	world_make(&w, PAGES * PAGE);
	world_open(&w, PAGES * PAGE);
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < PAGES; i++) {
			put(w.view + i * PAGE, (unsigned char)(i + round));
			CHECK_EQ(script_page_reserved(w.store, i), true);
		}
		CHECK_EQ(script_reserved(w.store), PAGES);
		if (round == 0)
			CHECK_EQ(mkw_truncate(w.handle, 0), 0);
		else if (round == 1)
			CHECK_EQ(mkw_punch(w.handle, 0, PAGES * PAGE), 0);
		else if (round == 2)
			CHECK_EQ(mkw_discard(w.handle, 0, PAGES * PAGE), 0);
		else
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		CHECK_EQ(script_reserved(w.store), 0);
		CHECK_EQ(world_stat(&w).dirty_bytes, 0);
		CHECK_EQ(mkw_truncate(w.handle, PAGES * PAGE), 0);
	}
	world_end(&w);
}

TEST_EACH_BACKEND(s2_6_granted_unwritten,
		  "S2.6 11 pages granted around a write and never written give theirs back")
{
	enum { PAGES = 32 };
	unsigned char model[PAGES * PAGE];
	struct world w;

	world_make(&w, PAGES * PAGE);
	script_put_pattern(w.store, 0, PAGES / 2, 1);
	script_get(w.store, 0, model, PAGES * PAGE);
	world_open(&w, PAGES * PAGE);
	for (unsigned i = 0; i < PAGES; i++)
		get(w.view + i * PAGE);
	script_set_extent(w.store, 16);
	put(w.view + 20 * PAGE, 'x');
	put(w.view + 23 * PAGE, 'y');
	model[20 * PAGE] = 'x';
	model[23 * PAGE] = 'y';
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(world_stat(&w).dirty_bytes, 16 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, PAGES * PAGE);
	check_view(w.view, model, PAGES * PAGE);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(world_stat(&w).dirty_bytes, 0);
	/* What was granted is protected again: the next write asks. */
	script_log_clear(w.store);
	put(w.view + 21 * PAGE, 'z');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 21), 1);
	world_end(&w);
}

static int unreserve_range(struct mkw_handle *handle, uint64_t address, uint64_t length)
{
	(void)handle;
	return mkw_unreserve((void *)(uintptr_t)address, (size_t)length);
}

TEST_EACH_BACKEND(
	s2_6_reserve,
	"S2.6 mkw_reserve takes the room at once, mkw_unreserve gives back what was not written")
{
	struct world w;

	world_make(&w, 8 * PAGE);
	script_set_capacity(w.store, 6);
	world_open(&w, 8 * PAGE);
	CHECK_EQ(mkw_reserve(w.view + PAGE, 4 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 4);
	put(w.view + 6 * PAGE, 'a');
	put(w.view + 7 * PAGE, 'b');
	CHECK_EQ(try_write(w.view, 'x', NULL), -ENOSPC);
	for (unsigned i = 1; i < 4; i++)
		put(w.view + i * PAGE, (unsigned char)i);
	/* A cleaned page may fault again but is not refused: its room is its own. */
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned i = 1; i < 5; i++)
		put(w.view + i * PAGE, (unsigned char)(i + 1));
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(mkw_unreserve(w.view + PAGE, 4 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	for (unsigned i = 1; i < 5; i++)
		check_store(&w, i * PAGE, &(unsigned char){(unsigned char)(i + 1)}, 1);
	world_end(&w);
}

TEST_EACH_BACKEND(s2_6_reserve_refused, "S2.6 mkw_reserve refused for one page keeps none")
{
	struct world w;

	world_make(&w, 8 * PAGE);
	script_set_capacity(w.store, 6);
	world_open(&w, 8 * PAGE);
	CHECK_EQ(mkw_reserve(w.view, 8 * PAGE), -ENOSPC);
	CHECK(strstr(mkw_error_message(), "no room"));
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(world_stat(&w).dirty_bytes, 0);
	CHECK_EQ(mkw_reserve(w.view, 6 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 6);
	CHECK_EQ(mkw_unreserve(w.view, 6 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s2_6_unreserve_at_once,
		  "S2.6 mkw_unreserve gives unwritten pages back at once: others need the room")
{
	struct world w;

	world_make(&w, 8 * PAGE);
	script_set_capacity(w.store, 4);
	world_open(&w, 8 * PAGE);
	CHECK_EQ(mkw_reserve(w.view, 4 * PAGE), 0);
	put(w.view + PAGE, 'x');
	CHECK_EQ(try_write(w.view + 6 * PAGE, 'y', NULL), -ENOSPC);
	CHECK_EQ(mkw_unreserve(w.view, 4 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 1);
	CHECK_EQ(world_stat(&w).dirty_bytes, PAGE);
	put(w.view + 6 * PAGE, 'y');
	script_log_clear(w.store);
	put(w.view, 'z');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 0), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "z", 1);
	check_store(&w, PAGE, "x", 1);
	check_store(&w, 6 * PAGE, "y", 1);
	world_end(&w);
}

/* Whoever reserves writes without a fault: what was written must be told from what was not. */
TEST_EACH_BACKEND(s2_6_unreserve_loses_nothing, "S2.6 11 mkw_unreserve after writes loses no byte")
{
	enum { PAGES = 16 };
	unsigned char model[PAGES * PAGE];
	struct world w;

	world_make(&w, PAGES * PAGE);
	script_put_pattern(w.store, 0, PAGES / 2, 1);
	script_get(w.store, 0, model, PAGES * PAGE);
	world_open(&w, PAGES * PAGE);
	for (unsigned round = 1; round < 40; round++) {
		CHECK_EQ(mkw_reserve(w.view, PAGES * PAGE), 0);
		for (unsigned i = 0; i < 4; i++) {
			size_t at = (round * 7 + i * 5) % PAGES * PAGE + round;

			put(w.view + at, (unsigned char)round);
			model[at] = (unsigned char)round;
		}
		CHECK_EQ(mkw_unreserve(w.view, PAGES * PAGE), 0);
		check_view(w.view, model, PAGES * PAGE);
		if (round % 3 == 0)
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		if (round % 6 == 0)
			CHECK_EQ(mkw_invalidate(w.handle, 0, PAGES * PAGE), 0);
	}
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, PAGES * PAGE);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s2_6_reserve_truncated,
		  "S2.6 a reserved range that is cut off gives its room back")
{
	struct world w;

	world_make(&w, 8 * PAGE);
	world_open(&w, 8 * PAGE);
	CHECK_EQ(mkw_reserve(w.view, 8 * PAGE), 0);
	CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 2);
	CHECK_EQ(mkw_unreserve(w.view, 8 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s2_6_unreserve_locked,
		  "S2.6 2.5 mkw_unreserve waits for a page that is being filled, and gives it back")
{
	struct api_call unreserve;
	struct access reader;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	CHECK_EQ(mkw_reserve(w.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_invalidate(w.handle, 0, 4 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 4);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 2);
	access_read(&reader, w.view + 2 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	api_start(&unreserve, &w, unreserve_range, (uintptr_t)w.view, 4 * PAGE);
	api_wait_settled(&unreserve);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&reader), 0);
	CHECK_EQ(api_join(&unreserve), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

/* Nobody can release it any more; at the latest the end of the object does. */
TEST_EACH_BACKEND(s2_6_reserve_unmapped,
		  "S2.6 a reservation whose view is gone does not outlive its object")
{
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	CHECK_EQ(mkw_reserve(w.view, 4 * PAGE), 0);
	put(w.view, 'x');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(w.store), 3);
	world_end(&w);
}

TEST_EACH_BACKEND(
	s2_6_reserve_with_writers,
	"S2.6 2.5 reserved, written, cut and released by many at once: the balance is zero")
{
	enum { PAGES = 16, WRITERS = 3 };
	struct access writers[WRITERS];
	struct world w;

	world_make(&w, PAGES * PAGE);
	world_open(&w, PAGES * PAGE);
	for (unsigned round = 0; round < test_rounds(60); round++) {
		for (unsigned i = 0; i < WRITERS; i++)
			access_write(&writers[i], w.view + (round * 5 + i * 3) % PAGES * PAGE + i,
				     (unsigned char)round);
		CHECK_EQ(mkw_reserve(w.view + 4 * PAGE, 8 * PAGE), 0);
		if (round % 3 == 0)
			CHECK_EQ(mkw_punch(w.handle, 6 * PAGE, 4 * PAGE), 0);
		if (round % 4 == 0)
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		CHECK_EQ(mkw_unreserve(w.view + 4 * PAGE, 8 * PAGE), 0);
		for (unsigned i = 0; i < WRITERS; i++)
			CHECK_EQ(access_join(&writers[i]), 0);
	}
	world_settle(&w);
	world_end(&w);
}

TEST_EACH_BACKEND(
	s2_6_dirty_page_keeps_reservation,
	"S2.6 a lost second question about a dirty page gives nothing back that is its own")
{
	struct api_call punch;
	struct access a;
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	script_set_manner(w.store, SCRIPT_LEGACY);
	world_open(&w, 2 * PAGE);
	put(w.view, 'a');
	script_fail(w.store, SCRIPT_WRITE, 1, 1, -EIO);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), -EIO);
	/* Granted again while a hole is punched, which fails in the end. */
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, SCRIPT_ANY);
	test_gate_arm(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY, SCRIPT_ANY);
	script_fail(w.store, SCRIPT_PUNCH, 1, 1, -EIO);
	access_write(&a, w.view, 'b');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 1));
	api_start(&punch, &w, mkw_punch, 0, PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY, 1));
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT);
	test_wait_until(script_running(w.store, SCRIPT_MKWRITE) == 0);
	access_wait_blocked(&a); /* by the range */
	CHECK_EQ(script_calls(w.store, SCRIPT_UNRESERVE), 0);
	test_gate_release(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&punch), -EIO);
	CHECK_EQ(access_join(&a), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_UNRESERVE), 0);
	world_settle(&w);
	check_store(&w, 0, "b", 1);
	world_end(&w);
}

TEST_EACH_BACKEND(s2_6_dropped_dirty_page,
		  "S2.6 a second question about a dirty page that is punched leaves no reservation")
{
	struct api_call punch;
	struct access a;
	struct world w;

	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	script_set_manner(w.store, SCRIPT_LEGACY);
	world_open(&w, 2 * PAGE);
	put(w.view, 'a');
	script_fail(w.store, SCRIPT_WRITE, 1, 1, -EIO);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), -EIO);
	/* Granted again when the store has made the hole and the page is still there. */
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	test_gate_arm(w.store, SCRIPT_PUNCH, SCRIPT_EXIT, SCRIPT_ANY);
	access_write(&a, w.view, 'b');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	script_fail(w.store, SCRIPT_MKWRITE, 1, SCRIPT_FOREVER, -EDQUOT);
	api_start(&punch, &w, mkw_punch, 0, PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_PUNCH, SCRIPT_EXIT, 1));
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	test_wait_until(script_running(w.store, SCRIPT_MKWRITE) == 0);
	access_wait_blocked(&a);
	test_gate_release(w.store, SCRIPT_PUNCH, SCRIPT_EXIT);
	CHECK_EQ(api_join(&punch), 0);
	CHECK_EQ(access_join(&a), -EDQUOT);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}
