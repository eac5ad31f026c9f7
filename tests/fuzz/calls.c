/* SPDX-License-Identifier: MIT */
/*
 * calls.c - the calls that fuzz_api makes, each with what it must answer and what it does to the
 * model. A letter of the input names the call; numbers after it choose handle, range and so on.
 *
 * One thread makes them all, so calls that would wait for another thread are left out: writes to a
 * frozen object, refusals of an object whose writers wait.
 */
#include "fuzz/world.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* ---- Arguments ---------------------------------------------------------------------------- */

static struct handle *handle_pick(struct input *in)
{
	struct handle *h = &world.handles[input_number(in) % HANDLES];

	for (size_t i = 0; i < HANDLES && !h->handle; i++)
		h = &world.handles[i];
	return h->handle ? h : NULL;
}

static struct view *view_pick(struct input *in)
{
	struct view *v = &world.views[input_number(in) % VIEWS];

	for (size_t i = 0; i < VIEWS && !v->address; i++)
		v = &world.views[i];
	return v->address ? v : NULL;
}

/* Digits are pages, small letters places where mistakes are made, capitals odd places. */
static uint64_t offset_pick(struct input *in, const struct object *o)
{
	const uint64_t size = o->model.size_bytes;
	const uint64_t places[26] = {
		size,	      size - 1,	     size + 1,	 size & ~(PAGE - 1),
		4095,	      4097,	     8191,	 3,
		2097152,      2093056,	     2101248,	 2097151,
		131072,	      131071,	     65536,	 524288,
		1ull << 32,   1ull << 40,    1ull << 45, OBJECT_BYTES - PAGE,
		OBJECT_BYTES, INT64_MAX,     UINT64_MAX, UINT64_MAX - PAGE + 1,
		1ull << 63,   INT64_MAX - 5,
	};
	unsigned n = input_number(in);

	if (n < 10)
		return n * PAGE;
	if (n < 36)
		return places[n - 10];
	if (n < 62)
		return (n - 36) * 1537ull;
	return ((uint64_t)n << 8 | input_number(in)) * 8;
}

static uint64_t length_pick(struct input *in, const struct object *o, uint64_t offset)
{
	const uint64_t size = o->model.size_bytes;
	const uint64_t lengths[26] = {
		1,
		2,
		100,
		4095,
		4097,
		8192 - 3,
		65536,
		131073,
		2097152,
		size - offset,
		size - offset + 1,
		size - offset - 1,
		size,
		-offset,
		-offset - 1,
		-offset + 1,
		UINT64_MAX,
		1ull << 63,
		OBJECT_BYTES,
		1ull << 40,
		4096 - offset % PAGE,
		8192 - offset % PAGE,
		4097 - offset % PAGE,
		7,
		16384,
		12,
	};
	unsigned n = input_number(in);

	if (n < 10)
		return n * PAGE;
	if (n < 36)
		return lengths[n - 10];
	if (n < 62)
		return (n - 36) * 211ull + 1;
	return (n << 8 | input_number(in)) & 0xffff;
}

/* Bytes to write, hardly twice the same. */
static void bytes_make(unsigned char *to, size_t count)
{
	static uint64_t state = 1;

	for (size_t i = 0; i < count; i += sizeof(state)) {
		state = state * 6364136223846793005 + 1442695040888963407;
		memcpy(to + i, &state, count - i < sizeof(state) ? count - i : sizeof(state));
	}
}

static bool overflows(uint64_t offset, uint64_t length)
{
	return length > UINT64_MAX - offset;
}

/* The pages of a range as calls on handles take it. False: none. */
static bool range_pages(const struct object *o, uint64_t offset, uint64_t length, uint64_t *first,
			uint64_t *last)
{
	if (overflows(offset, length) || offset >= o->model.size_bytes)
		return false;
	*first = offset / PAGE;
	*last = length ? (offset + length - 1) / PAGE : UINT64_MAX;
	return true;
}

/* ---- Opening and closing ------------------------------------------------------------------ */

static void error_uri(struct input *in, char *to, size_t size, const char *beneath)
{
	static const char *const ops[] = {"fault",	"page_mkwrite", "unreserve",
					  "writepages", "truncate",	"punch_hole",
					  "fsync",	"attach",	"capacity"};
	static const char *const answers[] = {"errno=ENOSPC", "errno=EIO",   "errno=EAGAIN",
					      "errno=ENOMEM", "code=NOPAGE", "code=RETRY",
					      "code=OOM",     "code=0"};
	unsigned op = input_number(in) % 9, answer = input_number(in) % 8;
	unsigned nth = input_number(in) % 16 + 1, count = input_number(in) % 4;

	snprintf(to, size, "error?op=%s&%s&nth=%u&count=%u:%s", ops[op],
		 answers[op < 2 ? answer : answer % 4], nth, count, beneath);
}

static void uri_choose(struct input *in, struct object *o)
{
	static const uint64_t sizes[] = {0, 65536, 5000, 1 << 20, 3 << 20, 4096, 20481, 40 * 4096};
	unsigned kind = input_number(in) % 10;
	uint64_t size = sizes[input_number(in) % 8];
	unsigned slot = (unsigned)(o - world.objects);
	char beneath[100];

	o->file = kind >= 5;
	o->first_size_bytes = o->file ? 0 : size;
	o->quota = kind == 2 || kind == 4 || kind == 7;
	if (o->file)
		snprintf(beneath, sizeof(beneath), "file:f%u?extent=%s%s", slot,
			 size & 4096 ? "4K" : "64K", o->quota ? "&quota=64K" : "");
	else
		snprintf(beneath, sizeof(beneath), "mem:%llu?name=m%u%s", (unsigned long long)size,
			 slot, o->quota ? "&quota=32K" : "");
	o->errors = kind == 3 || kind == 4 || kind == 8;
	if (o->errors)
		error_uri(in, o->uri, sizeof(o->uri), beneath);
	else
		snprintf(o->uri, sizeof(o->uri), "%s%s",
			 kind == 1 || kind == 9 ? "delay?us=3:" : "", beneath);
	o->faulty = o->errors || o->quota;
}

