/* SPDX-License-Identifier: MIT */
/*
 * trace_summary.c - one pass over a trace, and what it adds up to.
 */
#include "trace_summary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_EVERY 4096u

/* ---- Distributions ------------------------------------------------------------------------- */

static int distribution_add(struct distribution *d, uint64_t value)
{
	size_t low = 0, high = d->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (d->values[middle].value < value)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == d->count || d->values[low].value != value) {
		if (!array_grow(&d->values, d->count, &d->capacity, sizeof(*d->values)))
			return -ENOMEM;
		memmove(d->values + low + 1, d->values + low,
			(d->count - low) * sizeof(*d->values));
		d->values[low].value = value;
		d->values[low].times = 0;
		d->count++;
	}
	d->values[low].times++;
	d->total++;
	return 0;
}

uint64_t distribution_median(const struct distribution *d)
{
	uint64_t seen = 0;

	for (size_t i = 0; i < d->count; i++) {
		seen += d->values[i].times;
		if (2 * seen >= d->total)
			return d->values[i].value;
	}
	return 0;
}

uint64_t distribution_max(const struct distribution *d)
{
	return d->count ? d->values[d->count - 1].value : 0;
}

/* ---- Files --------------------------------------------------------------------------------- */

static bool file_wanted(const char *path, const char *name)
{
	size_t path_length = strlen(path), length;

	if (!name || strcmp(path, name) == 0)
		return true;
	length = strlen(name);
	return length > 0 && path_length > length && path[path_length - length - 1] == '/' &&
	       strcmp(path + path_length - length, name) == 0;
}

static int file_add(struct summary *summary, const struct trace_record *record, const char *path,
		    const char *name)
{
	struct summary_file *file;

	if (!array_grow(&summary->files, summary->file_count, &summary->file_capacity,
			sizeof(*summary->files)))
		return -ENOMEM;
	file = &summary->files[summary->file_count];
	*file = (struct summary_file){
		.number = (uint32_t)record->file,
		.path = strdup(path),
		.dev = record->dev,
		.ino = record->ino,
		.size_bytes = record->size_bytes,
		.wanted = file_wanted(path, name),
		.last_end = UINT64_MAX,
	};
	if (!file->path)
		return -ENOMEM;
	summary->numbers[record->file] = (uint32_t)++summary->file_count;
	return 0;
}

/* It begins where the one before ended, of this file or of this thread. */
static bool follows(const struct summary_file *file, const struct actor_thread *thread,
		    const struct trace_record *record)
{
	return record->offset == file->last_end ||
	       (thread->file == file->number && record->offset == thread->end);
}

static void write_take(struct summary *summary, struct summary_file *file,
		       const struct trace_record *record, const struct deed *deed)
{
	struct actor_thread *thread = &summary->actors.threads[deed->thread];
	uint64_t end = record->offset + record->length;

	if (file->doings.writes == 0) {
		file->first_ns = file->last_ns = record->time_ns;
		file->first = record->offset;
	}
	if (record->offset < file->first)
		file->first = record->offset;
	if (end > file->end)
		file->end = end;
	/* Events of two threads may have changed places. */
	if (record->time_ns > file->last_ns) {
		if (record->time_ns - file->last_ns > file->pause_ns) {
			file->pause_ns = record->time_ns - file->last_ns;
			file->pause_start_ns = file->last_ns;
		}
		file->last_ns = record->time_ns;
	}
	file->sequential += file->doings.writes > 0 && follows(file, thread, record);
	file->by_access += record->kind == TRACE_WRITE;
	file->last_end = thread->end = end;
	thread->file = file->number;
	file->since_sync++;
}

static int event_take(struct summary *summary, const struct trace_record *record,
		      const struct deed *deed)
{
	struct actors *actors = &summary->actors;
	struct summary_file *file = &summary->files[summary->numbers[record->file] - 1];
	int error = 0;

	if (!file->wanted)
		return 0;
	if (record->kind == TRACE_SYNC) {
		error = distribution_add(&file->between_syncs, file->since_sync);
		file->since_sync = 0;
	} else {
		write_take(summary, file, record, deed);
	}
	if (record->time_ns > summary->events_end_ns)
		summary->events_end_ns = record->time_ns;
	doings_add(&file->doings, record);
	doings_add(&summary->doings, record);
	doings_add(&actors->processes[deed->process].doings, record);
	doings_add(&actors->threads[deed->thread].doings, record);
	if (deed->caller != UINT32_MAX)
		doings_add(&actors->callers[deed->caller].doings, record);
	return error;
}

/* ---- The passes ---------------------------------------------------------------------------- */

