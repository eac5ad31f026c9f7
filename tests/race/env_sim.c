/* SPDX-License-Identifier: MIT */
/*
 * env_sim.c - the environment of src/vm (env.h) on simulated threads, in place of env_posix.c.
 *
 * A simulated lock lives in the memory of the real one, whose static initializers leave its first
 * words zero. Ranks are always checked, also that nothing is held where nothing may be; what is
 * made and not unmade by the end of a run is counted (env_sim_live).
 */
#include "env_sim.h"

#include "atomics.h"
#include "threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <lock/rank.h>
#include <vm/vm.h>

struct sim_lock {
	int32_t writer; /* thread + 1 */
	int32_t readers, writers_waiting;
};
_Static_assert(sizeof(struct sim_lock) <= sizeof(pthread_mutex_t), "a lock fits into a mutex");
_Static_assert(sizeof(struct sim_lock) <= sizeof(pthread_rwlock_t), "a lock fits into an rwlock");

static int64_t live;

int64_t env_sim_live(void)
{
	return live;
}

void env_code_name(const void *code, char *name, size_t size)
{
	snprintf(name, size, "%p", code);
}

void env_assert_unlocked(void)
{
	rank_assert_none("doing what may sleep for a store");
}

/*
 * Free lists of the slab, streams, and the table of threads inside operations: nothing that a rule
 * is about depends on who comes first there, and nothing in them is a point, so that their locks
 * are always free. They would be a third of all points.
 */
static bool place_is_quiet(const char *where)
{
	return strncmp(where, "slab.c", 6) == 0 || strncmp(where, "stream.c", 8) == 0 ||
	       strncmp(where, "op.c", 4) == 0;
}

void atomics_point(const volatile void *object, const char *what, const char *where)
{
	if (!place_is_quiet(where))
		thread_step(what, (const void *)object, 0, where, NULL);
}

/* ---- Locks -------------------------------------------------------------------------------- */

static struct sim_lock *sim_mutex(struct env_mutex *m)
{
	return (struct sim_lock *)(void *)&m->mutex;
}

static struct sim_lock *sim_rwlock(struct env_rwlock *l)
{
	return (struct sim_lock *)(void *)&l->lock;
}

static bool lock_is_free(const void *lock)
{
	const struct sim_lock *l = lock;

	return l->writer == 0 && l->readers == 0;
}

/* Writers first, as env_posix.c has it. */
static bool lock_is_readable(const void *lock)
{
	const struct sim_lock *l = lock;

	return l->writer == 0 && l->writers_waiting == 0;
}

bool env_sim_mutex_is_free(const struct env_mutex *m)
{
	return lock_is_free(&m->mutex);
}

bool env_sim_rwlock_is_written(const struct env_rwlock *l)
{
	return ((const struct sim_lock *)(const void *)&l->lock)->writer != 0;
}

static void lock_init(struct sim_lock *l)
{
	memset(l, 0, sizeof(*l));
	live++;
}

static void lock_end(const struct sim_lock *l)
{
	if (!lock_is_free(l) || l->writers_waiting != 0)
		threads_fail("a lock is destroyed while it is held");
	live--;
}

void env_mutex_init(struct env_mutex *m, enum env_rank rank)
{
	lock_init(sim_mutex(m));
	m->rank = rank;
}

void env_mutex_destroy(struct env_mutex *m)
{
	lock_end(sim_mutex(m));
}

void env_lock_at(struct env_mutex *m, const char *where)
{
	struct sim_lock *l = sim_mutex(m);

	rank_take(m->rank, m, "a", where);
	if (!place_is_quiet(where))
		thread_step("locks", m, 0, where, lock_is_free);
	l->writer = (int32_t)thread_self() + 1;
}

bool env_try_lock(struct env_mutex *m)
{
	struct sim_lock *l = sim_mutex(m);

	thread_step("tries to lock", m, 0, NULL, NULL);
	if (!lock_is_free(l))
		return false;
	l->writer = (int32_t)thread_self() + 1;
	rank_note(m->rank, m, "a");
	return true;
}

void env_unlock(struct env_mutex *m)
{
	struct sim_lock *l = sim_mutex(m);

	if (l->writer != (int32_t)thread_self() + 1)
		threads_fail("unlock of a mutex of another thread");
	l->writer = 0;
	rank_drop(m);
}

void env_rwlock_init(struct env_rwlock *l, enum env_rank rank)
{
	lock_init(sim_rwlock(l));
	l->rank = rank;
}

void env_rwlock_destroy(struct env_rwlock *l)
{
	lock_end(sim_rwlock(l));
}

void env_read_lock_at(struct env_rwlock *l, const char *where)
{
	rank_take(l->rank, l, "a", where);
	thread_step("read-locks", l, 0, where, lock_is_readable);
	sim_rwlock(l)->readers++;
}

