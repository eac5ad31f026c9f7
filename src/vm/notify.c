/* SPDX-License-Identifier: MIT */
/*
 * notify.c - asking the store before the first write, and what a store may do about its run
 * meanwhile (contract 2.3 to 2.5, 3, 11).
 *
 *   under fault_lock:  charge the run (cut to the room there is); give its pages the number of this
 *                      question (page->ask) - a second writer of them waits for the answer
 *   no lock:           page_mkwrite, pages unlocked; truncate and punch may detach them (ask = 0)
 *   page locks:        mkw_run_lock, by the store or here: still ours, or NOPAGE (S4.4, S4.6)
 *   under fault_lock:  DIRTY and GRANTED, then the MMU, then the page locks go (I2)
 *
 * Pages that were asked for but lost (detached, or locked by somebody else) had their reservation
 * for nothing: it is given back under their page lock, before anybody can ask again (2.5).
 */
#include "vm.h"

#include <assert.h>
#include <errno.h>

static struct vm_run *vm_run_of(const struct mkw_run *run)
{
	return container_of(run, struct vm_run, run);
}

static size_t run_slot(const struct vm_run *vr)
{
	return vr->run.first & (REGION_PAGES - 1);
}

/* ---- The store's side --------------------------------------------------------------------- */

/* => region->lock held. */
static void ask_clear(struct region *r, size_t slot, uint16_t ask)
{
	if (r->pages[slot].ask != ask)
		return;
	r->pages[slot].ask = 0;
	r->asked--;
}

int mkw_run_cut(struct mkw_run *run, uint64_t first, size_t count)
{
	struct vm_run *vr = vm_run_of(run);

	if (count == 0 || first < run->first || first > run->page || count > run->count ||
	    first - run->first > run->count - count || run->page >= first + count)
		return mkw_set_error(-EINVAL, "a run can only be cut, and must keep its page");
	/* In fault there is no region: the library takes what is left of the run. */
	if (vr->region == NULL) {
		if (first != run->first)
			return mkw_set_error(-EINVAL, "in fault a run is cut at its end");
		run->count = count;
		return 0;
	}
	if (vr->locked)
		return mkw_set_error(-EINVAL, "a locked run cannot be cut");
	env_lock(&vr->region->lock);
	for (uint64_t i = run->first; i < run->first + run->count; i++)
		if (i < first || i >= first + count)
			ask_clear(vr->region, i & (REGION_PAGES - 1), vr->ask);
	waiters_wake(&vr->region->waiters);
	env_unlock(&vr->region->lock);
	run->first = first;
	run->count = count;
	return 0;
}

static bool run_can_take(const struct region *r, size_t slot)
{
	const struct page *p = &r->pages[slot];

	/* A pinned one keeps what is mapped: making a run writable may take it away for a moment.
	 */
	return p->state == PAGE_CLEAN && (p->flags & PAGE_LOCKED) == 0 && p->ask == 0 &&
	       p->pins == 0;
}

static void run_take(struct vm_run *vr, size_t slot)
{
	if (slot < vr->asked_from)
		vr->asked_from = (uint16_t)slot;
	if (slot >= vr->asked_to)
		vr->asked_to = (uint16_t)(slot + 1);
	vr->region->pages[slot].ask = vr->ask;
	vr->region->asked++;
}

void mkw_run_grow(struct mkw_run *run, uint64_t first, size_t count)
{
	struct vm_run *vr = vm_run_of(run);
	struct region *r = vr->region;
	uint64_t end = first + count, top;
	size_t left = 0, right = 0, slot, room;

	if (r == NULL || vr->locked || vr->hold_only || end < first)
		return;
	if (first < r->first)
		first = r->first;
	top = r->first + REGION_PAGES;
	if (top > object_pages(r->object))
		top = object_pages(r->object);
	if (end > top)
		end = top;
	env_lock(&r->lock);
	slot = run_slot(vr);
	while (run->first - left > first && run_can_take(r, slot - left - 1))
		left++;
	slot += run->count;
	while (run->first + run->count + right < end && run_can_take(r, slot + right))
		right++;
	room = left + right > 0 ? charge_dirty(r->object, left + right) : 0;
	vr->charged += room;
	right = right < room ? right : room;
	left = left < room - right ? left : room - right;
	for (size_t i = 0; i < right; i++)
		run_take(vr, slot + i);
	for (size_t i = 1; i <= left; i++)
		run_take(vr, run_slot(vr) - i);
	env_unlock(&r->lock);
	run->first -= left;
	run->count += left + right;
}

