/* SPDX-License-Identifier: MIT */
/*
 * maps_cases CASE: what programs do with mappings of files, in the current directory. What a case
 * says on stdout, and how it ends, is the same natively and under mkwrite run (maps.py).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096u
#define RW    (PROT_READ | PROT_WRITE)
#define STACK 8192u

static const char *self;

#define NEED(condition)                                                             \
	do {                                                                        \
		if (!(condition)) {                                                 \
			printf("%d: %s (errno %d)\n", __LINE__, #condition, errno); \
			fflush(stdout);                                             \
			_exit(3);                                                   \
		}                                                                   \
	} while (0)

static int file_make(const char *name, unsigned pages)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	NEED(fd >= 0 && ftruncate(fd, (off_t)pages * PAGE) == 0);
	return fd;
}

static char *map(int fd, unsigned pages)
{
	char *p = mmap(NULL, (size_t)pages * PAGE, RW, MAP_SHARED, fd, 0);

	NEED(p != MAP_FAILED);
	return p;
}

static void say(const char *what, bool good)
{
	printf("%s: %s\n", what, good ? "0" : strerrorname_np(errno));
	errno = 0;
}

static int file_byte(int fd, off_t at)
{
	unsigned char c = 0;

	return pread(fd, &c, 1, at) == 1 ? c : -1;
}

/* ---- Faults ------------------------------------------------------------------------------- */

static _Thread_local sigjmp_buf landing;
static _Thread_local siginfo_t landed;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	landed = *info;
	siglongjmp(landing, 1);
}

static void faults_take(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	static char stack[STACK];

	NEED(sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = STACK}, NULL) == 0);
	NEED(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
}

/* What an access comes to, in a letter: '.' or the signal's. */
static char try(volatile char *p, bool write)
{
	if (sigsetjmp(landing, 1))
		return landed.si_addr != p	       ? '?'
		       : landed.si_signo == SIGBUS     ? 'b'
		       : landed.si_code == SEGV_MAPERR ? 'm'
						       : 'a';
	if (write)
		*p = *p;
	else
		(void)*p;
	return '.';
}

static void show(const char *what, char *p, unsigned pages)
{
	printf("%s: ", what);
	for (unsigned i = 0; i < pages; i++)
		printf("%c%c ", try(p + i * PAGE, false), try(p + i * PAGE, true));
	printf("\n");
}

/* ---- Cases -------------------------------------------------------------------------------- */

