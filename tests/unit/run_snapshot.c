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
#define FILES	2u /* with records; one more is for scribbling */
#define SCRATCH FILES
#define ALL	(FILES + 1)
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
	_Atomic pid_t slow;	  /* it takes long to be quiet, as long as this is set */
	_Atomic uint32_t reached;
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
	struct file files[ALL];
	FILE *messages;
	char messages_path[48];
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

	/* Processes make threads after a fork by one that has some. */
	test_not_under_tsan();
	/* In memory, where fsync takes no time. */
	strcpy(world.directory, "/dev/shm/mkwrite-snap-XXXXXX");
	if (mkdtemp(world.directory) == NULL) {
		strcpy(world.directory, "/var/tmp/mkwrite-snap-XXXXXX");
		REQUIRE(mkdtemp(world.directory) != NULL);
	}
	snprintf(world.copies, sizeof(world.copies), "%s/copies", world.directory);
	REQUIRE_EQ(mkdir(world.copies, 0700), 0);
	REQUIRE_EQ(run_control_create(&run_options, &world.control, &world.control_fd), 0);
	world.shared = mmap(NULL, sizeof(*world.shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(world.shared != MAP_FAILED);
	world.options.verb = "run";
	world.plan = (struct snapshot_plan){.signal = SIGUSR1, .directory = world.copies};
	for (unsigned i = 0; i < ALL; i++)
		file_make(&world.files[i], i, PAGES * PAGE);
	snprintf(world.messages_path, sizeof(world.messages_path), "%s/messages", world.directory);
	world.messages = fopen(world.messages_path, "a");
	REQUIRE(world.messages != NULL);
	setvbuf(world.messages, NULL, _IOLBF, 0);
	stderr = world.messages;
}

/* Has the supervisor said so? */
static bool messages_have(const char *text)
{
	char all[16384];
	FILE *file = fopen(world.messages_path, "r");
	size_t length;

	REQUIRE(file != NULL);
	length = fread(all, 1, sizeof(all) - 1, file);
	fclose(file);
	all[length] = '\0';
	return strstr(all, text) != NULL;
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
	for (unsigned i = 0; i < ALL; i++)
		close(world.files[i].fd);
	stderr = stdout;
	fclose(world.messages);
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
	if (atomic_load(&world.shared->slow) == getpid()) {
		atomic_store(&world.shared->reached, 1);
		while (atomic_load(&world.shared->slow))
			sched_yield();
	}
	for (unsigned i = 0; i < ALL; i++) {
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
	for (unsigned i = 0; i < ALL; i++)
		if (world.files[i].map)
			mkw_resume(world.files[i].handle);
}

static const struct run_snapshot_ops snapshot_ops = {program_quiesce, program_resume, NULL};

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

static void fork_begin(void)
{
	run_snapshot_fork_begin(world.control);
}

static void fork_parent(void)
{
	run_snapshot_fork_parent(world.control);
}

static void fork_child(void)
{
	run_snapshot_fork_child(world.control);
}

static void program_open(void)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	options.flags |= MKW_SPACE_IN_PLACE;
	MUST(mkw_space_create(&options, &world.space) == 0);
	MUST(run_snapshot_join(world.control, &snapshot_ops) == 0);
	MUST(pthread_atfork(fork_begin, fork_parent, fork_child) == 0);
	for (unsigned i = 0; i < ALL; i++)
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
		memcpy(at + i + n % 8 * 8, &n, sizeof(n)); /* part by part */
}

static void record_put(unsigned char **files, uint64_t n, unsigned part)
{
	uint64_t slot = n * STRIDE % SLOTS;

	memcpy(files[slot / PAGES] + slot % PAGES * PAGE + part * (PAGE / 4) + n % 8 * 8, &n,
	       sizeof(n));
}

/* What the files are after record last, of which so many of its four parts are written. */
static void records_expect(uint64_t last, unsigned parts, unsigned char **files)
{
	for (unsigned i = 0; i < FILES; i++)
		memset(files[i], 0, PAGES * PAGE);
	for (uint64_t n = last <= SLOTS ? 1 : last - SLOTS; n < last; n++)
		for (unsigned i = 0; i < 4; i++)
			record_put(files, n, i);
	for (unsigned i = 0; i < parts; i++)
		record_put(files, last, i);
}

static uint64_t records_last(unsigned char **files)
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
static uint64_t records_check(unsigned char **files)
{
	unsigned char *expected[FILES];
	uint64_t last = records_last(files);
	bool same = last == 0;

	for (unsigned i = 0; i < FILES; i++)
		expected[i] = malloc(PAGES * PAGE);
	for (unsigned parts = 1; parts <= 4 && !same; parts++) {
		records_expect(last, parts, expected);
		same = true;
		for (unsigned i = 0; i < FILES; i++)
			same = same && memcmp(files[i], expected[i], PAGES * PAGE) == 0;
	}
	for (unsigned i = 0; i < FILES; i++) {
		CHECK_MEM(files[i], expected[i], PAGES * PAGE);
		free(expected[i]);
	}
	return last;
}

/* Take the copies and check them. */
static uint64_t snapshot_check(void)
{
	unsigned char *files[ALL];
	uint64_t last;

	for (unsigned i = 0; i < ALL; i++) {
		files[i] = malloc(PAGES * PAGE);
		REQUIRE(copy_take(i, files[i]));
	}
	last = records_check(files);
	for (unsigned i = 0; i < ALL; i++)
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
	test_wait_until(copies_count(false) == ALL);
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

static pid_t writers_start(pid_t *pids)
{
	for (unsigned i = 0; i < WRITERS / 2; i++)
		pids[i] = program_start(writers_run, 2 * i);
	test_wait_until(atomic_load(&world.shared->next) > 100);
	return pids[0];
}

static void writers_end(const pid_t *pids)
{
	atomic_store(&world.shared->stop, 1);
	run_futex_ring(&world.shared->turn);
	for (unsigned i = 0; i < WRITERS / 2; i++)
		CHECK_EQ(program_status(pids[i]), 0);
	files_check();
}

/* They are not held up. */
static void writers_wait(void)
{
	uint64_t next = atomic_load(&world.shared->next);

	test_wait_until(atomic_load(&world.shared->next) > next + 100);
}

TEST(snapshot_instant, "copies are of one instant, whatever threads and processes write on")
{
	pid_t pids[WRITERS / 2];
	uint64_t last = 0;

	world_open();
	copier_open();
	writers_start(pids);
	for (unsigned i = 0; i < test_rounds(20); i++) {
		uint64_t before = atomic_load(&world.shared->next), n = snapshot_make();

		CHECK(n >= before && n > last);
		CHECK(n <= atomic_load(&world.shared->next));
		last = n;
	}
	writers_end(pids);
	CHECK_EQ(copier_close(), 0);
	CHECK_EQ(copies_count(true), 0);
	world_close();
}

TEST(snapshot_links, "a file that is mapped by two names is one file")
{
	char link_path[80];
	pid_t pids[WRITERS / 2];
	uint64_t last = 0;
	int fd;

	world_open();
	snprintf(link_path, sizeof(link_path), "%s/link", world.directory);
	REQUIRE_EQ(link(world.files[0].path, link_path), 0);
	copier_open();
	for (unsigned i = 0; i < WRITERS / 2; i++) {
		pids[i] = program_start(writers_run, 2 * i);
		fd = open(link_path, O_RDWR | O_CLOEXEC);
		REQUIRE(fd >= 0);
		test_wait_until(run_file_is_there(world.control, ALL - 1));
		dup3(fd, world.files[0].fd, O_CLOEXEC);
		close(fd);
	}
	test_wait_until(run_file_is_there(world.control, ALL)); /* one more than there are */
	test_wait_until(atomic_load(&world.shared->next) > 100);
	for (unsigned i = 0; i < test_rounds(10); i++) {
		uint64_t n = snapshot_make();

		CHECK(n > last);
		last = n;
	}
	writers_end(pids);
	CHECK_EQ(copier_close(), 0);
	world_close();
}

/* ---- Processes that come and go ----------------------------------------------------------- */

/* Children write with what their parent has been granted, and grandchildren. */
static int forks_run(unsigned number)
{
	(void)number;
	while (!atomic_load(&world.shared->stop)) {
		pid_t child;
		int status = 0;

		batch_write();
		child = fork();
		MUST(child >= 0);
		if (child == 0) {
			pid_t grandchild;

			batch_write();
			grandchild = fork();
			MUST(grandchild >= 0);
			if (grandchild == 0) {
				batch_write();
				_exit(0);
			}
			MUST(waitpid(grandchild, &status, 0) == grandchild && status == 0);
			batch_write();
			_exit(0);
		}
		MUST(waitpid(child, &status, 0) == child && status == 0);
	}
	return 0;
}

TEST(snapshot_fork, "children of fork are in it from their first write on")
{
	uint64_t last = 0;
	pid_t pid;

	world_open();
	copier_open();
	pid = program_start(forks_run, 0);
	test_wait_until(atomic_load(&world.shared->next) > 100);
	for (unsigned i = 0; i < test_rounds(20); i++) {
		uint64_t n = snapshot_make();

		CHECK(n > last);
		last = n;
		writers_wait();
	}
	writers_stop();
	CHECK_EQ(program_status(pid), 0);
	files_check();
	CHECK_EQ(copier_close(), 0);
	world_close();
}

static void *scribble(void *arg)
{
	unsigned char *map = world.files[SCRATCH].map;

	for (unsigned n = (unsigned)(uintptr_t)arg;; n += 7) {
		map[(size_t)(n * 31 % PAGES) * PAGE + n % PAGE] = (unsigned char)n;
		atomic_fetch_add(&world.shared->started, 1);
	}
	return NULL;
}

static int scribblers_run(unsigned number)
{
	pthread_t thread;

	(void)number;
	MUST(pthread_create(&thread, NULL, scribble, (void *)1) == 0);
	scribble(NULL);
	return 0;
}

TEST(snapshot_killed, "a process that is killed, whenever, is in nobody's way")
{
	pid_t pids[WRITERS / 2], victim;

	world_open();
	copier_open();
	writers_start(pids);
	for (unsigned i = 0; i < test_rounds(15); i++) {
		unsigned started = atomic_load(&world.shared->started);

		victim = program_start(scribblers_run, 0);
		test_wait_until(atomic_load(&world.shared->started) > started);
		kill(getpid(), SIGUSR1);
		for (unsigned spin = 0; spin < i % 20 * 20; spin++)
			sched_yield();
		kill(victim, SIGKILL);
		CHECK_EQ(program_status(victim), -SIGKILL);
		test_wait_until(copies_count(false) == ALL);
		snapshot_check();
	}
	writers_end(pids);
	CHECK_EQ(copier_close(), 0);
	world_close();
}

/* A child that is to be stepped through fn. */
static pid_t stepped_start(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	REQUIRE(pid >= 0);
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		fn();
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFSTOPPED(status));
	return pid;
}

/* Run so many instructions of it, or until something is reached, and kill it there. Returns how
 * many; 0: it came to its end before. */
static unsigned stepped_kill(pid_t pid, unsigned steps, bool (*reached)(void))
{
	unsigned done;
	int status;

	for (done = 0; done < steps && !(reached && reached()); done++) {
		REQUIRE_EQ(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status))
			return 0;
	}
	kill(pid, SIGKILL);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return done;
}

