/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - the copier: when a snapshot is made, and its order.
 *
 * A snapshot: open the copies of all files known (clone them, where that can be had, so that little
 * is left for the instant); the instant: drop what is not mapped, clone again or take sizes, copy
 * what is pinned; let all go on; copy, first what is asked for; let go of the files; to disk;
 * rename.
 *
 * The copier is the only one that changes what is in the area, but for asks and processes' entries.
 */
#include "snapshot_parts.h"

#include "run/futex.h"
#include "run/process.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_NS	  1000000000ull
#define ASK_BYTES (1u << 20) /* for one that asks, before another gets its turn */

/* ---- The plan ----------------------------------------------------------------------------- */

static int signal_parse(const char *text)
{
	int number;
	char rest;

	if (strncmp(text, "SIG", 3) == 0)
		text += 3;
	if (strcmp(text, "RTMIN") == 0)
		return SIGRTMIN;
	if (sscanf(text, "RTMIN+%d%c", &number, &rest) == 1 && number >= 0 &&
	    number <= SIGRTMAX - SIGRTMIN)
		return SIGRTMIN + number;
	for (number = 1; number < SIGRTMIN; number++)
		if (sigabbrev_np(number) && strcmp(sigabbrev_np(number), text) == 0)
			return number;
	return 0;
}

/* Signals that have another meaning, or none that a program could give them. */
static bool signal_usable(int number)
{
	switch (number) {
	case SIGKILL:
	case SIGSTOP:
	case SIGCHLD:
	case SIGPIPE:
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGABRT:
	case SIGTRAP:
		return false;
	default:
		return true;
	}
}

int snapshot_plan_parse(struct snapshot_plan *plan, const char *text,
			const struct tool_options *options)
{
	char *end;
	double seconds = strtod(text, &end);

	plan->signal = signal_parse(text);
	if (plan->signal && signal_usable(plan->signal))
		return 0;
	if (plan->signal || end == text || *end != '\0' || !(seconds >= 0.001 && seconds <= 1e9))
		return tool_usage(options, "--snapshot=%s: neither seconds nor a signal to use",
				  text);
	plan->period_ns = (uint64_t)(seconds * 1e9);
	return 0;
}

int snapshot_plan_check(const struct snapshot_plan *plan, const struct tool_options *options)
{
	if (!plan->directory)
		return 0;
	if (access(plan->directory, W_OK | X_OK) == 0) {
		int fd = open(plan->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd >= 0)
			return close(fd);
	}
	tool_error(options, "--snapshot-dir: %s: %s", plan->directory, strerror(errno));
	return TOOL_FAILED;
}

/* ---- One snapshot ------------------------------------------------------------------------- */

static void copies_drop(struct copier *copier, uint16_t file)
{
	if (copier->copies[file])
		copy_free(copier->copies[file]);
	copier->copies[file] = NULL;
}

/* A file without a name is not copied, there is nobody who would look for it. */
static void copy_open_named(struct copier *copier, uint16_t file)
{
	if (copier->control->files[file].path[0] != '\0')
		copier->copies[file] = copy_open(copier, file);
}

static void copies_open(struct copier *copier)
{
	for (uint16_t i = 0; i < RUN_FILES; i++)
		if (run_file_is_there(copier->control, i))
			copy_open_named(copier, i);
}

/* As many bytes to a chunk as are needed for all bits to find room. Returns the number of chunks.
 */
static uint64_t chunks_lay_out(struct copier *copier)
{
	struct run_snapshots *s = copier_area(copier);
	uint64_t bits;

	for (s->chunk_shift = 12;; s->chunk_shift++) {
		bits = 0;
		for (unsigned i = 0; i < RUN_FILES; i++) {
			struct copy *copy = copier->copies[i];

			if (copy && !copy->error && !copy->cloned)
				bits += ((copy->size >> s->chunk_shift) + 64) & ~63ull;
		}
		if (bits <= RUN_SNAPSHOT_CHUNKS)
			return bits;
	}
}

static void copies_watch(struct copier *copier)
{
	struct run_snapshots *s = copier_area(copier);
	uint64_t bits = chunks_lay_out(copier), first = 0;

	memset(s->copied, 0, (bits > copier->bits ? bits : copier->bits) / 8);
	copier->bits = bits;
	for (unsigned i = 0; i < RUN_FILES; i++) {
		struct copy *copy = copier->copies[i];

		if (!copy || copy->error || copy->cloned)
			continue;
		copy_watch(copier, copy, first);
		first += ((copy->size >> s->chunk_shift) + 64) & ~63ull;
	}
}

/* The files that there are. How many. */
static unsigned files_list(struct copier *copier, uint16_t list[static RUN_FILES])
{
	unsigned count = 0;

	for (uint16_t i = 0; i < RUN_FILES; i++)
		if (run_file_is_there(copier->control, i))
			list[count++] = i;
	return count;
}

