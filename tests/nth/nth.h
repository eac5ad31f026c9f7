/* SPDX-License-Identifier: MIT */
/*
 * nth.h - makes the Nth call of the library to the system fail, whatever thread makes it.
 *
 * The program is linked so that the calls of the library's objects come here first (`fail` in the
 * file calls). A test's own code makes the same calls; so only those count that are made by a
 *thread of the library, or by a test's thread inside IN_LIBRARY.
 *
 *	nth_arm(17, 0);                        the 17th call fails, with the first of its errnos
 *	IN_LIBRARY(error = mkw_sync(handle, 0, 0));
 *	if (nth_fired()) ...                   it has; nothing fails any more
 *
 * What cannot fail in Linux is not failed, and not counted; the errnos of each call are those that
 * the kernel has for it. NTH_SHORT among them stands for a transfer that ends early, and whose rest
 *then fails.
 */
#ifndef NTH_H
#define NTH_H

#include "harness/test.h"

/* Fail the nth of the calls from now on, 1 the first, with the which-th of its errnos (0 the
 * first). A call that has fewer is not failed. nth 0: only count. */
void nth_arm(uint64_t nth, unsigned which);
/* Nothing fails nor counts any more. Returns how many calls were counted since nth_arm. */
uint64_t nth_disarm(void);
bool nth_fired(void);
/* Was it this call? Then its errno, else 0. */
int nth_failed(const char *name);
/* From now on, or no more: files are on a file system that has no fallocate. */
void nth_without_fallocate(bool without);
/* Say what was made to fail, as a note of the test: call, errno, where. */
void nth_tell(void);
/* Likewise when the process ends by a signal: a hang that the watchdog ends, an assertion. Before
 * the first space. */
void nth_tell_at_end(void);

/* Count and fail what nth_operation is told of, and no calls; or the other way round, as at first.
 */
void nth_only_operations(bool only);
/* Count and fail an operation of a test's store as if it were a call. 0, or the errno to fail with;
 * errnos ends with 0. */
int nth_operation(const char *name, const int *errnos);

/* The calls of the library's threads count always; those of this one while the depth is not 0. */
extern _Thread_local unsigned nth_inside;
#define IN_LIBRARY(statement) \
	do {                  \
		nth_inside++; \
		statement;    \
		nth_inside--; \
	} while (0)
/* A piece of a test's code that the library has called. */
unsigned nth_leave(void);
void nth_return(unsigned inside);

/* What the library has now. */
struct nth_holdings {
	long allocations, mappings; /* made and not given back */
	unsigned descriptors, threads;
	unsigned lines; /* of /proc/self/maps that are frames or views */
};
struct nth_holdings nth_holdings(void);

#endif
