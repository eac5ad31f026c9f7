/* SPDX-License-Identifier: MIT */
/*
 * Hooks of system calls that store to memory of the program: into pages that may not be written
 * unless they are let in (view.h). Each call is made once into plain memory, and again at places
 * that are covered in all ways; all must give the same.
 */
#undef _FORTIFY_SOURCE
#include "view.h"

#include <harness/test.h>

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

ssize_t __read_chk(int fd, void *p, size_t n, size_t size);
ssize_t __pread_chk(int fd, void *p, size_t n, off_t offset, size_t size);
ssize_t __recv_chk(int fd, void *p, size_t n, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void *p, size_t n, size_t size, int flags, void *address,
		       socklen_t *length);
size_t __fread_chk(void *p, size_t bytes, size_t size, size_t n, FILE *file);

/* ---- What they read ----------------------------------------------------------------------- */

static int file = -1; /* of FILE_BYTES bytes that are all different enough */
#define FILE_BYTES (32 * PAGE)

static char pattern(size_t i)
{
	return (char)(i * 7 + i / 251 + i / PAGE);
}

static void file_open(void)
{
	static char bytes[FILE_BYTES];

	if (file >= 0)
		return;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = pattern(i);
	file = memfd_create("calls", MFD_CLOEXEC);
	REQUIRE_EQ(pwrite(file, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
}

static const char message[] = "a message of some length, which has to arrive whole";

/* A pair of sockets of which [0] has the messages to be read. */
static void sockets(int type, int fds[2], unsigned count)
{
	int made[2];

	REQUIRE_EQ(socketpair(AF_UNIX, type, 0, made), 0);
	for (unsigned i = 0; i < count; i++)
		REQUIRE_EQ(send(made[1], message, sizeof(message), 0), (ssize_t)sizeof(message));
	memcpy(fds, made, sizeof(made));
}

static int listener(struct sockaddr_un *address, socklen_t *length)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	*length = sizeof(sa_family_t);
	REQUIRE_EQ(bind(fd, (struct sockaddr *)address, *length), 0); /* any free name */
	REQUIRE_EQ(listen(fd, 1), 0);
	*length = sizeof(*address);
	REQUIRE_EQ(getsockname(fd, (struct sockaddr *)address, length), 0);
	return fd;
}

/* ---- The calls: each into p, after arm() ---------------------------------------------------- */

/* What the caller had prepared is written; from here on only the kernel, or hooks, may store. */
#define arm() view_arm()

#define BIG (2 * PAGE + 1000) /* more than any buffer inside of libc */

static bool ok; /* what else is looked at */

static long by_read(char *p)
{
	lseek(file, 5, SEEK_SET);
	return read(file, p, BIG);
}

static long by_read_pipe(char *p)
{
	int fds[2];
	long got;

	REQUIRE_EQ(pipe(fds), 0);
	REQUIRE_EQ(write(fds[1], message, sizeof(message)), (ssize_t)sizeof(message));
	got = read(fds[0], p, 300);
	close(fds[0]);
	close(fds[1]);
	return got;
}

static long by_read_event(char *p)
{
	int fd = eventfd(4711, 0);
	long got = read(fd, p, 8);

	close(fd);
	return got;
}

static long by_eventfd_read(char *p)
{
	int fd = eventfd(4711, 0);
	long got = eventfd_read(fd, (eventfd_t *)(void *)p);

	close(fd);
	return got;
}

static long by_pread(char *p)
{
	return pread(file, p, BIG, 77);
}

static long by_end_of_file(char *p)
{
	return pread(file, p, BIG, FILE_BYTES - 100);
}

static long by_read_chk(char *p)
{
	lseek(file, 6, SEEK_SET);
	return __read_chk(file, p, BIG, BIG);
}

static long by_pread_chk(char *p)
{
	return __pread_chk(file, p, BIG, 78, BIG);
}

static long by_readv(char *p)
{
	char other[10];
	struct iovec iov[] = {{p, 100}, {other, 10}, {p + 100, 0}, {p + 100, BIG - 100}};

	lseek(file, 9, SEEK_SET);
	return readv(file, iov, 4);
}

static long by_preadv(char *p)
{
	struct iovec iov[] = {{p + 1000, 100}, {p, 1000}, {p + 1100, BIG - 1100}};

	return preadv(file, iov, 3, 13);
}

static long by_preadv2(char *p)
{
	struct iovec iov[] = {{p + 1000, 100}, {p, 1000}, {p + 1100, BIG - 1100}};

	lseek(file, 21, SEEK_SET);
	return preadv2(file, iov, 3, -1, 0) * 1000000 + lseek(file, 0, SEEK_CUR);
}

static long by_many_parts(char *p)
{
	struct iovec iov[1000];

	for (int i = 0; i < 1000; i++)
		iov[i] = (struct iovec){p + 9 * i, 9};
	return preadv(file, iov, 1000, 14);
}

static long by_recv(char *p)
{
	int fds[2];
	long got;

	sockets(SOCK_DGRAM, fds, 1);
	got = recv(fds[0], p, 300, MSG_PEEK | MSG_TRUNC) * 1000;
	got += __recv_chk(fds[0], p, 300, 300, 0);
	close(fds[0]);
	close(fds[1]);
	return got;
}

static long by_recvfrom(char *p)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int from = socket(AF_UNIX, SOCK_DGRAM, 0), to = socket(AF_UNIX, SOCK_DGRAM, 0);
	socklen_t *length = (socklen_t *)(void *)(p + 1000), bound = sizeof(a);
	long got;

	memcpy(a.sun_path, "\0mkwrite-calls-to", 17);
	a.sun_path[17] = (char)getpid();
	REQUIRE_EQ(bind(to, (struct sockaddr *)&a, bound), 0);
	REQUIRE_EQ(connect(from, (struct sockaddr *)&a, bound), 0);
	a.sun_path[9] = 'F';
	REQUIRE_EQ(bind(from, (struct sockaddr *)&a, bound), 0);
	REQUIRE_EQ(send(from, message, sizeof(message), 0), (ssize_t)sizeof(message));
	REQUIRE_EQ(send(from, message, sizeof(message), 0), (ssize_t)sizeof(message));
	memcpy(length, &bound, sizeof(bound));
	arm();
	got = recvfrom(to, p, 300, 0, (struct sockaddr *)(void *)(p + 400), length);
	got = got * 1000 + __recvfrom_chk(to, p + 1200, 300, 300, 0, p + 1600, length);
	close(from);
	close(to);
	memset(p + 400 + 19, 0, 1); /* the pid */
	memset(p + 1600 + 19, 0, 1);
	return got;
}

