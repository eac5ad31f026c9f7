/* SPDX-License-Identifier: MIT */
/*
 * reserve.c - space for holes, reserved ahead and given back: on real file systems.
 *
 * A subject is a sparse file as a program would have it, mapped, with the program's side (struct
 * reserve) and the supervisor's (the ledger). page_write does what the library does for a first
 * write: it asks, then stores. The store is the kernel's own affair: where it refuses, the SIGBUS
 * is caught and handed on as `broken`.
 */
#include "run/reserve.h"

#include "harness/test.h"
#include "run/ledger.h"
#include "run/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096ull
#define MIB   (1ull << 20)
#define PIECE MIB
#define POSTS 65536u

struct post {
	enum run_event_kind kind;
	uint64_t offset, length;
};

struct posts {
	_Atomic uint32_t count, says;
	struct post all[POSTS];
};

struct subject {
	char path[100];
	int fd;
	uint64_t bytes;
	unsigned char *map;
	struct reserve reserve;
	struct posts *posts; /* shared with children */
	uint32_t taken;	     /* by the ledger */
	struct run_control *control;
	struct ledger *ledger;
	struct ledger_file result;
	unsigned reports;
};

static void on_post(void *arg, enum run_event_kind kind, uint64_t offset, uint64_t length)
{
	struct posts *posts = arg;

	if (kind == RUN_EVENT_SAY) {
		atomic_fetch_add(&posts->says, 1);
		return;
	}
	uint32_t at = atomic_fetch_add(&posts->count, 1);

	if (at < POSTS)
		posts->all[at] = (struct post){kind, offset, length};
}

static void subject_map(struct subject *s)
{
	s->map = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	REQUIRE(s->map != MAP_FAILED);
}

