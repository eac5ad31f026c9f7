/* SPDX-License-Identifier: MIT */
/*
 * freeze.c - contract 4.5: freezing an object stops all new dirtying, drains what is under way,
 * writes and syncs; until it is thawed the store's bytes are one consistent state.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define COUNTERS 8u
#define SPREAD	 9u /* pages between two counters, so that no run takes two of them for long */

/* Counts in all counters, first to last. So at every instant they descend, and differ by at most
 * one. */
struct counter {
	struct rig *rig;
	_Atomic bool stop;
	_Atomic uint64_t done;
	struct test_thread thread;
};

static void *counter_run(void *arg)
{
	struct counter *counter = arg;

	for (uint64_t i = 1; !atomic_load(&counter->stop); i++) {
		for (uint64_t c = 0; c < COUNTERS; c++)
			*rig_word(counter->rig->view, c * SPREAD) = i;
		atomic_store(&counter->done, i);
	}
	return NULL;
}

static void counter_start(struct counter *counter, struct rig *rig)
{
	*counter = (struct counter){.rig = rig};
	test_thread_start(&counter->thread, counter_run, counter);
}

static void counter_beat(struct counter *counter)
{
	uint64_t before = atomic_load(&counter->done);

	test_wait_until(atomic_load(&counter->done) >= before + 2);
}

static void counter_stop(struct counter *counter)
{
	atomic_store(&counter->stop, true);
	test_thread_join(&counter->thread);
}

static uint64_t dirty_ranges(struct rig *rig)
{
	ssize_t count = mkw_dirty_ranges(rig->handle, 0, 0, NULL, 0);

	REQUIRE(count >= 0);
	return (uint64_t)count;
}

/* The store is one state that the counters have been in. */
static void check_consistent(struct rig *rig)
{
	uint64_t first = rig_stored_word(rig, 0), before = first;

	for (uint64_t c = 1; c < COUNTERS; c++) {
		uint64_t word = rig_stored_word(rig, c * SPREAD);

		CHECK(word <= before);
		CHECK(first - word <= 1);
		before = word;
	}
	CHECK_EQ(dirty_ranges(rig), 0);
	/* Nor has a writer who is held back a charge, not for a moment. */
	CHECK_EQ(rig_dirty_pages(rig), 0);
	CHECK_EQ(script_unsynced(rig->store), 0);
	rig_check_stored(rig);
}

TEST_EACH_BACKEND(freeze_is_consistent,
		  "4.5 frozen, the store holds one state of the object, and it "
		  "does not change")
{
	const unsigned rounds = test_rounds(15);
	struct counter counter;
	struct rig rig;

	rig_open(&rig, NULL, COUNTERS * SPREAD, MKW_RDWR);
	counter_start(&counter, &rig);
	for (unsigned round = 0; round < rounds; round++) {
		uint64_t calls;

		counter_beat(&counter);
		REQUIRE_EQ(mkw_freeze(rig.handle), 0);
		calls = script_calls(rig.store, SCRIPT_WRITE);
		check_consistent(&rig);
		CHECK_STUCK(&counter.thread);
		check_consistent(&rig);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK_EQ(script_calls(rig.store, SCRIPT_WRITE), calls);
		CHECK_EQ(mkw_thaw(rig.handle), 0);
	}
	counter_beat(&counter);
	counter_stop(&counter);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(freeze_at_limit, "4.5 S1.3 freezing while writers wait at the dirty limit: "
				   "consistent, and nobody is stuck afterwards")
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.dirty_limit_bytes = 2 * PAGE,
		.workers = 1,
		.workers_max = 2,
	};
	struct rig_hammer hammers[4];
	struct counter counter;
	struct rig rig;

	rig_open(&rig, &options, COUNTERS * SPREAD, MKW_RDWR);
	counter_start(&counter, &rig);
	for (uint64_t i = 0; i < 4; i++)
		rig_hammer_start(&hammers[i], rig_word(rig.view, 1 + 2 * i));
	for (unsigned round = 0; round < test_rounds(5); round++) {
		counter_beat(&counter);
		REQUIRE_EQ(mkw_freeze(rig.handle), 0);
		check_consistent(&rig);
		CHECK_EQ(mkw_thaw(rig.handle), 0);
	}
	for (int i = 0; i < 4; i++) {
		rig_hammer_beat(&hammers[i]);
		rig_hammer_stop(&hammers[i]);
	}
	counter_stop(&counter);
	rig_close(&rig);
}

