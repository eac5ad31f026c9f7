/* SPDX-License-Identifier: MIT */
/*
 * test.c - runs tests: one child process each, a watchdog, TAP.
 *
 * A test's process: forked -> prepared (environment of its backend) -> running -> ended, by return,
 * test_stop(), test_skip(), a signal, or the watchdog. What it says of itself is in struct verdict,
 * which parent and child share; what it prints goes to a memfd, shown on failure only.
 */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

enum { EXIT_FAILED = 1, EXIT_NONE_RAN = 2, EXIT_SKIPPED = 77 };
enum { SETTLE_MS = 2000 };

struct verdict {
	atomic_uint failures;
	atomic_bool leaks_allowed;
	char skip_reason[256];
};

static struct test_case *tests, **tests_tail = &tests;
static struct verdict *verdict;
static enum test_backend backend;

static const char *const backend_suffix[TEST_BACKENDS] = {"/uffd", "/inline", "/uffd-old"};

/* ---- Sanitizers --------------------------------------------------------------------------- */

/* SIGBUS belongs to the tests: a refusal nobody catches must kill the process as it does without
 * a sanitizer. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "handle_sigbus=0:exitcode=99";
}

/* One report ends the test: its process leaves by _exit, which does not ask TSan for a verdict. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "handle_sigbus=0:halt_on_error=1:exitcode=66:second_deadlock_stack=1";
}

static bool leaked_memory(void)
{
#ifdef __SANITIZE_ADDRESS__
	return __lsan_do_recoverable_leak_check() != 0;
#else
	return false;
#endif
}

static int timeout_ms(void)
{
	const char *set = getenv("MKW_TEST_TIMEOUT_S");

	if (set && atoi(set) > 0)
		return atoi(set) * 1000;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return 240 * 1000;
#else
	return 60 * 1000;
#endif
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- Assertions --------------------------------------------------------------------------- */

void test_note(const char *format, ...)
{
	char line[512];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	if (length < 0)
		return;
	if ((size_t)length > sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length] = '\n';
	/* One write, so that the lines of two threads do not mix. */
	if (write(STDERR_FILENO, line, (size_t)length + 1) < 0)
		return;
}

static bool failed(void)
{
	atomic_fetch_add(&verdict->failures, 1);
	return false;
}

bool test_check(bool ok, const char *file, int line, const char *expr)
{
	if (ok)
		return true;
	test_note("%s:%d: failed: %s", file, line, expr);
	return failed();
}

bool test_check_eq(long long a, long long b, const char *file, int line, const char *expr)
{
	if (a == b)
		return true;
	test_note("%s:%d: failed: %s: %lld (0x%llx), not %lld (0x%llx)", file, line, expr, a,
		  (unsigned long long)a, b, (unsigned long long)b);
	return failed();
}

bool test_check_mem(const void *a, const void *b, size_t size, const char *file, int line,
		    const char *expr)
{
	const unsigned char *x = a, *y = b;

	for (size_t i = 0; i < size; i++) {
		if (x[i] == y[i])
			continue;
		test_note("%s:%d: failed: %s: byte %zu of %zu is 0x%02x, not 0x%02x", file, line,
			  expr, i, size, x[i], y[i]);
		return failed();
	}
	return true;
}

bool test_check_str(const char *a, const char *b, const char *file, int line, const char *expr)
{
	if (a == b || (a && b && !strcmp(a, b)))
		return true;
	test_note("%s:%d: failed: %s: \"%s\", not \"%s\"", file, line, expr, a ? a : "(null)",
		  b ? b : "(null)");
	return failed();
}

_Noreturn void test_stop(void)
{
	_exit(EXIT_FAILED);
}

_Noreturn void test_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(verdict->skip_reason, sizeof(verdict->skip_reason), format, args);
	va_end(args);
	_exit(EXIT_SKIPPED);
}

/* ---- What a test may ask ------------------------------------------------------------------ */

enum test_backend test_backend(void)
{
	return backend;
}

