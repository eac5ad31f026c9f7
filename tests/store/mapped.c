/* SPDX-License-Identifier: MIT */
/*
 * mapped.c - the stores beneath the real library: what a program that maps a file sees of quotas,
 * extents, other processes and failures.
 */
#include "harness/world.h"
#include "store/mount.h"

#include <mkwrite/store.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_BYTES ((int64_t)PAGE)
#define EXTENT	   (256 * PAGE)

static char directory[64];

struct mapped {
	struct mkw_space *space;
	struct mkw_handle *handle;
	unsigned char *view;
	size_t length;
};

static void directory_make(void)
{
	strcpy(directory, "/var/tmp/mkwrite-mapped-XXXXXX");
	REQUIRE(mkdtemp(directory) != NULL);
	REQUIRE_EQ(chdir(directory), 0);
}

static void directory_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	CHECK_EQ(system(command), 0);
}

static int ok(int result)
{
	if (result < 0)
		test_note("%d: %s", result, mkw_error_message());
	return result;
}

static void mapped_open(struct mapped *m, const char *uri, unsigned flags, size_t length)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	options.writeback_interval_ms = 3600 * 1000;
	REQUIRE_EQ(ok(mkw_space_create(&options, &m->space)), 0);
	REQUIRE_EQ(ok(mkw_open(m->space, uri, flags, &m->handle)), 0);
	if (mkw_size(m->handle) < length)
		REQUIRE_EQ(ok(mkw_truncate(m->handle, length)), 0);
	m->length = length;
	REQUIRE_EQ(
		ok(mkw_map(m->handle, length, MKW_WRITE, test_map_flags(), 0, (void **)&m->view)),
		0);
}

static void mapped_close(struct mapped *m)
{
	CHECK_EQ(ok(mkw_unmap(m->view, m->length)), 0);
	CHECK_EQ(ok(mkw_close(m->handle)), 0);
	CHECK_EQ(ok(mkw_space_destroy(m->space, 0)), 0);
}

static int64_t blocks_bytes(const char *name)
{
	struct stat st;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	fsync(fd);
	REQUIRE_EQ(fstat(fd, &st), 0);
	close(fd);
	return (int64_t)st.st_blocks * 512;
}

static void check_file(const char *name, const void *model, size_t length)
{
	unsigned char *in = malloc(length);
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	REQUIRE(in != NULL && fd >= 0);
	REQUIRE_EQ(read(fd, in, length), (ssize_t)length);
	CHECK_MEM(in, model, length);
	close(fd);
	free(in);
}

static void *model_make(size_t length)
{
	unsigned char *model = malloc(length);

	REQUIRE(model != NULL);
	for (size_t i = 0; i < length; i++)
		model[i] = (unsigned char)(1 + i / PAGE * 31 + i % 97);
	return model;
}

/* ---- Quotas ------------------------------------------------------------------------------- */

static void quota_story(const char *uri)
{
	struct mapped m;
	struct mkw_refusal refusal;
	unsigned char *model = model_make(64 * PAGE);
	size_t done = 0;

	mapped_open(&m, uri, MKW_RDWR | MKW_CREATE, 64 * PAGE);
	REQUIRE_EQ(mkw_advise(m.view, m.length, MKW_RANDOM), 0);
	while (done < 64 && !try_write(m.view + done * PAGE, model[done * PAGE], &refusal)) {
		memcpy(m.view + done * PAGE, model + done * PAGE, PAGE);
		done++;
	}
	/* A fragmented file system takes a block for itself, which counts. */
	CHECK(done <= 16 && done >= (strncmp(uri, "file:", 5) ? 16 : 14));
	CHECK_EQ(refusal.error, -ENOSPC);
	CHECK(refusal.address == m.view + done * PAGE);
	if (!CHECK(strstr(refusal.message, "4096 bytes") != NULL))
		test_note("%s", refusal.message);
	CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
	CHECK_EQ(ok(mkw_control(m.handle, "quota=16M")), 0);
	memcpy(m.view + done * PAGE, model + done * PAGE, (64 - done) * PAGE);
	CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
	CHECK_MEM(m.view, model, 64 * PAGE);
	if (!strncmp(uri, "file:", 5))
		check_file("data", model, 64 * PAGE);
	mapped_close(&m);
	free(model);
}

