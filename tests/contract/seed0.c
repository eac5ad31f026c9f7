/* SPDX-License-Identifier: MIT */
/*
 * seed0.c - contract S0.1 to S0.4: what may change while the store is asked, and what a refusal on
 * a fresh page leaves behind.
 */
#include "harness/world.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- S0.1 --------------------------------------------------------------------------------- */

/* The page goes while page_mkwrite stands at its exit with the space reserved, by manner locked or
 * not: its grant is lost and must count as nothing. */
TEST_EACH_BACKEND(s0_1_lost_grant_counts_nothing,
		  "S0.1 2.4 a grant whose page went is not 'write done'")
{
	struct access writer;
	struct world w;

	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	script_set_manner(w.store, SCRIPT_LEGACY);
	get(w.view + PAGE);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, SCRIPT_ANY);
	access_write(&writer, w.view + PAGE, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 1));
	CHECK_EQ(mkw_invalidate(w.handle, PAGE, PAGE), 0);
	test_gate_step(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT);
	/* It comes again, for the page as it is now. */
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, 1));
	CHECK_EQ(world_dirty_bytes(&w), 0);
	CHECK_EQ(world_stat(&w).pages_granted, 0);
	CHECK(world_stat(&w).dirty_bytes <= PAGE); /* charged for the one it asks for */
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 2);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 1), 2);
	CHECK_EQ(world_stat(&w).pages_granted, 1);
	CHECK_EQ(world_stat(&w).dirty_bytes, PAGE);
	CHECK_EQ(world_stat(&w).dirty_peak_bytes, PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "x", 1);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s0_1_pwrite_loops, "S0.1 S0.5 mkw_pwrite asks until its page is there and stays")
{
	struct world w;

	world_make(&w, 2 * PAGE);
	world_open(&w, 0);
	script_answer(w.store, SCRIPT_MKWRITE, 1, 4, MKW_FAULT_NOPAGE);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, PAGE), 1);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 5);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "x", 1);
	world_end(&w);
}

/* ---- S0.2 --------------------------------------------------------------------------------- */

struct elsewhere {
	unsigned char *other; /* a view of another object */
	unsigned char found;
	bool mapped;
	uint64_t size_bytes;
};

static void go_elsewhere(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct elsewhere *e = arg;
	void *memory;

	(void)run;
	e->found = *(volatile unsigned char *)e->other;
	*(volatile unsigned char *)(e->other + PAGE) = 'o';
	e->size_bytes = mkw_object_size(object);
	mkw_object_wake(object);
	memory = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	e->mapped = memory != MAP_FAILED;
	if (!e->mapped)
		return;
	memset(memory, 1, 64 * PAGE);
	mprotect(memory, PAGE, PROT_READ);
	munmap(memory, 64 * PAGE);
}

static void elsewhere_test(enum script_op op, enum script_point point)
{
	struct elsewhere elsewhere = {0};
	struct script_store *store = script_create(4 * PAGE);
	struct mkw_handle *handle;
	void *address;
	struct world w;

	test_not_under_tsan();
	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	script_put_pattern(store, 0, 4, 4);
	REQUIRE_EQ(script_open(store, w.space, MKW_RDWR, &handle), 0);
	REQUIRE_EQ(mkw_map(handle, 4 * PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0, &address),
		   0);
	CHECK_EQ(mkw_advise(address, 4 * PAGE, MKW_RANDOM), 0);
	elsewhere.other = address;
	script_hook(w.store, op, point, go_elsewhere, &elsewhere);
	put(w.view + PAGE, 'x');
	CHECK_EQ(elsewhere.found, script_pattern(0, 4));
	CHECK_EQ(elsewhere.size_bytes, 4 * PAGE);
	CHECK(elsewhere.mapped);
	CHECK_EQ(get(elsewhere.other + PAGE), 'o');
	CHECK_EQ(get(w.view + PAGE), 'x');
	script_hook(w.store, op, point, NULL, NULL);
	CHECK_EQ(mkw_unmap(address, 4 * PAGE), 0);
	CHECK_EQ(mkw_close(handle), 0);
	world_end(&w);
	CHECK(script_destroy(store));
}

