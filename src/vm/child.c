/* SPDX-License-Identifier: MIT */
/*
 * child.c - children made by fork (contract 7.1, 7.2). They inherit views, which this process goes
 * on serving: each child has views here, in the objects' lists like any other, so that they are
 * protected, charged and refused as the parent's are. Only the process that made a space serves it;
 * a grandchild's views are made here as well.
 *
 * Between the copying of the page tables and the child's views being listed no page of theirs may
 * change its state, or one could be cleaned and stay writable in the child (I1). So the thread that
 * forks holds, until then, the locks of the lists of views of all objects, and closes the gate
 * (fault.c): a handler thread that waited for one of them could not read the fork's event.
 *
 *   prepare   fork lock, each space's lock, gate, lists of views; machine: mmu_fork_begin
 *   parent    mmu_fork_end, the child's views; all of it is given back
 *   child     its copy of all that is dead: it says so (process), and begins anew
 *
 * Locks: forks_lock (rank SPACES) guards the list of spaces.
 */
#include "vm.h"

#include <errno.h>
#include <stdlib.h>

struct child {
	struct space *space;
	struct mmu *mmu;
	struct list link;   /* space->children */
	bool gone;	    /* space->lock */
	struct child *next; /* of a fork in several spaces */
	size_t count;
	struct view *views[]; /* constant until the machine serves nothing any more */
};

/* What a fork under way is about, in a space. */
struct inheritance {
	struct mmu_fork *fork;	  /* NULL: nothing is inherited */
	const struct child *from; /* the child that forks; NULL: this process */
	size_t count;
	struct view **views;
	/* Pinned copies of private views. */
	size_t apart_count, apart_room;
	struct mmu_extent *apart;
};

static struct env_mutex forks_lock = {PTHREAD_MUTEX_INITIALIZER, RANK_SPACES};
static struct list spaces = {&spaces, &spaces};
/* Which process this is, by generations; a space of an earlier one is a dead copy. */
static uint64_t process = 1;
static struct env_shield forking;	/* of the thread that holds forks_lock to fork */
static _Thread_local bool forking_here; /* until the stores have been told */
static _Thread_local unsigned nested;

/* ---- Whose it is -------------------------------------------------------------------------- */

static int say_parents(void)
{
	return mkw_set_error(-ECHILD, "it belongs to the process that this one was forked from, "
				      "and only that can be asked");
}

int process_check(const struct space *s)
{
	return s->process == process ? 0 : say_parents();
}

int process_check_address(uintptr_t address)
{
	return mmu_ward_has(address) ? say_parents() : 0;
}

void spaces_each(void (*fn)(struct space *s))
{
	for (struct list *n = spaces.next; n != &spaces; n = n->next)
		fn(container_of(n, struct space, link));
}

void forks_hold(void)
{
	env_lock(&forks_lock);
}

void forks_let_go(void)
{
	env_unlock(&forks_lock);
}

/* ---- A child's views ---------------------------------------------------------------------- */

struct space *child_space(const struct child *child)
{
	return child->space;
}

struct view *child_view(const struct child *child, uintptr_t address)
{
	for (size_t i = 0; i < child->count; i++) {
		struct view *v = child->views[i];

		if (address - v->mmu.address >= v->mmu.length)
			continue;
		atomic_fetch_add(&v->refs, 1);
		return v;
	}
	return NULL;
}

/* => its machine serves nothing any more; no lock held. */
static void child_end_views(struct child *c)
{
	for (size_t i = 0; i < c->count; i++)
		view_retire(c->views[i]);
	c->count = 0;
}

/* Upcall of its machine, on its last thread, which cannot be waited for here. */
static void child_gone(void *arg)
{
	struct child *c = arg;
	struct space *s = c->space;

	child_end_views(c);
	env_lock(&s->lock);
	c->gone = true;
	env_unlock(&s->lock);
}

static void child_free(struct child *c)
{
	mmu_kin_stop(c->mmu);
	child_end_views(c);
	mmu_kin_destroy(c->mmu);
	free(c);
}

