/* SPDX-License-Identifier: MIT */
/*
 * fork.c - children made by fork: views that they inherit are served as the parent's are, whoever
 * of the two ends first (contract 7.1, 7.2; S3.5).
 *
 * A child tells what it found by its exit status and a line in shared memory, and takes turns with
 * the test by pipes. Sanitizers
 * cannot follow a process with several threads into its child: there the library has no children.
 */
#include "harness/rig.h"
#include "harness/world.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- Children ----------------------------------------------------------------------------- */

struct shared {		  /* by all processes of a test */
	_Atomic int line; /* of a check that failed in a child */
	_Atomic pid_t pid;
	_Atomic int value;
};

static struct shared *shared;

struct kid {
	pid_t pid;
	int down[2], up[2]; /* pipes to it and from it */
};

#define KID_CHECK(expr)                          \
	do {                                     \
		if (!(expr)) {                   \
			shared->line = __LINE__; \
			_exit(1);                \
		}                                \
	} while (0)

static void say(int fd)
{
	while (write(fd, "", 1) < 0 && errno == EINTR)
		;
}

/* False: nobody will say anything any more. */
static bool hear(int fd)
{
	char byte;
	ssize_t n;

	do {
		n = read(fd, &byte, 1);
	} while (n < 0 && errno == EINTR);
	return n == 1;
}

static void shared_make(void)
{
	struct mkw_backend_info info;

	if (shared)
		return;
	REQUIRE(mkw_backends(&info, 1) >= 1);
	if (strstr(info.reason, "inherit no views"))
		SKIP("%s", info.reason);
	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
}

/* As fork(): 0 in the child. */
static pid_t kid_fork(struct kid *kid)
{
	REQUIRE_EQ(pipe2(kid->down, O_CLOEXEC), 0);
	REQUIRE_EQ(pipe2(kid->up, O_CLOEXEC), 0);
	kid->pid = fork();
	REQUIRE(kid->pid >= 0);
	close(kid->down[kid->pid == 0]);
	close(kid->up[kid->pid != 0]);
	return kid->pid;
}

static void kid_say(struct kid *kid)
{
	say(kid->down[1]);
}

static void kid_hear(struct kid *kid)
{
	REQUIRE(hear(kid->up[0]));
}

/* In the child: its turn is over; it goes on when the test has had its own. */
static void kid_turn(struct kid *kid)
{
	say(kid->up[1]);
	KID_CHECK(hear(kid->down[0]));
}

static int status_of(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0)
		REQUIRE_EQ(errno, EINTR);
	return status;
}

static void kid_close(struct kid *kid)
{
	close(kid->down[1]);
	close(kid->up[0]);
}

/* Wait for its end, which has to be a good one. */
static void kid_end(struct kid *kid)
{
	CHECK_EQ(status_of(kid->pid), 0);
	CHECK_EQ(shared->line, 0);
	kid_close(kid);
}

static void kid_kill(struct kid *kid)
{
	REQUIRE_EQ(kill(kid->pid, SIGKILL), 0);
	CHECK(WIFSIGNALED(status_of(kid->pid)));
	CHECK_EQ(shared->line, 0);
	kid_close(kid);
}

static void fork_world(struct world *w, size_t pages)
{
	shared_make();
	world_make(w, pages * PAGE);
	script_put_pattern(w->store, 0, pages, 1);
	world_open(w, pages * PAGE);
}

/* read(2) of one byte to an address: 0, or the errno. */
static int read_into(void *address)
{
	int ends[2], error = 0;

	if (pipe(ends) != 0 || write(ends[1], "r", 1) != 1)
		return -1;
	if (read(ends[0], address, 1) != 1)
		error = errno;
	close(ends[0]);
	close(ends[1]);
	return error;
}

/* ---- Shared views ------------------------------------------------------------------------- */

TEST(r7_1_child_is_notified, "7.1 what the child writes is asked of the store, and reaches it")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 8);
	if (kid_fork(&kid) == 0) {
		for (size_t i = 0; i < 8; i++) {
			KID_CHECK(w.view[i * PAGE + 9] == script_pattern(i * PAGE + 9, 1));
			w.view[i * PAGE] = (unsigned char)('a' + i);
			w.view[i * PAGE + 1] = 'x';
		}
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(script_calls(w.store, SCRIPT_FAULT), 8);
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 8);
	CHECK_EQ(world_stat(&w).dirty_bytes, 8 * PAGE);
	for (size_t i = 0; i < 8; i++)
		CHECK_EQ(get(w.view + i * PAGE), 'a' + (int)i);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (size_t i = 0; i < 8; i++) {
		unsigned char now[2];
		script_get(w.store, i * PAGE, now, 2);
		CHECK_EQ(now[0], 'a' + (int)i);
		CHECK_EQ(now[1], 'x');
	}
	world_end(&w);
}

TEST(r7_1_cleaning_protects_child,
     "7.1, I1 a page cleaned by the parent is asked for again in the child")
{
	struct world w;
	struct kid kid;
	unsigned char now;

	fork_world(&w, 4);
	put(w.view, 'p'); /* writable in both, when the page tables are copied */
	if (kid_fork(&kid) == 0) {
		w.view[0] = '1';
		w.view[PAGE] = '1';
		kid_turn(&kid);
		w.view[0] = '2';
		w.view[PAGE] = '2';
		w.view[1] = '3';
		kid_turn(&kid);
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 0), 1);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 1);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	kid_say(&kid);
	kid_hear(&kid);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 0), 2);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 1), 2);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	script_get(w.store, 0, &now, 1);
	CHECK_EQ(now, '2');
	script_get(w.store, PAGE, &now, 1);
	CHECK_EQ(now, '2');
	kid_say(&kid);
	kid_end(&kid);
	world_end(&w);
}

TEST(r7_1_parent_sees_child, "7.1 both processes see each other's bytes at once")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 2);
	if (kid_fork(&kid) == 0) {
		w.view[5] = 'c';
		kid_turn(&kid);
		KID_CHECK(w.view[6] == 'p');
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(get(w.view + 5), 'c');
	put(w.view + 6, 'p');
	kid_say(&kid);
	kid_end(&kid);
	world_end(&w);
}

TEST(r7_1_dirty_limit, "7.1, S1.3 what children dirty counts against the limit, and waits for room")
{
	struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 4 * PAGE};
	struct rig rig;
	struct kid kid;

	shared_make();
	rig_open(&rig, &options, 64, MKW_RDWR);
	if (kid_fork(&kid) == 0) {
		for (size_t i = 0; i < 64; i++)
			*rig_word(rig.view, i) = i + 1;
		_exit(0);
	}
	kid_end(&kid);
	CHECK(rig_space_stat(&rig).dirty_peak_bytes <= 4 * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	for (size_t i = 0; i < 64; i++)
		CHECK_EQ(rig_stored_word(&rig, i), i + 1);
	rig_close(&rig);
}

TEST(r7_1_truncation, "7.1, 5.1 pages that the parent cuts off are refused in the child")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 4);
	if (kid_fork(&kid) == 0) {
		struct mkw_refusal refusal;
		unsigned char byte;

		w.view[3 * PAGE] = 'x';
		kid_turn(&kid);
		KID_CHECK(try_read(w.view + 3 * PAGE, &byte, &refusal) == -ENXIO);
		KID_CHECK(refusal.address == w.view + 3 * PAGE && !refusal.write);
		w.view[PAGE] = 'y';
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE), 0);
	kid_say(&kid);
	kid_end(&kid);
	world_end(&w);
}

/* ---- Private views ------------------------------------------------------------------------ */

static unsigned char *map_private(struct world *w, size_t pages)
{
	void *view;

	REQUIRE_EQ(mkw_map(w->handle, pages * PAGE, MKW_READ | MKW_WRITE, MKW_PRIVATE, 0, &view),
		   0);
	REQUIRE_EQ(mkw_advise(view, pages * PAGE, MKW_RANDOM), 0);
	return view;
}

