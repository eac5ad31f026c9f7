/* SPDX-License-Identifier: MIT */
/*
 * private.c - steps on private views. A thread has some of its own, and each object one that all
 * threads write, each to its own words.
 *
 * What a thread knows of a page of such a view:
 *
 *   FRESH   it has not written there: what it reads is, or was, the object's. In a view that is
 *           advised random, and is no other thread's too, it is what the object has now.
 *   OWN     it has: its words have the value that it stored, and those that it once read stay as
 *           they were, whatever becomes of the object's page.
 *   UNSURE  a write was refused, or the object may have been cut: the object's, or what it stored,
 *           unless a cut that was begun later has succeeded.
 *
 * Values have a tag that tells the view. So one that reaches the object is found as well.
 */
#include "stress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHARED_PAGES 8u
#define STORE_WORDS  8u
#define OWN_PAGES    8u /* of a thread's own views, in limited worlds */

enum page_state { FRESH, OWN, UNSURE };

struct private_page {
	enum page_state state;
	bool known[PAGE_WORDS]; /* OWN: value is what it must be */
	uint64_t value[PAGE_WORDS];
	uint32_t least_seq, last_seq; /* that may be found there */
	uint64_t stamp;		      /* the clock after the last store */
	uint32_t truncates, growers;  /* ended, before it was OWN */
};

/* ---- What is known ------------------------------------------------------------------------ */

static struct private_page *page_of(const struct private_view *v, size_t word)
{
	return &v->page[word / PAGE_WORDS - v->first];
}

/* The size was, or is being, changed since the page was OWN. */
static bool page_may_be_cut(const struct private_view *v, size_t word)
{
	const struct model *m = &v->object->model;
	const struct private_page *p = page_of(v, word);

	return word / PAGE_WORDS * PAGE >= m->least_bytes &&
	       (atomic_load(&m->truncates_begun) != p->truncates ||
		atomic_load(&m->growers_begun) != p->growers);
}

/* cut: the clock of the last cut that had succeeded before the access. */
static const char *word_check(const struct private_view *v, size_t word, uint64_t value,
			      uint64_t cut)
{
	const struct private_page *p = page_of(v, word);
	uint32_t seq = private_seq(&v->object->model, v->id, word, value);
	bool objects = value_is_of_word(&v->object->model, word, value);

	if (p->state == OWN && p->known[word % PAGE_WORDS]) {
		if (value == p->value[word % PAGE_WORDS] && seq == 0)
			return NULL;
		if (value != p->value[word % PAGE_WORDS] && !page_may_be_cut(v, word))
			return objects ? "the copy was lost" : "the copy was changed";
	}
	if (objects)
		return NULL;
	if (seq == 0)
		return "it was never stored there";
	if (p->state == FRESH || seq < p->least_seq || seq > p->last_seq)
		return "it is of a copy that is gone";
	return cut > p->stamp ? "it was cut off and is back" : NULL;
}

static void word_know(struct private_view *v, size_t word, uint64_t value)
{
	struct private_page *p = page_of(v, word);

	if (p->state == OWN && page_may_be_cut(v, word))
		p->state = UNSURE;
	if (p->state != OWN)
		return;
	p->known[word % PAGE_WORDS] = true;
	p->value[word % PAGE_WORDS] = value;
}

/* ---- Accesses ----------------------------------------------------------------------------- */

/* All that it keeps has room. */
static bool is_limited(const struct worker *w)
{
	return (w->stress->kind->with & (WITH_LIMITS | WITH_SWAP)) == WITH_LIMITS;
}

static struct private_view *view_pick(struct worker *w)
{
	struct private_view *v = &w->privates[worker_below(w, PRIVATES)];

	if (v->bytes == NULL)
		private_make(w, v);
	return v;
}

