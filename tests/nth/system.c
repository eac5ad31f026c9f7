/* SPDX-License-Identifier: MIT */
/*
 * system.c - each system call and each allocation of the library fails once, wherever it is made:
 * what was to be done is done, or refused with an error and done when asked again; nothing dirty is
 * lost, nothing is left behind, nobody waits for ever.
 */
#include "nth/model.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the file store calls does not depend on what the kernel's userfaultfd can do. */
static void on_file(const char *options, void (*scenario)(struct model *m))
{
	if (model_heavy() || test_backend() != TEST_UFFD_OLD)
		model_loop(MODEL_FILE, options, scenario);
	if (model_heavy())
		model_loop(MODEL_TMPFS, options, scenario);
}

static void each_store(void (*scenario)(struct model *m))
{
	model_loop(MODEL_MEM, "", scenario);
	on_file("", scenario);
}

static int write_first(struct model *m)
{
	return model_write(m, 0, 3, 'a');
}

static int write_again(struct model *m)
{
	return model_write(m, 1, 4, 'b');
}

static int msync_all(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_msync(m->view, m->view_pages * PAGE));
	return error;
}

static int advise(struct model *m, enum mkw_advice advice)
{
	int error;

	IN_LIBRARY(error = mkw_advise(m->view, m->view_pages * PAGE, advice));
	return error;
}

static int advise_sequential(struct model *m)
{
	return advise(m, MKW_SEQUENTIAL);
}

static int advise_random(struct model *m)
{
	return advise(m, MKW_RANDOM);
}

static int advise_willneed(struct model *m)
{
	return advise(m, MKW_WILLNEED);
}

static int advise_dontneed(struct model *m)
{
	return advise(m, MKW_DONTNEED);
}

/* ---- Children ----------------------------------------------------------------------------- */

static void write_in_child(void *view)
{
	((volatile unsigned char *)view)[PAGE + 5] = 'F';
}

