/* SPDX-License-Identifier: MIT */
/*
 * writeback.c - cleaning pages (contract 6).
 *
 *   under views_lock, region->lock:  lock the pages; protect them in every view (I3)
 *   no lock, pages locked:           judge what was granted ahead; give unused grants back
 *   under region->lock:              WRITEBACK or CLEAN; page locks go
 *   no lock:                         writepages
 *   under region->lock:              CLEAN, or DIRTY again and the error recorded
 *
 * A batch is what one region has. Readers run on all the time; a writer of the page waits for its
 * end (stable pages: 6.4, I4). Pages in a range op, locked, or asked for are somebody else's: a
 * sync waits for them, anybody else goes on.
 *
 * Pages that are pinned for writing are never protected and never clean. A sync writes them from a
 * copy, which it takes after it began: all that was written before is in it, and what a device or
 * anybody else writes later is for a later sync, or for write-back after the last pin. Writers need
 * not wait meanwhile. In the background, and for reclaim, they are left alone: nothing would come
 * of it.
 *
 * While an object is still (frozen, and written) nothing more of it is written: the bytes of the
 * store are one state.
 */
#include "vm.h"

#include <errno.h>
#include <string.h>

struct batch {
	struct region *region;
	size_t count;
	uint16_t slots[REGION_PAGES];
	bool written[REGION_PAGES];
};

/* ---- Choosing ----------------------------------------------------------------------------- */

enum obstacle {
	OBSTACLE_NONE,
	OBSTACLE_PAGE,
	OBSTACLE_RANGE_OP,
	OBSTACLE_CALL,
	OBSTACLE_STILL,
	OBSTACLE_UNASKED,
	OBSTACLE_MORE /* none, but the batch is full */
};

#define CALL_POLL_NS 1000000u

/* What a pass over a region is for. */
struct pass {
	enum mkw_wb_reason reason;
	bool grants_only; /* give back unused grants; write nothing */
	bool freeze;	  /* it is what makes the object still */
	bool frozen;	  /* whatever is left of a still object is right */
};

static bool page_concerned(const struct page *p, const struct pass *pass)
{
	if (pass->grants_only)
		return p->state == PAGE_GRANTED;
	if (pass->reason == MKW_WB_SYNC)
		return page_is_charged(p) && (p->flags & PAGE_TOWRITE) != 0;
	/* What the store was not asked for it may refuse: a sync can tell that to somebody. */
	return page_is_charged(p) && p->write_pins == 0 && (p->flags & PAGE_UNASKED) == 0;
}

/* => region->lock held. Lock what is concerned in slots [from, to); what is pinned for writing is
 * not locked but copied. The store is to be asked first for what is PAGE_UNASKED; refused[slot]: it
 * was. */
static enum obstacle batch_collect(struct batch *b, struct batch *copies, size_t from, size_t to,
				   const struct pass *pass, const bool *refused)
{
	struct region *r = b->region;
	enum obstacle obstacle = OBSTACLE_NONE;
	bool unasked = false;

	b->count = copies->count = 0;
	if (r->charged == 0)
		return OBSTACLE_NONE;
	for (size_t i = from; i < to; i++) {
		struct page *p = &r->pages[i];
		if (!page_concerned(p, pass))
			continue;
		/* Looked at here: what was begun before, a freeze waits for. */
		if (atomic_load(&r->object->still) && !pass->freeze)
			return OBSTACLE_STILL;
		if (object_in_range_op(r->object, r->first + i)) {
			obstacle = OBSTACLE_RANGE_OP;
		} else if (p->state == PAGE_WRITEBACK || (p->flags & PAGE_LOCKED) != 0 ||
			   p->ask != 0 || p->copy != COPY_NONE) {
			if (obstacle == OBSTACLE_NONE || obstacle == OBSTACLE_MORE)
				obstacle = OBSTACLE_PAGE;
		} else if ((p->flags & PAGE_UNASKED) != 0 && !refused[i]) {
			unasked = true;
		} else if (p->write_pins == 0) {
			page_lock(r, i);
			b->slots[b->count++] = (uint16_t)i;
		} else if (copies->count < FILL_PAGES_MAX) {
			page_copy_begin(r, i);
			copies->slots[copies->count++] = (uint16_t)i;
		} else if (obstacle == OBSTACLE_NONE) {
			obstacle = OBSTACLE_MORE;
		}
	}
	return unasked ? OBSTACLE_UNASKED : obstacle;
}

