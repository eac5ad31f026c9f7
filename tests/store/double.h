/* SPDX-License-Identifier: MIT */
/*
 * double.h - stands in for the library's side of store.h, so that a test can call a store's
 * operations one by one and in orders that the real VM does not produce. Include it once per
 * program: it defines the functions, and the linker takes nothing of the VM's then.
 */
#ifndef STORE_DOUBLE_H
#define STORE_DOUBLE_H

#include "harness/test.h"

#include <mkwrite/store.h>

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mkw_object {
	_Atomic uint64_t size_bytes;
	_Atomic int error;		/* the last that the store recorded */
	_Atomic unsigned errors, wakes; /* how often it was called */
	char message[512];		/* the sentence with that error */
};

/* The next faults are part of a system call on the file beneath. */
static _Atomic bool double_in_syscall;
static _Atomic unsigned double_locks, double_unlocks;

static _Thread_local char double_message[512];

const char *mkw_error_message(void)
{
	return double_message;
}

int mkw_set_error(int error, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(double_message, sizeof(double_message), format, list);
	va_end(list);
	return error;
}

mkw_fault_t mkw_fault_from_errno(int error)
{
	if (!error)
		return MKW_FAULT_LOCKED;
	if (error == -EFAULT || error == -EAGAIN)
		return MKW_FAULT_NOPAGE;
	return error == -ENOMEM ? MKW_FAULT_OOM : MKW_FAULT_SIGBUS;
}

int mkw_run_cut(struct mkw_run *run, uint64_t first, size_t count)
{
	REQUIRE(first >= run->first && count >= 1 && count <= run->count);
	REQUIRE(first + count <= run->first + run->count);
	REQUIRE(run->page >= first && run->page < first + count);
	run->first = first;
	run->count = count;
	return 0;
}

void mkw_run_grow(struct mkw_run *run, uint64_t first, size_t count)
{
	(void)run;
	(void)first;
	(void)count;
}

int(mkw_run_lock)(struct mkw_run *run)
{
	(void)run;
	double_locks++;
	return 0;
}

int mkw_run_lock_at(struct mkw_run *run, const char *where)
{
	(void)where;
	return (mkw_run_lock)(run);
}

/* The order of the stores' locks: a mistake fails the test. */
static _Thread_local struct {
	const struct mkw_lock_class *lock_class;
	const void *lock;
	const char *where;
} double_held[16];
static _Thread_local unsigned double_held_count;

int mkw_lock_take_at(const struct mkw_lock_class *lock_class, const void *lock, const char *where)
{
	unsigned n = double_held_count;

	for (unsigned i = 0; i < n; i++)
		if (!CHECK(double_held[i].lock_class->rank < lock_class->rank))
			test_note("%s taken at %s after %s taken at %s", lock_class->name, where,
				  double_held[i].lock_class->name, double_held[i].where);
	REQUIRE(n < sizeof(double_held) / sizeof(*double_held));
	double_held[n].lock_class = lock_class;
	double_held[n].lock = lock;
	double_held[n].where = where;
	double_held_count++;
	return 0;
}

void mkw_lock_forget(const void *lock)
{
	unsigned n = double_held_count;

	/* The stores here give back what they took last. */
	REQUIRE(n > 0);
	CHECK(double_held[n - 1].lock == lock);
	double_held_count--;
}

void mkw_run_unlock(struct mkw_run *run)
{
	(void)run;
	double_unlocks++;
}

uint64_t mkw_object_size(const struct mkw_object *object)
{
	return object->size_bytes;
}

void mkw_object_error(struct mkw_object *object, int error)
{
	object->error = error;
	object->errors++;
	snprintf(object->message, sizeof(object->message), "%s", double_message);
}

void mkw_object_wake(struct mkw_object *object)
{
	object->wakes++;
}

bool mkw_fault_in_syscall_on(uint64_t dev, uint64_t ino)
{
	(void)dev;
	(void)ino;
	return double_in_syscall;
}

/* ---- An open store ------------------------------------------------------------------------ */

struct opened {
	const struct mkw_store_ops *ops;
	void *store;
	struct mkw_open_args args;
	struct mkw_object object;
};

