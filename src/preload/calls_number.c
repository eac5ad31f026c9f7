/* SPDX-License-Identifier: MIT */
/*
 * calls_number.c - hook of syscall(), and what a system call of a number stores where: a table.
 * What reads data of any length goes to the hook of that name.
 */
#include "calls.h"
#include "number.h"
#include "actions.h"

#include <linux/aio_abi.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>

/* Our own calls of these go past the hooks (inner.c); by these names they do not. */
extern typeof(read) __real_read;
extern typeof(pread64) __real_pread64;
extern typeof(recvmsg) __real_recvmsg;
extern typeof(process_vm_readv) __real_process_vm_readv;
extern typeof(mmap) __real_mmap;
extern typeof(munmap) __real_munmap;
extern typeof(mprotect) __real_mprotect;
extern typeof(madvise) __real_madvise;
extern typeof(fsync) __real_fsync;
extern typeof(ftruncate) __real_ftruncate;
extern typeof(fallocate) __real_fallocate;

struct output {
	unsigned char arg; /* which argument points there, from 1; 0: end of the list */
	enum { BYTES, COUNT, LENGTH, SETS, PAGES, VECTOR, MESSAGE, MESSAGES } by;
	unsigned char of;     /* which argument has the count; from 1 */
	unsigned short bytes; /* of one */
};

struct number {
	struct output out[4];
};

/* Numbers past it are newer than this table. */
#define NUMBERS 512

/* clang-format off */
#define FIXED(arg, bytes)     {arg, BYTES, 0, bytes}
#define COUNTED(arg, of, one) {arg, COUNT, of, one}
#define SOCKLEN(arg, of)      {arg, LENGTH, of, 0}, {of, BYTES, 0, sizeof(socklen_t)}
#define BY(arg, how, of)      {arg, how, of, 0}