/* Words of the thread's, in one page. */
static bool extent_pick(struct worker *w, const struct private_view *v, size_t most, size_t *first,
			size_t *count)
{
	uint64_t page = v->first + worker_below(w, v->pages);

	if (v->is_shared)
		return worker_extent(w, &v->object->model, page, 1, most, first, count);
	*first = page * PAGE_WORDS + worker_below(w, PAGE_WORDS);
	*count = 1 + worker_below(w, (page + 1) * PAGE_WORDS - *first);
	*count = *count < most ? *count : most;
	return true;
}

static _Atomic uint64_t *word_at(const struct private_view *v, size_t word)
{
	return (_Atomic uint64_t *)(void *)v->bytes + (word - v->first * PAGE_WORDS);
}

/* The store is never asked, so its lack of space is no reason. */
static void check_refused(struct worker *w, struct access_span *s, const struct private_view *v,
			  const char *doing, size_t word, int error)
{
	/* Where whatever is dirty can be written there is always room to read it back. */
	if ((w->stress->kind->with & (WITH_ERRORS | WITH_MANUAL | WITH_POLICY | WITH_PINS)) == 0 &&
	    page_of(v, word)->state == OWN && !page_may_be_cut(v, word))
		word_fail(w, v->object, doing, word, (uint64_t)error, "it has this page");
	if (error == -ENOSPC && !v->object->injects && (w->stress->kind->with & WITH_FULL) == 0)
		word_fail(w, v->object, doing, word, (uint64_t)error, "a private page needs none");
	check_refusal(w, s, v->object, doing, word, error);
}

static void check_complaint(struct worker *w, const struct private_view *v, const char *doing,
			    size_t word, uint64_t value, const char *complaint)
{
	const struct private_page *p = page_of(v, word);

	if (complaint == NULL)
		return;
	test_note("private view %u, %s, state %d, sequence %u to %u", v->id,
		  v->strict ? "strict" : "not strict", (int)p->state, p->least_seq, p->last_seq);
	word_fail(w, v->object, doing, word, value, complaint);
}

static void private_load(struct worker *w, struct private_view *v, size_t first, size_t count)
{
	struct object *o = v->object;
	struct access_span s;

	for (size_t i = first; i < first + count; i++) {
		bool fresh = v->strict && page_of(v, i)->state == FRESH;
		uint64_t cut = page_cut(&o->model, i / PAGE_WORDS), value;
		struct foreign f;
		int error;

		span_begin(&s, &o->model, worker_handle(w, o), i, 0, 0);
		foreign_begin(&f, &o->model, i);
		if (touch(w, o, word_at(v, i), &value, 1, false, &error) == 0) {
			trace(w, o, "private load", i, 1, error);
			check_refused(w, &s, v, "private load", i, error);
			return;
		}
		check_complaint(w, v, "private load", i, value, word_check(v, i, value, cut));
		check_complaint(w, v, "private load", i, value, span_past_end(&s, i, false));
		if (fresh)
			check_complaint(w, v, "private load", i, value,
					foreign_read(&f, &o->model, i, value));
		word_know(v, i, value);
	}
	trace(w, o, "private load", first, count, (int64_t)count);
}

/* Words [first, first+count) are about to be stored. */
static void store_begin(struct worker *w, struct private_view *v, size_t first, size_t count,
			struct access_span *s)
{
	struct private_page *p = page_of(v, first);

	w->seq++;
	for (size_t i = 0; i < count; i++)
		w->buffer[i] = private_value(&v->object->model, v->id, first + i, w->seq);
	if (p->state == OWN && page_may_be_cut(v, first))
		p->state = UNSURE;
	p->last_seq = w->seq;
	span_begin(s, &v->object->model, worker_handle(w, v->object), first, 0, 0);
}

/* So many of them have been: none is sure of the rest. */
static void store_end(struct private_view *v, size_t first, size_t count, size_t done,
		      const struct access_span *s)
{
	struct private_page *p = page_of(v, first);

	p->stamp = model_now();
	if (done == count && p->state != OWN) {
		memset(p->known, 0, sizeof(p->known));
		p->state = OWN;
		p->truncates = s->truncates;
		p->growers = s->growers;
	} else if (done < count) {
		p->state = UNSURE;
	}
	for (size_t i = first; i < first + done; i++)
		word_know(v, i, private_value(&v->object->model, v->id, i, p->last_seq));
}

