/* SPDX-License-Identifier: MIT */
/*
 * warden.c - the child's side of inherited views: a thread that does by order of the process that
 * serves them what can only be done from inside, which is refusing; passes on that this process
 * forks; and refuses everything when that process is no more.
 *
 *   STARTING -> SERVED   welcomed, with the descriptor            begin
 *   STARTING -> LOST     nobody is there: no view is to be had    begin
 *   SERVED   -> ALONE    the socket hung up, or its process died  attend
 *
 * The thread has a table of descriptors of its own, with what it needs and nothing else: a program
 * that closes all of its descriptors cannot harm it, and it keeps none of the program's open.
 *
 * Alone it reads the descriptor itself. Pages that are mapped go on as memory; every fault is
 * refused with EOWNERDEAD: what is not mapped would read as zeros, or be stored and lost.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STARTING, SERVED, ALONE, LOST };
enum { NOTHING, ASKED, SENT, MAY, MAY_NOT }; /* a fork of this process */

struct ward {
	struct ward *next;
	struct mmu mmu; /* as far as refusing needs one */
	int socket;
	pid_t root;
	size_t count;
	struct mmu_view *views; /* changed under wards_lock: of length 0 if it was unmapped */
	_Atomic uint32_t state; /* a futex, as is: */
	_Atomic uint32_t question;
	int question_fd; /* in the process's table: to the server, of the socket for a child */
	struct mmu_fork *fork;	     /* under way */
	const struct mmu_fork *born; /* of which this process came */
	_Atomic pid_t tid;
	pthread_t thread;
};

