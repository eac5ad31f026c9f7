/* SPDX-License-Identifier: MIT */
/*
 * script_store.c - a store in memory that a test can script (script_store.h).
 *
 * One mutex protects everything; it is never held while a test's hook runs, at a gate, or in a call
 * into the library. Storage of every size is taken up front as sparse anonymous memory, so that a
 * call neither allocates nor moves anything.
 */
#include "script_store.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOG_MAX ((size_t)1 << 19)

/* What the store knows of a page. A page takes space when it is allocated, granted, or being
 * granted: so a grant that fails undoes nothing that another call achieved meanwhile. */
struct script_page {
	uint8_t allocated, unsynced;
	uint8_t granted;  /* reserved by page_mkwrite, not allocated since */
	uint8_t notified; /* granted since the library last cleaned it (contract I1) */
	uint8_t granting, filling, writing; /* calls running on it */
	uint8_t dropping;		    /* truncates and punches of it */
	uint8_t fail_errno[SCRIPT_OPS];
};

struct script_gate {
	bool shut;
	uint64_t page;
	unsigned standing; /* since the last step */
	uint64_t steps;	   /* counts openings and steps: who stands goes when it changes */
};

enum script_kind { KIND_NONE, KIND_ERRNO, KIND_RAW, KIND_RAW_LOCKED };

struct script_plan {
	enum script_kind kind;
	uint64_t skip, times;
	long code;
};

struct script_store {
	pthread_mutex_t mutex;
	pthread_cond_t change; /* calls counted, gates reached or opened */
	struct mkw_store_ops ops;
	struct mkw_object *object;
	bool attached, released;
	uint64_t size_bytes;
	unsigned char *bytes;
	struct script_page *pages;
	uint64_t capacity, taken;
	struct script_call *log;
	size_t log_count;
	uint64_t calls[SCRIPT_OPS];
	unsigned running[SCRIPT_OPS];
	struct script_gate gates[SCRIPT_OPS][SCRIPT_POINTS];
	struct {
		script_hook_fn fn;
		void *arg;
	} hooks[SCRIPT_OPS][SCRIPT_POINTS];
	struct script_plan plans[SCRIPT_OPS];
	enum script_manner manner;
	uint64_t cut[SCRIPT_OPS], extent;
	bool holes, ungranted;
	unsigned violations;
	char violation[256];
};

/* Behind all that a test may declare. */
static const struct mkw_lock_class script_class = {.name = "script store", .rank = 1000};

static void lock(struct script_store *s)
{
	mkw_lock_take(&script_class, &s->mutex);
	pthread_mutex_lock(&s->mutex);
}

static void unlock(struct script_store *s)
{
	pthread_mutex_unlock(&s->mutex);
	mkw_lock_drop(&s->mutex);
}

/* Wait for a change; false when patience ended. s->mutex held. */
static bool wait_change(struct script_store *s, const struct timespec *deadline)
{
	return pthread_cond_timedwait(&s->change, &s->mutex, deadline) != ETIMEDOUT;
}

static struct timespec patience(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += SCRIPT_PATIENCE_S;
	return t;
}

/* => s->mutex held */
__attribute__((format(printf, 2, 3))) static void violate(struct script_store *s,
							  const char *format, ...)
{
	va_list ap;

	if (s->violations++ > 0)
		return;
	va_start(ap, format);
	vsnprintf(s->violation, sizeof(s->violation), format, ap);
	va_end(ap);
}

/* ---- Space: all with s->mutex held --------------------------------------------------------- */

static bool page_takes_space(const struct script_page *p)
{
	return p->allocated || p->granted || p->granting > 0;
}

/* Change a page between these two, so that the space taken is counted right. */
static struct script_page *page_change_begin(struct script_store *s, uint64_t page)
{
	struct script_page *p = &s->pages[page];

	s->taken -= page_takes_space(p);
	return p;
}

static void page_change_end(struct script_store *s, struct script_page *p)
{
	s->taken += page_takes_space(p);
}

static void page_forget(struct script_store *s, uint64_t page)
{
	struct script_page *p = page_change_begin(s, page);

	p->allocated = p->granted = p->notified = p->unsynced = 0;
	page_change_end(s, p);
	memset(s->bytes + page * MKW_PAGE_SIZE, 0, MKW_PAGE_SIZE);
}

/* ---- Entry and exit of calls ---------------------------------------------------------------- */

/* Note a call; *plan is what it is to do. => s->mutex held */
static uint64_t call_begin(struct script_store *s, enum script_op op, struct script_plan *plan)
{
	struct script_plan *p = &s->plans[op];

	*plan = (struct script_plan){.kind = KIND_NONE};
	s->running[op]++;
	s->calls[op]++;
	if (!s->attached && op != SCRIPT_ATTACH && op != SCRIPT_RELEASE)
		violate(s, "operation %d before attach", (int)op);
	if (s->released)
		violate(s, "operation %d after release", (int)op);
	if (p->kind != KIND_NONE && p->skip > 0) {
		p->skip--;
	} else if (p->kind != KIND_NONE && p->times > 0) {
		*plan = *p;
		if (p->times != SCRIPT_FOREVER)
			p->times--;
	}
	pthread_cond_broadcast(&s->change);
	return s->calls[op];
}

