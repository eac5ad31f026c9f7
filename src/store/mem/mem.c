/* SPDX-License-Identifier: MIT */
/*
 * mem.c - a store in memory, sparse, with a quota: mkwrite-mem(7).
 *
 * States of a page
 *   empty     reads as zeros; counts nothing
 *   reserved  reads as zeros; counts one page      <- page_mkwrite      -> unreserve: empty
 *   stored    has bytes; counts one page           <- writepages        -> truncate, punch: empty
 * Reserved and stored exclude one another. used counts pages in either state and never exceeds
 * limit: it is charged before a page's state changes, and given back after.
 *
 * Bytes are touched without a lock: the library has the page locked or under write-back, or keeps
 * the range quiet (store.h). Memory for them comes in arenas straight from the kernel, a chunk's
 * worth of address space at a time; the kernel provides the pages as they are written.
 *
 * Locks, in this order: quota_lock (control), chunk->lock, arena_lock (leaf).
 */
#include "store/chunkmap.h"
#include "store/driver.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { STORED, RESERVED }; /* bitmaps of a chunk */

static const struct mkw_lock_class quota_class = {.name = "mem quota", .rank = ALLOC_RANK};
static const struct mkw_lock_class arena_class = {.name = "mem arena", .rank = CHUNKS_RANK};

#define ARENA_CHUNKS   32u
#define NAME_MAX_BYTES 48u

struct arena {
	struct arena *next;
	unsigned char *bytes;
};

struct mem {
	struct chunkmap chunks;
	_Atomic uint64_t used_pages;
	_Atomic uint64_t limit_pages;
	_Atomic uint64_t quota_bytes; /* as it was given; UINT64_MAX: none */
	_Atomic bool refused;	      /* somebody may be waiting for space */
	struct store_lock quota_lock;
	struct store_lock arena_lock;
	struct arena *arenas;
	unsigned arena_left; /* chunks not given out, at the end of the newest arena */
};

/* ---- The quota ---------------------------------------------------------------------------- */

static bool pages_try_charge(struct mem *mem, uint64_t count)
{
	uint64_t used = atomic_load(&mem->used_pages);

	do {
		uint64_t limit = atomic_load(&mem->limit_pages);

		if (used > limit || count > limit - used)
			return false;
	} while (!atomic_compare_exchange_weak(&mem->used_pages, &used, used + count));
	return true;
}

/* The flag is raised before the last try: whoever gives back afterwards sees it, and whoever gave
 * back before has made the try succeed. */
static bool page_charge(struct mem *mem)
{
	if (pages_try_charge(mem, 1))
		return true;
	atomic_store(&mem->refused, true);
	return pages_try_charge(mem, 1);
}

static void pages_uncharge(struct mem *mem, struct mkw_object *object, uint64_t count)
{
	if (!count)
		return;
	atomic_fetch_sub(&mem->used_pages, count);
	if (atomic_exchange(&mem->refused, false))
		mkw_object_wake(object);
}

static int space_refused(struct mem *mem)
{
	uint64_t limit = atomic_load(&mem->limit_pages) * MKW_PAGE_SIZE;
	uint64_t used = atomic_load(&mem->used_pages) * MKW_PAGE_SIZE;

	return mkw_set_error(-ENOSPC, "mem: %u bytes needed, %llu free of the quota of %llu",
			     MKW_PAGE_SIZE, (unsigned long long)(used < limit ? limit - used : 0),
			     (unsigned long long)atomic_load(&mem->quota_bytes));
}

static void quota_set(struct mem *mem, uint64_t bytes)
{
	atomic_store(&mem->quota_bytes, bytes);
	atomic_store(&mem->limit_pages, bytes / MKW_PAGE_SIZE);
}

/* ---- Chunks ------------------------------------------------------------------------------- */

