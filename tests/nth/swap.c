/* SPDX-License-Identifier: MIT */
/*
 * swap.c - each call fails once while private copies are swapped out and come back: a page is
 * refused with a reason and there when it is asked for again; no copy is lost, no slot is left.
 */
#include "nth/model.h"

#include <string.h>

#define PAGES 24u

static unsigned char *view;	 /* private, of all of the object */
static uint64_t expected[PAGES]; /* the first word of each page; 0: that of the object */

struct word {
	_Atomic uint64_t *at;
	uint64_t value;
};

static void word_store(void *arg)
{
	struct word *word = arg;

	*word->at = word->value;
}

static void word_load(void *arg)
{
	struct word *word = arg;

	word->value = *word->at;
}

static _Atomic uint64_t *word_of(uint64_t page)
{
	return (_Atomic uint64_t *)(void *)(view + page * PAGE);
}

static int private_map(struct model *m)
{
	void *address = NULL;
	int error;

	IN_LIBRARY(error = mkw_map(m->handle, PAGES * PAGE, MKW_WRITE,
				   MKW_PRIVATE | test_map_flags(), 0, &address));
	view = address;
	return error;
}

static int private_unmap(struct model *m)
{
	int error;

	(void)m;
	IN_LIBRARY(error = mkw_unmap(view, PAGES * PAGE));
	return error;
}

static int private_write(uint64_t first, uint64_t step, uint64_t value)
{
	int error = 0;

	for (uint64_t page = first; page < PAGES && !error; page += step) {
		struct word word = {word_of(page), value + page};

		IN_LIBRARY(error = mkw_guard(word_store, &word, NULL));
		if (!error)
			expected[page] = word.value;
	}
	return error;
}

static int write_all(struct model *m)
{
	(void)m;
	return private_write(0, 1, 1000);
}

static int write_some(struct model *m)
{
	(void)m;
	return private_write(1, 3, 2000);
}

/* What was written is there; the rest is the object's. */
static int private_read(struct model *m)
{
	int error = 0;

	for (uint64_t page = 0; page < PAGES && !error; page++) {
		struct word word = {.at = word_of(page)};
		uint64_t base;

		memcpy(&base, m->bytes + page * PAGE, sizeof(base));
		IN_LIBRARY(error = mkw_guard(word_load, &word, NULL));
		if (!error)
			CHECK_EQ(word.value, expected[page] ? expected[page] : base);
	}
	return error;
}

static int advise(struct model *m, uint64_t first, uint64_t count, enum mkw_advice advice)
{
	int error;

	(void)m;
	IN_LIBRARY(error = mkw_advise(view + first * PAGE, count * PAGE, advice));
	return error;
}

static int advise_random(struct model *m)
{
	return advise(m, 0, PAGES, MKW_RANDOM);
}

static int advise_pageout(struct model *m)
{
	return advise(m, 0, PAGES, MKW_PAGEOUT);
}

static int advise_cold(struct model *m)
{
	return advise(m, 0, PAGES, MKW_COLD);
}

static int advise_willneed(struct model *m)
{
	return advise(m, 0, PAGES, MKW_WILLNEED);
}

static int advise_free(struct model *m)
{
	int error = advise(m, 4, 8, MKW_FREE);

	for (uint64_t page = 4; !error && page < 12; page++)
		expected[page] = 0;
	return error;
}

static int map_locked(struct model *m)
{
	void *address = NULL;
	int error;

	IN_LIBRARY(error = mkw_map(m->handle, 3 * PAGE, MKW_READ, MKW_LOCKED | test_map_flags(), 0,
				   &address));
	if (error)
		CHECK(address == NULL);
	else
		IN_LIBRARY(error = mkw_unmap(address, 3 * PAGE));
	return error;
}

#define PRIVATE_STEP(m, fn)                        \
	do {                                       \
		if (!model_step((m), (fn), #fn)) { \
			private_unmap(m);          \
			model_end(m);              \
			return;                    \
		}                                  \
	} while (0)

static void begin(struct model *m, uint64_t resident_pages)
{
	memset(expected, 0, sizeof(expected));
	m->space_options.swap_path = "/tmp";
	m->space_options.resident_limit_bytes = resident_pages * PAGE;
	model_begin(m, PAGES);
}

static void end(struct model *m)
{
	struct mkw_stat stat;

	nth_disarm();
	CHECK_EQ(private_read(m), 0);
	CHECK_EQ(private_unmap(m), 0);
	CHECK_EQ(mkw_space_stat(m->space, &stat, sizeof(stat)), 0);
	CHECK_EQ(stat.private_bytes, 0);
	CHECK_EQ(stat.swapped_bytes, 0);
	model_end(m);
}

static void on_request(struct model *m)
{
	begin(m, 0);
	model_arm();
	STEP(m, private_map);
	PRIVATE_STEP(m, write_all);
	PRIVATE_STEP(m, advise_cold);
	PRIVATE_STEP(m, advise_pageout);
	PRIVATE_STEP(m, private_read);
	PRIVATE_STEP(m, advise_pageout);
	PRIVATE_STEP(m, write_some);
	PRIVATE_STEP(m, advise_pageout);
	PRIVATE_STEP(m, advise_free);
	PRIVATE_STEP(m, advise_willneed);
	PRIVATE_STEP(m, private_read);
	PRIVATE_STEP(m, advise_pageout);
	end(m);
}

TEST_EACH_BACKEND(nth_swap, "2.8 whatever call fails while pages are swapped out and in on request")
{
	model_loop(MODEL_MEM, "", on_request);
}

static void by_limit(struct model *m)
{
	begin(m, 10);
	m->enough = model_heavy() ? 0 : 100; /* the rest is the same once more */
	REQUIRE_EQ(private_map(m), 0);
	REQUIRE_EQ(advise_random(m), 0);
	model_arm();
	PRIVATE_STEP(m, write_all);
	PRIVATE_STEP(m, private_read);
	PRIVATE_STEP(m, write_some);
	end(m);
}

TEST_EACH_BACKEND(nth_swap_limit, "2.8 whatever call fails while the resident limit moves pages")
{
	model_loop(MODEL_MEM, "", by_limit);
}

static void locked(struct model *m)
{
	model_begin(m, PAGES);
	model_arm();
	STEP(m, map_locked);
	model_end(m);
}

TEST_EACH_BACKEND(nth_locked, "S4.7 whatever call fails while a locked view is mapped")
{
	model_loop(MODEL_MEM, "", locked);
	model_loop(MODEL_FILE, "", locked);
}
