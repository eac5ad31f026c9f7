/* SPDX-License-Identifier: MIT */
/*
 * space.c - the store over a file and the space beneath it, on real file systems: extents that are
 * reserved at the first write and given back, quotas, full file systems, and such as cannot
 * reserve.
 *
 * Each test makes its file system in a mount namespace of its own: an image on a tmpfs, gone with
 * the test's process however that ends.
 */
#include "store/double.h"
#include "store/mount.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PAGE   MKW_PAGE_SIZE
#define EXTENT (1ll << 20)

#define TEST_EACH_KIND(name_, what_)            \
	static void each_##name_(int kind);     \
	TEST(name_##_ext4, "on ext4: " what_)   \
	{                                       \
		kind_make(EXT4);                \
		each_##name_(EXT4);             \
	}                                       \
	TEST(name_##_xfs, "on xfs: " what_)     \
	{                                       \
		kind_make(XFS);                 \
		each_##name_(XFS);              \
	}                                       \
	TEST(name_##_tmpfs, "on tmpfs: " what_) \
	{                                       \
		kind_make(TMPFS);               \
		each_##name_(TMPFS);            \
	}                                       \
	TEST(name_##_btrfs, "on btrfs: " what_) \
	{                                       \
		kind_make(BTRFS);               \
		each_##name_(BTRFS);            \
	}                                       \
	static void each_##name_(int kind)

static int64_t blocks_bytes(const char *name)
{
	struct stat st;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	/* Some account for blocks only when they have been written out. */
	fsync(fd);
	REQUIRE_EQ(fstat(fd, &st), 0);
	close(fd);
	return (int64_t)st.st_blocks * 512;
}

static void sparse_make(const char *name, off_t size)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, size), 0);
	close(fd);
}

static int set_quota(struct opened *o, uint64_t bytes)
{
	char value[32];

	snprintf(value, sizeof(value), "%llu", (unsigned long long)bytes);
	return o->ops->control(o->store, &o->object, "quota", value);
}

static uint64_t free_bytes(struct opened *o)
{
	uint64_t free_now, total;

	REQUIRE_EQ(o->ops->capacity(o->store, &free_now, &total), 0);
	return free_now;
}

static int sync_all(struct opened *o)
{
	return o->ops->fsync(o->store, &o->object, 0, 0);
}

/* ---- Extents ------------------------------------------------------------------------------ */

TEST_EACH_KIND(extent,
	       "S2.6 a first write reserves the extent around it; unwritten, it is given back")
{
	struct opened o;
	unsigned char *page = pages_make(1, 3);

	(void)kind;
	sparse_make("data", 32 * EXTENT);
	store_open(&o, MKW_RDWR, "file:data");
	CHECK(store_grant(&o, 300));
	CHECK_EQ(blocks_bytes("data"), EXTENT);
	CHECK(store_grant(&o, 256) && store_grant(&o, 511));
	CHECK_EQ(blocks_bytes("data"), EXTENT);
	CHECK(store_grant(&o, 512));
	CHECK_EQ(blocks_bytes("data"), 2 * EXTENT);
	/* Until the last grant is gone, and then at once. */
	o.ops->unreserve(o.store, &o.object, 300, 1);
	o.ops->unreserve(o.store, &o.object, 256, 1);
	CHECK_EQ(blocks_bytes("data"), 2 * EXTENT);
	o.ops->unreserve(o.store, &o.object, 511, 1);
	CHECK_EQ(blocks_bytes("data"), EXTENT);
	/* Written in part, an extent stays to the end, and then what was written stays. */
	CHECK(store_grant(&o, 513));
	CHECK_EQ(store_write(&o, 512, 1, page), 0);
	o.ops->unreserve(o.store, &o.object, 513, 1);
	CHECK_EQ(blocks_bytes("data"), EXTENT);
	CHECK_EQ(sync_all(&o), 0);
	store_close(&o);
	CHECK_EQ(blocks_bytes("data"), PAGE);
	free(page);
}

TEST_EACH_KIND(extent_end, "the extent is cut to the object's size; a growing object reserves anew")
{
	struct opened o;
	unsigned char *pages = pages_make(64, 3);

	(void)kind;
	sparse_make("data", 10 * PAGE + 1000);
	store_open(&o, MKW_RDWR, "file:data?extent=64K");
	CHECK(store_grant(&o, 10));
	CHECK_EQ(blocks_bytes("data"), 11 * PAGE);
	CHECK_EQ(store_truncate(&o, 20 * PAGE), 0);
	CHECK(store_grant(&o, 10) && store_grant(&o, 13));
	CHECK_EQ(blocks_bytes("data"), 16 * PAGE);
	/* Cutting it down gives reservations back. */
	CHECK_EQ(store_truncate(&o, 2 * PAGE + 1), 0);
	CHECK_EQ(blocks_bytes("data"), 3 * PAGE);
	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 0, 2 * PAGE), 0);
	CHECK_EQ(blocks_bytes("data"), PAGE);
	store_close(&o);
	CHECK_EQ(blocks_bytes("data"), 0);
	free(pages);
}

