/* SPDX-License-Identifier: MIT */
/*
 * model.c - what each word of an object may be (model.h).
 */
#include "model.h"

#include <stdlib.h>
#include <string.h>

/* Odd, and its inverse modulo 2^32: no byte of a value tells its age. */
#define SCRAMBLE   0x9e3779b1u
#define UNSCRAMBLE 0x0e8b2f51u
_Static_assert((uint32_t)(SCRAMBLE *UNSCRAMBLE) == 1, "inverse");

static _Atomic uint64_t model_clock = 1;

void model_init(struct model *m)
{
	m->word = calloc(m->pages * PAGE_WORDS, sizeof(*m->word));
	m->page = calloc(m->pages, sizeof(*m->page));
	REQUIRE(m->word != NULL && m->page != NULL);
}

void model_destroy(struct model *m)
{
	free(m->word);
	free(m->page);
}

uint64_t model_size(const struct model *m, struct mkw_handle *handle)
{
	return mkw_size(handle) - m->bias_bytes;
}

unsigned model_owner(const struct model *m, size_t word)
{
	return (unsigned)(word / m->block % m->threads);
}

/* ---- Values ------------------------------------------------------------------------------- */

/* No byte of it is zero. */
static uint32_t value_tag(const struct model *m, size_t word)
{
	return (uint32_t)((word * 2654435761u) ^ (m->id * 0x85ebca6bu)) | 0x01010101u;
}

uint64_t model_value(const struct model *m, size_t word, uint32_t seq)
{
	return (uint64_t)(seq * SCRAMBLE) << 32 | value_tag(m, word);
}

/* 0: it is none of this word. */
static uint32_t value_seq(const struct model *m, size_t word, uint64_t value)
{
	return (uint32_t)value == value_tag(m, word) ? (uint32_t)(value >> 32) * UNSCRAMBLE : 0;
}

/* What tells a private view's values from those of the object and of other views. */
static uint64_t private_tag(unsigned id)
{
	return (uint64_t)(uint8_t)(id << 1) << 8;
}

/* Each byte is zero or that of whole. */
static bool value_is_zeroed(uint64_t value, uint64_t whole)
{
	for (unsigned shift = 0; shift < 64; shift += 8) {
		uint64_t byte = value >> shift & 0xff;

		if (byte != 0 && byte != (whole >> shift & 0xff))
			return false;
	}
	return true;
}

/* ---- An owner's access -------------------------------------------------------------------- */

static struct page_ops *ops_of(struct model *m, size_t word)
{
	return &m->page[word / PAGE_WORDS];
}

/* From here on nobody believes what is known of it. */
static void word_doubt(struct word *w)
{
	uint64_t version = atomic_load(&w->version) >> 32;

	if ((version & 1) == 0)
		atomic_store(&w->version, (version + 1) << 32);
}

void span_begin(struct access_span *s, struct model *m, struct mkw_handle *handle, size_t first,
		size_t count, uint32_t seq)
{
	*s = (struct access_span){m, handle, first, count, seq, 0, 0, 0};
	s->truncates = atomic_load(&m->truncates_ended);
	s->growers = atomic_load(&m->growers_ended);
	s->size_bytes = model_size(m, handle);
	for (size_t i = first; i < first + count; i++) {
		struct word *w = &m->word[i];
		struct page_ops *ops = ops_of(m, i);

		w->seen_zeros = atomic_load(&ops->zeros_ended);
		w->seen_drops = atomic_load(&ops->drops_ended);
		w->seen_zeroed = atomic_load(&w->zeroed);
		if (seq == 0)
			continue;
		word_doubt(w);
		atomic_store(&w->announced, seq);
	}
}

bool span_size_is_quiet(const struct access_span *s)
{
	return atomic_load(&s->m->truncates_begun) == s->truncates &&
	       atomic_load(&s->m->growers_begun) == s->growers;
}

/* The word was inside the object all the time. A single grower can take back its growth, but then
 * the size tells. */
static bool span_was_inside(const struct access_span *s, size_t word)
{
	uint64_t end = (word + 1) * WORD_BYTES;

	return end <= s->m->least_bytes ||
	       (end <= s->size_bytes && end <= model_size(s->m, s->handle) &&
		atomic_load(&s->m->truncates_begun) == s->truncates &&
		atomic_load(&s->m->growers_begun) - s->growers <= 1);
}

