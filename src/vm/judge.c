/* SPDX-License-Identifier: MIT */
/*
 * judge.c - which pages of a grant were written (contract 11, GRANTED).
 *
 * A page whose fault was reported is DIRTY and not judged. A page that was granted ahead of its
 * stream is judged by its bytes, after every view has been protected (I3), in this order:
 *   - the store had nothing there: it was written if any byte is not zero. No call, no I/O.
 *   - the stream went past its grant (PAGE_CONFIRMED): counted as written, without a look.
 *   - otherwise (at most the last grant of each stream): it was written if its bytes differ from
 * the store's, which is asked for them; when it cannot say, or reclaim must not wait for its
 * memory, the page counts as written. Leaving out a page whose bytes the store has loses nothing,
 * whoever wrote it.
 */
#include "vm.h"

#include <string.h>

static bool bytes_are_zero(const void *bytes)
{
	const uint64_t *word = bytes;

	for (size_t i = 0; i < MKW_PAGE_SIZE / sizeof(*word); i += 8)
		if ((word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] |
		     word[i + 6] | word[i + 7]) != 0)
			return false;
	return true;
}

static const char *page_bytes(const struct region *r, size_t slot)
{
	return frames_data(r->object->frames, (r->first + slot) << PAGE_SHIFT, MKW_PAGE_SIZE);
}

/* Compare consecutive pages with the store. */
static void judge_run(struct region *r, size_t slot, size_t count, char *buffer, bool *written)
{
	struct object *o = r->object;

	while (count > 0) {
		struct vm_run vr = {
			.run = {.object = &o->public,
				.first = r->first + slot,
				.count = count < FILL_PAGES_MAX ? count : FILL_PAGES_MAX,
				.page = r->first + slot}};
		size_t asked = vr.run.count;
		mkw_fault_t code = op_fault(o, NULL, &vr.run, buffer);

		if ((code & ~(MKW_FAULT_MAJOR | MKW_FAULT_LOCKED)) != 0 || vr.run.count == 0 ||
		    vr.run.count > asked || vr.run.first != r->first + slot)
			return; /* they stay "written" */
		for (size_t i = 0; i < vr.run.count; i++) {
			const char *bytes = page_bytes(r, slot + i);
			if (bytes == NULL)
				continue;
			written[i] = (vr.run.flags & MKW_RUN_HOLE) != 0
					     ? !bytes_are_zero(bytes)
					     : memcmp(bytes, buffer + i * MKW_PAGE_SIZE,
						      MKW_PAGE_SIZE) != 0;
		}
		slot += vr.run.count;
		written += vr.run.count;
		count -= vr.run.count;
	}
}

/* What has to be looked at to judge a page. */
enum look { LOOK_NONE, LOOK_ZERO, LOOK_STORE };

/* A stream may confirm a page at any time: how it is judged is decided once. */
static void looks_choose(struct region *r, const uint16_t *slots, size_t count, enum look *looks)
{
	env_lock(&r->lock);
	for (size_t i = 0; i < count; i++) {
		const struct page *p = &r->pages[slots[i]];

		looks[i] = LOOK_STORE;
		if (p->state == PAGE_GRANTED && (p->flags & PAGE_HOLE) != 0)
			looks[i] = LOOK_ZERO;
		else if (p->state != PAGE_GRANTED || (p->flags & PAGE_CONFIRMED) != 0)
			looks[i] = LOOK_NONE;
	}
	env_unlock(&r->lock);
}

void judge_granted(struct region *r, const uint16_t *slots, size_t count, bool ask, bool *written)
{
	struct space *s = r->object->space;
	enum look looks[REGION_PAGES];
	char *buffer = NULL;

	if (r->object->in_place) { /* the kernel knows, and writes only what is dirty */
		memset(written, true, count * sizeof(*written));
		return;
	}
	looks_choose(r, slots, count, looks);
	for (size_t i = 0; i < count;) {
		size_t n = 1;

		written[i] = true;
		if (looks[i] == LOOK_ZERO) {
			const char *bytes = page_bytes(r, slots[i]);
			written[i] = bytes == NULL || !bytes_are_zero(bytes);
			i++;
			continue;
		}
		if (looks[i] == LOOK_NONE) {
			i++;
			continue;
		}
		while (i + n < count && slots[i + n] == slots[i] + n && looks[i + n] == LOOK_STORE)
			written[i + n++] = true;
		if (buffer == NULL && ask)
			buffer = slab_buffer(s);
		if (buffer != NULL)
			judge_run(r, slots[i], n, buffer, &written[i]);
		i += n;
	}
	if (buffer != NULL)
		slab_buffer_free(s, buffer);
}
