/* SPDX-License-Identifier: MIT */
/*
 * lock.h - the mutexes of the stores here, whose order debug builds check (mkw_lock_take).
 *
 * All belong inside the page lock: fault takes them, and none is held when a run is locked or an
 * operation ends. A layer's come before those of what lies beneath it, were they ever held across.
 */
#ifndef STORE_LOCK_H
#define STORE_LOCK_H

#include <mkwrite/store.h>
#include <pthread.h>

enum {
	RULE_RANK = 10,	   /* error: its rule */
	ALLOC_RANK = 20,   /* file: its blocks; mem: its quota */
	CHUNK_RANK = 30,   /* a chunk's bits */
	CHUNKS_RANK = 40,  /* making chunks; mem: memory for them */
	DRIVERS_RANK = 50, /* the table of drivers */
};

struct store_lock {
	pthread_mutex_t mutex;
	const struct mkw_lock_class *lock_class;
};

static inline void store_lock_init(struct store_lock *l, const struct mkw_lock_class *lock_class)
{
	pthread_mutex_init(&l->mutex, NULL);
	l->lock_class = lock_class;
}

static inline void store_lock_destroy(struct store_lock *l)
{
	pthread_mutex_destroy(&l->mutex);
}

/* A macro, for the place. */
#define store_lock(l)                                      \
	do {                                               \
		(void)mkw_lock_take((l)->lock_class, (l)); \
		pthread_mutex_lock(&(l)->mutex);           \
	} while (0)

static inline void store_unlock(struct store_lock *l)
{
	pthread_mutex_unlock(&l->mutex);
	mkw_lock_drop(l);
}

#endif
