/* SPDX-License-Identifier: MIT */
/*
 * model.c - scenarios under failing calls (model.h).
 */
#include "nth/model.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ERRNOS_MAX  6u	  /* of one call */
#define CALLS_MAX   5000u /* of a scenario: more is a run that does not end */
#define FAILED_MOST 5u	  /* runs, then it is enough */
#define SETTLE_MS   2000

static struct model model;	 /* it is large */
static uint64_t loop_nth;	 /* of the run, */
static unsigned loop_which;	 /* and which errno */
static unsigned failures;	 /* of this run */
static char last_step[64] = "-"; /* for those who ask where it hangs */

/* Every failure says what was made to fail. */
static bool see(bool ok, const char *step)
{
	if (ok)
		return true;
	if (failures++ == 0) {
		test_note("in step %s, N=%llu, errno %u of the call:", step,
			  (unsigned long long)loop_nth, loop_which);
		nth_tell();
	}
	return false;
}
/* CHECK_MEM looks byte by byte, and most of the time there is nothing to see. */
static bool see_mem(const void *a, const void *b, size_t length, const char *what)
{
	return see(memcmp(a, b, length) == 0 || CHECK_MEM(a, b, length), what);
}
#define SEE(expr)    see(CHECK(expr), last_step)
#define SEE_EQ(a, b) see(CHECK_EQ(a, b), last_step)

void model_arm(void)
{
	nth_arm(loop_nth, loop_which);
}

/* ---- Looking ------------------------------------------------------------------------------ */

struct copy {
	unsigned char *to;
	const unsigned char *from;
};

static void copy_page(void *arg)
{
	struct copy *copy = arg;

	memcpy(copy->to, copy->from, PAGE);
}

/* One page of a view against what it must hold; what is past the end of the object is not compared.
 */
static int page_compare(const struct model *m, const unsigned char *view,
			const unsigned char *wanted, uint64_t page)
{
	unsigned char bytes[PAGE];
	struct copy copy = {bytes, view};
	size_t length = m->size - page * PAGE < PAGE ? m->size - page * PAGE : PAGE;
	int error;

	IN_LIBRARY(error = mkw_guard(copy_page, &copy, NULL));
	if (error)
		return error;
	if (!see_mem(bytes, wanted + page * PAGE, length, last_step))
		test_note("that was page %llu of a view", (unsigned long long)page);
	return 0;
}

static uint64_t model_pages(const struct model *m)
{
	return (m->size + PAGE - 1) / PAGE;
}

static int view_compare(const struct model *m, const unsigned char *view, uint64_t first,
			uint64_t count)
{
	int error = 0;

	for (uint64_t page = first > m->quiet_pages ? first : m->quiet_pages;
	     page < first + count && page < model_pages(m) && !error; page++)
		error = page_compare(m, view + (page - first) * PAGE, m->bytes, page);
	return error;
}

/* Its own pages, and the object's where it has none. */
static int private_compare(const struct model *m)
{
	int error = 0;

	for (uint64_t page = m->quiet_pages;
	     page < m->private_pages && page < model_pages(m) && !error; page++)
		if (m->own[page] || !m->only_own)
			error = page_compare(m, m->private + page * PAGE,
					     m->own[page] ? m->own_bytes : m->bytes, page);
	return error;
}

int model_read(struct model *m)
{
	int error = m->only_own ? 0 : view_compare(m, m->view, 0, m->view_pages);

	if (!error && m->second)
		error = view_compare(m, m->second, 1, m->view_pages - 1);
	if (!error && m->private)
		error = private_compare(m);
	return error;
}

/* A byte that may be zero or not is what it is found to be. */
static void doubt_settle(struct model *m)
{
	static unsigned char now[MODEL_PAGES * MKW_PAGE_SIZE];
	unsigned char *bytes = m->bytes + m->doubt_offset;

	if (m->doubt_length == 0)
		return;
	SEE_EQ(mkw_pread(m->handle, now, m->doubt_length, m->doubt_offset), m->doubt_length);
	for (uint64_t i = 0; i < m->doubt_length; i++)
		bytes[i] = now[i] ? bytes[i] : 0;
	m->doubt_length = 0;
}

