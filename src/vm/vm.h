/* SPDX-License-Identifier: MIT */
/*
 * vm.h - the nouns of the VM and who owns what; private to src/vm.
 *
 * An object's pages are kept in regions of 512 pages (2 MiB): a region has one mutex for the states
 * of its pages, and one list of whoever waits for one of them. Runs never cross a region.
 *
 * The page lock is the flag PAGE_LOCKED, set and cleared under the region's mutex, held across
 * store operations and MMU calls. The mutex itself is never held across a store operation.
 *
 * Lock ranks are in env.h. What each lock protects is said at the field.
 */
#ifndef VM_H
#define VM_H

#include <mkwrite/store.h>

#include "../mmu/mmu.h"
#include "env.h"
#include "list.h"

#define PAGE_SHIFT   12
#define REGION_SHIFT 9 /* pages of a region, log2 */
#define REGION_PAGES (1u << REGION_SHIFT)
#define RADIX_BITS   9
#define RADIX_LEVELS 3
#define RADIX_SLOTS  (1u << RADIX_BITS)
/* 64 TiB: the alias of larger frames would not fit into an address space of 47 bits. */
#define OBJECT_PAGES_MAX (1ull << 34)
_Static_assert(OBJECT_PAGES_MAX <= 1ull << (REGION_SHIFT + RADIX_BITS * RADIX_LEVELS), "radix");
#define FILL_PAGES_MAX 128u /* a staging buffer: small enough to stay in a core's cache */

struct space;
struct object;
struct region;
struct view;
struct child;

/* ---- Errors ------------------------------------------------------------------------------- */

/* An error with its sentence, for somebody who asks later. */
struct error_record {
	int error; /* negative errno; 0: none */
	char sentence[192];
};
/* The sentence is that of the calling thread, if it is about this error. */
void error_keep(struct error_record *record, int error);
/* The calling thread's error is now "what: sentence". Returns the errno. */
int error_say(const char *what, const struct error_record *record);

/* As much as there is room for. */
void sentence_copy(char *to, size_t size, const char *from);

/* ---- Waiting ------------------------------------------------------------------------------ */

/* Something in a list of those who wait. wake is called with that list's lock held, after removal;
 * it only hands the waiter on. */
struct waiter {
	struct list link;
	void (*wake)(struct waiter *waiter);
	int deny; /* set by whoever wakes it: what it waited for will not come, for this errno */
	/* For room: */
	bool grows; /* it would make one page more that only swapping gets rid of, */
	bool pair;  /* and needs another one meanwhile */
};

/* A thread that waits, as opposed to a parked fault. */
struct sleeper {
	struct waiter waiter;
	struct env_mutex lock;
	struct env_cond cond;
	bool woken;
};
void sleeper_init(struct sleeper *s);
void sleeper_destroy(struct sleeper *s);
/* Sleep until woken; then it can be enqueued again. */
void sleeper_sleep(struct sleeper *s);
void waiters_wake(struct list *waiters);
void waiters_deny(struct list *waiters, int error);

/* ---- Pages -------------------------------------------------------------------------------- */

/* States and transitions: page.c. */
enum page_state { PAGE_ABSENT, PAGE_CLEAN, PAGE_GRANTED, PAGE_DIRTY, PAGE_WRITEBACK, PAGE_STATES };

struct page {
	uint8_t state; /* enum page_state; assigned in page.c only */
	uint8_t flags;
	uint16_t ask;	     /* the notification in flight that names this page; 0: none */
	uint16_t error;	     /* errno of the last failed write-back, 0 after success */
	uint16_t pins;	     /* of any kind */
	uint16_t write_pins; /* those among them for writing: the page is DIRTY */
	uint8_t copy;	     /* enum page_copy */
	pid_t writer;	     /* the thread whose fault made it writable, 0: an API call's */
};

/* The write-back of a page that is pinned for writing: a copy goes to the store, the page stays as
 * it is. */
enum page_copy {
	COPY_NONE,
	COPY_UNDERWAY, /* taken, or about to be, and not in the store yet */
	COPY_OLD,      /* the same, and a sync has begun since that may need a later one */
};

#define PAGE_LOCKED    0x01u /* the page lock */
#define PAGE_TOWRITE   0x02u /* dirty when an integrity sync began (6.3) */
#define PAGE_CONFIRMED 0x04u /* GRANTED, and the stream that earned the grant went past it */
#define PAGE_HOLE      0x08u /* the store has nothing here: its bytes are zeros */
#define PAGE_HELD      0x10u /* mkw_reserve: keep the store's reservation */
#define PAGE_ASK_AGAIN \
	0x20u /* DIRTY, but the next write is notified again (5.4, failed write-back) */
#define PAGE_UNASKED \
	0x40u /* DIRTY, and a copy was written since it was notified: the store is to be asked */

enum page_event {
	PAGE_FILL,	/* the frame exists, complete */
	PAGE_GRANT,	/* its run was notified */
	PAGE_WRITE,	/* notified and about to be written */
	PAGE_START,	/* write-back begins */
	PAGE_END,	/* it is in the store */
	PAGE_FAIL,	/* it is not */
	PAGE_UNWRITTEN, /* a grant that nobody used */
	PAGE_DETACH,	/* the page is the object's no more */
	PAGE_EVENTS
};

/* ---- Pages of private views --------------------------------------------------------------- */

/* States and transitions: page.c. */
enum private_state {
	PRIVATE_NONE,	 /* shows the object's page */
	PRIVATE_GRANTED, /* may have been copied: writes are not reported. Charged. */
	PRIVATE_COPY,	 /* has been: the view's own page, EXCLUSIVE to it (I6). Charged. */
	PRIVATE_SWAPPED, /* the same in a slot of the swap file. Not charged. */
	PRIVATE_STATES
};

struct private_page {
	uint8_t state; /* enum private_state; assigned in page.c only */
	uint8_t flags;
	uint16_t pins;
	union {
		uint32_t slot; /* PRIVATE_SWAPPED */
		pid_t writer;  /* the thread whose fault let it be written */
	};
};

/* Somebody is at its bytes without a lock: what the page lock is to a page. */
#define PRIVATE_BUSY 0x01u

enum private_event {
	PRIVATE_GRANT,	/* writes to it are let go */
	PRIVATE_OWN,	/* it is known to be a copy */
	PRIVATE_UNUSED, /* a grant that nobody used */
	PRIVATE_OUT,	/* it is in the swap file */
	PRIVATE_IN,	/* it is back */
	PRIVATE_DROP,	/* the copy is gone, by truncation or because its user said so */
	PRIVATE_EVENTS
};

struct private_chunk { /* the pages of a view in one region; the region's lock guards it */
	struct private_page pages[REGION_PAGES];
	uint32_t charged, swapped; /* pages */
	uint32_t pinned;	   /* pages */
	uint32_t window;	   /* pages that the next fault asks for */
	uint16_t hand;		   /* the slot that swapping out begins at */
	bool referenced;	   /* faulted in since reclaim last looked */
	bool childs;		   /* charged to nobody, and never swapped out */
};

