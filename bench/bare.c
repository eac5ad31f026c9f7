/* SPDX-License-Identifier: MIT */
/*
 * bare.c - the bare mechanism: what userfaultfd itself costs with no VM on top of it. A memfd, one
 * protected view of it, and an event loop that answers every write event at once, for one page or
 * for an aligned run of them. Nobody counts, locks, asks or remembers anything: a floor for
 * whatever is built upon it.
 *
 * Three answers, for the states that a clean page can be in:
 *   unprotect  the page is mapped and protected; UFFDIO_WRITEPROTECT takes the protection off, and
 *              the write then faults once more inside the kernel
 *   continue   the page was zapped, and the view is registered for MINOR events: UFFDIO_CONTINUE
 *              maps it writable. (Reads of cached pages are events too then.)
 *   mixed      the page was zapped, without MINOR: before its event the kernel maps the page that
 *              faulted, protected; it is unprotected, and the rest of the run continued
 *
 * The handler runs on the core of the thread that faults, blocked in read(2): the cheapest place
 * there is. One page more than the view needs is kept protected for each handler; writing to it
 * ends one of them.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum answer { UNPROTECT, CONTINUE, MIXED };

enum placement {
	ONE_THREAD, /* one writer, one handler, one core */
	TWO_SHARED, /* two writers on two cores, one descriptor, a handler on each core */
	TWO_LONE,   /* two writers on two cores, one descriptor, one handler on the first */
	TWO_SPLIT,  /* two writers on two cores, a descriptor and a handler for each */
};

struct bare_case {
	enum answer answer;
	size_t run_pages;
	bool random;
	enum placement placement;
	size_t call_pages; /* re-protection: pages a call; 0: all in one */
};

struct bare;

struct bare_handler {
	struct bare *bare;
	pthread_t thread;
	bool started;
	int uffd, cpu;
	uint64_t events, calls, wakeups;
	int error;
};

struct bare {
	const struct bare_case *how;
	int memfd, uffd[2];
	unsigned char *view;
	size_t size; /* of the part that is measured; the pages that end handlers follow */
	struct bare_handler handlers[2];
};

/* ---- The event loop ----------------------------------------------------------------------- */

static int range_unprotect(struct bare_handler *handler, uint64_t start, uint64_t length)
{
	struct uffdio_writeprotect off = {.range = {.start = start, .len = length}};

	handler->calls++;
	return ioctl(handler->uffd, UFFDIO_WRITEPROTECT, &off) ? -errno : 0;
}

static int range_continue(struct bare_handler *handler, uint64_t start, uint64_t length)
{
	struct uffdio_continue map = {.range = {.start = start, .len = length}};

	if (length == 0)
		return 0;
	handler->calls++;
	return ioctl(handler->uffd, UFFDIO_CONTINUE, &map) ? -errno : 0;
}

static int run_answer(struct bare_handler *handler, uint64_t page)
{
	struct bare *bare = handler->bare;
	uint64_t base = (uintptr_t)bare->view;
	uint64_t length = bare->how->run_pages * BENCH_PAGE;
	uint64_t start = base + (page - base) / length * length;
	uint64_t next = page + BENCH_PAGE;
	int rc;

	if (bare->how->answer == UNPROTECT)
		return range_unprotect(handler, start, length);
	if (bare->how->answer == CONTINUE)
		return range_continue(handler, start, length);
	rc = range_continue(handler, start, page - start);
	if (!rc)
		rc = range_continue(handler, next, start + length - next);
	/* The one that somebody waits for comes last: its wake-up finds all of them done. */
	return rc ? rc : range_unprotect(handler, page, BENCH_PAGE);
}

