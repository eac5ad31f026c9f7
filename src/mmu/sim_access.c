/* SPDX-License-Identifier: MIT */
/*
 * sim_access.c - the simulated machine: a thread of the program reads or writes a word. It goes by
 * what it has cached; else by the entry, which the machine may change by itself; else it reports
 * and waits.
 */
#include "sim_machine.h"

#include <errno.h>

/* What the entry lets an access of this kind do, changed as the machine changes it; SIM_NONE: a
 * report. */
static enum sim_entry walk(struct sim_view *v, size_t i, enum mmu_access access)
{
	enum sim_entry need = access == MMU_WRITE ? SIM_RW : SIM_RO;

	if (!sim_frame_exists(v->at.frames, sim_frame_of(v, i)))
		return v->entries[i] >= need ? (enum sim_entry)v->entries[i] : SIM_NONE;
	if (v->entries[i] == SIM_NONE)
		v->entries[i] = SIM_RW; /* as far as the mapping allows it, now or later */
	else if (v->entries[i] == SIM_MARKER && access == MMU_READ)
		v->entries[i] = SIM_RO;
	return v->entries[i] >= need ? (enum sim_entry)v->entries[i] : SIM_NONE;
}

/* shmem_fault in Linux waits for a hole punch over its page. What is mapped in a private view needs
 * no such fault. */
static bool is_dropped(const struct sim_view *v, size_t i, uint8_t need)
{
	const struct frames *f = v->at.frames;

	return v->entries[i] < (v->at.private ? SIM_RO : need) &&
	       sim_frame_of(v, i) >= f->drop_from && sim_frame_of(v, i) < f->drop_to;
}

/* What the running thread has cached. */
static uint64_t *word_at(const struct sim_view *v, size_t i, uintptr_t address)
{
	uintptr_t offset = address - v->at.address;
	bool copy = v->at.private && (v->cached_copy[i] >> sim_host_self() & 1) != 0;
	char *bytes = copy ? v->copies + offset
			   : v->at.frames->bytes + sim_frame_of(v, i) * MKW_PAGE_SIZE +
				      offset % MKW_PAGE_SIZE;

	return (uint64_t *)(void *)bytes;
}

static bool is_allowed(const struct sim_view *v, size_t i, enum mmu_access access)
{
	return (v->allowed[i] & (access == MMU_WRITE ? MKW_WRITE : MKW_READ)) != 0;
}

/* False: the machine was at work, the access is to be tried again. */
static bool cache(struct sim_view *v, size_t i, enum mmu_access access)
{
	unsigned self = sim_host_self();
	enum sim_entry entry;
	bool again = false;

	entry = v->at.private ? sim_private_walk(v, i, access, &again) : walk(v, i, access);
	if (again)
		return false;
	if (entry == SIM_RW && !is_allowed(v, i, MMU_WRITE))
		entry = SIM_RO;
	v->cached[self][i] = (uint8_t)entry;
	v->cached_copy[i] &= ~(1u << self);
	v->cached_copy[i] |= (uint32_t)v->copied[i] << self;
	return true;
}

/* Until the access can be made: where. NULL: *error. */
static uint64_t *translate(uintptr_t address, enum mmu_access access, struct mkw_refusal *refusal,
			   int *error)
{
	unsigned self = sim_host_self();
	uint64_t forbidden = UINT64_MAX; /* sim_protections, when the mapping last did */
	uint8_t need = access == MMU_WRITE ? SIM_RW : SIM_RO;

	sim_reports_reset();
	for (;;) {
		struct sim_view *v;
		size_t i;

		sim_host_point(access == MMU_WRITE ? "writes" : "reads", address);
		*error = sim_take_signals(address, refusal);
		if (*error != 0)
			return NULL;
		v = sim_view_at(address);
		i = v != NULL ? (address - v->at.address) / MKW_PAGE_SIZE : 0;
		/* What is cached needs nothing else to be there still. */
		if (v == NULL || v->cached[self][i] < need) {
			*error = -EACCES;
			if (v == NULL)
				return NULL;
			if (!is_allowed(v, i, access)) {
				uint64_t now = sim_protections();

				/* As in signal.c: the second time it is nobody's but the
				 * program's. */
				if (!sim_allowed(address, access) || now == forbidden)
					return NULL;
				forbidden = now;
				continue;
			}
			if (is_dropped(v, i, need)) {
				sim_host_wait("waits for the frame to go", v->at.frames);
				continue;
			}
			if (!cache(v, i, access))
				continue;
		}
		if (v->cached[self][i] >= need)
			return word_at(v, i, address);
		*error = sim_report(&v->at, address, access, refusal);
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

/* ---- Devices ------------------------------------------------------------------------------ */

struct sim_hold sim_hold_at(uintptr_t address)
{
	const struct sim_view *v = sim_view_at(address);
	struct sim_hold hold = {.frames = NULL};
	size_t i;

	if (v == NULL)
		return hold;
	i = sim_index(v, address, MKW_PAGE_SIZE);
	hold.page = sim_frame_of(v, i);
	hold.frames = v->at.frames;
	hold.born = hold.frames->born[hold.page];
	hold.copy = v->at.private && v->copied[i] ? v->copy[i] : 0;
	return hold;
}

static char *held_copy(const struct sim_hold *hold, uintptr_t *address)
{
	for (unsigned n = 0; n < SIM_VIEWS_MAX; n++) {
		const struct sim_view *v = &sim_views[n];

		for (size_t i = 0; v->used && v->at.private && i < v->pages; i++)
			if (v->copied[i] && v->copy[i] == hold->copy) {
				*address = sim_address_of(v, i);
				return v->copies + i * MKW_PAGE_SIZE;
			}
	}
	return NULL;
}

char *sim_held(const struct sim_hold *hold, uintptr_t *address)
{
	if (hold->copy != 0)
		return held_copy(hold, address);
	*address = 0;
	if (hold->frames == NULL || !sim_frame_exists(hold->frames, hold->page) ||
	    hold->frames->born[hold->page] != hold->born)
		return NULL;
	return hold->frames->bytes + hold->page * MKW_PAGE_SIZE;
}
