/* SPDX-License-Identifier: MIT */
/*
 * snapshot.h - `mkwrite run --snapshot`: the supervisor's side of what run/snapshot.h says.
 *
 * All of it happens in a thread of its own, the copier: it waits for the time or the signal, has
 * the programs quiet for an instant, and copies, first what somebody waits for.
 */
#ifndef TOOL_SNAPSHOT_H
#define TOOL_SNAPSHOT_H

#include "run/control.h"
#include "tool.h"

struct snapshot_plan {
	uint64_t period_ns;    /* 0: on a signal */
	int signal;	       /* 0: from time to time */
	const char *directory; /* NULL: each copy goes next to its file */
};

/* What --snapshot=TEXT means: seconds ("60", "0.5") or a signal ("USR1", "SIGUSR1", "RTMIN+3").
 * 0, or TOOL_USAGE with a message. */
int snapshot_plan_parse(struct snapshot_plan *plan, const char *text,
			const struct tool_options *options);

/* Can copies be put there? 0, or TOOL_FAILED with a message. */
int snapshot_plan_check(const struct snapshot_plan *plan, const struct tool_options *options);

struct copier;
/* Start the copier, and handle the signal from now on. NULL with a message. options, plan and
 * control stay. */
struct copier *copier_start(struct run_control *control, const struct snapshot_plan *plan,
			    const struct tool_options *options);
/* The program has ended (finish: the snapshot under way is completed) or is to be left alone (it is
 * given up). Returns how many snapshots were not what they should be. */
unsigned copier_end(struct copier *copier, bool finish);

#endif
