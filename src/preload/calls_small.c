/* SPDX-License-Identifier: MIT */
/*
 * calls_small.c - hooks of what stores things of a known size into the caller's memory (calls.h): a
 * table of functions, of what they store where. Of functions with two outputs and more each is let
 * in by itself.
 */
#include "calls.h"
#include "actions.h"
#include "snapshots.h"

#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>

/* ret name(params), which stores so many bytes at each place; args are the names of the params. */
#define STORES(ret, name, params, args, p, n)       \
	HOOK ret name params                        \
	{                                           \
		CALLS_LETS_OF_BLOCK(lets);          \
		if (calls_covers(p, n))             \
			calls_let_all(&lets, p, n); \
		return NEXT(name) args;             \
	}

#define STORES_2(ret, name, params, args, p, n, p2, n2)           \
	HOOK ret name params                                      \
	{                                                         \
		CALLS_LETS_OF_BLOCK(lets);                        \
		if (calls_covers(p, n) || calls_covers(p2, n2)) { \
			calls_let_all(&lets, p, n);               \
			calls_let_all(&lets, p2, n2);             \
		}                                                 \
		return NEXT(name) args;                           \
	}

#define STORES_3(ret, name, params, args, p, n, p2, n2, p3, n3)                           \
	HOOK ret name params                                                              \
	{                                                                                 \
		CALLS_LETS_OF_BLOCK(lets);                                                \
		if (calls_covers(p, n) || calls_covers(p2, n2) || calls_covers(p3, n3)) { \
			calls_let_all(&lets, p, n);                                       \
			calls_let_all(&lets, p2, n2);                                     \
			calls_let_all(&lets, p3, n3);                                     \
		}                                                                         \
		return NEXT(name) args;                                                   \
	}

/* ---- Files -------------------------------------------------------------------------------- */

#define STAT sizeof(struct stat)

STORES(int, stat, (const char *path, struct stat *s), (path, s), s, STAT)
STORES(int, lstat, (const char *path, struct stat *s), (path, s), s, STAT)
STORES(int, fstat, (int fd, struct stat *s), (fd, s), s, STAT)
STORES(int, fstatat, (int dir, const char *path, struct stat *s, int flags), (dir, path, s, flags),
       s, STAT)
STORES(int, stat64, (const char *path, struct stat64 *s), (path, s), s, STAT)
STORES(int, lstat64, (const char *path, struct stat64 *s), (path, s), s, STAT)
STORES(int, fstat64, (int fd, struct stat64 *s), (fd, s), s, STAT)
STORES(int, fstatat64, (int dir, const char *path, struct stat64 *s, int flags),
       (dir, path, s, flags), s, STAT)
STORES(int, __xstat, (int v, const char *path, struct stat *s), (v, path, s), s, STAT)
STORES(int, __lxstat, (int v, const char *path, struct stat *s), (v, path, s), s, STAT)
STORES(int, __fxstat, (int v, int fd, struct stat *s), (v, fd, s), s, STAT)
STORES(int, __fxstatat, (int v, int dir, const char *path, struct stat *s, int flags),
       (v, dir, path, s, flags), s, STAT)
STORES(int, __xstat64, (int v, const char *path, struct stat64 *s), (v, path, s), s, STAT)
STORES(int, __lxstat64, (int v, const char *path, struct stat64 *s), (v, path, s), s, STAT)
STORES(int, __fxstat64, (int v, int fd, struct stat64 *s), (v, fd, s), s, STAT)
STORES(int, __fxstatat64, (int v, int dir, const char *path, struct stat64 *s, int flags),
       (v, dir, path, s, flags), s, STAT)
STORES(int, statx, (int dir, const char *path, int flags, unsigned mask, struct statx *s),
       (dir, path, flags, mask, s), s, sizeof(*s))
