/* SPDX-License-Identifier: MIT */
/*
 * snapshots.c - this process's part in snapshots. The views are quiesced below a hold that all
 * changes of mappings, and forks, wait for: so the thread that does it takes no lock of theirs.
 *
 * Files are looked up in the table of the area, which has those of all processes: one that only
 * writes to a file that another has mapped is held back as well. Not told apart are two threads
 * that write at once, over what is there, where one descriptor stands: both ask for the same place.
 */
#include "next.h"

#include "snapshots.h"

#include "maps.h"
#include "run/process.h"
#include "run/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

static int quiesce_error;

static void file_quiesce(struct file *f)
{
	if (mkw_view_count(f->handle) == 0)
		return;
	if (mkw_quiesce(f->handle) != 0)
		quiesce_error = -EIO;
	run_snapshot_maps(f->number);
}

/* Views that were let go cannot be taken back: a system call may be about to store there. */
static int quiesce(void)
{
	quiesce_error = maps_are_open() ? -EOPNOTSUPP : 0;
	if (quiesce_error == 0)
		files_each(file_quiesce);
	return quiesce_error;
}

/* Of a file that was not quiesced it says so, and that is all. */
static void file_resume(struct file *f)
{
	mkw_resume(f->handle);
}

static void resume(void)
{
	files_each(file_resume);
}

static bool is_ours(const char *tid)
{
	char path[300], name[16] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%s/comm", tid);
	file = fopen(path, "re");
	if (!file)
		return true;
	if (!fgets(name, sizeof(name), file))
		name[0] = '\0';
	fclose(file);
	return strncmp(name, "mkw-", 4) == 0;
}

/* A program whose main thread has ended by itself ends with its last thread. That must not be ours.
 */
static void look(void)
{
	struct dirent *entry;
	bool left = false;
	DIR *tasks;

	if (process_lives(getpid(), 0))
		return;
	tasks = opendir("/proc/self/task");
	while (tasks && (entry = readdir(tasks)) != NULL)
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != getpid())
			left = left || !is_ours(entry->d_name);
	if (!tasks)
		return;
	closedir(tasks);
	if (!left)
		exit(0);
}

void snapshots_join(void)
{
	static const struct run_snapshot_ops ops = {quiesce, resume, look};

	if (preload_control->options.snapshots)
		run_snapshot_join(preload_control, &ops);
}

/* ---- Calls that write to files ------------------------------------------------------------ */

static uint16_t file_number(const struct stat *st)
{
	for (uint16_t i = 0; i < RUN_FILES; i++) {
		const struct run_file *f = &preload_control->files[i];
		uint32_t state = atomic_load(&f->state);

		if (state == 0)
			break;
		if (state == RUN_FILE_THERE && f->dev == st->st_dev && f->ino == st->st_ino)
			return i;
	}
	return RUN_FILE_NONE;
}

static void hold_begin(struct snapshots_hold *hold, uint16_t file, uint64_t offset, uint64_t length)
{
	snapshots_join();
	run_hold_begin(preload_control);
	hold->begun = true;
	run_snapshot_before_write(preload_control, file, offset, length);
}

void snapshots_hold_fd(struct snapshots_hold *hold, int fd, int64_t offset, uint64_t length)
{
	int saved = errno, flags;
	struct stat st;
	uint16_t file;

	if (!snapshots_are_made() || length == 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return;
	file = file_number(&st);
	if (file != RUN_FILE_NONE) {
		flags = fcntl(fd, F_GETFL);
		/* What is appended lies behind all that was there at the instant. */
		if (flags >= 0 && (flags & O_APPEND) != 0)
			length = 0;
		else if (offset < 0)
			offset = lseek(fd, 0, SEEK_CUR);
		hold_begin(hold, file, offset < 0 ? 0 : (uint64_t)offset, length);
	}
	errno = saved;
}

void snapshots_hold_path(struct snapshots_hold *hold, int dir, const char *path)
{
	int saved = errno;
	struct stat st;
	uint16_t file = RUN_FILE_NONE;

	if (snapshots_are_made() && fstatat(dir, path, &st, 0) == 0 && S_ISREG(st.st_mode))
		file = file_number(&st);
	if (file != RUN_FILE_NONE)
		hold_begin(hold, file, 0, UINT64_MAX);
	errno = saved;
}

uint16_t snapshots_file(const struct stat *st)
{
	uint16_t file = snapshots_are_made() ? file_number(st) : RUN_FILE_NONE;

	if (file != RUN_FILE_NONE)
		snapshots_join();
	return file;
}

void snapshots_let_go(struct snapshots_hold *hold)
{
	int saved = errno;

	if (hold->begun)
		run_hold_end(preload_control);
	errno = saved;
}
