/* SPDX-License-Identifier: MIT */
/*
 * codes.c - contract 3.4, 3.5 and the codes part of 11: what the library makes of every answer that
 * a store can give, sensible or not.
 */
#include "harness/world.h"

#include <string.h>

/* However often the library asks before it gives up, it is fewer than this. */
#define BOUND 100000

/* Pages with a pattern; the test writes page 1. */
static void codes_open(struct world *w)
{
	world_make(w, 4 * PAGE);
	script_put_pattern(w->store, 0, 4, 1);
	world_open(w, 4 * PAGE);
}

/* The store is itself again: the page can be written, once, and gets home. */
static void codes_close(struct world *w)
{
	unsigned char model[PAGE];

	script_answer(w->store, SCRIPT_MKWRITE, 1, 0, 0);
	script_answer(w->store, SCRIPT_FAULT, 1, 0, 0);
	CHECK_EQ(mkw_sync(w->handle, 0, 0), 0);
	script_get(w->store, PAGE, model, PAGE);
	model[77] = (unsigned char)~model[77];
	put(w->view + PAGE + 77, model[77]);
	check_view(w->view + PAGE, model, PAGE);
	CHECK_EQ(mkw_sync(w->handle, 0, 0), 0);
	check_store(w, PAGE, model, PAGE);
	CHECK_EQ(world_dirty_bytes(w), 0);
	world_end(w);
}

static unsigned char kept(unsigned offset)
{
	return script_pattern(PAGE + offset, 1);
}

/* ---- 3.5 ---------------------------------------------------------------------------------- */

TEST(r3_5_errno_to_code, "3.5 errno to code: truncated and busy are races, memory is memory")
{
	static const int refused[] = {ENOSPC, EDQUOT, EIO, EINVAL, EROFS, EPERM, EDEADLK, ENXIO};

	CHECK_EQ(mkw_fault_from_errno(0), MKW_FAULT_LOCKED);
	CHECK_EQ(mkw_fault_from_errno(-EFAULT), MKW_FAULT_NOPAGE);
	CHECK_EQ(mkw_fault_from_errno(-EAGAIN), MKW_FAULT_NOPAGE);
	CHECK_EQ(mkw_fault_from_errno(-ENOMEM), MKW_FAULT_OOM);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		CHECK_EQ(mkw_fault_from_errno(-refused[i]), MKW_FAULT_SIGBUS);
}

TEST_EACH_BACKEND(r3_5_reason_arrives, "3.5 the reason of a refusal reaches whoever was refused")
{
	static const int reasons[] = {ENOSPC, EDQUOT, EIO, EROFS, EINVAL};
	struct mkw_refusal refusal;
	struct world w;

	codes_open(&w);
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		script_fail(w.store, SCRIPT_MKWRITE, 1, 1, -reasons[i]);
		CHECK_EQ(try_write(w.view + PAGE + 9, 'x', &refusal), -reasons[i]);
		CHECK_EQ(refusal.error, -reasons[i]);
		CHECK(refusal.address == w.view + PAGE + 9);
		CHECK(refusal.write);
		CHECK_EQ(refusal.offset / PAGE, 1);
		CHECK(strstr(refusal.message, "scripted failure"));
		CHECK_EQ(mkw_last_refusal(&refusal), 0);
		CHECK_EQ(refusal.error, -reasons[i]);

		script_fail(w.store, SCRIPT_MKWRITE, 1, 1, -reasons[i]);
		CHECK_EQ(mkw_pwrite(w.handle, "x", 1, PAGE + 9), -reasons[i]);
		CHECK(strstr(mkw_error_message(), "scripted failure"));
		CHECK_EQ(get(w.view + PAGE + 9), kept(9));
	}
	CHECK_EQ(world_stat(&w).refusals, 2 * sizeof(reasons) / sizeof(reasons[0]));
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_sigbus_without_reason,
		  "3.4 3.5 a refusal without a reason is EIO, never a stale reason")
{
	struct world w;

	codes_open(&w);
	script_fail(w.store, SCRIPT_MKWRITE, 1, 1, -EDQUOT);
	CHECK_EQ(try_write(w.view + PAGE, 'x', NULL), -EDQUOT);
	script_answer(w.store, SCRIPT_MKWRITE, 1, 1, MKW_FAULT_SIGBUS);
	CHECK_EQ(try_write(w.view + PAGE, 'x', NULL), -EIO);
	/* An API call has left an error in this very thread. */
	script_fail(w.store, SCRIPT_MKWRITE, 1, 1, -EDQUOT);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, PAGE), -EDQUOT);
	script_answer(w.store, SCRIPT_MKWRITE, 1, 1, MKW_FAULT_SIGBUS);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, PAGE), -EIO);
	codes_close(&w);
}

