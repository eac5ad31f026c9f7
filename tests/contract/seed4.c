/* SPDX-License-Identifier: MIT */
/*
 * seed4.c - contract S4.1 to S4.7: pages that go away while the store is asked, and what its answer
 * then means. (S4.7 is also in codes.c.)
 */
#include "harness/world.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum how { PUNCH, INVALIDATE, CUT_AND_REGROW, DISCARD, HOWS };

static const char *const how_names[HOWS] = {"punch", "invalidate", "cut and regrow", "discard"};

/* Detach page 1; it stays within the object. */
static void detach(struct world *w, enum how how)
{
	test_note("detached by %s", how_names[how]);
	if (how == PUNCH)
		CHECK_EQ(mkw_punch(w->handle, PAGE, PAGE), 0);
	else if (how == INVALIDATE)
		CHECK_EQ(mkw_invalidate(w->handle, PAGE, PAGE), 0);
	else if (how == DISCARD)
		CHECK_EQ(mkw_discard(w->handle, PAGE, PAGE), 0);
	if (how != CUT_AND_REGROW)
		return;
	CHECK_EQ(mkw_truncate(w->handle, PAGE), 0);
	CHECK_EQ(mkw_truncate(w->handle, 4 * PAGE), 0);
}

/* Page 1 is detached while page_mkwrite stands at the point. The writer must end up on the page
 * that is there then: no signal, no stale byte, and that page was asked for. */
static void detach_test(enum script_manner manner, enum script_point point, bool mapped)
{
	unsigned char model[4 * PAGE];
	struct access writer;
	struct world w;

	for (unsigned how = 0; how < HOWS; how++) {
		world_make(&w, 4 * PAGE);
		script_put_pattern(w.store, 0, 4, 1);
		script_set_manner(w.store, manner);
		world_open(&w, 4 * PAGE);
		if (mapped)
			get(w.view + PAGE);
		test_gate_arm(w.store, SCRIPT_MKWRITE, point, 1);
		access_write(&writer, w.view + PAGE + 100, 'x');
		REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, point, 1));
		detach(&w, (enum how)how);
		script_get(w.store, 0, model, 4 * PAGE); /* as it is now: zeros, or as before */
		test_gate_release(w.store, SCRIPT_MKWRITE, point);
		CHECK_EQ(access_join(&writer), 0);
		model[PAGE + 100] = 'x';
		check_view(w.view, model, 4 * PAGE);
		CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 2);
		CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 1), 2);
		CHECK_EQ(world_stat(&w).refusals, 0);
		CHECK_EQ(world_stat(&w).dirty_bytes, PAGE);
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		check_store(&w, 0, model, 4 * PAGE);
		CHECK_EQ(script_reserved(w.store), 0);
		world_end(&w);
	}
}

/* ---- S4.1 --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(s4_1_zero_and_detached,
		  "S4.1 0 for a page that was detached: seen under the lock, faulted again")
{
	detach_test(SCRIPT_LEGACY, SCRIPT_EXIT, true);
}

TEST_EACH_BACKEND(s4_1_zero_and_detached_early, "S4.1 the same, detached before the store looked")
{
	detach_test(SCRIPT_LEGACY, SCRIPT_ENTRY, false);
}

TEST_EACH_BACKEND(s4_1_zero_and_attached,
		  "S4.1 0 for a page that is still there: it becomes writable")
{
	struct world w;

	world_make(&w, 2 * PAGE);
	script_set_manner(w.store, SCRIPT_LEGACY);
	world_open(&w, 2 * PAGE);
	put(w.view, 'a');
	put(w.view + 1, 'b');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "ab", 2);
	world_end(&w);
}

TEST_EACH_BACKEND(s4_1_zero_and_cut_off,
		  "S4.1 2.5 0 for a page that was cut off: refused as past the end, given back")
{
	struct access writer;
	struct world w;

	for (unsigned point = 0; point < SCRIPT_POINTS; point++) {
		world_make(&w, 4 * PAGE);
		script_set_manner(w.store, SCRIPT_LEGACY);
		world_open(&w, 4 * PAGE);
		test_gate_arm(w.store, SCRIPT_MKWRITE, (enum script_point)point, SCRIPT_ANY);
		access_write(&writer, w.view + 2 * PAGE, 'x');
		REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, (enum script_point)point,
					       1));
		CHECK_EQ(mkw_truncate(w.handle, PAGE), 0);
		test_gate_release(w.store, SCRIPT_MKWRITE, (enum script_point)point);
		CHECK_EQ(access_join(&writer), -ENXIO);
		CHECK_EQ(script_reserved(w.store), 0);
		CHECK_EQ(world_stat(&w).dirty_bytes, 0);
		CHECK_EQ(world_stat(&w).resident_bytes, 0);
		world_end(&w);
	}
}

/* ---- S4.2, S4.6 --------------------------------------------------------------------------- */

