/* SPDX-License-Identifier: MIT */
/*
 * world.c - the beginning and the end of a sequence of calls (world.h). At the end whatever was
 * made to fail is healed; then everything must be there, in the store too, and nothing left.
 */
#include "fuzz/world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOREVER_MS 3600000u
#define SYNC_TRIES 4u /* older errors are told first, each once */

struct world world;

void result_check(const struct object *o, bool loose, long long result, long long wanted,
		  const char *file, int line)
{
	fuzz_trace("  %lld (%lld)", result, wanted);
	if (result < 0 && (result <= -4096 || !mkw_error_message()[0]))
		fuzz_fail(file, line, "failed with %lld, and no sentence", result);
	if (result == wanted || (result < 0 && (loose || (o && object_soft(o)))))
		return;
	fuzz_fail(file, line, "%s: %lld, not %lld", o ? o->uri : "", result, wanted);
}

/* ---- Looking at bytes --------------------------------------------------------------------- */

void bytes_compare(const struct object *o, uint64_t offset, size_t count)
{
	size_t i = 0;

	if (!memcmp(world.buffer, world.wanted, count))
		return;
	while (world.buffer[i] == world.wanted[i])
		i++;
	EXPECT(false, "%s: byte %llu is %#x, not %#x", o->uri, (unsigned long long)(offset + i),
	       world.buffer[i], world.wanted[i]);
}

static void page_verify(struct object *o, struct mkw_handle *handle, uint64_t index, bool strict)
{
	struct model *m = &o->model;
	uint64_t offset = index * PAGE;

	if (offset >= m->size_bytes)
		return;
	size_t wanted = m->size_bytes - offset < PAGE ? (size_t)(m->size_bytes - offset) : PAGE;
	ssize_t got = mkw_pread(handle, world.buffer, PAGE, offset);

	CHECK_RESULT(o, !strict || offset >= FAR_BYTES, got, wanted);
	EXPECT(!strict || got == (ssize_t)wanted || offset >= FAR_BYTES, "%s: page %llu: %zd",
	       o->uri, (unsigned long long)index, got);
	if (got < 0)
		return;
	model_read(m, offset, world.wanted, PAGE);
	bytes_compare(o, offset, wanted);
}

void object_verify(struct object *o, struct mkw_handle *handle, bool strict)
{
	EXPECT(mkw_size(handle) == o->model.size_bytes, "%s: size %llu, not %llu", o->uri,
	       (unsigned long long)mkw_size(handle), (unsigned long long)o->model.size_bytes);
	if (o->blind)
		return;
	page_verify(o, handle, 0, strict);
	if (o->model.size_bytes)
		page_verify(o, handle, (o->model.size_bytes - 1) / PAGE, strict);
	for (struct model_page *p = o->model.pages; p; p = p->next) {
		page_verify(o, handle, p->index, strict);
		page_verify(o, handle, p->index + 1, strict);
	}
}

/* A file after its last close: by the system's own calls. */
static void file_verify(struct object *o)
{
	const char *name = strrchr(o->uri, ':') + 1;
	char plain[16] = "";
	struct stat st;

	snprintf(plain, sizeof(plain), "%.*s", (int)strcspn(name, "?"), name);
	int fd = openat(confine_directory(), plain, O_RDONLY | O_CLOEXEC);

	EXPECT(fd >= 0 && !fstat(fd, &st), "%s: %s is not there", o->uri, plain);
	EXPECT((uint64_t)st.st_size == o->model.size_bytes, "%s: the file has %lld bytes, not %llu",
	       o->uri, (long long)st.st_size, (unsigned long long)o->model.size_bytes);
	for (struct model_page *p = o->model.pages; p && !o->blind; p = p->next) {
		memset(world.buffer, 0, PAGE);
		EXPECT(pread(fd, world.buffer, PAGE, (off_t)(p->index * PAGE)) >= 0, "%s: %s",
		       plain, strerror(errno));
		memcpy(world.wanted, p->now, PAGE);
		bytes_compare(o, p->index * PAGE, PAGE);
	}
	close(fd);
}

void object_ended(struct object *o, int result)
{
	o->freezes = 0;
	if (result) {
		o->dead = true;
		return;
	}
	if (o->file)
		file_verify(o);
	else
		model_clear(&o->model);
	model_synced(&o->model, 0, UINT64_MAX);
	o->limited = o->waits = o->reserved = false;
	o->faulty = o->errors || o->quota;
	if (!o->file)
		o->blind = false;
}

/* ---- Private views ------------------------------------------------------------------------ */

size_t view_read(const struct view *v, uint64_t offset, size_t count)
{
	const struct object *o = v->object;
	const struct model_page *own = v->private ? model_find(&v->own, offset / PAGE) : NULL;
	uint64_t size = o->model.size_bytes;
	size_t in_page = offset % PAGE;

	if (offset >= size)
		return 0;
	count = size - offset < count ? (size_t)(size - offset) : count;
	if (own) {
		memcpy(world.wanted, own->now + in_page, count);
		if (in_page >= own->valid)
			return 0;
		return own->valid - in_page < count ? own->valid - in_page : count;
	}
	model_read(&o->model, offset, world.wanted, count);
	/* Others may have been copied ahead of a stream, when the object had other bytes. */
	if (o->blind || (v->stored && !v->exact && v->private && v->version != o->version))
		return 0;
	return count;
}

