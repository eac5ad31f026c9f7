/* SPDX-License-Identifier: MIT */
/*
 * files.c - the files that the program has mapped, and what they answer as stores: space for the
 * holes that are about to be written (run/reserve.h), what a snapshot still needs of them, what the
 * trace is told.
 *
 * Our opening of a file is a descriptor high up, which the hooks of close and its like leave alone.
 * A program that closes it by a system call of its own may get its number for something else: so it
 * is checked before each use (reserve.c), and opened anew by its name.
 *
 * Locks: the list is changed and looked through below maps_lock. page_mkwrite and writepages run
 * without any.
 */
#include "files.h"

#include "descriptors.h"
#include "full.h"
#include "maps.h"
#include "run/caller.h"
#include "run/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <mkwrite/store.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct file *_Atomic files;
static struct mkw_space *space;
static _Atomic bool lingering; /* some are without views */
static pid_t process;

static _Thread_local struct refused refused = {RUN_FILE_NONE, 0, 0};

const struct refused *file_refused(void)
{
	return &refused;
}

/* ---- Opening ------------------------------------------------------------------------------ */

static bool is_file(int fd, const struct file *f)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino;
}

/* The program has closed it, past the hooks. In a signal handler, too. */
static bool file_reopen(struct file *f)
{
	const char *path;
	int fd, old;

	if (!run_file_is_there(preload_control, f->number))
		return false;
	path = preload_control->files[f->number].path;
	fd = path[0] == '/' ? open(path, O_RDWR | O_CLOEXEC | O_NOCTTY) : -1;
	if (fd < 0)
		return false;
	fd = descriptor_keep(fd);
	if (fd < 0 || !is_file(fd, f)) {
		descriptor_drop(fd);
		return false;
	}
	old = atomic_exchange(&f->reserve.fd, fd);
	descriptor_forget(old);
	return true;
}

int file_descriptor(struct file *f)
{
	if (!is_file(atomic_load(&f->reserve.fd), f))
		file_reopen(f);
	return atomic_load(&f->reserve.fd);
}

/* ---- As a store --------------------------------------------------------------------------- */

static void post_reserved(void *arg, enum run_event_kind kind, uint64_t offset, uint64_t length)
{
	const struct file *f = arg;
	const struct run_event event = {
		.kind = (uint16_t)kind,
		.file = f->number,
		.offset = offset,
		.length = length,
	};

	run_post(preload_control, &event);
}

static void post_write(const struct file *f, uint64_t offset, uint64_t length)
{
	const ucontext_t *uc = mkw_fault_context();
	const struct run_event event = {
		.kind = uc != NULL ? RUN_EVENT_WRITE : RUN_EVENT_CALL,
		.file = f->number,
		.offset = offset,
		.length = length,
		.caller = uc != NULL ? run_caller(uc) : 0,
	};

	run_post(preload_control, &event);
}

static int reserve_surely(struct file *f, uint64_t offset, uint64_t length, bool broken)
{
	int error = reserve_run(&f->reserve, offset, length, broken);

	if (error == -EBADF && file_reopen(f))
		error = reserve_run(&f->reserve, offset, length, broken);
	/* There is no way to reserve: the kernel answers for itself. */
	return error == -EBADF && !broken ? 0 : error;
}

static const char *sentence_of(int error)
{
	switch (error) {
	case -ENOSPC:
		return "no space left on the device";
	case -EDQUOT:
		return "the disk quota is exceeded";
	case -ENXIO:
		return "past the end of the file";
	default:
		return "the file cannot be written";
	}
}

/* Does nobody want to hear of each page's first write? */
static bool grants_are_for_good(void)
{
	const struct run_options *o = &preload_control->options;

	return o->dirty_limit_bytes == 0 && !o->snapshots && !o->trace;
}

/* The piece around the run has space: then there is nothing to ask about its other pages. */
static void grow_to_piece(struct file *f, struct mkw_run *run)
{
	uint64_t start, length;

	if (!grants_are_for_good())
		return;
	length = reserve_known(&f->reserve, run->page * MKW_PAGE_SIZE, &start);
	if (length > MKW_PAGE_SIZE)
		mkw_run_grow(run, start / MKW_PAGE_SIZE, (size_t)(length / MKW_PAGE_SIZE));
}

