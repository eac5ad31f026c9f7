/* SPDX-License-Identifier: MIT */
/*
 * mkwrite.h - map storage of your own, and have it asked before the first write.
 *
 * A space holds objects; an object is a store's bytes and their page cache; a view maps a range of
 * an object at an address. Before a clean page of a view first becomes writable the object's store
 * is asked; it may sleep, reserve space or refuse (store.h is its side of the contract).
 *
 * Conventions
 *   - Functions return 0 (or a count) on success and a negative errno on failure. After a failure
 *     mkw_error_message() has a sentence for the calling thread.
 *   - Sizes and offsets are in bytes. Pages are MKW_PAGE_SIZE bytes.
 *   - Every function may be called from any thread, but not from a signal handler and, unless its
 *     text says so, not from inside a store operation.
 *   - Functions marked "blocks" may sleep in the store. None of them is a cancellation point.
 *   - The library never prints and never ends the process on its own account. (A refused access
 *     that nobody catches ends it as the kernel would: by SIGBUS.)
 */
#ifndef MKWRITE_H
#define MKWRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MKW_PAGE_SIZE 4096u

/* The library's version at compile time, and, from mkw_version(), at run time: "1.2.3". */
#define MKW_VERSION "0.1.0"
const char *mkw_version(void);

/*
 * The sentence that goes with the last error of the calling thread; "" when there was none. Valid
 * until the thread's next call into the library.
 */
const char *mkw_error_message(void);

/* ---- Spaces ------------------------------------------------------------------------------- */

struct mkw_space;  /* a set of objects and views, their handler threads and limits */
struct mkw_handle; /* one opening of an object: its access mode and its error cursor */

enum mkw_log_level { MKW_LOG_ERROR, MKW_LOG_WARNING, MKW_LOG_INFO };

struct mkw_space_options {
	size_t struct_size;   /* sizeof(struct mkw_space_options) */
	unsigned workers;     /* handler threads at the start; 0: 2 */
	unsigned workers_max; /* bound on handler threads; 0: 64 */
	/* 0: no limit. The least are 4 pages resident and 2 dirty: what one instruction may need.
	 */
	uint64_t resident_limit_bytes;	/* page cache of all objects */
	uint64_t dirty_limit_bytes;	/* dirty and granted pages of all objects */
	unsigned writeback_interval_ms; /* how often background write-back runs; 0: 1000 */
	/* Called with warnings and errors that no caller can be given; from any library thread,
	 * with no lock held; must not call the library. NULL: nobody is told. */
	void (*log)(void *arg, enum mkw_log_level level, const char *message);
	void *log_arg;
	/*
	 * Where private copies (MKW_PRIVATE) go that the resident limit has no room for. A
	 * directory: a file in it that has no name. Else the path of a file that must not exist
	 * yet; it is made with mode 0600 and loses its name at once. NULL: no swap; copies stay
	 * resident, and a write that needs one more than the limit allows is refused.
	 */
	const char *swap_path;
	/* 0: as much as the file system gives. At least two pages: one is kept to read back by when
	 * all others are full. */
	uint64_t swap_limit_bytes;
	unsigned flags; /* MKW_SPACE_... */
};
#define MKW_SPACE_IN_PLACE 0x1u /* for files in place only: see there */

#define MKW_SPACE_OPTIONS_INIT                                  \
	{                                                       \
		.struct_size = sizeof(struct mkw_space_options) \
	}

/*
 * Make a space. options may be NULL. The first space of a process installs handlers for SIGBUS and
 * SIGSEGV, which pass on whatever is not theirs to the handlers found then. A program that installs
 * its own later still gets the signals, but SIGBUS with si_code < 0 in place of BUS_ADRERR.
 * Errors: EINVAL (options); EPERM, ENOSYS (no userfaultfd here: see `mkwrite doctor`); ENOMEM;
 * EMFILE; EAGAIN (threads); EEXIST (swap_path names a file), and whatever making a file there
 * gives.
 */
int mkw_space_create(const struct mkw_space_options *options, struct mkw_space **space);