void model_check(struct model *m)
{
	static unsigned char bytes[MODEL_PAGES * MKW_PAGE_SIZE];
	ssize_t n;

	doubt_settle(m);
	if (m->view)
		SEE_EQ(model_read(m), 0);
	if (m->handle && !m->only_own) {
		SEE_EQ(mkw_size(m->handle), m->size);
		IN_LIBRARY(n = mkw_pread(m->handle, bytes, sizeof(bytes), 0));
		if (SEE_EQ(n, m->size))
			see_mem(bytes, m->bytes, m->size, "mkw_pread");
	}
}

/* The store itself, after its release. */
static void store_compare(const struct model *m)
{
	static unsigned char bytes[MODEL_PAGES * MKW_PAGE_SIZE];
	struct stat st;
	int fd;

	if (m->kind == MODEL_MEM)
		return;
	if (m->kind == MODEL_SCRIPT) {
		SEE_EQ(script_size_bytes(m->script), m->size);
		script_get(m->script, 0, bytes, m->size);
	} else {
		fd = open(m->path, O_RDONLY | O_CLOEXEC);
		REQUIRE(fd >= 0);
		SEE(fstat(fd, &st) == 0 && (uint64_t)st.st_size == m->size);
		SEE_EQ(pread(fd, bytes, sizeof(bytes), 0), m->size);
		close(fd);
	}
	see_mem(bytes, m->bytes, m->size, "what the store holds in the end");
}

/* ---- Steps -------------------------------------------------------------------------------- */

bool model_step(struct model *m, model_fn fn, const char *name)
{
	int error;

	snprintf(last_step, sizeof(last_step), "%s", name);
	error = fn(m);
	if (!error)
		return true;
	if (!SEE(nth_fired())) {
		test_note("%s failed by itself: %s: %s", name, strerrorname_np(-error),
			  mkw_error_message());
		return false;
	}
	SEE(error < 0 && mkw_error_message()[0]);
	nth_disarm();
	m->told++;
	model_check(m);
	error = fn(m);
	if (!SEE_EQ(error, 0))
		test_note("again, with nothing made to fail: %s", mkw_error_message());
	return !error;
}

int model_space(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_space_create(&m->space_options, &m->space));
	return error;
}

int model_open(struct model *m)
{
	int error;

	if (m->kind == MODEL_SCRIPT)
		IN_LIBRARY(error = mkw_create(m->space, &m->ops, m->script, m->size, m->open_flags,
					      &m->handle));
	else
		IN_LIBRARY(error = mkw_open(m->space, m->uri, m->open_flags, &m->handle));
	return error;
}

int model_map(struct model *m)
{
	void *address;
	int error;

	m->view_pages = model_pages(m);
	IN_LIBRARY(error = mkw_map(m->handle, m->view_pages * PAGE, MKW_READ | MKW_WRITE,
				   test_map_flags(), 0, &address));
	m->view = error ? NULL : address;
	return error;
}

int model_map_second(struct model *m)
{
	void *address;
	int error;

	IN_LIBRARY(error = mkw_map(m->handle, (m->view_pages - 1) * PAGE, MKW_READ,
				   test_map_flags(), PAGE, &address));
	m->second = error ? NULL : address;
	return error;
}

int model_map_private(struct model *m)
{
	void *address;
	int error;

	m->private_pages = model_pages(m);
	IN_LIBRARY(error = mkw_map(m->handle, m->private_pages * PAGE, MKW_READ | MKW_WRITE,
				   MKW_PRIVATE | test_map_flags(), 0, &address));
	m->private = error ? NULL : address;
	return error;
}

int model_unmap(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_unmap(m->view, m->view_pages * PAGE));
	m->view = NULL;
	return error;
}

int model_unmap_second(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_unmap(m->second, (m->view_pages - 1) * PAGE));
	m->second = NULL;
	return error;
}

int model_unmap_private(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_unmap(m->private, m->private_pages * PAGE));
	m->private = NULL;
	memset(m->own, 0, sizeof(m->own));
	return error;
}

/* The handle is gone whatever is returned: an error is one that nobody has heard. */
int model_close(struct model *m)
{
	int error;

	m->fired_open = nth_fired();
	IN_LIBRARY(error = mkw_close(m->handle));
	m->handle = NULL;
	m->told += error != 0;
	return error && nth_fired() ? 0 : error;
}

