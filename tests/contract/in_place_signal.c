/* SPDX-License-Identifier: MIT */
/*
 * in_place_signal.c - faults in place are served in a signal handler: what the program's handlers,
 * stacks, hooks and cancellations see of it, and what the kernel refuses though it was granted.
 */
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- Waiting in a handler ---------------------------------------------------------------- */

static void *write_then_end(void *arg)
{
	struct place *p = arg;

	place_write(p->map, 7);
	pthread_testcancel();
	return NULL;
}

TEST(in_place_cancel, "a thread that waits in its fault is cancelled when the fault is over")
{
	struct test_thread thread;
	struct place p;
	void *result;

	place_open(&p, NULL, 64);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	test_thread_start(&thread, write_then_end, &p);
	test_wait_until(place_stat(&p).waits > 0);
	REQUIRE_EQ(pthread_cancel(thread.thread), 0);
	/* What wakes it lets it look again, and wait again. */
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	CHECK_EQ(mkw_resume(p.handle), 0);
	test_wait_until(place_stat(&p).waits > 1);
	CHECK_EQ(p.map[0], 0);
	CHECK_EQ(mkw_resume(p.handle), 0);
	REQUIRE_EQ(pthread_join(thread.thread, &result), 0);
	CHECK(result == PTHREAD_CANCELED);
	CHECK_EQ(p.map[0], 7);
	place_close(&p);
}

/* ---- The program's handlers -------------------------------------------------------------- */

static struct {
	volatile int sig, code;
	void *volatile address;
	sigjmp_buf jump;
} got;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	got.sig = sig;
	got.code = info->si_code;
	got.address = info->si_addr;
	siglongjmp(got.jump, 1);
}

static void handlers_install(void)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};

	REQUIRE_EQ(mkw_sigaction(SIGSEGV, &action, NULL), 0);
	REQUIRE_EQ(mkw_sigaction(SIGBUS, &action, NULL), 0);
}

/* Returns the signal that came, 0: none. */
static int try(void *at, bool write)
{
	got.sig = 0;
	if (sigsetjmp(got.jump, 1) == 0) {
		if (write)
			place_write(at, 1);
		else
			(void)*(volatile unsigned char *)at;
	}
	return got.sig;
}

TEST(in_place_handlers, "S1.1 the program's handlers get what no view in place takes, as ever")
{
	unsigned char *other;
	struct place p;

	handlers_install();
	place_open(&p, NULL, 64);
	other = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(other != MAP_FAILED);
	CHECK_EQ(try(p.map, true), 0);
	CHECK_EQ(try(other + 5, true), SIGSEGV);
	CHECK(got.address == other + 5 && got.code == SEGV_ACCERR);
	p.store.error = -ENOSPC;
	p.store.refuse_from = 3;
	CHECK_EQ(try(p.map + 3 * PAGE + 9, true), SIGBUS);
	CHECK(got.address == p.map + 3 * PAGE + 9 && got.code == BUS_ADRERR);
	p.store.refuse_from = -1;
	CHECK_EQ(try(p.map + 3 * PAGE + 9, true), 0);
	/* What the program has forbidden by itself. */
	CHECK_EQ(mkw_protect(p.map, PAGE, MKW_READ), 0);
	CHECK_EQ(try(p.map, true), SIGSEGV);
	CHECK_EQ(try(p.map, false), 0);
	CHECK_EQ(mkw_protect(p.map, PAGE, 0), 0);
	CHECK_EQ(try(p.map, false), SIGSEGV);
	REQUIRE_EQ(mprotect(p.map + 8 * PAGE, PAGE, PROT_NONE), 0);
	CHECK_EQ(try(p.map + 8 * PAGE, false), SIGSEGV);
	/* Every handler was left by a jump: nobody counts as being inside. */
	CHECK_EQ(mkw_protect(p.map, PAGE, MKW_READ | MKW_WRITE), 0);
	CHECK_EQ(place_child((int (*)(void *))(void *)getppid, NULL) & 127, 0);
	CHECK_EQ(try(p.map + 40 * PAGE, true), 0);
	munmap(other, PAGE);
	place_close(&p);
}

