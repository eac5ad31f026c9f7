/* SPDX-License-Identifier: MIT */
/*
 * protect.c - re-protection by the library's own machine layer (src/mmu), which the static library
 * lets us call: mmu_protect over written pages, all of the view at once and 2 MiB a call, as
 * write-back does it. No VM above it.
 */
#include "library.h"

#include <errno.h>
#include <mmu/mmu.h>
#include <stdlib.h>
#include <string.h>

struct machine {
	struct mkw_space *space; /* its making sets up the process's signals, which mmu.h wants */
	struct mmu *mmu;
	struct frames *frames;
	struct mmu_view view;
	bool mapped;
};

static void fault_answer(void *arg, uintptr_t address, enum mmu_access access, pid_t tid)
{
	struct machine *machine = arg;

	(void)access;
	(void)tid;
	mmu_map_rw(&machine->view, address & ~(uintptr_t)(BENCH_PAGE - 1), BENCH_PAGE);
}

static void ready_ignore(void *arg)
{
	(void)arg;
}

static void machine_close(struct bench *bench, void *state)
{
	struct machine *machine = state;

	(void)bench;
	if (machine->mapped)
		mmu_view_unmap(&machine->view);
	if (machine->frames)
		frames_destroy(machine->frames);
	if (machine->mmu)
		mmu_destroy(machine->mmu);
	if (machine->space)
		mkw_space_destroy(machine->space, MKW_DISCARD);
	free(machine);
}

static int frames_make(struct machine *machine, size_t size)
{
	int rc = frames_create(&machine->frames);

	for (size_t done = 0; done < size && !rc; done += (size_t)(2 * MIB))
		rc = frames_fill(machine->frames, done, (size_t)(2 * MIB), NULL);
	return rc;
}

static int machine_make(struct bench *bench, struct machine *machine)
{
	static const struct mmu_upcalls upcalls = {.fault = fault_answer, .ready = ready_ignore};
	struct mmu_options options = {
		.workers = 1, .workers_max = 1, .upcalls = &upcalls, .arg = machine};
	int rc = mkw_space_create(NULL, &machine->space);

	if (!rc)
		rc = mmu_create(&options, &machine->mmu);
	if (!rc)
		rc = frames_make(machine, bench->size);
	if (rc)
		return rc;
	machine->view = (struct mmu_view){.mmu = machine->mmu,
					  .backend = MMU_UFFD,
					  .length = bench->size,
					  .readable = true,
					  .writable = true,
					  .frames = machine->frames};
	rc = mmu_view_map(&machine->view);
	machine->mapped = rc == 0;
	return rc;
}

static int machine_open(struct bench *bench, const struct bench_measure *measure, void **state)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	int rc;

	(void)measure;
	if (!machine)
		return -ENOMEM;
	rc = machine_make(bench, machine);
	if (rc) {
		library_say(bench, rc, "machine layer");
		machine_close(bench, machine);
		return rc;
	}
	*state = machine;
	return 0;
}

static int protect_run(struct bench *bench, const struct bench_measure *measure, void *state,
		       struct bench_sample *sample)
{
	const size_t *call_bytes = measure->arg;
	struct machine *machine = state;
	size_t size = machine->view.length, step = *call_bytes ? *call_bytes : size;
	uint64_t calls, start;
	int rc = mmu_map_rw(&machine->view, machine->view.address, size);

	if (rc)
		return library_say(bench, rc, "mmu_map_rw");
	bench_write_pages((void *)machine->view.address, size / BENCH_PAGE, NULL);
	calls = mmu_counts(machine->mmu)->calls;
	bench_pin(bench->cpus[0]);
	start = bench_now_ns();
	for (size_t done = 0; done < size && !rc; done += step)
		rc = mmu_protect(&machine->view, machine->view.address + done, step);
	sample->elapsed_ns = bench_now_ns() - start;
	bench_unpin();
	sample->units = size / BENCH_PAGE;
	sample->counts.has_events = true;
	sample->counts.calls = mmu_counts(machine->mmu)->calls - calls;
	return rc ? library_say(bench, rc, "mmu_protect") : 0;
}

#define TARGET_NS 150

const struct bench_measure bench_protect_measures[] = {
	{.name = "reprotect/mmu",
	 .text = "library: mmu_protect of written pages, 512 a call",
	 .arg = &(const size_t){(size_t)(2 * MIB)},
	 .open = machine_open,
	 .run = protect_run,
	 .close = machine_close,
	 .target = BENCH_FIGURE_AT_MOST,
	 .limit = TARGET_NS,
	 .against = "reprotect/bare*"},
	{.name = "reprotect/mmu-whole",
	 .text = "library: the same, all in one call",
	 .arg = &(const size_t){0},
	 .open = machine_open,
	 .run = protect_run,
	 .close = machine_close,
	 .target = BENCH_FIGURE_AT_MOST,
	 .limit = TARGET_NS,
	 .against = "reprotect/bare*"},
	{.name = NULL},
};
