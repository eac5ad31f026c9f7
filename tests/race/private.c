/* SPDX-License-Identifier: MIT */
/*
 * private.c - private views: the model of what each shows, and what must hold of them in every
 * state (I6).
 *
 * A view shows what the object's model says of a page until it has a page of its own. At that
 * moment, of which the machine tells, the page's words are what was copied; from then on they are
 * what was written through this view alone. It gives the page up where the library says
 * PRIVATE_NONE and the machine has no copy: that is seen after the next point, and allowed only
 * while a call drops the page, or past the end of the object.
 */
#include "env_sim.h"
#include "race.h"
#include "threads.h"

#include <mmu/sim.h>
#include <string.h>

static struct model models[VIEWS];

static const char *const states[] = {"NONE", "GRANTED", "COPY", "SWAPPED"};

/* ---- What the library says ---------------------------------------------------------------- */

static struct region *region_of(const struct race_view *rv)
{
	struct space *s = space_of(world.space);

	for (struct list *n = s->regions.next; n != &s->regions; n = n->next) {
		struct region *r = container_of(n, struct region, link);

		if (r->object == world.objects[rv->object])
			return r; /* the scenarios' objects have one */
	}
	return NULL;
}

static const struct view *view_of(const struct race_view *rv)
{
	const struct object *o = world.objects[rv->object];

	for (struct list *n = o->views.next; n != &o->views; n = n->next) {
		const struct view *v = container_of(n, struct view, link);

		if (v->private != NULL && v->mmu.address == rv->address)
			return v;
	}
	return NULL;
}

/* NULL: all pages are PRIVATE_NONE. */
static const struct private_chunk *chunk_of(const struct race_view *rv)
{
	const struct region *r = region_of(rv);
	const struct view *v = view_of(rv);

	return r != NULL && v != NULL ? private_chunk(v, r) : NULL;
}

static bool is_private(const struct race_view *rv)
{
	return rv->mapped && rv->serial != 0;
}

static uintptr_t page_address(const struct race_view *rv, unsigned page)
{
	return rv->address + (uintptr_t)page * MKW_PAGE_SIZE;
}

/* ---- The model ---------------------------------------------------------------------------- */

static struct model *model_of(const struct race_view *rv)
{
	return &models[rv - world.views];
}

bool private_at(uintptr_t address, struct race_view **v)
{
	uint64_t serial = sim_serial_of(address);

	*v = NULL;
	for (unsigned i = PRIVATE_VIEW; i < VIEWS && serial != 0; i++)
		if (world.views[i].serial == serial)
			*v = &world.views[i];
	return serial != 0;
}

static void page_made(struct race_view *rv, unsigned page, const char *bytes)
{
	for (unsigned k = 0; k < 2; k++) {
		uint64_t value;

		memcpy(&value, bytes + k * TAIL, sizeof(value));
		model_init(model_of(rv), 2 * page + k, value);
	}
	rv->own[page] = true;
	rv->made[page]++;
}

void private_mapped(struct race_view *rv)
{
	rv->serial = sim_serial_of(rv->address);
	/* Who tried an address of the view before it may have been quick. */
	for (unsigned page = 0; page < world.pages; page++) {
		struct sim_private p = sim_private_of(page_address(rv, page));

		if (p.copy != NULL)
			page_made(rv, page, p.copy);
	}
}

void private_commit(struct race_view *rv, unsigned word, uint64_t value)
{
	if (rv == NULL)
		return;
	private_observe();
	if (!rv->own[word / 2])
		threads_fail("a write to a private view went to no page of its own");
	model_commit(model_of(rv), word, value, false);
}

void private_read(struct race_view *rv, unsigned word, uint64_t value)
{
	if (rv == NULL)
		return;
	private_observe();
	model_read(rv->own[word / 2] ? model_of(rv) : &world.models[rv->object], word, value);
}

/* The machine reads the object's page as any program would. */
void sim_host_taken(uintptr_t address, const void *bytes)
{
	struct race_view *rv;
	unsigned page;

	private_at(address, &rv);
	if (rv == NULL)
		return;
	page = (unsigned)sim_page_of(address);
	for (unsigned k = 0; k < 2; k++) {
		uint64_t value;

		memcpy(&value, (const char *)bytes + k * TAIL, sizeof(value));
		model_read(&world.models[rv->object], 2 * page + k, value);
	}
}

void sim_host_copied(uintptr_t address, const void *bytes, bool by_machine)
{
	struct race_view *rv;
	unsigned page;

	private_at(address, &rv);
	if (rv == NULL)
		return;
	private_observe();
	page = (unsigned)sim_page_of(address);
	threads_note("page %u is the view's own", page);
	/* What was cut off while the view is moved nobody has seen go. */
	rv->own[page] &= rv->mapped || !world.cuts;
	if (rv->own[page] && by_machine)
		threads_fail("page %u is the view's own, and was copied once more (I6)", page);
	for (unsigned k = 0; k < 2 && rv->own[page]; k++) {
		uint64_t value;

		memcpy(&value, (const char *)bytes + k * TAIL, sizeof(value));
		model_read(model_of(rv), 2 * page + k, value);
	}
	if (!rv->own[page])
		page_made(rv, page, bytes);
}

bool private_may_go(const struct race_view *rv, unsigned page)
{
	const struct object *o = world.objects[rv->object];

	return rv->dropping[page] > 0 ||
	       (uint64_t)page * MKW_PAGE_SIZE >=
		       atomic_load_explicit(&o->size_bytes, memory_order_relaxed);
}