TEST_EACH_BACKEND(mapped_file_quota,
		  "S1.1 a file with too small a quota refuses by page, and goes on "
		  "when it is raised")
{
	directory_make();
	quota_story("file:data?quota=64K&extent=4K");
	REQUIRE_EQ(unlink("data"), 0);
	quota_story("file:data?quota=64K");
	REQUIRE_EQ(unlink("data"), 0);
	quota_story("file:data?quota=64K&direct=1");
	directory_remove();
}

TEST_EACH_BACKEND(mapped_mem_quota, "S1.1 memory with too small a quota does the same")
{
	quota_story("mem:256K?quota=64K");
}

/* ---- Extents ------------------------------------------------------------------------------ */

TEST_EACH_BACKEND(mapped_sparse, "11 pages granted ahead and not written leave no block behind")
{
	struct mapped m;
	unsigned char *model = calloc(1, 64 * EXTENT);
	int64_t written = 0;

	REQUIRE(model != NULL);
	directory_make();
	mapped_open(&m, "file:data", MKW_RDWR | MKW_CREATE, 64 * EXTENT);
	/* A stream, so that runs grow past its end, and single pages. */
	for (size_t i = 0; i < 700; i++, written += PAGE_BYTES)
		memset(m.view + 3 * EXTENT + i * PAGE, 1 + (int)(i % 200), PAGE);
	for (size_t i = 0; i < 8; i++, written += PAGE_BYTES)
		m.view[(20 + 5 * i) * EXTENT + 77] = 9;
	memcpy(model, m.view, m.length);
	CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
	CHECK(blocks_bytes("data") <= (int64_t)((3 + 1 + 8) * EXTENT));
	check_file("data", model, m.length);
	mapped_close(&m);
	check_file("data", model, 64 * EXTENT);
	/* And the block that the file system needs for so many pieces. */
	CHECK(blocks_bytes("data") >= written && blocks_bytes("data") <= written + PAGE_BYTES);
	test_note("%lld of %lld", (long long)blocks_bytes("data"), (long long)written);
	free(model);
	directory_remove();
}

/* ---- One file, one cache ------------------------------------------------------------------ */

TEST_EACH_BACKEND(mapped_twice, "one file opened twice, by other names, is one object")
{
	struct mapped m;
	struct mkw_handle *second, *third;
	unsigned char *other;

	directory_make();
	mapped_open(&m, "file:data", MKW_RDWR | MKW_CREATE, 16 * PAGE);
	REQUIRE_EQ(symlink("data", "link"), 0);
	REQUIRE_EQ(ok(mkw_open(m.space, "file:./link", MKW_RDWR | MKW_TRUNC, &second)), 0);
	CHECK_EQ(mkw_size(second), 16 * PAGE);
	REQUIRE_EQ(
		ok(mkw_map(second, 4 * PAGE, MKW_WRITE, test_map_flags(), PAGE, (void **)&other)),
		0);
	m.view[PAGE + 5] = 'x';
	CHECK_EQ(other[5], 'x');
	/* Through a layer it would be another cache of the same bytes. */
	CHECK_EQ(mkw_open(m.space, "delay:file:data", MKW_RDWR, &third), -EBUSY);
	CHECK(strstr(mkw_error_message(), "this process") != NULL);
	CHECK_EQ(ok(mkw_unmap(other, 4 * PAGE)), 0);
	CHECK_EQ(ok(mkw_close(second)), 0);
	mapped_close(&m);
	directory_remove();
}

TEST(mapped_elsewhere, "a file that another process writes to through the library is EBUSY")
{
	struct mkw_space *space;
	struct mkw_handle *handle;
	int ready[2], go[2];
	char byte;

	directory_make();
	REQUIRE_EQ(pipe2(ready, O_CLOEXEC), 0);
	REQUIRE_EQ(pipe2(go, O_CLOEXEC), 0);
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		close(go[1]);
		byte = mkw_space_create(NULL, &space) ||
				       mkw_open(space, "file:data", MKW_RDWR | MKW_CREATE, &handle)
			       ? 'n'
			       : 'y';
		if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) < 0)
			_exit(1);
		_exit(0);
	}
	close(go[0]);
	REQUIRE_EQ(read(ready[0], &byte, 1), 1);
	REQUIRE_EQ(byte, 'y');
	REQUIRE_EQ(ok(mkw_space_create(NULL, &space)), 0);
	CHECK_EQ(mkw_open(space, "file:data", MKW_RDWR, &handle), -EBUSY);
	char who[32];

	snprintf(who, sizeof(who), "process %d", pid);
	if (!CHECK(strstr(mkw_error_message(), who) != NULL))
		test_note("%s", mkw_error_message());
	close(go[1]);
	REQUIRE_EQ(waitpid(pid, NULL, 0), pid);
	REQUIRE_EQ(ok(mkw_open(space, "file:data", MKW_RDWR, &handle)), 0);
	CHECK_EQ(ok(mkw_close(handle)), 0);
	CHECK_EQ(ok(mkw_space_destroy(space, 0)), 0);
	close(ready[0]);
	close(ready[1]);
	directory_remove();
}

