/* SPDX-License-Identifier: MIT */
/*
 * object.c - the life of objects and handles: making, opening, the end; who waits at an object is
 * woken here.
 *
 * An object lives while it has handles, views or pins; then it is written out and released. If it
 * cannot be written it stays in the space, without handles, and the flusher goes on trying: nothing
 * dirty is dropped because something failed.
 */
#include "vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Handles ------------------------------------------------------------------------------ */

int handle_check(const struct mkw_handle *h)
{
	if (h == NULL)
		return mkw_set_error(-EINVAL, "no handle");
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	return process_check(h->object->space);
}

int object_check_cache(const struct object *o)
{
	return o->in_place ? mkw_set_error(-EINVAL, "a file in place is read, written and cut by "
						    "the file's own calls")
			   : 0;
}

/* ---- Waking ------------------------------------------------------------------------------- */

void object_wake(struct object *o)
{
	env_lock(&o->lock);
	waiters_wake(&o->waiters);
	env_unlock(&o->lock);
}

void mkw_object_wake(struct mkw_object *public)
{
	struct object *o = object_of(public);

	env_lock(&o->lock);
	o->wake_seq++;
	waiters_wake(&o->waiters);
	env_unlock(&o->lock);
}

/* ---- Making ------------------------------------------------------------------------------- */

/* Copy the operations: a caller's struct may be older (shorter) than ours. */
static int object_set_ops(struct object *o, const struct mkw_store_ops *ops)
{
	size_t size = ops->struct_size;

	if (size < offsetof(struct mkw_store_ops, page_mkwrite) || size > sizeof(*ops) ||
	    size % sizeof(ops->fault) != 0)
		return mkw_set_error(-EINVAL, "struct mkw_store_ops has a size of %zu, not %zu",
				     size, sizeof(*ops));
	memcpy(&o->ops_copy, ops, size);
	o->ops = &o->ops_copy;
	if (o->ops->fault == NULL && !o->in_place)
		return mkw_set_error(-EINVAL, "a store needs the operation fault");
	o->can_write = o->ops->writepages != NULL;
	return 0;
}

static void object_free(struct object *o)
{
	if (o->radix != NULL)
		region_tree_free(o->radix, 0);
	if (o->frames != NULL)
		frames_destroy(o->frames);
	env_mutex_destroy(&o->lock);
	env_rwlock_destroy(&o->views_lock);
	free(o);
}

/* Not in the space yet. */
static struct object *object_new(struct space *s, const struct mkw_open_args *args, int *error)
{
	struct object *o = calloc(1, sizeof(*o));

	if (o == NULL) {
		*error = mkw_set_error(-ENOMEM, "no memory for an object");
		return NULL;
	}
	env_mutex_init(&o->lock, RANK_OBJECT);
	env_rwlock_init(&o->views_lock, RANK_OBJECT_VIEWS);
	list_init(&o->link);
	list_init(&o->views);
	list_init(&o->waiters);
	list_init(&o->range_ops);
	list_init(&o->account.dirty_waiters);
	o->space = s;
	o->store = args->store;
	o->size_bytes = args->size_bytes;
	o->dev = args->dev;
	o->ino = args->ino;
	memcpy(o->identity, args->identity, sizeof(o->identity));
	o->identity_length = args->identity_length;
	o->manual = (args->flags & MKW_MANUAL) != 0;
	o->in_place = s->in_place;
	*error = object_set_ops(o, args->ops);
	if (*error == 0 && args->size_bytes > OBJECT_PAGES_MAX << PAGE_SHIFT)
		*error = mkw_set_error(-EFBIG, "the store is larger than an object can be");
	if (*error == 0) {
		o->radix = env_alloc(RADIX_SLOTS * sizeof(void *));
		*error = o->radix == NULL ? mkw_set_error(-ENOMEM, "no memory for an object") : 0;
		if (*error == 0 && !o->in_place)
			*error = frames_create(&o->frames);
	}
	if (*error == 0)
		return o;
	object_free(o);
	return NULL;
}

/* ---- Opening ------------------------------------------------------------------------------ */

/* => space->lock held. */
static struct object *object_find(struct space *s, const struct mkw_open_args *args)
{
	if (args->identity_length == 0)
		return NULL;
	for (struct list *n = s->objects.next; n != &s->objects; n = n->next) {
		struct object *o = container_of(n, struct object, link);
		if (o->identity_length == args->identity_length &&
		    memcmp(o->identity, args->identity, args->identity_length) == 0)
			return o;
	}
	return NULL;
}

