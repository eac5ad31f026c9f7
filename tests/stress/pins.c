/* SPDX-License-Identifier: MIT */
/*
 * pins.c - steps that pin words of the thread's own and write them as a device would, by O_DIRECT
 * reads past the view's protections, and by plain stores. While a page is pinned, and nobody cuts
 * or punches it, no such write is refused; a sync that follows has stored it.
 */
#include "stress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SECTOR_WORDS 64u
#define ROUNDS	     6u

/* A file of no name, and a descriptor that reads it past the page cache; -1: not possible here. */
void direct_open(struct worker *w)
{
	char path[40];

	w->plain = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", w->plain);
	w->direct = w->plain < 0 ? -1 : open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

void direct_close(struct worker *w)
{
	if (w->plain >= 0)
		close(w->plain);
	if (w->direct >= 0)
		close(w->direct);
}

/* Whole sectors of the extent. False: it has none. */
static bool sectors_within(size_t *first, size_t *count)
{
	size_t from = (*first + SECTOR_WORDS - 1) / SECTOR_WORDS * SECTOR_WORDS;
	size_t to = (*first + *count) / SECTOR_WORDS * SECTOR_WORDS;

	if (from >= to)
		return false;
	*first = from;
	*count = to - from;
	return true;
}

/* The thread's pinned words. */
struct pinned {
	struct view *view;
	size_t first, count;
	bool quiet;	/* before it was pinned nobody was about to take a page of it, */
	uint32_t zeros; /* and nobody is while this is the sum of those who began */
};

static uint32_t pinned_zeros(const struct pinned *p)
{
	const struct page_ops *page = p->view->object->model.page;
	uint32_t sum = 0;

	for (size_t i = p->first / PAGE_WORDS; i <= (p->first + p->count - 1) / PAGE_WORDS; i++)
		sum += atomic_load(&page[i].zeros_begun);
	return sum;
}

static void pinned_note(struct pinned *p)
{
	const struct model *m = &p->view->object->model;

	p->zeros = pinned_zeros(p);
	p->quiet = true;
	for (size_t i = p->first / PAGE_WORDS; i <= (p->first + p->count - 1) / PAGE_WORDS; i++)
		p->quiet &= page_is_quiet(m, i);
}

/* It is still pinned: what was pinned is the object's. */
static bool pinned_holds(const struct pinned *p)
{
	return p->quiet && p->zeros == pinned_zeros(p);
}

static void device_write(struct worker *w, const struct pinned *p, size_t first, size_t count)
{
	struct view *v = p->view;
	struct object *o = v->object;
	size_t bytes = count * WORD_BYTES, done;
	struct access_span s;
	ssize_t moved;

	w->seq++;
	for (size_t i = 0; i < count; i++)
		w->buffer[i] = model_value(&o->model, first + i, w->seq);
	REQUIRE_EQ(pwrite(w->plain, w->buffer, bytes, 0), (ssize_t)bytes);
	span_begin(&s, &o->model, worker_handle(w, o), first, count, w->seq);
	moved = syscall(SYS_pread64, w->direct, v->bytes + (first * WORD_BYTES - v->first * PAGE),
			bytes, 0);
	trace(w, o, "pinned O_DIRECT", first, count, moved < 0 ? -errno : moved);
	if (moved != (ssize_t)bytes && pinned_holds(p))
		word_fail(w, o, "pinned O_DIRECT", first, (uint64_t)moved, "it fell short");
	done = moved > 0 ? (size_t)moved / WORD_BYTES : 0;
	for (size_t i = first; i < first + done; i++) {
		const char *complaint = span_stored(&s, i);

		if (complaint != NULL)
			word_fail(w, o, "pinned O_DIRECT", i, 0, complaint);
	}
	for (size_t i = first + done; i < first + count; i++)
		span_unsure(&s, i);
}

/* As it is now the first word is in the store. */
static void pinned_sync(struct worker *w, const struct view *v, size_t word)
{
	struct object *o = v->object;
	uint64_t before, now, stored;
	bool certain = word_is_certain(&o->model, word, &before);
	int error = mkw_sync(worker_handle(w, o), o->model.bias_bytes + word * WORD_BYTES, 1);

	trace(w, o, "pinned sync", word, 1, error);
	if (error != 0 && error != -EBUSY && !error_is_expected(w, o, error))
		stress_fail(w->stress, o, "sync of a pinned page: %s", mkw_error_message());
	if (error == 0 && certain && object_stored(o, word * WORD_BYTES, &stored, 8, false) &&
	    word_is_certain(&o->model, word, &now) && stored != now)
		word_fail(w, o, "pinned sync", word, stored, "the store does not have it");
}

static void pinned_write(struct worker *w, const struct pinned *p)
{
	size_t from = p->first, sectors = p->count;
	int error = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		if (w->direct >= 0 && worker_one_in(w, 2) && sectors_within(&from, &sectors))
			device_write(w, p, from, sectors);
		else
			view_store(w, p->view, p->first, p->count, &error);
		if (error != 0 && pinned_holds(p))
			word_fail(w, p->view->object, "pinned store", p->first, (uint64_t)error,
				  "it was refused");
		if (worker_one_in(w, 3))
			pinned_sync(w, p->view, p->first);
	}
}

void step_pin(struct worker *w)
{
	struct pinned p = {.view = worker_view(w, true)};
	struct mkw_pin *pin;
	struct object *o;
	int error;

	if (p.view == NULL || !worker_extent(w, &p.view->object->model, p.view->first,
					     p.view->pages, PAGE_WORDS, &p.first, &p.count))
		return;
	o = p.view->object;
	atomic_fetch_add(&o->pins_begun, 1);
	pinned_note(&p);
	error = mkw_pin(p.view->bytes + (p.first * WORD_BYTES - p.view->first * PAGE),
			p.count * WORD_BYTES, MKW_WRITE, &pin);
	trace(w, o, "pin", p.first, p.count, error);
	if (error == 0) {
		pinned_write(w, &p);
		REQUIRE_EQ(mkw_unpin(pin), 0);
		trace(w, o, "unpin", p.first, p.count, 0);
	} else if (error != -ENXIO && !error_is_expected(w, o, error)) {
		stress_fail(w->stress, o, "pin: %s", mkw_error_message());
	}
	atomic_fetch_add(&o->pins_ended, 1);
}
