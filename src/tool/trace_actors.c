/* SPDX-License-Identifier: MIT */
/*
 * trace_actors.c - processes, threads and callers of a trace.
 *
 * The modules of a process are a list that is only added to at its head; so a fork's child begins
 * with its parent's list, without a copy, and what is found first is what was mapped last.
 */
#include "trace_actors.h"

#include "trace_symbols.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODULES_MAX 4096u /* different ones; and in one process */
#define NAME_MAX_   200

struct mapped {
	uint64_t start, end, offset;
	uint32_t module;
	unsigned depth;
	const struct mapped *older;
	struct mapped *made_before;
};

void doings_add(struct doings *doings, const struct trace_record *record)
{
	if (record->kind == TRACE_SYNC) {
		doings->syncs++;
	} else {
		doings->writes++;
		doings->bytes += record->length;
	}
}

/* ---- Processes ----------------------------------------------------------------------------- */

/* argv as a line; in it what is no argument by itself stands in quotes. */
static char *command_make(const struct trace_record *record)
{
	char *command = malloc(4 * record->text_length + 1);
	size_t to = 0;

	for (size_t at = 0; command && at < record->text_length;) {
		const char *argument = record->text + at;
		size_t length = strlen(argument);
		bool quoted = length == 0 || argument[strcspn(argument, " \t\n\"'\\$&|;<>()*?")];

		if (at > 0)
			command[to++] = ' ';
		if (quoted)
			command[to++] = '\'';
		memcpy(command + to, argument, length);
		to += length;
		if (quoted)
			command[to++] = '\'';
		at += length + 1;
	}
	if (command)
		command[to] = '\0';
	return command;
}

/* The next process of this round, which an earlier round may have made. command becomes its own. */
static int process_next(struct actors *actors, uint64_t pid, uint64_t parent, char *command,
			uint32_t *number)
{
	*number = actors->process_next;
	if (*number < actors->process_count) {
		free(command);
	} else if (!command || !array_grow(&actors->processes, actors->process_count,
					   &actors->process_capacity, sizeof(*actors->processes))) {
		free(command);
		return -ENOMEM;
	} else {
		actors->processes[actors->process_count++] =
			(struct actor_process){.pid = pid, .parent = parent, .command = command};
	}
	actors->process_next++;
	return 0;
}

/* What pid is at the moment; *is_new: nothing yet. NULL: no memory. */
static struct running *running_get(struct actors *actors, uint64_t pid, bool *is_new)
{
	uint32_t *number;

	if (!array_grow(&actors->running, actors->running_count, &actors->running_capacity,
			sizeof(*actors->running)))
		return NULL;
	number = map_at(&actors->pids, pid, 0, actors->running_count);
	if (!number)
		return NULL;
	*is_new = *number == actors->running_count;
	if (*is_new)
		actors->running[actors->running_count++] = (struct running){0};
	return &actors->running[*number];
}

static int process_take(struct actors *actors, const struct trace_record *record)
{
	bool is_new;
	struct running *running = running_get(actors, record->pid, &is_new);
	uint64_t parent = 0;

	if (!running)
		return -ENOMEM;
	if (!is_new)
		parent = actors->processes[running->process].parent;
	running->mapped = NULL;
	return process_next(actors, record->pid, parent, command_make(record), &running->process);
}

/* The process of an event; one that was not told of is one without a command. */
static struct running *running_now(struct actors *actors, uint64_t pid)
{
	bool is_new;
	struct running *running = running_get(actors, pid, &is_new);

	if (running && is_new && process_next(actors, pid, 0, strdup(""), &running->process) != 0)
		return NULL;
	return running;
}

static int fork_take(struct actors *actors, const struct trace_record *record)
{
	struct running parent = {0}, *running;
	const char *command = "";
	bool is_new;

	if (record->parent > 0) {
		running = running_now(actors, record->parent);
		if (!running)
			return -ENOMEM;
		parent = *running;
		command = actors->processes[parent.process].command;
	}
	running = running_get(actors, record->pid, &is_new);
	if (!running)
		return -ENOMEM;
	running->mapped = parent.mapped;
	return process_next(actors, record->pid, record->parent, strdup(command),
			    &running->process);
}

/* ---- Modules ------------------------------------------------------------------------------- */

static uint32_t module_number(struct actors *actors, const struct trace_record *record)
{
	struct actor_module *module;

	for (size_t i = 0; i < actors->module_count; i++) {
		module = &actors->modules[i];
		if (module->size_bytes == record->size_bytes &&
		    module->modified_ns == record->modified_ns &&
		    strcmp(module->path, record->text) == 0)
			return (uint32_t)i;
	}
	if (actors->module_count == MODULES_MAX ||
	    !array_grow(&actors->modules, actors->module_count, &actors->module_capacity,
			sizeof(*actors->modules)))
		return NO_MODULE;
	module = &actors->modules[actors->module_count];
	*module = (struct actor_module){strdup(record->text), record->size_bytes,
					record->modified_ns};
	return module->path ? (uint32_t)actors->module_count++ : NO_MODULE;
}

