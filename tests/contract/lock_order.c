/* SPDX-License-Identifier: MIT */
/*
 * lock_order.c - contract S2.4, 4.2, 4.4: one order of a store's locks and the page lock, on all
 * ways. The right order is passed over in silence; each wrong one is reported by whoever takes the
 * second lock, with both locks and both places, though nobody else is there to deadlock with.
 */
#include "harness/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mkw_lock_class outer = {.name = "outer", .rank = -2};
static const struct mkw_lock_class journal = {.name = "journal", .rank = -1};
static const struct mkw_lock_class extents = {.name = "extents", .rank = 1};
static const struct mkw_lock_class blocks = {.name = "blocks", .rank = 2};

/* ---- A store's locks ---------------------------------------------------------------------- */

static pthread_mutex_t journal_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t extents_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic unsigned journal_taken, extents_taken;

/* Hooks (script_hook). A transaction is all of an operation. */
static void journal_begin(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg;
	(void)object;
	(void)run;
	CHECK_EQ(mkw_lock_take(&journal, &journal_lock), 0);
	pthread_mutex_lock(&journal_lock);
	journal_taken++;
}

static void journal_end(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg;
	(void)object;
	(void)run;
	pthread_mutex_unlock(&journal_lock);
	mkw_lock_drop(&journal_lock);
}

static void extents_look(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg;
	(void)object;
	(void)run;
	CHECK_EQ(mkw_lock_take(&extents, &extents_lock), 0);
	pthread_mutex_lock(&extents_lock);
	extents_taken++;
	pthread_mutex_unlock(&extents_lock);
	mkw_lock_drop(&extents_lock);
}

/* With the page lock between them. */
static void extents_look_journal_end(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	extents_look(arg, object, run);
	journal_end(arg, object, run);
}

/* ---- Reports ------------------------------------------------------------------------------ */

static struct {
	pthread_mutex_t mutex;
	unsigned count;
	char text[512]; /* the last */
} reports = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void reports_log(void *arg, enum mkw_log_level level, const char *message)
{
	(void)arg;
	test_note("log (%d): %s", (int)level, message);
	if (level != MKW_LOG_ERROR)
		return;
	pthread_mutex_lock(&reports.mutex);
	reports.count++;
	snprintf(reports.text, sizeof(reports.text), "%s", message);
	pthread_mutex_unlock(&reports.mutex);
}

static unsigned reports_count(void)
{
	pthread_mutex_lock(&reports.mutex);
	unsigned count = reports.count;

	pthread_mutex_unlock(&reports.mutex);
	return count;
}

static void check_has(const char *text, const char *part)
{
	if (!CHECK(strstr(text, part) != NULL))
		test_note("\"%s\" is not in: %s", part, text);
}

/* There was one report more, with these parts. */
static void check_reported(unsigned before, const char *part, const char *other_part)
{
	CHECK_EQ(reports_count(), before + 1);
	check_has(reports.text, part);
	check_has(reports.text, other_part);
}

/* ---- A store that asks a test's function -------------------------------------------------- */

static struct {
	mkw_fault_t (*ask)(struct mkw_run *run);
	unsigned asked;
	/* noted by ask */
	int result, again;
	char sentence[256];
	const void *data;
} scene;

/* What a taking answered. */
static void scene_note(int result)
{
	scene.result = result;
	snprintf(scene.sentence, sizeof(scene.sentence), "%s", mkw_error_message());
}

static mkw_fault_t scene_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	(void)store;
	(void)object;
	scene.asked++;
	return scene.ask(run);
}

#define SCENE_PAGES 8u

static void scene_make(struct world *w)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	options.log = reports_log;
	world_make_with(w, SCENE_PAGES * PAGE, &options);
	script_put_pattern(w->store, 0, SCENE_PAGES, 1);
}

static void scene_open(struct world *w, mkw_fault_t (*ask)(struct mkw_run *run))
{
	test_not_under_tsan();
	scene_make(w);
	scene.ask = ask;
	script_ops(w->store)->page_mkwrite = scene_mkwrite;
	script_allow_ungranted(w->store);
	world_open(w, SCENE_PAGES * PAGE);
}

/* Where the first and the second lock of a pair are taken. */
static _Atomic int first_line, second_line;
#define NEXT_LINE (__LINE__ + 1)

/* "taken at lock_order.c:LINE" */
static const char *taken_at(int line)
{
	static char text[4][64];
	static unsigned next;
	char *at = text[next++ % 4];

	snprintf(at, sizeof(text[0]), "taken at lock_order.c:%d", line);
	return at;
}

