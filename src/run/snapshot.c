/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - snapshots, the program's side: being quiet for an instant, and waiting for chunks to
 * be copied. snapshot.h says how it works together.
 *
 * The entry of a process: FREE -> JOINING -> JOINED, by itself; its thread holds life from JOINED
 * on. Then the process looks at the turn: either it sees the instant, or the supervisor sees it. So
 * a process that is joining need not be waited for, nor a child that fork has just made: it looks
 * whether there was an instant since the fork began, and if so gives up what the parent had been
 * granted.
 *
 * joining comes before a hold; the thread takes neither.
 */
#include "snapshot.h"

#include "futex.h"
#include "process.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#define LOOK_NS	     (RUN_LOOK_MS * 1000000ull)
#define HOLDS_NS     1000000000ull /* how long an instant waits for writes that have begun */
#define STACK_BYTES  (128u << 10)
#define SIGSET_BYTES (_NSIG / 8) /* the kernel's */
#define PHASE(turn)  ((turn)&3u)

/* This process. */
static struct {
	pthread_mutex_t joining;
	struct run_control *control;
	const struct run_snapshot_ops *ops;
	struct run_snapshot_process *entry; /* NULL: not joined */
	uint32_t fork_turn;		    /* before fork, for the child */
	_Atomic uint32_t joined;	    /* futex: the thread has begun */
	_Atomic bool takes_part;	    /* joined, and the instant that it met is over */
	_Atomic uint32_t shut;		    /* futex: 1: holds wait */
	_Atomic uint32_t holds;		    /* futex: that have begun and not ended */
} here = {.joining = PTHREAD_MUTEX_INITIALIZER};

/* Holds of this thread. A signal handler may look at it. */
static _Thread_local unsigned depth __attribute__((tls_model("initial-exec")));

static struct run_snapshots *area(void)
{
	return &here.control->snapshots;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- Before a write ----------------------------------------------------------------------- */

/* The chunks of the file that hold the range, up to the size at the instant. False: none. */
static bool chunks_of(const struct run_snapshots *s, uint16_t file, uint64_t offset,
		      uint64_t length, uint64_t *first, uint64_t *end)
{
	const struct run_snapshot_file *f = &s->files[file];
	uint64_t last;

	if (!atomic_load_explicit(&f->copying, memory_order_acquire) || length == 0 ||
	    offset >= f->size)
		return false;
	last = length > f->size - offset ? f->size - 1 : offset + length - 1;
	*first = f->first_chunk + (offset >> s->chunk_shift);
	*end = f->first_chunk + (last >> s->chunk_shift) + 1;
	return *end <= RUN_SNAPSHOT_CHUNKS;
}

/* Does the snapshot still need something of the range? */
static bool wanted(struct run_snapshots *s, uint32_t turn, uint16_t file, uint64_t offset,
		   uint64_t length)
{
	uint64_t chunk, end;

	if (atomic_load(&s->turn) != turn || !chunks_of(s, file, offset, length, &chunk, &end))
		return false;
	while (chunk < end) {
		uint64_t word = atomic_load_explicit(&s->copied[chunk / 64], memory_order_acquire);
		uint64_t span = 64 - chunk % 64 < end - chunk ? 64 - chunk % 64 : end - chunk;
		uint64_t mask = (span == 64 ? UINT64_MAX : (1ull << span) - 1) << chunk % 64;

		if ((word & mask) != mask)
			return true;
		chunk += span;
	}
	return false;
}

/* False: all entries are taken. */
static bool ask(struct run_snapshots *s, uint16_t file, uint64_t offset, uint64_t length)
{
	uint32_t tid = (uint32_t)syscall(SYS_gettid);
	bool asked = false;
	sigset_t all, old;

	/* A handler that leaves by longjmp would leave the entry claimed. */
	sigfillset(&all);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, SIGSET_BYTES);
	for (unsigned i = 0; i < RUN_SNAPSHOT_ASKS && !asked; i++) {
		uint32_t state = 0;

		if (!atomic_compare_exchange_strong(&s->asks[i].state, &state, tid))
			continue;
		s->asks[i].file = file;
		s->asks[i].offset = offset;
		s->asks[i].length = length;
		atomic_store(&s->asks[i].state, RUN_ASKED);
		asked = true;
	}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, SIGSET_BYTES);
	run_futex_ring(&s->bell);
	return asked;
}

