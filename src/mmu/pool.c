/* SPDX-License-Identifier: MIT */
/*
 * pool.c - who of the workers reads. Usually one does; followers sleep. One of them is the deputy:
 * it looks at the readers once a tick, and
 *   - when all of them have been serving the same event for a tick, they are relieved and the
 * deputy reads in their place: no event waits longer than that behind an operation that sleeps;
 *   - a reader that has had nothing to read for long, while there are others, is dismissed;
 *   - when nothing happens at all it stops looking (deep), until a reader calls it.
 * So a fault costs the reader one look at a flag for all this.
 *
 * There is more than one reader only while threads on several cores fault (place.c): each reader
 * blocked in read() is woken for every event, which a core of its own can bear and one thread's
 * faults cannot.
 *
 * Everything here is called with pool.lock held.
 */
#include "machine.h"

#include <errno.h>
#include <time.h>

#define TICK_NS		1000000
#define LOOKS_TILL_DEEP 8
#define LOOKS_TO_SPARE	20 /* without an event, of one reader beside others */
#define READERS_MAX	4

static bool reads(const struct worker *worker)
{
	enum role role = role_of(atomic_load(&worker->word));

	return role == READING || role == SERVING;
}

static bool somebody_reads(const struct mmu *mmu)
{
	for (const struct worker *w = mmu->pool.workers; w; w = w->next)
		if (role_of(atomic_load(&w->word)) == READING)
			return true;
	return false;
}

bool pool_reader_at(const struct mmu *mmu, const struct worker *except, int cpu)
{
	for (const struct worker *w = mmu->pool.workers; w; w = w->next)
		if (w != except && reads(w) && atomic_load(&w->place.home) == cpu)
			return true;
	return false;
}

/* There is something to do for a follower; see that there is one, and one to be the deputy. */
static void summon(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;

	/* At the bound it waits until one comes back; what failed is tried again with the next
	 * event, for none may come back before that is served. */
	if (pool->following == 0) {
		int err = worker_start(mmu);

		atomic_store(&pool->lacking, err != 0 && err != -EBUSY);
	}
	pthread_cond_signal(&pool->wake);
}

void pool_reinforce(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;

	pthread_mutex_lock(&pool->lock);
	atomic_store(&pool->lacking, false);
	summon(mmu);
	pthread_mutex_unlock(&pool->lock);
}

void pool_relieve(struct worker *worker)
{
	struct pool *pool = &worker->mmu->pool;
	uint64_t word = atomic_load(&worker->word);

	if (role_of(word) != SERVING ||
	    !atomic_compare_exchange_strong(&worker->word, &word, word_next(word, RELIEVED)))
		return;
	pool->readers--;
	pthread_cond_signal(&pool->left);
	summon(worker->mmu);
}

void pool_leave(struct worker *worker)
{
	struct pool *pool = &worker->mmu->pool;

	atomic_store(&worker->word, word_next(atomic_load(&worker->word), FOLLOWING));
	pool->readers--;
	pthread_cond_signal(&pool->left);
	pthread_cond_signal(&pool->wake);
}

void pool_dismiss(struct worker *worker)
{
	struct pool *pool = &worker->mmu->pool;

	if (pool->wanted > 1 && !atomic_load(&worker->dismissed)) {
		pool->wanted--;
		atomic_store(&worker->dismissed, true);
	}
}

void pool_enlist(struct mmu *mmu, int cpu)
{
	struct pool *pool = &mmu->pool;

	if (pool->wanted >= READERS_MAX || pool->readers < pool->wanted ||
	    pool_reader_at(mmu, NULL, cpu))
		return;
	/* Without a deputy a second reader is not worth it. */
	if (pool->following < 2 && worker_start(mmu))
		return;
	pool->wanted++;
	pool->want_cpu = cpu;
	pthread_cond_signal(&pool->wake);
}

void pool_call_deputy(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;

	if (!atomic_exchange(&pool->deep, false))
		return;
	machine_lock(&pool->lock);
	pthread_cond_broadcast(&pool->wake);
	machine_unlock(&pool->lock);
}

/* The deputy's look at a reader. True: it has served or read something since the last one. */
static bool look_at(struct worker *worker)
{
	uint64_t word = atomic_load(&worker->word);
	bool changed = word != worker->looked;

	worker->looked = word;
	worker->unchanged = changed ? 0 : worker->unchanged + 1;
	return changed;
}

