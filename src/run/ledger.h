/* SPDX-License-Identifier: MIT */
/*
 * ledger.h - which parts of which files were reserved ahead by the processes of `mkwrite run`, and
 * giving back at the end what they did not use. The supervisor's side; one thread.
 *
 * Only what was a hole when it was reserved is in the ledger, and of that only what still is
 * allocated and unwritten is given back, while nobody else has the file open (a write lease proves
 * it, and keeps openers waiting). Where that cannot be had it stays reserved, and is reported: the
 * file is right in any case, it only takes more blocks than it needs.
 */
#ifndef LEDGER_H
#define LEDGER_H

#include "run/control.h"

#include <stdint.h>

struct ledger;

/* NULL: no memory. */
struct ledger *ledger_create(void);
void ledger_destroy(struct ledger *ledger);

/* Take in an event, of any kind: RUN_EVENT_RESERVED and RUN_EVENT_PUNCHED matter. 0 or -ENOMEM:
 * that range will stay reserved. */
int ledger_event(struct ledger *ledger, const struct run_control *control,
		 const struct run_event *event);

struct ledger_file {
	const char *path;
	uint64_t dev, ino;
	uint64_t reserved_bytes; /* ahead, in all */
	uint64_t returned_bytes; /* given back now */
	/* If error: what stays reserved and is not written, nearly; if it cannot be seen, at most.
	 */
	uint64_t left_bytes;
	/* 0, or why nothing or not all was given back: -EAGAIN somebody has the file open; -ENOENT
	 * it is not there under that name any more (nothing is left then); -EOPNOTSUPP the file
	 * system does not tell who has a file open; -EACCES, -EPERM not ours; other errnos. */
	int error;
};

/*
 * For each file with anything in the ledger: give back what is over, and report. Files are opened
 * by their paths; what is not the same file (device and inode) is left alone. Times of modification
 * stay. Only files with -EAGAIN are in the ledger afterwards: it may be called again. Who opens a
 * file meanwhile is kept waiting for a moment; this process gets SIGURG then, which has to be left
 * ignored.
 */
void ledger_give_back(struct ledger *ledger, void (*report)(void *arg, const struct ledger_file *),
		      void *arg);

#endif
