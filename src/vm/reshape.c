/* SPDX-License-Identifier: MIT */
/*
 * reshape.c - changing views that are in use: mkw_unmap, mkw_protect, mkw_remap, mkw_remap_pages
 * (contract 2.9, 7.3, 7.4, 7.5). A view is one stretch of addresses that shows one stretch of pages
 * with one protection. Where that ends in the middle of a view, pieces take its place; pieces of
 * one mapping that continue each other become one view again. No other file knows of this: a fault
 * finds a view by its address and a page by the view, and everything done to all views of an object
 * meets the pieces in its list (7.3).
 *
 *   claim     the views leave the table, and no fault finds them any more     views_claim
 *   retire    faults and calls that are at them end, or come again later      view_drain
 *   prepare   whatever can fail: memory for the pieces, the mapping's protections, a new place.
 *             Undone if something does: then the views come back as they were.
 *   commit    the mapping changes, and under the same lock of the object's list the pieces are in
 *             it in place of the views: whoever protects all views of a page misses none (6.1)
 *   settle    the pieces are in the table, in one step; who faulted meanwhile tries again
 *
 * A clean page is never upgraded behind the store's back: before a piece becomes writable, or is
 * mapped anew, its entries are armed, and the next write to each is reported. One that is charged
 * already is then let go without a question.
 *
 * Locks: from prepare to commit no process forks (forks_hold); in it views_lock (write) around
 * changes of the mapping. None while anybody is waited for.
 */
#include "vm.h"

#include <errno.h>
#include <stdlib.h>

#define RETRY_NS 1000000u

enum change {
	CHANGE_UNMAP,
	CHANGE_PROTECT,
	CHANGE_FORK, /* whether children inherit it */
	CHANGE_PAGES,
	CHANGE_MOVE,
	CHANGE_GROW,
	CHANGE_NOTHING, /* but what continues its neighbour becomes one with it */
};

struct reshape {
	struct claim claim; /* the range that changes; the views it touches, and their neighbours */
	enum change change;
	unsigned protection; /* CHANGE_PROTECT */
	bool dontfork;	     /* CHANGE_FORK */
	uint64_t page;	     /* CHANGE_PAGES: what the range's first page shows then */
	uintptr_t place;     /* CHANGE_MOVE, CHANGE_GROW: where to */
	uint64_t grow;	     /* the same: pages more at the end */
	struct view *made;   /* what takes the views' place; ascending, by next */
	struct view *made_last;
	struct view *moved; /* what is mapped elsewhere; likewise */
	bool committed;
};

/* What of a view lies in the range. */
struct part {
	uintptr_t from;
	size_t length;
	uint64_t first, count; /* pages, as the view shows them */
};

static uintptr_t view_end(const struct view *v)
{
	return v->mmu.address + v->mmu.length;
}

static uint64_t page_at(const struct view *v, uintptr_t address)
{
	return v->first + ((address - v->mmu.address) >> PAGE_SHIFT);
}

/* False: only a neighbour. */
static bool part_of(const struct reshape *r, const struct view *v, struct part *part)
{
	uintptr_t from = v->mmu.address > r->claim.start ? v->mmu.address : r->claim.start;
	uintptr_t to = view_end(v) < r->claim.end ? view_end(v) : r->claim.end;

	if (from >= to)
		return false;
	*part = (struct part){from, to - from, page_at(v, from), (to - from) >> PAGE_SHIFT};
	return true;
}

/* ---- What becomes of a page --------------------------------------------------------------- */

static bool in_range(const struct reshape *r, uintptr_t address)
{
	return address - r->claim.start < r->claim.end - r->claim.start;
}

static uint64_t fate_page(const struct reshape *r, const struct view *v, uintptr_t address)
{
	if (r->change == CHANGE_PAGES && in_range(r, address))
		return r->page + ((address - r->claim.start) >> PAGE_SHIFT);
	return page_at(v, address);
}

static unsigned fate_protection(const struct reshape *r, const struct view *v, uintptr_t address)
{
	return r->change == CHANGE_PROTECT && in_range(r, address) ? r->protection : v->protection;
}

