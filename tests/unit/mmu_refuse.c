/* SPDX-License-Identifier: MIT */
/* A refusal reaches the thread concerned, as a signal or an EFAULT, and nobody else. */
#include "mmu_rig.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define OFFSET 123 /* in the page that is refused */

static _Atomic bool refusing = true;

static void refuse_writes(struct rig *r, struct mmu_view *view, uintptr_t address,
			  enum mmu_access access, pid_t tid)
{
	if (access == MMU_WRITE && refusing)
		rig_refuse(view, address, access, tid);
	else
		rig_serve(r, view, address, access, tid);
}

static void refuse_all(struct rig *r, struct mmu_view *view, uintptr_t address,
		       enum mmu_access access, pid_t tid)
{
	(void)r;
	rig_refuse(view, address, access, tid);
}

/* Plain accesses, unseen by TSan: a jump out of one of its own functions would leave its locks. */
__attribute__((no_sanitize("thread"))) static void write_byte(void *arg)
{
	*(volatile char *)arg = 99;
}

__attribute__((no_sanitize("thread"))) static void read_byte(void *arg)
{
	(void)*(volatile char *)arg;
}

static _Atomic bool stop;
static _Atomic unsigned long passes, torn;

/* Reads the page that is refused to others, in user mode and by system calls. */
static void *read_on(void *arg)
{
	int fd = memfd_create("reader", 0);

	(void)arg;
	while (!stop) {
		torn += *rig_at(0, 3) != 4;
		/* Not by a function that a sanitizer replaces: it would look at the bytes itself.
		 */
		torn += syscall(SYS_pwrite64, fd, rig_at(0, 3), PAGE, 0) != (long)PAGE;
		passes++;
	}
	close(fd);
	return NULL;
}

TEST_EACH_BACKEND(mmu_refuse_user,
		  "S1.1 a refused write is SIGBUS at its address; a reader runs on")
{
	struct test_thread reader;
	unsigned rounds = test_rounds(2000);
	char *at;

	rig_create();
	rig.on_fault = refuse_writes;
	at = (char *)rig_at(0, 3) + OFFSET;
	CHECK_EQ(*rig_at(0, 3), 4);
	test_thread_start(&reader, read_on, NULL);
	for (unsigned i = 0; i < rounds; i++)
		CHECK(rig_guard(write_byte, at) == at);
	test_wait_until(passes > 0);
	stop = true;
	test_thread_join(&reader);
	CHECK_EQ(torn, 0);
	CHECK_EQ(*at, 4);
	refusing = false;
	CHECK(rig_guard(write_byte, at) == NULL);
	CHECK_EQ(*at, 99);
	rig_destroy();
}

TEST_EACH_BACKEND(mmu_refuse_absent,
		  "a refused read of an absent page is SIGBUS, and leaves nothing behind")
{
	char *at;

	rig_create();
	at = (char *)rig_at(0, 7) + OFFSET;
	rig.on_fault = refuse_all;
	CHECK(rig_guard(read_byte, at) == at);
	CHECK(rig_guard(write_byte, at) == at);
	rig.on_fault = rig_serve;
	CHECK(rig_guard(read_byte, at) == NULL);
	CHECK_EQ(*at, 8);
	CHECK_EQ(rig.writes, 1);
	rig_destroy();
}

/* The handler has two reports of one access, as a thread makes that has a signal pending: when it
 * comes to the second, the first has been answered. */
static void refuse_twice(struct rig *r, struct mmu_view *view, uintptr_t address,
			 enum mmu_access access, pid_t tid)
{
	uint64_t before = mmu_report_time();

	r->on_fault = rig_serve;
	mmu_wake(view, address & ~(PAGE - 1), PAGE);
	mmu_refuse(view, address, access, tid, before);
}

TEST(mmu_refuse_let_go, "a refusal whose thread was woken since it faulted refuses nothing")
{
	int zero;

	rig_create();
	zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	for (unsigned i = 0; i < test_rounds(100); i++) {
		rig.on_fault = refuse_twice;
		CHECK_EQ(read(zero, (char *)rig_at(0, 3) + OFFSET, 64), 64);
		CHECK_EQ(mmu_protect(&rig.view[0], (uintptr_t)rig_at(0, 3), PAGE), 0);
	}
	close(zero);
	rig_destroy();
}

