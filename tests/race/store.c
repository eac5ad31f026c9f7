/* SPDX-License-Identifier: MIT */
/*
 * store.c - the store of a schedule. It keeps the tracked words only, what has been synced apart
 * from what has been written, and holds the library to store.h: pages are written only when they
 * were asked for since they were last written (I1), and their bytes stay as they are meanwhile
 * (I4).
 */
#include "race.h"
#include "threads.h"

#include <errno.h>
#include <string.h>

static void point(const char *what, uint64_t page)
{
	thread_step(what, NULL, page, NULL, NULL);
}

static mkw_fault_t race_fault(void *store, struct mkw_object *object, struct mkw_run *run,
			      void *buffer)
{
	struct race_store *s = store;
	bool hole = true;

	(void)object;
	point("store: fault", run->first);
	if (s->memory > 0 && space_of(world.space)->account.resident > s->memory) {
		threads_note("no memory");
		return MKW_FAULT_OOM;
	}
	if (s->fill_fails > 0) {
		s->fill_fails--;
		mkw_set_error(-EIO, "planted");
		return MKW_FAULT_SIGBUS;
	}
	if (s->fill_retries > 0) {
		s->fill_retries--;
		return MKW_FAULT_RETRY;
	}
	for (uint64_t page = run->first; page < run->first + run->count; page++) {
		char *bytes = (char *)buffer + (page - run->first) * MKW_PAGE_SIZE;

		memset(bytes, 0, MKW_PAGE_SIZE);
		if (page >= PAGES || !s->stored[page])
			continue;
		hole = false;
		memcpy(bytes, &s->bytes[page * 2], sizeof(uint64_t));
		memcpy(bytes + TAIL, &s->bytes[page * 2 + 1], sizeof(uint64_t));
	}
	if (hole)
		run->flags |= MKW_RUN_HOLE;
	point("store: fault ends", run->first);
	return MKW_FAULT_LOCKED;
}

static void grant(struct race_store *s, const struct mkw_run *run)
{
	for (uint64_t page = run->first; page < run->first + run->count && page < PAGES; page++)
		s->granted[page] = true;
}

static mkw_fault_t race_page_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	struct race_store *s = store;
	int error;

	(void)object;
	point("store: page_mkwrite", run->page);
	if (s->refuse > 0 && !s->stored[run->page]) {
		s->refuse--;
		mkw_set_error(-ENOSPC, "planted");
		return MKW_FAULT_SIGBUS;
	}
	if (s->retry > 0) {
		s->retry--;
		return MKW_FAULT_RETRY;
	}
	if (s->nopage > 0) {
		s->nopage--;
		return MKW_FAULT_NOPAGE;
	}
	switch (s->answer) {
	case ANSWER_ZERO: /* the old way: the library locks */
		grant(s, run);
		point("store: page_mkwrite answers 0", run->page);
		return 0;
	case ANSWER_EARLY: /* lock, then reserve */
		error = mkw_run_lock(run);
		if (error != 0)
			return mkw_fault_from_errno(error);
		grant(s, run);
		point("store: page_mkwrite answers LOCKED", run->page);
		return MKW_FAULT_LOCKED;
	case ANSWER_GROW:
		mkw_run_grow(run, 0, PAGES);
		break;
	default:
		break;
	}
	/* Reserve before the lock (3.2). What the lock cuts off, or all of it should it fail, comes
	 * back by unreserve. */
	grant(s, run);
	point("store: page_mkwrite has reserved", run->page);
	return mkw_fault_from_errno(mkw_run_lock(run));
}

static void race_unreserve(void *store, struct mkw_object *object, uint64_t first, uint64_t count)
{
	struct race_store *s = store;

	(void)object;
	point("store: unreserve", first);
	for (uint64_t page = first; page < first + count && page < PAGES; page++)
		s->granted[page] = false;
}

static void word_set(struct race_store *s, unsigned word, uint64_t value)
{
	s->bytes[word] = value;
	s->changes[word]++;
}

static void words_read(const struct mkw_wb_run *run, uint64_t *words)
{
	for (size_t i = 0; i < run->count && i < PAGES; i++) {
		memcpy(&words[2 * i], (const char *)run->data + i * MKW_PAGE_SIZE, sizeof(*words));
		memcpy(&words[2 * i + 1], (const char *)run->data + i * MKW_PAGE_SIZE + TAIL,
		       sizeof(*words));
	}
}

