/* SPDX-License-Identifier: MIT */
/*
 * run_library.c - where the library is that `mkwrite run` has loaded into programs: beside the
 * command, as in a build directory, or where it is installed.
 */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "libmkwrite-run.so"

/* folder/name, without detours if it can be read. */
static bool library_try(char path[static PATH_MAX], const char *folder, const char *name)
{
	char straight[PATH_MAX];
	int length = snprintf(path, PATH_MAX, "%s/%s", folder, name);

	if (length < 0 || length >= PATH_MAX || !realpath(path, straight) ||
	    access(straight, R_OK) != 0)
		return false;
	strcpy(path, straight);
	return true;
}

bool library_find(char path[static PATH_MAX])
{
	char folder[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", folder, sizeof(folder) - 1);

	folder[length > 0 ? length : 0] = '\0';
	if (strrchr(folder, '/')) {
		*strrchr(folder, '/') = '\0';
		if (library_try(path, folder, LIBRARY) ||
		    library_try(path, folder, "../" MKWRITE_LIBDIR "/mkwrite/" LIBRARY))
			return true;
	}
	return library_try(path, MKWRITE_PREFIX "/" MKWRITE_LIBDIR, "mkwrite/" LIBRARY);
}
