/* SPDX-License-Identifier: MIT */
/*
 * uffd.c - changing what the pages of a view are, by userfaultfd and madvise. Serves both backends,
 * which differ only in how they report; all of it may run in a signal handler.
 *
 * An entry of a view is absent, absent with a marker (armed), present and protected, or writable.
 * The calls move it so:
 *
 *              absent         armed          protected      writable
 *   COPY+WP    protected      protected      EEXIST         EEXIST       the frame must not exist
 *   CONTINUE+WP  protected    protected      EEXIST         EEXIST       the frame must exist
 *   CONTINUE   writable       writable       EEXIST         EEXIST       likewise
 *   WP on      armed          armed          protected      protected
 *   WP off     absent         absent         writable (1)   writable
 *   DONTNEED   absent         armed          armed          absent (!)
 *   a read     writable       protected      -              -            by the kernel, frame
 * exists a write    writable       protected, reported  reported  -          likewise (1) after one
 * more fault inside the kernel, which nobody is told of.
 */
#include "machine.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * From this many pages on it is cheaper to drop protected entries and map them anew, writable, than
 * to lift their protection: the first costs a call that interrupts the process's other cores, the
 * second a fault inside the kernel for each page.
 */
#define REMAP_MIN_PAGES 16
#define LOOK_PAGES	8 /* of a run, to see whether it is mapped */

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

/*
 * What the calling thread knows of the fault that it serves: no entry was there. Then CONTINUE maps
 * the page writable at once, where lifting the protection would leave one more fault to the kernel.
 */
static _Thread_local uintptr_t absent_page __attribute__((tls_model("initial-exec")));

void fault_note(uintptr_t address, bool absent)
{
	absent_page = absent ? address & ~(uintptr_t)(MKW_PAGE_SIZE - 1) : 0;
}

static void wake(const struct mmu_view *view, uintptr_t address, size_t length)
{
	struct uffdio_range arg = {.start = address, .len = length};

	if (view->backend == MMU_INLINE)
		return; /* nobody waits: each thread serves itself */
	count_call(view->mmu);
	(void)ioctl(view_fd(view), UFFDIO_WAKE, &arg);
}

/* The view is another process's, which can be dead, and may have mapped something else there. */
static bool is_childs(const struct mmu_view *view)
{
	return view->mmu->kin != NULL;
}

/* A child that was given up (fork.c) may be forking all the same, and who would read that may be
 * waiting for us. */
static void try_later(const struct mmu_view *view)
{
	if (is_childs(view))
		kin_want_reader(view->mmu);
}

static int protect_once(const struct mmu_view *view, uintptr_t address, size_t length,
			uint64_t mode)
{
	struct uffdio_writeprotect arg = {
		.range = {.start = address, .len = length},
		.mode = mode,
	};

	for (;;) {
		count_call(view->mmu);
		if (ioctl(view_fd(view), UFFDIO_WRITEPROTECT, &arg) == 0)
			return 0;
		if (errno != EAGAIN)
			return -errno;
		try_later(view);
	}
}

/* What a child has unmapped, or mapped over, is no view any more; what is behind it may be. */
static int protect_range(const struct mmu_view *view, uintptr_t address, size_t length,
			 uint64_t mode)
{
	int err = protect_once(view, address, length, mode);
	size_t half = length / MKW_PAGE_SIZE / 2 * MKW_PAGE_SIZE;

	if (!is_childs(view) || (err != -ESRCH && err != -ENOENT))
		return err;
	/* Who waits where nothing is any more has to look. */
	if (half == 0 &&
	    !(mode & (UFFDIO_WRITEPROTECT_MODE_WP | UFFDIO_WRITEPROTECT_MODE_DONTWAKE)))
		wake(view, address, length);
	if (err == -ESRCH || half == 0)
		return 0;
	err = protect_range(view, address, half, mode);
	return err ? err : protect_range(view, address + half, length - half, mode);
}

