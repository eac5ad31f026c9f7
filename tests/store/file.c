/* SPDX-License-Identifier: MIT */
/* file.c - the store over a file: opening, bytes, size, durability, other processes. */
#include "store/double.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE MKW_PAGE_SIZE

/* A directory of the test's own, current. */
static char directory[64];

static void directory_make(void)
{
	strcpy(directory, "/var/tmp/mkwrite-file-XXXXXX");
	REQUIRE(mkdtemp(directory) != NULL);
	REQUIRE_EQ(chdir(directory), 0);
}

static void directory_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	CHECK_EQ(system(command), 0);
}

/* A file of count pages of data, the i-th filled with seed + 7 * i. */
static void file_make(const char *name, size_t count, unsigned char seed)
{
	unsigned char *pages = pages_make(count, seed);
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(write(fd, pages, count * PAGE), (ssize_t)(count * PAGE));
	close(fd);
	free(pages);
}

/* What the kernel has of the file. */
static void file_bytes(const char *name, uint64_t offset, void *to, size_t size)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(pread(fd, to, size, (off_t)offset), (ssize_t)size);
	close(fd);
}

static struct stat file_stat(const char *name)
{
	struct stat st;

	REQUIRE_EQ(stat(name, &st), 0);
	return st;
}

static int sync_all(struct opened *o)
{
	return o->ops->fsync(o->store, &o->object, 0, 0);
}

/* ---- Opening ------------------------------------------------------------------------------ */

static void check_refused(const char *uri, unsigned flags, int error, const char *says)
{
	struct opened o;

	if (!CHECK_EQ(store_try(&o, uri, flags), error))
		test_note("%s", uri);
	CHECK_SAYS(says);
}

TEST(file_open_errors, "what cannot be opened is refused, with the reason and what would be right")
{
	directory_make();
	REQUIRE_EQ(mkdir("dir", 0755), 0);
	REQUIRE_EQ(mkfifo("pipe", 0644), 0);
	REQUIRE_EQ(symlink("loop", "loop"), 0);
	file_make("there", 1, 0);
	check_refused("file:missing", MKW_RDWR, -ENOENT, "MKW_CREATE makes it");
	check_refused("file:missing", MKW_RDONLY, -ENOENT, "does not exist");
	check_refused("file:no/such", MKW_RDWR | MKW_CREATE, -ENOENT, "cannot be opened");
	check_refused("file:dir", MKW_RDWR, -EISDIR, "irectory");
	check_refused("file:dir", MKW_RDONLY, -EISDIR, "is a directory");
	check_refused("file:pipe", MKW_RDWR, -EINVAL, "is a pipe");
	check_refused("file:pipe", MKW_RDONLY, -EINVAL, "is a pipe");
	check_refused("file:/dev/null", MKW_RDWR, -EINVAL, "character device");
	check_refused("file:/dev/ptmx", MKW_RDONLY, -EINVAL, "character device");
	char uri[300] = "file:";

	memset(uri + 5, 'x', 250);
	check_refused(uri, MKW_RDWR, -ENOENT, "...xxxx");
	CHECK(strlen(mkw_error_message()) < 160);
	CHECK_SAYS("does not exist");
	check_refused("file:loop", MKW_RDONLY, -ELOOP, "cannot be opened");
	check_refused("file:there", MKW_RDWR | MKW_CREATE | MKW_EXCL, -EEXIST, "File exists");
	check_refused("file:/proc/version?direct=1", MKW_RDONLY, -EINVAL, "direct=1");
	directory_remove();
}

