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
	_Atomic unsigned users; /* not to be closed; taken below maps_lock */
	struct reserve reserve;
};

/* Before the first one. 0 or -errno. */
int files_begin(void);
/* The file behind fd, which is open for reading and writing. NULL: there can be none, *error. */
struct file *file_get(int fd, uint64_t dev, uint64_t ino, int *error);
/* The one that is known; NULL. */
struct file *file_find(uint64_t dev, uint64_t ino);
/* Is there any? Anywhere. */
bool file_any(void);
/* Of a descriptor of the program's. NULL: it is none that is mapped. */
struct file *file_of(int fd);
/* Files without views are closed, unless the program has locks on them. */
void files_sweep(void);
/* The program has closed a descriptor. Anywhere. */
void files_closed(void);
/* Our descriptor of it. In a signal handler, too. */
int file_descriptor(struct file *file);
/* In a child of fork. */
void files_forked(void);
/* False: in a child of vfork. */
bool files_are_of_process(void);
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
