/* SPDX-License-Identifier: MIT */
/*
 * space.c - spaces: limits, threads, statistics, the end.
 */
#include "vm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS_DEFAULT	    2u
#define WORKERS_MAX_DEFAULT 64u
#define WORKERS_LIMIT	    1024u
#define INTERVAL_DEFAULT_MS 1000u

void space_log(struct space *s, enum mkw_log_level level, const char *format, ...)
{
	char message[256];
	va_list ap;

	if (s->log == NULL)
		return;
	va_start(ap, format);
	vsnprintf(message, sizeof(message), format, ap);
	va_end(ap);
	s->log(s->log_arg, level, message);
}

/* ---- Making ------------------------------------------------------------------------------- */

static bool signal_refused(uintptr_t address, struct mkw_refusal *refusal)
{
	return refusal_take(env_tid(), address, refusal);
}

static void signal_record(pid_t tid, const struct mkw_refusal *refusal, uint64_t reported)
{
	refusal_record(tid, refusal, reported);
}

static const struct mmu_signal_upcalls signal_upcalls = {
	.inline_fault = fault_inline,
	.allowed = fault_allowed,
	.refused = signal_refused,
	.deliver = refusal_deliver,
	.bad_address = guard_bad_address,
	.record = signal_record,
	.in_place_fault = fault_in_place,
	.again = in_place_again,
	.unknown = in_place_unknown,
};

static const struct mmu_upcalls upcalls = {
	.fault = fault_event,
	.ready = fault_ready,
};

/* One instruction may read two pages and write two, all across a boundary, and is finished only
 * when it has all of them at a time. */
#define RESIDENT_LEAST_PAGES 4u
#define DIRTY_LEAST_PAGES    2u

int limits_check(uint64_t resident_bytes, uint64_t dirty_bytes)
{
	if (resident_bytes != 0 && resident_bytes < RESIDENT_LEAST_PAGES * MKW_PAGE_SIZE)
		return mkw_set_error(-EINVAL, "a resident limit is at least %u pages, or 0",
				     RESIDENT_LEAST_PAGES);
	if (dirty_bytes != 0 && dirty_bytes < DIRTY_LEAST_PAGES * MKW_PAGE_SIZE)
		return mkw_set_error(-EINVAL, "a dirty limit is at least %u pages, or 0",
				     DIRTY_LEAST_PAGES);
	return 0;
}

static int options_read(const struct mkw_space_options *given, struct mkw_space_options *o)
{
	*o = (struct mkw_space_options)MKW_SPACE_OPTIONS_INIT;
	if (given != NULL) {
		if (given->struct_size != sizeof(*o))
			return mkw_set_error(-EINVAL,
					     "struct mkw_space_options has a size of %zu, not %zu",
					     given->struct_size, sizeof(*o));
		*o = *given;
	}
	if (limits_check(o->resident_limit_bytes, o->dirty_limit_bytes) != 0)
		return -EINVAL;
	if ((o->flags & ~MKW_SPACE_IN_PLACE) != 0)
		return mkw_set_error(-EINVAL, "unknown flags of a space");
	if ((o->flags & MKW_SPACE_IN_PLACE) != 0 &&
	    (o->resident_limit_bytes != 0 || o->swap_path != NULL))
		return mkw_set_error(-EINVAL, "the page cache of files in place is the kernel's: "
					      "it has no resident limit and no swap file");
	if (o->swap_path == NULL && o->swap_limit_bytes != 0)
		return mkw_set_error(-EINVAL, "swap_limit_bytes without a swap_path");
	if (o->swap_limit_bytes != 0 && o->swap_limit_bytes < 2 * MKW_PAGE_SIZE)
		return mkw_set_error(-EINVAL, "swap_limit_bytes is at least two pages, or 0");
	if (o->workers == 0)
		o->workers = o->workers_max != 0 && o->workers_max < WORKERS_DEFAULT
				     ? o->workers_max
				     : WORKERS_DEFAULT;
	if (o->workers_max == 0)
		o->workers_max =
			o->workers > WORKERS_MAX_DEFAULT ? o->workers : WORKERS_MAX_DEFAULT;
	if (o->workers > o->workers_max || o->workers_max > WORKERS_LIMIT)
		return mkw_set_error(-EINVAL,
				     "workers must not be more than workers_max, nor that than %u",
				     WORKERS_LIMIT);
	if (o->writeback_interval_ms == 0)
		o->writeback_interval_ms = INTERVAL_DEFAULT_MS;
	return 0;
}