TEST_EACH_BACKEND(
	s4_2_nopage_resumes,
	"S4.2 S4.6 detached before the lock: NOPAGE, and the writer goes on with the new page")
{
	detach_test(SCRIPT_LOCKED, SCRIPT_ENTRY, true);
}

TEST_EACH_BACKEND(s4_2_nopage_resumes_absent,
		  "S4.2 S4.6 the same for a page that was absent in the view")
{
	detach_test(SCRIPT_LOCKED, SCRIPT_ENTRY, false);
}

struct early_check {
	struct script_store *store;
	int early;
	bool done;
};

/* The store's early look finds all well; then the page goes. */
static void check_early(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct early_check *e = arg;

	if (e->done)
		return;
	e->done = true;
	e->early = mkw_run_lock(run);
	if (e->early == 0)
		mkw_run_unlock(run);
	e->early |= run->page * PAGE >= mkw_object_size(object);
}

TEST_EACH_BACKEND(s4_6_early_check_is_a_hint,
		  "S4.6 a check before the lock proves nothing: the lock tells")
{
	struct early_check early = {.early = -1};
	struct access writer;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, check_early, &early);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&writer, w.view + 3 * PAGE, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	CHECK_EQ(early.early, 0);
	CHECK_EQ(mkw_truncate(w.handle, PAGE), 0);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&writer), -ENXIO);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

/* ---- S4.3 --------------------------------------------------------------------------------- */

enum { RACE_PAGES = 12, RACE_INSIDE = 8, RACE_WRITERS = 3 };

struct racing {
	struct test_thread thread;
	unsigned char *view;
	unsigned index;
	atomic_bool *stop;
	unsigned long signals, wrong;
};

/* Writes within the part that always is inside; any refusal is one too many. */
static void *race_main(void *arg)
{
	struct racing *r = arg;
	unsigned seed = r->index + 1;

	while (!atomic_load(r->stop)) {
		unsigned page = (unsigned)rand_r(&seed) % RACE_INSIDE;
		unsigned char *byte = r->view + page * PAGE + r->index, value = 0;

		r->signals += try_write(byte, (unsigned char)(page + 1), NULL) != 0;
		r->signals += try_read(byte, &value, NULL) != 0;
		r->wrong += value != 0 && value != page + 1;
	}
	return NULL;
}

static void race_test(enum script_manner manner)
{
	struct racing racing[RACE_WRITERS];
	atomic_bool stop = false;
	struct world w;

	world_make(&w, RACE_PAGES * PAGE);
	script_set_manner(w.store, manner);
	world_open(&w, RACE_PAGES * PAGE);
	for (unsigned i = 0; i < RACE_WRITERS; i++) {
		racing[i] = (struct racing){.view = w.view, .index = i, .stop = &stop};
		test_thread_start(&racing[i].thread, race_main, &racing[i]);
	}
	for (unsigned round = 0; round < test_rounds(300); round++) {
		CHECK_EQ(mkw_punch(w.handle, round % RACE_INSIDE * PAGE, 2 * PAGE), 0);
		CHECK_EQ(mkw_truncate(w.handle, (RACE_INSIDE + round % 3) * PAGE), 0);
		CHECK_EQ(mkw_truncate(w.handle, RACE_PAGES * PAGE), 0);
		if (round % 16 == 0)
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < RACE_WRITERS; i++) {
		test_thread_join(&racing[i].thread);
		CHECK_EQ(racing[i].signals, 0);
		CHECK_EQ(racing[i].wrong, 0);
	}
	CHECK_EQ(world_stat(&w).refusals, 0);
	world_settle(&w);
	world_end(&w);
}

