/* SPDX-License-Identifier: MIT */
/*
 * script_store.h - a store in memory that a test can script.
 *
 * It is a complete store: it keeps its bytes, knows which of its pages are allocated and which are
 * reserved, and has a capacity. Besides it writes down every call, stops calls at gates, fails or
 * answers nonsense when told, runs a test's code inside a call, and watches the library's side of
 * store.h: what breaks it is a violation (below).
 *
 * A test makes one, hands it to an object, and looks at it afterwards:
 *
 *	struct script_store *s = script_create(16 * MKW_PAGE_SIZE);
 *	CHECK_OK(script_open(s, space, MKW_RDWR, &handle));
 *	...
 *	CHECK_EQ(script_calls(s, SCRIPT_MKWRITE), 1);
 *	... close the handle, destroy the space ...
 *	CHECK(script_destroy(s));
 *
 * Indices and counts are pages unless a name says bytes. All functions may be called from any
 *thread at any time, unless their text says otherwise. Nothing here allocates while a call runs, so
 *the store works inside a signal handler (inline views) too.
 */
#ifndef SCRIPT_STORE_H
#define SCRIPT_STORE_H

#include <mkwrite/mkwrite.h>
#include <mkwrite/store.h>

struct script_store;

/* How long a wait of a test may take before it counts as failed; nothing waits for its end. */
#define SCRIPT_PATIENCE_S 20

/* The largest size the store can be given. */
#define SCRIPT_MAX_PAGES ((uint64_t)1 << 18)

/* ---- Making one --------------------------------------------------------------------------- */

/* All of it one hole. Ends the process when there is no memory. */
struct script_store *script_create(uint64_t size_bytes);

/* The operations that script_open hands over. A test may change them before: drop an operation, set
 * run_max_pages or struct_size. */
struct mkw_store_ops *script_ops(struct script_store *s);

/* mkw_create for it. */
int script_open(struct script_store *s, struct mkw_space *space, unsigned flags,
		struct mkw_handle **handle);

/* Free it, after its release or when no object ever owned it. False: there were violations, or
 * reservations are left, or an object still has it; what is wrong goes to stderr. */
bool script_destroy(struct script_store *s);

/* The object it belongs to; NULL before attach. */
struct mkw_object *script_object(struct script_store *s);

/* ---- Bytes -------------------------------------------------------------------------------- */

/* Put bytes into the store, or get what it holds, behind the library's back. Pages that are put are
 * allocated. The range must lie within SCRIPT_MAX_PAGES. */
void script_put(struct script_store *s, uint64_t offset, const void *bytes, size_t length);
void script_get(struct script_store *s, uint64_t offset, void *bytes, size_t length);

/* Fill pages with a pattern that differs from page to page and from byte to byte; seed 0 is not
 * zeros. script_pattern gives the byte at an offset. */
void script_put_pattern(struct script_store *s, uint64_t first, uint64_t count, unsigned seed);
unsigned char script_pattern(uint64_t offset, unsigned seed);

/* As the store's last successful truncate left it. */
uint64_t script_size_bytes(struct script_store *s);

/* ---- Space -------------------------------------------------------------------------------- */

/* Most pages that may be allocated or reserved; at first no bound. page_mkwrite cuts its run to
 * what there is room for, and refuses with ENOSPC where the page that faulted finds none.
 * mkw_control "capacity=N" does the same. */
void script_set_capacity(struct script_store *s, uint64_t pages);

uint64_t script_reserved(struct script_store *s);  /* granted, not allocated */
uint64_t script_allocated(struct script_store *s); /* with bytes of their own */
bool script_page_reserved(struct script_store *s, uint64_t page);
bool script_page_allocated(struct script_store *s, uint64_t page);
/* Pages that were written and not yet made durable by fsync. */
uint64_t script_unsynced(struct script_store *s);

/* ---- The log ------------------------------------------------------------------------------ */

enum script_op {
	SCRIPT_FAULT,
	SCRIPT_MKWRITE,
	SCRIPT_UNRESERVE,
	SCRIPT_WRITE, /* writepages: an entry for each of its runs */
	SCRIPT_TRUNCATE,
	SCRIPT_PUNCH,
	SCRIPT_FSYNC,
	SCRIPT_ATTACH,
	SCRIPT_RELEASE,
	SCRIPT_MAP,
	SCRIPT_UNMAP,
	SCRIPT_CONTROL,
	SCRIPT_CAPACITY,
	SCRIPT_OPS,
};

struct script_call {
	enum script_op op;
	uint64_t first; /* truncate: the size; punch, fsync: the offset; in bytes */
	uint64_t count; /* punch, fsync: the length in bytes */
	uint64_t page;	/* the page that faulted (fault, page_mkwrite) */
	unsigned flags; /* of the run; writepages: the reason */
	uint64_t call;	/* which call of op it was, from 1 */
	pid_t tid;
};