static const struct number stores[NUMBERS] = {
	[SYS_read] = {{COUNTED(2, 3, 1)}},
	[SYS_pread64] = {{COUNTED(2, 3, 1)}},
	[SYS_readv] = {{BY(2, VECTOR, 3)}},
	[SYS_preadv] = {{BY(2, VECTOR, 3)}},
	[SYS_preadv2] = {{BY(2, VECTOR, 3)}},
	[SYS_recvfrom] = {{COUNTED(2, 3, 1), SOCKLEN(5, 6)}},
	[SYS_recvmsg] = {{BY(2, MESSAGE, 0)}},
	[SYS_recvmmsg] = {{BY(2, MESSAGES, 3), FIXED(5, 16)}},
	[SYS_getrandom] = {{COUNTED(1, 2, 1)}},
	[SYS_process_vm_readv] = {{BY(2, VECTOR, 3)}},
	[SYS_getdents64] = {{COUNTED(2, 3, 1)}},
	[SYS_readlinkat] = {{COUNTED(3, 4, 1)}},
	[SYS_getcwd] = {{COUNTED(1, 2, 1)}},
	[SYS_getxattr] = {{COUNTED(3, 4, 1)}},
	[SYS_lgetxattr] = {{COUNTED(3, 4, 1)}},
	[SYS_fgetxattr] = {{COUNTED(3, 4, 1)}},
	[SYS_listxattr] = {{COUNTED(2, 3, 1)}},
	[SYS_llistxattr] = {{COUNTED(2, 3, 1)}},
	[SYS_flistxattr] = {{COUNTED(2, 3, 1)}},
	[SYS_fstat] = {{FIXED(2, sizeof(struct stat))}},
	[SYS_newfstatat] = {{FIXED(3, sizeof(struct stat))}},
	[SYS_statx] = {{FIXED(5, sizeof(struct statx))}},
	[SYS_statfs] = {{FIXED(2, sizeof(struct statfs))}},
	[SYS_fstatfs] = {{FIXED(2, sizeof(struct statfs))}},
	[SYS_mincore] = {{BY(3, PAGES, 2)}},
	[SYS_splice] = {{FIXED(2, 8), FIXED(4, 8)}},
	[SYS_copy_file_range] = {{FIXED(2, 8), FIXED(4, 8)}},
	[SYS_sendfile] = {{FIXED(3, 8)}},
	[SYS_pipe2] = {{FIXED(1, 8)}},
	[SYS_socketpair] = {{FIXED(4, 8)}},
	[SYS_accept] = {{SOCKLEN(2, 3)}},
	[SYS_accept4] = {{SOCKLEN(2, 3)}},
	[SYS_getsockname] = {{SOCKLEN(2, 3)}},
	[SYS_getpeername] = {{SOCKLEN(2, 3)}},
	[SYS_getsockopt] = {{SOCKLEN(4, 5)}},
	[SYS_ppoll] = {{COUNTED(1, 2, sizeof(struct pollfd)), FIXED(3, 16)}},
	[SYS_pselect6] = {{BY(2, SETS, 1), BY(3, SETS, 1), BY(4, SETS, 1), FIXED(5, 16)}},
	[SYS_epoll_pwait] = {{COUNTED(2, 3, sizeof(struct epoll_event))}},
	[SYS_wait4] = {{FIXED(2, sizeof(int)), FIXED(4, sizeof(struct rusage))}},
	[SYS_waitid] = {{FIXED(3, sizeof(siginfo_t)), FIXED(5, sizeof(struct rusage))}},
	[SYS_getrusage] = {{FIXED(2, sizeof(struct rusage))}},
	[SYS_times] = {{FIXED(1, sizeof(struct tms))}},
	[SYS_uname] = {{FIXED(1, sizeof(struct utsname))}},
	[SYS_sysinfo] = {{FIXED(1, sizeof(struct sysinfo))}},
	[SYS_prlimit64] = {{FIXED(4, sizeof(struct rlimit64))}},
	[SYS_getgroups] = {{COUNTED(2, 1, sizeof(gid_t))}},
	[SYS_getresuid] = {{FIXED(1, 4), FIXED(2, 4), FIXED(3, 4)}},
	[SYS_getresgid] = {{FIXED(1, 4), FIXED(2, 4), FIXED(3, 4)}},
	[SYS_sched_getaffinity] = {{COUNTED(3, 2, 1)}},
	[SYS_sched_getparam] = {{FIXED(2, sizeof(struct sched_param))}},
	[SYS_sched_rr_get_interval] = {{FIXED(2, 16)}},
	[SYS_getcpu] = {{FIXED(1, 4), FIXED(2, 4)}},
	[SYS_nanosleep] = {{FIXED(2, 16)}},
	[SYS_clock_nanosleep] = {{FIXED(4, 16)}},
	[SYS_clock_gettime] = {{FIXED(2, 16)}},
	[SYS_clock_getres] = {{FIXED(2, 16)}},
	[SYS_gettimeofday] = {{FIXED(1, 16), FIXED(2, 8)}},
	[SYS_timer_gettime] = {{FIXED(2, 32)}},
	[SYS_timer_settime] = {{FIXED(4, 32)}},
	[SYS_timerfd_gettime] = {{FIXED(2, 32)}},
	[SYS_timerfd_settime] = {{FIXED(4, 32)}},
	[SYS_getitimer] = {{FIXED(2, 32)}},
	[SYS_setitimer] = {{FIXED(3, 32)}},
	[SYS_rt_sigpending] = {{FIXED(1, 8)}},
	[SYS_rt_sigtimedwait] = {{FIXED(2, sizeof(siginfo_t))}},
	[SYS_msgrcv] = {{COUNTED(2, 3, 1)}},
	[SYS_mq_timedreceive] = {{COUNTED(2, 3, 1), FIXED(4, 4)}},
	[SYS_io_getevents] = {{COUNTED(4, 3, sizeof(struct io_event)), FIXED(5, 16)}},
	[SYS_ioctl] = {{FIXED(3, 256)}},
	[SYS_fcntl] = {{FIXED(3, sizeof(struct flock))}},
#if defined(__x86_64__)
	[SYS_stat] = {{FIXED(2, sizeof(struct stat))}},
	[SYS_lstat] = {{FIXED(2, sizeof(struct stat))}},
	[SYS_readlink] = {{COUNTED(2, 3, 1)}},
	[SYS_pipe] = {{FIXED(1, 8)}},
	[SYS_poll] = {{COUNTED(1, 2, sizeof(struct pollfd))}},
	[SYS_select] = {{BY(2, SETS, 1), BY(3, SETS, 1), BY(4, SETS, 1), FIXED(5, 16)}},
	[SYS_epoll_wait] = {{COUNTED(2, 3, sizeof(struct epoll_event))}},
	[SYS_getrlimit] = {{FIXED(2, 16)}},
	[SYS_time] = {{FIXED(1, 8)}},
#endif
	/* These change what is mapped. */
	[SYS_mprotect] = {{COUNTED(1, 2, 1)}},
	[SYS_munmap] = {{COUNTED(1, 2, 1)}},
	[SYS_mremap] = {{COUNTED(1, 2, 1), COUNTED(5, 3, 1)}},
	[SYS_madvise] = {{COUNTED(1, 2, 1)}},
	[SYS_mmap] = {{COUNTED(1, 2, 1)}}, /* the address is a hint perhaps */
};