static void subject_open(struct subject *s, const char *name, uint64_t bytes, uint64_t piece)
{
	struct stat st;

	memset(s, 0, sizeof(*s));
	snprintf(s->path, sizeof(s->path), VOLUME_AT "/%s", name);
	s->fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	s->bytes = bytes;
	REQUIRE(s->fd >= 0);
	REQUIRE_EQ(ftruncate(s->fd, (off_t)bytes), 0);
	subject_map(s);
	s->posts = mmap(NULL, sizeof(*s->posts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	REQUIRE(s->posts != MAP_FAILED);
	s->control = calloc(1, sizeof(*s->control));
	s->ledger = ledger_create();
	REQUIRE(s->control && s->ledger);
	REQUIRE_EQ(reserve_init(&s->reserve, s->fd, piece, on_post, s->posts), 0);
	REQUIRE_EQ(fstat(s->fd, &st), 0);
	s->control->files[0].dev = st.st_dev;
	s->control->files[0].ino = st.st_ino;
	strcpy(s->control->files[0].path, s->path);
	atomic_store(&s->control->files[0].state, RUN_FILE_THERE);
}

static void subject_unmap(struct subject *s)
{
	if (s->map)
		munmap(s->map, s->bytes);
	s->map = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

static void subject_close(struct subject *s)
{
	subject_unmap(s);
	munmap(s->posts, sizeof(*s->posts));
	ledger_destroy(s->ledger);
	free(s->control);
}

static void on_report(void *arg, const struct ledger_file *file)
{
	struct subject *s = arg;

	s->result = *file;
	s->reports++;
}

/* What the posts say goes into the ledger. */
static void subject_drain(struct subject *s)
{
	uint32_t count = atomic_load(&s->posts->count);

	REQUIRE(count <= POSTS);
	for (; s->taken < count; s->taken++) {
		const struct post *post = &s->posts->all[s->taken];
		struct run_event event = {.kind = (uint16_t)post->kind,
					  .offset = post->offset,
					  .length = post->length};

		REQUIRE_EQ(ledger_event(s->ledger, s->control, &event), 0);
	}
}

static int subject_give_back(struct subject *s)
{
	subject_drain(s);
	memset(&s->result, 0, sizeof(s->result));
	s->reports = 0;
	ledger_give_back(s->ledger, on_report, s);
	return s->reports ? s->result.error : 0;
}

/* ---- Writing ------------------------------------------------------------------------------ */

static _Thread_local sigjmp_buf refused;

static void on_bus(int signo)
{
	(void)signo;
	siglongjmp(refused, 1);
}

static bool store_word(unsigned char *at, uint64_t value)
{
	struct sigaction action = {.sa_handler = on_bus}, before;
	bool stored = false;

	sigaction(SIGBUS, &action, &before);
	if (!sigsetjmp(refused, 1)) {
		*(volatile uint64_t *)(void *)at = value;
		stored = true;
	}
	sigaction(SIGBUS, &before, NULL);
	return stored;
}

static uint64_t word_of(uint64_t page)
{
	return (page + 1) * 0x9e3779b97f4a7c15ull;
}

/* 0 or what the write was refused with. */
static int page_write(struct subject *s, uint64_t page)
{
	bool broken = false;

	for (;;) {
		int error = reserve_run(&s->reserve, page * PAGE, PAGE, broken);

		if (error)
			return error;
		if (store_word(s->map + page * PAGE, word_of(page)))
			return 0;
		broken = true;
	}
}

static uint64_t word_read(const char *path, uint64_t page)
{
	uint64_t word = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(pread(fd, &word, sizeof(word), (off_t)(page * PAGE)), sizeof(word));
	close(fd);
	return word;
}

/* ---- Looking ------------------------------------------------------------------------------ */

/* Bytes that the file has space for. */
static uint64_t bytes_used(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(fsync(fd), 0);
	REQUIRE_EQ(fstat(fd, &st), 0);
	close(fd);
	return (uint64_t)st.st_blocks * 512;
}

/* Bytes of [start, end) that have extents, written or not. Not on tmpfs. */
static uint64_t bytes_mapped(const char *path, uint64_t start, uint64_t end)
{
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
	} u;
	uint64_t bytes = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	while (start < end) {
		memset(&u, 0, sizeof(u));
		u.map.fm_start = start;
		u.map.fm_length = end - start;
		u.map.fm_flags = FIEMAP_FLAG_SYNC;
		u.map.fm_extent_count = 1;
		REQUIRE_EQ(ioctl(fd, FS_IOC_FIEMAP, &u.map), 0);
		if (!u.map.fm_mapped_extents)
			break;
		uint64_t from = u.map.fm_extents[0].fe_logical;
		uint64_t stop = from + u.map.fm_extents[0].fe_length;

		from = from > start ? from : start;
		stop = stop < end ? stop : end;
		bytes += stop - from;
		start = stop;
	}
	close(fd);
	return bytes;
}

/* ---- Sparse files ------------------------------------------------------------------------- */

#define SPARSE_PAGES (64 * MIB / PAGE)

static bool sparse_written(uint64_t page)
{
	if (page < 2048)
		return page % 37 == 0;
	if (page < 4096)
		return page >= 2500 && page < 3100;
	return page % 611 < 3 || page == SPARSE_PAGES - 1;
}

static void sparse_write_natively(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	unsigned char *map;

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, SPARSE_PAGES * PAGE - 100), 0);
	map = mmap(NULL, SPARSE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(map != MAP_FAILED);
	for (uint64_t page = 0; page < SPARSE_PAGES; page++)
		if (sparse_written(page))
			REQUIRE(store_word(map + page * PAGE, word_of(page)));
	munmap(map, SPARSE_PAGES * PAGE);
	close(fd);
}

static void check_sparse(struct subject *s, bool extents)
{
	uint64_t native = bytes_used(VOLUME_AT "/native"), used = bytes_used(s->path);

	for (uint64_t page = 0; page < SPARSE_PAGES; page++)
		if (!CHECK_EQ(word_read(s->path, page), sparse_written(page) ? word_of(page) : 0))
			break;
	test_note("native %llu, here %llu bytes", (unsigned long long)native,
		  (unsigned long long)used);
	if (extents)
		CHECK_EQ(bytes_mapped(s->path, 0, s->bytes),
			 bytes_mapped(VOLUME_AT "/native", 0, s->bytes));
	/* The tree of extents may be a few blocks larger. */
	CHECK(used >= native && used <= native + 16 * PAGE);
}

static void sparse(enum volume_kind kind)
{
	struct subject s;
	struct timespec before;
	struct stat st;

	volume_mount(kind, 2048 * MIB);
	sparse_write_natively(VOLUME_AT "/native");
	subject_open(&s, "file", SPARSE_PAGES * PAGE - 100, PIECE);
	for (uint64_t page = 0; page < SPARSE_PAGES; page++)
		if (sparse_written(page))
			REQUIRE_EQ(page_write(&s, page), 0);
	/* 63 pieces at most, a page or two after them were asked for. */
	CHECK(atomic_load(&s.posts->count) <= 3 * 64);
	CHECK(bytes_used(s.path) >= 28 * MIB);
	subject_unmap(&s);
	REQUIRE_EQ(stat(s.path, &st), 0);
	before = st.st_mtim;
	REQUIRE_EQ(subject_give_back(&s), 0);
	CHECK_EQ(s.reports, 1);
	CHECK_EQ(s.result.left_bytes, 0);
	CHECK(s.result.returned_bytes >= 25 * MIB);
	check_sparse(&s, kind != VOLUME_TMPFS);
	REQUIRE_EQ(stat(s.path, &st), 0);
	CHECK(st.st_mtim.tv_sec == before.tv_sec && st.st_mtim.tv_nsec == before.tv_nsec);
	CHECK_EQ(st.st_size, SPARSE_PAGES * PAGE - 100);
	subject_close(&s);
}

TEST(sparse_ext4, "a file is as sparse afterwards as it would have been")
{
	sparse(VOLUME_EXT4);
}

TEST(sparse_xfs, "a file is as sparse afterwards as it would have been")
{
	sparse(VOLUME_XFS);
}

TEST(sparse_btrfs, "a file is as sparse afterwards as it would have been")
{
	sparse(VOLUME_BTRFS);
}

TEST(sparse_tmpfs, "a file is as sparse afterwards as it would have been")
{
	sparse(VOLUME_TMPFS);
}
