/* SPDX-License-Identifier: MIT */
/*
 * world.c - building a schedule's world, running its programs, and what must be left at the end.
 *
 * Options of a scenario:
 *   inline            views served in the faulting thread
 *   pages=N           of object 0 (2)
 *   holes             nothing is stored at the beginning
 *   workers=N         handler threads (1)
 *   dirty=N resident=N   limits of the space, pages
 *   manual defer wait    how the object was opened; its policy
 *   early zero grow      how the store says yes to page_mkwrite (reserve, then lock)
 *   swap              private copies past the resident limit go to a swap file
 *   swap=N swap_fails=N  of N pages; its next N writes fail
 *   memory=N          the store has none for a fill while more pages are resident
 *   refuse=N retry=N nopage=N fill_fails=N fill_retries=N write_fails=N not_yet=N sync_fails=N
 *   cut_fails=N          the store's next N answers
 */
#include "env_sim.h"
#include "race.h"
#include "threads.h"

#include <errno.h>
#include <mmu/sim.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct world world;

/* ---- What src/mmu/sim.c asks of its host -------------------------------------------------- */

unsigned sim_host_self(void)
{
	return thread_self();
}

pid_t sim_host_tid(void)
{
	return thread_tid();
}

unsigned sim_host_cpu_of(pid_t tid)
{
	return thread_of_tid(tid);
}

void sim_host_point(const char *what, uintptr_t address)
{
	thread_step(what, NULL, address, NULL, NULL);
}

void sim_host_wait(const char *what, const void *key)
{
	thread_wait(what, key, 0, NULL, NULL, NULL);
}

void sim_host_wake(const void *key, bool all)
{
	thread_wake(key, all);
}

unsigned sim_host_start(const char *name, void (*fn)(void *), void *arg)
{
	return thread_start(name, fn, arg);
}

void sim_host_join(unsigned thread)
{
	thread_join(thread);
}

int sim_host_swap(uint64_t page)
{
	(void)page;
	if (world.swap_fails == 0)
		return 0;
	world.swap_fails--;
	return -EIO;
}

void sim_host_fail(const char *format, ...)
{
	char message[300];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	threads_fail("%s", message);
}

/* An assertion of the library is a rule like the others. */
void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
	(void)function;
	threads_fail("%s:%u: assertion \"%s\" failed", file, line, assertion);
}

/* ---- The variables of the VM -------------------------------------------------------------- */

extern char __start_race_bss[], __stop_race_bss[];
extern char __start_race_data[], __stop_race_data[];

/* Word by word, because ASan has margins between variables that no memcpy may cross. */
__attribute__((no_sanitize("address"))) static void words_copy(char *to, const char *from,
							       size_t bytes)
{
	volatile uint64_t *t = (volatile uint64_t *)(void *)to;
	const uint64_t *f = (const uint64_t *)(const void *)from;

	for (size_t i = 0; i < bytes / sizeof(*t); i++)
		t[i] = f != NULL ? f[i] : 0;
	for (size_t i = bytes & ~(sizeof(*t) - 1); i < bytes; i++)
		((volatile char *)to)[i] = from != NULL ? from[i] : 0;
}

static void variables_reset(void)
{
	static char *data;
	size_t bytes = (size_t)(__stop_race_data - __start_race_data);

	words_copy(__start_race_bss, NULL, (size_t)(__stop_race_bss - __start_race_bss));
	if (data == NULL) {
		data = malloc(bytes);
		if (data == NULL)
			threads_fail("no memory");
		words_copy(data, __start_race_data, bytes);
	}
	words_copy(__start_race_data, data, bytes);
}

/* ---- Building ----------------------------------------------------------------------------- */

static void must(int error, const char *what)
{
	if (error != 0)
		threads_fail("%s failed: %s: %s", what, strerror(-error), mkw_error_message());
}

