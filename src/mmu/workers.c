/* SPDX-License-Identifier: MIT */
/*
 * workers.c - handler threads. A reader blocks in read() on the descriptor, and serves what it has
 * read itself: any hand-over, and even a wait by epoll before the read, would cost a good part of
 * what the fault costs. The others follow (pool.c).
 *
 *   FOLLOWING -> READING   there are fewer readers than wanted              pool_follow
 *   READING   -> SERVING   it has read a message                            serve
 *   SERVING   -> READING   it has served it                                 serve
 *   SERVING   -> RELIEVED  it takes long, so another one reads in its place the deputy;
 * mmu_sleep_begin RELIEVED  -> FOLLOWING it has served it                                 serve
 *   READING   -> FOLLOWING it is not needed any more                        pool_leave
 * A worker's word holds its role; SERVING is left by compare-and-swap, as two may try.
 */
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Operations that take longer, on average, hand over reading before they begin; shorter ones are
 * cheaper to wait for. One that is longer than usual is noticed by the deputy. */
#define SLOW_NS 40000

/* Read in signal handlers, too: its place must be there without an allocation. */
static _Thread_local struct worker *self __attribute__((tls_model("initial-exec")));
/* wake_clock before the read that brought the report that it serves, and 1; 0: it serves none. */
static _Thread_local uint64_t report_time __attribute__((tls_model("initial-exec")));

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* False: the worker does not read any more. */
static bool serve(struct worker *worker, const struct uffd_msg *message)
{
	struct mmu *mmu = worker->mmu;
	uint64_t flags = message->arg.pagefault.flags;
	bool write = flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	pid_t tid = (pid_t)message->arg.pagefault.feat.ptid;
	uint64_t word =
		word_next(atomic_load_explicit(&worker->word, memory_order_relaxed), SERVING);

	/* Either the deputy sees SERVING before it goes to sleep, or we see that it sleeps. */
	atomic_store(&worker->word, word);
	if (atomic_load(&mmu->pool.deep))
		pool_call_deputy(mmu);
	if (atomic_load_explicit(&mmu->pool.lacking, memory_order_relaxed))
		pool_reinforce(mmu);
	place_follow(worker, tid);
	fault_note(message->arg.pagefault.address, !(flags & UFFD_PAGEFAULT_FLAG_WP));
	if (!refusal_is_due(tid, (uintptr_t)message->arg.pagefault.address))
		mmu->upcalls->fault(mmu->arg, (uintptr_t)message->arg.pagefault.address,
				    write ? MMU_WRITE : MMU_READ, tid);
	return atomic_compare_exchange_strong(&worker->word, &word, word_next(word, READING));
}

static void read_events(struct worker *worker)
{
	struct mmu *mmu = worker->mmu;
	bool reading = true, rung;
	struct uffd_msg message;

	while (reading) {
		report_time_set(wake_clock());
		/* One message: a further one would wait behind this one's operation. */
		if (read(mmu->uffd, &message, sizeof(message)) != sizeof(message)) {
			if (errno == EMFILE || errno == ENFILE)
				fork_make_room(mmu);
			continue;
		}
		atomic_fetch_add_explicit(&mmu->counts.wakeups, 1, memory_order_relaxed);
		if (message.event == UFFD_EVENT_FORK) {
			fork_event(mmu, (int)message.arg.fork.ufd);
			continue;
		}
		rung = (message.arg.pagefault.address & ~(uint64_t)(MKW_PAGE_SIZE - 1)) ==
		       mmu->doorbell.page;
		if (!rung && message.event == UFFD_EVENT_PAGEFAULT) {
			atomic_fetch_add_explicit(&mmu->counts.events, 1, memory_order_relaxed);
			reading = serve(worker, &message);
		}
		if (reading && (atomic_load(&worker->dismissed) ||
				(rung && atomic_load(&mmu->pool.stopping)))) {
			machine_lock(&mmu->pool.lock);
			pool_leave(worker);
			machine_unlock(&mmu->pool.lock);
			reading = false;
		}
		/* Also on leaving: whoever ends the pool may be ringing in its own thread, and this
		 * may have been the last that would have read it. */
		if (rung || (!reading && atomic_load(&mmu->pool.stopping)))
			doorbell_answer(mmu);
	}
}

