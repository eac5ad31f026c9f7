/* SPDX-License-Identifier: MIT */
/*
 * sync.c - mkw_sync, and freezing: no page gets dirty and nothing changes the store until the thaw
 * (contract 4.5).
 *
 *   frozen counts up          what comes later waits, or is refused
 *   asking, range ops drain   what was under way ends
 *   still                     the store is written by nobody but
 *   sync                      which writes what is dirty
 *
 * What is pinned for writing may change all the same: the store has it as the sync found it, and
 * what comes later is written after the thaw.
 */
#include "vm.h"

#include <errno.h>

int mkw_sync(struct mkw_handle *h, uint64_t offset, uint64_t length)
{
	struct error_record earlier;
	struct env_shield shield;
	uint64_t first, last;
	int error;

	error_clear();
	error = handle_check(h);
	if (error != 0)
		return error;
	error = object_range(h->object, offset, length, &first, &last);
	if (error < 0)
		return error;
	if (error > 0) { /* no page, but what cut them off may not be durable */
		first = object_pages(h->object);
		last = OBJECT_PAGES_MAX - 1;
	}
	env_shield(&shield);
	error = writeback_sync(h->object, first, last);
	if (handle_take_error(h, &earlier) != 0 &&
	    (error == 0 || error == -EAGAIN || error == -EBUSY))
		error = error_say("write-back failed", &earlier);
	env_unshield(&shield);
	return error;
}

static void freeze_drain(struct object *o)
{
	struct sleeper sleeper;

	sleeper_init(&sleeper);
	env_lock(&o->lock);
	while (atomic_load(&o->asking) > 0 || !list_empty(&o->range_ops)) {
		list_push_back(&o->waiters, &sleeper.waiter.link);
		env_unlock(&o->lock);
		sleeper_sleep(&sleeper);
		env_lock(&o->lock);
	}
	env_unlock(&o->lock);
	sleeper_destroy(&sleeper);
}

/* False: another freeze has made the object still. */
static bool freeze_is_first(struct object *o)
{
	struct sleeper sleeper;
	bool first;

	sleeper_init(&sleeper);
	env_lock(&o->lock);
	while (o->freezing) {
		list_push_back(&o->waiters, &sleeper.waiter.link);
		env_unlock(&o->lock);
		sleeper_sleep(&sleeper);
		env_lock(&o->lock);
	}
	first = !atomic_load(&o->still);
	if (first) {
		o->freezing = true;
		atomic_store(&o->still, true);
	}
	env_unlock(&o->lock);
	sleeper_destroy(&sleeper);
	return first;
}

int object_freeze(struct object *o)
{
	bool first;
	int error;

	env_lock(&o->lock);
	atomic_fetch_add(&o->frozen, 1);
	env_unlock(&o->lock);
	/* A notification under way ends without dirtying or is found by the sync; a pwrite that is
	 * copying has its pages locked (4.5). */
	freeze_drain(o);
	first = freeze_is_first(o);
	error = writeback_freeze(o, first);
	if (!first)
		return error;
	env_lock(&o->lock);
	o->freezing = false;
	if (error != 0)
		atomic_store(&o->still, false);
	waiters_wake(&o->waiters);
	env_unlock(&o->lock);
	return error;
}

void object_thaw(struct object *o)
{
	env_lock(&o->lock);
	if (atomic_fetch_sub(&o->frozen, 1) == 1)
		atomic_store(&o->still, false);
	waiters_wake(&o->waiters);
	env_unlock(&o->lock);
	pins_ask(o, 0, OBJECT_PAGES_MAX - 1);
}

/* => region->lock held. What is charged is asked for again at its next write; a device writes to
 * what is pinned, and nobody can stop it: the store is asked when it goes on. */
static void region_ask_again(struct region *r)
{
	for (size_t i = 0; i < REGION_PAGES && r->charged > 0; i++) {
		struct page *p = &r->pages[i];

		if (p->state != PAGE_GRANTED && p->state != PAGE_DIRTY)
			continue;
		page_change(r, i, PAGE_WRITE);
		if (p->write_pins == 0)
			p->flags |= PAGE_ASK_AGAIN;
		else if ((p->flags & PAGE_UNASKED) == 0) {
			p->flags |= PAGE_UNASKED;
			atomic_fetch_add(&r->object->unasked, 1);
		}
	}
}

/* Protect all views but for what is pinned for writing; also what nobody was asked for, where a
 * view was opened whole. => frozen, and nobody is granting: pins only go. */
static int object_protect(struct object *o)
{
	uint64_t from = 0, next = 0;
	struct region *r;
	int error = 0;

	env_read_lock(&o->views_lock);
	while (error == 0 && atomic_load(&o->pin_parts) > 0 && (r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		env_lock(&r->lock);
		for (size_t i = 0; i < REGION_PAGES && r->write_pinned > 0 && error == 0; i++) {
			if (r->pages[i].write_pins == 0)
				continue;
			if (r->first + i > from)
				error = views_protect(o, from, r->first + i - from);
			from = r->first + i + 1;
		}
		env_unlock(&r->lock);
		region_put(r);
	}
	if (error == 0)
		error = views_protect(o, from, OBJECT_PAGES_MAX - from);
	env_read_unlock(&o->views_lock);
	return error;
}

int object_quiesce(struct object *o)
{
	struct region *r;
	uint64_t next = 0;
	int error;

	env_lock(&o->lock);
	atomic_fetch_add(&o->frozen, 1);
	env_unlock(&o->lock);
	freeze_drain(o);
	/* Under its lock: who looked before this froze has mapped what it was to map. */
	while ((r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		env_lock(&r->lock);
		region_ask_again(r);
		env_unlock(&r->lock);
		region_put(r);
	}
	env_read_lock(&o->views_lock);
	for (struct list *n = o->views.next; n != &o->views; n = n->next)
		atomic_store(&container_of(n, struct view, link)->mmu.let_go, false);
	env_read_unlock(&o->views_lock);
	error = object_protect(o);
	if (error != 0)
		object_resume(o);
	return error == 0 ? 0 : mkw_set_error(error, "cannot protect a view: errno %d", -error);
}

void object_resume(struct object *o)
{
	object_thaw(o);
}

int mkw_freeze(struct mkw_handle *h)
{
	struct env_shield shield;
	struct object *o;
	int error;

	error_clear();
	error = handle_check_write(h);
	if (error == 0 && h->object->in_place)
		error = mkw_set_error(-EINVAL, "an object in place is quiesced: mkw_quiesce");
	if (error != 0)
		return error;
	o = h->object;
	env_shield(&shield);
	env_lock(&o->lock);
	h->freezes++;
	env_unlock(&o->lock);
	error = object_freeze(o);
	if (error != 0) {
		struct error_record failed;
		error_keep(&failed, error);
		handle_take_error(h, NULL);
		mkw_thaw(h);
		error_say("cannot freeze", &failed);
	}
	env_unshield(&shield);
	return error;
}

int mkw_thaw(struct mkw_handle *h)
{
	struct env_shield shield;
	struct object *o;
	int error = 0;

	error = handle_check(h);
	if (error != 0)
		return error;
	o = h->object;
	env_shield(&shield);
	env_lock(&o->lock);
	if (h->freezes == 0)
		error = mkw_set_error(-EINVAL, "this handle has not frozen the object");
	else
		h->freezes--;
	env_unlock(&o->lock);
	if (error == 0)
		object_thaw(o);
	env_unshield(&shield);
	return error;
}
