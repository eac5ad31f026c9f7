/* SPDX-License-Identifier: MIT */
/*
 * view.c - mapping and unmapping views. What their pages are is changed by uffd.c.
 *
 * Views are shared mappings of the frames' file, registered for missing pages and write protection.
 * Not for minor faults: then a page that is in the file is mapped for a read by the kernel alone.
 * Private views are, because there an absent entry may stand for a copy that is swapped out.
 */
#include "machine.h"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

int view_fd(const struct mmu_view *view)
{
	return view->backend == MMU_INLINE ? view->mmu->inline_fd : view->mmu->uffd;
}

int view_register(int fd, void *address, size_t length, bool private)
{
	struct uffdio_register arg = {
		.range = {.start = (uintptr_t)address, .len = length},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	if (private)
		arg.mode |= UFFDIO_REGISTER_MODE_MINOR;

	/* A child would write pages of the parent's object unnotified: it gets no such mapping. */
	if (madvise(address, length, MADV_DONTFORK))
		return -errno;
	(void)madvise(address, length, MADV_NOHUGEPAGE); /* EINVAL where there are none */
	return ioctl(fd, UFFDIO_REGISTER, &arg) ? -errno : 0;
}

int mmu_view_map(struct mmu_view *view)
{
	int fd = view->backend == MMU_INLINE ? inline_descriptor(view->mmu) : view->mmu->uffd;
	void *p;
	int err;

	if (fd < 0)
		return mkw_set_error(fd == -EMFILE || fd == -ENFILE ? fd : -ENOTSUP,
				     "inline views are not possible here");
	p = mmap(NULL, view->length, PROT_NONE,
		 (view->private ? MAP_PRIVATE : MAP_SHARED) | MAP_NORESERVE,
		 frames_fd(view->frames), (off_t)view->offset);
	if (p == MAP_FAILED)
		return mkw_set_error(-errno, "no room for a view of %zu bytes: %m", view->length);
	err = view_register(fd, p, view->length, view->private);
	if (err) {
		munmap(p, view->length);
		return mkw_set_error(err, "userfaultfd refuses the view: %s",
				     err == -ENOMEM ? "out of memory" : "not possible here");
	}
	view->address = (uintptr_t)p;
	return 0;
}

int mmu_view_open(struct mmu_view *view)
{
	int prot = PROT_READ | (view->writable ? PROT_WRITE : 0);

	return mprotect((void *)view->address, view->length, prot) ? -errno : 0;
}

void mmu_view_unmap(struct mmu_view *view)
{
	int err;

	/* A kernel without memory, or whose mappings are all in use, cannot take this one out of
	 * one that it has merged it with; but whoever touches what is left would wait for ever. */
	do {
		/* The end of a protection window must not meet what is mapped here next. */
		window_lock();
		err = munmap((void *)view->address, view->length) ? -errno : 0;
		window_unlock();
	} while (err == -ENOMEM && sched_yield() == 0);
	/* Afterwards, because a thread woken before could fault and wait again. */
	mmu_wake(view, view->address, view->length);
}