/*
 * End a space: writers are stopped, dirty pages written, views unmapped, stores released. Blocks.
 *
 *   -EBUSY    the space is left as it was, views and all, and the call can be repeated: handles are
 *             open, or pins are left (MKW_DISCARD ends them; the log is told of each), or dirty
 *             pages cannot be written (mkw_error_message() says why)
 *   -EINVAL, -EDEADLK  a bad argument; inside a store operation. Nothing was done.
 *   0, and any other error: the space has ended. The error is one that nobody has heard yet: of an
 *             earlier write-back, of a last fsync; or, with MKW_DISCARD, of pages that could not be
 *             written and were dropped. (A store's EBUSY, EINVAL or EDEADLK then reads EIO.)
 */
#define MKW_DISCARD 1u
int mkw_space_destroy(struct mkw_space *space, unsigned flags);

/* ---- Statistics --------------------------------------------------------------------------- */

/* Counts since the space or object was made, and gauges. All exact. */
struct mkw_stat {
	/* faults */
	uint64_t read_faults;  /* faults of reads that the library served */
	uint64_t write_faults; /* the same for writes */
	uint64_t waits;	       /* times a fault was parked */
	/* the store's side */
	uint64_t fills; /* calls of fault */
	uint64_t pages_filled;
	uint64_t notifications; /* calls of page_mkwrite */
	uint64_t pages_granted; /* pages made writable by them */
	uint64_t refusals;	/* refusals made; one that came too late is made again */
	uint64_t writes;	/* runs handed to writepages */
	uint64_t pages_written;
	uint64_t pages_unwritten; /* granted pages found unwritten, given back */
	uint64_t write_errors;	  /* runs whose write-back failed */
	uint64_t pages_evicted;
	/* gauges, in bytes */
	uint64_t resident_bytes, resident_limit_bytes, resident_peak_bytes;
	uint64_t dirty_bytes, dirty_limit_bytes, dirty_peak_bytes; /* granted pages included */
	/* the machine's side (per space only) */
	uint64_t events;    /* userfaultfd messages read */
	uint64_t mmu_calls; /* system calls that changed protections or mapped pages */
	uint64_t wakeups;   /* times a handler thread was woken */
	uint64_t workers;   /* handler threads now */
	/* private copies, in bytes: resident ones, also what may have been copied; in the swap file
	 */
	uint64_t private_bytes, swapped_bytes;
	uint64_t swap_limit_bytes;    /* per space only; 0: no swap, or no limit */
	uint64_t swap_outs, swap_ins; /* pages written to the swap file and read back */
	/* gauges of mkw_pin */
	uint64_t pins;	       /* that have not been ended by mkw_unpin */
	uint64_t pinned_bytes; /* pages that one of them or more hold */
};

int mkw_space_stat(struct mkw_space *space, struct mkw_stat *stat, size_t stat_size);
int mkw_object_stat(struct mkw_handle *handle, struct mkw_stat *stat, size_t stat_size);

/* ---- Objects ------------------------------------------------------------------------------ */

#define MKW_RDONLY 0x00u /* no writable views, no changes */
#define MKW_RDWR   0x01u
#define MKW_CREATE 0x02u /* make the storage if it is not there */
#define MKW_EXCL   0x04u /* with MKW_CREATE: EEXIST if it is */
#define MKW_TRUNC  0x08u /* start with size 0 (with MKW_RDWR, on the first opening only) */
#define MKW_MANUAL 0x10u /* nothing is written before mkw_sync() or the last close */

/*
 * Open the storage that uri names. "file:PATH[?key=value&...]", "mem:SIZE[?...]", or layered:
 * "error[?...]:file:PATH". In PATH, '?' and '%' are written %3F and %25. mkwrite(7) lists schemes
 * and options. Storage that this process has open already gives a handle on the same object.
 * Blocks. *handle must be closed by mkw_close().
 * Errors: EINVAL (URI, options, flags), ENOENT, EEXIST, EACCES, EBUSY (another process has it open
 * for writing; or this process in another space), those of the store.
 */
int mkw_open(struct mkw_space *space, const char *uri, unsigned flags, struct mkw_handle **handle);

/*
 * The same for a store of one's own (store.h). The store's bytes are size_bytes long at the
 * beginning. store is passed to every operation; the object owns it from success until
 * ops->release. Errors: EINVAL (ops of a wrong size or without fault).
 */