/* One too many is left out: its addresses have no names. */
static int module_take(struct actors *actors, const struct trace_record *record)
{
	struct running *running = running_now(actors, record->pid);
	uint32_t number = module_number(actors, record);
	unsigned depth;
	struct mapped *mapped;

	if (!running)
		return -ENOMEM;
	depth = running->mapped ? running->mapped->depth + 1 : 1;
	if (number == NO_MODULE || depth > MODULES_MAX)
		return 0;
	mapped = malloc(sizeof(*mapped));
	if (!mapped)
		return -ENOMEM;
	*mapped = (struct mapped){record->start, record->end,	  record->offset, number,
				  depth,	 running->mapped, actors->mapped};
	running->mapped = actors->mapped = mapped;
	return 0;
}

/* ---- Events -------------------------------------------------------------------------------- */

static int thread_take(struct actors *actors, uint32_t process, uint64_t tid, uint32_t *thread)
{
	uint32_t *number =
		map_at(&actors->thread_numbers, process, tid, (uint32_t)actors->thread_count);

	if (!number || !array_grow(&actors->threads, actors->thread_count, &actors->thread_capacity,
				   sizeof(*actors->threads)))
		return -ENOMEM;
	*thread = *number;
	if (*number == actors->thread_count)
		actors->threads[actors->thread_count++] =
			(struct actor_thread){.process = process, .tid = tid, .file = UINT32_MAX};
	return 0;
}

static int caller_take(struct actors *actors, const struct running *running, uint64_t address,
		       uint32_t *caller)
{
	const struct mapped *mapped = running->mapped;
	uint32_t module = NO_MODULE, *number;
	uint64_t offset = address;

	while (mapped && (address < mapped->start || address >= mapped->end))
		mapped = mapped->older;
	if (mapped) {
		module = mapped->module;
		offset = address - mapped->start + mapped->offset;
	}
	number = map_at(&actors->caller_numbers, module, offset, (uint32_t)actors->caller_count);
	if (!number || !array_grow(&actors->callers, actors->caller_count, &actors->caller_capacity,
				   sizeof(*actors->callers)))
		return -ENOMEM;
	*caller = *number;
	if (*number == actors->caller_count)
		actors->callers[actors->caller_count++] = (struct actor_caller){
			.module = module, .offset = offset, .function = NO_FUNCTION};
	return 0;
}

static int event_take(struct actors *actors, const struct trace_record *record, struct deed *deed)
{
	struct running *running = running_now(actors, record->pid);
	int error;

	if (!running)
		return -ENOMEM;
	deed->process = running->process;
	deed->caller = UINT32_MAX;
	error = thread_take(actors, running->process, record->tid, &deed->thread);
	if (error == 0 && record->caller != 0)
		error = caller_take(actors, running, record->caller, &deed->caller);
	return error;
}

int actors_take(struct actors *actors, const struct trace_record *record, struct deed *deed)
{
	switch (record->kind) {
	case TRACE_PROCESS:
		return process_take(actors, record);
	case TRACE_FORK:
		return fork_take(actors, record);
	case TRACE_MODULE:
		return module_take(actors, record);
	case TRACE_WRITE:
	case TRACE_CALL:
	case TRACE_SYNC:
		return event_take(actors, record, deed);
	default:
		return 0;
	}
}

static void mapped_free(struct actors *actors)
{
	while (actors->mapped) {
		struct mapped *mapped = actors->mapped;

		actors->mapped = mapped->made_before;
		free(mapped);
	}
}

void actors_rewind(struct actors *actors)
{
	actors->process_next = actors->running_count = 0;
	map_clear(&actors->pids);
	mapped_free(actors);
}

void actors_free(struct actors *actors)
{
	for (size_t i = 0; i < actors->process_count; i++)
		free(actors->processes[i].command);
	for (size_t i = 0; i < actors->module_count; i++)
		free(actors->modules[i].path);
	for (size_t i = 0; i < actors->function_count; i++)
		free(actors->functions[i].name);
	free(actors->processes);
	free(actors->threads);
	free(actors->modules);
	free(actors->callers);
	free(actors->functions);
	free(actors->running);
	map_free(&actors->pids);
	map_free(&actors->thread_numbers);
	map_free(&actors->caller_numbers);
	mapped_free(actors);
	*actors = (struct actors){0};
}

