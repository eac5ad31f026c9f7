/* SPDX-License-Identifier: MIT */
/*
 * swap.c - 2.8, S0.6, S3.2, S3.4: private copies past the resident limit go to the swap file and
 * come back whole.
 */
#include "harness/rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- The option --------------------------------------------------------------------------- */

static char directory[] = "/tmp/mkwrite-swap-XXXXXX";

static int space_try(const char *path, uint64_t limit_bytes)
{
	struct mkw_space_options options = {
		RIG_QUIET,
		.swap_path = path,
		.swap_limit_bytes = limit_bytes,
	};
	struct mkw_space *space;
	int error = mkw_space_create(&options, &space);

	if (error == 0)
		CHECK_EQ(mkw_space_destroy(space, 0), 0);
	return error;
}

TEST(swap_option,
     "2.8 a swap file in a directory, or under a name of its own, leaves nothing behind")
{
	char path[64];
	struct stat st;

	REQUIRE(mkdtemp(directory) != NULL);
	snprintf(path, sizeof(path), "%s/swap", directory);
	CHECK_EQ(space_try(directory, 0), 0);
	CHECK_EQ(space_try(directory, 2 * PAGE), 0);
	CHECK_EQ(space_try(path, 0), 0);
	CHECK(stat(path, &st) != 0);
	CHECK_EQ(rmdir(directory), 0);
}

TEST(swap_option_refused, "2.8 a swap file is made over no other file; what cannot be is said")
{
	char path[64], bytes[5] = "";
	int fd;

	REQUIRE(mkdtemp(directory) != NULL);
	snprintf(path, sizeof(path), "%s/mine", directory);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	REQUIRE(fd >= 0 && write(fd, "mine", 4) == 4);
	CHECK_EQ(space_try(path, 0), -EEXIST);
	CHECK(strstr(mkw_error_message(), path) != NULL);
	CHECK_EQ(pread(fd, bytes, 4, 0), 4);
	CHECK_STR(bytes, "mine");
	close(fd);
	CHECK_EQ(unlink(path), 0);
	CHECK_EQ(symlink("nowhere", path), 0);
	CHECK_EQ(space_try(path, 0), -EEXIST);
	CHECK_EQ(unlink(path), 0);
	CHECK_EQ(rmdir(directory), 0);
	CHECK_EQ(space_try(path, 0), -ENOENT);
	CHECK(strstr(mkw_error_message(), "swap_path") != NULL);
	CHECK_EQ(space_try("", 0), -ENOENT);
	CHECK(space_try("/proc", 0) < 0);
	CHECK_EQ(space_try(NULL, PAGE), -EINVAL);
	CHECK_EQ(space_try("/tmp", 2 * PAGE - 1), -EINVAL);
}

/* ---- Copies that go and come back ------------------------------------------------------------ */

struct swapping {
	struct rig rig;
	unsigned char *view; /* private, of all pages */
};

static unsigned char *private_view(struct rig *rig)
{
	void *view;

	REQUIRE_EQ(mkw_map(rig->handle, rig->pages * PAGE, MKW_WRITE,
			   MKW_PRIVATE | test_map_flags(), 0, &view),
		   0);
	return view;
}

/* A store with a pattern, a swap file in /tmp, and a private view; one page at a time unless
 * stream. */
static void swapping_open(struct swapping *s, uint64_t pages, uint64_t resident_pages,
			  uint64_t swap_pages, bool stream)
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.resident_limit_bytes = resident_pages * PAGE,
		.swap_path = "/tmp",
		.swap_limit_bytes = swap_pages * PAGE,
	};

	rig_open(&s->rig, &options, pages, MKW_RDWR);
	s->view = private_view(&s->rig);
	if (!stream)
		CHECK_EQ(mkw_advise(s->view, pages * PAGE, MKW_RANDOM), 0);
}

