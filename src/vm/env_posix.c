/* SPDX-License-Identifier: MIT */
/*
 * env_posix.c - the environment of env.h on POSIX threads and Linux.
 */
#include "env.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *const rank_names[] = {
	[RANK_SPACES] = "spaces", [RANK_SPACE] = "space",
	[RANK_VIEWS] = "views",	  [RANK_OBJECT_VIEWS] = "object's views",
	[RANK_REGION] = "region", [RANK_OBJECT] = "object",
	[RANK_CHARGE] = "charge", [RANK_READY] = "ready",
	[RANK_LEAF] = "leaf",
};

static void env_rank_take(enum env_rank rank, const void *lock, const char *where)
{
	rank_take(rank, lock, rank_names[rank], where);
}

void env_assert_unlocked(void)
{
	rank_assert_none("doing what may sleep for a store");
}

/* ---- Locks -------------------------------------------------------------------------------- */

void env_mutex_init(struct env_mutex *m, enum env_rank rank)
{
	pthread_mutex_init(&m->mutex, NULL);
	m->rank = rank;
}

void env_mutex_destroy(struct env_mutex *m)
{
	pthread_mutex_destroy(&m->mutex);
}

void env_lock_at(struct env_mutex *m, const char *where)
{
	env_rank_take(m->rank, m, where);
	pthread_mutex_lock(&m->mutex);
}

void env_unlock(struct env_mutex *m)
{
	pthread_mutex_unlock(&m->mutex);
	rank_drop(m);
}

bool env_try_lock(struct env_mutex *m)
{
	if (pthread_mutex_trylock(&m->mutex) != 0)
		return false;
	rank_note(m->rank, m, rank_names[m->rank]);
	return true;
}

void env_rwlock_init(struct env_rwlock *l, enum env_rank rank)
{
	pthread_rwlockattr_t attr;

	/* A stream of faults must not keep a mapper out; nobody reads twice (ranks ascend). */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&l->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	l->rank = rank;
}

void env_rwlock_destroy(struct env_rwlock *l)
{
	pthread_rwlock_destroy(&l->lock);
}

void env_read_lock_at(struct env_rwlock *l, const char *where)
{
	env_rank_take(l->rank, l, where);
	pthread_rwlock_rdlock(&l->lock);
}

void env_read_unlock(struct env_rwlock *l)
{
	pthread_rwlock_unlock(&l->lock);
	rank_drop(l);
}

void env_write_lock_at(struct env_rwlock *l, const char *where)
{
	env_rank_take(l->rank, l, where);
	pthread_rwlock_wrlock(&l->lock);
}

void env_write_unlock(struct env_rwlock *l)
{
	pthread_rwlock_unlock(&l->lock);
	rank_drop(l);
}

void env_hold(struct env_mutex *m)
{
	pthread_mutex_lock(&m->mutex);
}

void env_let_go(struct env_mutex *m)
{
	pthread_mutex_unlock(&m->mutex);
}

void env_hold_writing(struct env_rwlock *l)
{
	pthread_rwlock_wrlock(&l->lock);
}

void env_let_go_writing(struct env_rwlock *l)
{
	pthread_rwlock_unlock(&l->lock);
}

/* ---- Waits -------------------------------------------------------------------------------- */

void env_cond_init(struct env_cond *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->cond, &attr);
	pthread_condattr_destroy(&attr);
}

void env_cond_destroy(struct env_cond *c)
{
	pthread_cond_destroy(&c->cond);
}

void env_wait_at(struct env_cond *c, struct env_mutex *m, const char *where)
{
	rank_wait(m, where);
	pthread_cond_wait(&c->cond, &m->mutex);
}

bool env_wait_until_at(struct env_cond *c, struct env_mutex *m, uint64_t deadline_ns,
		       const char *where)
{
	struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / 1000000000u),
		.tv_nsec = (long)(deadline_ns % 1000000000u),
	};

	rank_wait(m, where);
	return pthread_cond_timedwait(&c->cond, &m->mutex, &ts) != ETIMEDOUT;
}

void env_signal(struct env_cond *c)
{
	pthread_cond_signal(&c->cond);
}

