/* SPDX-License-Identifier: MIT */
/*
 * store.h - for people who write stores.
 *
 * A store is a struct of operations and a pointer of its own. fault alone makes a read-only store;
 * fault and writepages a writable one. A store sees pages of its object by index (offset divided by
 * MKW_PAGE_SIZE), in runs; never a view, never an address.
 *
 *   operation    pages are                      may sleep  called from
 *   fault        locked, absent; fill a buffer  yes        handler thread, API callers
 *   page_mkwrite referenced, UNLOCKED           yes        handler thread, API callers
 *   unreserve    not locked                     yes        any library thread
 *   writepages   under write-back, stable       yes (1)    flusher, API callers
 *   truncate,    quiet: no fault, no write-     yes        API callers
 *   punch_hole   back in the range
 *   fsync, control, capacity, attach, release   yes        API callers
 *   (1) with MKW_WB_RECLAIM nothing that could wait for memory of this space.
 *
 * Operations of one object run concurrently with each other except where "quiet" says otherwise.
 * No lock of the library is held during any of them but the page locks named. An operation must not
 * touch a view of its own object (detected: EDEADLK) and calls no function of mkwrite.h but
 * mkw_error_message(). Inside an operation views of other objects may be touched.
 */
#ifndef MKWRITE_STORE_H
#define MKWRITE_STORE_H

#include <mkwrite/mkwrite.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mkw_object;

/* ---- Codes -------------------------------------------------------------------------------- */

/* What fault and page_mkwrite answer: the kernel's VM_FAULT codes with their kernel values. */
typedef unsigned mkw_fault_t;
#define MKW_FAULT_OOM	 0x0001u /* no memory: reclaim, then ask again; at last ENOMEM */
#define MKW_FAULT_SIGBUS 0x0002u /* refused; mkw_set_error() beforehand says why, else EIO */
#define MKW_FAULT_MAJOR	 0x0004u /* or-ed in: needed I/O; a statistic */
#define MKW_FAULT_NOPAGE 0x0100u /* the page went away (cut off, punched): fault again; bounded */
#define MKW_FAULT_LOCKED 0x0200u /* success; page_mkwrite: the run is locked (mkw_run_lock) */
#define MKW_FAULT_RETRY	 0x0400u /* ask again; bounded, then EAGAIN */
/* 0 is the old minor success: the library locks the pages itself and looks whether they are still
 * the object's; if not the access faults again (contract 3.4, S4.1). */

/* 0: LOCKED. -EFAULT, -EAGAIN: NOPAGE. -ENOMEM: OOM. All else: SIGBUS, with error as the reason
 * (contract 3.5, vmf_fs_error). */
mkw_fault_t mkw_fault_from_errno(int error);