TEST_EACH_BACKEND(s0_2_callback_goes_elsewhere,
		  "S0.2 page_mkwrite touches another object's view and maps memory")
{
	elsewhere_test(SCRIPT_MKWRITE, SCRIPT_ENTRY);
}

TEST_EACH_BACKEND(s0_2_locked_callback_goes_elsewhere, "S0.2 the same with its own pages locked")
{
	elsewhere_test(SCRIPT_MKWRITE, SCRIPT_EXIT);
}

TEST_EACH_BACKEND(s0_2_fault_goes_elsewhere, "S0.2 fault does the same")
{
	elsewhere_test(SCRIPT_FAULT, SCRIPT_ENTRY);
}

/* A chain: the store of each object touches a view of the next before it answers. */
TEST_EACH_BACKEND(
	s0_2_chain_of_objects,
	"S0.2 4.1 stores built on views of each other, deeper than there are handler threads")
{
	enum { DEPTH = 6 };
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct elsewhere elsewhere[DEPTH] = {0};
	struct script_store *stores[DEPTH];
	struct mkw_handle *handles[DEPTH];
	void *views[DEPTH];
	struct world w;

	test_not_under_tsan();
	options.workers = 2;
	world_make_with(&w, 2 * PAGE, &options);
	world_open(&w, 2 * PAGE);
	for (unsigned i = 0; i < DEPTH; i++) {
		stores[i] = script_create(2 * PAGE);
		REQUIRE_EQ(script_open(stores[i], w.space, MKW_RDWR, &handles[i]), 0);
		REQUIRE_EQ(mkw_map(handles[i], 2 * PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0,
				   &views[i]),
			   0);
		CHECK_EQ(mkw_advise(views[i], 2 * PAGE, MKW_RANDOM), 0);
	}
	for (unsigned i = 0; i < DEPTH; i++) {
		elsewhere[i].other = views[i];
		script_hook(i == 0 ? w.store : stores[i - 1], SCRIPT_MKWRITE, SCRIPT_ENTRY,
			    go_elsewhere, &elsewhere[i]);
	}
	put(w.view, 'x');
	for (unsigned i = 0; i < DEPTH; i++) {
		CHECK(elsewhere[i].mapped);
		CHECK_EQ(get((unsigned char *)views[i] + PAGE), 'o');
	}
	for (unsigned i = 0; i < DEPTH; i++) {
		CHECK_EQ(mkw_unmap(views[i], 2 * PAGE), 0);
		CHECK_EQ(mkw_close(handles[i]), 0);
	}
	world_end(&w);
	for (unsigned i = 0; i < DEPTH; i++)
		CHECK(script_destroy(stores[i]));
}

TEST_EACH_BACKEND(s0_2_api_meanwhile, "S0.2 while the store is asked no call of the API is held up")
{
	struct mkw_range range;
	struct access writer;
	struct mkw_stat stat;
	unsigned char byte;
	void *address;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	put(w.view + 2 * PAGE, 'd');
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1);
	access_write(&writer, w.view + PAGE, 'x');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	CHECK_EQ(mkw_size(w.handle), 4 * PAGE);
	CHECK_EQ(mkw_space_stat(w.space, &stat, sizeof(stat)), 0);
	CHECK_EQ(mkw_dirty_ranges(w.handle, 0, 0, &range, 1), 1);
	CHECK_EQ(mkw_map(w.handle, 4 * PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0, &address),
		 0);
	CHECK_EQ(mkw_advise(address, 4 * PAGE, MKW_RANDOM), 0);
	CHECK_EQ(get((unsigned char *)address + PAGE), script_pattern(PAGE, 1));
	put((unsigned char *)address + 3 * PAGE, 'y');
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(mkw_msync(address, 4 * PAGE), 0);
	CHECK_EQ(mkw_pread(w.handle, &byte, 1, PAGE), 1);
	CHECK_EQ(mkw_unmap(address, 4 * PAGE), 0);
	CHECK_EQ(mkw_set_limits(w.handle, 0, 0), 0);
	CHECK_EQ(mkw_truncate(w.handle, 6 * PAGE), 0);
	CHECK_EQ(mkw_punch(w.handle, 2 * PAGE, PAGE), 0);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(access_join(&writer), 0);
	CHECK_EQ(get(w.view + PAGE), 'x');
	world_end(&w);
}