static long by_recvmsg(char *p)
{
	struct msghdr *m = (struct msghdr *)(void *)p;
	struct ucred *credentials;
	struct cmsghdr *c;
	int fds[2], on = 1;
	long got;

	sockets(SOCK_DGRAM, fds, 0);
	REQUIRE_EQ(setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	REQUIRE_EQ(send(fds[1], message, sizeof(message), 0), (ssize_t)sizeof(message));
	memset(p, 0, 1000);
	struct iovec iov[] = {{p + 1000, 10}, {p + 5000, 20}, {p + 1100, 500}};
	*m = (struct msghdr){.msg_iov = iov,
			     .msg_iovlen = 3,
			     .msg_control = p + 400,
			     .msg_controllen = 200,
			     .msg_name = p + 700,
			     .msg_namelen = 100};
	arm();
	got = recvmsg(fds[0], m, 0);
	c = CMSG_FIRSTHDR(m);
	if (!c)
		return -1;
	credentials = (struct ucred *)(void *)CMSG_DATA(c);
	ok &= credentials->pid == getpid();
	got = got * 1000 + (long)m->msg_controllen + m->msg_flags + (long)m->msg_namelen;
	memset(p, 0, sizeof(*m)); /* has addresses */
	memset(credentials, 0, sizeof(*credentials));
	close(fds[0]);
	close(fds[1]);
	return got;
}

static long by_recvmmsg(char *p)
{
	struct mmsghdr *m = (struct mmsghdr *)(void *)p;
	struct iovec iov[3];
	int fds[2];
	long got;

	sockets(SOCK_DGRAM, fds, 3);
	memset(p, 0, 3 * sizeof(*m));
	for (int i = 0; i < 3; i++) {
		iov[i] = (struct iovec){p + 1000 + 2000 * i, 200};
		m[i].msg_hdr.msg_iov = &iov[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	arm();
	got = recvmmsg(fds[0], m, 3, MSG_DONTWAIT, NULL);
	for (int i = 0; i < 3; i++)
		got = got * 100 + m[i].msg_len;
	memset(p, 0, 3 * sizeof(*m));
	close(fds[0]);
	close(fds[1]);
	return got;
}

static long by_getrandom(char *p)
{
	return getrandom(p, BIG, 0);
}

static long by_getentropy(char *p)
{
	return getentropy(p, 256);
}

static long by_arc4random(char *p)
{
#if __GLIBC_PREREQ(2, 36)
	arc4random_buf(p, BIG);
#else
	memset(p, 1, BIG);
#endif
	return 0;
}

static long read_stream(char *p, int how)
{
	int fd = dup(file);
	FILE *stream = fdopen(fd, "r");
	long got;

	rewind(stream);
	got = fgetc(stream);
	if (how == 0)
		got += (long)fread(p, 3, BIG / 3, stream) * 1000;
	else if (how == 1)
		got += (long)fread_unlocked(p, 1, BIG, stream) * 1000;
	else
		got += (long)__fread_chk(p, BIG, 1, BIG, stream) * 1000;
	got = got * 1000000 + ftell(stream);
	fclose(stream);
	return got;
}

static long by_fread(char *p)
{
	return read_stream(p, 0);
}

static long by_fread_unlocked(char *p)
{
	return read_stream(p, 1);
}

static long by_fread_chk(char *p)
{
	return read_stream(p, 2);
}

static long by_getdents64(char *p)
{
	int fd = open("/proc/self/fdinfo", O_RDONLY | O_DIRECTORY);
	long got = getdents64(fd, p, 64);

	close(fd);
	return got;
}

static long by_readlink(char *p)
{
	return readlink("/proc/self/exe", p, 300) * 1000 +
	       readlinkat(AT_FDCWD, "/proc/self/exe", p + 300, 300);
}

static long by_getcwd(char *p)
{
	return getcwd(p, 5000) == p;
}

static long by_stat(char *p)
{
	size_t one = sizeof(struct stat);

	return stat("/", (struct stat *)(void *)p) + lstat("/", (struct stat *)(void *)(p + one)) +
	       fstat(file, (struct stat *)(void *)(p + 2 * one)) +
	       fstatat(AT_FDCWD, "/", (struct stat *)(void *)(p + 3 * one), 0);
}

static long by_statx(char *p)
{
	return statx(AT_FDCWD, "/", 0, STATX_BASIC_STATS, (struct statx *)(void *)p);
}

static long by_statfs(char *p)
{
	return statfs("/proc", (struct statfs *)(void *)p) * 100 +
	       fstatfs(file, (struct statfs *)(void *)(p + 2000));
}

static long by_poll(char *p)
{
	struct pollfd fds[2] = {{.fd = file, .events = POLLIN}, {.fd = -1}};

	memcpy(p, fds, sizeof(fds));
	memcpy(p + 100, fds, sizeof(fds));
	arm();
	return poll((struct pollfd *)(void *)p, 2, 0) * 10 +
	       ppoll((struct pollfd *)(void *)(p + 100), 2, &(struct timespec){0, 0}, NULL);
}

static long by_select(char *p)
{
	fd_set *in = (fd_set *)(void *)p, *out = (fd_set *)(void *)(p + 200);

	FD_ZERO(in);
	FD_ZERO(out);
	FD_SET(file, in);
	FD_SET(file, out);
	arm();
	return select(file + 1, in, out, NULL, &(struct timeval){0, 0}) * 10 +
	       pselect(file + 1, in, out, NULL, &(struct timespec){0, 0}, NULL);
}

static long by_epoll(char *p)
{
	int fd = epoll_create1(0), event = eventfd(1, 0);
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 4711};
	long got;

	REQUIRE_EQ(epoll_ctl(fd, EPOLL_CTL_ADD, event, &e), 0);
	got = epoll_wait(fd, (struct epoll_event *)(void *)p, 3, 0) * 10 +
	      epoll_pwait(fd, (struct epoll_event *)(void *)(p + 500), 3, 0, NULL);
	close(fd);
	close(event);
	return got;
}

static long by_accept(char *p)
{
	socklen_t *length = (socklen_t *)(void *)(p + 500), bound;
	struct sockaddr_un a;
	int fd = listener(&a, &bound), to = socket(AF_UNIX, SOCK_STREAM, 0), got;

	REQUIRE_EQ(connect(to, (struct sockaddr *)&a, bound), 0);
	*length = sizeof(a);
	arm();
	got = accept(fd, (struct sockaddr *)(void *)p, length);
	ok &= got >= 0;
	close(got);
	close(to);
	close(fd);
	return got >= 0;
}

static long by_socket_names(char *p)
{
	socklen_t bound, *length = (socklen_t *)(void *)(p + 500);
	struct sockaddr_un a;
	int fd = listener(&a, &bound), got;

	length[0] = length[1] = 100;
	arm();
	got = getsockname(fd, (struct sockaddr *)(void *)p, length);
	ok &= memcmp(p, &a, bound) == 0;
	memset(p, 0, 100); /* a name of its own each time */
	length[0] = 4;
	arm();
	got += getsockopt(fd, SOL_SOCKET, SO_TYPE, p + 200, length);
	close(fd);
	return got * 100 + (long)length[0];
}

static long by_getpeername(char *p)
{
	int fds[2];
	long got;

	sockets(SOCK_STREAM, fds, 0);
	*(socklen_t *)(void *)(p + 200) = 100;
	arm();
	got = getpeername(fds[0], (struct sockaddr *)(void *)p, (socklen_t *)(void *)(p + 200));
	close(fds[0]);
	close(fds[1]);
	return got;
}

static void close_pair(char *p)
{
	int fds[2];

	memcpy(fds, p, sizeof(fds));
	close(fds[0]);
	close(fds[1]);
}

static long by_pairs(char *p)
{
	long got = pipe((int *)(void *)p) + pipe2((int *)(void *)(p + 8), O_CLOEXEC) +
		   socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)(void *)(p + 16));

	for (int i = 0; i < 24; i += 8)
		close_pair(p + i);
	return got;
}

