/* SPDX-License-Identifier: MIT */
/*
 * explore.c - depth first through the decisions of a scenario, each schedule from its beginning
 * (after CHESS: Musuvathi and Qadeer, "Iterative context bounding", PLDI 2007); beyond the bound
 * random priorities with a few changes (PCT: Burckhardt et al., ASPLOS 2010).
 *
 * Without a deviation a thread goes on until it waits or ends, and then it is the turn of the next
 * in a circle. The bound is on deviations: taking the processor from a thread that could go on, or
 * giving it to another than the next (delay bounding: Emmi, Qadeer and Rakamaric, POPL 2011). So
 * all schedules with as many preemptions are among those explored in which nobody is passed over,
 * and libraries' own threads that come and go do not multiply them.
 */
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32768
#define STEPS_MAX 20000
#define JUMPS_MAX 60
#define CHANGES	  4u
#define FAIR_FROM 4000u /* steps: from then on a random schedule is fair */

struct decision {
	uint8_t count, index; /* 0: no deviation */
};

static struct {
	struct decision path[DEPTH_MAX];
	unsigned length, at; /* decisions known, made in this run */
	bool diverged;
} dfs;

static void decision_note(const struct choice *c, unsigned index)
{
	if (dfs.at == DEPTH_MAX)
		threads_fail("too many decisions");
	dfs.path[dfs.at++] = (struct decision){(uint8_t)c->count, (uint8_t)index};
}

/* ---- Exhaustive --------------------------------------------------------------------------- */

static unsigned decide_next(void *arg, const struct choice *c)
{
	const struct decision *known = &dfs.path[dfs.at];

	(void)arg;
	if (dfs.at < dfs.length) {
		if (known->count != c->count)
			threads_fail("the run is not a function of its schedule");
		return dfs.path[dfs.at++].index;
	}
	decision_note(c, 0);
	dfs.length = dfs.at;
	return 0;
}

/* The next schedule that differs from this one at its end. False: there is none within bound. */
static bool advance(unsigned bound)
{
	unsigned used = 0;

	for (unsigned i = 0; i < dfs.length; i++)
		used += dfs.path[i].index > 0;
	while (dfs.length > 0) {
		struct decision *d = &dfs.path[dfs.length - 1];

		used -= d->index > 0;
		if (d->index + 1 < d->count && used < bound) {
			d->index++;
			return true;
		}
		dfs.length--;
	}
	return false;
}

/* ---- Random ------------------------------------------------------------------------------- */

static struct {
	uint64_t state;
	unsigned priority[THREADS_MAX], lowest;
	uint32_t change[CHANGES];
} pct;

static uint64_t random_next(void)
{
	uint64_t z = pct.state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void random_begin(uint64_t seed, uint32_t steps)
{
	pct.state = seed;
	pct.lowest = 1000;
	for (unsigned i = 0; i < THREADS_MAX; i++)
		pct.priority[i] = 2000 + (unsigned)(random_next() % 1000);
	for (unsigned i = 0; i < CHANGES; i++)
		pct.change[i] = (uint32_t)(random_next() % (steps + 1));
}

static unsigned decide_random(void *arg, const struct choice *c)
{
	unsigned best = 0;

	(void)arg;
	for (unsigned i = 0; i < CHANGES; i++)
		if (pct.change[i] <= c->step && pct.change[i] != 0) {
			pct.change[i] = 0;
			pct.priority[c->thread[0]] = pct.lowest--;
		}
	for (unsigned i = 1; i < c->count; i++)
		if (pct.priority[c->thread[i]] > pct.priority[c->thread[best]])
			best = i;
	if (c->step > FAIR_FROM)
		best = (unsigned)(random_next() % c->count);
	decision_note(c, best);
	return best;
}

/* ---- One schedule ------------------------------------------------------------------------- */

static unsigned decide_replay(void *arg, const struct choice *c)
{
	const char *schedule = arg;
	unsigned index = 0;

	while (schedule != NULL && *schedule != '\0') {
		char *end;
		unsigned long at = strtoul(schedule, &end, 10), to = 0;

		if (*end == '=')
			to = strtoul(end + 1, &end, 10);
		if (at == dfs.at)
			index = (unsigned)to;
		schedule = *end == ',' ? end + 1 : NULL;
	}
	if (index >= c->count)
		threads_fail("this schedule does not fit the run");
	decision_note(c, index);
	return index;
}

static void schedule_print(char *text, size_t size)
{
	size_t n = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < dfs.at && n + 24 < size; i++)
		if (dfs.path[i].index > 0)
			n += (size_t)snprintf(text + n, size - n, "%s%u=%u", n > 0 ? "," : "", i,
					      dfs.path[i].index);
}

static bool run(const struct scenario *s, struct exploration *e,
		unsigned (*decide)(void *, const struct choice *), void *arg)
{
	const struct run_options options = {
		.decide = decide,
		.check = check_state,
		.arg = arg,
		.steps_max = STEPS_MAX,
		.jumps_max = JUMPS_MAX,
	};
	struct run_result result;

	dfs.at = 0;
	result = threads_run(&options, world_main, (void *)(uintptr_t)s);
	if (result.steps > e->steps_max)
		e->steps_max = result.steps;
	if (result.jumps > e->jumps_most)
		e->jumps_most = result.jumps;
	e->failed = result.failed;
	if (e->failed) {
		memcpy(e->message, result.message, sizeof(e->message));
		schedule_print(e->schedule, sizeof(e->schedule));
	}
	return !e->failed;
}

void explore(const struct scenario *s, struct exploration *e)
{
	dfs.length = 0;
	if (e->replay != NULL) {
		e->schedules = 1;
		run(s, e, decide_replay, (void *)(uintptr_t)e->replay);
		return;
	}
	do {
		e->schedules++;
		if (!run(s, e, decide_next, NULL))
			return;
		e->complete = !advance(e->bound);
	} while (!e->complete && e->schedules != e->schedules_max);
	for (uint64_t i = 0; i < e->random; i++) {
		random_begin(e->seed + i, e->steps_max);
		e->random_schedules++;
		if (!run(s, e, decide_random, NULL))
			return;
	}
}
