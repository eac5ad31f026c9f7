/* SPDX-License-Identifier: MIT */
/*
 * sim.c - the simulated machine: mmu.h with page tables and translation caches as arrays.
 *
 * It is as unhelpful as the real one may be: each page of a call is a step of its own; between the
 * change of an entry and the flush of the caches others run; markers are lost in every drop; a
 * queued refusal reaches its thread at its next access, wherever that is.
 *
 *   entry    a read                        a write
 *   NONE     maps RW (RO: no PROT_WRITE)   maps RW          where the frame exists;
 *   MARKER   maps RO                       reported         where not: reported
 *   RO       goes on                       reported
 *   RW       goes on                       goes on
 *
 * A cached translation is used without a look at the entry, and by whoever cached it only.
 *
 * In a private view NONE and MARKER report every access; RO is a frame or a copy, and a write to it
 * is reported unless it is a frame that may be copied; RW is a copy.
 */
#include "sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define VIEWS_MAX   16
#define FRAMES_MAX  8
#define PAGES_MAX   1024u /* of frames, and of a view */
#define SWAP_PAGES  64u
#define EVENTS_MAX  64
#define HANDLERS    16
#define BASE	    ((uintptr_t)0x10000000)
#define WAKE_PLACES 256u

struct frames {
	bool used;
	char *bytes; /* kept from run to run */
	bool exists[PAGES_MAX];
	uint64_t top;
	uint64_t drop_from, drop_to; /* pages that are being dropped: who faults there waits */
};

struct swap_file {
	bool used;
	char *bytes; /* kept from run to run */
	bool written[SWAP_PAGES];
};

/* A stretch of addresses that was mapped at once. What has become of it since is known page by
 * page: the library may look at it through other, smaller views. */
struct sim_view {
	bool used;
	struct mmu_view at; /* as it was mapped */
	bool mapped[PAGES_MAX];
	uint8_t allowed[PAGES_MAX]; /* MKW_READ, MKW_WRITE */
	uint32_t frame[PAGES_MAX];  /* the page of the frames that it shows */
	uint8_t entries[PAGES_MAX];
	uint8_t cached[SIM_CPUS][PAGES_MAX]; /* SIM_NONE, SIM_RO, SIM_RW */
	size_t pages;
	/* Private views: */
	char *copies; /* kept from run to run */
	bool copied[PAGES_MAX];
	bool let[PAGES_MAX]; /* the machine copies on the first write */
};

struct event {
	uintptr_t address;
	enum mmu_access access;
	pid_t tid; /* 0: its thread left before it was read, and it is gone */
};

struct mmu {
	const struct mmu_upcalls *upcalls;
	void *arg;
	struct mmu_counts counts;
	struct event events[EVENTS_MAX];
	unsigned head, tail;
	bool kicked, stopping;
	unsigned handlers, handlers_max, free;
	unsigned threads[HANDLERS];
};

/* What a simulated thread is at. */
struct cpu {
	bool waiting; /* for the service of a fault at page */
	uintptr_t page;
	pid_t tid;
	bool signalled; /* refusals that were queued to it */
	uintptr_t signal_address;
	unsigned reports;
};

static struct frames all_frames[FRAMES_MAX];
static struct swap_file the_swap_file;
static struct sim_view views[VIEWS_MAX];
static struct cpu cpus[SIM_CPUS];
static struct mmu_signal_upcalls signals;
static unsigned machines;

/* As wakes.c has it for the real machine. */
static uint64_t wake_clock;
static struct {
	uint64_t ended;
	unsigned under_way;
} woken[WAKE_PLACES];

/* What the running handler thread serves. */
static _Thread_local struct mmu *handler_of;
static _Thread_local uint64_t report_time;

void sim_reset(void)
{
	for (unsigned i = 0; i < VIEWS_MAX; i++)
		views[i].used = false;
	for (unsigned i = 0; i < FRAMES_MAX; i++)
		all_frames[i].used = false;
	the_swap_file.used = false;
	memset(cpus, 0, sizeof(cpus));
	memset(woken, 0, sizeof(woken));
	wake_clock = 0;
	machines = 0;
}

unsigned sim_live(void)
{
	unsigned n = machines;

	for (unsigned i = 0; i < VIEWS_MAX; i++)
		n += views[i].used;
	for (unsigned i = 0; i < FRAMES_MAX; i++)
		n += all_frames[i].used;
	n += the_swap_file.used;
	return n;
}

void mmu_set_signal_upcalls(const struct mmu_signal_upcalls *upcalls)
{
	signals = *upcalls;
}

/* ---- Handler threads ---------------------------------------------------------------------- */

