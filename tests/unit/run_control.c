/* SPDX-License-Identifier: MIT */
/*
 * run_control.c - the area that a supervisor shares with the programs it runs: several processes at
 * once, processes that die between two stores, a ring that is full, a supervisor that is gone. Each
 * test is the supervisor; its clients are forks of it.
 */
#include "harness/test.h"

#include "run/control.h"
#include "run/process.h"
#include "run/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CLIENTS 6u
#define EACH	(2 * RUN_EVENTS / CLIENTS)

static struct run_control *control;
static int control_fd;

static void area_make(void)
{
	struct run_options options = {.policy = RUN_EXIT, .reserve_bytes = 12345};

	REQUIRE_EQ(run_control_create(&options, &control, &control_fd), 0);
}

static void area_drop(void)
{
	run_control_destroy(control, control_fd);
}

/* A client that runs fn and ends with what it returns. */
static pid_t client_start(int (*fn)(unsigned), unsigned number)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(fn(number));
	return pid;
}

static int client_status(pid_t pid)
{
	int status;

	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void event_wait(struct run_event *event)
{
	uint32_t seen = 0;

	while (!run_next(control, event))
		run_listen(control, &seen, RUN_LOOK_MS);
}

static void post(uint64_t offset)
{
	run_post(control, &(struct run_event){.kind = RUN_EVENT_WRITE,
					      .file = RUN_FILE_NONE,
					      .offset = offset,
					      .length = 4096,
					      .address = ~offset,
					      .caller = 7});
}

/* As run_post, up to its last store. */
static void claim_and_die(void)
{
	uint64_t head = atomic_load(&control->head);
	uint64_t turn = turn_make(head, SLOT_FREE);

	if (!atomic_compare_exchange_strong(&ring_slot(control, head)->turn, &turn,
					    turn_make(head, (uint32_t)getpid())))
		_exit(1);
	raise(SIGKILL);
}

/* ---- Events ------------------------------------------------------------------------------- */

static int client_posts(unsigned number)
{
	for (unsigned i = 0; i < EACH; i++)
		post((uint64_t)number << 32 | i);
	return 0;
}

TEST(run_events_of_processes, "Events of several processes arrive each once, in each one's order")
{
	unsigned next[CLIENTS] = {0}, wrong = 0;
	pid_t pids[CLIENTS];

	area_make();
	for (unsigned i = 0; i < CLIENTS; i++)
		pids[i] = client_start(client_posts, i);
	for (unsigned i = 0; i < CLIENTS * EACH; i++) {
		struct run_event event;
		unsigned client;

		event_wait(&event);
		client = (unsigned)(event.offset >> 32);
		REQUIRE(client < CLIENTS);
		wrong += (uint32_t)event.offset != next[client]++;
		wrong += event.pid != pids[client] || event.tid != pids[client];
		wrong += event.kind != RUN_EVENT_WRITE || event.file != RUN_FILE_NONE ||
			 event.length != 4096 || event.address != ~event.offset ||
			 event.caller != 7 || event.time_ns == 0;
	}
	CHECK_EQ(wrong, 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		CHECK_EQ(client_status(pids[i]), 0);
	CHECK(!run_next(control, &(struct run_event){0}));
	CHECK_EQ(atomic_load(&control->lost), 0);
	area_drop();
}

static int client_dies(unsigned number)
{
	post(number);
	claim_and_die();
	return 1;
}

TEST(run_event_of_the_dead, "What a killed process was posting is left out; others go on")
{
	struct run_event event;
	pid_t dead;

	area_make();
	dead = client_start(client_dies, 1);
	/* Not reaped yet: a zombie is dead, too. */
	REQUIRE_EQ(waitid(P_PID, (id_t)dead, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
	post(2);
	CHECK(run_next(control, &event) && event.offset == 1);
	CHECK(run_next(control, &event) && event.offset == 2);
	CHECK(!run_next(control, &event));
	CHECK_EQ(client_status(dead), -SIGKILL);
	CHECK_EQ(client_status(client_start(client_dies, 3)), -SIGKILL);
	CHECK(run_next(control, &event) && event.offset == 3);
	CHECK(!run_next(control, &event));
	/* The dead one's slot was the last, and head had not been moved past it. */
	post(4);
	CHECK(run_next(control, &event) && event.offset == 4);
	CHECK_EQ(atomic_load(&control->lost), 2);
	area_drop();
}

TEST(run_event_being_written,
     "An event that is being written holds back later ones until it is there")
{
	struct run_event event;
	uint64_t mine;

	area_make();
	mine = turn_make(0, (uint32_t)getpid());
	atomic_store(&control->events[0].turn, mine);
	control->events[0].offset = 1;
	post(2);
	CHECK(!run_next(control, &event));
	atomic_store(&control->events[0].turn, mine | SLOT_PUBLISHED);
	CHECK(run_next(control, &event) && event.offset == 1);
	CHECK(run_next(control, &event) && event.offset == 2);
	CHECK_EQ(atomic_load(&control->lost), 0);
	area_drop();
}

TEST(run_event_before_exec,
     "What a program left half done when it was replaced by exec is given up")
{
	uint32_t self = (uint32_t)getpid();
	struct run_control *again;
	struct run_event event;
	char path[64];

	area_make();
	post(1);
	atomic_store(&control->events[1].turn, turn_make(1, self));
	atomic_store(&control->files[0].state, self);
	atomic_store(&control->stops[3].tid, (int32_t)self);
	CHECK(run_next(control, &event) && event.offset == 1);
	CHECK(!run_next(control, &event));

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), control_fd);
	again = run_control_open(path);
	REQUIRE(again);
	CHECK(run_next(control, &event) && event.kind == RUN_EVENT_NONE);
	CHECK(run_file_is_there(control, 0));
	CHECK_EQ(atomic_load(&control->stops[3].state), RUN_STOP_OVER);
	munmap(again, sizeof(*again));
	area_drop();
}

static void *thread_posts_one(void *unused)
{
	post(RUN_EVENTS);
	return unused;
}

TEST(run_ring_full, "Who finds the ring full waits, and goes on when there is room")
{
	struct test_thread thread;
	struct run_event event;

	area_make();
	for (unsigned i = 0; i < RUN_EVENTS; i++)
		post(i);
	test_thread_start(&thread, thread_posts_one, NULL);
	test_wait_thread_blocked(thread.tid);
	CHECK(!atomic_load(&thread.ended));
	for (unsigned i = 0; i <= RUN_EVENTS; i++) {
		event_wait(&event);
		REQUIRE_EQ(event.offset, i);
	}
	test_thread_join(&thread);
	CHECK_EQ(atomic_load(&control->lost), 0);
	area_drop();
}

static _Atomic bool dealt_with;

static void *thread_settles(void *unused)
{
	(void)unused;
	post(1);
	run_settle(control);
	CHECK(dealt_with);
	return NULL;
}

TEST(run_settle, "Who wants its event dealt with waits for more than its being read")
{
	struct test_thread thread;
	struct run_event event;

	area_make();
	test_thread_start(&thread, thread_settles, NULL);
	test_wait_thread_blocked(thread.tid);
	CHECK(run_next(control, &event));
	CHECK_EQ(event.offset, 1);
	test_wait_thread_blocked(thread.tid);
	CHECK(!thread.ended);
	dealt_with = true;
	while (run_next(control, &event))
		CHECK_EQ(event.kind, RUN_EVENT_NONE);
	test_thread_join(&thread);
	area_drop();
}

/* ---- The supervisor is gone --------------------------------------------------------------- */

/* A process that was there, and another that has its number now. */
static void supervisor_dies(void)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(0);
	REQUIRE_EQ(client_status(pid), 0);
	control->supervisor = pid;
}

TEST(run_ring_full_alone, "Who finds the ring full and the supervisor dead goes on")
{
	area_make();
	for (unsigned i = 0; i < RUN_EVENTS; i++)
		post(i);
	supervisor_dies();
	post(RUN_EVENTS);
	post(RUN_EVENTS + 1);
	CHECK_EQ(atomic_load(&control->lost), 2);
	area_drop();
}

TEST(run_stop_alone,
     "There is no stop without a supervisor, fatal or not; it may die while one waits")
{
	pid_t pid;

	area_make();
	CHECK(run_supervisor_lives(control));
	supervisor_dies();
	CHECK(!run_supervisor_lives(control));
	CHECK(!run_stop_begin(control, 0, -ENOSPC, 0, 4096, false));
	CHECK(!run_stop_begin(control, 0, -ENOSPC, 0, 4096, true));
	/* A process that got its number is not the supervisor. */
	control->supervisor = getpid();
	CHECK(run_supervisor_lives(control));
	control->supervisor_start++;
	CHECK(!run_supervisor_lives(control));
	area_drop();

	area_make();
	pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		while (atomic_load(&control->stops[0].state) != RUN_STOP_ASKED)
			test_yield();
		_exit(0);
	}
	control->supervisor = pid;
	control->supervisor_start = process_start(pid);
	CHECK(!run_stop_begin(control, 0, -ENOSPC, 0, 4096, true));
	CHECK_EQ(atomic_load(&control->stops[0].state), RUN_STOP_OVER);
	CHECK_EQ(client_status(pid), 0);
	area_drop();
}

