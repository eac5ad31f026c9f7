/* SPDX-License-Identifier: MIT */
/*
 * swap.c - a swap file: private copies of pages, at offsets that the VM chooses.
 *
 * It has no name where that is possible: then nobody else comes by its bytes, and nothing is left
 * behind however the process ends. Ranges that are dropped are punched out, so that it takes as
 * much room as what is in it.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct swap_file {
	int fd;
	char *path; /* NULL: it has no name */
};

static int open_named(const char *path)
{
	int fd;

	do {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	} while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

static int open_nameless(const char *directory)
{
	int fd;

	do {
		fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
	} while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

/* 1: a directory, 0: something else or nothing, or a negative errno. */
static int is_directory(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode);
	return errno == ENOENT ? 0 : -errno;
}

/* A file of this path, which loses its name at once. */
static int file_make(struct swap_file *file, const char *path)
{
	file->path = strdup(path);
	if (!file->path)
		return -ENOMEM;
	file->fd = open_named(path);
	if (file->fd < 0)
		return file->fd;
	if (unlink(path) == 0) {
		free(file->path);
		file->path = NULL;
	}
	return 0;
}

/* In a directory of a file system that has no files without a name. */
static int file_make_in(struct swap_file *file, const char *directory)
{
	char path[4096];
	int err = -EEXIST;

	for (unsigned i = 0; err == -EEXIST && i < 1000; i++) {
		int n = snprintf(path, sizeof(path), "%s/.mkwrite-swap-%d-%u", directory,
				 (int)getpid(), i);

		if (n < 0 || (size_t)n >= sizeof(path))
			return -ENAMETOOLONG;
		free(file->path);
		file->path = NULL;
		err = file_make(file, path);
	}
	return err;
}

static int file_find(struct swap_file *file, const char *path)
{
	int directory = is_directory(path);

	if (directory <= 0)
		return directory < 0 ? directory : file_make(file, path);
	file->fd = open_nameless(path);
	if (file->fd >= 0)
		return 0;
	/* What kernels and file systems without it say. */
	if (file->fd == -EOPNOTSUPP || file->fd == -EISDIR || file->fd == -ENOENT ||
	    file->fd == -EINVAL)
		return file_make_in(file, path);
	return file->fd;
}

int swap_file_open(const char *path, struct swap_file **file)
{
	struct swap_file *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return mkw_set_error(-ENOMEM, "no memory for a swap file");
	f->fd = -1;
	err = file_find(f, path);
	if (err == 0) {
		*file = f;
		return 0;
	}
	free(f->path);
	free(f);
	if (err == -EEXIST)
		return mkw_set_error(err,
				     "swap_path: %.120s is there already, and is not a "
				     "directory; a swap file is made over no other",
				     path);
	errno = -err;
	return mkw_set_error(err, "swap_path: cannot make a swap file at %.120s: %m", path);
}

void swap_file_close(struct swap_file *file)
{
	if (file->path)
		(void)unlink(file->path);
	close(file->fd);
	free(file->path);
	free(file);
}

void swap_file_abandon(struct swap_file *file)
{
	close(file->fd);
	file->fd = -1;
}

int swap_file_write(struct swap_file *file, uint64_t offset, const void *src, size_t length,
		    size_t *done)
{
	*done = 0;
	while (*done < length) {
		/* Not through what a sanitizer puts before it: the program wrote those bytes, and
		 * that they were protected since is not for it to see. */
		ssize_t n = syscall(SYS_pwrite64, file->fd, (const char *)src + *done,
				    length - *done, offset + *done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 || errno == EDQUOT || errno == EFBIG ? -ENOSPC : -errno;
		*done += (size_t)n;
	}
	return 0;
}

int swap_file_read(struct swap_file *file, uint64_t offset, void *dst, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n =
			pread(file->fd, (char *)dst + done, length - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

void swap_file_drop(struct swap_file *file, uint64_t offset, uint64_t length)
{
	int err;

	/* A file system that cannot gives the space back when the place is written again. */
	do {
		err = fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
				(off_t)length);
	} while (err && errno == EINTR);
}