/* Who stops waiting takes its report along, if nobody has read it. */
static void event_drop(struct mmu *m, pid_t tid)
{
	for (unsigned i = m->tail; i != m->head; i++)
		if (m->events[i % EVENTS_MAX].tid == tid)
			m->events[i % EVENTS_MAX].tid = 0;
	while (m->tail != m->head && m->events[m->tail % EVENTS_MAX].tid == 0)
		m->tail++;
}

static void handler_main(void *arg)
{
	struct mmu *m = arg;

	handler_of = m;
	while (!m->stopping) {
		sim_host_point("looks for events", 0);
		if (m->kicked) {
			m->kicked = false;
			m->free--;
			m->upcalls->ready(m->arg);
			m->free++;
		} else if (m->head != m->tail) {
			struct event e;

			report_time = wake_clock;
			sim_host_point("reads an event", m->events[m->tail % EVENTS_MAX].address);
			/* Another handler may have been quicker. */
			if (m->head == m->tail)
				continue;
			e = m->events[m->tail % EVENTS_MAX];
			m->events[m->tail % EVENTS_MAX].tid = 0;
			event_drop(m, 0);
			m->free--;
			m->upcalls->fault(m->arg, e.address, e.access, e.tid);
			m->free++;
			report_time = UINT64_MAX;
		} else if (!m->stopping) {
			sim_host_wait("waits for events", m);
		}
	}
}

static void handler_start(struct mmu *m)
{
	m->free++;
	m->counts.workers++;
	m->threads[m->handlers++] = sim_host_start("handler", handler_main, m);
}

int mmu_create(const struct mmu_options *options, struct mmu **mmu)
{
	struct mmu *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return -ENOMEM;
	m->upcalls = options->upcalls;
	m->arg = options->arg;
	m->handlers_max = options->workers_max < HANDLERS ? options->workers_max : HANDLERS;
	machines++;
	*mmu = m;
	for (unsigned i = 0; i < options->workers; i++)
		handler_start(m);
	return 0;
}

void mmu_destroy(struct mmu *m)
{
	m->stopping = true;
	sim_host_wake(m, true);
	for (unsigned i = 0; i < m->handlers; i++)
		sim_host_join(m->threads[i]);
	machines--;
	free(m);
}

const struct mmu_counts *mmu_counts(const struct mmu *m)
{
	return &m->counts;
}

void mmu_kick(struct mmu *m)
{
	m->kicked = true;
	sim_host_wake(m, false);
}

void mmu_sleep_begin(struct mmu *m)
{
	if (handler_of == m && m->free == 0 && m->handlers < m->handlers_max)
		handler_start(m);
}

void mmu_sleep_end(struct mmu *m)
{
	(void)m;
}

size_t mmu_probe(struct mkw_backend_info *info, size_t capacity)
{
	(void)info;
	(void)capacity;
	return 0;
}

/* ---- Frames ------------------------------------------------------------------------------- */

