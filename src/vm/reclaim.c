/* SPDX-License-Identifier: MIT */
/*
 * reclaim.c - the thread that makes room under the resident limits.
 *
 * A clock goes round the regions of the space. Faults mark a region referenced, but reads that the
 * kernel serves are invisible; so a region that was referenced is first sampled: its clean pages
 * are zapped from all views (they stay protected: markers are set again) and when the hand comes by
 * again those that have a translation were read. Dirty pages are written first. Pinned pages are
 * neither zapped nor evicted. Eviction takes
 * whole stretches of a region in one call: scattered single pages cost four times as much.
 */
#include "vm.h"

#include <errno.h>
#include <string.h>

/* When the next look is worth while, if somebody else is at all pages. */
#define RETRY_NS 1000000u

/* What a turn gives up for a store that has no memory, below any limit. */
#define MEMORY_GOAL 64u

/* How many pages a limit wants to be rid of, to have some room before the next turn. */
static uint64_t account_excess(const struct account *a)
{
	uint64_t keep = a->resident_limit - a->resident_limit / 8;

	if (keep == a->resident_limit)
		keep--;
	if (a->resident > keep)
		return a->resident - keep;
	return a->resident + 1 >= a->resident_limit; /* no room for a pair */
}

/* => charge_lock held. Pages to get rid of; 0: enough room. */
static uint64_t reclaim_goal(const struct space *s)
{
	if (!list_empty(&s->memory_waiters))
		return MEMORY_GOAL;
	return s->account.resident_limit == 0 ? 0 : account_excess(&s->account);
}

