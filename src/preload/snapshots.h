/* SPDX-License-Identifier: MIT */
/*
 * snapshots.h - this process's part in snapshots (run/snapshot.h), and what holds back its system
 * calls that write to files.
 */
#ifndef SNAPSHOTS_H
#define SNAPSHOTS_H

#include "preload.h"

#include <sys/stat.h>

/* Before the first view, or write to a file that somebody has mapped. Not within a change of
 * mappings. */
void snapshots_join(void);

static inline bool snapshots_are_made(void)
{
	return preload_control != NULL && preload_control->options.snapshots;
}

/* ---- Around a call that writes to a file; errno is kept ------------------------------------ */

struct snapshots_hold {
	bool begun;
};
/* Does what fd is open for have to be held back? False, and cheaply, where there are no snapshots,
 * or nobody has mapped it. => no other hold of the thread. */
void snapshots_hold_fd(struct snapshots_hold *hold, int fd, int64_t offset, uint64_t length);
/* The same, for all of the file that is at path, seen from dir. */
void snapshots_hold_path(struct snapshots_hold *hold, int dir, const char *path);
/* The number of a file that some process has mapped, which is about to lose blocks; and this
 * process takes part from now on. RUN_FILE_NONE: nobody has, or there are no snapshots. */
uint16_t snapshots_file(const struct stat *st);
void snapshots_let_go(struct snapshots_hold *hold);

/* Where the descriptor writes next. */
#define SNAPSHOTS_HERE (-1)

/* The end of the block lets go, also when the thread is cancelled in it. */
#define SNAPSHOTS_HOLD_OF_BLOCK(name) \
	__attribute__((cleanup(snapshots_let_go))) struct snapshots_hold name = {false}

#endif