static bool fate_dontfork(const struct reshape *r, const struct view *v, uintptr_t address)
{
	return r->change == CHANGE_FORK && in_range(r, address) ? r->dontfork : v->dontfork;
}

static bool can_be_one(const struct view *a, const struct view *b)
{
	return a->mapping == b->mapping && a->private == b->private && a->locked == b->locked;
}

/* views_claim: will they be one? */
static bool will_join(const struct view *before, const struct view *behind, void *arg)
{
	const struct reshape *r = arg;
	uintptr_t border = behind->mmu.address;

	if ((r->change != CHANGE_PROTECT && r->change != CHANGE_FORK && r->change != CHANGE_PAGES &&
	     r->change != CHANGE_NOTHING) ||
	    view_end(before) != border || !can_be_one(before, behind))
		return false;
	return fate_dontfork(r, before, border - MKW_PAGE_SIZE) ==
		       fate_dontfork(r, behind, border) &&
	       fate_protection(r, before, border - MKW_PAGE_SIZE) ==
		       fate_protection(r, behind, border) &&
	       fate_page(r, before, border - MKW_PAGE_SIZE) + 1 == fate_page(r, behind, border);
}

/* ---- Pieces ------------------------------------------------------------------------------- */

/* Advice is given to addresses: what v was told of pages [first, first+count), which are shift
 * pages further on in the piece. Advice of two that become one is joined where it was one; there
 * is an end to how much of it is remembered. */
static void piece_take_advice(struct view *piece, const struct view *v, uint64_t first,
			      uint64_t count, uint64_t shift)
{
	bool may_join = true;

	for (uint32_t i = 0; i < v->advice_count; i++) {
		struct advice_range a = v->advice[i];
		uint32_t k = 0;

		a.first = (a.first > first ? a.first : first) + shift;
		a.end = (a.end < first + count ? a.end : first + count) + shift;
		if (a.first >= a.end)
			continue;
		while (k < piece->advice_count &&
		       (piece->advice[k].end != a.first || piece->advice[k].advice != a.advice))
			k++;
		if (may_join && k < piece->advice_count)
			piece->advice[k].end = a.end;
		else if (piece->advice_count < ADVICE_RANGES)
			piece->advice[piece->advice_count++] = a;
		may_join = false; /* what is older must not come to count more than what is newer */
	}
}

/* A part of v, at address, which shows what is there from page on. NULL: no memory. */
static struct view *piece_new(const struct view *v, const struct part *part, uintptr_t address,
			      uint64_t page, unsigned protection)
{
	struct view *piece = view_new(v->object, v->mapping, page, part->count);

	if (piece == NULL)
		return NULL;
	atomic_fetch_add(&v->mapping->pieces, 1);
	piece->mmu.address = address;
	piece->mmu.backend = v->mmu.backend;
	piece->locked = v->locked;
	piece->dontfork = v->dontfork;
	view_set_protection(piece, protection);
	if (v->private != NULL) {
		atomic_fetch_add(&v->private->refs, 1);
		view_set_private(piece, v->private);
	}
	for (size_t access = 0; page == part->first && access < 2; access++)
		for (size_t i = 0; i < STREAMS; i++)
			piece->streams[access][i] = v->streams[access][i];
	piece->stream_clock = v->stream_clock;
	piece_take_advice(piece, v, part->first, part->count, page - part->first);
	return piece;
}

static void pieces_free(struct view **list)
{
	struct view *v;

	while ((v = *list) != NULL) {
		*list = v->next;
		/* Never the last: the view is still there. */
		atomic_fetch_sub(&v->mapping->pieces, 1);
		view_free(v);
	}
}

static void view_lengthen(struct view *v, uint64_t pages)
{
	v->count += pages;
	v->mmu.length += pages << PAGE_SHIFT;
}

