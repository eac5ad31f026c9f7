/* SPDX-License-Identifier: MIT */
/*
 * machine.h - what the files of src/mmu share; nobody else includes it.
 *
 * Locks, ascending: machine.grow (workers.c), machine.inbox (workers.c), machine.windows
 * (refuse.c), frames.grow (memfd.c). None is held across an upcall, and none while another one of
 * them is taken.
 */
#ifndef MMU_MACHINE_H
#define MMU_MACHINE_H

#include "mmu.h"
#include "uffd_abi.h"

#include <mkwrite/store.h>
#include <pthread.h>
#include <signal.h>

/* ---- Descriptors (descriptor.c) ----------------------------------------------------------- */

/* What the running kernel gives, less what MKW_UFFD_WITHOUT takes away. */
struct features {
	uint64_t bits;	    /* as UFFDIO_API answered */
	bool syscalls;	    /* faults inside system calls are reported, too */
	bool continue_wp;   /* UFFDIO_CONTINUE can map write-protected (6.4) */
	bool pagemap_scan;  /* PAGEMAP_SCAN (6.7) */
	bool exact_address; /* events have the address, not only its page */
};

/* What a backend cannot do without. */
#define FEATURES_NEEDED                                                \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_THREAD_ID)

bool feature_switched_off(const char *name);
/* Fills features; 0 or a negative errno when there is no userfaultfd at all. */
int features_probe(struct features *features);
/* A new descriptor with the features enabled; negative errno. extra is or-ed into them. */
int descriptor_open(const struct features *features, uint64_t extra);

/* ---- Workers (workers.c), and where they run (place.c) ------------------------------------ */

struct place {
	int cpu;	/* the core this worker was bound to; -1: none */
	int seen;	/* the core of the last sample; -1: none */
	pid_t tid;	/* whom it was taken of */
	unsigned since; /* events since */
};

struct worker {
	struct worker *next; /* of machine.workers, for joining */
	struct mmu *mmu;
	pthread_t thread;
	struct place place;
};

#define INBOX_CAPACITY 32

struct inbox { /* events read but not begun */
	pthread_mutex_t lock;
	struct uffd_msg message[INBOX_CAPACITY];
	unsigned first, count;
};

struct mmu {
	struct features features;
	int uffd;	       /* reports by events */
	_Atomic int inline_fd; /* reports by SIGBUS; -1: no inline view yet */
	int epoll_fd, kick_fd, pagemap_fd;
	const struct mmu_upcalls *upcalls;
	void *arg;
	struct mmu_counts counts;

	pthread_mutex_t grow; /* guards workers, inline_fd's opening */
	struct worker *workers;
	unsigned workers_max;
	_Atomic unsigned sleeping; /* workers between mmu_sleep_begin and _end */
	_Atomic bool stopping;
	struct inbox inbox;

	pthread_mutex_t windows; /* one protection window at a time */
	struct {		 /* guarded by windows: the last refusal inside a system call */
		pid_t tid;
		uintptr_t address;
		unsigned repeats;
	} refused;
};

static inline void count_call(struct mmu *mmu)
{
	atomic_fetch_add_explicit(&mmu->counts.calls, 1, memory_order_relaxed);
}

int workers_start(struct mmu *mmu, unsigned count);
void workers_stop(struct mmu *mmu);

void place_init(struct place *place);
/* The calling worker serves a fault of thread tid: run where that thread runs. */
void place_follow(struct place *place, pid_t tid);

/* ---- Views -------------------------------------------------------------------------------- */

int frames_fd(const struct frames *frames);
int view_fd(const struct mmu_view *view);
/* The descriptor of inline views, opened at first use; negative errno. */
int inline_descriptor(struct mmu *mmu);

/* ---- Signals (signal.c) ------------------------------------------------------------------- */

/* si_code of a SIGBUS that mmu_refuse queued. Negative: the kernel lets one thread send no other
 * kind to another. */
#define REFUSED_CODE (-0x6d6b77)

int signals_install(void);
/* End the process by SIGBUS at address, as the kernel does where the signal cannot be had. */
void signals_die(uintptr_t address);

/* ---- Other threads (thread_state.c) ------------------------------------------------------- */

enum thread_mode {
	THREAD_GONE,
	THREAD_RUNNING, /* not waiting: where it is cannot be told */
	THREAD_USER,	/* waits in a fault of user mode */
	THREAD_SYSCALL, /* waits inside a system call */
};

struct thread_state {
	enum thread_mode mode;
	long number; /* of the system call */
	uint64_t argument[6];
	char text[256]; /* as the kernel told it */
};

void thread_state_read(pid_t tid, struct thread_state *state);
/* The same, waiting a while for the thread to go to sleep in its fault. */
void thread_state_settle(pid_t tid, struct thread_state *state);

struct thread_signals {
	int cpu;
	uint64_t blocked, ignored; /* bit n-1: signal n */
};

/* False: no such thread any more. */
bool thread_signals_read(pid_t tid, struct thread_signals *signals);

#endif
