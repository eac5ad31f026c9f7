/* SPDX-License-Identifier: MIT */
/*
 * refuse.c - telling one faulting thread "no", and nobody else.
 *
 * In user mode the thread waits interruptibly: it is sent SIGBUS. Inside a system call a signal
 * does not end its wait; there the page is made inaccessible for a moment (a window) and the thread
 * woken, so that its access fails with EFAULT. Reads of a page that exists go on meanwhile; a
 * user-mode access that hits the window is a SIGSEGV, which signal.c has tried again when the
 * window is closed. The protection is the mapping's, so markers and entries stay as they are.
 *
 * A window must be open until the thread has met it, and not any longer, or its next access would
 * be refused unasked. So it is sent a signal as well, which it takes when it leaves the system
 * call, before any other code of the program: the handler says that the window has been passed, and
 * waits for its end. Where the signal cannot be used (blocked; the program has a handler of its
 * own) the thread is watched for a short time. If it faults again all the same, the next window is
 * longer.
 *
 * One window at a time in the process: window.lock is held while it is open, and while a view is
 * unmapped.
 */
#include "machine.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WATCH_LOOKS	 8u	 /* at a thread that cannot be signalled */
#define LOOK_INTERVAL_NS 20000	 /* between them */
#define PASSAGE_NS	 2000000 /* patience with one that can */
#define DOUBLINGS_MAX	 8u	 /* of either, when the thread faults there again */

static struct {
	pthread_mutex_t lock;
	_Atomic uint32_t ticket; /* of the window open now; 0: none */
	_Atomic uint32_t passed; /* the ticket whose thread has passed it */
	_Atomic pid_t tid;	 /* whom it is or was for. Changed under lock, as are: */
	uint32_t last_ticket;
	uintptr_t page;
	unsigned repeats;
} window = {.lock = PTHREAD_MUTEX_INITIALIZER};

/*
 * For whom windows were opened, and where. A report can be read when its thread has just been woken
 * into its window and has not left its wait yet: it looks new, and the thread is somewhere else by
 * the time it is refused. So the first report after a window is answered by a wake: who is still
 * there comes again. A thread that shares a place with another costs that one nothing but a fault.
 */
#define PLACES 1024u
static _Atomic uint64_t let_go[PLACES];

static uint64_t let_go_key(pid_t tid, uintptr_t page)
{
	return (uint64_t)tid << 40 ^ page / MKW_PAGE_SIZE;
}

static void let_go_note(pid_t tid, uintptr_t page)
{
	atomic_store(&let_go[(unsigned)tid % PLACES], let_go_key(tid, page));
}

/* Once for each note. */
static bool let_go_take(pid_t tid, uintptr_t page)
{
	uint64_t key = let_go_key(tid, page);

	return atomic_compare_exchange_strong(&let_go[(unsigned)tid % PLACES], &key, 0);
}

/*
 * Which threads are being refused, and where. A thread with a signal pending faults in its call
 * over and over: each further report would end in a wake, each wake makes it uncertain that the
 * thread is where it was reported, and so none of them would be refused ever. So they are not
 * served. The mark goes before the signal or the wake that every refusal ends in: whoever waits
 * leaves by that.
 */
static _Atomic uint64_t refusing[PLACES];

bool refusal_is_due(pid_t tid, uintptr_t address)
{
	return atomic_load(&refusing[(unsigned)tid % PLACES]) == let_go_key(tid, address);
}

static void refusal_begin(pid_t tid, uintptr_t page)
{
	atomic_store(&refusing[(unsigned)tid % PLACES], let_go_key(tid, page));
}

