/* SPDX-License-Identifier: MIT */
/*
 * setup.c - the objects of a stress run: how they are made, and what must hold of them at the end.
 */
#include "stress.h"

#include <fcntl.h>
#include <mkwrite/store.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BIAS_PAGES   448u /* words 0 ... then lie across the border of two regions */
#define SYNCS_AT_END 4u	  /* each may still tell of errors from before */

/* ---- A second way to stores that are no files --------------------------------------------- */

static struct probed {
	const struct mkw_store_ops *ops;
	void *store;
} probed[WORLD_OBJECTS];

/* "probe?slot=N:URI" is URI itself, and is remembered. */
static int probe_open(struct mkw_open_args *args)
{
	struct mkw_open_args inner = {0};
	uint64_t slot;
	int error = mkw_parse_uint("slot", args->options[0].value, 0, WORLD_OBJECTS - 1, &slot);

	if (error == 0)
		error = mkw_store_open(args->path, args->flags, &inner);
	if (error != 0)
		return error;
	args->ops = inner.ops;
	args->store = inner.store;
	args->size_bytes = inner.size_bytes;
	memcpy(args->identity, inner.identity, sizeof(inner.identity));
	args->identity_length = inner.identity_length;
	args->dev = inner.dev;
	args->ino = inner.ino;
	if (probed[slot].store == NULL)
		probed[slot] = (struct probed){inner.ops, inner.store};
	return 0;
}

static const struct mkw_store_driver probe_driver = {
	.struct_size = sizeof(struct mkw_store_driver),
	.scheme = "probe",
	.summary = "the store beneath, for a look past the library",
	.options = "slot=N\twhose it is\n",
	.layer = true,
	.open = probe_open,
};

/* One page; true: it is there, false: a hole. */
static bool probe_page(const struct probed *p, uint64_t page, void *bytes)
{
	struct mkw_run run = {.first = page, .count = 1, .page = page};

	memset(bytes, 0, PAGE);
	REQUIRE((p->ops->fault(p->store, NULL, &run, bytes) & ~MKW_FAULT_MAJOR) ==
		MKW_FAULT_LOCKED);
	return (run.flags & MKW_RUN_HOLE) == 0;
}

bool object_stored(struct object *o, uint64_t offset, void *bytes, size_t count, bool quiet)
{
	unsigned char page[PAGE];
	uint64_t at = o->model.bias_bytes + offset;

	if (o->fd >= 0)
		return pread(o->fd, bytes, count, (off_t)at) == (ssize_t)count;
	if (!quiet || probed[o->model.id].store == NULL)
		return false;
	REQUIRE(at / PAGE == (at + count - 1) / PAGE);
	probe_page(&probed[o->model.id], at / PAGE, page);
	memcpy(bytes, page + at % PAGE, count);
	return true;
}

/* ---- Objects ------------------------------------------------------------------------------ */

static uint64_t stress_below(struct stress *s, uint64_t bound)
{
	return rig_random(&s->random) % bound;
}

struct mkw_handle *object_open(struct object *o, struct mkw_space *space)
{
	struct mkw_handle *handle = NULL;
	int error = mkw_open(space, o->uri, o->open_flags, &handle);

	if (error != 0)
		test_note("open %s: %s", o->uri, mkw_error_message());
	REQUIRE_EQ(error, 0);
	return handle;
}

static void file_make(struct object *o, const char *directory, uint64_t size_bytes)
{
	snprintf(o->path, sizeof(o->path), "%s/mkwrite-stress-XXXXXX", directory);
	o->fd = mkostemp(o->path, O_CLOEXEC);
	REQUIRE(o->fd >= 0);
	REQUIRE_EQ(ftruncate(o->fd, (off_t)size_bytes), 0);
}

