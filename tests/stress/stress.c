/* SPDX-License-Identifier: MIT */
/*
 * stress.c - many threads, many views, several objects over the built-in stores, and every step the
 * library knows, against a model that knows of each word what it may be (model.h).
 *
 * A run is made from a seed: the world, and what each thread does in which order; how the threads
 * meet is up to the machine. A run that fails prints how it is run again.
 *
 *   MKW_STRESS_SEED=N     begin with this seed; default 1
 *   MKW_STRESS_SEEDS=N    so many seeds, one after the other
 *   MKW_STRESS_STEPS=N    of each thread
 *   MKW_STRESS_THREADS=N  2 to 8; else as the seed has it
 */
#include "stress.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define STEPS	    400u
#define TRACE_SHOWN 60u
#define CHANGE_NS   300000

/* ---- What threads share ------------------------------------------------------------------- */

uint64_t worker_below(struct worker *w, uint64_t bound)
{
	return bound > 0 ? (rig_random(&w->random) >> 11) % bound : 0;
}

bool worker_one_in(struct worker *w, unsigned n)
{
	return worker_below(w, n) == 0;
}

struct mkw_handle *worker_handle(struct worker *w, struct object *o)
{
	struct mkw_handle **handle = &w->handles[o->model.id];

	if (*handle == NULL)
		*handle = object_open(o, w->stress->space);
	return *handle;
}

/* A shared view, or one of its own. */
struct view *worker_view(struct worker *w, bool writable)
{
	static _Thread_local struct view shared;
	struct object *o = &w->stress->object[worker_below(w, w->stress->objects)];
	unsigned i = (unsigned)worker_below(w, SHARED_VIEWS);
	struct view *v = &w->views[worker_below(w, OWN_VIEWS)];

	if (worker_one_in(w, 4) && o->shared[i] != NULL) {
		shared = (struct view){.object = o,
				       .bytes = o->shared[i],
				       .first = o->shared_first[i],
				       .pages = o->shared_pages[i],
				       .writable = true};
		v = &shared;
	}
	if (v->bytes == NULL)
		view_make(w, v);
	return writable && !v->writable ? NULL : v;
}

bool worker_extent(struct worker *w, const struct model *m, uint64_t from, uint64_t count,
		   size_t most, size_t *first, size_t *words)
{
	size_t low = from * PAGE_WORDS, end = (from + count) * PAGE_WORDS;
	/* A place, and from there the next of its blocks. */
	size_t at = low + worker_below(w, end - low), block = at / m->block;
	unsigned owner = model_owner(m, at);
	size_t block_end;

	if (owner != w->id) {
		block += (w->id + m->threads - owner) % m->threads;
		at = block * m->block + worker_below(w, m->block);
	}
	block_end = (block + 1) * m->block < end ? (block + 1) * m->block : end;
	if (at >= block_end)
		return false;
	*first = at;
	*words = 1 + worker_below(w, block_end - at < most ? block_end - at : most);
	return true;
}

bool error_is_expected(const struct worker *w, const struct object *o, int error)
{
	unsigned with = w->stress->kind->with;

	switch (error) {
	case -ENOSPC:
		return (with & WITH_FULL) != 0 ||
		       (o != NULL && (o->injects || o->quota_bytes != 0));
	case -EIO:
		return o != NULL && o->injects;
	case -ENOBUFS: /* all that is dirty cannot be written */
	case -ENOMEM:
		return (with & WITH_LIMITS) != 0 &&
		       (with & (WITH_ERRORS | WITH_MANUAL | WITH_POLICY | WITH_FULL | WITH_PINS)) !=
			       0;
	default:
		return false;
	}
}

/* ---- Failing ------------------------------------------------------------------------------ */

void trace(struct worker *w, const struct object *o, const char *what, uint64_t from,
	   uint64_t count, int64_t result)
{
	w->trace[w->traced++ % TRACE_ENTRIES] =
		(struct trace){what, o->model.id, from, count, result};
}