/* A child has the view, or it has none: what it wrote is there, or it has not. */
static int fork_child(struct model *m)
{
	int status = 0;
	pid_t pid;

	IN_LIBRARY(pid = fork());
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		_exit(mkw_guard(write_in_child, m->view, NULL) == 0 ? 0 : 3);
	}
	while (waitpid(pid, &status, 0) < 0)
		CHECK_EQ(errno, EINTR);
	CHECK((WIFEXITED(status) && (WEXITSTATUS(status) & ~3) == 0) ||
	      (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		m->bytes[PAGE + 5] = 'F';
	return 0;
}

static void forks(struct model *m)
{
	model_begin(m, 4);
	model_arm();
	STEP(m, write_first);
	STEP(m, fork_child);
	STEP(m, fork_child);
	STEP(m, msync_all);
	model_end(m);
}

TEST(nth_fork, "7.1 whatever call fails, a child has a view that is served, or none")
{
	test_not_under_tsan();
	model_loop(MODEL_MEM, "", forks);
}

/* ---- From beginning to end ---------------------------------------------------------------- */

static void life(struct model *m)
{
	model_storage(m, 4);
	model_arm();
	STEP(m, model_space);
	STEP(m, model_open);
	STEP(m, model_map);
	STEP(m, write_first);
	STEP(m, model_unmap);
	STEP(m, model_close);
	STEP(m, model_destroy);
	model_end(m);
}

TEST_EACH_BACKEND(nth_life, "whatever call fails between making a space and ending it")
{
	each_store(life);
}

static void life_of_swap(struct model *m)
{
	char path[64];

	model_storage(m, 1);
	m->space_options.swap_path = "/tmp";
	model_arm();
	STEP(m, model_space);
	STEP(m, model_destroy);
	snprintf(path, sizeof(path), "/tmp/mkwrite-nth-%d", (int)getpid());
	m->space_options.swap_path = path;
	STEP(m, model_space);
	STEP(m, model_destroy);
	CHECK(access(path, F_OK) != 0);
	model_end(m);
}

TEST(nth_life_of_swap, "2.8 whatever call fails, a swap file is there or not, and leaves nothing")
{
	model_loop(MODEL_MEM, "", life_of_swap);
}

static void life_of_layer(struct model *m)
{
	m->layer = "error:";
	m->open_flags = MKW_CREATE | MKW_TRUNC;
	model_storage(m, 4);
	memset(m->bytes, 0, m->size);
	m->size = 0;
	model_arm();
	STEP(m, model_space);
	STEP(m, model_open);
	STEP(m, model_close);
	STEP(m, model_open);
	model_end(m);
}

TEST(nth_layer, "whatever call fails while an emptied file is opened through a layer")
{
	model_loop(MODEL_FILE, "?quota=1M", life_of_layer);
}

static int look_backends(struct model *m)
{
	struct mkw_backend_info info[4];
	size_t n;

	(void)m;
	IN_LIBRARY(n = mkw_backends(info, 4));
	for (size_t i = 0; i < n; i++)
		if (!info[i].usable && !info[i].reason[0])
			return -ENOENT;
	return n == 2 ? 0 : -ENOENT;
}

static void probing(struct model *m)
{
	model_storage(m, 1);
	model_arm();
	STEP(m, look_backends);
	model_end(m);
}

TEST(nth_backends, "whatever call fails while the host is looked at: a reason is given")
{
	model_loop(MODEL_MEM, "", probing);
}

/* ---- Accesses ----------------------------------------------------------------------------- */

static void accesses(struct model *m)
{
	model_begin(m, 12);
	model_arm();
	STEP(m, model_read);
	STEP(m, write_first);
	STEP(m, model_map_second);
	STEP(m, write_again);
	STEP(m, model_read);
	STEP(m, model_sync);
	STEP(m, write_first);
	STEP(m, model_unmap_second);
	STEP(m, msync_all);
	model_end(m);
}

TEST_EACH_BACKEND(nth_accesses, "whatever call fails while views are read and written")
{
	each_store(accesses);
}

/* ---- Views that change -------------------------------------------------------------------- */

static int protect_part(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_protect(m->view + PAGE, PAGE, MKW_READ));
	return error;
}

static int protect_back(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_protect(m->view, m->view_pages * PAGE, MKW_WRITE));
	return error;
}

/* To what it has shown before: mapped anew all the same. */
static int remap_page(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_remap_pages(m->view + PAGE, PAGE, PAGE));
	return error;
}