TEST_EACH_KIND(extent_before,
	       "what was allocated before needs no reservation and is not given back")
{
	struct opened o;
	unsigned char *pages = pages_make(16, 3);

	sparse_make("data", 8 * EXTENT);
	int fd = open("data", O_RDWR | O_CLOEXEC);

	REQUIRE_EQ(fallocate(fd, FALLOC_FL_KEEP_SIZE, EXTENT, EXTENT / 2), 0);
	REQUIRE_EQ(pwrite(fd, pages, 16 * PAGE, 3 * EXTENT), 16 * PAGE);
	REQUIRE_EQ(fsync(fd), 0);
	close(fd);
	int64_t before = blocks_bytes("data");

	store_open(&o, MKW_RDWR, "file:data");
	CHECK(store_grant(&o, 0x300 + 15));
	CHECK_EQ(blocks_bytes("data"), before);
	if (kind == TMPFS) {
		/* It does not tell such blocks from holes: what is ours is not to be known. */
		store_close(&o);
		free(pages);
		return;
	}
	CHECK(store_grant(&o, 0x100 + 127));
	CHECK_EQ(blocks_bytes("data"), before);
	/* Around it there is more to reserve. */
	CHECK(store_grant(&o, 0x100 + 128) && store_grant(&o, 0x300 + 16));
	CHECK_EQ(blocks_bytes("data"), before + EXTENT / 2 + EXTENT - 16 * PAGE);
	o.ops->unreserve(o.store, &o.object, 0, 8 * 256);
	store_close(&o);
	CHECK_EQ(blocks_bytes("data"), before);
	free(pages);
}

TEST_EACH_KIND(extent_foreign,
	       "bytes that somebody else wrote to blocks of ours survive our giving back")
{
	struct opened o;
	unsigned char *page = pages_make(1, 3), *in = pages_make(1, 1);

	(void)kind;
	sparse_make("data", 8 * EXTENT);
	store_open(&o, MKW_RDWR, "file:data");
	CHECK(store_grant(&o, 0));
	int fd = open("data", O_RDWR | O_CLOEXEC);

	REQUIRE_EQ(pwrite(fd, page, PAGE, 77 * PAGE), PAGE);
	store_close(&o);
	CHECK_EQ(pread(fd, in, PAGE, 77 * PAGE), PAGE);
	CHECK_MEM(in, page, PAGE);
	close(fd);
	free(page);
	free(in);
}

