/* SPDX-License-Identifier: MIT */
/*
 * snapshot.h - consistent copies of the mapped files while the program runs on: what a process of
 * the program does for them. The supervisor's side is src/tool/snapshot.h.
 *
 * The instant: the supervisor asks (turn, phase INSTANT). In each process with views a thread of
 * ours makes the process quiet, says so, and waits for the phase to change. When all are quiet
 * nothing writes to the files; the supervisor opens the copies, or clones the files and is done.
 * Then all go on. From then on (phase COPYING) whoever is to write to a chunk for the first time
 * asks the supervisor to copy it and waits; the supervisor copies the others meanwhile.
 *
 * Descriptors, reads and writes are all the supervisor's: a process of the program only looks at
 * bits, writes down what it wants, and sleeps at a futex. So it can die anywhere and nothing but an
 * entry is lost, which the supervisor takes back. If the supervisor dies, or a copy fails, whoever
 * waits goes on, and the snapshot is lost, not the program.
 *
 * A process has an entry in the table from before its first view until its memory goes (exit, exec,
 * SIGKILL): its life is a robust mutex, held by the thread. A child of fork enters itself before
 * anything of it runs.
 *
 * Not held back: writers that are not processes of the program; and system calls under way that
 * store to views (read(2) into a mapping): what they store may be in the copy or not, or in part.
 */
#ifndef RUN_SNAPSHOT_H
#define RUN_SNAPSHOT_H

#include "run/control.h"

struct run_snapshot_ops {
	/*
	 * When it returns nobody writes to a file through a view of this process, and page_mkwrite
	 * runs for none, until resume; what was granted is asked for anew (mkw_quiesce of all that
	 * is mapped). It calls run_snapshot_maps for each file that has views. It runs with holds
	 * shut, so it need not fear new views or a fork. Not 0 (negative errno; -EOPNOTSUPP: there
	 * are views that were opened whole): it cannot be, and resume is called all the same.
	 */
	int (*quiesce)(void);
	void (*resume)(void);
	/* The thread comes by, at least once a second. May be NULL. */
	void (*look)(void);
};

/* Before the first view of the process is made (or later calls: does nothing): enters it into the
 * table and starts the thread. 0, or -errno: then there will be no snapshots, and it is said why.
 * Not in a signal handler, not within a hold. */
int run_snapshot_join(struct run_control *control, const struct run_snapshot_ops *ops);

/* There is a view of the file. From quiesce only. */
void run_snapshot_maps(uint16_t file);

/*
 * Before [offset, offset+length) of the file is written to, cut off or punched: returns when a
 * snapshot has what it needs of it. One atomic load when there is none under way. In a signal
 * handler, too. Keeps errno.
 *
 * From page_mkwrite: call it for the whole run. From elsewhere (write(2), ftruncate): between
 * run_hold_begin and run_hold_end, which also cover the writing.
 */
void run_snapshot_before_write(struct run_control *control, uint16_t file, uint64_t offset,
			       uint64_t length);

/*
 * What must not happen during an instant, other than writes through views: begin waits while there
 * is one, and an instant waits for the end. For writes to files by system calls, and for making
 * views. May nest. Keeps errno.
 */
void run_hold_begin(struct run_control *control);
void run_hold_end(struct run_control *control);

/*
 * Around fork, by pthread_atfork or the like; registered after the library's own handlers
 * (mkw_space_create): begin before theirs, child after theirs.
 */
void run_snapshot_fork_begin(struct run_control *control);
void run_snapshot_fork_parent(struct run_control *control);
void run_snapshot_fork_child(struct run_control *control);

#endif