TEST(freeze_every_view, "4.5 writers through every view wait, readers through none")
{
	struct rig_writer writers[2];
	unsigned char *second;
	struct rig rig;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	second = rig_map(rig.handle, 32, 32 * PAGE);
	*rig_word(rig.view, 40) = 1;
	*rig_word(second, 9) = 1;
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	rig_writer_start(&writers[0], rig_word(rig.view, 40), 2);
	rig_writer_start(&writers[1], rig_word(second, 9), 2);
	CHECK_STUCK(&writers[0].thread);
	CHECK_STUCK(&writers[1].thread);
	for (uint64_t page = 0; page < 32; page++)
		CHECK_EQ(*rig_word(second, page), page == 8 || page == 9);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	test_thread_join(&writers[0].thread);
	test_thread_join(&writers[1].thread);
	CHECK_EQ(*rig_word(rig.view, 40), 2);
	CHECK_EQ(*rig_word(rig.view, 41), 2);
	CHECK_EQ(mkw_unmap(second, 32 * PAGE), 0);
	rig_close(&rig);
}

struct io_call {
	struct mkw_handle *handle;
	void *buffer;
	uint64_t offset;
	int fd;
	ssize_t result;
	struct test_thread thread;
};

static void *pwrite_run(void *arg)
{
	struct io_call *call = arg;

	call->result = mkw_pwrite(call->handle, call->buffer, PAGE, call->offset);
	return NULL;
}

static void *read_run(void *arg)
{
	struct io_call *call = arg;

	call->result = read(call->fd, call->buffer, PAGE);
	return NULL;
}

