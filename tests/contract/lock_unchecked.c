/* SPDX-License-Identifier: MIT */
/*
 * lock_unchecked.c - a store compiled without MKW_CHECK_LOCKS, as stores are that people use: what
 * it says of its locks is nothing, in any build of the library (store.h).
 */
#undef MKW_CHECK_LOCKS
#include "harness/world.h"

#include <stdatomic.h>

static const struct mkw_lock_class journal = {.name = "journal", .rank = -1};
static int journal_lock;
static _Atomic unsigned asked, errors;

static mkw_fault_t mkwrite_wrong_order(void *store, struct mkw_object *object, struct mkw_run *run)
{
	(void)store;
	(void)object;
	asked++;
	if (mkw_run_lock(run) != 0)
		return MKW_FAULT_NOPAGE;
	CHECK_EQ(mkw_lock_take(&journal, &journal_lock), 0);
	return MKW_FAULT_LOCKED;
}

static void errors_log(void *arg, enum mkw_log_level level, const char *message)
{
	(void)arg;
	test_note("log: %s", message);
	errors += level == MKW_LOG_ERROR;
}

TEST_EACH_BACKEND(s2_4_unchecked, "S2.4 a store that does not ask for checks is not checked")
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct world w;

	options.log = errors_log;
	world_make_with(&w, PAGE, &options);
	script_ops(w.store)->page_mkwrite = mkwrite_wrong_order;
	script_allow_ungranted(w.store);
	world_open(&w, PAGE);
	put(w.view, 'x');
	mkw_lock_drop(&journal_lock);
	CHECK_EQ(asked, 1);
	world_end(&w);
	CHECK_EQ(errors, 0);
}
