/* SPDX-License-Identifier: MIT */
/*
 * index.c - an index in memory on a private view of its last saved image, saved by fork: the child
 * writes the index as it was at the fork, while the parent goes on changing it. As Redis saves; but
 * only what was changed since the image costs memory of its own, and past a limit that goes to a
 * swap file.
 *
 *   cc index.c $(pkg-config --cflags --libs mkwrite) -o index && ./index
 *
 * The index is a table of accounts. Every change moves an amount from one to another, so at any
 * instant between two changes their sum is the same: a saved image is right if its sum is.
 */
#include <errno.h>
#include <fcntl.h>
#include <mkwrite/mkwrite.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ACCOUNTS   (1u << 20)
#define OPENING	   1000
#define SIZE_BYTES (sizeof(struct index) + ACCOUNTS * sizeof(int64_t))
#define SAVES	   4
#define MIB	   ((uint64_t)1 << 20)

struct index {
	uint64_t changes; /* made so far: says which instant an image is of */
	uint64_t accounts;
	int64_t amount[];
};

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "index: %s: %s\n", what, why);
	exit(1);
}

static void check(int error, const char *what)
{
	if (error < 0)
		fail(what, mkw_error_message());
}

/* ---- The index ---------------------------------------------------------------------------- */

/* Some accounts change all the time, the others now and then. */
static uint64_t pick(uint64_t *random)
{
	uint64_t account;

	*random = *random * 6364136223846793005u + 1442695040888963407u;
	account = *random >> 40;
	return account % (*random >> 33 & 63 ? ACCOUNTS / 64 : ACCOUNTS);
}

static void change(struct index *index, uint64_t *random)
{
	index->amount[pick(random)] -= 1;
	index->amount[pick(random)] += 1;
	index->changes++;
}

static int64_t sum(const struct index *index)
{
	int64_t all = 0;

	for (uint64_t i = 0; i < index->accounts; i++)
		all += index->amount[i];
	return all;
}

/* ---- Images ------------------------------------------------------------------------------- */

/* All of it under another name, made durable, and then in place of the old one. False: errno. */
static bool image_write(const char *path, const void *bytes, size_t size)
{
	char temporary[4096];
	size_t done = 0;
	int fd;

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return false;
	while (done < size) {
		ssize_t n = write(fd, (const char *)bytes + done, size - done);
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return fsync(fd) == 0 && close(fd) == 0 && rename(temporary, path) == 0;
}

static void image_make(const char *path)
{
	struct index *index = calloc(1, SIZE_BYTES);

	if (index == NULL)
		fail(path, "no memory");
	index->accounts = ACCOUNTS;
	for (unsigned i = 0; i < ACCOUNTS; i++)
		index->amount[i] = OPENING;
	if (!image_write(path, index, SIZE_BYTES))
		fail(path, strerror(errno));
	free(index);
}

/* Only to look: which instant it is of. */
static uint64_t image_check(struct mkw_space *space, const char *path)
{
	struct mkw_handle *handle;
	const struct index *index;
	char uri[4200];
	uint64_t changes;
	void *view;

	snprintf(uri, sizeof(uri), "file:%s", path);
	check(mkw_open(space, uri, MKW_RDONLY, &handle), path);
	check(mkw_map(handle, SIZE_BYTES, MKW_READ, 0, 0, &view), "map");
	index = view;
	changes = index->changes;
	if (sum(index) != (int64_t)ACCOUNTS * OPENING)
		fail(path, "the saved amounts do not add up");
	check(mkw_unmap(view, SIZE_BYTES), "unmap");
	check(mkw_close(handle), "close");
	return changes;
}

/* ---- Saving ------------------------------------------------------------------------------- */

/* The child has the index as it is now, whatever the parent does next. */
static pid_t save_begin(const char *path, const struct index *index)
{
	pid_t child = fork();

	if (child < 0)
		fail("fork", strerror(errno));
	if (child == 0)
		_exit(image_write(path, index, SIZE_BYTES) ? 0 : 1);
	return child;
}

static bool save_ended(pid_t child)
{
	int status;
	pid_t ended = waitpid(child, &status, WNOHANG);

	if (ended < 0)
		fail("waitpid", strerror(errno));
	if (ended == child && status != 0)
		fail("save", "the child could not write the image");
	return ended == child;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "index.img";
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct mkw_handle *handle;
	struct mkw_space *space;
	struct mkw_stat stat;
	struct index *index;
	uint64_t random = 1;
	char uri[4200];
	void *view;

	image_make(path);
	options.resident_limit_bytes = 6 * MIB;
	options.swap_path = "."; /* a nameless file here */
	check(mkw_space_create(&options, &space), "space");
	snprintf(uri, sizeof(uri), "file:%s", path);
	check(mkw_open(space, uri, MKW_RDONLY, &handle), path);
	check(mkw_map(handle, SIZE_BYTES, MKW_WRITE, MKW_PRIVATE, 0, &view), "map");
	index = view;

	for (unsigned save = 1; save <= SAVES; save++) {
		uint64_t at_fork, meanwhile = 0;
		pid_t child;

		for (unsigned i = 0; i < 200000; i++)
			change(index, &random);
		at_fork = index->changes;
		child = save_begin(path, index);
		while (!save_ended(child)) {
			change(index, &random);
			meanwhile++;
		}
		if (image_check(space, path) != at_fork)
			fail(path, "the image is of another instant");
		printf("save %u: the index after %llu changes, whole, while %llu more were made\n",
		       save, (unsigned long long)at_fork, (unsigned long long)meanwhile);
	}
	check(mkw_space_stat(space, &stat, sizeof(stat)), "stat");
	printf("resident at most %llu KiB of %llu; in the swap file %llu KiB\n",
	       (unsigned long long)stat.resident_peak_bytes / 1024,
	       (unsigned long long)stat.resident_limit_bytes / 1024,
	       (unsigned long long)stat.swapped_bytes / 1024);
	check(mkw_unmap(view, SIZE_BYTES), "unmap");
	check(mkw_close(handle), "close");
	check(mkw_space_destroy(space, 0), "destroy");
	return 0;
}