static int open_wanted(const struct object *o, unsigned flags)
{
	bool write = flags & MKW_RDWR, create = flags & MKW_CREATE;

	if (flags > 0x1f || (flags & MKW_EXCL && !create) ||
	    (!write && flags & (MKW_CREATE | MKW_TRUNC)))
		return -EINVAL;
	if (o->file && !o->exists && !create)
		return -ENOENT;
	if (o->file && o->exists && flags & MKW_EXCL)
		return -EEXIST;
	if (!o->handles && !o->views)
		return 0;
	return (write && o->readonly) || !(flags & MKW_MANUAL) != !o->manual ? -EBUSY : 0;
}

static void object_opened(struct object *o, unsigned flags)
{
	if (!o->file)
		o->model.size_bytes = o->first_size_bytes;
	if (flags & MKW_TRUNC)
		model_truncate(&o->model, 0);
	o->readonly = !(flags & MKW_RDWR);
	o->manual = flags & MKW_MANUAL;
	o->blind = false;
}

static void call_open(struct input *in)
{
	struct object *o = &world.objects[input_number(in) % OBJECTS];
	unsigned flags = input_number(in) & 0x3f;
	struct handle *h = NULL;

	if (!o->uri[0])
		uri_choose(in, o);
	for (size_t i = 0; i < HANDLES; i++)
		if (!world.handles[i].handle)
			h = &world.handles[i];
	if (o->dead || !h)
		return;
	fuzz_trace("open \"%s\", %#x", o->uri, flags);
	int wanted = open_wanted(o, flags),
	    error = mkw_open(world.space, o->uri, flags, &h->handle);

	CHECK_RESULT(o, false, error, wanted);
	o->exists |= wanted == 0;
	if (error) {
		h->handle = NULL;
		/* It may have been emptied, or not. */
		o->dead |= wanted == 0 && o->file && !o->handles && !o->views;
		return;
	}
	h->object = o;
	h->flags = flags;
	if (!o->handles++ && !o->views)
		object_opened(o, flags);
	EXPECT(mkw_size(h->handle) == o->model.size_bytes, "%s: opened with size %llu, not %llu",
	       o->uri, (unsigned long long)mkw_size(h->handle),
	       (unsigned long long)o->model.size_bytes);
}

static void call_close(struct input *in)
{
	struct handle *h = handle_pick(in);

	if (!h)
		return;
	fuzz_trace("close %s", h->object->uri);
	handle_close(h);
}

/* ---- Views -------------------------------------------------------------------------------- */

static int map_wanted(const struct handle *h, uint64_t offset, uint64_t length, unsigned protection,
		      unsigned flags)
{
	if (!length || offset % PAGE || !protection || protection > 3)
		return -EINVAL;
	if (length > OBJECT_BYTES || offset > OBJECT_BYTES - length)
		return -EINVAL;
	if (flags & MKW_PRIVATE)
		return 0;
	return protection & MKW_WRITE && !(h->flags & MKW_RDWR) ? -EACCES : 0;
}

static void call_map(struct input *in)
{
	struct handle *h = handle_pick(in);
	struct view *v = NULL;

	for (size_t i = 0; i < VIEWS; i++)
		if (!world.views[i].address)
			v = &world.views[i];
	if (!h || !v)
		return;
	uint64_t offset = offset_pick(in, h->object);
	uint64_t length = length_pick(in, h->object, offset);
	/* A capital letter is for a private view. */
	unsigned how = input_number(in), protection = how & 2 ? how >> 2 : 3, flags = how & 1;
	void *address = NULL;

	if (how >= 36 && protection == 3)
		flags |= MKW_PRIVATE;
	/* What could be mapped, and takes for ever to go through. */
	if (length > 4 << 20 && length <= OBJECT_BYTES)
		length %= 4 << 20;
	fuzz_trace("map %s at %#llx, %#llx, protection %u, flags %u", h->object->uri,
		   (unsigned long long)offset, (unsigned long long)length, protection, flags);
	int wanted = map_wanted(h, offset, length, protection, flags);
	int error = mkw_map(h->handle, length, protection, flags, offset, &address);

	CHECK_RESULT(h->object, false, error, wanted);
	if (error)
		return;
	h->object->views++;
	*v = (struct view){
		.address = address,
		.given_bytes = length,
		.length = (length + PAGE - 1) / PAGE * PAGE,
		.object = h->object,
		.offset = offset,
		.writable = protection & MKW_WRITE,
		.private = flags & MKW_PRIVATE,
	};
	if (how >= 48 && v->private) {
		CHECK_RESULT(h->object, false, mkw_advise(address, length, MKW_RANDOM), 0);
		v->exact = true;
	}
}

/* A page longer, and no longer. */
static void view_grow_and_shrink(struct view *v)
{
	bool fits = v->offset + v->length + PAGE <= OBJECT_BYTES;
	void *address = v->address;

	CHECK_RESULT(NULL, false,
		     mkw_remap(v->address, v->length, v->length + PAGE, MKW_MAYMOVE, &address),
		     fits ? 0 : -EINVAL);
	if (!fits)
		return;
	v->address = address;
	CHECK_RESULT(NULL, false, mkw_remap(address, v->length + PAGE, v->length, 0, &address), 0);
	EXPECT(address == v->address, "moved by shrinking");
}

static void call_unmap(struct input *in)
{
	struct view *v = view_pick(in);
	unsigned how = input_number(in) % 8;

	if (!v)
		return;
	fuzz_trace("unmap %s, %u", v->object->uri, how);
	if (how == 1 || how == 2)
		CHECK_RESULT(NULL, false, mkw_unmap(v->address + how, v->length), -EINVAL);
	if (how == 4)
		CHECK_RESULT(NULL, false, mkw_unmap(v->address, SIZE_MAX), -EINVAL);
	if (how == 5 || how == 6) {
		CHECK_RESULT(NULL, false, mkw_protect(v->address, PAGE, how == 5 ? MKW_READ : 0),
			     0);
		CHECK_RESULT(NULL, false,
			     mkw_protect(v->address, v->length, v->writable ? MKW_WRITE : MKW_READ),
			     0);
	}
	if (how == 7)
		view_grow_and_shrink(v);
	if (how == 0)
		view_unmap_whole(v);
}

/* ---- Accesses ----------------------------------------------------------------------------- */

struct access {
	volatile unsigned char *at;
	unsigned char *bytes;
	size_t count;
	volatile size_t done;
};

static void access_load(void *arg)
{
	struct access *a = arg;

	for (size_t i = 0; i < a->count; i++)
		a->bytes[i] = a->at[i];
}

static void access_store(void *arg)
{
	struct access *a = arg;

	for (size_t i = 0; i < a->count; i++) {
		a->at[i] = a->bytes[i];
		a->done = i + 1;
	}
}

