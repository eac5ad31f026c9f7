/* SPDX-License-Identifier: MIT */
/*
 * nth.c - the calls of the library, on their way to the system (nth.h).
 *
 * Each wrapper names the errnos that Linux has for its call, given its arguments. What is not
 * failed, and why: UFFDIO_API and UFFDIO_WAKE fail only for wrong arguments; MADV_DONTNEED and
 * holes in a memory file cannot fail (but for a signal); FUTEX_WAKE and the calls that name a
 * thread fail only for one that is gone; munmap gets no memory to split a mapping with, but where
 * that is the library's own memory nothing is left to do but to keep it, so only views are failed.
 *
 * Everything here may run in a signal handler: no lock, no allocation.
 */
#include "nth/nth.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NTH_SHORT (-1)

_Thread_local unsigned nth_inside __attribute__((tls_model("initial-exec")));

static _Atomic bool armed, fired, only_operations;
static _Atomic uint64_t target, counted;
static _Atomic unsigned wanted_errno;
static _Atomic long live_allocations, live_mappings; /* the latter in bytes */

/* What was made to fail. */
static struct {
	const char *name;
	int error;
	const void *site;
	uint64_t number;
} failure;

extern const char __executable_start[];

/* What ended early has a reason, which the next call for the rest meets. */
static _Thread_local int reason __attribute__((tls_model("initial-exec")));

/* ---- Arming ------------------------------------------------------------------------------- */

void nth_arm(uint64_t nth, unsigned which)
{
	reason = 0;
	atomic_store(&counted, 0);
	atomic_store(&target, nth);
	atomic_store(&wanted_errno, which);
	atomic_store(&fired, false);
	atomic_store(&armed, true);
}

uint64_t nth_disarm(void)
{
	atomic_store(&armed, false);
	return atomic_load(&counted);
}

bool nth_fired(void)
{
	return atomic_load(&fired);
}

int nth_failed(const char *name)
{
	return nth_fired() && strcmp(failure.name, name) == 0 ? failure.error : 0;
}

static size_t tell(char *text, size_t size)
{
	const char *error = failure.error > 0 ? strerrorname_np(failure.error) : "ends early";
	int n;

	if (!error)
		error = "an answer of the test's own";

	if (!nth_fired())
		n = snprintf(text, size, "nothing was made to fail (call %llu was to be)\n",
			     (unsigned long long)atomic_load(&target));
	else
		n = snprintf(text, size, "made to fail: call %llu, %s: %s, at %#llx (addr2line)\n",
			     (unsigned long long)failure.number, failure.name, error,
			     (unsigned long long)((const char *)failure.site - __executable_start));
	return n > 0 && (size_t)n < size ? (size_t)n : size - 1;
}

void nth_tell(void)
{
	char text[200];

	tell(text, sizeof(text));
	test_note("%.*s", (int)strcspn(text, "\n"), text);
}

static void on_end(int signo)
{
	char text[200];
	size_t length = tell(text, sizeof(text));

	if (write(STDERR_FILENO, text, length) >= 0)
		signal(signo, SIG_DFL);
	raise(signo);
}

void nth_tell_at_end(void)
{
	static const int signals[] = {SIGABRT, SIGBUS, SIGSEGV};
	struct sigaction action = {.sa_handler = on_end, .sa_flags = (int)SA_RESETHAND};
	static bool done;

	if (done)
		return; /* by now the library's handlers stand before these */
	done = true;
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		REQUIRE_EQ(sigaction(signals[i], &action, NULL), 0);
}

unsigned nth_leave(void)
{
	unsigned inside = nth_inside;

	nth_inside = 0;
	return inside;
}

void nth_return(unsigned inside)
{
	nth_inside = inside;
}

static int reason_take(void)
{
	int error = reason;

	reason = 0;
	return error;
}

/* 0, or the errno that it is to fail with. */
static int it_fails(const char *name, const int *errnos, const void *site)
{
	uint64_t number;
	unsigned which;

	if (!errnos[0] || !atomic_load(&armed))
		return 0;
	number = atomic_fetch_add(&counted, 1) + 1;
	if (number != atomic_load(&target))
		return 0;
	for (which = atomic_load(&wanted_errno); which > 0 && *errnos; which--)
		errnos++;
	if (!*errnos)
		return 0;
	failure.name = name;
	failure.error = *errnos;
	failure.site = site;
	failure.number = number;
	atomic_store(&fired, true);
	return *errnos;
}