TEST(freeze_stops_pwrite, "4.5 mkw_pwrite waits while the object is frozen, mkw_pread does not")
{
	static unsigned char bytes[MKW_PAGE_SIZE], back[MKW_PAGE_SIZE];
	struct io_call call = {.buffer = bytes, .offset = 3 * PAGE};
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	memset(bytes, 7, sizeof(bytes));
	call.handle = rig.handle;
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	test_thread_start(&call.thread, pwrite_run, &call);
	CHECK_STUCK(&call.thread);
	CHECK_EQ(mkw_pread(rig.handle, back, PAGE, 3 * PAGE), PAGE);
	CHECK_EQ(back[0], 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	test_thread_join(&call.thread);
	CHECK_EQ(call.result, PAGE);
	CHECK_EQ(mkw_pread(rig.handle, back, PAGE, 3 * PAGE), PAGE);
	CHECK_MEM(back, bytes, PAGE);
	rig_close(&rig);
}

struct grower {
	struct mkw_handle *handle;
	unsigned rounds;
	struct test_thread thread;
};

static void *grower_run(void *arg)
{
	struct grower *grower = arg;

	for (unsigned i = 0; i < grower->rounds; i++)
		CHECK_EQ(mkw_pwrite(grower->handle, "x", 1, i), 1);
	return NULL;
}

TEST(freeze_against_growth, "4.5 mkw_pwrite past the end of an object that is being frozen and "
			    "thawed waits, and is never refused")
{
	struct grower grower = {.rounds = test_rounds(3000)};
	struct rig rig;

	rig_open(&rig, NULL, 1, MKW_RDWR);
	REQUIRE_EQ(mkw_truncate(rig.handle, 0), 0);
	grower.handle = rig.handle;
	test_thread_start(&grower.thread, grower_run, &grower);
	while (!atomic_load(&grower.thread.ended)) {
		CHECK_EQ(mkw_freeze(rig.handle), 0);
		CHECK_EQ(mkw_thaw(rig.handle), 0);
	}
	test_thread_join(&grower.thread);
	rig_close(&rig);
}

TEST(freeze_stops_system_call, "4.5 4.7 read(2) into a view of a frozen object waits, and goes on")
{
	struct io_call call = {.result = 0};
	unsigned char bytes[PAGE];
	struct rig rig;
	int fds[2];

	rig_open(&rig, NULL, 8, MKW_RDWR);
	memset(bytes, 7, sizeof(bytes));
	REQUIRE_EQ(pipe(fds), 0);
	REQUIRE_EQ(write(fds[1], bytes, PAGE), PAGE);
	call.fd = fds[0];
	call.buffer = rig.view + 2 * PAGE;
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	test_thread_start(&call.thread, read_run, &call);
	CHECK_STUCK(&call.thread);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	test_thread_join(&call.thread);
	CHECK_EQ(call.result, PAGE);
	CHECK_MEM(rig.view + 2 * PAGE, bytes, PAGE);
	close(fds[0]);
	close(fds[1]);
	rig_close(&rig);
}

TEST_EACH_BACKEND(freeze_nests, "4.5 freezing nests: the last thaw lets go, one more is an error")
{
	struct rig_writer writer;
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	CHECK(mkw_thaw(rig.handle) < 0);
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	rig_writer_start(&writer, rig_word(rig.view, 1), 5);
	CHECK_STUCK(&writer.thread);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	test_thread_join(&writer.thread);
	CHECK_EQ(*rig_word(rig.view, 1), 5);
	CHECK(mkw_thaw(rig.handle) < 0);
	rig_close(&rig);
}

TEST(freeze_error_thaws, "4.5 a freeze that fails, by write or by fsync, leaves the object thawed")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	*rig_word(rig.view, 1) = 1;
	script_fail(rig.store, SCRIPT_WRITE, 1, 1, -EIO);
	CHECK_EQ(mkw_freeze(rig.handle), -EIO);
	CHECK(mkw_error_message()[0] != '\0');
	*rig_word(rig.view, 3) = 1;
	CHECK(mkw_thaw(rig.handle) < 0);

	script_fail(rig.store, SCRIPT_FSYNC, 1, 1, -ENOSPC);
	CHECK_EQ(mkw_freeze(rig.handle), -ENOSPC);
	*rig_word(rig.view, 5) = 1;
	CHECK(mkw_thaw(rig.handle) < 0);

	script_fail(rig.store, SCRIPT_WRITE, 1, 1, -EAGAIN);
	CHECK_EQ(mkw_freeze(rig.handle), -EAGAIN);
	*rig_word(rig.view, 7) = 1;
	CHECK(mkw_thaw(rig.handle) < 0);

	CHECK_EQ(mkw_freeze(rig.handle), 0);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	rig_close(&rig);
}

TEST(freeze_error_wakes, "4.5 writers who wait for a freeze that fails go on")
{
	struct rig_writer writer;
	struct counter counter;
	struct rig rig;

	rig_open(&rig, NULL, COUNTERS * SPREAD, MKW_RDWR);
	counter_start(&counter, &rig);
	for (unsigned round = 0; round < test_rounds(10); round++) {
		counter_beat(&counter);
		script_fail(rig.store, SCRIPT_FSYNC, 1, 1, -EIO);
		CHECK_EQ(mkw_freeze(rig.handle), -EIO);
	}
	counter_beat(&counter);
	counter_stop(&counter);
	rig_writer_start(&writer, rig_word(rig.view, 1), 5);
	test_thread_join(&writer.thread);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(freeze_refuses_truncate, "4.5 the size of a frozen object cannot be changed: EBUSY")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	*rig_word(rig.view, 7) = 1;
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	CHECK_EQ(mkw_truncate(rig.handle, 0), -EBUSY);
	CHECK_EQ(mkw_truncate(rig.handle, 16 * PAGE), -EBUSY);
	CHECK_EQ(script_calls(rig.store, SCRIPT_TRUNCATE), 0);
	CHECK_EQ(mkw_size(rig.handle), 8 * PAGE);
	CHECK_EQ(*rig_word(rig.view, 7), 1);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	CHECK_EQ(mkw_truncate(rig.handle, 4 * PAGE), 0);
	rig_close(&rig);
}