/* A place in a view, and how many bytes, all in one page. Returns the offset in the object. */
static uint64_t place_pick(struct input *in, const struct view *v, struct access *a)
{
	uint64_t at = offset_pick(in, v->object);
	uint64_t length = length_pick(in, v->object, at);

	/* Given in the object or in the view. */
	at = at >= v->offset && at - v->offset < v->length ? at - v->offset : at % v->length;
	a->at = v->address + at;
	a->count = (size_t)(length % (PAGE - at % PAGE)) + 1;
	a->bytes = world.buffer;
	a->done = 0;
	return v->offset + at;
}

static bool past_end(const struct object *o, uint64_t offset)
{
	return offset / PAGE * PAGE >= o->model.size_bytes;
}

static int access_run(const struct object *o, struct access *a, uint64_t offset, bool write)
{
	struct mkw_refusal refusal = {0};
	int wanted = past_end(o, offset) ? -ENXIO : 0;

	fuzz_trace("%s %zu at %#llx of %s", write ? "store" : "load", a->count,
		   (unsigned long long)offset, o->uri);
	int error = mkw_guard(write ? access_store : access_load, a, &refusal);

	fuzz_trace("  %d (%d): %s", error, wanted, refusal.message);
	EXPECT(error == wanted || (error < 0 && !wanted && object_soft(o)), "%s: %s at %#llx: %d",
	       o->uri, write ? "store" : "load", (unsigned long long)offset, error);
	if (error)
		EXPECT(refusal.error == error && refusal.write == write && refusal.message[0] &&
			       refusal.offset / PAGE == offset / PAGE,
		       "refusal %d of %d, \"%s\", at %#llx, not %#llx", refusal.error, error,
		       refusal.message, (unsigned long long)refusal.offset,
		       (unsigned long long)offset);
	return error;
}

static void call_load(struct input *in)
{
	struct view *v = view_pick(in);
	struct access a;

	if (!v)
		return;
	struct object *o = v->object;
	uint64_t offset = place_pick(in, v, &a);

	if (!access_run(o, &a, offset, false))
		bytes_compare(o, offset, view_read(v, offset, a.count));
}

/* What is stored behind the end, in its page, is nobody's. */
static void stored(struct object *o, uint64_t offset, const unsigned char *bytes, size_t count)
{
	uint64_t size = o->model.size_bytes;

	o->version++;
	if (offset + count > size)
		count = size > offset ? (size_t)(size - offset) : 0;
	if (count) {
		model_write(&o->model, offset, bytes, count);
		return;
	}
	struct model_page *p = model_page(&o->model, offset / PAGE);

	p->written = p->listed = true;
}

/* The same in a private view: the page is its own from now on. */
static void private_stored(struct view *v, uint64_t offset, const unsigned char *bytes,
			   size_t count)
{
	const uint64_t size = v->object->model.size_bytes, start = offset / PAGE * PAGE;
	bool new = !model_find(&v->own, offset / PAGE);
	struct model_page *p = model_page(&v->own, offset / PAGE);

	if (new) {
		model_read(&v->object->model, start, p->now, PAGE);
		p->valid = size - start < PAGE ? (size_t)(size - start) : PAGE;
		/* It may have been copied before, and only for this view is that known. */
		if (v->object->blind || (!v->exact && v->version != v->object->version))
			p->valid = 0;
	}
	if (count)
		memcpy(p->now + offset % PAGE, bytes, count);
}

static void view_stored(struct view *v, uint64_t offset, const unsigned char *bytes, size_t count)
{
	if (v->private)
		private_stored(v, offset, bytes, count);
	else
		stored(v->object, offset, bytes, count);
}

/* It is about to be stored to. False: it must not be, or would wait for ever, or there is no memory
 * to model so many pages. */
static bool view_takes(struct view *v, size_t pages)
{
	if (!v || !v->writable || (!v->private && v->object->freezes) || !model_room(pages))
		return false;
	if (!v->stored)
		v->version = v->object->version;
	v->stored = true;
	return true;
}

static void call_store(struct input *in)
{
	struct view *v = view_pick(in);
	struct access a;

	if (!view_takes(v, 1))
		return;
	uint64_t offset = place_pick(in, v, &a);

	bytes_make(a.bytes, a.count);
	access_run(v->object, &a, offset, true);
	if (a.done)
		view_stored(v, offset, a.bytes, a.done);
}

static void access_cross(void *arg)
{
	struct access *a = arg;
	uint64_t value;

	memcpy(&value, a->bytes, sizeof(value));
	__asm__ volatile("movq %1, %0" : "=m"(*(uint64_t *)(uintptr_t)a->at) : "r"(value));
	a->done = sizeof(value);
}

/* One instruction that writes two pages. */
static void call_cross(struct input *in)
{
	struct view *v = view_pick(in);
	struct mkw_refusal refusal;
	struct access a;

	if (!view_takes(v, 2) || v->length < 2 * PAGE)
		return;
	struct object *o = v->object;
	uint64_t boundary = (input_number(in) % (v->length / PAGE - 1) + 1) * PAGE;
	uint64_t offset = v->offset + boundary - 4;
	int wanted = past_end(o, offset + 4) ? -ENXIO : 0;

	fuzz_trace("store across %#llx of %s", (unsigned long long)offset + 4, o->uri);
	a = (struct access){.at = v->address + boundary - 4, .bytes = world.buffer};
	bytes_make(a.bytes, 8);
	int error = mkw_guard(access_cross, &a, &refusal);

	EXPECT(error == wanted || (error < 0 && object_soft(o)), "%s: %d, not %d", o->uri, error,
	       wanted);
	if (!a.done)
		return;
	view_stored(v, offset, a.bytes, 4);
	view_stored(v, offset + 4, a.bytes + 4, 4);
}

/* ---- Reading and writing ------------------------------------------------------------------ */

/* More than the buffer only where nothing comes of it. */
static size_t count_pick(struct input *in, const struct object *o, uint64_t offset)
{
	uint64_t count = length_pick(in, o, offset);

	if (count > SSIZE_MAX || overflows(offset, count))
		return count;
	return count > BUFFER_BYTES ? BUFFER_BYTES : count;
}