static unsigned char *arena_take(struct mem *mem)
{
	unsigned char *data = NULL;

	store_lock(&mem->arena_lock);
	if (!mem->arena_left) {
		size_t size = ARENA_CHUNKS * CHUNK_BYTES;
		struct arena *arena = mmap(NULL, size + MKW_PAGE_SIZE, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (arena != MAP_FAILED) {
			/* A stored page costs a page, not two megabytes around it. */
			madvise(arena, size, MADV_NOHUGEPAGE);
			arena->bytes = (unsigned char *)arena + MKW_PAGE_SIZE;
			arena->next = mem->arenas;
			mem->arenas = arena;
			mem->arena_left = ARENA_CHUNKS;
		}
	}
	if (mem->arena_left) {
		mem->arena_left--;
		data = mem->arenas->bytes + mem->arena_left * CHUNK_BYTES;
	}
	store_unlock(&mem->arena_lock);
	return data;
}

/* The chunk of a page, with room for bytes. NULL: no memory. */
static struct chunk *chunk_with_data(struct mem *mem, uint64_t page)
{
	struct chunk *chunk = chunkmap_get(&mem->chunks, page);

	if (!chunk || atomic_load_explicit(&chunk->data, memory_order_acquire))
		return chunk;
	store_lock(&chunk->lock);
	if (!atomic_load(&chunk->data))
		atomic_store_explicit(&chunk->data, arena_take(mem), memory_order_release);
	bool ready = atomic_load(&chunk->data) != NULL;

	store_unlock(&chunk->lock);
	return ready ? chunk : NULL;
}

static unsigned char *page_data(struct chunk *chunk, uint64_t page)
{
	return atomic_load(&chunk->data) + (page - chunk->first) * MKW_PAGE_SIZE;
}

/* How many pages from page on lie before end and in page's chunk. */
static unsigned pages_in_chunk(uint64_t page, uint64_t end)
{
	uint64_t left = CHUNK_PAGES - page % CHUNK_PAGES;

	return (unsigned)(end - page < left ? end - page : left);
}

/* ---- Faults ------------------------------------------------------------------------------- */

/* [page, page+count) lies in one chunk. */
static void pages_copy(struct mem *mem, uint64_t page, unsigned count, unsigned char *to)
{
	struct chunk *chunk = chunkmap_find(&mem->chunks, page);
	chunk_bits stored = {0};
	unsigned from = (unsigned)(page % CHUNK_PAGES), end = from + count;

	if (chunk) {
		store_lock(&chunk->lock);
		memcpy(stored, chunk->bits[STORED], sizeof(stored));
		store_unlock(&chunk->lock);
	}
	for (unsigned at = from; at < end;) {
		bool here = bits_test(stored, at);
		unsigned next = bits_next(stored, at, end, !here);
		size_t bytes = (size_t)(next - at) * MKW_PAGE_SIZE;

		if (here)
			memcpy(to, page_data(chunk, chunk->first + at), bytes);
		else
			memset(to, 0, bytes);
		to += bytes;
		at = next;
	}
}

static bool run_stored(struct mem *mem, const struct mkw_run *run)
{
	bool any = false;

	for (uint64_t page = run->first, end = page + run->count; page < end && !any;) {
		unsigned count = pages_in_chunk(page, end);
		struct chunk *chunk = chunkmap_find(&mem->chunks, page);

		if (chunk) {
			unsigned from = (unsigned)(page % CHUNK_PAGES);

			store_lock(&chunk->lock);
			any = bits_any(chunk->bits[STORED], from, from + count);
			store_unlock(&chunk->lock);
		}
		page += count;
	}
	return any;
}

static mkw_fault_t mem_fault(void *store, struct mkw_object *object, struct mkw_run *run,
			     void *buffer)
{
	struct mem *mem = store;
	unsigned char *to = buffer;

	(void)object;
	if (!run_stored(mem, run)) {
		run->flags |= MKW_RUN_HOLE;
		return MKW_FAULT_LOCKED;
	}
	for (uint64_t page = run->first, end = page + run->count; page < end;) {
		unsigned count = pages_in_chunk(page, end);

		pages_copy(mem, page, count, to);
		to += (size_t)count * MKW_PAGE_SIZE;
		page += count;
	}
	return MKW_FAULT_LOCKED;
}

/* ---- Reservations ------------------------------------------------------------------------- */

static int page_reserve(struct mem *mem, uint64_t page)
{
	struct chunk *chunk = chunk_with_data(mem, page);
	unsigned at = (unsigned)(page % CHUNK_PAGES);
	int error = 0;

	if (!chunk)
		return -ENOMEM;
	store_lock(&chunk->lock);
	if (!bits_test(chunk->bits[STORED], at) && !bits_test(chunk->bits[RESERVED], at)) {
		if (page_charge(mem))
			bits_set(chunk->bits[RESERVED], at, at + 1);
		else
			error = -ENOSPC;
	}
	store_unlock(&chunk->lock);
	return error;
}

/* Idempotent by the bit of each page (contract 2.5). Where only a part of the run fits it is cut to
 * that part; then nothing is to be undone (3.3). The library locks the pages (3.4: 0), and calls
 * unreserve for a grant that came to nothing. */
static mkw_fault_t mem_page_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	struct mem *mem = store;
	uint64_t first = run->page, end = run->page + 1;
	int error = page_reserve(mem, run->page);

	(void)object;
	if (error == -ENOSPC)
		return mkw_fault_from_errno(space_refused(mem));
	if (error)
		return mkw_fault_from_errno(error);
	while (end < run->first + run->count && !page_reserve(mem, end))
		end++;
	while (first > run->first && !page_reserve(mem, first - 1))
		first--;
	mkw_run_cut(run, first, (size_t)(end - first));
	return 0;
}