TEST(file_open, "creating, emptying, following a symbolic link; identity and file are the inode's")
{
	struct opened a, b;

	directory_make();
	store_open(&a, MKW_RDWR | MKW_CREATE | MKW_EXCL, "file:new");
	CHECK_EQ(a.args.size_bytes, 0);
	CHECK(a.args.ino == file_stat("new").st_ino && a.args.dev == file_stat("new").st_dev);
	store_close(&a);
	file_make("data", 3, 1);
	REQUIRE_EQ(symlink("data", "link"), 0);
	store_open(&a, MKW_RDONLY, "file:data");
	store_open(&b, MKW_RDONLY, "file:link");
	CHECK_EQ(a.args.size_bytes, 3 * PAGE);
	CHECK(a.args.identity_length && a.args.identity_length == b.args.identity_length);
	CHECK_MEM(a.args.identity, b.args.identity, a.args.identity_length);
	CHECK(!a.ops->writepages && !a.ops->page_mkwrite && !a.ops->truncate);
	store_close(&a);
	store_close(&b);
	store_open(&a, MKW_RDWR | MKW_TRUNC, "file:data");
	CHECK_EQ(a.args.size_bytes, 0);
	CHECK_EQ(file_stat("data").st_size, 0);
	store_close(&a);
	directory_remove();
}

TEST(file_open_twice, "a second opening that is dropped unused neither locks nor empties nor frees")
{
	struct opened a;
	struct mkw_open_args second;

	directory_make();
	file_make("data", 3, 1);
	store_open(&a, MKW_RDWR, "file:data");
	CHECK_EQ(mkw_store_open("file:data", MKW_RDWR | MKW_TRUNC, &second), 0);
	CHECK_MEM(a.args.identity, second.identity, a.args.identity_length);
	second.ops->release(second.store);
	CHECK_EQ(file_stat("data").st_size, 3 * PAGE);
	CHECK(store_grant(&a, 0));
	/* And the lease is still there. */
	check_refused("file:data", MKW_RDWR, -EBUSY, "this process");
	store_close(&a);
	directory_remove();
}

TEST(file_changed_meanwhile,
     "a file that changes its size between opening and the lease is refused")
{
	struct mkw_open_args args;
	struct mkw_object object = {0};

	directory_make();
	file_make("data", 3, 1);
	CHECK_EQ(mkw_store_open("file:data", MKW_RDWR, &args), 0);
	REQUIRE_EQ(truncate("data", PAGE), 0);
	CHECK_EQ(args.ops->attach(args.store, &object), -EBUSY);
	CHECK_SAYS("changed its size");
	args.ops->release(args.store);
	directory_remove();
}

/* ---- Bytes -------------------------------------------------------------------------------- */

