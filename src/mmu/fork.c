/* SPDX-License-Identifier: MIT */
/*
 * fork.c - how a child comes by views of ours: what the two processes do around fork().
 *
 * Views are left out of every child (MADV_DONTFORK) but while fork() runs, so that a process made
 * in another way (clone, _Fork) has none of them, in place of pages that nobody watches. The kernel
 * tells our descriptor of the fork and waits until that is read; a fork comes back only then, and
 * until then every other call on the descriptor answers EAGAIN. So the thread that forks must not
 * hold what a handler thread waits for, or one must be left that waits for nothing (pool.c). The
 * event brings the child's own descriptor.
 *
 *   prepare   socket to the child, views are to be inherited    mmu_fork_begin, mmu_fork_go
 *   fork      a handler thread reads the event                  fork_event
 *   parent    the views are left out again, the child's machine mmu_fork_end
 *   child     hello, and a warden that waits for the welcome    mmu_fork_inherit
 *
 * Whether fork() succeeded nobody tells the parent's handler: if it did the event comes, if not
 * there is nobody at the socket's other end.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* How long a child that asked may take for its fork while everything waits for it. It can be
 * stopped; its child then inherits nothing. */
#define PATIENCE_MS 2000
#define SEND_TRIES  1000u

/* ---- Messages ----------------------------------------------------------------------------- */

int kin_send(int socket, const struct kin_message *message, int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = {(void *)(uintptr_t)message, sizeof(*message)};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	for (unsigned tries = 1;; tries++) {
		if (sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			return 0;
		/* What is not said leaves somebody waiting. */
		if (tries == SEND_TRIES || (errno != ENOBUFS && errno != ENOMEM && errno != EINTR))
			return -errno;
		sched_yield();
	}
}

static void take_control(struct msghdr *m, int *fd, pid_t *pid)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_RIGHTS) {
			memcpy(fd, CMSG_DATA(c), sizeof(*fd));
		} else if (c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred who;

			memcpy(&who, CMSG_DATA(c), sizeof(who));
			*pid = who.pid;
		}
	}
}