static void swapping_close(struct swapping *s)
{
	struct mkw_stat stat;

	CHECK_EQ(mkw_unmap(s->view, s->rig.pages * PAGE), 0);
	stat = rig_space_stat(&s->rig);
	CHECK_EQ(stat.private_bytes, 0);
	CHECK_EQ(stat.swapped_bytes, 0);
	CHECK_EQ(rig_stat(&s->rig).swapped_bytes, 0);
	rig_close(&s->rig);
}

/* All of a page, different in each page and round. */
static void page_write(unsigned char *view, uint64_t page, uint64_t round)
{
	for (uint64_t i = 0; i < PAGE / 8; i++)
		((uint64_t *)(void *)(view + page * PAGE))[i] = page << 32 ^ round << 16 ^ i;
}

static bool page_check(unsigned char *view, uint64_t page, uint64_t round)
{
	for (uint64_t i = 0; i < PAGE / 8; i++)
		if (!CHECK_EQ(((uint64_t *)(void *)(view + page * PAGE))[i],
			      page << 32 ^ round << 16 ^ i))
			return false;
	return true;
}

static void come_and_go(uint64_t pages, uint64_t resident_pages, bool stream)
{
	struct swapping s;
	struct mkw_stat stat;

	swapping_open(&s, pages, resident_pages, 0, stream);
	for (uint64_t i = 0; i < pages; i++)
		page_write(s.view, i, 1);
	for (uint64_t i = 0; i < pages && page_check(s.view, i, 1); i += 2)
		page_write(s.view, i, 2);
	for (uint64_t i = 0; i < pages && page_check(s.view, i, i % 2 == 0 ? 2 : 1); i++)
		;
	stat = rig_space_stat(&s.rig);
	CHECK(stat.resident_peak_bytes <= resident_pages * PAGE);
	CHECK(stat.private_bytes <= stat.resident_bytes);
	CHECK_EQ(stat.private_bytes + stat.swapped_bytes, pages * PAGE);
	CHECK(stat.swap_outs >= pages - resident_pages);
	CHECK(stat.swap_ins > 0);
	CHECK_EQ(stat.notifications, 0);
	CHECK_EQ(stat.refusals, 0);
	swapping_close(&s);
}

TEST_EACH_BACKEND(whole_random,
		  "2.8 four times as much as fits, a page at a time: all comes back whole")
{
	come_and_go(256, 64, false);
}

TEST_EACH_BACKEND(whole_stream, "2.8 four times as much as fits, by streams: all comes back whole")
{
	come_and_go(4096, 1024, true);
}

TEST_EACH_BACKEND(whole_least, "2.8 a limit of four pages: all comes back whole")
{
	come_and_go(32, 4, false);
}

TEST_EACH_BACKEND(
	s0_6_write_is_one_fault,
	"S0.6 2.8 a write to what is swapped out is one fault, and no question to the store")
{
	struct mkw_stat before, after;
	struct swapping s;

	swapping_open(&s, 8, 64, 0, false);
	page_write(s.view, 3, 1);
	CHECK_EQ(mkw_advise(s.view, 8 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&s.rig).swapped_bytes, PAGE);
	before = rig_stat(&s.rig);
	*rig_word(s.view, 3) = 77;
	after = rig_stat(&s.rig);
	CHECK_EQ(after.write_faults, before.write_faults + 1);
	CHECK_EQ(after.read_faults, before.read_faults);
	CHECK_EQ(after.swap_ins, before.swap_ins + 1);
	CHECK_EQ(after.fills, before.fills);
	CHECK_EQ(after.notifications, 0);
	*rig_word(s.view, 3) = 3ull << 32 ^ 1u << 16;
	CHECK_EQ(rig_stat(&s.rig).write_faults, after.write_faults);
	page_check(s.view, 3, 1);
	swapping_close(&s);
}