/* ---- Files that change under us ----------------------------------------------------------- */

TEST_EACH_BACKEND(mapped_shrank,
		  "a file that was cut shorter refuses its missing pages with EIO and the reason")
{
	struct mapped m;
	struct mkw_refusal refusal;
	unsigned char value;

	directory_make();
	mapped_open(&m, "file:data", MKW_RDWR | MKW_CREATE, 16 * PAGE);
	memset(m.view, 7, 16 * PAGE);
	CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
	CHECK_EQ(ok(mkw_invalidate(m.handle, 0, 16 * PAGE)), 0);
	REQUIRE_EQ(truncate("data", 8 * PAGE), 0);
	CHECK_EQ(try_read(m.view + 12 * PAGE, &value, &refusal), -EIO);
	if (!CHECK(strstr(refusal.message, "shrank under us") != NULL))
		test_note("%s", refusal.message);
	CHECK_EQ(get(m.view + 7 * PAGE), 7);
	put(m.view + 3 * PAGE, 8);
	CHECK_EQ(mkw_sync(m.handle, 0, 0), -EIO);
	/* The user mends it by saying what he wants. */
	CHECK_EQ(ok(mkw_truncate(m.handle, 8 * PAGE)), 0);
	mkw_sync(m.handle, 0, 0);
	CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
	mapped_close(&m);
	directory_remove();
}

TEST_EACH_BACKEND(mapped_replaced,
		  "6.5 a file that was replaced is reported once by each handle's sync")
{
	struct mapped m;
	struct mkw_handle *second;

	directory_make();
	mapped_open(&m, "file:data", MKW_RDWR | MKW_CREATE, 4 * PAGE);
	REQUIRE_EQ(ok(mkw_open(m.space, "file:data", MKW_RDWR, &second)), 0);
	put(m.view, 1);
	CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
	REQUIRE_EQ(rename("data", "old"), 0);
	int fd = open("data", O_CREAT | O_WRONLY | O_CLOEXEC, 0644);

	REQUIRE(fd >= 0);
	close(fd);
	put(m.view, 2);
	CHECK_EQ(mkw_sync(m.handle, 0, 0), -ESTALE);
	put(m.view, 3);
	CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
	CHECK_EQ(mkw_sync(second, 0, 0), -ESTALE);
	CHECK_EQ(ok(mkw_sync(second, 0, 0)), 0);
	unsigned char value = 3;

	check_file("old", &value, 1);
	CHECK_EQ(ok(mkw_close(second)), 0);
	mapped_close(&m);
	directory_remove();
}

/* ---- System calls on the file itself ------------------------------------------------------ */

/* Within the call the kernel may hold the inode's lock, which the store's calls would wait for. */
static void self_check(int kind)
{
	struct mapped m;
	struct mkw_refusal refusal;
	unsigned char *model = model_make(16 * PAGE), *buffer = aligned_alloc(PAGE, PAGE);

	kind_make(kind);
	mapped_open(&m, "file:data", MKW_RDWR | MKW_CREATE, 1024 * PAGE);
	REQUIRE_EQ(mkw_advise(m.view, m.length, MKW_RANDOM), 0);
	memcpy(m.view, model, 16 * PAGE);
	CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
	CHECK_EQ(ok(mkw_invalidate(m.handle, 0, 16 * PAGE)), 0);
	int fd = open("data", O_RDWR | O_CLOEXEC);
	int direct = open("data", O_RDWR | O_CLOEXEC | O_DIRECT);

	REQUIRE(fd >= 0 && direct >= 0);
	/* From an absent page: the store would have to read the file. */
	CHECK_EQ(pwrite(fd, m.view + 8 * PAGE, PAGE, 12 * PAGE), -1);
	CHECK_EQ(errno, EFAULT);
	if (test_backend() != TEST_INLINE) {
		CHECK_EQ(mkw_last_refusal(&refusal), 0);
		CHECK_EQ(refusal.error, -EDEADLK);
		if (!CHECK(strstr(refusal.message, "use mkw_p") != NULL))
			test_note("%s", refusal.message);
	}
	/* Into a hole: it would have to reserve. Served or refused, but not hung. */
	ssize_t n = pread(direct, m.view + 700 * PAGE, PAGE, 0);

	CHECK(n == (ssize_t)PAGE || (n == -1 && errno == EFAULT));
	n = pread(fd, m.view + 900 * PAGE, PAGE, 0);
	CHECK(n == (ssize_t)PAGE || (n == -1 && errno == EFAULT));
	/* The object is unharmed, and its own calls do what the others could not. */
	CHECK_MEM(m.view, model, 16 * PAGE);
	CHECK_EQ(ok((int)mkw_pwrite(m.handle, m.view + 8 * PAGE, PAGE, 12 * PAGE)), PAGE);
	CHECK_EQ(ok((int)mkw_pread(m.handle, buffer, PAGE, 12 * PAGE)), PAGE);
	CHECK_MEM(buffer, model + 8 * PAGE, PAGE);
	close(fd);
	close(direct);
	mapped_close(&m);
	free(buffer);
	free(model);
}

