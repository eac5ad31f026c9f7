/* SPDX-License-Identifier: MIT */
/*
 * run_snapshot.c - snapshots of files that several processes write to. The test is the supervisor;
 * its programs are forks of it, with the library on the files' mappings, as what `mkwrite run`
 * loads has it.
 *
 * The rule: record N goes to one page of one file, and N+1 is written only once N is, whoever
 * writes it. So a copy as of one instant is what the files were after some record, and nothing
 * else; and at the end the files are what they would be had there been no snapshot.
 */
#include "harness/test.h"

#include "run/control.h"
#include "run/futex.h"
#include "run/snapshot.h"
#include "tool/snapshot.h"

#include <dirent.h>
#include <fcntl.h>
#include <mkwrite/mkwrite.h>
#include <mkwrite/store.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PAGE	4096u
#define FILES	2u
#define PAGES	512u
#define SLOTS	(FILES * PAGES)
#define STRIDE	389u /* prime to SLOTS: neighbours in time are not neighbours in a file */
#define BATCH	7u
#define WRITERS 4u

/* What all processes of a test share. */
struct shared {
	_Atomic uint64_t next;	  /* the record that may be written now */
	_Atomic uint32_t turn;	  /* futex: whose batch it is */
	_Atomic uint32_t stop;	  /* writers end */
	_Atomic uint32_t started; /* writers that have written */
	_Atomic uint32_t kinds[8];
};

struct file {
	char path[64];
	int fd;
	size_t size;
	unsigned char *map;
	uint16_t number;
	struct mkw_handle *handle;
};

static struct world {
	char directory[32], copies[48];
	struct run_control *control;
	int control_fd;
	struct snapshot_plan plan;
	struct tool_options options;
	struct copier *copier;
	struct shared *shared;
	struct file files[FILES];
	struct mkw_space *space;
} world;

/* ---- The supervisor ----------------------------------------------------------------------- */

static void file_make(struct file *f, unsigned i, size_t size)
{
	snprintf(f->path, sizeof(f->path), "%s/file%u", world.directory, i);
	f->fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	REQUIRE(f->fd >= 0);
	f->size = size;
	REQUIRE_EQ(ftruncate(f->fd, (off_t)size), 0);
}

