/* SPDX-License-Identifier: MIT */
/*
 * limit.c - more than memory holds: random whole pages, half reads and half writes, over an object
 * of four times the limit. The kernel's side of it: a shared mapping of a file on the ext4 image,
 * in a child process under a memory control group.
 */
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct limit_file {
	int fd;
	bool advise_random;
	unsigned round;
};

uint64_t limit_bytes(const struct bench *bench)
{
	/* A process must fit beside its pages. */
	return bench->options.quick ? 16 * MIB : bench->size / 4;
}

size_t limit_operations(const struct bench *bench)
{
	return bench->options.quick ? 4096 : 65536;
}

static int limit_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct limit_file *file = calloc(1, sizeof(*file));
	char name[64];
	int mount_fd, rc;

	if (!file)
		return -ENOMEM;
	file->advise_random = measure->arg != NULL;
	snprintf(name, sizeof(name), "limit-%d", file->advise_random);
	rc = bench_file_create(bench, BENCH_EXT4, name, 4 * limit_bytes(bench), BENCH_PAGE,
			       &file->fd);
	if (rc) {
		free(file);
		return rc;
	}
	if (!bench_image_open(bench, BENCH_EXT4, &mount_fd))
		unlinkat(mount_fd, name, 0);
	*state = file;
	return 0;
}

static void limit_close(struct bench *bench, void *state)
{
	struct limit_file *file = state;

	(void)bench;
	close(file->fd);
	free(file);
}

/* In the child, under the limit. A first round brings memory to its limit and is not timed. */
static int limit_child(struct bench *bench, void *arg, struct bench_sample *sample)
{
	struct limit_file *file = arg;
	size_t size = 4 * limit_bytes(bench);
	struct bench_sample untimed = {0};
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);

	if (map == MAP_FAILED)
		return bench_say(bench, -errno, "mmap: %s", strerror(errno));
	if (file->advise_random)
		madvise(map, size, MADV_RANDOM);
	bench_pin(bench->cpus[0]);
	bench_time_mixed(map, size / BENCH_PAGE, size / BENCH_PAGE, bench->round + 1, &untimed);
	bench_time_mixed(map, size / BENCH_PAGE, limit_operations(bench), bench->round + 1001,
			 sample);
	return 0;
}

/* Pages cached by others are not charged to the child: the file starts out of memory. */
static int limit_run(struct bench *bench, const struct bench_measure *measure, void *state,
		     struct bench_sample *sample)
{
	struct limit_file *file = state;

	(void)measure;
	if (fsync(file->fd))
		return bench_say(bench, -errno, "fsync: %s", strerror(errno));
	posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
	return bench_cgroup_run(bench, limit_bytes(bench), limit_child, file, sample);
}

const struct bench_measure bench_limit_measures[] = {
	{.name = "limit/kernel-ext4",
	 .text = "kernel, ext4, memory control group: random pages of 4 times the limit",
	 .unit = BENCH_OPS_PER_SECOND,
	 .open = limit_open,
	 .run = limit_run,
	 .close = limit_close},
	{.name = "limit/kernel-ext4-advised",
	 .text = "kernel: the same, with MADV_RANDOM",
	 .unit = BENCH_OPS_PER_SECOND,
	 .arg = "",
	 .open = limit_open,
	 .run = limit_run,
	 .close = limit_close},
	{.name = NULL},
};
