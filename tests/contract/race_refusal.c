/* SPDX-License-Identifier: MIT */
/*
 * race_refusal.c - interleavings of refusals with what else reaches or moves the thread concerned.
 */
#include "harness/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* ---- A signal while the store decides ----------------------------------------------------- */

static void signal_nothing(int sig)
{
	(void)sig;
}

/* A thread that writes a page, which is refused, and then reads another one. */
struct twice {
	struct test_thread thread;
	unsigned char *refused, *read;
	int first, second;
};

static void *twice_run(void *arg)
{
	struct twice *twice = arg;
	unsigned char value;

	twice->first = try_write(twice->refused, 1, NULL);
	twice->second = try_read(twice->read, &value, NULL);
	return NULL;
}

TEST(interrupted_write_refused_once,
     "3.5 a write that a signal interrupts while the store decides is refused once, and where it "
     "is made")
{
	const struct sigaction action = {.sa_handler = signal_nothing, .sa_flags = SA_RESTART};
	struct twice twice;
	struct world w;

	REQUIRE_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	world_make(&w, 2 * PAGE);
	world_open(&w, 2 * PAGE);
	twice = (struct twice){.refused = w.view, .read = w.view + PAGE};
	script_fail(w.store, SCRIPT_MKWRITE, 1, SCRIPT_FOREVER, -ENOSPC);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 0);
	test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1);
	test_thread_start(&twice.thread, twice_run, &twice);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	/* Its second fault waits for the answer to the first one. */
	REQUIRE_EQ(pthread_kill(twice.thread.thread, SIGUSR1), 0);
	test_wait_until(world_stat(&w).waits == 1);
	test_gate_step(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	/* Now it reads. The second fault may be asking: its refusal is nobody's any more. */
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1));
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	CHECK_STUCK(&twice.thread);
	test_gate_release(w.store, SCRIPT_FAULT, SCRIPT_ENTRY);
	test_thread_join(&twice.thread);
	CHECK_EQ(twice.first, -ENOSPC);
	CHECK_EQ(twice.second, 0);
	world_end(&w);
}

/* ---- A SIGBUS of the program's while a system call is refused ----------------------------- */

/* A thread that reads a byte into a page where that is refused, and again where it is not. */
struct two_calls {
	struct test_thread thread;
	struct script_store *store;
	unsigned char *page;
	int fd, error;
	ssize_t first, second;
};

static void *two_calls_run(void *arg)
{
	struct two_calls *calls = arg;

	calls->first = read(calls->fd, calls->page, 1);
	calls->error = errno;
	script_fail_page(calls->store, SCRIPT_MKWRITE, 0, 0);
	calls->second = read(calls->fd, calls->page, 1);
	return NULL;
}

TEST(call_refused_with_sigbus_pending,
     "4.7 a SIGBUS that the program sends meanwhile takes nothing from the refusal of a system "
     "call: the next call is not refused unasked")
{
	const struct sigaction action = {.sa_handler = signal_nothing, .sa_flags = SA_RESTART};
	struct two_calls calls;
	struct world w;
	int fds[2];

	REQUIRE_EQ(sigaction(SIGBUS, &action, NULL), 0);
	REQUIRE_EQ(pipe(fds), 0);
	for (unsigned i = 0; i < test_rounds(5); i++) {
		REQUIRE_EQ(write(fds[1], "ab", 2), 2);
		world_make(&w, PAGE);
		world_open(&w, PAGE);
		calls = (struct two_calls){.store = w.store, .page = w.view, .fd = fds[0]};
		script_fail_page(w.store, SCRIPT_MKWRITE, 0, -ENOSPC);
		test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 0);
		test_thread_start(&calls.thread, two_calls_run, &calls);
		REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
		REQUIRE_EQ(pthread_kill(calls.thread.thread, SIGBUS), 0);
		test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
		test_thread_join(&calls.thread);
		CHECK_EQ(calls.first, -1);
		CHECK_EQ(calls.error, EFAULT);
		CHECK_EQ(calls.second, 1);
		/* The other byte, if the second was refused. */
		fcntl(fds[0], F_SETFL, O_NONBLOCK);
		while (read(fds[0], w.view, 1) == 1)
			;
		fcntl(fds[0], F_SETFL, 0);
		world_end(&w);
	}
	close(fds[0]);
	close(fds[1]);
}