/* Wait for the lock of run->page. It is not under write-back: that leaves asked pages alone. The
 * store, inside its operation, does not wait for a range op: that may be calling it under the
 * page's lock (discard), and want what the store holds meanwhile. => region->lock held, also on
 * return. False: it is lost. */
static bool run_wait_page(struct vm_run *vr, size_t slot, bool inside)
{
	struct region *r = vr->region;
	struct page *p = &r->pages[slot];
	struct sleeper sleeper;
	bool ours;

	if (p->ask == vr->ask && (p->flags & PAGE_LOCKED) == 0)
		return true;
	sleeper_init(&sleeper);
	while ((ours = p->ask == vr->ask &&
		       !(inside && object_in_range_op(r->object, vr->run.page))) &&
	       (p->flags & PAGE_LOCKED) != 0) {
		list_push_back(&r->waiters, &sleeper.waiter.link);
		env_unlock(&r->lock);
		sleeper_sleep(&sleeper);
		env_lock(&r->lock);
	}
	sleeper_destroy(&sleeper);
	return ours;
}

static bool run_try_page(const struct vm_run *vr, size_t slot)
{
	const struct page *p = &vr->region->pages[slot];

	return p->ask == vr->ask && (p->flags & PAGE_LOCKED) == 0 && p->state == PAGE_CLEAN &&
	       !object_in_range_op(vr->region->object, vr->region->first + slot);
}

/* inside: by the store. where: given by one whose locks are checked. */
static int run_lock(struct mkw_run *run, bool inside, const char *where)
{
	struct vm_run *vr = vm_run_of(run);
	struct region *r = vr->region;
	size_t slot = run->page & (REGION_PAGES - 1), from = slot, to = slot + 1;
	size_t low = run_slot(vr), high = low + run->count;

	if (r == NULL || vr->locked)
		return mkw_set_error(-EINVAL, "mkw_run_lock is for page_mkwrite, once");
	if (where != NULL && order_take_pages(where) != 0)
		return -EDEADLK;
	vr->tried_first = run->first;
	vr->tried_count = run->count;
	env_lock(&r->lock);
	/* A range op has seen to it that no page of its range is locked: it stays so to its end. */
	if (!run_wait_page(vr, slot, inside) || run->page >= object_pages(r->object) ||
	    object_in_range_op(r->object, run->page)) {
		env_unlock(&r->lock);
		vr->lost = true;
		return mkw_set_error(-EFAULT, "the page is the object's no more");
	}
	while (from > low && run_try_page(vr, from - 1))
		from--;
	while (to < high && run_try_page(vr, to) && r->first + to < object_pages(r->object))
		to++;
	for (size_t i = from; i < to; i++)
		page_lock(r, i);
	env_unlock(&r->lock);
	run->first = r->first + from;
	run->count = to - from;
	vr->locked = true;
	vr->locked_at = where;
	return 0;
}

/* In brackets: with MKW_CHECK_LOCKS it is a macro, too. */
int(mkw_run_lock)(struct mkw_run *run)
{
	return run_lock(run, true, NULL);
}

int mkw_run_lock_at(struct mkw_run *run, const char *where)
{
	return run_lock(run, true, where);
}

/* => region->lock held. */
static void run_unlock(struct vm_run *vr)
{
	for (size_t i = 0; i < vr->run.count; i++)
		page_unlock(vr->region, run_slot(vr) + i);
	waiters_wake(&vr->region->waiters);
	vr->locked = false;
}

void mkw_run_unlock(struct mkw_run *run)
{
	struct vm_run *vr = vm_run_of(run);

	if (vr->region == NULL || !vr->locked)
		return;
	env_lock(&vr->region->lock);
	run_unlock(vr);
	env_unlock(&vr->region->lock);
}

