/* SPDX-License-Identifier: MIT */
/*
 * sim_fork.c - the simulated machine has one process: nothing forks there, and nothing is
 * inherited. What can only be called after that fails the run.
 */
#include "sim.h"

#include <errno.h>

static _Noreturn void never(const char *what)
{
	sim_host_fail("%s: no process forks here", what);
}

bool mmu_can_fork(const struct mmu *mmu)
{
	(void)mmu;
	return false;
}

int mmu_fork_begin(struct mmu *mmu, struct mmu_view *const *views, size_t count,
		   const struct mmu_extent *apart, size_t apart_count, struct mmu_fork **fork)
{
	(void)apart;
	(void)apart_count;
	(void)mmu;
	(void)views;
	(void)count;
	(void)fork;
	return -ENOTSUP;
}

int mmu_fork_go(struct mmu_fork *fork, struct mmu_view *const *views, size_t count)
{
	(void)fork;
	(void)views;
	(void)count;
	never("mmu_fork_go");
}

struct mmu *mmu_fork_end(struct mmu_fork *fork)
{
	(void)fork;
	never("mmu_fork_end");
}

void mmu_fork_map(struct mmu_fork *fork)
{
	(void)fork;
	never("mmu_fork_map");
}

void mmu_fork_block(const struct mmu_view *view)
{
	(void)view;
	never("mmu_fork_block");
}

void mmu_fork_inherit(struct mmu_fork *fork)
{
	(void)fork;
	never("mmu_fork_inherit");
}

int mmu_kin_start(struct mmu *kin, const struct mmu_upcalls *upcalls, void *arg)
{
	(void)kin;
	(void)upcalls;
	(void)arg;
	never("mmu_kin_start");
}

void mmu_kin_stop(struct mmu *kin)
{
	(void)kin;
	never("mmu_kin_stop");
}

void mmu_kin_destroy(struct mmu *kin)
{
	(void)kin;
	never("mmu_kin_destroy");
}

void mmu_kin_refuse(struct mmu_view *view, enum mmu_access access, pid_t tid, uint64_t reported,
		    const struct mkw_refusal *refusal)
{
	(void)view;
	(void)access;
	(void)tid;
	(void)reported;
	(void)refusal;
	never("mmu_kin_refuse");
}

void mmu_kin_zap(struct mmu_view *view, uintptr_t address, size_t length)
{
	(void)view;
	(void)address;
	(void)length;
	never("mmu_kin_zap");
}

void mmu_wards_fork_begin(void)
{
}

void mmu_wards_fork_end(void)
{
}

void mmu_wards_inherit(void)
{
	never("mmu_wards_inherit");
}

bool mmu_ward_has(uintptr_t address)
{
	(void)address;
	return false;
}

bool mmu_ward_allows(uintptr_t address, enum mmu_access access)
{
	(void)address;
	(void)access;
	return false;
}

bool mmu_ward_unmap(uintptr_t address, size_t length)
{
	(void)address;
	(void)length;
	return false;
}

void mmu_abandon(struct mmu *mmu)
{
	(void)mmu;
	never("mmu_abandon");
}

void frames_abandon(struct frames *frames)
{
	(void)frames;
	never("frames_abandon");
}

void swap_file_abandon(struct swap_file *file)
{
	(void)file;
	never("swap_file_abandon");
}

void mmu_abandon_all(void)
{
	never("mmu_abandon_all");
}

/* ---- Views in place ----------------------------------------------------------------------- */

size_t mmu_grain(void)
{
	return 1;
}

int mmu_view_adopt(struct mmu_view *view)
{
	(void)view;
	never("mmu_view_adopt");
	return -ENOTSUP;
}

const void *mmu_fault_context(void)
{
	return NULL;
}