struct mkw_store_ops;
int mkw_create(struct mkw_space *space, const struct mkw_store_ops *ops, void *store,
	       uint64_t size_bytes, unsigned flags, struct mkw_handle **handle);

/*
 * Close a handle. Views and pins stay. With the last handle, view and pin gone the object's dirty
 * pages are written and its store is released. Blocks. An error of write-back that nobody has heard
 * is returned. The handle is gone whatever is returned; pages that cannot be written stay with the
 * space, which retries them (mkw_space_destroy says what becomes of them).
 */
int mkw_close(struct mkw_handle *handle);

uint64_t mkw_size(struct mkw_handle *handle);

/*
 * Change the size. Pages beyond it are dropped from every view, and accesses to them refused;
 * storage grown reads as zeros. Blocks. On an error nothing has changed. Errors: EBADF (handle not
 * MKW_RDWR), EFBIG, EINVAL (the store's size is fixed), those of the store.
 */
int mkw_truncate(struct mkw_handle *handle, uint64_t size_bytes);

/* Zero a range and give its storage back. The range need not be page aligned. Blocks. On an error a
 * part of it may be zero. */
int mkw_punch(struct mkw_handle *handle, uint64_t offset, uint64_t length);

/*
 * Drop the cached pages of a range, so that the next access asks the store. Dirty pages are written
 * first. Blocks. Errors: EBUSY if a page is pinned, which stays, or was dirtied again meanwhile;
 * those of write-back.
 */
int mkw_invalidate(struct mkw_handle *handle, uint64_t offset, uint64_t length);

/* Drop the pages of a range without writing them: abort. Blocks. EBUSY, with nothing dropped, if
 * one is pinned. */
int mkw_discard(struct mkw_handle *handle, uint64_t offset, uint64_t length);

/*
 * Write what is dirty in the range at the time of the call, and make it durable; length 0 means to
 * the end. Blocks; takes no endless time against writers. Returns 0 only when all of it is durable
 * and this handle has no unreported error. EAGAIN: the store said "not yet" of a page, which stays
 * dirty.
 */
int mkw_sync(struct mkw_handle *handle, uint64_t offset, uint64_t length);

/*
 * Stop all dirtying of the object: writers wait, dirty pages are written, the store is synced.
 * Until mkw_thaw() the store's bytes are one consistent state: what a snapshot needs. Nests. An
 * error leaves the object thawed. A write by mkw_pwrite waits too; truncation gets EBUSY. Blocks.
 */
int mkw_freeze(struct mkw_handle *handle);
int mkw_thaw(struct mkw_handle *handle);

/* Limits of this object, beneath those of the space; 0: none. EINVAL: less than the least. */
int mkw_set_limits(struct mkw_handle *handle, uint64_t resident_limit_bytes,
		   uint64_t dirty_limit_bytes);

/* Change an option of the open store, as "quota=64M". Wakes writers who wait for space. Blocks. */
int mkw_control(struct mkw_handle *handle, const char *assignment);

/*
 * Free and total bytes that the store could still take. ENOTSUP where it cannot say. Blocks.
 */
int mkw_capacity(struct mkw_handle *handle, uint64_t *free_bytes, uint64_t *total_bytes);

/*
 * File-like I/O, coherent with all views; never a signal. The buffer may lie in a view, even of the
 * same object. mkw_pwrite past the end grows the object. Blocks. Returns the bytes moved, fewer
 * than asked at the end of the object or where a later page was refused; negative errno if none.
 */
ssize_t mkw_pread(struct mkw_handle *handle, void *buffer, size_t count, uint64_t offset);
ssize_t mkw_pwrite(struct mkw_handle *handle, const void *buffer, size_t count, uint64_t offset);

struct mkw_range {
	uint64_t offset, length;
	int error; /* the last failure to write it, a negative errno; 0: none */
};

/*
 * List the dirty ranges within [offset, offset+length), ascending; length 0: to the end. Returns
 * how many there are, of which at most capacity were stored. A granted page counts as dirty.
 */
ssize_t mkw_dirty_ranges(struct mkw_handle *handle, uint64_t offset, uint64_t length,
			 struct mkw_range *ranges, size_t capacity);

/* ---- Refusal ------------------------------------------------------------------------------ */