const void *mkw_run_data(const struct mkw_run *run)
{
	const struct vm_run *vr = vm_run_of(run);

	/* Unlocked, a frame may be gone, and looking at it would make a new one. */
	if (vr->region == NULL || !vr->locked || vr->region->object->in_place)
		return NULL;
	return frames_data(vr->region->object->frames, run->first << PAGE_SHIFT,
			   run->count << PAGE_SHIFT);
}

/* ---- The question ------------------------------------------------------------------------- */

/* Which pages are asked for: the fault's, and those after it that its stream has earned. */
static size_t ask_extent(const struct fault *f)
{
	const struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	uint64_t end = object_pages(f->object);

	if (f->deferred || r->pages[slot].state != PAGE_CLEAN || r->pages[slot].pins > 0)
		return 1;
	if (f->view != NULL && end > f->view->first + f->view->count)
		end = f->view->first + f->view->count;
	while (n < f->want && slot + n < REGION_PAGES && f->page + n < end &&
	       run_can_take(r, slot + n) && !object_in_range_op(f->object, f->page + n))
		n++;
	return n;
}

/* => region->lock held. The numbers come round while a slow question is under way: its own is not
 * given again, though its pages may have been detached. */
static uint16_t ask_number(struct region *r)
{
	struct list *n = &r->questions;

	do {
		if (++r->next_ask == 0)
			r->next_ask = 1;
		for (n = r->questions.next; n != &r->questions; n = n->next)
			if (container_of(n, struct vm_run, link)->ask == r->next_ask)
				break;
	} while (n != &r->questions);
	return r->next_ask;
}

static void ask_begin(struct fault *f, struct vm_run *vr, size_t count, size_t charged)
{
	struct region *r = f->region;

	*vr = (struct vm_run){
		.run = {.object = &f->object->public,
			.first = f->page,
			.count = count,
			.page = f->page,
			.flags = MKW_RUN_WRITE | (f->broken ? MKW_RUN_BROKEN : 0)},
		.region = r,
		.ask = ask_number(r),
		.asked_from = REGION_PAGES,
		.charged = charged,
	};
	list_push_back(&r->questions, &vr->link);
	for (size_t i = 0; i < count; i++)
		run_take(vr, run_slot(vr) + i);
	r->referenced = true;
}

/* ---- Its end ------------------------------------------------------------------------------ */

/* A page that has a reservation for nothing. => region->lock held. */
static bool page_is_lost(const struct page *p)
{
	return !page_is_charged(p) && p->ask == 0 && (p->flags & PAGE_HELD) == 0;
}

/* => region->lock held, dropped and taken again meanwhile. Lock a page if it is lost; whoever has
 * its lock now is waited for. */
static bool page_lock_lost(struct region *r, size_t slot)
{
	struct mmu *mmu = r->object->space->mmu;
	struct page *p = &r->pages[slot];
	struct sleeper sleeper;

	if (!page_is_lost(p))
		return false;
	if ((p->flags & PAGE_LOCKED) == 0) {
		page_lock(r, slot);
		return true;
	}
	env_unlock(&r->lock);
	sleeper_init(&sleeper);
	mmu_sleep_begin(mmu);
	env_lock(&r->lock);
	while (page_is_lost(p) && (p->flags & PAGE_LOCKED) != 0) {
		list_push_back(&r->waiters, &sleeper.waiter.link);
		env_unlock(&r->lock);
		sleeper_sleep(&sleeper);
		env_lock(&r->lock);
	}
	env_unlock(&r->lock);
	mmu_sleep_end(mmu);
	sleeper_destroy(&sleeper);
	env_lock(&r->lock);
	if (!page_is_lost(p) || (p->flags & PAGE_LOCKED) != 0)
		return false;
	page_lock(r, slot);
	return true;
}

/*
 * => region->lock held, dropped and taken again meanwhile. Pages still asked for by this question,
 * outside the run that was locked: the store granted them, we could not take them. Their page locks
 * are held until unreserve has run: a range op that began before may detach them, and then nobody
 * else is to ask for them yet. A dirty one, which was asked for again, needs the reservation for
 * its write-back.
 */