TEST_EACH_BACKEND(i6_read_is_one_fault,
		  "I6 2.8 what a read brings back is the view's own: the next write is no fault")
{
	struct mkw_stat before;
	struct swapping s;

	swapping_open(&s, 8, 64, 0, false);
	page_write(s.view, 3, 1);
	CHECK_EQ(mkw_advise(s.view, 8 * PAGE, MKW_PAGEOUT), 0);
	before = rig_stat(&s.rig);
	page_check(s.view, 3, 1);
	page_write(s.view, 3, 2);
	CHECK_EQ(rig_stat(&s.rig).read_faults, before.read_faults + 1);
	CHECK_EQ(rig_stat(&s.rig).write_faults, before.write_faults);
	CHECK_EQ(rig_stat(&s.rig).swapped_bytes, 0);
	page_check(s.view, 3, 2);
	swapping_close(&s);
}

TEST_EACH_BACKEND(two_views, "2.8 I6 two private views of one object: each has its own back")
{
	struct swapping s;
	unsigned char *other;

	swapping_open(&s, 64, 24, 0, false);
	other = private_view(&s.rig);
	for (uint64_t i = 0; i < 64; i++) {
		page_write(s.view, i, 1);
		page_write(other, 63 - i, 2);
	}
	for (uint64_t i = 0; i < 64; i++) {
		page_check(s.view, i, 1);
		page_check(other, i, 2);
	}
	CHECK(rig_space_stat(&s.rig).resident_peak_bytes <= 24 * PAGE);
	CHECK_EQ(mkw_unmap(other, 64 * PAGE), 0);
	for (uint64_t i = 0; i < 64; i++)
		page_check(s.view, i, 1);
	CHECK_EQ(rig_stored_word(&s.rig, 5), 0);
	swapping_close(&s);
}

TEST_EACH_BACKEND(of_a_file, "2.8 a private view of a file: swapped, whole, and the file as it was")
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.resident_limit_bytes = 16 * PAGE,
		.swap_path = "/tmp",
	};
	char path[RIG_PATH_MAX], uri[RIG_PATH_MAX + 8];
	unsigned char *before = malloc(64 * PAGE), *after = malloc(64 * PAGE);
	struct mkw_handle *handle;
	struct mkw_space *space;
	void *view;

	rig_file_make(path, 64 * PAGE);
	snprintf(uri, sizeof(uri), "file:%s", path);
	REQUIRE_EQ(mkw_space_create(&options, &space), 0);
	REQUIRE_EQ(mkw_open(space, uri, MKW_RDONLY, &handle), 0);
	REQUIRE_EQ(mkw_map(handle, 64 * PAGE, MKW_WRITE, MKW_PRIVATE | test_map_flags(), 0, &view),
		   0);
	CHECK_EQ(mkw_pread(handle, before, 64 * PAGE, 0), 64 * (ssize_t)PAGE);
	for (uint64_t i = 0; i < 64; i += 2)
		page_write(view, i, 1);
	for (uint64_t i = 0; i < 64; i++) {
		if (i % 2 == 0)
			page_check(view, i, 1);
		else
			CHECK_MEM((unsigned char *)view + i * PAGE, before + i * PAGE, PAGE);
	}
	CHECK_EQ(mkw_pread(handle, after, 64 * PAGE, 0), 64 * (ssize_t)PAGE);
	CHECK_MEM(before, after, 64 * PAGE);
	CHECK_EQ(mkw_unmap(view, 64 * PAGE), 0);
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	rig_file_remove(path);
	free(before);
	free(after);
}

/* ---- Giving up what is swapped --------------------------------------------------------------- */

TEST_EACH_BACKEND(r5_1_truncate, "5.1 truncation takes swapped copies beyond the new size")
{
	struct swapping s;

	swapping_open(&s, 16, 0, 0, false);
	for (uint64_t i = 0; i < 16; i++)
		page_write(s.view, i, 1);
	CHECK_EQ(mkw_advise(s.view, 16 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&s.rig).swapped_bytes, 16 * PAGE);
	CHECK_EQ(mkw_truncate(s.rig.handle, 5 * PAGE), 0);
	CHECK_EQ(rig_stat(&s.rig).swapped_bytes, 5 * PAGE);
	CHECK_EQ(mkw_truncate(s.rig.handle, 16 * PAGE), 0);
	for (uint64_t i = 0; i < 5; i++)
		page_check(s.view, i, 1);
	for (uint64_t i = 5; i < 16; i++)
		CHECK_EQ(*rig_word(s.view, i), 0);
	swapping_close(&s);
}