/* Append the addresses [from, to) of v as they will be; or lengthen the last piece by them. */
static int piece_append(struct reshape *r, const struct view *v, uintptr_t from, uintptr_t to)
{
	struct part part = {from, to - from, page_at(v, from), (to - from) >> PAGE_SHIFT};
	struct view *last = r->made_last, *piece;
	uint64_t page = fate_page(r, v, from);
	unsigned protection = fate_protection(r, v, from);
	bool dontfork = fate_dontfork(r, v, from);

	if (from >= to)
		return 0;
	if (last != NULL && view_end(last) == from && can_be_one(last, v) &&
	    last->protection == protection && last->dontfork == dontfork &&
	    last->first + last->count == page) {
		piece_take_advice(last, v, part.first, part.count, page - part.first);
		view_lengthen(last, part.count);
		if (atomic_load(&v->mmu.opened))
			atomic_store(&last->mmu.opened, true);
		if (atomic_load(&v->mmu.let_go))
			atomic_store(&last->mmu.let_go, true);
		return 0;
	}
	piece = piece_new(v, &part, from, page, protection);
	if (piece == NULL)
		return -ENOMEM;
	piece->dontfork = dontfork;
	atomic_store(&piece->mmu.opened, atomic_load(&v->mmu.opened));
	atomic_store(&piece->mmu.let_go, atomic_load(&v->mmu.let_go));
	if (last != NULL)
		last->next = piece;
	else
		r->made = piece;
	r->made_last = piece;
	return 0;
}

/* What v leaves at its place. */
static int pieces_of_view(struct reshape *r, const struct view *v)
{
	bool leaves = r->change == CHANGE_UNMAP || r->change == CHANGE_MOVE;
	struct part part;
	int error;

	if (!part_of(r, v, &part))
		return piece_append(r, v, v->mmu.address, view_end(v));
	error = piece_append(r, v, v->mmu.address, part.from);
	if (error == 0 && !leaves)
		error = piece_append(r, v, part.from, part.from + part.length);
	if (error == 0)
		error = piece_append(r, v, part.from + part.length, view_end(v));
	return error;
}

static int pieces_make(struct reshape *r)
{
	int error = 0;

	for (struct view *v = r->claim.views; v != NULL && error == 0; v = v->next)
		error = pieces_of_view(r, v);
	return error;
}

/* ---- Elsewhere ---------------------------------------------------------------------------- */

/* What shows so many pages behind the last of the range. */
static struct view *growth_new(const struct reshape *r, const struct view *v, uintptr_t address)
{
	struct part none = {r->claim.end, 0, page_at(v, r->claim.end), 0};
	struct view *piece = piece_new(v, &none, address, none.first, v->protection);

	if (piece == NULL)
		return NULL;
	view_lengthen(piece, r->grow);
	if (v->private != NULL) { /* the states of the view's own pages end where it was mapped to
				   */
		private_put(piece);
		view_set_private(piece, private_new(piece->first, piece->count));
	}
	if (v->private != NULL && piece->private == NULL)
		pieces_free(&piece);
	return piece;
}

static int moved_make(struct reshape *r)
{
	struct view **tail = &r->moved, *last = NULL;
	struct part part;

	for (struct view *v = r->claim.views; v != NULL; v = v->next) {
		last = v;
		if (r->change != CHANGE_MOVE || !part_of(r, v, &part))
			continue;
		*tail = piece_new(v, &part, r->place + (part.from - r->claim.start), part.first,
				  v->protection);
		if (*tail == NULL)
			return -ENOMEM;
		tail = &(*tail)->next;
	}
	if (r->grow == 0)
		return 0;
	*tail = growth_new(r, last,
			   r->change == CHANGE_MOVE ? r->place + (r->claim.end - r->claim.start)
						    : r->claim.end);
	return *tail == NULL ? -ENOMEM : 0;
}

/* Do its pages move with what the view has of its own? */
static bool takes_copies(const struct reshape *r, const struct view *moved)
{
	return moved->private != NULL && moved->private == r->claim.views->private;
}

static void moved_leave(struct view *v)
{
	env_write_lock(&v->object->views_lock);
	mmu_view_unmap(&v->mmu);
	list_remove(&v->link);
	env_write_unlock(&v->object->views_lock);
	private_forget(v, v->first, v->count);
}