STORES(int, statfs, (const char *path, struct statfs *s), (path, s), s, sizeof(*s))
STORES(int, statfs64, (const char *path, struct statfs64 *s), (path, s), s, sizeof(*s))
STORES(int, fstatfs, (int fd, struct statfs *s), (fd, s), s, sizeof(*s))
STORES(int, fstatfs64, (int fd, struct statfs64 *s), (fd, s), s, sizeof(*s))
STORES(__ssize_t, getdents64, (int fd, void *p, size_t n), (fd, p, n), p, n)
STORES(ssize_t, readlink, (const char *path, char *p, size_t n), (path, p, n), p, n)
STORES(ssize_t, readlinkat, (int dir, const char *path, char *p, size_t n), (dir, path, p, n), p, n)
STORES(ssize_t, __readlink_chk, (const char *path, char *p, size_t n, size_t size),
       (path, p, n, size), p, n)
STORES(ssize_t, __readlinkat_chk, (int dir, const char *path, char *p, size_t n, size_t size),
       (dir, path, p, n, size), p, n)
STORES(char *, getcwd, (char *p, size_t n), (p, n), p, n)
STORES(char *, __getcwd_chk, (char *p, size_t n, size_t size), (p, n, size), p, n)
STORES(ssize_t, getxattr, (const char *path, const char *name, void *p, size_t n),
       (path, name, p, n), p, n)
STORES(ssize_t, lgetxattr, (const char *path, const char *name, void *p, size_t n),
       (path, name, p, n), p, n)
STORES(ssize_t, fgetxattr, (int fd, const char *name, void *p, size_t n), (fd, name, p, n), p, n)
STORES(ssize_t, listxattr, (const char *path, char *p, size_t n), (path, p, n), p, n)
STORES(ssize_t, llistxattr, (const char *path, char *p, size_t n), (path, p, n), p, n)
STORES(ssize_t, flistxattr, (int fd, char *p, size_t n), (fd, p, n), p, n)
STORES(int, mincore, (void *at, size_t n, unsigned char *p), (at, n, p), p, (n + 4095) / 4096)

#define OFFSET sizeof(off64_t)

/* They also write to files. A splice that waits for a pipe is in the way of a snapshot. */
#define COPIES(name)                                                                         \
	HOOK ssize_t name(int in, off64_t *at_in, int out, off64_t *at_out, size_t n,        \
			  unsigned flags)                                                    \
	{                                                                                    \
		CALLS_LETS_OF_BLOCK(lets);                                                   \
		SNAPSHOTS_HOLD_OF_BLOCK(hold);                                               \
		if (calls_covers(at_in, OFFSET) || calls_covers(at_out, OFFSET)) {           \
			calls_let_all(&lets, at_in, OFFSET);                                 \
			calls_let_all(&lets, at_out, OFFSET);                                \
		}                                                                            \
		if (snapshots_are_made())                                                    \
			snapshots_hold_fd(&hold, out, at_out ? *at_out : SNAPSHOTS_HERE, n); \
		return NEXT(name)(in, at_in, out, at_out, n, flags);                         \
	}
COPIES(splice)
COPIES(copy_file_range)

#define SENDS(name, offset)                                               \
	HOOK ssize_t name(int out, int in, offset *at, size_t n)          \
	{                                                                 \
		CALLS_LETS_OF_BLOCK(lets);                                \
		SNAPSHOTS_HOLD_OF_BLOCK(hold);                            \
		if (calls_covers(at, OFFSET))                             \
			calls_let_all(&lets, at, OFFSET);                 \
		if (snapshots_are_made())                                 \
			snapshots_hold_fd(&hold, out, SNAPSHOTS_HERE, n); \
		return NEXT(name)(out, in, at, n);                        \
	}
SENDS(sendfile, off_t)
SENDS(sendfile64, off64_t)

/* ---- Descriptors and sockets -------------------------------------------------------------- */

STORES(int, pipe, (int fds[2]), (fds), fds, 2 * sizeof(int))
STORES(int, pipe2, (int fds[2], int flags), (fds, flags), fds, 2 * sizeof(int))
STORES(int, socketpair, (int domain, int type, int protocol, int fds[2]),
       (domain, type, protocol, fds), fds, 2 * sizeof(int))
