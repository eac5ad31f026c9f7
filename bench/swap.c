/* SPDX-License-Identifier: MIT */
/*
 * swap.c - private pages to the swap file and back, against the kernel's price for the same bytes
 * in the same file system: pwrite and pread.
 */
#include "library.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DIRECTORY "/var/tmp"
#define PIECE	  ((size_t)64 * BENCH_PAGE) /* what the kernel's rows move a call */

/* ---- The kernel --------------------------------------------------------------------------- */

struct plain {
	int fd;
	char *bytes;
	size_t size;
};

static void plain_close(struct bench *bench, void *state)
{
	struct plain *plain = state;

	(void)bench;
	if (plain->bytes != MAP_FAILED)
		munmap(plain->bytes, plain->size);
	if (plain->fd >= 0)
		close(plain->fd);
	free(plain);
}

static int plain_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct plain *plain = malloc(sizeof(*plain));
	int err = 0;

	(void)measure;
	if (!plain)
		return -ENOMEM;
	plain->size = bench->size;
	plain->bytes =
		mmap(NULL, plain->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	plain->fd = open(DIRECTORY, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (plain->bytes == MAP_FAILED || plain->fd < 0)
		err = errno;
	if (err) {
		plain_close(bench, plain);
		return bench_say(bench, -err, "%s: %s", DIRECTORY, strerror(err));
	}
	bench_write_pages(plain->bytes, plain->size / BENCH_PAGE, NULL);
	*state = plain;
	return 0;
}

/* Both ways, of which one is timed. */
static int plain_move(struct bench *bench, const struct bench_measure *measure, void *state,
		      struct bench_sample *sample)
{
	const struct library_case *how = measure->arg;
	const struct plain *plain = state;
	uint64_t start, middle;

	if (ftruncate(plain->fd, 0))
		return bench_say(bench, -errno, "ftruncate: %s", strerror(errno));
	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	for (size_t at = 0; at < plain->size; at += PIECE)
		if (pwrite(plain->fd, plain->bytes + at, PIECE, (off_t)at) != (ssize_t)PIECE)
			return bench_say(bench, -EIO, "pwrite: %s", strerror(errno));
	middle = bench_now_ns();
	for (size_t at = 0; at < plain->size; at += BENCH_PAGE)
		if (pread(plain->fd, plain->bytes + at, BENCH_PAGE, (off_t)at) !=
		    (ssize_t)BENCH_PAGE)
			return bench_say(bench, -EIO, "pread: %s", strerror(errno));
	sample->elapsed_ns = how->back ? bench_now_ns() - middle : middle - start;
	bench_unpin();
	sample->units = plain->size / BENCH_PAGE;
	return 0;
}

/* ---- The library -------------------------------------------------------------------------- */

static int view_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct library *library;
	int rc = library_open(bench, measure, bench->size, 0, &library);

	if (rc)
		return rc;
	bench_write_pages(library->view, library->size / BENCH_PAGE, NULL);
	*state = library;
	return 0;
}

static int view_move(struct bench *bench, const struct bench_measure *measure, void *state,
		     struct bench_sample *sample)
{
	const struct library_case *how = measure->arg;
	struct library *library = state;
	size_t pages = library->size / BENCH_PAGE;
	uint64_t start, middle;
	int rc = library_count_begin(bench, library);

	if (rc)
		return rc;
	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	rc = mkw_advise(library->view, library->size, MKW_PAGEOUT);
	middle = bench_now_ns();
	if (rc)
		return library_say(bench, rc, "mkw_advise");
	bench_write_pages(library->view, pages, NULL);
	sample->elapsed_ns = how->back ? bench_now_ns() - middle : middle - start;
	bench_unpin();
	sample->units = pages;
	return library_count_end(bench, library, sample);
}

/* ---- Rows --------------------------------------------------------------------------------- */

#define HOW(back_)                                              \
	(&(const struct library_case){.storage = LIBRARY_EMPTY, \
				      .map_flags = MKW_PRIVATE, \
				      .swap_path = DIRECTORY,   \
				      .back = (back_)})
#define ROW(name_, text_, back_, open_, run_, close_)                                           \
	{                                                                                       \
		.name = (name_), .text = (text_), .unit = BENCH_NS_PER_PAGE, .arg = HOW(back_), \
		.open = (open_), .run = (run_), .close = (close_)                               \
	}

const struct bench_measure bench_swap_measures[] = {
	ROW("swap/pwrite", "kernel: pwrite of the same bytes, 256 KiB a call", false, plain_open,
	    plain_move, plain_close),
	ROW("swap/out", "library: private pages to the swap file", false, view_open, view_move,
	    library_close),
	ROW("swap/pread", "kernel: pread of them, a page a call", true, plain_open, plain_move,
	    plain_close),
	ROW("swap/in", "library: back by a write to each page, in order", true, view_open,
	    view_move, library_close),
	{.name = NULL},
};
