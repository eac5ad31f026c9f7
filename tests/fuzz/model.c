/* SPDX-License-Identifier: MIT */
/* model.c - what an object's bytes must be (model.h). Pages come from one pool for all objects. */
#include "fuzz/model.h"

#include <string.h>

#define PAGE	   4096u
#define POOL_PAGES 512u

static struct model_page pool[POOL_PAGES];
static size_t pool_used;
static struct model_page *pool_free;

void models_reset(void)
{
	pool_used = 0;
	pool_free = NULL;
}

bool model_room(size_t pages)
{
	size_t room = POOL_PAGES - pool_used;

	for (const struct model_page *p = pool_free; p && room < pages; p = p->next)
		room++;
	return room >= pages;
}

static struct model_page *page_new(void)
{
	struct model_page *p = pool_free;

	if (p)
		pool_free = p->next;
	else
		p = &pool[pool_used++];
	memset(p, 0, sizeof(*p));
	return p;
}

void model_forget(struct model *m, uint64_t first, uint64_t last)
{
	for (struct model_page **link = &m->pages; *link;) {
		struct model_page *p = *link;

		if (p->index < first || p->index > last) {
			link = &p->next;
			continue;
		}
		*link = p->next;
		p->next = pool_free;
		pool_free = p;
	}
}

void model_clear(struct model *m)
{
	model_forget(m, 0, UINT64_MAX);
	m->size_bytes = 0;
}

const struct model_page *model_find(const struct model *m, uint64_t index)
{
	const struct model_page *p = m->pages;

	while (p && p->index != index)
		p = p->next;
	return p;
}

struct model_page *model_page(struct model *m, uint64_t index)
{
	struct model_page *p = (struct model_page *)model_find(m, index);

	if (p)
		return p;
	p = page_new();
	p->index = index;
	p->next = m->pages;
	m->pages = p;
	return p;
}

void model_read(const struct model *m, uint64_t offset, unsigned char *to, size_t count)
{
	memset(to, 0, count);
	for (const struct model_page *p = m->pages; p; p = p->next) {
		uint64_t start = p->index * PAGE;
		uint64_t from = start > offset ? start : offset;
		uint64_t end = start + PAGE < offset + count ? start + PAGE : offset + count;

		if (from < end)
			memcpy(to + (from - offset), p->now + (from - start), end - from);
	}
}

void model_write(struct model *m, uint64_t offset, const unsigned char *from, size_t count)
{
	while (count > 0) {
		struct model_page *p = model_page(m, offset / PAGE);
		size_t in_page = offset % PAGE, n = PAGE - in_page < count ? PAGE - in_page : count;

		memcpy(p->now + in_page, from, n);
		p->written = p->listed = true;
		from += n;
		offset += n;
		count -= n;
	}
	if (offset > m->size_bytes)
		m->size_bytes = offset;
}

void model_truncate(struct model *m, uint64_t size_bytes)
{
	size_t tail = size_bytes % PAGE;

	model_forget(m, size_bytes / PAGE + (tail != 0), UINT64_MAX);
	for (struct model_page *p = m->pages; p && tail; p = p->next) {
		if (p->index != size_bytes / PAGE)
			continue;
		memset(p->now + tail, 0, PAGE - tail);
		memset(p->stored + tail, 0, PAGE - tail);
	}
	m->size_bytes = size_bytes;
}

/* Whole: the store has nothing of the page left. A part is like a write. */
static void page_zero(struct model_page *p, size_t from, size_t end, bool whole)
{
	memset(p->now + from, 0, end - from);
	p->written = p->listed = !whole;
	if (!whole)
		return;
	memset(p->stored, 0, PAGE);
	p->unsure = p->kept = false;
}

void model_punch(struct model *m, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length;

	/* A page that is not there, and of which a part is zeroed, is written. */
	if (offset % PAGE)
		model_page(m, offset / PAGE);
	if (end % PAGE && end != m->size_bytes)
		model_page(m, end / PAGE);
	for (struct model_page *p = m->pages; p; p = p->next) {
		uint64_t start = p->index * PAGE;
		uint64_t from = start > offset ? start : offset;
		uint64_t to = start + PAGE < end ? start + PAGE : end;
		bool whole = from == start && (to == start + PAGE || to == m->size_bytes);

		if (from < to)
			page_zero(p, from - start, to - start, whole);
	}
}

void model_synced(struct model *m, uint64_t first, uint64_t last)
{
	for (struct model_page *p = m->pages; p; p = p->next) {
		if (p->index < first || p->index > last)
			continue;
		memcpy(p->stored, p->now, PAGE);
		p->kept |= p->written;
		p->written = p->listed = p->unsure = false;
	}
}

void model_unsure(struct model *m, uint64_t first, uint64_t last)
{
	for (struct model_page *p = m->pages; p; p = p->next) {
		if (p->index < first || p->index > last || !p->written)
			continue;
		p->unsure = p->kept = true;
		p->listed = false;
	}
}

uint64_t model_kept(const struct model *m)
{
	uint64_t count = 0;

	for (const struct model_page *p = m->pages; p; p = p->next)
		count += p->kept;
	return count;
}