/* Not in place: the scenario sees to that. */
static int move_view(struct model *m)
{
	size_t length = m->view_pages * PAGE;
	void *moved, *wall;
	int error;

	wall = mmap(m->view + length, PAGE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	IN_LIBRARY(error = mkw_remap(m->view, length, length + PAGE, MKW_MAYMOVE, &moved));
	if (wall != MAP_FAILED)
		munmap(wall, PAGE);
	if (error == 0) {
		m->view = moved;
		m->view_pages++;
	}
	return error;
}

static int shrink_view(struct model *m)
{
	size_t length = m->view_pages * PAGE;
	void *same;
	int error;

	IN_LIBRARY(error = mkw_remap(m->view, length, length - PAGE, 0, &same));
	m->view_pages -= error == 0;
	return error;
}

static void reshaping(struct model *m)
{
	model_begin(m, 12);
	model_arm();
	STEP(m, write_first);
	STEP(m, protect_part);
	STEP(m, protect_back);
	STEP(m, remap_page);
	STEP(m, write_again);
	STEP(m, move_view);
	STEP(m, write_first);
	STEP(m, shrink_view);
	STEP(m, msync_all);
	model_end(m);
}

TEST_EACH_BACKEND(nth_reshaping, "whatever call fails while views are changed: they are as before")
{
	each_store(reshaping);
}

static int write_stream(struct model *m)
{
	return model_write(m, 0, 48, 'c');
}

static int write_stream_again(struct model *m)
{
	return model_write(m, 0, 64, 'd');
}

static void streams(struct model *m)
{
	model_begin(m, 64);
	model_arm();
	STEP(m, advise_sequential);
	STEP(m, write_stream);
	STEP(m, model_sync);
	STEP(m, advise_dontneed);
	STEP(m, advise_willneed);
	STEP(m, model_read);
	STEP(m, write_stream_again);
	STEP(m, model_sync);
	model_end(m);
}

TEST_EACH_BACKEND(nth_streams, "whatever call fails while runs of pages are filled and granted")
{
	each_store(streams);
}

static int write_across(struct model *m)
{
	return model_write(m, 508, 8, 'e');
}

static int punch_across(struct model *m)
{
	return model_punch(m, 505 * PAGE + 100, 9 * PAGE);
}

static void regions(struct model *m)
{
	m->holes = true;
	m->quiet_pages = 500;
	model_begin(m, 520);
	model_arm();
	STEP(m, write_across);
	STEP(m, model_map_second);
	STEP(m, punch_across);
	STEP(m, write_across);
	STEP(m, model_sync);
	model_end(m);
}

TEST_EACH_BACKEND(nth_regions, "whatever call fails where two regions meet")
{
	model_loop(MODEL_MEM, "", regions);
	on_file("", regions);
}

/* ---- Sizes -------------------------------------------------------------------------------- */

static int cut(struct model *m)
{
	return model_truncate(m, 5 * PAGE + 100);
}

static int grow(struct model *m)
{
	return model_truncate(m, 9 * PAGE + 50);
}

static int punch_pages(struct model *m)
{
	return model_punch(m, PAGE, 2 * PAGE);
}

static int punch_bytes(struct model *m)
{
	return model_punch(m, 3 * PAGE + 100, 2 * PAGE);
}

/* What was written since the last sync goes. */
static int write_and_discard(struct model *m)
{
	static unsigned char synced[PAGE];
	int error = model_sync(m);

	memcpy(synced, m->bytes + PAGE, PAGE);
	if (!error)
		error = model_write(m, 1, 1, 'f');
	if (!error)
		IN_LIBRARY(error = mkw_discard(m->handle, PAGE, PAGE));
	if (!error)
		memcpy(m->bytes + PAGE, synced, PAGE);
	return error;
}

static void sizes(struct model *m)
{
	model_begin(m, 10);
	model_arm();
	STEP(m, write_again);
	STEP(m, cut);
	STEP(m, write_first);
	STEP(m, grow);
	STEP(m, model_read);
	STEP(m, punch_pages);
	STEP(m, punch_bytes);
	STEP(m, write_and_discard);
	STEP(m, write_first);
	model_end(m);
}

TEST_EACH_BACKEND(nth_sizes, "whatever call fails while an object is cut, grown and punched")
{
	each_store(sizes);
}

/* ---- File-like I/O ------------------------------------------------------------------------ */

static int pwrite_inside(struct model *m)
{
	return model_pwrite(m, PAGE + 17, 3 * PAGE, 'g');
}

static int pwrite_past_end(struct model *m)
{
	return model_pwrite(m, 7 * PAGE + 9, 4 * PAGE, 'h');
}

static int invalidate(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_invalidate(m->handle, 0, 0));
	return error;
}

static int pread_all(struct model *m)
{
	static unsigned char bytes[16 * PAGE];
	ssize_t n;

	IN_LIBRARY(n = mkw_pread(m->handle, bytes, sizeof(bytes), 0));
	if (n == (ssize_t)m->size)
		CHECK_MEM(bytes, m->bytes, m->size);
	return n < 0 ? (int)n : n == (ssize_t)m->size ? 0 : -EIO;
}

static void calls(struct model *m)
{
	model_begin(m, 8);
	model_arm();
	STEP(m, pwrite_inside);
	STEP(m, pwrite_past_end);
	STEP(m, invalidate);
	STEP(m, pread_all);
	model_end(m);
}

TEST_EACH_BACKEND(nth_calls, "whatever call fails in mkw_pread, mkw_pwrite and mkw_invalidate")
{
	each_store(calls);
}

