/* SPDX-License-Identifier: MIT */
/*
 * model.h - what each word of an object may be, while many threads change it.
 *
 * Each word of 8 bytes has one owner, the only thread that stores to it; every value it stores is
 * new and names object, word and time. So an owner knows its word's value, exactly, until somebody
 * takes it away: truncate and punch make zeros of words that are not theirs, discard brings back
 * older values. These count per page when they begin and when they have ended. An owner that knows
 * its word since before none was under way, and finds that none has begun, must read just that
 * value; if one has begun, the value, zeros for any of its bytes, or an older one, according to
 * what it was. What it then reads is what it knows from there on.
 *
 *   known   the value is certain: no op on its page has begun since
 *   loose   past the end of the object, in its last page: any byte of it may have become zero
 *   unsure  a system call ended before it, and may have stored it: known, or since unsure_seq
 *
 * An op that has succeeded stamps what it zeroed with the time of its beginning: a word stored
 * before that must be zero. Others read an owner's knowledge below a sequence count, and so know
 * of a word that nobody takes away that it is not older than what its owner knew before.
 *
 * Everything but the lines marked "shared" belongs to the owner's thread.
 */
#ifndef STRESS_MODEL_H
#define STRESS_MODEL_H

#include "harness/world.h"

#include <stdatomic.h>

#define WORD_BYTES   sizeof(uint64_t)
#define PAGE_WORDS   (PAGE / WORD_BYTES)
#define EXTENT_WORDS 1600u /* most words of one access */

struct word {
	_Atomic uint64_t known;	    /* shared, with version: */
	_Atomic uint64_t version;   /* odd: do not trust known; below: ops ended when it was */
	_Atomic uint64_t zeroed;    /* shared: the clock when the last op began that zeroed it */
	_Atomic uint32_t announced; /* shared: no value is newer */
	bool loose, unsure;
	uint64_t stamp;	       /* the clock when it was stored */
	uint32_t zeros, drops; /* ops on its page that had ended before it was known */
	uint32_t unsure_seq;
	uint32_t last; /* the newest value stored */
	/* No older value can come back: it is in the store. */
	uint64_t floor;
	uint32_t floor_seq, floor_zeros;
	/* Of the access under way: */
	uint64_t seen_zeroed;
	uint32_t seen_zeros, seen_drops;
};

struct page_ops { /* shared */
	_Atomic uint32_t zeros_begun, zeros_ended, drops_begun, drops_ended;
	_Atomic uint64_t cut; /* the clock when the last truncate began that took it away */
};

struct model {
	uint32_t id;
	uint64_t bias_bytes; /* where word 0 is in the object; offsets here count from there */
	size_t pages, block; /* block: words of one owner in a row */
	unsigned threads;
	uint64_t least_bytes; /* the object is never shorter */
	bool drops;	      /* steps discard */
	struct word *word;
	struct page_ops *page;
	/* shared: changes of the size; growers: mkw_pwrite past the end */
	_Atomic uint32_t truncates_begun, truncates_ended, growers_begun, growers_ended;
};

/* The fields above word are set. */
void model_init(struct model *m);
void model_destroy(struct model *m);
unsigned model_owner(const struct model *m, size_t word);
uint64_t model_size(const struct model *m, struct mkw_handle *handle);
uint64_t model_value(const struct model *m, size_t word, uint32_t seq);

/* ---- Accesses of an owner ----------------------------------------------------------------- */

struct access_span {
	struct model *m;
	struct mkw_handle *handle;
	size_t first, count;
	uint32_t seq; /* of what is stored; 0: it reads */
	uint32_t truncates, growers;
	uint64_t size_bytes;
};

void span_begin(struct access_span *s, struct model *m, struct mkw_handle *handle, size_t first,
		size_t count, uint32_t seq);
/* How each of its words ended; the complaint about it, or NULL. */
const char *span_stored(struct access_span *s, size_t word);
const char *span_read(struct access_span *s, size_t word, uint64_t value);
void span_refused(struct access_span *s, size_t word);
void span_unsure(struct access_span *s, size_t word);
/* Whether a refusal because of the end, or its lack, at this word is right. */
const char *span_past_end(const struct access_span *s, size_t word, bool refused);
/* No change of size was under way. */
bool span_size_is_quiet(const struct access_span *s);

/* A word that nobody takes away, and what it is. */
bool word_is_certain(const struct model *m, size_t word, uint64_t *value);
/* It is in the store. */
void word_is_durable(struct model *m, size_t word);

/* ---- Accesses of others ------------------------------------------------------------------- */

struct foreign {
	uint64_t version, known;
};
void foreign_begin(struct foreign *f, struct model *m, size_t word);
const char *foreign_read(const struct foreign *f, struct model *m, size_t word, uint64_t value);

/* ---- Ops that take words away ------------------------------------------------------------- */

/* Pages of [offset, end). Returns the clock. */
uint64_t zero_begin(struct model *m, uint64_t offset, uint64_t end);
/* Words that lie in [from, to) are zero, if they were stored before clock; clock 0: it failed. */
void zero_end(struct model *m, uint64_t offset, uint64_t end, uint64_t clock, uint64_t from,
	      uint64_t to);
void drop_begin(struct model *m, uint64_t offset, uint64_t end);
void drop_end(struct model *m, uint64_t offset, uint64_t end);
/* A truncate to that offset, begun at clock, has succeeded. */
void pages_cut(struct model *m, uint64_t to, uint64_t clock);
/* No op on the page of a word is under way, or has been since it was known. */
bool page_is_quiet(const struct model *m, size_t page);

/* ---- Private views ------------------------------------------------------------------------ */

/* Values that are stored to a word in private view number id, from 1 on. seq 0: it is none. */
uint64_t private_value(const struct model *m, unsigned id, size_t word, uint32_t seq);
uint32_t private_seq(const struct model *m, unsigned id, size_t word, uint64_t value);
/* The object may have had that value, ever. */
bool value_is_of_word(const struct model *m, size_t word, uint64_t value);
uint64_t page_cut(const struct model *m, size_t page);
uint64_t model_now(void);

#endif
