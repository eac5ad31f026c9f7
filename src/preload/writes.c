/* SPDX-License-Identifier: MIT */
/*
 * writes.c - hooks of the calls that write to files, or empty them, past all mappings. With
 * snapshots they wait where a copy is as of an instant that they came after: write and its kin,
 * opening with O_TRUNC. What shortens a file is in cuts.c, what copies within the kernel in
 * calls_small.c. Without snapshots they pass on.
 *
 * Not seen: what libc writes itself (stdio, aio_write), and system calls by number.
 */
#include "next.h"

#include "snapshots.h"

#include <stdarg.h>

/* ---- write ---------------------------------------------------------------------------------- */

#define WRITES(name, params, args, fd, at, n)        \
	HOOK ssize_t name params                     \
	{                                            \
		SNAPSHOTS_HOLD_OF_BLOCK(hold);       \
		snapshots_hold_fd(&hold, fd, at, n); \
		return NEXT(name) args;              \
	}

static uint64_t vector_bytes(const struct iovec *v, int count)
{
	uint64_t bytes = 0;

	if (!preload_control || !preload_control->options.snapshots)
		return 0;
	for (int i = 0; i < count; i++)
		bytes += v[i].iov_len;
	return bytes;
}

#define HERE SNAPSHOTS_HERE

/* clang-format off */
WRITES(write, (int fd, const void *p, size_t n), (fd, p, n), fd, HERE, n)
WRITES(pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at), fd, at, n)
WRITES(pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at), fd, at, n)
WRITES(writev, (int fd, const struct iovec *v, int n), (fd, v, n), fd, HERE, vector_bytes(v, n))
WRITES(pwritev, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), fd, at, vector_bytes(v, n))
WRITES(pwritev64, (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at), fd, at, vector_bytes(v, n))
WRITES(pwritev2, (int fd, const struct iovec *v, int n, off_t at, int flags), (fd, v, n, at, flags), fd, at, vector_bytes(v, n))
WRITES(pwritev64v2, (int fd, const struct iovec *v, int n, off64_t at, int flags), (fd, v, n, at, flags), fd, at, vector_bytes(v, n))
/* clang-format on */

/* ---- Opening with O_TRUNC ------------------------------------------------------------------- */

/* The mode, where there is one; else it means nothing. */
#define MODE_OF(flags)                                                            \
	({                                                                        \
		va_list ap_;                                                      \
		mode_t mode_ = 0;                                                 \
		if (((flags)&O_CREAT) != 0 || ((flags)&O_TMPFILE) == O_TMPFILE) { \
			va_start(ap_, flags);                                     \
			mode_ = va_arg(ap_, mode_t);                              \
			va_end(ap_);                                              \
		}                                                                 \
		mode_;                                                            \
	})

static void truncating_hold(struct snapshots_hold *hold, int dir, const char *path, int flags)
{
	if ((flags & O_TRUNC) != 0)
		snapshots_hold_path(hold, dir, path);
}

#define OPENS(name, params, args, dir, flags)             \
	HOOK int name params                              \
	{                                                 \
		SNAPSHOTS_HOLD_OF_BLOCK(hold);            \
		mode_t mode = MODE_OF(flags);             \
		truncating_hold(&hold, dir, path, flags); \
		return NEXT(name) args;                   \
	}

/* Without a mode; programs that were built with _FORTIFY_SOURCE call these. */
#define OPENS_AS_SAID(name, params, args, dir, flags)     \
	HOOK int name params                              \
	{                                                 \
		SNAPSHOTS_HOLD_OF_BLOCK(hold);            \
		truncating_hold(&hold, dir, path, flags); \
		return NEXT(name) args;                   \
	}

/* clang-format off */
OPENS(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD, flags)
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD, flags)
OPENS(openat, (int dir, const char *path, int flags, ...), (dir, path, flags, mode), dir, flags)
OPENS(openat64, (int dir, const char *path, int flags, ...), (dir, path, flags, mode), dir, flags)
OPENS_AS_SAID(__open_2, (const char *path, int flags), (path, flags), AT_FDCWD, flags)
OPENS_AS_SAID(__open64_2, (const char *path, int flags), (path, flags), AT_FDCWD, flags)
OPENS_AS_SAID(__openat_2, (int dir, const char *path, int flags), (dir, path, flags), dir, flags)
OPENS_AS_SAID(__openat64_2, (int dir, const char *path, int flags), (dir, path, flags), dir, flags)
/* clang-format on */

#define CREATES(name)                                       \
	HOOK int name(const char *path, mode_t mode)        \
	{                                                   \
		SNAPSHOTS_HOLD_OF_BLOCK(hold);              \
		snapshots_hold_path(&hold, AT_FDCWD, path); \
		return NEXT(name)(path, mode);              \
	}
CREATES(creat)
CREATES(creat64)

#define OPENS_STREAM(name)                                          \
	HOOK FILE *name(const char *path, const char *mode)         \
	{                                                           \
		SNAPSHOTS_HOLD_OF_BLOCK(hold);                      \
		if (mode[0] == 'w')                                 \
			snapshots_hold_path(&hold, AT_FDCWD, path); \
		return NEXT(name)(path, mode);                      \
	}
OPENS_STREAM(fopen)
OPENS_STREAM(fopen64)