/* => views_lock, region->lock held. */
static void region_sample(struct region *r, size_t first, size_t end)
{
	struct object *o = r->object;

	r->referenced = false;
	r->sampled = true;
	for (size_t i = first; i < end;) {
		size_t from = i, clean = 0;
		while (i < end &&
		       (r->pages[i].state == PAGE_CLEAN || r->pages[i].state == PAGE_ABSENT) &&
		       (r->pages[i].flags & PAGE_LOCKED) == 0 && r->pages[i].pins == 0) {
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
	if ((p->flags & PAGE_LOCKED) != 0 || p->ask != 0 || p->pins > 0 || present)
		return false;
	return p->state == PAGE_CLEAN || p->state == PAGE_ABSENT;
}

/* => views_lock, region->lock held. Evict what can go. */
static size_t region_evict(struct region *r, size_t first, size_t end, const bool *present)
{
	struct object *o = r->object;
	size_t evicted = 0;

	for (size_t i = first; i < end;) {
		size_t from = i, clean = 0;
		while (i < end && page_can_go(&r->pages[i], present[i])) {
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

/* What a turn of the clock is for, and what came of it. */
struct turn {
	uint64_t goal; /* pages to get rid of in the space; 0: objects over limits of their own */
	bool hard;     /* whatever is clean goes, whoever used it of late */
	bool swap;     /* somebody waits: private copies go, too */
	bool urgent;   /* somebody waits who shall have it, if nothing else helps */
	bool busy;     /* pages were left because somebody is at them, which will end */
	size_t gone;   /* pages */
	struct pager_result pager;
};

/* Pages that views have locked stay. present is or-ed. => views_lock held. */
static void region_keep(struct region *r, bool *present)
{
	struct object *o = r->object;

	for (struct list *n = o->views.next; n != &o->views; n = n->next) {
		const struct view *v = container_of(n, struct view, link);
		uint64_t from = v->first > r->first ? v->first - r->first : 0;
		uint64_t to = v->first + v->count - r->first;

		if (!v->locked || v->first + v->count <= r->first)
			continue;
		for (; from < REGION_PAGES && from < to; from++)
			present[from] = true;
	}
}

/* Object's pages, and grants of private ones. Returns how many went. => views_lock, region->lock
 * held. */
static size_t region_shrink(struct region *r, const struct turn *turn, size_t *freed)
{
	struct object *o = r->object;
	bool present[REGION_PAGES] = {false};
	size_t evicted = 0;

	if (r->resident > 0 && r->referenced && !r->sampled && !turn->hard) {
		region_sample(r, 0, REGION_PAGES);
	} else if (r->resident > 0) {
		if (r->sampled && !turn->hard)
			views_present(o, r->first, REGION_PAGES, present);
		region_keep(r, present);
		r->referenced = false;
		r->sampled = false;
		evicted = region_evict(r, 0, REGION_PAGES, present);
		if (evicted < r->resident && memchr(present, true, sizeof(present)) != NULL)
			region_sample(r, 0, REGION_PAGES);
	}
	*freed = r->private > 0 ? region_take_back(r) : 0;
	return evicted;
}

static void region_reclaim(struct region *r, uint64_t want, struct turn *turn)
{
	struct object *o = r->object;
	size_t evicted, freed;
	bool private;

	if (!object_is_manual(o))
		turn->busy |=
			writeback_range(o, r->first, r->first + REGION_PAGES - 1, MKW_WB_RECLAIM)
				.busy;
	env_read_lock(&o->views_lock);
	env_lock(&r->lock);
	evicted = region_shrink(r, turn, &freed);
	turn->busy |= r->locked > 0 || r->asked > 0 || r->busy > 0;
	private = r->private > 0;
	env_unlock(&r->lock);
	env_read_unlock(&o->views_lock);
	COUNT(o, pages_evicted, evicted);
	uncharge_resident(o, evicted + freed);
	freed += evicted;
	if (private && turn->swap && freed < want)
		freed += pager_out_region(r, want - freed, turn->hard, &turn->pager);
	turn->gone += freed;
}

/* ---- Advice ------------------------------------------------------------------------------- */

/* Slots [from, to) are the next to go: what is not read until the hand comes by. */
static void region_cool(struct region *r, size_t from, size_t to)
{
	struct object *o = r->object;

	env_read_lock(&o->views_lock);
	env_lock(&r->lock);
	if (r->resident > 0)
		region_sample(r, from, to);
	env_unlock(&r->lock);
	env_read_unlock(&o->views_lock);
	region_clock_first(r);
}

/* Somebody who is at a page of slots [from, to), and will have done with it, has: true, and it is
 * worth another look. */
static bool region_await(struct region *r, size_t from, size_t to)
{
	struct sleeper sleeper;
	bool busy = false;

	sleeper_init(&sleeper);
	env_lock(&r->lock);
	for (size_t i = from; i < to && !busy; i++)
		busy = (r->pages[i].flags & PAGE_LOCKED) != 0 || r->pages[i].ask != 0 ||
		       r->pages[i].state == PAGE_WRITEBACK;
	if (busy)
		list_push_back(&r->waiters, &sleeper.waiter.link);
	env_unlock(&r->lock);
	if (busy)
		sleeper_sleep(&sleeper);
	sleeper_destroy(&sleeper);
	return busy;
}

/* Against writers there is no end to that. */
#define AWAIT_ROUNDS 4

/* Whatever of slots [from, to) can go goes now. */
static void region_empty(struct region *r, size_t from, size_t to)
{
	bool present[REGION_PAGES] = {false};
	struct object *o = r->object;
	unsigned rounds = 0;
	size_t evicted;

	do {
		if (!object_is_manual(o))
			writeback_range(o, r->first + from, r->first + to - 1, MKW_WB_RECLAIM);
	} while (++rounds < AWAIT_ROUNDS && region_await(r, from, to));
	env_read_lock(&o->views_lock);
	env_lock(&r->lock);
	region_keep(r, present);
	evicted = region_evict(r, from, to, present);
	env_unlock(&r->lock);
	env_read_unlock(&o->views_lock);
	COUNT(o, pages_evicted, evicted);
	uncharge_resident(o, evicted);
}

void reclaim_range(struct object *o, uint64_t first, uint64_t last, bool now)
{
	struct region *r;
	uint64_t next = first;

	while (next <= last && (r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		if (r->first <= last) {
			size_t from = first > r->first ? (size_t)(first - r->first) : 0;
			size_t to = last - r->first < REGION_PAGES - 1
					    ? (size_t)(last - r->first) + 1
					    : REGION_PAGES;
			if (now)
				region_empty(r, from, to);
			else
				region_cool(r, from, to);
		}
		region_put(r);
	}
}

/* ---- The thread --------------------------------------------------------------------------- */

/* How many pages of the region's object shall go: it is over its own limit, or the space is. */
static uint64_t region_want(struct region *r, const struct turn *turn)
{
	const struct account *a = &r->object->account;
	uint64_t want = turn->goal > turn->gone ? turn->goal - turn->gone : 0, own = 0;

	env_lock(&r->object->space->charge_lock);
	if (a->resident_limit != 0 &&
	    (a->resident + 1 >= a->resident_limit || a->resident * 16 >= a->resident_limit * 15))
		own = account_excess(a);
	env_unlock(&r->object->space->charge_lock);
	return want > own ? want : own;
}

/* One turn of the clock. */
static void clock_turn(struct space *s, struct turn *turn)
{
	size_t turns = 0;

	env_lock(&s->charge_lock);
	for (struct list *n = s->regions.next; n != &s->regions; n = n->next)
		turns++;
	env_unlock(&s->charge_lock);
	while (turns-- > 0 && (turn->goal == 0 || turn->gone < turn->goal)) {
		struct region *r = region_clock(s);
		uint64_t want;

		if (r == NULL)
			break;
		want = region_want(r, turn);
		if (want > 0)
			region_reclaim(r, want, turn);
		region_put(r);
	}
}

/* That private copies cannot go is told once for each reason: a full file may have room every now
 * and then. */
static void swap_tell(struct space *s, const struct turn *turn)
{
	int error = turn->pager.failed.error;

	if (error == 0 || error == s->swap_error)
		return;
	s->swap_error = error;
	space_log(s, MKW_LOG_ERROR, "private copies stay in memory: %s",
		  turn->pager.failed.sentence);
}

/* What is said to those who wait, and for whom there is no room. */
static int turn_denial(const struct turn *turn)
{
	switch (turn->pager.failed.error) {
	case 0:
	case -ENOMEM:
		return -ENOMEM;
	case -ENOSPC:
		return -ENOSPC;
	default:
		return -EIO;
	}
}

/* All that is done at a time. => no lock held. */
static void reclaim_run(struct space *s, struct turn *turn)
{
	pager_serve(s, &turn->pager);
	/* Their threads run on before the slots are back, and may be waiting again. */
	turn->busy = atomic_load(&s->swapping_in) > 0;
	clock_turn(s, turn);
	if (turn->gone == 0)
		clock_turn(s, turn);
	if (turn->gone == 0) {
		turn->hard = true;
		turn->pager.urgent = turn->urgent;
		clock_turn(s, turn);
	}
	turn->busy |= turn->pager.busy;
	swap_tell(s, turn);
}

/* => charge_lock held. Who waits, and for what. */
static void turn_look(struct space *s, struct turn *turn)
{
	turn->goal = reclaim_goal(s);
	turn->swap = !list_empty(&s->resident_waiters) || !list_empty(&s->memory_waiters);
	for (struct list *n = s->resident_waiters.next; n != &s->resident_waiters; n = n->next)
		turn->urgent |= !container_of(n, struct waiter, link)->grows;
}

/* => charge_lock held. Those who would make it worse are told so; the others look again. */
static void turn_refuse_growth(struct space *s, int error)
{
	struct list grow;

	list_init(&grow);
	for (struct list *n = s->resident_waiters.next, *next; n != &s->resident_waiters;
	     n = next) {
		next = n->next;
		if (!container_of(n, struct waiter, link)->grows)
			continue;
		list_remove(n);
		list_push_back(&grow, n);
	}
	waiters_deny(&grow, error);
	waiters_wake(&s->resident_waiters);
}

/* => charge_lock held. Somebody waits. False: look again later. */
static bool turn_answer(struct space *s, const struct turn *turn)
{
	/* Who came to wait before this turn began, and nothing can go. */
	bool last = !turn->busy && !s->reclaimer_kicked;

	if (turn->gone == 0 && last)
		waiters_deny(&s->resident_waiters, turn_denial(turn));
	else if (turn->gone == 0)
		return false;
	else if (turn->gone == 1 && turn->pager.spared && last)
		turn_refuse_growth(s, turn_denial(turn));
	else
		waiters_wake(&s->resident_waiters);
	return true;
}

void reclaimer_main(void *space)
{
	struct space *s = space;
	uint64_t again_ns = 0;

	atomic_store(&s->reclaimer_tid, env_tid());
	env_lock(&s->charge_lock);
	while (!s->stopping) {
		struct turn turn = {0};

		while (!s->reclaimer_kicked && !s->stopping) {
			if (again_ns == 0)
				env_wait(&s->reclaimer_cond, &s->charge_lock);
			else if (!env_wait_until(&s->reclaimer_cond, &s->charge_lock, again_ns))
				break;
		}
		if (s->stopping)
			break;
		s->reclaimer_kicked = false;
		turn_look(s, &turn);
		env_unlock(&s->charge_lock);

		reclaim_run(s, &turn);

		env_lock(&s->charge_lock);
		again_ns = 0;
		waiters_wake(&s->memory_waiters);
		if (!list_empty(&s->resident_waiters) && !turn_answer(s, &turn))
			again_ns = env_now_ns() + RETRY_NS;
	}
	env_unlock(&s->charge_lock);
}
