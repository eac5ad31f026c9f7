/* SPDX-License-Identifier: MIT */
/*
 * fault.c - the one fault path. Whoever wants a page (a faulting thread through a handler thread or
 * in its own signal handler, mkw_pread, mkw_pwrite, mkw_reserve, mkw_pin) runs the same steps:
 *
 *                     +----------------------------------------------+
 *                     v                                              |
 *   start --> look: past the end ------------------------> refuse    | resumed by whoever
 *             in a range op, frozen, locked, write-back -> park -----+ frees the thing
 *             ABSENT ---------------> fill (fill.c) ---> look again, or done
 *             read ------------------> map RO, done
 *             write, GRANTED/DIRTY --> map RW, done
 *             write, CLEAN ----------> notify (notify.c) ---> done, look again, park, refuse
 *             of a private view -----> private.c: no store is asked for its writes
 *
 * Nothing decided before a lock was dropped is believed after it (2.1, S0.3): every step begins by
 * looking. Mapping something that turns out not to be needed is harmless: the hardware faults
 * again.
 *
 * A parked fault of a handler thread is an object in a list and holds no thread. API callers and
 * inline faults sleep in their own thread. A fault that has been parked belongs to whoever resumes
 * it: the function that parked it must not touch it any more.
 *
 * Locks: object->views_lock (read) and region->lock while looking and committing; none across the
 * store.
 */
#include "vm.h"

#include <errno.h>
#include <string.h>

/* A store that answers NOPAGE or RETRY this often in a row is refused with EAGAIN. */
#define TRIES_MAX 64
/* From this many refusals in a row at one address on, a thread is slowed down: its handler returns
 * without having changed anything. */
#define REFUSALS_BEFORE_DELAY 1000
#define REFUSAL_DELAY_NS      1000000u
#define MEMORY_NAP_NS	      1000000u

/* ---- Parking ------------------------------------------------------------------------------ */

bool fault_before_park(struct fault *f)
{
	/* Whoever unmaps the view marks it and then comes by every list, under its lock: it would
	 * not come by here again. */
	if (f->view != NULL && view_is_dying(f->view))
		return false;
	COUNT(f->object, waits, 1);
	return true;
}

/* waiter.wake of a parked fault. */
static void fault_resume(struct waiter *w)
{
	struct fault *f = container_of(w, struct fault, waiter);
	struct space *s = f->object->space;

	env_lock(&s->ready_lock);
	list_push_back(&s->ready, &w->link);
	env_unlock(&s->ready_lock);
	mmu_kick(s->mmu);
}

void fault_lock(struct fault *f)
{
	env_read_lock(&f->object->views_lock);
	env_lock(&f->region->lock);
}

void fault_unlock(struct fault *f)
{
	env_unlock(&f->region->lock);
	env_read_unlock(&f->object->views_lock);
}

/*
 * A thread that sits in a system call may hold the inode lock of a file beneath us; what frees the
 * fault (write-back of that file, a fill by another thread) may need it (4.3). It cannot be let to
 * wait for that.
 */
bool fault_in_syscall_on(const struct fault *f, const struct object *o)
{
	if (f->kind != FAULT_EVENT || o->ino == 0 ||
	    !mmu_thread_in_syscall_on(f->tid, o->dev, o->ino))
		return false;
	mkw_set_error(-EDEADLK, "a system call on the file itself met a page of its view; "
				"use mkw_pread or mkw_pwrite");
	return true;
}

/* The flusher and the reclaimer make room: whoever they would wait for is themselves. */
bool fault_is_of_room_makers(const struct fault *f)
{
	struct space *s = f->object->space;

	if (f->tid == 0 ||
	    (f->tid != atomic_load(&s->flusher_tid) && f->tid != atomic_load(&s->reclaimer_tid)))
		return false;
	mkw_set_error(-EDEADLK, "a store operation of background write-back or reclaim touched a "
				"view, and there is no room before it ends");
	return true;
}