/* As for a new view, but at its place; which is given back if it fails. */
static int moved_enter(struct view *v)
{
	struct object *o = v->object;
	int error = mmu_view_map(&v->mmu);

	if (error != 0) {
		mmu_place_give(v->mmu.address, v->mmu.length);
		return error;
	}
	env_write_lock(&o->views_lock);
	list_push_back(&o->views, &v->link);
	error = view_arm(v, v->first, v->count);
	env_write_unlock(&o->views_lock);
	if (error == 0)
		error = mmu_view_open(&v->mmu);
	if (error != 0) {
		moved_leave(v);
		return error;
	}
	env_read_lock(&o->views_lock);
	view_map_cached(v, v->first, v->count);
	env_read_unlock(&o->views_lock);
	return 0;
}

static size_t place_length(const struct reshape *r)
{
	return (r->change == CHANGE_MOVE ? r->claim.end - r->claim.start : 0) +
	       (r->grow << PAGE_SHIFT);
}

/* failed: it and those behind it were not entered; NULL: all were. */
static void moved_undo(struct reshape *r, const struct view *failed)
{
	bool entered = true;

	for (struct view *v = r->moved; v != NULL; v = v->next) {
		entered &= v != failed;
		if (entered && !takes_copies(r, v))
			moved_leave(v);
		else if (v != failed)
			mmu_place_give(v->mmu.address, v->mmu.length);
	}
	pieces_free(&r->moved);
}

static int moved_prepare(struct reshape *r)
{
	struct view *v;
	int error;

	if (r->change == CHANGE_GROW)
		r->place = r->claim.end;
	error = mmu_place_take(&r->place, place_length(r));
	if (error != 0)
		return error;
	error = moved_make(r);
	if (error != 0) {
		mmu_place_give(r->place, place_length(r));
		pieces_free(&r->moved);
		return error;
	}
	for (v = r->moved; v != NULL; v = v->next) {
		error = takes_copies(r, v) ? 0 : moved_enter(v);
		if (error != 0) {
			moved_undo(r, v);
			break;
		}
	}
	return error;
}

/* ---- Protections of the mapping ----------------------------------------------------------- */

/* Of a view that somebody has unmapped a part of, only what is left is ours to change: page by
 * page, as told by who is there to be protected. */
static bool page_is_ours(struct view *v, uintptr_t address)
{
	return !atomic_load(&v->torn) || mmu_protect(&v->mmu, address, MKW_PAGE_SIZE) == 0;
}

static size_t step_of(const struct view *v, const struct part *part)
{
	return atomic_load(&v->torn) ? MKW_PAGE_SIZE : part->length;
}

static int part_protect_once(struct view *v, const struct part *part, unsigned protection)
{
	size_t step = step_of(v, part);
	int error = 0;

	for (size_t at = 0; at < part->length && error == 0; at += step)
		if (page_is_ours(v, part->from + at))
			error = mmu_view_protect(&v->mmu, part->from + at, step, protection != 0,
						 (protection & MKW_WRITE) != 0);
	return error;
}

/* A page that is not there looks like too many mappings. */
static int part_protect(struct view *v, const struct part *part, unsigned protection)
{
	int error = part_protect_once(v, part, protection);

	if (error == 0 || atomic_load(&v->torn))
		return error;
	for (uint64_t i = 0; i < part->count && !atomic_load(&v->torn); i++)
		view_protect_pages(v, part->first + i, 1);
	return atomic_load(&v->torn) ? part_protect_once(v, part, protection) : error;
}

static void part_cut(struct view *v, const struct part *part)
{
	size_t step = step_of(v, part);

	if (v->mmu.backend == MMU_MPROTECT) /* the mapping stays */
		return;
	for (size_t at = 0; at < part->length; at += step)
		if (page_is_ours(v, part->from + at))
			mmu_view_cut(&v->mmu, part->from + at, step);
}

static void part_protect_surely(struct view *v, const struct part *part, unsigned protection)
{
	while (part_protect(v, part, protection) != 0)
		env_nap(RETRY_NS);
}

/* The whole view is armed where the part is, and counted among those that have to be. */
static int part_arm(struct view *v, const struct part *part)
{
	struct object *o = v->object;
	int error;

	if (v->mmu.writable || v->private != NULL)
		return 0;
	env_write_lock(&o->views_lock);
	v->mmu.writable = true;
	error = view_arm(v, part->first, part->count);
	env_write_unlock(&o->views_lock);
	return error;
}

