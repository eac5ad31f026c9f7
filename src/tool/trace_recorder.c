/* SPDX-License-Identifier: MIT */
/*
 * trace_recorder.c - events of a run become records, each preceded by those that it needs: its file
 * and the module of its caller.
 */
#include "trace_recorder.h"

#include "tool.h"
#include "trace_file.h"
#include "trace_modules.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct trace_recorder {
	struct trace_writer *writer;
	struct trace_modules *modules;
	bool file_told[RUN_FILES];
};

int trace_recorder_create(const char *path, struct trace_recorder **recorder_out)
{
	struct trace_recorder *recorder = calloc(1, sizeof(*recorder));
	struct timespec wall;
	int error = -ENOMEM;

	if (!recorder)
		return -ENOMEM;
	recorder->modules = trace_modules_create();
	if (recorder->modules) {
		clock_gettime(CLOCK_REALTIME, &wall);
		error = trace_create(path, tool_now_ns(),
				     (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec,
				     &recorder->writer);
	}
	if (error != 0) {
		if (recorder->modules)
			trace_modules_destroy(recorder->modules);
		free(recorder);
		return error;
	}
	*recorder_out = recorder;
	return 0;
}

/* ---- What an event needs ------------------------------------------------------------------- */

/* The number for the trace of a file of the run. */
static uint64_t file_tell(struct trace_recorder *recorder, const struct run_control *control,
			  uint16_t number)
{
	const struct run_file *file;
	struct trace_record record;
	char path[sizeof(file->path)];
	struct stat st;

	if (!run_file_is_there(control, number))
		return TRACE_NO_FILE;
	if (recorder->file_told[number])
		return number;
	recorder->file_told[number] = true;
	file = &control->files[number];
	/* The program can write there: nothing promises a NUL. */
	memcpy(path, file->path, sizeof(path));
	path[sizeof(path) - 1] = '\0';
	record = (struct trace_record){
		.kind = TRACE_FILE,
		.file = number,
		.dev = file->dev,
		.ino = file->ino,
		.text = path,
		.text_length = strlen(path),
	};
	if (stat(path, &st) == 0 && st.st_dev == file->dev && st.st_ino == file->ino)
		record.size_bytes = (uint64_t)st.st_size;
	trace_add(recorder->writer, &record);
	return number;
}

static void module_tell(struct trace_recorder *recorder, int32_t pid, uint64_t caller)
{
	struct trace_module *module = trace_modules_find(recorder->modules, pid, caller);
	struct trace_record record;
	struct stat st;

	if (!module || module->told || module->offset > INT64_MAX)
		return;
	module->told = true;
	record = (struct trace_record){
		.kind = TRACE_MODULE,
		.pid = (uint64_t)pid,
		.start = module->start,
		.end = module->end,
		.offset = module->offset,
		.text = module->path,
		.text_length = strlen(module->path),
	};
	if (module->path[0] == '/' && stat(module->path, &st) == 0) {
		record.size_bytes = (uint64_t)st.st_size;
		record.modified_ns =
			(uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
	}
	trace_add(recorder->writer, &record);
}

/* ---- Events -------------------------------------------------------------------------------- */

static void process_take(struct trace_recorder *recorder, const struct run_event *event)
{
	char path[32], text[TRACE_TEXT_MAX];
	struct trace_record record = {
		.kind = TRACE_PROCESS,
		.time_ns = event->time_ns,
		.pid = (uint64_t)event->pid,
		.text = text,
	};
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%" PRId32 "/cmdline", event->pid);
	file = fopen(path, "re");
	if (file) {
		record.text_length = fread(text, 1, sizeof(text), file);
		fclose(file);
	}
	trace_modules_learn(recorder->modules, event->pid);
	trace_add(recorder->writer, &record);
}

static void fork_take(struct trace_recorder *recorder, const struct run_event *event)
{
	const struct trace_record record = {
		.kind = TRACE_FORK,
		.time_ns = event->time_ns,
		.pid = (uint64_t)event->pid,
		.parent = event->offset,
	};

	if (event->offset > INT32_MAX)
		return;
	trace_modules_fork(recorder->modules, (int32_t)event->offset, event->pid);
	trace_add(recorder->writer, &record);
}

/* A write or a sync. What cannot be so, as only a program gone wild writes it into the area, would
 * make the file unreadable. */
static void range_take(struct trace_recorder *recorder, const struct run_control *control,
		       const struct run_event *event, enum trace_kind kind)
{
	struct trace_record record = {
		.kind = kind,
		.time_ns = event->time_ns,
		.pid = (uint64_t)event->pid,
		.tid = (uint64_t)event->tid,
		.offset = event->offset,
		.length = event->length,
		.caller = event->caller,
	};

	if (event->offset > INT64_MAX || event->length > INT64_MAX - event->offset ||
	    (event->length == 0 && kind != TRACE_SYNC))
		return;
	record.file = file_tell(recorder, control, event->file);
	if (event->caller != 0)
		module_tell(recorder, event->pid, event->caller);
	trace_add(recorder->writer, &record);
}

void trace_recorder_take(struct trace_recorder *recorder, const struct run_control *control,
			 const struct run_event *event)
{
	if (event->pid <= 0 || event->tid <= 0 || event->time_ns > INT64_MAX / 2)
		return;
	switch (event->kind) {
	case RUN_EVENT_WRITE:
		range_take(recorder, control, event, TRACE_WRITE);
		break;
	case RUN_EVENT_CALL:
		range_take(recorder, control, event, TRACE_CALL);
		break;
	case RUN_EVENT_SYNC:
		range_take(recorder, control, event, TRACE_SYNC);
		break;
	case RUN_EVENT_PROCESS:
		process_take(recorder, event);
		break;
	case RUN_EVENT_FORKED:
		fork_take(recorder, event);
		break;
	default:
		break;
	}
}

int trace_recorder_flush(struct trace_recorder *recorder)
{
	return trace_flush(recorder->writer);
}

int trace_recorder_close(struct trace_recorder *recorder, int wait_status, uint64_t lost)
{
	const struct trace_record missing = {.kind = TRACE_LOST, .number = lost};
	const struct trace_record end = {
		.kind = TRACE_END,
		.time_ns = tool_now_ns(),
		.number = (uint32_t)wait_status,
	};
	int error;

	if (lost > 0)
		trace_add(recorder->writer, &missing);
	trace_add(recorder->writer, &end);
	error = trace_close(recorder->writer);
	trace_modules_destroy(recorder->modules);
	free(recorder);
	return error;
}
