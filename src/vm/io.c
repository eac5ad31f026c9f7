/* SPDX-License-Identifier: MIT */
/*
 * io.c - mkw_pread and mkw_pwrite: file-like access to an object, by the same fault path as views.
 *
 * Bytes go through a staging buffer: while a page is locked the caller's memory is not touched, for
 * it may lie in a view, of this object even, and fault (4.6). A copy from or to the caller's memory
 * happens with nothing held.
 */
#include "vm.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define STAGING_PAGES 32u /* of a staging buffer: so much stays in the nearest cache */

struct span { /* one step: bytes within consecutive pages of one region */
	uint64_t page;
	size_t in_page, bytes, pages;
};

static struct span span_at(uint64_t offset, size_t count)
{
	struct span s = {.page = offset >> PAGE_SHIFT, .in_page = offset & (MKW_PAGE_SIZE - 1)};
	size_t room = (REGION_PAGES - (s.page & (REGION_PAGES - 1))) << PAGE_SHIFT;

	if (room > STAGING_PAGES << PAGE_SHIFT)
		room = STAGING_PAGES << PAGE_SHIFT;
	s.bytes = count < room - s.in_page ? count : room - s.in_page;
	s.pages = (s.in_page + s.bytes + MKW_PAGE_SIZE - 1) >> PAGE_SHIFT;
	return s;
}

/* Lock what the span needs, copy between the frames and the staging buffer, unlock. Returns the
 * bytes moved: fewer pages may have been had than asked for. */
static ssize_t span_move(struct object *o, const struct span *s, char *staging, bool write)
{
	struct fault f;
	int error = fault_call(&f, o, NULL, write ? FAULT_WRITE : FAULT_READ, s->page, s->pages);
	size_t bytes = 0;

	if (error == 0) {
		char *data = frames_data(o->frames, s->page << PAGE_SHIFT, f.locked << PAGE_SHIFT);
		bytes = (f.locked << PAGE_SHIFT) - s->in_page;
		if (bytes > s->bytes)
			bytes = s->bytes;
		if (data == NULL)
			error = mkw_set_error(-ENOMEM, "no memory to reach the pages");
		else if (write)
			memcpy(data + s->in_page, staging, bytes);
		else
			memcpy(staging, data + s->in_page, bytes);
	}
	fault_call_end(&f);
	return error != 0 ? error : (ssize_t)bytes;
}

static int io_check(const struct mkw_handle *h, const void *buffer, size_t count, uint64_t offset)
{
	if (h == NULL || (buffer == NULL && count > 0))
		return mkw_set_error(-EINVAL, "no handle or no buffer");
	if (count > SSIZE_MAX || offset > UINT64_MAX - count)
		return mkw_set_error(-EINVAL, "the range overflows");
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	return 0;
}

ssize_t mkw_pread(struct mkw_handle *h, void *buffer, size_t count, uint64_t offset)
{
	struct env_shield shield;
	size_t total = 0;
	ssize_t n = 0;
	char *staging;

	error_clear();
	n = io_check(h, buffer, count, offset);
	if (n != 0)
		return n;
	staging = slab_buffer(h->object->space);
	if (staging == NULL)
		return mkw_set_error(-ENOMEM, "no memory for a buffer");
	while (total < count) {
		uint64_t at = offset + total, size = h->object->size_bytes;
		struct span s;

		if (at >= size)
			break;
		s = span_at(at, count - total < size - at ? count - total : (size_t)(size - at));
		env_shield(&shield);
		n = span_move(h->object, &s, staging, false);
		env_unshield(&shield);
		if (n < 0)
			break;
		if (guard_copy((char *)buffer + total, staging, (size_t)n) != 0) {
			n = -EFAULT;
			break;
		}
		total += (size_t)n;
	}
	slab_buffer_free(h->object->space, staging);
	/* Truncated under us: the end of the object. */
	if (n == -ENXIO)
		n = 0;
	return total > 0 ? (ssize_t)total : n < 0 ? n : 0;
}

/* Grow the object so that a write to `end` fits. */
static int write_extend(struct object *o, uint64_t end)
{
	for (;;) {
		uint64_t size = o->size_bytes;
		int error = size >= end ? 0 : object_resize(o, end, size);
		if (error != -EAGAIN || error_last() == -EAGAIN)
			return error;
	}
}

/* A write that grew the object and was refused part of it: take back what is beyond. */
static void write_shrink(struct object *o, uint64_t end, uint64_t keep)
{
	if (o->size_bytes == end && keep < end)
		object_resize(o, keep, end);
}

static ssize_t write_all(struct object *o, const char *buffer, size_t count, uint64_t offset,
			 char *staging)
{
	struct env_shield shield;
	size_t total = 0;
	ssize_t n = 0;

	while (total < count) {
		struct span s = span_at(offset + total, count - total);

		n = guard_copy(staging, buffer + total, s.bytes);
		if (n != 0)
			break;
		env_shield(&shield);
		n = span_move(o, &s, staging, true);
		env_unshield(&shield);
		if (n < 0)
			break;
		total += (size_t)n;
	}
	return total > 0 ? (ssize_t)total : n;
}

ssize_t io_overwrite(struct object *o, const void *bytes, size_t count, uint64_t offset)
{
	char *staging = slab_buffer(o->space);
	ssize_t n;

	if (staging == NULL)
		return mkw_set_error(-ENOMEM, "no memory for a buffer");
	n = write_all(o, bytes, count, offset, staging);
	slab_buffer_free(o->space, staging);
	return n;
}

ssize_t mkw_pwrite(struct mkw_handle *h, const void *buffer, size_t count, uint64_t offset)
{
	struct env_shield shield;
	uint64_t old_size, end;
	char *staging;
	ssize_t n;

	error_clear();
	n = io_check(h, buffer, count, offset);
	if (n == 0)
		n = handle_check_write(h);
	if (n == 0 && !h->object->can_write)
		n = mkw_set_error(-EINVAL, "the store has no writepages: it is read only");
	if (n != 0 || count == 0)
		return n;
	staging = slab_buffer(h->object->space);
	if (staging == NULL)
		return mkw_set_error(-ENOMEM, "no memory for a buffer");
	old_size = h->object->size_bytes;
	end = offset + count;
	env_shield(&shield);
	n = write_extend(h->object, end);
	env_unshield(&shield);
	if (n == 0)
		n = write_all(h->object, buffer, count, offset, staging);
	if (end > old_size && n < (ssize_t)count) {
		uint64_t keep = n > 0 ? offset + (uint64_t)n : 0;
		env_shield(&shield);
		write_shrink(h->object, end, keep > old_size ? keep : old_size);
		env_unshield(&shield);
	}
	slab_buffer_free(h->object->space, staging);
	return n;
}