/* Open and attach; a negative errno if either fails, and then nothing is left open. */
__attribute__((unused)) static int store_try(struct opened *o, const char *uri, unsigned flags)
{
	memset(o, 0, sizeof(*o));
	int error = mkw_store_open(uri, flags, &o->args);

	if (error)
		return error;
	o->ops = o->args.ops;
	o->store = o->args.store;
	o->object.size_bytes = o->args.size_bytes;
	if (o->ops->attach)
		error = o->ops->attach(o->store, &o->object);
	if (error && o->ops->release)
		o->ops->release(o->store);
	return error;
}

__attribute__((unused)) static void store_open(struct opened *o, unsigned flags, const char *format,
					       ...)
{
	char uri[4096];
	va_list list;

	va_start(list, format);
	vsnprintf(uri, sizeof(uri), format, list);
	va_end(list);
	int error = store_try(o, uri, flags);

	if (error)
		test_note("%s: %s", uri, mkw_error_message());
	REQUIRE_EQ(error, 0);
}

__attribute__((unused)) static void store_close(struct opened *o)
{
	o->ops->release(o->store);
}

/* A refusal: its code is SIGBUS, its sentence has this in it. */
#define CHECK_SAYS(text)                                                 \
	do {                                                             \
		if (!CHECK(strstr(mkw_error_message(), (text)) != NULL)) \
			test_note("it says: %s", mkw_error_message());   \
	} while (0)

__attribute__((unused)) static mkw_fault_t store_fill(struct opened *o, uint64_t first,
						      size_t count, uint64_t page, void *buffer,
						      struct mkw_run *run)
{
	struct mkw_run local;

	if (!run)
		run = &local;
	*run = (struct mkw_run){.object = &o->object, .first = first, .count = count, .page = page};
	return o->ops->fault(o->store, &o->object, run, buffer);
}

__attribute__((unused)) static mkw_fault_t store_ask(struct opened *o, uint64_t first, size_t count,
						     uint64_t page, struct mkw_run *run)
{
	struct mkw_run local;

	if (!run)
		run = &local;
	*run = (struct mkw_run){.object = &o->object,
				.first = first,
				.count = count,
				.page = page,
				.flags = MKW_RUN_WRITE};
	return o->ops->page_mkwrite(o->store, &o->object, run);
}

/* Granted: 0 (the library locks) or LOCKED. */
__attribute__((unused)) static bool store_grant(struct opened *o, uint64_t page)
{
	mkw_fault_t code = store_ask(o, page, 1, page, NULL);

	return !(code & ~MKW_FAULT_LOCKED);
}

/* Write one run, cut to the object's size as the VM does; => its result. */
__attribute__((unused)) static int store_write(struct opened *o, uint64_t first, size_t count,
					       const void *data)
{
	uint64_t offset = first * MKW_PAGE_SIZE, length = count * MKW_PAGE_SIZE;
	struct mkw_wb_run run = {.first = first, .count = count, .data = data};
	struct mkw_writeback writeback = {.reason = MKW_WB_SYNC, .count = 1, .runs = &run};

	if (offset + length > o->object.size_bytes)
		length = o->object.size_bytes - offset;
	run.length_bytes = length;
	int error = o->ops->writepages(o->store, &o->object, &writeback);

	return error ? error : run.result;
}

__attribute__((unused)) static int store_truncate(struct opened *o, uint64_t size_bytes)
{
	int error = o->ops->truncate(o->store, &o->object, size_bytes);

	if (!error)
		o->object.size_bytes = size_bytes;
	return error;
}

/* count pages, page aligned, each filled with a byte of its own. */
__attribute__((unused)) static unsigned char *pages_make(size_t count, unsigned char seed)
{
	unsigned char *pages = aligned_alloc(MKW_PAGE_SIZE, count * MKW_PAGE_SIZE);

	REQUIRE(pages != NULL);
	for (size_t i = 0; i < count; i++)
		memset(pages + i * MKW_PAGE_SIZE, (int)(seed + i * 7), MKW_PAGE_SIZE);
	return pages;
}

#endif