/* ---- Cleaning ----------------------------------------------------------------------------- */

static void batch_unlock(struct batch *b)
{
	struct region *r = b->region;

	for (size_t i = 0; i < b->count; i++)
		page_unlock(r, b->slots[i]);
	waiters_wake(&r->waiters);
}

/* Give reservations of unused grants back, still under the page locks: nobody can ask anew. */
static void batch_unreserve(const struct batch *b)
{
	struct region *r = b->region;
	bool give[REGION_PAGES];

	env_lock(&r->lock);
	for (size_t i = 0; i < b->count; i++)
		give[i] = !b->written[i] && (r->pages[b->slots[i]].flags & PAGE_HELD) == 0;
	env_unlock(&r->lock);
	for (size_t i = 0; i < b->count;) {
		size_t n = 0;
		while (i + n < b->count && give[i + n] && b->slots[i + n] == b->slots[i] + n)
			n++;
		if (n > 0)
			op_unreserve(r->object, r->first + b->slots[i], n);
		i += n > 0 ? n : 1;
	}
}

/* => region->lock held. From locked to WRITEBACK or CLEAN; b keeps what is to be written. Returns
 * how many pages turned out unwritten. */
static size_t batch_start(struct batch *b, const struct pass *pass)
{
	struct region *r = b->region;
	size_t kept = 0, unwritten = 0;

	for (size_t i = 0; i < b->count; i++) {
		enum page_event event = PAGE_UNWRITTEN;
		uint8_t again;

		if (b->written[i])
			event = pass->grants_only ? PAGE_WRITE : PAGE_START;
		unwritten += event == PAGE_UNWRITTEN;
		page_unlock(r, b->slots[i]);
		again = r->pages[b->slots[i]].flags & PAGE_ASK_AGAIN;
		page_change(r, b->slots[i], event);
		if (event == PAGE_WRITE) /* the question that was to come again still is */
			r->pages[b->slots[i]].flags |= again;
		if (event == PAGE_START)
			b->slots[kept++] = b->slots[i];
	}
	b->count = kept;
	waiters_wake(&r->waiters);
	return unwritten;
}

/* In place the store has them where they are: NULL. */
static const void *batch_data(const struct batch *b, const char *copy, size_t i, uint64_t length)
{
	const struct region *r = b->region;

	if (r->object->in_place)
		return NULL;
	return copy != NULL ? copy + i * MKW_PAGE_SIZE
			    : frames_data(r->object->frames, (r->first + b->slots[i]) << PAGE_SHIFT,
					  length);
}

/* The bytes of the batch's pages: in the frames, or one after the other in copy. */
static size_t batch_runs(const struct batch *b, const char *copy, struct mkw_wb_run *runs)
{
	const struct region *r = b->region;
	uint64_t size = r->object->size_bytes;
	size_t n = 0;

	for (size_t i = 0; i < b->count;) {
		size_t pages = 1;
		uint64_t start = (r->first + b->slots[i]) << PAGE_SHIFT, length;

		while (i + pages < b->count && b->slots[i + pages] == b->slots[i] + pages &&
		       (r->object->ops->run_max_pages == 0 ||
			pages < r->object->ops->run_max_pages))
			pages++;
		length = (uint64_t)pages << PAGE_SHIFT;
		runs[n++] = (struct mkw_wb_run){
			.first = r->first + b->slots[i],
			.count = pages,
			.data = batch_data(b, copy, i, length),
			.length_bytes =
				start + length <= size ? length : (size > start ? size - start : 0),
		};
		i += pages;
	}
	return n;
}