void nth_only_operations(bool only)
{
	atomic_store(&only_operations, only);
}

int nth_operation(const char *name, const int *errnos)
{
	return atomic_load(&only_operations) ? it_fails(name, errnos, __builtin_return_address(0))
					     : 0;
}

static int call_fails(const char *name, const int *errnos, const void *site)
{
	return nth_inside && !atomic_load(&only_operations) ? it_fails(name, errnos, site) : 0;
}

#define ERRNOS(...)	    ((const int[]){__VA_ARGS__ __VA_OPT__(, ) 0})
#define FAILS(name, errnos) call_fails(name, errnos, __builtin_return_address(0))

/* A wrapper whose errnos do not depend on its arguments. */
#define WRAP(type, name, parameters, arguments, failed, errnos) \
	type __real_##name parameters;                          \
	type __wrap_##name parameters;                          \
	type __wrap_##name parameters                           \
	{                                                       \
		int error = FAILS(#name, errnos);               \
                                                                \
		if (!error)                                     \
			return __real_##name arguments;         \
		errno = error;                                  \
		return failed;                                  \
	}

/* ---- Kinds of descriptors ----------------------------------------------------------------- */

/* Frames are a memory file: what it does and cannot do is not what files do. */
static _Atomic bool is_memory[4096];

static bool descriptor_is_memory(int fd)
{
	return fd >= 0 && fd < 4096 && atomic_load(&is_memory[fd]);
}

static int descriptor_new(int fd, bool memory)
{
	if (fd >= 0 && fd < 4096)
		atomic_store(&is_memory[fd], memory);
	return fd;
}

/* ---- Memory ------------------------------------------------------------------------------- */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__real_realpath(const char *path, char *resolved);
char *__wrap_realpath(const char *path, char *resolved);
void __real_free(void *p);
void __wrap_free(void *p);

static void *allocation(void *p)
{
	atomic_fetch_add(&live_allocations, p != NULL);
	return p;
}

void *__wrap_malloc(size_t size)
{
	return FAILS("malloc", ERRNOS(ENOMEM)) ? NULL : allocation(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
	return FAILS("calloc", ERRNOS(ENOMEM)) ? NULL : allocation(__real_calloc(count, size));
}

void *__wrap_realloc(void *p, size_t size)
{
	void *grown;

	if (FAILS("realloc", ERRNOS(ENOMEM)))
		return NULL;
	grown = __real_realloc(p, size);
	atomic_fetch_add(&live_allocations, grown && !p);
	return grown;
}

char *__wrap_strdup(const char *text)
{
	return FAILS("strdup", ERRNOS(ENOMEM)) ? NULL : allocation(__real_strdup(text));
}

char *__wrap_realpath(const char *path, char *resolved)
{
	int error = FAILS("realpath", ERRNOS(ENOMEM, EIO, EACCES));

	if (!error)
		return allocation(__real_realpath(path, resolved));
	errno = error;
	return NULL;
}

void __wrap_free(void *p)
{
	atomic_fetch_sub(&live_allocations, p != NULL);
	__real_free(p);
}

/* ---- Mappings ----------------------------------------------------------------------------- */

void *__real_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t length);
int __wrap_munmap(void *address, size_t length);
int __real_madvise(void *address, size_t length, int advice);
int __wrap_madvise(void *address, size_t length, int advice);

#define VIEWS_MAX 16
static _Atomic(void *) view_addresses[VIEWS_MAX];

/* Views are mapped without any access at first; nothing else is. */
static void views_note(void *before, void *after)
{
	for (size_t i = 0; i < VIEWS_MAX; i++) {
		void *expected = before;

		if (atomic_compare_exchange_strong(&view_addresses[i], &expected, after))
			return;
	}
}

static bool is_view(const void *address)
{
	for (size_t i = 0; i < VIEWS_MAX; i++)
		if (atomic_load(&view_addresses[i]) == address)
			return true;
	return false;
}

void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	int error = FAILS("mmap", ERRNOS(ENOMEM));
	void *p;

	if (error) {
		errno = error;
		return MAP_FAILED;
	}
	p = __real_mmap64(address, length, protection, flags, fd, offset);
	if (p == MAP_FAILED)
		return p;
	/* What is mapped at a fixed place replaces as much. */
	if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != MAP_FIXED)
		atomic_fetch_add(&live_mappings, (long)((length + 4095) & ~(size_t)4095));
	if (protection == PROT_NONE)
		views_note(NULL, p);
	return p;
}

