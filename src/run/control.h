/* SPDX-License-Identifier: MIT */
/*
 * control.h - what `mkwrite run` and the library that it loads into programs share: an area of
 * memory, mapped by the supervisor (the command) and by every process of the program. It needs no
 * descriptor in those processes, which may close all they have, and survives fork and exec: the
 * environment variable RUN_ENV names it ("/proc/PID/fd/N" of the supervisor).
 *
 * Made of: options, which never change; a table of files, of which entries are only added; a ring
 * of events, which any process writes and the supervisor reads; stops, one for each thread that
 * waits, or ends its process, because a disk is full; and two counts that threads sleep on.
 *
 * Nothing in it is trusted: a process may die between any two stores. No locks: a thread claims
 * an entry by compare-and-swap, with its tid in it, and publishes it by its state; what a dead
 * thread has claimed is taken back. The supervisor may die as well: who waits for it
 * looks every RUN_LOOK_MS whether it lives, and goes on alone.
 *
 * All functions of the client's side (run_*) are async-signal-safe, take no lock, allocate nothing.
 */
#ifndef RUN_CONTROL_H
#define RUN_CONTROL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RUN_ENV	    "MKWRITE_RUN"
#define RUN_MAGIC   0x6d6b7772756e0001ull
#define RUN_FILES   1024u
#define RUN_EVENTS  16384u
#define RUN_STOPS   256u
#define RUN_LOOK_MS 1000u

/* Exit statuses of `mkwrite run` that are not the program's own. */
#define RUN_EXIT_FULL	   75 /* --on-full=exit, EX_TEMPFAIL: also that of the process which met it */
#define RUN_EXIT_SELF	   125 /* mkwrite run itself failed */
#define RUN_EXIT_CANNOT	   126 /* the program cannot be run, or not like this */
#define RUN_EXIT_NOT_FOUND 127

enum run_policy { RUN_WAIT, RUN_EXIT, RUN_SIGNAL };

struct run_options {
	enum run_policy policy;
	uint64_t reserve_bytes;	    /* how far space is reserved at once; 0: just the run */
	uint64_t dirty_limit_bytes; /* of each process; 0: none */
	bool trace;		    /* every first write and sync is an event */
	bool snapshots;		    /* there may be some */
	bool no_children;	    /* processes that the program makes are left alone */
};

/* ---- Files -------------------------------------------------------------------------------- */

struct run_file {
	_Atomic uint32_t state; /* 0 free, a tid: being written by that thread, RUN_FILE_THERE */
	uint64_t dev, ino;
	char path[4096]; /* as /proc/self/fd had it; "" if it has no name any more */
};
#define RUN_FILE_THERE UINT32_MAX
#define RUN_FILE_NONE  UINT16_MAX

/* ---- Events ------------------------------------------------------------------------------- */

enum run_event_kind {
	RUN_EVENT_NONE,
	RUN_EVENT_WRITE, /* first write to [offset, offset+length), by the access at caller */
	RUN_EVENT_CALL,	 /* the same, by a system call of the thread */
	RUN_EVENT_SYNC,	 /* msync, fsync, fdatasync, sync_file_range: of the range; length 0: all */
	RUN_EVENT_RESERVED, /* was a hole, and space is reserved for it now */
	RUN_EVENT_PUNCHED,  /* the program made a hole, or cut the file at offset: not ours any more
			     */
	RUN_EVENT_SAY,	    /* a message, RUN_SAY_*; code in length, file if it is about one */
	RUN_EVENT_PROCESS,  /* a process has loaded the library (exec, or the first) */
	RUN_EVENT_FORKED,   /* a process is a fork's child: offset is the parent's pid */
};

/* What the library has to say, once per process, and why. */
enum run_say {
	RUN_SAY_RAW_CALLS, /* makes system calls of its own: views are granted whole */
	RUN_SAY_IO_URING,  /* uses io_uring: the same */
	RUN_SAY_MAPPINGS,  /* vm.max_map_count is near: grants are coarser; offset: pages a grant */
	RUN_SAY_NO_RESERVE, /* file's file system cannot reserve space: what is used instead */
	RUN_SAY_FILE_TABLE, /* more than RUN_FILES files: file is named no more */
	RUN_SAY_NO_FILE,    /* a mapping could not be watched; offset: errno */
};

struct run_event {
	_Atomic uint64_t turn; /* whose turn the slot is: ring.h */
	uint16_t kind, file;
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	int32_t pid, tid;
	uint64_t offset, length, address, caller;
};

/* ---- Stops -------------------------------------------------------------------------------- */

enum run_stop_state { RUN_STOP_FREE, RUN_STOP_ASKED, RUN_STOP_TOLD, RUN_STOP_OVER };

struct run_stop {
	_Atomic uint32_t state; /* ASKED, OVER by the thread; TOLD, FREE by the supervisor */
	_Atomic int32_t tid;	/* who has claimed it; 0: nobody */
	int32_t pid;
	uint16_t file;
	bool fatal;		 /* the process ends once it is TOLD: RUN_EXIT or RUN_SIGNAL */
	int32_t error;		 /* negative errno */
	uint64_t offset, needed; /* bytes */
};

/* ---- Snapshots: snapshot.h says how they are made ------------------------------------------ */

#define RUN_SNAPSHOT_PROCESSES 1024u
#define RUN_SNAPSHOT_ASKS      256u
#define RUN_SNAPSHOT_CHUNKS    (16u << 20)

enum run_snapshot_phase { RUN_SNAPSHOT_NONE, RUN_SNAPSHOT_INSTANT, RUN_SNAPSHOT_COPYING };

