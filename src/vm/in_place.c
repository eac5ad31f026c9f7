/* SPDX-License-Identifier: MIT */
/*
 * in_place.c - objects whose frames are the kernel's own page cache of a file, and whose views are
 * mappings that somebody else has made of it (mkw_adopt). The kernel fills them, so that a page is
 * CLEAN as soon as anybody looks; whoever else has the file open sees the same pages. What is left
 * to us is the write: a view is mapped read-only where nothing was granted (mmu/mprotect.c), and a
 * write there is served in the thread that makes it, in the handler of its SIGSEGV.
 *
 * The kernel may refuse a write to a page that was granted (SIGBUS): its file was cut off, its disk
 * is full all the same, or cannot be read. Then the store is asked once more, and told so
 * (MKW_RUN_BROKEN).
 *
 * A space in place goes on in a child of fork, as the child's own: protections are copied with the
 * page tables, states with the memory. So at the fork nobody may be half-way through anything:
 * who serves a fault, and the flusher, is counted (inside), a fork closes the gate and waits until
 * nobody is left. A fault that waits for something else leaves when it is told to, and its access
 * comes again, to wait at the gate. API calls are the caller's to keep out of a fork. The gate is
 * no gate for the thread that forks, which may write to a view in the handlers of others around the
 * fork, nor for a store operation that faults inside of a fault.
 *
 * Locks: gate_lock, rank LEAF, for the count and the gate; nothing is taken in it.
 */
#include "vm.h"

#include <errno.h>

#define GATE_POLL_NS 1000000u

static struct env_mutex gate_lock = {PTHREAD_MUTEX_INITIALIZER, RANK_LEAF};
static struct env_cond gate_moved;
static unsigned inside;
static _Atomic bool closed;
static _Thread_local unsigned depth;  /* how often this thread is inside */
static _Thread_local bool is_forking; /* it has closed the gate */

static struct mkw_fault_hooks hooks;

/* ---- The gate ----------------------------------------------------------------------------- */

static _Atomic bool begun; /* there are spaces in place, or were */

void in_place_begin(void)
{
	env_lock(&gate_lock);
	if (!begun)
		env_cond_init(&gate_moved);
	begun = true;
	env_unlock(&gate_lock);
}

void in_place_enter(void)
{
	env_lock(&gate_lock);
	while (atomic_load(&closed) && depth == 0 && !is_forking)
		env_wait(&gate_moved, &gate_lock);
	inside++;
	depth++;
	env_unlock(&gate_lock);
}

void in_place_leave(void)
{
	env_lock(&gate_lock);
	inside--;
	depth--;
	if (atomic_load(&closed))
		env_broadcast(&gate_moved);
	env_unlock(&gate_lock);
}

/* A view is not to be kept by a thread that a child of fork does not have. */
bool in_place_look_begin(void)
{
	bool enters = atomic_load(&begun);

	if (enters)
		in_place_enter();
	return enters;
}

void in_place_look_end(bool entered)
{
	if (entered)
		in_place_leave();
}

bool in_place_must_leave(void)
{
	return atomic_load(&closed);
}

static void gate_open(void)
{
	env_lock(&gate_lock);
	atomic_store(&closed, false);
	env_broadcast(&gate_moved);
	env_unlock(&gate_lock);
}

/* Whoever is parked in the space looks again, and finds that it is to leave. */
static void space_rouse(struct space *s)
{
	uint64_t id = 0;
	struct object *o;

	while (s->in_place && (o = space_object_after(s, id)) != NULL) {
		struct region *r;
		uint64_t next = 0;

		id = o->id;
		while ((r = region_next(o, next)) != NULL) {
			next = r->first + REGION_PAGES;
			env_lock(&r->lock);
			waiters_wake(&r->waiters);
			env_unlock(&r->lock);
			region_put(r);
		}
		object_wake(o);
		env_lock(&s->charge_lock);
		waiters_wake(&o->account.dirty_waiters);
		waiters_wake(&s->account.dirty_waiters);
		env_unlock(&s->charge_lock);
		object_unpin(o);
	}
}