static void space_init(struct space *s, const struct mkw_space_options *o)
{
	env_mutex_init(&s->lock, RANK_SPACE);
	env_cond_init(&s->closed);
	list_init(&s->objects);
	list_init(&s->link);
	list_init(&s->children);
	list_init(&s->pins);
	s->interval_ms = o->writeback_interval_ms;
	s->in_place = (o->flags & MKW_SPACE_IN_PLACE) != 0;
	s->swap_limit_bytes = o->swap_limit_bytes;
	s->log = o->log;
	s->log_arg = o->log_arg;
	env_mutex_init(&s->charge_lock, RANK_CHARGE);
	s->account.resident_limit = o->resident_limit_bytes >> PAGE_SHIFT;
	s->account.dirty_limit = o->dirty_limit_bytes >> PAGE_SHIFT;
	list_init(&s->account.dirty_waiters);
	list_init(&s->resident_waiters);
	list_init(&s->memory_waiters);
	list_init(&s->pager_requests);
	list_init(&s->regions);
	env_cond_init(&s->flusher_cond);
	env_cond_init(&s->reclaimer_cond);
	env_mutex_init(&s->ready_lock, RANK_READY);
	list_init(&s->ready);
	list_init(&s->delayed);
	env_mutex_init(&s->slab_lock, RANK_LEAF);
	list_init(&s->chunks);
}

static void space_free(struct space *s)
{
	swap_close(&s->swap);
	slab_destroy(s);
	env_mutex_destroy(&s->slab_lock);
	env_mutex_destroy(&s->ready_lock);
	env_cond_destroy(&s->reclaimer_cond);
	env_cond_destroy(&s->flusher_cond);
	env_mutex_destroy(&s->charge_lock);
	env_cond_destroy(&s->closed);
	env_mutex_destroy(&s->lock);
	free(s);
}

static void space_stop(struct space *s)
{
	env_lock(&s->charge_lock);
	s->stopping = true;
	env_broadcast(&s->flusher_cond);
	env_broadcast(&s->reclaimer_cond);
	env_unlock(&s->charge_lock);
	if (s->flusher_started)
		env_thread_join(s->flusher);
	if (s->reclaimer_started)
		env_thread_join(s->reclaimer);
	if (s->mmu != NULL)
		mmu_destroy(s->mmu);
}

int space_start_flusher(struct space *s)
{
	int error = 0;

	env_lock(&s->lock);
	if (!s->flusher_started)
		error = env_thread_start(&s->flusher, "mkw-flusher", flusher_main, s);
	s->flusher_started |= error == 0;
	env_unlock(&s->lock);
	return error == 0 ? 0 : mkw_set_error(error, "cannot start a thread: errno %d", -error);
}

static int space_start(struct space *s, const struct mkw_space_options *o)
{
	struct mmu_options mmu_options = {.in_place = s->in_place,
					  .workers = o->workers,
					  .workers_max = o->workers_max,
					  .upcalls = &upcalls,
					  .arg = s};
	int error;

	error = swap_open(&s->swap, o->swap_path, o->swap_limit_bytes);
	if (error != 0)
		return error;
	mmu_set_signal_upcalls(&signal_upcalls);
	if (s->in_place)
		in_place_begin();
	error = mmu_create(&mmu_options, &s->mmu);
	if (error != 0)
		return error;
	/* In place the kernel writes, unless there is a limit to make room under. */
	if (s->in_place && o->dirty_limit_bytes == 0)
		return 0;
	error = space_start_flusher(s);
	if (error == 0 && !s->in_place) {
		error = env_thread_start(&s->reclaimer, "mkw-reclaimer", reclaimer_main, s);
		s->reclaimer_started = error == 0;
	}
	return error == 0 ? 0 : mkw_set_error(error, "cannot start a thread: errno %d", -error);
}

int mkw_space_create(const struct mkw_space_options *options, struct mkw_space **space)
{
	struct mkw_space_options o;
	struct env_shield shield;
	struct space *s;
	int error;

	error_clear();
	if (space == NULL)
		return mkw_set_error(-EINVAL, "no place for the space");
	error = options_read(options, &o);
	if (error != 0)
		return error;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return mkw_set_error(-ENOMEM, "no memory for a space");
	env_shield(&shield);
	space_init(s, &o);
	error = space_start(s, &o);
	if (error == 0)
		error = process_add(s);
	if (error != 0) {
		space_stop(s);
		space_free(s);
	} else {
		*space = &s->public;
	}
	env_unshield(&shield);
	return error;
}

