/* SPDX-License-Identifier: MIT */
/* Handler threads: somebody can always read, on the right core, and nothing is left behind. */
#include "mmu_rig.h"

#include <sched.h>

#define SLEEPERS 6

static struct test_event asleep = TEST_EVENT_INIT, let_go = TEST_EVENT_INIT;
static bool announce;

static void serve_asleep(struct rig *r, struct mmu_view *view, uintptr_t address,
			 enum mmu_access access, pid_t tid)
{
	if (address - view->address >= SLEEPERS * PAGE) {
		rig_serve(r, view, address, access, tid);
		return;
	}
	if (announce)
		mmu_sleep_begin(r->mmu);
	test_event_set(&asleep);
	test_event_wait(&let_go);
	if (announce)
		mmu_sleep_end(r->mmu);
	rig_serve(r, view, address, access, tid);
}

static void *write_page(void *arg)
{
	*(volatile _Atomic char *)arg = 1;
	return NULL;
}

static void sleepers_do_not_block(void)
{
	struct test_thread sleeper[SLEEPERS];

	rig_create();
	rig.on_fault = serve_asleep;
	for (unsigned i = 0; i < SLEEPERS; i++)
		test_thread_start(&sleeper[i], write_page, (void *)rig_at(0, i));
	test_event_wait_n(&asleep, SLEEPERS);
	for (size_t i = SLEEPERS; i < RIG_PAGES; i++)
		*rig_at(0, i) = 2;
	CHECK_EQ(test_event_count(&asleep), SLEEPERS);
	test_event_set(&let_go);
	for (unsigned i = 0; i < SLEEPERS; i++)
		test_thread_join(&sleeper[i]);
	CHECK_EQ(rig.writes, RIG_PAGES);
	rig_destroy();
}

TEST(mmu_sleepers, "operations that sleep hold up nobody, more of them than workers")
{
	announce = true;
	sleepers_do_not_block();
}

TEST(mmu_sleepers_unannounced, "nor do those that did not say that they would sleep")
{
	sleepers_do_not_block();
}

static void serve_nested(struct rig *r, struct mmu_view *view, uintptr_t address,
			 enum mmu_access access, pid_t tid)
{
	if (view == &r->view[0]) {
		mmu_sleep_begin(r->mmu);
		*rig_at(1, 100) = 1;
		mmu_sleep_end(r->mmu);
	}
	rig_serve(r, view, address, access, tid);
}

TEST(mmu_operation_faults, "S0.2 an operation may fault itself: another worker serves it")
{
	rig_create();
	rig.on_fault = serve_nested;
	*rig_at(0, 0) = 1;
	CHECK_EQ(rig.writes, 2);
	rig_destroy();
}

static struct test_event readied = TEST_EVENT_INIT;

static void note_ready(struct rig *r)
{
	(void)r;
	test_event_set(&readied);
}

TEST(mmu_kick, "a kick runs ready on a handler thread, also while operations sleep")
{
	struct test_thread sleeper;

	rig_create();
	rig.on_ready = note_ready;
	rig.on_fault = serve_asleep;
	mmu_kick(rig.mmu);
	test_event_wait(&readied);
	test_thread_start(&sleeper, write_page, (void *)rig_at(0, 0));
	test_event_wait(&asleep);
	test_event_reset(&readied);
	mmu_kick(rig.mmu);
	test_event_wait(&readied);
	test_event_set(&let_go);
	test_thread_join(&sleeper);
	rig_destroy();
}

TEST(mmu_create_destroy, "a machine ends without a trace, idle or just having been busy")
{
	for (int i = 0; i < 30; i++) {
		rig_create();
		for (size_t j = 0; j < (size_t)i; j++)
			*rig_at(0, j) = 1;
		rig_destroy();
	}
}

static void bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	REQUIRE_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* Two cores that this process may use. */
static bool two_cores(int cpu[2])
{
	cpu_set_t set;
	int n = 0;

	sched_getaffinity(0, sizeof(set), &set);
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET((size_t)i, &set))
			cpu[n++] = i;
	return n == 2;
}

static _Atomic unsigned elsewhere;
static _Atomic int writer_cpu;

static void serve_where(struct rig *r, struct mmu_view *view, uintptr_t address,
			enum mmu_access access, pid_t tid)
{
	elsewhere += sched_getcpu() != writer_cpu;
	rig_serve(r, view, address, access, tid);
}

TEST(mmu_place, "a handler runs on the core of the thread it serves, and follows it")
{
	int cpu[2];

	if (!two_cores(cpu))
		SKIP("one core only");
	rig_create();
	rig.on_fault = serve_where;
	for (int round = 0; round < 4; round++) {
		writer_cpu = cpu[round % 2];
		bind_to(writer_cpu);
		elsewhere = 0;
		for (int pass = 0; pass < 4; pass++) {
			mmu_protect(&rig.view[0], rig.view[0].address, RIG_PAGES * PAGE);
			for (size_t i = 0; i < RIG_PAGES; i++)
				*rig_at(0, i) = 1;
		}
		test_note("round %d: %u of %u faults served elsewhere", round, elsewhere,
			  4 * RIG_PAGES);
		/* A move is noticed at the 64th event; the deputy may relieve a slow one. */
		CHECK(elsewhere < 2 * RIG_PAGES);
	}
	rig_destroy();
}

static unsigned readers(void)
{
	unsigned n;

	pthread_mutex_lock(&rig.mmu->pool.lock);
	n = rig.mmu->pool.readers;
	pthread_mutex_unlock(&rig.mmu->pool.lock);
	return n;
}

static int core[2];
static _Atomic bool enough;

/* Faults without end on one core, in one half of the view. */
static void *write_half(void *arg)
{
	size_t which = (size_t)arg;
	uintptr_t half = rig.view[0].address + which * (RIG_PAGES / 2) * PAGE;

	bind_to(core[which]);
	while (!enough) {
		mmu_protect(&rig.view[0], half, RIG_PAGES / 2 * PAGE);
		for (size_t i = 0; i < RIG_PAGES / 2; i++)
			*rig_at(0, which * (RIG_PAGES / 2) + i) = 1;
	}
	return NULL;
}

TEST(mmu_place_two,
     "threads that fault on two cores have a reader on each; when they rest one stays")
{
	struct test_thread writer[2];

	if (!two_cores(core))
		SKIP("one core only");
	rig_create();
	for (size_t i = 0; i < 2; i++)
		test_thread_start(&writer[i], write_half, (void *)i);
	test_wait_until(readers() == 2);
	enough = true;
	for (size_t i = 0; i < 2; i++)
		test_thread_join(&writer[i]);
	test_wait_until(readers() == 1);
	*rig_at(1, 0) = 1;
	rig_destroy();
}
