/* SPDX-License-Identifier: MIT */
/*
 * trace_modules.c - a cache of /proc/PID/maps: for each of the processes seen last, its executable
 * ranges.
 *
 * A process whose callers are nowhere to be found (it makes code faster than it can be looked up)
 * must not keep the reader from its events: where a reading was in vain there is none for twenty
 * times what it took.
 */
#include "trace_modules.h"

#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PROCESSES_MAX 256u
#define PAUSE_FACTOR  20u

struct process {
	int32_t pid; /* 0: a free entry */
	uint64_t used;
	uint64_t read_again_ns;	     /* not before */
	struct trace_module *ranges; /* ascending */
	size_t count, capacity;
};

struct trace_modules {
	uint64_t clock; /* of uses */
	struct process processes[PROCESSES_MAX];
};

struct trace_modules *trace_modules_create(void)
{
	return calloc(1, sizeof(struct trace_modules));
}

static void process_free(struct process *process)
{
	for (size_t i = 0; i < process->count; i++)
		free(process->ranges[i].path);
	free(process->ranges);
	*process = (struct process){0};
}

void trace_modules_destroy(struct trace_modules *modules)
{
	for (size_t i = 0; i < PROCESSES_MAX; i++)
		process_free(&modules->processes[i]);
	free(modules);
}

static struct process *process_get(struct trace_modules *modules, int32_t pid)
{
	for (size_t i = 0; i < PROCESSES_MAX; i++)
		if (modules->processes[i].pid == pid)
			return &modules->processes[i];
	return NULL;
}

/* An entry for pid; the one unused for longest gives way. */
static struct process *process_make(struct trace_modules *modules, int32_t pid)
{
	struct process *oldest = &modules->processes[0];

	for (size_t i = 0; i < PROCESSES_MAX; i++)
		if (modules->processes[i].used < oldest->used)
			oldest = &modules->processes[i];
	process_free(oldest);
	oldest->pid = pid;
	return oldest;
}

/* No memory: the range is not known. */
static void range_add(struct process *process, const struct trace_module *range, const char *path)
{
	if (process->count == process->capacity) {
		size_t capacity = process->capacity ? 2 * process->capacity : 32;
		struct trace_module *ranges =
			reallocarray(process->ranges, capacity, sizeof(*ranges));

		if (!ranges)
			return;
		process->ranges = ranges;
		process->capacity = capacity;
	}
	process->ranges[process->count] = *range;
	process->ranges[process->count].path = strdup(path);
	if (process->ranges[process->count].path)
		process->count++;
}

/* What was told of stays so: nobody needs to hear it twice. */
static void told_keep(struct process *process, const struct process *before)
{
	size_t old = 0;

	for (size_t i = 0; i < process->count; i++) {
		struct trace_module *range = &process->ranges[i];

		while (old < before->count && before->ranges[old].start < range->start)
			old++;
		range->told = old < before->count && before->ranges[old].told &&
			      before->ranges[old].start == range->start &&
			      before->ranges[old].end == range->end &&
			      before->ranges[old].offset == range->offset &&
			      strcmp(before->ranges[old].path, range->path) == 0;
	}
}

/* One line: "55d0-55f0 r-xp 00012000 fe:01 1234    /usr/bin/program". */
static void line_take(struct process *process, char *line)
{
	struct trace_module range = {0};
	char permissions[8];
	int path = 0;

	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %*s %n", &range.start,
		   &range.end, permissions, &range.offset, &path) == 4 &&
	    path > 0 && permissions[2] == 'x')
		range_add(process, &range, line + path);
}

static void maps_read(struct process *process)
{
	struct process before = *process;
	char *line = NULL;
	size_t size = 0;
	char path[32];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%" PRId32 "/maps", process->pid);
	maps = fopen(path, "re");
	if (maps) {
		process->ranges = NULL;
		process->count = process->capacity = 0;
		while (getline(&line, &size, maps) > 0)
			line_take(process, line);
		free(line);
		fclose(maps);
		/* Of a process that has just ended the list is empty; what was known is better. */
		if (process->count == 0) {
			free(process->ranges);
			*process = before;
		} else {
			told_keep(process, &before);
			process_free(&before);
		}
	}
}

static struct trace_module *range_find(struct process *process, uint64_t address)
{
	size_t low = 0, high = process->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (process->ranges[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < process->count && process->ranges[low].start <= address ? &process->ranges[low]
									     : NULL;
}

/* Look for what was not there before. */
static struct trace_module *range_look(struct process *process, uint64_t address)
{
	uint64_t start_ns = tool_now_ns(), end_ns;
	struct trace_module *range;

	if (start_ns < process->read_again_ns)
		return NULL;
	maps_read(process);
	range = range_find(process, address);
	end_ns = tool_now_ns();
	if (!range)
		process->read_again_ns = end_ns + PAUSE_FACTOR * (end_ns - start_ns);
	return range;
}

struct trace_module *trace_modules_find(struct trace_modules *modules, int32_t pid,
					uint64_t address)
{
	struct process *process = process_get(modules, pid);
	struct trace_module *range;

	if (!process)
		process = process_make(modules, pid);
	process->used = ++modules->clock;
	range = range_find(process, address);
	return range ? range : range_look(process, address);
}

void trace_modules_learn(struct trace_modules *modules, int32_t pid)
{
	struct process *process;

	trace_modules_forget(modules, pid);
	process = process_make(modules, pid);
	process->used = ++modules->clock;
	maps_read(process);
}

void trace_modules_forget(struct trace_modules *modules, int32_t pid)
{
	struct process *process = process_get(modules, pid);

	if (process)
		process_free(process);
}

void trace_modules_fork(struct trace_modules *modules, int32_t parent, int32_t child)
{
	const struct process *from;
	struct process *to;

	trace_modules_forget(modules, child);
	if (!process_get(modules, parent))
		return;
	to = process_make(modules, child);
	to->used = ++modules->clock;
	from = process_get(modules, parent); /* it may have been the one to give way */
	for (size_t i = 0; from && i < from->count; i++)
		range_add(to, &from->ranges[i], from->ranges[i].path);
}
