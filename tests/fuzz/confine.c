/* SPDX-License-Identifier: MIT */
/*
 * confine.c - what the library's calls of open, realpath and clock_nanosleep are bound to (ld
 * --wrap) in the fuzz targets: paths are taken as below a scratch directory, and delays are short.
 *
 * The kernel resolves the paths with that directory as the root, so neither ".." nor a link leads
 * out of it. Only what the library itself opens by fixed names is let through.
 */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DELAY_MAX_NS 50000

int __wrap_open(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
char *__wrap_realpath(const char *path, char *resolved);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *until,
			   struct timespec *left);
int __real_open(const char *path, int flags, ...);

static char scratch[256];
static int scratch_fd = -1;

static void scratch_remove(void)
{
	confine_empty();
	rmdir(scratch);
}

/* The library's way to files must lead here, or nothing may be tried at all. */
static void scratch_verify(void)
{
	static const char *const uris[] = {"file:/fuzz-a", "file:../fuzz-b", "file:fuzz-c"};
	static const char *const names[] = {"fuzz-a", "fuzz-b", "fuzz-c"};

	for (size_t i = 0; i < 3; i++) {
		struct mkw_open_args args;
		int error = mkw_store_open(uris[i], MKW_RDWR | MKW_CREATE, &args);

		EXPECT(!error, "%s cannot be made in %s: %d", uris[i], scratch, error);
		args.ops->release(args.store);
		EXPECT(!faccessat(scratch_fd, names[i], F_OK, 0), "%s is not confined", uris[i]);
	}
	confine_empty();
}

int confine_directory(void)
{
	const char *where = getenv("TMPDIR");

	if (scratch_fd >= 0)
		return scratch_fd;
	if (!where || !*where)
		where = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
	snprintf(scratch, sizeof(scratch), "%s/mkwrite-fuzz-XXXXXX", where);
	EXPECT(mkdtemp(scratch), "no scratch directory %s", scratch);
	scratch_fd = __real_open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	EXPECT(scratch_fd >= 0, "%s: %s", scratch, strerror(errno));
	atexit(scratch_remove);
	scratch_verify();
	return scratch_fd;
}

void confine_empty(void)
{
	DIR *dir = fdopendir(openat(scratch_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(scratch_fd, entry->d_name, 0);
	if (dir)
		closedir(dir);
}

static int open_below(const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags,
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, scratch_fd, path, &how, sizeof(how));
}

/* Fixed names; and the store's second opening of its own file, which by its flags cannot be that of
 * a path in a URI: that one alone has O_NOCTTY. */
static bool path_is_own(const char *path, int flags)
{
	if (flags & O_NOCTTY)
		return false;
	return !strncmp(path, "/proc/self/", 11) || !strcmp(path, "/dev/userfaultfd");
}

static int open_any(const char *path, int flags, mode_t mode)
{
	if (path_is_own(path, flags))
		return __real_open(path, flags, mode);
	return open_below(path, flags, mode);
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;

	va_end(list);
	return open_any(path, flags, mode);
}

int __wrap_open64(const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;

	va_end(list);
	return open_any(path, flags, mode);
}

char *__wrap_realpath(const char *path, char *resolved)
{
	char link[64], real[4096];
	int fd = open_below(path, O_PATH | O_CLOEXEC, 0);

	EXPECT(!resolved, "realpath is asked to fill a buffer");
	if (fd < 0)
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, real, sizeof(real) - 1);

	close(fd);
	return length < 0 ? NULL : strndup(real, (size_t)length);
}

int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *until,
			   struct timespec *left)
{
	const struct timespec pause = {.tv_nsec = DELAY_MAX_NS};

	(void)clock;
	(void)flags;
	(void)until;
	(void)left;
	nanosleep(&pause, NULL);
	return 0;
}
