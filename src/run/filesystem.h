/* SPDX-License-Identifier: MIT */
/*
 * filesystem.h - how a file system tells holes from what is reserved; and whether a lease proves
 * there that nobody else has a file open, mappings included. Only where both are known can
 * anything be given back, so only there more is reserved than is asked for. It is not so for
 * overlayfs, where a mapping holds another inode than the one that leases are taken of, and for
 * network file systems.
 */
#ifndef FILESYSTEM_H
#define FILESYSTEM_H

#include <linux/magic.h>
#include <unistd.h>
#include <stdint.h>
#include <stdbool.h>
#include <sys/vfs.h>

#define FILESYSTEM_F2FS 0xf2f52010
#define FILESYSTEM_XFS	0x58465342

/* cachestat(2), of 6.5: the same number on all machines that we run on. */
#define FILESYSTEM_CACHESTAT 451

/* What cachestat(2) tells of a range: pages. */
struct filesystem_pages {
	uint64_t cache, dirty, writeback, evicted, recently_evicted;
};

/* False: the kernel is too old to tell. */
static inline bool filesystem_cachestat(int fd, uint64_t start, uint64_t end,
					struct filesystem_pages *pages)
{
	const struct {
		uint64_t offset, length;
	} range = {start, end - start};

	return syscall(FILESYSTEM_CACHESTAT, fd, &range, pages, 0) == 0;
}

enum filesystem_holes {
	HOLES_UNKNOWN,
	HOLES_BY_EXTENT, /* FIEMAP: no extent, or one that is UNWRITTEN */
	HOLES_BY_PAGE,	 /* tmpfs: SEEK_HOLE, and whether pages are in the cache */
	HOLES_UNLIMITED, /* memory without a bound: nothing is ever refused */
};

static inline enum filesystem_holes filesystem_holes(const struct statfs *fs)
{
	switch ((unsigned long)fs->f_type) {
	case EXT4_SUPER_MAGIC:
	case FILESYSTEM_XFS:
	case BTRFS_SUPER_MAGIC:
	case FILESYSTEM_F2FS:
		return HOLES_BY_EXTENT;
	case TMPFS_MAGIC:
		return fs->f_blocks ? HOLES_BY_PAGE : HOLES_UNLIMITED;
	case RAMFS_MAGIC:
		return HOLES_UNLIMITED;
	default:
		return HOLES_UNKNOWN;
	}
}

#endif
