/* SPDX-License-Identifier: MIT */
/*
 * refusal.c - how the reason of a refusal reaches whoever was refused: a table of recent refusals
 * by thread, guards, and mkw_last_refusal. The kernel's own interface has room for an address only
 * (contract 3.5: "the reason is lost to system calls").
 */
#include "vm.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>

#define RECORDS	   256
#define LOCK_TRIES 1000u

/* Taken in signal handlers too. Asynchronous ones are kept out by the shield; of ours, one that
 * comes late may interrupt the holder, and only tries (refusal_take). */
static struct env_mutex records_lock = {PTHREAD_MUTEX_INITIALIZER, RANK_LEAF};
static struct {
	pid_t tid;
	unsigned in_a_row;
	uint64_t reported; /* mmu_report_time of the fault */
	bool taken;	   /* by a signal: a second one of the same access comes too late */
	struct mkw_refusal refusal;
} records[RECORDS];
static unsigned records_next; /* where a new thread's record goes: the oldest */

static _Thread_local struct guard *guards;

/* => records_lock held. -1: none. */
static int record_find(pid_t tid)
{
	for (int i = 0; i < RECORDS; i++)
		if (records[i].tid == tid)
			return i;
	return -1;
}

unsigned refusal_record(pid_t tid, const struct mkw_refusal *refusal, uint64_t reported)
{
	unsigned in_a_row;
	int i;

	env_lock(&records_lock);
	i = record_find(tid);
	if (i < 0) {
		i = (int)(records_next++ % RECORDS);
		records[i].tid = tid;
		records[i].refusal.address = NULL;
	}
	records[i].in_a_row =
		records[i].refusal.address == refusal->address ? records[i].in_a_row + 1 : 1;
	records[i].refusal = *refusal;
	records[i].reported = reported;
	records[i].taken = false;
	in_a_row = records[i].in_a_row;
	env_unlock(&records_lock);
	return in_a_row;
}

/*
 * A signal may come late, when its thread has long been let go: it is at another place, perhaps in
 * here, and holds the lock itself. Others hold it for no longer than a few tries take.
 */
bool refusal_take(pid_t tid, uintptr_t address, struct mkw_refusal *refusal)
{
	bool found = false;
	uintptr_t at;
	int i;

	for (unsigned tries = 1; !env_try_lock(&records_lock); tries++)
		if (tries == LOCK_TRIES)
			return false;
	i = record_find(tid);
	if (i >= 0) {
		at = (uintptr_t)records[i].refusal.address;
		/* A refusal that no signal was sent for has no report. */
		found = (at == address || (address == 0 && at != 0)) && !records[i].taken &&
			records[i].reported != UINT64_MAX &&
			!mmu_woken_since(at, records[i].reported);
		records[i].taken |= found;
	}
	if (found)
		*refusal = records[i].refusal;
	env_unlock(&records_lock);
	return found;
}

int mkw_last_refusal(struct mkw_refusal *refusal)
{
	struct mkw_refusal last;
	struct env_shield shield;
	bool found;
	int i;

	if (refusal == NULL)
		return -EINVAL;
	env_shield(&shield);
	env_lock(&records_lock);
	i = record_find(env_tid());
	found = i >= 0;
	if (found)
		last = records[i].refusal;
	env_unlock(&records_lock);
	env_unshield(&shield);
	if (found) /* that may lie in a view */
		*refusal = last;
	return found ? 0 : -ENOENT;
}

void refusals_abandon(void)
{
	static const struct env_mutex fresh = {PTHREAD_MUTEX_INITIALIZER, RANK_LEAF};

	records_lock = fresh;
}

/* ---- Guards ------------------------------------------------------------------------------- */

void guard_push(struct guard *g)
{
	g->up = guards;
	guards = g;
}

void guard_pop(struct guard *g)
{
	guards = g->up;
}

void refusal_deliver(const struct mkw_refusal *refusal)
{
	struct guard *g = guards;
	int i;

	if (g == NULL)
		return;
	env_lock(&records_lock);
	i = record_find(env_tid());
	if (i >= 0)
		records[i].in_a_row = 0;
	env_unlock(&records_lock);
	*g->refusal = *refusal;
	/* The handler was left by a jump: the mask is what the guarded code had. */
	if (g->mask != NULL)
		env_mask_set(g->mask);
	siglongjmp(*(sigjmp_buf *)g->jump, 1);
}

void guard_bad_address(uintptr_t address, bool located)
{
	const struct guard *g = guards;
	struct mkw_refusal refusal = {.error = -EFAULT, .message = "not readable, or not writable"};

	/* Where the machine does not say: nothing but the copy runs under such a guard. */
	if (g == NULL || g->copy_bytes == 0 || (located && address - g->copy >= g->copy_bytes))
		return;
	refusal.address = located ? (void *)address : NULL;
	refusal_deliver(&refusal);
}

static int guard_copy(uintptr_t caller, void *to, const void *from, size_t count)
{
	struct mkw_refusal refusal;
	struct guard g = {.refusal = &refusal, .copy = caller, .copy_bytes = count};
	sigset_t saved, inside;
	sigjmp_buf jump;
	volatile int result = 0;

	env_mask_let_faults(&saved, &inside);
	g.mask = &inside;
	g.jump = &jump;
	guard_push(&g);
	if (sigsetjmp(jump, 0) == 0)
		memcpy(to, from, count);
	else
		result = mkw_set_error(-EFAULT, "the caller's buffer was refused: %s",
				       refusal.message);
	guard_pop(&g);
	env_mask_restore(&saved);
	return result;
}

int guard_copy_in(void *to, const void *caller, size_t count)
{
	return guard_copy((uintptr_t)caller, to, caller, count);
}

int guard_copy_out(void *caller, const void *from, size_t count)
{
	return guard_copy((uintptr_t)caller, caller, from, count);
}

int mkw_guard(void (*fn)(void *arg), void *arg, struct mkw_refusal *refusal)
{
	struct mkw_refusal none;
	struct guard g = {.refusal = refusal != NULL ? refusal : &none};
	sigset_t saved, inside;
	sigjmp_buf jump;
	volatile int result = 0;

	if (fn == NULL)
		return mkw_set_error(-EINVAL, "no function to guard");
	env_mask_let_faults(&saved, &inside);
	g.mask = &inside;
	g.jump = &jump;
	guard_push(&g);
	if (sigsetjmp(jump, 0) == 0)
		fn(arg);
	else
		result = mkw_set_error(g.refusal->error, "%s", g.refusal->message);
	guard_pop(&g);
	env_mask_set(&saved);
	return result;
}