/* One that is gone, or any; NULL: there is none. */
static struct child *child_take(struct space *s, bool gone)
{
	struct child *found = NULL;

	env_lock(&s->lock);
	for (struct list *n = s->children.next; n != &s->children && found == NULL; n = n->next) {
		struct child *c = container_of(n, struct child, link);
		if (c->gone || !gone)
			found = c;
	}
	if (found != NULL)
		list_remove(&found->link);
	env_unlock(&s->lock);
	return found;
}

/* One whose copies are still to be dropped, referenced. */
static struct view *cut_next(struct object *o, uint64_t first)
{
	uint64_t cuts = atomic_load(&o->cuts);
	struct view *found = NULL;

	env_read_lock(&o->views_lock);
	for (struct list *n = o->views.next; n != &o->views && found == NULL; n = n->next) {
		struct view *v = container_of(n, struct view, link);
		if (v->child != NULL && v->private != NULL && v->zapped != cuts &&
		    v->first + v->count > first && view_try_get(v))
			found = v;
	}
	env_read_unlock(&o->views_lock);
	return found;
}

/* A child that forks meanwhile hands down what it has still, and that it has. */
void children_cut(struct object *o, uint64_t first)
{
	struct view *v;

	while ((v = cut_next(o, first)) != NULL) {
		uint64_t from = first > v->first ? first : v->first;

		mmu_kin_zap(&v->mmu, view_address(v, from),
			    (v->first + v->count - from) << PAGE_SHIFT);
		v->zapped = atomic_load(&o->cuts);
		view_put(v);
	}
}

void children_end(struct space *s)
{
	struct child *c;

	env_lock(&s->lock);
	while (s->starting > 0)
		env_wait(&s->closed, &s->lock);
	env_unlock(&s->lock);
	while ((c = child_take(s, false)) != NULL)
		child_free(c);
}

static void children_reap(struct space *s)
{
	struct child *c;

	while ((c = child_take(s, true)) != NULL)
		child_free(c);
}

static void child_forks(void *arg, struct mmu_fork *fork);

static const struct mmu_upcalls child_upcalls = {
	.fault = fault_child,
	.gone = child_gone,
	.forks = child_forks,
};

/* All of the child's views, or none. */
static bool child_copy_views(struct child *c, const struct inheritance *in)
{
	for (; c->count < in->count; c->count++) {
		struct view *v = view_copy(in->views[c->count], c->mmu);

		if (v == NULL)
			break;
		v->child = c;
		c->views[c->count] = v;
	}
	if (c->count == in->count)
		return true;
	while (c->count > 0) {
		struct view *v = c->views[--c->count];

		private_forget(v, v->first, v->count);
		view_free(v);
	}
	return false;
}

/* => the lists of views are held for writing. NULL: no memory. */
static struct child *child_new(struct space *s, struct mmu *mmu, const struct inheritance *in)
{
	struct child *c = calloc(1, sizeof(*c) + in->count * sizeof(struct view *));

	if (c == NULL)
		return NULL;
	c->space = s;
	c->mmu = mmu;
	list_init(&c->link);
	if (!child_copy_views(c, in)) {
		free(c);
		return NULL;
	}
	for (size_t i = 0; i < c->count; i++) {
		list_push_back(&c->views[i]->object->views, &c->views[i]->link);
		atomic_fetch_add(&c->views[i]->object->view_count, 1);
	}
	list_push_back(&s->children, &c->link);
	return c;
}

/* What is served from here on was forked before. No lock held: the store is told, too. */
static void child_start(struct child *c)
{
	struct space *s = c->space;
	int error;

	for (size_t i = 0; i < c->count; i++)
		if (view_is_notified(c->views[i]))
			op_map(c->views[i]->object, true);
	error = mmu_kin_start(c->mmu, &child_upcalls, c);
	if (error != 0) {
		env_lock(&s->lock);
		list_remove(&c->link);
		env_unlock(&s->lock);
		child_free(c);
	}
	env_lock(&s->lock);
	s->starting--;
	env_broadcast(&s->closed);
	env_unlock(&s->lock);
}

