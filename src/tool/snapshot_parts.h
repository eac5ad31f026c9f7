/* SPDX-License-Identifier: MIT */
/*
 * snapshot_parts.h - what the files of the copier share: snapshot.c (when, and in which order),
 * snapshot_instant.c (the processes), snapshot_copy.c (one file's copy).
 */
#ifndef TOOL_SNAPSHOT_PARTS_H
#define TOOL_SNAPSHOT_PARTS_H

#include "snapshot.h"

#include <pthread.h>
#include <stdatomic.h>

#define SNAPSHOT_STAMP_MAX 32
#define SNAPSHOT_WHY_MAX   160

/* The copy of a file: opened, started at the instant, copied, finished; or dropped at any time. */
struct copy {
	uint16_t file;
	char path[4096];
	char temporary[256];	       /* its name until it is complete */
	int source, target, directory; /* -1: not open */
	bool cloned;		       /* the file system shares the blocks: nothing is copied */
	int error;		   /* negative errno: it failed, and when it is over is dropped */
	uint64_t size, chunks;	   /* at the instant; chunks: 0 if cloned */
	uint64_t cursor, data_end; /* bytes: what lies before them is copied; is known as data */
};

struct copier {
	struct run_control *control;
	const struct snapshot_plan *plan;
	const struct tool_options *options;
	pthread_t thread;
	_Atomic bool ending, giving_up;
	_Atomic unsigned wanted; /* signals not yet answered */
	unsigned failures;
	uint32_t number; /* of the last snapshot */
	uint64_t bits;	 /* chunks of the last one: so many bits may be set */
	uint64_t due_ns, held_up_ns;
	struct copy *copies[RUN_FILES];		  /* NULL: the file is no part of it */
	uint64_t dead_ns[RUN_SNAPSHOT_PROCESSES]; /* since when it is known to be dead */
	char why[SNAPSHOT_WHY_MAX];		  /* the instant could not be had */
	unsigned char *buffer;			  /* COPY_BUFFER bytes */
};

#define COPY_BUFFER (256u << 10)

static inline struct run_snapshots *copier_area(struct copier *copier)
{
	return &copier->control->snapshots;
}

/* ---- snapshot_instant.c -------------------------------------------------------------------- */

/* Have all processes quiet. 0; or -1, with why, and all go on. */
int instant_begin(struct copier *copier);
/* They go on, in this phase. */
void instant_end(struct copier *copier, enum run_snapshot_phase phase);
/* During the instant: is there a view of the file? */
bool instant_maps(struct copier *copier, uint16_t file);
/* Take back what dead processes have left. */
void instant_look(struct copier *copier);

/* ---- snapshot_copy.c ----------------------------------------------------------------------- */

/* Open the file and a new, empty copy; where blocks can be shared, they are: what is not on disk
 * yet gets there now, and not at the instant. Where that fails, copy->error. NULL: no memory. */
struct copy *copy_open(struct copier *copier, uint16_t file);
/* At the instant: size and, where it can be had, all of the contents. */
void copy_start(struct copier *copier, struct copy *copy);
/* At the instant, once all sizes are known: its chunks begin at bit first. */
void copy_watch(struct copier *copier, struct copy *copy, uint64_t first);
/* Copy what is not copied yet of the range, at most about limit bytes. True: nothing is left. */
bool copy_range(struct copier *copier, struct copy *copy, uint64_t offset, uint64_t length,
		uint64_t limit);
/* Copy a little more of the whole. True: nothing is left. */
bool copy_step(struct copier *copier, struct copy *copy);
/* It needs nothing of the program any more, for good or ill. */
void copy_unwatch(struct copier *copier, struct copy *copy);
/* Can the copy have that name? Two snapshots in a second differ in number. */
bool copy_name_is_free(const struct copy *copy, const char *stamp, unsigned number);
/* To disk, and under its final name; number is higher if that is taken all the same. If it fails,
 * or has failed: copy->error, and it is gone. */
void copy_finish(struct copy *copy, const char *stamp, unsigned number);
/* Close it; if it was not finished it is gone. */
void copy_free(struct copy *copy);

#endif