/* ---- Stops -------------------------------------------------------------------------------- */

static void *thread_stops_fatally(void *stop)
{
	*(struct run_stop **)stop = run_stop_begin(control, 3, -EDQUOT, 8192, 4096, true);
	return NULL;
}

TEST(run_stops, "A fatal stop returns when it is told; each thread has a slot of its own")
{
	struct run_stop *mine, *fatal = NULL;
	struct test_thread thread;
	uint32_t seen = 0;

	area_make();
	mine = run_stop_begin(control, 2, -ENOSPC, 4096, 1 << 20, false);
	REQUIRE(mine);
	CHECK_EQ(atomic_load(&mine->state), RUN_STOP_ASKED);
	CHECK(mine->file == 2 && mine->error == -ENOSPC && mine->offset == 4096 &&
	      mine->needed == 1 << 20 && !mine->fatal && mine->pid == getpid());

	test_thread_start(&thread, thread_stops_fatally, &fatal);
	while (atomic_load(&control->stops[1].state) != RUN_STOP_ASKED)
		run_listen(control, &seen, RUN_LOOK_MS);
	test_wait_thread_blocked(thread.tid);
	CHECK(!atomic_load(&thread.ended) && control->stops[1].fatal);
	atomic_store(&control->stops[1].state, RUN_STOP_TOLD);
	futex_wake_all(&control->stops[1].state);
	test_thread_join(&thread);
	CHECK(fatal == &control->stops[1]);

	run_stop_end(control, fatal);
	CHECK_EQ(atomic_load(&fatal->state), RUN_STOP_TOLD); /* another thread's */
	run_stop_end(control, mine);
	CHECK_EQ(atomic_load(&mine->state), RUN_STOP_OVER);
	area_drop();
}

