/* SPDX-License-Identifier: MIT */
/*
 * kin.c - the machine of a child: this process serves the faults of the child's views, by the
 * descriptor that the event of its fork brought.
 *
 * Threads wait at the descriptor and at the socket to the child's warden. Usually one does; when it
 * is about to sleep in an operation and no other waits, another is started. A thread that finds two
 * waiting already ends, and its place is free for the next.
 *
 *   NEW -> SERVING   the child has said hello, and has been welcomed    greet
 *   any -> GONE      the child is dead: its memory is no more           bury
 *
 * A child whose socket hangs up may live on, if its warden alone is dead: it is served until its
 * memory is gone, which the descriptor tells (ESRCH).
 *
 * Locks: kin.lock, of rank MACHINE; the list's has no rank: nothing is taken below it, and it is
 * taken below any.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREADS_MAX  16
#define WAITING_MAX  2 /* more of them are not worth their wake-ups */
#define GONE_LOOK_MS 2 /* at a child that is ending */
#define PATIENCE_S   2 /* with one that is to drop what it has mapped */

enum place_state { FREE, RUNNING, ENDED };

struct kin {
	struct mmu mmu;
	struct kin *next;     /* of all */
	int stop;	      /* eventfd */
	_Atomic pid_t pid;    /* 0: it has not said hello yet */
	_Atomic bool mute;    /* its socket is of no use any more */
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t left;
	struct {
		enum place_state state;
		pthread_t thread;
	} place[THREADS_MAX];
	unsigned running, waiting;
	uint64_t zaps, zapped; /* asked of the warden, and done */
	bool stopping, burying;
};

static struct kin *all;
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;

static _Thread_local struct kin *self __attribute__((tls_model("initial-exec")));

/* ---- Making ------------------------------------------------------------------------------- */

struct mmu *kin_new(struct mmu_fork *f)
{
	struct kin *k = calloc(1, sizeof(*k));
	pthread_condattr_t attr;

