/* SPDX-License-Identifier: MIT */
/*
 * explore.h - trying the orders of a scenario: all of them up to a bound on preemptions, then some
 * by seeded random priorities.
 */
#ifndef EXPLORE_H
#define EXPLORE_H

#include "race.h"
#include "threads.h"

struct exploration {
	/* given */
	unsigned bound;		/* deviations: explore.c */
	uint64_t schedules_max; /* of the exhaustive part; 0: no limit */
	uint64_t random;	/* schedules */
	uint64_t seed;
	const char *replay; /* NULL, or the one schedule to run: "12=1,40=2" */
	/* answered */
	uint64_t schedules, random_schedules;
	bool complete;	    /* all up to the bound */
	uint32_t steps_max; /* of the longest */
	unsigned jumps_most;
	bool failed;
	char message[400];
	char schedule[4096]; /* of the failed one: what replay takes */
};

void explore(const struct scenario *s, struct exploration *e);

#endif