static void ask_once(void)
{
	run_snapshot_before_write(world.control, 0, 0, PAGE);
}

static unsigned asks_taken(void)
{
	unsigned count = 0;

	for (unsigned i = 0; i < RUN_SNAPSHOT_ASKS; i++)
		count += atomic_load(&world.control->snapshots.asks[i].state) != 0;
	return count;
}

static bool ask_is_begun(void)
{
	return asks_taken() > 0;
}

static bool ask_is_made(void)
{
	for (unsigned i = 0; i < RUN_SNAPSHOT_ASKS; i++)
		if (atomic_load(&world.control->snapshots.asks[i].state) == RUN_ASKED)
			return true;
	return false;
}

/* A snapshot that nobody makes. */
static void copying_pretend(bool on)
{
	struct run_snapshots *s = &world.control->snapshots;

	s->chunk_shift = 12;
	s->files[0].size = PAGE;
	atomic_store(&s->files[0].copying, on);
	atomic_store(&s->turn, on ? RUN_SNAPSHOT_COPYING : RUN_SNAPSHOT_NONE);
}

TEST(snapshot_ask_killed, "killed at any instruction of an ask, a thread leaves what is taken back")
{
	pid_t pids[WRITERS / 2];
	struct run_snapshots *s;
	unsigned first, last, left = 0;

	world_open();
	copying_pretend(true);
	s = &world.control->snapshots;
	first = stepped_kill(stepped_start(ask_once), UINT_MAX, ask_is_begun);
	memset(s->asks, 0, sizeof(s->asks));
	last = stepped_kill(stepped_start(ask_once), UINT_MAX, ask_is_made);
	test_note("an entry is claimed at step %u, an ask at step %u", first, last);
	REQUIRE(last > first + 2);
	memset(s->asks, 0, sizeof(s->asks));
	for (unsigned steps = first - 3; steps <= last; steps++) {
		stepped_kill(stepped_start(ask_once), steps, NULL);
		CHECK_EQ(atomic_load(&s->asks[0].state) != 0, steps >= first);
		/* Out of the way of the next, so that it takes the same steps. */
		s->asks[RUN_SNAPSHOT_ASKS - 1 - left] = s->asks[0];
		left += atomic_load(&s->asks[0].state) != 0;
		atomic_store(&s->asks[0].state, 0);
	}
	CHECK(left > last - first);
	copying_pretend(false);
	copier_open();
	writers_start(pids);
	snapshot_make();
	test_wait_until(asks_taken() == 0);
	writers_end(pids);
	CHECK_EQ(copier_close(), 0);
	world_close();
}

