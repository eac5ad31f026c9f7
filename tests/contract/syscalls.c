/* SPDX-License-Identifier: MIT */
/*
 * syscalls.c - contract 4.3, 4.6, 4.7, S2.2: system calls whose buffers lie in a view, refused ones
 * included; the library's own reads and writes with such buffers; and system calls on the very file
 * that a view maps, which must not hang.
 */
#include "harness/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SEED 6u

/* A file without a name that holds so many bytes of the pattern. */
static int pattern_file(size_t length)
{
	int fd = memfd_create("pattern", MFD_CLOEXEC);
	unsigned char page[PAGE];

	REQUIRE(fd >= 0);
	for (size_t done = 0; done < length; done += PAGE) {
		for (size_t i = 0; i < PAGE; i++)
			page[i] = script_pattern(done + i, SEED);
		REQUIRE_EQ(pwrite(fd, page, PAGE, (off_t)done), PAGE);
	}
	return fd;
}

/* The bytes are the pattern from offset on. */
static bool is_pattern(const unsigned char *bytes, uint64_t offset, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != script_pattern(offset + i, SEED))
			return false;
	return true;
}

static bool is_zero(const unsigned char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i])
			return false;
	return true;
}

static void small_rig_open(struct rig *rig, uint64_t pages)
{
	rig_open(rig, NULL, pages, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig->view, pages * PAGE, MKW_RANDOM), 0);
}

/* ---- Into a view -------------------------------------------------------------------------- */

/* Ways to bring length bytes of the pattern, from its start, into memory by a system call. */
struct way_in {
	const char *name;
	ssize_t (*read)(int file, void *buffer, size_t length);
};

static ssize_t by_read(int file, void *buffer, size_t length)
{
	REQUIRE_EQ(lseek(file, 0, SEEK_SET), 0);
	return read(file, buffer, length);
}

static ssize_t by_pread(int file, void *buffer, size_t length)
{
	return pread(file, buffer, length, 0);
}

static ssize_t by_readv(int file, void *buffer, size_t length)
{
	unsigned char *bytes = buffer;
	size_t third = length / 3;
	struct iovec pieces[3] = {
		{bytes, third},
		{bytes + third, third},
		{bytes + 2 * third, length - 2 * third},
	};

	return preadv(file, pieces, 3, 0);
}

/* Fill one end of a pair of descriptors from the file, and close it. */
static void feed(int file, int end, size_t length)
{
	off_t offset = 0;

	while ((size_t)offset < length)
		REQUIRE(sendfile(end, file, &offset, length - (size_t)offset) > 0);
	close(end);
}

static ssize_t by_pipe(int file, void *buffer, size_t length)
{
	ssize_t result;
	int ends[2];

	REQUIRE_EQ(pipe(ends), 0);
	feed(file, ends[1], length);
	result = read(ends[0], buffer, length);
	close(ends[0]);
	return result;
}

static ssize_t by_recv(int file, void *buffer, size_t length)
{
	ssize_t result;
	int ends[2];

	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	feed(file, ends[1], length);
	result = recv(ends[0], buffer, length, MSG_WAITALL);
	close(ends[0]);
	return result;
}

static const struct way_in ways_in[] = {
	{"read", by_read}, {"pread", by_pread}, {"readv", by_readv},
	{"pipe", by_pipe}, {"recv", by_recv},
};
#define WAYS_IN (sizeof(ways_in) / sizeof(*ways_in))

TEST(calls_write_into_view,
     "4.7 S2.2 read, pread, readv and recv write into a view: asked for, right "
     "and stored, over absent, cached and dirty pages")
{
	const size_t length = 4 * PAGE;
	int file = pattern_file(length);

	for (size_t w = 0; w < WAYS_IN; w++) {
		struct rig rig;

		test_note("%s", ways_in[w].name);
		small_rig_open(&rig, 16);
		/* Of the four pages it goes to, 1 is cached and 2 is dirty; begin in mid-page. */
		CHECK_EQ(*rig_word(rig.view, 1), 0);
		*rig_word(rig.view, 2) = 1;
		script_log_clear(rig.store);
		CHECK_EQ(ways_in[w].read(file, rig.view + 100, length), length);
		CHECK(is_pattern(rig.view + 100, 0, length));
		CHECK(is_zero(rig.view, 100));
		for (uint64_t page = 0; page < 5; page++)
			CHECK_EQ(script_calls_on(rig.store, SCRIPT_MKWRITE, page), page != 2);
		CHECK_EQ(rig_dirty_pages(&rig), 5);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		rig_check_stored(&rig);
		rig_close(&rig);
	}
	close(file);
}

