/* SPDX-License-Identifier: MIT */
/*
 * run_sanitized.c - a program that is built with a sanitizer, and writes to a mapped file from
 * threads: PATH. The sanitizer has its own handlers, allocator, and opinion of what is a leak.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE	(4u << 20)
#define THREADS 4

static unsigned char *view;

static void *thread_write(void *part)
{
	size_t length = SIZE / THREADS, offset = (size_t)part * length;

	memset(view + offset, 1 + (int)(size_t)part, length);
	return NULL;
}

static int compare(int fd)
{
	unsigned char *bytes = malloc(SIZE);
	int differs = pread(fd, bytes, SIZE, 0) != SIZE || memcmp(bytes, view, SIZE) != 0;

	for (size_t i = 0; i < SIZE && !differs; i++)
		differs = bytes[i] != 1 + i / (SIZE / THREADS);
	free(bytes);
	return differs;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	int fd = open(argv[argc - 1], O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || ftruncate(fd, SIZE) != 0)
		return 2;
	view = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (view == MAP_FAILED)
		return 2;
	for (size_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, thread_write, (void *)i);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	if (compare(fd))
		return 3;
	puts("equal");
	return 0;
}