/* ---- The right order ---------------------------------------------------------------------- */

static const enum script_op transactions[] = {
	SCRIPT_UNRESERVE, SCRIPT_WRITE, SCRIPT_TRUNCATE, SCRIPT_PUNCH,	 SCRIPT_FSYNC,
	SCRIPT_ATTACH,	  SCRIPT_MAP,	SCRIPT_UNMAP,	 SCRIPT_CONTROL, SCRIPT_CAPACITY,
};

static void journal_hook(struct script_store *s)
{
	for (size_t i = 0; i < sizeof(transactions) / sizeof(*transactions); i++) {
		script_hook(s, transactions[i], SCRIPT_ENTRY, journal_begin, NULL);
		script_hook(s, transactions[i], SCRIPT_EXIT, journal_end, NULL);
	}
	script_hook(s, SCRIPT_MKWRITE, SCRIPT_ENTRY, journal_begin, NULL);
	script_hook(s, SCRIPT_MKWRITE, SCRIPT_EXIT, extents_look_journal_end, NULL);
	script_hook(s, SCRIPT_FAULT, SCRIPT_ENTRY, extents_look, NULL);
}

struct writing {
	struct test_thread thread;
	struct world *world;
	unsigned number;
};

static void *writing_main(void *arg)
{
	struct writing *w = arg;
	uint64_t random = w->number;

	for (unsigned i = 0; i < test_rounds(100); i++) {
		uint64_t page = rig_random(&random) % SCENE_PAGES;
		struct mkw_refusal refusal;
		unsigned char value;
		int error = i % 2 ? try_write(w->world->view + page * PAGE, 'w', &refusal)
				  : try_read(w->world->view + page * PAGE, &value, &refusal);

		CHECK(error == 0 || error == -ENXIO);
	}
	return NULL;
}

/* All that a program can do to the object, once. */
static void everything_with(struct world *w, const char *assignment)
{
	uint64_t free_bytes, total_bytes;
	unsigned char bytes[PAGE];

	memset(bytes, 'p', sizeof(bytes));
	CHECK_EQ(mkw_sync(w->handle, 0, 0), 0);
	CHECK_EQ(mkw_pwrite(w->handle, bytes, PAGE, PAGE / 2), PAGE);
	CHECK_EQ(mkw_pread(w->handle, bytes, PAGE, PAGE), PAGE);
	CHECK_EQ(mkw_truncate(w->handle, 5 * PAGE + 100), 0);
	CHECK_EQ(mkw_truncate(w->handle, SCENE_PAGES * PAGE), 0);
	CHECK_EQ(mkw_punch(w->handle, PAGE, 2 * PAGE), 0);
	CHECK_EQ(mkw_discard(w->handle, 3 * PAGE, PAGE), 0);
	mkw_invalidate(w->handle, 0, 0);
	CHECK_EQ(mkw_reserve(w->view, 2 * PAGE), 0);
	CHECK_EQ(mkw_unreserve(w->view, 2 * PAGE), 0);
	CHECK_EQ(mkw_freeze(w->handle), 0);
	CHECK_EQ(mkw_thaw(w->handle), 0);
	CHECK_EQ(mkw_control(w->handle, assignment), 0);
	CHECK_EQ(mkw_capacity(w->handle, &free_bytes, &total_bytes), 0);
}

static void everything(struct world *w)
{
	everything_with(w, "capacity=100");
}

TEST_EACH_BACKEND(s2_4_right_order,
		  "S2.4 4.4 journal, page lock, extents: silence on all ways, from many threads")
{
	struct writing writing[3];
	struct world w;

	scene_make(&w);
	journal_hook(w.store);
	world_open(&w, SCENE_PAGES * PAGE);
	for (unsigned i = 0; i < 3; i++) {
		writing[i] = (struct writing){.world = &w, .number = i + 1};
		test_thread_start(&writing[i].thread, writing_main, &writing[i]);
	}
	for (unsigned i = 0; i < test_rounds(10); i++)
		everything(&w);
	for (unsigned i = 0; i < 3; i++)
		test_thread_join(&writing[i].thread);
	world_end(&w);
	CHECK_EQ(reports_count(), 0);
	CHECK(journal_taken > 0 && extents_taken > 0);
}

