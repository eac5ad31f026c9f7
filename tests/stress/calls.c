/* SPDX-License-Identifier: MIT */
/*
 * calls.c - steps that call the library about ranges, objects and views, and the choice of steps.
 */
#include "stress.h"

#include <string.h>

#define FROZEN_LOOKS  20u  /* at one page */
#define DURABLE_WORDS 256u /* looked at in the store after each sync */

struct range {
	struct object *o;
	struct mkw_handle *handle;
	uint64_t offset, length; /* of the model */
};

static struct range any_range(struct worker *w)
{
	struct range r = {.o = &w->stress->object[worker_below(w, w->stress->objects)]};
	uint64_t bytes = r.o->model.pages * PAGE;

	r.handle = worker_handle(w, r.o);
	r.offset = worker_below(w, bytes);
	r.length = 1 + worker_below(w, worker_one_in(w, 4) ? bytes : 4 * PAGE);
	if (worker_one_in(w, 3)) {
		r.offset &= ~(uint64_t)(PAGE - 1);
		r.length = (r.length + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	}
	if (r.length > bytes - r.offset)
		r.length = bytes - r.offset;
	return r;
}

static void check_error(struct worker *w, const struct object *o, const char *doing, int error,
			int besides)
{
	if (error != 0 && error != besides && !error_is_expected(w, o, error))
		stress_fail(w->stress, o, "%s: errno %d (%s) for no reason that there is", doing,
			    -error, mkw_error_message());
}

static bool has_pins(const struct worker *w)
{
	return (w->stress->kind->with & WITH_PINS) != 0;
}

/* ---- Sync --------------------------------------------------------------------------------- */

/* Own words that are certain, before a sync. */
struct promise {
	size_t count;
	size_t word[DURABLE_WORDS];
	uint64_t value[DURABLE_WORDS];
};

static void promise_note(struct worker *w, const struct range *r, struct promise *p)
{
	const struct model *m = &r->o->model;
	uint64_t size = model_size(m, r->handle), end = r->offset + r->length;
	size_t first, count;

	p->count = 0;
	if (end > size)
		end = size;
	if (end < r->offset + PAGE ||
	    !worker_extent(w, m, r->offset / PAGE, (end - r->offset) / PAGE, DURABLE_WORDS, &first,
			   &count))
		return;
	for (size_t i = first; i < first + count; i++)
		if (i * WORD_BYTES >= r->offset && (i + 1) * WORD_BYTES <= end &&
		    word_is_certain(m, i, &p->value[p->count]))
			p->word[p->count++] = i;
}

/* The sync returned 0. quiet: the object is frozen. */
static void promise_check(struct worker *w, const struct range *r, const struct promise *p,
			  const char *doing, bool quiet)
{
	struct object *o = r->o;
	uint64_t stored, now;

	for (size_t i = 0; i < p->count; i++) {
		size_t word = p->word[i];
		bool had = object_stored(o, word * WORD_BYTES, &stored, sizeof(stored), quiet);

		if (!word_is_certain(&o->model, word, &now))
			continue;
		if (had && stored != p->value[i])
			word_fail(w, o, doing, word, stored, "the store does not have it");
		word_is_durable(&o->model, word);
	}
}

static void step_sync(struct worker *w)
{
	struct range r = any_range(w);
	struct promise p;
	int error;

	if (worker_one_in(w, 8))
		r.offset = 0, r.length = r.o->model.pages * PAGE;
	promise_note(w, &r, &p);
	error = mkw_sync(r.handle, r.o->model.bias_bytes + r.offset, r.length);
	trace(w, r.o, "sync", r.offset, r.length, error);
	/* EBUSY: frozen, and pinned pages are written to. */
	check_error(w, r.o, "sync", error, has_pins(w) ? -EBUSY : 0);
	if (error == 0)
		promise_check(w, &r, &p, "sync", false);
}

static void step_msync(struct worker *w)
{
	struct view *v = worker_view(w, false);
	struct promise p;
	struct range r;
	uint64_t page;
	int error;

	if (v == NULL)
		return;
	page = worker_below(w, v->pages);
	r = (struct range){v->object, worker_handle(w, v->object), (v->first + page) * PAGE,
			   (1 + worker_below(w, v->pages - page)) * PAGE};
	promise_note(w, &r, &p);
	error = mkw_msync(v->bytes + page * PAGE, r.length);
	trace(w, r.o, "msync", r.offset, r.length, error);
	check_error(w, r.o, "msync", error, has_pins(w) ? -EBUSY : 0);
	if (error == 0)
		promise_check(w, &r, &p, "msync", false);
}

static void step_invalidate(struct worker *w)
{
	struct range r = any_range(w);
	struct promise p;
	int error;

	promise_note(w, &r, &p);
	error = mkw_invalidate(r.handle, r.o->model.bias_bytes + r.offset, r.length);
	trace(w, r.o, "invalidate", r.offset, r.length, error);
	check_error(w, r.o, "invalidate", error, -EBUSY);
	if (error == 0)
		promise_check(w, &r, &p, "invalidate", false);
}

/* A page of the frozen object: nobody stores now, so the store has what the library reads. */
static void check_frozen_page(struct worker *w, const struct range *r)
{
	uint64_t at = r->offset & ~(uint64_t)(PAGE - 1), size = model_size(&r->o->model, r->handle);
	unsigned char read[PAGE], stored[PAGE];
	uint32_t pins = atomic_load(&r->o->pins_ended);
	ssize_t n;

	if (at >= size)
		return;
	n = mkw_pread(r->handle, read, PAGE, r->o->model.bias_bytes + at);
	if (n <= 0 || !object_stored(r->o, at, stored, (size_t)n, true))
		return;
	/* Who has pinned a page goes on. */
	if (atomic_load(&r->o->pins_begun) != pins)
		return;
	if (memcmp(read, stored, (size_t)n) != 0)
		stress_fail(w->stress, r->o, "frozen, page %llu is not what is stored",
			    (unsigned long long)(at / PAGE));
}

static void step_freeze(struct worker *w)
{
	struct range r = any_range(w);
	struct promise p;
	int error = mkw_freeze(r.handle);

	trace(w, r.o, "freeze", 0, 0, error);
	check_error(w, r.o, "freeze", error, 0);
	if (error != 0)
		return;
	/* Nobody stores now; what this thread knows is in the store. */
	promise_note(w, &r, &p);
	promise_check(w, &r, &p, "freeze", true);
	for (unsigned i = 0; i < FROZEN_LOOKS; i++)
		check_frozen_page(w, &r);
	error = mkw_truncate(r.handle, mkw_size(r.handle));
	if (error != -EBUSY)
		stress_fail(w->stress, r.o, "truncate of a frozen object: errno %d", -error);
	REQUIRE_EQ(mkw_thaw(r.handle), 0);
	trace(w, r.o, "thaw", 0, 0, 0);
}

/* ---- What takes bytes away ---------------------------------------------------------------- */

/* No other change of the size is under way: the size is not one that will be taken back. */
static bool size_is_ours(const struct model *m)
{
	return atomic_load(&m->truncates_begun) - atomic_load(&m->truncates_ended) == 1 &&
	       atomic_load(&m->growers_begun) == atomic_load(&m->growers_ended);
}

static void step_truncate(struct worker *w)
{
	struct range r = any_range(w);
	struct model *m = &r.o->model;
	uint64_t to = r.offset > m->least_bytes ? r.offset : m->least_bytes, from = to, old, clock;
	const uint64_t end = m->pages * PAGE;
	uint32_t begun;
	bool ours;
	int error;

	if (worker_one_in(w, 2))
		to = from = end - worker_below(w, 2 * PAGE);
	atomic_fetch_add(&r.o->taken, 1);
	atomic_fetch_add(&m->truncates_begun, 1);
	clock = zero_begin(m, to, end);
	begun = atomic_load(&m->truncates_begun) + atomic_load(&m->growers_begun);
	ours = size_is_ours(m);
	old = ours ? model_size(m, r.handle) : to;
	/* What was stored past the old end does not come in by growing. */
	if (old < to && atomic_load(&m->truncates_begun) + atomic_load(&m->growers_begun) == begun)
		from = old;
	error = mkw_truncate(r.handle, m->bias_bytes + to);
	trace(w, r.o, "truncate", to, from, error);
	check_error(w, r.o, "truncate", error, -EBUSY);
	if (error == 0 && ours && model_size(m, r.handle) != to &&
	    atomic_load(&m->truncates_begun) + atomic_load(&m->growers_begun) == begun)
		stress_fail(w->stress, r.o, "truncate to %llu: the size is %llu",
			    (unsigned long long)to, (unsigned long long)model_size(m, r.handle));
	zero_end(m, to, end, error == 0 ? clock : 0, from, end);
	if (error == 0)
		pages_cut(m, to, clock);
	atomic_fetch_add(&m->truncates_ended, 1);
}

static void step_punch(struct worker *w)
{
	struct range r = any_range(w);
	struct model *m = &r.o->model;
	uint64_t end = r.offset + r.length, clock = zero_begin(m, r.offset, end);
	int error;

	atomic_fetch_add(&r.o->taken, 1);
	error = mkw_punch(r.handle, m->bias_bytes + r.offset, r.length);
	trace(w, r.o, "punch", r.offset, r.length, error);
	check_error(w, r.o, "punch", error, -EBUSY);
	/* Where the end is meanwhile nobody knows. */
	zero_end(m, r.offset, end, error == 0 ? clock : 0, r.offset,
		 end < m->least_bytes ? end : m->least_bytes);
}

static void step_discard(struct worker *w)
{
	struct range r = any_range(w);
	int error;

	atomic_fetch_add(&r.o->taken, 1);
	drop_begin(&r.o->model, r.offset, r.offset + r.length);
	error = mkw_discard(r.handle, r.o->model.bias_bytes + r.offset, r.length);
	drop_end(&r.o->model, r.offset, r.offset + r.length);
	trace(w, r.o, "discard", r.offset, r.length, error);
	check_error(w, r.o, "discard", error, has_pins(w) ? -EBUSY : 0);
}

/* ---- Views and handles -------------------------------------------------------------------- */

static void step_reserve(struct worker *w)
{
	struct view *v = worker_view(w, true);
	uint32_t taken;
	size_t first, count, done;
	uint64_t page, pages;
	int error;

	if (v == NULL)
		return;
	/* One thread an object: an older reservation of another is no promise to this one. */
	if (v->object->model.id % w->stress->threads != w->id)
		return;
	page = worker_below(w, v->pages);
	pages = 1 + worker_below(w, v->pages - page < 8 ? v->pages - page : 8);
	taken = atomic_load(&v->object->taken);
	error = mkw_reserve(v->bytes + page * PAGE, pages * PAGE);
	trace(w, v->object, "reserve", v->first + page, pages, error);
	check_error(w, v->object, "reserve", error, -ENXIO);
	if (error == 0 && worker_extent(w, &v->object->model, v->first + page, pages, EXTENT_WORDS,
					&first, &count)) {
		done = view_store(w, v, first, count, &error);
		if (error == -ENOSPC && !v->object->injects &&
		    atomic_load(&v->object->taken) == taken)
			word_fail(w, v->object, "store", first + done, 0, "it was reserved");
	}
	REQUIRE_EQ(mkw_unreserve(v->bytes + page * PAGE, pages * PAGE), 0);
	trace(w, v->object, "unreserve", v->first + page, pages, 0);
}

static void step_advise(struct worker *w)
{
	struct view *v = worker_view(w, false);
	static const enum mkw_advice all[] = {MKW_NORMAL,   MKW_SEQUENTIAL, MKW_RANDOM,
					      MKW_WILLNEED, MKW_DONTNEED,   MKW_COLD,
					      MKW_PAGEOUT};
	enum mkw_advice advice = all[worker_below(w, sizeof(all) / sizeof(*all))];
	uint64_t page;
	int error;

	if (v == NULL)
		return;
	page = worker_below(w, v->pages);
	error = mkw_advise(v->bytes + page * PAGE, (1 + worker_below(w, v->pages - page)) * PAGE,
			   advice);
	trace(w, v->object, "advise", v->first + page, advice, error);
	check_error(w, v->object, "advise", error, advice == MKW_WILLNEED ? -ENXIO : -ENOMEM);
}

static void step_view(struct worker *w)
{
	struct view *v = &w->views[worker_below(w, OWN_VIEWS)];

	view_end(v);
	view_make(w, v);
	trace(w, v->object, "map", v->first, v->pages, 0);
}

static void step_handle(struct worker *w)
{
	struct object *o = &w->stress->object[worker_below(w, w->stress->objects)];
	struct mkw_handle **handle = &w->handles[o->model.id];
	int error;

	if (*handle == NULL)
		return;
	error = mkw_close(*handle);
	*handle = NULL;
	trace(w, o, "close", 0, 0, error);
	check_error(w, o, "close", error, 0);
}

static void step_limits(struct worker *w)
{
	struct object *o = &w->stress->object[worker_below(w, w->stress->objects)];
	uint64_t least = 16 + private_room(w->stress);
	uint64_t resident = worker_one_in(w, 3) ? 0 : (least + worker_below(w, 32)) * PAGE;
	uint64_t dirty = worker_one_in(w, 3) ? 0 : (2 + worker_below(w, 16)) * PAGE;

	REQUIRE_EQ(mkw_set_limits(worker_handle(w, o), resident, dirty), 0);
	trace(w, o, "limits", resident / PAGE, dirty / PAGE, 0);
}

static void step_look(struct worker *w)
{
	struct range r = any_range(w);
	struct mkw_range ranges[16];
	struct mkw_stat stat;
	uint64_t free_bytes, total_bytes, at = 0;
	ssize_t n =
		mkw_dirty_ranges(r.handle, r.o->model.bias_bytes + r.offset, r.length, ranges, 16);

	REQUIRE(n >= 0);
	for (ssize_t i = 0; i < n && i < 16; i++) {
		REQUIRE(ranges[i].offset >= at && ranges[i].length > 0);
		at = ranges[i].offset + ranges[i].length;
	}
	if (mkw_capacity(r.handle, &free_bytes, &total_bytes) == 0)
		REQUIRE(free_bytes <= total_bytes);
	REQUIRE_EQ(mkw_space_stat(w->stress->space, &stat, sizeof(stat)), 0);
	if (stat.dirty_limit_bytes != 0)
		REQUIRE(stat.dirty_peak_bytes <= stat.dirty_limit_bytes);
	if (stat.resident_limit_bytes != 0)
		REQUIRE(stat.resident_peak_bytes <= stat.resident_limit_bytes);
}

/* ---- The choice --------------------------------------------------------------------------- */

static const struct step {
	void (*run)(struct worker *w);
	unsigned weight;
	unsigned with; /* only where the world has one of these; 0: everywhere */
} steps[] = {
	{step_store, 60, 0},
	{step_load, 60, 0},
	{step_load_any, 20, 0},
	{step_read_call, 14, 0},
	{step_write_call, 14, 0},
	{step_pread, 14, 0},
	{step_pwrite, 14, 0},
	{step_sync, 5, 0},
	{step_msync, 5, 0},
	{step_invalidate, 4, 0},
	{step_freeze, 1, 0},
	{step_truncate, 3, 0},
	{step_punch, 3, 0},
	{step_reserve, 4, 0},
	{step_advise, 4, 0},
	{step_view, 4, 0},
	{step_handle, 2, 0},
	{step_look, 2, 0},
	{step_discard, 6, WITH_DISCARD},
	{step_limits, 1, WITH_LIMITS},
	{step_private_store, 60, WITH_PRIVATE},
	{step_private_load, 60, WITH_PRIVATE},
	{step_private_call, 10, WITH_PRIVATE},
	{step_private_drop, 5, WITH_PRIVATE},
	{step_private_advise, 4, WITH_PRIVATE},
	{step_private_view, 6, WITH_PRIVATE},
	{step_pin, 20, WITH_PINS},
	{step_reshape, 30, WITH_SHAPES},
	{step_reshape_private, 15, WITH_SHAPES},
};

void worker_step(struct worker *w)
{
	const size_t count = sizeof(steps) / sizeof(steps[0]);
	unsigned with = w->stress->kind->with, all = 0;
	uint64_t at;

	for (size_t i = 0; i < count; i++)
		if (steps[i].with == 0 || (steps[i].with & with) != 0)
			all += steps[i].weight;
	at = worker_below(w, all);
	for (size_t i = 0; i < count; i++) {
		if (steps[i].with != 0 && (steps[i].with & with) == 0)
			continue;
		if (at < steps[i].weight) {
			steps[i].run(w);
			return;
		}
		at -= steps[i].weight;
	}
}
