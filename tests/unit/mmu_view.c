/* SPDX-License-Identifier: MIT */
/* What the calls of mmu.h make of the entries of two views of the same frames (contract 1.1). */
#include "mmu_rig.h"

TEST_EACH_BACKEND(mmu_read_maps_protected, "2.2 a page filled for a read reports its first write")
{
	rig_create();
	CHECK_EQ(*rig_at(0, 3), 4);
	CHECK_EQ(rig.reads, 1);
	*rig_at(0, 3) = 9;
	CHECK_EQ(rig.writes, 1);
	*rig_at(0, 3) = 10;
	CHECK_EQ(*rig_at(0, 3), 10);
	CHECK_EQ(rig_faults(), 2);
	rig_destroy();
}

TEST_EACH_BACKEND(mmu_armed_views,
		  "I1 an armed view reads what another one filled, and reports its write")
{
	rig_create();
	*rig_at(0, 5) = 7;
	CHECK_EQ(rig.writes, 1);
	CHECK_EQ(*rig_at(1, 5), 7);
	CHECK_EQ(rig_faults(), 1);
	*rig_at(1, 5) = 8;
	CHECK_EQ(rig.writes, 2);
	CHECK_EQ(*rig_at(0, 5), 8);
	CHECK_EQ(rig_faults(), 2);
	rig_destroy();
}

TEST_EACH_BACKEND(mmu_protect_reports_again, "S1.5 a protected page reports once, whatever it was")
{
	rig_create();
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < RIG_PAGES; i++)
			*rig_at(0, i) = (char)round;
		for (size_t i = 0; i < RIG_PAGES; i++)
			*rig_at(0, i) = (char)round;
		CHECK_EQ(rig.writes, (round + 1) * (int)RIG_PAGES);
		CHECK_EQ(mmu_protect(&rig.view[0], rig.view[0].address, RIG_PAGES * PAGE), 0);
		if (round == 1)
			CHECK_EQ(mmu_zap(&rig.view[0], rig.view[0].address, RIG_PAGES * PAGE), 0);
	}
	CHECK_EQ(*rig_at(0, RIG_PAGES - 1), 2);
	CHECK_EQ(rig.reads, 0);
	rig_destroy();
}

