/* SPDX-License-Identifier: MIT */
/*
 * flusher.c - the thread that writes dirty pages in the background, tells writers at the dirty
 * limit when nothing can be written, and keeps time for delayed faults and for those who wait for
 * space.
 *
 * A round writes what is dirty in every object that is not manual, or has no user any more. A
 * writer who was waiting before the round began is denied after it if the round freed nothing,
 * skipped nothing, and no charge or write-back of anybody else is under way that may still free
 * something (contract 11), and the next round likewise. Who waits under an object's own limit is
 * judged by that object alone, whatever others do.
 */
#include "vm.h"

#include <errno.h>

#define MS 1000000u

/* What a round has met. */
struct round {
	bool wanted;  /* writers wait for room under the space's limit */
	bool busy;    /* something was left because somebody else is at it */
	bool waiting; /* writers wait for another round: something was busy, or in vain so far */
};

/* Manual objects only give up what they have not used, where writers wait for room. */
static void round_object(struct object *o, struct round *round)
{
	struct space *s = o->space;
	bool busy = false, wanted;

	env_lock(&s->charge_lock);
	wanted = account_pass_begin(&o->account) || round->wanted;
	env_unlock(&s->charge_lock);
	if (!object_is_manual(o))
		busy = writeback_range(o, 0, OBJECT_PAGES_MAX - 1, MKW_WB_BACKGROUND).busy;
	else if (wanted)
		busy = writeback_ungrant(o, 0, OBJECT_PAGES_MAX - 1).busy;
	env_lock(&s->charge_lock);
	round->waiting |= account_pass_end(&o->account, busy);
	env_unlock(&s->charge_lock);
	round->busy |= busy;
}

static void round_run(struct space *s, struct round *round)
{
	struct object *o;
	uint64_t id = 0;

	while ((o = space_object_after(s, id)) != NULL) {
		id = o->id;
		round_object(o, round);
		object_unpin(o);
	}
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

static void torn_tell(struct space *s)
{
	uintptr_t address;

	env_lock(&s->charge_lock);
	address = s->torn_at;
	s->torn_at = 0;
	env_unlock(&s->charge_lock);
	if (address != 0)
		space_log(
			s, MKW_LOG_WARNING,
			"a part of the view at %p is mapped no more, or something else is mapped "
			"there: change views by mkw_unmap, mkw_remap and mkw_remap_pages, never by "
			"munmap, mremap or mmap",
			(void *)address);
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

	atomic_store(&s->flusher_tid, env_tid());
	env_lock(&s->charge_lock);
	while (!s->stopping) {
		struct round round = {0};
		uint64_t next_ns, now_ns;

		flusher_sleep(s, retry_ns);
		if (s->stopping)
			break;
		if (s->in_place) { /* no lock may be held at the gate */
			env_unlock(&s->charge_lock);
			in_place_enter();
			env_lock(&s->charge_lock);
		}
		round.wanted = account_pass_begin(&s->account);
		env_unlock(&s->charge_lock);

		torn_tell(s);
		now_ns = env_now_ns();
		next_ns = fault_tick(s, now_ns);
		round_run(s, &round);
		if (now_ns >= round_ns) {
			space_waiters_wake(s);
			round_ns = now_ns + (uint64_t)s->interval_ms * MS;
		}

		env_lock(&s->charge_lock);
		round.waiting |= account_pass_end(&s->account, round.busy);
		/* Somebody else is about to be done with what this round left, or what failed may
		 * do now. */
		retry_ns = round.waiting ? env_now_ns() + MS : next_ns;
		if (retry_ns == 0 && s->space_waiters)
			retry_ns = round_ns;
		if (s->in_place)
			in_place_leave();
	}
	env_unlock(&s->charge_lock);
}