STORES(int, eventfd_read, (int fd, eventfd_t *p), (fd, p), p, sizeof(*p))
STORES(int, poll, (struct pollfd * fds, nfds_t n, int timeout), (fds, n, timeout), fds,
       n * sizeof(*fds))
STORES(int, __poll_chk, (struct pollfd * fds, nfds_t n, int timeout, size_t size),
       (fds, n, timeout, size), fds, n * sizeof(*fds))
STORES(int, epoll_wait, (int fd, struct epoll_event *events, int n, int timeout),
       (fd, events, n, timeout), events, n > 0 ? (size_t)n * sizeof(*events) : 0)

/* Sets of descriptors are words of 64 bits. */
#define FD_BYTES(n) ((n) > 0 ? ((size_t)(n) + 63) / 64 * 8 : 0)

STORES_3(int, select, (int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout),
	 (n, in, out, except, timeout), in, FD_BYTES(n), out, FD_BYTES(n), except, FD_BYTES(n))

/* The length is looked at only where the address may have to be let in. */
static size_t address_bytes(const void *address, const socklen_t *length)
{
	return address && calls_covers(address, sizeof(struct sockaddr_storage)) ? *length : 0;
}

#define STORES_ADDRESS(name, params, args)                      \
	STORES_2(int, name, params, args, address.__sockaddr__, \
		 address_bytes(address.__sockaddr__, length), length, sizeof(*length))

STORES_ADDRESS(accept, (int fd, __SOCKADDR_ARG address, socklen_t *length), (fd, address, length))
STORES_ADDRESS(accept4, (int fd, __SOCKADDR_ARG address, socklen_t *length, int flags),
	       (fd, address, length, flags))
STORES_ADDRESS(getsockname, (int fd, __SOCKADDR_ARG address, socklen_t *length),
	       (fd, address, length))
STORES_ADDRESS(getpeername, (int fd, __SOCKADDR_ARG address, socklen_t *length),
	       (fd, address, length))
STORES_2(int, getsockopt, (int fd, int level, int name, void *p, socklen_t *length),
	 (fd, level, name, p, length), p, address_bytes(p, length), length, sizeof(*length))

STORES(ssize_t, msgrcv, (int queue, void *p, size_t n, long type, int flags),
       (queue, p, n, type, flags), p, n + sizeof(long))
STORES_2(ssize_t, mq_receive, (mqd_t queue, char *p, size_t n, unsigned *priority),
	 (queue, p, n, priority), p, n, priority, sizeof(*priority))
STORES_2(ssize_t, mq_timedreceive,
	 (mqd_t queue, char *p, size_t n, unsigned *priority, const struct timespec *until),
	 (queue, p, n, priority, until), p, n, priority, sizeof(*priority))

/* ---- Processes, time, the system ---------------------------------------------------------- */

#define RUSAGE sizeof(struct rusage)

STORES(pid_t, wait, (int *status), (status), status, sizeof(int))
STORES(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), status,
       sizeof(int))
STORES_2(pid_t, wait3, (int *status, int options, struct rusage *usage), (status, options, usage),
	 status, sizeof(int), usage, RUSAGE)
STORES_2(pid_t, wait4, (pid_t pid, int *status, int options, struct rusage *usage),
	 (pid, status, options, usage), status, sizeof(int), usage, RUSAGE)
STORES(int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options),
       (type, id, info, options), info, sizeof(*info))
STORES(int, getrusage, (__rusage_who_t who, struct rusage *usage), (who, usage), usage, RUSAGE)
STORES(clock_t, times, (struct tms * p), (p), p, sizeof(*p))
STORES(int, uname, (struct utsname * p), (p), p, sizeof(*p))
STORES(int, sysinfo, (struct sysinfo * p), (p), p, sizeof(*p))
STORES(int, getrlimit, (__rlimit_resource_t what, struct rlimit *p), (what, p), p, sizeof(*p))
STORES(int, getrlimit64, (__rlimit_resource_t what, struct rlimit64 *p), (what, p), p, sizeof(*p))
STORES(int, prlimit,
       (pid_t pid, __rlimit_resource_t what, const struct rlimit *set, struct rlimit *p),
       (pid, what, set, p), p, sizeof(*p))