static void call_pread(struct input *in)
{
	struct handle *h = handle_pick(in);

	if (!h)
		return;
	struct object *o = h->object;
	uint64_t offset = offset_pick(in, o), size = o->model.size_bytes;
	size_t count = count_pick(in, o, offset);
	long long wanted = offset >= size || !count ? 0 : (long long)(size - offset);

	if (wanted > (long long)count)
		wanted = (long long)count;
	if (count > SSIZE_MAX || overflows(offset, count))
		wanted = -EINVAL;
	fuzz_trace("pread %s at %#llx, %#zx", o->uri, (unsigned long long)offset, count);
	ssize_t got = mkw_pread(h->handle, world.buffer, count, offset);

	if (got >= 0 && got < wanted && object_soft(o))
		wanted = got;
	CHECK_RESULT(o, offset >= FAR_BYTES, got, wanted);
	if (got <= 0 || o->blind)
		return;
	model_read(&o->model, offset, world.wanted, (size_t)got);
	bytes_compare(o, offset, (size_t)got);
}

static long long pwrite_wanted(const struct handle *h, uint64_t offset, size_t count)
{
	if (count > SSIZE_MAX || overflows(offset, count))
		return -EINVAL;
	if (!(h->flags & MKW_RDWR))
		return -EBADF;
	if (!count)
		return 0;
	return offset + count > OBJECT_BYTES ? -EFBIG : (long long)count;
}

/* The write of count bytes was answered with got. */
static void pwritten(struct handle *h, uint64_t offset, const unsigned char *bytes, size_t count,
		     ssize_t got)
{
	struct object *o = h->object;
	uint64_t size = mkw_size(h->handle), before = o->model.size_bytes;

	o->version++;
	if (got > 0)
		model_write(&o->model, offset, bytes, (size_t)got);
	/* Grown for more than was written, and the store would not take it back. */
	if (object_soft(o) && size > o->model.size_bytes && size <= offset + count)
		o->model.size_bytes = size;
	EXPECT(size == o->model.size_bytes, "%s: size %llu, %llu before, not %llu", o->uri,
	       (unsigned long long)size, (unsigned long long)before,
	       (unsigned long long)o->model.size_bytes);
}

static void call_pwrite(struct input *in)
{
	struct handle *h = handle_pick(in);

	if (!h || h->object->freezes)
		return;
	struct object *o = h->object;
	uint64_t offset = offset_pick(in, o);
	size_t count = count_pick(in, o, offset);

	if (!model_room(BUFFER_BYTES / PAGE + 1))
		return;
	fuzz_trace("pwrite %s at %#llx, %#zx", o->uri, (unsigned long long)offset, count);
	if (count <= BUFFER_BYTES)
		bytes_make(world.buffer, count);
	long long wanted = pwrite_wanted(h, offset, count);
	ssize_t got = mkw_pwrite(h->handle, world.buffer, count, offset);

	/* Up to where something was refused. */
	if (got > 0 && got < (ssize_t)count &&
	    (object_soft(o) || offset + count > OBJECT_BYTES || offset >= FAR_BYTES))
		wanted = got;
	CHECK_RESULT(o, offset >= FAR_BYTES, got, wanted);
	if (wanted != -EINVAL && wanted != -EBADF && count)
		pwritten(h, offset, world.buffer, count, got);
}

/* From an object into a view: of the same object, of the same page even. */
static void call_pread_view(struct input *in)
{
	struct handle *h = handle_pick(in);
	struct view *v = view_pick(in);
	struct access a;

	if (!h || !view_takes(v, 1))
		return;
	struct object *from = h->object, *to = v->object;
	uint64_t at = place_pick(in, v, &a), offset = offset_pick(in, from);
	uint64_t size = from->model.size_bytes;
	ssize_t wanted = offset >= size ? 0 : (ssize_t)(size - offset);

	if (object_soft(from) || object_soft(to) || past_end(to, at) || offset >= FAR_BYTES ||
	    at >= FAR_BYTES)
		return;
	if (wanted > (ssize_t)a.count)
		wanted = (ssize_t)a.count;
	fuzz_trace("pread %s at %#llx into %s at %#llx, %#zx", from->uri,
		   (unsigned long long)offset, to->uri, (unsigned long long)at, a.count);
	model_read(&from->model, offset, world.wanted, a.count);
	ssize_t got = mkw_pread(h->handle, (void *)(uintptr_t)a.at, a.count, offset);

	CHECK_RESULT(from, false, got, wanted);
	if (got > 0)
		view_stored(v, at, world.wanted, (size_t)got);
}

static void call_pwrite_view(struct input *in)
{
	struct handle *h = handle_pick(in);
	struct view *v = view_pick(in);
	struct access a;

	if (!h || !v || h->object->freezes || !(h->flags & MKW_RDWR) || !model_room(2))
		return;
	struct object *from = v->object, *to = h->object;
	uint64_t at = place_pick(in, v, &a), offset = offset_pick(in, to);

	if (object_soft(from) || object_soft(to) || at + a.count > from->model.size_bytes ||
	    offset >= FAR_BYTES || at >= FAR_BYTES || from->blind)
		return;
	fuzz_trace("pwrite %s at %#llx from %s at %#llx, %#zx", to->uri, (unsigned long long)offset,
		   from->uri, (unsigned long long)at, a.count);
	if (view_read(v, at, a.count) != a.count)
		return;
	ssize_t got = mkw_pwrite(h->handle, (void *)(uintptr_t)a.at, a.count, offset);

	CHECK_RESULT(to, false, got, (ssize_t)a.count);
	pwritten(h, offset, world.wanted, a.count, got);
}

/* ---- Size and ranges ---------------------------------------------------------------------- */

/* Private pages behind the end are gone as well. */
static void object_truncated(struct object *o, uint64_t size)
{
	o->version++;
	model_truncate(&o->model, size);
	for (size_t i = 0; i < VIEWS; i++)
		if (world.views[i].address && world.views[i].object == o)
			model_forget(&world.views[i].own, (size + PAGE - 1) / PAGE, UINT64_MAX);
}

static void call_truncate(struct input *in)
{
	struct handle *h = handle_pick(in);

	if (!h)
		return;
	struct object *o = h->object;
	uint64_t size = offset_pick(in, o);
	int wanted = size > OBJECT_BYTES ? -EFBIG : o->freezes ? -EBUSY : 0;

	if (!(h->flags & MKW_RDWR))
		wanted = -EBADF;
	fuzz_trace("truncate %s to %#llx", o->uri, (unsigned long long)size);
	int error = mkw_truncate(h->handle, size);

	CHECK_RESULT(o, o->file && size >= FAR_BYTES, error, wanted);
	if (!error)
		object_truncated(o, size);
	EXPECT(mkw_size(h->handle) == o->model.size_bytes, "%s: size %llu, not %llu", o->uri,
	       (unsigned long long)mkw_size(h->handle), (unsigned long long)o->model.size_bytes);
}

