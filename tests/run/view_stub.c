/* SPDX-License-Identifier: MIT */
/* view_stub.c - see view.h. */
#include "view.h"
#include "preload/next.h"
#include "preload/preload.h"
#include "preload/snapshots.h"

#include <errno.h>

#define PAGE 4096u
#define HERE __attribute__((visibility("default")))

struct run_control *preload_control;

static char *memory;
static size_t limit;
static bool blind;
static _Atomic unsigned faults, lets, lets_ever, opened;
static _Atomic unsigned held[VIEW_PAGES];

static void protect(size_t page, int protection)
{
	mprotect(memory + page * PAGE, PAGE, protection);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	size_t at = (size_t)((char *)info->si_addr - memory);

	(void)context;
	if (at >= VIEW_PAGES * PAGE) {
		abort();
	}
	(void)sig;
	faults++;
	protect(at / PAGE, PROT_READ | PROT_WRITE);
}

HERE char *view_begin(void)
{
	static struct run_control control;
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	memory = mmap(NULL, (VIEW_PAGES + 2 * VIEW_MARGIN) * PAGE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memory += VIEW_MARGIN * PAGE;
	NEXT(sigaction)(SIGSEGV, &action, NULL);
	preload_control = &control;
	preload_signals_begin();
	view_arm();
	return memory;
}

HERE void view_arm(void)
{
	mprotect(memory, VIEW_PAGES * PAGE, PROT_READ);
}

HERE bool view_is_real(void)
{
	return false;
}

HERE int view_file(void)
{
	return -1;
}

HERE void view_limit(size_t pages)
{
	limit = pages;
}

HERE void view_blind(bool on)
{
	blind = on;
}

HERE unsigned view_faults(void)
{
	return faults;
}

HERE unsigned view_lets(void)
{
	return lets;
}

HERE unsigned view_lets_ever(void)
{
	return lets_ever;
}

HERE unsigned view_opened(void)
{
	return opened;
}

bool preload_covers(const void *address, size_t length)
{
	uintptr_t from = (uintptr_t)address, start = (uintptr_t)memory;

	return !blind && from < start + VIEW_PAGES * PAGE && from + length > start;
}

/* pin: the first page, and how many. */
size_t preload_let_begin(struct preload_let *let, void *address, size_t length)
{
	uintptr_t from = (uintptr_t)address, start = (uintptr_t)memory;
	size_t skip = from < start ? start - from : 0, first, count = 0, pages;

	first = from < start ? 0 : (from - start) / PAGE;
	pages = (from + length - start + PAGE - 1) / PAGE;
	pages = (pages < VIEW_PAGES ? pages : VIEW_PAGES) - first;
	for (; count < pages && (!limit || count < limit); count++) {
		held[first + count]++;
		protect(first + count, PROT_READ | PROT_WRITE);
	}
	let->pin = (struct mkw_pin *)(first * 1000 + count + 1);
	lets++;
	lets_ever++;
	if (count == pages)
		return length;
	return skip + count * PAGE - (skip ? 0 : (from - start) % PAGE);
}

void preload_let_end(struct preload_let *let)
{
	size_t first = (size_t)let->pin / 1000, count = (size_t)let->pin % 1000 - 1;

	for (size_t i = first; i < first + count; i++)
		if (--held[i] == 0)
			protect(i, PROT_READ);
	lets--;
	errno = ENOTNAM; /* it may change */
}

void preload_open_all(enum run_say why)
{
	(void)why;
	opened++;
	mprotect(memory, VIEW_PAGES * PAGE, PROT_READ | PROT_WRITE);
}

void preload_open_now(void)
{
}

void snapshots_hold_fd(struct snapshots_hold *hold, int fd, int64_t offset, uint64_t length)
{
	(void)hold, (void)fd, (void)offset, (void)length;
}

void snapshots_let_go(struct snapshots_hold *hold)
{
	(void)hold;
}