/* ---- S0.3 --------------------------------------------------------------------------------- */

struct plain_access {
	struct test_thread thread;
	unsigned char *address;
	int signo;
};

static void *plain_main(void *arg)
{
	struct plain_access *a = arg;

	a->signo = plain_write(a->address, 'x', NULL);
	return NULL;
}

static int unmap_view(struct mkw_handle *handle, uint64_t address, uint64_t length)
{
	(void)handle;
	return mkw_unmap((void *)(uintptr_t)address, (size_t)length);
}

/* Unmap a view whose fault stands at a gate. mkw_unmap may end before that fault has, or wait for
 * it as munmap does in a kernel; the gate is opened when either can be seen. */
static void unmap_at_gate(struct world *w, unsigned char *view, size_t length, enum script_op op,
			  enum script_point point)
{
	struct api_call unmap;

	api_start(&unmap, w, unmap_view, (uintptr_t)view, length);
	api_wait_settled(&unmap);
	test_gate_release(w->store, op, point);
	CHECK_EQ(api_join(&unmap), 0);
}

/* There is no call that maps at a given address, but a view of the same length usually gets the one
 * that was just given up. Wherever it is, nothing of the old fault may reach it. */
static void remap_test(enum script_point point)
{
	struct script_store *store = script_create(4 * PAGE);
	struct plain_access writer;
	struct mkw_handle *handle;
	unsigned char model[4 * PAGE], zero[4 * PAGE] = {0};
	unsigned char *old;
	void *address;
	struct world w;

	plain_install();
	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	script_put_pattern(store, 0, 4, 4);
	script_get(store, 0, model, 4 * PAGE);
	REQUIRE_EQ(script_open(store, w.space, MKW_RDWR | MKW_MANUAL, &handle), 0);
	old = w.view;
	w.view = NULL;
	writer.address = old + PAGE;
	test_gate_arm(w.store, SCRIPT_MKWRITE, point, SCRIPT_ANY);
	test_thread_start(&writer.thread, plain_main, &writer);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, point, 1));
	unmap_at_gate(&w, old, 4 * PAGE, SCRIPT_MKWRITE, point);
	REQUIRE_EQ(mkw_map(handle, 4 * PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0, &address),
		   0);
	CHECK_EQ(mkw_advise(address, 4 * PAGE, MKW_RANDOM), 0);
	test_note("the new view is %s", address == old ? "at the old address" : "elsewhere");
	test_thread_join(&writer.thread);
	/* It ended on the old page, on nothing, or, having asked, on the new page. */
	CHECK(writer.signo == 0 || writer.signo == SIGSEGV);
	if (script_calls(store, SCRIPT_MKWRITE) > 0)
		model[PAGE] = 'x';
	check_view(address, model, 4 * PAGE);
	CHECK_EQ(mkw_sync(handle, 0, 0), 0);
	check_store_of(store, 0, model, 4 * PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	if (writer.signo == SIGSEGV || script_calls(store, SCRIPT_MKWRITE) > 0)
		check_store(&w, 0, zero, 4 * PAGE);
	/* What was never asked for is not writable. */
	script_log_clear(store);
	put((unsigned char *)address + PAGE, 'y');
	put((unsigned char *)address + 2 * PAGE, 'y');
	CHECK_EQ(script_calls(store, SCRIPT_MKWRITE), 2);
	CHECK_EQ(mkw_unmap(address, 4 * PAGE), 0);
	CHECK_EQ(mkw_close(handle), 0);
	world_end(&w);
	CHECK(script_destroy(store));
}

TEST_EACH_BACKEND(
	s0_3_remap_at_entry,
	"S0.3 unmapped, another object mapped, while the store is asked: that one is not touched")
{
	remap_test(SCRIPT_ENTRY);
}

