/* SPDX-License-Identifier: MIT */
/*
 * bad_input.c - what every function of mkwrite.h says to arguments that make no sense: an errno, a
 * sentence, and nothing else happens.
 */
#include "harness/world.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

/* Fails with this errno, and says why. */
#define CHECK_FAILS(call, error_) \
	check_fails((long long)(call), (error_), __FILE__, __LINE__, #call)
/* Fails with some errno, and says why. */
#define CHECK_FAILS_SOMEHOW(call) check_fails((long long)(call), 0, __FILE__, __LINE__, #call)

static void check_fails(long long result, int error, const char *file, int line, const char *call)
{
	if (error != 0)
		test_check_eq(result, error, file, line, call);
	else
		test_check(result < 0 && result > -4096, file, line, call);
	test_check(mkw_error_message()[0] != 0, file, line, "it says why");
}

/* An object whose view and bytes every test must leave as they are. */
static void input_open(struct world *w)
{
	world_make(w, 4 * PAGE);
	script_put_pattern(w->store, 0, 4, 1);
	world_open(w, 4 * PAGE);
	put(w->view + 3, 'x');
}

static void input_close(struct world *w)
{
	CHECK_EQ(mkw_size(w->handle), 4 * PAGE);
	CHECK_EQ(get(w->view + 3), 'x');
	for (unsigned i = 1; i < 4; i++)
		CHECK_EQ(get(w->view + i * PAGE + 7), script_pattern(i * PAGE + 7, 1));
	CHECK_EQ(world_dirty_bytes(w), PAGE);
	CHECK_EQ(mkw_sync(w->handle, 0, 0), 0);
	check_store(w, 3, "x", 1);
	CHECK_EQ(script_reserved(w->store), 0);
	world_end(w);
}

/* ---- Spaces ------------------------------------------------------------------------------- */

TEST(space_create_input, "mkw_space_create: no place for the answer, options of a wrong size")
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct mkw_space *space = NULL;

	CHECK_FAILS(mkw_space_create(NULL, NULL), -EINVAL);
	CHECK_FAILS(mkw_space_create(&options, NULL), -EINVAL);
	options.struct_size = 0;
	CHECK_FAILS(mkw_space_create(&options, &space), -EINVAL);
	options.struct_size = sizeof(options) + 8;
	CHECK_FAILS(mkw_space_create(&options, &space), -EINVAL);
	options.struct_size = SIZE_MAX;
	CHECK_FAILS(mkw_space_create(&options, &space), -EINVAL);
	CHECK(!space);
	CHECK_EQ(mkw_space_create(NULL, &space), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
}

TEST(space_destroy_input, "mkw_space_destroy: NULL, unknown flags, open handles")
{
	struct world w;

	CHECK_FAILS(mkw_space_destroy(NULL, 0), -EINVAL);
	input_open(&w);
	CHECK_FAILS(mkw_space_destroy(w.space, 0x80), -EINVAL);
	CHECK_FAILS(mkw_space_destroy(w.space, 0), -EBUSY);
	CHECK_FAILS(mkw_space_destroy(w.space, MKW_DISCARD), -EBUSY);
	input_close(&w);
}

TEST(stat_input, "mkw_space_stat, mkw_object_stat: NULL, a long struct; a short one gets its part")
{
	struct mkw_stat stat, whole;
	struct world w;

	input_open(&w);
	CHECK_FAILS(mkw_space_stat(NULL, &stat, sizeof(stat)), -EINVAL);
	CHECK_FAILS(mkw_space_stat(w.space, NULL, sizeof(stat)), -EINVAL);
	CHECK_FAILS(mkw_object_stat(NULL, &stat, sizeof(stat)), -EINVAL);
	CHECK_FAILS(mkw_object_stat(w.handle, NULL, sizeof(stat)), -EINVAL);
	CHECK_FAILS(mkw_object_stat(w.handle, &stat, sizeof(stat) + 8), -EINVAL);
	memset(&stat, 0xee, sizeof(stat));
	CHECK_EQ(mkw_object_stat(w.handle, &whole, sizeof(whole)), 0);
	CHECK_EQ(mkw_object_stat(w.handle, &stat, 3 * sizeof(uint64_t)), 0);
	CHECK_MEM(&stat, &whole, 3 * sizeof(uint64_t));
	CHECK_EQ(((unsigned char *)&stat)[3 * sizeof(uint64_t)], 0xee);
	input_close(&w);
}

/* ---- Objects ------------------------------------------------------------------------------ */

TEST(open_input, "mkw_open: NULL, unknown schemes, options and flags")
{
	static const char *const uris[] = {"",	    ":",       "nosuch:/tmp/x",	  "nosuch",
					   "mem:",  "mem:abc", "mem:1M?nosuch=1", "mem:1M?",
					   "file:", "error:",  ":mem:1M"};
	struct mkw_handle *handle = NULL;
	struct mkw_space *space;

	REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
	CHECK_FAILS(mkw_open(NULL, "mem:1M", MKW_RDWR, &handle), -EINVAL);
	CHECK_FAILS(mkw_open(space, NULL, MKW_RDWR, &handle), -EINVAL);
	CHECK_FAILS(mkw_open(space, "mem:1M", MKW_RDWR, NULL), -EINVAL);
	CHECK_FAILS(mkw_open(space, "mem:1M", 0x40000000u | MKW_RDWR, &handle), -EINVAL);
	for (size_t i = 0; i < sizeof(uris) / sizeof(uris[0]); i++) {
		int error = mkw_open(space, uris[i], MKW_RDWR, &handle);

		if (strcmp(uris[i], "mem:1M?") == 0 && error == 0) {
			CHECK_EQ(mkw_close(handle), 0); /* no options at all is fair */
			handle = NULL;
			continue;
		}
		test_note("\"%s\"", uris[i]);
		CHECK_FAILS_SOMEHOW(error);
	}
	CHECK_FAILS(mkw_open(space, "nosuch:x", MKW_RDWR, &handle), -EINVAL);
	CHECK_FAILS(mkw_open(space, "mem:1M?nosuch=1", MKW_RDWR, &handle), -EINVAL);
	CHECK(strstr(mkw_error_message(), "nosuch"));
	CHECK(!handle);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
}

TEST(create_input,
     "mkw_create: NULL, a store struct of a wrong size or without fault, unknown flags")
{
	struct script_store *s = script_create(PAGE);
	struct mkw_store_ops ops = *script_ops(s);
	struct mkw_handle *handle = NULL;
	struct mkw_space *space;

	REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
	CHECK_FAILS(mkw_create(NULL, &ops, s, PAGE, MKW_RDWR, &handle), -EINVAL);
	CHECK_FAILS(mkw_create(space, NULL, s, PAGE, MKW_RDWR, &handle), -EINVAL);
	CHECK_FAILS(mkw_create(space, &ops, s, PAGE, MKW_RDWR, NULL), -EINVAL);
	CHECK_FAILS(mkw_create(space, &ops, s, PAGE, 0x40000000u | MKW_RDWR, &handle), -EINVAL);
	CHECK_FAILS_SOMEHOW(mkw_create(space, &ops, s, UINT64_MAX, MKW_RDWR, &handle));
	/* Too short for fault, ending within a pointer, or longer than any that is known. */
	for (size_t size = 0; size <= sizeof(ops) + 8; size++) {
		ops.struct_size = size;
		if (size < offsetof(struct mkw_store_ops, page_mkwrite) || size > sizeof(ops) ||
		    size % sizeof(void (*)(void)) != 0)
			CHECK_FAILS(mkw_create(space, &ops, s, PAGE, MKW_RDWR, &handle), -EINVAL);
	}
	ops.struct_size = SIZE_MAX;
	CHECK_FAILS(mkw_create(space, &ops, s, PAGE, MKW_RDWR, &handle), -EINVAL);
	ops.struct_size = sizeof(ops);
	ops.fault = NULL;
	CHECK_FAILS(mkw_create(space, &ops, s, PAGE, MKW_RDWR, &handle), -EINVAL);
	CHECK(!handle);
	CHECK_EQ(script_calls(s, SCRIPT_ATTACH), 0);
	CHECK_EQ(script_calls(s, SCRIPT_RELEASE), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	CHECK(script_destroy(s));
}

TEST(create_short_struct,
     "mkw_create: a store struct of an older, shorter kind lacks what comes after")
{
	struct script_store *s = script_create(PAGE);
	struct mkw_store_ops ops = *script_ops(s);
	struct mkw_handle *handle;
	struct mkw_space *space;
	unsigned char byte = 0;
	void *address;

	script_put_pattern(s, 0, 1, 1);
	REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
	ops.struct_size = offsetof(struct mkw_store_ops, page_mkwrite);
	REQUIRE_EQ(mkw_create(space, &ops, s, PAGE, MKW_RDWR, &handle), 0);
	CHECK_FAILS(mkw_map(handle, PAGE, MKW_READ | MKW_WRITE, 0, 0, &address), -EINVAL);
	CHECK_EQ(mkw_pread(handle, &byte, 1, 9), 1);
	CHECK_EQ(byte, script_pattern(9, 1));
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(script_calls(s, SCRIPT_FAULT), 1);
	CHECK_EQ(script_calls(s, SCRIPT_ATTACH) + script_calls(s, SCRIPT_RELEASE), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	script_destroy(s); /* a fill before attach is what the store complains of */
}

TEST(create_attach_fails, "mkw_create: attach fails: its errno, the store is still the caller's")
{
	struct script_store *s = script_create(PAGE);
	struct mkw_handle *handle = NULL;
	struct mkw_space *space;

	REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
	script_fail(s, SCRIPT_ATTACH, 1, 1, -EACCES);
	CHECK_FAILS(script_open(s, space, MKW_RDWR, &handle), -EACCES);
	CHECK(!handle);
	CHECK_EQ(script_calls(s, SCRIPT_RELEASE), 0);
	CHECK_EQ(script_open(s, space, MKW_RDWR, &handle), 0);
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(script_calls(s, SCRIPT_RELEASE), 1);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	CHECK(script_destroy(s));
}

TEST(handle_null, "every function of a handle: NULL")
{
	uint64_t free_bytes, total_bytes;
	unsigned char byte = 0;
	void *address = NULL;

	CHECK_FAILS(mkw_close(NULL), -EINVAL);
	CHECK_EQ(mkw_size(NULL), 0);
	CHECK_FAILS(mkw_truncate(NULL, 0), -EINVAL);
	CHECK_FAILS(mkw_punch(NULL, 0, PAGE), -EINVAL);
	CHECK_FAILS(mkw_invalidate(NULL, 0, PAGE), -EINVAL);
	CHECK_FAILS(mkw_discard(NULL, 0, PAGE), -EINVAL);
	CHECK_FAILS(mkw_sync(NULL, 0, 0), -EINVAL);
	CHECK_FAILS(mkw_freeze(NULL), -EINVAL);
	CHECK_FAILS(mkw_thaw(NULL), -EINVAL);
	CHECK_FAILS(mkw_set_limits(NULL, 0, 0), -EINVAL);
	CHECK_FAILS(mkw_control(NULL, "capacity=1"), -EINVAL);
	CHECK_FAILS(mkw_capacity(NULL, &free_bytes, &total_bytes), -EINVAL);
	CHECK_FAILS(mkw_pread(NULL, &byte, 1, 0), -EINVAL);
	CHECK_FAILS(mkw_pwrite(NULL, &byte, 1, 0), -EINVAL);
	CHECK_FAILS(mkw_dirty_ranges(NULL, 0, 0, NULL, 0), -EINVAL);
	CHECK_FAILS(mkw_set_policy(NULL, MKW_REFUSE, NULL, NULL), -EINVAL);
	CHECK_FAILS(mkw_map(NULL, PAGE, MKW_READ, 0, 0, &address), -EINVAL);
}

/* Ranges whose end does not fit into 64 bits. */
TEST(range_overflow, "ranges that overflow are refused by every function that takes one")
{
	static const struct {
		uint64_t offset, length;
	} ranges[] = {
		{UINT64_MAX, 2},
		{UINT64_MAX, UINT64_MAX},
		{2, UINT64_MAX},
		{PAGE, UINT64_MAX - PAGE + 1},
		{UINT64_MAX - PAGE + 1, PAGE + 1},
		{(uint64_t)1 << 63, (uint64_t)1 << 63},
	};
	struct world w;

	input_open(&w);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		uint64_t offset = ranges[i].offset, length = ranges[i].length;

		test_note("%#llx + %#llx", (unsigned long long)offset, (unsigned long long)length);
		CHECK_FAILS(mkw_punch(w.handle, offset, length), -EINVAL);
		CHECK_FAILS(mkw_invalidate(w.handle, offset, length), -EINVAL);
		CHECK_FAILS(mkw_discard(w.handle, offset, length), -EINVAL);
		CHECK_FAILS(mkw_sync(w.handle, offset, length), -EINVAL);
		CHECK_FAILS(mkw_dirty_ranges(w.handle, offset, length, NULL, 0), -EINVAL);
	}
	CHECK_EQ(script_calls(w.store, SCRIPT_PUNCH), 0);
	input_close(&w);
}

TEST(range_past_end, "ranges past the end are nothing to do")
{
	uint64_t far = (uint64_t)1 << 50;
	struct world w;

	input_open(&w);
	CHECK_EQ(mkw_invalidate(w.handle, far, PAGE), 0);
	CHECK_EQ(mkw_discard(w.handle, far, PAGE), 0);
	CHECK_EQ(mkw_sync(w.handle, far, PAGE), 0);
	CHECK_EQ(mkw_dirty_ranges(w.handle, far, PAGE, NULL, 0), 0);
	CHECK_EQ(mkw_punch(w.handle, far, PAGE), 0);
	CHECK_EQ(mkw_discard(w.handle, 4 * PAGE, 4 * PAGE), 0);
	CHECK_EQ(mkw_sync(w.handle, 2 * PAGE, far), 0);
	input_close(&w);
}

TEST(truncate_input, "mkw_truncate: sizes that no object can have")
{
	struct world w;

	input_open(&w);
	CHECK_FAILS_SOMEHOW(mkw_truncate(w.handle, UINT64_MAX));
	CHECK_FAILS_SOMEHOW(mkw_truncate(w.handle, UINT64_MAX - PAGE + 1));
	CHECK_FAILS(mkw_truncate(w.handle, (uint64_t)1 << 63), -EFBIG);
	CHECK_EQ(script_calls(w.store, SCRIPT_WRITE), 0);
	input_close(&w);
}

TEST(io_input, "mkw_pread, mkw_pwrite: NULL, too much, too far")
{
	unsigned char bytes[16] = {0};
	struct world w;

	input_open(&w);
	CHECK_FAILS_SOMEHOW(mkw_pread(w.handle, NULL, 1, 0));
	CHECK_FAILS_SOMEHOW(mkw_pwrite(w.handle, NULL, 1, 0));
	CHECK_EQ(mkw_pread(w.handle, bytes, 0, 0), 0);
	CHECK_EQ(mkw_pwrite(w.handle, bytes, 0, 0), 0);
	CHECK_EQ(mkw_pwrite(w.handle, bytes, 0, 40 * PAGE), 0);
	CHECK_EQ(mkw_pread(w.handle, bytes, 16, UINT64_MAX - 20), 0);
	CHECK_FAILS_SOMEHOW(mkw_pread(w.handle, bytes, SIZE_MAX, 0));
	CHECK_FAILS_SOMEHOW(mkw_pwrite(w.handle, bytes, SIZE_MAX, 0));
	CHECK_FAILS_SOMEHOW(mkw_pwrite(w.handle, bytes, 16, UINT64_MAX - 20));
	CHECK_FAILS_SOMEHOW(mkw_pwrite(w.handle, bytes, 16, UINT64_MAX - 2));
	CHECK_FAILS(mkw_pwrite(w.handle, bytes, 16, (uint64_t)1 << 63), -EFBIG);
	input_close(&w);
}

TEST(handle_input, "the other functions of a handle: unknown values, missing places for answers")
{
	struct world w;

	input_open(&w);
	CHECK_FAILS(mkw_dirty_ranges(w.handle, 0, 0, NULL, 1), -EINVAL);
	CHECK_EQ(mkw_dirty_ranges(w.handle, 0, 0, NULL, 0), 1);
	CHECK_FAILS(mkw_set_policy(w.handle, (enum mkw_policy)99, NULL, NULL), -EINVAL);
	CHECK_FAILS(mkw_control(w.handle, NULL), -EINVAL);
	CHECK_FAILS(mkw_control(w.handle, ""), -EINVAL);
	CHECK_FAILS(mkw_control(w.handle, "=5"), -EINVAL);
	CHECK_FAILS(mkw_control(w.handle, "nosuch=5"), -EINVAL);
	CHECK_FAILS(mkw_control(w.handle, "capacity=x"), -EINVAL);
	CHECK_FAILS(mkw_thaw(w.handle), -EINVAL);
	input_close(&w);
}

TEST(store_without_operations,
     "a store that cannot be asked: ENOTSUP, EINVAL; no writable view without writepages")
{
	uint64_t free_bytes, total_bytes;
	void *address = NULL;
	struct world w;

	world_make(&w, 4 * PAGE);
	script_put_pattern(w.store, 0, 4, 1);
	script_ops(w.store)->writepages = NULL;
	script_ops(w.store)->capacity = NULL;
	script_ops(w.store)->control = NULL;
	script_ops(w.store)->fsync = NULL;
	world_open(&w, 0);
	CHECK_FAILS(mkw_map(w.handle, PAGE, MKW_READ | MKW_WRITE, 0, 0, &address), -EINVAL);
	CHECK_FAILS_SOMEHOW(mkw_pwrite(w.handle, "x", 1, 0));
	CHECK_FAILS(mkw_capacity(w.handle, &free_bytes, &total_bytes), -ENOTSUP);
	CHECK_FAILS_SOMEHOW(mkw_control(w.handle, "capacity=1"));
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	w.view = world_map(&w, 0, 4, MKW_READ);
	w.view_bytes = 4 * PAGE;
	CHECK_EQ(get(w.view + PAGE), script_pattern(PAGE, 1));
	world_end(&w);
}

/* ---- Views -------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(map_input, "mkw_map: lengths, offsets, protections and flags that are none")
{
	unsigned rw = MKW_READ | MKW_WRITE, flags = test_map_flags();
	struct mkw_handle *readonly;
	struct script_store *store = script_create(PAGE);
	void *address = NULL;
	struct world w;

	input_open(&w);
	CHECK_FAILS(mkw_map(w.handle, PAGE, rw, flags, 0, NULL), -EINVAL);
	CHECK_FAILS(mkw_map(w.handle, 0, rw, flags, 0, &address), -EINVAL);
	CHECK_FAILS_SOMEHOW(mkw_map(w.handle, SIZE_MAX, rw, flags, 0, &address));
	CHECK_FAILS_SOMEHOW(mkw_map(w.handle, SIZE_MAX - PAGE + 1, rw, flags, 0, &address));
	CHECK_FAILS_SOMEHOW(mkw_map(w.handle, (size_t)1 << 62, rw, flags, 0, &address));
	CHECK_FAILS_SOMEHOW(mkw_map(w.handle, (size_t)1 << 48, rw, flags, 0, &address));
	CHECK_FAILS(mkw_map(w.handle, PAGE, rw, flags, 1, &address), -EINVAL);
	CHECK_FAILS(mkw_map(w.handle, PAGE, rw, flags, PAGE - 1, &address), -EINVAL);
	CHECK_FAILS(mkw_map(w.handle, PAGE, rw, flags, UINT64_MAX - 1, &address), -EINVAL);
	CHECK_FAILS_SOMEHOW(mkw_map(w.handle, PAGE, rw, flags, UINT64_MAX - PAGE + 1, &address));
	CHECK_FAILS_SOMEHOW(
		mkw_map(w.handle, 2 * PAGE, rw, flags, UINT64_MAX - PAGE + 1, &address));
	CHECK_FAILS_SOMEHOW(mkw_map(w.handle, PAGE, rw, flags, (uint64_t)1 << 63, &address));
	CHECK_FAILS(mkw_map(w.handle, PAGE, rw | 0x80, flags, 0, &address), -EINVAL);
	CHECK_FAILS(mkw_map(w.handle, PAGE, rw, flags | 0x8000, 0, &address), -EINVAL);
	CHECK(!address);
	REQUIRE_EQ(script_open(store, w.space, MKW_RDONLY, &readonly), 0);
	CHECK_FAILS(mkw_map(readonly, PAGE, rw, flags, 0, &address), -EACCES);
	CHECK_FAILS(mkw_map(readonly, PAGE, MKW_WRITE, flags, 0, &address), -EACCES);
	CHECK_EQ(mkw_close(readonly), 0);
	input_close(&w);
	CHECK(script_destroy(store));
}

TEST_EACH_BACKEND(
	unmap_input,
	"mkw_unmap: where no view is, or no page begins, it is refused, and the view stays")
{
	void *other;
	struct world w;

	input_open(&w);
	CHECK_FAILS(mkw_unmap(NULL, PAGE), -EINVAL);
	CHECK_FAILS(mkw_unmap(w.view, 0), -EINVAL);
	CHECK_FAILS(mkw_unmap(w.view, SIZE_MAX), -EINVAL);
	CHECK_FAILS(mkw_unmap(w.view + 1, 4 * PAGE), -EINVAL);
	CHECK_FAILS(mkw_unmap(w.view + 4 * PAGE, 4 * PAGE), -EINVAL);
	CHECK_FAILS(mkw_unmap(&w, PAGE), -EINVAL);
	other = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK_FAILS(mkw_unmap(other, 4 * PAGE), -EINVAL);
	munmap(other, 4 * PAGE);
	other = world_map(&w, 0, 2, MKW_READ);
	CHECK_EQ(mkw_unmap(other, 2 * PAGE), 0);
	CHECK_FAILS(mkw_unmap(other, 2 * PAGE), -EINVAL);
	input_close(&w);
}

TEST_EACH_BACKEND(reshape_input,
		  "mkw_protect, mkw_remap, mkw_remap_pages: bad arguments and ranges "
		  "that are no views change nothing")
{
	const uint64_t past = (uint64_t)1 << 47;
	void *address = NULL;
	struct world w;

	input_open(&w);
	CHECK_FAILS(mkw_protect(w.view, 4 * PAGE, 4), -EINVAL);
	CHECK_FAILS(mkw_protect(w.view, 0, MKW_READ), -EINVAL);
	CHECK_FAILS(mkw_protect(w.view, SIZE_MAX, MKW_READ), -EINVAL);
	CHECK_FAILS(mkw_protect(w.view + 1, PAGE, MKW_READ), -EINVAL);
	CHECK_FAILS(mkw_protect(w.view, 5 * PAGE, MKW_READ), -ENOMEM);
	CHECK_FAILS(mkw_protect(w.view - PAGE, 2 * PAGE, MKW_READ), -ENOMEM);
	CHECK_FAILS(mkw_protect(NULL, PAGE, 0), -ENOMEM);
	CHECK_FAILS(mkw_remap(w.view, 4 * PAGE, 8 * PAGE, 2, &address), -EINVAL);
	CHECK_FAILS(mkw_remap(w.view, 4 * PAGE, 8 * PAGE, MKW_MAYMOVE, NULL), -EINVAL);
	CHECK_FAILS(mkw_remap(w.view, 0, 8 * PAGE, MKW_MAYMOVE, &address), -EINVAL);
	CHECK_FAILS(mkw_remap(w.view, 4 * PAGE, 0, MKW_MAYMOVE, &address), -EINVAL);
	CHECK_FAILS(mkw_remap(w.view, 4 * PAGE, SIZE_MAX, MKW_MAYMOVE, &address), -EINVAL);
	CHECK_FAILS(mkw_remap(w.view, 4 * PAGE, past, MKW_MAYMOVE, &address), -EINVAL);
	CHECK_FAILS(mkw_remap(w.view + 1, 2 * PAGE, PAGE, 0, &address), -EINVAL);
	CHECK_FAILS(mkw_remap(w.view, 5 * PAGE, 6 * PAGE, MKW_MAYMOVE, &address), -ENOMEM);
	CHECK_FAILS(mkw_remap(w.view, 5 * PAGE, 5 * PAGE, 0, &address), -ENOMEM);
	CHECK_FAILS(mkw_remap(w.view, 5 * PAGE, 2 * PAGE, 0, &address), -ENOMEM);
	CHECK_FAILS(mkw_remap(w.view - PAGE, 4 * PAGE, 3 * PAGE, 0, &address), -ENOMEM);
	CHECK_EQ(mkw_advise(w.view, 4 * PAGE, MKW_NORMAL), 0);
	CHECK_FAILS(mkw_remap_pages(w.view, PAGE, 1), -EINVAL);
	CHECK_FAILS(mkw_remap_pages(w.view, 0, 0), -EINVAL);
	CHECK_FAILS(mkw_remap_pages(w.view + 1, PAGE, 0), -EINVAL);
	CHECK_FAILS(mkw_remap_pages(w.view, PAGE, past), -EINVAL);
	CHECK_FAILS(mkw_remap_pages(w.view, 5 * PAGE, 0), -ENOMEM);
	put(w.view + 3, 'x');
	input_close(&w);
}

TEST_EACH_BACKEND(unmap_rounds, "mkw_unmap takes the length as mkw_map was given it, or rounded up")
{
	void *address;
	struct world w;

	input_open(&w);
	for (unsigned round = 0; round < 2; round++) {
		REQUIRE_EQ(mkw_map(w.handle, PAGE + 1, MKW_READ, test_map_flags(), PAGE, &address),
			   0);
		CHECK_EQ(get((unsigned char *)address + 2 * PAGE - 1),
			 script_pattern(3 * PAGE - 1, 1));
		CHECK_EQ(mkw_unmap(address, round ? 2 * PAGE : PAGE + 1), 0);
	}
	input_close(&w);
}

TEST(msync_input,
     "mkw_msync: unaligned, overflowing, not mapped; what is mapped is synced all the same")
{
	struct world w;

	input_open(&w);
	CHECK_FAILS(mkw_msync(w.view + 1, PAGE), -EINVAL);
	CHECK_FAILS_SOMEHOW(mkw_msync(w.view, SIZE_MAX));
	CHECK_FAILS_SOMEHOW(mkw_msync(NULL, PAGE));
	CHECK_FAILS(mkw_msync((void *)((uintptr_t)&w & ~(uintptr_t)(PAGE - 1)), PAGE), -ENOMEM);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_EQ(mkw_msync(w.view + PAGE, PAGE), 0);
	CHECK_EQ(world_dirty_bytes(&w), PAGE);
	CHECK_FAILS(mkw_msync(w.view - PAGE, 3 * PAGE), -ENOMEM);
	CHECK_EQ(world_dirty_bytes(&w), 0);
	check_store(&w, 3, "x", 1);
	put(w.view + 3, 'x');
	input_close(&w);
}

TEST_EACH_BACKEND(advise_input, "mkw_advise: unknown advice, ranges that are no view's")
{
	struct world w;

	input_open(&w);
	CHECK_FAILS(mkw_advise(w.view, PAGE, (enum mkw_advice)99), -EINVAL);
	CHECK_FAILS(mkw_advise(w.view + 1, PAGE, MKW_RANDOM), -EINVAL);
	CHECK_FAILS_SOMEHOW(mkw_advise(w.view, SIZE_MAX, MKW_RANDOM));
	CHECK_FAILS_SOMEHOW(mkw_advise(NULL, PAGE, MKW_WILLNEED));
	CHECK_FAILS_SOMEHOW(mkw_advise(&w, PAGE, MKW_RANDOM));
	CHECK_FAILS_SOMEHOW(mkw_advise(w.view + 3 * PAGE, 2 * PAGE, MKW_DONTNEED));
	input_close(&w);
}

TEST_EACH_BACKEND(
	reserve_input,
	"mkw_reserve, mkw_unreserve: ranges that are no view's, or past the end, or read only")
{
	unsigned char *readonly, *large;
	struct world w;

	input_open(&w);
	CHECK_FAILS(mkw_reserve(w.view + 1, PAGE), -EINVAL);
	CHECK_FAILS(mkw_unreserve(w.view + 1, PAGE), -EINVAL);
	CHECK_FAILS_SOMEHOW(mkw_reserve(NULL, PAGE));
	CHECK_FAILS_SOMEHOW(mkw_unreserve(NULL, PAGE));
	CHECK_FAILS_SOMEHOW(mkw_reserve(w.view, SIZE_MAX));
	CHECK_FAILS_SOMEHOW(mkw_unreserve(w.view, SIZE_MAX));
	CHECK_FAILS_SOMEHOW(mkw_reserve(w.view, 5 * PAGE));
	CHECK_FAILS_SOMEHOW(mkw_reserve(w.view - PAGE, 2 * PAGE));
	readonly = world_map(&w, 0, 4, MKW_READ);
	CHECK_FAILS_SOMEHOW(mkw_reserve(readonly + PAGE, PAGE));
	large = world_map(&w, 0, 8, MKW_READ | MKW_WRITE);
	CHECK_FAILS_SOMEHOW(mkw_reserve(large + 2 * PAGE, 4 * PAGE));
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 4), 0);
	CHECK_EQ(mkw_unmap(readonly, 4 * PAGE), 0);
	CHECK_EQ(mkw_unmap(large, 8 * PAGE), 0);
	CHECK_EQ(script_reserved(w.store), 0);
	input_close(&w);
}

/* ---- Refusal, the host -------------------------------------------------------------------- */

static void do_nothing(void *arg)
{
	(void)arg;
}

TEST(refusal_input, "mkw_guard, mkw_last_refusal: NULL; no refusal yet")
{
	struct mkw_refusal refusal;

	/* No sentence: it may be called in a signal handler and must leave the thread's own alone.
	 */
	CHECK_EQ(mkw_last_refusal(&refusal), -ENOENT);
	CHECK_EQ(mkw_last_refusal(NULL), -EINVAL);
	CHECK_FAILS(mkw_guard(NULL, NULL, &refusal), -EINVAL);
	CHECK_EQ(mkw_guard(do_nothing, NULL, NULL), 0);
}

TEST(backends_input, "mkw_backends: counts without a place for the answer")
{
	struct mkw_backend_info info[1];
	size_t count = mkw_backends(NULL, 0);

	CHECK(count >= 2);
	CHECK_EQ(mkw_backends(info, 1), count);
	CHECK(info[0].name != NULL);
}

/* ---- store.h ------------------------------------------------------------------------------ */

static int open_nothing(struct mkw_open_args *args)
{
	(void)args;
	return -ENOENT;
}

TEST(register_input,
     "mkw_store_register: NULL, a wrong size, missing parts, a scheme that is taken")
{
	static struct mkw_store_driver driver = {
		.struct_size = sizeof(struct mkw_store_driver),
		.scheme = "nothing",
		.summary = "opens nothing",
		.open = open_nothing,
	};
	struct mkw_handle *handle = NULL;
	struct mkw_store_driver bad = driver;
	struct mkw_space *space;

	CHECK_FAILS(mkw_store_register(NULL), -EINVAL);
	bad.struct_size = 8;
	CHECK_FAILS(mkw_store_register(&bad), -EINVAL);
	bad = driver;
	bad.open = NULL;
	CHECK_FAILS(mkw_store_register(&bad), -EINVAL);
	bad = driver;
	bad.scheme = NULL;
	CHECK_FAILS(mkw_store_register(&bad), -EINVAL);
	bad.scheme = "";
	CHECK_FAILS(mkw_store_register(&bad), -EINVAL);
	bad.scheme = "mem";
	CHECK_FAILS(mkw_store_register(&bad), -EEXIST);
	CHECK_EQ(mkw_store_register(&driver), 0);
	CHECK_FAILS(mkw_store_register(&driver), -EEXIST);
	CHECK(mkw_store_driver(100000) == NULL);
	REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
	CHECK_EQ(mkw_open(space, "nothing:at all", MKW_RDWR, &handle), -ENOENT);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
}
