/* SPDX-License-Identifier: MIT */
/*
 * descriptor.c - userfaultfd descriptors: by which way one is to be had here, and what the kernel
 * behind it can do.
 *
 * MKW_UFFD_WITHOUT in the environment names features to treat as missing, so that the paths for
 * older kernels can be run on a newer one: continue-wp, poison (never used), pagemap-scan,
 * thread-id, exact-address, syscalls, fork.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

bool feature_switched_off(const char *name)
{
	const char *list = getenv("MKW_UFFD_WITHOUT");
	size_t length = strlen(name);

	while (list && *list) {
		size_t n = strcspn(list, ",");

		if (n == length && memcmp(list, name, n) == 0)
			return true;
		list += n + (list[n] == ',');
	}
	return false;
}

/* The most able descriptor that this process may have. */
static int open_any(bool *syscalls)
{
	int flags = O_CLOEXEC, fd = -1, err, dev;

	*syscalls = !feature_switched_off("syscalls");
	if (*syscalls) {
		fd = (int)syscall(SYS_userfaultfd, flags);
		err = errno;
		if (fd >= 0 || (err != EPERM && err != EACCES))
			return fd >= 0 ? fd : -err;
		dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (dev >= 0) {
			fd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
			close(dev);
		}
		if (fd >= 0)
			return fd;
		*syscalls = false;
	}
	fd = (int)syscall(SYS_userfaultfd, flags | UFFD_USER_MODE_ONLY);
	return fd >= 0 ? fd : -errno;
}

/* An unregistered page is refused with ENOENT, an unknown mode already before that with EINVAL. */
static bool knows_continue_wp(int fd)
{
	static char page[2 * MKW_PAGE_SIZE];
	struct uffdio_continue arg = {
		.range.start =
			((uintptr_t)page + MKW_PAGE_SIZE - 1) & ~(uintptr_t)(MKW_PAGE_SIZE - 1),
		.range.len = MKW_PAGE_SIZE,
		.mode = UFFDIO_CONTINUE_MODE_WP,
	};

	return ioctl(fd, UFFDIO_CONTINUE, &arg) < 0 && errno != EINVAL;
}

static bool knows_pagemap_scan(void)
{
	struct pm_scan_arg arg = {.size = sizeof(arg), .return_mask = PAGE_IS_PRESENT};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bool known;

	if (fd < 0)
		return false;
	known = ioctl(fd, PAGEMAP_SCAN, &arg) >= 0 || errno != ENOTTY;
	close(fd);
	return known;
}

/* TSan ends a child of several threads that starts one; in ASan's that waits for ever, sometimes,
 * for a lock of its malloc that nobody holds any more. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* The kernel asks for CAP_SYS_PTRACE. */
static bool may_have_forks(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK};
	bool syscalls, may;
	int fd = open_any(&syscalls);

	if (fd < 0)
		return false;
	may = ioctl(fd, UFFDIO_API, &api) == 0;
	close(fd);
	return may;
}

int features_probe(struct features *features)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd, err = 0;

	memset(features, 0, sizeof(*features));
	fd = open_any(&features->syscalls);
	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api)) {
		err = -errno;
	} else {
		features->bits = api.features;
		features->continue_wp =
			!feature_switched_off("continue-wp") && knows_continue_wp(fd);
		features->pagemap_scan =
			!feature_switched_off("pagemap-scan") && knows_pagemap_scan();
		features->exact_address = !feature_switched_off("exact-address") &&
					  (api.features & UFFD_FEATURE_EXACT_ADDRESS);
		features->fork = !SANITIZED && !feature_switched_off("fork") &&
				 (api.features & UFFD_FEATURE_EVENT_FORK) && may_have_forks();
		if (feature_switched_off("thread-id"))
			features->bits &= ~(uint64_t)UFFD_FEATURE_THREAD_ID;
	}
	close(fd);
	return err;
}

int descriptor_open(const struct features *features, uint64_t extra)
{
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURES_NEEDED | extra};
	bool syscalls;
	int fd;

	if ((features->bits & FEATURES_NEEDED) != FEATURES_NEEDED)
		return -ENOTSUP;
	if (features->exact_address)
		api.features |= UFFD_FEATURE_EXACT_ADDRESS;
	fd = open_any(&syscalls);
	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api)) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}
