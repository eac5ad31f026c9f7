/* SPDX-License-Identifier: MIT */
/*
 * run_say.c - how processes, files and errors are named in messages, and what the library has to
 * say. Names come from programs and file systems: nothing in them reaches the terminal as a
 * command.
 */
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Names --------------------------------------------------------------------------------- */

struct run_name name_of_path(const char *path)
{
	struct run_name name;
	size_t length = 0;

	for (; length < sizeof(name.s) - 1 && path[length]; length++)
		name.s[length] = (unsigned char)path[length] < ' ' || path[length] == 0x7f
					 ? '?'
					 : path[length];
	name.s[length] = '\0';
	return name;
}

struct run_name name_of_process(const struct run *run, pid_t pid)
{
	char path[32], text[64] = "";
	struct run_name name;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	file = fopen(path, "re");
	if (file) {
		if (!fgets(text, sizeof(text), file))
			text[0] = '\0';
		fclose(file);
	}
	text[strcspn(text, "\n")] = '\0';
	name = name_of_path(text[0] != '\0' ? text : basename(run->target.path));
	snprintf(name.s + strlen(name.s), sizeof(name.s) - strlen(name.s), "[%d]", (int)pid);
	return name;
}

void file_path(const struct run *run, uint16_t file, char path[static PATH_MAX])
{
	path[0] = '\0';
	if (!run_file_is_there(run->control, file))
		return;
	/* The program can write there: nothing promises a NUL. */
	memcpy(path, run->control->files[file].path, PATH_MAX);
	path[PATH_MAX - 1] = '\0';
}

struct run_name name_of_file(const struct run *run, uint16_t file)
{
	char path[PATH_MAX], here[PATH_MAX];
	size_t length;

	file_path(run, file, path);
	if (path[0] == '\0')
		return (struct run_name){"a file without a name"};
	length = getcwd(here, sizeof(here)) ? strlen(here) : 0;
	if (length > 1 && strncmp(path, here, length) == 0 && path[length] == '/')
		return name_of_path(path + length + 1);
	return name_of_path(path);
}

struct run_name name_of_mount(const struct run *run, uint16_t file)
{
	char path[PATH_MAX];
	struct stat st;
	char *slash;
	dev_t dev;

	file_path(run, file, path);
	if (path[0] != '/' || stat(path, &st) != 0)
		return (struct run_name){"its file system"};
	dev = st.st_dev;
	/* Up, as long as the directory above is on the same device. */
	while (path[1] != '\0') {
		char last = '\0';

		slash = strrchr(path, '/');
		if (slash == path) {
			slash++;
			last = *slash;
		}
		*slash = '\0';
		if (stat(path, &st) != 0 || st.st_dev != dev) {
			*slash = last != '\0' ? last : '/';
			break;
		}
	}
	return name_of_path(path);
}

const char *error_words(int error)
{
	switch (-error) {
	case ENOSPC:
		return "no space left on the device";
	case EDQUOT:
		return "the disk quota is used up";
	default:
		return strerror(-error);
	}
}

/* ---- What the library says ----------------------------------------------------------------- */

#define SAYS (RUN_SAY_NO_FILE + 1)

struct said {
	bool codes[SAYS];
	bool files[SAYS][RUN_FILES];
};

struct said *said_create(void)
{
	return calloc(1, sizeof(struct said));
}

void said_destroy(struct said *said)
{
	free(said);
}

/* Once for each file, where it is about one that is known; else once. */
static bool said_before(struct said *said, const struct run_event *event)
{
	bool *before = &said->codes[event->length];
	bool was;

	if (event->file < RUN_FILES)
		before = &said->files[event->length][event->file];
	was = *before;
	*before = true;
	return was;
}

/* An errno of the library's, as it may be. */
static const char *event_error(const struct run_event *event)
{
	int64_t error = (int64_t)event->offset;

	if (error < 0)
		error = -error;
	return error > 0 && error < 4096 ? strerror((int)error) : "unknown error";
}

static void say(const struct run *run, const struct run_event *event)
{
	struct run_name who = name_of_process(run, event->pid);
	struct run_name file = name_of_file(run, event->file);

	switch ((enum run_say)event->length) {
	case RUN_SAY_RAW_CALLS:
		tool_error(run->options,
			   "%s: it makes system calls past the C library: its mappings are granted "
			   "whole, so their space is reserved at once",
			   who.s);
		break;
	case RUN_SAY_IO_URING:
		tool_error(
			run->options,
			"%s: it uses io_uring: its mappings are granted whole, so their space is "
			"reserved at once",
			who.s);
		break;
	case RUN_SAY_MAPPINGS:
		tool_error(
			run->options,
			"%s: the system allows it few more mappings: grants are at least %" PRIu64
			" pages now (raise vm.max_map_count)",
			who.s, event->offset);
		break;
	case RUN_SAY_NO_RESERVE:
		tool_error(run->options,
			   "%s: %s: its file system cannot reserve space: free blocks are counted, "
			   "and other threads and programs may take the last of them first: then "
			   "msync or the end of the mapping fails",
			   who.s, file.s);
		break;
	case RUN_SAY_FILE_TABLE:
		tool_error(run->options,
			   "%s: more than %u files are mapped: those that come now have no name in "
			   "messages and traces",
			   who.s, RUN_FILES);
		break;
	case RUN_SAY_NO_FILE:
		tool_error(run->options, "%s: %s: this mapping is not watched: %s", who.s, file.s,
			   event_error(event));
		break;
	}
}

void say_event(struct run *run, struct said *said, const struct run_event *event)
{
	if (event->length < SAYS && !said_before(said, event))
		say(run, event);
}
