/* SPDX-License-Identifier: MIT */
/*
 * digest.c - SHA-256 as coreutils computes it: an opinion that does not come from us.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define BATCH_FILES_MAX 1024
#define BATCH_BYTES_MAX 65536 /* of names; far below any ARG_MAX */

/* How many paths from the first on go into one command line. */
static size_t batch_count(char *const *paths, size_t count)
{
	size_t bytes = 0, n = 0;

	while (n < count && n < BATCH_FILES_MAX) {
		bytes += strlen(paths[n]) + 1;
		if (n > 0 && bytes > BATCH_BYTES_MAX)
			break;
		n++;
	}
	return n;
}

/* Start sha256sum with its output in output; the child has SIGPIPE as it should be. */
static int child_start(char **arguments, int output, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t pipe_set;
	int error;

	sigemptyset(&pipe_set);
	sigaddset(&pipe_set, SIGPIPE);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigdefault(&attributes, &pipe_set);
	error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (error == 0)
		error = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	if (error == 0)
		error = posix_spawnp(pid, arguments[0], &actions, &attributes, arguments, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -error;
}

/* One line for each file, in the order of the arguments; a leading backslash only says that the
 * name in it is escaped. */
static size_t digests_read(int input, struct digest *digests, size_t count)
{
	FILE *stream = fdopen(input, "r");
	char *line = NULL;
	size_t size = 0, n = 0;

	if (!stream) {
		close(input);
		return 0;
	}
	while (n < count && getline(&line, &size, stream) > 0) {
		const char *hex = line + (line[0] == '\\');

		if (strspn(hex, "0123456789abcdef") != DIGEST_MAX - 1)
			break;
		memcpy(digests[n].hex, hex, DIGEST_MAX - 1);
		digests[n].hex[DIGEST_MAX - 1] = '\0';
		n++;
	}
	free(line);
	fclose(stream);
	return n;
}

static int batch_run(char *const *paths, size_t count, struct digest *digests,
		     const struct tool_options *options)
{
	char **arguments = calloc(count + 3, sizeof(*arguments));
	int ends[2], status = 0, error;
	size_t n;
	pid_t pid;

	if (!arguments || pipe2(ends, O_CLOEXEC) != 0) {
		free(arguments);
		return tool_errno(options, "sha256sum");
	}
	arguments[0] = "sha256sum";
	arguments[1] = "--";
	memcpy(arguments + 2, paths, count * sizeof(*arguments));
	error = child_start(arguments, ends[1], &pid);
	free(arguments);
	close(ends[1]);
	if (error != 0) {
		close(ends[0]);
		tool_error(options, "sha256sum: %s (install coreutils)", strerror(-error));
		return TOOL_FAILED;
	}
	n = digests_read(ends[0], digests, count);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (n == count && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	tool_error(options, "sha256sum: it could not read all of the files");
	return TOOL_FAILED;
}

int digest_files(char *const *paths, size_t count, struct digest *digests,
		 const struct tool_options *options)
{
	while (count > 0) {
		size_t n = batch_count(paths, count);
		int code = batch_run(paths, n, digests, options);

		if (code != 0)
			return code;
		paths += n;
		digests += n;
		count -= n;
	}
	return 0;
}
