/* SPDX-License-Identifier: MIT */
/*
 * mmu.h - the machine: what moves the protections of views, reports faults, and holds frames.
 * Not installed. src/vm calls down through this file; a backend calls up only through
 * struct mmu_upcalls. A backend knows addresses, frames and threads; it knows no page, no store.
 *
 * What an address of a view can be in (contract 1.1):
 *   ABSENT  no translation. If the frame exists and the entry carries a marker, a read maps it RO
 * by itself, with no report; a write is reported. If the frame does not exist, any access is
 *           reported. Without a marker (never armed, or lost in a drop) a write may go unreported:
 *           the VM arms (mmu_protect) before a frame comes into being.
 *   RO      present; a write is reported.
 *   RW      present; writes are silent.
 * In a private view an ABSENT entry reports every access, and there are two states more:
 *   BASE    present, shows the frame; the first write is silent and makes a copy.
 *   COPY    a page of the view's own, RO or RW. Dropping its entry drops its bytes.
 */
#ifndef MMU_H
#define MMU_H

#include <mkwrite/mkwrite.h>
#include <stdatomic.h>

struct mmu;	 /* one space's machine: descriptors and handler threads */
struct mmu_fork; /* a fork under way that a child comes of, whose views are to be served */
struct frames;	 /* one object's frames: a memfd and its alias */

enum mmu_access { MMU_READ, MMU_WRITE };
/* MMU_MPROTECT: views in place (mprotect.c). */
enum mmu_backend { MMU_UFFD, MMU_INLINE, MMU_BACKENDS, MMU_MPROTECT = MMU_BACKENDS };

struct mmu_view {
	struct mmu *mmu;
	enum mmu_backend backend;
	uintptr_t address;
	size_t length;
	bool readable;	       /* mapped with PROT_READ, */
	bool writable;	       /* and with PROT_WRITE */
	bool private;	       /* writes go to copies of its own, never to the frames */
	struct frames *frames; /* NULL: in place, the kernel's page cache of a file */
	uint64_t offset;       /* of address in the frames, bytes */
	_Atomic bool opened;   /* in place: for want of mappings all of it was made writable */
	_Atomic bool let_go;   /* in place: it stays writable whatever is to be protected */
	/* In place: while it is not 0 some page may be pinned, and no more is protected than is
	 * asked for. It counts up before the page is let be written. */
	const _Atomic unsigned *pins;
};

/* ---- Upcalls ------------------------------------------------------------------------------ */

struct mmu_upcalls {
	/* Thread tid faulted at address. On a handler thread, no lock held. The upcall answers, now
	 * or later, by mapping the address, or by mmu_wake or mmu_refuse. */
	void (*fault)(void *arg, uintptr_t address, enum mmu_access access, pid_t tid);
	/* After mmu_kick: on a handler thread, no lock held. Once or more per kick. */
	void (*ready)(void *arg);
	/* Of a child's machine only. The child is no more: on its machine's last thread. */
	void (*gone)(void *arg);
	/* The child is about to fork itself: see mmu_fork_go. On one of its machine's threads. */
	void (*forks)(void *arg, struct mmu_fork *fork);
};

/* Process-wide, for signals: set once by the VM before the first mmu_create. All run in a signal
 * handler, in the thread concerned. */
struct mmu_signal_upcalls {
	/* An access in an inline view failed. True: the address is ours and the access can be tried
	 * again, or refusal->error has been set and it is refused. False: not ours. */
	bool (*inline_fault)(uintptr_t address, enum mmu_access access,
			     struct mkw_refusal *refusal);
	/* The same for a view in place: a write that its protection forbids; broken: or an access
	 * that it allows and the kernel refuses. */
	bool (*in_place_fault)(uintptr_t address, bool broken, struct mkw_refusal *refusal);
	/* Does a view allow this access at address? Then a SIGSEGV came from a protection window of
	 * mmu_refuse and the access is tried again. */
	bool (*allowed)(uintptr_t address, enum mmu_access access);
	/* Remember the refusal of a thread, for refused and for mkw_last_refusal. In no signal
	 * handler. */
	void (*record)(pid_t tid, const struct mkw_refusal *refusal, uint64_t reported);
	/* The refusal recorded for the calling thread at address (0: wherever it was), for a queued
	 * SIGBUS. */
	bool (*refused)(uintptr_t address, struct mkw_refusal *refusal);
	/* Does not return if a guard of the calling thread takes it. */
	void (*deliver)(const struct mkw_refusal *refusal);
	/* A refusal in a view in place that nobody took: true: the access is tried again. */
	bool (*again)(const struct mkw_refusal *refusal, void *context);
	/* The same for an access that failed at an address that is nobody's here. */
	bool (*unknown)(uintptr_t address, bool write);
	/* An access of the calling thread failed that is none of the above; located: at address,
	 * else the machine did not say where. Does not return if the thread was copying from or to
	 * memory that a caller named. */
	void (*bad_address)(uintptr_t address, bool located);
};
void mmu_set_signal_upcalls(const struct mmu_signal_upcalls *upcalls);