/* Room is made by writing any object of the space. */
bool fault_may_not_wait_for_room(const struct fault *f)
{
	struct space *s = f->object->space;
	bool found = false;

	if (fault_is_of_room_makers(f))
		return true;
	if (f->kind != FAULT_EVENT)
		return false;
	env_lock(&s->lock);
	for (struct list *n = s->objects.next; n != &s->objects && !found; n = n->next)
		found = fault_in_syscall_on(f, container_of(n, struct object, link));
	env_unlock(&s->lock);
	return found;
}

enum step fault_park_region(struct fault *f)
{
	struct object *o = f->object;
	struct region *r = f->region;
	bool may_wait = !fault_in_syscall_on(f, o);
	enum step step = STEP_AGAIN;

	if (may_wait && fault_before_park(f)) {
		list_push_back(&r->waiters, &fault_waiter(f)->link);
		step = STEP_PARKED;
	}
	env_unlock(&r->lock);
	env_read_unlock(&o->views_lock);
	return may_wait ? step : fault_refuse(f, -EDEADLK);
}

enum step fault_park_object(struct fault *f, bool (*holds)(const struct fault *f))
{
	struct object *o = f->object;
	enum step step = STEP_AGAIN;

	if (fault_in_syscall_on(f, o))
		return fault_refuse(f, -EDEADLK);
	env_lock(&o->lock);
	if (holds(f) && fault_before_park(f)) {
		list_push_back(&o->waiters, &fault_waiter(f)->link);
		step = STEP_PARKED;
	}
	env_unlock(&o->lock);
	return step;
}

bool fault_is_frozen(const struct fault *f)
{
	return atomic_load(&f->object->frozen) != 0 && !f->freezes;
}

/* => object->lock held. */
static bool fault_in_range_op(const struct fault *f)
{
	struct object *o = f->object;

	for (struct list *n = o->range_ops.next; n != &o->range_ops; n = n->next) {
		struct range_op *op = container_of(n, struct range_op, link);
		if (f->page >= op->first && f->page <= op->last)
			return true;
	}
	return false;
}

static bool fault_lacks_space(const struct fault *f)
{
	return f->object->wake_seq == f->wake_seq;
}

/* ---- Refusal ------------------------------------------------------------------------------ */

static void refusal_fill(struct fault *f, int error)
{
	struct mkw_refusal *r = &f->refusal;

	*r = (struct mkw_refusal){
		.address = (void *)f->address,
		.length = MKW_PAGE_SIZE - (f->address & (MKW_PAGE_SIZE - 1)),
		.offset = (f->page << PAGE_SHIFT) + (f->address & (MKW_PAGE_SIZE - 1)),
		.error = error,
		.write = f->access == MMU_WRITE,
	};
	sentence_copy(r->message, sizeof(r->message),
		      error_last() == error && error_sentence()[0] != '\0' ? error_sentence()
									   : "refused");
}

/* Nobody but the thread concerned: the end of the story. */
enum step fault_refuse(struct fault *f, int error)
{
	/* Its thread may have been let go by the service of another fault: if not it comes again.
	 */
	if (f->kind == FAULT_EVENT && mmu_woken_since(f->address, f->reported)) {
		fault_note_dropped(f);
		return STEP_DROPPED;
	}
	COUNT(f->object, refusals, 1);
	refusal_fill(f, error);
	return STEP_REFUSED;
}

/* What the object's policy makes of a refusal by the store. */
static enum mkw_policy fault_policy(struct fault *f, int error)
{
	struct object *o = f->object;
	enum mkw_policy policy;
	mkw_policy_fn fn;
	void *arg;

	env_lock(&o->lock);
	policy = o->policy;
	fn = o->policy_fn;
	arg = o->policy_arg;
	env_unlock(&o->lock);
	if (fn == NULL)
		return policy;
	refusal_fill(f, error);
	policy = fn(arg, &f->refusal);
	f->refusal.error = 0;
	return policy;
}

static enum step fault_try_again(struct fault *f, int error)
{
	if (++f->tries < TRIES_MAX)
		return STEP_AGAIN;
	mkw_set_error(error, "the store asked for a new try %u times in a row", f->tries);
	return fault_refuse(f, error);
}

/* There is no memory: again when reclaim has looked for some. A fill in between is no progress: its
 * page may be what reclaim takes next. */