TEST(r7_1_private_in_both,
     "7.1, I6 a private view is copied on write in both, and no store is asked")
{
	struct world w;
	struct kid kid;
	unsigned char *view;

	fork_world(&w, 8);
	view = map_private(&w, 8);
	put(view, 'p');
	CHECK_EQ(get(view + PAGE), script_pattern(PAGE, 1));
	if (kid_fork(&kid) == 0) {
		KID_CHECK(view[0] == 'p');
		view[0] = 'c';	      /* copied by the parent before */
		view[PAGE] = 'c';     /* the object's, mapped */
		view[2 * PAGE] = 'c'; /* the object's, absent */
		KID_CHECK(view[3 * PAGE + 1] == script_pattern(3 * PAGE + 1, 1));
		kid_turn(&kid);
		KID_CHECK(view[0] == 'c' && view[PAGE] == 'c' && view[2 * PAGE] == 'c');
		KID_CHECK(view[3 * PAGE] == script_pattern(3 * PAGE, 1));
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(get(view), 'p');
	CHECK_EQ(get(view + PAGE), script_pattern(PAGE, 1));
	CHECK_EQ(get(view + 2 * PAGE), script_pattern(2 * PAGE, 1));
	put(view, 'q');
	put(view + 3 * PAGE, 'q');
	kid_say(&kid);
	kid_end(&kid);
	CHECK_EQ(get(view), 'q');
	CHECK_EQ(get(w.view), script_pattern(0, 1));
	CHECK_EQ(script_calls(w.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(mkw_unmap(view, 8 * PAGE), 0);
	world_end(&w);
}

TEST(r7_1_private_truncated, "7.1, 5.1 a child loses its private copies past the new end, too")
{
	struct world w;
	struct kid kid, grandkid;
	unsigned char *view;

	fork_world(&w, 4);
	view = map_private(&w, 4);
	put(view + 3 * PAGE, 'p');
	if (kid_fork(&kid) == 0) {
		unsigned char byte;

		view[2 * PAGE] = 'c';
		view[PAGE] = 'c';
		if (kid_fork(&grandkid) == 0) {
			kid_turn(&grandkid);
			KID_CHECK(try_read(view + 2 * PAGE, &byte, NULL) == -ENXIO);
			KID_CHECK(view[PAGE] == 'c');
			_exit(0);
		}
		hear(grandkid.up[0]);
		kid_turn(&kid);
		KID_CHECK(try_read(view + 2 * PAGE, &byte, NULL) == -ENXIO);
		KID_CHECK(try_read(view + 3 * PAGE, &byte, NULL) == -ENXIO);
		KID_CHECK(view[PAGE] == 'c');
		say(grandkid.down[1]);
		KID_CHECK(status_of(grandkid.pid) == 0);
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(mkw_truncate(w.handle, 2 * PAGE), 0);
	kid_say(&kid);
	kid_end(&kid);
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	world_end(&w);
}

struct birth {
	unsigned char *view;
	struct test_thread cuts;
};

static void *fork_and_look(void *arg)
{
	struct birth *birth = arg;
	unsigned char *view = birth->view, byte;
	struct kid kid;

	if (kid_fork(&kid) == 0) {
		KID_CHECK(view[0] == 'p');
		kid_turn(&kid);
		KID_CHECK(try_read(view + 3 * PAGE, &byte, NULL) == -ENXIO);
		KID_CHECK(view[0] == 'p');
		_exit(0);
	}
	test_thread_join(&birth->cuts);
	kid_hear(&kid);
	kid_say(&kid);
	kid_end(&kid);
	return NULL;
}

static void *cut_off(void *arg)
{
	CHECK_EQ(mkw_truncate(arg, 2 * PAGE), 0);
	return NULL;
}

TEST(r7_1_truncated_at_birth, "7.1, 5.1 the object is cut off before its child's service has begun")
{
	struct test_thread forks;
	struct birth birth;
	unsigned char *view;
	struct world w;

	fork_world(&w, 4);
	view = birth.view = map_private(&w, 4);
	put(view, 'p');
	put(view + 3 * PAGE, 'p');
	test_gate_arm(w.store, SCRIPT_MAP, SCRIPT_ENTRY, SCRIPT_ANY);
	test_thread_start(&forks, fork_and_look, &birth);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MAP, SCRIPT_ENTRY, 1));
	test_thread_start(&birth.cuts, cut_off, w.handle);
	/* Ours is dropped, and the child's is next. */
	test_wait_until(world_stat(&w).private_bytes <= PAGE);
	test_gate_release(w.store, SCRIPT_MAP, SCRIPT_ENTRY);
	test_thread_join(&forks);
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	world_end(&w);
}

TEST(r7_1_private_swapped, "7.1, 2.8 parent and child share what is in the swap file")
{
	char path[] = "/tmp/mkwrite-fork-XXXXXX";
	struct mkw_space_options options = {RIG_QUIET, .swap_path = path,
					    .resident_limit_bytes = 16 * PAGE};
	struct world w;
	struct kid kid;
	unsigned char *view;
	int fd;

	shared_make();
	fd = mkstemp(path);
	REQUIRE(fd >= 0);
	close(fd);
	unlink(path);
	world_make_with(&w, 64 * PAGE, &options);
	script_put_pattern(w.store, 0, 64, 1);
	world_open(&w, 0);
	view = map_private(&w, 64);
	for (size_t i = 0; i < 64; i++)
		put(view + i * PAGE, (unsigned char)('0' + i));
	test_wait_until(world_stat(&w).swapped_bytes >= 32 * PAGE);
	if (kid_fork(&kid) == 0) {
		for (size_t i = 0; i < 32; i++) {
			KID_CHECK(view[i * PAGE] == '0' + i);
			view[i * PAGE] = 'c';
		}
		kid_turn(&kid);
		for (size_t i = 0; i < 64; i++)
			KID_CHECK(view[i * PAGE] == (i < 32 ? 'c' : '0' + i));
		_exit(0);
	}
	kid_hear(&kid);
	for (size_t i = 0; i < 64; i++)
		CHECK_EQ(get(view + i * PAGE), '0' + (int)i);
	kid_say(&kid);
	kid_end(&kid);
	CHECK_EQ(mkw_unmap(view, 64 * PAGE), 0);
	world_end(&w);
}

TEST(r7_1_private_charges, "7.1 a child's copies are charged to nobody, and nothing stays behind")
{
	struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 64 * PAGE};
	struct world w;
	struct kid kid;
	unsigned char *view;
	uint64_t before;

	shared_make();
	world_make_with(&w, 64 * PAGE, &options);
	script_put_pattern(w.store, 0, 64, 1);
	world_open(&w, 0);
	view = map_private(&w, 64);
	for (size_t i = 0; i < 16; i++)
		put(view + i * PAGE, 'p');
	before = world_stat(&w).private_bytes;
	if (kid_fork(&kid) == 0) {
		for (size_t i = 0; i < 64; i++)
			view[i * PAGE] = 'c';
		for (size_t i = 0; i < 64; i++)
			KID_CHECK(view[i * PAGE] == 'c');
		_exit(0);
	}
	kid_end(&kid);
	CHECK(world_stat(&w).private_bytes <= before);
	CHECK_EQ(mkw_unmap(view, 64 * PAGE), 0);
	CHECK_EQ(world_stat(&w).private_bytes, 0);
	world_end(&w);
}

/* What this process's page tables have of an address. */
static uint64_t frame_of(const void *address)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	REQUIRE(fd >= 0);
	CHECK_EQ(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)address / PAGE * 8)), 8);
	close(fd);
	return entry & ~((uint64_t)0xff << 55); /* its number, not its state */
}