void run_snapshot_before_write(struct run_control *control, uint16_t file, uint64_t offset,
			       uint64_t length)
{
	struct run_snapshots *s = &control->snapshots;
	uint32_t turn = atomic_load(&s->turn);
	bool asked = false;
	int saved = errno;

	if (PHASE(turn) != RUN_SNAPSHOT_COPYING || file >= RUN_FILES)
		return;
	file = (uint16_t)(atomic_load(&s->files[file].same_as) % RUN_FILES);
	for (;;) {
		uint32_t served = atomic_load(&s->served);

		if (!wanted(s, turn, file, offset, length))
			break;
		if (!asked)
			asked = ask(s, file, offset, length);
		run_futex_wait(&s->served, served, LOOK_NS);
		if (!run_supervisor_lives(control))
			break;
	}
	errno = saved;
}

/* ---- Holds -------------------------------------------------------------------------------- */

static void hold_drop(void)
{
	if (atomic_fetch_sub(&here.holds, 1) == 1 && atomic_load(&here.shut))
		run_futex_wake_all(&here.holds);
}

void run_hold_begin(struct run_control *control)
{
	(void)control;
	while (depth == 0) {
		atomic_fetch_add(&here.holds, 1);
		if (!atomic_load(&here.shut))
			break;
		hold_drop();
		run_futex_wait(&here.shut, 1, LOOK_NS);
	}
	depth++;
}

void run_hold_end(struct run_control *control)
{
	(void)control;
	if (--depth == 0)
		hold_drop();
}

static uint64_t entry_state(enum run_snapshot_join state)
{
	return (uint64_t)(uint32_t)getpid() << 32 | state;
}

/* ---- The thread --------------------------------------------------------------------------- */

void run_snapshot_maps(uint16_t file)
{
	if (file < RUN_FILES)
		here.entry->maps[file / 64] |= 1ull << file % 64;
}

/* False: something goes on for too long. */
static bool holds_wait(void)
{
	uint64_t deadline_ns = now_ns() + HOLDS_NS;
	uint32_t holds;

	while ((holds = atomic_load(&here.holds)) != 0) {
		uint64_t t = now_ns();

		if (t >= deadline_ns)
			return false;
		run_futex_wait(&here.holds, holds, deadline_ns - t);
	}
	return true;
}

static void be_quiet(struct run_snapshot_process *p, uint32_t turn)
{
	int error = -EBUSY;
	bool held;

	memset(p->maps, 0, sizeof(p->maps));
	atomic_store(&here.shut, 1);
	held = holds_wait();
	if (held)
		error = here.ops->quiesce();
	atomic_store(&p->failed, error);
	atomic_store(&p->quiet, turn);
	run_futex_ring(&area()->bell);
	while (atomic_load(&area()->turn) == turn && run_supervisor_lives(here.control))
		run_futex_wait(&area()->turn, turn, LOOK_NS);
	if (held)
		here.ops->resume();
	atomic_store(&here.shut, 0);
	run_futex_wake_all(&here.shut);
}

static void life_begin(struct run_snapshot_process *p)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&p->life, &attr);
	pthread_mutexattr_destroy(&attr);
	pthread_mutex_lock(&p->life);
}

static void *thread_main(void *arg)
{
	struct run_snapshot_process *p = arg;

	prctl(PR_SET_NAME, "mkw-snapshot");
	here.entry = p;
	atomic_store(&p->quiet, 0);
	atomic_store(&p->failed, 0);
	life_begin(p);
	atomic_store(&p->state, entry_state(RUN_SNAPSHOT_JOINED));
	run_futex_ring(&here.joined);
	while (run_supervisor_lives(here.control)) {
		uint32_t turn = atomic_load(&area()->turn);

		if (PHASE(turn) == RUN_SNAPSHOT_INSTANT && atomic_load(&p->quiet) != turn)
			be_quiet(p, turn);
		else
			run_futex_wait(&area()->turn, turn, LOOK_NS);
		if (here.ops->look)
			here.ops->look();
	}
	pthread_mutex_unlock(&p->life);
	return NULL;
}