static void part_undo(struct view *v, const struct part *part)
{
	struct object *o = v->object;

	part_protect_surely(v, part, v->protection);
	env_write_lock(&o->views_lock);
	view_set_protection(v, v->protection);
	env_write_unlock(&o->views_lock);
}

/* What leaves its place, or shows something else, is closed first: that splits the kernel's
 * mappings, which may fail, and what comes then needs no more of them. */
static int part_prepare(struct reshape *r, struct view *v, const struct part *part)
{
	unsigned protection = r->change == CHANGE_PROTECT ? r->protection : 0;
	int error = 0;

	/* In place it is forgotten, and stays mapped as it is. */
	if (r->change == CHANGE_UNMAP && v->mmu.backend == MMU_MPROTECT)
		return 0;

	if ((protection & MKW_WRITE) != 0)
		error = part_arm(v, part);
	if (error == 0)
		error = part_protect(v, part, protection);
	/* A view that goes whole splits nothing of ours, and goes though there be no memory. */
	return r->change == CHANGE_UNMAP && part->length == v->mmu.length ? 0 : error;
}

static int parts_prepare(struct reshape *r)
{
	struct view *failed = NULL;
	struct part part;
	int error = 0;

	if (r->change == CHANGE_GROW || r->change == CHANGE_NOTHING || r->change == CHANGE_FORK)
		return 0;
	for (struct view *v = r->claim.views; v != NULL && error == 0; v = v->next) {
		if (part_of(r, v, &part))
			error = part_prepare(r, v, &part);
		failed = v;
	}
	for (struct view *v = r->claim.views; error != 0; v = v->next) {
		if (part_of(r, v, &part))
			part_undo(v, &part);
		if (v == failed)
			break;
	}
	return error;
}

static void parts_undo(struct reshape *r)
{
	struct part part;

	for (struct view *v = r->claim.views; v != NULL; v = v->next)
		if (part_of(r, v, &part))
			part_undo(v, &part);
}

/* ---- Commit ------------------------------------------------------------------------------- */

/* The piece that shows something else at the part's place, in the object's list by now. =>
 * views_lock held for writing. */
static void part_renew(struct reshape *r, struct view *v, const struct part *part)
{
	struct mmu_view renewed = v->mmu;
	struct view *piece = r->made;

	while (part->from - piece->mmu.address >= piece->mmu.length)
		piece = piece->next;
	renewed.address = part->from;
	renewed.length = part->length;
	renewed.offset = page_at(piece, part->from) << PAGE_SHIFT;
	/* The place, its split and its registration were there: this takes nothing that could not
	 * be had a moment later. */
	while (mmu_view_map(&renewed) != 0)
		env_nap(RETRY_NS);
	while (view_arm(piece, page_at(piece, part->from), part->count) != 0)
		env_nap(RETRY_NS);
	while (mmu_view_open(&renewed) != 0)
		env_nap(RETRY_NS);
	view_map_cached(piece, page_at(piece, part->from), part->count);
}

/* => views_lock held for writing. */
static void part_commit(struct reshape *r, struct view *v, const struct part *part)
{
	if (r->change == CHANGE_UNMAP || r->change == CHANGE_MOVE)
		part_cut(v, part);
	else if (r->change == CHANGE_PAGES)
		part_renew(r, v, part);
	/* In place write-back protects by the same means, and may have done so since, by what the
	 * view allowed before. */
	else if (r->change == CHANGE_PROTECT && v->mmu.backend == MMU_MPROTECT)
		part_protect_surely(v, part, r->protection);
}

/* Views from v on that are of one object, and what takes their place, piece from *made on. Returns
 * the first view of another object. */
static struct view *commit_object(struct reshape *r, struct view *v, struct view **made)
{
	struct object *o = v->object;
	struct view *first = v, *end = v;
	struct part part;
	bool torn = false;

	for (; end != NULL && end->object == o; end = end->next)
		torn |= atomic_load(&end->torn);
	env_write_lock(&o->views_lock);
	for (v = first; v != end; v = v->next)
		list_remove(&v->link);
	for (; *made != NULL && (end == NULL || (*made)->mmu.address < end->mmu.address);
	     *made = (*made)->next) {
		list_push_back(&o->views, &(*made)->link);
		atomic_store(&(*made)->torn, torn);
	}
	for (v = first; v != end; v = v->next)
		if (part_of(r, v, &part))
			part_commit(r, v, &part);
	env_write_unlock(&o->views_lock);
	return end;
}