/* What a thread did last to the object. The others run on meanwhile. */
static void trace_show(const struct worker *w, const struct object *o)
{
	uint64_t shown = 0;

	test_note("thread %u, at step %llu, did, last first:", w->id, (unsigned long long)w->steps);
	for (uint64_t i = w->traced; i > 0 && w->traced - i < TRACE_ENTRIES && shown < TRACE_SHOWN;
	     i--) {
		const struct trace *t = &w->trace[(i - 1) % TRACE_ENTRIES];

		if (o != NULL && t->object != o->model.id)
			continue;
		test_note("  object %u: %s %llu +%llu: %lld", t->object, t->what,
			  (unsigned long long)t->from, (unsigned long long)t->count,
			  (long long)t->result);
		shown++;
	}
}

_Noreturn void stress_fail(struct stress *s, const struct object *o, const char *format, ...)
{
	static const char *const backends[] = {"uffd", "inline", "uffd-old"};
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	test_note("%s", text);
	test_note("run again: MKW_STRESS_SEED=%llu MKW_STRESS_STEPS=%llu MKW_STRESS_THREADS=%u "
		  "tests/test-stress_stress stress_%s/%s",
		  (unsigned long long)s->seed, (unsigned long long)s->steps, s->threads,
		  s->kind->name, backends[test_backend()]);
	if (o != NULL)
		test_note("object %u: %s, %zu pages from byte %llu on, at least %llu bytes, blocks "
			  "of %zu words",
			  o->model.id, o->uri, o->model.pages,
			  (unsigned long long)o->model.bias_bytes,
			  (unsigned long long)o->model.least_bytes, o->model.block);
	for (unsigned i = 0; i < s->threads; i++)
		trace_show(s->worker[i], o);
	CHECK_STR("what was found above", "nothing");
	test_stop();
}

_Noreturn void word_fail(struct worker *w, const struct object *o, const char *doing, size_t word,
			 uint64_t value, const char *complaint)
{
	const struct word *m = &o->model.word[word];

	stress_fail(w->stress, o,
		    "thread %u, step %llu, %s: word %zu (page %zu) of object %u: 0x%016llx: %s; "
		    "known 0x%016llx%s%s, newest 0x%016llx",
		    w->id, (unsigned long long)w->steps, doing, word, word / PAGE_WORDS,
		    o->model.id, (unsigned long long)value, complaint,
		    (unsigned long long)atomic_load(&m->known), m->loose ? " loose" : "",
		    m->unsure ? " unsure" : "",
		    (unsigned long long)model_value(&o->model, word, m->last));
}

/* ---- Threads ------------------------------------------------------------------------------ */

/* An object that nobody holds ends, and begins anew with the next who opens it. */
static void leave_fleeting(struct worker *w)
{
	for (unsigned i = 0; i < w->stress->objects; i++) {
		struct object *o = &w->stress->object[i];
		int error;

		if (!o->fleeting || worker_one_in(w, 4))
			continue;
		for (unsigned k = 0; k < OWN_VIEWS; k++)
			if (w->views[k].object == o)
				view_end(&w->views[k]);
		for (unsigned k = 0; k < PRIVATES; k++)
			if (w->privates[k].object == o)
				private_end(&w->privates[k]);
		error = w->handles[i] != NULL ? mkw_close(w->handles[i]) : 0;
		w->handles[i] = NULL;
		if (error != 0)
			stress_fail(w->stress, o, "close: %s", mkw_error_message());
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < OWN_VIEWS; i++)
		view_make(w, &w->views[i]);
	if ((w->stress->kind->with & WITH_PRIVATE) != 0)
		private_adopt(w);
	for (w->steps = 0; w->steps < w->stress->steps; w->steps++) {
		worker_step(w);
		private_keep_few(w);
		leave_fleeting(w);
	}
	for (unsigned i = 0; i < OWN_VIEWS; i++)
		view_end(&w->views[i]);
	for (unsigned i = 0; i < PRIVATES; i++)
		private_end(&w->privates[i]);
	for (unsigned i = 0; i < w->stress->objects; i++)
		if (w->handles[i] != NULL) {
			int error = mkw_close(w->handles[i]);

			if (error != 0 && !error_is_expected(w, &w->stress->object[i], error))
				stress_fail(w->stress, &w->stress->object[i], "close: %s",
					    mkw_error_message());
		}
	atomic_fetch_sub(&w->stress->running, 1);
	return NULL;
}

