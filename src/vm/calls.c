/* SPDX-License-Identifier: MIT */
/*
 * calls.c - I/O straight into a view: a read(2) with O_DIRECT faults its pages in, keeps hold of
 * their frames, and the device stores into them later, past every protection. Such a page is not
 * cleaned before the system call that faulted it in is over: its bytes would not be in the store,
 * and nothing would tell that it is dirty again.
 *
 * A page remembers the thread that faulted it in. What that thread's call may be storing to is
 * looked up after the page was protected: a call made later has to fault again. A call whose pages
 * were writable before it began is not known, nor is one that io_uring runs: pins (pin.c) are for
 * these.
 * A call that copies is none of these: it faults again, and need not be waited for. It could not
 * be, either: the room or the thaw that it waits for may only come when its first pages are
 * written.
 */
#include "vm.h"

#include <string.h>

#define EXTENTS_MAX 16
#define THREADS_MAX 8 /* remembered in one batch; others are looked up for each page */

struct call {
	pid_t tid;
	size_t count;
	struct mmu_extent extents[EXTENTS_MAX];
};

struct calls {
	size_t count;
	struct call call[THREADS_MAX];
};

static const struct call *call_of(struct calls *calls, pid_t tid)
{
	struct call *call;

	for (size_t i = 0; i < calls->count; i++)
		if (calls->call[i].tid == tid)
			return &calls->call[i];
	call = &calls->call[calls->count < THREADS_MAX ? calls->count++ : THREADS_MAX - 1];
	call->tid = tid;
	call->count = mmu_thread_stores(tid, call->extents, EXTENTS_MAX);
	return call;
}

/* The page at address. */
static bool call_stores_to(const struct call *call, uintptr_t address)
{
	for (size_t i = 0; i < call->count; i++)
		if (address + MKW_PAGE_SIZE > call->extents[i].address &&
		    address < call->extents[i].address + call->extents[i].length)
			return true;
	return false;
}

/* => views_lock held. */
static bool views_cover(const struct call *call, struct object *o, uint64_t page)
{
	for (struct list *n = o->views.next; n != &o->views; n = n->next) {
		const struct view *v = container_of(n, struct view, link);
		uintptr_t address;

		if (page < v->first || page >= v->first + v->count)
			continue;
		address = view_address(v, page);
		if (call_stores_to(call, address))
			return true;
	}
	return false;
}

static bool call_covers(const struct call *call, struct object *o, uint64_t page)
{
	bool covers;

	if (call->count == 0)
		return false;
	env_read_lock(&o->views_lock);
	covers = views_cover(call, o, page);
	env_read_unlock(&o->views_lock);
	return covers;
}

/* What a thread's call is about is read from its memory, which may lie in a view and fault: so no
 * lock is held there. */
size_t calls_hold(struct region *r, const uint16_t *slots, size_t count, bool *held)
{
	struct calls calls = {.count = 0};
	const pid_t self = env_tid();
	size_t n = 0;

	memset(held, false, count * sizeof(*held));
	if (r->object->in_place) /* a call gets EFAULT there, and is never served */
		return 0;
	for (size_t i = 0; i < count; i++) {
		pid_t writer = r->pages[slots[i]].writer;

		if (writer == 0 || writer == self)
			continue;
		held[i] = call_covers(call_of(&calls, writer), r->object, r->first + slots[i]);
		n += held[i];
	}
	return n;
}

size_t calls_quiet(uintptr_t address, const struct private_page *pages, size_t count)
{
	struct calls calls = {.count = 0};
	const pid_t self = env_tid();

	for (size_t i = 0; i < count; i++)
		if (pages[i].writer != 0 && pages[i].writer != self &&
		    call_stores_to(call_of(&calls, pages[i].writer), address + i * MKW_PAGE_SIZE))
			return i;
	return count;
}
