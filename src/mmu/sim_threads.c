/* SPDX-License-Identifier: MIT */
/*
 * sim_threads.c - the simulated machine: handler threads, reports, wakes, refusals. A report is
 * queued when a thread meets an entry, and read at any time after; a queued refusal reaches its
 * thread at its next access.
 */
#include "sim_machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX  64
#define HANDLERS    16
#define WAKE_PLACES 256u

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

void sim_threads_reset(void)
{
	memset(cpus, 0, sizeof(cpus));
	memset(woken, 0, sizeof(woken));
	wake_clock = 0;
	machines = 0;
}

unsigned sim_machines(void)
{
	return machines;
}

void sim_count_call(struct mmu_view *view)
{
	view->mmu->counts.calls++;
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

/* ---- Wakes, as wakes.c counts them -------------------------------------------------------- */

void sim_wake_threads(const struct mmu_view *view, uintptr_t address, size_t length)
{
	for (unsigned i = 0; i < SIM_CPUS; i++)
		if (cpus[i].waiting && cpus[i].page - address < length) {
			cpus[i].waiting = false;
			event_drop(view->mmu, cpus[i].tid);
			sim_host_wake(&cpus[i], true);
		}
}

void sim_wake_begin(const struct mmu_view *view, uintptr_t address, size_t length)
{
	if (view->backend != MMU_INLINE)
		for (size_t at = 0; at < length; at += MKW_PAGE_SIZE)
			woken[(address + at) / MKW_PAGE_SIZE % WAKE_PLACES].under_way++;
}

void sim_wake_end(const struct mmu_view *view, uintptr_t address, size_t length)
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

void mmu_wake(struct mmu_view *view, uintptr_t address, size_t length)
{
	sim_wake_begin(view, address, length);
	sim_host_point("wakes", address);
	if (view->backend != MMU_INLINE)
		sim_wake_threads(view, address, length);
	sim_wake_end(view, address, length);
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

/* ---- What a thread of the program meets -------------------------------------------------- */

int sim_take_signals(uintptr_t address, struct mkw_refusal *refusal)
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

int sim_report(const struct mmu_view *view, uintptr_t address, enum mmu_access access,
	       struct mkw_refusal *refusal)
{
	struct cpu *cpu = &cpus[sim_host_self()];
	struct mmu *m = view->mmu;

	cpu->reports++;
	m->counts.events++;
	if (view->backend == MMU_INLINE) {
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

bool sim_allowed(uintptr_t address, enum mmu_access access)
{
	return signals.allowed(address, access);
}

void sim_reports_reset(void)
{
	cpus[sim_host_self()].reports = 0;
}

unsigned sim_reports(void)
{
	return cpus[sim_host_self()].reports;
}