static void bytes_check(const char *options)
{
	struct opened o;
	struct mkw_run run;
	unsigned char *out = pages_make(700, 3), *in = pages_make(700, 1);

	store_open(&o, MKW_RDWR | MKW_CREATE, "file:data?%s", options);
	CHECK_EQ(store_truncate(&o, 1000 * PAGE + 1234), 0);
	CHECK_EQ(file_stat("data").st_size, 1000 * PAGE + 1234);
	CHECK_EQ(store_fill(&o, 0, 600, 30, in, &run), MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, MKW_RUN_HOLE);
	CHECK_EQ(store_write(&o, 10, 700, out), 0);
	/* The last page is not whole; the file grows by nothing. */
	CHECK_EQ(store_write(&o, 999, 2, out), 0);
	CHECK_EQ(file_stat("data").st_size, 1000 * PAGE + 1234);
	CHECK_EQ(store_fill(&o, 9, 700, 40, in, &run) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, 0);
	CHECK_EQ(in[0], 0);
	CHECK_MEM(in + PAGE, out, 699 * PAGE);
	CHECK_EQ(store_fill(&o, 998, 3, 999, in, &run) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_EQ(in[5], 0);
	CHECK_MEM(in + PAGE, out, PAGE + 1234);
	for (unsigned i = 2 * PAGE + 1234; i < 3 * PAGE; i++)
		CHECK_EQ(in[i], 0);
	CHECK_EQ(sync_all(&o), 0);
	file_bytes("data", 999 * PAGE, in, PAGE + 1234);
	CHECK_MEM(in, out, PAGE + 1234);
	/* Once more, over what is there, and by the other way in. */
	memset(out, 0xee, 2 * PAGE);
	CHECK_EQ(store_write(&o, 999, 2, out), 0);
	file_bytes("data", 999 * PAGE, in, PAGE + 1234);
	CHECK_MEM(in, out, PAGE + 1234);
	store_close(&o);
	free(in);
	free(out);
}

TEST(file_bytes, "what was written is read, by the kernel too; holes are told; the tail is zeros")
{
	directory_make();
	bytes_check("extent=1M");
	directory_remove();
}

TEST(file_direct, "the same past the page cache, with a last page that is not whole")
{
	struct opened o;

	directory_make();
	if (store_try(&o, "file:probe?direct=1", MKW_RDWR | MKW_CREATE))
		SKIP("%s", mkw_error_message());
	store_close(&o);
	bytes_check("direct=1");
	directory_remove();
}

TEST(file_past_end, "3.6 a page past the end by now is answered with NOPAGE")
{
	struct opened o;
	unsigned char *page = pages_make(1, 1);

	directory_make();
	file_make("data", 4, 1);
	store_open(&o, MKW_RDWR, "file:data");
	o.object.size_bytes = 2 * PAGE;
	CHECK_EQ(store_fill(&o, 2, 1, 2, page, NULL), MKW_FAULT_NOPAGE);
	CHECK_EQ(store_ask(&o, 9, 1, 9, NULL), MKW_FAULT_NOPAGE);
	store_close(&o);
	free(page);
	directory_remove();
}

TEST(file_syscall,
     "4.3 within a system call on the file no call is made on it, and none is needed for "
     "what is known")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *page = pages_make(1, 1);

	directory_make();
	file_make("data", 4, 1);
	REQUIRE_EQ(truncate("data", 1024 * PAGE), 0);
	store_open(&o, MKW_RDWR, "file:data");
	double_in_syscall = true;
	CHECK_EQ(store_fill(&o, 0, 1, 0, page, NULL), MKW_FAULT_SIGBUS);
	CHECK_SAYS("use mkw_pread");
	CHECK_EQ(store_ask(&o, 0, 1, 0, NULL), MKW_FAULT_SIGBUS);
	CHECK_SAYS("use mkw_pwrite");
	double_in_syscall = false;
	CHECK(store_grant(&o, 0));
	double_in_syscall = true;
	/* The chunk's blocks are known: rewriting and holes cost no call. */
	CHECK(store_grant(&o, 0) && store_grant(&o, 3));
	CHECK_EQ(store_fill(&o, 100, 5, 100, page, &run), MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, MKW_RUN_HOLE);
	/* A run is cut where one would be needed. */
	CHECK_EQ(store_ask(&o, 2, 4, 3, &run), 0);
	CHECK_EQ(run.first, 2);
	CHECK_EQ(run.count, 2);
	CHECK_EQ(store_ask(&o, 4, 1, 4, NULL), MKW_FAULT_SIGBUS);
	store_close(&o);
	free(page);
	directory_remove();
}

TEST(file_write_errors, "adjoining runs go together; what fails is the run where it failed")
{
	struct opened o;
	unsigned char *pages = pages_make(4, 50), *in = pages_make(4, 1);
	struct mkw_wb_run runs[5];
	struct mkw_writeback writeback = {.count = 5, .runs = runs};
	const uint64_t first[5] = {0, 2, 3, 7, 9};
	const struct rlimit limit = {4 * PAGE + 100, RLIM_INFINITY},
			    none = {RLIM_INFINITY, RLIM_INFINITY};

	directory_make();
	store_open(&o, MKW_RDWR | MKW_CREATE, "file:data");
	CHECK_EQ(store_truncate(&o, 16 * PAGE), 0);
	for (int i = 0; i < 5; i++)
		runs[i] = (struct mkw_wb_run){.first = first[i],
					      .count = i == 1 ? 1 : 2,
					      .data = pages,
					      .length_bytes = i == 1 ? PAGE : 2 * PAGE};
	for (uint64_t i = 0; i < 16; i++)
		CHECK(store_grant(&o, i));
	signal(SIGXFSZ, SIG_IGN);
	REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	CHECK_EQ(o.ops->writepages(o.store, &o.object, &writeback), 0);
	REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
	CHECK_EQ(runs[0].result, 0);
	CHECK_EQ(runs[1].result, 0);
	CHECK_EQ(runs[2].result, -EFBIG); /* after 100 bytes of its second page */
	CHECK_EQ(runs[3].result, -EFBIG);
	CHECK_EQ(runs[4].result, -EFBIG);
	for (int i = 0; i < 5; i++)
		runs[i].result = 0;
	CHECK_EQ(o.ops->writepages(o.store, &o.object, &writeback), 0);
	for (int i = 0; i < 5; i++) {
		CHECK_EQ(runs[i].result, 0);
		file_bytes("data", first[i] * PAGE, in, runs[i].length_bytes);
		CHECK_MEM(in, pages, runs[i].length_bytes);
	}
	store_close(&o);
	free(pages);
	free(in);
	directory_remove();
}

