/* SPDX-License-Identifier: MIT */
/*
 * threads.c - simulated threads as stacks of one real thread.
 *
 * Switching saves and restores the program's thread-local variables, so that code under test that
 * has some runs unchanged. Stacks are kept from run to run, and begun anew.
 *
 *   FREE -> READY <-> WAITING, READY -> DONE -> FREE (next run)
 *
 * A READY thread with a condition (may) is one that waits for a lock: it can go on when the lock is
 * free, without having been told.
 */
#include "threads.h"

#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_BYTES (1u << 20)
#define LOCALS_MAX  4096
#define STORY_MAX   65536
#define NAMES_MAX   64
#define START_NS    1000000000u

enum state { FREE, READY, WAITING, DONE };

struct thread {
	enum state state;
	char name[24];
	int tid;
	void (*fn)(void *);
	void *arg;
	bool (*may)(const void *object);
	const void *object; /* of may */
	const void *key;    /* WAITING for */
	uint64_t deadline_ns, waiting_since;
	bool timed_out, begun, favored;
	jmp_buf at;
	ucontext_t context;
	char *stack;
	void *shadow; /* of ASan */
	_Alignas(64) unsigned char locals[LOCALS_MAX];
};

struct event {
	uint8_t thread;
	const char *what, *where;
	const void *object;
	uint64_t detail;
	char *note;
};

static struct thread threads[THREADS_MAX];
static unsigned current, used;
static jmp_buf home;
static const struct run_options *options;
static struct run_result result;
static bool exploring;
static uint64_t now_ns, waits;
static int next_tid = 1000;
static struct event story[STORY_MAX];
static size_t story_length;
static struct {
	const void *object;
	const char *name;
} names[NAMES_MAX];

/* ---- Thread-local variables --------------------------------------------------------------- */

static unsigned char *locals_at;
static size_t locals_bytes;
static unsigned char locals_first[LOCALS_MAX];

static int locals_find(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	/* The first is the program; the variables of shared libraries are not concerned. */
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_TLS) {
			locals_at = info->dlpi_tls_data;
			locals_bytes = info->dlpi_phdr[i].p_memsz;
		}
	return 1;
}

static void locals_begin(void)
{
	if (locals_at != NULL)
		return;
	dl_iterate_phdr(locals_find, NULL);
	if (locals_at == NULL || locals_bytes > LOCALS_MAX)
		abort();
	memcpy(locals_first, locals_at, locals_bytes);
}

/* ---- Switching ---------------------------------------------------------------------------- */

static void schedule(void);

#ifdef __SANITIZE_ADDRESS__
/* ASan is told which stack it is on. */
static void *home_shadow;
static const void *home_stack;
static size_t home_bytes;

static void leave_for(void **shadow, const struct thread *to)
{
	if (to == NULL)
		__sanitizer_start_switch_fiber(shadow, home_stack, home_bytes);
	else
		__sanitizer_start_switch_fiber(shadow, to->stack, STACK_BYTES);
}
static void arrived(void *shadow, bool from_home)
{
	__sanitizer_finish_switch_fiber(shadow, from_home ? &home_stack : NULL,
					from_home ? &home_bytes : NULL);
}
static void stack_clean(const struct thread *t)
{
	__asan_unpoison_memory_region(t->stack, STACK_BYTES);
}
#else
static void *home_shadow;
static void leave_for(void **shadow, const struct thread *to)
{
	(void)shadow;
	(void)to;
}
static void arrived(void *shadow, bool from_home)
{
	(void)shadow;
	(void)from_home;
}
static void stack_clean(const struct thread *t)
{
	(void)t;
}
#endif

static void go_home(void)
{
	leave_for(&threads[current].shadow, NULL);
	_longjmp(home, 1);
}

static void thread_body(void)
{
	struct thread *t = &threads[current];

	arrived(NULL, current == 0);
	memcpy(locals_at, t->locals, locals_bytes);
	t->fn(t->arg);
	t->state = DONE;
	if (current == 0)
		go_home();
	schedule();
	abort();
}

static void stack_make(struct thread *t)
{
	if (t->stack != NULL) {
		stack_clean(t);
		return;
	}
	t->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->stack == MAP_FAILED)
		abort();
	getcontext(&t->context);
	t->context.uc_stack.ss_sp = t->stack;
	t->context.uc_stack.ss_size = STACK_BYTES;
	t->context.uc_link = NULL;
	makecontext(&t->context, thread_body, 0);
}