TEST(nth_direct, "whatever call fails in direct I/O")
{
	model_loop(MODEL_FILE, "?direct=1", calls);
}

/* ---- Reservations, freezing, properties --------------------------------------------------- */

static int reserve(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_reserve(m->view, 6 * PAGE));
	return error;
}

static int unreserve(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_unreserve(m->view, 6 * PAGE));
	return error;
}

static int freeze(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_freeze(m->handle));
	return error;
}

static int thaw(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_thaw(m->handle));
	return error;
}

static int properties(struct model *m)
{
	uint64_t free_bytes, total_bytes;
	struct mkw_range range[4];
	struct mkw_stat stat;
	int error;

	IN_LIBRARY(error = mkw_control(m->handle, "quota=64M"));
	if (!error)
		IN_LIBRARY(error = mkw_capacity(m->handle, &free_bytes, &total_bytes));
	if (!error)
		IN_LIBRARY(error = mkw_set_limits(m->handle, 0, 0));
	if (!error)
		IN_LIBRARY(error = mkw_set_policy(m->handle, MKW_REFUSE, NULL, NULL));
	if (!error)
		IN_LIBRARY(error = mkw_object_stat(m->handle, &stat, sizeof(stat)));
	if (!error)
		IN_LIBRARY(error = mkw_space_stat(m->space, &stat, sizeof(stat)));
	if (!error)
		IN_LIBRARY(error = mkw_dirty_ranges(m->handle, 0, 0, range, 4) < 0 ? -EIO : 0);
	return error;
}

static void reservations(struct model *m)
{
	m->holes = true;
	model_begin(m, 10);
	model_arm();
	STEP(m, reserve);
	STEP(m, write_first);
	STEP(m, properties);
	STEP(m, unreserve);
	STEP(m, write_again);
	STEP(m, freeze);
	STEP(m, model_read);
	STEP(m, thaw);
	model_end(m);
}

TEST_EACH_BACKEND(nth_reservations,
		  "whatever call fails while space is reserved and an object frozen")
{
	each_store(reservations);
	on_file("?extent=4K", reservations);
}

static int punch_written(struct model *m)
{
	return model_punch(m, 0, 4 * PAGE);
}

/* Does the file count as no more than four pages? */
static int quota_of_four(struct model *m)
{
	int error;

	IN_LIBRARY(error = mkw_control(m->handle, "quota=16K"));
	return error;
}

static int write_four(struct model *m)
{
	return model_write(m, 0, 4, 'm');
}

static void counting(struct model *m)
{
	m->holes = true;
	model_begin(m, 8);
	REQUIRE_EQ(advise_random(m), 0);
	nth_without_fallocate(true);
	model_arm();
	STEP(m, write_four);
	STEP(m, punch_written);
	STEP(m, quota_of_four);
	STEP(m, write_four);
	STEP(m, model_sync);
	STEP(m, quota_of_four);
	model_end(m);
	nth_without_fallocate(false);
}

TEST(nth_counting, "whatever call fails where the file system can neither reserve nor punch")
{
	model_loop(MODEL_TMPFS, "", counting);
}

/* ---- Refusals ----------------------------------------------------------------------------- */

static int refused(struct model *m)
{
	int error = model_write(m, 6, 1, 'i');

	return error == -ENOSPC ? 0 : error ? error : -EIO;
}

/* read(2) into a page that may not be written. */
static int refused_call(struct model *m)
{
	int ends[2], error;

	REQUIRE_EQ(pipe2(ends, O_CLOEXEC), 0);
	REQUIRE_EQ(write(ends[1], "x", 1), 1);
	error = read(ends[0], m->view + 7 * PAGE, 1) < 0 ? -errno : 0;
	close(ends[0]);
	close(ends[1]);
	return error == -EFAULT ? 0 : error ? error : -EIO;
}

static int fill_quota(struct model *m)
{
	return model_write(m, 0, 4, 'j');
}