TEST(run_stops_full, "Without a free slot there is no stop; one left by longjmp is used again")
{
	struct run_stop *first;

	area_make();
	first = run_stop_begin(control, 1, -ENOSPC, 0, 4096, false);
	CHECK(run_stop_begin(control, 2, -ENOSPC, 0, 4096, false) == first);
	CHECK_EQ(first->file, 2);
	run_stop_end(control, first);
	for (unsigned i = 1; i < RUN_STOPS; i++)
		atomic_store(&control->stops[i].tid, 1);
	/* It is over, but not free before the supervisor has seen it. */
	CHECK(!run_stop_begin(control, 1, -ENOSPC, 0, 4096, false));
	atomic_store(&control->stops[0].state, RUN_STOP_FREE);
	atomic_store(&control->stops[0].tid, 0);
	CHECK(run_stop_begin(control, 1, -ENOSPC, 0, 4096, false) == first);
	area_drop();
}

static void *thread_waits(void *seen)
{
	run_wait_for_retry(control, *(uint32_t *)seen, 100000);
	return NULL;
}

static void nothing(int signal)
{
	(void)signal;
}

TEST(run_retry, "Who waits for space is woken by a retry or a signal, and does not miss one before")
{
	struct test_thread thread;
	uint32_t seen = 0;

	area_make();
	test_thread_start(&thread, thread_waits, &seen);
	test_wait_thread_blocked(thread.tid);
	run_retry(control);
	test_thread_join(&thread);
	run_wait_for_retry(control, seen, 100000);

	seen = atomic_load(&control->retry);
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = nothing, .sa_flags = SA_RESTART},
		  NULL);
	test_thread_start(&thread, thread_waits, &seen);
	/* A signal that comes before the thread sleeps is not seen by it. */
	while (!atomic_load(&thread.ended)) {
		pthread_kill(thread.thread, SIGUSR1);
		test_yield();
	}
	test_thread_join(&thread);
	errno = 77;
	run_wait_for_retry(control, seen, 0);
	CHECK_EQ(errno, 77);
	area_drop();
}

