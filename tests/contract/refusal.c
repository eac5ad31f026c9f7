/* SPDX-License-Identifier: MIT */
/*
 * refusal.c - S1.1, S2.1, 3.5, and what mkwrite.h promises of refusals: who is told, how, where,
 * why, and who is left in peace.
 *
 * In most tests the store has room for a few pages and the object is one hole, so that the write of
 * one page more is refused.
 */
#include "harness/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void full_open_with(struct rig *rig, const struct mkw_space_options *options,
			   uint64_t capacity)
{
	rig_open(rig, options, 64, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig->view, 64 * PAGE, MKW_RANDOM), 0);
	script_set_capacity(rig->store, capacity);
}

static void full_open(struct rig *rig, uint64_t capacity)
{
	full_open_with(rig, NULL, capacity);
}

static void write_words(struct rig *rig, uint64_t first, uint64_t end, uint64_t value)
{
	for (uint64_t page = first; page < end; page++)
		*rig_word(rig->view, page) = value;
}

/* ---- SIGBUS ------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(sigbus_exact_address,
		  "S1.1 with room for N pages the write of page N+1 is a SIGBUS, "
		  "BUS_ADRERR, at its address; the first N are durable, old "
		  "bytes are intact")
{
	unsigned char value = 1;
	siginfo_t info;
	struct rig rig;

	plain_install();
	full_open(&rig, 4);
	write_words(&rig, 0, 4, 7);
	for (size_t in_page = 0; in_page < PAGE; in_page += 1365) {
		unsigned char *address = rig.view + 4 * PAGE + in_page;

		CHECK_EQ(plain_write(address, 1, &info), SIGBUS);
		CHECK(info.si_addr == address);
		CHECK_EQ(info.si_code, BUS_ADRERR);
		CHECK_EQ(plain_read(address, &value, &info), 0);
		CHECK_EQ(value, 0);
	}
	CHECK_EQ(rig_stat(&rig).refusals, 4);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK_EQ(script_allocated(rig.store), 4);
	rig_close(&rig);
}

TEST_EACH_BACKEND(sigbus_keeps_stored_bytes,
		  "S1.1 3.3 a page refused leaves its bytes as they are in "
		  "memory and in the store, and can be granted later")
{
	unsigned char old = script_pattern(5 * PAGE + 17, 2);
	struct rig rig;

	rig_open(&rig, NULL, 16, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 16 * PAGE, MKW_RANDOM), 0);
	script_put_pattern(rig.store, 0, 16, 2);
	script_fail_page(rig.store, SCRIPT_MKWRITE, 5, -EDQUOT);
	CHECK_EQ(rig.view[5 * PAGE + 17], old);
	CHECK_EQ(try_write(rig.view + 5 * PAGE + 17, (unsigned char)~old, NULL), -EDQUOT);
	CHECK_EQ(rig.view[5 * PAGE + 17], old);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	script_fail_page(rig.store, SCRIPT_MKWRITE, 5, 0);
	CHECK_EQ(try_write(rig.view + 5 * PAGE + 17, (unsigned char)~old, NULL), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

static _Atomic unsigned returning_calls;
static struct script_store *returning_store;

/* A handler that returns: the access is tried again, and after some calls there is space. */
static void returning_handler(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	(void)context;
	if (atomic_fetch_add(&returning_calls, 1) + 1 == 5)
		script_set_capacity(returning_store, SCRIPT_MAX_PAGES);
}

TEST_EACH_BACKEND(sigbus_handler_returns,
		  "S1.1 a handler that returns has the access tried again; one "
		  "signal a refusal, and success once there is space")
{
	struct sigaction action = {.sa_sigaction = returning_handler, .sa_flags = SA_SIGINFO};
	struct rig rig;

	REQUIRE_EQ(sigaction(SIGBUS, &action, NULL), 0);
	full_open(&rig, 0);
	returning_store = rig.store;
	*rig_word(rig.view, 3) = 9;
	CHECK_EQ(atomic_load(&returning_calls), 5);
	CHECK_EQ(rig_stat(&rig).refusals, 5);
	CHECK_EQ(*rig_word(rig.view, 3), 9);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

static _Atomic int late_code;

static void late_handler(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	atomic_store(&late_code, info->si_code);
	script_set_capacity(returning_store, SCRIPT_MAX_PAGES);
}

TEST(sigbus_handler_installed_later,
     "mkwrite.h: a handler that the program installs after the first "
     "space gets the signal too, with si_code < 0")
{
	struct sigaction action = {.sa_sigaction = late_handler, .sa_flags = SA_SIGINFO};
	struct rig rig;

	full_open(&rig, 0);
	returning_store = rig.store;
	REQUIRE_EQ(sigaction(SIGBUS, &action, NULL), 0);
	*rig_word(rig.view, 3) = 9;
	CHECK(atomic_load(&late_code) < 0);
	CHECK_EQ(*rig_word(rig.view, 3), 9);
	rig_close(&rig);
}

/* ---- Death by SIGBUS, as of the kernel's own ---------------------------------------------- */

static int refused_default(void *arg)
{
	struct rig rig;

	(void)arg;
	full_open(&rig, 0);
	rig.view[3 * PAGE] = 9;
	return 0;
}

TEST_EACH_BACKEND(sigbus_kills, "S1.1 nobody catches the refusal: the process dies by SIGBUS")
{
	int status = rig_child(refused_default, NULL);

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGBUS);
}

