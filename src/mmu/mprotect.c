/* SPDX-License-Identifier: MIT */
/*
 * mprotect.c - views in place: the mappings are somebody else's, of a real file, and its page cache
 * is the frames. The kernel brings pages in and maps them for reading; what is not granted is kept
 * PROT_READ, and a write to it is a SIGSEGV that signal.c serves in the faulting thread.
 *
 * Each change of protection within a mapping costs the process one or two mappings more, of which
 * the kernel gives it vm.max_map_count. How many there are is estimated (each call adds two at
 * most) and counted anew, in /proc/self/maps, as it comes nearer to the budget. Near that
 * grants are to be made in larger grains (mmu_grain); when even that is too much, or the kernel
 * refuses, a view is opened whole: that takes mappings away. A budget is left to the program. What
 * was opened is closed whole the next time that some of it is to be protected.
 *
 * But no page that is pinned may ever be closed, a system call may be storing to it: while there
 * are pins nothing is closed but what is asked for.
 *
 * The system calls are made by number: in a program that is watched the names are hooks.
 *
 * Locks: changing, rank MACHINE, around every change of protection and for the counts.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GRAIN_MAX_PAGES	    512u
#define MAPPINGS_DEFAULT    65530u
#define MAPPINGS_EACH_CALL  2u
#define LOOK_LEAST	    128u
#define MAPPINGS_LEFT_SHIFT 3 /* an eighth of all is the program's */
#define MAPPINGS_TOLD_SHIFT 2 /* grants get coarser when three quarters of ours are used */

static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static unsigned mappings_max;	   /* that we let there be */
static unsigned mappings_guess;	   /* there are no more than that */
static unsigned look_at;	   /* they are counted when the estimate says so many */
static bool merged;		   /* since then some have become one: there may be far less */
static bool spent;		   /* there are as many, or more */
static _Atomic unsigned grain = 1; /* pages */

static int set(uintptr_t address, size_t length, int protection)
{
	return syscall(SYS_mprotect, address, length, protection) ? -errno : 0;
}

/* ---- The budget --------------------------------------------------------------------------- */

/* In a signal handler, too: nothing but system calls. 0: it cannot be told. */
static unsigned read_number(const char *path)
{
	char text[32];
	unsigned number = 0;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	ssize_t n = fd < 0 ? 0 : syscall(SYS_read, fd, text, sizeof(text));

	if (fd >= 0)
		syscall(SYS_close, fd);
	for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9' && number < 1u << 28; i++)
		number = number * 10 + (unsigned)(text[i] - '0');
	return number;
}

