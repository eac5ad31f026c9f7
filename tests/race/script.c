/* SPDX-License-Identifier: MIT */
/*
 * script.c - what the threads of a schedule do: a script is words with blanks between, each a call
 * or an access, some with a number behind. Each knows what it may answer, and tells the model.
 *
 * Numbers wrap at the object's size.
 *
 *   writeN aliasN readN peekN   word N through the first view, the second view
 *   preadN pwriteN              word N by a call
 *   pinN lookN                  pin word N's page by the first view: write twice; only read
 *   clampN unclamp              the two halves of a pin for writing
 *   sync msync flush reclaim    flush, reclaim: wake the library's own threads
 *   keepN                       write word N and sync: the object stays as long as that
 *   shrink cut grow empty       truncate to one page, to the middle of page 0, to all pages, to 0
 *   punchN discardN invalidate  page N
 *   wipe                        punch from the beginning to the end that it has now
 *   reserveN holdN letgoN       page N; reserve is hold and letgo
 *   freeze                      and thaw, and nothing may reach the store between
 *   chill thaw                  the two halves of it
 *   unmap map mapover           the second view; a third one; object 1 where the second view was
 *   flip                        the second view read-only, and writable again
 *   splitN remapN               the first view's page N is protected, mapped, as it was before
 *   other                       a write to object 1 by its own view
 *   close                       the second handle of object 0
 *   quit reopenN                its views and its handle; open it again, read word N, close it
 *   leave                       all views and the handle of object 0: it fails, and is written
 *                               all the same in the end
 *   gripN deviceN ungrip        pin page N of the first view for writing; store to word N as a
 *                               device does, without a translation
 *   wake room                   the store has space again, the limit is lifted
 *   tight                       object 0 may have no more resident than it has now
 *   settle                      wait until nobody else can go on (before the others start)
 *
 * Private views:
 *
 *   mineN seeN                  word N through the first
 *   theirsN spyN                and through the second
 *   dropN outN coldN            page N, by MKW_DONTNEED, MKW_PAGEOUT, MKW_COLD
 *   tossN                       the same as dropN, by the program's own madvise
 *   shake                       the machine takes frames from private views, as when it swaps
 *   ownpinN owndeviceN ownunpin the same of a page of the first
 *   part anew                   unmap the first; and map it again
 *   ro rw move                  forbid writes to the first, allow them; move it
 *   dim bright shift            the same of the second shared view
 */
#include "race.h"
#include "threads.h"

#include <errno.h>
#include <mmu/sim.h>
#include <stdlib.h>
#include <string.h>

/* ---- What may go wrong -------------------------------------------------------------------- */

static void expect(int error, const char *what, bool allowed)
{
	if (error < 0)
		threads_note("%s: %s", what, strerror(-error));
	if (error < 0 && !allowed)
		threads_fail("%s failed: %s: %s", what, strerror(-error), mkw_error_message());
}

static bool access_may_fail(int error)
{
	switch (error) {
	case -ENXIO: /* past the end */
		return world.cuts;
	case -EACCES: /* unmapped, the machine's SIGSEGV */
		return world.unmaps;
	case -ENOSPC:
		return option(world.scenario, "refuse") > 0;
	case -ENOBUFS:
	case -ENOMEM:
		return world.limited;
	case -EAGAIN:
	case -EIO:
		return world.tolerant;
	default:
		return false;
	}
}

static bool call_may_fail(int error)
{
	return (error == -EIO || error == -EAGAIN) ? world.tolerant : access_may_fail(error);
}

/* ---- Accesses ----------------------------------------------------------------------------- */

/* Which object's word is at an address now. */
static struct model *model_at(uintptr_t address, uintptr_t base, unsigned *word, bool *past_end)
{
	const struct frames *frames = sim_frames_of(address);
	uint64_t offset = address - base;

	*word = (unsigned)(offset / MKW_PAGE_SIZE) * 2 + (offset % MKW_PAGE_SIZE >= TAIL);
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct object *o = world.objects[i];

