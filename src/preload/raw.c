/* SPDX-License-Identifier: MIT */
/*
 * raw.c - system calls that the program, or a library of it, makes by itself and not through libc:
 * no hook sees them, and what they have the kernel store to a view may fail with EFAULT.
 *
 * From the first view on the kernel is told to report those whose instruction is outside of libc's
 * text, by SIGSYS (syscall user dispatch, Linux 5.11, x86). The handler looks at the number
 * (number.h). Most calls it makes on behalf of the program, from libc's text. One that stores to a
 * view, or cannot be told, or must be made by the thread itself, ends it: all views are granted
 * whole from then on, the reports are switched off, and the instruction runs again. So do more than
 * RAW_MANY calls that would store if their memory were in a view: such a program has a libc of its
 * own, and each report costs some 3 us.
 *
 * What the dynamic linker and the vdso do is never taken for the program's.
 *
 *   OFF      no view so far
 *   ON       reported, in threads that have followed (raw_follow): that which made the view, those
 *            that have been started or have called a hook since
 *   CEASED   for good: not needed any more, not possible here, or the program has its own reports
 *
 * `reporting` is what the kernel looks at before each report: it ends them in all threads at once.
 * A child of fork is not watched until its atfork handler has run. No locks.
 */
#include "next.h"
#include "actions.h"
#include "calls.h"
#include "number.h"
#include "raw.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <link.h>
#include <stdarg.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <ucontext.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define DISPATCH_OFF 0
#define DISPATCH_ON  1

enum { OFF, STARTING, ON, CEASED };
static _Atomic int state;
static volatile char reporting; /* what the kernel calls BLOCK (1) and ALLOW (0) */
static _Atomic bool closed;	/* a filter of the program's may not allow it to be set */
static _Atomic bool theirs;	/* the program has reports of its own */
static struct text {
	uintptr_t from, to;
} libc_text;

_Atomic unsigned raw_epoch;
_Thread_local unsigned raw_joined;

/* ---- On and off --------------------------------------------------------------------------- */

static int dispatch(unsigned long mode)
{
	bool on = mode == DISPATCH_ON;

	return NEXT(prctl)(PR_SET_SYSCALL_USER_DISPATCH, mode, on ? libc_text.from : 0,
			   on ? libc_text.to - libc_text.from : 0, on ? &reporting : NULL);
}

void raw_follow(void)
{
	int saved = errno;

	raw_joined = raw_epoch;
	if (!closed && !theirs && (state == ON || state == CEASED))
		dispatch(state == ON ? DISPATCH_ON : DISPATCH_OFF);
	errno = saved;
}

static void cease(void)
{
	reporting = 0;
	state = CEASED;
	raw_epoch++;
}

#if defined(__x86_64__)

#define SYS_DISPATCHED 2 /* si_code */
#define RAW_MANY       1000

static struct text linker_text, vdso_text;
static _Atomic unsigned storing;

static bool text_has(const struct text *text, uintptr_t address)
{
	return address >= text->from && address < text->to;
}

/* The executable part of the object that has the address text->from. */
static int find_text(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct text *text = arg, executable = {0, 0};
	bool here = false;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		uintptr_t from = info->dlpi_addr + part->p_vaddr;
		struct text found = {from, from + part->p_memsz};

		if (part->p_type != PT_LOAD)
			continue;
		here |= text_has(&found, text->from);
		if (part->p_flags & PF_X)
			executable = found;
	}
	if (here)
		*text = executable;
	return here;
}

static bool text_find(struct text *text, uintptr_t address)
{
	*text = (struct text){address, 0};
	if (!address || dl_iterate_phdr(find_text, text) != 1)
		*text = (struct text){0, 0};
	return text->to != 0;
}

/* Where libc is several objects (before glibc 2.34) most calls would be reported. */
static bool texts_find(void)
{
	text_find(&linker_text, getauxval(AT_BASE));
	text_find(&vdso_text, getauxval(AT_SYSINFO_EHDR));
	return text_find(&libc_text, (uintptr_t)NEXT(syscall)) &&
	       text_has(&libc_text, (uintptr_t)NEXT(pthread_create)) &&
	       text_has(&libc_text, (uintptr_t)NEXT(read));
}

extern typeof(mmap) __real_mmap; /* the hook: inner.c has the other */