TEST_EACH_BACKEND(s2_4_discard_beside_a_question,
		  "S2.4 discard gives reservations back while page_mkwrite has the journal")
{
	struct api_call discard;
	struct access a;
	struct world w;

	scene_make(&w);
	journal_hook(w.store);
	world_open(&w, SCENE_PAGES * PAGE);
	put(w.view, 'a');
	script_fail(w.store, SCRIPT_WRITE, 1, 1, -EIO);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), -EIO);
	/* Dirty, and asked for again: both have something to do with the page. */
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	access_write(&a, w.view, 'b');
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	api_start(&discard, &w, mkw_discard, 0, PAGE);
	api_wait_blocked(&discard); /* by the journal, in unreserve */
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_EQ(api_join(&discard), 0);
	CHECK_EQ(access_join(&a), 0);
	CHECK_EQ(get(w.view), 'b');
	CHECK_EQ(get(w.view + 1), script_pattern(1, 1));
	world_end(&w);
	CHECK_EQ(reports_count(), 0);
}

/* ---- The page lock first ------------------------------------------------------------------ */

static mkw_fault_t ask_page_first(struct mkw_run *run)
{
	int error;

	first_line = NEXT_LINE;
	error = mkw_run_lock(run);
	second_line = NEXT_LINE;
	scene_note(mkw_lock_take(&journal, &journal_lock));
	if (scene.result == 0)
		mkw_lock_drop(&journal_lock);
	if (error == 0 && scene.again == 0)
		return MKW_FAULT_LOCKED;
	mkw_run_unlock(run);
	return mkw_fault_from_errno(mkw_set_error(scene.result, "%s", scene.sentence));
}

TEST_EACH_BACKEND(
	s2_4_journal_inside,
	"S2.4 4.4 page_mkwrite takes the journal after mkw_run_lock: both places, no harm")
{
	struct world w;

	scene_open(&w, ask_page_first);
	put(w.view, 'x');
	CHECK_EQ(scene.result, -EDEADLK);
	check_reported(0, "store script: journal lock (rank -1) ", taken_at(second_line));
	check_has(reports.text, " after page lock (rank 0) ");
	check_has(reports.text, taken_at(first_line));
	check_has(reports.text, scene.sentence);
	/* The store went on, and so does everything. */
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(w.view[0], 'x');
	world_end(&w);
	CHECK_EQ(reports_count(), 1);
}

TEST_EACH_BACKEND(s2_4_store_gives_up, "S2.4 a store that heeds the answer refuses with the reason")
{
	struct mkw_refusal refusal;
	struct world w;

	scene_open(&w, ask_page_first);
	scene.again = 1;
	CHECK_EQ(try_write(w.view, 'x', &refusal), -EDEADLK);
	check_has(refusal.message, "journal lock (rank -1) taken at lock_order.c:");
	check_has(refusal.message, "after page lock (rank 0) taken at lock_order.c:");
	CHECK_EQ(scene.asked, 1);
	CHECK_EQ(get(w.view), script_pattern(0, 1));
	world_end(&w);
}

/* Two threads, one after the other: the first is right. */
static mkw_fault_t ask_by_page(struct mkw_run *run)
{
	int error;

	if (run->page != 0)
		return ask_page_first(run);
	CHECK_EQ(mkw_lock_take(&journal, &journal_lock), 0);
	pthread_mutex_lock(&journal_lock);
	error = mkw_run_lock(run);
	pthread_mutex_unlock(&journal_lock);
	mkw_lock_drop(&journal_lock);
	return error == 0 ? MKW_FAULT_LOCKED : MKW_FAULT_NOPAGE;
}

TEST_EACH_BACKEND(s2_4_threads_apart,
		  "S2.4 the two sides of a deadlock at different times: the wrong one is found")
{
	struct access a;
	struct world w;

	scene_open(&w, ask_by_page);
	access_write(&a, w.view, 'a');
	CHECK_EQ(access_join(&a), 0);
	CHECK_EQ(reports_count(), 0);
	access_write(&a, w.view + PAGE, 'b');
	CHECK_EQ(access_join(&a), 0);
	check_reported(0, taken_at(second_line), taken_at(first_line));
	world_end(&w);
}

static void journal_in_fault(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg;
	(void)object;
	(void)run;
	second_line = NEXT_LINE;
	scene_note(mkw_lock_take(&journal, &journal_lock));
	if (scene.result == 0)
		mkw_lock_drop(&journal_lock);
}