int __wrap_munmap(void *address, size_t length)
{
	bool view = is_view(address);
	int error = view ? FAILS("munmap of a view", ERRNOS(ENOMEM)) : 0;

	if (error) {
		errno = error;
		return -1;
	}
	atomic_fetch_sub(&live_mappings, (long)((length + 4095) & ~(size_t)4095));
	if (view)
		views_note(address, NULL);
	return __real_munmap(address, length);
}

void *__real_mremap(void *old, size_t old_length, size_t new_length, int flags, void *to);
void *__wrap_mremap(void *old, size_t old_length, size_t new_length, int flags, void *to);

/* Always to a fixed place that was mapped before. */
void *__wrap_mremap(void *old, size_t old_length, size_t new_length, int flags, void *to)
{
	int error = FAILS("mremap", ERRNOS(ENOMEM));
	void *p;

	if (error) {
		errno = error;
		return MAP_FAILED;
	}
	p = __real_mremap(old, old_length, new_length, flags, to);
	if (p != MAP_FAILED)
		atomic_fetch_sub(&live_mappings, (long)new_length);
	return p;
}

WRAP(int, mprotect, (void *address, size_t length, int protection), (address, length, protection),
     -1, ERRNOS(ENOMEM))

int __wrap_madvise(void *address, size_t length, int advice)
{
	int error = 0;

	if (advice == MADV_NOHUGEPAGE)
		error = FAILS("madvise(NOHUGEPAGE)", ERRNOS(EAGAIN, EINVAL));
	else if (advice != MADV_DONTNEED)
		error = FAILS("madvise", ERRNOS(EAGAIN));
	if (!error)
		return __real_madvise(address, length, advice);
	errno = error;
	return -1;
}

/* ---- Descriptors -------------------------------------------------------------------------- */

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __real_close(int fd);
int __wrap_close(int fd);
int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);

int __wrap_open64(const char *path, int flags, ...)
{
	int error = FAILS("open", ERRNOS(EMFILE, ENFILE, ENOMEM, EIO, EINTR, EACCES));
	unsigned mode;
	va_list list;

	if (error) {
		errno = error;
		return -1;
	}
	va_start(list, flags);
	mode = va_arg(list, unsigned);
	va_end(list);
	return descriptor_new(__real_open64(path, flags, mode), false);
}

/* Whatever it answers, the descriptor is closed. */
int __wrap_close(int fd)
{
	int error = FAILS("close", ERRNOS(EIO, EINTR));

	descriptor_new(fd, false);
	if (__real_close(fd) || !error)
		return error ? -1 : 0;
	errno = error;
	return -1;
}

int __wrap_memfd_create(const char *name, unsigned flags)
{
	int error = FAILS("memfd_create", ERRNOS(EMFILE, ENFILE, ENOMEM));

	if (!error)
		return descriptor_new(__real_memfd_create(name, flags), true);
	errno = error;
	return -1;
}

/* Locks of files: whatever else there is has none. The flags of a descriptor can be set. */
int __wrap_fcntl64(int fd, int command, ...)
{
	int error = command == F_SETFL ? 0 : FAILS("fcntl", ERRNOS(ENOLCK, ENOMEM, EAGAIN, EINTR));
	va_list list;
	void *argument;

	if (error) {
		errno = error;
		return -1;
	}
	va_start(list, command);
	argument = va_arg(list, void *);
	va_end(list);
	return __real_fcntl64(fd, command, argument);
}

WRAP(DIR *, opendir, (const char *path), (path), NULL, ERRNOS(EMFILE, ENFILE, ENOMEM))
WRAP(struct dirent64 *, readdir64, (DIR * dir), (dir), NULL, ERRNOS(EIO, ENOMEM))
WRAP(FILE *, fopen64, (const char *path, const char *mode), (path, mode), NULL,
     ERRNOS(EMFILE, ENFILE, ENOMEM))
