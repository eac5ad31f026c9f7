/* SPDX-License-Identifier: MIT */
/*
 * syncs.c - hooks of the calls by which a program makes its data durable, and of those that load
 * code. A sync is an event of the trace; with a trace or a dirty limit what it writes is clean
 * afterwards for us as well, and the next write to it a first one.
 */
#include "next.h"

#include "forks.h"
#include "maps.h"
#include "ranges.h"
#include "run/caller.h"

#include <dlfcn.h>
#include <errno.h>

static bool syncs_matter(void)
{
	return preload_control != NULL &&
	       (preload_control->options.trace || preload_control->options.dirty_limit_bytes != 0);
}

static void post_sync(const struct file *f, uint64_t offset, uint64_t length)
{
	const struct run_event event = {
		.kind = RUN_EVENT_SYNC,
		.file = f->number,
		.offset = offset,
		.length = length,
		.caller = 0,
	};

	if (preload_control->options.trace)
		run_post(preload_control, &event);
}

static void post_map(struct map *m, void *arg)
{
	(void)arg;
	post_sync(m->file, m->offset, m->end - m->start);
}

/* What is dirty now is protected, and the program's own call writes it. */
HOOK int msync(void *address, size_t length, int flags)
{
	uintptr_t start = (uintptr_t)address, end = start + maps_page_up(length);
	struct maps_change change;
	sigset_t mask;

	if (syncs_matter() && (flags & MS_SYNC) != 0 && start % MKW_PAGE_SIZE == 0 && end > start &&
	    ranges_overlap(start, end)) {
		maps_begin(&change);
		maps_each(start, end, post_map, NULL);
		maps_end(&change);
		let_enter(&mask);
		mkw_msync(address, length);
		let_leave(&mask);
	}
	return NEXT(msync)(address, length, flags);
}

static struct file *file_take(int fd)
{
	struct maps_change change;
	struct file *f;

	maps_begin(&change);
	f = file_of(fd);
	if (f != NULL)
		atomic_fetch_add(&f->users, 1);
	maps_end(&change);
	return f;
}

/* length 0: all of it. */
static void sync_file(int fd, uint64_t offset, uint64_t length)
{
	int saved = errno;
	sigset_t all, mask, inner;
	struct file *f;

	if (!syncs_matter() || !file_any())
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &mask);
	f = file_take(fd);
	if (f != NULL) {
		post_sync(f, offset, length);
		let_enter(&inner);
		mkw_sync(f->handle, offset, length);
		let_leave(&inner);
		atomic_fetch_sub(&f->users, 1);
	}
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	errno = saved;
}

HOOK int fsync(int fd)
{
	sync_file(fd, 0, 0);
	return NEXT(fsync)(fd);
}

HOOK int fdatasync(int fd)
{
	sync_file(fd, 0, 0);
	return NEXT(fdatasync)(fd);
}

HOOK int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags)
{
	if (offset >= 0 && length >= 0 && (flags & SYNC_FILE_RANGE_WRITE) != 0)
		sync_file(fd, (uint64_t)offset, (uint64_t)length);
	return NEXT(sync_file_range)(fd, offset, length, flags);
}

/* ---- Code --------------------------------------------------------------------------------- */

HOOK void *dlopen(const char *name, int flags)
{
	void *handle = NEXT(dlopen)(name, flags);

	if (preload_control != NULL && preload_control->options.trace)
		run_caller_learn();
	return handle;
}

HOOK int dlclose(void *handle)
{
	bool traced = preload_control != NULL && preload_control->options.trace;
	int result;

	if (traced)
		run_caller_forget();
	result = NEXT(dlclose)(handle);
	if (traced)
		run_caller_learn();
	return result;
}
