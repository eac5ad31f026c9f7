/* SPDX-License-Identifier: MIT */
/*
 * full.c - what becomes of a write that there is no space for.
 *
 * The thread waits here with no lock held and, in a signal handler, with the signals let through
 * that the interrupted code lets through: it can be killed, interrupted, cancelled, forked from as
 * if it slept in a system call. Nothing tells of space that comes free: so it tries again, every
 * second at last, and at once when the supervisor says that something was done about it.
 */
#include "full.h"

#include "files.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#define FIRST_WAIT_MS 20u
#define LAST_WAIT_MS  1000u

/* Of this thread: its stop, and how long it waits next. */
static _Thread_local struct {
	struct run_stop *stop;
	bool stopped; /* also where no slot was left for it */
	unsigned wait_ms;
	uint32_t seen; /* of control->retry, before the last try */
} state __attribute__((tls_model("initial-exec")));

static bool is_for_want_of_space(int error)
{
	return error == -ENOSPC || error == -EDQUOT || error == -ENOBUFS;
}

static void stop_begin(int error, bool fatal)
{
	const struct refused *r = file_refused();

	state.stop = run_stop_begin(preload_control, r->file, error, r->offset, r->needed, fatal);
	state.stopped = true;
	state.wait_ms = FIRST_WAIT_MS;
}

static void wait_a_while(const sigset_t *mask)
{
	uint32_t seen = state.seen;
	sigset_t before;

	state.seen = atomic_load(&preload_control->retry);
	/* What came since the last try began is not to be slept through. */
	if (mask != NULL)
		pthread_sigmask(SIG_SETMASK, mask, &before);
	run_wait_for_retry(preload_control, seen, state.wait_ms);
	if (mask != NULL)
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (state.wait_ms < LAST_WAIT_MS)
		state.wait_ms *= 2;
}

/* ENOBUFS: the dirty limit is reached, and all that is dirty is pinned, or fails to be written.
 * That may pass by itself; if it does not it is told of like a full disk. */
static bool limit_may_pass(int error, const sigset_t *mask)
{
	if (error != -ENOBUFS || state.stopped)
		return false;
	if (state.wait_ms < FIRST_WAIT_MS)
		state.wait_ms = FIRST_WAIT_MS;
	wait_a_while(mask);
	return state.wait_ms < LAST_WAIT_MS;
}

bool full_again(int error, const sigset_t *mask)
{
	enum run_policy policy;

	if (preload_control == NULL || !is_for_want_of_space(error))
		return false;
	if (limit_may_pass(error, mask))
		return true;
	policy = preload_control->options.policy;
	if (policy == RUN_WAIT) {
		if (!state.stopped) {
			state.seen = atomic_load(&preload_control->retry);
			stop_begin(error, false);
		}
		wait_a_while(mask);
		return true;
	}
	stop_begin(error, true);
	if (policy == RUN_EXIT)
		_exit(RUN_EXIT_FULL);
	state.stopped = false;
	return false;
}

void full_forked(void)
{
	state.stop = NULL;
	state.stopped = false;
}

void full_left(void)
{
	if (preload_control != NULL)
		full_over();
}

void full_over(void)
{
	state.wait_ms = 0;
	if (!state.stopped)
		return;
	if (state.stop != NULL)
		run_stop_end(preload_control, state.stop);
	state.stop = NULL;
	state.stopped = false;
}
