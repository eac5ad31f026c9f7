/* SPDX-License-Identifier: MIT */
/*
 * number.h - system calls by their numbers, as syscall() and programs that do without libc make
 * them (calls_number.c).
 */
#ifndef NUMBER_H
#define NUMBER_H

enum number_is {
	NUMBER_HARMLESS, /* stores nothing that matters, and can be made on behalf of somebody else
			  */
	NUMBER_STORES,	 /* to memory that is in no view, likewise */
	NUMBER_COVERED,	 /* to a view, or changes what is mapped there */
	NUMBER_RING,	 /* io_uring: stores later, unseen */
	NUMBER_UNKNOWN,	 /* cannot be told, or must be made by the thread itself */
};

/* In a signal handler, too. */
enum number_is number_judge(long number, const long args[6]);

#endif
