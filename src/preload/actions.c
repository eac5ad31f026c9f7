/* SPDX-License-Identifier: MIT */
/*
 * actions.c - hooks of the program's handlers and masks of signals. SIGSEGV and SIGBUS tell us of
 * writes to views, SIGSYS of system calls that are not libc's (raw.c):
 *
 *   - handlers for the first two are kept by the library (mkw_sigaction), for SIGSYS here, once
 *     it is ours;
 *   - all three stay unblocked in every thread, whatever mask the program sets, since the kernel
 *     ends a process whose thread blocks a signal that it cannot go on without. The program is told
 *     the mask that it set: each thread has a shadow of these bits, and each signal that of the
 * mask of its handler. A signal of these that is sent, and would have to wait, does not.
 *
 * Everything here may run in a signal handler. The only lock is held with all signals blocked.
 */
#include "actions.h"
#include "next.h"
#include "preload.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

static const int kept[] = {SIGSEGV, SIGBUS, SIGSYS};
#define KEPT 3

static _Thread_local unsigned thread_shadow __attribute__((tls_model("initial-exec")));
static _Atomic unsigned char handler_shadow[NSIG]; /* of sa_mask */

/* ---- Shadows ------------------------------------------------------------------------------ */

/* Which of them a mask has. */
static unsigned shadow_of(const sigset_t *set)
{
	unsigned shadow = 0;

	for (unsigned i = 0; i < KEPT; i++)
		if (sigismember(set, kept[i]) == 1)
			shadow |= 1u << i;
	return shadow;
}

static void shadow_strip(sigset_t *set)
{
	for (unsigned i = 0; i < KEPT; i++)
		sigdelset(set, kept[i]);
}

static void shadow_add(sigset_t *set, unsigned shadow)
{
	for (unsigned i = 0; i < KEPT; i++)
		if (shadow & 1u << i)
			sigaddset(set, kept[i]);
}

const sigset_t *actions_mask(const sigset_t *set, sigset_t *real)
{
	if (!set || !preload_control)
		return set;
	*real = *set;
	shadow_strip(real);
	return real;
}

unsigned actions_shadow(void)
{
	return thread_shadow;
}

void actions_inherit(unsigned shadow)
{
	sigset_t set, was;

	sigemptyset(&set);
	shadow_add(&set, ~0u);
	NEXT(pthread_sigmask)(SIG_UNBLOCK, &set, &was);
	thread_shadow = shadow | shadow_of(&was);
}

static int change_mask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t real, was;
	unsigned before = thread_shadow;
	int err = NEXT(pthread_sigmask)(how, actions_mask(set, &real), &was);

	if (err)
		return err;
	if (set && how == SIG_BLOCK)
		thread_shadow |= shadow_of(set);
	else if (set && how == SIG_UNBLOCK)
		thread_shadow &= ~shadow_of(set);
	else if (set)
		thread_shadow = shadow_of(set);
	if (old) {
		shadow_add(&was, before);
		memcpy(old, &was, _NSIG / 8); /* the kernel stores no more */
	}
	return 0;
}

HOOK int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return preload_control ? change_mask(how, set, old) : NEXT(pthread_sigmask)(how, set, old);
}

HOOK int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	int err;

	if (!preload_control)
		return NEXT(sigprocmask)(how, set, old);
	err = change_mask(how, set, old);
	if (err)
		errno = err;
	return err ? -1 : 0;
}

int actions_sigprocmask(int how, const void *set, void *old, size_t bytes)
{
	sigset_t wide, was;
	int err;

	sigemptyset(&wide);
	if (bytes > sizeof(wide)) {
		errno = EINVAL;
		return -1;
	}
	if (set)
		memcpy(&wide, set, bytes);
	err = sigprocmask(how, set ? &wide : NULL, &was);
	if (!err && old)
		memcpy(old, &was, bytes);
	return err;
}

HOOK int sigsuspend(const sigset_t *set)
{
	sigset_t real;

	return NEXT(sigsuspend)(actions_mask(set, &real));
}

/* ---- SIGSYS ------------------------------------------------------------------------------- */

static pid_t process;
static _Atomic bool sys_lock, sys_ours;
static struct sigaction sys_action; /* guarded by sys_lock: the program's, while it is ours */

static void sys_begin(sigset_t *mask)
{
	sigset_t all;

	sigfillset(&all);
	NEXT(pthread_sigmask)(SIG_SETMASK, &all, mask);
	while (atomic_exchange(&sys_lock, true))
		sched_yield();
}

static void sys_end(const sigset_t *mask)
{
	atomic_store(&sys_lock, false);
	NEXT(pthread_sigmask)(SIG_SETMASK, mask, NULL);
}

bool actions_take_sigsys(void (*handler)(int, siginfo_t *, void *))
{
	/* Nothing is blocked that the program has not: what it does there may take long. */
	struct sigaction ours = {.sa_sigaction = handler,
				 .sa_flags =
					 (int)(SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART)};
	sigset_t mask;

	sys_begin(&mask);
	if (!sys_ours)
		sys_ours = NEXT(sigaction)(SIGSYS, &ours, &sys_action) == 0;
	sys_end(&mask);
	return sys_ours;
}

void actions_give_sigsys(void)
{
	sigset_t mask;

	sys_begin(&mask);
	if (sys_ours)
		NEXT(sigaction)(SIGSYS, &sys_action, NULL);
	sys_ours = false;
	sys_end(&mask);
}