		if (o == NULL || o->frames != frames)
			continue;
		*past_end = offset >= atomic_load_explicit(&o->size_bytes, memory_order_relaxed);
		return &world.models[i];
	}
	threads_fail("an access reached no object");
}

struct store {
	uintptr_t address, base;
	uint64_t value;
};

static void committed(void *arg)
{
	const struct store *s = arg;
	struct race_view *v;
	struct model *m;
	unsigned word;
	bool past_end;

	m = model_at(s->address, s->base, &word, &past_end);
	if (private_at(s->address, &v))
		private_commit(v, word, s->value);
	else
		model_commit(m, word, s->value, past_end);
	threads_note("wrote %llu to word %u", (unsigned long long)s->value, word);
}

static void reports_check(void)
{
	if (sim_reports() > world.reports_max)
		threads_fail("one access was reported %u times", sim_reports());
}

static int write_word(unsigned view, unsigned word)
{
	struct store s = {.base = world.views[view].address, .value = ++world.next_value};
	int error;

	s.address = s.base + word_offset(word);
	error = sim_store(s.address, s.value, committed, &s, NULL);
	expect(error, "a write", access_may_fail(error));
	reports_check();
	return error;
}

static void read_word(unsigned view, unsigned word)
{
	uintptr_t base = world.views[view].address, address = base + word_offset(word);
	struct race_view *v;
	struct model *m;
	uint64_t value;
	bool past_end;
	int error = sim_load(address, &value, NULL);

	if (error == 0) {
		m = model_at(address, base, &word, &past_end);
		threads_note("read %llu from word %u", (unsigned long long)value, word);
		if (private_at(address, &v))
			private_read(v, word, value);
		else
			model_read(m, word, value);
	}
	expect(error, "a read", access_may_fail(error));
	reports_check();
}

static void do_write(unsigned n)
{
	write_word(0, n);
}

static void do_alias(unsigned n)
{
	write_word(1, n);
}

static void do_read(unsigned n)
{
	read_word(0, n);
}

static void do_peek(unsigned n)
{
	read_word(1, n);
}

static void do_pwrite(unsigned n)
{
	uint64_t value = ++world.next_value;
	uint64_t begun = model_call(&world.models[0], n, value);
	ssize_t done = mkw_pwrite(world.handles[0], &value, sizeof(value), word_offset(n));

	model_call_end(&world.models[0], n, value, begun, done == (ssize_t)sizeof(value));
	expect((int)done, "pwrite", call_may_fail((int)done));
}

static void do_pread(unsigned n)
{
	uint64_t value = 0;
	ssize_t done = mkw_pread(world.handles[0], &value, sizeof(value), word_offset(n));

	expect((int)done, "pread", call_may_fail((int)done));
	if (done != (ssize_t)sizeof(value) && done >= 0 && !world.cuts)
		threads_fail("pread moved %zd bytes", done);
}

static struct mkw_pin *pin_word(unsigned n, unsigned access)
{
	struct mkw_pin *pin = NULL;
	int error = mkw_pin((void *)(world.views[0].address + word_offset(n)), sizeof(uint64_t),
			    access, &pin);

	expect(error, "pin", call_may_fail(error));
	return pin;
}

/* Who has it pinned writes at any time; that nobody is asked then is not said: the page may be cut
 * off, and another one there. */
static void do_pin(unsigned n)
{
	struct mkw_pin *pin = pin_word(n, MKW_WRITE);

	if (pin == NULL)
		return;
	write_word(0, n);
	write_word(0, n);
	expect(mkw_unpin(pin), "unpin", false);
}

static void do_clamp(unsigned n)
{
	world.pin = pin_word(n, MKW_WRITE);
}

static void do_unclamp(unsigned n)
{
	struct mkw_pin *pin = world.pin;

	(void)n;
	world.pin = NULL;
	if (pin != NULL)
		expect(mkw_unpin(pin), "unpin", false);
}

