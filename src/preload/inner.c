/* SPDX-License-Identifier: MIT */
/*
 * inner.c - calls of libc by the library itself, and by the files here: they are not the program's,
 * and go past our own hooks. The linker makes them calls of these (--wrap in meson.build); a hook
 * may need locks that the caller holds.
 */
#include "next.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/auxv.h>

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
INNER(int, munmap, (void *a, size_t b), a, b)
INNER(int, mprotect, (void *a, size_t b, int c), a, b, c)
INNER(int, madvise, (void *a, size_t b, int c), a, b, c)
INNER(int, close, (int a), a)
INNER(int, fsync, (int a), a)
INNER(int, ftruncate, (int a, off_t b), a, b)
INNER(int, fallocate, (int a, int b, off_t c, off_t d), a, b, c, d)
INNER(int, sync_file_range, (int a, off64_t b, off64_t c, unsigned d), a, b, c, d)
INNER_TOO(int, ftruncate64, ftruncate, (int a, off64_t b), a, b)
INNER_TOO(int, fallocate64, fallocate, (int a, int b, off64_t c, off64_t d), a, b, c, d)
/* clang-format on */

/* ---- Memory of ours ----------------------------------------------------------------------- */

/*
 * Out of the way: a program that has unmapped something may map something else there without
 * asking, when none of its threads has mapped anything since. Where these addresses are not to be
 * had it is left to the kernel.
 */
#define AWAY	    0x350000000000ull
#define STACK_BYTES (512u << 10)

static void *map_away(size_t length, int protection, int flags, int fd, off64_t offset)
{
	static _Atomic uintptr_t next;
	const uintptr_t random = getauxval(AT_RANDOM), page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t at = 0;

	if (random != 0 && AWAY <= UINTPTR_MAX)
		atomic_compare_exchange_strong(
			&next, &at,
			(uintptr_t)AWAY + (*(const uint32_t *)random & 0xffffff) * page);
	at = atomic_fetch_add(&next, (length + 2 * page - 1) & ~(page - 1));
	return NEXT(mmap)((void *)at, length, protection, flags, fd, offset);
}

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	if (address == NULL && (flags & MAP_FIXED) == 0)
		return map_away(length, protection, flags, fd, offset);
	return NEXT(mmap)(address, length, protection, flags, fd, offset);
}

void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd,
		    off64_t offset);
void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
	return __wrap_mmap(address, length, protection, flags, fd, offset);
}

/* Threads of ours end with the process: their stacks are not unmapped. */
static int create_away(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	char *stack =
		map_away(STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attr;
	int error = ENOMEM;

	if (stack == MAP_FAILED || pthread_attr_init(&attr) != 0)
		return ENOMEM;
	if (pthread_attr_setstack(&attr, stack, STACK_BYTES) == 0)
		error = NEXT(pthread_create)(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	if (error != 0)
		NEXT(munmap)(stack, STACK_BYTES);
	return error;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg)
{
	/* One that needs much for its own variables is left to libc. */
	if (attr == NULL && create_away(thread, fn, arg) == 0)
		return 0;
	return NEXT(pthread_create)(thread, attr, fn, arg);
}

/* ---- The others --------------------------------------------------------------------------- */

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
