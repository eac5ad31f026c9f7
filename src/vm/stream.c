/* SPDX-License-Identifier: MIT */
/*
 * stream.c - how long runs should be: a view remembers its last few streams of faults. A fault
 * where a stream's last run ended continues it with a run four times as long; any other fault
 * begins a new stream, with one page.
 *
 * A stream of writes that goes past its last grant confirms it: those pages count as written when
 * they are cleaned, without a look at their bytes. At most the last grant of a stream is
 * unconfirmed (contract 11; how it is told apart then: judge.c).
 */
#include "vm.h"

#include <errno.h>

#define RUN_GROWTH 4

/* The longest run at a page. */
static uint32_t run_max(const struct view *v, enum mmu_access access)
{
	const struct object *o = v->object;
	uint32_t max = access == MMU_WRITE ? REGION_PAGES : FILL_PAGES_MAX;
	uint64_t limit = access == MMU_WRITE ? o->space->account.dirty_limit
					     : o->space->account.resident_limit;

	/* No stream takes the room of all others. */
	if (limit != 0 && max > limit / 8)
		max = limit / 8 > 0 ? (uint32_t)(limit / 8) : 1;
	if (o->ops->run_max_pages != 0 && max > o->ops->run_max_pages)
		max = o->ops->run_max_pages;
	return max;
}

/* => stream_lock held. */
static enum mkw_advice advice_at(const struct view *v, uint64_t page)
{
	for (uint32_t i = v->advice_count; i-- > 0;)
		if (page >= v->advice[i].first && page < v->advice[i].end)
			return v->advice[i].advice;
	return MKW_NORMAL;
}

int stream_advise(struct view *v, uint64_t first, uint64_t end, enum mkw_advice advice)
{
	uint32_t kept = 0;
	int error = 0;

	env_lock(&v->stream_lock);
	/* Ranges that the new one covers count no more. */
	for (uint32_t i = 0; i < v->advice_count; i++)
		if (v->advice[i].first < first || v->advice[i].end > end)
			v->advice[kept++] = v->advice[i];
	v->advice_count = kept;
	if (kept == 0 && advice == MKW_NORMAL)
		error = 0;
	else if (kept == ADVICE_RANGES)
		error = -ENOMEM;
	else
		v->advice[v->advice_count++] = (struct advice_range){first, end, advice};
	env_unlock(&v->stream_lock);
	return error;
}

size_t stream_plan(struct view *v, uint64_t page, enum mmu_access access)
{
	uint32_t max = run_max(v, access), run = 1;
	struct stream *set = v->streams[access];
	enum mkw_advice advice;

	env_lock(&v->stream_lock);
	advice = advice_at(v, page);
	if (advice == MKW_SEQUENTIAL)
		run = max;
	for (size_t i = 0; i < STREAMS && advice == MKW_NORMAL; i++)
		if (set[i].run != 0 && set[i].next == page)
			run = set[i].run * RUN_GROWTH;
	env_unlock(&v->stream_lock);
	return run < max ? run : max;
}

/* The stream went past these pages. Races are harmless: an unconfirmed page is looked at, and a
 * confirmed one that is not GRANTED any more has lost the flag. */
static void run_confirm(struct object *o, uint64_t first, size_t count)
{
	struct region *r = region_get(o, first);
	size_t slot = first & (REGION_PAGES - 1);

	if (r == NULL)
		return;
	env_lock(&r->lock);
	for (size_t i = slot; i < slot + count && i < REGION_PAGES; i++)
		if (r->pages[i].state == PAGE_GRANTED)
			r->pages[i].flags |= PAGE_CONFIRMED;
	env_unlock(&r->lock);
	region_put(r);
}

void stream_done(struct view *v, uint64_t first, size_t count, enum mmu_access access)
{
	struct stream *set = v->streams[access], *found = NULL, *oldest = &set[0];
	struct stream previous = {.granted = false};

	env_lock(&v->stream_lock);
	for (size_t i = 0; i < STREAMS; i++) {
		if (set[i].run != 0 && set[i].next == first)
			found = &set[i];
		if (set[i].used < oldest->used)
			oldest = &set[i];
	}
	if (found != NULL)
		previous = *found;
	else
		found = oldest;
	*found = (struct stream){
		.next = first + count,
		.first = first,
		.run = (uint32_t)count,
		.used = ++v->stream_clock,
		.granted = access == MMU_WRITE && count > 1,
	};
	env_unlock(&v->stream_lock);
	if (previous.granted)
		run_confirm(v->object, previous.first, previous.run);
}
