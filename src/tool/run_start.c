/* SPDX-License-Identifier: MIT */
/*
 * run_start.c - starting the program, and commands for a full disk. Both get signals and
 * descriptors as we got them; the program also our library and the name of the control area.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRELOAD	  "LD_PRELOAD"
#define SANITIZER "ASAN_OPTIONS"

/* ---- The environment ----------------------------------------------------------------------- */

static size_t environment_length(void)
{
	size_t count = 0;

	while (environ && environ[count])
		count++;
	return count;
}

static bool is_variable(const char *entry, const char *name)
{
	size_t length = strlen(name);

	return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

/* Is library one of those in list? */
static bool list_has(const char *list, const char *library)
{
	size_t length = strlen(library);

	while (*list) {
		size_t next = strcspn(list, ": ");

		if (next == length && strncmp(list, library, length) == 0)
			return true;
		list += next;
		list += strspn(list, ": ");
	}
	return false;
}

/* LD_PRELOAD with our library behind those that are there. NULL: no memory. */
static char *preload_make(const char *library)
{
	const char *before = getenv(PRELOAD);
	char *entry = NULL;

	if (!before || before[0] == '\0')
		before = "";
	else if (list_has(before, library))
		library = "";
	if (asprintf(&entry, PRELOAD "=%s%s%s", before,
		     before[0] != '\0' && library[0] != '\0' ? ":" : "", library) < 0)
		return NULL;
	return entry;
}

/* A sanitizer that the compiler has linked as a library wants to be the first one loaded, and ends
 * the program if it is not; it does without if it is told to. NULL: no memory. */
static char *sanitizer_make(void)
{
	static const char option[] = "verify_asan_link_order=0";
	const char *before = getenv(SANITIZER);
	char *entry = NULL;

	if (!before)
		before = "";
	if (asprintf(&entry, SANITIZER "=%s%s%s", before, before[0] != '\0' ? ":" : "", option) < 0)
		return NULL;
	return entry;
}

/* Ours without some variables, then those given. NULL: no memory. To be freed, its entries not. */
static char **environment_make(const char *const *without, char *const *added)
{
	size_t count = 0, length = environment_length();
	char **made;

	for (char *const *variable = added; *variable; variable++)
		length++;
	made = calloc(length + 1, sizeof(*made));
	if (!made)
		return NULL;
	for (char **entry = environ; entry && *entry; entry++) {
		bool keep = true;

		for (const char *const *name = without; *name; name++)
			keep = keep && !is_variable(*entry, *name);
		if (keep)
			made[count++] = *entry;
	}
	for (char *const *variable = added; *variable; variable++)
		made[count++] = *variable;
	return made;
}

/* ---- The program --------------------------------------------------------------------------- */

struct image {
	const char *path;
	char **argv, **environment;
};

/* A file that is neither a program nor begins with #! is the shell's, as execvp() has it. */
static void shell_execute(const struct image *image)
{
	size_t count = 0;
	char **argv;

	while (image->argv[count])
		count++;
	argv = calloc(count + 2, sizeof(*argv));
	if (!argv)
		return;
	argv[0] = "sh";
	argv[1] = (char *)image->path;
	for (size_t i = 1; i < count; i++)
		argv[i + 1] = image->argv[i];
	execve("/bin/sh", argv, image->environment);
}

static _Noreturn void child_main(const struct run *run, const struct image *image, int report)
{
	int error;

	signals_give(&run->inherited);
	execve(image->path, image->argv, image->environment);
	if (errno == ENOEXEC)
		shell_execute(image);
	error = errno;
	while (write(report, &error, sizeof(error)) < 0 && errno == EINTR)
		;
	_exit(RUN_EXIT_CANNOT);
}

/* Fork and exec. 0 or the errno that exec gave. */
static int image_start(struct run *run, const struct image *image)
{
	int ends[2], error = 0;
	ssize_t got;

	if (pipe2(ends, O_CLOEXEC) != 0)
		return errno;
	run->program = fork();
	if (run->program == 0)
		child_main(run, image, ends[1]);
	error = run->program < 0 ? errno : 0;
	close(ends[1]);
	if (run->program > 0) {
		do
			got = read(ends[0], &error, sizeof(error));
		while (got < 0 && errno == EINTR);
		if (got != sizeof(error))
			error = 0;
	}
	close(ends[0]);
	return error;
}

static char *area_make(const struct run *run)
{
	char *entry = NULL;

	return asprintf(&entry, RUN_ENV "=/proc/%d/fd/%d", (int)getpid(), run->control_fd) < 0
		       ? NULL
		       : entry;
}

int program_start(struct run *run)
{
	static const char *const replaced[] = {PRELOAD, SANITIZER, RUN_ENV, NULL};
	struct image image = {run->target.path, run->settings.program, NULL};
	char *added[] = {preload_make(run->target.library), sanitizer_make(), area_make(run), NULL};
	int error = ENOMEM;

	if (added[0] && added[1] && added[2])
		image.environment = environment_make(replaced, added);
	if (image.environment)
		error = image_start(run, &image);
	free(image.environment);
	for (size_t i = 0; i < 3; i++)
		free(added[i]);
	if (error == 0)
		return 0;
	errno = error;
	tool_errno(run->options, name_of_path(run->target.path).s);
	if (run->program <= 0)
		return RUN_EXIT_SELF;
	return error == ENOENT ? RUN_EXIT_NOT_FOUND : RUN_EXIT_CANNOT;
}

/* ---- Commands ------------------------------------------------------------------------------ */

static _Noreturn void command_main(const struct run *run, const char *command, char **environment)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null >= 0)
		dup2(null, STDIN_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	signals_give(&run->inherited);
	execle("/bin/sh", "sh", "-c", command, (char *)NULL, environment);
	_exit(RUN_EXIT_CANNOT);
}

pid_t command_start(const struct run *run, const char *command, char *const *variables)
{
	static const char *const none[] = {NULL};
	char **environment = environment_make(none, variables);
	pid_t pid = -1;

	if (!environment)
		return -1;
	pid = fork();
	if (pid == 0)
		command_main(run, command, environment);
	free(environment);
	return pid;
}

/* ---- Our own stdio ------------------------------------------------------------------------- */

int stdio_fill(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

void stdio_leave(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	close(null);
}