STORES(int, prlimit64,
       (pid_t pid, __rlimit_resource_t what, const struct rlimit64 *set, struct rlimit64 *p),
       (pid, what, set, p), p, sizeof(*p))
STORES(int, getgroups, (int n, gid_t *list), (n, list), list, n > 0 ? (size_t)n * sizeof(gid_t) : 0)
STORES(int, __getgroups_chk, (int n, gid_t *list, size_t size), (n, list, size), list,
       n > 0 ? (size_t)n * sizeof(gid_t) : 0)
STORES_3(int, getresuid, (uid_t * r, uid_t *e, uid_t *s), (r, e, s), r, sizeof(*r), e, sizeof(*e),
	 s, sizeof(*s))
STORES_3(int, getresgid, (gid_t * r, gid_t *e, gid_t *s), (r, e, s), r, sizeof(*r), e, sizeof(*e),
	 s, sizeof(*s))
STORES(int, sched_getaffinity, (pid_t pid, size_t n, cpu_set_t *p), (pid, n, p), p, n)
STORES(int, pthread_getaffinity_np, (pthread_t thread, size_t n, cpu_set_t *p), (thread, n, p), p,
       n)
STORES(int, sched_getparam, (pid_t pid, struct sched_param *p), (pid, p), p, sizeof(*p))

#define TIMESPEC sizeof(struct timespec)

STORES(int, sched_rr_get_interval, (pid_t pid, struct timespec *p), (pid, p), p, TIMESPEC)
STORES(int, nanosleep, (const struct timespec *time, struct timespec *left), (time, left), left,
       TIMESPEC)
STORES(int, clock_nanosleep,
       (clockid_t clock, int flags, const struct timespec *time, struct timespec *left),
       (clock, flags, time, left), left, TIMESPEC)
STORES(int, clock_getres, (clockid_t clock, struct timespec *p), (clock, p), p, TIMESPEC)
STORES_2(int, gettimeofday, (struct timeval * p, void *zone), (p, zone), p, sizeof(*p), zone,
	 sizeof(struct timezone))
STORES(int, timer_gettime, (timer_t timer, struct itimerspec *p), (timer, p), p, sizeof(*p))
STORES(int, timer_settime,
       (timer_t timer, int flags, const struct itimerspec *set, struct itimerspec *p),
       (timer, flags, set, p), p, sizeof(*p))
STORES(int, timerfd_gettime, (int fd, struct itimerspec *p), (fd, p), p, sizeof(*p))
STORES(int, timerfd_settime,
       (int fd, int flags, const struct itimerspec *set, struct itimerspec *p), (fd, flags, set, p),
       p, sizeof(*p))
STORES(int, getitimer, (__itimer_which_t which, struct itimerval *p), (which, p), p, sizeof(*p))
STORES(int, setitimer, (__itimer_which_t which, const struct itimerval *set, struct itimerval *p),
       (which, set, p), p, sizeof(*p))
STORES(int, getentropy, (void *p, size_t n), (p, n), p, n)
STORES(int, sigpending, (sigset_t * set), (set), set, sizeof(*set))
STORES(int, sigtimedwait, (const sigset_t *set, siginfo_t *info, const struct timespec *timeout),
       (set, info, timeout), info, sizeof(*info))
STORES(int, sigwaitinfo, (const sigset_t *set, siginfo_t *info), (set, info), info, sizeof(*info))

/* Times of processes and threads come from the kernel. The vdso would call it, and be reported for
 * that (raw.c). */
HOOK int clock_gettime(clockid_t clock, struct timespec *p)
{
	CALLS_LETS_OF_BLOCK(lets);

	if (calls_covers(p, TIMESPEC))
		calls_let_all(&lets, p, TIMESPEC);
	if (preload_control &&
	    (clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID))
		return (int)NEXT(syscall)(SYS_clock_gettime, clock, p);
	return NEXT(clock_gettime)(clock, p);
}