/* => changing held. 0: it cannot be told, for want of a descriptor perhaps. */
static unsigned count_mappings(void)
{
	static char text[4096]; /* there is no room for it on the stack of a signal handler */
	unsigned lines = 0;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	ssize_t n;

	if (fd < 0)
		return 0;
	while ((n = syscall(SYS_read, fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += text[i] == '\n';
	syscall(SYS_close, fd);
	return n == 0 ? lines : 0;
}

static unsigned find_max(void)
{
	unsigned max = read_number("/proc/sys/vm/max_map_count");

	if (max == 0)
		max = MAPPINGS_DEFAULT;
	return max - (max >> MAPPINGS_LEFT_SHIFT);
}

/* From how many on grants are to be coarser. */
static unsigned told_at(unsigned max)
{
	return max - (max >> MAPPINGS_TOLD_SHIFT);
}

/* There are so many: at how many, by the estimate, are they to be counted again? Counting takes
 * long where there are many; but the program may make some, too. */
static unsigned next_look(unsigned now, unsigned max)
{
	const unsigned told = told_at(max), room = now < told  ? told - now
						   : now < max ? max - now
							       : 0;

	return now + (room / 4 > LOOK_LEAST ? room / 4 : LOOK_LEAST);
}

static void coarsen(void)
{
	unsigned pages = atomic_load(&grain);

	if (pages < GRAIN_MAX_PAGES)
		atomic_store(&grain, pages * 4 < GRAIN_MAX_PAGES ? pages * 4 : GRAIN_MAX_PAGES);
}

/* A call is about to be made that may split mappings. False: there are to be no more. => changing
 * held. */
static bool account(void)
{
	unsigned now;

	mappings_guess += MAPPINGS_EACH_CALL;
	if (!merged && mappings_guess < look_at)
		return !spent;
	mappings_max = find_max();
	now = count_mappings();
	if (now == 0)
		now = mappings_guess; /* it stands */
	mappings_guess = now;
	look_at = next_look(now, mappings_max);
	merged = false;
	spent = now >= mappings_max;
	if (now >= told_at(mappings_max))
		coarsen();
	return !spent;
}

size_t mmu_grain(void)
{
	return atomic_load_explicit(&grain, memory_order_relaxed);
}

/* ---- Views -------------------------------------------------------------------------------- */

static int readable(const struct mmu_view *view)
{
	return view->readable ? PROT_READ : PROT_NONE;
}

static bool is_mapped(uintptr_t address, size_t length)
{
	return syscall(SYS_msync, address, length, MS_ASYNC) == 0 || errno != ENOMEM;
}

/* How much of the range is mapped from its beginning on. */
static size_t mapped_length(uintptr_t address, size_t length)
{
	size_t low = 0, high = length / MKW_PAGE_SIZE; /* pages: these are, those are not */

	if (!is_mapped(address, MKW_PAGE_SIZE))
		return 0;
	if (is_mapped(address, length))
		return length;
	while (low + 1 < high) {
		size_t mid = low + (high - low) / 2;

		if (is_mapped(address, mid * MKW_PAGE_SIZE))
			low = mid;
		else
			high = mid;
	}
	return low * MKW_PAGE_SIZE;
}

/* What is there of the range. -ENOENT: not all of it is, somebody has unmapped it without us.
 * -ENOMEM: too many mappings. */
static int set_there(uintptr_t address, size_t length, int protection)
{
	int err = set(address, length, protection), result = 0;

	while (err == -ENOMEM && length > 0) {
		size_t there = mapped_length(address, length);

		if (there == length)
			break;
		result = -ENOENT;
		err = there > 0 ? set(address, there, protection) : 0;
		if (err)
			break;
		/* Step over a page of the hole. */
		address += there + MKW_PAGE_SIZE;
		length -= there + MKW_PAGE_SIZE;
		err = length > 0 ? set(address, length, protection) : 0;
	}
	return err ? err : result;
}

/* The whole view in one protection is what it began as: it takes no mapping more. => changing held.
 */
static int set_whole(struct mmu_view *view, int protection)
{
	int err = set_there(view->address, view->length, protection);

	merged = true;
	if (!err || err == -ENOENT)
		atomic_store(&view->opened, (protection & PROT_WRITE) != 0);
	return err;
}

/* => changing held. */
static bool may_close_more(const struct mmu_view *view)
{
	return atomic_load(view->pins) == 0;
}

/* More than asked is always right: a page that is charged is let go again unasked. => changing
 * held.
 */
static int protect(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err = -ENOMEM;

	if (atomic_load(&view->let_go))
		return 0;
	if (may_close_more(view) && atomic_load(&view->opened))
		return set_whole(view, readable(view));
	if (account() || !may_close_more(view))
		err = set_there(address, length, readable(view));
	if (err == -ENOMEM && may_close_more(view))
		err = set_whole(view, readable(view));
	return err;
}

int in_place_allow(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err = -ENOMEM;

	if (!view->writable)
		return 0;
	count_call(view->mmu);
	machine_lock(&changing);
	if (account())
		err = set_there(address, length, PROT_READ | PROT_WRITE);
	/* For the pages that nobody was asked for the kernel still answers (SIGBUS). */
	if (err == -ENOMEM)
		err = set_whole(view, PROT_READ | PROT_WRITE);
	machine_unlock(&changing);
	/* Who writes where nothing is mapped any more is told so by the kernel. */
	return err == -ENOENT ? 0 : err;
}

int in_place_protect(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err;

	count_call(view->mmu);
	machine_lock(&changing);
	err = protect(view, address, length);
	machine_unlock(&changing);
	return err;
}

int in_place_set(struct mmu_view *view, uintptr_t address, size_t length, bool may_read)
{
	int err;

	count_call(view->mmu);
	machine_lock(&changing);
	(void)account();
	err = set(address, length, may_read ? PROT_READ : PROT_NONE);
	machine_unlock(&changing);
	return err;
}