void view_drop(struct view *v, uint64_t offset, uint64_t length)
{
	model_forget(&v->own, offset / PAGE, (offset + length - 1) / PAGE);
}

struct page_load {
	const unsigned char *from;
};

static void page_load(void *arg)
{
	const struct page_load *load = arg;

	memcpy(world.buffer, load->from, PAGE);
}

static void view_verify(const struct view *v)
{
	for (const struct model_page *p = v->own.pages; p; p = p->next) {
		uint64_t offset = p->index * PAGE;
		struct page_load load = {v->address + (offset - v->offset)};
		size_t count = view_read(v, offset, PAGE);
		struct mkw_refusal refusal;
		int error;

		if (count == 0)
			continue;
		error = mkw_guard(page_load, &load, &refusal);
		EXPECT(!error || (error < 0 && object_soft(v->object)), "%s: own page at %#llx: %d",
		       v->object->uri, (unsigned long long)offset, error);
		if (!error)
			bytes_compare(v->object, offset, count);
	}
}

void privates_verify(void)
{
	for (size_t i = 0; i < VIEWS; i++)
		if (world.views[i].address)
			view_verify(&world.views[i]);
}

/* ---- Ending ------------------------------------------------------------------------------- */

int handle_close(struct handle *h)
{
	struct object *o = h->object;
	int error = mkw_close(h->handle);

	o->freezes -= h->freezes;
	o->handles--;
	CHECK_RESULT(o, false, error, 0);
	if (!o->handles && !o->views)
		object_ended(o, error);
	memset(h, 0, sizeof(*h));
	return error;
}

int view_unmap_whole(struct view *v)
{
	struct object *o = v->object;
	int error = mkw_unmap(v->address, v->given_bytes);

	EXPECT(!error, "unmap: %d", error);
	model_clear(&v->own);
	o->views--;
	/* Nobody is told how an object ended that had views only. */
	if (!o->handles && !o->views)
		object_ended(o, object_soft(o) ? -EIO : 0);
	memset(v, 0, sizeof(*v));
	return error;
}

static void object_heal(struct object *o, struct mkw_handle *handle)
{
	if (o->errors)
		EXPECT(!mkw_control(handle, "op=none"), "%s: cannot be healed", o->uri);
	if (o->quota)
		EXPECT(!mkw_control(handle, "quota=1T") || o->readonly, "%s: no larger quota",
		       o->uri);
	EXPECT(!mkw_set_limits(handle, 0, 0), "no end of the limits");
	EXPECT(!mkw_set_policy(handle, MKW_REFUSE, NULL, NULL), "no other policy");
	o->faulty = o->limited = false;
}

uint64_t object_dirty(struct mkw_handle *handle)
{
	struct mkw_stat stat = {0};

	EXPECT(!mkw_object_stat(handle, &stat, sizeof(stat)), "no statistics");
	EXPECT(stat.resident_bytes >= stat.dirty_bytes || !stat.dirty_bytes,
	       "%llu bytes resident, %llu dirty", (unsigned long long)stat.resident_bytes,
	       (unsigned long long)stat.dirty_bytes);
	return stat.dirty_bytes;
}

/* Nothing that was written may have been lost. Under a limit of the space others' pages may leave
 * no room for reading. */
static void handle_settle(struct handle *h)
{
	struct object *o = h->object;
	bool strict = !world.limited;
	unsigned tries = 0;
	int error;

	object_verify(o, h->handle, false);
	object_heal(o, h->handle);
	do
		error = mkw_sync(h->handle, 0, 0);
	while ((error || object_dirty(h->handle)) && ++tries < SYNC_TRIES);
	EXPECT(!error, "%s: healed, and sync says %d", o->uri, error);
	EXPECT(!object_dirty(h->handle), "%s: synced, and dirty", o->uri);
	EXPECT(mkw_dirty_ranges(h->handle, 0, 0, NULL, 0) == 0, "%s: synced, and listed", o->uri);
	model_synced(&o->model, 0, UINT64_MAX);
	object_verify(o, h->handle, strict);
	error = mkw_invalidate(h->handle, 0, 0);
	EXPECT(!error, "%s: invalidate: %d", o->uri, error);
	object_verify(o, h->handle, strict);
}

