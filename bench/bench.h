/* SPDX-License-Identifier: MIT */
/*
 * bench.h - what the files of the benchmark share.
 *
 * A measure is one row: something that is timed, in the same loop for the kernel, for the bare
 * mechanism and for the library. Measures of one group ("rewrite/uffd" is of group "rewrite") are
 * opened together and run in turns, A B A B, so that whatever drifts hits all of them alike. A row
 * with a target is judged by the ratio of its median to that of the best of its baselines in the
 * same run of the program. Times are never asserted; counts may be.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define BENCH_PAGE     ((size_t)4096)
#define BENCH_RUNS_MAX 99
#define MIB	       ((uint64_t)1 << 20)

enum bench_unit { BENCH_NS_PER_PAGE, BENCH_OPS_PER_SECOND, BENCH_PERCENT, BENCH_MIB };

/* Exact counts of one run. has_events: a userfaultfd was in play, so that 0 means none. */
struct bench_counts {
	uint64_t kernel_faults; /* minor and major, of the threads that touch pages */
	bool has_events;
	uint64_t faults;  /* that somebody in user space served */
	uint64_t events;  /* userfaultfd messages read */
	uint64_t calls;	  /* system calls that answered them */
	uint64_t wakeups; /* times a handler thread slept and was woken */
};

struct bench_sample {
	uint64_t units; /* pages or operations; not for percentages */
	uint64_t elapsed_ns;
	double value; /* the figure itself, where it is not a time */
	struct bench_counts counts;
};

/* How a figure is judged. */
enum bench_target {
	BENCH_NO_TARGET,
	BENCH_RATIO_AT_MOST, /* of the best baseline */
	BENCH_RATIO_AT_LEAST,
	BENCH_FIGURE_AT_MOST, /* the figure itself */
	BENCH_FIGURE_AT_LEAST,
};

struct bench;

struct bench_measure {
	const char *name; /* "group/what" */
	const char *text;
	enum bench_unit unit;
	const void *arg;
	/* Once before and after all runs; both may be NULL. After a negative errno the row has no
	 * figure, and fails unless the host is to blame; bench_say() has the reason. */
	int (*open)(struct bench *bench, const struct bench_measure *measure, void **state);
	int (*run)(struct bench *bench, const struct bench_measure *measure, void *state,
		   struct bench_sample *sample);
	void (*close)(struct bench *bench, void *state);
	enum bench_target target;
	double limit;
	const char *against; /* names of baselines, space separated, with wildcards */
	bool event_free;     /* a count, and so asserted: no fault and no event in any run */
};

/* One row's results. */
struct bench_row {
	const struct bench_measure *measure;
	bool selected, opened;
	void *state;
	size_t runs;
	struct bench_sample samples[BENCH_RUNS_MAX];
	int error;   /* why there is no figure: negative errno */
	bool failed; /* not merely something that this host does not have */
	char reason[256];
};

struct bench_options {
	bool quick;
	unsigned runs;
	const char *directory; /* where the images go; NULL: chosen */
};

enum bench_fs { BENCH_EXT4, BENCH_XFS, BENCH_FS_COUNT };

struct bench_image {
	bool tried;
	int mount_fd, loop_fd;
	int error;
	char reason[256];
};

struct bench {
	struct bench_options options;
	size_t size; /* of the usual object, bytes */
	int cpus[2]; /* for threads that touch pages; equal on a machine with one */
	char directory[128];
	struct bench_image images[BENCH_FS_COUNT];
	uint32_t *
		order; /* a quarter of the object's pages, distinct, shuffled anew for each round */
	size_t order_count;
	unsigned round;
	char reason[256];
	struct bench_row *rows;
	size_t row_count;
};

/* main.c */
/* Says why something could not be done; returns error. */
int bench_say(struct bench *bench, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* loop.c: the loops that everything is measured with */
uint64_t bench_now_ns(void);
void bench_pin(int cpu);
void bench_unpin(void);
uint64_t bench_kernel_faults(void);
void bench_shuffle(struct bench *bench);
/* One byte a page: all pages in order, or those that order names. */
void bench_write_pages(void *map, size_t pages, const uint32_t *order);
void bench_read_pages(const void *map, size_t pages);
/* The same timed, with the kernel's faults counted into the sample. */
void bench_time_writes(void *map, size_t pages, const uint32_t *order, struct bench_sample *sample);
void bench_time_reads(const void *map, size_t pages, struct bench_sample *sample);
/* Random whole pages, every other operation a write: that many, or for two seconds. */
void bench_time_mixed(void *map, size_t pages, size_t operations, uint64_t seed,
		      struct bench_sample *sample);
/* Two threads, each on its own half and core, at the same time. Elapsed: until both are done. */
int bench_time_two(struct bench *bench, void *map, size_t pages, const uint32_t *order,
		   size_t order_count, struct bench_sample *sample);

/* images.c: ext4 and xfs on loop devices that vanish with the process */
int bench_image_open(struct bench *bench, enum bench_fs fs, int *mount_fd);
void bench_images_close(struct bench *bench);
/* A file of size bytes on the image, written write_size bytes at a time, synced and cached. */
int bench_file_create(struct bench *bench, enum bench_fs fs, const char *name, size_t size,
		      size_t write_size, int *fd);

/* cgroup.c: run fn in a child under a memory limit */
typedef int (*bench_child_fn)(struct bench *bench, void *arg, struct bench_sample *sample);
int bench_cgroup_run(struct bench *bench, uint64_t limit_bytes, bench_child_fn fn, void *arg,
		     struct bench_sample *sample);

/* report.c */
double bench_figure(enum bench_unit unit, const struct bench_sample *sample);
void bench_report_text(const struct bench *bench, FILE *out);
void bench_report_json(const struct bench *bench, FILE *out);
/* Whether a row broke a rule that counts decide. */
bool bench_row_counts_broken(const struct bench_row *row);

/* The measures, by subject; each ends with a NULL name. */
extern const struct bench_measure bench_kernel_measures[];
extern const struct bench_measure bench_bare_measures[];
extern const struct bench_measure bench_limit_measures[];
extern const struct bench_measure bench_library_measures[];
extern const struct bench_measure bench_protect_measures[];
extern const struct bench_measure bench_memory_measures[];
extern const struct bench_measure bench_private_measures[];
extern const struct bench_measure bench_pin_measures[];
extern const struct bench_measure bench_swap_measures[];
extern const struct bench_measure bench_fork_measures[];
extern const struct bench_measure bench_run_measures[];

#endif