TEST(calls_into_refused_pages,
     "4.7 S2.2 a system call across granted and refused pages ends with a "
     "short count or EFAULT; the object is unharmed")
{
	const size_t length = 4 * PAGE;
	int file = pattern_file(length);

	for (size_t w = 0; w < WAYS_IN; w++) {
		struct mkw_refusal refusal;
		struct rig rig;
		ssize_t got;

		test_note("%s", ways_in[w].name);
		small_rig_open(&rig, 16);
		script_set_capacity(rig.store, 2);
		got = ways_in[w].read(file, rig.view, length);
		if (got < 0)
			CHECK_EQ(errno, EFAULT);
		CHECK(got == -1 || (got > 0 && got <= (ssize_t)(2 * PAGE)));
		if (got > 0)
			CHECK(is_pattern(rig.view, 0, (size_t)got));
		CHECK(is_zero(rig.view + 2 * PAGE, 14 * PAGE));
		REQUIRE_EQ(mkw_last_refusal(&refusal), 0);
		CHECK_EQ(refusal.error, -ENOSPC);
		CHECK_EQ(refusal.offset - refusal.offset % PAGE, 2 * PAGE);
		/* Refused from the first byte on. */
		got = ways_in[w].read(file, rig.view + 8 * PAGE, 100);
		CHECK_EQ(got, -1);
		CHECK_EQ(errno, EFAULT);
		/* Nothing of it stays behind. */
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK(script_allocated(rig.store) <= 2);
		CHECK_EQ(mkw_control(rig.handle, "capacity=16"), 0);
		CHECK_EQ(ways_in[w].read(file, rig.view + 5, length), length);
		CHECK(is_pattern(rig.view + 5, 0, length));
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		rig_check_stored(&rig);
		rig_close(&rig);
	}
	close(file);
}

struct refused_calls {
	struct test_thread thread;
	unsigned char *address;
	int file;
	unsigned calls;
};

static void *refused_calls_run(void *arg)
{
	struct refused_calls *r = arg;

	for (unsigned i = 0; i < r->calls; i++) {
		CHECK_EQ(pread(r->file, r->address, 1, 0), -1);
		CHECK_EQ(errno, EFAULT);
	}
	return NULL;
}

TEST(refused_call_disturbs_no_call,
     "4.7 while system calls that write a page are refused, others that read it are not")
{
	struct refused_calls refused = {.calls = test_rounds(200)};
	int sink = memfd_create("sink", MFD_CLOEXEC);
	struct rig rig;

	REQUIRE(sink >= 0);
	small_rig_open(&rig, 2);
	script_fail_page(rig.store, SCRIPT_MKWRITE, 0, -ENOSPC);
	CHECK_EQ(*rig_word(rig.view, 0), 0);
	refused.file = pattern_file(PAGE);
	refused.address = rig.view;
	test_thread_start(&refused.thread, refused_calls_run, &refused);
	while (!atomic_load(&refused.thread.ended))
		REQUIRE_EQ(pwrite(sink, rig.view, PAGE, 0), PAGE);
	test_thread_join(&refused.thread);
	rig_close(&rig);
	close(refused.file);
	close(sink);
}

/* ---- Out of a view ------------------------------------------------------------------------ */

static ssize_t by_write(int end, const void *buffer, size_t length)
{
	return write(end, buffer, length);
}

static ssize_t by_writev(int end, const void *buffer, size_t length)
{
	unsigned char *bytes = (unsigned char *)(uintptr_t)buffer;
	struct iovec pieces[2] = {{bytes, length / 2}, {bytes + length / 2, length - length / 2}};

	return writev(end, pieces, 2);
}

static ssize_t by_send(int end, const void *buffer, size_t length)
{
	return send(end, buffer, length, 0);
}

/* What came out of the other end, to its end. */
static size_t drain(int end, unsigned char *bytes, size_t size)
{
	size_t done = 0;
	ssize_t got;

	while (done < size && (got = read(end, bytes + done, size - done)) > 0)
		done += (size_t)got;
	close(end);
	return done;
}

