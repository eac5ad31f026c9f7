/* SPDX-License-Identifier: MIT */
/*
 * seed1.c - contract S1.1, S1.2, S1.5: why the first write is asked for at all.
 */
#include "harness/world.h"

#include <stdlib.h>
#include <string.h>

/* ---- S1.1 --------------------------------------------------------------------------------- */

/* A store with room for LIMIT pages more; all of it holes but page OLD, which is there already. */
enum { LIMIT = 5, OLD = 9, PAGES = 12 };

static void full_open(struct world *w, unsigned char *model)
{
	world_make(w, PAGES * PAGE);
	script_put_pattern(w->store, OLD, 1, 1);
	script_get(w->store, 0, model, PAGES * PAGE);
	script_set_capacity(w->store, LIMIT + 1);
	world_open(w, PAGES * PAGE);
	for (unsigned i = 0; i < LIMIT; i++) {
		put(w->view + i * PAGE + i, (unsigned char)(i + 1));
		model[i * PAGE + i] = (unsigned char)(i + 1);
	}
	CHECK_EQ(script_reserved(w->store), LIMIT);
}

/* The refused write has changed nothing; everything before it is safe; room makes it possible. */
static void full_close(struct world *w, unsigned char *model)
{
	check_view(w->view, model, PAGES * PAGE);
	CHECK_EQ(world_dirty_bytes(w), LIMIT * PAGE);
	/* A page that has its place needs no room. */
	put(w->view + OLD * PAGE, 'o');
	model[OLD * PAGE] = 'o';
	CHECK_EQ(mkw_sync(w->handle, 0, 0), 0);
	check_store(w, 0, model, PAGES * PAGE);
	CHECK_EQ(script_unsynced(w->store), 0);
	CHECK_EQ(script_reserved(w->store), 0);
	CHECK(try_write(w->view + LIMIT * PAGE, 'x', NULL) == -ENOSPC);
	script_set_capacity(w->store, LIMIT + 2);
	put(w->view + LIMIT * PAGE, 'x');
	model[LIMIT * PAGE] = 'x';
	CHECK_EQ(mkw_sync(w->handle, 0, 0), 0);
	check_store(w, 0, model, PAGES * PAGE);
	world_end(w);
}

TEST_EACH_BACKEND(s1_1_guard,
		  "S1.1 the write N+1 is refused at its exact address, by a guard; N are durable")
{
	unsigned char model[PAGES * PAGE];
	struct mkw_refusal refusal;
	struct world w;

	full_open(&w, model);
	CHECK_EQ(try_write(w.view + LIMIT * PAGE + 1234, 'x', &refusal), -ENOSPC);
	CHECK(refusal.address == w.view + LIMIT * PAGE + 1234);
	CHECK_EQ(refusal.error, -ENOSPC);
	CHECK_EQ(refusal.offset / PAGE, LIMIT);
	CHECK(refusal.write);
	CHECK(refusal.length > 0);
	CHECK(strstr(refusal.message, "no room"));
	full_close(&w, model);
}

TEST_EACH_BACKEND(s1_1_signal, "S1.1 the same by SIGBUS, BUS_ADRERR with the exact address")
{
	unsigned char model[PAGES * PAGE];
	struct mkw_refusal refusal;
	siginfo_t info = {0};
	struct world w;

	plain_install();
	full_open(&w, model);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(plain_write(w.view + LIMIT * PAGE + 1234, 'x', &info), SIGBUS);
		CHECK_EQ(info.si_code, BUS_ADRERR);
		CHECK(info.si_addr == w.view + LIMIT * PAGE + 1234);
		CHECK_EQ(mkw_last_refusal(&refusal), 0);
		CHECK(refusal.address == w.view + LIMIT * PAGE + 1234);
		CHECK_EQ(refusal.error, -ENOSPC);
	}
	full_close(&w, model);
}