static int refused_blocked(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return refused_default(arg);
}

/* Never reached: the kernel does not run a handler for a thread that blocks the signal. */
static int refused_blocked_with_handler(void *arg)
{
	struct sigaction action = {.sa_sigaction = returning_handler, .sa_flags = SA_SIGINFO};

	sigaction(SIGBUS, &action, NULL);
	return refused_blocked(arg);
}

TEST_EACH_BACKEND(sigbus_blocked_kills, "S1.1 a thread that blocks SIGBUS is treated as the kernel "
					"treats it: the process dies, and does not hang")
{
	int status = rig_child(refused_blocked, NULL);

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGBUS);
	status = rig_child(refused_blocked_with_handler, NULL);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGBUS);
}

static int refused_ignored(void *arg)
{
	signal(SIGBUS, SIG_IGN);
	return refused_default(arg);
}

TEST_EACH_BACKEND(sigbus_ignored_kills, "S1.1 ignoring SIGBUS does not help: the process dies")
{
	int status = rig_child(refused_ignored, NULL);

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGBUS);
}

/* ---- Nobody else is disturbed ------------------------------------------------------------- */

#define REFUSED 5u
#define GRANTED 9u

/* Reads the refused page through a view, and sees its bytes as they are. */
struct reader {
	volatile unsigned char *page;
	_Atomic bool stop;
	_Atomic uint64_t done;
	struct test_thread thread;
};

static void *reader_run(void *arg)
{
	struct reader *reader = arg;

	while (!atomic_load(&reader->stop)) {
		for (size_t i = 0; i < PAGE; i += 511)
			if (!CHECK_EQ(reader->page[i], script_pattern(REFUSED * PAGE + i, 1)))
				return NULL;
		atomic_fetch_add(&reader->done, 1);
	}
	return NULL;
}

struct refuser {
	unsigned char *address;
	unsigned count, refused;
	int fd; /* a pipe to read from; -1: a plain store */
	struct test_thread thread;
};

static void *refuser_run(void *arg)
{
	struct refuser *refuser = arg;

	for (unsigned i = 0; i < refuser->count; i++) {
		if (refuser->fd >= 0)
			refuser->refused +=
				read(refuser->fd, refuser->address, 8) == -1 && errno == EFAULT;
		else
			refuser->refused += try_write(refuser->address, 1, NULL) == -ENOSPC;
	}
	return NULL;
}

/* Refuse thousands of times, by stores and, if fd is not -1, by reads from it, while readers of
 * that very page and writers of another run through two views. */