static void do_look(unsigned n)
{
	struct mkw_pin *pin = pin_word(n, MKW_READ);

	if (pin == NULL)
		return;
	read_word(0, n);
	expect(mkw_unpin(pin), "unpin", false);
}

static void do_other(unsigned n)
{
	write_word(3, n);
}

static void do_mine(unsigned n)
{
	write_word(PRIVATE_VIEW, n);
}

static void do_see(unsigned n)
{
	read_word(PRIVATE_VIEW, n);
}

static void do_theirs(unsigned n)
{
	write_word(PRIVATE_VIEW + 1, n);
}

static void do_spy(unsigned n)
{
	read_word(PRIVATE_VIEW + 1, n);
}

/* ---- Calls -------------------------------------------------------------------------------- */

/* All that was there when it began, or something later, is durable when it has returned 0. */
static void durable_check(uint64_t begun)
{
	const struct race_store *s = &world.stores[0];
	uint64_t size = mkw_size(world.handles[0]);

	for (unsigned w = 0; w < WORDS; w++)
		if (word_offset(w) < size && !model_had(&world.models[0], w, s->durable[w], begun))
			threads_fail("sync returned 0 and word %u is %llu in the store, which is "
				     "older",
				     w, (unsigned long long)s->durable[w]);
}

/* What the store was told before it began is durable: sizes and holes too. */
static void changes_check(const unsigned *changes)
{
	for (unsigned w = 0; w < WORDS; w++)
		if (world.stores[0].synced[w] < changes[w])
			threads_fail("sync returned 0 and a change of word %u is not durable", w);
}

static void do_sync(unsigned n)
{
	uint64_t begun = model_now();
	unsigned changes[WORDS];
	int error;

	(void)n;
	memcpy(changes, world.stores[0].changes, sizeof(changes));
	error = mkw_sync(world.handles[0], 0, 0);
	if (error == 0) {
		durable_check(begun);
		changes_check(changes);
	}
	expect(error, "sync",
	       (error == -EBUSY && world.freezes && world.pins) || call_may_fail(error));
}

/* Nobody shortens the object on purpose. */
static void do_keep(unsigned n)
{
	if (write_word(0, n) != 0)
		return;
	do_sync(0);
	world.size_least = word_offset(n) + sizeof(uint64_t);
}

static void do_msync(unsigned n)
{
	uint64_t begun = model_now();
	int error = mkw_msync((void *)world.views[0].address, world.pages * MKW_PAGE_SIZE);

	(void)n;
	if (error == 0)
		durable_check(begun);
	expect(error, "msync",
	       (error == -EBUSY && world.freezes && world.pins) || call_may_fail(error));
}

static void do_flush(unsigned n)
{
	(void)n;
	flusher_kick(space_of(world.space));
}

static void do_reclaim(unsigned n)
{
	(void)n;
	reclaimer_kick(space_of(world.space));
}

static void resize(uint64_t size_bytes, const char *what)
{
	struct model *m = &world.models[0];
	uint64_t begun[WORDS], from = mkw_size(world.handles[0]);
	int error;

	from = from < size_bytes ? from : size_bytes;
	for (unsigned w = 0; w < WORDS; w++)
		if (word_offset(w) >= from)
			begun[w] = model_call(m, w, 0);
	error = mkw_truncate(world.handles[0], size_bytes);
	for (unsigned w = 0; w < WORDS; w++)
		if (word_offset(w) >= from)
			model_call_end(m, w, 0, begun[w], error == 0);
	expect(error, what,
	       (error == -EBUSY && (world.freezes || world.pins)) || call_may_fail(error));
}

static void do_shrink(unsigned n)
{
	(void)n;
	resize(MKW_PAGE_SIZE, "shrink");
}

static void do_cut(unsigned n)
{
	(void)n;
	resize(MKW_PAGE_SIZE / 2, "cut");
}

