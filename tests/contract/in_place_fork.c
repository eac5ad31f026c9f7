/* SPDX-License-Identifier: MIT */
/*
 * in_place_fork.c - 7.1 a child of fork has the spaces in place as its own, whatever the threads of
 * its parent were at when it was made.
 */
#include "place.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 3u
#define PAGES	256u

struct fire {
	struct place p;
	_Atomic bool stop;
	_Atomic unsigned done;
};

struct gun {
	struct test_thread thread;
	struct fire *fire;
	unsigned first;
};

/* Each thread has bytes of its own in every page: they are what it wrote last. */
static void *shoot(void *arg)
{
	struct gun *gun = arg;
	struct fire *fire = gun->fire;
	unsigned char *at = fire->p.map + gun->first;
	unsigned char byte = 1;

	for (unsigned n = 0; !atomic_load(&fire->stop); n++) {
		unsigned page = (n * 7 + gun->first * 31) % PAGES;

		if (n % PAGES == 0)
			byte++;
		place_write(at + page * PAGE, byte);
		if (at[page * PAGE] != byte)
			CHECK_EQ(at[page * PAGE], byte);
		atomic_fetch_add(&fire->done, 1);
	}
	return NULL;
}

/* Bytes 100 and on are the child's. */
static int shoot_in_child(void *arg)
{
	struct fire *fire = arg;

	for (unsigned n = 0; n < PAGES; n++)
		place_write(fire->p.map + n * 5 % PAGES * PAGE + 100, (unsigned char)n);
	for (unsigned n = 0; n < PAGES; n++)
		if (fire->p.map[n * 5 % PAGES * PAGE + 100] != (unsigned char)n)
			return 1;
	if (mkw_sync(fire->p.handle, 0, 0) != 0)
		return 2;
	if (place_stat(&fire->p).dirty_bytes != 0)
		return 3;
	return mkw_unmap(fire->p.map, fire->p.length) == 0 ? 0 : 4;
}

static void fork_under_fire(size_t limit)
{
	struct gun guns[THREADS];
	struct fire fire = {.stop = false};

	place_not_under_asan();
	place_open_limit(&fire.p, limit, PAGES);
	for (unsigned i = 0; i < THREADS; i++) {
		guns[i] = (struct gun){.fire = &fire, .first = i};
		test_thread_start(&guns[i].thread, shoot, &guns[i]);
	}
	for (unsigned i = 0; i < test_rounds(60); i++) {
		unsigned before = atomic_load(&fire.done);

		CHECK_EQ(place_child(shoot_in_child, &fire), 0);
		test_wait_until(atomic_load(&fire.done) > before);
	}
	atomic_store(&fire.stop, true);
	for (unsigned i = 0; i < THREADS; i++)
		test_thread_join(&guns[i].thread);
	if (limit != 0)
		CHECK(place_stat(&fire.p).dirty_peak_bytes <= limit * PAGE);
	place_close(&fire.p);
}

TEST(in_place_fork_fire, "7.1 children made while threads write go on with views of their own")
{
	test_not_under_tsan();
	fork_under_fire(0);
}

TEST(in_place_fork_fire_limited, "7.1 S1.3 the same under a dirty limit, which children have too")
{
	test_not_under_tsan();
	fork_under_fire(8);
}

/* ---- What waits while the process forks -------------------------------------------------- */

static void *write_first(void *arg)
{
	struct place *p = arg;

	place_write(p->map, 7);
	return NULL;
}

static int write_second(void *arg)
{
	struct place *p = arg;

	place_write(p->map + PAGE, 8);
	return mkw_unmap(p->map, p->length) == 0 && p->map[PAGE] == 8 ? 0 : 1;
}

TEST(in_place_fork_waiting, "7.1 a thread that waits in its fault holds no fork up, and waits on")
{
	struct test_thread thread;
	struct place p;

	test_not_under_tsan();
	place_open(&p, NULL, 64);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	test_thread_start(&thread, write_first, &p);
	test_wait_until(place_stat(&p).waits > 0);
	CHECK_EQ(place_child(write_second, &p), 0);
	CHECK_EQ(p.map[0], 0);
	CHECK(!atomic_load(&thread.ended));
	CHECK_EQ(mkw_resume(p.handle), 0);
	test_thread_join(&thread);
	CHECK_EQ(p.map[0], 7);
	place_close(&p);
}