static void lost_unreserve(struct vm_run *vr)
{
	struct region *r = vr->region;

	for (size_t i = vr->asked_from, n; i < vr->asked_to; i += n) {
		n = 1;
		if (r->pages[i].ask != vr->ask)
			continue;
		ask_clear(r, i, vr->ask);
		if (!page_lock_lost(r, i))
			continue;
		for (; i + n < vr->asked_to && r->pages[i + n].ask == vr->ask; n++) {
			const struct page *p = &r->pages[i + n];
			if ((p->flags & (PAGE_LOCKED | PAGE_HELD)) != 0 || page_is_charged(p))
				break;
			ask_clear(r, i + n, vr->ask);
			page_lock(r, i + n);
		}
		env_unlock(&r->lock);
		op_unreserve(r->object, r->first + i, n);
		env_lock(&r->lock);
		for (size_t k = i; k < i + n; k++)
			page_unlock(r, k);
		waiters_wake(&r->waiters);
	}
}

/* The store said yes to pages that were detached meanwhile. Whatever it reserved for them after
 * truncate or punch gave back theirs is ours to return, unless somebody asked again. They may be
 * back already, read by somebody who will never write them. */
static void detached_unreserve(struct vm_run *vr)
{
	struct region *r = vr->region;

	for (size_t i = 0; i < vr->tried_count; i++) {
		size_t slot = (vr->tried_first + i) & (REGION_PAGES - 1);

		env_lock(&r->lock);
		if (page_lock_lost(r, slot)) {
			env_unlock(&r->lock);
			op_unreserve(r->object, vr->tried_first + i, 1);
			env_lock(&r->lock);
			page_unlock(r, slot);
			waiters_wake(&r->waiters);
		}
		env_unlock(&r->lock);
	}
}

/* A dirty page that was tried is in a range op that has not ended. It may have been detached and
 * dirtied anew since we asked: that it is no more ours says nothing. */
static bool lost_is_undecided(const struct vm_run *vr)
{
	struct region *r = vr->region;
	bool undecided = false;

	env_lock(&r->lock);
	for (size_t i = 0; i < vr->tried_count && !undecided; i++)
		undecided =
			page_is_charged(&r->pages[(vr->tried_first + i) & (REGION_PAGES - 1)]) &&
			object_in_range_op(r->object, vr->tried_first + i);
	env_unlock(&r->lock);
	return undecided;
}

/* => no lock held. The end of the range op decides whose the reservation of such a page is: the
 * page's if it is still there, and ours to return if it is not. A thread that the range op may wait
 * for does not wait for it: rather a reservation too many than one too few. */
static void lost_await_end(const struct fault *f, const struct vm_run *vr)
{
	struct object *o = vr->region->object;
	struct sleeper sleeper;

	if (!lost_is_undecided(vr) || fault_in_syscall_on(f, o))
		return;
	sleeper_init(&sleeper);
	mmu_sleep_begin(o->space->mmu);
	do {
		bool waits;

		env_lock(&o->lock);
		waits = !list_empty(&o->range_ops);
		if (waits)
			list_push_back(&o->waiters, &sleeper.waiter.link);
		env_unlock(&o->lock);
		if (waits)
			sleeper_sleep(&sleeper);
	} while (lost_is_undecided(vr));
	mmu_sleep_end(o->space->mmu);
	sleeper_destroy(&sleeper);
}

void asking_end(struct object *o)
{
	if (atomic_fetch_sub(&o->asking, 1) == 1 && atomic_load(&o->frozen) != 0)
		object_wake(o);
}

/* The end of every question: page locks and asks go, unused charges go back (kept: pages that are
 * charged now), a freeze that waits is told. */
static void ask_end(struct fault *f, struct vm_run *vr, bool granted, size_t kept)
{
	struct object *o = f->object;
	struct region *r = f->region;

	mkw_run_unlock(&vr->run);
	env_lock(&r->lock);
	if (granted)
		lost_unreserve(vr);
	else
		for (size_t i = vr->asked_from; i < vr->asked_to && r->asked > 0; i++)
			ask_clear(r, i, vr->ask);
	list_remove(&vr->link);
	waiters_wake(&r->waiters);
	env_unlock(&r->lock);
	charge_settle(o, vr->charged, kept);
	asking_end(o);
}

