/* SPDX-License-Identifier: MIT */
/*
 * maps.c - hooks of the calls that make, change and end mappings. A shared mapping of a regular
 * file that is open for writing becomes a view; what the program sees of it stays the kernel's.
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
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local unsigned depth __attribute__((tls_model("initial-exec")));
static _Atomic unsigned changing;    /* threads in a change, or about to be */
static _Atomic unsigned changes;     /* that have ended */
static _Atomic int open_wanted = -1; /* preload_open_all, why; -1: no */
static _Atomic bool open_always;     /* it has been done, and is for new views, too */

static uintptr_t page_up(uintptr_t n)
{
	return (n + MKW_PAGE_SIZE - 1) & ~(uintptr_t)(MKW_PAGE_SIZE - 1);
}

/* ---- Changing ----------------------------------------------------------------------------- */

void maps_begin(struct maps_change *change)
{
	sigset_t all;

	change->error = errno;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &change->mask);
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
	pthread_sigmask(SIG_SETMASK, &change->mask, NULL);
	errno = change->error;
}

/* What the call came to, in place of the errno before. */
static void maps_end_with(struct maps_change *change, int error)
{
	if (error != 0)
		change->error = error;
	maps_end(change);
}

bool maps_unknown(const void *address, bool write)
{
	static _Thread_local unsigned seen __attribute__((tls_model("initial-exec")));
	unsigned now;

	(void)address;
	(void)write;
	if (depth > 0) /* the thread's own change */
		return false;
	if (atomic_load(&changing) > 0) {
		pthread_mutex_lock(&lock);
		pthread_mutex_unlock(&lock);
		return true;
	}
	/* One that has ended since the access was made: at most one try more for each. */
	now = atomic_load(&changes);
	if (now == seen)
		return false;
	seen = now;
	return true;
}

void maps_fork_begin(void)
{
	pthread_mutex_lock(&lock);
}

void maps_fork_end(bool child)
{
	if (!child) {
		pthread_mutex_unlock(&lock);
		return;
	}
	pthread_mutex_init(&lock, NULL);
	atomic_store(&changing, 0);
	depth = 0;
}

void maps_each(uintptr_t start, uintptr_t end, void (*fn)(struct map *map, void *arg), void *arg)
{
	struct map map;

	for (; ranges_next(start, end, &map); start = map.end)
		fn(&map, arg);
}