/* ---- The machine -------------------------------------------------------------------------- */

struct mmu_options {
	bool in_place; /* for such views only: no descriptors, no threads */
	unsigned workers, workers_max;
	const struct mmu_upcalls *upcalls;
	void *arg;
};

struct mmu_counts { /* exact; relaxed atomics */
	_Atomic uint64_t events, calls, wakeups, workers;
};

/* Opens descriptors, starts handler threads, installs signal handlers (first time). */
int mmu_create(const struct mmu_options *options, struct mmu **mmu);
/* Stops the threads; no view is left, no upcall is running when it returns. */
void mmu_destroy(struct mmu *mmu);
const struct mmu_counts *mmu_counts(const struct mmu *mmu);

/* Have upcalls.ready called on a handler thread soon. From any thread, under any lock; never
 * blocks. */
void mmu_kick(struct mmu *mmu);

/* The calling thread is about to run something that may sleep. If it is a handler thread and the
 * last one free to read events, another is started (to the bound). Cheap otherwise. Pairs with
 * mmu_sleep_end. No lock held. */
void mmu_sleep_begin(struct mmu *mmu);
void mmu_sleep_end(struct mmu *mmu);

size_t mmu_probe(struct mkw_backend_info *info, size_t capacity);

/* ---- Frames ------------------------------------------------------------------------------- */

/* A sparse sequence of pages at byte offsets; starts with none. */
int frames_create(struct frames **frames);
void frames_destroy(struct frames *frames);
/* Bring frames into being with these bytes (src NULL: zeros); each appears complete or not at all.
 * -ENOMEM. The frames must not exist. */
int frames_fill(struct frames *frames, uint64_t offset, size_t length, const void *src);
/* Drop frames and zap them from all views. Markers may be lost: arm again before a frame returns.
 */
int frames_drop(struct frames *frames, uint64_t offset, uint64_t length);
/* The library's own alias of [offset, offset+length), which must exist and lie within one 2 MiB
 * aligned piece. Touching it where no frame exists would make one: only locked, complete pages.
 * Stable for the life of frames. NULL: no memory. */
void *frames_data(struct frames *frames, uint64_t offset, size_t length);

/* ---- Swap files --------------------------------------------------------------------------- */

/* Pages at byte offsets, in no order, outside of memory. Sets a sentence. path: a directory, or a
 * file that is not there yet. -EEXIST: it is. */
struct swap_file;
int swap_file_open(const char *path, struct swap_file **file);
void swap_file_close(struct swap_file *file);
/* *done is how many bytes were written, also on failure. -ENOSPC: there is no more room. src may
 * lie in a view, where every page is present; -EFAULT if one is not. No lock held. */
int swap_file_write(struct swap_file *file, uint64_t offset, const void *src, size_t length,
		    size_t *done);
int swap_file_read(struct swap_file *file, uint64_t offset, void *dst, size_t length);
/* What is in the range is not needed any more. */
void swap_file_drop(struct swap_file *file, uint64_t offset, uint64_t length);

/* ---- Views -------------------------------------------------------------------------------- */

/* Map view->length bytes of frames from view->offset and report its faults: at view->address, where
 * a place was taken or closed pages of views are replaced, or, if that is 0, somewhere (it is
 * filled in). Not inherited by fork. All else of *view is set. -ENOTSUP: this backend is not
 * available. After a failure nothing is mapped there that could be accessed. */
int mmu_view_map(struct mmu_view *view);
/* Views in place: the mapping is there. Its protection is made ours. -ENOMEM: it is as it was, or
 * there is none. */
int mmu_view_adopt(struct mmu_view *view);
/* Address space that nothing else is mapped to: at *address, or if that is 0 somewhere. -EEXIST:
 * there is something. It is given back, or replaced by mmu_view_map. */
int mmu_place_take(uintptr_t *address, size_t length);
void mmu_place_give(uintptr_t address, size_t length);
/* Let threads in. Until then an access to it is a SIGSEGV: a thread that still tries an access to
 * what was mapped there before must not find a view that nobody has armed. */
int mmu_view_open(struct mmu_view *view);
/* Change what accesses the mapping allows at pages of it; neither allowed: they are closed. Entries
 * stay as they are. -ENOMEM: then it may be changed for a part of them. */
