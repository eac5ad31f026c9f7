/* SPDX-License-Identifier: MIT */
/*
 * raw.h - system calls that the program makes by itself, past every hook (raw.c).
 */
#ifndef RAW_H
#define RAW_H

#include <stdatomic.h>
#include <stdbool.h>

/* A call by number: may be one that puts an end to watching (prctl and seccomp). */
void raw_note(long number, const long args[6]);

/* Counts changes of whether they are; the thread has followed so far. */
extern _Atomic unsigned raw_epoch;
extern _Thread_local unsigned raw_joined __attribute__((tls_model("initial-exec")));
void raw_follow(void);

/* The calling thread is looked at, too, if threads are. */
static inline void raw_join(void)
{
	if (raw_joined != atomic_load_explicit(&raw_epoch, memory_order_relaxed))
		raw_follow();
}

#endif
