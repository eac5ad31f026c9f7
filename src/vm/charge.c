/* SPDX-License-Identifier: MIT */
/*
 * charge.c - the accounts: resident and dirty pages of a space and of each object, their limits,
 * and who waits for room. All below charge_lock.
 *
 * The dirty limit is hard (contract 11): pages are charged before they are granted, and the charge
 * goes back when they are in the store, or turn out unwritten, or are truncated. A charge is "in
 * flight" from charge_dirty to charge_settle: while any is, room may still come of it.
 */
#include "vm.h"

#include <errno.h>

/* One failure may be that of a moment. */
#define PASSES_BEFORE_DENIAL 2u

static uint64_t account_room(uint64_t used, uint64_t limit)
{
	if (limit == 0)
		return UINT64_MAX;
	return used < limit ? limit - used : 0;
}

static uint64_t min2(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* More than half of a limit is dirty: write-back begins before anybody must wait for it. */
static bool dirty_high(const struct account *a)
{
	return a->dirty_limit != 0 && a->dirty > a->dirty_limit / 2;
}

static bool resident_high(const struct account *a)
{
	return a->resident_limit != 0 && a->resident > a->resident_limit - a->resident_limit / 16;
}

static void account_dirty(struct account *a, uint64_t pages)
{
	a->dirty += pages;
	if (a->dirty > a->dirty_peak)
		a->dirty_peak = a->dirty;
}

static void account_resident(struct account *a, uint64_t pages)
{
	a->resident += pages;
	if (a->resident > a->resident_peak)
		a->resident_peak = a->resident;
}

/* => charge_lock held. */
static void flusher_kick_locked(struct space *s)
{
	if (s->flusher_kicked)
		return;
	s->flusher_kicked = true;
	env_signal(&s->flusher_cond);
}

static void reclaimer_kick_locked(struct space *s)
{
	if (s->reclaimer_kicked)
		return;
	s->reclaimer_kicked = true;
	env_signal(&s->reclaimer_cond);
}

void flusher_kick(struct space *s)
{
	env_lock(&s->charge_lock);
	flusher_kick_locked(s);
	env_unlock(&s->charge_lock);
}

void flusher_kick_for_space(struct space *s)
{
	env_lock(&s->charge_lock);
	s->space_waiters = true;
	flusher_kick_locked(s);
	env_unlock(&s->charge_lock);
}

void flusher_kick_for_torn(struct space *s, uintptr_t address)
{
	env_lock(&s->charge_lock);
	s->torn_at = address;
	flusher_kick_locked(s);
	env_unlock(&s->charge_lock);
}

void reclaimer_kick(struct space *s)
{
	env_lock(&s->charge_lock);
	reclaimer_kick_locked(s);
	env_unlock(&s->charge_lock);
}

/* ---- Dirty -------------------------------------------------------------------------------- */

/* => charge_lock held. */
static uint64_t dirty_room(const struct object *o)
{
	const struct account *all = &o->space->account, *own = &o->account;

	return min2(account_room(all->dirty, all->dirty_limit),
		    account_room(own->dirty, own->dirty_limit));
}

/* => charge_lock held. */
static uint64_t resident_room(const struct object *o)
{
	const struct account *all = &o->space->account, *own = &o->account;

	return min2(account_room(all->resident, all->resident_limit),
		    account_room(own->resident, own->resident_limit));
}

bool account_pass_begin(struct account *a)
{
	if (a->changed)
		a->fruitless_passes = 0;
	a->changed = false;
	return !list_empty(&a->dirty_waiters);
}

bool account_pass_end(struct account *a, bool busy)
{
	/* Whoever has been given room since is in no list; who came anew has said so. */
	if (busy || a->changed || a->in_flight > 0 || a->writeback_pages > 0 ||
	    list_empty(&a->dirty_waiters)) {
		a->fruitless_passes = 0;
	} else if (++a->fruitless_passes == PASSES_BEFORE_DENIAL) {
		a->fruitless_passes = 0;
		waiters_deny(&a->dirty_waiters, -ENOBUFS);
	}
	return !list_empty(&a->dirty_waiters) && (busy || a->fruitless_passes > 0);
}

/* => charge_lock held. The account whose limit leaves no room: the object's own, or all. */
static struct account *dirty_full(struct object *o)
{
	if (account_room(o->account.dirty, o->account.dirty_limit) == 0)
		return &o->account;
	return &o->space->account;
}

/* => charge_lock held. Something that writers wait for has ended, and may have left pages that the
 * flusher can write. */
static void dirty_changed(struct object *o)
{
	struct space *s = o->space;

	o->account.changed = s->account.changed = true;
	if (!list_empty(&o->account.dirty_waiters) || !list_empty(&s->account.dirty_waiters))
		flusher_kick_locked(s);
}

void charge_unpinned(struct object *o)
{
	struct space *s = o->space;

	env_lock(&s->charge_lock);
	dirty_changed(o);
	if (!list_empty(&s->resident_waiters))
		reclaimer_kick_locked(s);
	env_unlock(&s->charge_lock);
}

/* => charge_lock held. */
static size_t dirty_take(struct object *o, size_t want)
{
	struct space *s = o->space;
	uint64_t n = min2(want, dirty_room(o));

	if (s->account.dirty == 0 && n > 0)
		env_signal(&s->flusher_cond); /* its clock starts */
	account_dirty(&s->account, n);
	account_dirty(&o->account, n);
	s->account.in_flight += n;
	o->account.in_flight += n;
	if (n > 0 && (dirty_high(&s->account) || dirty_high(&o->account)))
		flusher_kick_locked(s);
	return n;
}

enum step charge_dirty_park(struct fault *f)
{
	struct object *o = f->object;
	struct space *s = o->space;
	enum step step = STEP_AGAIN;

	env_lock(&s->charge_lock);
	if (dirty_room(o) == 0 && fault_before_park(f)) {
		struct account *full = dirty_full(o);
		list_push_back(&full->dirty_waiters, &fault_waiter(f)->link);
		full->changed = true;
		flusher_kick_locked(s);
		step = STEP_PARKED;
	}
	env_unlock(&s->charge_lock);
	return step;
}

size_t charge_dirty(struct object *o, size_t want)
{
	size_t n;

	env_lock(&o->space->charge_lock);
	n = dirty_take(o, want);
	env_unlock(&o->space->charge_lock);
	return n;
}

/* => charge_lock held. */
static void dirty_give_back(struct object *o, uint64_t pages)
{
	struct space *s = o->space;

	if (pages == 0)
		return;
	s->account.dirty -= pages;
	o->account.dirty -= pages;
	/* Not those who wait for another object's own pages to go. */
	waiters_wake(&o->account.dirty_waiters);
	waiters_wake(&s->account.dirty_waiters);
}

void charge_settle(struct object *o, size_t charged, size_t kept)
{
	struct space *s = o->space;

	env_lock(&s->charge_lock);
	s->account.in_flight -= charged;
	o->account.in_flight -= charged;
	dirty_give_back(o, charged - kept);
	/* Whoever waits was waiting for this to settle; now it is the flusher's to write it. */
	dirty_changed(o);
	env_unlock(&s->charge_lock);
}

void uncharge_dirty(struct object *o, size_t pages)
{
	env_lock(&o->space->charge_lock);
	dirty_give_back(o, pages);
	env_unlock(&o->space->charge_lock);
}

void charge_writeback(struct object *o, int64_t pages, enum mkw_wb_reason reason)
{
	struct space *s = o->space;

	env_lock(&s->charge_lock);
	s->account.writeback_pages += (uint64_t)pages;
	o->account.writeback_pages += (uint64_t)pages;
	/* The flusher may have put off its judgement of who waits until this ended. */
	if (pages < 0 && reason != MKW_WB_BACKGROUND)
		dirty_changed(o);
	env_unlock(&s->charge_lock);
}

/* ---- Resident ----------------------------------------------------------------------------- */

/* => charge_lock held. While the last slot of the swap file is taken, one page's room is kept for
 * who brings a slot back. */
static uint64_t resident_room_for(const struct object *o, bool grows, bool pair)
{
	uint64_t room = resident_room(o);
	uint64_t kept = (uint64_t)pair + (uint64_t)(grows && swap_is_tight(&o->space->swap));

	return room > kept ? room - kept : 0;
}

static size_t resident_take(struct object *o, size_t want, bool grows, bool pair)
{
	struct space *s = o->space;
	size_t n;

	env_lock(&s->charge_lock);
	n = min2(want, resident_room_for(o, grows, pair));
	account_resident(&s->account, n);
	account_resident(&o->account, n);
	if (n == 0 || resident_high(&s->account) || resident_high(&o->account))
		reclaimer_kick_locked(s);
	env_unlock(&s->charge_lock);
	return n;
}

size_t charge_resident(struct object *o, size_t want)
{
	return resident_take(o, want, false, false);
}

size_t charge_private(struct object *o, size_t want)
{
	return resident_take(o, want, true, false);
}

bool charge_private_of_pair(struct object *o)
{
	return resident_take(o, 1, true, true) == 1;
}

enum step charge_resident_park(struct fault *f)
{
	struct object *o = f->object;
	struct space *s = o->space;
	const struct waiter *w = fault_waiter(f);
	enum step step = STEP_AGAIN;

	env_lock(&s->charge_lock);
	if (resident_room_for(o, w->grows, w->pair) == 0 && fault_before_park(f)) {
		list_push_back(&s->resident_waiters, &fault_waiter(f)->link);
		reclaimer_kick_locked(s);
		step = STEP_PARKED;
	}
	env_unlock(&s->charge_lock);
	return step;
}

void charge_wake(struct space *s)
{
	env_lock(&s->charge_lock);
	waiters_wake(&s->resident_waiters);
	env_unlock(&s->charge_lock);
}

enum step reclaim_park(struct fault *f)
{
	struct space *s = f->object->space;
	enum step step = STEP_AGAIN;

	env_lock(&s->charge_lock);
	if (fault_before_park(f)) {
		list_push_back(&s->memory_waiters, &fault_waiter(f)->link);
		reclaimer_kick_locked(s);
		step = STEP_PARKED;
	}
	env_unlock(&s->charge_lock);
	return step;
}

void uncharge_resident(struct object *o, size_t pages)
{
	struct space *s = o->space;

	if (pages == 0)
		return;
	env_lock(&s->charge_lock);
	s->account.resident -= pages;
	o->account.resident -= pages;
	waiters_wake(&s->resident_waiters);
	env_unlock(&s->charge_lock);
}
