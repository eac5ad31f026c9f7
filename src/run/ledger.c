/* SPDX-License-Identifier: MIT */
/*
 * ledger.c - what was reserved ahead, and giving it back (ledger.h).
 *
 * In the ledger a file is a row of chunks, bitmaps of pages: a bit is set by RUN_EVENT_RESERVED and
 * cleared by RUN_EVENT_PUNCHED, which programs also cause when they preallocate on their own.
 *
 * What may be lost is the program's own preallocation, where another process cut the file and
 * preallocated just there again, or the file was replaced by one with the same inode number: no
 * bytes, only the promise of space.
 */
#include "run/ledger.h"

#include "run/release.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES  4096u
#define CHUNK_PAGES 32768u
#define WORD_PAGES  64u

struct chunk {
	uint64_t number;
	uint64_t pages[CHUNK_PAGES / WORD_PAGES];
};

struct file {
	uint64_t dev, ino;
	char *path;
	struct chunk **chunks; /* by ascending numbers */
	size_t count, room;
};

struct ledger {
	struct file *files;
	size_t count, room;
};

/* ---- Ranges ------------------------------------------------------------------------------- */

static void pages_change(struct chunk *chunk, unsigned from, unsigned end, bool set)
{
	while (from < end) {
		unsigned bit = from % WORD_PAGES, count = WORD_PAGES - bit;

		if (count > end - from)
			count = end - from;
		uint64_t mask = (count == WORD_PAGES ? UINT64_MAX : (1ull << count) - 1) << bit;
		uint64_t *word = &chunk->pages[from / WORD_PAGES];

		*word = set ? *word | mask : *word & ~mask;
		from += count;
	}
}

/* The first page from `from` on whose bit is (not) set, or CHUNK_PAGES. */
static unsigned pages_next(const struct chunk *chunk, unsigned from, bool set)
{
	while (from < CHUNK_PAGES) {
		uint64_t word = chunk->pages[from / WORD_PAGES];

		word = (set ? word : ~word) & (UINT64_MAX << from % WORD_PAGES);
		if (word)
			return from / WORD_PAGES * WORD_PAGES + (unsigned)__builtin_ctzll(word);
		from = (from / WORD_PAGES + 1) * WORD_PAGES;
	}
	return CHUNK_PAGES;
}

/* Where the chunk is, or would be. */
static size_t chunk_place(const struct file *file, uint64_t number)
{
	size_t low = 0, high = file->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (file->chunks[middle]->number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool array_grow(void **array, size_t count, size_t *room, size_t member_bytes)
{
	size_t more = *room ? *room * 2 : 16;
	void *grown;

	if (count < *room)
		return true;
	grown = reallocarray(*array, more, member_bytes);
	if (!grown)
		return false;
	*array = grown;
	*room = more;
	return true;
}

static struct chunk *chunk_get(struct file *file, uint64_t number)
{
	size_t place = chunk_place(file, number);
	struct chunk *chunk;

	if (place < file->count && file->chunks[place]->number == number)
		return file->chunks[place];
	if (!array_grow((void **)&file->chunks, file->count, &file->room, sizeof(*file->chunks)))
		return NULL;
	chunk = calloc(1, sizeof(*chunk));
	if (!chunk)
		return NULL;
	chunk->number = number;
	memmove(file->chunks + place + 1, file->chunks + place,
		(file->count - place) * sizeof(*file->chunks));
	file->chunks[place] = chunk;
	file->count++;
	return chunk;
}

static int file_add(struct file *file, uint64_t first, uint64_t end)
{
	while (first < end) {
		struct chunk *chunk = chunk_get(file, first / CHUNK_PAGES);
		uint64_t next = (first / CHUNK_PAGES + 1) * CHUNK_PAGES;
		uint64_t stop = next < end ? next : end;

		if (!chunk)
			return -ENOMEM;
		pages_change(chunk, (unsigned)(first % CHUNK_PAGES),
			     (unsigned)(stop - next + CHUNK_PAGES), true);
		first = stop;
	}
	return 0;
}

static void file_take(struct file *file, uint64_t first, uint64_t end)
{
	for (size_t i = chunk_place(file, first / CHUNK_PAGES); i < file->count; i++) {
		uint64_t base = file->chunks[i]->number * CHUNK_PAGES;

		if (base >= end)
			return;
		pages_change(file->chunks[i], first > base ? (unsigned)(first - base) : 0,
			     end - base < CHUNK_PAGES ? (unsigned)(end - base) : CHUNK_PAGES,
			     false);
	}
}

static uint64_t file_bytes(const struct file *file)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < file->count; i++)
		for (size_t j = 0; j < CHUNK_PAGES / WORD_PAGES; j++)
			pages += (unsigned)__builtin_popcountll(file->chunks[i]->pages[j]);
	return pages * PAGE_BYTES;
}

