/* SPDX-License-Identifier: MIT */
/*
 * pin.c - pins: pages that somebody else reads or writes in place, later, who does not fault: a
 * device, io_uring, another thread inside a system call (contract 2.7, 2.10).
 *
 * A pin is taken by faults like any other, in a loop until the page is right (S0.5): they are the
 * ones that ask the store. The count goes up below the region's lock in the same step that finds
 * the page right, so there is nothing to look at again afterwards.
 *
 *   for reading   the page is resident and mapped, and stays so
 *   for writing   it is DIRTY as well, writable in the view, and stays so: page.c and writeback.c
 *                 say how it is written meanwhile
 *   in a private view   of either kind: the view has a copy of its own (2.7), which is written in
 *                 place from then on, by the process and the device (private.c)
 *
 * A pin is a list of parts, of a region each, which are in the region's list too: a page that is
 * truncated is no more the object's, and the pin's count must not be one of the page that comes to
 * its place. The parts keep region and object; the view may go.
 *
 * Locks: region->lock for counts and parts, space->lock for the list of pins.
 */
#include "vm.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* ---- Counting ----------------------------------------------------------------------------- */

static bool part_pin_page(const struct pin_part *part, size_t slot)
{
	if (part->private != NULL)
		return private_pin(part->region, part->chunk, slot);
	return page_pin(part->region, slot, part->write);
}

static void part_unpin_page(const struct pin_part *part, size_t slot)
{
	if (part->private != NULL)
		private_unpin(part->region, part->chunk, slot);
	else
		page_unpin(part->region, slot, part->write);
}

size_t fault_pin(struct fault *f, size_t slot, size_t count)
{
	struct pin_part *part = f->part;
	size_t n = 0;

	if (part->count == 0)
		part->slot = (uint32_t)slot;
	assert(part->region == f->region && part->slot + part->count == slot);
	if (part->private != NULL)
		part->chunk = private_chunk(f->view, f->region);
	while (n < count && part_pin_page(part, slot + n))
		n++;
	part->count += (uint32_t)n;
	return n;
}

void fault_pin_undo(struct fault *f, size_t count)
{
	struct pin_part *part = f->part;

	while (count-- > 0)
		part_unpin_page(part, part->slot + --part->count);
}

static bool part_has(const struct pin_part *part, size_t slot)
{
	return slot >= part->slot && slot < part->slot + part->count &&
	       (part->gone[slot / 64] >> (slot % 64) & 1) == 0;
}

void pins_detach(struct region *r, const struct private_chunk *chunk, size_t slot)
{
	for (struct list *n = r->pins.next; n != &r->pins; n = n->next) {
		struct pin_part *part = container_of(n, struct pin_part, link);

		if (part->chunk != chunk || !part_has(part, slot))
			continue;
		part_unpin_page(part, slot);
		part->gone[slot / 64] |= 1ull << (slot % 64);
	}
	assert((chunk != NULL ? chunk->pages[slot].pins : r->pages[slot].pins) == 0);
}

/* ---- Asking again ------------------------------------------------------------------------- */

void pins_ask_region(struct region *r, size_t from, size_t to, bool freezes, bool *refused)
{
	for (size_t i = from; i < to; i++) {
		struct fault f;
		bool unasked;

		env_lock(&r->lock);
		unasked = (r->pages[i].flags & PAGE_UNASKED) != 0;
		env_unlock(&r->lock);
		if (!unasked)
			continue;
		f.freezes = freezes;
		refused[i] = fault_call(&f, r->object, NULL, FAULT_ASK, r->first + i, 1) != 0;
		fault_call_end(&f);
	}
}

void pins_ask(struct object *o, uint64_t first, uint64_t last)
{
	struct region *r;

	for (uint64_t next = first;
	     atomic_load(&o->unasked) > 0 && next <= last && (r = region_next(o, next)) != NULL;) {
		bool refused[REGION_PAGES];

		next = r->first + REGION_PAGES;
		if (r->first <= last)
			pins_ask_region(r, r->first > first ? 0 : (size_t)(first - r->first),
					last < next ? (size_t)(last - r->first) + 1 : REGION_PAGES,
					false, refused);
		region_put(r);
	}
}

/* ---- Parts -------------------------------------------------------------------------------- */