/* ---- 3.4: success ------------------------------------------------------------------------- */

static void check_success(enum script_manner manner)
{
	struct world w;

	codes_open(&w);
	script_set_manner(w.store, manner);
	put(w.view + PAGE, 'x');
	put(w.view + PAGE + 1, 'y');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 1);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "xy", 2);
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_locked, "3.4 LOCKED is success")
{
	check_success(SCRIPT_LOCKED);
}

TEST_EACH_BACKEND(r3_4_zero, "3.4 S4.1 0 is success too: the library locks")
{
	check_success(SCRIPT_LEGACY);
}

TEST_EACH_BACKEND(r3_4_major, "3.4 MAJOR is a statistic, or-ed in")
{
	struct world w;

	codes_open(&w);
	script_answer_locked(w.store, 1, 1, MKW_FAULT_LOCKED | MKW_FAULT_MAJOR);
	put(w.view + PAGE, 'x');
	script_answer(w.store, SCRIPT_MKWRITE, 1, 1, MKW_FAULT_MAJOR);
	put(w.view + 2 * PAGE, 'y');
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 2);
	CHECK_EQ(world_dirty_bytes(&w), 2 * PAGE);
	/* Those two answers granted without reserving. */
	script_allow_ungranted(w.store);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "x", 1);
	check_store(&w, 2 * PAGE, "y", 1);
	codes_close(&w);
}

/* ---- 3.4: ask again ----------------------------------------------------------------------- */

static void check_again(long code)
{
	struct world w;

	codes_open(&w);
	script_answer(w.store, SCRIPT_MKWRITE, 1, 3, code);
	put(w.view + PAGE, 'x');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 4);
	CHECK_EQ(world_stat(&w).refusals, 0);
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_nopage, "3.4 S4.2 NOPAGE: the access faults again")
{
	check_again(MKW_FAULT_NOPAGE);
}

TEST_EACH_BACKEND(r3_4_retry, "3.4 11 RETRY: asked again, not granted")
{
	check_again(MKW_FAULT_RETRY);
}

static void check_bounded(enum script_op op, long code, int error)
{
	struct mkw_refusal refusal;
	struct world w;

	codes_open(&w);
	script_answer(w.store, op, 1, SCRIPT_FOREVER, code);
	CHECK_EQ(try_write(w.view + PAGE + 5, 'x', &refusal), error);
	CHECK(refusal.address == w.view + PAGE + 5);
	CHECK(script_calls(w.store, op) < BOUND);
	CHECK_EQ(mkw_pwrite(w.handle, "x", 1, PAGE + 5), error);
	CHECK(script_calls(w.store, op) < 2 * BOUND);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	CHECK_EQ(world_stat(&w).dirty_bytes, 0);
	script_answer(w.store, op, 1, 0, 0);
	CHECK_EQ(get(w.view + PAGE + 5), kept(5));
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_nopage_bounded, "3.4 11 NOPAGE for ever is refused with EAGAIN")
{
	check_bounded(SCRIPT_MKWRITE, MKW_FAULT_NOPAGE, -EAGAIN);
}

TEST_EACH_BACKEND(r3_4_retry_bounded, "3.4 11 RETRY for ever is refused with EAGAIN")
{
	check_bounded(SCRIPT_MKWRITE, MKW_FAULT_RETRY, -EAGAIN);
}

TEST_EACH_BACKEND(r3_4_fault_nopage_bounded,
		  "3.4 11 NOPAGE for ever, of fault, is refused with EAGAIN")
{
	check_bounded(SCRIPT_FAULT, MKW_FAULT_NOPAGE, -EAGAIN);
}

TEST_EACH_BACKEND(r3_4_fault_retry_bounded,
		  "3.4 11 RETRY for ever, of fault, is refused with EAGAIN")
{
	check_bounded(SCRIPT_FAULT, MKW_FAULT_RETRY, -EAGAIN);
}

