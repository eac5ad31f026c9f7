/* SPDX-License-Identifier: MIT */
/*
 * race.h - the world that a schedule is explored in: one space on the simulated machine, a store
 * that checks what it is told, a reference model of every word, and threads that run scripts.
 */
#ifndef RACE_H
#define RACE_H

#include <mkwrite/store.h>
#include <mmu/sim.h>
#include <vm/vm.h>

#define OBJECTS	     2
#define PAGES	     4		 /* of an object, at most */
#define WORDS	     (PAGES * 2) /* tracked words: the first of a page and one in its second half */
#define VIEWS	     6
#define PRIVATE_VIEW 4 /* the first of two private views */
#define PROGRAMS_MAX 4
#define TAIL	     3072u /* where in its page an odd word is */

static inline uint64_t word_offset(unsigned word)
{
	return (uint64_t)(word / 2) * MKW_PAGE_SIZE + (word % 2) * TAIL;
}

/* ---- The model (model.c) ------------------------------------------------------------------ */

/*
 * What a word may hold. A store that reached memory leaves one candidate; a call under way that
 * changes the word (truncate, punch, pwrite) adds one, and when it ends those that are older than
 * its beginning go. Times are counts.
 */
#define VALUES_MAX 48
struct value {
	uint64_t value, since, until; /* until UINT64_MAX: it may be there now */
	uint64_t last;		      /* when it may have been put there last */
	unsigned calls;		      /* under way that may put it there */
	bool sticky;		      /* past the end of the object: it comes and goes */
};
struct word {
	struct value values[VALUES_MAX];
	unsigned count;
};
struct model {
	struct word words[WORDS];
};

uint64_t model_now(void);
void model_reset(void);
void model_init(struct model *m, unsigned word, uint64_t value);
/* A store of the program has reached memory. */
void model_commit(struct model *m, unsigned word, uint64_t value, bool past_end);
/* A call that will leave value begins, ends; returns the time of its beginning. */
uint64_t model_call(struct model *m, unsigned word, uint64_t value);
void model_call_end(struct model *m, unsigned word, uint64_t value, uint64_t begun, bool done);
/* Somebody read value just now: fails if it could not be there. */
void model_read(struct model *m, unsigned word, uint64_t value);
/* Could it be there? */
bool model_may(const struct model *m, unsigned word, uint64_t value);
/* Was value there at or after time? */
bool model_had(const struct model *m, unsigned word, uint64_t value, uint64_t time);

/* ---- The store (store.c) ------------------------------------------------------------------ */

enum answer { ANSWER_LOCKED, ANSWER_EARLY, ANSWER_ZERO, ANSWER_GROW };

struct race_store {
	uint64_t bytes[WORDS], durable[WORDS];	/* written, and synced */
	unsigned changes[WORDS], synced[WORDS]; /* how often; of that: durable */
	bool granted[PAGES];			/* asked since it was last written or given back */
	bool stored[PAGES];			/* not a hole */
	enum answer answer;			/* how page_mkwrite says yes */
	bool defers;
	/* Answers to come, before the right one: */
	unsigned refuse, retry, nopage, fill_fails, fill_retries, write_fails, write_not_yet,
		sync_fails, cut_fails;
	unsigned opened, released; /* times */
	unsigned memory;	   /* it can fill no page while more are resident; 0: it can */
};

extern const struct mkw_store_ops race_store_ops;

/* ---- The world (world.c) ------------------------------------------------------------------ */

struct scenario {
	const char *name;
	const char *options; /* words, see world.c */
	const char *before;  /* script of the main thread, before the others start */
	const char *programs[PROGRAMS_MAX];
};

struct race_view {
	uintptr_t address;
	unsigned object; /* which one it shows */
	bool mapped;
	/* Private views: */
	uint64_t serial;	  /* the machine's, 0: a shared view */
	bool own[PAGES];	  /* a page of its own: written through it, or copied to be */
	unsigned made[PAGES];	  /* how often it has become that */
	unsigned dropping[PAGES]; /* calls under way after which it need not be */
};

/* Somebody who stores to a page that is pinned, without any translation. */
struct device {
	struct mkw_pin *pin;
	struct sim_hold hold;
	unsigned made; /* of the private view's page */
};

struct world {
	const struct scenario *scenario;
	struct mkw_space *space;
	struct mkw_handle *handles[OBJECTS], *second; /* second: of object 0 */
	struct object *objects[OBJECTS];
	struct mkw_pin *pin; /* of clamp */
	struct race_store stores[OBJECTS];
	struct model models[OBJECTS];
	struct race_view views[VIEWS];
	unsigned pages, flags;
	bool tolerant; /* the store fails: calls may fail */
	bool cuts;     /* some program truncates: accesses may be past the end */
	bool left;     /* object 0 has no user, and could not be written */
	bool freezes, unmaps, limited, pins;
	unsigned reports_max;	  /* for one access */
	unsigned swap_fails;	  /* writes to the swap file to come */
	struct device devices[2]; /* of the first view, of the private view */
	uint64_t next_value;
	uint64_t size_least; /* of object 0, at the end */
	int64_t live_before;
	unsigned threads[PROGRAMS_MAX];
};
extern struct world world;

/* The main thread of a run: build the world, run the programs, check what is left. */
void world_main(void *scenario);
/* Run a script, words of script.c, in the calling thread. */
void script_run(const char *script);
bool script_has(const struct scenario *s, const char *word);
/* Unpin, if there is a pin. */
void device_end(struct device *d);
/* Read a word by a view, and compare. */
void script_look(unsigned view, unsigned word);
/* Map a view of an object: world.views[view]. */
int view_make(unsigned view, unsigned object);
/* The value of option name=N, or 0 / 1 for one without. */
unsigned option(const struct scenario *s, const char *name);

/* ---- Private views (private.c) ------------------------------------------------------------ */

/* Is a private view at the address? *v: NULL while mkw_map has not returned it. */
bool private_at(uintptr_t address, struct race_view **v);
/* It has just been mapped. */
void private_mapped(struct race_view *v);
/* A store of the program has reached memory; somebody read value. v may be NULL. */
void private_commit(struct race_view *v, unsigned word, uint64_t value);
void private_read(struct race_view *v, unsigned word, uint64_t value);
/* May the view give up a page of its own just now? */
bool private_may_go(const struct race_view *v, unsigned page);
/* Which pages the views have given up since: fails where they may not. */
void private_observe(void);
/* What must hold in every state: returns how many pages are charged. */
uint64_t private_check(struct region *r, bool quiet);

/* After every point: I1 to I6, counts and limits (check.c). */
void check_state(void *arg);

#endif
