/* SPDX-License-Identifier: MIT */
/*
 * jumps.c - hooks of longjmp: a handler of the program's that interrupts a thread which waits for
 * space may leave by it. Then the thread waits no more, and nobody is to be told that it does.
 *
 * The functions behind them must not return here: their frames end with the jump.
 */
#include "next.h"

#include "full.h"

#define JUMP(name)                                                      \
	HOOK _Noreturn void name(struct __jmp_buf_tag to[1], int value) \
	{                                                               \
		full_left();                                            \
		NEXT(name)(to, value);                                  \
		__builtin_unreachable();                                \
	}

JUMP(longjmp)
JUMP(_longjmp)
JUMP(siglongjmp)
JUMP(__longjmp_chk)
