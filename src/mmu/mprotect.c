/* SPDX-License-Identifier: MIT */
/*
 * mprotect.c - views in place: the mappings are somebody else's, of a real file, and its page cache
 * is the frames. The kernel brings pages in and maps them for reading; what is not granted is kept
 * PROT_READ, and a write to it is a SIGSEGV that signal.c serves in the faulting thread.
 *
 * Each change of protection within a mapping costs the process one or two mappings more, of which
 * the kernel gives it vm.max_map_count. How many there are is estimated (each call adds two at
 * most) and counted anew, in /proc/self/maps, whenever the estimate meets the budget. Near it
 * grants are to be made in larger grains (mmu_grain); when even that is too much, or the kernel
 * refuses, a view is opened whole: that takes mappings away. A budget is left to the program.
 *
 * The system calls are made by number: in a program that is watched the names are hooks.
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
#define MAPPINGS_LEFT_SHIFT 3 /* an eighth of all is the program's */
#define MAPPINGS_TOLD_SHIFT 2 /* grants get coarser when three quarters of ours are used */

static _Atomic unsigned mappings_max;	/* that we let there be; 0: not looked at yet */
static _Atomic unsigned mappings_guess; /* there are no more than that */
static _Atomic bool spent;		/* there are as many, or more */
static _Atomic unsigned grain = 1;	/* pages */

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

static unsigned count_mappings(void)
{
	char text[4096];
	unsigned lines = 0;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	ssize_t n;

	if (fd < 0)
		return 0;
	while ((n = syscall(SYS_read, fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += text[i] == '\n';
	syscall(SYS_close, fd);
	return lines;
}

static void look_at_budget(void)
{
	unsigned max = read_number("/proc/sys/vm/max_map_count");

	if (max == 0)
		max = MAPPINGS_DEFAULT;
	atomic_store(&mappings_max, max - (max >> MAPPINGS_LEFT_SHIFT));
}

/* The mappings were counted: from how many on are they to be counted again? */
static unsigned next_look(unsigned now, unsigned told, unsigned max)
{
	if (now < told)
		return now;
	/* When a quarter of what is left may be used; not at each call, for it takes long. */
	return told - MAPPINGS_EACH_CALL * (now < max ? 1 + (max - now) / 4 : 64);
}

/* A call is about to be made that may split mappings. False: there are to be no more. */
static bool account(void)
{
	unsigned max = atomic_load(&mappings_max), told = max - (max >> MAPPINGS_TOLD_SHIFT);
	unsigned guess = atomic_fetch_add(&mappings_guess, MAPPINGS_EACH_CALL), now;
	unsigned pages = atomic_load(&grain);

	if (max != 0 && guess < told)
		return !atomic_load(&spent);
	look_at_budget();
	now = count_mappings();
	max = atomic_load(&mappings_max);
	told = max - (max >> MAPPINGS_TOLD_SHIFT);
	atomic_store(&mappings_guess, next_look(now, told, max));
	atomic_store(&spent, now >= max);
	if (now >= told && pages < GRAIN_MAX_PAGES)
		atomic_store(&grain, pages * 4 < GRAIN_MAX_PAGES ? pages * 4 : GRAIN_MAX_PAGES);
	return now < max;
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

/* The whole view in one protection is what it began as: it takes no mapping more. */
static int set_whole(const struct mmu_view *view, int protection)
{
	int err = set(view->address, view->length, protection);

	/* Somebody has unmapped a part of it without us: the rest was changed all the same, as far
	 * as that part; what is behind it is done page by page. */
	if (err != -ENOMEM)
		return err;
	for (size_t at = 0; at < view->length; at += MKW_PAGE_SIZE)
		(void)set(view->address + at, MKW_PAGE_SIZE, protection);
	return -ENOENT;
}

int in_place_allow(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err;

	if (!view->writable)
		return 0;
	count_call(view->mmu);
	err = account() ? set(address, length, PROT_READ | PROT_WRITE) : -ENOMEM;
	if (err != -ENOMEM)
		return err;
	/* Too many mappings, or there is a hole. For the pages that nobody was asked for the kernel
	 * still answers (SIGBUS). */
	err = set_whole(view, PROT_READ | PROT_WRITE);
	if (err == 0)
		atomic_store(&view->opened, true);
	return err == -ENOENT ? 0 : err;
}

int in_place_protect(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err;

	count_call(view->mmu);
	err = account() ? set(address, length, readable(view)) : -ENOMEM;
	if (err != -ENOMEM)
		return err;
	/* More than asked is always right: a page that is charged is let go again unasked. */
	atomic_store(&view->opened, false);
	return set_whole(view, readable(view));
}

int in_place_set(struct mmu_view *view, uintptr_t address, size_t length, bool may_read)
{
	count_call(view->mmu);
	(void)account();
	return set(address, length, may_read ? PROT_READ : PROT_NONE);
}