/* What becomes of a write that the store refuses. */
enum mkw_policy {
	MKW_REFUSE, /* SIGBUS (BUS_ADRERR) at the exact address; EFAULT or a short count in a system
		       call; an error in mkw_pwrite. The default. */
	MKW_WAIT,   /* the writer sleeps until the store can grant */
	MKW_DEFER,  /* the write goes on in memory; mkw_sync reports the error, and the page stays
		       dirty until it can be written */
};

struct mkw_refusal {
	void *address;	 /* the faulting address; NULL for mkw_pread and mkw_pwrite */
	size_t length;	 /* of the refused range: from address's page on */
	uint64_t offset; /* in the object */
	int error; /* why: a negative errno (-ENOSPC, -EDQUOT, -EIO, -ENXIO: past the end ...) */
	bool write;
	char message[160];
};

/* Decides for one refusal. Runs on a handler thread (inline views: in the faulting thread, in a
 * signal handler) with no lock held; must not touch a view or call the library. */
typedef enum mkw_policy (*mkw_policy_fn)(void *arg, const struct mkw_refusal *refusal);

/* fn may be NULL; when given it decides instead of policy. */
int mkw_set_policy(struct mkw_handle *handle, enum mkw_policy policy, mkw_policy_fn fn, void *arg);

/*
 * Call fn(arg). A refused access in it ends it, by a jump out of it: then *refusal is filled and
 * the refusal's negative errno is returned, otherwise 0. Guards nest. fn must not leave locks or
 * half-changed data behind an access that may be refused. Unblocks SIGBUS and SIGSEGV meanwhile.
 * SIGBUS for any other reason reaches the program's own handler.
 */
int mkw_guard(void (*fn)(void *arg), void *arg, struct mkw_refusal *refusal);

/*
 * The last refusal that the calling thread met, by signal or by EFAULT. 0, or -ENOENT. May be
 * called from a signal handler.
 */
int mkw_last_refusal(struct mkw_refusal *refusal);

/*
 * sigaction(2) for SIGSEGV and SIGBUS, whose handlers are the library's once there is a space: the
 * program's handler is kept behind it and gets all that is not the library's, as the kernel would
 * deliver it, but that SIGSEGV and SIGBUS are never blocked while it runs: it may write to views. A
 * plain sigaction() would put the library's handlers out of action. May be called at any time, in a
 * signal handler, too; leaves no sentence. Errors: EINVAL (another signal).
 */
struct sigaction;
int mkw_sigaction(int sig, const struct sigaction *action, struct sigaction *before);

/* ---- Views -------------------------------------------------------------------------------- */

#define MKW_READ  1u
#define MKW_WRITE 2u /* implies MKW_READ */

#define MKW_INLINE                                                                      \
	0x1u /* serve faults in the faulting thread: cheaper, but system calls on pages \
		not granted before fail with EFAULT, and the store runs in a signal     \
		handler (mkw_map(3)) */

#define MKW_PRIVATE                                                                  \
	0x2u /* writes go to copies of the view's own, page by page; the object, its \
		store and other views never see them (mkw_map(3)) */

#define MKW_LOCKED                                                                        \
	0x4u /* fill the view now, and leave its pages in memory, copies of a private one \
		included, once they are made; blocks */

/*
 * Map length bytes from offset of the object. offset must be a multiple of MKW_PAGE_SIZE; length is
 * rounded up to one. The view may reach past the end of the object: accesses there are refused
 * until the object grows. A private view may be writable whatever the handle and the store are;
 * its copies count as resident pages. Pages already cached are mapped at once (about 0.3 us each).
 * With MKW_LOCKED there is no view unless all of it that the object has could be filled: ENOMEM if
 * the limits do not allow that, or what the store refuses; a private view's first write to a page
 * needs a page more, as in any other. What mkw_remap() and mkw_remap_pages() add to it is filled
 * as far as that can be done. Children inherit it (see Children).
 * Errors: EINVAL (range; MKW_WRITE on a store that cannot write), EACCES (MKW_WRITE on a read-only
 * handle), ENOMEM, ENOTSUP (MKW_INLINE not possible here).
 */
int mkw_map(struct mkw_handle *handle, size_t length, unsigned protection, unsigned flags,
	    uint64_t offset, void **address);

