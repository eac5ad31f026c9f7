/* SPDX-License-Identifier: MIT */
/* The list of mappings of a program. */
#include "harness/test.h"
#include "preload/ranges.h"

#define AT(page) ((uintptr_t)0x10000 + (uintptr_t)(page)*4096)

static void set(unsigned first, unsigned last, uint64_t offset)
{
	const struct map map = {.start = AT(first), .end = AT(last), .offset = offset};

	REQUIRE(ranges_promise(2));
	ranges_set(&map);
}

/* Goes from one to the next, as maps_each does; returns how many there were. */
static unsigned walk(unsigned first, unsigned last, struct map *found, unsigned max)
{
	uintptr_t start = AT(first);
	unsigned count = 0;

	for (struct map map; ranges_next(start, AT(last), &map); start = map.end) {
		REQUIRE(count < max);
		CHECK(map.start >= start && map.start < map.end && map.end <= AT(last));
		found[count++] = map;
	}
	return count;
}

TEST(ranges_walk, "a walk over a part of a mapping ends, and sees that part")
{
	struct map found[4];

	set(0, 100, 0);
	REQUIRE_EQ(walk(10, 20, found, 4), 1);
	CHECK(found[0].start == AT(10) && found[0].end == AT(20));
	CHECK_EQ(found[0].offset, 10 * 4096);
	CHECK_EQ(walk(10, 10, found, 4), 0);
	set(200, 300, 7 * 4096);
	REQUIRE_EQ(walk(50, 250, found, 4), 2);
	CHECK(found[0].start == AT(50) && found[0].end == AT(100));
	CHECK(found[1].start == AT(200) && found[1].end == AT(250));
	CHECK_EQ(found[1].offset, 7 * 4096);
	CHECK_EQ(walk(100, 200, found, 4), 0);
	ranges_forget_all();
	CHECK_EQ(walk(0, 400, found, 4), 0);
}
