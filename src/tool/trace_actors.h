/* SPDX-License-Identifier: MIT */
/*
 * trace_actors.h - who did what a trace tells of: its processes, their threads, and the functions
 * that the accesses were made by.
 *
 * The records of a trace are taken one by one, in their order; for each event actors_take finds out
 * who it was. After actors_rewind they may be taken once more, and everybody keeps his number.
 */
#ifndef TRACE_ACTORS_H
#define TRACE_ACTORS_H

#include "trace_file.h"
#include "trace_map.h"

struct doings {
	uint64_t writes, bytes, syncs;
};

/* A process until it runs another program. */
struct actor_process {
	uint64_t pid, parent; /* 0: not forked by a process of the trace */
	char *command;	      /* for people; "" if it is not known */
	struct doings doings;
};

struct actor_thread {
	uint32_t process;
	uint64_t tid;
	struct doings doings;
	uint32_t file; /* of its last first write */
	uint64_t end;  /* where that ended */
};

struct actor_module {
	char *path;
	uint64_t size_bytes, modified_ns;
};

#define NO_MODULE   UINT32_MAX
#define NO_FUNCTION UINT32_MAX

/* An address in a module, or, in none, of a process. */
struct actor_caller {
	uint32_t module;
	uint64_t offset;
	uint32_t function; /* after actors_name */
	uint64_t inside;
	struct doings doings;
};

struct actor_function {
	uint32_t module;
	char *name;	 /* NULL: none is known */
	uint64_t offset; /* of the caller, if there is no name */
	struct doings doings;
};

struct mapped;
struct running { /* what a pid is at the moment */
	uint32_t process;
	const struct mapped *mapped; /* latest first */
};

struct actors {
	struct actor_process *processes;
	struct actor_thread *threads;
	struct actor_module *modules;
	struct actor_caller *callers;
	struct actor_function *functions;
	struct running *running;
	size_t process_count, thread_count, module_count, caller_count, function_count;
	size_t process_capacity, thread_capacity, module_capacity, caller_capacity;
	size_t function_capacity, running_capacity;
	uint32_t process_next; /* the number of the next process of this round */
	uint32_t running_count;
	struct map pids, thread_numbers, caller_numbers;
	struct mapped *mapped; /* all of them, to be freed */
};

struct deed {				  /* who it was */
	uint32_t process, thread, caller; /* caller: UINT32_MAX if the event has none */
};

/* -ENOMEM or 0. deed is set if the record is an event. */
int actors_take(struct actors *actors, const struct trace_record *record, struct deed *deed);
void actors_rewind(struct actors *actors);
/* Find the names of all callers' functions, and add up what they did. */
int actors_name(struct actors *actors);
void actors_free(struct actors *actors);
void doings_add(struct doings *doings, const struct trace_record *record);

/* "function (library.so)", "library.so+0x1234", "0x7f...". */
#define ACTOR_TEXT_MAX 512
void actors_function_text(const struct actors *actors, uint32_t function, char *text, size_t size);
/* "program, 1234", "program, 1234, thread 1235". */
void actors_thread_text(const struct actors *actors, uint32_t thread, char *text, size_t size);
/* As that of a function, with the place in it; "" for UINT32_MAX. */
void actors_caller_text(const struct actors *actors, uint32_t caller, char *text, size_t size);

#endif