/* Grants get larger than what is written: to be said once. */
static void say_grain(void)
{
	static _Atomic bool said;
	const size_t grain = mkw_grain();
	const struct run_event event = {
		.kind = RUN_EVENT_SAY,
		.file = RUN_FILE_NONE,
		.offset = grain,
		.length = RUN_SAY_MAPPINGS,
	};

	if (grain > 1 && !atomic_exchange(&said, true))
		run_post(preload_control, &event);
}

/* A snapshot gets what it needs of it. A process that is running out of mappings may be granted the
 * whole view with the range: then nobody asks for the rest. */
static void snapshot_first(const struct file *f, uint64_t offset, uint64_t length)
{
	if (mkw_grain() > 1)
		run_snapshot_before_write(preload_control, f->number, 0, UINT64_MAX);
	else
		run_snapshot_before_write(preload_control, f->number, offset, length);
}

static mkw_fault_t file_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	struct file *f = store;
	const bool broken = (run->flags & MKW_RUN_BROKEN) != 0;
	uint64_t offset = run->first * MKW_PAGE_SIZE, length = run->count * MKW_PAGE_SIZE;
	int error = reserve_surely(f, offset, length, broken);

	(void)object;
	/* The last free bytes are the page's that is written now. */
	if (error != 0 && run->count > 1) {
		mkw_run_cut(run, run->page, 1);
		offset = run->page * MKW_PAGE_SIZE;
		length = MKW_PAGE_SIZE;
		error = reserve_surely(f, offset, length, broken);
	}
	if (error != 0) {
		refused = (struct refused){
			f->number, offset,
			length > f->reserve.piece_bytes ? length : f->reserve.piece_bytes};
		return mkw_fault_from_errno(mkw_set_error(error, "%s", sentence_of(error)));
	}
	grow_to_piece(f, run);
	if (preload_control->options.snapshots)
		snapshot_first(f, offset, length);
	if (preload_control->options.trace)
		post_write(f, offset, length);
	say_grain();
	full_over();
	return 0;
}

/* The flusher's, which has no stack of the program's: to make room under the dirty limit. */
static int file_writepages(void *store, struct mkw_object *object, struct mkw_writeback *wb)
{
	struct file *f = store;

	(void)object;
	for (size_t i = 0; i < wb->count; i++) {
		const struct mkw_wb_run *run = &wb->runs[i];
		int fd = file_descriptor(f);

		wb->runs[i].result =
			sync_file_range(fd, (off_t)(run->first * MKW_PAGE_SIZE),
					(off_t)(run->count * MKW_PAGE_SIZE),
					SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
						SYNC_FILE_RANGE_WAIT_AFTER) == 0
				? 0
				: -errno;
	}
	return 0;
}

static void file_release(void *store)
{
	struct file *f = store;

	int fd = atomic_load(&f->reserve.fd);

	/* It was looked at; but the last pin may be later. */
	if (descriptor_may_close(fd))
		descriptor_drop(fd);
	syscall(SYS_munmap, f, sizeof(*f));
}

static const struct mkw_store_ops file_ops = {
	.struct_size = sizeof(file_ops),
	.page_mkwrite = file_mkwrite,
	.writepages = file_writepages,
	.release = file_release,
};

/* ---- The list ----------------------------------------------------------------------------- */

int files_begin(void)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	options.flags = MKW_SPACE_IN_PLACE;
	options.dirty_limit_bytes = preload_control->options.dirty_limit_bytes;
	process = getpid();
	return mkw_space_create(&options, &space);
}

struct file *file_find(uint64_t dev, uint64_t ino)
{
	struct file *f = files;

	while (f != NULL && (f->dev != dev || f->ino != ino))
		f = f->next;
	return f;
}

bool file_any(void)
{
	return files != NULL;
}

struct file *file_of(int fd)
{
	struct stat st;

