/* SPDX-License-Identifier: MIT */
/*
 * trace_json.c - all of a trace for programs: as JSON, with the summary; or its events as CSV.
 */
#include "trace_summary.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

struct output {
	FILE *out;
	struct json json;
	const struct summary *summary;
};

static void doings_json(struct json *json, const struct doings *doings)
{
	json_number(json, "first_writes", doings->writes);
	json_number(json, "bytes", doings->bytes);
	json_number(json, "syncs", doings->syncs);
}

static void file_json(struct json *json, const struct summary_file *file)
{
	json_object(json, NULL);
	json_number(json, "number", file->number);
	json_text(json, "path", file->path);
	json_number(json, "dev", file->dev);
	json_number(json, "ino", file->ino);
	json_number(json, "size_bytes", file->size_bytes);
	doings_json(json, &file->doings);
	json_number(json, "by_access", file->by_access);
	json_number(json, "by_call", file->doings.writes - file->by_access);
	json_number(json, "sequential", file->sequential);
	json_number(json, "first_offset", file->first);
	json_number(json, "end_offset", file->end);
	json_number(json, "first_ns", file->first_ns);
	json_number(json, "last_ns", file->last_ns);
	json_number(json, "longest_pause_ns", file->pause_ns);
	json_number(json, "longest_pause_start_ns", file->pause_start_ns);
	if (file->between_syncs.total > 0) {
		json_object(json, "first_writes_between_syncs");
		json_number(json, "median", distribution_median(&file->between_syncs));
		json_number(json, "max", distribution_max(&file->between_syncs));
		json_end(json);
	} else {
		json_null(json, "first_writes_between_syncs");
	}
	json_end(json);
}

static void files_json(struct json *json, const struct summary *summary)
{
	json_array(json, "files");
	for (size_t i = 0; i < summary->file_count; i++)
		if (summary->files[i].wanted)
			file_json(json, &summary->files[i]);
	json_end(json);
}

static void actors_json(struct json *json, const struct summary *summary)
{
	const struct actors *actors = &summary->actors;

	json_array(json, "processes");
	for (size_t i = 0; i < actors->process_count; i++) {
		json_object(json, NULL);
		json_number(json, "number", i);
		json_number(json, "pid", actors->processes[i].pid);
		if (actors->processes[i].parent > 0)
			json_number(json, "parent", actors->processes[i].parent);
		else
			json_null(json, "parent");
		json_text(json, "command", actors->processes[i].command);
		doings_json(json, &actors->processes[i].doings);
		json_end(json);
	}
	json_end(json);
	json_array(json, "threads");
	for (size_t i = 0; i < actors->thread_count; i++) {
		json_object(json, NULL);
		json_number(json, "process", actors->threads[i].process);
		json_number(json, "tid", actors->threads[i].tid);
		doings_json(json, &actors->threads[i].doings);
		json_end(json);
	}
	json_end(json);
}

static void functions_json(struct json *json, const struct summary *summary)
{
	const struct actors *actors = &summary->actors;
	uint32_t *order = summary_functions(summary);

	json_array(json, "callers");
	for (size_t i = 0; order && i < actors->function_count; i++) {
		const struct actor_function *function = &actors->functions[order[i]];
		char text[ACTOR_TEXT_MAX];

		actors_function_text(actors, order[i], text, sizeof(text));
		json_object(json, NULL);
		json_text(json, "caller", text);
		if (function->name)
			json_text(json, "function", function->name);
		else
			json_null(json, "function");
		if (function->module != NO_MODULE)
			json_text(json, "module", actors->modules[function->module].path);
		else
			json_null(json, "module");
		doings_json(json, &function->doings);
		json_end(json);
	}
	json_end(json);
	free(order);
}

static void head_json(struct json *json, const struct summary *summary)
{
	int status = (int)summary->status;

	json_number(json, "start_unix_ns", summary->wall_ns);
	json_number(json, "duration_ns", summary->last_ns);
	json_flag(json, "cut", summary->cut);
	json_number(json, "events_missing", summary->lost);
	if (summary->ended && WIFEXITED(status))
		json_number(json, "exit_status", (uint64_t)WEXITSTATUS(status));
	else
		json_null(json, "exit_status");
	if (summary->ended && WIFSIGNALED(status))
		json_number(json, "signal", (uint64_t)WTERMSIG(status));
	else
		json_null(json, "signal");
	doings_json(json, &summary->doings);
}

static void event_json(void *arg, const struct trace_record *record,
		       const struct summary_file *file, const struct deed *deed)
{
	struct output *output = arg;
	struct json *json = &output->json;
	char text[ACTOR_TEXT_MAX];

	json_object(json, NULL);
	json_number(json, "time_ns", record->time_ns);
	json_text(json, "kind", summary_kind(record->kind));
	json_number(json, "pid", record->pid);
	json_number(json, "tid", record->tid);
	json_number(json, "process", deed->process);
	json_number(json, "file", file->number);
	json_number(json, "offset", record->offset);
	json_number(json, "length", record->length);
	actors_caller_text(&output->summary->actors, deed->caller, text, sizeof(text));
	if (text[0])
		json_text(json, "caller", text);
	else
		json_null(json, "caller");
	json_end(json);
}

int summary_json(struct summary *summary, struct trace_reader *reader, FILE *out,
		 struct progress *progress, const struct tool_options *options)
{
	struct output output = {.out = out, .summary = summary};
	int code;

	json_begin(&output.json, out);
	json_object(&output.json, NULL);
	head_json(&output.json, summary);
	files_json(&output.json, summary);
	actors_json(&output.json, summary);
	functions_json(&output.json, summary);
	json_array(&output.json, "events");
	code = summary_walk(summary, reader, event_json, &output, progress, options);
	json_end(&output.json);
	json_end(&output.json);
	return code;
}

/* ---- CSV ----------------------------------------------------------------------------------- */

/* As RFC 4180 has it. */
static void field_put(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"')
			fputc('"', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void event_csv(void *arg, const struct trace_record *record, const struct summary_file *file,
		      const struct deed *deed)
{
	struct output *output = arg;
	char text[ACTOR_TEXT_MAX];
	FILE *out = output->out;

	fprintf(out, "%" PRIu64 ".%09" PRIu64 ",%s,%" PRIu64 ",%" PRIu64 ",",
		record->time_ns / 1000000000u, record->time_ns % 1000000000u,
		summary_kind(record->kind), record->pid, record->tid);
	field_put(out, file->path);
	fprintf(out, ",%" PRIu64 ",%" PRIu64 ",", record->offset, record->length);
	actors_caller_text(&output->summary->actors, deed->caller, text, sizeof(text));
	field_put(out, text);
	fputs("\r\n", out);
}

int summary_csv(struct summary *summary, struct trace_reader *reader, FILE *out,
		struct progress *progress, const struct tool_options *options)
{
	struct output output = {.out = out, .summary = summary};

	fputs("time_s,kind,pid,tid,file,offset,length,caller\r\n", out);
	return summary_walk(summary, reader, event_csv, &output, progress, options);
}