static void refusal_sent(pid_t tid, uintptr_t page)
{
	uint64_t key = let_go_key(tid, page);

	atomic_compare_exchange_strong(&refusing[(unsigned)tid % PLACES], &key, 0);
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value, long timeout_ns)
{
	struct timespec timeout = {.tv_sec = timeout_ns / 1000000000,
				   .tv_nsec = timeout_ns % 1000000000};

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &timeout, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

bool window_await_end(void)
{
	uint32_t ticket = atomic_load(&window.ticket);

	if (ticket != 0)
		futex_wait(&window.ticket, ticket, PASSAGE_NS);
	return ticket != 0;
}

static _Atomic uint64_t changes;

uint64_t protection_changes(void)
{
	return atomic_load(&changes);
}

void protection_change(void)
{
	atomic_fetch_add(&changes, 1);
}

/*
 * Whichever window its signal was sent for: if one is pending still when the next is sent, the two
 * arrive as one. Whoever takes a signal is in no system call, and so past any window of its own.
 */
void window_pass(void)
{
	uint32_t ticket = atomic_load(&window.ticket);

	if (ticket == 0 || atomic_load(&window.tid) != (pid_t)syscall(SYS_gettid) ||
	    atomic_load(&window.ticket) != ticket)
		return; /* late: it has been closed since */
	atomic_store(&window.passed, ticket);
	futex_wake(&window.passed);
	while (atomic_load(&window.ticket) == ticket)
		futex_wait(&window.ticket, ticket, PASSAGE_NS);
}

void window_lock(void)
{
	machine_lock(&window.lock);
}

void window_unlock(void)
{
	machine_unlock(&window.lock);
}

/* Signals sent and not arrived. Two that meet arrive as one: it may stay too high. */
static _Atomic unsigned underway;

bool signal_arrived(void)
{
	unsigned before = atomic_load(&underway);

	while (before > 0 && !atomic_compare_exchange_weak(&underway, &before, before - 1))
		;
	return before > 0;
}

static int send_sigbus(pid_t tid, int code, uintptr_t value)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = SIGBUS;
	info.si_code = code;
	info.si_addr = (void *)value;
	atomic_fetch_add(&underway, 1);
	if (syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, SIGBUS, &info) == 0)
		return 0;
	signal_arrived();
	return -errno;
}

bool signals_wake(pid_t tid)
{
	return signals_ours() && send_sigbus(tid, PASSED_CODE, 0) == 0;
}

void windows_abandon(void)
{
	pthread_mutex_init(&window.lock, NULL);
	atomic_store(&window.ticket, 0);
}

/* What the thread is doing cannot be told now: it tries its access again, and its refusal comes
 * with it. */
static void refuse_later(struct mmu_view *view, uintptr_t address)
{
	mmu_wake(view, address & ~(uintptr_t)(MKW_PAGE_SIZE - 1), MKW_PAGE_SIZE);
}

static void refuse_by_signal(struct mmu_view *view, uintptr_t address, pid_t tid)
{
	uint64_t bit = (uint64_t)1 << (SIGBUS - 1);
	struct thread_signals signals;
	int err = thread_signals_read(tid, &signals);

	if (err == -ESRCH)
		return;
	/* force_sig_fault: where the signal is blocked or ignored the process ends of it. */
	if (err)
		refuse_later(view, address);
	else if ((signals.blocked | signals.ignored) & bit)
		signals_die(address);
	else
		(void)send_sigbus(tid, REFUSED_CODE, address);
}

/* => window.lock held, none open. How often patience is to be doubled for a thread that comes back.
 */
static void count_repeats(uintptr_t page, pid_t tid)
{
	if (atomic_load(&window.tid) != tid || window.page != page)
		window.repeats = 0;
	else if (window.repeats < DOUBLINGS_MAX)
		window.repeats++;
	atomic_store(&window.tid, tid);
	window.page = page;
}

/* Until the thread waits somewhere else than it did, or is in no system call any more. */
static void watch_passage(pid_t tid, const struct thread_state *blocked, unsigned looks)
{
	struct timespec pause = {.tv_nsec = LOOK_INTERVAL_NS};
	struct thread_state now;

	for (; looks > 0; looks--) {
		nanosleep(&pause, NULL);
		thread_state_read(tid, &now);
		if (now.mode != THREAD_RUNNING && strcmp(now.text, blocked->text) != 0)
			return;
	}
}

