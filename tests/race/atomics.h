/* SPDX-License-Identifier: MIT */
/*
 * atomics.h - included ahead of each file of src/vm for the simulated machine: an atomic access is
 * a point. Statistics, which use the _explicit forms, are none. (MKW_RACE_VM: this is such a file.)
 */
#ifndef ATOMICS_H
#define ATOMICS_H

#include <stdatomic.h>

void atomics_point(const volatile void *object, const char *what, const char *where);

#define ATOMICS_STRING_(x)  #x
#define ATOMICS_STRING(x)   ATOMICS_STRING_(x)
#define ATOMICS_AT(p, what) atomics_point((p), (what), __FILE_NAME__ ":" ATOMICS_STRING(__LINE__))
#define ATOMICS_ORDER	    memory_order_seq_cst

#ifdef MKW_RACE_VM
#undef atomic_load
#undef atomic_store
#undef atomic_exchange
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_fetch_or
#undef atomic_fetch_and
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#define atomic_load(p)	   (ATOMICS_AT(p, "loads"), atomic_load_explicit((p), ATOMICS_ORDER))
#define atomic_store(p, v) (ATOMICS_AT(p, "stores"), atomic_store_explicit((p), (v), ATOMICS_ORDER))
#define atomic_exchange(p, v) \
	(ATOMICS_AT(p, "exchanges"), atomic_exchange_explicit((p), (v), ATOMICS_ORDER))
#define atomic_fetch_add(p, v) \
	(ATOMICS_AT(p, "adds"), atomic_fetch_add_explicit((p), (v), ATOMICS_ORDER))
#define atomic_fetch_sub(p, v) \
	(ATOMICS_AT(p, "subtracts"), atomic_fetch_sub_explicit((p), (v), ATOMICS_ORDER))
#define atomic_fetch_or(p, v) \
	(ATOMICS_AT(p, "sets bits"), atomic_fetch_or_explicit((p), (v), ATOMICS_ORDER))
#define atomic_fetch_and(p, v) \
	(ATOMICS_AT(p, "clears bits"), atomic_fetch_and_explicit((p), (v), ATOMICS_ORDER))
#define atomic_compare_exchange_strong(p, e, v) \
	(ATOMICS_AT(p, "compares"),             \
	 atomic_compare_exchange_strong_explicit((p), (e), (v), ATOMICS_ORDER, ATOMICS_ORDER))
#define atomic_compare_exchange_weak atomic_compare_exchange_strong

#endif

#endif
