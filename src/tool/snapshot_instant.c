/* SPDX-License-Identifier: MIT */
/*
 * snapshot_instant.c - all processes of the program quiet at once.
 *
 * A process that joins while the table is read waits for the end of the instant by itself: all must
 * have been seen quiet once.
 *
 * A process whose life is lost has exited, was killed, or has become another by exec. When it was
 * killed, its other threads may run on for as long as the kernel takes to interrupt them: the entry
 * counts until the process is gone, or for DEAD_NS, which is ample.
 */
#include "snapshot_parts.h"

#include "run/futex.h"

#include <stdlib.h>
#include <string.h>

#define PATIENCE_NS 2000000000ull /* that the program is held up at most, in vain */
#define LOOK_NS	    20000000ull
#define DEAD_NS	    100000000ull
#define CLAIM_NS    1000000000ull /* a parent was killed within fork: its child has joined by then */
#define STATE(word) ((unsigned)((word)&3u))
#define PID(word)   ((pid_t)((word) >> 32))

/* ---- /proc -------------------------------------------------------------------------------- */

/* The state of the process as /proc has it ('R', 'T', ...); 0: it is gone. */
static char process_state(pid_t pid)
{
	char path[32], text[512], *s;
	char state = 0;
	int threads = 0;
	FILE *file;
	size_t length;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	length = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[length] = '\0';
	s = strrchr(text, ')');
	if (!s ||
	    sscanf(s + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d",
		   &state, &threads) != 2)
		return 0;
	/* The first thread can be a zombie long before the process is. */
	return (state == 'Z' || state == 'X') && threads <= 1 ? 0 : state;
}

static bool process_stopped(pid_t pid)
{
	char state = process_state(pid);

	return state == 'T' || state == 't';
}

/* ---- Entries ------------------------------------------------------------------------------ */

enum entry_is { ENTRY_FREE, ENTRY_QUIET, ENTRY_BUSY, ENTRY_FAILED };

static bool life_lost(struct run_snapshot_process *p)
{
	int error = pthread_mutex_trylock(&p->life);

	if (error == EBUSY)
		return false;
	if (error == EOWNERDEAD)
		pthread_mutex_consistent(&p->life);
	if (error == 0 || error == EOWNERDEAD)
		pthread_mutex_unlock(&p->life);
	return true;
}

/* Its life is lost: is it gone? */
static enum entry_is entry_dead(struct copier *copier, unsigned i, uint64_t state)
{
	uint64_t now_ns = tool_now_ns();

	if (copier->dead_ns[i] == 0)
		copier->dead_ns[i] = now_ns;
	if (process_state(PID(state)) != 0 && now_ns - copier->dead_ns[i] < DEAD_NS)
		return ENTRY_BUSY;
	copier->dead_ns[i] = 0;
	atomic_store(&copier_area(copier)->processes[i].state, RUN_SNAPSHOT_FREE);
	return ENTRY_FREE;
}

static enum entry_is entry_look(struct copier *copier, unsigned i)
{
	struct run_snapshots *s = copier_area(copier);
	struct run_snapshot_process *p = &s->processes[i];
	uint64_t state = atomic_load(&p->state);

	if (STATE(state) == RUN_SNAPSHOT_JOINED && life_lost(p))
		return entry_dead(copier, i, state);
	if (STATE(state) == RUN_SNAPSHOT_JOINING && process_state(PID(state)) == 0)
		atomic_compare_exchange_strong(&p->state, &state, RUN_SNAPSHOT_FREE);
	if (STATE(state) != RUN_SNAPSHOT_JOINED)
		return ENTRY_FREE;
	if (atomic_load(&p->quiet) != atomic_load(&s->turn))
		return ENTRY_BUSY;
	return atomic_load(&p->failed) ? ENTRY_FAILED : ENTRY_QUIET;
}

void instant_look(struct copier *copier)
{
	for (unsigned i = 0; i < RUN_SNAPSHOT_PROCESSES; i++)
		entry_look(copier, i);
}

/* ---- The instant -------------------------------------------------------------------------- */