static struct ward *wards;
static pthread_mutex_t wards_lock = PTHREAD_MUTEX_INITIALIZER;

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_set(_Atomic uint32_t *word, uint32_t value)
{
	atomic_store(word, value);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static struct mmu_view *ward_view(const struct ward *ward, uintptr_t address)
{
	for (size_t i = 0; i < ward->count; i++)
		if (address - ward->views[i].address < ward->views[i].length)
			return &ward->views[i];
	return NULL;
}

/* ---- Refusing ----------------------------------------------------------------------------- */

static void ward_refuse(struct ward *ward, const struct mkw_refusal *refusal,
			enum mmu_access access, pid_t tid, uint64_t reported)
{
	uintptr_t address = (uintptr_t)refusal->address;
	struct mmu_view *at, view;

	machine_lock(&wards_lock);
	at = ward_view(ward, address);
	if (at)
		view = *at;
	machine_unlock(&wards_lock);
	if (!at)
		return;
	view.mmu = &ward->mmu;
	reported = wakes_time(ward->mmu.wakes, reported);
	signals_record(tid, refusal, reported);
	mmu_refuse(&view, address, access, tid, reported);
}

/* What the program has unmapped, or mapped over by a call of its own, is not known here. */
static void ward_zap(struct ward *ward, struct kin_message *message)
{
	uintptr_t address = (uintptr_t)message->refusal.address;

	machine_lock(&wards_lock);
	if (ward_view(ward, address))
		(void)madvise((void *)address, message->refusal.length, MADV_DONTNEED);
	machine_unlock(&wards_lock);
	message->word = KIN_ZAPPED;
	(void)kin_send(ward->socket, message, -1);
}

static void refuse_orphan(struct ward *ward, const struct uffd_msg *message)
{
	uint64_t flags = message->arg.pagefault.flags;
	bool write = flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	uintptr_t address = (uintptr_t)message->arg.pagefault.address;
	struct mkw_refusal refusal = {
		.address = (void *)address,
		.length = MKW_PAGE_SIZE - (address & (MKW_PAGE_SIZE - 1)),
		.error = -EOWNERDEAD,
		.write = write,
		.message = "the process that serves this view has ended",
	};
	const struct mmu_view *view;

	machine_lock(&wards_lock);
	view = ward_view(ward, address);
	if (view)
		refusal.offset = view->offset + (address - view->address);
	machine_unlock(&wards_lock);
	ward_refuse(ward, &refusal, write ? MMU_WRITE : MMU_READ,
		    (pid_t)message->arg.pagefault.feat.ptid, 0);
}

static void be_alone(struct ward *ward)
{
	struct uffd_msg message;

	wakes_forget(ward->mmu.wakes);
	futex_set(&ward->state, ALONE);
	if (atomic_load(&ward->question) != NOTHING)
		futex_set(&ward->question, MAY_NOT);
	(void)fcntl(ward->mmu.uffd, F_SETFL, 0);
	/* Who was read and not answered waits where nobody looks any more. */
	for (size_t i = 0; i < ward->count; i++) {
		struct uffdio_range arg = {.start = ward->views[i].address,
					   .len = ward->views[i].length};

		(void)ioctl(ward->mmu.uffd, UFFDIO_WAKE, &arg);
	}
	for (;;)
		if (read(ward->mmu.uffd, &message, sizeof(message)) == sizeof(message) &&
		    message.event == UFFD_EVENT_PAGEFAULT)
			refuse_orphan(ward, &message);
}

/* ---- The thread --------------------------------------------------------------------------- */

static bool own_table(int socket)
{
	if (socket > 0 && syscall(SYS_close_range, 0, (unsigned)socket - 1, CLOSE_RANGE_UNSHARE))
		return false;
	return syscall(SYS_close_range, (unsigned)socket + 1, ~0u,
		       socket > 0 ? 0 : CLOSE_RANGE_UNSHARE) == 0;
}

/* The forking thread's socket, which is in the process's table and not in ours. */
static void pass_on(struct ward *ward)
{
	struct kin_message ask = {.word = KIN_FORK};
	int process = (int)syscall(SYS_pidfd_open, getpid(), 0), fd = -1;

	if (process >= 0) {
		fd = (int)syscall(SYS_pidfd_getfd, process, ward->question_fd, 0);
		close(process);
	}
	atomic_store(&ward->question, SENT);
	if (fd < 0 || kin_send(ward->socket, &ask, fd))
		futex_set(&ward->question, MAY_NOT);
	if (fd >= 0)
		close(fd);
}

/* The next message, with what has come with it. -errno: there will be none any more. */
static int await_message(struct ward *ward, int root, struct kin_message *message, int *fd)
{
	struct pollfd wait[] = {{.fd = ward->socket, .events = POLLIN},
				{.fd = root, .events = POLLIN}};
	sigset_t mask;
	pid_t unused;
	int n = 0;

	sigfillset(&mask);
	sigdelset(&mask, SIGBUS);
	while (n == 0) {
		if (atomic_load(&ward->question) == ASKED)
			pass_on(ward);
		if (ppoll(wait, 2, NULL, &mask) < 0)
			continue;
		n = kin_receive(ward->socket, message, fd, &unused);
		/* Another process may hold the other end; but nobody speaks there any more. */
		if (n == 0 && wait[1].revents)
			n = -EPIPE;
	}
	return n;
}

static void attend(struct ward *ward, int root)
{
	struct kin_message message;
	int fd;

	while (await_message(ward, root, &message, &fd) == 1) {
		if (fd >= 0)
			close(fd);
		if (message.word == KIN_REFUSE)
			ward_refuse(ward, &message.refusal, message.access, message.tid,
				    message.reported);
		else if (message.word == KIN_ZAP)
			ward_zap(ward, &message);
		else if (message.word == KIN_GO)
			futex_set(&ward->question, message.error ? MAY_NOT : MAY);
	}
}

/* The frames of these copies are the parent's: here are others with the same bytes. */
static bool fill_apart(struct ward *ward)
{
	const struct mmu_fork *f = ward->born;
	size_t at = 0;

	for (size_t i = 0; i < f->apart_count; i++) {
		const struct mmu_extent *a = &f->apart[i];
		struct mmu_view view = *ward_view(ward, a->address);
		size_t done;

		view.mmu = &ward->mmu;
		if (view_register(ward->mmu.uffd, (void *)a->address, a->length, true) ||
		    mmu_copy(&view, a->address, a->length, f->bytes + at, &done))
			return false;
		view.address = a->address;
		view.length = a->length;
		if (mmu_view_open(&view))
			return false;
		at += a->length;
	}
	return true;
}

static void *warden_run(void *arg)
{
	struct ward *ward = arg;
	struct kin_message message = {.word = KIN_HELLO, .tid = getpid()};
	sigset_t bus;
	int root, fd = -1;

	pthread_setname_np(pthread_self(), "mkw-warden");
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &bus, NULL);
	atomic_store(&ward->tid, (pid_t)syscall(SYS_gettid));
	if (own_table(ward->socket) && kin_send(ward->socket, &message, -1) == 0) {
		root = (int)syscall(SYS_pidfd_open, ward->root, 0);
		if (await_message(ward, root, &message, &fd) == 1 && message.word == KIN_WELCOME &&
		    fd >= 0) {
			ward->mmu.uffd = fd;
			if (!fill_apart(ward))
				goto lost;
			futex_set(&ward->state, SERVED);
			attend(ward, root);
			close(ward->socket);
			be_alone(ward);
		}
	}
lost:
	futex_set(&ward->state, LOST);
	return NULL;
}

/* ---- In the child of a fork --------------------------------------------------------------- */

static struct ward *ward_new(const struct mmu_fork *f)
{
	struct ward *ward = calloc(1, sizeof(*ward));

	if (!ward)
		return NULL;
	ward->socket = f->childs;
	ward->root = f->root;
	ward->count = f->count;
	ward->views = f->views;
	ward->born = f;
	ward->mmu.features = f->mmu->features;
	ward->mmu.root = &ward->mmu;
	ward->mmu.wakes = wakes_inherit(f->wakes);
	if (ward->mmu.wakes == 0) {
		free(ward);
		return NULL;
	}
	return ward;
}

