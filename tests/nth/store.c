/* SPDX-License-Identifier: MIT */
/*
 * store.c - each operation of a store fails once, with each thing that it can answer: what was to
 * be done is refused with an error, or tried again; done again it succeeds; nothing dirty is lost;
 * and the store has been asked to give back whatever it reserved.
 *
 * The operations stand before those of a script_store, which keeps account of reservations and
 * looks whether the library keeps its side of store.h.
 */
#include "nth/model.h"

#include <errno.h>
#include <string.h>

/* Answers beside errnos, which are below them. */
enum { ANSWER_NOPAGE = 1000, ANSWER_RETRY, ANSWER_WHOLE, ANSWER_HALF };

static const struct mkw_store_ops *inner;
static size_t grant_most; /* pages; 0: as they come */

#define ANSWERS(...) ((const int[]){__VA_ARGS__, 0})

static int fails(const char *name, const int *answers)
{
	int answer = nth_operation(name, answers);

	if (answer && answer < ANSWER_NOPAGE)
		mkw_set_error(-answer, "%s was made to fail", name);
	return answer;
}

static mkw_fault_t fault_code(int answer)
{
	switch (answer) {
	case ANSWER_NOPAGE:
		return MKW_FAULT_NOPAGE;
	case ANSWER_RETRY:
		return MKW_FAULT_RETRY;
	default:
		return mkw_fault_from_errno(-answer);
	}
}

/* The test's own store is not the library. */
#define ASK(type, call)                        \
	do {                                   \
		unsigned inside = nth_leave(); \
		type answer_ = inner->call;    \
		nth_return(inside);            \
		return answer_;                \
	} while (0)
#define TELL(call)                             \
	do {                                   \
		unsigned inside = nth_leave(); \
		inner->call;                   \
		nth_return(inside);            \
	} while (0)

static mkw_fault_t nth_fault(void *store, struct mkw_object *object, struct mkw_run *run,
			     void *buffer)
{
	int answer = fails("fault",
			   ANSWERS(EIO, ENOMEM, EAGAIN, ANSWER_NOPAGE, ANSWER_RETRY, ANSWER_HALF));

	if (answer == ANSWER_HALF && run->count > 1)
		mkw_run_cut(run, run->first, run->count / 2);
	else if (answer && answer != ANSWER_HALF)
		return fault_code(answer);
	ASK(mkw_fault_t, fault(store, object, run, buffer));
}

static mkw_fault_t nth_page_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	int answer = fails("page_mkwrite", ANSWERS(ENOSPC, EIO, ENOMEM, EAGAIN, ANSWER_NOPAGE,
						   ANSWER_RETRY, ANSWER_HALF));

	if (answer == ANSWER_HALF && run->count > 1)
		mkw_run_cut(run, run->page, 1);
	else if (answer && answer != ANSWER_HALF)
		return fault_code(answer);
	else if (grant_most && run->page == run->first && run->count > grant_most)
		mkw_run_cut(run, run->first, grant_most);
	ASK(mkw_fault_t, page_mkwrite(store, object, run));
}

static void nth_unreserve(void *store, struct mkw_object *object, uint64_t first, uint64_t count)
{
	TELL(unreserve(store, object, first, count));
}

/* Whole: the operation fails. Else its first run fails, and the others are written. */
static int nth_writepages(void *store, struct mkw_object *object, struct mkw_writeback *wb)
{
	struct mkw_writeback rest = *wb;
	int answer = fails("writepages", ANSWERS(ENOSPC, EIO, ENOMEM, EAGAIN));

	if (answer) {
		wb->runs[0].result = -answer;
		rest.runs++;
		if (--rest.count == 0)
			return 0;
	} else {
		answer = fails("writepages, all of it", ANSWERS(EIO, ENOSPC, ENOMEM, EAGAIN));
		if (answer)
			return -answer;
	}
	ASK(int, writepages(store, object, &rest));
}

#define FAIL(name, ...)                                         \
	do {                                                    \
		int answer = fails(name, ANSWERS(__VA_ARGS__)); \
		if (answer)                                     \
			return -answer;                         \
	} while (0)

static int nth_truncate(void *store, struct mkw_object *object, uint64_t size_bytes)
{
	FAIL("truncate", EIO, ENOSPC, ENOMEM, EAGAIN);
	ASK(int, truncate(store, object, size_bytes));
}