struct freeze_call {
	struct mkw_handle *handle;
	int result;
	struct test_thread thread;
};

static void *freeze_run(void *arg)
{
	struct freeze_call *call = arg;

	call->result = mkw_freeze(call->handle);
	return NULL;
}

/* A write whose notification is under way when the freeze comes: it is drained, or held back, and
 * either way what the store has is what the views show. */
static void freeze_against_grant(enum script_point point, bool dirty)
{
	struct freeze_call freeze;
	struct rig_writer writer;
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	if (dirty) { /* and to be asked for again (5.4) */
		CHECK_EQ(mkw_truncate(rig.handle, 2 * PAGE + 100), 0);
		*rig_word(rig.view, 2) = 4;
		CHECK_EQ(mkw_truncate(rig.handle, 8 * PAGE), 0);
	}
	test_gate_arm(rig.store, SCRIPT_MKWRITE, point, 2);
	rig_writer_start(&writer, rig_word(rig.view, 2), 5);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_MKWRITE, point, 1));
	freeze.handle = rig.handle;
	test_thread_start(&freeze.thread, freeze_run, &freeze);
	rig_settle(&freeze.thread);
	test_gate_release(rig.store, SCRIPT_MKWRITE, point);
	test_thread_join(&freeze.thread);
	CHECK_EQ(freeze.result, 0);
	rig_check_stored(&rig);
	CHECK_EQ(dirty_ranges(&rig), 0);
	rig_settle(&writer.thread);
	rig_check_stored(&rig);
	CHECK_EQ(dirty_ranges(&rig), 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	test_thread_join(&writer.thread);
	CHECK_EQ(*rig_word(rig.view, 2), 5);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(freeze_drains_before_grant, "4.5 3.2 freezing while the store is being asked")
{
	freeze_against_grant(SCRIPT_ENTRY, false);
}

TEST_EACH_BACKEND(freeze_drains_after_grant, "4.5 3.2 freezing while a granted run is still locked")
{
	freeze_against_grant(SCRIPT_EXIT, false);
}

TEST_EACH_BACKEND(freeze_drains_dirty, "4.5 2.5 freezing while the store is asked again for a page "
				       "that is dirty: it keeps its reservation")
{
	freeze_against_grant(SCRIPT_ENTRY, true);
}

TEST(freeze_gives_grants_back, "4.5 contract 11: a frozen object has nothing granted ahead")
{
	struct rig rig;

	rig_open(&rig, NULL, 1024, MKW_RDWR);
	script_set_holes(rig.store, true);
	for (uint64_t page = 0; page < 100; page++)
		*rig_word(rig.view, page) = 1;
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(script_allocated(rig.store), 100);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	rig_close(&rig);
}

TEST(freeze_one_object, "4.5 freezing an object holds up no other")
{
	struct rig frozen, other;

	rig_open(&frozen, NULL, 8, MKW_RDWR);
	rig_add(&other, &frozen, 8, MKW_RDWR);
	CHECK_EQ(mkw_freeze(frozen.handle), 0);
	for (uint64_t page = 0; page < 8; page++)
		*rig_word(other.view, page) = page;
	CHECK_EQ(mkw_sync(other.handle, 0, 0), 0);
	rig_check_stored(&other);
	CHECK_EQ(mkw_thaw(frozen.handle), 0);
	rig_leave(&other);
	rig_close(&frozen);
	CHECK(script_destroy(other.store));
}