TEST_EACH_BACKEND(mmu_drop_and_arm, "5.2 a dropped frame is asked for again, in every view")
{
	rig_create();
	*rig_at(0, 1) = 77;
	CHECK_EQ(*rig_at(1, 1), 77);
	CHECK_EQ(frames_drop(rig.frames, PAGE, PAGE), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(mmu_protect(&rig.view[i], rig.view[i].address + PAGE, PAGE), 0);
	CHECK_EQ(*rig_at(1, 1), 2);
	CHECK_EQ(rig.reads, 1);
	*rig_at(0, 1) = 3;
	*rig_at(1, 1) = 4;
	CHECK_EQ(rig.writes, 3);
	CHECK_EQ(*rig_at(0, 1), 4);
	rig_destroy();
}

TEST_EACH_BACKEND(mmu_map_ro_leaves_mapped,
		  "mapping in advance skips holes and leaves what is mapped")
{
	bool present[RIG_PAGES];

	rig_create();
	/* Frames at even pages; of these every fourth page writable in view 0. */
	for (size_t i = 0; i < RIG_PAGES; i += 2)
		CHECK_EQ(frames_fill(rig.frames, i * PAGE, PAGE, NULL), 0);
	for (size_t i = 0; i < RIG_PAGES; i += 4)
		*rig_at(0, i) = 1;
	CHECK_EQ(rig.writes, RIG_PAGES / 4);
	CHECK_EQ(mmu_map_ro(&rig.view[0], rig.view[0].address, RIG_PAGES * PAGE), 0);
	for (size_t i = 0; i < RIG_PAGES; i += 2)
		CHECK_EQ(*rig_at(0, i), i % 4 == 0);
	CHECK_EQ(mmu_present(&rig.view[0], rig.view[0].address, RIG_PAGES * PAGE, present), 0);
	for (size_t i = 0; i < RIG_PAGES; i++)
		CHECK_EQ(present[i], i % 2 == 0);
	for (size_t i = 0; i < RIG_PAGES; i += 4)
		*rig_at(0, i) = 2;
	CHECK_EQ(rig_faults(), RIG_PAGES / 4);
	for (size_t i = 2; i < RIG_PAGES; i += 4)
		*rig_at(0, i) = 2;
	CHECK_EQ(rig_faults(), RIG_PAGES / 2);
	rig_destroy();
}

static _Atomic bool stop;

static void *read_all(void *arg)
{
	volatile char sum = 0;

	(void)arg;
	while (!stop)
		for (size_t i = 0; i < RIG_PAGES; i++)
			sum = (char)(sum + *rig_at(0, i));
	return NULL;
}

TEST_EACH_BACKEND(mmu_map_rw_mixed,
		  "2.4 a granted run is writable to its last page, readers or not")
{
	unsigned seed = 1, rounds = test_rounds(300), before;
	struct test_thread reader;
	bool present[RIG_PAGES];

	rig_create();
	CHECK_EQ(frames_fill(rig.frames, 0, RIG_PAGES * PAGE, NULL), 0);
	test_thread_start(&reader, read_all, NULL);
	for (unsigned round = 0; round < rounds; round++) {
		size_t first = (size_t)rand_r(&seed) % RIG_PAGES;
		size_t count = 1 + (size_t)rand_r(&seed) % (RIG_PAGES - first);
		size_t zapped = (size_t)rand_r(&seed) % count;
		uintptr_t from = rig.view[0].address + first * PAGE;

		CHECK_EQ(mmu_protect(&rig.view[0], rig.view[0].address, RIG_PAGES * PAGE), 0);
		if (round % 3)
			CHECK_EQ(mmu_zap(&rig.view[0], from + zapped * PAGE,
					 (count - zapped) * PAGE),
				 0);
		if (round % 4 == 3)
			CHECK_EQ(mmu_map_rw(&rig.view[0], from + zapped * PAGE, PAGE), 0);
		CHECK_EQ(mmu_map_rw(&rig.view[0], from, count * PAGE), 0);
		before = rig_faults();
		for (size_t i = first; i < first + count; i++)
			*rig_at(0, i) = (char)round;
		CHECK_EQ(rig_faults(), before);
		if (first > 0) {
			*rig_at(0, first - 1) = (char)round;
			CHECK_EQ(rig_faults(), before + 1);
		}
		CHECK_EQ(mmu_present(&rig.view[0], from, count * PAGE, present), 0);
		for (size_t i = 0; i < count; i++)
			CHECK(present[i]);
	}
	stop = true;
	test_thread_join(&reader);
	rig_destroy();
}

TEST_EACH_BACKEND(mmu_fill_stops_at_frame,
		  "a fill stops at a frame that exists, and says how far it came")
{
	static char bytes[8 * MKW_PAGE_SIZE];
	size_t done;

	rig_create();
	memset(bytes, 'x', sizeof(bytes));
	CHECK_EQ(frames_fill(rig.frames, 5 * PAGE, PAGE, bytes), 0);
	CHECK_EQ(mmu_fill(&rig.view[0], rig.view[0].address, sizeof(bytes), bytes, &done), -EEXIST);
	CHECK_EQ(done, 5 * PAGE);
	CHECK_EQ(*rig_at(0, 4), 'x');
	CHECK_EQ(rig_faults(), 0);
	CHECK_EQ(mmu_map_rw(&rig.view[0], rig.view[0].address, 8 * PAGE), 0);
	*rig_at(0, 5) = 'y';
	CHECK_EQ(rig_faults(), 0);
	rig_destroy();
}

TEST(mmu_frames, "frames are filled, dropped, and read through the alias at any offset")
{
	static char bytes[3 * MKW_PAGE_SIZE];
	static const uint64_t offset[] = {0, 64 << 20, (64 << 20) - PAGE, 1ull << 36};
	struct frames *frames;
	char *data;

	memset(bytes, 'b', sizeof(bytes));
	REQUIRE_EQ(frames_create(&frames), 0);
	for (size_t i = 0; i < sizeof(offset) / sizeof(offset[0]); i++) {
		bytes[0] = (char)i;
		CHECK_EQ(frames_fill(frames, offset[i], PAGE, bytes), 0);
		data = frames_data(frames, offset[i], PAGE);
		REQUIRE(data != NULL);
		CHECK_MEM(data, bytes, PAGE);
		CHECK(data == frames_data(frames, offset[i], PAGE));
		CHECK_EQ(frames_drop(frames, offset[i], PAGE), 0);
		CHECK_EQ(frames_fill(frames, offset[i], PAGE, NULL), 0);
		CHECK_EQ(data[0] | data[PAGE - 1], 0);
	}
	/* More zeros than one call takes. */
	CHECK_EQ(frames_fill(frames, 128 << 20, 9 << 20, NULL), 0);
	CHECK(frames_data(frames, 1ull << 50, PAGE) == NULL);
	frames_destroy(frames);
}