static int nth_punch_hole(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	FAIL("punch_hole", EIO, ENOSPC, ENOMEM, EAGAIN);
	ASK(int, punch_hole(store, object, offset, length));
}

static int nth_fsync(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	FAIL("fsync", EIO, ENOSPC, ENOMEM, EAGAIN);
	ASK(int, fsync(store, object, offset, length));
}

static int nth_attach(void *store, struct mkw_object *object)
{
	FAIL("attach", EIO, ENOSPC, ENOMEM, EAGAIN);
	ASK(int, attach(store, object));
}

static void nth_release(void *store)
{
	TELL(release(store));
}

static int nth_control(void *store, struct mkw_object *object, const char *key, const char *value)
{
	FAIL("control", EIO, ENOSPC, ENOMEM, EAGAIN);
	ASK(int, control(store, object, key, value));
}

static int nth_capacity(void *store, uint64_t *free_bytes, uint64_t *total_bytes)
{
	FAIL("capacity", EIO, ENOMEM, EAGAIN);
	ASK(int, capacity(store, free_bytes, total_bytes));
}

static void set_ops(struct model *m)
{
	inner = script_ops(m->script);
	m->ops.fault = nth_fault;
	m->ops.page_mkwrite = nth_page_mkwrite;
	m->ops.unreserve = nth_unreserve;
	m->ops.writepages = nth_writepages;
	m->ops.truncate = nth_truncate;
	m->ops.punch_hole = nth_punch_hole;
	m->ops.fsync = nth_fsync;
	m->ops.attach = nth_attach;
	m->ops.release = nth_release;
	m->ops.control = nth_control;
	m->ops.capacity = nth_capacity;
}

static void begin(struct model *m, uint64_t pages)
{
	model_storage(m, pages);
	set_ops(m);
	nth_only_operations(true);
	REQUIRE_EQ(model_space(m), 0);
	REQUIRE_EQ(model_open(m), 0);
	REQUIRE_EQ(model_map(m), 0);
}

/* ---- Steps -------------------------------------------------------------------------------- */

static int write_some(struct model *m)
{
	return model_write(m, 0, 5, 'a');
}

static int write_later(struct model *m)
{
	return model_write(m, 3, 6, 'b');
}

static int pwrite_past_end(struct model *m)
{
	return model_pwrite(m, 9 * PAGE + 9, 3 * PAGE, 'c');
}

static int cut(struct model *m)
{
	return model_truncate(m, 4 * PAGE + 100);
}

static int grow(struct model *m)
{
	return model_truncate(m, 9 * PAGE + 50);
}

static int punch(struct model *m)
{
	return model_punch(m, PAGE + 17, 4 * PAGE);
}

static int invalidate(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_invalidate(m->handle, 0, 0));
	return error;
}

static int advise_sequential(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_advise(m->view, m->view_pages * PAGE, MKW_SEQUENTIAL));
	return error;
}

static int advise_willneed(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_advise(m->view, m->view_pages * PAGE, MKW_WILLNEED));
	return error;
}

static int reserve(struct model *m)
{
	uint64_t before = script_reserved(m->script);
	int error;

	IN_LIBRARY(error = mkw_reserve(m->view, 6 * PAGE));
	if (error)
		CHECK_EQ(script_reserved(m->script), before);
	return error;
}

static int unreserve(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_unreserve(m->view, 6 * PAGE));
	return error;
}

/* A freeze that failed has left the object thawed. */
static int freeze_and_thaw(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_freeze(m->handle));
	if (!error)
		IN_LIBRARY(error = mkw_thaw(m->handle));
	return error;
}

static int properties(struct model *m)
{
	uint64_t free_bytes, total_bytes;
	int error;

	IN_LIBRARY(error = mkw_control(m->handle, "capacity=1000"));
	if (!error)
		IN_LIBRARY(error = mkw_capacity(m->handle, &free_bytes, &total_bytes));
	return error;
}

static int msync_all(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_msync(m->view, m->view_pages * PAGE));
	return error;
}

/* ---- Scenarios ---------------------------------------------------------------------------- */

static void opening(struct model *m)
{
	model_storage(m, 8);
	set_ops(m);
	nth_only_operations(true);
	model_arm();
	STEP(m, model_space);
	STEP(m, model_open);
	STEP(m, model_map);
	STEP(m, write_some);
	STEP(m, properties);
	STEP(m, model_unmap);
	STEP(m, model_close);
	STEP(m, model_destroy);
	model_end(m);
}