static void world_open(void)
{
	static const struct run_options run_options = {.snapshots = true};

	strcpy(world.directory, "/var/tmp/mkwrite-snap-XXXXXX");
	REQUIRE(mkdtemp(world.directory) != NULL);
	snprintf(world.copies, sizeof(world.copies), "%s/copies", world.directory);
	REQUIRE_EQ(mkdir(world.copies, 0700), 0);
	REQUIRE_EQ(run_control_create(&run_options, &world.control, &world.control_fd), 0);
	world.shared = mmap(NULL, sizeof(*world.shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(world.shared != MAP_FAILED);
	world.options.verb = "run";
	world.plan = (struct snapshot_plan){.signal = SIGUSR1, .directory = world.copies};
	for (unsigned i = 0; i < FILES; i++)
		file_make(&world.files[i], i, PAGES * PAGE);
}

static void copier_open(void)
{
	world.copier = copier_start(world.control, &world.plan, &world.options);
	REQUIRE(world.copier != NULL);
}

static unsigned copier_close(void)
{
	return copier_end(world.copier, true);
}

static void directory_remove(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	char name[512];

	while (directory && (entry = readdir(directory)) != NULL) {
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		unlink(name);
	}
	if (directory)
		closedir(directory);
	rmdir(path);
}

static void world_close(void)
{
	for (unsigned i = 0; i < FILES; i++)
		close(world.files[i].fd);
	directory_remove(world.copies);
	directory_remove(world.directory);
	munmap(world.shared, sizeof(*world.shared));
	run_control_destroy(world.control, world.control_fd);
}

/* Complete copies, or with hidden, all that lies there. */
static unsigned copies_count(bool hidden)
{
	DIR *directory = opendir(world.copies);
	struct dirent *entry;
	unsigned count = 0;

	REQUIRE(directory != NULL);
	while ((entry = readdir(directory)) != NULL)
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			 (hidden || entry->d_name[0] != '.');
	closedir(directory);
	return count;
}

/* Read the copy of file i, and remove it. False: there is none. */
static bool copy_take(unsigned i, unsigned char *to)
{
	char prefix[64], path[512] = "";
	DIR *directory = opendir(world.copies);
	struct dirent *entry;
	int fd;

	REQUIRE(directory != NULL);
	snprintf(prefix, sizeof(prefix), "file%u.snapshot-", i);
	while ((entry = readdir(directory)) != NULL)
		if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
			snprintf(path, sizeof(path), "%s/%s", world.copies, entry->d_name);
	closedir(directory);
	if (path[0] == '\0')
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	CHECK_EQ(pread(fd, to, world.files[i].size, 0), (long long)world.files[i].size);
	close(fd);
	unlink(path);
	return true;
}

/* ---- The program -------------------------------------------------------------------------- */

static struct file *file_of(void *store)
{
	return store;
}

static mkw_fault_t store_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	(void)object;
	run_snapshot_before_write(world.control, file_of(store)->number, run->first * PAGE,
				  (uint64_t)run->count * PAGE);
	return 0;
}

static int store_writepages(void *store, struct mkw_object *object, struct mkw_writeback *wb)
{
	(void)store;
	(void)object;
	(void)wb;
	return 0;
}

static const struct mkw_store_ops store_ops = {
	.struct_size = sizeof(store_ops),
	.page_mkwrite = store_mkwrite,
	.writepages = store_writepages,
};

static int program_quiesce(void)
{
	for (unsigned i = 0; i < FILES; i++) {
		if (!world.files[i].map)
			continue;
		if (mkw_quiesce(world.files[i].handle) != 0)
			return -EIO;
		run_snapshot_maps(world.files[i].number);
	}
	return 0;
}

static void program_resume(void)
{
	for (unsigned i = 0; i < FILES; i++)
		if (world.files[i].map)
			mkw_resume(world.files[i].handle);
}

static const struct run_snapshot_ops snapshot_ops = {program_quiesce, program_resume};

#define MUST(expr)                                   \
	do {                                         \
		if (!(expr))                         \
			_exit(__LINE__ % 100 + 100); \
	} while (0)

static void file_map(struct file *f)
{
	struct stat st;

	MUST(fstat(f->fd, &st) == 0);
	f->number = run_file_number(world.control, f->fd, st.st_dev, st.st_ino);
	run_hold_begin(world.control);
	f->map = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	MUST(f->map != MAP_FAILED);
	MUST(mkw_create_in_place(world.space, &store_ops, f, MKW_RDWR, &f->handle) == 0);
	MUST(mkw_adopt(f->handle, f->map, f->size, MKW_READ | MKW_WRITE, 0) == 0);
	run_hold_end(world.control);
}

static void program_open(void)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	options.flags |= MKW_SPACE_IN_PLACE;
	MUST(mkw_space_create(&options, &world.space) == 0);
	MUST(run_snapshot_join(world.control, &snapshot_ops) == 0);
	for (unsigned i = 0; i < FILES; i++)
		file_map(&world.files[i]);
}

/* A process of the program; fn gets number. */
static pid_t program_start(int (*fn)(unsigned), unsigned number)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		signal(SIGUSR1, SIG_DFL);
		program_open();
		_exit(fn(number));
	}
	return pid;
}