static void reshape_commit(struct reshape *r)
{
	struct view *made = r->made;

	for (struct view *v = r->claim.views; v != NULL;)
		v = commit_object(r, v, &made);
	r->committed = true;
}

/* A private view's copies move with the mapping, which may fail; so this is the last thing that
 * may, and commits. */
static int move_copies(struct reshape *r)
{
	struct view *v = r->claim.views, *to = r->moved;
	struct object *o = v->object;
	struct part part;
	int error;

	if (!part_of(r, v, &part))
		return -EINVAL;
	env_write_lock(&o->views_lock);
	error = mmu_view_move(&v->mmu, part.from, part.length, to->mmu.address);
	if (error == 0) {
		list_remove(&v->link);
		for (struct view *piece = r->made; piece != NULL; piece = piece->next)
			list_push_back(&o->views, &piece->link);
		list_push_back(&o->views, &to->link);
		while (mmu_view_open(&to->mmu) != 0)
			env_nap(RETRY_NS);
	}
	env_write_unlock(&o->views_lock);
	r->committed = error == 0;
	return error;
}

/* ---- All of it ---------------------------------------------------------------------------- */

/* May the change be made? */
static int reshape_check(const struct reshape *r)
{
	uintptr_t at = r->claim.start;
	struct part part;

	if (r->claim.views == NULL && process_check_address(at) != 0)
		return -ECHILD;
	if (r->claim.views == NULL && r->change == CHANGE_UNMAP)
		return mkw_set_error(-EINVAL, "no view is mapped at %p", (void *)at);
	for (const struct view *v = r->claim.views; v != NULL; v = v->next) {
		if (!part_of(r, v, &part))
			continue;
		if (part.from != at && r->change != CHANGE_UNMAP)
			break;
		at = part.from + part.length;
		if (r->change == CHANGE_PROTECT && (r->protection & MKW_WRITE) != 0 &&
		    v->private == NULL && !v->mapping->may_write)
			return mkw_set_error(-EACCES,
					     "the view at %p may not be writable: its handle "
					     "or its store is read only",
					     (void *)v->mmu.address);
		if (v->mmu.backend == MMU_MPROTECT && r->change != CHANGE_UNMAP &&
		    r->change != CHANGE_PROTECT)
			return mkw_set_error(-EINVAL, "of a view in place only the protection can "
						      "be changed");
		if (r->change == CHANGE_FORK && !r->dontfork && v->mmu.backend != MMU_UFFD)
			return mkw_set_error(-EINVAL, "an inline view cannot be inherited");
		if (r->change == CHANGE_PAGES &&
		    (v->private != NULL || v->object != r->claim.views->object))
			return mkw_set_error(-EINVAL,
					     "the range is not in shared views of one object");
		if (atomic_load(&v->torn) && r->change != CHANGE_UNMAP &&
		    r->change != CHANGE_PROTECT && r->change != CHANGE_FORK)
			return mkw_set_error(
				-EFAULT,
				"a part of the view at %p was unmapped, or mapped over, "
				"by somebody else",
				(void *)v->mmu.address);
		if (r->change == CHANGE_MOVE && v->private != NULL &&
		    part.length != r->claim.end - r->claim.start)
			return mkw_set_error(
				-EINVAL,
				"of private views one is moved at a time, or a part of it");
		if (r->grow > 0 && at == r->claim.end &&
		    r->grow > OBJECT_PAGES_MAX - part.first - part.count)
			return mkw_set_error(-EINVAL,
					     "the range would end past the largest object");
	}
	if (at != r->claim.end && r->change != CHANGE_UNMAP)
		return mkw_set_error(-ENOMEM, "part of the range is not mapped by a view");
	return 0;
}