static void case_wrong(void)
{
	int fd = file_make("file", 8), reads = open("file", O_RDONLY),
	    writes = open("file", O_WRONLY);
	char *p = map(fd, 8);

	say("mmap of 0", mmap(NULL, 0, RW, MAP_SHARED, fd, 0) != MAP_FAILED);
	say("mmap at 1", mmap(NULL, PAGE, RW, MAP_SHARED, fd, 1) != MAP_FAILED);
	say("mmap of all", mmap(NULL, SIZE_MAX - PAGE, RW, MAP_SHARED, fd, 0) != MAP_FAILED);
	say("mmap far off", mmap(NULL, PAGE, RW, MAP_SHARED, fd, INT64_MAX & -4096) != MAP_FAILED);
	say("mmap fixed at 1", mmap(p + 1, PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
	say("mmap without replacing",
	    mmap(p, PAGE, RW, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) != MAP_FAILED);
	say("mmap with unknown flags",
	    mmap(p, PAGE, RW, MAP_SHARED_VALIDATE | MAP_FIXED | 0x1000000, fd, 0) != MAP_FAILED);
	say("mmap of no descriptor", mmap(NULL, PAGE, RW, MAP_SHARED, 99, 0) != MAP_FAILED);
	say("mmap for writing of one that reads",
	    mmap(NULL, PAGE, RW, MAP_SHARED, reads, 0) != MAP_FAILED);
	say("mmap of one that writes", mmap(NULL, PAGE, RW, MAP_SHARED, writes, 0) != MAP_FAILED);
	say("munmap of 0", munmap(p, 0) == 0);
	say("munmap at 1", munmap(p + 1, PAGE) == 0);
	say("munmap of all", munmap(p, SIZE_MAX) == 0);
	say("mprotect at 1", mprotect(p + 1, PAGE, RW) == 0);
	say("mprotect with unknown bits", mprotect(p, PAGE, 0x40) == 0);
	say("mprotect that grows down", mprotect(p, PAGE, RW | PROT_GROWSDOWN) == 0);
	say("mprotect of 0", mprotect(p, 0, RW) == 0);
	say("mremap at 1", mremap(p + 1, PAGE, PAGE, MREMAP_MAYMOVE) != MAP_FAILED);
	say("mremap to 0", mremap(p, PAGE, 0, MREMAP_MAYMOVE) != MAP_FAILED);
	say("mremap with unknown flags", mremap(p, PAGE, PAGE, 64) != MAP_FAILED);
	say("mremap fixed, not moving", mremap(p, PAGE, PAGE, MREMAP_FIXED, p) != MAP_FAILED);
	say("mremap onto itself",
	    mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, p + PAGE) != MAP_FAILED);
	say("mremap past its end", mremap(p, 9 * PAGE, 20 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED);
	say("madvise at 1", madvise(p + 1, PAGE, MADV_REMOVE) == 0);
	say("madvise unknown", madvise(p, PAGE, 12345) == 0);
	say("msync at 1", msync(p + 1, PAGE, MS_SYNC) == 0);
	say("msync both", msync(p, PAGE, MS_SYNC | MS_ASYNC) == 0);
	say("remap_file_pages with a protection", remap_file_pages(p, PAGE, 1, 0, 0) == 0);
	memset(p, 7, 8 * PAGE);
	printf("%d\n", file_byte(fd, 7 * PAGE));
}

static void case_layout(void)
{
	int fd = file_make("file", 32);
	char *p = map(fd, 32);

	faults_take();
	for (unsigned i = 0; i < 32; i++)
		p[i * PAGE] = (char)i;
	NEED(mprotect(p + 2 * PAGE, 3 * PAGE, PROT_READ) == 0);
	NEED(mprotect(p + 8 * PAGE, 3 * PAGE, PROT_NONE) == 0);
	NEED(munmap(p + 14 * PAGE, 2 * PAGE) == 0);
	show("protected", p, 32);
	say("mprotect over a hole", mprotect(p + 10 * PAGE, 10 * PAGE, PROT_READ) == 0);
	show("up to the hole", p, 32);
	say("mprotect for code", mprotect(p + 20 * PAGE, 2 * PAGE, RW | PROT_EXEC) == 0);
	say("mremap, two protections", mremap(p, 4 * PAGE, 6 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED);
	say("mremap, shorter", mremap(p, 10 * PAGE, 9 * PAGE, 0) == p);
	say("mremap, no room", mremap(p + 16 * PAGE, 4 * PAGE, 5 * PAGE, 0) != MAP_FAILED);
	show("the same", p, 32);
	say("remap_file_pages", remap_file_pages(p + 24 * PAGE, 2 * PAGE, 0, 3, 0) == 0);
	printf("%d %d %d %d\n", p[24 * PAGE], p[25 * PAGE], p[26 * PAGE], p[5 * PAGE]);
	p[24 * PAGE] = 77;
	printf("%d\n", file_byte(fd, 3 * PAGE));
	say("mmap over it",
	    mmap(p + 28 * PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED, fd, PAGE) == p + 28 * PAGE);
	p[28 * PAGE] = 55;
	printf("%d\n", file_byte(fd, PAGE));
	say("populate", madvise(p + 27 * PAGE, 4 * PAGE, 23) == 0);
	say("lock", mlock(p + 27 * PAGE, 2 * PAGE) == 0);
	say("remove", madvise(p + 30 * PAGE, PAGE, MADV_REMOVE) == 0);
	printf("%d %d\n", p[30 * PAGE], p[31 * PAGE]);
}

/* A lock of fcntl is the process's until it closes a descriptor of the file. */
static bool is_locked(void)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct flock any = {.l_type = F_WRLCK};
		int fd = open("file", O_RDWR);

		_exit(fd < 0 || fcntl(fd, F_GETLK, &any) != 0 ? 2 : any.l_type != F_UNLCK);
	}
	NEED(waitpid(child, &status, 0) == child && WEXITSTATUS(status) < 2);
	return WEXITSTATUS(status);
}

static void case_locks(void)
{
	int fd = file_make("file", 4), other = file_make("other", 4);
	struct flock lock = {.l_type = F_WRLCK};
	char *p, *q;

	NEED(fcntl(fd, F_SETLK, &lock) == 0);
	p = map(fd, 4);
	p[0] = 1;
	printf("mapped: %d\n", is_locked());
	NEED(munmap(p, 4 * PAGE) == 0);
	printf("unmapped: %d\n", is_locked());
	q = map(other, 4);
	printf("another: %d\n", is_locked());
	p = map(fd, 4);
	p[PAGE] = q[0] = 2;
	NEED(munmap(p, PAGE) == 0 && munmap(q, 4 * PAGE) == 0);
	printf("in part: %d\n", is_locked());
	NEED(munmap(p, 4 * PAGE) == 0);
	close(dup(other));
	printf("none: %d\n", is_locked());
	close(fd);
	printf("closed: %d\n", is_locked());
}

static void in_child(void (*fn)(int fd), int fd)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		fn(fd);
		_exit(0);
	}
	NEED(waitpid(child, &status, 0) == child && status == 0);
}