int frames_create(struct frames **frames)
{
	for (unsigned i = 0; i < FRAMES_MAX; i++) {
		struct frames *f = &all_frames[i];

		if (f->used)
			continue;
		if (f->bytes == NULL) {
			f->bytes = mmap(NULL, PAGES_MAX * MKW_PAGE_SIZE, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			if (f->bytes == MAP_FAILED)
				return -ENOMEM;
		}
		memset(f->exists, 0, sizeof(f->exists));
		f->drop_from = f->drop_to = 0;
		f->top = 0;
		f->used = true;
		*frames = f;
		return 0;
	}
	return -ENOMEM;
}

void frames_destroy(struct frames *f)
{
	f->used = false;
}

static void frame_make(struct frames *f, uint64_t page, const void *src)
{
	if (page >= PAGES_MAX)
		sim_host_fail("a frame beyond what is simulated");
	if (f->exists[page])
		sim_host_fail("page %llu is filled although its frame exists",
			      (unsigned long long)page);
	if (src != NULL)
		memcpy(f->bytes + page * MKW_PAGE_SIZE, src, MKW_PAGE_SIZE);
	else
		memset(f->bytes + page * MKW_PAGE_SIZE, 0, MKW_PAGE_SIZE);
	f->exists[page] = true;
	if (page >= f->top)
		f->top = page + 1;
}

int frames_fill(struct frames *f, uint64_t offset, size_t length, const void *src)
{
	for (size_t at = 0; at < length; at += MKW_PAGE_SIZE) {
		sim_host_point("makes frame of page", (offset + at) / MKW_PAGE_SIZE);
		frame_make(f, (offset + at) / MKW_PAGE_SIZE,
			   src != NULL ? (const char *)src + at : NULL);
	}
	return 0;
}

void *frames_data(struct frames *f, uint64_t offset, size_t length)
{
	for (uint64_t page = offset / MKW_PAGE_SIZE; page * MKW_PAGE_SIZE < offset + length; page++)
		if (page >= PAGES_MAX || !f->exists[page])
			sim_host_fail("the library looks at page %llu, which has no frame",
				      (unsigned long long)page);
	return f->bytes + offset;
}

bool sim_frame_exists(const struct frames *f, uint64_t page)
{
	return page < PAGES_MAX && f->exists[page];
}

/* ---- Swap files --------------------------------------------------------------------------- */

int swap_file_open(const char *path, struct swap_file **file)
{
	struct swap_file *f = &the_swap_file;

	(void)path;
	if (f->used)
		return -EEXIST;
	if (f->bytes == NULL) {
		f->bytes = mmap(NULL, SWAP_PAGES * MKW_PAGE_SIZE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (f->bytes == MAP_FAILED) {
			f->bytes = NULL;
			return -ENOMEM;
		}
	}
	memset(f->written, 0, sizeof(f->written));
	f->used = true;
	*file = f;
	return 0;
}

/* What the VM did not drop it has lost. */
void swap_file_close(struct swap_file *f)
{
	for (size_t i = 0; i < SWAP_PAGES; i++)
		if (f->written[i])
			sim_host_fail("page %zu of the swap file is left in it", i);
	f->used = false;
}

int swap_file_write(struct swap_file *f, uint64_t offset, const void *src, size_t length,
		    size_t *done)
{
	for (*done = 0; *done < length; *done += MKW_PAGE_SIZE) {
		uint64_t page = (offset + *done) / MKW_PAGE_SIZE;

		sim_host_point("writes to page of the swap file", page);
		if (page >= SWAP_PAGES)
			return -ENOSPC;
		memcpy(f->bytes + page * MKW_PAGE_SIZE, (const char *)src + *done, MKW_PAGE_SIZE);
		f->written[page] = true;
	}
	return 0;
}

int swap_file_read(struct swap_file *f, uint64_t offset, void *dst, size_t length)
{
	for (size_t at = 0; at < length; at += MKW_PAGE_SIZE) {
		uint64_t page = (offset + at) / MKW_PAGE_SIZE;

		sim_host_point("reads page of the swap file", page);
		if (page >= SWAP_PAGES || !f->written[page])
			sim_host_fail("page %llu of the swap file is read, and was never written",
				      (unsigned long long)page);
		memcpy((char *)dst + at, f->bytes + page * MKW_PAGE_SIZE, MKW_PAGE_SIZE);
	}
	return 0;
}

void swap_file_drop(struct swap_file *f, uint64_t offset, uint64_t length)
{
	for (uint64_t at = offset; at < offset + length; at += MKW_PAGE_SIZE) {
		sim_host_point("drops page of the swap file", at / MKW_PAGE_SIZE);
		if (at / MKW_PAGE_SIZE < SWAP_PAGES)
			f->written[at / MKW_PAGE_SIZE] = false;
	}
}

/* ---- Views -------------------------------------------------------------------------------- */

static struct sim_view *view_at(uintptr_t address)
{
	for (unsigned i = 0; i < VIEWS_MAX; i++)
		if (views[i].used && address - views[i].at.address < views[i].at.length &&
		    views[i].mapped[(address - views[i].at.address) / MKW_PAGE_SIZE])
			return &views[i];
	return NULL;
}

static struct sim_view *sim_of(const struct mmu_view *view)
{
	struct sim_view *v = view_at(view->address);

	if (v == NULL || v->at.mmu != view->mmu || v->at.frames != view->frames ||
	    v->frame[(view->address - v->at.address) / MKW_PAGE_SIZE] !=
		    view->offset / MKW_PAGE_SIZE)
		sim_host_fail("an operation on a view that is not mapped");
	return v;
}

const struct frames *sim_frames_of(uintptr_t address)
{
	const struct sim_view *v = view_at(address);

	return v != NULL ? v->at.frames : NULL;
}

/* Which page of the frames a page of a view shows. */
static uint64_t frame_of(const struct sim_view *v, size_t i)
{
	return v->frame[i];
}

/* The first index into entries of an address range, checked. */
static size_t index_of(const struct sim_view *v, uintptr_t address, size_t length)
{
	uintptr_t offset = address - v->at.address;

	if (address % MKW_PAGE_SIZE != 0 || length % MKW_PAGE_SIZE != 0 || length == 0 ||
	    offset >= v->at.length || length > v->at.length - offset)
		sim_host_fail("an operation on a range that is not the view's");
	for (size_t i = offset / MKW_PAGE_SIZE; i < (offset + length) / MKW_PAGE_SIZE; i++)
		if (!v->mapped[i])
			sim_host_fail("an operation on a page that is not mapped");
	return offset / MKW_PAGE_SIZE;
}

static void flush(struct sim_view *v, size_t from, size_t count)
{
	for (unsigned cpu = 0; cpu < SIM_CPUS; cpu++)
		memset(&v->cached[cpu][from], SIM_NONE, count);
}

/* The lowest address that is free: what is mapped after an unmapping takes its place. */
static uintptr_t address_find(size_t length)
{
	uintptr_t address = BASE;

	for (unsigned i = 0; i < VIEWS_MAX; i++) {
		if (!views[i].used || views[i].at.address >= address + length ||
		    address >= views[i].at.address + views[i].at.length)
			continue;
		address = views[i].at.address + views[i].at.length + MKW_PAGE_SIZE;
		i = UINT32_MAX; /* from the first again */
	}
	return address;
}

/* There is no room for what would grow or move. */
int mmu_place_take(uintptr_t *address, size_t length)
{
	(void)address;
	(void)length;
	return -ENOMEM;
}

void mmu_place_give(uintptr_t address, size_t length)
{
	(void)address;
	(void)length;
}

int mmu_view_move(struct mmu_view *view, uintptr_t address, size_t length, uintptr_t to)
{
	(void)view;
	(void)address;
	(void)length;
	(void)to;
	return -ENOMEM;
}

static void pages_map(struct sim_view *v, size_t from, size_t count, uint64_t frame)
{
	for (size_t i = from; i < from + count; i++) {
		v->mapped[i] = true;
		v->allowed[i] = 0;
		v->frame[i] = (uint32_t)(frame + i - from);
		v->entries[i] = SIM_NONE;
		v->copied[i] = v->let[i] = false;
	}
	flush(v, from, count);
}

/* Over closed pages, which show something else from then on. */
static int map_over(struct mmu_view *view)
{
	struct sim_view *v = view_at(view->address);
	size_t first;

	if (v == NULL)
		sim_host_fail("a view is mapped where there is no place for it");
	first = index_of(v, view->address, view->length);
	for (size_t i = first; i < first + view->length / MKW_PAGE_SIZE; i++)
		if (v->allowed[i] != 0)
			sim_host_fail("pages that are not closed are mapped over");
	pages_map(v, first, view->length / MKW_PAGE_SIZE, view->offset / MKW_PAGE_SIZE);
	return 0;
}

int mmu_view_map(struct mmu_view *view)
{
	size_t pages = view->length / MKW_PAGE_SIZE;

	sim_host_point("maps a view", view->address);
	view->mmu->counts.calls++;
	if (view->address != 0)
		return map_over(view);
	for (unsigned i = 0; i < VIEWS_MAX && pages <= PAGES_MAX; i++) {
		struct sim_view *v = &views[i];

		if (v->used)
			continue;
		view->address = address_find(view->length);
		if (view->private && v->copies == NULL) {
			v->copies = mmap(NULL, PAGES_MAX * MKW_PAGE_SIZE, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			if (v->copies == MAP_FAILED)
				return -ENOMEM;
		}
		v->pages = pages;
		v->at = *view;
		pages_map(v, 0, pages, view->offset / MKW_PAGE_SIZE);
		v->used = true;
		return 0;
	}
	return -ENOMEM;
}

static uint64_t protections; /* changes of what mappings allow, each before and after */

/* What an entry lets through stays as it is: the mapping's protection comes before it. */
int mmu_view_protect(struct mmu_view *view, uintptr_t address, size_t length, bool readable,
		     bool writable)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_host_point("changes the protection of the view", address);
	protections++;
	view->mmu->counts.calls++;
	memset(&v->allowed[first], (readable ? MKW_READ : 0) | (writable ? MKW_WRITE : 0), count);
	sim_host_point("flushes the view", address);
	flush(v, first, count);
	protections++;
	return 0;
}

int mmu_view_open(struct mmu_view *view)
{
	return mmu_view_protect(view, view->address, view->length, view->readable, view->writable);
}

static void wake_threads(struct mmu *m, uintptr_t address, size_t length)
{
	for (unsigned i = 0; i < SIM_CPUS; i++)
		if (cpus[i].waiting && cpus[i].page - address < length) {
			cpus[i].waiting = false;
			event_drop(m, cpus[i].tid);
			sim_host_wake(&cpus[i], true);
		}
}

void mmu_view_cut(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length), count = length / MKW_PAGE_SIZE;

	sim_host_point("unmaps pages", address);
	/* Who faults from here on finds no mapping. */
	memset(&v->allowed[first], 0, count);
	memset(&v->entries[first], SIM_NONE, count);
	sim_host_point("flushes the pages", address);
	flush(v, first, count);
	memset(&v->mapped[first], false, count * sizeof(v->mapped[0]));
	if (memchr(v->mapped, true, v->pages * sizeof(v->mapped[0])) == NULL)
		v->used = false;
	mmu_wake(view, address, length);
}

void mmu_view_unmap(struct mmu_view *view)
{
	mmu_view_cut(view, view->address, view->length);
}

/* ---- Wakes, as wakes.c counts them -------------------------------------------------------- */

static void wake_begin(const struct mmu_view *view, uintptr_t address, size_t length)
{
	if (view->backend != MMU_INLINE)
		for (size_t at = 0; at < length; at += MKW_PAGE_SIZE)
			woken[(address + at) / MKW_PAGE_SIZE % WAKE_PLACES].under_way++;
}

static void wake_end(const struct mmu_view *view, uintptr_t address, size_t length)
{
	if (view->backend == MMU_INLINE)
		return;
	wake_clock++;
	for (size_t at = 0; at < length; at += MKW_PAGE_SIZE) {
		size_t place = (address + at) / MKW_PAGE_SIZE % WAKE_PLACES;

		woken[place].ended = wake_clock;
		woken[place].under_way--;
	}
}

uint64_t mmu_report_time(void)
{
	return handler_of != NULL ? report_time : UINT64_MAX;
}

bool mmu_woken_since(uintptr_t address, uint64_t time)
{
	size_t place = address / MKW_PAGE_SIZE % WAKE_PLACES;

	return woken[place].under_way > 0 || woken[place].ended > time;
}

/* ---- Operations on entries ---------------------------------------------------------------- */

static void count_call(struct mmu_view *view)
{
	view->mmu->counts.calls++;
}

int mmu_fill(struct mmu_view *view, uintptr_t address, size_t length, const void *src, size_t *done)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length);

	count_call(view);
	wake_begin(view, address, length);
	for (*done = 0; *done < length; *done += MKW_PAGE_SIZE) {
		size_t i = first + *done / MKW_PAGE_SIZE;

		sim_host_point("fills and maps read-only", address + *done);
		frame_make(view->frames, frame_of(v, i), (const char *)src + *done);
		v->entries[i] = SIM_RO;
		wake_threads(view->mmu, address + *done, MKW_PAGE_SIZE);
	}
	wake_end(view, address, length);
	return 0;
}