TEST_EACH_BACKEND(s1_1_read_only_page,
		  "S1.1 3.3 a refused write leaves the old bytes of its page, mapped or absent")
{
	unsigned char model[4 * PAGE];
	unsigned char *second;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	second = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	get(w.view + PAGE);
	for (unsigned i = 0; i < 4; i++)
		script_fail_page(w.store, SCRIPT_MKWRITE, i, -ENOSPC);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned j = 0; j < PAGE; j += 1000)
			CHECK_EQ(try_write(w.view + i * PAGE + j, 'x', NULL), -ENOSPC);
	check_view(w.view, model, 4 * PAGE);
	check_view(second, model, 4 * PAGE);
	CHECK_EQ(try_write(second + PAGE, 'x', NULL), -ENOSPC);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_WRITE), 0);
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s1_1_stream,
		  "S1.1 11 a stream with growing grants uses all the room before it is refused")
{
	enum { ROOM = 100, STREAM = 128 };
	struct mkw_refusal refusal;
	struct world w;

	world_make(&w, STREAM * PAGE);
	script_set_capacity(w.store, ROOM);
	world_open(&w, STREAM * PAGE);
	CHECK_EQ(mkw_advise(w.view, STREAM * PAGE, MKW_SEQUENTIAL), 0);
	for (unsigned i = 0; i < ROOM; i++)
		put(w.view + i * PAGE, (unsigned char)(i | 1));
	CHECK_EQ(try_write(w.view + ROOM * PAGE + 8, 'x', &refusal), -ENOSPC);
	CHECK(refusal.address == w.view + ROOM * PAGE + 8);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_allocated(w.store), ROOM);
	CHECK_EQ(script_unsynced(w.store), 0);
	for (unsigned i = 0; i < ROOM; i++)
		check_store(&w, i * PAGE, &(unsigned char){(unsigned char)(i | 1)}, 1);
	CHECK_EQ(get(w.view + ROOM * PAGE + 8), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s1_1_pwrite,
		  "S1.1 mkw_pwrite of more than there is room for: what fits, then the errno")
{
	static unsigned char bytes[PAGES * MKW_PAGE_SIZE];
	unsigned char model[PAGES * PAGE] = {0};
	struct world w;

	world_make(&w, PAGES * PAGE);
	script_set_capacity(w.store, LIMIT);
	world_open(&w, 0);
	memset(bytes, 'w', sizeof(bytes));
	CHECK_EQ(mkw_pwrite(w.handle, bytes, 8 * PAGE, 10), LIMIT * PAGE - 10);
	memset(model + 10, 'w', LIMIT * PAGE - 10);
	CHECK_EQ(mkw_pwrite(w.handle, bytes, PAGE, LIMIT * PAGE), -ENOSPC);
	CHECK(strstr(mkw_error_message(), "no room"));
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, sizeof(model));
	world_end(&w);
}

/* ---- S1.2 --------------------------------------------------------------------------------- */

/* A cache beside the store: before a page is first written, its bytes are copied there. */
struct copied {
	unsigned char bytes[4 * MKW_PAGE_SIZE];
	unsigned copies;
	int lock_result;
};

static void copy_before_write(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct copied *c = arg;

	(void)object;
	c->lock_result = mkw_run_lock(run);
	if (c->lock_result)
		return;
	memcpy(c->bytes + run->first * PAGE, mkw_run_data(run), run->count * PAGE);
	c->copies++;
	mkw_run_unlock(run);
}

TEST_EACH_BACKEND(s1_2_copy_to_cache,
		  "S1.2 while old bytes are copied away the writer waits, readers do not")
{
	static struct copied copied;
	unsigned char model[4 * PAGE];
	struct access writer;
	unsigned char *second;
	struct world w;

	test_not_under_tsan();
	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	second = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	get(w.view + PAGE);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, copy_before_write, &copied);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&writer, w.view + PAGE, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	access_wait_blocked(&writer);
	check_view(w.view, model, 4 * PAGE);
	check_view(second, model, 4 * PAGE);
	CHECK_EQ(copied.lock_result, 0);
	CHECK_EQ(copied.copies, 1);
	CHECK_MEM(copied.bytes + PAGE, model + PAGE, PAGE);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(get(second + PAGE), 'x');
	CHECK_MEM(copied.bytes + PAGE, model + PAGE, PAGE);
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