WRAP(int, fstat64, (int fd, struct stat64 *st), (fd, st), -1, ERRNOS(EIO, ENOMEM))
WRAP(int, stat64, (const char *path, struct stat64 *st), (path, st), -1,
     ERRNOS(EIO, ENOMEM, EACCES))
WRAP(int, fstatat64, (int dir, const char *path, struct stat64 *st, int flags),
     (dir, path, st, flags), -1, ERRNOS(ENOENT, EIO, ENOMEM))
WRAP(int, fstatfs64, (int fd, struct statfs64 *st), (fd, st), -1, ERRNOS(EIO, ENOMEM))
WRAP(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *size),
     (fd, level, name, value, size), -1, ERRNOS(ENOBUFS, ENOMEM))
WRAP(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t size),
     (fd, level, name, value, size), -1, ERRNOS(ENOMEM))
WRAP(int, socketpair, (int domain, int type, int protocol, int ends[2]),
     (domain, type, protocol, ends), -1, ERRNOS(EMFILE, ENFILE, ENOMEM))
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), -1,
     ERRNOS(ENOBUFS, ENOMEM, EINTR))
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags), -1,
     ERRNOS(ENOMEM, EINTR))
WRAP(int, poll, (struct pollfd * fds, nfds_t count, int timeout_ms), (fds, count, timeout_ms), -1,
     ERRNOS(EINTR, ENOMEM))
WRAP(int, ppoll,
     (struct pollfd * fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask),
     (fds, count, timeout, mask), -1, ERRNOS(EINTR, ENOMEM))
WRAP(int, eventfd, (unsigned count, int flags), (count, flags), -1, ERRNOS(EMFILE, ENFILE, ENOMEM))
WRAP(int, dup, (int fd), (fd), -1, ERRNOS(EMFILE))
WRAP(int, fstatvfs64, (int fd, struct statvfs64 *st), (fd, st), -1, ERRNOS(EIO, ENOMEM))
WRAP(int, statx, (int dir, const char *path, int flags, unsigned mask, struct statx *st),
     (dir, path, flags, mask, st), -1, ERRNOS(EIO, ENOMEM))

/* ---- Files -------------------------------------------------------------------------------- */

off_t __real_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence);
ssize_t __real_read(int fd, void *buffer, size_t count);
ssize_t __wrap_read(int fd, void *buffer, size_t count);
ssize_t __real_pread64(int fd, void *buffer, size_t count, off_t offset);
ssize_t __wrap_pread64(int fd, void *buffer, size_t count, off_t offset);
ssize_t __real_pwrite64(int fd, const void *buffer, size_t count, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *buffer, size_t count, off_t offset);
ssize_t __real_pwritev64(int fd, const struct iovec *vector, int count, off_t offset);
ssize_t __wrap_pwritev64(int fd, const struct iovec *vector, int count, off_t offset);
int __real_fallocate64(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length);
int __real_ftruncate64(int fd, off_t length);
int __wrap_ftruncate64(int fd, off_t length);

off_t __wrap_lseek64(int fd, off_t offset, int whence)
{
	int error = descriptor_is_memory(fd) ? 0 : FAILS("lseek", ERRNOS(EIO, EINVAL));

	if (!error)
		return __real_lseek64(fd, offset, whence);
	errno = error;
	return -1;
}

/* Of an events' descriptor, or of a text in /proc. */
ssize_t __wrap_read(int fd, void *buffer, size_t count)
{
	int error = count == sizeof(struct uffd_msg) ? FAILS("read of an event", ERRNOS(EINTR))
						     : FAILS("read", ERRNOS(ENOMEM, EINTR, EIO));

	if (!error)
		return __real_read(fd, buffer, count);
	errno = error;
	return -1;
}

/* A page less, or half of what is less than two. Direct I/O ends at whole pages. */
static size_t shortened(size_t count)
{
	return count >= 8192 ? (count - 1) / 4096 * 4096 : count / 2;
}