int mmu_map_ro(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length), count = length / MKW_PAGE_SIZE;

	count_call(view);
	wake_begin(view, address, length);
	for (size_t i = first; i < first + count; i++) {
		sim_host_point("maps read-only", v->at.address + i * MKW_PAGE_SIZE);
		if (v->entries[i] <= SIM_MARKER && sim_frame_exists(view->frames, frame_of(v, i)))
			v->entries[i] = SIM_RO;
		wake_threads(view->mmu, v->at.address + i * MKW_PAGE_SIZE, MKW_PAGE_SIZE);
	}
	wake_end(view, address, length);
	return 0;
}

int mmu_map_rw(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length), count = length / MKW_PAGE_SIZE;

	if (!view->writable || view->private)
		sim_host_fail("a page of a read-only or private view is mapped writable");
	count_call(view);
	wake_begin(view, address, length);
	for (size_t i = first; i < first + count; i++) {
		sim_host_point("maps writable", v->at.address + i * MKW_PAGE_SIZE);
		if (!sim_frame_exists(view->frames, frame_of(v, i)))
			sim_host_fail("page %llu is mapped writable and has no frame",
				      (unsigned long long)frame_of(v, i));
		v->entries[i] = SIM_RW;
		wake_threads(view->mmu, v->at.address + i * MKW_PAGE_SIZE, MKW_PAGE_SIZE);
	}
	wake_end(view, address, length);
	return 0;
}