	if (!k)
		return NULL;
	k->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (k->stop < 0) {
		free(k);
		return NULL;
	}
	k->mmu.kin = k;
	k->mmu.root = f->mmu->root;
	k->mmu.features = f->mmu->features;
	k->mmu.uffd = f->uffd;
	k->mmu.kin_socket = f->socket;
	k->mmu.inline_fd = -1;
	k->mmu.pagemap_fd = -1;
	k->mmu.spare_fd = -1;
	f->uffd = -1;
	f->socket = -1;
	/* Several threads wait for an event, and one gets it. */
	(void)fcntl(k->mmu.uffd, F_SETFL, O_NONBLOCK);
	pthread_mutex_init(&k->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->left, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_lock(&all_lock);
	k->next = all;
	all = k;
	pthread_mutex_unlock(&all_lock);
	return &k->mmu;
}

static void unlist(struct kin *k)
{
	struct kin **at = &all;

	pthread_mutex_lock(&all_lock);
	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	pthread_mutex_unlock(&all_lock);
}

/* Forgotten first: a child that is forked meanwhile closes what it finds. */
static void forget_fd(int *fd)
{
	int old = *fd;

	*fd = -1;
	if (old >= 0)
		close(old);
}

/* The descriptor first: what happens from the hangup on the warden reads. */
static void hang_up(struct kin *k)
{
	forget_fd(&k->mmu.uffd);
	forget_fd(&k->mmu.kin_socket);
	forget_fd(&k->mmu.pagemap_fd);
}

void mmu_kin_destroy(struct mmu *mmu)
{
	struct kin *k = mmu->kin;

	unlist(k);
	forget_fd(&k->mmu.uffd);
	/* Another process may have a copy, and the warden is to be told all the same. */
	shutdown(k->mmu.kin_socket, SHUT_RDWR);
	hang_up(k);
	close(k->stop);
	pthread_cond_destroy(&k->left);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

void kins_abandon(void)
{
	for (struct kin *k = all; k; k = k->next) {
		hang_up(k);
		close(k->stop);
	}
	all = NULL;
	pthread_mutex_init(&all_lock, NULL);
}

pid_t kin_process_of(pid_t tid)
{
	char path[64];
	pid_t found = 0;

	pthread_mutex_lock(&all_lock);
	for (const struct kin *k = all; k && !found; k = k->next) {
		pid_t pid = atomic_load(&k->pid);

		if (!pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)pid, (int)tid);
		if (access(path, F_OK) == 0)
			found = pid;
	}
	pthread_mutex_unlock(&all_lock);
	return found;
}

/* ---- The child tells ---------------------------------------------------------------------- */

/* A process of another numbering cannot be served: its threads' numbers mean nothing here. */
static void greet(struct kin *k, const struct kin_message *hello, pid_t pid)
{
	struct kin_message welcome = {.word = KIN_WELCOME};
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	forget_fd(&k->mmu.pagemap_fd);
	k->mmu.pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (pid == 0 || pid != hello->tid || kin_send(k->mmu.kin_socket, &welcome, k->mmu.uffd)) {
		shutdown(k->mmu.kin_socket, SHUT_RDWR);
		return;
	}
	machine_lock(&k->lock);
	atomic_store(&k->pid, pid);
	pthread_cond_broadcast(&k->left);
	machine_unlock(&k->lock);
}

static void let_fork(struct kin *k, int socket)
{
	struct mmu_fork *f = socket >= 0 ? fork_new(&k->mmu, socket) : NULL;
	struct kin_message no = {.word = KIN_GO, .error = -ENOMEM};

	if (f) {
		k->mmu.upcalls->forks(k->mmu.arg, f);
		return;
	}
	if (socket >= 0)
		close(socket);
	if (kin_send(k->mmu.kin_socket, &no, -1))
		shutdown(k->mmu.kin_socket, SHUT_RDWR);
}

static void note_zapped(struct kin *k, uint64_t which)
{
	machine_lock(&k->lock);
	k->zapped = which;
	pthread_cond_broadcast(&k->left);
	machine_unlock(&k->lock);
}

/* False: nobody is there any more. */
static bool listen_to(struct kin *k)
{
	struct kin_message message;
	pid_t pid;
	int fd, n = kin_receive(k->mmu.kin_socket, &message, &fd, &pid);

	if (n <= 0)
		return n == 0;
	if (message.word == KIN_FORK) {
		let_fork(k, fd);
		return true;
	}
	/* With nothing else a descriptor comes. */
	if (fd >= 0)
		close(fd);
	if (message.word == KIN_HELLO && atomic_load(&k->pid) == 0)
		greet(k, &message, pid);
	else if (message.word == KIN_ZAPPED)
		note_zapped(k, message.reported);
	return true;
}

/* ---- Events ------------------------------------------------------------------------------- */

static void serve(struct mmu *mmu, const struct uffd_msg *message)
{
	uint64_t flags = message->arg.pagefault.flags;
	bool write = flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	pid_t tid = (pid_t)message->arg.pagefault.feat.ptid;
	uintptr_t address = (uintptr_t)message->arg.pagefault.address;

	atomic_fetch_add_explicit(&mmu->root->counts.events, 1, memory_order_relaxed);
	fault_note(address, !(flags & UFFD_PAGEFAULT_FLAG_WP));
	mmu->upcalls->fault(mmu->arg, address, write ? MMU_WRITE : MMU_READ, tid);
}

void kin_read(struct mmu *mmu)
{
	struct uffd_msg message;

	report_time_set(wake_clock());
	if (read(mmu->uffd, &message, sizeof(message)) != sizeof(message)) {
		if (errno == EMFILE || errno == ENFILE)
			fork_make_room(mmu);
		return;
	}
	atomic_fetch_add_explicit(&mmu->root->counts.wakeups, 1, memory_order_relaxed);
	if (message.event == UFFD_EVENT_PAGEFAULT)
		serve(mmu, &message);
	else if (message.event == UFFD_EVENT_FORK)
		fork_event(mmu, (int)message.arg.fork.ufd);
}

bool memory_is_gone(const struct mmu *mmu, int uffd)
{
	struct uffdio_writeprotect arg = {
		.range = {.start = mmu->root->doorbell.page, .len = MKW_PAGE_SIZE},
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &arg) && errno == ESRCH;
}

/* => kin.lock held. The last thread says so. */
static bool bury(struct kin *k)
{
	if (k->burying || k->stopping || !memory_is_gone(&k->mmu, k->mmu.uffd))
		return false;
	k->burying = true;
	(void)eventfd_write(k->stop, 1);
	while (k->running > 1)
		pthread_cond_wait(&k->left, &k->lock);
	if (k->stopping)
		return false;
	atomic_store(&k->pid, 0);
	return true;
}

/* ---- Threads ------------------------------------------------------------------------------ */

/* False: the child may be gone. */
static bool wait_and_serve(struct kin *k)
{
	struct pollfd wait[] = {
		{.fd = k->mmu.uffd, .events = POLLIN},
		{.fd = k->mute ? -1 : k->mmu.kin_socket, .events = POLLIN},
		{.fd = k->stop, .events = POLLIN},
	};
	bool alive = true;
	int n = poll(wait, 3, k->mute ? GONE_LOOK_MS : -1);

	machine_lock(&k->lock);
	k->waiting--;
	machine_unlock(&k->lock);
	if (n > 0 && wait[2].revents)
		return true;
	if (n > 0 && wait[0].revents & POLLIN)
		kin_read(&k->mmu);
	else if (n > 0 && wait[1].revents)
		alive = listen_to(k);
	return alive && !(n == 0 && k->mute);
}

static void *kin_run(void *arg)
{
	struct kin *k = arg;
	bool gone = false;
	unsigned i = 0;

	self = k;
	pthread_setname_np(pthread_self(), "mkw-kin");
	machine_lock(&k->lock);
	while (!gone && !k->stopping && !k->burying && k->waiting < WAITING_MAX) {
		bool alive;

		k->waiting++;
		machine_unlock(&k->lock);
		alive = wait_and_serve(k);
		machine_lock(&k->lock);
		if (!alive) {
			k->mute = true;
			pthread_cond_broadcast(&k->left);
			gone = bury(k);
		}
	}
	if (gone) {
		machine_unlock(&k->lock);
		k->mmu.upcalls->gone(k->mmu.arg);
		hang_up(k);
		machine_lock(&k->lock);
	}
	while (!pthread_equal(k->place[i].thread, pthread_self()) || k->place[i].state != RUNNING)
		i++;
	k->place[i].state = ENDED;
	k->running--;
	pthread_cond_broadcast(&k->left);
	machine_unlock(&k->lock);
	return NULL;
}

/* => kin.lock held. */
static int thread_add(struct kin *k)
{
	unsigned i = 0;
	int err;

	while (i < THREADS_MAX && k->place[i].state == RUNNING)
		i++;
	if (i == THREADS_MAX || k->stopping || k->burying)
		return -EBUSY;
	if (k->place[i].state == ENDED)
		pthread_join(k->place[i].thread, NULL);
	k->place[i].state = FREE;
	err = thread_start(&k->place[i].thread, kin_run, k);
	if (err)
		return err;
	k->place[i].state = RUNNING;
	k->running++;
	return 0;
}

void kin_sleep_begin(void)
{
	struct kin *k = self;

	if (!k)
		return;
	machine_lock(&k->lock);
	if (k->waiting == 0)
		(void)thread_add(k); /* else the others wait */
	machine_unlock(&k->lock);
}

/* Nobody serves any more. Who waits for a page is woken when the child is told so. */
static void skip_event(struct mmu *mmu)
{
	struct uffd_msg message;

	if (read(mmu->uffd, &message, sizeof(message)) == sizeof(message) &&
	    message.event == UFFD_EVENT_FORK)
		fork_event(mmu, (int)message.arg.fork.ufd);
}

void kin_want_reader(struct mmu *mmu)
{
	struct kin *k = mmu->kin;
	bool stopping;

	machine_lock(&k->lock);
	stopping = k->stopping;
	if (k->waiting == 0)
		(void)thread_add(k);
	machine_unlock(&k->lock);
	if (stopping)
		skip_event(mmu);
}

int mmu_kin_start(struct mmu *mmu, const struct mmu_upcalls *upcalls, void *arg)
{
	struct kin *k = mmu->kin;
	int err;

	mmu->upcalls = upcalls;
	mmu->arg = arg;
	machine_lock(&k->lock);
	err = thread_add(k);
	machine_unlock(&k->lock);
	return err;
}

void mmu_kin_stop(struct mmu *mmu)
{
	struct kin *k = mmu->kin;

	machine_lock(&k->lock);
	k->stopping = true;
	(void)eventfd_write(k->stop, 1);
	while (k->running > 0)
		pthread_cond_wait(&k->left, &k->lock);
	machine_unlock(&k->lock);
	for (unsigned i = 0; i < THREADS_MAX; i++)
		if (k->place[i].state == ENDED)
			pthread_join(k->place[i].thread, NULL);
}

/* => kin.lock held. False: it is late, or the child is not served any more. */
static bool await_warden(struct kin *k, const struct timespec *until)
{
	return !k->stopping && !k->burying && !k->mute &&
	       pthread_cond_timedwait(&k->left, &k->lock, until) != ETIMEDOUT;
}

void mmu_kin_zap(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct kin *k = view->mmu->kin;
	struct kin_message ask = {
		.word = KIN_ZAP,
		.refusal = {.address = (void *)address, .length = length},
	};
	struct timespec until;
	bool late = false;
	int err;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE_S;
	machine_lock(&k->lock);
	/* The first that its warden hears is the welcome. It has not run yet, and if it is to run
	 * it must not have what is to be dropped: without a welcome it has no view at all. */
	while (atomic_load(&k->pid) == 0 && !late)
		late = !await_warden(k, &until);
	if (atomic_load(&k->pid) == 0)
		shutdown(view->mmu->kin_socket, SHUT_RDWR);
	ask.reported = ++k->zaps;
	/* No room in the socket: it has room, and that is told of, when the warden has read. */
	while ((err = kin_send(view->mmu->kin_socket, &ask, -1)) == -EAGAIN && !late)
		late = !await_warden(k, &until);
	while (!err && !late && k->zapped < ask.reported)
		late = !await_warden(k, &until);
	machine_unlock(&k->lock);
}

void mmu_kin_refuse(struct mmu_view *view, enum mmu_access access, pid_t tid, uint64_t reported,
		    const struct mkw_refusal *refusal)
{
	struct kin_message message = {
		.word = KIN_REFUSE,
		.tid = tid,
		.access = access,
		.reported = reported,
		.refusal = *refusal,
	};
	uintptr_t page = (uintptr_t)refusal->address & ~(uintptr_t)(MKW_PAGE_SIZE - 1);

	/* The warden has much to do: the access is tried again. */
	if (kin_send(view->mmu->kin_socket, &message, -1))
		mmu_wake(view, page, MKW_PAGE_SIZE);
}