/* A child's copy of a chunk gets the page as it is. */
void private_inherit(struct region *region, const struct private_chunk *from,
		     struct private_chunk *to, size_t slot);
/* => region->lock held. The transition must be in the table. */
void private_change(struct region *region, struct private_chunk *chunk, size_t slot,
		    enum private_event event);
/* As page_pin, of a PRIVATE_COPY. */
bool private_pin(struct region *region, struct private_chunk *chunk, size_t slot);
void private_unpin(struct region *region, struct private_chunk *chunk, size_t slot);

/* => region->lock held. The transition must be in the table. */
void page_change(struct region *region, size_t slot, enum page_event event);
static inline bool page_is_charged(const struct page *p)
{
	return p->state >= PAGE_GRANTED;
}
/* => region->lock held. One more pin of a resident page; for writing: of a DIRTY one. False: it
 * has as many as can be counted. */
bool page_pin(struct region *region, size_t slot, bool write);
void page_unpin(struct region *region, size_t slot, bool write);
/* => region->lock held. Write-back of a copy of a page that is pinned for writing. */
void page_copy_begin(struct region *region, size_t slot);
void page_copy_end(struct region *region, size_t slot, bool written);
/* It came to nothing before anything was handed to the store: whoever needs it has yet to try. */
void page_copy_cancel(struct region *region, size_t slot);
/* => region->lock held. The store was asked, and has granted it. */
void page_asked(struct region *region, size_t slot);
/* A sync begins that needs what is in the page now. */
static inline void page_tag(struct page *p)
{
	p->flags |= PAGE_TOWRITE;
	if (p->copy == COPY_UNDERWAY)
		p->copy = COPY_OLD;
}

/* ---- Regions ------------------------------------------------------------------------------ */

struct region {
	struct env_mutex lock; /* RANK_REGION: everything below but refs, link, free_next */
	struct object *object;
	uint64_t first;	     /* index of page 0 of the region */
	struct list waiters; /* for a page lock, the end of write-back, of a notification */
	uint64_t unarmed[REGION_PAGES / 64]; /* pages at which some view may lack its marker */
	uint32_t resident, charged, locked, asked, held; /* pages */
	uint32_t write_pinned;				 /* pages */
	struct list pins;				 /* pin_part.link */
	uint32_t private; /* pages of private views that are not PRIVATE_NONE, */
	uint32_t busy;	  /* or PRIVATE_BUSY */
	uint16_t next_ask;
	struct list questions; /* vm_run.link of those under way */
	bool referenced;       /* faulted in since reclaim last looked */
	bool sampled;	       /* reclaim zapped its clean pages, to see which come back */
	_Atomic uint32_t refs;
	struct list link; /* the space's list for reclaim; charge lock */
	struct page pages[REGION_PAGES];
};

/* The region of a page, made if it is not there; referenced. NULL: no memory. */
struct region *region_get(struct object *object, uint64_t page);
/* => region->lock held; to unbusy wakes nobody. */
static inline void private_busy(struct region *r, struct private_chunk *c, size_t slot)
{
	c->pages[slot].flags |= PRIVATE_BUSY;
	r->busy++;
}
static inline void private_unbusy(struct region *r, struct private_chunk *c, size_t slot)
{
	c->pages[slot].flags &= (uint8_t)~PRIVATE_BUSY;
	r->busy--;
}
/* The first region at or after page that exists, referenced, or NULL. */
struct region *region_next(struct object *object, uint64_t page);
void region_put(struct region *region);
struct region *region_clock(struct space *s);
void region_clock_first(struct region *region);
void region_tree_free(void **node, unsigned level);
/* => region->lock held, and wakes nobody. */
static inline void page_lock(struct region *r, size_t slot)
{
	r->pages[slot].flags |= PAGE_LOCKED;
	r->locked++;
}
static inline void page_unlock(struct region *r, size_t slot)
{
	r->pages[slot].flags &= (uint8_t)~PAGE_LOCKED;
	r->locked--;
}

/* ---- Objects ------------------------------------------------------------------------------ */

/* Pages [first, last] in transition by truncate, punch, invalidate: faults in it are parked,
 * write-back leaves it alone. */
struct range_op {
	struct list link;
	uint64_t first, last;
};

struct counters { /* relaxed: each is exact by itself */
	_Atomic uint64_t read_faults, write_faults, waits, fills, pages_filled, notifications,
		pages_granted, refusals, writes, pages_written, pages_unwritten, write_errors,
		pages_evicted, swap_outs, swap_ins;
	_Atomic uint64_t pages_private, pages_swapped, pins, pages_pinned; /* gauges */
};

struct account {					  /* charge lock */
	uint64_t resident, resident_limit, resident_peak; /* pages; limit 0: none */
	uint64_t dirty, dirty_limit, dirty_peak;
	/* Writers that wait for room under this limit, and what may still bring some: */
	struct list dirty_waiters;
	uint64_t in_flight;	   /* charged for a notification that has not ended */
	uint64_t writeback_pages;  /* and one for each sync that runs */
	bool changed;		   /* since write-back last began to pass over it */
	unsigned fruitless_passes; /* in a row, of write-back */
};

struct mkw_object {
	int unused;
};

struct object {
	struct mkw_object public; /* stores see its address only */
	struct space *space;
	struct list link; /* space->objects; space->lock */
	const struct mkw_store_ops *ops;
	struct mkw_store_ops ops_copy;
	void *store;
	struct frames *frames;
	unsigned char identity[MKW_IDENTITY_MAX];
	size_t identity_length;
	uint64_t dev, ino; /* file beneath, 0: none */
	bool can_write, manual;
	bool in_place; /* frames are a file's own page cache: the kernel fills them (in_place.c) */
	_Atomic bool unsynced; /* the store was changed since the last fsync that succeeded */
	_Atomic uint64_t size_bytes;
	/* The last growth: a number that changes with the size, and when a page from grown_from on
	 * is granted or written. While it is the same, nothing was stored in what was grown. */
	_Atomic uint64_t growth, grown_from;
	/* Its users. They go under space->lock; and come there, or while there is another. */
	_Atomic unsigned handles; /* openings */
	_Atomic unsigned view_count;
	_Atomic unsigned pin_parts; /* parts of pins (pin.c) */
	/* Changes under space->lock: */
	unsigned pins;	       /* somebody is at it without being its user */
	bool opening, closing; /* the store is being attached; the last user is writing it out */
	bool ending;	       /* it cannot be pinned any more */
	bool opened_rdonly;
	uint64_t id; /* ascending in a space */

	struct env_rwlock views_lock; /* RANK_OBJECT_VIEWS: the list below */
	struct list views;
	_Atomic uint64_t cuts; /* how often private copies were dropped from its end */

