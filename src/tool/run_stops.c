/* SPDX-License-Identifier: MIT */
/*
 * run_stops.c - threads that wait, or end, because a disk is full: telling of them, and starting
 * the command that makes room.
 *
 * A case is what is told together: the stops of all threads at one file. It is opened by the first
 * of them, which is what the message is about, and closed when none is left; the command is run
 * once for it. Threads try again by themselves, so nothing but telling depends on this.
 *
 * Runs in the watcher. A stop is freed by us alone: when its thread has said that it is over, or is
 * dead.
 */
#include "run.h"

#include "run/process.h"
#include "run/ring.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

struct stop_facts { /* a copy of what the thread has said */
	pid_t pid;
	uint16_t file;
	bool fatal;
	int error; /* negative errno */
	uint64_t offset, needed;
};

struct stop_case {
	bool open;
	struct stop_facts facts; /* of the first one */
	char *title;		 /* "fio[123]: data.mdb" */
	unsigned stopped;	 /* at the last look */
	bool went_on;		 /* one of them did */
	bool command_due;
	pid_t command; /* 0: none runs; may outlive the case */
};

/* One for each stop, and some whose commands run on. */
#define CASES (2 * RUN_STOPS)

struct stops {
	struct run *run;
	struct stop_case *of[RUN_STOPS]; /* NULL: not told yet */
	struct stop_case cases[CASES];
};

struct stops *stops_create(struct run *run)
{
	struct stops *stops = calloc(1, sizeof(*stops));

	if (stops)
		stops->run = run;
	return stops;
}

void stops_destroy(struct stops *stops)
{
	for (size_t i = 0; i < CASES; i++)
		free(stops->cases[i].title);
	free(stops);
}

/* ---- Messages ------------------------------------------------------------------------------ */

static void remedy_write(char *text, size_t size, const struct run *run,
			 const struct stop_facts *facts)
{
	struct run_name mount = name_of_mount(run, facts->file);

	if (facts->error == -ENOSPC)
		snprintf(text, size, "free space on %s", mount.s);
	else if (facts->error == -EDQUOT)
		snprintf(text, size, "raise the quota, or remove files, on %s", mount.s);
	else
		snprintf(text, size, "mend %s", mount.s);
}

static void case_tell(const struct run *run, const struct stop_case *c)
{
	const struct stop_facts *facts = &c->facts;
	char remedy[PATH_MAX + 64], end[PATH_MAX + 128];

	remedy_write(remedy, sizeof(remedy), run, facts);
	if (!facts->fatal)
		snprintf(end, sizeof(end), "waiting: %s, or end it with kill %d", remedy,
			 (int)facts->pid);
	else if (run->settings.shared.policy == RUN_EXIT)
		snprintf(end, sizeof(end), "it ends with status %d: %s, and run it again",
			 RUN_EXIT_FULL, remedy);
	else
		snprintf(end, sizeof(end), "it gets SIGBUS, as it would by itself: %s", remedy);
	tool_error(run->options, "%s: %s at offset %" PRIu64 " (needs %s); %s", c->title,
		   error_words(facts->error), facts->offset, text_size(facts->needed).s, end);
}

static char *title_make(const struct run *run, const struct stop_facts *facts)
{
	struct run_name who = name_of_process(run, facts->pid);
	struct run_name what = name_of_file(run, facts->file);
	char *title = NULL;

	return asprintf(&title, "%s: %s", who.s, what.s) < 0 ? NULL : title;
}

/* ---- The command --------------------------------------------------------------------------- */

static void command_begin(struct stops *stops, struct stop_case *c)
{
	const char *error_name = strerrorname_np(-c->facts.error);
	char path[PATH_MAX], *variables[6] = {NULL};
	bool complete;

	c->command_due = false;
	file_path(stops->run, c->facts.file, path);
	complete = asprintf(&variables[0], "MKWRITE_FILE=%s", path) >= 0 &&
		   asprintf(&variables[1], "MKWRITE_OFFSET=%" PRIu64, c->facts.offset) >= 0 &&
		   asprintf(&variables[2], "MKWRITE_NEEDED=%" PRIu64, c->facts.needed) >= 0 &&
		   asprintf(&variables[3], "MKWRITE_ERROR=%s", error_name ? error_name : "") >= 0 &&
		   asprintf(&variables[4], "MKWRITE_PID=%d", (int)c->facts.pid) >= 0;
	errno = ENOMEM;
	c->command =
		complete ? command_start(stops->run, stops->run->settings.full_command, variables)
			 : -1;
	if (c->command < 0) {
		c->command = 0;
		tool_errno(stops->run->options, "--on-full-exec");
	}
	for (size_t i = 0; complete && variables[i]; i++)
		free(variables[i]);
}