/* write(2) of a page past the end. */
static int refused_end(struct model *m)
{
	int ends[2], error = model_truncate(m, 7 * PAGE);

	if (error)
		return error;
	REQUIRE_EQ(pipe2(ends, O_CLOEXEC), 0);
	error = write(ends[1], m->view + 7 * PAGE, 1) < 0 ? -errno : 0;
	close(ends[0]);
	close(ends[1]);
	return error == -EFAULT ? 0 : error ? error : -EIO;
}

static void refusals(struct model *m)
{
	m->holes = true;
	model_begin(m, 8);
	REQUIRE_EQ(advise_random(m), 0);
	REQUIRE_EQ(fill_quota(m), 0);
	model_arm();
	STEP(m, refused);
	STEP(m, refused_call);
	STEP(m, refused);
	STEP(m, refused_end);
	STEP(m, fill_quota);
	model_end(m);
}

TEST_EACH_BACKEND(nth_refusals, "whatever call fails while accesses are refused: they are refused")
{
	model_loop(MODEL_MEM, "?quota=16K", refusals);
	on_file("?quota=16K&extent=4K", refusals);
}

static int set_policy(struct model *m, enum mkw_policy policy)
{
	int error;

	IN_LIBRARY(error = mkw_set_policy(m->handle, policy, NULL, NULL));
	return error;
}

static int control(struct model *m, const char *assignment)
{
	int error;

	IN_LIBRARY(error = mkw_control(m->handle, assignment));
	return error;
}

static int write_two(struct model *m)
{
	return model_write(m, 6, 2, 'l');
}

static int write_deferred(struct model *m)
{
	int error = set_policy(m, MKW_DEFER);

	return error ? error : write_two(m);
}

static int sync_refused(struct model *m)
{
	int error = model_sync(m);

	m->told += error != 0;
	return error == -ENOSPC ? 0 : error ? error : -EIO;
}

static int raise_quota(struct model *m)
{
	return control(m, "quota=64K");
}

static void deferring(struct model *m)
{
	m->holes = true;
	model_begin(m, 8);
	REQUIRE_EQ(advise_random(m), 0);
	REQUIRE_EQ(fill_quota(m), 0);
	model_arm();
	STEP(m, write_deferred);
	STEP(m, sync_refused);
	STEP(m, raise_quota);
	STEP(m, model_sync);
	model_end(m);
}

TEST_EACH_BACKEND(nth_deferring, "whatever call fails while refused writes are kept for later")
{
	model_loop(MODEL_MEM, "?quota=16K", deferring);
	on_file("?quota=16K&extent=4K", deferring);
}

struct writer {
	struct test_thread thread;
	struct model *model;
	model_fn fn;
	int error;
	struct test_event written, done;
};

static void *writer_main(void *arg)
{
	struct writer *writer = arg;

	writer->error = writer->fn(writer->model);
	test_event_set(&writer->written);
	test_event_wait(&writer->done);
	return NULL;
}

static void writer_start(struct writer *writer, struct model *m, model_fn fn)
{
	*writer = (struct writer){
		.model = m, .fn = fn, .written = TEST_EVENT_INIT, .done = TEST_EVENT_INIT};
	test_thread_start(&writer->thread, writer_main, writer);
}

/* The writer's error, or that of a call made meanwhile. */
static int writer_end(struct writer *writer, int error)
{
	test_event_set(&writer->done);
	test_thread_join(&writer->thread);
	if (!error)
		error = writer->error;
	return error ? mkw_set_error(error, "the writer, or a call beside it, failed") : 0;
}

static uint64_t waits_of(struct model *m)
{
	struct mkw_stat stat = {0};

	CHECK_EQ(mkw_object_stat(m->handle, &stat, sizeof(stat)), 0);
	return stat.waits;
}

