/* SPDX-License-Identifier: MIT */
/*
 * latest.c - at which access each thread of the program is, as far as reports tell.
 *
 * A signal interrupts a thread's wait, and it faults anew: at the same access, or in its handler at
 * another. So it may have several faults under way, of which one may be refused to it, and only
 * while it is at that access: a SIGBUS would reach it wherever it is. For the whole process the
 * latest access of each thread is kept: tid above, a hash of address and access below, with a bit
 * that says whether it was refused. Threads whose tids share a place overwrite each other: then
 * nothing is known, and a refusal is delivered.
 *
 * No locks: a word for each thread, changed atomically.
 */
#include "vm.h"

#define LATEST_PLACES	 16384
#define LATEST_TID_SHIFT 40
#define LATEST_OPEN	 1u /* not refused */

static _Atomic uint64_t latest[LATEST_PLACES];

static _Atomic uint64_t *latest_place(pid_t tid)
{
	return &latest[(unsigned)tid % LATEST_PLACES];
}

static uint64_t fault_latest_word(const struct fault *f)
{
	uint64_t hash = ((uint64_t)f->address << 1 | (f->access == MMU_WRITE)) * 0x9e3779b97f4a7c15;

	return (uint64_t)f->tid << LATEST_TID_SHIFT | hash >> (64 - LATEST_TID_SHIFT) | LATEST_OPEN;
}

static uint64_t fault_answered_word(const struct fault *f)
{
	return fault_latest_word(f) & ~(uint64_t)LATEST_OPEN;
}

bool fault_is_void(const struct fault *f)
{
	uint64_t now = atomic_load(latest_place(f->tid));

	return f->kind == FAULT_EVENT && now >> LATEST_TID_SHIFT == (uint64_t)f->tid &&
	       now != fault_latest_word(f);
}

bool fault_answer_latest(const struct fault *f)
{
	uint64_t expected = fault_latest_word(f);

	return atomic_compare_exchange_strong(latest_place(f->tid), &expected,
					      fault_answered_word(f)) ||
	       expected >> LATEST_TID_SHIFT != (uint64_t)f->tid;
}

bool fault_set_latest(const struct fault *f)
{
	uint64_t word = fault_latest_word(f);

	return atomic_exchange(latest_place(f->tid), word) != fault_answered_word(f);
}

/*
 * A report's time is from before the read that brought it, which may have waited long: a wake since
 * then need not have been this thread's. A fault that was dropped for such a wake comes again,
 * woken by whoever resumed it; should the reader have been waiting all the while, its report is as
 * old again, and so for ever. So the word of a dropped fault is kept, and if it comes again with an
 * old report the reader itself wakes it: what it reads next is newer than that.
 */
static _Atomic uint64_t dropped[LATEST_PLACES];

void fault_note_dropped(const struct fault *f)
{
	atomic_store(&dropped[(unsigned)f->tid % LATEST_PLACES], fault_latest_word(f));
}

bool fault_came_again_old(const struct fault *f)
{
	return atomic_load(&dropped[(unsigned)f->tid % LATEST_PLACES]) == fault_latest_word(f) &&
	       mmu_woken_since(f->address, f->reported);
}

bool fault_was_answered(const struct fault *f)
{
	return atomic_load(latest_place(f->tid)) == fault_answered_word(f);
}