static void look(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;
	bool stuck = true, changed = false;

	for (struct worker *w = pool->workers; w; w = w->next) {
		if (!reads(w))
			continue;
		changed |= look_at(w);
		stuck &= role_of(w->looked) == SERVING && w->unchanged > 0;
		if (role_of(w->looked) == READING && w->unchanged >= LOOKS_TO_SPARE)
			pool_dismiss(w);
		/* That starts a thread. */
		if (atomic_load(&w->dismissed) && !pool->forking)
			doorbell_ring(mmu);
	}
	pool->idle_looks = changed ? 0 : pool->idle_looks + 1;
	for (struct worker *w = pool->workers; w && stuck; w = w->next)
		pool_relieve(w);
}

/* Nothing has happened for a while: wait until a reader calls, or somebody else. */
static void watch_deep(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;

	atomic_store(&pool->deep, true);
	/* A reader that begins to serve from here on calls; one that has begun is seen. */
	if (somebody_reads(mmu) && !atomic_load(&pool->kicked))
		pthread_cond_wait(&pool->wake, &pool->lock);
	atomic_store(&pool->deep, false);
	pool->idle_looks = 0;
}

static void watch_tick(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TICK_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	/* Once it is stopping there is nobody to look at, and the list is being taken apart. */
	if (pthread_cond_timedwait(&pool->wake, &pool->lock, &until) == ETIMEDOUT &&
	    !atomic_load(&pool->stopping))
		look(mmu);
}

/* => gives pool.lock up meanwhile. */
static void serve_kick(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;

	pool->following--;
	if (!pool->deputy)
		summon(mmu);
	machine_unlock(&pool->lock);
	mmu->upcalls->ready(mmu->arg);
	machine_lock(&pool->lock);
	pool->following++;
}

static void begin_reading(struct worker *worker)
{
	struct pool *pool = &worker->mmu->pool;

	pool->readers++;
	if (pool->want_cpu >= 0)
		place_bind(&worker->place, pool->want_cpu);
	pool->want_cpu = -1;
	worker->unchanged = 0;
	atomic_store(&worker->dismissed, false);
	atomic_store(&worker->word, word_next(atomic_load(&worker->word), READING));
}

bool pool_follow(struct worker *worker)
{
	struct mmu *mmu = worker->mmu;
	struct pool *pool = &mmu->pool;
	bool read = false;

	atomic_store(&worker->word, word_next(atomic_load(&worker->word), FOLLOWING));
	pool->following++;
	while (!read && !(atomic_load(&pool->stopping) && pool->readers == 0)) {
		if (atomic_load(&pool->stopping)) {
			pthread_cond_wait(&pool->wake, &pool->lock);
		} else if (pool->readers < pool->wanted) {
			read = true;
			begin_reading(worker);
		} else if (atomic_exchange(&pool->kicked, false)) {
			serve_kick(mmu);
		} else if (!pool->deputy) {
			pool->deputy = true;
			if (pool->idle_looks >= LOOKS_TILL_DEEP && pool->readers == 1)
				watch_deep(mmu);
			else
				watch_tick(mmu);
			pool->deputy = false;
		} else {
			pthread_cond_wait(&pool->wake, &pool->lock);
		}
		atomic_fetch_add_explicit(&mmu->counts.wakeups, 1, memory_order_relaxed);
	}
	pool->following--;
	if (!pool->deputy)
		summon(mmu);
	return read;
}

/*
 * A follower never waits for long, nor does who reads: what they read or are to serve is left alone
 * until the fork is over (the gate of src/vm). Whoever serves may have been past that already. No
 * thread is started meanwhile: that may take memory, and the thread that forks has malloc's locks.
 */
int pool_begin_fork(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;
	int err = 0;

	machine_lock(&pool->lock);
	if (pool->following == 0 && !somebody_reads(mmu)) {
		pool->max++;
		err = worker_start(mmu);
		pool->max--;
	}
	pool->forking = !err;
	machine_unlock(&pool->lock);
	return err;
}

void pool_end_fork(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;

	machine_lock(&pool->lock);
	pool->forking = false;
	pthread_cond_signal(&pool->wake);
	machine_unlock(&pool->lock);
}

void mmu_kick(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;

	if (atomic_exchange(&pool->kicked, true))
		return; /* whoever takes it has not begun yet */
	machine_lock(&pool->lock);
	pthread_cond_signal(&pool->wake);
	machine_unlock(&pool->lock);
}