static void refuse_undisturbed(int fd, unsigned stores, unsigned reads)
{
	struct reader readers[2] = {{0}, {0}};
	struct rig_hammer hammers[2];
	struct refuser refusers[3];
	unsigned char *views[2];
	uint64_t counts[2];
	struct rig rig;

	rig_open(&rig, NULL, 16, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 16 * PAGE, MKW_RANDOM), 0);
	script_put_pattern(rig.store, 0, 16, 1);
	script_get(rig.store, GRANTED * PAGE, counts, sizeof(counts));
	script_fail_page(rig.store, SCRIPT_MKWRITE, REFUSED, -ENOSPC);
	views[0] = rig.view;
	views[1] = rig_map(rig.handle, 16, 0);
	for (int i = 0; i < 2; i++) {
		readers[i].page = views[i] + REFUSED * PAGE;
		test_thread_start(&readers[i].thread, reader_run, &readers[i]);
		rig_hammer_start(&hammers[i], rig_word(views[i], GRANTED) + i);
	}
	for (unsigned i = 0; i < 3; i++) {
		refusers[i] = (struct refuser){.address = views[i % 2] + REFUSED * PAGE + 100 * i,
					       .count = i == 2 ? reads : stores,
					       .fd = i == 2 ? fd : -1};
		test_thread_start(&refusers[i].thread, refuser_run, &refusers[i]);
	}
	for (int i = 0; i < 3; i++) {
		test_thread_join(&refusers[i].thread);
		CHECK_EQ(refusers[i].refused, refusers[i].count);
	}
	for (int i = 0; i < 2; i++) {
		uint64_t done = atomic_load(&readers[i].done);

		test_wait_until(atomic_load(&readers[i].done) > done ||
				atomic_load(&readers[i].thread.ended));
		atomic_store(&readers[i].stop, true);
		test_thread_join(&readers[i].thread);
		rig_hammer_beat(&hammers[i]);
		rig_hammer_stop(&hammers[i]);
		CHECK_EQ(rig_word(views[0], GRANTED)[i], counts[i] + atomic_load(&hammers[i].done));
	}
	/* A call that comes while another's refusal shuts the page is refused by the kernel, and
	 * not reported; a refusal that comes too late for its thread is made again. */
	CHECK(rig_stat(&rig).refusals >= 2 * stores + (reads > 0));
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unmap(views[1], 16 * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(refusals_disturb_nobody,
		  "S1.1 thousands of refused stores: readers of the same page, "
		  "and other views, run on")
{
	refuse_undisturbed(-1, test_rounds(1500), 0);
}

TEST(refusals_of_calls_disturb_nobody,
     "4.7 refused stores and refused system calls at a time: readers "
     "of the same page, and other views, run on")
{
	unsigned reads = test_rounds(500);
	unsigned char bytes[PAGE] = {0};
	int fds[2];

	REQUIRE_EQ(pipe(fds), 0);
	REQUIRE_EQ(write(fds[1], bytes, sizeof(bytes)), sizeof(bytes));
	refuse_undisturbed(fds[0], test_rounds(500), reads);
	close(fds[0]);
	close(fds[1]);
}

/* ---- Why ---------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(refusal_says_why,
		  "3.5 the guard's refusal has address, offset, length, errno and the "
		  "store's sentence")
{
	struct mkw_refusal refusal, last;
	struct rig rig;

	full_open(&rig, 2);
	write_words(&rig, 0, 2, 1);
	memset(&refusal, 0xff, sizeof(refusal));
	CHECK_EQ(try_write(rig.view + 7 * PAGE + 300, 1, &refusal), -ENOSPC);
	CHECK(refusal.address == rig.view + 7 * PAGE + 300);
	CHECK_EQ(refusal.offset - refusal.offset % PAGE, 7 * PAGE);
	CHECK(refusal.length >= 1 && refusal.length <= PAGE);
	CHECK_EQ(refusal.error, -ENOSPC);
	CHECK(refusal.write);
	CHECK(strstr(refusal.message, "no room for page 7"));
	REQUIRE_EQ(mkw_last_refusal(&last), 0);
	CHECK(last.address == refusal.address);
	CHECK_EQ(last.error, -ENOSPC);
	CHECK_STR(last.message, refusal.message);

	/* A store that says no and not why. */
	script_answer(rig.store, SCRIPT_MKWRITE, 1, 1, MKW_FAULT_SIGBUS);
	CHECK_EQ(try_write(rig.view + 8 * PAGE, 1, &refusal), -EIO);
	CHECK(refusal.message[0] != '\0');
	rig_close(&rig);
}

struct call_refusal {
	int fd;
	void *address;
	ssize_t result;
	int error, before, after;
	struct mkw_refusal refusal;
	struct test_thread thread;
};

static void *call_refused(void *arg)
{
	struct call_refusal *call = arg;

	call->before = mkw_last_refusal(&call->refusal);
	call->result = read(call->fd, call->address, 100);
	call->error = errno;
	call->after = mkw_last_refusal(&call->refusal);
	return NULL;
}