static void control(struct object *o, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void control(struct object *o, const char *format, ...)
{
	char assignment[64];
	va_list args;
	int error;

	va_start(args, format);
	vsnprintf(assignment, sizeof(assignment), format, args);
	va_end(args);
	error = mkw_control(o->handle, assignment);
	if (error != 0 && error != -EBUSY)
		test_note("control %s: %s", assignment, mkw_error_message());
	REQUIRE(error == 0 || error == -EBUSY);
}

/* Room appears and goes, and other operations fail. Whoever waits for room gets it in the end. */
static void *changer_main(void *arg)
{
	static const char *const ops[] = {"page_mkwrite", "writepages", "fault",
					  "truncate",	  "punch_hole", "fsync"};
	const struct timespec pause = {.tv_nsec = CHANGE_NS};
	struct stress *s = arg;
	unsigned turn = 0;
	bool last;

	do {
		last = atomic_load(&s->running) == 0;
		for (unsigned i = 0; i < s->objects; i++) {
			struct object *o = &s->object[i];

			if (o->injects)
				control(o, "op=%s",
					last || turn % 4 == 0 ? "none" : ops[turn / 4 % 6]);
			if (o->quota_bytes != 0)
				control(o, "quota=%llu",
					last || turn % 8 == 0 ? 1ull << 40
							      : (unsigned long long)o->quota_bytes);
		}
		turn++;
		/* Waits for nothing: leaves the processor to the others. */
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	} while (!last);
	return NULL;
}

static struct worker *worker_make(struct stress *s, unsigned id)
{
	struct worker *w = calloc(1, sizeof(*w));
	void *scratch;

	REQUIRE(w != NULL);
	*w = (struct worker){.stress = s, .id = id, .random = s->seed * WORKERS_MAX + id};
	w->buffer = malloc(EXTENT_WORDS * WORD_BYTES);
	REQUIRE(w->buffer != NULL);
	REQUIRE_EQ(pipe2(w->pipe, O_CLOEXEC | O_NONBLOCK), 0);
	w->file = memfd_create("stress", MFD_CLOEXEC);
	REQUIRE(w->file >= 0);
	direct_open(w);
	REQUIRE_EQ(mkw_map(s->scratch, SCRATCH_PAGES * PAGE, MKW_WRITE, test_map_flags(),
			   id * SCRATCH_PAGES * PAGE, &scratch),
		   0);
	w->scratch = scratch;
	return w;
}

static void worker_free(struct worker *w)
{
	close(w->pipe[0]);
	close(w->pipe[1]);
	close(w->file);
	direct_close(w);
	free(w->buffer);
	free(w);
}

/* ---- Runs --------------------------------------------------------------------------------- */

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *set = getenv(name);

	return set != NULL ? strtoull(set, NULL, 10) : otherwise;
}

