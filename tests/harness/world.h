/* SPDX-License-Identifier: MIT */
/*
 * world.h - what most tests of the contract start from: a space, an object of a scripted store, a
 * view of it; and single accesses whose refusal is an answer, not the end of the process.
 *
 *	struct world w;
 *
 *	world_make(&w, 8 * PAGE);
 *	script_put_pattern(w.store, 0, 8, 1);
 *	world_open(&w, 8 * PAGE);
 *	put(w.view + 17, 'x');
 *	world_end(&w);
 */
#ifndef WORLD_H
#define WORLD_H

#include "script_store.h"
#include "test.h"

#include <errno.h>
#include <signal.h>

#define PAGE ((size_t)MKW_PAGE_SIZE)

struct world {
	struct mkw_space *space;
	struct script_store *store;
	struct mkw_handle *handle;
	unsigned char *view; /* of the object's beginning, writable */
	size_t view_bytes;
	unsigned open_flags; /* of world_open; at first MKW_RDWR | MKW_MANUAL */
};

/* A space, and a store that no object has yet: script it now. */
void world_make(struct world *w, uint64_t size_bytes);
/* Unless options have a log it is world_log. */
void world_make_with(struct world *w, uint64_t size_bytes, const struct mkw_space_options *options);
/* For spaces: a line of the test; and the test fails if a store takes locks in a wrong order. */
void world_log(void *arg, enum mkw_log_level level, const char *message);
/* Hand it to an object, and map so many bytes of it (0: no view), advised MKW_RANDOM: one page at a
 * time, so that calls can be counted. */
void world_open(struct world *w, size_t view_bytes);
/* A further view of pages of the object, advised MKW_RANDOM. */
unsigned char *world_map(struct world *w, uint64_t first, size_t pages, unsigned protection);
/* Unmap w->view if it is not NULL, close, end the space; nothing of it may fail. */
void world_end(struct world *w);

/* Compare what the store holds, or a view shows, with a model. */
void check_store(struct world *w, uint64_t offset, const void *model, size_t length);
void check_store_of(struct script_store *s, uint64_t offset, const void *model, size_t length);
void check_view(const unsigned char *view, const void *model, size_t length);
/* The store's and the library's counts of the object. */
struct mkw_stat world_stat(struct world *w);
/* Sync until nothing is dirty or reserved any more. The report of a fault that another thread's
 * fault has answered may be served late, and dirty a page that its thread has long written. */
void world_settle(struct world *w);
/* How many bytes mkw_dirty_ranges lists. */
uint64_t world_dirty_bytes(struct world *w);

/* ---- Single accesses ---------------------------------------------------------------------- */

/* One byte, under mkw_guard: 0 or the refusal's negative errno. refusal may be NULL. */
int try_write(unsigned char *address, unsigned char value, struct mkw_refusal *refusal);
int try_read(const unsigned char *address, unsigned char *value, struct mkw_refusal *refusal);
/* The same where a refusal fails the test. */
void put(unsigned char *address, unsigned char value);
unsigned char get(const unsigned char *address);

/* The same in a thread of its own. */
struct access {
	struct test_thread thread;
	unsigned char *address;
	bool write;
	unsigned char value; /* read: what was found */
	int error;	     /* 0, or the refusal's */
	struct mkw_refusal refusal;
};
void access_write(struct access *a, unsigned char *address, unsigned char value);
void access_read(struct access *a, const unsigned char *address);
int access_join(struct access *a); /* returns error */
/* Wait until it is held up in its fault. */
void access_wait_blocked(struct access *a);

/* ---- Calls in a thread of their own --------------------------------------------------------- */

/* mkw_sync, mkw_punch, mkw_invalidate, mkw_discard; or what follows. */
typedef int (*api_fn)(struct mkw_handle *handle, uint64_t offset, uint64_t length);
int api_truncate(struct mkw_handle *handle, uint64_t size_bytes, uint64_t unused);

struct api_call {
	struct test_thread thread;
	struct mkw_handle *handle;
	api_fn fn;
	uint64_t offset, length;
	int result;
};
void api_start(struct api_call *call, struct world *w, api_fn fn, uint64_t offset, uint64_t length);
int api_join(struct api_call *call); /* returns result */
/* Wait until it sleeps, for what the library waits for. */
void api_wait_blocked(struct api_call *call);
/* Wait until it sleeps or has ended. */
void api_wait_settled(struct api_call *call);

/* ---- Plain signal handlers, as a program would have them ------------------------------------ */

/* Before the first space: handlers for SIGBUS and SIGSEGV, which the library hands on to. */
void plain_install(void);
/* One access without a guard: 0, or the signal it ended with and what came with it. */
int plain_write(unsigned char *address, unsigned char value, siginfo_t *info);
int plain_read(const unsigned char *address, unsigned char *value, siginfo_t *info);

#endif
