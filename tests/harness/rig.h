/* SPDX-License-Identifier: MIT */
/*
 * rig.h - a world (world.h) for tests that look at write-back, limits and threads: with the
 * library's own defaults (not manual, runs as they come), with a second object or a second handle,
 * and with threads that write. Whatever fails here fails the test.
 *
 * A view is only touched by plain loads and stores of the test's own code. Never give an address in
 * a view to script_get or script_put: they hold the store's lock, which the fault would need.
 */
#ifndef RIG_H
#define RIG_H

#include "harness/world.h"

#include <stdatomic.h>

struct rig {
	struct script_store *store;
	struct mkw_space *space;
	struct mkw_handle *handle;
	unsigned char *view; /* of all pages, for the backend of the test */
	uint64_t pages;
};

/* Background write-back does not run by its clock while a test lasts. */
#define RIG_QUIET \
	.struct_size = sizeof(struct mkw_space_options), .writeback_interval_ms = 3600u * 1000u

/* options NULL: RIG_QUIET alone. */
void rig_open(struct rig *rig, const struct mkw_space_options *options, uint64_t pages,
	      unsigned flags);
/* The same for an object that rig_reopen can open again. */
void rig_open_shared(struct rig *rig, const struct mkw_space_options *options, uint64_t pages,
		     unsigned flags);
struct mkw_handle *rig_reopen(struct rig *rig, unsigned flags);
/* A second object in the space of rig. */
void rig_add(struct rig *added, struct rig *rig, uint64_t pages, unsigned flags);

/* Unmap and close; what is NULL is left out. */
void rig_leave(struct rig *rig);
/* rig_leave, end the space, and see that store and library are even with each other. All of it has
 * to succeed. */
void rig_close(struct rig *rig);

unsigned char *rig_map(struct mkw_handle *handle, uint64_t pages, uint64_t offset);

/* The first word of a page: where tests keep a value. */
static inline _Atomic uint64_t *rig_word(unsigned char *view, uint64_t page)
{
	return (_Atomic uint64_t *)(void *)(view + page * PAGE);
}
/* The same in the store. */
uint64_t rig_stored_word(struct rig *rig, uint64_t page);
/* The store has the bytes of the view, all of them. */
void rig_check_stored(struct rig *rig);

struct mkw_stat rig_stat(struct rig *rig);	 /* of the object */
struct mkw_stat rig_space_stat(struct rig *rig); /* of its space */
uint64_t rig_dirty_pages(struct rig *rig);

/* Most pages that one call of page_mkwrite was asked for, among calls from the nth on. */
uint64_t rig_longest_run(struct rig *rig, size_t nth);

/* The thread sleeps and goes on sleeping while others run: it waits for what the test holds back.
 * True, or a failure was noted. */
bool rig_check_stuck(struct test_thread *thread, const char *file, int line);
#define CHECK_STUCK(thread) rig_check_stuck((thread), __FILE__, __LINE__)

/* Wait until the thread has ended, or sleeps as CHECK_STUCK means it. True: it has ended. */
bool rig_settle(struct test_thread *thread);

/* mkw_sync in a thread. */
struct rig_sync {
	struct mkw_handle *handle;
	uint64_t offset, length;
	int result;
	struct test_thread thread;
};
void rig_sync_start(struct rig_sync *sync, struct mkw_handle *handle);
int rig_sync_join(struct rig_sync *sync);

/* A thread that adds one to a word of a view until it is told to stop. */
struct rig_hammer {
	_Atomic uint64_t *word;
	_Atomic bool stop;
	_Atomic uint64_t done;
	struct test_thread thread;
};
void rig_hammer_start(struct rig_hammer *hammer, _Atomic uint64_t *word);
/* Wait until it has added at least once more. */
void rig_hammer_beat(struct rig_hammer *hammer);
void rig_hammer_stop(struct rig_hammer *hammer);

/* A thread that stores one value. */
struct rig_writer {
	_Atomic uint64_t *word;
	uint64_t value;
	struct test_thread thread;
};
void rig_writer_start(struct rig_writer *writer, _Atomic uint64_t *word, uint64_t value);

/* Run fn in a process of its own, made before any space exists; what it answers is the exit status.
 * Returns the status of waitpid. */
int rig_child(int (*fn)(void *arg), void *arg);

/* Pseudo-random numbers, the same in every run. */
uint64_t rig_random(uint64_t *state);

/* A step that visits each of count pages once, far from one another, for odd-stepping through a
 * power of two: page i * step % count. */
#define RIG_SCATTER 2654435761u

/* Make a file with these many patterned bytes in a fresh directory under /tmp; path gets its name.
 * rig_file_remove takes both away. */
#define RIG_PATH_MAX 128
void rig_file_make(char path[RIG_PATH_MAX], size_t size_bytes);
void rig_file_remove(const char *path);

#endif