/* A fault may park between the rousing and its look at the gate: it is roused once more. */
void in_place_fork_begin(void)
{
	bool out;

	env_lock(&gate_lock);
	while (atomic_load(&closed)) /* another thread forks */
		env_wait(&gate_moved, &gate_lock);
	atomic_store(&closed, true);
	is_forking = true;
	out = inside == depth;
	env_unlock(&gate_lock);
	while (!out) {
		forks_hold();
		spaces_each(space_rouse);
		forks_let_go();
		env_lock(&gate_lock);
		if (inside > depth)
			env_wait_until(&gate_moved, &gate_lock, env_now_ns() + GATE_POLL_NS);
		out = inside == depth;
		env_unlock(&gate_lock);
	}
}

void in_place_fork_end(void)
{
	is_forking = false;
	gate_open();
}

void in_place_forked(void)
{
	env_mutex_init(&gate_lock, RANK_LEAF);
	env_cond_init(&gate_moved);
	inside = depth;
}

/* Without it nobody makes room: a child that cannot have it has no limit. => nobody else is there.
 */
static void flusher_restart(struct space *s)
{
	int error;

	env_cond_init(&s->flusher_cond);
	if (!s->flusher_started)
		return;
	error = env_thread_start(&s->flusher, "mkw-flusher", flusher_main, s);
	s->flusher_started = error == 0;
	if (error == 0)
		return;
	s->account.dirty_limit = 0;
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next)
		container_of(n, struct object, link)->account.dirty_limit = 0;
	space_log(s, MKW_LOG_ERROR,
		  "a child of fork has no dirty limit: it cannot start a thread (errno %d)",
		  -error);
}

/* In the child: the space is this process's. Nobody waits. The flusher may have held the charge
 * lock, on its way to the gate; others may have looked at something. */
void in_place_take_over(struct space *s)
{
	env_mutex_init(&s->lock, RANK_SPACE);
	env_mutex_init(&s->charge_lock, RANK_CHARGE);
	env_mutex_init(&s->slab_lock, RANK_LEAF);
	env_cond_init(&s->closed);
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next) {
		struct object *o = container_of(n, struct object, link);

		/* Who has quiesced it is not here. */
		atomic_store(&o->frozen, 0);
		atomic_store(&o->still, false);
		o->freezing = false;
	}
	flusher_restart(s);
}

/* ---- Faults ------------------------------------------------------------------------------- */

void in_place_fill(struct region *r)
{
	for (size_t i = 0; i < REGION_PAGES; i++)
		if (r->pages[i].state == PAGE_ABSENT)
			page_change(r, i, PAGE_FILL);
}

bool in_place_again(const struct mkw_refusal *refusal, void *context)
{
	return hooks.refused != NULL && hooks.refused(refusal, context);
}

bool in_place_unknown(uintptr_t address, bool write)
{
	return hooks.unknown != NULL && !(views_any() && views_overlap(address, 1)) &&
	       hooks.unknown((const void *)address, write);
}

void mkw_set_fault_hooks(const struct mkw_fault_hooks *given)
{
	hooks = given != NULL ? *given : (struct mkw_fault_hooks){0};
}

const void *mkw_fault_context(void)
{
	return mmu_fault_context();
}

/* ---- Calls on ranges of addresses --------------------------------------------------------- */