#define H(name) [SYS_##name] = true,

static const bool harmless[NUMBERS] = {
	H(write) H(writev) H(pwrite64) H(pwritev) H(pwritev2) H(openat) H(close)
	H(close_range) H(lseek) H(brk) H(futex) H(sched_yield) H(gettid) H(getpid)
	H(getppid) H(getpgid) H(setpgid) H(getsid) H(setsid) H(getuid) H(geteuid)
	H(getgid) H(getegid) H(exit) H(exit_group) H(kill) H(tkill) H(tgkill)
	H(rt_sigqueueinfo) H(rt_tgsigqueueinfo) H(fsync) H(fdatasync) H(sync) H(syncfs)
	H(sync_file_range) H(msync) H(ftruncate) H(truncate) H(fallocate) H(fadvise64)
	H(readahead) H(mlock) H(munlock) H(unlinkat) H(renameat2) H(mkdirat)
	H(linkat) H(symlinkat) H(mknodat) H(faccessat) H(chdir) H(fchdir) H(fchmod)
	H(fchmodat) H(fchown) H(fchownat) H(utimensat) H(umask) H(flock) H(dup)
	H(dup3) H(socket) H(bind) H(listen) H(connect) H(shutdown) H(sendto)
	H(sendmsg) H(setsockopt) H(epoll_create1) H(epoll_ctl) H(eventfd2)
	H(timerfd_create) H(timer_delete) H(signalfd4) H(inotify_init1)
	H(inotify_add_watch) H(inotify_rm_watch) H(memfd_create) H(membarrier)
	H(getpriority) H(setpriority) H(sched_setaffinity) H(sched_setparam)
	H(sched_setscheduler) H(sched_getscheduler) H(sched_get_priority_max)
	H(sched_get_priority_min) H(set_robust_list) H(execve) H(execveat) H(tee)
	H(semop) H(semtimedop) H(semget) H(msgget) H(msgsnd) H(shmget)
	H(mq_timedsend) H(pidfd_open) H(pidfd_send_signal) H(process_vm_writev)
	H(io_cancel) H(mlockall) H(munlockall)
#if defined(__x86_64__)
	H(open) H(creat) H(unlink) H(rename) H(mkdir) H(rmdir) H(link) H(symlink)
	H(access) H(chmod) H(chown) H(lchown) H(dup2) H(epoll_create) H(eventfd)
	H(alarm) H(pause) H(getpgrp) H(inotify_init) H(utime) H(utimes) H(renameat)
#endif
};
/* clang-format on */

/* NULL: it stores nothing, or that is not known. */
static const struct number *number_find(long number)
{
	return number >= 0 && number < NUMBERS && stores[number].out[0].arg ? &stores[number]
									    : NULL;
}

static bool message_covers(const struct msghdr *m)
{
	return calls_covers(m, sizeof(*m)) || calls_covers(m->msg_name, m->msg_namelen) ||
	       calls_covers(m->msg_control, m->msg_controllen) ||
	       calls_covers_vector(m->msg_iov, m->msg_iovlen);
}