static struct mkw_handle *handle_new(struct object *o, unsigned flags)
{
	struct mkw_handle *h = calloc(1, sizeof(*h));

	if (h == NULL)
		return NULL;
	h->object = o;
	h->flags = flags;
	env_lock(&o->lock);
	/* An old error is a new handle's only if nobody has seen it. */
	h->error_seq = o->error_seen_seq;
	env_unlock(&o->lock);
	return h;
}

/* => space->lock held. A handle on the object that is there already. NULL and 0: none is; wait and
 * look again while one is being ended. */
static struct mkw_handle *open_existing(struct space *s, const struct mkw_open_args *args,
					int *error)
{
	struct object *o;

	*error = 0;
	while ((o = object_find(s, args)) != NULL && (o->closing || o->opening))
		env_wait(&s->closed, &s->lock);
	if (o == NULL)
		return NULL;
	if ((args->flags & MKW_RDWR) != 0 && o->opened_rdonly) {
		*error = mkw_set_error(-EBUSY, "this process has it open read-only");
		return NULL;
	}
	if (((args->flags & MKW_MANUAL) != 0) != o->manual) {
		*error = mkw_set_error(-EBUSY, "this process has it open with another MKW_MANUAL");
		return NULL;
	}
	struct mkw_handle *h = handle_new(o, args->flags);
	if (h == NULL) {
		*error = mkw_set_error(-ENOMEM, "no memory for a handle");
		return NULL;
	}
	o->handles++;
	s->handles++;
	return h;
}

/* Make the object known, so that nobody opens the same twice, and only then attach its store. */
static int open_new(struct space *s, struct object *o, unsigned flags, struct mkw_handle **handle)
{
	struct mkw_handle *h = handle_new(o, flags);
	int error;

	if (h == NULL)
		return mkw_set_error(-ENOMEM, "no memory for a handle");
	o->opened_rdonly = (flags & MKW_RDWR) == 0;
	o->opening = true;
	o->handles = 1;
	o->id = ++s->last_id;
	list_push_back(&s->objects, &o->link);
	s->handles++;
	env_unlock(&s->lock);
	error = op_attach(o);
	env_lock(&s->lock);
	o->opening = false;
	env_broadcast(&s->closed);
	if (error == 0) {
		*handle = h;
		return 0;
	}
	list_remove(&o->link);
	s->handles--;
	while (o->pins > 0)
		env_wait(&s->closed, &s->lock);
	free(h);
	return error;
}

static void store_release(const struct mkw_open_args *args)
{
	if (args->ops->struct_size > offsetof(struct mkw_store_ops, release) &&
	    args->ops->release != NULL)
		args->ops->release(args->store);
}

/* args->store becomes an object's, or is released. -ESTALE without a sentence: an object of the
 * space has ended since `ended` was read, and args may tell of its storage as it was before. */
static int object_open(struct space *s, const struct mkw_open_args *args, bool own_on_error,
		       uint64_t ended, struct mkw_handle **handle)
{
	struct mkw_handle *h;
	struct object *o;
	int error;

	o = object_new(s, args, &error);
	if (o == NULL)
		goto release;
	env_lock(&s->lock);
	h = open_existing(s, args, &error);
	if (h != NULL || error != 0) {
		env_unlock(&s->lock);
		object_free(o);
		if (h != NULL) {
			*handle = h;
			store_release(args);
			return 0;
		}
		goto release;
	}
	if (args->identity_length != 0 && s->ended != ended)
		error = -ESTALE;
	else
		error = open_new(s, o, args->flags, handle);
	env_unlock(&s->lock);
	if (error == 0)
		return 0;
	object_free(o);
release:
	if (own_on_error)
		store_release(args);
	return error;
}

#define OPEN_FLAGS (MKW_RDWR | MKW_CREATE | MKW_EXCL | MKW_TRUNC | MKW_MANUAL)

static int open_check(struct mkw_space *space, unsigned flags, struct mkw_handle **handle)
{
	if (space == NULL || handle == NULL)
		return mkw_set_error(-EINVAL, "no space or no place for the handle");
	if ((flags & ~OPEN_FLAGS) != 0 || ((flags & MKW_EXCL) != 0 && (flags & MKW_CREATE) == 0) ||
	    ((flags & (MKW_TRUNC | MKW_CREATE)) != 0 && (flags & MKW_RDWR) == 0))
		return mkw_set_error(-EINVAL,
				     "flags %#x: unknown, or EXCL without CREATE, or CREATE or "
				     "TRUNC without RDWR",
				     flags);
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	return process_check(space_of(space));
}

