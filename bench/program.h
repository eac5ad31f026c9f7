/* SPDX-License-Identifier: MIT */
/*
 * program.h - the benchmark's programs: what is measured in a process of its own, for `mkwrite run`
 * can only be asked of a program that it starts.
 */
#ifndef BENCH_PROGRAM_H
#define BENCH_PROGRAM_H

#include "bench.h"

/* Of a line of the program's: what it timed. */
struct program_result {
	uint64_t elapsed_ns, units;
};

/* `mkwrite bench --program=LOOP:BYTES:FILE`, in the program: runs it and prints the result. An exit
 * status. */
int program_main(const char *spec);

/* Start argv and wait for its end; its result is what it prints. 0, or a negative errno, said. */
int program_run(struct bench *bench, char *const *argv, struct program_result *result);

/* The same, counting exactly what the program, or one that argv starts, does while it is timed: the
 * SIGSEGV and SIGBUS that it gets, and its system calls. */
int program_trace(struct bench *bench, char *const *argv, uint64_t *faults, uint64_t *calls);

#endif
