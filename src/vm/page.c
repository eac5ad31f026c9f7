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
 * (S3.1): a COPY is not copied again, and what is not a COPY may always be (S3.2).
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
	[PAGE_END] = PAGE_TOWRITE | PAGE_HOLE | PAGE_ASK_AGAIN,
	[PAGE_UNWRITTEN] = PAGE_TOWRITE | PAGE_CONFIRMED,
	[PAGE_DETACH] = PAGE_TOWRITE | PAGE_CONFIRMED | PAGE_HOLE | PAGE_ASK_AGAIN,
};

void page_change(struct region *r, size_t slot, enum page_event event)
{
	struct page *p = &r->pages[slot];
	uint8_t to = next_state[p->state][event];

	assert(to != NO);
	r->resident += (uint32_t)(to != PAGE_ABSENT) - (uint32_t)(p->state != PAGE_ABSENT);
	r->charged += (uint32_t)(to >= PAGE_GRANTED) - (uint32_t)(p->state >= PAGE_GRANTED);
	p->state = to;
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

void private_change(struct region *r, struct private_chunk *c, size_t slot,
		    enum private_event event)
{
	struct private_page *p = &c->pages[slot];
	uint8_t to = next_private[p->state][event];

	assert(to != NOT);
	c->charged += (uint32_t)private_is_charged(to) - (uint32_t)private_is_charged(p->state);
	c->swapped += (uint32_t)(to == PRIVATE_SWAPPED) - (uint32_t)(p->state == PRIVATE_SWAPPED);
	r->private += (uint32_t)(to != PRIVATE_NONE) - (uint32_t)(p->state != PRIVATE_NONE);
	p->state = to;
}