void test_not_under_tsan(void)
{
#if defined(__SANITIZE_THREAD__)
	test_skip("TSan does not see what faults order");
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
	test_skip("TSan does not see what faults order");
#endif
#endif
}

unsigned test_rounds(unsigned normal)
{
	const char *heavy = getenv("MKW_TEST_HEAVY");

	return heavy && *heavy && strcmp(heavy, "0") != 0 ? 20 * normal : normal;
}

void test_allow_leaks(void)
{
	atomic_store(&verdict->leaks_allowed, true);
}

/* ---- Waiting ------------------------------------------------------------------------------ */

void test_yield(void)
{
	sched_yield();
}

void test_event_init(struct test_event *event)
{
	pthread_mutex_init(&event->mutex, NULL);
	pthread_cond_init(&event->cond, NULL);
	event->count = 0;
}

void test_event_set(struct test_event *event)
{
	pthread_mutex_lock(&event->mutex);
	event->count++;
	pthread_cond_broadcast(&event->cond);
	pthread_mutex_unlock(&event->mutex);
}

unsigned test_event_count(struct test_event *event)
{
	unsigned count;

	pthread_mutex_lock(&event->mutex);
	count = event->count;
	pthread_mutex_unlock(&event->mutex);
	return count;
}

void test_event_reset(struct test_event *event)
{
	pthread_mutex_lock(&event->mutex);
	event->count = 0;
	pthread_mutex_unlock(&event->mutex);
}

void test_event_wait_at(struct test_event *event, unsigned count, const char *file, int line)
{
	struct timespec deadline;
	unsigned seen;
	int error = 0;

	/* Before the watchdog, so that the place that waited is known. */
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += timeout_ms() / 3000;
	pthread_mutex_lock(&event->mutex);
	while (event->count < count && !error)
		error = pthread_cond_clockwait(&event->cond, &event->mutex, CLOCK_MONOTONIC,
					       &deadline);
	seen = event->count;
	pthread_mutex_unlock(&event->mutex);
	if (seen >= count)
		return;
	test_note("%s:%d: failed: waited in vain: happened %u times, not %u", file, line, seen,
		  count);
	failed();
	test_stop();
}

static void *thread_main(void *arg)
{
	struct test_thread *thread = arg;
	void *result;

	atomic_store(&thread->tid, (pid_t)syscall(SYS_gettid));
	result = thread->fn(thread->arg);
	atomic_store(&thread->ended, true);
	return result;
}

void test_thread_start(struct test_thread *thread, void *(*fn)(void *arg), void *arg)
{
	atomic_init(&thread->tid, 0);
	atomic_init(&thread->ended, false);
	thread->fn = fn;
	thread->arg = arg;
	REQUIRE_EQ(pthread_create(&thread->thread, NULL, thread_main, thread), 0);
	test_wait_until(atomic_load(&thread->tid));
}

void *test_thread_join(struct test_thread *thread)
{
	void *result = NULL;

	REQUIRE_EQ(pthread_join(thread->thread, &result), 0);
	return result;
}

/* The text of a file of /proc, without the last newline; "" when it cannot be had. */
static void read_proc(char *text, size_t size, const char *format, ...)
{
	char path[64];
	ssize_t length;
	va_list args;
	int fd;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	text[0] = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	length = read(fd, text, size - 1);
	close(fd);
	text[length > 0 ? length : 0] = 0;
	if (length > 0 && text[length - 1] == '\n')
		text[length - 1] = 0;
}

/* State letter of a thread of this process; 0: it is gone. */
static char thread_state(pid_t tid)
{
	char stat[512];
	const char *end;

	read_proc(stat, sizeof(stat), "/proc/self/task/%d/stat", tid);
	end = strrchr(stat, ')'); /* of the name, which may hold anything */
	return end && end[1] == ' ' ? end[2] : 0;
}

void test_wait_thread_blocked(pid_t tid)
{
	for (;;) {
		char state = thread_state(tid);

		if (state == 'S' || state == 'D')
			return;
		if (!CHECK(state && "the thread blocks, does not end"))
			test_stop();
		sched_yield();
	}
}