static pid_t child_that_exits(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(3);
	return pid;
}

static long by_wait(char *p)
{
	pid_t pid = child_that_exits();
	int *status = (int *)(void *)p;
	long got;

	arm();
	got = waitid(P_PID, (id_t)pid, (siginfo_t *)(void *)(p + 600), WEXITED | WNOWAIT) == 0;
	ok &= ((siginfo_t *)(void *)(p + 600))->si_pid == pid;
	got += wait4(pid, status, 0, (struct rusage *)(void *)(p + 100)) == pid;
	pid = child_that_exits();
	got += waitpid(pid, status + 1, 0) == pid;
	pid = child_that_exits();
	got += wait(status + 2) == pid;
	pid = child_that_exits();
	got += wait3(status + 3, 0, NULL) == pid;
	memset(p + 100, 1, 900);
	return got;
}

static long by_usage(char *p)
{
	return getrusage(RUSAGE_SELF, (struct rusage *)(void *)p) + (times((void *)(p + 500)) > 0) +
	       sysinfo((struct sysinfo *)(void *)(p + 1000));
}

static long by_limits(char *p)
{
	return getrlimit(RLIMIT_NOFILE, (struct rlimit *)(void *)p) +
	       prlimit(0, RLIMIT_STACK, NULL, (struct rlimit *)(void *)(p + 50)) +
	       uname((struct utsname *)(void *)(p + 200)) +
	       getgroups(100, (gid_t *)(void *)(p + 800)) +
	       getresuid((uid_t *)(void *)(p + 1200), (uid_t *)(void *)(p + 1204),
			 (uid_t *)(void *)(p + 1208)) +
	       getresgid((gid_t *)(void *)(p + 1300), (gid_t *)(void *)(p + 1304),
			 (gid_t *)(void *)(p + 1308));
}

