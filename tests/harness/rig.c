/* SPDX-License-Identifier: MIT */
/*
 * rig.c - a world for tests that look at write-back, limits and threads (rig.h).
 */
#include "harness/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Opening ------------------------------------------------------------------------------ */

static const struct mkw_space_options quiet = {RIG_QUIET};

/* A second opening is asked for its own release, which must not reach the store (store.h,
 * identity). */
static void shared_release(void *store)
{
	(void)store;
}

static struct script_store *shared_store;
static struct mkw_store_ops shared_ops;
static bool shared_opened;

/* "script:": the store that rig_open_shared has made. One a process is enough. */
static int shared_open(struct mkw_open_args *args)
{
	shared_ops = *script_ops(shared_store);
	if (shared_opened)
		shared_ops.release = shared_release;
	args->ops = shared_opened ? &shared_ops : script_ops(shared_store);
	args->store = shared_store;
	args->size_bytes = script_size_bytes(shared_store);
	memcpy(args->identity, "rig", 3);
	args->identity_length = 3;
	shared_opened = true;
	return 0;
}

static const struct mkw_store_driver shared_driver = {
	.struct_size = sizeof(struct mkw_store_driver),
	.scheme = "script",
	.summary = "the store of a test",
	.options = "",
	.open = shared_open,
};

unsigned char *rig_map(struct mkw_handle *handle, uint64_t pages, uint64_t offset)
{
	void *address = NULL;

	REQUIRE_EQ(mkw_map(handle, pages * PAGE, MKW_READ | MKW_WRITE, test_map_flags(), offset,
			   &address),
		   0);
	return address;
}

static void rig_begin(struct rig *rig, const struct mkw_space_options *options, uint64_t pages)
{
	struct mkw_space_options own = options ? *options : quiet;

	own.log = world_log;
	*rig = (struct rig){.pages = pages};
	REQUIRE_EQ(mkw_space_create(&own, &rig->space), 0);
	rig->store = script_create(pages * PAGE);
}

void rig_open(struct rig *rig, const struct mkw_space_options *options, uint64_t pages,
	      unsigned flags)
{
	rig_begin(rig, options, pages);
	REQUIRE_EQ(script_open(rig->store, rig->space, flags, &rig->handle), 0);
	rig->view = rig_map(rig->handle, pages, 0);
}

void rig_open_shared(struct rig *rig, const struct mkw_space_options *options, uint64_t pages,
		     unsigned flags)
{
	rig_begin(rig, options, pages);
	shared_store = rig->store;
	REQUIRE_EQ(mkw_store_register(&shared_driver), 0);
	rig->handle = rig_reopen(rig, flags);
	rig->view = rig_map(rig->handle, pages, 0);
}

struct mkw_handle *rig_reopen(struct rig *rig, unsigned flags)
{
	struct mkw_handle *handle = NULL;

	REQUIRE_EQ(mkw_open(rig->space, "script:rig", flags, &handle), 0);
	return handle;
}

void rig_add(struct rig *added, struct rig *rig, uint64_t pages, unsigned flags)
{
	*added = (struct rig){.space = rig->space, .pages = pages};
	added->store = script_create(pages * PAGE);
	REQUIRE_EQ(script_open(added->store, added->space, flags, &added->handle), 0);
	added->view = rig_map(added->handle, pages, 0);
}

void rig_leave(struct rig *rig)
{
	if (rig->view)
		CHECK_EQ(mkw_unmap(rig->view, rig->pages * PAGE), 0);
	if (rig->handle)
		CHECK_EQ(mkw_close(rig->handle), 0);
	rig->view = NULL;
	rig->handle = NULL;
}

void rig_close(struct rig *rig)
{
	rig_leave(rig);
	REQUIRE_EQ(mkw_space_destroy(rig->space, 0), 0);
	CHECK(script_destroy(rig->store));
}

/* ---- Looking ------------------------------------------------------------------------------ */

uint64_t rig_stored_word(struct rig *rig, uint64_t page)
{
	uint64_t word;

	script_get(rig->store, page * PAGE, &word, sizeof(word));
	return word;
}

/* TSan knows of a store before it faults, so also of those that wait for what is looked at here. */
__attribute__((no_sanitize("thread"))) static void page_copy(unsigned char *to,
							     const volatile unsigned char *from)
{
	for (size_t i = 0; i < PAGE; i++)
		to[i] = from[i];
}

void rig_check_stored(struct rig *rig)
{
	unsigned char stored[PAGE], seen[PAGE];

	for (uint64_t page = 0; page < rig->pages; page++) {
		script_get(rig->store, page * PAGE, stored, PAGE);
		page_copy(seen, rig->view + page * PAGE);
		if (CHECK_MEM(stored, seen, PAGE))
			continue;
		test_note("that was page %llu of the store", (unsigned long long)page);
		return;
	}
}

struct mkw_stat rig_stat(struct rig *rig)
{
	struct mkw_stat stat;