static void stress_run(const struct kind *kind, uint64_t seed)
{
	struct stress *s = calloc(1, sizeof(*s));

	REQUIRE(s != NULL);
	*s = (struct stress){.kind = kind, .seed = seed, .random = seed, .objects = WORLD_OBJECTS};
	s->steps = setting("MKW_STRESS_STEPS", STEPS);
	s->threads = (unsigned)setting("MKW_STRESS_THREADS", 2 + rig_random(&s->random) % 7);
	REQUIRE(s->threads >= 1 && s->threads <= WORKERS_MAX);
	stress_make(s);
	for (unsigned i = 0; i < s->threads; i++)
		s->worker[i] = worker_make(s, i);
	atomic_store(&s->running, s->threads);
	for (unsigned i = 0; i < s->threads; i++)
		test_thread_start(&s->worker[i]->thread, worker_main, s->worker[i]);
	test_thread_start(&s->changer, changer_main, s);
	for (unsigned i = 0; i < s->threads; i++)
		test_thread_join(&s->worker[i]->thread);
	test_thread_join(&s->changer);
	for (unsigned i = 0; i < s->threads; i++) {
		REQUIRE_EQ(mkw_unmap(s->worker[i]->scratch, SCRATCH_PAGES * PAGE), 0);
		s->worker[i]->scratch = NULL;
	}
	stress_end(s);
	for (unsigned i = 0; i < s->threads; i++)
		worker_free(s->worker[i]);
	free(s);
}

static void stress_seeds(const char *name, unsigned with)
{
	const struct kind kind = {name, with};
	uint64_t first = setting("MKW_STRESS_SEED", 1);
	uint64_t seeds =
		setting("MKW_STRESS_SEEDS", getenv("MKW_STRESS_SEED") ? 1 : test_rounds(2));

	for (uint64_t seed = first; seed < first + seeds; seed++)
		stress_run(&kind, seed);
}

TEST_EACH_BACKEND(stress_plain, "every step, in unlimited worlds whose stores never fail")
{
	stress_seeds("plain", 0);
}

TEST_EACH_BACKEND(stress_limits, "S1.3 little may be dirty or resident: nobody is refused for it")
{
	stress_seeds("limits", WITH_LIMITS);
}

TEST_EACH_BACKEND(stress_errors, "6.5 operations of stores fail: nothing dirty is lost")
{
	stress_seeds("errors", WITH_ERRORS);
}

TEST_EACH_BACKEND(stress_quota, "S1.1 stores are full: refused, or waited for, or in memory")
{
	stress_seeds("quota", WITH_QUOTA | WITH_POLICY);
}

TEST_EACH_BACKEND(stress_discard, "pages are dropped unwritten: what was synced is still there")
{
	stress_seeds("discard", WITH_DISCARD | WITH_MANUAL);
}

TEST_EACH_BACKEND(stress_private, "2.6 I6 private views among all the others keep what is theirs")
{
	stress_seeds("private", WITH_PRIVATE | WITH_MANUAL);
}

TEST_EACH_BACKEND(stress_private_limits,
		  "S3.2 private views where little may be resident: nobody is refused for it")
{
	stress_seeds("private_limits", WITH_PRIVATE | WITH_LIMITS);
}

TEST_EACH_BACKEND(stress_swap,
		  "2.8 S3.4 far more private copies than may be resident: none is lost")
{
	stress_seeds("swap", WITH_PRIVATE | WITH_LIMITS | WITH_SWAP);
}

TEST_EACH_BACKEND(stress_swap_full, "2.8 memory and swap file are full: what is there can be read")
{
	stress_seeds("swap_full", WITH_PRIVATE | WITH_LIMITS | WITH_SWAP | WITH_FULL);
}

TEST_EACH_BACKEND(stress_pins, "2.10 pinned pages are written to by others while all goes on")
{
	stress_seeds("pins", WITH_PINS | WITH_PRIVATE | WITH_DISCARD);
}

TEST_EACH_BACKEND(stress_shapes, "2.9 S3.3 views change their shape all the time: no write is lost")
{
	stress_seeds("shapes", WITH_SHAPES | WITH_PRIVATE);
}

TEST_EACH_BACKEND(stress_mixed, "all of it at once")
{
	stress_seeds("mixed", WITH_LIMITS | WITH_ERRORS | WITH_QUOTA | WITH_MANUAL | WITH_DISCARD |
				      WITH_POLICY | WITH_PRIVATE | WITH_SWAP | WITH_PINS |
				      WITH_SHAPES);
}