static struct test_event asked = TEST_EVENT_INIT, answer = TEST_EVENT_INIT;
static struct place *forks_in;
static int forked_status = -1;

static mkw_fault_t answer_late(struct place_store *s, struct mkw_run *run)
{
	(void)s;
	(void)run;
	test_event_set(&asked);
	test_event_wait(&answer);
	return 0;
}

static void *fork_now(void *arg)
{
	forked_status = place_child(write_second, arg);
	return NULL;
}

TEST(in_place_fork_asking, "7.1 a fork waits for a store that is being asked")
{
	struct test_thread writer, forker;
	struct place p;

	test_not_under_tsan();
	place_open(&p, NULL, 64);
	p.store.answer = answer_late;
	test_thread_start(&writer, write_first, &p);
	test_event_wait(&asked);
	p.store.answer = NULL;
	test_thread_start(&forker, fork_now, &p);
	test_wait_thread_blocked(atomic_load(&forker.tid));
	CHECK(!atomic_load(&forker.ended));
	test_event_set(&answer);
	test_thread_join(&writer);
	test_thread_join(&forker);
	CHECK_EQ(forked_status, 0);
	CHECK_EQ(p.map[0], 7);
	place_close(&p);
}

/* ---- The thread that forks --------------------------------------------------------------- */

static void write_around(void)
{
	if (forks_in != NULL)
		place_write(forks_in->map + 9 * PAGE, forks_in->map[9 * PAGE] + 1);
}

static void write_in_child(void)
{
	if (forks_in != NULL)
		place_write(forks_in->map + 10 * PAGE, forks_in->map[10 * PAGE] + 1);
}

TEST(in_place_fork_handlers, "7.1 handlers of others around a fork may write to views")
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct place p;

	/* Before the library's: they are run within its own. */
	REQUIRE_EQ(pthread_atfork(write_around, write_around, write_in_child), 0);
	options.dirty_limit_bytes = 8 * PAGE;
	place_open(&p, &options, 64);
	forks_in = &p;
	CHECK_EQ(place_child(write_second, &p), 0);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(place_child(write_second, &p), 0);
	CHECK_EQ(p.map[9 * PAGE], 4);
	CHECK_EQ(p.map[10 * PAGE], 2);
	forks_in = NULL;
	place_close(&p);
}

/* ---- Spaces ------------------------------------------------------------------------------ */

static int fill_both(void *arg)
{
	struct place *two = arg;

	for (unsigned n = 0; n < PAGES; n++) {
		place_write(two[0].map + n * 3 % PAGES * PAGE, 3);
		place_write(two[1].map + n * 3 % PAGES * PAGE, 3);
	}
	return 0;
}

static int fill_and_fork(void *arg)
{
	int status = place_child(fill_both, arg);

	return status == 0 ? fill_both(arg) : 1;
}

TEST(in_place_fork_spaces, "7.1 two spaces with limits go on in children, and in theirs")
{
	struct place two[2];

	test_not_under_tsan();
	place_not_under_asan();
	place_open_limit(&two[0], 4, PAGES);
	place_open_limit(&two[1], 4, PAGES);
	place_write(two[0].map, 1);
	place_write(two[1].map, 1);
	for (unsigned i = 0; i < 10; i++)
		CHECK_EQ(place_child(fill_and_fork, two), 0);
	place_close(&two[0]);
	place_close(&two[1]);
}

static int set_limit_and_fill(void *arg)
{
	struct place *p = arg;

	if (mkw_set_limits(p->handle, 0, 4 * PAGE) != 0)
		return 1;
	for (unsigned n = 0; n < PAGES; n++)
		place_write(p->map + n * 3 % PAGES * PAGE, 3);
	return place_stat(p).dirty_bytes <= 4 * PAGE ? 0 : 2;
}

TEST(in_place_limit_later, "S1.3 7.1 a limit can be set later, and in a child")
{
	struct place p;

	test_not_under_tsan();
	place_open(&p, NULL, PAGES);
	CHECK_EQ(place_child(set_limit_and_fill, &p), 0);
	CHECK_EQ(set_limit_and_fill(&p), 0);
	CHECK_EQ(mkw_set_limits(p.handle, 64 * PAGE, 0), -22);
	place_close(&p);
}