TEST(last_refusal_of_call,
     "3.5 the reason of an EFAULT is kept for the thread that met it, and for no "
     "other")
{
	struct call_refusal call = {.result = 0};
	struct mkw_refusal refusal;
	struct rig rig;
	int fds[2];

	full_open(&rig, 0);
	REQUIRE_EQ(pipe(fds), 0);
	REQUIRE_EQ(write(fds[1], "some bytes", 10), 10);
	call.fd = fds[0];
	call.address = rig.view + 3 * PAGE + 8;
	test_thread_start(&call.thread, call_refused, &call);
	test_thread_join(&call.thread);
	CHECK_EQ(call.before, -ENOENT);
	CHECK_EQ(call.result, -1);
	CHECK_EQ(call.error, EFAULT);
	REQUIRE_EQ(call.after, 0);
	CHECK_EQ(call.refusal.error, -ENOSPC);
	CHECK(call.refusal.address == rig.view + 3 * PAGE + 8);
	CHECK_EQ(call.refusal.offset - call.refusal.offset % PAGE, 3 * PAGE);
	CHECK(call.refusal.write);
	CHECK(strstr(call.refusal.message, "no room for page 3"));
	CHECK_EQ(mkw_last_refusal(&refusal), -ENOENT);
	close(fds[0]);
	close(fds[1]);
	rig_close(&rig);
}

TEST(pwrite_refused,
     "S1.1 mkw_pwrite: a short count up to the refused page, then its error; never a "
     "signal")
{
	static unsigned char bytes[8 * MKW_PAGE_SIZE];
	struct mkw_refusal refusal;
	struct rig rig;

	full_open(&rig, 4);
	memset(bytes, 7, sizeof(bytes));
	CHECK_EQ(mkw_pwrite(rig.handle, bytes, sizeof(bytes), 100), 4 * PAGE - 100);
	CHECK_EQ(rig.view[99], 0);
	CHECK_EQ(rig.view[100], 7);
	CHECK_EQ(rig.view[4 * PAGE - 1], 7);
	CHECK_EQ(rig.view[4 * PAGE], 0);
	CHECK_EQ(mkw_pwrite(rig.handle, bytes, PAGE, 4 * PAGE), -ENOSPC);
	CHECK(mkw_error_message()[0] != '\0');
	REQUIRE_EQ(mkw_last_refusal(&refusal), 0);
	CHECK(!refusal.address);
	CHECK_EQ(refusal.error, -ENOSPC);
	CHECK_EQ(refusal.offset, 4 * PAGE);
	/* It would have to grow the object: refused, nothing has changed. */
	CHECK_EQ(mkw_pwrite(rig.handle, bytes, PAGE, 64 * PAGE), -ENOSPC);
	CHECK(mkw_error_message()[0] != '\0');
	CHECK_EQ(rig.view[4 * PAGE], 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_allocated(rig.store), 4);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* ---- WAIT --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(wait_until_woken,
		  "S1.1 MKW_WAIT: the writer sleeps, and goes on when the store wakes "
		  "its object and has room")
{
	struct rig_writer writer;
	struct rig rig;

	full_open(&rig, 0);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_WAIT, NULL, NULL), 0);
	rig_writer_start(&writer, rig_word(rig.view, 3), 5);
	CHECK_STUCK(&writer.thread);
	/* Woken in vain it sleeps again. */
	mkw_object_wake(script_object(rig.store));
	CHECK_STUCK(&writer.thread);
	CHECK_EQ(*rig_word(rig.view, 3), 0);
	script_set_capacity(rig.store, 1);
	mkw_object_wake(script_object(rig.store));
	test_thread_join(&writer.thread);
	CHECK_EQ(*rig_word(rig.view, 3), 5);
	CHECK_EQ(rig_stat(&rig).refusals, 0);
	CHECK(rig_stat(&rig).waits >= 1);
	rig_close(&rig);
}

#define CROWD 32

static unsigned writers_ended(const struct rig_writer *writers)
{
	unsigned ended = 0;

	for (int i = 0; i < CROWD; i++)
		ended += atomic_load(&writers[i].thread.ended);
	return ended;
}