static mkw_fault_t answer_size(struct place_store *s, struct mkw_run *run)
{
	off_t size = lseek(s->fd, 0, SEEK_END);

	if ((off_t)(run->page * PAGE) >= size)
		return mkw_fault_from_errno(mkw_set_error(-ENXIO, "past the end of the file"));
	return 0;
}

TEST(in_place_past_end, "5.5 past the end of its file an access in place is the kernel's SIGBUS")
{
	struct place p;

	handlers_install();
	place_open(&p, NULL, 64);
	p.store.answer = answer_size;
	CHECK_EQ(try(p.map + 9 * PAGE, true), 0);
	REQUIRE_EQ(ftruncate(p.store.fd, 8 * PAGE), 0);
	CHECK_EQ(try(p.map + 8 * PAGE, true), SIGBUS);
	CHECK(got.address == p.map + 8 * PAGE);
	CHECK_EQ(p.store.broken, 0);
	/* A read is the kernel's to refuse; so is a write that was granted before. */
	CHECK_EQ(try(p.map + 8 * PAGE + 1, false), SIGBUS);
	CHECK(got.address == p.map + 8 * PAGE + 1);
	CHECK_EQ(p.store.broken, 1);
	CHECK_EQ(try(p.map + 9 * PAGE, true), SIGBUS);
	CHECK_EQ(p.store.broken, 2);
	CHECK_EQ(try(p.map + 7 * PAGE, true), 0);
	place_close(&p);
}

/* ---- Granted, and refused by the kernel all the same ------------------------------------- */

TEST(in_place_broken_for_ever, "a store that finds nothing wrong is not believed for ever")
{
	struct mkw_refusal refusal;
	struct place p;

	place_open(&p, NULL, 64);
	place_write(p.map + 9 * PAGE, 1);
	REQUIRE_EQ(ftruncate(p.store.fd, 8 * PAGE), 0);
	CHECK_EQ(mkw_guard(place_write_one, p.map + 9 * PAGE, &refusal), -EIO);
	CHECK(refusal.address == p.map + 9 * PAGE);
	CHECK(p.store.broken > 1 && p.store.broken < 100);
	REQUIRE_EQ(ftruncate(p.store.fd, 64 * PAGE), 0);
	CHECK_EQ(mkw_guard(place_write_one, p.map + 9 * PAGE, &refusal), 0);
	CHECK_EQ(p.map[9 * PAGE], 1);
	place_close(&p);
}

static mkw_fault_t answer_repair(struct place_store *s, struct mkw_run *run)
{
	CHECK(mkw_fault_context() != NULL);
	if ((run->flags & MKW_RUN_BROKEN) != 0)
		CHECK_EQ(ftruncate(s->fd, 64 * PAGE), 0);
	return 0;
}

TEST(in_place_broken, "what the kernel refuses the store may repair, and the write goes on")
{
	struct place p;

	place_open(&p, NULL, 64);
	p.store.answer = answer_repair;
	place_write(p.map + 9 * PAGE, 1);
	REQUIRE_EQ(ftruncate(p.store.fd, 8 * PAGE), 0);
	place_write(p.map + 9 * PAGE + 1, 2);
	CHECK_EQ(p.store.broken, 1);
	CHECK_EQ(p.map[9 * PAGE + 1], 2);
	CHECK_EQ(place_stat(&p).dirty_bytes, PAGE);
	place_close(&p);
}

