/* SPDX-License-Identifier: MIT */
/*
 * stress.h - a world of objects, and the threads that change them (stress.c says how it works).
 */
#ifndef STRESS_STRESS_H
#define STRESS_STRESS_H

#include "harness/rig.h"
#include "model.h"

#define WORLD_OBJECTS 4u
#define WORKERS_MAX   8u
#define OWN_VIEWS     5u
#define SHARED_VIEWS  2u
#define OWN_PRIVATES  2u			     /* private views of a thread; */
#define PRIVATES      (OWN_PRIVATES + WORLD_OBJECTS) /* and those that all have */
#define TRACE_ENTRIES 4096u
#define SCRATCH_PAGES 5u /* of each thread, for the buffers of calls */

/* What a world has; see worlds[] in stress.c. */
enum {
	WITH_LIMITS = 0x01,  /* little dirty, little resident */
	WITH_ERRORS = 0x02,  /* operations of stores fail and are slow */
	WITH_QUOTA = 0x04,   /* stores are often full */
	WITH_MANUAL = 0x08,  /* nothing is written but by sync */
	WITH_DISCARD = 0x10, /* pages are dropped unwritten */
	WITH_POLICY = 0x20,  /* refused writes wait, or go on in memory, besides */
	WITH_PRIVATE = 0x40, /* private views, besides */
	WITH_SWAP = 0x80,    /* their copies go to a swap file */
	WITH_FULL = 0x100,   /* which is small */
	WITH_PINS = 0x200,   /* pages are pinned, and written to past their protections */
	WITH_SHAPES = 0x400, /* views change their shape */
};

struct kind {
	const char *name;
	unsigned with;
};

struct private_view {
	struct object *object;
	unsigned char *bytes;
	uint64_t first, pages; /* of the model */
	unsigned id;	       /* tag of its values; never 0 */
	bool is_shared, strict;
	struct private_page *page;
};

struct object {
	struct model model;
	char uri[256], path[128];
	unsigned open_flags;
	struct mkw_handle *handle; /* held from the beginning to the end */

	bool fleeting;	      /* now and then nobody has it open */
	bool injects;	      /* operations fail */
	bool waits;	      /* writers may wait for space */
	uint64_t quota_bytes; /* 0: none */
	int fd;		      /* the file beneath; -1: none */
	void *shared[SHARED_VIEWS];
	uint64_t shared_first[SHARED_VIEWS], shared_pages[SHARED_VIEWS];
	struct private_view private; /* of all threads; bytes NULL: none */
	_Atomic uint32_t pins_begun, pins_ended;
	_Atomic uint32_t taken; /* ops begun that take pages or reservations */
};

struct view {
	struct object *object;
	unsigned char *bytes;
	uint64_t first, pages; /* of the model */
	bool writable, is_inline, is_own;
};

struct trace {
	const char *what;
	unsigned object;
	uint64_t from, count;
	int64_t result;
};

struct worker {
	struct stress *stress;
	unsigned id;
	uint64_t random;
	uint32_t seq;
	uint64_t steps;
	struct mkw_handle *handles[WORLD_OBJECTS];
	struct view views[OWN_VIEWS];
	struct private_view privates[PRIVATES];
	int pipe[2], file;
	int plain, direct;	/* pins.c */
	unsigned char *scratch; /* a view of its part of the scratch object */
	uint64_t *buffer;
	struct trace trace[TRACE_ENTRIES];
	uint64_t traced;
	struct test_thread thread;
};

struct stress {
	const struct kind *kind;
	uint64_t seed, steps;
	unsigned threads, objects;
	uint64_t random; /* for what is made before the threads start */
	struct mkw_space *space;
	uint64_t dirty_limit_bytes, resident_limit_bytes;
	struct object object[WORLD_OBJECTS];
	struct mkw_handle *scratch;
	struct worker *worker[WORKERS_MAX];
	_Atomic unsigned running;
	struct test_thread changer;
};

/* setup.c */
void stress_make(struct stress *s);
void stress_end(struct stress *s);
struct mkw_handle *object_open(struct object *o, struct mkw_space *space);
/* Bytes of the store itself, past the library. False: it cannot be asked. */
bool object_stored(struct object *o, uint64_t offset, void *bytes, size_t count, bool quiet);
void view_make(struct worker *w, struct view *v);
void view_end(struct view *v);
unsigned view_flags(struct worker *w);

/* access.c and calls.c: what threads do */
void worker_step(struct worker *w);

uint64_t worker_below(struct worker *w, uint64_t bound);
bool worker_one_in(struct worker *w, unsigned n);
struct view *worker_view(struct worker *w, bool writable);
struct mkw_handle *worker_handle(struct worker *w, struct object *o);
/* Words of w's within [from, from+count) of an object, at most most; false: there are none. */
bool worker_extent(struct worker *w, const struct model *m, uint64_t from, uint64_t count,
		   size_t most, size_t *first, size_t *words);
bool error_is_expected(const struct worker *w, const struct object *o, int error);

void step_store(struct worker *w);
void step_load(struct worker *w);
void step_load_any(struct worker *w);
void step_read_call(struct worker *w);
void step_write_call(struct worker *w);
void step_pread(struct worker *w);
void step_pwrite(struct worker *w);
/* Words [first, first+count) of a view: how many could be stored; *error is 0 or of the rest. */
size_t view_store(struct worker *w, struct view *v, size_t first, size_t count, int *error);

/* access.c, for private.c: words between a buffer and memory in a view of the object. Returns how
 * many were moved. */
size_t touch(struct worker *w, const struct object *o, _Atomic uint64_t *at, uint64_t *buffer,
	     size_t count, bool store, int *error);
void check_refusal(struct worker *w, struct access_span *s, const struct object *o,
		   const char *doing, size_t word, int error);

/* private.c */
void private_make(struct worker *w, struct private_view *v);
void private_end(struct private_view *v);
/* That of all threads: make it, and have it known to one of them. */
void private_share(struct stress *s, struct object *o);
void private_adopt(struct worker *w);
void private_keep_few(struct worker *w);
/* Most pages that copies take. */
uint64_t private_room(const struct stress *s);
void step_private_store(struct worker *w);
void step_private_load(struct worker *w);
void step_private_call(struct worker *w);
void step_private_drop(struct worker *w);
void step_private_advise(struct worker *w);
void step_private_view(struct worker *w);

/* Its pages are these now; those that it had before are as they were. */
void private_reshaped(struct worker *w, struct private_view *v, unsigned char *bytes,
		      uint64_t first, uint64_t pages);

/* reshape.c */
void step_reshape(struct worker *w);
void step_reshape_private(struct worker *w);

/* Its pages are these now; those that it had before are as they were. */
void private_reshaped(struct worker *w, struct private_view *v, unsigned char *bytes,
		      uint64_t first, uint64_t pages);

/* reshape.c */
void step_reshape(struct worker *w);
void step_reshape_private(struct worker *w);

/* pins.c */
void direct_open(struct worker *w);
void direct_close(struct worker *w);
void step_pin(struct worker *w);

/* stress.c: a line of what was done, and the end of the test. */
void trace(struct worker *w, const struct object *o, const char *what, uint64_t from,
	   uint64_t count, int64_t result);
_Noreturn void stress_fail(struct stress *s, const struct object *o, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void word_fail(struct worker *w, const struct object *o, const char *doing, size_t word,
			 uint64_t value, const char *complaint);

#endif