int model_destroy(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_space_destroy(m->space, 0));
	if (error == -EBUSY)
		return error; /* it is as it was */
	m->space = NULL;
	m->told += error != 0;
	return error && nth_fired() ? 0 : error;
}

int model_sync(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_sync(m->handle, 0, 0));
	return error;
}

struct store {
	uint64_t *to;
	uint64_t value;
};

static void store_word(void *arg)
{
	struct store *store = arg;

	__atomic_store_n(store->to, store->value, __ATOMIC_RELAXED);
}

/* A word of the page, in a view of all of it and in what that must hold. */
static int page_write(unsigned char *view, unsigned char *wanted, uint64_t page,
		      unsigned char value)
{
	size_t at = (size_t)(page * PAGE + page % 500 * 8);
	struct store store = {(uint64_t *)(void *)(view + at), 0x0101010101010101u * value + page};
	int error;

	IN_LIBRARY(error = mkw_guard(store_word, &store, NULL));
	if (!error)
		memcpy(wanted + at, &store.value, sizeof(store.value));
	return error;
}

int model_write(struct model *m, uint64_t first, uint64_t count, unsigned char value)
{
	int error = 0;

	for (uint64_t page = first; page < first + count && !error; page++)
		error = page_write(m->view, m->bytes, page, value);
	return error;
}

int model_write_private(struct model *m, uint64_t first, uint64_t count, uint64_t step,
			unsigned char value)
{
	int error = 0;

	for (uint64_t page = first; page < first + count && !error; page += step) {
		if (!m->own[page])
			memcpy(m->own_bytes + page * PAGE, m->bytes + page * PAGE, PAGE);
		error = page_write(m->private, m->own_bytes, page, value);
		m->own[page] |= error == 0;
	}
	return error;
}

static void model_resize(struct model *m, uint64_t size)
{
	m->size = size;
	m->most_bytes = size > m->most_bytes ? size : m->most_bytes;
}

/* End a pin, or NULL, and unmap a view, or NULL: no pin is left where it failed. The thread's error
 * stays what it was. */
static void pin_end(struct model *m, struct mkw_pin *pin, void *view, int error)
{
	struct mkw_stat stat;
	char said[256];

	snprintf(said, sizeof(said), "%s", mkw_error_message());
	if (pin != NULL)
		IN_LIBRARY(CHECK_EQ(mkw_unpin(pin), 0));
	if (view != NULL)
		IN_LIBRARY(CHECK_EQ(mkw_unmap(view, m->view_pages * PAGE), 0));
	CHECK_EQ(mkw_space_stat(m->space, &stat, sizeof(stat)), 0);
	CHECK_EQ(stat.pins, 0);
	CHECK_EQ(stat.pinned_bytes, 0);
	if (error != 0 && said[0] != '\0')
		mkw_set_error(error, "%s", said);
}

int model_write_pinned(struct model *m, uint64_t first, uint64_t count, unsigned char value)
{
	struct mkw_pin *pin = NULL;
	int error;

	IN_LIBRARY(error = mkw_pin(m->view + first * PAGE, count * PAGE, MKW_WRITE, &pin));
	if (error == 0)
		error = model_write(m, first, count, value);
	if (error == 0)
		error = model_sync(m);
	pin_end(m, pin, NULL, error);
	return error;
}

int model_pin_private(struct model *m)
{
	const size_t length = m->view_pages * PAGE;
	struct mkw_pin *pin = NULL;
	void *view;
	int error;

	IN_LIBRARY(error = mkw_map(m->handle, length, MKW_WRITE, MKW_PRIVATE | test_map_flags(), 0,
				   &view));
	if (error != 0)
		return error;
	IN_LIBRARY(error = mkw_pin(view, length, MKW_READ, &pin));
	if (error == 0)
		CHECK_MEM(view, m->bytes, length);
	pin_end(m, pin, view, error);
	return error;
}