/* Pages of the locked run enter their states. => fault_lock held. Returns the newly charged. */
static size_t run_commit(struct fault *f, struct vm_run *vr)
{
	struct region *r = f->region;
	size_t fresh = 0;

	for (size_t i = 0; i < vr->run.count; i++) {
		size_t slot = run_slot(vr) + i;
		bool faulting = vr->run.first + i == f->page && f->kind != FAULT_RESERVE;
		/* mkw_pwrite writes all it asked for; so may who pins it. */
		bool written = (f->kind == FAULT_WRITE || f->kind == FAULT_PIN_WRITE) &&
			       vr->run.first + i >= f->page &&
			       i + vr->run.first < f->page + f->want;

		/* Not what the store took besides: that was not asked for. */
		if (f->kind == FAULT_RESERVE && vr->run.first + i >= f->page &&
		    vr->run.first + i < f->page + f->want)
			fault_hold(f, slot, 1);
		if (vr->hold_only) {
			ask_clear(r, slot, vr->ask);
			continue;
		}
		/* A call may be storing to one that is asked for again by nobody's thread. */
		if (!page_is_charged(&r->pages[slot]) || f->tid != 0)
			r->pages[slot].writer = f->tid;
		fresh += !page_is_charged(&r->pages[slot]);
		page_change(r, slot, faulting || written ? PAGE_WRITE : PAGE_GRANT);
		page_asked(r, slot);
		if (f->deferred)
			r->pages[slot].flags |= PAGE_ASK_AGAIN;
		ask_clear(r, slot, vr->ask);
	}
	return fresh;
}

/* What a pwrite goes on with: pages from its first on stay locked, the rest is let go. */
static void run_keep_locked(struct fault *f, struct vm_run *vr)
{
	struct region *r = f->region;
	uint64_t end = f->page + f->want;

	for (uint64_t i = vr->run.first; i < vr->run.first + vr->run.count; i++)
		if (i < f->page || i >= end)
			page_unlock(r, i & (REGION_PAGES - 1));
	f->locked = vr->run.first + vr->run.count < end
			    ? (size_t)(vr->run.first + vr->run.count - f->page)
			    : f->want;
	vr->locked = false;
}

/* The committed run is mapped, and pinned where that is what it is for. => fault_lock held. */
static int run_map(struct fault *f, const struct vm_run *vr)
{
	size_t served = (size_t)(vr->run.first + vr->run.count - f->page);
	int error = 0;

	if (fault_is_pin(f))
		served = fault_pin(f, f->page & (REGION_PAGES - 1),
				   served < f->want ? served : f->want);
	f->served = served;
	if (fault_is_pin(f))
		error = view_let_rw(f->view, vr->run.first, vr->run.count);
	else if (fault_has_view(f) && !vr->hold_only)
		error = view_map_rw(f->view, vr->run.first, vr->run.count);
	if (error != 0 && fault_is_pin(f))
		fault_pin_undo(f, served);
	return error;
}

/* The run is locked and ours. */
static enum step notify_commit(struct fault *f, struct vm_run *vr)
{
	struct object *o = f->object;
	const uint64_t first = vr->run.first;
	const size_t count = vr->run.count;
	size_t fresh;
	int error = 0;