static int open_check_cache(struct mkw_space *space, unsigned flags, struct mkw_handle **handle)
{
	int error = open_check(space, flags, handle);

	if (error == 0 && space_of(space)->in_place)
		error = mkw_set_error(-EINVAL, "the space is for files in place");
	return error;
}

/* One try: as object_open. */
static int open_uri(struct space *s, const char *uri, unsigned flags, struct mkw_handle **handle)
{
	struct mkw_open_args args = {0};
	uint64_t ended;
	int error;

	error_clear();
	env_lock(&s->lock);
	ended = s->ended;
	env_unlock(&s->lock);
	error = mkw_store_open(uri, flags, &args);
	args.flags = flags;
	return error != 0 ? error : object_open(s, &args, true, ended, handle);
}

int mkw_open(struct mkw_space *space, const char *uri, unsigned flags, struct mkw_handle **handle)
{
	struct env_shield shield;
	int error;

	error_clear();
	error = open_check_cache(space, flags, handle);
	if (error == 0 && uri == NULL)
		error = mkw_set_error(-EINVAL, "no URI");
	if (error != 0)
		return error;
	env_shield(&shield);
	/* A try that was too early has made the storage, if that was asked for. */
	while ((error = open_uri(space_of(space), uri, flags, handle)) == -ESTALE &&
	       error_last() == 0)
		flags &= ~MKW_EXCL;
	env_unshield(&shield);
	return error;
}

int mkw_create_in_place(struct mkw_space *space, const struct mkw_store_ops *ops, void *store,
			unsigned flags, struct mkw_handle **handle)
{
	struct mkw_open_args args = {
		.ops = ops,
		.store = store,
		.size_bytes = OBJECT_PAGES_MAX << PAGE_SHIFT,
		.flags = flags,
	};
	struct env_shield shield;
	int error;

	error_clear();
	error = open_check(space, flags, handle);
	if (error == 0 && !space_of(space)->in_place)
		error = mkw_set_error(-EINVAL, "the space is not for files in place");
	if (error == 0 && (flags & ~MKW_RDWR) != 0)
		error = mkw_set_error(-EINVAL, "of a file in place the flag is MKW_RDWR, or none");
	if (error == 0 && (ops == NULL || ops->struct_size < sizeof(*ops) || !ops->writepages))
		error = mkw_set_error(-EINVAL, "a file in place needs the operation writepages");
	if (error != 0)
		return error;
	env_shield(&shield);
	error = object_open(space_of(space), &args, false, 0, handle);
	env_unshield(&shield);
	return error;
}

int mkw_create(struct mkw_space *space, const struct mkw_store_ops *ops, void *store,
	       uint64_t size_bytes, unsigned flags, struct mkw_handle **handle)
{
	struct mkw_open_args args = {
		.ops = ops, .store = store, .size_bytes = size_bytes, .flags = flags};
	struct env_shield shield;
	int error;

	error_clear();
	error = open_check_cache(space, flags, handle);
	if (error == 0 && ops == NULL)
		error = mkw_set_error(-EINVAL, "no operations");
	if (error != 0)
		return error;
	env_shield(&shield);
	error = object_open(space_of(space), &args, false, 0, handle);
	env_unshield(&shield);
	return error;
}

/* ---- The end ------------------------------------------------------------------------------ */

/* The store gets back what it reserved for pages that are now dropped, or that mkw_reserve held and
 * nobody released. */
static void region_unreserve(struct region *r)
{
	bool reserved[REGION_PAGES];

	/* Reclaim may be evicting others. */
	env_lock(&r->lock);
	for (size_t i = 0; i < REGION_PAGES; i++)
		reserved[i] = page_is_charged(&r->pages[i]) || (r->pages[i].flags & PAGE_HELD) != 0;
	env_unlock(&r->lock);
	for (size_t i = 0; i < REGION_PAGES;) {
		size_t from = i;
		while (i < REGION_PAGES && reserved[i])
			i++;
		if (i > from)
			op_unreserve(r->object, r->first + from, i - from);
		else
			i++;
	}
}