/* Returns 0 or a negative errno, with *done bytes mapped in either case. */
static int continue_range(const struct mmu_view *view, uintptr_t address, size_t length,
			  uint64_t mode, size_t *done)
{
	*done = 0;
	while (*done < length) {
		struct uffdio_continue arg = {
			.range = {.start = address + *done, .len = length - *done},
			.mode = mode,
		};

		count_call(view->mmu);
		if (ioctl(view_fd(view), UFFDIO_CONTINUE, &arg) == 0) {
			*done = length;
			return 0;
		}
		if (errno != EAGAIN)
			return -errno;
		try_later(view);
		/* Cut short: the rest is asked for again, which tells why. */
		if (arg.mapped > 0)
			*done += (size_t)arg.mapped;
	}
	return 0;
}

static size_t half_of(size_t length)
{
	return length / MKW_PAGE_SIZE / 2 * MKW_PAGE_SIZE;
}

/*
 * What the program has unmapped behind our back, or mapped over, is no view any more; and kernels
 * before 6.3 take no range across two of their mappings. So the rest is served by halves. -ENOENT:
 * a page was not there.
 */
static int by_halves(int (*fn)(struct mmu_view *, uintptr_t, size_t), struct mmu_view *view,
		     uintptr_t address, size_t length)
{
	int err = fn(view, address, length), other;
	size_t half = half_of(length);

	if (err != -ENOENT || half == 0)
		return err;
	err = by_halves(fn, view, address, half);
	if (err && err != -ENOENT)
		return err;
	other = by_halves(fn, view, address + half, length - half);
	return other ? other : err;
}

static int copy_range(struct mmu_view *view, uintptr_t address, size_t length, const void *src,
		      uint64_t mode, size_t *done)
{
	size_t most = length;

	*done = 0;
	while (*done < length) {
		struct uffdio_copy arg = {
			.dst = address + *done,
			.src = (uintptr_t)src + *done,
			.len = length - *done < most ? length - *done : most,
			.mode = mode,
		};

		count_call(view->mmu);
		if (ioctl(view_fd(view), UFFDIO_COPY, &arg) == 0) {
			*done += (size_t)arg.len;
			continue;
		}
		if (errno == ENOENT && half_of(arg.len) > 0) {
			most = half_of(arg.len);
			continue;
		}
		if (errno != EAGAIN)
			return errno == ENOSPC ? -ENOMEM : -errno;
		try_later(view);
		if (arg.copy > 0)
			*done += (size_t)arg.copy;
	}
	return 0;
}

/* The first offset from which on a frame exists again; end if none does before it. */
static uintptr_t skip_hole(const struct mmu_view *view, uintptr_t address, uintptr_t end)
{
	uint64_t offset = view->offset + (address - view->address);
	off_t data = lseek(frames_fd(view->frames), (off_t)offset, SEEK_DATA);

	if (data < 0 || (uint64_t)data - offset >= end - address)
		return end;
	/* At least one page on: what there was no frame of a moment ago is left for the next call.
	 */
	return (uint64_t)data > offset ? address + (uintptr_t)((uint64_t)data - offset)
				       : address + MKW_PAGE_SIZE;
}

/* The first page of [address, end) that is mapped, or with mapped false is not; else end. */
static uintptr_t find_page(struct mmu_view *view, uintptr_t address, uintptr_t end, bool mapped)
{
	bool present[64];

	while (address < end) {
		size_t n = (end - address) / MKW_PAGE_SIZE;

		n = n < 64 ? n : 64;
		if (mmu_present(view, address, n * MKW_PAGE_SIZE, present))
			return end;
		for (size_t i = 0; i < n; i++)
			if (present[i] == mapped)
				return address + i * MKW_PAGE_SIZE;
		address += n * MKW_PAGE_SIZE;
	}
	return end;
}

/*
 * Without CONTINUE+WP (Linux before 6.4): make sure that absent entries are armed; the kernel then
 * maps each at its first read. Entries that are mapped are left alone: a writable one must stay so.
 */
static int arm_absent(struct mmu_view *view, uintptr_t address, uintptr_t end)
{
	while (address < end) {
		uintptr_t from = find_page(view, address, end, false);
		uintptr_t to = find_page(view, from, end, true);
		int err = 0;

		if (from < to)
			err = protect_range(view, from, to - from, UFFDIO_WRITEPROTECT_MODE_WP);
		if (err)
			return err;
		address = to;
	}
	return 0;
}