TEST(extent_read_then_reserved, "reading a hole into the kernel's cache does not keep blocks")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *pages = pages_make(64, 3);

	kind_make(EXT4);
	sparse_make("data", 8 * EXTENT);
	int fd = open("data", O_RDWR | O_CLOEXEC);

	REQUIRE_EQ(pwrite(fd, pages, PAGE, 0), PAGE);
	REQUIRE_EQ(fsync(fd), 0);
	REQUIRE_EQ(pread(fd, pages, 64 * PAGE, 0), 64 * PAGE);
	close(fd);
	store_open(&o, MKW_RDWR, "file:data");
	CHECK_EQ(store_fill(&o, 0, 64, 0, pages, &run) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK(store_grant(&o, 32));
	CHECK_EQ(blocks_bytes("data"), EXTENT);
	store_close(&o);
	CHECK_EQ(blocks_bytes("data"), PAGE);
	free(pages);
}

TEST(extent_small_blocks,
     "5.4 where blocks are smaller than pages the page across the old end reserves again")
{
	struct opened o;
	unsigned char *page = pages_make(1, 3);

	fs_make("ext4", "mkfs.ext4 -q -b 1024", "16M");
	sparse_make("data", 0);
	int fd = open("data", O_RDWR | O_CLOEXEC);

	REQUIRE_EQ(pwrite(fd, page, 1500, 0), 1500);
	REQUIRE_EQ(fsync(fd), 0);
	close(fd);
	CHECK_EQ(blocks_bytes("data"), 2048);
	store_open(&o, MKW_RDWR, "file:data?extent=4K");
	CHECK(store_grant(&o, 0));
	CHECK_EQ(blocks_bytes("data"), 2048);
	CHECK_EQ(store_write(&o, 0, 1, page), 0);
	CHECK_EQ(store_truncate(&o, 3 * PAGE), 0);
	CHECK(store_grant(&o, 0));
	CHECK_EQ(blocks_bytes("data"), 4096);
	/* It has bytes: nothing of it is given back. */
	o.ops->unreserve(o.store, &o.object, 0, 1);
	store_close(&o);
	CHECK(blocks_bytes("data") >= 2048);
	unsigned char in[1500];

	fd = open("data", O_RDONLY | O_CLOEXEC);
	CHECK_EQ(pread(fd, in, 1500, 0), 1500);
	CHECK_MEM(in, page, 1500);
	close(fd);
	free(page);
}

/* ---- The quota ---------------------------------------------------------------------------- */

TEST_EACH_KIND(quota, "S1.1 the file's blocks never exceed the quota, to the page")
{
	struct opened o;
	unsigned char *page = pages_make(1, 3);

	(void)kind;
	sparse_make("data", 8 * EXTENT);
	store_open(&o, MKW_RDWR, "file:data?quota=65K&extent=16K");
	CHECK_EQ(free_bytes(&o), 65 * 1024);
	for (uint64_t i = 0; i < 16; i++) {
		CHECK(store_grant(&o, i));
		CHECK(blocks_bytes("data") <= 65 * 1024);
		CHECK_EQ(store_write(&o, i, 1, page), 0);
	}
	CHECK_EQ(blocks_bytes("data"), 64 * 1024);
	CHECK_EQ(store_ask(&o, 16, 1, 16, NULL), MKW_FAULT_SIGBUS);
	CHECK_SAYS("no space for 4096 bytes at 65536: 65536 of quota=66560 are used");
	CHECK_EQ(free_bytes(&o), 1024);
	CHECK(store_grant(&o, 3));
	CHECK_EQ(set_quota(&o, 65535), -EBUSY);
	CHECK_SAYS("less than the 65536 bytes in use");
	CHECK_EQ(set_quota(&o, 64 * 1024), 0);
	CHECK(!store_grant(&o, 16));
	unsigned wakes = o.object.wakes;

	CHECK_EQ(set_quota(&o, 72 * 1024), 0);
	CHECK(o.object.wakes > wakes);
	/* Not the extent of four pages, but the page itself, and another. */
	CHECK(store_grant(&o, 17) && store_grant(&o, 16));
	CHECK(!store_grant(&o, 18));
	wakes = o.object.wakes;
	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 0, PAGE), 0);
	CHECK_EQ(o.object.wakes, wakes + 1);
	CHECK(store_grant(&o, 18));
	store_close(&o);
	free(page);
}

