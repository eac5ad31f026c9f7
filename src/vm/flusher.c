/* SPDX-License-Identifier: MIT */
/*
 * flusher.c - the thread that writes dirty pages in the background, tells writers at the dirty
 * limit when nothing can be written, and keeps time for delayed faults and for those who wait for
 * space.
 *
 * A round writes what is dirty in every object that is not manual. A writer who was waiting before
 * the round began is denied after it if the round freed nothing, skipped nothing, and no charge or
 * write-back of anybody else is under way that may still free something (contract 11), and the next
 * round likewise: one failure may be that of a moment.
 */
#include "vm.h"

#include <errno.h>

#define MS		     1000000u
#define ROUNDS_BEFORE_DENIAL 2u

/* True: something was left because somebody else is at it. wanted: writers wait for room, so that
 * manual objects give up what they have not used. */
static bool round_run(struct space *s, bool wanted)
{
	struct object *o;
	uint64_t id = 0;
	bool busy = false;

	while ((o = space_object_after(s, id)) != NULL) {
		id = o->id;
		if (!o->manual)
			busy |= writeback_range(o, 0, OBJECT_PAGES_MAX - 1, MKW_WB_BACKGROUND).busy;
		else if (wanted)
			busy |= writeback_ungrant(o, 0, OBJECT_PAGES_MAX - 1).busy;
		object_unpin(o);
	}
	return busy;
}

static void space_waiters_wake(struct space *s)
{
	struct object *o;
	uint64_t id = 0;

	env_lock(&s->charge_lock);
	s->space_waiters = false; /* who is refused again says so again */
	env_unlock(&s->charge_lock);
	while ((o = space_object_after(s, id)) != NULL) {
		id = o->id;
		mkw_object_wake(&o->public);
		object_unpin(o);
	}
}

/* => charge_lock held. fruitless: rounds in a row that nobody got anything of. */
static void round_judge(struct space *s, uint64_t freed_seq, bool busy, unsigned *fruitless)
{
	if (list_empty(&s->dirty_waiters) || busy || s->freed_seq != freed_seq ||
	    s->dirty_in_flight > 0 || s->writeback_pages > 0) {
		*fruitless = 0;
		return;
	}
	if (s->flusher_kicked) /* by who came to wait meanwhile: another round for all of them */
		return;
	if (++*fruitless < ROUNDS_BEFORE_DENIAL) {
		s->flusher_kicked = true;
		return;
	}
	*fruitless = 0;
	waiters_deny(&s->dirty_waiters, -ENOBUFS);
}

/* => charge_lock held. Sleep until kicked or until. */
static void flusher_sleep(struct space *s, uint64_t until_ns)
{
	while (!s->flusher_kicked && !s->stopping) {
		/* Nothing is dirty: no clock. The first charge signals. */
		if (until_ns == 0 && s->account.dirty > 0)
			until_ns = env_now_ns() + (uint64_t)s->interval_ms * MS;
		if (until_ns == 0)
			env_wait(&s->flusher_cond, &s->charge_lock);
		else if (!env_wait_until(&s->flusher_cond, &s->charge_lock, until_ns))
			break;
	}
	s->flusher_kicked = false;
}

void flusher_main(void *space)
{
	struct space *s = space;
	uint64_t retry_ns = 0, round_ns = 0;
	unsigned fruitless = 0;

	env_lock(&s->charge_lock);
	while (!s->stopping) {
		uint64_t next_ns, freed_seq, now_ns;
		bool busy = false, wanted;

		flusher_sleep(s, retry_ns);
		if (s->stopping)
			break;
		freed_seq = s->freed_seq;
		wanted = !list_empty(&s->dirty_waiters);
		env_unlock(&s->charge_lock);

		now_ns = env_now_ns();
		next_ns = fault_tick(s, now_ns);
		busy = round_run(s, wanted);
		if (now_ns >= round_ns) {
			space_waiters_wake(s);
			round_ns = now_ns + (uint64_t)s->interval_ms * MS;
		}

		env_lock(&s->charge_lock);
		round_judge(s, freed_seq, busy, &fruitless);
		/* Somebody else is about to be done with what this round left. */
		retry_ns = busy && !list_empty(&s->dirty_waiters) ? env_now_ns() + MS : next_ns;
		if (retry_ns == 0 && s->space_waiters)
			retry_ns = round_ns;
	}
	env_unlock(&s->charge_lock);
}