/* => s->mutex held */
static void call_log(struct script_store *s, struct script_call call)
{
	if (s->log_count == LOG_MAX)
		return;
	call.tid = (pid_t)syscall(SYS_gettid);
	s->log[s->log_count++] = call;
}

/* Stop while the gate is shut for these pages. => s->mutex held, dropped meanwhile */
static void gate_pass(struct script_store *s, enum script_op op, enum script_point point,
		      uint64_t first, uint64_t count)
{
	struct script_gate *g = &s->gates[op][point];
	struct timespec deadline = patience();
	uint64_t steps = g->steps;

	if (!g->shut || (g->page != SCRIPT_ANY && (g->page < first || g->page - first >= count)))
		return;
	g->standing++;
	pthread_cond_broadcast(&s->change);
	while (g->steps == steps) {
		if (!wait_change(s, &deadline) && g->steps == steps) {
			violate(s, "nobody opened the gate of operation %d", (int)op);
			g->standing--;
			return;
		}
	}
}

/* Hook, then gate. No lock held. */
static void call_point(struct script_store *s, enum script_op op, enum script_point point,
		       uint64_t first, uint64_t count, struct mkw_run *run)
{
	script_hook_fn fn;
	void *arg;

	lock(s);
	fn = s->hooks[op][point].fn;
	arg = s->hooks[op][point].arg;
	unlock(s);
	if (fn)
		fn(arg, s->object, run);
	lock(s);
	gate_pass(s, op, point, first, count);
	unlock(s);
}

/* No lock held. */
static void call_end(struct script_store *s, enum script_op op)
{
	lock(s);
	s->running[op]--;
	pthread_cond_broadcast(&s->change);
	unlock(s);
}

/* Calls without pages: note, hooks, gates, the scripted answer. False: *result is the answer. */
static bool simple_begin(struct script_store *s, enum script_op op, uint64_t first, uint64_t count,
			 int *result)
{
	struct script_plan plan;
	uint64_t call;

	lock(s);
	call = call_begin(s, op, &plan);
	call_log(s, (struct script_call){.op = op, .first = first, .count = count, .call = call});
	unlock(s);
	call_point(s, op, SCRIPT_ENTRY, first / MKW_PAGE_SIZE, count / MKW_PAGE_SIZE + 1, NULL);
	*result = plan.kind == KIND_NONE ? 0 : (int)plan.code;
	if (plan.kind == KIND_ERRNO)
		mkw_set_error(*result, "scripted failure of operation %d", (int)op);
	return plan.kind == KIND_NONE;
}

static void simple_end(struct script_store *s, enum script_op op, uint64_t first, uint64_t count)
{
	call_point(s, op, SCRIPT_EXIT, first / MKW_PAGE_SIZE, count / MKW_PAGE_SIZE + 1, NULL);
	call_end(s, op);
}

/* The answer of fault and page_mkwrite that a script or a page asks for; false: none. */
static bool run_answer(struct script_store *s, enum script_op op, const struct script_plan *plan,
		       const struct mkw_run *run, mkw_fault_t *answer)
{
	int error = 0;

	if (plan->kind == KIND_RAW || plan->kind == KIND_RAW_LOCKED) {
		*answer = (mkw_fault_t)plan->code;
		return true;
	}
	lock(s);
	if (plan->kind == KIND_ERRNO)
		error = (int)plan->code;
	else if (run->page < SCRIPT_MAX_PAGES)
		error = -s->pages[run->page].fail_errno[op];
	unlock(s);
	if (error == 0)
		return false;
	mkw_set_error(error, "scripted failure of operation %d, page %llu", (int)op,
		      (unsigned long long)run->page);
	*answer = mkw_fault_from_errno(error);
	return true;
}

/* Note a call for a run and check the run. => s->mutex held */
static void run_begin(struct script_store *s, enum script_op op, const struct mkw_run *run,
		      struct script_plan *plan)
{
	uint64_t call = call_begin(s, op, plan);

	call_log(s, (struct script_call){.op = op,
					 .first = run->first,
					 .count = run->count,
					 .page = run->page,
					 .flags = run->flags,
					 .call = call});
	if (run->count == 0 || run->page < run->first || run->page - run->first >= run->count ||
	    run->first >= SCRIPT_MAX_PAGES || run->count > SCRIPT_MAX_PAGES - run->first)
		violate(s, "operation %d: run of %zu from %llu for page %llu", (int)op, run->count,
			(unsigned long long)run->first, (unsigned long long)run->page);
	if (run->object != s->object)
		violate(s, "operation %d: a run of another object", (int)op);
}

/* ---- fault ---------------------------------------------------------------------------------- */

/* => s->mutex held */
static void fill_enter(struct script_store *s, const struct mkw_run *run)
{
	for (uint64_t i = run->first; i < run->first + run->count; i++) {
		if (s->pages[i].filling++ > 0)
			violate(s, "page %llu is filled twice at a time", (unsigned long long)i);
		if (s->pages[i].dropping > 0)
			violate(s, "page %llu is filled while its range is dropped",
				(unsigned long long)i);
		if (i * MKW_PAGE_SIZE >= s->size_bytes)
			violate(s, "page %llu is filled past the end", (unsigned long long)i);
	}
}

/* => s->mutex held */
static void fill_leave(struct script_store *s, uint64_t first, uint64_t end)
{
	for (uint64_t i = first; i < end; i++)
		s->pages[i].filling--;
}