TEST_EACH_BACKEND(s2_4_fault_has_pages_locked,
		  "S2.4 fault runs under page locks: what belongs before them is reported")
{
	struct world w;

	test_not_under_tsan();
	scene_make(&w);
	script_hook(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, journal_in_fault, NULL);
	world_open(&w, SCENE_PAGES * PAGE);
	CHECK_EQ(get(w.view), script_pattern(0, 1));
	CHECK_EQ(scene.result, -EDEADLK);
	check_reported(0, taken_at(second_line),
		       " after page lock (rank 0) taken at the call of fault");
	world_end(&w);
}

/* ---- The page lock last ------------------------------------------------------------------- */

static mkw_fault_t ask_page_last(struct mkw_run *run)
{
	first_line = NEXT_LINE;
	scene.again = mkw_lock_take(&extents, &extents_lock);
	second_line = NEXT_LINE;
	scene_note(mkw_run_lock(run));
	scene.data = mkw_run_data(run);
	mkw_lock_drop(&extents_lock);
	return mkw_run_lock(run) == 0 ? MKW_FAULT_LOCKED : MKW_FAULT_NOPAGE;
}

TEST_EACH_BACKEND(s2_4_page_inside,
		  "S2.4 4.2 mkw_run_lock under a lock that belongs inside: EDEADLK, nothing locked")
{
	struct world w;

	scene_open(&w, ask_page_last);
	put(w.view, 'x');
	CHECK_EQ(scene.again, 0);
	CHECK_EQ(scene.result, -EDEADLK);
	CHECK(scene.data == NULL);
	check_reported(0, "store script: page lock (rank 0) ", taken_at(second_line));
	check_has(reports.text, " after extents lock (rank 1) ");
	check_has(reports.text, taken_at(first_line));
	CHECK_EQ(scene.asked, 1);
	world_end(&w);
	CHECK_EQ(reports_count(), 1);
}

static mkw_fault_t ask_page_twice(struct mkw_run *run)
{
	CHECK_EQ(mkw_run_lock(run), 0);
	mkw_run_unlock(run);
	/* The page lock is gone. */
	CHECK_EQ(mkw_lock_take(&journal, &journal_lock), 0);
	CHECK_EQ(mkw_run_lock(run), 0);
	mkw_lock_drop(&journal_lock);
	return MKW_FAULT_LOCKED;
}

TEST_EACH_BACKEND(s2_4_unlocked_again, "S2.4 after mkw_run_unlock the page lock is not held")
{
	struct world w;

	scene_open(&w, ask_page_twice);
	put(w.view, 'x');
	/* Nor is it by this thread, after the library got the locked run. */
	CHECK_EQ(mkw_lock_take(&journal, &journal_lock), 0);
	mkw_lock_drop(&journal_lock);
	world_end(&w);
	CHECK_EQ(reports_count(), 0);
}

/* ---- A store's locks among each other ----------------------------------------------------- */

static int one, two, three; /* locks, for the checker */

static int take_pair(const struct mkw_lock_class *first, const struct mkw_lock_class *second)
{
	int error;

	first_line = NEXT_LINE;
	CHECK_EQ(mkw_lock_take(first, &one), 0);
	second_line = NEXT_LINE;
	error = mkw_lock_take(second, &two);
	if (error == 0)
		mkw_lock_drop(&two);
	mkw_lock_drop(&one);
	return error;
}

static void pair_reversed(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg;
	(void)object;
	(void)run;
	scene_note(take_pair(&journal, &outer));
}

TEST(s2_4_reversed, "S2.4 4.2 two store locks reversed: both places, in the log and as the answer")
{
	struct world w;

	scene_make(&w);
	script_hook(w.store, SCRIPT_TRUNCATE, SCRIPT_ENTRY, pair_reversed, NULL);
	world_open(&w, 0);
	CHECK_EQ(mkw_truncate(w.handle, PAGE), 0);
	CHECK_EQ(scene.result, -EDEADLK);
	check_reported(0, "outer lock (rank -2) ", taken_at(second_line));
	check_has(reports.text, " after journal lock (rank -1) ");
	check_has(reports.text, taken_at(first_line));
	world_end(&w);
}

TEST(s2_4_outside, "S2.4 outside of operations the answer tells of a wrong order, and why")
{
	static const struct mkw_lock_class journal_too = {.name = "journal-too", .rank = -1};

	CHECK_EQ(take_pair(&outer, &journal), 0);
	CHECK_EQ(take_pair(&journal, &extents), 0);
	CHECK_EQ(take_pair(&extents, &blocks), 0);
	CHECK_EQ(take_pair(&blocks, &extents), -EDEADLK);
	check_has(mkw_error_message(), taken_at(first_line));
	check_has(mkw_error_message(), taken_at(second_line));
	CHECK_EQ(take_pair(&extents, &journal), -EDEADLK);
	/* The same rank: who knows which comes first? */
	CHECK_EQ(take_pair(&journal, &journal_too), -EDEADLK);
	CHECK_EQ(take_pair(&journal, &journal), -EDEADLK);
}