static int map_ro(struct mmu_view *view, uintptr_t address, size_t length)
{
	uintptr_t at = address, end = address + length;
	bool woken = false;
	int err = 0;

	if (!view->mmu->features.continue_wp) {
		err = arm_absent(view, address, end);
		wake(view, address, length);
		return err;
	}
	while (at < end) {
		size_t done;

		err = continue_range(view, at, end - at, UFFDIO_CONTINUE_MODE_WP, &done);
		woken = done == length;
		at += done;
		if (err == -EEXIST)
			at = find_page(view, at + MKW_PAGE_SIZE, end, false);
		else if (err == -EFAULT)
			at = skip_hole(view, at, end);
		else if (err)
			break;
		err = 0;
	}
	/* CONTINUE woke those it mapped for. Whom the kernel mapped a page for was not waiting, but
	 * others may have been waiting for that page. */
	if (!woken)
		wake(view, address, length);
	return err;
}

int unprotect_range(const struct mmu_view *view, uintptr_t address, size_t length)
{
	/* Lifts markers, too, so that no entry of the range reports a write any more. */
	return protect_range(view, address, length, UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
}

/* Is more of the run mapped than the page whose fault brought us here? Looks at its beginning. */
static bool mostly_mapped(struct mmu_view *view, uintptr_t address)
{
	bool present[LOOK_PAGES];
	unsigned mapped = 0;

	count_call(view->mmu);
	if (mmu_present(view, address, sizeof(present) * MKW_PAGE_SIZE, present))
		return true;
	for (unsigned i = 0; i < LOOK_PAGES; i++)
		mapped += present[i];
	return mapped > 1;
}

/*
 * Map a run writable by CONTINUE, which wants entries absent. Where it is mapped it is zapped
 * first, or from the second mapped entry on; one that is mapped all the same (the faulting page; a
 * reader that came in between) has its protection lifted. *woken: nobody is left to be woken.
 */
static int remap_rw(struct mmu_view *view, uintptr_t address, size_t length, bool *woken)
{
	uintptr_t at = address, end = address + length;
	bool zapped = length >= REMAP_MIN_PAGES * MKW_PAGE_SIZE && mostly_mapped(view, address);
	int err = zapped ? mmu_zap(view, address, length) : 0;
	unsigned met = 0;
	size_t done;

	while (!err && at < end) {
		err = continue_range(view, at, end - at, 0, &done);
		*woken = done == length;
		at += done;
		if (err != -EEXIST)
			continue;
		if (!zapped && met++ > 0 && (end - at) / MKW_PAGE_SIZE >= REMAP_MIN_PAGES) {
			zapped = true;
			err = mmu_zap(view, at, end - at);
		} else {
			err = unprotect_range(view, at, MKW_PAGE_SIZE);
			at += MKW_PAGE_SIZE;
		}
	}
	return err;
}

static int map_rw(struct mmu_view *view, uintptr_t address, size_t length)
{
	bool woken = false;
	int err;

	/* A child's entries cannot be dropped from here. */
	if (is_childs(view) ||
	    (length < REMAP_MIN_PAGES * MKW_PAGE_SIZE && absent_page - address >= length))
		return protect_range(view, address, length, 0); /* wakes */
	err = remap_rw(view, address, length, &woken);
	if (!woken)
		wake(view, address, length);
	return err;
}

static int protect(struct mmu_view *view, uintptr_t address, size_t length)
{
	return protect_range(view, address, length, UFFDIO_WRITEPROTECT_MODE_WP);
}

static int let_rw(struct mmu_view *view, uintptr_t address, size_t length)
{
	return protect_range(view, address, length, 0);
}

static int unprotect(struct mmu_view *view, uintptr_t address, size_t length)
{
	return unprotect_range(view, address, length);
}

int mmu_protect(struct mmu_view *view, uintptr_t address, size_t length)
{
	if (view->backend == MMU_MPROTECT)
		return in_place_protect(view, address, length);
	return by_halves(protect, view, address, length);
}

int mmu_zap(struct mmu_view *view, uintptr_t address, size_t length)
{
	if (view->backend == MMU_MPROTECT) /* the kernel's pages, the kernel's translations */
		return 0;
	if (is_childs(view))
		return -ENOTSUP;
	count_call(view->mmu);
	if (madvise((void *)address, length, MADV_DONTNEED) == 0)
		return 0;
	/* The program has locked its memory: pages of views come and go all the same. */
	if (errno == EINVAL && madvise((void *)address, length, MADV_DONTNEED_LOCKED) == 0)
		return 0;
	return -errno;
}

/* ---- Private views ------------------------------------------------------------------------ */

bool mmu_can_map_base(const struct mmu_view *view)
{
	return view->mmu->features.continue_wp;
}

/* CONTINUE maps a frame into a private view read-only and without a marker: the kernel copies it on
 * the first write. */
static int let_copy(struct mmu_view *view, uintptr_t address, size_t length)
{
	uintptr_t at = address, end = address + length;
	int err = unprotect_range(view, address, length);
	size_t done;

	while (!err && at < end) {
		err = continue_range(view, at, end - at, 0, &done);
		at += done;
		if (err == -EEXIST) {
			at = find_page(view, at + MKW_PAGE_SIZE, end, false);
			err = 0;
		} else if (err == -EFAULT) {
			at = skip_hole(view, at, end);
			err = 0;
		}
	}
	return err;
}

/* ---- What wakes, as wakes.c wants to know it ---------------------------------------------- */

int mmu_fill(struct mmu_view *view, uintptr_t address, size_t length, const void *src, size_t *done)
{
	int err;

	wake_begin(view, address, length);
	err = copy_range(view, address, length, src, UFFDIO_COPY_MODE_WP, done);
	wake_end(view, address, length);
	return err;
}

int mmu_map_ro(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err;

	if (view->backend == MMU_MPROTECT) /* by the kernel itself */
		return 0;
	wake_begin(view, address, length);
	err = by_halves(map_ro, view, address, length);
	if (err == -ENOENT)
		err = 0; /* whoever waited there meets what is there now */
	wake_end(view, address, length);
	return err;
}

int mmu_map_rw(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err;

	if (view->backend == MMU_MPROTECT)
		return in_place_allow(view, address, length);
	wake_begin(view, address, length);
	err = by_halves(map_rw, view, address, length);
	if (err == -ENOENT) {
		wake(view, address, length);
		err = 0;
	}
	wake_end(view, address, length);
	return err;
}

int mmu_let_rw(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err;

	if (view->backend == MMU_MPROTECT)
		return in_place_allow(view, address, length);
	wake_begin(view, address, length);
	err = by_halves(let_rw, view, address, length);
	if (err == -ENOENT) {
		wake(view, address, length);
		err = 0;
	}
	wake_end(view, address, length);
	return err;
}

void mmu_wake(struct mmu_view *view, uintptr_t address, size_t length)
{
	if (view->backend == MMU_MPROTECT) /* nobody waits there */
		return;
	wake_begin(view, address, length);
	wake(view, address, length);
	wake_end(view, address, length);
}

int mmu_copy(struct mmu_view *view, uintptr_t address, size_t length, const void *src, size_t *done)
{
	int err;

	wake_begin(view, address, length);
	err = copy_range(view, address, length, src, 0, done);
	wake_end(view, address, length);
	return err;
}

int mmu_let_copy(struct mmu_view *view, uintptr_t address, size_t length)
{
	int err;

	wake_begin(view, address, length);
	err = by_halves(let_copy, view, address, length);
	wake(view, address, length);
	wake_end(view, address, length);
	return err == -ENOENT ? 0 : err;
}

int mmu_let_write(struct mmu_view *view, uintptr_t address, size_t length, bool *there)
{
	int err;

	wake_begin(view, address, length);
	err = by_halves(unprotect, view, address, length);
	if (!err || err == -ENOENT)
		err = page_is_there(view, address, there);
	wake(view, address, length);
	wake_end(view, address, length);
	return err;
}