static void do_grow(unsigned n)
{
	(void)n;
	resize((uint64_t)world.pages * MKW_PAGE_SIZE, "grow");
}

static void do_empty(unsigned n)
{
	(void)n;
	resize(0, "empty");
}

/* A call after which page n's words are what it leaves. */
static void change_page(unsigned n, const uint64_t *left,
			int (*call)(struct mkw_handle *, uint64_t, uint64_t), const char *what)
{
	struct model *m = &world.models[0];
	uint64_t begun[2];
	int error;

	for (unsigned k = 0; k < 2; k++)
		begun[k] = model_call(m, 2 * n + k, left[k]);
	error = call(world.handles[0], (uint64_t)n * MKW_PAGE_SIZE, MKW_PAGE_SIZE);
	/* Write-back may have gone on when a discard began: it leaves that, from then on. */
	for (unsigned k = 0; k < 2 && call == mkw_discard && error == 0; k++)
		if (world.stores[0].bytes[2 * n + k] != left[k])
			model_call(m, 2 * n + k, world.stores[0].bytes[2 * n + k]);
	/* Of a page past the end nothing is said: it may be about to be cut off. */
	for (unsigned k = 0; k < 2; k++)
		model_call_end(m, 2 * n + k, left[k], begun[k],
			       error == 0 && mkw_size(world.handles[0]) > word_offset(2 * n));
	expect(error, what,
	       (error == -EBUSY && (world.freezes || world.pins)) || call_may_fail(error));
}

static void do_punch(unsigned n)
{
	static const uint64_t zeros[2];

	change_page(n, zeros, mkw_punch, "punch");
}

/* Punches what there is, to the end of the object as it is now. */
static void do_wipe(unsigned n)
{
	struct model *m = &world.models[0];
	uint64_t begun[WORDS], size = mkw_size(world.handles[0]);
	int error;

	(void)n;
	for (unsigned w = 0; w < WORDS; w++)
		if (word_offset(w) < size)
			begun[w] = model_call(m, w, 0);
	error = mkw_punch(world.handles[0], 0, size);
	for (unsigned w = 0; w < WORDS; w++)
		if (word_offset(w) < size)
			model_call_end(m, w, 0, begun[w],
				       error == 0 && mkw_size(world.handles[0]) > word_offset(w));
	expect(error, "wipe",
	       (error == -EBUSY && (world.freezes || world.pins)) || call_may_fail(error));
}

static void do_discard(unsigned n)
{
	uint64_t left[2];

	memcpy(left, &world.stores[0].bytes[2 * n], sizeof(left));
	change_page(n, left, mkw_discard, "discard");
}

static void do_invalidate(unsigned n)
{
	int error = mkw_invalidate(world.handles[0], 0, (uint64_t)world.pages * MKW_PAGE_SIZE);

	(void)n;
	expect(error, "invalidate", error == -EBUSY || call_may_fail(error));
}

static void do_hold(unsigned n)
{
	void *page = (void *)(world.views[0].address + (uintptr_t)n * MKW_PAGE_SIZE);
	int error = mkw_reserve(page, MKW_PAGE_SIZE);

	expect(error, "reserve", call_may_fail(error));
}

static void do_letgo(unsigned n)
{
	void *page = (void *)(world.views[0].address + (uintptr_t)n * MKW_PAGE_SIZE);

	expect(mkw_unreserve(page, MKW_PAGE_SIZE), "unreserve", false);
}

static void do_reserve(unsigned n)
{
	do_hold(n);
	do_letgo(n);
}

static void do_freeze(unsigned n)
{
	struct race_store *s = &world.stores[0];
	uint64_t begun = model_now(), bytes[WORDS];
	int error = mkw_freeze(world.handles[0]);

	(void)n;
	expect(error, "freeze", call_may_fail(error));
	if (error != 0)
		return;
	durable_check(begun);
	memcpy(bytes, s->bytes, sizeof(bytes));
	thread_step("looks at the frozen store", NULL, 0, NULL, NULL);
	if (memcmp(bytes, s->bytes, sizeof(bytes)) != 0 ||
	    memcmp(bytes, s->durable, sizeof(bytes)) != 0)
		threads_fail("the store of a frozen object changed (4.5)");
	expect(mkw_thaw(world.handles[0]), "thaw", false);
}

