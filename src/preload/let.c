/* SPDX-License-Identifier: MIT */
/*
 * let.c - memory that a system call is about to store to: its pages are granted first, or pinned
 * where something may take a grant back meanwhile (a dirty limit, a snapshot, a sync of a trace).
 *
 * Locks: `calls`, for reading, around each call into the library that is not a change of mappings,
 * with all signals blocked: a handler may leave by longjmp. A fork takes it for writing. Readers do
 * not wait for one that does: whoever is inside may wait for what another is to let go.
 */
#include "next.h"

#include "forks.h"
#include "full.h"
#include "maps.h"
#include "ranges.h"

#include <errno.h>
#include <ucontext.h>

#define AT_ONCE_BYTES (1u << 20)

static pthread_rwlock_t calls = PTHREAD_RWLOCK_INITIALIZER;
static _Thread_local bool forking __attribute__((tls_model("initial-exec")));

void let_fork_begin(void)
{
	pthread_rwlock_wrlock(&calls);
	forking = true;
}

void let_fork_end(bool child)
{
	forking = false;
	if (child)
		pthread_rwlock_init(&calls, NULL);
	else
		pthread_rwlock_unlock(&calls);
}

/* Handlers of others around the fork are let through. */
void let_enter(sigset_t *mask)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, mask);
	if (!forking)
		pthread_rwlock_rdlock(&calls);
}

void let_leave(const sigset_t *mask)
{
	if (!forking)
		pthread_rwlock_unlock(&calls);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
}

bool preload_covers(const void *address, size_t length)
{
	return preload_control != NULL && ranges_writable((uintptr_t)address, length);
}

static bool grants_are_taken_back(void)
{
	const struct run_options *o = &preload_control->options;

	return o->dirty_limit_bytes != 0 || o->snapshots || o->trace;
}

/* A pin of more than the dirty limit can never be had; and not more is touched than it may take. */
static size_t length_at_once(size_t length)
{
	uint64_t limit = preload_control->options.dirty_limit_bytes / 4;

	if (limit == 0 || limit > AT_ONCE_BYTES)
		limit = AT_ONCE_BYTES;
	if (length <= limit)
		return length;
	return limit > MKW_PAGE_SIZE ? (size_t)limit : MKW_PAGE_SIZE;
}

struct touched {
	volatile unsigned char *from;
	size_t length;
};

static void touch(void *arg)
{
	const struct touched *t = arg;
	size_t step = MKW_PAGE_SIZE - ((uintptr_t)t->from & (MKW_PAGE_SIZE - 1));

	for (size_t at = 0; at < t->length; at += step, step = MKW_PAGE_SIZE)
		__atomic_fetch_or(&t->from[at], 0, __ATOMIC_RELAXED);
}

/*
 * What was granted the kernel may refuse all the same: it asks the file system for a whole folio.
 * In the call that would be EFAULT, or what it had to deliver lost. So the pages are written to, as
 * they are.
 */
static int let_touch(void *address, size_t length)
{
	struct touched t = {address, length};

	return mkw_guard(touch, &t, NULL);
}

static int let_once(struct preload_let *let, void *address, size_t length)
{
	sigset_t mask;
	int error;

	let_enter(&mask);
	error = grants_are_taken_back() ? mkw_pin(address, length, MKW_WRITE, &let->pin)
					: mkw_grant(address, length);
	/* A part of it is no view. */
	if (error == -ENOMEM && grants_are_taken_back())
		error = mkw_grant(address, length);
	let_leave(&mask);
	if (error == 0)
		error = let_touch(address, length);
	if (error != 0)
		preload_let_end(let);
	return error;
}

static bool is_worth_another(int error)
{
	if (error == -ENOSPC || error == -EDQUOT || error == -ENOBUFS)
		return full_again(error, NULL);
	/* It is a view no more: or not at the moment. */
	return error == -ENOMEM && maps_settle();
}

/*
 * What the thread had granted last, where grants stay: there the pages are written to, as they are,
 * and no more is done. Should one be refused now (the file has been cut), all is done as ever.
 */
static _Thread_local struct {
	uintptr_t from, to;
	unsigned turn; /* of the list of mappings */
} lately __attribute__((tls_model("initial-exec")));

static bool let_again(void *address, size_t length)
{
	uintptr_t from = (uintptr_t)address;

	if (from < lately.from || from >= lately.to || length > lately.to - from ||
	    lately.turn != ranges_turn() || length > length_at_once(length))
		return false;
	return let_touch(address, length) == 0;
}

/* turn: from before it was granted. A handler of the program's may do the same in between. */
static void let_remember(void *address, size_t length, unsigned turn)
{
	uintptr_t from = (uintptr_t)address & ~(uintptr_t)(MKW_PAGE_SIZE - 1);
	uintptr_t to =
		((uintptr_t)address + length + MKW_PAGE_SIZE - 1) & ~(uintptr_t)(MKW_PAGE_SIZE - 1);
	bool joins = lately.turn == turn && from <= lately.to && to >= lately.from;

	if (joins && lately.from < from)
		from = lately.from;
	if (joins && lately.to > to)
		to = lately.to;
	lately.to = 0;
	atomic_signal_fence(memory_order_seq_cst);
	lately.from = from;
	lately.turn = turn;
	atomic_signal_fence(memory_order_seq_cst);
	lately.to = to;
}

size_t preload_let_begin(struct preload_let *let, void *address, size_t length)
{
	unsigned turn = ranges_turn();
	size_t now = length;
	int saved = errno, error;

	let->pin = NULL;
	if (!preload_covers(address, length) || let_again(address, length))
		return length;
	now = length_at_once(length);
	do
		error = let_once(let, address, now);
	while (is_worth_another(error));
	if (error == 0)
		full_over();
	if (error == 0 && !grants_are_taken_back())
		let_remember(address, now, turn);
	errno = saved;
	switch (error) {
	case 0:
	case -ENOMEM: /* what is a view is granted; the kernel knows about the rest */
	case -EACCES: /* the program itself may not write there */
	case -ENXIO:  /* nor is there anything, past the end */
		return now;
	default:
		return 0;
	}
}

void preload_let_end(struct preload_let *let)
{
	int saved = errno;
	sigset_t mask;

	if (let->pin == NULL)
		return;
	let_enter(&mask);
	mkw_unpin(let->pin);
	let_leave(&mask);
	let->pin = NULL;
	errno = saved;
}