	struct env_mutex lock;	   /* RANK_OBJECT: the rest */
	struct list waiters;	   /* for a range op, a thaw, space in the store */
	_Atomic uint64_t wake_seq; /* counts mkw_object_wake */
	struct list range_ops;
	_Atomic unsigned range_op_count;
	_Atomic unsigned frozen;
	bool freezing; /* a freeze is writing what is dirty */
	/* From the start of that to the thaw: nobody else writes to the store. */
	_Atomic bool still;
	_Atomic unsigned unasked; /* pages that are PAGE_UNASKED */
	_Atomic unsigned
		asking; /* notifications, from charge to settlement: a freeze drains them */
	void **radix;	/* level 0 */
	uint64_t region_count;
	enum mkw_policy policy;
	mkw_policy_fn policy_fn;
	void *policy_arg;
	/* Error history (6.5): error_seq counts recorded errors. */
	uint64_t error_seq, error_seen_seq;
	struct error_record error; /* the last of them */
	uint64_t again_seq;	   /* counts runs of a sync that the store did not take yet */

	struct account account; /* charge lock */
	struct counters counters;
};

static inline struct mkw_object *object_public(struct object *o)
{
	return &o->public;
}
static inline struct object *object_of(const struct mkw_object *o)
{
	return container_of(o, struct object, public);
}
static inline uint64_t object_pages(const struct object *o)
{
	return (o->size_bytes + MKW_PAGE_SIZE - 1) >> PAGE_SHIFT;
}

/* Its pages are written when its user says so. One that the last close could not write has no user
 * any more. */
static inline bool object_is_used(struct object *o)
{
	return atomic_load(&o->handles) > 0 || atomic_load(&o->view_count) > 0 ||
	       atomic_load(&o->pin_parts) > 0;
}
static inline bool object_is_manual(struct object *o)
{
	return o->manual && object_is_used(o);
}

struct mkw_handle {
	struct object *object;
	unsigned flags;
	uint64_t error_seq; /* errors up to here were reported; object->lock */
	unsigned freezes;   /* object->lock */
};

/* A user goes; the object must not be touched any more. With the last of them the object's pages
 * are written and it ends; if they cannot be, it stays in the space. The error of that, or one that
 * nobody has heard. */
enum object_user { USER_HANDLE, USER_VIEW, USER_PIN };
int object_release(struct object *o, enum object_user user);
/* Stop all dirtying of the object and sync it; every call, successful or not, has its thaw. */
int object_freeze(struct object *o);
void object_thaw(struct object *o);
/* The same, but nothing is written; what is dirty is asked for again at its next write. */
int object_quiesce(struct object *o);
void object_resume(struct object *o);
bool object_is_dirty(struct object *o);
/* End an object without handles and views; discard drops what cannot be written. heard: the caller
 * is told what is returned. */
int object_end(struct object *o, bool discard, bool heard, bool *gone);
/* With the calling thread's sentence. => object->lock held. */
void object_record_error(struct object *o, int error);
/* The handle's unreported error, reported now; 0: none. record may be NULL. */
int handle_take_error(struct mkw_handle *handle, struct error_record *record);
/* Is the page in a running range op? */
bool object_in_range_op(struct object *o, uint64_t page);
/* Begins when no other op overlaps; then pages in it are neither locked nor under write-back. */
void range_op_begin(struct object *o, struct range_op *op, uint64_t first, uint64_t last);
void range_op_end(struct object *o, struct range_op *op);
/* Wake whoever waits at the object. */
void object_wake(struct object *o);
/* -EAGAIN without a sentence: the size was not old_bytes any more. 1: the object is frozen.
 * growth: gets the number of a growth; or NULL. */
int object_resize(struct object *o, uint64_t size_bytes, uint64_t old_bytes, uint64_t *growth);
/* Write within the object, as mkw_pwrite does, but grow nothing: -ENXIO at its end. Blocks. */
ssize_t io_overwrite(struct object *o, const void *bytes, size_t count, uint64_t offset);
/* Take back a growth from size_bytes to grown_bytes, unless something was written there since, or
 * the size was changed. */
void object_shrink_unused(struct object *o, uint64_t size_bytes, uint64_t grown_bytes,
			  uint64_t growth);
/* Pages of a byte range, clipped to the object; length 0: to the end. 1: there are none. */
int object_range(const struct object *o, uint64_t offset, uint64_t length, uint64_t *first,
		 uint64_t *last);
/* 0, or an error that is said: no handle, inside a store operation; not to be written. */
int handle_check(const struct mkw_handle *h);
int handle_check_write(const struct mkw_handle *h);
/* 0, or an error that is said: the object is in place, and its pages are the kernel's. */
int object_check_cache(const struct object *o);

/* ---- Views -------------------------------------------------------------------------------- */

/* In view->refs: it is being unmapped; whoever gives back a reference tells the unmapper. */
#define VIEW_DYING (1u << 31)

#define STREAMS 4
struct stream {
	uint64_t next;	/* the page after its last run */
	uint64_t first; /* of its last run */
	uint32_t run;	/* pages of its last run */
	uint32_t used;	/* clock for replacement */
	bool granted;	/* the last run was a grant, not yet confirmed */
};

#define ADVICE_RANGES 32
struct advice_range {
	uint64_t first, end; /* pages of the object */
	enum mkw_advice advice;
};

/* What a private view has of its own. The parts that a view was cut into share it, each for its
 * range. */
struct private
{
	_Atomic unsigned refs;
	uint64_t first_region; /* number of that of chunks[0] */
	size_t regions;
	struct private_chunk *chunks[]; /* NULL: all PRIVATE_NONE; set under the region's lock */
};

/* What one mkw_map made: its view, or the pieces that became of it (reshape.c). The object's
 * view_count counts these. */
struct mapping {
	_Atomic unsigned pieces; /* and calls that are at it */
	_Atomic bool told;	 /* the store knows that it may be written */
	bool may_write;
};

struct view {
	struct mmu_view mmu;
	struct private *private; /* NULL: a shared view */
	struct child *child;	 /* whose it is; NULL: this process's */
	uint64_t zapped;	 /* a child's: object->cuts, when it last lost private copies */
	bool dontfork;		 /* children do not inherit it; object->views_lock */
	struct object *object;
	struct mapping *mapping;
	struct view *next;		   /* of those that are reshaped together */
	struct list link;		   /* object->views */
	struct list leaving;		   /* out of the table, unmapped or reshaped; table_lock */
	uint64_t first, count;		   /* pages of the object */
	unsigned protection;		   /* while it is in the table */
	_Atomic bool claimed;		   /* to be changed (reshape.c) */
	_Atomic bool torn;		   /* somebody has unmapped pages of it without us */
	bool locked;			   /* MKW_LOCKED: reclaim leaves its pages */
	_Atomic unsigned refs;		   /* faults and calls that use it; VIEW_DYING */
	struct env_mutex stream_lock;	   /* RANK_LEAF: the rest */
	struct stream streams[2][STREAMS]; /* reads, writes */
	uint32_t stream_clock;
	struct advice_range
		advice[ADVICE_RANGES]; /* newest last: the last that covers a page counts */
	uint32_t advice_count;
};

/* Put a view into the table: -ENOMEM. Take it out; false: somebody else was first; then
 * view_set_gone, when it is unmapped. */
int view_enter(struct view *v);
bool view_leave(struct view *v);
void view_set_gone(struct view *v);
/* The view at an address, referenced, or NULL. */
struct view *view_find(uintptr_t address);
/* No view was found at address. True: one that was being unmapped or reshaped was there; look
 * again.
 */