static void call_punch(struct input *in)
{
	struct handle *h = handle_pick(in);

	if (!h || !model_room(2))
		return;
	struct object *o = h->object;
	uint64_t offset = offset_pick(in, o), length = length_pick(in, o, offset);
	uint64_t size = o->model.size_bytes;
	int wanted = o->freezes ? -EBUSY : overflows(offset, length) ? -EINVAL : 0;

	if (!(h->flags & MKW_RDWR))
		wanted = -EBADF;
	fuzz_trace("punch %s at %#llx, %#llx", o->uri, (unsigned long long)offset,
		   (unsigned long long)length);
	int error = mkw_punch(h->handle, offset, length);
	bool far = offset < size && offset + length >= FAR_BYTES && size >= FAR_BYTES;

	CHECK_RESULT(o, far, error, wanted);
	if (wanted || offset >= size || !length)
		return;
	o->version++;
	/* Some of it is zeros now, which is not known. */
	if (error)
		o->blind = true;
	else
		model_punch(&o->model, offset, length < size - offset ? length : size - offset);
}

static void synced(struct object *o, uint64_t offset, uint64_t length, int error)
{
	uint64_t first, last;

	if (!range_pages(o, offset, length, &first, &last))
		return;
	if (error)
		model_unsure(&o->model, first, last);
	else
		model_synced(&o->model, first, last);
}

static void call_sync(struct input *in, bool invalidate)
{
	struct handle *h = handle_pick(in);

	if (!h)
		return;
	struct object *o = h->object;
	uint64_t offset = offset_pick(in, o), length = length_pick(in, o, offset);

	fuzz_trace("%s %s at %#llx, %#llx", invalidate ? "invalidate" : "sync", o->uri,
		   (unsigned long long)offset, (unsigned long long)length);
	int error = (invalidate ? mkw_invalidate : mkw_sync)(h->handle, offset, length);

	CHECK_RESULT(o, false, error, overflows(offset, length) ? -EINVAL : 0);
	synced(o, offset, length, error);
}

static void call_write_out(struct input *in)
{
	call_sync(in, false);
}

static void call_invalidate(struct input *in)
{
	call_sync(in, true);
}

/* What a page holds whose writing is taken back is known if the store got nothing meanwhile. */
static void discarded(struct object *o, struct mkw_handle *handle, uint64_t first, uint64_t last)
{
	o->version++;
	for (struct model_page *p = o->model.pages; p; p = p->next) {
		if (p->index < first || p->index > last || !p->written)
			continue;
		p->written = p->listed = false;
		if (o->manual && !p->unsure) {
			memcpy(p->now, p->stored, PAGE);
			continue;
		}
		uint64_t size = o->model.size_bytes, offset = p->index * PAGE;
		ssize_t wanted = size - offset < PAGE ? (ssize_t)(size - offset) : (ssize_t)PAGE;

		memset(p->now, 0, PAGE);
		o->blind |= mkw_pread(handle, p->now, PAGE, offset) != wanted;
		memcpy(p->stored, p->now, PAGE);
		p->unsure = false;
	}
}

static void call_discard(struct input *in)
{
	struct handle *h = handle_pick(in);
	uint64_t first, last;

	if (!h)
		return;
	struct object *o = h->object;
	uint64_t offset = offset_pick(in, o), length = length_pick(in, o, offset);
	int wanted = overflows(offset, length) ? -EINVAL : 0;

	if (!(h->flags & MKW_RDWR))
		wanted = -EBADF;
	fuzz_trace("discard %s at %#llx, %#llx", o->uri, (unsigned long long)offset,
		   (unsigned long long)length);
	int error = mkw_discard(h->handle, offset, length);

	CHECK_RESULT(NULL, false, error, wanted);
	if (!error && range_pages(o, offset, length, &first, &last))
		discarded(o, h->handle, first, last);
}

/* ---- Ranges of addresses ------------------------------------------------------------------ */

/* Pages from address on that views have: all of them? */
static bool addresses_mapped(const unsigned char *address, uint64_t length)
{
	for (uint64_t at = 0; at < length; at += PAGE) {
		bool found = false;

		for (size_t i = 0; i < VIEWS && !found; i++) {
			const struct view *v = &world.views[i];

			found = v->address && address + at >= v->address &&
				address + at < v->address + v->length;
		}
		if (!found)
			return false;
	}
	return true;
}

static unsigned char *addresses_pick(struct input *in, const struct view *v, uint64_t *length)
{
	uint64_t at = offset_pick(in, v->object);

	at = at >= v->offset && at - v->offset < v->length ? at - v->offset : at % v->length;
	*length = length_pick(in, v->object, at);
	/* Or up to what no address space has. */
	if (*length > 4 << 20 && *length < UINT64_MAX / 2)
		*length %= 4 << 20;
	if (input_number(in) % 8)
		at &= ~(PAGE - 1);
	return v->address + at;
}

static int addresses_wanted(const unsigned char *address, uint64_t length)
{
	if ((uintptr_t)address % PAGE || length > UINTPTR_MAX - PAGE - (uintptr_t)address)
		return -EINVAL;
	return addresses_mapped(address, length) ? 0 : -ENOMEM;
}

static bool view_within(const struct view *v, const unsigned char *address, uint64_t length,
			uint64_t *offset, uint64_t *bytes)
{
	const unsigned char *end = address + (length + PAGE - 1) / PAGE * PAGE;
	const unsigned char *from = address > v->address ? address : v->address;

	if (!v->address || from >= v->address + v->length || end <= from)
		return false;
	*offset = v->offset + (uint64_t)(from - v->address);
	*bytes = (uint64_t)((end < v->address + v->length ? end : v->address + v->length) - from);
	return true;
}

