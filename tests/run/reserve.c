/* SPDX-License-Identifier: MIT */
/* reserve.c - space for holes that are about to be written, on real file systems (subject.h). */
#include "run/fail.h"
#include "run/subject.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Pieces ------------------------------------------------------------------------------- */

TEST(pieces, "a run in a piece that was reserved costs no system call; the end of the file is one")
{
	struct subject s;
	const struct post *post;

	volume_mount(VOLUME_EXT4, VOLUME_BYTES);
	subject_open(&s, "file", 4 * MIB + 5000, PIECE);
	post = s.posts->all;
	REQUIRE_EQ(page_write(&s, 300), 0);
	REQUIRE_EQ(page_write(&s, 1025), 0);
	CHECK_EQ(atomic_load(&s.posts->count), 4);
	CHECK(post[0].offset == 300 * PAGE && post[0].length == 2 * MIB - 300 * PAGE);
	CHECK(post[1].offset == MIB && post[1].length == 44 * PAGE);
	CHECK(post[2].offset == 1025 * PAGE && post[2].length == PAGE);
	CHECK(post[3].offset == 4 * MIB && post[3].length == PAGE);
	/* Without a descriptor nothing can be done that is not known. */
	atomic_store(&s.reserve.fd, -1);
	CHECK_EQ(reserve_run(&s.reserve, MIB, MIB, false), 0);
	CHECK_EQ(reserve_run(&s.reserve, 4 * MIB, 2 * PAGE, false), 0);
	CHECK_EQ(reserve_run(&s.reserve, MIB, MIB + PAGE, false), -EBADF);
	CHECK_EQ(reserve_run(&s.reserve, MIB, PAGE, true), -EBADF);
	reserve_forget(&s.reserve, 2 * MIB - 1, 1);
	CHECK_EQ(reserve_run(&s.reserve, MIB, PAGE, false), -EBADF);
	reserve_forget(&s.reserve, 4 * MIB, 1);
	CHECK_EQ(reserve_run(&s.reserve, 4 * MIB, PAGE, false), -EBADF);
	atomic_store(&s.reserve.fd, s.fd);
	CHECK_EQ(reserve_run(&s.reserve, MIB, MIB, false), 0);
	CHECK_EQ(atomic_load(&s.posts->count), 4);
	CHECK_EQ(reserve_run(&s.reserve, 4 * MIB + 2 * PAGE, PAGE, false), -ENXIO);
	subject_close(&s);
}

TEST(pieces_off, "without a size of pieces just the run gets space")
{
	struct subject s;

	volume_mount(VOLUME_EXT4, VOLUME_BYTES);
	subject_open(&s, "file", 4 * MIB, 0);
	REQUIRE_EQ(reserve_run(&s.reserve, 7 * PAGE, 9 * PAGE, false), 0);
	CHECK_EQ(atomic_load(&s.posts->count), 1);
	CHECK_EQ(bytes_mapped(s.path, 0, s.bytes), 9 * PAGE);
	subject_close(&s);
}