/* Has it ended? Then space may be there. */
static void command_look(struct stops *stops, struct stop_case *c)
{
	int status;

	if (waitpid(c->command, &status, WNOHANG) != c->command)
		return;
	c->command = 0;
	if (WIFSIGNALED(status))
		tool_error(stops->run->options,
			   "--on-full-exec: the command was ended by signal %d (%s)",
			   WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) != 0)
		tool_error(stops->run->options, "--on-full-exec: the command ended with status %d",
			   WEXITSTATUS(status));
	run_retry(stops->run->control);
}

/* ---- Cases --------------------------------------------------------------------------------- */

static bool case_fits(const struct stop_case *c, const struct stop_facts *facts)
{
	return c->facts.file == facts->file && c->facts.fatal == facts->fatal &&
	       (facts->file < RUN_FILES || c->facts.pid == facts->pid);
}

static struct stop_case *case_find(struct stops *stops, const struct stop_facts *facts)
{
	for (size_t i = 0; i < CASES; i++)
		if (stops->cases[i].open && case_fits(&stops->cases[i], facts))
			return &stops->cases[i];
	return NULL;
}

/* A closed one: that of the same file if its command still runs, so that there are never two. */
static struct stop_case *case_closed(struct stops *stops, const struct stop_facts *facts)
{
	struct stop_case *unused = NULL;

	for (size_t i = 0; i < CASES; i++) {
		struct stop_case *c = &stops->cases[i];

		if (c->open)
			continue;
		if (c->command != 0 && case_fits(c, facts))
			return c;
		if (c->command == 0)
			unused = c;
	}
	return unused;
}

static struct stop_case *case_open(struct stops *stops, const struct stop_facts *facts)
{
	struct stop_case *c = case_closed(stops, facts);
	char *title = title_make(stops->run, facts);

	if (!c || !title) {
		free(title);
		return NULL;
	}
	*c = (struct stop_case){
		.open = true,
		.facts = *facts,
		.title = title,
		.command = c->command,
		.command_due = stops->run->settings.full_command && !facts->fatal,
	};
	case_tell(stops->run, c);
	return c;
}

static void case_close(struct stops *stops, struct stop_case *c)
{
	if (!c->facts.fatal)
		tool_error(stops->run->options, "%s: %s", c->title,
			   c->went_on ? "it goes on" : "it has ended while it waited");
	free(c->title);
	c->title = NULL;
	c->open = false;
}

static void case_look(struct stops *stops, struct stop_case *c)
{
	if (c->command != 0)
		command_look(stops, c);
	if (c->open && c->stopped == 0)
		case_close(stops, c);
	if (c->open && c->command_due && c->command == 0)
		command_begin(stops, c);
}

/* ---- Stops --------------------------------------------------------------------------------- */

static struct stop_facts stop_facts(const struct run_stop *slot)
{
	return (struct stop_facts){
		.pid = slot->pid,
		.file = slot->file,
		.fatal = slot->fatal,
		.error = slot->error < 0 && slot->error > -4096 ? slot->error : -EIO,
		.offset = slot->offset,
		.needed = slot->needed,
	};
}

/* A stop that was not told yet, or is used again by a thread that has left it by longjmp. */
static void stop_take(struct stops *stops, unsigned i)
{
	struct run_stop *slot = &stops->run->control->stops[i];
	struct stop_facts facts = stop_facts(slot);
	struct stop_case *c = case_find(stops, &facts);
	uint32_t asked = RUN_STOP_ASKED;

	if (!c)
		c = case_open(stops, &facts);
	if (!c)
		return;
	if (stops->of[i])
		stops->of[i]->went_on = true;
	stops->of[i] = c;
	if (atomic_compare_exchange_strong(&slot->state, &asked, RUN_STOP_TOLD))
		futex_wake_all(&slot->state);
}

static void stop_free(struct stops *stops, unsigned i, bool went_on)
{
	struct run_stop *slot = &stops->run->control->stops[i];

	if (stops->of[i])
		stops->of[i]->went_on |= went_on;
	stops->of[i] = NULL;
	atomic_store(&slot->state, RUN_STOP_FREE);
	atomic_store(&slot->tid, 0);
}

static void stop_look(struct stops *stops, unsigned i)
{
	struct run_stop *slot = &stops->run->control->stops[i];
	int32_t tid = atomic_load(&slot->tid);
	uint32_t state = atomic_load(&slot->state);

	if (tid == 0)
		return;
	if (state == RUN_STOP_OVER)
		stop_free(stops, i, true);
	else if (!process_lives(tid, 0))
		stop_free(stops, i, false);
	else if (state == RUN_STOP_ASKED)
		stop_take(stops, i);
}

void stops_look(struct stops *stops)
{
	for (unsigned i = 0; i < RUN_STOPS; i++)
		stop_look(stops, i);
	for (size_t i = 0; i < CASES; i++)
		stops->cases[i].stopped = 0;
	for (unsigned i = 0; i < RUN_STOPS; i++)
		if (stops->of[i])
			stops->of[i]->stopped++;
	for (size_t i = 0; i < CASES; i++)
		case_look(stops, &stops->cases[i]);
}
