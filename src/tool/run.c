/* SPDX-License-Identifier: MIT */
/*
 * run.c - the verb run: its options, and a run from its beginning to its end.
 */
#include "run.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESERVE_DEFAULT_BYTES (1u << 20)
#define DIRTY_LIMIT_MIN	      8192

const char run_help[] =
	"Usage: mkwrite run [OPTION...] -- PROGRAM [ARGUMENT...]\n"
	"\n"
	"Run a program, unchanged, and be asked before it writes to files it has mapped:\n"
	"a full disk makes it wait instead of ending it with SIGBUS.\n"
	"\n"
	"  --on-full=wait       on a full disk the writing thread waits (default)\n"
	"  --on-full=exit       the process ends with status 75\n"
	"  --on-full=signal     it gets SIGBUS, as it would by itself\n"
	"  --on-full-exec=COMMAND\n"
	"                       a shell command, run once each time something waits;\n"
	"                       MKWRITE_FILE, _OFFSET, _NEEDED, _ERROR, _PID say what for\n"
	"  --reserve=SIZE       reserve space that far ahead, where holes are written to\n"
	"                       (default 1M; 0: not ahead)\n"
	"  --dirty-limit=SIZE   never more dirty mapped memory than that in a process\n"
	"  --trace=FILE         record first writes and syncs, for mkwrite trace FILE\n"
	"  --snapshot=SECONDS|SIGNAL\n"
	"                       copy the mapped files as of one instant, each so many\n"
	"                       seconds, or when this command gets the signal\n"
	"  --snapshot-dir=DIR   the copies go there (default: beside each file)\n"
	"  --no-children        leave processes alone that the program makes\n"
	"  --check              only say whether the program can be run, and why not\n"
	"  --json               with --check: as JSON\n"
	"\n"
	"Examples:\n"
	"  mkwrite run -- ./fill data.mdb\n"
	"  mkwrite run --on-full-exec='lvextend -r -L +1G /dev/vg/data' -- ./server\n"
	"  mkwrite run --dirty-limit=64M --trace=out.trace -- fio job.fio\n"
	"  mkwrite run --check -- java\n"
	"\n"
	"Exit status: the program's, or its signal; 75 full (--on-full=exit); 125 mkwrite\n"
	"run failed, or a wrong command line; 126 the program cannot be run, or not like\n"
	"this; 127 there is no such program.\n";

struct run_arguments {
	const char *on_full, *snapshot, *snapshot_folder;
	bool check;
};

/* The command line up to "--", and where the program begins. 0 or RUN_EXIT_SELF. */
static int program_split(int *argc, char **argv, char ***program,
			 const struct tool_options *options)
{
	int i = 1;

	while (i < *argc && strcmp(argv[i], "--") != 0)
		i++;
	if (i + 1 >= *argc) {
		tool_usage(options,
			   i < *argc ? "no program behind --" : "no program: it stands behind --");
		return RUN_EXIT_SELF;
	}
	*program = argv + i + 1;
	argv[i] = NULL;
	*argc = i;
	return 0;
}

static int policy_set(enum run_policy *policy, const char *name, const struct tool_options *options)
{
	static const char *const names[] = {
		[RUN_WAIT] = "wait", [RUN_EXIT] = "exit", [RUN_SIGNAL] = "signal"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]) == 0) {
			*policy = (enum run_policy)i;
			return 0;
		}
	}
	return tool_usage(options, "--on-full: \"%s\" is neither wait nor exit nor signal", name);
}

/* What each value is by itself is right; now what they are together. */
static int settings_check(const struct run_settings *settings,
			  const struct run_arguments *arguments, const struct tool_options *options)
{
	if (settings->full_command && settings->shared.policy != RUN_WAIT)
		return tool_usage(options, "--on-full-exec goes with --on-full=wait only");
	if (settings->shared.dirty_limit_bytes != 0 &&
	    settings->shared.dirty_limit_bytes < DIRTY_LIMIT_MIN)
		return tool_usage(options, "--dirty-limit: two pages (8K) at least");
	if (arguments->snapshot_folder && !arguments->snapshot)
		return tool_usage(options, "--snapshot-dir goes with --snapshot only");
	if (snapshot_plan_check(&settings->snapshot_plan, options) != 0)
		return TOOL_FAILED;
	if (options->json && !arguments->check)
		return tool_usage(options, "--json goes with --check only");
	return 0;
}