/* Call the store; results are errnos or 0 afterwards, whatever it returned. */
static void runs_write(struct object *o, struct mkw_wb_run *runs, size_t count,
		       enum mkw_wb_reason reason)
{
	struct mkw_writeback wb = {.reason = reason, .count = count, .runs = runs};
	int all = 0;

	for (size_t i = 0; i < count && !o->in_place; i++)
		if (runs[i].data == NULL)
			all = -ENOMEM;
	if (all == 0)
		all = op_writepages(o, &wb);
	for (size_t i = 0; i < count; i++) {
		if (all != 0)
			runs[i].result = all;
		else if (runs[i].result > 0)
			runs[i].result = -EIO;
	}
	COUNT(o, writes, count);
}

/* => region->lock held. Returns the pages that are in the store now: clean, unless it was a copy.
 */
static size_t runs_end(struct region *r, const struct mkw_wb_run *runs, size_t count, bool copied,
		       enum mkw_wb_reason reason, struct writeback_result *result)
{
	size_t clean = 0;

	for (size_t i = 0; i < count; i++) {
		int error = runs[i].result;
		for (uint64_t page = runs[i].first; page < runs[i].first + runs[i].count; page++) {
			size_t slot = page & (REGION_PAGES - 1);
			r->pages[slot].error = (uint16_t)(error == -EAGAIN ? 0 : -error);
			if (copied) {
				page_copy_end(r, slot, error == 0);
				continue;
			}
			page_change(r, slot, error == 0 ? PAGE_END : PAGE_FAIL);
			/* One try a sync; what failed in the background a sync tries itself. */
			if (reason == MKW_WB_SYNC)
				r->pages[slot].flags &= (uint8_t)~PAGE_TOWRITE;
		}
		if (error == 0)
			clean += runs[i].count;
		else if (result->error == 0 || (result->error == -EAGAIN && error != -EAGAIN))
			result->error = error;
	}
	waiters_wake(&r->waiters);
	return clean;
}

/* => region->lock held. */
static void runs_record_errors(struct object *o, const struct mkw_wb_run *runs, size_t count,
			       enum mkw_wb_reason reason)
{
	env_lock(&o->lock);
	for (size_t i = 0; i < count; i++)
		if (runs[i].result == -EAGAIN) {
			o->again_seq += reason == MKW_WB_SYNC;
		} else if (runs[i].result != 0) {
			object_record_error(o, runs[i].result);
			COUNT(o, write_errors, 1);
		}
	env_unlock(&o->lock);
}

/* Pages that a system call may still be storing to stay as they are. True: there were some. */
static bool batch_leave_to_calls(struct batch *b)
{
	struct region *r = b->region;
	size_t kept = 0;

	/* written serves as held: it is filled anew afterwards. */
	if (calls_hold(r, b->slots, b->count, b->written) == 0)
		return false;
	env_lock(&r->lock);
	for (size_t i = 0; i < b->count; i++)
		if (b->written[i])
			page_unlock(r, b->slots[i]);
		else
			b->slots[kept++] = b->slots[i];
	b->count = kept;
	waiters_wake(&r->waiters);
	env_unlock(&r->lock);
	return true;
}

/* What is under write-back, or its copy, goes to the store. => no lock held. */
static void batch_store(const struct batch *b, const char *copy, const struct pass *pass,
			struct writeback_result *result)
{
	struct region *r = b->region;
	struct object *o = r->object;
	struct mkw_wb_run runs[REGION_PAGES];
	size_t count, written;

	charge_writeback(o, (int64_t)b->count, pass->reason);
	count = batch_runs(b, copy, runs);
	runs_write(o, runs, count, pass->reason);
	atomic_store(&o->unsynced, true);
	env_lock(&r->lock);
	/* In one with the pages' end: a sync that began before it sees the error, one that begins
	 * after it tags the page anew. */
	runs_record_errors(o, runs, count, pass->reason);
	/* Under the lock: who finds the page clean finds the account even, and may end the object.
	 */
	written = runs_end(r, runs, count, copy != NULL, pass->reason, result);
	if (copy == NULL)
		uncharge_dirty(o, written);
	env_unlock(&r->lock);
	charge_writeback(o, -(int64_t)b->count, pass->reason);
	COUNT(o, pages_written, written);
	if (copy == NULL)
		result->cleaned += written;
}

