/* SPDX-License-Identifier: MIT */
/*
 * doorbell.c - how to reach a reader, which is blocked in read(): by a fault of our own. A thread
 * (the ringer) touches a page registered for nothing else, and some reader is woken by the event.
 * It looks whether it is dismissed or to end, and answers. Nobody else waits for that: what a
 * deputy waited for could be what only a deputy can mend. Only where the pool ends, and no thread
 * is to be had, the one that ends it rings itself.
 */
#include "machine.h"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

int doorbell_create(struct mmu *mmu)
{
	struct uffdio_register arg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	void *page = mmap(NULL, MKW_PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -errno;
	arg.range.start = (uintptr_t)page;
	arg.range.len = MKW_PAGE_SIZE;
	if (madvise(page, MKW_PAGE_SIZE, MADV_DONTFORK) ||
	    ioctl(mmu->uffd, UFFDIO_REGISTER, &arg)) {
		int err = -errno;

		munmap(page, MKW_PAGE_SIZE);
		return err;
	}
	mmu->doorbell.page = (uintptr_t)page;
	return 0;
}

/* Wait for an answer, and be ready for the next. */
static void touch(struct mmu *mmu)
{
	(void)*(volatile char *)mmu->doorbell.page;
	madvise((void *)mmu->doorbell.page, MKW_PAGE_SIZE, MADV_DONTNEED);
}

static void *ring(void *arg)
{
	struct mmu *mmu = arg;

	pthread_setname_np(pthread_self(), "mkw-ringer");
	touch(mmu);
	/* Under the lock: whoever sees that it is over may join at once. */
	machine_lock(&mmu->pool.lock);
	atomic_store(&mmu->doorbell.ringing, false);
	pthread_cond_signal(&mmu->pool.left);
	machine_unlock(&mmu->pool.lock);
	return NULL;
}

bool doorbell_ring(struct mmu *mmu)
{
	struct doorbell *bell = &mmu->doorbell;

	if (atomic_load(&bell->ringing))
		return true;
	if (bell->started)
		pthread_join(bell->ringer, NULL);
	atomic_store(&bell->ringing, true);
	bell->started = thread_start(&bell->ringer, ring, mmu) == 0;
	if (!bell->started)
		atomic_store(&bell->ringing, false);
	return bell->started;
}

void doorbell_ring_here(struct mmu *mmu)
{
	touch(mmu);
}

void doorbell_answer(struct mmu *mmu)
{
	struct uffdio_zeropage arg = {
		.range = {.start = mmu->doorbell.page, .len = MKW_PAGE_SIZE},
	};

	/* Whoever rang is not to wait for ever because there was no memory for a moment. EEXIST:
	 * somebody else has answered. */
	while (ioctl(mmu->uffd, UFFDIO_ZEROPAGE, &arg) && (errno == ENOMEM || errno == EAGAIN)) {
		/* Nor may a reader wait here for a fork that waits for a reader: it answers. */
		if (errno == EAGAIN && !atomic_exchange(&mmu->doorbell.owed, true))
			continue;
		if (errno == EAGAIN)
			return;
		sched_yield();
	}
	atomic_store(&mmu->doorbell.owed, false);
}

void doorbell_destroy(struct mmu *mmu)
{
	struct doorbell *bell = &mmu->doorbell;

	/* The ringer may not have rung yet when there is nobody left to answer. */
	while (bell->started && atomic_load(&bell->ringing))
		doorbell_answer(mmu);
	if (bell->started)
		pthread_join(bell->ringer, NULL);
	munmap((void *)bell->page, MKW_PAGE_SIZE);
}
