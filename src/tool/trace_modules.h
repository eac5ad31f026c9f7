/* SPDX-License-Identifier: MIT */
/*
 * trace_modules.h - which file is mapped where in running processes, as /proc/PID/maps has it: read
 * when an address is met that no known module holds, and kept.
 *
 * A process that is gone has no modules any more; one that maps another file at the same place is
 * not noticed until it runs another program.
 */
#ifndef TRACE_MODULES_H
#define TRACE_MODULES_H

#include <stdbool.h>
#include <stdint.h>

struct trace_modules;

struct trace_module {
	uint64_t start, end; /* addresses */
	uint64_t offset;     /* in the file, of start */
	char *path;	     /* as in maps; "" for memory that is of no file */
	bool told;	     /* the caller's, false at first */
};

/* NULL: no memory. */
struct trace_modules *trace_modules_create(void);
void trace_modules_destroy(struct trace_modules *modules);
/* The module that holds the address, which may be changed; NULL: none known. Good until the next
 * call. */
struct trace_module *trace_modules_find(struct trace_modules *modules, int32_t pid,
					uint64_t address);
/* The process is a new one, or runs another program: look what it has while it has it. */
void trace_modules_learn(struct trace_modules *modules, int32_t pid);
/* Nothing is known of the process any more. */
void trace_modules_forget(struct trace_modules *modules, int32_t pid);
/* child was forked by parent: what is known of the one is known of the other. */
void trace_modules_fork(struct trace_modules *modules, int32_t parent, int32_t child);

#endif