TEST_EACH_BACKEND(crowd_waits,
		  "S1.1 more writers wait for space than there are handlers: other faults "
		  "are served, mkw_control lets them go as far as there is room")
{
	const struct mkw_space_options options = {RIG_QUIET, .workers = 1, .workers_max = 2};
	struct rig_writer writers[CROWD];
	unsigned stuck = 0;
	struct rig rig;

	full_open_with(&rig, &options, 0);
	script_put_pattern(rig.store, 48, 16, 1); /* takes 16 pages */
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_WAIT, NULL, NULL), 0);
	for (uint64_t i = 0; i < CROWD; i++)
		rig_writer_start(&writers[i], rig_word(rig.view, i), i + 1);
	for (int i = 0; i < CROWD; i++)
		CHECK_STUCK(&writers[i].thread);
	for (uint64_t page = 48; page < 64; page++) {
		CHECK_EQ(rig.view[page * PAGE + 9], script_pattern(page * PAGE + 9, 1));
		rig.view[page * PAGE + 9] = 1;
	}
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(mkw_control(rig.handle, "capacity=26"), 0);
	/* Not the store's account: it has the page before the writer is let go. */
	test_wait_until(writers_ended(writers) >= 10);
	for (int i = 0; i < CROWD; i++)
		stuck += !rig_settle(&writers[i].thread);
	CHECK_EQ(stuck, CROWD - 10);
	CHECK_EQ(script_allocated(rig.store) + script_reserved(rig.store), 26);
	CHECK_EQ(mkw_control(rig.handle, "capacity=100"), 0);
	for (int i = 0; i < CROWD; i++)
		test_thread_join(&writers[i].thread);
	for (uint64_t i = 0; i < CROWD; i++)
		CHECK_EQ(*rig_word(rig.view, i), i + 1);
	CHECK_EQ(rig_stat(&rig).refusals, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

struct pwrite_call {
	struct mkw_handle *handle;
	ssize_t result;
	struct test_thread thread;
};

static void *pwrite_run(void *arg)
{
	struct pwrite_call *call = arg;

	call->result = mkw_pwrite(call->handle, "waited", 6, 3 * PAGE);
	return NULL;
}

TEST(wait_pwrite, "S1.1 MKW_WAIT: mkw_pwrite sleeps for space too")
{
	struct pwrite_call call;
	struct rig rig;

	full_open(&rig, 0);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_WAIT, NULL, NULL), 0);
	call.handle = rig.handle;
	test_thread_start(&call.thread, pwrite_run, &call);
	CHECK_STUCK(&call.thread);
	CHECK_EQ(mkw_control(rig.handle, "capacity=1"), 0);
	test_thread_join(&call.thread);
	CHECK_EQ(call.result, 6);
	CHECK_MEM(rig.view + 3 * PAGE, "waited", 6);
	rig_close(&rig);
}

TEST(wait_ends_with_policy, "S1.1 a writer who waits is refused when the policy becomes MKW_REFUSE")
{
	struct access access;
	struct rig rig;

	full_open(&rig, 0);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_WAIT, NULL, NULL), 0);
	access_write(&access, rig.view + 3 * PAGE, 1);
	CHECK_STUCK(&access.thread);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_REFUSE, NULL, NULL), 0);
	mkw_object_wake(script_object(rig.store));
	CHECK_EQ(access_join(&access), -ENOSPC);
	rig_close(&rig);
}

/* ---- DEFER -------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(defer_reports_at_sync,
		  "S2.1 MKW_DEFER: the write goes on in memory; sync reports "
		  "ENOSPC, the page stays dirty, and is stored once there is "
		  "space")
{
	struct mkw_range range;
	struct rig rig;

	full_open(&rig, 2);
	script_allow_ungranted(rig.store);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_DEFER, NULL, NULL), 0);
	write_words(&rig, 0, 4, 7);
	for (uint64_t page = 0; page < 4; page++)
		CHECK_EQ(*rig_word(rig.view, page), 7);
	CHECK_EQ(rig_stat(&rig).refusals, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -ENOSPC);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -ENOSPC);
	REQUIRE_EQ(mkw_dirty_ranges(rig.handle, 2 * PAGE, 2 * PAGE, &range, 1), 1);
	CHECK_EQ(range.offset, 2 * PAGE);
	CHECK_EQ(range.length, 2 * PAGE);
	CHECK_EQ(range.error, -ENOSPC);
	write_words(&rig, 2, 4, 8);
	CHECK_EQ(mkw_control(rig.handle, "capacity=4"), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 7);
	CHECK_EQ(rig_stored_word(&rig, 3), 8);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(defer_once_per_handle, "S2.1 6.5 the deferred ENOSPC reaches each handle once")
{
	struct mkw_handle *second;
	struct rig rig;

	rig_open_shared(&rig, NULL, 4, MKW_RDWR);
	second = rig_reopen(&rig, MKW_RDWR);
	script_set_capacity(rig.store, 0);
	script_allow_ungranted(rig.store);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_DEFER, NULL, NULL), 0);
	*rig_word(rig.view, 0) = 1;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -ENOSPC);
	CHECK_EQ(mkw_control(rig.handle, "capacity=4"), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(mkw_sync(second, 0, 0), -ENOSPC);
	CHECK_EQ(mkw_sync(second, 0, 0), 0);
	CHECK_EQ(mkw_close(second), 0);
	rig_close(&rig);
}

TEST(defer_pwrite, "S2.1 MKW_DEFER: mkw_pwrite goes on in memory too")
{
	struct rig rig;

	full_open(&rig, 0);
	script_allow_ungranted(rig.store);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_DEFER, NULL, NULL), 0);
	CHECK_EQ(mkw_pwrite(rig.handle, "deferred", 8, 3 * PAGE), 8);
	CHECK_MEM(rig.view + 3 * PAGE, "deferred", 8);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -ENOSPC);
	CHECK_EQ(mkw_control(rig.handle, "capacity=4"), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* ---- A function of the caller's ----------------------------------------------------------- */