void env_broadcast(struct env_cond *c)
{
	pthread_cond_broadcast(&c->cond);
}

/* ---- Threads ------------------------------------------------------------------------------ */

/* All signals but those that a thread causes itself: a refused access inside a store operation
 * must reach its guard. */
static void mask_fill(sigset_t *set)
{
	sigfillset(set);
	sigdelset(set, SIGBUS);
	sigdelset(set, SIGSEGV);
	sigdelset(set, SIGFPE);
	sigdelset(set, SIGILL);
	sigdelset(set, SIGTRAP);
	sigdelset(set, SIGABRT);
}

struct thread_start {
	char name[16];
	void (*fn)(void *);
	void *arg;
};

static void *thread_main(void *p)
{
	struct thread_start start = *(struct thread_start *)p;

	free(p);
	pthread_setname_np(pthread_self(), start.name);
	start.fn(start.arg);
	return NULL;
}

int env_thread_start(env_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	struct thread_start *start = malloc(sizeof(*start));
	sigset_t mask, saved;
	int error;

	if (start == NULL)
		return -ENOMEM;
	strncpy(start->name, name, sizeof(start->name) - 1);
	start->name[sizeof(start->name) - 1] = '\0';
	start->fn = fn;
	start->arg = arg;
	mask_fill(&mask);
	pthread_sigmask(SIG_SETMASK, &mask, &saved);
	error = pthread_create(t, NULL, thread_main, start);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (error != 0)
		free(start);
	return -error;
}

void env_thread_join(env_thread t)
{
	pthread_join(t, NULL);
}

static _Thread_local pid_t tid;

int env_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return -pthread_atfork(prepare, parent, child);
}

void env_child(void)
{
	tid = 0;
}

pid_t env_tid(void)
{
	if (tid == 0)
		tid = (pid_t)syscall(SYS_gettid);
	return tid;
}

uint64_t env_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void env_nap(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u),
			      .tv_nsec = (long)(ns % 1000000000u)};

	while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
		;
}

void env_code_name(const void *code, char *name, size_t size)
{
	uintptr_t at = (uintptr_t)code;
	Dl_info info;

	if (dladdr(code, &info) == 0)
		snprintf(name, size, "%p", code);
	else if (info.dli_sname == NULL)
		snprintf(name, size, "%#zx in %s", at - (uintptr_t)info.dli_fbase, info.dli_fname);
	else
		snprintf(name, size, "%s+%#zx in %s", info.dli_sname,
			 at - (uintptr_t)info.dli_saddr, info.dli_fname);
}

/* ---- Memory ------------------------------------------------------------------------------- */

void *env_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void env_free(void *p, size_t size)
{
	munmap(p, size);
}

/* ---- Shield ------------------------------------------------------------------------------- */

void env_shield(struct env_shield *s)
{
	sigset_t mask;

	mask_fill(&mask);
	pthread_sigmask(SIG_BLOCK, &mask, &s->mask);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &s->cancel);
}

void env_unshield(struct env_shield *s)
{
	pthread_setcancelstate(s->cancel, NULL);
	pthread_sigmask(SIG_SETMASK, &s->mask, NULL);
}

int env_cancel_off(void)
{
	int before;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	return before;
}

void env_cancel_restore(int before)
{
	pthread_setcancelstate(before, NULL);
}

void env_mask_set(const sigset_t *mask)
{
	pthread_sigmask(SIG_SETMASK, mask, NULL);
}

void env_mask_let_faults(sigset_t *saved, sigset_t *inside)
{
	sigset_t faults;

	sigemptyset(&faults);
	sigaddset(&faults, SIGBUS);
	sigaddset(&faults, SIGSEGV);
	pthread_sigmask(SIG_UNBLOCK, &faults, saved);
	*inside = *saved;
	sigdelset(inside, SIGBUS);
	sigdelset(inside, SIGSEGV);
}

void env_mask_restore(const sigset_t *saved)
{
	/* Nearly always neither was blocked. */
	if (sigismember(saved, SIGBUS) == 1 || sigismember(saved, SIGSEGV) == 1)
		env_mask_set(saved);
}