TEST(descriptor_reused, "a descriptor that is another file by now is not touched")
{
	struct subject s;
	struct stat st;
	int other;

	volume_mount(VOLUME_EXT4, VOLUME_BYTES);
	subject_open(&s, "file", 4 * MIB, PIECE);
	other = open(VOLUME_AT "/other", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	REQUIRE(other >= 0);
	REQUIRE_EQ(ftruncate(other, 4 * MIB), 0);
	REQUIRE_EQ(dup3(other, s.fd, O_CLOEXEC), s.fd);
	CHECK_EQ(reserve_run(&s.reserve, 0, PAGE, false), -EBADF);
	REQUIRE_EQ(fstat(other, &st), 0);
	CHECK_EQ(st.st_blocks, 0);
	close(other);
	subject_close(&s);
}

TEST(unlimited, "memory without a bound needs no reserving")
{
	struct reserve r;
	struct posts *posts = calloc(1, sizeof(*posts));
	int fd = memfd_create("memory", MFD_CLOEXEC);

	REQUIRE(fd >= 0 && posts);
	REQUIRE_EQ(ftruncate(fd, 4 * MIB), 0);
	REQUIRE_EQ(reserve_init(&r, fd, PIECE, subject_post, posts), 0);
	CHECK_EQ(reserve_run(&r, 0, MIB, false), 0);
	CHECK_EQ(reserve_run(&r, 4 * MIB, PAGE, false), -ENXIO);
	CHECK_EQ(atomic_load(&posts->count), 0);
	close(fd);
	free(posts);
}

/* ---- Full disks --------------------------------------------------------------------------- */

#define FULL_BYTES (64 * MIB)
#define FULL_PAGES (FULL_BYTES / PAGE)
#define FULL_LEAVE (24 * MIB)

/* How many pages can be written without us, in this order, before the kernel refuses. */
static uint64_t full_native(uint64_t step)
{
	int fd = open(VOLUME_AT "/native", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	unsigned char *map;
	uint64_t written = 0;

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, FULL_BYTES), 0);
	map = mmap(NULL, FULL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(map != MAP_FAILED);
	while (written < FULL_PAGES &&
	       store_word(map + written * step % FULL_PAGES * PAGE, written))
		written++;
	munmap(map, FULL_BYTES);
	close(fd);
	REQUIRE_EQ(unlink(VOLUME_AT "/native"), 0);
	sync();
	return written;
}

static void full_run(enum volume_kind kind, uint64_t step)
{
	struct subject s;
	uint64_t native, written = 0;
	int error = 0;

	volume_mount(kind, VOLUME_BYTES);
	volume_fill(FULL_LEAVE);
	native = full_native(step);
	subject_open(&s, "file", FULL_BYTES, PIECE);
	for (; !error && written < FULL_PAGES; written += !error)
		error = page_write(&s, written * step % FULL_PAGES);
	test_note("native %llu pages, here %llu, %u times broken", (unsigned long long)native,
		  (unsigned long long)written, s.broken);
	REQUIRE_EQ(error, -ENOSPC);
	CHECK_EQ(page_write(&s, written * step % FULL_PAGES), -ENOSPC);
	/* But what is reserved ahead, and the last folio, which may be large or small. */
	CHECK(written + (FULL_LEAVE / 16 + 2 * MIB) / PAGE >= native);
	volume_drain();
	for (; written < FULL_PAGES; written++)
		REQUIRE_EQ(page_write(&s, written * step % FULL_PAGES), 0);
	subject_unmap(&s);
	REQUIRE_EQ(subject_give_back(&s), 0);
	for (uint64_t page = 0; page < FULL_PAGES; page++)
		REQUIRE_EQ(word_read(s.path, page), word_of(page));
	subject_close(&s);
}

TEST_EACH_VOLUME(full, "a full disk is an answer, and the last free bytes are used")
{
	full_run(kind, 1);
}

TEST_EACH_VOLUME(full_scattered, "a full disk is an answer when pages are written in any order")
{
	full_run(kind, 2654435761u);
}

TEST(full_quota, "a quota is an answer: EDQUOT")
{
	struct subject s;
	uint64_t page = 0;
	int error = 0;

	volume_mount(VOLUME_BTRFS, VOLUME_BYTES);
	volume_command("command -v btrfs && btrfs quota enable " VOLUME_AT
		       " && btrfs qgroup limit 16M " VOLUME_AT);
	subject_open(&s, "file", FULL_BYTES, PIECE);
	for (; !error && page < FULL_PAGES; page += !error)
		error = page_write(&s, page);
	REQUIRE_EQ(error, -EDQUOT);
	CHECK(page * PAGE >= 14 * MIB && page * PAGE <= 16 * MIB);
	volume_command("btrfs qgroup limit none " VOLUME_AT);
	REQUIRE_EQ(page_write(&s, page), 0);
	subject_close(&s);
}

/* ---- Others meanwhile --------------------------------------------------------------------- */

TEST_EACH_VOLUME(punched,
		 "a hole that another process has made again is seen by the kernel's SIGBUS")
{
	struct subject s;
	uint64_t page = 1;
	int error = 0;

	volume_mount(kind, VOLUME_BYTES);
	subject_open(&s, "file", 8 * MIB, PIECE);
	REQUIRE_EQ(page_write(&s, 0), 0);
	REQUIRE_EQ(fallocate(s.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MIB), 0);
	volume_fill(0);
	/* Known as reserved: the kernel refuses, and why comes out. xfs has a few blocks more for
	 * fallocate than for a write. */
	for (; !error && page < 16; page += !error)
		error = page_write(&s, page);
	CHECK_EQ(error, -ENOSPC);
	CHECK(s.broken > 0);
	s.broken = 0;
	volume_drain();
	CHECK_EQ(reserve_run(&s.reserve, page * PAGE, PAGE, true), 0);
	CHECK_EQ(page_write(&s, page), 0);
	CHECK_EQ(s.broken, 0);
	subject_close(&s);
}

TEST_EACH_VOLUME(cut, "a file that was cut meanwhile, and has grown again")
{
	struct subject s;

	volume_mount(kind, 1024 * MIB);
	subject_open(&s, "file", 8 * MIB, PIECE);
	REQUIRE_EQ(page_write(&s, 600), 0);
	REQUIRE_EQ(ftruncate(s.fd, 2 * MIB), 0);
	CHECK_EQ(page_write(&s, 601), -ENXIO);
	CHECK_EQ(s.broken, 1);
	REQUIRE_EQ(ftruncate(s.fd, 3 * MIB - 10), 0);
	CHECK_EQ(page_write(&s, 602), 0);
	CHECK_EQ(page_write(&s, 767), 0);
	CHECK_EQ(page_write(&s, 768), -ENXIO);
	subject_unmap(&s);
	REQUIRE_EQ(subject_give_back(&s), 0);
	CHECK_EQ(word_read(s.path, 600), 0);
	CHECK_EQ(word_read(s.path, 602), word_of(602));
	/* Two pages, and whatever is beyond them in the block of the second. */
	CHECK(bytes_used(s.path) <= 4 * PAGE);
	subject_close(&s);
}

/* ---- Where nothing can be reserved -------------------------------------------------------- */

TEST(counted, "without fallocate free blocks are counted, and the kernel's SIGBUS is explained")
{
	struct subject s;
	uint64_t page = 0;
	int error = 0;

	volume_mount(VOLUME_EXT2, VOLUME_BYTES);
	volume_fill(FULL_LEAVE);
	subject_open(&s, "file", FULL_BYTES, PIECE);
	for (; !error && page < FULL_PAGES; page += !error)
		error = page_write(&s, page);
	test_note("%llu pages, %u times broken", (unsigned long long)page, s.broken);
	REQUIRE_EQ(error, -ENOSPC);
	CHECK(page * PAGE >= FULL_LEAVE - MIB);
	CHECK_EQ(atomic_load(&s.posts->says), 1);
	CHECK_EQ(atomic_load(&s.posts->count), 1);
	CHECK_EQ(reserve_run(&s.reserve, page * PAGE, PAGE, true), -ENOSPC);
	/* What is there can be written again. */
	CHECK_EQ(page_write(&s, 0), 0);
	volume_drain();
	for (; page < FULL_PAGES; page++)
		REQUIRE_EQ(page_write(&s, page), 0);
	subject_unmap(&s);
	for (page = 0; page < FULL_PAGES; page++)
		REQUIRE_EQ(word_read(s.path, page), word_of(page));
	subject_close(&s);
}

TEST(counted_late, "a file system that takes any write, and fails later, is not given too many")
{
	struct subject s;
	uint64_t page = 0, written;
	int error = 0;

	volume_mount(VOLUME_FUSE, VOLUME_BYTES);
	volume_fill(FULL_LEAVE);
	subject_open(&s, "file", FULL_BYTES, PIECE);
	for (; !error && page < FULL_PAGES; page += !error)
		error = page_write(&s, page);
	REQUIRE_EQ(error, -ENOSPC);
	CHECK(page * PAGE >= FULL_LEAVE - MIB);
	CHECK_EQ(s.broken, 0);
	CHECK_EQ(atomic_load(&s.posts->says), 1);
	REQUIRE_EQ(fsync(s.fd), 0);
	volume_drain();
	written = page;
	for (; page < FULL_PAGES; page++)
		REQUIRE_EQ(page_write(&s, page), 0);
	test_note("%llu pages", (unsigned long long)written);
	REQUIRE_EQ(fsync(s.fd), 0);
	subject_unmap(&s);
	for (page = 0; page < FULL_PAGES; page++)
		REQUIRE_EQ(word_read(s.path, page), word_of(page));
	subject_close(&s);
}

static uint64_t quota_used, quota_limit;
static int quota_type;

static int quota_get(int command, unsigned id, void *quota)
{
	struct if_dqblk *q = quota;

	if ((unsigned)command != QCMD((unsigned)Q_GETQUOTA, (unsigned)quota_type) ||
	    id != (quota_type == USRQUOTA ? 7u : 8u))
		return ESRCH;
	q->dqb_bhardlimit = quota_limit / 1024;
	q->dqb_curspace = quota_used;
	return 0;
}

TEST(counted_quota, "without fallocate quotas are looked at: the owner's and the group's")
{
	struct subject s;

	volume_mount(VOLUME_EXT2, VOLUME_BYTES);
	subject_open(&s, "file", 8 * MIB, PIECE);
	REQUIRE_EQ(fchown(s.fd, 7, 8), 0);
	fail_quotactl = quota_get;
	quota_limit = 3 * PAGE;
	for (quota_type = USRQUOTA; quota_type <= GRPQUOTA; quota_type++) {
		uint64_t first = quota_type == USRQUOTA ? 0 : 100;

		quota_used = PAGE;
		CHECK_EQ(page_write(&s, first), 0);
		CHECK_EQ(page_write(&s, first), 0); /* no hole any more */
		quota_used = 3 * PAGE - 1;
		CHECK_EQ(page_write(&s, first), 0);
		CHECK_EQ(page_write(&s, first + 1), -EDQUOT);
		CHECK_EQ(reserve_run(&s.reserve, first * PAGE, PAGE, true), 0);
	}
	subject_close(&s);
}

TEST(counted_overlay, "without fallocate and FIEMAP what is counted are holes of SEEK_HOLE")
{
	struct subject s;
	uint64_t page = 0;
	int error = 0;

	volume_mount(VOLUME_EXT2, VOLUME_BYTES);
	volume_overlay();
	volume_fill(8 * MIB);
	subject_open(&s, "file", 16 * MIB, PIECE);
	for (; !error && page < 4096; page += !error)
		error = page_write(&s, page);
	test_note("%llu pages, %u times broken", (unsigned long long)page, s.broken);
	CHECK_EQ(error, -ENOSPC);
	CHECK(page * PAGE >= 6 * MIB);
	CHECK_EQ(atomic_load(&s.posts->says), 1);
	CHECK_EQ(page_write(&s, 0), 0);
	subject_close(&s);
}

/* ---- Data that is written elsewhere ------------------------------------------------------- */

static void clone_file(const char *from, const char *to)
{
	int source = open(from, O_RDONLY | O_CLOEXEC);
	int fd = open(to, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	REQUIRE(source >= 0 && fd >= 0);
	REQUIRE_EQ(ioctl(fd, FICLONE, source), 0);
	close(source);
	close(fd);
}

TEST(shared, "extents that another file shares get space of their own, or an answer")
{
	struct subject s;
	uint64_t page = 0;
	int error = 0;

	volume_mount(VOLUME_XFS, VOLUME_BYTES);
	subject_open(&s, "file", 32 * MIB, PIECE);
	for (; page < 32 * MIB / PAGE; page++)
		REQUIRE_EQ(page_write(&s, page), 0);
	clone_file(s.path, VOLUME_AT "/clone");
	volume_fill(8 * MIB);
	for (page = 0; !error && page < 32 * MIB / PAGE; page += !error)
		error = page_write(&s, page);
	test_note("%llu pages, %u times broken", (unsigned long long)page, s.broken);
	REQUIRE_EQ(error, -ENOSPC);
	CHECK(page * PAGE >= 4 * MIB);
	subject_unmap(&s);
	for (page = 0; page < 32 * MIB / PAGE; page++)
		REQUIRE_EQ(word_read(VOLUME_AT "/clone", page), word_of(page));
	subject_close(&s);
}

TEST(copied, "where each write goes to new blocks, a refusal of the kernel's is explained")
{
	struct subject s;
	uint64_t page = 0;
	int error = 0;

	volume_mount(VOLUME_BTRFS, VOLUME_BYTES);
	subject_open(&s, "file", FULL_BYTES, PIECE);
	for (; page < FULL_PAGES; page++)
		REQUIRE_EQ(page_write(&s, page), 0);
	REQUIRE_EQ(fsync(s.fd), 0);
	volume_fill(0);
	for (page = 0; !error && page < FULL_PAGES; page += !error)
		error = page_write(&s, page);
	test_note("%llu pages, %u times broken", (unsigned long long)page, s.broken);
	CHECK_EQ(error, -ENOSPC);
	CHECK(s.broken > 0);
	subject_unmap(&s);
	for (page = 0; page < FULL_PAGES; page++)
		REQUIRE_EQ(word_read(s.path, page), word_of(page));
	subject_close(&s);
}