static void *worker_run(void *arg)
{
	struct worker *worker = arg;
	struct pool *pool = &worker->mmu->pool;

	self = worker;
	pthread_setname_np(pthread_self(), "mkw-handler");
	machine_lock(&pool->lock);
	while (pool_follow(worker)) {
		machine_unlock(&pool->lock);
		read_events(worker);
		machine_lock(&pool->lock);
	}
	machine_unlock(&pool->lock);
	return NULL;
}

uint64_t mmu_report_time(void)
{
	return report_time > 0 ? report_time - 1 : UINT64_MAX;
}

void report_time_set(uint64_t time)
{
	report_time = time + 1;
}

int thread_start(pthread_t *thread, void *(*fn)(void *arg), void *arg)
{
	sigset_t block, before;
	int err;

	sigfillset(&block);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &block, &before);
	err = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

int worker_start(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;
	struct worker *worker;
	int err;

	if (pool->count >= pool->max || pool->forking || atomic_load(&pool->stopping))
		return -EBUSY;
	worker = calloc(1, sizeof(*worker));
	if (!worker)
		return -ENOMEM;
	worker->mmu = mmu;
	place_init(&worker->place);
	err = thread_start(&worker->thread, worker_run, worker);
	if (err) {
		free(worker);
		return err;
	}
	worker->next = pool->workers;
	pool->workers = worker;
	pool->count++;
	atomic_store_explicit(&mmu->counts.workers, pool->count, memory_order_relaxed);
	return 0;
}

int workers_start(struct mmu *mmu, unsigned count, unsigned max)
{
	struct pool *pool = &mmu->pool;
	pthread_condattr_t attr;
	int err;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, &attr);
	pthread_cond_init(&pool->left, &attr);
	pthread_condattr_destroy(&attr);
	/* One to read and one to watch it. */
	pool->max = max < 2 ? 2 : max;
	pool->wanted = 1;
	pool->want_cpu = -1;
	err = doorbell_create(mmu);
	if (err)
		return err;
	machine_lock(&pool->lock);
	for (unsigned i = 0; (i < count || i < 2) && !err; i++)
		err = worker_start(mmu);
	machine_unlock(&pool->lock);
	if (err)
		workers_stop(mmu);
	return err;
}

void workers_stop(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;

	machine_lock(&pool->lock);
	atomic_store(&pool->stopping, true);
	pthread_cond_broadcast(&pool->wake);
	while (pool->readers > 0) {
		if (doorbell_ring(mmu)) {
			pthread_cond_wait(&pool->left, &pool->lock);
			continue;
		}
		pthread_mutex_unlock(&pool->lock);
		doorbell_ring_here(mmu);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_cond_broadcast(&pool->wake);
	machine_unlock(&pool->lock);
	/* Nobody starts another one any more. */
	while (pool->workers) {
		struct worker *worker = pool->workers;

		pool->workers = worker->next;
		pthread_join(worker->thread, NULL);
		free(worker);
	}
	doorbell_destroy(mmu);
	pthread_cond_destroy(&pool->left);
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->lock);
}

void mmu_sleep_begin(struct mmu *mmu)
{
	struct pool *pool = &mmu->pool;
	uint64_t word;

	kin_sleep_begin();
	if (!self || self->mmu != mmu || self->asleep++ > 0)
		return;
	self->asleep_since_ns = now_ns();
	if (atomic_load_explicit(&pool->sleep_ns, memory_order_relaxed) < SLOW_NS)
		return;
	word = atomic_load(&self->word);
	if (role_of(word) != SERVING)
		return;
	machine_lock(&pool->lock);
	pool_relieve(self);
	machine_unlock(&pool->lock);
}

void mmu_sleep_end(struct mmu *mmu)
{
	_Atomic uint64_t *average = &mmu->pool.sleep_ns;
	uint64_t old;

	if (!self || self->mmu != mmu || --self->asleep > 0)
		return;
	/* Several may write at once; one of them is then lost, which an average bears. */
	old = atomic_load_explicit(average, memory_order_relaxed);
	atomic_store_explicit(average, old - old / 8 + (now_ns() - self->asleep_since_ns) / 8,
			      memory_order_relaxed);
}