int mmu_view_protect(struct mmu_view *view, uintptr_t address, size_t length, bool readable,
		     bool writable);
/* Move closed pages of a private view, copies and all, to a place that was taken: there they are
 * closed, and any write will be reported. -ENOMEM: nothing has changed. */
int mmu_view_move(struct mmu_view *view, uintptr_t address, size_t length, uintptr_t to);
/* Wake whoever waits in it and unmap. */
void mmu_view_unmap(struct mmu_view *view);
/* The same for pages of it. */
void mmu_view_cut(struct mmu_view *view, uintptr_t address, size_t length);

/* All below: [address, address+length) page aligned, within the view. They return 0 or a negative
 * errno (ENOMEM above all) and may be called under VM locks; none calls up. Those that map wake
 * threads waiting at the addresses. */

/* Frame by frame from src: create the frame and map it RO. The frames must not exist. *done is how
 * many bytes were done, also on failure. */
int mmu_fill(struct mmu_view *view, uintptr_t address, size_t length, const void *src,
	     size_t *done);
/* Map existing frames RO where nothing is mapped; leave what is. */
int mmu_map_ro(struct mmu_view *view, uintptr_t address, size_t length);
/* Map existing frames RW, whatever is mapped there now. */
int mmu_map_rw(struct mmu_view *view, uintptr_t address, size_t length);
/* Likewise, but what is absent is mapped when it is touched, with no report; and what is mapped
 * stays so all the while. Cheaper where most of it is RW. */
int mmu_let_rw(struct mmu_view *view, uintptr_t address, size_t length);
/* After this no thread writes through the range unreported; absent entries are armed. -ENOENT: a
 * page is not there: somebody has unmapped it, or mapped over it; the others were protected. The
 * calls above take no notice of such a page. */
int mmu_protect(struct mmu_view *view, uintptr_t address, size_t length);
/* Drop translations; keeps frames. An RW entry leaves no marker behind: protect first. */
int mmu_zap(struct mmu_view *view, uintptr_t address, size_t length);
/* Which pages have a translation: present[i] for page i. */
int mmu_present(struct mmu_view *view, uintptr_t address, size_t length, bool *present);

/* Private views only. There mmu_map_ro maps frames RO (if mmu_can_map_base), mmu_protect has writes
 * reported from BASE and COPY, mmu_zap drops copies, mmu_fill and mmu_map_rw must not be called. */

/* Can a frame be mapped so that the first write is reported? Else mmu_let_copy only (Linux before
 * 6.4). */
bool mmu_can_map_base(const struct mmu_view *view);
/* Page by page from src: a copy with these bytes, RW, where nothing is mapped (else -EEXIST). *done
 * as for mmu_fill. */
int mmu_copy(struct mmu_view *view, uintptr_t address, size_t length, const void *src,
	     size_t *done);
/* No write to the range is reported any more: frames become BASE, copies RW. What has neither stays
 * absent. A copy that somebody dropped is taken for one that was never made. */
int mmu_let_copy(struct mmu_view *view, uintptr_t address, size_t length);
/* The same for copies alone. *there: the first page of the range is one. */
int mmu_let_write(struct mmu_view *view, uintptr_t address, size_t length, bool *there);
/* copied[i]: page i is a copy. The range is protected, and no map call runs on it. */
int mmu_copies(struct mmu_view *view, uintptr_t address, size_t length, bool *copied);

/* Views in place only. How many pages a grant should have at least, and be aligned to: more than
 * one when the process is running out of mappings. */
size_t mmu_grain(void);

/* Threads that wait at the range try their access again. */
void mmu_wake(struct mmu_view *view, uintptr_t address, size_t length);

/* Refuse the access of thread tid: SIGBUS at the address if it faulted in user mode, EFAULT if in a
 * system call; nobody else is disturbed. If the thread blocks or ignores SIGBUS without handler the
 * process dies of it, as the kernel would do (force_sig_fault). A thread that was woken since
 * `reported` (mmu_report_time) is woken again at most. No lock held. */
void mmu_refuse(struct mmu_view *view, uintptr_t address, enum mmu_access access, pid_t tid,
		uint64_t reported);

/* A time before the report that the calling handler thread serves was read; in other threads the
 * end of time. */
uint64_t mmu_report_time(void);
/* In a fault in place: the context of its signal; else NULL. */
const void *mmu_fault_context(void);
/* Were threads that wait at the page let go since? Then the one that was reported may be elsewhere.
 */
bool mmu_woken_since(uintptr_t address, uint64_t time);

