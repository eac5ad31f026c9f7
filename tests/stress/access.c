/* SPDX-License-Identifier: MIT */
/*
 * access.c - steps that load and store: by instructions, by system calls on views, and by mkw_pread
 * and mkw_pwrite. A thread stores to its own words only; how much of an access was done is known
 * to the word, but for system calls that end early.
 */
#include "stress.h"

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define HAMMER_ROUNDS 50u

/* ---- Instructions ------------------------------------------------------------------------- */

struct touch {
	_Atomic uint64_t *at;
	uint64_t *buffer;
	size_t count;
	volatile size_t done;
	bool store;
};

/* Relaxed: one instruction each, which a refusal leaves undone. Unseen by TSan: a jump out of one
 * of its functions would leave its locks. */
__attribute__((no_sanitize("thread"))) static void touch_run(void *arg)
{
	struct touch *t = arg;

	for (size_t i = 0; i < t->count; i++) {
		if (t->store)
			atomic_store_explicit(&t->at[i], t->buffer[i], memory_order_relaxed);
		else
			t->buffer[i] = atomic_load_explicit(&t->at[i], memory_order_relaxed);
		t->done = i + 1;
	}
}

static _Atomic uint64_t *view_word(const struct view *v, size_t word)
{
	return (_Atomic uint64_t *)(void *)v->bytes + (word - v->first * PAGE_WORDS);
}

size_t touch(struct worker *w, const struct object *o, _Atomic uint64_t *at, uint64_t *buffer,
	     size_t count, bool store, int *error)
{
	struct touch t = {.at = at, .buffer = buffer, .count = count, .store = store};
	struct mkw_refusal refusal;

	*error = mkw_guard(touch_run, &t, &refusal);
	if (*error != 0 && refusal.address != &at[t.done])
		stress_fail(w->stress, o,
			    "thread %u: %p was refused (%s), which is not %p of %p +%zu", w->id,
			    refusal.address, refusal.message, (void *)&at[t.done], (void *)at,
			    count);
	return t.done;
}

static void values_make(struct worker *w, const struct model *m, size_t first, size_t count)
{
	w->seq++;
	for (size_t i = 0; i < count; i++)
		w->buffer[i] = model_value(m, first + i, w->seq);
}

void check_refusal(struct worker *w, struct access_span *s, const struct object *o,
		   const char *doing, size_t word, int error)
{
	const char *complaint = "refused for no reason that there is";

	if (error == -ENXIO)
		complaint = span_past_end(s, word, true);
	else if (error_is_expected(w, o, error))
		complaint = NULL;
	if (complaint != NULL)
		word_fail(w, o, doing, word, (uint64_t)error, complaint);
}

static void check_complaint(struct worker *w, const struct object *o, const char *doing,
			    size_t word, uint64_t value, const char *complaint)
{
	if (complaint != NULL)
		word_fail(w, o, doing, word, value, complaint);
}

/* Words [from, to) of the span have been read. */
static void check_read(struct worker *w, struct access_span *s, const struct object *o,
		       const char *doing, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check_complaint(w, o, doing, s->first + i, w->buffer[i],
				span_read(s, s->first + i, w->buffer[i]));
}

static void check_stored(struct worker *w, struct access_span *s, const struct object *o,
			 const char *doing, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check_complaint(w, o, doing, s->first + i, w->buffer[i],
				span_stored(s, s->first + i));
}

size_t view_store(struct worker *w, struct view *v, size_t first, size_t count, int *error)
{
	struct object *o = v->object;
	struct access_span s;
	size_t done;

	values_make(w, &o->model, first, count);
	span_begin(&s, &o->model, worker_handle(w, o), first, count, w->seq);
	done = touch(w, o, view_word(v, first), w->buffer, count, true, error);
	trace(w, o, "store", first, count, *error != 0 ? *error : (int64_t)done);
	check_stored(w, &s, o, "store", done);
	for (size_t i = first + done; i < first + count; i++)
		span_refused(&s, i);
	if (*error != 0)
		check_refusal(w, &s, o, "store", first + done, *error);
	return done;
}

static void view_load(struct worker *w, struct view *v, size_t first, size_t count)
{
	struct object *o = v->object;
	struct access_span s;
	size_t done;
	int error;

	span_begin(&s, &o->model, worker_handle(w, o), first, count, 0);
	done = touch(w, o, view_word(v, first), w->buffer, count, false, &error);
	trace(w, o, "load", first, count, error != 0 ? error : (int64_t)done);
	check_read(w, &s, o, "load", done);
	if (error != 0)
		check_refusal(w, &s, o, "load", first + done, error);
}

void step_store(struct worker *w)
{
	struct view *v = worker_view(w, true);
	size_t first, count;
	unsigned again;
	int error;

	if (v == NULL || !worker_extent(w, &v->object->model, v->first, v->pages,
					worker_one_in(w, 8) ? EXTENT_WORDS : 6, &first, &count))
		return;
	/* Now and then so often that a write-back comes in between. */
	again = worker_one_in(w, 8) && count <= 6 ? HAMMER_ROUNDS : 0;
	do
		view_store(w, v, first, count, &error);
	while (error == 0 && again-- > 0);
}