bool view_await_gone(uintptr_t address);
/* Is there any view; is one in the range? */
bool views_any(void);
bool views_overlap(uintptr_t address, size_t length);
/* => views_lock held. False: it is being unmapped. */
bool view_try_get(struct view *v);
void view_put(struct view *v);
static inline bool view_is_dying(const struct view *v)
{
	return (atomic_load(&v->refs) & VIEW_DYING) != 0;
}
static inline uintptr_t view_address(const struct view *v, uint64_t page)
{
	return v->mmu.address + ((page - v->first) << PAGE_SHIFT);
}
/* Writes through it are asked of the store. */
static inline bool view_is_notified(const struct view *v)
{
	return v->mmu.writable && v->private == NULL;
}
/* NULL: no memory. It is in no list, has no address and no protection, and is not private. */
struct view *view_new(struct object *o, struct mapping *mapping, uint64_t first, uint64_t count);
void view_set_private(struct view *v, struct private *private);
void view_set_protection(struct view *v, unsigned protection);
void view_free(struct view *v);
int view_unmap(struct view *v); /* after it was taken from the table */
/* A mapping that is there, as a view in place. Said. */
int view_adopt(const struct mkw_handle *h, uintptr_t address, size_t length, unsigned protection,
	       uint64_t offset);
/* Whether children inherit the range (7.2). As the API calls of reshape.c. */
int reshape_fork(void *address, size_t length, bool dontfork);
/* Bring in what there is of [first, first+count), swapped pages too. 0, or the first refusal. No
 * lock held. */
int view_fill(struct view *v, uint64_t first, uint64_t count);
/* A copy for a child, in no list. NULL: no memory. */
struct view *view_copy(const struct view *v, struct mmu *mmu);
void view_free(struct view *v); /* in no list, mapped no more */
/* Of a child that is no more, or is not to be served any more. No lock held. */
void view_retire(struct view *v);
/* In a child: there are none but those in place. */
void views_abandon(void);
struct view *view_steal(const struct space *s);
/* No fault or call has it any more; it is dying from then on. => it is not in the table. */
void view_drain(struct view *v);
/* A new view, or part of one that is to become writable, is armed. => views_lock held for writing.
 */
int view_arm(struct view *v, uint64_t first, uint64_t count);
/* mmu_protect, mmu_zap of these pages of the view, as far as they are there. => views_lock held. */
int view_protect_pages(struct view *v, uint64_t first, uint64_t count);
int view_zap_pages(struct view *v, uint64_t first, uint64_t count);
/* Map what is cached of these pages of the view, if that can be. => views_lock held. */
void view_map_cached(struct view *v, uint64_t first, uint64_t count);
/* Once for each mapping. Blocks. */
void mapping_tell_writable(struct object *o, struct mapping *mapping);
/* A piece is gone, and with the last the mapping. Blocks. */
int mapping_put(struct object *o, struct mapping *mapping);

/* No process forks between them: lists of views and the kernel's mappings are not of one moment.
 * Rank SPACES; for no wait for somebody else. */
void forks_hold(void);
void forks_let_go(void);

/* Views taken from the table to be changed: nobody finds them there. */
struct claim {
	uintptr_t start, end;
	size_t elsewhere;   /* besides each of them, so many may be mapped at another place; 0: none
			     */
	struct view *views; /* by next, ascending; NULL: none */
	size_t places;	    /* in the table, for what will become of them */
};
/* Those that overlap [start, end), when nobody else is at that range; and the one before and behind
 * it where joins(before, behind, arg). -ENOMEM. Waits. */
int views_claim(struct claim *c, bool (*joins)(const struct view *, const struct view *, void *),
		void *arg);
/* In one step these views are in the table in place of those, and who waits in them is woken. */
void views_settle(struct claim *c, struct view *made);
#define VIEW_GONE 1 /* what fn of views_each returns when its view is dying: again */
int views_each(void *address, size_t length, int (*fn)(struct view *, uint64_t, uint64_t, void *),
	       void *arg);
/* What the view shows of [first, first+count), which is charged. => fault_lock held. */
int view_map_rw(struct view *v, uint64_t first, uint64_t count);
int view_let_rw(struct view *v, uint64_t first, uint64_t count); /* as mmu_let_rw */
/* Over every view of the object. => views_lock held for reading. */
int views_protect(struct object *o, uint64_t first, uint64_t count);
void views_zap(struct object *o, uint64_t first, uint64_t count);
/* Give every view its marker in the unarmed stretch around [first, first+count), which is absent.
 * => views_lock, region->lock held. */
int views_arm(struct region *r, size_t slot, size_t count);
/* Does any view have a translation in [first, first+count)? present is or-ed. => views_lock. */
void views_present(struct object *o, uint64_t first, size_t count, bool *present);

/* ---- Private views (private.c) ------------------------------------------------------------ */

/* For pages [first, first+count). NULL: no memory. */
struct private *private_new(uint64_t first, uint64_t count);
/* What a child's copy of the view begins with. NULL: no memory. => the list of views is held. */
struct private *private_fork(const struct view *v);
/* The view is no more. */
void private_put(struct view *v);
void private_unref(struct space *s, struct private *p);
/* Its pages there are mapped no more, nor is it in its object's list. No lock held. */
void private_forget(struct view *v, uint64_t first, uint64_t count);
/* => region->lock held. NULL: it is PRIVATE_NONE, and was never anything else. */
struct private_chunk *private_chunk(const struct view *v, const struct region *r);
/* The part of pages [first, first+count) that is in the view and the region, as slots. False: there
 * is none. */
bool private_clip(const struct view *v, const struct region *r, uint64_t first, uint64_t count,
		  size_t *from, size_t *to);
/* May the object's page be mapped there? => region->lock held. */
bool private_shows_base(const struct view *v, const struct region *r, size_t slot);
/* Drop the view's copies in [first, first+count); translations go, too. No lock held. Waits for who
 * is at one of them. */
void private_drop(struct view *v, uint64_t first, uint64_t count);
/* The object ends at page first now. => a range op over what is behind; no lock held. */
void private_truncate(struct object *o, uint64_t first);
/* The first pinned slot of [from, to), or to: pinned pages are written to without a report, they
 * are not to be protected. => region->lock held. */
size_t private_unpinned(const struct private_chunk *c, size_t from, size_t to);
/* Take back grants that nobody used; what was copied is known to be a copy then. Returns how many
 * pages are to be uncharged. => views_lock, region->lock held. */
size_t private_take_back(struct view *v, struct region *r);
/* What the view has of its own in the range is the first that is swapped out. No lock held. */
void private_cool(struct view *v, uint64_t first, uint64_t count);

/* How many pages from page on a fault of this access should take. */
size_t stream_plan(struct view *v, uint64_t page, enum mmu_access access);
/* MKW_NORMAL, MKW_SEQUENTIAL or MKW_RANDOM for [first, end). -ENOMEM: too many ranges. */
int stream_advise(struct view *v, uint64_t first, uint64_t end, enum mkw_advice advice);
/* Those pages were filled or granted in the end. */
void stream_done(struct view *v, uint64_t first, size_t count, enum mmu_access access);