/* Make the run start at its page and no longer than pages. */
static void fill_cut(struct script_store *s, struct mkw_run *run, uint64_t pages)
{
	uint64_t end = run->first + run->count, page = run->page;
	size_t count = end - page < pages ? (size_t)(end - page) : (size_t)pages;

	if (pages == 0 || (run->first == page && run->count <= pages))
		return;
	/* Pages cut away are no longer ours to fill: leave them first. */
	lock(s);
	fill_leave(s, run->first, page);
	fill_leave(s, page + count, end);
	unlock(s);
	if (mkw_run_cut(run, page, count) == 0)
		return;
	lock(s);
	violate(s, "a proper cut to %zu pages from %llu was refused", count,
		(unsigned long long)page);
	unlock(s);
}

static void fill_copy(struct script_store *s, struct mkw_run *run, void *buffer)
{
	bool hole = s->holes;

	lock(s);
	for (uint64_t i = run->first; i < run->first + run->count; i++)
		hole = hole && !s->pages[i].allocated;
	if (hole)
		run->flags |= MKW_RUN_HOLE;
	else
		memcpy(buffer, s->bytes + run->first * MKW_PAGE_SIZE, run->count * MKW_PAGE_SIZE);
	unlock(s);
}

static mkw_fault_t script_fault(void *store, struct mkw_object *object, struct mkw_run *run,
				void *buffer)
{
	struct script_store *s = store;
	struct script_plan plan;
	mkw_fault_t answer;
	uint64_t cut;

	(void)object;
	lock(s);
	run_begin(s, SCRIPT_FAULT, run, &plan);
	fill_enter(s, run);
	if ((uintptr_t)buffer % MKW_PAGE_SIZE != 0)
		violate(s, "fault: buffer not page aligned");
	cut = s->cut[SCRIPT_FAULT];
	unlock(s);
	fill_cut(s, run, cut);
	call_point(s, SCRIPT_FAULT, SCRIPT_ENTRY, run->first, run->count, run);
	if (!run_answer(s, SCRIPT_FAULT, &plan, run, &answer)) {
		fill_copy(s, run, buffer);
		answer = MKW_FAULT_LOCKED;
	}
	call_point(s, SCRIPT_FAULT, SCRIPT_EXIT, run->first, run->count, run);
	lock(s);
	fill_leave(s, run->first, run->first + run->count);
	unlock(s);
	call_end(s, SCRIPT_FAULT);
	return answer;
}

/* ---- page_mkwrite --------------------------------------------------------------------------- */

/* => s->mutex held */
static bool grant_begin(struct script_store *s, uint64_t page)
{
	struct script_page *p = &s->pages[page];

	if (!page_takes_space(p) && s->taken >= s->capacity)
		return false;
	p = page_change_begin(s, page);
	p->granting++;
	page_change_end(s, p);
	return true;
}

/* => s->mutex held */
static void grant_end(struct script_store *s, uint64_t page, bool granted)
{
	struct script_page *p = page_change_begin(s, page);

	p->granting--;
	if (granted) {
		p->granted = !p->allocated;
		p->notified = 1;
	}
	page_change_end(s, p);
}

/* Begin the grant of as many pages around run->page as there is room for: [*first, *end). An empty
 * range: no room even for that one. */
static void grant_begin_run(struct script_store *s, const struct mkw_run *run, uint64_t *first,
			    uint64_t *end)
{
	lock(s);
	*first = *end = run->page;
	if (grant_begin(s, run->page)) {
		*end = run->page + 1;
		while (*end < run->first + run->count &&
		       !s->pages[*end].fail_errno[SCRIPT_MKWRITE] && grant_begin(s, *end))
			(*end)++;
		while (*first > run->first && !s->pages[*first - 1].fail_errno[SCRIPT_MKWRITE] &&
		       grant_begin(s, *first - 1))
			(*first)--;
	}
	unlock(s);
}

/* End the grant of [first, end): that of the run's pages by success. */
static void grant_end_run(struct script_store *s, uint64_t first, uint64_t end,
			  const struct mkw_run *run)
{
	lock(s);
	for (uint64_t i = first; i < end; i++)
		grant_end(s, i, run && i >= run->first && i - run->first < run->count);
	unlock(s);
}

/* The run as the script wants it: cut, or grown to an extent. */
static void grant_shape(struct script_store *s, struct mkw_run *run)
{
	uint64_t cut, extent, end;

	lock(s);
	cut = s->cut[SCRIPT_MKWRITE];
	extent = s->extent;
	unlock(s);
	if (extent > 0)
		mkw_run_grow(run, run->page - run->page % extent, (size_t)extent);
	end = run->first + run->count;
	if (cut > 0)
		mkw_run_cut(run, run->page,
			    (size_t)(end - run->page < cut ? end - run->page : cut));
}