/* ---- A fork in a space -------------------------------------------------------------------- */

static bool is_inherited(const struct view *v, const struct child *from)
{
	/* What is claimed is only about to change, until after the fork. */
	return v->child == from && !v->dontfork && (!view_is_dying(v) || v->claimed) &&
	       v->mmu.backend == MMU_UFFD;
}

/* False: no memory. */
static bool apart_add(struct inheritance *in, const struct view *v, uintptr_t address)
{
	struct mmu_extent *last = in->apart_count > 0 ? &in->apart[in->apart_count - 1] : NULL;

	/* Each lies in one view. */
	if (last != NULL && address > v->mmu.address && last->address + last->length == address) {
		last->length += MKW_PAGE_SIZE;
		return true;
	}
	if (in->apart_count == in->apart_room) {
		size_t room = in->apart_room == 0 ? 16 : in->apart_room * 2;
		struct mmu_extent *grown = realloc(in->apart, room * sizeof(*grown));

		if (grown == NULL)
			return false;
		in->apart = grown;
		in->apart_room = room;
	}
	in->apart[in->apart_count++] = (struct mmu_extent){address, MKW_PAGE_SIZE};
	return true;
}

/* => region->lock held. What the program has dropped behind our back is no copy any more. */
static bool apart_collect_region(struct inheritance *in, struct view *v, struct region *r)
{
	const struct private_chunk *c = private_chunk(v, r);
	size_t from, to;
	bool enough = true;

	if (c == NULL || c->pinned == 0 || !private_clip(v, r, r->first, REGION_PAGES, &from, &to))
		return true;
	for (; from < to && enough; from++) {
		uintptr_t address = view_address(v, r->first + from);
		bool copied = false;

		if (c->pages[from].pins > 0 &&
		    mmu_copies(&v->mmu, address, MKW_PAGE_SIZE, &copied) == 0 && copied)
			enough = apart_add(in, v, address);
	}
	return enough;
}

/* 7.1: a pinned page is copied at once for the child. => the lists of views are held. */
static bool apart_collect(struct inheritance *in, struct view *v)
{
	uint64_t next = v->first;
	struct region *r;
	bool enough = true;

	while (enough && v->private != NULL && next < v->first + v->count &&
	       (r = region_next(v->object, next)) != NULL) {
		next = r->first + REGION_PAGES;
		env_lock(&r->lock);
		if (r->first < v->first + v->count)
			enough = apart_collect_region(in, v, r);
		env_unlock(&r->lock);
		region_put(r);
	}
	return enough;
}

/* => the lists of views are held. False: there is none, or no memory. */
static bool inheritance_collect(struct space *s, struct inheritance *in)
{
	size_t most = 0;

	for (struct list *n = s->objects.next; n != &s->objects; n = n->next) {
		struct object *o = container_of(n, struct object, link);
		for (struct list *m = o->views.next; m != &o->views; m = m->next)
			most += is_inherited(container_of(m, struct view, link), in->from);
	}
	in->views = most > 0 ? malloc(most * sizeof(*in->views)) : NULL;
	if (in->views == NULL)
		return false;
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next) {
		struct object *o = container_of(n, struct object, link);
		for (struct list *m = o->views.next; m != &o->views; m = m->next) {
			struct view *v = container_of(m, struct view, link);
			if (!is_inherited(v, in->from))
				continue;
			in->views[in->count++] = v;
			if (in->from == NULL && !apart_collect(in, v))
				return false;
		}
	}
	return true;
}

static void gate_set(struct space *s, bool closed)
{
	env_lock(&s->ready_lock);
	atomic_store(&s->gate, closed);
	env_unlock(&s->ready_lock);
	if (!closed)
		mmu_kick(s->mmu);
}

