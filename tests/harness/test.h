/* SPDX-License-Identifier: MIT */
/*
 * test.h - the test harness: each test runs in a process of its own, under a watchdog, and is
 * reported as one line of TAP.
 *
 *   TEST(refuse_first_write, "S1.1 the write N+1 is refused at its exact address")
 *   {
 *           REQUIRE(map(&view) == 0);
 *           CHECK_EQ(refusal.error, -ENOSPC);
 *   }
 *
 * CHECK notes a failure and goes on; REQUIRE notes it and ends the test at once, from any thread.
 * What a test prints is shown only if it fails. A test fails also when it is killed, when it hangs
 * (the watchdog shows where each of its threads is), when it leaves descriptors or threads behind,
 * and, under ASan, when it leaks memory.
 *
 *   PROGRAM [--list] [NAME-PART...]      run the tests whose names contain one of the parts
 *   MKW_TEST_TIMEOUT_S=N                 the watchdog's patience with one test; default 60
 *   MKW_TEST_HEAVY=1                     test_rounds() gives many more rounds
 */
#ifndef TEST_H
#define TEST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- Declaring tests ---------------------------------------------------------------------- */

enum test_backend {
	TEST_UFFD,     /* handler threads */
	TEST_INLINE,   /* faults served in the faulting thread */
	TEST_UFFD_OLD, /* handler threads, without what kernels after 6.1 brought */
	TEST_BACKENDS
};

struct test_case {
	const char *name, *what;
	void (*run)(void);
	void (*prepare)(enum test_backend backend); /* for each backend; NULL: run once */
	const char *file;
	struct test_case *next;
};

void test_register(struct test_case *test);

#define TEST_DECLARE(name_, what_, prepare_)                                 \
	static void test_##name_(void);                                      \
	__attribute__((constructor)) static void test_register_##name_(void) \
	{                                                                    \
		static struct test_case test = {                             \
			.name = #name_,                                      \
			.what = what_,                                       \
			.run = test_##name_,                                 \
			.prepare = prepare_,                                 \
			.file = __FILE__,                                    \
		};                                                           \
		test_register(&test);                                        \
	}                                                                    \
	static void test_##name_(void)

/* A test; what_ starts with the number of the rule it shows, where there is one. */
#define TEST(name_, what_) TEST_DECLARE(name_, what_, NULL)

/* A test run three times, as NAME/uffd, NAME/inline and NAME/uffd-old. Skipped, with the host's
 * reason, where the backend cannot be had. */
#define TEST_EACH_BACKEND(name_, what_) TEST_DECLARE(name_, what_, test_backend_prepare)

/* Sets up the environment of a backend; skips where the host lacks it. */
void test_backend_prepare(enum test_backend backend);

/* In a test: which backend it runs for (TEST: TEST_UFFD), and the flags for mkw_map(). */
enum test_backend test_backend(void);
unsigned test_map_flags(void);

/*
 * The test is skipped under TSan, which does not know that the end of a fault follows what its
 * handler did, notes a store before it is held up, and blocks all signals in handlers: tests whose
 * stores share plain memory with the threads that fault, or fault themselves, look wrong to it.
 */
void test_not_under_tsan(void);

/* normal, or 20 times that in heavy runs. */
unsigned test_rounds(unsigned normal);

/* The test leaves descriptors or threads behind on purpose. */
void test_allow_leaks(void);

/* ---- Assertions: from any thread of the test ---------------------------------------------- */

#define CHECK(expr) test_check((expr) ? true : false, __FILE__, __LINE__, #expr)
#define REQUIRE(expr)                \
	do {                         \
		if (!CHECK(expr))    \
			test_stop(); \
	} while (0)

/* Compared, and on failure printed, as long long. */
#define CHECK_EQ(a, b) \
	test_check_eq((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)
#define REQUIRE_EQ(a, b)             \
	do {                         \
		if (!CHECK_EQ(a, b)) \
			test_stop(); \
	} while (0)

/* Prints the first byte that differs. */
#define CHECK_MEM(a, b, size) test_check_mem((a), (b), (size), __FILE__, __LINE__, #a " == " #b)

#define CHECK_STR(a, b) test_check_str((a), (b), __FILE__, __LINE__, #a " == " #b)

/* End the test: it cannot be run here. printf format. */
#define SKIP(...) test_skip(__VA_ARGS__)

/* A line shown if the test fails. */
void test_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool test_check(bool ok, const char *file, int line, const char *expr);
bool test_check_eq(long long a, long long b, const char *file, int line, const char *expr);
bool test_check_mem(const void *a, const void *b, size_t size, const char *file, int line,
		    const char *expr);
bool test_check_str(const char *a, const char *b, const char *file, int line, const char *expr);
_Noreturn void test_stop(void);
_Noreturn void test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- Waiting without sleeping ------------------------------------------------------------- */

/* Something that happens a number of times. All waits end by the event, or fail the test. */
struct test_event {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned count;
};
#define TEST_EVENT_INIT                                                \
	{                                                              \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 \
	}

void test_event_init(struct test_event *event);
void test_event_set(struct test_event *event); /* it happened once (more) */
unsigned test_event_count(struct test_event *event);
void test_event_reset(struct test_event *event);

/* Wait until it has happened once, or count times. Takes longer than 20 s: the test fails. */
#define test_event_wait(event)		 test_event_wait_at((event), 1, __FILE__, __LINE__)
#define test_event_wait_n(event, count_) test_event_wait_at((event), (count_), __FILE__, __LINE__)
void test_event_wait_at(struct test_event *event, unsigned count, const char *file, int line);

struct test_thread {
	pthread_t thread;
	_Atomic pid_t tid;  /* set when test_thread_start has returned */
	_Atomic bool ended; /* fn has returned */
	void *(*fn)(void *arg);
	void *arg;
};

void test_thread_start(struct test_thread *thread, void *(*fn)(void *arg), void *arg);
void *test_thread_join(struct test_thread *thread);

/* Wait until the thread sleeps in the kernel, whatever for. */
void test_wait_thread_blocked(pid_t tid);

/* Wait until it sleeps in a page fault that a userfaultfd has yet to answer. */
void test_wait_thread_faulting(pid_t tid);

/* Wait until a condition holds that another thread brings about; yields meanwhile. */
#define test_wait_until(condition)    \
	do {                          \
		while (!(condition))  \
			test_yield(); \
	} while (0)
void test_yield(void);

#endif