static void view_observe(struct race_view *rv)
{
	const struct private_chunk *c = chunk_of(rv);

	for (unsigned page = 0; page < world.pages; page++) {
		if (!rv->own[page] || (c != NULL && c->pages[page].state != PRIVATE_NONE) ||
		    (c != NULL && (c->pages[page].flags & PRIVATE_BUSY) != 0) ||
		    sim_private_of(page_address(rv, page)).copy != NULL)
			continue;
		if (!private_may_go(rv, page))
			threads_fail("page %u of a private view was lost", page);
		rv->own[page] = false;
	}
}

void private_observe(void)
{
	for (unsigned i = PRIVATE_VIEW; i < VIEWS; i++)
		if (is_private(&world.views[i]))
			view_observe(&world.views[i]);
}

/* ---- In every state ----------------------------------------------------------------------- */

static void check_bytes(const struct race_view *rv, unsigned page, const char *bytes)
{
	if (bytes == NULL)
		threads_fail("page %u of a private view is SWAPPED, and not in the swap file",
			     page);
	for (unsigned k = 0; k < 2; k++) {
		uint64_t value;

		memcpy(&value, bytes + k * TAIL, sizeof(value));
		if (!model_may(model_of(rv), 2 * page + k, value))
			threads_fail("word %u of a private view is %llu, which was not written",
				     2 * page + k, (unsigned long long)value);
	}
}

static void check_page(const struct race_view *rv, const struct region *r, unsigned page,
		       const struct private_page *p, bool quiet)
{
	struct sim_private in = sim_private_of(page_address(rv, page));
	enum private_state state = p != NULL ? (enum private_state)p->state : PRIVATE_NONE;
	bool busy = p != NULL && (p->flags & PRIVATE_BUSY) != 0;
	bool writable = state == PRIVATE_GRANTED || state == PRIVATE_COPY || busy;

	if (in.entry == SIM_RW && !writable)
		threads_fail("page %u of a private view is %s and can be written", page,
			     states[state]);
	if (in.let && state != PRIVATE_GRANTED)
		threads_fail("page %u of a private view is %s and can be copied", page,
			     states[state]);
	if (in.copy != NULL && rv->own[page])
		check_bytes(rv, page, in.copy);
	if (!quiet || busy)
		return;
	if (in.copy != NULL && !writable)
		threads_fail("page %u of a private view is %s and has been copied (I6)", page,
			     states[state]);
	if (state == PRIVATE_SWAPPED)
		check_bytes(rv, page, sim_swap_bytes(p->slot));
	if (in.copy == NULL && state == PRIVATE_COPY && !script_has(world.scenario, "toss"))
		threads_fail("page %u of a private view is a COPY, and there is none (I6)", page);
	if (in.copy == NULL && in.entry >= SIM_RO && r->pages[page].state == PAGE_ABSENT)
		threads_fail("page %u is detached and a private view has it (I5)", page);
}

static bool in_range_op(struct object *o, uint64_t page)
{
	for (struct list *n = o->range_ops.next; n != &o->range_ops; n = n->next) {
		const struct range_op *op = container_of(n, struct range_op, link);

		if (page >= op->first && page <= op->last)
			return true;
	}
	return false;
}

static void check_end(struct object *o, unsigned page, enum private_state state)
{
	if (state != PRIVATE_NONE && page >= object_pages(o) && !in_range_op(o, page))
		threads_fail("page %u is past the end, and of a private view it is %s (5.1)", page,
			     states[state]);
}

static void check_chunk(const struct private_chunk *c, uint32_t *used, uint32_t *busy)
{
	uint32_t charged = 0, swapped = 0;

	for (unsigned page = 0; page < world.pages; page++) {
		const struct private_page *p = &c->pages[page];

		charged += p->state == PRIVATE_GRANTED || p->state == PRIVATE_COPY;
		swapped += p->state == PRIVATE_SWAPPED;
		*used += p->state != PRIVATE_NONE;
		*busy += (p->flags & PRIVATE_BUSY) != 0;
	}
	if (c->charged != charged || c->swapped != swapped)
		threads_fail("the counts of a private view are wrong: charged %u of %u, swapped "
			     "%u of %u",
			     c->charged, charged, c->swapped, swapped);
}

uint64_t private_check(struct region *r, bool quiet)
{
	uint64_t charged = 0;
	uint32_t used = 0, busy = 0;

	for (unsigned i = PRIVATE_VIEW; i < VIEWS; i++) {
		const struct race_view *rv = &world.views[i];
		const struct private_chunk *c;

		if (!is_private(rv) || world.objects[rv->object] != r->object)
			continue;
		c = chunk_of(rv);
		for (unsigned page = 0; page < world.pages; page++) {
			const struct private_page *p = c != NULL ? &c->pages[page] : NULL;

			check_page(rv, r, page, p, quiet);
			if (quiet && p != NULL)
				check_end(r->object, page, (enum private_state)p->state);
		}
		if (c == NULL)
			continue;
		charged += c->charged;
		if (quiet)
			check_chunk(c, &used, &busy);
	}
	/* A view that is being unmapped has left the list before its pages are counted off. */
	if (quiet && (world.unmaps ? used > r->private : used != r->private))
		threads_fail("a region counts %u private pages in use, there are %u", r->private,
			     used);
	if (quiet && (world.unmaps ? busy > r->busy : busy != r->busy))
		threads_fail("a region counts %u busy private pages, there are %u", r->busy, busy);
	return charged;
}
