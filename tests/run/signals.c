/* SPDX-License-Identifier: MIT */
/*
 * Handlers and masks of a program under `mkwrite run`: they are as ever, and views are written to
 * whatever the program blocks.
 */
#include "view.h"

#include <harness/test.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096u

static char *view;
static sigjmp_buf back;
static _Atomic int handled;
static void *_Atomic address_seen;

static void jump_out(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	handled++;
	address_seen = info->si_addr;
	siglongjmp(back, 1);
}

static void set(int sig, void (*handler)(int, siginfo_t *, void *), int flags, bool mask_all)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};

	if (mask_all)
		sigfillset(&action.sa_mask);
	REQUIRE_EQ(sigaction(sig, &action, NULL), 0);
}

static char *nowhere(void)
{
	return mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

TEST(signals_own_fault, "a program's handler gets its own faults, and no other")
{
	char *volatile none = nowhere();

	set(SIGSEGV, jump_out, 0, false); /* before there is a view, */
	view = view_begin();
	view[0] = 1;
	for (int i = 1; i <= 3; i++) {
		if (sigsetjmp(back, 1) == 0)
			*(volatile char *)none = 1;
		CHECK_EQ(handled, i);
		CHECK(address_seen == none);
		view[(unsigned)i * PAGE] = 1;
	}
	set(SIGSEGV, jump_out, SA_ONSTACK | SA_NODEFER, false); /* and after */
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)none = 1;
	CHECK_EQ(handled, 4);
	view[9 * PAGE] = 1;
	CHECK_EQ(handled, 4);
}

static void ignore(int sig)
{
	(void)sig;
	handled++;
}

TEST(signals_reported, "the program is told the handlers that it has set")
{
	struct sigaction action;

	view = view_begin();
	CHECK(signal(SIGSEGV, ignore) == SIG_DFL);
	CHECK(signal(SIGSEGV, SIG_IGN) == ignore);
	CHECK(signal(SIGSEGV, SIG_DFL) == SIG_IGN);
	CHECK(signal(SIGBUS, SIG_IGN) == SIG_DFL);
	CHECK_EQ(sigaction(SIGBUS, NULL, &action), 0);
	CHECK(action.sa_handler == SIG_IGN);
	raise(SIGBUS);
	CHECK(signal(SIGBUS, ignore) == SIG_IGN);
	raise(SIGBUS);
	raise(SIGBUS);
	CHECK_EQ(handled, 2);
	set(SIGALRM, jump_out, 0, true);
	CHECK_EQ(sigaction(SIGALRM, NULL, &action), 0);
	CHECK(sigismember(&action.sa_mask, SIGSEGV) == 1);
	CHECK(sigismember(&action.sa_mask, SIGBUS) == 1);
	CHECK_EQ(sigaction(SIGKILL, &action, NULL), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK(signal(SIGSYS, ignore) == SIG_DFL);
	CHECK(signal(SIGSYS, SIG_DFL) == ignore);
	view[0] = 1;
}

TEST(signals_masks, "the program is told the mask that it has set, and writes to views under it")
{
	sigset_t all, now, old;

	view = view_begin();
	sigfillset(&all);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &all, &old), 0);
	CHECK(sigismember(&old, SIGSEGV) == 0);
	view[0] = 1;
	CHECK_EQ(sigprocmask(SIG_SETMASK, NULL, &now), 0);
	CHECK(sigismember(&now, SIGSEGV) == 1 && sigismember(&now, SIGBUS) == 1);
	CHECK(sigismember(&now, SIGSYS) == 1 && sigismember(&now, SIGTERM) == 1);
	sigemptyset(&all);
	sigaddset(&all, SIGBUS);
	CHECK_EQ(sigprocmask(SIG_UNBLOCK, &all, NULL), 0);
	view[PAGE] = 1;
	CHECK_EQ(sigprocmask(SIG_SETMASK, &old, &now), 0);
	CHECK(sigismember(&now, SIGSEGV) == 1 && sigismember(&now, SIGBUS) == 0);
	CHECK_EQ(sigprocmask(SIG_SETMASK, NULL, &now), 0);
	CHECK(sigismember(&now, SIGSEGV) == 0 && sigismember(&now, SIGTERM) == 0);
	CHECK_EQ(sigprocmask(4711, &all, NULL), -1);
	CHECK_EQ(errno, EINVAL);
}

static void *write_under_mask(void *arg)
{
	sigset_t now;

	pthread_sigmask(SIG_SETMASK, NULL, &now);
	CHECK(sigismember(&now, SIGSEGV) == 1 && sigismember(&now, SIGUSR1) == 1);
	*(volatile char *)arg = 1;
	return NULL;
}

TEST(signals_threads, "a thread inherits the mask, and writes to views under it")
{
	struct test_thread thread;
	pthread_attr_t attr;
	pthread_t other;
	sigset_t all;

	view = view_begin();
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	test_thread_start(&thread, write_under_mask, view);
	test_thread_join(&thread);
	sigemptyset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	sigfillset(&all);
	pthread_attr_init(&attr);
#if __GLIBC_PREREQ(2, 32)
	pthread_attr_setsigmask_np(&attr, &all);
	REQUIRE_EQ(pthread_create(&other, &attr, write_under_mask, view + PAGE), 0);
	pthread_join(other, NULL);
#endif
}

static void write_view(int sig, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	view[PAGE * (unsigned)sig] = 1;
	handled++;
}

