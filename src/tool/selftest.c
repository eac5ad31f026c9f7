/* SPDX-License-Identifier: MIT */
/*
 * selftest.c - does it really work here? A child process maps an object in memory, writes to every
 * page, syncs, reads back, and tells through a pipe. It is ended after a time, so nothing hangs.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST_PAGES     64u
#define TEST_BYTES     (TEST_PAGES * MKW_PAGE_SIZE)
#define TEST_TIMEOUT_S 10u

struct selftest_state {
	struct mkw_space *space;
	struct mkw_handle *handle;
	unsigned char *view;
};

/* One byte in each page: the first touch of every page is a write. */
static void pages_write(void *arg)
{
	volatile unsigned char *view = arg;

	for (size_t i = 0; i < TEST_PAGES; i++)
		view[i * MKW_PAGE_SIZE + i] = (unsigned char)(i + 1);
}

static int failed(const char *what, int error, char *text, size_t size)
{
	const char *why = mkw_error_message();

	snprintf(text, size, "%s: %s", what, why[0] ? why : strerror(-error));
	return TOOL_FAILED;
}

static int bytes_check(struct mkw_handle *handle, char *text, size_t size)
{
	unsigned char page[MKW_PAGE_SIZE];

	for (size_t i = 0; i < TEST_PAGES; i++) {
		ssize_t got = mkw_pread(handle, page, sizeof(page), i * MKW_PAGE_SIZE);

		if (got < 0)
			return failed("read", (int)got, text, size);
		if (got != (ssize_t)sizeof(page) || page[i] != (unsigned char)(i + 1) ||
		    page[(i + 1) % MKW_PAGE_SIZE] != 0) {
			snprintf(text, size, "page %zu does not hold what was written (a bug)", i);
			return TOOL_FAILED;
		}
	}
	return 0;
}

static int object_test(struct selftest_state *state, unsigned map_flags, char *text, size_t size)
{
	struct mkw_refusal refusal;
	struct mkw_stat stat;
	char uri[32];
	void *view;
	int error;

	snprintf(uri, sizeof(uri), "mem:%u", TEST_BYTES);
	error = mkw_space_create(NULL, &state->space);
	if (error != 0)
		return failed("space", error, text, size);
	error = mkw_open(state->space, uri, MKW_RDWR, &state->handle);
	if (error != 0)
		return failed(uri, error, text, size);
	error = mkw_map(state->handle, TEST_BYTES, MKW_READ | MKW_WRITE, map_flags, 0, &view);
	if (error != 0)
		return failed("map", error, text, size);
	state->view = view;
	error = mkw_guard(pages_write, view, &refusal);
	if (error != 0)
		return failed("write", error, text, size);
	error = mkw_sync(state->handle, 0, 0);
	if (error != 0)
		return failed("sync", error, text, size);
	if (bytes_check(state->handle, text, size) != 0)
		return TOOL_FAILED;
	error = mkw_space_stat(state->space, &stat, sizeof(stat));
	if (error != 0)
		return failed("statistics", error, text, size);
	snprintf(text, size,
		 "%u pages written, %" PRIu64 " notifications, %" PRIu64 " events, %" PRIu64
		 " pages written back",
		 TEST_PAGES, stat.notifications, stat.events, stat.pages_written);
	return 0;
}

static int object_close(struct selftest_state *state, char *text, size_t size)
{
	int error;

	if (state->view) {
		error = mkw_unmap(state->view, TEST_BYTES);
		if (error != 0)
			return failed("unmap", error, text, size);
	}
	if (state->handle) {
		error = mkw_close(state->handle);
		if (error != 0)
			return failed("close", error, text, size);
	}
	if (state->space) {
		error = mkw_space_destroy(state->space, 0);
		if (error != 0)
			return failed("end of the space", error, text, size);
	}
	return 0;
}

static void child_run(unsigned map_flags, int output) __attribute__((noreturn));
static void child_run(unsigned map_flags, int output)
{
	struct selftest_state state = {0};
	char text[SELFTEST_TEXT_MAX] = "", close_text[SELFTEST_TEXT_MAX] = "";
	int code;

	signal(SIGALRM, SIG_DFL);
	alarm(TEST_TIMEOUT_S);
	code = object_test(&state, map_flags, text, sizeof(text));
	if (object_close(&state, close_text, sizeof(close_text)) != 0 && code == 0) {
		memcpy(text, close_text, sizeof(text));
		code = TOOL_FAILED;
	}
	if (write(output, text, strlen(text)) < 0)
		code = TOOL_FAILED;
	_exit(code);
}

void selftest_run(unsigned map_flags, struct selftest *test)
{
	size_t length = 0;
	int ends[2], status = 0;
	ssize_t got;
	pid_t pid;

	*test = (struct selftest){0};
	if (pipe(ends) != 0) {
		snprintf(test->text, sizeof(test->text), "pipe: %s", strerror(errno));
		return;
	}
	/* Output that waits in our buffers must not leave twice. */
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(ends[0]);
		child_run(map_flags, ends[1]);
	}
	close(ends[1]);
	while (pid > 0 && length < sizeof(test->text) - 1 &&
	       (got = read(ends[0], test->text + length, sizeof(test->text) - 1 - length)) > 0)
		length += (size_t)got;
	close(ends[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		snprintf(test->text, sizeof(test->text), "child: %s", strerror(errno));
		return;
	}
	test->passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		snprintf(test->text, sizeof(test->text), "it did not end within %u s (a bug)",
			 TEST_TIMEOUT_S);
	else if (WIFSIGNALED(status))
		snprintf(test->text, sizeof(test->text), "killed by %s (a bug)",
			 strsignal(WTERMSIG(status)));
}