/* The writer waits for space until there is some, or is let go when the quota cannot be raised. */
static int write_waiting(struct model *m)
{
	struct writer writer;
	uint64_t waits = waits_of(m);
	int error = set_policy(m, MKW_WAIT);

	if (error)
		return error;
	writer_start(&writer, m, write_two);
	/* It waits, or has been refused for another reason, or had its space from an earlier try.
	 */
	test_wait_until(test_event_count(&writer.written) > 0 || waits_of(m) > waits);
	error = raise_quota(m);
	if (error)
		set_policy(m, MKW_REFUSE);
	return writer_end(&writer, error);
}

static void waiting(struct model *m)
{
	m->holes = true;
	/* Who waits because of an error is asked for again every so often. */
	m->space_options.writeback_interval_ms = 20;
	model_begin(m, 8);
	REQUIRE_EQ(advise_random(m), 0);
	REQUIRE_EQ(fill_quota(m), 0);
	model_arm();
	STEP(m, write_waiting);
	model_end(m);
}

TEST_EACH_BACKEND(nth_waiting, "whatever call fails while a write waits for space")
{
	model_loop(MODEL_MEM, "?quota=16K", waiting);
	on_file("?quota=16K&extent=4K", waiting);
}

/* ---- Other threads ------------------------------------------------------------------------ */

/* What a living thread wrote: is it inside a call that may be storing there? */
static int sync_of_writer(struct model *m)
{
	struct writer writer;
	int error;

	writer_start(&writer, m, write_again);
	test_event_wait(&writer.written);
	error = model_sync(m);
	return writer_end(&writer, error);
}

/* A page of the file into the page of the view that shows it: the store cannot be let to read it.
 */
static int read_own_file(struct model *m)
{
	int fd = open(m->path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	REQUIRE(fd >= 0);
	n = pread(fd, m->view + 7 * PAGE, PAGE, 7 * PAGE);
	if (n < 0)
		CHECK_EQ(errno, EFAULT);
	close(fd);
	return 0;
}

static void other_threads(struct model *m)
{
	model_begin(m, 8);
	model_arm();
	STEP(m, sync_of_writer);
	STEP(m, read_own_file);
	STEP(m, sync_of_writer);
	model_end(m);
}

TEST_EACH_BACKEND(nth_threads, "whatever call fails while it is looked at what other threads do")
{
	on_file("", other_threads);
}

/* Another space of this process has the file. */
static int open_twice(struct model *m)
{
	struct mkw_handle *handle;
	struct mkw_space *space;
	int error;

	IN_LIBRARY(error = mkw_space_create(&m->space_options, &space));
	if (error)
		return error;
	IN_LIBRARY(error = mkw_open(space, m->uri, MKW_RDWR, &handle));
	if (!CHECK(error != 0))
		mkw_close(handle);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	return error == -EBUSY ? 0 : mkw_set_error(error, "not EBUSY");
}

static void leases(struct model *m)
{
	m->enough = 60; /* further on it reads all of /proc */
	model_begin(m, 1);
	model_arm();
	STEP(m, open_twice);
	model_end(m);
}

TEST(nth_lease, "whatever call fails while it is looked who else has a file: it is refused")
{
	model_loop(MODEL_FILE, "", leases);
}

/* ---- Limits ------------------------------------------------------------------------------- */

static int write_many(struct model *m)
{
	return model_write(m, 0, 8, 'k');
}

static void limits(struct model *m)
{
	m->space_options.dirty_limit_bytes = 2 * PAGE;
	m->space_options.resident_limit_bytes = 4 * PAGE;
	model_begin(m, 8);
	model_arm();
	STEP(m, write_many);
	STEP(m, model_read);
	model_end(m);
}

TEST_EACH_BACKEND(nth_limits, "whatever call fails while room is made under limits")
{
	model_loop(MODEL_MEM, "", limits);
	on_file("", limits);
}

/* ---- Stores over views -------------------------------------------------------------------- */

#define CHAIN 4

/* A store that reads what it answers from a view of the next object. */
static struct link {
	const unsigned char *beneath;
	struct mkw_handle *handle;
	unsigned char *view;
} chain[CHAIN];

static mkw_fault_t chain_fault(void *store, struct mkw_object *object, struct mkw_run *run,
			       void *buffer)
{
	const struct link *link = store;

	(void)object;
	mkw_run_cut(run, run->first, 1);
	if (link->beneath)
		memcpy(buffer, link->beneath + run->first * PAGE, PAGE);
	else
		memset(buffer, (int)('a' + run->first), PAGE);
	return MKW_FAULT_LOCKED;
}

static const struct mkw_store_ops chain_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "chain",
	.fault = chain_fault,
};