static bool is_same(struct copier *copier, uint16_t a, uint16_t b)
{
	const struct run_file *files = copier->control->files;

	return files[a].dev == files[b].dev && files[a].ino == files[b].ino;
}

/* The number under which the file is copied: of those that it has by its names, one whose name
 * leads to it. */
static uint16_t number_of(struct copier *copier, uint16_t file, const uint16_t *list,
			  unsigned count)
{
	uint16_t number = RUN_FILE_NONE;

	for (unsigned i = 0; i < count; i++)
		if (is_same(copier, list[i], file) && copier->copies[list[i]] &&
		    (number == RUN_FILE_NONE || copier->copies[number]->error))
			number = list[i];
	return number;
}

/* Between instant_begin and instant_end. How many files there are. */
static unsigned copies_start(struct copier *copier)
{
	struct run_snapshots *s = copier_area(copier);
	uint16_t list[RUN_FILES];
	unsigned known = files_list(copier, list), count = 0;
	bool mapped[RUN_FILES] = {false};

	for (unsigned i = 0; i < known; i++)
		if (!copier->copies[list[i]])
			copy_open_named(copier, list[i]);
	for (unsigned i = 0; i < known; i++) {
		uint16_t number = number_of(copier, list[i], list, known);

		atomic_store(&s->files[list[i]].same_as,
			     number == RUN_FILE_NONE ? list[i] : number);
		if (number != RUN_FILE_NONE && instant_maps(copier, list[i]))
			mapped[number] = true;
	}
	for (uint16_t i = 0; i < RUN_FILES; i++) {
		if (!mapped[i])
			copies_drop(copier, i);
		if (!copier->copies[i])
			continue;
		copy_start(copier, copier->copies[i]);
		count++;
	}
	copies_watch(copier);
	return count;
}

/* Serve who waits. False: nobody does. */
static bool asks_serve(struct copier *copier)
{
	struct run_snapshots *s = copier_area(copier);
	bool served = false;

	for (unsigned i = 0; i < RUN_SNAPSHOT_ASKS; i++) {
		struct run_snapshot_ask *ask = &s->asks[i];
		struct copy *copy;
		uint16_t file;

		if (atomic_load(&ask->state) != RUN_ASKED)
			continue;
		served = true;
		file = ask->file;
		copy = file < RUN_FILES ? copier->copies[file] : NULL;
		if (!copy || copy_range(copier, copy, ask->offset, ask->length, ASK_BYTES))
			atomic_store(&ask->state, 0);
	}
	if (served)
		run_futex_ring(&s->served);
	return served;
}

/* Entries of those that died while they wrote them. */
static void asks_look(struct copier *copier)
{
	struct run_snapshots *s = copier_area(copier);

	for (unsigned i = 0; i < RUN_SNAPSHOT_ASKS; i++) {
		uint32_t state = atomic_load(&s->asks[i].state);

		if (state != 0 && state != RUN_ASKED && !process_lives((pid_t)state, 0))
			atomic_compare_exchange_strong(&s->asks[i].state, &state, 0);
	}
}

/* A little of each file in turn would write to all of them at once: one after the other. */
static void copies_copy(struct copier *copier)
{
	for (unsigned i = 0; i < RUN_FILES; i++) {
		struct copy *copy = copier->copies[i];

		if (!copy)
			continue;
		while (!copy_step(copier, copy)) {
			while (asks_serve(copier))
				;
			if (atomic_load(&copier->giving_up))
				copy->error = -ECANCELED;
		}
		copy_unwatch(copier, copy);
	}
}

/* ---- What is said ------------------------------------------------------------------------- */

static void copy_say(struct copier *copier, const struct copy *copy)
{
	char path[sizeof(copy->path)];
	size_t i;

	for (i = 0; copy->path[i] != '\0'; i++)
		path[i] = iscntrl((unsigned char)copy->path[i]) ? '?' : copy->path[i];
	path[i] = '\0';
	if (copy->error == -ESTALE)
		tool_error(copier->options,
			   "no snapshot of %s: a process that is not the program's cut it short",
			   path);
	else
		tool_error(copier->options, "no snapshot of %s: %s", path, strerror(-copy->error));
}

static void snapshot_say(struct copier *copier, const char *stamp, unsigned good, unsigned cloned,
			 uint64_t bytes)
{
	if (good > 0)
		tool_error(copier->options,
			   "snapshot %s: %u file%s, %s, %u of them cloned; writers were held up "
			   "for %.1f ms",
			   stamp, good, good == 1 ? "" : "s", text_size(bytes).s, cloned,
			   (double)copier->held_up_ns / 1e6);
}

/* All copies of a snapshot have the same. */
static unsigned number_choose(struct copier *copier, const char *stamp)
{
	unsigned number = 0;

	for (unsigned i = 0; i < RUN_FILES;) {
		struct copy *copy = copier->copies[i];

		if (copy && !copy->error && !copy_name_is_free(copy, stamp, number)) {
			number++;
			i = 0;
		} else {
			i++;
		}
	}
	return number;
}

