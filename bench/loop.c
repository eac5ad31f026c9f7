/* SPDX-License-Identifier: MIT */
/*
 * loop.c - the loops that everything is measured with: the same for the kernel, the bare mechanism
 * and the library, so that a ratio compares what serves the faults and nothing else.
 */
#include "bench.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

uint64_t bench_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The thread that faults stays on one core in every measure: where a handler runs in relation to
 * it decides more than anything else, and must not be left to the scheduler's mood. */
void bench_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Threads inherit the affinity of who makes them: before a library is let loose to make its own,
 * the pin comes off, so that its choice of core is its own. */
void bench_unpin(void)
{
	cpu_set_t set;

	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);
}

uint64_t bench_kernel_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (uint64_t)(usage.ru_minflt + usage.ru_majflt);
}

static uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x;
}

/* The first order_count of a partial Fisher-Yates shuffle over all pages. */
void bench_shuffle(struct bench *bench)
{
	uint64_t state = 0x9e3779b97f4a7c15u + bench->round;
	size_t pages = bench->size / BENCH_PAGE;

	for (size_t i = 0; i < pages; i++)
		bench->order[i] = (uint32_t)i;
	for (size_t i = 0; i < bench->order_count; i++) {
		size_t j = i + random_next(&state) % (pages - i);
		uint32_t swap = bench->order[i];

		bench->order[i] = bench->order[j];
		bench->order[j] = swap;
	}
}

void bench_write_pages(void *map, size_t pages, const uint32_t *order)
{
	volatile unsigned char *bytes = map;

	for (size_t i = 0; i < pages; i++)
		bytes[(order ? order[i] : i) * BENCH_PAGE] = (unsigned char)(i + 1);
}

void bench_read_pages(const void *map, size_t pages)
{
	const volatile unsigned char *bytes = map;

	for (size_t i = 0; i < pages; i++)
		(void)bytes[i * BENCH_PAGE];
}

void bench_time_writes(void *map, size_t pages, const uint32_t *order, struct bench_sample *sample)
{
	uint64_t faults = bench_kernel_faults();
	uint64_t start = bench_now_ns();

	bench_write_pages(map, pages, order);
	sample->elapsed_ns += bench_now_ns() - start;
	sample->counts.kernel_faults += bench_kernel_faults() - faults;
	sample->units += pages;
}

void bench_time_reads(const void *map, size_t pages, struct bench_sample *sample)
{
	uint64_t faults = bench_kernel_faults();
	uint64_t start = bench_now_ns();

	bench_read_pages(map, pages);
	sample->elapsed_ns += bench_now_ns() - start;
	sample->counts.kernel_faults += bench_kernel_faults() - faults;
	sample->units += pages;
}

#define MIXED_TIME_NS 2000000000u

void bench_time_mixed(void *map, size_t pages, size_t operations, uint64_t seed,
		      struct bench_sample *sample)
{
	static _Alignas(4096) unsigned char page[BENCH_PAGE];
	uint64_t state = seed * 2654435761u + 88172645463325252u;
	uint64_t faults = bench_kernel_faults();
	uint64_t start = bench_now_ns();
	size_t i;

	for (i = 0; i < operations; i++) {
		unsigned char *at = (unsigned char *)map + random_next(&state) % pages * BENCH_PAGE;

		/* Where a kernel thrashes, two seconds show it as well as minutes. */
		if (i % 256 == 255 && bench_now_ns() - start > MIXED_TIME_NS)
			break;
		if (i % 2)
			memcpy(at, page, sizeof(page));
		else
			memcpy(page, at, sizeof(page));
		/* Keep every copy: neither side may be optimized into its neighbour. */
		__asm__ volatile("" : : "r"(page), "r"(at) : "memory");
	}
	sample->elapsed_ns += bench_now_ns() - start;
	sample->counts.kernel_faults += bench_kernel_faults() - faults;
	sample->units += i;
}

/* ---- Two threads -------------------------------------------------------------------------- */

struct two {
	pthread_t thread;
	pthread_barrier_t *barrier;
	int cpu;
	void *map;
	size_t pages, order_count;
	const uint32_t *order; /* of the whole map: pages of the other half are left out */
	uint32_t first, end;
	uint64_t start_ns, end_ns, kernel_faults, written;
};

static void *two_write(void *arg)
{
	struct two *two = arg;
	volatile unsigned char *bytes = two->map;

	bench_pin(two->cpu);
	two->kernel_faults = bench_kernel_faults();
	pthread_barrier_wait(two->barrier);
	two->start_ns = bench_now_ns();
	if (two->order) {
		for (size_t i = 0; i < two->order_count; i++) {
			uint32_t page = two->order[i];

			if (page < two->first || page >= two->end)
				continue;
			bytes[page * BENCH_PAGE] = (unsigned char)i;
			two->written++;
		}
	} else {
		for (uint32_t page = two->first; page < two->end; page++)
			bytes[page * BENCH_PAGE] = (unsigned char)page;
		two->written = two->end - two->first;
	}
	two->end_ns = bench_now_ns();
	two->kernel_faults = bench_kernel_faults() - two->kernel_faults;
	return NULL;
}

int bench_time_two(struct bench *bench, void *map, size_t pages, const uint32_t *order,
		   size_t order_count, struct bench_sample *sample)
{
	pthread_barrier_t barrier;
	struct two two[2];
	uint64_t start, end;

	pthread_barrier_init(&barrier, NULL, 2);
	for (uint32_t i = 0; i < 2; i++)
		two[i] = (struct two){.barrier = &barrier,
				      .cpu = bench->cpus[i],
				      .map = map,
				      .order = order,
				      .order_count = order_count,
				      .first = i * (uint32_t)(pages / 2),
				      .end = (i + 1) * (uint32_t)(pages / 2)};
	if (pthread_create(&two[1].thread, NULL, two_write, &two[1])) {
		pthread_barrier_destroy(&barrier);
		return bench_say(bench, -EAGAIN, "no second thread");
	}
	two_write(&two[0]);
	pthread_join(two[1].thread, NULL);
	pthread_barrier_destroy(&barrier);
	start = two[0].start_ns < two[1].start_ns ? two[0].start_ns : two[1].start_ns;
	end = two[0].end_ns > two[1].end_ns ? two[0].end_ns : two[1].end_ns;
	sample->elapsed_ns += end - start;
	sample->units += two[0].written + two[1].written;
	sample->counts.kernel_faults += two[0].kernel_faults + two[1].kernel_faults;
	return 0;
}
