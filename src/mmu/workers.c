/* SPDX-License-Identifier: MIT */
/*
 * workers.c - handler threads. Each waits for events, and whoever has read one serves it: handing
 * it to another thread would cost more than the fault itself.
 *
 * All wait on one epoll instance, edge-triggered, which wakes one of them for an event, and of
 * several the one that ran last. A read may bring more than one message; those beyond the first go
 * to the inbox and another worker is kicked, so that none waits behind an operation that sleeps
 * while a worker is idle.
 *
 * A worker that is about to sleep in an operation says so (mmu_sleep_begin). When all of them sleep
 * another one is started: somebody can always read.
 */
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static _Thread_local struct worker *self;

static void serve_message(struct worker *worker, const struct uffd_msg *message)
{
	struct mmu *mmu = worker->mmu;
	uint64_t flags = message->arg.pagefault.flags;
	bool write = flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	pid_t tid = (pid_t)message->arg.pagefault.feat.ptid;

	place_follow(&worker->place, tid);
	mmu->upcalls->fault(mmu->arg, (uintptr_t)message->arg.pagefault.address,
			    write ? MMU_WRITE : MMU_READ, tid);
}

void mmu_kick(struct mmu *mmu)
{
	uint64_t one = 1;

	/* EAGAIN means that it is full of kicks that nobody has taken yet. */
	while (write(mmu->kick_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/*
 * Take one message. *more: others were left in the inbox, or on the descriptor.
 */
static bool take_message(struct mmu *mmu, struct uffd_msg *message, bool *more)
{
	struct inbox *inbox = &mmu->inbox;
	bool taken = false;
	ssize_t n;

	*more = false;
	pthread_mutex_lock(&inbox->lock);
	if (inbox->count == 0) {
		n = read(mmu->uffd, inbox->message, sizeof(inbox->message));
		inbox->first = 0;
		inbox->count = n > 0 ? (unsigned)((size_t)n / sizeof(*message)) : 0;
		atomic_fetch_add_explicit(&mmu->counts.events, inbox->count, memory_order_relaxed);
		/* A full read may have left some behind, which no edge will tell of. */
		*more = inbox->count == INBOX_CAPACITY;
	}
	if (inbox->count > 0) {
		*message = inbox->message[inbox->first++];
		*more |= --inbox->count > 0;
		taken = true;
	}
	pthread_mutex_unlock(&inbox->lock);
	return taken;
}

static void serve_messages(struct worker *worker)
{
	struct uffd_msg message;
	bool more = true;

	while (more && take_message(worker->mmu, &message, &more)) {
		if (more)
			mmu_kick(worker->mmu);
		if (message.event == UFFD_EVENT_PAGEFAULT)
			serve_message(worker, &message);
	}
}

static void serve_kick(struct worker *worker)
{
	struct mmu *mmu = worker->mmu;
	uint64_t kicks;

	if (read(mmu->kick_fd, &kicks, sizeof(kicks)) < 0)
		return; /* another worker took it */
	serve_messages(worker);
	mmu->upcalls->ready(mmu->arg);
}

static void *worker_run(void *arg)
{
	struct worker *worker = arg;
	struct mmu *mmu = worker->mmu;

	self = worker;
	pthread_setname_np(pthread_self(), "mkw-handler");
	place_init(&worker->place);
	while (!atomic_load(&mmu->stopping)) {
		struct epoll_event event;

		if (epoll_wait(mmu->epoll_fd, &event, 1, -1) != 1)
			continue;
		atomic_fetch_add_explicit(&mmu->counts.wakeups, 1, memory_order_relaxed);
		if (event.data.fd == mmu->uffd)
			serve_messages(worker);
		else if (!atomic_load(&mmu->stopping))
			serve_kick(worker);
	}
	mmu_kick(mmu); /* the next one, to stop too */
	return NULL;
}

/* => grow held. All signals are blocked but those that a fault of the thread itself raises. */
static int worker_start(struct mmu *mmu)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	sigset_t block, before;
	int err;

	if (!worker)
		return -ENOMEM;
	worker->mmu = mmu;
	sigfillset(&block);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &block, &before);
	err = pthread_create(&worker->thread, NULL, worker_run, worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err) {
		free(worker);
		return -err;
	}
	worker->next = mmu->workers;
	mmu->workers = worker;
	atomic_fetch_add(&mmu->counts.workers, 1);
	return 0;
}

static int watch(struct mmu *mmu, int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = fd};

	return epoll_ctl(mmu->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

int workers_start(struct mmu *mmu, unsigned count)
{
	int err = 0;

	pthread_mutex_init(&mmu->grow, NULL);
	pthread_mutex_init(&mmu->inbox.lock, NULL);
	mmu->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	mmu->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mmu->epoll_fd < 0 || mmu->kick_fd < 0)
		err = -errno;
	if (!err)
		err = watch(mmu, mmu->uffd);
	if (!err)
		err = watch(mmu, mmu->kick_fd);
	pthread_mutex_lock(&mmu->grow);
	for (unsigned i = 0; i < count && !err; i++)
		err = worker_start(mmu);
	pthread_mutex_unlock(&mmu->grow);
	if (err)
		workers_stop(mmu);
	return err;
}

void workers_stop(struct mmu *mmu)
{
	struct worker *worker;

	atomic_store(&mmu->stopping, true);
	mmu_kick(mmu);
	/* A worker may be about to start another one, which then is in the list. */
	for (;;) {
		pthread_mutex_lock(&mmu->grow);
		worker = mmu->workers;
		if (worker)
			mmu->workers = worker->next;
		pthread_mutex_unlock(&mmu->grow);
		if (!worker)
			break;
		pthread_join(worker->thread, NULL);
		free(worker);
	}
	close_if_open(mmu->epoll_fd);
	close_if_open(mmu->kick_fd);
	pthread_mutex_destroy(&mmu->inbox.lock);
	pthread_mutex_destroy(&mmu->grow);
}

void mmu_sleep_begin(struct mmu *mmu)
{
	if (!self || self->mmu != mmu)
		return;
	if (atomic_fetch_add(&mmu->sleeping, 1) + 1 < atomic_load(&mmu->counts.workers))
		return;
	pthread_mutex_lock(&mmu->grow);
	/* When it cannot be had events wait until an operation ends. */
	if (atomic_load(&mmu->sleeping) >= atomic_load(&mmu->counts.workers) &&
	    atomic_load(&mmu->counts.workers) < mmu->workers_max)
		(void)worker_start(mmu);
	pthread_mutex_unlock(&mmu->grow);
}

void mmu_sleep_end(struct mmu *mmu)
{
	if (self && self->mmu == mmu)
		atomic_fetch_sub(&mmu->sleeping, 1);
}
