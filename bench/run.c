/* SPDX-License-Identifier: MIT */
/*
 * run.c - what `mkwrite run` costs: the same program with it and without it. The counts are exact,
 * of one more run each under a tracer: faults that became signals, and system calls of the program.
 */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct run_case {
	const char *loop;
	enum bench_fs fs; /* BENCH_FS_COUNT: tmpfs */
	bool under;	  /* mkwrite run */
	const char *option;
};

struct run {
	int mount_fd; /* -1: /dev/shm */
	char file[96], program[512], self[256];
	char *argv[8];
	bool counted;
	uint64_t faults, calls;
};

static void run_close(struct bench *bench, void *state)
{
	(void)bench;
	free(state);
}

static int run_place(struct bench *bench, const struct run_case *how, struct run *r)
{
	int error;

	r->mount_fd = -1;
	if (how->fs == BENCH_FS_COUNT) {
		snprintf(r->file, sizeof(r->file), "/dev/shm/mkwrite-bench-run-%d", (int)getpid());
		return 0;
	}
	error = bench_image_open(bench, how->fs, &r->mount_fd);
	if (!error)
		snprintf(r->file, sizeof(r->file), "/proc/%d/fd/%d/run", (int)getpid(),
			 r->mount_fd);
	return error;
}

static int run_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	const struct run_case *how = measure->arg;
	struct run *r = calloc(1, sizeof(*r));
	ssize_t n;
	size_t i = 0;
	int error;

	if (!r)
		return -ENOMEM;
	error = run_place(bench, how, r);
	n = readlink("/proc/self/exe", r->self, sizeof(r->self) - 1);
	if (!error && n < 0)
		error = -errno;
	if (error) {
		free(r);
		return error;
	}
	snprintf(r->program, sizeof(r->program), "--program=%s:%zu:%s", how->loop, bench->size,
		 r->file);
	r->argv[i++] = r->self;
	if (how->under) {
		r->argv[i++] = (char *)"run";
		if (how->option)
			r->argv[i++] = (char *)how->option;
		r->argv[i++] = (char *)"--";
		r->argv[i++] = r->self;
	}
	r->argv[i++] = (char *)"bench";
	r->argv[i++] = r->program;
	*state = r;
	return 0;
}

static int run_run(struct bench *bench, const struct bench_measure *measure, void *state,
		   struct bench_sample *sample)
{
	struct program_result result;
	struct run *r = state;
	int error = 0;

	(void)measure;
	if (!r->counted)
		error = program_trace(bench, r->argv, &r->faults, &r->calls);
	r->counted = true;
	if (!error)
		error = program_run(bench, r->argv, &result);
	if (error)
		return error;
	sample->elapsed_ns = result.elapsed_ns;
	sample->units = result.units;
	sample->counts.has_events = true;
	sample->counts.faults = r->faults;
	sample->counts.calls = r->calls;
	return 0;
}

#define ROW(name_, text_, loop_, fs_, under_, option_, against_, limit_)                           \
	{                                                                                          \
		.name = "run/" name_, .text = (text_), .unit = BENCH_NS_PER_PAGE,                  \
		.arg = &(const struct run_case){loop_, fs_, under_, option_}, .open = run_open,    \
		.run = run_run, .close = run_close,                                                \
		.target = (limit_) > 0 ? BENCH_RATIO_AT_MOST : BENCH_NO_TARGET, .limit = (limit_), \
		.against = (against_)                                                              \
	}
#define PAIR(name_, text_, loop_, fs_, limit_)                                          \
	ROW(name_ "-alone", "a program: " text_, loop_, fs_, false, NULL, NULL, 0),     \
		ROW(name_ "-run", "the same under mkwrite run", loop_, fs_, true, NULL, \
		    "run/" name_ "-alone", limit_)

const struct bench_measure bench_run_measures[] = {
	PAIR("again", "writes granted pages again, tmpfs", "again", BENCH_FS_COUNT, 1.05),
	PAIR("sequential-ext4", "writes a sparse file in order, ext4", "sequential", BENCH_EXT4,
	     1.1),
	PAIR("sequential-tmpfs", "the same, tmpfs", "sequential", BENCH_FS_COUNT, 1.1),
	PAIR("random-ext4", "first writes at random, a quarter of a sparse file, ext4", "random",
	     BENCH_EXT4, 2),
	PAIR("random-tmpfs", "the same, tmpfs", "random", BENCH_FS_COUNT, 2),
	PAIR("allocated-ext4", "the same of an allocated file, ext4", "allocated", BENCH_EXT4, 2),
	ROW("limit-ext4", "random, mkwrite run --dirty-limit=16M, ext4", "random", BENCH_EXT4, true,
	    "--dirty-limit=16M", "run/random-ext4-alone", 0),
	ROW("trace-ext4", "random, mkwrite run --trace, ext4", "random", BENCH_EXT4, true,
	    "--trace=/dev/null", "run/random-ext4-alone", 0),
	PAIR("read", "read(2) into granted pages, 64 KiB a call, tmpfs", "read", BENCH_FS_COUNT, 0),
	PAIR("calls", "pread(2) of a byte to elsewhere, while there is a view", "calls",
	     BENCH_FS_COUNT, 0),
	{.name = NULL},
};