/*
 * Unmap whatever of views lies in the range, which need not be what mkw_map() gave: views whole or
 * in part, the middle of one, several. The rest stays, and so do the object's dirty pages. address
 * must be a multiple of MKW_PAGE_SIZE; length is rounded up to one. What is no view is left alone.
 * Blocks. Errors: EINVAL (there is no view in the range), ENOMEM (with nothing unmapped).
 *
 * Views are changed by these functions only. A plain munmap, mremap or mmap over a view takes away
 * pages without the library's knowledge, and a plain mprotect may make it writable unasked.
 */
int mkw_unmap(void *address, size_t length);

/*
 * Change what accesses views allow in the range: 0 (none), MKW_READ, MKW_WRITE (implies MKW_READ).
 * An access that is not allowed is a SIGSEGV of the program's own. Nothing is asked of the store: a
 * page that is clean when it becomes writable is asked for at its next write, and one that is dirty
 * is not asked for again. Blocks. On an error nothing has changed. Errors: EINVAL; EACCES
 * (MKW_WRITE, and a shared view's handle or store is read only); ENOMEM (part of the range is no
 * view; or too many mappings: each change of protection costs one, see vm.max_map_count).
 */
int mkw_protect(void *address, size_t length, unsigned protection);

/*
 * Change the length of a view, or of a part of one, as mremap(2) does. It grows by further pages of
 * the object; where there is no room, it moves if flags say MKW_MAYMOVE, and accesses to the old
 * place are a SIGSEGV from then on. Pages keep their states, private ones their copies. *address is
 * where it is afterwards. Blocks. On an error nothing has changed. Errors: EINVAL, ENOMEM (no room;
 * part of the range is no view).
 */
#define MKW_MAYMOVE 0x1u
int mkw_remap(void *old, size_t old_length, size_t new_length, unsigned flags, void **address);

/*
 * From now on [address, address+length) shows the object's pages from offset on: with one call for
 * each stretch a view shows pages in any order, as with remap_file_pages. All of the range must be
 * shared views of one object. A system call that is at these addresses meanwhile may fail with
 * EFAULT. Each stretch costs a mapping, and what is done to all views of a page looks at all
 * stretches. Blocks. On an error nothing has changed. Errors: EINVAL, ENOMEM (part of the range is
 * no view; too many mappings).
 */
int mkw_remap_pages(void *address, size_t length, uint64_t offset);

/* mkw_sync for the part of views between address and address+length. ENOMEM: not all of it is
 * mapped by views; the mapped parts are synced all the same. */
int mkw_msync(void *address, size_t length);

enum mkw_advice {
	MKW_NORMAL,	/* runs grow and shrink with the pattern of accesses */
	MKW_SEQUENTIAL, /* start with long runs */
	MKW_RANDOM,	/* one page at a time */
	MKW_WILLNEED,	/* fill the range now; blocks */
	MKW_DONTNEED,	/* this view will not use the range soon */
	MKW_FREE,	/* a private view's copies are not needed any more: they are dropped */
	MKW_COLD,	/* not used soon: the first to go when there is no room */
	MKW_PAGEOUT,	/* give the memory back now: write what is dirty, drop it; blocks */
	MKW_DONTFORK,	/* children do not inherit the range */
	MKW_DOFORK,	/* they do: the default */
};
/*
 * Advice on a range of views. MKW_DONTNEED and MKW_PAGEOUT lose nothing in shared views: pages that
 * cannot go stay, and what write-back cannot write is told by the next mkw_sync(). Errors: EINVAL
 * (MKW_FREE on a shared view, the range), ENOMEM (not all of it is mapped by views), and with
 * MKW_WILLNEED the refusal of a page.
 */
int mkw_advise(void *address, size_t length, enum mkw_advice advice);

/*
 * Ask for the range now: 0, or -ENOSPC (and whatever else the store answers) with nothing reserved.
 * Until mkw_unreserve() no write to the range is refused for lack of space. Pages are made
 * writable as far as the dirty limit has room. Blocks.
 */
int mkw_reserve(void *address, size_t length);
int mkw_unreserve(void *address, size_t length);

/* ---- Pins --------------------------------------------------------------------------------- */

