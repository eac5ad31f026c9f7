/* SPDX-License-Identifier: MIT */
/*
 * library.c - a space with one object and one view, as the measures of the library start from, over
 * the public interface alone.
 */
#include "library.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- The empty store ---------------------------------------------------------------------- */

static mkw_fault_t empty_fault(void *store, struct mkw_object *object, struct mkw_run *run,
			       void *buffer)
{
	(void)store;
	(void)object;
	(void)buffer;
	run->flags |= MKW_RUN_HOLE;
	return MKW_FAULT_LOCKED;
}

static int empty_writepages(void *store, struct mkw_object *object, struct mkw_writeback *writeback)
{
	(void)store;
	(void)object;
	(void)writeback;
	return 0;
}

static int empty_punch(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	(void)store;
	(void)object;
	(void)offset;
	(void)length;
	return 0;
}

static const struct mkw_store_ops empty_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "empty",
	.flags = MKW_STORE_FIXED_SIZE,
	.fault = empty_fault,
	.writepages = empty_writepages,
	.punch_hole = empty_punch,
};

/* ---- Start and end ------------------------------------------------------------------------ */

int library_say(struct bench *bench, int error, const char *what)
{
	const char *why = mkw_error_message();

	return bench_say(bench, error, "%s: %s", what, why[0] ? why : strerror(-error));
}

static int file_open(struct bench *bench, struct library *library)
{
	static unsigned serial;
	char uri[160];
	int file, mount_fd, rc;

	snprintf(library->name, sizeof(library->name), "object-%u", serial++);
	rc = bench_file_create(bench, BENCH_EXT4, library->name, library->size, (size_t)MIB, &file);
	if (rc)
		return rc;
	/* While we had it open for writing, it would be no storage of the library's alone. */
	close(file);
	rc = bench_image_open(bench, BENCH_EXT4, &mount_fd);
	if (rc)
		return rc;
	snprintf(uri, sizeof(uri), "file:/proc/self/fd/%d/%s%s", mount_fd, library->name,
		 library->how->direct ? "?direct=1" : "");
	rc = mkw_open(library->space, uri, MKW_RDWR, &library->handle);
	return rc ? library_say(bench, rc, uri) : 0;
}

static int object_open(struct bench *bench, struct library *library)
{
	char uri[48];
	int rc;

	switch (library->how->storage) {
	case LIBRARY_FILE:
		return file_open(bench, library);
	case LIBRARY_MEM:
		snprintf(uri, sizeof(uri), "mem:%zu", library->size);
		rc = mkw_open(library->space, uri, MKW_RDWR, &library->handle);
		return rc ? library_say(bench, rc, uri) : 0;
	case LIBRARY_EMPTY:
		rc = mkw_create(library->space, &empty_ops, NULL, library->size, MKW_RDWR,
				&library->handle);
		return rc ? library_say(bench, rc, "mkw_create") : 0;
	}
	return -EINVAL;
}

/* Background write-back as seldom as the kernel's own. */
#define WRITEBACK_INTERVAL_MS 5000

int library_start(struct bench *bench, const struct library_case *how, size_t size,
		  uint64_t resident_bytes, struct library *library)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	int rc;

	*library = (struct library){.how = how, .size = size};
	options.resident_limit_bytes = resident_bytes;
	options.swap_path = how->swap_path;
	options.writeback_interval_ms = WRITEBACK_INTERVAL_MS;
	bench_unpin();
	rc = mkw_space_create(&options, &library->space);
	if (rc)
		return library_say(bench, rc, "mkw_space_create");
	rc = object_open(bench, library);
	if (!rc) {
		rc = mkw_map(library->handle, size, MKW_READ | MKW_WRITE, how->map_flags, 0,
			     &library->view);
		if (rc)
			library_say(bench, rc, "mkw_map");
	}
	if (rc)
		library_end(bench, library);
	return rc;
}

void library_end(struct bench *bench, struct library *library)
{
	int mount_fd;

	if (library->handle)
		mkw_discard(library->handle, 0, library->size);
	if (library->view)
		mkw_unmap(library->view, library->size);
	if (library->handle)
		mkw_close(library->handle);
	if (library->space)
		mkw_space_destroy(library->space, MKW_DISCARD);
	if (library->name[0] && !bench_image_open(bench, BENCH_EXT4, &mount_fd))
		unlinkat(mount_fd, library->name, 0);
	*library = (struct library){0};
}

int library_open(struct bench *bench, const struct bench_measure *measure, size_t size,
		 uint64_t resident_bytes, struct library **library)
{
	int rc;

	*library = calloc(1, sizeof(**library));
	if (!*library)
		return -ENOMEM;
	rc = library_start(bench, measure->arg, size, resident_bytes, *library);
	if (rc)
		free(*library);
	return rc;
}

void library_close(struct bench *bench, void *library)
{
	library_end(bench, library);
	free(library);
}

/* ---- Counts ------------------------------------------------------------------------------- */

int library_count_begin(struct bench *bench, struct library *library)
{
	int rc = mkw_space_stat(library->space, &library->before, sizeof(library->before));

	return rc ? library_say(bench, rc, "mkw_space_stat") : 0;
}

int library_count_end(struct bench *bench, struct library *library, struct bench_sample *sample)
{
	struct mkw_stat now, *before = &library->before;
	int rc = mkw_space_stat(library->space, &now, sizeof(now));

	if (rc)
		return library_say(bench, rc, "mkw_space_stat");
	sample->counts.has_events = true;
	sample->counts.faults += now.read_faults - before->read_faults;
	sample->counts.faults += now.write_faults - before->write_faults;
	sample->counts.events += now.events - before->events;
	sample->counts.calls += now.mmu_calls - before->mmu_calls;
	sample->counts.wakeups += now.wakeups - before->wakeups;
	return 0;
}