static enum step fault_lacks_memory(struct fault *f)
{
	if (++f->memory_tries >= TRIES_MAX) {
		mkw_set_error(-ENOMEM, "there was no memory %u times", f->memory_tries);
		return fault_refuse(f, -ENOMEM);
	}
	if (f->object->in_place) { /* all reclaim is the kernel's */
		env_nap(MEMORY_NAP_NS);
		return STEP_AGAIN;
	}
	return fault_may_not_wait_for_room(f) ? STEP_AGAIN : reclaim_park(f);
}

/* A store answered with something other than success. */
enum step fault_answer(struct fault *f, mkw_fault_t code)
{
	int error;

	if ((code & MKW_FAULT_OOM) != 0)
		return fault_lacks_memory(f);
	if ((code & (MKW_FAULT_SIGBUS | MKW_FAULT_RETRY | MKW_FAULT_NOPAGE)) == 0) {
		mkw_set_error(-EIO, "the store answered with code %#x", code);
		return fault_refuse(f, -EIO);
	}
	if ((code & MKW_FAULT_SIGBUS) == 0)
		return fault_try_again(f, -EAGAIN);
	error = error_last();
	if (error >= 0)
		error = mkw_set_error(-EIO, "the store refused (code %#x) and gave no reason",
				      code);
	if (!fault_is_notified(f) || error == -EDEADLK || f->kind == FAULT_ASK)
		return fault_refuse(f, error);
	switch (fault_policy(f, error)) {
	case MKW_WAIT:
		flusher_kick_for_space(f->object->space);
		return fault_park_object(f, fault_lacks_space);
	case MKW_DEFER:
		f->deferred = true;
		return STEP_AGAIN;
	default:
		return fault_refuse(f, error);
	}
}

/* ---- The steps ---------------------------------------------------------------------------- */

enum step fault_cannot_pin(struct fault *f)
{
	fault_unlock(f);
	mkw_set_error(-EOVERFLOW, "a page cannot be pinned more often");
	return fault_refuse(f, -EOVERFLOW);
}

enum step fault_read(struct fault *f)
{
	struct region *r = f->region;
	/* The page itself was looked at below this lock: a range op that began since waits for it.
	 */
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	int error = 0;

	while (n < f->want && slot + n < REGION_PAGES && r->pages[slot + n].state != PAGE_ABSENT &&
	       (r->pages[slot + n].flags & PAGE_LOCKED) == 0 &&
	       !object_in_range_op(f->object, f->page + n) &&
	       (f->view == NULL || private_shows_base(f->view, r, slot + n)))
		n++;
	r->referenced = true;
	if (f->kind == FAULT_PIN_READ && (n = fault_pin(f, slot, n)) == 0)
		return fault_cannot_pin(f);
	f->served = n;
	if (f->kind == FAULT_READ) {
		for (size_t i = 0; i < n; i++)
			page_lock(r, slot + i);
		f->locked = n;
	} else if (f->kind != FAULT_FILL) {
		error = mmu_map_ro(&f->view->mmu, view_address(f->view, f->page), n << PAGE_SHIFT);
	}
	if (error != 0 && f->kind == FAULT_PIN_READ)
		fault_pin_undo(f, n);
	fault_unlock(f);
	if (error == 0)
		return STEP_DONE;
	mkw_set_error(error, "cannot map a cached page: errno %d", -error);
	return fault_refuse(f, error);
}

/* => region->lock held. The store's reservation for these pages is kept (mkw_reserve). */
void fault_hold(struct fault *f, size_t slot, size_t count)
{
	struct region *r = f->region;

	for (size_t i = slot; i < slot + count; i++) {
		if ((r->pages[i].flags & PAGE_HELD) != 0)
			continue;
		r->held++;
		r->pages[i].flags |= PAGE_HELD;
		f->held[i / 64] |= 1ull << (i % 64);
	}
}

/* Making a run writable may take away for a moment what is mapped: pinned pages keep it. */
static bool run_disturbs(const struct fault *f, size_t slot, size_t n)
{
	const struct page *pages = f->region->pages;

	return f->view != NULL && !fault_is_pin(f) &&
	       (pages[slot].pins > 0 || pages[slot + n].pins > 0);
}

