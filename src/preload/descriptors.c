/* SPDX-License-Identifier: MIT */
/*
 * descriptors.c - descriptors of ours in a process that is not. The program sees them as closed.
 *
 * Whoever closes a descriptor of a file ends all locks (fcntl, lockf) that the process has on the
 * file, by whatever descriptor it took them. So ours are closed only when nobody has locks there,
 * which the kernel tells only of others than the asker: an open file of its own counts as another.
 *
 * No lock: a bit for each number. A program that closes all it does not know finds EBADF.
 */
#include "next.h"

#include "descriptors.h"
#include "files.h"

#include <errno.h>
#include <limits.h>
#include <sys/syscall.h>

#define NUMBERS 65536u
#define ROOM	64u /* below the limit, where they begin */

static _Atomic uint64_t ours[NUMBERS / 64];
static _Atomic unsigned count;

bool descriptor_is_ours(int fd)
{
	unsigned n = (unsigned)fd;

	return atomic_load_explicit(&count, memory_order_relaxed) > 0 && n < NUMBERS &&
	       (atomic_load(&ours[n / 64]) >> (n % 64) & 1) != 0;
}

static bool note(int fd, bool is)
{
	unsigned n = (unsigned)fd;
	uint64_t bit;

	if (n >= NUMBERS)
		return false;
	bit = 1ull << (n % 64);
	if (is && (atomic_fetch_or(&ours[n / 64], bit) & bit) == 0)
		atomic_fetch_add(&count, 1);
	else if (!is && (atomic_fetch_and(&ours[n / 64], ~bit) & bit) != 0)
		atomic_fetch_sub(&count, 1);
	return true;
}

static int move_up(int fd)
{
	struct rlimit limit;
	rlim_t least = NUMBERS;

	if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) == 0 && limit.rlim_cur < least)
		least = limit.rlim_cur;
	least = least > 2 * ROOM ? least - ROOM : least / 2;
	return (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, (int)least);
}

bool descriptor_may_close(int fd)
{
	struct flock any = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return syscall(SYS_fcntl, fd, F_OFD_GETLK, &any) == 0 ? any.l_type == F_UNLCK
							      : errno == EBADF;
}

/* Up, where it is in nobody's way, if it may be closed here. */
int descriptor_keep(int fd)
{
	int up = descriptor_may_close(fd) ? move_up(fd) : -1;

	if (up >= 0) {
		syscall(SYS_close, fd);
		fd = up;
	}
	if (note(fd, true))
		return fd;
	syscall(SYS_close, fd);
	return -EMFILE;
}

int descriptor_share(int fd)
{
	int up = move_up(fd);

	if (up < 0)
		return -errno;
	if (note(up, true))
		return up;
	syscall(SYS_close, up);
	return -EMFILE;
}

void descriptor_drop(int fd)
{
	if (fd < 0)
		return;
	note(fd, false);
	syscall(SYS_close, fd);
}

void descriptor_forget(int fd)
{
	if (fd >= 0)
		note(fd, false);
}

/* ---- Hooks -------------------------------------------------------------------------------- */

static int is_closed(void)
{
	errno = EBADF;
	return -1;
}

/* By itself the program has ended its locks now. */
HOOK int close(int fd)
{
	int result;

	if (descriptor_is_ours(fd))
		return is_closed();
	result = NEXT(close)(fd);
	files_closed();
	return result;
}

/* The program wants the number: ours goes elsewhere, or is given up; then its file is opened by
 * name when it is needed. */
static void make_way(int fd)
{
	int saved = errno, up;

	/* A child of vfork has our memory, but descriptors of its own, and soon executes something.
	 */
	if (!files_are_of_process())
		return;
	up = move_up(fd);
	if (up >= 0 && !note(up, true)) {
		syscall(SYS_close, up);
		up = -1;
	}
	files_descriptor_moved(fd, up);
	note(fd, false);
	errno = saved;
}

HOOK int dup2(int from, int to)
{
	if (from != to && descriptor_is_ours(to))
		make_way(to);
	return descriptor_is_ours(from) ? is_closed() : NEXT(dup2)(from, to);
}

HOOK int dup3(int from, int to, int flags)
{
	if (from != to && descriptor_is_ours(to))
		make_way(to);
	return descriptor_is_ours(from) ? is_closed() : NEXT(dup3)(from, to, flags);
}

/* The stretches between ours. */
static int close_between(unsigned first, unsigned last, int flags)
{
	int result = 0;

	while (first <= last && result == 0) {
		unsigned end = first;

		while (end < last && end < NUMBERS && !descriptor_is_ours((int)end))
			end++;
		if (end >= NUMBERS || (end == last && !descriptor_is_ours((int)end)))
			end = last + 1;
		if (end != first)
			result = NEXT(close_range)(first, end - 1, flags);
		if (end > last || end == 0)
			break;
		first = end + 1;
	}
	return result;
}

HOOK int close_range(unsigned first, unsigned last, int flags)
{
	if (atomic_load(&count) == 0 || first > last ||
	    ((unsigned)flags & CLOSE_RANGE_CLOEXEC) != 0)
		return NEXT(close_range)(first, last, flags);
	return close_between(first, last, flags);
}

HOOK void closefrom(int low)
{
	if (atomic_load(&count) == 0 ||
	    close_between(low < 0 ? 0 : (unsigned)low, UINT_MAX, 0) != 0)
		NEXT(closefrom)(low);
}