static void store_make(struct race_store *s, const struct scenario *sc, unsigned object)
{
	*s = (struct race_store){.defers = option(sc, "defer") > 0};
	if (option(sc, "early") > 0)
		s->answer = ANSWER_EARLY;
	else if (option(sc, "zero") > 0)
		s->answer = ANSWER_ZERO;
	else if (option(sc, "grow") > 0)
		s->answer = ANSWER_GROW;
	for (unsigned page = 0; page < PAGES; page++)
		s->stored[page] = option(sc, "holes") == 0;
	for (unsigned w = 0; w < WORDS; w++) {
		s->bytes[w] = s->stored[w / 2] && w < 2 * world.pages ? 100 + 50 * object + w : 0;
		s->durable[w] = s->bytes[w];
		model_init(&world.models[object], w, s->bytes[w]);
	}
	if (object > 0)
		return;
	s->refuse = option(sc, "refuse");
	s->retry = option(sc, "retry");
	s->nopage = option(sc, "nopage");
	s->fill_fails = option(sc, "fill_fails");
	s->fill_retries = option(sc, "fill_retries");
	s->write_fails = option(sc, "write_fails");
	s->write_not_yet = option(sc, "not_yet");
	s->sync_fails = option(sc, "sync_fails");
	s->cut_fails = option(sc, "cut_fails");
	s->memory = option(sc, "memory");
}

int view_make(unsigned view, unsigned object)
{
	unsigned flags = world.flags | (view >= PRIVATE_VIEW ? MKW_PRIVATE : 0);
	struct race_view *v = &world.views[view];
	void *address;
	int error = mkw_map(world.handles[object], world.pages * MKW_PAGE_SIZE, MKW_WRITE, flags, 0,
			    &address);

	if (error != 0)
		return error;
	*v = (struct race_view){.address = (uintptr_t)address, .object = object, .mapped = true};
	if (view >= PRIVATE_VIEW)
		private_mapped(v);
	return 0;
}

static void views_make(const struct scenario *sc)
{
	static const char *const first[] = {"mine", "see",  "drop",   "toss", "part", "anew",
					    "out",  "cold", "ownpin", "ro",   "move"};
	static const char *const second[] = {"theirs", "spy"};
	bool one = false, other = false;

	for (size_t i = 0; i < sizeof(first) / sizeof(*first); i++)
		one |= script_has(sc, first[i]);
	for (size_t i = 0; i < sizeof(second) / sizeof(*second); i++)
		other |= script_has(sc, second[i]);
	must(view_make(0, 0), "map");
	must(view_make(1, 0), "map");
	if (one)
		must(view_make(PRIVATE_VIEW, 0), "map");
	if (other)
		must(view_make(PRIVATE_VIEW + 1, 0), "map");
	if (script_has(sc, "other"))
		must(view_make(3, 1), "map");
}

static void object_make(const struct scenario *sc, unsigned i)
{
	unsigned flags = MKW_RDWR | (option(sc, "manual") > 0 ? MKW_MANUAL : 0);

	store_make(&world.stores[i], sc, i);
	if (i == 0 &&
	    (script_has(sc, "close") || script_has(sc, "quit") || script_has(sc, "leave")))
		must(mkw_open(world.space, "race:0", flags, &world.handles[i]), "open");
	else
		must(mkw_create(world.space, &race_store_ops, &world.stores[i],
				(uint64_t)world.pages * MKW_PAGE_SIZE, flags, &world.handles[i]),
		     "create");
	if (world.stores[i].opened == 0)
		world.stores[i].opened = 1;
	world.objects[i] = world.handles[i]->object;
	if (option(sc, "defer") > 0)
		must(mkw_set_policy(world.handles[i], MKW_DEFER, NULL, NULL), "set_policy");
	if (option(sc, "wait") > 0)
		must(mkw_set_policy(world.handles[i], MKW_WAIT, NULL, NULL), "set_policy");
}

static void names_give(void)
{
	struct space *s = space_of(world.space);
	struct object *o = world.objects[0];

	threads_name(&s->lock, "the space");
	threads_name(&s->charge_lock, "the accounts");
	threads_name(&s->ready_lock, "the ready queue");
	threads_name(&s->slab_lock, "the slab");
	threads_name(&o->lock, "the object");
	threads_name(&o->views_lock, "the object's views");
	threads_name(&o->size_bytes, "its size");
	threads_name(&o->frozen, "frozen");
	threads_name(&o->asking, "asking");
	for (struct list *n = s->regions.next; n != &s->regions; n = n->next)
		threads_name(&container_of(n, struct region, link)->lock, "the region");
}

/* Storage that can be opened twice. */
static int race_open(struct mkw_open_args *args)
{
	args->ops = &race_store_ops;
	args->store = &world.stores[0];
	world.stores[0].opened++;
	args->size_bytes = (uint64_t)world.pages * MKW_PAGE_SIZE;
	args->identity[0] = 'r';
	args->identity_length = 1;
	return 0;
}

static void driver_register(void)
{
	static const struct mkw_store_driver driver = {
		.struct_size = sizeof(driver),
		.scheme = "race",
		.summary = "the store of a schedule",
		.open = race_open,
	};
	static bool done;

	if (!done)
		must(mkw_store_register(&driver), "register");
	done = true;
}