static void chain_open(struct model *m)
{
	for (int i = CHAIN - 1; i >= 0; i--) {
		void *address;

		chain[i] = (struct link){.beneath = i + 1 < CHAIN ? chain[i + 1].view : NULL};
		REQUIRE_EQ(mkw_create(m->space, &chain_ops, &chain[i], 4 * PAGE, MKW_RDONLY,
				      &chain[i].handle),
			   0);
		REQUIRE_EQ(
			mkw_map(chain[i].handle, 4 * PAGE, MKW_READ, test_map_flags(), 0, &address),
			0);
		chain[i].view = address;
	}
}

static void chain_close(void)
{
	for (int i = 0; i < CHAIN; i++) {
		CHECK_EQ(mkw_unmap(chain[i].view, 4 * PAGE), 0);
		CHECK_EQ(mkw_close(chain[i].handle), 0);
	}
}

static int chain_read(struct model *m)
{
	int error = 0;

	(void)m;
	for (int page = 0; page < 2 && !error; page++) {
		unsigned char value;

		IN_LIBRARY(error = try_read(chain[0].view + (size_t)page * PAGE, &value, NULL));
		if (!error)
			CHECK_EQ(value, 'a' + page);
	}
	return error;
}

static void chains(struct model *m)
{
	model_storage(m, 1);
	REQUIRE_EQ(model_space(m), 0);
	IN_LIBRARY(chain_open(m));
	model_arm();
	if (model_step(m, chain_read, "chain_read"))
		chain_read(m);
	nth_disarm();
	IN_LIBRARY(chain_close());
	model_end(m);
}

TEST_EACH_BACKEND(nth_chains, "whatever call fails while operations wait for one another's faults")
{
	model_loop(MODEL_MEM, "", chains);
}

/* ---- Ends --------------------------------------------------------------------------------- */

static void end_by_close(struct model *m)
{
	model_begin(m, 6);
	REQUIRE_EQ(write_first(m), 0);
	model_arm();
	STEP(m, model_unmap);
	STEP(m, model_close);
	STEP(m, model_destroy);
	model_end(m);
}

static void end_by_unmap(struct model *m)
{
	model_begin(m, 6);
	REQUIRE_EQ(write_first(m), 0);
	model_arm();
	STEP(m, model_close);
	STEP(m, model_unmap);
	STEP(m, model_destroy);
	model_end(m);
}

static void end_by_destroy(struct model *m)
{
	model_begin(m, 6);
	REQUIRE_EQ(write_first(m), 0);
	model_arm();
	STEP(m, model_close);
	STEP(m, model_destroy);
	m->view = NULL;
	model_end(m);
}

TEST_EACH_BACKEND(nth_ends, "whatever call fails at the end: what was dirty is in the store")
{
	each_store(end_by_close);
	each_store(end_by_unmap);
	each_store(end_by_destroy);
}

/* ---- Pins --------------------------------------------------------------------------------- */

static int write_pinned(struct model *m)
{
	return model_write_pinned(m, 1, 4, 'P');
}

static int write_pinned_again(struct model *m)
{
	return model_write_pinned(m, 2, 5, 'Q');
}

static void pins(struct model *m)
{
	model_begin(m, 8);
	model_arm();
	STEP(m, write_pinned);
	STEP(m, write_pinned_again);
	STEP(m, model_pin_private);
	STEP(m, model_sync);
	model_end(m);
}

TEST_EACH_BACKEND(nth_pins, "whatever call fails while pages are pinned")
{
	each_store(pins);
}
