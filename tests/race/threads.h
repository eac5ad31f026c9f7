/* SPDX-License-Identifier: MIT */
/*
 * threads.h - simulated threads: one runs at a time on one real thread, and another goes on only at
 * a point. Who does is asked of the run's `decide`, so that a run is a function of its answers.
 *
 * A point is what one thread does that another could see: taking a lock, an atomic access, an MMU
 * operation, a store operation, an access of the program. What lies between two points is seen by
 * others at once; memory is sequentially consistent.
 */
#ifndef THREADS_H
#define THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define THREADS_MAX 24

/* Who may go on. */
struct choice {
	unsigned count;
	uint8_t thread[THREADS_MAX]; /* if the running one may, it is the first */
	bool preempts;		     /* it may: any other answer takes the processor from it */
	uint32_t step;		     /* points of this run so far */
};

struct run_options {
	/* Which of them: an index into thread. Asked only where there is more than one. */
	unsigned (*decide)(void *arg, const struct choice *choice);
	/* After every point; reports by threads_fail. May be NULL. */
	void (*check)(void *arg);
	void *arg;
	uint32_t steps_max; /* more is taken for a livelock */
	unsigned jumps_max; /* how often the clock may be set forward for lack of anybody to run */
};

struct run_result {
	bool failed;
	char message[400];
	uint32_t steps;
	unsigned jumps;
};

/* Run main as the first thread of a new machine, until it returns. Others must have ended by then.
 * After a failed run its threads, and what they held, are left behind. */
struct run_result threads_run(const struct run_options *options, void (*main)(void *), void *arg);

/* Off: the running thread goes on as long as it may, nobody is asked and nothing is checked. A run
 * begins so. */
void threads_explore(bool on);

/* ---- For simulated threads ---------------------------------------------------------------- */

unsigned thread_start(const char *name, void (*fn)(void *), void *arg);
/* Its turn comes before that of others. */
void thread_favor(unsigned thread);
void thread_join(unsigned thread);
/* Wait until no other thread can go on without the clock. One at a time. */
void threads_settle(void);
unsigned thread_self(void);
/* Differs from that of every thread of every run before. */
int thread_tid(void);
/* The thread of a tid of this run. */
unsigned thread_of_tid(int tid);

/*
 * A point. what ("lock", "protect") and where (file:line, may be NULL) are for the story, object
 * and detail for telling apart. may: the thread goes on only where it says yes of object.
 */
void thread_step(const char *what, const void *object, uint64_t detail, const char *where,
		 bool (*may)(const void *object));
/* Wait for thread_wake of key, or until the clock shows deadline_ns (0: no deadline), and then for
 * may(object) as well. False: it was the clock. */
bool thread_wait(const char *what, const void *key, uint64_t deadline_ns, const char *where,
		 bool (*may)(const void *object), const void *object);
/* Whoever has waited longest, or all of them. */
void thread_wake(const void *key, bool all);
uint64_t threads_now_ns(void);

/* The run ends here: a rule is broken. */
void threads_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* A line of the story by the running thread, without a point. */
void threads_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- The story ---------------------------------------------------------------------------- */

/* Give an object a name in stories; NULL takes it away. The name must outlive the run. */
void threads_name(const void *object, const char *name);
/* Print what happened in the last run, one line for each stretch of one thread at one place. */
void threads_story(void (*print)(void *arg, const char *line), void *arg);

#endif