/* => forks_lock, space->lock held. Nothing changes in the space's views until space_let_go. */
static void space_hold(struct space *s)
{
	gate_set(s, true);
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next)
		env_hold_writing(&container_of(n, struct object, link)->views_lock);
}

static void space_let_go(struct space *s)
{
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next)
		env_let_go_writing(&container_of(n, struct object, link)->views_lock);
	gate_set(s, false);
}

static void inheritance_free(struct inheritance *in)
{
	free(in->apart);
	free(in->views);
	free(in);
}

/* => space_hold. NULL: nothing is inherited. */
static struct inheritance *inheritance_begin(struct space *s, const struct child *from)
{
	struct inheritance *in = calloc(1, sizeof(*in));

	if (in == NULL)
		return NULL;
	in->from = from;
	if (inheritance_collect(s, in))
		return in;
	inheritance_free(in);
	return NULL;
}

/* The same. The child, to be started when no lock is held any more; NULL: there is none. */
static struct child *inheritance_end(struct space *s, struct inheritance *in)
{
	struct mmu *mmu = in->fork != NULL ? mmu_fork_end(in->fork) : NULL;
	struct child *c = mmu != NULL ? child_new(s, mmu, in) : NULL;

	if (mmu != NULL && c == NULL)
		mmu_kin_destroy(mmu);
	if (c != NULL)
		s->starting++;
	inheritance_free(in);
	return c;
}

/* ---- This process forks ------------------------------------------------------------------- */

static void space_prepare(struct space *s)
{
	struct mmu_view **views;
	struct inheritance *in = NULL;

	if (s->in_place)
		return;
	children_reap(s);
	env_hold(&s->lock);
	space_hold(s);
	if (mmu_can_fork(s->mmu))
		in = inheritance_begin(s, NULL);
	if (in == NULL)
		return;
	views = malloc(in->count * sizeof(*views));
	for (size_t i = 0; views != NULL && i < in->count; i++)
		views[i] = &in->views[i]->mmu;
	if (views == NULL ||
	    mmu_fork_begin(s->mmu, views, in->count, in->apart, in->apart_count, &in->fork) != 0) {
		inheritance_free(in);
		in = NULL;
	}
	free(views);
	s->inheritance = in;
}

static void fork_prepare(void)
{
	struct env_shield shield;

	/* A store that is told of a child's views forks: nothing is inherited, or it would be told
	 * again, and so on for ever. */
	nested += forking_here;
	if (nested > 0) {
		env_hold(&forks_lock);
		return;
	}
	env_shield(&shield);
	in_place_fork_begin();
	env_hold(&forks_lock);
	forking_here = true;
	forking = shield;
	mmu_wards_fork_begin();
	for (struct list *n = spaces.next; n != &spaces; n = n->next)
		space_prepare(container_of(n, struct space, link));
}

static struct child *space_parent(struct space *s)
{
	struct child *c = NULL;

	if (s->in_place)
		return NULL;
	if (s->inheritance != NULL)
		c = inheritance_end(s, s->inheritance);
	s->inheritance = NULL;
	space_let_go(s);
	env_let_go(&s->lock);
	return c;
}

static void fork_parent(void)
{
	struct env_shield shield = forking;
	struct child *born = NULL;
	int saved = errno;

	if (nested > 0) {
		nested--;
		env_let_go(&forks_lock);
		return;
	}
	mmu_wards_fork_end();
	for (struct list *n = spaces.next; n != &spaces; n = n->next) {
		struct child *c = space_parent(container_of(n, struct space, link));

		if (c == NULL)
			continue;
		c->next = born;
		born = c;
	}
	env_let_go(&forks_lock);
	in_place_fork_end();
	while (born != NULL) {
		struct child *c = born;

		born = c->next;
		child_start(c);
	}
	forking_here = false;
	env_unshield(&shield);
	errno = saved;
}

/* ---- This process has been forked --------------------------------------------------------- */