static void uri_add(struct object *o, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void uri_add(struct object *o, const char *format, ...)
{
	size_t length = strlen(o->uri);
	va_list args;

	va_start(args, format);
	vsnprintf(o->uri + length, sizeof(o->uri) - length, format, args);
	va_end(args);
}

/* Object 0 is a file on tmpfs, 1 memory, 2 a file on whatever /tmp is on, 3 memory below layers. */
static void object_name(struct stress *s, struct object *o, uint64_t size_bytes)
{
	unsigned id = o->model.id;

	if (o->injects)
		uri_add(o, "error?op=page_mkwrite&errno=ENOSPC&prob=1/%u&seed=%u:",
			3 + (unsigned)stress_below(s, 20), (unsigned)stress_below(s, 1000));
	if (id == 3)
		uri_add(o, "delay?us=%u:", (unsigned)stress_below(s, 60));
	if (id % 2 == 0) {
		file_make(o, id == 0 && access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
			  size_bytes);
		uri_add(o, "file:%s?extent=%uK", o->path, 4u << stress_below(s, 6));
	} else {
		uri_add(o, "probe?slot=%u:mem:%llu?name=stress%u", id,
			(unsigned long long)size_bytes, id);
	}
	if (o->quota_bytes != 0)
		uri_add(o, "&quota=%llu", (unsigned long long)o->quota_bytes);
}

/* Decides by the address of the refusal alone. */
static enum mkw_policy policy_mixed(void *arg, const struct mkw_refusal *refusal)
{
	(void)arg;
	return (enum mkw_policy)(refusal->offset / PAGE % 3);
}

static void object_policy(struct stress *s, struct object *o)
{
	static const enum mkw_policy policies[] = {MKW_WAIT, MKW_DEFER, MKW_REFUSE};

	if ((s->kind->with & WITH_POLICY) == 0 || o->fleeting)
		return;
	REQUIRE_EQ(mkw_set_policy(o->handle, policies[o->model.id % 3],
				  o->model.id == 3 ? policy_mixed : NULL, NULL),
		   0);
}

static void object_make(struct stress *s, unsigned id)
{
	static const size_t blocks[] = {1, 8, 37, 750, EXTENT_WORDS};
	struct object *o = &s->object[id];
	struct model *m = &o->model;
	unsigned with = s->kind->with;
	uint64_t size_bytes;

	o->fd = -1;
	m->id = id;
	m->threads = s->threads;
	m->block = blocks[stress_below(s, 5)];
	m->pages = 24 + stress_below(s, 100);
	m->bias_bytes = stress_below(s, 2) * BIAS_PAGES * PAGE;
	m->least_bytes = stress_below(s, 3) * (m->pages / 3) * PAGE + stress_below(s, PAGE);
	m->drops = (with & WITH_DISCARD) != 0;
	model_init(m);
	o->fleeting = id == 2;
	o->injects = (with & WITH_ERRORS) != 0 && id % 2 == 1;
	if ((with & WITH_QUOTA) != 0 && !o->fleeting)
		o->quota_bytes = (4 + stress_below(s, m->pages / 2)) * PAGE;
	o->open_flags = MKW_RDWR;
	if ((with & WITH_MANUAL) != 0 && id != 0)
		o->open_flags |= MKW_MANUAL;
	size_bytes = m->least_bytes + stress_below(s, m->pages * PAGE - m->least_bytes);
	object_name(s, o, m->bias_bytes + size_bytes);
	if (o->fleeting)
		return;
	o->handle = object_open(o, s->space);
	object_policy(s, o);
	for (unsigned i = 0; i < SHARED_VIEWS; i++) {
		o->shared_first[i] = stress_below(s, m->pages / 2);
		o->shared_pages[i] = 1 + stress_below(s, m->pages - o->shared_first[i]);
		REQUIRE_EQ(mkw_map(o->handle, o->shared_pages[i] * PAGE, MKW_WRITE,
				   test_map_flags(), m->bias_bytes + o->shared_first[i] * PAGE,
				   &o->shared[i]),
			   0);
	}
	private_share(s, o);
}

/* ---- Views -------------------------------------------------------------------------------- */

/* Of those of a thread, one in four is of the other kind than the test's. */
unsigned view_flags(struct worker *w)
{
	return worker_one_in(w, 4) ? test_map_flags() ^ MKW_INLINE : test_map_flags();
}

void view_make(struct worker *w, struct view *v)
{
	struct object *o = &w->stress->object[worker_below(w, w->stress->objects)];
	struct model *m = &o->model;
	unsigned flags = view_flags(w);
	void *address;

	*v = (struct view){.object = o, .is_own = true};
	v->first = worker_below(w, m->pages);
	v->pages = 1 + worker_below(w, m->pages - v->first);
	v->writable = !worker_one_in(w, 4);
	v->is_inline = (flags & MKW_INLINE) != 0;
	REQUIRE_EQ(mkw_map(worker_handle(w, o), v->pages * PAGE - worker_below(w, PAGE),
			   v->writable ? MKW_WRITE : MKW_READ, flags,
			   m->bias_bytes + v->first * PAGE, &address),
		   0);
	v->bytes = address;
}

void view_end(struct view *v)
{
	if (v->bytes != NULL)
		REQUIRE_EQ(mkw_unmap(v->bytes, v->pages * PAGE), 0);
	v->bytes = NULL;
}

/* ---- The beginning ------------------------------------------------------------------------ */

void stress_make(struct stress *s)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	if ((s->kind->with & WITH_LIMITS) != 0) {
		options.dirty_limit_bytes = (4 + stress_below(s, 20)) * PAGE;
		options.resident_limit_bytes = options.dirty_limit_bytes +
					       (12 + stress_below(s, 40) + private_room(s)) * PAGE;
	}
	if ((s->kind->with & WITH_SWAP) != 0)
		options.swap_path = "/tmp";
	if ((s->kind->with & WITH_FULL) != 0)
		options.swap_limit_bytes = (2 + stress_below(s, 8)) * PAGE;
	/* Who is denied room waits for two of these, and with manual objects that is often. */
	options.writeback_interval_ms =
		1 + (unsigned)stress_below(s, (s->kind->with & WITH_MANUAL) != 0 ? 2 : 20);
	mkw_store_register(&probe_driver); /* again: EEXIST */
	memset(probed, 0, sizeof(probed));
	REQUIRE_EQ(mkw_space_create(&options, &s->space), 0);
	for (unsigned i = 0; i < s->objects; i++)
		object_make(s, i);
	REQUIRE_EQ(mkw_open(s->space, "mem:1M", MKW_RDWR, &s->scratch), 0);
}

