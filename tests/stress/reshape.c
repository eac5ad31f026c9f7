/* SPDX-License-Identifier: MIT */
/*
 * reshape.c - steps that change the shape of a thread's own views, shared and private, while the
 * objects' other views, write-back and reclaim go on: a part is read only for a while, an end is
 * cut off, the view grows and moves, a page shows another one. What was stored stays stored, and a
 * page that is clean afterwards is asked for like any other: a sync would find it out.
 */
#include "stress.h"

#include <stdlib.h>

static void check_done(struct worker *w, struct object *o, const char *what, uint64_t first,
		       uint64_t pages, int error)
{
	trace(w, o, what, first, pages, error);
	if (error != 0)
		stress_fail(w->stress, o, "%s: %s", what, mkw_error_message());
}

/* A stretch of pages of the thread's own. */
struct piece {
	struct object *o;
	unsigned char *bytes;
	uint64_t first, pages;
	bool writable, private;
};

static void piece_protect(struct worker *w, const struct piece *p)
{
	uint64_t at = worker_below(w, p->pages), n = 1 + worker_below(w, p->pages - at);
	unsigned without = worker_one_in(w, 4) ? 0 : MKW_READ;

	check_done(w, p->o, "protect", p->first + at, n,
		   mkw_protect(p->bytes + at * PAGE, n * PAGE, without));
	check_done(w, p->o, "unprotect", p->first + at, n,
		   mkw_protect(p->bytes + at * PAGE, n * PAGE, p->writable ? MKW_WRITE : MKW_READ));
}

/* Pages go from the beginning or the end; one at least stays. */
static void piece_cut(struct worker *w, struct piece *p)
{
	uint64_t n = worker_below(w, p->pages);
	bool head = worker_one_in(w, 2);

	if (n == 0)
		return;
	check_done(w, p->o, head ? "unmap head" : "unmap tail", p->first, n,
		   mkw_unmap(p->bytes + (head ? 0 : (p->pages - n) * PAGE), n * PAGE));
	p->pages -= n;
	p->first += head ? n : 0;
	p->bytes += head ? n * PAGE : 0;
}

static void piece_resize(struct worker *w, struct piece *p)
{
	uint64_t pages = 1 + worker_below(w, p->o->model.pages - p->first);
	void *address = p->bytes;
	int error = mkw_remap(p->bytes, p->pages * PAGE, pages * PAGE, MKW_MAYMOVE, &address);

	/* One that has grown is not moved as one. */
	if (p->private && error == -EINVAL)
		return;
	check_done(w, p->o, "remap", p->first, pages, error);
	p->bytes = address;
	p->pages = pages;
}

static void piece_reshape(struct worker *w, struct piece *p)
{
	switch (worker_below(w, 3)) {
	case 0:
		piece_protect(w, p);
		break;
	case 1:
		piece_cut(w, p);
		break;
	default:
		piece_resize(w, p);
	}
}

/* A page of the view shows another one for a while. */
static void page_elsewhere(struct worker *w, struct view *v)
{
	const struct model *m = &v->object->model;
	uint64_t at = worker_below(w, v->pages), shown = worker_below(w, m->pages);
	struct view page = {
		.object = v->object,
		.bytes = v->bytes + at * PAGE,
		.first = shown,
		.pages = 1,
		.writable = v->writable,
		.is_inline = v->is_inline,
		.is_own = true,
	};
	size_t first, count;
	int error;

	check_done(w, v->object, "remap_pages", v->first + at, shown,
		   mkw_remap_pages(page.bytes, PAGE, m->bias_bytes + shown * PAGE));
	if (v->writable && worker_extent(w, m, shown, 1, PAGE_WORDS, &first, &count))
		view_store(w, &page, first, count, &error);
	check_done(w, v->object, "remap_pages back", v->first + at, v->first + at,
		   mkw_remap_pages(page.bytes, PAGE, m->bias_bytes + (v->first + at) * PAGE));
}

void step_reshape(struct worker *w)
{
	struct view *v = &w->views[worker_below(w, OWN_VIEWS)];
	struct piece p;

	if (v->bytes == NULL)
		view_make(w, v);
	if (worker_one_in(w, 3)) {
		page_elsewhere(w, v);
		return;
	}
	p = (struct piece){v->object, v->bytes, v->first, v->pages, v->writable, false};
	piece_reshape(w, &p);
	v->bytes = p.bytes;
	v->first = p.first;
	v->pages = p.pages;
}

void step_reshape_private(struct worker *w)
{
	struct private_view *v = &w->privates[worker_below(w, OWN_PRIVATES)];
	struct piece p;

	if (v->bytes == NULL)
		private_make(w, v);
	p = (struct piece){v->object, v->bytes, v->first, v->pages, true, true};
	piece_reshape(w, &p);
	private_reshaped(w, v, p.bytes, p.first, p.pages);
}
