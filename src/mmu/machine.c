/* SPDX-License-Identifier: MIT */
/*
 * machine.c - making and ending a space's machine.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int explain(int err)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
		return mkw_set_error(-EPERM,
				     "this process may not use userfaultfd; run `mkwrite doctor`");
	case -ENOSYS:
	case -ENOTSUP:
		return mkw_set_error(-ENOSYS, "no usable userfaultfd here; run `mkwrite doctor`");
	default:
		errno = -err;
		return mkw_set_error(err, "cannot set up fault handling: %m");
	}
}

static int open_descriptors(struct mmu *mmu)
{
	int err = features_probe(&mmu->features);

	if (err)
		return err;
	mmu->uffd =
		descriptor_open(&mmu->features, mmu->features.fork ? UFFD_FEATURE_EVENT_FORK : 0);
	if (mmu->uffd < 0)
		return mmu->uffd;
	mmu->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (mmu->pagemap_fd < 0) {
		err = -errno;
		close(mmu->uffd);
		return err;
	}
	return 0;
}

int mmu_create(const struct mmu_options *options, struct mmu **mmu)
{
	unsigned count = options->workers ? options->workers : 1;
	struct mmu *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return explain(-ENOMEM);
	m->upcalls = options->upcalls;
	m->arg = options->arg;
	m->inline_fd = -1;
	m->kin_socket = -1;
	m->spare_fd = -1;
	m->root = m;
	m->uffd = m->pagemap_fd = -1;
	if (options->in_place) {
		err = signals_install();
		if (err)
			goto fail_free;
		*mmu = m;
		return 0;
	}
	err = open_descriptors(m);
	if (err)
		goto fail_free;
	err = wakes_create();
	if (!err)
		err = signals_install();
	if (!err)
		err = workers_start(m, count,
				    options->workers_max > count ? options->workers_max : count);
	if (err)
		goto fail_close;
	*mmu = m;
	return 0;

fail_close:
	close(m->pagemap_fd);
	close(m->uffd);
fail_free:
	free(m);
	return explain(err);
}

void mmu_destroy(struct mmu *mmu)
{
	if (mmu->uffd < 0) { /* of a space in place */
		free(mmu);
		return;
	}
	strays_close(mmu);
	workers_stop(mmu);
	close(mmu->pagemap_fd);
	close(mmu->uffd);
	if (mmu->inline_fd >= 0)
		close(mmu->inline_fd);
	free(mmu);
}

const struct mmu_counts *mmu_counts(const struct mmu *mmu)
{
	return &mmu->counts;
}
