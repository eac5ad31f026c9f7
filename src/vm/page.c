/* SPDX-License-Identifier: MIT */
/*
 * page.c - the states of a page and the only table of their transitions (contract 1.2, 1.3, 11).
 *
 *   ABSENT     no frame. PAGE_LOCKED: one is being filled.
 *   CLEAN      the frame has what the store has. No view has it RW.
 *   GRANTED    its run was notified, views may have it RW; not known to have been written. Charged.
 *   DIRTY      written, or about to be. Charged. RW in a view, or not (a failed write-back).
 *   WRITEBACK  the store is writing it. No view has it RW (I4). Charged.
 *
 *                  FILL              GRANT               WRITE
 *        ABSENT ---------> CLEAN ------------> GRANTED ---------> DIRTY
 *           ^               | ^  <------------   |  |              |  ^
 *           |     DETACH    | |    UNWRITTEN     |  |     START    |  | FAIL
 *           +---------------+ +------ END ---- WRITEBACK <---------+--+
 *
 * RW in a view implies GRANTED or DIRTY, set under the region's mutex before the MMU is told (I1,
 * I2). Cleaning (START, UNWRITTEN) happens under PAGE_LOCKED after every view was protected (I3).
 * DETACH is taken only with every path back into a view closed (I5).
 *
 * A page that is pinned stays resident until it is detached. One that is pinned for writing is
 * DIRTY and nothing else: a device may write to it at any time, past every protection, and no event
 * tells of it, so that it cannot be known to be clean. What a sync hands to the store is a copy
 * (enum page_copy), which is stable (I4); the page is as dirty afterwards as it was before. What
 * the store had reserved for it was used up by that write, so it is asked again (PAGE_UNASKED).
 * With its last such pin it is an ordinary DIRTY page, which write-back takes once more.
 *
 * A page of a private view has a state of its own beside that of the object's page:
 *
 *   NONE       the view shows the object's page, read-only; a write is reported.
 *   GRANTED    the machine may copy it whenever it is written. Charged, copied or not.
 *   COPY       the view has a page of its own, which no other view shows: written in place (I6).
 *   SWAPPED    that page's bytes are in the swap file.
 *
 *              GRANT             OWN            OUT
 *      NONE ----------> GRANTED -----> COPY ----------> SWAPPED
 *       ^ <-- UNUSED ------+            ^ <---- IN ---------+
 *       +-------------------- DROP -----+-------------------+
 *
 * Whether a write copies follows from the state alone, never from a lock that happened to be free
 * (S3.1): a COPY is not copied again, and what is not a COPY may always be (S3.2). A pinned page is
 * a COPY (2.7), and stays one until it is dropped.
 */
#include "vm.h"

#include <assert.h>

#define NO PAGE_STATES

static const uint8_t next_state[PAGE_STATES][PAGE_EVENTS] = {
	/*                   FILL        GRANT         WRITE       START           END
	 *                   FAIL        UNWRITTEN     DETACH */
	[PAGE_ABSENT] = {PAGE_CLEAN, NO, NO, NO, NO, NO, NO, PAGE_ABSENT},
	[PAGE_CLEAN] = {NO, PAGE_GRANTED, PAGE_DIRTY, NO, NO, NO, NO, PAGE_ABSENT},
	[PAGE_GRANTED] = {NO, PAGE_GRANTED, PAGE_DIRTY, PAGE_WRITEBACK, NO, NO, PAGE_CLEAN,
			  PAGE_ABSENT},
	[PAGE_DIRTY] = {NO, PAGE_DIRTY, PAGE_DIRTY, PAGE_WRITEBACK, NO, NO, NO, PAGE_ABSENT},
	[PAGE_WRITEBACK] = {NO, NO, NO, NO, PAGE_CLEAN, PAGE_DIRTY, NO, NO},
};