/* ---- The end ------------------------------------------------------------------------------ */

/* An object to end, marked closing. */
static struct object *space_pick(struct space *s)
{
	struct object *found = NULL;
	bool closing = true;

	env_lock(&s->lock);
	while (found == NULL && closing) {
		closing = false;
		for (struct list *n = s->objects.next; n != &s->objects; n = n->next) {
			struct object *o = container_of(n, struct object, link);
			if (o->closing)
				closing = true;
			else
				found = o;
		}
		if (found != NULL)
			found->closing = true;
		else if (closing)
			env_wait(&s->closed, &s->lock);
	}
	env_unlock(&s->lock);
	return found;
}

struct object *space_object_after(struct space *s, uint64_t id)
{
	struct object *found = NULL;

	env_lock(&s->lock);
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next) {
		struct object *o = container_of(n, struct object, link);
		if (o->id > id && !o->ending && (found == NULL || o->id < found->id))
			found = o;
	}
	if (found != NULL)
		found->pins++;
	env_unlock(&s->lock);
	return found;
}

void object_unpin(struct object *o)
{
	struct space *s = o->space;

	env_lock(&s->lock);
	if (--o->pins == 0)
		env_broadcast(&s->closed);
	env_unlock(&s->lock);
}

/* Freeze and write every object; *last_id: up to which they are frozen now. The first error of one
 * that keeps dirty pages: the others are written all the same. */
static int space_freeze(struct space *s, uint64_t *last_id, struct error_record *failed)
{
	struct object *o;

	*last_id = 0;
	failed->error = 0;
	while ((o = space_object_after(s, *last_id)) != NULL) {
		int error = object_freeze(o);
		*last_id = o->id;
		if (error != 0 && failed->error == 0 && object_is_dirty(o))
			error_keep(failed, error);
		object_unpin(o);
	}
	return failed->error;
}

/* The space goes on; its caller has been told what failed so far. */
static void space_keep(struct space *s, uint64_t last_id)
{
	struct object *o;
	uint64_t id = 0;

	while ((o = space_object_after(s, id)) != NULL && o->id <= last_id) {
		id = o->id;
		env_lock(&o->lock);
		if (object_is_dirty(o))
			o->error_seen_seq = o->error_seq;
		env_unlock(&o->lock);
		object_thaw(o);
		object_unpin(o);
	}
	if (o != NULL)
		object_unpin(o);
}

/* Views go, then objects, written or not. */
static void space_end(struct space *s, struct error_record *first)
{
	struct object *o;
	struct view *v;
	bool gone;

	first->error = 0;
	process_remove(s);
	children_end(s);
	while ((v = view_steal(s)) != NULL) {
		int error = view_unmap(v);
		if (first->error == 0)
			error_keep(first, error);
	}
	while ((o = space_pick(s)) != NULL) {
		int error = object_end(o, true, true, &gone);
		if (first->error == 0)
			error_keep(first, error);
	}
	if (first->error == 0)
		*first = s->unheard;
	space_stop(s);
	space_free(s);
}

static int destroy_check(struct mkw_space *space, unsigned flags)
{
	struct space *s;
	unsigned handles;

	if (space == NULL || (flags & ~MKW_DISCARD) != 0)
		return mkw_set_error(-EINVAL, "no space, or unknown flags");
	s = space_of(space);
	if (process_check(s) != 0)
		return -ECHILD;
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	env_lock(&s->lock);
	handles = s->handles;
	env_unlock(&s->lock);
	return handles > 0 ? mkw_set_error(-EBUSY, "%u handles are open", handles) : 0;
}

/* What is pinned has a user who may still have it written to. */
static int destroy_pins(struct space *s, unsigned flags)
{
	unsigned pins = pins_report(s);

	if (pins > 0 && (flags & MKW_DISCARD) == 0)
		return mkw_set_error(-EBUSY, "%u pins have not been ended by mkw_unpin", pins);
	pins_end(s);
	return 0;
}

/*
 * Everything is frozen and written before the first view goes: then what follows has nothing left
 * to write that could fail, and until then nothing is lost but a few waits (contract 11).
 */
