/* SPDX-License-Identifier: MIT */
/*
 * protects.c - hooks of the calls that change what may be done with a mapping, or say what is to
 * become of it: mprotect, madvise.
 *
 * A range is gone through in order, its mappings and what lies between them. As in the kernel, what
 * comes before a hole or an error has been done.
 */
#include "next.h"

#include "maps.h"
#include "ranges.h"
#include "run/snapshot.h"

#include <errno.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* ---- Going through ------------------------------------------------------------------------ */

struct walk {
	int value; /* protection or advice */
	int error;
	bool hole;    /* the error is, as madvise has it, that some was not mapped: it goes on */
	uintptr_t at; /* up to here it is done */
	int (*plainly)(uintptr_t start, uintptr_t end, int value); /* 0 or errno */
	int (*map)(struct map *map, int value);
};

static void step(struct walk *w, uintptr_t end, int error)
{
	if (error == ENOMEM && w->hole)
		w->error = error;
	else if (error != 0 && (w->error == 0 || w->hole)) {
		w->error = error;
		w->hole = false;
		return;
	}
	w->at = end;
}

static bool stopped(const struct walk *w)
{
	return w->error != 0 && !w->hole;
}

static void walk_between(struct walk *w, uintptr_t end)
{
	if (!stopped(w) && w->at < end)
		step(w, end, w->plainly(w->at, end, w->value));
}

static void walk_map(struct map *m, void *arg)
{
	struct walk *w = arg;

	walk_between(w, m->start);
	if (!stopped(w))
		step(w, m->end, w->map(m, w->value));
}

static void walk(struct walk *w, uintptr_t end)
{
	maps_each(w->at, end, walk_map, w);
	walk_between(w, end);
}

/* ---- mprotect ----------------------------------------------------------------------------- */

static int protect_plainly(uintptr_t start, uintptr_t end, int protection)
{
	return NEXT(mprotect)((void *)start, end - start, protection) == 0 ? 0 : errno;
}

static int protect_map(struct map *m, int protection)
{
	size_t length = m->end - m->start;
	int error;

	/* Code is no business of ours; it is left to the kernel from here on. */
	if ((protection & PROT_EXEC) != 0) {
		error = protect_plainly(m->start, m->end, protection);
		if (error == 0)
			maps_disown(m->start, m->end);
		return error;
	}
	error = -mkw_protect((void *)m->start, length, maps_allowed(protection));
	if (error == 0 && (protection & PROT_WRITE) != 0)
		maps_follow_open(m);
	return error;
}

static int protect_change(uintptr_t start, uintptr_t end, int protection)
{
	struct walk w = {
		.value = protection,
		.at = start,
		.plainly = protect_plainly,
		.map = protect_map,
	};

	if (!ranges_promise(2))
		return ENOMEM;
	walk(&w, end);
	if ((protection & PROT_EXEC) != 0)
		ranges_clear(start, w.at);
	else
		ranges_protect(start, w.at, protection);
	return w.error;
}

/* What the kernel refuses whatever is there, or what changes nothing. */
static bool is_wrong(uintptr_t start, uintptr_t end, int protection)
{
#ifdef PROT_SEM
	const int known = PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM;
#else
	const int known = PROT_READ | PROT_WRITE | PROT_EXEC | 0x8;
#endif

	return start % MKW_PAGE_SIZE != 0 || end <= start || (protection & ~known) != 0;
}

HOOK int mprotect(void *address, size_t length, int protection)
{
	uintptr_t start = (uintptr_t)address, end = start + maps_page_up(length);
	struct maps_change change;
	int error;

	if (preload_control == NULL || is_wrong(start, end, protection) ||
	    !ranges_overlap(start, end))
		return NEXT(mprotect)(address, length, protection);
	maps_begin(&change);
	maps_open_pending();
	error = protect_change(start, end, protection);
	files_sweep();
	maps_end_with(&change, error);
	return error == 0 ? 0 : -1;
}

/* The key is the kernel's business: only the protection is not to be had with it. */
HOOK int pkey_mprotect(void *address, size_t length, int protection, int key)
{
	uintptr_t start = (uintptr_t)address, end = start + maps_page_up(length);

	if (preload_control == NULL || is_wrong(start, end, protection) ||
	    !ranges_overlap(start, end))
		return NEXT(pkey_mprotect)(address, length, protection, key);
	if (key != -1 && NEXT(pkey_mprotect)(address, length, protection & ~PROT_WRITE, key) != 0)
		return -1;
	return mprotect(address, length, protection);
}

/* ---- madvise ------------------------------------------------------------------------------ */

static int advise_plainly(uintptr_t start, uintptr_t end, int advice)
{
	return NEXT(madvise)((void *)start, end - start, advice) == 0 ? 0 : errno;
}

/* Some kernels do it only where the mapping may be written now; then the file is asked. */
static int remove_map(struct map *m, int advice)
{
	const struct run_event event = {
		.kind = RUN_EVENT_PUNCHED,
		.file = m->file->number,
		.offset = m->offset,
		.length = m->end - m->start,
	};
	int error;

	run_snapshot_before_write(preload_control, m->file->number, m->offset, m->end - m->start);
	reserve_forget(&m->file->reserve, m->offset, m->end - m->start);
	error = advise_plainly(m->start, m->end, advice);
	if (error == EACCES && (m->protection & PROT_WRITE) != 0)
		error = fallocate(file_descriptor(m->file),
				  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)m->offset,
				  (off_t)(m->end - m->start)) == 0
				? 0
				: errno;
	run_post(preload_control, &event);
	return error;
}

static int remove_pages(uintptr_t start, uintptr_t end)
{
	struct walk w = {
		.value = MADV_REMOVE,
		.hole = true,
		.at = start,
		.plainly = advise_plainly,
		.map = remove_map,
	};
	struct maps_change change;

	maps_begin(&change);
	walk(&w, end);
	maps_end(&change);
	return w.error;
}

/* A part at a time, as far as a dirty limit lets it. */
static int populate(uintptr_t start, uintptr_t end)
{
	int error = 0;

	while (start < end && error == 0) {
		struct preload_let let;
		size_t may = preload_let_begin(&let, (void *)start, end - start);
		uintptr_t part = may > 0 && may < end - start ? start + maps_page_up(may) : end;

		error = advise_plainly(start, part, MADV_POPULATE_WRITE);
		preload_let_end(&let);
		start = part;
	}
	return error;
}

static int advise_fork(uintptr_t start, uintptr_t end, int advice)
{
	struct maps_change change;
	int error;

	maps_begin(&change);
	if (ranges_promise(2)) {
		ranges_keep_from_children(start, end, advice == MADV_DONTFORK);
		error = advise_plainly(start, end, advice);
	} else {
		error = ENOMEM;
	}
	maps_end(&change);
	return error;
}

HOOK int madvise(void *address, size_t length, int advice)
{
	uintptr_t start = (uintptr_t)address, end = start + maps_page_up(length);
	int saved = errno, error;

	if (preload_control == NULL || start % MKW_PAGE_SIZE != 0 || end <= start ||
	    !ranges_overlap(start, end))
		return NEXT(madvise)(address, length, advice);
	switch (advice) {
	case MADV_REMOVE:
		error = remove_pages(start, end);
		break;
	case MADV_POPULATE_WRITE:
		error = populate(start, end);
		break;
	case MADV_DONTFORK:
	case MADV_DOFORK:
		error = advise_fork(start, end, advice);
		break;
	default:
		return NEXT(madvise)(address, length, advice);
	}
	errno = error != 0 ? error : saved;
	return error != 0 ? -1 : 0;
}
