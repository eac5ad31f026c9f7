/* SPDX-License-Identifier: MIT */
/*
 * backend.c - running one test for each backend of the library. A file of its own because it needs
 * the library; it is linked only into programs that use TEST_EACH_BACKEND.
 */
#include "test.h"

#include <mkwrite/mkwrite.h>
#include <stdlib.h>
#include <string.h>

/* What userfaultfd has learned since 6.1, the oldest kernel supported. */
#define NEWER_FEATURES "continue-wp,poison,pagemap-scan"

void test_backend_prepare(enum test_backend backend)
{
	const char *wanted = backend == TEST_INLINE ? "inline" : "uffd";
	struct mkw_backend_info info[8];
	size_t count;

	/* Before the library has looked at either the host or its environment. */
	if (backend == TEST_UFFD_OLD)
		setenv("MKW_UFFD_WITHOUT", NEWER_FEATURES, 1);
	else
		unsetenv("MKW_UFFD_WITHOUT");
	count = mkw_backends(info, sizeof(info) / sizeof(info[0]));
	for (size_t i = 0; i < count; i++)
		if (!strcmp(info[i].name, wanted) && !info[i].usable)
			SKIP("backend %s: %s", wanted, info[i].reason);
}

unsigned test_map_flags(void)
{
	return test_backend() == TEST_INLINE ? MKW_INLINE : 0;
}