/* The first n pages can be written: they are mapped, counted, or held, as the fault wants them. =>
 * fault_lock held. */
static int fault_take_charged(struct fault *f, size_t n)
{
	struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1);
	uintptr_t address = view_address(f->view, f->page);
	int error;

	if (f->kind == FAULT_RESERVE)
		fault_hold(f, slot, n);
	else if (f->kind != FAULT_PIN_WRITE)
		page_change(r, slot, PAGE_WRITE);
	/* Whoever has no thread takes the page from nobody's call. */
	for (size_t i = 0; i < n && f->tid != 0; i++)
		r->pages[slot + i].writer = f->tid;
	if (f->kind != FAULT_PIN_WRITE)
		return view_map_rw(f->view, f->page, n);
	error = mmu_let_rw(&f->view->mmu, address, n << PAGE_SHIFT);
	if (error != 0)
		fault_pin_undo(f, n);
	return error;
}

/* Notified since it was last cleaned: no second question (S1.5). => fault_lock held, dropped. */
static enum step fault_write_charged(struct fault *f)
{
	struct region *r = f->region;
	size_t slot = f->page & (REGION_PAGES - 1), n = 1;
	int error = 0;

	while (n < f->want && slot + n < REGION_PAGES &&
	       (r->pages[slot + n].state == PAGE_GRANTED ||
		r->pages[slot + n].state == PAGE_DIRTY) &&
	       (r->pages[slot + n].flags & (PAGE_LOCKED | PAGE_ASK_AGAIN | PAGE_UNASKED)) == 0 &&
	       !run_disturbs(f, slot, n) && !object_in_range_op(f->object, f->page + n))
		n++;
	r->referenced = true;
	for (size_t i = 0; (f->kind == FAULT_PIN_WRITE || f->kind == FAULT_WRITE) && i < n; i++)
		page_change(r, slot + i, PAGE_WRITE);
	if (f->kind == FAULT_PIN_WRITE && (n = fault_pin(f, slot, n)) == 0)
		return fault_cannot_pin(f);
	f->served = n;
	if (f->kind == FAULT_WRITE) {
		for (size_t i = 0; i < n; i++)
			page_lock(r, slot + i);
		f->locked = n;
	} else {
		error = fault_take_charged(f, n);
	}
	fault_unlock(f);
	if (error == 0)
		return STEP_DONE;
	mkw_set_error(error, "cannot make a page writable: errno %d", -error);
	return fault_refuse(f, error);
}

static enum step fault_past_end(struct fault *f)
{
	mkw_set_error(-ENXIO, "past the end of the object (%llu bytes)",
		      (unsigned long long)f->object->size_bytes);
	return fault_refuse(f, -ENXIO);
}

/* => fault_lock held, dropped. */
static enum step fault_look(struct fault *f)
{
	struct object *o = f->object;
	struct region *r = f->region;
	struct page *p = &r->pages[f->page & (REGION_PAGES - 1)];
	bool write = f->access == MMU_WRITE;

	if (f->kind == FAULT_ASK && ((p->flags & PAGE_UNASKED) == 0 || fault_is_frozen(f))) {
		f->refusal.error = (p->flags & PAGE_UNASKED) != 0 ? -EBUSY : 0;
		fault_unlock(f);
		return f->refusal.error != 0 ? STEP_REFUSED : STEP_DONE;
	}
	if (object_in_range_op(o, f->page)) {
		fault_unlock(f);
		return fault_park_object(f, fault_in_range_op);
	}
	if (f->page >= object_pages(o)) {
		fault_unlock(f);
		return fault_past_end(f);
	}
	if (f->view != NULL && f->view->private != NULL)
		return private_look(f);
	if (write && fault_is_frozen(f)) {
		fault_unlock(f);
		return fault_park_object(f, fault_is_frozen);
	}
	if ((p->flags & PAGE_LOCKED) != 0)
		return fault_park_region(f);
	if (p->state == PAGE_ABSENT && o->in_place)
		in_place_fill(r);
	if (p->state == PAGE_ABSENT)
		return fault_fill(f);
	if (!write)
		return fault_read(f);
	if (p->state == PAGE_WRITEBACK) /* stable pages: 6.4, I4 */
		return fault_park_region(f);
	if (f->broken && page_is_charged(p)) {
		page_change(r, f->page & (REGION_PAGES - 1), PAGE_WRITE);
		p->flags |= PAGE_ASK_AGAIN;
	}
	if (p->state == PAGE_CLEAN || (p->flags & (PAGE_ASK_AGAIN | PAGE_UNASKED)) != 0)
		return p->copy == COPY_NONE ? fault_notify(f) : fault_park_region(f);
	return fault_write_charged(f);
}