static void run_write(struct race_store *s, const struct mkw_wb_run *run)
{
	uint64_t words[WORDS] = {0}, again[WORDS] = {0};

	words_read(run, words);
	point("store: writes", run->first);
	words_read(run, again);
	if (memcmp(words, again, sizeof(words)) != 0)
		threads_fail("the bytes of page %llu changed under write-back (I4)",
			     (unsigned long long)run->first);
	for (size_t i = 0; i < run->count; i++) {
		uint64_t page = run->first + i;

		if (page >= PAGES)
			threads_fail("page %llu is written, beyond the object",
				     (unsigned long long)page);
		if (!s->granted[page] && !s->defers)
			threads_fail("page %llu is written and the store was not asked (I1)",
				     (unsigned long long)page);
		s->granted[page] = false;
		s->stored[page] = true;
		for (unsigned k = 0; k < 2; k++)
			if (i * MKW_PAGE_SIZE + k * TAIL < run->length_bytes)
				word_set(s, (unsigned)(page * 2 + k), words[2 * i + k]);
	}
}

static int race_writepages(void *store, struct mkw_object *object, struct mkw_writeback *wb)
{
	struct race_store *s = store;

	(void)object;
	for (size_t i = 0; i < wb->count; i++) {
		point("store: writepages", wb->runs[i].first);
		if (s->write_fails > 0) {
			s->write_fails--;
			wb->runs[i].result = -EIO;
		} else if (s->write_not_yet > 0) {
			s->write_not_yet--;
			wb->runs[i].result = -EAGAIN;
		} else {
			run_write(s, &wb->runs[i]);
		}
	}
	return 0;
}

static void words_clear(struct race_store *s, uint64_t from, uint64_t to)
{
	for (unsigned w = 0; w < WORDS; w++)
		if (word_offset(w) >= from && word_offset(w) < to)
			word_set(s, w, 0);
	for (unsigned page = 0; page < PAGES; page++)
		if ((uint64_t)page * MKW_PAGE_SIZE >= from &&
		    (uint64_t)(page + 1) * MKW_PAGE_SIZE <= to) {
			s->granted[page] = false;
			s->stored[page] = false;
		}
}

static int race_truncate(void *store, struct mkw_object *object, uint64_t size_bytes)
{
	struct race_store *s = store;

	(void)object;
	point("store: truncate", size_bytes);
	if (s->cut_fails > 0) {
		s->cut_fails--;
		return -EIO;
	}
	words_clear(s, size_bytes, UINT64_MAX);
	point("store: truncate ends", size_bytes);
	return 0;
}

static int race_punch_hole(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	struct race_store *s = store;

	(void)object;
	point("store: punch_hole", offset / MKW_PAGE_SIZE);
	if (s->cut_fails > 0) {
		s->cut_fails--;
		return -EIO;
	}
	words_clear(s, offset, offset + length);
	point("store: punch_hole ends", offset / MKW_PAGE_SIZE);
	return 0;
}

static int race_fsync(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	struct race_store *s = store;
	unsigned changes[WORDS];
	uint64_t bytes[WORDS];

	(void)object;
	(void)offset;
	(void)length;
	memcpy(bytes, s->bytes, sizeof(bytes));
	memcpy(changes, s->changes, sizeof(changes));
	point("store: fsync", 0);
	if (s->sync_fails > 0) {
		s->sync_fails--;
		return -EIO;
	}
	/* What was written while it ran need not be durable; nothing durable becomes undone. */
	for (unsigned w = 0; w < WORDS; w++)
		if (changes[w] > s->synced[w]) {
			s->durable[w] = bytes[w];
			s->synced[w] = changes[w];
		}
	return 0;
}

static void race_release(void *store)
{
	struct race_store *s = store;

	s->released++;
}

const struct mkw_store_ops race_store_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "race",
	.fault = race_fault,
	.page_mkwrite = race_page_mkwrite,
	.unreserve = race_unreserve,
	.writepages = race_writepages,
	.truncate = race_truncate,
	.punch_hole = race_punch_hole,
	.fsync = race_fsync,
	.release = race_release,
};