TEST(signals_handlers, "handlers write to views, whatever their masks, in waits that block all")
{
	struct pollfd none = {.fd = -1};
	sigset_t all, most;
	int fd = epoll_create1(0);
	struct epoll_event event;

	view = view_begin();
	set(SIGUSR1, write_view, 0, true);
	raise(SIGUSR1);
	CHECK_EQ(handled, 1);
	sigfillset(&all);
	most = all;
	sigdelset(&most, SIGUSR2);
	set(SIGUSR2, write_view, 0, false);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	raise(SIGUSR2);
	CHECK_EQ(sigsuspend(&most), -1);
	CHECK_EQ(handled, 2);
	view_arm();
	raise(SIGUSR2);
	CHECK_EQ(ppoll(&none, 1, NULL, &most), -1);
	view_arm();
	raise(SIGUSR2);
	CHECK_EQ(pselect(0, NULL, NULL, NULL, NULL, &most), -1);
	view_arm();
	raise(SIGUSR2);
	CHECK_EQ(epoll_pwait(fd, &event, 1, -1, &most), -1);
	CHECK_EQ(handled, 5);
	close(fd);
}

static void write_and_jump(int sig, siginfo_t *info, void *context)
{
	(void)context;
	(void)sig;
	address_seen = info->si_addr;
	view[5 * PAGE] = 1; /* a fault of ours inside of the program's handler */
	view[6 * PAGE] = 1;
	siglongjmp(back, 1);
}

TEST(signals_nested, "a program's handler of SIGSEGV itself writes to views")
{
	char *none = nowhere();

	view = view_begin();
	set(SIGSEGV, write_and_jump, 0, true);
	set(SIGBUS, write_and_jump, 0, true);
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)none = 1;
	CHECK(address_seen == none);
	CHECK_EQ(view[5 * PAGE], 1);
	view_arm();
	if (sigsetjmp(back, 1) == 0)
		raise(SIGBUS);
	CHECK_EQ(view[6 * PAGE], 1);
}

static int death_of(void (*child)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		child();
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void die_of_fault(void)
{
	view[0] = 1;
	*(volatile char *)nowhere() = 1;
}

static void die_ignoring(void)
{
	signal(SIGSEGV, SIG_IGN);
	view[0] = 1;
	*(volatile char *)nowhere() = 1;
}

static void die_after_one(void)
{
	set(SIGSEGV, write_view, (int)SA_RESETHAND, false);
	raise(SIGSEGV);
	if (handled != 1)
		_exit(1);
	raise(SIGSEGV);
}

static void die_sent(void)
{
	kill(getpid(), SIGBUS);
	for (;;)
		pause();
}

TEST(signals_deaths, "a program dies of what it would die of")
{
	view = view_begin();
	CHECK_EQ(death_of(die_of_fault), SIGSEGV);
	CHECK_EQ(death_of(die_ignoring), SIGSEGV);
	CHECK_EQ(death_of(die_after_one), SIGSEGV);
	CHECK_EQ(death_of(die_sent), SIGBUS);
}

/* ---- Small alternate stacks ----------------------------------------------------------------- */

#define STACK (16 * PAGE)

static char *stack;

/* How many bytes from the end of the stack on have been touched. */
static size_t stack_used(void)
{
	size_t i = 0;

	while (i < STACK && stack[i] == 0x5a)
		i++;
	return STACK - i;
}

TEST(signals_stack, "a fault in a view needs no more of an alternate stack than 8 KiB")
{
	stack_t ours = {.ss_size = STACK};

	stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(stack, 0x5a, STACK);
	ours.ss_sp = stack;
	REQUIRE_EQ(sigaltstack(&ours, NULL), 0);
	view = view_begin();
	for (unsigned i = 0; i < VIEW_PAGES; i++)
		view[i * 7 % VIEW_PAGES * PAGE] = 1;
	view_arm();
	memset(view, 1, VIEW_PAGES * PAGE);
	test_note("%zu bytes", stack_used());
	CHECK(stack_used() > 0);
	CHECK(stack_used() <= 8192);
}

static char small[PAGE + 2048];
static _Atomic bool on_stack;

static void write_on_stack(int sig, siginfo_t *info, void *context)
{
	char deep[1024];
	stack_t now;

	(void)info;
	(void)context;
	memset(deep, 0x11, sizeof(deep));
	view[PAGE * (unsigned)sig] = deep[100]; /* a fault of ours on the same stack */
	sigaltstack(NULL, &now);
	on_stack = now.ss_flags & SS_ONSTACK && now.ss_sp == small + PAGE;
	handled++;
}

static void *small_stack(void *arg)
{
	stack_t set_small = {.ss_sp = small + PAGE, .ss_size = 2048}, old;

	(void)arg;
	memset(small, 0x5a, sizeof(small));
	CHECK_EQ(sigaltstack(&set_small, &old), 0);
	CHECK(old.ss_flags == SS_DISABLE);
	CHECK_EQ(sigaltstack(NULL, &old), 0);
	CHECK(old.ss_sp == small + PAGE && old.ss_size == 2048 && old.ss_flags == 0);
	raise(SIGUSR1);
	view[0] = 1;
	for (size_t i = 0; i < PAGE; i++)
		if (!CHECK_EQ(small[i], 0x5a))
			break;
	set_small.ss_size = 100;
	CHECK_EQ(sigaltstack(&set_small, NULL), -1);
	CHECK_EQ(errno, ENOMEM);
	return NULL;
}

TEST(signals_small_stack, "what is next to a small alternate stack is not overwritten")
{
	struct test_thread thread;

	view = view_begin();
	set(SIGUSR1, write_on_stack, SA_ONSTACK, false);
	for (int i = 1; i <= 3; i++) {
		test_thread_start(&thread, small_stack, NULL);
		test_thread_join(&thread);
		CHECK_EQ(handled, i);
		CHECK(on_stack);
		view_arm();
	}
	small_stack(NULL);
}