static void word_know(struct access_span *s, size_t word, uint64_t value)
{
	struct word *w = &s->m->word[word];
	uint64_t version;

	word_doubt(w);
	version = atomic_load(&w->version) >> 32;
	atomic_store(&w->known, value);
	w->unsure = false;
	w->zeros = w->seen_zeros;
	w->drops = w->seen_drops;
	w->loose = !span_was_inside(s, word);
	if (!w->loose)
		atomic_store(&w->version, (version + 1) << 32 | (uint32_t)(w->zeros + w->drops));
}

const char *span_past_end(const struct access_span *s, size_t word, bool refused)
{
	uint64_t page_start = word / PAGE_WORDS * PAGE;

	if (refused && page_start < s->m->least_bytes)
		return "refused as past the end, which it never is";
	if (!span_size_is_quiet(s) || refused == (page_start >= s->size_bytes))
		return NULL;
	return refused ? "refused as past the end, which it is not"
		       : "an access past the end was let through";
}

const char *span_stored(struct access_span *s, size_t word)
{
	struct word *w = &s->m->word[word];

	word_know(s, word, model_value(s->m, word, s->seq));
	w->last = s->seq;
	w->stamp = atomic_load(&model_clock);
	return span_past_end(s, word, false);
}

void span_refused(struct access_span *s, size_t word)
{
	struct word *w = &s->m->word[word];
	uint64_t version = atomic_load(&w->version) >> 32;

	if (!w->loose && !w->unsure && (version & 1) != 0)
		atomic_store(&w->version, (version + 1) << 32 | (uint32_t)(w->zeros + w->drops));
}

void span_unsure(struct access_span *s, size_t word)
{
	struct word *w = &s->m->word[word];

	if (!w->unsure)
		w->unsure_seq = s->seq;
	w->unsure = true;
	w->last = s->seq;
	w->stamp = atomic_load(&model_clock);
}

/* Discards bring back what was stored, at any time since floor. */
static bool value_may_be_back(struct model *m, size_t word, uint64_t value)
{
	const struct word *w = &m->word[word];
	uint32_t seq = value_seq(m, word, value);
	bool zeroed = w->loose || atomic_load(&ops_of(m, word)->zeros_begun) != w->floor_zeros;

	if (value == w->floor || (seq != 0 && seq >= w->floor_seq && seq <= w->last))
		return true;
	return zeroed && value_is_zeroed(value & UINT32_MAX, value_tag(m, word));
}

/* A call that ended early may have stored it. */
static bool value_may_be_stored(const struct model *m, size_t word, uint64_t value)
{
	const struct word *w = &m->word[word];
	uint32_t seq = value_seq(m, word, value);

	return w->unsure && seq >= w->unsure_seq && seq <= w->last;
}

static const char *word_check(const struct access_span *s, size_t word, uint64_t value)
{
	struct model *m = s->m;
	const struct word *w = &m->word[word];
	uint64_t known = atomic_load(&w->known);
	bool zeros = atomic_load(&ops_of(m, word)->zeros_begun) != w->zeros;
	bool drops = atomic_load(&ops_of(m, word)->drops_begun) != w->drops;

	if (!m->drops && w->seen_zeroed > w->stamp)
		return value == 0 ? NULL : "it was zeroed and is back";
	if (value == known || value_may_be_stored(m, word, value))
		return NULL;
	if (drops && value_may_be_back(m, word, value))
		return NULL;
	if ((zeros || w->loose || !span_was_inside(s, word)) &&
	    (value_is_zeroed(value, known) ||
	     (w->unsure && value_is_zeroed(value & UINT32_MAX, value_tag(m, word)))))
		return NULL;
	if (value == 0)
		return "it was lost";
	if (value_seq(m, word, value) == 0)
		return "it was never stored there";
	return value_seq(m, word, value) < value_seq(m, word, known) ? "an older value is back"
								     : "it was never stored";
}

const char *span_read(struct access_span *s, size_t word, uint64_t value)
{
	const char *complaint = word_check(s, word, value);

	if (complaint == NULL)
		word_know(s, word, value);
	return complaint != NULL ? complaint : span_past_end(s, word, false);
}

bool word_is_certain(const struct model *m, size_t word, uint64_t *value)
{
	const struct word *w = &m->word[word];
	const struct page_ops *ops = &m->page[word / PAGE_WORDS];

	*value = atomic_load(&w->known);
	return !w->loose && !w->unsure && atomic_load(&ops->zeros_begun) == w->zeros &&
	       atomic_load(&ops->drops_begun) == w->drops;
}

void word_is_durable(struct model *m, size_t word)
{
	struct word *w = &m->word[word];

	w->floor = atomic_load(&w->known);
	/* A zero that is in the store was put there after all that came before. */
	w->floor_seq = w->floor == 0 ? w->last + 1 : value_seq(m, word, w->floor);
	w->floor_zeros = w->zeros;
}

