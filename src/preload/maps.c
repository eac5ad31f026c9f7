/* SPDX-License-Identifier: MIT */
/*
 * maps.c - hooks of the calls that make and end mappings. A shared mapping of a regular file that
 * is open for writing becomes a view; what the program sees of it stays the kernel's. remaps.c and
 * protects.c have the calls that change one.
 *
 * Each call is made between maps_begin and maps_end, with the views that it concerns forgotten
 * before and adopted after it. So a view never shows something else than the mapping does. What an
 * access of another thread runs into meanwhile is tried again (maps_unknown).
 *
 * Not watched, and so the kernel's alone: mappings that are executable; of files on a tmpfs without
 * a limit (memfd_create), which cannot be full.
 *
 * Locks: `lock`, with all signals blocked; the thread that has it may take it again. Views' and
 * files' own locks are below it. A fault takes it only where it finds no view.
 */
#include "next.h"

#include "maps.h"
#include "ranges.h"
#include "run/snapshot.h"
#include "snapshots.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sigset_t fork_mask; /* of the thread that forks; guarded by lock */
static _Thread_local unsigned depth __attribute__((tls_model("initial-exec")));
static _Atomic unsigned changing;    /* threads in a change, or about to be */
static _Atomic unsigned changes;     /* that have ended */
static _Atomic int open_wanted = -1; /* preload_open_all, why; -1: no */
static _Atomic bool open_always;     /* it has been done, and is for new views, too */

/* ---- Changing ----------------------------------------------------------------------------- */

void maps_begin(struct maps_change *change)
{
	sigset_t all;

	change->error = errno;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &change->mask);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &change->cancel);
	if (depth++ > 0)
		return;
	run_hold_begin(preload_control);
	atomic_fetch_add(&changing, 1);
	pthread_mutex_lock(&lock);
}

void maps_end(struct maps_change *change)
{
	if (--depth == 0) {
		atomic_fetch_add(&changes, 1);
		atomic_fetch_sub(&changing, 1);
		pthread_mutex_unlock(&lock);
		run_hold_end(preload_control);
	}
	pthread_setcancelstate(change->cancel, NULL);
	pthread_sigmask(SIG_SETMASK, &change->mask, NULL);
	errno = change->error;
}

void maps_end_with(struct maps_change *change, int error)
{
	if (error != 0)
		change->error = error;
	maps_end(change);
}

bool maps_settle(void)
{
	if (depth > 0 || atomic_load(&changing) == 0)
		return false;
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
	return true;
}

/*
 * An access that comes again at once is in the same series. Whatever other threads change, one of
 * so many finds the mapping that it was made for; if not it is the program's own fault.
 */
#define SERIES_TRIES 200u
#define SERIES_NS    10000000u

static bool series_goes_on(const void *address)
{
	static _Thread_local struct {
		const void *address;
		uint64_t last_ns;
		unsigned tries;
	} series __attribute__((tls_model("initial-exec")));
	struct timespec ts;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	if (series.address != address || now - series.last_ns > SERIES_NS)
		series.tries = 0;
	series.address = address;
	series.last_ns = now;
	return series.tries++ < SERIES_TRIES;
}

bool maps_unknown(const void *address, bool write)
{
	static _Thread_local unsigned seen __attribute__((tls_model("initial-exec")));
	unsigned now;

	(void)write;
	if (!ranges_near((uintptr_t)address) || depth > 0 /* the thread's own change */)
		return false;
	if (maps_settle())
		return series_goes_on(address);
	/* One that has ended since the access was made: at most one try more for each. */
	now = atomic_load(&changes);
	if (now == seen)
		return false;
	seen = now;
	return series_goes_on(address);
}

/* The handlers of others around the fork may map, and write to views. */
void maps_fork_begin(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGSYS, SIGFPE, SIGILL, SIGTRAP};
	sigset_t all, before;

	sigfillset(&all);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&all, faults[i]);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	if (depth++ == 0)
		pthread_mutex_lock(&lock);
	fork_mask = before;
}

