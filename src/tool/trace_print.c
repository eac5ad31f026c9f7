/* SPDX-License-Identifier: MIT */
/*
 * trace_print.c - the summary of a trace, for people.
 */
#include "trace_summary.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define FILES_MAX     16u
#define FUNCTIONS_MAX 10u
#define PROCESSES_MAX 20u
#define COMMAND_MAX   100
#define THREADS_MAX   8u /* of a process */

static void percent_print(FILE *out, uint64_t part, uint64_t whole)
{
	fprintf(out, "%.0f%%", whole ? 100.0 * (double)part / (double)whole : 0.0);
}

static void end_print(const struct summary *summary, FILE *out)
{
	int status = (int)summary->status;

	if (!summary->ended)
		fprintf(out, "; the end is not in the trace");
	else if (WIFSIGNALED(status))
		fprintf(out, "; ended by signal %d (%s)", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	else
		fprintf(out, "; exit status %d", WEXITSTATUS(status));
}

static void head_print(const struct summary *summary, FILE *out)
{
	const struct doings *doings = &summary->doings;
	time_t seconds = (time_t)(summary->wall_ns / 1000000000u);
	char date[64] = "";
	struct tm tm;

	if (localtime_r(&seconds, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S %z", &tm);
	fprintf(out, "%s, %s", date, text_duration(summary->last_ns).s);
	end_print(summary, out);
	fprintf(out, "\n%s first write%s of %s, %s sync%s, %zu file%s\n",
		text_count(doings->writes).s, text_plural(doings->writes),
		text_size(doings->bytes).s, text_count(doings->syncs).s, text_plural(doings->syncs),
		summary->file_count, text_plural(summary->file_count));
	if (summary->lost > 0)
		fprintf(out,
			"%s events are missing: they came too fast, or there was no room "
			"for the trace\n",
			text_count(summary->lost).s);
}

/* ---- Files --------------------------------------------------------------------------------- */

static void writes_print(const struct summary_file *file, FILE *out)
{
	const struct doings *doings = &file->doings;

	fprintf(out, "  %-18s %s, %s; ", "first writes", text_count(doings->writes).s,
		text_size(doings->bytes).s);
	percent_print(out, file->sequential, doings->writes);
	fprintf(out, " sequential; %s by system calls\n",
		text_count(doings->writes - file->by_access).s);
	fprintf(out, "  %-18s %" PRIu64 " to %" PRIu64 " (%s from %s on)\n", "offsets", file->first,
		file->end, text_size(file->end - file->first).s, text_size(file->first).s);
	fprintf(out, "  %-18s first at %s, last at %s", "when", text_duration(file->first_ns).s,
		text_duration(file->last_ns).s);
	if (doings->writes > 1)
		fprintf(out, "; longest pause %s, at %s", text_duration(file->pause_ns).s,
			text_duration(file->pause_start_ns).s);
	fputc('\n', out);
}

static void file_print(const struct summary_file *file, FILE *out)
{
	fputc('\n', out);
	text_print(out, file->path[0] ? file->path : "(no name)");
	if (file->size_bytes > 0)
		fprintf(out, " (%s)", text_size(file->size_bytes).s);
	fputc('\n', out);
	if (file->doings.writes > 0)
		writes_print(file, out);
	fprintf(out, "  %-18s %s", "syncs", text_count(file->doings.syncs).s);
	if (file->between_syncs.total > 0)
		fprintf(out, "; first writes between them: median %s, at most %s",
			text_count(distribution_median(&file->between_syncs)).s,
			text_count(distribution_max(&file->between_syncs)).s);
	fputc('\n', out);
}

/* ---- Callers, processes, threads ----------------------------------------------------------- */

static void doings_print(const struct doings *doings, const char *name, int indent, FILE *out)
{
	fprintf(out, "%*s%12s %12s %8s  ", indent, "", text_count(doings->writes).s,
		text_size(doings->bytes).s, text_count(doings->syncs).s);
	text_print(out, name);
	fputc('\n', out);
}

static void functions_print(const struct summary *summary, FILE *out)
{
	uint32_t *order = summary_functions(summary);
	size_t count = summary->actors.function_count, shown = 0;

	if (!order)
		return;
	fprintf(out, "\n%14s %12s %8s  callers\n", "first writes", "bytes", "syncs");
	for (; shown < count && shown < FUNCTIONS_MAX; shown++) {
		const struct actor_function *function = &summary->actors.functions[order[shown]];
		char text[ACTOR_TEXT_MAX];

		if (function->doings.writes + function->doings.syncs == 0)
			break;
		actors_function_text(&summary->actors, order[shown], text, sizeof(text));
		doings_print(&function->doings, text, 2, out);
	}
	if (shown == FUNCTIONS_MAX && count > shown)
		fprintf(out, "%*s%zu others\n", 38, "", count - shown);
	free(order);
}

/* The threads of a process, if they are more than one. */
static void threads_print(const struct actors *actors, uint32_t process, FILE *out)
{
	size_t count = 0;

	for (size_t i = 0; i < actors->thread_count; i++)
		count += actors->threads[i].process == process;
	if (count < 2)
		return;
	for (size_t i = 0, shown = 0; i < actors->thread_count; i++) {
		const struct actor_thread *thread = &actors->threads[i];
		char text[64];

		if (thread->process != process)
			continue;
		if (shown++ == THREADS_MAX) {
			fprintf(out, "%*s  and %zu threads more\n", 38, "", count - THREADS_MAX);
			return;
		}
		snprintf(text, sizeof(text), "  thread %" PRIu64, thread->tid);
		doings_print(&thread->doings, text, 2, out);
	}
}

static void processes_print(const struct summary *summary, FILE *out)
{
	const struct actors *actors = &summary->actors;
	size_t shown = 0, left = 0;

	if (actors->process_count == 0)
		return;
	fprintf(out, "\n%14s %12s %8s  processes and threads\n", "first writes", "bytes", "syncs");
	for (uint32_t i = 0; i < actors->process_count; i++) {
		const struct actor_process *process = &actors->processes[i];
		char text[COMMAND_MAX + 32];

		if (process->doings.writes + process->doings.syncs == 0)
			continue;
		if (shown++ >= PROCESSES_MAX) {
			left++;
			continue;
		}
		snprintf(text, sizeof(text), "%" PRIu64 " %.*s%s", process->pid, COMMAND_MAX,
			 process->command, strlen(process->command) > COMMAND_MAX ? "..." : "");
		doings_print(&process->doings, text, 2, out);
		threads_print(actors, i, out);
	}
	if (left > 0)
		fprintf(out, "%*sand %zu processes more\n", 38, "", left);
}

void summary_print(const struct summary *summary, FILE *out)
{
	uint32_t *order = summary_files(summary);
	size_t shown = 0, left = 0;

	head_print(summary, out);
	for (size_t i = 0; order && i < summary->file_count; i++) {
		const struct summary_file *file = &summary->files[order[i]];

		if (!file->wanted)
			continue;
		if (shown++ < FILES_MAX)
			file_print(file, out);
		else
			left++;
	}
	if (left > 0)
		fprintf(out, "\nand %zu file%s more (--file=NAME tells of one)\n", left,
			text_plural(left));
	free(order);
	functions_print(summary, out);
	processes_print(summary, out);
}