static void *handler_run(void *arg)
{
	struct bare_handler *handler = arg;
	uint64_t end = (uintptr_t)handler->bare->view + handler->bare->size;
	struct uffd_msg msg;
	struct rusage usage;

	bench_pin(handler->cpu);
	while (read(handler->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		uint64_t page = msg.arg.pagefault.address & ~(uint64_t)(BENCH_PAGE - 1);
		int rc;

		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		if (page >= end) {
			/* Every sleep of this thread was one in read. */
			getrusage(RUSAGE_THREAD, &usage);
			handler->wakeups = (uint64_t)usage.ru_nvcsw;
			range_unprotect(handler, page, BENCH_PAGE);
			handler->calls--; /* this one answered nobody */
			break;
		}
		handler->events++;
		rc = run_answer(handler, page);
		/* Two writers in one run: the second finds it answered. */
		if (rc)
			range_unprotect(handler, page, BENCH_PAGE);
		if (rc && rc != -EEXIST && !handler->error)
			handler->error = rc;
	}
	return NULL;
}

/* ---- Setting up --------------------------------------------------------------------------- */

static int uffd_open(struct bench *bench)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					     UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
					     UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	/* Enough for the bench: it touches pages in user mode only. */
	if (fd < 0 && errno == EPERM)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		return bench_say(bench, -errno, "userfaultfd: %s (see `mkwrite doctor`)",
				 strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api)) {
		int error = -errno;

		close(fd);
		return bench_say(bench, error, "write protection of shared memory is not here");
	}
	return fd;
}

static int range_register(struct bench *bench, const struct bare *bare, unsigned which,
			  size_t offset, size_t length)
{
	int uffd = bare->uffd[which];
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)bare->view + offset, .len = length},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
	struct uffdio_writeprotect on = {.range = reg.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};

	if (bare->how->answer == CONTINUE)
		reg.mode |= UFFDIO_REGISTER_MODE_MINOR;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg) || ioctl(uffd, UFFDIO_WRITEPROTECT, &on))
		return bench_say(bench, -errno, "cannot protect the view: %s", strerror(errno));
	return 0;
}

static bool has_two(const struct bare_case *how)
{
	return how->placement == TWO_SHARED || how->placement == TWO_SPLIT;
}

static int view_make(struct bench *bench, struct bare *bare)
{
	size_t whole = bare->size + 2 * BENCH_PAGE;

	bare->memfd = memfd_create("mkwrite-bench", MFD_CLOEXEC);
	if (bare->memfd < 0 || ftruncate(bare->memfd, (off_t)whole))
		return bench_say(bench, -errno, "memfd: %s", strerror(errno));
	bare->view = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, bare->memfd, 0);
	if (bare->view == MAP_FAILED) {
		bare->view = NULL;
		return bench_say(bench, -errno, "mmap: %s", strerror(errno));
	}
	memset(bare->view, 0x5a, whole);
	return 0;
}

/* One descriptor for all, or one for each half. The page after the end goes with the first, the
 * next with the last. */
static int view_protect(struct bench *bench, struct bare *bare)
{
	bool split = bare->how->placement == TWO_SPLIT;
	size_t half = bare->size / 2;
	int rc;

	bare->uffd[0] = uffd_open(bench);
	if (bare->uffd[0] < 0)
		return bare->uffd[0];
	if (!split)
		return range_register(bench, bare, 0, 0, bare->size + 2 * BENCH_PAGE);
	bare->uffd[1] = uffd_open(bench);
	if (bare->uffd[1] < 0)
		return bare->uffd[1];
	rc = range_register(bench, bare, 0, 0, half);
	if (!rc)
		rc = range_register(bench, bare, 1, half, bare->size - half);
	if (!rc)
		rc = range_register(bench, bare, 0, bare->size, BENCH_PAGE);
	if (!rc)
		rc = range_register(bench, bare, 1, bare->size + BENCH_PAGE, BENCH_PAGE);
	return rc;
}

static int handlers_start(struct bench *bench, struct bare *bare)
{
	for (unsigned i = 0; i < (has_two(bare->how) ? 2 : 1); i++) {
		struct bare_handler *handler = &bare->handlers[i];

		handler->bare = bare;
		handler->cpu = bench->cpus[i];
		handler->uffd = bare->uffd[bare->uffd[1] >= 0 ? i : 0];
		if (pthread_create(&handler->thread, NULL, handler_run, handler))
			return bench_say(bench, -EAGAIN, "no handler thread");
		handler->started = true;
	}
	return 0;
}

/* Whoever reads the event of one of the last pages ends: as many pages as handlers. */
static int handlers_stop(struct bench *bench, struct bare *bare)
{
	int error = 0;

	for (unsigned i = 0; i < 2; i++)
		if (bare->handlers[i].started)
			*(volatile unsigned char *)(bare->view + bare->size + i * BENCH_PAGE) = 1;
	for (unsigned i = 0; i < 2; i++) {
		if (!bare->handlers[i].started)
			continue;
		pthread_join(bare->handlers[i].thread, NULL);
		bare->handlers[i].started = false;
		if (bare->handlers[i].error)
			error = bare->handlers[i].error;
	}
	if (error)
		return bench_say(bench, error, "an event could not be answered: %s",
				 strerror(-error));
	return 0;
}