/* In its place something that nobody needs to serve. A kernel without memory is asked again: what
 * is left would read as zeros where a page is not mapped. */
static void view_replace(const struct mmu_view *view)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

	while (mmap((void *)view->address, view->length, PROT_NONE, flags, -1, 0) == MAP_FAILED &&
	       errno == ENOMEM)
		sched_yield();
}

void warden_start(const struct mmu_fork *f)
{
	const struct kin_message without = {.word = KIN_WITHOUT};
	struct ward *ward = ward_new(f);

	(void)fork_advise(f->views, f->count, false);
	if (ward && thread_start(&ward->thread, warden_run, ward) == 0) {
		while (atomic_load(&ward->state) == STARTING)
			futex_wait(&ward->state, STARTING);
		if (atomic_load(&ward->state) != LOST) {
			close(f->childs);
			ward->next = wards;
			wards = ward;
			return;
		}
	}
	/* Or who forked, and sees the socket hang up before the event was looked at, takes this for
	 * a fork that failed, and the event for another process's. */
	(void)kin_send(f->childs, &without, -1);
	close(f->childs);
	for (size_t i = 0; i < f->count; i++)
		if (f->views[i].length > 0)
			view_replace(&f->views[i]);
}

/* ---- When this process forks itself ------------------------------------------------------- */

static bool ask(struct ward *ward, int socket)
{
	bool may;

	ward->question_fd = socket;
	atomic_store(&ward->question, ASKED);
	if (atomic_load(&ward->state) == SERVED && signals_wake(atomic_load(&ward->tid)))
		while (atomic_load(&ward->question) == ASKED ||
		       atomic_load(&ward->question) == SENT)
			futex_wait(&ward->question, atomic_load(&ward->question));
	may = atomic_load(&ward->question) == MAY;
	atomic_store(&ward->question, NOTHING);
	return may;
}

static void ward_fork_begin(struct ward *ward)
{
	int ends[2], on = 1;
	struct mmu_fork *f;

	if (atomic_load(&ward->state) != SERVED ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return;
	f = fork_new(&ward->mmu, -1);
	if (f) {
		f->childs = ends[1];
		f->root = ward->root;
		f->wakes = wakes_get(ward->mmu.wakes);
		f->views = calloc(ward->count, sizeof(*f->views));
	}
	if (f && f->views && setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0 &&
	    ask(ward, ends[0])) {
		memcpy(f->views, ward->views, ward->count * sizeof(*f->views));
		f->count = ward->count;
		if (fork_advise(f->views, f->count, true) == 0)
			ward->fork = f;
		else
			fork_advise(f->views, f->count, false);
	}
	close(ends[0]);
	if (f && !ward->fork)
		fork_free(f);
	else if (!f)
		close(ends[1]);
}

void mmu_wards_fork_begin(void)
{
	for (struct ward *w = wards; w; w = w->next)
		ward_fork_begin(w);
}

void mmu_wards_fork_end(void)
{
	for (struct ward *w = wards; w; w = w->next) {
		if (!w->fork)
			continue;
		while (fork_advise(w->fork->views, w->fork->count, false) == -ENOMEM)
			;
		fork_free(w->fork);
		w->fork = NULL;
	}
}

void mmu_wards_inherit(void)
{
	struct ward *old = wards;

	wards = NULL;
	pthread_mutex_init(&wards_lock, NULL);
	for (struct ward *w = old; w; w = w->next)
		for (size_t i = 0; i < w->count && !w->fork; i++)
			mmu_fork_block(&w->views[i]);
	for (; old; old = old->next)
		if (old->fork)
			mmu_fork_inherit(old->fork);
}

/* ---- What the process itself does with them ----------------------------------------------- */

bool mmu_ward_has(uintptr_t address)
{
	for (const struct ward *w = wards; w; w = w->next)
		if (ward_view(w, address))
			return true;
	return false;
}

/* In signal handlers, too: no lock. */
bool mmu_ward_allows(uintptr_t address, enum mmu_access access)
{
	for (const struct ward *w = wards; w; w = w->next) {
		const struct mmu_view *view = ward_view(w, address);

		if (view)
			return access == MMU_READ ? view->readable : view->writable;
	}
	return false;
}

bool mmu_ward_unmap(uintptr_t address, size_t length)
{
	for (struct ward *w = wards; w; w = w->next) {
		struct mmu_view *view = ward_view(w, address);

		if (!view || view->address != address || length > view->length ||
		    view->length - length >= MKW_PAGE_SIZE)
			continue;
		length = view->length;
		machine_lock(&wards_lock);
		view->length = 0;
		machine_unlock(&wards_lock);
		munmap((void *)address, length);
		return true;
	}
	return false;
}