/* Set the calling thread's error and sentence; returns error (negative errno). */
int mkw_set_error(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- Runs --------------------------------------------------------------------------------- */

/* Consecutive pages of one object, the subject of one call. Fields are for reading; change the
 * extent by the functions below. */
struct mkw_run {
	struct mkw_object *object;
	uint64_t first; /* index of the first page */
	size_t count;	/* pages */
	uint64_t page;	/* the page that faulted: always within the run */
	unsigned flags; /* MKW_RUN_... */
};
#define MKW_RUN_BROKEN                                                                      \
	0x4u /* page_mkwrite of a file in place: the run's page was granted, and the kernel \
		refused the write (its SIGBUS). Find out why; 0 has the write tried again. */
#define MKW_RUN_WRITE 0x1u /* fault: for a write, page_mkwrite will follow */
#define MKW_RUN_HOLE                                                                   \
	0x2u /* set by fault: all of the run reads as zeros because nothing is stored; \
		buffer was not touched */

/* Make the run smaller: [first, first+count) must lie in it and hold run->page. In fault: at any
 * time, at its end. In page_mkwrite: before locking. -EINVAL otherwise. */
int mkw_run_cut(struct mkw_run *run, uint64_t first, size_t count);

/* page_mkwrite, before locking: take further pages into the run, up to [first, first+count), as far
 * as they are cached, clean, unlocked, adjoining, and the dirty limit has room. Never waits. What
 * was gained is in run afterwards. */
void mkw_run_grow(struct mkw_run *run, uint64_t first, size_t count);

/* page_mkwrite: lock the run's pages and look whether they are still the object's. May sleep for
 * run->page; other pages are only tried and the run is cut where that fails. 0, or -EFAULT with
 * nothing locked: answer MKW_FAULT_NOPAGE (contract 3.2, S4.4) and undo nothing. Somebody may have
 * been granted the same pages since: what nobody needs of it is given back by unreserve, and so are
 * pages that were cut off. -EDEADLK: see the order of locks. */
int mkw_run_lock(struct mkw_run *run);
void mkw_run_unlock(struct mkw_run *run);

/* The run's bytes, between lock and unlock: for a copy before the first write (S1.2). Read only. */
const void *mkw_run_data(const struct mkw_run *run);

/* ---- The order of locks ------------------------------------------------------------------- */

/*
 * A lock that one thread takes before the page lock (mkw_run_lock) and another one inside it will
 * deadlock some day. A store can declare on which side of the page lock each of its locks belongs,
 * and in which order among each other (contract S2.4, 4.4):
 *
 *	static const struct mkw_lock_class journal = {.name = "journal", .rank = -1};
 *	static const struct mkw_lock_class extents = {.name = "extents", .rank = 1};
 *
 *	mkw_lock_take(&journal, &store->journal); <- before it waits for the lock
 *	pthread_mutex_lock(&store->journal);
 *	...
 *	pthread_mutex_unlock(&store->journal);
 *	mkw_lock_drop(&store->journal);
 *
 * When it is checked: in code compiled with MKW_CHECK_LOCKS defined before this header, against any
 * build of the library. In other code mkw_lock_take is 0, mkw_lock_drop is nothing, mkw_run_lock is
 * the plain function, and nothing is checked.
 *
 * What is checked, at every taking, by ranks alone: what another thread does, or will do, does not
 * matter, so each of the two sides of a deadlock is found by itself.
 *   - A lock is taken while one of a higher rank is held, or another of the same rank.
 *   - A lock of a rank below 0 is taken while the page lock is held: in page_mkwrite between
 *     mkw_run_lock and mkw_run_unlock or the end, and in all of fault.
 *   - mkw_run_lock is called while a lock of a rank above 0 is held.
 *   - An operation ends with locks held that it took. It must not: the library waits for page locks
 *     after truncate and punch_hole, and continues on other threads. They are forgotten then.
 * Each is logged as MKW_LOG_ERROR by the thread itself, its locks held, in a sentence that names
 * both locks and both places. Outside of operations (a store's own thread) there is no log, and
 * only the answer tells of it. Locks that a thread took outside count inside an operation. The page
 * locks of two objects are not compared, nor are the locks of operations inside one another.
 *
 * Nothing else of the library is in the order: page_mkwrite, while it waits in mkw_run_lock, waits
 * for no range that is being truncated and for no write-back. So truncate, punch_hole, unreserve,
 * writepages, fsync and all others but fault may take locks of either side.
 *
 * Only what the same thread gives back can be noted. A lock got by a try against the order cannot
 * deadlock: do not note it. At most 8 locks are noted at a time. Layers and what is beneath them
 * share the ranks: leave gaps.
 */
struct mkw_lock_class { /* static: reports name it at any time */
	const char *name;
	int rank;	/* below 0: taken before the page lock; above 0: inside it; ascending */
	unsigned flags; /* MKW_LOCK_... */
};
#define MKW_LOCK_NESTS 0x1u /* several locks of the class at a time, in an order of their own */

/* What the macros call. 0; -EDEADLK with a sentence: the order is wrong, the lock is not noted. The
 * store may take it all the same. -EINVAL: no class, or rank 0. */
int mkw_lock_take_at(const struct mkw_lock_class *lock_class, const void *lock, const char *where);
/* One that is not noted is left alone. */
void mkw_lock_forget(const void *lock);
/* mkw_run_lock. Also -EDEADLK, with nothing locked, when the order is wrong. */
int mkw_run_lock_at(struct mkw_run *run, const char *where);

#ifdef MKW_CHECK_LOCKS
#define MKW_LINE_(line)			#line
#define MKW_LINE(line)			MKW_LINE_(line)
#define MKW_HERE			__FILE__ ":" MKW_LINE(__LINE__)
#define mkw_lock_take(lock_class, lock) mkw_lock_take_at((lock_class), (lock), MKW_HERE)
#define mkw_lock_drop(lock)		mkw_lock_forget(lock)
#define mkw_run_lock(run)		mkw_run_lock_at((run), MKW_HERE)
#else
static inline int mkw_lock_take(const struct mkw_lock_class *lock_class, const void *lock)
{
	(void)lock_class;
	(void)lock;
	return 0;
}
static inline void mkw_lock_drop(const void *lock)
{
	(void)lock;
}
#endif

/* ---- Write-back --------------------------------------------------------------------------- */

enum mkw_wb_reason { MKW_WB_SYNC, MKW_WB_BACKGROUND, MKW_WB_RECLAIM };

struct mkw_wb_run {
	uint64_t first;
	size_t count;
	const void *data;      /* count pages, stable until the operation returns */
	uint64_t length_bytes; /* of data, cut to the object's size */
	int result; /* the store's answer, 0 beforehand. -EAGAIN: "not yet", the pages stay
		       dirty, nobody is told. Another negative errno: failed, they stay dirty,
		       the error is recorded. */
};

struct mkw_writeback {
	enum mkw_wb_reason reason;
	size_t count;
	struct mkw_wb_run *runs; /* ascending */
};

/* ---- Operations --------------------------------------------------------------------------- */

#define MKW_STORE_FIXED_SIZE 0x1u /* truncate is refused with EINVAL */

struct mkw_store_ops {
	size_t struct_size; /* sizeof(struct mkw_store_ops): the struct grows only at its end */
	const char *name;
	unsigned flags;		/* MKW_STORE_... */
	uint32_t run_max_pages; /* longest run it wants to be given; 0: no wish */

	/* Bring the run's bytes into buffer (run->count pages, page aligned). Bytes past the
	 * object's size must be zero. run->page is the first page; the run's end may be cut. LOCKED
	 * or 0: done. Required. */
	mkw_fault_t (*fault)(void *store, struct mkw_object *object, struct mkw_run *run,
			     void *buffer);

	/* The run is about to become writable. NULL: always granted. Idempotent: may be called
	 * again for pages that were granted before, and twice at a time for different runs. On
	 * failure it has undone whatever it did (contract 3.3). */
	mkw_fault_t (*page_mkwrite)(void *store, struct mkw_object *object, struct mkw_run *run);

	/* Pages that page_mkwrite granted have not been written, or its grant was lost in a race:
	 * give back what was reserved for them. May be NULL. */
	void (*unreserve)(void *store, struct mkw_object *object, uint64_t first, uint64_t count);

	/* Write the runs; results per run. Returning a negative errno fails all of them. Without it
	 * the store is read only. A page that is pinned for writing is written by each sync, and
	 * page_mkwrite asked again after it. Pages for which it refused may be written all the
	 * same, by a sync (mkw_pin) or whenever (MKW_DEFER): that may fail as it may. */
	int (*writepages)(void *store, struct mkw_object *object, struct mkw_writeback *writeback);

	/* On failure nothing has changed. Reservations beyond the size are given back. */
	int (*truncate)(void *store, struct mkw_object *object, uint64_t size_bytes);

	/* Whole pages only. Reservations in the range are given back. NULL: zeros are written. */
	int (*punch_hole)(void *store, struct mkw_object *object, uint64_t offset, uint64_t length);

	/* Make durable what writepages wrote. May be NULL. */
	int (*fsync)(void *store, struct mkw_object *object, uint64_t offset, uint64_t length);

	/* Once, before first use, when the object is really new. May be NULL. */
	int (*attach)(void *store, struct mkw_object *object);
	/* Once, at the end; nothing is running. store is no longer used. May be NULL. */
	void (*release)(void *store);

	/* A writable view came or went: file times, leases. May be NULL. */
	void (*map)(void *store, struct mkw_object *object);
	void (*unmap)(void *store, struct mkw_object *object);

	int (*control)(void *store, struct mkw_object *object, const char *key, const char *value);
	int (*capacity)(void *store, uint64_t *free_bytes, uint64_t *total_bytes);
};

/* ---- What a store may ask of its object --------------------------------------------------- */

uint64_t mkw_object_size(const struct mkw_object *object);

/* Record an error that no operation can return (a file replaced under us); handles report it as
 * they report failed write-back. From any thread, inside operations too. */
void mkw_object_error(struct mkw_object *object, int error);

/* There may be space again: ask for the writers who wait (MKW_WAIT). Likewise. */
void mkw_object_wake(struct mkw_object *object);

/*
 * Is the access that this operation serves part of a system call on the file (dev, ino)? Then the
 * kernel may hold that file's inode lock, and a call on the file from fault or page_mkwrite could
 * wait for ever: answer mkw_fault_from_errno(-EDEADLK) in its place (contract 4.3). Costs a read
 * of /proc for faults that a handler thread serves; ask only when about to make such a call.
 */
bool mkw_fault_in_syscall_on(uint64_t dev, uint64_t ino);

/* ---- Drivers: stores that URIs name ------------------------------------------------------- */

struct mkw_option { /* one key=value, decoded */
	const char *key, *value;
};

#define MKW_IDENTITY_MAX 64

struct mkw_open_args {
	/* given */
	const char *scheme;
	const char *path; /* decoded; for a layer: the inner URI, as written */
	const struct mkw_option *options;
	size_t option_count;
	unsigned flags; /* MKW_RDWR ... */
	/* answered */
	const struct mkw_store_ops *ops;
	void *store;
	uint64_t size_bytes;
	/* Equal bytes mean equal storage: a second opening then shares the first one's object and
	 * this store is released unused. Length 0: never shared. Locks and truncation (MKW_TRUNC)
	 * belong in attach, which that second store never sees. */
	unsigned char identity[MKW_IDENTITY_MAX];
	size_t identity_length;
	/* The file beneath, if any, for mkw_fault_in_syscall_on at waits. 0, 0: none. */
	uint64_t dev, ino;
};

struct mkw_store_driver {
	size_t struct_size;
	const char *scheme;
	const char *summary; /* one line */
	/* "quota=SIZE\tmost bytes it takes\n...": what `mkwrite info --help` shows. An option whose
	 * key is not listed is refused before open is called. NULL: there are none. */
	const char *options;
	bool layer; /* path is another URI */
	int (*open)(struct mkw_open_args *args);
};

/* Make a scheme of one's own known to mkw_open. The driver must outlive all use. EEXIST. */
int mkw_store_register(const struct mkw_store_driver *driver);
/* The i-th known driver, or NULL. */
const struct mkw_store_driver *mkw_store_driver(size_t index);

/* For layers: open what uri names, filling args. args->store is then the caller's to release. */
int mkw_store_open(const char *uri, unsigned flags, struct mkw_open_args *args);

/* Option values. "64M": K, M, G, T are powers of 1024. 0 or -EINVAL with a sentence that names
 * key. */
int mkw_parse_size(const char *key, const char *value, uint64_t *bytes);
int mkw_parse_uint(const char *key, const char *value, uint64_t min, uint64_t max,
		   uint64_t *number);
int mkw_parse_bool(const char *key, const char *value, bool *flag); /* "" 1 yes on, 0 no off */
/* "ENOSPC" or "28"; gives the positive errno. */
int mkw_parse_errno(const char *key, const char *value, int *number);

#ifdef __cplusplus
}
#endif
#endif