static long make_for(long number, const long a[6])
{
	long result;

	/* A mapping that may become a view. */
	if (number == SYS_mmap && a[3] & MAP_SHARED && !(a[3] & MAP_ANONYMOUS))
		result = (long)__real_mmap((void *)a[0], (size_t)a[1], (int)a[2], (int)a[3],
					   (int)a[4], a[5]);
	else
		result = NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	return result == -1 ? -errno : result;
}

/* Is the call to be made by the program after all? */
static bool give_up(long number, const long a[6])
{
	switch (number_judge(number, a)) {
	case NUMBER_HARMLESS:
		return false;
	case NUMBER_STORES:
		if (storing++ < RAW_MANY)
			return false;
		calls_open_all(RUN_SAY_RAW_CALLS);
		return true;
	case NUMBER_RING:
		calls_open_all(RUN_SAY_IO_URING);
		return true;
	default:
		calls_open_all(RUN_SAY_RAW_CALLS);
		return true;
	}
}

static void on_sigsys(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	long a[6] = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]};
	uintptr_t at = (uintptr_t)r[REG_RIP];
	long number = info->si_syscall;
	int saved = errno;
	bool ours;

	if (info->si_code != SYS_DISPATCHED) {
		actions_pass_on(sig, info, context);
		return;
	}
	ours = text_has(&linker_text, at) || text_has(&vdso_text, at);
	if (state == ON && !ours && (info->si_arch != AUDIT_ARCH_X86_64 || give_up(number, a)))
		cease();
	if (state == ON)
		r[REG_RAX] = make_for(number, a);
	else
		r[REG_RIP] -= 2; /* again, unreported: `syscall` and `int 0x80` have two bytes */
	errno = saved;
}

static void in_child(void)
{
	if (preload_control)
		raw_follow(); /* its dispatch is off */
}

void preload_raw_watch(void)
{
	int saved = errno, off = OFF;

	if (state != OFF || closed || !atomic_compare_exchange_strong(&state, &off, STARTING))
		return;
	if (texts_find() && actions_take_sigsys(on_sigsys) && dispatch(DISPATCH_ON) == 0 &&
	    pthread_atfork(NULL, NULL, in_child) == 0) {
		state = ON;
		raw_joined = ++raw_epoch;
		reporting = 1;
	} else {
		cease();
	}
	errno = saved;
}

#else

void preload_raw_watch(void)
{
}

#endif

/* ---- What the program does to the same end ------------------------------------------------- */

void raw_note(long number, const long a[6])
{
	if ((number == SYS_prctl && a[0] == PR_SET_SECCOMP) || number == SYS_seccomp)
		closed = true;
	if (number == SYS_prctl && a[0] == PR_SET_SYSCALL_USER_DISPATCH) {
		theirs = true;
		cease();
		actions_give_sigsys(); /* ours might be reported to it */
	}
}

HOOK int prctl(int what, ...)
{
	unsigned long a[4];
	va_list rest;

	va_start(rest, what);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(rest, unsigned long);
	va_end(rest);
	raw_note(SYS_prctl, (long[6]){what});
	return NEXT(prctl)(what, a[0], a[1], a[2], a[3]);
}

/* ---- Threads ------------------------------------------------------------------------------ */

/* What a new thread is to be given: taken from here, since hooks do not allocate. */
static struct start {
	_Atomic bool taken;
	unsigned shadow;
	void *(*fn)(void *arg);
	void *arg;
} starts[64];

static struct start *start_take(void)
{
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
		if (!atomic_exchange(&starts[i].taken, true))
			return &starts[i];
	return NULL;
}

static void *start_here(void *arg)
{
	struct start *start = arg;
	void *(*fn)(void *) = start->fn;
	void *fn_arg = start->arg;

	actions_inherit(start->shadow);
	atomic_store(&start->taken, false);
	raw_join();
	return fn(fn_arg);
}

HOOK int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			void *arg)
{
	struct start *start = preload_control ? start_take() : NULL;
	int err;

	if (!start) /* it follows at its first hook */
		return NEXT(pthread_create)(thread, attr, fn, arg);
	start->shadow = actions_shadow();
	start->fn = fn;
	start->arg = arg;
	err = NEXT(pthread_create)(thread, attr, start_here, start);
	if (err)
		atomic_store(&start->taken, false);
	return err;
}
