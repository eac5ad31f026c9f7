/* SPDX-License-Identifier: MIT */
/*
 * ring.h - how the two sides of the control area keep the ring of events, and wake each other;
 * only control.c and client.c include it.
 *
 * Position P of the ring is slot P % RUN_EVENTS in lap P / RUN_EVENTS. A slot's turn is one word:
 * the lap it is in, and whose it is.
 *
 *   lap, SLOT_FREE       may be claimed for position P of that lap
 *   lap, a tid           claimed: that thread writes the event
 *   lap, SLOT_PUBLISHED  may be read; the reader makes it free for the next lap
 *
 * Claiming changes the whole word, so there is never a claim of nobody, and none in a lap that has
 * passed. head is a hint that follows: whoever finds its slot taken moves it on, also for a thread
 * that died in between.
 *
 * The bell is a count, with BELL_ASLEEP while the supervisor sleeps or is about to: only then does
 * a wake-up cost a system call. drained is the same the other way round, with DRAINED_AWAITED while
 * somebody waits for room.
 */
#ifndef RUN_RING_H
#define RUN_RING_H

#include "control.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOT_FREE	0u
#define SLOT_PUBLISHED	UINT32_MAX
#define BELL_ASLEEP	1u
#define BELL_STEP	2u
#define DRAINED_AWAITED 1u
#define DRAINED_STEP	2u

static inline uint64_t turn_make(uint64_t position, uint32_t owner)
{
	return position / RUN_EVENTS << 32 | owner;
}

static inline uint32_t turn_owner(uint64_t turn)
{
	return (uint32_t)turn;
}

static inline uint32_t turn_lap(uint64_t turn)
{
	return (uint32_t)(turn >> 32);
}

static inline struct run_event *ring_slot(struct run_control *control, uint64_t position)
{
	return &control->events[position % RUN_EVENTS];
}

/* Shared between processes: not the private kind. -1: errno says why. */
static inline long futex_wait(_Atomic uint32_t *word, uint32_t value, unsigned timeout_ms)
{
	struct timespec timeout = {timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000};

	return syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
}

static inline void futex_wake_all(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

#endif