TEST(file_many_runs, "a hundred adjoining runs arrive whole")
{
	struct opened o;
	unsigned char *pages = pages_make(100, 50), *in = pages_make(100, 1);
	struct mkw_wb_run runs[100];
	struct mkw_writeback writeback = {.count = 100, .runs = runs};

	directory_make();
	store_open(&o, MKW_RDWR | MKW_CREATE, "file:data");
	CHECK_EQ(store_truncate(&o, 100 * PAGE), 0);
	for (size_t i = 0; i < 100; i++)
		runs[i] = (struct mkw_wb_run){
			.first = i, .count = 1, .data = pages + i * PAGE, .length_bytes = PAGE};
	CHECK_EQ(o.ops->writepages(o.store, &o.object, &writeback), 0);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(runs[i].result, 0);
	file_bytes("data", 0, in, 100 * PAGE);
	CHECK_MEM(in, pages, 100 * PAGE);
	store_close(&o);
	free(pages);
	free(in);
	directory_remove();
}

/* ---- Times and size ----------------------------------------------------------------------- */

TEST(file_times, "writing back moves the times that a user of mmap expects to move")
{
	struct opened o;
	const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	unsigned char *page = pages_make(1, 1);

	directory_make();
	file_make("data", 4, 1);
	store_open(&o, MKW_RDWR, "file:data");
	REQUIRE_EQ(utimensat(AT_FDCWD, "data", old, 0), 0);
	CHECK_EQ(store_fill(&o, 1, 1, 1, page, NULL) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK(store_grant(&o, 1));
	CHECK_EQ(file_stat("data").st_mtime, 1000);
	struct stat before = file_stat("data");

	CHECK_EQ(store_write(&o, 1, 1, page), 0);
	CHECK_EQ(sync_all(&o), 0);
	struct stat after = file_stat("data");

	CHECK(after.st_mtime > 1000);
	CHECK(after.st_ctim.tv_sec > before.st_ctim.tv_sec ||
	      (after.st_ctim.tv_sec == before.st_ctim.tv_sec &&
	       after.st_ctim.tv_nsec >= before.st_ctim.tv_nsec));
	store_close(&o);
	free(page);
	directory_remove();
}

TEST(file_truncate,
     "5.1 the file follows the size, what grows reads as zeros, a failure changes nothing")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *in = pages_make(4, 1);
	const struct rlimit limit = {16 * PAGE, RLIM_INFINITY};

	directory_make();
	file_make("data", 4, 1);
	store_open(&o, MKW_RDWR, "file:data");
	CHECK(store_grant(&o, 3));
	CHECK_EQ(store_truncate(&o, PAGE + 10), 0);
	CHECK_EQ(file_stat("data").st_size, PAGE + 10);
	CHECK_EQ(store_truncate(&o, 4 * PAGE), 0);
	CHECK_EQ(store_fill(&o, 0, 4, 0, in, &run) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_EQ(in[PAGE + 9], 8);
	for (unsigned i = PAGE + 10; i < 4 * PAGE; i++)
		CHECK_EQ(in[i], 0);
	CHECK_EQ(store_fill(&o, 2, 2, 2, in, &run), MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, MKW_RUN_HOLE);
	signal(SIGXFSZ, SIG_IGN);
	REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	CHECK_EQ(store_truncate(&o, 64 * PAGE), -EFBIG);
	CHECK_SAYS("cannot be changed to");
	CHECK_EQ(file_stat("data").st_size, 4 * PAGE);
	CHECK_EQ(o.ops->truncate(o.store, &o.object, UINT64_MAX), -EFBIG);
	store_close(&o);
	free(in);
	directory_remove();
}

TEST(file_punch, "5.2 a punched range is a hole, in the file too")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *in = pages_make(8, 1);

	directory_make();
	file_make("data", 64, 1);
	store_open(&o, MKW_RDWR, "file:data");
	CHECK(store_grant(&o, 20));
	int64_t blocks = file_stat("data").st_blocks;

	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 16 * PAGE, 32 * PAGE), 0);
	CHECK_EQ(file_stat("data").st_blocks, blocks - 32 * 8);
	CHECK_EQ(store_fill(&o, 16, 8, 20, in, &run), MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, MKW_RUN_HOLE);
	CHECK_EQ(store_fill(&o, 14, 8, 20, in, &run) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_EQ(in[0], (unsigned char)(1 + 14 * 7));
	CHECK_EQ(in[2 * PAGE], 0);
	CHECK(store_grant(&o, 20));
	store_close(&o);
	CHECK_EQ(file_stat("data").st_blocks, blocks - 32 * 8);
	free(in);
	directory_remove();
}