int model_pwrite(struct model *m, uint64_t offset, size_t length, unsigned char value)
{
	static unsigned char bytes[MODEL_PAGES * MKW_PAGE_SIZE];

	memset(bytes, value, length);
	for (size_t done = 0; done < length;) {
		ssize_t n;

		IN_LIBRARY(n = mkw_pwrite(m->handle, bytes, length - done, offset + done));
		if (n < 0)
			return (int)n;
		memset(m->bytes + offset + done, value, (size_t)n);
		done += (size_t)n;
		model_resize(m, offset + done > m->size ? offset + done : m->size);
	}
	return 0;
}

int model_truncate(struct model *m, uint64_t size)
{
	int error;

	IN_LIBRARY(error = mkw_truncate(m->handle, size));
	if (error)
		return error;
	if (size < m->size)
		memset(m->bytes + size, 0, m->size - size);
	for (uint64_t page = (size + PAGE - 1) / PAGE; page < MODEL_PAGES; page++)
		m->own[page] = false;
	model_resize(m, size);
	return 0;
}

/* One that failed may have zeroed a part. */
int model_punch(struct model *m, uint64_t offset, uint64_t length)
{
	int error;

	IN_LIBRARY(error = mkw_punch(m->handle, offset, length));
	if (!error)
		memset(m->bytes + offset, 0, length);
	m->doubt_offset = offset;
	m->doubt_length = error ? length : 0;
	return error;
}

/* ---- Beginning and end -------------------------------------------------------------------- */

static void log_nothing(void *arg, enum mkw_log_level level, const char *message)
{
	(void)arg, (void)level, (void)message;
}