TEST_EACH_BACKEND(s0_3_remap_at_exit, "S0.3 the same with the pages locked and the space reserved")
{
	remap_test(SCRIPT_EXIT);
}

TEST_EACH_BACKEND(
	s0_3_remap_same_object,
	"S0.3 unmapped, the same object mapped at another offset: only its own page is written")
{
	struct plain_access writer;
	unsigned char *old;
	struct world w;
	bool there;

	plain_install();
	world_make(&w, 8 * PAGE);
	script_put_pattern(w.store, 0, 8, 1);
	world_open(&w, 4 * PAGE);
	old = w.view;
	writer.address = old + PAGE;
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1);
	test_thread_start(&writer.thread, plain_main, &writer);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	unmap_at_gate(&w, old, 4 * PAGE, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	w.view = world_map(&w, 4, 4, MKW_READ | MKW_WRITE);
	test_thread_join(&writer.thread);
	there = script_calls_on(w.store, SCRIPT_MKWRITE, 5) > 0;
	CHECK(!there || w.view == old);
	CHECK_EQ(get(w.view + PAGE), there ? 'x' : script_pattern(5 * PAGE, 1));
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	if (there || writer.signo == SIGSEGV)
		check_store(&w, PAGE, &(unsigned char){script_pattern(PAGE, 1)}, 1);
	CHECK_EQ(script_reserved(w.store), 0);
	world_end(&w);
}

TEST_EACH_BACKEND(s0_3_unmapped_while_filled,
		  "S0.3 unmapped while a page is filled: the writer ends, the object is sound")
{
	struct plain_access writer;
	unsigned char *old;
	struct world w;

	plain_install();
	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	world_open(&w, 4 * PAGE);
	old = w.view;
	w.view = NULL;
	writer.address = old + PAGE;
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, SCRIPT_ANY);
	test_thread_start(&writer.thread, plain_main, &writer);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	unmap_at_gate(&w, old, 4 * PAGE, SCRIPT_FAULT, SCRIPT_ENTRY);
	test_thread_join(&writer.thread);
	CHECK(writer.signo == 0 || writer.signo == SIGSEGV);
	if (writer.signo == SIGSEGV && script_calls(w.store, SCRIPT_MKWRITE) == 0)
		CHECK_EQ(world_dirty_bytes(&w), 0);
	w.view = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	CHECK_EQ(get(w.view + PAGE + 1), script_pattern(PAGE + 1, 1));
	CHECK_EQ(get(w.view + PAGE), writer.signo == 0 ? 'x' : script_pattern(PAGE, 1));
	world_end(&w);
}

/* ---- S0.4 --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(s0_4_refused_fresh_page,
		  "S0.4 3.3 refused N times, a fresh page stays cached and is granted in the end")
{
	enum { TIMES = 50 };
	unsigned char model[4 * PAGE];
	struct mkw_stat stat;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_get(w.store, 0, model, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	script_fail(w.store, SCRIPT_MKWRITE, 1, TIMES, -ENOSPC);
	for (unsigned i = 0; i < TIMES; i++) {
		CHECK_EQ(try_write(w.view + 2 * PAGE + i, 'x', NULL), -ENOSPC);
		CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 1);
		CHECK_EQ(get(w.view + 2 * PAGE + i), model[2 * PAGE + i]);
	}
	stat = world_stat(&w);
	CHECK_EQ(stat.refusals, TIMES);
	CHECK_EQ(stat.resident_bytes, PAGE);
	CHECK_EQ(stat.dirty_bytes, 0);
	CHECK_EQ(script_reserved(w.store), 0);
	/* No reference is left on it: it can be dropped. */
	CHECK_EQ(mkw_invalidate(w.handle, 0, 4 * PAGE), 0);
	CHECK_EQ(world_stat(&w).resident_bytes, 0);
	put(w.view + 2 * PAGE, 'x');
	model[2 * PAGE] = 'x';
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 2);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), TIMES + 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, 0, model, 4 * PAGE);
	world_end(&w);
}
