/* SPDX-License-Identifier: MIT */
/*
 * harness.c - the test harness tested: this program runs itself as a child, asks it for one of the
 * tests that are meant to fail, and looks at what it answers.
 */
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct answer {
	int status;
	char text[65536];
};

static void run_plant(const char *name, const char *timeout_s, struct answer *answer)
{
	size_t length = 0;
	int pipe_fds[2];
	ssize_t got;
	pid_t pid;

	REQUIRE(!pipe2(pipe_fds, O_CLOEXEC));
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		dup2(pipe_fds[1], STDERR_FILENO);
		setenv("MKW_TEST_PLANT", "1", 1);
		setenv("MKW_TEST_TIMEOUT_S", timeout_s, 1);
		execl("/proc/self/exe", "harness", name, (char *)NULL);
		_exit(126);
	}
	close(pipe_fds[1]);
	while ((got = read(pipe_fds[0], answer->text + length, sizeof(answer->text) - 1 - length)) >
	       0)
		length += (size_t)got;
	answer->text[length] = 0;
	close(pipe_fds[0]);
	REQUIRE(waitpid(pid, &answer->status, 0) == pid);
	test_note("%s", answer->text);
}

static void check_fails(const char *name, const char *timeout_s, const char *because)
{
	static struct answer answer;

	run_plant(name, timeout_s, &answer);
	CHECK(WIFEXITED(answer.status));
	CHECK_EQ(WEXITSTATUS(answer.status), 1);
	CHECK(strstr(answer.text, "\nnot ok 1 - "));
	CHECK(strstr(answer.text, because));
}

static int zero;

static void plant_check(void)
{
	CHECK_EQ(zero + 2, 3);
	CHECK_MEM("abc", "abd", 3);
	test_note("still here");
}

static void plant_require(void)
{
	REQUIRE(zero);
	test_note("never here");
}

static void plant_signal(void)
{
	signal(SIGBUS, SIG_DFL);
	raise(SIGBUS);
}

static void plant_hang(void)
{
	for (;;)
		pause();
}

static void plant_descriptor(void)
{
	CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

static void *wait_for_event(void *arg)
{
	struct test_event *event = arg;

	test_event_wait(event);
	return arg;
}

static void plant_thread(void)
{
	static struct test_event never = TEST_EVENT_INIT;
	static struct test_thread thread;

	test_thread_start(&thread, wait_for_event, &never);
}

static void plant_wait(void)
{
	static struct test_event never = TEST_EVENT_INIT;

	test_event_wait(&never);
}

/* ---- The plants: tests meant to fail, there only in the child ------------------------------- */

#define PLANT(name_)                                                              \
	{                                                                         \
		.name = #name_, .what = "planted", .run = name_, .file = __FILE__ \
	}

__attribute__((constructor)) static void register_plants(void)
{
	static struct test_case plants[] = {
		PLANT(plant_check), PLANT(plant_require),    PLANT(plant_signal),
		PLANT(plant_hang),  PLANT(plant_descriptor), PLANT(plant_thread),
		PLANT(plant_wait),
	};

	for (size_t i = 0; getenv("MKW_TEST_PLANT") && i < sizeof(plants) / sizeof(plants[0]); i++)
		test_register(&plants[i]);
}

/* ---- The tests ----------------------------------------------------------------------------- */

TEST(check_reported, "a failed check says where and what, and the test goes on")
{
	check_fails("plant_check", "60", "zero + 2 == 3: 2 (0x2), not 3 (0x3)");
	check_fails("plant_check", "60", "byte 2 of 3 is 0x63, not 0x64");
	check_fails("plant_check", "60", "unit/harness.c:");
	check_fails("plant_check", "60", "still here");
}

TEST(require_ends, "a failed requirement ends the test")
{
	static struct answer answer;

	check_fails("plant_require", "60", "failed: zero");
	run_plant("plant_require", "60", &answer);
	CHECK(!strstr(answer.text, "never here"));
}

TEST(signal_contained, "a test that is killed fails by itself")
{
	check_fails("plant_signal", "60", "killed by signal 7");
}

TEST(hang_shown, "a hang is a failure, with the place of each thread")
{
	check_fails("plant_hang", "1", "no end after 1 s");
	check_fails("plant_hang", "1", "wchan:");
}

TEST(descriptor_seen, "an open descriptor left behind is a failure")
{
	check_fails("plant_descriptor", "60", "/dev/null");
}

TEST(thread_seen, "a running thread left behind is a failure")
{
	check_fails("plant_thread", "60", "left something behind: /proc/self/task");
}

TEST(vain_wait_seen, "waiting for an event in vain is a failure at that line")
{
	check_fails("plant_wait", "3", "happened 0 times, not 1");
}

TEST(nothing_selected, "running no test is not success")
{
	static struct answer answer;

	run_plant("no-such-test", "60", &answer);
	CHECK_EQ(WEXITSTATUS(answer.status), 2);
}

TEST(events_counted, "events are counted, and a blocked thread is seen blocked")
{
	static struct test_event event = TEST_EVENT_INIT;
	static struct test_thread thread;

	test_thread_start(&thread, wait_for_event, &event);
	test_wait_thread_blocked(thread.tid);
	CHECK(!thread.ended);
	test_event_set(&event);
	CHECK(test_thread_join(&thread) == &event);
	CHECK(thread.ended);
	test_event_set(&event);
	test_event_wait_n(&event, 2);
	CHECK_EQ(test_event_count(&event), 2);
}
