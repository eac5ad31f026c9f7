/* SPDX-License-Identifier: MIT */
/*
 * run_library.c - stands in for the library that `mkwrite run` loads into programs, where only the
 * command is tested: it does no more than to report that it was loaded.
 */
#include "run/control.h"

#include <stdlib.h>

__attribute__((constructor)) static void library_load(void)
{
	const char *path = getenv(RUN_ENV);
	struct run_control *control = path ? run_control_open(path) : NULL;

	if (control)
		run_post(control,
			 &(struct run_event){.kind = RUN_EVENT_PROCESS, .file = RUN_FILE_NONE});
}
