/* SPDX-License-Identifier: MIT */
/*
 * objects.c - the life of objects, handles, views and spaces: one object for one file, in this
 * process and against others; what outlives what; closing and ending under load and after failures.
 */
#include "harness/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_PAGES 8u

static const struct mkw_space_options quiet = {RIG_QUIET};

static void uri_of(char uri[RIG_PATH_MAX + 8], const char *path)
{
	snprintf(uri, RIG_PATH_MAX + 8, "file:%s", path);
}

static unsigned char *map_file(struct mkw_handle *handle)
{
	void *address = NULL;

	REQUIRE_EQ(mkw_map(handle, FILE_PAGES * PAGE, MKW_READ | MKW_WRITE, test_map_flags(), 0,
			   &address),
		   0);
	return address;
}

/* ---- One file, one object ----------------------------------------------------------------- */

TEST_EACH_BACKEND(same_file_one_object,
		  "design, one file one cache: a file opened twice, by different "
		  "names, is one object")
{
	char path[RIG_PATH_MAX], uri[RIG_PATH_MAX + 8], other[RIG_PATH_MAX + 16];
	struct mkw_handle *first, *second;
	unsigned char *a, *b, byte;
	struct mkw_stat stat[2];
	struct mkw_space *space;

	rig_file_make(path, FILE_PAGES * PAGE);
	uri_of(uri, path);
	snprintf(other, sizeof(other), "%s-linked", path);
	REQUIRE_EQ(link(path, other), 0);
	snprintf(other, sizeof(other), "file:%s-linked", path);
	REQUIRE_EQ(mkw_space_create(&quiet, &space), 0);
	REQUIRE_EQ(mkw_open(space, uri, MKW_RDWR, &first), 0);
	REQUIRE_EQ(mkw_open(space, other, MKW_RDWR, &second), 0);
	a = map_file(first);
	b = map_file(second);
	a[5 * PAGE] = 77;
	CHECK_EQ(b[5 * PAGE], 77);
	CHECK_EQ(mkw_pread(second, &byte, 1, 5 * PAGE), 1);
	CHECK_EQ(byte, 77);
	CHECK_EQ(mkw_pwrite(second, "y", 1, 2 * PAGE), 1);
	CHECK_EQ(a[2 * PAGE], 'y');
	REQUIRE_EQ(mkw_object_stat(first, &stat[0], sizeof(stat[0])), 0);
	REQUIRE_EQ(mkw_object_stat(second, &stat[1], sizeof(stat[1])), 0);
	CHECK_MEM(&stat[0], &stat[1], sizeof(stat[0]));
	CHECK(stat[0].dirty_bytes >= 2 * PAGE);
	CHECK_EQ(mkw_truncate(first, 6 * PAGE), 0);
	CHECK_EQ(mkw_size(second), 6 * PAGE);
	CHECK_EQ(try_read(b + 6 * PAGE, &byte, NULL), -ENXIO);
	/* One may go, the other stays. */
	CHECK_EQ(mkw_unmap(a, FILE_PAGES * PAGE), 0);
	CHECK_EQ(mkw_close(first), 0);
	b[5 * PAGE] = 78;
	CHECK_EQ(mkw_sync(second, 0, 0), 0);
	CHECK_EQ(mkw_unmap(b, FILE_PAGES * PAGE), 0);
	CHECK_EQ(mkw_close(second), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	CHECK_EQ(unlink(other + strlen("file:")), 0);
	rig_file_remove(path);
}

TEST(same_file_two_spaces, "design, one file one cache: this process in another space gets EBUSY")
{
	char path[RIG_PATH_MAX], uri[RIG_PATH_MAX + 8];
	struct mkw_space *spaces[2];
	struct mkw_handle *handle, *other = NULL;

	rig_file_make(path, FILE_PAGES * PAGE);
	uri_of(uri, path);
	REQUIRE_EQ(mkw_space_create(&quiet, &spaces[0]), 0);
	REQUIRE_EQ(mkw_space_create(&quiet, &spaces[1]), 0);
	REQUIRE_EQ(mkw_open(spaces[0], uri, MKW_RDWR, &handle), 0);
	CHECK_EQ(mkw_open(spaces[1], uri, MKW_RDWR, &other), -EBUSY);
	CHECK(mkw_error_message()[0] != '\0');
	CHECK_EQ(mkw_close(handle), 0);
	REQUIRE_EQ(mkw_open(spaces[1], uri, MKW_RDWR, &other), 0);
	CHECK_EQ(mkw_close(other), 0);
	CHECK_EQ(mkw_space_destroy(spaces[0], 0), 0);
	CHECK_EQ(mkw_space_destroy(spaces[1], 0), 0);
	rig_file_remove(path);
}

/* Another process: opens what it is told to, and says what came of it. */
struct opener {
	pid_t pid;
	int to, from; /* commands: 'o' open, 'c' close; answers: a negative errno */
};

static void opener_main(const char *uri, int commands, int answers)
{
	struct mkw_handle *handle = NULL;
	struct mkw_space *space;
	int result = mkw_space_create(&quiet, &space);
	char command;

	while (result == 0 && read(commands, &command, 1) == 1) {
		if (command == 'o')
			result = mkw_open(space, uri, MKW_RDWR, &handle);
		else
			result = mkw_close(handle);
		if (write(answers, &result, sizeof(result)) != sizeof(result))
			_exit(1);
		result = 0;
	}
	_exit(0);
}

/* Before this process has a space. */
static void opener_start(struct opener *opener, const char *uri)
{
	int commands[2], answers[2];

	REQUIRE_EQ(pipe2(commands, O_CLOEXEC), 0);
	REQUIRE_EQ(pipe2(answers, O_CLOEXEC), 0);
	opener->pid = fork();
	REQUIRE(opener->pid >= 0);
	if (opener->pid == 0) {
		close(commands[1]);
		close(answers[0]);
		opener_main(uri, commands[0], answers[1]);
	}
	close(commands[0]);
	close(answers[1]);
	opener->to = commands[1];
	opener->from = answers[0];
}

static int opener_do(struct opener *opener, char command)
{
	int result = 0;

	REQUIRE_EQ(write(opener->to, &command, 1), 1);
	REQUIRE_EQ(read(opener->from, &result, sizeof(result)), sizeof(result));
	return result;
}

static void opener_end(struct opener *opener, int signo)
{
	int status;

	if (signo)
		REQUIRE_EQ(kill(opener->pid, signo), 0);
	close(opener->to);
	close(opener->from);
	REQUIRE_EQ(waitpid(opener->pid, &status, 0), opener->pid);
}

TEST(other_process_busy,
     "design, one file one cache: another process that would write is met with EBUSY, "
     "both ways, until this one has closed, or has died")
{
	char path[RIG_PATH_MAX], uri[RIG_PATH_MAX + 8];
	struct mkw_handle *handle = NULL;
	struct mkw_space *space;
	struct opener opener;

	rig_file_make(path, FILE_PAGES * PAGE);
	uri_of(uri, path);
	opener_start(&opener, uri);
	REQUIRE_EQ(mkw_space_create(&quiet, &space), 0);
	REQUIRE_EQ(mkw_open(space, uri, MKW_RDWR, &handle), 0);
	CHECK_EQ(opener_do(&opener, 'o'), -EBUSY);
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(opener_do(&opener, 'o'), 0);
	CHECK_EQ(mkw_open(space, uri, MKW_RDWR, &handle), -EBUSY);
	CHECK(mkw_error_message()[0] != '\0');
	CHECK_EQ(opener_do(&opener, 'c'), 0);
	CHECK_EQ(mkw_open(space, uri, MKW_RDWR, &handle), 0);
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(opener_do(&opener, 'o'), 0);
	opener_end(&opener, SIGKILL);
	CHECK_EQ(mkw_open(space, uri, MKW_RDWR, &handle), 0);
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	rig_file_remove(path);
}

/* ---- What outlives what ------------------------------------------------------------------- */

TEST_EACH_BACKEND(object_outlives_handle,
		  "mkwrite.h, mkw_close: views stay; the object lives as long as "
		  "one of them, and is the one that a new opening gets")
{
	static const size_t written[] = {0, 3, 5}; /* by 1, 2, 3 */
	char path[RIG_PATH_MAX], uri[RIG_PATH_MAX + 8];
	struct mkw_handle *handle;
	struct mkw_space *space;
	unsigned char *view, byte;
	int fd;

	rig_file_make(path, FILE_PAGES * PAGE);
	uri_of(uri, path);
	REQUIRE_EQ(mkw_space_create(&quiet, &space), 0);
	REQUIRE_EQ(mkw_open(space, uri, MKW_RDWR, &handle), 0);
	view = map_file(handle);
	view[0] = 1;
	CHECK_EQ(mkw_close(handle), 0);
	CHECK_EQ(view[3 * PAGE + 4], script_pattern(3 * PAGE + 4, 0));
	view[3 * PAGE] = 2;
	CHECK_EQ(mkw_msync(view, PAGE), 0);
	REQUIRE_EQ(mkw_open(space, uri, MKW_RDWR, &handle), 0);
	CHECK_EQ(mkw_pread(handle, &byte, 1, 3 * PAGE), 1);
	CHECK_EQ(byte, 2);
	CHECK_EQ(mkw_close(handle), 0);
	view[5 * PAGE] = 3;
	CHECK_EQ(mkw_unmap(view, FILE_PAGES * PAGE), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	for (size_t i = 0; i < 3; i++) {
		CHECK_EQ(pread(fd, &byte, 1, (off_t)(written[i] * PAGE)), 1);
		CHECK_EQ(byte, i + 1);
	}
	close(fd);
	rig_file_remove(path);
}

TEST_EACH_BACKEND(destroy_with_handles,
		  "mkwrite.h: a space with open handles is not ended: EBUSY, and "
		  "it works on")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	*rig_word(rig.view, 1) = 1;
	CHECK_EQ(mkw_space_destroy(rig.space, 0), -EBUSY);
	CHECK_EQ(mkw_space_destroy(rig.space, MKW_DISCARD), -EBUSY);
	CHECK_EQ(*rig_word(rig.view, 1), 1);
	*rig_word(rig.view, 2) = 2;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(destroy_unmaps, "mkwrite.h: ending a space unmaps its views, writes and releases")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	*rig_word(rig.view, 1) = 1;
	CHECK_EQ(mkw_close(rig.handle), 0);
	CHECK_EQ(mkw_space_destroy(rig.space, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 1);
	CHECK_EQ(script_unsynced(rig.store), 0);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 1);
	CHECK(script_destroy(rig.store));
}

TEST_EACH_BACKEND(destroy_fails_keeps,
		  "contract 11: a space whose pages cannot be written is left as it "
		  "was, views and all, says so by EBUSY, and can be ended later")
{
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	*rig_word(rig.view, 1) = 1;
	CHECK_EQ(mkw_close(rig.handle), 0);
	script_fail(rig.store, SCRIPT_WRITE, 1, SCRIPT_FOREVER, -EIO);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(mkw_space_destroy(rig.space, 0), -EBUSY);
		CHECK(strstr(mkw_error_message(), "write") != NULL);
		CHECK_EQ(rig_space_stat(&rig).dirty_bytes, PAGE);
		CHECK_EQ(*rig_word(rig.view, 1), 1);
	}
	*rig_word(rig.view, 2) = 2;
	script_fail(rig.store, SCRIPT_WRITE, 1, 0, 0);
	REQUIRE_EQ(mkw_space_destroy(rig.space, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 1);
	CHECK_EQ(rig_stored_word(&rig, 2), 2);
	CHECK(script_destroy(rig.store));
}

TEST_EACH_BACKEND(destroy_discards,
		  "contract 11: with MKW_DISCARD what cannot be written is dropped, the "
		  "space ends, and the error is returned")
{
	struct rig rig, other;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	rig_add(&other, &rig, 8, MKW_RDWR);
	*rig_word(rig.view, 1) = 1;
	*rig_word(other.view, 1) = 1;
	CHECK_EQ(mkw_close(rig.handle), 0);
	CHECK_EQ(mkw_close(other.handle), 0);
	script_fail(rig.store, SCRIPT_WRITE, 1, SCRIPT_FOREVER, -EIO);
	CHECK_EQ(mkw_space_destroy(rig.space, MKW_DISCARD), -EIO);
	/* What could be written was. */
	CHECK_EQ(rig_stored_word(&other, 1), 1);
	CHECK_EQ(rig_stored_word(&rig, 1), 0);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 1);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK(script_destroy(rig.store));
	CHECK(script_destroy(other.store));
}