static void call_msync(struct input *in)
{
	struct view *v = view_pick(in);
	uint64_t length, offset, bytes;
	bool soft = false;

	if (!v)
		return;
	unsigned char *address = addresses_pick(in, v, &length);
	int wanted = addresses_wanted(address, length);

	for (size_t i = 0; i < VIEWS && wanted != -EINVAL; i++)
		if (view_within(&world.views[i], address, length, &offset, &bytes) &&
		    !world.views[i].private)
			soft |= object_soft(world.views[i].object);
	fuzz_trace("msync %s at %#llx, %#llx", v->object->uri,
		   (unsigned long long)(address - v->address), (unsigned long long)length);
	int error = mkw_msync(address, length);

	CHECK_RESULT(NULL, soft, error, wanted);
	for (size_t i = 0; i < VIEWS && wanted != -EINVAL; i++)
		if (view_within(&world.views[i], address, length, &offset, &bytes) &&
		    !world.views[i].private)
			synced(world.views[i].object, offset, bytes,
			       error == -ENOMEM && !soft ? 0 : error);
}

static void private_advised(struct view *v, unsigned advice, uint64_t offset, uint64_t bytes)
{
	if (advice == MKW_DONTNEED || advice == MKW_FREE)
		view_drop(v, offset, bytes);
	if (advice == MKW_SEQUENTIAL || advice == MKW_NORMAL)
		v->exact = false;
}

static void call_advise(struct input *in)
{
	struct view *v = view_pick(in);
	uint64_t length;

	if (!v)
		return;
	unsigned char *address = addresses_pick(in, v, &length);
	unsigned advice = input_number(in) % 8;
	int wanted = addresses_wanted(address, length);
	const unsigned char *shared = NULL;
	uint64_t offset, bytes;

	/* The first shared view ends what is for private ones. */
	for (size_t i = 0; i < VIEWS && advice == MKW_FREE && wanted != -EINVAL; i++)
		if (view_within(&world.views[i], address, length, &offset, &bytes) &&
		    !world.views[i].private && (!shared || world.views[i].address < shared))
			shared = world.views[i].address;
	fuzz_trace("advise %s at %#llx, %#llx: %u", v->object->uri,
		   (unsigned long long)(address - v->address), (unsigned long long)length, advice);
	int error = mkw_advise(address, length, (enum mkw_advice)advice);

	/* A view remembers so many ranges; and it may have gone on into another view. */
	CHECK_RESULT(v->object,
		     error == -ENOMEM || length > v->length || v->offset >= FAR_BYTES / 2, error,
		     shared ? -EINVAL : wanted);
	for (size_t i = 0; i < VIEWS && wanted != -EINVAL; i++)
		if (view_within(&world.views[i], address, length, &offset, &bytes) &&
		    (!shared || world.views[i].address < shared))
			private_advised(&world.views[i], advice, offset, bytes);
}

static void call_reserve(struct input *in)
{
	struct view *v = view_pick(in);
	uint64_t length;

	if (!v)
		return;
	struct object *o = v->object;
	unsigned char *address = addresses_pick(in, v, &length);
	uint64_t at = (uint64_t)(address - v->address);
	int wanted = addresses_wanted(address, length);
	bool inside = at + length <= v->length && length <= v->length;
	uint64_t end = v->offset + (at + length + PAGE - 1) / PAGE * PAGE;

	for (size_t i = 0; i < OBJECTS; i++)
		if (world.objects[i].freezes)
			return;
	if (!wanted && length && inside && (!v->writable || v->private))
		wanted = -EACCES;
	else if (!wanted && length && inside && past_end(o, end - 1))
		wanted = -ENXIO;
	fuzz_trace("reserve %s at %#llx, %#llx", o->uri, (unsigned long long)at,
		   (unsigned long long)length);
	int error = mkw_reserve(address, length);

	/* That of a neighbouring view, too. */
	for (size_t i = 0; i < OBJECTS; i++)
		world.objects[i].reserved = true;

	CHECK_RESULT(o, !inside || v->offset >= FAR_BYTES, error, wanted);
}

static void call_unreserve(struct input *in)
{
	struct view *v = view_pick(in);
	uint64_t length;

	if (!v)
		return;
	unsigned char *address = addresses_pick(in, v, &length);

	fuzz_trace("unreserve %s at %#llx, %#llx", v->object->uri,
		   (unsigned long long)(address - v->address), (unsigned long long)length);
	CHECK_RESULT(v->object, false, mkw_unreserve(address, length),
		     addresses_wanted(address, length));
}

/* A device has the pages, and is done with them at once. */
static void pages_pinned(struct view *v, uint64_t first, uint64_t last, bool write)
{
	for (uint64_t page = first; page <= last; page++) {
		if (v->private)
			private_stored(v, page * PAGE, NULL, 0);
		else if (write)
			stored(v->object, page * PAGE, NULL, 0);
	}
}

static void call_pin(struct input *in)
{
	struct view *v = view_pick(in);
	struct access a;
	struct mkw_pin *pin;

	if (!v)
		return;
	struct object *o = v->object;
	uint64_t offset = place_pick(in, v, &a);
	unsigned how = input_number(in) % 8, access = how & 3;
	size_t length = a.count + (how & 4 ? PAGE : 0), at = (size_t)(offset - v->offset);
	int wanted = 0;

	if (length > v->length - at)
		length = a.count;
	if (!model_room(2) ||
	    (v->writable && (access & MKW_WRITE || v->private) && !view_takes(v, 2)))
		return;
	if (!access)
		wanted = -EINVAL;
	else if (access & MKW_WRITE && !v->writable)
		wanted = -EACCES;
	else if (past_end(o, offset + length - 1))
		wanted = -ENXIO;
	fuzz_trace("pin %s at %#llx, %#zx, access %u", o->uri, (unsigned long long)offset, length,
		   access);
	int error = mkw_pin(v->address + at, length, access, &pin);

	CHECK_RESULT(o, v->offset >= FAR_BYTES, error, wanted);
	v->exact &= !error; /* it may have copied some of them */
	if (error)
		return;
	pages_pinned(v, offset / PAGE, (offset + length - 1) / PAGE, access & MKW_WRITE);
	CHECK_RESULT(NULL, false, mkw_unpin(pin), 0);
}

/* ---- Properties --------------------------------------------------------------------------- */

static void call_freeze(struct input *in)
{
	struct handle *h = handle_pick(in);

	if (!h)
		return;
	struct object *o = h->object;

	fuzz_trace("freeze %s", o->uri);
	int error = mkw_freeze(h->handle);

	CHECK_RESULT(o, false, error, h->flags & MKW_RDWR ? 0 : -EBADF);
	if (error && h->flags & MKW_RDWR)
		model_unsure(&o->model, 0, UINT64_MAX);
	if (error)
		return;
	model_synced(&o->model, 0, UINT64_MAX);
	h->freezes++;
	o->freezes++;
}

