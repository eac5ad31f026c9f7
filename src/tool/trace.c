/* SPDX-License-Identifier: MIT */
/*
 * trace.c - `mkwrite trace`: what the file of `mkwrite run --trace` has, as a summary, a picture,
 * JSON or CSV.
 */
#include "trace_summary.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char trace_help[] =
	"Usage: mkwrite trace [--file=NAME] [--csv | --svg=OUT [--by=WHAT]] FILE\n"
	"\n"
	"Tell what was recorded by mkwrite run --trace=FILE: which pages of which files\n"
	"were written first, when, by whom, and when they were synced. A first write is\n"
	"one to pages that were clean: what follows until the next sync is not seen.\n"
	"\n"
	"  --file=NAME  only this file: its path, or the end of it\n"
	"  --csv        the events, a line each\n"
	"  --svg=OUT    draw file offset over time into OUT (-: standard output); for\n"
	"               any browser\n"
	"  --by=WHAT    the colours are threads (the default) or callers\n"
	"  --json       all of it as JSON, events included\n"
	"\n"
	"Examples:\n"
	"  mkwrite run --trace=t -- ./program    # record\n"
	"  mkwrite trace t                       # a summary\n"
	"  mkwrite trace --svg=t.svg --by=callers --file=data.mdb t\n"
	"  mkwrite trace --csv t | grep ,sync,\n"
	"\n"
	"Exit status: 0 told; 1 the trace is wrong, cannot be read, or has no such file;\n"
	"2 wrong command line.\n";

struct request {
	const char *path, *file, *svg, *by;
	bool csv;
	const struct tool_options *options;
};

static int request_check(const struct request *request)
{
	const struct tool_options *options = request->options;

	if (request->csv + options->json + (request->svg != NULL) > 1)
		return tool_usage(options, "--csv, --json and --svg exclude each other");
	if (!request->by)
		return 0;
	if (!request->svg)
		return tool_usage(options, "--by is for --svg");
	if (strcmp(request->by, "threads") != 0 && strcmp(request->by, "callers") != 0)
		return tool_usage(options, "--by: \"%s\" is neither threads nor callers",
				  request->by);
	return 0;
}

/* ---- The picture's file -------------------------------------------------------------------- */

/* Does path lead to what fd has open? */
static bool is_same(const char *path, int fd)
{
	struct stat a, b;

	return stat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static int picture_make(const struct request *request, struct summary *summary,
			struct trace_reader *reader, int fd, struct progress *progress)
{
	bool by_caller = request->by && strcmp(request->by, "callers") == 0, failed;
	FILE *out;
	int code;

	if (strcmp(request->svg, "-") == 0)
		return summary_svg(summary, reader, by_caller, stdout, progress, request->options);
	if (is_same(request->svg, fd))
		return tool_usage(request->options, "%s: that is the trace", request->svg);
	out = fopen(request->svg, "we");
	if (!out)
		return tool_errno(request->options, request->svg);
	code = summary_svg(summary, reader, by_caller, out, progress, request->options);
	errno = 0;
	failed = ferror(out) != 0;
	if ((fclose(out) != 0 || failed) && code == TOOL_OK)
		code = tool_errno(request->options, request->svg);
	return code;
}

/* ---- Reading ------------------------------------------------------------------------------- */

static int file_check(const struct request *request, const struct summary *summary)
{
	for (size_t i = 0; i < summary->file_count; i++)
		if (summary->files[i].wanted)
			return TOOL_OK;
	if (!request->file)
		return TOOL_OK;
	tool_error(request->options,
		   "%s: no file of the trace is called %s (mkwrite trace %s "
		   "lists them)",
		   request->path, request->file, request->path);
	return TOOL_FAILED;
}

static int result_give(const struct request *request, struct summary *summary,
		       struct trace_reader *reader, int fd, struct progress *progress)
{
	int code = TOOL_OK;

	if (request->svg)
		code = picture_make(request, summary, reader, fd, progress);
	else if (request->csv)
		code = summary_csv(summary, reader, stdout, progress, request->options);
	else if (request->options->json)
		code = summary_json(summary, reader, stdout, progress, request->options);
	else
		summary_print(summary, stdout);
	progress_end(progress);
	return code;
}

static int trace_tell(const struct request *request, struct trace_reader *reader, int fd)
{
	bool once = !request->svg && !request->csv && !request->options->json;
	struct summary *summary = calloc(1, sizeof(*summary));
	struct progress progress;
	int code;

	if (!summary)
		return tool_errno(request->options, request->path);
	progress_begin(&progress, "reading", trace_size(reader) * (once ? 1 : 2), request->options);
	code = summary_make(summary, reader, request->file, &progress, request->options);
	if (code == TOOL_OK)
		code = file_check(request, summary);
	if (code == TOOL_OK) {
		uint64_t end = trace_position(reader);

		code = result_give(request, summary, reader, fd, &progress);
		if (summary->cut)
			tool_error(request->options,
				   "%s: it ends inside of the record at offset "
				   "%" PRIu64 ", and was read up to there (was mkwrite run "
				   "killed, or is it still running?)",
				   request->path, end);
	}
	summary_free(summary);
	free(summary);
	return code;
}

int trace_main(int argc, char **argv, const struct tool_options *options)
{
	struct request request = {.options = options};
	const struct option_spec specs[] = {
		{"file", OPTION_TEXT, &request.file},
		{"csv", OPTION_FLAG, &request.csv},
		{"svg", OPTION_TEXT, &request.svg},
		{"by", OPTION_TEXT, &request.by},
		{NULL, OPTION_FLAG, NULL},
	};
	struct trace_reader *reader;
	int code = options_take(&argc, argv, specs, options), fd;

	if (code == 0)
		code = request_check(&request);
	if (code != 0)
		return code;
	if (argc != 2)
		return tool_usage(options, "one FILE is needed");
	request.path = argv[1];
	fd = open(request.path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return tool_errno(options, request.path);
	if (trace_open(fd, request.path, &reader) != 0) {
		tool_error(options, "%s", reader ? trace_error(reader) : "no memory");
		code = TOOL_FAILED;
	} else {
		code = trace_tell(&request, reader, fd);
	}
	trace_reader_free(reader);
	close(fd);
	return code;
}