/* The locked, protected batch goes to the store. => no lock held. */
static void batch_write(struct batch *b, const struct pass *pass, struct writeback_result *result)
{
	struct region *r = b->region;
	struct object *o = r->object;
	size_t unwritten;

	judge_granted(r, b->slots, b->count, pass->reason != MKW_WB_RECLAIM, b->written);
	batch_unreserve(b);
	env_lock(&r->lock);
	unwritten = batch_start(b, pass);
	uncharge_dirty(o, unwritten);
	env_unlock(&r->lock);
	COUNT(o, pages_unwritten, unwritten);
	result->cleaned += unwritten;
	if (b->count > 0)
		batch_store(b, NULL, pass, result);
}

/* There is no memory for a copy: the pages are as if nobody had tried. Another sync that needs them
 * finds out for itself. */
static void copies_give_up(const struct batch *b, struct writeback_result *result)
{
	struct region *r = b->region;

	env_lock(&r->lock);
	for (size_t i = 0; i < b->count; i++)
		page_copy_cancel(r, b->slots[i]);
	waiters_wake(&r->waiters);
	env_unlock(&r->lock);
	if (result->error == 0 || result->error == -EAGAIN)
		result->error = -ENOMEM;
}

/* => no lock held. The frames stay: whoever would drop them waits for the end of the copy. False:
 * there is no memory, and no use in trying again at once. */
static bool batch_write_copies(const struct batch *b, const struct pass *pass,
			       struct writeback_result *result)
{
	struct object *o = b->region->object;
	char *buffer = slab_buffer(o->space);
	bool complete = buffer != NULL;

	for (size_t i = 0; i < b->count && complete && !o->in_place; i++) {
		const char *bytes = frames_data(
			o->frames, (b->region->first + b->slots[i]) << PAGE_SHIFT, MKW_PAGE_SIZE);
		complete = bytes != NULL;
		if (complete)
			memcpy(buffer + i * MKW_PAGE_SIZE, bytes, MKW_PAGE_SIZE);
	}
	if (complete)
		batch_store(b, buffer, pass, result);
	else
		copies_give_up(b, result);
	if (buffer != NULL)
		slab_buffer_free(o->space, buffer);
	return complete;
}

/* ---- Ranges ------------------------------------------------------------------------------- */

/* => region->lock held, dropped. Sleep until something about it changed. */
static void obstacle_wait(struct region *r, enum obstacle obstacle, struct sleeper *sleeper)
{
	struct object *o = r->object;

	if (obstacle == OBSTACLE_PAGE) {
		list_push_back(&r->waiters, &sleeper->waiter.link);
		env_unlock(&r->lock);
		sleeper_sleep(sleeper);
		return;
	}
	env_unlock(&r->lock);
	env_lock(&o->lock);
	if (obstacle == OBSTACLE_STILL ? !o->freezing : list_empty(&o->range_ops)) {
		env_unlock(&o->lock);
		return;
	}
	list_push_back(&o->waiters, &sleeper->waiter.link);
	env_unlock(&o->lock);
	sleeper_sleep(sleeper);
}

/* Clean pages between those of the batch cost less than a second call would; those that are pinned
 * for writing are left out. => views_lock, region->lock held. */
static int batch_protect(const struct batch *b)
{
	const struct region *r = b->region;
	size_t end = b->count > 0 ? b->slots[b->count - 1] + 1u : 0;
	int error = 0;

	for (size_t i = 0, from, to; i < b->count && error == 0;) {
		from = to = b->slots[i];
		while (to < end && (r->write_pinned == 0 || r->pages[to].write_pins == 0))
			to++;
		error = views_protect(r->object, r->first + from, to - from);
		while (i < b->count && b->slots[i] < to)
			i++;
	}
	return error;
}

