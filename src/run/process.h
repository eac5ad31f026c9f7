/* SPDX-License-Identifier: MIT */
/*
 * process.h - is a process, or a thread, still there? Async-signal-safe; errno is kept.
 */
#ifndef RUN_PROCESS_H
#define RUN_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* When the process or thread began, in the kernel's ticks, which tells it from a later one of the
 * same number. 0: not known. */
uint64_t process_start(pid_t id);
/* Does it run? Zombies do not. start: what process_start has said, or 0: any. */
bool process_lives(pid_t id, uint64_t start);

#endif
