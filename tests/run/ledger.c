/* SPDX-License-Identifier: MIT */
/* ledger.c - what was reserved and not used is given back, on real file systems (subject.h). */
#include "run/fail.h"
#include "run/subject.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Pages that were only read are cached afterwards, and clean. */
static void read_all(const unsigned char *map)
{
	for (uint64_t page = 0; page < SPARSE_PAGES; page++)
		(void)*(volatile const unsigned char *)(map + page * PAGE);
}

static void sparse_write_natively(const char *path, bool and_read)
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
	if (and_read)
		read_all(map);
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

static void sparse_run(enum volume_kind kind, bool and_read)
{
	struct subject s;
	struct timespec before;
	struct stat st;

	volume_mount(kind, 2048 * MIB);
	sparse_write_natively(VOLUME_AT "/native", and_read);
	subject_open(&s, "file", SPARSE_PAGES * PAGE - 100, PIECE);
	for (uint64_t page = 0; page < SPARSE_PAGES; page++)
		if (sparse_written(page))
			REQUIRE_EQ(page_write(&s, page), 0);
	/* 63 pieces at most, a page or two after them were asked for. */
	CHECK(atomic_load(&s.posts->count) <= 3 * 64);
	CHECK(bytes_reserved(s.path) >= 28 * MIB);
	if (and_read)
		read_all(s.map);
	subject_unmap(&s);
	REQUIRE_EQ(stat(s.path, &st), 0);
	before = st.st_mtim;
	REQUIRE_EQ(subject_give_back(&s), 0);
	CHECK_EQ(s.reports, 1);
	CHECK_EQ(s.result.left_bytes, 0);
	CHECK(s.result.returned_bytes >= 25 * MIB || (kind == VOLUME_TMPFS && and_read));
	check_sparse(&s, kind != VOLUME_TMPFS);
	REQUIRE_EQ(stat(s.path, &st), 0);
	CHECK(st.st_mtim.tv_sec == before.tv_sec && st.st_mtim.tv_nsec == before.tv_nsec);
	CHECK_EQ(st.st_size, SPARSE_PAGES * PAGE - 100);
	subject_close(&s);
}

TEST_EACH_VOLUME(sparse, "a file is as sparse afterwards as it would have been")
{
	sparse_run(kind, false);
}

TEST_EACH_VOLUME(sparse_read, "pages that were only read are no more allocated than they would be")
{
	sparse_run(kind, true);
}

TEST_EACH_VOLUME(sparse_old, "a kernel that cannot tell dirty pages writes them first")
{
	fail_cachestat = true;
	sparse_run(kind, true);
}

/* ---- What is the program's own ------------------------------------------------------------ */

#define OWN_BYTES (16 * MIB)

/* The program's preallocation: a stretch across pieces, and every second page of a piece. */
static void own_prealloc(int fd)
{
	REQUIRE_EQ(fallocate(fd, FALLOC_FL_KEEP_SIZE, 2 * MIB + 65536, MIB + MIB / 2), 0);
	for (uint64_t at = 5 * MIB; at < 6 * MIB; at += 2 * PAGE)
		REQUIRE_EQ(fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)at, PAGE), 0);
}

/* A page before it, one in it, one of a hole behind it; holes and others of the patchwork. */
static const uint64_t own_pages[] = {512, 600, 1000, 1290, 1295, 1401, 1402, 3000};
#define OWN_PAGES (sizeof(own_pages) / sizeof(*own_pages))

static void own_write_natively(void)
{
	int fd = open(VOLUME_AT "/native", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	unsigned char *map;

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, OWN_BYTES), 0);
	own_prealloc(fd);
	map = mmap(NULL, OWN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(map != MAP_FAILED);
	for (size_t i = 0; i < OWN_PAGES; i++)
		REQUIRE(store_word(map + own_pages[i] * PAGE, word_of(own_pages[i])));
	munmap(map, OWN_BYTES);
	close(fd);
}