TEST_EACH_KIND(quota_run, "an extent that does not fit gives way to the run, and the run is cut")
{
	struct opened o;
	struct mkw_run run;

	(void)kind;
	sparse_make("data", 8 * EXTENT);
	store_open(&o, MKW_RDWR, "file:data?quota=1088K");
	CHECK_EQ(store_ask(&o, 200, 10, 205, &run), 0);
	CHECK_EQ(run.count, 10);
	CHECK_EQ(blocks_bytes("data"), EXTENT);
	/* 64 KiB are left: the run of 8 fits, the extent does not. */
	CHECK_EQ(store_ask(&o, 300, 8, 300, &run), 0);
	CHECK_EQ(run.count, 8);
	CHECK_EQ(blocks_bytes("data"), EXTENT + 8 * PAGE);
	CHECK_EQ(store_ask(&o, 400, 32, 410, &run), 0);
	CHECK(run.first <= 410 && run.count >= 1 && run.count <= 8);
	CHECK_EQ(run.first + run.count > 410, 1);
	CHECK(blocks_bytes("data") <= 1088 << 10);
	store_close(&o);
	CHECK_EQ(blocks_bytes("data"), 0);
}

TEST_EACH_KIND(quota_defer,
	       "S2.1 what was never granted meets the quota at write-back, and the rest arrives")
{
	struct opened o;
	unsigned char *pages = pages_make(8, 3), *in = pages_make(8, 1);

	(void)kind;
	sparse_make("data", 8 * EXTENT);
	store_open(&o, MKW_RDWR, "file:data?quota=16K&extent=4K");
	CHECK(store_grant(&o, 7) && store_grant(&o, 3));
	CHECK_EQ(store_write(&o, 0, 8, pages), -ENOSPC);
	CHECK(blocks_bytes("data") <= 16384);
	CHECK_EQ(store_fill(&o, 7, 1, 7, in, NULL) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_MEM(in, pages + 7 * PAGE, PAGE);
	/* The file system's own blocks for so many pieces count too. */
	CHECK_EQ(set_quota(&o, 65536), 0);
	CHECK_EQ(store_write(&o, 0, 8, pages), 0);
	CHECK_EQ(store_fill(&o, 0, 8, 7, in, NULL) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_MEM(in, pages, 8 * PAGE);
	store_close(&o);
	CHECK(blocks_bytes("data") >= 32768 && blocks_bytes("data") <= 32768 + PAGE);
	free(pages);
	free(in);
}

/* ---- Full file systems -------------------------------------------------------------------- */

static void sink_fill(const char *name)
{
	static const char zeros[1 << 16];
	int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	REQUIRE(fd >= 0);
	while (write(fd, zeros, sizeof(zeros)) > 0 && !fsync(fd))
		;
	close(fd);
}

/* Leave so many bytes free. */
static void sink_reserve(const char *name, int64_t left)
{
	struct statvfs fs;
	int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(statvfs(".", &fs), 0);
	REQUIRE_EQ(fallocate(fd, 0, 0, (off_t)(fs.f_bavail * fs.f_frsize) - left), 0);
	close(fd);
}

TEST_EACH_KIND(full,
	       "S1.1 a full file system refuses the first write; every page granted can be written")
{
	struct opened o;
	struct statvfs fs;
	unsigned char *pages = pages_make(64, 3);
	uint64_t granted = 0;

	if (kind == BTRFS) /* slow where little is left: let that be little indeed */
		sink_reserve("sink", 16 << 20);
	REQUIRE_EQ(statvfs(".", &fs), 0);
	sparse_make("data", 64ll << 30);
	store_open(&o, MKW_RDWR, "file:data");
	while (granted < 1 << 20 && store_grant(&o, granted))
		granted++;
	test_note("%llu pages granted", (unsigned long long)granted);
	/* btrfs counts as free what it will need for its own trees. */
	CHECK(granted * PAGE > fs.f_bavail * fs.f_frsize / (kind == BTRFS ? 8 : 2));
	CHECK(granted * PAGE <= fs.f_blocks * fs.f_frsize);
	CHECK_EQ(store_ask(&o, granted, 1, granted, NULL), MKW_FAULT_SIGBUS);
	CHECK_SAYS("the file system is full");
	for (int i = 0; i < 10; i++)
		CHECK(!store_grant(&o, granted + 1000));
	for (uint64_t i = 0; i < granted; i += 64)
		REQUIRE_EQ(store_write(&o, i, granted - i < 64 ? granted - i : 64, pages), 0);
	CHECK_EQ(sync_all(&o), 0);
	unsigned wakes = o.object.wakes;

	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 0, 8 * EXTENT), 0);
	CHECK(o.object.wakes > wakes);
	/* btrfs frees blocks when the transaction ends. */
	CHECK_EQ(sync_all(&o), 0);
	if (kind == BTRFS)
		sync();
	CHECK(store_grant(&o, granted));
	store_close(&o);
	free(pages);
}