void maps_fork_end(bool child)
{
	sigset_t before = fork_mask;

	if (child) {
		pthread_mutex_init(&lock, NULL);
		atomic_store(&changing, 0);
		depth = 0;
	} else if (--depth == 0) {
		pthread_mutex_unlock(&lock);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void maps_each(uintptr_t start, uintptr_t end, void (*fn)(struct map *map, void *arg), void *arg)
{
	struct map map;

	for (; ranges_next(start, end, &map); start = map.end)
		fn(&map, arg);
}

/* ---- Views -------------------------------------------------------------------------------- */

static void say(enum run_say what, uint16_t file, uint64_t number)
{
	const struct run_event event = {
		.kind = RUN_EVENT_SAY,
		.file = file,
		.offset = number,
		.length = what,
	};

	run_post(preload_control, &event);
}

unsigned maps_allowed(int protection)
{
	unsigned bits = 0;

	if ((protection & PROT_READ) != 0)
		bits |= MKW_READ;
	if ((protection & PROT_WRITE) != 0)
		bits |= MKW_READ | MKW_WRITE;
	return bits;
}

void maps_set_protection(const struct map *m, int without)
{
	syscall(SYS_mprotect, m->start, m->end - m->start, m->protection & ~without);
}

static void open_map(struct map *m, void *arg)
{
	(void)arg;
	if ((m->protection & PROT_WRITE) != 0)
		mkw_let_go((void *)m->start, m->end - m->start);
}

void maps_follow_open(struct map *m)
{
	if (atomic_load(&open_always))
		open_map(m, NULL);
}

/* A call that has failed may have unmapped it all the same. */
static bool is_mapped(const struct map *m)
{
	return syscall(SYS_msync, m->start, m->end - m->start, MS_ASYNC) == 0 || errno != ENOMEM;
}

/* It is mapped, and in the list; what it is given by the kernel is at most what the program has
 * asked for. */
static bool adopt_map(struct map *m)
{
	int error;

	if (!is_mapped(m))
		return false;
	error = mkw_adopt(m->file->handle, (void *)m->start, m->end - m->start,
			  maps_allowed(m->protection), m->offset);
	if (error != 0) {
		maps_set_protection(m, 0);
		say(RUN_SAY_NO_FILE, m->file->number, (uint64_t)-error);
		return false;
	}
	/* A view that may not be written is left as it was mapped, which may be more. */
	if ((m->protection & PROT_WRITE) == 0)
		maps_set_protection(m, 0);
	if (preload_control->options.trace)
		mkw_advise((void *)m->start, m->end - m->start, MKW_RANDOM);
	maps_follow_open(m);
	return true;
}

void maps_adopt(uintptr_t start, uintptr_t end)
{
	struct map map;

	for (; ranges_next(start, end, &map); start = map.end)
		if (!adopt_map(&map) && ranges_promise(1))
			ranges_clear(map.start, map.end);
}

void maps_disown(uintptr_t start, uintptr_t end)
{
	if (ranges_overlap(start, end))
		mkw_unmap((void *)start, end - start);
}

void maps_open_pending(void)
{
	int why = atomic_load(&open_wanted);

	if (why < 0 || atomic_exchange(&open_always, true))
		return;
	say((enum run_say)why, RUN_FILE_NONE, 0);
	maps_each(0, UINTPTR_MAX, open_map, NULL);
}

void preload_open_all(enum run_say why)
{
	int none = -1;

	if (preload_control != NULL)
		atomic_compare_exchange_strong(&open_wanted, &none, (int)why);
}

bool maps_are_open(void)
{
	return atomic_load(&open_wanted) >= 0;
}

void preload_open_now(void)
{
	struct maps_change change;

	if (atomic_load(&open_wanted) < 0 || atomic_load(&open_always))
		return;
	maps_begin(&change);
	maps_open_pending();
	maps_end(&change);
}

void maps_leave_out(void)
{
	struct map map;

	for (uintptr_t at = 0; ranges_next(at, UINTPTR_MAX, &map); at = map.end) {
		if (!map.not_in_children || !ranges_promise(1))
			continue;
		maps_disown(map.start, map.end);
		ranges_clear(map.start, map.end);
	}
}

static void restore_map(struct map *m, void *arg)
{
	(void)arg;
	maps_set_protection(m, 0);
}

void maps_abandon(void)
{
	maps_each(0, UINTPTR_MAX, restore_map, NULL);
	maps_disown(0, UINTPTR_MAX & ~(uintptr_t)(MKW_PAGE_SIZE - 1));
	ranges_forget_all();
}

/* ---- mmap --------------------------------------------------------------------------------- */

static bool file_system_has_end(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type != HUGETLBFS_MAGIC &&
	       fs.f_type != SECRETMEM_MAGIC && (fs.f_type != TMPFS_MAGIC || fs.f_blocks != 0);
}

/* Is it a mapping to be watched? */
static bool is_watched(int protection, int flags, int fd, struct stat *st)
{
	int kind = flags & MAP_TYPE, access, saved = errno;
	bool is;

	if ((kind != MAP_SHARED && kind != MAP_SHARED_VALIDATE) || fd < 0 ||
	    (flags & (MAP_ANONYMOUS | MAP_HUGETLB)) != 0 || (protection & PROT_EXEC) != 0)
		return false;
	access = fcntl(fd, F_GETFL);
	is = access >= 0 && (access & O_ACCMODE) == O_RDWR && (access & O_PATH) == 0 &&
	     fstat(fd, st) == 0 && S_ISREG(st->st_mode) && file_system_has_end(fd);
	errno = saved;
	return is;
}

static void *map_plainly(void *address, size_t length, int protection, int flags, int fd,
			 off64_t offset)
{
	return NEXT(mmap)(address, length, protection, flags, fd, offset);
}

/* Which is not a new view's, after the call: nothing of what was there is left. */
static void map_forget(uintptr_t start, uintptr_t end)
{
	if (ranges_overlap(start, end) && ranges_promise(2)) {
		maps_disown(start, end);
		ranges_clear(start, end);
	}
}

/* What the kernel has put where we know of a mapping: that was unmapped behind our back. */
static void map_supersede(uintptr_t start, uintptr_t end)
{
	struct maps_change change;

	if (!ranges_overlap(start, end))
		return;
	maps_begin(&change);
	map_forget(start, end);
	files_sweep();
	maps_end(&change);
}

/* Of a file that is watched. */
static void *map_watched(void *address, size_t length, int protection, int flags, int fd,
			 off64_t offset, const struct stat *st)
{
	struct map map = {.offset = (uint64_t)offset, .protection = protection};
	int error = 0;
	void *p;

	map.file = file_get(fd, st->st_dev, st->st_ino, &error);
	if (map.file == NULL || !ranges_promise(4)) {
		say(RUN_SAY_NO_FILE, RUN_FILE_NONE, (uint64_t)(error != 0 ? -error : ENOMEM));
		p = map_plainly(address, length, protection, flags, fd, offset);
		if (p != MAP_FAILED)
			map_forget((uintptr_t)p, (uintptr_t)p + maps_page_up(length));
		return p;
	}
	/* Writable it becomes as it is granted; populated for reading, it is not dirtied. */
	p = map_plainly(address, length, protection & ~PROT_WRITE, flags, fd, offset);
	if (p == MAP_FAILED)
		return p;
	map.start = (uintptr_t)p;
	map.end = map.start + maps_page_up(length);
	map_forget(map.start, map.end);
	ranges_set(&map);
	maps_adopt(map.start, map.end);
	return p;
}

static void *map_hooked(void *address, size_t length, int protection, int flags, int fd,
			off64_t offset)
{
	uintptr_t start = (uintptr_t)address, end = start + maps_page_up(length);
	bool over = (flags & MAP_FIXED) != 0 && (flags & MAP_FIXED_NOREPLACE) == 0;
	struct maps_change change;
	struct stat st;
	bool watched;
	void *p;

	if (preload_control == NULL)
		return map_plainly(address, length, protection, flags, fd, offset);
	watched = is_watched(protection, flags, fd, &st);
	over = over && start % MKW_PAGE_SIZE == 0 && end > start && ranges_overlap(start, end);
	if (!watched && !over) {
		p = map_plainly(address, length, protection, flags, fd, offset);
		if (p != MAP_FAILED)
			map_supersede((uintptr_t)p, (uintptr_t)p + maps_page_up(length));
		return p;
	}
	if (watched)
		snapshots_join();
	maps_begin(&change);
	maps_open_pending();
	if (over)
		maps_disown(start, end);
	p = watched ? map_watched(address, length, protection, flags, fd, offset, &st)
		    : map_plainly(address, length, protection, flags, fd, offset);
	if (p == MAP_FAILED) {
		change.error = errno;
		if (over)
			maps_adopt(start, end);
	} else if (!watched) {
		map_forget((uintptr_t)p, (uintptr_t)p + maps_page_up(length));
	}
	files_sweep();
	maps_end(&change);
	if (watched && p != MAP_FAILED)
		preload_raw_watch();
	return p;
}

HOOK void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	return map_hooked(address, length, protection, flags, fd, offset);
}

HOOK void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
	return map_hooked(address, length, protection, flags, fd, offset);
}

/* ---- munmap ------------------------------------------------------------------------------- */

HOOK int munmap(void *address, size_t length)
{
	uintptr_t start = (uintptr_t)address, end = start + maps_page_up(length);
	struct maps_change change;
	int result;

	if (preload_control == NULL || start % MKW_PAGE_SIZE != 0 || end <= start ||
	    !ranges_overlap(start, end))
		return NEXT(munmap)(address, length);
	maps_begin(&change);
	maps_open_pending();
	if (!ranges_promise(2)) {
		maps_end_with(&change, ENOMEM);
		return -1;
	}
	maps_disown(start, end);
	result = NEXT(munmap)(address, length);
	if (result == 0) {
		ranges_clear(start, end);
		files_sweep();
	} else {
		change.error = errno;
		maps_adopt(start, end);
	}
	maps_end(&change);
	return result;
}
