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
	uintptr_t start = (uintptr_t)address;

	return preload_control != NULL && length > 0 &&
	       ranges_writable(start, length < UINTPTR_MAX - start ? start + length : UINTPTR_MAX);
}

static bool grants_are_taken_back(void)
{
	const struct run_options *o = &preload_control->options;

	return o->dirty_limit_bytes != 0 || o->snapshots || o->trace;
}

/* A pin of more than the dirty limit can never be had. */
static size_t length_at_once(size_t length)
{
	uint64_t limit = preload_control->options.dirty_limit_bytes / 4;

	if (limit == 0 || length <= limit)
		return length;
	return limit > MKW_PAGE_SIZE ? (size_t)limit : MKW_PAGE_SIZE;
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
	return error;
}

static bool is_worth_another(int error)
{
	if (error == -ENOSPC || error == -EDQUOT)
		return full_again(error, NULL);
	/* It is a view no more: or not at the moment. */
	return error == -ENOMEM && maps_settle();
}

size_t preload_let_begin(struct preload_let *let, void *address, size_t length)
{
	size_t now = length;
	int saved = errno, error;

	let->pin = NULL;
	if (!preload_covers(address, length))
		return length;
	now = length_at_once(length);
	do
		error = let_once(let, address, now);
	while (is_worth_another(error));
	if (error == 0)
		full_over();
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