/* ---- Names --------------------------------------------------------------------------------- */

/* The function that begins at offset, or the nameless one that holds this caller alone. */
static int function_take(struct actors *actors, struct map *numbers, struct actor_caller *caller,
			 const char *name)
{
	uint64_t offset = caller->offset - caller->inside;
	uint32_t *number =
		map_at(numbers, caller->module, offset, (uint32_t)actors->function_count);
	struct actor_function *function;

	if (!number || !array_grow(&actors->functions, actors->function_count,
				   &actors->function_capacity, sizeof(*actors->functions)))
		return -ENOMEM;
	caller->function = *number;
	function = &actors->functions[*number];
	if (*number == actors->function_count) {
		*function = (struct actor_function){.module = caller->module, .offset = offset};
		function->name = name ? strdup(name) : NULL;
		if (name && !function->name)
			return -ENOMEM;
		actors->function_count++;
	}
	function->doings.writes += caller->doings.writes;
	function->doings.bytes += caller->doings.bytes;
	function->doings.syncs += caller->doings.syncs;
	return 0;
}

static struct symbols *module_symbols(const struct actor_module *module)
{
	return module->path[0] == '/'
		       ? symbols_open(module->path, module->size_bytes, module->modified_ns)
		       : NULL;
}

int actors_name(struct actors *actors)
{
	struct symbols **symbols = calloc(actors->module_count + 1, sizeof(struct symbols *));
	struct map numbers = {0};
	int error = symbols ? 0 : -ENOMEM;

	for (size_t i = 0; i < actors->module_count && error == 0; i++)
		symbols[i] = module_symbols(&actors->modules[i]);
	for (size_t i = 0; i < actors->caller_count && error == 0; i++) {
		struct actor_caller *caller = &actors->callers[i];
		const char *name = NULL;

		if (caller->module != NO_MODULE)
			name = symbols_find(symbols[caller->module], caller->offset,
					    &caller->inside);
		if (!name)
			caller->inside = 0;
		error = function_take(actors, &numbers, caller, name);
	}
	for (size_t i = 0; symbols && i < actors->module_count; i++)
		symbols_close(symbols[i]);
	free(symbols);
	map_free(&numbers);
	return error;
}

static const char *module_text(const struct actors *actors, uint32_t module)
{
	const char *path = actors->modules[module].path, *slash = strrchr(path, '/');

	if (path[0] == '\0')
		return "(made code)";
	return slash ? slash + 1 : path;
}

void actors_function_text(const struct actors *actors, uint32_t number, char *text, size_t size)
{
	const struct actor_function *function;

	if (number == NO_FUNCTION) {
		snprintf(text, size, "(unknown)");
		return;
	}
	function = &actors->functions[number];
	if (function->module == NO_MODULE)
		snprintf(text, size, "0x%" PRIx64, function->offset);
	else if (!function->name)
		snprintf(text, size, "%.*s+0x%" PRIx64, NAME_MAX_,
			 module_text(actors, function->module), function->offset);
	else
		snprintf(text, size, "%.*s (%.*s)", NAME_MAX_, function->name, NAME_MAX_,
			 module_text(actors, function->module));
}

void actors_caller_text(const struct actors *actors, uint32_t number, char *text, size_t size)
{
	const struct actor_caller *caller;
	const struct actor_function *function;

	text[0] = '\0';
	if (number == UINT32_MAX)
		return;
	caller = &actors->callers[number];
	function = caller->function == NO_FUNCTION ? NULL : &actors->functions[caller->function];
	if (!function || !function->name)
		actors_function_text(actors, caller->function, text, size);
	else
		snprintf(text, size, "%.*s+0x%" PRIx64 " (%.*s)", NAME_MAX_, function->name,
			 caller->inside, NAME_MAX_, module_text(actors, caller->module));
}

/* What the command calls itself: its first word, without the directory. */
static int program_text(const char *command, const char **program)
{
	size_t length = strcspn(command, " ");

	*program = command;
	for (size_t i = 0; i < length; i++)
		if (command[i] == '/' && i + 1 < length)
			*program = command + i + 1;
	return (int)(command + length - *program);
}

void actors_thread_text(const struct actors *actors, uint32_t number, char *text, size_t size)
{
	const struct actor_thread *thread = &actors->threads[number];
	const struct actor_process *process = &actors->processes[thread->process];
	const char *program;
	int length = program_text(process->command, &program);
	int used = snprintf(text, size, "%.*s%s%" PRIu64, length < NAME_MAX_ ? length : NAME_MAX_,
			    program, length ? ", " : "", process->pid);

	if (thread->tid != process->pid)
		snprintf(text + used, size - (size_t)used, ", thread %" PRIu64, thread->tid);
}