static mkw_fault_t grant(struct script_store *s, struct mkw_run *run)
{
	uint64_t first, end;
	mkw_fault_t answer = MKW_FAULT_LOCKED;
	enum script_manner manner;

	grant_shape(s, run);
	lock(s);
	manner = s->manner;
	unlock(s);
	grant_begin_run(s, run, &first, &end);
	if (first == end) {
		mkw_set_error(-ENOSPC, "no room for page %llu", (unsigned long long)run->page);
		return MKW_FAULT_SIGBUS;
	}
	if (mkw_run_cut(run, first, (size_t)(end - first)) != 0) {
		lock(s);
		violate(s, "a proper cut to %llu pages from %llu was refused",
			(unsigned long long)(end - first), (unsigned long long)first);
		unlock(s);
	}
	if (manner == SCRIPT_LEGACY)
		answer = 0;
	else if (mkw_run_lock(run) != 0)
		answer = MKW_FAULT_NOPAGE;
	grant_end_run(s, first, end, answer == MKW_FAULT_NOPAGE ? NULL : run);
	return answer;
}

static mkw_fault_t script_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	struct script_store *s = store;
	struct script_plan plan;
	mkw_fault_t answer;

	(void)object;
	lock(s);
	run_begin(s, SCRIPT_MKWRITE, run, &plan);
	unlock(s);
	call_point(s, SCRIPT_MKWRITE, SCRIPT_ENTRY, run->first, run->count, run);
	if (plan.kind == KIND_RAW_LOCKED)
		mkw_run_lock(run);
	if (!run_answer(s, SCRIPT_MKWRITE, &plan, run, &answer))
		answer = grant(s, run);
	call_point(s, SCRIPT_MKWRITE, SCRIPT_EXIT, run->first, run->count, run);
	call_end(s, SCRIPT_MKWRITE);
	return answer;
}

static void script_unreserve(void *store, struct mkw_object *object, uint64_t first, uint64_t count)
{
	struct script_store *s = store;
	struct script_plan plan;
	uint64_t call;

	(void)object;
	lock(s);
	call = call_begin(s, SCRIPT_UNRESERVE, &plan);
	call_log(s, (struct script_call){
			    .op = SCRIPT_UNRESERVE, .first = first, .count = count, .call = call});
	if (first >= SCRIPT_MAX_PAGES || count > SCRIPT_MAX_PAGES - first) {
		violate(s, "unreserve of %llu pages from %llu", (unsigned long long)count,
			(unsigned long long)first);
		count = 0;
	}
	unlock(s);
	call_point(s, SCRIPT_UNRESERVE, SCRIPT_ENTRY, first, count, NULL);
	lock(s);
	for (uint64_t i = first; i < first + count; i++) {
		struct script_page *p = page_change_begin(s, i);

		p->granted = p->notified = 0;
		page_change_end(s, p);
	}
	unlock(s);
	call_point(s, SCRIPT_UNRESERVE, SCRIPT_EXIT, first, count, NULL);
	call_end(s, SCRIPT_UNRESERVE);
}

/* ---- writepages ----------------------------------------------------------------------------- */

static uint64_t checksum(const void *data, size_t length)
{
	const uint64_t *words = data;
	uint64_t sum = 0;

	for (size_t i = 0; i < length / sizeof(*words); i++)
		sum = (sum ^ words[i]) * 0x9e3779b97f4a7c15u + (sum >> 29);
	return sum;
}

/* => s->mutex held */
static void write_enter_page(struct script_store *s, uint64_t page)
{
	struct script_page *p = &s->pages[page];

	if (p->writing++ > 0)
		violate(s, "page %llu is written twice at a time", (unsigned long long)page);
	if (p->filling > 0 || p->dropping > 0)
		violate(s, "page %llu is written while it is filled or dropped",
			(unsigned long long)page);
	if (!p->notified && !s->ungranted)
		violate(s, "page %llu is written without a grant", (unsigned long long)page);
	/* From here on it counts as clean; a grant during the call is a new one. */
	p->notified = 0;
}

/* Check the runs of a call and note them. => s->mutex held */
static void write_enter(struct script_store *s, const struct mkw_writeback *wb, uint64_t call)
{
	uint64_t least = 0;

	if (wb->count == 0)
		violate(s, "writepages without runs");
	for (size_t i = 0; i < wb->count; i++) {
		const struct mkw_wb_run *r = &wb->runs[i];
		uint64_t start = r->first * MKW_PAGE_SIZE, length = r->count * MKW_PAGE_SIZE;

		call_log(s, (struct script_call){.op = SCRIPT_WRITE,
						 .first = r->first,
						 .count = r->count,
						 .flags = (unsigned)wb->reason,
						 .call = call});
		if (r->count == 0 || r->first < least || r->result != 0 || start >= s->size_bytes) {
			violate(s, "writepages: run %zu of %zu pages from %llu", i, r->count,
				(unsigned long long)r->first);
			continue;
		}
		if (length > s->size_bytes - start)
			length = s->size_bytes - start;
		if (r->length_bytes != length)
			violate(s, "writepages: %llu bytes for %zu pages from %llu",
				(unsigned long long)r->length_bytes, r->count,
				(unsigned long long)r->first);
		for (uint64_t p = r->first; p < r->first + r->count; p++)
			write_enter_page(s, p);
		least = r->first + r->count;
	}
}

/* Take a run's bytes: 0, or why not. => s->mutex held */
static int write_run(struct script_store *s, const struct mkw_wb_run *r)
{
	uint64_t room = s->capacity > s->taken ? s->capacity - s->taken : 0;

	for (uint64_t p = r->first; p < r->first + r->count; p++) {
		if (s->pages[p].fail_errno[SCRIPT_WRITE])
			return -s->pages[p].fail_errno[SCRIPT_WRITE];
		if (!page_takes_space(&s->pages[p]) && room-- == 0)
			return -ENOSPC;
	}
	memcpy(s->bytes + r->first * MKW_PAGE_SIZE, r->data, (size_t)r->length_bytes);
	for (uint64_t p = r->first; p < r->first + r->count; p++) {
		struct script_page *page = page_change_begin(s, p);

		page->allocated = page->unsynced = 1;
		page->granted = 0;
		page_change_end(s, page);
	}
	return 0;
}

