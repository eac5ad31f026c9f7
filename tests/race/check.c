/* SPDX-License-Identifier: MIT */
/*
 * check.c - what must hold in every state (contract 1.3), looked at after every point. A rule that
 * is stated under a lock is looked at when nobody holds it.
 */
#include "env_sim.h"
#include "race.h"
#include "threads.h"

#include <mmu/sim.h>

static bool in_range_op(struct object *o, uint64_t page)
{
	for (struct list *n = o->range_ops.next; n != &o->range_ops; n = n->next) {
		const struct range_op *op = container_of(n, struct range_op, link);

		if (page >= op->first && page <= op->last)
			return true;
	}
	return false;
}

static void check_page(struct region *r, size_t slot, bool quiet)
{
	static const char *const states[] = {"ABSENT", "CLEAN", "GRANTED", "DIRTY", "WRITEBACK"};
	struct object *o = r->object;
	const struct page *p = &r->pages[slot];
	uint64_t page = r->first + slot;
	enum sim_entry entry = sim_strongest(o->frames, page, true);

	if (entry == SIM_RW && p->state != PAGE_GRANTED && p->state != PAGE_DIRTY &&
	    (quiet || !in_range_op(o, page)))
		threads_fail("page %llu is %s and some view can write it (%s)",
			     (unsigned long long)page, states[p->state],
			     p->state == PAGE_WRITEBACK ? "I4" : "I1");
	if (quiet && ((p->write_pins > 0 && p->state != PAGE_DIRTY) || p->write_pins > p->pins ||
		      (p->pins > 0 && p->state == PAGE_ABSENT)))
		threads_fail("page %llu is %s and has %u pins, %u for writing",
			     (unsigned long long)page, states[p->state], p->pins, p->write_pins);
	if (!quiet || (p->flags & PAGE_LOCKED) != 0)
		return;
	if (entry == SIM_RW && (p->flags & PAGE_ASK_AGAIN) != 0 &&
	    option(world.scenario, "defer") == 0)
		threads_fail("page %llu is to be asked for again and some view can write it (5.4)",
			     (unsigned long long)page);
	if (p->state == PAGE_ABSENT && entry >= SIM_RO)
		threads_fail("page %llu is detached and some view has it (I5)",
			     (unsigned long long)page);
	if (p->pins > 0 && p->state == PAGE_ABSENT)
		threads_fail("page %llu is pinned and detached (2.10)", (unsigned long long)page);
	if (p->write_pins > 0 && p->state != PAGE_DIRTY)
		threads_fail("page %llu is pinned for writing and %s (2.10)",
			     (unsigned long long)page, states[p->state]);
	if ((p->state != PAGE_ABSENT) != sim_frame_exists(o->frames, page))
		threads_fail("page %llu is %s and %s a frame", (unsigned long long)page,
			     states[p->state], p->state == PAGE_ABSENT ? "has" : "lacks");
	if (p->state != PAGE_ABSENT && sim_unarmed(o->frames, page) &&
	    !env_sim_rwlock_is_written(&o->views_lock))
		threads_fail("page %llu has a frame and a view would not report a write of it (I1)",
			     (unsigned long long)page);
}

static void check_counts(const struct region *r)
{
	uint32_t resident = 0, charged = 0, locked = 0, asked = 0, held = 0;

	for (size_t i = 0; i < PAGES; i++) {
		const struct page *p = &r->pages[i];

		resident += p->state != PAGE_ABSENT;
		charged += p->state >= PAGE_GRANTED;
		locked += (p->flags & PAGE_LOCKED) != 0;
		asked += p->ask != 0;
		held += (p->flags & PAGE_HELD) != 0;
	}
	if (resident != r->resident || charged != r->charged || locked != r->locked ||
	    asked != r->asked || held != r->held)
		threads_fail("a region's counts are wrong: resident %u of %u, charged %u of %u, "
			     "locked %u of %u, asked %u of %u, held %u of %u",
			     r->resident, resident, r->charged, charged, r->locked, locked,
			     r->asked, asked, r->held, held);
}

/* Charges come before states, and go after them. */
static void check_account(const struct account *a, uint64_t charged, uint64_t resident)
{
	if (a->resident < resident)
		threads_fail("%llu pages are resident, %llu are charged",
			     (unsigned long long)resident, (unsigned long long)a->resident);
	if (a->dirty_limit != 0 && (a->dirty > a->dirty_limit || charged > a->dirty_limit))
		threads_fail("%llu pages are dirty, %llu charged; the limit is %llu (S1.3)",
			     (unsigned long long)charged, (unsigned long long)a->dirty,
			     (unsigned long long)a->dirty_limit);
	if (a->resident_limit != 0 && a->resident > a->resident_limit)
		threads_fail("%llu pages are resident, the limit is %llu",
			     (unsigned long long)a->resident,
			     (unsigned long long)a->resident_limit);
}

void check_state(void *arg)
{
	struct space *s = space_of(world.space);
	uint64_t charged = 0, resident = 0;

	(void)arg;
	private_observe();
	for (struct list *n = s->regions.next; n != &s->regions; n = n->next) {
		struct region *r = container_of(n, struct region, link);
		bool quiet = env_sim_mutex_is_free(&r->lock);

		for (size_t i = 0; i < PAGES; i++)
			check_page(r, i, quiet);
		if (quiet)
			check_counts(r);
		charged += r->charged;
		resident += r->resident + private_check(r, quiet);
	}
	if (env_sim_mutex_is_free(&s->charge_lock))
		check_account(&s->account, charged, resident);
}
