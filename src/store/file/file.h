/* SPDX-License-Identifier: MIT */
/*
 * file.h - what the parts of the file store share: file.c (opening, size, durability), extent.c
 * (space), io.c (bytes), lease.c (other processes).
 *
 * Locks, in this order: alloc_lock, chunk->lock. alloc_lock is held across the calls that change or
 * look up the file's blocks (fallocate, ftruncate, lseek), so that the map and the file change
 * together; no fault or write of pages whose blocks are known takes it.
 */
#ifndef STORE_FILE_H
#define STORE_FILE_H

#include "store/chunkmap.h"

#include <mkwrite/store.h>
#include <sys/stat.h>

struct file {
	int fd;	       /* through the kernel's page cache */
	int direct_fd; /* past it; -1: not asked for */
	int claim_fd;  /* a block device of which nobody else has exclusive use; -1 */
	uint64_t dev, ino;
	char *path;    /* absolute, without symbolic links, to see it replaced */
	char name[48]; /* the same for sentences, or its end */
	bool device, writable, truncate, was_linked;
	uint64_t opened_size_bytes;
	_Atomic uint64_t size_bytes; /* by our own doing; when it is being cut: what it will be */

	struct store_lock alloc_lock;
	struct chunkmap chunks;
	unsigned extent_pages;
	_Atomic uint64_t quota_bytes;	 /* UINT64_MAX: none */
	_Atomic uint64_t promised_pages; /* without blocks, where the file system cannot reserve */
	_Atomic bool cannot_reserve;	 /* it answered EOPNOTSUPP to fallocate */
	_Atomic bool refused;		 /* somebody may be waiting for space */
	_Atomic bool resized;		 /* since the last fsync */
	_Atomic bool replaced;		 /* told already */
	_Atomic int write_error;	 /* that the kernel has told once, and fsync must tell */
};

/* ---- extent.c ----------------------------------------------------------------------------- */

/* Is all of [first, end) known to be a hole? No system call. */
bool extents_hole(struct file *file, uint64_t first, uint64_t end);

/* Have the blocks of [first, end) looked up, where that has not been done. Makes system calls. */
int extents_look(struct file *file, uint64_t first, uint64_t end);

/*
 * Grant pages from page on, as far as end: each has blocks, or a promise of them, that nobody takes
 * back before extents_written or extents_unreserve. *error says why it stopped before end.
 * in_fault: ask mkw_fault_in_syscall_on before the first system call.
 * => the first page that was not granted
 */
uint64_t extents_grant(struct file *file, struct mkw_object *object, uint64_t page, uint64_t end,
		       bool in_fault, int *error);

void extents_written(struct file *file, uint64_t first, uint64_t end);
void extents_unreserve(struct file *file, struct mkw_object *object, uint64_t first, uint64_t end);

/* The file has no blocks in [first, end) any more. => alloc_lock held */
void extents_forget(struct file *file, struct mkw_object *object, uint64_t first, uint64_t end);

/* The page's blocks may no longer cover all of it. => alloc_lock held */
void extents_doubt(struct file *file, uint64_t page);

/* Give back all that was reserved and never written; at the end. */
void extents_give_back(struct file *file);

/* There is space again. */
void extents_wake(struct file *file, struct mkw_object *object);

/* Bytes of blocks that count against the quota: there or promised. Negative errno. */
int64_t extents_used_bytes(struct file *file);

/* ---- io.c --------------------------------------------------------------------------------- */

mkw_fault_t file_fault(void *store, struct mkw_object *object, struct mkw_run *run, void *buffer);
int file_writepages(void *store, struct mkw_object *object, struct mkw_writeback *writeback);
int file_zero(struct file *file, uint64_t offset, uint64_t length);

/* ---- lease.c ------------------------------------------------------------------------------ */

/* Take the file for writing or reading; -EBUSY with a sentence that says who has it. */
int lease_take(struct file *file);

#endif