TEST_EACH_BACKEND(s4_3_no_signal,
		  "S4.3 punched and re-extended under writers: no signal inside a valid object")
{
	race_test(SCRIPT_LOCKED);
}

TEST_EACH_BACKEND(s4_3_no_signal_legacy, "S4.3 S4.1 the same with a store that answers 0")
{
	race_test(SCRIPT_LEGACY);
}

/* ---- S4.4 --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(s4_4_writeback_after_return,
		  "S4.4 I2 write-back that starts as the callback returns finds the page dirty")
{
	unsigned char model[PAGE] = {0};
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct world w;

	/* A page cleaned under a fresh RW entry would lose the bytes written from then on, and its
	 * next write-back would have no grant: a violation. */
	options.writeback_interval_ms = 1;
	world_make_with(&w, PAGE, &options);
	w.open_flags = MKW_RDWR;
	world_open(&w, PAGE);
	for (unsigned round = 0; round < test_rounds(2000); round++) {
		model[round % PAGE] = (unsigned char)(round + 1);
		put(w.view + round % PAGE, model[round % PAGE]);
		if (round % 3 == 0)
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		if (round % 100 == 0) {
			CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
			check_store(&w, 0, model, PAGE);
		}
	}
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, PAGE);
	world_end(&w);
}

TEST_EACH_BACKEND(s4_4_sync_waits_for_the_lock,
		  "S4.4 I2 a dirty page that a callback has locked is not cleaned under it")
{
	unsigned char *second;
	struct access writer;
	struct api_call sync;
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	second = world_map(&w, 0, 2, MKW_READ | MKW_WRITE);
	/* Page 1 dirties the object so that there is something to sync; page 0 is being granted. */
	put(w.view + PAGE, 'a');
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 0);
	access_write(&writer, w.view, 'b');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 1));
	api_start(&sync, &w, mkw_sync, 0, 0);
	/* Readers need no lock of a page that is mapped. */
	CHECK_EQ(get(second + PAGE), 'a');
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(api_join(&sync), 0);
	check_store(&w, PAGE, "a", 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, "b", 1);
	CHECK_EQ(mkw_unmap(second, 2 * PAGE), 0);
	world_end(&w);
}

/* The callback reaches the page lock while the store is busy dropping the page's range: too late.
 * It must not hold a page that is about to go, nor may the drop have to wait for it. */
static void late_lock_test(api_fn drop, enum script_op op)
{
	unsigned char model[4 * PAGE] = {0};
	struct access writer;
	struct api_call call;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	get(w.view + 2 * PAGE);
	/* What is discarded has to have a reservation, or the store is not called. */
	if (op == SCRIPT_UNRESERVE)
		put(w.view + PAGE, 'y');
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, SCRIPT_ANY);
	test_gate_arm(w.store, op, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&writer, w.view + 2 * PAGE, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	api_start(&call, &w, drop, PAGE, 2 * PAGE);
	REQUIRE(test_gate_wait_arrived(w.store, op, SCRIPT_ENTRY, 1));
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 1));
	test_gate_release(w.store, op, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&call), 0);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT);
	CHECK_EQ(access_join(&writer), drop == api_truncate ? -ENXIO : 0);
	CHECK_EQ(world_dirty_bytes(&w), drop == api_truncate ? 0 : PAGE);
	model[2 * PAGE] = drop == api_truncate ? 0 : 'x';
	if (drop != api_truncate)
		check_view(w.view, model, 4 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s4_4_no_lock_under_punch,
		  "S4.4 5.2 a page whose range is being punched cannot be locked by a callback")
{
	late_lock_test(mkw_punch, SCRIPT_PUNCH);
}

