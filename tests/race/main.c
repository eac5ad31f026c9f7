/* SPDX-License-Identifier: MIT */
/*
 * main.c - explore scenarios, each in a process of its own, and report in TAP.
 *
 *   PROGRAM [--bound=N] [--schedules=N] [--random=N] [--seed=N] [--lots=N] [--stop] [--list]
 *           [NAME-PART...]
 *   PROGRAM --replay=SCHEDULE NAME     the story of one schedule, as a failure printed it
 *
 * MKW_TEST_HEAVY=1 in the environment, or a sanitizer in the program, changes what is tried without
 * options (plan_default).
 */
#include "explore.h"
#include "scenarios.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct exploration plan;
static uint64_t lot_schedules_max; /* for scenarios by lot, of which there are many */
static uint64_t lots;		   /* scenarios drawn by lot */

struct totals {
	uint64_t schedules, random, failed;
};
static struct totals *total; /* shared by all processes */

static void line_print(void *arg, const char *line)
{
	(void)arg;
	printf("# %s\n", line);
}

static void report(unsigned number, const struct scenario *s, const struct exploration *e)
{
	bool alone = !e->failed && e->replay == NULL && e->schedules + e->random_schedules == 1;

	printf("%s %u - %s: %llu schedules%s with at most %u deviations, %llu random, longest %u "
	       "steps\n",
	       e->failed || alone ? "not ok" : "ok", number, s->name,
	       (unsigned long long)e->schedules, e->complete ? ", all" : "", e->bound,
	       (unsigned long long)e->random_schedules, e->steps_max);
	if (alone)
		printf("# there is only one schedule: nothing was explored\n");
	total->schedules += e->schedules;
	total->random += e->random_schedules;
	total->failed += e->failed || alone;
	if (e->failed || e->replay != NULL)
		threads_story(line_print, NULL);
	if (e->failed)
		printf("# %s\n# again: --lots=%llu --replay=%s '%s'\n", e->message,
		       (unsigned long long)lots, e->schedule, s->name);
}

/* A scenario that crashes takes none of the others with it. */
static void explore_apart(unsigned number, const struct scenario *s, bool by_lot)
{
	int status = 0;
	pid_t pid;

	if (by_lot && (plan.schedules_max == 0 || plan.schedules_max > lot_schedules_max))
		plan.schedules_max = lot_schedules_max;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		explore(s, &plan);
		report(number, s, &plan);
		fflush(stdout);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
		printf("not ok %u - %s: ended with status %#x\n", number, s->name,
		       (unsigned)status);
		total->failed++;
	}
}

/* All orders with few deviations, a part of those with more, and some by chance. */
static void plan_default(void)
{
	const char *heavy = getenv("MKW_TEST_HEAVY");

	plan = (struct exploration){.bound = 2, .schedules_max = 1500, .random = 100, .seed = 1};
	lots = 200;
	lot_schedules_max = 200;
#ifdef __SANITIZE_ADDRESS__
	plan.bound = 1;
	plan.schedules_max = 60;
	plan.random = 5;
	lots = 100;
#endif
	if (heavy == NULL || strcmp(heavy, "0") == 0)
		return;
#ifndef __SANITIZE_ADDRESS__
	plan.schedules_max = 0;
#endif
	plan.random = 1000;
	lots = 2000;
	lot_schedules_max = 3000;
}

static bool wanted(const struct scenario *s, char **parts)
{
	if (*parts == NULL)
		return true;
	for (; *parts != NULL; parts++)
		if (strstr(s->name, *parts) != NULL)
			return true;
	return false;
}

static bool number_option(const char *arg, const char *name, uint64_t *value)
{
	size_t length = strlen(name);
	char *end;

	if (strncmp(arg, name, length) != 0 || arg[length] != '=')
		return false;
	*value = strtoull(arg + length + 1, &end, 10);
	return *end == '\0';
}

int main(int argc, char **argv)
{
	bool list = false;
	unsigned number = 0;
	uint64_t bound;
	bool stop = false;
	int i;

	plan_default();
	bound = plan.bound;

	for (i = 1; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (strcmp(argv[i], "--list") == 0)
			list = true;
		else if (strcmp(argv[i], "--stop") == 0)
			stop = true;
		else if (strncmp(argv[i], "--replay=", 9) == 0)
			plan.replay = argv[i] + 9;
		else if (!number_option(argv[i], "--bound", &bound) &&
			 !number_option(argv[i], "--schedules", &plan.schedules_max) &&
			 !number_option(argv[i], "--random", &plan.random) &&
			 !number_option(argv[i], "--lots", &lots) &&
			 !number_option(argv[i], "--seed", &plan.seed)) {
			fprintf(stderr, "no such option: %s\n", argv[i]);
			return 2;
		}
	}
	plan.bound = (unsigned)bound;
	total = mmap(NULL, sizeof(*total), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (total == MAP_FAILED)
		return 2;
	for (size_t n = 0; n < scenario_count() + lots && !(stop && total->failed > 0); n++) {
		const struct scenario *s = scenario(n);

		if (!wanted(s, &argv[i]))
			continue;
		if (list)
			puts(s->name);
		else
			explore_apart(++number, s, n >= scenario_count());
	}
	if (!list)
		printf("1..%u\n# %llu schedules, %llu random ones\n", number,
		       (unsigned long long)total->schedules, (unsigned long long)total->random);
	return total->failed > 0;
}