static void do_chill(unsigned n)
{
	(void)n;
	expect(mkw_freeze(world.handles[0]), "freeze", false);
}

static void do_flip(unsigned n)
{
	void *view = (void *)world.views[1].address;
	int error = mkw_protect(view, world.pages * MKW_PAGE_SIZE, MKW_READ);

	(void)n;
	expect(error, "protect", error == -ENOMEM && world.unmaps);
	error = mkw_protect(view, world.pages * MKW_PAGE_SIZE, MKW_WRITE);
	expect(error, "protect", error == -ENOMEM && world.unmaps);
}

static void *page_of_view(unsigned n)
{
	return (void *)(world.views[0].address + word_offset(n) / MKW_PAGE_SIZE * MKW_PAGE_SIZE);
}

static void do_split(unsigned n)
{
	expect(mkw_protect(page_of_view(n), MKW_PAGE_SIZE, MKW_WRITE), "protect", false);
}

static void do_remap(unsigned n)
{
	expect(mkw_remap_pages(page_of_view(n), MKW_PAGE_SIZE,
			       word_offset(n) / MKW_PAGE_SIZE * MKW_PAGE_SIZE),
	       "remap", false);
}

static void do_thaw(unsigned n)
{
	(void)n;
	expect(mkw_thaw(world.handles[0]), "thaw", false);
}

static void unmap_view(unsigned view)
{
	struct race_view *v = &world.views[view];

	v->mapped = false;
	expect(mkw_unmap((void *)v->address, world.pages * MKW_PAGE_SIZE), "unmap", false);
}

static void do_unmap(unsigned n)
{
	(void)n;
	unmap_view(1);
}

static void map_view(unsigned view, unsigned object)
{
	expect(view_make(view, object), "map", false);
}

static void do_map(unsigned n)
{
	map_view(n, n == 3);
}

static void do_mapover(unsigned n)
{
	uintptr_t before = world.views[1].address;

	do_unmap(0);
	map_view(3, 1);
	threads_note("object 1 is %s object 0 was",
		     world.views[3].address == before ? "where" : "not where");
	write_word(3, n);
	read_word(3, n);
}

/* ---- Private views ------------------------------------------------------------------------ */

/* What was there when it began is gone; what was written since may be there. */
static void do_drop(unsigned n)
{
	struct race_view *v = &world.views[PRIVATE_VIEW];
	uint64_t serial = v->serial;
	unsigned made = v->made[n];
	int error;

	v->dropping[n]++;
	error = mkw_advise((void *)(v->address + (uintptr_t)n * MKW_PAGE_SIZE), MKW_PAGE_SIZE,
			   MKW_DONTNEED);
	expect(error, "drop", error == -ENOMEM && world.unmaps);
	private_observe();
	if (v->serial != serial)
		return; /* mapped anew meanwhile */
	v->dropping[n]--;
	/* A pinned page stays. */
	if (error == 0 && v->mapped && v->own[n] && v->made[n] == made &&
	    !script_has(world.scenario, "ownpin"))
		threads_fail("page %u of a private view was dropped, and it still has it", n);
}

static void do_toss(unsigned n)
{
	struct race_view *v = &world.views[PRIVATE_VIEW];

	if (sim_toss(v->address + (uintptr_t)n * MKW_PAGE_SIZE))
		v->own[n] = false;
}

static void advise(unsigned n, enum mkw_advice advice)
{
	void *page = (void *)(world.views[PRIVATE_VIEW].address + (uintptr_t)n * MKW_PAGE_SIZE);
	int error = mkw_advise(page, MKW_PAGE_SIZE, advice);

	expect(error, "advise", error == -ENOMEM && world.unmaps);
}