int mkw_adopt(struct mkw_handle *h, void *address, size_t length, unsigned protection,
	      uint64_t offset)
{
	struct env_shield shield;
	int error;

	error_clear();
	error = handle_check(h);
	if (error != 0)
		return error;
	if (!h->object->in_place)
		return mkw_set_error(-EINVAL, "the object has a page cache of its own: mkw_map");
	if (length == 0 || (uintptr_t)address % MKW_PAGE_SIZE != 0 || offset % MKW_PAGE_SIZE != 0 ||
	    length > (OBJECT_PAGES_MAX << PAGE_SHIFT) - MKW_PAGE_SIZE ||
	    offset > (OBJECT_PAGES_MAX << PAGE_SHIFT) - MKW_PAGE_SIZE - length ||
	    (protection & ~(MKW_READ | MKW_WRITE)) != 0)
		return mkw_set_error(-EINVAL, "no such range, or unknown protection bits");
	if ((protection & MKW_WRITE) != 0 && (h->flags & MKW_RDWR) == 0)
		return mkw_set_error(-EACCES, "the handle is read only");
	env_shield(&shield);
	if (views_overlap((uintptr_t)address, length))
		error = mkw_set_error(-EINVAL, "there is a view in the range");
	else
		error = view_adopt(h, (uintptr_t)address, length, protection, offset);
	env_unshield(&shield);
	return error;
}

/* A charged page may be protected all the same: each is mapped as a fault would do it. */
static int grant_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	int error = 0;

	(void)arg;
	if (v->mmu.backend != MMU_MPROTECT)
		return mkw_set_error(-EINVAL, "not a view in place");
	if (!v->mmu.writable)
		return mkw_set_error(-EACCES, "the view is not writable");
	for (uint64_t page = first; page < first + count && error == 0;) {
		struct fault f;

		error = fault_call(&f, v->object, v, FAULT_GRANT, page,
				   (size_t)(first + count - page));
		page += f.served > 0 ? f.served : 1;
		fault_call_end(&f);
	}
	return error;
}

int mkw_grant(void *address, size_t length)
{
	const size_t in_page = (uintptr_t)address & (MKW_PAGE_SIZE - 1);
	struct env_shield shield;
	int error;

	error_clear();
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	env_shield(&shield);
	error = views_each((char *)address - in_page, length + in_page, grant_part, NULL);
	env_unshield(&shield);
	return error;
}

static int let_go_part(struct view *v, uint64_t first, uint64_t count, void *arg)
{
	struct object *o = v->object;
	int error;

	(void)arg;
	if (v->mmu.backend != MMU_MPROTECT || !v->mmu.writable)
		return mkw_set_error(-EINVAL, "not a writable view in place");
	env_read_lock(&o->views_lock);
	/* Before: who protects some of it then finds that it is not to. */
	if (count == v->count)
		atomic_store(&v->mmu.let_go, true);
	error = mmu_let_rw(&v->mmu, view_address(v, first), count << PAGE_SHIFT);
	env_read_unlock(&o->views_lock);
	return error;
}

int mkw_let_go(void *address, size_t length)
{
	struct env_shield shield;
	int error;

	error_clear();
	env_shield(&shield);
	error = views_each(address, length, let_go_part, NULL);
	env_unshield(&shield);
	return error;
}

size_t mkw_grain(void)
{
	return mmu_grain();
}

unsigned mkw_view_count(struct mkw_handle *h)
{
	return h == NULL ? 0 : atomic_load(&h->object->view_count);
}

bool mkw_is_view(const void *address, size_t length)
{
	struct env_shield shield;
	bool found;

	if (!views_any())
		return false;
	env_shield(&shield);
	found = views_overlap((uintptr_t)address, length);
	env_unshield(&shield);
	return found;
}

/* ---- Quiescing ---------------------------------------------------------------------------- */

int mkw_quiesce(struct mkw_handle *h)
{
	struct env_shield shield;
	int error;

	error_clear();
	error = handle_check(h);
	if (error == 0 && !h->object->in_place)
		error = mkw_set_error(-EINVAL, "not an object in place: mkw_freeze");
	if (error != 0)
		return error;
	env_shield(&shield);
	error = object_quiesce(h->object);
	env_unshield(&shield);
	return error;
}

int mkw_resume(struct mkw_handle *h)
{
	struct env_shield shield;
	int error;

	error_clear();
	error = handle_check(h);
	if (error == 0 && (!h->object->in_place || atomic_load(&h->object->frozen) == 0))
		error = mkw_set_error(-EINVAL, "it is not quiesced");
	if (error != 0)
		return error;
	env_shield(&shield);
	object_resume(h->object);
	env_unshield(&shield);
	return 0;
}
