/* SPDX-License-Identifier: MIT */
/*
 * env.h - what src/vm needs of the operating system besides src/mmu: memory, locks, waits, threads,
 * time. One file implements it (env_posix.c), so that a simulated machine can replace all of it.
 *
 * Locks have ranks: a thread takes them in ascending order (debug builds check: src/lock/rank.h).
 */
#ifndef ENV_H
#define ENV_H

#include "lock/rank.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Ascending: whoever holds one takes only higher ones. ARCHITECTURE.md tells what each protects. */
enum env_rank {
	RANK_SPACES = 1,   /* the process's list of spaces, signal set-up */
	RANK_SPACE,	   /* a space's objects and handles */
	RANK_VIEWS,	   /* the process's table of views (rwlock) */
	RANK_OBJECT_VIEWS, /* an object's list of views (rwlock) */
	RANK_REGION,	   /* page states of one region */
	RANK_OBJECT,	   /* an object's waiters, range operations, errors, region table */
	RANK_CHARGE,	   /* a space's accounts and their waiters */
	RANK_READY,	   /* a space's queue of resumed faults; delayed faults */
	RANK_LEAF,	   /* slabs, streams, refusal records, sleepers */
};

struct env_mutex {
	pthread_mutex_t mutex;
	enum env_rank rank;
};
struct env_rwlock {
	pthread_rwlock_t lock;
	enum env_rank rank;
};
struct env_cond {
	pthread_cond_t cond;
};
typedef pthread_t env_thread;

/* With the place, for reports: debug builds only. */
#define env_lock(m)		    env_lock_at((m), RANK_HERE)
#define env_read_lock(l)	    env_read_lock_at((l), RANK_HERE)
#define env_write_lock(l)	    env_write_lock_at((l), RANK_HERE)
#define env_wait(c, m)		    env_wait_at((c), (m), RANK_HERE)
#define env_wait_until(c, m, until) env_wait_until_at((c), (m), (until), RANK_HERE)

void env_mutex_init(struct env_mutex *m, enum env_rank rank);
void env_mutex_destroy(struct env_mutex *m);
void env_lock_at(struct env_mutex *m, const char *where);
void env_unlock(struct env_mutex *m);
/* Never waits, and asks for no rank: for a signal handler, which may have come in anywhere. */
bool env_try_lock(struct env_mutex *m);

void env_rwlock_init(struct env_rwlock *l, enum env_rank rank);
void env_rwlock_destroy(struct env_rwlock *l);
void env_read_lock_at(struct env_rwlock *l, const char *where);
void env_read_unlock(struct env_rwlock *l);
void env_write_lock_at(struct env_rwlock *l, const char *where);
void env_write_unlock(struct env_rwlock *l);

/* For a thread that forks: it takes locks of one rank in many places, which nobody else does, and
 * gives them back here, or in the child not at all. */
void env_hold(struct env_mutex *m);
void env_let_go(struct env_mutex *m);
void env_hold_writing(struct env_rwlock *l);
void env_let_go_writing(struct env_rwlock *l);

void env_cond_init(struct env_cond *c);
void env_cond_destroy(struct env_cond *c);
void env_wait_at(struct env_cond *c, struct env_mutex *m, const char *where);
/* False: the time came before a signal. */
bool env_wait_until_at(struct env_cond *c, struct env_mutex *m, uint64_t deadline_ns,
		       const char *where);
void env_signal(struct env_cond *c);
void env_broadcast(struct env_cond *c);

/* No lock of any rank held: call before anything that may sleep for a store. Debug builds check. */
void env_assert_unlocked(void);

/* Threads of the library block all signals but the synchronous ones. 0 or -errno. */
int env_thread_start(env_thread *t, const char *name, void (*fn)(void *), void *arg);
void env_thread_join(env_thread t);
pid_t env_tid(void);

/* Around fork() in any thread of the process: before it, after it in the parent, in the child. 0 or
 * -errno. */
int env_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
/* In the child, once: its thread has another number. */
void env_child(void);

/* Sleep. */
void env_nap(uint64_t ns);

/* Monotonic. */
uint64_t env_now_ns(void);

/* The name of the code at an address, for people: "function+0x1f (file)" as far as it is known. */
void env_code_name(const void *code, char *name, size_t size);

/* Zeroed memory straight from the kernel: usable in a signal handler. NULL: none. */
void *env_alloc(size_t size);
void env_free(void *p, size_t size);

/* Around API calls that take locks: blocks signals and cancellation, so that a handler cannot come
 * back in. Nests. */
struct env_shield {
	sigset_t mask;
	int cancel;
};
void env_shield(struct env_shield *s);
void env_unshield(struct env_shield *s);

/* A thread that waits in a signal handler is not cancelled there. => what restores it. */
int env_cancel_off(void);
void env_cancel_restore(int before);

/* For guards: let SIGBUS and SIGSEGV through; saved is the calling thread's signal mask before,
 * inside after. */
void env_mask_let_faults(sigset_t *saved, sigset_t *inside);
void env_mask_set(const sigset_t *mask);
/* Undo env_mask_let_faults. */
void env_mask_restore(const sigset_t *saved);

#endif