/* ---- Faults ------------------------------------------------------------------------------- */

enum fault_kind {
	FAULT_EVENT,	/* a thread waits in the kernel; parked when it must wait */
	FAULT_INLINE,	/* the calling thread faulted, in a signal handler */
	FAULT_READ,	/* fill: leaves the page locked for a copy (pread), no view */
	FAULT_WRITE,	/* leaves pages DIRTY and locked for a copy (pwrite), no view */
	FAULT_RESERVE,	/* mkw_reserve */
	FAULT_GRANT,	/* mkw_grant */
	FAULT_FILL,	/* WILLNEED */
	FAULT_PIN_READ, /* mkw_pin: counted in fault->part by the step that has the page right */
	FAULT_PIN_WRITE,
	FAULT_ASK, /* for a page that is PAGE_UNASKED, and only then; no view */
};

/* Did the fault come from inside a store operation of the object? */
enum op_inside { OP_OUTSIDE, OP_INSIDE_PERHAPS, OP_INSIDE };

struct fault {
	struct waiter waiter;	/* FAULT_EVENT: in a list of waiters, or the ready queue */
	struct sleeper sleeper; /* all others */
	struct object *object;
	struct region *region;
	struct view *view; /* NULL for FAULT_READ and FAULT_WRITE */
	uint64_t page;
	uintptr_t address;
	enum mmu_access access;
	enum fault_kind kind;
	pid_t tid;
	size_t want;		/* pages from page on */
	unsigned tries;		/* NOPAGE and RETRY answers in a row */
	unsigned memory_tries;	/* OOM answers */
	bool delayed;		/* has been slowed down once */
	enum op_inside inside;	/* as it was when the fault was reported */
	bool stale;		/* its thread was refused this access before it was reported */
	bool deferred;		/* the store refused, the policy lets it go on */
	bool broken;		/* in place: the kernel refuses what was granted */
	uint64_t not_before_ns; /* space->delayed */
	uint64_t reported;	/* mmu_report_time of its event */
	uint64_t wake_seq;	/* of the object, before the store was asked */
	size_t locked; /* pages that FAULT_READ and FAULT_WRITE left locked, from page on */
	size_t served; /* pages from page on that are done */
	size_t room;   /* resident pages that are charged for it in advance */
	bool lacked;   /* a private page had no room: it goes before that of the object's page */
	uint64_t
		*held; /* FAULT_RESERVE: gets a bit for each slot of its region that was not held */
	struct pin_part *part;	    /* FAULT_PIN_*: gets the pages served */
	bool freezes;		    /* FAULT_ASK: of the freeze that it would wait for */
	struct mkw_refusal refusal; /* error != 0: it was refused */
};

/* Serve the fault of a thread of the program (upcalls of mmu.h); of a child. */
void fault_event(void *space, uintptr_t address, enum mmu_access access, pid_t tid);
void fault_child(void *child, uintptr_t address, enum mmu_access access, pid_t tid);
void fault_ready(void *space);
bool fault_inline(uintptr_t address, enum mmu_access access, struct mkw_refusal *refusal);
bool fault_allowed(uintptr_t address, enum mmu_access access);
/* For API callers: one page and up to want of an object. v: for FAULT_RESERVE, FAULT_FILL. 0 or the
 * refusal. FAULT_READ and FAULT_WRITE leave f->locked pages locked until fault_call_end; for a
 * write they are DIRTY. FAULT_RESERVE: f->held is set before, FAULT_PIN_*: f->part, FAULT_ASK:
 * f->freezes. VIEW_GONE: v is dying. No lock held; blocks. */
int fault_call(struct fault *f, struct object *o, struct view *v, enum fault_kind kind,
	       uint64_t page, size_t want);
void fault_call_end(struct fault *f);
/* Resume delayed faults whose time has come; returns when the next one's comes, 0: none. */
uint64_t fault_tick(struct space *s, uint64_t now_ns);

/* Between the steps of a fault. */
enum step {
	STEP_DONE,
	STEP_AGAIN,
	STEP_PARKED,
	STEP_REFUSED,
	STEP_DROPPED, /* its view is being unmapped, or its thread is elsewhere */
};
static inline struct waiter *fault_waiter(struct fault *f)
{
	return f->kind == FAULT_EVENT ? &f->waiter : &f->sleeper.waiter;
}
/* A write that the store is asked for. */
static inline bool fault_is_notified(const struct fault *f)
{
	return f->access == MMU_WRITE && (f->view == NULL || f->view->private == NULL);
}
static inline bool fault_has_view(const struct fault *f)
{
	return f->view != NULL;
}
/* Of a thread that touches a view: streams are made of these. */
static inline bool fault_is_access(const struct fault *f)
{
	return f->kind == FAULT_EVENT || f->kind == FAULT_INLINE || f->kind == FAULT_GRANT;
}
static inline bool fault_is_pin(const struct fault *f)
{
	return f->kind == FAULT_PIN_READ || f->kind == FAULT_PIN_WRITE;
}
/* Before the fault is put in a list, whose lock is held: from then on another thread may run it.
 * False: it must not be, its view is being unmapped. */
bool fault_before_park(struct fault *f);
void fault_lock(struct fault *f); /* views_lock for reading, region->lock */
void fault_unlock(struct fault *f);
/* => fault_lock held, dropped. */
enum step fault_park_region(struct fault *f);
/* => no lock held. Parks at the object; STEP_AGAIN if holds(f) no longer does. */
enum step fault_park_object(struct fault *f, bool (*holds)(const struct fault *f));
/* May the fault's thread not be let to wait for room, because it is one that makes room, or holds
 * what write-back of some file of the space needs? Then it has set EDEADLK and a sentence. => no
 * lock held. */
bool fault_may_not_wait_for_room(const struct fault *f);
/* Is its thread the flusher or the reclaimer? Then likewise. */
bool fault_is_of_room_makers(const struct fault *f);
/* The fault's thread sits in a system call on the file beneath: it may not be let to wait for what
 * may need that file. Then EDEADLK and a sentence are set. */
bool fault_in_syscall_on(const struct fault *f, const struct object *o);
/* The store's answer that is no success, or the VM's own refusal. */
enum step fault_refuse(struct fault *f, int error);
enum step fault_answer(struct fault *f, mkw_fault_t code);
bool fault_is_frozen(const struct fault *f);
void fault_hold(struct fault *f, size_t slot, size_t count);
/* pin.c. => fault_lock held. The pages are as the pin wants them: pin those of them that can be,
 * from slot on, which f->part ends at. Returns how many. */
size_t fault_pin(struct fault *f, size_t slot, size_t count);
/* The last so many of them are let go again. */
void fault_pin_undo(struct fault *f, size_t count);
/* => fault_lock held, dropped. The page cannot be counted once more. */
enum step fault_cannot_pin(struct fault *f);

/* ---- A thread's latest access (latest.c) -------------------------------------------------- */