/* A part for pages of the view from page on. => the view is referenced. */
static struct pin_part *part_new(struct mkw_pin *pin, const struct view *v, uint64_t page)
{
	struct object *o = v->object;
	struct pin_part *part = calloc(1, sizeof(*part));

	if (part == NULL)
		return NULL;
	part->write = pin->write;
	part->region = region_get(o, page);
	if (part->region == NULL) {
		free(part);
		return NULL;
	}
	part->private = v->private;
	if (part->private != NULL)
		atomic_fetch_add(&part->private->refs, 1);
	atomic_fetch_add(&o->pin_parts, 1);
	env_lock(&part->region->lock);
	list_push_back(&part->region->pins, &part->link);
	env_unlock(&part->region->lock);
	part->next = pin->parts;
	pin->parts = part;
	return part;
}

/* In place: an object that is quiesced takes back what the pin has kept writable. If that fails
 * nothing is lost, and the page stays as it was. No lock held. */
static void part_protect(const struct pin_part *part)
{
	struct region *r = part->region;

	env_read_lock(&r->object->views_lock);
	env_lock(&r->lock);
	for (size_t slot = part->slot; slot < part->slot + part->count; slot++)
		if (part->write && r->pages[slot].write_pins == 0)
			(void)views_protect(r->object, r->first + slot, 1);
	env_unlock(&r->lock);
	env_read_unlock(&r->object->views_lock);
}

static void part_end(struct pin_part *part)
{
	struct region *r = part->region;
	struct object *o = r->object;

	env_lock(&r->lock);
	for (size_t slot = part->slot; slot < part->slot + part->count; slot++)
		if (part_has(part, slot))
			part_unpin_page(part, slot);
	list_remove(&part->link);
	env_unlock(&r->lock);
	if (o->in_place && atomic_load(&o->frozen) != 0)
		part_protect(part);
	charge_unpinned(o);
	if (part->private != NULL)
		private_unref(o->space, part->private);
	region_put(r);
	object_release(o, USER_PIN);
	free(part);
}

/* Of the pages of a region from page on: pin what is left of count. */
static int part_fill(struct pin_part *part, struct view *v, uint64_t page, size_t count)
{
	int error = 0;

	for (size_t done = 0; done < count && error == 0;) {
		struct fault f;
		f.part = part;
		error = fault_call(&f, v->object, v, part->write ? FAULT_PIN_WRITE : FAULT_PIN_READ,
				   page + done, count - done);
		done += f.served;
		fault_call_end(&f);
	}
	return error;
}

/* ---- Pins --------------------------------------------------------------------------------- */

/* Before anybody is asked (S1.4). */
static int pin_check_view(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	struct mkw_pin *pin = arg;

	(void)first;
	(void)count;
	if (pin->write && !v->mmu.writable)
		return mkw_set_error(-EACCES, "the view is not writable");
	if (pin->space != NULL && pin->space != v->object->space)
		return mkw_set_error(-EINVAL, "the range has views of two spaces");
	pin->space = v->object->space;
	return 0;
}

static void pin_shorten(struct mkw_pin *pin, const struct pin_part *to)
{
	struct pin_part *part;

	while ((part = pin->parts) != to) {
		pin->parts = part->next;
		part_end(part);
	}
}

static int pin_view(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	struct mkw_pin *pin = arg;
	const struct pin_part *before = pin->parts;
	uint64_t page = first, end = first + count;
	int error = 0;

	while (page < end && error == 0) {
		size_t room = REGION_PAGES - (page & (REGION_PAGES - 1));
		size_t want = end - page < room ? (size_t)(end - page) : room;
		struct pin_part *part = part_new(pin, v, page);

		error = part == NULL ? mkw_set_error(-ENOMEM, "no memory for a pin")
				     : part_fill(part, v, page, want);
		page += want;
	}
	if (error == VIEW_GONE) /* all of it will be asked for again */
		pin_shorten(pin, before);
	return error;
}

/* Its counts of pins of an object and of the space: once each. => the objects are kept by parts. */
static void pin_count(const struct mkw_pin *pin, uint64_t by)
{
	atomic_fetch_add(&pin->space->counters.pins, by);
	for (const struct pin_part *part = pin->parts; part != NULL; part = part->next) {
		const struct pin_part *other = pin->parts;

		while (other->region->object != part->region->object)
			other = other->next;
		if (other == part)
			atomic_fetch_add(&part->region->object->counters.pins, by);
	}
}

