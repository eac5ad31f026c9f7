/* SPDX-License-Identifier: MIT */
/*
 * in_place_maps.c - what objects in place cost the process in mappings (vm.max_map_count), and what
 * becomes of views that somebody else changes.
 */
#include "place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static unsigned max_map_count(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
	unsigned max = 0;

	REQUIRE(f != NULL && fscanf(f, "%u", &max) == 1);
	fclose(f);
	if (max > 100000)
		SKIP("vm.max_map_count is %u: too many to make", max);
	return max;
}

/* Every other page, none after its neighbour: page n of an order that a stream is not. */
static size_t scattered(size_t n, size_t pages)
{
	return n * 7919 % (pages / 2) * 2;
}

static void write_scattered(struct place *p, size_t count, size_t pages)
{
	for (size_t n = 0; n < count; n++) {
		size_t page = scattered(n, pages);

		place_write(p->map + page * PAGE, (unsigned char)(page % 251 + 1));
	}
}

static void check_scattered(const struct place *p, size_t count, size_t pages)
{
	size_t wrong = 0;

	for (size_t n = 0; n < count; n++) {
		size_t page = scattered(n, pages);

		wrong += p->map[page * PAGE] != (unsigned char)(page % 251 + 1);
	}
	CHECK_EQ(wrong, 0);
}

#define MANY_PAGES 130000u

TEST(in_place_mappings, "random writes in place never use up the mappings of the process")
{
	const unsigned max = max_map_count();
	struct place p;
	unsigned most = 0;

	test_not_under_tsan();
	place_open(&p, NULL, MANY_PAGES);
	CHECK_EQ(mkw_advise(p.map, p.length, MKW_RANDOM), 0);
	for (size_t part = 1; part <= 16; part++) {
		unsigned now;

		write_scattered(&p, part * MANY_PAGES / 32, MANY_PAGES);
		now = place_mappings();
		most = now > most ? now : most;
	}
	CHECK(most <= max - max / 8);
	check_scattered(&p, MANY_PAGES / 2, MANY_PAGES);
	/* It came near, and grants have become larger. */
	CHECK(most > max / 2);
	CHECK(p.store.asked < MANY_PAGES / 2);
	CHECK(p.store.pages_asked >= MANY_PAGES / 2);
	/* What is closed whole needs one. */
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	CHECK(place_mappings() < 1000);
	CHECK_EQ(mkw_resume(p.handle), 0);
	place_close(&p);
}

TEST(in_place_mappings_blind, "the mappings are not used up where they cannot be counted")
{
	const unsigned max = max_map_count();
	struct rlimit limit, none;
	struct place p;

	test_not_under_tsan();
	place_open(&p, NULL, MANY_PAGES);
	CHECK_EQ(mkw_advise(p.map, p.length, MKW_RANDOM), 0);
	REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 0;
	write_scattered(&p, 1, MANY_PAGES);
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	write_scattered(&p, MANY_PAGES / 2, MANY_PAGES);
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	CHECK(place_mappings() <= max - max / 8);
	check_scattered(&p, MANY_PAGES / 2, MANY_PAGES);
	place_close(&p);
}

/* ---- A process that needs nearly all mappings itself -------------------------------------- */

struct hoard {
	char *map;
	size_t length;
};

/* Until there are so many mappings, or the kernel gives no more. */
static struct hoard hoard_take(unsigned mappings)
{
	struct hoard h = {.length = (size_t)mappings * PAGE};
	unsigned now = place_mappings();

