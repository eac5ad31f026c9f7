/* SPDX-License-Identifier: MIT */
/*
 * remaps.c - hooks of the calls that move mappings, make them longer or shorter, or show another
 * part of their file.
 *
 * The kernel moves what is one mapping to it. Of what is one to the program we may have made many:
 * they are given one protection, that of a view in which nothing is granted, before the call.
 */
#include "next.h"

#include "maps.h"
#include "ranges.h"

#include <errno.h>
#include <stdarg.h>

struct remap {
	void *from, *to; /* to: with MREMAP_FIXED or MREMAP_DONTUNMAP */
	size_t length, new_length;
	int flags;
};

static void *remap_plainly(const struct remap *r)
{
	if ((r->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0)
		return NEXT(mremap)(r->from, r->length, r->new_length, r->flags, r->to);
	return NEXT(mremap)(r->from, r->length, r->new_length, r->flags);
}

static void unite_map(struct map *m, void *arg)
{
	(void)arg;
	maps_set_protection(m, PROT_WRITE);
}

/* Is [start, end) one mapping, as far as the program knows? */
static bool is_one(uintptr_t start, uintptr_t end, struct map *first)
{
	struct map next;

	if (!ranges_next(start, end, first) || first->start != start)
		return false;
	for (uintptr_t at = first->end; at < end; at = next.end)
		if (!ranges_next(at, end, &next) || next.start != at || next.file != first->file ||
		    next.protection != first->protection ||
		    next.offset != first->offset + (at - start))
			return false;
	return true;
}

/* The list afterwards. */
static void note(const struct remap *r, uintptr_t to, const struct map *first)
{
	uintptr_t from = (uintptr_t)r->from;
	struct map made = *first;

	made.start = to;
	made.end = to + maps_page_up(r->new_length);
	/* length 0: one more mapping of the same; DONTUNMAP: the old one stays. */
	if (r->length > 0 && (r->flags & MREMAP_DONTUNMAP) == 0)
		ranges_clear(from, from + maps_page_up(r->length));
	ranges_set(&made);
}

/* The same of several mappings, which keep their distances. */
static void note_parts(const struct remap *r, uintptr_t to)
{
	uintptr_t from = (uintptr_t)r->from, end = from + maps_page_up(r->length);
	uintptr_t to_end = to + maps_page_up(r->new_length);
	struct map map;

	for (uintptr_t at = from; to != from && ranges_next(at, end, &map); at = map.end) {
		struct map made = map;

		made.start = to + (map.start - from);
		made.end = to + (map.end - from);
		if (made.end > to_end)
			made.end = to_end;
		if (made.start < to_end && ranges_promise(2))
			ranges_set(&made);
	}
	if (to != from && (r->flags & MREMAP_DONTUNMAP) == 0)
		ranges_clear(from, end);
}

static void restore_map(struct map *m, void *arg)
{
	(void)arg;
	maps_set_protection(m, 0);
}

/* Some of it is the kernel's alone, or of another protection: it is for the kernel to say whether
 * that can be moved. So it is given all that the program knows. */
static void *remap_parts(const struct remap *r)
{
	uintptr_t from = (uintptr_t)r->from, end = from + maps_page_up(r->length);
	uintptr_t target = (uintptr_t)r->to, target_end = target + maps_page_up(r->new_length);
	bool fixed = (r->flags & MREMAP_FIXED) != 0;
	void *p;
	int error;

	maps_disown(from, end);
	maps_each(from, end, restore_map, NULL);
	if (fixed)
		maps_disown(target, target_end);
	p = remap_plainly(r);
	error = errno;
	if (p != MAP_FAILED) {
		if (fixed)
			ranges_clear(target, target_end);
		note_parts(r, (uintptr_t)p);
		maps_adopt((uintptr_t)p, (uintptr_t)p + maps_page_up(r->length));
	} else if (fixed) {
		maps_adopt(target, target_end);
	}
	if (p != (void *)from)
		maps_adopt(from, end);
	errno = error;
	return p;
}

/* A view is moved or grows. */
static void *remap_view(const struct remap *r)
{
	uintptr_t from = (uintptr_t)r->from, end = from + maps_page_up(r->length);
	uintptr_t target = (uintptr_t)r->to, target_end = target + maps_page_up(r->new_length);
	bool fixed = (r->flags & MREMAP_FIXED) != 0;
	struct map first;
	void *p;
	int error;

	if (r->length == 0)
		end = from + MKW_PAGE_SIZE;
	if (!is_one(from, end, &first))
		return remap_parts(r);
	maps_disown(from, end);
	maps_each(from, end, unite_map, NULL);
	if (fixed)
		maps_disown(target, target_end);
	p = remap_plainly(r);
	error = errno;
	if (p != MAP_FAILED) {
		note(r, (uintptr_t)p, &first);
		maps_adopt((uintptr_t)p, (uintptr_t)p + maps_page_up(r->new_length));
	}
	if (p == MAP_FAILED || r->length == 0 || (r->flags & MREMAP_DONTUNMAP) != 0)
		maps_adopt(from, end);
	if (p == MAP_FAILED && fixed)
		maps_adopt(target, target_end);
	errno = error;
	return p;
}

/* What is no view is moved onto views, or what there is of them loses its end: [start, end) is
 * theirs no more. */
static void *remap_over(const struct remap *r, uintptr_t start, uintptr_t end)
{
	void *p;
	int error;

	maps_disown(start, end);
	p = remap_plainly(r);
	error = errno;
	if (p != MAP_FAILED)
		ranges_clear(start, end);
	else
		maps_adopt(start, end);
	errno = error;
	return p;
}

/* In place and not longer: the kernel only unmaps. */
static bool shrinks(const struct remap *r)
{
	return (r->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) == 0 &&
	       maps_page_up(r->length) >= maps_page_up(r->new_length) && r->new_length > 0;
}

static void *remap_change(const struct remap *r)
{
	uintptr_t from = (uintptr_t)r->from, target = (uintptr_t)r->to;

	if (!ranges_promise(6)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	if (shrinks(r))
		return remap_over(r, from + maps_page_up(r->new_length),
				  from + maps_page_up(r->length));
	if (ranges_overlap(from, from + (r->length > 0 ? maps_page_up(r->length) : 1)))
		return remap_view(r);
	if ((r->flags & MREMAP_FIXED) != 0)
		return remap_over(r, target, target + maps_page_up(r->new_length));
	return remap_plainly(r);
}

/* What the kernel looks at first: such a call changes nothing. */
static bool is_wrong(const struct remap *r)
{
	const int known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
	uintptr_t from = (uintptr_t)r->from, to = (uintptr_t)r->to;

	return from % MKW_PAGE_SIZE != 0 || (r->flags & ~known) != 0 || r->new_length == 0 ||
	       maps_page_up(r->length) < r->length || from + maps_page_up(r->length) < from ||
	       maps_page_up(r->new_length) < r->new_length ||
	       ((r->flags & MREMAP_FIXED) != 0 &&
		(to % MKW_PAGE_SIZE != 0 || to + maps_page_up(r->new_length) < to));
}

static bool concerns_views(const struct remap *r)
{
	uintptr_t from = (uintptr_t)r->from, to = (uintptr_t)r->to;

	return ranges_overlap(from, from + (r->length > 0 ? maps_page_up(r->length) : 1)) ||
	       ((r->flags & MREMAP_FIXED) != 0 &&
		ranges_overlap(to, to + maps_page_up(r->new_length)));
}

HOOK void *mremap(void *from, size_t length, size_t new_length, int flags, ...)
{
	struct remap r = {from, NULL, length, new_length, flags};
	struct maps_change change;
	va_list ap;
	void *p;

	va_start(ap, flags);
	if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0)
		r.to = va_arg(ap, void *);
	va_end(ap);
	if (preload_control == NULL || is_wrong(&r) || !concerns_views(&r))
		return remap_plainly(&r);
	maps_begin(&change);
	maps_open_pending();
	p = remap_change(&r);
	if (p == MAP_FAILED)
		change.error = errno;
	files_sweep();
	maps_end(&change);
	return p;
}

/* ---- remap_file_pages --------------------------------------------------------------------- */

static int remap_pages(uintptr_t start, uintptr_t end, size_t page, int flags)
{
	struct map first;
	int result, error;

	if (!ranges_promise(2) || !is_one(start, end, &first)) {
		errno = EINVAL; /* it is for what is one mapping */
		return -1;
	}
	maps_disown(start, end);
	maps_each(start, end, unite_map, NULL);
	result = NEXT(remap_file_pages)((void *)start, end - start, 0, page, flags);
	error = errno;
	if (result == 0) {
		first.start = start;
		first.end = end;
		first.offset = (uint64_t)page * MKW_PAGE_SIZE;
		ranges_set(&first);
	}
	maps_adopt(start, end);
	errno = error;
	return result;
}

/* The kernel rounds down, both. */
HOOK int remap_file_pages(void *address, size_t length, int protection, size_t page, int flags)
{
	uintptr_t start = (uintptr_t)address & ~(uintptr_t)(MKW_PAGE_SIZE - 1);
	uintptr_t end = start + (length & ~(size_t)(MKW_PAGE_SIZE - 1));
	struct maps_change change;
	int result;

	if (preload_control == NULL || protection != 0 || end <= start ||
	    !ranges_overlap(start, end))
		return NEXT(remap_file_pages)(address, length, protection, page, flags);
	maps_begin(&change);
	maps_open_pending();
	result = remap_pages(start, end, page, flags);
	maps_end_with(&change, result != 0 ? errno : 0);
	return result;
}