static void join_once(void)
{
	run_snapshot_join(world.control, &snapshot_ops);
}

TEST(snapshot_join_killed, "killed at any time while it joins, a process is in nobody's way")
{
	pid_t pids[WRITERS / 2];
	unsigned steps = 1;

	world_open();
	copier_open();
	writers_start(pids);
	while (stepped_kill(stepped_start(join_once), steps, NULL)) {
		snapshot_make();
		steps += steps / 8 + 61;
	}
	test_note("about %u steps", steps);
	writers_end(pids);
	CHECK_EQ(copier_close(), 0);
	world_close();
}

TEST(snapshot_stopped, "a stopped process makes it fail, and nobody waits for it")
{
	pid_t pids[WRITERS / 2], victim;
	unsigned started;

	world_open();
	copier_open();
	writers_start(pids);
	started = atomic_load(&world.shared->started);
	victim = program_start(scribblers_run, 0);
	test_wait_until(atomic_load(&world.shared->started) > started);
	/* It is stopped when the time comes, or while it is waited for. */
	kill(victim, SIGSTOP);
	REQUIRE_EQ(waitpid(victim, NULL, WUNTRACED), victim);
	kill(getpid(), SIGUSR1);
	test_wait_until(messages_have("is stopped"));
	writers_wait();
	kill(victim, SIGCONT);
	atomic_store(&world.shared->slow, victim);
	kill(getpid(), SIGUSR1);
	test_wait_until(atomic_load(&world.shared->reached));
	fclose(fopen(world.messages_path, "w"));
	kill(victim, SIGSTOP);
	test_wait_until(messages_have("is stopped"));
	writers_wait();
	CHECK_EQ(copies_count(true), 0);
	/* As if nothing had been. */
	atomic_store(&world.shared->slow, 0);
	kill(victim, SIGCONT);
	snapshot_make();
	kill(victim, SIGKILL);
	program_status(victim);
	writers_end(pids);
	CHECK_EQ(copier_close(), 2);
	world_close();
}

