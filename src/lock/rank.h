/* SPDX-License-Identifier: MIT */
/*
 * rank.h - which of the library's locks the calling thread holds, and the order of their ranks.
 * For src/vm and src/mmu; stores have mkw_lock_take of store.h.
 *
 * Debug builds (MKW_DEBUG) keep a list for each thread and end the process, as assert does, with a
 * sentence that names both locks and both places. In other builds all of this is nothing.
 */
#ifndef LOCK_RANK_H
#define LOCK_RANK_H

/* The mutexes of src/mmu, below every rank of env.h: whatever holds one takes no other lock. */
#define RANK_MACHINE 100u

#ifdef MKW_DEBUG
#define RANK_STRING_(x) #x
#define RANK_STRING(x)	RANK_STRING_(x)
#define RANK_HERE	__FILE_NAME__ ":" RANK_STRING(__LINE__)

/* The thread is about to take a lock: every one it holds must have a lower rank. name and where are
 * constants. */
void rank_take(unsigned rank, const void *lock, const char *name, const char *where);
/* It has got one that it would not have waited for: any order will do. */
void rank_note(unsigned rank, const void *lock, const char *name);
/* It has given it back; the order in which locks go is free. */
void rank_drop(const void *lock);
/* It is about to wait, and gives up this lock alone meanwhile: it must hold no other. */
void rank_wait(const void *lock, const char *where);
/* It must hold none; doing says what it is about to do. */
void rank_assert_none(const char *doing);
#else
#define RANK_HERE ((const char *)0)

static inline void rank_take(unsigned rank, const void *lock, const char *name, const char *where)
{
	(void)rank;
	(void)lock;
	(void)name;
	(void)where;
}
static inline void rank_note(unsigned rank, const void *lock, const char *name)
{
	(void)rank;
	(void)lock;
	(void)name;
}
static inline void rank_drop(const void *lock)
{
	(void)lock;
}
static inline void rank_wait(const void *lock, const char *where)
{
	(void)lock;
	(void)where;
}
static inline void rank_assert_none(const char *doing)
{
	(void)doing;
}
#endif

#endif
