/* SPDX-License-Identifier: MIT */
/*
 * ranks.c - the order of the library's own locks (src/lock/rank.h): what breaks it ends the process
 * with a sentence that names both locks and both places. Each mistake is made in a child, and its
 * last words are read.
 */
#include "harness/rig.h"

#include "mmu/machine.h"
#include "vm/env.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct env_mutex region, leaf, leaf_too;
static struct env_rwlock views;
static struct env_cond cond;
static pthread_mutex_t machine = PTHREAD_MUTEX_INITIALIZER, machine_too = PTHREAD_MUTEX_INITIALIZER;

/* clang-format off */
static void region_take(void) { env_lock(&region); } enum { REGION_LINE = __LINE__ };
static void leaf_take(void) { env_lock(&leaf); } enum { LEAF_LINE = __LINE__ };
/* clang-format on */

static void locks_init(void)
{
#ifndef MKW_DEBUG
	SKIP("this build does not check the ranks of locks: buildtype=debug or -Dchecks=true does");
#endif
	env_mutex_init(&region, RANK_REGION);
	env_mutex_init(&leaf, RANK_LEAF);
	env_mutex_init(&leaf_too, RANK_LEAF);
	env_rwlock_init(&views, RANK_VIEWS);
	env_cond_init(&cond);
}

/* The child that runs fn is ended by assert, and says so. */
static void check_dies(void (*fn)(void), const char *sentence)
{
	char said[1024] = "";
	size_t length = 0;
	int ends[2], status;
	ssize_t n;
	pid_t pid;

	REQUIRE_EQ(pipe(ends), 0);
	pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		dup2(ends[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(ends[1]);
	while ((n = read(ends[0], said + length, sizeof(said) - 1 - length)) > 0)
		length += (size_t)n;
	close(ends[0]);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	if (!CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) ||
	    !CHECK(strstr(said, sentence) != NULL))
		test_note("\"%s\" is not in: %s", sentence, said);
}

static void descend(void)
{
	leaf_take();
	region_take();
}

TEST(ranks_descending, "a lock of a lower rank: both locks and both places are named")
{
	char sentence[200];

	locks_init();
	snprintf(sentence, sizeof(sentence),
		 "region lock (rank %d) taken at ranks.c:%d after leaf lock (rank %d) taken at "
		 "ranks.c:%d",
		 RANK_REGION, REGION_LINE, RANK_LEAF, LEAF_LINE);
	check_dies(descend, sentence);
}

static void take_equal(void)
{
	env_lock_at(&leaf, "one.c:1");
	env_lock_at(&leaf_too, "two.c:2");
}

static void read_after(void)
{
	env_lock_at(&region, "one.c:1");
	env_read_lock_at(&views, "two.c:2");
}

static void write_after(void)
{
	env_lock_at(&region, "one.c:1");
	env_write_lock_at(&views, "two.c:2");
}

TEST(ranks_equal, "two locks of the same rank, and an rwlock out of order")
{
	locks_init();
	check_dies(take_equal, "leaf lock (rank 9) taken at two.c:2 after leaf lock (rank 9) "
			       "taken at one.c:1");
	check_dies(read_after, "views lock (rank 3) taken at two.c:2 after region lock (rank 5) "
			       "taken at one.c:1");
	check_dies(write_after, "views lock (rank 3) taken at two.c:2 after region lock (rank 5) "
				"taken at one.c:1");
}

static void two_of_the_machine(void)
{
	machine_lock_at(&machine, "one.c:1");
	machine_lock_at(&machine_too, "two.c:2");
}

static void leaf_below_the_machine(void)
{
	machine_lock_at(&machine, "one.c:1");
	env_lock_at(&leaf, "two.c:2");
}

TEST(ranks_machine, "whoever holds a lock of the machine takes no other")
{
	locks_init();
	check_dies(two_of_the_machine, "machine lock (rank 100) taken at two.c:2 after machine "
				       "lock (rank 100) taken at one.c:1");
	check_dies(leaf_below_the_machine, "leaf lock (rank 9) taken at two.c:2 after machine "
					   "lock (rank 100) taken at one.c:1");
}

static void hold_across(void)
{
	env_lock_at(&leaf, "one.c:1");
	env_assert_unlocked();
}

static void wait_with_two(void)
{
	env_lock_at(&region, "one.c:1");
	env_lock_at(&leaf, "two.c:2");
	env_wait_at(&cond, &leaf, "three.c:3");
}

static void wait_a_while_with_two(void)
{
	env_lock_at(&region, "one.c:1");
	env_lock_at(&leaf, "two.c:2");
	env_wait_until_at(&cond, &leaf, 0, "three.c:3");
}

static void unlock_twice(void)
{
	env_lock_at(&leaf, "one.c:1");
	rank_drop(&leaf);
	rank_drop(&leaf);
}

TEST(ranks_held, "S0.2 a lock held across what sleeps, or given back by who does not hold it")
{
	locks_init();
	check_dies(hold_across, "leaf lock (rank 9) taken at one.c:1 is held while");
	check_dies(wait_with_two, "region lock (rank 5) taken at one.c:1 is held during the wait "
				  "at three.c:3");
	check_dies(wait_a_while_with_two, "region lock (rank 5) taken at one.c:1 is held during "
					  "the wait at three.c:3");
	check_dies(unlock_twice, "given back that this thread does not hold");
}

static void *other_thread(void *arg)
{
	(void)arg;
	region_take();
	env_unlock(&region);
	return NULL;
}

TEST(ranks_ascending, "ascending ranks, given back in any order, by each thread for itself")
{
	struct test_thread thread;

	locks_init();
	for (int round = 0; round < 2; round++) {
		env_read_lock(&views);
		region_take();
		leaf_take();
		machine_lock(&machine);
		env_unlock(&region);
		env_read_unlock(&views);
		machine_unlock(&machine);
		/* This one holds a leaf, which is none of the other's business. */
		test_thread_start(&thread, other_thread, NULL);
		test_thread_join(&thread);
		env_unlock(&leaf);
		env_assert_unlocked();
	}
}