static void world_make(const struct scenario *sc)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	bool second = script_has(sc, "mapover") || script_has(sc, "other");

	variables_reset();
	driver_register();
	memset(&world, 0, sizeof(world));
	model_reset();
	sim_reset();
	world.scenario = sc;
	world.pages = option(sc, "pages") > 0 ? option(sc, "pages") : 2;
	world.flags = option(sc, "inline") > 0 ? MKW_INLINE : 0;
	world.cuts = script_has(sc, "shrink") || script_has(sc, "cut") || script_has(sc, "empty");
	world.freezes = script_has(sc, "freeze");
	world.pins = script_has(sc, "pin") || script_has(sc, "look") || script_has(sc, "clamp") ||
		     script_has(sc, "grip") || script_has(sc, "ownpin");
	world.unmaps = script_has(sc, "unmap") || script_has(sc, "mapover") ||
		       script_has(sc, "quit") || script_has(sc, "part") || script_has(sc, "anew") ||
		       script_has(sc, "ro") || script_has(sc, "move") || script_has(sc, "dim") ||
		       script_has(sc, "shift") || script_has(sc, "flip");
	world.tolerant = option(sc, "fails") > 0;
	/* Where writing fails, so does waiting for it. */
	world.limited = option(sc, "denied") > 0 || (world.tolerant && option(sc, "dirty") > 0);
	world.reports_max = 500; /* the flusher may take a page back before its writer runs */
	world.next_value = 1000;
	world.live_before = env_sim_live();
	options.workers = option(sc, "workers") > 0 ? option(sc, "workers") : 1;
	options.workers_max = options.workers + 2;
	options.dirty_limit_bytes = (uint64_t)option(sc, "dirty") * MKW_PAGE_SIZE;
	options.resident_limit_bytes = (uint64_t)option(sc, "resident") * MKW_PAGE_SIZE;
	options.swap_path = option(sc, "swap") > 0 ? "swap" : NULL;
	options.swap_limit_bytes =
		option(sc, "swap") > 1 ? (uint64_t)option(sc, "swap") * MKW_PAGE_SIZE : 0;
	must(mkw_space_create(&options, &world.space), "space_create");
	world.swap_fails = option(sc, "swap_fails");
	object_make(sc, 0);
	if (second)
		object_make(sc, 1);
	views_make(sc);
	if (script_has(sc, "close"))
		must(mkw_open(world.space, "race:0", MKW_RDWR, &world.second), "open");
}

/* ---- The end ------------------------------------------------------------------------------ */

static void store_heal(struct race_store *s)
{
	s->refuse = s->retry = s->nopage = s->fill_fails = s->fill_retries = 0;
	s->write_fails = s->write_not_yet = s->sync_fails = s->cut_fails = s->memory = 0;
	world.swap_fails = 0;
}

/* An object that ended in the run was written then. */
static void ended_check(unsigned i)
{
	for (unsigned w = 0; w < 2 * world.pages && !world.tolerant; w++)
		if (!model_had(&world.models[i], w, world.stores[i].durable[w], model_now()))
			threads_fail("the object ended, and word %u is %llu in the store", w,
				     (unsigned long long)world.stores[i].durable[w]);
}

/* Words are what the model says, and what is resident is charged, no more and no less. */
static void private_end(void)
{
	struct space *s = space_of(world.space);
	uint64_t resident = 0;

	if (world.handles[0] == NULL)
		return;
	for (unsigned i = PRIVATE_VIEW; i < VIEWS; i++)
		for (unsigned w = 0; world.views[i].mapped && w < 2 * world.pages; w++)
			if (word_offset(w) < mkw_size(world.handles[0]))
				script_look(i, w);
	threads_settle();
	for (struct list *n = s->regions.next; n != &s->regions; n = n->next) {
		struct region *r = container_of(n, struct region, link);

		resident += r->resident + private_check(r, true);
	}
	if (s->account.resident != resident)
		threads_fail("%llu pages are charged as resident, %llu are",
			     (unsigned long long)s->account.resident, (unsigned long long)resident);
}

