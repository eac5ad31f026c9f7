/* SPDX-License-Identifier: MIT */
/* The slots of a swap file (vm/swap.c) and the file itself (mmu/swap.c). Slot 0 is the spare one.
 */
#include "harness/rig.h"
#include "vm/vm.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct swap swap;
static char directory[] = "/tmp/mkwrite-swap-XXXXXX";

static void swap_begin(uint64_t limit_bytes)
{
	swap = (struct swap){0};
	REQUIRE(mkdtemp(directory) != NULL);
	REQUIRE_EQ(swap_open(&swap, directory, limit_bytes), 0);
}

static void swap_end(void)
{
	CHECK_EQ(swap_used(&swap), 0);
	swap_close(&swap);
	CHECK_EQ(rmdir(directory), 0); /* nothing is left in it */
}

/* Bytes that the swap file takes on its disk. */
static uint64_t file_bytes(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	uint64_t bytes = UINT64_MAX;

	REQUIRE(dir != NULL);
	while ((entry = readdir(dir)) != NULL) {
		char target[256] = "";
		struct stat st;

		if (readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1) > 0 &&
		    strncmp(target, directory, strlen(directory)) == 0 &&
		    fstat(atoi(entry->d_name), &st) == 0)
			bytes = (uint64_t)st.st_blocks * 512;
	}
	closedir(dir);
	return bytes;
}

static uint32_t take(size_t want, size_t expected)
{
	uint32_t first = UINT32_MAX;
	int error = 0;

	CHECK_EQ(swap_take(&swap, want, &first, &error), expected);
	return first;
}

TEST(swap_runs, "2.8 slots come in runs from the first free ones on, and come back")
{
	swap_begin(0);
	CHECK_EQ(take(100, 100), 1);
	CHECK_EQ(take(28, 28), 101);
	swap_put(&swap, 10, 5);
	swap_put(&swap, 50, 20);
	CHECK_EQ(take(16, 16), 50); /* the first hole that it fits in */
	CHECK_EQ(take(5, 5), 10);
	CHECK_EQ(take(5, 5), 129);
	CHECK_EQ(take(4, 4), 66);
	CHECK_EQ(swap_used(&swap), 133);
	swap_put(&swap, 1, 133);
	CHECK_EQ(take(3, 3), 1);
	swap_put(&swap, 1, 3);
	swap_end();
}

TEST(swap_pieces, "2.8 a run does not cross from one piece of the table into the next")
{
	uint32_t next = 1;

	swap_begin(0);
	while (next < SWAP_PIECE_SLOTS - 96) {
		CHECK_EQ(take(96, 96), next);
		next += 96;
	}
	CHECK_EQ(take(128, 128), SWAP_PIECE_SLOTS);
	CHECK_EQ(take(SWAP_PIECE_SLOTS - next, SWAP_PIECE_SLOTS - next), next);
	swap_put(&swap, 1, SWAP_PIECE_SLOTS + 127);
	swap_end();
}

TEST(swap_users, "2.8 7.1 a slot is free when the last of its users has gone")
{
	char bytes[4 * PAGE], back[PAGE];
	int error;

	swap_begin(0);
	memset(bytes, 's', sizeof(bytes));
	CHECK_EQ(take(4, 4), 1);
	CHECK_EQ(swap_write(&swap, 1, 4, bytes, &error), 4);
	CHECK_EQ(swap_get(&swap, 2), 0);
	CHECK_EQ(swap_get(&swap, 2), 0);
	swap_put(&swap, 1, 4);
	CHECK_EQ(swap_used(&swap), 1);
	CHECK_EQ(take(1, 1), 1);
	CHECK_EQ(take(1, 1), 3);
	swap_put(&swap, 2, 1);
	CHECK_EQ(swap_read(&swap, 2, 1, back), 0);
	CHECK_MEM(back, bytes, PAGE);
	swap_put(&swap, 1, 3);
	CHECK_EQ(swap_used(&swap), 0);
	swap_end();
}

TEST(swap_limit, "2.8 there are as many slots as the limit has room for; then ENOSPC and why")
{
	uint32_t first;
	int error = 0;

	swap_begin(10 * PAGE + 17);
	CHECK_EQ(take(64, 9), 1);
	CHECK_EQ(swap_take(&swap, 1, &first, &error), 0);
	CHECK_EQ(error, -ENOSPC);
	CHECK_STR(mkw_error_message(), "the swap file is full: its limit is 40960 bytes");
	swap_put(&swap, 9, 1);
	CHECK_EQ(take(2, 1), 9);
	swap_put(&swap, 1, 9);
	swap_end();
}