TEST(s3_5_pinned_frame,
     "S3.5, 7.1 a pinned private page keeps its frame in the parent over a fork, with "
     "MKW_DONTFORK and without")
{
	for (int dontfork = 0; dontfork < 2; dontfork++) {
		struct world w;
		struct kid kid;
		struct mkw_pin *pin;
		unsigned char *view;
		uint64_t frame;

		plain_install();
		fork_world(&w, 8);
		view = map_private(&w, 8);
		for (size_t i = 0; i < 8; i++)
			put(view + i * PAGE, (unsigned char)('0' + i));
		REQUIRE_EQ(mkw_pin(view + 2 * PAGE, 2 * PAGE, MKW_WRITE, &pin), 0);
		if (dontfork)
			CHECK_EQ(mkw_advise(view, 8 * PAGE, MKW_DONTFORK), 0);
		frame = frame_of(view + 2 * PAGE);
		if (kid_fork(&kid) == 0) {
			unsigned char byte;

			if (dontfork) {
				KID_CHECK(plain_read(view, &byte, NULL) == SIGSEGV);
				_exit(0);
			}
			for (size_t i = 0; i < 8; i++)
				KID_CHECK(view[i * PAGE] == '0' + i);
			kid_turn(&kid);
			KID_CHECK(view[2 * PAGE] == '2' && view[4 * PAGE] == '4');
			view[2 * PAGE] = 'c';
			KID_CHECK(read_into(view + 3 * PAGE) == 0);
			_exit(0);
		}
		if (!dontfork) {
			kid_hear(&kid);
			view[2 * PAGE] = 'p';
			view[4 * PAGE] = 'p';
			CHECK(frame_of(view + 2 * PAGE) == frame);
			kid_say(&kid);
		}
		kid_end(&kid);
		view[2 * PAGE] = 'q';
		CHECK(frame_of(view + 2 * PAGE) == frame);
		CHECK_EQ(view[3 * PAGE], '3');
		CHECK_EQ(mkw_unpin(pin), 0);
		CHECK_EQ(mkw_unmap(view, 8 * PAGE), 0);
		world_end(&w);
	}
}

TEST(r7_1_pinned_unreadable,
     "7.1 a pinned private page that may not be read is copied all the same")
{
	struct world w;
	struct kid kid;
	struct mkw_pin *pin;
	unsigned char *view;
	uint64_t frame;

	fork_world(&w, 4);
	view = map_private(&w, 4);
	put(view + PAGE, 'p');
	REQUIRE_EQ(mkw_pin(view + PAGE, PAGE, MKW_WRITE, &pin), 0);
	frame = frame_of(view + PAGE);
	REQUIRE_EQ(mkw_protect(view + PAGE, PAGE, 0), 0);
	if (kid_fork(&kid) == 0) {
		kid_turn(&kid);
		KID_CHECK(mprotect(view + PAGE, PAGE, PROT_READ) == 0);
		KID_CHECK(view[PAGE] == 'p');
		_exit(0);
	}
	kid_hear(&kid);
	REQUIRE_EQ(mkw_protect(view + PAGE, PAGE, MKW_READ | MKW_WRITE), 0);
	put(view + PAGE, 'q');
	CHECK(frame_of(view + PAGE) == frame);
	kid_say(&kid);
	kid_end(&kid);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	world_end(&w);
}

/* ---- Refusals ----------------------------------------------------------------------------- */

TEST(r7_1_refused_in_child,
     "7.1 a refused write of the child: SIGBUS to its guard, EFAULT in a call")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 4);
	script_fail_page(w.store, SCRIPT_MKWRITE, 2, -ENOSPC);
	if (kid_fork(&kid) == 0) {
		unsigned char *at = w.view + 2 * PAGE + 77;
		struct mkw_refusal refusal, last;

		KID_CHECK(try_write(at, 'x', &refusal) == -ENOSPC);
		KID_CHECK(refusal.address == at && refusal.write &&
			  refusal.offset == 2 * PAGE + 77);
		KID_CHECK(mkw_last_refusal(&last) == 0 && last.error == -ENOSPC);
		for (int i = 0; i < 20; i++) {
			KID_CHECK(read_into(w.view + 2 * PAGE + i) == EFAULT);
			KID_CHECK(mkw_last_refusal(&last) == 0 && last.error == -ENOSPC);
			KID_CHECK(try_write(at, 'x', &refusal) == -ENOSPC);
			KID_CHECK(read_into(w.view + PAGE) == 0);
		}
		KID_CHECK(*at == script_pattern(2 * PAGE + 77, 1));
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(try_write(w.view + 2 * PAGE, 'y', NULL), -ENOSPC);
	world_end(&w);
}

static void *read_much(void *address)
{
	for (int i = 0; i < 300; i++)
		KID_CHECK(read_into(address) == EFAULT);
	return NULL;
}

TEST(r7_1_refused_in_two_ways,
     "7.1 a thread of the child is refused by signal, while another is in a call")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 4);
	script_fail_page(w.store, SCRIPT_MKWRITE, 2, -ENOSPC);
	if (kid_fork(&kid) == 0) {
		pthread_t thread;

		KID_CHECK(pthread_create(&thread, NULL, read_much, w.view + 2 * PAGE) == 0);
		for (int i = 0; i < 300; i++)
			KID_CHECK(try_write(w.view + 2 * PAGE + 9, 'x', NULL) == -ENOSPC);
		KID_CHECK(pthread_join(thread, NULL) == 0);
		_exit(0);
	}
	kid_end(&kid);
	world_end(&w);
}

TEST(r7_1_refused_plainly, "7.1 a handler of the program gets the child's SIGBUS as the kernel's")
{
	struct world w;
	struct kid kid;

	shared_make();
	plain_install();
	fork_world(&w, 4);
	script_fail_page(w.store, SCRIPT_MKWRITE, 1, -EIO);
	if (kid_fork(&kid) == 0) {
		siginfo_t info;

		KID_CHECK(plain_write(w.view + PAGE + 5, 'x', &info) == SIGBUS);
		KID_CHECK(info.si_code == BUS_ADRERR && info.si_addr == w.view + PAGE + 5);
		_exit(0);
	}
	kid_end(&kid);
	world_end(&w);
}

TEST(r7_1_refused_blocked, "7.1 a refused child that blocks SIGBUS dies of it, and nobody else")
{
	struct world w;
	struct kid kid;
	int status;

	fork_world(&w, 4);
	script_fail_page(w.store, SCRIPT_MKWRITE, 1, -EIO);
	if (kid_fork(&kid) == 0) {
		sigset_t bus;

		sigemptyset(&bus);
		sigaddset(&bus, SIGBUS);
		sigprocmask(SIG_BLOCK, &bus, NULL);
		w.view[PAGE] = 'x';
		_exit(0);
	}
	status = status_of(kid.pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	kid_close(&kid);
	put(w.view, 'p');
	world_end(&w);
}

/* ---- Ends --------------------------------------------------------------------------------- */

TEST(r7_1_child_killed, "7.1 a child is killed while its fault is being served: the parent goes on")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 4);
	for (unsigned round = 0; round < 3; round++) {
		test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, round);
		if (kid_fork(&kid) == 0) {
			w.view[round * PAGE] = 'c';
			_exit(1);
		}
		CHECK(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
		kid_kill(&kid);
		test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
		put(w.view + 3 * PAGE, (unsigned char)('p' + round));
		CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	}
	world_end(&w);
}

TEST(r7_1_child_writes_then_dies, "7.1, 7.4 what a child wrote outlives it")
{
	struct world w;
	struct kid kid;
	unsigned char now;

	fork_world(&w, 4);
	if (kid_fork(&kid) == 0) {
		w.view[0] = 'c';
		kid_turn(&kid);
		_exit(1);
	}
	kid_hear(&kid);
	kid_kill(&kid);
	CHECK_EQ(world_stat(&w).dirty_bytes, PAGE);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	script_get(w.store, 0, &now, 1);
	CHECK_EQ(now, 'c');
	world_end(&w);
}