#if __GLIBC_PREREQ(2, 36)
/* It has no way to fail but to end the process. */
HOOK void arc4random_buf(void *p, size_t n)
{
	char piece[256];

	if (!calls_covers(p, n)) {
		NEXT(arc4random_buf)(p, n);
		return;
	}
	for (size_t done = 0; done < n; done += sizeof(piece)) {
		NEXT(arc4random_buf)(piece, sizeof(piece));
		memcpy((char *)p + done, piece,
		       n - done < sizeof(piece) ? n - done : sizeof(piece));
	}
	explicit_bzero(piece, sizeof(piece));
}
#endif

/* ---- With a mask for the time of the call ------------------------------------------------- */

/* As above, after the program's mask has been made ours. */
#define WAITS(ret, name, params, args, p, n)        \
	HOOK ret name params                        \
	{                                           \
		CALLS_LETS_OF_BLOCK(lets);          \
		sigset_t real;                      \
		mask = actions_mask(mask, &real);   \
		if (calls_covers(p, n))             \
			calls_let_all(&lets, p, n); \
		return NEXT(name) args;             \
	}

WAITS(int, ppoll,
      (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask),
      (fds, n, timeout, mask), fds, n * sizeof(*fds))
WAITS(int, __ppoll_chk,
      (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
       size_t size),
      (fds, n, timeout, mask, size), fds, n * sizeof(*fds))
WAITS(int, epoll_pwait,
      (int fd, struct epoll_event *events, int n, int timeout, const sigset_t *mask),
      (fd, events, n, timeout, mask), events, n > 0 ? (size_t)n * sizeof(*events) : 0)
WAITS(int, epoll_pwait2,
      (int fd, struct epoll_event *events, int n, const struct timespec *timeout,
       const sigset_t *mask),
      (fd, events, n, timeout, mask), events, n > 0 ? (size_t)n * sizeof(*events) : 0)

HOOK int pselect(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
		 const sigset_t *mask)
{
	CALLS_LETS_OF_BLOCK(lets);
	sigset_t real;

	mask = actions_mask(mask, &real);
	calls_let_all(&lets, in, FD_BYTES(n));
	calls_let_all(&lets, out, FD_BYTES(n));
	calls_let_all(&lets, except, FD_BYTES(n));
	return NEXT(pselect)(n, in, out, except, timeout, mask);
}

/* ---- Of which the size is not known ------------------------------------------------------- */

/* What the request says, and at least what is on the same page. The argument may be no pointer. */
static void let_argument(struct calls_lets *lets, unsigned long request, void *p)
{
	size_t length = 4096 - (uintptr_t)p % 4096;

	if (request && _IOC_DIR(request) & _IOC_READ && _IOC_SIZE(request) > length)
		length = _IOC_SIZE(request);
	calls_let_all(lets, p, length);
}

HOOK int ioctl(int fd, unsigned long request, ...)
{
	CALLS_LETS_OF_BLOCK(lets);
	va_list rest;
	void *p;

	va_start(rest, request);
	p = va_arg(rest, void *);
	va_end(rest);
	if (calls_covers(p, 1))
		let_argument(&lets, request, p);
	return NEXT(ioctl)(fd, request, p);
}

static bool stores_by_fcntl(int command)
{
	return command == F_GETLK || command == F_OFD_GETLK || command == F_GETOWN_EX ||
	       command == F_GET_RW_HINT || command == F_GET_FILE_RW_HINT;
}

HOOK int fcntl(int fd, int command, ...)
{
	CALLS_LETS_OF_BLOCK(lets);
	va_list rest;
	void *p;

	va_start(rest, command);
	p = va_arg(rest, void *);
	va_end(rest);
	if (stores_by_fcntl(command))
		calls_let_all(&lets, p, sizeof(struct flock64));
	return NEXT(fcntl)(fd, command, p);
}

HOOK int fcntl64(int fd, int command, ...)
{
	va_list rest;
	void *p;

	va_start(rest, command);
	p = va_arg(rest, void *);
	va_end(rest);
	return fcntl(fd, command, p);
}