TEST_EACH_BACKEND(dontneed, "2.8 MKW_DONTNEED and MKW_FREE drop copies, also from the swap file")
{
	struct swapping s;

	swapping_open(&s, 16, 0, 0, false);
	for (uint64_t i = 0; i < 16; i++)
		page_write(s.view, i, 1);
	CHECK_EQ(mkw_advise(s.view, 8 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(mkw_advise(s.view + 2 * PAGE, 3 * PAGE, MKW_DONTNEED), 0);
	CHECK_EQ(rig_stat(&s.rig).swapped_bytes, 5 * PAGE);
	CHECK_EQ(mkw_advise(s.view + 5 * PAGE, 6 * PAGE, MKW_FREE), 0);
	CHECK_EQ(rig_stat(&s.rig).swapped_bytes, 2 * PAGE);
	CHECK_EQ(rig_stat(&s.rig).private_bytes, 5 * PAGE);
	for (uint64_t i = 0; i < 16; i++)
		if (i >= 2 && i < 11)
			CHECK_EQ(*rig_word(s.view, i), 0);
		else
			page_check(s.view, i, 1);
	swapping_close(&s);
}

/* ---- A full swap file ------------------------------------------------------------------------ */

/* Write pages until one is refused. Returns how many were written. */
static uint64_t write_until_refused(struct swapping *s, struct mkw_refusal *refusal)
{
	for (uint64_t i = 0; i < s->rig.pages; i++) {
		if (try_write(s->view + i * PAGE, 1, refusal) != 0)
			return i;
		page_write(s->view, i, 1);
	}
	return s->rig.pages;
}

TEST_EACH_BACKEND(full_limit,
		  "2.8 a full swap file refuses the next page with a reason, and loses nothing")
{
	struct mkw_refusal refusal;
	struct swapping s;
	uint64_t written;

	swapping_open(&s, 256, 32, 32, false);
	written = write_until_refused(&s, &refusal);
	CHECK(written >= 48 && written <= 64);
	CHECK_EQ(refusal.error, -ENOSPC);
	CHECK(strstr(refusal.message, "swap file is full") != NULL);
	CHECK(refusal.address == s.view + written * PAGE);
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t i = 0; i < written; i++)
			if (!page_check(s.view, i * 37 % written, 1))
				round = 3;
	CHECK(rig_space_stat(&s.rig).resident_peak_bytes <= 32 * PAGE);
	CHECK(rig_space_stat(&s.rig).swapped_bytes <= 32 * PAGE);
	/* Room for it, and it goes on. */
	CHECK_EQ(mkw_advise(s.view, 8 * PAGE, MKW_DONTNEED), 0);
	for (uint64_t i = written; i < written + 4; i++)
		page_write(s.view, i, 1);
	for (uint64_t i = 8; i < written + 4; i++)
		page_check(s.view, i, 1);
	swapping_close(&s);
}

TEST_EACH_BACKEND(
	full_locked,
	"2.8 memory and swap file full, the object's pages locked: what is there is read back")
{
	struct swapping s;
	uint64_t written;
	unsigned refused = 0;
	void *locked;

	swapping_open(&s, 256, 32, 16, false);
	REQUIRE_EQ(mkw_map(s.rig.handle, 8 * PAGE, MKW_READ, MKW_LOCKED | test_map_flags(),
			   248 * PAGE, &locked),
		   0);
	written = write_until_refused(&s, &(struct mkw_refusal){.error = 0});
	CHECK(written >= 24 && written < 40);
	for (uint64_t i = 248; i < 256; i++)
		refused += try_write(s.view + i * PAGE, 1, NULL) == -ENOSPC;
	CHECK(refused > 0);
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t i = 0; i < written; i++)
			if (!page_check(s.view, i * 37 % written, 1))
				round = 3;
	CHECK_EQ(mkw_unmap(locked, 8 * PAGE), 0);
	swapping_close(&s);
}

