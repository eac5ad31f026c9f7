/* SPDX-License-Identifier: MIT */
/*
 * view.c - mapping, changing and unmapping views. What their pages are is changed by uffd.c.
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

int mmu_place_take(uintptr_t *address, size_t length)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *p = mmap((void *)*address, length, PROT_NONE,
		       flags | (*address != 0 ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	if (*address != 0 && (uintptr_t)p != *address) { /* a kernel that takes it for a hint */
		munmap(p, length);
		return -EEXIST;
	}
	*address = (uintptr_t)p;
	return 0;
}

void mmu_place_give(uintptr_t address, size_t length)
{
	while (munmap((void *)address, length) && errno == ENOMEM)
		sched_yield();
}

int mmu_view_map(struct mmu_view *view)
{
	int fd = view->backend == MMU_INLINE ? inline_descriptor(view->mmu) : view->mmu->uffd;
	int flags = (view->private ? MAP_PRIVATE : MAP_SHARED) | MAP_NORESERVE |
		    (view->address != 0 ? MAP_FIXED : 0);
	void *p;
	int err;

	if (fd < 0)
		return mkw_set_error(fd == -EMFILE || fd == -ENFILE ? fd : -ENOTSUP,
				     "inline views are not possible here");
	window_lock(); /* as in mmu_view_cut */
	p = mmap((void *)view->address, view->length, PROT_NONE, flags, frames_fd(view->frames),
		 (off_t)view->offset);
	window_unlock();
	if (p == MAP_FAILED)
		return mkw_set_error(-errno, "no room for a view of %zu bytes: %m", view->length);
	err = view_register(fd, p, view->length, view->private);
	if (err) {
		if (view->address == 0)
			munmap(p, view->length);
		return mkw_set_error(err, "userfaultfd refuses the view: %s",
				     err == -ENOMEM ? "out of memory" : "not possible here");
	}
	view->address = (uintptr_t)p;
	return 0;
}

int mmu_view_protect(struct mmu_view *view, uintptr_t address, size_t length, bool readable,
		     bool writable)
{
	int prot = (readable ? PROT_READ : 0) | (writable ? PROT_WRITE : 0);
	int err;

	/* Writable it becomes page by page, as writes are let go. */
	if (view->backend == MMU_MPROTECT)
		return in_place_set(view, address, length, readable);
	count_call(view->mmu);
	protection_change();
	err = mprotect((void *)address, length, prot) ? -errno : 0;
	protection_change();
	return err;
}

int mmu_view_adopt(struct mmu_view *view)
{
	return in_place_protect(view, view->address, view->length);
}

int mmu_view_open(struct mmu_view *view)
{
	return mmu_view_protect(view, view->address, view->length, view->readable, view->writable);
}

/* Where copies were made before and after a protection window the kernel may have left two mappings
 * that it does not move at once. */
static int move_pages(uintptr_t address, size_t length, uintptr_t to)
{
	size_t half = length / MKW_PAGE_SIZE / 2 * MKW_PAGE_SIZE;
	int err;

	if (mremap((void *)address, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)to) !=
	    MAP_FAILED)
		return 0;
	err = -errno;
	if (err != -EFAULT || half == 0)
		return err;
	err = move_pages(address, half, to);
	if (err)
		return err;
	err = move_pages(address + half, length - half, to + half);
	if (err) /* the way back takes no more mappings than there were */
		while (move_pages(to, half, address) == -ENOMEM)
			sched_yield();
	return err;
}

/* The registration does not move along, nor does any protection: 7.5. */
int mmu_view_move(struct mmu_view *view, uintptr_t address, size_t length, uintptr_t to)
{
	int err;

	window_lock();
	count_call(view->mmu);
	err = move_pages(address, length, to);
	window_unlock();
	if (err)
		return err;
	while (view_register(view_fd(view), (void *)to, length, true) == -ENOMEM ||
	       mmu_protect(view, to, length) == -ENOMEM)
		sched_yield();
	mmu_wake(view, address, length);
	return 0;
}

void mmu_view_unmap(struct mmu_view *view)
{
	mmu_view_cut(view, view->address, view->length);
}

void mmu_view_cut(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err;

	if (view->backend == MMU_MPROTECT) /* the mapping is not ours */
		return;
	/* A kernel without memory, or whose mappings are all in use, cannot take this one out of
	 * one that it has merged it with; but whoever touches what is left would wait for ever. */
	do {
		/* The end of a protection window must not meet what is mapped here next. */
		window_lock();
		err = munmap((void *)address, length) ? -errno : 0;
		window_unlock();
	} while (err == -ENOMEM && sched_yield() == 0);
	/* Afterwards, because a thread woken before could fault and wait again. */
	mmu_wake(view, address, length);
}