static void do_out(unsigned n)
{
	advise(n, MKW_PAGEOUT);
}

static void do_cold(unsigned n)
{
	advise(n, MKW_COLD);
}

static void do_shake(unsigned n)
{
	(void)n;
	sim_shake(world.objects[0]->frames);
}

static void do_part(unsigned n)
{
	(void)n;
	unmap_view(PRIVATE_VIEW);
}

static void do_anew(unsigned n)
{
	do_part(n);
	map_view(PRIVATE_VIEW, 0);
}

/* ---- Views that change -------------------------------------------------------------------- */

static void protect(unsigned view, unsigned protection)
{
	int error = mkw_protect((void *)world.views[view].address, world.pages * MKW_PAGE_SIZE,
				protection);

	expect(error, "protect", error == -ENOMEM && world.unmaps);
}

/* It grows where there is no room for that, and shrinks again. */
static void move(unsigned view)
{
	const size_t length = world.pages * MKW_PAGE_SIZE, more = length + 2 * MKW_PAGE_SIZE;
	struct race_view *v = &world.views[view];
	void *address = (void *)v->address;
	int error;

	v->mapped = false;
	error = mkw_remap((void *)v->address, length, more, MKW_MAYMOVE, &address);
	expect(error, "move", false);
	error = mkw_remap(address, more, length, 0, &address);
	expect(error, "shrink what was moved", false);
	v->address = (uintptr_t)address;
	v->mapped = true;
	/* What was cut off meanwhile, and has grown again, nobody has seen go. */
	for (unsigned page = 0; page < PAGES; page++)
		v->dropping[page] += world.cuts;
	private_observe();
	for (unsigned page = 0; page < PAGES; page++)
		v->dropping[page] -= world.cuts;
}

static void do_ro(unsigned n)
{
	(void)n;
	protect(PRIVATE_VIEW, MKW_READ);
}

static void do_rw(unsigned n)
{
	(void)n;
	protect(PRIVATE_VIEW, MKW_READ | MKW_WRITE);
}

static void do_move(unsigned n)
{
	(void)n;
	move(PRIVATE_VIEW);
}

static void do_dim(unsigned n)
{
	(void)n;
	protect(1, MKW_READ);
}

static void do_bright(unsigned n)
{
	(void)n;
	protect(1, MKW_READ | MKW_WRITE);
}

static void do_shift(unsigned n)
{
	(void)n;
	move(1);
}

/* ---- Devices ------------------------------------------------------------------------------ */

static void device_begin(struct device *d, unsigned view, unsigned page)
{
	struct race_view *v = &world.views[view];
	uintptr_t address = v->address + (uintptr_t)page * MKW_PAGE_SIZE;
	struct mkw_pin *p;
	int error;

	error = mkw_pin((void *)address, MKW_PAGE_SIZE, MKW_WRITE, &p);
	expect(error, "pin", call_may_fail(error) || (error == -ENOMEM && world.unmaps));
	if (error == 0 && d->pin != NULL)
		expect(mkw_unpin(p), "unpin", false); /* it has another */
	if (error != 0 || d->pin != NULL)
		return;
	d->pin = p;
	d->hold = sim_hold_at(address);
	d->made = v->made[page];
}

/* It stores to the page that it has hold of, whatever the views show by now. */
static void device_store(struct device *d, unsigned word, bool private)
{
	struct race_view *v = private ? &world.views[PRIVATE_VIEW] : NULL;
	uint64_t value = ++world.next_value;
	uintptr_t address;
	char *bytes;

	if (d->pin == NULL)
		return;
	thread_step("the device stores", NULL, word, NULL, NULL);
	bytes = d->pin != NULL ? sim_held(&d->hold, &address) : NULL;
	if (bytes == NULL) {
		private_observe();
		if (private && d->pin != NULL && v->mapped && v->own[word / 2] &&
		    v->made[word / 2] == d->made && !private_may_go(v, word / 2))
			threads_fail("a pinned page of a private view is another one (S3.1)");
		return;
	}
	memcpy(bytes + (word % 2) * TAIL, &value, sizeof(value));
	threads_note("the device wrote %llu to word %u", (unsigned long long)value, word);
	if (!private)
		model_commit(&world.models[0], word, value,
			     word_offset(word) >= world.objects[0]->size_bytes);
	else if (private_at(address, &v))
		private_commit(v, word, value);
}