static bool messages_cover(const struct mmsghdr *messages, size_t count)
{
	for (size_t i = 0; i < count && i < UIO_MAXIOV; i++)
		if (calls_covers(&messages[i], sizeof(messages[i])) ||
		    message_covers(&messages[i].msg_hdr))
			return true;
	return false;
}

/* How many bytes are stored there, if it is known. */
static size_t output_bytes(const struct output *out, const long args[6])
{
	const void *p = (const void *)args[out->arg - 1];
	size_t n = out->of ? (size_t)args[out->of - 1] : 0;

	switch (out->by) {
	case BYTES:
		return out->bytes;
	case COUNT:
		return n > SIZE_MAX / 2 / out->bytes ? 0 : n * out->bytes;
	case LENGTH:
		return n && p && calls_covers(p, sizeof(struct sockaddr_storage))
			       ? *(const socklen_t *)n
			       : 0;
	case SETS:
		return (n + 63) / 64 * 8;
	case PAGES:
		return (n + 4095) / 4096;
	default:
		return 0;
	}
}

static bool output_covers(const struct output *out, const long args[6])
{
	const void *p = (const void *)args[out->arg - 1];
	size_t n = out->of ? (size_t)args[out->of - 1] : 0;

	if (!p)
		return false;
	if (out->by == VECTOR)
		return calls_covers_vector(p, n);
	if (out->by == MESSAGE)
		return message_covers(p);
	if (out->by == MESSAGES)
		return messages_cover(p, n);
	return calls_covers(p, output_bytes(out, args));
}

static bool number_covers(const struct number *number, const long args[6])
{
	/* Without it the address is a hint. */
	if (number == &stores[SYS_mmap] && !(args[3] & MAP_FIXED))
		return false;
	for (size_t i = 0; i < 4 && number->out[i].arg; i++)
		if (output_covers(&number->out[i], args))
			return true;
	return false;
}

/* Will a request of Linux's own asynchronous I/O store to a view? */
static bool requests_cover(const long args[6])
{
	struct iocb *const *requests = (struct iocb *const *)args[2];

	for (long i = 0; i < args[1]; i++) {
		const struct iocb *r = requests[i];
		const void *p = (const void *)r->aio_buf;

		if (r->aio_lio_opcode == IOCB_CMD_PREAD && calls_covers(p, r->aio_nbytes))
			return true;
		if (r->aio_lio_opcode == IOCB_CMD_PREADV && calls_covers_vector(p, r->aio_nbytes))
			return true;
	}
	return false;
}

enum number_is number_judge(long number, const long args[6])
{
	const struct number *found = number_find(number);

	if (found)
		return number_covers(found, args) ? NUMBER_COVERED : NUMBER_STORES;
	if (number == SYS_io_uring_setup || number == SYS_io_uring_enter ||
	    number == SYS_io_uring_register)
		return NUMBER_RING;
	if (number == SYS_io_submit)
		return requests_cover(args) ? NUMBER_COVERED : NUMBER_STORES;
	return number >= 0 && number < NUMBERS && harmless[number] ? NUMBER_HARMLESS
								   : NUMBER_UNKNOWN;
}

/* ---- syscall() ---------------------------------------------------------------------------- */