static int record_take(struct summary *summary, const struct trace_record *record, const char *name)
{
	static const char unnamed[] = "(files past the first 1024)";
	struct deed deed;
	int error = actors_take(&summary->actors, record, &deed);

	if (error != 0)
		return error;
	if (record->time_ns > summary->last_ns)
		summary->last_ns = record->time_ns;
	switch (record->kind) {
	case TRACE_FILE:
		return file_add(summary, record, record->text, name);
	case TRACE_WRITE:
	case TRACE_CALL:
	case TRACE_SYNC:
		if (summary->numbers[record->file] == 0)
			error = file_add(summary, &(struct trace_record){.file = record->file},
					 unnamed, name);
		return error ? error : event_take(summary, record, &deed);
	case TRACE_LOST:
		summary->lost += record->number;
		return 0;
	case TRACE_END:
		summary->ended = true;
		summary->status = (uint32_t)record->number;
		return 0;
	default:
		return 0;
	}
}

static bool is_event(const struct trace_record *record)
{
	return record->kind == TRACE_WRITE || record->kind == TRACE_CALL ||
	       record->kind == TRACE_SYNC;
}

/* One that cannot be read, or no memory. */
static int pass_failed(struct trace_reader *reader, int error, struct progress *progress,
		       const struct tool_options *options)
{
	progress_end(progress);
	if (error == -ENOMEM)
		tool_error(options, "no memory");
	else
		tool_error(options, "%s", trace_error(reader));
	return TOOL_FAILED;
}

int summary_make(struct summary *summary, struct trace_reader *reader, const char *name,
		 struct progress *progress, const struct tool_options *options)
{
	struct trace_record record;
	uint64_t count = 0;
	int result;

	summary->wall_ns = trace_wall_ns(reader);
	while ((result = trace_next(reader, &record)) > 0) {
		result = record_take(summary, &record, name);
		if (result != 0)
			break;
		if (++count % PROGRESS_EVERY == 0)
			progress_show(progress, trace_position(reader));
	}
	if (result == 0) {
		summary->cut = trace_is_cut(reader);
		result = actors_name(&summary->actors);
	}
	return result == 0 ? 0 : pass_failed(reader, result, progress, options);
}

int summary_walk(struct summary *summary, struct trace_reader *reader, summary_event *event,
		 void *arg, struct progress *progress, const struct tool_options *options)
{
	struct trace_record record;
	struct deed deed;
	uint64_t count = 0;
	int result;

	trace_rewind(reader);
	actors_rewind(&summary->actors);
	while ((result = trace_next(reader, &record)) > 0) {
		uint32_t place = summary->numbers[record.file];

		result = actors_take(&summary->actors, &record, &deed);
		if (result != 0)
			break;
		if (++count % PROGRESS_EVERY == 0)
			progress_show(progress, trace_size(reader) + trace_position(reader));
		/* place is 0 if somebody changed the trace since the first pass. */
		if (is_event(&record) && place > 0 && summary->files[place - 1].wanted)
			event(arg, &record, &summary->files[place - 1], &deed);
	}
	return result == 0 ? 0 : pass_failed(reader, result, progress, options);
}

void summary_free(struct summary *summary)
{
	for (size_t i = 0; i < summary->file_count; i++) {
		free(summary->files[i].path);
		free(summary->files[i].between_syncs.values);
	}
	free(summary->files);
	actors_free(&summary->actors);
}

/* ---- Orders -------------------------------------------------------------------------------- */

struct ranked {
	uint32_t number;
	struct doings doings;
};

static int most_first(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->doings.bytes != y->doings.bytes)
		return x->doings.bytes > y->doings.bytes ? -1 : 1;
	if (x->doings.syncs != y->doings.syncs)
		return x->doings.syncs > y->doings.syncs ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* doings: of the first of count entries of entry_bytes each. */
static uint32_t *ranking(const struct doings *doings, size_t count, size_t entry_bytes)
{
	struct ranked *ranked = calloc(count, sizeof(*ranked));
	uint32_t *numbers = calloc(count, sizeof(*numbers));

	if (!ranked || !numbers) {
		free(ranked);
		free(numbers);
		return NULL;
	}
	for (size_t i = 0; i < count; i++) {
		ranked[i].number = (uint32_t)i;
		memcpy(&ranked[i].doings, (const char *)doings + i * entry_bytes, sizeof(*doings));
	}
	qsort(ranked, count, sizeof(*ranked), most_first);
	for (size_t i = 0; i < count; i++)
		numbers[i] = ranked[i].number;
	free(ranked);
	return numbers;
}

uint32_t *summary_functions(const struct summary *summary)
{
	size_t count = summary->actors.function_count;

	return count ? ranking(&summary->actors.functions->doings, count,
			       sizeof(struct actor_function))
		     : NULL;
}

uint32_t *summary_threads(const struct summary *summary)
{
	size_t count = summary->actors.thread_count;

	return count ? ranking(&summary->actors.threads->doings, count, sizeof(struct actor_thread))
		     : NULL;
}

uint32_t *summary_files(const struct summary *summary)
{
	size_t count = summary->file_count;

	return count ? ranking(&summary->files->doings, count, sizeof(struct summary_file)) : NULL;
}

const char *summary_kind(enum trace_kind kind)
{
	switch (kind) {
	case TRACE_WRITE:
		return "write";
	case TRACE_CALL:
		return "call";
	default:
		return "sync";
	}
}