void step_private_store(struct worker *w)
{
	struct private_view *v = view_pick(w);
	struct access_span s;
	size_t first, count, done;
	int error;

	if (!extent_pick(w, v, STORE_WORDS, &first, &count))
		return;
	store_begin(w, v, first, count, &s);
	done = touch(w, v->object, word_at(v, first), w->buffer, count, true, &error);
	trace(w, v->object, "private store", first, count, error != 0 ? error : (int64_t)done);
	store_end(v, first, count, done, &s);
	if (error != 0)
		check_refused(w, &s, v, "private store", first + done, error);
	private_load(w, v, first, count);
}

void step_private_load(struct worker *w)
{
	struct private_view *v = view_pick(w);
	size_t first, count;

	if (extent_pick(w, v, PAGE_WORDS, &first, &count))
		private_load(w, v, first, count);
}

/* By read(2), from a file. */
void step_private_call(struct worker *w)
{
	struct private_view *v = view_pick(w);
	struct access_span s;
	size_t first, count, done;
	ssize_t moved;

	if (!extent_pick(w, v, STORE_WORDS, &first, &count))
		return;
	store_begin(w, v, first, count, &s);
	REQUIRE_EQ(pwrite(w->file, w->buffer, count * WORD_BYTES, 0),
		   (ssize_t)(count * WORD_BYTES));
	moved = syscall(SYS_pread64, w->file, word_at(v, first), count * WORD_BYTES, 0);
	trace(w, v->object, "private read(2)", first, count, moved < 0 ? -errno : moved);
	REQUIRE(moved >= 0 || errno == EFAULT);
	done = moved > 0 ? (size_t)moved / WORD_BYTES : 0;
	store_end(v, first, count, done, &s);
	private_load(w, v, first, count);
}

/* ---- Copies go ---------------------------------------------------------------------------- */

static void pages_forget(struct worker *w, struct private_view *v, uint64_t page, uint64_t count)
{
	for (uint64_t i = page; i < page + count; i++) {
		v->page[i].state = FRESH;
		v->page[i].least_seq = w->seq + 1;
	}
}

static void private_drop(struct worker *w, struct private_view *v, uint64_t page, uint64_t count)
{
	REQUIRE_EQ(mkw_advise(v->bytes + page * PAGE, count * PAGE, MKW_DONTNEED), 0);
	trace(w, v->object, "private drop", v->first + page, count, 0);
	pages_forget(w, v, page, count);
}

void step_private_drop(struct worker *w)
{
	struct private_view *v = view_pick(w);
	uint64_t page = worker_below(w, v->pages);

	if (!v->is_shared)
		private_drop(w, v, page, 1 + worker_below(w, v->pages - page));
}

static bool is_own(const struct private_view *v)
{
	return v->bytes != NULL && !v->is_shared;
}

/* Not more than may be resident. */
void private_keep_few(struct worker *w)
{
	uint64_t pages = 0;

	if (!is_limited(w))
		return;
	for (unsigned i = 0; i < PRIVATES; i++)
		for (uint64_t p = 0; is_own(&w->privates[i]) && p < w->privates[i].pages; p++)
			pages += w->privates[i].page[p].state != FRESH;
	for (unsigned i = 0; i < PRIVATES && pages > OWN_PAGES; i++)
		if (is_own(&w->privates[i]))
			private_drop(w, &w->privates[i], 0, w->privates[i].pages);
}

uint64_t private_room(const struct stress *s)
{
	if ((s->kind->with & (WITH_PRIVATE | WITH_SWAP)) != WITH_PRIVATE)
		return 0;
	return WORLD_OBJECTS * SHARED_PAGES + s->threads * (OWN_PAGES + 1);
}

/* ---- Views -------------------------------------------------------------------------------- */