int kin_receive(int socket, struct kin_message *message, int *fd, pid_t *pid)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec part = {message, sizeof(*message)};
	struct msghdr m = {.msg_iov = &part,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n;

	*fd = -1;
	*pid = 0;
	do {
		n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET || errno == EPIPE ? -EPIPE : 0;
	if (n == 0)
		return -EPIPE;
	take_control(&m, fd, pid);
	return n == (ssize_t)sizeof(*message) ? 1 : -EPROTO;
}

/* ---- A fork under way --------------------------------------------------------------------- */

struct mmu_fork *fork_new(struct mmu *mmu, int socket)
{
	struct mmu_fork *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->mmu = mmu;
	f->socket = socket;
	f->childs = -1;
	f->uffd = -1;
	f->root = getpid();
	f->wakes = wakes_get(0);
	f->arrival = eventfd(0, EFD_CLOEXEC);
	if (f->arrival < 0) {
		free(f);
		return NULL;
	}
	return f;
}

static void close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

void fork_free(struct mmu_fork *f)
{
	close_if(f->socket);
	close_if(f->childs);
	close_if(f->arrival);
	close_if(f->uffd);
	free(f->views);
	free(f->apart);
	free(f->bytes);
	free(f);
}

static int fork_views(struct mmu_fork *f, struct mmu_view *const *views, size_t count)
{
	f->views = calloc(count, sizeof(*f->views));
	if (!f->views)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		f->views[i] = *views[i];
	f->count = count;
	return 0;
}

int fork_advise(const struct mmu_view *views, size_t count, bool inherit)
{
	for (size_t i = 0; i < count; i++)
		if (views[i].length > 0 && madvise((void *)views[i].address, views[i].length,
						   inherit ? MADV_DOFORK : MADV_DONTFORK))
			return -errno;
	return 0;
}

static const struct mmu_view *fork_view(const struct mmu_fork *f, uintptr_t address)
{
	size_t i = 0;

	while (address - f->views[i].address >= f->views[i].length)
		i++;
	return &f->views[i];
}

/* A view may allow no access: then it does while this reads. */
static int apart_read(const struct mmu_fork *f, const struct mmu_extent *apart, char *bytes)
{
	bool readable = fork_view(f, apart->address)->readable;

	if (!readable && mprotect((void *)apart->address, apart->length, PROT_READ))
		return -errno;
	memcpy(bytes, (const void *)apart->address, apart->length);
	/* What it has split becomes one again, which needs no more mappings. */
	while (!readable && mprotect((void *)apart->address, apart->length, PROT_NONE) &&
	       errno == ENOMEM)
		sched_yield();
	return 0;
}

/* The kernel would have whoever writes first copy, and the frame stay with the other. */
static int fork_apart(struct mmu_fork *f, const struct mmu_extent *apart, size_t count)
{
	size_t length = 0, at = 0;

	for (size_t i = 0; i < count; i++)
		length += apart[i].length;
	if (length == 0)
		return 0;
	f->apart = malloc(count * sizeof(*apart));
	f->bytes = malloc(length);
	if (!f->apart || !f->bytes)
		return -ENOMEM;
	memcpy(f->apart, apart, count * sizeof(*apart));
	f->apart_count = count;
	for (size_t i = 0; i < count; i++) {
		int err = apart_read(f, &apart[i], f->bytes + at);

		if (err)
			return err;
		at += apart[i].length;
	}
	return 0;
}

static int fork_let_inherit(const struct mmu_fork *f)
{
	int err = fork_advise(f->views, f->count, true);

	for (size_t i = 0; i < f->apart_count && !err; i++)
		if (madvise((void *)f->apart[i].address, f->apart[i].length, MADV_DONTFORK))
			err = -errno;
	return err;
}

/* Holes are filled when there is a descriptor to do it with (warden.c). */
void mmu_fork_map(struct mmu_fork *f)
{
	for (size_t i = 0; i < f->apart_count; i++) {
		const struct mmu_extent *a = &f->apart[i];
		const struct mmu_view *view = fork_view(f, a->address);

		(void)mmap((void *)a->address, a->length, PROT_NONE,
			   MAP_PRIVATE | MAP_FIXED_NOREPLACE | MAP_NORESERVE,
			   frames_fd(view->frames),
			   (off_t)(view->offset + (a->address - view->address)));
	}
}

/* Or something of the child's would come to lie where it has an address for. */
void mmu_fork_block(const struct mmu_view *view)
{
	if (view->length > 0)
		(void)mmap((void *)view->address, view->length, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
			   0);
}

bool mmu_can_fork(const struct mmu *mmu)
{
	return mmu->features.fork;
}

static int fork_sockets(struct mmu_fork *f)
{
	int ends[2], on = 1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -errno;
	f->socket = ends[0];
	f->childs = ends[1];
	return setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) ? -errno : 0;
}

int mmu_fork_begin(struct mmu *mmu, struct mmu_view *const *views, size_t count,
		   const struct mmu_extent *apart, size_t apart_count, struct mmu_fork **fork)
{
	struct mmu_fork *f = fork_new(mmu, -1);
	int err;

	if (!f)
		return -ENOMEM;
	err = fork_views(f, views, count);
	if (!err)
		err = fork_apart(f, apart, apart_count);
	if (!err)
		err = fork_sockets(f);
	if (!err)
		err = pool_begin_fork(mmu);
	if (!err) {
		atomic_store(&mmu->spare_fd, dup(f->arrival));
		atomic_store(&mmu->fork, f);
		err = fork_let_inherit(f);
		if (!err) {
			*fork = f;
			return 0;
		}
		fork_advise(f->views, f->count, false);
		atomic_store(&mmu->fork, NULL);
		fork_make_room(mmu);
		pool_end_fork(mmu);
	}
	fork_free(f);
	return err;
}

