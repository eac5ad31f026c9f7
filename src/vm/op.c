/* SPDX-License-Identifier: MIT */
/*
 * op.c - calling a store. Every operation goes through here: no lock is held, the thread is known
 * to be inside it, another handler thread is free to read events, and an access of the operation to
 * a view of its own object ends it with EDEADLK in place of hanging (3.1, 4.8). Its frame has room
 * for the locks that the store tells of (order.c).
 */
#include "vm.h"

#include <assert.h>
#include <errno.h>
#include <setjmp.h>

/* Threads inside operations, for op_inside. A thread that finds no free place is not recognized:
 * its own object's view would then hang it, which 256 concurrent operations make unlikely. */
#define PLACES 256

static struct {
	_Atomic pid_t tid;
	_Atomic(const struct object *) object;
	_Atomic uintptr_t suspect; /* where it was seen to fault once, in this operation */
} places[PLACES];
static _Atomic unsigned places_used; /* high-water mark */

struct op {
	struct op *up;
	struct fault *fault;
	int place;
	struct guard guard;
	struct mkw_refusal refusal;
	sigjmp_buf jump;
	struct order order;
};
static _Thread_local struct op *current;
static _Thread_local unsigned place_hint;

static int place_take(const struct object *o, pid_t tid)
{
	for (unsigned n = 0; n < PLACES; n++) {
		unsigned i = (place_hint + n) % PLACES;
		pid_t none = 0;
		if (!atomic_compare_exchange_strong(&places[i].tid, &none, tid))
			continue;
		atomic_store(&places[i].suspect, 0);
		atomic_store(&places[i].object, o);
		place_hint = i;
		unsigned used = atomic_load(&places_used);
		while (used <= i && !atomic_compare_exchange_weak(&places_used, &used, i + 1))
			;
		return (int)i;
	}
	return -1;
}

static void place_give(int place)
{
	if (place < 0)
		return;
	atomic_store(&places[place].object, NULL);
	atomic_store(&places[place].tid, 0);
}

enum op_inside op_inside(const struct object *o, pid_t tid, uintptr_t address)
{
	unsigned used = atomic_load(&places_used);

	for (unsigned i = 0; i < used; i++) {
		if (atomic_load(&places[i].tid) != tid || atomic_load(&places[i].object) != o)
			continue;
		return atomic_exchange(&places[i].suspect, address) == address ? OP_INSIDE
									       : OP_INSIDE_PERHAPS;
	}
	return OP_OUTSIDE;
}

bool op_running(void)
{
	return current != NULL;
}

struct order *op_order(void)
{
	return current != NULL ? &current->order : NULL;
}

static void op_enter(struct op *op, struct object *o, struct fault *f, const char *name)
{
	env_assert_unlocked();
	op->up = current;
	op->fault = f;
	op->order.object = o;
	op->order.operation = name;
	op->order.run = NULL;
	op->order.pages_at = NULL;
	op->order.count = 0;
	op->place = place_take(o, env_tid());
	mmu_sleep_begin(o->space->mmu);
	op->guard.refusal = &op->refusal;
	op->guard.mask = NULL;
	op->guard.jump = &op->jump;
	guard_push(&op->guard);
	current = op;
	error_clear();
}

static void op_leave(struct op *op)
{
	if (op->order.count > 0)
		order_end(&op->order);
	current = op->up;
	guard_pop(&op->guard);
	mmu_sleep_end(op->order.object->space->mmu);
	place_give(op->place);
}

/* The operation touched a view and was refused. */
static int op_broken(struct op *op)
{
	const struct object *o = op->order.object;

	if (op->refusal.error == -EDEADLK)
		space_log(o->space, MKW_LOG_ERROR, "store %s: %s",
			  o->ops->name != NULL ? o->ops->name : "?", op->refusal.message);
	return mkw_set_error(op->refusal.error, "the store touched a view and was refused: %s",
			     op->refusal.message);
}

/* Run `call` as an operation; a refused access inside continues at `broken`. */
#define OP(o, f, name, call, broken)              \
	do {                                      \
		struct op op;                     \
		op_enter(&op, (o), (f), name);    \
		if (sigsetjmp(op.jump, 0) == 0) { \
			call;                     \
		} else {                          \
			broken;                   \
		}                                 \
		op_leave(&op);                    \
	} while (0)

