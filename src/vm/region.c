/* SPDX-License-Identifier: MIT */
/*
 * region.c - an object's regions: a radix tree of three levels below object->lock. A region with no
 * page, no waiter and no user is freed, so that an object of a terabyte costs what is resident of
 * it.
 */
#include "vm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static size_t radix_slot(uint64_t number, unsigned level)
{
	return (number >> (RADIX_BITS * (RADIX_LEVELS - 1 - level))) & (RADIX_SLOTS - 1);
}

/* => object->lock held. The place of region `number`; missing nodes are made if make. */
static void **radix_find(struct object *o, uint64_t number, bool make)
{
	void **node = o->radix;

	for (unsigned level = 0; level + 1 < RADIX_LEVELS; level++) {
		void **slot = &node[radix_slot(number, level)];
		if (*slot == NULL) {
			if (!make)
				return NULL;
			*slot = env_alloc(RADIX_SLOTS * sizeof(void *));
			if (*slot == NULL)
				return NULL;
		}
		node = *slot;
	}
	return &node[radix_slot(number, RADIX_LEVELS - 1)];
}

static struct region *region_new(struct object *o, uint64_t number)
{
	struct region *r = slab_region(o->space);

	if (r == NULL)
		return NULL;
	env_mutex_init(&r->lock, RANK_REGION);
	list_init(&r->waiters);
	list_init(&r->link);
	list_init(&r->questions);
	list_init(&r->pins);
	r->object = o;
	r->first = number << REGION_SHIFT;
	memset(r->unarmed, 0xff, sizeof(r->unarmed));
	env_lock(&o->space->charge_lock);
	list_push_back(&o->space->regions, &r->link);
	env_unlock(&o->space->charge_lock);
	return r;
}

struct region *region_get(struct object *o, uint64_t page)
{
	uint64_t number = page >> REGION_SHIFT;
	struct region *r = NULL;
	void **slot;

	env_lock(&o->lock);
	slot = radix_find(o, number, true);
	if (slot != NULL) {
		if (*slot == NULL) {
			*slot = region_new(o, number);
			o->region_count += *slot != NULL;
		}
		r = *slot;
		if (r != NULL)
			atomic_fetch_add(&r->refs, 1);
	}
	env_unlock(&o->lock);
	return r;
}

/* => object->lock held. The first region with number >= *number below node, depth first. */
static struct region *radix_next(void **node, unsigned level, uint64_t number, bool bounded)
{
	for (size_t i = bounded ? radix_slot(number, level) : 0; i < RADIX_SLOTS; i++) {
		bool edge = bounded && i == radix_slot(number, level);
		struct region *r;

		if (node[i] == NULL)
			continue;
		r = level + 1 == RADIX_LEVELS ? node[i]
					      : radix_next(node[i], level + 1, number, edge);
		if (r != NULL)
			return r;
	}
	return NULL;
}

struct region *region_next(struct object *o, uint64_t page)
{
	struct region *r = NULL;

	if (page >= OBJECT_PAGES_MAX)
		return NULL;
	env_lock(&o->lock);
	if (o->region_count > 0)
		r = radix_next(o->radix, 0, page >> REGION_SHIFT, true);
	if (r != NULL)
		atomic_fetch_add(&r->refs, 1);
	env_unlock(&o->lock);
	return r;
}

/* => object->lock held, refs 0. Only reclaim's clock can still come by a reference. */
static void region_free(struct object *o, struct region *r)
{
	void **slot = radix_find(o, r->first >> REGION_SHIFT, false);
	bool free_now;

	env_lock(&o->space->charge_lock);
	free_now = atomic_load(&r->refs) == 0;
	if (free_now)
		list_remove(&r->link);
	env_unlock(&o->space->charge_lock);
	if (!free_now)
		return;
	assert(list_empty(&r->waiters) && slot != NULL && *slot == r);
	*slot = NULL;
	o->region_count--;
	env_mutex_destroy(&r->lock);
	slab_region_free(o->space, r);
	if (o->region_count == 0)
		waiters_wake(&o->waiters);
}

/* The next region of reclaim's clock, referenced, or NULL. */
struct region *region_clock(struct space *s)
{
	struct region *r = NULL;
	struct list *node;

	env_lock(&s->charge_lock);
	node = list_pop(&s->regions);
	if (node != NULL) {
		r = container_of(node, struct region, link);
		list_push_back(&s->regions, node);
		atomic_fetch_add(&r->refs, 1);
	}
	env_unlock(&s->charge_lock);
	return r;
}

/* The hand comes by this region next. */
void region_clock_first(struct region *r)
{
	struct space *s = r->object->space;

	env_lock(&s->charge_lock);
	list_remove(&r->link);
	list_push_front(&s->regions, &r->link);
	env_unlock(&s->charge_lock);
}

/* The nodes of an empty tree. */
void region_tree_free(void **node, unsigned level)
{
	if (node == NULL)
		return;
	for (size_t i = 0; level + 1 < RADIX_LEVELS && i < RADIX_SLOTS; i++)
		region_tree_free(node[i], level + 1);
	env_free(node, RADIX_SLOTS * sizeof(void *));
}

void region_put(struct region *r)
{
	struct object *o = r->object;
	bool last;

	/* Not the last reference, or worth keeping: no lock. A region whose counts are not zero
	 * cannot get empty but by somebody who holds a reference. */
	unsigned refs = atomic_load(&r->refs);
	while (refs > 1)
		if (atomic_compare_exchange_weak(&r->refs, &refs, refs - 1))
			return;
	/* Reclaim's clock may come by a reference at any time, and evict. */
	env_lock(&r->lock);
	env_lock(&o->lock);
	last = atomic_fetch_sub(&r->refs, 1) == 1 && r->resident == 0 && r->locked == 0 &&
	       r->held == 0 && r->private == 0;
	env_unlock(&r->lock);
	if (last)
		region_free(o, r);
	env_unlock(&o->lock);
}