static void why_failed(struct copier *copier, pid_t pid, int error)
{
	switch (-error) {
	case EBUSY:
		snprintf(copier->why, sizeof(copier->why),
			 "process %d was in a write that took too long", pid);
		break;
	case E2BIG:
		snprintf(
			copier->why, sizeof(copier->why),
			"process %d has too many system calls under way that store to mapped files",
			pid);
		break;
	case EOPNOTSUPP:
		snprintf(copier->why, sizeof(copier->why),
			 "process %d makes system calls that cannot be held back", pid);
		break;
	default:
		snprintf(copier->why, sizeof(copier->why), "process %d could not be held back: %s",
			 pid, strerror(-error));
	}
}

/* ENTRY_QUIET: all are. Else *pid is one that is not. */
static enum entry_is pass(struct copier *copier, pid_t *pid)
{
	struct run_snapshots *s = copier_area(copier);
	enum entry_is all = ENTRY_QUIET;

	for (unsigned i = 0; i < RUN_SNAPSHOT_PROCESSES; i++) {
		enum entry_is is = entry_look(copier, i);

		if (is != ENTRY_BUSY && is != ENTRY_FAILED)
			continue;
		*pid = PID(atomic_load(&s->processes[i].state));
		all = is;
		if (is == ENTRY_FAILED) {
			why_failed(copier, *pid, atomic_load(&s->processes[i].failed));
			break;
		}
	}
	return all;
}

/* A stopped process is not waited for: nor are the others held up for it. */
static bool stopped_look(struct copier *copier)
{
	struct run_snapshots *s = copier_area(copier);

	for (unsigned i = 0; i < RUN_SNAPSHOT_PROCESSES; i++) {
		uint64_t state = atomic_load(&s->processes[i].state);

		if (STATE(state) != RUN_SNAPSHOT_JOINED || !process_stopped(PID(state)) ||
		    atomic_load(&s->processes[i].quiet) == atomic_load(&s->turn))
			continue;
		snprintf(copier->why, sizeof(copier->why), "process %d is stopped", PID(state));
		return true;
	}
	return false;
}

static bool all_quiet(struct copier *copier)
{
	struct run_snapshots *s = copier_area(copier);
	uint64_t deadline_ns = tool_now_ns() + PATIENCE_NS;
	pid_t pid = 0;

	for (;;) {
		uint32_t bell = atomic_load(&s->bell);
		enum entry_is all = pass(copier, &pid);

		if (all == ENTRY_QUIET)
			return true;
		if (all == ENTRY_FAILED || stopped_look(copier))
			return false;
		if (tool_now_ns() > deadline_ns) {
			snprintf(copier->why, sizeof(copier->why),
				 "process %d did not come to rest in time", pid);
			return false;
		}
		run_futex_wait(&s->bell, bell, LOOK_NS);
	}
}

int instant_begin(struct copier *copier)
{
	struct run_snapshots *s = copier_area(copier);

	if (atomic_load(&s->missing) > 0) {
		snprintf(copier->why, sizeof(copier->why),
			 "%u processes of the program could not take part",
			 atomic_load(&s->missing));
		return -1;
	}
	if (stopped_look(copier))
		return -1;
	copier->held_up_ns = tool_now_ns();
	atomic_store(&s->turn, ++copier->number << 2 | RUN_SNAPSHOT_INSTANT);
	run_futex_wake_all(&s->turn);
	if (all_quiet(copier))
		return 0;
	instant_end(copier, RUN_SNAPSHOT_NONE);
	return -1;
}

void instant_end(struct copier *copier, enum run_snapshot_phase phase)
{
	struct run_snapshots *s = copier_area(copier);

	atomic_store(&s->turn, copier->number << 2 | phase);
	run_futex_wake_all(&s->turn);
	copier->held_up_ns = tool_now_ns() - copier->held_up_ns;
}

bool instant_maps(struct copier *copier, uint16_t file)
{
	struct run_snapshots *s = copier_area(copier);

	for (unsigned i = 0; i < RUN_SNAPSHOT_PROCESSES; i++)
		if (STATE(atomic_load(&s->processes[i].state)) == RUN_SNAPSHOT_JOINED &&
		    s->processes[i].maps[file / 64] >> file % 64 & 1)
			return true;
	return false;
}