int mmu_let_rw(struct mmu_view *view, uintptr_t address, size_t length)
{
	return mmu_map_rw(view, address, length);
}

int mmu_protect(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length), count = length / MKW_PAGE_SIZE;

	count_call(view);
	sim_host_point("write-protects", address);
	for (size_t i = first; i < first + count; i++) {
		if (v->entries[i] == SIM_NONE)
			v->entries[i] = SIM_MARKER;
		else if (v->entries[i] == SIM_RW)
			v->entries[i] = SIM_RO;
		v->let[i] = false;
	}
	sim_host_point("flushes", address);
	flush(v, first, count);
	return 0;
}

int mmu_zap(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length), count = length / MKW_PAGE_SIZE;

	count_call(view);
	sim_host_point("zaps", address);
	for (size_t i = first; i < first + count; i++)
		v->entries[i] = v->entries[i] == SIM_NONE || v->entries[i] == SIM_RW ? SIM_NONE
										     : SIM_MARKER;
	for (size_t i = first; i < first + count; i++)
		v->copied[i] = v->let[i] = false;
	sim_host_point("flushes", address);
	flush(v, first, count);
	return 0;
}

int frames_drop(struct frames *f, uint64_t offset, uint64_t length)
{
	uint64_t from = offset / MKW_PAGE_SIZE, to = (offset + length) / MKW_PAGE_SIZE;

	sim_host_point("drops the frame of page", from);
	f->drop_from = from;
	f->drop_to = to;
	for (unsigned n = 0; n < VIEWS_MAX; n++)
		for (size_t i = 0; views[n].used && i < views[n].pages; i++)
			if (views[n].at.frames == f && views[n].mapped[i] &&
			    frame_of(&views[n], i) - from < to - from && !views[n].copied[i])
				views[n].entries[i] = SIM_NONE;
	sim_host_point("flushes page", from);
	for (unsigned n = 0; n < VIEWS_MAX; n++)
		for (size_t i = 0; views[n].used && i < views[n].pages; i++)
			if (views[n].at.frames == f && frame_of(&views[n], i) - from < to - from)
				flush(&views[n], i, 1);
	for (uint64_t page = from; page < to && page < f->top; page++)
		f->exists[page] = false;
	f->drop_to = f->drop_from = 0;
	sim_host_wake(f, true);
	return 0;
}