static void call_thaw(struct input *in)
{
	struct handle *h = handle_pick(in);

	if (!h)
		return;
	fuzz_trace("thaw %s", h->object->uri);
	CHECK_RESULT(NULL, false, mkw_thaw(h->handle), h->freezes ? 0 : -EINVAL);
	if (!h->freezes)
		return;
	h->freezes--;
	h->object->freezes--;
}

static void call_limits(struct input *in)
{
	static const uint64_t limits[] = {0, 8192, 16384, 65536, 12288, 1 << 20, UINT64_MAX, 4096};
	struct handle *h = handle_pick(in);
	uint64_t resident = limits[input_number(in) % 8], dirty = limits[input_number(in) % 8];
	struct mkw_stat stat;

	if (!h || h->object->waits)
		return;
	bool little = (resident && resident < 16384) || (dirty && dirty < 8192);

	fuzz_trace("limits of %s: %llu, %llu", h->object->uri, (unsigned long long)resident,
		   (unsigned long long)dirty);
	CHECK_RESULT(NULL, false, mkw_set_limits(h->handle, resident, dirty), little ? -EINVAL : 0);
	if (little)
		return;
	h->object->limited = resident || dirty;
	EXPECT(!mkw_object_stat(h->handle, &stat, sizeof(stat)) &&
		       stat.dirty_limit_bytes == dirty / PAGE * PAGE &&
		       stat.resident_limit_bytes == resident / PAGE * PAGE,
	       "limits %llu and %llu", (unsigned long long)stat.resident_limit_bytes,
	       (unsigned long long)stat.dirty_limit_bytes);
}

static enum mkw_policy policy_fn(void *arg, const struct mkw_refusal *refusal)
{
	(void)arg;
	return refusal->offset / PAGE % 2 ? MKW_DEFER : MKW_REFUSE;
}

static void call_policy(struct input *in)
{
	struct handle *h = handle_pick(in);
	unsigned policy = input_number(in) % 5;

	if (!h || (policy == MKW_WAIT && object_soft(h->object)))
		return;
	fuzz_trace("policy of %s: %u", h->object->uri, policy);
	int error = mkw_set_policy(h->handle, (enum mkw_policy)(policy == 4 ? 0 : policy),
				   policy == 4 ? policy_fn : NULL, NULL);

	CHECK_RESULT(NULL, false, error, policy == 3 ? -EINVAL : 0);
	if (!error)
		h->object->waits = policy == MKW_WAIT;
}

static void call_control(struct input *in)
{
	static const char *const texts[] = {"quota=64K", "quota=0",    "quota=1G", "nosuch=1",
					    "",		 "=",	       "quota",	   "quota=x",
					    "us=2",	 "op=none",    "op=fault", "nth=2",
					    "count=0",	 "code=RETRY", "op=fsync", "op=writepages"};
	struct handle *h = handle_pick(in);
	const char *text = texts[input_number(in) % 16];
	uint64_t free_bytes, total;

	if (!h || h->object->waits)
		return;
	struct object *o = h->object;
	bool plain = !strncmp(o->uri, "mem:", 4);

	fuzz_trace("control %s: \"%s\"", o->uri, text);
	int error = mkw_control(h->handle, text);

	/* Less than is in use is refused; of layers the model does not know their options. */
	bool good =
		!strcmp(text, "quota=0") || !strcmp(text, "quota=64K") || !strcmp(text, "quota=1G");
	bool loose = !plain || (good && strcmp(text, "quota=1G"));

	CHECK_RESULT(NULL, loose, error, good || (!plain && !error) ? 0 : -EINVAL);
	if (error)
		return;
	bool quota = !strncmp(text, "quota", 5);

	o->faulty |= quota || o->errors;
	o->quota |= quota;
	if (plain && !strcmp(text, "quota=1G"))
		EXPECT(!mkw_capacity(h->handle, &free_bytes, &total) && total == 1 << 30,
		       "quota=1G: total %llu", (unsigned long long)total);
}

static void call_capacity(struct input *in)
{
	struct handle *h = handle_pick(in);
	uint64_t free_bytes = 0, total = 0;

	if (!h)
		return;
	struct object *o = h->object;
	int error = mkw_capacity(h->handle, &free_bytes, &total);

	CHECK_RESULT(o, false, error, o->file || o->quota ? 0 : -ENOTSUP);
	EXPECT(error || free_bytes <= total, "%s: %llu free of %llu", o->uri,
	       (unsigned long long)free_bytes, (unsigned long long)total);
}

/* ---- What is dirty ------------------------------------------------------------------------ */

#define RANGES	     300u
#define SETTLE_TRIES 1000000u

/* What is listed of a range is what is listed of all, cut to the pages of the range. */
static void ranges_compare(const struct object *o, const struct mkw_range *all, ssize_t all_count,
			   const struct mkw_range *some, ssize_t count, uint64_t first,
			   uint64_t last)
{
	ssize_t at = 0;

	for (ssize_t i = 0; i < all_count; i++) {
		uint64_t from = all[i].offset / PAGE;
		uint64_t to = from + all[i].length / PAGE - 1;

		if (to < first || from > last)
			continue;
		from = from > first ? from : first;
		to = to < last ? to : last;
		EXPECT(at < count && some[at].offset == from * PAGE &&
			       some[at].length == (to - from + 1) * PAGE,
		       "%s: of pages %llu to %llu not listed: %llu to %llu", o->uri,
		       (unsigned long long)first, (unsigned long long)last,
		       (unsigned long long)from, (unsigned long long)to);
		at++;
	}
	EXPECT(at == count, "%s: %zd ranges, not %zd", o->uri, count, at);
}