/* Lock and protect what is concerned in slots [from, to). region->lock is held on return, unless
 * *error is set: then nothing is. */
static enum obstacle batch_take(struct batch *b, struct batch *copies, size_t from, size_t to,
				const struct pass *pass, const bool *refused, int *error)
{
	struct region *r = b->region;
	struct object *o = r->object;
	enum obstacle obstacle;

	env_read_lock(&o->views_lock);
	env_lock(&r->lock);
	obstacle = batch_collect(b, copies, from, to, pass, refused);
	*error = batch_protect(b);
	if (*error != 0) {
		for (size_t i = 0; i < copies->count; i++)
			page_copy_cancel(r, copies->slots[i]);
		batch_unlock(b);
		env_unlock(&r->lock);
	}
	env_read_unlock(&o->views_lock);
	return obstacle;
}

/* Is the freeze of a still object over, or will it be? => region->lock held. */
static bool obstacle_ends(const struct region *r, enum obstacle obstacle)
{
	bool ends = true;

	if (obstacle == OBSTACLE_STILL) {
		env_lock(&r->object->lock);
		ends = r->object->freezing || !atomic_load(&r->object->still);
		env_unlock(&r->object->lock);
	}
	return ends;
}

static void writeback_region(struct region *r, size_t from, size_t to, const struct pass *pass,
			     struct writeback_result *result)
{
	const bool sync = pass->reason == MKW_WB_SYNC;
	struct batch b = {.region = r}, copies = {.region = r};
	bool refused[REGION_PAGES] = {false};
	enum obstacle obstacle;
	struct sleeper sleeper;
	bool memory = true;
	int error;

	sleeper_init(&sleeper);
	do {
		obstacle = batch_take(&b, &copies, from, to, pass, refused, &error);
		if (error != 0) {
			result->error = result->error != 0 ? result->error : error;
			break;
		}
		if (!obstacle_ends(r, obstacle)) {
			result->still = true;
			obstacle = OBSTACLE_NONE;
		}
		if (b.count + copies.count == 0 && obstacle != OBSTACLE_NONE && sync &&
		    obstacle != OBSTACLE_UNASKED) {
			obstacle_wait(r, obstacle, &sleeper);
			continue;
		}
		env_unlock(&r->lock);
		if (copies.count > 0)
			memory = batch_write_copies(&copies, pass, result);
		if (b.count > 0 && batch_leave_to_calls(&b) && obstacle == OBSTACLE_NONE)
			obstacle = OBSTACLE_CALL;
		if (b.count > 0)
			batch_write(&b, pass, result);
		else if (obstacle == OBSTACLE_CALL && sync)
			env_nap(CALL_POLL_NS); /* no event tells of a call's end */
		if (obstacle == OBSTACLE_UNASKED)
			pins_ask_region(r, from, to, pass->freeze, refused);
	} while (obstacle != OBSTACLE_NONE && sync && memory);
	result->busy |= obstacle != OBSTACLE_NONE;
	sleeper_destroy(&sleeper);
}

static void range_clip(const struct region *r, uint64_t first, uint64_t last, size_t *from,
		       size_t *to)
{
	*from = first > r->first ? (size_t)(first - r->first) : 0;
	*to = last - r->first < REGION_PAGES - 1 ? (size_t)(last - r->first) + 1 : REGION_PAGES;
}

static struct writeback_result pass_run(struct object *o, uint64_t first, uint64_t last,
					const struct pass *pass)
{
	struct writeback_result result = {0};
	struct region *r;
	uint64_t next = first;

	while (next <= last && (r = region_next(o, next)) != NULL) {
		size_t from, to;
		next = r->first + REGION_PAGES;
		/* A fork that waits for the flusher is not to wait for all of the object. */
		if (o->in_place && pass->reason == MKW_WB_BACKGROUND && in_place_must_leave()) {
			result.busy = true;
			next = last + 1;
		} else if (r->first <= last) {
			range_clip(r, first, last, &from, &to);
			writeback_region(r, from, to, pass, &result);
		}
		region_put(r);
	}
	return result;
}