/* ---- Others ------------------------------------------------------------------------------- */

TEST(file_shrank,
     "a file that somebody cut shorter gives EIO where bytes are missing, and is not mended")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *pages = pages_make(8, 1);

	directory_make();
	file_make("data", 8, 1);
	store_open(&o, MKW_RDWR, "file:data");
	for (uint64_t i = 0; i < 8; i++)
		CHECK(store_grant(&o, i));
	REQUIRE_EQ(truncate("data", 3 * PAGE + 5), 0);
	CHECK_EQ(store_fill(&o, 6, 1, 6, pages, NULL), MKW_FAULT_SIGBUS);
	CHECK_SAYS("shrank under us: 12293 bytes long, 32768 expected");
	CHECK_EQ(store_fill(&o, 3, 1, 3, pages, NULL), MKW_FAULT_SIGBUS);
	/* What is there is given. */
	CHECK_EQ(store_fill(&o, 0, 8, 1, pages, &run) & ~MKW_FAULT_MAJOR, MKW_FAULT_LOCKED);
	CHECK_EQ(run.count, 3);
	CHECK_EQ(pages[2 * PAGE], 15);
	CHECK_EQ(store_write(&o, 5, 1, pages), -EIO);
	CHECK_SAYS("shrank under us");
	CHECK_EQ(store_write(&o, 2, 1, pages), 0);
	CHECK_EQ(file_stat("data").st_size, 3 * PAGE + 5);
	CHECK_EQ(sync_all(&o), -EIO);
	store_close(&o);
	free(pages);
	directory_remove();
}

static void replaced_check(const char *name, void (*act)(void), const char *says)
{
	struct opened o;
	unsigned char *page = pages_make(1, 1);

	file_make("data", 2, 1);
	store_open(&o, MKW_RDWR, "file:%s", name);
	CHECK_EQ(sync_all(&o), 0);
	CHECK_EQ(o.object.errors, 0);
	act();
	CHECK_EQ(store_write(&o, 1, 1, page), 0);
	CHECK_EQ(sync_all(&o), 0);
	CHECK_EQ(o.object.error, -ESTALE);
	if (!CHECK(strstr(o.object.message, says) != NULL))
		test_note("%s", o.object.message);
	CHECK_EQ(sync_all(&o), 0);
	CHECK_EQ(o.object.errors, 1);
	store_close(&o);
	free(page);
}

static void act_replace(void)
{
	file_make("other", 5, 1);
	REQUIRE_EQ(rename("other", "data"), 0);
}

static void act_delete(void)
{
	REQUIRE_EQ(unlink("data"), 0);
}

static void act_move(void)
{
	REQUIRE_EQ(rename("data", "elsewhere"), 0);
	CHECK_EQ(chdir("/"), 0);
}

TEST(file_replaced,
     "a file that is replaced, deleted or moved is reported, once, and never made anew")
{
	directory_make();
	replaced_check("data", act_replace, "was replaced under us");
	CHECK_EQ(file_stat("data").st_size, 5 * PAGE);
	replaced_check("data", act_delete, "was deleted under us");
	CHECK_EQ(access("data", F_OK), -1);
	REQUIRE_EQ(symlink("data", "link"), 0);
	replaced_check("link", act_move, "was moved under us");
	directory_remove();
}