/* ---- Others ------------------------------------------------------------------------------- */

void foreign_begin(struct foreign *f, struct model *m, size_t word)
{
	struct word *w = &m->word[word];

	f->version = atomic_load(&w->version);
	f->known = atomic_load(&w->known);
	if (atomic_load(&w->version) != f->version)
		f->version = 1ull << 32;
}

const char *foreign_read(const struct foreign *f, struct model *m, size_t word, uint64_t value)
{
	struct page_ops *ops = ops_of(m, word);
	uint32_t seq = value_seq(m, word, value), begun;

	begun = atomic_load(&ops->zeros_begun) + atomic_load(&ops->drops_begun);
	if ((f->version >> 32 & 1) != 0 || (uint32_t)f->version != begun || value == f->known)
		return value_is_zeroed(value & UINT32_MAX, value_tag(m, word))
			       ? NULL
			       : "it is none of this word";
	if (seq == 0)
		return value == 0 ? "it was lost" : "it was never stored there";
	if (seq > atomic_load(&m->word[word].announced))
		return "it is newer than any that was stored";
	return seq < value_seq(m, word, f->known) ? "an older value is back" : NULL;
}

/* ---- Ops ---------------------------------------------------------------------------------- */

static size_t pages_of(const struct model *m, uint64_t offset, uint64_t end, size_t *first)
{
	*first = (size_t)(offset / PAGE);
	if (end > m->pages * PAGE)
		end = m->pages * PAGE;
	return end > offset ? (size_t)((end + PAGE - 1) / PAGE) : *first;
}

uint64_t zero_begin(struct model *m, uint64_t offset, uint64_t end)
{
	size_t page, to = pages_of(m, offset, end, &page);

	for (; page < to; page++)
		atomic_fetch_add(&m->page[page].zeros_begun, 1);
	return atomic_fetch_add(&model_clock, 1) + 1;
}

static void word_zeroed(struct word *w, uint64_t clock)
{
	uint64_t before = atomic_load(&w->zeroed);

	while (before < clock && !atomic_compare_exchange_weak(&w->zeroed, &before, clock))
		;
}

void zero_end(struct model *m, uint64_t offset, uint64_t end, uint64_t clock, uint64_t from,
	      uint64_t to)
{
	size_t page, page_end = pages_of(m, offset, end, &page);

	for (size_t i = (from + WORD_BYTES - 1) / WORD_BYTES;
	     clock != 0 && i < to / WORD_BYTES && i < m->pages * PAGE_WORDS; i++)
		word_zeroed(&m->word[i], clock);
	for (; page < page_end; page++)
		atomic_fetch_add(&m->page[page].zeros_ended, 1);
}

void drop_begin(struct model *m, uint64_t offset, uint64_t end)
{
	size_t page, to = pages_of(m, offset, end, &page);

	for (; page < to; page++)
		atomic_fetch_add(&m->page[page].drops_begun, 1);
}

void drop_end(struct model *m, uint64_t offset, uint64_t end)
{
	size_t page, to = pages_of(m, offset, end, &page);

	for (; page < to; page++)
		atomic_fetch_add(&m->page[page].drops_ended, 1);
}

bool page_is_quiet(const struct model *m, size_t page)
{
	const struct page_ops *ops = &m->page[page];

	return atomic_load(&ops->zeros_begun) == atomic_load(&ops->zeros_ended) &&
	       atomic_load(&ops->drops_begun) == atomic_load(&ops->drops_ended);
}

void pages_cut(struct model *m, uint64_t to, uint64_t clock)
{
	for (size_t i = (size_t)((to + PAGE - 1) / PAGE); i < m->pages; i++) {
		uint64_t before = atomic_load(&m->page[i].cut);

		while (before < clock &&
		       !atomic_compare_exchange_weak(&m->page[i].cut, &before, clock))
			;
	}
}

/* ---- Private views ------------------------------------------------------------------------ */

uint64_t private_value(const struct model *m, unsigned id, size_t word, uint32_t seq)
{
	return model_value(m, word, seq) ^ private_tag(id);
}

uint32_t private_seq(const struct model *m, unsigned id, size_t word, uint64_t value)
{
	return value_seq(m, word, value ^ private_tag(id));
}

bool value_is_of_word(const struct model *m, size_t word, uint64_t value)
{
	return value_is_zeroed(value & UINT32_MAX, value_tag(m, word));
}

uint64_t page_cut(const struct model *m, size_t page)
{
	return atomic_load(&m->page[page].cut);
}

uint64_t model_now(void)
{
	return atomic_load(&model_clock);
}
