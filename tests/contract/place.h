/* SPDX-License-Identifier: MIT */
/*
 * place.h - what tests of objects in place share: a store of one file, which counts what it is
 * asked and can be told what to answer, and a place: a space, an object and a mapping of it.
 */
#ifndef PLACE_H
#define PLACE_H

#include "harness/test.h"

#include <mkwrite/mkwrite.h>
#include <mkwrite/store.h>
#include <stdatomic.h>

#define PAGE 4096u

struct place_store {
	int fd;
	_Atomic unsigned asked, pages_asked, broken, written, writes, synced;
	_Atomic int refuse_from; /* page; -1: none */
	_Atomic int error;	 /* why */
	_Atomic int write_error; /* what writepages answers; 0: success */
	/* What page_mkwrite answers, in place of yes; or NULL. */
	mkw_fault_t (*answer)(struct place_store *s, struct mkw_run *run);
	void *arg;
};

extern const struct mkw_store_ops place_ops;

struct place {
	struct place_store store;
	struct mkw_space *space;
	struct mkw_handle *handle;
	unsigned char *map;
	size_t length;
};

/* A file in memory, where there is some. Unlinked. */
int place_file(size_t length);
unsigned char *place_map(int fd, size_t length);
/* options: NULL, or what the space is to have besides. The file is a new one. */
void place_open(struct place *p, const struct mkw_space_options *options, size_t pages);
void place_open_limit(struct place *p, size_t dirty_limit_pages, size_t pages);
/* With a file that is there; it is closed by place_close. */
void place_open_file(struct place *p, const struct mkw_space_options *options, int fd,
		     size_t length);
void place_close(struct place *p);
struct mkw_stat place_stat(const struct place *p);

static inline void place_write(unsigned char *at, unsigned char byte)
{
	*(volatile unsigned char *)at = byte;
}
/* fn of mkw_guard. */
void place_write_one(void *at);

/* The allocator of ASan (before gcc 13) may be locked in a child for ever, by a thread of its
 * parent that was just starting. */
void place_not_under_asan(void);
/* How many mappings the process has. */
unsigned place_mappings(void);
/* A child that ends by itself, and its status; fn's result is its exit code. */
int place_child(int (*fn)(void *arg), void *arg);

#endif