TEST(file_nameless, "a file that never had a name is not missed")
{
	struct opened o;

	directory_make();
	int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		SKIP("no O_TMPFILE in %s: %s", directory, strerror(errno));
	REQUIRE_EQ(ftruncate(fd, PAGE), 0);
	store_open(&o, MKW_RDWR, "file:/proc/self/fd/%d", fd);
	close(fd);
	CHECK_EQ(sync_all(&o), 0);
	CHECK_EQ(o.object.errors, 0);
	store_close(&o);
	directory_remove();
}

/* ---- Processes ---------------------------------------------------------------------------- */

/* A process that has the file open until it is told to go. */
struct holder {
	pid_t pid;
	int go;
};

static void holder_start(struct holder *holder, const char *uri, unsigned flags)
{
	int go[2], ready[2];
	char byte = 0;

	REQUIRE_EQ(pipe2(go, O_CLOEXEC), 0);
	REQUIRE_EQ(pipe2(ready, O_CLOEXEC), 0);
	holder->pid = fork();
	REQUIRE(holder->pid >= 0);
	if (!holder->pid) {
		struct opened o;

		close(go[1]);
		byte = store_try(&o, uri, flags) ? 'n' : 'y';
		if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) < 0)
			_exit(1);
		_exit(0);
	}
	close(go[0]);
	close(ready[1]);
	REQUIRE_EQ(read(ready[0], &byte, 1), 1);
	REQUIRE_EQ(byte, 'y');
	close(ready[0]);
	holder->go = go[1];
}

static void holder_end(struct holder *holder)
{
	close(holder->go);
	REQUIRE_EQ(waitpid(holder->pid, NULL, 0), holder->pid);
}

TEST(file_lease, "another process that has the file open for writing is met with EBUSY, and named")
{
	struct holder writer, reader;
	struct opened o;
	char who[64];

	directory_make();
	file_make("data", 2, 1);
	holder_start(&writer, "file:data", MKW_RDWR);
	snprintf(who, sizeof(who), "process %d has it open", writer.pid);
	check_refused("file:data", MKW_RDWR, -EBUSY, who);
	check_refused("file:data", MKW_RDONLY, -EBUSY, "for writing");
	check_refused("file:data", MKW_RDWR | MKW_TRUNC, -EBUSY, who);
	CHECK_EQ(file_stat("data").st_size, 2 * PAGE);
	/* However it ends, the lease ends with it. */
	REQUIRE_EQ(kill(writer.pid, SIGKILL), 0);
	holder_end(&writer);
	store_open(&o, MKW_RDWR, "file:data");
	store_close(&o);
	holder_start(&reader, "file:data", MKW_RDONLY);
	store_open(&o, MKW_RDONLY, "file:data");
	store_close(&o);
	snprintf(who, sizeof(who), "process %d has it open", reader.pid);
	check_refused("file:data", MKW_RDWR, -EBUSY, who);
	holder_end(&reader);
	store_open(&o, MKW_RDWR, "file:data");
	check_refused("delay:file:data", MKW_RDWR, -EBUSY, "this process, by another opening");
	store_close(&o);
	directory_remove();
}

TEST(file_lease_old, "a lock of the older kind counts too")
{
	struct opened o;
	int ready[2];
	char byte, who[64];

	directory_make();
	file_make("data", 2, 1);
	REQUIRE_EQ(pipe2(ready, O_CLOEXEC), 0);
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		struct flock lock = {
			.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 1};
		int fd = open("data", O_RDWR | O_CLOEXEC);

		if (fcntl(fd, F_SETLK, &lock) || write(ready[1], "y", 1) != 1)
			_exit(1);
		pause();
	}
	REQUIRE_EQ(read(ready[0], &byte, 1), 1);
	snprintf(who, sizeof(who), "process %d has it open", pid);
	check_refused("file:data", MKW_RDWR, -EBUSY, who);
	kill(pid, SIGKILL);
	REQUIRE_EQ(waitpid(pid, NULL, 0), pid);
	close(ready[0]);
	close(ready[1]);
	store_open(&o, MKW_RDWR, "file:data");
	store_close(&o);
	directory_remove();
}