TEST_EACH_BACKEND(s4_7_oom_is_not_sigbus, "S4.7 3.4 no memory for ever is ENOMEM, not EIO")
{
	check_bounded(SCRIPT_MKWRITE, MKW_FAULT_OOM, -ENOMEM);
}

TEST_EACH_BACKEND(s4_7_fault_oom_is_not_sigbus, "S4.7 3.4 no memory for ever, in fault, is ENOMEM")
{
	check_bounded(SCRIPT_FAULT, MKW_FAULT_OOM, -ENOMEM);
}

TEST_EACH_BACKEND(s4_7_oom_passes, "S4.7 3.4 no memory once: reclaimed and asked again")
{
	struct world w;

	codes_open(&w);
	script_fail(w.store, SCRIPT_MKWRITE, 1, 1, -ENOMEM);
	put(w.view + PAGE, 'x');
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 2);
	script_fail(w.store, SCRIPT_FAULT, 1, 1, -ENOMEM);
	CHECK_EQ(get(w.view + 3 * PAGE), script_pattern(3 * PAGE, 1));
	CHECK_EQ(world_stat(&w).refusals, 0);
	codes_close(&w);
}

/* ---- 3.4: fault --------------------------------------------------------------------------- */

TEST_EACH_BACKEND(r3_4_fault_refused,
		  "3.4 3.5 fault refuses a read: the reason arrives, a later read is filled")
{
	struct mkw_refusal refusal;
	unsigned char value;
	struct world w;

	codes_open(&w);
	script_fail(w.store, SCRIPT_FAULT, 1, 2, -EIO);
	CHECK_EQ(try_read(w.view + PAGE + 3, &value, &refusal), -EIO);
	CHECK(refusal.address == w.view + PAGE + 3);
	CHECK(!refusal.write);
	CHECK_EQ(mkw_pread(w.handle, &value, 1, PAGE), -EIO);
	CHECK_EQ(get(w.view + PAGE + 3), kept(3));
	CHECK_EQ(script_calls_on(w.store, SCRIPT_FAULT, 1), 3);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_fault_refused_write,
		  "3.4 fault refuses a write: nothing is asked of page_mkwrite")
{
	struct world w;

	codes_open(&w);
	script_fail_page(w.store, SCRIPT_FAULT, 1, -EIO);
	CHECK_EQ(try_write(w.view + PAGE, 'x', NULL), -EIO);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(get(w.view + 2 * PAGE), script_pattern(2 * PAGE, 1));
	script_fail_page(w.store, SCRIPT_FAULT, 1, 0);
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_fault_nopage, "3.4 NOPAGE and RETRY of fault: asked again")
{
	struct world w;

	codes_open(&w);
	script_answer(w.store, SCRIPT_FAULT, 1, 2, MKW_FAULT_NOPAGE);
	CHECK_EQ(get(w.view + PAGE + 1), kept(1));
	script_answer(w.store, SCRIPT_FAULT, 1, 2, MKW_FAULT_RETRY);
	CHECK_EQ(get(w.view + 2 * PAGE), script_pattern(2 * PAGE, 1));
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 6);
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_fault_hole, "3.4 fault may say hole and fill nothing: the page is zeros")
{
	unsigned char zero[PAGE] = {0};
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 1, 1);
	script_set_holes(w.store, true);
	world_open(&w, 4 * PAGE);
	/* The buffer of a hole may still hold what an earlier fill put there. */
	CHECK_EQ(get(w.view), script_pattern(0, 1));
	check_view(w.view + PAGE, zero, PAGE);
	put(w.view + 2 * PAGE, 'x');
	CHECK_EQ(get(w.view + 2 * PAGE + 1), 0);
	world_end(&w);
}

/* ---- Nonsense ----------------------------------------------------------------------------- */

static const long nonsense[] = {
	0x8000,
	0xffffffff,
	MKW_FAULT_LOCKED | MKW_FAULT_SIGBUS,
	MKW_FAULT_LOCKED | MKW_FAULT_OOM,
	MKW_FAULT_LOCKED | MKW_FAULT_NOPAGE,
	MKW_FAULT_RETRY | MKW_FAULT_SIGBUS,
	MKW_FAULT_NOPAGE | MKW_FAULT_RETRY,
	0x0008,
	0x0010,
};

