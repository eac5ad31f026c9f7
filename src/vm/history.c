/* SPDX-License-Identifier: MIT */
/*
 * history.c - the error history of an object (6.5), and what each handle has heard of it.
 *
 * Errors of write-back and of the store are counted, the last one is kept. A handle is told what
 * was recorded since it last heard; a new one is told of an old error only if nobody has been.
 *
 * Locks: object->lock.
 */
#include "vm.h"

void object_record_error(struct object *o, int error)
{
	o->error_seq++;
	error_keep(&o->error, error);
}

int handle_take_error(struct mkw_handle *h, struct error_record *record)
{
	struct object *o = h->object;
	int error = 0;

	env_lock(&o->lock);
	if (h->error_seq < o->error_seq) {
		error = o->error.error;
		if (record != NULL)
			*record = o->error;
	}
	h->error_seq = o->error_seen_seq = o->error_seq;
	env_unlock(&o->lock);
	return error;
}

void mkw_object_error(struct mkw_object *public, int error)
{
	struct object *o = object_of(public);

	env_lock(&o->lock);
	object_record_error(o, error);
	env_unlock(&o->lock);
}