struct writeback_result writeback_range(struct object *o, uint64_t first, uint64_t last,
					enum mkw_wb_reason reason)
{
	const struct pass pass = {.reason = reason};

	return pass_run(o, first, last, &pass);
}

struct writeback_result writeback_ungrant(struct object *o, uint64_t first, uint64_t last)
{
	const struct pass pass = {.reason = MKW_WB_BACKGROUND, .grants_only = true};

	return pass_run(o, first, last, &pass);
}

/* What is dirty now is what this sync is about (6.3): a writer that goes on dirtying cannot keep it
 * busy for ever, and nothing dirty before it is missed. */
static void range_tag(struct object *o, uint64_t first, uint64_t last)
{
	struct region *r;
	uint64_t next = first;

	while (next <= last && (r = region_next(o, next)) != NULL) {
		size_t from, to;
		next = r->first + REGION_PAGES;
		if (r->first <= last) {
			range_clip(r, first, last, &from, &to);
			env_lock(&r->lock);
			for (size_t i = from; r->charged > 0 && i < to; i++)
				if (page_is_charged(&r->pages[i]))
					page_tag(&r->pages[i]);
			env_unlock(&r->lock);
		}
		region_put(r);
	}
}

/* Why a sync failed. => object->lock held. */
static void sync_say(const struct object *o, const struct writeback_result *result)
{
	if (result->still && result->error == -EBUSY)
		mkw_set_error(-EBUSY,
			      "the object is frozen, and pages were pinned for writing meanwhile");
	else if (result->error == -EAGAIN)
		mkw_set_error(-EAGAIN, "the store does not take some pages yet; they stay dirty");
	else if (result->error == o->error.error)
		error_say("write-back failed", &o->error);
	else
		mkw_set_error(result->error, "write-back failed: errno %d", -result->error);
}

static int sync_run(struct object *o, uint64_t first, uint64_t last, const struct pass *pass)
{
	struct writeback_result result;
	uint64_t seq, again_seq;
	int error;

	env_lock(&o->lock);
	seq = o->error_seq;
	again_seq = o->again_seq;
	env_unlock(&o->lock);
	/* Under way from its first batch to its last, also between two: room may still come of it.
	 */
	charge_writeback(o, 1, MKW_WB_SYNC);
	range_tag(o, first, last);
	result = pass_run(o, first, last, pass);
	pins_ask(o, first, last);
	charge_writeback(o, -1, MKW_WB_SYNC);
	/* Also when something failed: what could be written is to be durable (6.5). */
	if (first == 0 && last + 1 >= object_pages(o))
		atomic_store(&o->unsynced, false);
	error = op_fsync(o, first << PAGE_SHIFT, (last - first + 1) << PAGE_SHIFT);
	if (error != 0)
		atomic_store(&o->unsynced, true);
	env_lock(&o->lock);
	if (error != 0)
		object_record_error(o, error);
	/* A page that somebody else was writing, and failed to, counts for this sync as well. */
	if (o->error_seq != seq && (result.error == 0 || result.error == -EAGAIN))
		result.error = o->error.error;
	if (o->again_seq != again_seq && result.error == 0)
		result.error = -EAGAIN;
	if (result.still && result.error == 0 && !pass->frozen)
		result.error = -EBUSY;
	if (result.error != 0)
		sync_say(o, &result);
	env_unlock(&o->lock);
	return result.error;
}

int writeback_sync(struct object *o, uint64_t first, uint64_t last)
{
	const struct pass pass = {.reason = MKW_WB_SYNC};

	return sync_run(o, first, last, &pass);
}

int writeback_freeze(struct object *o, bool first)
{
	const struct pass pass = {.reason = MKW_WB_SYNC, .freeze = first, .frozen = !first};

	return sync_run(o, 0, OBJECT_PAGES_MAX - 1, &pass);
}