/* shadow: of who leaves. */
static __attribute__((noreturn)) void enter(struct thread *t, void **shadow)
{
	bool begun = t->begun;

	if (!begun)
		stack_make(t);
	t->begun = true;
	leave_for(shadow, t);
	if (begun)
		_longjmp(t->at, 1);
	setcontext(&t->context);
	abort();
}

static void switch_to(unsigned next)
{
	struct thread *t = &threads[current];

	if (next == current)
		return;
	memcpy(t->locals, locals_at, locals_bytes);
	if (_setjmp(t->at) == 0) {
		current = next;
		enter(&threads[next], &t->shadow);
	}
	arrived(t->shadow, false);
	memcpy(locals_at, t->locals, locals_bytes);
}

/* ---- Who is next -------------------------------------------------------------------------- */

static bool can_run(const struct thread *t)
{
	return t->state == READY && (t->may == NULL || t->may(t->object));
}

static void choice_fill(struct choice *c)
{
	c->count = 0;
	c->step = result.steps;
	c->preempts = can_run(&threads[current]);
	if (c->preempts)
		c->thread[c->count++] = (uint8_t)current;
	/* A program that can go on does so before the library's own threads undo what it was given:
	 * they could do that for ever. */
	for (unsigned favored = 2; favored-- > 0;)
		for (unsigned n = 1; n < used + (c->preempts ? 0 : 1); n++) {
			unsigned i = (current + n) % used;
			if (threads[i].favored == favored && can_run(&threads[i]))
				c->thread[c->count++] = (uint8_t)i;
		}
}

/* Nobody can run: the time comes that somebody waits for. False: nobody does. */
static bool clock_jump(void)
{
	uint64_t next_ns = UINT64_MAX;

	for (unsigned i = 0; i < used; i++)
		if (threads[i].state == WAITING && threads[i].deadline_ns != 0 &&
		    threads[i].deadline_ns < next_ns)
			next_ns = threads[i].deadline_ns;
	if (next_ns == UINT64_MAX)
		return false;
	if (next_ns > now_ns)
		now_ns = next_ns;
	for (unsigned i = 0; i < used; i++)
		if (threads[i].state == WAITING && threads[i].deadline_ns != 0 &&
		    threads[i].deadline_ns <= now_ns) {
			threads[i].state = READY;
			threads[i].timed_out = true;
		}
	if (exploring && ++result.jumps > options->jumps_max)
		threads_fail("nobody could go on without the clock, for the %uth time",
			     result.jumps);
	return true;
}

static __attribute__((noreturn)) void fail_deadlock(void)
{
	char who[300] = "";
	size_t n = 0;

	for (unsigned i = 0; i < used && n < sizeof(who) - 40; i++)
		if (threads[i].state == WAITING || threads[i].state == READY)
			n += (size_t)snprintf(who + n, sizeof(who) - n, " %s", threads[i].name);
	threads_fail("deadlock: nobody can go on; waiting:%s", who);
}

static void schedule(void)
{
	struct choice c;
	unsigned n = 0;

	for (;;) {
		choice_fill(&c);
		if (c.count > 0)
			break;
		if (!clock_jump())
			fail_deadlock();
	}
	if (c.count > 1 && exploring)
		n = options->decide(options->arg, &c);
	switch_to(c.thread[n]);
}

static void tell(const char *what, const void *object, uint64_t detail, const char *where)
{
	struct event *e = &story[story_length % STORY_MAX];

	free(e->note);
	*e = (struct event){(uint8_t)current, what, where, object, detail, NULL};
	story_length++;
}

void thread_step(const char *what, const void *object, uint64_t detail, const char *where,
		 bool (*may)(const void *object))
{
	struct thread *t = &threads[current];

	if (++result.steps > options->steps_max)
		threads_fail("livelock: %u steps", result.steps);
	t->may = may;
	t->object = object;
	if (exploring) {
		if (options->check != NULL)
			options->check(options->arg);
		schedule();
	} else if (!can_run(t)) {
		schedule();
	}
	t->may = NULL;
	tell(what, object, detail, where);
}

bool thread_wait(const char *what, const void *key, uint64_t deadline_ns, const char *where,
		 bool (*may)(const void *object), const void *object)
{
	struct thread *t = &threads[current];

	tell(what, key, 0, where);
	if (++result.steps > options->steps_max)
		threads_fail("livelock: %u steps", result.steps);
	t->state = WAITING;
	t->key = key;
	t->deadline_ns = deadline_ns;
	t->waiting_since = waits++;
	t->timed_out = false;
	t->may = may;
	t->object = object;
	if (exploring && options->check != NULL)
		options->check(options->arg);
	schedule();
	t->may = NULL;
	return !t->timed_out;
}

