/* SPDX-License-Identifier: MIT */
/*
 * probe.c - which backends this host allows, why not, and what to change.
 */
#include "machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 3, 4))) static void append(char *text, size_t size,
							 const char *format, ...)
{
	size_t used = strlen(text);
	va_list args;

	if (used > 0 && used + 2 < size) {
		memcpy(text + used, "; ", 3);
		used += 2;
	}
	va_start(args, format);
	vsnprintf(text + used, size - used, format, args);
	va_end(args);
}

#define REASON(info, ...) append((info)->reason, sizeof((info)->reason), __VA_ARGS__)
#define REMEDY(info, ...) append((info)->remedy, sizeof((info)->remedy), __VA_ARGS__)

static void explain_none(struct mkw_backend_info *info, int err)
{
	switch (err) {
	case -ENOSYS:
		REASON(info, "the kernel has no userfaultfd");
		REMEDY(info, "use a kernel built with CONFIG_USERFAULTFD=y");
		break;
	case -EPERM:
	case -EACCES:
		REASON(info, "userfaultfd is refused, as containers often do");
		REMEDY(info,
		       "allow the system call userfaultfd in the container's seccomp profile, "
		       "or run outside of it");
		break;
	default:
		REASON(info, "userfaultfd: %s", strerror(-err));
		break;
	}
}

static void explain_missing(struct mkw_backend_info *info, uint64_t missing)
{
	if (missing & UFFD_FEATURE_THREAD_ID)
		REASON(info, "events do not name the thread");
	if (missing & (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		REASON(info, "shared memory cannot be write-protected");
	if (missing & UFFD_FEATURE_MISSING_SHMEM)
		REASON(info, "missing pages of shared memory are not reported");
	if (missing & UFFD_FEATURE_SIGBUS)
		REASON(info, "faults cannot be had as signals");
	REMEDY(info, "use Linux 5.19 or later, built with CONFIG_HAVE_ARCH_USERFAULTFD_WP");
}

/* What works, but less than it could. */
static void explain_lesser(struct mkw_backend_info *info, const struct features *features, bool inl)
{
	if (!features->syscalls && !inl) {
		REASON(info,
		       "only faults of user mode are reported: a system call on a page that is "
		       "not mapped fails with EFAULT");
		REMEDY(info,
		       "give the process CAP_SYS_PTRACE, or access to /dev/userfaultfd, or set "
		       "sysctl vm.unprivileged_userfaultfd=1");
	}
	if (!features->continue_wp) {
		REASON(info, "cached pages cannot be mapped in advance, each costs a fault in the "
			     "kernel: about 4 times the price");
		REMEDY(info, "use Linux 6.4 or later");
	}
	if (!features->fork && !inl) {
		REASON(info, "children made by fork inherit no views");
		REMEDY(info, "give the process CAP_SYS_PTRACE");
	}
	if (!features->exact_address)
		REASON(info, "addresses of refused writes are those of their pages");
}

/* Frames must come one page at a time (memfd.c). */
static bool frames_usable(struct mkw_backend_info *info)
{
	struct frames *frames;
	int err = frames_create(&frames);

	if (!err) {
		frames_destroy(frames);
		return true;
	}
	REASON(info, "%s", mkw_error_message());
	return false;
}

static void probe_backend(struct mkw_backend_info *info, enum mmu_backend backend)
{
	bool inl = backend == MMU_INLINE;
	uint64_t needed = FEATURES_NEEDED | (inl ? UFFD_FEATURE_SIGBUS : 0);
	struct features features;
	int err = features_probe(&features);

	memset(info, 0, sizeof(*info));
	info->name = inl ? "inline" : "uffd";
	info->features = features.bits;
	if (err) {
		explain_none(info, err);
	} else if ((features.bits & needed) != needed) {
		explain_missing(info, needed & ~features.bits);
	} else if (frames_usable(info)) {
		info->usable = true;
		explain_lesser(info, &features, inl);
	}
}

size_t mmu_probe(struct mkw_backend_info *info, size_t capacity)
{
	for (size_t i = 0; i < capacity && i < MMU_BACKENDS; i++)
		probe_backend(&info[i], (enum mmu_backend)i);
	return MMU_BACKENDS;
}
