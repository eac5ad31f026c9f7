/* SPDX-License-Identifier: MIT */
/*
 * thread_state.c - what other threads are doing, from /proc/self/task/TID. A process may always
 * read its own threads there. Those of children whose views it serves are looked up in /proc/PID.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What a thread that runs in a system call needs at most before it sleeps there or is done. */
#define SETTLE_RUN_NS 100000u
#define STARVED_LOOKS 10 /* at one that gets no processor; some milliseconds each */

/* The length of the text read. -ESRCH: the thread is gone; another negative errno: it may be there.
 */
static ssize_t read_file_of(pid_t process, pid_t tid, const char *name, char *text, size_t size)
{
	char path[64] = "/proc/self";
	ssize_t n;
	size_t at;
	int fd;

	if (process)
		snprintf(path, sizeof(path), "/proc/%d", (int)process);
	at = strlen(path);
	snprintf(path + at, sizeof(path) - at, "/task/%d/%s", (int)tid, name);
	do {
		fd = open(path, O_RDONLY | O_CLOEXEC);
	} while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	do {
		n = read(fd, text, size - 1);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		n = n == 0 ? -ESRCH : -errno;
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

/* *process: whose thread it is, if it is a child's. */
static ssize_t read_file(pid_t tid, const char *name, char *text, size_t size, pid_t *process)
{
	ssize_t n = read_file_of(0, tid, name, text, size);

	*process = n == -ESRCH ? kin_process_of(tid) : 0;
	return *process ? read_file_of(*process, tid, name, text, size) : n;
}

void thread_state_read(pid_t tid, struct thread_state *state)
{
	uint64_t *a = state->argument;
	ssize_t length;
	int n;

	memset(state, 0, sizeof(*state));
	length = read_file(tid, "syscall", state->text, sizeof(state->text), &state->process);
	if (length < 0) {
		state->mode = length == -ESRCH ? THREAD_GONE : THREAD_UNKNOWN;
		return;
	}
	n = sscanf(state->text,
		   "%ld %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64,
		   &state->number, &a[0], &a[1], &a[2], &a[3], &a[4], &a[5]);
	if (n >= 1 && state->number == -1)
		state->mode = THREAD_USER;
	else
		state->mode = n == 7 ? THREAD_SYSCALL : THREAD_RUNNING;
}

/* The n-th field after p, which is at the beginning of one. */
static const char *skip_fields(const char *p, unsigned n)
{
	for (; n > 0 && p; n--) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	return p;
}

int thread_signals_read(pid_t tid, struct thread_signals *signals)
{
	char text[1024];
	pid_t process;
	ssize_t length = read_file(tid, "stat", text, sizeof(text), &process);
	const char *p;

	if (length < 0)
		return (int)length;
	/* The name, field 2, may hold anything: count from the last ')', which ends it. */
	p = strrchr(text, ')');
	p = p ? skip_fields(p + 1, 1 + 32 - 3) : NULL; /* field 3 begins after the space */
	if (!p)
		return -EIO;
	signals->blocked = strtoull(p, NULL, 10);
	p = skip_fields(p, 1);
	if (!p)
		return -EIO;
	signals->ignored = strtoull(p, NULL, 10);
	p = skip_fields(p, 39 - 33);
	if (!p)
		return -EIO;
	signals->cpu = (int)strtol(p, NULL, 10);
	return 0;
}

/* Whatever the number stands for by now. Not by fstat: to TSan that is a use of a descriptor that
 * another thread may be closing. */
static bool descriptor_stat(int fd, struct stat *st)
{
	return syscall(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH) == 0;
}

/* A descriptor of the thread's process, to look at here; -1: there is none. */
static int descriptor_borrow(const struct thread_state *state, uint64_t descriptor)
{
	int process, fd = descriptor <= INT32_MAX ? (int)descriptor : -1;

	if (!state->process || fd < 0)
		return fd;
	process = (int)syscall(SYS_pidfd_open, state->process, 0);
	if (process < 0)
		return -1;
	fd = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
	close(process);
	return fd;
}

static void descriptor_return(const struct thread_state *state, int fd)
{
	if (state->process && fd >= 0)
		close(fd);
}

static bool descriptor_is(const struct thread_state *state, uint64_t descriptor, uint64_t dev,
			  uint64_t ino)
{
	int fd = descriptor_borrow(state, descriptor);
	struct stat st;
	bool is = fd >= 0 && descriptor_stat(fd, &st) && st.st_dev == dev && st.st_ino == ino;

	descriptor_return(state, fd);
	return is;
}

/* Does the system call name the file? Which arguments are descriptors depends on the call; where
 * it is not known the first is looked at, which at worst is a descriptor by chance. */
static bool syscall_names(const struct thread_state *state, uint64_t dev, uint64_t ino)
{
	int second = -1;

	switch (state->number) {
	case SYS_sendfile:
		second = 1;
		break;
	case SYS_splice:
	case SYS_copy_file_range:
		second = 2;
		break;
	default:
		break;
	}
	return descriptor_is(state, state->argument[0], dev, ino) ||
	       (second >= 0 && descriptor_is(state, state->argument[second], dev, ino));
}

void thread_state_settle(pid_t tid, struct thread_state *state)
{
	/* An event can be read before its thread has gone to sleep; that takes microseconds. */
	struct timespec pause = {.tv_nsec = 100000};

	for (int i = 0; i < 20; i++) {
		thread_state_read(tid, state);
		if (state->mode != THREAD_RUNNING && state->mode != THREAD_UNKNOWN)
			return;
		nanosleep(&pause, NULL);
	}
}

bool mmu_thread_in_syscall_on(pid_t tid, uint64_t dev, uint64_t ino)
{
	struct thread_state state;

	thread_state_settle(tid, &state);
	switch (state.mode) {
	case THREAD_SYSCALL:
		return syscall_names(&state, dev, ino);
	case THREAD_RUNNING:
		/*
		 * Either a signal took it out of its fault, in user mode: then it will fault again,
		 * and a refusal does not reach it. Or one is pending while it faults inside a
		 * system call, over and over: then this may be the call in question.
		 */
		return true;
	case THREAD_UNKNOWN: /* it may be; to be refused is better than to wait for itself */
		return true;
	default:
		return false;
	}
}

/* Read memory of the thread's process at an address that it handed to the kernel: it may be
 * anything. */
static bool peek(const struct thread_state *state, uint64_t address, void *to, size_t length)
{
	struct iovec local = {to, length}, remote = {(void *)(uintptr_t)address, length};

	return process_vm_readv(state->process ? state->process : getpid(), &local, 1, &remote, 1,
				0) == (ssize_t)length;
}

static size_t vector_extents(const struct thread_state *state, uint64_t address, uint64_t count,
			     struct mmu_extent *extents, size_t max)
{
	struct iovec vector[16];
	size_t n = count < 16 ? (size_t)count : 16;

	n = n < max ? n : max;
	if (n == 0 || !peek(state, address, vector, n * sizeof(vector[0])))
		return 0;
	for (size_t i = 0; i < n; i++)
		extents[i] = (struct mmu_extent){(uintptr_t)vector[i].iov_base, vector[i].iov_len};
	return n;
}

/* File systems that read by copying, unless O_DIRECT is asked for. */
static bool copies_when_buffered(int fd)
{
	static const uint64_t known[] = {
		TMPFS_MAGIC,	   RAMFS_MAGIC,	     EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,
		BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC,
	};
	struct statfs fs;

	if (fstatfs(fd, &fs) != 0)
		return false;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if ((uint64_t)fs.f_type == known[i])
			return true;
	return false;
}

/* Not those of AF_ALG, which hands the pages to a device. */
static bool socket_copies(int fd)
{
	socklen_t size = sizeof(int);
	int domain;

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
	       (domain == AF_UNIX || domain == AF_INET || domain == AF_INET6);
}

/* Does a read of it copy into the memory it is given, and so fault again where that is protected?
 * In doubt no: then it keeps hold of the pages, and a device stores to them later. */
static bool descriptor_copies(int fd)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || !descriptor_stat(fd, &st))
		return false;
	if (S_ISSOCK(st.st_mode))
		return socket_copies(fd);
	if (S_ISFIFO(st.st_mode))
		return true;
	return S_ISREG(st.st_mode) && (flags & O_DIRECT) == 0 && copies_when_buffered(fd);
}