ssize_t __wrap_pread64(int fd, void *buffer, size_t count, off_t offset)
{
	int error = reason_take();

	if (!error)
		error = FAILS("pread", count >= 8192 ? ERRNOS(NTH_SHORT, EIO, EINTR, ENOMEM)
						     : ERRNOS(EIO, EINTR, ENOMEM));
	if (!error)
		return __real_pread64(fd, buffer, count, offset);
	if (error == NTH_SHORT) {
		reason = EIO;
		return __real_pread64(fd, buffer, shortened(count), offset);
	}
	errno = error;
	return -1;
}

static int write_fails(const char *name, int fd, size_t count, const void *site)
{
	int error = reason_take();

	if (error)
		return error;
	if (descriptor_is_memory(fd))
		return call_fails(name,
				  count >= 8192 ? ERRNOS(NTH_SHORT, ENOMEM, ENOSPC, EINTR)
						: ERRNOS(ENOMEM, ENOSPC, EINTR),
				  site);
	return call_fails(name,
			  count >= 8192 ? ERRNOS(NTH_SHORT, ENOSPC, EIO, EINTR, EDQUOT)
					: ERRNOS(ENOSPC, EIO, EINTR, EDQUOT),
			  site);
}

ssize_t __wrap_pwrite64(int fd, const void *buffer, size_t count, off_t offset)
{
	int error = write_fails("pwrite", fd, count, __builtin_return_address(0));

	if (!error)
		return __real_pwrite64(fd, buffer, count, offset);
	if (error == NTH_SHORT) {
		reason = descriptor_is_memory(fd) ? ENOMEM : ENOSPC;
		return __real_pwrite64(fd, buffer, shortened(count), offset);
	}
	errno = error;
	return -1;
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *vector, int count, off_t offset)
{
	size_t bytes = 0;
	int error;

	for (int i = 0; i < count; i++)
		bytes += vector[i].iov_len;
	error = write_fails("pwritev", fd, bytes, __builtin_return_address(0));
	if (!error)
		return __real_pwritev64(fd, vector, count, offset);
	if (error == NTH_SHORT) {
		reason = descriptor_is_memory(fd) ? ENOMEM : ENOSPC;
		return __real_pwrite64(fd, vector[0].iov_base, shortened(vector[0].iov_len),
				       offset);
	}
	errno = error;
	return -1;
}

static _Atomic bool without_fallocate;

void nth_without_fallocate(bool without)
{
	atomic_store(&without_fallocate, without);
}

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length)
{
	int error;

	if (atomic_load(&without_fallocate) && !descriptor_is_memory(fd))
		error = EOPNOTSUPP;
	else if (descriptor_is_memory(fd))
		error = FAILS("fallocate of frames", ERRNOS(EINTR));
	else if (mode & FALLOC_FL_PUNCH_HOLE)
		error = FAILS("fallocate(PUNCH_HOLE)", ERRNOS(EIO, ENOSPC, EINTR, EOPNOTSUPP));
	else
		error = FAILS("fallocate", ERRNOS(ENOSPC, EIO, EINTR, EDQUOT, EOPNOTSUPP));
	if (!error)
		return __real_fallocate64(fd, mode, offset, length);
	errno = error;
	return -1;
}

int __wrap_ftruncate64(int fd, off_t length)
{
	int error = descriptor_is_memory(fd)
			    ? FAILS("ftruncate of frames", ERRNOS(ENOMEM, EINTR))
			    : FAILS("ftruncate", ERRNOS(EIO, ENOSPC, EINTR, EFBIG));

	if (!error)
		return __real_ftruncate64(fd, length);
	errno = error;
	return -1;
}

WRAP(int, unlink, (const char *path), (path), -1, ERRNOS(EIO, EROFS, ENOMEM))
WRAP(int, fsync, (int fd), (fd), -1, ERRNOS(EIO, ENOSPC, EINTR, EDQUOT))
WRAP(int, fdatasync, (int fd), (fd), -1, ERRNOS(EIO, ENOSPC, EINTR, EDQUOT))
WRAP(int, sync_file_range, (int fd, off_t offset, off_t count, unsigned flags),
     (fd, offset, count, flags), -1, ERRNOS(EIO, ENOSPC, ENOMEM))

/* ---- Userfaultfd -------------------------------------------------------------------------- */

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