/* A stretch of memory. */
struct mmu_extent {
	uintptr_t address;
	size_t length;
};

/* ---- Children made by fork ---------------------------------------------------------------- */

/*
 * A child that inherits views has them at the same addresses, with a copy of the page tables, and a
 * descriptor of its own for their faults. The process that made the views serves it: it has a
 * machine for each child (kin.c), and views of that machine, to which everything above applies but
 * for what can only be done from inside of a process: mmu_view_*, and mmu_zap (-ENOTSUP);
 * mmu_present finds nothing mapped. A child that is dead by now fails none of it.
 *
 * In the child a thread (the warden) does by order what can only be done there, and refuses every
 * fault of those views when the process that serves them is no more (EOWNERDEAD).
 */

/* Can children of this machine's process be served? If not they inherit no view. */
bool mmu_can_fork(const struct mmu *mmu);
/*
 * In the thread that forks, before it does: the child is to inherit these views of the machine; of
 * the private copies in apart, which are there, it gets copies at once, so that this process keeps
 * its frames (7.1).
 * From here on no call changes a view of the machine until mmu_fork_end, and no upcall waits for
 * that.
 */
int mmu_fork_begin(struct mmu *mmu, struct mmu_view *const *views, size_t count,
		   const struct mmu_extent *apart, size_t apart_count, struct mmu_fork **fork);
/* A child that we serve forks: it may now. The views as above, of the child's machine. On failure
 * it was told so, and the fork is no more. */
int mmu_fork_go(struct mmu_fork *fork, struct mmu_view *const *views, size_t count);
/* Wait for the child: its machine, which serves nothing yet; NULL: there is none to be served. */
struct mmu *mmu_fork_end(struct mmu_fork *fork);
/* In the child, while the frames' descriptors are open. */
void mmu_fork_map(struct mmu_fork *fork);
/* In the child: a view that is not inherited was there. Before anything else is mapped. */
void mmu_fork_block(const struct mmu_view *view);
/* As mmu_fork_end in the child, instead: its views are served when this returns, or inaccessible.
 */
void mmu_fork_inherit(struct mmu_fork *fork);

/* Begin to serve. On failure: nothing has begun. */
int mmu_kin_start(struct mmu *kin, const struct mmu_upcalls *upcalls, void *arg);
/* No upcall is running when it returns, and none comes any more. */
void mmu_kin_stop(struct mmu *kin);
/* After mmu_kin_stop, or if it was never started. What the child does in its views is refused from
 * here on. */
void mmu_kin_destroy(struct mmu *kin);
/* mmu_refuse for a view of a child. */
void mmu_kin_refuse(struct mmu_view *view, enum mmu_access access, pid_t tid, uint64_t reported,
		    const struct mkw_refusal *refusal);

/* mmu_zap in a child, by its warden. A child that does not answer for long (it is stopped) does so
 * later. No lock held; blocks. */
void mmu_kin_zap(struct mmu_view *view, uintptr_t address, size_t length);

/* In a thread that forks, and then in the parent, or in the child: what this process has itself
 * inherited is inherited once more. */
void mmu_wards_fork_begin(void);
void mmu_wards_fork_end(void);
void mmu_wards_inherit(void);
/* Is it in an inherited view; in one to which the access is allowed? */
bool mmu_ward_has(uintptr_t address);
bool mmu_ward_allows(uintptr_t address, enum mmu_access access);
/* Unmap one that was inherited whole. False: there is none there. */
bool mmu_ward_unmap(uintptr_t address, size_t length);

/* In a child: a machine, frames, a swap file of the parent. Their descriptors are closed, their
 * memory stays. */
void mmu_abandon(struct mmu *mmu);
void frames_abandon(struct frames *frames);
void swap_file_abandon(struct swap_file *file);
/* In a child, once: no lock of the parent's is held any more. */
void mmu_abandon_all(void);

/* ---- Threads' system calls ---------------------------------------------------------------- */

/* Is tid inside a system call that names a descriptor of the file (dev, ino)? */
bool mmu_thread_in_syscall_on(pid_t tid, uint64_t dev, uint64_t ino);

/* Where the system call that tid is inside of may still be storing to past every protection, having
 * taken hold of the pages (O_DIRECT): at most max extents, none if it is in user mode, in no call
 * that does, or gone. A call handed to io_uring is not seen. A thread that runs is looked at
 * several times, until it sleeps or has to be taken for one in user mode. Where nothing can be told
 * (no descriptor is left; it waits for a processor) it may be storing anywhere. */
size_t mmu_thread_stores(pid_t tid, struct mmu_extent *extents, size_t max);

#endif