/* => s->mutex held */
static void write_leave(struct script_store *s, const struct mkw_writeback *wb, int result)
{
	for (size_t i = 0; i < wb->count; i++) {
		const struct mkw_wb_run *r = &wb->runs[i];

		for (uint64_t p = r->first; p < r->first + r->count; p++) {
			s->pages[p].writing--;
			/* What failed stays dirty under its old grant. */
			if (result != 0 || r->result != 0)
				s->pages[p].notified = 1;
		}
	}
}

static int script_writepages(void *store, struct mkw_object *object, struct mkw_writeback *wb)
{
	struct script_store *s = store;
	struct script_plan plan;
	uint64_t before = 0, after = 0, first, count;
	int result = 0;

	(void)object;
	lock(s);
	write_enter(s, wb, call_begin(s, SCRIPT_WRITE, &plan));
	unlock(s);
	first = wb->runs[0].first;
	count = wb->runs[wb->count - 1].first + wb->runs[wb->count - 1].count - first;
	for (size_t i = 0; i < wb->count; i++)
		before ^= checksum(wb->runs[i].data, wb->runs[i].count * MKW_PAGE_SIZE);
	call_point(s, SCRIPT_WRITE, SCRIPT_ENTRY, first, count, NULL);
	if (plan.kind == KIND_RAW)
		result = (int)plan.code;
	lock(s);
	for (size_t i = 0; i < wb->count && plan.kind != KIND_RAW; i++)
		wb->runs[i].result =
			plan.kind == KIND_ERRNO ? (int)plan.code : write_run(s, &wb->runs[i]);
	unlock(s);
	call_point(s, SCRIPT_WRITE, SCRIPT_EXIT, first, count, NULL);
	for (size_t i = 0; i < wb->count; i++)
		after ^= checksum(wb->runs[i].data, wb->runs[i].count * MKW_PAGE_SIZE);
	lock(s);
	if (after != before)
		violate(s, "bytes changed while they were written, pages %llu to %llu",
			(unsigned long long)first, (unsigned long long)(first + count - 1));
	write_leave(s, wb, result);
	unlock(s);
	call_end(s, SCRIPT_WRITE);
	return result;
}

/* ---- Size and range ------------------------------------------------------------------------- */

/* [first, end) is to be quiet until quiet_leave. => s->mutex held */
static void quiet_enter(struct script_store *s, uint64_t first, uint64_t end)
{
	for (uint64_t i = first; i < end; i++) {
		s->pages[i].dropping++;
		if (s->pages[i].filling > 0 || s->pages[i].writing > 0)
			violate(s, "page %llu is dropped while it is filled or written",
				(unsigned long long)i);
	}
}

/* => s->mutex held */
static void quiet_leave(struct script_store *s, uint64_t first, uint64_t end)
{
	for (uint64_t i = first; i < end; i++)
		s->pages[i].dropping--;
}

