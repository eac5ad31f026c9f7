/* SPDX-License-Identifier: MIT */
/* The process's own handlers keep working for everything that is not ours; and what threads do. */
#include "mmu_rig.h"

#include <fcntl.h>
#include <mkwrite/mkwrite.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static sigjmp_buf back;
static siginfo_t seen;
static _Atomic unsigned handled;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	seen = *info;
	handled++;
	siglongjmp(back, 1);
}

static void handle(int sig)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};

	REQUIRE_EQ(sigaction(sig, &action, NULL), 0);
}

/* A page that raises SIGBUS of its own accord: past the end of a file. */
static char *page_past_end(void)
{
	int fd = memfd_create("empty", 0);
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	REQUIRE(p != MAP_FAILED);
	return p;
}

static void refuse_writes(struct rig *r, struct mmu_view *view, uintptr_t address,
			  enum mmu_access access, pid_t tid)
{
	if (access == MMU_WRITE)
		rig_refuse(view, address, access, tid);
	else
		rig_serve(r, view, address, access, tid);
}

TEST_EACH_BACKEND(mmu_chain_bus,
		  "an earlier SIGBUS handler sees its own faults, and refusals as the kernel's")
{
	char *other = page_past_end(), *at;

	handle(SIGBUS);
	rig_create();
	rig.on_fault = refuse_writes;
	at = (char *)rig_at(0, 2) + 17;
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)other = 1;
	CHECK(seen.si_addr == other);
	CHECK_EQ(seen.si_code, BUS_ADRERR);
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)at = 1;
	CHECK(seen.si_addr == at);
	CHECK_EQ(seen.si_code, BUS_ADRERR);
	CHECK_EQ(handled, 2);
	munmap(other, PAGE);
	rig_destroy();
}

TEST_EACH_BACKEND(mmu_chain_segv, "an earlier SIGSEGV handler sees its own faults")
{
	char *none = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	handle(SIGSEGV);
	rig_create();
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)none = 1;
	CHECK(seen.si_addr == none);
	CHECK_EQ(handled, 1);
	munmap(none, PAGE);
	rig_destroy();
}

TEST(mmu_later_handler, "a handler installed later gets the queued signal, with its address")
{
	char *at;

	rig_create();
	handle(SIGBUS);
	rig.on_fault = refuse_writes;
	at = (char *)rig_at(0, 2) + 17;
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)at = 1;
	CHECK(seen.si_addr == at);
	CHECK(seen.si_code < 0);
	rig_destroy(); /* which must not need the signal */
}

static int death_of(void (*child)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGBUS, SIG_DFL); /* not a sanitizer's */
		signal(SIGSEGV, SIG_DFL);
		child();
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void die_past_end(void)
{
	rig_create();
	*(volatile char *)page_past_end() = 1;
}

static void die_by_kill(void)
{
	rig_create();
	raise(SIGBUS);
}

static void die_of_segv(void)
{
	rig_create();
	*(volatile char *)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1;
}

static void ignore_kill(void)
{
	signal(SIGBUS, SIG_IGN);
	rig_create();
	raise(SIGBUS);
}

TEST(mmu_default_deaths, "without handlers a process dies, or not, as if there were no library")
{
	CHECK_EQ(death_of(die_past_end), SIGBUS);
	CHECK_EQ(death_of(die_by_kill), SIGBUS);
	CHECK_EQ(death_of(die_of_segv), SIGSEGV);
	CHECK_EQ(death_of(ignore_kill), 0);
}

static _Atomic enum mmu_access access_seen;

static void note_access(struct rig *r, struct mmu_view *view, uintptr_t address,
			enum mmu_access access, pid_t tid)
{
	access_seen = access;
	rig_serve(r, view, address, access, tid);
}

TEST_EACH_BACKEND(mmu_access, "a fault is told as a read or a write; errno survives")
{
	rig_create();
	rig.on_fault = note_access;
	errno = 4711;
	(void)*rig_at(0, 1);
	CHECK_EQ(access_seen, MMU_READ);
	*rig_at(0, 1) = 1;
	CHECK_EQ(access_seen, MMU_WRITE);
	*rig_at(0, 2) = 1;
	CHECK_EQ(access_seen, MMU_WRITE);
	CHECK_EQ(errno, 4711);
	rig_destroy();
}

/* ---- mkw_sigaction ------------------------------------------------------------------------- */

static void set_kept(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};

	REQUIRE_EQ(mkw_sigaction(sig, &action, NULL), 0);
}

static void touch_none(void)
{
	static char *none;

	if (!none)
		none = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)none = 1;
	CHECK(seen.si_addr == none);
}