/* Nobody else has the object: its pages go, then itself. */
static void object_destroy(struct object *o)
{
	struct space *s = o->space;
	struct sleeper sleeper;
	struct range_op op;
	struct region *r;
	uint64_t next = 0;

	range_op_begin(o, &op, 0, OBJECT_PAGES_MAX - 1);
	while ((r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		region_unreserve(r);
		region_put(r);
	}
	object_detach(o, 0, OBJECT_PAGES_MAX - 1, true);
	range_op_end(o, &op);
	next = 0;
	/* Regions are kept by reservations too; and reclaim may be looking at one. */
	while ((r = region_next(o, next)) != NULL) {
		next = r->first + REGION_PAGES;
		env_lock(&r->lock);
		r->held = 0;
		env_unlock(&r->lock);
		region_put(r);
	}
	sleeper_init(&sleeper);
	env_lock(&o->lock);
	while (o->region_count > 0) {
		list_push_back(&o->waiters, &sleeper.waiter.link);
		env_unlock(&o->lock);
		sleeper_sleep(&sleeper);
		env_lock(&o->lock);
	}
	env_unlock(&o->lock);
	sleeper_destroy(&sleeper);
	op_release(o);
	/* Only now: who opens the same storage again must not meet what the store held. */
	env_lock(&s->lock);
	list_remove(&o->link);
	s->ended++;
	env_broadcast(&s->closed);
	env_unlock(&s->lock);
	object_free(o);
}

bool object_is_dirty(struct object *o)
{
	bool dirty;

	env_lock(&o->space->charge_lock);
	dirty = o->account.dirty > 0;
	env_unlock(&o->space->charge_lock);
	return dirty;
}

/* For the end of the space to tell. => space->lock held. */
static void space_keep_error(struct space *s, const struct error_record *error)
{
	if (s->unheard.error == 0)
		s->unheard = *error;
}

int object_end(struct object *o, bool discard, bool heard, bool *gone)
{
	struct space *s = o->space;
	struct error_record failed, unheard = {0};
	int error = 0;

	/* In place what is dirty is so in the kernel, which goes on with it as ever. */
	discard |= o->in_place;
	if (!o->in_place && (object_is_dirty(o) || atomic_load(&o->unsynced)))
		error = writeback_sync(o, 0, OBJECT_PAGES_MAX - 1);
	error_keep(&failed, error);
	/* What is written but not durable cannot be kept for a better time: only dirty pages can.
	 */
	*gone = !object_is_dirty(o) || discard;
	env_lock(&o->lock);
	if (o->error_seen_seq < o->error_seq)
		unheard = o->error;
	o->error_seen_seq = o->error_seq;
	env_unlock(&o->lock);
	env_lock(&s->lock);
	if (!*gone) {
		o->closing = false;
		env_broadcast(&s->closed);
		env_unlock(&s->lock);
		return error_say("the space keeps dirty pages", &failed);
	}
	while (o->pins > 0)
		env_wait(&s->closed, &s->lock);
	/* While the object is there the space cannot end. */
	if (!heard)
		space_keep_error(s, error != 0 ? &failed : &unheard);
	o->ending = true;
	env_unlock(&s->lock);
	object_destroy(o);
	if (error != 0)
		return error_say("at the end", &failed);
	return unheard.error != 0 ? error_say("unreported until now", &unheard) : 0;
}

int object_release(struct object *o, enum object_user user)
{
	struct space *s = o->space;
	bool gone;

	env_lock(&s->lock);
	if (user == USER_HANDLE) {
		o->handles--;
		s->handles--;
	} else if (user == USER_VIEW) {
		o->view_count--;
	} else {
		o->pin_parts--;
	}
	if (object_is_used(o) || o->closing || o->opening) {
		env_unlock(&s->lock);
		return 0;
	}
	o->closing = true;
	env_unlock(&s->lock);
	return object_end(o, false, user == USER_HANDLE, &gone);
}

int mkw_close(struct mkw_handle *h)
{
	struct env_shield shield;
	struct error_record unheard = {0};
	struct object *o;
	int end;

	error_clear();
	if (h == NULL)
		return mkw_set_error(-EINVAL, "no handle");
	if (process_check(h->object->space) != 0)
		return -ECHILD;
	if (op_running())
		return mkw_set_error(-EDEADLK, "called inside a store operation");
	env_shield(&shield);
	while (h->freezes > 0)
		mkw_thaw(h);
	o = h->object;
	/* What this handle has not heard, if nobody else will. */
	env_lock(&o->lock);
	if (h->error_seq < o->error_seq && o->error_seen_seq < o->error_seq) {
		unheard = o->error;
		o->error_seen_seq = o->error_seq;
	}
	env_unlock(&o->lock);
	free(h);
	end = object_release(o, USER_HANDLE);
	env_unshield(&shield);
	if (end != 0)
		return end;
	return unheard.error != 0 ? error_say("unreported until now", &unheard) : 0;
}