TEST(full_edquot, "a disk quota that is used up refuses with EDQUOT (a qgroup of btrfs)")
{
	struct opened o;
	uint64_t granted = 0;

	kind_make(BTRFS);
	if (!run_command("btrfs quota enable /mnt/fs") ||
	    !run_command("btrfs qgroup limit 8M 0/5 /mnt/fs"))
		SKIP("btrfs quotas cannot be had here");
	sparse_make("data", 64ll << 30);
	store_open(&o, MKW_RDWR, "file:data");
	while (granted < 1 << 16 && store_grant(&o, granted))
		granted++;
	CHECK(granted > 256 && granted <= 2048);
	CHECK_SAYS("disk quota is used up");
	store_close(&o);
}

TEST(full_partial, "an extent that finds room only in part is given back before less is tried")
{
	struct opened o;
	struct statvfs fs;

	fs_make("ext4", "mkfs.ext4 -q -b 4096 -m 0", "16M");
	sink_fill("sink");
	REQUIRE_EQ(truncate("sink", 0), 0);
	sink_fill("sink");
	struct stat st;

	REQUIRE_EQ(stat("sink", &st), 0);
	/* Room for 40 pages or so, an extent being 256. */
	REQUIRE_EQ(truncate("sink", st.st_size - 40 * PAGE), 0);
	REQUIRE_EQ(statvfs(".", &fs), 0);
	uint64_t room = fs.f_bavail;

	CHECK(room >= 30 && room <= 80);
	sparse_make("data", 64ll << 20);
	store_open(&o, MKW_RDWR, "file:data");
	CHECK(store_grant(&o, 1000));
	CHECK_EQ(blocks_bytes("data"), PAGE);
	struct mkw_run run;

	CHECK_EQ(store_ask(&o, 2000, 8, 2000, &run), 0);
	CHECK_EQ(run.count, 8);
	CHECK_EQ(blocks_bytes("data"), 9 * PAGE);
	uint64_t granted = 0;

	while (granted < 200 && store_grant(&o, granted))
		granted++;
	CHECK(granted >= room - 15 && granted <= room);
	store_close(&o);
	CHECK_EQ(blocks_bytes("data"), 0);
}

/* ---- File systems that cannot reserve ----------------------------------------------------- */

