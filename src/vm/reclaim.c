/* SPDX-License-Identifier: MIT */
/*
 * reclaim.c - the thread that makes room under the resident limits.
 *
 * A clock goes round the regions of the space. Faults mark a region referenced, but reads that the
 * kernel serves are invisible; so a region that was referenced is first sampled: its clean pages
 * are zapped from all views (they stay protected: markers are set again) and when the hand comes by
 * again those that have a translation were read. Dirty pages are written first. Eviction takes
 * whole stretches of a region in one call: scattered single pages cost four times as much.
 */
#include "vm.h"

#include <errno.h>
#include <string.h>

/* When the next look is worth while, if somebody else is at all pages. */
#define RETRY_NS 1000000u

/* What a turn gives up for a store that has no memory, below any limit. */
#define MEMORY_GOAL 64u

/* => charge_lock held. Pages to get rid of; 0: enough room. */
static uint64_t reclaim_goal(const struct space *s)
{
	const struct account *a = &s->account;
	uint64_t keep;

	if (!list_empty(&s->memory_waiters))
		return MEMORY_GOAL;
	if (a->resident_limit == 0)
		return 0;
	keep = a->resident_limit - a->resident_limit / 8;
	if (keep == a->resident_limit)
		keep--;
	return a->resident > keep ? a->resident - keep : 0;
}

/* => views_lock, region->lock held. */
static void region_sample(struct region *r)
{
	struct object *o = r->object;

	r->referenced = false;
	r->sampled = true;
	for (size_t i = 0; i < REGION_PAGES;) {
		size_t from = i, clean = 0;
		while (i < REGION_PAGES &&
		       (r->pages[i].state == PAGE_CLEAN || r->pages[i].state == PAGE_ABSENT) &&
		       (r->pages[i].flags & PAGE_LOCKED) == 0) {
			clean += r->pages[i].state == PAGE_CLEAN;
			i++;
		}
		if (i == from)
			i++;
		if (clean == 0)
			continue;
		views_zap(o, r->first + from, i - from);
		if (views_protect(o, r->first + from, i - from) != 0)
			r->sampled = false;
	}
}

static bool page_can_go(const struct page *p, bool present)
{
	if ((p->flags & PAGE_LOCKED) != 0 || p->ask != 0 || present)
		return false;
	return p->state == PAGE_CLEAN || p->state == PAGE_ABSENT;
}

/* => views_lock, region->lock held. Evict what can go. */
static size_t region_evict(struct region *r, const bool *present)
{
	struct object *o = r->object;
	size_t evicted = 0;

	for (size_t i = 0; i < REGION_PAGES;) {
		size_t from = i, clean = 0;
		while (i < REGION_PAGES && page_can_go(&r->pages[i], present[i])) {
			clean += r->pages[i].state == PAGE_CLEAN;
			i++;
		}
		if (i == from)
			i++;
		if (clean == 0)
			continue;
		if (frames_drop(o->frames, (r->first + from) << PAGE_SHIFT,
				(uint64_t)(i - from) << PAGE_SHIFT) != 0)
			continue;
		for (size_t k = from; k < i; k++) {
			if (r->pages[k].state == PAGE_CLEAN)
				page_change(r, k, PAGE_DETACH);
			r->unarmed[k / 64] |= 1ull << (k % 64);
		}
		evicted += clean;
	}
	return evicted;
}

/* => views_lock, region->lock held. Grants of private pages that nobody used. */
static size_t region_take_back(struct region *r)
{
	struct object *o = r->object;
	size_t pages = 0;

	for (struct list *n = o->views.next; n != &o->views; n = n->next) {
		struct view *v = container_of(n, struct view, link);
		if (v->private != NULL && v->first < r->first + REGION_PAGES &&
		    v->first + v->count > r->first)
			pages += private_take_back(v, r);
	}
	return pages;
}

