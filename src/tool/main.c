/* SPDX-License-Identifier: MIT */
/*
 * main.c - the command's front: the table of verbs, help, version, and the last look at stdout.
 */
#include "tool.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

struct verb {
	const char *name;
	const char *summary;
	const char *help; /* NULL: the verb answers --help itself */
	int (*main)(int argc, char **argv, const struct tool_options *options);
};

static const struct verb verbs[] = {
	{"demo", "pack files through a mapping whose store refuses, and check the result",
	 demo_help, demo_main},
	{"doctor", "say what this host allows, why not, and what to change", doctor_help,
	 doctor_main},
	{"info", "list the stores, or describe an object", info_help, info_main},
	{"cp", "copy an object or a file to another", cp_help, cp_main},
	{"run", "run a program, and be asked before its mapped files are written", run_help,
	 run_main},
	{"trace", "tell what a trace of mkwrite run has, or draw it", trace_help, trace_main},
	{"bench", "measure against the kernel's own mmap", NULL, bench_main},
};

static const char help_head[] =
	"Usage: mkwrite [--json] VERB [ARGUMENT...]\n"
	"       mkwrite --help | --version\n"
	"\n"
	"Map storage of your own, and have it asked before the first write.\n"
	"\n";

static const char help_tail[] =
	"\n"
	"mkwrite VERB --help tells more of a verb. --json gives its result as JSON.\n"
	"\n"
	"Exit status: 0 done; 1 something failed or differs; 2 wrong command line; 3 not\n"
	"possible on this host (see mkwrite doctor); 4 refused by the store. That of run\n"
	"is its program's.\n";

static void help_print(FILE *out)
{
	fputs(help_head, out);
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		fprintf(out, "  %-8s %s\n", verbs[i].name, verbs[i].summary);
	fputs(help_tail, out);
}

/* --json may stand anywhere before "--". */
static void json_take(int *argc, char **argv, struct tool_options *options)
{
	int kept = 1;
	bool done = false;

	for (int i = 1; i < *argc; i++) {
		if (strcmp(argv[i], "--") == 0)
			done = true;
		if (!done && strcmp(argv[i], "--json") == 0)
			options->json = true;
		else
			argv[kept++] = argv[i];
	}
	*argc = kept;
	argv[kept] = NULL;
}

static bool help_wanted(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

static int verb_run(int argc, char **argv, struct tool_options *options)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(argv[0], verbs[i].name) != 0)
			continue;
		options->verb = verbs[i].name;
		if (verbs[i].help && help_wanted(argc, argv)) {
			fputs(verbs[i].help, stdout);
			return TOOL_OK;
		}
		return verbs[i].main(argc, argv, options);
	}
	return tool_usage(options, "%s: no such verb", argv[0]);
}

static int command_run(int argc, char **argv, struct tool_options *options)
{
	json_take(&argc, argv, options);
	if (argc < 2) {
		help_print(stderr);
		return TOOL_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		help_print(stdout);
		return TOOL_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("mkwrite %s\n", mkw_version());
		return TOOL_OK;
	}
	if (argv[1][0] == '-')
		return tool_usage(options, "%s: no such option", argv[1]);
	return verb_run(argc - 1, argv + 1, options);
}

int main(int argc, char **argv)
{
	struct tool_options options = {.progress = isatty(STDERR_FILENO) == 1};
	int code;

	/* A reader that went away is an error like any other, found below. */
	options.sigpipe_ignored = signal(SIGPIPE, SIG_IGN) == SIG_IGN;
	code = command_run(argc, argv, &options);

	errno = 0;
	if (fflush(stdout) != 0 || ferror(stdout)) {
		tool_errno(&options, "standard output");
		if (code == TOOL_OK)
			code = TOOL_FAILED;
	}
	return code;
}