/* The view is being unmapped or reshaped: the access, or the call, is tried again and meets what
 * has become of it. Likewise where the view does not allow the access any more: a fault that was
 * reported before it was forbidden. */
static bool fault_is_obsolete(const struct fault *f)
{
	if (f->view == NULL)
		return false;
	if (view_is_dying(f->view))
		return true;
	return (f->kind == FAULT_EVENT || f->kind == FAULT_INLINE) &&
	       !(f->access == MMU_READ ? f->view->mmu.readable : f->view->mmu.writable);
}

/* There will be no room for it. */
static enum step fault_denied(struct fault *f, int deny)
{
	const char *why = "the resident limit is reached and nothing can be evicted";

	if (deny == -ENOBUFS)
		why = "the dirty limit is reached and nothing can be written";
	else if (deny == -ENOSPC)
		why = "the resident limit is reached, nothing can be evicted, and the swap file is "
		      "full";
	else if (deny == -EIO)
		why = "the resident limit is reached, nothing can be evicted, and the swap file "
		      "cannot be written";
	/* What swapping fails with is no answer to who wants an object's page. */
	if (deny != -ENOBUFS && (f->view == NULL || f->view->private == NULL))
		deny = -ENOMEM;
	mkw_set_error(deny, "%s", why);
	return fault_refuse(f, deny);
}

/* There is no memory for page states. In place the kernel takes a write all the same: it is let go,
 * unasked and uncharged, as one that was never looked at, and the next is asked for. */
static enum step fault_without_region(struct fault *f)
{
	struct object *o = f->object;
	bool may = o->in_place && fault_is_access(f) && !f->broken;
	enum step step = STEP_AGAIN;

	if (!may) {
		mkw_set_error(-ENOMEM, "no memory for page states");
		return fault_refuse(f, -ENOMEM);
	}
	/* As a question, so that who quiesces waits for it and protects the page after it. */
	atomic_fetch_add(&o->asking, 1);
	if (!fault_is_frozen(f)) {
		env_read_lock(&o->views_lock);
		(void)mmu_let_rw(&f->view->mmu, view_address(f->view, f->page), MKW_PAGE_SIZE);
		env_read_unlock(&o->views_lock);
		f->served = 1;
		step = STEP_DONE;
	}
	asking_end(o);
	return step == STEP_DONE ? step : fault_park_object(f, fault_is_frozen);
}

static enum step fault_step(struct fault *f)
{
	struct object *o = f->object;
	int deny = fault_waiter(f)->deny;

	error_clear();
	if (fault_is_void(f) || fault_is_obsolete(f))
		return STEP_DROPPED;
	if (deny != 0)
		return fault_denied(f, deny);
	if (f->inside == OP_INSIDE_PERHAPS)
		return STEP_DROPPED; /* if it is there it comes again */
	if (f->inside == OP_INSIDE) {
		mkw_set_error(-EDEADLK, "a store operation touched a view of its own object");
		return fault_refuse(f, -EDEADLK);
	}
	if (f->region == NULL) {
		f->region = region_get(o, f->page);
		if (f->region == NULL)
			return fault_without_region(f);
	}
	fault_lock(f);
	return fault_look(f);
}

/* ---- Faults of handler threads ------------------------------------------------------------ */

/* Whatever became of it. */
static void fault_end(struct fault *f)
{
	uncharge_resident(f->object, f->room);
	if (f->region != NULL)
		region_put(f->region);
}