static bool overlaps(uintptr_t start, uintptr_t end)
{
	struct map map;

	return ranges_next(start, end, &map);
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

static unsigned allowed(int protection)
{
	unsigned bits = 0;

	if ((protection & PROT_READ) != 0)
		bits |= MKW_READ;
	if ((protection & PROT_WRITE) != 0)
		bits |= MKW_READ | MKW_WRITE;
	return bits;
}

static int set_protection(const struct map *m, int protection)
{
	return syscall(SYS_mprotect, m->start, m->end - m->start, protection) ? -errno : 0;
}

static void open_map(struct map *m, void *arg)
{
	(void)arg;
	if ((m->protection & PROT_WRITE) != 0)
		mkw_let_go((void *)m->start, m->end - m->start);
}

/* It is mapped, and in the list; what it is given by the kernel is at most what the program has
 * asked for. */
static void adopt_map(struct map *m, void *arg)
{
	int error = mkw_adopt(m->file->handle, (void *)m->start, m->end - m->start,
			      allowed(m->protection), m->offset);

	(void)arg;
	if (error != 0) {
		set_protection(m, m->protection);
		say(RUN_SAY_NO_FILE, m->file->number, (uint64_t)-error);
		return;
	}
	/* A view that may not be written is left as it was mapped, which may be more. */
	if ((m->protection & PROT_WRITE) == 0)
		set_protection(m, m->protection);
	if (preload_control->options.trace)
		mkw_advise((void *)m->start, m->end - m->start, MKW_RANDOM);
	if (atomic_load(&open_always))
		open_map(m, NULL);
}

static void adopt(uintptr_t start, uintptr_t end)
{
	maps_each(start, end, adopt_map, NULL);
}

/* Their mappings stay, all of one protection as far as the program knows: so the kernel has one
 * mapping where the program has one. */
static void unite_map(struct map *m, void *arg)
{
	(void)arg;
	set_protection(m, m->protection & ~PROT_WRITE);
}

static void disown(uintptr_t start, uintptr_t end)
{
	if (overlaps(start, end))
		mkw_unmap((void *)start, end - start);
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

void maps_open_pending(void)
{
	int why = atomic_load(&open_wanted);

	if (why < 0 || atomic_exchange(&open_always, true))
		return;
	say((enum run_say)why, RUN_FILE_NONE, 0);
	maps_each(0, UINTPTR_MAX, open_map, NULL);
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

static void restore_map(struct map *m, void *arg)
{
	(void)arg;
	set_protection(m, m->protection);
}

void maps_abandon(void)
{
	maps_each(0, UINTPTR_MAX, restore_map, NULL);
	disown(0, UINTPTR_MAX & ~(uintptr_t)(MKW_PAGE_SIZE - 1));
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
	int kind = flags & MAP_TYPE, access;

	if ((kind != MAP_SHARED && kind != MAP_SHARED_VALIDATE) || fd < 0 ||
	    (flags & (MAP_ANONYMOUS | MAP_HUGETLB)) != 0 || (protection & PROT_EXEC) != 0)
		return false;
	access = fcntl(fd, F_GETFL);
	return access >= 0 && (access & O_ACCMODE) == O_RDWR && (access & O_PATH) == 0 &&
	       fstat(fd, st) == 0 && S_ISREG(st->st_mode) && file_system_has_end(fd);
}

static void *map_plainly(void *address, size_t length, int protection, int flags, int fd,
			 off64_t offset)
{
	return NEXT(mmap)(address, length, protection, flags, fd, offset);
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
		return map_plainly(address, length, protection, flags, fd, offset);
	}
	/* Writable it becomes as it is granted; populated for reading, it is not dirtied. */
	p = map_plainly(address, length, protection & ~PROT_WRITE, flags, fd, offset);
	if (p == MAP_FAILED)
		return p;
	map.start = (uintptr_t)p;
	map.end = map.start + page_up(length);
	ranges_set(&map);
	adopt(map.start, map.end);
	return p;
}

static void *map_hooked(void *address, size_t length, int protection, int flags, int fd,
			off64_t offset)
{
	bool over =
		(flags & MAP_FIXED) != 0 && (flags & MAP_FIXED_NOREPLACE) != MAP_FIXED_NOREPLACE;
	uintptr_t start = (uintptr_t)address, end = start + page_up(length);
	struct maps_change change;
	struct stat st;
	bool watched;
	void *p;

	if (preload_control == NULL)
		return map_plainly(address, length, protection, flags, fd, offset);
	watched = is_watched(protection, flags, fd, &st);
	over = over && end > start && mkw_is_view(address, length);
	if (!watched && !over)
		return map_plainly(address, length, protection, flags, fd, offset);
	if (watched)
		snapshots_join();
	maps_begin(&change);
	maps_open_pending();
	if (over)
		disown(start, end);
	p = watched ? map_watched(address, length, protection, flags, fd, offset, &st)
		    : map_plainly(address, length, protection, flags, fd, offset);
	if (p == MAP_FAILED) {
		change.error = errno;
		if (over)
			adopt(start, end);
	} else if (!watched || !overlaps((uintptr_t)p, (uintptr_t)p + 1)) {
		if (ranges_promise(2))
			ranges_clear((uintptr_t)p, (uintptr_t)p + page_up(length));
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
	uintptr_t start = (uintptr_t)address, end = start + page_up(length);
	struct maps_change change;
	int result;

	if (preload_control == NULL || start % MKW_PAGE_SIZE != 0 || end <= start ||
	    !mkw_is_view(address, length))
		return NEXT(munmap)(address, length);
	maps_begin(&change);
	maps_open_pending();
	if (!ranges_promise(2)) {
		maps_end_with(&change, ENOMEM);
		return -1;
	}
	disown(start, end);
	result = NEXT(munmap)(address, length);
	if (result == 0) {
		ranges_clear(start, end);
		files_sweep();
	} else {
		change.error = errno;
		adopt(start, end);
	}
	maps_end(&change);
	return result;
}

/* ---- mremap ------------------------------------------------------------------------------- */

struct remap {
	void *from, *to; /* to: with MREMAP_FIXED or MREMAP_DONTUNMAP */
	size_t length, new_length;
	int flags;
};

static void *remap_plainly(const struct remap *r)
{
	if ((r->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0)
		return NEXT(mremap)(r->from, r->length, r->new_length, r->flags, r->to);
	return NEXT(mremap)(r->from, r->length, r->new_length, r->flags);
}

/* The list after it. => room for what it takes. */
static void remap_note(const struct remap *r, uintptr_t to, const struct map *first)
{
	uintptr_t from = (uintptr_t)r->from, old_end = from + page_up(r->length);
	struct map made = *first;

	made.start = to;
	made.end = to + page_up(r->new_length);
	/* length 0: one more mapping of the same; DONTUNMAP: the old one stays. */
	if (r->length > 0 && (r->flags & MREMAP_DONTUNMAP) == 0)
		ranges_clear(from, old_end);
	ranges_set(&made);
}

static void *remap_watched(const struct remap *r, const struct map *first)
{
	uintptr_t from = (uintptr_t)r->from, old_end = from + page_up(r->length);
	uintptr_t target = (uintptr_t)r->to, target_end = target + page_up(r->new_length);
	bool fixed = (r->flags & MREMAP_FIXED) != 0 && target_end > target;
	void *p;

	if (r->length == 0)
		old_end = from + MKW_PAGE_SIZE;
	disown(from, old_end);
	maps_each(from, old_end, unite_map, NULL);
	if (fixed)
		disown(target, target_end);
	p = remap_plainly(r);
	if (p != MAP_FAILED) {
		remap_note(r, (uintptr_t)p, first);
		adopt((uintptr_t)p, (uintptr_t)p + page_up(r->new_length));
	}
	if (p == MAP_FAILED || r->length == 0 || (r->flags & MREMAP_DONTUNMAP) != 0) {
		int error = errno;

		adopt(from, old_end);
		if (p == MAP_FAILED && fixed)
			adopt(target, target_end);
		errno = error;
	}
	return p;
}

/* What is no view is moved onto views, or grows into them. */
static void *remap_over(const struct remap *r)
{
	uintptr_t target = (uintptr_t)r->to, target_end = target + page_up(r->new_length);
	void *p;

	disown(target, target_end);
	p = remap_plainly(r);
	if (p != MAP_FAILED) {
		ranges_clear(target, target_end);
	} else {
		int error = errno;

		adopt(target, target_end);
		errno = error;
	}
	return p;
}

static void *remap_hooked(const struct remap *r)
{
	uintptr_t from = (uintptr_t)r->from, end = from + (r->length > 0 ? r->length : 1);
	struct maps_change change;
	struct map first;
	bool over = (r->flags & MREMAP_FIXED) != 0 && mkw_is_view(r->to, r->new_length);
	void *p = MAP_FAILED;

	if (preload_control == NULL || (!over && !mkw_is_view(r->from, end - from)))
		return remap_plainly(r);
	maps_begin(&change);
	maps_open_pending();
	if (!ranges_promise(6))
		errno = ENOMEM;
	else if (ranges_next(from, end, &first) && first.start == from)
		p = remap_watched(r, &first);
	else if (over)
		p = remap_over(r);
	else
		p = remap_plainly(r);
	if (p == MAP_FAILED)
		change.error = errno;
	files_sweep();
	maps_end(&change);
	return p;
}

HOOK void *mremap(void *from, size_t length, size_t new_length, int flags, ...)
{
	struct remap r = {from, NULL, length, new_length, flags};
	va_list ap;

	va_start(ap, flags);
	if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0)
		r.to = va_arg(ap, void *);
	va_end(ap);
	return remap_hooked(&r);
}

/* ---- mprotect ----------------------------------------------------------------------------- */

struct protect {
	int protection;
	int error;
	uintptr_t at; /* up to here it is done */
};

static void protect_plainly(struct protect *p, uintptr_t end)
{
	if (p->error == 0 && p->at < end &&
	    NEXT(mprotect)((void *)p->at, end - p->at, p->protection) != 0)
		p->error = errno;
	p->at = end;
}

static void protect_map(struct map *m, void *arg)
{
	struct protect *p = arg;
	size_t length = m->end - m->start;

	protect_plainly(p, m->start);
	p->at = m->end;
	if (p->error != 0)
		return;
	/* Code is no business of ours; it is left to the kernel from here on. */
	if ((p->protection & PROT_EXEC) != 0) {
		if (NEXT(mprotect)((void *)m->start, length, p->protection) != 0)
			p->error = errno;
		else
			mkw_unmap((void *)m->start, length);
		return;
	}
	p->error = -mkw_protect((void *)m->start, length, allowed(p->protection));
	if (p->error == 0 && atomic_load(&open_always) && (p->protection & PROT_WRITE) != 0)
		mkw_let_go((void *)m->start, length);
}

HOOK int mprotect(void *address, size_t length, int protection)
{
	uintptr_t start = (uintptr_t)address, end = start + page_up(length);
	struct protect p = {.protection = protection, .at = start};
	struct maps_change change;

	if (preload_control == NULL || start % MKW_PAGE_SIZE != 0 || end <= start ||
	    !mkw_is_view(address, length))
		return NEXT(mprotect)(address, length, protection);
	maps_begin(&change);
	maps_open_pending();
	if (!ranges_promise(2))
		p.error = ENOMEM;
	else
		maps_each(start, end, protect_map, &p);
	protect_plainly(&p, end);
	if (p.error == 0 && (protection & PROT_EXEC) != 0)
		ranges_clear(start, end);
	else if (p.error == 0)
		ranges_protect(start, end, protection);
	maps_end_with(&change, p.error);
	return p.error == 0 ? 0 : -1;
}

HOOK int pkey_mprotect(void *address, size_t length, int protection, int key)
{
	if (preload_control != NULL && mkw_is_view(address, length) && key == -1)
		return mprotect(address, length, protection);
	return NEXT(pkey_mprotect)(address, length, protection, key);
}

/* ---- madvise ------------------------------------------------------------------------------ */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct removed {
	uintptr_t start, end;
};

static void remove_map(struct map *m, void *arg)
{
	const struct run_event event = {
		.kind = RUN_EVENT_PUNCHED,
		.file = m->file->number,
		.offset = m->offset,
		.length = m->end - m->start,
	};

	(void)arg;
	run_snapshot_before_write(preload_control, m->file->number, m->offset, m->end - m->start);
	reserve_forget(&m->file->reserve, m->offset, m->end - m->start);
	run_post(preload_control, &event);
}

HOOK int madvise(void *address, size_t length, int advice)
{
	uintptr_t start = (uintptr_t)address;
	struct maps_change change;
	int result;

	if (preload_control == NULL || (advice != MADV_REMOVE && advice != MADV_POPULATE_WRITE) ||
	    !mkw_is_view(address, length))
		return NEXT(madvise)(address, length, advice);
	if (advice == MADV_POPULATE_WRITE) {
		struct preload_let let;

		preload_let_begin(&let, address, length);
		result = NEXT(madvise)(address, length, advice);
		preload_let_end(&let);
		return result;
	}
	maps_begin(&change);
	maps_each(start, start + page_up(length), remove_map, NULL);
	result = NEXT(madvise)(address, length, advice);
	maps_end_with(&change, result != 0 ? errno : 0);
	return result;
}