/* A call that maps runs does a part and answers EAGAIN. */
static int fail_short(int fd, unsigned long request, void *argument)
{
	struct uffdio_copy *copy = argument;
	struct uffdio_continue *cont = argument;
	__u64 *length = request == UFFDIO_COPY ? &copy->len : &cont->range.len;
	__u64 whole = *length;
	int result;

	*length = whole / 8192 * 4096;
	result = __real_ioctl(fd, request, argument);
	*length = whole;
	if (!result) {
		errno = EAGAIN;
		reason = ENOMEM;
	}
	return -1;
}

static const char *request_name(unsigned long request)
{
	switch (request) {
	case UFFDIO_COPY:
		return "UFFDIO_COPY";
	case UFFDIO_CONTINUE:
		return "UFFDIO_CONTINUE";
	case UFFDIO_ZEROPAGE:
		return "UFFDIO_ZEROPAGE";
	case UFFDIO_REGISTER:
		return "UFFDIO_REGISTER";
	case UFFDIO_WRITEPROTECT:
		return "UFFDIO_WRITEPROTECT";
	case FS_IOC_FIEMAP:
		return "FS_IOC_FIEMAP";
	default:
		return "ioctl";
	}
}

static int ioctl_fails(unsigned long request, const void *argument, const void *site)
{
	const struct uffdio_copy *copy = argument;
	const struct uffdio_continue *cont = argument;
	const char *name = request_name(request);

	switch (request) {
	case UFFDIO_COPY:
		return call_fails(name,
				  copy->len > 4096 ? ERRNOS(NTH_SHORT, ENOMEM, EAGAIN, ENOSPC)
						   : ERRNOS(ENOMEM, EAGAIN, ENOSPC),
				  site);
	case UFFDIO_CONTINUE:
		return call_fails(name,
				  cont->range.len > 4096 ? ERRNOS(NTH_SHORT, ENOMEM, EAGAIN)
							 : ERRNOS(ENOMEM, EAGAIN),
				  site);
	case UFFDIO_WRITEPROTECT:
		/* Markers need page tables; lifting them needs nothing. */
		if (!(((const struct uffdio_writeprotect *)argument)->mode &
		      UFFDIO_WRITEPROTECT_MODE_WP))
			return call_fails(name, ERRNOS(EAGAIN), site);
		return call_fails(name, ERRNOS(ENOMEM, EAGAIN), site);
	case UFFDIO_ZEROPAGE:
		return call_fails(name, ERRNOS(ENOMEM, EAGAIN), site);
	case UFFDIO_REGISTER:
		return call_fails(name, ERRNOS(ENOMEM), site);
	case USERFAULTFD_IOC_NEW:
		return call_fails(name, ERRNOS(EMFILE, ENFILE, ENOMEM), site);
	case FS_IOC_FIEMAP:
		return call_fails(name, ERRNOS(EIO, EOPNOTSUPP, ENOMEM, EINTR), site);
	case UFFDIO_API:
	case UFFDIO_WAKE:
		return 0;
	default:
		return call_fails(name, ERRNOS(ENOMEM), site);
	}
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	void *argument;
	va_list list;
	int error;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	error = request == UFFDIO_COPY || request == UFFDIO_CONTINUE ? reason_take() : 0;
	if (!error)
		error = ioctl_fails(request, argument, __builtin_return_address(0));
	if (error == NTH_SHORT)
		return fail_short(fd, request, argument);
	if (!error)
		return __real_ioctl(fd, request, argument);
	if (request == UFFDIO_COPY)
		((struct uffdio_copy *)argument)->copy = -error;
	if (request == UFFDIO_CONTINUE)
		((struct uffdio_continue *)argument)->mapped = -error;
	errno = error;
	return -1;
}

/* ---- Other system calls ------------------------------------------------------------------- */

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

/*
 * With too many signals pending the kernel still sends one of the old kind, but all that it was to
 * say is lost (send_signal in kernel/signal.c): the receiver finds SI_USER and no address.
 */
static long signal_without_words(const long *a)
{
	struct rlimit before, none;
	long result;

	getrlimit(RLIMIT_SIGPENDING, &before);
	none = (struct rlimit){0, before.rlim_max};
	setrlimit(RLIMIT_SIGPENDING, &none);
	result = __real_syscall(SYS_rt_tgsigqueueinfo, a[0], a[1], a[2], a[3]);
	setrlimit(RLIMIT_SIGPENDING, &before);
	return result;
}

