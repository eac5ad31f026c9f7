/* SPDX-License-Identifier: MIT */
/*
 * files.h - the files that the program has mapped: an object in place for each, with our own
 * opening of the file, from its first view to its last.
 *
 * Files are found and made below maps_lock (maps.h); what a fault needs of one is constant or
 * atomic.
 */
#ifndef FILES_H
#define FILES_H

#include "preload.h"
#include "run/reserve.h"

struct file {
	struct file *next;
	uint64_t dev, ino;
	uint16_t number; /* in the table of the area */
	struct mkw_handle *handle;
	struct reserve reserve;
};

/* Before the first one. 0 or -errno. */
int files_begin(void);
/* The file behind fd, which is open for reading and writing. NULL: there can be none, *error. */
struct file *file_get(int fd, uint64_t dev, uint64_t ino, int *error);
/* The one that is known; NULL. */
struct file *file_find(uint64_t dev, uint64_t ino);
/* Of a descriptor of the program's. NULL: it is none that is mapped. */
struct file *file_of(int fd);
/* Files without views are closed. */
void files_sweep(void);
/* Our descriptor of some file has another number now; -1: it is gone. */
void files_descriptor_moved(int from, int to);
void files_each(void (*fn)(struct file *file));

/* ---- What was refused last in this thread -------------------------------------------------- */

struct refused {
	uint16_t file;
	uint64_t offset, needed;
};
/* In the thread that was refused, by page_mkwrite; file RUN_FILE_NONE: nothing yet. */
const struct refused *file_refused(void);

#endif
