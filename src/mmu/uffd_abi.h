/* SPDX-License-Identifier: MIT */
/*
 * uffd_abi.h - the kernel's userfaultfd and page scan interfaces, as far as the headers of the
 * oldest supported system (Linux 6.1) lack them. What the running kernel has is probed, never
 * assumed from these.
 */
#ifndef MMU_UFFD_ABI_H
#define MMU_UFFD_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>

#ifndef UFFDIO_CONTINUE_MODE_WP /* Linux 6.4 */
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif

#ifndef PAGEMAP_SCAN /* Linux 6.7, <linux/fs.h> */
#define PAGE_IS_PRESENT (1 << 3)

struct page_region {
	__u64 start;
	__u64 end;
	__u64 categories;
};

struct pm_scan_arg {
	__u64 size;
	__u64 flags;
	__u64 start;
	__u64 end;
	__u64 walk_end;
	__u64 vec;
	__u64 vec_len;
	__u64 max_pages;
	__u64 category_inverted;
	__u64 category_mask;
	__u64 category_anyof_mask;
	__u64 return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

#endif
