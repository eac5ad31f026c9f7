/* SPDX-License-Identifier: MIT */
/*
 * refuse.c - telling one faulting thread "no", and nobody else.
 *
 * In user mode the thread waits interruptibly: it is sent SIGBUS. Inside a system call a signal
 * does not end its wait; there the page is made inaccessible for a moment (a window) and the thread
 * woken, so that its access fails with EFAULT. Reads of a page that exists go on meanwhile; a
 * user-mode access that hits the window is a SIGSEGV, which signal.c has tried again. The
 * protection is the mapping's, so markers and entries stay as they are.
 *
 * mmu.windows is held while a window is open: one at a time, or the end of one would close another.
 */
#include "machine.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WINDOW_LOOKS	 8u /* at the thread, before the window is closed all the same */
#define WINDOW_DOUBLINGS 8  /* of that, when the thread faults there again */
#define LOOK_INTERVAL_NS 20000

static void refuse_by_signal(uintptr_t address, pid_t tid)
{
	struct thread_signals signals;
	uint64_t bit = (uint64_t)1 << (SIGBUS - 1);
	siginfo_t info;

	if (!thread_signals_read(tid, &signals))
		return;
	/* force_sig_fault: where the signal is blocked or ignored the process ends of it. */
	if ((signals.blocked | signals.ignored) & bit) {
		signals_die(address);
		return;
	}
	memset(&info, 0, sizeof(info));
	info.si_signo = SIGBUS;
	info.si_code = REFUSED_CODE;
	info.si_addr = (void *)address;
	(void)syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, SIGBUS, &info);
}

/* => mmu.windows held. How often to look at the thread before giving up; more when it comes back.
 */
static unsigned looks_allowed(struct mmu *mmu, uintptr_t page, pid_t tid)
{
	if (mmu->refused.tid == tid && mmu->refused.address == page) {
		if (mmu->refused.repeats < WINDOW_DOUBLINGS)
			mmu->refused.repeats++;
	} else {
		mmu->refused.tid = tid;
		mmu->refused.address = page;
		mmu->refused.repeats = 0;
	}
	return WINDOW_LOOKS << mmu->refused.repeats;
}

/* Until the thread waits somewhere else than it did, or is in no system call any more. */
static void await_passage(pid_t tid, const struct thread_state *blocked, unsigned looks)
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

static void refuse_by_window(struct mmu_view *view, uintptr_t page, enum mmu_access access,
			     pid_t tid, const struct thread_state *blocked)
{
	struct mmu *mmu = view->mmu;
	int whole = PROT_READ | (view->writable ? PROT_WRITE : 0);
	int less = access == MMU_WRITE ? PROT_READ : PROT_NONE;

	pthread_mutex_lock(&mmu->windows);
	count_call(mmu);
	if (mprotect((void *)page, MKW_PAGE_SIZE, less) == 0) {
		mmu_wake(view, page, MKW_PAGE_SIZE);
		await_passage(tid, blocked, looks_allowed(mmu, page, tid));
		count_call(mmu);
		/* Merges with its neighbours again and so needs no memory; but never leave it. */
		while (mprotect((void *)page, MKW_PAGE_SIZE, whole) && errno == ENOMEM)
			sched_yield();
	} else {
		/* Too many mappings for a split: the thread comes back, the caller too. */
		mmu_wake(view, page, MKW_PAGE_SIZE);
	}
	pthread_mutex_unlock(&mmu->windows);
}

void mmu_refuse(struct mmu_view *view, uintptr_t address, enum mmu_access access, pid_t tid)
{
	uintptr_t page = address & ~(uintptr_t)(MKW_PAGE_SIZE - 1);
	struct thread_state state;

	thread_state_settle(tid, &state);
	if (state.mode == THREAD_USER)
		refuse_by_signal(address, tid);
	else if (state.mode != THREAD_GONE)
		refuse_by_window(view, page, access, tid, &state);
}