/* => s->mutex held */
static void truncate_bytes(struct script_store *s, uint64_t size_bytes)
{
	uint64_t first = (size_bytes + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE;

	/* Beyond the old size too: a grant may have been made there by a call that lost a race. */
	for (uint64_t i = first; i < SCRIPT_MAX_PAGES && size_bytes < s->size_bytes; i++)
		if (s->pages[i].allocated || s->pages[i].granted || s->pages[i].notified)
			page_forget(s, i);
	if (size_bytes < s->size_bytes && size_bytes % MKW_PAGE_SIZE != 0)
		memset(s->bytes + size_bytes, 0, MKW_PAGE_SIZE - size_bytes % MKW_PAGE_SIZE);
	s->size_bytes = size_bytes;
}

static int script_truncate(void *store, struct mkw_object *object, uint64_t size_bytes)
{
	struct script_store *s = store;
	uint64_t max_bytes = SCRIPT_MAX_PAGES * MKW_PAGE_SIZE;
	uint64_t first = size_bytes / MKW_PAGE_SIZE, end;
	int result;

	(void)object;
	lock(s);
	end = (s->size_bytes + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE;
	if (size_bytes >= s->size_bytes)
		end = first;
	quiet_enter(s, first, end);
	unlock(s);
	if (simple_begin(s, SCRIPT_TRUNCATE, size_bytes, 0, &result)) {
		lock(s);
		if (size_bytes <= max_bytes)
			truncate_bytes(s, size_bytes);
		else
			result = -EFBIG;
		unlock(s);
	}
	simple_end(s, SCRIPT_TRUNCATE, size_bytes, 0);
	lock(s);
	quiet_leave(s, first, end);
	unlock(s);
	return result;
}

static int script_punch(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	struct script_store *s = store;
	uint64_t first = offset / MKW_PAGE_SIZE, end = first + length / MKW_PAGE_SIZE;
	int result;

	(void)object;
	lock(s);
	if (offset % MKW_PAGE_SIZE != 0 || length % MKW_PAGE_SIZE != 0 || end > SCRIPT_MAX_PAGES) {
		violate(s, "punch of %llu bytes at %llu", (unsigned long long)length,
			(unsigned long long)offset);
		end = first;
	}
	quiet_enter(s, first, end);
	unlock(s);
	if (simple_begin(s, SCRIPT_PUNCH, offset, length, &result)) {
		lock(s);
		for (uint64_t i = first; i < end; i++)
			page_forget(s, i);
		unlock(s);
	}
	simple_end(s, SCRIPT_PUNCH, offset, length);
	lock(s);
	quiet_leave(s, first, end);
	unlock(s);
	return result;
}

static int script_fsync(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	struct script_store *s = store;
	uint64_t end;
	int result;

	(void)object;
	if (simple_begin(s, SCRIPT_FSYNC, offset, length, &result)) {
		lock(s);
		end = length == 0 || length > SCRIPT_MAX_PAGES * MKW_PAGE_SIZE - offset
			      ? SCRIPT_MAX_PAGES
			      : (offset + length + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE;
		for (uint64_t i = offset / MKW_PAGE_SIZE; i < end; i++)
			s->pages[i].unsynced = 0;
		unlock(s);
	}
	simple_end(s, SCRIPT_FSYNC, offset, length);
	return result;
}

/* ---- The rest of the operations ------------------------------------------------------------- */

static int script_attach(void *store, struct mkw_object *object)
{
	struct script_store *s = store;
	int result;

	lock(s);
	if (s->attached)
		violate(s, "attached twice");
	s->object = object;
	unlock(s);
	if (simple_begin(s, SCRIPT_ATTACH, 0, 0, &result)) {
		lock(s);
		s->attached = true;
		unlock(s);
	}
	simple_end(s, SCRIPT_ATTACH, 0, 0);
	return result;
}

static void script_release(void *store)
{
	struct script_store *s = store;
	int result;

	simple_begin(s, SCRIPT_RELEASE, 0, 0, &result);
	simple_end(s, SCRIPT_RELEASE, 0, 0);
	lock(s);
	for (int op = 0; op < SCRIPT_OPS; op++)
		if (s->running[op] > 0)
			violate(s, "released while operation %d runs", op);
	s->released = true;
	pthread_cond_broadcast(&s->change);
	unlock(s);
}

static void script_map(void *store, struct mkw_object *object)
{
	int result;

	(void)object;
	simple_begin(store, SCRIPT_MAP, 0, 0, &result);
	simple_end(store, SCRIPT_MAP, 0, 0);
}

static void script_unmap(void *store, struct mkw_object *object)
{
	int result;

	(void)object;
	simple_begin(store, SCRIPT_UNMAP, 0, 0, &result);
	simple_end(store, SCRIPT_UNMAP, 0, 0);
}

static int script_control(void *store, struct mkw_object *object, const char *key,
			  const char *value)
{
	struct script_store *s = store;
	uint64_t pages;
	int result;

	(void)object;
	if (simple_begin(s, SCRIPT_CONTROL, 0, 0, &result)) {
		if (strcmp(key, "capacity") != 0)
			result = mkw_set_error(-EINVAL, "no option %s", key);
		else
			result = mkw_parse_uint(key, value, 0, UINT64_MAX, &pages);
		if (result == 0)
			script_set_capacity(s, pages);
	}
	simple_end(s, SCRIPT_CONTROL, 0, 0);
	return result;
}

static int script_capacity(void *store, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct script_store *s = store;
	int result;

	if (simple_begin(s, SCRIPT_CAPACITY, 0, 0, &result)) {
		lock(s);
		if (s->capacity == UINT64_MAX) {
			result = mkw_set_error(-ENOTSUP, "no capacity was set");
		} else {
			*total_bytes = s->capacity * MKW_PAGE_SIZE;
			*free_bytes = s->taken < s->capacity
					      ? (s->capacity - s->taken) * MKW_PAGE_SIZE
					      : 0;
		}
		unlock(s);
	}
	simple_end(s, SCRIPT_CAPACITY, 0, 0);
	return result;
}

static const struct mkw_store_ops script_store_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "script",
	.fault = script_fault,
	.page_mkwrite = script_mkwrite,
	.unreserve = script_unreserve,
	.writepages = script_writepages,
	.truncate = script_truncate,
	.punch_hole = script_punch,
	.fsync = script_fsync,
	.attach = script_attach,
	.release = script_release,
	.map = script_map,
	.unmap = script_unmap,
	.control = script_control,
	.capacity = script_capacity,
};

/* ---- Making one ----------------------------------------------------------------------------- */

static void *sparse_memory(size_t length)
{
	void *p = mmap(NULL, length, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("script store");
		abort();
	}
	return p;
}

struct script_store *script_create(uint64_t size_bytes)
{
	struct script_store *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s || size_bytes > SCRIPT_MAX_PAGES * MKW_PAGE_SIZE)
		abort();
	pthread_mutex_init(&s->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->change, &attr);
	pthread_condattr_destroy(&attr);
	s->ops = script_store_ops;
	s->size_bytes = size_bytes;
	s->capacity = UINT64_MAX;
	s->bytes = sparse_memory(SCRIPT_MAX_PAGES * MKW_PAGE_SIZE);
	s->pages = sparse_memory(SCRIPT_MAX_PAGES * sizeof(*s->pages));
	s->log = sparse_memory(LOG_MAX * sizeof(*s->log));
	return s;
}

struct mkw_store_ops *script_ops(struct script_store *s)
{
	return &s->ops;
}

int script_open(struct script_store *s, struct mkw_space *space, unsigned flags,
		struct mkw_handle **handle)
{
	return mkw_create(space, &s->ops, s, s->size_bytes, flags, handle);
}

bool script_destroy(struct script_store *s)
{
	uint64_t reserved = script_reserved(s);
	bool owned = s->attached && !s->released;
	bool good = s->violations == 0 && reserved == 0 && !owned;

	if (s->violations > 0)
		fprintf(stderr, "script store: %u violations; the first: %s\n", s->violations,
			s->violation);
	if (reserved > 0)
		fprintf(stderr, "script store: %llu pages are still reserved\n",
			(unsigned long long)reserved);
	if (owned) {
		fprintf(stderr, "script store: not released\n");
		return false; /* its owner may still call it */
	}
	munmap(s->bytes, SCRIPT_MAX_PAGES * MKW_PAGE_SIZE);
	munmap(s->pages, SCRIPT_MAX_PAGES * sizeof(*s->pages));
	munmap(s->log, LOG_MAX * sizeof(*s->log));
	pthread_cond_destroy(&s->change);
	pthread_mutex_destroy(&s->mutex);
	free(s);
	return good;
}

struct mkw_object *script_object(struct script_store *s)
{
	return s->object;
}

/* ---- Bytes ---------------------------------------------------------------------------------- */

/* => s->mutex held */
static void allocate(struct script_store *s, uint64_t offset, size_t length)
{
	for (uint64_t i = offset / MKW_PAGE_SIZE; i * MKW_PAGE_SIZE < offset + length; i++) {
		struct script_page *p = page_change_begin(s, i);

		p->allocated = 1;
		p->granted = 0;
		page_change_end(s, p);
	}
}

void script_put(struct script_store *s, uint64_t offset, const void *bytes, size_t length)
{
	lock(s);
	allocate(s, offset, length);
	memcpy(s->bytes + offset, bytes, length);
	unlock(s);
}

void script_get(struct script_store *s, uint64_t offset, void *bytes, size_t length)
{
	lock(s);
	memcpy(bytes, s->bytes + offset, length);
	unlock(s);
}

unsigned char script_pattern(uint64_t offset, unsigned seed)
{
	uint64_t x = (offset / 8 + 1 + ((uint64_t)seed << 40)) * 0x9e3779b97f4a7c15u;

	return (unsigned char)((x ^ x >> 31) >> 8 * (offset % 4));
}

void script_put_pattern(struct script_store *s, uint64_t first, uint64_t count, unsigned seed)
{
	lock(s);
	allocate(s, first * MKW_PAGE_SIZE, (size_t)count * MKW_PAGE_SIZE);
	for (uint64_t i = first * MKW_PAGE_SIZE; i < (first + count) * MKW_PAGE_SIZE; i++)
		s->bytes[i] = script_pattern(i, seed);
	if ((first + count) * MKW_PAGE_SIZE > s->size_bytes && s->size_bytes % MKW_PAGE_SIZE != 0)
		memset(s->bytes + s->size_bytes, 0, MKW_PAGE_SIZE - s->size_bytes % MKW_PAGE_SIZE);
	unlock(s);
}

uint64_t script_size_bytes(struct script_store *s)
{
	uint64_t size;

	lock(s);
	size = s->size_bytes;
	unlock(s);
	return size;
}

/* ---- Space ---------------------------------------------------------------------------------- */

void script_set_capacity(struct script_store *s, uint64_t pages)
{
	lock(s);
	s->capacity = pages;
	unlock(s);
}

static bool page_reserved(const struct script_page *p)
{
	return p->granted && !p->allocated;
}

static bool page_allocated(const struct script_page *p)
{
	return p->allocated;
}

static bool page_unsynced(const struct script_page *p)
{
	return p->unsynced;
}

static uint64_t count_pages(struct script_store *s, bool (*what)(const struct script_page *p))
{
	uint64_t n = 0;

	lock(s);
	for (uint64_t i = 0; i < SCRIPT_MAX_PAGES; i++)
		n += what(&s->pages[i]);
	unlock(s);
	return n;
}

uint64_t script_reserved(struct script_store *s)
{
	return count_pages(s, page_reserved);
}

uint64_t script_allocated(struct script_store *s)
{
	return count_pages(s, page_allocated);
}

uint64_t script_unsynced(struct script_store *s)
{
	return count_pages(s, page_unsynced);
}

bool script_page_reserved(struct script_store *s, uint64_t page)
{
	bool is;

	lock(s);
	is = page_reserved(&s->pages[page]);
	unlock(s);
	return is;
}

bool script_page_allocated(struct script_store *s, uint64_t page)
{
	bool is;

	lock(s);
	is = page_allocated(&s->pages[page]);
	unlock(s);
	return is;
}

/* ---- The log -------------------------------------------------------------------------------- */

uint64_t script_calls(struct script_store *s, enum script_op op)
{
	uint64_t n;

	lock(s);
	n = s->calls[op];
	unlock(s);
	return n;
}

uint64_t script_calls_on(struct script_store *s, enum script_op op, uint64_t page)
{
	uint64_t n = 0;

	lock(s);
	for (size_t i = 0; i < s->log_count; i++)
		n += s->log[i].op == op && page >= s->log[i].first &&
		     page - s->log[i].first < s->log[i].count;
	unlock(s);
	return n;
}

bool script_log(struct script_store *s, size_t index, struct script_call *call)
{
	bool found;

	lock(s);
	found = index < s->log_count;
	if (found)
		*call = s->log[index];
	unlock(s);
	return found;
}

bool script_log_of(struct script_store *s, enum script_op op, size_t nth, struct script_call *call)
{
	bool found = false;

	lock(s);
	for (size_t i = 0; i < s->log_count && !found; i++) {
		found = s->log[i].op == op && --nth == 0;
		if (found)
			*call = s->log[i];
	}
	unlock(s);
	return found;
}

void script_log_clear(struct script_store *s)
{
	lock(s);
	s->log_count = 0;
	memset(s->calls, 0, sizeof(s->calls));
	unlock(s);
}

bool script_wait_calls(struct script_store *s, enum script_op op, uint64_t calls)
{
	struct timespec deadline = patience();
	bool reached;

	lock(s);
	while (s->calls[op] < calls && wait_change(s, &deadline))
		;
	reached = s->calls[op] >= calls;
	unlock(s);
	return reached;
}

unsigned script_running(struct script_store *s, enum script_op op)
{
	unsigned n;

	lock(s);
	n = s->running[op];
	unlock(s);
	return n;
}

/* ---- Gates and hooks ------------------------------------------------------------------------ */

void test_gate_arm(struct script_store *s, enum script_op op, enum script_point point,
		   uint64_t page)
{
	lock(s);
	s->gates[op][point].shut = true;
	s->gates[op][point].page = page;
	unlock(s);
}

bool test_gate_wait_arrived(struct script_store *s, enum script_op op, enum script_point point,
			    unsigned callers)
{
	struct timespec deadline = patience();
	bool reached;

	lock(s);
	while (s->gates[op][point].standing < callers && wait_change(s, &deadline))
		;
	reached = s->gates[op][point].standing >= callers;
	unlock(s);
	return reached;
}

unsigned test_gate_arrived(struct script_store *s, enum script_op op, enum script_point point)
{
	unsigned n;

	lock(s);
	n = s->gates[op][point].standing;
	unlock(s);
	return n;
}

static void gate_open(struct script_store *s, enum script_op op, enum script_point point, bool shut)
{
	struct script_gate *g = &s->gates[op][point];

	lock(s);
	g->shut = shut;
	g->steps++;
	g->standing = 0;
	pthread_cond_broadcast(&s->change);
	unlock(s);
}

void test_gate_step(struct script_store *s, enum script_op op, enum script_point point)
{
	gate_open(s, op, point, true);
}

void test_gate_release(struct script_store *s, enum script_op op, enum script_point point)
{
	gate_open(s, op, point, false);
}

void script_hook(struct script_store *s, enum script_op op, enum script_point point,
		 script_hook_fn fn, void *arg)
{
	lock(s);
	s->hooks[op][point].fn = fn;
	s->hooks[op][point].arg = arg;
	unlock(s);
}

/* ---- Failing -------------------------------------------------------------------------------- */

static void set_plan(struct script_store *s, enum script_op op, enum script_kind kind, uint64_t nth,
		     uint64_t times, long code)
{
	lock(s);
	s->plans[op] = (struct script_plan){
		.kind = kind, .skip = nth > 0 ? nth - 1 : 0, .times = times, .code = code};
	unlock(s);
}

void script_fail(struct script_store *s, enum script_op op, uint64_t nth, uint64_t times, int error)
{
	set_plan(s, op, KIND_ERRNO, nth, times, error);
}

void script_answer(struct script_store *s, enum script_op op, uint64_t nth, uint64_t times,
		   long code)
{
	set_plan(s, op, KIND_RAW, nth, times, code);
}

void script_answer_locked(struct script_store *s, uint64_t nth, uint64_t times, long code)
{
	set_plan(s, SCRIPT_MKWRITE, KIND_RAW_LOCKED, nth, times, code);
}

void script_fail_page(struct script_store *s, enum script_op op, uint64_t page, int error)
{
	lock(s);
	s->pages[page].fail_errno[op] = (uint8_t)-error;
	unlock(s);
}

/* ---- Manners -------------------------------------------------------------------------------- */

void script_set_manner(struct script_store *s, enum script_manner manner)
{
	lock(s);
	s->manner = manner;
	unlock(s);
}

void script_set_cut(struct script_store *s, enum script_op op, uint64_t pages)
{
	lock(s);
	s->cut[op] = pages;
	unlock(s);
}

void script_set_extent(struct script_store *s, uint64_t pages)
{
	lock(s);
	s->extent = pages;
	unlock(s);
}

void script_set_holes(struct script_store *s, bool holes)
{
	lock(s);
	s->holes = holes;
	unlock(s);
}

/* ---- Violations ----------------------------------------------------------------------------- */

unsigned script_violations(struct script_store *s, const char **first)
{
	unsigned n;

	lock(s);
	n = s->violations;
	unlock(s);
	if (first)
		*first = s->violation;
	return n;
}

void script_allow_ungranted(struct script_store *s)
{
	lock(s);
	s->ungranted = true;
	unlock(s);
}