static long by_sched(char *p)
{
	return sched_getaffinity(0, 128, (cpu_set_t *)(void *)p) +
	       sched_getparam(0, (struct sched_param *)(void *)(p + 200)) +
	       sched_rr_get_interval(0, (struct timespec *)(void *)(p + 300)) +
	       pthread_getaffinity_np(pthread_self(), 128, (cpu_set_t *)(void *)(p + 400));
}

static long by_cpu_clock(char *p)
{
	return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, (struct timespec *)(void *)p) +
	       clock_getres(CLOCK_THREAD_CPUTIME_ID, (struct timespec *)(void *)(p + 100));
}

static long by_timers(char *p)
{
	struct itimerspec set = {.it_value.tv_sec = 1000000};
	struct itimerval set_real = {.it_value.tv_sec = 1000000}, none = {.it_value.tv_sec = 0};
	struct sigevent event = {.sigev_notify = SIGEV_NONE};
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	timer_t timer;
	long got;

	REQUIRE_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	setitimer(ITIMER_REAL, &set_real, NULL);
	timer_settime(timer, 0, &set, NULL);
	timerfd_settime(fd, 0, &set, NULL);
	got = timerfd_gettime(fd, (struct itimerspec *)(void *)p) +
	      timerfd_settime(fd, 0, &set, (struct itimerspec *)(void *)(p + 100)) +
	      timer_gettime(timer, (struct itimerspec *)(void *)(p + 200)) +
	      timer_settime(timer, 0, &set, (struct itimerspec *)(void *)(p + 300)) +
	      getitimer(ITIMER_REAL, (struct itimerval *)(void *)(p + 400)) +
	      setitimer(ITIMER_REAL, &none, (struct itimerval *)(void *)(p + 500));
	timer_delete(timer);
	close(fd);
	return got;
}