	/* Counts and streams before the thread runs on and can ask for them. */
	COUNT(o, pages_granted, count);
	if (fault_is_access(f))
		stream_done(f->view, f->page, (size_t)(first + count - f->page), MMU_WRITE);
	fault_lock(f);
	/* The freeze waits for us; it need not find what it has not waited for (4.5). */
	if (fault_is_frozen(f)) {
		fault_unlock(f);
		COUNT(o, pages_granted, -(uint64_t)count);
		ask_end(f, vr, true, 0);
		return STEP_AGAIN;
	}
	fresh = run_commit(f, vr);
	assert(fresh <= vr->charged);
	error = run_map(f, vr);
	if (f->kind == FAULT_WRITE)
		run_keep_locked(f, vr);
	else
		run_unlock(vr);
	fault_unlock(f);
	if (count < vr->tried_count)
		detached_unreserve(vr);
	ask_end(f, vr, true, fresh);
	if (error == 0) /* a pin that could not be counted is told so by the next look */
		return f->served > 0 ? STEP_DONE : STEP_AGAIN;
	mkw_set_error(error, "cannot make a page writable: errno %d", -error);
	return fault_refuse(f, error);
}

/* The run could not be locked; what the store reserved for it is not needed. */
static enum step notify_lost(struct fault *f, struct vm_run *vr, mkw_fault_t code)
{
	struct error_record said;

	error_keep(&said, error_last());
	lost_await_end(f, vr);
	detached_unreserve(vr);
	ask_end(f, vr, true, 0);
	if (said.error != 0)
		mkw_set_error(said.error, "%s", said.sentence);
	return fault_answer(f, code);
}

static enum step notify_answer(struct fault *f, struct vm_run *vr, mkw_fault_t code)
{
	bool granted = (code & ~(MKW_FAULT_MAJOR | MKW_FAULT_LOCKED)) == 0;

	if (granted && (code & MKW_FAULT_LOCKED) != 0 && !vr->locked) {
		mkw_set_error(-EIO, "page_mkwrite answered LOCKED and had not locked its run");
		ask_end(f, vr, true, 0);
		return fault_refuse(f, -EIO);
	}
	/* The old 0, and the page went away: S4.1. */
	if (granted && !vr->locked && run_lock(&vr->run, false, NULL) != 0)
		return notify_lost(f, vr, MKW_FAULT_NOPAGE);
	if (granted)
		return notify_commit(f, vr);
	/* Its own lock failed. What it has reserved may be another question's by now: it cannot
	 * know, and leaves that to us (mkw_run_lock). */
	if (vr->lost)
		return notify_lost(f, vr, code);
	ask_end(f, vr, false, 0);
	return fault_answer(f, code);
}

/* The process is running out of mappings: fewer and larger grants. */
static void run_grow_to_grain(struct mkw_run *run)
{
	uint64_t grain = mmu_grain(), first = run->first & ~(grain - 1);
	uint64_t end = (run->first + run->count + grain - 1) & ~(grain - 1);

	if (grain > 1)
		mkw_run_grow(run, first, (size_t)(end - first));
}

enum step fault_notify(struct fault *f)
{
	struct object *o = f->object;
	struct page *p = &f->region->pages[f->page & (REGION_PAGES - 1)];
	size_t want = ask_extent(f), charged = 0, count = 1;
	bool hold_only = false;
	struct vm_run vr;
	mkw_fault_t code;

	if (p->ask != 0)
		return fault_park_region(f);
	/* Before anything is charged, and then another look: a freeze that saw nobody asking finds
	 * nothing dirty but what is dirty (4.5). */
	atomic_fetch_add(&o->asking, 1);
	if (fault_is_frozen(f)) {
		asking_end(o);
		fault_unlock(f);
		return STEP_AGAIN;
	}
	if (!page_is_charged(p)) {
		charged = count = charge_dirty(o, want);
		/* A reservation needs the store's room, not ours. */
		hold_only = count == 0 && f->kind == FAULT_RESERVE;
		if (hold_only)
			count = want;
		if (count == 0) {
			asking_end(o);
			fault_unlock(f);
			return fault_may_not_wait_for_room(f) ? fault_refuse(f, -EDEADLK)
							      : charge_dirty_park(f);
		}
	}
	ask_begin(f, &vr, count, charged);
	vr.hold_only = hold_only;
	f->wake_seq = atomic_load(&o->wake_seq);
	fault_unlock(f);
	if (o->in_place)
		run_grow_to_grain(&vr.run);
	if (o->ops->page_mkwrite == NULL || f->deferred)
		code = 0;
	else
		code = op_page_mkwrite(o, f, &vr);
	return notify_answer(f, &vr, code);
}