static int syscall_fails(long number, const long *argument, const void *site)
{
	switch (number) {
	case SYS_userfaultfd:
		return call_fails("userfaultfd", ERRNOS(EMFILE, ENFILE, ENOMEM), site);
	case SYS_futex:
		if ((argument[1] & FUTEX_CMD_MASK) != FUTEX_WAIT)
			return 0;
		return call_fails("futex", ERRNOS(EINTR, EAGAIN), site);
	case SYS_rt_tgsigqueueinfo:
		return call_fails("rt_tgsigqueueinfo", ERRNOS(NTH_SHORT), site);
	case SYS_mprotect:
		return call_fails("mprotect", ERRNOS(ENOMEM), site);
	case SYS_openat:
		return call_fails("openat", ERRNOS(EMFILE, ENFILE, ENOMEM), site);
	case SYS_read:
		return call_fails("read", ERRNOS(ENOMEM), site);
	case SYS_pwrite64:
		return write_fails("pwrite", (int)argument[0], (size_t)argument[2], site);
	default:
		return 0;
	}
}

long __wrap_syscall(long number, ...)
{
	long a[6], result;
	va_list list;
	int error;

	va_start(list, number);
	for (size_t i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	error = syscall_fails(number, a, __builtin_return_address(0));
	if (error == NTH_SHORT && number == SYS_pwrite64) {
		reason = ENOSPC;
		a[2] = (long)shortened((size_t)a[2]);
	} else if (error == NTH_SHORT) {
		return signal_without_words(a);
	} else if (error) {
		errno = error;
		return -1;
	}
	result = __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	return number == SYS_userfaultfd ? descriptor_new((int)result, false) : result;
}

WRAP(ssize_t, process_vm_readv,
     (pid_t pid, const struct iovec *local, unsigned long locals, const struct iovec *remote,
      unsigned long remotes, unsigned long flags),
     (pid, local, locals, remote, remotes, flags), -1, ERRNOS(EFAULT, ENOMEM, EPERM))
WRAP(int, sched_setaffinity, (pid_t pid, size_t size, const cpu_set_t *set), (pid, size, set), -1,
     ERRNOS(EINVAL, ENOMEM))
WRAP(int, nanosleep, (const struct timespec *time, struct timespec *left), (time, left), -1,
     ERRNOS(EINTR))

int __real_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
			   struct timespec *left);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
			   struct timespec *left);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
			   struct timespec *left)
{
	int error = FAILS("clock_nanosleep", ERRNOS(EINTR));

	return error ? error : __real_clock_nanosleep(clock, flags, time, left);
}

/* ---- Threads ------------------------------------------------------------------------------ */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);

struct start {
	void *(*fn)(void *);
	void *arg;
};

static void *library_thread(void *p)
{
	struct start start = *(struct start *)p;

	__real_free(p);
	nth_inside = 1;
	return start.fn(start.arg);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg)
{
	int error = FAILS("pthread_create", ERRNOS(EAGAIN));
	struct start *start;

	if (error || !nth_inside)
		return error ? error : __real_pthread_create(thread, attr, fn, arg);
	start = __real_malloc(sizeof(*start));
	if (!start)
		return EAGAIN;
	*start = (struct start){fn, arg};
	error = __real_pthread_create(thread, attr, library_thread, start);
	if (error)
		__real_free(start);
	return error;
}

/* ---- What there is ------------------------------------------------------------------------ */

static unsigned entries(const char *path)
{
	DIR *dir = __real_opendir(path);
	unsigned count = 0;

	while (dir && __real_readdir64(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

static unsigned frame_lines(void)
{
	FILE *maps = __real_fopen64("/proc/self/maps", "re");
	char line[512];
	unsigned count = 0;

	while (maps && fgets(line, sizeof(line), maps))
		count += strstr(line, "/memfd:mkwrite") != NULL;
	if (maps)
		fclose(maps);
	return count;
}

struct nth_holdings nth_holdings(void)
{
	return (struct nth_holdings){
		.allocations = atomic_load(&live_allocations),
		.mappings = atomic_load(&live_mappings),
		.descriptors = entries("/proc/self/fd"),
		.threads = entries("/proc/self/task"),
		.lines = frame_lines(),
	};
}
