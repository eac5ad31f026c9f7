/* SPDX-License-Identifier: MIT */
/*
 * futex.h - sleeping on a word that processes share. Async-signal-safe.
 */
#ifndef RUN_FUTEX_H
#define RUN_FUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleep while *word is seen, at most so long; may return early. Keeps errno. */
static inline void run_futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
	struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
				   .tv_nsec = (long)(timeout_ns % 1000000000u)};
	int saved = errno;

	syscall(SYS_futex, word, FUTEX_WAIT, seen, &timeout, NULL, 0);
	errno = saved;
}

static inline void run_futex_wake_all(_Atomic uint32_t *word)
{
	int saved = errno;

	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	errno = saved;
}

/* Change the word and wake who sleeps on it. */
static inline void run_futex_ring(_Atomic uint32_t *word)
{
	atomic_fetch_add(word, 1);
	run_futex_wake_all(word);
}

#endif