static void copies_finish(struct copier *copier, const char *stamp)
{
	unsigned number = number_choose(copier, stamp), good = 0, cloned = 0;
	uint64_t bytes = 0;

	for (uint16_t i = 0; i < RUN_FILES; i++) {
		struct copy *copy = copier->copies[i];

		if (!copy)
			continue;
		copy_finish(copy, stamp, number);
		if (copy->error) {
			copy_say(copier, copy);
			copier->failures++;
		} else {
			good++;
			cloned += copy->cloned;
			bytes += copy->size;
		}
		copies_drop(copier, i);
	}
	snapshot_say(copier, stamp, good, cloned, bytes);
}

static void stamp_make(char stamp[static SNAPSHOT_STAMP_MAX])
{
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(stamp, SNAPSHOT_STAMP_MAX, "%Y%m%dT%H%M%S", &tm);
}

static void snapshot_make(struct copier *copier)
{
	char stamp[SNAPSHOT_STAMP_MAX];
	unsigned mapped;

	copies_open(copier);
	if (instant_begin(copier) != 0) {
		tool_error(copier->options, "no snapshot: %s", copier->why);
		copier->failures++;
		for (uint16_t i = 0; i < RUN_FILES; i++)
			copies_drop(copier, i);
		return;
	}
	stamp_make(stamp);
	mapped = copies_start(copier);
	instant_end(copier, RUN_SNAPSHOT_COPYING);
	copies_copy(copier);
	atomic_store(&copier_area(copier)->turn, copier->number << 2 | RUN_SNAPSHOT_NONE);
	run_futex_ring(&copier_area(copier)->served);
	while (asks_serve(copier))
		;
	if (mapped == 0 && copier->plan->signal)
		tool_error(copier->options, "no snapshot: no file is mapped");
	copies_finish(copier, stamp);
}

/* ---- The thread --------------------------------------------------------------------------- */

static struct copier *signalled; /* the copier that the signal is for */

static void signal_handle(int number)
{
	(void)number;
	atomic_fetch_add(&signalled->wanted, 1);
	run_futex_ring(&copier_area(signalled)->bell);
}

/* Is it time? A signal that comes during a snapshot asks for another one; more of them for one. */
static bool snapshot_due(struct copier *copier)
{
	uint64_t now_ns = tool_now_ns();

	if (copier->plan->signal)
		return atomic_exchange(&copier->wanted, 0) > 0;
	if (now_ns < copier->due_ns)
		return false;
	copier->due_ns += copier->plan->period_ns;
	if (copier->due_ns <= now_ns)
		copier->due_ns = now_ns + copier->plan->period_ns;
	return true;
}

static void *copier_main(void *arg)
{
	struct copier *copier = arg;
	struct run_snapshots *s = copier_area(copier);

	while (!atomic_load(&copier->ending)) {
		uint32_t bell = atomic_load(&s->bell);
		uint64_t now_ns = tool_now_ns(), wait_ns = LOOK_NS;

		if (snapshot_due(copier)) {
			snapshot_make(copier);
			continue;
		}
		instant_look(copier);
		asks_look(copier);
		if (copier->plan->period_ns && copier->due_ns - now_ns < wait_ns)
			wait_ns = copier->due_ns - now_ns;
		if (!atomic_load(&copier->ending))
			run_futex_wait(&s->bell, bell, wait_ns);
	}
	return NULL;
}

static int copier_thread_start(struct copier *copier)
{
	struct sigaction action = {.sa_handler = signal_handle, .sa_flags = SA_RESTART};
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&copier->thread, NULL, copier_main, copier);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error)
		return error;
	signalled = copier;
	if (copier->plan->signal)
		sigaction(copier->plan->signal, &action, NULL);
	return 0;
}

struct copier *copier_start(struct run_control *control, const struct snapshot_plan *plan,
			    const struct tool_options *options)
{
	struct copier *copier = calloc(1, sizeof(*copier));
	int error = ENOMEM;

	if (copier) {
		copier->control = control;
		copier->plan = plan;
		copier->options = options;
		copier->due_ns = tool_now_ns() + plan->period_ns;
		copier->buffer = malloc(COPY_BUFFER);
		if (copier->buffer)
			error = copier_thread_start(copier);
	}
	if (!error)
		return copier;
	tool_error(options, "snapshots cannot be made: %s", strerror(error));
	if (copier)
		free(copier->buffer);
	free(copier);
	return NULL;
}

unsigned copier_end(struct copier *copier, bool finish)
{
	unsigned failures;

	if (!finish)
		atomic_store(&copier->giving_up, true);
	atomic_store(&copier->ending, true);
	run_futex_ring(&copier_area(copier)->bell);
	pthread_join(copier->thread, NULL);
	if (copier->plan->signal)
		signal(copier->plan->signal, SIG_IGN);
	failures = copier->failures;
	free(copier->buffer);
	free(copier);
	return failures;
}
