/* SPDX-License-Identifier: MIT */
/*
 * System calls that the program makes by itself, under `mkwrite run`: what they store to a view
 * arrives, and views are granted whole from then on; other calls change nothing.
 */
#include "view.h"

#include <harness/test.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096u

#if defined(__x86_64__)

static long raw(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}
#define RAW_6(n, a, b, c, d, e, f, ...) \
	raw(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define RAW(...) RAW_6(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

/* Is the mapping at p writable as the kernel has it? */
static bool is_open(const char *p)
{
	unsigned long from, to, at = (unsigned long)p;
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[400], rights[5] = "";

	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3 && from <= at && at < to)
			break;
	fclose(maps);
	return rights[1] == 'w';
}

static char *begin(void)
{
	char *view = view_begin();

	REQUIRE(!is_open(view));
	return view;
}

/* Bytes that are known. */
static int source(void)
{
	static char bytes[8 * PAGE];
	int fd = memfd_create("source", 0);

	memset(bytes, 's', sizeof(bytes));
	REQUIRE_EQ(pwrite(fd, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
	return fd;
}

static bool filled(const char *p, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (p[i] != 's')
			return false;
	return true;
}

TEST(raw_read, "a read past libc stores to a view, which is granted whole from then on")
{
	char *view = begin();
	int fd = source();

	CHECK_EQ(RAW(SYS_read, fd, view + 100, 3 * PAGE), 3 * PAGE);
	CHECK(filled(view + 100, 3 * PAGE));
	CHECK(is_open(view + 20 * PAGE));
	CHECK_EQ(RAW(SYS_pread64, fd, view + 30 * PAGE, PAGE, 0), PAGE);
	CHECK(filled(view + 30 * PAGE, PAGE));
	view_arm(); /* a new view is, too */
	CHECK_EQ(RAW(SYS_pread64, fd, view + PAGE, PAGE, 0), PAGE);
	CHECK(filled(view + PAGE, PAGE));
}

TEST(raw_harmless, "other calls past libc give what they give, and change nothing")
{
	char *view = begin(), plain[100];
	int fd = source(), word = 1;

	errno = 4711;
	for (int i = 0; i < 100; i++) {
		CHECK_EQ(RAW(SYS_getpid), getpid());
		CHECK_EQ(RAW(SYS_pread64, fd, plain, sizeof(plain), 5), (long)sizeof(plain));
		CHECK(filled(plain, sizeof(plain)));
		CHECK_EQ(RAW(SYS_close, -1), -EBADF);
		CHECK_EQ(RAW(SYS_futex, &word, FUTEX_WAIT, 2), -EAGAIN);
		CHECK_EQ(RAW(SYS_madvise, plain, 0, MADV_NORMAL) != 0, true);
	}
	CHECK_EQ(errno, 4711);
	CHECK(!is_open(view));
	CHECK(!is_open(view + 60 * PAGE));
	memset(view, 's', 2 * PAGE);
	CHECK(filled(view, 2 * PAGE));
}

TEST(raw_many, "a program that makes many calls past libc is left alone")
{
	char *view = begin(), plain[10];
	int fd = source();

	for (int i = 0; i < 5000; i++)
		REQUIRE_EQ(RAW(SYS_pread64, fd, plain, sizeof(plain), 0), (long)sizeof(plain));
	CHECK(is_open(view + PAGE));
}

static char *thread_view;
static struct test_event ready = TEST_EVENT_INIT, go = TEST_EVENT_INIT;

static void *read_in_thread(void *arg)
{
	test_event_set(&ready);
	test_event_wait(&go);
	poll(NULL, 0, 0); /* a hook */
	CHECK_EQ(RAW(SYS_pread64, (int)(long)arg, thread_view, PAGE, 0), PAGE);
	return NULL;
}

TEST(raw_threads,
     "calls of threads that were there before the view are seen from their next hook on")
{
	struct test_thread before, after;
	int fd = source();

	test_thread_start(&before, read_in_thread, (void *)(long)fd);
	test_event_wait(&ready);
	thread_view = begin();
	test_event_set(&go);
	test_thread_join(&before);
	CHECK(filled(thread_view, PAGE));
	thread_view += 2 * PAGE;
	test_thread_start(&after, read_in_thread, (void *)(long)fd);
	test_thread_join(&after);
	CHECK(filled(thread_view, PAGE));
	CHECK(is_open(thread_view + 20 * PAGE));
}

TEST(raw_new_thread, "calls of a thread that was made later are seen")
{
	struct test_thread thread;

	thread_view = begin();
	test_event_set(&go);
	test_thread_start(&thread, read_in_thread, (void *)(long)source());
	test_thread_join(&thread);
	CHECK(filled(thread_view, PAGE));
}

static int status_of(pid_t pid)
{
	int status = -1;

	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

TEST(raw_child, "calls of a child are seen, and leave its parent alone")
{
	char *view = begin();
	int fd = source();
	pid_t pid = fork();

	if (pid == 0)
		_exit(RAW(SYS_pread64, fd, view, PAGE, 0) == PAGE && filled(view, PAGE) &&
				      is_open(view + 9 * PAGE)
			      ? 7
			      : 8);
	CHECK_EQ(WEXITSTATUS(status_of(pid)), 7);
	CHECK(!is_open(view + 9 * PAGE));
}

TEST(raw_native,
     "what the thread itself must do, it does: making processes, returning from signals")
{
	char *view = begin();
	long pid = RAW(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		RAW(SYS_exit_group, 9);
	CHECK(pid > 0);
	CHECK_EQ(WEXITSTATUS(status_of((pid_t)pid)), 9);
	CHECK(is_open(view));
}

static _Atomic int signals_seen, code_seen;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	signals_seen++;
	code_seen = info->si_code;
}

TEST(raw_interrupted, "a signal interrupts such a call")
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
	struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
	char *view = begin(), plain[8];
	int fds[2];

	REQUIRE_EQ(pipe(fds), 0);
	REQUIRE_EQ(sigaction(SIGALRM, &action, NULL), 0);
	setitimer(ITIMER_REAL, &often, NULL);
	CHECK_EQ(RAW(SYS_read, fds[0], plain, sizeof(plain)), -EINTR);
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK(signals_seen > 0);
	CHECK(!is_open(view));
}

/* ---- io_uring and its like ------------------------------------------------------------------ */

TEST(raw_uring, "io_uring opens all views, whether by libc or past it")
{
	char *view = begin();
	struct io_uring_params params = {.flags = 0};
	long fd = syscall(SYS_io_uring_setup, 4, &params);

	if (fd < 0)
		test_note("no io_uring here: %s", strerror(errno));
	CHECK(is_open(view + 5 * PAGE));
}

TEST(raw_uring_past, "io_uring past libc opens all views")
{
	char *view = begin();
	struct io_uring_params params = {.flags = 0};

	RAW(SYS_io_uring_setup, 4, &params);
	CHECK(is_open(view + 5 * PAGE));
}

TEST(raw_uring_reads, "what io_uring reads into a view arrives")
{
	struct io_uring_params params = {.flags = 0};
	char *view = begin();
	int fd = source(), ring = (int)syscall(SYS_io_uring_setup, 4, &params);
	struct io_uring_sqe *sqes;
	char *sq, *cq;

	if (ring < 0)
		SKIP("no io_uring here: %s", strerror(errno));
	sqes = mmap(NULL, 4 * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		    IORING_OFF_SQES);
	sq = mmap(NULL, params.sq_off.array + 4 * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		  IORING_OFF_SQ_RING);
	cq = mmap(NULL, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
		  PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	REQUIRE(sqes != MAP_FAILED && sq != MAP_FAILED && cq != MAP_FAILED);
	memset(sqes, 0, sizeof(*sqes));
	sqes->opcode = IORING_OP_READ;
	sqes->fd = fd;
	sqes->addr = (unsigned long)view + 100;
	sqes->len = 2 * PAGE;
	*(unsigned *)(void *)(sq + params.sq_off.array) = 0;
	++*(unsigned *)(void *)(sq + params.sq_off.tail);
	CHECK_EQ(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), 1);
	CHECK_EQ(((struct io_uring_cqe *)(void *)(cq + params.cq_off.cqes))->res, 2 * PAGE);
	CHECK(filled(view + 100, 2 * PAGE));
}

TEST(raw_aio, "Linux's asynchronous reads into a view arrive, and open all views")
{
	char *view = begin();
	aio_context_t context = 0;
	int fd = source();
	struct iocb request = {.aio_lio_opcode = IOCB_CMD_PREAD,
			       .aio_fildes = (unsigned)fd,
			       .aio_buf = (unsigned long)view + 50,
			       .aio_nbytes = 2 * PAGE},
		    *list[] = {&request};
	struct io_event *event = (struct io_event *)(void *)(view + 40 * PAGE);

	REQUIRE_EQ(syscall(SYS_io_setup, 1, &context), 0);
	CHECK_EQ(syscall(SYS_io_submit, context, 1l, list), 1);
	CHECK_EQ(syscall(SYS_io_getevents, context, 1l, 1l, event, NULL), 1);
	CHECK_EQ(event->res, 2 * PAGE);
	CHECK(filled(view + 50, 2 * PAGE));
	CHECK(is_open(view + 30 * PAGE));
}

/* ---- Programs that use the same means ------------------------------------------------------- */

static void trap_getppid(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = code};

	REQUIRE_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	REQUIRE_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

TEST(raw_seccomp, "a program's own handler of SIGSYS hears of its own filter")
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, before;
	char *view = begin();

	REQUIRE_EQ(sigaction(SIGSYS, &action, NULL), 0);
	REQUIRE_EQ(sigaction(SIGSYS, NULL, &before), 0);
	CHECK(before.sa_sigaction == on_signal);
	trap_getppid();
	getppid();
	CHECK_EQ(signals_seen, 1);
	CHECK_EQ(code_seen, 1); /* SYS_SECCOMP */
	CHECK_EQ(RAW(SYS_getpid), getpid());
	CHECK(!is_open(view));
}

TEST(raw_seccomp_kills, "without such a handler the filter ends the program")
{
	pid_t pid;

	begin();
	pid = fork();
	if (pid == 0) {
		trap_getppid();
		getppid();
		_exit(0);
	}
	CHECK_EQ(WTERMSIG(status_of(pid)), SIGSYS);
}

static char own_selector;

static void on_own(int sig, siginfo_t *info, void *context)
{
	own_selector = 0;
	on_signal(sig, info, context);
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 4711;
}

TEST(raw_own_dispatch, "a program that has its system calls reported to itself goes on doing so")
{
	struct sigaction action = {.sa_sigaction = on_own, .sa_flags = SA_SIGINFO};

	begin();
	REQUIRE_EQ(sigaction(SIGSYS, &action, NULL), 0);
	if (prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &own_selector))
		SKIP("not on this kernel");
	own_selector = 1;
	CHECK_EQ(RAW(SYS_getpid), 4711);
	CHECK_EQ(signals_seen, 1);
	prctl(59, 0, 0, 0, 0);
}

TEST(raw_off, "what was switched off costs nothing: calls past libc are not reported any more")
{
	char *view = begin();
	int fd = source();

	CHECK_EQ(RAW(SYS_read, fd, view, PAGE), PAGE);
	REQUIRE_EQ(read(fd, view, 1), 1); /* a hook */
	CHECK_EQ(RAW(SYS_prctl, 59, 0, 0, 0, 0), 0);
	CHECK_EQ(RAW(SYS_getpid), getpid());
}

#else

TEST(raw_here, "system calls past libc can be seen")
{
	SKIP("on x86-64 only");
}

#endif