void device_end(struct device *d)
{
	struct mkw_pin *p = d->pin;

	d->pin = NULL;
	if (p != NULL)
		expect(mkw_unpin(p), "unpin", false);
}

static void do_grip(unsigned n)
{
	device_begin(&world.devices[0], 0, n);
}

static void do_device(unsigned n)
{
	device_store(&world.devices[0], n, false);
}

static void do_ungrip(unsigned n)
{
	(void)n;
	device_end(&world.devices[0]);
}

static void do_ownpin(unsigned n)
{
	device_begin(&world.devices[1], PRIVATE_VIEW, n);
}

static void do_owndevice(unsigned n)
{
	device_store(&world.devices[1], n, true);
}

static void do_ownunpin(unsigned n)
{
	(void)n;
	device_end(&world.devices[1]);
}

/* ---- Handles ------------------------------------------------------------------------------ */

static void do_close(unsigned n)
{
	struct mkw_handle *h = world.second;
	int error;

	(void)n;
	world.second = NULL;
	error = mkw_close(h);
	expect(error, "close", call_may_fail(error));
}

/* The last of object 0: views, then the handle. True: it could not be written. */
static bool quit(void)
{
	struct mkw_handle *h = world.handles[0];
	int error;

	for (unsigned i = 0; i < 2; i++) {
		world.views[i].mapped = false;
		expect(mkw_unmap((void *)world.views[i].address, world.pages * MKW_PAGE_SIZE),
		       "unmap", false);
	}
	world.handles[0] = NULL;
	error = mkw_close(h);
	expect(error, "close", call_may_fail(error));
	return error != 0;
}

static void do_quit(unsigned n)
{
	(void)n;
	quit();
}

/* Nobody opens it again: what could not be written stays in the space, which writes it. */
static void do_leave(unsigned n)
{
	(void)n;
	world.left = quit();
}

/* Open the storage of object 0, read a word, close it. */
static void do_reopen(unsigned n)
{
	struct mkw_handle *h;
	uint64_t value = 0;
	int error = mkw_open(world.space, "race:0", MKW_RDWR, &h);

	expect(error, "open", call_may_fail(error));
	if (error != 0)
		return;
	error = (int)mkw_pread(h, &value, sizeof(value), word_offset(n));
	expect(error, "pread", call_may_fail(error));
	if (error == (int)sizeof(value))
		model_read(&world.models[0], n, value);
	error = mkw_close(h);
	expect(error, "close", call_may_fail(error));
}

static void do_wake(unsigned n)
{
	(void)n;
	world.stores[0].refuse = 0;
	mkw_object_wake(object_public(world.objects[0]));
}

static void do_room(unsigned n)
{
	(void)n;
	expect(mkw_set_limits(world.handles[0], 0, 0), "set_limits", false);
}

static void do_tight(unsigned n)
{
	uint64_t resident = world.objects[0]->account.resident;

	(void)n;
	expect(mkw_set_limits(world.handles[0], resident * MKW_PAGE_SIZE, 0), "set_limits", false);
}

static void do_settle(unsigned n)
{
	(void)n;
	threads_settle();
}