static void fault_free(struct fault *f)
{
	struct space *s = f->object->space;

	fault_end(f);
	/* The last: the space stays until its views are gone. */
	struct view *v = f->view;
	slab_fault_free(s, f);
	view_put(v);
}

/* Whoever waits at the page tries the access again. */
static void fault_wake(struct fault *f)
{
	/* A thread that was refused this leaves its wait by that, and tries again if it does not
	 * believe it; a wake would only make it disbelieve. One that was refused something else may
	 * be here, though a late report of that looked like its latest. */
	if (fault_was_answered(f))
		return;
	mmu_wake(&f->view->mmu, f->address & ~(uintptr_t)(MKW_PAGE_SIZE - 1), MKW_PAGE_SIZE);
}

/* False: it was put off. */
static bool fault_deliver(struct fault *f)
{
	struct space *s = f->object->space;
	unsigned in_a_row = refusal_record(f->tid, &f->refusal, f->reported);

	if (in_a_row > REFUSALS_BEFORE_DELAY && !f->delayed) {
		f->delayed = true;
		f->not_before_ns = env_now_ns() + REFUSAL_DELAY_NS;
		if (!fault_before_park(f))
			return true;
		env_lock(&s->ready_lock);
		list_push_back(&s->delayed, &f->waiter.link);
		env_unlock(&s->ready_lock);
		flusher_kick(s);
		return false;
	}
	if (!fault_answer_latest(f)) {
		COUNT(f->object, refusals, -(uint64_t)1);
		fault_wake(f);
		return true;
	}
	mmu_sleep_begin(s->mmu);
	if (f->view->child != NULL)
		mmu_kin_refuse(&f->view->mmu, f->access, f->tid, f->reported, &f->refusal);
	else
		mmu_refuse(&f->view->mmu, f->address, f->access, f->tid, f->reported);
	mmu_sleep_end(s->mmu);
	return true;
}

static void fault_run(struct fault *f)
{
	enum step step;

	do
		step = fault_step(f);
	while (step == STEP_AGAIN);
	if (step == STEP_PARKED || (step == STEP_REFUSED && !fault_deliver(f)))
		return;
	if (step == STEP_DROPPED)
		fault_wake(f);
	fault_free(f);
}

static void fault_init(struct fault *f, struct view *v, enum fault_kind kind, uintptr_t address,
		       enum mmu_access access)
{
	f->object = v->object;
	f->view = v;
	f->kind = kind;
	f->address = address;
	f->access = access;
	f->page = v->first + ((address - v->mmu.address) >> PAGE_SHIFT);
	/* Before it waits for anything: its thread may be inside one by the time that comes. */
	f->inside = op_inside(v->object, f->tid, address);
	f->want = stream_plan(v, f->page, access);
	/* What is behind the view's end is not its to map. */
	if (f->want > v->first + v->count - f->page)
		f->want = (size_t)(v->first + v->count - f->page);
	if (access == MMU_WRITE)
		COUNT(v->object, write_faults, 1);
	else
		COUNT(v->object, read_faults, 1);
}

/* Its view is known from here on. */
static void fault_meet(struct fault *f, struct view *v)
{
	fault_init(f, v, FAULT_EVENT, f->address, f->access);
	/* While a thread has a signal pending it faults over and over inside its call, and a report
	 * may be read after the wake that let it go to its refusal: then it is elsewhere, and a
	 * second refusal would meet it there. If it is here it comes again. */
	if (f->stale || fault_came_again_old(f)) {
		fault_wake(f);
		fault_free(f);
		return;
	}
	fault_run(f);
}

/* False: no fork is under way. Else it is left until that is over: whoever would serve it now might
 * wait for the thread that forks, which waits for its event to be read. */
static bool fault_leave(struct space *s, struct fault *f)
{
	bool leave;

	if (!atomic_load(&s->gate))
		return false;
	env_lock(&s->ready_lock);
	leave = atomic_load(&s->gate);
	if (leave)
		list_push_back(&s->ready, &f->waiter.link);
	env_unlock(&s->ready_lock);
	return leave;
}