static void cut_it(int fd)
{
	NEED(ftruncate(fd, 2 * PAGE + 100) == 0);
}

static void grow_it(int fd)
{
	NEED(ftruncate(fd, 8 * PAGE) == 0);
}

static void case_end_of_file(void)
{
	int fd = file_make("file", 4);
	char *p = map(fd, 8);

	faults_take();
	show("past its end", p, 8);
	grow_it(fd);
	show("grown", p, 8);
	memset(p, 1, 8 * PAGE);
	in_child(cut_it, fd);
	show("cut by another", p, 8);
	printf("%d %d\n", p[2 * PAGE + 99], p[2 * PAGE + 100]);
	in_child(grow_it, fd);
	show("grown by another", p, 8);
	p[5 * PAGE] = 9;
	printf("%d %d\n", file_byte(fd, 5 * PAGE), file_byte(fd, 6 * PAGE));
	printf("read into: %zd\n", pread(fd, p + 4 * PAGE, PAGE, 5 * PAGE));
	cut_it(fd);
	say("read past", pread(fd, p + 4 * PAGE, PAGE, 0) >= 0);
}

static char *nested;
static volatile unsigned nulls;

static void on_null(int sig, siginfo_t *info, void *context)
{
	static unsigned page;

	(void)sig;
	(void)context;
	nested[page++ * PAGE] = 1; /* faults in here */
	nulls++;
	landed = *info;
	siglongjmp(landing, 1);
}

static void case_handlers(void)
{
	struct sigaction action = {.sa_sigaction = on_null, .sa_flags = SA_SIGINFO | SA_ONSTACK},
			 is;
	static char stack[STACK];
	int fd = file_make("file", 64);
	char *volatile null = NULL;

	nested = map(fd, 64);
	NEED(sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = STACK}, NULL) == 0);
	NEED(sigaction(SIGSEGV, &action, NULL) == 0);
	NEED(sigaction(SIGSEGV, NULL, &is) == 0);
	printf("%d %x\n", is.sa_sigaction == on_null, (unsigned)is.sa_flags & 0xff);
	for (unsigned i = 0; i < 40; i++)
		if (!sigsetjmp(landing, 1))
			*null = 1;
	printf("%u at %p code %d\n", nulls, landed.si_addr, landed.si_code);
	for (unsigned i = 0; i < 40; i++)
		NEED(file_byte(fd, i * PAGE) == 1);
}

/* ---- In handlers -------------------------------------------------------------------------- */

static char *busy;
static int busy_fd, busy_data;
static volatile unsigned busy_times;

