/* SPDX-License-Identifier: MIT */
/*
 * caller.h - which code is to be named for an access that faulted.
 *
 * Most first writes are made by memcpy and its like: to name them says nothing. They keep no frame,
 * so at a fault the stack pointer points to the address they return to.
 */
#ifndef RUN_CALLER_H
#define RUN_CALLER_H

#include <stdint.h>
#include <ucontext.h>

/* Look which modules are loaded: at the start, and after dlopen and dlclose. Not in a signal
 * handler. */
void run_caller_learn(void);
/* Before dlclose: the code of no module is looked at until run_caller_learn. */
void run_caller_forget(void);

/*
 * The address to name: the instruction that faulted, or, if that is in libc and was called, the
 * last byte of the call instruction. It lies inside of the function either way. Async-signal-safe.
 */
uintptr_t run_caller(const ucontext_t *uc);

#endif
