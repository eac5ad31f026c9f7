/* SPDX-License-Identifier: MIT */
/*
 * action.c - the program's own handlers of SIGBUS and SIGSEGV, which the library keeps behind its
 * own: those found at installation, later those that mkw_sigaction was given.
 *
 * They are read by handlers and changed by whoever calls mkw_sigaction, which may be a handler that
 * interrupts such a call: so there is no lock. Each signal has a few slots, of which `current`
 * names one, with a count of changes. Who changes claims another slot, fills it and makes it
 * current by compare-and-swap; the slot that was current is free then. Who reads takes what it has
 * copied only if the count is still the same.
 */
#include "machine.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#define SLOTS 16u
#define WORDS ((sizeof(struct sigaction) + 7) / 8)

static struct kept {
	_Atomic uint64_t current; /* changes * SLOTS + slot */
	struct slot {
		_Atomic bool claimed;
		_Atomic uint64_t words[WORDS];
	} slot[SLOTS];
} kept_bus = {.slot[0].claimed = true}, kept_segv = {.slot[0].claimed = true};

static struct kept *kept_of(int sig)
{
	return sig == SIGBUS ? &kept_bus : &kept_segv;
}

static void slot_read(const struct slot *slot, struct sigaction *action)
{
	uint64_t words[WORDS];

	for (size_t i = 0; i < WORDS; i++)
		words[i] = atomic_load_explicit(&slot->words[i], memory_order_acquire);
	memcpy(action, words, sizeof(*action));
}

static void slot_write(struct slot *slot, const struct sigaction *action)
{
	uint64_t words[WORDS] = {0};

	memcpy(words, action, sizeof(*action));
	/* Who reads one of these sees that the slot is not the current one any more. */
	for (size_t i = 0; i < WORDS; i++)
		atomic_store_explicit(&slot->words[i], words[i], memory_order_release);
}

static unsigned slot_claim(struct kept *kept)
{
	for (;; sched_yield())
		for (unsigned i = 0; i < SLOTS; i++)
			if (!atomic_exchange(&kept->slot[i].claimed, true))
				return i;
}

static uint64_t kept_read(struct kept *kept, struct sigaction *action)
{
	uint64_t current;

	do {
		current = atomic_load_explicit(&kept->current, memory_order_acquire);
		slot_read(&kept->slot[current % SLOTS], action);
	} while (atomic_load_explicit(&kept->current, memory_order_relaxed) != current);
	return current;
}

/* Make a filled slot the current one, in place of *current. False: *current is another now. */
static bool kept_swap(struct kept *kept, uint64_t *current, unsigned slot)
{
	uint64_t next = (*current / SLOTS + 1) * SLOTS + slot;

	return atomic_compare_exchange_strong(&kept->current, current, next);
}

void action_read(int sig, struct sigaction *action)
{
	kept_read(kept_of(sig), action);
}

void action_replace(int sig, const struct sigaction *action, struct sigaction *before)
{
	struct kept *kept = kept_of(sig);
	unsigned slot = slot_claim(kept);
	uint64_t current = atomic_load(&kept->current);

	slot_write(&kept->slot[slot], action);
	while (!kept_swap(kept, &current, slot))
		;
	if (before)
		slot_read(&kept->slot[current % SLOTS], before);
	atomic_store(&kept->slot[current % SLOTS].claimed, false);
}

void action_take(int sig, struct sigaction *action)
{
	struct kept *kept = kept_of(sig);
	uint64_t current = kept_read(kept, action);
	struct sigaction reset;
	unsigned slot;

	if (!(action->sa_flags & (int)SA_RESETHAND) || action->sa_handler == SIG_IGN)
		return;
	slot = slot_claim(kept);
	do {
		reset = *action;
		reset.sa_handler = SIG_DFL;
		slot_write(&kept->slot[slot], &reset);
		if (kept_swap(kept, &current, slot)) {
			atomic_store(&kept->slot[current % SLOTS].claimed, false);
			return;
		}
		current = kept_read(kept, action);
	} while (action->sa_flags & (int)SA_RESETHAND);
	atomic_store(&kept->slot[slot].claimed, false);
}

void actions_abandon(void)
{
	struct kept *kept[] = {&kept_bus, &kept_segv};

	for (size_t k = 0; k < 2; k++)
		for (unsigned i = 0; i < SLOTS; i++)
			atomic_store(&kept[k]->slot[i].claimed,
				     i == atomic_load(&kept[k]->current) % SLOTS);
}