static int bare_start(struct bench *bench, const struct bare_case *how, struct bare *bare)
{
	int rc;

	*bare = (struct bare){.how = how, .memfd = -1, .uffd = {-1, -1}, .size = bench->size};
	rc = view_make(bench, bare);
	if (!rc)
		rc = view_protect(bench, bare);
	/* Protected entries leave their markers behind. */
	if (!rc && how->answer != UNPROTECT)
		madvise(bare->view, bare->size, MADV_DONTNEED);
	return rc;
}

static void bare_end(struct bare *bare)
{
	for (unsigned i = 0; i < 2; i++)
		if (bare->uffd[i] >= 0)
			close(bare->uffd[i]);
	if (bare->view)
		munmap(bare->view, bare->size + 2 * BENCH_PAGE);
	if (bare->memfd >= 0)
		close(bare->memfd);
}

/* ---- Measures ----------------------------------------------------------------------------- */

static void counts_sum(const struct bare *bare, struct bench_sample *sample)
{
	sample->counts.has_events = true;
	for (unsigned i = 0; i < 2; i++) {
		sample->counts.faults += bare->handlers[i].events;
		sample->counts.events += bare->handlers[i].events;
		sample->counts.calls += bare->handlers[i].calls;
		sample->counts.wakeups += bare->handlers[i].wakeups;
	}
}

static int writes_time(struct bench *bench, struct bare *bare, struct bench_sample *sample)
{
	const struct bare_case *how = bare->how;
	const uint32_t *order = how->random ? bench->order : NULL;
	size_t pages = bare->size / BENCH_PAGE;
	int rc = 0;

	if (how->placement == ONE_THREAD) {
		bench_pin(bench->cpus[0]);
		bench_time_writes(bare->view, order ? bench->order_count : pages, order, sample);
		bench_unpin();
	} else {
		rc = bench_time_two(bench, bare->view, pages, order, bench->order_count, sample);
		bench_unpin();
	}
	return rc;
}

static int bare_write(struct bench *bench, const struct bench_measure *measure, void *state,
		      struct bench_sample *sample)
{
	const struct bare_case *how = measure->arg;
	struct bare bare;
	int rc, stopped;

	(void)state;
	rc = bare_start(bench, how, &bare);
	if (!rc)
		rc = handlers_start(bench, &bare);
	if (!rc)
		rc = writes_time(bench, &bare, sample);
	stopped = handlers_stop(bench, &bare);
	if (!rc)
		rc = stopped;
	counts_sum(&bare, sample);
	bare_end(&bare);
	/* With one thread the count is no matter of luck. */
	if (!rc && how->placement == ONE_THREAD && !how->random &&
	    sample->counts.events != sample->units / how->run_pages)
		rc = bench_say(bench, -EPROTO, "%lu events for %lu pages in runs of %zu",
			       (unsigned long)sample->counts.events, (unsigned long)sample->units,
			       how->run_pages);
	return rc;
}

/* Protecting again what has been written: each page writable and dirty. */
static int bare_protect(struct bench *bench, const struct bench_measure *measure, void *state,
			struct bench_sample *sample)
{
	const struct bare_case *how = measure->arg;
	struct bare bare;
	int rc;

	(void)state;
	rc = bare_start(bench, how, &bare);
	if (!rc) {
		struct uffdio_writeprotect range = {
			.range = {.start = (uintptr_t)bare.view, .len = bare.size}};
		size_t step = how->call_pages ? how->call_pages * BENCH_PAGE : bare.size;
		uint64_t start;

		ioctl(bare.uffd[0], UFFDIO_WRITEPROTECT, &range);
		bench_write_pages(bare.view, bare.size / BENCH_PAGE, NULL);
		range.mode = UFFDIO_WRITEPROTECT_MODE_WP;
		range.range.len = step;
		bench_pin(bench->cpus[0]);
		start = bench_now_ns();
		for (size_t done = 0; done < bare.size && !rc; done += step) {
			range.range.start = (uintptr_t)bare.view + done;
			rc = ioctl(bare.uffd[0], UFFDIO_WRITEPROTECT, &range) ? -errno : 0;
			sample->counts.calls++;
		}
		sample->elapsed_ns = bench_now_ns() - start;
		bench_unpin();
		sample->units = bare.size / BENCH_PAGE;
		sample->counts.has_events = true;
	}
	bare_end(&bare);
	return rc;
}