/* ---- Scripts ------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	void (*fn)(unsigned n);
	bool pages; /* its number is a page's, not a word's */
} verbs[] = {
	{"write", do_write, false},
	{"alias", do_alias, false},
	{"read", do_read, false},
	{"peek", do_peek, false},
	{"pread", do_pread, false},
	{"pwrite", do_pwrite, false},
	{"sync", do_sync, false},
	{"msync", do_msync, false},
	{"flush", do_flush, false},
	{"reclaim", do_reclaim, false},
	{"shrink", do_shrink, false},
	{"cut", do_cut, false},
	{"grow", do_grow, false},
	{"punch", do_punch, true},
	{"discard", do_discard, true},
	{"invalidate", do_invalidate, false},
	{"reserve", do_reserve, true},
	{"hold", do_hold, true},
	{"letgo", do_letgo, true},
	{"freeze", do_freeze, false},
	{"chill", do_chill, false},
	{"thaw", do_thaw, false},
	{"unmap", do_unmap, false},
	{"map", do_map, false},
	{"mapover", do_mapover, false},
	{"other", do_other, false},
	{"quit", do_quit, false},
	{"reopen", do_reopen, false},
	{"close", do_close, false},
	{"wake", do_wake, false},
	{"room", do_room, false},
	{"keep", do_keep, false},
	{"wipe", do_wipe, false},
	{"empty", do_empty, false},
	{"leave", do_leave, false},
	{"mine", do_mine, false},
	{"see", do_see, false},
	{"theirs", do_theirs, false},
	{"spy", do_spy, false},
	{"drop", do_drop, true},
	{"toss", do_toss, true},
	{"shake", do_shake, false},
	{"part", do_part, false},
	{"anew", do_anew, false},
	{"ro", do_ro, false},
	{"rw", do_rw, false},
	{"move", do_move, false},
	{"dim", do_dim, false},
	{"bright", do_bright, false},
	{"shift", do_shift, false},
	{"grip", do_grip, true},
	{"device", do_device, false},
	{"ungrip", do_ungrip, false},
	{"ownpin", do_ownpin, true},
	{"owndevice", do_owndevice, false},
	{"ownunpin", do_ownunpin, false},
	{"out", do_out, true},
	{"cold", do_cold, true},
	{"tight", do_tight, false},
	{"settle", do_settle, false},
	{"pin", do_pin, false},
	{"look", do_look, false},
	{"clamp", do_clamp, false},
	{"unclamp", do_unclamp, false},
	{"flip", do_flip, false},
	{"split", do_split, true},
	{"remap", do_remap, true},
};

void script_look(unsigned view, unsigned word)
{
	read_word(view, word);
}

void script_run(const char *script)
{
	while (script != NULL && *script != '\0') {
		size_t length = strcspn(script, " "), letters = strcspn(script, " 0123456789");
		bool found = false;

		for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs) && !found; i++) {
			if (strlen(verbs[i].name) != letters ||
			    strncmp(verbs[i].name, script, letters) != 0)
				continue;
			found = true;
			threads_note("%.*s", (int)length, script);
			verbs[i].fn((unsigned)strtoul(script + letters, NULL, 10) %
				    (verbs[i].pages ? world.pages : 2 * world.pages));
			private_observe();
		}
		if (!found)
			threads_fail("no such verb: %.*s", (int)length, script);
		script += length;
		script += strspn(script, " ");
	}
}

static bool has_word(const char *script, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = script; at != NULL && (at = strstr(at, word)) != NULL; at += length)
		if ((at == script || at[-1] == ' ') && strchr(" 0123456789=", at[length]) != NULL)
			return true;
	return false;
}

bool script_has(const struct scenario *s, const char *word)
{
	bool found = has_word(s->before, word);

	for (unsigned i = 0; i < PROGRAMS_MAX; i++)
		found |= has_word(s->programs[i], word);
	return found;
}

unsigned option(const struct scenario *s, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = s->options; at != NULL && (at = strstr(at, name)) != NULL; at++) {
		if ((at != s->options && at[-1] != ' ') || strchr("= ", at[length]) == NULL)
			continue;
		return at[length] == '=' ? (unsigned)strtoul(at + length + 1, NULL, 10) : 1;
	}
	return 0;
}