	if (files == NULL || fstat(fd, &st) != 0)
		return NULL;
	return file_find(st.st_dev, st.st_ino);
}

/* Who is not let open it any more (root that has become somebody else, or has no /proc) shares the
 * program's: its flock lasts as long as the mapping, then. */
static int open_again(int fd)
{
	char path[32];
	int own;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	return own >= 0 ? descriptor_keep(own) : descriptor_share(fd);
}

static int file_open(struct file *f, int fd)
{
	int own = open_again(fd), error;

	if (own < 0)
		return own;
	error = reserve_init(&f->reserve, own, preload_control->options.reserve_bytes,
			     post_reserved, f);
	if (error == 0)
		error = mkw_create_in_place(space, &file_ops, f, MKW_RDWR, &f->handle);
	if (error != 0)
		descriptor_drop(own);
	return error;
}

/* A leak checker in the program looks for pointers in malloc's memory and in variables only. */
__attribute__((weak)) void __lsan_register_root_region(const void *p, size_t size);
__attribute__((weak)) void __lsan_unregister_root_region(const void *p, size_t size);

static struct file *file_allocate(void)
{
	struct file *f =
		mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (f == MAP_FAILED)
		return NULL;
	if (__lsan_register_root_region)
		__lsan_register_root_region(f, sizeof(*f));
	return f;
}

static void file_free(struct file *f)
{
	if (__lsan_unregister_root_region)
		__lsan_unregister_root_region(f, sizeof(*f));
	munmap(f, sizeof(*f));
}

/* Said once for all of them. */
static void post_nameless(void)
{
	const struct run_event event = {
		.kind = RUN_EVENT_SAY,
		.file = RUN_FILE_NONE,
		.length = RUN_SAY_FILE_TABLE,
	};

	run_post(preload_control, &event);
}

struct file *file_get(int fd, uint64_t dev, uint64_t ino, int *error)
{
	struct file *f = file_find(dev, ino);

	if (f != NULL)
		return f;
	f = file_allocate();
	if (f == NULL) {
		*error = -ENOMEM;
		return NULL;
	}
	f->dev = dev;
	f->ino = ino;
	f->number = run_file_number(preload_control, fd, dev, ino);
	if (f->number == RUN_FILE_NONE)
		post_nameless();
	*error = file_open(f, fd);
	if (*error != 0) {
		file_free(f);
		return NULL;
	}
	f->next = files;
	files = f;
	return f;
}

/* What has no views is needed no more; but see descriptors.c. */
static bool is_needed(struct file *f)
{
	if (mkw_view_count(f->handle) > 0)
		return true;
	if (atomic_load(&f->users) == 0 && descriptor_may_close(atomic_load(&f->reserve.fd)))
		return false;
	atomic_store(&lingering, true);
	return true;
}

void files_sweep(void)
{
	struct file *f = files, *last = NULL, *next;

	atomic_store(&lingering, false);
	for (; f != NULL; f = next) {
		next = f->next;
		if (is_needed(f)) {
			last = f;
			continue;
		}
		if (last != NULL)
			last->next = next;
		else
			files = next;
		mkw_close(f->handle); /* releases it, at the end of the last pin */
	}
}

void files_closed(void)
{
	struct maps_change change;

	if (preload_control == NULL || !atomic_load(&lingering))
		return;
	maps_begin(&change);
	files_sweep();
	maps_end(&change);
}

void files_forked(void)
{
	process = getpid();
	for (struct file *f = files; f != NULL; f = f->next)
		atomic_store(&f->users, 0);
}

bool files_are_of_process(void)
{
	return getpid() == process;
}

void files_descriptor_moved(int from, int to)
{
	struct maps_change change;

	maps_begin(&change);
	for (struct file *f = files; f != NULL; f = f->next) {
		int expected = from;

		atomic_compare_exchange_strong(&f->reserve.fd, &expected, to);
	}
	maps_end(&change);
}

void files_each(void (*fn)(struct file *file))
{
	for (struct file *f = files; f != NULL; f = f->next)
		fn(f);
}
