/* SPDX-License-Identifier: MIT */
/*
 * records.c - a program that writes to two files, in an order that can be checked afterwards; it
 * knows nothing of snapshots.
 *
 *   records write A B [PROCESSES]   write until stdin ends; says "ready" when all have written
 *   records check A B               are they what they were at one instant? says the last record
 *   records leave A                  the main thread leaves, another writes and is the last
 *
 * Record N goes to one page of A or B, and N+1 is written only once N is. Two threads of each
 * process write in turn, most records into their mappings, some by pwrite; the processes are
 * children of fork of the first, made when it has written already, and mapped nothing themselves.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE   4096u
#define PAGES  1024u
#define SLOTS  (2 * PAGES)
#define STRIDE 389u /* prime to SLOTS: neighbours in time are not neighbours in a file */
#define BATCH  7u

static struct shared {
	_Atomic uint64_t last;	/* record that is written */
	_Atomic uint32_t turn;	/* whose batch it is */
	_Atomic uint32_t wrote; /* batches */
	_Atomic bool stop;
} * shared;

static int fds[2];
static unsigned char *maps[2];
static unsigned writers;

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

/* ---- Writing ------------------------------------------------------------------------------ */

static void record_write(uint64_t n)
{
	uint64_t slot = n * STRIDE % SLOTS;
	size_t at = slot % PAGES * PAGE + n % 8 * 8;
	unsigned file = (unsigned)(slot / PAGES);

	/* Part by part. */
	for (unsigned i = 0; i < PAGE; i += PAGE / 4) {
		if (n % 5 != 0)
			memcpy(maps[file] + at + i, &n, sizeof(n));
		else
			must(pwrite(fds[file], &n, sizeof(n), (off_t)(at + i)) == sizeof(n),
			     "pwrite");
	}
}

static void *writer(void *arg)
{
	uint32_t number = (uint32_t)(uintptr_t)arg;

	while (!atomic_load(&shared->stop)) {
		if (atomic_load(&shared->turn) % writers != number) {
			sched_yield();
			continue;
		}
		for (unsigned i = 0; i < BATCH; i++) {
			record_write(atomic_load(&shared->last) + 1);
			atomic_fetch_add(&shared->last, 1);
		}
		atomic_fetch_add(&shared->wrote, 1);
		atomic_fetch_add(&shared->turn, 1);
	}
	return NULL;
}

/* Two writers. */
static void process_run(uint32_t first)
{
	pthread_t thread;

	must(pthread_create(&thread, NULL, writer, (void *)(uintptr_t)(first + 1)) == 0, "thread");
	writer((void *)(uintptr_t)first);
	pthread_join(thread, NULL);
}

static void files_map(char **paths)
{
	for (unsigned i = 0; i < 2; i++) {
		fds[i] = open(paths[i], O_RDWR | O_CREAT, 0644);
		must(fds[i] >= 0 && ftruncate(fds[i], PAGES * PAGE) == 0, paths[i]);
		maps[i] = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
		must(maps[i] != MAP_FAILED, "mmap");
	}
}

static int records_write(char **paths, unsigned processes)
{
	char byte;
	int status;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	must(shared != MAP_FAILED, "mmap");
	files_map(paths);
	writers = 2 * processes;
	record_write(1);
	atomic_store(&shared->last, 1);
	for (uint32_t i = 0; i < processes; i++) {
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			process_run(2 * i);
			_exit(0);
		}
	}
	while (atomic_load(&shared->wrote) < 4 * writers)
		sched_yield();
	puts("ready");
	fflush(stdout);
	while (read(0, &byte, 1) == 1)
		;
	atomic_store(&shared->stop, true);
	while (wait(&status) > 0)
		must(status == 0, "a child failed");
	printf("%llu\n", (unsigned long long)atomic_load(&shared->last));
	return 0;
}

/* ---- Checking ----------------------------------------------------------------------------- */

static void record_put(unsigned char *files, uint64_t n, unsigned part)
{
	memcpy(files + n * STRIDE % SLOTS * PAGE + n % 8 * 8 + part * (PAGE / 4), &n, sizeof(n));
}

/* What the files are after record last, of which only so many parts are written. */
static void records_expect(uint64_t last, unsigned parts, unsigned char *files)
{
	memset(files, 0, SLOTS * PAGE);
	for (uint64_t n = last <= SLOTS ? 1 : last - SLOTS; n < last; n++)
		for (unsigned i = 0; i < 4; i++)
			record_put(files, n, i);
	for (unsigned i = 0; i < parts; i++)
		record_put(files, last, i);
}

static uint64_t records_last(const unsigned char *files)
{
	uint64_t last = 0, n;

	for (size_t at = 0; at < SLOTS * PAGE; at += sizeof(n)) {
		memcpy(&n, files + at, sizeof(n));
		if (n > last)
			last = n;
	}
	return last;
}

static int records_check(char **paths)
{
	unsigned char *files = calloc(SLOTS, PAGE), *expected = calloc(SLOTS, PAGE);
	uint64_t last;
	size_t at = 0;

	must(files && expected, "memory");
	for (unsigned i = 0; i < 2; i++) {
		fds[i] = open(paths[i], O_RDONLY);
		must(fds[i] >= 0, paths[i]);
		errno = EINVAL;
		must(read(fds[i], files + (size_t)i * PAGES * PAGE, PAGES * PAGE) == PAGES * PAGE,
		     paths[i]);
	}
	last = records_last(files);
	for (unsigned parts = 1; parts <= 4 && at < SLOTS * PAGE; parts++) {
		records_expect(last, parts, expected);
		for (at = 0; at < SLOTS * PAGE && files[at] == expected[at];)
			at++;
	}
	printf("%llu\n", (unsigned long long)last);
	if (at == SLOTS * PAGE)
		return 0;
	printf("wrong in %s, page %zu\n", paths[at / (PAGES * PAGE)], at / PAGE % PAGES);
	return 1;
}

/* ---- Leaving ------------------------------------------------------------------------------ */

static void *last_thread(void *arg)
{
	char byte;

	maps[0][PAGE] = 1;
	while (read(0, &byte, 1) == 1)
		;
	maps[0][2 * PAGE] = 1;
	return arg;
}

static void records_leave(char *path)
{
	pthread_t thread;
	char *paths[] = {path, path};

	files_map(paths);
	must(pthread_create(&thread, NULL, last_thread, NULL) == 0, "thread");
	pthread_exit(NULL);
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "leave") == 0)
		records_leave(argv[2]);
	if (argc >= 4 && strcmp(argv[1], "write") == 0)
		return records_write(argv + 2, argc > 4 ? (unsigned)atoi(argv[4]) : 1);
	if (argc == 4 && strcmp(argv[1], "check") == 0)
		return records_check(argv + 2);
	fprintf(stderr, "usage: records write|check A B [PROCESSES]\n");
	return 2;
}
