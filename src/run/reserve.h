/* SPDX-License-Identifier: MIT */
/*
 * reserve.h - space for the holes of a file that is written through a mapping, before they are
 * written: so a full disk is an answer, and not a SIGBUS. The program's side of `mkwrite run`.
 *
 * reserve_run is called by the thread that faulted, in its signal handler, with all signals
 * blocked. It takes no lock, allocates nothing, uses about 1 KiB of stack. A struct reserve may be
 * used by any number of threads at once, and goes on in a child of fork as it is.
 *
 * What is promised after 0:
 *  - ext4, xfs, btrfs, tmpfs and others with fallocate: the run's holes have blocks. The kernel may
 *    still want more: for a page it asks for all of the folio that the page is part of, some
 *    hundred pages after a readahead. Its SIGBUS then comes here as `broken`, and the space around
 *    is looked at, too. Once a write has been let through it cannot be lost for want of space.
 *  - file systems without fallocate (ext2, many of FUSE): there was room for them among the free
 *    blocks and in the quotas, besides what was promised before. Others may be quicker; then the
 *    kernel's SIGBUS comes, where that file system asks at all, or else the error of a later
 *    write-back. Nothing is written to make room: a zero of ours could hit another's byte.
 *  - data that is there and must be written elsewhere (btrfs, shared extents of xfs): shared
 *    extents are unshared where the file system can do that; else the kernel has to refuse.
 */
#ifndef RESERVE_H
#define RESERVE_H

#include "run/control.h"
#include "run/filesystem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RESERVE_KNOWN 512u

/*
 * Tells the supervisor: RUN_EVENT_RESERVED, [offset, offset+length) is a hole and space is about to
 * be reserved for it (before, so that a process that is killed leaves nothing unknown), or
 * RUN_EVENT_SAY, the code RUN_SAY_NO_RESERVE in length. In a signal handler.
 */
typedef void reserve_post_fn(void *arg, enum run_event_kind kind, uint64_t offset, uint64_t length);

/* All members are reserve.c's own, but fd. */
struct reserve {
	/* Our own opening of the file, O_RDWR; may be replaced at any time. -1: there is none, and
	 * nothing can be reserved or found out. */
	_Atomic int fd;
	uint64_t dev, ino;
	uint64_t piece_bytes;
	enum filesystem_holes holes;
	bool ahead;  /* whole pieces, for what is over can be given back */
	bool copies; /* data is written elsewhere each time */
	reserve_post_fn *post;
	void *arg;
	_Atomic bool counted;		/* no fallocate: free blocks are counted */
	_Atomic uint64_t ahead_bytes;	/* reserved, and nobody has asked for them yet */
	_Atomic uint64_t counted_bytes; /* promised where nothing can be reserved */
	_Atomic uint64_t doubt_ns;	/* when the present series of unexplained SIGBUS began */
	_Atomic uint32_t doubts;	/* how many there were */
	_Atomic uint64_t tail;		/* the file's last piece has space up to here */
	_Atomic uint64_t known[RESERVE_KNOWN]; /* pieces that have space, number + 1 */
};

/* piece_bytes: how far to reserve at once (rounded to a power of two); 0: just the run. 0 or
 * -errno of looking at fd. Not in a signal handler. */
int reserve_init(struct reserve *r, int fd, uint64_t piece_bytes, reserve_post_fn *post, void *arg);

/*
 * A run of pages is about to be written. broken: it was granted, and the kernel has refused the
 * write all the same (its SIGBUS).
 *
 * 0 the write may be tried; -ENOSPC, -EDQUOT there is no space for it now; -ENXIO it lies past the
 * end of the file; -EBADF r->fd is not the file any more (the program has closed it), give it
 * another; -EIO (broken only): the file cannot be written for another reason.
 */
int reserve_run(struct reserve *r, uint64_t offset, uint64_t length, bool broken);

/* The stretch around offset, a piece or the file's last part of one, that is known to have space or
 * data everywhere: its length and *start; 0: it is not known to. In a signal handler, too. */
uint64_t reserve_known(struct reserve *r, uint64_t offset, uint64_t *start);

/* The program has made a hole here, or cut the file (length UINT64_MAX): what is known of this
 * range is known no more. In a signal handler, too. */
void reserve_forget(struct reserve *r, uint64_t offset, uint64_t length);

#endif