static void on_timer(int sig)
{
	static char word[8] = "handler";
	unsigned page = busy_times % 64;
	int saved = errno, fd;
	char *p;

	(void)sig;
	NEED(pread(busy_data, busy + page * PAGE, 8, 0) == 8);
	NEED(memcmp(busy + page * PAGE, word, 8) == 0);
	p = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, busy_fd, 0);
	NEED(p != MAP_FAILED);
	p[PAGE] = 1;
	NEED(mprotect(p, PAGE, PROT_READ) == 0 && munmap(p, 4 * PAGE) == 0);
	fd = open("other", O_RDWR);
	NEED(fd >= 0 && dup2(fd, fd) == fd && fdatasync(fd) == 0 && close(fd) == 0);
	if (busy_times++ % 16 == 0) {
		int status;
		pid_t child = fork();

		if (child == 0) {
			busy[page * PAGE + 9] = 1;
			_exit(0);
		}
		NEED(waitpid(child, &status, 0) == child && status == 0);
	}
	errno = saved;
}

static void case_in_handlers(void)
{
	struct itimerval often = {{0, 500}, {0, 500}};
	struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
	int other = file_make("other", 64);

	busy_fd = file_make("file", 64);
	busy_data = file_make("data", 1);
	NEED(pwrite(busy_data, "handler", 8, 0) == 8);
	busy = map(busy_fd, 64);
	NEED(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
	while (busy_times < 200) {
		char *p = map(other, 64);
		void *memory = malloc(100000 + busy_times);

		for (unsigned i = 0; i < 64; i += 8)
			NEED(pread(busy_data, p + i * PAGE, 8, 0) == 8);
		free(memory);
		NEED(madvise(p, PAGE, MADV_REMOVE) == 0 && fsync(other) == 0);
		NEED(munmap(p, 64 * PAGE) == 0);
	}
	often = (struct itimerval){0};
	NEED(setitimer(ITIMER_REAL, &often, NULL) == 0);
	printf("ended\n");
}

/* ---- Threads ------------------------------------------------------------------------------ */

static volatile bool over;

static void *allocate_on(void *arg)
{
	int fd = *(int *)arg;

	while (!over) {
		fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, PAGE);
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE);
	}
	return NULL;
}

static int never[2];

static void *read_on(void *arg)
{
	char *p = arg;

	return (void *)(intptr_t)read(never[0], p, PAGE);
}

static void *sync_on(void *arg)
{
	int fd = *(int *)arg;

	while (!over)
		fdatasync(fd);
	return NULL;
}

static void case_cancel(void)
{
	int fd = file_make("file", 64);
	char *p = map(fd, 64);
	pthread_t thread;
	void *result;

	NEED(pipe(never) == 0);
	for (unsigned i = 0; i < 60; i++) {
		void *(*const fns[])(void *) = {allocate_on, read_on, sync_on};
		void *const args[] = {&fd, p + 8 * PAGE, &fd};

		p[(i % 32 + 16) * PAGE] = 1;
		NEED(pthread_create(&thread, NULL, fns[i % 3], args[i % 3]) == 0);
		if (i % 2)
			sched_yield();
		NEED(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
		NEED(result == PTHREAD_CANCELED);
		NEED(munmap(p, 64 * PAGE) == 0);
		p = map(fd, 64);
	}
	p[0] = 1;
	printf("cancelled\n");
}

static void *write_on(void *arg)
{
	unsigned number = (unsigned)(intptr_t)arg;
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "file.%u", number);
	fd = file_make(name, 64);
	for (unsigned i = 0; !over; i++) {
		char *p = map(fd, 64);

		for (unsigned k = 0; k < 64; k++)
			p[k * PAGE] = (char)(i + k);
		for (unsigned k = 0; k < 64; k++)
			NEED(file_byte(fd, k * PAGE) == (unsigned char)(i + k));
		NEED(munmap(p, 64 * PAGE) == 0);
	}
	return NULL;
}

