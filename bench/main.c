/* SPDX-License-Identifier: MIT */
/*
 * main.c - `mkwrite bench`: which rows, how often, in turns.
 *
 * Exit status: 0 whatever the times were; 1 if a row failed or a count that must hold did not.
 */
#include "program.h"

#include <errno.h>
#include <fnmatch.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <tool/tool.h>

static const char help[] =
	"Usage: mkwrite bench [--quick] [--runs=N] [--images=DIRECTORY] [--json] [NAME...]\n"
	"       mkwrite bench --list\n"
	"\n"
	"Measure the library beside the kernel's own mmap and beside bare userfaultfd. A NAME\n"
	"is a row (\"rewrite/uffd-file\") or a group (\"rewrite\"), with wildcards; the rows it "
	"is\n"
	"compared with run too. Without NAME everything runs. Rows of a group run in turns.\n"
	"\n"
	"  --quick   small objects, one run: shows that it works, not how fast\n"
	"  --runs    of each row (default 5)\n"
	"  --images  where the images of ext4 and xfs go (default: /dev/shm if it has room,\n"
	"            else $TMPDIR or /var/tmp); making them needs root\n"
	"  --list    the rows and what they measure\n"
	"  --program=LOOP:BYTES:FILE\n"
	"            how the rows of group run start this command: one of their loops\n";

/* The order in which groups run and are shown. */
static const char *const groups[] = {"rewrite", "random",  "reprotect", "read",	       "touch",
				     "again",	"private", "pin",	"swap",	       "fork",
				     "limit",	"threads", "sparse",	"bookkeeping", "run"};
#define GROUP_COUNT (sizeof(groups) / sizeof(groups[0]))

static const struct bench_measure *const tables[] = {
	bench_kernel_measures,	bench_bare_measures,	bench_limit_measures,
	bench_library_measures, bench_protect_measures, bench_memory_measures,
	bench_private_measures, bench_pin_measures,	bench_swap_measures,
	bench_fork_measures,	bench_run_measures,
};
#define TABLE_COUNT (sizeof(tables) / sizeof(tables[0]))

int bench_say(struct bench *bench, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(bench->reason, sizeof(bench->reason), format, args);
	va_end(args);
	return error;
}

/* ---- Rows --------------------------------------------------------------------------------- */

static bool in_group(const struct bench_measure *measure, const char *group)
{
	size_t length = strlen(group);

	return strncmp(measure->name, group, length) == 0 && measure->name[length] == '/';
}

static int rows_make(struct bench *bench)
{
	size_t count = 0;

	for (size_t t = 0; t < TABLE_COUNT; t++)
		for (const struct bench_measure *m = tables[t]; m->name; m++)
			count++;
	bench->rows = calloc(count, sizeof(*bench->rows));
	if (!bench->rows)
		return -ENOMEM;
	for (size_t g = 0; g < GROUP_COUNT; g++)
		for (size_t t = 0; t < TABLE_COUNT; t++)
			for (const struct bench_measure *m = tables[t]; m->name; m++)
				if (in_group(m, groups[g]))
					bench->rows[bench->row_count++].measure = m;
	return 0;
}

static bool name_matches(const char *pattern, const struct bench_measure *measure)
{
	return !fnmatch(pattern, measure->name, 0) || in_group(measure, pattern);
}

static void baselines_select(struct bench *bench, const char *patterns)
{
	char copy[256], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", patterns);
	for (char *p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save))
		for (size_t i = 0; i < bench->row_count; i++)
			if (!fnmatch(p, bench->rows[i].measure->name, 0))
				bench->rows[i].selected = true;
}

/* False: the name means nothing. */
static bool rows_select(struct bench *bench, const char *name)
{
	bool found = false;

	for (size_t i = 0; i < bench->row_count; i++) {
		const struct bench_measure *measure = bench->rows[i].measure;

		if (!name_matches(name, measure))
			continue;
		found = bench->rows[i].selected = true;
		if (measure->against)
			baselines_select(bench, measure->against);
	}
	return found;
}

/* ---- Running ------------------------------------------------------------------------------ */

static void row_fail(const struct bench *bench, struct bench_row *row, int error)
{
	row->error = error;
	snprintf(row->reason, sizeof(row->reason), "%s",
		 bench->reason[0] ? bench->reason : strerror(-error));
	switch (-error) {
	case EPERM:
	case EACCES:
	case ENOSYS:
	case ENOTSUP:
	case ENOENT:
	case ENODEV:
	case EROFS:
		/* Not to be had on this host. */
		break;
	default:
		row->failed = true;
	}
}

static void row_open(struct bench *bench, struct bench_row *row)
{
	int rc;

	if (!row->measure->open)
		return;
	bench->reason[0] = '\0';
	rc = row->measure->open(bench, row->measure, &row->state);
	if (rc)
		row_fail(bench, row, rc);
	row->opened = rc == 0;
}

/* Whatever comes first pays for memory that nobody has used yet: round 0 is not counted. */
static void row_run(struct bench *bench, struct bench_row *row)
{
	struct bench_sample *sample = &row->samples[row->runs];
	int rc;

	bench->reason[0] = '\0';
	*sample = (struct bench_sample){0};
	rc = row->measure->run(bench, row->measure, row->state, sample);
	if (rc)
		row_fail(bench, row, rc);
	else if (bench->round > 0 || bench->options.quick)
		row->runs++;
}

