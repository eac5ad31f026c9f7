/* SPDX-License-Identifier: MIT */
/*
 * inner.c - calls of libc by the library itself, and by the files here: they are not the program's,
 * and go past our own hooks. The linker makes them calls of these (--wrap in meson.build); a hook
 * may need locks that the caller holds.
 */
#include "next.h"

#include <stdarg.h>

#define INNER(type, name, parameters, ...)      \
	type __wrap_##name parameters;          \
	type __wrap_##name parameters           \
	{                                       \
		return NEXT(name)(__VA_ARGS__); \
	}
#define INNER_TOO(type, name, like, parameters, ...) \
	type __wrap_##name parameters;               \
	type __wrap_##name parameters                \
	{                                            \
		return NEXT(like)(__VA_ARGS__);      \
	}

/* clang-format off */
INNER(int, sigaction, (int a, const struct sigaction *b, struct sigaction *c), a, b, c)
INNER(int, pthread_create, (pthread_t *a, const pthread_attr_t *b, void *(*c)(void *), void *d), a, b, c, d)
INNER(ssize_t, read, (int a, void *b, size_t c), a, b, c)
INNER(ssize_t, pread, (int a, void *b, size_t c, off_t d), a, b, c, d)
INNER(ssize_t, pread64, (int a, void *b, size_t c, off64_t d), a, b, c, d)
INNER(ssize_t, recv, (int a, void *b, size_t c, int d), a, b, c, d)
INNER(ssize_t, recvmsg, (int a, struct msghdr *b, int c), a, b, c)
INNER(ssize_t, readlink, (const char *a, char *b, size_t c), a, b, c)
INNER(ssize_t, process_vm_readv, (pid_t a, const struct iovec *b, unsigned long c, const struct iovec *d, unsigned long e, unsigned long f), a, b, c, d, e, f)
INNER(int, stat, (const char *a, struct stat *b), a, b)
INNER(int, stat64, (const char *a, struct stat64 *b), a, b)
INNER(int, fstat, (int a, struct stat *b), a, b)
INNER(int, fstat64, (int a, struct stat64 *b), a, b)
INNER(int, fstatat, (int a, const char *b, struct stat *c, int d), a, b, c, d)
INNER(int, fstatat64, (int a, const char *b, struct stat64 *c, int d), a, b, c, d)
INNER(int, statx, (int a, const char *b, int c, unsigned d, struct statx *e), a, b, c, d, e)
INNER(int, fstatfs, (int a, struct statfs *b), a, b)
INNER(int, fstatfs64, (int a, struct statfs64 *b), a, b)
INNER(int, getsockopt, (int a, int b, int c, void *d, socklen_t *e), a, b, c, d, e)
INNER(int, socketpair, (int a, int b, int c, int *d), a, b, c, d)
INNER(int, poll, (struct pollfd *a, nfds_t b, int c), a, b, c)
INNER(int, ppoll, (struct pollfd *a, nfds_t b, const struct timespec *c, const sigset_t *d), a, b, c, d)
INNER(int, clock_gettime, (clockid_t a, struct timespec *b), a, b)
INNER(int, clock_nanosleep, (clockid_t a, int b, const struct timespec *c, struct timespec *d), a, b, c, d)
INNER(int, nanosleep, (const struct timespec *a, struct timespec *b), a, b)
INNER(int, mincore, (void *a, size_t b, unsigned char *c), a, b, c)
INNER(void *, mmap, (void *a, size_t b, int c, int d, int e, off_t f), a, b, c, d, e, f)
INNER(int, munmap, (void *a, size_t b), a, b)
INNER(int, mprotect, (void *a, size_t b, int c), a, b, c)
INNER(int, madvise, (void *a, size_t b, int c), a, b, c)
INNER(int, close, (int a), a)
INNER(int, fsync, (int a), a)
INNER(int, ftruncate, (int a, off_t b), a, b)
INNER(int, fallocate, (int a, int b, off_t c, off_t d), a, b, c, d)
INNER(int, sync_file_range, (int a, off64_t b, off64_t c, unsigned d), a, b, c, d)
INNER_TOO(void *, mmap64, mmap, (void *a, size_t b, int c, int d, int e, off64_t f), a, b, c, d, e, f)
INNER_TOO(int, ftruncate64, ftruncate, (int a, off64_t b), a, b)
INNER_TOO(int, fallocate64, fallocate, (int a, int b, off64_t c, off64_t d), a, b, c, d)
/* clang-format on */

/* SIGSYS is never blocked: what the vdso cannot do without a system call would be fatal (raw.c). */
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t without;

	if (set != NULL && how != SIG_UNBLOCK) {
		without = *set;
		sigdelset(&without, SIGSYS);
		set = &without;
	}
	return NEXT(pthread_sigmask)(how, set, old);
}

/* Of any number of arguments: the kernel takes six at most, ioctl and fcntl one. */
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#define INNER_ONE(name, second)                  \
	int __wrap_##name(int a, second b, ...); \
	int __wrap_##name(int a, second b, ...)  \
	{                                        \
		va_list ap;                      \
		void *c;                         \
                                                 \
		va_start(ap, b);                 \
		c = va_arg(ap, void *);          \
		va_end(ap);                      \
		return NEXT(name)(a, b, c);      \
	}
INNER_ONE(ioctl, unsigned long)
INNER_ONE(fcntl, int)
INNER_ONE(fcntl64, int)

int __wrap_prctl(int option, ...);
int __wrap_prctl(int option, ...)
{
	unsigned long a[4];
	va_list ap;

	va_start(ap, option);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	return NEXT(prctl)(option, a[0], a[1], a[2], a[3]);
}