/* ---- Under load --------------------------------------------------------------------------- */

static _Thread_local sigjmp_buf gone_jump;
static _Thread_local volatile sig_atomic_t gone_armed;

static void gone_handler(int signo)
{
	if (!gone_armed) {
		signal(signo, SIG_DFL);
		return;
	}
	gone_armed = 0;
	siglongjmp(gone_jump, 1);
}

/* Writes and reads until the view is gone from under it. */
struct faulter {
	unsigned char *view;
	uint64_t pages, seed;
	_Atomic uint64_t done;
	bool gone;
	struct test_thread thread;
};

/* TSan holds a lock of its own across an atomic access, which here waits for the library. */
__attribute__((no_sanitize("thread"))) static void count_up(_Atomic uint64_t *word)
{
	atomic_fetch_add(word, 1);
}

static void *faulter_run(void *arg)
{
	struct faulter *faulter = arg;
	uint64_t random = faulter->seed;

	if (sigsetjmp(gone_jump, 1)) {
		faulter->gone = true;
		return NULL;
	}
	gone_armed = 1;
	for (;;) {
		uint64_t page = rig_random(&random) % faulter->pages;

		count_up(rig_word(faulter->view, page));
		atomic_fetch_add(&faulter->done, 1);
	}
}

#define FAULTERS 4