static void mem_unreserve(void *store, struct mkw_object *object, uint64_t first, uint64_t count)
{
	struct mem *mem = store;
	uint64_t given_back = 0;

	for (uint64_t page = first, end = first + count; page < end;) {
		unsigned pages = pages_in_chunk(page, end), from = (unsigned)(page % CHUNK_PAGES);
		struct chunk *chunk = chunkmap_find(&mem->chunks, page);

		if (chunk) {
			store_lock(&chunk->lock);
			given_back += bits_count(chunk->bits[RESERVED], from, from + pages);
			bits_clear(chunk->bits[RESERVED], from, from + pages);
			store_unlock(&chunk->lock);
		}
		page += pages;
	}
	pages_uncharge(mem, object, given_back);
}

/* ---- Write-back --------------------------------------------------------------------------- */

static int page_store(struct mem *mem, uint64_t page, const unsigned char *data, size_t bytes)
{
	struct chunk *chunk = chunk_with_data(mem, page);
	unsigned at = (unsigned)(page % CHUNK_PAGES);
	bool charged = true;

	if (!chunk)
		return mkw_set_error(-ENOMEM, "mem: no memory for a page");
	store_lock(&chunk->lock);
	if (bits_test(chunk->bits[RESERVED], at))
		bits_clear(chunk->bits[RESERVED], at, at + 1);
	else if (!bits_test(chunk->bits[STORED], at))
		charged = page_charge(mem); /* written without a grant: MKW_DEFER */
	if (charged)
		bits_set(chunk->bits[STORED], at, at + 1);
	store_unlock(&chunk->lock);
	if (!charged)
		return space_refused(mem);
	unsigned char *to = page_data(chunk, page);

	memcpy(to, data, bytes);
	memset(to + bytes, 0, MKW_PAGE_SIZE - bytes);
	return 0;
}

static int mem_writepages(void *store, struct mkw_object *object, struct mkw_writeback *writeback)
{
	struct mem *mem = store;

	(void)object;
	for (size_t i = 0; i < writeback->count; i++) {
		struct mkw_wb_run *run = &writeback->runs[i];

		for (uint64_t done = 0; done < run->length_bytes; done += MKW_PAGE_SIZE) {
			uint64_t left = run->length_bytes - done;
			int error = page_store(mem, run->first + done / MKW_PAGE_SIZE,
					       (const unsigned char *)run->data + done,
					       left < MKW_PAGE_SIZE ? left : MKW_PAGE_SIZE);

			/* The rest of the run may have been granted: store what can be stored. */
			if (error && !run->result)
				run->result = error;
		}
	}
	return 0;
}

/* ---- Size --------------------------------------------------------------------------------- */

/* Make pages [first, end) empty. */
static void pages_drop(struct mem *mem, struct mkw_object *object, uint64_t first, uint64_t end)
{
	uint64_t given_back = 0;

	for (struct chunk *chunk = chunkmap_next(&mem->chunks, first); chunk && chunk->first < end;
	     chunk = chunkmap_next(&mem->chunks, chunk->first + CHUNK_PAGES)) {
		uint64_t start = chunk->first > first ? chunk->first : first;
		unsigned from = (unsigned)(start % CHUNK_PAGES);
		unsigned to = from + pages_in_chunk(start, end);

		store_lock(&chunk->lock);
		unsigned stored = bits_count(chunk->bits[STORED], from, to);

		given_back += stored + bits_count(chunk->bits[RESERVED], from, to);
		bits_clear(chunk->bits[STORED], from, to);
		bits_clear(chunk->bits[RESERVED], from, to);
		store_unlock(&chunk->lock);
		if (stored)
			madvise(page_data(chunk, start), (size_t)(to - from) * MKW_PAGE_SIZE,
				MADV_DONTNEED);
	}
	pages_uncharge(mem, object, given_back);
}

static int mem_truncate(void *store, struct mkw_object *object, uint64_t size_bytes)
{
	struct mem *mem = store;
	size_t tail = size_bytes % MKW_PAGE_SIZE;
	uint64_t page = size_bytes / MKW_PAGE_SIZE;

	if (size_bytes > INT64_MAX)
		return mkw_set_error(-EFBIG, "mem: the largest size is %lld bytes",
				     (long long)INT64_MAX);
	struct chunk *chunk = tail ? chunkmap_find(&mem->chunks, page) : NULL;

	if (chunk) {
		store_lock(&chunk->lock);
		bool stored = bits_test(chunk->bits[STORED], (unsigned)(page % CHUNK_PAGES));

		store_unlock(&chunk->lock);
		/* What is past the end reads as zeros when the object grows (contract 5.1). */
		if (stored)
			memset(page_data(chunk, page) + tail, 0, MKW_PAGE_SIZE - tail);
	}
	pages_drop(mem, object, page + (tail != 0), UINT64_MAX);
	return 0;
}