TEST(r7_1_child_keeps_object, "7.1, 7.4 an object lives until its last child's view is gone")
{
	struct world w;
	struct kid kid;
	unsigned char now;

	fork_world(&w, 4);
	if (kid_fork(&kid) == 0) {
		kid_turn(&kid);
		w.view[0] = 'c';
		kid_turn(&kid);
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(mkw_unmap(w.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_close(w.handle), 0);
	CHECK_EQ(script_calls(w.store, SCRIPT_RELEASE), 0);
	kid_say(&kid);
	kid_hear(&kid);
	CHECK_EQ(script_calls(w.store, SCRIPT_RELEASE), 0);
	kid_say(&kid);
	kid_end(&kid);
	CHECK(script_wait_calls(w.store, SCRIPT_RELEASE, 1));
	script_get(w.store, 0, &now, 1);
	CHECK_EQ(now, 'c');
	w.view = NULL;
	w.handle = NULL;
	world_end(&w);
}

/* What a child finds in a view of four pages, whose first it wrote before its server ended, whose
 * second it read, and whose others it never touched. */
static void orphan_looks(unsigned char *view)
{
	struct mkw_refusal refusal;
	unsigned char byte;

	KID_CHECK(view[0] == 'c' && view[PAGE] == script_pattern(PAGE, 1));
	for (int i = 0; i < 3; i++) {
		KID_CHECK(try_read(view + 2 * PAGE + 3, &byte, &refusal) == -EOWNERDEAD);
		KID_CHECK(refusal.address == view + 2 * PAGE + 3 && !refusal.write);
		KID_CHECK(strstr(refusal.message, "ended") != NULL);
		KID_CHECK(try_write(view + 3 * PAGE, 'x', &refusal) == -EOWNERDEAD);
		KID_CHECK(try_write(view + PAGE, 'x', &refusal) == -EOWNERDEAD);
		KID_CHECK(refusal.write);
		KID_CHECK(read_into(view + PAGE) == EFAULT);
		KID_CHECK(read_into(view + 2 * PAGE) == EFAULT);
	}
	KID_CHECK(view[PAGE] == script_pattern(PAGE, 1));
}

/* Kill the process that serves a child, which then calls then(view) in a thread where `inside`
 * waits for the store. */
static void server_dies(void (*then)(unsigned char *view), bool waiting)
{
	struct kid middle, kid;

	shared_make();
	REQUIRE_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	if (kid_fork(&middle) == 0) {
		struct world w;

		fork_world(&w, 4);
		if (waiting)
			test_gate_arm(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 3);
		if (kid_fork(&kid) == 0) {
			shared->pid = getpid();
			w.view[0] = 'c';
			KID_CHECK(w.view[PAGE] == script_pattern(PAGE, 1));
			if (!waiting) {
				say(middle.up[1]);
				KID_CHECK(hear(middle.down[0]));
			}
			then(w.view);
			_exit(0);
		}
		if (waiting) {
			test_gate_wait_arrived(w.store, SCRIPT_FAULT, SCRIPT_ENTRY, 1);
			say(middle.up[1]);
		}
		hear(kid.up[0]); /* for ever */
		_exit(2);
	}
	kid_hear(&middle);
	REQUIRE_EQ(kill(middle.pid, SIGKILL), 0);
	CHECK(WIFSIGNALED(status_of(middle.pid)));
	if (!waiting)
		kid_say(&middle);
	CHECK_EQ(status_of(shared->pid), 0);
	CHECK_EQ(shared->line, 0);
	kid_close(&middle);
}

TEST(r7_1_server_killed, "7.1 the parent goes first: a clear error in the child, never zeros")
{
	server_dies(orphan_looks, false);
}

static void orphan_waited(unsigned char *view)
{
	unsigned char byte;

	KID_CHECK(try_read(view + 3 * PAGE, &byte, NULL) == -EOWNERDEAD);
	orphan_looks(view);
}

TEST(r7_1_server_killed_serving, "7.1 the parent dies while it serves the child's fault")
{
	server_dies(orphan_waited, true);
}

TEST(r7_1_space_destroyed,
     "7.1 the space ends before the child: nothing dirty is lost, then EOWNERDEAD")
{
	struct world w;
	struct kid kid;
	unsigned char now;

	fork_world(&w, 4);
	if (kid_fork(&kid) == 0) {
		unsigned char byte;

		w.view[0] = 'c';
		KID_CHECK(w.view[PAGE] == script_pattern(PAGE, 1));
		kid_turn(&kid);
		for (size_t i = 0; i < 4; i++) {
			KID_CHECK(try_read(w.view + i * PAGE, &byte, NULL) == -EOWNERDEAD);
			KID_CHECK(try_write(w.view + i * PAGE, 'd', NULL) == -EOWNERDEAD);
			KID_CHECK(read_into(w.view + i * PAGE) == EFAULT);
		}
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(mkw_unmap(w.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_close(w.handle), 0);
	CHECK_EQ(mkw_space_destroy(w.space, 0), 0);
	script_get(w.store, 0, &now, 1);
	CHECK_EQ(now, 'c');
	CHECK(script_destroy(w.store));
	kid_say(&kid);
	kid_end(&kid);
}

TEST(r7_1_space_destroyed_copied,
     "7.1 a child is told of the space's end though another process has copies of its descriptors")
{
	struct world w;
	struct kid kid;
	pid_t pid;

	fork_world(&w, 4);
	if (kid_fork(&kid) == 0) {
		kid_turn(&kid);
		KID_CHECK(try_write(w.view, 'd', NULL) == -EOWNERDEAD);
		_exit(0);
	}
	kid_hear(&kid);
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	REQUIRE(pid >= 0);
	if (pid == 0)
		for (;;)
			pause();
	CHECK_EQ(mkw_unmap(w.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_close(w.handle), 0);
	CHECK_EQ(mkw_space_destroy(w.space, 0), 0);
	CHECK(script_destroy(w.store));
	kid_say(&kid);
	kid_end(&kid);
	REQUIRE_EQ(kill(pid, SIGKILL), 0);
	CHECK(WIFSIGNALED(status_of(pid)));
}

TEST(r7_1_space_destroyed_waiting,
     "7.1 the space ends while a child waits for the store to have space")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 4);
	CHECK_EQ(mkw_set_policy(w.handle, MKW_WAIT, NULL, NULL), 0);
	script_fail_page(w.store, SCRIPT_MKWRITE, 0, -ENOSPC);
	if (kid_fork(&kid) == 0) {
		KID_CHECK(try_write(w.view, 'd', NULL) == -EOWNERDEAD);
		_exit(0);
	}
	CHECK(script_wait_calls(w.store, SCRIPT_MKWRITE, 1));
	test_wait_until(world_stat(&w).waits > 0);
	CHECK_EQ(mkw_unmap(w.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_close(w.handle), 0);
	CHECK_EQ(mkw_space_destroy(w.space, 0), 0);
	CHECK(script_destroy(w.store));
	kid_end(&kid);
}

/* ---- Grandchildren ------------------------------------------------------------------------ */

TEST(r7_1_grandchild, "7.1 a child's child is served by the one who made the space")
{
	struct world w;
	struct kid kid, grandkid;
	unsigned char now[3];

	fork_world(&w, 4);
	put(w.view, 'p');
	if (kid_fork(&kid) == 0) {
		w.view[0] = 'c';
		if (kid_fork(&grandkid) == 0) {
			w.view[0] = '1';
			w.view[PAGE] = 'g';
			kid_turn(&kid);
			w.view[0] = '2';
			KID_CHECK(w.view[2 * PAGE] == script_pattern(2 * PAGE, 1));
			_exit(0);
		}
		KID_CHECK(status_of(grandkid.pid) == 0);
		KID_CHECK(w.view[0] == '2' && w.view[PAGE] == 'g');
		w.view[2 * PAGE] = 'c';
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 0), 1);
	kid_say(&kid);
	kid_end(&kid);
	CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, 0), 2);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	for (size_t i = 0; i < 3; i++)
		script_get(w.store, i * PAGE, &now[i], 1);
	CHECK(now[0] == '2' && now[1] == 'g' && now[2] == 'c');
	world_end(&w);
}

TEST(r7_1_grandchild_alone,
     "7.1 a grandchild outlives the process between, and is refused as a child is")
{
	struct world w;
	struct kid kid, grandkid;

	fork_world(&w, 4);
	script_fail_page(w.store, SCRIPT_MKWRITE, 3, -EDQUOT);
	REQUIRE_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	if (kid_fork(&kid) == 0) {
		if (kid_fork(&grandkid) == 0) {
			struct mkw_refusal refusal;

			shared->pid = getpid();
			kid_turn(&kid);
			w.view[PAGE] = 'g';
			KID_CHECK(try_write(w.view + 3 * PAGE, 'x', &refusal) == -EDQUOT);
			KID_CHECK(read_into(w.view + 3 * PAGE) == EFAULT);
			_exit(0);
		}
		hear(grandkid.up[0]); /* for ever */
		_exit(1);
	}
	kid_hear(&kid);
	REQUIRE_EQ(kill(kid.pid, SIGKILL), 0);
	CHECK(WIFSIGNALED(status_of(kid.pid)));
	kid_say(&kid);
	CHECK_EQ(status_of(shared->pid), 0);
	CHECK_EQ(shared->line, 0);
	kid_close(&kid);
	CHECK_EQ(get(w.view + PAGE), 'g');
	world_end(&w);
}

static void orphan_forks(unsigned char *view)
{
	siginfo_t info;
	pid_t pid = fork();

	KID_CHECK(pid >= 0);
	if (pid == 0) {
		KID_CHECK(plain_write(view, 'x', &info) == SIGSEGV);
		_exit(0);
	}
	KID_CHECK(status_of(pid) == 0);
	orphan_looks(view);
}

TEST(r7_1_orphan_forks, "7.1 whose server is gone hands its views down to nobody")
{
	plain_install();
	server_dies(orphan_forks, false);
}

/* ---- What the child does ------------------------------------------------------------------ */

TEST(r7_1_exec, "7.1 a child that executes something else is gone")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 4);
	if (kid_fork(&kid) == 0) {
		w.view[0] = 'c';
		execl("/bin/true", "true", (char *)NULL);
		_exit(1);
	}
	kid_end(&kid);
	CHECK_EQ(mkw_unmap(w.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_close(w.handle), 0);
	CHECK(script_wait_calls(w.store, SCRIPT_RELEASE, 1));
	w.view = NULL;
	w.handle = NULL;
	world_end(&w);
}