static void case_fork_under_fire(void)
{
	int fd = file_make("file", 64), status;
	char *p = map(fd, 64);
	pthread_t threads[3];

	for (intptr_t i = 0; i < 3; i++)
		NEED(pthread_create(&threads[i], NULL, write_on, (void *)i) == 0);
	for (unsigned i = 0; i < 60; i++) {
		pid_t child = fork();

		if (child == 0) {
			char *q = map(fd, 64);

			p[i * PAGE] = q[i * PAGE + 1] = (char)(i + 1);
			_exit(munmap(q, 64 * PAGE));
		}
		NEED(child > 0 && waitpid(child, &status, 0) == child && status == 0);
		NEED(p[i * PAGE] == (char)(i + 1) && file_byte(fd, i * PAGE + 1) == (int)i + 1);
	}
	over = true;
	for (unsigned i = 0; i < 3; i++)
		NEED(pthread_join(threads[i], NULL) == 0);
	printf("forked\n");
}

/* Under fire, too: it is the program's own fault, and is to be told at once. */
static void crash(char *volatile where)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		pthread_t thread;

		signal(SIGSEGV, SIG_DFL);
		NEED(pthread_create(&thread, NULL, write_on, (void *)7) == 0);
		alarm(20);
		while (open("file.7", O_RDONLY) < 0)
			sched_yield();
		*where = 1;
		_exit(0);
	}
	NEED(waitpid(child, &status, 0) == child);
	printf("wait status %#x\n", status & 0x7f);
	unlink("file.7");
}

static void case_crash(void)
{
	int fd = file_make("file", 16);
	char *p = map(fd, 16);

	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	NEED(mprotect(p + 4 * PAGE, PAGE, PROT_READ) == 0);
	NEED(mprotect(p + 5 * PAGE, PAGE, PROT_NONE) == 0);
	crash(NULL);
	crash(p + 4 * PAGE);
	crash(p + 5 * PAGE);
	crash((char *)(uintptr_t)1 - 1 - PAGE);
}

/* ---- Other programs ----------------------------------------------------------------------- */

static void case_child(void)
{
	int fd = open("file", O_RDWR);
	char *p = map(fd, 64);

	p[3 * PAGE]++;
	for (unsigned i = 8; i < 16; i++)
		p[i * PAGE] = (char)i;
	printf("a child\n");
}

static void case_spawn(void)
{
	int fd = file_make("file", 64), status;
	char *p = map(fd, 64), command[4200], *const args[] = {(char *)self, "child", NULL};
	posix_spawn_file_actions_t actions;
	char line[64];
	FILE *pipe;
	pid_t child;

	p[0] = 1;
	fflush(stdout);
	child = vfork();
	if (child == 0) {
		dup2(1, 200);
		close(fd);
		execv(self, args);
		_exit(9);
	}
	NEED(waitpid(child, &status, 0) == child && status == 0);
	NEED(posix_spawn_file_actions_init(&actions) == 0);
	for (int i = 3; i < 60; i++)
		NEED(posix_spawn_file_actions_adddup2(&actions, 1, i) == 0);
	NEED(posix_spawn(&child, self, &actions, NULL, args, environ) == 0);
	NEED(waitpid(child, &status, 0) == child && status == 0);
	snprintf(command, sizeof(command), "%s child", self);
	NEED(system(command) == 0);
	pipe = popen(command, "r");
	NEED(pipe && fgets(line, sizeof(line), pipe) && pclose(pipe) == 0);
	printf("%s%d %d\n", line, p[3 * PAGE], p[8 * PAGE]);
	for (unsigned i = 0; i < 64; i++)
		p[i * PAGE] = 5;
	printf("%d\n", file_byte(fd, 63 * PAGE));
}

/* ---- Descriptors -------------------------------------------------------------------------- */

static void fill(const char *what, char *p, char value)
{
	int fd;

	for (unsigned i = 0; i < 16; i++)
		p[i * PAGE] = value;
	fd = open("file", O_RDONLY);
	printf("%s: %d\n", what, file_byte(fd, 15 * PAGE));
	close(fd);
}