static const struct way_out {
	const char *name;
	ssize_t (*write)(int end, const void *buffer, size_t length);
} ways_out[] = {{"write", by_write}, {"writev", by_writev}, {"send", by_send}};
#define WAYS_OUT (sizeof(ways_out) / sizeof(*ways_out))

TEST(calls_read_from_view,
     "4.7 S2.2 write, writev and send read from a view, over absent and cached "
     "pages; where a page cannot be read: a short count or EFAULT")
{
	static unsigned char bytes[8 * MKW_PAGE_SIZE];
	const size_t length = 4 * PAGE;

	for (size_t w = 0; w < WAYS_OUT; w++) {
		struct mkw_refusal refusal;
		struct rig rig;
		ssize_t put;
		int ends[2];

		test_note("%s", ways_out[w].name);
		small_rig_open(&rig, 16);
		script_put_pattern(rig.store, 0, 16, SEED);
		script_fail_page(rig.store, SCRIPT_FAULT, 10, -EIO);
		CHECK_EQ(rig.view[2 * PAGE], script_pattern(2 * PAGE, SEED));
		REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
		CHECK_EQ(ways_out[w].write(ends[1], rig.view + 77, length), length);
		/* Pages 8 and 9, not 10. */
		put = ways_out[w].write(ends[1], rig.view + 8 * PAGE, length);
		if (put < 0)
			CHECK_EQ(errno, EFAULT);
		CHECK(put == -1 || (put > 0 && put <= (ssize_t)(2 * PAGE)));
		REQUIRE_EQ(mkw_last_refusal(&refusal), 0);
		CHECK_EQ(refusal.error, -EIO);
		CHECK_EQ(ways_out[w].write(ends[1], rig.view + 10 * PAGE, 10), -1);
		CHECK_EQ(errno, EFAULT);
		close(ends[1]);
		CHECK_EQ(drain(ends[0], bytes, sizeof(bytes)),
			 length + (put > 0 ? (size_t)put : 0));
		CHECK(is_pattern(bytes, 77, length));
		if (put > 0)
			CHECK(is_pattern(bytes + length, 8 * PAGE, (size_t)put));
		CHECK_EQ(rig_dirty_pages(&rig), 0);
		script_fail_page(rig.store, SCRIPT_FAULT, 10, 0);
		CHECK(is_pattern(rig.view, 0, 16 * PAGE));
		rig_close(&rig);
	}
}

/* ---- Past the page cache ------------------------------------------------------------------ */

#define DIRECT_PAGES 64u

struct direct_reader {
	struct rig *rig;
	int fds[2];
	unsigned rounds;
	struct test_thread thread;
};

/* Alternately one file and the other; each call finds the pages clean, and is over before the next
 * sync of this thread. */
static void *direct_read_run(void *arg)
{
	struct direct_reader *reader = arg;
	struct rig *rig = reader->rig;
	unsigned char stored[PAGE];

	for (unsigned round = 0; round < reader->rounds; round++) {
		unsigned seed = round % 2;

		if (!CHECK_EQ(pread(reader->fds[seed], rig->view, DIRECT_PAGES * PAGE, 0),
			      DIRECT_PAGES * PAGE) ||
		    !CHECK_EQ(mkw_sync(rig->handle, 0, 0), 0))
			return NULL;
		for (uint64_t page = 0; page < DIRECT_PAGES; page++) {
			script_get(rig->store, page * PAGE, stored, PAGE);
			if (!CHECK_EQ(stored[0], seed + 1) || !CHECK_EQ(stored[PAGE - 1], seed + 1))
				return NULL;
		}
	}
	return NULL;
}

