/* SPDX-License-Identifier: MIT */
/*
 * mmu_rig.h - a machine with one object's frames and two views of it, for tests that drive src/mmu
 * with real faults and upcalls of their own.
 */
#ifndef MMU_RIG_H
#define MMU_RIG_H

#include "harness/test.h"
#include "mmu/machine.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE	  ((size_t)MKW_PAGE_SIZE)
#define RIG_PAGES 256u

struct rig;
typedef void (*on_ready_fn)(struct rig *rig);
typedef void (*on_fault_fn)(struct rig *rig, struct mmu_view *view, uintptr_t address,
			    enum mmu_access access, pid_t tid);

struct rig {
	struct mmu *mmu;
	struct frames *frames;
	struct mmu_view view[2];
	_Atomic(on_fault_fn) on_fault;
	_Atomic bool made; /* a fault orders nothing, for TSan; this does */
	_Atomic(on_ready_fn) on_ready;
	_Atomic unsigned reads, writes; /* faults reported */
};

static struct rig rig;

/* ---- What the signal handlers ask of us --------------------------------------------------- */

static struct { /* the refusal under way: tests refuse one at a time */
	_Atomic pid_t tid;
	_Atomic uintptr_t address;
	_Atomic int error;
} refused;

static _Thread_local sigjmp_buf guard;
static _Thread_local bool guarded;
static _Thread_local struct mkw_refusal caught;

static struct mmu_view *rig_view_at(uintptr_t address)
{
	for (int i = 0; i < 2 && rig.made; i++)
		if (address - rig.view[i].address < rig.view[i].length)
			return &rig.view[i];
	return NULL;
}

static bool rig_inline_fault(uintptr_t address, enum mmu_access access, struct mkw_refusal *refusal)
{
	struct mmu_view *view = rig_view_at(address);

	if (!view)
		return false;
	if (access == MMU_WRITE)
		rig.writes++;
	else
		rig.reads++;
	refused.error = 0;
	on_fault_fn on_fault = rig.on_fault;
	on_fault(&rig, view, address, access, (pid_t)syscall(SYS_gettid));
	if (refused.error) {
		refusal->error = refused.error;
		refusal->address = (void *)address;
	}
	return true;
}

static bool rig_allowed(uintptr_t address, enum mmu_access access)
{
	struct mmu_view *view = rig_view_at(address);

	return view && (access == MMU_READ || view->writable);
}

static bool rig_refused(uintptr_t address, struct mkw_refusal *refusal)
{
	if (refused.tid != (pid_t)syscall(SYS_gettid) || refused.address != address)
		return false;
	refused.tid = 0;
	refusal->address = (void *)address;
	refusal->error = refused.error;
	return true;
}

static void rig_deliver(const struct mkw_refusal *refusal)
{
	if (!guarded)
		return;
	guarded = false;
	caught = *refusal;
	siglongjmp(guard, 1);
}

/* Runs the access; the address refused, or NULL. */
static inline void *rig_guard(void (*access)(void *arg), void *arg)
{
	if (sigsetjmp(guard, 1))
		return caught.address;
	guarded = true;
	access(arg);
	guarded = false;
	return NULL;
}

static inline void rig_refuse(struct mmu_view *view, uintptr_t address, enum mmu_access access,
			      pid_t tid)
{
	refused.address = address;
	refused.error = -ENOSPC;
	refused.tid = tid;
	if (view->backend != MMU_INLINE)
		mmu_refuse(view, address, access, tid, mmu_report_time());
}

/* ---- The machine -------------------------------------------------------------------------- */

static void rig_fault(void *arg, uintptr_t address, enum mmu_access access, pid_t tid)
{
	(void)arg;
	if (access == MMU_WRITE)
		rig.writes++;
	else
		rig.reads++;
	on_fault_fn on_fault = rig.on_fault;

	on_fault(&rig, rig_view_at(address), address, access, tid);
}

static void rig_ready(void *arg)
{
	(void)arg;
	on_ready_fn on_ready = rig.on_ready;

	if (on_ready)
		on_ready(&rig);
}

static const struct mmu_upcalls rig_upcalls = {.fault = rig_fault, .ready = rig_ready};
static const struct mmu_signal_upcalls rig_signal_upcalls = {
	.inline_fault = rig_inline_fault,
	.allowed = rig_allowed,
	.refused = rig_refused,
	.deliver = rig_deliver,
};

static inline enum mmu_backend rig_backend(void)
{
	return test_backend() == TEST_INLINE ? MMU_INLINE : MMU_UFFD;
}

static inline uintptr_t page_of(uintptr_t address)
{
	return address & ~(PAGE - 1);
}

/* Make the frame unless there is one. */
static inline void frames_fill_new(const struct mmu_view *view, uint64_t offset, const char *page)
{
	if (lseek(frames_fd(view->frames), (off_t)offset, SEEK_DATA) != (off_t)offset)
		CHECK_EQ(frames_fill(view->frames, offset, PAGE, page), 0);
}

/* The usual answer: fill with the page's number, or grant the one page. */
static inline void rig_serve(struct rig *r, struct mmu_view *view, uintptr_t address,
			     enum mmu_access access, pid_t tid)
{
	static char bytes[64][PAGE] __attribute__((aligned(4096)));
	static _Atomic unsigned next;
	char *page = bytes[next++ % 64];
	uintptr_t at = page_of(address);
	uint64_t offset = view->offset + at - view->address;
	size_t done;

	(void)r;
	(void)tid;
	memset(page, 1 + (int)(offset / PAGE % 100), PAGE);
	if (access == MMU_WRITE) {
		frames_fill_new(view, offset, page);
		CHECK_EQ(mmu_map_rw(view, at, PAGE), 0);
	} else if (mmu_fill(view, at, PAGE, page, &done) == -EEXIST) {
		mmu_wake(view, at, PAGE);
	}
}

static inline void rig_create(void)
{
	struct mmu_options options = {.workers = 2, .workers_max = 8, .upcalls = &rig_upcalls};

	rig.on_fault = rig_serve;
	mmu_set_signal_upcalls(&rig_signal_upcalls);
	REQUIRE_EQ(mmu_create(&options, &rig.mmu), 0);
	REQUIRE_EQ(frames_create(&rig.frames), 0);
	for (int i = 0; i < 2; i++) {
		rig.view[i] = (struct mmu_view){
			.mmu = rig.mmu,
			.backend = rig_backend(),
			.length = RIG_PAGES * PAGE,
			.readable = true,
			.writable = true,
			.frames = rig.frames,
		};
		REQUIRE_EQ(mmu_view_map(&rig.view[i]), 0);
		REQUIRE_EQ(mmu_view_open(&rig.view[i]), 0);
		REQUIRE_EQ(mmu_protect(&rig.view[i], rig.view[i].address, rig.view[i].length), 0);
	}
	rig.made = true;
}

static inline void rig_destroy(void)
{
	for (int i = 0; i < 2; i++)
		mmu_view_unmap(&rig.view[i]);
	mmu_destroy(rig.mmu);
	frames_destroy(rig.frames);
}

/* Atomic, because tests race on purpose. */
static inline volatile _Atomic char *rig_at(int view, size_t page)
{
	return (volatile _Atomic char *)(rig.view[view].address + page * PAGE);
}

static inline unsigned rig_faults(void)
{
	return rig.reads + rig.writes;
}

#endif
