/* SPDX-License-Identifier: MIT */
/*
 * sim.h - a simulated machine behind mmu.h: entries, translation caches and accesses are data and
 * calls. It knows no kernel and no real thread: whoever uses it gives the threads (the sim_host
 * functions) and makes the accesses of the simulated program (sim_load, sim_store).
 */
#ifndef SIM_H
#define SIM_H

#include "mmu.h"

/* What a page of a view can be in, page table and translation cache alike. */
enum sim_entry { SIM_NONE, SIM_MARKER, SIM_RO, SIM_RW };

/* ---- The simulated program ---------------------------------------------------------------- */

/* One access of 8 bytes, aligned. 0, or the refusal's negative errno; -EACCES: the mapping does
 * not allow it (the real machine's SIGSEGV). refusal may be NULL. */
int sim_load(uintptr_t address, uint64_t *value, struct mkw_refusal *refusal);
/* commit is called when the value has just reached memory, before anybody else runs. */
int sim_store(uintptr_t address, uint64_t value, void (*commit)(void *arg), void *arg,
	      struct mkw_refusal *refusal);

/* The program drops a page of a private view by a call of its own (madvise). Was it a copy? */
bool sim_toss(uintptr_t address);
/* The machine needs memory and takes translations of frames from private views. */
void sim_shake(const struct frames *frames);

/* ---- Devices ------------------------------------------------------------------------------ */

/* The page that was at an address when a device took hold of it: a frame, or a private copy. */
struct sim_hold {
	const struct frames *frames;
	uint64_t page, copy; /* copy: its number; 0: it is a frame */
	uint32_t born;
};
struct sim_hold sim_hold_at(uintptr_t address);
/* Its bytes, and of a copy the address that shows it; NULL: it is nobody's any more. */
char *sim_held(const struct sim_hold *hold, uintptr_t *address);

/* ---- For checks --------------------------------------------------------------------------- */

/* The strongest entry of a page of the frames in any view, in page tables and caches. */
enum sim_entry sim_strongest(const struct frames *frames, uint64_t page, bool caches);
/* A writable, open view has no marker at a page with a frame: a write would not be reported. */
bool sim_unarmed(const struct frames *frames, uint64_t page);
bool sim_frame_exists(const struct frames *frames, uint64_t page);
const struct frames *sim_frames_of(uintptr_t address);
/* Of the private view at an address: a number that no other view has. 0: there is none. */
uint64_t sim_serial_of(uintptr_t address);
/* Which page of its frames the view at an address shows. */
uint64_t sim_page_of(uintptr_t address);
/* What a page of a private view is in; all zeros: no such view. */
struct sim_private {
	enum sim_entry entry; /* the strongest, page table and caches */
	bool let;	      /* the machine may copy it without a word */
	const char *copy;     /* the bytes that the view has for itself; NULL: it has none */
};
struct sim_private sim_private_of(uintptr_t address);
/* The bytes of a page of the swap file, NULL: there are none. */
const char *sim_swap_bytes(uint64_t page);
/* What has been made and not ended: machines, frames, views. */
unsigned sim_live(void);
/* How many times the running thread's last access was reported. */
unsigned sim_reports(void);
/* Before a run: nothing is left of the one before. */
void sim_reset(void);

/* ---- What the host gives ------------------------------------------------------------------ */

#define SIM_CPUS 24 /* most threads; each has a translation cache of its own */

unsigned sim_host_self(void); /* below SIM_CPUS */
pid_t sim_host_tid(void);
unsigned sim_host_cpu_of(pid_t tid);
/* A point: another thread may run here. */
void sim_host_point(const char *what, uintptr_t address);
void sim_host_wait(const char *what, const void *key);
void sim_host_wake(const void *key, bool all);
unsigned sim_host_start(const char *name, void (*fn)(void *), void *arg);
void sim_host_join(unsigned thread);
/* The machine takes the bytes of an existing frame, to copy it for the private view at address. */
void sim_host_taken(uintptr_t address, const void *bytes);
/* The page of a private view at address has just become its own, with these bytes. by_machine: a
 * write did it, else mmu_copy. */
void sim_host_copied(uintptr_t address, const void *bytes, bool by_machine);
/* What comes of a write to that page of the swap file: 0 or a negative errno. */
int sim_host_swap(uint64_t page);
/* Somebody broke a rule of mmu.h. */
void sim_host_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