/* Calls of op since the beginning or the last script_log_clear. A call counts when it begins. */
uint64_t script_calls(struct script_store *s, enum script_op op);
/* Calls of op, for writepages runs, that had the page among theirs. */
uint64_t script_calls_on(struct script_store *s, enum script_op op, uint64_t page);
/* Entries in the order in which they began. False: there is none of that index. */
bool script_log(struct script_store *s, size_t index, struct script_call *call);
/* The nth entry (from 1) of op. */
bool script_log_of(struct script_store *s, enum script_op op, size_t nth, struct script_call *call);
void script_log_clear(struct script_store *s);
/* Wait until op has been called at least calls times. False: patience ended. */
bool script_wait_calls(struct script_store *s, enum script_op op, uint64_t calls);
/* Calls of op running now. */
unsigned script_running(struct script_store *s, enum script_op op);

/* ---- Gates and hooks ---------------------------------------------------------------------- */

/*
 * Two points of each call: its entry, before anything was done or looked at, and its exit, when all
 * is done. At the exit of fault the buffer is filled; of page_mkwrite the space is reserved and the
 * pages are locked (with SCRIPT_LEGACY they are not); of writepages the bytes are taken and the
 * results set. A call that is told to fail or to answer passes both points and does nothing
 * between.
 */
enum script_point { SCRIPT_ENTRY, SCRIPT_EXIT, SCRIPT_POINTS };

/* Any page. */
#define SCRIPT_ANY UINT64_MAX

/* Shut a gate: calls of op that reach the point stop there, those only that concern the page. */
void test_gate_arm(struct script_store *s, enum script_op op, enum script_point point,
		   uint64_t page);
/* Wait until callers calls stand at the gate. False: patience ended. */
bool test_gate_wait_arrived(struct script_store *s, enum script_op op, enum script_point point,
			    unsigned callers);
unsigned test_gate_arrived(struct script_store *s, enum script_op op, enum script_point point);
/* Let those go that stand there; the gate stays shut for others. */
void test_gate_step(struct script_store *s, enum script_op op, enum script_point point);
/* Open the gate. A caller whom nobody lets go within the patience goes on and is a violation. */
void test_gate_release(struct script_store *s, enum script_op op, enum script_point point);

/* Run fn inside the calls of op at the point, before the gate there; run is NULL but in fault and
 * page_mkwrite. NULL: no more. */
typedef void (*script_hook_fn)(void *arg, struct mkw_object *object, struct mkw_run *run);
void script_hook(struct script_store *s, enum script_op op, enum script_point point,
		 script_hook_fn fn, void *arg);

/* ---- Failing ------------------------------------------------------------------------------ */

#define SCRIPT_FOREVER UINT64_MAX

/*
 * Fail calls number nth to nth+times-1 of op, counted from now (nth 1: the next), with a negative
 * errno; fault and page_mkwrite answer mkw_fault_from_errno of it after mkw_set_error, writepages
 * sets it in each run. times 0: stop failing. One script an operation: the last one set holds.
 */
void script_fail(struct script_store *s, enum script_op op, uint64_t nth, uint64_t times,
		 int error);

/* The same with a raw answer, nonsense included, and nothing done: mkw_fault_t of fault and
 * page_mkwrite; the return value of the others. */
void script_answer(struct script_store *s, enum script_op op, uint64_t nth, uint64_t times,
		   long code);

/* The same for page_mkwrite, which locks its run first and leaves it so. */
void script_answer_locked(struct script_store *s, uint64_t nth, uint64_t times, long code);

/* Fail whatever call of op (a run, in writepages) has the page, as long as this holds; in
 * page_mkwrite only if it is the page that faulted, otherwise it is cut away. error 0: no more.
 * fault, page_mkwrite and writepages only. -EAGAIN in writepages is "not yet". */
void script_fail_page(struct script_store *s, enum script_op op, uint64_t page, int error);

/* ---- Manners ------------------------------------------------------------------------------ */

/* How page_mkwrite ends: by mkw_run_lock and LOCKED (at first), or by 0 and pages unlocked. */
enum script_manner { SCRIPT_LOCKED, SCRIPT_LEGACY };
void script_set_manner(struct script_store *s, enum script_manner manner);

/* Cut runs of fault or page_mkwrite to the page that faulted and at most pages-1 behind it. 0: take
 * them as they come. */
void script_set_cut(struct script_store *s, enum script_op op, uint64_t pages);
/* Grow runs of page_mkwrite to the aligned extent of so many pages around the page that faulted. 0:
 * do not. */
void script_set_extent(struct script_store *s, uint64_t pages);
/* fault sets MKW_RUN_HOLE and leaves the buffer alone when nothing of the run is allocated. */
void script_set_holes(struct script_store *s, bool holes);

/* ---- Violations --------------------------------------------------------------------------- */

/*
 * What the library owes a store, checked in every call:
 *   - a run has pages, lies within the object, and holds the page that faulted;
 *   - a page is filled by one call at a time, written by one call at a time, and neither while its
 *     range is truncated or punched;
 *   - runs to write are ascending and apart, their length_bytes ends at the size of the object;
 *   - the bytes to write do not change while writepages runs (contract I3, I4);
 *   - a page to write was granted by page_mkwrite since it was last clean (contract I1);
 *   - attach comes once and first, release once and last.
 * script_violations says how many there were; *first, if not NULL, tells of the first, and is valid
 * until script_destroy.
 */
unsigned script_violations(struct script_store *s, const char **first);

/* Pages may be written without a grant: MKW_DEFER, or page_mkwrite is NULL. */
void script_allow_ungranted(struct script_store *s);

#endif