TEST(snapshot_orphan, "who waits for a copy when the supervisor dies goes on")
{
	pid_t supervisor, pid;

	world_open();
	copying_pretend(true);
	supervisor = fork();
	if (supervisor == 0) {
		pause();
		_exit(0);
	}
	world.control->supervisor = supervisor;
	world.control->supervisor_start = 0;
	pid = fork();
	if (pid == 0) {
		ask_once();
		_exit(0);
	}
	test_wait_until(ask_is_made());
	kill(supervisor, SIGKILL);
	program_status(supervisor);
	CHECK_EQ(program_status(pid), 0);
	world_close();
}

/* ---- Where copies go ---------------------------------------------------------------------- */

TEST(snapshot_full, "a full directory costs the snapshot, not the program")
{
	static unsigned char scratch[PAGES * PAGE];
	pid_t pids[WRITERS / 2];

	world_open();
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", world.copies, "tmpfs", 0, "size=1m") != 0)
		SKIP("cannot mount a small file system: %s", strerror(errno));
	copier_open();
	writers_start(pids);
	/* Enough of the files is not zeros. */
	test_wait_until(atomic_load(&world.shared->next) > SLOTS);
	kill(getpid(), SIGUSR1);
	test_wait_until(messages_have(strerror(ENOSPC)) && messages_have("snapshot 2"));
	CHECK_EQ(copies_count(true), 1); /* the scratch file's, which is empty */
	copy_take(SCRATCH, scratch);
	writers_wait();
	REQUIRE_EQ(mount(NULL, world.copies, NULL, MS_REMOUNT, "size=64m"), 0);
	snapshot_make();
	writers_end(pids);
	CHECK_EQ(copier_close(), 2);
	umount(world.copies);
	world_close();
}

