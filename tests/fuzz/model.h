/* SPDX-License-Identifier: MIT */
/*
 * model.h - what an object's bytes must be, and what its store's must be: the plain,
 * single-threaded picture that fuzz_api compares the library with. Sparse: a page that is not in it
 * is zeros in both.
 */
#ifndef FUZZ_MODEL_H
#define FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model_page {
	struct model_page *next;
	uint64_t index;
	bool written; /* since the store had it for certain: now and stored may differ */
	bool listed;  /* must be among the dirty ranges */
	bool unsure;  /* what the store has is not known */
	bool kept;    /* the store may keep bytes of it, zeros perhaps */
	size_t valid; /* of a private view: so many bytes of now are known */
	unsigned char now[4096], stored[4096];
};

struct model {
	uint64_t size_bytes;
	struct model_page *pages;
};

void models_reset(void); /* all pages are free again */
void model_clear(struct model *m);

struct model_page *model_page(struct model *m, uint64_t index);

/* NULL: it is not there. */
const struct model_page *model_find(const struct model *m, uint64_t index);
/* Pages [first, last] are not there any more. */
void model_forget(struct model *m, uint64_t first, uint64_t last);

/* Is there memory left to model a write? If not it is not made. */
bool model_room(size_t pages);

/* Bytes within and past the size; past it they are zeros. */
void model_read(const struct model *m, uint64_t offset, unsigned char *to, size_t count);
void model_write(struct model *m, uint64_t offset, const unsigned char *from, size_t count);
void model_truncate(struct model *m, uint64_t size_bytes);
/* A range within the size is zeroed; its whole pages in the store too. */
void model_punch(struct model *m, uint64_t offset, uint64_t length);

/* [first, last], in pages: the store has them now; or has got some of them, perhaps. */
void model_synced(struct model *m, uint64_t first, uint64_t last);
void model_unsure(struct model *m, uint64_t first, uint64_t last);

/* How many pages the store may keep. */
uint64_t model_kept(const struct model *m);

#endif