void test_wait_thread_faulting(pid_t tid)
{
	char wchan[64];

	for (;;) {
		read_proc(wchan, sizeof(wchan), "/proc/self/task/%d/wchan", tid);
		if (!strcmp(wchan, "handle_userfault"))
			return;
		if (!CHECK(thread_state(tid) && "the thread faults, does not end"))
			test_stop();
		sched_yield();
	}
}

/* ---- The test's process ------------------------------------------------------------------- */

static unsigned entries_count(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	unsigned count = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

static void note_links(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char link[300], target[200];
		ssize_t length;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(link, sizeof(link), "%s/%s", path, entry->d_name);
		length = readlink(link, target, sizeof(target));
		if (length < 0)
			read_proc(target, sizeof(target), "%s/%.20s/comm", path, entry->d_name);
		test_note("  %s: %.*s", link, length < 0 ? 200 : (int)length, target);
	}
	if (dir)
		closedir(dir);
}

/* A joined thread stays in /proc for an instant: give it a moment to go. */
static void check_settled(const char *path, unsigned before)
{
	uint64_t deadline_ms = now_ms() + SETTLE_MS;
	unsigned now;

	while ((now = entries_count(path)) > before && now_ms() < deadline_ms)
		sched_yield();
	if (now <= before)
		return;
	test_note("the test left something behind: %s has %u entries, had %u", path, now, before);
	note_links(path);
	failed();
}

#ifdef __SANITIZE_THREAD__
static void *no_work(void *arg)
{
	return arg;
}
#endif

/* TSan starts a thread of its own with the first one of the process. */
static void start_sanitizer(void)
{
#ifdef __SANITIZE_THREAD__
	static struct test_thread thread;

	test_thread_start(&thread, no_work, NULL);
	test_thread_join(&thread);
#endif
}

static _Noreturn void child_main(const struct test_case *test, int output)
{
	struct rlimit no_core = {0, 0};
	unsigned descriptors, threads;
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_CORE, &no_core);
	dup2(null, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	close(null);
	close(output);
	if (test->prepare)
		test->prepare(backend);
	start_sanitizer();
	descriptors = entries_count("/proc/self/fd");
	threads = entries_count("/proc/self/task");

	test->run();

	if (!atomic_load(&verdict->leaks_allowed)) {
		check_settled("/proc/self/task", threads);
		check_settled("/proc/self/fd", descriptors);
	}
	fflush(NULL);
	if (leaked_memory())
		failed();
	_exit(atomic_load(&verdict->failures) ? EXIT_FAILED : 0);
}

/* ---- The parent --------------------------------------------------------------------------- */

/* Print text with each line marked as a TAP comment. */
static void print_lines(const char *text)
{
	while (*text) {
		size_t length = strcspn(text, "\n");

		printf("#   %.*s\n", (int)length, text);
		text += length + (text[length] != 0);
	}
}

static void print_output(int output)
{
	off_t size = lseek(output, 0, SEEK_END);
	char *text;

	if (size <= 0)
		return;
	text = calloc(1, (size_t)size + 1);
	if (text && pread(output, text, (size_t)size, 0) > 0)
		print_lines(text);
	free(text);
}

/* Where is each thread of the process? */
static void print_threads(pid_t pid)
{
	static const char *const files[] = {"comm", "syscall", "wchan", "stack"};
	char path[64], text[4096];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		printf("# thread %s\n", entry->d_name);
		for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
			read_proc(text, sizeof(text), "/proc/%d/task/%.20s/%s", pid, entry->d_name,
				  files[i]);
			printf("#  %s:\n", files[i]);
			print_lines(text);
		}
	}
	if (dir)
		closedir(dir);
}

/* False: it did not end by itself. */
static bool child_wait(pid_t pid, int *status)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd poll_pid = {.fd = pidfd, .events = POLLIN};
	bool ended = pidfd >= 0 && poll(&poll_pid, 1, timeout_ms()) == 1;

	if (!ended) {
		printf("# no end after %d s: the threads of the test's process are here\n",
		       timeout_ms() / 1000);
		print_threads(pid);
		kill(pid, SIGABRT); /* a sanitizer's or the test's own handler may say more */
		poll(&poll_pid, 1, 3000);
	}
	kill(-pid, SIGKILL); /* and whatever processes the test has started */
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	close(pidfd);
	return ended;
}