struct mkw_pin; /* pages that somebody else reads or writes in place */

/*
 * Pin the pages of [address, address+length) for I/O that reads them in place, later (MKW_READ:
 * write(2) with O_DIRECT, io_uring, send), or that writes them (MKW_WRITE: read(2), recv, a
 * device). The range need not be page aligned, and may cross views of one space. All of it is
 * pinned, or nothing. Blocks.
 *
 * Until mkw_unpin() the pages keep their frames: they are not evicted, nor moved, nor protected, so
 * that a system call on them has nobody to wait for, also in an inline view. The pin keeps the
 * object, not the view. A private view is given copies of its own first, for reading, too: it and
 * the device see the same from then on. They are not swapped out; mkw_advise() leaves them,
 * truncation and mkw_unmap() do not.
 *
 * A pin for writing asks the store as a write does, and may be refused. Its pages count as dirty
 * until the last such pin has gone, and against the dirty limit. Background write-back leaves them
 * alone. mkw_sync() writes a copy of each and lets whoever writes go on: what was in the page
 * before the call is durable after it; what comes later is for a later sync, or for write-back
 * after mkw_unpin(). In a freeze the store has the pages as they were in one moment of
 * mkw_freeze(); what comes later is not written before the thaw, and mkw_sync() says EBUSY of it.
 *
 * mkw_invalidate() and mkw_discard() of a pinned page are EBUSY. mkw_truncate() and mkw_punch()
 * take it from the object as they do any other: the device keeps a frame that nobody else sees.
 *
 * Pins nest. A pin is ended once, by mkw_unpin(), with the I/O over; mkw_space_destroy() is EBUSY
 * before, and tells the space's log of each pin that is left: in debug builds, where it was taken.
 *
 * Errors: EINVAL; ENOMEM (some of it is no view; no memory; the resident limit); EACCES (MKW_WRITE
 * in a view that is not writable: nobody is asked); ENXIO (past the end of the object); ENOBUFS
 * (the dirty limit, and nothing can be written); EOVERFLOW (a page has 65535 pins); what the store
 * answers.
 */
int mkw_pin(void *address, size_t length, unsigned access, struct mkw_pin **pin);
int mkw_unpin(struct mkw_pin *pin);

/* ---- Children ----------------------------------------------------------------------------- */

/*
 * A child made by fork() inherits views, unless they are inline or were advised MKW_DONTFORK, and
 * may use them as its parent does: what it writes to a shared view is asked of the store, charged,
 * written back and refused, for its own threads and handlers, by the process that made the space; a
 * private view is copied on write in both. It may fork again, execute something else, exit or be
 * killed at any time. An object lives until the last child's view of it is gone.
 *
 * If the process that made the space ends first, or the space does, accesses of the child to pages
 * that are not mapped, and writes to pages that were not writable, are refused with -EOWNERDEAD;
 * pages that were mapped when that process died go on as memory that nobody writes back.
 *
 * Calls about the parent's space, its handles and views are answered ECHILD in the child; but
 * mkw_unmap() unmaps a whole view, mkw_guard() and mkw_last_refusal() work, and a space of its own
 * can be made. A private view's copies in a child are charged to nobody and never swapped out.
 *
 * Needs CAP_SYS_PTRACE when the space is made: else, or where the child cannot be served (it is in
 * another PID namespace; there is no memory), inherited views are SIGSEGV in it. Processes made by
 * clone() or _Fork() inherit no view; posix_spawn(), vfork() and system() need none.
 */

/* ---- Files in place ----------------------------------------------------------------------- */