static int reshape_prepare(struct reshape *r)
{
	int error = pieces_make(r);

	if (error == 0 && (r->change == CHANGE_MOVE || r->change == CHANGE_GROW))
		error = moved_prepare(r);
	if (error != 0)
		return error;
	error = parts_prepare(r);
	if (error == 0 && r->moved != NULL && takes_copies(r, r->moved)) {
		error = move_copies(r);
		if (error != 0)
			parts_undo(r);
	}
	if (error != 0)
		moved_undo(r, NULL);
	return error;
}

/* The views come back as they were. */
static void reshape_abandon(struct reshape *r)
{
	pieces_free(&r->made);
	for (struct view *v = r->claim.views; v != NULL; v = v->next)
		atomic_fetch_and(&v->refs, ~VIEW_DYING);
	views_settle(&r->claim, r->claim.views);
}

/* The views are no more; their mappings and objects go with the last piece. */
static void reshape_end(struct reshape *r)
{
	struct view *v = r->claim.views;

	while (v != NULL) {
		struct view *next = v->next;
		struct mapping *mapping = v->mapping;
		struct object *o = v->object;
		struct part part;

		if (r->change == CHANGE_UNMAP && part_of(r, v, &part))
			private_forget(v, part.first, part.count);
		if (r->change == CHANGE_PROTECT && (r->protection & MKW_WRITE) != 0 &&
		    v->private == NULL)
			mapping_tell_writable(o, mapping);
		view_free(v);
		mapping_put(o, mapping);
		v = next;
	}
}

static bool unmap_inherited(const struct reshape *r)
{
	bool done;

	/* A fork under way is about to advise what it found there. */
	forks_hold();
	done = mmu_ward_unmap(r->claim.start, r->claim.end - r->claim.start);
	forks_let_go();
	return done;
}

/* Blocks: for store operations that faults of the views are in. On an error nothing has changed. */
static int reshape_run(struct reshape *r)
{
	int error = views_claim(&r->claim, will_join, r);

	if (error != 0)
		return mkw_set_error(error, "no memory for the table of views");
	/* In a child of fork there may be a view of the parent's. */
	if (r->claim.views == NULL && r->change == CHANGE_UNMAP && unmap_inherited(r))
		return 0;
	error = reshape_check(r);
	if (error != 0) {
		views_settle(&r->claim, r->claim.views);
		return error;
	}
	for (struct view *v = r->claim.views; v != NULL; v = v->next)
		view_drain(v);
	forks_hold();
	error = reshape_prepare(r);
	if (error == 0 && !r->committed)
		reshape_commit(r);
	forks_let_go();
	if (error != 0) {
		reshape_abandon(r);
		return mkw_set_error(error, "cannot change the views: %s",
				     error == -ENOMEM ? "no memory, no room, or too many mappings"
						      : "not possible here");
	}
	if (r->made == NULL)
		r->made = r->moved;
	else
		r->made_last->next = r->moved;
	views_settle(&r->claim, r->made);
	reshape_end(r);
	return 0;
}

/* ---- Calls -------------------------------------------------------------------------------- */

/* [address, address+length), in whole pages. */
static int range_check(const struct reshape *r, size_t length)
{
	if (r->claim.start % MKW_PAGE_SIZE != 0 || length == 0 ||
	    length > UINTPTR_MAX - MKW_PAGE_SIZE - r->claim.start)
		return mkw_set_error(-EINVAL, "address not page aligned, or a bad length");
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	return 0;
}

static size_t whole_pages(size_t length)
{
	return (length + MKW_PAGE_SIZE - 1) & ~(size_t)(MKW_PAGE_SIZE - 1);
}

/* => shielded: a signal handler that faults would need the table's lock. */
static int reshape_range(struct reshape *r, void *address, size_t length)
{
	struct env_shield shield;
	int error;

	r->claim.start = (uintptr_t)address;
	error = range_check(r, length);
	if (error != 0)
		return error;
	r->claim.end = r->claim.start + whole_pages(length);
	env_shield(&shield);
	error = reshape_run(r);
	env_unshield(&shield);
	return error;
}

int mkw_unmap(void *address, size_t length)
{
	struct reshape r = {.change = CHANGE_UNMAP};

	error_clear();
	return reshape_range(&r, address, length);
}