static void own_check(struct subject *s, enum volume_kind kind)
{
	for (size_t i = 0; i < OWN_PAGES; i++)
		CHECK_EQ(word_read(s->path, own_pages[i]), word_of(own_pages[i]));
	if (kind == VOLUME_TMPFS)
		CHECK_EQ(bytes_used(s->path), bytes_used(VOLUME_AT "/native"));
	for (uint64_t at = 0; kind != VOLUME_TMPFS && at < OWN_BYTES; at += PAGE)
		if (!CHECK_EQ(bytes_mapped(s->path, at, at + PAGE),
			      bytes_mapped(VOLUME_AT "/native", at, at + PAGE))) {
			test_note("page %llu", (unsigned long long)(at / PAGE));
			break;
		}
}

static void own_run(enum volume_kind kind)
{
	struct subject s;

	volume_mount(kind, 1024 * MIB);
	own_write_natively();
	subject_open(&s, "file", OWN_BYTES, PIECE);
	own_prealloc(s.fd);
	for (size_t i = 0; i < OWN_PAGES; i++)
		REQUIRE_EQ(page_write(&s, own_pages[i]), 0);
	CHECK(bytes_reserved(s.path) >= 4 * MIB);
	subject_unmap(&s);
	REQUIRE_EQ(subject_give_back(&s), 0);
	own_check(&s, kind);
	subject_close(&s);
}

TEST_EACH_VOLUME(own, "what the program has preallocated is never given back")
{
	own_run(kind);
}

TEST(own_old, "nor by a kernel that cannot tell what of tmpfs is reserved")
{
	fail_cachestat = true;
	own_run(VOLUME_TMPFS);
}

/* ---- Processes and threads ------------------------------------------------------------------ */