/* Is its thread at another access by now, or was it refused this one? */
bool fault_is_void(const struct fault *f);
/* A fault was reported. False: it is at the access that its thread was refused last. */
bool fault_set_latest(const struct fault *f);
/* The thread is to be refused: true for one of its faults at this access, and never for another. */
bool fault_answer_latest(const struct fault *f);
bool fault_was_answered(const struct fault *f);
/* It was dropped because its thread may be elsewhere. */
void fault_note_dropped(const struct fault *f);
/* It was, and its report is as old again: only a wake by its reader ends that. */
bool fault_came_again_old(const struct fault *f);

/* private.c. => fault_lock held, dropped. The page is within the object, and in no range op. */
enum step private_look(struct fault *f);
/* There is no room for a page of a private view. => fault_lock held, dropped. */
enum step private_no_room(struct fault *f);
/* => fault_lock held, dropped. The page is resident and readable. */
enum step fault_read(struct fault *f);
/* notify.c. => fault_lock held, dropped. The page is CLEAN, or charged and PAGE_ASK_AGAIN. */
enum step fault_notify(struct fault *f);
/* object->asking counts down: a freeze waits for that. */
void asking_end(struct object *o);
/* fill.c. => the same; the page is ABSENT and unlocked. */
enum step fault_fill(struct fault *f);

/* ---- Objects in place (in_place.c) -------------------------------------------------------- */

/* A fault that was raised in the calling thread, in a signal handler. False: it is nobody's. */
bool fault_in_place(uintptr_t address, bool broken, struct mkw_refusal *refusal);
/* Pages that nobody looked at yet are there. => region->lock held. */
void in_place_fill(struct region *r);
bool in_place_again(const struct mkw_refusal *refusal, void *context);
bool in_place_unknown(uintptr_t address, bool write);
/* Before the first space in place. */
void in_place_begin(void);
/* A thread is about to change states in a space in place; it has. */
void in_place_enter(void);
void in_place_leave(void);
/* The same around a look at a view by a handler, of any backend. */
bool in_place_look_begin(void);
void in_place_look_end(bool entered);
/* A fork wants everybody out: what waits ends, and comes again. */
bool in_place_must_leave(void);
/* Around a fork, => forks_lock is not held. */
void in_place_fork_begin(void);
void in_place_fork_end(void);
/* In the child, before it ends; then for each space in place. */
void in_place_forked(void);
void in_place_take_over(struct space *s);

/* ---- Swap (swap.c) ------------------------------------------------------------------------ */

#define SWAP_PIECE_SLOTS 65536u
#define SWAP_PIECES	 65536u
#define SWAP_WORDS	 (SWAP_PIECE_SLOTS / 64)

struct swap_piece {
	uint32_t used;
	uint64_t taken[SWAP_WORDS];
	uint16_t refs[SWAP_PIECE_SLOTS];
};

/* The slots of a space's swap file, a page each. */
struct swap {
	struct env_mutex lock;	/* RANK_LEAF: the rest */
	struct swap_file *file; /* NULL: the space has none */
	struct swap_piece **pieces;
	uint64_t limit; /* slots */
	uint64_t used;
	uint64_t hint;	/* none before it is free */
	uint32_t spare; /* a slot that nobody uses, and that the file has room for */
	bool has_spare;
};

/* path NULL: no swap. limit_bytes 0: none. */
int swap_open(struct swap *swap, const char *path, uint64_t limit_bytes);
/* Every slot has come back. */
void swap_close(struct swap *swap);
/* Take a run of at most want slots, each referenced once. 0: there is none, which is said, *error
 * why. */
size_t swap_take(struct swap *swap, size_t want, uint32_t *first, int *error);
/* One more user of a slot, which has one. -EMFILE: it has as many as can be counted. */
int swap_get(struct swap *swap, uint32_t slot);
/* One less; what has no more is free. True: swap_is_tight is over. No lock held. */
bool swap_put(struct swap *swap, uint32_t first, size_t count);
/* The same for slots that were taken, and not written. */
void swap_cancel(struct swap *swap, uint32_t first, size_t count);
/* The last slot there is: for who will give one back, or makes room for who does. False: it is
 * taken. */
bool swap_take_spare(struct swap *swap, uint32_t *slot);
/* It is taken: what is resident must not become private, for it could not go any more. */
bool swap_is_tight(struct swap *swap);
/* The run's pages from src, which may lie in a view. Returns how many were written from the first
 * on; if not all, *error is why, and is said. No lock held. */
size_t swap_write(struct swap *swap, uint32_t first, size_t count, const void *src, int *error);
/* 0, or an error that is said. No lock held. */
int swap_read(struct swap *swap, uint32_t first, size_t count, void *dst);
/* Slots that are taken. */
uint64_t swap_used(struct swap *swap);

/* ---- Swapping (pager.c) ------------------------------------------------------------------- */

struct pager_result {
	bool urgent; /* in: somebody waits who has a slot to give back, or needs none */
	bool spared; /* the spare slot was taken for that */
	struct error_record failed; /* the first */
	bool busy;		    /* something stays for a while: a system call is at it */
};
/* The page of a private view is SWAPPED. => fault_lock held, dropped. */
enum step pager_in(struct fault *f);
/* swap_put, and who waited for that looks again. No lock held. */
void pager_put(struct space *s, uint32_t first, size_t count);
/* Swap out up to want pages of all private views in the region; hard: also of those that were
 * written of late. Returns how many went. => the reclaimer; no lock held. */
size_t pager_out_region(struct region *r, size_t want, bool hard, struct pager_result *result);
/* Have the reclaimer swap out what a referenced private view has of its own in the range. Blocks.
 */
void pager_out(struct view *v, uint64_t first, uint64_t count);
/* Do what pager_out has asked for. => the reclaimer; no lock held. */
void pager_serve(struct space *s, struct pager_result *result);

/* ---- Pins (pin.c) ------------------------------------------------------------------------- */

/* What a pin has of one region: it keeps region and object. */
struct pin_part {
	struct list link;      /* region->pins; region->lock, as all below */
	struct pin_part *next; /* of the same pin */
	struct region *region;
	struct private *private;     /* of a private view: kept, too; else NULL */
	struct private_chunk *chunk; /* of that and the region; set with the first page */
	uint32_t slot, count;	     /* pages */
	bool write;
	uint64_t gone[REGION_PAGES / 64]; /* slots whose page was detached since */
};

struct mkw_pin {
	struct list link; /* space->pins; space->lock */
	uint64_t id;	  /* ascending in a space */
	struct space *space;
	struct pin_part *parts;
	uintptr_t address;
	size_t length;
	bool write;
	const void *caller; /* debug builds: where mkw_pin was called; else NULL */
};

/* Pages of the range that were written while they are pinned: ask the store for them again. A
 * refusal leaves them as they are; for a frozen object it is not asked. => no lock held; blocks. */
void pins_ask(struct object *o, uint64_t first, uint64_t last);
/* The same for slots [from, to) of a region; refused[slot] tells what it was. A freeze may ask. */
void pins_ask_region(struct region *r, size_t from, size_t to, bool freezes, bool *refused);
/* => region->lock held. The page is about to be the object's no more, or the private view's: pins
 * do not count for whatever comes to its place. */