TEST(snapshot_names, "two snapshots in a second have different names")
{
	pid_t pids[WRITERS / 2];

	world_open();
	copier_open();
	writers_start(pids);
	for (unsigned i = 1; i <= 5; i++) {
		kill(getpid(), SIGUSR1);
		test_wait_until(copies_count(false) == i * ALL);
	}
	writers_end(pids);
	CHECK_EQ(copier_close(), 0);
	CHECK_EQ(copies_count(true), 5 * ALL);
	world_close();
}

/* Pages here and there in a file that is mostly hole. */
#define SPARSE_BYTES (100ull << 30)
#define SPARSE_STEP  (SPARSE_BYTES / 64 + PAGE)

static int sparse_run(unsigned number)
{
	unsigned char *map = world.files[SCRATCH].map;

	(void)number;
	for (uint64_t at = 0; at < SPARSE_BYTES; at += SPARSE_STEP)
		map[at + 1] = 1;
	atomic_store(&world.shared->started, 1);
	while (!atomic_load(&world.shared->stop))
		for (uint64_t at = 0; at < SPARSE_BYTES; at += SPARSE_STEP)
			map[at + 2]++;
	return 0;
}

static void sparse_check(int fd)
{
	struct stat st;
	unsigned char first = 0, bytes[PAGE], zeros[PAGE] = {0};

	REQUIRE_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, SPARSE_BYTES);
	CHECK(st.st_blocks * 512 <= 64 * 65536);
	for (uint64_t at = 0; at < SPARSE_BYTES; at += SPARSE_STEP) {
		REQUIRE_EQ(pread(fd, bytes, PAGE, (off_t)at), PAGE);
		CHECK_EQ(bytes[1], 1);
		if (at == 0)
			first = bytes[2];
		CHECK(bytes[2] == first || (unsigned char)(bytes[2] + 1) == first);
		first = bytes[2];
		REQUIRE_EQ(pread(fd, bytes, PAGE, (off_t)(at + 64 * PAGE)), PAGE);
		CHECK_MEM(bytes, zeros, PAGE);
	}
}

TEST(snapshot_sparse, "what is sparse stays sparse, and no file is too large")
{
	char path[512] = "";
	pid_t pid;
	int fd;

	world_open();
	world.files[SCRATCH].size = SPARSE_BYTES;
	REQUIRE_EQ(ftruncate(world.files[SCRATCH].fd, (off_t)SPARSE_BYTES), 0);
	copier_open();
	pid = program_start(sparse_run, 0);
	test_wait_until(atomic_load(&world.shared->started));
	for (unsigned i = 0; i < 5; i++) {
		DIR *directory;
		struct dirent *entry;

		kill(getpid(), SIGUSR1);
		test_wait_until(copies_count(false) == ALL);
		directory = opendir(world.copies);
		while ((entry = readdir(directory)) != NULL) {
			snprintf(path, sizeof(path), "%s/%s", world.copies, entry->d_name);
			if (strncmp(entry->d_name, "file2", 5) == 0) {
				fd = open(path, O_RDONLY | O_CLOEXEC);
				sparse_check(fd);
				close(fd);
			}
			unlink(path);
		}
		closedir(directory);
	}
	writers_stop();
	CHECK_EQ(program_status(pid), 0);
	CHECK_EQ(copier_close(), 0);
	world_close();
}

TEST(snapshot_plan, "seconds and signals are told from each other, and from nonsense")
{
	static const struct tool_options options = {.verb = "run"};
	static const char *const wrong[] = {"", "0", "-1", "1x", "KILL", "SIGSEGV", "FOO", "nan"};
	struct snapshot_plan plan = {0};

	CHECK_EQ(snapshot_plan_parse(&plan, "0.5", &options), 0);
	CHECK_EQ(plan.period_ns, 500000000);
	CHECK_EQ(plan.signal, 0);
	CHECK_EQ(snapshot_plan_parse(&plan, "USR1", &options), 0);
	CHECK_EQ(plan.signal, SIGUSR1);
	CHECK_EQ(snapshot_plan_parse(&plan, "SIGRTMIN+2", &options), 0);
	CHECK_EQ(plan.signal, SIGRTMIN + 2);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		CHECK_EQ(snapshot_plan_parse(&plan, wrong[i], &options), TOOL_USAGE);
}
