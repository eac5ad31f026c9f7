/* SPDX-License-Identifier: MIT */
/*
 * next.h - the functions that hooks stand before: the next ones of their names, those of libc as a
 * rule. A file that includes it defines hooks, and names functions as the linker knows them: so it
 * is included first, and takes away what makes headers rename them.
 *
 * The addresses are looked up by the constructor; before that (constructors of other libraries call
 * functions, too) one by one. A name that this libc does not have fails with ENOSYS.
 */
#ifndef NEXT_H
#define NEXT_H

#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE

#include <aio.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <dirent.h>
#include <dlfcn.h>
#include <mqueue.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#undef fread_unlocked
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* they have hooks all the same */

/* Exported, and the program sees them. */
#define HOOK __attribute__((visibility("default")))

/* What headers declare only for some programs, or not any more. */
ssize_t __read_chk(int fd, void *p, size_t n, size_t size);
ssize_t __pread_chk(int fd, void *p, size_t n, off_t offset, size_t size);
ssize_t __pread64_chk(int fd, void *p, size_t n, off64_t offset, size_t size);
ssize_t __recv_chk(int fd, void *p, size_t n, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void *p, size_t n, size_t size, int flags, __SOCKADDR_ARG address,
		       socklen_t *length);
size_t __fread_chk(void *p, size_t bytes, size_t size, size_t n, FILE *file);
size_t __fread_unlocked_chk(void *p, size_t bytes, size_t size, size_t n, FILE *file);
ssize_t __readlink_chk(const char *path, char *p, size_t n, size_t size);
ssize_t __readlinkat_chk(int dir, const char *path, char *p, size_t n, size_t size);
char *__getcwd_chk(char *p, size_t n, size_t size);
int __getgroups_chk(int n, gid_t *list, size_t size);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
		size_t size);
int __xstat(int version, const char *path, struct stat *stat);
int __lxstat(int version, const char *path, struct stat *stat);
int __fxstat(int version, int fd, struct stat *stat);
int __fxstatat(int version, int dir, const char *path, struct stat *stat, int flags);
int __xstat64(int version, const char *path, struct stat64 *stat);
int __lxstat64(int version, const char *path, struct stat64 *stat);
int __fxstat64(int version, int fd, struct stat64 *stat);
int __fxstatat64(int version, int dir, const char *path, struct stat64 *stat, int flags);
int epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *timeout,
		 const sigset_t *mask);
__sighandler_t bsd_signal(int sig, __sighandler_t handler);
__sighandler_t sysv_signal(int sig, __sighandler_t handler);
__sighandler_t __sysv_signal(int sig, __sighandler_t handler);
__sighandler_t ssignal(int sig, __sighandler_t handler);
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);
_Noreturn void __longjmp_chk(struct __jmp_buf_tag to[1], int value);
int __sigaction(int sig, const struct sigaction *action, struct sigaction *before);

#if __GLIBC_PREREQ(2, 36)
#define NEXT_RANDOM(X) X(arc4random_buf)
#else
#define NEXT_RANDOM(X)
#endif

/* clang-format off */
#define NEXT_ALL(X) \
	X(read) X(pread) X(pread64) X(readv) X(preadv) X(preadv64) X(preadv2) X(preadv64v2) \
	X(recv) X(recvfrom) X(recvmsg) X(recvmmsg) X(getrandom) X(getentropy) \
	X(__read_chk) X(__pread_chk) X(__pread64_chk) X(__recv_chk) X(__recvfrom_chk) \
	X(fread) X(fread_unlocked) X(__fread_chk) X(__fread_unlocked_chk) X(setvbuf) \
	X(aio_read) X(aio_read64) X(lio_listio) X(lio_listio64) \
	X(getdents64) X(readlink) X(readlinkat) X(__readlink_chk) X(__readlinkat_chk) \
	X(getcwd) X(__getcwd_chk) X(getxattr) X(lgetxattr) X(fgetxattr) \
	X(listxattr) X(llistxattr) X(flistxattr) \
	X(stat) X(lstat) X(fstat) X(fstatat) X(stat64) X(lstat64) X(fstat64) X(fstatat64) \
	X(statx) X(statfs) X(statfs64) X(fstatfs) X(fstatfs64) \
	X(__xstat) X(__lxstat) X(__fxstat) X(__fxstatat) \
	X(__xstat64) X(__lxstat64) X(__fxstat64) X(__fxstatat64) \
	X(poll) X(ppoll) X(__poll_chk) X(__ppoll_chk) X(select) X(pselect) \
	X(epoll_wait) X(epoll_pwait) X(epoll_pwait2) X(eventfd_read) \
	X(accept) X(accept4) X(getsockname) X(getpeername) X(getsockopt) \
	X(pipe) X(pipe2) X(socketpair) X(splice) X(copy_file_range) X(sendfile) X(sendfile64) \
	X(wait) X(waitpid) X(wait3) X(wait4) X(waitid) X(getrusage) X(times) X(uname) X(sysinfo) \
	X(getrlimit) X(getrlimit64) X(prlimit) X(prlimit64) X(getgroups) X(__getgroups_chk) \
	X(getresuid) X(getresgid) X(sched_getaffinity) X(sched_getparam) \
	X(sched_rr_get_interval) X(pthread_getaffinity_np) \
	X(nanosleep) X(clock_nanosleep) X(clock_gettime) X(clock_getres) X(gettimeofday) \
	X(timer_gettime) X(timer_settime) X(timerfd_gettime) X(timerfd_settime) \
	X(getitimer) X(setitimer) X(process_vm_readv) X(mincore) X(msgrcv) \
	X(mq_receive) X(mq_timedreceive) X(ioctl) X(fcntl) X(fcntl64) X(syscall) X(prctl) \
	X(sigaction) X(__sigaction) X(signal) X(bsd_signal) X(ssignal) X(sysv_signal) \
	X(__sysv_signal) X(sigset) X(sigpending) X(sigtimedwait) X(sigwaitinfo) X(sigaltstack) \
	X(sigprocmask) X(pthread_sigmask) X(sigsuspend) \
	X(pthread_create) NEXT_RANDOM(X) \
	X(mmap) X(munmap) X(mremap) X(mprotect) X(pkey_mprotect) X(madvise) X(msync) X(fsync) \
	X(fdatasync) X(sync_file_range) X(ftruncate) X(truncate) X(fallocate) X(posix_fallocate) \
	X(close) X(close_range) X(closefrom) X(dup2) X(dup3) X(fork) X(dlopen) X(dlclose) \
	X(remap_file_pages) X(longjmp) X(_longjmp) X(siglongjmp) X(__longjmp_chk) \
	X(write) X(pwrite) X(pwrite64) X(writev) X(pwritev) X(pwritev64) X(pwritev2) X(pwritev64v2) \
	X(open) X(open64) X(openat) X(openat64) X(creat) X(creat64) X(fopen) X(fopen64) \
	X(__open_2) X(__open64_2) X(__openat_2) X(__openat64_2)
/* clang-format on */

struct next_functions {
#define NEXT_FIELD(name) typeof(name) *_Atomic name;
	NEXT_ALL(NEXT_FIELD)
#undef NEXT_FIELD
};

extern struct next_functions next_functions;

void next_find_all(void);
/* Finds one and notes it at *place. */
void *next_find(void *place, const char *name);

#define NEXT(name)                                                                        \
	({                                                                                \
		typeof(name) *next_ =                                                     \
			atomic_load_explicit(&next_functions.name, memory_order_relaxed); \
		next_ ? next_ : (typeof(name) *)next_find(&next_functions.name, #name);   \
	})

#endif