	REQUIRE_EQ(mkw_object_stat(rig->handle, &stat, sizeof(stat)), 0);
	return stat;
}

struct mkw_stat rig_space_stat(struct rig *rig)
{
	struct mkw_stat stat;

	REQUIRE_EQ(mkw_space_stat(rig->space, &stat, sizeof(stat)), 0);
	return stat;
}

uint64_t rig_dirty_pages(struct rig *rig)
{
	return rig_stat(rig).dirty_bytes / PAGE;
}

uint64_t rig_longest_run(struct rig *rig, size_t nth)
{
	struct script_call call;
	uint64_t longest = 0, seen = 0;

	for (size_t i = 0; script_log(rig->store, i, &call); i++)
		if (call.op == SCRIPT_MKWRITE && ++seen >= nth && call.count > longest)
			longest = call.count;
	return longest;
}

/* ---- Threads ------------------------------------------------------------------------------ */

/* Does the thread sleep in the kernel? Not if it has ended, or is about to. */
static bool thread_sleeps(struct test_thread *thread)
{
	char path[64], text[512];
	const char *name_end;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&thread->tid));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[length > 0 ? length : 0] = '\0';
	name_end = strrchr(text, ')');
	return name_end && (name_end[2] == 'S' || name_end[2] == 'D');
}

/* Asleep once may be asleep for a moment: look many times, and give way each time to those that
 * would wake it. */
#define LOOKS 200

bool rig_settle(struct test_thread *thread)
{
	int asleep = 0;

	while (asleep < LOOKS) {
		if (atomic_load(&thread->ended))
			return true;
		asleep = thread_sleeps(thread) ? asleep + 1 : 0;
		test_yield();
	}
	return false;
}

bool rig_check_stuck(struct test_thread *thread, const char *file, int line)
{
	return test_check(!rig_settle(thread), file, line, "the thread has to wait");
}

static void *sync_run(void *arg)
{
	struct rig_sync *sync = arg;

	sync->result = mkw_sync(sync->handle, sync->offset, sync->length);
	return NULL;
}

void rig_sync_start(struct rig_sync *sync, struct mkw_handle *handle)
{
	*sync = (struct rig_sync){.handle = handle};
	test_thread_start(&sync->thread, sync_run, sync);
}

int rig_sync_join(struct rig_sync *sync)
{
	test_thread_join(&sync->thread);
	return sync->result;
}

static void *hammer_run(void *arg)
{
	struct rig_hammer *hammer = arg;

	while (!atomic_load(&hammer->stop)) {
		*hammer->word += 1;
		atomic_fetch_add(&hammer->done, 1);
	}
	return NULL;
}

void rig_hammer_start(struct rig_hammer *hammer, _Atomic uint64_t *word)
{
	*hammer = (struct rig_hammer){.word = word};
	test_thread_start(&hammer->thread, hammer_run, hammer);
}

void rig_hammer_beat(struct rig_hammer *hammer)
{
	uint64_t before = atomic_load(&hammer->done);

	/* Two: the first may have stored before this call. */
	test_wait_until(atomic_load(&hammer->done) >= before + 2);
}

void rig_hammer_stop(struct rig_hammer *hammer)
{
	atomic_store(&hammer->stop, true);
	test_thread_join(&hammer->thread);
}

static void *writer_run(void *arg)
{
	struct rig_writer *writer = arg;

	*writer->word = writer->value;
	return NULL;
}

void rig_writer_start(struct rig_writer *writer, _Atomic uint64_t *word, uint64_t value)
{
	*writer = (struct rig_writer){.word = word, .value = value};
	test_thread_start(&writer->thread, writer_run, writer);
}

int rig_child(int (*fn)(void *arg), void *arg)
{
	int status = 0;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(fn(arg));
	while (waitpid(pid, &status, 0) < 0)
		REQUIRE_EQ(errno, EINTR);
	return status;
}

uint64_t rig_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* ---- Files -------------------------------------------------------------------------------- */

void rig_file_make(char path[RIG_PATH_MAX], size_t size_bytes)
{
	char directory[] = "/tmp/mkwrite-test-XXXXXX";
	unsigned char page[PAGE];
	int fd;

	REQUIRE(mkdtemp(directory));
	snprintf(path, RIG_PATH_MAX, "%s/file", directory);
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	REQUIRE(fd >= 0);
	for (size_t done = 0; done < size_bytes;) {
		size_t length = size_bytes - done < PAGE ? size_bytes - done : PAGE;

		for (size_t i = 0; i < length; i++)
			page[i] = script_pattern(done + i, 0);
		REQUIRE_EQ(write(fd, page, length), length);
		done += length;
	}
	close(fd);
}

void rig_file_remove(const char *path)
{
	char directory[RIG_PATH_MAX];

	CHECK_EQ(unlink(path), 0);
	snprintf(directory, sizeof(directory), "%s", path);
	*strrchr(directory, '/') = '\0';
	CHECK_EQ(rmdir(directory), 0);
}