struct decider {
	_Atomic unsigned calls;
	struct mkw_refusal last;
};

/* Odd pages are refused, even ones deferred. */
static enum mkw_policy decide(void *arg, const struct mkw_refusal *refusal)
{
	struct decider *decider = arg;

	atomic_fetch_add(&decider->calls, 1);
	decider->last = *refusal;
	return refusal->offset / PAGE % 2 == 0 ? MKW_DEFER : MKW_REFUSE;
}

TEST_EACH_BACKEND(policy_function, "mkwrite.h: a function decides about each refusal, and is told "
				   "all of it")
{
	struct decider decider = {.calls = 0};
	struct rig rig;

	full_open(&rig, 0);
	script_allow_ungranted(rig.store);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_REFUSE, decide, &decider), 0);
	CHECK_EQ(try_write(rig.view + 7 * PAGE + 5, 1, NULL), -ENOSPC);
	CHECK_EQ(atomic_load(&decider.calls), 1);
	CHECK(decider.last.address == rig.view + 7 * PAGE + 5);
	CHECK_EQ(decider.last.offset - decider.last.offset % PAGE, 7 * PAGE);
	CHECK_EQ(decider.last.error, -ENOSPC);
	CHECK(decider.last.write);
	CHECK(strstr(decider.last.message, "no room for page 7"));
	CHECK_EQ(try_write(rig.view + 8 * PAGE + 5, 1, NULL), 0);
	CHECK_EQ(atomic_load(&decider.calls), 2);
	CHECK_EQ(mkw_pwrite(rig.handle, "x", 1, 9 * PAGE), -ENOSPC);
	CHECK_EQ(atomic_load(&decider.calls), 3);
	CHECK(!decider.last.address);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_REFUSE, NULL, NULL), 0);
	CHECK_EQ(try_write(rig.view + 10 * PAGE, 1, NULL), -ENOSPC);
	CHECK_EQ(atomic_load(&decider.calls), 3);
	CHECK_EQ(mkw_control(rig.handle, "capacity=4"), 0);
	rig_close(&rig);
}

/* ---- Guards ------------------------------------------------------------------------------- */

struct nest {
	unsigned char *inner, *outer;
	int inner_error;
	bool passed; /* the outer scope went on after the inner */
	bool survived;
};

static void nest_run(void *arg)
{
	struct nest *nest = arg;

	nest->inner_error = try_write(nest->inner, 1, NULL);
	nest->passed = true;
	*nest->outer = 1;
	nest->survived = true;
}

TEST_EACH_BACKEND(guard_nests, "mkwrite.h: guards nest; each refusal ends the innermost")
{
	struct mkw_refusal refusal;
	struct nest nest = {0};
	struct rig rig;

	full_open(&rig, 1);
	*rig_word(rig.view, 0) = 1; /* takes the room there is */
	nest.inner = rig.view + 3 * PAGE;
	nest.outer = rig.view;
	CHECK_EQ(mkw_guard(nest_run, &nest, &refusal), 0);
	CHECK_EQ(nest.inner_error, -ENOSPC);
	CHECK(nest.survived);

	nest = (struct nest){.inner = rig.view, .outer = rig.view + 5 * PAGE + 1};
	CHECK_EQ(mkw_guard(nest_run, &nest, &refusal), -ENOSPC);
	CHECK_EQ(nest.inner_error, 0);
	CHECK(nest.passed);
	CHECK(!nest.survived);
	CHECK(refusal.address == rig.view + 5 * PAGE + 1);
	rig_close(&rig);
}

