/* SPDX-License-Identifier: MIT */
/*
 * place.c - on which core a reader runs: on that of the thread whose faults it serves (its home).
 * While that thread waits its core is free, and a wake-up on the same core is a mere switch; one on
 * another core is an interrupt to a core that sleeps, which costs several faults.
 *
 * Where a thread runs is looked up in /proc, for a new thread and then at every LOOK_EVENTS-th
 * event of it; two looks that agree are needed to act. At the end of a window of events all local
 * nothing to do all remote  go there; if another reader is at home there already, stop reading both
 * have another reader there
 */
#include "machine.h"

#include <sched.h>

#define LOOK_EVENTS	  64
#define LOOKS_SAVED	  4 /* looks that may follow each other; one more every LOOK_PACE events */
#define LOOK_PACE	  8
#define WINDOW_ALONE	  16 /* events, while there is one reader */
#define WINDOW_WITH_OTHER 64

void place_init(struct place *place)
{
	atomic_store(&place->home, -1);
	place->looks_left = LOOKS_SAVED;
}

void place_bind(struct place *place, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	/* A core that this process may not use is left alone. */
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		atomic_store(&place->home, cpu);
}

static void look_up(struct place *place, struct seat *seat)
{
	struct thread_signals state;

	if (place->looks_left == 0 || thread_signals_read(seat->tid, &state))
		return;
	place->looks_left--;
	seat->agreed = state.cpu == seat->cpu;
	seat->cpu = state.cpu;
	seat->since = seat->agreed ? 0 : LOOK_EVENTS;
}

static void end_window(struct worker *worker)
{
	struct place *place = &worker->place;
	struct mmu *mmu = worker->mmu;

	if (place->remote > 0) {
		machine_lock(&mmu->pool.lock);
		if (place->local > 0)
			pool_enlist(mmu, place->remote_cpu);
		else if (pool_reader_at(mmu, worker, place->remote_cpu))
			pool_dismiss(worker);
		else
			place_bind(place, place->remote_cpu);
		machine_unlock(&mmu->pool.lock);
	}
	place->events = place->local = place->remote = 0;
}

void place_follow(struct worker *worker, pid_t tid)
{
	struct place *place = &worker->place;
	struct seat *seat = &place->seat[(unsigned)tid % PLACE_SEATS];
	bool alone = worker->mmu->pool.wanted == 1;

	if (seat->tid != tid)
		*seat = (struct seat){.tid = tid, .cpu = -1, .since = LOOK_EVENTS};
	if (++seat->since >= LOOK_EVENTS)
		look_up(place, seat);
	if (++place->events % LOOK_PACE == 0 && place->looks_left < LOOKS_SAVED)
		place->looks_left++;
	if (!seat->agreed)
		return;
	if (seat->cpu == atomic_load_explicit(&place->home, memory_order_relaxed)) {
		place->local++;
	} else {
		place->remote++;
		place->remote_cpu = seat->cpu;
	}
	if (place->events >= (alone ? WINDOW_ALONE : WINDOW_WITH_OTHER) || place->home < 0)
		end_window(worker);
}