TEST(direct_read_into_view,
     "design, I/O straight into a view: an O_DIRECT read into clean pages is "
     "stored in whole, although a sync runs at any time")
{
	struct direct_reader reader = {.rounds = test_rounds(10)};
	static unsigned char bytes[DIRECT_PAGES * MKW_PAGE_SIZE]
		__attribute__((aligned(MKW_PAGE_SIZE)));
	char paths[2][RIG_PATH_MAX];
	struct rig rig;

	for (int i = 0; i < 2; i++) {
		rig_file_make(paths[i], 0);
		reader.fds[i] = open(paths[i], O_RDWR | O_DIRECT | O_CLOEXEC);
		memset(bytes, i + 1, sizeof(bytes));
		if (reader.fds[i] < 0 ||
		    write(reader.fds[i], bytes, sizeof(bytes)) != sizeof(bytes))
			SKIP("/tmp has no O_DIRECT: %s", strerror(errno));
	}
	rig_open(&rig, NULL, DIRECT_PAGES, MKW_RDWR);
	reader.rig = &rig;
	test_thread_start(&reader.thread, direct_read_run, &reader);
	while (!atomic_load(&reader.thread.ended))
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	test_thread_join(&reader.thread);
	rig_check_stored(&rig);
	/* And out again, straight from the view. */
	memset(rig.view, 9, DIRECT_PAGES * PAGE);
	CHECK_EQ(pwrite(reader.fds[0], rig.view, DIRECT_PAGES * PAGE, 0), DIRECT_PAGES * PAGE);
	CHECK_EQ(pread(reader.fds[0], bytes, sizeof(bytes), 0), sizeof(bytes));
	CHECK_EQ(bytes[0] + bytes[sizeof(bytes) - 1], 18);
	for (int i = 0; i < 2; i++) {
		close(reader.fds[i]);
		rig_file_remove(paths[i]);
	}
	rig_close(&rig);
}

/* ---- Calls that wait for write-back ------------------------------------------------------- */

static const struct mkw_space_options two_dirty = {RIG_QUIET,
						   .dirty_limit_bytes = 2 * MKW_PAGE_SIZE};

/* Its first pages are written while it waits for room for the next: copying, it faults again. */
TEST(call_over_dirty_limit, "6.6 a system call that stores more than may be dirty ends")
{
	const size_t length = 8 * PAGE;
	int file = pattern_file(length);

	for (size_t w = 0; w < WAYS_IN; w++) {
		struct rig rig;

		test_note("%s", ways_in[w].name);
		rig_open(&rig, &two_dirty, 16, MKW_RDWR);
		CHECK_EQ(ways_in[w].read(file, rig.view + 100, length), length);
		CHECK(is_pattern(rig.view + 100, 0, length));
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		rig_check_stored(&rig);
		rig_close(&rig);
	}
	close(file);
}

struct pipe_reader {
	int pipe[2];
	unsigned char *to;
	struct test_thread thread;
};

static void *pipe_reader_run(void *arg)
{
	struct pipe_reader *reader = arg;

	CHECK_EQ(read(reader->pipe[0], reader->to, 2 * PAGE), 2 * PAGE);
	return NULL;
}

