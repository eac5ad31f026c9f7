/* SPDX-License-Identifier: MIT */
/*
 * world.h - what a sequence of calls works on: a space, four places for objects, handles, views,
 * and beside each object its model.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "fuzz/fuzz.h"
#include "fuzz/model.h"

#define OBJECTS	     4u
#define HANDLES	     6u
#define VIEWS	     8u
#define OBJECT_BYTES ((uint64_t)1 << 46) /* the largest there can be */
#define FAR_BYTES    ((uint64_t)1 << 40) /* from here on file system and memory may say no */
#define BUFFER_BYTES (48 * PAGE)

struct object {
	char uri[200]; /* "": not chosen yet */
	bool file, exists, errors, quota;
	uint64_t first_size_bytes; /* of mem */
	/* while it is open */
	bool manual, readonly;
	bool faulty;	  /* its store may refuse anything */
	bool limited;	  /* has limits of its own */
	bool waits;	  /* refused writers sleep: nothing must be refused */
	bool blind;	  /* the model has lost it */
	bool reserved;	  /* by mkw_reserve, perhaps to the end */
	bool dead;	  /* an end failed: not to be opened again */
	unsigned version; /* changes with its bytes and size */
	unsigned handles, views, freezes;
	struct model model;
};

struct handle {
	struct mkw_handle *handle;
	struct object *object;
	unsigned flags, freezes;
};

struct view {
	unsigned char *address; /* NULL: free */
	size_t given_bytes, length;
	struct object *object;
	uint64_t offset;
	bool writable;
	bool private;
	/* Of a private view: pages that were stored to; size_bytes means nothing. exact: the others
	 * show what the object has now; else that, or what it had when version was this. */
	struct model own;
	bool exact, stored;
	unsigned version;
};

struct world {
	struct mkw_space *space;
	bool fresh, limited;
	struct object objects[OBJECTS];
	struct handle handles[HANDLES];
	struct view views[VIEWS];
	unsigned char buffer[BUFFER_BYTES], wanted[BUFFER_BYTES];
};

extern struct world world;

/* May calls on it fail for reasons that the model does not know? */
static inline bool object_soft(const struct object *o)
{
	return o->faulty || o->limited || world.limited;
}

/* result must be wanted; of a soft object, or loose, also any errno. A failure has a sentence. */
#define CHECK_RESULT(o, loose, result, wanted) \
	result_check((o), (loose), (long long)(result), (long long)(wanted), __FILE__, __LINE__)
void result_check(const struct object *o, bool loose, long long result, long long wanted,
		  const char *file, int line);

/* world.buffer has what was read at offset, world.wanted what should be there. */
void bytes_compare(const struct object *o, uint64_t offset, size_t count);

/* Reads what the model has, and what surrounds it. strict: no read may fail. */
void object_verify(struct object *o, struct mkw_handle *handle, bool strict);

/* What is charged as dirty. */
uint64_t object_dirty(struct mkw_handle *handle);

/* The last handle or view has gone, and result was the answer. */
void object_ended(struct object *o, int result);

/* What the view shows, from an offset in its object on: the bytes of world.wanted. Returns for how
 * many of count they are known; all lie in one page. */
size_t view_read(const struct view *v, uint64_t offset, size_t count);
/* Own pages of a private view go. */
void view_drop(struct view *v, uint64_t offset, uint64_t length);
/* What private views have for themselves is there. */
void privates_verify(void);

/* All that is left is ended, after a last look at all bytes. */
void world_begin(struct input *in);
void world_finish(bool views_first);

int view_unmap_whole(struct view *v);
int handle_close(struct handle *h);

/* One call, with its check. False: the letter means nothing. */
bool call_one(struct input *in, unsigned char letter);

#endif
