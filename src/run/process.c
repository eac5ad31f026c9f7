/* SPDX-License-Identifier: MIT */
/*
 * process.c - is a process, or a thread, still there? /proc knows zombies and numbers that were
 * used again; kill() has to do where /proc cannot be read.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define STAT_MAX	1024
#define FIELDS_TO_START 19 /* from the state, the third field, to the 22nd */

struct process_stat {
	char state;
	uint64_t start;
};

/* "/proc/ID/stat", without stdio. */
static void path_make(char *path, pid_t id)
{
	char digits[16];
	size_t count = 0, length = 0;

	for (uint32_t rest = (uint32_t)id; count == 0 || rest > 0; rest /= 10)
		digits[count++] = (char)('0' + rest % 10);
	memcpy(path, "/proc/", 6);
	length = 6;
	while (count > 0)
		path[length++] = digits[--count];
	memcpy(path + length, "/stat", 6);
}

/* The name, in parentheses, may hold anything: what counts begins after the last one. */
static bool stat_parse(const char *text, struct process_stat *stat)
{
	const char *s = strrchr(text, ')');

	if (!s || s[1] != ' ' || s[2] == '\0')
		return false;
	s += 2;
	*stat = (struct process_stat){.state = *s};
	for (unsigned i = 0; i < FIELDS_TO_START; i++) {
		s = strchr(s, ' ');
		if (!s)
			return true;
		s++;
	}
	while (*s >= '0' && *s <= '9')
		stat->start = stat->start * 10 + (uint64_t)(*s++ - '0');
	return true;
}

static bool stat_read(pid_t id, struct process_stat *stat)
{
	char path[32], text[STAT_MAX];
	ssize_t length;
	int fd;

	path_make(path, id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return false;
	text[length] = '\0';
	return stat_parse(text, stat);
}

uint64_t process_start(pid_t id)
{
	struct process_stat stat;
	int saved = errno;
	bool known = stat_read(id, &stat);

	errno = saved;
	return known ? stat.start : 0;
}

bool process_lives(pid_t id, uint64_t start)
{
	struct process_stat stat;
	int saved = errno;
	bool lives;

	if (id <= 0)
		return false;
	if (stat_read(id, &stat))
		lives = stat.state != 'Z' && stat.state != 'X' &&
			(start == 0 || stat.start == start);
	else
		lives = kill(id, 0) == 0 || errno == EPERM;
	errno = saved;
	return lives;
}
