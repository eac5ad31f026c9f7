/* SPDX-License-Identifier: MIT */
/*
 * dirty_ranges.c - mkw_dirty_ranges: which bytes are dirty, and what failed to be written.
 */
#include "vm.h"

#include <errno.h>

/* Ranges of one region, as a caller's list takes them: nothing of the caller's is touched below a
 * lock, for it may lie in a view. */
struct ranges {
	struct mkw_range *out;
	size_t capacity, count;
	struct mkw_range last; /* not in out yet, if its length is not 0 */
};

static void ranges_flush(struct ranges *list)
{
	if (list->last.length == 0)
		return;
	if (list->count < list->capacity)
		list->out[list->count] = list->last;
	list->count++;
	list->last.length = 0;
}

static void ranges_add(struct ranges *list, uint64_t page, int error)
{
	uint64_t offset = page << PAGE_SHIFT;

	if (list->last.length > 0 && list->last.offset + list->last.length == offset &&
	    list->last.error == error) {
		list->last.length += MKW_PAGE_SIZE;
		return;
	}
	ranges_flush(list);
	list->last = (struct mkw_range){offset, MKW_PAGE_SIZE, error};
}

#define RANGES_CLEAN 1 /* no errno of ours is positive */

/* errors[i]: RANGES_CLEAN, or what is to be said of page i of the region, which is dirty. */
static void region_errors(struct region *r, int *errors)
{
	env_lock(&r->lock);
	for (size_t i = 0; i < REGION_PAGES; i++)
		errors[i] = page_is_charged(&r->pages[i]) ? -(int)r->pages[i].error : RANGES_CLEAN;
	env_unlock(&r->lock);
}

ssize_t mkw_dirty_ranges(struct mkw_handle *h, uint64_t offset, uint64_t length,
			 struct mkw_range *ranges, size_t capacity)
{
	struct ranges list = {.out = ranges, .capacity = capacity};
	int errors[REGION_PAGES], error;
	uint64_t first, last, next;
	bool more = true;

	error_clear();
	if (h == NULL || (ranges == NULL && capacity > 0))
		return mkw_set_error(-EINVAL, "no handle, or no place for ranges");
	if (process_check(h->object->space) != 0)
		return -ECHILD;
	error = object_range(h->object, offset, length, &first, &last);
	if (error != 0)
		return error > 0 ? 0 : error;
	for (next = first; next <= last && more;) {
		struct env_shield shield;
		struct region *r;
		uint64_t start = 0;

		env_shield(&shield);
		r = region_next(h->object, next);
		more = r != NULL;
		if (more) {
			start = r->first;
			region_errors(r, errors);
			region_put(r);
		}
		env_unshield(&shield);
		for (size_t i = 0; more && i < REGION_PAGES; i++)
			if (errors[i] != RANGES_CLEAN && start + i >= first && start + i <= last)
				ranges_add(&list, start + i, errors[i]);
		next = start + REGION_PAGES;
	}
	ranges_flush(&list);
	return (ssize_t)list.count;
}