TEST_EACH_BACKEND(guard_unblocks_sigbus,
		  "mkwrite.h: a guard catches although the thread blocks SIGBUS, "
		  "and leaves the mask as it was")
{
	sigset_t set, now;
	struct rig rig;

	full_open(&rig, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	sigaddset(&set, SIGUSR1);
	REQUIRE_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(try_write(rig.view + 3 * PAGE, 1, NULL), -ENOSPC);
		REQUIRE_EQ(pthread_sigmask(SIG_BLOCK, NULL, &now), 0);
		CHECK(sigismember(&now, SIGBUS));
		CHECK(sigismember(&now, SIGUSR1));
		CHECK(!sigismember(&now, SIGUSR2));
		CHECK(!sigismember(&now, SIGSEGV));
	}
	REQUIRE_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
	CHECK_EQ(try_write(rig.view + 3 * PAGE, 1, NULL), -ENOSPC);
	REQUIRE_EQ(pthread_sigmask(SIG_BLOCK, NULL, &now), 0);
	CHECK(!sigismember(&now, SIGBUS));
	rig_close(&rig);
}

static unsigned char *foreign_page;
static _Atomic unsigned foreign_calls;

/* The program's own repair of a file mapping that lost its file. */
static void foreign_handler(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	if (info->si_addr != foreign_page || info->si_code != BUS_ADRERR)
		_exit(3);
	atomic_fetch_add(&foreign_calls, 1);
	if (mmap(foreign_page, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		_exit(4);
}

/* A page of a file that has been truncated since. */
static void foreign_make(void)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, (off_t)PAGE), 0);
	foreign_page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(foreign_page != MAP_FAILED);
	REQUIRE_EQ(ftruncate(fd, 0), 0);
	close(fd);
}

static void foreign_run(void *arg)
{
	*(volatile unsigned char *)foreign_page = 1;
	*(volatile unsigned char *)arg = 1;
}

TEST_EACH_BACKEND(guard_foreign_sigbus,
		  "mkwrite.h: in a guard, a SIGBUS that is none of ours reaches "
		  "the program's own handler")
{
	struct sigaction action = {.sa_sigaction = foreign_handler, .sa_flags = SA_SIGINFO};
	struct mkw_refusal refusal;
	struct rig rig;

	REQUIRE_EQ(sigaction(SIGBUS, &action, NULL), 0);
	full_open(&rig, 0);
	foreign_make();
	CHECK_EQ(mkw_guard(foreign_run, rig.view + 2 * PAGE, &refusal), -ENOSPC);
	CHECK(refusal.address == rig.view + 2 * PAGE);
	CHECK_EQ(atomic_load(&foreign_calls), 1);
	CHECK_EQ(foreign_page[0], 1);
	munmap(foreign_page, PAGE);
	rig_close(&rig);
}

static int foreign_dies(void *arg)
{
	struct mkw_refusal refusal;
	struct rig rig;

	(void)arg;
	full_open(&rig, 0);
	foreign_make();
	mkw_guard(foreign_run, rig.view + 2 * PAGE, &refusal);
	return 0;
}

TEST(guard_foreign_sigbus_kills,
     "mkwrite.h: in a guard, a SIGBUS that is nobody's kills the process")
{
	int status = rig_child(foreign_dies, NULL);

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGBUS);
}

/* ---- Asking ahead ------------------------------------------------------------------------- */