TEST_EACH_BACKEND(r3_4_nonsense, "3.4 a code that is none is a refusal with a reason, and no grant")
{
	struct world w;

	codes_open(&w);
	for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		script_answer(w.store, SCRIPT_MKWRITE, 1, SCRIPT_FOREVER, nonsense[i]);
		test_note("code %#lx", (unsigned long)nonsense[i]);
		CHECK(try_write(w.view + PAGE, 'x', NULL) < 0);
		CHECK_EQ(get(w.view + PAGE), kept(0));
		CHECK_EQ(world_dirty_bytes(&w), 0);
		CHECK(mkw_pwrite(w.handle, "x", 1, PAGE) < 0);
		CHECK(mkw_error_message()[0]);
	}
	CHECK(script_calls(w.store, SCRIPT_MKWRITE) < BOUND);
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_nonsense_locked,
		  "3.4 the same with the pages left locked: they are unlocked")
{
	struct world w;

	codes_open(&w);
	for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		script_answer_locked(w.store, 1, SCRIPT_FOREVER, nonsense[i]);
		test_note("code %#lx", (unsigned long)nonsense[i]);
		CHECK(try_write(w.view + PAGE, 'x', NULL) < 0);
		CHECK_EQ(get(w.view + PAGE), kept(0));
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	}
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_nonsense_fault, "3.4 the same of fault")
{
	unsigned char value;
	struct world w;

	codes_open(&w);
	for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		script_answer(w.store, SCRIPT_FAULT, 1, SCRIPT_FOREVER, nonsense[i]);
		test_note("code %#lx", (unsigned long)nonsense[i]);
		CHECK(try_read(w.view + PAGE, &value, NULL) < 0);
		CHECK(mkw_pread(w.handle, &value, 1, PAGE) < 0);
	}
	CHECK(script_calls(w.store, SCRIPT_FAULT) < BOUND);
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_locked_but_unlocked,
		  "3.4 S4.4 LOCKED of a run that is not locked is a refusal")
{
	struct mkw_refusal refusal;
	struct world w;

	codes_open(&w);
	script_answer(w.store, SCRIPT_MKWRITE, 1, SCRIPT_FOREVER, MKW_FAULT_LOCKED);
	CHECK(try_write(w.view + PAGE, 'x', &refusal) < 0);
	CHECK(refusal.message[0]);
	CHECK(script_calls(w.store, SCRIPT_MKWRITE) < BOUND);
	CHECK_EQ(get(w.view + PAGE), kept(0));
	CHECK_EQ(world_dirty_bytes(&w), 0);
	codes_close(&w);
}

/* What answers other than LOCKED mean is clear even if the pages were left locked; nobody may hang
 * on them afterwards. */
TEST_EACH_BACKEND(r3_3_left_locked, "3.3 pages that a store left locked are unlocked for it")
{
	static const long codes[] = {MKW_FAULT_SIGBUS, MKW_FAULT_NOPAGE, MKW_FAULT_RETRY,
				     MKW_FAULT_OOM};
	struct world w;

	codes_open(&w);
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		script_answer_locked(w.store, 1, SCRIPT_FOREVER, codes[i]);
		test_note("code %#lx", (unsigned long)codes[i]);
		CHECK(try_write(w.view + PAGE, 'x', NULL) < 0);
		CHECK_EQ(get(w.view + PAGE), kept(0));
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
		CHECK_EQ(mkw_invalidate(w.handle, 0, 4 * PAGE), 0);
	}
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_3_left_locked_zero, "3.3 0 with the pages locked: granted, nobody hangs")
{
	struct world w;

	codes_open(&w);
	script_answer_locked(w.store, 1, 1, 0);
	/* Success or refusal, but an end; a grant was not reserved in either case. */
	script_allow_ungranted(w.store);
	try_write(w.view + PAGE, kept(0), NULL);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	codes_close(&w);
}

TEST_EACH_BACKEND(r3_4_writepages_nonsense, "11 a positive answer of writepages loses nothing")
{
	struct world w;

	codes_open(&w);
	put(w.view + PAGE, 'x');
	script_answer(w.store, SCRIPT_WRITE, 1, 1, 17);
	CHECK(mkw_sync(w.handle, 0, 0) < 0);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	check_store(&w, PAGE, "x", 1);
	codes_close(&w);
}
