/* SPDX-License-Identifier: MIT */
/*
 * waiter.c - lists of those who wait: parked faults, which hold no thread, and sleeping API
 * callers. A list is protected by the lock of what is waited for, so that nobody goes to wait after
 * the event.
 */
#include "vm.h"

void waiters_deny(struct list *waiters, int error)
{
	struct list woken, *node;

	list_init(&woken);
	list_splice(&woken, waiters);
	while ((node = list_pop(&woken)) != NULL) {
		struct waiter *w = container_of(node, struct waiter, link);
		w->deny = error;
		w->wake(w);
	}
}

void waiters_wake(struct list *waiters)
{
	waiters_deny(waiters, 0);
}

static void sleeper_wake(struct waiter *w)
{
	struct sleeper *s = container_of(w, struct sleeper, waiter);

	env_lock(&s->lock);
	s->woken = true;
	env_signal(&s->cond);
	env_unlock(&s->lock);
}

void sleeper_init(struct sleeper *s)
{
	list_init(&s->waiter.link);
	s->waiter.wake = sleeper_wake;
	s->waiter.deny = 0;
	env_mutex_init(&s->lock, RANK_LEAF);
	env_cond_init(&s->cond);
	s->woken = false;
}

void sleeper_destroy(struct sleeper *s)
{
	env_cond_destroy(&s->cond);
	env_mutex_destroy(&s->lock);
}

void sleeper_sleep(struct sleeper *s)
{
	env_assert_unlocked();
	env_lock(&s->lock);
	while (!s->woken)
		env_wait(&s->cond, &s->lock);
	s->woken = false;
	env_unlock(&s->lock);
}
