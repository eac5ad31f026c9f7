/* SPDX-License-Identifier: MIT */
/*
 * place.c - on which core a handler thread runs: on that of the thread whose faults it serves.
 * While that thread waits its core is free, and a wake-up on the same core is a switch; one on
 * another core is an interrupt to a core that sleeps, which costs several faults.
 *
 * A sample is a read of /proc, so it is taken of a new thread and then of every SAMPLE_EVENTS-th
 * event; two that agree are needed to move.
 */
#include "machine.h"

#include <sched.h>

#define SAMPLE_EVENTS 64

void place_init(struct place *place)
{
	place->cpu = -1;
	place->seen = -1;
	place->tid = 0;
	place->since = 0;
}

static void place_move(struct place *place, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		place->cpu = cpu;
}

void place_follow(struct place *place, pid_t tid)
{
	struct thread_signals state;

	place->since++;
	if (tid == place->tid && place->since < SAMPLE_EVENTS)
		return;
	place->since = 0;
	place->tid = tid;
	if (!thread_signals_read(tid, &state))
		return;
	if (state.cpu == place->seen && state.cpu != place->cpu)
		place_move(place, state.cpu);
	else if (state.cpu != place->cpu)
		place->since = SAMPLE_EVENTS; /* ask again at the next event */
	place->seen = state.cpu;
}