/* A file system that is full, really. */
static void tiny_mount(const char *path, const char *size)
{
	char options[32];

	snprintf(options, sizeof(options), "size=%s", size);
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", path, "tmpfs", 0, options) != 0)
		SKIP("a tmpfs cannot be mounted: %s", strerror(errno));
}

static void swapping_open_in(struct swapping *s, const char *path, uint64_t pages,
			     uint64_t resident_pages)
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.resident_limit_bytes = resident_pages * PAGE,
		.swap_path = path,
	};

	rig_open(&s->rig, &options, pages, MKW_RDWR);
	s->view = private_view(&s->rig);
	CHECK_EQ(mkw_advise(s->view, pages * PAGE, MKW_RANDOM), 0);
}

TEST_EACH_BACKEND(full_file_system,
		  "2.8 a swap file on a file system that is full: a reason, and nothing lost")
{
	struct mkw_refusal refusal;
	struct swapping s;
	uint64_t written;

	REQUIRE(mkdtemp(directory) != NULL);
	tiny_mount(directory, "64k");
	swapping_open_in(&s, directory, 256, 32);
	written = write_until_refused(&s, &refusal);
	CHECK(written >= 32 && written <= 48);
	CHECK_EQ(refusal.error, -ENOSPC);
	CHECK(strstr(refusal.message, "swap file is full") != NULL);
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t i = 0; i < written; i++)
			if (!page_check(s.view, i * 37 % written, 1))
				round = 3;
	CHECK(rig_space_stat(&s.rig).resident_peak_bytes <= 32 * PAGE);
	swapping_close(&s);
	CHECK_EQ(umount(directory), 0);
	CHECK_EQ(rmdir(directory), 0);
}

/* The descriptor of the one file below /tmp that has no name any more. */
static int swap_descriptor(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	REQUIRE(dir != NULL);
	while ((entry = readdir(dir)) != NULL) {
		char target[256] = "";

		if (readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1) > 0 &&
		    strncmp(target, "/tmp/", 5) == 0 && strstr(target, "(deleted)") != NULL)
			found = atoi(entry->d_name);
	}
	closedir(dir);
	REQUIRE(found >= 0);
	return found;
}

