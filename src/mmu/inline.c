/* SPDX-License-Identifier: MIT */
/*
 * inline.c - views whose faults are served in the faulting thread: the kernel raises SIGBUS
 * instead of reporting an event (UFFD_FEATURE_SIGBUS), and signal.c calls up. A system call on a
 * page that is not mapped as it needs gets EFAULT, with no report.
 */
#include "machine.h"

#include <errno.h>

int inline_descriptor(struct mmu *mmu)
{
	int fd = atomic_load(&mmu->inline_fd);

	if (fd >= 0)
		return fd;
	if (!(mmu->features.bits & UFFD_FEATURE_SIGBUS))
		return -ENOTSUP;
	machine_lock(&mmu->pool.lock);
	fd = atomic_load(&mmu->inline_fd);
	if (fd < 0) {
		fd = descriptor_open(&mmu->features, UFFD_FEATURE_SIGBUS);
		if (fd >= 0)
			atomic_store(&mmu->inline_fd, fd);
	}
	machine_unlock(&mmu->pool.lock);
	return fd;
}