/* 0 or RUN_EXIT_SELF with a message. */
static int settings_take(struct run_settings *settings, struct run_arguments *arguments, int argc,
			 char **argv, const struct tool_options *options)
{
	struct run_options *shared = &settings->shared;
	const struct option_spec specs[] = {
		{"on-full", OPTION_TEXT, &arguments->on_full},
		{"on-full-exec", OPTION_TEXT, &settings->full_command},
		{"reserve", OPTION_SIZE, &shared->reserve_bytes},
		{"dirty-limit", OPTION_SIZE, &shared->dirty_limit_bytes},
		{"trace", OPTION_TEXT, &settings->trace},
		{"snapshot", OPTION_TEXT, &arguments->snapshot},
		{"snapshot-dir", OPTION_TEXT, &arguments->snapshot_folder},
		{"no-children", OPTION_FLAG, &shared->no_children},
		{"check", OPTION_FLAG, &arguments->check},
		{0},
	};

	if (program_split(&argc, argv, &settings->program, options) != 0)
		return RUN_EXIT_SELF;
	shared->reserve_bytes = RESERVE_DEFAULT_BYTES;
	if (options_take(&argc, argv, specs, options) != 0)
		return RUN_EXIT_SELF;
	if (argc > 1) {
		tool_usage(options, "%s: the program stands behind --", argv[1]);
		return RUN_EXIT_SELF;
	}
	if (arguments->on_full && policy_set(&shared->policy, arguments->on_full, options) != 0)
		return RUN_EXIT_SELF;
	if (arguments->snapshot &&
	    snapshot_plan_parse(&settings->snapshot_plan, arguments->snapshot, options) != 0)
		return RUN_EXIT_SELF;
	settings->snapshot_plan.directory = arguments->snapshot_folder;
	shared->snapshots = arguments->snapshot != NULL;
	shared->trace = settings->trace != NULL;
	return settings_check(settings, arguments, options) != 0 ? RUN_EXIT_SELF : 0;
}

/* 0 or RUN_EXIT_SELF with a message. */
static int snapshots_begin(struct run *run)
{
	const struct snapshot_plan *plan = &run->settings.snapshot_plan;

	run->copier = copier_start(run->control, plan, run->options);
	if (!run->copier)
		return RUN_EXIT_SELF;
	if (plan->signal != 0)
		signals_leave(run, plan->signal);
	return 0;
}

/* The program runs. 0, or an exit status: it does not, or not any more. */
static int program_begin(struct run *run)
{
	int code = program_start(run);

	if (code != 0)
		return code;
	if (run->settings.shared.snapshots)
		code = snapshots_begin(run);
	if (code == 0)
		code = watch_start(run);
	if (code != 0)
		kill(run->program, SIGKILL);
	return code;
}

static int supervise(struct run *run)
{
	int code = watch_prepare(run), wait_status = 0;

	if (code != 0)
		return code;
	signals_take(run);
	code = program_begin(run);
	if (code == 0) {
		stdio_leave();
		signals_pass(run);
	}
	if (run->program > 0)
		waitpid(run->program, &wait_status, 0);
	if (run->copier)
		copier_end(run->copier, code == 0);
	watch_end(run, wait_status);
	return code != 0 ? code : status_repeat(wait_status);
}

static int run_supervised(struct run *run)
{
	int error = stdio_fill();
	int code = RUN_EXIT_SELF;

	if (error == 0)
		error = run_control_create(&run->settings.shared, &run->control, &run->control_fd);
	if (error != 0) {
		tool_error(run->options, "no memory to share with the program: %s",
			   strerror(-error));
		return RUN_EXIT_SELF;
	}
	code = supervise(run);
	run_control_destroy(run->control, run->control_fd);
	return code;
}

int run_main(int argc, char **argv, const struct tool_options *options)
{
	static struct run run;
	struct run_arguments arguments = {0};
	int code;

	run.options = options;
	code = settings_take(&run.settings, &arguments, argc, argv, options);
	if (code != 0)
		return code;
	code = target_check(&run.target, run.settings.program[0]);
	if (arguments.check) {
		target_report(&run.target, options);
		return code;
	}
	if (code != 0) {
		tool_error(options, "%s", run.target.problems[0].text);
		return code;
	}
	return run_supervised(&run);
}