TEST(sigaction_kept, "mkw_sigaction: handlers are exchanged behind the library's own")
{
	struct sigaction plain = {.sa_handler = SIG_IGN}, before;

	CHECK_EQ(mkw_sigaction(SIGTERM, &plain, NULL), -EINVAL);
	handle(SIGSEGV);
	rig_create();
	CHECK_EQ(mkw_sigaction(SIGSEGV, NULL, &before), 0);
	CHECK(before.sa_sigaction == on_signal);
	touch_none();
	CHECK_EQ(handled, 1);
	sigfillset(&plain.sa_mask);
	CHECK_EQ(mkw_sigaction(SIGSEGV, &plain, &before), 0);
	CHECK(before.sa_sigaction == on_signal);
	raise(SIGSEGV);
	CHECK_EQ(handled, 1);
	set_kept(SIGBUS, on_signal, 0);
	CHECK_EQ(mkw_sigaction(SIGSEGV, NULL, &before), 0);
	CHECK(before.sa_handler == SIG_IGN);
	CHECK(sigismember(&before.sa_mask, SIGTERM) == 1 && !sigismember(&before.sa_mask, SIGKILL));
	set_kept(SIGSEGV, on_signal, 0);
	touch_none();
	if (sigsetjmp(back, 1) == 0)
		raise(SIGBUS);
	CHECK_EQ(handled, 3);
	CHECK_EQ(seen.si_code, SI_TKILL);
	CHECK_EQ(sigaction(SIGSEGV, NULL, &before), 0);
	CHECK(before.sa_sigaction != on_signal);
	rig_destroy();
}

TEST(sigaction_early, "mkw_sigaction without a space is sigaction, and is found at installation")
{
	struct sigaction before;

	set_kept(SIGSEGV, on_signal, 0);
	CHECK_EQ(sigaction(SIGSEGV, NULL, &before), 0);
	CHECK(before.sa_sigaction == on_signal);
	rig_create();
	touch_none();
	CHECK_EQ(handled, 1);
	rig_destroy();
}

static sigset_t mask_seen;
static char *volatile writable;

static void look_at_mask(int sig, siginfo_t *info, void *context)
{
	pthread_sigmask(SIG_SETMASK, NULL, &mask_seen);
	handled++;
	seen = *info;
	/* Let the access through. */
	if (info->si_code > 0)
		mprotect((void *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1)), PAGE,
			 PROT_READ | PROT_WRITE);
	if (writable) {
		char *p = writable;

		writable = NULL;
		*(volatile char *)p = 1; /* in a handler of the same signal */
	}
	(void)sig;
	(void)context;
}

TEST(sigaction_mask, "a kept handler runs under its mask, and can itself fault, as over a view")
{
	struct sigaction action = {.sa_sigaction = look_at_mask, .sa_flags = SA_SIGINFO};
	char *none = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	rig_create();
	sigaddset(&action.sa_mask, SIGUSR1);
	sigaddset(&action.sa_mask, SIGBUS);
	REQUIRE_EQ(mkw_sigaction(SIGSEGV, &action, NULL), 0);
	writable = none + PAGE;
	*(volatile char *)none = 1;
	CHECK_EQ(handled, 2);
	CHECK(sigismember(&mask_seen, SIGUSR1) == 1);
	CHECK(sigismember(&mask_seen, SIGUSR2) == 0);
	CHECK(sigismember(&mask_seen, SIGSEGV) == 0 && sigismember(&mask_seen, SIGBUS) == 0);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_seen);
	CHECK(sigismember(&mask_seen, SIGUSR1) == 0);
	munmap(none, 2 * PAGE);
	rig_destroy();
}

static void die_after_reset(void)
{
	rig_create();
	set_kept(SIGSEGV, look_at_mask, (int)SA_RESETHAND);
	raise(SIGSEGV);
	if (handled != 1)
		_exit(1);
	raise(SIGSEGV);
}

static void die_ignoring(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	rig_create();
	mkw_sigaction(SIGSEGV, &ignore, NULL);
	raise(SIGSEGV);
	handled = 1;
	*(volatile char *)mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1;
}

static void fail_again(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	*(volatile char *)info->si_addr = 1;
}

static void die_in_handler(void)
{
	rig_create();
	set_kept(SIGSEGV, fail_again, 0);
	*(volatile char *)mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1;
}

TEST(sigaction_deaths, "SA_RESETHAND, SIG_IGN and handlers that fail themselves end in death")
{
	CHECK_EQ(death_of(die_after_reset), SIGSEGV);
	CHECK_EQ(death_of(die_ignoring), SIGSEGV);
	CHECK_EQ(death_of(die_in_handler), SIGSEGV);
}

/* Two handlers that differ in all they have: a mixture of both would be seen. */
static _Atomic unsigned mixed, count_a, count_b;

static void count_one(int sig, siginfo_t *info, _Atomic unsigned *count, int with)
{
	sigset_t now;

	pthread_sigmask(SIG_SETMASK, NULL, &now);
	mixed += sigismember(&now, with) != 1;
	mixed += sigismember(&now, with == SIGUSR1 ? SIGUSR2 : SIGUSR1) != 0;
	++*count;
	(void)sig;
	(void)info;
}

static void on_a(int sig, siginfo_t *info, void *context)
{
	(void)context;
	count_one(sig, info, &count_a, SIGUSR1);
}

