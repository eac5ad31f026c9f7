/* SPDX-License-Identifier: MIT */
/*
 * layer.h - a store over another store, which lets a hook look at each operation first. What the
 * store beneath cannot do the layer cannot do; size, flags and file are those of the store beneath.
 */
#ifndef STORE_LAYER_H
#define STORE_LAYER_H

#include <mkwrite/store.h>

enum layer_op {
	LAYER_FAULT,
	LAYER_PAGE_MKWRITE,
	LAYER_UNRESERVE,
	LAYER_WRITEPAGES,
	LAYER_TRUNCATE,
	LAYER_PUNCH_HOLE,
	LAYER_FSYNC,
	LAYER_ATTACH,
	LAYER_CONTROL,
	LAYER_CAPACITY,
	LAYER_OPS
};

/* The pages that a call is about: [first, end). Calls about no pages are about all of them. */
struct layer_call {
	enum layer_op op;
	uint64_t first, end;
	const struct mkw_writeback *writeback; /* writepages: its runs say more */
};

struct layer_verdict {
	enum { LAYER_PASS, LAYER_FAIL, LAYER_ANSWER, LAYER_UNLOCKED } what;
	int error;	     /* LAYER_FAIL: a negative errno */
	mkw_fault_t code;    /* LAYER_ANSWER: what fault or page_mkwrite returns */
	uint64_t first, end; /* writepages: fail runs that touch these pages only */
};

struct layer {
	struct mkw_store_ops ops;   /* of this layer */
	struct mkw_store_ops inner; /* of the store beneath, made as long as ours */
	void *store;
	/* Called before each operation, from any thread, several at a time. */
	void (*look)(struct layer *layer, const struct layer_call *call,
		     struct layer_verdict *verdict);
	/* An assignment meant for this layer? NULL: none is. 0, negative errno, or 1: not ours. */
	int (*control)(struct layer *layer, const char *key, const char *value);
	void (*free)(struct layer *layer);
};

/* Open what is beneath and put layer over it. On failure the caller frees layer. */
int layer_open(struct layer *layer, struct mkw_open_args *args);

/* "fault", "page_mkwrite" ...; -EINVAL with a sentence that lists them. extra is accepted too and
 * gives LAYER_OPS. */
int layer_parse_op(const char *value, const char *extra, enum layer_op *op);

#endif