void thread_wake(const void *key, bool all)
{
	for (;;) {
		struct thread *first = NULL;

		for (unsigned i = 0; i < used; i++)
			if (threads[i].state == WAITING && threads[i].key == key &&
			    (first == NULL || threads[i].waiting_since < first->waiting_since))
				first = &threads[i];
		if (first == NULL)
			return;
		first->state = READY;
		if (!all)
			return;
	}
}

/* ---- Threads ------------------------------------------------------------------------------ */

unsigned thread_start(const char *name, void (*fn)(void *), void *arg)
{
	struct thread *t;

	if (used == THREADS_MAX)
		threads_fail("too many simulated threads");
	t = &threads[used];
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->tid = next_tid++;
	t->fn = fn;
	t->arg = arg;
	t->state = READY;
	t->may = NULL;
	t->begun = false;
	t->favored = false;
	memcpy(t->locals, locals_first, locals_bytes);
	return used++;
}

void thread_favor(unsigned thread)
{
	threads[thread].favored = true;
}

static bool is_done(const void *thread)
{
	return ((const struct thread *)thread)->state == DONE;
}

void thread_join(unsigned thread)
{
	thread_step("join", &threads[thread], 0, NULL, is_done);
}

static bool others_wait(const void *self)
{
	for (unsigned i = 0; i < used; i++)
		if (&threads[i] != self && can_run(&threads[i]))
			return false;
	return true;
}

void threads_settle(void)
{
	thread_step("waits until nobody can go on", &threads[current], 0, NULL, others_wait);
}

unsigned thread_self(void)
{
	return current;
}

int thread_tid(void)
{
	return threads[current].tid;
}

unsigned thread_of_tid(int tid)
{
	return (unsigned)(tid - threads[0].tid);
}

uint64_t threads_now_ns(void)
{
	return now_ns;
}

void threads_explore(bool on)
{
	exploring = on;
}

struct run_result threads_run(const struct run_options *given, void (*main)(void *), void *arg)
{
	locals_begin();
	options = given;
	result = (struct run_result){0};
	exploring = false;
	used = 0;
	current = 0;
	now_ns = START_NS;
	waits = 0;
	story_length = 0;
	memset(names, 0, sizeof(names));
	thread_favor(thread_start("main", main, arg));
	if (_setjmp(home) == 0)
		enter(&threads[0], &home_shadow);
	arrived(home_shadow, false);
	exploring = false;
	for (unsigned i = 1; i < used && !result.failed; i++)
		if (threads[i].state != DONE) {
			result.failed = true;
			snprintf(result.message, sizeof(result.message), "thread %s did not end",
				 threads[i].name);
		}
	return result;
}

void threads_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(result.message, sizeof(result.message), format, args);
	va_end(args);
	result.failed = true;
	exploring = false;
	go_home();
	abort();
}

/* ---- The story ---------------------------------------------------------------------------- */

void threads_note(const char *format, ...)
{
	va_list args;
	char *note = NULL;

	if (!exploring)
		return;
	va_start(args, format);
	if (vasprintf(&note, format, args) < 0)
		note = NULL;
	va_end(args);
	tell("", NULL, 0, NULL);
	story[(story_length - 1) % STORY_MAX].note = note;
}

void threads_name(const void *object, const char *name)
{
	for (size_t i = 0; i < NAMES_MAX; i++)
		if (names[i].object == object || names[i].object == NULL) {
			names[i].object = name != NULL ? object : NULL;
			names[i].name = name;
			return;
		}
}

static const char *name_of(const void *object)
{
	for (size_t i = 0; i < NAMES_MAX; i++)
		if (names[i].object == object && object != NULL)
			return names[i].name;
	return "";
}

void threads_story(void (*print)(void *arg, const char *line), void *arg)
{
	size_t from = story_length > STORY_MAX ? story_length - STORY_MAX : 0;
	char line[512];

	for (size_t i = from; i < story_length; i++) {
		const struct event *e = &story[i % STORY_MAX];

		if (e->note != NULL)
			snprintf(line, sizeof(line), "%6zu %-14s   %s", i, threads[e->thread].name,
				 e->note);
		else
			snprintf(line, sizeof(line), "%6zu %-14s %s %s %.0llx%s%s%s", i,
				 threads[e->thread].name, e->what, name_of(e->object),
				 (unsigned long long)e->detail, e->where != NULL ? " (" : "",
				 e->where != NULL ? e->where : "", e->where != NULL ? ")" : "");
		print(arg, line);
	}
}