TEST(counted, "without fallocate free blocks are counted, less what is promised")
{
	struct opened o;
	struct statvfs fs;
	unsigned char *page = pages_make(1, 3);
	uint64_t granted = 0;

	fs_make("ext4", "mkfs.ext4 -q -b 4096 -O ^extents,^64bit -m 0", "16M");
	sparse_make("data", 64ll << 20);
	store_open(&o, MKW_RDWR, "file:data");
	REQUIRE_EQ(statvfs(".", &fs), 0);
	uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize / PAGE;

	while (granted < 1 << 16 && store_grant(&o, granted))
		granted++;
	CHECK_EQ(granted, room);
	CHECK_SAYS("it cannot reserve, so its free blocks are counted");
	CHECK_EQ(free_bytes(&o), 0);
	CHECK_EQ(blocks_bytes("data"), 0);
	CHECK(store_grant(&o, 5));
	/* Given back page by page. */
	o.ops->unreserve(o.store, &o.object, 0, 10);
	CHECK_EQ(free_bytes(&o), 10 * PAGE);
	CHECK(o.object.wakes > 0);
	o.ops->unreserve(o.store, &o.object, 0, 10);
	CHECK_EQ(free_bytes(&o), 10 * PAGE);
	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 10 * PAGE, 10 * PAGE), 0);
	CHECK_EQ(free_bytes(&o), 20 * PAGE);
	for (uint64_t i = 20; i < 1000; i++)
		CHECK_EQ(store_write(&o, i, 1, page), 0);
	CHECK_EQ(sync_all(&o), 0);
	/* Written, they are the file system's to count, with its own blocks on top. */
	CHECK(free_bytes(&o) <= 20 * PAGE && free_bytes(&o) >= 10 * PAGE);
	CHECK_EQ(store_truncate(&o, 1000 * PAGE), 0);
	CHECK(free_bytes(&o) >= (room - 1000) * PAGE);
	store_close(&o);
	free(page);
}

TEST(counted_quota, "a quota counts promises without blocks")
{
	struct opened o;

	fs_make("ext4", "mkfs.ext4 -q -b 4096 -O ^extents,^64bit", "16M");
	sparse_make("data", 64ll << 20);
	store_open(&o, MKW_RDWR, "file:data?quota=12K");
	CHECK(store_grant(&o, 0) && store_grant(&o, 1000) && store_grant(&o, 2000));
	CHECK(!store_grant(&o, 3000));
	CHECK_SAYS("12288 of quota=12288 are used");
	o.ops->unreserve(o.store, &o.object, 1000, 1);
	CHECK(store_grant(&o, 3000));
	store_close(&o);
}

/* ---- Everything at once ------------------------------------------------------------------- */

#define RACE_PAGES   1024u
#define RACE_THREADS 3u

static struct opened racing;
static unsigned char model[RACE_PAGES];

/* Pages of a thread are those with its number modulo RACE_THREADS: all share all extents. */
static void *racer(void *arg)
{
	unsigned mine = (unsigned)(uintptr_t)arg;
	uint64_t state = mine + 1;
	unsigned char *page = pages_make(1, 0);

	for (unsigned i = 0; i < test_rounds(3000); i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		uint64_t at = (state >> 40) % (RACE_PAGES / RACE_THREADS) * RACE_THREADS + mine;
		unsigned char value = (unsigned char)(1 + (state >> 33) % 250);

		switch ((state >> 50) % 5) {
		case 0:
			CHECK_EQ(racing.ops->punch_hole(racing.store, &racing.object, at * PAGE,
							PAGE),
				 0);
			model[at] = 0;
			break;
		case 1:
			if (store_grant(&racing, at))
				racing.ops->unreserve(racing.store, &racing.object, at, 1);
			break;
		case 2:
			CHECK_EQ(store_fill(&racing, at, 1, at, page, NULL) & MKW_FAULT_SIGBUS, 0);
			break;
		default:
			memset(page, value, PAGE);
			if ((state >> 55) % 2 && !store_grant(&racing, at))
				break;
			if (!store_write(&racing, at, 1, page))
				model[at] = value;
		}
	}
	free(page);
	return NULL;
}