int mmu_present(struct mmu_view *view, uintptr_t address, size_t length, bool *present)
{
	const struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length);

	sim_host_point("looks what is mapped", address);
	for (size_t i = 0; i < length / MKW_PAGE_SIZE; i++)
		present[i] = v->entries[first + i] >= SIM_RO;
	return 0;
}

/* ---- Private views ------------------------------------------------------------------------ */

bool mmu_can_map_base(const struct mmu_view *view)
{
	(void)view;
	return true;
}

int mmu_copy(struct mmu_view *view, uintptr_t address, size_t length, const void *src, size_t *done)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length);

	count_call(view);
	wake_begin(view, address, length);
	for (*done = 0; *done < length; *done += MKW_PAGE_SIZE) {
		size_t i = first + *done / MKW_PAGE_SIZE;

		sim_host_point("makes a copy", address + *done);
		if (v->entries[i] > SIM_MARKER)
			break;
		memcpy(v->copies + i * MKW_PAGE_SIZE, (const char *)src + *done, MKW_PAGE_SIZE);
		v->copied[i] = true;
		v->entries[i] = SIM_RW;
		wake_threads(view->mmu, address + *done, MKW_PAGE_SIZE);
	}
	wake_end(view, address, length);
	return *done == length ? 0 : -EEXIST;
}

int mmu_let_copy(struct mmu_view *view, uintptr_t address, size_t length)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length), count = length / MKW_PAGE_SIZE;

	count_call(view);
	wake_begin(view, address, length);
	for (size_t i = first; i < first + count; i++) {
		sim_host_point("lets copy", v->at.address + i * MKW_PAGE_SIZE);
		if (v->copied[i]) {
			v->entries[i] = SIM_RW;
		} else if (sim_frame_exists(view->frames, frame_of(v, i))) {
			v->entries[i] = SIM_RO;
			v->let[i] = true;
		} else {
			v->entries[i] = SIM_NONE;
		}
		wake_threads(view->mmu, v->at.address + i * MKW_PAGE_SIZE, MKW_PAGE_SIZE);
	}
	wake_end(view, address, length);
	return 0;
}

int mmu_let_write(struct mmu_view *view, uintptr_t address, size_t length, bool *there)
{
	struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length), count = length / MKW_PAGE_SIZE;

	count_call(view);
	wake_begin(view, address, length);
	for (size_t i = first; i < first + count; i++) {
		sim_host_point("lets write", v->at.address + i * MKW_PAGE_SIZE);
		if (v->copied[i])
			v->entries[i] = SIM_RW;
		else if (v->entries[i] == SIM_MARKER)
			v->entries[i] = SIM_NONE;
		wake_threads(view->mmu, v->at.address + i * MKW_PAGE_SIZE, MKW_PAGE_SIZE);
	}
	*there = v->entries[first] > SIM_MARKER;
	wake_end(view, address, length);
	return 0;
}

int mmu_copies(struct mmu_view *view, uintptr_t address, size_t length, bool *copied)
{
	const struct sim_view *v = sim_of(view);
	size_t first = index_of(v, address, length);

	sim_host_point("looks what is copied", address);
	for (size_t i = 0; i < length / MKW_PAGE_SIZE; i++) {
		if (v->entries[first + i] == SIM_RW || v->let[first + i])
			sim_host_fail("a page is looked at that is not protected");
		copied[i] = v->copied[first + i];
	}
	return 0;
}

void mmu_wake(struct mmu_view *view, uintptr_t address, size_t length)
{
	wake_begin(view, address, length);
	sim_host_point("wakes", address);
	if (view->backend != MMU_INLINE)
		wake_threads(view->mmu, address, length);
	wake_end(view, address, length);
}