/* Start threads that fault on a view of many pages; the program catches the SIGSEGV that each of
 * them ends by. */
static void faulters_start(struct faulter *faulters, struct rig *rig)
{
	for (uint64_t i = 0; i < FAULTERS; i++) {
		faulters[i] =
			(struct faulter){.view = rig->view, .pages = rig->pages, .seed = i + 1};
		test_thread_start(&faulters[i].thread, faulter_run, &faulters[i]);
	}
	for (int i = 0; i < FAULTERS; i++)
		test_wait_until(atomic_load(&faulters[i].done) > 50);
}

static void faulters_join(struct faulter *faulters)
{
	for (int i = 0; i < FAULTERS; i++) {
		test_thread_join(&faulters[i].thread);
		CHECK(faulters[i].gone);
	}
}

static void gone_install(void)
{
	struct sigaction action = {.sa_handler = gone_handler};

	REQUIRE_EQ(sigaction(SIGSEGV, &action, NULL), 0);
}

static void load_open(struct rig *rig)
{
	/* Limits low enough that some of the threads always wait for something. */
	const struct mkw_space_options options = {
		.struct_size = sizeof(struct mkw_space_options),
		.writeback_interval_ms = 2,
		.resident_limit_bytes = 32 * PAGE,
		.dirty_limit_bytes = 8 * PAGE,
	};

	gone_install();
	rig_open(rig, &options, 128, MKW_RDWR);
}

