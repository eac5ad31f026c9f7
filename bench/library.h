/* SPDX-License-Identifier: MIT */
/*
 * library.h - a space with one object and one view of it, for a measure.
 */
#ifndef BENCH_LIBRARY_H
#define BENCH_LIBRARY_H

#include "bench.h"

#include <mkwrite/mkwrite.h>
#include <mkwrite/store.h>

enum library_storage {
	LIBRARY_FILE,  /* "file:" on the ext4 image, laid down in large folios and cached */
	LIBRARY_MEM,   /* "mem:" */
	LIBRARY_EMPTY, /* a store that keeps nothing: only the VM is left to be measured */
};

struct library_case {
	enum library_storage storage;
	unsigned map_flags;
	bool random;
	bool direct;	       /* file: past the kernel's page cache */
	const char *swap_path; /* NULL: no swap */
	bool back;	       /* swap: the way back is what is measured */
	bool write;	       /* pins: for writing */
};

struct library {
	const struct library_case *how;
	struct mkw_space *space;
	struct mkw_handle *handle;
	void *view;
	size_t size;
	struct mkw_stat before;
	char name[64]; /* of the file on the image; "": none */
};

/* The object is size bytes long, the view maps all of it; resident_bytes 0: no limit. */
int library_start(struct bench *bench, const struct library_case *how, size_t size,
		  uint64_t resident_bytes, struct library *library);
/* Drops what is dirty: to write it is no part of any measure. */
void library_end(struct bench *bench, struct library *library);
/* The same for bench_measure.open and .close: how is measure->arg. */
int library_open(struct bench *bench, const struct bench_measure *measure, size_t size,
		 uint64_t resident_bytes, struct library **library);
void library_close(struct bench *bench, void *library);
/* A library call failed: says so with the library's own sentence; returns error. */
int library_say(struct bench *bench, int error, const char *what);

/* What the space did between the two. */
int library_count_begin(struct bench *bench, struct library *library);
int library_count_end(struct bench *bench, struct library *library, struct bench_sample *sample);

#endif
