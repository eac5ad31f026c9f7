/* SPDX-License-Identifier: MIT */
/*
 * calls.h - what the hooks of functions share that have the kernel store into memory of the caller.
 *
 * The kernel's store to a page of a view that is not granted fails with EFAULT, and what it had to
 * deliver (a datagram, an event, a descriptor) is lost. So the pages are let in before the call.
 * Hooks keep what the function does: its result, errno, its being a cancellation point and
 * interruptible. Nothing of the caller's is read or written that the function would not, except
 * that lengths and lists of buffers are read here and not by the kernel: where their address is bad
 * the program gets a SIGSEGV in place of EFAULT.
 *
 *   calls_read.c     what reads data of any length: read, recv, getrandom, fread and their kin
 *   calls_message.c  recvmsg, recvmmsg
 *   calls_small.c    what stores things of a known size: stat, poll, accept, wait and so on
 *   calls_number.c   syscall(): the same by number
 */
#ifndef CALLS_H
#define CALLS_H

#include "next.h"
#include "preload.h"
#include "raw.h"

#include <errno.h>
#include <stdint.h>

/* ---- Letting in --------------------------------------------------------------------------- */

/* As many buffers of one call can be let in. */
#define CALLS_LETS 64u

/* Of a longer buffer no more is let in at a time: who asks for much may get little, and what is let
 * in takes space on the disk. */
#define CALLS_PIECE_BYTES (1u << 20)

struct calls_lets {
	unsigned count;
	struct preload_let let[CALLS_LETS];
};

/* Ends them all, and keeps errno. */
void calls_unlet(struct calls_lets *lets);

/* The end of the block ends them, also when the thread is cancelled in it. */
#define CALLS_LETS_OF_BLOCK(name)                                     \
	__attribute__((cleanup(calls_unlet))) struct calls_lets name; \
	name.count = 0

/* The cheap test: must [p, p+length) be let in? */
static inline bool calls_covers_at(uintptr_t p, size_t length)
{
	if (!preload_control)
		return false;
	raw_join();
	return length && preload_covers((const void *)p, length);
}
/* Only the address is looked at: a compiler that is not told so finds the memory unset. */
#define calls_covers(p, length) calls_covers_at((uintptr_t)(p), length)

/* All views are granted whole, now and for good. */
void calls_open_all(enum run_say why);

/* Let in what can be at once. Returns how many bytes from p on may be stored to; length also where
 * it is refused for good: the call will tell. */
size_t calls_let(struct calls_lets *lets, void *p, size_t length);
/* All of it. False: it has too many parts; then no part of it is missing only if all views are
 * granted (calls_open_all). */
bool calls_let_all(struct calls_lets *lets, void *p, size_t length);
/* The buffers of a list, all. False: some are not let in whole. */
bool calls_let_vector(struct calls_lets *lets, const struct iovec *iov, size_t count);
/* The same for a message, which nothing else delivers again: does not fail. What would take too
 * much of the dirty limit has all views granted. */
void calls_let_message(struct calls_lets *lets, const struct iovec *iov, size_t count);
bool calls_covers_vector(const struct iovec *iov, size_t count);

/* ---- Descriptors -------------------------------------------------------------------------- */

/* What becomes of data for which a call has no room. */
enum calls_kind {
	CALLS_FILLS,  /* a file: the call is expected to fill its buffer; the rest can be read on */
	CALLS_STREAM, /* it stays, and short counts are usual */
	CALLS_MESSAGE, /* it is lost */
};
enum calls_kind calls_kind(int fd);

#endif