/* ---- The end ------------------------------------------------------------------------------ */

/* What is in the store is what the library reads. */
static void check_store_of_object(struct stress *s, struct object *o, const unsigned char *read,
				  uint64_t size_bytes)
{
	unsigned char stored[PAGE];

	for (uint64_t at = 0; at < size_bytes; at += PAGE) {
		size_t n = size_bytes - at < PAGE ? (size_t)(size_bytes - at) : PAGE;

		if (!object_stored(o, at, stored, n, true))
			stress_fail(s, o, "the store is too short at %llu", (unsigned long long)at);
		for (size_t i = 0; i < n; i++)
			if (stored[i] != read[at + i])
				stress_fail(s, o, "byte %llu: stored is 0x%02x, not 0x%02x",
					    (unsigned long long)(at + i), stored[i], read[at + i]);
	}
}

static void read_all(struct object *o, struct mkw_handle *handle, unsigned char *bytes,
		     uint64_t size_bytes)
{
	memset(bytes, 0, o->model.pages * PAGE);
	REQUIRE_EQ(mkw_pread(handle, bytes, size_bytes, o->model.bias_bytes), (ssize_t)size_bytes);
}

/* Every word is what its owner may find. */
static void check_words(struct stress *s, struct object *o, struct mkw_handle *handle,
			const unsigned char *bytes, uint64_t size_bytes)
{
	struct access_span span;
	uint64_t value;

	span_begin(&span, &o->model, handle, 0, size_bytes / WORD_BYTES, 0);
	for (size_t i = 0; i < span.count; i++) {
		const char *complaint;

		memcpy(&value, bytes + i * WORD_BYTES, sizeof(value));
		complaint = span_read(&span, i, value);
		if (complaint != NULL)
			word_fail(s->worker[model_owner(&o->model, i)], o, "at the end", i, value,
				  complaint);
	}
}