	h.map = mmap(NULL, h.length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(h.map != MAP_FAILED);
	for (unsigned i = 1; now + i + 1 < mappings; i += 2)
		if (mprotect(h.map + i * PAGE, PAGE, PROT_READ) != 0)
			break;
	return h;
}

static void hoard_give(struct hoard *h)
{
	REQUIRE_EQ(munmap(h->map, h->length), 0);
}

static void *write_two(void *arg)
{
	struct place *p = arg;

	place_write(p->map + 2 * PAGE, 77);
	return NULL;
}

TEST(in_place_opened, "with no mappings left a view is opened whole, and closed whole again")
{
	const unsigned max = max_map_count();
	struct test_thread thread;
	struct hoard hoard;
	struct place p;

	test_not_under_tsan();
	hoard = hoard_take(max - max / 16);
	place_open(&p, NULL, 4096);
	CHECK_EQ(mkw_advise(p.map, p.length, MKW_RANDOM), 0);
	write_scattered(&p, 2000, 4096);
	check_scattered(&p, 2000, 4096);
	/* The first write opened it. */
	CHECK_EQ(p.store.asked, 1);
	CHECK(place_mappings() < max);
	/* Quiesced it is closed, with all that nobody was asked for. */
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	test_thread_start(&thread, write_two, &p);
	test_wait_until(place_stat(&p).waits > 0 || atomic_load(&thread.ended));
	CHECK(p.map[2 * PAGE] != 77);
	CHECK_EQ(mkw_resume(p.handle), 0);
	test_thread_join(&thread);
	CHECK_EQ(p.map[2 * PAGE], 77);
	/* So it is by a sync, and asked for anew once there are mappings; its parts likewise. */
	hoard_give(&hoard);
	for (unsigned i = 0; i < 100; i++) /* until they are counted again */
		CHECK_EQ(mkw_protect(p.map + 4000 * PAGE, 8 * PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	p.store.asked = 0;
	for (unsigned i = 0; i < 900; i++)
		place_write(p.map + (4 * i + 1) * PAGE, 1);
	CHECK(p.store.asked > 4); /* grants are large by now */
	place_close(&p);
}

TEST(in_place_opened_pinned, "with no mappings left a page that is pinned stays open")
{
	const unsigned max = max_map_count();
	struct hoard hoard;
	struct mkw_pin *pin;
	struct place p;
	int fds[2];

	test_not_under_tsan();
	REQUIRE_EQ(pipe(fds), 0);
	hoard = hoard_take(max - max / 16);
	place_open(&p, NULL, 64);
	CHECK_EQ(mkw_advise(p.map, p.length, MKW_RANDOM), 0);
	place_write(p.map + 20 * PAGE, 1);
	CHECK_EQ(mkw_pin(p.map + 3 * PAGE, PAGE, MKW_WRITE, &pin), 0);
	CHECK_EQ(mkw_sync(p.handle, 20 * PAGE, PAGE), 0);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	CHECK_EQ(read(fds[0], p.map + 3 * PAGE, 1), 1);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	CHECK_EQ(write(fds[1], "y", 1), 1);
	CHECK_EQ(read(fds[0], p.map + 3 * PAGE, 1), 1);
	CHECK_EQ(p.map[3 * PAGE], 'y');
	CHECK_EQ(mkw_resume(p.handle), 0);
	CHECK_EQ(mkw_unpin(pin), 0);
	hoard_give(&hoard);
	close(fds[0]);
	close(fds[1]);
	place_close(&p);
}

TEST(in_place_no_mapping, "a write that no mapping can be had for is refused, not tried for ever")
{
	const unsigned max = max_map_count();
	struct mkw_refusal refusal;
	struct hoard hoard;
	struct place p;

	test_not_under_tsan();
	place_open(&p, NULL, 64);
	/* What is left is in the middle of one mapping of the kernel's. */
	CHECK_EQ(mkw_unmap(p.map, 20 * PAGE), 0);
	CHECK_EQ(mkw_unmap(p.map + 30 * PAGE, 34 * PAGE), 0);
	hoard = hoard_take(max * 2);
	CHECK_EQ(mkw_guard(place_write_one, p.map + 25 * PAGE, &refusal), -ENOMEM);
	hoard_give(&hoard);
	CHECK_EQ(mkw_guard(place_write_one, p.map + 25 * PAGE, &refusal), 0);
	CHECK_EQ(p.map[25 * PAGE], 1);
	place_close(&p);
}

/* ---- Behind our back ---------------------------------------------------------------------- */

TEST(in_place_torn, "a hole that somebody made in a view opens nothing around it")
{
	struct place p;

	place_open(&p, NULL, 4096);
	CHECK_EQ(mkw_advise(p.map, p.length, MKW_SEQUENTIAL), 0);
	REQUIRE_EQ(munmap(p.map + 100 * PAGE, 10 * PAGE), 0);
	place_write(p.map, 1);
	CHECK_EQ(p.store.asked, 1);
	place_write(p.map + 99 * PAGE, 1);
	place_write(p.map + 110 * PAGE, 1);
	CHECK_EQ(p.store.asked, 1);
	place_write(p.map + 1000 * PAGE, 1);
	CHECK_EQ(p.store.asked, 2);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	place_write(p.map + 99 * PAGE, 2);
	CHECK_EQ(p.store.asked, 3);
	CHECK_EQ(mkw_protect(p.map, p.length, MKW_READ), 0);
	CHECK_EQ(mkw_protect(p.map, p.length, MKW_READ | MKW_WRITE), 0);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	CHECK_EQ(mkw_resume(p.handle), 0);
	place_write(p.map + 110 * PAGE, 2);
	CHECK_EQ(p.map[99 * PAGE], 2);
	place_close(&p);
}

TEST(in_place_torn_large, "a large hole costs a step for each of its pages, no more")
{
	const size_t pages = 1u << 18;
	struct place p;

	place_open(&p, NULL, pages);
	place_write(p.map, 1);
	REQUIRE_EQ(munmap(p.map + 64 * PAGE, (pages - 128) * PAGE), 0);
	place_write(p.map + (pages - 1) * PAGE, 1);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	CHECK_EQ(mkw_resume(p.handle), 0);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	place_write(p.map, 2);
	CHECK_EQ(p.store.asked, 3);
	CHECK_EQ(mkw_unmap(p.map, p.length), 0);
	/* The mapping stays as it is. */
	CHECK_EQ(p.map[0], 2);
	place_write(p.map, 3);
	CHECK_EQ(mkw_adopt(p.handle, p.map, PAGE, MKW_READ | MKW_WRITE, 0), 0);
	place_close(&p);
}