/* A tmpfs of its own, of so many bytes; the current directory is there. */
static void small_tmpfs(const char *size)
{
	char options[64];

	if (unshare(CLONE_NEWNS) != 0)
		SKIP("no mount namespace: errno %d", errno);
	REQUIRE_EQ(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	snprintf(options, sizeof(options), "size=%s", size);
	REQUIRE_EQ(mount("none", "/tmp", "tmpfs", 0, options), 0);
	REQUIRE_EQ(chdir("/tmp"), 0);
}

static mkw_fault_t answer_statvfs(struct place_store *s, struct mkw_run *run)
{
	struct statvfs fs;

	if ((run->flags & MKW_RUN_BROKEN) == 0)
		return 0;
	CHECK_EQ(fstatvfs(s->fd, &fs), 0);
	if (fs.f_bavail > 0)
		return 0;
	return mkw_fault_from_errno(mkw_set_error(-ENOSPC, "the file system is full"));
}

static unsigned stops;

static bool remove_ballast(const struct mkw_refusal *refusal, void *context)
{
	CHECK(context != NULL);
	CHECK_EQ(refusal->error, -ENOSPC);
	CHECK(mkw_fault_context() == NULL);
	stops++;
	return unlink("ballast") == 0;
}

TEST(in_place_full, "S1.1 on a full file system a write goes on when there is space, or is refused")
{
	const struct mkw_fault_hooks hooks = {.refused = remove_ballast};
	struct mkw_refusal refusal;
	size_t n = 0;
	struct place p;
	int fd, ballast;

	small_tmpfs("2m");
	fd = open("data", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ballast = open("ballast", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	REQUIRE(fd >= 0 && ballast >= 0);
	REQUIRE_EQ(posix_fallocate(ballast, 0, 1 << 20), 0);
	close(ballast);
	REQUIRE_EQ(ftruncate(fd, 1024 * PAGE), 0);
	place_open_file(&p, NULL, fd, 1024 * PAGE);
	p.store.answer = answer_statvfs;
	/* Nobody makes room yet. */
	while (n < 1024 && mkw_guard(place_write_one, p.map + n * PAGE, &refusal) == 0)
		n++;
	CHECK(n >= 200 && n < 300);
	CHECK_EQ(refusal.error, -ENOSPC);
	CHECK(refusal.address == p.map + n * PAGE);
	/* Now somebody does. */
	mkw_set_fault_hooks(&hooks);
	for (size_t i = n; i < n + 100; i++)
		place_write(p.map + i * PAGE, 1);
	CHECK_EQ(stops, 1);
	mkw_set_fault_hooks(NULL);
	for (size_t i = 0; i < n + 100; i++)
		CHECK_EQ(p.map[i * PAGE], 1);
	REQUIRE_EQ(chdir("/"), 0);
	place_close(&p);
}

/* ---- Hooks ------------------------------------------------------------------------------- */

static unsigned char *unknown_place;
static unsigned unknowns;

static bool unknown_mapped(const void *address, bool write)
{
	CHECK(address == unknown_place + 3);
	CHECK(write);
	unknowns++;
	return mprotect(unknown_place, PAGE, PROT_READ | PROT_WRITE) == 0;
}

TEST(in_place_unknown, "an access to no view is told of; one that fails in a view is not")
{
	const struct mkw_fault_hooks hooks = {.unknown = unknown_mapped};
	struct place p;

	handlers_install();
	place_open(&p, NULL, 64);
	mkw_set_fault_hooks(&hooks);
	unknown_place = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(unknown_place != MAP_FAILED);
	place_write(unknown_place + 3, 4);
	CHECK_EQ(unknown_place[3], 4);
	CHECK_EQ(unknowns, 1);
	REQUIRE_EQ(ftruncate(p.store.fd, 0), 0);
	CHECK_EQ(try(p.map, false), SIGBUS);
	CHECK_EQ(unknowns, 1);
	munmap(unknown_place, PAGE);
	place_close(&p);
}

static mkw_fault_t answer_context(struct place_store *s, struct mkw_run *run)
{
	(void)run;
	s->arg = (void *)(uintptr_t)mkw_fault_context();
	return 0;
}

TEST(in_place_context, "a store knows whether it is asked for an access or for a call")
{
	struct place p;

	place_open(&p, NULL, 64);
	p.store.answer = answer_context;
	place_write(p.map, 1);
	CHECK(p.store.arg != NULL);
	CHECK_EQ(mkw_grant(p.map + 9 * PAGE, 1), 0);
	CHECK(p.store.arg == NULL);
	CHECK(mkw_fault_context() == NULL);
	place_close(&p);
}

static unsigned memory_asked;

static mkw_fault_t answer_no_memory(struct place_store *s, struct mkw_run *run)
{
	(void)s;
	(void)run;
	memory_asked++;
	return mkw_fault_from_errno(-ENOMEM);
}

TEST(in_place_no_memory, "S4.7 a store without memory is asked again, and then it is ENOMEM")
{
	struct mkw_refusal refusal;
	struct place p;

	place_open(&p, NULL, 64);
	p.store.answer = answer_no_memory;
	CHECK_EQ(mkw_guard(place_write_one, p.map, &refusal), -ENOMEM);
	CHECK(memory_asked > 8);
	p.store.answer = NULL;
	CHECK_EQ(mkw_guard(place_write_one, p.map, &refusal), 0);
	place_close(&p);
}

/* ---- The stack --------------------------------------------------------------------------- */

#define STACK_BYTES   (64u << 10)
#define STACK_PATTERN 0xa5

/* Beyond the kernel's frame: with the largest of them, of AVX-512, and with what a store and the
 * program's handler take, it is to fit 8 KiB. */
#define STACK_OURS 3072u

struct stack {
	struct place *place;
	unsigned char *memory;
	void (*fn)(struct place *p);
};

static void *run_on_stack(void *arg)
{
	struct stack *s = arg;
	stack_t stack = {.ss_sp = s->memory, .ss_size = STACK_BYTES};
	stack_t none = {.ss_flags = SS_DISABLE};

	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	s->fn(s->place);
	CHECK_EQ(sigaltstack(&none, NULL), 0);
	return NULL;
}

/* How much of an alternate stack the faults of fn take. */
static size_t stack_used(struct place *p, void (*fn)(struct place *p))
{
	struct stack s = {.place = p, .fn = fn, .memory = malloc(STACK_BYTES)};
	struct test_thread thread;
	size_t untouched = 0;

	REQUIRE(s.memory != NULL);
	memset(s.memory, STACK_PATTERN, STACK_BYTES);
	test_thread_start(&thread, run_on_stack, &s);
	test_thread_join(&thread);
	while (untouched < STACK_BYTES && s.memory[untouched] == STACK_PATTERN)
		untouched++;
	free(s.memory);
	return STACK_BYTES - untouched;
}

static void nothing_but_a_signal(struct place *p)
{
	(void)p;
	raise(SIGUSR1);
}

static void write_some(struct place *p)
{
	for (unsigned i = 0; i < 400; i++)
		place_write(p->map + i * 3 % 512 * PAGE, 1);
}

static void write_refused(struct place *p)
{
	struct mkw_refusal refusal;

	p->store.error = -ENOSPC;
	p->store.refuse_from = 600;
	CHECK_EQ(mkw_guard(place_write_one, p->map + 700 * PAGE, &refusal), -ENOSPC);
	p->store.refuse_from = -1;
}

static void on_usr1(int sig)
{
	(void)sig;
}

TEST(in_place_stack, "a fault in place leaves room on a stack of 8 KiB for signal handlers")
{
	struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
	size_t kernels, most, used;
	struct place p;

	test_not_under_tsan();
	place_not_under_asan();
	REQUIRE_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	place_open_limit(&p, 16, 1024);
	kernels = stack_used(&p, nothing_but_a_signal);
	most = stack_used(&p, write_some);
	used = stack_used(&p, write_refused);
	most = used > most ? used : most;
	test_note("the kernel's %zu bytes, at most %zu", kernels, most);
	CHECK(most - kernels < STACK_OURS);
	place_close(&p);
}