static void file_empty(struct file *file)
{
	for (size_t i = 0; i < file->count; i++)
		free(file->chunks[i]);
	free(file->chunks);
	file->chunks = NULL;
	file->count = file->room = 0;
}

/* ---- The ledger --------------------------------------------------------------------------- */

struct ledger *ledger_create(void)
{
	return calloc(1, sizeof(struct ledger));
}

void ledger_destroy(struct ledger *ledger)
{
	for (size_t i = 0; ledger && i < ledger->count; i++) {
		file_empty(&ledger->files[i]);
		free(ledger->files[i].path);
	}
	if (ledger)
		free(ledger->files);
	free(ledger);
}

static struct file *ledger_file(struct ledger *ledger, const struct run_file *named, bool add)
{
	char *path;

	for (size_t i = 0; i < ledger->count; i++)
		if (ledger->files[i].dev == named->dev && ledger->files[i].ino == named->ino)
			return &ledger->files[i];
	if (!add || !array_grow((void **)&ledger->files, ledger->count, &ledger->room,
				sizeof(*ledger->files)))
		return NULL;
	path = strndup(named->path, sizeof(named->path) - 1);
	if (!path)
		return NULL;
	ledger->files[ledger->count] =
		(struct file){.dev = named->dev, .ino = named->ino, .path = path};
	return &ledger->files[ledger->count++];
}

int ledger_event(struct ledger *ledger, const struct run_control *control,
		 const struct run_event *event)
{
	bool add = event->kind == RUN_EVENT_RESERVED;
	uint64_t end = event->length > UINT64_MAX - event->offset ? UINT64_MAX
								  : event->offset + event->length;
	struct file *file;

	if ((!add && event->kind != RUN_EVENT_PUNCHED) || !run_file_is_there(control, event->file))
		return 0;
	file = ledger_file(ledger, &control->files[event->file], add);
	if (!file)
		return add ? -ENOMEM : 0;
	/* Of pages that are ours in part none is. */
	if (add)
		return file_add(file, (event->offset + PAGE_BYTES - 1) / PAGE_BYTES,
				end / PAGE_BYTES);
	file_take(file, event->offset / PAGE_BYTES, end / PAGE_BYTES + (end % PAGE_BYTES ? 1 : 0));
	return 0;
}

/* ---- Giving back -------------------------------------------------------------------------- */

static int file_release(struct release *r, const struct file *file)
{
	int error = 0;

	for (size_t i = 0; i < file->count && !error; i++) {
		const struct chunk *chunk = file->chunks[i];
		uint64_t base = chunk->number * CHUNK_PAGES;

		for (unsigned from = pages_next(chunk, 0, true), end; from < CHUNK_PAGES && !error;
		     from = pages_next(chunk, end, true)) {
			end = pages_next(chunk, from, false);
			error = release_range(r, (base + from) * PAGE_BYTES,
					      (base + end) * PAGE_BYTES);
		}
	}
	return error;
}

static void file_give_back(const struct file *file, struct ledger_file *result)
{
	struct release r;
	int error;

	result->error = release_begin(&r, file->path, file->dev, file->ino);
	error = file_release(&r, file);
	if (error && !result->error)
		result->error = error;
	result->returned_bytes = r.released_bytes;
	result->left_bytes = r.left_bytes;
	/* Not to be seen: whatever was not given back may be left. */
	if (result->error != -ENOENT && (error || (result->error && r.fd < 0)))
		result->left_bytes = result->reserved_bytes - result->returned_bytes;
	release_end(&r);
}

void ledger_give_back(struct ledger *ledger, void (*report)(void *arg, const struct ledger_file *),
		      void *arg)
{
	for (size_t i = 0; i < ledger->count; i++) {
		struct file *file = &ledger->files[i];
		struct ledger_file result = {.path = file->path,
					     .dev = file->dev,
					     .ino = file->ino,
					     .reserved_bytes = file_bytes(file)};

		if (!result.reserved_bytes)
			continue;
		file_give_back(file, &result);
		report(arg, &result);
		if (result.error != -EAGAIN)
			file_empty(file);
	}
}