static void nothing(int sig)
{
	(void)sig;
}

static long by_sleep_cut_short(char *p)
{
	struct sigaction action = {.sa_handler = nothing};
	struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
	struct timespec hour = {3600, 0};
	long got;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	got = nanosleep(&hour, (struct timespec *)(void *)p) == -1 && errno == EINTR;
	got += clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, (struct timespec *)(void *)(p + 100)) ==
	       EINTR;
	ok &= ((struct timespec *)(void *)p)->tv_sec == 3599;
	setitimer(ITIMER_REAL, &never, NULL);
	return got;
}

static long by_signals(char *p)
{
	sigset_t set, old;
	long got;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	raise(SIGUSR1);
	got = sigpending((sigset_t *)(void *)p) +
	      sigtimedwait(&set, (siginfo_t *)(void *)(p + 200), NULL);
	raise(SIGUSR1);
	got = got * 100 + sigwaitinfo(&set, (siginfo_t *)(void *)(p + 400));
	got = got * 10 + sigprocmask(SIG_SETMASK, &old, (sigset_t *)(void *)(p + 600));
	got = got * 10 + sigaltstack(NULL, (stack_t *)(void *)(p + 800));
	memset(p + 216, 0, 100); /* the pid is there, and nothing in what follows */
	memset(p + 416, 0, 100);
	return got;
}

static long by_process_vm_readv(char *p)
{
	static char from[BIG];
	struct iovec to[] = {{p, 1000}, {p + 1000, BIG - 1000}}, source = {from, BIG};

	memset(from, 'v', BIG);
	return process_vm_readv(getpid(), to, 2, &source, 1, 0);
}

static long by_offsets(char *p)
{
	off64_t *at = (off64_t *)(void *)p;
	int to = memfd_create("to", 0), fds[2];
	long got;

	REQUIRE_EQ(pipe(fds), 0);
	at[0] = 10;
	at[1] = 20;
	at[2] = 30;
	at[3] = 40;
	arm();
	got = sendfile(to, file, &at[0], 100) + copy_file_range(file, &at[1], to, &at[2], 100, 0) +
	      splice(file, &at[3], fds[1], NULL, 100, 0);
	close(fds[0]);
	close(fds[1]);
	close(to);
	return got;
}

static long by_ioctl(char *p)
{
	int fds[2];
	long got;

	sockets(SOCK_STREAM, fds, 1);
	got = ioctl(fds[0], FIONREAD, p);
	close(fds[0]);
	close(fds[1]);
	return got;
}

static long by_fcntl(char *p)
{
	struct flock *lock = (struct flock *)(void *)p;

	*lock = (struct flock){.l_type = F_WRLCK};
	arm();
	return fcntl(file, F_GETLK, lock);
}

static long by_mincore(char *p)
{
	void *m = mmap(NULL, 100 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long got = mincore(m, 100 * PAGE, (unsigned char *)p);

	munmap(m, 100 * PAGE);
	return got;
}

static long by_xattr(char *p)
{
	REQUIRE_EQ(fsetxattr(file, "security.mkwrite", "value", 5, 0), 0);
	return fgetxattr(file, "security.mkwrite", p, 100) * 1000 + flistxattr(file, p + 200, 100);
}

static long by_msgrcv(char *p)
{
	struct {
		long type;
		char text[100];
	} sent = {1, "text"};
	int queue = msgget(IPC_PRIVATE, 0600);
	long got;

	REQUIRE_EQ(msgsnd(queue, &sent, sizeof(sent.text), 0), 0);
	got = msgrcv(queue, p, sizeof(sent.text), 0, 0);
	msgctl(queue, IPC_RMID, NULL);
	return got;
}

static long by_number(char *p)
{
	struct sockaddr *none = NULL;
	int fds[2];
	long got;

	sockets(SOCK_DGRAM, fds, 1);
	got = syscall(SYS_pread64, file, p, (size_t)BIG, (off_t)31) * 1000 +
	      syscall(SYS_recvfrom, fds[0], p, (size_t)300, 0, none, none) * 10 +
	      syscall(SYS_newfstatat, AT_FDCWD, "/", p + 400, 0) + syscall(SYS_uname, p + 600);
	ok &= syscall(SYS_getrandom, p + 1000, (size_t)100, 0) == 100;
	memset(p + 1000, 0, 100);
	ok &= syscall(SYS_close, -1) == -1;
	ok &= errno == EBADF;
	close(fds[0]);
	close(fds[1]);
	return got;
}

static long by_mask_number(char *p)
{
	unsigned long set = 1ul << (SIGUSR2 - 1);

	return syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, (size_t)8) +
	       syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, p, (size_t)8);
}