/* v: NULL if it has to be looked up, which may wait for the thread that forks. */
static void fault_report(struct space *s, struct view *v, uintptr_t address, enum mmu_access access,
			 pid_t tid)
{
	struct fault *f = slab_fault(s);

	if (f == NULL) {
		if (v == NULL)
			v = view_find(address);
		if (v == NULL)
			return;
		mmu_wake(&v->mmu, address & ~(uintptr_t)(MKW_PAGE_SIZE - 1), MKW_PAGE_SIZE);
		view_put(v);
		return;
	}
	list_init(&f->waiter.link);
	f->waiter.wake = fault_resume;
	f->tid = tid;
	f->address = address;
	f->access = access;
	f->reported = mmu_report_time();
	f->stale = !fault_set_latest(f);
	f->view = v;
	if (fault_leave(s, f))
		return;
	if (v == NULL)
		v = view_find(address);
	/* No view: it is being unmapped or reshaped, which wakes the thread in the end. */
	if (v == NULL)
		slab_fault_free(s, f);
	else
		fault_meet(f, v);
}

void fault_event(void *space, uintptr_t address, enum mmu_access access, pid_t tid)
{
	fault_report(space, NULL, address, access, tid);
}

void fault_child(void *child, uintptr_t address, enum mmu_access access, pid_t tid)
{
	struct view *v = child_view(child, address);

	if (v != NULL)
		fault_report(child_space(child), v, address, access, tid);
}

/* One of the ready queue. NULL: it is empty, or to be left alone. */
static struct fault *fault_next_ready(struct space *s)
{
	struct list *node = NULL;

	env_lock(&s->ready_lock);
	if (!atomic_load(&s->gate))
		node = list_pop(&s->ready);
	env_unlock(&s->ready_lock);
	return node == NULL ? NULL : container_of(node, struct fault, waiter.link);
}

void fault_ready(void *space)
{
	struct space *s = space;
	struct fault *f;

	while ((f = fault_next_ready(s)) != NULL) {
		struct view *v = f->view;

		if (f->object != NULL) {
			fault_run(f);
			continue;
		}
		if (v == NULL)
			v = view_find(f->address);
		if (v == NULL)
			slab_fault_free(s, f);
		else
			fault_meet(f, v);
	}
}

uint64_t fault_tick(struct space *s, uint64_t now_ns)
{
	uint64_t next_ns = 0;
	bool due = false;

	env_lock(&s->ready_lock);
	for (struct list *n = s->delayed.next, *next; n != &s->delayed; n = next) {
		struct fault *f = container_of(n, struct fault, waiter.link);
		next = n->next;
		if (f->not_before_ns <= now_ns) {
			list_remove(n);
			list_push_back(&s->ready, n);
			due = true;
		} else if (next_ns == 0 || f->not_before_ns < next_ns) {
			next_ns = f->not_before_ns;
		}
	}
	env_unlock(&s->ready_lock);
	if (due)
		mmu_kick(s->mmu);
	return next_ns;
}

/* ---- Faults in the caller's thread -------------------------------------------------------- */

static enum step fault_run_here(struct fault *f)
{
	enum step step;

	for (;;) {
		step = fault_step(f);
		if (step == STEP_PARKED) {
			sleeper_sleep(&f->sleeper);
			/* A fork wants it out of the way: the access comes again. */
			if (f->kind == FAULT_INLINE && f->object->in_place && in_place_must_leave())
				return STEP_DROPPED;
		} else if (step != STEP_AGAIN) {
			return step;
		}
	}
}

/* Writes in a row that the kernel refused this thread, though the store found nothing wrong. */
static _Thread_local struct {
	uintptr_t address;
	unsigned tries;
} broken_row;

static bool broken_too_often(const struct fault *f)
{
	bool again = f->broken && f->address == broken_row.address;

	broken_row.tries = again ? broken_row.tries + 1 : 0;
	broken_row.address = f->broken ? f->address : 0;
	if (broken_row.tries < TRIES_MAX)
		return false;
	mkw_set_error(-EIO, "the kernel refuses what the store has granted, %u times in a row",
		      broken_row.tries);
	return true;
}

/* A fault that is served in the handler of its signal. Its thread is not cancelled while it waits
 * there: it is in the lists of others, and holds a page or a view. */