TEST_EACH_BACKEND(mapped_self_ext4,
		  "4.3 system calls between a file on ext4 and its own view: never a hang")
{
	self_check(EXT4);
}

TEST_EACH_BACKEND(mapped_self_xfs, "4.3 the same on xfs")
{
	self_check(XFS);
}

/* ---- Failures, one by one ----------------------------------------------------------------- */

/* Fail the nth call of an operation, for n = 1, 2, 3 ..., until a round passes without one. */
static void fail_each(const char *op)
{
	unsigned char *model = model_make(24 * PAGE);
	bool failed = true;
	unsigned nth = 1;

	for (; failed && nth < 200; nth++) {
		struct mapped m;
		char uri[128];

		failed = false;
		snprintf(uri, sizeof(uri), "error?op=%s&nth=%u&errno=EIO:file:data", op, nth);
		mapped_open(&m, uri, MKW_RDWR | MKW_CREATE, 24 * PAGE);
		for (size_t i = 0; i < 24; i++) {
			struct mkw_refusal refusal;
			unsigned char *at = m.view + i * 7 % 24 * PAGE;

			/* A refusal leaves all as it was: the next try succeeds. */
			if (try_write(at, 1, &refusal)) {
				CHECK_EQ(refusal.error, -EIO);
				CHECK(!failed);
				failed = true;
				put(at, 1);
			}
			memcpy(at, model + (at - m.view), PAGE);
			if (i % 5 == 4 && mkw_sync(m.handle, 0, 0)) {
				CHECK(!failed);
				failed = true;
			}
		}
		if (mkw_sync(m.handle, 0, 0)) {
			CHECK(!failed);
			failed = true;
			CHECK_EQ(ok(mkw_sync(m.handle, 0, 0)), 0);
		}
		check_file("data", model, 24 * PAGE);
		mapped_close(&m);
		check_file("data", model, 24 * PAGE);
		REQUIRE_EQ(unlink("data"), 0);
	}
	test_note("%s: %u rounds", op, nth - 1);
	CHECK(nth > 2 && nth < 200);
	free(model);
}

TEST_EACH_BACKEND(mapped_fail_each,
		  "6.5 whichever call fails, somebody hears of it once and nothing is lost")
{
	directory_make();
	fail_each("fault");
	fail_each("page_mkwrite");
	fail_each("writepages");
	fail_each("fsync");
	directory_remove();
}

TEST_EACH_BACKEND(mapped_codes,
		  "3.4 NOPAGE and RETRY that end are not seen, those without end become errors")
{
	static const char *const codes[] = {"NOPAGE", "RETRY", "0"};
	static const char *const ops[] = {"fault", "page_mkwrite"};

	for (size_t i = 0; i < 3; i++)
		for (size_t j = 0; j < 2; j++) {
			struct mapped m;
			char uri[128];

			snprintf(uri, sizeof(uri), "error?op=%s&code=%s&count=3:mem:16K", ops[j],
				 codes[i]);
			mapped_open(&m, uri, MKW_RDWR, 4 * PAGE);
			CHECK_EQ(try_write(m.view, 5, NULL), 0);
			CHECK_EQ(ok(mkw_control(m.handle, "count=0")), 0);
			int error = try_write(m.view + 3 * PAGE, 5, NULL);

			CHECK_EQ(error != 0, i < 2);
			mapped_close(&m);
		}
}