TEST(r7_1_closes_descriptors, "7.1 a child that closes all its descriptors goes on being served")
{
	struct world w;
	struct kid kid;

	fork_world(&w, 4);
	script_fail_page(w.store, SCRIPT_MKWRITE, 3, -ENOSPC);
	if (kid_fork(&kid) == 0) {
		pid_t pid;

		KID_CHECK(syscall(SYS_close_range, 0, ~0u, 0) == 0);
		w.view[0] = 'c';
		KID_CHECK(try_write(w.view + 3 * PAGE, 'x', NULL) == -ENOSPC);
		KID_CHECK(read_into(w.view + 3 * PAGE) == EFAULT);
		pid = fork();
		KID_CHECK(pid >= 0);
		if (pid == 0) {
			w.view[PAGE] = 'g';
			_exit(0);
		}
		KID_CHECK(status_of(pid) == 0);
		KID_CHECK(w.view[PAGE] == 'g');
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(get(w.view + PAGE), 'g');
	world_end(&w);
}

TEST(r7_1_keeps_no_descriptor, "7.1 a child's own descriptors end when it closes them")
{
	struct world w;
	struct kid kid;
	int ends[2];

	fork_world(&w, 4);
	REQUIRE_EQ(pipe(ends), 0);
	if (kid_fork(&kid) == 0) {
		close(ends[1]);
		w.view[0] = 'c';
		kid_turn(&kid);
		_exit(0);
	}
	kid_hear(&kid);
	close(ends[1]);
	CHECK(!hear(ends[0]));
	close(ends[0]);
	kid_say(&kid);
	kid_end(&kid);
	world_end(&w);
}

static size_t descriptors(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

TEST(r7_1_no_new_descriptor, "7.1 a fork leaves no descriptor behind, in neither process")
{
	struct mkw_space_options options = {RIG_QUIET, .swap_path = "/tmp"};
	struct world w;
	struct kid kid;
	size_t before;

	shared_make();
	world_make_with(&w, 4 * PAGE, &options);
	world_open(&w, 4 * PAGE);
	before = descriptors();
	if (kid_fork(&kid) == 0) {
		pid_t pid;

		/* One end of each pipe; what the space had is the parent's alone. */
		KID_CHECK(descriptors() <= before + 2 - 4);
		before = descriptors();
		pid = fork();
		KID_CHECK(pid >= 0 && descriptors() == before);
		if (pid == 0)
			_exit(0);
		KID_CHECK(status_of(pid) == 0);
		_exit(0);
	}
	kid_end(&kid);
	/* Of each of the two that are gone there is one until the next fork. */
	test_wait_until(descriptors() <= before + 2);
	world_end(&w);
}

TEST(r7_1_no_descriptors, "7.1 a fork comes back however few descriptors are left for it")
{
	struct rlimit limit, few;
	struct world w;
	int got = 0;

	fork_world(&w, 4);
	plain_install();
	REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	for (rlim_t n = 3; got < 2 && n < 1000; n++) {
		pid_t pid;
		int met;

		few.rlim_cur = n;
		REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
		pid = fork();
		if (pid == 0)
			_exit(plain_write(w.view, 'c', NULL));
		REQUIRE(pid >= 0);
		met = WEXITSTATUS(status_of(pid));
		CHECK(met == 0 || met == SIGSEGV);
		got += met == 0;
		put(w.view, 'p');
	}
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	CHECK_EQ(got, 2);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	world_end(&w);
}

TEST(r7_1_unmaps, "7.1, 7.4 a child unmaps a view, or a hole in it, and the rest goes on")
{
	struct world w;
	struct kid kid;
	unsigned char *second;

	fork_world(&w, 16);
	second = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	if (kid_fork(&kid) == 0) {
		void *hole = w.view + 5 * PAGE;

		KID_CHECK(mkw_unmap(second, 4 * PAGE) == 0);
		KID_CHECK(munmap(hole, 2 * PAGE) == 0);
		KID_CHECK(mmap(hole, PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == hole);
		*(char *)hole = 'o';
		for (size_t i = 0; i < 16; i++)
			if (i != 5 && i != 6)
				w.view[i * PAGE] = '1';
		kid_turn(&kid);
		for (size_t i = 0; i < 16; i++)
			if (i != 5 && i != 6)
				w.view[i * PAGE] = '2';
		KID_CHECK(*(char *)hole == 'o');
		_exit(0);
	}
	kid_hear(&kid);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	kid_say(&kid);
	kid_end(&kid);
	for (size_t i = 0; i < 16; i++)
		CHECK_EQ(script_calls_on(w.store, SCRIPT_MKWRITE, i), i == 5 || i == 6 ? 0 : 2);
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

static void *write_unmapped(void *arg)
{
	KID_CHECK(plain_write(arg, 'x', NULL) == SIGSEGV);
	return NULL;
}

static void unmapped_while_waiting(bool refused, bool plainly)
{
	struct test_thread thread;
	struct world w;
	struct kid kid;

	plain_install();
	fork_world(&w, 4);
	if (refused)
		script_fail_page(w.store, SCRIPT_MKWRITE, 2, -ENOSPC);
	test_gate_arm(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 2);
	if (kid_fork(&kid) == 0) {
		test_thread_start(&thread, write_unmapped, w.view + 2 * PAGE);
		kid_turn(&kid);
		KID_CHECK((plainly ? munmap : mkw_unmap)(w.view, 4 * PAGE) == 0);
		kid_turn(&kid);
		test_thread_join(&thread);
		_exit(0);
	}
	kid_hear(&kid);
	REQUIRE(test_gate_wait_arrived(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	kid_say(&kid);
	kid_hear(&kid);
	test_gate_release(w.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	kid_say(&kid);
	kid_end(&kid);
	world_end(&w);
}

TEST(r7_1_unmapped_while_waiting,
     "7.1, 7.4 a child unmaps a view, and the thread that waits there is let go, whatever comes")
{
	unmapped_while_waiting(true, false);
	unmapped_while_waiting(false, false);
	unmapped_while_waiting(false, true);
}

TEST(r7_1_holes_fork, "7.1 whoever has made a hole in a view hands down the rest of it")
{
	struct world w;
	struct kid kid, grandkid;

	fork_world(&w, 8);
	CHECK_EQ(munmap(w.view + PAGE, PAGE), 0);
	if (kid_fork(&kid) == 0) {
		w.view[2 * PAGE] = 'c';
		KID_CHECK(munmap(w.view + 4 * PAGE, PAGE) == 0);
		if (kid_fork(&grandkid) == 0) {
			w.view[0] = 'g';
			w.view[5 * PAGE] = 'g';
			_exit(0);
		}
		KID_CHECK(status_of(grandkid.pid) == 0);
		KID_CHECK(w.view[0] == 'g' && w.view[5 * PAGE] == 'g');
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(get(w.view + 2 * PAGE), 'c');
	CHECK_EQ(get(w.view + 5 * PAGE), 'g');
	world_end(&w);
}

TEST(r7_1_calls_are_refused, "7.1 calls about the parent's space are answered ECHILD in the child")
{
	struct world w;
	struct kid kid;
	struct mkw_pin *pin;

	fork_world(&w, 4);
	put(w.view, 'p');
	REQUIRE_EQ(mkw_pin(w.view, PAGE, MKW_WRITE, &pin), 0);
	if (kid_fork(&kid) == 0) {
		struct mkw_handle *handle;
		struct mkw_stat stat;
		struct mkw_range range;
		void *address;
		char byte = 0;

		KID_CHECK(mkw_sync(w.handle, 0, 0) == -ECHILD);
		KID_CHECK(strstr(mkw_error_message(), "forked") != NULL);
		KID_CHECK(mkw_pread(w.handle, &byte, 1, 0) == -ECHILD);
		KID_CHECK(mkw_pwrite(w.handle, &byte, 1, 0) == -ECHILD);
		KID_CHECK(mkw_truncate(w.handle, 0) == -ECHILD);
		KID_CHECK(mkw_punch(w.handle, 0, PAGE) == -ECHILD);
		KID_CHECK(mkw_invalidate(w.handle, 0, PAGE) == -ECHILD);
		KID_CHECK(mkw_discard(w.handle, 0, PAGE) == -ECHILD);
		KID_CHECK(mkw_freeze(w.handle) == -ECHILD);
		KID_CHECK(mkw_thaw(w.handle) == -ECHILD);
		KID_CHECK(mkw_set_limits(w.handle, 0, 0) == -ECHILD);
		KID_CHECK(mkw_set_policy(w.handle, MKW_WAIT, NULL, NULL) == -ECHILD);
		KID_CHECK(mkw_control(w.handle, "capacity=1") == -ECHILD);
		KID_CHECK(mkw_capacity(w.handle, NULL, NULL) == -ECHILD);
		KID_CHECK(mkw_dirty_ranges(w.handle, 0, 0, &range, 1) == -ECHILD);
		KID_CHECK(mkw_object_stat(w.handle, &stat, sizeof(stat)) == -ECHILD);
		KID_CHECK(mkw_space_stat(w.space, &stat, sizeof(stat)) == -ECHILD);
		KID_CHECK(mkw_map(w.handle, PAGE, MKW_READ, 0, 0, &address) == -ECHILD);
		KID_CHECK(mkw_msync(w.view, PAGE) == -ECHILD);
		KID_CHECK(mkw_advise(w.view, PAGE, MKW_WILLNEED) == -ECHILD);
		KID_CHECK(mkw_reserve(w.view, PAGE) == -ECHILD);
		KID_CHECK(mkw_unreserve(w.view, PAGE) == -ECHILD);
		KID_CHECK(mkw_unpin(pin) == -ECHILD);
		KID_CHECK(mkw_open(w.space, "mem:4096", MKW_RDWR, &handle) == -ECHILD);
		KID_CHECK(mkw_close(w.handle) == -ECHILD);
		KID_CHECK(mkw_space_destroy(w.space, 0) == -ECHILD);
		KID_CHECK(strcmp(mkw_version(), MKW_VERSION) == 0);
		w.view[0] = 'c';
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(get(w.view), 'c');
	CHECK_EQ(mkw_unpin(pin), 0);
	world_end(&w);
}

TEST(r7_1_new_space_in_child, "7.1 a child makes a space of its own, besides what it has inherited")
{
	struct world w;
	struct kid kid, grandkid;

	fork_world(&w, 4);
	if (kid_fork(&kid) == 0) {
		struct mkw_space *space;
		struct mkw_handle *handle;
		void *address;
		unsigned char *own, byte;

		KID_CHECK(mkw_space_create(NULL, &space) == 0);
		KID_CHECK(mkw_open(space, "mem:64K", MKW_RDWR, &handle) == 0);
		KID_CHECK(mkw_map(handle, 16 * PAGE, MKW_READ | MKW_WRITE, 0, 0, &address) == 0);
		own = address;
		own[0] = 'o';
		w.view[0] = 'c';
		if (kid_fork(&grandkid) == 0) {
			own[PAGE] = 'g';
			w.view[PAGE] = 'g';
			_exit(0);
		}
		KID_CHECK(status_of(grandkid.pid) == 0);
		KID_CHECK(own[PAGE] == 'g' && w.view[PAGE] == 'g');
		KID_CHECK(mkw_pread(handle, &byte, 1, PAGE) == 1 && byte == 'g');
		KID_CHECK(mkw_sync(handle, 0, 0) == 0);
		KID_CHECK(mkw_unmap(own, 16 * PAGE) == 0);
		KID_CHECK(mkw_close(handle) == 0);
		KID_CHECK(mkw_space_destroy(space, 0) == 0);
		w.view[2 * PAGE] = 'c';
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(get(w.view + PAGE), 'g');
	CHECK_EQ(get(w.view + 2 * PAGE), 'c');
	world_end(&w);
}

/* ---- Who does not inherit ----------------------------------------------------------------- */

TEST(r7_2_dontfork,
     "7.2, S3.5 a view that is advised DONTFORK is a SIGSEGV in the child; DOFORK undoes it")
{
	struct world w;
	struct kid kid;
	unsigned char *second;

	shared_make();
	plain_install();
	fork_world(&w, 4);
	second = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	CHECK_EQ(mkw_advise(w.view, 4 * PAGE, MKW_DONTFORK), 0);
	for (int round = 0; round < 2; round++) {
		if (kid_fork(&kid) == 0) {
			int expected = round == 0 ? SIGSEGV : 0;
			unsigned char byte;

			/* Nothing comes to lie where it was. */
			for (int i = 0; i < 64; i++)
				KID_CHECK(mmap(NULL, PAGE << i % 4, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
			KID_CHECK(plain_read(w.view, &byte, NULL) == expected);
			KID_CHECK(plain_write(w.view + PAGE, 'x', NULL) == expected);
			second[2 * PAGE] = 'c';
			_exit(0);
		}
		kid_end(&kid);
		CHECK_EQ(get(w.view + 2 * PAGE), 'c');
		CHECK_EQ(mkw_advise(w.view, 4 * PAGE, MKW_DOFORK), 0);
	}
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

TEST(r7_2_dontfork_parts,
     "7.2 DONTFORK of a part: the child has the rest of the view, and the parent all of it")
{
	struct world w;
	struct kid kid;

	shared_make();
	plain_install();
	fork_world(&w, 4);
	CHECK_EQ(mkw_advise(w.view + PAGE, 2 * PAGE, MKW_DONTFORK), 0);
	CHECK_EQ(mkw_advise(w.view + PAGE, PAGE, MKW_DOFORK), 0);
	if (kid_fork(&kid) == 0) {
		unsigned char byte;

		KID_CHECK(plain_read(w.view + 2 * PAGE, &byte, NULL) == SIGSEGV);
		w.view[0] = w.view[PAGE] = w.view[3 * PAGE] = 'c';
		_exit(0);
	}
	kid_end(&kid);
	put(w.view + 2 * PAGE, 'p');
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(get(w.view + i * PAGE), i == 2 ? 'p' : 'c');
	CHECK_EQ(mkw_advise(w.view, 4 * PAGE, MKW_DOFORK), 0);
	world_end(&w);
}

TEST(r7_2_inline_is_not_inherited, "7.2 an inline view is left out")
{
	struct world w;
	struct kid kid;
	void *view;

	shared_make();
	plain_install();
	fork_world(&w, 4);
	if (mkw_map(w.handle, 4 * PAGE, MKW_READ, MKW_INLINE, 0, &view) != 0)
		SKIP("%s", mkw_error_message());
	CHECK_EQ(mkw_advise(view, 4 * PAGE, MKW_DOFORK), -EINVAL);
	if (kid_fork(&kid) == 0) {
		unsigned char byte;

		KID_CHECK(plain_read(view, &byte, NULL) == SIGSEGV);
		w.view[0] = 'c';
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(mkw_unmap(view, 4 * PAGE), 0);
	world_end(&w);
}

TEST(r7_1_other_numbers, "7.1 a child of another PID namespace cannot be told of, and has no view")
{
	struct world w;
	struct kid kid;

	shared_make();
	plain_install();
	fork_world(&w, 4);
	put(w.view, 'p');
	if (unshare(CLONE_NEWPID) != 0)
		SKIP("no PID namespace can be made: errno %d", errno);
	if (kid_fork(&kid) == 0) {
		KID_CHECK(plain_write(w.view, 'x', NULL) == SIGSEGV);
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(get(w.view), 'p');
	world_end(&w);
}

TEST(r7_2_without_events,
     "7.2 where the kernel tells of no fork a child has no view, and the parent goes on")
{
	struct world w;
	struct kid kid;

	shared_make();
	plain_install();
	REQUIRE_EQ(setenv("MKW_UFFD_WITHOUT", "fork", 1), 0);
	world_make(&w, 4 * PAGE);
	world_open(&w, 4 * PAGE);
	put(w.view, 'p');
	if (kid_fork(&kid) == 0) {
		unsigned char byte;

		KID_CHECK(plain_read(w.view, &byte, NULL) == SIGSEGV);
		KID_CHECK(mkw_sync(w.handle, 0, 0) == -ECHILD);
		_exit(0);
	}
	put(w.view + PAGE, 'p');
	kid_end(&kid);
	world_end(&w);
}

TEST(r7_2_other_ways, "7.2 a process made without fork has no view, in place of one nobody watches")
{
	struct world w;
	struct kid kid;
	int status;
	pid_t pid;

	shared_make();
	plain_install();
	fork_world(&w, 4);
	put(w.view, 'p');
	if (kid_fork(&kid) == 0)
		_exit(0);
	kid_end(&kid);
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	REQUIRE(pid >= 0);
	if (pid == 0) {
		volatile unsigned char *view = w.view;

		signal(SIGSEGV, SIG_DFL);
		_exit(view[0]);
	}
	status = status_of(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	world_end(&w);
}

/* ---- Under fire --------------------------------------------------------------------------- */

struct fire {
	unsigned char *view;
	uint64_t pages, seed;
	_Atomic bool stop;
	_Atomic uint64_t done;
	struct test_thread thread;
};

static void *fire_run(void *arg)
{
	struct fire *fire = arg;

	while (!fire->stop) {
		uint64_t page = rig_random(&fire->seed) % fire->pages;

		atomic_fetch_add(rig_word(fire->view, page), 1);
		fire->done++;
	}
	return NULL;
}

#define FIRES 3

static void fires_start(struct fire *fires, unsigned char *view, uint64_t pages)
{
	for (unsigned i = 0; i < FIRES; i++) {
		fires[i].view = view;
		fires[i].pages = pages;
		fires[i].seed = i;
		fires[i].stop = false;
		fires[i].done = 0;
		test_thread_start(&fires[i].thread, fire_run, &fires[i]);
	}
}

static uint64_t fires_stop(struct fire *fires)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < FIRES; i++)
		fires[i].stop = true;
	for (unsigned i = 0; i < FIRES; i++) {
		test_thread_join(&fires[i].thread);
		done += fires[i].done;
	}
	return done;
}

static void check_sum(struct rig *rig, uint64_t expected)
{
	uint64_t seen = 0, stored = 0;

	CHECK_EQ(mkw_sync(rig->handle, 0, 0), 0);
	for (uint64_t i = 0; i < rig->pages; i++) {
		seen += *rig_word(rig->view, i);
		stored += rig_stored_word(rig, i);
	}
	CHECK_EQ(seen, expected);
	CHECK_EQ(stored, expected);
}

#define FIRE_OPTIONS                                                                         \
	{                                                                                    \
		.struct_size = sizeof(struct mkw_space_options), .writeback_interval_ms = 1, \
		.dirty_limit_bytes = 8 * PAGE                                                \
	}

TEST(r7_1_fork_under_fire,
     "7.1 forks while threads fault: every addition of parent and children counts")
{
	struct mkw_space_options options = FIRE_OPTIONS;
	struct fire fires[FIRES];
	struct rig rig;
	uint64_t expected = 0;

	shared_make();
	rig_open(&rig, &options, 64, MKW_RDWR);
	fires_start(fires, rig.view, 64);
	for (unsigned round = 0; round < test_rounds(60); round++) {
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (pid == 0) {
			for (uint64_t i = 0; i < 8; i++)
				atomic_fetch_add(rig_word(rig.view, (round * 5 + i * 7) % 64), 1);
			_exit(0);
		}
		expected += 8;
		if (round % 2 == 0) {
			CHECK_EQ(status_of(pid), 0);
			continue;
		}
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK_EQ(status_of(pid), 0);
	}
	expected += fires_stop(fires);
	check_sum(&rig, expected);
	rig_close(&rig);
}

static void *clone_much(void *arg)
{
	struct fire *fire = arg;

	while (!fire->stop) {
		pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

		REQUIRE(pid >= 0);
		if (pid == 0)
			_exit(0);
		CHECK_EQ(status_of(pid), 0);
		fire->done++;
	}
	return NULL;
}

TEST(r7_1_clone_beside, "7.1, I1 no other process is taken for the child, though made just then")
{
	struct fire fire = {.stop = false};
	struct world w;

	fork_world(&w, 4);
	plain_install();
	test_thread_start(&fire.thread, clone_much, &fire);
	for (unsigned round = 0; round < test_rounds(100); round++) {
		siginfo_t info;
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (pid == 0) {
			int met = plain_write(w.view, (unsigned char)round, &info);

			KID_CHECK(met == 0 || met == SIGSEGV);
			_exit(met);
		}
		if (status_of(pid) == 0)
			CHECK_EQ(get(w.view), (int)(unsigned char)round);
		CHECK_EQ(shared->line, 0);
	}
	fire.stop = true;
	test_thread_join(&fire.thread);
	world_end(&w);
}

static int vfork_and_exit(void)
{
	pid_t pid = vfork();

	if (pid == 0)
		_exit(3);
	return status_of(pid);
}

TEST(r7_1_spawn_unharmed, "7.1 posix_spawn, vfork and system while threads fault")
{
	struct mkw_space_options options = FIRE_OPTIONS;
	char *const arguments[] = {(char *)(uintptr_t) "true", NULL};
	struct fire fires[FIRES];
	struct rig rig;

	shared_make();
	rig_open(&rig, &options, 64, MKW_RDWR);
	fires_start(fires, rig.view, 64);
	for (unsigned round = 0; round < test_rounds(10); round++) {
		pid_t pid;

		REQUIRE_EQ(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ), 0);
		CHECK_EQ(status_of(pid), 0);
		CHECK_EQ(WEXITSTATUS(vfork_and_exit()), 3);
		CHECK_EQ(system("exit 4") >> 8, 4);
	}
	check_sum(&rig, fires_stop(fires));
	rig_close(&rig);
}

static void *fork_much(void *arg)
{
	struct rig *rig = arg;

	for (unsigned round = 0; round < test_rounds(10); round++) {
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (pid == 0) {
			atomic_fetch_add(rig_word(rig->view, round % 64), 1);
			_exit(0);
		}
		CHECK_EQ(status_of(pid), 0);
	}
	return NULL;
}

TEST(r7_1_forks_at_once, "7.1 several threads fork at a time, with two spaces")
{
	struct mkw_space_options options = FIRE_OPTIONS;
	struct test_thread threads[3];
	struct rig rig, other;

	shared_make();
	rig_open(&rig, &options, 64, MKW_RDWR);
	rig_open(&other, &options, 16, MKW_RDWR);
	for (unsigned i = 0; i < 3; i++)
		test_thread_start(&threads[i], fork_much, &rig);
	for (unsigned i = 0; i < 3; i++)
		test_thread_join(&threads[i]);
	check_sum(&rig, 3 * test_rounds(10));
	rig_close(&other);
	rig_close(&rig);
}

/* A child that adds to words of a view for ever. */
static pid_t hammer_fork(struct rig *rig, uint64_t seed)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid > 0)
		return pid;
	for (;; shared->value++)
		atomic_fetch_add(rig_word(rig->view, rig_random(&seed) % rig->pages), 1);
}

TEST(r7_1_killed_under_fire,
     "7.1 children are killed wherever they are: what they stored is synced, nobody hangs")
{
	struct mkw_space_options options = FIRE_OPTIONS;
	struct rig rig;

	shared_make();
	rig_open(&rig, &options, 64, MKW_RDWR);
	for (unsigned round = 0; round < test_rounds(15); round++) {
		pid_t pids[3];
		int before;

		for (unsigned i = 0; i < 3; i++)
			pids[i] = hammer_fork(&rig, round * 3 + i);
		before = shared->value;
		test_wait_until(shared->value - before > (int)round % 15 * 7);
		for (unsigned i = 0; i < 3; i++) {
			REQUIRE_EQ(kill(pids[i], SIGKILL), 0);
			if (i == 1)
				CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
			CHECK(WIFSIGNALED(status_of(pids[i])));
		}
	}
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(r7_1_destroyed_under_fire, "7.1 a space ends while its children write: all of them are told")
{
	struct mkw_space_options options = FIRE_OPTIONS;

	shared_make();
	for (unsigned round = 0; round < test_rounds(5); round++) {
		struct rig rig;
		pid_t pids[3];

		rig_open(&rig, &options, 64, MKW_RDWR);
		shared->value = 0;
		for (unsigned i = 0; i < 3; i++)
			pids[i] = hammer_fork(&rig, round * 3 + i);
		test_wait_until(shared->value > 50);
		rig_close(&rig);
		for (unsigned i = 0; i < 3; i++) {
			int status = status_of(pids[i]);

			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
		}
	}
}

TEST(r7_1_server_killed_under_fire,
     "7.1 the serving process is killed while children write: all of them are told")
{
	struct mkw_space_options options = FIRE_OPTIONS;

	shared_make();
	REQUIRE_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	for (unsigned round = 0; round < test_rounds(5); round++) {
		pid_t middle;

		shared->value = 0;
		middle = fork();
		REQUIRE(middle >= 0);
		if (middle == 0) {
			struct rig rig;

			rig_open(&rig, &options, 64, MKW_RDWR);
			for (unsigned i = 0; i < 3; i++)
				hammer_fork(&rig, round * 3 + i);
			pause();
		}
		test_wait_until(shared->value > 50);
		REQUIRE_EQ(kill(middle, SIGKILL), 0);
		CHECK(WIFSIGNALED(status_of(middle)));
		for (unsigned i = 0; i < 3; i++) {
			int status = status_of(-1);

			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
		}
	}
}

static void fork_inside(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	unsigned char *view = arg;
	pid_t pid = fork();

	(void)object;
	(void)run;
	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(view ? view[0] != script_pattern(0, 1) : 0);
	CHECK_EQ(status_of(pid), 0);
}

TEST(r7_1_store_forks, "7.1 a store forks inside of its operations, for which other threads wait")
{
	struct world w;
	struct kid kid;
	void *inline_view;

	fork_world(&w, 8);
	CHECK_EQ(get(w.view), script_pattern(0, 1));
	script_hook(w.store, SCRIPT_FAULT, SCRIPT_EXIT, fork_inside, w.view);
	script_hook(w.store, SCRIPT_MKWRITE, SCRIPT_EXIT, fork_inside, w.view);
	script_hook(w.store, SCRIPT_WRITE, SCRIPT_EXIT, fork_inside, NULL);
	script_hook(w.store, SCRIPT_MAP, SCRIPT_ENTRY, fork_inside, NULL);
	script_hook(w.store, SCRIPT_UNMAP, SCRIPT_ENTRY, fork_inside, NULL);
	put(w.view + PAGE, 'p');
	if (kid_fork(&kid) == 0) {
		w.view[2 * PAGE] = 'c';
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(mkw_sync(w.handle, 0, 0), 0);
	if (mkw_map(w.handle, 8 * PAGE, MKW_READ | MKW_WRITE, MKW_INLINE, 0, &inline_view) == 0) {
		put((unsigned char *)inline_view + 5 * PAGE, 'i');
		CHECK_EQ(mkw_unmap(inline_view, 8 * PAGE), 0);
	}
	CHECK_EQ(get(w.view + 2 * PAGE), 'c');
	world_end(&w);
}

static void *protect_elsewhere(void *view)
{
	CHECK_EQ(mkw_protect(view, PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_protect(view, PAGE, MKW_WRITE), 0);
	return NULL;
}

static void wait_for_protect(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct test_thread thread;

	(void)object;
	(void)run;
	test_thread_start(&thread, protect_elsewhere, arg);
	test_thread_join(&thread);
}

TEST(r7_1_store_is_told_without_locks,
     "7.1 4.1 a store that is told of a child's views waits for a thread that changes views")
{
	unsigned char *second;
	struct world w;
	struct kid kid;

	fork_world(&w, 4);
	second = world_map(&w, 0, 4, MKW_READ | MKW_WRITE);
	script_hook(w.store, SCRIPT_MAP, SCRIPT_ENTRY, wait_for_protect, second);
	if (kid_fork(&kid) == 0) {
		w.view[0] = 'c';
		_exit(0);
	}
	kid_end(&kid);
	CHECK_EQ(get(w.view), 'c');
	CHECK_EQ(mkw_unmap(second, 4 * PAGE), 0);
	world_end(&w);
}

TEST(r7_1_busy_handlers, "7.1 a fork while every handler thread sits in the store")
{
	struct mkw_space_options options = {RIG_QUIET, .workers = 1, .workers_max = 2};
	struct rig_writer writers[4];
	struct rig rig;
	struct kid kid;

	shared_make();
	rig_open(&rig, &options, 64, MKW_RDWR);
	test_gate_arm(rig.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	for (unsigned i = 0; i < 4; i++)
		rig_writer_start(&writers[i], rig_word(rig.view, i * 16), 1);
	CHECK(test_gate_wait_arrived(rig.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 2));
	if (kid_fork(&kid) == 0) {
		atomic_fetch_add(rig_word(rig.view, 63), 1);
		_exit(0);
	}
	test_gate_release(rig.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	for (unsigned i = 0; i < 4; i++)
		test_thread_join(&writers[i].thread);
	kid_end(&kid);
	check_sum(&rig, 5);
	rig_close(&rig);
}