/* False: it is not ours. */
static bool sys_exchange(const struct sigaction *action, struct sigaction *before)
{
	struct sigaction was, now = action ? *action : (struct sigaction){.sa_flags = 0};
	sigset_t mask;
	bool ours;

	sys_begin(&mask);
	ours = sys_ours;
	was = sys_action;
	if (ours && action)
		sys_action = now;
	sys_end(&mask);
	if (ours && before)
		*before = was;
	return ours;
}

/* The process ends by it, now. */
static void sys_die(siginfo_t *info)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};

	NEXT(sigaction)(SIGSYS, &plain, NULL);
	NEXT(syscall)(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGSYS, info);
	raise(SIGSYS);
}

void actions_pass_on(int sig, siginfo_t *info, void *context)
{
	sigset_t set = ((ucontext_t *)context)->uc_sigmask;
	struct sigaction action, plain = {.sa_handler = SIG_DFL};

	sys_exchange(NULL, &action);
	if (action.sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	if (action.sa_handler == SIG_IGN || action.sa_handler == SIG_DFL) {
		sys_die(info);
		return;
	}
	if (action.sa_flags & (int)SA_RESETHAND)
		sys_exchange(&plain, NULL);
	for (int i = 1; i < NSIG; i++)
		if (sigismember(&action.sa_mask, i) == 1)
			sigaddset(&set, i);
	shadow_strip(&set);
	NEXT(pthread_sigmask)(SIG_SETMASK, &set, NULL);
	if (action.sa_flags & SA_SIGINFO)
		action.sa_sigaction(sig, info, context);
	else
		action.sa_handler(sig);
}

/* In a child of fork: another thread of the parent may have held it. */
static void in_child(void)
{
	atomic_store(&sys_lock, false);
	process = getpid();
}

int preload_signals_begin(void)
{
	process = getpid();
	next_find_all();
	actions_inherit(0);
	return pthread_atfork(NULL, NULL, in_child) ? -ENOMEM : preload_stacks_begin();
}

/* ---- Handlers ----------------------------------------------------------------------------- */

static bool is_kept(int sig)
{
	return preload_control && (sig == SIGSEGV || sig == SIGBUS || sig == SIGSYS);
}

/* Of a signal that is none of ours: only its mask is changed. */
static int set_other(int sig, const struct sigaction *action, struct sigaction *before)
{
	struct sigaction real;
	unsigned shadow = 0, was;

	if (sig < 1 || sig >= NSIG)
		return NEXT(sigaction)(sig, action, before);
	was = handler_shadow[sig];
	if (action) {
		real = *action;
		shadow = shadow_of(&real.sa_mask);
		shadow_strip(&real.sa_mask);
	}
	if (NEXT(sigaction)(sig, action ? &real : NULL, before))
		return -1;
	if (action)
		handler_shadow[sig] = (unsigned char)shadow;
	if (before)
		shadow_add(&before->sa_mask, was);
	return 0;
}

HOOK int sigaction(int sig, const struct sigaction *action, struct sigaction *before)
{
	int err;

	/* A child of vfork sets its own, in memory that is its parent's. */
	if (!preload_control || getpid() != process)
		return NEXT(sigaction)(sig, action, before);
	if (sig == SIGSYS && sys_exchange(action, before))
		return 0;
	if (sig != SIGSEGV && sig != SIGBUS)
		return set_other(sig, action, before);
	err = mkw_sigaction(sig, action, before);
	if (err)
		errno = -err;
	return err ? -1 : 0;
}

HOOK int __sigaction(int sig, const struct sigaction *action, struct sigaction *before)
{
	return sigaction(sig, action, before);
}

/* signal() in one of its versions, for what is kept. */
static __sighandler_t set_handler(int sig, __sighandler_t handler, unsigned flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = (int)flags}, before;

	if (handler == SIG_ERR) {
		errno = EINVAL;
		return SIG_ERR;
	}
	return sigaction(sig, &action, &before) ? SIG_ERR : before.sa_handler;
}

HOOK __sighandler_t signal(int sig, __sighandler_t handler)
{
	return is_kept(sig) ? set_handler(sig, handler, SA_RESTART) : NEXT(signal)(sig, handler);
}

HOOK __sighandler_t bsd_signal(int sig, __sighandler_t handler)
{
	return is_kept(sig) ? set_handler(sig, handler, SA_RESTART)
			    : NEXT(bsd_signal)(sig, handler);
}

HOOK __sighandler_t ssignal(int sig, __sighandler_t handler)
{
	return is_kept(sig) ? set_handler(sig, handler, SA_RESTART) : NEXT(ssignal)(sig, handler);
}

HOOK __sighandler_t sysv_signal(int sig, __sighandler_t handler)
{
	return is_kept(sig) ? set_handler(sig, handler, SA_RESETHAND | SA_NODEFER)
			    : NEXT(sysv_signal)(sig, handler);
}

HOOK __sighandler_t __sysv_signal(int sig, __sighandler_t handler)
{
	return is_kept(sig) ? set_handler(sig, handler, SA_RESETHAND | SA_NODEFER)
			    : NEXT(__sysv_signal)(sig, handler);
}

HOOK __sighandler_t sigset(int sig, __sighandler_t handler)
{
	__sighandler_t before;
	struct sigaction was;
	sigset_t set, old;

	if (!is_kept(sig))
		return NEXT(sigset)(sig, handler);
	sigemptyset(&set);
	sigaddset(&set, sig);
	if (pthread_sigmask(handler == SIG_HOLD ? SIG_BLOCK : SIG_UNBLOCK, &set, &old))
		return SIG_ERR;
	before = handler == SIG_HOLD ? (sigaction(sig, NULL, &was), was.sa_handler)
				     : set_handler(sig, handler, 0);
	return sigismember(&old, sig) == 1 ? SIG_HOLD : before;
}