static void ranges_check_all(const struct handle *h, const struct mkw_range *all, ssize_t count)
{
	const struct object *o = h->object;
	uint64_t bytes = 0, end = 0, charged;

	for (ssize_t i = 0; i < count; i++) {
		EXPECT(all[i].length && !(all[i].length % PAGE) && !(all[i].offset % PAGE) &&
			       all[i].offset >= end,
		       "%s: range %zd: %#llx, %#llx", o->uri, i, (unsigned long long)all[i].offset,
		       (unsigned long long)all[i].length);
		end = all[i].offset + all[i].length;
		bytes += all[i].length;
	}
	EXPECT(end <= (o->model.size_bytes + PAGE - 1) / PAGE * PAGE, "%s: dirty past the end",
	       o->uri);
	/* A handler that has let us go on may still be giving charge back. */
	for (unsigned tries = 0; (charged = object_dirty(h->handle)) != bytes; tries++) {
		EXPECT(tries < SETTLE_TRIES, "%s: %llu bytes dirty, %llu listed", o->uri,
		       (unsigned long long)charged, (unsigned long long)bytes);
		sched_yield();
	}
	for (const struct model_page *p = o->model.pages; p; p = p->next) {
		bool listed = !p->listed;

		for (ssize_t i = 0; i < count && !listed; i++)
			listed = p->index * PAGE - all[i].offset < all[i].length;
		EXPECT(listed, "%s: page %llu was written and is not listed", o->uri,
		       (unsigned long long)p->index);
	}
}

static void call_dirty(struct input *in)
{
	static struct mkw_range all[RANGES], some[RANGES];
	struct handle *h = handle_pick(in);
	uint64_t first, last;

	if (!h)
		return;
	struct object *o = h->object;
	uint64_t offset = offset_pick(in, o), length = length_pick(in, o, offset);
	size_t capacity = input_number(in) % 3 ? RANGES : 1;

	fuzz_trace("dirty ranges of %s at %#llx, %#llx", o->uri, (unsigned long long)offset,
		   (unsigned long long)length);
	memset(some, 0xee, sizeof(some));
	ssize_t all_count = mkw_dirty_ranges(h->handle, 0, 0, all, RANGES);
	ssize_t count = mkw_dirty_ranges(h->handle, offset, length, some, capacity);

	EXPECT(all_count >= 0, "%s: %zd ranges", o->uri, all_count);
	CHECK_RESULT(NULL, false, count < 0 ? count : 0, overflows(offset, length) ? -EINVAL : 0);
	EXPECT(((unsigned char *)&some[capacity < RANGES ? 1 : RANGES - 1])[3] == 0xee ||
		       count >= (ssize_t)RANGES,
	       "more stored than there is place for");
	/* Others are written behind our back. */
	if (!o->manual || count < 0 || all_count > (ssize_t)RANGES)
		return;
	ranges_check_all(h, all, all_count);
	if (capacity < RANGES)
		return;
	if (range_pages(o, offset, length, &first, &last))
		ranges_compare(o, all, all_count, some, count, first, last);
	else
		EXPECT(count == 0, "%s: %zd ranges behind the end", o->uri, count);
}

static void call_stat(struct input *in)
{
	struct handle *h = handle_pick(in);
	size_t size = input_number(in) * 8;
	unsigned char raw[sizeof(struct mkw_stat) + 8];
	bool longer = size > sizeof(struct mkw_stat);

	if (!h)
		return;
	memset(raw, 0xee, sizeof(raw));
	CHECK_RESULT(NULL, false, mkw_object_stat(h->handle, (struct mkw_stat *)(void *)raw, size),
		     longer ? -EINVAL : 0);
	EXPECT(raw[longer ? 0 : size] == 0xee, "more than %zu bytes of statistics", size);
	CHECK_RESULT(NULL, false, mkw_space_stat(world.space, (struct mkw_stat *)(void *)raw, size),
		     longer ? -EINVAL : 0);
	object_verify(h->object, h->handle, false);
}

/* Arguments that are none. */
static void call_nonsense(struct input *in)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct mkw_space *space = NULL;
	struct handle *h = handle_pick(in);
	void *address;

	options.struct_size = input_number(in);
	CHECK_RESULT(NULL, false, mkw_space_create(&options, &space),
		     options.struct_size == sizeof(options) ? 0 : -EINVAL);
	if (space)
		CHECK_RESULT(NULL, false, mkw_space_destroy(space, 0), 0);
	CHECK_RESULT(NULL, false, mkw_open(world.space, NULL, 0, &(struct mkw_handle *){NULL}),
		     -EINVAL);
	CHECK_RESULT(NULL, false, mkw_unmap(&options, PAGE), -EINVAL);
	CHECK_RESULT(NULL, false, mkw_map(NULL, PAGE, MKW_READ, 0, 0, &address), -EINVAL);
	CHECK_RESULT(NULL, false, mkw_close(NULL), -EINVAL);
	CHECK_RESULT(NULL, false, mkw_msync(world.buffer + 1, PAGE), -EINVAL);
	if (!h)
		return;
	CHECK_RESULT(NULL, false, mkw_space_destroy(world.space, 0), -EBUSY);
	CHECK_RESULT(NULL, false, mkw_space_destroy(world.space, 2), -EINVAL);
	CHECK_RESULT(NULL, false, mkw_map(h->handle, PAGE, MKW_READ, 0, 0, NULL), -EINVAL);
	CHECK_RESULT(NULL, false, mkw_control(h->handle, NULL), -EINVAL);
	CHECK_RESULT(NULL, false, mkw_pread(h->handle, NULL, 1, 0), -EINVAL);
	CHECK_RESULT(NULL, false, mkw_dirty_ranges(h->handle, 0, 0, NULL, 1), -EINVAL);
}

static const struct {
	unsigned char letter;
	void (*call)(struct input *in);
} calls[] = {
	{'o', call_open},     {'c', call_close},      {'m', call_map},	       {'u', call_unmap},
	{'l', call_load},     {'s', call_store},      {'x', call_cross},       {'r', call_pread},
	{'w', call_pwrite},   {'R', call_pread_view}, {'W', call_pwrite_view}, {'t', call_truncate},
	{'p', call_punch},    {'y', call_write_out},  {'i', call_invalidate},  {'d', call_discard},
	{'v', call_reserve},  {'V', call_unreserve},  {'a', call_advise},      {'Y', call_msync},
	{'f', call_freeze},   {'h', call_thaw},	      {'L', call_limits},      {'P', call_policy},
	{'C', call_control},  {'K', call_capacity},   {'D', call_dirty},       {'S', call_stat},
	{'n', call_nonsense}, {'g', call_pin},
};
#define CALLS (sizeof(calls) / sizeof(*calls))

bool call_one(struct input *in, unsigned char letter)
{
	for (size_t i = 0; i < CALLS; i++) {
		if (calls[i].letter != letter)
			continue;
		calls[i].call(in);
		return true;
	}
	return false;
}