static long pass_on(long number, const long a[6])
{
	return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long let_number(long number, const long a[6])
{
	const struct number *found = number_find(number);
	CALLS_LETS_OF_BLOCK(lets);

	for (size_t i = 0; i < 4 && found->out[i].arg; i++)
		if (!calls_let_all(&lets, (void *)a[found->out[i].arg - 1],
				   output_bytes(&found->out[i], a)))
			calls_open_all(RUN_SAY_RAW_CALLS);
	return pass_on(number, a);
}

/* The offset of preadv has two words. */
static off64_t offset_of(const long a[6])
{
	return sizeof(long) == 8 ? a[3] : (off64_t)((uint64_t)(unsigned long)a[4] << 32) | a[3];
}

static long by_number(long number, const long a[6])
{
	int fd = (int)a[0], n = (int)a[2], flags = (int)a[3];
	void *p = (void *)a[1];

	switch (number) {
	case SYS_read:
		return __real_read(fd, p, (size_t)a[2]);
	case SYS_pread64:
		return __real_pread64(fd, p, (size_t)a[2], a[3]);
	case SYS_readv:
		return readv(fd, p, n);
	case SYS_preadv:
		return preadv64(fd, p, n, offset_of(a));
	case SYS_preadv2:
		return preadv64v2(fd, p, n, offset_of(a), (int)a[5]);
	case SYS_recvfrom:
		return recvfrom(fd, p, (size_t)a[2], flags,
				(__SOCKADDR_ARG){.__sockaddr__ = (void *)a[4]}, (void *)a[5]);
	case SYS_recvmsg:
		return __real_recvmsg(fd, p, n);
	case SYS_recvmmsg:
		return recvmmsg(fd, p, (unsigned)n, flags, (void *)a[4]);
	case SYS_getrandom:
		return getrandom((void *)a[0], (size_t)a[1], (unsigned)a[2]);
	case SYS_process_vm_readv:
		return __real_process_vm_readv((pid_t)a[0], p, (unsigned long)a[2], (void *)a[3],
					       (unsigned long)a[4], (unsigned long)a[5]);
	default:
		return let_number(number, a);
	}
}

/* What other hooks stand before, whatever its arguments. False: it is none of that. */
static bool by_other_hook(long number, const long a[6], long *result)
{
	void *p = (void *)a[0];
	size_t n = (size_t)a[1];
	int fd = (int)a[0];

	switch (number) {
	case SYS_mmap:
		*result = (long)__real_mmap(p, n, (int)a[2], (int)a[3], (int)a[4], a[5]);
		return true;
	case SYS_munmap:
		*result = __real_munmap(p, n);
		return true;
	case SYS_mprotect:
		*result = __real_mprotect(p, n, (int)a[2]);
		return true;
	case SYS_mremap:
		*result = (long)mremap(p, n, (size_t)a[2], (int)a[3], (void *)a[4]);
		return true;
	case SYS_madvise:
		*result = __real_madvise(p, n, (int)a[2]);
		return true;
	case SYS_msync:
		*result = msync(p, n, (int)a[2]);
		return true;
	case SYS_ftruncate:
		*result = __real_ftruncate(fd, a[1]);
		return true;
	case SYS_fallocate:
		*result = __real_fallocate(fd, (int)a[1], a[2], a[3]);
		return true;
	case SYS_fsync:
		*result = __real_fsync(fd);
		return true;
	case SYS_fdatasync:
		*result = fdatasync(fd);
		return true;
	case SYS_rt_sigprocmask:
		*result = actions_sigprocmask((int)a[0], (void *)a[1], (void *)a[2], (size_t)a[3]);
		return true;
	default:
		return false;
	}
}

HOOK long syscall(long number, ...)
{
	long a[6], result;
	va_list rest;

	va_start(rest, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(rest, long);
	va_end(rest);
	if (!preload_control)
		return pass_on(number, a);
	raw_join();
	raw_note(number, a);
	if (by_other_hook(number, a, &result))
		return result;
	switch (number_judge(number, a)) {
	case NUMBER_COVERED:
		if (number != SYS_io_submit)
			return by_number(number, a);
		calls_open_all(RUN_SAY_RAW_CALLS);
		break;
	case NUMBER_RING:
		calls_open_all(RUN_SAY_IO_URING);
		break;
	default:
		break;
	}
	return pass_on(number, a);
}

/* ---- libaio, which makes its calls by itself ------------------------------------------------ */

int io_submit(aio_context_t context, long count, struct iocb **requests);
int io_getevents(aio_context_t context, long min, long count, struct io_event *events,
		 struct timespec *timeout);

static int as_libaio(long result, int saved)
{
	if (result < 0)
		result = -errno;
	errno = saved;
	return (int)result;
}

HOOK int io_submit(aio_context_t context, long count, struct iocb **requests)
{
	int saved = errno;

	return as_libaio(syscall(SYS_io_submit, context, count, requests), saved);
}

HOOK int io_getevents(aio_context_t context, long min, long count, struct io_event *events,
		      struct timespec *timeout)
{
	int saved = errno;

	return as_libaio(syscall(SYS_io_getevents, context, min, count, events, timeout), saved);
}
