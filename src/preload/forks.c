/* SPDX-License-Identifier: MIT */
/*
 * forks.c - children of the program. The library goes on in a child of fork by itself, as the
 * child's own; here it is seen to that nobody is inside of it meanwhile, and what the user wants of
 * children is done. A child of vfork or posix_spawn has nothing of its own before it executes
 * something, and then loads us anew.
 *
 * Order: maps_lock, then `calls` (let.c), then the library's own.
 */
#include "next.h"

#include "forks.h"
#include "full.h"
#include "maps.h"
#include "run/snapshot.h"

static pid_t parent;

static void prepare(void)
{
	if (preload_control == NULL)
		return;
	maps_fork_begin();
	let_fork_begin();
	parent = getpid();
}

static void in_parent(void)
{
	if (preload_control == NULL)
		return;
	let_fork_end(false);
	maps_fork_end(false);
}

/* --no-children: it goes on as if we had never been. */
static void leave_alone(void)
{
	maps_abandon();
	preload_control = NULL;
}

static void in_child(void)
{
	struct run_event event = {.kind = RUN_EVENT_FORKED, .file = RUN_FILE_NONE};

	if (preload_control == NULL)
		return;
	let_fork_end(true);
	full_forked();
	files_forked();
	maps_fork_end(true);
	maps_leave_out();
	event.offset = (uint64_t)parent;
	if (preload_control->options.no_children)
		leave_alone();
	else
		run_post(preload_control, &event);
}

int forks_begin(void)
{
	return -pthread_atfork(prepare, in_parent, in_child);
}

/* Around the handlers above, and the library's. */
HOOK pid_t fork(void)
{
	struct run_control *control = preload_control;
	pid_t pid;

	if (control == NULL || !control->options.snapshots || control->options.no_children)
		return NEXT(fork)();
	run_snapshot_fork_begin(control);
	pid = NEXT(fork)();
	if (pid == 0)
		run_snapshot_fork_child(control);
	else
		run_snapshot_fork_parent(control);
	return pid;
}