TEST_EACH_BACKEND(nth_store_life, "whatever operation fails between opening an object and its end")
{
	model_loop(MODEL_SCRIPT, "", opening);
}

static void accesses(struct model *m)
{
	begin(m, 16);
	model_arm();
	STEP(m, advise_sequential);
	STEP(m, model_read);
	STEP(m, write_some);
	STEP(m, model_map_second);
	STEP(m, write_later);
	STEP(m, model_sync);
	STEP(m, write_some);
	STEP(m, msync_all);
	STEP(m, invalidate);
	STEP(m, advise_willneed);
	STEP(m, write_later);
	STEP(m, model_sync);
	model_end(m);
}

TEST_EACH_BACKEND(nth_store_accesses, "whatever operation fails while views are read and written")
{
	model_loop(MODEL_SCRIPT, "", accesses);
}

static void sizes(struct model *m)
{
	begin(m, 10);
	model_arm();
	STEP(m, write_later);
	STEP(m, cut);
	STEP(m, grow);
	STEP(m, write_some);
	STEP(m, punch);
	STEP(m, pwrite_past_end);
	STEP(m, model_sync);
	STEP(m, cut);
	STEP(m, pwrite_past_end);
	model_end(m);
}

TEST_EACH_BACKEND(nth_store_sizes,
		  "whatever operation fails while an object is cut, grown, punched")
{
	model_loop(MODEL_SCRIPT, "", sizes);
}

static void reservations(struct model *m)
{
	m->holes = true;
	begin(m, 10);
	grant_most = 2;
	model_arm();
	STEP(m, reserve);
	STEP(m, write_later);
	STEP(m, freeze_and_thaw);
	STEP(m, write_some);
	STEP(m, unreserve);
	STEP(m, freeze_and_thaw);
	STEP(m, write_later);
	model_end(m);
}

TEST_EACH_BACKEND(nth_store_reservations, "whatever operation fails while space is reserved")
{
	model_loop(MODEL_SCRIPT, "", reservations);
}

static int write_many(struct model *m)
{
	return model_write(m, 0, 12, 'k');
}

static void limits(struct model *m)
{
	m->space_options.dirty_limit_bytes = 2 * PAGE;
	m->space_options.resident_limit_bytes = 4 * PAGE;
	begin(m, 12);
	model_arm();
	STEP(m, write_many);
	STEP(m, model_read);
	model_end(m);
}

TEST_EACH_BACKEND(nth_store_limits, "whatever operation fails while room is made under limits")
{
	model_loop(MODEL_SCRIPT, "", limits);
}

static void ends(struct model *m, bool close_first)
{
	begin(m, 6);
	REQUIRE_EQ(write_some(m), 0);
	model_arm();
	if (close_first)
		STEP(m, model_close);
	STEP(m, model_unmap);
	if (!close_first)
		STEP(m, model_close);
	STEP(m, model_destroy);
	model_end(m);
}

static void end_by_close(struct model *m)
{
	ends(m, false);
}

static void end_by_unmap(struct model *m)
{
	ends(m, true);
}

static void end_by_destroy(struct model *m)
{
	begin(m, 6);
	REQUIRE_EQ(write_some(m), 0);
	model_arm();
	STEP(m, model_close);
	STEP(m, model_destroy);
	m->view = NULL;
	model_end(m);
}

TEST_EACH_BACKEND(nth_store_ends, "whatever operation fails at the end: the error is told")
{
	model_loop(MODEL_SCRIPT, "", end_by_close);
	model_loop(MODEL_SCRIPT, "", end_by_unmap);
	model_loop(MODEL_SCRIPT, "", end_by_destroy);
}

/* ---- Pins --------------------------------------------------------------------------------- */

static int write_pinned(struct model *m)
{
	return model_write_pinned(m, 1, 4, 'P');
}

static int write_pinned_again(struct model *m)
{
	return model_write_pinned(m, 2, 5, 'Q');
}

static void pins(struct model *m)
{
	begin(m, 8);
	model_arm();
	STEP(m, write_pinned);
	STEP(m, write_pinned_again);
	STEP(m, model_pin_private);
	STEP(m, model_sync);
	model_end(m);
}

TEST_EACH_BACKEND(nth_store_pins, "whatever operation fails while pages are pinned")
{
	model_loop(MODEL_SCRIPT, "", pins);
}