TEST_EACH_BACKEND(s4_4_no_lock_under_truncate, "S4.4 5.1 the same while its range is cut off")
{
	late_lock_test(api_truncate, SCRIPT_TRUNCATE);
}

TEST_EACH_BACKEND(s4_4_no_lock_under_discard, "S4.4 I5 the same while its range is discarded")
{
	late_lock_test(mkw_discard, SCRIPT_UNRESERVE);
}

/* The same without gates: drops of every kind against callbacks that are quick. */
TEST_EACH_BACKEND(s4_4_drops_against_locks,
		  "S4.4 S4.2 pages dropped and locked at the same time, many times")
{
	struct racing racing[RACE_WRITERS];
	atomic_bool stop = false;
	struct world w;

	world_make(&w, RACE_PAGES * PAGE);
	world_open(&w, RACE_PAGES * PAGE);
	for (unsigned i = 0; i < RACE_WRITERS; i++) {
		racing[i] = (struct racing){.view = w.view, .index = i, .stop = &stop};
		test_thread_start(&racing[i].thread, race_main, &racing[i]);
	}
	for (unsigned round = 0; round < test_rounds(600); round++) {
		uint64_t offset = round * 5 % RACE_INSIDE * PAGE;
		int error;

		if (round % 3 == 0)
			CHECK_EQ(mkw_punch(w.handle, offset, 2 * PAGE), 0);
		else if (round % 3 == 1)
			CHECK_EQ(mkw_discard(w.handle, offset, 2 * PAGE), 0);
		else if ((error = mkw_invalidate(w.handle, offset, 2 * PAGE)) != 0)
			CHECK_EQ(error, -EBUSY);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < RACE_WRITERS; i++) {
		test_thread_join(&racing[i].thread);
		CHECK_EQ(racing[i].signals, 0);
		CHECK_EQ(racing[i].wrong, 0);
	}
	world_settle(&w);
	world_end(&w);
}

/* ---- S4.5 --------------------------------------------------------------------------------- */

static void substitute(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg, (void)object;
	run->first = 3;
	run->page = 3;
	run->count = 1;
}

TEST_EACH_BACKEND(s4_5_substituted_page,
		  "S4.5 a store that puts another page into its run gets neither granted unasked")
{
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	get(w.view + PAGE);
	get(w.view + 3 * PAGE);
	script_answer(w.store, SCRIPT_MKWRITE, 1, SCRIPT_FOREVER, 0);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, substitute, NULL);
	CHECK(try_write(w.view + PAGE, 'x', NULL) <= 0);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, NULL, NULL);
	script_answer(w.store, SCRIPT_MKWRITE, 1, 0, 0);
	script_log_clear(w.store);
	put(w.view + 3 * PAGE, 'y');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 3), 1);
	/* If it ignored the substitution, page 1 was granted by that answer, with nothing reserved.
	 */
	script_allow_ungranted(w.store);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 3 * PAGE, "y", 1);
	world_end(&w);
}

/* ---- S4.7 --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(s4_7_enomem_of_the_store,
		  "S4.7 a store's ENOMEM is ENOMEM to whoever wrote, by view and by call")
{
	unsigned char model[PAGE];
	struct mkw_refusal refusal;
	struct world w;

	world_make(&w, PAGE);
	script_put_pattern(w.store, 0, 1, 1);
	script_get(w.store, 0, model, PAGE);
	world_open(&w, PAGE);
	script_fail(w.store, SCRIPT_MKWRITE, 1, SCRIPT_FOREVER, -ENOMEM);
	CHECK_EQ(try_write(w.view, 'x', &refusal), -ENOMEM);
	CHECK_EQ(refusal.error, -ENOMEM);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, 0), -ENOMEM);
	CHECK_EQ(mkw_reserve(w.view, PAGE), -ENOMEM);
	check_view(w.view, model, PAGE);
	script_fail(w.store, SCRIPT_MKWRITE, 1, 0, 0);
	put(w.view, 'x');
	world_end(&w);
}