int mkw_protect(void *address, size_t length, unsigned protection)
{
	struct reshape r = {.change = CHANGE_PROTECT, .protection = protection};

	error_clear();
	if ((protection & ~(MKW_READ | MKW_WRITE)) != 0)
		return mkw_set_error(-EINVAL, "unknown protection bits");
	if ((protection & MKW_WRITE) != 0)
		r.protection |= MKW_READ;
	return reshape_range(&r, address, length);
}

int reshape_fork(void *address, size_t length, bool dontfork)
{
	struct reshape r = {.change = CHANGE_FORK, .dontfork = dontfork};

	return reshape_range(&r, address, length);
}

static int fill_locked_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	(void)arg;
	return v->locked ? view_fill(v, first, count) : 0;
}

/* MKW_LOCKED: what the range shows now is brought in as far as that can be done, as mremap(2) does
 * (mm_populate in Linux); the rest when it is touched. */
static void fill_locked(char *address, size_t length)
{
	struct env_shield shield;

	env_shield(&shield);
	if (views_each(address, length, fill_locked_part, NULL) != 0)
		error_clear();
	env_unshield(&shield);
}

int mkw_remap_pages(void *address, size_t length, uint64_t offset)
{
	struct reshape r = {.change = CHANGE_PAGES, .page = offset >> PAGE_SHIFT};
	int error;

	error_clear();
	if (offset % MKW_PAGE_SIZE != 0 || length > (OBJECT_PAGES_MAX << PAGE_SHIFT) ||
	    offset > (OBJECT_PAGES_MAX << PAGE_SHIFT) - length)
		return mkw_set_error(-EINVAL,
				     "offset not page aligned, or past the largest object");
	error = reshape_range(&r, address, length);
	if (error == 0)
		fill_locked(address, length);
	return error;
}

/* What grew is a view of its own so far. If it stays one nothing is lost. */
static void join_growth(char *address, size_t length)
{
	struct reshape r = {.change = CHANGE_NOTHING};

	if (reshape_range(&r, address, length) != 0)
		error_clear();
}

static int remap_grow(void *old, size_t old_length, size_t new_length, bool may_move,
		      void **address)
{
	uint64_t grow = (new_length - old_length) >> PAGE_SHIFT;
	struct reshape here = {.change = CHANGE_GROW, .grow = grow, .claim.elsewhere = 1};
	struct reshape move = {.change = CHANGE_MOVE, .grow = grow, .claim.elsewhere = 1};
	int error = reshape_range(&here, (char *)old + old_length - MKW_PAGE_SIZE, MKW_PAGE_SIZE);

	if (error == -EEXIST && !may_move)
		return mkw_set_error(-ENOMEM, "there is no room behind the view");
	/* Past the end of the address space it is ENOMEM. */
	if (may_move && (error == -EEXIST || error == -ENOMEM))
		error = reshape_range(&move, old, old_length);
	if (error != 0)
		return error;
	*address = move.place != 0 ? (void *)move.place : old;
	join_growth((char *)*address + old_length, new_length - old_length);
	fill_locked((char *)*address + old_length, new_length - old_length);
	return 0;
}

static int view_is_there(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	(void)v;
	(void)first;
	(void)count;
	(void)arg;
	return 0;
}

int mkw_remap(void *old, size_t old_length, size_t new_length, unsigned flags, void **address)
{
	struct reshape check = {.claim.start = (uintptr_t)old};
	struct env_shield shield;
	int error;

	error_clear();
	if (address == NULL || (flags & ~MKW_MAYMOVE) != 0)
		return mkw_set_error(-EINVAL, "no place for the address, or unknown flags");
	error = range_check(&check, old_length);
	if (error == 0)
		error = range_check(&check, new_length);
	if (error != 0)
		return error;
	old_length = whole_pages(old_length);
	new_length = whole_pages(new_length);
	/* Also what does not change: it is named. */
	env_shield(&shield);
	error = views_each(old, old_length, view_is_there, NULL);
	env_unshield(&shield);
	if (error != 0)
		return error;
	if (new_length > old_length)
		return remap_grow(old, old_length, new_length, (flags & MKW_MAYMOVE) != 0, address);
	if (new_length < old_length)
		error = mkw_unmap((char *)old + new_length, old_length - new_length);
	if (error == 0)
		*address = old;
	return error;
}
