/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - the memory of the library in a program that is not its own. Its hooks are called in the
 * program's signal handlers, which may have interrupted malloc, and by mallocs that the program has
 * brought along: so it has an allocator of its own, which the linker puts in place of libc's
 * (--wrap in meson.build). It gives nothing back to the kernel but what was too large for it.
 *
 * A piece belongs to a class, a power of two of bytes; free ones of a class are a list. Memory that
 * libc has allocated for the library (realpath) goes back there: it has no mark of ours before it.
 *
 * Locks: `lock`, with all signals blocked; nothing is taken below it. Nobody is here while the
 * process forks (forks.c).
 */
#include "next.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#define CLASS_FIRST 5u /* 32 bytes, with the head */
#define CLASS_LAST  15u
#define CHUNK_BYTES (256u << 10)
#define MARK	    0x6d6b775f6d656d00ull

struct piece {
	uint64_t mark; /* MARK | class; 0 as class: mapped by itself */
	union {
		size_t bytes;	    /* all of it */
		struct piece *next; /* if it is free */
	};
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct piece *spare[CLASS_LAST + 1];
static char *chunk, *chunk_end;

static void begin(sigset_t *mask)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, mask);
	pthread_mutex_lock(&lock);
}

static void end(const sigset_t *mask)
{
	pthread_mutex_unlock(&lock);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
}

static void *pages(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* => lock held. What is left of the chunk before is given up, less than the largest piece. */
static struct piece *carve(size_t bytes)
{
	struct piece *p;

	if ((size_t)(chunk_end - chunk) < bytes) {
		char *fresh = pages(CHUNK_BYTES);

		if (fresh == NULL)
			return NULL;
		chunk = fresh;
		chunk_end = fresh + CHUNK_BYTES;
	}
	p = (struct piece *)(void *)chunk;
	chunk += bytes;
	return p;
}

static struct piece *take(unsigned class)
{
	struct piece *p;
	sigset_t mask;

	begin(&mask);
	p = spare[class];
	if (p != NULL)
		spare[class] = p->next;
	else
		p = carve((size_t)1 << class);
	end(&mask);
	return p;
}

static unsigned class_of(size_t bytes)
{
	unsigned class = CLASS_FIRST;

	while (class <= CLASS_LAST && (size_t)1 << class < bytes)
		class ++;
	return class;
}

static void *allocate(size_t size)
{
	size_t bytes = size + sizeof(struct piece);
	unsigned class = class_of(bytes);
	struct piece *p = NULL;

	if (bytes > size)
		p = class <= CLASS_LAST ? take(class) : pages(bytes);
	if (p == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	p->mark = MARK | (class <= CLASS_LAST ? class : 0);
	p->bytes = bytes;
	return p + 1;
}

/* NULL: it is libc's. */
static struct piece *piece_of(void *memory)
{
	struct piece *p = (struct piece *)memory - 1;

	return (p->mark & ~(uint64_t)0xff) == MARK ? p : NULL;
}

static void release(struct piece *p)
{
	unsigned class = p->mark & 0xff;
	sigset_t mask;

	if (class == 0) {
		munmap(p, p->bytes);
		return;
	}
	begin(&mask);
	p->mark = 0;
	p->next = spare[class];
	spare[class] = p;
	end(&mask);
}

/* ---- In place of libc's -------------------------------------------------------------------- */

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void __wrap_free(void *memory);
char *__wrap_strdup(const char *text);
void *__real_realloc(void *memory, size_t size);
void __real_free(void *memory);

void *__wrap_malloc(size_t size)
{
	return allocate(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	size_t all;
	void *memory;

	if (__builtin_mul_overflow(count, size, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	memory = allocate(all);
	if (memory != NULL)
		memset(memory, 0, all);
	return memory;
}

void __wrap_free(void *memory)
{
	struct piece *p = memory != NULL ? piece_of(memory) : NULL;

	if (p != NULL)
		release(p);
	else
		__real_free(memory);
}

void *__wrap_realloc(void *memory, size_t size)
{
	struct piece *p = memory != NULL ? piece_of(memory) : NULL;
	size_t old = p != NULL ? p->bytes - sizeof(*p) : 0;
	void *grown;

	if (memory != NULL && p == NULL)
		return __real_realloc(memory, size);
	if (p != NULL && size <= old)
		return memory;
	grown = allocate(size);
	if (grown != NULL && p != NULL) {
		memcpy(grown, memory, old);
		release(p);
	}
	return grown;
}

char *__wrap_strdup(const char *text)
{
	size_t bytes = strlen(text) + 1;
	char *copy = allocate(bytes);

	return copy != NULL ? memcpy(copy, text, bytes) : NULL;
}