static int program_status(pid_t pid)
{
	int status;

	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- Records ------------------------------------------------------------------------------ */

static void record_write(uint64_t n)
{
	uint64_t slot = n * STRIDE % SLOTS;
	unsigned char *at = world.files[slot / PAGES].map + slot % PAGES * PAGE;

	for (unsigned i = 0; i < PAGE; i += PAGE / 4)
		memcpy(at + i + n % 8 * 8, &n, sizeof(n));
}

/* What the files are after record last. */
static void records_expect(uint64_t last, unsigned char *files[static FILES])
{
	for (unsigned i = 0; i < FILES; i++)
		memset(files[i], 0, PAGES * PAGE);
	for (uint64_t n = last < 8 * SLOTS ? 1 : last - 8 * SLOTS + 1; n <= last; n++) {
		uint64_t slot = n * STRIDE % SLOTS;

		for (unsigned i = 0; i < PAGE; i += PAGE / 4)
			memcpy(files[slot / PAGES] + slot % PAGES * PAGE + i + n % 8 * 8, &n,
			       sizeof(n));
	}
}

static uint64_t records_last(unsigned char *files[static FILES])
{
	uint64_t last = 0;

	for (unsigned i = 0; i < FILES; i++)
		for (size_t at = 0; at < PAGES * PAGE; at += sizeof(uint64_t)) {
			uint64_t n;

			memcpy(&n, files[i] + at, sizeof(n));
			if (n > last)
				last = n;
		}
	return last;
}

/* Are the contents what the files were at one instant? Returns the last record. */
static uint64_t records_check(unsigned char *files[static FILES])
{
	unsigned char *expected[FILES];
	uint64_t last = records_last(files);

	for (unsigned i = 0; i < FILES; i++)
		expected[i] = malloc(PAGES * PAGE);
	records_expect(last, expected);
	for (unsigned i = 0; i < FILES; i++) {
		CHECK_MEM(files[i], expected[i], PAGES * PAGE);
		free(expected[i]);
	}
	return last;
}

/* Take the copies and check them. */
static uint64_t snapshot_check(void)
{
	unsigned char *files[FILES];
	uint64_t last;

	for (unsigned i = 0; i < FILES; i++) {
		files[i] = malloc(PAGES * PAGE);
		REQUIRE(copy_take(i, files[i]));
	}
	last = records_check(files);
	for (unsigned i = 0; i < FILES; i++)
		free(files[i]);
	return last;
}

/* The files themselves hold all records, up to the last that was written. */
static void files_check(void)
{
	unsigned char *files[FILES];

	for (unsigned i = 0; i < FILES; i++) {
		files[i] = malloc(PAGES * PAGE);
		CHECK_EQ(pread(world.files[i].fd, files[i], PAGES * PAGE, 0), PAGES * PAGE);
	}
	CHECK_EQ(records_check(files), atomic_load(&world.shared->next));
	for (unsigned i = 0; i < FILES; i++)
		free(files[i]);
}

static uint64_t snapshot_make(void)
{
	kill(getpid(), SIGUSR1);
	test_wait_until(copies_count(false) == FILES);
	return snapshot_check();
}

/* ---- Writers: they write batches of records in turn ---------------------------------------- */

/* False: it is over. */
static bool turn_wait(unsigned number)
{
	struct shared *s = world.shared;

	for (;;) {
		uint32_t turn = atomic_load(&s->turn);

		if (atomic_load(&s->stop))
			return false;
		if (turn % WRITERS == number)
			return true;
		run_futex_wait(&s->turn, turn, 1000000000);
	}
}

static void batch_write(void)
{
	struct shared *s = world.shared;

	for (unsigned i = 0; i < BATCH; i++) {
		uint64_t n = atomic_load(&s->next) + 1;

		record_write(n);
		atomic_store(&s->next, n);
	}
}

static void *writer_main(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg;

	while (turn_wait(number)) {
		batch_write();
		run_futex_ring(&world.shared->turn);
	}
	run_futex_ring(&world.shared->turn);
	return NULL;
}

/* Two writers in a process. */
static int writers_run(unsigned first)
{
	pthread_t thread;

	MUST(pthread_create(&thread, NULL, writer_main, (void *)(uintptr_t)(first + 1)) == 0);
	writer_main((void *)(uintptr_t)first);
	pthread_join(thread, NULL);
	return 0;
}

static void writers_stop(void)
{
	atomic_store(&world.shared->stop, 1);
	run_futex_ring(&world.shared->turn);
}

TEST(snapshot_instant, "copies are of one instant, whatever threads and processes write on")
{
	pid_t pids[WRITERS / 2];
	uint64_t last = 0;

	world_open();
	copier_open();
	for (unsigned i = 0; i < WRITERS / 2; i++)
		pids[i] = program_start(writers_run, 2 * i);
	test_wait_until(atomic_load(&world.shared->next) > 100);
	for (unsigned i = 0; i < test_rounds(20); i++) {
		uint64_t before = atomic_load(&world.shared->next), n = snapshot_make();

		CHECK(n >= before && n > last);
		CHECK(n <= atomic_load(&world.shared->next));
		last = n;
	}
	writers_stop();
	for (unsigned i = 0; i < WRITERS / 2; i++)
		CHECK_EQ(program_status(pids[i]), 0);
	CHECK_EQ(copier_close(), 0);
	files_check();
	CHECK_EQ(copies_count(true), 0);
	world_close();
}