TEST_EACH_BACKEND(read_error,
		  "2.8 a page that cannot be read back: EIO and why, to who wants that page alone")
{
	struct mkw_refusal refusal;
	struct swapping s;

	swapping_open(&s, 16, 0, 0, true);
	for (uint64_t i = 0; i < 16; i++)
		page_write(s.view, i, 1);
	CHECK_EQ(mkw_advise(s.view, 8 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(rig_stat(&s.rig).swapped_bytes, 8 * PAGE);
	/* Slot 0 is spare; page 3 is in slot 4. */
	REQUIRE_EQ(ftruncate(swap_descriptor(), 4 * (off_t)PAGE), 0);
	for (unsigned round = 0; round < 2; round++) {
		CHECK_EQ(try_read(s.view + 3 * PAGE, &(unsigned char){0}, &refusal), -EIO);
		CHECK(strstr(refusal.message, "swap file") != NULL);
		CHECK_EQ(try_write(s.view + 5 * PAGE, 'x', NULL), -EIO);
	}
	for (uint64_t i = 0; i < 16; i++)
		if (i < 3 || i >= 8)
			page_check(s.view, i, 1);
	CHECK_EQ(rig_stat(&s.rig).swapped_bytes, 5 * PAGE);
	CHECK_EQ(mkw_advise(s.view, 16 * PAGE, MKW_DONTNEED), 0);
	CHECK_EQ(*rig_word(s.view, 5), 0);
	swapping_close(&s);
}

TEST_EACH_BACKEND(no_swap, "2.8 without a swap file copies stay, and what is too much is refused")
{
	const struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 32 * PAGE};
	struct mkw_refusal refusal;
	struct swapping s;
	uint64_t written;

	rig_open(&s.rig, &options, 256, MKW_RDWR);
	s.view = private_view(&s.rig);
	CHECK_EQ(mkw_advise(s.view, 256 * PAGE, MKW_RANDOM), 0);
	written = write_until_refused(&s, &refusal);
	CHECK(written >= 16 && written < 32);
	CHECK_EQ(refusal.error, -ENOMEM);
	for (uint64_t i = 0; i < written; i++)
		page_check(s.view, i, 1);
	CHECK_EQ(mkw_advise(s.view, 256 * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(mkw_advise(s.view, 4 * PAGE, MKW_FREE), 0);
	page_write(s.view, 100, 1);
	page_check(s.view, 100, 1);
	swapping_close(&s);
}

/* ---- Under fire ------------------------------------------------------------------------------ */

/* A thread with pages of its own, of which it knows every word. */
struct owner {
	unsigned char *view;
	uint64_t which, of, pages, rounds, seed;
	struct test_thread thread;
};

#define OWNER_PAGES_MAX 256

static void *owner_run(void *arg)
{
	struct owner *owner = arg;
	uint64_t last[OWNER_PAGES_MAX] = {0}, own = owner->pages / owner->of;

	REQUIRE(own <= OWNER_PAGES_MAX);
	for (uint64_t i = 1; i <= owner->rounds; i++) {
		uint64_t n = rig_random(&owner->seed) % own, page = owner->which + owner->of * n;

		if (last[n] != 0 && !page_check(owner->view, page, last[n]))
			break;
		last[n] = i;
		page_write(owner->view, page, i);
	}
	return NULL;
}

#define OWNERS 4

static void owners_start(struct owner *owners, unsigned char *view, uint64_t pages, unsigned rounds)
{
	for (unsigned i = 0; i < OWNERS; i++) {
		owners[i] = (struct owner){.view = view,
					   .which = i,
					   .of = OWNERS,
					   .pages = pages,
					   .rounds = test_rounds(rounds),
					   .seed = i + 1};
		test_thread_start(&owners[i].thread, owner_run, &owners[i]);
	}
}

static void owners_join(struct owner *owners)
{
	for (unsigned i = 0; i < OWNERS; i++)
		test_thread_join(&owners[i].thread);
}

/* What is charged is what is there. */
static void limit_check(struct swapping *s, uint64_t resident_pages)
{
	struct mkw_stat stat = rig_stat(&s->rig);

	CHECK(stat.resident_peak_bytes <= resident_pages * PAGE);
	CHECK(stat.private_bytes <= stat.resident_bytes);
	CHECK(stat.swap_ins > 0);
	CHECK_EQ(stat.refusals, 0);
	CHECK_EQ(mkw_invalidate(s->rig.handle, 0, 0), 0);
	stat = rig_stat(&s->rig);
	CHECK_EQ(stat.private_bytes, stat.resident_bytes);
}

TEST_EACH_BACKEND(
	hard_limit,
	"2.8 many threads at four times the limit: never a page above it, every word right")
{
	struct owner owners[OWNERS];
	struct swapping s;

	swapping_open(&s, 256, 64, 0, false);
	owners_start(owners, s.view, 256, 2000);
	owners_join(owners);
	limit_check(&s, 64);
	swapping_close(&s);
}

TEST_EACH_BACKEND(hard_limit_object, "2.8 the same with a limit of the object, and streams")
{
	struct owner owners[OWNERS];
	struct swapping s;

	swapping_open(&s, 256, 0, 0, true);
	CHECK_EQ(mkw_set_limits(s.rig.handle, 64 * PAGE, 0), 0);
	owners_start(owners, s.view, 256, 2000);
	owners_join(owners);
	limit_check(&s, 64);
	swapping_close(&s);
}

/* Threads that add to words of two pages, three to a page; the last two share a word. */
static void hammers_against(enum mkw_advice advice)
{
	struct rig_hammer hammers[6];
	struct swapping s;

	swapping_open(&s, 4, 0, 0, false);
	for (unsigned i = 0; i < 6; i++)
		rig_hammer_start(&hammers[i], rig_word(s.view, i / 3) + (i == 5 ? 4 : i));
	for (unsigned i = 0; i < test_rounds(200); i++)
		REQUIRE_EQ(mkw_advise(s.view, 4 * PAGE, advice), 0);
	for (unsigned i = 0; i < 6; i++)
		rig_hammer_stop(&hammers[i]);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(*hammers[i].word, hammers[i].done);
	CHECK_EQ(*hammers[4].word, hammers[4].done + hammers[5].done);
	/* What was copied is known: two pages, and no more. */
	CHECK_EQ(mkw_advise(s.view, 4 * PAGE, MKW_COLD), 0);
	CHECK_EQ(rig_stat(&s.rig).private_bytes, 2 * PAGE);
	swapping_close(&s);
}

TEST_EACH_BACKEND(
	s3_4_swap_against_writers,
	"S3.4 pages swapped out in a loop against their writers: no write is lost or doubled")
{
	hammers_against(MKW_PAGEOUT);
}

TEST_EACH_BACKEND(
	s3_2_reuse_decided_anew,
	"S3.2 whether a page may be written in place is asked again and again: data is right")
{
	hammers_against(MKW_COLD);
}

static void *truncate_run(void *arg)
{
	struct swapping *s = arg;

	for (unsigned i = 0; i < test_rounds(200); i++) {
		CHECK_EQ(mkw_truncate(s->rig.handle, 128 * PAGE + 17), 0);
		CHECK_EQ(mkw_truncate(s->rig.handle, 256 * PAGE), 0);
	}
	return NULL;
}

TEST_EACH_BACKEND(truncate_under_fire, "5.1 S3.4 truncation while pages are swapped out and in")
{
	struct owner owners[OWNERS];
	struct test_thread thread;
	struct swapping s;

	swapping_open(&s, 256, 48, 0, false);
	owners_start(owners, s.view, 128, 500);
	test_thread_start(&thread, truncate_run, &s);
	for (unsigned i = 0; i < test_rounds(2000); i++)
		(void)try_write(s.view + (128 + i % 128) * PAGE, 'x', NULL);
	test_thread_join(&thread);
	owners_join(owners);
	CHECK(rig_space_stat(&s.rig).resident_peak_bytes <= 48 * PAGE);
	swapping_close(&s);
}

static void *pageout_run(void *arg)
{
	struct swapping *s = arg;

	for (unsigned i = 0; i < test_rounds(1000); i++)
		REQUIRE_EQ(mkw_advise(s->view, 32 * PAGE, MKW_PAGEOUT), 0);
	return NULL;
}

TEST_EACH_BACKEND(drop_under_fire,
		  "2.8 S3.4 pages dropped and cut off while they are swapped out and in")
{
	struct test_thread thread;
	struct swapping s;

	swapping_open(&s, 64, 0, 0, false);
	test_thread_start(&thread, pageout_run, &s);
	for (unsigned i = 1; i < test_rounds(300); i++) {
		for (uint64_t page = 0; page < 32; page++)
			*rig_word(s.view, page) = i;
		CHECK_EQ(mkw_advise(s.view + 8 * PAGE, 8 * PAGE, MKW_DONTNEED), 0);
		CHECK_EQ(mkw_truncate(s.rig.handle, 24 * PAGE), 0);
		CHECK_EQ(mkw_truncate(s.rig.handle, 64 * PAGE), 0);
		for (uint64_t page = 0; page < 32; page++)
			CHECK_EQ(*rig_word(s.view, page),
				 (page >= 8 && page < 16) || page >= 24 ? 0 : i);
	}
	test_thread_join(&thread);
	swapping_close(&s);
}

TEST_EACH_BACKEND(unmap_under_fire, "2.8 views come and go while others are swapped")
{
	struct owner owners[OWNERS];
	struct swapping s;

	swapping_open(&s, 256, 64, 0, false);
	owners_start(owners, s.view, 256, 500);
	for (unsigned i = 0; i < test_rounds(20); i++) {
		unsigned char *view = private_view(&s.rig);

		for (uint64_t page = 0; page < 100; page++)
			*rig_word(view, page) = page;
		for (uint64_t page = 0; page < 100; page += 7)
			CHECK_EQ(*rig_word(view, page), page);
		CHECK_EQ(mkw_unmap(view, 256 * PAGE), 0);
	}
	owners_join(owners);
	CHECK(rig_space_stat(&s.rig).resident_peak_bytes <= 64 * PAGE);
	swapping_close(&s);
}

#define DIRECT_PAGES 64u

struct direct_reader {
	unsigned char *view;
	int fds[2];
	unsigned rounds;
	struct test_thread thread;
};

/* One of two files into the view, whose pages are new to the call each time. */
static void *direct_run(void *arg)
{
	struct direct_reader *reader = arg;

	for (unsigned i = 0; i < reader->rounds; i++) {
		REQUIRE_EQ(mkw_advise(reader->view, DIRECT_PAGES * PAGE, MKW_DONTNEED), 0);
		REQUIRE_EQ(pread(reader->fds[i % 2], reader->view, DIRECT_PAGES * PAGE, 0),
			   DIRECT_PAGES * PAGE);
		for (size_t at = 0; at < DIRECT_PAGES * PAGE; at += 512)
			if (!CHECK_EQ(reader->view[at], i % 2 + 1))
				return NULL;
	}
	return NULL;
}

TEST(direct_read, "2.8 an O_DIRECT read into private pages is there in whole, although they are "
		  "swapped out at any time")
{
	static unsigned char bytes[DIRECT_PAGES * MKW_PAGE_SIZE]
		__attribute__((aligned(MKW_PAGE_SIZE)));
	struct direct_reader reader = {.rounds = test_rounds(100)};
	char paths[2][RIG_PATH_MAX];
	struct swapping s;

	for (int i = 0; i < 2; i++) {
		rig_file_make(paths[i], 0);
		reader.fds[i] = open(paths[i], O_RDWR | O_DIRECT | O_CLOEXEC);
		memset(bytes, i + 1, sizeof(bytes));
		if (reader.fds[i] < 0 ||
		    write(reader.fds[i], bytes, sizeof(bytes)) != sizeof(bytes))
			SKIP("/tmp has no O_DIRECT: %s", strerror(errno));
	}
	swapping_open(&s, DIRECT_PAGES, 0, 0, true);
	reader.view = s.view;
	test_thread_start(&reader.thread, direct_run, &reader);
	while (!atomic_load(&reader.thread.ended)) {
		/* Which takes no page from a call that is at it. */
		CHECK_EQ(mkw_advise(s.view, DIRECT_PAGES * PAGE, MKW_WILLNEED), 0);
		CHECK_EQ(mkw_advise(s.view, DIRECT_PAGES * PAGE, MKW_PAGEOUT), 0);
	}
	test_thread_join(&reader.thread);
	for (int i = 0; i < 2; i++) {
		close(reader.fds[i]);
		rig_file_remove(paths[i]);
	}
	swapping_close(&s);
}

TEST_EACH_BACKEND(
	dropped_behind,
	"2.8 pages dropped by a plain madvise while they are swapped out: nobody waits for ever")
{
	struct swapping s;

	swapping_open(&s, 64, 16, 0, false);
	for (unsigned i = 0; i < test_rounds(2000); i++) {
		*rig_word(s.view, i * 7 % 64) = i + 1;
		if (i % 5 == 0)
			CHECK_EQ(madvise(s.view, 64 * PAGE, MADV_DONTNEED), 0);
	}
	CHECK(rig_space_stat(&s.rig).resident_peak_bytes <= 16 * PAGE);
	swapping_close(&s);
}