TEST_EACH_BACKEND(reserve_all_or_nothing,
		  "mkwrite.h: mkw_reserve gets all of the range, or ENOSPC with "
		  "nothing reserved")
{
	struct rig rig;

	full_open(&rig, 4);
	CHECK_EQ(mkw_reserve(rig.view, 8 * PAGE), -ENOSPC);
	CHECK(mkw_error_message()[0] != '\0');
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(mkw_reserve(rig.view + 8 * PAGE, 4 * PAGE), 0);
	CHECK_EQ(script_reserved(rig.store), 4);
	CHECK_EQ(mkw_reserve(rig.view, PAGE), -ENOSPC);
	CHECK_EQ(try_write(rig.view, 1, NULL), -ENOSPC);
	for (uint64_t page = 8; page < 12; page++)
		CHECK_EQ(try_write(rig.view + page * PAGE, 1, NULL), 0);
	CHECK_EQ(mkw_unreserve(rig.view + 8 * PAGE, 4 * PAGE), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_allocated(rig.store), 4);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(reserve_keeps_written,
     "mkwrite.h: a reservation that fails leaves what was written before, and "
     "its grants, as they are")
{
	struct rig rig;

	full_open(&rig, 4);
	write_words(&rig, 2, 4, 7);
	CHECK_EQ(mkw_reserve(rig.view, 8 * PAGE), -ENOSPC);
	CHECK_EQ(script_reserved(rig.store), 2);
	CHECK_EQ(mkw_reserve(rig.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_unreserve(rig.view, 4 * PAGE), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 3), 7);
	CHECK_EQ(script_reserved(rig.store), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(reserve_then_no_refusal,
		  "mkwrite.h: what is reserved is not refused, although the "
		  "space has gone to others, and although the dirty limit is "
		  "smaller")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 4 * PAGE};
	struct rig rig;

	full_open_with(&rig, &options, 20);
	CHECK_EQ(mkw_reserve(rig.view, 16 * PAGE), 0);
	CHECK_EQ(script_reserved(rig.store), 16);
	write_words(&rig, 40, 44, 1);
	script_set_capacity(rig.store, 0);
	CHECK_EQ(try_write(rig.view + 50 * PAGE, 1, NULL), -ENOSPC);
	for (uint64_t round = 1; round <= 3; round++)
		for (uint64_t page = 0; page < 16; page++)
			CHECK_EQ(try_write(rig.view + page * PAGE, (unsigned char)round, NULL), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	for (uint64_t page = 0; page < 16; page++)
		CHECK_EQ(try_write(rig.view + page * PAGE, 9, NULL), 0);
	CHECK(rig_space_stat(&rig).dirty_peak_bytes <= 4 * PAGE);
	CHECK_EQ(mkw_unreserve(rig.view, 16 * PAGE), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(reserve_survives_writeback,
     "mkwrite.h: what is reserved and not written stays reserved over sync, "
     "and is given back by mkw_unreserve")
{
	struct rig rig;

	full_open(&rig, 8);
	script_set_holes(rig.store, true);
	CHECK_EQ(mkw_reserve(rig.view, 8 * PAGE), 0);
	*rig_word(rig.view, 2) = 1;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_allocated(rig.store) + script_reserved(rig.store), 8);
	script_set_capacity(rig.store, 0);
	for (uint64_t page = 0; page < 6; page++)
		CHECK_EQ(try_write(rig.view + page * PAGE, 3, NULL), 0);
	CHECK_EQ(mkw_unreserve(rig.view, 8 * PAGE), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	CHECK_EQ(script_allocated(rig.store), 6);
	CHECK_EQ(try_write(rig.view + 7 * PAGE, 3, NULL), -ENOSPC);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* ---- Afterwards --------------------------------------------------------------------------- */

TEST_EACH_BACKEND(refused_then_granted,
		  "S1.1 3.3 a page refused many times is granted once there is "
		  "room, in every view")
{
	unsigned char *second;
	struct rig rig;

	full_open(&rig, 0);
	second = rig_map(rig.handle, 64, 0);
	for (int i = 0; i < 50; i++) {
		CHECK_EQ(try_write(rig.view + 3 * PAGE, 1, NULL), -ENOSPC);
		CHECK_EQ(try_write(second + 3 * PAGE, 1, NULL), -ENOSPC);
	}
	script_set_capacity(rig.store, 1);
	CHECK_EQ(try_write(rig.view + 3 * PAGE, 1, NULL), 0);
	CHECK_EQ(try_write(second + 3 * PAGE + 1, 2, NULL), 0);
	CHECK_EQ(rig.view[3 * PAGE + 1], 2);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unmap(second, 64 * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(failed_fill_then_filled, "3.3 a page that could not be read is refused with the "
					   "reason, and read once that works, in every view")
{
	struct mkw_refusal refusal;
	unsigned char *second;
	unsigned char value;
	struct rig rig;

	rig_open(&rig, NULL, 16, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 16 * PAGE, MKW_RANDOM), 0);
	second = rig_map(rig.handle, 16, 0);
	script_put_pattern(rig.store, 0, 16, 4);
	script_fail_page(rig.store, SCRIPT_FAULT, 3, -EIO);
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(try_read(rig.view + 3 * PAGE + 7, &value, &refusal), -EIO);
		CHECK(refusal.address == rig.view + 3 * PAGE + 7);
		CHECK(!refusal.write);
		CHECK_EQ(try_write(second + 3 * PAGE, 1, &refusal), -EIO);
	}
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 0);
	script_fail_page(rig.store, SCRIPT_FAULT, 3, 0);
	CHECK_EQ(try_read(rig.view + 3 * PAGE + 7, &value, NULL), 0);
	CHECK_EQ(value, script_pattern(3 * PAGE + 7, 4));
	CHECK_EQ(try_read(second + 3 * PAGE + 7, &value, NULL), 0);
	CHECK_EQ(value, script_pattern(3 * PAGE + 7, 4));
	CHECK_EQ(try_write(second + 3 * PAGE, 1, NULL), 0);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_MKWRITE, 3), 1);
	CHECK_EQ(mkw_unmap(second, 16 * PAGE), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}
