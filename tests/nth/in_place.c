/* SPDX-License-Identifier: MIT */
/*
 * in_place.c - each call fails once while objects in place are made, written to, pinned, synced,
 * quiesced, changed and inherited. A call may be refused, and succeeds when it is made again; a
 * write never is: the kernel would have taken it. What was written is in the file.
 */
#include "contract/place.h"
#include "nth/nth.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES	      1100u /* three regions */
#define LIMIT_PAGES   16u
#define CALLS_MAX     3000u
#define RUNS_WITHOUT  3u
#define PIPE_BYTES    3u
#define ENDING_CHILDS 100u /* the byte of a page that children write */

static struct place_store store;
static unsigned char expected[PAGES];

/* The store's own calls do not fail. */
static mkw_fault_t granted(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	unsigned inside = nth_leave();
	mkw_fault_t code = place_ops.page_mkwrite(arg, object, run);

	nth_return(inside);
	return code;
}

static int written(void *arg, struct mkw_object *object, struct mkw_writeback *wb)
{
	unsigned inside = nth_leave();
	int error = place_ops.writepages(arg, object, wb);

	nth_return(inside);
	return error;
}

static const struct mkw_store_ops ops = {
	.struct_size = sizeof(ops),
	.page_mkwrite = granted,
	.writepages = written,
};

/* An API call: refused at most once, for want of something. */
#define CALL(expr)                                                     \
	do {                                                           \
		int error_;                                            \
		IN_LIBRARY(error_ = (expr));                           \
		if (error_ != 0) {                                     \
			CHECK(nth_fired());                            \
			CHECK(error_ == -ENOMEM || error_ == -EAGAIN); \
			IN_LIBRARY(error_ = (expr));                   \
		}                                                      \
		REQUIRE_EQ(error_, 0);                                 \
	} while (0)

static void write_page(unsigned char *map, unsigned page, unsigned char byte)
{
	struct mkw_refusal refusal;
	int error;

	IN_LIBRARY(error = mkw_guard(place_write_one, map + page * PAGE + 1, &refusal));
	CHECK_EQ(error, 0);
	IN_LIBRARY(place_write(map + page * PAGE, byte));
	expected[page] = byte;
}

static void write_pages(unsigned char *map, unsigned char byte)
{
	for (unsigned i = 0; i < 60; i++)
		write_page(map, i * 37 % PAGES, byte);
	for (unsigned i = 480; i < 560; i++) /* a stream */
		write_page(map, i, byte);
}

static void write_pinned(unsigned char *map)
{
	struct mkw_pin *pin;
	int fds[2];

	REQUIRE_EQ(pipe(fds), 0);
	CALL(mkw_pin(map + 600 * PAGE, PIPE_BYTES * PAGE, MKW_WRITE, &pin));
	CHECK_EQ(write(fds[1], "abc", PIPE_BYTES), PIPE_BYTES);
	for (unsigned i = 0; i < PIPE_BYTES; i++) {
		CHECK_EQ(read(fds[0], map + (600 + i) * PAGE, 1), 1);
		expected[600 + i] = (unsigned char)('a' + i);
	}
	CALL(mkw_unpin(pin));
	close(fds[0]);
	close(fds[1]);
}

static void inherit(struct mkw_space *space, unsigned char *map)
{
	int status;
	pid_t pid;

	IN_LIBRARY(pid = fork());
	REQUIRE(pid >= 0);
	if (pid == 0) {
		struct mkw_stat stat;

		for (unsigned i = 0; i < 40; i++)
			IN_LIBRARY(place_write(map + i * 29 % PAGES * PAGE + ENDING_CHILDS, 5));
		if (mkw_space_stat(space, &stat, sizeof(stat)) != 0)
			_exit(1);
		/* A child that can have no thread has no limit. */
		if (stat.dirty_limit_bytes == 0 && !nth_fired())
			_exit(2);
		if (stat.dirty_limit_bytes != 0 && stat.dirty_bytes > LIMIT_PAGES * PAGE)
			_exit(3);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	for (unsigned i = 0; i < 40; i++)
		CHECK_EQ(map[i * 29 % PAGES * PAGE + ENDING_CHILDS], 5);
}

static void check_file(void)
{
	unsigned char byte;

	for (unsigned i = 0; i < PAGES; i++) {
		CHECK_EQ(pread(store.fd, &byte, 1, (off_t)i * PAGE), 1);
		if (byte != expected[i])
			CHECK_EQ(byte, expected[i]);
	}
}

static void use(struct mkw_space *space, struct mkw_handle *h, unsigned char *map)
{
	CALL(mkw_adopt(h, map, PAGES * PAGE, MKW_READ | MKW_WRITE, 0));
	write_pages(map, 1);
	write_pinned(map);
	CALL(mkw_sync(h, 0, 0));
	write_pages(map, 2);
	CALL(mkw_quiesce(h));
	CALL(mkw_resume(h));
	write_pages(map, 3);
	CALL(mkw_grant(map + 700 * PAGE, 20 * PAGE));
	CALL(mkw_protect(map + 100 * PAGE, 50 * PAGE, MKW_READ));
	CALL(mkw_protect(map + 100 * PAGE, 50 * PAGE, MKW_READ | MKW_WRITE));
	write_pages(map, 4);
	inherit(space, map);
	CALL(mkw_unmap(map + 800 * PAGE, 100 * PAGE));
	CALL(mkw_set_limits(h, 0, 8 * PAGE));
	for (unsigned i = 0; i < 20; i++)
		write_page(map, i * 3, 6);
}

static bool run(uint64_t n, unsigned which)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct nth_holdings before = nth_holdings(), after;
	struct mkw_space *space;
	struct mkw_handle *h;
	unsigned char *map;

	memset(expected, 0, sizeof(expected));
	memset(&store, 0, sizeof(store));
	atomic_store(&store.refuse_from, -1);
	store.fd = place_file(PAGES * PAGE);
	map = place_map(store.fd, PAGES * PAGE);
	options.flags = MKW_SPACE_IN_PLACE;
	options.dirty_limit_bytes = LIMIT_PAGES * PAGE;
	nth_arm(n, which);
	CALL(mkw_space_create(&options, &space));
	CALL(mkw_create_in_place(space, &ops, &store, MKW_RDWR, &h));
	use(space, h, map);
	nth_disarm();
	CHECK_EQ(mkw_sync(h, 0, 0), 0);
	check_file();
	CHECK_EQ(mkw_unmap(map, PAGES * PAGE), 0);
	CHECK_EQ(mkw_close(h), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	munmap(map, PAGES * PAGE);
	close(store.fd);
	after = nth_holdings();
	CHECK_EQ(after.allocations, before.allocations);
	CHECK_EQ(after.mappings, before.mappings);
	CHECK_EQ(after.descriptors, before.descriptors);
	CHECK_EQ(after.threads, before.threads);
	return nth_fired();
}

TEST(nth_in_place, "whatever call fails, a write in place is taken, and what was written is there")
{
	const char *only = getenv("MKW_NTH");
	uint64_t n = only != NULL ? strtoull(only, NULL, 10) : 1;
	unsigned without = 0;

	test_not_under_tsan();
	nth_tell_at_end();
	run(0, 0);
	for (; without < RUNS_WITHOUT && n < CALLS_MAX; n++) {
		without = run(n, 0) ? 0 : without + 1;
		if (only != NULL)
			nth_tell();
		if (only != NULL)
			break;
	}
	CHECK(n < CALLS_MAX);
	test_note("%llu calls", (unsigned long long)n - 1);
}
