/* SPDX-License-Identifier: MIT */
/*
 * order.c - in which order a store takes its own locks and the page lock (contract S2.4, 4.2, 4.4).
 *
 * A store that was compiled with MKW_CHECK_LOCKS tells of its locks, and says where it locks a run.
 * What a thread holds is kept in the frame of the operation that it is inside of, or, outside of
 * all, with the thread. A lock is compared with those of the same operation and with those that the
 * thread brought along; not with those of an operation on another object, whose page lock is
 * another one. The ranks are the store's word, so each thread can be judged by itself: the two
 * sides of a deadlock need not meet.
 *
 * Others pay nothing for it: mkw_run_lock without a place looks at nothing here.
 */
#include "vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static _Thread_local struct order outside;

static const struct mkw_lock_class page_class = {.name = "page"};

static struct order *order_here(void)
{
	struct order *order = op_order();

	return order != NULL ? order : &outside;
}

static const char *place(const char *where)
{
	const char *slash = where != NULL ? strrchr(where, '/') : NULL;

	return slash != NULL ? slash + 1 : where != NULL ? where : "?";
}

/* "journal lock (rank -1) taken at a.c:10" */
static void describe(char text[128], const struct order_held *held)
{
	snprintf(text, 128, "%.40s lock (rank %d) taken at %.50s",
		 held->lock_class->name != NULL ? held->lock_class->name : "?",
		 held->lock_class->rank, place(held->where));
}

static void order_log(const struct order *order, const char *sentence)
{
	const struct object *o = order->object;

	if (o != NULL)
		space_log(o->space, MKW_LOG_ERROR, "store %.30s: %s",
			  o->ops->name != NULL ? o->ops->name : "?", sentence);
}

/* May next be taken while held is? */
static bool order_allows(const struct order_held *held, const struct order_held *next)
{
	if (held->lock_class->rank != next->lock_class->rank)
		return held->lock_class->rank < next->lock_class->rank;
	return held->lock_class == next->lock_class && held->lock != next->lock &&
	       (next->lock_class->flags & MKW_LOCK_NESTS) != 0;
}

/* next is about to be taken inside what order says. */
static int order_check(const struct order *order, const struct order *held_in,
		       const struct order_held *next)
{
	char now[128], before[128];

	for (unsigned i = 0; i < held_in->count; i++) {
		if (order_allows(&held_in->held[i], next))
			continue;
		describe(now, next);
		describe(before, &held_in->held[i]);
		mkw_set_error(-EDEADLK, "%s after %s", now, before);
		order_log(order, error_sentence());
		return -EDEADLK;
	}
	return 0;
}

/* The page locks that the thread holds, as a lock of rank 0. */
static int order_check_pages(const struct order *order, const struct order_held *next)
{
	struct order pages = {.count = 1, .held[0] = {&page_class, NULL, order->pages_at}};

	if (order->run != NULL && order->run->locked)
		pages.held[0].where = order->run->locked_at;
	else if (order->pages_at == NULL)
		return 0;
	return order_check(order, &pages, next);
}

static int order_check_all(const struct order *order, const struct order_held *next)
{
	int error = order_check(order, order, next);

	if (error == 0 && order != &outside)
		error = order_check(order, &outside, next);
	return error;
}

int order_take_pages(const char *where)
{
	const struct order_held next = {&page_class, NULL, where};

	return order_check_all(order_here(), &next);
}

void order_end(const struct order *order)
{
	char sentence[192], left[128];

	for (unsigned i = 0; i < order->count; i++) {
		describe(left, &order->held[i]);
		snprintf(sentence, sizeof(sentence), "%s is still held at the end of %s", left,
			 order->operation);
		order_log(order, sentence);
	}
}

int mkw_lock_take_at(const struct mkw_lock_class *lock_class, const void *lock, const char *where)
{
	const struct order_held next = {lock_class, lock, where};
	struct order *order = order_here();
	int error;

	if (lock_class == NULL || lock_class->rank == 0)
		return mkw_set_error(-EINVAL,
				     "a class of locks needs a rank; 0 is the page lock's");
	error = order_check_all(order, &next);
	if (error == 0)
		error = order_check_pages(order, &next);
	if (error == 0 && order->count < ORDER_HELD_MAX)
		order->held[order->count++] = next;
	return error;
}

static bool order_forget(struct order *order, const void *lock)
{
	for (unsigned i = order->count; i-- > 0;) {
		if (order->held[i].lock != lock)
			continue;
		for (; i + 1 < order->count; i++)
			order->held[i] = order->held[i + 1];
		order->count--;
		return true;
	}
	return false;
}

void mkw_lock_forget(const void *lock)
{
	if (!order_forget(order_here(), lock))
		order_forget(&outside, lock);
}