TEST(swap_spare,
     "2.8 the last slot is there for who gives one back; what comes back first is it then")
{
	uint32_t spare = UINT32_MAX, first;
	int error;

	swap_begin(3 * PAGE);
	CHECK_EQ(take(3, 2), 1);
	CHECK(!swap_is_tight(&swap));
	CHECK(swap_take_spare(&swap, &spare));
	CHECK_EQ(spare, 0);
	CHECK(swap_is_tight(&swap));
	CHECK(!swap_take_spare(&swap, &spare));
	CHECK_EQ(swap_used(&swap), 3);
	swap_cancel(&swap, 2, 1); /* there may be no room for it in the file */
	CHECK(swap_is_tight(&swap));
	CHECK_EQ(take(1, 1), 2);
	CHECK(swap_put(&swap, 1, 1));
	CHECK(!swap_is_tight(&swap));
	CHECK_EQ(swap_take(&swap, 1, &first, &error), 0);
	CHECK(swap_take_spare(&swap, &spare));
	CHECK_EQ(spare, 1);
	CHECK(swap_put(&swap, 0, 3));
	swap_end();
}

TEST(swap_dropped, "2.8 the file takes as much room as is in it")
{
	static char bytes[64 * PAGE];
	int error;

	swap_begin(0);
	memset(bytes, 'd', sizeof(bytes));
	CHECK_EQ(take(64, 64), 1);
	CHECK_EQ(swap_write(&swap, 1, 64, bytes, &error), 64);
	CHECK(file_bytes() >= 64 * PAGE);
	swap_put(&swap, 1, 60);
	CHECK(file_bytes() < 32 * PAGE);
	swap_put(&swap, 61, 4);
	CHECK(file_bytes() < 4 * PAGE);
	swap_end();
}

TEST(swap_cut_file, "2.8 what is not in the file any more is an error, not zeros")
{
	char bytes[PAGE], back[PAGE];
	int error;

	swap_begin(0);
	memset(bytes, 'c', sizeof(bytes));
	CHECK_EQ(take(2, 2), 1);
	CHECK_EQ(swap_write(&swap, 1, 1, bytes, &error), 1);
	CHECK_EQ(swap_read(&swap, 2, 1, back), -EIO);
	CHECK(strstr(mkw_error_message(), "swap file") != NULL);
	CHECK_EQ(swap_read(&swap, 1, 1, back), 0);
	swap_put(&swap, 1, 2);
	swap_end();
}

/* Each slot's users, beside the table. */
#define MODEL_SLOTS 300u

struct shuffle {
	uint8_t users[MODEL_SLOTS];
	uint64_t seed, taken;
};

static void shuffle_take(struct shuffle *s)
{
	size_t want = 1 + rig_random(&s->seed) % 40, n;
	uint32_t first;
	int error = 0;

	n = swap_take(&swap, want, &first, &error);
	CHECK_EQ(n == 0, s->taken == MODEL_SLOTS - 1);
	CHECK(n <= want);
	for (size_t i = 0; i < n; i++) {
		CHECK_EQ(s->users[first + i], 0);
		s->users[first + i] = 1;
	}
	s->taken += n;
}

static void shuffle_put(struct shuffle *s)
{
	uint32_t first = (uint32_t)(rig_random(&s->seed) % MODEL_SLOTS);
	size_t n = 0, most = rig_random(&s->seed) % 40;

	while (n < most && first + n < MODEL_SLOTS && s->users[first + n] > 0)
		n++;
	swap_put(&swap, first, n);
	for (size_t i = 0; i < n; i++)
		s->taken -= --s->users[first + i] == 0;
}

TEST(swap_shuffle, "2.8 slots taken, shared and put back at random: each has the users it should")
{
	struct shuffle s = {.seed = 7};

	swap_begin(MODEL_SLOTS * PAGE);
	for (unsigned i = 0; i < test_rounds(5000); i++) {
		uint32_t slot = (uint32_t)(rig_random(&s.seed) % MODEL_SLOTS);

		switch (rig_random(&s.seed) % 4) {
		case 0:
			shuffle_take(&s);
			break;
		case 1:
			if (s.users[slot] > 0 && s.users[slot] < 100) {
				CHECK_EQ(swap_get(&swap, slot), 0);
				s.users[slot]++;
			}
			break;
		default:
			shuffle_put(&s);
		}
		REQUIRE_EQ(swap_used(&swap), s.taken);
	}
	for (uint32_t i = 0; i < MODEL_SLOTS; i++)
		for (; s.users[i] > 0; s.users[i]--)
			swap_put(&swap, i, 1);
	swap_end();
}