/*
 * A file in place is an object whose pages are the kernel's own page cache of a real file, mapped
 * by whoever maps it: other processes, read(2) and write(2) see the same pages. The library has no
 * part in reading. Of a mapping that it is told of (mkw_adopt) it forbids what has not been
 * granted, and serves a write there in the thread that makes it, in the handler of its SIGSEGV. It
 * takes neither userfaultfd nor privilege; but a system call that stores to a page that has not
 * been granted gets EFAULT (mkw_grant and mkw_pin come before it), and each grant that does not
 * continue another costs a mapping or two (vm.max_map_count: near it grants get larger, in the end
 * a view is opened whole).
 *
 * A space for files in place has MKW_SPACE_IN_PLACE, no other objects, no resident limit and no
 * swap; a child of fork has it, views, handles and all, as its own. While another thread is in a
 * call of this section the caller does not fork. The store's page_mkwrite runs in a signal handler:
 * what it calls has to be async-signal-safe. writepages gets no bytes (data NULL): it makes the
 * kernel write the range, by sync_file_range(2) or the like. fault is not asked. Of the calls above
 * these work: mkw_close, mkw_sync, mkw_msync, mkw_set_limits, mkw_set_policy, mkw_dirty_ranges,
 * mkw_unmap (the view is forgotten, its mapping stays as it is), mkw_protect, mkw_advise with
 * MKW_NORMAL, MKW_SEQUENTIAL and MKW_RANDOM, mkw_pin, mkw_unpin, mkw_guard, mkw_last_refusal.
 */

/* A file in place; size and content are its own business. flags: MKW_RDWR, or 0. As mkw_create. */
int mkw_create_in_place(struct mkw_space *space, const struct mkw_store_ops *ops, void *store,
			unsigned flags, struct mkw_handle **handle);

/*
 * [address, address+length), a shared mapping of the file from offset on, is a view from here on.
 * protection is what its user may do. No view may overlap it. On an error it is left as it was, but
 * for its protection. Errors: EINVAL; EACCES (MKW_WRITE on a read-only handle); ENOMEM.
 */
int mkw_adopt(struct mkw_handle *handle, void *address, size_t length, unsigned protection,
	      uint64_t offset);

/* Grant the range now, as if each page of it were written to: 0, or what a write would be refused
 * with. Blocks. Needs no memory but what a fault does. Errors: ENOMEM: some of it is no view. */
int mkw_grant(void *address, size_t length);

/*
 * Writes to the range are not asked for any more, until mkw_quiesce() has them asked for again, or,
 * where it is a part of a view, some of it is written back: for programs of which not all that
 * stores to memory can be told beforehand. The kernel's refusals are served as ever. Errors as of
 * mkw_grant().
 */
int mkw_let_go(void *address, size_t length);

/* How many pages a grant has at least: 1, or more where the process is running out of mappings. In
 * a signal handler, too. */
size_t mkw_grain(void);

/* How many mappings of the object there are, whole or in parts. */
unsigned mkw_view_count(struct mkw_handle *handle);

/* Is some of the range in a view? A few nanoseconds where there is no view at all. */
bool mkw_is_view(const void *address, size_t length);

/*
 * Stop all writing through the object's views, in this process: when it returns no page of them can
 * be written, and who tries waits until mkw_resume(). Nothing is written to the file. From then on
 * the first write to each page is asked for anew. What system calls store to by mkw_pin() goes on;
 * the store is asked for those pages in mkw_resume(). Blocks. They nest; a handle that is closed
 * has been resumed before.
 */
int mkw_quiesce(struct mkw_handle *handle);
int mkw_resume(struct mkw_handle *handle);

/*
 * For the process; NULL: none. refused: an access to a view in place is refused and no guard takes
 * it; in the handler of its signal, no lock held, context is the third argument of a handler; true:
 * the access is tried again. It may sleep, and change the signal mask to that in the context
 * meanwhile; it may end the process. unknown: an access failed that is to no view; true: it is
 * tried again.
 */
struct mkw_fault_hooks {
	bool (*refused)(const struct mkw_refusal *refusal, void *context);
	bool (*unknown)(const void *address, bool write);
};
void mkw_set_fault_hooks(const struct mkw_fault_hooks *hooks);

/* In page_mkwrite of a file in place: the context of the access that it is asked for, as a signal
 * handler gets it. NULL: it is no access, but a call. */
const void *mkw_fault_context(void);

/* ---- The host ----------------------------------------------------------------------------- */

/* What this host allows. */
struct mkw_backend_info {
	const char *name; /* "uffd", "inline" */
	bool usable;
	char reason[256];  /* why not, or what is missing */
	char remedy[512];  /* what to change, "" if nothing */
	uint64_t features; /* as UFFDIO_API answered; 0 if unknown */
};
/* Fills at most capacity entries; returns how many backends there are. */
size_t mkw_backends(struct mkw_backend_info *info, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