/* Flags that do not survive an event. */
static const uint8_t cleared_flags[PAGE_EVENTS] = {
	[PAGE_FILL] = PAGE_TOWRITE | PAGE_CONFIRMED | PAGE_HOLE | PAGE_ASK_AGAIN,
	[PAGE_GRANT] = PAGE_CONFIRMED | PAGE_ASK_AGAIN,
	[PAGE_WRITE] = PAGE_CONFIRMED | PAGE_ASK_AGAIN,
	[PAGE_START] = PAGE_CONFIRMED, /* TOWRITE stays: another sync may wait for this page */
	[PAGE_END] = PAGE_TOWRITE | PAGE_HOLE | PAGE_ASK_AGAIN | PAGE_UNASKED,
	[PAGE_UNWRITTEN] = PAGE_TOWRITE | PAGE_CONFIRMED,
	[PAGE_DETACH] = PAGE_TOWRITE | PAGE_CONFIRMED | PAGE_HOLE | PAGE_ASK_AGAIN | PAGE_UNASKED,
};

void page_change(struct region *r, size_t slot, enum page_event event)
{
	struct page *p = &r->pages[slot];
	uint8_t to = next_state[p->state][event];

	assert(to != NO);
	assert(p->write_pins == 0 || to == PAGE_DIRTY || event == PAGE_DETACH);
	assert(p->copy == COPY_NONE || to == PAGE_DIRTY);
	r->resident += (uint32_t)(to != PAGE_ABSENT) - (uint32_t)(p->state != PAGE_ABSENT);
	r->charged += (uint32_t)(to >= PAGE_GRANTED) - (uint32_t)(p->state >= PAGE_GRANTED);
	p->state = to;
	if ((cleared_flags[event] & PAGE_UNASKED) != 0)
		page_asked(r, slot);
	p->flags &= (uint8_t)~cleared_flags[event];
	if ((event == PAGE_GRANT || event == PAGE_WRITE) &&
	    r->first + slot >= atomic_load(&r->object->grown_from))
		atomic_fetch_add(&r->object->growth, 1);
	if (event == PAGE_FAIL)
		p->flags |= PAGE_ASK_AGAIN;
	if (event == PAGE_END || event == PAGE_DETACH)
		p->error = 0;
	if (event == PAGE_DETACH && p->ask != 0) {
		/* The notification under way finds that it was for nothing (4.1, S4.2). */
		p->ask = 0;
		r->asked--;
	}
	if (event == PAGE_DETACH && p->pins > 0)
		pins_detach(r, NULL, slot);
}

/* ---- Pins --------------------------------------------------------------------------------- */

bool page_pin(struct region *r, size_t slot, bool write)
{
	struct page *p = &r->pages[slot];

	assert(write ? p->state == PAGE_DIRTY : p->state != PAGE_ABSENT);
	if (p->pins == UINT16_MAX)
		return false;
	if (p->pins++ == 0)
		COUNT(r->object, pages_pinned, 1);
	if (write && p->write_pins++ == 0)
		r->write_pinned++;
	return true;
}

void page_unpin(struct region *r, size_t slot, bool write)
{
	struct page *p = &r->pages[slot];

	assert(p->pins > 0 && (!write || p->write_pins > 0));
	if (--p->pins == 0)
		COUNT(r->object, pages_pinned, -(uint64_t)1);
	if (write && --p->write_pins == 0)
		r->write_pinned--;
}

void page_copy_begin(struct region *r, size_t slot)
{
	struct page *p = &r->pages[slot];

	assert(p->state == PAGE_DIRTY && p->copy == COPY_NONE);
	p->copy = COPY_UNDERWAY;
}

/* A sync that tagged the page before the copy was taken has got what it wanted, whoever wrote it;
 * one that came later has not. */
void page_copy_end(struct region *r, size_t slot, bool written)
{
	struct page *p = &r->pages[slot];

	assert(p->state == PAGE_DIRTY && p->copy != COPY_NONE);
	if (p->copy == COPY_UNDERWAY)
		p->flags &= (uint8_t)~PAGE_TOWRITE;
	p->copy = COPY_NONE;
	if (!written)
		return;
	p->flags &= (uint8_t)~PAGE_HOLE;
	if ((p->flags & PAGE_UNASKED) == 0)
		atomic_fetch_add(&r->object->unasked, 1);
	p->flags |= PAGE_UNASKED;
}