static int mem_punch_hole(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	uint64_t first = offset / MKW_PAGE_SIZE;

	pages_drop(store, object, first, first + length / MKW_PAGE_SIZE);
	return 0;
}

/* ---- Control ------------------------------------------------------------------------------ */

static int mem_control(void *store, struct mkw_object *object, const char *key, const char *value)
{
	struct mem *mem = store;
	uint64_t bytes;

	if (strcmp(key, "quota"))
		return mkw_set_error(-EINVAL, "mem: %.40s cannot be changed; quota can", key);
	int error = mkw_parse_size(key, value, &bytes);

	if (error)
		return error;
	store_lock(&mem->quota_lock);
	uint64_t before = atomic_load(&mem->quota_bytes);

	/* Set first, look afterwards: no charge slips in between. */
	quota_set(mem, bytes);
	uint64_t used = atomic_load(&mem->used_pages);

	if (used > bytes / MKW_PAGE_SIZE) {
		quota_set(mem, before);
		error = mkw_set_error(-EBUSY, "mem: quota=%llu is less than the %llu bytes in use",
				      (unsigned long long)bytes,
				      (unsigned long long)used * MKW_PAGE_SIZE);
	}
	store_unlock(&mem->quota_lock);
	mkw_object_wake(object);
	return error;
}

static int mem_capacity(void *store, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct mem *mem = store;
	uint64_t quota = atomic_load(&mem->quota_bytes);
	uint64_t limit = atomic_load(&mem->limit_pages), used = atomic_load(&mem->used_pages);

	if (quota == UINT64_MAX)
		return mkw_set_error(-ENOTSUP, "mem: no quota is set, so nothing says how much "
					       "it can take");
	*total_bytes = quota;
	*free_bytes = used < limit ? (limit - used) * MKW_PAGE_SIZE : 0;
	return 0;
}

/* ---- Opening ------------------------------------------------------------------------------ */

static void mem_release(void *store)
{
	struct mem *mem = store;

	while (mem->arenas) {
		struct arena *arena = mem->arenas;

		mem->arenas = arena->next;
		munmap(arena, ARENA_CHUNKS * CHUNK_BYTES + MKW_PAGE_SIZE);
	}
	chunkmap_destroy(&mem->chunks);
	store_lock_destroy(&mem->arena_lock);
	store_lock_destroy(&mem->quota_lock);
	free(mem);
}

static const struct mkw_store_ops mem_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "mem",
	.fault = mem_fault,
	.page_mkwrite = mem_page_mkwrite,
	.unreserve = mem_unreserve,
	.writepages = mem_writepages,
	.truncate = mem_truncate,
	.punch_hole = mem_punch_hole,
	.release = mem_release,
	.control = mem_control,
	.capacity = mem_capacity,
};

static int name_take(struct mkw_open_args *args, const char *name)
{
	size_t length = strlen(name);

	if (!length || length > NAME_MAX_BYTES)
		return mkw_set_error(-EINVAL, "mem: name=%.60s: a name has 1 to %u bytes", name,
				     NAME_MAX_BYTES);
	memcpy(args->identity, "mem:", 4);
	memcpy(args->identity + 4, name, length);
	args->identity_length = 4 + length;
	return 0;
}

static int mem_open(struct mkw_open_args *args)
{
	uint64_t quota = UINT64_MAX;
	int error = mkw_parse_size("mem", args->path, &args->size_bytes);

	for (size_t i = 0; i < args->option_count && !error; i++) {
		const struct mkw_option *option = &args->options[i];

		if (!strcmp(option->key, "quota"))
			error = mkw_parse_size("quota", option->value, &quota);
		else
			error = name_take(args, option->value);
	}
	if (error)
		return error;
	if (args->flags & MKW_TRUNC)
		args->size_bytes = 0;
	struct mem *mem = calloc(1, sizeof(*mem));

	if (!mem || chunkmap_init(&mem->chunks)) {
		free(mem);
		return mkw_set_error(-ENOMEM, "mem: no memory for a store");
	}
	store_lock_init(&mem->quota_lock, &quota_class);
	store_lock_init(&mem->arena_lock, &arena_class);
	quota_set(mem, quota);
	args->ops = &mem_ops;
	args->store = mem;
	return 0;
}

const struct mkw_store_driver mem_driver = {
	.struct_size = sizeof(struct mkw_store_driver),
	.scheme = "mem",
	.summary = "bytes in memory, sparse, gone with the last close",
	.options = "quota=SIZE\tmost bytes that it stores or promises to store\n"
		   "name=NAME\topenings of the same name, at the same time, share the bytes\n",
	.open = mem_open,
};