static void again(const char *what, char *p)
{
	static char value;

	NEED(madvise(p, 16 * PAGE, MADV_REMOVE) == 0);
	fill(what, p, ++value);
}

static void case_descriptors(void)
{
	int fd = file_make("file", 16);
	char *p = map(fd, 16);
	struct rlimit few = {64, 64};

	close(fd);
	again("closed", p);
	for (int i = 3; i < 1100; i++)
		close(i);
	again("all closed", p);
	closefrom(3);
	again("closed from 3", p);
	NEED(close_range(3, ~0u, 0) == 0 && close_range(3, ~0u, CLOSE_RANGE_UNSHARE) == 0);
	again("range closed", p);
	for (int i = 3; i < 1100; i++)
		dup2(1, i);
	for (int i = 3; i < 1100; i++)
		syscall(SYS_close, i);
	again("others in their place", p);
	NEED(setrlimit(RLIMIT_NOFILE, &few) == 0);
	again("few", p);
	fd = open("file", O_RDWR);
	while (dup(1) >= 0)
		;
	munmap(p, 16 * PAGE);
	p = map(fd, 16);
	for (unsigned i = 0; i < 16; i++)
		p[i * PAGE] = 99;
	printf("none left: %d\n", file_byte(fd, 15 * PAGE));
}

static void case_names(void)
{
	int fd = file_make("file", 16), sealed, appends;
	char *p = map(fd, 16);

	NEED(rename("file", "renamed") == 0);
	memset(p, 1, 4 * PAGE);
	NEED(unlink("renamed") == 0);
	memset(p + 4 * PAGE, 2, 4 * PAGE);
	close(file_make("file", 16)); /* another */
	memset(p + 8 * PAGE, 3, 8 * PAGE);
	printf("%d %d %d\n", file_byte(fd, 0), file_byte(fd, 5 * PAGE), file_byte(fd, 9 * PAGE));
	munmap(p, 16 * PAGE);
	appends = open("file", O_RDWR | O_APPEND);
	p = map(appends, 16);
	p[PAGE] = 4;
	printf("%d\n", file_byte(appends, PAGE));
	sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
	NEED(ftruncate(sealed, PAGE) == 0 && fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE) == 0);
	say("sealed", mmap(NULL, PAGE, RW, MAP_SHARED, sealed, 0) != MAP_FAILED);
}