TEST_EACH_BACKEND(unmap_under_load,
		  "5 7.4 unmapping under faulting threads: each gets SIGSEGV, as of "
		  "the kernel, none hangs, and what they wrote stays with the object")
{
	struct faulter faulters[FAULTERS];
	struct rig rig;
	uint64_t sum = 0, done = 0;

	load_open(&rig);
	faulters_start(faulters, &rig);
	CHECK_EQ(mkw_unmap(rig.view, rig.pages * PAGE), 0);
	faulters_join(faulters);
	rig.view = rig_map(rig.handle, rig.pages, 0);
	for (int i = 0; i < FAULTERS; i++)
		done += atomic_load(&faulters[i].done);
	for (uint64_t page = 0; page < rig.pages; page++)
		sum += *rig_word(rig.view, page);
	/* A thread may have been stopped between its addition and its count. */
	CHECK(sum >= done && sum <= done + FAULTERS);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(destroy_under_load,
		  "design, closing under load: ending a space under faulting threads "
		  "ends, and loses nothing they wrote")
{
	struct faulter faulters[FAULTERS];
	uint64_t sum = 0, done = 0;
	struct rig rig;

	load_open(&rig);
	faulters_start(faulters, &rig);
	CHECK_EQ(mkw_space_destroy(rig.space, 0), -EBUSY);
	CHECK_EQ(mkw_close(rig.handle), 0);
	CHECK_EQ(mkw_space_destroy(rig.space, 0), 0);
	faulters_join(faulters);
	for (int i = 0; i < FAULTERS; i++)
		done += atomic_load(&faulters[i].done);
	for (uint64_t page = 0; page < rig.pages; page++)
		sum += rig_stored_word(&rig, page);
	CHECK(sum >= done && sum <= done + FAULTERS);
	CHECK(script_destroy(rig.store));
}

struct unmap_call {
	struct rig *rig;
	int result;
	struct test_thread thread;
};

static void *unmap_run(void *arg)
{
	struct unmap_call *call = arg;

	call->result = mkw_unmap(call->rig->view, call->rig->pages * PAGE);
	return NULL;
}

static void *faulter_once(void *arg)
{
	struct faulter *faulter = arg;

	if (sigsetjmp(gone_jump, 1)) {
		faulter->gone = true;
		return NULL;
	}
	gone_armed = 1;
	*rig_word(faulter->view, 3) = 1;
	gone_armed = 0;
	return NULL;
}

/* Unmap while the store is being asked for a page of the view. */
static void unmap_during(enum script_op op)
{
	struct faulter faulter = {0};
	struct unmap_call call;
	struct rig rig;

	gone_install();
	rig_open(&rig, NULL, 8, MKW_RDWR);
	faulter.view = rig.view;
	test_gate_arm(rig.store, op, SCRIPT_EXIT, SCRIPT_ANY);
	test_thread_start(&faulter.thread, faulter_once, &faulter);
	REQUIRE(test_gate_wait_arrived(rig.store, op, SCRIPT_EXIT, 1));
	call.rig = &rig;
	test_thread_start(&call.thread, unmap_run, &call);
	rig_settle(&call.thread);
	test_gate_release(rig.store, op, SCRIPT_EXIT);
	test_thread_join(&call.thread);
	test_thread_join(&faulter.thread);
	CHECK_EQ(call.result, 0);
	/* It came before the unmapping, or after. */
	rig.view = rig_map(rig.handle, rig.pages, 0);
	CHECK_EQ(*rig_word(rig.view, 3), faulter.gone ? 0 : 1);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(unmap_during_fault, "S0.3 unmapping while fault is asked")
{
	unmap_during(SCRIPT_FAULT);
}

TEST_EACH_BACKEND(unmap_during_mkwrite,
		  "S0.3 2.5 unmapping while page_mkwrite is asked: the wasted grant "
		  "is given back")
{
	unmap_during(SCRIPT_MKWRITE);
}

TEST_EACH_BACKEND(unmap_wakes_parked,
		  "design, every wait can be ended: unmapping ends the waits for "
		  "space and for the limit")
{
	static const unsigned char bytes[2 * MKW_PAGE_SIZE] = {1};
	struct faulter waiting = {0}, limited = {0};
	struct rig rig, other;

	gone_install();
	rig_open(&rig, NULL, 8, MKW_RDWR);
	rig_add(&other, &rig, 8, MKW_RDWR);
	script_set_capacity(rig.store, 0);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_WAIT, NULL, NULL), 0);
	waiting.view = rig.view;
	test_thread_start(&waiting.thread, faulter_once, &waiting);
	CHECK_STUCK(&waiting.thread);

	CHECK_EQ(mkw_set_limits(other.handle, 0, 2 * PAGE), 0);
	test_gate_arm(other.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	/* Not by the view: a page may be under write-back again before its store is executed. */
	CHECK_EQ(mkw_pwrite(other.handle, bytes, sizeof(bytes), 0), sizeof(bytes));
	limited.view = other.view;
	test_thread_start(&limited.thread, faulter_once, &limited);
	REQUIRE(test_gate_wait_arrived(other.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	CHECK_STUCK(&limited.thread);

	CHECK_EQ(mkw_unmap(rig.view, 8 * PAGE), 0);
	CHECK_EQ(mkw_unmap(other.view, 8 * PAGE), 0);
	test_thread_join(&waiting.thread);
	test_thread_join(&limited.thread);
	CHECK(waiting.gone);
	CHECK(limited.gone);
	test_gate_release(other.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	rig.view = other.view = NULL;
	rig_leave(&other);
	rig_close(&rig);
	CHECK(script_destroy(other.store));
}

/* ---- Opening and closing often ------------------------------------------------------------ */

struct churner {
	struct mkw_space *space;
	const char *uri;
	unsigned rounds;
	uint64_t page;
	struct test_thread thread;
};

static void *churner_run(void *arg)
{
	struct churner *churner = arg;

	for (unsigned i = 0; i < churner->rounds; i++) {
		struct mkw_handle *handle;
		unsigned char *view;

		if (!CHECK_EQ(mkw_open(churner->space, churner->uri, MKW_RDWR, &handle), 0))
			return NULL;
		view = map_file(handle);
		if (!CHECK_EQ(*rig_word(view, churner->page), i))
			return NULL;
		*rig_word(view, churner->page) = i + 1;
		CHECK_EQ(mkw_unmap(view, FILE_PAGES * PAGE), 0);
		CHECK_EQ(mkw_close(handle), 0);
	}
	return NULL;
}

TEST_EACH_BACKEND(churn,
		  "design, one file one cache: threads that open, write, unmap and close one file "
		  "at a time lose nothing")
{
	char path[RIG_PATH_MAX], uri[RIG_PATH_MAX + 8];
	struct churner churners[3];
	struct mkw_space *space;

	rig_file_make(path, 0);
	REQUIRE_EQ(truncate(path, (off_t)(FILE_PAGES * PAGE)), 0);
	uri_of(uri, path);
	REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
	for (uint64_t i = 0; i < 3; i++) {
		churners[i] = (struct churner){
			.space = space, .uri = uri, .rounds = test_rounds(60), .page = 2 * i};
		test_thread_start(&churners[i].thread, churner_run, &churners[i]);
	}
	for (int i = 0; i < 3; i++)
		test_thread_join(&churners[i].thread);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	rig_file_remove(path);
}
