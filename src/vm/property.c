/* SPDX-License-Identifier: MIT */
/*
 * property.c - what a handle tells and changes of its object: size, limits, policy, options of the
 * store, capacity.
 */
#include "vm.h"

#include <errno.h>
#include <string.h>

uint64_t mkw_object_size(const struct mkw_object *public)
{
	return object_of(public)->size_bytes;
}

uint64_t mkw_size(struct mkw_handle *h)
{
	return h == NULL ? 0 : h->object->size_bytes;
}

int mkw_set_limits(struct mkw_handle *h, uint64_t resident_limit_bytes, uint64_t dirty_limit_bytes)
{
	struct env_shield shield;
	struct space *s;

	error_clear();
	if (h == NULL)
		return mkw_set_error(-EINVAL, "no handle");
	if (process_check(h->object->space) != 0)
		return -ECHILD;
	if (limits_check(resident_limit_bytes, dirty_limit_bytes) != 0)
		return -EINVAL;
	s = h->object->space;
	if (s->in_place && resident_limit_bytes != 0)
		return mkw_set_error(-EINVAL, "a file in place has no resident limit");
	env_shield(&shield);
	if (dirty_limit_bytes != 0) { /* in place there may be none so far */
		int error = space_start_flusher(s);

		if (error != 0) {
			env_unshield(&shield);
			return error;
		}
	}
	env_lock(&s->charge_lock);
	h->object->account.resident_limit = resident_limit_bytes >> PAGE_SHIFT;
	h->object->account.dirty_limit = dirty_limit_bytes >> PAGE_SHIFT;
	waiters_wake(&h->object->account.dirty_waiters);
	waiters_wake(&s->account.dirty_waiters);
	waiters_wake(&s->resident_waiters);
	env_unlock(&s->charge_lock);
	flusher_kick(s);
	reclaimer_kick(s);
	env_unshield(&shield);
	return 0;
}

int mkw_set_policy(struct mkw_handle *h, enum mkw_policy policy, mkw_policy_fn fn, void *arg)
{
	struct env_shield shield;
	struct object *o;

	error_clear();
	if (h == NULL || (unsigned)policy > MKW_DEFER)
		return mkw_set_error(-EINVAL, "no handle, or unknown policy");
	o = h->object;
	if (process_check(o->space) != 0)
		return -ECHILD;
	env_shield(&shield);
	env_lock(&o->lock);
	o->policy = policy;
	o->policy_fn = fn;
	o->policy_arg = arg;
	o->wake_seq++;
	waiters_wake(&o->waiters);
	env_unlock(&o->lock);
	env_unshield(&shield);
	return 0;
}

int mkw_control(struct mkw_handle *h, const char *assignment)
{
	struct env_shield shield;
	const char *value;
	char key[64];
	int error;

	error_clear();
	error = handle_check(h);
	if (error != 0)
		return error;
	value = assignment != NULL ? strchr(assignment, '=') : NULL;
	if (value == NULL || value == assignment || (size_t)(value - assignment) >= sizeof(key))
		return mkw_set_error(-EINVAL, "an option is set as \"key=value\"");
	memcpy(key, assignment, (size_t)(value - assignment));
	key[value - assignment] = '\0';
	env_shield(&shield);
	error = op_control(h->object, key, value + 1);
	if (error == 0)
		mkw_object_wake(&h->object->public);
	env_unshield(&shield);
	return error;
}

int mkw_capacity(struct mkw_handle *h, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct env_shield shield;
	uint64_t unused;
	int error;

	error_clear();
	error = handle_check(h);
	if (error != 0)
		return error;
	env_shield(&shield);
	error = op_capacity(h->object, free_bytes != NULL ? free_bytes : &unused,
			    total_bytes != NULL ? total_bytes : &unused);
	env_unshield(&shield);
	return error;
}