void page_copy_cancel(struct region *r, size_t slot)
{
	struct page *p = &r->pages[slot];

	assert(p->state == PAGE_DIRTY && p->copy != COPY_NONE);
	p->copy = COPY_NONE;
}

void page_asked(struct region *r, size_t slot)
{
	struct page *p = &r->pages[slot];

	if ((p->flags & PAGE_UNASKED) == 0)
		return;
	p->flags &= (uint8_t)~PAGE_UNASKED;
	atomic_fetch_sub(&r->object->unasked, 1);
}

#define NOT PRIVATE_STATES

static const uint8_t next_private[PRIVATE_STATES][PRIVATE_EVENTS] = {
	/*                     GRANT           OWN           UNUSED
	 *                     OUT             IN            DROP */
	[PRIVATE_NONE] = {PRIVATE_GRANTED, PRIVATE_COPY, NOT, NOT, NOT, NOT},
	[PRIVATE_GRANTED] = {PRIVATE_GRANTED, PRIVATE_COPY, PRIVATE_NONE, NOT, NOT, PRIVATE_NONE},
	[PRIVATE_COPY] = {PRIVATE_COPY, PRIVATE_COPY, NOT, PRIVATE_SWAPPED, NOT, PRIVATE_NONE},
	[PRIVATE_SWAPPED] = {NOT, NOT, NOT, NOT, PRIVATE_COPY, PRIVATE_NONE},
};

static bool private_is_charged(uint8_t state)
{
	return state == PRIVATE_GRANTED || state == PRIVATE_COPY;
}

void private_inherit(struct region *r, const struct private_chunk *from, struct private_chunk *to,
		     size_t slot)
{
	uint8_t state = from->pages[slot].state;

	assert(to->pages[slot].state == PRIVATE_NONE);
	to->pages[slot] = from->pages[slot];
	to->pages[slot].flags = 0;
	to->pages[slot].pins = 0;
	to->charged += private_is_charged(state);
	to->swapped += state == PRIVATE_SWAPPED;
	r->private += state != PRIVATE_NONE;
}

void private_change(struct region *r, struct private_chunk *c, size_t slot,
		    enum private_event event)
{
	struct private_page *p = &c->pages[slot];
	uint8_t to = next_private[p->state][event];
	int charged = private_is_charged(to) - private_is_charged(p->state);
	int swapped = (to == PRIVATE_SWAPPED) - (p->state == PRIVATE_SWAPPED);

	assert(to != NOT);
	assert(p->pins == 0 || to == PRIVATE_COPY || event == PRIVATE_DROP);
	c->charged += (uint32_t)charged;
	c->swapped += (uint32_t)swapped;
	if (charged != 0 && !c->childs)
		COUNT(r->object, pages_private, (uint64_t)charged);
	if (swapped != 0 && !c->childs)
		COUNT(r->object, pages_swapped, (uint64_t)swapped);
	r->private += (uint32_t)(to != PRIVATE_NONE) - (uint32_t)(p->state != PRIVATE_NONE);
	p->state = to;
	if (event == PRIVATE_DROP && p->pins > 0)
		pins_detach(r, c, slot);
}

bool private_pin(struct region *r, struct private_chunk *c, size_t slot)
{
	struct private_page *p = &c->pages[slot];

	assert(p->state == PRIVATE_COPY);
	if (p->pins == UINT16_MAX)
		return false;
	if (p->pins++ == 0) {
		c->pinned++;
		COUNT(r->object, pages_pinned, 1);
	}
	return true;
}

void private_unpin(struct region *r, struct private_chunk *c, size_t slot)
{
	struct private_page *p = &c->pages[slot];

	assert(p->pins > 0);
	if (--p->pins == 0) {
		c->pinned--;
		COUNT(r->object, pages_pinned, -(uint64_t)1);
	}
}