static void on_b(int sig, siginfo_t *info, void *context)
{
	(void)context;
	count_one(sig, info, &count_b, SIGUSR2);
}

static void *raise_many(void *arg)
{
	for (unsigned i = 0; i < test_rounds(20000) || !count_a || !count_b; i++)
		raise(SIGSEGV);
	*(_Atomic bool *)arg = true;
	return NULL;
}

TEST(sigaction_races,
     "a handler that is exchanged while signals come is never half one, half other")
{
	struct sigaction a = {.sa_sigaction = on_a, .sa_flags = SA_SIGINFO}, b = a, before;
	_Atomic bool ended = false;
	struct test_thread thread;

	b.sa_sigaction = on_b;
	sigaddset(&a.sa_mask, SIGUSR1);
	sigaddset(&b.sa_mask, SIGUSR2);
	rig_create();
	REQUIRE_EQ(mkw_sigaction(SIGSEGV, &b, NULL), 0);
	test_thread_start(&thread, raise_many, (void *)&ended);
	while (!ended) {
		CHECK_EQ(mkw_sigaction(SIGSEGV, &a, &before), 0);
		CHECK(before.sa_sigaction == on_b && sigismember(&before.sa_mask, SIGUSR2) == 1);
		CHECK_EQ(mkw_sigaction(SIGSEGV, &b, &before), 0);
		CHECK(before.sa_sigaction == on_a && sigismember(&before.sa_mask, SIGUSR1) == 1);
	}
	test_thread_join(&thread);
	CHECK_EQ(mixed, 0);
	rig_destroy();
}

/* ---- Threads' system calls ---------------------------------------------------------------- */

static struct stat file, other;
static _Atomic int in_file, in_other;

static void look_at_thread(struct rig *r, struct mmu_view *view, uintptr_t address,
			   enum mmu_access access, pid_t tid)
{
	in_file = mmu_thread_in_syscall_on(tid, file.st_dev, file.st_ino);
	in_other = mmu_thread_in_syscall_on(tid, other.st_dev, other.st_ino);
	rig_serve(r, view, address, access, tid);
}

TEST(mmu_thread_in_syscall, "4.3 a thread's system call on a file is recognized, on no other")
{
	int a = memfd_create("a", 0), b = memfd_create("b", 0), zero = open("/dev/zero", O_RDONLY);

	REQUIRE_EQ(fstat(a, &file), 0);
	REQUIRE_EQ(fstat(b, &other), 0);
	rig_create();
	rig.on_fault = look_at_thread;
	CHECK_EQ(pwrite(a, (const char *)rig_at(0, 0), 10, 0), 10);
	CHECK_EQ(in_file * 2 + in_other, 2);
	CHECK_EQ(read(zero, (char *)rig_at(0, 1), 10), 10);
	CHECK_EQ(in_file * 2 + in_other, 0);
	*rig_at(0, 2) = 1;
	CHECK_EQ(in_file * 2 + in_other, 0);
	CHECK(!mmu_thread_in_syscall_on(getpid() + 100000, file.st_dev, file.st_ino));
	close(a);
	close(b);
	close(zero);
	rig_destroy();
}

/* ---- What the host allows ----------------------------------------------------------------- */

TEST(mmu_probe_switches, "features can be switched off; what that costs or forbids is said")
{
	struct mkw_backend_info info[2];

	CHECK_EQ(mmu_probe(info, 2), 2);
	CHECK_STR(info[0].name, "uffd");
	CHECK_STR(info[1].name, "inline");
	setenv("MKW_UFFD_WITHOUT", "continue-wp,syscalls,exact-address", 1);
	CHECK_EQ(mmu_probe(info, 2), 2);
	CHECK(info[0].usable);
	CHECK(strstr(info[0].reason, "EFAULT") != NULL);
	CHECK(strstr(info[0].remedy, "CAP_SYS_PTRACE") != NULL);
	CHECK(strstr(info[1].remedy, "6.4") != NULL);
	setenv("MKW_UFFD_WITHOUT", "thread-id", 1);
	CHECK_EQ(mmu_probe(info, 1), 2);
	CHECK(!info[0].usable);
	CHECK(info[0].reason[0] != '\0');
	CHECK_EQ(mmu_create(&(struct mmu_options){.upcalls = &rig_upcalls}, &rig.mmu), -ENOSYS);
}

TEST(mmu_user_mode_only, "without privilege user mode works, and system calls get EFAULT")
{
	int zero = open("/dev/zero", O_RDONLY);

	setenv("MKW_UFFD_WITHOUT", "syscalls", 1);
	rig_create();
	*rig_at(0, 0) = 1;
	CHECK_EQ(read(zero, (char *)rig_at(0, 0), 8), 8);
	CHECK_EQ(read(zero, (char *)rig_at(0, 1), 8), -1);
	CHECK_EQ(errno, EFAULT);
	close(zero);
	rig_destroy();
}
