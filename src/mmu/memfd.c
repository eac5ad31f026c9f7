/* SPDX-License-Identifier: MIT */
/*
 * memfd.c - frames: a sparse memory file and the library's own alias of it.
 *
 * The file is made larger than any object at once and never changes its size: an access past its
 * end would be a SIGBUS that no descriptor reports. A frame exists exactly when the file has a page
 * there.
 *
 * The alias is mapped in windows as they are needed, each as large as all before it together, and
 * never unmapped before the end: looking one up takes no lock. frames.grow guards only their
 * making.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_SIZE_BYTES	   ((off_t)1 << 62)
#define FIRST_WINDOW_BYTES ((uint64_t)64 << 20)
#define FIRST_WINDOW_SHIFT 26
#define WINDOWS		   (47 - FIRST_WINDOW_SHIFT)
#define ZEROS_BYTES	   65536u
#define ZEROS_PER_CALL	   64

struct frames {
	int fd;
	pthread_mutex_t grow;
	_Atomic(char *) window[WINDOWS];
};

static char zeros[ZEROS_BYTES];

/*
 * With huge pages forced on shared memory one written page brings its neighbours into being, which
 * would then read as zeros without any report. Look, instead of believing a setting.
 */
static int check_page_size(int fd)
{
	struct stat st;

	if (pwrite(fd, zeros, MKW_PAGE_SIZE, 0) != MKW_PAGE_SIZE || fstat(fd, &st))
		return mkw_set_error(-ENOMEM, "no memory for a page cache");
	if (st.st_blocks != MKW_PAGE_SIZE / 512)
		return mkw_set_error(
			-ENOTSUP,
			"shared memory is given in huge pages; write \"advise\" or \"never\" to "
			"/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MKW_PAGE_SIZE))
		return mkw_set_error(-errno, "the page cache cannot drop pages: %m");
	return 0;
}

int frames_create(struct frames **frames)
{
	struct frames *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return mkw_set_error(-ENOMEM, "no memory for an object");
	f->fd = memfd_create("mkwrite", MFD_CLOEXEC);
	if (f->fd < 0) {
		err = mkw_set_error(-errno, "memfd_create: %m");
		free(f);
		return err;
	}
	err = ftruncate(f->fd, FILE_SIZE_BYTES) ? mkw_set_error(-errno, "memfd: %m")
						: check_page_size(f->fd);
	if (err) {
		close(f->fd);
		free(f);
		return err;
	}
	pthread_mutex_init(&f->grow, NULL);
	*frames = f;
	return 0;
}

static uint64_t window_start(unsigned i)
{
	return i == 0 ? 0 : FIRST_WINDOW_BYTES << (i - 1);
}

static uint64_t window_length(unsigned i)
{
	return i == 0 ? FIRST_WINDOW_BYTES : FIRST_WINDOW_BYTES << (i - 1);
}

void frames_destroy(struct frames *frames)
{
	for (unsigned i = 0; i < WINDOWS; i++)
		if (frames->window[i])
			munmap(frames->window[i], window_length(i));
	pthread_mutex_destroy(&frames->grow);
	close(frames->fd);
	free(frames);
}

void frames_abandon(struct frames *frames)
{
	close(frames->fd);
	frames->fd = -1;
}

int frames_fd(const struct frames *frames)
{
	return frames->fd;
}

/* One system call's worth. The count of bytes, or a negative errno. */
static ssize_t fill_some(int fd, uint64_t offset, size_t length, const char *src)
{
	struct iovec part[ZEROS_PER_CALL];
	int parts = 0;
	ssize_t n;

	if (src) {
		n = pwrite(fd, src, length, (off_t)offset);
		return n < 0 ? -errno : n;
	}
	for (; parts < ZEROS_PER_CALL && length > 0; parts++) {
		part[parts].iov_base = zeros;
		part[parts].iov_len = length < ZEROS_BYTES ? length : ZEROS_BYTES;
		length -= part[parts].iov_len;
	}
	n = pwritev(fd, part, parts, (off_t)offset);
	return n < 0 ? -errno : n;
}

int frames_fill(struct frames *frames, uint64_t offset, size_t length, const void *src)
{
	const char *from = src;

	while (length > 0) {
		ssize_t n = fill_some(frames->fd, offset, length, from);

		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n == 0 || n == -ENOSPC ? -ENOMEM : (int)n;
		offset += (uint64_t)n;
		length -= (size_t)n;
		if (from)
			from += n;
	}
	return 0;
}

int frames_drop(struct frames *frames, uint64_t offset, uint64_t length)
{
	int err;

	do {
		err = fallocate(frames->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)offset, (off_t)length);
	} while (err && errno == EINTR);
	return err ? -errno : 0;
}

/* => frames.grow held. */
static char *window_map(struct frames *frames, unsigned i)
{
	char *p = mmap(NULL, window_length(i), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		       frames->fd, (off_t)window_start(i));

	if (p == MAP_FAILED)
		return NULL;
	/* A child writing here would write what the parent's views show, unnotified. */
	if (madvise(p, window_length(i), MADV_DONTFORK)) {
		munmap(p, window_length(i));
		return NULL;
	}
	/* A dump would make a page of every hole; kernels without huge pages know no NOHUGEPAGE. */
	(void)madvise(p, window_length(i), MADV_DONTDUMP);
	(void)madvise(p, window_length(i), MADV_NOHUGEPAGE);
	atomic_store_explicit(&frames->window[i], p, memory_order_release);
	return p;
}

void *frames_data(struct frames *frames, uint64_t offset, size_t length)
{
	uint64_t unit = offset >> FIRST_WINDOW_SHIFT;
	unsigned i = unit == 0 ? 0 : 64 - (unsigned)__builtin_clzll(unit);
	char *p;

	(void)length; /* lies within 2 MiB aligned, hence within one window */
	if (i >= WINDOWS)
		return NULL;
	p = atomic_load_explicit(&frames->window[i], memory_order_acquire);
	if (!p) {
		machine_lock(&frames->grow);
		p = atomic_load_explicit(&frames->window[i], memory_order_relaxed);
		if (!p)
			p = window_map(frames, i);
		machine_unlock(&frames->grow);
	}
	return p ? p + (offset - window_start(i)) : NULL;
}