static void space_abandon(struct space *s)
{
	mmu_abandon(s->mmu);
	if (s->swap.file != NULL)
		swap_file_abandon(s->swap.file);
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next) {
		struct object *o = container_of(n, struct object, link);
		if (o->frames != NULL)
			frames_abandon(o->frames);
	}
}

static void space_block(const struct space *s)
{
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next) {
		const struct object *o = container_of(n, struct object, link);
		for (struct list *m = o->views.next; m != &o->views; m = m->next) {
			const struct view *v = container_of(m, struct view, link);
			if (v->child == NULL && (s->inheritance == NULL || !is_inherited(v, NULL)))
				mmu_fork_block(&v->mmu);
		}
	}
}

/* Where the parent has pages that this process does not have as they are. */
static void cover_gaps(void)
{
	for (struct list *n = spaces.next; n != &spaces; n = n->next) {
		struct space *s = container_of(n, struct space, link);
		if (s->inheritance != NULL)
			mmu_fork_map(s->inheritance->fork);
		if (!s->in_place)
			space_block(s);
	}
}

static void inherit(void)
{
	mmu_wards_inherit();
	for (struct list *n = spaces.next; n != &spaces; n = n->next) {
		struct space *s = container_of(n, struct space, link);
		if (s->inheritance != NULL)
			mmu_fork_inherit(s->inheritance->fork);
	}
}

/* What is in place is this process's own from here on. */
static void spaces_abandon(void)
{
	in_place_forked();
	for (struct list *n = spaces.next, *next; n != &spaces; n = next) {
		struct space *s = container_of(n, struct space, link);

		next = n->next;
		if (s->in_place) {
			s->process = process;
			in_place_take_over(s);
			continue;
		}
		space_abandon(s);
		list_remove(n);
	}
	in_place_fork_end();
}

static void fork_child(void)
{
	static const struct env_mutex fresh = {PTHREAD_MUTEX_INITIALIZER, RANK_SPACES};
	struct env_shield shield = forking;
	int saved = errno;

	process++;
	forking_here = false;
	forks_lock = fresh;
	env_child();
	views_abandon();
	refusals_abandon();
	mmu_abandon_all();
	cover_gaps();
	inherit();
	spaces_abandon();
	if (nested == 0)
		env_unshield(&shield);
	nested = 0;
	errno = saved;
}

/* ---- A child forks ------------------------------------------------------------------------ */

/* Upcall of its machine. */
static void child_forks(void *arg, struct mmu_fork *fork)
{
	struct child *c = arg, *grandchild = NULL;
	struct space *s = c->space;
	struct mmu_view **views;
	struct inheritance *in;

	env_hold(&forks_lock);
	env_hold(&s->lock);
	space_hold(s);
	in = inheritance_begin(s, c);
	if (in != NULL) {
		views = malloc(in->count * sizeof(*views));
		for (size_t i = 0; views != NULL && i < in->count; i++)
			views[i] = &in->views[i]->mmu;
		if (mmu_fork_go(fork, views, views != NULL ? in->count : 0) == 0)
			in->fork = fork;
		free(views);
		grandchild = inheritance_end(s, in);
	} else {
		(void)mmu_fork_go(fork, NULL, 0);
	}
	space_let_go(s);
	env_let_go(&s->lock);
	env_let_go(&forks_lock);
	if (grandchild != NULL)
		child_start(grandchild);
}

/* ---- Spaces ------------------------------------------------------------------------------- */

int process_add(struct space *s)
{
	static uint64_t registered;
	int error = 0;

	env_lock(&forks_lock);
	if (registered == 0)
		error = env_at_fork(fork_prepare, fork_parent, fork_child);
	if (error == 0) {
		registered = 1;
		s->process = process;
		list_push_back(&spaces, &s->link);
	}
	env_unlock(&forks_lock);
	return error == 0 ? 0 : mkw_set_error(error, "no memory for a space");
}

void process_remove(struct space *s)
{
	env_lock(&forks_lock);
	list_remove(&s->link);
	env_unlock(&forks_lock);
}