static bool can_be_signalled(pid_t tid)
{
	struct thread_signals signals;

	return signals_ours() && thread_signals_read(tid, &signals) == 0 &&
	       !(signals.blocked & (uint64_t)1 << (SIGBUS - 1));
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A wait may end early. */
static void await_passed(uint32_t ticket, uint64_t patience_ns)
{
	uint64_t now = now_ns(), end = now + patience_ns;
	uint32_t passed;

	while ((passed = atomic_load(&window.passed)) != ticket && now < end) {
		futex_wait(&window.passed, passed, (long)(end - now));
		now = now_ns();
	}
}

/* => window.lock held. */
static void await_passage(struct mmu_view *view, uintptr_t page, pid_t tid,
			  const struct thread_state *blocked)
{
	if (can_be_signalled(tid) && send_sigbus(tid, PASSED_CODE, page) == 0) {
		mmu_wake(view, page, MKW_PAGE_SIZE);
		await_passed(window.last_ticket, (uint64_t)PASSAGE_NS << window.repeats);
	} else {
		mmu_wake(view, page, MKW_PAGE_SIZE);
		watch_passage(tid, blocked, WATCH_LOOKS << window.repeats);
	}
}

/* A thread with a signal pending faults in its call over and over, and each time is refused: once a
 * window has let it go the others are for nothing, and would keep those who come next waiting. */
static void refuse_by_window(struct mmu_view *view, uintptr_t page, enum mmu_access access,
			     pid_t tid, uint64_t reported, const struct thread_state *blocked)
{
	int whole = (view->readable ? PROT_READ : 0) | (view->writable ? PROT_WRITE : 0);
	int less = access == MMU_WRITE ? PROT_READ : PROT_NONE;

	window_lock();
	if (mmu_woken_since(page, reported)) {
		window_unlock();
		refusal_sent(tid, page);
		mmu_wake(view, page, MKW_PAGE_SIZE); /* or that was another page's wake */
		return;
	}
	count_repeats(page, tid);
	window.last_ticket += window.last_ticket + 1 == 0 ? 2 : 1;
	atomic_store(&window.ticket, window.last_ticket);
	count_call(view->mmu);
	protection_change();
	if (mprotect((void *)page, MKW_PAGE_SIZE, less) == 0) {
		let_go_note(tid, page);
		refusal_sent(tid, page);
		await_passage(view, page, tid, blocked);
		count_call(view->mmu);
		/* It merges with its neighbours again and so adds no mapping; but never leave it.
		 */
		while (mprotect((void *)page, MKW_PAGE_SIZE, whole) && errno == ENOMEM)
			sched_yield();
	} else {
		/* Too many mappings for a split: the thread comes back, and its refusal with it. */
		refusal_sent(tid, page);
		mmu_wake(view, page, MKW_PAGE_SIZE);
	}
	protection_change();
	atomic_store(&window.ticket, 0);
	futex_wake(&window.ticket);
	window_unlock();
}

void mmu_refuse(struct mmu_view *view, uintptr_t address, enum mmu_access access, pid_t tid,
		uint64_t reported)
{
	uintptr_t page = address & ~(uintptr_t)(MKW_PAGE_SIZE - 1);
	struct thread_state state;

	if (let_go_take(tid, page)) {
		mmu_wake(view, page, MKW_PAGE_SIZE);
		return;
	}
	refusal_begin(tid, page);
	thread_state_settle(tid, &state);
	if (state.mode == THREAD_SYSCALL || state.mode == THREAD_RUNNING) {
		refuse_by_window(view, page, access, tid, reported, &state);
		return;
	}
	refusal_sent(tid, page);
	if (state.mode == THREAD_USER)
		refuse_by_signal(view, address, tid);
	else if (state.mode == THREAD_UNKNOWN)
		refuse_later(view, address);
}