void step_load(struct worker *w)
{
	struct view *v = worker_view(w, false);
	size_t first, count;

	if (v != NULL && worker_extent(w, &v->object->model, v->first, v->pages,
				       worker_one_in(w, 8) ? EXTENT_WORDS : 12, &first, &count))
		view_load(w, v, first, count);
}

/* Words of others. */
void step_load_any(struct worker *w)
{
	struct view *v = worker_view(w, false);
	struct model *m;
	size_t word, end, stride;

	if (v == NULL)
		return;
	m = &v->object->model;
	word = (v->first + worker_below(w, v->pages)) * PAGE_WORDS + worker_below(w, PAGE_WORDS);
	end = (v->first + v->pages) * PAGE_WORDS;
	stride = 1 + worker_below(w, 40);
	for (unsigned i = 0; i < 24 && word < end; i++, word += stride) {
		struct access_span s;
		struct foreign f;
		uint64_t value;
		int error;

		if (model_owner(m, word) == w->id)
			continue;
		span_begin(&s, m, worker_handle(w, v->object), word, 0, 0);
		foreign_begin(&f, m, word);
		if (touch(w, v->object, view_word(v, word), &value, 1, false, &error) == 0) {
			check_refusal(w, &s, v->object, "load of another's", word, error);
			return;
		}
		check_complaint(w, v->object, "load of another's", word, value,
				foreign_read(&f, m, word, value));
	}
}

/* ---- System calls: not by functions that a sanitizer replaces, and that look at the bytes ---- */

/* May a call on these words of the view end early? */
static bool may_fall_short(const struct worker *w, const struct access_span *s,
			   const struct object *o)
{
	return !span_size_is_quiet(s) || error_is_expected(w, o, -ENOSPC) ||
	       error_is_expected(w, o, -EIO) || error_is_expected(w, o, -ENOBUFS);
}

/* The page of its last word begins past the end. */
static bool is_past_end(const struct access_span *s)
{
	return (s->first + s->count - 1) / PAGE_WORDS * PAGE >= s->size_bytes;
}

static void check_call(struct worker *w, const struct access_span *s, const struct view *v,
		       const char *doing, ssize_t moved)
{
	size_t bytes = s->count * WORD_BYTES;

	if (moved == (ssize_t)bytes || (moved < 0 && errno != EFAULT))
		REQUIRE(moved >= 0);
	else if (!v->is_inline && !is_past_end(s) && !may_fall_short(w, s, v->object))
		word_fail(w, v->object, doing, s->first, (uint64_t)moved,
			  "it fell short for no reason that there is");
}

/* The pipe or the file gets, or has given, count words; fn is one of four calls. */
static ssize_t call_read(struct worker *w, void *at, size_t bytes)
{
	size_t half = bytes / 2 & ~(WORD_BYTES - 1);
	struct iovec parts[2] = {{at, half}, {(char *)at + half, bytes - half}};

	if (worker_one_in(w, 2)) {
		REQUIRE_EQ(pwrite(w->file, w->buffer, bytes, 0), (ssize_t)bytes);
		return worker_one_in(w, 2) ? syscall(SYS_pread64, w->file, at, bytes, 0)
					   : syscall(SYS_preadv, w->file, parts, 2, 0, 0);
	}
	REQUIRE_EQ(write(w->pipe[1], w->buffer, bytes), (ssize_t)bytes);
	return worker_one_in(w, 2) ? syscall(SYS_read, w->pipe[0], at, bytes)
				   : syscall(SYS_readv, w->pipe[0], parts, 2);
}

static void pipe_drain(struct worker *w)
{
	char rest[4096];

	while (read(w->pipe[0], rest, sizeof(rest)) > 0)
		;
}

void step_read_call(struct worker *w)
{
	struct view *v = worker_view(w, true);
	struct access_span s;
	size_t first, count, done;
	ssize_t moved;

	if (v == NULL || !v->is_own ||
	    !worker_extent(w, &v->object->model, v->first, v->pages, EXTENT_WORDS, &first, &count))
		return;
	values_make(w, &v->object->model, first, count);
	span_begin(&s, &v->object->model, worker_handle(w, v->object), first, count, w->seq);
	moved = call_read(w, (void *)view_word(v, first), count * WORD_BYTES);
	trace(w, v->object, "read(2)", first, count, moved < 0 ? -errno : moved);
	check_call(w, &s, v, "read(2)", moved);
	done = moved > 0 ? (size_t)moved / WORD_BYTES : 0;
	check_stored(w, &s, v->object, "read(2)", done);
	/* What was copied of a piece that then failed is not told. */
	for (size_t i = first + done; i < first + count; i++)
		span_unsure(&s, i);
	pipe_drain(w);
}