static void progress_line(const struct tool_options *options, const char *name, unsigned round)
{
	if (options->progress)
		fprintf(stderr, "\r\033[K%s %u", name, round);
}

static void group_run(struct bench *bench, const char *group, const struct tool_options *options)
{
	unsigned rounds = bench->options.runs + !bench->options.quick;

	for (size_t i = 0; i < bench->row_count; i++)
		if (bench->rows[i].selected && in_group(bench->rows[i].measure, group))
			row_open(bench, &bench->rows[i]);
	for (bench->round = 0; bench->round < rounds; bench->round++) {
		bench_shuffle(bench);
		for (size_t i = 0; i < bench->row_count; i++) {
			struct bench_row *row = &bench->rows[i];

			if (!row->selected || row->error || !in_group(row->measure, group))
				continue;
			progress_line(options, row->measure->name, bench->round);
			row_run(bench, row);
		}
	}
	for (size_t i = 0; i < bench->row_count; i++) {
		if (bench->rows[i].opened && bench->rows[i].measure->close)
			bench->rows[i].measure->close(bench, bench->rows[i].state);
		bench->rows[i].opened = false;
	}
}

static bool rows_good(const struct bench *bench)
{
	for (size_t i = 0; i < bench->row_count; i++)
		if (bench->rows[i].failed || bench_row_counts_broken(&bench->rows[i]))
			return false;
	return true;
}

static void cpus_choose(struct bench *bench)
{
	cpu_set_t set;
	int found = 0;

	sched_getaffinity(0, sizeof(set), &set);
	for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
		if (CPU_ISSET((size_t)cpu, &set))
			bench->cpus[found++] = cpu;
	if (found == 1)
		bench->cpus[1] = bench->cpus[0];
}

static int bench_run(struct bench *bench, const struct tool_options *options)
{
	size_t pages;

	bench->size = (bench->options.quick ? 8 : 256) * MIB;
	pages = bench->size / BENCH_PAGE;
	bench->order_count = pages / 4;
	bench->order = calloc(pages, sizeof(*bench->order));
	if (!bench->order)
		return TOOL_FAILED;
	cpus_choose(bench);
	for (size_t g = 0; g < GROUP_COUNT; g++)
		group_run(bench, groups[g], options);
	if (options->progress)
		fputs("\r\033[K", stderr);
	if (options->json)
		bench_report_json(bench, stdout);
	else
		bench_report_text(bench, stdout);
	bench_images_close(bench);
	free(bench->order);
	return rows_good(bench) ? TOOL_OK : TOOL_FAILED;
}

/* ---- The command line --------------------------------------------------------------------- */

static int runs_parse(struct bench *bench, const char *text, const struct tool_options *options)
{
	char *end;
	unsigned long runs;

	bench->options.runs = bench->options.quick ? 1 : 5;
	if (!text)
		return 0;
	runs = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || runs < 1 || runs > BENCH_RUNS_MAX)
		return tool_usage(options, "--runs: \"%s\" is not a number from 1 to %d", text,
				  BENCH_RUNS_MAX);
	bench->options.runs = (unsigned)runs;
	return 0;
}

static int names_take(struct bench *bench, int argc, char **argv,
		      const struct tool_options *options)
{
	for (int i = 1; i < argc; i++)
		if (!rows_select(bench, argv[i]))
			return tool_usage(options, "%s: no such row (mkwrite bench --list)",
					  argv[i]);
	for (size_t i = 0; argc < 2 && i < bench->row_count; i++)
		bench->rows[i].selected = true;
	return 0;
}

static int list_print(const struct bench *bench)
{
	for (size_t i = 0; i < bench->row_count; i++)
		if (bench->rows[i].selected)
			printf("%-28s %s\n", bench->rows[i].measure->name,
			       bench->rows[i].measure->text);
	return TOOL_OK;
}

int bench_main(int argc, char **argv, const struct tool_options *options)
{
	struct bench bench = {0};
	const char *runs = NULL;
	const char *program = NULL;
	bool list = false, wants_help = false;
	const struct option_spec specs[] = {
		{"quick", OPTION_FLAG, &bench.options.quick},
		{"list", OPTION_FLAG, &list},
		{"help", OPTION_FLAG, &wants_help},
		{"runs", OPTION_TEXT, &runs},
		{"program", OPTION_TEXT, &program},
		{"images", OPTION_TEXT, &bench.options.directory},
		{NULL, OPTION_FLAG, NULL},
	};
	int code = options_take(&argc, argv, specs, options);

	if (code)
		return code;
	if (wants_help) {
		fputs(help, stdout);
		return TOOL_OK;
	}
	if (program)
		return program_main(program);
	code = runs_parse(&bench, runs, options);
	if (code)
		return code;
	if (rows_make(&bench))
		return TOOL_FAILED;
	code = names_take(&bench, argc, argv, options);
	if (!code)
		code = list ? list_print(&bench) : bench_run(&bench, options);
	free(bench.rows);
	return code;
}
