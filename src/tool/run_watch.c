/* SPDX-License-Identifier: MIT */
/*
 * run_watch.c - the watcher: a thread that takes in what the processes of the program report, from
 * before the program starts until it has ended, and what is done at the end.
 *
 * It sleeps at the bell of the control area. Who dies rings no bell: at least once a second it
 * looks.
 */
#include "run.h"

#include "run/ledger.h"
#include "trace_recorder.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct watch {
	struct run *run;
	pthread_t thread;
	bool started;
	struct stops *stops;
	struct said *said;
	struct ledger *ledger;
	struct trace_recorder *recorder; /* NULL: no trace */
	int trace_error;		 /* the last one that was told */
	bool reached;			 /* the program has loaded the library, and found us */
};

static void watch_free(struct watch *watch)
{
	if (watch->stops)
		stops_destroy(watch->stops);
	if (watch->said)
		said_destroy(watch->said);
	if (watch->ledger)
		ledger_destroy(watch->ledger);
	free(watch);
}

int watch_prepare(struct run *run)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	int error = 0;

	if (watch) {
		watch->run = run;
		watch->stops = stops_create(run);
		watch->said = said_create();
		watch->ledger = ledger_create();
	}
	if (!watch || !watch->stops || !watch->said || !watch->ledger) {
		tool_error(run->options, "%s", strerror(ENOMEM));
		if (watch)
			watch_free(watch);
		return RUN_EXIT_SELF;
	}
	if (run->settings.trace)
		error = trace_recorder_create(run->settings.trace, &watch->recorder);
	if (error != 0) {
		tool_error(run->options, "--trace: %s: %s", name_of_path(run->settings.trace).s,
			   strerror(-error));
		watch_free(watch);
		return RUN_EXIT_SELF;
	}
	run->watch = watch;
	return 0;
}

static void event_take(struct watch *watch, const struct run_event *event)
{
	if (event->kind == RUN_EVENT_SAY)
		say_event(watch->run, watch->said, event);
	if (event->kind == RUN_EVENT_PROCESS && event->pid == watch->run->program)
		watch->reached = true;
	/* Without memory the range stays reserved; the file is right in any case. */
	ledger_event(watch->ledger, watch->run->control, event);
	if (watch->recorder)
		trace_recorder_take(watch->recorder, watch->run->control, event);
}

/* Told when it is a new one: the disk of the trace may be full for long. */
static void trace_look(struct watch *watch)
{
	int error = watch->recorder ? trace_recorder_flush(watch->recorder) : 0;

	if (error != 0 && error != watch->trace_error)
		tool_error(watch->run->options, "--trace: %s: %s; it lacks what happens meanwhile",
			   name_of_path(watch->run->settings.trace).s, strerror(-error));
	watch->trace_error = error;
}

/* False: there may be more events; a program that posts without a pause does not keep us from the
 * rest. */
static bool watch_look(struct watch *watch)
{
	struct run_event event;
	unsigned count = 0;

	while (count < RUN_EVENTS && run_next(watch->run->control, &event)) {
		event_take(watch, &event);
		count++;
	}
	stops_look(watch->stops);
	trace_look(watch);
	return count < RUN_EVENTS;
}

static void *watch_main(void *arg)
{
	struct watch *watch = arg;
	struct run *run = watch->run;
	uint32_t seen = 0;

	while (!atomic_load(&run->ended))
		if (watch_look(watch))
			run_listen(run->control, &seen, RUN_LOOK_MS);
	/* Processes that live on may post for ever. */
	watch_look(watch);
	return NULL;
}

int watch_start(struct run *run)
{
	int error = pthread_create(&run->watch->thread, NULL, watch_main, run->watch);

	run->watch->started = error == 0;
	if (error == 0)
		return 0;
	tool_error(run->options, "no thread: %s", strerror(error));
	return RUN_EXIT_SELF;
}

static void trace_end(struct watch *watch, int wait_status)
{
	uint64_t lost = atomic_load(&watch->run->control->lost);
	int error;

	if (!watch->recorder)
		return;
	error = trace_recorder_close(watch->recorder, wait_status, lost);
	if (error != 0)
		tool_error(watch->run->options, "--trace: %s: %s; it is not complete",
			   name_of_path(watch->run->settings.trace).s, strerror(-error));
}

/* What stays reserved takes room that nobody needs: worth a line, if anything can be done. */
static void ledger_report(void *arg, const struct ledger_file *file)
{
	const struct watch *watch = arg;

	if (file->error != 0 && file->error != -ENOENT && file->left_bytes > 0)
		tool_error(watch->run->options,
			   "%s: up to %s that it did not need stay reserved for it: %s",
			   name_of_path(file->path).s, text_size(file->left_bytes).s,
			   file->error == -EAGAIN ? "another process has it open"
						  : strerror(-file->error));
}

static void reach_check(const struct watch *watch)
{
	if (!watch->reached)
		tool_error(watch->run->options,
			   "%s: the library was not loaded into it, or could not reach mkwrite run "
			   "(no /proc, another user): it ran as without",
			   name_of_path(watch->run->target.name).s);
}

void watch_end(struct run *run, int wait_status)
{
	struct watch *watch = run->watch;

	if (watch->started) {
		atomic_store(&run->ended, true);
		run_ring(run->control);
		pthread_join(watch->thread, NULL);
		reach_check(watch);
		ledger_give_back(watch->ledger, ledger_report, watch);
	}
	trace_end(watch, wait_status);
	watch_free(watch);
}
