/* SPDX-License-Identifier: MIT */
/*
 * init.c - the beginning: when the program is loaded, before its main.
 */
#include "next.h"

#include "files.h"
#include "forks.h"
#include "full.h"
#include "maps.h"
#include "run/caller.h"

#include <errno.h>
#include <string.h>
#include <ucontext.h>

#define LIBRARY "libmkwrite-run.so"

struct run_control *preload_control;

static bool refused(const struct mkw_refusal *refusal, void *context)
{
	return full_again(refusal->error, &((ucontext_t *)context)->uc_sigmask);
}

/* --no-children: what this process executes is not to load us. In the list of LD_PRELOAD names are
 * between colons or blanks. */
static void leave_no_trace(void)
{
	char *list = getenv("LD_PRELOAD");

	unsetenv(RUN_ENV);
	for (char *at = list; at != NULL && (at = strstr(at, LIBRARY)) != NULL;) {
		char *from = at, *to = at + strlen(LIBRARY);

		while (from > list && from[-1] != ':' && from[-1] != ' ')
			from--;
		if (*to != '\0' && *to != ':' && *to != ' ') {
			at = to;
			continue;
		}
		to += *to != '\0';
		memmove(from, to, strlen(to) + 1);
		at = from;
	}
	if (list != NULL && *list == '\0')
		unsetenv("LD_PRELOAD");
}

static void give_up(void)
{
	const struct run_event event = {
		.kind = RUN_EVENT_SAY,
		.file = RUN_FILE_NONE,
		.offset = ENOMEM,
		.length = RUN_SAY_NO_FILE,
	};

	run_post(preload_control, &event);
	preload_control = NULL;
}

__attribute__((constructor)) static void begin(void)
{
	static const struct mkw_fault_hooks hooks = {.refused = refused, .unknown = maps_unknown};
	const struct run_event event = {.kind = RUN_EVENT_PROCESS, .file = RUN_FILE_NONE};
	const char *path = getenv(RUN_ENV);

	next_find_all();
	if (path != NULL)
		preload_control = run_control_open(path);
	if (preload_control == NULL)
		return;
	if (preload_control->options.no_children)
		leave_no_trace();
	if (files_begin() != 0 || forks_begin() != 0 || preload_signals_begin() != 0) {
		give_up();
		return;
	}
	mkw_set_fault_hooks(&hooks);
	run_post(preload_control, &event);
	/* However soon this process ends, or becomes another program: its modules are known. */
	if (preload_control->options.trace) {
		run_caller_learn();
		run_settle(preload_control);
	}
}
