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
#include <stdio.h>
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
	if (process_check(h->object->space) != 0)
		return -ECHILD;
	return object_check_cache(h->object);
}

/* Shielded: a handler that came in while the slab's lock is held could want it too. */
static char *staging_get(struct space *s)
{
	struct env_shield shield;
	char *staging;

	env_shield(&shield);
	staging = slab_buffer(s);
	env_unshield(&shield);
	if (staging == NULL)
		mkw_set_error(-ENOMEM, "no memory for a buffer");
	return staging;
}

static void staging_put(struct space *s, char *staging)
{
	struct env_shield shield;

	env_shield(&shield);
	slab_buffer_free(s, staging);
	env_unshield(&shield);
}

static ssize_t read_all(struct object *o, char *buffer, size_t count, uint64_t offset,
			char *staging)
{
	struct env_shield shield;
	size_t total = 0;
	ssize_t n = 0;

	while (total < count) {
		uint64_t at = offset + total, size = o->size_bytes;
		struct span s;

		if (at >= size)
			break;
		s = span_at(at, count - total < size - at ? count - total : (size_t)(size - at));
		env_shield(&shield);
		n = span_move(o, &s, staging, false);
		env_unshield(&shield);
		if (n == -ENXIO && at >= o->size_bytes)
			n = 0; /* truncated under us: the end */
		if (n > 0 && guard_copy_out(buffer + total, staging, (size_t)n) != 0)
			n = -EFAULT;
		if (n <= 0)
			break;
		total += (size_t)n;
	}
	return total > 0 ? (ssize_t)total : n < 0 ? n : 0;
}

ssize_t mkw_pread(struct mkw_handle *h, void *buffer, size_t count, uint64_t offset)
{
	char *staging;
	ssize_t n;

	error_clear();
	n = io_check(h, buffer, count, offset);
	if (n != 0)
		return n;
	staging = staging_get(h->object->space);
	if (staging == NULL)
		return -ENOMEM;
	n = read_all(h->object, buffer, count, offset, staging);
	staging_put(h->object->space, staging);
	return n;
}

/* ---- Writing ------------------------------------------------------------------------------ */

static bool is_frozen(const struct object *o)
{
	return atomic_load(&o->frozen) != 0;
}

/* What a write has grown its object by. */
struct growth {
	uint64_t from, to; /* bytes; to 0: nothing */
	uint64_t number;
};

/* Grow the object so that a write to `end` fits. A frozen object is waited for. */
static int write_extend(struct object *o, uint64_t end, struct growth *growth)
{
	struct sleeper sleeper;
	int error = 0;

	sleeper_init(&sleeper);
	for (;;) {
		uint64_t size = o->size_bytes;

		error_clear();
		error = size >= end ? 0 : object_resize(o, end, size, &growth->number);
		if (error == -EAGAIN && error_last() == 0)
			continue; /* somebody else changed the size */
		if (error == 0 && size < end) {
			growth->from = size;
			growth->to = end;
		}
		if (error <= 0)
			break;
		env_lock(&o->lock);
		if (is_frozen(o)) {
			list_push_back(&o->waiters, &sleeper.waiter.link);
			env_unlock(&o->lock);
			sleeper_sleep(&sleeper);
		} else {
			env_unlock(&o->lock);
		}
	}
	sleeper_destroy(&sleeper);
	return error;
}

/* What the object was grown for has been refused; why is still to be told. */
static void write_shrink(struct object *o, const struct growth *growth, int error)
{
	char sentence[256];

	snprintf(sentence, sizeof(sentence), "%s", error_sentence());
	object_shrink_unused(o, growth->from, growth->to, growth->number);
	mkw_set_error(error, "%s", sentence);
}

/* One span; grow: the object with it. */
static ssize_t write_span(struct object *o, const struct span *s, char *staging, bool grow)
{
	uint64_t end = (s->page << PAGE_SHIFT) + s->in_page + s->bytes;
	struct growth growth = {0};
	struct env_shield shield;
	ssize_t n;

	env_shield(&shield);
	for (;;) {
		n = grow ? write_extend(o, end, &growth) : 0;
		if (n == 0)
			n = span_move(o, s, staging, true);
		/* Cut off again before the bytes were in: once more. */
		if (n == -ENXIO && grow && o->size_bytes < end)
			continue;
		if (n < 0 && growth.to != 0)
			write_shrink(o, &growth, (int)n);
		break;
	}
	env_unshield(&shield);
	return n;
}

static ssize_t write_all(struct object *o, const char *buffer, size_t count, uint64_t offset,
			 bool grow)
{
	char *staging = staging_get(o->space);
	size_t total = 0;
	ssize_t n = 0;

	if (staging == NULL)
		return -ENOMEM;
	while (total < count) {
		struct span s = span_at(offset + total, count - total);

		n = guard_copy_in(staging, buffer + total, s.bytes);
		if (n == 0)
			n = write_span(o, &s, staging, grow);
		if (n < 0)
			break;
		total += (size_t)n;
	}
	staging_put(o->space, staging);
	return total > 0 ? (ssize_t)total : n;
}

ssize_t io_overwrite(struct object *o, const void *bytes, size_t count, uint64_t offset)
{
	return write_all(o, bytes, count, offset, false);
}

ssize_t mkw_pwrite(struct mkw_handle *h, const void *buffer, size_t count, uint64_t offset)
{
	ssize_t n;

	error_clear();
	n = io_check(h, buffer, count, offset);
	if (n == 0)
		n = handle_check_write(h);
	if (n == 0 && !h->object->can_write)
		n = mkw_set_error(-EINVAL, "the store has no writepages: it is read only");
	if (n != 0 || count == 0)
		return n;
	return write_all(h->object, buffer, count, offset, true);
}
