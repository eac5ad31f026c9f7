/* SPDX-License-Identifier: MIT */
/*
 * presence.c - which pages of a view have a translation: from /proc/self/pagemap, or where the
 * kernel has it by PAGEMAP_SCAN. And which of them are a private view's own copies: those that are
 * no file's. May run in a signal handler.
 */
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ENTRIES_PER_READ 128
#define REGIONS_PER_SCAN 32
#define PAGEMAP_PRESENT	 ((uint64_t)1 << 63)
#define PAGEMAP_SWAPPED	 ((uint64_t)1 << 62) /* by the kernel; or no page, but a marker */
#define PAGEMAP_FILE	 ((uint64_t)1 << 61)

static int scan_ranges(int fd, uintptr_t address, size_t length, bool *present)
{
	struct page_region region[REGIONS_PER_SCAN];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = address,
		.end = address + length,
		.vec = (uintptr_t)region,
		.vec_len = REGIONS_PER_SCAN,
		.category_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT,
	};

	memset(present, 0, length / MKW_PAGE_SIZE * sizeof(*present));
	while (arg.start < arg.end) {
		int n = ioctl(fd, PAGEMAP_SCAN, &arg);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++)
			memset(present + (region[i].start - address) / MKW_PAGE_SIZE, 1,
			       (region[i].end - region[i].start) / MKW_PAGE_SIZE);
		arg.start = arg.walk_end;
	}
	return 0;
}

/* entry[i] for page i. */
static int read_pagemap(int fd, uintptr_t address, size_t pages, uint64_t *entry)
{
	for (size_t i = 0; i < pages;) {
		ssize_t n = pread(fd, &entry[i], (pages - i) * sizeof(entry[0]),
				  (off_t)((address / MKW_PAGE_SIZE + i) * sizeof(entry[0])));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)sizeof(entry[0]))
			return n < 0 ? -errno : -EIO;
		i += (size_t)n / sizeof(entry[0]);
	}
	return 0;
}

static int read_entries(int fd, uintptr_t address, size_t length, bool *present)
{
	uint64_t entry[ENTRIES_PER_READ];
	size_t pages = length / MKW_PAGE_SIZE;

	for (size_t i = 0, n; i < pages; i += n) {
		int err;

		n = pages - i < ENTRIES_PER_READ ? pages - i : ENTRIES_PER_READ;
		err = read_pagemap(fd, address + i * MKW_PAGE_SIZE, n, entry);
		if (err)
			return err;
		for (size_t j = 0; j < n; j++)
			present[i + j] = (entry[j] & PAGEMAP_PRESENT) != 0;
	}
	return 0;
}

int mmu_present(struct mmu_view *view, uintptr_t address, size_t length, bool *present)
{
	const struct mmu *mmu = view->mmu;

	if (mmu->kin) {
		memset(present, 0, length / MKW_PAGE_SIZE * sizeof(*present));
		return 0;
	}
	if (mmu->features.pagemap_scan)
		return scan_ranges(mmu->pagemap_fd, address, length, present);
	return read_entries(mmu->pagemap_fd, address, length, present);
}

/* ---- Private views ------------------------------------------------------------------------ */

int page_is_there(const struct mmu_view *view, uintptr_t address, bool *there)
{
	uint64_t entry;
	int err;

	/* A child's that cannot be looked at is believed. */
	*there = true;
	if (view->mmu->kin && view->mmu->pagemap_fd < 0)
		return 0;
	err = read_pagemap(view->mmu->pagemap_fd, address, 1, &entry);

	*there = !err && (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;
	return err;
}

/* Not present, and yet not nothing: a page that the kernel has swapped out, or is moving, which if
 * it is no file's can only be a copy; or a marker, which goes with the protection. */
static int tell_from_marker(struct mmu_view *view, uintptr_t address, bool *copied)
{
	int err = unprotect_range(view, address, MKW_PAGE_SIZE);

	if (!err)
		err = page_is_there(view, address, copied);
	return err || !*copied ? err : mmu_protect(view, address, MKW_PAGE_SIZE);
}

int mmu_copies(struct mmu_view *view, uintptr_t address, size_t length, bool *copied)
{
	uint64_t entry[ENTRIES_PER_READ];
	size_t pages = length / MKW_PAGE_SIZE;

	for (size_t i = 0, n; i < pages; i += n) {
		int err;

		n = pages - i < ENTRIES_PER_READ ? pages - i : ENTRIES_PER_READ;
		err = read_pagemap(view->mmu->pagemap_fd, address + i * MKW_PAGE_SIZE, n, entry);
		for (size_t j = 0; !err && j < n; j++) {
			copied[i + j] = (entry[j] & PAGEMAP_PRESENT) && !(entry[j] & PAGEMAP_FILE);
			if (!(entry[j] & (PAGEMAP_PRESENT | PAGEMAP_FILE)) &&
			    (entry[j] & PAGEMAP_SWAPPED))
				err = tell_from_marker(view, address + (i + j) * MKW_PAGE_SIZE,
						       &copied[i + j]);
		}
		if (err)
			return err;
	}
	return 0;
}
