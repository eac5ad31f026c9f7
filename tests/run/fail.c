/* SPDX-License-Identifier: MIT */
/* fail.c - calls of src/run on their way to the system (fail.h). */
#include "run/fail.h"

#include "harness/test.h"
#include "run/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

_Thread_local unsigned fail_depth;
void (*fail_before_punch)(int fd);
bool fail_cachestat;
int (*fail_quotactl)(int command, unsigned id, void *quota);

static uint64_t target, counted;
static int wanted;
static const char *failed;

void fail_arm(uint64_t nth, int error)
{
	counted = 0;
	target = nth;
	wanted = error;
	failed = NULL;
}

bool fail_disarm(void)
{
	target = 0;
	return failed;
}

void fail_tell(void)
{
	test_note("call %llu, %s: %s", (unsigned long long)counted, failed ? failed : "none",
		  strerrorname_np(wanted));
}

static bool fails(const char *name)
{
	if (!fail_depth || !target || ++counted != target)
		return false;
	failed = name;
	errno = wanted;
	return true;
}

#define WRAP(type, name, parameters, arguments, failure) \
	type __real_##name parameters;                   \
	type __wrap_##name parameters;                   \
	type __wrap_##name parameters                    \
	{                                                \
		if (fails(#name))                        \
			return failure;                  \
		return __real_##name arguments;          \
	}

WRAP(int, fstat64, (int fd, struct stat *st), (fd, st), -1)
WRAP(int, fstatfs64, (int fd, struct statfs *fs), (fd, fs), -1)
WRAP(off_t, lseek64, (int fd, off_t offset, int whence), (fd, offset, whence), -1)
WRAP(ssize_t, pread64, (int fd, void *bytes, size_t size, off_t at), (fd, bytes, size, at), -1)
WRAP(int, fdatasync, (int fd), (fd), -1)
WRAP(int, futimens, (int fd, const struct timespec *times), (fd, times), -1)
WRAP(void *, calloc, (size_t count, size_t size), (count, size), NULL)
WRAP(void *, reallocarray, (void *old, size_t count, size_t size), (old, count, size), NULL)
WRAP(char *, strndup, (const char *text, size_t size), (text, size), NULL)

int __real_fallocate64(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length)
{
	if (fails("fallocate"))
		return -1;
	if (fail_depth && fail_before_punch)
		fail_before_punch(fd);
	return __real_fallocate64(fd, mode, offset, length);
}

/* Those with one further argument, or none. */
#define WRAP_VARIADIC(type, name, first_type, second_type)             \
	type __real_##name(first_type first, second_type second, ...); \
	type __wrap_##name(first_type first, second_type second, ...); \
	type __wrap_##name(first_type first, second_type second, ...)  \
	{                                                              \
		va_list list;                                          \
                                                                       \
		va_start(list, second);                                \
		void *argument = va_arg(list, void *);                 \
                                                                       \
		va_end(list);                                          \
		if (fails(#name))                                      \
			return -1;                                     \
		return __real_##name(first, second, argument);         \
	}

WRAP_VARIADIC(int, ioctl, int, unsigned long)
WRAP_VARIADIC(int, fcntl64, int, int)
WRAP_VARIADIC(int, open64, const char *, int)

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	long a[6];
	va_list list;

	va_start(list, number);
	for (size_t i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (fails("syscall"))
		return -1;
	if (fail_depth && number == FILESYSTEM_CACHESTAT && fail_cachestat) {
		errno = ENOSYS;
		return -1;
	}
	if (fail_depth && number == SYS_quotactl_fd && fail_quotactl) {
		errno = fail_quotactl((int)a[1], (unsigned)a[2], (void *)a[3]);
		return errno ? -1 : 0;
	}
	return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