TEST(s2_4_nests, "S2.4 locks of one class nest if the class says so, but none twice")
{
	static const struct mkw_lock_class groups = {"groups", 3, MKW_LOCK_NESTS};
	static const struct mkw_lock_class others = {"others", 3, MKW_LOCK_NESTS};

	CHECK_EQ(mkw_lock_take(&groups, &one), 0);
	CHECK_EQ(mkw_lock_take(&groups, &two), 0);
	CHECK_EQ(mkw_lock_take(&groups, &two), -EDEADLK);
	CHECK_EQ(mkw_lock_take(&others, &three), -EDEADLK);
	mkw_lock_drop(&one);
	CHECK_EQ(mkw_lock_take(&groups, &one), 0);
	mkw_lock_drop(&two);
	mkw_lock_drop(&one);
	CHECK_EQ(mkw_lock_take(&others, &three), 0);
	mkw_lock_drop(&three);
}

TEST(s2_4_bad_class, "S2.4 no class, rank 0, more locks than are noted, drops of what is not held")
{
	static const struct mkw_lock_class zero = {.name = "zero"};
	static const struct mkw_lock_class many = {"many", -3, MKW_LOCK_NESTS};
	char locks[20];

	CHECK_EQ(mkw_lock_take(NULL, &one), -EINVAL);
	CHECK_EQ(mkw_lock_take(&zero, &one), -EINVAL);
	mkw_lock_drop(&one);
	for (size_t i = 0; i < sizeof(locks); i++)
		CHECK_EQ(mkw_lock_take(&many, &locks[i]), 0);
	for (size_t i = 0; i < sizeof(locks); i++)
		mkw_lock_drop(&locks[i]);
	CHECK_EQ(take_pair(&outer, &journal), 0);
}

/* ---- Held too long ------------------------------------------------------------------------ */

static void take_and_leave(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg;
	(void)object;
	(void)run;
	second_line = NEXT_LINE;
	CHECK_EQ(mkw_lock_take(&extents, &extents_lock), 0);
}

static void take_nothing_wrong(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	(void)arg;
	(void)object;
	(void)run;
	CHECK_EQ(take_pair(&outer, &journal), 0);
}

TEST_EACH_BACKEND(s2_4_left_held,
		  "S2.4 4.2 a lock still held at the end of an operation, whichever it is")
{
	static const struct {
		enum script_op op;
		const char *name;
	} ops[] = {
		{SCRIPT_FAULT, "fault"},       {SCRIPT_MKWRITE, "page_mkwrite"},
		{SCRIPT_WRITE, "writepages"},  {SCRIPT_FSYNC, "fsync"},
		{SCRIPT_TRUNCATE, "truncate"}, {SCRIPT_PUNCH, "punch_hole"},
		{SCRIPT_CONTROL, "control"},   {SCRIPT_UNRESERVE, "unreserve"},
		{SCRIPT_MAP, "map"},	       {SCRIPT_UNMAP, "unmap"},
		{SCRIPT_ATTACH, "attach"},     {SCRIPT_CAPACITY, "capacity"},
		{SCRIPT_RELEASE, "release"},
	};
	char end[64];

	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
		unsigned before = reports_count();
		struct world w;

		scene_make(&w);
		script_hook(w.store, ops[i].op, SCRIPT_EXIT, take_and_leave, NULL);
		world_open(&w, SCENE_PAGES * PAGE);
		put(w.view, 'x');
		everything(&w);
		world_end(&w);
		CHECK(reports_count() > before);
		snprintf(end, sizeof(end), " is still held at the end of %s", ops[i].name);
		check_has(reports.text, "extents lock (rank 1) ");
		check_has(reports.text, taken_at(second_line));
		check_has(reports.text, end);
	}
}

TEST(s2_4_left_and_forgotten, "S2.4 what was left is reported once, and held against nobody")
{
	struct world w;

	scene_make(&w);
	script_hook(w.store, SCRIPT_TRUNCATE, SCRIPT_EXIT, take_and_leave, NULL);
	script_hook(w.store, SCRIPT_PUNCH, SCRIPT_ENTRY, take_nothing_wrong, NULL);
	world_open(&w, 0);
	CHECK_EQ(mkw_truncate(w.handle, 4 * PAGE), 0);
	CHECK_EQ(reports_count(), 1);
	CHECK_EQ(mkw_punch(w.handle, 0, PAGE), 0);
	CHECK_EQ(take_pair(&outer, &journal), 0);
	mkw_lock_drop(&extents_lock);
	CHECK_EQ(reports_count(), 1);
	world_end(&w);
}

