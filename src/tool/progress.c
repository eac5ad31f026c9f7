/* SPDX-License-Identifier: MIT */
/*
 * progress.c - one line on a terminal that tells how far a long work is. Nothing is shown in the
 * first half second, nor when stderr is no terminal.
 */
#include "tool.h"

#define PROGRESS_INTERVAL_NS 200000000u
#define PROGRESS_DELAY_NS    500000000u

void progress_begin(struct progress *progress, const char *what, uint64_t total_bytes,
		    const struct tool_options *options)
{
	*progress = (struct progress){
		.options = options,
		.what = what,
		.total_bytes = total_bytes,
		.start_ns = tool_now_ns(),
	};
}

void progress_show(struct progress *progress, uint64_t done_bytes)
{
	uint64_t now_ns, percent;

	if (!progress->options->progress)
		return;
	now_ns = tool_now_ns();
	if (now_ns - progress->start_ns < PROGRESS_DELAY_NS ||
	    now_ns - progress->shown_ns < PROGRESS_INTERVAL_NS)
		return;
	percent = progress->total_bytes
			  ? (uint64_t)((double)done_bytes * 100.0 / (double)progress->total_bytes)
			  : 100;
	fprintf(stderr, "\r\033[Kmkwrite %s: %s %3u%%, %s of %s, %s", progress->options->verb,
		progress->what, (unsigned)percent, text_size(done_bytes).s,
		text_size(progress->total_bytes).s,
		text_rate(done_bytes, now_ns - progress->start_ns).s);
	fflush(stderr);
	progress->shown_ns = now_ns;
	progress->shown = true;
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->shown = false;
}