/* ---- Files -------------------------------------------------------------------------------- */

static uint16_t number_of(int fd)
{
	struct stat st;

	REQUIRE_EQ(fstat(fd, &st), 0);
	return run_file_number(control, fd, st.st_dev, st.st_ino);
}

static int file_make(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	REQUIRE(fd >= 0);
	return fd;
}

TEST(run_files, "A file has one number, also when it has lost its name; its name is what it was")
{
	char folder[] = "/tmp/mkwrite-run-XXXXXX", one[64], two[64];
	int first, second;

	REQUIRE(mkdtemp(folder));
	snprintf(one, sizeof(one), "%s/one", folder);
	snprintf(two, sizeof(two), "%s/two (deleted)", folder);
	first = file_make(one);
	second = file_make(two);
	area_make();
	CHECK_EQ(number_of(first), 0);
	CHECK_EQ(number_of(second), 1);
	CHECK_STR(control->files[0].path, one);
	CHECK_STR(control->files[1].path, two);
	CHECK_EQ(number_of(first), 0);
	unlink(one);
	CHECK_EQ(number_of(first), 0);
	area_drop();

	area_make();
	CHECK_EQ(number_of(first), 0);
	CHECK_STR(control->files[0].path, "");
	/* Another file of the same number is known by its name. */
	CHECK_EQ(number_of(second), 1);
	strcpy(control->files[1].path, "/somewhere/else");
	CHECK_EQ(number_of(second), 2);
	area_drop();
	unlink(two);
	rmdir(folder);
	close(first);
	close(second);
}

TEST(run_files_full, "A table that is full gives no number; what is there keeps its own")
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	area_make();
	CHECK_EQ(number_of(fd), 0);
	for (unsigned i = 1; i < RUN_FILES; i++)
		atomic_store(&control->files[i].state, RUN_FILE_THERE);
	CHECK_EQ(number_of(fd), 0);
	memset(&control->files[0].dev, 0, sizeof(uint64_t));
	CHECK_EQ(number_of(fd), RUN_FILE_NONE);
	area_drop();
	close(fd);
}

static int client_claims_file(unsigned number)
{
	atomic_store(&control->files[number].state, (uint32_t)getpid());
	raise(SIGKILL);
	return 1;
}

static int client_numbers_file(unsigned fd)
{
	return number_of((int)fd);
}

TEST(run_files_of_processes,
     "Processes that name a file at once get one number; a dead one's entry is used")
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	pid_t pids[CLIENTS];

	area_make();
	CHECK_EQ(client_status(client_start(client_claims_file, 0)), -SIGKILL);
	for (unsigned i = 0; i < CLIENTS; i++)
		pids[i] = client_start(client_numbers_file, (unsigned)fd);
	for (unsigned i = 0; i < CLIENTS; i++)
		CHECK_EQ(client_status(pids[i]), 0);
	CHECK_EQ(atomic_load(&control->files[1].state), 0);
	area_drop();
	close(fd);
}

/* ---- The area ----------------------------------------------------------------------------- */

TEST(run_area, "The area is found by its name, cannot be cut, and is not taken for another's")
{
	struct run_control *again;
	char path[64];
	int fd;

	area_make();
	CHECK(fcntl(control_fd, F_GETFD) & FD_CLOEXEC);
	CHECK(control_fd > STDERR_FILENO);
	CHECK(ftruncate(control_fd, 4096) != 0 && errno == EPERM);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), control_fd);
	again = run_control_open(path);
	REQUIRE(again);
	CHECK(again->options.policy == RUN_EXIT && again->options.reserve_bytes == 12345);
	munmap(again, sizeof(*again));
	control->magic++;
	CHECK(!run_control_open(path));
	CHECK(!run_control_open("/nowhere"));
	CHECK(!run_control_open("/dev/null"));
	area_drop();

	fd = dup(STDIN_FILENO);
	close(STDIN_FILENO);
	area_make();
	CHECK(control_fd > STDERR_FILENO);
	area_drop();
	dup2(fd, STDIN_FILENO);
	close(fd);
}