int mkw_space_destroy(struct mkw_space *space, unsigned flags)
{
	struct error_record failed;
	struct env_shield shield;
	uint64_t last_id;
	int error;

	error_clear();
	env_shield(&shield);
	error = destroy_check(space, flags);
	if (error == 0)
		error = destroy_pins(space_of(space), flags);
	if (error != 0) {
		env_unshield(&shield);
		return error;
	}
	if (space_freeze(space_of(space), &last_id, &failed) != 0 && (flags & MKW_DISCARD) == 0) {
		space_keep(space_of(space), last_id);
		failed.error = -EBUSY;
		error = error_say("the space is as it was", &failed);
	} else {
		space_end(space_of(space), &failed);
		/* Those of a space that lives on. */
		if (failed.error == -EBUSY || failed.error == -EINVAL || failed.error == -EDEADLK)
			failed.error = -EIO;
		error = failed.error != 0 ? error_say("the space has ended", &failed) : 0;
	}
	env_unshield(&shield);
	return error;
}

/* ---- Statistics --------------------------------------------------------------------------- */

static void stat_fill(struct mkw_stat *stat, struct counters *c, const struct account *a)
{
	*stat = (struct mkw_stat){
		.read_faults = c->read_faults,
		.write_faults = c->write_faults,
		.waits = c->waits,
		.fills = c->fills,
		.pages_filled = c->pages_filled,
		.notifications = c->notifications,
		.pages_granted = c->pages_granted,
		.refusals = c->refusals,
		.writes = c->writes,
		.pages_written = c->pages_written,
		.pages_unwritten = c->pages_unwritten,
		.write_errors = c->write_errors,
		.pages_evicted = c->pages_evicted,
		.resident_bytes = a->resident << PAGE_SHIFT,
		.resident_limit_bytes = a->resident_limit << PAGE_SHIFT,
		.resident_peak_bytes = a->resident_peak << PAGE_SHIFT,
		.dirty_bytes = a->dirty << PAGE_SHIFT,
		.dirty_limit_bytes = a->dirty_limit << PAGE_SHIFT,
		.dirty_peak_bytes = a->dirty_peak << PAGE_SHIFT,
		.private_bytes = c->pages_private << PAGE_SHIFT,
		.swapped_bytes = c->pages_swapped << PAGE_SHIFT,
		.swap_outs = c->swap_outs,
		.swap_ins = c->swap_ins,
		.pins = c->pins,
		.pinned_bytes = c->pages_pinned << PAGE_SHIFT,
	};
}

int mkw_space_stat(struct mkw_space *space, struct mkw_stat *stat, size_t stat_size)
{
	struct env_shield shield;
	const struct mmu_counts *m;
	struct mkw_stat full;
	struct space *s;

	error_clear();
	if (space == NULL || stat == NULL || stat_size > sizeof(full))
		return mkw_set_error(-EINVAL, "no space, no place, or a struct of a wrong size");
	s = space_of(space);
	if (process_check(s) != 0)
		return -ECHILD;
	env_shield(&shield);
	env_lock(&s->charge_lock);
	stat_fill(&full, &s->counters, &s->account);
	env_unlock(&s->charge_lock);
	env_unshield(&shield);
	m = mmu_counts(s->mmu);
	full.events = m->events;
	full.mmu_calls = m->calls;
	full.wakeups = m->wakeups;
	full.workers = m->workers;
	full.swap_limit_bytes = s->swap_limit_bytes;
	memcpy(stat, &full, stat_size);
	return 0;
}

int mkw_object_stat(struct mkw_handle *h, struct mkw_stat *stat, size_t stat_size)
{
	struct env_shield shield;
	struct mkw_stat full;
	struct object *o;

	error_clear();
	if (h == NULL || stat == NULL || stat_size > sizeof(full))
		return mkw_set_error(-EINVAL, "no handle, no place, or a struct of a wrong size");
	o = h->object;
	if (process_check(o->space) != 0)
		return -ECHILD;
	env_shield(&shield);
	env_lock(&o->space->charge_lock);
	stat_fill(&full, &o->counters, &o->account);
	env_unlock(&o->space->charge_lock);
	env_unshield(&shield);
	memcpy(stat, &full, stat_size);
	return 0;
}

size_t mkw_backends(struct mkw_backend_info *info, size_t capacity)
{
	return mmu_probe(info, capacity);
}