/* ---- At all places ------------------------------------------------------------------------ */

enum {
	VARIES = 1, /* what is stored differs each time */
	USER = 2,   /* libc or the vdso, or a hook, stores in user mode: nothing would fail */
};

static const struct call {
	const char *name;
	long (*make)(char *p);
	size_t bytes; /* that it may store to */
	int flags;
} calls[] = {
	{"read", by_read, BIG, 0},
	{"read of a pipe", by_read_pipe, 300, 0},
	{"read of an eventfd", by_read_event, 8, 0},
	{"eventfd_read", by_eventfd_read, 8, 0},
	{"pread", by_pread, BIG, 0},
	{"pread to the end", by_end_of_file, BIG, 0},
	{"__read_chk", by_read_chk, BIG, 0},
	{"__pread_chk", by_pread_chk, BIG, 0},
	{"readv", by_readv, BIG, 0},
	{"preadv", by_preadv, BIG, 0},
	{"preadv2", by_preadv2, BIG, 0},
	{"preadv of 1000 parts", by_many_parts, 9000, 0},
	{"recv", by_recv, 300, 0},
	{"recvfrom", by_recvfrom, 2000, 0},
	{"recvmsg", by_recvmsg, 6000, 0},
	{"recvmmsg", by_recvmmsg, 6000, 0},
	{"getrandom", by_getrandom, BIG, VARIES},
	{"getentropy", by_getentropy, 256, VARIES},
	{"arc4random_buf", by_arc4random, BIG, VARIES | USER},
	{"fread", by_fread, BIG, 0},
	{"fread_unlocked", by_fread_unlocked, BIG, 0},
	{"__fread_chk", by_fread_chk, BIG, 0},
	{"getdents64", by_getdents64, 64, 0},
	{"readlink", by_readlink, 600, 0},
	{"getcwd", by_getcwd, 5000, 0},
	{"stat", by_stat, 4 * sizeof(struct stat), 0},
	{"statx", by_statx, 256, 0},
	{"statfs", by_statfs, 3000, 0},
	{"poll", by_poll, 200, 0},
	{"select", by_select, 400, 0},
	{"epoll", by_epoll, 600, 0},
	{"accept", by_accept, 600, 0},
	{"names of sockets", by_socket_names, 600, 0},
	{"getpeername", by_getpeername, 300, 0},
	{"pairs", by_pairs, 24, 0},
	{"wait", by_wait, 1000, 0},
	{"usage", by_usage, 1200, VARIES},
	{"limits", by_limits, 1400, 0},
	{"sched", by_sched, 600, 0},
	{"clocks", by_cpu_clock, 200, VARIES},
	{"timers", by_timers, 600, VARIES},
	{"sleep", by_sleep_cut_short, 200, VARIES},
	{"signals", by_signals, 900, 0},
	{"process_vm_readv", by_process_vm_readv, BIG, 0},
	{"offsets", by_offsets, 32, 0},
	{"ioctl", by_ioctl, 4, 0},
	{"fcntl", by_fcntl, sizeof(struct flock), 0},
	{"mincore", by_mincore, 100, 0},
	{"xattr", by_xattr, 300, 0},
	{"msgrcv", by_msgrcv, 108, 0},
	{"syscall", by_number, BIG, 0},
	{"syscall, of masks", by_mask_number, 8, USER},
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

#define ROOM (4 * PAGE)

/* Make the call at p. *bytes: what is there afterwards, of bytes that had a value before. */
static long make_at(const struct call *call, char *p, char *bytes)
{
	long got;

	memset(p, 0x5a, call->bytes);
	view_arm();
	ok = true;
	got = call->make(p);
	got = ok ? got : -1;
	memcpy(bytes, p, call->bytes);
	view_arm();
	return got;
}

static void compare(const struct call *call, char *p, const char *expected, long result)
{
	static char bytes[ROOM];
	long got = make_at(call, p, bytes);

	if (!CHECK_EQ(got, result))
		test_note("%s, %d bytes before the end of a page: %s", call->name,
			  (int)(PAGE - (uintptr_t)p % PAGE), strerror(errno));
	if (!(call->flags & VARIES) && !CHECK_MEM(bytes, expected, call->bytes))
		test_note("%s at %p", call->name, (void *)p);
	CHECK_EQ(view_lets(), 0);
}

static void compare_everywhere(const struct call *call, char *view)
{
	static char expected[ROOM], plain[ROOM];
	char *end = view + VIEW_PAGES * PAGE;
	long result = make_at(call, plain, expected);
	size_t half = call->bytes / 2 & ~7ul;

	CHECK(result >= 0);
	compare(call, view, expected, result);
	compare(call, view + PAGE + 104, expected, result);
	compare(call, view + 3 * PAGE - half, expected, result);	  /* across pages */
	compare(call, view - half, expected, result);			  /* half outside */
	compare(call, end - half, expected, result);			  /* the other half */
	compare(call, end - (call->bytes + 7) / 8 * 8, expected, result); /* to the end */
}

static char *begin(void)
{
	test_allow_leaks();
	file_open();
	return view_begin();
}

TEST(calls_same, "what a call stores to a view, and gives, is what it natively does")
{
	char *view = begin();
	unsigned ever = 0;

	for (size_t i = 0; i < CALLS; i++) {
		compare_everywhere(&calls[i], view);
		if (!(calls[i].flags & USER) && !view_is_real() && !CHECK(view_lets_ever() > ever))
			test_note("%s lets nothing in", calls[i].name);
		ever = view_lets_ever();
	}
	CHECK_EQ(view_opened(), 0);
}

/* Else the test above would show nothing. */
TEST(calls_needed, "without the hooks each of these calls fails")
{
	static char bytes[ROOM], other[ROOM];
	char *view = begin();

	if (view_is_real())
		SKIP("the hooks cannot be left out");
	for (size_t i = 0; i < CALLS; i++) {
		pid_t pid;
		int status;

		long good;

		if (calls[i].flags & USER)
			continue;
		good = make_at(&calls[i], bytes, other);
		pid = fork();
		if (pid == 0) {
			view_blind(true);
			_exit(make_at(&calls[i], view, bytes) == good);
		}
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		if (!CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 1)))
			test_note("%s", calls[i].name);
	}
}