/* Root that becomes somebody else keeps what it has open. */
static void case_dropped(void)
{
	int fd = file_make("file", 16);
	char *p;

	if (geteuid() == 0)
		NEED(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	p = map(fd, 16);
	memset(p, 6, 16 * PAGE);
	printf("%d\n", file_byte(fd, 15 * PAGE));
}

/* ---- The end ------------------------------------------------------------------------------ */

static char *last;

static void at_exit(void)
{
	last[0] = 1;
}

__attribute__((destructor)) static void at_end(void)
{
	if (last)
		last[PAGE] = 2;
}

static void *end_here(void *arg)
{
	last[2 * PAGE] = 3;
	return arg;
}

static void case_exit(void)
{
	int fd = file_make("file", 16), status;
	pthread_t thread;
	pid_t child;

	last = map(fd, 16);
	child = fork();
	if (child == 0) {
		atexit(at_exit);
		NEED(pthread_create(&thread, NULL, end_here, NULL) == 0);
		pthread_detach(thread);
		pthread_exit(NULL);
	}
	NEED(waitpid(child, &status, 0) == child && status == 0);
	printf("%d %d %d\n", file_byte(fd, 0), file_byte(fd, PAGE), file_byte(fd, 2 * PAGE));
	last = NULL;
}

/* ---- Many mappings ------------------------------------------------------------------------ */

static unsigned lines_of(const char *name)
{
	FILE *file = fopen(name, "r");
	unsigned lines = 0;

	NEED(file);
	for (int c = getc(file); c != EOF; c = getc(file))
		lines += c == '\n';
	fclose(file);
	return lines;
}

/* More stretches of granted pages than a process may have mappings. */
static void case_mappings(void)
{
	const unsigned count = 70001, step = 30011; /* in another order than that of the file */
	int fd = file_make("file", 2 * count);
	char *p = map(fd, 2 * count);
	unsigned max = 0, sum = 0;
	FILE *limit = fopen("/proc/sys/vm/max_map_count", "r");

	NEED(limit && fscanf(limit, "%u", &max) == 1);
	fclose(limit);
	for (unsigned i = 0, page = 0; i < count; i++, page = (page + step) % count) {
		p[(size_t)page * 2 * PAGE] = 1;
		if (i % 10000 == 9999) {
			NEED(lines_of("/proc/self/maps") < max);
			NEED(munmap(mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
				    PAGE) == 0);
		}
	}
	for (unsigned i = 0; i < count; i++)
		sum += (unsigned)p[(size_t)i * 2 * PAGE];
	printf("%u\n", sum);
}

/* ---- On a full disk ----------------------------------------------------------------------- */

/* A handler leaves the wait, and makes room. */
static void on_alarm(int sig)
{
	(void)sig;
	siglongjmp(landing, 1);
}

static void case_full_jump(void)
{
	int fd = file_make("file", 64);
	char *p = map(fd, 64);
	volatile unsigned jumps = 0;
	struct itimerval soon = {{0, 0}, {0, 300000}};

	signal(SIGALRM, on_alarm);
	if (sigsetjmp(landing, 1) != 0) {
		jumps++;
		NEED(unlink("filler") == 0);
	} else {
		NEED(setitimer(ITIMER_REAL, &soon, NULL) == 0);
	}
	for (unsigned i = 0; i < 64; i++)
		p[i * PAGE] = 1;
	printf("%u %d\n", jumps, file_byte(fd, 63 * PAGE));
}

static char *full;
static _Atomic pid_t full_tid;

/* Until the thread that fills it sleeps in a futex: it waits for space. */
static void full_await(void)
{
	char path[64], text[32];
	int number = 0;

	while (number != SYS_futex) {
		int fd;

		sched_yield();
		snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)full_tid);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		memset(text, 0, sizeof(text));
		if (read(fd, text, sizeof(text) - 1) > 0)
			number = atoi(text);
		close(fd);
	}
}

static void *write_full(void *arg)
{
	full_tid = (pid_t)syscall(SYS_gettid);
	for (unsigned i = 0; i < 64; i++)
		full[i * PAGE] = 1;
	return arg;
}

/* While a thread waits others go on: they fork, map, unmap. */
static void case_full_others(void)
{
	int fd = file_make("file", 64), other = file_make("other", 4), status;
	pthread_t thread;

	full = map(fd, 64);
	NEED(pthread_create(&thread, NULL, write_full, NULL) == 0);
	full_await();
	for (unsigned i = 0; i < 20; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(0);
		NEED(waitpid(child, &status, 0) == child && status == 0);
		NEED(munmap(map(other, 4), 4 * PAGE) == 0);
	}
	NEED(unlink("filler") == 0 && pthread_join(thread, NULL) == 0);
	printf("%d\n", file_byte(fd, 63 * PAGE));
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{"wrong", case_wrong},
	{"layout", case_layout},
	{"locks", case_locks},
	{"end_of_file", case_end_of_file},
	{"handlers", case_handlers},
	{"in_handlers", case_in_handlers},
	{"cancel", case_cancel},
	{"fork_under_fire", case_fork_under_fire},
	{"crash", case_crash},
	{"spawn", case_spawn},
	{"descriptors", case_descriptors},
	{"names", case_names},
	{"dropped", case_dropped},
	{"exit", case_exit},
	{"child", case_child},
	{"mappings", case_mappings},
	{"full_jump", case_full_jump},
	{"full_others", case_full_others},
};

int main(int argc, char **argv)
{
	static char path[4096];

	setvbuf(stdout, NULL, _IOLBF, 0);
	self = realpath("/proc/self/exe", path);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (argc == 2 && strcmp(argv[1], cases[i].name) == 0) {
			cases[i].run();
			return 0;
		}
	}
	return 2;
}
