/* SPDX-License-Identifier: MIT */
/*
 * subject.h - a sparse file as a program would have it, mapped, with the program's side of
 * reserving (struct reserve) and the supervisor's (the ledger), for tests on real file systems.
 *
 * page_write does what the library does for a first write: it asks, then stores. The store is the
 * kernel's own affair: where it refuses, the SIGBUS is caught and handed on as `broken`. Whatever
 * fails here fails the test.
 */
#ifndef SUBJECT_H
#define SUBJECT_H

#include "harness/test.h"
#include "run/ledger.h"
#include "run/reserve.h"
#include "run/volume.h"

#define PAGE  4096ull
#define MIB   (1ull << 20)
#define PIECE MIB
#define POSTS 65536u

struct post {
	enum run_event_kind kind;
	uint64_t offset, length;
};

struct posts {
	_Atomic uint32_t count, says;
	struct post all[POSTS];
};

struct subject {
	char path[100];
	int fd;
	uint64_t bytes;
	unsigned char *map;
	struct reserve reserve;
	struct posts *posts; /* shared with children */
	uint32_t taken;	     /* by the ledger */
	struct run_control *control;
	struct ledger *ledger;
	struct ledger_file result;
	unsigned reports;
	bool forgotten;	 /* the ledger had no memory for something */
	unsigned broken; /* times that the kernel has refused a store */
};

/* In VOLUME_AT; a new file, or that file. */
void subject_open(struct subject *s, const char *name, uint64_t bytes, uint64_t piece);
/* Readahead makes folios of many pages, which become dirty as a whole: not here. */
void pages_alone(struct subject *s);
/* As the end of the program does. */
void subject_unmap(struct subject *s);
void subject_close(struct subject *s);

/* 0 or what the write was refused with. */
int page_write(struct subject *s, uint64_t page);
/* False: the kernel's SIGBUS. */
bool store_word(unsigned char *at, uint64_t value);
/* The word that page_write writes, and the one that is there. */
uint64_t word_of(uint64_t page);
uint64_t word_read(const char *path, uint64_t page);

/* What arg, struct posts, is told of. */
void subject_post(void *arg, enum run_event_kind kind, uint64_t offset, uint64_t length);
/* Takes the report on a file to arg, a subject. */
void subject_report(void *arg, const struct ledger_file *file);
/* What was posted goes into the ledger, and all of it is given back. The error that is reported. */
int subject_give_back(struct subject *s);

/* Bytes that the file has space for by now, what is dirty left as it is. */
uint64_t bytes_reserved(const char *path);
/* The same when all is written. */
uint64_t bytes_used(const char *path);
/* Bytes of [start, end) that have extents, written or not. Not on tmpfs. */
uint64_t bytes_mapped(const char *path, uint64_t start, uint64_t end);
/* Those of them that are reserved and were never written. */
uint64_t bytes_unwritten(const char *path, uint64_t start, uint64_t end);

/* A test for each file system that can tell what is ours. */
#define TEST_EACH_VOLUME(name_, what_)       \
	static void name_(enum volume_kind); \
	TEST(name_##_ext4, what_)            \
	{                                    \
		name_(VOLUME_EXT4);          \
	}                                    \
	TEST(name_##_xfs, what_)             \
	{                                    \
		name_(VOLUME_XFS);           \
	}                                    \
	TEST(name_##_btrfs, what_)           \
	{                                    \
		name_(VOLUME_BTRFS);         \
	}                                    \
	TEST(name_##_tmpfs, what_)           \
	{                                    \
		name_(VOLUME_TMPFS);         \
	}                                    \
	static void name_(enum volume_kind kind)

#endif
