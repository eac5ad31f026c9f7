/* SPDX-License-Identifier: MIT */
/* next.c - see next.h. No locks: whoever looks a name up finds the same. */
#include "next.h"

#include <dlfcn.h>
#include <errno.h>

struct next_functions next_functions;

static long next_missing(void)
{
	errno = ENOSYS;
	return -1;
}

void *next_find(void *place, const char *name)
{
	int saved = errno;
	void *found = dlsym(RTLD_NEXT, name);

	if (!found)
		found = (void *)next_missing;
	__atomic_store_n((void **)place, found, __ATOMIC_RELAXED);
	errno = saved;
	return found;
}

void next_find_all(void)
{
#define NEXT_LOOK(name) (void)NEXT(name);
	NEXT_ALL(NEXT_LOOK)
#undef NEXT_LOOK
}