TEST_EACH_KIND(race,
	       "grants, writes, punches and giving back at once lose no byte and keep no block")
{
	struct test_thread threads[RACE_THREADS];
	unsigned char *in = pages_make(RACE_PAGES, 0);
	int64_t stored = 0;

	(void)kind;
	sparse_make("data", RACE_PAGES * PAGE);
	store_open(&racing, MKW_RDWR, "file:data?extent=64K&quota=3M");
	for (uintptr_t i = 0; i < RACE_THREADS; i++)
		test_thread_start(&threads[i], racer, (void *)i);
	for (unsigned i = 0; i < RACE_THREADS; i++)
		test_thread_join(&threads[i]);
	CHECK_EQ(sync_all(&racing), 0);
	store_close(&racing);
	int fd = open("data", O_RDONLY | O_CLOEXEC);

	REQUIRE_EQ(pread(fd, in, RACE_PAGES * PAGE, 0), RACE_PAGES * PAGE);
	close(fd);
	for (unsigned i = 0; i < RACE_PAGES; i++) {
		CHECK_EQ(in[i * PAGE], model[i]);
		CHECK_EQ(in[i * PAGE + PAGE - 1], model[i]);
		stored += model[i] ? PAGE : 0;
	}
	test_note("%lld stored", (long long)stored);
	/* The file system may keep a few pages that it zeroed itself, and blocks of its own. */
	CHECK(blocks_bytes("data") >= stored);
	CHECK(blocks_bytes("data") <= stored + 64 * PAGE);
	free(in);
}

/* ---- Devices ------------------------------------------------------------------------------ */

static void device_path(char *path, size_t size)
{
	FILE *output = popen("losetup --find --show /mnt/image", "re");

	REQUIRE(output != NULL);
	if (!fgets(path, (int)size, output)) {
		pclose(output);
		SKIP("no loop device can be had");
	}
	pclose(output);
	path[strcspn(path, "\n")] = '\0';
}

TEST(device,
     "a block device is read and written, keeps its size, and is not taken from a file system")
{
	struct opened o;
	char path[64];
	unsigned char *pages = pages_make(4, 3), *in = pages_make(4, 1);

	namespace_make();
	REQUIRE(run_command("truncate -s 67108864 /mnt/image"));
	device_path(path, sizeof(path));
	store_open(&o, MKW_RDWR, "file:%s", path);
	CHECK_EQ(o.args.size_bytes, 64 << 20);
	CHECK_EQ(o.ops->flags, MKW_STORE_FIXED_SIZE);
	CHECK(!o.ops->page_mkwrite && !o.ops->truncate);
	CHECK_EQ(store_write(&o, 100, 4, pages), 0);
	CHECK_EQ(store_fill(&o, 99, 4, 100, in, NULL) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_MEM(in + PAGE, pages, 3 * PAGE);
	CHECK_EQ(sync_all(&o), 0);
	CHECK_EQ(o.object.errors, 0);
	struct opened second;
	char uri[80];

	snprintf(uri, sizeof(uri), "file:%s", path);
	CHECK_EQ(store_try(&second, uri, MKW_RDWR), -EBUSY);
	store_close(&o);
	CHECK_EQ(store_try(&second, uri, MKW_RDWR | MKW_TRUNC), -EINVAL);
	store_open(&o, MKW_RDWR, "file:%s?direct=1", path);
	CHECK_EQ(store_write(&o, 200, 4, pages), 0);
	CHECK_EQ(store_fill(&o, 200, 4, 200, in, NULL) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_MEM(in, pages, 4 * PAGE);
	store_close(&o);
	if (run_command("mkfs.ext4 -q %s", path) && run_command("mount %s /mnt/fs", path)) {
		CHECK_EQ(store_try(&second, uri, MKW_RDWR), -EBUSY);
		CHECK_SAYS("cannot be had alone");
		store_open(&o, MKW_RDONLY, "file:%s", path);
		CHECK(!o.ops->writepages);
		store_close(&o);
		CHECK(run_command("umount /mnt/fs"));
	}
	CHECK(run_command("losetup -d %s", path));
	free(pages);
	free(in);
}
