/* SPDX-License-Identifier: MIT */
/*
 * fail.h - makes the Nth call that src/run makes of the system fail. Calls count that are made
 * inside of FAIL_INSIDE, in that thread. The program is linked with wrappers for the calls
 * (run_fail in tests/meson.build).
 */
#ifndef FAIL_H
#define FAIL_H

#include <stdbool.h>
#include <stdint.h>

/* Fail the nth call from now on, 1 the first, with that errno. 0: none. */
void fail_arm(uint64_t nth, int error);
/* Nothing fails any more. Was it so? */
bool fail_disarm(void);
/* What was made to fail, as a note of the test. */
void fail_tell(void);

/* Stands for the kernel's quotactl_fd: 0 or an errno. NULL: the kernel's. */
extern int (*fail_quotactl)(int command, unsigned id, void *quota);

/* The kernel has no cachestat, as before 6.5. */
extern bool fail_cachestat;

/* Called before each hole is punched; NULL: no more. */
extern void (*fail_before_punch)(int fd);

extern _Thread_local unsigned fail_depth;
#define FAIL_INSIDE(statement) \
	do {                   \
		fail_depth++;  \
		statement;     \
		fail_depth--;  \
	} while (0)

#endif