/* Without views and pages a store with a quota has promised nothing. */
static void quota_verify(struct handle *h)
{
	struct object *o = h->object;
	uint64_t free_bytes, total;

	if (!o->quota || o->file || o->views || !(h->flags & MKW_RDWR) || o->freezes)
		return;
	EXPECT(!mkw_capacity(h->handle, &free_bytes, &total), "%s: no capacity", o->uri);
	if (o->manual && !o->reserved && !o->errors && !o->blind)
		EXPECT(total - free_bytes <= model_kept(&o->model) * PAGE,
		       "%s: %llu bytes used, %llu pages kept", o->uri,
		       (unsigned long long)(total - free_bytes),
		       (unsigned long long)model_kept(&o->model));
	EXPECT(!mkw_truncate(h->handle, 0), "%s: cannot be emptied", o->uri);
	model_truncate(&o->model, 0);
	EXPECT(!mkw_capacity(h->handle, &free_bytes, &total) && free_bytes == total,
	       "%s: empty, and %llu bytes free of %llu", o->uri, (unsigned long long)free_bytes,
	       (unsigned long long)total);
}

static void views_end(void)
{
	for (size_t i = 0; i < VIEWS; i++)
		if (world.views[i].address)
			view_unmap_whole(&world.views[i]);
}

static void handles_end(void)
{
	for (size_t i = 0; i < HANDLES; i++) {
		struct handle *h = &world.handles[i];

		if (!h->handle)
			continue;
		quota_verify(h);
		handle_close(h);
	}
}

static void gauges_verify(void)
{
	struct mkw_stat stat;

	EXPECT(!mkw_space_stat(world.space, &stat, sizeof(stat)), "no statistics");
	EXPECT(!stat.resident_bytes && !stat.dirty_bytes, "nothing open; %llu resident, %llu dirty",
	       (unsigned long long)stat.resident_bytes, (unsigned long long)stat.dirty_bytes);
	EXPECT(!stat.private_bytes && !stat.swapped_bytes,
	       "nothing open; %llu private, %llu swapped", (unsigned long long)stat.private_bytes,
	       (unsigned long long)stat.swapped_bytes);
}

static void space_end(bool dead)
{
	int error = mkw_space_destroy(world.space, 0);

	if (error == -EBUSY && dead)
		error = mkw_space_destroy(world.space, MKW_DISCARD);
	EXPECT(!error || dead, "destroy: %d", error);
	EXPECT(error != -EBUSY && error != -EINVAL, "the space does not end: %d", error);
	world.space = NULL;
}

void world_finish(bool views_first)
{
	bool dead = false;

	for (size_t i = 0; i < HANDLES; i++) {
		struct handle *h = &world.handles[i];

		for (; h->freezes; h->freezes--, h->object->freezes--)
			EXPECT(!mkw_thaw(h->handle), "no thaw");
	}
	for (size_t i = 0; i < HANDLES; i++)
		if (world.handles[i].handle)
			handle_settle(&world.handles[i]);
	privates_verify();
	if (views_first)
		views_end();
	handles_end();
	views_end();
	for (size_t i = 0; i < OBJECTS; i++) {
		dead |= world.objects[i].dead;
		memset(&world.objects[i], 0, sizeof(world.objects[i]));
	}
	if (!dead)
		gauges_verify();
	if (dead || world.fresh)
		space_end(dead);
}

/* ---- Beginning ---------------------------------------------------------------------------- */

static void options_read(struct input *in, struct mkw_space_options *options)
{
	static const uint64_t resident[] = {0, 0, 0, 16384, 65536, 1 << 20};
	static const uint64_t dirty[] = {0, 0, 0, 8192, 32768, 1 << 20};
	static const unsigned intervals[] = {FOREVER_MS, 1, 0, 20};
	static const unsigned workers_max[] = {0, 1, 4, 64};

	options->workers_max = workers_max[input_number(in) % 4];
	options->workers = options->workers_max == 1 ? 1 : input_number(in) % 5;
	options->resident_limit_bytes = resident[input_number(in) % 6];
	options->dirty_limit_bytes = dirty[input_number(in) % 6];
	options->writeback_interval_ms = intervals[input_number(in) % 4];
}

/* A space keeps the descriptor that its first inline view has needed. */
static void space_warm_up(void)
{
	struct mkw_handle *handle;
	void *address;

	EXPECT(!mkw_open(world.space, "mem:4K", 0, &handle), "no object");
	if (!mkw_map(handle, PAGE, MKW_READ, MKW_INLINE, 0, &address))
		EXPECT(!mkw_unmap(address, PAGE), "no unmap");
	EXPECT(!mkw_close(handle), "no close");
}

/* 'N' at the beginning, and five numbers: a space of its own. Else that of earlier inputs. */
void world_begin(struct input *in)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	bool fresh = !input_ended(in) && *in->at == 'N';

	models_reset();
	options.writeback_interval_ms = FOREVER_MS;
	world.limited = false;
	if (fresh) {
		in->at++;
		if (world.space)
			space_end(false);
		options_read(in, &options);
		world.limited = options.resident_limit_bytes || options.dirty_limit_bytes;
	}
	world.fresh = fresh;
	if (world.space)
		return;
	EXPECT(!mkw_space_create(&options, &world.space), "no space");
	if (!fresh)
		space_warm_up();
}