void env_read_unlock(struct env_rwlock *l)
{
	sim_rwlock(l)->readers--;
	rank_drop(l);
}

void env_write_lock_at(struct env_rwlock *l, const char *where)
{
	struct sim_lock *lock = sim_rwlock(l);

	rank_take(l->rank, l, "a", where);
	/* From here on it keeps readers out, before it has the lock. */
	thread_step("wants to write-lock", l, 0, where, NULL);
	lock->writers_waiting++;
	if (!lock_is_free(lock))
		thread_step("write-locks", l, 0, where, lock_is_free);
	lock->writers_waiting--;
	lock->writer = (int32_t)thread_self() + 1;
}

void env_write_unlock(struct env_rwlock *l)
{
	sim_rwlock(l)->writer = 0;
	rank_drop(l);
}

/* ---- Waits -------------------------------------------------------------------------------- */

void env_cond_init(struct env_cond *c)
{
	(void)c;
	live++;
}

void env_cond_destroy(struct env_cond *c)
{
	(void)c;
	live--;
}

bool env_wait_until_at(struct env_cond *c, struct env_mutex *m, uint64_t deadline_ns,
		       const char *where)
{
	struct sim_lock *l = sim_mutex(m);
	bool told;

	if (l->writer != (int32_t)thread_self() + 1)
		threads_fail("a wait at %s without its mutex", where);
	rank_wait(m, where);
	l->writer = 0;
	told = thread_wait("waits", c, deadline_ns, where, lock_is_free, m);
	l->writer = (int32_t)thread_self() + 1;
	return told;
}

void env_wait_at(struct env_cond *c, struct env_mutex *m, const char *where)
{
	env_wait_until_at(c, m, 0, where);
}

void env_signal(struct env_cond *c)
{
	thread_wake(c, false);
}

void env_broadcast(struct env_cond *c)
{
	thread_wake(c, true);
}

/* ---- Threads, time, memory ---------------------------------------------------------------- */

int env_thread_start(env_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	*t = thread_start(name, fn, arg);
	return 0;
}

void env_thread_join(env_thread t)
{
	thread_join((unsigned)t);
}

pid_t env_tid(void)
{
	return thread_tid();
}

/* One process, which does not fork (sim_fork.c). */
int env_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	(void)prepare;
	(void)parent;
	(void)child;
	return 0;
}

void env_child(void)
{
}

void env_hold(struct env_mutex *m)
{
	env_lock(m);
}

void env_let_go(struct env_mutex *m)
{
	env_unlock(m);
}

void env_hold_writing(struct env_rwlock *l)
{
	env_write_lock(l);
}

void env_let_go_writing(struct env_rwlock *l)
{
	env_write_unlock(l);
}

uint64_t env_now_ns(void)
{
	return threads_now_ns();
}

void env_nap(uint64_t ns)
{
	static const char nap;

	thread_wait("naps", &nap, threads_now_ns() + ns, NULL, NULL, NULL);
}

int env_cancel_off(void)
{
	return 0;
}

void env_cancel_restore(int before)
{
	(void)before;
}

/* The slab's pieces need no zeros: they are kept for the next run, or each run would wait for the
 * kernel's. ASan watches real ones. */
static bool is_kept(size_t size)
{
#ifdef __SANITIZE_ADDRESS__
	(void)size;
	return false;
#else
	return size == 256u << 10 || size == (FILL_PAGES_MAX + 1) * MKW_PAGE_SIZE;
#endif
}

static struct kept {
	struct kept *next;
	size_t size;
} * kept;

void *env_alloc(size_t size)
{
	void *p = NULL;

	for (struct kept **k = &kept; *k != NULL && is_kept(size); k = &(*k)->next)
		if ((*k)->size == size) {
			p = *k;
			*k = (*k)->next;
			break;
		}
	if (p == NULL)
		p = calloc(1, size);
	live += p != NULL;
	return p;
}

void env_free(void *p, size_t size)
{
	struct kept *k = p;

	live -= p != NULL;
	if (!is_kept(size)) {
		free(p);
		return;
	}
	*k = (struct kept){kept, size};
	kept = k;
}

/* ---- Signals: a simulated program has none but those of sim.c ----------------------------- */

void env_shield(struct env_shield *s)
{
	memset(s, 0, sizeof(*s));
}

void env_unshield(struct env_shield *s)
{
	(void)s;
}

void env_mask_set(const sigset_t *mask)
{
	(void)mask;
}

void env_mask_let_faults(sigset_t *saved, sigset_t *inside)
{
	sigemptyset(saved);
	sigemptyset(inside);
}

void env_mask_restore(const sigset_t *saved)
{
	(void)saved;
}