/* One line for people of how the process ended; "" for success. */
static void explain_end(char *text, size_t size, bool ended, int status)
{
	text[0] = 0;
	if (!ended)
		snprintf(text, size, "it hung");
	else if (WIFSIGNALED(status))
		snprintf(text, size, "killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (atomic_load(&verdict->failures))
		snprintf(text, size, "%u failed", atomic_load(&verdict->failures));
	else if (WEXITSTATUS(status))
		snprintf(text, size, "it exited with status %d", WEXITSTATUS(status));
}

/* Returns false if the test failed. */
static bool run_one(const struct test_case *test, const char *name, unsigned number)
{
	int output = memfd_create("test output", MFD_CLOEXEC);
	uint64_t start_ms = now_ms();
	char end[128];
	bool ended, skipped;
	int status = 0;
	pid_t pid;

	memset(verdict, 0, sizeof(*verdict));
	fflush(stdout);
	pid = fork();
	if (!pid)
		child_main(test, output);
	if (output < 0 || pid < 0) {
		perror("test harness");
		exit(EXIT_FAILED);
	}
	setpgid(pid, pid); /* the child does the same: whoever is first */
	ended = child_wait(pid, &status);
	explain_end(end, sizeof(end), ended, status);
	skipped = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED;
	if (skipped && !atomic_load(&verdict->failures)) {
		printf("ok %u - %s # SKIP %s\n", number, name, verdict->skip_reason);
	} else if (end[0]) {
		printf("not ok %u - %s: %s (%s)\n", number, name, test->what, test->file);
		printf("# %s\n", end);
		print_output(output);
	} else {
		printf("ok %u - %s: %s (%llu ms)\n", number, name, test->what,
		       (unsigned long long)(now_ms() - start_ms));
	}
	fflush(stdout);
	close(output);
	return !end[0] || (skipped && !atomic_load(&verdict->failures));
}

void test_register(struct test_case *test)
{
	*tests_tail = test;
	tests_tail = &test->next;
}

static bool selected(const char *name, char *const *parts)
{
	if (!*parts)
		return true;
	for (; *parts; parts++)
		if (strstr(name, *parts))
			return true;
	return false;
}

/* Call fn for each selected test and backend; returns how many there were. */
static unsigned for_each(char *const *parts, void (*fn)(const struct test_case *test,
							const char *name, unsigned number))
{
	unsigned count = 0;

	for (const struct test_case *test = tests; test; test = test->next) {
		unsigned variants = test->prepare ? TEST_BACKENDS : 1;

		for (unsigned i = 0; i < variants; i++) {
			char name[200];

			snprintf(name, sizeof(name), "%s%s", test->name,
				 test->prepare ? backend_suffix[i] : "");
			if (!selected(name, parts))
				continue;
			backend = (enum test_backend)i;
			fn(test, name, ++count);
		}
	}
	return count;
}

static unsigned failures;

static void count_test(const struct test_case *test, const char *name, unsigned number)
{
	(void)test, (void)name, (void)number;
}

static void list_test(const struct test_case *test, const char *name, unsigned number)
{
	(void)number;
	printf("%s: %s\n", name, test->what);
}

static void run_test(const struct test_case *test, const char *name, unsigned number)
{
	failures += !run_one(test, name, number);
}

int main(int argc, char **argv)
{
	bool list = argc > 1 && !strcmp(argv[1], "--list");
	char **parts = argv + 1 + list;

	if (list)
		return for_each(parts, list_test) ? 0 : EXIT_NONE_RAN;
	verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (verdict == MAP_FAILED) {
		perror("test harness");
		return EXIT_FAILED;
	}
	printf("TAP version 13\n1..%u\n", for_each(parts, count_test));
	if (!for_each(parts, run_test))
		return EXIT_NONE_RAN;
	return failures ? EXIT_FAILED : 0;
}