void pins_detach(struct region *r, const struct private_chunk *chunk, size_t slot);
/* Tell the space's log of every pin there is. Returns how many there are. */
unsigned pins_report(struct space *s);
/* End them. => nobody else pins or unpins. */
void pins_end(struct space *s);

/* ---- Spaces ------------------------------------------------------------------------------- */

struct mkw_space {
	int unused;
};

struct space {
	struct mkw_space public;
	struct mmu *mmu;
	uint64_t process;		 /* whose it is (child.c) */
	struct list link;		 /* of all spaces */
	struct list children;		 /* that have inherited views; space->lock */
	struct inheritance *inheritance; /* of the fork under way; that thread's */
	/* A fork is under way: handler threads leave faults in the ready queue. */
	_Atomic bool gate;
	struct env_mutex lock;	/* RANK_SPACE: objects, handles */
	struct env_cond closed; /* an object that was closing is gone or back */
	struct list objects;
	uint64_t last_id;
	uint64_t ended;	   /* objects that have, so far */
	unsigned starting; /* children that are not served yet: it cannot end before */
	unsigned handles;
	struct list pins;
	uint64_t last_pin_id;
	/* The first error of an object that ended with its last view. */
	struct error_record unheard;
	unsigned interval_ms;
	bool in_place; /* it goes on in children, and has no machine but mprotect.c */
	uint64_t swap_limit_bytes;
	_Atomic unsigned swapping_in; /* faults that will give slots back */
	int swap_error;		      /* the reclaimer's: that was told last */
	void (*log)(void *arg, enum mkw_log_level level, const char *message);
	void *log_arg;

	struct env_mutex charge_lock; /* RANK_CHARGE: accounts, and the next lines */
	struct account account;
	struct list resident_waiters;
	struct list pager_requests; /* of pager_out */
	struct list memory_waiters; /* until a turn of reclaim has ended, whatever came of it */
	struct list regions;	    /* reclaim's clock */
	struct env_cond flusher_cond, reclaimer_cond;
	uintptr_t
		torn_at; /* somebody has unmapped a part of the view there; 0: none is to be told */
	bool space_waiters; /* somebody waits for a store to have space (MKW_WAIT) */
	bool flusher_kicked, reclaimer_kicked, stopping;
	env_thread flusher, reclaimer;
	bool flusher_started, reclaimer_started;
	_Atomic pid_t flusher_tid, reclaimer_tid;

	struct env_mutex ready_lock; /* RANK_READY: the next lines */
	struct list ready;	     /* resumed faults for handler threads */
	struct list delayed;

	struct env_mutex slab_lock; /* RANK_LEAF */
	void *free_faults, *free_regions, *free_buffers, *free_chunks;
	struct list chunks; /* slabs to free at the end */
	struct swap swap;
	struct counters counters;
};