static ssize_t call_write(struct worker *w, void *at, size_t bytes)
{
	size_t half = bytes / 2 & ~(WORD_BYTES - 1);
	struct iovec parts[2] = {{at, half}, {(char *)at + half, bytes - half}};
	ssize_t moved;

	if (worker_one_in(w, 2)) {
		moved = worker_one_in(w, 2) ? syscall(SYS_pwrite64, w->file, at, bytes, 0)
					    : syscall(SYS_pwritev, w->file, parts, 2, 0, 0);
		if (moved > 0)
			REQUIRE_EQ(pread(w->file, w->buffer, (size_t)moved, 0), moved);
		return moved;
	}
	moved = worker_one_in(w, 2) ? syscall(SYS_write, w->pipe[1], at, bytes)
				    : syscall(SYS_writev, w->pipe[1], parts, 2);
	if (moved > 0)
		REQUIRE_EQ(read(w->pipe[0], w->buffer, (size_t)moved), moved);
	return moved;
}

void step_write_call(struct worker *w)
{
	struct view *v = worker_view(w, false);
	struct access_span s;
	size_t first, count;
	ssize_t moved;

	if (v == NULL || !v->is_own ||
	    !worker_extent(w, &v->object->model, v->first, v->pages, EXTENT_WORDS, &first, &count))
		return;
	span_begin(&s, &v->object->model, worker_handle(w, v->object), first, count, 0);
	moved = call_write(w, (void *)view_word(v, first), count * WORD_BYTES);
	trace(w, v->object, "write(2)", first, count, moved < 0 ? -errno : moved);
	check_call(w, &s, v, "write(2)", moved);
	check_read(w, &s, v->object, "write(2)", moved > 0 ? (size_t)moved / WORD_BYTES : 0);
}

/* ---- mkw_pread and mkw_pwrite ------------------------------------------------------------- */

/* A refusal of the scratch object, which is never cut and never full. */
static bool scratch_move(struct worker *w, size_t count, bool store)
{
	int error;

	if (touch(w, NULL, (_Atomic uint64_t *)(void *)w->scratch, w->buffer, count, store,
		  &error) == count)
		return true;
	if (!error_is_expected(w, NULL, error))
		stress_fail(w->stress, NULL, "scratch: refused: errno %d", -error);
	return false;
}

static void check_moved(struct worker *w, const struct access_span *s, const struct object *o,
			const char *doing, ssize_t moved, bool scratch)
{
	bool fine = moved == (ssize_t)(s->count * WORD_BYTES) || may_fall_short(w, s, o) ||
		    (s->first + s->count) * WORD_BYTES > s->size_bytes ||
		    (scratch && error_is_expected(w, NULL, -ENOBUFS));

	if (moved < 0 && moved != -ENXIO && moved != -EFAULT)
		fine = error_is_expected(w, o, (int)moved);
	if (moved == -EFAULT)
		fine = scratch && error_is_expected(w, NULL, -ENOBUFS);
	if (!fine)
		word_fail(w, o, doing, s->first, (uint64_t)moved,
			  "it fell short for no reason that there is");
}

static bool any_extent(struct worker *w, struct object **o, size_t *first, size_t *count)
{
	*o = &w->stress->object[worker_below(w, w->stress->objects)];
	return worker_extent(w, &(*o)->model, 0, (*o)->model.pages, EXTENT_WORDS, first, count);
}

void step_pread(struct worker *w)
{
	bool scratch = worker_one_in(w, 2);
	struct access_span s;
	struct object *o;
	size_t first, count, done;
	ssize_t moved;

	if (!any_extent(w, &o, &first, &count))
		return;
	span_begin(&s, &o->model, worker_handle(w, o), first, count, 0);
	moved = mkw_pread(s.handle, scratch ? (void *)w->scratch : w->buffer, count * WORD_BYTES,
			  o->model.bias_bytes + first * WORD_BYTES);
	trace(w, o, "mkw_pread", first, count, moved);
	check_moved(w, &s, o, "mkw_pread", moved, scratch);
	done = moved > 0 ? (size_t)moved / WORD_BYTES : 0;
	if (!scratch || scratch_move(w, done, false))
		check_read(w, &s, o, "mkw_pread", done);
}

void step_pwrite(struct worker *w)
{
	bool scratch = worker_one_in(w, 2), grows;
	struct access_span s;
	struct object *o;
	size_t first, count, done;
	ssize_t moved;

	if (!any_extent(w, &o, &first, &count))
		return;
	values_make(w, &o->model, first, count);
	if (scratch && !scratch_move(w, count, true))
		return;
	span_begin(&s, &o->model, worker_handle(w, o), first, count, w->seq);
	grows = (first + count) * WORD_BYTES > o->model.least_bytes;
	if (grows) {
		s.size_bytes = UINT64_MAX;
		atomic_fetch_add(&o->model.growers_begun, 1);
	}
	moved = mkw_pwrite(s.handle, scratch ? (void *)w->scratch : w->buffer, count * WORD_BYTES,
			   o->model.bias_bytes + first * WORD_BYTES);
	trace(w, o, "mkw_pwrite", first, count, moved);
	check_moved(w, &s, o, "mkw_pwrite", moved, scratch);
	done = moved > 0 ? (size_t)moved / WORD_BYTES : 0;
	check_stored(w, &s, o, "mkw_pwrite", done);
	for (size_t i = first + done; i < first + count; i++)
		span_refused(&s, i);
	if (grows)
		atomic_fetch_add(&o->model.growers_ended, 1);
}