#define CASE(answer_, run_, ...) \
	(&(const struct bare_case){.answer = (answer_), .run_pages = (run_), __VA_ARGS__})
#define ROW(name_, text_, run_, arg_)                                                       \
	{                                                                                   \
		.name = (name_), .text = (text_), .unit = BENCH_NS_PER_PAGE, .arg = (arg_), \
		.run = (run_)                                                               \
	}
#define THREADS_ROW(name_, text_, arg_)                                                        \
	{                                                                                      \
		.name = (name_), .text = (text_), .unit = BENCH_OPS_PER_SECOND, .arg = (arg_), \
		.run = bare_write                                                              \
	}

const struct bench_measure bench_bare_measures[] = {
	ROW("rewrite/bare-unprotect-1", "bare event loop, protected pages, 1 a fault", bare_write,
	    CASE(UNPROTECT, 1)),
	ROW("rewrite/bare-unprotect-16", "the same, 16 a fault", bare_write, CASE(UNPROTECT, 16)),
	ROW("rewrite/bare-unprotect-64", "the same, 64 a fault", bare_write, CASE(UNPROTECT, 64)),
	ROW("rewrite/bare-unprotect-512", "the same, 512 a fault", bare_write,
	    CASE(UNPROTECT, 512)),
	ROW("rewrite/bare-continue-1", "bare event loop, zapped pages, 1 a fault", bare_write,
	    CASE(CONTINUE, 1)),
	ROW("rewrite/bare-continue-16", "the same, 16 a fault", bare_write, CASE(CONTINUE, 16)),
	ROW("rewrite/bare-continue-64", "the same, 64 a fault", bare_write, CASE(CONTINUE, 64)),
	ROW("rewrite/bare-continue-512", "the same, 512 a fault", bare_write, CASE(CONTINUE, 512)),
	ROW("rewrite/bare-mixed-64", "bare event loop, zapped pages, no MINOR events, 64 a fault",
	    bare_write, CASE(MIXED, 64)),
	ROW("rewrite/bare-mixed-512", "the same, 512 a fault", bare_write, CASE(MIXED, 512)),
	ROW("random/bare-unprotect", "bare event loop, protected pages, at random", bare_write,
	    CASE(UNPROTECT, 1, .random = true)),
	ROW("random/bare-continue", "bare event loop, zapped pages, at random", bare_write,
	    CASE(CONTINUE, 1, .random = true)),
	ROW("reprotect/bare", "UFFDIO_WRITEPROTECT of written pages, all in one call", bare_protect,
	    CASE(UNPROTECT, 1)),
	ROW("reprotect/bare-512", "the same, 512 pages a call", bare_protect,
	    CASE(UNPROTECT, 1, .call_pages = 512)),
	THREADS_ROW("threads/bare-random-shared",
		    "two writers, at random; one descriptor, a handler on each core",
		    CASE(UNPROTECT, 1, .random = true, .placement = TWO_SHARED)),
	THREADS_ROW("threads/bare-random-lone", "the same; one handler, on the first core",
		    CASE(UNPROTECT, 1, .random = true, .placement = TWO_LONE)),
	THREADS_ROW("threads/bare-random-split", "the same; a descriptor and a handler for each",
		    CASE(UNPROTECT, 1, .random = true, .placement = TWO_SPLIT)),
	THREADS_ROW("threads/bare-order-shared",
		    "two writers, in order, zapped pages, 64 a fault; a handler on each core",
		    CASE(MIXED, 64, .placement = TWO_SHARED)),
	THREADS_ROW("threads/bare-order-lone", "the same; one handler, on the first core",
		    CASE(MIXED, 64, .placement = TWO_LONE)),
	THREADS_ROW("threads/bare-order-split", "the same; a descriptor and a handler for each",
		    CASE(MIXED, 64, .placement = TWO_SPLIT)),
	{.name = NULL},
};