static inline struct mkw_space *space_public(struct space *s)
{
	return &s->public;
}
static inline struct space *space_of(const struct mkw_space *s)
{
	return container_of(s, struct space, public);
}
/* The object whose id is the next after id, pinned until object_unpin; NULL: none. */
struct object *space_object_after(struct space *s, uint64_t id);
void object_unpin(struct object *o);
/* 0 is no limit. */
int limits_check(uint64_t resident_bytes, uint64_t dirty_bytes);
/* It is there from now on. 0, or an error that is said. */
int space_start_flusher(struct space *s);
void space_log(struct space *s, enum mkw_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* slab.c: fixed-size memory of a space, never malloc's. NULL: none. */
struct fault *slab_fault(struct space *s);
void slab_fault_free(struct space *s, struct fault *f);
struct region *slab_region(struct space *s);
void slab_region_free(struct space *s, struct region *r);
struct private_chunk *slab_private(struct space *s);
void slab_private_free(struct space *s, struct private_chunk *c);
void *slab_buffer(struct space *s); /* FILL_PAGES_MAX pages */
void slab_buffer_free(struct space *s, void *buffer);
void slab_destroy(struct space *s);

/* ---- Processes (child.c) ------------------------------------------------------------------ */

/* A space of this process begins; it ends. */
int process_add(struct space *s);
void process_remove(struct space *s);
/* 0, or -ECHILD and said: the space is the parent's. */
int process_check(const struct space *s);
/* What is at an address that is in no view of this process: -ECHILD and said if it is inherited,
 * else 0. */
int process_check_address(uintptr_t address);
struct space *child_space(const struct child *child);
/* In the order of their making, for fn. => forks_lock held. */
void spaces_each(void (*fn)(struct space *s));
/* Referenced, or NULL. On a thread of its machine: it needs no lock. */
struct view *child_view(const struct child *child, uintptr_t address);
/* Have children drop what their private views have of the object from page first on, which is known
 * to be nothing any more. => a range op over it; no lock held. */
void children_cut(struct object *o, uint64_t first);
/* Children of the space are served no more. What they have written by now is charged and in the
 * objects. No lock held. */
void children_end(struct space *s);

/* ---- Accounts (charge.c) ------------------------------------------------------------------ */

/* Charge up to want dirty pages, as far as there is room; the charge is in flight until
 * charge_settle. */
size_t charge_dirty(struct object *o, size_t want);
/* Wait for room for a dirty page: parked, or again where there is some by now. */
enum step charge_dirty_park(struct fault *f);
/* Of what was charged in flight, kept pages are now states of pages; the rest goes back. */
void charge_settle(struct object *o, size_t charged, size_t kept);
void uncharge_dirty(struct object *o, size_t pages);
size_t charge_resident(struct object *o, size_t want);
/* The same for pages that only swapping gets rid of. */
size_t charge_private(struct object *o, size_t want);
/* One of these, if there is room for another page beside it. */
bool charge_private_of_pair(struct object *o);
enum step charge_resident_park(struct fault *f);
/* Who waits for room looks again. */
void charge_wake(struct space *s);
void uncharge_resident(struct object *o, size_t pages);
/* Pages of the object were unpinned: now they can be written, or evicted. */
void charge_unpinned(struct object *o);
/* The store has no memory: wait for a turn of reclaim. => no lock held. */
enum step reclaim_park(struct fault *f);
/* Pages enter (or leave, negative) write-back. */
void charge_writeback(struct object *o, int64_t pages, enum mkw_wb_reason reason);
/* Write-back is about to pass over the account's pages. True: writers wait for room under it.
 * => charge_lock held. */
bool account_pass_begin(struct account *a);
/* It has; busy: it left some to somebody else. Who waited before it began is denied if nothing is
 * under way that may bring room, and the pass before was in vain as well. True: somebody waits for
 * another pass. => charge_lock held. */
bool account_pass_end(struct account *a, bool busy);
void flusher_kick(struct space *s);
/* The flusher shall tell the log that views are unmapped behind the library's back. */
void flusher_kick_for_torn(struct space *s, uintptr_t address);
/* The flusher shall ask for those who wait for space, every now and then. */
void flusher_kick_for_space(struct space *s);
void reclaimer_kick(struct space *s);

/* ---- Write-back, reclaim ------------------------------------------------------------------ */

struct writeback_result {
	int error;	/* the first; -EAGAIN only when there is no other */
	size_t cleaned; /* pages that are no longer charged */
	bool busy;	/* something was skipped because somebody else is at it */
	bool still;	/* something was skipped because the object is frozen */
};
/* Write dirty pages of [first, last]. SYNC: those that are tagged, waiting for what is under way.
 * Otherwise what can be had. => no lock held. */
struct writeback_result writeback_range(struct object *o, uint64_t first, uint64_t last,
					enum mkw_wb_reason reason);
/* Give unused grants back and write nothing; granted pages that were written become DIRTY. What is
 * busy is skipped. */
struct writeback_result writeback_ungrant(struct object *o, uint64_t first, uint64_t last);
/* Tag, write, wait, fsync. The error, recorded in the object, is returned too, and said. -EBUSY:
 * something is dirty and the object is still. */
int writeback_sync(struct object *o, uint64_t first, uint64_t last);
/* The same of the whole object, by a freeze. first: it has made the object still, and may write;
 * else another has, and what is dirty all the same does not matter. */
int writeback_freeze(struct object *o, bool first);
/* calls.c: of the locked, protected pages, those that a system call of the thread that faulted them
 * in may still be storing to: held[i]. => no lock held. Returns how many. */
size_t calls_hold(struct region *r, const uint16_t *slots, size_t count, bool *held);
/* The same for BUSY, protected pages of a private view, from address on: how many from the first on
 * no such call may be storing to. */
size_t calls_quiet(uintptr_t address, const struct private_page *pages, size_t count);
/* judge.c: which of the locked, protected, GRANTED pages were written. ask: the store may be asked
 * for bytes. => no lock held. */
void judge_granted(struct region *r, const uint16_t *slots, size_t count, bool ask, bool *written);

void flusher_main(void *space);
void reclaimer_main(void *space);
/* Pages [first, last] are the first that reclaim takes; now: it takes them here, and dirty ones are
 * written before. => no lock held. */
void reclaim_range(struct object *o, uint64_t first, uint64_t last, bool now);

/* => a range op over [first, last] keeps faults and write-back out; no lock held. */
/* Wait until no page is locked or under write-back. */
void object_settle(struct object *o, uint64_t first, uint64_t last);
/* Detach pages and drop their frames. charged_too: dirty ones as well; else those are kept and
 * counted. */
size_t object_detach(struct object *o, uint64_t first, uint64_t last, bool charged_too);

/* ---- Store operations (op.c) -------------------------------------------------------------- */

/* Each runs one operation: no lock held, the thread known as being inside it (EDEADLK), under a
 * guard. f: the fault it serves, or NULL. */
mkw_fault_t op_fault(struct object *o, struct fault *f, struct mkw_run *run, void *buffer);
struct vm_run;
mkw_fault_t op_page_mkwrite(struct object *o, struct fault *f, struct vm_run *run);
void op_unreserve(struct object *o, uint64_t first, uint64_t count);
int op_writepages(struct object *o, struct mkw_writeback *wb);
int op_truncate(struct object *o, uint64_t size_bytes);
int op_punch_hole(struct object *o, uint64_t offset, uint64_t length);
int op_fsync(struct object *o, uint64_t offset, uint64_t length);
int op_attach(struct object *o);
void op_release(struct object *o);
void op_map(struct object *o, bool map);
int op_control(struct object *o, const char *key, const char *value);
int op_capacity(struct object *o, uint64_t *free_bytes, uint64_t *total_bytes);
/*
 * Has thread tid faulted at address from inside an operation of the object? A report may be looked
 * at late, when its thread has been let go and has entered one since: only a second report of the
 * same address, in the same operation, is proof.
 */
enum op_inside op_inside(const struct object *o, pid_t tid, uintptr_t address);
/* The calling thread is inside an operation (of any object). */
bool op_running(void);

/* A run under page_mkwrite: the public part and what mkw_run_* need. */
struct vm_run {
	struct mkw_run run;
	struct region *region;
	const char *locked_at;	       /* where; NULL: nobody said */
	uint16_t ask;		       /* differs from that of every other one of the region */
	uint16_t asked_from, asked_to; /* slots that were ever asked for */
	struct list link;	       /* region->questions */
	bool locked;
	bool hold_only;	      /* no room: pages are held for mkw_reserve, and stay CLEAN */
	size_t charged;	      /* pages */
	uint64_t tried_first; /* what the run was when it was to be locked: granted by the store */
	size_t tried_count;
	bool lost; /* it could not be locked */
};

/* ---- The order of a store's locks (order.c) ----------------------------------------------- */

#define ORDER_HELD_MAX 8 /* locks at a time; what is beyond is not noted */

struct order {
	struct object *object;	  /* NULL: outside of operations */
	const char *operation;	  /* its name */
	const struct vm_run *run; /* page_mkwrite's: maybe locked */
	const char *pages_at;	  /* the library has page locks for it, since then; NULL: none */
	unsigned count;
	struct order_held {
		const struct mkw_lock_class *lock_class;
		const void *lock;
		const char *where;
	} held[ORDER_HELD_MAX];
};

/* Of the operation that the calling thread is inside of, or NULL. */
struct order *op_order(void);
/* The thread is about to lock a run, there. 0, or -EDEADLK and reported. */
int order_take_pages(const char *where);
/* The operation ends with locks held: report them. */
void order_end(const struct order *order);

/* ---- Refusal ------------------------------------------------------------------------------ */

/* Remember for mkw_last_refusal. Returns how often in a row this thread was refused there. */
unsigned refusal_record(pid_t tid, const struct mkw_refusal *refusal, uint64_t reported);
/* For a signal: one that the thread has not been told of, and not gone on from. address 0:
 * anywhere.
 */
bool refusal_take(pid_t tid, uintptr_t address, struct mkw_refusal *refusal);
void refusal_deliver(const struct mkw_refusal *refusal);
/* In a child. */
void refusals_abandon(void);

/* Guards, for mkw_guard and for store operations. */
struct guard {
	struct guard *up;
	struct mkw_refusal *refusal;
	void *jump;	      /* sigjmp_buf * */
	const sigset_t *mask; /* to restore; NULL: a library thread, the handler's mask will do */
	uintptr_t copy;	      /* memory that need not be there at all (guard_copy) */
	size_t copy_bytes;
};
void guard_push(struct guard *g);
/* memcpy from or to a caller's memory; -EFAULT if it is not there, or a view's page in it is
 * refused. Nothing held. */
int guard_copy_in(void *to, const void *caller, size_t count);
int guard_copy_out(void *caller, const void *from, size_t count);
void guard_bad_address(uintptr_t address, bool located);
void guard_pop(struct guard *g);

const char *error_sentence(void);
void error_clear(void);
/* The errno last set by mkw_set_error since error_clear, 0: none. */
int error_last(void);

#define COUNT(o, field, n)                                                                         \
	do {                                                                                       \
		atomic_fetch_add_explicit(&(o)->counters.field, (n), memory_order_relaxed);        \
		atomic_fetch_add_explicit(&(o)->space->counters.field, (n), memory_order_relaxed); \
	} while (0)

#endif