void step_private_advise(struct worker *w)
{
	struct private_view *v = view_pick(w);
	enum mkw_advice advice = (enum mkw_advice)worker_below(w, MKW_WILLNEED + 1);
	int error;

	if (is_limited(w)) /* a stream is copied ahead of, more than private_keep_few knows of */
		return;
	if (advice != MKW_RANDOM)
		v->strict = false;
	error = mkw_advise(v->bytes, v->pages * PAGE, advice);
	trace(w, v->object, "private advise", v->first, advice, error);
	if (error != -ENXIO && error != 0 && !error_is_expected(w, v->object, error))
		stress_fail(w->stress, v->object, "private advise %d: %s", (int)advice,
			    mkw_error_message());
}

void step_private_view(struct worker *w)
{
	struct private_view *v = &w->privates[worker_below(w, OWN_PRIVATES)];

	private_end(v);
	private_make(w, v);
	trace(w, v->object, "private map", v->first, v->pages, 0);
}

static void pages_make(struct private_view *v)
{
	v->page = calloc(v->pages, sizeof(*v->page));
	REQUIRE(v->page != NULL);
}

static void private_map(struct private_view *v, struct mkw_handle *handle, unsigned flags)
{
	void *address;

	REQUIRE_EQ(mkw_map(handle, v->pages * PAGE, MKW_WRITE, flags | MKW_PRIVATE,
			   v->object->model.bias_bytes + v->first * PAGE, &address),
		   0);
	v->bytes = address;
}

void private_make(struct worker *w, struct private_view *v)
{
	struct object *o = &w->stress->object[worker_below(w, w->stress->objects)];
	unsigned slot = (unsigned)(v - w->privates);

	*v = (struct private_view){.object = o, .id = 1 + w->id * PRIVATES + slot};
	v->first = worker_below(w, o->model.pages);
	v->pages = 1 + worker_below(w, o->model.pages - v->first);
	private_map(v, worker_handle(w, o), view_flags(w));
	if (is_limited(w) || worker_one_in(w, 2)) {
		v->strict = true;
		REQUIRE_EQ(mkw_advise(v->bytes, v->pages * PAGE, MKW_RANDOM), 0);
	}
	pages_make(v);
	pages_forget(w, v, 0, v->pages);
}

void private_reshaped(struct worker *w, struct private_view *v, unsigned char *bytes,
		      uint64_t first, uint64_t pages)
{
	struct private_view now = *v;

	now.bytes = bytes;
	now.first = first;
	now.pages = pages;
	pages_make(&now);
	pages_forget(w, &now, 0, pages);
	for (uint64_t i = first; i < first + pages && i < v->first + v->pages; i++)
		now.page[i - first] = v->page[i - v->first];
	/* Pages that have come are not advised. */
	v->strict &= pages <= v->pages;
	now.strict = v->strict;
	free(v->page);
	*v = now;
}

void private_end(struct private_view *v)
{
	if (v->bytes != NULL && !v->is_shared)
		REQUIRE_EQ(mkw_unmap(v->bytes, v->pages * PAGE), 0);
	free(v->page);
	v->page = NULL;
	v->bytes = NULL;
}

void private_share(struct stress *s, struct object *o)
{
	struct private_view *v = &o->private;

	if ((s->kind->with & WITH_PRIVATE) == 0)
		return;
	*v = (struct private_view){.object = o, .id = 1 + WORKERS_MAX * PRIVATES + o->model.id};
	v->is_shared = true;
	v->first = rig_random(&s->random) % (o->model.pages - SHARED_PAGES);
	v->pages = SHARED_PAGES;
	private_map(v, o->handle, test_map_flags());
}

/* A thread's own knowledge of what all threads have. */
void private_adopt(struct worker *w)
{
	for (unsigned i = 0; i < w->stress->objects; i++) {
		struct private_view *v = &w->privates[OWN_PRIVATES + i];

		*v = w->stress->object[i].private;
		if (v->bytes == NULL) { /* a fleeting object has none: one of its own then */
			private_make(w, v);
			continue;
		}
		pages_make(v);
		pages_forget(w, v, 0, v->pages);
	}
}
