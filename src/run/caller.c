/* SPDX-License-Identifier: MIT */
/*
 * caller.c - which code is to be named for an access that faulted.
 *
 * The executable ranges of the process are in a table that signal handlers read without a lock: it
 * is valid while its turn is even, and the same before and after the look. A handler that meets a
 * change under way does without, for it may have interrupted just that.
 */
#include "run/caller.h"

#if defined(__x86_64__)
#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define RANGES_MAX 1024u

struct range {
	_Atomic uintptr_t start, end; /* of code that can be read */
};

static struct {
	_Atomic uint32_t turn; /* odd: being changed */
	_Atomic uint32_t count;
	struct range libc;
	struct range ranges[RANGES_MAX];
} table;

/* Changes under way or asked for: who makes it 1 does them all. */
static _Atomic uint32_t changes;

/* ---- Learning ------------------------------------------------------------------------------ */

struct collection {
	uint32_t count;
	uintptr_t in_libc;
	struct {
		uintptr_t start, end;
	} libc, ranges[RANGES_MAX];
};

static int collect(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct collection *collection = arg;

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + header->p_vaddr;
		uintptr_t end = start + header->p_filesz;

		if (header->p_type != PT_LOAD || !(header->p_flags & PF_X) ||
		    !(header->p_flags & PF_R))
			continue;
		if (start <= collection->in_libc && collection->in_libc < end) {
			collection->libc.start = start;
			collection->libc.end = end;
		}
		if (collection->count == RANGES_MAX)
			return 1;
		collection->ranges[collection->count].start = start;
		collection->ranges[collection->count++].end = end;
	}
	return 0;
}

static void range_set(struct range *range, uintptr_t start, uintptr_t end)
{
	atomic_store_explicit(&range->start, start, memory_order_relaxed);
	atomic_store_explicit(&range->end, end, memory_order_relaxed);
}

static void table_fill(const struct collection *collection)
{
	atomic_fetch_add(&table.turn, 1);
	atomic_thread_fence(memory_order_release);
	range_set(&table.libc, collection->libc.start, collection->libc.end);
	for (uint32_t i = 0; i < collection->count; i++)
		range_set(&table.ranges[i], collection->ranges[i].start, collection->ranges[i].end);
	atomic_store_explicit(&table.count, collection->count, memory_order_relaxed);
	atomic_fetch_add(&table.turn, 1);
}

void run_caller_learn(void)
{
	/* Never called by two threads at once (changes), and too large for small stacks. */
	static struct collection collection;
	uint32_t asked = atomic_fetch_add(&changes, 1) + 1;

	if (asked != 1)
		return; /* whoever is at it looks once more */
	do {
		memset(&collection, 0, sizeof(collection));
		collection.in_libc = (uintptr_t)dlsym(RTLD_DEFAULT, "gnu_get_libc_version");
		dl_iterate_phdr(collect, &collection);
		table_fill(&collection);
	} while (!atomic_compare_exchange_strong(&changes, &asked, 0));
}

void run_caller_forget(void)
{
	atomic_store(&table.count, 0);
}

/* ---- Looking ------------------------------------------------------------------------------- */

static bool range_holds(const struct range *range, uintptr_t first, uintptr_t last)
{
	return atomic_load_explicit(&range->start, memory_order_relaxed) <= first &&
	       last < atomic_load_explicit(&range->end, memory_order_relaxed);
}

static bool in_module(uintptr_t first, uintptr_t last)
{
	uint32_t count = atomic_load_explicit(&table.count, memory_order_relaxed);

	for (uint32_t i = 0; i < count && i < RANGES_MAX; i++)
		if (range_holds(&table.ranges[i], first, last))
			return true;
	return false;
}

#define CALL_MAX 7 /* bytes of the longest call instruction */

/* How long "ff /2" is, a call of what the operand says; sib: the byte after it. 0: it is none. */
static int indirect_length(unsigned char operand, unsigned char sib)
{
	unsigned mod = operand >> 6, rm = operand & 7;
	bool has_sib = mod != 3 && rm == 4;
	int length = 2 + has_sib;

	if (((operand >> 3) & 7) != 2)
		return 0;
	if (mod == 1)
		return length + 1;
	if (mod == 2 || (mod == 0 && (rm == 5 || (has_sib && (sib & 7) == 5))))
		return length + 4;
	return length;
}

/* Do the bytes before end, CALL_MAX of them, end with a call? */
static bool is_call(const unsigned char *end)
{
	if (end[-5] == 0xe8)
		return true;
	for (int length = 2; length <= CALL_MAX; length++)
		if (end[-length] == 0xff &&
		    length == indirect_length(end[1 - length], length > 2 ? end[2 - length] : 0))
			return true;
	return false;
}

uintptr_t run_caller(const ucontext_t *uc)
{
	uintptr_t instruction = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP], back;
	uint32_t turn = atomic_load(&table.turn);
	bool called;

	if (turn % 2 || !range_holds(&table.libc, instruction, instruction))
		return instruction;
	memcpy(&back, (const void *)uc->uc_mcontext.gregs[REG_RSP], sizeof(back));
	called = back > CALL_MAX && in_module(back - CALL_MAX, back - 1);
	atomic_thread_fence(memory_order_acquire);
	if (!called || atomic_load(&table.turn) != turn || !is_call((const unsigned char *)back))
		return instruction;
	return back - 1;
}

#else /* where functions return to is in a register, which they may have saved */

void run_caller_learn(void)
{
}

void run_caller_forget(void)
{
}

uintptr_t run_caller(const ucontext_t *uc)
{
#if defined(__aarch64__)
	return (uintptr_t)uc->uc_mcontext.pc;
#else
	(void)uc;
	return 0;
#endif
}
#endif