TEST(calls_errno, "errno is the call's, and is kept where it succeeds")
{
	char *view = begin();
	volatile int negative = -1;

	errno = 4711;
	CHECK_EQ(pread(file, view, 100, 0), 100);
	CHECK_EQ(errno, 4711);
	CHECK_EQ(read(-1, view, 100), -1);
	CHECK_EQ(errno, EBADF);
	CHECK_EQ(stat("/no/such", (struct stat *)(void *)view), -1);
	CHECK_EQ(errno, ENOENT);
	CHECK_EQ(readv(file, (struct iovec[]){{view, 10}}, negative), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(pread(file, view, 100, -1), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(view_lets(), 0);
}

/* ---- Where a dirty limit allows a part only ------------------------------------------------- */

static char pages[VIEW_PAGES * PAGE];

static void expect_file(const char *p, size_t from, size_t length)
{
	for (size_t i = 0; i < length; i++)
		pages[i] = pattern(from + i);
	CHECK_MEM(p, pages, length);
}

TEST(calls_limit_file, "a file is read part by part, as far as was asked for")
{
	char *view = begin();
	struct iovec iov[] = {{view + 5, 10000}, {pages, 10}, {view + 20000, 20000}};
	FILE *stream = fdopen(dup(file), "r");

	view_limit(2);
	CHECK_EQ(pread(file, view + 100, 10 * PAGE, 3), 10 * PAGE);
	expect_file(view + 100, 3, 10 * PAGE);
	CHECK_EQ(pread(file, view + 100, 10 * PAGE, FILE_BYTES - 3 * PAGE), 3 * PAGE);
	lseek(file, 5, SEEK_SET);
	CHECK_EQ(read(file, view, 10 * PAGE), 10 * PAGE);
	CHECK_EQ(lseek(file, 0, SEEK_CUR), 10 * PAGE + 5);
	expect_file(view, 5, 10 * PAGE);
	CHECK_EQ(preadv(file, iov, 3, 2), 30010);
	expect_file(iov[0].iov_base, 2, 10000);
	expect_file(iov[2].iov_base, 10012, 20000);
	rewind(stream);
	CHECK_EQ(fread(view, 7, 5000, stream), 5000);
	expect_file(view, 0, 35000);
	CHECK_EQ(getrandom(view, 5 * PAGE, 0), 5 * PAGE);
	CHECK_EQ(view_lets(), 0);
	CHECK_EQ(view_opened(), 0);
	fclose(stream);
}

TEST(calls_limit_stream,
     "a stream gives a short count and keeps the rest, unless MSG_WAITALL says so")
{
	char *view = begin();
	struct iovec iov[] = {{view, 100}, {view + PAGE, 3 * PAGE}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	static char sent[5 * PAGE];
	int fds[2];

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = pattern(i);
	if (view_is_real())
		SKIP("nothing says how much is let in at once");
	sockets(SOCK_STREAM, fds, 0);
	view_limit(1);
	REQUIRE_EQ(send(fds[1], sent, sizeof(sent), 0), (ssize_t)sizeof(sent));
	CHECK_EQ(read(fds[0], view, 3 * PAGE), PAGE);
	CHECK_EQ(recvmsg(fds[0], &m, 0), 100 + PAGE);
	CHECK_MEM(view, sent + PAGE, 100);
	CHECK_MEM(view + PAGE, sent + PAGE + 100, PAGE);
	CHECK_EQ(recv(fds[0], view, 2 * PAGE, MSG_WAITALL), 2 * PAGE);
	CHECK_MEM(view, sent + 2 * PAGE + 100, 2 * PAGE);
	CHECK_EQ(recv(fds[0], view, 2 * PAGE, MSG_PEEK), PAGE - 100);
	CHECK_EQ(view_lets(), 0);
	close(fds[0]);
	close(fds[1]);
}

TEST(calls_limit_message, "a message is let in whole, and never cut off")
{
	char *view = begin();
	struct iovec iov[] = {{view, 100}, {view + PAGE, 9 * PAGE}}, many[200];
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	static char sent[5 * PAGE];
	int fds[2];

	memset(sent, 'm', sizeof(sent));
	sockets(SOCK_DGRAM, fds, 0);
	view_limit(1);
	for (int i = 0; i < 4; i++)
		REQUIRE_EQ(send(fds[1], sent, sizeof(sent), 0), (ssize_t)sizeof(sent));
	CHECK_EQ(read(fds[0], view, 9 * PAGE), (ssize_t)sizeof(sent));
	CHECK_EQ(recvmsg(fds[0], &m, 0), (ssize_t)sizeof(sent));
	CHECK_EQ(readv(fds[0], iov, 2), (ssize_t)sizeof(sent));
	CHECK_EQ(view_opened(), 0);
	for (int i = 0; i < 200; i++)
		many[i] = (struct iovec){view + 1000 * i, 1000};
	CHECK_EQ(readv(fds[0], many, 200), (ssize_t)sizeof(sent));
	CHECK_EQ(view_opened(), !view_is_real()); /* more parts than there is a list for */
	CHECK_EQ(view_lets(), 0);
	close(fds[0]);
	close(fds[1]);
}

/* ---- Cancellation and interruption ---------------------------------------------------------- */

static int blocked_fds[2];

static void *read_for_ever(void *p)
{
	return (void *)read(blocked_fds[0], p, 100);
}

TEST(calls_cancel, "a thread that is cancelled in a call ends what it has let in")
{
	char *view = begin();
	struct test_thread thread;

	REQUIRE_EQ(pipe(blocked_fds), 0);
	test_thread_start(&thread, read_for_ever, view);
	test_wait_thread_blocked(thread.tid);
	CHECK_EQ(view_lets(), !view_is_real());
	pthread_cancel(thread.thread);
	CHECK(test_thread_join(&thread) == PTHREAD_CANCELED);
	CHECK_EQ(view_lets(), 0);
}

TEST(calls_interrupted, "a call is interrupted as ever, and starts again where it should")
{
	char *view = begin();
	struct sigaction action = {.sa_handler = nothing};
	struct itimerval often = {{0, 1000}, {0, 1000}}; /* once at least while it waits */

	REQUIRE_EQ(pipe(blocked_fds), 0);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	CHECK_EQ(read(blocked_fds[0], view, 100), -1);
	CHECK_EQ(errno, EINTR);
	CHECK_EQ(view_lets(), 0);
}

TEST(calls_cut_off, "a call that stores past the end of a file that was cut fails, and no more")
{
	char *view = begin();
	int fd;
	pid_t pid;

	if (!view_is_real())
		SKIP("for real views");
	CHECK_EQ(pread(file, view, 3 * PAGE, 0), 3 * PAGE);
	CHECK_EQ(pread(file, view + 3 * PAGE, PAGE, 0), PAGE);
	fd = view_file();
	pid = fork();
	if (pid == 0)
		_exit(ftruncate(fd, PAGE));
	REQUIRE_EQ(waitpid(pid, NULL, 0), pid);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(pread(file, view + 2 * PAGE, 100, 0), -1);
		CHECK_EQ(errno, EFAULT);
	}
	CHECK_EQ(pread(file, view, PAGE, 0), PAGE);
}
