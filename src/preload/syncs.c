/* SPDX-License-Identifier: MIT */
/*
 * syncs.c - hooks of the calls by which a program makes its data durable, and of those that load
 * code. A sync is an event of the trace; with a trace or a dirty limit what it writes is clean
 * afterwards for us as well, and the next write to it a first one.
 */
#include "next.h"

#include "maps.h"
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
	struct maps_change change;

	if (syncs_matter() && (flags & MS_SYNC) != 0 && mkw_is_view(address, length)) {
		maps_begin(&change);
		maps_each((uintptr_t)address, (uintptr_t)address + length, post_map, NULL);
		mkw_msync(address, length);
		maps_end(&change);
	}
	return NEXT(msync)(address, length, flags);
}

/* length 0: all of it. */
static void sync_file(int fd, uint64_t offset, uint64_t length)
{
	struct maps_change change;
	struct file *f;

	if (!syncs_matter())
		return;
	maps_begin(&change);
	f = file_of(fd);
	if (f != NULL) {
		post_sync(f, offset, length);
		mkw_sync(f->handle, offset, length);
	}
	maps_end(&change);
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