static void refuse_system_calls(void)
{
	struct test_thread reader;
	unsigned rounds = test_rounds(300);
	int zero, null, pipes[2];
	char *at;

	rig_create();
	rig.on_fault = refuse_writes;
	at = (char *)rig_at(0, 3);
	zero = open("/dev/zero", O_RDONLY);
	null = open("/dev/null", O_WRONLY);
	REQUIRE_EQ(pipe(pipes), 0);
	CHECK_EQ(*rig_at(0, 3), 4);
	test_thread_start(&reader, read_on, NULL);
	for (unsigned i = 0; i < rounds; i++) {
		errno = 0;
		CHECK_EQ(read(zero, at + OFFSET, 64), -1);
		CHECK_EQ(errno, EFAULT);
	}
	test_wait_until(passes > 0);
	stop = true;
	test_thread_join(&reader);
	CHECK_EQ(torn, 0);
	CHECK_EQ(at[OFFSET], 4);
	test_note("%u refusals took %u events", rounds, rig.writes);
	refusing = false;
	CHECK_EQ(read(zero, at, PAGE), (ssize_t)PAGE);
	CHECK_EQ(at[OFFSET], 0);
	/* An absent page, read by a system call. */
	rig.on_fault = refuse_all;
	CHECK_EQ(write(null, (const char *)rig_at(0, 9), 10), 10); /* which does not look */
	CHECK_EQ(write(pipes[1], (const char *)rig_at(0, 9), 10), -1);
	CHECK_EQ(errno, EFAULT);
	rig.on_fault = rig_serve;
	CHECK_EQ(*rig_at(0, 9), 10);
	close(zero);
	close(null);
	close(pipes[0]);
	close(pipes[1]);
	rig_destroy();
}

TEST(mmu_refuse_system_call,
     "4.7 a refused read(2) into a view is EFAULT; the page is readable meanwhile")
{
	refuse_system_calls();
}

TEST(mmu_refuse_system_call_old, "4.7 likewise without what kernels after 6.1 brought")
{
	setenv("MKW_UFFD_WITHOUT", "continue-wp,pagemap-scan", 1);
	refuse_system_calls();
}

TEST_EACH_BACKEND(mmu_refuse_short, "4.7 a read(2) over granted and refused pages is short")
{
	int zero = open("/dev/zero", O_RDONLY);
	char *at;

	rig_create();
	at = (char *)rig_at(0, 1);
	*at = 1;
	rig.on_fault = refuse_writes;
	CHECK_EQ(*(volatile char *)(at + PAGE), 3);
	CHECK_EQ(read(zero, at, 2 * PAGE), (ssize_t)PAGE);
	CHECK_EQ(at[PAGE], 3);
	close(zero);
	rig_destroy();
}

static void *other_writer(void *arg)
{
	return rig_guard(write_byte, arg);
}

TEST(mmu_refuse_many_threads, "system calls and stores refused on one page at a time end all")
{
	struct test_thread writer;
	int zero = open("/dev/zero", O_RDONLY);
	char *at;

	rig_create();
	at = (char *)rig_at(0, 3);
	CHECK_EQ(*at, 4);
	rig.on_fault = refuse_writes;
	for (unsigned i = 0; i < test_rounds(50); i++) {
		CHECK_EQ(read(zero, at, 8), -1);
		test_thread_start(&writer, other_writer, at + OFFSET);
		CHECK(test_thread_join(&writer) == at + OFFSET);
	}
	CHECK_EQ(*at, 4);
	close(zero);
	rig_destroy();
}

static _Atomic unsigned handled;

static void count_signal(int sig)
{
	(void)sig;
	handled++;
}

TEST(mmu_refuse_unsignalled,
     "4.7 a system call is refused without a signal where one cannot be used")
{
	int zero = open("/dev/zero", O_RDONLY);
	sigset_t set, pending;
	char *at;

	rig_create();
	at = (char *)rig_at(0, 3);
	CHECK_EQ(*rig_at(0, 3), 4);
	rig.on_fault = refuse_writes;
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (unsigned i = 0; i < test_rounds(20); i++)
		CHECK_EQ(read(zero, at + OFFSET, 64), -1);
	sigpending(&pending);
	CHECK(!sigismember(&pending, SIGBUS));
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	signal(SIGBUS, count_signal);
	for (unsigned i = 0; i < test_rounds(20); i++)
		CHECK_EQ(read(zero, at + OFFSET, 64), -1);
	CHECK_EQ(handled, 0);
	CHECK_EQ(*rig_at(0, 3), 4);
	close(zero);
	rig_destroy();
}

/* ---- Those who cannot be told -------------------------------------------------------------- */

static int death_of(void (*child)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGBUS, SIG_DFL); /* not a sanitizer's */
		child();
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void write_with_sigbus_blocked(void)
{
	sigset_t set;

	rig_create();
	rig.on_fault = refuse_writes;
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	*rig_at(0, 3) = 1;
}

static void write_with_sigbus_ignored(void)
{
	rig_create();
	rig.on_fault = refuse_writes;
	signal(SIGBUS, SIG_IGN);
	*rig_at(0, 3) = 1;
}

static void write_unguarded(void)
{
	rig_create();
	rig.on_fault = refuse_writes;
	*rig_at(0, 3) = 1;
}

TEST_EACH_BACKEND(mmu_refuse_deadly,
		  "a thread that blocks or ignores SIGBUS dies of it, as of the kernel's")
{
	CHECK_EQ(death_of(write_with_sigbus_blocked), SIGBUS);
	CHECK_EQ(death_of(write_with_sigbus_ignored), SIGBUS);
	CHECK_EQ(death_of(write_unguarded), SIGBUS);
}
