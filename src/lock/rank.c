/* SPDX-License-Identifier: MIT */
/*
 * rank.c - the locks that a thread holds, in debug builds (rank.h).
 *
 * The list is the thread's own: no lock protects it. Nothing here allocates, for locks are taken in
 * signal handlers too.
 */
#include "lock/rank.h"

#include <assert.h>
#include <stdio.h>

#define HELD_MAX 16u

struct held {
	unsigned rank;
	const void *lock;
	const char *name, *where;
};

static _Thread_local struct {
	unsigned count;
	struct held held[HELD_MAX];
} locks;

/* What assert does, but the sentence is made at run time, and NDEBUG does not matter. */
#define RANK_FAIL(...)                                                      \
	do {                                                                \
		char sentence[256];                                         \
		snprintf(sentence, sizeof(sentence), __VA_ARGS__);          \
		__assert_fail(sentence, __FILE_NAME__, __LINE__, __func__); \
	} while (0)

void rank_take(unsigned rank, const void *lock, const char *name, const char *where)
{
	for (unsigned i = 0; i < locks.count; i++) {
		const struct held *h = &locks.held[i];
		if (h->rank >= rank)
			RANK_FAIL("%s lock (rank %u) taken at %s after %s lock (rank %u) taken at "
				  "%s",
				  name, rank, where, h->name, h->rank, h->where);
	}
	/* Ranks ascend: there are fewer of them than places. */
	assert(locks.count < HELD_MAX);
	locks.held[locks.count++] = (struct held){rank, lock, name, where};
}

void rank_note(unsigned rank, const void *lock, const char *name)
{
	assert(locks.count < HELD_MAX);
	locks.held[locks.count++] = (struct held){rank, lock, name, "a signal handler"};
}

void rank_drop(const void *lock)
{
	for (unsigned i = locks.count; i-- > 0;) {
		if (locks.held[i].lock != lock)
			continue;
		for (; i + 1 < locks.count; i++)
			locks.held[i] = locks.held[i + 1];
		locks.count--;
		return;
	}
	RANK_FAIL("a lock is given back that this thread does not hold");
}

void rank_wait(const void *lock, const char *where)
{
	for (unsigned i = 0; i < locks.count; i++)
		if (locks.held[i].lock != lock)
			RANK_FAIL("%s lock (rank %u) taken at %s is held during the wait at %s",
				  locks.held[i].name, locks.held[i].rank, locks.held[i].where,
				  where);
}

void rank_assert_none(const char *doing)
{
	if (locks.count > 0)
		RANK_FAIL("%s lock (rank %u) taken at %s is held while %s", locks.held[0].name,
			  locks.held[0].rank, locks.held[0].where, doing);
}