static size_t syscall_stores(const struct thread_state *state, struct mmu_extent *extents,
			     size_t max)
{
	const uint64_t *a = state->argument;
	struct msghdr message;
	int fd = descriptor_borrow(state, a[0]);
	bool copies = descriptor_copies(fd);

	descriptor_return(state, fd);
	if (copies)
		return 0;
	switch (state->number) {
	case SYS_read:
	case SYS_pread64:
	case SYS_recvfrom:
		extents[0] = (struct mmu_extent){(uintptr_t)a[1], (size_t)a[2]};
		return 1;
	case SYS_readv:
	case SYS_preadv:
	case SYS_preadv2:
		return vector_extents(state, a[1], a[2], extents, max);
	case SYS_recvmsg:
		if (!peek(state, a[1], &message, sizeof(message)))
			return 0;
		return vector_extents(state, (uintptr_t)message.msg_iov, message.msg_iovlen,
				      extents, max);
	default:
		return 0;
	}
}

/* How long the thread has had a processor; 0: it cannot be told. */
static uint64_t thread_ran_ns(pid_t tid)
{
	/* As the kernel numbers the clocks of threads: per thread (4), as scheduled (2). */
	clockid_t clock = (clockid_t)(~(unsigned)tid << 3 | 6);
	struct timespec t;

	if (clock_gettime(clock, &t))
		return 0;
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

size_t mmu_thread_stores(pid_t tid, struct mmu_extent *extents, size_t max)
{
	uint64_t ran_ns = thread_ran_ns(tid);
	struct thread_state state;
	bool starved = false;

	if (max == 0)
		return 0;
	/* One that runs is given time to go to sleep in its call, if it is in one: on a loaded
	 * machine it may only be waiting for a processor. */
	for (int i = 0; i < STARVED_LOOKS; i++) {
		thread_state_settle(tid, &state);
		starved = state.mode == THREAD_RUNNING && ran_ns > 0 &&
			  thread_ran_ns(tid) - ran_ns < SETTLE_RUN_NS;
		if (!starved)
			break;
	}
	if (state.mode == THREAD_UNKNOWN || starved) {
		extents[0] = (struct mmu_extent){0, SIZE_MAX};
		return 1;
	}
	return state.mode == THREAD_SYSCALL ? syscall_stores(&state, extents, max) : 0;
}