void mmu_refuse(struct mmu_view *view, uintptr_t address, enum mmu_access access, pid_t tid,
		uint64_t reported)
{
	struct cpu *cpu = &cpus[sim_host_cpu_of(tid)];

	(void)reported;
	(void)view;
	(void)access;
	sim_host_point("queues a refusal", address);
	cpu->signalled = true;
	cpu->signal_address = address;
	cpu->waiting = false;
	sim_host_wake(cpu, true);
}

bool mmu_thread_in_syscall_on(pid_t tid, uint64_t dev, uint64_t ino)
{
	(void)tid;
	(void)dev;
	(void)ino;
	return false;
}

size_t mmu_thread_stores(pid_t tid, struct mmu_extent *extents, size_t max)
{
	(void)tid;
	(void)extents;
	(void)max;
	return 0;
}

/* ---- For checks --------------------------------------------------------------------------- */

/* What the view shows of the page, from index i on; false: nothing more. */
static bool find_frame(const struct sim_view *v, const struct frames *f, uint64_t page, size_t *i)
{
	if (!v->used || v->at.private || v->at.frames != f)
		return false;
	while (*i < v->pages && (!v->mapped[*i] || v->frame[*i] != page))
		++*i;
	return *i < v->pages;
}

enum sim_entry sim_strongest(const struct frames *f, uint64_t page, bool caches)
{
	uint8_t strongest = SIM_NONE;

	for (unsigned n = 0; n < VIEWS_MAX; n++) {
		const struct sim_view *v = &views[n];

		for (size_t i = 0; find_frame(v, f, page, &i); i++) {
			uint8_t entry = v->entries[i];

			if (entry == SIM_RW && (v->allowed[i] & MKW_WRITE) == 0)
				entry = SIM_RO;
			if (entry > strongest)
				strongest = entry;
			for (unsigned cpu = 0; caches && cpu < SIM_CPUS; cpu++)
				if (v->cached[cpu][i] > strongest)
					strongest = v->cached[cpu][i];
		}
	}
	return strongest;
}

bool sim_unarmed(const struct frames *f, uint64_t page)
{
	for (unsigned n = 0; n < VIEWS_MAX; n++) {
		const struct sim_view *v = &views[n];

		for (size_t i = 0; find_frame(v, f, page, &i); i++)
			if ((v->allowed[i] & MKW_WRITE) != 0 && v->entries[i] == SIM_NONE)
				return true;
	}
	return false;
}

/* ---- Accesses of the program -------------------------------------------------------------- */

/* Signals that were queued to the running thread arrive. An errno: it was refused, at this access.
 */
static int take_signals(uintptr_t address, struct mkw_refusal *refusal)
{
	struct cpu *cpu = &cpus[sim_host_self()];
	uintptr_t at = cpu->signal_address;

	if (!cpu->signalled)
		return 0;
	cpu->signalled = false;
	if (!signals.refused(at, refusal))
		return 0;
	if (address / MKW_PAGE_SIZE != at / MKW_PAGE_SIZE)
		sim_host_fail("a refusal at %#lx reached its thread at %#lx", (unsigned long)at,
			      (unsigned long)address);
	signals.deliver(refusal);
	return refusal->error;
}

static int report(struct sim_view *v, uintptr_t address, enum mmu_access access,
		  struct mkw_refusal *refusal)
{
	struct cpu *cpu = &cpus[sim_host_self()];
	struct mmu *m = v->at.mmu;

	cpu->reports++;
	m->counts.events++;
	if (v->at.backend == MMU_INLINE) {
		refusal->error = 0;
		if (!signals.inline_fault(address, access, refusal))
			return -EACCES;
		if (refusal->error != 0)
			signals.deliver(refusal);
		return refusal->error;
	}
	if (m->head - m->tail == EVENTS_MAX)
		sim_host_fail("too many events");
	m->events[m->head++ % EVENTS_MAX] = (struct event){address, access, sim_host_tid()};
	cpu->waiting = true;
	cpu->tid = sim_host_tid();
	cpu->page = address & ~(uintptr_t)(MKW_PAGE_SIZE - 1);
	sim_host_wake(m, false);
	sim_host_wait("faults", cpu);
	event_drop(m, cpu->tid); /* a signal ended the wait */
	return 0;
}

/* What the entry lets an access of this kind do, changed as the machine changes it; SIM_NONE: a
 * report. */
