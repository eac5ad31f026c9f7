/* SPDX-License-Identifier: MIT */
/* The process's own handlers keep working for everything that is not ours; and what threads do. */
#include "mmu_rig.h"

#include <fcntl.h>
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