/* Run fn in a process of its own, which ends by _exit. */
static int in_child(struct subject *s, void (*fn)(struct subject *s, unsigned nth), unsigned nth)
{
	pid_t pid = fork();
	int status = 0;

	REQUIRE(pid >= 0);
	if (!pid) {
		fn(s, nth);
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

/* Pages of the file that lie in the nth third of each group of 24. */
static void write_third(struct subject *s, unsigned nth)
{
	for (uint64_t page = nth * 8; page < s->bytes / PAGE; page += 24)
		for (unsigned i = 0; i < 8; i++)
			if (page_write(s, page + i))
				_exit(1);
}

TEST_EACH_VOLUME(processes, "two processes at once, then as sparse as written")
{
	struct subject s;
	pid_t pids[2];
	int status;

	volume_mount(kind, 1024 * MIB);
	subject_open(&s, "file", 24 * MIB, PIECE);
	for (unsigned i = 0; i < 2; i++) {
		pids[i] = fork();
		REQUIRE(pids[i] >= 0);
		if (!pids[i]) {
			write_third(&s, i);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < 2; i++) {
		REQUIRE_EQ(waitpid(pids[i], &status, 0), pids[i]);
		REQUIRE_EQ(status, 0);
	}
	subject_unmap(&s);
	REQUIRE_EQ(subject_give_back(&s), 0);
	for (uint64_t page = 0; page < s.bytes / PAGE; page++)
		REQUIRE_EQ(word_read(s.path, page), page % 24 < 16 ? word_of(page) : 0);
	test_note("%llu bytes used", (unsigned long long)bytes_used(s.path));
	/* How much is written the kernel decides, by the folio, when it writes back meanwhile. */
	if (kind == VOLUME_TMPFS)
		CHECK(bytes_used(s.path) <= 17 * MIB);
	else
		CHECK_EQ(bytes_unwritten(s.path, 0, s.bytes), 0);
	subject_close(&s);
}

#define THREADS 4u

struct scribe {
	struct subject *subject;
	uint64_t first;
	int error;
	struct test_thread thread;
};

static void *write_share(void *arg)
{
	struct scribe *scribe = arg;
	struct subject *s = scribe->subject;

	for (uint64_t page = scribe->first; page < s->bytes / PAGE; page += 2 * THREADS) {
		scribe->error = reserve_run(&s->reserve, page * PAGE, PAGE, false);
		if (scribe->error)
			break;
		*(volatile uint64_t *)(void *)(s->map + page * PAGE) = word_of(page);
		if (page % 64 == scribe->first)
			reserve_forget(&s->reserve, page * PAGE, PAGE);
	}
	return NULL;
}

TEST_EACH_VOLUME(threads, "threads in the same pieces, which are forgotten all the while")
{
	struct subject s;
	struct scribe scribes[THREADS];

	volume_mount(kind, 1024 * MIB);
	subject_open(&s, "file", 32 * MIB, PIECE);
	pages_alone(&s);
	for (unsigned i = 0; i < THREADS; i++) {
		scribes[i] = (struct scribe){.subject = &s, .first = i};
		test_thread_start(&scribes[i].thread, write_share, &scribes[i]);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		test_thread_join(&scribes[i].thread);
		CHECK_EQ(scribes[i].error, 0);
	}
	subject_unmap(&s);
	REQUIRE_EQ(subject_give_back(&s), 0);
	for (uint64_t page = 0; page < s.bytes / PAGE; page++)
		REQUIRE_EQ(word_read(s.path, page), page % 8 < THREADS ? word_of(page) : 0);
	test_note("%llu bytes used", (unsigned long long)bytes_used(s.path));
	/* Where two met on tmpfs some pages may have been reserved twice: they count as written. */
	CHECK(bytes_used(s.path) <= (kind == VOLUME_TMPFS ? 32 : 17) * MIB);
	subject_close(&s);
}

static void write_and_die(struct subject *s, unsigned nth)
{
	for (uint64_t page = 0; page <= nth; page++)
		if (page_write(s, page * 256))
			_exit(1);
	raise(SIGKILL);
}

static void die_untold(void *arg, enum run_event_kind kind, uint64_t offset, uint64_t length)
{
	(void)arg;
	(void)kind;
	(void)offset;
	(void)length;
	raise(SIGKILL);
}

static void die_told(void *arg, enum run_event_kind kind, uint64_t offset, uint64_t length)
{
	subject_post(arg, kind, offset, length);
	raise(SIGKILL);
}

static void die_in_post(struct subject *s, unsigned nth)
{
	s->reserve.post = nth % 256 ? die_told : die_untold;
	page_write(s, nth);
}

TEST_EACH_VOLUME(killed, "what a process reserved that was killed is given back")
{
	struct subject s;

	volume_mount(kind, 1024 * MIB);
	subject_open(&s, "file", 16 * MIB, PIECE);
	CHECK_EQ(WTERMSIG(in_child(&s, write_and_die, 3)), SIGKILL);
	CHECK_EQ(WTERMSIG(in_child(&s, die_in_post, 10 * 256)), SIGKILL);
	CHECK_EQ(WTERMSIG(in_child(&s, die_in_post, 10 * 256 + 1)), SIGKILL);
	CHECK(bytes_reserved(s.path) >= 4 * MIB);
	subject_unmap(&s);
	REQUIRE_EQ(subject_give_back(&s), 0);
	for (uint64_t page = 0; page <= 3; page++)
		CHECK_EQ(word_read(s.path, page * 256), word_of(page * 256));
	CHECK(bytes_used(s.path) <= 8 * PAGE);
	subject_close(&s);
}

/* ---- Giving back, or not ------------------------------------------------------------------ */

TEST_EACH_VOLUME(open_elsewhere, "nothing is given back while anybody has the file open or mapped")
{
	struct subject s;

	volume_mount(kind, VOLUME_BYTES);
	subject_open(&s, "file", 8 * MIB, PIECE);
	pages_alone(&s);
	REQUIRE_EQ(page_write(&s, 0), 0);
	CHECK_EQ(subject_give_back(&s), -EAGAIN);
	CHECK_EQ(s.result.left_bytes, MIB - PAGE);
	close(s.fd);
	s.fd = -1;
	CHECK_EQ(subject_give_back(&s), -EAGAIN);
	CHECK_EQ(s.result.returned_bytes, 0);
	CHECK(bytes_reserved(s.path) >= MIB);
	s.map[3 * PAGE] = 7;
	subject_unmap(&s);
	CHECK_EQ(subject_give_back(&s), 0);
	CHECK_EQ(s.result.returned_bytes, MIB - 2 * PAGE);
	CHECK_EQ(word_read(s.path, 0), word_of(0));
	CHECK_EQ(word_read(s.path, 3), 7);
	CHECK_EQ(subject_give_back(&s), 0);
	CHECK_EQ(s.reports, 0);
	subject_close(&s);
}

static pid_t opener;
static char opened[PATH_MAX];

/* Somebody opens the file while its holes are punched. */
static void open_meanwhile(int fd)
{
	char path[40];

	fail_before_punch = NULL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	REQUIRE(realpath(path, opened) != NULL);
	opener = fork();
	REQUIRE(opener >= 0);
	if (!opener) {
		close(fd); /* else it would be ours */
		int again = open(opened, O_RDWR | O_CLOEXEC);

		_exit(again < 0 || pwrite(again, "mine", 4, 9 * PAGE) != 4);
	}
	test_wait_until(fcntl(fd, F_GETLEASE) != F_WRLCK);
}

TEST_EACH_VOLUME(opened_meanwhile,
		 "who opens the file waits for one hole, and nothing of his is lost")
{
	struct subject s;
	int status;

	volume_mount(kind, VOLUME_BYTES);
	subject_open(&s, "file", 8 * MIB, PIECE);
	pages_alone(&s);
	for (uint64_t page = 0; page < 256; page += 8)
		REQUIRE_EQ(page_write(&s, page), 0);
	subject_unmap(&s);
	fail_before_punch = open_meanwhile;
	CHECK_EQ(subject_give_back(&s), -EAGAIN);
	CHECK(opener > 0);
	CHECK(s.result.returned_bytes > 0 && s.result.returned_bytes < 8 * PAGE);
	REQUIRE_EQ(waitpid(opener, &status, 0), opener);
	CHECK_EQ(status, 0);
	CHECK_EQ(subject_give_back(&s), 0);
	CHECK(bytes_used(s.path) <= MIB / 2); /* all of the folio that was written to */
	CHECK_EQ(memcmp(&(uint64_t){word_read(s.path, 9)}, "mine", 4), 0);
	subject_close(&s);
}

TEST(replaced, "another file of that name is left alone")
{
	struct subject s;
	int fd;

	volume_mount(VOLUME_EXT4, VOLUME_BYTES);
	subject_open(&s, "file", 8 * MIB, PIECE);
	REQUIRE_EQ(page_write(&s, 0), 0);
	subject_unmap(&s);
	fd = open(VOLUME_AT "/new", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	REQUIRE(fd >= 0);
	REQUIRE_EQ(fallocate(fd, 0, 0, 8 * MIB), 0);
	close(fd);
	REQUIRE_EQ(rename(VOLUME_AT "/new", s.path), 0);
	CHECK_EQ(subject_give_back(&s), -ENOENT);
	CHECK_EQ(s.result.left_bytes, 0);
	CHECK_EQ(bytes_mapped(s.path, 0, 8 * MIB), 8 * MIB);
	subject_close(&s);
}

TEST(replaced_by_link, "a symbolic link is not followed, a fifo not opened")
{
	struct subject s;

	volume_mount(VOLUME_EXT4, VOLUME_BYTES);
	subject_open(&s, "file", 8 * MIB, PIECE);
	REQUIRE_EQ(page_write(&s, 0), 0);
	subject_unmap(&s);
	REQUIRE_EQ(rename(s.path, VOLUME_AT "/moved"), 0);
	REQUIRE_EQ(symlink(VOLUME_AT "/moved", s.path), 0);
	CHECK_EQ(subject_give_back(&s), -ENOENT);
	CHECK(bytes_used(VOLUME_AT "/moved") >= MIB);
	REQUIRE_EQ(unlink(s.path), 0);
	REQUIRE_EQ(mkfifo(s.path, 0600), 0);
	s.taken = 0;
	CHECK_EQ(subject_give_back(&s), -ENOENT);
	REQUIRE_EQ(unlink(s.path), 0);
	REQUIRE_EQ(link(VOLUME_AT "/moved", s.path), 0);
	s.taken = 0;
	CHECK_EQ(subject_give_back(&s), 0);
	CHECK_EQ(bytes_used(s.path), PAGE);
	subject_close(&s);
}

TEST(not_ours, "a file of somebody else's, of which no lease can be had, stays as it is")
{
	struct subject s;

	volume_mount(VOLUME_EXT4, VOLUME_BYTES);
	subject_open(&s, "file", 8 * MIB, PIECE);
	REQUIRE_EQ(chmod(s.path, 0666), 0);
	pages_alone(&s);
	REQUIRE_EQ(page_write(&s, 0), 0);
	subject_unmap(&s);
	REQUIRE_EQ(seteuid(65534), 0);
	CHECK_EQ(subject_give_back(&s), -EACCES);
	CHECK_EQ(s.result.left_bytes, MIB - PAGE);
	REQUIRE_EQ(seteuid(0), 0);
	CHECK(bytes_reserved(s.path) >= MIB);
	subject_close(&s);
}

/* A mapping there holds another inode than the one that the lease is taken of. */
TEST(overlay, "on an overlay only runs get space, and nothing is ever given back")
{
	struct subject s;
	uint64_t page = 0;
	int error = 0;

	volume_mount(VOLUME_EXT4, VOLUME_BYTES);
	volume_overlay();
	volume_fill(8 * MIB);
	subject_open(&s, "file", 16 * MIB, PIECE);
	REQUIRE_EQ(page_write(&s, 4095), 0);
	CHECK_EQ(bytes_mapped(s.path, 0, s.bytes), PAGE);
	CHECK_EQ(atomic_load(&s.posts->count), 0);
	for (; !error && page < 4096; page += !error)
		error = page_write(&s, page);
	CHECK_EQ(error, -ENOSPC);
	test_note("%llu pages, %u times broken", (unsigned long long)page, s.broken);
	CHECK(page * PAGE >= 6 * MIB);
	volume_drain();
	for (; page < 4096; page++)
		REQUIRE_EQ(page_write(&s, page), 0);
	subject_post(s.posts, RUN_EVENT_RESERVED, 0, MIB);
	close(s.fd);
	s.fd = -1;
	CHECK_EQ(subject_give_back(&s), -EOPNOTSUPP);
	subject_unmap(&s);
	for (page = 0; page < 4096; page++)
		REQUIRE_EQ(word_read(s.path, page), word_of(page));
	subject_close(&s);
}

TEST(ledger, "holes of the program's own making, and its own preallocation, leave the ledger")
{
	struct run_control *control = calloc(1, sizeof(*control));
	struct ledger *ledger = ledger_create();
	struct subject s = {.reports = 0};
	const struct run_event events[] = {
		{.kind = RUN_EVENT_RESERVED, .offset = 100 * MIB, .length = 300 * MIB},
		{.kind = RUN_EVENT_RESERVED, .offset = 100 * MIB, .length = MIB},
		{.kind = RUN_EVENT_RESERVED, .offset = PAGE + 1, .length = 2 * PAGE},
		{.kind = RUN_EVENT_PUNCHED, .offset = 120 * MIB + PAGE - 1, .length = 20 * MIB},
		{.kind = RUN_EVENT_PUNCHED, .offset = 300 * MIB + 1, .length = UINT64_MAX},
		{.kind = RUN_EVENT_RESERVED, .offset = 500 * MIB, .length = 3 * PAGE},
		{.kind = RUN_EVENT_WRITE, .offset = 600 * MIB, .length = PAGE},
		{.kind = RUN_EVENT_RESERVED, .file = 1, .offset = 0, .length = PAGE},
	};

	REQUIRE(control && ledger);
	strcpy(control->files[0].path, "/nowhere/at/all");
	atomic_store(&control->files[0].state, RUN_FILE_THERE);
	for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
		REQUIRE_EQ(ledger_event(ledger, control, &events[i]), 0);
	ledger_give_back(ledger, subject_report, &s);
	CHECK_EQ(s.reports, 1);
	CHECK_EQ(s.result.error, -ENOENT);
	CHECK_STR(s.result.path, "/nowhere/at/all");
	CHECK_EQ(s.result.reserved_bytes, (200 - 20) * MIB - PAGE + PAGE + 3 * PAGE);
	ledger_destroy(ledger);
	free(control);
}

/* ---- Failing calls ------------------------------------------------------------------------ */

#define FAILING_BYTES (4 * MIB)

static int is_armed_with;

static void failing_write(struct subject *s, uint64_t page)
{
	int error = page_write(s, page);

	/* Only a call that fails for want of space may refuse anything. */
	if (error)
		CHECK(is_armed_with == ENOSPC && error == -ENOSPC);
	if (error)
		CHECK_EQ(page_write(s, page), 0);
}

/* False: nothing was left to fail. */
static bool failing_once(enum volume_kind kind, uint64_t nth, int error)
{
	static const uint64_t pages[] = {0, 300, 301, 520, 700, 1023};
	struct subject s;
	char name[40];
	bool fired;

	snprintf(name, sizeof(name), "file-%llu-%d", (unsigned long long)nth, error);
	subject_open(&s, name, FAILING_BYTES, PIECE);
	REQUIRE_EQ(fallocate(s.fd, FALLOC_FL_KEEP_SIZE, 2 * MIB + 64 * PAGE, 64 * PAGE), 0);
	is_armed_with = error;
	fail_arm(nth, error);
	for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++)
		failing_write(&s, pages[i]);
	subject_unmap(&s);
	subject_give_back(&s);
	fired = fail_disarm();
	if (kind == VOLUME_TMPFS)
		CHECK(bytes_reserved(s.path) >= 70 * PAGE);
	else
		CHECK_EQ(bytes_mapped(s.path, 2 * MIB + 64 * PAGE, 2 * MIB + 128 * PAGE),
			 64 * PAGE);
	for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++)
		CHECK_EQ(word_read(s.path, pages[i]), word_of(pages[i]));
	if (!fired)
		CHECK(bytes_used(s.path) <= 71 * PAGE);
	REQUIRE_EQ(unlink(s.path), 0);
	subject_close(&s);
	return fired;
}

TEST_EACH_VOLUME(failing, "whatever call fails, no byte and no preallocation is lost")
{
	static const int errors[] = {EIO, ENOMEM, EINTR, ENOSPC, EOPNOTSUPP};
	const size_t count = sizeof(errors) / sizeof(*errors);
	size_t turns = test_rounds(1) > 1 ? count : 1;

	volume_mount(kind, VOLUME_BYTES);
	for (size_t turn = 0; turn < turns; turn++) {
		uint64_t nth = 1;

		while (failing_once(kind, nth, errors[(nth + turn) % count]))
			nth++;
		test_note("%llu calls", (unsigned long long)(nth - 1));
		CHECK(nth > 20);
	}
}
