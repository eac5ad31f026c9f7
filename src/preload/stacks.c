/* SPDX-License-Identifier: MIT */
/*
 * stacks.c - hook of sigaltstack. A fault in a view is served by a handler on the thread's
 * alternate stack, where there is one. That takes up to 8 KiB with the kernel's frame, more in a
 * handler of the program's that is on it already; and past the end of such a stack is other memory
 * of the program's. So a thread that sets a small one is given one of ours, with a guard page
 * below, until it ends. The program is told of its own.
 */
#include "next.h"
#include "preload.h"

#include <errno.h>

#define ENOUGH	(64u << 10) /* smaller ones are replaced */
#define GUARD	4096u
#define TOO_FEW 2048u /* the kernel refuses them */

static _Thread_local struct {
	char *memory;	  /* the guard, and ENOUGH bytes */
	stack_t programs; /* which ours stands for, */
	bool replaced;	  /* if it does */
} stack __attribute__((tls_model("initial-exec")));

static pthread_key_t key;
static _Atomic bool has_key;

/* The thread ends. */
static void stack_end(void *memory)
{
	stack_t none = {.ss_flags = SS_DISABLE};

	if (stack.replaced)
		NEXT(sigaltstack)(&none, NULL);
	stack.replaced = false;
	stack.memory = NULL;
	NEXT(munmap)(memory, GUARD + ENOUGH);
}

int preload_stacks_begin(void)
{
	int err = pthread_key_create(&key, stack_end);

	has_key = err == 0;
	return -err;
}

static char *stack_get(void)
{
	char *p = stack.memory;

	if (p || !has_key)
		return p;
	p = NEXT(mmap)(NULL, GUARD + ENOUGH, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (NEXT(mprotect)(p, GUARD, PROT_NONE) || pthread_setspecific(key, p)) {
		NEXT(munmap)(p, GUARD + ENOUGH);
		return NULL;
	}
	stack.memory = p;
	return p;
}

static bool replace(const stack_t *set, stack_t *real)
{
	char *memory;

	*real = *set;
	if (set->ss_flags & SS_DISABLE || set->ss_size >= ENOUGH || set->ss_size < TOO_FEW)
		return false;
	memory = stack_get();
	if (!memory)
		return false;
	real->ss_sp = memory + GUARD;
	real->ss_size = ENOUGH;
	return true;
}

HOOK int sigaltstack(const stack_t *set, stack_t *old)
{
	stack_t real, was;
	bool replaced = false;
	int saved = errno;

	if (!preload_control)
		return NEXT(sigaltstack)(set, old);
	if (set)
		replaced = replace(set, &real);
	if (NEXT(sigaltstack)(set ? &real : NULL, &was))
		return -1;
	errno = saved;
	if (stack.replaced) {
		was.ss_sp = stack.programs.ss_sp;
		was.ss_size = stack.programs.ss_size;
	}
	if (set) {
		stack.replaced = replaced;
		stack.programs = *set;
	}
	if (old)
		*old = was;
	return 0;
}
