/* SPDX-License-Identifier: MIT */
/*
 * model.h - what a store must hold, kept beside it while calls are made to fail.
 *
 * A scenario is a row of steps. A step that succeeded has changed the model; one that failed has
 * not, or only as far as it had come, and can be done again. model_step does a step: when it fails
 * because a call was made to fail, everything is read back and compared, and the step is done
 * again, now with success. model_loop runs a scenario for N = 1, 2, 3 ... until one comes through
 * without having a call made to fail, and looks each time whether anything was left behind.
 */
#ifndef MODEL_H
#define MODEL_H

#include "harness/world.h"
#include "nth/nth.h"

#define MODEL_PAGES 640u

enum model_store {
	MODEL_MEM,
	MODEL_TMPFS,  /* file: on a tmpfs */
	MODEL_FILE,   /* file: in /var/tmp, on whatever that is */
	MODEL_SCRIPT, /* the store of a test, whose operations are made to fail too (store.c) */
	MODEL_STORES
};

struct model {
	enum model_store kind;
	const char *options; /* of the URI, "?..." or "" */
	char path[200], uri[300];
	struct script_store *script;
	struct mkw_store_ops ops; /* MODEL_SCRIPT: what the object gets */
	/* A scenario may set these before model_storage or model_begin: */
	const char *layer; /* "error:" before the URI */
	bool holes;	   /* the file has no blocks */
	struct mkw_space_options space_options;
	unsigned open_flags;
	uint64_t enough; /* calls; 0: all of them */
	struct mkw_space *space;
	struct mkw_handle *handle;
	unsigned char *view; /* of all of it, writable */
	size_t view_pages;
	unsigned char *second;	/* a further view, from page 1 on, only to be read */
	unsigned char *private; /* a private view of all of it, writable */
	size_t private_pages;
	bool only_own;	       /* there is no room for others than these: */
	bool own[MODEL_PAGES]; /* pages that were written there: own_bytes has them */
	uint64_t size;
	uint64_t quiet_pages; /* so many at the beginning are never touched, nor read by views */
	unsigned told;	      /* errors that calls have returned */
	bool fired_open;      /* before it was closed */
	uint64_t doubt_offset, doubt_length; /* bytes that may be zero by now */
	uint64_t most_bytes;		     /* that were ever part of it */
	unsigned char bytes[MODEL_PAGES * MKW_PAGE_SIZE];
	unsigned char own_bytes[MODEL_PAGES * MKW_PAGE_SIZE];
};

typedef int (*model_fn)(struct model *m);

/* Do a step. False: it could not be had at all, the run is at its end. */
bool model_step(struct model *m, model_fn fn, const char *name);
#define STEP(m, fn)                                \
	do {                                       \
		if (!model_step((m), (fn), #fn)) { \
			model_end(m);              \
			return;                    \
		}                                  \
	} while (0)

/* From here on calls count. */
void model_arm(void);
/* Read everything back: views and mkw_pread show the model. */
void model_check(struct model *m);
/* Sync, unmap, close, end the space, as far as that has not been done: all of it has to succeed,
 * and the store holds the model. Nothing is made to fail any more. */
void model_end(struct model *m);

/* Steps that many scenarios have. */
int model_space(struct model *m);
int model_open(struct model *m);
int model_map(struct model *m);
int model_map_second(struct model *m);
int model_map_private(struct model *m);
int model_unmap(struct model *m);
int model_unmap_second(struct model *m);
int model_unmap_private(struct model *m);
int model_close(struct model *m);
int model_destroy(struct model *m);
int model_sync(struct model *m);
/* All of the object, through the view. */
int model_read(struct model *m);

/* One word in each page; a refused one ends it. */
int model_write(struct model *m, uint64_t first, uint64_t count, unsigned char value);
/* The same through the private view, every step-th page. */
int model_write_private(struct model *m, uint64_t first, uint64_t count, uint64_t step,
			unsigned char value);
/* The same to pages that are pinned, and a sync meanwhile. */
int model_write_pinned(struct model *m, uint64_t first, uint64_t count, unsigned char value);
/* Read through a private view whose pages are pinned. */
int model_pin_private(struct model *m);
int model_pwrite(struct model *m, uint64_t offset, size_t length, unsigned char value);
int model_truncate(struct model *m, uint64_t size);
int model_punch(struct model *m, uint64_t offset, uint64_t length);
/* Storage with so many pages of pattern (mem: holes), and no space yet. */
void model_storage(struct model *m, uint64_t pages);
/* The usual beginning: so many pages of pattern in the store, space, object, view; nothing armed.
 */
void model_begin(struct model *m, uint64_t pages);

/* All errnos of each call, and all stores. */
bool model_heavy(void);
/* Run scenario for each N and errno, for a store. */
void model_loop(enum model_store kind, const char *options, void (*scenario)(struct model *m));

#endif