static bool fault_serve(struct view *v, uintptr_t address, enum mmu_access access, bool broken,
			struct mkw_refusal *refusal)
{
	struct fault f = {.tid = env_tid(), .broken = broken};
	enum step step;

	sleeper_init(&f.sleeper);
	fault_init(&f, v, FAULT_INLINE, address, access);
	refusal->error = 0;
	step = broken_too_often(&f) ? fault_refuse(&f, -EIO) : fault_run_here(&f);
	if (step == STEP_REFUSED) {
		refusal_record(f.tid, &f.refusal, UINT64_MAX);
		*refusal = f.refusal;
		broken_row.address = 0;
	}
	fault_end(&f);
	sleeper_destroy(&f.sleeper);
	view_put(v);
	return true;
}

static bool fault_inline_find(uintptr_t address, enum mmu_access access,
			      struct mkw_refusal *refusal)
{
	bool inside = in_place_look_begin();
	struct view *v = view_find(address);

	if (v != NULL && v->mmu.backend != MMU_INLINE) {
		view_put(v);
		in_place_look_end(inside);
		return false;
	}
	in_place_look_end(inside);
	return v == NULL ? view_await_gone(address)
			 : fault_serve(v, address, access, false, refusal);
}

bool fault_inline(uintptr_t address, enum mmu_access access, struct mkw_refusal *refusal)
{
	int cancel = env_cancel_off();
	bool served = fault_inline_find(address, access, refusal);

	env_cancel_restore(cancel);
	return served;
}

static bool fault_in_place_find(uintptr_t address, bool broken, struct mkw_refusal *refusal)
{
	struct view *v = view_find(address);

	if (v == NULL)
		return view_await_gone(address);
	if (v->mmu.backend == MMU_MPROTECT && v->mmu.writable)
		return fault_serve(v, address, MMU_WRITE, broken, refusal);
	view_put(v);
	return false;
}

bool fault_in_place(uintptr_t address, bool broken, struct mkw_refusal *refusal)
{
	bool served;
	int cancel;

	if (!views_any())
		return false;
	cancel = env_cancel_off();
	in_place_enter();
	served = fault_in_place_find(address, broken, refusal);
	in_place_leave();
	env_cancel_restore(cancel);
	return served;
}

bool fault_allowed(uintptr_t address, enum mmu_access access)
{
	bool inside = in_place_look_begin(), allowed = false;
	struct view *v = view_find(address);

	if (v != NULL) {
		allowed = access == MMU_READ ? v->mmu.readable : v->mmu.writable;
		view_put(v);
	}
	in_place_look_end(inside);
	return v != NULL ? allowed : mmu_ward_allows(address, access) || view_await_gone(address);
}

int fault_call(struct fault *f, struct object *o, struct view *v, enum fault_kind kind,
	       uint64_t page, size_t want)
{
	enum step step;

	*f = (struct fault){
		.object = o,
		.view = v,
		.page = page,
		.kind = kind,
		.want = want,
		.held = kind == FAULT_RESERVE ? f->held : NULL,
		.freezes = kind == FAULT_ASK && f->freezes,
		.part = kind == FAULT_PIN_READ || kind == FAULT_PIN_WRITE ? f->part : NULL,
		.access = kind == FAULT_READ || kind == FAULT_FILL || kind == FAULT_PIN_READ
				  ? MMU_READ
				  : MMU_WRITE,
	};
	sleeper_init(&f->sleeper);
	step = fault_run_here(f);
	if (step != STEP_REFUSED)
		return step == STEP_DROPPED ? VIEW_GONE : 0;
	f->refusal.address = NULL;
	if (kind != FAULT_ASK)
		refusal_record(env_tid(), &f->refusal, UINT64_MAX);
	return f->refusal.error;
}

void fault_call_end(struct fault *f)
{
	if (f->locked > 0) {
		env_lock(&f->region->lock);
		for (size_t i = 0; i < f->locked; i++)
			page_unlock(f->region, (f->page & (REGION_PAGES - 1)) + i);
		waiters_wake(&f->region->waiters);
		env_unlock(&f->region->lock);
	}
	fault_end(f);
	sleeper_destroy(&f->sleeper);
}