/* The program's signals go to the program's threads. A small stack, unless the program has so much
 * thread-local data that it does not fit. */
static int thread_start(struct run_snapshot_process *p)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	error = pthread_create(&thread, &attr, thread_main, p);
	if (error == EINVAL) {
		pthread_attr_destroy(&attr);
		pthread_attr_init(&attr);
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		error = pthread_create(&thread, &attr, thread_main, p);
	}
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -error;
}

/* ---- Joining, and fork -------------------------------------------------------------------- */

/* NULL: all entries are taken. */
static struct run_snapshot_process *entry_claim(struct run_snapshots *s)
{
	for (unsigned i = 0; i < RUN_SNAPSHOT_PROCESSES; i++) {
		uint64_t state = RUN_SNAPSHOT_FREE;

		if (atomic_compare_exchange_strong(&s->processes[i].state, &state,
						   entry_state(RUN_SNAPSHOT_JOINING)))
			return &s->processes[i];
	}
	return NULL;
}

static int join(void)
{
	struct run_snapshot_process *p = entry_claim(area());
	int error = p ? thread_start(p) : -EAGAIN;

	if (error) {
		if (p)
			atomic_store(&p->state, RUN_SNAPSHOT_FREE);
		atomic_fetch_add(&area()->missing, 1);
		return error;
	}
	while (atomic_load(&p->state) != entry_state(RUN_SNAPSHOT_JOINED)) {
		uint32_t joined = atomic_load(&here.joined);

		if (atomic_load(&p->state) != entry_state(RUN_SNAPSHOT_JOINED))
			run_futex_wait(&here.joined, joined, LOOK_NS);
	}
	return 0;
}

/* The supervisor may not have seen us: nothing is written before its instant is over. */
static void instant_wait(void)
{
	uint32_t turn = atomic_load(&area()->turn);

	while (PHASE(turn) == RUN_SNAPSHOT_INSTANT && run_supervisor_lives(here.control)) {
		run_futex_wait(&area()->turn, turn, LOOK_NS);
		turn = atomic_load(&area()->turn);
	}
}

int run_snapshot_join(struct run_control *control, const struct run_snapshot_ops *ops)
{
	int error = 0, saved = errno;

	if (atomic_load(&here.takes_part))
		return 0;
	pthread_mutex_lock(&here.joining);
	if (!here.entry) {
		here.control = control;
		here.ops = ops;
		error = join();
		if (!error)
			instant_wait();
		atomic_store(&here.takes_part, error == 0);
	}
	pthread_mutex_unlock(&here.joining);
	errno = saved;
	return error;
}

void run_snapshot_fork_begin(struct run_control *control)
{
	pthread_mutex_lock(&here.joining);
	run_hold_begin(control);
	here.fork_turn = atomic_load(&control->snapshots.turn);
}

void run_snapshot_fork_parent(struct run_control *control)
{
	run_hold_end(control);
	pthread_mutex_unlock(&here.joining);
}

void run_snapshot_fork_child(struct run_control *control)
{
	bool joined = here.entry != NULL;

	/* Of the threads that held, waited, or were quiet, none is here. */
	depth = 0;
	atomic_store(&here.holds, 0);
	atomic_store(&here.shut, 0);
	here.entry = NULL;
	atomic_store(&here.takes_part, joined);
	if (joined && join() == 0 &&
	    (PHASE(here.fork_turn) == RUN_SNAPSHOT_INSTANT ||
	     atomic_load(&area()->turn) != here.fork_turn)) {
		/* There was an instant since: what the parent had been granted is asked for anew.
		 */
		instant_wait();
		run_hold_begin(control);
		if (here.ops->quiesce() != 0)
			atomic_fetch_add(&area()->missing, 1);
		here.ops->resume();
		run_hold_end(control);
	}
	pthread_mutex_unlock(&here.joining);
}