static void copy_locked(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct copied *c = arg;

	(void)object;
	memcpy(c->bytes + run->first * PAGE, mkw_run_data(run), run->count * PAGE);
	c->copies++;
}

TEST_EACH_BACKEND(
	s1_2_locked_bytes_are_old,
	"S1.2 S4.4 what is read under the lock is what was there before the write, each time")
{
	static struct copied copied;
	unsigned char model[2 * PAGE];
	struct access writers[3];
	struct world w;

	test_not_under_tsan();
	world_make(&w, 2 * PAGE);
	script_put_pattern(w.store, 0, 2, 1);
	script_get(w.store, 0, model, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, copy_locked, &copied);
	for (unsigned round = 0; round < test_rounds(50); round++) {
		for (unsigned i = 0; i < 3; i++)
			access_write(&writers[i], w.view + PAGE + i, (unsigned char)(round + i));
		for (unsigned i = 0; i < 3; i++)
			CHECK_EQ(access_join(&writers[i]), 0);
		CHECK_MEM(copied.bytes + PAGE, model + PAGE, PAGE);
		for (unsigned i = 0; i < 3; i++)
			model[PAGE + i] = (unsigned char)(round + i);
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	}
	CHECK_EQ(copied.copies, test_rounds(50));
	world_end(&w);
}

/* ---- S1.5 --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(s1_5_once_per_transition,
		  "S1.5 I1 a thousand stores, one call; cleaned; the next store, one more")
{
	unsigned char model[PAGE] = {0};
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	for (unsigned round = 1; round <= 5; round++) {
		for (unsigned i = 0; i < 1000; i++) {
			model[i * 4] = (unsigned char)(i + round);
			put(w.view + PAGE + i * 4, model[i * 4]);
		}
		CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), round);
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		check_store(&w, PAGE, model, PAGE);
		CHECK_EQ(script_calls(w.store, SCRIPT_WRITE), round);
		/* Nothing to do: nothing is asked, nothing written. */
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		CHECK_EQ(script_calls(w.store, SCRIPT_WRITE), round);
	}
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	world_end(&w);
}

TEST_EACH_BACKEND(s1_5_other_ways,
		  "S1.5 a dirty page is written by another view and by mkw_pwrite unasked")
{
	unsigned char *second;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	second = world_map(&w, 0, 2, MKW_READ | MKW_WRITE);
	put(w.view, 'a');
	put(second + 1, 'b');
	CHECK_EQ(mkw_pwrite(w.handle, "c", 1, 2), 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "abc", 3);
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s1_5_partial_sync,
		  "S1.5 I3 cleaning some pages leaves the others writable unasked")
{
	struct world w;

	world_make(&w, 8 * PAGE);
	world_open(&w, 8 * PAGE);
	for (unsigned i = 0; i < 8; i++)
		put(w.view + i * PAGE, 'x');
	CHECK_EQ(mkw_sync(w.handle, 2 * PAGE + 1, 2 * PAGE), 0); /* pages 2, 3 and 4 */
	CHECK_EQ(world_dirty_bytes(&w), 5 * PAGE);
	script_log_clear(w.store);
	for (unsigned i = 0; i < 8; i++)
		put(w.view + i * PAGE + 1, 'y');
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, i), i >= 2 && i <= 4);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (unsigned i = 0; i < 8; i++)
		check_store(&w, i * PAGE, "xy", 2);
	world_end(&w);
}

TEST_EACH_BACKEND(s1_5_survives_unmap,
		  "S1.5 7.4 what a view wrote stays dirty when the view goes, and gets home")
{
	unsigned char *second;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, PAGE);
	second = world_map(&w, 1, 3, MKW_READ | MKW_WRITE);
	put(second + PAGE, 'x');
	CHECK_EQ(mkw_unmap(second, 3 * PAGE), 0);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	second = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	CHECK_EQ(get(second + 2 * PAGE), 'x');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 2 * PAGE, "x", 1);
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}