/* *busy: pages were left because somebody is at them, which will end. */
static size_t region_reclaim(struct region *r, bool hard, bool *busy)
{
	struct object *o = r->object;
	bool present[REGION_PAGES] = {false};
	size_t evicted = 0, freed;

	if (!object_is_manual(o))
		*busy |= writeback_range(o, r->first, r->first + REGION_PAGES - 1, MKW_WB_RECLAIM)
				 .busy;
	env_read_lock(&o->views_lock);
	env_lock(&r->lock);
	if (r->resident > 0 && r->referenced && !r->sampled && !hard) {
		region_sample(r);
	} else if (r->resident > 0) {
		if (r->sampled && !hard)
			views_present(o, r->first, REGION_PAGES, present);
		r->referenced = false;
		r->sampled = false;
		evicted = region_evict(r, present);
		if (evicted < r->resident && memchr(present, true, sizeof(present)) != NULL)
			region_sample(r);
	}
	freed = r->private > 0 ? region_take_back(r) : 0;
	*busy |= r->locked > 0 || r->asked > 0;
	env_unlock(&r->lock);
	env_read_unlock(&o->views_lock);
	uncharge_resident(o, evicted + freed);
	COUNT(o, pages_evicted, evicted);
	return evicted + freed;
}

/* The object a region belongs to is over its own limit, or the space is. */
static bool region_concerned(struct region *r, bool space_over)
{
	struct object *o = r->object;
	bool over;

	env_lock(&o->space->charge_lock);
	over = o->account.resident_limit != 0 &&
	       o->account.resident * 16 >= o->account.resident_limit * 15;
	env_unlock(&o->space->charge_lock);
	return space_over || over;
}

/* One turn of the clock. hard: whatever is clean goes. *busy as above. */
static size_t clock_turn(struct space *s, uint64_t goal, bool hard, bool *busy)
{
	size_t evicted = 0, turns = 0;

	env_lock(&s->charge_lock);
	for (struct list *n = s->regions.next; n != &s->regions; n = n->next)
		turns++;
	env_unlock(&s->charge_lock);
	while (turns-- > 0 && (goal == 0 || evicted < goal)) {
		struct region *r = region_clock(s);
		if (r == NULL)
			break;
		if (region_concerned(r, goal > 0))
			evicted += region_reclaim(r, hard, busy);
		region_put(r);
	}
	return evicted;
}

void reclaimer_main(void *space)
{
	struct space *s = space;
	uint64_t again_ns = 0;

	atomic_store(&s->reclaimer_tid, env_tid());
	env_lock(&s->charge_lock);
	while (!s->stopping) {
		bool busy = false;
		uint64_t goal;
		size_t evicted;

		while (!s->reclaimer_kicked && !s->stopping) {
			if (again_ns == 0)
				env_wait(&s->reclaimer_cond, &s->charge_lock);
			else if (!env_wait_until(&s->reclaimer_cond, &s->charge_lock, again_ns))
				break;
		}
		if (s->stopping)
			break;
		s->reclaimer_kicked = false;
		goal = reclaim_goal(s);
		env_unlock(&s->charge_lock);

		evicted = clock_turn(s, goal, false, &busy);
		if (evicted == 0)
			evicted = clock_turn(s, goal, false, &busy);
		if (evicted == 0)
			evicted = clock_turn(s, goal, true, &busy);

		env_lock(&s->charge_lock);
		again_ns = 0;
		waiters_wake(&s->memory_waiters);
		if (list_empty(&s->resident_waiters))
			continue;
		/* Who came to wait before this turn began, and nothing can go. */
		if (evicted == 0 && !busy && !s->reclaimer_kicked)
			waiters_deny(&s->resident_waiters, -ENOMEM);
		else if (evicted == 0)
			again_ns = env_now_ns() + RETRY_NS;
		else
			waiters_wake(&s->resident_waiters);
	}
	env_unlock(&s->charge_lock);
}