/* A quota counts what is stored, and nothing when all is punched. */
static void check_quota(struct stress *s, struct object *o, struct mkw_handle *handle,
			uint64_t stored_pages)
{
	uint64_t free_bytes, total_bytes;

	if (o->quota_bytes == 0 || probed[o->model.id].store == NULL)
		return;
	REQUIRE_EQ(mkw_capacity(handle, &free_bytes, &total_bytes), 0);
	if (total_bytes - free_bytes != stored_pages * PAGE)
		stress_fail(s, o, "%llu bytes of the quota are in use, %llu pages are stored",
			    (unsigned long long)(total_bytes - free_bytes),
			    (unsigned long long)stored_pages);
}

static uint64_t count_stored(const struct object *o)
{
	const struct probed *p = &probed[o->model.id];
	unsigned char page[PAGE];
	uint64_t count = 0;

	for (uint64_t i = 0; p->store != NULL && i < o->model.bias_bytes / PAGE + o->model.pages;
	     i++)
		count += probe_page(p, i, page);
	return count;
}

/* Everything is given back: blocks of a file on tmpfs, which has none of its own. */
static void check_punched(struct stress *s, struct object *o, struct mkw_handle *handle)
{
	struct stat stat;

	REQUIRE_EQ(mkw_punch(handle, 0, mkw_size(handle)), 0);
	check_quota(s, o, handle, 0);
	if (o->model.id == 0) {
		REQUIRE_EQ(fstat(o->fd, &stat), 0);
		if (stat.st_blocks != 0)
			stress_fail(s, o, "%lld blocks are left when all is punched",
				    (long long)stat.st_blocks);
	}
}

static void sync_all(struct stress *s, struct object *o, struct mkw_handle *handle)
{
	struct mkw_stat stat;
	int error = -1;

	for (unsigned i = 0; i < SYNCS_AT_END && error != 0; i++)
		error = mkw_sync(handle, 0, 0);
	if (error != 0)
		stress_fail(s, o, "sync at the end: %s", mkw_error_message());
	REQUIRE_EQ(mkw_object_stat(handle, &stat, sizeof(stat)), 0);
	if (stat.dirty_bytes != 0)
		stress_fail(s, o, "%llu bytes are dirty after all was synced",
			    (unsigned long long)stat.dirty_bytes);
}

static void object_end(struct stress *s, struct object *o)
{
	struct mkw_handle *handle = o->handle != NULL ? o->handle : object_open(o, s->space);
	uint64_t size_bytes = model_size(&o->model, handle);
	unsigned char *bytes = malloc(o->model.pages * PAGE);

	REQUIRE(bytes != NULL);
	for (unsigned i = 0; i < SHARED_VIEWS; i++)
		if (o->shared[i] != NULL)
			REQUIRE_EQ(mkw_unmap(o->shared[i], o->shared_pages[i] * PAGE), 0);
	if (o->private.bytes != NULL)
		REQUIRE_EQ(mkw_unmap(o->private.bytes, o->private.pages * PAGE), 0);
	sync_all(s, o, handle);
	read_all(o, handle, bytes, size_bytes);
	check_words(s, o, handle, bytes, size_bytes);
	check_store_of_object(s, o, bytes, size_bytes);
	REQUIRE_EQ(mkw_invalidate(handle, 0, 0), 0);
	read_all(o, handle, bytes, size_bytes);
	check_words(s, o, handle, bytes, size_bytes);
	check_quota(s, o, handle, count_stored(o));
	check_punched(s, o, handle);
	REQUIRE_EQ(mkw_close(handle), 0);
	if (o->fd >= 0) {
		close(o->fd);
		unlink(o->path);
	}
	free(bytes);
	model_destroy(&o->model);
}

void stress_end(struct stress *s)
{
	struct mkw_stat stat;

	for (unsigned i = 0; i < s->objects; i++)
		object_end(s, &s->object[i]);
	REQUIRE_EQ(mkw_close(s->scratch), 0);
	REQUIRE_EQ(mkw_space_stat(s->space, &stat, sizeof(stat)), 0);
	REQUIRE_EQ(stat.dirty_bytes, 0);
	REQUIRE_EQ(stat.resident_bytes, 0);
	REQUIRE_EQ(stat.private_bytes, 0);
	REQUIRE_EQ(stat.swapped_bytes, 0);
	REQUIRE_EQ(stat.pins, 0);
	REQUIRE_EQ(stat.pinned_bytes, 0);
	REQUIRE_EQ(mkw_space_destroy(s->space, 0), 0);
}