int mmu_fork_go(struct mmu_fork *f, struct mmu_view *const *views, size_t count)
{
	struct kin_message go = {.word = KIN_GO};
	struct mmu *kin = f->mmu;

	go.error = count > 0 ? fork_views(f, views, count) : -ENOENT;
	if (!go.error) {
		atomic_store(&kin->spare_fd, dup(f->arrival));
		atomic_store(&kin->fork, f);
	}
	if (kin_send(kin->kin_socket, &go, -1) == 0 && !go.error)
		return 0;
	/* Who asked waits for an answer, or for a hangup. */
	if (!go.error)
		shutdown(kin->kin_socket, SHUT_RDWR);
	atomic_store(&kin->fork, NULL);
	fork_make_room(kin);
	fork_free(f);
	return go.error ? go.error : -EPIPE;
}

/*
 * A process made in another way inherits views if it is made by another thread just while this
 * process forks. Nobody can tell it from the child, nor serve it: its descriptor is kept, so that
 * what it touches there waits, and is never read as zeros.
 */
void fork_event(struct mmu *mmu, int uffd)
{
	struct mmu_fork *f = atomic_exchange(&mmu->fork, NULL);

	if (!f)
		return;
	f->uffd = uffd;
	(void)eventfd_write(f->arrival, 1);
}

/* The event cannot be read without a number for the child's descriptor. */
void fork_make_room(struct mmu *mmu)
{
	int spare = atomic_exchange(&mmu->spare_fd, -1);

	if (spare >= 0)
		close(spare);
}

static bool kin_is_asking(const struct mmu_fork *f)
{
	return f->mmu->kin != NULL;
}

/* The child has said something: it lives, or did. */
static bool has_spoken(const struct mmu_fork *f)
{
	char byte;

	return recv(f->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* True: the event was read. False: there is no child, or it took too long. */
static bool await_event(struct mmu_fork *f)
{
	struct pollfd wait[] = {
		{.fd = f->arrival, .events = POLLIN},
		{.fd = f->socket}, /* hangup */
		{.fd = kin_is_asking(f) ? f->mmu->uffd : -1, .events = POLLIN},
	};
	bool over = false;

	while (atomic_load(&f->uffd) < 0) {
		int n = poll(wait, 3, kin_is_asking(f) ? PATIENCE_MS : -1);

		if (wait[2].revents & POLLIN)
			kin_read(f->mmu);
		over = n == 0 || ((wait[1].revents & (POLLHUP | POLLERR)) && !has_spoken(f));
		/* Whoever has taken it is about to say what it has read. */
		if (over && atomic_exchange(&f->mmu->fork, NULL))
			return false;
		if (wait[1].revents)
			wait[1].fd = -1;
	}
	return true;
}

struct mmu *mmu_fork_end(struct mmu_fork *f)
{
	struct mmu *mmu = f->mmu, *kin = NULL;

	close_if(f->childs);
	f->childs = -1;
	if (!kin_is_asking(f)) {
		while (fork_advise(f->views, f->count, false) == -ENOMEM)
			;
	}
	if (await_event(f))
		kin = kin_new(f);
	fork_make_room(mmu);
	if (!kin_is_asking(f)) {
		pool_end_fork(mmu);
		if (atomic_exchange(&mmu->doorbell.owed, false))
			doorbell_answer(mmu);
	}
	fork_free(f);
	return kin;
}

void mmu_fork_inherit(struct mmu_fork *f)
{
	close_if(f->socket);
	close_if(f->arrival);
	warden_start(f);
}

/* ---- What goes in a child ----------------------------------------------------------------- */

void mmu_abandon(struct mmu *mmu)
{
	close_if(mmu->uffd);
	close_if(mmu->inline_fd);
	close_if(mmu->pagemap_fd);
}

void mmu_abandon_all(void)
{
	kins_abandon();
	wakes_abandon();
	windows_abandon();
	signals_abandon();
}
