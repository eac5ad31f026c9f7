/* SPDX-License-Identifier: MIT */
/*
 * race_refusal.c - interleavings of refusals with what else reaches or moves the thread concerned.
 */
#include "harness/rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

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