mkw_fault_t op_fault(struct object *o, struct fault *f, struct mkw_run *run, void *buffer)
{
	volatile mkw_fault_t code = 0;

	COUNT(o, fills, 1);
	OP(o, f, "fault", op.order.pages_at = "the call of fault";
	   code = o->ops->fault(o->store, &o->public, run, buffer),
	   code = mkw_fault_from_errno(op_broken(&op)));
	return code;
}

mkw_fault_t op_page_mkwrite(struct object *o, struct fault *f, struct vm_run *run)
{
	volatile mkw_fault_t code = 0;

	COUNT(o, notifications, 1);
	OP(o, f, "page_mkwrite", op.order.run = run;
	   code = o->ops->page_mkwrite(o->store, &o->public, &run->run),
	   code = mkw_fault_from_errno(op_broken(&op)));
	return code;
}

void op_unreserve(struct object *o, uint64_t first, uint64_t count)
{
	if (o->ops->unreserve == NULL || count == 0)
		return;
	OP(o, NULL, "unreserve", o->ops->unreserve(o->store, &o->public, first, count),
	   op_broken(&op));
}

int op_writepages(struct object *o, struct mkw_writeback *wb)
{
	volatile int error = 0;

	OP(o, NULL, "writepages", error = o->ops->writepages(o->store, &o->public, wb),
	   error = op_broken(&op));
	return error > 0 ? mkw_set_error(-EIO, "writepages answered %d", error) : error;
}

/* One operation that answers an errno. */
#define OP_INT(o, name, call)                                                                  \
	do {                                                                                   \
		volatile int error = 0;                                                        \
		OP(o, NULL, name, error = (call), error = op_broken(&op));                     \
		if (error < 0 && error_last() != error)                                        \
			mkw_set_error(error, "the store failed with errno %d", -error);        \
		return error > 0 ? mkw_set_error(-EIO, "a store operation answered %d", error) \
				 : error;                                                      \
	} while (0)

int op_truncate(struct object *o, uint64_t size_bytes)
{
	if (o->ops->truncate == NULL)
		return 0;
	atomic_store(&o->unsynced, true);
	OP_INT(o, "truncate", o->ops->truncate(o->store, &o->public, size_bytes));
}

int op_punch_hole(struct object *o, uint64_t offset, uint64_t length)
{
	atomic_store(&o->unsynced, true);
	OP_INT(o, "punch_hole", o->ops->punch_hole(o->store, &o->public, offset, length));
}

int op_fsync(struct object *o, uint64_t offset, uint64_t length)
{
	if (o->ops->fsync == NULL)
		return 0;
	OP_INT(o, "fsync", o->ops->fsync(o->store, &o->public, offset, length));
}

int op_attach(struct object *o)
{
	if (o->ops->attach == NULL)
		return 0;
	OP_INT(o, "attach", o->ops->attach(o->store, &o->public));
}

void op_release(struct object *o)
{
	if (o->ops->release == NULL)
		return;
	OP(o, NULL, "release", o->ops->release(o->store), op_broken(&op));
}

void op_map(struct object *o, bool map)
{
	void (*fn)(void *, struct mkw_object *) = map ? o->ops->map : o->ops->unmap;

	if (fn == NULL)
		return;
	OP(o, NULL, map ? "map" : "unmap", fn(o->store, &o->public), op_broken(&op));
}

int op_control(struct object *o, const char *key, const char *value)
{
	if (o->ops->control == NULL)
		return mkw_set_error(-EINVAL, "this store has no option that can be changed");
	OP_INT(o, "control", o->ops->control(o->store, &o->public, key, value));
}

int op_capacity(struct object *o, uint64_t *free_bytes, uint64_t *total_bytes)
{
	if (o->ops->capacity == NULL)
		return mkw_set_error(-ENOTSUP, "this store cannot tell its capacity");
	OP_INT(o, "capacity", o->ops->capacity(o->store, free_bytes, total_bytes));
}

bool mkw_fault_in_syscall_on(uint64_t dev, uint64_t ino)
{
	struct fault *f = current != NULL ? current->fault : NULL;

	if (f == NULL || f->kind != FAULT_EVENT)
		return false;
	if (!mmu_thread_in_syscall_on(f->tid, dev, ino))
		return false;
	mkw_set_error(-EDEADLK, "a system call on the file itself met a page of its view; "
				"use mkw_pread or mkw_pwrite");
	return true;
}