static void file_make(struct model *m)
{
	int fd = open(m->path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	REQUIRE(fd >= 0);
	if (m->holes)
		REQUIRE_EQ(ftruncate(fd, (off_t)m->size), 0);
	else
		REQUIRE_EQ(write(fd, m->bytes, m->size), m->size);
	close(fd);
}

void model_storage(struct model *m, uint64_t pages)
{
	m->size = m->most_bytes = pages * PAGE;
	m->layer = m->layer ? m->layer : "";
	m->space_options.struct_size = sizeof(m->space_options);
	if (!m->space_options.writeback_interval_ms)
		m->space_options.writeback_interval_ms = 3600 * 1000;
	m->space_options.log = log_nothing;
	m->open_flags |= MKW_RDWR;
	if (m->kind == MODEL_MEM) {
		snprintf(m->uri, sizeof(m->uri), "%smem:%llu%s", m->layer,
			 (unsigned long long)m->size, m->options);
		return;
	}
	for (uint64_t i = 0; i < m->size && !m->holes; i++)
		m->bytes[i] = script_pattern(i, 0);
	if (m->kind == MODEL_SCRIPT) {
		m->script = script_create(m->size);
		if (!m->holes)
			script_put(m->script, 0, m->bytes, m->size);
		m->ops = *script_ops(m->script);
		return;
	}
	snprintf(m->path, sizeof(m->path), "%s/mkwrite-nth-%d",
		 m->kind == MODEL_TMPFS ? "/dev/shm" : "/var/tmp", (int)getpid());
	snprintf(m->uri, sizeof(m->uri), "%sfile:%s%s", m->layer, m->path, m->options);
	file_make(m);
}

void model_begin(struct model *m, uint64_t pages)
{
	model_storage(m, pages);
	REQUIRE_EQ(model_space(m), 0);
	REQUIRE_EQ(model_open(m), 0);
	REQUIRE_EQ(model_map(m), 0);
}

/* An error that nobody has heard yet is told once; then it must be good. */
static int sync_at_last(struct model *m)
{
	int error = model_sync(m);

	m->told += error != 0;
	return error && nth_fired() ? model_sync(m) : error;
}

/* Have the store's own bytes read again. Nothing is charged then for pages that are not there.
 * (What a fault reported late fills again goes with the next try.) */
static int reread(struct model *m)
{
	struct mkw_stat stat = {.resident_bytes = 1};
	int error = 0;

	for (unsigned i = 0; i < 1000 && !error && stat.resident_bytes + stat.dirty_bytes > 0;
	     i++) {
		sched_yield();
		IN_LIBRARY(error = mkw_invalidate(m->handle, 0, 0));
		SEE_EQ(mkw_space_stat(m->space, &stat, sizeof(stat)), 0);
	}
	SEE_EQ(stat.resident_bytes, 0);
	SEE_EQ(stat.dirty_bytes, 0);
	SEE_EQ(stat.private_bytes, 0);
	SEE_EQ(stat.swapped_bytes, 0);
	return error;
}

/* What could not be made durable somebody must have heard of: nobody tries it again. */
static void check_told(const struct model *m)
{
	static const char *const names[] = {"fsync", "fdatasync"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (nth_failed(names[i]) && nth_failed(names[i]) != EINTR)
			SEE(m->told > 0);
	/* It takes the kernel's note of a failed write away. At the release of the store all that
	 * was to be durable is. */
	if (m->fired_open && nth_failed("sync_file_range"))
		SEE(m->told > 0);
}

void model_end(struct model *m)
{
	nth_disarm();
	m->only_own = false;
	snprintf(last_step, sizeof(last_step), "the end");
	if (m->handle) {
		model_check(m);
		if (m->private)
			SEE_EQ(model_unmap_private(m), 0);
		SEE_EQ(sync_at_last(m), 0);
		SEE_EQ(reread(m), 0);
		model_check(m);
	}
	if (m->second)
		SEE_EQ(model_unmap_second(m), 0);
	if (m->view)
		SEE_EQ(model_unmap(m), 0);
	if (m->handle)
		SEE_EQ(model_close(m), 0);
	if (m->space && !SEE_EQ(model_destroy(m), 0))
		test_stop();
	check_told(m);
	store_compare(m);
	if (m->script)
		SEE(script_destroy(m->script));
	if (m->path[0])
		unlink(m->path);
}

/* ---- Runs --------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void check_holdings(const struct nth_holdings *before)
{
	uint64_t deadline_ms = now_ms() + SETTLE_MS;
	struct nth_holdings now;

	/* A thread that was joined stays in /proc for an instant. */
	while ((now = nth_holdings()).threads > before->threads && now_ms() < deadline_ms)
		sched_yield();
	SEE_EQ(now.threads, before->threads);
	SEE_EQ(now.descriptors, before->descriptors);
	SEE_EQ(now.allocations, before->allocations);
	SEE_EQ(now.mappings, before->mappings);
	SEE_EQ(now.lines, 0);
}

static bool run(enum model_store kind, const char *options, void (*scenario)(struct model *m),
		uint64_t nth, unsigned which)
{
	struct nth_holdings before = nth_holdings();

	memset(model.bytes, 0, model.most_bytes);
	memset(&model, 0, offsetof(struct model, bytes));
	model.kind = kind;
	model.options = options;
	loop_nth = nth;
	loop_which = which;
	failures = 0;
	scenario(&model);
	snprintf(last_step, sizeof(last_step), "what is left behind");
	check_holdings(&before);
	return failures == 0;
}

bool model_heavy(void)
{
	return test_rounds(1) > 1;
}

/* Threads do not make their calls in the same order each time, nor as many: so many runs in a row
 * without the Nth call are the end. */
#define RUNS_WITHOUT 3u

/* What the first space makes stays: signal handlers use it, and they stay, too. */
static void make_what_stays(void)
{
	struct mkw_space *space;
	int error;

	IN_LIBRARY(error = mkw_space_create(NULL, &space));
	REQUIRE_EQ(error, 0);
	IN_LIBRARY(error = mkw_space_destroy(space, 0));
	CHECK_EQ(error, 0);
}

void model_loop(enum model_store kind, const char *options, void (*scenario)(struct model *m))
{
	unsigned errnos = model_heavy() ? ERRNOS_MAX : 1;
	const char *only = getenv("MKW_NTH");
	uint64_t first = only ? strtoull(only, NULL, 10) : 1, failed = 0;

	test_not_under_tsan();
	nth_tell_at_end();
	make_what_stays();
	run(kind, options, scenario, 0, 0);
	for (unsigned which = 0; which < errnos && failed < FAILED_MOST; which++) {
		uint64_t n = first;
		unsigned without = 0;

		for (; without < RUNS_WITHOUT && n < CALLS_MAX && failed < FAILED_MOST; n++) {
			failed += !run(kind, options, scenario, n, which);
			without = nth_disarm() < n ? without + 1 : 0;
			if (only || n == model.enough)
				break;
		}
		CHECK(n < CALLS_MAX);
		test_note("%llu calls", (unsigned long long)n - 1);
	}
}