static enum sim_entry walk_private(struct sim_view *v, size_t i, enum mmu_access access)
{
	if (v->entries[i] <= SIM_MARKER)
		return SIM_NONE;
	if (access == MMU_READ || v->entries[i] == SIM_RW)
		return (enum sim_entry)v->entries[i];
	if (v->copied[i] || !v->let[i])
		return SIM_NONE;
	memcpy(v->copies + i * MKW_PAGE_SIZE, v->at.frames->bytes + frame_of(v, i) * MKW_PAGE_SIZE,
	       MKW_PAGE_SIZE);
	flush(v, i, 1);
	v->copied[i] = true;
	v->let[i] = false;
	v->entries[i] = SIM_RW;
	return SIM_RW;
}

static enum sim_entry walk(struct sim_view *v, size_t i, enum mmu_access access)
{
	enum sim_entry need = access == MMU_WRITE ? SIM_RW : SIM_RO;

	if (v->at.private)
		return walk_private(v, i, access);
	if (!sim_frame_exists(v->at.frames, frame_of(v, i)))
		return v->entries[i] >= need ? (enum sim_entry)v->entries[i] : SIM_NONE;
	if (v->entries[i] == SIM_NONE)
		v->entries[i] = SIM_RW; /* as far as the mapping allows it, now or later */
	else if (v->entries[i] == SIM_MARKER && access == MMU_READ)
		v->entries[i] = SIM_RO;
	return v->entries[i] >= need ? (enum sim_entry)v->entries[i] : SIM_NONE;
}

/* shmem_fault in Linux waits for a hole punch over its page. */
static bool is_dropped(const struct sim_view *v, size_t i)
{
	const struct frames *f = v->at.frames;

	return frame_of(v, i) >= f->drop_from && frame_of(v, i) < f->drop_to;
}

static uint64_t *word_at(const struct sim_view *v, size_t i, uintptr_t address)
{
	uintptr_t offset = address - v->at.address;
	char *bytes = v->at.private && v->copied[i]
			      ? v->copies + offset
			      : v->at.frames->bytes + frame_of(v, i) * MKW_PAGE_SIZE +
					offset % MKW_PAGE_SIZE;

	return (uint64_t *)(void *)bytes;
}

static bool is_allowed(const struct sim_view *v, size_t i, enum mmu_access access)
{
	return (v->allowed[i] & (access == MMU_WRITE ? MKW_WRITE : MKW_READ)) != 0;
}

/* Until the access can be made: where. NULL: *error. */
static uint64_t *translate(uintptr_t address, enum mmu_access access, struct mkw_refusal *refusal,
			   int *error)
{
	unsigned self = sim_host_self();
	uint8_t need = access == MMU_WRITE ? SIM_RW : SIM_RO;
	uint64_t forbidden = UINT64_MAX; /* protections, when the mapping last did */

	cpus[self].reports = 0;
	for (;;) {
		struct sim_view *v;
		size_t i;

		sim_host_point(access == MMU_WRITE ? "writes" : "reads", address);
		*error = take_signals(address, refusal);
		if (*error != 0)
			return NULL;
		v = view_at(address);
		i = v != NULL ? (address - v->at.address) / MKW_PAGE_SIZE : 0;
		/* What is cached needs nothing else to be there still. */
		if (v == NULL || v->cached[self][i] < need) {
			*error = -EACCES;
			if (v == NULL)
				return NULL;
			if (!is_allowed(v, i, access)) {
				uint64_t now = protections;

				/* As in signal.c: the second time it is nobody's but the
				 * program's. */
				if (!signals.allowed(address, access) || now == forbidden)
					return NULL;
				forbidden = now;
				continue;
			}
			if (v->entries[i] < need && is_dropped(v, i)) {
				sim_host_wait("waits for the frame to go", v->at.frames);
				continue;
			}
			v->cached[self][i] = (uint8_t)walk(v, i, access);
			if (v->cached[self][i] == SIM_RW && !is_allowed(v, i, MMU_WRITE))
				v->cached[self][i] = SIM_RO;
		}
		if (v->cached[self][i] >= need)
			return word_at(v, i, address);
		*error = report(v, address, access, refusal);
		if (*error != 0)
			return NULL;
	}
}

int sim_load(uintptr_t address, uint64_t *value, struct mkw_refusal *refusal)
{
	struct mkw_refusal none;
	const uint64_t *word;
	int error;

	word = translate(address, MMU_READ, refusal != NULL ? refusal : &none, &error);
	if (word != NULL)
		*value = *word;
	return word != NULL ? 0 : error;
}

int sim_store(uintptr_t address, uint64_t value, void (*commit)(void *arg), void *arg,
	      struct mkw_refusal *refusal)
{
	struct mkw_refusal none;
	uint64_t *word;
	int error;

	word = translate(address, MMU_WRITE, refusal != NULL ? refusal : &none, &error);
	if (word == NULL)
		return error;
	*word = value;
	if (commit != NULL)
		commit(arg);
	return 0;
}

unsigned sim_reports(void)
{
	return cpus[sim_host_self()].reports;
}