enum run_snapshot_join {
	RUN_SNAPSHOT_FREE,
	RUN_SNAPSHOT_JOINING, /* it does not write to a view before it has joined */
	RUN_SNAPSHOT_JOINED
};

/* A process with views. Filled in by it, freed by the supervisor, once life is lost. */
struct run_snapshot_process {
	_Atomic uint64_t state; /* pid << 32 | enum run_snapshot_join */
	pthread_mutex_t life;	/* robust, held as long as the process has its memory */
	_Atomic uint32_t quiet; /* the turn of the instant for which nothing writes any more */
	_Atomic int32_t failed; /* it could not be made quiet: negative errno */
	uint64_t maps[RUN_FILES / 64]; /* files that it has views of, at the instant */
};

/* A file's part of the snapshot, by the number of the file. The supervisor's. */
struct run_snapshot_file {
	_Atomic uint32_t copying; /* before it is written to, chunks have to be copied */
	_Atomic uint32_t same_as; /* the number under which it is copied: a file may have several */
	uint64_t size;		  /* at the instant */
	uint64_t first_chunk;	  /* its bits in copied, a multiple of 64 */
};

/* Somebody waits for chunks to be copied. */
struct run_snapshot_ask {
	_Atomic uint32_t state; /* 0 free, a pid: being written by that process, RUN_ASKED */
	uint16_t file;
	uint64_t offset, length; /* bytes */
};
#define RUN_ASKED UINT32_MAX

struct run_snapshots {
	_Atomic uint32_t turn;	  /* futex: snapshots begun so far << 2 | phase */
	_Atomic uint32_t bell;	  /* futex: the supervisor's copier has something to look at */
	_Atomic uint32_t served;  /* futex: asks were served, or a file's copy is over */
	_Atomic uint32_t missing; /* processes that could not join */
	uint32_t chunk_shift;	  /* log2 of the bytes of a chunk; at least a page */
	struct run_snapshot_file files[RUN_FILES];
	struct run_snapshot_ask asks[RUN_SNAPSHOT_ASKS];
	struct run_snapshot_process processes[RUN_SNAPSHOT_PROCESSES];
	_Atomic uint64_t copied[RUN_SNAPSHOT_CHUNKS / 64]; /* a bit each; set by the supervisor */
};

struct run_control {
	uint64_t magic;
	uint64_t size;
	pid_t supervisor;
	uint64_t supervisor_start; /* when it began: another process may get its pid later */
	struct run_options options;
	_Atomic uint32_t bell;	  /* futex: the supervisor has something to look at (ring.h) */
	_Atomic uint32_t retry;	  /* futex: whoever waits for space tries again */
	_Atomic uint64_t lost;	  /* events that could not be posted */
	_Atomic uint64_t head;	  /* next turn to be claimed */
	uint64_t tail;		  /* next turn to be read; the supervisor's */
	_Atomic uint32_t drained; /* futex: there is room in the ring again (ring.h) */
	struct run_file files[RUN_FILES];
	struct run_event events[RUN_EVENTS];
	struct run_stop stops[RUN_STOPS];
	struct run_snapshots snapshots;
};

/* ---- The supervisor's side (control.c) ---------------------------------------------------- */

/* Make the area: a memfd, mapped, *fd to be kept open (close-on-exec) while programs may exec.
 * 0 or -errno. */
int run_control_create(const struct run_options *options, struct run_control **control, int *fd);
void run_control_destroy(struct run_control *control, int fd);
/* The next event, copied. False: there is none now. Skips what dead threads have left half done. */
bool run_next(struct run_control *control, struct run_event *event);
/* Sleep until the bell rings, at most so long. *seen: the value of the bell at the last look. */
void run_listen(struct run_control *control, uint32_t *seen, unsigned timeout_ms);
/* Wake run_listen: there is something to look at. In a signal handler, too. */
void run_ring(struct run_control *control);
/* Whoever waits for space is to try again now. */
void run_retry(struct run_control *control);

/* ---- The program's side (client.c) -------------------------------------------------------- */

/* Map the area that path names. NULL: there is none, or it is of another version. Not in a signal
 * handler. */
struct run_control *run_control_open(const char *path);
/* The number of the file in the table, added if need be. RUN_FILE_NONE: the table is full. Not in a
 * signal handler (it reads a link). */
uint16_t run_file_number(struct run_control *control, int fd, uint64_t dev, uint64_t ino);
/* Post an event; time, pid, tid are filled in. Waits while the ring is full and the supervisor
 * lives. */
void run_post(struct run_control *control, const struct run_event *event);
/* Wait until the supervisor has dealt with all that was posted before, or is dead. Not in a signal
 * handler. */
void run_settle(struct run_control *control);
static inline bool run_file_is_there(const struct run_control *c, uint16_t file)
{
	return file < RUN_FILES && atomic_load(&c->files[file].state) == RUN_FILE_THERE;
}
/* Tell the supervisor of a stop, fatal or not. Returns its slot, or NULL: there is none free, or
 * the supervisor is dead: then the caller has to do without. If it is fatal, returns when the
 * supervisor has told of it. */
struct run_stop *run_stop_begin(struct run_control *control, uint16_t file, int error,
				uint64_t offset, uint64_t needed, bool fatal);
void run_stop_end(struct run_control *control, struct run_stop *stop);
/* Sleep until run_retry, a signal, or so long. seen: control->retry before the last try. */
void run_wait_for_retry(struct run_control *control, uint32_t seen, unsigned timeout_ms);
bool run_supervisor_lives(const struct run_control *control);

#endif