static void pin_free(struct mkw_pin *pin)
{
	pin_shorten(pin, NULL);
	free(pin);
}

/* All of it or nothing. */
static int pin_take(struct mkw_pin *pin, void *pages, size_t length)
{
	struct space *s;
	int error = views_each(pages, length, pin_check_view, pin);

	if (error == 0)
		error = views_each(pages, length, pin_view, pin);
	if (error != 0)
		return error;
	s = pin->space;
	pin_count(pin, 1);
	env_lock(&s->lock);
	pin->id = ++s->last_pin_id;
	list_push_back(&s->pins, &pin->link);
	env_unlock(&s->lock);
	return 0;
}

static int pin_check(const void *address, size_t length, unsigned access,
		     struct mkw_pin *const *pin)
{
	if (pin == NULL || length == 0 || length > UINTPTR_MAX - (uintptr_t)address)
		return mkw_set_error(-EINVAL, "no place for the pin, or no such range");
	if ((access & ~(MKW_READ | MKW_WRITE)) != 0 || access == 0)
		return mkw_set_error(-EINVAL, "access is MKW_READ or MKW_WRITE");
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	return 0;
}

int mkw_pin(void *address, size_t length, unsigned access, struct mkw_pin **pin)
{
	const size_t in_page = (uintptr_t)address & (MKW_PAGE_SIZE - 1);
	struct error_record failed;
	struct env_shield shield;
	struct mkw_pin *p;
	int error;

	error_clear();
	error = pin_check(address, length, access, pin);
	if (error != 0)
		return error;
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return mkw_set_error(-ENOMEM, "no memory for a pin");
	list_init(&p->link);
	p->address = (uintptr_t)address;
	p->length = length;
	p->write = (access & MKW_WRITE) != 0;
#ifdef MKW_DEBUG
	p->caller = __builtin_return_address(0);
#endif
	env_shield(&shield);
	error = pin_take(p, (char *)address - in_page, length + in_page);
	if (error == 0) {
		*pin = p;
	} else {
		error_keep(&failed, error);
		pin_free(p);
		mkw_set_error(error, "%s", failed.sentence);
	}
	env_unshield(&shield);
	return error;
}

/* In the list to the last: the space does not end before its objects are let go. */
static void pin_end(struct mkw_pin *pin)
{
	pin_count(pin, -(uint64_t)1);
	pin_shorten(pin, NULL);
	env_lock(&pin->space->lock);
	list_remove(&pin->link);
	env_unlock(&pin->space->lock);
	free(pin);
}

int mkw_unpin(struct mkw_pin *pin)
{
	struct env_shield shield;

	error_clear();
	if (pin == NULL)
		return mkw_set_error(-EINVAL, "no pin");
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	if (process_check(pin->space) != 0)
		return -ECHILD;
	env_shield(&shield);
	pin_end(pin);
	env_unshield(&shield);
	return 0;
}

/* ---- Those that are left ------------------------------------------------------------------ */

/* What is told of the next pin after id; its address 0: there is none. */
static struct mkw_pin pin_after(struct space *s, uint64_t id)
{
	struct mkw_pin found = {.address = 0};

	env_lock(&s->lock);
	for (struct list *n = s->pins.next; n != &s->pins && found.address == 0; n = n->next)
		if (container_of(n, struct mkw_pin, link)->id > id)
			found = *container_of(n, struct mkw_pin, link);
	env_unlock(&s->lock);
	return found;
}

unsigned pins_report(struct space *s)
{
	struct mkw_pin pin = {.id = 0};
	unsigned count = 0;
	char name[160];

	/* The list ascends. */
	while ((pin = pin_after(s, pin.id)).address != 0) {
		count++;
		if (pin.caller != NULL)
			env_code_name(pin.caller, name, sizeof(name));
		space_log(s, MKW_LOG_WARNING, "a pin is left: %zu bytes at %p for %s%s%s",
			  pin.length, (void *)pin.address, pin.write ? "writing" : "reading",
			  pin.caller != NULL ? ", taken at " : "", pin.caller != NULL ? name : "");
	}
	return count;
}

void pins_end(struct space *s)
{
	while (!list_empty(&s->pins))
		pin_end(container_of(s->pins.next, struct mkw_pin, link));
}