/* ---- Brought along, and elsewhere --------------------------------------------------------- */

static mkw_fault_t ask_plain(struct mkw_run *run)
{
	scene_note(mkw_run_lock(run));
	return scene.result == 0 ? MKW_FAULT_LOCKED : mkw_fault_from_errno(scene.result);
}

TEST(s2_4_brought_along, "S2.4 a lock that the caller took before counts inside its operation")
{
	struct world w;

	scene_open(&w, ask_plain);
	CHECK_EQ(mkw_lock_take(&extents, &one), 0);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, 0), -EDEADLK);
	check_reported(0, "page lock (rank 0) taken at ", " after extents lock (rank 1) taken at ");
	mkw_lock_drop(&one);
	CHECK_EQ(mkw_lock_take(&journal, &one), 0);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, 0), 1);
	mkw_lock_drop(&one);
	world_end(&w);
	CHECK_EQ(reports_count(), 1);
}

static unsigned char *elsewhere;

static mkw_fault_t ask_elsewhere(struct mkw_run *run)
{
	CHECK_EQ(mkw_lock_take(&extents, &one), 0);
	put(elsewhere, 'y');
	mkw_lock_drop(&one);
	CHECK_EQ(mkw_run_lock(run), 0);
	return MKW_FAULT_LOCKED;
}

TEST_EACH_BACKEND(s2_4_other_object, "S2.4 the page lock of another object is another lock")
{
	struct script_store *store = script_create(PAGE);
	struct mkw_handle *handle;
	void *address;
	struct world w;

	scene_open(&w, ask_elsewhere);
	journal_hook(store);
	REQUIRE_EQ(script_open(store, w.space, MKW_RDWR, &handle), 0);
	REQUIRE_EQ(mkw_map(handle, PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0, &address), 0);
	elsewhere = address;
	put(w.view, 'x');
	CHECK_EQ(elsewhere[0], 'y');
	CHECK_EQ(mkw_unmap(address, PAGE), 0);
	CHECK_EQ(mkw_close(handle), 0);
	world_end(&w);
	CHECK(script_destroy(store));
	CHECK_EQ(reports_count(), 0);
}

/* ---- The library's own stores ------------------------------------------------------------- */

static void need_checked_library(void)
{
#ifndef MKW_DEBUG
	SKIP("this build does not check the library's own locks: buildtype=debug does");
#endif
}

static void built_in_test(const char *uri)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct writing writing[2];
	struct world w = {0};

	options.log = reports_log;
	REQUIRE_EQ(mkw_space_create(&options, &w.space), 0);
	REQUIRE_EQ(mkw_open(w.space, uri, MKW_RDWR, &w.handle), 0);
	w.view = world_map(&w, 0, SCENE_PAGES, MKW_READ | MKW_WRITE);
	for (unsigned i = 0; i < 2; i++) {
		writing[i] = (struct writing){.world = &w, .number = i + 1};
		test_thread_start(&writing[i].thread, writing_main, &writing[i]);
	}
	for (unsigned i = 0; i < test_rounds(5); i++)
		everything_with(&w, "quota=1M");
	for (unsigned i = 0; i < 2; i++)
		test_thread_join(&writing[i].thread);
	CHECK_EQ(mkw_unmap(w.view, SCENE_PAGES * PAGE), 0);
	CHECK_EQ(mkw_close(w.handle), 0);
	CHECK_EQ(mkw_space_destroy(w.space, 0), 0);
	CHECK_EQ(reports_count(), 0);
}

TEST_EACH_BACKEND(s2_4_mem, "S2.4 the mem store takes its locks in one order, on all ways")
{
	need_checked_library();
	built_in_test("mem:32K?quota=64K");
}

TEST_EACH_BACKEND(s2_4_file, "S2.4 the file store too")
{
	char path[RIG_PATH_MAX], uri[RIG_PATH_MAX + 16];

	need_checked_library();
	rig_file_make(path, SCENE_PAGES * PAGE);
	snprintf(uri, sizeof(uri), "file:%s", path);
	built_in_test(uri);
	rig_file_remove(path);
}
