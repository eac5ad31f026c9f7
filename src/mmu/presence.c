/* SPDX-License-Identifier: MIT */
/*
 * presence.c - which pages of a view have a translation: from /proc/self/pagemap, or where the
 * kernel has it by PAGEMAP_SCAN. May run in a signal handler.
 */
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ENTRIES_PER_READ 128
#define REGIONS_PER_SCAN 32
#define PAGEMAP_PRESENT	 ((uint64_t)1 << 63)

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

static int read_entries(int fd, uintptr_t address, size_t length, bool *present)
{
	uint64_t entry[ENTRIES_PER_READ];
	size_t pages = length / MKW_PAGE_SIZE;

	for (size_t i = 0; i < pages;) {
		size_t want = pages - i < ENTRIES_PER_READ ? pages - i : ENTRIES_PER_READ;
		ssize_t n = pread(fd, entry, want * sizeof(entry[0]),
				  (off_t)((address / MKW_PAGE_SIZE + i) * sizeof(entry[0])));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)sizeof(entry[0]))
			return n < 0 ? -errno : -EIO;
		for (size_t j = 0; j < (size_t)n / sizeof(entry[0]); j++)
			present[i++] = (entry[j] & PAGEMAP_PRESENT) != 0;
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
