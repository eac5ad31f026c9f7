/* SPDX-License-Identifier: MIT */
/*
 * traced.c - a program whose first writes and syncs are known: what traced.py looks for in a trace.
 *
 * usage: traced FILE [again]
 *
 * Prints its process, its thread's and its child's number.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	  ((size_t)4096)
#define PAGES	  ((size_t)256)
#define FAR_APART __attribute__((noinline))

static char *map;

static void need(int good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(1);
}

FAR_APART void store_one(size_t page)
{
	((volatile char *)map)[page * PAGE + 8] = 1;
}

FAR_APART void copy_some(size_t page, const void *from, size_t size)
{
	memcpy(map + page * PAGE, from, size);
	asm volatile("" ::: "memory"); /* no tail call */
}

FAR_APART void thread_store(size_t page)
{
	((volatile char *)map)[page * PAGE] = 1;
}

FAR_APART void child_store(size_t page)
{
	((volatile char *)map)[page * PAGE] = 1;
}

FAR_APART void store_again(size_t page)
{
	((volatile char *)map)[page * PAGE] = 1;
}

static void *thread_run(void *unused)
{
	(void)unused;
	printf("%ld\n", syscall(SYS_gettid));
	thread_store(100);
	return NULL;
}

static void child_run(void)
{
	pid_t pid = fork();

	need(pid >= 0, "fork");
	if (pid == 0) {
		child_store(120);
		_exit(0);
	}
	need(waitpid(pid, NULL, 0) == pid, "waitpid");
	printf("%d\n", (int)pid);
}

int main(int argc, char **argv)
{
	static char from[2 * PAGE];
	int fd = open(argv[1], O_RDWR | O_CREAT, 0666), zero = open("/dev/zero", O_RDONLY);
	pthread_t thread;

	need(argc > 1 && fd >= 0 && zero >= 0, "open");
	need(ftruncate(fd, (off_t)(PAGES * PAGE)) == 0, "ftruncate");
	map = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(map != MAP_FAILED, "mmap");
	if (argc > 2) {
		store_again(200);
		return 0;
	}
	printf("%d\n", (int)getpid());
	store_one(0);
	copy_some(40, from, sizeof(from));
	need(read(zero, map + 60 * PAGE, 100) == 100, "read");
	need(msync(map, PAGE, MS_SYNC) == 0, "msync");
	store_one(0);
	need(pthread_create(&thread, NULL, thread_run, NULL) == 0, "pthread_create");
	pthread_join(thread, NULL);
	child_run();
	need(fdatasync(fd) == 0, "fdatasync");
	fflush(stdout);
	execl("/proc/self/exe", argv[0], argv[1], "again", NULL);
	return 1;
}