/* Everything is written, and what is there is what the model says (nothing dirty was lost). */
static void object_check(unsigned i)
{
	struct race_store *s = &world.stores[i];
	uint64_t size = mkw_size(world.handles[i]);
	int error, tries = 0;

	if (i == 0 && size < world.size_least)
		threads_fail("the object was cut to %llu bytes; what was written went to %llu",
			     (unsigned long long)size, (unsigned long long)world.size_least);
	store_heal(s);
	do
		error = mkw_sync(world.handles[i], 0, 0);
	while (error != 0 && world.tolerant && ++tries < 4);
	must(error, "the last sync");
	for (unsigned w = 0; w < WORDS; w++) {
		uint64_t value;

		if (word_offset(w) >= size)
			continue;
		if (mkw_pread(world.handles[i], &value, sizeof(value), word_offset(w)) !=
		    (ssize_t)sizeof(value))
			threads_fail("the last pread of word %u failed: %s", w,
				     mkw_error_message());
		model_read(&world.models[i], w, value);
		if (s->durable[w] != value)
			threads_fail("word %u is %llu in the store, and %llu in memory", w,
				     (unsigned long long)s->durable[w], (unsigned long long)value);
	}
	for (unsigned page = 0; page < PAGES; page++)
		if (s->granted[page])
			threads_fail("the reservation of page %u was never given back (2.5)", page);
}

static void world_end(void)
{
	struct mkw_stat stat;
	int64_t left;
	int error;

	threads_settle();
	device_end(&world.devices[0]);
	device_end(&world.devices[1]);
	if (world.pin != NULL)
		must(mkw_unpin(world.pin), "the last unpin");
	if (world.left && object_is_dirty(world.objects[0]))
		threads_fail("nobody writes an object that the last close could not");
	for (unsigned i = 0; i < OBJECTS; i++)
		if (world.handles[i] != NULL)
			object_check(i);
		else if (world.stores[i].opened > 0)
			ended_check(i);
	/* What a failed last close left in the space is there again. */
	if (world.handles[0] == NULL) {
		store_heal(&world.stores[0]);
		must(mkw_open(world.space, "race:0",
			      MKW_RDWR | (option(world.scenario, "manual") > 0 ? MKW_MANUAL : 0),
			      &world.handles[0]),
		     "the last open");
		world.objects[0] = world.handles[0]->object;
		object_check(0);
	}
	must(mkw_space_stat(world.space, &stat, sizeof(stat)), "stat");
	private_end();
	if (stat.dirty_bytes != 0)
		threads_fail("%llu bytes are charged as dirty after the last sync",
			     (unsigned long long)stat.dirty_bytes);
	for (unsigned i = 0; i < VIEWS; i++)
		if (world.views[i].mapped)
			must(mkw_unmap((void *)world.views[i].address, world.pages * MKW_PAGE_SIZE),
			     "the last unmap");
	if (world.second != NULL)
		mkw_close(world.second);
	for (unsigned i = 0; i < OBJECTS; i++)
		if (world.handles[i] != NULL) {
			error = mkw_close(world.handles[i]);
			if (error != 0 && !world.tolerant)
				must(error, "close");
		}
	if (list_empty(&space_of(world.space)->objects) &&
	    space_of(world.space)->account.resident != 0)
		threads_fail("%llu pages are charged as resident, and no object is left",
			     (unsigned long long)space_of(world.space)->account.resident);
	error = mkw_space_destroy(world.space, 0);
	if (error != 0 && !world.tolerant)
		must(error, "destroy");
	for (unsigned i = 0; i < OBJECTS; i++)
		if (world.stores[i].opened != world.stores[i].released)
			threads_fail("store %u was opened %u times and released %u times", i,
				     world.stores[i].opened, world.stores[i].released);
	left = env_sim_live() - world.live_before;
	if (left != 0 || sim_live() != 0)
		threads_fail("%lld locks or pieces of memory are left, %u things of the machine",
			     (long long)left, sim_live());
}

/* ---- A run -------------------------------------------------------------------------------- */

static bool programs_done(const void *arg)
{
	const unsigned *running = arg;

	return *running == 0;
}

static unsigned running;

static void program_main(void *script)
{
	script_run(script);
	running--;
}

void world_main(void *scenario)
{
	static const char *const names[PROGRAMS_MAX] = {"one", "two", "three", "four"};
	const struct scenario *sc = scenario;

	world_make(sc);
	script_run(sc->before);
	names_give();
	running = 0;
	for (unsigned i = 0; i < PROGRAMS_MAX && sc->programs[i] != NULL; i++, running++)
		thread_favor(
			thread_start(names[i], program_main, (void *)(uintptr_t)sc->programs[i]));
	threads_explore(true);
	thread_step("waits for the programs", &running, 0, NULL, programs_done);
	threads_explore(false);
	world_end();
}