TEST(freeze_within_call, "4.5 a freeze does not wait for a system call that waits for its thaw")
{
	static const char bytes[2 * MKW_PAGE_SIZE] = {1};
	struct pipe_reader reader;
	struct rig rig;

	rig_open(&rig, NULL, 4, MKW_RDWR);
	REQUIRE_EQ(mkw_advise(rig.view, 4 * PAGE, MKW_RANDOM), 0);
	REQUIRE_EQ(pipe(reader.pipe), 0);
	REQUIRE_EQ(write(reader.pipe[1], bytes, sizeof(bytes)), sizeof(bytes));
	reader.to = rig.view;
	test_gate_arm(rig.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1);
	test_thread_start(&reader.thread, pipe_reader_run, &reader);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	test_gate_release(rig.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	CHECK_STUCK(&reader.thread);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	test_thread_join(&reader.thread);
	close(reader.pipe[0]);
	close(reader.pipe[1]);
	rig_close(&rig);
}

/* ---- The object's own reads and writes ---------------------------------------------------- */

TEST_EACH_BACKEND(pwrite_from_own_view,
		  "4.6 S2.2 mkw_pwrite with its source in a view of the same "
		  "object, absent and cached, apart, overlapping, on one page")
{
	static unsigned char model[32 * MKW_PAGE_SIZE];
	struct rig rig;

	small_rig_open(&rig, 32);
	script_put_pattern(rig.store, 0, 32, SEED);
	for (size_t i = 0; i < sizeof(model); i++)
		model[i] = script_pattern(i, SEED);
	/* Both sides absent, neither page aligned. */
	CHECK_EQ(mkw_pwrite(rig.handle, rig.view + 100, 3 * PAGE, 16 * PAGE + 50), 3 * PAGE);
	memmove(model + 16 * PAGE + 50, model + 100, 3 * PAGE);
	CHECK_MEM(rig.view, model, sizeof(model));
	/* Within one page, apart and overlapping, forwards and backwards. */
	CHECK_EQ(mkw_pwrite(rig.handle, rig.view + 5 * PAGE, 100, 5 * PAGE + 2000), 100);
	memmove(model + 5 * PAGE + 2000, model + 5 * PAGE, 100);
	CHECK_EQ(mkw_pwrite(rig.handle, rig.view + 6 * PAGE, 1000, 6 * PAGE + 300), 1000);
	memmove(model + 6 * PAGE + 300, model + 6 * PAGE, 1000);
	CHECK_EQ(mkw_pwrite(rig.handle, rig.view + 7 * PAGE + 300, 1000, 7 * PAGE), 1000);
	memmove(model + 7 * PAGE, model + 7 * PAGE + 300, 1000);
	/* Onto itself. */
	CHECK_EQ(mkw_pwrite(rig.handle, rig.view + 8 * PAGE, PAGE, 8 * PAGE), PAGE);
	CHECK_MEM(rig.view, model, sizeof(model));
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pread_into_own_view,
		  "4.6 S2.2 mkw_pread into a view of the same object: a write like "
		  "any other, asked for and stored")
{
	static unsigned char model[32 * MKW_PAGE_SIZE];
	struct rig rig;

	small_rig_open(&rig, 32);
	script_put_pattern(rig.store, 0, 32, SEED);
	for (size_t i = 0; i < sizeof(model); i++)
		model[i] = script_pattern(i, SEED);
	CHECK_EQ(mkw_pread(rig.handle, rig.view + 100, 3 * PAGE, 16 * PAGE + 50), 3 * PAGE);
	memmove(model + 100, model + 16 * PAGE + 50, 3 * PAGE);
	CHECK_EQ(mkw_pread(rig.handle, rig.view + 6 * PAGE + 300, 1000, 6 * PAGE), 1000);
	memmove(model + 6 * PAGE + 300, model + 6 * PAGE, 1000);
	CHECK_EQ(mkw_pread(rig.handle, rig.view + 8 * PAGE, PAGE, 8 * PAGE), PAGE);
	CHECK_MEM(rig.view, model, sizeof(model));
	for (uint64_t page = 0; page < 4; page++)
		CHECK(script_calls_on(rig.store, SCRIPT_MKWRITE, page) >= 1);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* Also where the signals that tell of it are blocked, and they are blocked afterwards. */
static void check_faults_blocked(struct rig *rig)
{
	sigset_t faults, before, after;

	sigemptyset(&faults);
	sigaddset(&faults, SIGBUS);
	sigaddset(&faults, SIGSEGV);
	REQUIRE_EQ(pthread_sigmask(SIG_BLOCK, &faults, &before), 0);
	CHECK_EQ(mkw_pread(rig->handle, (void *)8, 10, 11 * PAGE), -EFAULT);
	CHECK_EQ(mkw_pread(rig->handle, rig->view + 5 * PAGE, 10, 11 * PAGE), -EFAULT);
	REQUIRE_EQ(pthread_sigmask(SIG_SETMASK, &before, &after), 0);
	CHECK(sigismember(&after, SIGBUS) == 1 && sigismember(&after, SIGSEGV) == 1);
}

TEST_EACH_BACKEND(own_calls_never_signal,
		  "4.6 mkw_pread and mkw_pwrite answer a buffer that is refused, "
		  "unreadable or nowhere by a short count or EFAULT")
{
	unsigned char byte = 1;
	struct rig rig;
	ssize_t done;

	small_rig_open(&rig, 16);
	script_put_pattern(rig.store, 8, 8, SEED);
	script_fail_page(rig.store, SCRIPT_FAULT, 10, -EIO);
	script_set_capacity(rig.store, 10); /* two more than there are */
	/* Into granted and refused pages. */
	done = mkw_pread(rig.handle, rig.view, 4 * PAGE, 11 * PAGE);
	CHECK(done == -EFAULT || (done > 0 && done <= (ssize_t)(2 * PAGE)));
	if (done > 0)
		CHECK(is_pattern(rig.view, 11 * PAGE, (size_t)done));
	CHECK(is_zero(rig.view + 2 * PAGE, 6 * PAGE));
	CHECK_EQ(mkw_pread(rig.handle, rig.view + 5 * PAGE, 10, 11 * PAGE), -EFAULT);
	/* Out of a page that cannot be read. */
	done = mkw_pwrite(rig.handle, rig.view + 9 * PAGE, 2 * PAGE, 12 * PAGE);
	CHECK(done == -EFAULT || (done > 0 && done <= (ssize_t)PAGE));
	CHECK_EQ(mkw_pwrite(rig.handle, rig.view + 10 * PAGE, 10, 14 * PAGE), -EFAULT);
	CHECK(is_pattern(rig.view + 14 * PAGE, 14 * PAGE, PAGE));
	CHECK_EQ(mkw_pread(rig.handle, &byte, 1, 10 * PAGE), -EIO);
	CHECK_EQ(byte, 1);
	/* Nowhere at all. */
	CHECK_EQ(mkw_pread(rig.handle, (void *)8, 10, 11 * PAGE), -EFAULT);
	CHECK_EQ(mkw_pwrite(rig.handle, (void *)8, 10, 11 * PAGE), -EFAULT);
	/* Where no address can be: the processor does not say where. */
	CHECK_EQ(mkw_pread(rig.handle, (void *)(1ull << 62), 10, 11 * PAGE), -EFAULT);
	CHECK_EQ(mkw_pwrite(rig.handle, (void *)(1ull << 62), 10, 11 * PAGE), -EFAULT);
	check_faults_blocked(&rig);
	CHECK_EQ(mkw_pread(rig.handle, &byte, 1, 16 * PAGE), 0);
	script_fail_page(rig.store, SCRIPT_FAULT, 10, 0);
	CHECK_EQ(mkw_control(rig.handle, "capacity=16"), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* ---- Inline views ------------------------------------------------------------------------- */

TEST(inline_calls, "mkwrite.h, MKW_INLINE: a system call on a page not granted is EFAULT and harms "
		   "nothing; on cached pages it can read, on reserved ones write")
{
	int file = pattern_file(8 * PAGE), ends[2];
	static unsigned char bytes[2 * MKW_PAGE_SIZE];
	unsigned char *view;
	void *address;
	struct rig rig;

	small_rig_open(&rig, 16);
	if (mkw_map(rig.handle, 16 * PAGE, MKW_READ | MKW_WRITE, MKW_INLINE, 0, &address) != 0)
		SKIP("no inline views: %s", mkw_error_message());
	view = address;
	CHECK_EQ(mkw_advise(view, 16 * PAGE, MKW_RANDOM), 0);
	REQUIRE_EQ(pipe(ends), 0);
	CHECK_EQ(pread(file, view + 4 * PAGE, PAGE, 0), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(write(ends[1], view + 4 * PAGE, PAGE), -1);
	CHECK_EQ(errno, EFAULT);
	/* Cached: it can be read, not written. */
	CHECK_EQ(view[4 * PAGE], 0);
	CHECK_EQ(write(ends[1], view + 4 * PAGE, PAGE), PAGE);
	CHECK_EQ(read(ends[0], bytes, PAGE), PAGE);
	CHECK_EQ(pread(file, view + 4 * PAGE, PAGE, 0), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK(is_zero(view, 16 * PAGE));
	/* Reserved. */
	CHECK_EQ(mkw_reserve(view + 4 * PAGE, 4 * PAGE), 0);
	CHECK_EQ(pread(file, view + 4 * PAGE, 4 * PAGE, 0), 4 * PAGE);
	CHECK_EQ(mkw_unreserve(view + 4 * PAGE, 4 * PAGE), 0);
	CHECK(is_pattern(view + 4 * PAGE, 0, 4 * PAGE));
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK(is_pattern(rig.view + 4 * PAGE, 0, 4 * PAGE));
	CHECK_EQ(mkw_unmap(view, 16 * PAGE), 0);
	close(file);
	close(ends[0]);
	close(ends[1]);
	rig_close(&rig);
}

/* ---- The very file ------------------------------------------------------------------------ */

#define OWN_PAGES 1024u /* of which the second half is a hole */
#define OWN_RUN	  3u

/* Mount a fresh file system that only this process sees, over /tmp. */
static void own_mount(const char *type, const char *mkfs)
{
	char command[256];
	int fd;

	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", "/tmp", "tmpfs", 0, NULL) != 0)
		SKIP("no mount namespace of our own: %s", strerror(errno));
	fd = open("/tmp/image", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, (off_t)512 << 20), 0);
	close(fd);
	REQUIRE_EQ(mkdir("/tmp/fs", 0700), 0);
	snprintf(command, sizeof(command),
		 "%s /tmp/image >/dev/null 2>&1 && mount -t %s -o loop /tmp/image /tmp/fs", mkfs,
		 type);
	if (system(command) != 0)
		SKIP("no %s image can be made and mounted here: %s", type, command);
}

struct own {
	struct mkw_space *space;
	struct mkw_handle *handle;
	unsigned char *view;
	int buffered, direct;
};

static void own_open(struct own *own, const char *type, const char *mkfs)
{
	const struct mkw_space_options options = {RIG_QUIET};
	static unsigned char bytes[OWN_PAGES / 2 * MKW_PAGE_SIZE];
	void *address;

	own_mount(type, mkfs);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = script_pattern(i, SEED);
	own->buffered = open("/tmp/fs/file", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	REQUIRE(own->buffered >= 0);
	REQUIRE_EQ(write(own->buffered, bytes, sizeof(bytes)), sizeof(bytes));
	REQUIRE_EQ(ftruncate(own->buffered, (off_t)(OWN_PAGES * PAGE)), 0);
	REQUIRE_EQ(fsync(own->buffered), 0);
	own->direct = open("/tmp/fs/file", O_RDWR | O_DIRECT | O_CLOEXEC);
	REQUIRE(own->direct >= 0);
	REQUIRE_EQ(mkw_space_create(&options, &own->space), 0);
	REQUIRE_EQ(mkw_open(own->space, "file:/tmp/fs/file", MKW_RDWR, &own->handle), 0);
	REQUIRE_EQ(mkw_map(own->handle, OWN_PAGES * PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0,
			   &address),
		   0);
	own->view = address;
	REQUIRE_EQ(mkw_advise(address, OWN_PAGES * PAGE, MKW_RANDOM), 0);
}

static void own_close(struct own *own)
{
	CHECK_EQ(mkw_unmap(own->view, OWN_PAGES * PAGE), 0);
	CHECK_EQ(mkw_close(own->handle), 0);
	CHECK_EQ(mkw_space_destroy(own->space, 0), 0);
	close(own->buffered);
	close(own->direct);
	CHECK_EQ(umount("/tmp/fs"), 0);
}

/* One system call on the file with its buffer in the view of it. */
struct own_call {
	bool write, direct, cached, hole, elsewhere;
	uint64_t page; /* pages that no other call has touched */
};

static bool own_bytes_right(const struct own_call *call, const unsigned char *bytes)
{
	return call->hole ? is_zero(bytes, OWN_RUN * PAGE)
			  : is_pattern(bytes, call->page * PAGE, OWN_RUN * PAGE);
}

static void own_call(struct own *own, const struct own_call *call)
{
	unsigned char *buffer = own->view + call->page * PAGE;
	uint64_t file_page = call->elsewhere ? call->page + OWN_RUN + 1 : call->page;
	int fd = call->direct ? own->direct : own->buffered;
	unsigned sum = 0;
	ssize_t done;

	for (uint64_t i = 0; i < OWN_RUN && call->cached; i++)
		sum += buffer[i * PAGE];
	test_note("%s %s %s %s %s, page %llu (%u)", call->write ? "write" : "read",
		  call->direct ? "direct" : "buffered", call->cached ? "cached" : "absent",
		  call->hole ? "hole" : "stored", call->elsewhere ? "elsewhere" : "in place",
		  (unsigned long long)call->page, sum);
	if (call->write)
		done = pwrite(fd, buffer, OWN_RUN * PAGE, (off_t)(file_page * PAGE));
	else
		done = pread(fd, buffer, OWN_RUN * PAGE, (off_t)(file_page * PAGE));
	if (done < 0)
		CHECK_EQ(errno, EFAULT);
	CHECK(done == -1 || (done > 0 && done <= (ssize_t)(OWN_RUN * PAGE)));
	/* What was not written to is as it was, and the object works on. */
	if (call->write || !call->elsewhere || done < 0)
		CHECK(own_bytes_right(call, buffer));
	buffer[0] = (unsigned char)(buffer[0] + 1);
	CHECK_EQ(mkw_sync(own->handle, call->page * PAGE, PAGE), 0);
}

/* Every kind of call, each on pages of its own. Refused or carried out, none may wait for itself:
 * the harness's watchdog is the bound. */
static void own_calls(const char *type, const char *mkfs)
{
	struct own own;

	own_open(&own, type, mkfs);
	for (unsigned kind = 0; kind < 32; kind++) {
		struct own_call call = {
			.write = kind & 1,
			.direct = kind & 2,
			.cached = kind & 4,
			.elsewhere = kind & 8,
			.hole = kind & 16,
			.page = 10 * (kind & 15) + (kind & 16 ? OWN_PAGES / 2 : 0),
		};

		own_call(&own, &call);
	}
	own_close(&own);
}

static struct script_store *over_file;
static struct stat over_file_stat;

/* "over:": a store that says which file is beneath it. */
static int over_open(struct mkw_open_args *args)
{
	args->ops = script_ops(over_file);
	args->store = over_file;
	args->size_bytes = script_size_bytes(over_file);
	args->dev = over_file_stat.st_dev;
	args->ino = over_file_stat.st_ino;
	return 0;
}

static const struct mkw_store_driver over_driver = {
	.struct_size = sizeof(struct mkw_store_driver),
	.scheme = "over",
	.summary = "a store over a file",
	.options = "",
	.open = over_open,
};

static void check_efault(int file, void *buffer)
{
	CHECK_EQ(pread(file, buffer, PAGE, 0), -1);
	CHECK_EQ(errno, EFAULT);
}

/* Such a call may hold what the write-back needs that it would wait for. */
TEST(own_file_never_waits,
     "4.3 a system call on the file itself gets EFAULT in place of waiting for write-back, for "
     "room or for a thaw")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 2 * PAGE};
	int file = pattern_file(2 * PAGE);
	struct rig rig = {.pages = 3};
	struct rig_sync sync;

	REQUIRE_EQ(fstat(file, &over_file_stat), 0);
	over_file = rig.store = script_create(3 * PAGE);
	REQUIRE_EQ(mkw_store_register(&over_driver), 0);
	REQUIRE_EQ(mkw_space_create(&options, &rig.space), 0);
	REQUIRE_EQ(mkw_open(rig.space, "over:x", MKW_RDWR | MKW_MANUAL, &rig.handle), 0);
	rig.view = rig_map(rig.handle, 3, 0);
	CHECK_EQ(mkw_advise(rig.view, 3 * PAGE, MKW_RANDOM), 0);

	/* Where nothing has to be waited for it is served. */
	CHECK_EQ(pread(file, rig.view + PAGE, PAGE, 0), PAGE);
	CHECK(is_pattern(rig.view + PAGE, 0, PAGE));
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);

	*rig_word(rig.view, 0) = 1;
	*rig_word(rig.view, 2) = 1;
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	rig_sync_start(&sync, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	check_efault(file, rig.view);
	check_efault(file, rig.view + PAGE);
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	CHECK_EQ(rig_sync_join(&sync), 0);

	CHECK_EQ(mkw_freeze(rig.handle), 0);
	check_efault(file, rig.view);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	rig_close(&rig);
	close(file);
}

TEST_EACH_BACKEND(own_file_ext4,
		  "4.3 S2.2 read and write of the very file, buffered and direct, from "
		  "and into its view: done or EFAULT, never a hang (ext4)")
{
	own_calls("ext4", "mkfs.ext4 -q -F");
}

TEST_EACH_BACKEND(own_file_xfs, "4.3 S2.2 the same on xfs")
{
	own_calls("xfs", "mkfs.xfs -q -f");
}

/* The way to do it: the object's own calls. */
static void own_object_calls(const char *type, const char *mkfs)
{
	unsigned char *view;
	struct own own;

	own_open(&own, type, mkfs);
	view = own.view;
	CHECK_EQ(mkw_pwrite(own.handle, view + 10 * PAGE, 4 * PAGE, 600 * PAGE + 9), 4 * PAGE);
	CHECK(is_pattern(view + 600 * PAGE + 9, 10 * PAGE, 4 * PAGE));
	CHECK_EQ(mkw_pread(own.handle, view + 700 * PAGE, 4 * PAGE, 20 * PAGE), 4 * PAGE);
	CHECK(is_pattern(view + 700 * PAGE, 20 * PAGE, 4 * PAGE));
	CHECK_EQ(mkw_sync(own.handle, 0, 0), 0);
	own_close(&own);
}

TEST(own_object_ext4, "4.6 mkw_pread and mkw_pwrite between a file's object and its view (ext4)")
{
	own_object_calls("ext4", "mkfs.ext4 -q -F");
}

TEST(own_object_xfs, "4.6 the same on xfs")
{
	own_object_calls("xfs", "mkfs.xfs -q -f");
}
